"""The account of a range: coverage, holds and the uplink, as one value, as JSON, and as a table. Pure.

A command's reply is 64 KiB at most. The rule: a reply holds whole stretches from the beginning until it is full, with
the sums over the *whole* range; where it had to stop stands in `next`, and asking from there on gives the rest. Nothing
is merged or left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.clock import rfc3339
from agent.recording.coverage import Now, Stretch, coverage
from agent.recording.index import Catalog
from agent.recording.testimony import Testimony
from agent.recording.timeline import Timeline
from agent.types import NS, Hold, Segment, TimeAnchor

REPLY_BYTES_MAX = 48 * 1024
LINKS_MAX = 50  # of a reply, the newest
HOLDS_MAX = 50


@dataclass(frozen=True, slots=True)
class Account:
    """What is known about a range of UTC. `stretches` follow each other and add up to the range."""

    start_utc_ns: int
    end_utc_ns: int
    stretches: list[Stretch]
    offline: list[Stretch]  # without an uplink: no gap in the recording
    holds: list[Hold]  # in force, and touching the range

    def totals_s(self) -> dict[str, float]:
        """Seconds by label."""
        found: dict[str, int] = {}
        for stretch in self.stretches:
            found[stretch.what] = found.get(stretch.what, 0) + stretch.end_utc_ns - stretch.start_utc_ns
        return {what: ns / NS for what, ns in found.items()}


def account(
    catalog: Catalog,
    start_utc_ns: int,
    end_utc_ns: int,
    *,
    writing: Sequence[Segment] = (),
    anchors: Sequence[TimeAnchor] = (),
    now: Now | None = None,
) -> Account:
    """Reads the catalog. `writing`: files in progress, without a row; `anchors`: what those files tell besides."""
    timeline = Timeline([*catalog.anchors(), *anchors])
    signs = catalog.signs()
    stretches = coverage(
        start_utc_ns,
        end_utc_ns,
        sessions=catalog.sessions(),
        segments=[*catalog.segments(), *writing],
        gaps=catalog.gaps(),
        tombstones=catalog.tombstones(),
        timeline=timeline,
        now=now,
        signs=signs,
    )
    alive = {row.boot_id: row.alive_ns for row in catalog.sessions()}
    if now is not None and now.running:
        alive[now.boot_id] = now.boot_ns
    offline = []
    for boot_id, start_ns, end_ns, text in Testimony(signs, timeline).links_down():
        one = timeline.utc(boot_id, start_ns)
        other = timeline.utc(boot_id, max(alive.get(boot_id, start_ns), start_ns) if end_ns is None else end_ns)
        if one is not None and other is not None and one.utc_ns < end_utc_ns and other.utc_ns > start_utc_ns:
            low, high = max(one.utc_ns, start_utc_ns), min(other.utc_ns, end_utc_ns)
            offline.append(Stretch(low, high, "offline", text, one.unc_s))
    holds = [
        h for h in catalog.holds() if not h.released and h.start_utc_ns < end_utc_ns and h.end_utc_ns > start_utc_ns
    ]
    return Account(
        start_utc_ns, end_utc_ns, stretches, sorted(offline, key=lambda stretch: stretch.start_utc_ns), holds
    )


def stretch_dict(stretch: Stretch) -> dict[str, Any]:
    """One stretch as JSON has it."""
    return {
        "from": rfc3339(stretch.start_utc_ns),
        "to": rfc3339(stretch.end_utc_ns),
        "seconds": round(stretch.seconds, 3),
        "what": stretch.what,
        "detail": stretch.detail[:200],
        "error_s": None if stretch.unc_s is None else round(stretch.unc_s, 3),
        "start_late_s": round(stretch.start_late_s, 3),
        "evidence": [line[:200] for line in stretch.evidence],
    }


def hold_dict(hold: Hold) -> dict[str, Any]:
    """One hold as JSON has it."""
    return {
        "id": hold.id,
        "from": rfc3339(hold.start_utc_ns),
        "to": rfc3339(hold.end_utc_ns),
        "until": None if hold.until_utc_ns is None else rfc3339(hold.until_utc_ns),
        "reason": hold.reason,
        "by": hold.asker,
        "released": hold.released,
    }


def as_dict(found: Account) -> dict[str, Any]:
    """The whole account, for a file: of any length."""
    return {
        "from": rfc3339(found.start_utc_ns),
        "to": rfc3339(found.end_utc_ns),
        "seconds": {what: round(seconds, 3) for what, seconds in found.totals_s().items()},
        "coverage": [stretch_dict(stretch) for stretch in found.stretches],
        "offline": [stretch_dict(stretch) for stretch in found.offline],
        "holds": [hold_dict(hold) for hold in found.holds],
    }


def as_reply(found: Account, bytes_max: int = REPLY_BYTES_MAX) -> dict[str, Any]:
    """The account for a reply, by the rule above; at least one stretch of it."""
    reply = as_dict(found) | {"next": None}
    whole = reply["coverage"]
    reply["offline"] = reply["offline"][-LINKS_MAX:]
    reply["holds"] = reply["holds"][-HOLDS_MAX:]
    size = len(msgspec.json.encode(reply | {"coverage": []}))
    kept: list[dict[str, Any]] = []
    for stretch in whole:
        size += len(msgspec.json.encode(stretch)) + 1
        if kept and size > bytes_max:
            reply["next"] = stretch["from"]
            break
        kept.append(stretch)
    return reply | {"coverage": kept}


def table(stretches: Sequence[Stretch]) -> str:
    """The whole range, a line a stretch: from, to, seconds, what, why; below it what that rests on."""
    lines = []
    for s in stretches:
        error = "clock not vouched for" if s.unc_s is None else f"+-{s.unc_s:.1f} s"
        if s.start_late_s:
            error += f", began up to {s.start_late_s:.0f} s later"
        why = f"{s.detail}; {error}" if s.detail else error
        lines.append(f"  {rfc3339(s.start_utc_ns)}  {rfc3339(s.end_utc_ns)}  {s.seconds:9.1f} s  {s.what}  ({why})")
    return "\n".join(lines)
