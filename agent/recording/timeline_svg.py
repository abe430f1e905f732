"""A picture of an account: one row per local day, readable in a browser and on paper. Pure.

Each label has a colour and a hatching of its own, for black-and-white printers. What is uncertain is drawn uncertain: a
start that may lie later is a hatched stretch with a dashed end, an error of the clock a bar across the edge, a clock
that nobody vouches for a dashed frame. A stretch too short to be seen is drawn `WIDTH_PX_MIN` wide, over longer ones.
"""

from __future__ import annotations

import datetime as dt
from xml.sax.saxutils import escape

from agent.recording.account import Account
from agent.recording.coverage import FUTURE, RECORDED, Stretch
from agent.types import NS, Cause

DAYS_MAX = 62
LISTED_MAX = 14
WIDTH_PX_MIN = 1.5
_LEFT, _RIGHT, _WIDE = 96, 28, 1080
_BAR, _LINK, _ROW = 34, 7, 74

# label -> fill, stroke of the hatching (None: plain), its path in a tile of 8 x 8, words
_STYLES: dict[str, tuple[str, str | None, str, str]] = {
    RECORDED: ("#3a8f4d", None, "", "recorded"),
    Cause.POWER_OFF: ("#30343b", "#ffffff", "M-2,2 L2,-2 M0,8 L8,0 M6,10 L10,6", "power off"),
    Cause.AGENT_STOPPED: ("#c3c8cf", "#5f6670", "M-2,6 L2,10 M0,0 L8,8 M6,-2 L10,2", "agent stopped"),
    Cause.CAMERA_FAULT: ("#f2a33a", "#7a4a00", "M0,0 L8,8 M0,8 L8,0", "camera fault"),
    Cause.STORAGE_FAULT: ("#d64545", "#ffffff", "M2,2 h2 v2 h-2 z M6,6 h2 v2 h-2 z", "storage fault"),
    Cause.PRIVACY: ("#7fb2e5", "#1d4f84", "M2,0 V8 M6,0 V8", "privacy"),
    Cause.DELETED: ("#f4f1e6", "#8d8668", "M0,2 H8 M0,6 H8", "deleted by policy"),
    Cause.BEFORE_INSTALL: ("#ffffff", "#b9bec6", "M4,4 h0.8", "before installation"),
    Cause.UNKNOWN: ("#ffffff", "#b0359b", "M0,4 H8 M4,0 V8", "not known"),
}


def draw(found: Account, *, title: str, zone: dt.tzinfo | None = None) -> str:
    """The SVG. `zone` None: the machine's own. Raises ValueError for more than DAYS_MAX days."""
    days = _days(found.start_utc_ns, found.end_utc_ns, zone)
    if len(days) > DAYS_MAX:
        raise ValueError(f"{len(days)} days are too many for one picture; {DAYS_MAX} at most")
    body: list[str] = []
    y = 74
    for start_ns, end_ns in days:
        body += _day(found, start_ns, end_ns, y, zone)
        y += _ROW
    body += _legend(found, y + 8)
    y += 8 + 24 * ((len(_legend_items(found)) + 2) // 3) + 14
    listed = _list(found, y, zone)
    height = y + 18 * len(listed) + 16
    first, last = _local(found.start_utc_ns, zone), _local(found.end_utc_ns, zone)
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDE}" height="{height}"'
                f' viewBox="0 0 {_WIDE} {height}" font-size="12" fill="#1c1f24"'
                ' font-family="DejaVu Sans, Verdana, Arial, sans-serif">'
            ),
            f"<title>{_text(title)}</title>",
            _patterns(),
            f'<rect width="{_WIDE}" height="{height}" fill="#ffffff"/>',
            f'<text x="16" y="30" font-size="18" font-weight="bold">{_text(title)}</text>',
            (
                f'<text x="16" y="50" fill="#555b65">{first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S},'
                f" local time ({_text(_zone_name(first))})</text>"
            ),
            *body,
            *listed,
            "</svg>",
            "",
        ]
    )


def _text(text: str) -> str:
    """For XML, which has no way to write a control character: a driver's message may hold anything."""
    return escape("".join(char if char.isprintable() else " " for char in text))


def _past(found: Account) -> list[Stretch]:
    """What is drawn: the time to come stays white."""
    return [stretch for stretch in found.stretches if stretch.detail != FUTURE]


def _local(utc_ns: int, zone: dt.tzinfo | None) -> dt.datetime:
    seconds, rest_ns = divmod(utc_ns, NS)
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds, microseconds=rest_ns // 1000)
    return moment.astimezone(zone)


def _utc_ns(year: int, month: int, day: int, hour: int, zone: dt.tzinfo | None) -> int:
    moment = dt.datetime(year, month, day, hour, tzinfo=zone)
    since = moment.astimezone(dt.UTC) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (since.days * 86_400 + since.seconds) * NS


def _midnight(day: dt.date, zone: dt.tzinfo | None) -> int:
    return _utc_ns(day.year, day.month, day.day, 0, zone)


def _days(start_ns: int, end_ns: int, zone: dt.tzinfo | None) -> list[tuple[int, int]]:
    """The local days that the range touches, from midnight to midnight: 23 to 25 hours where clocks are changed."""
    day = _local(start_ns, zone).date()
    found: list[tuple[int, int]] = []
    while len(found) <= DAYS_MAX and (begin := _midnight(day, zone)) < end_ns:
        day += dt.timedelta(days=1)
        found.append((begin, _midnight(day, zone)))
    return found


def _zone_name(moment: dt.datetime) -> str:
    offset = moment.strftime("%z")
    name = moment.tzname() or ""
    return f"UTC{offset[:3]}:{offset[3:5]}" + (f", {name}" if name and not name.startswith(("UTC", "+", "-")) else "")


def _patterns() -> str:
    tiles = []
    for label, (fill, stroke, path, _words) in _STYLES.items():
        if stroke is not None:
            tiles.append(
                f'<pattern id="{label}" width="8" height="8" patternUnits="userSpaceOnUse">'
                f'<rect width="8" height="8" fill="{fill}"/>'
                f'<path d="{path}" stroke="{stroke}" stroke-width="1" fill="none"/></pattern>'
            )
    tiles.append(
        '<pattern id="perhaps" width="5" height="5" patternUnits="userSpaceOnUse">'
        '<rect width="5" height="5" fill="#ffffff" fill-opacity="0.55"/>'
        '<path d="M0,0 L5,5" stroke="#1c1f24" stroke-width="0.8"/></pattern>'
    )
    return f"<defs>{''.join(tiles)}</defs>"


def _fill(what: str) -> str:
    fill, stroke, _path, _words = _STYLES.get(what, _STYLES[Cause.UNKNOWN])
    return fill if stroke is None else f"url(#{what if what in _STYLES else Cause.UNKNOWN})"


def _day(found: Account, start_ns: int, end_ns: int, y: int, zone: dt.tzinfo | None) -> list[str]:
    """One row: hours, the bar, and below it the times without an uplink."""
    px_per_ns = (_WIDE - _LEFT - _RIGHT) / (end_ns - start_ns)

    def x(utc_ns: int) -> float:
        return _LEFT + (min(max(utc_ns, start_ns), end_ns) - start_ns) * px_per_ns

    day = _local(start_ns, zone)
    parts = [
        f'<text x="16" y="{y + 16}" font-weight="bold">{day:%a %d %b}</text>',
        f'<text x="16" y="{y + 31}" fill="#555b65">{day:%Y}</text>',
        (
            f'<rect x="{_LEFT}" y="{y}" width="{_WIDE - _LEFT - _RIGHT}" height="{_BAR}" fill="#ffffff"'
            ' stroke="#c9cdd4" stroke-dasharray="2 3"/>'
        ),
    ]
    inside = [s for s in _past(found) if s.start_utc_ns < end_ns and s.end_utc_ns > start_ns]
    for stretch in sorted(inside, key=lambda s: (s.what != RECORDED, -s.seconds)):
        parts += _bar(stretch, x(stretch.start_utc_ns), x(stretch.end_utc_ns), y, px_per_ns, start_ns, zone)
    for gap in found.offline:
        if gap.start_utc_ns < end_ns and gap.end_utc_ns > start_ns:
            left = x(gap.start_utc_ns)
            wide = max(x(gap.end_utc_ns) - left, WIDTH_PX_MIN)
            parts.append(
                f'<rect class="offline" x="{left:.2f}" y="{y + _BAR + 3}" width="{wide:.2f}" height="{_LINK}"'
                f' fill="#8e5bb5"><title>{_text(_words(gap, zone))}</title></rect>'
            )
    for hold in found.holds:
        if hold.start_utc_ns < end_ns and hold.end_utc_ns > start_ns:
            left, right = x(hold.start_utc_ns), x(hold.end_utc_ns)
            parts.append(
                f'<path class="held" d="M{left:.2f},{y - 1} v-5 H{right:.2f} v5" fill="none" stroke="#1c1f24"'
                f' stroke-width="1.5"><title>{_text(f"held: {hold.reason}")}</title></path>'
            )
    at_ns = start_ns
    while at_ns <= end_ns:
        hour = _local(at_ns, zone).hour
        long = hour % 3 == 0
        label = 24 if at_ns == end_ns else hour
        here = f"{x(at_ns):.2f}"
        parts.append(f'<path d="M{here},{y + _BAR} v{5 if long else 3}" stroke="#1c1f24" stroke-width="0.8"/>')
        if long:
            below = y + _BAR + 24
            parts.append(f'<text x="{here}" y="{below}" text-anchor="middle" font-size="11">{label:02d}:00</text>')
        at_ns += 3600 * NS
    return parts


def _bar(
    stretch: Stretch, left: float, right: float, y: int, px_per_ns: float, day_ns: int, zone: dt.tzinfo | None
) -> list[str]:
    wide = max(right - left, WIDTH_PX_MIN)
    frame = ' stroke="#1c1f24" stroke-width="0.8" stroke-dasharray="3 2"' if stretch.unc_s is None else ""
    parts = [
        (
            f'<rect class="{_text(stretch.what)}" x="{left:.2f}" y="{y}" width="{wide:.2f}" height="{_BAR}"'
            f' fill="{_fill(stretch.what)}"{frame}><title>{_text(_words(stretch, zone))}</title></rect>'
        )
    ]
    begins_here = stretch.start_utc_ns >= day_ns
    late_px = stretch.start_late_s * NS * px_per_ns
    if begins_here and late_px > 0:
        late_px = min(max(late_px, 2.0), wide)
        parts.append(
            f'<rect class="perhaps" x="{left:.2f}" y="{y}" width="{late_px:.2f}" height="{_BAR}" fill="url(#perhaps)"/>'
            f'<path d="M{left + late_px:.2f},{y} v{_BAR}" stroke="#1c1f24" stroke-width="0.8" stroke-dasharray="2 2"/>'
        )
    error_px = 0.0 if stretch.unc_s is None else stretch.unc_s * NS * px_per_ns
    if begins_here and error_px >= 1.0:
        middle = y + _BAR / 2
        parts.append(
            f'<path class="error" d="M{left - error_px:.2f},{middle - 4} v8 M{left - error_px:.2f},{middle}'
            f' H{left + error_px:.2f} M{left + error_px:.2f},{middle - 4} v8" stroke="#1c1f24" stroke-width="1.2"/>'
        )
    return parts


def _words(stretch: Stretch, zone: dt.tzinfo | None) -> str:
    """One stretch in a line, in local time."""
    start, end = _local(stretch.start_utc_ns, zone), _local(stretch.end_utc_ns, zone)
    shown = f"{end:%H:%M:%S}" if start.date() == end.date() else f"{end:%m-%d %H:%M:%S}"
    error = "clock not vouched for" if stretch.unc_s is None else f"±{max(stretch.unc_s, 0.1):.1f} s"
    if stretch.start_late_s:
        error += f", began up to {stretch.start_late_s:.0f} s later"
    detail = f": {stretch.detail}" if stretch.detail else ""
    name = _STYLES[stretch.what][3] if stretch.what in _STYLES else stretch.what
    return f"{start:%m-%d %H:%M:%S} to {shown} ({error}) {name}{detail}"


def _legend_items(found: Account) -> list[tuple[str, str]]:
    totals: dict[str, float] = {}
    for stretch in _past(found):
        totals[stretch.what] = totals.get(stretch.what, 0.0) + stretch.seconds
    items = [(what, f"{style[3]}  {_span(totals[what])}") for what, style in _STYLES.items() if what in totals]
    if found.offline:
        seconds = sum(stretch.seconds for stretch in found.offline)
        items.append(("offline", f"no uplink (recording goes on)  {_span(seconds)}"))
    if found.holds:
        items.append(("held", f"held ({len(found.holds)})"))
    if any(stretch.start_late_s for stretch in found.stretches):
        items.append(("perhaps", "may have begun within this"))
    if any(stretch.unc_s is None for stretch in _past(found)):
        items.append(("unvouched", "clock not vouched for"))
    return items


def _legend(found: Account, y: int) -> list[str]:
    parts = []
    for number, (what, words) in enumerate(_legend_items(found)):
        x, top = 16 + (number % 3) * 350, y + (number // 3) * 24
        box = f'<rect x="{x}" y="{top}" width="30" height="14" stroke-width="0.8"'
        swatch = f'{box} fill="{_fill(what)}" stroke="#6b717b"/>'
        if what == "offline":
            swatch = f'<rect x="{x}" y="{top + 4}" width="30" height="{_LINK}" fill="#8e5bb5"/>'
        elif what == "held":
            swatch = f'<path d="M{x},{top + 12} v-6 h30 v6" fill="none" stroke="#1c1f24" stroke-width="1.5"/>'
        elif what == "perhaps":
            swatch = f'{box} fill="url(#perhaps)" stroke="#1c1f24" stroke-dasharray="2 2"/>'
        elif what == "unvouched":
            swatch = f'{box} fill="none" stroke="#1c1f24" stroke-dasharray="3 2"/>'
        parts += [swatch, f'<text x="{x + 38}" y="{top + 11}">{_text(words)}</text>']
    return parts


def _list(found: Account, y: int, zone: dt.tzinfo | None) -> list[str]:
    """The longest stretches that are not recorded, in order of time: a picture alone cannot be quoted."""
    missing = sorted((s for s in _past(found) if s.what != RECORDED), key=lambda s: -s.seconds)
    chosen = sorted(missing[:LISTED_MAX], key=lambda s: s.start_utc_ns)
    lines: list[tuple[str, str]] = [(_span(stretch.seconds), _words(stretch, zone)) for stretch in chosen]
    if len(missing) > LISTED_MAX:
        lines.append(("", f"and {len(missing) - LISTED_MAX} shorter ones"))
    parts = []
    for number, (span, words) in enumerate(lines):
        at = y + 18 * number + 12
        parts.append(
            f'<text x="{_LEFT}" y="{at}" font-size="11" text-anchor="end">{span}</text>'
            f'<text x="{_LEFT + 14}" y="{at}" font-size="11">{_text(words[:150])}</text>'
        )
    return parts


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
