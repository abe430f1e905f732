"""What an event says about its incident, as far as one can search for it. Pure."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from typing import Any

from agent import wire
from agent.clock import parse_rfc3339
from agent.station.bells.deciding import pressed_at

SEVERITIES = ("record", "notice", "alert", "bell")
"""Lowest first."""
LABELS = ("person", "vehicle", "bicycle", "animal", "motion")
SEEN = "seen"
KINDS = (
    "bell", "loiter", "crowd", "congestion", "zone", "line", "tamper", "static", "mains", "camera", "detector",
    "storage", "node", SEEN,
)  # fmt: skip
"""`seen`: something was there, and no rule fired."""
_TOPICS = {
    "FieldDetector/ObjectsInside": "zone",
    "LineDetector/Crossed": "line",
    "LoiteringDetector/ObjectIsLoitering": "loiter",
}
_RULES = "tns1:RuleEngine/"
_COUNTER = "CountAggregation/Counter"
WORDS_CHARS_MAX = 2000


@dataclass(slots=True)
class Entry:
    """A row of the table `incident`."""

    incident: str
    node: str
    kind: str
    label: str
    severity: str
    at_utc_ns: int
    error_ms: int | None
    event: int
    picture: int | None
    zones: str
    words: str

    def row(self) -> dict[str, Any]:
        """By the columns' names."""
        return asdict(self)

    def adds(self, later: Entry) -> None:
        """What a later event of the same incident makes of it. The same one twice changes nothing.

        When it began stays as it was first told; what a rule found is not undone by what says less.
        """
        if later.kind != SEEN:
            self.kind = later.kind
        self.label = self.label or later.label
        self.severity = max(self.severity, later.severity, key=SEVERITIES.index)
        if later.picture is None:
            self.event = max(self.event, later.event)
        else:
            self.picture = max(self.picture or 0, later.picture)
        self.zones = zones_text({*zone_names(self.zones), *zone_names(later.zones)})
        if later.words not in self.words:
            self.words = f"{self.words} {later.words}".strip()[:WORDS_CHARS_MAX]


def entry_of(told: wire.CloudEvent, *, n: int, node: str, received_utc_ns: int, picture: bool) -> Entry:
    """One event by itself. `picture`: whether it carries one.

    When it was: by the node's clock, where that can be gone by; else when it arrived, and nobody can say how far off
    that is (`error_ms` None).
    """
    data = told.data
    at = pressed_at(told.time, told.timeerrms, late=told.historical, received_utc_ns=received_utc_ns)
    sure = at is not None and _is(told.time, at)
    return Entry(
        incident=data.incident,
        node=node,
        kind=kind_of(told),
        label=data.label or ("motion" if told.type == "wardpost.motion" else ""),
        severity=data.severity if data.severity in SEVERITIES else SEVERITIES[0],
        at_utc_ns=received_utc_ns if at is None else at,
        error_ms=told.timeerrms if sure else None,
        event=n,
        picture=n if picture else None,
        zones=zones_text(set(data.zones)),
        words=fold(" ".join((data.place, data.rule, *sorted(data.zones), data.summary)))[:WORDS_CHARS_MAX],
    )


def _is(time: str, utc_ns: int) -> bool:
    try:
        return parse_rfc3339(time) == utc_ns
    except (ValueError, OverflowError):
        return False


def kind_of(told: wire.CloudEvent) -> str:
    """One of KINDS: by ONVIF's topic, whatever a post calls its rule, else by the event's type."""
    topic = told.data.onvif.removeprefix(_RULES)
    if topic == _COUNTER:
        return "congestion" if told.data.label == "vehicle" else "crowd"
    if topic in _TOPICS:
        return _TOPICS[topic]
    if told.data.rule == "static":
        return "static"
    kind = told.type.rpartition(".")[2]
    return kind if kind in KINDS else SEEN


def zones_text(names: set[str]) -> str:
    """`|gate|yard|`: each name is found whole."""
    return f"|{'|'.join(sorted(names))}|" if names else ""


def zone_names(text: str) -> list[str]:
    """The names again."""
    return [name for name in text.split("|") if name]


def fold(text: str) -> str:
    """Without case and accents: `duong` finds `Đường`. One line, one space between words."""
    plain = unicodedata.normalize("NFD", text.casefold().replace("đ", "d"))
    return " ".join("".join(char for char in plain if not unicodedata.combining(char)).split())
