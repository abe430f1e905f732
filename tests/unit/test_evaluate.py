"""Average precision, visits and false alerts, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import ConfigError
from agent.types import Box, Label
from agent.vision.evaluate import (
    Encounters,
    Sight,
    at_threshold,
    judge,
    meet,
    read_found,
    read_mot,
    read_tracks,
    visits,
)

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


# -- at the configured threshold --------------------------------------------------------------------------------------


def test_precision_and_recall_at_a_threshold_are_those_of_the_finds_above_it() -> None:
    truth = {1: [A, B], 2: [A]}
    found = {1: [(0.9, A), (0.5, C), (0.3, B)], 2: [(0.45, A), (0.44, A)]}
    assert at_threshold(truth, found, 0.4) == pytest.approx((2 / 4, 2 / 3))  # A, not C; A, not A again; B is below
    assert at_threshold(truth, found, 0.2) == pytest.approx((3 / 5, 1.0))
    assert at_threshold(truth, found, 0.95) == (1.0, 0.0), "nothing claimed, nothing wrong, nobody found"
    assert at_threshold({}, {1: []}, 0.4) == (1.0, 1.0)


def test_the_better_find_takes_the_person() -> None:
    near = Box(0.12, 0.1, 0.2, 0.2)
    assert at_threshold({1: [A]}, {1: [(0.6, near), (0.9, A)]}, 0.5) == pytest.approx((1 / 2, 1.0))


# -- visits and alerts ------------------------------------------------------------------------------------------------

TIMES = {frame: frame / 10 for frame in range(1, 201)}  # 20 s at 10 pictures a second


def walk(first: int, last: int, *, high: float = 0.2, x: float = 0.1) -> dict[int, Box]:
    return {frame: Box(x, 0.3, 0.1, high) for frame in range(first, last + 1)}


def test_a_visit_begins_when_the_person_is_large_enough_and_in_the_picture() -> None:
    coming = walk(1, 20, high=0.1) | walk(21, 60, x=-0.08) | walk(61, 120)  # small, then four fifths outside, then in
    (visit,) = visits({7: coming}, TIMES, height_min=1 / 8)
    assert (visit.who, visit.start_s, visit.end_s) == (7, 6.1, 12.0)
    assert visits({7: coming}, TIMES, height_min=0.05)[0].start_s == 0.1


def test_a_long_absence_makes_two_visits_and_a_glimpse_makes_none() -> None:
    tracks = {1: walk(1, 30) | walk(70, 100), 2: walk(40, 60) | walk(85, 110), 3: walk(5, 9)}
    assert [(v.who, v.start_s, v.end_s) for v in visits(tracks, TIMES, gap_s=3.0)] == [
        (1, 0.1, 3.0),
        (2, 4.0, 11.0),  # away for 2.5 s: the same visit
        (1, 7.0, 10.0),
    ]
    assert visits({1: walk(1, 30)}, {frame: frame / 10 for frame in range(1, 6)}) == [], "frames that nobody judged"


def test_found_late_missed_and_false_are_told_apart() -> None:
    one, two = walk(11, 60), walk(31, 90, x=0.6)
    stays = visits({1: one, 2: two}, TIMES)
    everybody = {frame: [track[frame] for track in (one, two) if frame in track] for frame in range(1, 201)}
    there, elsewhere = Box(0.11, 0.3, 0.1, 0.2), Box(0.3, 0.3, 0.1, 0.2)
    sights = [Sight(frame, frame / 10, there) for frame in range(16, 61)]
    alerts = [Sight(16, 1.6, there), Sight(100, 10.0, elsewhere), Sight(150, 15.0, there)]  # at 15 s he has gone
    met = meet(stays, everybody, sights=sights, alerts=alerts, hours=0.5)
    assert (met.visits, met.found, met.alerted, met.alerts, met.false_alerts) == (2, 1, 1, 3, 2)
    assert met.onset_s == pytest.approx((0.5,))
    assert (met.recall, met.precision, met.false_per_h) == pytest.approx((1 / 2, 1 / 3, 4.0))
    late = meet(stays, everybody, sights=[], alerts=[], updates=[Sight(50, 5.0, there)], hours=0.0)
    assert (late.found, late.alerted, late.onset(0.5), late.precision, late.false_per_h) == (0, 1, None, 1.0, 0.0)


def test_a_track_that_was_there_before_the_visit_is_no_head_start() -> None:
    small = walk(1, 10, high=0.1) | walk(11, 60)
    stays = visits({1: small}, TIMES)
    met = meet(stays, {}, sights=[Sight(f, f / 10, small[f]) for f in range(5, 60)], alerts=[], hours=1)
    assert met.onset_s == (0.0,)


def test_onsets_are_ranked() -> None:
    met = Encounters(0, 20, 0, tuple(float(n) for n in range(1, 21)), 0, 0, 1.0)
    assert (met.onset(0.5), met.onset(0.95), met.onset(1.0)) == (10.0, 19.0, 20.0)


@pytest.mark.parametrize("line", ["1,1,a,2,3,4,1", "nan,1,1,2,3,4,1", "0,1,1,2,3,4,1", "1,inf,1,2,3,4,1", "1,1,1"])
def test_a_line_that_is_no_truth_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_text(f"1,1,1,2,3,4,1\n{line}\n")
    with pytest.raises(ConfigError, match=r"gt.txt:2: not a line"):
        read_tracks(path, width=10, height=10)
    for wrong in ("1.5,1,0,0,5,5,1", "1,1,0,0,5,-5,1", "1,1,0,0,0,5,1", "0,1,0,0,5,5,1"):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match=r"gt.txt:1: not a line"):
            read_tracks(path, width=10, height=10)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tracks(tmp_path, width=10, height=10)
