"""The whole node as it is installed: `wardpost run` on a file that is played at its own speed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from agent.errors import WardpostError
from agent.local import status_of
from agent.recording import fragments
from tests.bench.figure import Bench
from tests.bench.programs import ROOT, Program, python

POLL_S = 0.01


def config(folder: Path, *, footage: Path | str, broker_port: int, extra: str = "", camera: str = "") -> Path:
    """Writes a node's folder and configuration; everything that is not named is the default.

    `footage` is a file, played again and again, or a camera's address. `camera` are lines of [camera], `extra` any.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    path = folder / "node.toml"
    path.write_text(
        f'[node]\nsite = "bench"\nid = "post-1"\ndata = {_text(data)}\nplace = "the bench"\n'
        f'[camera]\ndriver = "stream"\nurl = {_text(footage)}\nloop = true\n{camera}'
        f'[uplink]\nbrokers = ["mqtt://127.0.0.1:{broker_port}"]\n'
        f"{extra}"
    )
    return path


def start(bench: Bench, path: Path) -> Program:
    """`wardpost run` with the model of the cache, in the environment that its service gives it."""
    environment = {**service_environment(), "WARDPOST_CACHE": str(bench.assets.model().parent)}
    bench.assets.labels()
    return Program(python("agent.cli", "run", "--config", str(path)), log=path.with_name("node.log"), env=environment)


def service_environment() -> dict[str, str]:
    """What `Environment=` says in the unit: the allocator's settings change memory and time."""
    lines = (ROOT / "deploy/wardpost-node.service").read_text().splitlines()
    words = " ".join(line.removeprefix("Environment=") for line in lines if line.startswith("Environment="))
    return dict(word.split("=", 1) for word in words.split())


def first_fragment(path: Path, program: Program, *, timeout_s: float = 60.0) -> tuple[fragments.Header, int]:
    """Waits for the first durable fragment of a node that started on an empty folder.

    Returns the file's header and when the fragment was seen (CLOCK_BOOTTIME ns, late by at most POLL_S and a scan).
    """
    data = path.with_name("data")
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for file in sorted(data.rglob("*.mp4")):
            if file.stat().st_size > fragments.TRAILER_BYTES:
                with file.open("rb") as footage:
                    found = fragments.scan(footage, contents=False)
                if found.header is not None and found.fragments:
                    return found.header, time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        program.need_alive()
        time.sleep(POLL_S)
    raise RuntimeError(f"no fragment in {data} after {timeout_s:g} s; see {program.log}")


def need_well(path: Path) -> dict[str, Any]:
    """What the node says of itself. Raises RuntimeError when a part of it does not work: its figures would be wrong."""
    said = status_of(path.with_name("data"))
    wrong = [
        words
        for words, bad in (
            ("no broker", said["broker"] is None),
            ("the station is silent", said["station_silent"]),
            ("the detector is ill", not said["vision"]["healthy"]),
            ("it does not record", not said["recording"]["recording"]),
            *((f"{name}: {life['trouble']}", life["trouble"]) for name, life in said["workers"].items()),
        )
        if bad
    ]
    if wrong:
        raise RuntimeError(f"the node is not well: {'; '.join(wrong)}; see {path.with_name('node.log')}")
    return said


def wait_well(path: Path, program: Program, *, timeout_s: float = 30.0) -> dict[str, Any]:
    """What a node that has just started says of itself as soon as it is well: on a busy machine that takes a while.

    Raises RuntimeError as `need_well` when it does not come to that.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        program.need_alive()
        try:
            return need_well(path)
        except (RuntimeError, WardpostError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _text(path: Path | str) -> str:
    return json.dumps(os.fspath(path))
