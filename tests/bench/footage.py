"""The footage that every program of a run gets: made from the sample film, the same bytes each time.

    street   the film itself, cut to 16:9, again and again: people, cyclists, cars, and a cut every few seconds
    still    one picture of it with nobody in it, held, under a sensor's noise: what a post looks at most of the day
    visits   the still picture, into which real people of the film walk and out again: an alert each time

H.264 as a camera sends it: no B-frames, a key frame every second, a bounded rate. One turn is encoded and its access
units are repeated, for encoding costs more than everything that is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (height, width, 3), BGR

FPS = 15
_NOBODY = 240  # a frame of the film without a person in it
_SIGMA = 2.0  # of the noise, in steps of luma
_NOISE_PICTURES = 15  # as many are made and taken in turn: making one costs more than encoding it
_CYCLIST = 120  # a frame in which a man stands astride a bicycle
_CYCLIST_BOX = (486, 8, 86, 232)  # where, in pixels of the film: left, top, width, height
PERIOD_S = 4.0  # from visit to visit
STAY_S = 1.6
_TURN_S = {"street": 10, "still": 10, "visits": 12}


@dataclass(frozen=True, slots=True)
class Scene:
    """One file of footage."""

    name: str
    width: int
    height: int
    seconds: int
    path: Path

    @property
    def turn_frames(self) -> int:
        """Pictures until it begins again."""
        return min(_TURN_S[self.name], self.seconds) * FPS


def make(film: Path, folder: Path, *, name: str, height: int, seconds: int) -> Scene:
    """Encodes a scene (street, still, visits) into `folder`, or takes the one that lies there."""
    width = height * 16 // 9 // 2 * 2
    scene = Scene(name, width, height, seconds, folder / f"{name}-{height}p-{seconds}s.mp4")
    if not scene.path.exists():
        pictures = {"street": _street, "still": _still, "visits": _visits}[name](_film(film), scene)
        temporary = scene.path.with_suffix(".part")
        _encode(pictures, temporary, scene)
        temporary.rename(scene.path)
    return scene


def _film(path: Path) -> list[Picture]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="bgr24"), np.uint8) for frame in container.decode(video=0)]


def _fit(picture: Picture, scene: Scene) -> Picture:
    """The middle of a picture, at the scene's shape and size."""
    height, width = picture.shape[:2]
    wanted = min(round(height * scene.width / scene.height), width)
    left = (width - wanted) // 2
    cut = np.ascontiguousarray(picture[:, left : left + wanted])
    return np.asarray(cv2.resize(cut, (scene.width, scene.height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _street(film: list[Picture], scene: Scene) -> Iterator[Picture]:
    for index in range(scene.turn_frames):
        yield _fit(film[index * 25 // FPS % len(film)], scene)


def _still(film: list[Picture], scene: Scene) -> Iterator[Picture]:
    held = _fit(film[_NOBODY], scene)
    noise = _noise(scene)
    for index in range(scene.turn_frames):
        yield _noisy(held, noise, index)


def _visits(film: list[Picture], scene: Scene) -> Iterator[Picture]:
    held = _fit(film[_NOBODY], scene)
    noise = _noise(scene)
    left, top, width, height = _CYCLIST_BOX
    scale = scene.height / 272
    size = (round(width * scale), round(height * scale))
    person = cv2.resize(film[_CYCLIST][top : top + height, left : left + width], size)
    for index in range(scene.turn_frames):
        picture = held.copy()
        since_s = index / FPS % PERIOD_S - (PERIOD_S - STAY_S)
        if since_s >= 0:
            visit = int(index / FPS / PERIOD_S)
            room = scene.width - size[0]
            x = round(room * (0.1 + 0.25 * (visit % 3) + 0.2 * since_s / STAY_S))
            y = scene.height - size[1]
            picture[y : y + size[1], x : x + size[0]] = person
        yield _noisy(picture, noise, index)


def _noise(scene: Scene) -> list[NDArray[np.int16]]:
    chance = np.random.default_rng(1)
    shape = (scene.height, scene.width, 1)
    return [np.rint(chance.normal(0, _SIGMA, shape)).astype(np.int16) for _ in range(_NOISE_PICTURES)]


def _noisy(picture: Picture, noise: list[NDArray[np.int16]], index: int) -> Picture:
    return np.clip(picture + noise[index * 7 % len(noise)], 0, 255).astype(np.uint8)


def _encode(pictures: Iterator[Picture], path: Path, scene: Scene) -> None:
    kbps = 2500 if scene.height >= 720 else 1000
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        stream.options = {
            "preset": "veryfast",
            "tune": "zerolatency",
            "g": str(FPS),
            "sc_threshold": "0",
            "b": f"{kbps}k",
            "maxrate": f"{kbps}k",
            "bufsize": f"{kbps}k",
        }
        turn: list[tuple[bytes, bool]] = []
        for picture in pictures:
            units = stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24"))
            turn += [(bytes(unit), bool(unit.is_keyframe)) for unit in units]
        turn += [(bytes(unit), bool(unit.is_keyframe)) for unit in stream.encode()]
        for index in range(scene.seconds * FPS):
            data, keyframe = turn[index % len(turn)]
            unit = av.Packet(data)
            unit.stream, unit.time_base = stream, Fraction(1, FPS)
            unit.pts = unit.dts = index
            unit.is_keyframe = keyframe
            container.mux(unit)
