"""The nodes' ledgers at the station: whose key signs, whether the lines follow each other, and the receipts for them.

A line is stored when a known key of its node has signed it; only then is it acknowledged. What else is wrong with it -
a second line of that number, a link that does not fit - is an alarm, and the line is kept: it is the evidence.
A line of an unknown key is refused, so the node keeps it until a person has looked (`station.node_keys`).

All functions run in the caller's transaction, on the station's one thread. After one that failed, `open` again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from agent.clock import Clock
from agent.errors import Corrupt
from agent.evidence import dsse, receipts, records
from agent.evidence.chain import What, accept_key, replaces
from agent.evidence.keys import Key, keyid_of, public_of
from agent.evidence.records import GENESIS, Payload, RecordKind, digest
from agent.station import evidence_alarms
from agent.station.db.tables import alarm as alarm_table
from agent.station.db.tables import carried, key, ledger, line, receipt
from agent.station.db.upsert import Upsert
from agent.station.evidence_alarms import OfFile
from agent.station.intake import RecordIn
from agent.types import NS

RECEIPT_EVERY_S = 60.0
"""How far apart two receipts for one node are, at least: how much of its past a stolen key could still rewrite."""
ALARM_EVERY_S = 600.0
"""An alarm of one kind about one node is told so often at most, with its count."""
ALARM = "EVIDENCE ALARM"
KEYS_PER_NODE_MAX = 100
KEYS_REPLACED_MAX = 100_000

_KEYS_OF = select(func.count()).select_from(key).where(key.c.node == bindparam("of"))
_KEY = select(key.c.public, key.c.root).where(key.c.node == bindparam("of"), key.c.keyid == bindparam("id"))
_ADD_KEY = Upsert(key, lambda made: made.on_conflict_do_nothing())
_THERE = select(line.c.n).where(
    line.c.node == bindparam("of"),
    line.c.root == bindparam("of_root"),
    line.c.seq == bindparam("number"),
    line.c.sha256 == bindparam("hash"),
)
_AROUND = select(line.c.seq, line.c.sha256, line.c.prev).where(
    line.c.node == bindparam("of"),
    line.c.root == bindparam("of_root"),
    line.c.seq.between(bindparam("first"), bindparam("last")),
)
_ADD_LINE = insert(line).returning(line.c.n)
_NEWEST = Upsert(
    ledger,
    lambda made: made.on_conflict_do_update(
        index_elements=["node", "root"],
        set_={"epoch": made.excluded.epoch, "seq": made.excluded.seq, "head": made.excluded.head},
        where=ledger.c.seq < made.excluded.seq,
    ),
)
_COUNT_ALARM = Upsert(
    alarm_table,
    lambda made: made.on_conflict_do_update(index_elements=["node", "what"], set_={"count": alarm_table.c.count + 1}),
)


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something is wrong with a node's ledger, or with a file of it."""

    node: str
    what: What
    text: str
    about: OfFile = field(default_factory=OfFile)


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

    def open(self, db: Connection) -> None:
        """Remembers whose newest lines have no receipt yet, and forgets what it knew before."""
        waiting = select(ledger.c.node, ledger.c.root).where(ledger.c.seq > ledger.c.receipt_seq)
        self._waiting = {(node, root) for node, root in db.execute(waiting)}
        self._replaced.clear()
        replacing = select(line.c.node, line.c.root, line.c.body).where(line.c.kind == RecordKind.KEY.value)
        for node, root, body in db.execute(replacing.order_by(line.c.seq).limit(KEYS_REPLACED_MAX)):
            envelope = dsse.parse(bytes(body))
            self._replaces(node, root, records.read(envelope), envelope.keyid)

    # -- keys ---------------------------------------------------------------------------------------------------------

    def register(self, db: Connection, keys: Mapping[str, str]) -> None:
        """Keys that a person vouches for: node -> 64 hex digits. Raises Corrupt."""
        for node, text in keys.items():
            keyid = keyid_of(public_of(text))
            self._add_key(db, node, keyid, text, root=keyid, how="registered")

    def pin(self, db: Connection, node: str, text: str) -> None:
        """Believes a node about its key, if it is the first that is heard of."""
        if text and not self._knows(db, node):
            try:
                keyid = keyid_of(public_of(text))
            except Corrupt:
                return
            self._add_key(db, node, keyid, text, root=keyid, how="pinned")

    def _knows(self, db: Connection, node: str) -> bool:
        return bool(db.execute(_KEYS_OF, {"of": node}).scalar_one())

    def _add_key(self, db: Connection, node: str, keyid: str, public: str, *, root: str, how: str) -> None:
        if db.execute(_KEYS_OF, {"of": node}).scalar_one() < KEYS_PER_NODE_MAX:
            since = self._clock.utc().utc_ns
            row = {"node": node, "keyid": keyid, "public": public, "root": root, "how": how, "since_utc_ns": since}
            _ADD_KEY.one(db, row)

    # -- lines --------------------------------------------------------------------------------------------------------

    def add(self, db: Connection, record: RecordIn, now_utc_ns: int) -> tuple[int, list[Alarm]]:
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
        there = db.execute(
            _THERE, {"of": record.node, "of_root": root, "number": payload.seq, "hash": sha256}
        ).scalar_one_or_none()
        if there is not None:
            return int(there), []
        alarms = self._neighbours(db, record.node, root, payload, sha256)
        alarms += self._retired(record.node, root, payload, envelope.keyid)
        self._replaces(record.node, root, payload, envelope.keyid)
        n = db.execute(
            _ADD_LINE,
            {
                "node": record.node,
                "root": root,
                "seq": payload.seq,
                "sha256": sha256,
                "prev": payload.prev,
                "kind": payload.kind[:40],
                "received_utc_ns": now_utc_ns,
                "body": record.line,
            },
        ).scalar_one()
        introduced = accept_key(payload) if payload.kind == RecordKind.KEY else None
        if introduced is not None:
            self._add_key(db, record.node, introduced[0], introduced[1].hex(), root=root, how="introduced")
        newest = {"node": record.node, "root": root, "epoch": record.epoch, "seq": payload.seq, "head": sha256}
        if _NEWEST.one(db, newest):
            self._waiting.add((record.node, root))
        return int(n), alarms

    def _root(self, db: Connection, node: str, envelope: dsse.Envelope, payload: Payload) -> str:
        """The ledger that a line belongs to, named by the first key of its line of keys. Raises Refused."""
        if payload.kind == RecordKind.INSTALL and not self._knows(db, node):
            told = accept_key(payload)
            if told is not None and told[0] == envelope.keyid and envelope.verify(told[1]):
                self.pin(db, node, told[1].hex())
        row = db.execute(_KEY, {"of": node, "id": envelope.keyid}).one_or_none()
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

    def _neighbours(self, db: Connection, node: str, root: str, payload: Payload, sha256: str) -> list[Alarm]:
        """Holds a new line against those with its number, the one before and the one after."""
        found: list[Alarm] = []
        around: dict[int, list[tuple[str, str]]] = {}
        for seq, other, prev in db.execute(
            _AROUND, {"of": node, "of_root": root, "first": payload.seq - 1, "last": payload.seq + 1}
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

    @staticmethod
    def raise_alarm(db: Connection, alarm: Alarm, now_utc_ns: int) -> str:
        """Counts an alarm, which people see until they answer it; returns what `wardpost watch` is to tell, empty when
        the same was told a while ago.
        """
        evidence_alarms.wait_for_others(db)
        evidence_alarms.sound(db, alarm.node, alarm.what, alarm.text, now_utc_ns, alarm.about)
        row = {"node": alarm.node, "what": alarm.what.value, "count": 1, "first_utc_ns": now_utc_ns, "told_utc_ns": 0}
        _COUNT_ALARM.one(db, row)
        this = (alarm_table.c.node == alarm.node) & (alarm_table.c.what == alarm.what.value)
        count, told_ns = db.execute(select(alarm_table.c.count, alarm_table.c.told_utc_ns).where(this)).one()
        if 0 <= now_utc_ns - told_ns < ALARM_EVERY_S * NS:
            return ""
        db.execute(update(alarm_table).where(this).values(told_utc_ns=now_utc_ns))
        times = f" (time {count} for this post)" if count > 1 else ""
        return f"{ALARM}: {alarm.what.value}: {alarm.text}{times}"

    def trim(self, db: Connection) -> None:
        """Gives up the oldest lines and receipts beyond the bound."""
        for table in (line, receipt):
            last = db.execute(select(func.max(table.c.n))).scalar_one() or 0
            if last > self._rows_max:
                db.execute(delete(table).where(table.c.n <= last - self._rows_max))
        first = db.execute(select(func.min(line.c.n))).scalar_one()
        if first is not None and first > 1:
            db.execute(delete(carried).where(carried.c.n < first))

    # -- receipts -----------------------------------------------------------------------------------------------------

    def due(self) -> list[tuple[str, str]]:
        """Whose newest line should have a receipt now."""
        now_ns = self._clock.boot_ns()
        return sorted(
            key
            for key in self._waiting
            if key not in self._issued_ns or now_ns - self._issued_ns[key] >= RECEIPT_EVERY_S * NS
        )

    def sign(self, db: Connection, due: list[tuple[str, str]], signer: Key) -> list[Signed]:
        """Makes receipts and stores them. They may be sent once the transaction is committed."""
        found = []
        for node, root in due:
            this = (ledger.c.node == node) & (ledger.c.root == root)
            row = db.execute(
                select(ledger.c.epoch, ledger.c.seq, ledger.c.head, ledger.c.receipt_sha256).where(this)
            ).one_or_none()
            if row is None:
                continue  # its transaction failed: the node sends again
            epoch, seq, head, prev = row
            time = self._clock.utc()
            made = receipts.make(
                station=self._station,
                node=f"{self._site}/{node}",
                seq=seq,
                head=head,
                time=time,
                prev=prev or GENESIS,
                key=signer,
            )
            db.execute(insert(receipt).values(node=node, root=root, seq=seq, utc_ns=time.utc_ns, body=made))
            db.execute(update(ledger).where(this).values(receipt_seq=seq, receipt_sha256=digest(made)))
            found.append(Signed(node, epoch, made.decode()))
        return found

    def signed(self, due: list[tuple[str, str]]) -> None:
        """The transaction of `sign` is committed."""
        for one in due:
            self._issued_ns[one] = self._clock.boot_ns()
            self._waiting.discard(one)
