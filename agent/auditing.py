"""`wardpost audit`: the post's own alerts held against what people said of them, and what would help, rehearsed.

A suggestion is rehearsed on the node's own recordings: the seconds around each judged alert run through the node's
eyes twice, with the settings in force and with the change. The cut-outs lie in a folder that only this user can read,
one at a time, and are deleted at once: nothing leaves the node.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from agent import audit
from agent.audit import Alert, Seen, Suggestion, Trial, Weight
from agent.clock import Clock, SystemClock, Usage, rfc3339
from agent.config import Config, load
from agent.disk import PosixDisk
from agent.errors import ConfigError, WardpostError
from agent.local import Snapshot, alerts_of, catalog_of, order
from agent.quantities import DAY_S
from agent.recording.footage import NoFootage, Part, extract
from agent.recording.timeline import Timeline
from agent.replay import ReplaySettings, replay
from agent.types import NS, Box, Detection, Event, Frame, Priority
from agent.vision.schedule import zone
from agent.vision.tracker import Track
from agent.zones_page.desk import Desk

DAYS_MAX = 36_600.0  # a post whose clock was never set lives in 1970
REHEARSED_MAX = 30  # judged alerts of a sort, the newest
LEAD_S, TAIL_S = 15.0, 5.0
"""Around an alert: the motion gate learns the picture first, and an incident ends `gone_s` after it was last seen."""
CLIP_S_MAX = 180.0


def run_audit(path: Path, *, days: float, as_json: bool, apply: bool, report: bool, out: Callable[[str], None]) -> int:
    """Prints the audit of the last `days`; returns the exit code. Blocks for the replays: as long as the footage around
    the judged alerts, once for the settings in force and once a suggestion.

    `apply`: the best suggestion that may be applied goes into the file. `report`: the running node tells headquarters.
    Works beside a running node and on a stopped one's card. Raises ConfigError, Transient, Corrupt.
    """
    if not 0 < days <= DAYS_MAX:
        raise ConfigError(f"audit: --days {days:g}: above 0, {DAYS_MAX:g} at most")
    config = load(path, Config)
    clock = SystemClock()
    folder = Path(config.node.data)
    catalog = catalog_of(folder, clock)
    timeline = Timeline(catalog.anchors())
    since_ns = clock.utc().utc_ns - round(days * DAY_S * NS)
    times = _Times(timeline)
    alerts = [one for one in alerts_of(folder, clock) if (times.start(one) or 0) >= since_ns]
    local = zone(config.calendar.time_zone)

    def hour(alert: Alert) -> int | None:
        start_ns = times.start(alert)
        return None if start_ns is None else datetime.fromtimestamp(start_ns // NS, UTC).astimezone(local).hour

    found = audit.tally(alerts, days=days, hour=hour)
    suggestions = audit.suggest(alerts, score_min=config.vision.score_min)
    trials = _Rehearsal(config, catalog, times).of(alerts, suggestions)
    weights = [audit.weigh(one) for one in trials]
    rows = [_as_dict(one, tried, weight) for one, tried, weight in zip(suggestions, trials, weights, strict=True)]
    result: dict[str, Any] = {
        "camera": f"{config.node.site}/{config.node.id}",
        "since": rfc3339(since_ns),
        "alerts": msgspec.to_builtins(found, str_keys=True),
        "suggestions": rows,
        "applied": None,
        "reported": None,
    }
    chosen = next((n for n, weight in enumerate(weights) if weight.may_be_applied), None)
    if apply and chosen is not None:
        result["applied"] = _apply(path, suggestions[chosen], clock)
    if report:
        text = audit.summary(found, {_words(one): w for one, w in zip(suggestions, weights, strict=True)})
        result["reported"] = order(folder, "report", {"text": text}).get("summary")
    out(json.dumps(result, indent=2) if as_json else _table(result, apply=apply))
    return 1 if apply and suggestions and chosen is None else 0


def _apply(path: Path, suggestion: Suggestion, clock: Clock) -> str:
    """By the hand that writes what `wardpost zones` draws: comments stay, and nothing invalid is written."""
    desk = Desk(path, clock=clock, picture=lambda: b"", live=False)
    if suggestion.kind == "mask":
        return desk.mask(suggestion.polygon)
    return desk.threshold(suggestion.score_min)


# -- the rehearsal ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Times:
    """When an alert was, in UTC ns; None where nothing ties its boot to UTC."""

    timeline: Timeline

    def start(self, alert: Alert) -> int | None:
        moment = self.timeline.utc(alert.boot_id, alert.start_ns)
        return None if moment is None else moment.utc_ns

    def span(self, alert: Alert) -> tuple[int, int] | None:
        start_ns = self.start(alert)
        return None if start_ns is None else (start_ns, start_ns + alert.end_ns - alert.start_ns)


@dataclass(frozen=True, slots=True)
class _Clip:
    """Footage around some alerts, or why there is none."""

    files: tuple[Path, ...]
    parts: tuple[Part, ...]
    missing: str = ""


class _Watcher:
    """The alerts of one replay, in UTC."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._events: dict[str, list[Event]] = {}

    def seen(self, frame: Frame, motion: list[Box], found: list[Detection], tracks: Sequence[Track]) -> None:
        """Not asked for here."""

    def told(self, events: Sequence[Event]) -> None:
        for event in events:
            self._events.setdefault(event.incident, []).append(event)

    def alerts(self) -> list[Seen]:
        return [
            Seen(
                kind=phases[-1].kind.value,
                start_utc_ns=self._utc(min(p.boot_ns if p.since_ns is None else p.since_ns for p in phases)),
                end_utc_ns=self._utc(max(phase.boot_ns for phase in phases)),
                boxes=tuple(phase.box for phase in phases if phase.box is not None),
            )
            for phases in self._events.values()
            if any(phase.priority <= Priority.ALERT for phase in phases)
        ]

    def _utc(self, media_ns: int) -> int:
        """What the clock showed at this place of the file."""
        part = max((p for p in self._parts if p.at_s * NS <= media_ns), key=lambda p: p.at_s, default=self._parts[0])
        return part.utc_ns + media_ns - round(part.at_s * NS)


class _Rehearsal:
    """Judged alerts on their own footage, with each change in turn. One cut-out lies on the disk at a time."""

    def __init__(self, config: Config, catalog: Snapshot, times: _Times) -> None:
        settings = ReplaySettings.of(config)
        # A replay knows no time of day: the rules that counted then, and those that did not, all count.
        rules = tuple(msgspec.structs.replace(rule, during=(), outside=()) for rule in settings.rules)
        self._settings = msgspec.structs.replace(settings, rules=rules)
        self._disk = PosixDisk(Path(config.node.data))
        self._catalog, self._times = catalog, times

    def of(self, alerts: Sequence[Alert], suggestions: Sequence[Suggestion]) -> list[list[Trial]]:
        """For each suggestion, what becomes of the judged alerts: of the true ones, and of the false ones that it is
        to avoid; REHEARSED_MAX of either sort, the newest.
        """
        avoided = {incident for one in suggestions for incident in one.avoids}
        about = [alert for alert in alerts if alert.incident in avoided][-REHEARSED_MAX:]
        about += [alert for alert in alerts if alert.judged == "true"][-REHEARSED_MAX:]
        trials: list[list[Trial]] = [[] for _ in suggestions]
        for window, members in _windows([(alert, self._times.span(alert)) for alert in about] if suggestions else []):
            with tempfile.TemporaryDirectory(prefix="wardpost-audit-") as folder:
                clip = self._clip(window, Path(folder))
                before = [] if clip.missing else _watch(clip, self._settings)
                for suggestion, tried in zip(suggestions, trials, strict=True):
                    mine = [(a, span) for a, span in members if a.judged == "true" or a.incident in suggestion.avoids]
                    if clip.missing:
                        tried += [_not_replayed(alert, clip.missing) for alert, _ in mine]
                    elif mine:
                        after = _watch(clip, self._changed(suggestion))
                        tried += [_trial(alert, span, before, after) for alert, span in mine]
        return trials

    def _changed(self, suggestion: Suggestion) -> ReplaySettings:
        vision = self._settings.vision
        if suggestion.kind == "threshold":
            vision = msgspec.structs.replace(vision, score_min=suggestion.score_min)
        else:
            vision = msgspec.structs.replace(vision, ignore_masks=(*vision.ignore_masks, suggestion.polygon))
        return msgspec.structs.replace(self._settings, vision=vision)

    def _clip(self, window: tuple[int, int], folder: Path) -> _Clip:
        """The footage of a stretch, cut out into `folder`."""
        try:
            made = extract(
                disk=self._disk,
                catalog=self._catalog,
                start_utc_ns=window[0],
                end_utc_ns=window[1],
                output=folder / "clip.mp4",
            )
        except NoFootage:
            return _Clip((), (), "its footage is gone")
        except WardpostError as error:
            return _Clip((), (), "its footage is sealed" if "sealed to the station" in str(error) else str(error))
        return _Clip(tuple(made.files), tuple(made.parts))


def _not_replayed(alert: Alert, why: str) -> Trial:
    return Trial(incident=alert.incident, judged=alert.judged, state="not replayed", why=why)


def _trial(alert: Alert, span: tuple[int, int], before: Sequence[Seen], after: Sequence[Seen]) -> Trial:
    return audit.trial(
        alert,
        before=any(audit.matches(alert, *span, seen) for seen in before),
        after=any(audit.matches(alert, *span, seen) for seen in after),
    )


def _windows(
    alerts: Sequence[tuple[Alert, tuple[int, int] | None]],
) -> list[tuple[tuple[int, int], list[tuple[Alert, tuple[int, int]]]]]:
    """The stretches of footage to look at, CLIP_S_MAX at most unless one alert is longer, each with its alerts."""
    found: list[tuple[tuple[int, int], list[tuple[Alert, tuple[int, int]]]]] = []
    placed = [(alert, span) for alert, span in alerts if span is not None]
    for alert, span in sorted(placed, key=lambda pair: pair[1]):
        start_ns, end_ns = span[0] - round(LEAD_S * NS), span[1] + round(TAIL_S * NS)
        if found:
            (first_ns, last_ns), members = found[-1]
            if start_ns <= last_ns and max(end_ns, last_ns) - first_ns <= CLIP_S_MAX * NS:
                found[-1] = ((first_ns, max(end_ns, last_ns)), [*members, (alert, span)])
                continue
        found.append(((start_ns, end_ns), [(alert, span)]))
    return found


def _watch(clip: _Clip, settings: ReplaySettings) -> list[Seen]:
    """The alerts of this footage with these settings."""
    found: list[Seen] = []
    for file in clip.files:
        watcher = _Watcher([part for part in clip.parts if part.file == file])
        replay(
            file,
            settings=settings,
            store_dir=None,
            detections=None,
            every_frame=False,
            usage=Usage(),
            onlookers=[watcher],
            out=io.StringIO(),
        )
        found += watcher.alerts()
    return found


# -- words ------------------------------------------------------------------------------------------------------------


def _words(suggestion: Suggestion) -> str:
    if suggestion.kind == "threshold":
        return f"vision.score_min = {suggestion.score_min:g}"
    return "an ignore mask " + " ".join(f"{x:g},{y:g}" for x, y in suggestion.polygon)


def _as_dict(suggestion: Suggestion, trials: Sequence[Trial], weight: Weight) -> dict[str, Any]:
    return {
        "change": _words(suggestion),
        **msgspec.to_builtins(suggestion),
        "rehearsed": [msgspec.to_builtins(one) for one in trials],
        "effect": msgspec.to_builtins(weight),
    }


def _table(result: Mapping[str, Any], *, apply: bool) -> str:
    told = result["alerts"]
    counted = f"{told['alerts']} alerts; {told['true']} true, {told['false']} false ({told['false_per_day']:g} a day)"
    lines = [f"{result['camera']}, {told['days']:g} days: {counted}, {told['unjudged']} not judged"]
    for name, counts in (("zone", "false_by_zone"), ("hour", "false_by_hour"), ("reason", "false_by_reason")):
        if told[counts]:
            said = ", ".join(f"{key or 'none'}: {count}" for key, count in told[counts].items())
            lines.append(f"  false alerts by {name:7} {said}")
    for row in result["suggestions"]:
        lines += _suggestion_lines(row)
    if not result["suggestions"]:
        lines.append("nothing to suggest: no change would avoid several false alerts and keep every true one")
    if result["applied"]:
        lines.append(result["applied"])
    elif apply:
        lines.append("nothing was applied: no suggestion was shown to be safe on kept footage")
    if result["reported"]:
        lines.append(f"report: {result['reported']}")
    return "\n".join(lines)


def _suggestion_lines(row: Mapping[str, Any]) -> list[str]:
    effect = row["effect"]
    false = f"{effect['false_avoided']} false alerts avoided, {effect['false_kept']} not"
    true = f"{effect['true_kept']} true alerts kept, {effect['true_lost']} lost"
    lines = [f"suggested: {row['change']}", f"  because {row['why']}", f"  on kept footage: {false}; {true}"]
    for trial in row["rehearsed"]:
        if trial["state"].startswith("not "):
            why = f": {trial['why']}" if trial["why"] else ""
            lines.append(f"  {trial['incident']} ({trial['judged']}): {trial['state']}{why}")
    if row["unjudged"]:
        lines.append(f"  {len(row['unjudged'])} alerts that nobody has judged would not be told either")
    lines.append(
        "  may be applied: --apply" if effect["may_be_applied"] else "  not to be applied: not shown to be safe"
    )
    return lines
