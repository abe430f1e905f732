"""Station receipts: "at this time I held line `seq` of this node's ledger, and its hash was `head`". Signed, chained.

A line names its predecessor, so a receipt for one line vouches for all before it: after that moment nobody can rewrite
them, not even with the node's own key. The node's next line names the receipt, which it could not have known earlier:
so receipts bracket the time of a record from both sides. This file makes and reads them; `ReceiptBook` keeps those
that a node was given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from agent.clock import parse_rfc3339, rfc3339
from agent.disk import Disk
from agent.errors import Corrupt, Transient
from agent.evidence import dsse
from agent.evidence.keys import Key, keyid_of, public_of
from agent.evidence.records import digest
from agent.types import MS, UtcReading

PAYLOAD_TYPE = "application/vnd.wardpost.receipt+json;v=1"
VERSION = 1
FOLDER = "ledger"
FILE = f"{FOLDER}/receipts.jsonl"
FILE_BYTES_MAX = 2 << 20
FILES_MAX = 32
"""Full files that are kept beside the one in use: 64 MiB, a receipt every 30 s for a month. The station keeps all."""
_FULL = re.compile(rf"{FOLDER}/receipts-[0-9]{{12}}\.jsonl")


class Payload(Struct, frozen=True, kw_only=True):
    """What a receipt says."""

    v: int
    station: Annotated[str, Meta(max_length=32)]
    node: Annotated[str, Meta(max_length=80)]  # site/node
    seq: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    head: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]  # sha256 of that line
    time: str  # RFC 3339
    unc_ms: int | None  # of the station's clock
    prev: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]  # sha256 of the receipt before, for this node
    key: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]  # the station's public key; a claim like the rest


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt whose signature fits the key that it names. Whether that key is the station's is another question."""

    payload: Payload
    keyid: str
    sha256: str
    utc_ns: int


def make(*, station: str, node: str, seq: int, head: str, time: UtcReading, prev: str, key: Key) -> bytes:
    """A signed receipt, one line."""
    payload = Payload(
        v=VERSION,
        station=station,
        node=node,
        seq=seq,
        head=head,
        time=rfc3339(time.utc_ns),
        unc_ms=None if time.unc_ns is None else -(-time.unc_ns // MS),
        prev=prev,
        key=key.public.hex(),
    )
    return dsse.sign(PAYLOAD_TYPE, msgspec.json.encode(payload, order="sorted"), key)


def read(line: bytes) -> Receipt:
    """Takes a receipt apart and checks its signature against the key that it names. Raises Corrupt in one line."""
    envelope = dsse.parse(line)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise Corrupt(f"payload type {envelope.payload_type[:80]!r} is not that of a receipt")
    try:
        payload = msgspec.json.decode(envelope.payload, type=Payload)
        utc_ns = parse_rfc3339(payload.time)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Corrupt(f"not a receipt: {error}") from None
    if payload.v != VERSION:
        raise Corrupt(f"a receipt of version {payload.v}; this program reads {VERSION}")
    public = public_of(payload.key)
    if envelope.keyid != keyid_of(public) or not envelope.verify(public):
        raise Corrupt("a receipt whose signature does not fit its key")
    return Receipt(payload, envelope.keyid, digest(line), utc_ns)


class ReceiptBook:
    """The receipts that a node has been given, durable before the next record names the newest. One thread.

    It takes none of another key than the station's: the one that the settings name, else that of the first receipt.
    """

    def __init__(self, disk: Disk, node: str, station: bytes | None = None) -> None:
        """`station`: the raw public key of the station, from the settings (uplink.station_key)."""
        self._disk = disk
        self._node = node
        self._pinned = "" if station is None else keyid_of(station)
        self._size = 0
        self._dirty = False  # a write or sync failed: the file's end is cut back before the next one
        self.newest: Receipt | None = None
        self.keyid = self._pinned  # of the station
        self.refused = 0  # receipts by another key, since the start

    def open(self) -> int:
        """Reads the newest receipt and cuts off a torn tail; returns how many bytes. Raises Transient."""
        self.newest, self.keyid, self._size, self._dirty = None, self._pinned, 0, False
        kept = [name for name in self._disk.list(FOLDER) if _FULL.fullmatch(name)]
        for name in kept[-1:]:
            self._take(self._read(name))
        data = self._read(FILE)
        self._size = self._take(data)
        if self._size < len(data):
            self._disk.truncate(FILE, self._size)
        return len(data) - self._size

    def _read(self, name: str) -> bytes:
        try:
            with self._disk.open(name) as file:
                return file.read(2 * FILE_BYTES_MAX)
        except FileNotFoundError:
            return b""

    def _take(self, data: bytes) -> int:
        """Notes the receipts of a file; returns how many bytes of it are good."""
        good = 0
        for line in data.split(b"\n")[:-1]:
            try:
                receipt = read(line)
            except Corrupt:
                break
            self._note(receipt)
            good += len(line) + 1
        return good

    def _note(self, receipt: Receipt) -> None:
        self.keyid = self.keyid or receipt.keyid
        if receipt.keyid != self.keyid:
            return  # believed at first sight once; the settings know better now
        if self.newest is None or receipt.payload.seq >= self.newest.payload.seq:
            self.newest = receipt

    def station(self) -> dict[str, str | int | bool]:
        """Whose receipts are believed, for `wardpost status`."""
        return {"key": self.keyid, "pinned": bool(self._pinned), "receipts_refused": self.refused}

    def add(self, line: bytes, head_of: str | None) -> bool:
        """Keeps a receipt. `head_of` is the hash of the node's own line of that number, None when it is not known.

        False when it brings nothing new. Raises Corrupt when it is not to be believed: bad signature, another node,
        another station's key, another line than ours. Raises Transient; then it may be given again.
        """
        receipt = read(line)
        said = receipt.payload
        if said.node != self._node:
            raise Corrupt(f"a receipt for {said.node!r}, this is {self._node!r}")
        if self.keyid and receipt.keyid != self.keyid:
            self.refused += 1
            whose = "uplink.station_key says" if self._pinned else "the first receipt was by"
            raise Corrupt(f"a receipt by station key {receipt.keyid}; {whose} {self.keyid}; see uplink.station_key")
        if head_of is None or head_of != said.head:
            raise Corrupt(f"a receipt for another line {said.seq} than the one on this node's ledger")
        if self.newest is not None and said.seq <= self.newest.payload.seq:
            return False
        self._append(line + b"\n", said.seq)
        self._note(receipt)
        return True

    def _append(self, data: bytes, seq: int) -> None:
        if self._dirty:
            self._disk.truncate(FILE, self._size)
            self._dirty = False
        if self._size + len(data) > FILE_BYTES_MAX:
            self._disk.rename(FILE, f"{FOLDER}/receipts-{seq:012d}.jsonl")
            self._size = 0
            kept = [name for name in self._disk.list(FOLDER) if _FULL.fullmatch(name)]
            for name in kept[:-FILES_MAX]:
                self._disk.unlink(name)
        try:
            file = self._disk.append(FILE)
        except FileNotFoundError:
            file, self._size = self._disk.create(FILE), 0
        try:
            file.write(data)
            file.sync()
        except Transient:
            self._dirty = True
            raise
        finally:
            file.close()
        self._size += len(data)
