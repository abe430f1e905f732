"""Annotated pictures show what is claimed and leave the original alone."""

from __future__ import annotations

import numpy as np

from agent.types import Box, Detection, Label
from agent.vision.draw import annotated
from agent.vision.tracker import Track


def test_boxes_zones_paths_and_the_caption_are_drawn_on_a_copy() -> None:
    picture = np.full((360, 640, 3), 100, np.uint8)
    before = picture.copy()
    track = Track(
        1,
        Label.PERSON,
        0.87,
        Box(0.5, 0.3, 0.1, 0.5),
        0,
        0,
        True,
        True,
        0,
        5,
        path=((0.2, 0.8), (0.4, 0.8), (0.55, 0.8)),
    )
    out = annotated(
        picture,
        tracks=[track],
        detections=[Detection(Label.ANIMAL, 0.5, Box(0.05, 0.1, 0.1, 0.1))],
        motion=[Box(0.8, 0.8, 0.1, 0.1)],
        zones=[("yard", ((0.1, 0.6), (0.9, 0.6), (0.9, 0.95), (0.1, 0.95)))],
        caption="A person at the gate \u2013 14:02:11",
    )
    np.testing.assert_array_equal(picture, before)
    assert out.shape[1] == 640 and out.shape[0] > 360  # the caption has a line of its own
    left_edge = out[200, 318:323].astype(int)
    assert (np.abs(left_edge - 100).sum(axis=1) > 100).any()  # the person's frame at x = 0.5
    assert (out[288, 130:340] != 100).any()  # the path
    assert (out[215:218, 100:500] != 100).any()  # the zone's upper edge


def test_without_anything_to_show_the_picture_is_as_it_was() -> None:
    picture = np.random.default_rng(1).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    np.testing.assert_array_equal(annotated(picture), picture)


def test_boxes_outside_a_tiny_picture_do_no_harm() -> None:
    out = annotated(np.zeros((8, 8, 3), np.uint8), motion=[Box(-1, -1, 5, 5)], caption="x" * 200)
    assert out.shape[1] == 8
