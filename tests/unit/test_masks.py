"""Ignore masks: what is under one moves nothing and is nobody; what is before one is seen."""

from __future__ import annotations

import numpy as np

from agent.types import NS, Box
from agent.vision.masks import IgnoreMasks
from agent.vision.motion import MotionGate

ROAD = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5))


def moving(masks: IgnoreMasks, y: int) -> int:
    """Pictures of ten in which a block that slides along the row `y` moves something."""
    rng = np.random.default_rng(5)
    ground = rng.integers(60, 180, (12, 20), dtype=np.uint8).repeat(15, 0).repeat(16, 1)
    gate, seen = MotionGate(area_min=0.0008), 0
    for step in range(30):
        luma = ground.copy()
        if step >= 20:
            luma[y : y + 30, 10 * (step - 19) : 10 * (step - 19) + 30] = 250
        seen += bool(gate.look(masks.still(luma), (step + 1) * NS // 5).boxes)
        assert not np.shares_memory(masks.still(luma), luma) or masks.still(luma) is luma
    return seen


def test_what_moves_on_the_masked_road_opens_no_gate_and_what_moves_before_it_does() -> None:
    assert moving(IgnoreMasks([]), 30) >= 8
    assert moving(IgnoreMasks([ROAD]), 30) == 0
    assert moving(IgnoreMasks([ROAD]), 120) >= 8


def test_who_stands_in_a_mask_is_hidden_and_whose_body_covers_one_is_not() -> None:
    masks = IgnoreMasks([ROAD])
    assert masks.hide(Box(0.4, 0.2, 0.1, 0.25))
    assert not masks.hide(Box(0.4, 0.1, 0.1, 0.45))
    assert not IgnoreMasks([]).hide(Box(0.4, 0.2, 0.1, 0.25))


def test_without_a_mask_the_picture_is_not_copied_and_an_empty_one_does_no_harm() -> None:
    luma = np.zeros((20, 30), np.uint8)
    assert IgnoreMasks([]).still(luma) is luma
    empty = np.zeros((0, 0), np.uint8)
    assert IgnoreMasks([ROAD]).still(empty) is empty
