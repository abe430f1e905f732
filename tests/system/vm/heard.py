"""What a station has heard of a post, read from its database while it runs."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any


class Heard:
    """One post, as a station knows it."""

    def __init__(self, data: Path, node: str) -> None:
        """`data`: the station's folder."""
        self._db = data / "station.db"
        self._node = node

    def heartbeat(self) -> dict[str, Any]:
        """The newest heartbeat of the post that the station has; empty: none."""
        rows = self._rows("select heartbeat from node where node = ? and said = 'online'")
        return dict(json.loads(rows[0][0])) if rows and rows[0][0] else {}

    def events(self) -> list[tuple[str, int, str]]:
        """What the station has of the post: epoch, sequence, id."""
        return self._rows(
            "select epoch, sequence, id from event join stream using (stream) where node = ?"
            " and kind <> 'record' order by 1, 2"
        )

    def bodies(self) -> list[dict[str, Any]]:
        """Its events as they came."""
        rows = self._rows(
            "select body from event join stream using (stream) where node = ? and kind <> 'record' order by n"
        )
        return [json.loads(row[0]) for row in rows]

    def _rows(self, sql: str) -> list[Any]:
        if not self._db.exists():
            return []
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(self._db)) as db:
            return db.execute(sql, (self._node,)).fetchall()
        return []
