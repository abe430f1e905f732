"""A node's folder with evidence in it, made by the node's own parts: real recorder, store, ledger and keys, and a
station that signs receipts. What an export and its verifiers work on in the tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from agent import boot
from agent.config import RecordingSettings
from agent.disk import PosixDisk
from agent.evidence import receipts
from agent.evidence.keys import Key, generate, load
from agent.evidence.package import Exported, Mark, Origin, Request, export
from agent.evidence.records import RecordKind
from agent.evidence.seal import Lock
from agent.evidence.worker import LedgerWorker
from agent.recording.recorder import RecorderWorker
from agent.types import MS, NS, Packet, UtcReading
from tests.fakes.packets import shifted
from tests.fakes.recording_post import SOURCE, RecordingPost

NODE = SOURCE.removeprefix("wardpost/")
UTC_0 = 1_700_000_000 * NS
"""UTC of the first access unit that `encoded` and `of_file` make."""


class Station:
    """Signs receipts for what it is shown, as the station does."""

    def __init__(self, name: str = "hq") -> None:
        self.key = generate()
        self.name = name
        self._prev = "0" * 64

    def receipt(self, seq: int, head: str, utc_ns: int, node: str = NODE) -> str:
        line = receipts.make(
            station=self.name,
            node=node,
            seq=seq,
            head=head,
            time=UtcReading(utc_ns, 50 * MS, "chrony"),
            prev=self._prev,
            key=self.key,
        )
        self._prev = hashlib.sha256(line).hexdigest()
        return line.decode()


class EvidencePost:
    """A node that records, keeps its ledger, and hears from its station. Everything real but the clock."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: RecordingSettings | None = None,
        seal: X25519PublicKey | None = None,
        node: str = NODE,
    ) -> None:
        """`seal`: the station's key, to which the footage is sealed; `node`: site and id."""
        folder.mkdir(exist_ok=True)
        self.node = node
        self.folder = folder
        self.disk = PosixDisk(folder)
        self.post = RecordingPost(
            self.disk,
            folder,
            source=f"wardpost/{node}",
            **({} if settings is None else {"settings": settings}),  # type: ignore[arg-type]
            **({} if seal is None else {"recorder": partial(RecorderWorker, lock=partial(Lock, seal))}),  # type: ignore[arg-type]
        ).boot()
        self.station = Station()
        self.ledger, self.book, problem = boot.open_ledger(self.disk, self.post.store, self.post.clock, node)
        assert not problem
        self.worker = LedgerWorker(ledger=self.ledger, receipts=self.book, journal=self.post.store)
        self.worker.open()
        self.settle()

    @property
    def key(self) -> Key:
        return load(self.disk, "node")[-1]

    def settle(self) -> None:
        """What waits goes onto the ledger."""
        self.worker.notify()
        self.worker.step(self.post.now())

    def hear(self) -> None:
        """The station has everything, and says so."""
        self.settle()
        head = self.ledger.head_of(self.ledger.seq)
        assert head is not None
        utc_ns = UTC_0 + self.post.clock.boot_ns() - 1000 * NS
        self.worker.receipt(self.station.receipt(self.ledger.seq, head, utc_ns, self.node))
        self.settle()

    def feed(self, packets: Iterable[Packet], *, receipt_every: int = 0) -> None:
        """Records; after each so many packets the station is heard."""
        for n, packet in enumerate(packets, 1):
            self.post.feed([packet])
            self.settle()
            if receipt_every and n % receipt_every == 0:
                self.hear()

    def seal(self) -> None:
        """Ends the file in progress, and lets the ledger and the station know."""
        self.post.recorder.close()
        self.hear()

    # -- Witness ------------------------------------------------------------------------------------------------------

    def extraction(self, body: bytes) -> None:
        self.post.store.note(RecordKind.EXTRACTION, body, urgent=True)
        self.settle()

    def wait(self) -> bool:
        return False

    def export(
        self,
        output: Path,
        start_s: float = 0,
        end_s: float = 60,
        *,
        signed: bool = True,
        witnessed: bool = True,
        who: str = "Lt. Tran",
        reason: str = "case 12/2026",
        mark: Mark | None = None,
    ) -> Exported:
        return export(
            disk=self.disk,
            catalog=self.post.store,
            origin=Origin(self.node, "School gate", "camera of the post"),
            request=Request(UTC_0 + round(start_s * NS), UTC_0 + round(end_s * NS), who, reason),
            output=output,
            clock=self.post.clock,
            signer=self.key if signed else None,
            witness=self if witnessed else None,
            mark=mark,
        )


def laps(packets: tuple[Packet, ...], seconds: float, count: int) -> Iterable[Packet]:
    """The same stretch again and again, one after the other."""
    for lap in range(count):
        yield from shifted(packets, round(lap * seconds * NS))
