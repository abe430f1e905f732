"""The motion gate: a visitor opens it; light, noise, leaves and broken pictures do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.types import NS, Box
from agent.vision.motion import BOXES_MAX, Motion, MotionGate, Scene

if TYPE_CHECKING:
    from agent.types import Luma

STEP_NS = NS // 5
RNG = np.random.default_rng(7)


def street(height: int = 180, width: int = 320) -> Luma:
    ys, xs = np.mgrid[0:height, 0:width]
    return np.asarray(100 + 40 * np.sin(xs / 17.0) + 30 * np.cos(ys / 11.0), dtype=np.uint8)


def noisy(picture: Luma, sigma: float) -> Luma:
    return np.asarray((picture + RNG.normal(0, sigma, picture.shape)).clip(0, 255), dtype=np.uint8)


def with_box(picture: Luma, x: int, y: int, w: int, h: int, level: int = 235) -> Luma:
    out = picture.copy()
    out[y : y + h, x : x + w] = level
    return out


def settled(gate: MotionGate, picture: Luma, frames: int = 20) -> int:
    for index in range(frames):
        assert not gate.look(noisy(picture, 2), index * STEP_NS).boxes
    return frames


def test_a_walker_is_boxed_where_he_is_and_an_idle_street_is_not() -> None:
    gate, scene = MotionGate(area_min=0.0008), street()
    start = settled(gate, scene)
    for step in range(10):
        x = 40 + 12 * step
        motion = gate.look(noisy(with_box(scene, x, 80, 12, 40), 2), (start + step) * STEP_NS)
        here = Box(x / 320, 80 / 180, 12 / 320, 40 / 180)
        assert motion.scene is Scene.STEADY
        assert any(box.iou(here) > 0.3 for box in motion.boxes), (step, motion)


def test_a_thing_left_behind_stops_being_motion_at_once() -> None:
    gate, scene = MotionGate(area_min=0.0008), street()
    start = settled(gate, scene)
    parked = with_box(scene, 100, 80, 30, 40)
    assert gate.look(noisy(parked, 2), start * STEP_NS).boxes
    assert [gate.look(noisy(parked, 2), (start + 1 + i) * STEP_NS).boxes for i in range(10)] == [()] * 10


def test_a_spot_smaller_than_asked_for_is_not_reported() -> None:
    scene = street()
    for area_min, seen in ((0.0008, True), (0.05, False)):
        gate = MotionGate(area_min=area_min)
        start = settled(gate, scene)
        assert bool(gate.look(with_box(scene, 100, 80, 14, 20), start * STEP_NS).boxes) is seen


@pytest.mark.parametrize("factor", [0.6, 0.85, 1.2, 1.5])
def test_a_step_of_the_exposure_is_one_change_and_no_storm(factor: float) -> None:
    gate, scene = MotionGate(area_min=0.0008), street()
    start = settled(gate, scene)
    scenes = []
    for index in range(15):
        lit = np.asarray((scene * factor).clip(0, 255), dtype=np.uint8)
        motion = gate.look(noisy(lit, 2), (start + index) * STEP_NS)
        assert not motion.boxes
        scenes.append(motion.scene)
    assert scenes[0] is Scene.CHANGED
    assert set(scenes[2:]) == {Scene.STEADY}


def test_a_slow_dusk_opens_nothing() -> None:
    gate, scene = MotionGate(area_min=0.0008), street()
    for index in range(200):
        lit = np.asarray(scene * (1 - 0.0035 * index), dtype=np.uint8)
        assert not gate.look(noisy(lit, 2), index * STEP_NS).boxes


@pytest.mark.parametrize("sigma", [1.0, 6.0, 14.0])
def test_sensor_noise_opens_nothing_by_day_or_night(sigma: float) -> None:
    gate, scene = MotionGate(area_min=0.0008), street()
    opened = sum(bool(gate.look(noisy(scene, sigma), index * STEP_NS).boxes) for index in range(100))
    assert opened == 0


def test_the_walker_is_still_seen_through_night_noise() -> None:
    gate, scene = MotionGate(area_min=0.0008), street()
    for index in range(30):
        gate.look(noisy(scene, 8), index * STEP_NS)
    seen = sum(
        bool(gate.look(noisy(with_box(scene, 40 + 12 * i, 80, 14, 44, 210), 8), (30 + i) * STEP_NS).boxes)
        for i in range(10)
    )
    assert seen >= 9


def test_another_camera_view_is_told_as_a_change() -> None:
    gate, scene = MotionGate(area_min=0.0008), street()
    start = settled(gate, scene)
    other = np.asarray(255 - np.roll(scene, 40, axis=1), dtype=np.uint8)
    assert gate.look(other, start * STEP_NS).scene is Scene.CHANGED
    assert gate.look(other, (start + 1) * STEP_NS).scene is Scene.STEADY


def test_black_and_empty_pictures_are_named_and_light_after_dark_is_learned() -> None:
    gate, scene = MotionGate(area_min=0.0008), street()
    start = settled(gate, scene)
    assert gate.look(np.zeros((180, 320), np.uint8), start * STEP_NS) == Motion((), 0.0, Scene.FLAT)
    assert gate.look(np.zeros((0, 0), np.uint8), start * STEP_NS).scene is Scene.EMPTY
    assert gate.look(np.zeros((4, 320), np.uint8), start * STEP_NS).scene is Scene.EMPTY
    for _ in range(3):  # of a picture this small the noise could not be told: it was a warning, or NaN
        assert gate.look(RNG.integers(0, 256, (8, 8)).astype(np.uint8), start * STEP_NS).scene is Scene.EMPTY
    assert gate.look(scene, (start + 1) * STEP_NS).scene is Scene.LEARNING


def test_a_new_size_and_a_long_pause_are_learned_anew() -> None:
    gate = MotionGate(area_min=0.0008)
    start = settled(gate, street())
    assert gate.look(street(120, 200), start * STEP_NS).scene is Scene.LEARNING
    assert gate.look(street(120, 200), (start + 1) * STEP_NS).scene is Scene.STEADY
    assert gate.look(street(120, 200), (start + 1) * STEP_NS + 3600 * NS).scene is Scene.LEARNING


def test_a_hundred_moving_things_are_bounded() -> None:
    gate, scene = MotionGate(area_min=0.0001), street()
    start = settled(gate, scene)
    picture = scene.copy()
    for row in range(8):
        for column in range(16):
            picture[row * 22 + 4 : row * 22 + 12, column * 20 + 4 : column * 20 + 10] = 240
    assert 0 < len(gate.look(picture, start * STEP_NS).boxes) <= BOXES_MAX


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-20 * NS, 20 * NS), min_size=5, max_size=20), st.integers(0, 3))
def test_any_interval_between_pictures_is_survived(intervals: list[int], which: int) -> None:
    gate, now_ns = MotionGate(area_min=0.0008), 50 * NS
    pictures = [street(), with_box(street(), 50, 50, 30, 60), np.zeros((180, 320), np.uint8), street(90, 160)]
    for index, interval in enumerate(intervals):
        now_ns += interval
        motion = gate.look(pictures[(index * (which + 1)) % 4], now_ns)
        assert all(min(box.x, box.y) >= 0 and max(box.x2, box.y2) <= 1 + 1e-9 for box in motion.boxes)
        assert 0 <= motion.share <= 1
