"""Quantities as people say them. Pure."""

from __future__ import annotations

DAY_S = 86_400.0


def span(seconds: float) -> str:
    """A time, rounded to its largest unit: `45 s`, `12 min`, `3 h`, `4 days`."""
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * DAY_S:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / DAY_S:.0f} days"


def gb(size: int) -> str:
    """Bytes: `1.5 GB`, `300 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
