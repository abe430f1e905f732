"""Maps the time stamps of a source to CLOCK_BOOTTIME. Pure: `now` is passed in.

A source's stamps start anywhere, drift against our clock by some 100 ppm (9 s a day), jump when the camera sets its
clock or a file was edited, and are missing in raw streams. What comes out never goes back (mediamtx issue 4778: one
step of NTP tainted a whole recording).
"""

from __future__ import annotations

from agent.types import NS

JUMP_NS_MAX = 5 * NS  # a longer step forward is a jump of the source's clock, not a pause
BACK_NS_MAX = NS  # a longer step back likewise; a shorter one is a guessed stamp that was put right
_WINDOW_NS = 10 * NS  # drift is judged by the least delayed packet of so long
_SLEW_PER_S = 0.005  # the most by which drift is corrected: 5 ms per second, too little to see


class Timeline:
    """Stamps of one source, packet by packet in decoding order. All values are nanoseconds."""

    def __init__(self, *, live: bool, step_ns: int = NS // 25) -> None:
        """`live`: packets arrive as they are made, so drift can be seen. `step_ns`: from frame to frame, if unknown."""
        self._live = live
        self.step_ns = step_ns
        self._offset_ns: int | None = None  # boot = media + offset
        self._media_ns: int | None = None  # newest decoding stamp of the source
        self._dts_ns: int | None = None  # newest decoding stamp given out
        self._window_end_ns = 0
        self._lag_ns_min: int | None = None
        self.jumps = 0  # times the source's clock jumped

    def restart(self) -> None:
        """The source starts again (a file from its beginning): what follows continues one step after what was."""
        self._offset_ns = None
        self._media_ns = None

    def map(self, pts_ns: int | None, dts_ns: int | None, now_ns: int) -> tuple[int, int]:
        """Presentation and decoding time of the next packet in CLOCK_BOOTTIME: `dts <= pts`, dts always increasing."""
        pts_ns, dts_ns = self._completed(pts_ns, dts_ns)
        if self._media_ns is not None and not -BACK_NS_MAX <= dts_ns - self._media_ns <= JUMP_NS_MAX:
            self.jumps += 1
            self._offset_ns = None
        if self._offset_ns is None:
            self._anchor(pts_ns, dts_ns, now_ns)
        elif self._live:
            self._follow(pts_ns, now_ns)
        assert self._offset_ns is not None  # noqa: S101  (for the type checker: _anchor has set it)
        self._media_ns = dts_ns
        dts = dts_ns + self._offset_ns
        if self._dts_ns is not None:
            dts = max(dts, self._dts_ns + 1)
        self._dts_ns = dts
        return max(pts_ns + self._offset_ns, dts), dts

    def _completed(self, pts_ns: int | None, dts_ns: int | None) -> tuple[int, int]:
        """Stamps for a packet that lacks one or both."""
        if dts_ns is None:
            if self._media_ns is not None:
                dts_ns = self._media_ns + self.step_ns
                if pts_ns is not None and not -JUMP_NS_MAX <= pts_ns - dts_ns <= JUMP_NS_MAX:
                    dts_ns = pts_ns  # the source jumped: its own word counts, and the jump is seen
            else:  # Matroska has no decoding stamps: FFmpeg finds them out after some packets; leave room for B-frames
                dts_ns = pts_ns - 4 * self.step_ns if pts_ns is not None else 0
        if pts_ns is None or not dts_ns <= pts_ns <= dts_ns + JUMP_NS_MAX:
            pts_ns = dts_ns
        return pts_ns, dts_ns

    def _anchor(self, pts_ns: int, dts_ns: int, now_ns: int) -> None:
        """The packet is presented now, or, in a file, one step after the one before it; never before that one."""
        offset = now_ns - pts_ns
        if self._dts_ns is not None:
            next_ns = self._dts_ns + self.step_ns - dts_ns
            offset = max(offset, next_ns) if self._live else next_ns
        self._offset_ns = offset
        self._window_end_ns = now_ns + _WINDOW_NS
        self._lag_ns_min = None

    def _follow(self, pts_ns: int, now_ns: int) -> None:
        """Keeps to our clock: nothing is ever stamped in the future, and a growing lag is slewed away.

        A server that sends its last group of pictures at once on connecting makes the first stamps late; the first
        packets that come faster than time does correct that at once.
        """
        assert self._offset_ns is not None  # noqa: S101
        lag = now_ns - pts_ns - self._offset_ns
        if lag < 0:
            self._offset_ns += lag
            lag = 0
        self._lag_ns_min = lag if self._lag_ns_min is None else min(lag, self._lag_ns_min)
        if now_ns >= self._window_end_ns:
            self._offset_ns += min(self._lag_ns_min, round(_WINDOW_NS * _SLEW_PER_S))
            self._window_end_ns = now_ns + _WINDOW_NS
            self._lag_ns_min = None


class Pick:
    """Chooses frames at a steady rate out of a faster or irregular stream. Deterministic in the stamps."""

    def __init__(self, fps: float) -> None:
        """`fps` is the most that is wanted; infinity takes every frame."""
        self._period_ns = 0 if fps == float("inf") else round(NS / fps)
        self._due_ns: int | None = None
        self._last_ns: int | None = None

    def take(self, boot_ns: int) -> bool:
        """Whether the frame of this moment is wanted. A frame counts as due up to half its own interval early."""
        early_ns = 0 if self._last_ns is None else min(max(boot_ns - self._last_ns, 0), self._period_ns) // 2
        self._last_ns = boot_ns
        if self._due_ns is not None and boot_ns + early_ns < self._due_ns:
            return False
        if self._due_ns is None or boot_ns - self._due_ns > self._period_ns:
            self._due_ns = boot_ns
        self._due_ns += self._period_ns
        return True
