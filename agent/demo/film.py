"""What the demo's camera sees: a wall with a bicycle at which nothing moves, and now and then a man who walks by.

The sample footage is an edited film of ten seconds: its cuts would be alerts, and its best scene with a walking man
lasts one second. A post looks at one place for years. So the film that is shown to the node is composed from the real
pixels of that one scene:

    steadied   the shot's slow pan is measured (phase correlation between neighbouring frames) and taken back, so that
               the camera stands still
    quiet      the last frame without the man is held, with sensor noise on it
    visit      the man's second, slowed down, in front of that frame

Encoded as cameras encode: one key frame a second, no B-frames. The file is looped while the demo runs.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import Corrupt
from agent.types import Bgr

FPS = 25
QUIET_BEFORE_S = 2.6
QUIET_AFTER_S = 4.8
SLOWED = 2  # each frame of the visit is shown so often
_SCENE = range(187, 215)  # frames of the sample footage: the man walks by, from left to right
_EMPTY = 220  # a frame of the same shot without him
_NOISE_SIGMA = 1.2  # gray levels: what a small sensor gives in daylight
_NOISES = 8  # different patterns of noise, in turn
LOOP_S = QUIET_BEFORE_S + len(_SCENE) * SLOWED / FPS + QUIET_AFTER_S


def make_film(footage: Path, target: Path) -> None:
    """Writes the film. Takes about two seconds. Raises Corrupt when `footage` is not the sample footage."""
    visit, empty = _steadied(footage)
    rng = np.random.default_rng(20260101)
    noises = [rng.normal(0.0, _NOISE_SIGMA, empty.shape[:2]).round().astype(np.int16) for _ in range(_NOISES)]
    pictures: list[Bgr] = [empty] * round(QUIET_BEFORE_S * FPS)
    pictures += [picture for picture in visit for _ in range(SLOWED)]
    pictures += [empty] * round(QUIET_AFTER_S * FPS)
    _encode([_noisy(picture, noises[index % _NOISES]) for index, picture in enumerate(pictures)], target)


def _steadied(footage: Path) -> tuple[list[Bgr], Bgr]:
    """The frames of the visit as a camera that stands still would have seen them, and the empty scene."""
    from agent.vision.opencv import cv2

    frames = _decode(footage, _EMPTY + 1)[_SCENE.start :]
    if len(frames) != _EMPTY + 1 - _SCENE.start:
        raise Corrupt(f"{footage}: the sample footage is not whole; remove it and fetch it again")
    gray = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float32) for frame in frames]
    window = cv2.createHanningWindow((gray[0].shape[1], gray[0].shape[0]), cv2.CV_32F)
    offset, offsets = np.zeros(2), [np.zeros(2)]
    for one, following in pairwise(gray):
        moved, _response = cv2.phaseCorrelate(one, following, window)
        offset = offset + np.array(moved)
        offsets.append(offset)
    empty = frames[-1]
    height, width = empty.shape[:2]
    visit: list[Bgr] = []
    for frame, shift in zip(frames[: len(_SCENE)], offsets, strict=False):
        back = np.array([[1, 0, offset[0] - shift[0]], [0, 1, offset[1] - shift[1]]])
        steady = empty.copy()
        cv2.warpAffine(frame, back, (width, height), dst=steady, borderMode=cv2.BORDER_TRANSPARENT)
        visit.append(steady)
    return visit, empty


def _noisy(picture: Bgr, noise: NDArray[np.int16]) -> Bgr:
    noisy: Bgr = np.clip(picture.astype(np.int16) + noise[:, :, None], 0, 255).astype(np.uint8)
    return noisy


def _decode(path: Path, count: int) -> list[Bgr]:
    import av

    pictures: list[Bgr] = []
    try:
        with av.open(str(path)) as source:
            for frame in source.decode(video=0):
                pictures.append(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8))
                if len(pictures) == count:
                    break
    except av.error.FFmpegError as error:
        raise Corrupt(f"{path}: cannot be decoded: {error}; remove it and fetch it again") from None
    return pictures


def _encode(pictures: list[Bgr], target: Path) -> None:
    import av

    options = {"preset": "veryfast", "tune": "zerolatency", "crf": "21", "g": str(FPS), "bf": "0", "sc_threshold": "0"}
    height, width = pictures[0].shape[:2]
    with av.open(str(target), "w", format="mp4") as sink:
        stream: Any = sink.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for picture in pictures:
            sink.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        sink.mux(stream.encode())
