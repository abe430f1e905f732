"""What is told of an alert or a post. Pure.

Words of a place or an event come from nodes: `clean` makes them one harmless line before they leave the station, and
whoever writes them into XML, JSON or a header escapes them for that.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Literal, get_args
from urllib.parse import quote

import msgspec
from msgspec import Struct

from agent import wire
from agent.clock import rfc3339
from agent.errors import Corrupt

Kind = Literal["bell", "alert", "overdue", "evidence", "dark", "back"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TYPES: dict[Kind, str] = {
    "bell": "wardpost.bell",
    "alert": "wardpost.alert",
    "overdue": "wardpost.alert.overdue",
    "evidence": "wardpost.evidence.alarm",
    "dark": "wardpost.post.dark",
    "back": "wardpost.post.back",
}
PLACE_CHARS_MAX = 200
SUMMARY_CHARS_MAX = 500
BIDI = {0x200E, 0x200F, 0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""They turn the reading order around: a text would show other words than it says."""


class Notice(Struct, frozen=True, kw_only=True):
    """One thing to tell. Texts are clean. Times are RFC 3339, UTC."""

    id: str  # of what is told; the same for every destination and every attempt
    kind: Kind
    site: str
    node: str
    time: str  # bell, alert, overdue: when it happened, by the node; others: when the station noticed
    noticed: str  # when the station had it
    place: str = ""
    incident: str = ""
    severity: str = ""
    event: str = ""  # person, bell, tamper, ...; evidence: what was found, as altered-footage
    summary: str = ""
    timeerrms: int | None = None
    historical: bool = False
    due: str = ""  # to be acknowledged by then
    since: str = ""  # dark: last heard; back: heard again
    onvif: str = ""
    file: str = ""  # evidence: on the post
    recorded: str = ""  # its sha256 by the post
    arrived: str = ""  # and that of what came

    def as_dict(self) -> dict[str, Any]:
        """What a program is told: `type`, `timestamp`, `data`, as Standard Webhooks recommends."""
        data = {k: v for k, v in msgspec.to_builtins(self).items() if k not in ("id", "kind") and v not in ("", None)}
        return {"type": TYPES[self.kind], "timestamp": self.noticed, "data": data}


def encode(notice: Notice) -> str:
    """As it is kept."""
    return msgspec.json.encode(notice).decode()


def decode(text: str) -> Notice:
    """Raises Corrupt."""
    try:
        return msgspec.json.decode(text, type=Notice)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"a notice that is none: {error}") from None


def of_alert(
    kind: Kind,
    *,
    step: int,
    site: str,
    node: str,
    incident: str,
    severity: str,
    noticed_utc_ns: int,
    due_utc_ns: int,
    body: bytes | None,
) -> Notice:
    """`body`: its newest event as it came; None or not understood: it is told with what the station knows by itself."""
    told = _event(body)
    data = None if told is None else told.data
    return Notice(
        id=f"step-{step}",
        kind=kind,
        site=site,
        node=node,
        incident=incident,
        severity=severity,
        noticed=rfc3339(noticed_utc_ns),
        due=rfc3339(due_utc_ns),
        time=rfc3339(noticed_utc_ns) if told is None else clean(told.time, 40),
        timeerrms=None if told is None else told.timeerrms,
        historical=told is not None and told.historical,
        event="" if told is None else clean(told.type.removeprefix("wardpost."), 40),
        place="" if data is None else clean(data.place, PLACE_CHARS_MAX),
        summary="" if data is None else clean(data.summary, SUMMARY_CHARS_MAX),
        onvif="" if data is None else clean(data.onvif, 100),
    )


def of_post(
    kind: Kind, *, change: int, site: str, node: str, place: str, noticed_utc_ns: int, since_utc_ns: int
) -> Notice:
    """A post that fell silent, or is heard again."""
    return Notice(
        id=f"change-{change}",
        kind=kind,
        site=site,
        node=node,
        place=clean(place, PLACE_CHARS_MAX),
        time=rfc3339(noticed_utc_ns),
        noticed=rfc3339(noticed_utc_ns),
        since=rfc3339(since_utc_ns),
    )


def of_evidence(
    *,
    alarm: int,
    site: str,
    node: str,
    place: str,
    what: str,
    said: str,
    file: str,
    recorded: str,
    arrived: str,
    noticed_utc_ns: int,
) -> Notice:
    """What came from a post is not what it recorded, or its ledger does not hold."""
    return Notice(
        id=f"evidence-{alarm}",
        kind="evidence",
        site=site,
        node=node,
        place=clean(place, PLACE_CHARS_MAX),
        time=rfc3339(noticed_utc_ns),
        noticed=rfc3339(noticed_utc_ns),
        event=what,
        summary=clean(said, SUMMARY_CHARS_MAX),
        file=clean(file, PLACE_CHARS_MAX),
        recorded=recorded,
        arrived=arrived,
    )


def headline(notice: Notice) -> str:
    """The subject of a message."""
    where = f"{notice.place} ({notice.node})" if notice.place else f"post {notice.node}"
    match notice.kind:
        case "bell":
            return f"HELP CALL at {where}"
        case "alert":
            return f"Alert at {where}"
        case "overdue":
            call = "HELP CALL" if notice.severity == "bell" else "Alert"
            return f"NOT ANSWERED: {call} at {where}"
        case "evidence":
            return f"EVIDENCE ALARM at {where}"
        case "dark":
            return f"Silent: {where}"
    return f"Heard again: {where}"


def text(notice: Notice, *, origin: str = "") -> str:
    """A message to a person: what, when, how sure of the time, and by when an answer was due.

    `origin`: the desk's own address, under which the alert is; whoever follows it there logs in first.
    """
    lines = [notice.summary or headline(notice)]
    if notice.kind == "evidence":
        lines += [f"{name} {digest}" for name, digest in _digests(notice) if digest]
    if notice.kind in ("dark", "back"):
        lines.append(f"{'Last heard' if notice.kind == 'dark' else 'Heard again'}: {notice.since}")
    elif notice.kind == "evidence":
        lines.append(f"Noticed: {notice.noticed}")
    else:
        sure = "clock not verified" if notice.timeerrms is None else f"±{max(-(-notice.timeerrms // 1000), 1)} s"
        lines.append(f"When: {notice.time} ({sure})" + (", delivered late" if notice.historical else ""))
    if notice.kind == "overdue":
        lines.append(f"Nobody has acknowledged it; due {notice.due}")
    lines.append(
        f"Site {notice.site}, post {notice.node}" + (f", incident {notice.incident}" if notice.incident else "")
    )
    if origin:
        where = (
            f"/alerts/{quote(notice.incident, safe='')}" if notice.incident else f"/posts/{quote(notice.node, safe='')}"
        )
        lines.append(f"{origin}{where}")
    return "\n".join(lines)


def _digests(notice: Notice) -> tuple[tuple[str, str], ...]:
    return ("SHA-256 by the post:", notice.recorded), ("SHA-256 of what came:", notice.arrived)


def clean(said: str, chars_max: int) -> str:
    """One line of at most so many characters: no control characters, no line breaks, no turned reading order, nothing
    that XML 1.0 cannot hold.
    """
    kept = (" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in said if _harmless(c))
    return " ".join("".join(kept).split())[:chars_max].rstrip()


def _harmless(char: str) -> bool:
    code = ord(char)
    if code in BIDI or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
        return False
    return unicodedata.category(char) != "Cs"


def _event(body: bytes | None) -> wire.CloudEvent | None:
    try:
        return None if body is None else wire.decode(body, wire.CloudEvent)
    except Corrupt:
        return None
