"""Debian's PostgreSQL, started as the tests start it (tests/system/test_station_postgres.py), with its durable defaults."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figure import Skip
from tests.system.test_station_postgres import BIN, Postgres


@contextlib.contextmanager
def server() -> Iterator[Postgres]:
    """One of our own; `make` makes a database on it. Raises Skip where there is none, or not enough rights."""
    if not (BIN / "initdb").exists():
        raise Skip("Debian's postgresql is not installed: make test-system installs it")
    if os.geteuid() != 0:
        raise Skip("needs root: PostgreSQL is started as the user postgres")
    folder = Path(tempfile.mkdtemp(prefix="wardpost-bench-postgres-"))  # the user postgres must get into it
    try:
        made = Postgres(folder)
        with made.running("shared_buffers=256MB"):
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
