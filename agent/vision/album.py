"""What a replay saw and why, as one picture or as a film: keeps what it needs while the replay goes on.

The picture is the moment at which the surest and largest confirmed tracks are in view, with every incident of the whole
film as a numbered spot on it, and the list of them below. The film has each picture that was looked at, and below it
what was going on and the latest events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ConfigError, Transient
from agent.types import FULL, NS, Bgr, Box, Detection, Event, Frame, Phase, Priority
from agent.vision.draw import Mark, Points, annotated, listed
from agent.vision.film import Film
from agent.vision.opencv import cv2
from agent.vision.tracker import Track

SIDE_PX_MAX = 1920
INCIDENTS_MAX = 500  # remembered
ROWS_MAX = 14  # of the list below the picture
FILM_ROWS = 4


@dataclass(frozen=True, slots=True)
class Scenery:
    """What stands still: zones, lines, ignore masks."""

    zones: Sequence[tuple[str, Points]] = ()
    lines: Sequence[tuple[str, Points]] = ()
    ignored: Sequence[Points] = ()


@dataclass(frozen=True, slots=True)
class _Moment:
    rank: float
    at_s: float
    picture: Bgr
    motion: list[Box]
    found: list[Detection]
    tracks: Sequence[Track]


class Album:
    """One replay's pictures. One thread."""

    def __init__(self, *, picture: Path | None, video: Path | None, scenery: Scenery) -> None:
        """Raises ConfigError when `picture` has an ending that no encoder knows."""
        if picture is not None and not cv2.haveImageWriter(str(picture)):
            raise ConfigError(f"{picture}: not the name of a picture; use .png or .jpg")
        self._path, self._scenery = picture, scenery
        self._film = None if video is None else Film(video)
        self._best: _Moment | None = None
        self._begun: dict[str, Event] = {}
        self._ended: dict[str, Event] = {}
        self._more = 0
        self._rows: deque[str] = deque(maxlen=FILM_ROWS - 1)

    def seen(self, frame: Frame, motion: list[Box], found: list[Detection], tracks: Sequence[Track]) -> None:
        """VisionWorker's observer. Raises ConfigError or Transient when the film cannot be written."""
        here = [track for track in tracks if track.confirmed and not track.missed]
        rank = sum(track.score * track.box.area**0.5 for track in here) or min(sum(box.area for box in motion), 1) / 100
        better = self._path is not None and (self._best is None or rank > self._best.rank)
        if not better and self._film is None:
            return
        try:
            picture = frame.crop(FULL, SIDE_PX_MAX)
        except Transient:
            return
        at_s = frame.boot_ns / NS
        if better:
            self._best = _Moment(rank, at_s, picture, list(motion), list(found), list(tracks))
        if self._film is not None:
            drawn = self._drawn(picture, motion, found, tracks)
            state = (
                f"{at_s:7.1f} s   frame {frame.seq}   motion {len(motion)}   found {len(found)}   tracks {len(here)}"
            )
            self._film.add(listed(drawn, [state, *self._rows], rows=FILM_ROWS), at_s)

    def told(self, events: Sequence[Event]) -> None:
        """What the rules made of it."""
        for event in events:
            if event.phase is Phase.STARTED:
                if len(self._begun) < INCIDENTS_MAX:
                    self._begun[event.incident] = event
                else:
                    self._more += 1
            elif event.phase is Phase.ENDED and event.incident in self._begun:
                self._ended[event.incident] = event
            self._rows.append(f"{event.boot_ns / NS:7.1f} s   {_urgency(event)}{event.summary}")

    def close(self) -> None:
        """Writes the picture and ends the film. Raises Transient."""
        if self._film is not None:
            self._film.close()
        if self._path is None:
            return
        if self._best is None:
            raise Transient(f"{self._path}: not written: the film had no picture to look at")
        numbered = list(enumerate(self._begun.values(), 1))
        marks = [Mark(number, one.box.clipped().foot, one.label) for number, one in numbered if one.box is not None]
        best = self._best
        drawn = self._drawn(best.picture, best.motion, best.found, best.tracks, marks)
        rows = [self._row(number, one) for number, one in numbered[:ROWS_MAX]]
        left = len(numbered) + self._more - len(rows)
        rows = [f"at {best.at_s:.1f} s" + ("" if numbered else "; no incident in the whole film"), *rows]
        if left > 0:
            rows.append(f"... and {left} more incidents")
        done, data = cv2.imencode(self._path.suffix, listed(drawn, rows))
        try:
            if not done:
                raise Transient(f"{self._path}: cannot be encoded")
            self._path.write_bytes(data.tobytes())
        except OSError as error:
            raise Transient(f"{self._path}: cannot be written: {error.strerror}") from None

    def _drawn(
        self,
        picture: Bgr,
        motion: Sequence[Box],
        found: Sequence[Detection],
        tracks: Sequence[Track],
        marks: Sequence[Mark] = (),
    ) -> Bgr:
        still = self._scenery
        return annotated(
            picture,
            tracks=tracks,
            detections=found,
            motion=motion,
            zones=still.zones,
            lines=still.lines,
            ignored=still.ignored,
            marks=marks,
            ids=True,
        )

    def _row(self, number: int, begun: Event) -> str:
        ended = self._ended.get(begun.incident)
        until = "" if ended is None else f" to {ended.boot_ns / NS:.1f}"
        last = begun if ended is None else ended
        sure = "" if last.score is None else f", at best {last.score:.0%}"
        zones = f", {', '.join(last.zones)}" if last.zones else ""
        return f"{number}  {begun.boot_ns / NS:.1f}{until} s  {_urgency(begun)}{last.kind.value}{sure}{zones}"


def _urgency(event: Event) -> str:
    return "ALERT " if event.priority <= Priority.ALERT else ""
