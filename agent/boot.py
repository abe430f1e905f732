"""From whatever the last life left behind to a node that may start: the boot path is the recovery path.

Each function is idempotent, so that a second power cut during recovery is one more recovery.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.clock import Clock
from agent.disk import Disk
from agent.errors import ConfigError, Corrupt, Transient
from agent.evidence import keys
from agent.evidence.ledger import FOLDER as LEDGER_FOLDER
from agent.evidence.ledger import Ledger
from agent.evidence.receipts import ReceiptBook
from agent.recording.recover import Recovery
from agent.store import rebuild
from agent.store.store import SessionRow, Store
from agent.types import NS, Event, Kind, NewId, Phase, Priority

STORE_NAME = "wardpost.db"
ESCALATION = "escalation/state.json"  # of deploy/wardpost-escalate
ESCALATION_BYTES_MAX = 16 * 1024
QUARANTINE_FILES_MAX = 20
_SET_ASIDE = re.compile(rf"{re.escape(STORE_NAME)}\.corrupt-[0-9]{{6,}}")

log = logging.getLogger(__name__)


def require_store(folder: Path) -> None:
    """Raises ConfigError for a folder without a node's store, which a command was pointed at."""
    if not (folder / STORE_NAME).is_file():
        raise ConfigError(f"{folder}: there is no {STORE_NAME} in it; is this the node.data of the configuration?")


def open_store(make: Callable[[], Store], disk: Disk, *, node: str = "") -> tuple[Store, str | None]:
    """Opens the node's store; a damaged one is set aside and a new one begun, with a new epoch.

    So is one that knows less than the ledger of `node` (site/node): damage to SQLite's write-ahead log makes it go back
    in time without a word, and numbers would be used again that the station knows.

    Returns the store and, when one was set aside, a sentence that says so. Raises InUse, Transient or ConfigError.
    """
    store = make()
    try:
        store.open()
        require_newest(store, disk, node)
    except Corrupt as error:
        store.close()
        moved = quarantine(disk, STORE_NAME, "-wal", "-shm")
        log.critical("%s; set aside as %s, the index is rebuilt from the footage", error, moved)
        store = make()
        store.open()
        return store, f"The node's database was damaged and has been set aside as {moved}: {error}"
    return store, None


def require_newest(store: Store, disk: Disk, node: str) -> None:
    """Raises Corrupt when the ledger of `node` (site/node) tells of facts that this open store must have committed and
    does not know. To be asked before anything is added to the store: the next fact would take a number that the ledger
    has, and hide the loss.
    """
    if not node:
        return
    epoch, number = rebuild.newest_fact(disk, LEDGER_FOLDER, keys.public_keys(keys.load(disk, "node")), node)
    if epoch == store.epoch and number > store.newest_fact:
        raise Corrupt(
            f"{disk.path(STORE_NAME)}: it has lost what was committed last: the ledger tells of {number} facts, it"
            f" knows {store.newest_fact}"
        )


def open_ledger(
    disk: Disk, store: Store, clock: Clock, node: str, station: bytes | None = None
) -> tuple[Ledger, ReceiptBook, str]:
    """Opens the ledger behind the last line that was ever used, and hands over what a cut kept from being handed over.

    `node` is site/node; `station`: the station's raw public key, None: that of the first receipt is believed. Makes the
    node's key at the first start. Returns also what headquarters should hear: a sentence about lines that are lost, or
    empty. Raises Transient.
    """
    pairs = keys.load_or_make(disk, "node")
    book = ReceiptBook(disk, node, station)
    book.open()
    ledger = Ledger(disk, clock=clock, node=node, keys=pairs)
    newest = 0 if book.newest is None else book.newest.payload.seq
    repair = ledger.open(store.ledger_mark(), epoch=store.epoch, receipted=newest)
    store.hand_over(repair.resend)
    return ledger, book, repair.problem


def restore_index(disk: Disk, store: Store, ledger: Ledger, receipts: ReceiptBook, source: str) -> str:
    """Gives a store that nobody has lived with what the one before it knew; of a first start there is nothing.

    Idempotent: a cut before the end leaves a store that nobody has lived with. Run it behind `open_ledger` and before
    `recover`. Returns a sentence for headquarters, or empty. Raises Transient.
    """
    if not store.is_new:
        return ""
    names = sorted(name for name in _names(disk) if _SET_ASIDE.fullmatch(name))
    found = rebuild.find(
        files=[disk.path(name) for name in names],
        disk=disk,
        ledger=LEDGER_FOLDER,
        public=keys.public_keys(keys.load(disk, "node")),
        source=source,
        receipted=0 if receipts.newest is None else receipts.newest.payload.seq,
    )
    for name in names:  # SQLite makes one to read a write-ahead log, and may leave it
        disk.unlink(f"{name}-shm")
    store.restore(found)
    if not found.events and not any(found.rows.values()):
        return ""
    sessions = len(found.rows.get("session", []))
    sentence = f"The index was rebuilt: {sessions} sessions, {found.waiting} events sent again under their old ids."
    log.warning("%s Ledger stands at %d; damaged tables: %s", sentence, ledger.seq, ", ".join(found.unread) or "none")
    return sentence


def quarantine(disk: Disk, name: str, *companions: str) -> str:
    """Renames a file (and its companions, by suffix) out of the way, keeping it for examination. Returns the new name.

    At most QUARANTINE_FILES_MAX are kept; the oldest go first, so that a card that rots cannot fill itself.
    """
    kept = sorted(n for n in _names(disk) if n.startswith(f"{name}.corrupt-") and not n.endswith(companions))
    for old in kept[: max(len(kept) + 1 - QUARANTINE_FILES_MAX, 0)]:
        for suffix in ("", *companions):
            disk.unlink(old + suffix)
    number = int(kept[-1].rsplit("-", 1)[1]) + 1 if kept else 1
    new = f"{name}.corrupt-{number:06d}"
    # The database itself goes last: a cut in between leaves a file that is still recognised as damaged or as new.
    for suffix in (*companions, ""):
        if disk.path(name + suffix).exists():
            disk.rename(name + suffix, new + suffix)
    return new


def _names(disk: Disk) -> list[str]:
    try:
        return [entry.name for entry in disk.path("").iterdir()]
    except OSError as error:
        raise Transient(f"cannot list {disk.path('')}: {error}; check the disk") from error


def notices(
    before: SessionRow | None,
    found: Recovery,
    damage: str | None,
    clock: Clock,
    new_id: NewId,
    *,
    ledger: str = "",
    forced: Mapping[str, str] | None = None,
) -> list[Event]:
    """What headquarters should hear about this start: how the last life ended, and what recovery had to mend.

    `forced`: see `forced_reboots`.
    """
    sentences = [_how_it_ended(before, clock, forced or {})]
    if found.sealed:
        seconds = sum(segment.end_ns - segment.start_ns for segment in found.sealed) / NS
        torn = f", {found.cut_bytes} torn bytes cut off" if found.cut_bytes else ""
        sentences.append(f"Recovered {len(found.sealed)} unfinished recording(s) of {seconds:.0f} s{torn}.")
    told = [("node", Priority.NOTICE, " ".join(sentences))]
    if damage is not None:
        told.append(("storage", Priority.ALERT, damage))
    if ledger:
        told.append(("storage", Priority.ALERT, ledger))
    harmed = [*(name for name, _ in found.quarantined), *found.missing, *found.resealed, *(n for n, _ in found.failed)]
    if harmed:
        told.append(("storage", Priority.ALERT, f"Footage was found damaged or missing: {', '.join(harmed[:5])}"))
    return [
        Event(
            incident=new_id(), kind=Kind(kind), phase=Phase.ENDED, boot_ns=clock.boot_ns(), priority=priority,
            summary=sentence, since_ns=clock.boot_ns(),
        )
        for kind, priority, sentence in told
    ]  # fmt: skip


def forced_reboots(disk: Disk) -> dict[str, str]:
    """Boots that wardpost-escalate has ended: boot id -> why. None where it could not write that down."""
    try:
        told = json.loads(disk.path(ESCALATION).read_bytes()[:ESCALATION_BYTES_MAX])
        return {str(one["boot"]).replace("-", ""): " ".join(str(one["why"]).split())[:300] for one in told["reboots"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _how_it_ended(before: SessionRow | None, clock: Clock, forced: Mapping[str, str]) -> str:
    if before is None:
        return "First start of this post."
    if before.boot_id != clock.boot_id and before.boot_id in forced:
        return f"Started again: the machine was rebooted, because {forced[before.boot_id]}."
    if before.stop is not None:
        return f"Started again after a stop ({before.stop})."
    if before.boot_id == clock.boot_id:
        silent_s = (clock.boot_ns() - before.alive_ns) / NS
        return f"Started again: the agent had died, at most {silent_s:.0f} s ago."
    return "Started again after a power cut or a restart of the machine."


def end_left_open(store: Store, clock: Clock) -> list[Event]:
    """The events that end what earlier sessions began: every incident ends, if need be at the next boot."""
    return [
        Event(
            incident=left.data.incident,
            kind=Kind(left.type.removeprefix("wardpost.")),
            phase=Phase.ENDED,
            boot_ns=clock.boot_ns(),
            priority=Priority.NOTICE,
            summary="Ended by a restart of the post; nobody watched how it went on.",
            zones=tuple(left.data.zones),
        )
        for left in store.open_incidents()
    ]
