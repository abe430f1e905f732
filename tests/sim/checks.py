"""What must hold after whatever has happened: the invariants of DESIGN.md as functions of a settled world.

Each one raises Broken with what it found. Those that can be judged at any moment (6) are called while the world runs.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from agent import wire
from agent.config import fingerprint
from agent.evidence.chain import check as check_ledger
from agent.evidence.keys import load, public_keys
from agent.evidence.receipts import FILE as RECEIPTS
from agent.recording.coverage import RECORDED, Now, Stretch, coverage
from agent.recording.fragments import scan
from agent.recording.index import FOLDER
from agent.recording.timeline import Timeline
from agent.reporter import PENDING_EVENTS_MAX
from agent.station.db.engine import FILE
from agent.station.orders import Order, OrderBook
from agent.store.store import Store
from agent.types import NS, Cause, TimeAnchor
from tests.fakes.database import engine_in

if TYPE_CHECKING:
    from tests.sim.world import World

MOMENT_NS = NS // 5  # the product calls shorter holes jitter
AGE_SLACK_S = 1.0  # of true time, in which nobody measures an age


class Broken(AssertionError):  # noqa: N818  (named for what it is)
    """An invariant does not hold."""


@dataclass(slots=True)
class Promises:
    """What the node and the station have said, seen from outside. Grows only."""

    committed: dict[tuple[str, int], str] = field(default_factory=dict)  # (epoch, sequence) -> id
    receipted: set[tuple[str, int]] = field(default_factory=set)
    sent: dict[tuple[str, int], str] = field(default_factory=dict)
    anchors: set[TimeAnchor] = field(default_factory=set)
    sealed: dict[str, str] = field(default_factory=dict)  # segment -> sha256 of its newest row
    condemned: dict[str, str] = field(default_factory=dict)  # segment -> reason
    holds: set[str] = field(default_factory=set)  # asked for and confirmed
    let_go: list[str] = field(default_factory=list)  # held footage that was given up all the same
    held_s: dict[str, tuple[float, float]] = field(default_factory=dict)  # hold -> what it keeps, in true time
    born_s: dict[str, float] = field(default_factory=dict)  # boot -> the true time of its moment 0
    keep_s: float = 0.0  # the age limit that the node runs with
    too_young: list[str] = field(default_factory=list)  # given up for an age that it did not have
    unlinked: list[str] = field(default_factory=list)  # files that were removed while they were being written
    ordered: dict[str, str] = field(
        default_factory=dict
    )  # command that the station has taken -> what is to become of it
    configs: set[str] = field(default_factory=set)  # fingerprints of the settings that a life was started with
    unwritten: Unwritten = field(default_factory=lambda: Unwritten())  # noqa: PLW0108  (defined below)
    broken: list[str] = field(default_factory=list)

    def commit(self, epoch: str, sequence: int, event_id: str) -> None:
        """The store returned from a commit with this."""
        self._same(self.committed, epoch, sequence, event_id, "committed")

    def publish(self, topic: str, payload: bytes) -> None:
        """A client handed this to the broker."""
        address = wire.parse_topic(topic)
        if address.channel == "event":
            self._event(payload)
        elif address.channel == "events":
            for part in wire.decode_batch(payload):
                self._event(part)
        elif address.channel == "ack":
            receipt = wire.decode(payload, wire.Receipt)
            for low, high in [*receipt.stored, (1, receipt.head)]:
                self.receipted |= {(receipt.epoch, sequence) for sequence in range(low, high + 1)}

    def _event(self, payload: bytes) -> None:
        event = wire.decode(payload, wire.CloudEvent)
        self._same(self.sent, event.epoch, event.sequence, event.id, "sent")

    def _same(self, known: dict[tuple[str, int], str], epoch: str, sequence: int, event_id: str, how: str) -> None:
        before = known.setdefault((epoch, sequence), event_id)
        if before != event_id:
            self.broken.append(f"sequence {sequence} was {how} for {before} and again for {event_id}")


@dataclass(frozen=True, slots=True)
class Unwritten:
    """What happened under a release that had no ledger, and so is not on it."""

    events: frozenset[int] = frozenset()  # sequence numbers
    segments: frozenset[str] = frozenset()
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class AtStation:
    """One event as the station has it, read from its file."""

    epoch: str
    sequence: int
    id: str
    body: wire.CloudEvent


@dataclass(frozen=True, slots=True)
class StationFile:
    """What a station's database has at one moment."""

    events: list[AtStation]  # in order of arrival
    carried: set[tuple[str, int]]  # which sequence numbers brought a line of a ledger
    lines: list[bytes]  # of the ledger
    alarms: list[tuple[str, int]]


def station_file(folder: Path) -> StationFile:
    """Reads it, once for all that is asked: whoever opens it reads its many tables' schema first."""
    if not (folder / FILE).exists():
        return StationFile([], set(), [], [])
    with closing(sqlite3.connect(folder / FILE)) as db:
        events = db.execute(
            "select epoch, sequence, id, body from event join stream using (stream) order by event.n"
        ).fetchall()
        return StationFile(
            [AtStation(row[0], row[1], row[2], wire.decode(bytes(row[3]), wire.CloudEvent)) for row in events],
            set(db.execute("select epoch, sequence from carried join stream using (stream)")),
            [bytes(body) for (body,) in db.execute("select body from line order by seq, n")],
            db.execute("select what, count from alarm").fetchall(),
        )


def at_station(folder: Path) -> list[AtStation]:
    """Everything the station has, in order of arrival."""
    return station_file(folder).events


def carried(folder: Path) -> set[tuple[str, int]]:
    """Which sequence numbers brought the station a line of a ledger."""
    return station_file(folder).carried


def outbox(store: Store) -> dict[int, str]:
    """Undelivered events of a node: sequence -> id. Without those that the station has and that are about to go."""
    found = dict(store._query("select sequence, id from outbox join event using (sequence)"))
    return {s: found[s] for s in found.keys() - {sequence for _, sequence in store._acknowledged}}


# -- 1: events ---------------------------------------------------------------------------------------------------------


def check_1_committed_events_are_kept(world: World) -> None:
    """Every committed event is in the outbox or at the station; what was receipted is at the station."""
    node = world.node
    stored = {(event.epoch, event.sequence): event.id for event in at_station(world.station_folder)}
    waiting = {(node.store.epoch, sequence): event_id for sequence, event_id in outbox(node.store).items()}
    shed = _shed(node.store)
    on_record = {
        (node.store.epoch, s): i for s, i in node.store._query("select sequence, id from event where kind <> 'record'")
    }
    for key, event_id in (world.promises.committed | on_record).items():
        where = stored.get(key) or waiting.get(key)
        if where is None and not (key[0] == node.store.epoch and key[1] in shed):
            raise Broken(f"event {key[1]} was committed and is neither in the outbox nor at the station")
        if where is not None and where != event_id:
            raise Broken(f"event {key[1]} was committed as {event_id} and is now {where}")
    missing = world.promises.receipted - stored.keys() - carried(world.station_folder)
    if missing:
        raise Broken(f"the station sent receipts for events it does not have: {sorted(s for _, s in missing)[:10]}")


def check_1_the_station_has_each_event_once(world: World) -> None:
    """Delivered any number of times, stored once."""
    events = at_station(world.station_folder)
    for what, found in (
        ("id", Counter(event.id for event in events)),
        ("sequence", Counter(f"{event.epoch} {event.sequence}" for event in events)),
    ):
        twice = [key for key, count in found.items() if count > 1]
        if twice:
            raise Broken(f"the station has {what} {twice[0]} {found[twice[0]]} times")


def check_1_everything_has_arrived(world: World) -> None:
    """With a network and time enough the outbox runs empty."""
    left = outbox(world.node.store)
    if left:
        raise Broken(f"{len(left)} events are still in the outbox, the first is {min(left)}: {world.where()}")


def check_incidents_end(world: World) -> None:
    """Every incident has ended that an earlier life began, or that is not going on by the story; at the station, too."""
    phases: dict[str, set[str]] = {}
    kinds: dict[str, str] = {}
    current: dict[str, bool] = {}
    for event in at_station(world.station_folder):
        if event.body.data.jpeg is None:
            phases.setdefault(event.body.data.incident, set()).add(event.body.data.phase)
            kinds[event.body.data.incident] = event.body.type
            current[event.body.data.incident] = event.body.session == world.node.store.session
    for incident, seen in phases.items():
        if "ended" not in seen and not (current[incident] and kinds[incident] in world.going_on):
            raise Broken(f"incident {incident} ({kinds[incident]}) started and never ended")


def _shed(store: Store) -> set[int]:
    found: set[int] = set()
    for first, last in store._query("select first_sequence, last_sequence from shed"):
        found |= set(range(first, last + 1))
    return found


# -- 2 and 3: footage --------------------------------------------------------------------------------------------------


def check_2_a_row_is_a_whole_file(world: World) -> None:
    """A sealed row's file is there, with the size and hash of the row, and every fragment in it verifies."""
    disk = world.disk
    for row in world.node.store.segments():
        try:
            with disk.open(row.name) as file:
                data = file.read()
                file.seek(0)
                found = scan(file)
        except FileNotFoundError:
            raise Broken(f"{row.name} has a row and no file") from None
        if len(data) != row.bytes or hashlib.sha256(data).hexdigest() != row.sha256:
            raise Broken(f"{row.name}: {len(data)} bytes on the disk are not the {row.bytes} that the row promises")
        if found.problem or len(found.fragments) != row.fragments:
            raise Broken(f"{row.name}: {len(found.fragments)} of {row.fragments} fragments verify: {found.problem}")


def check_2_sealed_footage_stays(world: World) -> None:
    """What was sealed is as it was, until policy deletes it."""
    rows = {row.name: row.sha256 for row in world.node.store.segments()}
    for name, reason in world.promises.condemned.items():
        if reason not in {"budget", "age", "disk full"}:
            raise Broken(f"{name} was sealed and then given up: {reason}")
    for name, sha256 in world.promises.sealed.items():
        if name not in world.promises.condemned and rows.get(name) != sha256:
            raise Broken(f"{name} was sealed and is now {'changed' if name in rows else 'gone'}")


def condemned(world: World, store: Store, names: Sequence[str], reason: str) -> None:
    """Retention is about to give these segments up: is it allowed to? Judged by true time, whatever the clocks say."""
    promises = world.promises
    promises.condemned.update(dict.fromkeys(names, reason))
    holds = [hold for hold in store.holds() if not hold.released and hold.id in promises.held_s]
    for row in store.segments():
        if row.name not in names:
            continue
        born_s = promises.born_s[row.boot_id]
        start_s, end_s = born_s + row.start_ns / NS, born_s + row.end_ns / NS
        for hold in holds:
            from_s, until_s = promises.held_s[hold.id]
            if start_s + MOMENT_NS / NS < until_s and end_s - MOMENT_NS / NS > from_s:
                promises.let_go.append(f"{row.name} was given up ({reason}); {hold.id} wants it")
        age_s = world.now_s - end_s
        if reason == "age" and age_s < promises.keep_s - AGE_SLACK_S:
            promises.too_young.append(
                f"{row.name} was given up for its age of {age_s:.1f} s; {promises.keep_s:.0f} s may be kept"
            )


def open_orders(world: World) -> list[str]:
    """Commands that the station has taken on and that have not been answered."""
    if not world.promises.ordered:
        return []
    states = {one.id: one.state for one in orders(world)}
    return [name for name in world.promises.ordered if states.get(name) in (None, "waiting")]


def orders(world: World) -> list[Order]:
    """What the station's book says, the newest first."""
    book = OrderBook(engine_in(world.station_folder))
    book.open()
    try:
        return book.of(world.config.node.id)
    finally:
        book.close()


def check_orders_are_honoured(world: World) -> None:
    """What the station took on for a node that was dark is done when the node is back, in the order of asking."""
    states = {one.id: one.state for one in orders(world)} if world.promises.ordered else {}
    holds = {hold.id: "released" if hold.released else "held" for hold in world.node.store.holds()}
    for name, wanted in world.promises.ordered.items():
        if states.get(name) != "done":
            raise Broken(f"order {name} is {states.get(name, 'forgotten')} at the station; it was taken on")
        if wanted and holds.get(name) != wanted:
            raise Broken(f"hold {name} is {holds.get(name, 'unknown')} at the node; it was to be {wanted}")


def check_2_only_old_footage_goes_for_its_age(world: World) -> None:
    """However the wall clock is set: what is given up as too old is truly older than the limit."""
    if world.promises.too_young:
        raise Broken(world.promises.too_young[0])


def check_2_the_open_file_stays(world: World) -> None:
    """The file that is being written is never removed."""
    if world.promises.unlinked:
        raise Broken(f"{world.promises.unlinked[0]} was removed while it was being written")


def check_2_held_footage_stays(world: World) -> None:
    """A hold that was confirmed is known after any cut, and nothing that it covers is given up."""
    lost = world.promises.holds - {hold.id for hold in world.node.store.holds()}
    if lost:
        raise Broken(f"holds that nobody knows any more: {sorted(lost)}")
    if world.promises.let_go:
        raise Broken(world.promises.let_go[0])


def check_2_no_file_without_a_row(world: World) -> None:
    """But for the one that is being written."""
    store = world.node.store
    rows = {row.name for row in [*store.segments(), *store.segments(garbage=True)]}
    writing = world.writing()
    left = [name for name in world.disk.list(FOLDER) if name not in rows and name != writing]
    if left:
        raise Broken(f"files that nobody knows of: {left}")


def check_3_a_cut_costs_one_fragment(world: World) -> None:
    """Footage that the camera gave and that is not on the disk: one fragment, and what was in the queue at the cut."""
    for loss in world.losses:
        if loss.lost_s > loss.bound_s:
            raise Broken(
                f"{loss.lost_s:.2f} s of footage lost by one cut; {loss.bound_s:.2f} s are allowed"
                f" ({loss.queue_s:.2f} s were in the queue)"
            )


def check_3_recording_goes_on(world: World) -> None:
    """Whatever has happened, in the end the camera is recorded again."""
    if not world.recorder_state().recording:
        raise Broken(f"nothing is recorded: {world.where()}")


# -- 4 and 5: time -----------------------------------------------------------------------------------------------------


def life_of(world: World) -> list[Stretch]:
    """The coverage of the node's whole life, by the product's own function on the product's own rows."""
    store, clock = world.node.store, world.clock
    timeline = Timeline(store.anchors())
    first = store.sessions()[0]
    start = timeline.utc(first.boot_id, first.start_ns)
    end = timeline.utc(clock.boot_id, clock.boot_ns())
    if start is None or end is None:
        raise Broken("the first or the last moment of the node's life cannot be placed in UTC")
    segments = store.segments()
    writing = world.recorder_state().writing
    if writing is not None:
        segments.append(writing)
    return coverage(
        start.utc_ns,
        end.utc_ns,
        sessions=store.sessions(),
        segments=segments,
        gaps=store.gaps(),
        tombstones=store.tombstones(),
        timeline=timeline,
        now=Now(clock.boot_id, clock.boot_ns()),
    )


def check_4_every_second_is_explained(world: World) -> None:
    """The stretches follow each other without hole or overlap; nothing is unknown but what is being recorded now."""
    life = life_of(world)
    for one, following in pairwise(life):
        if one.end_utc_ns != following.start_utc_ns:
            raise Broken(f"the account has a hole or an overlap: {one} {following}")
    for stretch in life:
        now = stretch is life[-1] and stretch.seconds <= world.unwritten_s_max()
        if stretch.what == Cause.UNKNOWN and not now and stretch.end_utc_ns - stretch.start_utc_ns > MOMENT_NS:
            raise Broken(f"{stretch.seconds:.2f} s of the node's life are unknown: {stretch}")


def check_4_recorded_means_footage(world: World) -> None:
    """What the account calls recorded is on the disk, second for second."""
    claimed_s = sum(stretch.seconds for stretch in life_of(world) if stretch.what == RECORDED)
    on_disk_s = 0.0
    for name in world.disk.list(FOLDER):
        with world.disk.open(name) as file:
            fragments = scan(file).fragments
        if fragments:
            on_disk_s += (max(one.end_ns for one in fragments) - min(one.start_ns for one in fragments)) / NS
    if abs(claimed_s - on_disk_s) > 0.2 * max(len(world.node.store.segments()), 1):
        raise Broken(f"{claimed_s:.2f} s are called recorded, {on_disk_s:.2f} s are on the disk")


def check_4_nothing_behind_a_curtain(world: World) -> None:
    """While recording was switched off for privacy there is no footage, whatever the wall clock did."""
    for row in world.node.store.segments():
        with world.disk.open(row.name) as file:
            for fragment in scan(file).fragments:
                for boot_id, start_ns, end_ns in world.curtains:
                    seen_ns = min(fragment.end_ns, end_ns) - max(fragment.start_ns, start_ns)
                    if boot_id == row.boot_id and seen_ns > MOMENT_NS:
                        raise Broken(f"{row.name} shows {seen_ns / NS:.2f} s from behind a curtain")


def check_5_records_are_not_rewritten(world: World) -> None:
    """A time anchor once written is there for ever."""
    now = set(world.node.store.anchors())
    gone = world.promises.anchors - now
    if gone:
        raise Broken(f"time anchors have gone or were changed: {sorted(map(str, gone))[:3]}")
    world.promises.anchors |= now


# -- evidence ----------------------------------------------------------------------------------------------------------


def check_the_ledger_tells_everything_once(world: World) -> None:
    """The chain holds from the first line; each fact of this store is on the ledger or in its journal, once, in order;
    the station has the same lines, and nothing to complain of.
    """
    disk, store = world.disk, world.node.store
    names = [name for name in disk.list("ledger") if not name.startswith("ledger/receipts")]
    lines = [line for name in names for line in disk.content(name).split(b"\n")[:-1]]
    receipts = disk.content(RECEIPTS).split(b"\n")[:-1] if RECEIPTS in disk.list("ledger") else []
    node = f"{world.config.node.site}/{world.config.node.id}"
    verdict = check_ledger(lines, keys=public_keys(load(disk, "node")), receipts=receipts, node=node, whole=True)
    if not verdict.ok:
        raise Broken(f"the ledger is not whole: {verdict.findings[:3]}")
    mine = [line.payload for line in verdict.lines if line.payload.epoch == store.epoch]
    unwritten = world.promises.unwritten
    numbers = [said.number for said in mine if said.number is not None]
    waiting = store.facts(1 << 30)
    numbers += [fact.number for fact in waiting if fact.number is not None]
    if any(b <= a for a, b in pairwise(numbers)):
        raise Broken(f"facts are on the ledger twice or out of order: {numbers}")
    told = [(said.kind, said.body) for said in mine] + [(f.kind, json.loads(f.body)) for f in waiting]
    newest = {body["name"]: body["sha256"] for kind, body in told if kind == "segment"}
    for row in store.segments():
        if newest.get(row.name) != row.sha256 and row.name not in unwritten.segments:
            raise Broken(f"{row.name} is not on the ledger as it is in the index")
    on_ledger = Counter(body["sequence"] for kind, body in told if kind == "event")
    rows = {s for (s,) in store._query("select sequence from event where kind not in ('record', 'thumbnail')")}
    if set(on_ledger) != rows - unwritten.events or max(on_ledger.values(), default=1) > 1:
        raise Broken(f"events on the ledger {sorted(on_ledger.elements())}, in the store {sorted(rows)}")
    starts = [body["session"] for kind, body in told if kind == "start"]
    if starts != sorted(set(starts)) or starts[-1:] != [store.session]:
        raise Broken(f"starts on the ledger: {starts}; this is session {store.session}")
    settings = [(body["before"], body["sha256"]) for kind, body in told if kind == "config"]
    if [sha256 for _, sha256 in settings[:-1]] != [before for before, _ in settings[1:]]:
        raise Broken(f"changes of the settings on the ledger do not follow each other: {settings}")
    if not {sha256 for _, sha256 in settings} <= world.promises.configs:
        raise Broken(f"the ledger tells of settings that nobody made: {settings}")
    if not settings or settings[-1][1] != fingerprint(world.running_config):
        raise Broken(f"the node runs with other settings than those on its ledger: {settings}")
    gone = {part["name"] for kind, body in told if kind == "deletion" for part in body["segments"]}
    deleted = sum(tombstone.segments for tombstone in store.tombstones())
    if len(gone) != deleted - unwritten.deleted:
        raise Broken(f"{len(gone)} deletions on the ledger, tombstones tell of {deleted}")
    station = station_file(world.station_folder)
    # With an empty outbox nothing is on its way but facts that are not on the ledger yet: all lines must be there.
    if station.alarms or station.lines != lines:
        raise Broken(f"the station has {len(station.lines)} lines, the ledger {len(lines)}; alarms: {station.alarms}")


# -- 6: bounds ---------------------------------------------------------------------------------------------------------


def check_6_bounds(world: World) -> None:
    """Queues, rows and disk: cheap enough to ask every few steps."""
    config, node = world.config, world.node
    rows = node.store.outbox_rows
    if rows > config.store.outbox_rows_max:
        raise Broken(f"{rows} outbox rows; {config.store.outbox_rows_max} are allowed")
    state = world.recorder_state()
    if state.queue_s > config.recording.queue_s_max + 2 * config.recording.fragment_s:
        raise Broken(f"{state.queue_s:.1f} s of footage in the recorder's queue")
    if world.reporter_waiting() > PENDING_EVENTS_MAX:
        raise Broken(f"{world.reporter_waiting()} events wait in memory")


def check_6_the_outbox_counts_right(world: World) -> None:
    """The number in memory is the number of rows."""
    rows = len(outbox(world.node.store))
    if rows != world.node.store.outbox_rows:
        raise Broken(f"{rows} rows in the outbox, the store believes {world.node.store.outbox_rows}")
    orphans = list(world.node.store._query("pragma foreign_key_check"))
    if orphans:
        raise Broken(f"rows that refer to rows that are gone: {orphans[:3]}")  # the store does not enforce them: speed


def check_6_the_disk_budget(world: World) -> None:
    """Sealed footage stays within the budget, give or take the segment that was sealed last."""
    rows = world.node.store.segments()
    total = sum(row.bytes for row in rows)
    largest = max((row.bytes for row in rows), default=0)
    budget = round(world.config.recording.budget_gb * 1e9)
    if total > budget + 2 * largest:
        raise Broken(f"{total} bytes of footage, the budget is {budget}")


def check_6_sequences_are_never_reused(world: World) -> None:
    """One number, one event, for ever."""
    for event in at_station(world.station_folder):
        world.promises._same(world.promises.sent, event.epoch, event.sequence, event.id, "stored")
    if world.promises.broken:
        raise Broken(world.promises.broken[0])


SETTLED: tuple[Callable[[World], None], ...] = (
    check_1_committed_events_are_kept,
    check_1_the_station_has_each_event_once,
    check_1_everything_has_arrived,
    check_incidents_end,
    check_2_a_row_is_a_whole_file,
    check_2_sealed_footage_stays,
    check_2_held_footage_stays,
    check_2_only_old_footage_goes_for_its_age,
    check_2_the_open_file_stays,
    check_orders_are_honoured,
    check_2_no_file_without_a_row,
    check_3_a_cut_costs_one_fragment,
    check_3_recording_goes_on,
    check_4_every_second_is_explained,
    check_4_recorded_means_footage,
    check_4_nothing_behind_a_curtain,
    check_5_records_are_not_rewritten,
    check_the_ledger_tells_everything_once,
    check_6_bounds,
    check_6_the_outbox_counts_right,
    check_6_the_disk_budget,
    check_6_sequences_are_never_reused,
)
"""What must hold in a world that has come to rest: network there, nobody in view."""


def all_problems(world: World) -> list[str]:
    """The names of all checks that fail, each with what it found."""
    found = []
    for check in SETTLED:
        try:
            check(world)
        except Broken as broken:
            found.append(f"{check.__name__}: {broken}")
    return found


def summary(life: list[Stretch]) -> str:
    """A life on one line, for a report."""
    return json.dumps([[stretch.what, round(stretch.seconds, 2)] for stretch in life])
