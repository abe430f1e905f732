"""Annotated pictures show what is claimed and leave the original alone."""

from __future__ import annotations

import numpy as np

from agent.types import Box, Detection, Label
from agent.vision.draw import Mark, annotated, listed
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


def test_masks_lines_marks_and_numbers_are_drawn() -> None:
    picture = np.full((360, 640, 3), 100, np.uint8)
    out = annotated(
        picture,
        lines=[("road", ((0.5, 0.2), (0.9, 0.2)))],
        ignored=[((0.0, 0.0), (0.2, 0.0), (0.2, 0.3), (0.0, 0.3))],
        marks=[Mark(12, (0.5, 0.7), Label.PERSON)],
        detections=[Detection(Label.PERSON, 0.31, Box(0.7, 0.6, 0.1, 0.3))],
        ids=True,
    )
    changed = (out != 100).any(axis=2)
    assert 0.1 < changed[4:100, 4:120].mean() < 0.6, "stripes: what is not looked at can still be seen"
    assert changed[70:75, 330:560].all(axis=0).any(), "the line"
    assert changed[250, 315:325].all(), "the mark's disc"
    assert changed[195:214, 450:500].any(), "the score of what no track stands for"
    assert not changed[300:, :300].any()


def test_a_list_of_lines_has_room_for_each_and_keeps_the_films_size() -> None:
    picture = np.full((360, 640, 3), 100, np.uint8)
    assert listed(picture, ["one", "two"], rows=4).shape == listed(picture, [], rows=4).shape
    three = listed(picture, ["one", "two", "three"])
    rows = np.flatnonzero((three[360:] > 200).any(axis=(1, 2)))
    assert len(np.flatnonzero(np.diff(rows) > 1)) >= 2, "three lines of ink, apart"


def test_letters_are_large_enough_to_read_at_640_and_at_1920() -> None:
    for height, width in ((360, 640), (1080, 1920)):
        ink = np.flatnonzero((listed(np.zeros((height, width, 3), np.uint8), ["HHHH"])[height:] > 200).any(axis=(1, 2)))
        assert ink[-1] - ink[0] + 1 >= max(9, height / 60)
