"""Where a node writes everything down: store and ledger, opened on whatever the last life has left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from agent import boot
from agent.assembly.world import World
from agent.clock import Clock, uuid7_maker
from agent.config import Config, fingerprint
from agent.evidence import keys
from agent.evidence.ledger import Ledger
from agent.evidence.receipts import ReceiptBook
from agent.evidence.records import RecordKind
from agent.evidence.worker import LedgerWorker
from agent.recording.recover import recover
from agent.release.worker import notice
from agent.reporter import Reporter
from agent.store.store import Origin, Store
from agent.types import Event, NewId


@dataclass(frozen=True, slots=True)
class Books:
    """Open, repaired, with a session begun. `report_one` and `tell` may raise what the reporter does."""

    store: Store
    chain: Ledger
    receipts: ReceiptBook
    ledger: LedgerWorker
    reporter: Reporter
    origin: Origin
    new_id: NewId
    clock: Clock

    def noting(self, kind: RecordKind) -> Callable[[bytes], None]:
        """Puts a JSON object on the ledger as a record of that kind, soon. What is returned raises Transient."""
        return partial(self.store.note, kind, urgent=True)

    def report_one(self, event: Event) -> None:
        self.reporter([event])

    def tell(self, text: str) -> None:
        """A sentence for headquarters."""
        self.report_one(notice(text, incident=self.new_id(), boot_ns=self.clock.boot_ns()))


def open_books(config: Config, world: World) -> Books:
    """Boots: repairs, recovers footage, ends what the last life left open. Raises ConfigError, Transient, InUse."""
    clock, disk = world.clock, world.disk
    new_id: NewId = uuid7_maker(clock, world.rng.getrandbits)
    origin = Origin(config.node.site, config.node.id, config.node.place)
    name = f"{config.node.site}/{config.node.id}"

    def make_store() -> Store:
        return Store(
            disk.path(boot.STORE_NAME),
            clock=clock,
            new_id=new_id,
            origin=origin,
            outbox_rows_max=config.store.outbox_rows_max,
            event_rows_max=config.store.event_rows_max,
            crash_point=world.crash_point,
        )

    store, damage = boot.open_store(make_store, disk, node=name)
    hq = keys.pinned("uplink.station_key", config.uplink.station_key)
    chain, receipts, torn = boot.open_ledger(disk, store, clock, name, hq)
    torn = f"{torn} {boot.restore_index(disk, store, chain, receipts, origin.source)}".strip()
    found = recover(disk=disk, index=store, clock=clock, source=origin.source)
    before = store.start_session()
    store.note_config(fingerprint(config))
    reporter = Reporter(store)
    reporter(
        [
            *boot.end_left_open(store, clock),
            *boot.notices(before, found, damage, clock, new_id, ledger=torn, forced=boot.forced_reboots(disk)),
        ]
    )
    ledger = LedgerWorker(ledger=chain, receipts=receipts, journal=store)
    store.on_urgent = ledger.notify
    return Books(store, chain, receipts, ledger, reporter, origin, new_id, clock)
