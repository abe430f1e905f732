"""What speaks for a label of the coverage: boot records, last signs of life, inputs, flags, incidents. Pure.

Evidence is text for a person, and for a report: each line names what was noticed, and when.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from agent.clock import rfc3339
from agent.recording.timeline import Timeline
from agent.store.store import SessionRow
from agent.types import NS, Cause, Gap, Sign

BEFORE_NS = 3600 * NS
"""How long before a death a sign may lie and still be told."""
LINES_MAX = 6

# What a camera's driver says when it gives up (camera/demux.py, stream.py, picamera2.py, worker.py), and what that
# means to whoever must drive out to it. The order counts: the first that fits.
_CAMERA: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("not there", "no camera found", "no such device", "no such file", "not found"),
        "the camera is away: unplugged, its cable loose, or a wrong camera.url",
    ),
    (
        ("refused", "no route", "unreachable", "no answer", "timed out", "name or service", "resolve"),
        "the camera does not answer: without power, or its own network is down",
    ),
    (("closed the connection", "stream ended", "no picture", "no pictures", "timeout"), "the camera went silent"),
    (
        ("stuck", "hangs", "clock went back", "changed its size", "reader failed", "not a video", "decod", "corrupt"),
        "the camera answers, but what it sends is unusable: it is broken, or its driver is",
    ),
)


def camera_fault(reason: str) -> str:
    """Unplugged, dead or broken, from the words of the driver."""
    text = reason.lower()
    for words, meaning in _CAMERA:
        if any(word in text for word in words):
            return meaning
    return "the camera gives no pictures"


class Testimony:
    """The signs of all boots, ready to be asked about a moment."""

    def __init__(self, signs: Sequence[Sign], timeline: Timeline) -> None:
        self._timeline = timeline
        self._boots: dict[str, list[Sign]] = {}
        self._kinds: dict[tuple[str, str], list[Sign]] = {}
        for sign in sorted(signs, key=lambda sign: sign.boot_ns):
            self._boots.setdefault(sign.boot_id, []).append(sign)
            self._kinds.setdefault((sign.boot_id, sign.what), []).append(sign)

    def gap(self, gap: Gap) -> tuple[str, ...]:
        """What was noticed while nothing was recorded, beside the reason itself."""
        lines = []
        if gap.cause is Cause.CAMERA_FAULT:
            lines.append(camera_fault(gap.detail))
            if (link := self._state(gap.boot_id, "link", gap.start_ns)) is not None:
                lines.append(f"the uplink was {'down' if link.active else 'up'} as it began: {link.text}")
        wanted = {Cause.CAMERA_FAULT: "camera", Cause.STORAGE_FAULT: "storage"}.get(gap.cause)
        lines += [
            self._line(sign)
            for sign in self._between(gap.boot_id, gap.start_ns - NS, gap.end_ns + NS)
            if sign.what in (wanted, "power")
        ]
        return tuple(dict.fromkeys(lines))[:LINES_MAX]

    def boot(self, row: SessionRow) -> str:
        """The boot record of a session."""
        return f"boot {row.boot_id[:8]} began at {self._at(row.boot_id, 0)}; session {row.session} in it"

    def death(self, row: SessionRow, end_ns: int, following: SessionRow | None) -> tuple[str, ...]:
        """What there is about an end that nobody wrote down."""
        lines = [f"last proof of life {self._at(row.boot_id, end_ns)} (session {row.session}, boot {row.boot_id[:8]})"]
        mains = self._state(row.boot_id, "mains", end_ns)
        if mains is not None:
            lost = mains.active and mains.session == row.session
            ago_s = (end_ns - mains.boot_ns) / NS
            lines.append(
                f"mains input: lost at {self._at(row.boot_id, mains.boot_ns)}, {ago_s:.0f} s before, and not back"
                if lost
                else f"mains input: on, since {self._at(row.boot_id, mains.boot_ns)}"
            )
        power = self._state(row.boot_id, "power", end_ns)
        if power is not None:
            flags = power.text if power.active else "none"
            lines.append(f"power flags, since {self._at(row.boot_id, power.boot_ns)}: {flags}")
        lines += [
            self._line(sign)
            for sign in self._between(row.boot_id, end_ns - BEFORE_NS, end_ns + NS)
            if sign.what in ("camera", "storage") and sign.active
        ][-2:]
        if following is not None:
            if following.boot_id == row.boot_id:
                lines.append(f"the same boot went on: session {following.session} began in it")
            else:
                lines.append(self.boot(following))
        return tuple(dict.fromkeys(lines))[:LINES_MAX]

    def links_down(self) -> list[tuple[str, int, int | None, str]]:
        """(boot_id, start_ns, end_ns or None: to the end of what is known, text) of each time without an uplink."""
        found: list[tuple[str, int, int | None, str]] = []
        for (boot_id, what), signs in self._kinds.items():
            since: Sign | None = None
            for sign in signs if what == "link" else ():
                if sign.active and since is None:
                    since = sign
                elif not sign.active and since is not None:
                    found.append((boot_id, since.boot_ns, sign.boot_ns, since.text))
                    since = None
            if since is not None:
                found.append((boot_id, since.boot_ns, None, since.text))
        return found

    def _between(self, boot_id: str, start_ns: int, end_ns: int) -> list[Sign]:
        signs = self._boots.get(boot_id, [])
        first = bisect_left(signs, start_ns, key=lambda sign: sign.boot_ns)
        return signs[first : bisect_right(signs, end_ns, key=lambda sign: sign.boot_ns)]

    def _state(self, boot_id: str, what: str, at_ns: int) -> Sign | None:
        """The last sign of a kind up to a moment of a boot."""
        signs = self._kinds.get((boot_id, what), [])
        found = bisect_right(signs, at_ns, key=lambda sign: sign.boot_ns)
        return signs[found - 1] if found else None

    def _line(self, sign: Sign) -> str:
        return f"{sign.what} {'from' if sign.active else 'until'} {self._at(sign.boot_id, sign.boot_ns)}: {sign.text}"

    def _at(self, boot_id: str, boot_ns: int) -> str:
        moment = self._timeline.utc(boot_id, boot_ns)
        return "a moment that no clock vouches for" if moment is None else rfc3339(moment.utc_ns)
