"""Figures in Prometheus' text format 0.0.4. Pure. Labels are states, severities and destinations: a bounded number of
lines, whatever nodes send.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.station.outward.queue import Standing
from agent.types import NS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("online", "late", "dark", "offline")
SEVERITIES = ("bell", "alert")

Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True, slots=True)
class Figures:
    """What is counted, at one moment."""

    site: str
    version: str
    nodes: Mapping[str, int]  # by state
    alerts: Mapping[str, int]  # raised, by severity
    unacknowledged: Mapping[str, int]
    overdue: int  # of those
    evidence_alarms: int  # that nobody has acknowledged
    events: int  # taken in
    outward: Sequence[Standing]
    now_utc_ns: int


def render(figures: Figures) -> str:
    """A whole page."""
    return "".join(_lines(figures))


def _lines(f: Figures) -> Iterator[str]:
    yield from _family("wardpost_station_info", "gauge", "What runs.", [({"site": f.site, "version": f.version}, 1)])
    yield from _family("wardpost_nodes", "gauge", "Posts by state.", _by("state", STATES, f.nodes))
    yield from _family("wardpost_events_total", "counter", "Events taken in since installation.", [({}, f.events)])
    raised = _by("severity", SEVERITIES, f.alerts)
    yield from _family("wardpost_alerts_total", "counter", "Alerts raised since installation.", raised)
    waiting = _by("severity", SEVERITIES, f.unacknowledged)
    yield from _family("wardpost_alerts_unacknowledged", "gauge", "Alerts that nobody has acknowledged.", waiting)
    yield from _family("wardpost_alerts_overdue", "gauge", "Of these, past their deadline.", [({}, f.overdue)])
    about = "Evidence alarms that nobody has acknowledged."
    yield from _family("wardpost_evidence_alarms_open", "gauge", about, [({}, f.evidence_alarms)])
    names = [({"destination": one.destination}, one) for one in f.outward]
    held = [(labels, one.waiting) for labels, one in names]
    yield from _family("wardpost_outward_waiting", "gauge", "Notices that wait for a destination.", held)
    ages = [(labels, _age_s(one, f.now_utc_ns)) for labels, one in names]
    yield from _family("wardpost_outward_oldest_seconds", "gauge", "Age of the oldest of these.", ages)
    lost = [(labels, one.given_up) for labels, one in names]
    yield from _family("wardpost_outward_given_up", "gauge", "Notices given up, of those still on record.", lost)


def _family(name: str, kind: str, help_text: str, samples: Sequence[Sample]) -> Iterator[str]:
    yield f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        shown = repr(value) if isinstance(value, float) else str(value)
        yield f"{name}{{{inside}}} {shown}\n" if inside else f"{name} {shown}\n"


def _by(label: str, values: Sequence[str], counted: Mapping[str, int]) -> list[Sample]:
    return [({label: value}, counted.get(value, 0)) for value in values]


def _age_s(one: Standing, now_utc_ns: int) -> float:
    return 0.0 if one.oldest_utc_ns is None else max(now_utc_ns - one.oldest_utc_ns, 0) / NS


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
