"""Pictures as cameras and decoders give them: 8-bit YUV 4:2:0 planes. Luma is a view, colour a conversion on demand.

Views may be strided (padded rows, interleaved chroma); nothing is copied before somebody asks for pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.types import Box

if TYPE_CHECKING:
    from agent.types import Bgr, Luma

Plane = NDArray[np.uint8]
Polygon = Sequence[tuple[float, float]]

BLACK_Y, BLACK_UV = 16, 128


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """One picture. `u` and `v` have half the size of `y`, rounded up. Whoever owns the memory must keep it alive."""

    y: Plane  # (height, width)
    u: Plane
    v: Plane
    full_range: bool = False  # 0..255 as in JPEG, instead of 16..235

    @property
    def height(self) -> int:
        return int(self.y.shape[0])

    @property
    def width(self) -> int:
        return int(self.y.shape[1])


def planes_of_i420(array: Plane, width: int, height: int) -> Planes:
    """YUV420 as one `(height * 3 // 2, stride)` array with padded rows, the form of picamera2. Even sizes only.

    The chroma rows have half the stride, so two of them lie in each row of the array.
    """
    stride = array.shape[1]
    chroma = array[height : height * 3 // 2].reshape(-1, stride // 2)
    half = height // 2
    return Planes(array[:height, :width], chroma[:half, : width // 2], chroma[half : 2 * half, : width // 2])


def planes_of_nv12(array: Plane, width: int, height: int) -> Planes:
    """NV12 as one `(height * 3 // 2, at least width)` array: chroma interleaved, u first. Even sizes only."""
    chroma = array[height : height * 3 // 2]
    return Planes(array[:height, :width], chroma[:, 0:width:2], chroma[:, 1:width:2])


def luma_low(y: Plane, width_px: int) -> Luma:
    """A contiguous copy of the luma plane about `width_px` wide (never wider than the plane), aspect kept.

    Every n-th pixel, not an average: 0.04 ms instead of 0.45 for 720p (field notes), and the motion gate blurs anyway.
    Sizes that do not divide evenly are thinned as far as whole steps go and resized the rest of the way.
    """
    height, width = y.shape
    step = max(width // width_px, 1)
    thin = y[step // 2 :: step, step // 2 :: step]
    out_width = min(width_px, width)
    out_height = max(round(height * out_width / width), 1)
    thin = np.array(thin, order="C")  # always a copy: the camera takes its buffer back
    if thin.shape[1] == out_width:
        return thin
    return np.asarray(cv2.resize(thin, (out_width, out_height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def crop_bgr(planes: Planes, box: Box, px_max: int) -> Bgr:
    """Colour pixels of `box` (0..1), shrunk before conversion so that no side exceeds `px_max`. Always 1 x 1 or more.

    BT.601, as OpenCV converts: hues of BT.709 sources are off by a few per cent, which no detector here notices.
    """
    left, top, right, bottom = _pixels(planes, box)
    cl, ct, cr, cb = left // 2, top // 2, (right + 1) // 2, (bottom + 1) // 2
    y, u, v = planes.y[top:bottom, left:right], planes.u[ct:cb, cl:cr], planes.v[ct:cb, cl:cr]
    width, height = right - left, bottom - top
    scale = min(px_max / max(width, height), 1.0)
    out_w, out_h = max(round(width * scale), 1), max(round(height * scale), 1)
    even_w, even_h = out_w + out_w % 2, out_h + out_h % 2
    i420 = np.empty((even_h * 3 // 2, even_w), np.uint8)
    flat = i420.reshape(-1)
    luma_n, chroma_n = even_w * even_h, even_w * even_h // 4
    _fit(y, flat[:luma_n].reshape(even_h, even_w), out_w, out_h)
    for part, at in ((u, luma_n), (v, luma_n + chroma_n)):
        _fit(part, flat[at : at + chroma_n].reshape(even_h // 2, even_w // 2), even_w // 2, even_h // 2)
    if planes.full_range:
        _to_limited(flat[:luma_n], 219 / 255, 16.0)
        _to_limited(flat[luma_n:], 224 / 255, 128 - 128 * 224 / 255)
    bgr = cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420)
    return np.ascontiguousarray(bgr[:out_h, :out_w], dtype=np.uint8)


def _pixels(planes: Planes, box: Box) -> tuple[int, int, int, int]:
    """The box in pixels, left and top even (chroma has half the size), at least one pixel, inside the picture."""
    box = box.clipped()
    left = min(int(box.x * planes.width), planes.width - 1) // 2 * 2
    top = min(int(box.y * planes.height), planes.height - 1) // 2 * 2
    right = min(max(round(box.x2 * planes.width), left + 1), planes.width)
    bottom = min(max(round(box.y2 * planes.height), top + 1), planes.height)
    return left, top, right, bottom


def _fit(part: Plane, out: Plane, width: int, height: int) -> None:
    """Copies `part` into the top left of `out`, shrunk to `width` x `height`; the last row and column are repeated."""
    if part.shape != (height, width):
        part = _shrunk(np.ascontiguousarray(part), width, height)
    out[:height, :width] = part
    if width < out.shape[1]:
        out[:height, width:] = out[:height, width - 1 : width]
    if height < out.shape[0]:
        out[height:] = out[height - 1 : height]


def _shrunk(part: Plane, width: int, height: int) -> Plane:
    """`part` resized: halved by averaging while that leaves enough, then interpolated.

    OpenCV's INTER_AREA at an uneven scale took 4.7 ms for a 720p plane, halving 0.14 and interpolating 0.3.
    """
    while part.shape[0] >= 2 * height and part.shape[1] >= 2 * width:
        rows, columns = part.shape[0] // 2, part.shape[1] // 2
        even = part[: 2 * rows, : 2 * columns]
        part = np.asarray(cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if part.shape == (height, width):
        return part
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _to_limited(values: Plane, scale: float, shift: float) -> None:
    """Full range to 16..235, in place."""
    table = np.clip(np.rint(np.arange(256) * scale + shift), 0, 255).astype(np.uint8)
    values[:] = table[values]


class Mask:
    """Privacy polygons (0..1 of the picture) for pictures of one size. `apply` blackens them in place.

    A pixel that a polygon touches is black; a chroma sample is neutral if any of its four pixels is black.
    """

    def __init__(self, polygons: Sequence[Polygon], width: int, height: int) -> None:
        self._luma = _raster(polygons, width, height)
        padded = np.pad(self._luma, ((0, height % 2), (0, width % 2)))
        pairs = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
        self._chroma: NDArray[np.bool_] = np.asarray(pairs.any(axis=(1, 3)), dtype=np.bool_)
        self.size = (width, height)

    def apply(self, planes: Planes) -> None:
        """Blackens the picture, which must be writable. Raises ValueError for a picture of another size."""
        if (planes.width, planes.height) != self.size:
            raise ValueError(f"mask made for {self.size} used on {planes.width} x {planes.height}")
        np.copyto(planes.y, np.uint8(BLACK_Y), where=self._luma)
        np.copyto(planes.u, np.uint8(BLACK_UV), where=self._chroma)
        np.copyto(planes.v, np.uint8(BLACK_UV), where=self._chroma)


def blacken(planes: Planes) -> None:
    """Blackens the whole picture: what is shown when a mask cannot be drawn."""
    planes.y[:] = BLACK_Y
    planes.u[:] = BLACK_UV
    planes.v[:] = BLACK_UV


def _raster(polygons: Sequence[Polygon], width: int, height: int) -> NDArray[np.bool_]:
    """The pixels that the polygons cover, borders included."""
    canvas: Any = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        points = np.array([(x * width, y * height) for x, y in polygon])
        corners = np.clip(np.floor(points), 0, (width - 1, height - 1)).astype(np.int32)
        cv2.fillPoly(canvas, [corners.reshape(-1, 1, 2)], 255)
    if polygons:
        canvas = cv2.dilate(canvas, np.ones((3, 3), np.uint8))
    return np.asarray(canvas, dtype=np.bool_)
