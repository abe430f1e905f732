"""The coverage bar of a post as SVG: what there was, and what of it is here. Pure.

What is here lies above what the post recorded. Everything is drawn by attributes: the pages allow no inline style.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape, quoteattr

from agent.recording.coverage import FUTURE, RECORDED, Stretch
from agent.types import NS, Cause

WIDE = 1000
WIDTH_MIN = 1.0
FILLS = {
    RECORDED: "#2f6f9f",
    Cause.POWER_OFF: "#30343b",
    Cause.AGENT_STOPPED: "#8b929b",
    Cause.CAMERA_FAULT: "#f2a33a",
    Cause.STORAGE_FAULT: "#d64545",
    Cause.PRIVACY: "#7fb2e5",
    Cause.DELETED: "#d9d2b0",
    Cause.BEFORE_INSTALL: "#e8eaed",
    Cause.UNKNOWN: "#b0359b",
}
HERE = "#39a653"


def draw(
    stretches: Sequence[Stretch],
    here: Sequence[tuple[int, int]],
    *,
    mark_utc_ns: int | None,
    label: str,
    says: Callable[[Stretch], str],
    clock: Callable[[int], str],
) -> str:
    """`label`: for who cannot see it; `says`: a stretch in words; `clock`: a time; `mark_utc_ns`: an alert's."""
    start, end = stretches[0].start_utc_ns, stretches[-1].end_utc_ns

    def x(utc_ns: int) -> float:
        return (min(max(utc_ns, start), end) - start) * WIDE / (end - start)

    name = quoteattr(label)
    parts = [f'<svg class="coverage" viewBox="0 0 {WIDE} 30" preserveAspectRatio="none" role="img" aria-label={name}>']
    for one in sorted(stretches, key=lambda s: (s.what != RECORDED, -s.seconds)):
        if one.detail == FUTURE and one.what == Cause.UNKNOWN:
            continue
        left = x(one.start_utc_ns)
        wide = max(x(one.end_utc_ns) - left, WIDTH_MIN)
        parts.append(
            f'<rect x="{left:.2f}" y="0" width="{wide:.2f}" height="30" fill="{FILLS.get(one.what, "#b0359b")}">'
            f"<title>{escape(says(one))}</title></rect>"
        )
    for low, high in here:
        left = x(low)
        wide = max(x(high) - left, WIDTH_MIN)
        parts.append(f'<rect class="here" x="{left:.2f}" y="0" width="{wide:.2f}" height="14" fill="{HERE}"/>')
    if mark_utc_ns is not None and start <= mark_utc_ns <= end:
        at = x(mark_utc_ns)
        parts.append(f'<path d="M{at:.2f},0 V30" stroke="#ffffff" stroke-width="3"/>')
        parts.append(f'<path d="M{at:.2f},0 V30" stroke="#d64545" stroke-width="1.5"/>')
    parts.append('<path class="now" d="" stroke="#ffffff" stroke-width="2"/></svg>')
    ticks = "".join(f"<span>{escape(clock(at))}</span>" for at in _ticks(start, end))
    return "".join(parts) + f'<div class="ticks" aria-hidden="true">{ticks}</div>'


def _ticks(start_utc_ns: int, end_utc_ns: int) -> list[int]:
    """Its beginning, middle and end: they fit on a phone, and stand where they belong."""
    middle = (start_utc_ns + end_utc_ns) // 2 // NS * NS
    return [start_utc_ns, middle, end_utc_ns]


def totals_s(stretches: Sequence[Stretch]) -> dict[str, float]:
    """Seconds by label, the longest first; the time to come is none."""
    found: dict[str, float] = {}
    for one in stretches:
        if not (one.what == Cause.UNKNOWN and one.detail == FUTURE):
            found[str(one.what)] = found.get(str(one.what), 0.0) + one.seconds
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
