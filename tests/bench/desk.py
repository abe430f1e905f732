"""The station as it is installed: `wardpost station`, a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tests.bench.programs import Program, python


@contextlib.contextmanager
def station(folder: Path, *, broker_port: int) -> Iterator[Program]:
    """A station of the site `bench` on an empty folder; its database is `folder / "data" / "station.db"`."""
    data = folder / "data"
    data.mkdir(parents=True)
    path = folder / "station.toml"
    path.write_text(
        f'[station]\nsite = "bench"\nid = "desk"\ndata = {json.dumps(os.fspath(data))}\n'
        f'[broker]\nbrokers = ["mqtt://127.0.0.1:{broker_port}"]\n'
    )
    with Program(python("agent.cli", "station", "--config", str(path)), log=folder / "station.log") as program:
        yield program
