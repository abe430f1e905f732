"""What a period comes to. Pure: facts in, figures out. Each figure has a definition in words: words.*.json,
`report.what.<figure>`, which stands on the page beside it. A share of nothing is None, never 0 or 100 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

PERIOD_DAYS_MAX = 92.0


@dataclass(frozen=True, slots=True)
class AlertFact:
    """One alert that was raised in the period."""

    node: str
    due_utc_ns: int
    acknowledged_utc_ns: int | None
    verdict: str  # true, false, or empty: nobody has said


@dataclass(frozen=True, slots=True)
class RequestFact:
    """One request for footage of the period, and how far it came."""

    node: str
    state: str  # of the order: waiting, done, refused, failed, expired
    files: int  # that came for it, and are what the node recorded


@dataclass(frozen=True, slots=True)
class ViewFact:
    """Somebody saw footage."""

    utc_ns: int
    login: str
    node: str
    ref: str  # SHA-256


@dataclass(frozen=True, slots=True)
class LiveFact:
    """Somebody began a live view."""

    utc_ns: int
    login: str
    node: str
    case: str  # as he has named it; empty: none
    bell: str = ""  # the incident of the bell that he looked around; empty: none


@dataclass(frozen=True, slots=True)
class CaseFact:
    """What a case covers, and while it was not closed. `until_utc_ns` None: it is open."""

    posts: frozenset[str]
    files: frozenset[str]
    since_utc_ns: int
    until_utc_ns: int | None


@dataclass(frozen=True, slots=True)
class PostFigures:
    """One post. `up`: share of the time in which it was heard; `recorded`: share of which it has footage."""

    node: str
    place: str
    up: float | None
    outages: int
    recorded: float | None
    alerts: int
    cut: bool = False  # there was too much to be looked at: `recorded` is a lower bound


@dataclass(frozen=True, slots=True)
class RemovedFact:
    """What left the archive by retention in the period, for one reason: age, room or early."""

    why: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Cut:
    """What a report leaves out, for there was more than it reads."""

    alerts: bool
    requests: bool
    views: bool
    cases: bool
    posts: int  # so many have no line of their own

    @property
    def names(self) -> list[str]:
        """Of what something was left out: words.*.json, `report.cut.<name>`."""
        return [one.name for one in fields(self) if getattr(self, one.name)]


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many."""

    part: int
    of: int

    @property
    def share(self) -> float | None:
        """None: of nothing."""
        return None if not self.of else self.part / self.of


@dataclass(frozen=True, slots=True)
class Figures:
    """All of a report, but the posts."""

    in_time: Share  # alerts answered in time, of all that are due
    false_alerts: Share  # of those that somebody has judged
    unjudged: int
    met: Share  # requests that brought footage, of those that are over
    waiting: int
    caseless_footage: Share  # views of footage without a case, of all of them
    caseless_live: Share  # live views for which no case was named, but those around a bell, of all of them
    caseless_by: dict[str, int]  # both, by login
    caseless_live_by: dict[str, int]  # of these, live

    @property
    def caseless(self) -> Share:
        """Both together."""
        files, live = self.caseless_footage, self.caseless_live
        return Share(files.part + live.part, files.of + live.of)


def figures(
    *,
    alerts: Sequence[AlertFact],
    requests: Sequence[RequestFact],
    views: Sequence[ViewFact],
    watched: Sequence[LiveFact],
    cases: Sequence[CaseFact],
    now_utc_ns: int,
) -> Figures:
    """The figures of a period, of the facts of that period."""
    due = [one for one in alerts if one.acknowledged_utc_ns is not None or one.due_utc_ns <= now_utc_ns]
    in_time = [one for one in due if one.acknowledged_utc_ns is not None and one.acknowledged_utc_ns <= one.due_utc_ns]
    judged = [one for one in alerts if one.verdict]
    over = [one for one in requests if one.state != "waiting" or one.files]
    without = uncovered(views, cases)
    unnamed = [one for one in watched if not one.case and not one.bell]
    live_by = Counter(one.login for one in unnamed)
    by = live_by + Counter(one.login for one in without)
    return Figures(
        in_time=Share(len(in_time), len(due)),
        false_alerts=Share(sum(1 for one in judged if one.verdict == "false"), len(judged)),
        unjudged=len(alerts) - len(judged),
        met=Share(sum(1 for one in over if one.files), len(over)),
        waiting=len(requests) - len(over),
        caseless_footage=Share(len(without), len(views)),
        caseless_live=Share(len(unnamed), len(watched)),
        caseless_by=dict(sorted(by.items())),
        caseless_live_by=dict(sorted(live_by.items())),
    )


def uncovered(views: Iterable[ViewFact], cases: Iterable[CaseFact]) -> list[ViewFact]:
    """Views for which no case speaks: none that was not closed at that moment has the file, or is about the post."""
    of_post: dict[str, list[CaseFact]] = {}
    of_file: dict[str, list[CaseFact]] = {}
    for case in cases:
        for node in case.posts:
            of_post.setdefault(node, []).append(case)
        for ref in case.files:
            of_file.setdefault(ref, []).append(case)
    return [
        view
        for view in views
        if not any(
            case.since_utc_ns <= view.utc_ns and (case.until_utc_ns is None or view.utc_ns < case.until_utc_ns)
            for case in (*of_post.get(view.node, ()), *of_file.get(view.ref, ()))
        )
    ]


def union(stretches: Iterable[tuple[int, int]], start: int, end: int) -> int:
    """Nanoseconds of [start, end) that lie in one of the stretches or more."""
    total, reached = 0, start
    for low, high in sorted(stretches):
        first, last = max(low, reached), min(high, end)
        if last > first:
            total += last - first
            reached = last
    return total


def share_recorded(stretches: Iterable[tuple[int, int]], start_utc_ns: int, end_utc_ns: int) -> float | None:
    """Share of [start, end) of which there is footage."""
    if end_utc_ns <= start_utc_ns:
        return None
    return union(stretches, start_utc_ns, end_utc_ns) / (end_utc_ns - start_utc_ns)


def as_dict(
    found: Figures,
    posts: Sequence[PostFigures],
    removed: Sequence[RemovedFact],
    definitions: Mapping[str, str],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole report for programs, definitions included."""
    return {
        **about,
        "figures": {
            name: {"part": share.part, "of": share.of, "share": share.share, "definition": definitions[name]}
            for name, share in shares(found)
        },
        "alerts_not_judged": found.unjudged,
        "requests_waiting": found.waiting,
        "views_without_case_by": found.caseless_by,
        "live_views_without_case_by": found.caseless_live_by,
        "posts": [
            {
                "post": one.node,
                "place": one.place,
                "up": one.up,
                "outages": one.outages,
                "recorded": one.recorded,
                "recorded_is_lower_bound": one.cut,
                "alerts": one.alerts,
            }
            for one in posts
        ],
        "removed": {one.why: {"files": one.files, "bytes": one.bytes} for one in removed},
        "definitions": {name: definitions[name] for name in ("up", "recorded", "removed")},
    }


def shares(found: Figures) -> list[tuple[str, Share]]:
    """The figures by name."""
    return [
        ("in_time", found.in_time),
        ("false_alerts", found.false_alerts),
        ("met", found.met),
        ("caseless_footage", found.caseless_footage),
        ("caseless_live", found.caseless_live),
        ("caseless", found.caseless),
    ]


DEFINED: Collection[str] = (
    "up", "recorded", "in_time", "false_alerts", "met", "caseless_footage", "caseless_live", "caseless", "removed",
)  # fmt: skip
