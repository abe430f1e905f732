"""Siren and lamp at headquarters' word: for a bounded time, for a reason, and on the ledger with a name.

What a person far away sets off must be accountable to those who live beside it. So it is refused while privacy is on -
nobody there sees what there would be to signal at - and outside the hours of `panel.signals_during`. To end a signal is
always allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.config import CalendarSettings, ScheduleSettings
from agent.errors import ConfigError, Corrupt, Transient
from agent.evidence import records
from agent.types import NS, UtcReading
from agent.vision.schedule import Schedule, zone

TEXT_CHARS_MAX = 100


class SignalDesk:
    """Takes the verbs `siren` and `lamp`. One thread: the uplink's."""

    def __init__(
        self,
        *,
        outputs: Mapping[str, Callable[[float], float]],
        privacy_left_s: Callable[[], float],
        allowed: Callable[[], bool],
        note: Callable[[bytes], None],
    ) -> None:
        """`outputs`: switches one on for so many seconds, 0 for off; returns the seconds granted, raises WardpostError.

        `allowed`: whether the hours permit it now. `note` puts a JSON object on the ledger; raises Transient.
        """
        self._outputs, self._privacy_left_s, self._allowed, self._note = outputs, privacy_left_s, allowed, note

    def signal(self, output: str, args: dict[str, Any]) -> dict[str, Any]:
        """`seconds`, `reason`, `by`, and the command's `id`. Raises WardpostError with why it is refused."""
        seconds, reason, by = args.get("seconds"), _text(args, output, "reason"), _text(args, output, "by")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            raise Corrupt(f"{output}: seconds: {str(seconds)[:40]!r} is not a time; 0 ends it")
        if seconds:
            self._may(output, reason, by)
        granted = self._outputs[output](float(seconds))
        try:
            self._note(
                records.body(signal=output, seconds=granted, reason=reason, by=by, command=str(args.get("id", ""))[:36])
            )
        except Transient:
            self._outputs[output](0.0)  # what cannot be accounted for is not done
            raise
        what = f"{output} on for {granted:g} s" if granted else f"{output} off"
        return {"seconds": granted, "summary": what}

    def _may(self, output: str, reason: str, by: str) -> None:
        if not reason or not by:
            raise Corrupt(f"{output}: who asks, and why, goes on the ledger: give by and reason")
        left_s = self._privacy_left_s()
        if left_s > 0:
            raise Corrupt(f"{output}: privacy is on here for {left_s:.0f} s still, so nobody sees what it would be for")
        if not self._allowed():
            raise Corrupt(f"{output}: panel.signals_during of this post does not allow it at this hour")


def hours(
    during: Sequence[str],
    *,
    calendar: CalendarSettings,
    schedules: Sequence[ScheduleSettings],
    utc: Callable[[], UtcReading],
) -> Callable[[], bool]:
    """Whether it is surely within one of these schedules now; always, where none is named. Raises ConfigError."""
    known = {one.name: one for one in schedules}
    missing = [name for name in during if name not in known]
    if missing:
        raise ConfigError(f"panel.signals_during: there is no schedule {missing[0]!r}; [[schedules]] names them")
    named = [Schedule(known[name], zone(calendar.time_zone)) for name in during]

    def allowed() -> bool:
        if not named:
            return True
        now = utc()
        if now.unc_ns is None:
            return False
        first_s, last_s = (now.utc_ns - now.unc_ns) / NS, (now.utc_ns + now.unc_ns) / NS
        return any(one.covers(first_s, last_s) for one in named)

    return allowed


def _text(args: dict[str, Any], output: str, name: str) -> str:
    value = args.get(name, "")
    if not isinstance(value, str) or len(value) > TEXT_CHARS_MAX:
        raise Corrupt(f"{output}: {name}: a text of {TEXT_CHARS_MAX} characters at most")
    return value.strip()
