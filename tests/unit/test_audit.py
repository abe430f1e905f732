"""The audit of a post's own alerts, counted by hand; and that no suggestion gives up a true alert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import audit, wire
from agent.audit import ALERTS_MAX, Alert, Judged, Seen, Suggestion, Trial
from agent.types import NS, Box, Priority, Verdict

ID = "0192f000-0000-7000-8000-{:012d}"
BOOT = "a" * 32
POSTER, GATE = Box(0.1, 0.5, 0.1, 0.3), Box(0.7, 0.4, 0.1, 0.3)


def event(n: int, phase: str, *, severity: str = "alert", at_s: float = 0.0, **data: Any) -> wire.CloudEvent:
    incident = ID.format(n)
    return wire.CloudEvent(
        id=incident, source="wardpost/ward/cam-7", type="wardpost.person", subject=incident, time="t", epoch=incident,
        sequence=1, session=1, bootid=BOOT, monons=round(at_s * NS), timeerrms=None,
        data=wire.EventData(incident=incident, phase=phase, severity=severity, summary="s", **data),  # type: ignore[arg-type]
    )  # fmt: skip


def alert(n: int, judged: Judged, box: Box = POSTER, *, score: float | None = 0.5, **more: Any) -> Alert:
    fields: dict[str, Any] = {
        "incident": ID.format(n), "kind": "person", "boot_id": BOOT, "start_ns": n * NS, "end_ns": (n + 2) * NS,
        "score": score, "boxes": (box,), "feet": (box.foot,), "zones": (), "judged": judged, "reason": "",
    }  # fmt: skip
    return Alert(**fields | more)


def moved(box: Box, by: float) -> Box:
    return Box(box.x + by, box.y, box.w, box.h)


def test_an_incident_is_one_alert_with_the_last_word_about_it() -> None:
    events = [
        event(1, "started", severity="notice", at_s=10, dwellms=400, score=0.4, box=[0.1, 0.5, 0.1, 0.3]),
        event(2, "started", severity="notice", at_s=11),
        event(1, "updated", at_s=12, score=0.7, box=[0.2, 0.5, 0.1, 0.3], zones=["gate"], path=[(0.15, 0.8), (0.2, 0.8)]),
        event(1, "ended", at_s=14, dwellms=4400, score=0.6, box=[0.2, 0.5, 0.1, 0.3], zones=["gate", "yard"]),
    ]  # fmt: skip
    verdicts = [
        Verdict("c1", ID.format(1), "true", "", "", "hq", 9),
        Verdict("c2", ID.format(1), "false", "rain", "", "hq", 5),  # came later, by a clock that was wrong
    ]
    (one,) = audit.gather(events, verdicts)
    assert (one.start_ns, one.end_ns) == (round(9.6 * NS), 14 * NS)
    assert (one.score, one.zones, one.judged, one.reason) == (0.7, ("gate", "yard"), "false", "rain")
    assert one.boxes == (Box(0.1, 0.5, 0.1, 0.3), Box(0.2, 0.5, 0.1, 0.3))
    assert one.feet == ((0.15, 0.8), (0.25, 0.8), (0.2, 0.8))


def test_what_is_gathered_is_bounded() -> None:
    path = [(n / 100, 0.5) for n in range(32)]
    many = [event(n, "ended", box=[0.1, 0.1, 0.1, 0.1], path=path) for n in range(ALERTS_MAX + 5)]
    found = audit.gather(many, [])
    assert len(found) == ALERTS_MAX and found[-1].incident == ID.format(ALERTS_MAX + 4)
    assert all(len(one.feet) == audit.FEET_MAX for one in found)


def test_counts_are_those_of_the_days() -> None:
    alerts = [
        alert(1, "false", zones=("gate",), reason="rain"),
        alert(2, "false", zones=("gate", "yard"), reason="rain"),
        alert(3, "false", reason="a dog"),
        alert(4, "true"),
        alert(5, ""),
    ]
    found = audit.tally(alerts, days=2, hour=lambda one: None if one.start_ns == NS else 23)
    assert (found.alerts, found.true, found.false, found.unjudged, found.false_per_day) == (5, 1, 3, 1, 1.5)
    assert found.false_by_zone == {"gate": 2, "yard": 1, "": 1}
    assert found.false_by_hour == {23: 2}
    assert found.false_by_reason == {"rain": 2, "a dog": 1}
    assert audit.summary(found, {}) == "2 days: 5 alerts, 1 true, 3 false (1.5 a day), 1 not judged"
    told = audit.notice(audit.summary(found, {}), incident=ID.format(9), boot_ns=7)
    assert told.priority is Priority.NOTICE and told.summary.startswith("Audit of 2 days: 5 alerts")


def test_a_threshold_stands_midway_between_the_weakest_true_and_the_strongest_false_alert() -> None:
    far = [alert(n, "false", moved(POSTER, n * 0.2), score=score) for n, score in ((0, 0.42), (1, 0.5))]
    alerts = [*far, alert(3, "true", GATE, score=0.6), alert(4, "true", GATE, score=0.9), alert(5, "", score=0.45)]
    (one,) = audit.suggest(alerts, score_min=0.4)
    assert (one.kind, one.score_min) == ("threshold", 0.55)
    assert one.avoids == (ID.format(0), ID.format(1)) and one.unjudged == (ID.format(5),)
    assert audit.suggest(far, score_min=0.4) == [], "without a true alert it would be a guess"
    assert audit.suggest(alerts, score_min=0.55) == [], "it is in force already"
    weak = alert(6, "true", GATE, score=0.41)
    assert audit.suggest([*alerts, weak], score_min=0.4) == [], "a true alert is as weak as the false ones"


def test_a_mask_covers_the_place_of_several_false_alerts_and_no_true_one() -> None:
    false = [alert(n, "false", moved(POSTER, n * 0.01), score=0.8) for n in range(3)]
    true = alert(9, "true", GATE, score=0.8)
    (one,) = audit.suggest([*false, true, alert(7, "", POSTER)], score_min=0.4)
    assert one.kind == "mask" and one.avoids == tuple(a.incident for a in false) and one.unjudged == (ID.format(7),)
    assert one.polygon == ((0.08, 0.48), (0.24, 0.48), (0.24, 0.82), (0.08, 0.82))
    assert audit.suggest([false[0], true], score_min=0.4) == [], "one alone is not worth a blind spot"
    # Somebody real once stood in the upper part of that rectangle: only the strip of the feet is masked.
    passer = alert(8, "true", Box(0.12, 0.3, 0.06, 0.3), score=0.8)
    (strip,) = audit.suggest([*false, true, passer], score_min=0.4)
    assert strip.polygon == ((0.13, 0.78), (0.19, 0.78), (0.19, 0.82), (0.13, 0.82))
    onto = alert(8, "true", moved(POSTER, 0.01), score=0.8)
    assert audit.suggest([*false, onto], score_min=0.4) == [], "a true alert stood on the very spot"


def test_a_mask_never_blinds_a_quarter_of_the_picture() -> None:
    false = [alert(n, "false", moved(Box(0.0, 0.1, 0.9, 0.8), n * 0.01), feet=((0.1, 0.2), (0.9, 0.9))) for n in (0, 1)]
    assert audit.suggest(false, score_min=0.4) == []


def test_places_that_are_like_one_another_are_one_cluster() -> None:
    chain = [alert(n, "false", moved(POSTER, n * 0.03)) for n in (0, 2, 1)]  # 0 and 2 meet only by way of 1
    assert chain[0].boxes[0].iou(chain[1].boxes[0]) < audit.ALIKE_IOU
    assert [len(cluster) for cluster in audit.clusters([*chain, alert(9, "false", GATE)])] == [3, 1]


def test_an_alert_of_a_rehearsal_stands_for_its_own_incident_only() -> None:
    one = alert(1, "true", GATE)
    seen = Seen(kind="person", start_utc_ns=0, end_utc_ns=NS, boxes=(moved(GATE, 0.02),))
    assert audit.matches(one, 3 * NS, 5 * NS, seen)
    assert not audit.matches(one, 5 * NS, 9 * NS, seen), "another time"
    assert not audit.matches(alert(1, "true", POSTER), 0, NS, seen), "another place"
    assert not audit.matches(alert(1, "true", GATE, kind="vehicle"), 0, NS, seen), "another kind"


@pytest.mark.parametrize(
    ("trials", "may"),
    [
        ([("false", True, False), ("true", True, True)], True),
        ([("false", True, False)], True),
        ([("false", True, False), ("true", True, False)], False),  # a true one is lost
        ([("false", True, False), ("true", True, True), ("true", True, False)], False),
        ([("false", True, True), ("true", True, True)], False),  # it helps nobody
        ([("false", True, False), ("true", False, False)], False),  # no true one was seen to be kept
        ([("false", False, False), ("true", True, True)], False),  # nor was anything seen to be avoided
        ([], False),
    ],
)
def test_a_change_may_be_applied_only_when_it_was_seen_to_help_and_to_lose_nothing(
    trials: Sequence[tuple[Judged, bool, bool]], may: bool
) -> None:
    tried = [audit.trial(alert(n, judged), before=b, after=a) for n, (judged, b, a) in enumerate(trials)]
    assert audit.weigh(tried).may_be_applied is may


def test_footage_that_is_gone_proves_nothing() -> None:
    gone = Trial(incident=ID.format(1), judged="false", state="not replayed", why="its footage is gone")
    weight = audit.weigh([gone])
    assert weight.unproved == 1 and not weight.may_be_applied


_UNIT = st.floats(0, 0.9)
_BOX = st.builds(Box, _UNIT, _UNIT, st.floats(0.02, 0.5), st.floats(0.02, 0.5)).map(Box.clipped)
_PLACE = st.sampled_from([POSTER, GATE, moved(POSTER, 0.01), moved(POSTER, 0.03), moved(GATE, 0.02)])


@st.composite
def _alerts(draw: st.DrawFn) -> list[Alert]:
    found = []
    for n in range(draw(st.integers(0, 14))):
        boxes = tuple(draw(st.lists(_PLACE | _BOX, min_size=0, max_size=3)))
        more = draw(st.lists(st.tuples(_UNIT, _UNIT), max_size=2))
        found.append(
            alert(
                n,
                draw(st.sampled_from(["true", "false", "false", ""])),
                score=draw(st.none() | st.floats(0.3, 1.0)),
                boxes=boxes,
                feet=(*(box.foot for box in boxes), *more),
            )
        )
    return found


@given(_alerts(), st.floats(0.1, 0.8))
def test_no_suggestion_silences_a_true_alert_or_claims_what_it_does_not_do(
    alerts: list[Alert], score_min: float
) -> None:
    """And a rehearsal that shows what was predicted lets it through; one that shows a lost true alert never does."""
    for one in audit.suggest(alerts, score_min=score_min):
        silent = [a for a in alerts if audit.would_be_silent(a, one)]
        assert not [a for a in silent if a.judged == "true"]
        assert {a.incident for a in silent if a.judged == "false"} == set(one.avoids) != set()
        assert_valid(one, score_min)
        judged = [a for a in alerts if a.judged == "true" or a.incident in one.avoids]
        trials = [audit.trial(a, before=True, after=not audit.would_be_silent(a, one)) for a in judged]
        assert audit.weigh(trials).may_be_applied
        lost = Trial(incident="x", judged="true", state="gone")
        assert not audit.weigh([*trials, lost]).may_be_applied


def assert_valid(one: Suggestion, score_min: float) -> None:
    if one.kind == "threshold":
        assert score_min < one.score_min <= audit.SCORE_MAX
    else:
        (x1, y1), _, (x2, y2), _ = one.polygon
        assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 and (x2 - x1) * (y2 - y1) <= audit.MASK_AREA_MAX
