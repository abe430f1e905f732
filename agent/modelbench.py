"""`wardpost model`: which models there are, and what one of them makes of a picture on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from agent import drivers
from agent.assets import FOOTAGE, LABELS, MODEL, Assets
from agent.clock import SystemClock
from agent.config import Config, DetectorSettings, load
from agent.errors import ConfigError
from agent.machine import Machine
from agent.pictures import picture_in
from agent.types import MS

PICTURES_MAX = 100
RUNS = 10  # inferences a picture, of which the median counts
SCORE_MIN = 0.3


def pinned(*, fetch: bool, out: Callable[[str], None]) -> int:
    """Prints the pinned model's files and their state, or gets them. Raises Transient, Corrupt, ConfigError."""
    assets = Assets()
    for asset in (MODEL, LABELS):
        if fetch:
            out(str(assets.get(asset)))
        else:
            state = assets.state(asset)
            out(f"{state.state:8} {state.path}  {asset.what}")
    return 0


def chosen(config: Path | None, *, model: Path | None, labels: Path | None, delegate: Path | None) -> DetectorSettings:
    """The detector to try: that of `config`, or the pinned one, with what the command line says instead.

    Raises ConfigError for a bad file, for a model without labels, and for `driver = "none"`.
    """
    settings = DetectorSettings() if config is None else load(config, Config).vision.detector
    if model is not None:
        settings = msgspec.structs.replace(settings, driver="tflite", model=str(model), labels="")
    if labels is not None:
        settings = msgspec.structs.replace(settings, labels=str(labels))
    if delegate is not None:
        settings = msgspec.structs.replace(settings, delegate=str(delegate))
    if settings.driver == "none":
        raise ConfigError('vision.detector.driver = "none": there is no model to test; name one with --model')
    drivers.model_paths(settings)
    return settings


def trial(settings: DetectorSettings, files: Sequence[Path], *, as_json: bool, out: Callable[[str], None]) -> int:
    """Loads the model and has it look at each picture; prints what it finds, how long it takes, and its memory.

    Without `files` the sample footage, if it has been fetched. Raises ConfigError (model, labels, delegate, pictures),
    Transient (an inference failed). Blocks for RUNS inferences a picture.
    """
    clock, machine = SystemClock(), Machine()
    pictures = [(path, picture_in(path)) for path in files[:PICTURES_MAX] or [_sample()]]
    detector = drivers.make_detector(settings)
    before = machine.rss_bytes() or 0
    start_ns = clock.boot_ns()
    detector.open()
    load_ms = (clock.boot_ns() - start_ns) / MS
    looked = []
    for path, picture in pictures:
        times = []
        for _ in range(RUNS):
            start_ns = clock.boot_ns()
            found = detector.detect(picture, SCORE_MIN)
            times.append((clock.boot_ns() - start_ns) / MS)
        looked.append(
            {
                "file": str(path),
                "size": [picture.shape[1], picture.shape[0]],
                "ms": round(median(times), 1),
                "ms_max": round(max(times), 1),
                "detections": [
                    {"label": one.label.value, "score": round(one.score, 3), "box": one.box.as_list()} for one in found
                ],
            }
        )
    result = {
        "model": detector.name,
        "about": getattr(detector, "about", ""),
        "load_ms": round(load_ms, 1),
        "memory_mb": round(((machine.rss_bytes() or 0) - before) / 1e6, 1),
        "threads": settings.threads,
        "score_min": SCORE_MIN,
        "pictures": looked,
    }
    out(json.dumps(result, indent=2) if as_json else _words(result))
    return 0


def _sample() -> Path:
    state = Assets().state(FOOTAGE)
    if state.state != "ready":
        raise ConfigError("model test: name a picture or a film for the model to look at")
    return state.path


def _words(result: dict[str, Any]) -> str:
    lines = [
        f"{result['model']}: {result['about']}",
        (
            f"loaded in {result['load_ms']:.0f} ms, {result['memory_mb']:.0f} MB of memory with its first pictures,"
            f" {result['threads']} thread{'' if result['threads'] == 1 else 's'}"
        ),
    ]
    for one in result["pictures"]:
        width, height = one["size"]
        lines.append(
            f"{one['file']} ({width}x{height}): {one['ms']:.1f} ms an inference, {one['ms_max']:.1f} ms at most"
        )
        for found in one["detections"]:
            x, y, w, h = found["box"]
            lines.append(f"  {found['label']:8} {found['score']:.0%}  at {x:.2f}, {y:.2f}, {w:.2f} wide, {h:.2f} high")
        if not one["detections"]:
            lines.append(f"  nothing of {result['score_min']:.0%} or more")
    return "\n".join(lines)
