"""The motion gate: where in the low-resolution picture something moves. Pure: pictures and times in, boxes out.

Two questions are asked of every spot. Does it differ from the background (MOG2, which knows swaying leaves as a
background of several states)? And does it differ from the picture before? A thing that was left or taken away answers
the first alone and is not motion: without the second question it would hold the gate open until it is learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from agent.types import NS, Box, Luma
from agent.vision.opencv import cv2

BOXES_MAX = 32  # the largest; more moving things than this is weather
_SIDE_PX_MIN = 16  # a smaller picture has too few pixels to tell its noise from motion
_TAU_S = 20.0  # the background takes this long to believe in something new
_GAP_S_MAX = 60.0  # after a longer pause the old background is hearsay
_MEMORY_FRAMES_MIN = 8  # until so many pictures are seen each counts the same
_SHARE_MAX = 0.5  # more of the picture than this at once is the light or the camera, not a visitor
_GAIN_STEP = 0.08  # so does a step of the exposure
_FLAT_SPREAD = 1.5  # standard deviation of luma: nothing can be told apart
_STEP_MIN = 9  # luma a moving pixel changes by at least, above compression noise
_STEP_NOISES = 12.0  # times the quieter half's mean change: about four standard deviations of sensor noise
_ACTIVE_PX_MIN = 4  # fewer changed pixels than this are no motion anywhere
_REST_S = 1.0  # in an idle scene the background learns this often
_MOVING_SHARE = 0.04  # of a spot that differs from the background, at least this moves now


class Scene(StrEnum):
    """What the gate makes of the whole picture."""

    STEADY = "steady"
    LEARNING = "learning"  # no background yet: first picture, new size, after a long pause
    CHANGED = "changed"  # everything changed at once (light, exposure, camera turned): learning anew
    FLAT = "flat"  # black, white or covered: there is nothing to see
    EMPTY = "empty"  # a picture without pixels


@dataclass(frozen=True, slots=True)
class Motion:
    """What moves in one picture."""

    boxes: tuple[Box, ...]  # largest first, BOXES_MAX at most
    share: float  # of the picture that differs from the background, 0..1; 0 where nothing moved and nobody asked
    scene: Scene


_NOTHING_MOVES = Motion((), 0.0, Scene.STEADY)
_NOTHING_EMPTY = Motion((), 0.0, Scene.EMPTY)
_NOTHING_FLAT = Motion((), 0.0, Scene.FLAT)


class MotionGate:
    """Keeps the background of one camera. One thread; about 0.5 ms for 320x180 on x86."""

    def __init__(self, *, area_min: float) -> None:
        """`area_min` is the smallest moving spot that counts, as a share of the picture."""
        self._area_min = area_min
        self._open_kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
        self._join_kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
        self._model: cv2.BackgroundSubtractorMOG2 | None = None
        self._before: Luma | None = None
        self._before_ns = 0
        self._learned_ns = 0
        self._learned_frames = 0

    def forget(self) -> None:
        """Starts over: the next picture is all background."""
        self._model = None
        self._before = None

    def look(self, luma: Luma, boot_ns: int) -> Motion:
        """What moves in `luma` (height, width; uint8). Times may come at any interval; one step back counts as none."""
        if luma.ndim != 2 or min(luma.shape) < _SIDE_PX_MIN:
            return _NOTHING_EMPTY
        picture: Luma = cv2.blur(luma, (3, 3))  # type: ignore[assignment]
        if float(cv2.meanStdDev(picture)[1][0, 0]) < _FLAT_SPREAD:
            self.forget()  # what comes after the dark is a new scene
            return _NOTHING_FLAT
        if self._before is None or self._before.shape != luma.shape or (boot_ns - self._before_ns) > _GAP_S_MAX * NS:
            return self._learn(picture, boot_ns, Scene.LEARNING)
        gain = _gain(self._before[::8, ::8], picture[::8, ::8])
        if abs(math.log(gain)) > _GAIN_STEP:
            return self._learn(picture, boot_ns, Scene.CHANGED)
        return self._compare(picture, _moving(self._before, picture, gain), boot_ns)

    def _compare(self, picture: Luma, moving: Luma, boot_ns: int) -> Motion:
        self._before, self._before_ns = picture, max(boot_ns, self._before_ns)
        if cv2.countNonZero(moving) < _ACTIVE_PX_MIN and boot_ns - self._learned_ns < _REST_S * NS:
            return _NOTHING_MOVES  # the background is asked, and taught, only when the answer can matter
        differs = self._differs(picture, boot_ns)
        share = cv2.countNonZero(differs) / differs.size
        if share > _SHARE_MAX:
            return self._learn(picture, boot_ns, Scene.CHANGED)
        return Motion(self._spots(differs, moving), share, Scene.STEADY)

    def _learn(self, picture: Luma, boot_ns: int, scene: Scene) -> Motion:
        self._model = cv2.createBackgroundSubtractorMOG2(history=500, varThreshold=16, detectShadows=False)
        self._model.setNMixtures(4)
        self._model.apply(picture, learningRate=1.0)
        self._before, self._before_ns = picture, boot_ns
        self._learned_ns, self._learned_frames = boot_ns, 1
        return Motion((), 1.0 if scene is Scene.CHANGED else 0.0, scene)

    def _differs(self, picture: Luma, boot_ns: int) -> Luma:
        """Pixels (255) that the background does not explain; the background learns by time, not by frames."""
        assert self._model is not None  # noqa: S101  (`look` has learned before)
        passed_s = max(boot_ns - self._learned_ns, 0) / NS
        self._learned_ns = max(boot_ns, self._learned_ns)
        self._learned_frames = min(self._learned_frames + 1, _MEMORY_FRAMES_MIN)
        new_s = 1.0 - math.exp(-passed_s / _TAU_S)
        rate = new_s if self._learned_frames >= _MEMORY_FRAMES_MIN else max(new_s, 1.0 / (2 * self._learned_frames))
        mask = self._model.apply(picture, learningRate=min(rate, 0.5))
        opened: Luma = cv2.morphologyEx(mask, cv2.MORPH_OPEN, self._open_kernel)  # type: ignore[assignment]
        return opened

    def _spots(self, differs: Luma, moving: Luma) -> tuple[Box, ...]:
        """Boxes of the connected spots of `differs` that are large enough and of which a part is `moving`."""
        joined = cv2.dilate(differs, self._join_kernel)
        count, names, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8, ltype=cv2.CV_16U)
        if count <= 1:
            return ()
        height, width = differs.shape
        pixels = np.bincount(names[differs > 0], minlength=count)
        active = np.bincount(names[(moving > 0) & (differs > 0)], minlength=count)
        enough = np.maximum(pixels * _MOVING_SHARE, _ACTIVE_PX_MIN)
        wanted = np.flatnonzero((pixels >= self._area_min * differs.size) & (active >= enough))
        wanted = wanted[wanted > 0]
        order = wanted[np.argsort(-pixels[wanted], kind="stable")][:BOXES_MAX]
        margin = 2  # the dilation widened each spot by 3
        boxes = []
        for index in order:
            x, y, w, h = (int(value) for value in stats[index][:4])
            left, top = x + margin, y + margin
            boxes.append(
                Box(
                    left / width, top / height, max(w - 2 * margin, 1) / width, max(h - 2 * margin, 1) / height
                ).clipped()
            )
        return tuple(boxes)


def _gain(before: NDArray[np.uint8], now: NDArray[np.uint8]) -> float:
    """Ratio of brightness of two pictures: the median over pixels, which the exposure moves and a visitor cannot."""
    ratio = ((now.astype(np.float32) + 16.0) / (before.astype(np.float32) + 16.0)).ravel()
    half = ratio.size // 2
    middle = np.partition(ratio, half)  # the same as np.median, in half the time: the picture is tiny
    return float(middle[half] if ratio.size % 2 else (middle[:half].max() + middle[half]) / 2)


def _moving(before: Luma, now: Luma, gain: float) -> Luma:
    """Pixels (255) that changed since the picture before by more than its noise, the exposure's drift taken out."""
    if abs(gain - 1.0) > 0.01:
        before = cv2.convertScaleAbs(before, alpha=gain, beta=16.0 * (gain - 1.0))  # type: ignore[assignment]
    change = cv2.absdiff(before, now)
    sample = change[::8, ::8].ravel()
    half = sample.size // 2
    noise = float(np.partition(sample, half)[:half].mean())  # the quieter half: no visitor is in it
    _, mask = cv2.threshold(change, max(_STEP_MIN, _STEP_NOISES * noise), 255, cv2.THRESH_BINARY)
    return mask  # type: ignore[return-value]
