"""The post judges its own alerts by what people have said of them: how many were false, where, and what would help.

    gather    stored events and verdicts -> alerts, one an incident
    tally     alerts -> counts, rates, zones, hours
    suggest   alerts -> a score threshold, or an ignore mask where false alerts cluster
    weigh     what a rehearsal on kept footage showed -> whether a suggestion may be applied

Pure. What a suggestion would do is predicted here from what the events say; `agent.auditing` rehearses it on the
footage. Only alerts that somebody has judged speak for or against a change; for the others its effect is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from agent import wire
from agent.types import Box, Event, Kind, Phase, Priority, Verdict
from agent.vision.geometry import Point, contains

ALERTS_MAX = 1000
"""The newest ones: so many fit in one answer of the running node (agent.local.LINE_BYTES_MAX)."""
FEET_MAX = 32  # of one alert
FALSE_MIN = 2
"""So many false alerts in one place make a cluster: one alone is not worth a blind spot."""
ALIKE_IOU = 0.3
"""Boxes that overlap so strongly are of one place."""
MARGIN = 0.02  # of the picture, around what a mask is to cover
MASK_AREA_MAX = 0.25
"""A larger mask would blind the post: then nothing is suggested."""
SCORE_MAX = 0.9
"""A higher threshold would find nobody any more."""
MATCH_NS = 3_000_000_000
MATCH_IOU = 0.2
"""By so much time and place an alert in a rehearsal may differ from the one it stands for."""

Judged = Literal["true", "false", ""]


class Alert(Struct, frozen=True, kw_only=True):
    """One incident that was told as an alert."""

    incident: str
    kind: str
    boot_id: str
    start_ns: int
    end_ns: int
    score: float | None  # the best that its events tell
    boxes: tuple[Box, ...]
    feet: tuple[Point, ...]  # where it stood, FEET_MAX at most
    zones: tuple[str, ...]
    judged: Judged  # empty: by nobody
    reason: str


class Tally(Struct, frozen=True, kw_only=True):
    """One camera's alerts of some days."""

    days: float
    alerts: int
    true: int
    false: int
    unjudged: int
    false_per_day: float
    false_by_zone: dict[str, int]  # "" for outside of all zones
    false_by_hour: dict[int, int]  # local
    false_by_reason: dict[str, int]


class Suggestion(Struct, frozen=True, kw_only=True):
    """A change of the configuration, and what it would have done by what the events say: ids of incidents."""

    kind: Literal["threshold", "mask"]
    why: str
    score_min: float = 0.0  # threshold
    polygon: tuple[Point, ...] = ()  # mask
    avoids: tuple[str, ...] = ()  # false ones
    unjudged: tuple[str, ...] = ()  # that would not have been told either


class Trial(Struct, frozen=True, kw_only=True):
    """What became of one judged alert when its footage was looked at again with the change."""

    incident: str
    judged: Judged
    state: Literal["kept", "gone", "not reproduced", "not replayed"]
    why: str = ""  # not replayed: why


class Weight(Struct, frozen=True, kw_only=True):
    """What the rehearsal of a suggestion showed."""

    false_avoided: int
    false_kept: int
    true_kept: int
    true_lost: int
    unproved: int  # judged alerts whose footage is gone, sealed, or did not show them again
    may_be_applied: bool


class Seen(Struct, frozen=True, kw_only=True):
    """An incident of a rehearsal that was told as an alert."""

    kind: str
    start_utc_ns: int
    end_utc_ns: int
    boxes: tuple[Box, ...]


def gather(events: Iterable[wire.CloudEvent], verdicts: Iterable[Verdict]) -> list[Alert]:
    """The alerts among these events, oldest first, the newest ALERTS_MAX; the last verdict about each counts."""
    said = {verdict.incident: verdict for verdict in verdicts}
    told: dict[str, list[wire.CloudEvent]] = {}
    for event in events:
        told.setdefault(event.data.incident, []).append(event)
    alerts = [list_ for list_ in told.values() if any(event.data.severity == "alert" for event in list_)]
    return [_alert(phases, said.get(phases[0].data.incident)) for phases in alerts[-ALERTS_MAX:]]


def _alert(phases: Sequence[wire.CloudEvent], verdict: Verdict | None) -> Alert:
    boxes = tuple(dict.fromkeys(Box(*event.data.box) for event in phases if event.data.box is not None))
    stood = [box.foot for box in boxes] + [(x, y) for event in phases for x, y in event.data.path]
    feet = dict.fromkeys((round(x, 4), round(y, 4)) for x, y in stood)
    scores = [event.data.score for event in phases if event.data.score is not None]
    judged: Judged = "" if verdict is None else "true" if verdict.verdict == "true" else "false"
    return Alert(
        incident=phases[0].data.incident,
        kind=phases[-1].type.removeprefix("wardpost."),
        boot_id=phases[0].bootid,
        start_ns=min(event.monons - (event.data.dwellms or 0) * 1_000_000 for event in phases),
        end_ns=max(event.monons for event in phases),
        score=max(scores, default=None),
        boxes=boxes[:FEET_MAX],
        feet=tuple(feet)[:FEET_MAX],
        zones=tuple(dict.fromkeys(zone for event in phases for zone in event.data.zones)),
        judged=judged,
        reason="" if verdict is None else verdict.reason,
    )


def tally(alerts: Sequence[Alert], *, days: float, hour: Callable[[Alert], int | None]) -> Tally:
    """Counts. `hour`: the local hour of the day of an alert; None where no clock tells."""
    false = [alert for alert in alerts if alert.judged == "false"]
    zones = Counter(zone for alert in false for zone in (alert.zones or ("",)))
    hours = Counter(at for alert in false if (at := hour(alert)) is not None)
    return Tally(
        days=days,
        alerts=len(alerts),
        true=sum(alert.judged == "true" for alert in alerts),
        false=len(false),
        unjudged=sum(alert.judged == "" for alert in alerts),
        false_per_day=round(len(false) / days, 2),
        false_by_zone=dict(zones.most_common()),
        false_by_hour=dict(sorted(hours.items())),
        false_by_reason=dict(Counter(alert.reason for alert in false).most_common(10)),
    )


def suggest(alerts: Sequence[Alert], *, score_min: float) -> list[Suggestion]:
    """What would have avoided false alerts and kept every true one, the most useful first; often nothing.

    `score_min`: the threshold in force.
    """
    found = [one for one in (_threshold(alerts, score_min), *_masks(alerts)) if one is not None]
    return sorted(found, key=lambda one: -len(one.avoids))


def would_be_silent(alert: Alert, suggestion: Suggestion) -> bool:
    """Whether this alert would not have been told with the change, by what its events say."""
    if suggestion.kind == "threshold":
        return alert.score is not None and alert.score < suggestion.score_min
    return bool(alert.feet) and all(_in(suggestion.polygon, foot) for foot in alert.feet)


def _in(polygon: Sequence[Point], point: Point) -> bool:
    x, y = (min(max(value, 1e-6), 1 - 1e-6) for value in point)  # as agent.vision.masks does it
    return contains(polygon, x, y)


def _threshold(alerts: Sequence[Alert], score_min: float) -> Suggestion | None:
    """Midway between the weakest true alert and the strongest false one below it. Without a true alert to hold it
    against, a threshold would be a guess.
    """
    true = [alert.score for alert in alerts if alert.judged == "true" and alert.score is not None]
    if not true or any(alert.judged == "true" and alert.score is None for alert in alerts):
        return None
    weakest = min(true)
    below = [a.score for a in alerts if a.judged == "false" and a.score is not None and a.score < weakest]
    if len(below) < FALSE_MIN:
        return None
    score = round((max(below) + weakest) / 2, 2)
    if not max(*below, score_min) < score <= min(weakest, SCORE_MAX):
        return None  # they lie too close together
    why = f"the weakest true alert has the score {weakest:.2f}, {len(below)} false ones at most {max(below):.2f}"
    return _completed(Suggestion(kind="threshold", why=why, score_min=score), alerts)


def _masks(alerts: Sequence[Alert]) -> list[Suggestion]:
    """A mask for each place of several false alerts where no true one ever stood."""
    true_feet = [foot for alert in alerts if alert.judged == "true" for foot in alert.feet]
    found = []
    for cluster in clusters([alert for alert in alerts if alert.judged == "false" and alert.boxes]):
        if len(cluster) < FALSE_MIN:
            continue
        feet = [foot for alert in cluster for foot in alert.feet]
        corners = [(x, y) for alert in cluster for box in alert.boxes for x, y in ((box.x, box.y), (box.x2, box.y2))]
        for points in (corners + feet, feet):  # all of it, so that its motion wakes nobody; else where it stands
            polygon = _around(points)
            if _area(polygon) <= MASK_AREA_MAX and not any(_in(polygon, foot) for foot in true_feet):
                why = f"{len(cluster)} false alerts in one place where no true one ever stood"
                found.append(_completed(Suggestion(kind="mask", why=why, polygon=polygon), alerts))
                break
    return [one for one in found if len(one.avoids) >= FALSE_MIN]


def _completed(bare: Suggestion, alerts: Sequence[Alert]) -> Suggestion:
    silent = [alert for alert in alerts if would_be_silent(alert, bare)]
    return Suggestion(
        kind=bare.kind,
        why=bare.why,
        score_min=bare.score_min,
        polygon=bare.polygon,
        avoids=tuple(alert.incident for alert in silent if alert.judged == "false"),
        unjudged=tuple(alert.incident for alert in silent if alert.judged == ""),
    )


def clusters(alerts: Sequence[Alert]) -> list[list[Alert]]:
    """Alerts of one place together: each is like another one of its cluster (single linkage over any two boxes)."""
    found: list[list[Alert]] = []
    for alert in alerts:
        near = [cluster for cluster in found if any(_alike(alert, other) for other in cluster)]
        found = [cluster for cluster in found if cluster not in near]
        found.append([member for cluster in near for member in cluster] + [alert])
    return found


def _alike(one: Alert, other: Alert) -> bool:
    return any(a.iou(b) >= ALIKE_IOU for a in one.boxes for b in other.boxes)


def _around(points: Sequence[Point]) -> tuple[Point, ...]:
    """The rectangle around these points and a margin, in the picture, as it is written to a configuration."""
    left, right = min(x for x, _ in points) - MARGIN, max(x for x, _ in points) + MARGIN
    top, bottom = min(y for _, y in points) - MARGIN, max(y for _, y in points) + MARGIN
    x1, x2, y1, y2 = (round(min(max(value, 0.0), 1.0), 4) for value in (left, right, top, bottom))
    return ((x1, y1), (x2, y1), (x2, y2), (x1, y2))


def _area(polygon: Sequence[Point]) -> float:
    (x1, y1), _, (x2, y2), _ = polygon
    return (x2 - x1) * (y2 - y1)


def matches(alert: Alert, start_utc_ns: int, end_utc_ns: int, seen: Seen) -> bool:
    """Whether what a rehearsal told stands for this alert, which lasted from `start_utc_ns` to `end_utc_ns`."""
    in_time = seen.start_utc_ns <= end_utc_ns + MATCH_NS and seen.end_utc_ns >= start_utc_ns - MATCH_NS
    in_place = not alert.boxes or any(a.iou(b) >= MATCH_IOU for a in alert.boxes for b in seen.boxes)
    return seen.kind == alert.kind and in_time and in_place


def trial(alert: Alert, *, before: bool, after: bool) -> Trial:
    """`before`, `after`: whether its footage shows it with the settings in force, and with the change."""
    state: Literal["kept", "gone", "not reproduced"] = "kept" if after else "gone" if before else "not reproduced"
    return Trial(incident=alert.incident, judged=alert.judged, state=state)


def weigh(trials: Sequence[Trial]) -> Weight:
    """A change may be applied when it was seen to avoid a false alert, and no true one was seen to be lost; when there
    are true alerts, at least one of them was seen to be kept.
    """
    count = Counter((trial.judged, trial.state) for trial in trials)
    kept, lost = count["true", "kept"], count["true", "gone"]
    any_true = any(trial.judged == "true" for trial in trials)
    return Weight(
        false_avoided=count["false", "gone"],
        false_kept=count["false", "kept"],
        true_kept=kept,
        true_lost=lost,
        unproved=sum(trial.state.startswith("not ") for trial in trials),
        may_be_applied=count["false", "gone"] > 0 and lost == 0 and (kept > 0 or not any_true),
    )


def notice(text: str, *, incident: str, boot_ns: int) -> Event:
    """The report as an event for headquarters."""
    return Event(
        incident=incident,
        kind=Kind.NODE,
        phase=Phase.ENDED,
        boot_ns=boot_ns,
        priority=Priority.NOTICE,
        summary=f"Audit of {text}"[:500],
    )


def summary(found: Tally, weights: Mapping[str, Weight]) -> str:
    """One sentence for headquarters. `weights`: of each suggestion, by what it is in words."""
    days = f"{found.days:g} day{'' if found.days == 1 else 's'}"
    said = f"{days}: {found.alerts} alerts, {found.true} true, {found.false} false ({found.false_per_day:g} a day)"
    said += f", {found.unjudged} not judged"
    for words, weight in weights.items():
        said += f"; {words} would avoid {weight.false_avoided} and lose {weight.true_lost} true"
    return said[:500]
