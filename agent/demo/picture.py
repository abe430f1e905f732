"""A detection drawn onto the recording in which it was made: what the alert says, beside what the camera saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent import wire
from agent.clock import Clock
from agent.disk import PosixDisk
from agent.errors import Corrupt, Transient
from agent.local import catalog_of
from agent.recording.footage import extract
from agent.types import NS, Bgr, Box, Label

HEIGHT_PX = 720


def best(events: Sequence[wire.CloudEvent], boot_id: str) -> wire.CloudEvent | None:
    """The surest detection of this boot, a person if there was one; None when there was nothing.

    `started` and `updated` only: the score of an `ended` is the best of the visit, its box the last one.
    """
    seen = [e for e in events if e.bootid == boot_id and e.data.box and e.data.label and e.data.severity != "thumbnail"]
    now = [event for event in seen if event.data.phase != "ended"]
    return max(now, key=lambda event: (event.data.label == "person", event.data.score or 0.0), default=None)


def draw(event: wire.CloudEvent, *, node: Path, clock: Clock, target: Path) -> None:
    """Writes `target` (JPEG): the recorded frame nearest to the event's time, with the event's own box.

    Raises WardpostError when the footage of that moment cannot be had or the file cannot be written.
    """
    from agent.vision.draw import annotated
    from agent.vision.opencv import cv2
    from agent.vision.tracker import Track

    if event.data.box is None or event.data.label is None:
        raise Corrupt(f"event {event.id} has no box to draw")
    picture = _frame(event, node, clock, target.with_suffix(".tmp.mp4"))
    scale = HEIGHT_PX / picture.shape[0]
    large: Bgr = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), np.uint8)
    seen = Track(
        id=1,
        label=Label(event.data.label),
        score=event.data.score or 0.0,
        box=Box(*event.data.box),
        first_ns=event.monons,
        last_ns=event.monons,
        confirmed=True,
        moved=True,
        missed=0,
        hits=1,
    )
    done = annotated(large, tracks=[seen], caption=f"{event.source}  {event.time}  {event.data.summary}")
    if not cv2.imwrite(str(target), done, [cv2.IMWRITE_JPEG_QUALITY, 88]):
        raise Transient(f"{target}: cannot be written; check the disk")


def _frame(event: wire.CloudEvent, node: Path, clock: Clock, scratch: Path) -> Bgr:
    """The recorded frame nearest to the event's own time."""
    import av

    at_ns = event.monons + clock.utc().utc_ns - clock.boot_ns()
    try:
        part = extract(
            disk=PosixDisk(node),
            catalog=catalog_of(node, clock),
            start_utc_ns=at_ns - NS // 2,
            end_utc_ns=at_ns + NS // 2,
            output=scratch,
        ).parts[0]
        wanted_s = part.at_s + (at_ns - part.utc_ns) / NS
        nearest: Bgr | None = None
        distance_s = float("inf")
        with av.open(str(part.file)) as clip:
            for frame in clip.decode(video=0):
                if abs((frame.time or 0.0) - wanted_s) < distance_s:
                    distance_s, nearest = (
                        abs((frame.time or 0.0) - wanted_s),
                        np.asarray(frame.to_ndarray(format="bgr24"), np.uint8),
                    )
    except (IndexError, av.FFmpegError) as error:
        raise Corrupt(f"the footage of event {event.id} cannot be decoded: {error}") from None
    finally:
        scratch.unlink(missing_ok=True)
    if nearest is None:
        raise Corrupt(f"the footage of event {event.id} holds no picture")
    return nearest
