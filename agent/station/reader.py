"""Reads a station's database while the station writes it (`wardpost watch`). What it returns are plain tuples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Executable, Table, func, select, text, union

from agent.errors import ConfigError, Transient
from agent.station import rollouts
from agent.station.db.engine import FILE, database_url, open_engine, transaction
from agent.station.db.errors import name_of, plain
from agent.station.db.tables import carried, change, event, key, line, node, receipt, reject, stream
from agent.station.rollout import Rollout
from agent.station.states import NodeSeen

_NEWEST: dict[str, Table] = {"event": event, "change": change, "reject": reject}
NODES = select(
    node.c.node,
    node.c.place,
    node.c.said,
    node.c.seen_boot_id,
    node.c.seen_ns,
    node.c.seen_utc_ns,
    node.c.state,
    node.c.state_since_utc_ns,
    node.c.reason,
).order_by(node.c.node)
HEARTBEATS = select(node.c.node, node.c.heartbeat).where(node.c.heartbeat.is_not(None))


class Reader:
    """One connection, one thread; `open` may be called again after Transient. Every call sees what is there by then."""

    def __init__(self, folder: Path, *, database: str = "") -> None:
        """`folder`, `database`: the station's, as in its settings. Raises ConfigError for a URL that is none."""
        self._file = None if database else folder / FILE
        self._engine = open_engine(database_url(folder, database), read_only=True, pooled=False)
        self._name = name_of(self._engine.url)
        self._db: Connection | None = None

    def open(self) -> None:
        """Raises ConfigError when there is no station there, Transient."""
        if self._file is not None and not self._file.is_file():
            raise ConfigError(f"{self._file}: no such file; is a station running on this data folder?")
        self.close()
        with plain(self._name, "open"):
            db = self._engine.connect()
            try:
                with transaction(db, writes=False):
                    db.execute(text("select count(*) from meta"))
            except BaseException:
                db.close()
                raise
        self._db = db

    def close(self) -> None:
        """Lets go of the database."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def newest(self, table: str) -> int:
        """The highest row number of `event`, `change` or `reject`; 0 when there is none."""
        return int(self._query(select(func.coalesce(func.max(_NEWEST[table].c.n), 0)))[0][0])

    def events_after(self, n: int, limit: int) -> list[tuple[int, int, str, str, bytes]]:
        """(n, received_utc_ns, node, kind, body), in order of arrival."""
        return self._query(
            select(event.c.n, event.c.received_utc_ns, stream.c.node, event.c.kind, event.c.body)
            .join(stream, stream.c.stream == event.c.stream)
            .where(event.c.n > n)
            .order_by(event.c.n)
            .limit(limit)
        )

    def key_count(self) -> int:
        """How many keys of nodes stand in the books; they only ever become more."""
        return int(self._query(select(func.count()).select_from(key))[0][0])

    def all_keys(self) -> list[tuple[int, str, str, str, str]]:
        """(since_utc_ns, node, keyid, public, how) of every key in the books, oldest first."""
        return self._query(
            select(key.c.since_utc_ns, key.c.node, key.c.keyid, key.c.public, key.c.how).order_by(
                key.c.since_utc_ns, key.c.node, key.c.keyid
            )
        )

    def changes_after(self, n: int, limit: int) -> list[tuple[int, str, str, int, int]]:
        """(n, node, state, utc_ns, since_utc_ns)."""
        return self._query(
            select(change.c.n, change.c.node, change.c.state, change.c.utc_ns, change.c.since_utc_ns)
            .where(change.c.n > n)
            .order_by(change.c.n)
            .limit(limit)
        )

    def rejects_after(self, n: int, limit: int) -> list[tuple[int, int, str, str]]:
        """(n, received_utc_ns, topic, reason)."""
        return self._query(
            select(reject.c.n, reject.c.received_utc_ns, reject.c.topic, reject.c.reason)
            .where(reject.c.n > n)
            .order_by(reject.c.n)
            .limit(limit)
        )

    def nodes(self) -> list[NodeSeen]:
        """Every node and when it was last heard."""
        return [NodeSeen(*row) for row in self._query(NODES)]

    def heartbeats(self) -> dict[str, bytes]:
        """The newest heartbeat of every node, as it came."""
        return dict(self._query(HEARTBEATS))

    def last_events(self, of: str, kinds: Sequence[str], limit: int) -> list[tuple[int, bytes]]:
        """(received_utc_ns, body) of a node's newest events of these kinds, newest first."""
        return self._query(
            select(event.c.received_utc_ns, event.c.body)
            .join(stream, stream.c.stream == event.c.stream)
            .where(stream.c.node == of, event.c.kind.in_(list(kinds)))
            .order_by(event.c.n.desc())
            .limit(limit)
        )

    def rollout(self, lines_max: int = 20) -> tuple[int, Rollout, list[tuple[int, str]]] | None:
        """When the newest one began, how far it has come, and (utc_ns, text) of its last steps. Raises Corrupt."""
        with plain(self._name, "read"):
            db = self._connection()
            with transaction(db, writes=False):
                found = rollouts.newest(db)
                return None if found is None else (*found, rollouts.record(db, found[1].id, lines_max))

    def sequences(self) -> dict[tuple[str, str], list[int]]:
        """Sequence numbers by (node, epoch): what an audit compares with the node's own."""
        both = union(
            select(event.c.stream, event.c.sequence), select(carried.c.stream, carried.c.sequence)
        ).subquery()  # fmt: skip
        found: dict[tuple[str, str], list[int]] = {}
        for of, epoch, sequence in self._query(
            select(stream.c.node, stream.c.epoch, both.c.sequence)
            .join(stream, stream.c.stream == both.c.stream)
            .order_by(stream.c.node, stream.c.epoch, both.c.sequence)
        ):
            found.setdefault((of, epoch), []).append(sequence)
        return found

    def lines(self, of: str) -> list[bytes]:
        """A node's ledger as far as it has arrived, by number."""
        rows = self._query(select(line.c.body).where(line.c.node == of).order_by(line.c.root, line.c.seq, line.c.n))
        return [body for (body,) in rows]

    def receipts(self, of: str) -> list[bytes]:
        """The receipts that were signed for a node's ledger, oldest first."""
        rows = self._query(select(receipt.c.body).where(receipt.c.node == of).order_by(receipt.c.n))
        return [body for (body,) in rows]

    def keys(self, of: str) -> dict[str, bytes]:
        """The public keys of a node's ledger by id: pinned, registered and introduced."""
        return {k: bytes.fromhex(p) for k, p in self._query(select(key.c.keyid, key.c.public).where(key.c.node == of))}

    def _connection(self) -> Connection:
        if self._db is None:
            raise Transient(f"{self._name}: not open")
        return self._db

    def _query(self, statement: Executable) -> list[Any]:
        with plain(self._name, "read"):
            db = self._connection()
            with transaction(db, writes=False):
                return [tuple(row) for row in db.execute(statement)]
