"""From boot time to UTC and back, by time anchors. Pure.

Within one boot UTC = anchor + difference, whatever the wall clock did meanwhile: one step of NTP must not tear a
recording apart. The anchor used is the boot's best: the smallest error, the newest of equals; when nobody vouches for
any, the newest. The error grows by DRIFT_PPM with the distance from the anchor (crystals of the Pi: under 100 ppm).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.types import NS, TimeAnchor

DRIFT_PPM = 100
SETTING_NS = NS // 2
"""Anchors of one boot that differ by less tell of the same setting of the wall clock."""
SETTINGS_MAX = 32  # of one boot, the oldest


@dataclass(frozen=True, slots=True)
class Moment:
    """UTC +- `unc_ns`; None: nobody can vouch for it."""

    utc_ns: int
    unc_ns: int | None

    @property
    def unc_s(self) -> float | None:
        return None if self.unc_ns is None else self.unc_ns / 1e9


class Timeline:
    """Every boot's place in UTC."""

    def __init__(self, anchors: Iterable[TimeAnchor]) -> None:
        self._best: dict[str, TimeAnchor] = {}
        self._settings: dict[str, list[TimeAnchor]] = {}
        for anchor in anchors:
            settings = self._settings.setdefault(anchor.boot_id, [])
            if len(settings) < SETTINGS_MAX and all(_apart(anchor, other) for other in settings):
                settings.append(anchor)
            best = self._best.get(anchor.boot_id)
            if best is None or _rank(anchor) < _rank(best):
                self._best[anchor.boot_id] = anchor

    def utc(self, boot_id: str, boot_ns: int) -> Moment | None:
        """UTC of a moment of one boot; None when nothing ties that boot to UTC."""
        anchor = self._best.get(boot_id)
        if anchor is None:
            return None
        distance_ns = boot_ns - anchor.boot_ns
        unc_ns = None if anchor.unc_ns is None else anchor.unc_ns + abs(distance_ns) * DRIFT_PPM // 1_000_000
        return Moment(anchor.utc_ns + distance_ns, unc_ns)

    def labels(self, boot_id: str, boot_ns: int) -> list[Moment]:
        """Every UTC under which a moment of one boot has gone while its wall clock was set again, the best one first.

        A person who read a time off a clock that was corrected later means the moment that had that label.
        """
        best = self._best.get(boot_id)
        if best is None:
            return []
        others = [other for other in self._settings[boot_id] if _apart(other, best)]
        first = self.utc(boot_id, boot_ns)
        found = [] if first is None else [first]
        return found + [Moment(o.utc_ns + boot_ns - o.boot_ns, o.unc_ns or 0) for o in others]

    def boot_ns(self, boot_id: str, utc_ns: int) -> int | None:
        """The moment of one boot that UTC names (may lie outside of that boot)."""
        anchor = self._best.get(boot_id)
        return None if anchor is None else anchor.boot_ns + utc_ns - anchor.utc_ns


def _rank(anchor: TimeAnchor) -> tuple[float, int]:
    """Small is good."""
    return (float("inf") if anchor.unc_ns is None else anchor.unc_ns, -anchor.boot_ns)


def _apart(one: TimeAnchor, other: TimeAnchor) -> bool:
    """The wall clock was set between these two."""
    return abs((one.utc_ns - one.boot_ns) - (other.utc_ns - other.boot_ns)) >= SETTING_NS
