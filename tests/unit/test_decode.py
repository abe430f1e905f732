"""Decoders: numbers of a model turned into boxes, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from agent.errors import ConfigError
from agent.types import Label
from agent.vision.detector import decode
from agent.vision.detector.decode import BuiltInSsd, Floats, RawSsd, Yolox, decoder_for, pick, ssd_anchors

NAMES = ["???", "Bicycle", "Person", "Chair", "Car", "Vehicle"]


def floats(*values: object) -> Floats:
    return np.array(values, dtype=np.float32)


def test_the_anchors_of_a_300_pixel_model_are_those_it_was_trained_with() -> None:
    anchors = ssd_anchors(300)
    assert anchors.shape == (1917, 4)
    np.testing.assert_allclose(anchors[0], [0.5 / 19, 0.5 / 19, 0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(anchors[1], [0.5 / 19, 0.5 / 19, 0.2 / 2**0.5, 0.2 * 2**0.5], rtol=1e-5)
    np.testing.assert_allclose(anchors[-1], [0.5, 0.5, 0.95**0.5, 0.95**0.5], rtol=1e-5)


def test_a_raw_ssd_box_is_decoded_by_its_anchor() -> None:
    decoder = decoder_for([(1, 1917, 4), (1, 1917, 6)], 300, NAMES, "m")
    assert isinstance(decoder, RawSsd)
    boxes, scores = np.zeros((1, 1917, 4), np.float32), np.full((1, 1917, 6), -9.0, np.float32)
    boxes[0, -1] = [-1.0, 0.5, -5.0, -10.0]  # up by a tenth of the anchor, right by a twentieth, 1/e high, 1/e^2 wide
    scores[0, -1, 2] = 2.0
    scores[0, 5, 3] = 9.0  # a chair is nobody's business
    (one,) = decoder.decode([boxes, scores], 0.3)
    side = 0.95**0.5
    w, h = side * np.exp(-2), side * np.exp(-1)
    assert one.label is Label.PERSON and abs(one.score - 1 / (1 + np.exp(-2.0))) < 1e-6
    np.testing.assert_allclose(
        [one.box.x, one.box.y, one.box.w, one.box.h],
        [0.5 + side / 20 - w / 2, 0.5 - side / 10 - h / 2, w, h],
        rtol=1e-4,
    )


def test_two_classes_of_one_label_are_one_object() -> None:
    decoder = decoder_for([(1, 1917, 6), (1, 1917, 4)], 300, NAMES, "m")  # outputs the other way round
    boxes, scores = np.zeros((1, 1917, 4), np.float32), np.full((1, 1917, 6), -9.0, np.float32)
    scores[0, 1000, 4], scores[0, 1000, 5] = 1.0, 0.5
    found = decoder.decode([scores, boxes], 0.3)
    assert [one.label for one in found] == [Label.VEHICLE]


def test_a_label_map_without_its_background_fits_too() -> None:
    decoder_for([(1, 1917, 4), (1, 1917, 6)], 300, NAMES[1:], "m")


@pytest.mark.parametrize("swapped", [False, True])
def test_an_ssd_with_built_in_post_processing_is_read_in_either_order(swapped: bool) -> None:
    decoder = decoder_for([(1, 3, 4), (1, 3), (1, 3), (1,)], 300, NAMES, "m")
    assert isinstance(decoder, BuiltInSsd)
    boxes = floats([[0.1, 0.2, 0.5, 0.4], [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.6, 0.6]])
    classes, scores, count = floats([1, 2, 77]), floats([0.9, 0.8, 0.7]), floats(3)
    outputs = [scores, boxes, count, classes] if swapped else [boxes, classes, scores, count]
    (one,) = decoder.decode(outputs, 0.3)  # class 1 counts without the background: Person; 2 is a chair; 77 is nonsense
    assert (one.label, one.box.as_list()) == (Label.PERSON, [0.2, 0.1, 0.2, 0.4])


def test_a_yolox_cell_is_decoded_by_its_grid() -> None:
    decoder = decoder_for([(1, 3549, 7)], 416, ["person", "chair"], "m")
    assert isinstance(decoder, Yolox)
    raw = np.zeros((1, 3549, 7), np.float32)
    raw[0, 52 * 3 + 10] = [0.5, 0.25, np.log(4), np.log(8), 0.9, 0.8, 0.1]  # row 3, column 10 of the finest grid
    (one,) = decoder.decode([raw], 0.3)
    assert one.label is Label.PERSON and abs(one.score - 0.72) < 1e-6
    cx, cy, w, h = 10.5 * 8 / 416, 3.25 * 8 / 416, 32 / 416, 64 / 416
    np.testing.assert_allclose([one.box.x, one.box.y], [cx - w / 2, max(cy - h / 2, 0)], atol=1e-6)
    assert abs(one.box.x2 - (cx + w / 2)) < 1e-6 and abs(one.box.y2 - (cy + h / 2)) < 1e-6


@pytest.mark.parametrize(
    "shapes", [[(1, 1001)], [(1, 100, 4), (1, 100, 6)], [(1, 3549, 7), (1, 4)], [(4,), (4,), (4,), (4,)], []]
)
def test_a_model_of_another_shape_is_refused_with_advice(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ConfigError, match=r"m: its outputs have the shapes .* use an SSD"):
        decoder_for(shapes, 300, NAMES, "m")


def test_a_label_map_of_another_model_is_refused_with_both_counts() -> None:
    with pytest.raises(ConfigError, match="tells 91 classes apart but the label map has 6 names"):
        decoder_for([(1, 1917, 4), (1, 1917, 91)], 300, NAMES, "m")


def test_overlaps_of_one_label_are_removed_and_rubbish_numbers_do_no_harm() -> None:
    corners = floats(
        [0.1, 0.1, 0.5, 0.5], [0.12, 0.1, 0.5, 0.5], [np.nan, 0, 1, 1], [0.9, 0.9, 0.1, 0.1], [-3, -3, 7, 7]
    )
    scores = floats([0.9], [0.8], [np.nan], [0.9], [0.5])
    found = pick(corners, scores, [Label.PERSON], 0.3)
    assert [one.score for one in found] == pytest.approx([0.9, 0.5])
    assert [one.box.as_list() for one in found] == [[0.1, 0.1, 0.4, 0.4], [0, 0, 1, 1]]


def test_the_anchors_of_a_smaller_square_are_as_many_pixels_large() -> None:
    """A network has learned its objects in pixels."""
    assert decode.ssd_sides(300) == (140, 172, 204, 236, 268, 300)
    for side in decode.ssd_sides(300):
        anchors = ssd_anchors(side, 300)
        cells = -(-side // 16)
        np.testing.assert_allclose(anchors[0], [0.5 / cells, 0.5 / cells, 30 / side, 30 / side], rtol=1e-5)
        np.testing.assert_allclose(anchors[:, 2].max() * side, ssd_anchors(300)[:, 2].max() * 300, rtol=1e-5)
