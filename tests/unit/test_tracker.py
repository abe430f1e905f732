"""The tracker: one visitor is one track, furniture is none."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.types import FULL, NS, Box, Detection, Label
from agent.vision.tracker import TRACKS_MAX, Track, Tracker

STEP_NS = NS // 5


def tracker() -> Tracker:
    return Tracker(score_min=0.4, confirm_frames=3, gone_s=3.0)


def person(x: float, y: float = 0.4, score: float = 0.5, label: Label = Label.PERSON) -> Detection:
    return Detection(label, score, Box(x, y, 0.05, 0.15))


def show(tracker: Tracker, detections: list[Detection], boot_ns: int, *, moving: bool = True) -> list[Track]:
    motion = [one.box for one in detections] if moving else []
    return tracker.update(detections, boot_ns, looked=[FULL], motion=motion)


def test_one_person_walking_through_is_one_track_and_then_none() -> None:
    one, ids, confirmed_at = tracker(), set(), None
    for step in range(30):
        tracks = show(one, [person(0.05 + 0.03 * step)], step * STEP_NS)
        ids |= {track.id for track in tracks}
        if confirmed_at is None and tracks[0].confirmed:
            confirmed_at = step
    assert ids == {1}
    assert confirmed_at == 2  # the third look
    for step in range(30, 50):
        tracks = show(one, [], step * STEP_NS)
    assert tracks == []


def test_a_few_missed_looks_do_not_make_a_second_person() -> None:
    one, ids = tracker(), set()
    for step in range(40):
        hidden = 12 <= step < 20  # 1.6 s behind a pillar
        tracks = show(one, [] if hidden else [person(0.05 + 0.02 * step)], step * STEP_NS)
        ids |= {track.id for track in tracks}
        assert len(tracks) == 1
    assert ids == {1}


def test_who_vanishes_at_the_edge_has_gone_sooner_than_who_vanishes_in_the_open() -> None:
    def steps_until_gone(x: float) -> int:
        one = tracker()
        for step in range(5):
            show(one, [person(x + 0.002 * step, score=0.8)], step * STEP_NS)
        return next(step for step in range(5, 60) if not show(one, [], step * STEP_NS))

    assert steps_until_gone(0.96) == 4 + 15  # gone_s
    assert steps_until_gone(0.5) == 4 + 30  # behind the pillar, for twice as long


def test_who_comes_out_from_behind_the_van_is_the_one_who_went_behind_it() -> None:
    one, ids = tracker(), set()
    for step in range(50):
        hidden = 12 <= step < 34  # 4.4 s, longer than gone_s
        tracks = show(one, [] if hidden else [person(0.3 + (0.005 * step if step < 12 else 0.1))], step * STEP_NS)
        ids |= {track.id for track in tracks}
    assert ids == {1}


RED, BLUE = np.zeros(128, np.float32), np.zeros(128, np.float32)
RED[[3, 70]] = BLUE[[40, 110]] = 1.0


def test_two_who_meet_and_turn_back_are_told_apart_by_how_they_look() -> None:
    """Without looks they seem to pass each other: the velocity says so."""
    ends = {}
    for looks in (True, False):
        one = tracker()
        for step in range(31):
            away = abs(15 - step) * 0.01  # towards each other, a moment behind one another, and back
            finds = [person(0.5 - away - 0.002, score=0.8), person(0.5 + away + 0.002, score=0.8)]
            if 14 <= step <= 17:
                finds = finds[:1]
            known = [RED, BLUE][: len(finds)] if looks else None
            tracks = one.update(finds, step * STEP_NS, looked=[FULL], motion=[find.box for find in finds], looks=known)
        ends[looks] = {track.id: track.box.x < 0.5 for track in tracks if track.missed == 0}
    assert ends[True] == {1: True, 2: False}


def test_two_people_who_pass_each_other_keep_their_ids() -> None:
    one = tracker()
    for step in range(30):
        left, right = person(0.1 + 0.025 * step, 0.40), person(0.85 - 0.025 * step, 0.50)
        tracks = show(one, [left, right], step * STEP_NS)
    by_id = {track.id: track for track in tracks}
    assert set(by_id) == {1, 2}
    assert math.isclose(by_id[1].box.x, 0.1 + 0.025 * 29)
    assert math.isclose(by_id[2].box.x, 0.85 - 0.025 * 29)


def test_a_bollard_that_looks_like_a_person_is_never_confirmed_even_when_somebody_walks_past() -> None:
    one = tracker()
    for step in range(60):
        motion = [Box(0.48, 0.4, 0.06, 0.2)] if 20 <= step < 25 else []
        tracks = one.update([person(0.5, score=0.6)], step * STEP_NS, looked=[FULL], motion=motion)
        assert not any(track.confirmed for track in tracks)


def test_who_moves_all_of_himself_in_his_place_is_confirmed_soon_when_he_is_seen_well() -> None:
    """The motion is as large as he is: it is his own, and not that of somebody who walks past a bollard."""
    one = tracker()
    assert [show(one, [person(0.5)], step * STEP_NS)[0].confirmed for step in range(5)] == [False] * 3 + [True] * 2
    passed = tracker()
    for step in range(8):  # the same, but what moves is wider
        passer = [Box(0.42, 0.35, 0.12, 0.2)]
        tracks = passed.update([person(0.5)], step * STEP_NS, looked=[FULL], motion=passer)
    assert not tracks[0].confirmed


def test_a_person_who_fidgets_in_his_place_is_confirmed_after_a_while() -> None:
    one = tracker()
    confirmed = [show(one, [person(0.5, score=0.45)], step * STEP_NS)[0].confirmed for step in range(12)]
    assert not any(confirmed[:8]) and confirmed[8]


def test_one_sure_look_is_enough_for_a_person_who_runs_past() -> None:
    (track,) = show(tracker(), [person(0.5, score=0.8)], 0)
    assert track.confirmed


def test_weak_detections_continue_a_track_but_begin_none() -> None:
    one = tracker()
    assert show(one, [person(0.5, score=0.26)], 0) == []
    for step in range(5):
        show(one, [person(0.1 + 0.02 * step)], step * STEP_NS)
    (track,) = show(one, [person(0.2, score=0.26)], 5 * STEP_NS)
    assert track.hits == 6 and track.score == 0.5


def test_a_track_is_labelled_by_vote_and_scored_for_its_label() -> None:
    one = tracker()
    labels = [Label.ANIMAL, Label.PERSON, Label.PERSON, Label.PERSON]
    for step, label in enumerate(labels):
        tracks = show(one, [person(0.5 + 0.005 * step, label=label, score=0.9 if step == 0 else 0.5)], step * STEP_NS)
    assert [(track.label, track.score) for track in tracks] == [(Label.PERSON, 0.5)]


def test_nobody_is_missed_where_nobody_looked() -> None:
    one = tracker()
    for step in range(5):
        show(one, [person(0.1 + 0.02 * step)], step * STEP_NS)
    far = Box(0.6, 0.0, 0.4, 0.4)
    tracks = one.update([], 6 * STEP_NS, looked=[far], motion=[])
    assert tracks[0].missed == 0
    tracks = one.update([], 7 * STEP_NS, looked=[FULL], motion=[])
    assert tracks[0].missed == 1


def test_pictures_five_seconds_apart_do_not_end_a_visit_each_time() -> None:
    one, ids = tracker(), set()
    for step in range(6):
        ids |= {track.id for track in show(one, [person(0.5 + 0.002 * step, score=0.8)], step * 5 * NS)}
    assert ids == {1}


def test_a_crowd_is_bounded() -> None:
    crowd = [person(0.06 * (i % 16), 0.16 * (i // 16)) for i in range(96)]
    assert len(show(tracker(), crowd, 0)) == TRACKS_MAX


boxes = st.builds(Box, st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.01, 0.3), st.floats(0.01, 0.3))
finds = st.lists(st.builds(Detection, st.sampled_from(list(Label)), st.floats(0.1, 1), boxes), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(finds, st.integers(0, 4 * NS)), max_size=25))
def test_whatever_is_found_ids_rise_boxes_stay_inside_and_silence_empties_it(
    steps: list[tuple[list[Detection], int]],
) -> None:
    one, now_ns, highest = tracker(), 0, 0
    for found, wait_ns in steps:
        now_ns += wait_ns
        tracks = show(one, found, now_ns)
        ids = [track.id for track in tracks]
        assert ids == sorted(set(ids))
        assert all(new > highest for new in ids if new > highest)
        highest = max([highest, *ids])
        for track in tracks:
            assert min(track.box.x, track.box.y) >= 0 and max(track.box.x2, track.box.y2) <= 1 + 1e-9
            assert track.first_ns <= track.last_ns <= now_ns
    for _ in range(35):  # 7 s: in the open, somebody unseen is taken for hidden for twice gone_s
        now_ns += STEP_NS
        tracks = show(one, [], now_ns)
    assert tracks == []
