"""Weather over a real still picture: light, noise and things that are nobody. Each is a function of time and a seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from agent.types import NS, Box, Frame
from agent.vision.opencv import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.types import Bgr

    Picture = NDArray[np.float32]

Weather = Callable[["Picture", float, np.random.Generator], "Picture"]
"""(picture, seconds, chance) -> picture; 0..255 and beyond, the caller clips."""


class Decoded:
    """A decoded picture as the source of a frame."""

    def __init__(self, bgr: Bgr) -> None:
        self.bgr = bgr

    def crop(self, box: Box, px_max: int) -> Bgr:
        height, width = self.bgr.shape[:2]
        part = self.bgr[int(box.y * height) : round(box.y2 * height), int(box.x * width) : round(box.x2 * width)]
        scale = px_max / max(*part.shape[:2], 1)
        return part if scale >= 1 else cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def frame(seq: int, seconds: float, bgr: Bgr) -> Frame:
    """As a camera gives it: luma of 320 columns."""
    gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    size = (320, round(320 * bgr.shape[0] / bgr.shape[1]))
    luma = np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)
    return Frame(seq, NS + round(seconds * NS), luma, Decoded(bgr))


def film(
    ground: Bgr,
    weather: Weather,
    *,
    seconds: float,
    seed: int,
    fps: float = 5.0,
    calm_s: float = 4.0,
    visitor: Callable[[Picture, float], Picture] | None = None,
) -> Iterator[Frame]:
    """`calm_s` of sensor noise alone, then the weather, with or without a visitor behind it."""  # fmt: skip
    chance = np.random.default_rng(seed)
    for index in itertools.count():
        at_s = index / fps
        if at_s >= calm_s + seconds:
            return
        picture = ground.astype(np.float32)
        if at_s >= calm_s:
            if visitor is not None:
                picture = visitor(picture, at_s - calm_s)
            picture = weather(picture, at_s - calm_s, chance)
        picture = picture + chance.normal(0, 2.5, picture.shape).astype(np.float32)
        yield frame(index + 1, at_s, picture.clip(0, 255).astype(np.uint8))


def calm(picture: Picture, _s: float, _chance: np.random.Generator) -> Picture:
    return picture


def night_noise(picture: Picture, _s: float, chance: np.random.Generator) -> Picture:
    return picture * 0.4 + chance.normal(0, 9, picture.shape).astype(np.float32)


def exposure(picture: Picture, s: float, _chance: np.random.Generator) -> Picture:
    """A step every four seconds."""
    return picture * (1.0, 0.75, 1.15, 0.9)[int(s / 4) % 4]


def headlights(picture: Picture, s: float, _chance: np.random.Generator) -> Picture:
    """A pair of lamps and its pool of light cross the picture in six seconds, at night."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x = (s % 6) / 6 * 1.4 * width - 0.2 * width
    pool = 150 * np.exp(-(((columns - x) / (0.2 * width)) ** 2) - ((rows - 0.7 * height) / (0.25 * height)) ** 2)
    lamps = sum(
        255 * np.exp(-((columns - x - d) ** 2 + (rows - 0.6 * height) ** 2) / (0.015 * width) ** 2) for d in (-14, 14)
    )
    return np.asarray(picture * 0.35 + (pool + lamps)[..., None], np.float32)


def shadows(picture: Picture, s: float, _chance: np.random.Generator) -> Picture:
    """The shadows of clouds or branches: three soft ones, up to 40 % deep, each on its way."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    shade = np.ones((height, width), np.float32)
    for index in range(3):
        x = ((0.05 + 0.02 * index) * s + 0.35 * index) % 1.3 * width
        y = (0.3 + 0.2 * index) * height
        shade -= 0.4 * np.exp(-(((columns - x) / (0.12 * width)) ** 2) - ((rows - y) / (0.16 * height)) ** 2)
    return np.asarray(picture * shade[..., None], np.float32)


def rain(picture: Picture, _s: float, chance: np.random.Generator) -> Picture:
    height, width = picture.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    for _ in range(220):
        x, y, length = chance.integers(width), chance.integers(height), chance.integers(8, 34)
        cv2.line(layer, (int(x), int(y)), (int(x - length // 5), int(y + length)), (int(chance.integers(60, 150)),), 1)
    return picture * 0.9 + layer[..., None]


def snow(picture: Picture, s: float, _chance: np.random.Generator) -> Picture:
    height, width = picture.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    for index in range(160):
        speed = 40 + index % 7 * 22
        x = (index * 97.3 + 12 * np.sin(s + index)) % width
        y = (index * 53.7 + speed * s) % height
        cv2.circle(layer, (int(x), int(y)), 1 + index % 3, (235,), -1)
    return np.maximum(picture, cv2.GaussianBlur(layer, (0, 0), 0.8)[..., None].astype(np.float32))


def insects(picture: Picture, s: float, chance: np.random.Generator) -> Picture:
    """Moths close to the lens at night: fast, bright, out of focus, there for a second or two."""
    height, width = picture.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    for index in range(2):
        if (s + 2.1 * index) % 4 < 1.6:
            x, y = chance.uniform(0, width), chance.uniform(0, height)
            size = int(chance.integers(8, 30)), int(chance.integers(5, 16))
            cv2.ellipse(layer, (int(x), int(y)), size, float(chance.uniform(0, 180)), 0, 360, (240,), -1)
    return picture * 0.45 + cv2.GaussianBlur(layer, (0, 0), 4)[..., None].astype(np.float32)


def tree(picture: Picture, s: float, _chance: np.random.Generator) -> Picture:
    """A third of the picture sways: every part of it by a few pixels, each in its own time."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    reach = 6 * np.clip((width / 3 - columns) / 40, 0, 1)
    x = columns + reach * np.sin(2.1 * s + rows / 23)
    y = rows + 0.5 * reach * np.sin(1.7 * s + columns / 31)
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)  # type: ignore[return-value]


def web(picture: Picture, s: float, _chance: np.random.Generator) -> Picture:
    """Threads before the lens that the wind moves and the lamp lights, and their spider."""
    height, width = picture.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    for index in range(9):
        sway = 8 * np.sin(1.3 * s + index)
        start, end = (int(width * index / 9 + sway), 0), (int(width * (9 - index) / 9 - sway), height)
        cv2.line(layer, start, end, (120,), 2)
    at = int(width * 0.5 + 60 * np.sin(0.4 * s)), int(height * 0.5 + 30 * np.sin(0.9 * s))
    cv2.ellipse(layer, at, (26, 15), 30 * np.sin(s), 0, 360, (200,), -1)
    return picture * 0.6 + cv2.GaussianBlur(layer, (0, 0), 2.5)[..., None].astype(np.float32)


ALL: dict[str, Weather] = {
    "calm": calm,
    "night noise": night_noise,
    "exposure steps": exposure,
    "headlights": headlights,
    "shadows": shadows,
    "rain": rain,
    "snow": snow,
    "insects": insects,
    "swaying trees": tree,
    "spider web": web,
}
