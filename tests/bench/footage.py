"""The footage that every program of a run gets: made from the sample film, the same bytes each time.

    street   the film itself, cut to 16:9, again and again: people, cyclists, cars, and a cut every few seconds
    still    one picture of it with nobody in it, held, under a sensor's noise: what a post looks at most of the day
    visits   a place that a man of the film crosses in two of every four seconds: an alert each time
    mixed    the same place, where he comes by every half minute and is gone after six seconds

H.264 as a camera sends it: no B-frames, a key frame every second or two, a bounded rate (`cbr`), or a constant quality
under such a bound (`vbr`), which is how most cameras are delivered. One turn is encoded and its access units are
repeated, for encoding costs more than everything that is measured here.
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
_CYCLIST = range(108, 138)  # frames in which a man stands astride a bicycle
_CYCLIST_BOX = (350, 0, 160, 272)  # where, in pixels of the film: left, top, width, height
_WALK_PX = 100  # he is moved by so much in a visit: who stands still is furniture to the tracker
PERIOD_S = 4.0  # from visit to visit
STAY_S = 2.0
MIXED_PERIOD_S = 30.0
MIXED_STAY_S = 6.0
_MIXED_WALK_PX = 360
_TURN_S = {"street": 10, "still": 10, "visits": 8, "mixed": 30}
_CRF = 24  # of `vbr`


@dataclass(frozen=True, slots=True)
class Scene:
    """One file of footage."""

    name: str
    width: int
    height: int
    seconds: int
    path: Path
    rate: str = "cbr"
    gop_s: int = 1

    @property
    def turn_frames(self) -> int:
        """Pictures until it begins again."""
        return min(_TURN_S[self.name], self.seconds) * FPS


def make(film: Path, folder: Path, *, name: str, height: int, seconds: int, rate: str = "cbr", gop_s: int = 1) -> Scene:
    """Encodes a scene (street, still, visits, mixed) into `folder`, or takes the one that lies there."""
    width = height * 16 // 9 // 2 * 2
    file = f"{name}-{height}p-{seconds}s-{rate}-{gop_s}.mp4"
    scene = Scene(name, width, height, seconds, folder / file, rate, gop_s)
    if not scene.path.exists():
        makers = {"street": _street, "still": _still, "visits": _visits, "mixed": _mixed}
        pictures = makers[name](_film(film), scene)
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


def units(scene: Scene) -> list[tuple[bool, bytes]]:
    """The access units of a scene's file (key frame, Annex B), for a camera that sends them."""
    with av.open(str(scene.path)) as container:
        stream: Any = container.streams.video[0]
        to_bytes = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        found = []
        for packet in container.demux(stream):
            if packet.size:
                keyframe = bool(packet.is_keyframe)
                found.append((keyframe, b"".join(bytes(part) for part in to_bytes.filter(packet))))
        return found


def _visits(film: list[Picture], scene: Scene) -> Iterator[Picture]:
    return _crossings(film, scene, period_s=PERIOD_S, stay_s=STAY_S, walk_px=_WALK_PX)


def _mixed(film: list[Picture], scene: Scene) -> Iterator[Picture]:
    return _crossings(film, scene, period_s=MIXED_PERIOD_S, stay_s=MIXED_STAY_S, walk_px=_MIXED_WALK_PX)


def _crossings(film: list[Picture], scene: Scene, *, period_s: float, stay_s: float, walk_px: int) -> Iterator[Picture]:
    left, top, width, height = _CYCLIST_BOX
    mask = np.zeros(film[0].shape[:2], np.uint8)
    mask[top : top + height, left : left + width] = 255
    empty = np.asarray(cv2.inpaint(film[_CYCLIST[0]], mask, 5, cv2.INPAINT_TELEA), np.uint8)
    absent = _fit(empty, scene)
    edge = np.minimum(np.arange(width) + 1, np.arange(width)[::-1] + 1).clip(max=16)[None, :, None] / 16
    noise = _noise(scene)
    period, stay = round(period_s * FPS), round(stay_s * FPS)
    for index in range(scene.turn_frames):
        since = index % period - (period - stay)
        picture = absent
        if since >= 0:
            man = film[_CYCLIST[since % len(_CYCLIST)]][top : top + height, left : left + width]
            place = empty.copy()
            x = min(left + walk_px // 2, film[0].shape[1] - width) - walk_px * since // stay
            under = place[top : top + height, x : x + width]
            under[:] = np.rint(man * edge + under * (1 - edge))
            picture = _fit(place, scene)
        yield _noisy(picture, noise, index)


def _noise(scene: Scene) -> list[NDArray[np.int16]]:
    chance = np.random.default_rng(1)
    shape = (scene.height, scene.width, 1)
    return [np.rint(chance.normal(0, _SIGMA, shape)).astype(np.int16) for _ in range(_NOISE_PICTURES)]


def _noisy(picture: Picture, noise: list[NDArray[np.int16]], index: int) -> Picture:
    noisy: Picture = np.clip(picture + noise[index * 7 % len(noise)], 0, 255).astype(np.uint8)
    return noisy


def _encode(pictures: Iterator[Picture], path: Path, scene: Scene) -> None:
    kbps = 2500 if scene.height >= 720 else 1000
    with av.open(str(path), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        # Several threads share a picture's bits by who is ready first: now and then a file would have other bytes, and
        # on another number of cores other slices.
        stream.codec_context.thread_count = 1
        stream.options = {
            "preset": "veryfast",
            "tune": "zerolatency",
            "g": str(FPS * scene.gop_s),
            "sc_threshold": "0",
            "maxrate": f"{kbps}k",
            "bufsize": f"{kbps}k",
            **({"crf": str(_CRF)} if scene.rate == "vbr" else {"b": f"{kbps}k"}),
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
