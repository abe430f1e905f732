"""The nodes' ledgers at the station: whose key signs, whether the lines follow each other, and the receipts for them.

A line is stored when a known key of its node has signed it; only then is it acknowledged. What else is wrong with it -
a second line of that number, a link that does not fit - is an alarm, and the line is kept: it is the evidence.
A line of an unknown key is refused, so the node keeps it until a person has looked (`station.node_keys`).

All functions run in the caller's transaction, on the station's one thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from agent.clock import Clock
from agent.errors import Corrupt
from agent.evidence import dsse, receipts, records
from agent.evidence.chain import What, accept_key, replaces
from agent.evidence.keys import Key, keyid_of, public_of
from agent.evidence.records import GENESIS, Payload, RecordKind, digest
from agent.station.intake import RecordIn
from agent.types import NS

RECEIPT_EVERY_S = 60.0
"""How far apart two receipts for one node are, at least: how much of its past a stolen key could still rewrite."""
ALARM_EVERY_S = 600.0
"""An alarm of one kind about one node is told so often at most, with its count."""
ALARM = "EVIDENCE ALARM"
KEYS_PER_NODE_MAX = 100
KEYS_REPLACED_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something is wrong with a node's ledger."""

    node: str
    what: What
    text: str


@dataclass(frozen=True, slots=True)
class Signed:
    """A receipt to be sent."""

    node: str
    epoch: str
    line: str


class Refused(Corrupt):
    """A line that is not stored. `alarm` False: the node has not introduced itself yet, which time will cure."""

    def __init__(self, what: What, text: str, *, alarm: bool = True) -> None:
        super().__init__(text)
        self.what = what
        self.alarm = alarm


class Ledgers:
    """See the module. `due` is cheap; everything else works on the database it is given."""

    def __init__(self, *, clock: Clock, site: str, station: str, rows_max: int) -> None:
        self._clock = clock
        self._site = site
        self._station = station
        self._rows_max = rows_max
        self._issued_ns: dict[tuple[str, str], int] = {}  # boot time of the last receipt of this life
        self._replaced: dict[tuple[str, str, str], int] = {}  # (node, root, key) -> its last record
        self._waiting: set[tuple[str, str]] = set()  # (node, root) with lines newer than their receipt

    def open(self, db: sqlite3.Connection) -> None:
        """Remembers whose newest lines have no receipt yet."""
        self._issued_ns.clear()
        self._waiting = set(db.execute("select node, root from ledger where seq > receipt_seq"))
        self._replaced.clear()
        for node, root, body in db.execute(
            "select node, root, body from line where kind = ? order by seq limit ?", (RecordKind.KEY, KEYS_REPLACED_MAX)
        ):
            envelope = dsse.parse(bytes(body))
            self._replaces(node, root, records.read(envelope), envelope.keyid)

    # -- keys ---------------------------------------------------------------------------------------------------------

    def register(self, db: sqlite3.Connection, keys: Mapping[str, str]) -> None:
        """Keys that a person vouches for: node -> 64 hex digits. Raises Corrupt."""
        for node, text in keys.items():
            keyid = keyid_of(public_of(text))
            self._add_key(db, node, keyid, text, root=keyid, how="registered")

    def pin(self, db: sqlite3.Connection, node: str, text: str) -> None:
        """Believes a node about its key, if it is the first that is heard of."""
        if text and not self._knows(db, node):
            try:
                keyid = keyid_of(public_of(text))
            except Corrupt:
                return
            self._add_key(db, node, keyid, text, root=keyid, how="pinned")

    def _knows(self, db: sqlite3.Connection, node: str) -> bool:
        return db.execute("select 1 from key where node = ? limit 1", (node,)).fetchone() is not None

    def _add_key(self, db: sqlite3.Connection, node: str, keyid: str, public: str, *, root: str, how: str) -> None:
        (count,) = db.execute("select count(*) from key where node = ?", (node,)).fetchone()
        if count < KEYS_PER_NODE_MAX:
            db.execute(
                "insert or ignore into key values (?, ?, ?, ?, ?, ?)",
                (node, keyid, public, root, how, self._clock.utc().utc_ns),
            )

    # -- lines --------------------------------------------------------------------------------------------------------

    def add(self, db: sqlite3.Connection, record: RecordIn, now_utc_ns: int) -> tuple[int, list[Alarm]]:
        """Stores a line, or finds it there already; returns its row and what is wrong with it. Raises Refused."""
        sha256 = digest(record.line)
        try:
            envelope = dsse.parse(record.line)
            payload = records.read(envelope)
        except Corrupt as error:
            raise Refused(What.ALTERED, str(error)) from None
        if payload.node != f"{self._site}/{record.node}":
            raise Refused(What.OTHER_NODE, f"record {payload.seq} is of {payload.node!r}")
        root = self._root(db, record.node, envelope, payload)
        row = db.execute(
            "select n from line where node = ? and root = ? and seq = ? and sha256 = ?",
            (record.node, root, payload.seq, sha256),
        ).fetchone()
        if row is not None:
            return int(row[0]), []
        alarms = self._neighbours(db, record.node, root, payload, sha256)
        alarms += self._retired(record.node, root, payload, envelope.keyid)
        self._replaces(record.node, root, payload, envelope.keyid)
        cursor = db.execute(
            "insert into line (node, root, seq, sha256, prev, kind, received_utc_ns, body)"
            " values (?, ?, ?, ?, ?, ?, ?, ?)",
            (record.node, root, payload.seq, sha256, payload.prev, payload.kind[:40], now_utc_ns, record.line),
        )
        introduced = accept_key(payload) if payload.kind == RecordKind.KEY else None
        if introduced is not None:
            self._add_key(db, record.node, introduced[0], introduced[1].hex(), root=root, how="introduced")
        newer = db.execute(
            "insert into ledger (node, root, epoch, seq, head) values (?, ?, ?, ?, ?) on conflict (node, root)"
            " do update set epoch = excluded.epoch, seq = excluded.seq, head = excluded.head where seq < excluded.seq",
            (record.node, root, record.epoch, payload.seq, sha256),
        ).rowcount
        if newer:
            self._waiting.add((record.node, root))
        return cursor.lastrowid or 0, alarms

    def _root(self, db: sqlite3.Connection, node: str, envelope: dsse.Envelope, payload: Payload) -> str:
        """The ledger that a line belongs to, named by the first key of its line of keys. Raises Refused."""
        if payload.kind == RecordKind.INSTALL and not self._knows(db, node):
            told = accept_key(payload)
            if told is not None and told[0] == envelope.keyid and envelope.verify(told[1]):
                self.pin(db, node, told[1].hex())
        row = db.execute("select public, root from key where node = ? and keyid = ?", (node, envelope.keyid)).fetchone()
        if row is None and not self._knows(db, node):
            raise Refused(What.FOREIGN_KEY, f"record {payload.seq}: the node has not told its key yet", alarm=False)
        if row is None:
            raise Refused(
                What.FOREIGN_KEY,
                f"record {payload.seq} is signed with key {envelope.keyid[:16]}, which is not this node's; if the post"
                " was replaced or set up anew, register its new key in station.node_keys",
            )
        if not envelope.verify(bytes.fromhex(row[0])):
            raise Refused(What.ALTERED, f"record {payload.seq}: the signature does not fit the content")
        return str(row[1])

    def _neighbours(self, db: sqlite3.Connection, node: str, root: str, payload: Payload, sha256: str) -> list[Alarm]:
        """Holds a new line against those with its number, the one before and the one after."""
        found: list[Alarm] = []
        around: dict[int, list[tuple[str, str]]] = {}
        for seq, other, prev in db.execute(
            "select seq, sha256, prev from line where node = ? and root = ? and seq between ? and ?",
            (node, root, payload.seq - 1, payload.seq + 1),
        ):
            around.setdefault(seq, []).append((other, prev))
        if payload.seq in around:
            text = f"there are two records {payload.seq}, both signed by the node: its past was written anew"
            found.append(Alarm(node, What.FORK, text))
        before, after = around.get(payload.seq - 1, []), around.get(payload.seq + 1, [])
        if (before and all(other != payload.prev for other, _ in before)) or (
            payload.seq == 1 and payload.prev != GENESIS
        ):
            found.append(Alarm(node, What.CHAIN_BREAK, f"record {payload.seq} does not follow the one before it"))
        if after and all(prev != sha256 for _, prev in after):
            text = f"record {payload.seq + 1} does not follow record {payload.seq}"
            found.append(Alarm(node, What.CHAIN_BREAK, text))
        return found

    def _retired(self, node: str, root: str, payload: Payload, keyid: str) -> list[Alarm]:
        """A key signs nothing behind the record by which it introduced another."""
        seq = self._replaced.get((node, root, keyid), payload.seq)
        if seq >= payload.seq:
            return []
        text = f"record {payload.seq} is signed with key {keyid[:16]}, which record {seq} has replaced"
        return [Alarm(node, What.RETIRED_KEY, f"{text}: somebody may have that key")]

    def _replaces(self, node: str, root: str, payload: Payload, keyid: str) -> None:
        """Remembers the last record of a key, which introduces another."""
        if replaces(payload, keyid) and len(self._replaced) < KEYS_REPLACED_MAX:
            self._replaced.setdefault((node, root, keyid), payload.seq)

    def raise_alarm(self, db: sqlite3.Connection, alarm: Alarm, now_utc_ns: int) -> str:
        """Counts an alarm; returns what is to be told, empty when the same was told a while ago."""
        db.execute(
            "insert into alarm (node, what, count, first_utc_ns, told_utc_ns) values (?, ?, 1, ?, 0)"
            " on conflict (node, what) do update set count = count + 1",
            (alarm.node, alarm.what.value, now_utc_ns),
        )
        count, told_ns = db.execute(
            "select count, told_utc_ns from alarm where node = ? and what = ?", (alarm.node, alarm.what.value)
        ).fetchone()
        if 0 <= now_utc_ns - told_ns < ALARM_EVERY_S * NS:
            return ""
        db.execute(
            "update alarm set told_utc_ns = ? where node = ? and what = ?", (now_utc_ns, alarm.node, alarm.what.value)
        )
        times = f" (time {count} for this post)" if count > 1 else ""
        return f"{ALARM}: {alarm.what.value}: {alarm.text}{times}"

    def trim(self, db: sqlite3.Connection) -> None:
        """Gives up the oldest lines and receipts beyond the bound."""
        for table in ("line", "receipt"):
            db.execute(f"delete from {table} where n <= (select max(n) from {table}) - ?", (self._rows_max,))  # noqa: S608
        db.execute("delete from carried where n < (select min(n) from line)")

    # -- receipts -----------------------------------------------------------------------------------------------------

    def due(self) -> list[tuple[str, str]]:
        """Whose newest line should have a receipt now."""
        now_ns = self._clock.boot_ns()
        return sorted(
            key
            for key in self._waiting
            if key not in self._issued_ns or now_ns - self._issued_ns[key] >= RECEIPT_EVERY_S * NS
        )

    def sign(self, db: sqlite3.Connection, due: list[tuple[str, str]], key: Key) -> list[Signed]:
        """Makes receipts and stores them. They may be sent once the transaction is committed."""
        found = []
        for node, root in due:
            row = db.execute(
                "select epoch, seq, head, receipt_sha256 from ledger where node = ? and root = ?", (node, root)
            ).fetchone()
            if row is None:
                continue  # its transaction failed: the node sends again
            epoch, seq, head, prev = row
            time = self._clock.utc()
            line = receipts.make(
                station=self._station,
                node=f"{self._site}/{node}",
                seq=seq,
                head=head,
                time=time,
                prev=prev or GENESIS,
                key=key,
            )
            db.execute(
                "insert into receipt (node, root, seq, utc_ns, body) values (?, ?, ?, ?, ?)",
                (node, root, seq, time.utc_ns, line),
            )
            db.execute(
                "update ledger set receipt_seq = ?, receipt_sha256 = ? where node = ? and root = ?",
                (seq, digest(line), node, root),
            )
            found.append(Signed(node, epoch, line.decode()))
        return found

    def signed(self, due: list[tuple[str, str]]) -> None:
        """The transaction of `sign` is committed."""
        for key in due:
            self._issued_ns[key] = self._clock.boot_ns()
            self._waiting.discard(key)
