"""`wardpost evaluate`: the node's eyes on footage with known truth, in a table or as JSON.

The footage is replayed twice: once with the detector on every picture, whatever moves (how good is the model, by
regions), and once as a node does it (how good is the post: visits, delay, false alerts).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.clock import Usage
from agent.errors import ConfigError
from agent.pictures import picture_in
from agent.replay import ReplaySettings, replay
from agent.types import NS, Box, Detection, Event, Frame, Kind, Label, Phase, Priority
from agent.vision import evaluate as judge
from agent.vision.evaluate import Sight
from agent.vision.tracker import Track


class _Detector:
    """Every picture's persons, and when it was."""

    def __init__(self) -> None:
        self.found: dict[int, list[tuple[float, Box]]] = {}
        self.times_s: dict[int, float] = {}

    def seen(self, frame: Frame, _motion: list[Box], found: list[Detection], _tracks: Sequence[Track]) -> None:
        self.found[frame.seq] = [(one.score, one.box) for one in found if one.label is Label.PERSON]
        self.times_s[frame.seq] = frame.boot_ns / NS

    def told(self, events: Sequence[Event]) -> None:
        """Not asked for here."""


class _Post:
    """Confirmed tracks and alerts, picture by picture."""

    def __init__(self) -> None:
        self.sights: list[Sight] = []
        self.events: list[Event] = []
        self.frames: dict[int, int] = {}  # boot_ns -> number of the frame

    def seen(self, frame: Frame, _motion: list[Box], _found: list[Detection], tracks: Sequence[Track]) -> None:
        self.frames[frame.boot_ns] = frame.seq
        self.sights += [
            Sight(frame.seq, frame.boot_ns / NS, track.box)
            for track in tracks
            if track.confirmed and not track.missed and track.label is Label.PERSON
        ]

    def told(self, events: Sequence[Event]) -> None:
        self.events += events

    def claims(self, phase: Phase) -> list[Sight]:
        """Alerts about persons in one phase of their incident."""
        return [
            Sight(self.frames[one.boot_ns], one.boot_ns / NS, one.box)
            for one in self.events
            if one.kind is Kind.PERSON
            and one.phase is phase
            and one.priority <= Priority.ALERT
            and one.box is not None
            and one.boot_ns in self.frames
        ]


def evaluate(
    file: Path, truth: Path, *, settings: ReplaySettings, usage: Usage, as_json: bool, out: Callable[[str], None]
) -> int:
    """Blocks for two replays. Raises ConfigError (a file cannot be used), Transient. Returns the exit code."""
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; name a video file")
    height, width = picture_in(file).shape[:2]
    people = judge.read_tracks(truth, width=width, height=height)
    boxes = judge.read_mot(truth, width=width, height=height)
    detector, post = _Detector(), _Post()
    _watch(file, settings, usage, detector, every_frame=True)
    _watch(file, settings, usage, post, every_frame=False)
    quality = judge.judge(boxes, detector.found)
    score_min = settings.vision.score_min
    precision, recall = judge.at_threshold(boxes, detector.found, score_min)
    stays = judge.visits(people, detector.times_s, gap_s=settings.vision.gone_s)
    span_s = max(detector.times_s.values(), default=0.0) - min(detector.times_s.values(), default=0.0)
    met = judge.meet(
        stays,
        boxes,
        sights=post.sights,
        alerts=post.claims(Phase.STARTED),
        updates=post.claims(Phase.UPDATED),
        hours=span_s / 3600,
    )
    result = {
        "file": str(file),
        "truth": str(truth),
        "detector": {
            "frames": quality.frames,
            "persons": quality.true,
            "ap50": round(quality.ap, 4),
            "threshold": score_min,
            "precision": round(precision, 4),
            "recall": round(recall, 4),
            "best_f1": {
                "threshold": round(quality.score, 4),
                "precision": round(quality.precision, 4),
                "recall": round(quality.recall, 4),
            },
        },
        "events": {
            "media_s": round(span_s, 3),
            "visits": met.visits,
            "found": met.found,
            "alerted": met.alerted,
            "recall": round(met.recall, 4),
            "onset_s_p50": met.onset(0.5),
            "onset_s_p95": met.onset(0.95),
            "onset_s_max": met.onset(1.0),
            "alerts": met.alerts,
            "false_alerts": met.false_alerts,
            "precision": round(met.precision, 4),
            "false_alerts_per_h": round(met.false_per_h, 2),
        },
    }
    out(json.dumps(result, indent=2) if as_json else _table(result))
    return 0


def _watch(file: Path, settings: ReplaySettings, usage: Usage, onlooker: Any, *, every_frame: bool) -> None:
    replay(
        file,
        settings=settings,
        store_dir=None,
        detections=None,
        every_frame=every_frame,
        usage=usage,
        onlookers=[onlooker],
        out=io.StringIO(),
    )


def _table(result: dict[str, Any]) -> str:
    one, met = result["detector"], result["events"]
    best = one["best_f1"]

    def late(name: str) -> str:
        value = met[f"onset_s_{name}"]
        return "-" if value is None else f"{value:.1f} s"

    rows = [
        ("detector, every picture", ""),
        ("  pictures judged", f"{one['frames']}, {one['persons']} persons in them"),
        ("  AP at IoU 0.5", f"{one['ap50']:.3f}"),
        (f"  at the threshold {one['threshold']:g}", f"precision {one['precision']:.3f}, recall {one['recall']:.3f}"),
        (f"  best F1, at {best['threshold']:g}", f"precision {best['precision']:.3f}, recall {best['recall']:.3f}"),
        ("post, as it watches", ""),
        ("  visits", f"{met['visits']} in {met['media_s']:.0f} s"),
        ("  found", f"{met['found']} ({met['recall']:.0%}); {met['alerted']} shown in an alert"),
        ("  onset", f"{late('p50')} median, {late('p95')} p95, {late('max')} at most"),
        ("  alerts", f"{met['alerts']}, of which {met['false_alerts']} show nobody (precision {met['precision']:.3f})"),
        ("  false alerts per hour", f"{met['false_alerts_per_h']:.1f}"),
    ]
    return "\n".join(f"{name:28}{value}".rstrip() for name, value in rows)
