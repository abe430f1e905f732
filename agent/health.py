"""How the post is: the heartbeat, the sign of life in the store, time anchors, and the watch over free space."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from agent import __version__, wire
from agent.clock import Clock, rfc3339
from agent.errors import WardpostError
from agent.logs import error_line
from agent.machine import Machine
from agent.types import MS, NS, Event, Kind, NewId, Phase, Priority, TimeAnchor, UtcReading

ANCHOR_S = 300.0
STEP_S_MIN = 0.5
"""A wall clock that moved by more against boot time was set, not disciplined: the kernel slews 0.15 s in ANCHOR_S."""
ALIVE_S = 60.0
LOOK_S = 2.0
SPACE_S = 30.0
SIGN_S = {"power": 10.0}
"""How often these signs are looked at, which cost a process on old kernels; the others at every look."""
SIGN_HOLD_S = 10.0
"""A change must last so long to go on record: a link that flaps does not wear out the card."""
SPACE_AGAIN = 1.25
"""Free space must be this much above the floor before the shortage is over: no alert a minute at the edge of it."""

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probes:
    """How to ask each part how it is. Any thread; cheap. May raise anything: that part is null then."""

    camera: Callable[[], wire.CameraState]
    vision: Callable[[], wire.VisionState]
    recording: Callable[[], wire.RecordingState]
    queue: Callable[[], wire.QueueState]
    disk_free_bytes: Callable[[], int]
    release: Callable[[], wire.ReleaseState | None] = lambda: None
    settings: Callable[[], wire.SettingsState | None] = lambda: None
    bell: Callable[[], wire.BellState | None] = lambda: None


class Heartbeats:
    """Makes heartbeats. Called by the uplink's thread, every `health.heartbeat_s`."""

    def __init__(
        self, *, node: str, session: int, clock: Clock, machine: Machine, probes: Probes, clips: str = ""
    ) -> None:
        """`clips`: as `wire.Heartbeat` has it."""
        self._clips = clips
        self._node = node
        self._session = session
        self._clock = clock
        self._machine = machine
        self._probes = probes
        self._model = machine.model()
        self._sick: set[str] = set()

    def __call__(self) -> wire.Heartbeat:
        """One heartbeat. Never raises: a probe that fails is logged once and gives null."""
        clock, machine, probes = self._clock, self._machine, self._probes
        boot_ns, utc = clock.boot_ns(), clock.utc()
        return wire.Heartbeat(
            node=self._node,
            bootid=clock.boot_id,
            session=self._session,
            monons=boot_ns,
            version=__version__,
            model=self._model,
            clock=clock_state(utc),
            camera=self._ask("camera", probes.camera),
            vision=self._ask("vision", probes.vision),
            recording=self._ask("recording", probes.recording),
            queue=self._ask("queue", probes.queue),
            machine=wire.MachineState(
                uptime_s=round(boot_ns / NS, 1),
                temperature_c=self._ask("temperature", machine.temperature_c),
                throttled=self._ask("throttling", machine.throttled),
                diskfreebytes=self._ask("free space", probes.disk_free_bytes),
                memoryavailablebytes=self._ask("memory", machine.memory_available_bytes),
                rssbytes=self._ask("resident memory", machine.rss_bytes),
                load1=self._ask("load", machine.load1),
            ),
            release=self._ask("release", probes.release),
            settings=self._ask("settings", probes.settings),
            bell=self._ask("bell", probes.bell),
            clips=self._clips,
        )

    def _ask(self, name: str, probe: Callable[[], T]) -> T | None:
        try:
            answer = probe()
        except Exception as error:  # noqa: BLE001  (whatever is sick, the heartbeat goes out)
            if name not in self._sick:
                self._sick.add(name)
                log.warning("heartbeat: %s cannot be asked: %s", name, error_line(error))
            return None
        self._sick.discard(name)
        return answer


def clock_state(utc: UtcReading) -> wire.ClockState:
    """A reading of the wall clock as it goes over the wire."""
    errms = None if utc.unc_ns is None else -(-utc.unc_ns // MS)
    return wire.ClockState(utc=rfc3339(utc.utc_ns), errms=errms, source=utc.source)


@dataclass(frozen=True, slots=True)
class ClockFinding:
    """What one look at the clocks found."""

    anchor_due: bool
    moved_ns: int = 0  # by how much the wall clock was set, if it was
    news: str = ""  # one sentence when a person should know


class ClockWatch:
    """Compares the wall clock with boot time. Pure: readings are passed in."""

    def __init__(self) -> None:
        self._offset_ns: int | None = None  # utc - boot at the last anchor
        self._anchored_ns = 0
        self._known: tuple[bool, str] | None = None  # synchronised, source

    def look(self, boot_ns: int, utc: UtcReading) -> ClockFinding:
        """Whether an anchor is due now, and what has happened since the last one."""
        offset_ns = utc.utc_ns - boot_ns
        known = (utc.unc_ns is not None, utc.source)
        if self._offset_ns is None or self._known is None:
            return ClockFinding(anchor_due=True)
        moved_ns = offset_ns - self._offset_ns
        if abs(moved_ns) > STEP_S_MIN * NS:
            at = rfc3339(self._offset_ns + boot_ns)
            return ClockFinding(
                anchor_due=True,
                moved_ns=moved_ns,
                news=f"The clock was set by {moved_ns / NS:+.1f} s, from {at} to {rfc3339(utc.utc_ns)} ({utc.source})",
            )
        if known[0] != self._known[0]:
            words = f"is synchronised now ({utc.source})" if known[0] else "is no longer synchronised"
            return ClockFinding(anchor_due=True, news=f"The clock {words}")
        return ClockFinding(anchor_due=known != self._known or boot_ns - self._anchored_ns >= ANCHOR_S * NS)

    def anchored(self, boot_ns: int, utc: UtcReading) -> None:
        """An anchor with this reading is on the disk."""
        self._offset_ns = utc.utc_ns - boot_ns
        self._anchored_ns = boot_ns
        self._known = (utc.unc_ns is not None, utc.source)


class SignWatch:
    """One thing that may explain a gap later. Pure but for `look`: times are passed in."""

    def __init__(self, look: Callable[[], str | None]) -> None:
        self._look = look
        self._seen: str | None = None
        self._since_ns = 0
        self._turned_ns = 0  # when it last went from well to unwell or back
        self.noted: str | None = None  # as it is on record

    @property
    def since_ns(self) -> int:
        """When that began which `changed` found: it has lasted by then, and coverage asks for its beginning."""
        turned = self.noted is None or bool(self.noted) != bool(self._seen)
        return self._turned_ns if turned else self._since_ns

    def changed(self, now_ns: int) -> str | None:
        """What should be put on record now, because it has lasted; None: nothing."""
        text = self._look()
        if self._seen is None or bool(text) != bool(self._seen):
            self._turned_ns = now_ns
        if text != self._seen:
            self._seen, self._since_ns = text, now_ns
        lasts = now_ns - self._since_ns >= SIGN_HOLD_S * NS
        return text if text is not None and text != self.noted and lasts else None


class Ledger(Protocol):
    """What health writes down: the part of the store that it needs."""

    def alive(self) -> None:
        """See agent.store.store.Store.alive. Raises Transient."""

    def add_anchor(self, anchor: TimeAnchor) -> None:
        """See agent.store.store.Store.add_anchor. Raises Transient."""

    def add_sign(self, what: str, text: str, *, active: bool, boot_ns: int | None = None) -> None:
        """See agent.store.store.Store.add_sign. Raises Transient."""


class HealthWorker:
    """See `agent.worker.Worker`. Outlives a full disk: what could not be written is tried again at the next look."""

    name = "health"
    step_s_max = 20.0

    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        new_id: NewId,
        report: Callable[[Sequence[Event]], None],
        retry_reports: Callable[[], None],
        free_bytes: Callable[[], int],
        free_bytes_min: int,
        signs: Mapping[str, Callable[[], str | None]] | None = None,
    ) -> None:
        """`retry_reports` stores again what the disk refused (agent.reporter); `free_bytes` may raise Transient.

        `signs`: what may explain a gap later, by name: a text while there is something to tell, an empty one while all
        is well, None where it cannot be known. A change that lasts goes on record.
        """
        self._clock = clock
        self._ledger = ledger
        self._new_id = new_id
        self._report = report
        self._retry_reports = retry_reports
        self._free_bytes = free_bytes
        self._free_bytes_min = free_bytes_min
        self._watch = ClockWatch()
        self._signs = {name: SignWatch(look) for name, look in (signs or {}).items()}
        self._due_ns = {"alive": 0, "space": 0} | {f"sign {name}": 0 for name in self._signs}
        self._short: tuple[str, int] | None = None  # incident and start of a shortage
        self._refused: set[str] = set()

    def open(self) -> None:
        self._due_ns = dict.fromkeys(self._due_ns, 0)

    def step(self, now: float) -> float:
        now_ns = round(now * NS)
        self._clocks()
        if self._due("alive", now_ns, ALIVE_S):
            self._try("sign of life", self._ledger.alive)
        if self._due("space", now_ns, SPACE_S):
            self._try("free space", lambda: self._space(now_ns))
        for name, watch in self._signs.items():
            if self._due(f"sign {name}", now_ns, SIGN_S.get(name, 0.0)):
                self._try(f"sign {name}", lambda name=name, watch=watch: self._sign(name, watch, now_ns))  # type: ignore[misc]
        self._retry_reports()
        return now + LOOK_S

    def close(self) -> None:
        self._try("sign of life", self._ledger.alive)

    def _due(self, what: str, now_ns: int, every_s: float) -> bool:
        if now_ns < self._due_ns[what]:
            return False
        self._due_ns[what] = now_ns + round(every_s * NS)
        return True

    def _try(self, what: str, act: Callable[[], None]) -> bool:
        """Does it; a refusal of the world is logged once and forgotten when it works again."""
        try:
            act()
        except WardpostError as error:
            if what not in self._refused:
                self._refused.add(what)
                log.warning("%s: %s", what, error)
            return False
        self._refused.discard(what)
        return True

    def _sign(self, name: str, watch: SignWatch, now_ns: int) -> None:
        text = watch.changed(now_ns)
        if text is not None:
            self._ledger.add_sign(name, text or "well again", active=bool(text), boot_ns=watch.since_ns)
            watch.noted = text

    def _clocks(self) -> None:
        boot_ns, utc = self._clock.boot_ns(), self._clock.utc()
        finding = self._watch.look(boot_ns, utc)
        if not finding.anchor_due:
            return
        anchor = TimeAnchor(self._clock.boot_id, boot_ns, utc.utc_ns, utc.unc_ns, utc.source)
        if not self._try("time anchor", lambda: self._ledger.add_anchor(anchor)):
            return  # still due: the next look finds the same again
        self._watch.anchored(boot_ns, utc)
        if finding.news:
            log.info("%s", finding.news)
            self._report([self._notice(finding.news, boot_ns)])

    def _notice(self, summary: str, boot_ns: int) -> Event:
        """Something that happened at one moment: an incident that ends as it starts."""
        return Event(
            incident=self._new_id(),
            kind=Kind.NODE,
            phase=Phase.ENDED,
            boot_ns=boot_ns,
            priority=Priority.NOTICE,
            summary=summary,
            since_ns=boot_ns,
        )

    def _space(self, now_ns: int) -> None:
        free = self._free_bytes()
        if self._short is None and free < self._free_bytes_min:
            self._short = (self._new_id(), now_ns)
            summary = f"Only {free / 1e6:.0f} MB are free on the data partition; recording may stop"
            self._report([self._storage(Phase.STARTED, now_ns, summary)])
        elif self._short is not None and free >= self._free_bytes_min * SPACE_AGAIN:
            summary = f"{free / 1e6:.0f} MB are free again on the data partition"
            self._report([self._storage(Phase.ENDED, now_ns, summary)])
            self._short = None

    def _storage(self, phase: Phase, now_ns: int, summary: str) -> Event:
        if self._short is None:
            raise AssertionError("only called while space is short")
        incident, since_ns = self._short
        return Event(
            incident=incident,
            kind=Kind.STORAGE,
            phase=phase,
            boot_ns=now_ns,
            priority=Priority.ALERT,
            summary=summary,
            since_ns=since_ns,
        )
