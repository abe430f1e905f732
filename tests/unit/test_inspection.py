"""Inspection: a sample that anybody can draw again, and figures held against small worlds counted by hand."""

from __future__ import annotations

import csv
import datetime as dt
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.station.inspection.report import (
    DEFINED,
    AlertFact,
    CaseFact,
    LiveFact,
    PostFigures,
    RemovedFact,
    RequestFact,
    Share,
    ViewFact,
    as_dict,
    figures,
    share_recorded,
    union,
)
from agent.station.inspection.sample import (
    DAY_NS,
    NEW_DAYS,
    UNCHECKED_DAYS_MAX,
    Candidate,
    PostFacts,
    draw,
    draw_files,
    first_of,
    footage_candidates,
    post_candidate,
    week_of,
)
from agent.station.inspection.table import as_csv, safe
from agent.types import NS

NOW = 1_700_000_000 * NS
OLD = NOW - 400 * DAY_NS

# -- the sample -------------------------------------------------------------------------------------------------------


def test_a_posts_weight_is_counted_by_hand() -> None:
    def weight(**of: object) -> float:
        facts = PostFacts(node="cam-1", checked_utc_ns=NOW - 10 * DAY_NS, dark=False, known_since_utc_ns=OLD)
        return post_candidate(replace(facts, **of), NOW).weight  # type: ignore[arg-type]

    assert weight() == 11
    assert weight(dark=True) == 33
    assert weight(known_since_utc_ns=NOW - DAY_NS) == 22
    assert weight(known_since_utc_ns=NOW - round(NEW_DAYS * DAY_NS)) == 11
    assert weight(checked_utc_ns=None) == weight(checked_utc_ns=OLD) == UNCHECKED_DAYS_MAX + 1
    assert weight(checked_utc_ns=NOW + DAY_NS) == 1  # a clock that was set back makes nobody exempt


@given(
    st.lists(st.tuples(st.text("abc-", min_size=1, max_size=5), st.floats(0.001, 1e6)), unique_by=lambda one: one[0]),
    st.randoms(use_true_random=False),
    st.integers(0, 10),
)
def test_anybody_draws_the_same_from_the_same_in_whatever_order(
    weights: list[tuple[str, float]], rng: object, count: int
) -> None:
    candidates = [Candidate(node, "", weight, "") for node, weight in weights]
    drawn = draw("ward-7", "2026-W47", candidates, count)
    assert len(drawn) == min(count, len(candidates))
    assert len({one.node for one in drawn}) == len(drawn)
    mixed = list(candidates)
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    assert draw("ward-7", "2026-W47", mixed, count) == drawn
    for gone in candidates:  # who is not there any more makes room for the next, and changes nobody else
        without = [one for one in candidates if one != gone]
        assert [one for one in drawn if one != gone] == draw("ward-7", "2026-W47", without, count)[
            : len([one for one in drawn if one != gone])
        ]


def test_the_chance_goes_by_the_weight_and_no_week_is_like_another() -> None:
    candidates = [Candidate(f"cam-{n}", "", 3.0 if n == 0 else 1.0, "") for n in range(5)]
    weeks = [f"{year}-W{week:02}" for year in range(1000, 1100) for week in range(1, 53)]
    first = [draw("ward-7", week, candidates, 1)[0].node for week in weeks]
    for n in range(5):
        share = first.count(f"cam-{n}") / len(weeks)
        assert share == pytest.approx(3 / 7 if n == 0 else 1 / 7, abs=0.02), n
    assert [draw("ward-8", week, candidates, 1)[0].node for week in weeks[:50]] != first[:50]


def test_a_draw_of_today_is_that_of_tomorrow() -> None:
    """If this fails, samples that were drawn by an earlier release can no longer be argued with."""
    candidates = [Candidate(f"cam-{n}", "", n + 1.0, "") for n in range(8)]
    assert [one.node for one in draw("ward-7", "2026-W47", candidates, 4)] == DRAWN


DRAWN = ["cam-7", "cam-2", "cam-1", "cam-3"]
"""By the formula of sample.py, in 40 digits."""


def test_a_draw_with_a_seed_is_that_of_tomorrow_too_and_hangs_on_it() -> None:
    candidates = [Candidate(f"cam-{n}", "", n + 1.0, "") for n in range(8)]
    assert [one.node for one in draw("ward-7", "2026-W47", candidates, 4, seed="ab" * 32)] == SEEDED
    seeds = [f"{n:064x}" for n in range(3000)]
    first = [draw("ward-7", "2026-W47", candidates, 1, seed=seed)[0].node for seed in seeds]
    for n in range(8):
        assert first.count(f"cam-{n}") / len(seeds) == pytest.approx((n + 1) / 36, abs=0.03), n


SEEDED = ["cam-5", "cam-4", "cam-7", "cam-6"]
"""By the same formula, worked out apart from it."""


def test_of_files_each_drawn_post_has_one_before_any_has_two() -> None:
    files = footage_candidates([("busy", f"{n:064x}") for n in range(9)] + [("calm", "f" * 64), ("other", "e" * 64)])
    drawn = draw_files("ward-7", "2026-W47", ["calm", "busy"], files, 5, seed="ab" * 32)
    assert [one.node for one in drawn] == ["calm", "busy", "busy", "busy", "busy"]
    assert len({one.ref for one in drawn}) == 5
    assert draw_files("ward-7", "2026-W47", ["calm", "busy"], files[::-1], 5, seed="ab" * 32) == drawn
    assert first_of("ab" * 32, "calm") != first_of("ab" * 32, "busy") != first_of("cd" * 32, "busy")


def test_weight_zero_is_never_drawn_and_files_of_a_busy_post_do_not_crowd_out_the_others() -> None:
    assert draw("s", "w", [Candidate("a", "", 0.0, ""), Candidate("b", "", -1.0, "")], 5) == []
    found = footage_candidates([("busy", f"{n:064}") for n in range(9)] + [("calm", "f" * 64)])
    assert sum(one.weight for one in found if one.node == "busy") == pytest.approx(1, abs=1e-4)
    assert sum(one.weight for one in found if one.node == "calm") == 1


def test_a_week_is_that_of_the_calendar_where_the_desk_is() -> None:
    sunday = int(dt.datetime(2026, 11, 22, 23, 30, tzinfo=dt.UTC).timestamp()) * NS
    assert week_of(sunday, dt.UTC) == "2026-W47"
    assert week_of(sunday, dt.timezone(dt.timedelta(hours=7))) == "2026-W48"
    assert week_of(int(dt.datetime(2027, 1, 1, tzinfo=dt.UTC).timestamp()) * NS, dt.UTC) == "2026-W53"


# -- the figures ------------------------------------------------------------------------------------------------------


def test_a_small_world_comes_to_what_was_counted_by_hand() -> None:
    alerts = [
        AlertFact("cam-1", due_utc_ns=100, acknowledged_utc_ns=90, verdict="true"),  # in time
        AlertFact("cam-1", due_utc_ns=100, acknowledged_utc_ns=100, verdict="false"),  # at the last moment
        AlertFact("cam-1", due_utc_ns=100, acknowledged_utc_ns=101, verdict="false"),  # too late
        AlertFact("cam-2", due_utc_ns=100, acknowledged_utc_ns=None, verdict=""),  # never
        AlertFact("cam-2", due_utc_ns=999, acknowledged_utc_ns=None, verdict=""),  # there is time yet: not counted
    ]
    requests = [
        RequestFact("cam-1", "done", 2),
        RequestFact("cam-1", "done", 0),  # the post had nothing
        RequestFact("cam-2", "expired", 0),
        RequestFact("cam-2", "waiting", 1),  # a part of it is here: met
        RequestFact("cam-2", "waiting", 0),  # not over
    ]
    case = CaseFact(frozenset({"cam-1"}), frozenset({"ab"}), since_utc_ns=50, until_utc_ns=80)
    views = [
        ViewFact(60, "lan", "cam-1", "xx"),  # of its post, while it was open
        ViewFact(60, "lan", "cam-9", "ab"),  # of its file
        ViewFact(49, "lan", "cam-1", "ab"),  # before it was opened
        ViewFact(80, "minh", "cam-1", "ab"),  # when it was closed
        ViewFact(60, "minh", "cam-2", "cd"),  # of something else
    ]
    watched = [
        LiveFact(60, "lan", "cam-1", ""),  # a case of its post was open; he has named none
        LiveFact(60, "lan", "cam-1", "12/2026"),
        LiveFact(60, "mai", "cam-2", ""),
        LiveFact(60, "mai", "cam-2", "", bell="01"),  # somebody had pressed it
    ]
    found = figures(alerts=alerts, requests=requests, views=views, watched=watched, cases=[case], now_utc_ns=500)
    assert found.in_time == Share(2, 4)
    assert found.false_alerts == Share(2, 3)
    assert found.unjudged == 2
    assert found.met == Share(2, 4)
    assert found.waiting == 1
    assert found.caseless_footage == Share(3, 5)
    assert found.caseless_live == Share(2, 4)
    assert found.caseless == Share(5, 9)
    assert found.caseless_by == {"lan": 2, "mai": 1, "minh": 2}
    assert found.caseless_live_by == {"lan": 1, "mai": 1}


def test_of_nothing_there_is_no_share() -> None:
    found = figures(alerts=[], requests=[], views=[], watched=[], cases=[], now_utc_ns=0)
    assert [found.in_time.share, found.false_alerts.share, found.met.share, found.caseless.share] == [None] * 4
    assert share_recorded([], 5, 5) is None


@given(st.lists(st.tuples(st.integers(-5, 30), st.integers(-5, 30)), max_size=8))
def test_what_lies_over_one_another_is_counted_once(stretches: list[tuple[int, int]]) -> None:
    by_hand = sum(any(low <= moment < high for low, high in stretches) for moment in range(20))
    assert union(stretches, 0, 20) == by_hand
    assert share_recorded(stretches, 0, 20) == by_hand / 20


# -- for spreadsheets and programs ------------------------------------------------------------------------------------

WORDS = {name: f"what {name} is" for name in DEFINED}
REMOVED = [RemovedFact("age", 12, 3_400_000), RemovedFact("room", 0, 0)]


@given(st.text(max_size=20))
def test_no_text_of_anybody_becomes_a_formula(text: str) -> None:
    cell = safe(text)
    assert not cell.lstrip(" \u00a0\ufeff").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "|", "%"))
    assert cell.removeprefix("'") == text or cell == text


def test_the_table_has_what_the_page_has_and_is_read_back() -> None:
    found = figures(
        alerts=[AlertFact("cam-1", 10, 5, "")],
        requests=[],
        views=[ViewFact(1, "=cmd|' /C calc'!A1", "cam-1", "x")],
        watched=[],
        cases=[],
        now_utc_ns=20,
    )
    posts = [PostFigures("cam-1", '=HYPERLINK("http://x"),"y"', 0.98765, 2, None, 1, cut=True)]
    rows = list(csv.reader(io.StringIO(as_csv(found, posts, REMOVED, WORDS, ("a", "b")))))
    assert ["in_time", "1", "1", "1.0000", "what in_time is"] in rows
    assert ["caseless by", "1", "", "", "'=cmd|' /C calc'!A1"] in rows
    assert rows[-5] == ["cam-1", '\'=HYPERLINK("http://x"),"y"', "0.9877", "2", "", "yes", "1"]
    assert rows[-3:] == [
        ["removed", "files", "bytes", "", "what removed is"], ["age", "12", "3400000"], ["room", "0", "0"],
    ]  # fmt: skip
    told = as_dict(found, posts, REMOVED, WORDS, {"site": "ward-7"})
    assert told["figures"]["met"] == {"part": 0, "of": 0, "share": None, "definition": "what met is"}
    assert told["posts"][0]["recorded_is_lower_bound"] is True
    assert told["removed"]["age"] == {"files": 12, "bytes": 3_400_000}
