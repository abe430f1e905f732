"""Planes, crops and masks: what is asked for, in the right place, in the right colour."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.camera import yuv
from agent.types import FULL, Box


def coloured(width: int, height: int) -> tuple[yuv.Planes, np.ndarray]:
    """A picture of four coloured quarters, as planes and as BGR."""
    bgr = np.zeros((height, width, 3), np.uint8)
    bgr[: height // 2, : width // 2] = (200, 30, 30)
    bgr[: height // 2, width // 2 :] = (30, 200, 30)
    bgr[height // 2 :, : width // 2] = (30, 30, 200)
    bgr[height // 2 :, width // 2 :] = (180, 180, 180)
    i420 = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    return yuv.planes_of_i420(np.ascontiguousarray(i420, dtype=np.uint8), width, height), bgr


@pytest.mark.parametrize("padding", [0, 32, 64])
def test_padded_rows_are_not_seen(padding: int) -> None:
    """picamera2 pads rows to what the hardware likes (issues 1182, 645)."""
    planes, bgr = coloured(64, 48)
    stride = 64 + padding
    flat = np.full(stride * 72, 77, np.uint8)
    flat[: stride * 48].reshape(48, stride)[:, :64] = planes.y
    chroma = flat[stride * 48 :].reshape(-1, stride // 2)
    chroma[:24, :32], chroma[24:48, :32] = planes.u, planes.v
    padded = yuv.planes_of_i420(flat.reshape(72, stride), 64, 48)
    assert np.abs(yuv.crop_bgr(padded, FULL, 64).astype(int) - bgr).max() <= 4
    nv12 = np.full((72, stride), 77, np.uint8)
    nv12[:48, :64] = planes.y
    nv12[48:, 0:64:2], nv12[48:, 1:64:2] = planes.u, planes.v
    assert np.abs(yuv.crop_bgr(yuv.planes_of_nv12(nv12, 64, 48), FULL, 64).astype(int) - bgr).max() <= 4


def test_a_crop_is_the_part_asked_for() -> None:
    planes, bgr = coloured(320, 240)
    corner = yuv.crop_bgr(planes, Box(0.5, 0.0, 0.5, 0.5), 4096)
    assert corner.shape == (120, 160, 3)
    assert np.abs(corner.astype(int) - bgr[:120, 160:]).max() <= 4
    small = yuv.crop_bgr(planes, FULL, 80)
    assert small.shape == (60, 80, 3)
    assert np.abs(small[:28, :38].astype(int) - bgr[0, 0]).max() <= 4


def test_full_range_is_not_washed_out() -> None:
    """JPEG-range video (yuvj420p, webcams): black is 0 and white 255."""
    for level in (0, 128, 255):
        y = np.full((16, 16), level, np.uint8)
        chroma = np.full((8, 8), 128, np.uint8)
        shown = yuv.crop_bgr(yuv.Planes(y, chroma, chroma, full_range=True), FULL, 16)
        assert np.abs(shown.astype(int) - level).max() <= 2


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.tuples(*[st.floats(-0.5, 1.5) for _ in range(4)]),
    st.integers(1, 100),
)
def test_any_box_of_any_picture_has_pixels(width: int, height: int, box: tuple[float, ...], px_max: int) -> None:
    y = np.zeros((height, width), np.uint8)
    chroma = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
    got = yuv.crop_bgr(yuv.Planes(y, chroma, chroma), Box(*box), px_max)
    assert got.dtype == np.uint8
    assert 1 <= got.shape[0] <= px_max
    assert 1 <= got.shape[1] <= px_max
    assert got.flags.c_contiguous


@pytest.mark.parametrize(
    ("size", "wide", "shape"),
    [
        ((1280, 720), 320, (180, 320)),
        ((768, 576), 320, (240, 320)),
        ((640, 272), 320, (136, 320)),
        ((641, 271), 320, (135, 320)),
        ((100, 80), 320, (80, 100)),
        ((1, 1), 320, (1, 1)),
    ],
)
def test_luma_is_as_wide_as_asked_but_never_wider_than_the_picture(
    size: tuple[int, int], wide: int, shape: tuple[int, int]
) -> None:
    plane = np.add.outer(np.arange(size[1]), np.arange(size[0])).astype(np.uint8)
    luma = yuv.luma_low(plane, wide)
    assert luma.shape == shape
    assert luma.flags.c_contiguous
    assert not np.shares_memory(luma, plane), "the decoder may overwrite its picture"


def test_a_mask_covers_its_polygon_and_nothing_else() -> None:
    planes, _ = coloured(320, 240)
    planes = yuv.Planes(planes.y.copy(), planes.u.copy(), planes.v.copy())
    before = planes.y.copy()
    yuv.Mask([[(0.25, 0.25), (0.5, 0.25), (0.5, 0.75), (0.25, 0.75)]], 320, 240).apply(planes)
    shown = yuv.crop_bgr(planes, FULL, 320)
    assert shown[60:181, 80:161].max() == 0, "borders included"
    outside = np.ones((240, 320), bool)
    outside[57:184, 77:164] = False
    assert (planes.y[outside] == before[outside]).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_no_polygon_breaks_a_mask(polygon: list[tuple[float, float]]) -> None:
    y = np.full((33, 47), 200, np.uint8)
    u, v = np.full((17, 24), 90, np.uint8), np.full((17, 24), 90, np.uint8)
    yuv.Mask([polygon], 47, 33).apply(yuv.Planes(y, u, v))
    for x, at in polygon:
        assert y[min(int(at * 33), 32), min(int(x * 47), 46)] == yuv.BLACK_Y, "every corner is covered"


def test_a_mask_of_another_size_is_refused() -> None:
    planes, _ = coloured(320, 240)
    with pytest.raises(ValueError, match="320 x 240"):
        yuv.Mask([], 640, 480).apply(planes)
