"""The node's ledger on its own card: `ledger/<number of its first line>.jsonl`, signed lines that name each other.

    append   make lines, write, fdatasync; only then hand them over (Store.hand_over), then the next batch
    open     read the last file; cut off a torn end; set a damaged file aside; go on behind the last line ever used

A number is used once, whatever is lost: the store remembers the last line that was handed over, and the ledger goes on
behind it even when its own files are gone. So what the station sees afterwards is a chain with a hole in the files, not
two chains. A file on which a write or sync has failed is cut back to what was synced, and never written again.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from agent.clock import Clock
from agent.disk import Disk, DurableFile
from agent.errors import Corrupt, Transient
from agent.evidence import dsse, records
from agent.evidence.chain import accept_key, check
from agent.evidence.keys import Key, public_keys
from agent.evidence.records import GENESIS, Fact, LedgerLine, LedgerMark, Payload, RecordKind, digest

__all__ = ["Ledger", "Repair", "check"]

FOLDER = "ledger"
QUARANTINE = "quarantine"
FILE_BYTES_MAX = 4 << 20
BYTES_MAX = 1 << 30
"""All files together: the better part of a year at a line every 20 s. The oldest go first, on record."""
RESEND_LINES_MAX = 5000
HEADS_MAX = 10_000
_NAME = re.compile(rf"{FOLDER}/(?P<first>[0-9]{{12}})\.jsonl")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Repair:
    """What `open` found and did. Empty: the ledger ended as it should."""

    torn_bytes: int = 0
    problem: str = ""  # one sentence: lines that were promised are not here
    resend: list[LedgerLine] = field(default_factory=list)  # durable here, and not handed over yet


@dataclass(frozen=True, slots=True)
class _Line:
    raw: bytes
    sha256: str
    payload: Payload
    keyid: str


class Ledger:
    """The files. One thread at a time. `open` before anything else; everything may raise Transient."""

    def __init__(
        self,
        disk: Disk,
        *,
        clock: Clock,
        node: str,
        keys: Sequence[Key],
        file_bytes_max: int = FILE_BYTES_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        """`node` is site/node. `keys`: all generations, oldest first, at least one (agent.evidence.keys)."""
        self._disk = disk
        self._clock = clock
        self._node = node
        self._keys = {key.keyid: key for key in keys}
        self._public = public_keys(keys)
        self._key = keys[-1]
        self._file_bytes_max = file_bytes_max
        self._bytes_max = bytes_max
        self._epoch = ""
        self._seq = 0
        self._head = GENESIS
        self._file: DurableFile | None = None
        self._name = ""
        self._size = 0  # synced bytes of the file
        self._failed = False
        self._doomed: list[str] = []  # old files to remove once that is on record
        self._own: list[Fact] = []  # the ledger's own records, before those of the journal
        self._heads: OrderedDict[int, str] = OrderedDict()

    @property
    def seq(self) -> int:
        """Number of the last line."""
        return self._seq

    @property
    def key(self) -> Key:
        """The key that signs the next line."""
        return self._key

    def add_key(self, key: Key) -> None:
        """A key that is durable on the disk, and that a record of kind `key` is going to introduce."""
        self._keys[key.keyid] = key
        self._public[key.keyid] = key.public

    def head_of(self, seq: int) -> str | None:
        """The hash of one of the newest HEADS_MAX lines."""
        return self._heads.get(seq)

    # -- the boot path ------------------------------------------------------------------------------------------------

    def open(self, mark: LedgerMark, *, epoch: str, receipted: int = 0) -> Repair:
        """Finds the end of the ledger and mends it. Safe to repeat after a cut anywhere.

        `mark`: the last line that this store has handed over; of a new store (seq 0) all lines behind `receipted` are
        to be handed over again, for nobody knows which of them the station has.
        """
        self._close_file()
        self._epoch, self._own, self._heads = epoch, [], OrderedDict()
        self._seq, self._head, self._failed, self._doomed = 0, GENESIS, False, []
        repair = Repair()
        names = self._names()
        lines: list[_Line] = []
        while names and not lines:
            lines = self._open_file(names.pop(), mark, repair)
        if lines:
            self._seq, self._head = max((lines[-1].payload.seq, lines[-1].sha256), (self._seq, self._head))
            self._adopt_key(lines[-1])
        if mark.seq > self._seq:
            self._lose(self._seq + 1, mark.seq, repair)
            self._seq, self._head = mark.seq, mark.head
        if self._seq == 0:
            self._tell_install("new")
        for line in lines:
            self._remember(line.payload.seq, line.sha256)
        repair.resend = self._behind(mark.seq or receipted, lines, names)
        return repair

    def _names(self) -> list[str]:
        return [name for name in self._disk.list(FOLDER) if _NAME.fullmatch(name)]

    def _open_file(self, name: str, mark: LedgerMark, repair: Repair) -> list[_Line]:
        """Reads one file and mends its end. Returns its good lines; the file goes on being used when it has any."""
        with self._disk.open(name) as file:
            data = file.read(2 * self._file_bytes_max + dsse.LINE_BYTES_MAX)
        good, size = self._good(data, mark)
        last = good[-1].payload.seq if good else int(name[-18:-6]) - 1
        rest = data[size:]
        if rest:
            later = self._later(rest, last) if mark.seq == 0 else None
            if last >= mark.seq and later is None:
                # Nothing behind the good lines was ever promised: the batch of the cut. Its facts are in the journal.
                repair.torn_bytes += len(rest)
                log.warning("ledger: %s: %d bytes of torn end cut off", name, len(rest))
                self._disk.truncate(name, size)
            else:
                self._set_aside(name, data, size, last, repair)
                if later is not None:
                    self._lose(last + 1, later.payload.seq, repair)
                    self._seq, self._head = later.payload.seq, later.sha256
        if not good:
            self._disk.unlink(name)
        elif last >= mark.seq and last >= self._seq:
            self._name, self._size = name, size
        return good

    def _good(self, data: bytes, mark: LedgerMark) -> tuple[list[_Line], int]:
        """The lines from the front that follow each other, and their length in bytes. A hash stands for all before it:
        only signatures of lines that nobody has seen yet are checked.
        """
        good: list[_Line] = []
        size = 0
        for raw in data.split(b"\n")[:-1]:
            line = self._read(raw)
            if line is None:
                break
            if good and (line.payload.seq != good[-1].payload.seq + 1 or line.payload.prev != good[-1].sha256):
                break
            if line.payload.seq > mark.seq and not self._signed(raw, line, good[-1] if good else None):
                break
            if line.payload.seq == mark.seq and line.sha256 != mark.head:
                break  # not what was written there
            good.append(line)
            size += len(raw) + 1
        return good, size

    def _read(self, raw: bytes) -> _Line | None:
        try:
            envelope = dsse.parse(raw)
            payload = records.read(envelope)
        except Corrupt:
            return None
        return _Line(raw, digest(raw), payload, envelope.keyid) if payload.node == self._node else None

    def _signed(self, raw: bytes, line: _Line, before: _Line | None = None) -> bool:
        """A line by a key that is lost cannot be checked here; its chain can. But it must have come by that key: a name
        of a key that rots, or that somebody writes, is not a key that was lost.
        """
        public = self._public.get(line.keyid)
        if public is not None:
            return dsse.parse(raw).verify(public)
        if before is None or before.keyid == line.keyid:
            return True
        if line.payload.kind == RecordKind.INSTALL:
            told = accept_key(line.payload)
            return told is not None and told[0] == line.keyid and dsse.parse(raw).verify(told[1])
        introduced = accept_key(before.payload)
        return introduced is not None and introduced[0] == line.keyid

    def _later(self, rest: bytes, last: int) -> _Line | None:
        """The last line behind something damaged that this node has certainly signed and may have handed over.

        Asked of a store that has handed over nothing yet: a line of its own epoch was never promised, and stands behind
        a hole only because the sectors of one batch reach the card in any order. One of the store before it may have
        been.
        """
        found: _Line | None = None
        for raw in rest.split(b"\n"):
            line = self._read(raw)
            if line is None or line.payload.seq <= last or line.keyid not in self._public:
                continue
            if line.payload.epoch == self._epoch:
                continue
            if self._signed(raw, line) and (found is None or line.payload.seq > found.payload.seq):
                found = line
        return found

    def _set_aside(self, name: str, data: bytes, size: int, last: int, repair: Repair) -> None:
        """A damaged file: a copy is kept for examination, its good front stays. In this order: a cut repeats it."""
        self._disk.list(QUARANTINE)
        aside = f"{QUARANTINE}/ledger-{name[-18:]}"
        log.error("ledger: %s is damaged behind record %d; a copy is kept as %s", name, last, aside)
        self._disk.replace(aside, data)
        self._disk.replace(name, data[:size])
        repair.problem = f"The ledger was damaged behind record {last}; the file as it was is kept as {aside}."
        self._tell(problem="damaged", file=aside, sha256=digest(data), kept_to=last)

    def _lose(self, first: int, last: int, repair: Repair) -> None:
        """Lines that were promised, and are not here any more. The station may have them."""
        log.error("ledger: records %d to %d are lost", first, last)
        repair.problem = f"{repair.problem} Records {first} to {last} of the ledger are lost on this card.".strip()
        self._tell(problem="lost", first=first, last=last)

    def _behind(self, seq: int, lines: Sequence[_Line], names: list[str]) -> list[LedgerLine]:
        """Lines behind `seq`, oldest first, the newest RESEND_LINES_MAX of them."""
        found = list(lines)
        while names and found and found[0].payload.seq > seq + 1 and len(found) < RESEND_LINES_MAX:
            with self._disk.open(names.pop()) as file:
                data = file.read(2 * self._file_bytes_max)
            before, _ = self._good(data, LedgerMark(1 << 62, ""))
            if not before or before[-1].payload.seq >= found[0].payload.seq:
                break
            found = before + found
        return [
            LedgerLine(
                line.payload.seq,
                line.sha256,
                line.payload.number if line.payload.epoch == self._epoch else None,
                line.raw,
            )
            for line in found[-RESEND_LINES_MAX:]
            if line.payload.seq > seq
        ]

    def lines_from(self, seq: int, limit: int) -> list[LedgerLine]:
        """At most `limit` lines from `seq` on, oldest first; numbers that are lost here are left out.

        Reads a file or two: 40 ms for a full one. Raises Transient.
        """
        names = self._names()
        while len(names) > 1 and int(names[1][-18:-6]) <= seq:
            del names[0]
        found: list[LedgerLine] = []
        for name in names:
            with self._disk.open(name) as file:
                data = file.read(2 * self._file_bytes_max + dsse.LINE_BYTES_MAX)
            for raw in data.split(b"\n")[:-1]:
                line = self._read(raw)
                if line is not None and line.payload.seq >= seq and len(found) < limit:
                    found.append(LedgerLine(line.payload.seq, line.sha256, None, raw))
            if len(found) == limit:
                break
        return found

    def _adopt_key(self, last: _Line) -> None:
        """The key of the last line, or the one that it introduces, goes on signing."""
        introduced = accept_key(last.payload)
        keyid = introduced[0] if introduced is not None else last.keyid
        if keyid in self._keys:
            self._key = self._keys[keyid]
        else:
            log.error("ledger: its key %s is lost; it goes on with %s", keyid, self._key.keyid)
            self._tell_install("the key of before is lost")

    def _tell_install(self, reason: str) -> None:
        told = records.body(reason=reason, keyid=self._key.keyid, public=self._key.public.hex(), algorithm="Ed25519")
        self._own.append(self._fact(RecordKind.INSTALL, told))

    def _tell(self, **told: object) -> None:
        self._own.append(self._fact(RecordKind.LEDGER, records.body(**told)))

    def _fact(self, kind: RecordKind, told: bytes) -> Fact:
        utc = self._clock.utc()
        return Fact(None, kind, self._clock.boot_id, self._clock.boot_ns(), utc.utc_ns, utc.unc_ns, told)

    # -- writing ------------------------------------------------------------------------------------------------------

    def append(self, facts: Sequence[Fact], *, receipt: str | None = None) -> list[LedgerLine]:
        """Puts facts on the ledger, the ledger's own first. They are durable when this returns; one fdatasync.

        `receipt`: hash of the newest station receipt. Raises Transient: nothing was put down, give them again.
        """
        self._rotate()
        own, key, head = list(self._own), self._key, self._head
        lines: list[LedgerLine] = []
        for seq, fact in enumerate([*own, *facts], start=self._seq + 1):
            payload = records.payload_of(fact, node=self._node, epoch=self._epoch, seq=seq, prev=head, receipt=receipt)
            raw = dsse.sign(records.PAYLOAD_TYPE, payload, key)
            head = digest(raw)
            lines.append(LedgerLine(seq, head, fact.number, raw))
            if fact.kind == RecordKind.KEY:
                key = self._introduced(fact) or key
        if not lines:
            return []
        self._write(b"".join(line.line + b"\n" for line in lines))
        self._seq, self._head, self._key = lines[-1].seq, head, key
        self._own = self._own[len(own) :]
        for line in lines:
            self._remember(line.seq, line.head)
        self._remove_doomed()
        return lines

    def _remove_doomed(self) -> None:
        try:
            while self._doomed:
                self._disk.unlink(self._doomed[0])
                del self._doomed[0]
        except Transient as error:
            log.warning("ledger: %s", error)  # they go at the next rotation; what is down is down

    def _introduced(self, fact: Fact) -> Key | None:
        told = msgspec.json.decode(fact.body)
        return self._keys.get(str(told.get("keyid")))

    def _remember(self, seq: int, head: str) -> None:
        self._heads[seq] = head
        while len(self._heads) > HEADS_MAX:
            self._heads.popitem(last=False)

    def _rotate(self) -> None:
        """Ends a full file, and names the old ones for which there is no room: on record first, then removed."""
        if self._failed:
            self._abandon()
        if not self._name or self._size < self._file_bytes_max:
            return
        self._close_file()
        names = self._names()
        total = sum(self._disk.size(name) for name in names)
        self._doomed = []
        while total > self._bytes_max and len(names) > 1:
            total -= self._disk.size(names[0])
            self._doomed.append(names.pop(0))
        if self._doomed:
            first, after = int(self._doomed[0][-18:-6]), int(names[0][-18:-6])
            self._tell(problem="given up for room", first=first, last=after - 1)

    def _write(self, data: bytes) -> None:
        try:
            if self._file is None:
                self._file = self._disk.append(self._name) if self._name else self._create()
            self._file.write(data)
            self._file.sync()
        except (Transient, FileNotFoundError) as error:
            self._failed = True
            if isinstance(error, Transient):
                raise
            raise Transient(f"ledger: {self._name} has vanished; check the disk") from None
        self._size += len(data)

    def _create(self) -> DurableFile:
        self._name, self._size = f"{FOLDER}/{self._seq + 1:012d}.jsonl", 0
        return self._disk.create(self._name)

    def _abandon(self) -> None:
        """After a failed write or sync: what was synced before stays, the rest goes, and a new file is begun."""
        name, size, mine = self._name, self._size, self._file is not None
        if self._file is not None:
            self._file.close()
            self._file = None
        try:
            if size:
                self._disk.truncate(name, size)
            elif mine or self._disk.size(name) == 0:  # it could not be made, or not be written: nothing is in it
                self._disk.unlink(name)
        except FileNotFoundError:
            pass
        self._close_file()
        self._failed = False

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._name, self._size = None, "", 0

    def close(self) -> None:
        """Lets go of the file; everything in it is durable. Never raises. `append` may be called again."""
        if self._file is not None:
            self._file.close()
            self._file = None
