"""Average precision, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.types import Box, Label
from agent.vision.evaluate import judge, read_found, read_mot

A, B, C = Box(0.1, 0.1, 0.2, 0.2), Box(0.5, 0.5, 0.2, 0.2), Box(0.8, 0.1, 0.1, 0.1)


def test_perfect_finds_score_one_and_no_finds_score_nothing() -> None:
    truth = {1: [A, B], 2: [A]}
    assert judge(truth, {1: [(0.9, A), (0.8, B)], 2: [(0.7, A)]}).ap == pytest.approx(1)
    assert judge(truth, {1: [], 2: []}).ap == 0
    assert judge({}, {}).ap == 0
    assert judge({}, {1: [(0.5, A)]}).ap == 0


def test_the_area_under_the_curve_is_that_of_the_textbook() -> None:
    # right, wrong, right of two to find: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: area 1/2 * 1 + 1/2 * 2/3
    quality = judge({1: [A, B]}, {1: [(0.9, A), (0.8, C), (0.7, B)]})
    assert quality.ap == pytest.approx(1 / 2 + 1 / 3)
    assert (quality.precision, quality.recall, quality.score) == pytest.approx((2 / 3, 1.0, 0.7))


def test_a_second_find_of_one_person_is_wrong() -> None:
    assert judge({1: [A]}, {1: [(0.9, A), (0.8, A)]}).ap == pytest.approx(1)
    assert judge({1: [A, B]}, {1: [(0.9, A), (0.8, A), (0.7, B)]}).ap == pytest.approx(1 / 2 + 1 / 3)


def test_a_find_must_overlap_enough_and_unjudged_frames_do_not_count() -> None:
    half = Box(0.1, 0.1, 0.1, 0.2)
    assert judge({1: [A]}, {1: [(0.9, half)]}, iou_min=0.5).ap == pytest.approx(1)
    assert judge({1: [A]}, {1: [(0.9, half)]}, iou_min=0.51).ap == 0
    assert judge({1: [A], 2: [B]}, {1: [(0.9, A)]}).recall == 1.0


def test_files_are_read_and_a_bad_line_is_named(tmp_path: Path) -> None:
    truth = tmp_path / "gt.txt"
    truth.write_text("1,9,100,50,20,40,1,-1,-1,-1\n1,8,0,0,20,40,0,-1,-1,-1\n\n3,9,100,50,20,40,1,0,0,0\n")
    assert read_mot(truth, width=200, height=100) == {1: [Box(0.5, 0.5, 0.1, 0.4)], 3: [Box(0.5, 0.5, 0.1, 0.4)]}
    truth.write_text("1,9,100,50,20,40,1\nrubbish\n")
    with pytest.raises(ConfigError, match=r"gt.txt:2: not a line"):
        read_mot(truth, width=200, height=100)
    found = tmp_path / "out.jsonl"
    found.write_text(
        '{"frame": 1, "t": 0, "detections": [{"label": "person", "score": 0.5, "box": [0.1, 0.1, 0.2, 0.2]},'
        ' {"label": "vehicle", "score": 0.5, "box": [0, 0, 1, 1]}]}\n{"frame": 2, "t": 0.1, "detections": []}\n'
    )
    assert read_found(found, Label.PERSON) == {1: [(0.5, A)], 2: []}
    found.write_text('{"frame": 1}\n')
    with pytest.raises(ConfigError, match=r"out.jsonl:1"):
        read_found(found, Label.PERSON)
