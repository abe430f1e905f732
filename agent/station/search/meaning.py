"""What an event says about its incident, as far as one can search for it. Pure."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from typing import Any

from agent import wire
from agent.station.bells.deciding import FRESH_NS, SURE_MS_MAX
from agent.station.moments import told_ns

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
    """One event by itself. `picture`: whether it carries one."""
    data = told.data
    at, error_ms = moment_of(told, received_utc_ns)
    return Entry(
        incident=data.incident,
        node=node,
        kind=kind_of(told),
        label=data.label or ("motion" if told.type == "wardpost.motion" else ""),
        severity=data.severity if data.severity in SEVERITIES else SEVERITIES[0],
        at_utc_ns=at,
        error_ms=error_ms,
        event=n,
        picture=n if picture else None,
        zones=zones_text(set(data.zones)),
        words=fold(" ".join((data.place, data.rule, *sorted(data.zones), data.summary)))[:WORDS_CHARS_MAX],
    )


def moment_of(told: wire.CloudEvent, received_utc_ns: int) -> tuple[int, int | None]:
    """When it was, UTC ns, and how far off that may be, ms.

    By the node's clock, where that can be gone by: it knows its error, and told the event late, or at once. Else when
    it arrived, and nobody can say how far off that is (None).
    """
    at, error_ms = told_ns(told.time), told.timeerrms
    if at is None or error_ms is None or not 0 <= error_ms <= SURE_MS_MAX or at > received_utc_ns + FRESH_NS:
        return received_utc_ns, None
    if not told.historical and at < received_utc_ns - FRESH_NS:
        return received_utc_ns, None
    return at, error_ms


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
