"""The worker that updates the node: fetches, verifies, unpacks beside the running release, switches at a quiet moment,
and decides whether what it runs in is good. Decisions are those of plan.py; acts those of slots.py.

One file of the bundle, or a quarter of a megabyte, in a step: the watchdog is fed all the while. A switch or a rollback
ends the process with NeedsRestart; `wardpost-launch` then has the last word on what starts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from agent import wire
from agent.clock import Clock
from agent.disk import Disk
from agent.errors import Corrupt, NeedsRestart, Transient, WardpostError
from agent.evidence import records
from agent.release import plan
from agent.release.bundle import BUNDLE_BYTES_MAX, NUMBER_MAX, open_bundle, this_architecture, this_python
from agent.release.download import Source, fetch
from agent.release.plan import Act, Candidate, Limits, Phase, Seen, State
from agent.release.slots import FOLDER, RELEASES, Slots
from agent.types import NS, Event, Kind, Priority
from agent.types import Phase as PhaseOfEvent

POLL_S = 1.0
BUSY_S = 0.25
QUIET_S_MAX = 3600.0
"""So long a switch waits for a moment without an incident; then it does not wait any more."""
MEDIA = ("/media/", "/mnt/", "/run/media/")
"""Where a command from afar may look for a bundle: nowhere but on what somebody has plugged in."""

log = logging.getLogger(__name__)


class Update(Struct, frozen=True, kw_only=True):
    """The arguments of the command `update`."""

    id: str
    number: Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
    url: Annotated[str, Meta(min_length=1, max_length=1000)]  # https://..., or the path of a file on a stick
    bytes: Annotated[int, Meta(ge=1, le=BUNDLE_BYTES_MAX)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


@dataclass(frozen=True, slots=True)
class Eyes:
    """How the running release looks at itself. Any thread; quick."""

    frames: Callable[[], bool]
    broker: Callable[[], bool]
    quiet: Callable[[], bool]


class ReleaseWorker:
    """`agent.worker.Worker`. `update` and `local` may be called from any thread."""

    name = "release"
    step_s_max = 120.0  # one read of a slow server, or the sync of one large file on a slow card

    def __init__(
        self,
        *,
        slots: Slots | None,
        running: str,
        disk: Disk,
        clock: Clock,
        public: bytes | None,
        limits: Limits,
        eyes: Eyes,
        sources: Mapping[str, Source],
        bytes_max: int,
        note: Callable[[bytes], None],
        tell: Callable[[str], None],
        reply: Callable[[wire.Reply], None],
        also: Callable[[float], None] = lambda _up_s: None,
    ) -> None:
        """`slots` None: this node was not installed by releases. `running`: the release of this process.

        `note` puts a JSON object on the ledger, `tell` tells headquarters a sentence, `reply` answers a command later.
        `also` is called each second with how long this process is up; it may raise NeedsRestart.
        """
        self._slots, self._running, self._disk, self._clock = slots, running, disk, clock
        self._public, self._limits, self._eyes, self._sources = public, limits, eyes, sources
        self._bytes_max, self._note, self._tell, self._reply, self._also = bytes_max, note, tell, reply, also
        self._lock = threading.Lock()
        self._asked: Update | None = None
        self._job: Iterator[float] | None = None
        self._doing: Update | None = None
        self._progress = ""
        self._started_ns = clock.boot_ns()
        self._staged_s: float | None = None
        self._looked_s = 0.0
        self._restart = ""

    # -- from other threads -------------------------------------------------------------------------------------------

    def update(self, args: dict[str, Any], *, local: bool = False) -> dict[str, Any]:
        """The command `update`: takes it on, or says what has become of it. Raises Corrupt for what is refused."""
        try:
            asked = msgspec.convert(args, Update)
        except msgspec.ValidationError as error:
            raise Corrupt(f"update: {error}") from None
        slots = self._ready()
        if not asked.url.startswith(("https://", "/")) or ".." in asked.url.split("/"):
            raise Corrupt(f"update: {asked.url[:120]!r} is neither https:// nor the path of a file")
        if asked.url.startswith("/") and not local and not asked.url.startswith(MEDIA):
            raise Corrupt(f"update: {asked.url[:120]} does not lie on a stick ({', '.join(MEDIA)})")
        if asked.bytes > self._bytes_max:
            raise Corrupt(f"update: {asked.bytes} bytes; release.download_mb_max allows {self._bytes_max}")
        with self._lock:
            doing = self._doing or self._asked
            if doing is not None and doing.number == asked.number:
                return {"pending": True, "summary": f"release {asked.number}: {self._progress or 'begins'}"}
            if doing is not None:
                raise Corrupt(f"update: release {doing.number} is being installed; wait for its end")
            state = slots.state()
            if asked.number == state.good.number:
                return {"summary": f"release {asked.number} runs and is confirmed"}
            tried = state.candidate
            on_its_way = tried is not None and tried.phase in (Phase.STAGED, Phase.TRYING)
            if tried is not None and on_its_way and tried.release.number == asked.number:
                return {"summary": f"release {asked.number} is {tried.phase.value}"}
            objection = plan.objection(state, asked.number, by_hand=local)
            if objection:
                raise Corrupt(f"update: {objection}")
            self._asked = asked
        return {"pending": True, "summary": f"release {asked.number}: begins"}

    @property
    def on_trial(self) -> bool:
        """Whether a release is being tried, or was switched to."""
        try:
            tried = None if self._slots is None else self._slots.state().candidate
        except WardpostError:
            return False
        return tried is not None and tried.phase is Phase.TRYING

    def reported(self) -> wire.ReleaseState | None:
        """For the heartbeat: what is confirmed and what lies beside it. None without releases. Raises WardpostError."""
        if self._slots is None:
            return None
        state = self._slots.state()
        tried = state.candidate
        if tried is None:
            return wire.ReleaseState(number=state.good.number)
        return wire.ReleaseState(
            number=state.good.number,
            tried=tried.release.number,
            phase=tried.phase.value,
            doubt=tried.alone and tried.phase is Phase.ROLLED_BACK,
            why=tried.why,
        )

    def local(self, args: dict[str, Any]) -> dict[str, Any]:
        """What a person at the node asks: status, install, confirm, rollback. Raises WardpostError."""
        slots = self._ready()
        match args.get("action"):
            case "install":
                return self.update({"id": "", **args}, local=True)
            case "confirm":
                with self._lock:
                    self._confirm(slots, slots.state(), "a person at the node")
            case "rollback":
                with self._lock:
                    self._roll_back(slots, plan.rolled_back(slots.state(), "a person at the node"))
            case "status":
                pass
            case other:
                raise Corrupt(f"release: nobody here knows {other!r}")
        with self._lock:
            return {"state": msgspec.to_builtins(slots.state()), "running": self._running, "progress": self._progress}

    # -- the worker ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.report_rollback()

    def close(self) -> None:
        self._job = None

    def step(self, now: float) -> float:
        with self._lock:
            if self._restart:
                raise NeedsRestart(self._restart)
            if self._asked is not None:
                self._doing, self._asked = self._asked, None
                self._job = self._install(self._doing)
        wait_s = self._work() if self._job is not None else POLL_S
        if now - self._looked_s >= POLL_S:
            self._looked_s = now
            self._also(self._up_s())
            if self._slots is not None:
                with self._lock:
                    self._judge(self._slots, now)
        return now + wait_s

    def _work(self) -> float:
        """A quarter of a second of what is being installed."""
        until_ns = self._clock.boot_ns() + round(BUSY_S * NS)
        doing = self._doing
        try:
            while self._job is not None and self._clock.boot_ns() < until_ns:
                wait_s = next(self._job, None)
                if wait_s is None:
                    self._end(doing, wire.Reply(id=_id(doing), state="done", result={"summary": self._progress}))
                    return 0.0
                if wait_s > 0:
                    return wait_s
        except WardpostError as error:
            log.warning("%s", error)
            self._put(number=doing.number if doing else 0, outcome="refused", why=str(error))
            self._end(doing, wire.Reply(id=_id(doing), state="failed", detail=str(error)[:500]))
        return 0.01

    def _end(self, doing: Update | None, reply: wire.Reply) -> None:
        with self._lock:
            self._job, self._doing = None, None
        if doing is not None and doing.id:
            self._reply(reply)

    def _install(self, asked: Update) -> Iterator[float]:
        """Fetch, verify, unpack: each value is how many seconds to wait before the next."""
        slots = self._ready()
        name = f"{FOLDER}/{asked.sha256[:16]}.part"
        for other in self._disk.list(FOLDER):
            if other.endswith(".part") and other != name:
                self._disk.unlink(other)
        if asked.bytes > self._disk.free_bytes() // 2:
            raise Transient(f"update: {asked.bytes >> 20} MB do not fit on the data folder")
        source = self._sources["file" if asked.url.startswith("/") else "https"]
        told = 0
        for wait_s in fetch(source, asked.url, disk=self._disk, name=name, size=asked.bytes, sha256=asked.sha256):
            part = 100 * self._disk.size(name) // asked.bytes if wait_s == 0 else told
            self._progress = f"{part} % fetched" + (f", trying again in {wait_s:.0f} s" if wait_s else "")
            if part >= told + 25 and asked.id:
                told = part
                self._reply(wire.Reply(id=asked.id, state="accepted", result={"summary": self._progress}))
            yield wait_s
        self._progress = "being verified"
        with self._disk.open(name) as file:
            bundle = open_bundle(file, public=self._key(), architecture=this_architecture(), python=this_python())
            if bundle.manifest.number != asked.number:
                raise Corrupt(f"update: announced as {asked.number}, signed as {bundle.manifest.number}")
            for _ in bundle.check_files():
                yield 0.0
            self._progress = "being unpacked"
            for _ in slots.install(bundle, by_hand=not asked.id):
                yield 0.0
        self._disk.unlink(name)
        self._progress = f"release {asked.number} is staged; it is switched to at a quiet moment"
        self._put(number=asked.number, version=bundle.manifest.version, outcome="staged", why="", sha256=asked.sha256)

    # -- what becomes of it -------------------------------------------------------------------------------------------

    def _judge(self, slots: Slots, now: float) -> None:
        """Once a second: one read of the state, and no more on a node that tries nothing."""
        try:
            state = slots.state()
        except Corrupt:
            return
        tried = state.candidate
        if tried is None:
            return
        seen = self._seen(tried)
        if tried.phase is Phase.STAGED and self._job is None:
            self._staged_s = now if self._staged_s is None else self._staged_s
            if self._eyes.quiet() or now - self._staged_s > QUIET_S_MAX:
                slots.follow(plan.switched(state, seen))
                self._put(number=tried.release.number, version=tried.release.version, outcome="switched", why="")
                self._restart = f"release {tried.release.number} is installed; it is started now"
            return
        if tried.phase is Phase.TRYING and tried.release.slot != self._running:
            # The launcher would not start it, and could not write that down.
            slots.follow(plan.rolled_back(state, "it was not started: its start could not be counted"))
            return
        found = plan.gate(state, seen, self._limits)
        if found.act is Act.WAIT:
            found = plan.doubt(state, seen, self._limits)
        self._obey(slots, state, found)

    def _obey(self, slots: Slots, state: State, found: plan.Decision) -> None:
        match found.act:
            case Act.CONFIRM:
                self._confirm(slots, state, "")
            case Act.ROLL_BACK:
                self._roll_back(slots, plan.rolled_back(state, found.why, alone=found.alone))
            case Act.BLAME:
                slots.follow(plan.blamed(state, found.why))
            case Act.TRY_AGAIN:
                slots.follow(plan.tried_again(state))
                self._restart = "the release that was rolled back gets another try: the network was away"
            case _:
                pass

    def _confirm(self, slots: Slots, state: State, who: str) -> None:
        good = plan.confirmed(state)
        slots.follow(good)
        self._put(number=good.good.number, version=good.good.version, outcome="confirmed", why=who)
        self._tell(f"release {good.good.number} ({good.good.version}) runs and is confirmed")

    def _roll_back(self, slots: Slots, state: State) -> None:
        slots.follow(state)
        gone = state.candidate
        number, why = (gone.release.number, gone.why) if gone is not None else (0, "")
        self._put(number=number, outcome="rolled back", why=why, to=state.good.slot)
        self._restart = f"release {number} is rolled back: {why}"

    def report_rollback(self) -> None:
        """Once, at the start: what the launcher has done while nothing of ours ran. Raises Transient."""
        if self._slots is None:
            return
        try:
            tried = self._slots.state().candidate
        except Corrupt:
            return
        if tried is None or tried.phase is not Phase.ROLLED_BACK:
            return
        mark = f"{tried.release.number}:{tried.tries}:{tried.why}"
        try:
            with self._disk.open(f"{FOLDER}/told") as file:
                if file.read(1000).decode("utf-8", "replace") == mark:
                    return
        except FileNotFoundError:
            pass
        self._put(number=tried.release.number, outcome="rolled back", why=tried.why, to=self._running)
        self._tell(f"release {tried.release.number} ({tried.release.version}) was rolled back: {tried.why}")
        self._disk.replace(f"{FOLDER}/told", mark.encode())

    def _up_s(self) -> float:
        return (self._clock.boot_ns() - self._started_ns) / NS

    def _seen(self, tried: Candidate) -> Seen:
        # The disk is asked only while it matters: each answer costs two syncs.
        storage = tried.phase is not Phase.TRYING or self._writable()
        return Seen(up_s=self._up_s(), frames=self._eyes.frames(), storage=storage, broker=self._eyes.broker())

    def _writable(self) -> bool:
        try:
            self._disk.replace(f"{FOLDER}/probe", b"x")
        except WardpostError:
            return False
        return True

    def _put(self, **fields: Any) -> None:
        try:
            self._note(records.body(**fields))
        except Transient as error:
            log.warning("update: not on the ledger: %s", error)

    def _ready(self) -> Slots:
        self._key()
        if self._slots is None:
            raise Corrupt("update: this agent was not installed by releases; see deploy/updates.md")
        return self._slots

    def _key(self) -> bytes:
        if self._public is None:
            raise Corrupt("update: this node has no release.key, so it believes no release")
        return self._public


def notice(text: str, *, incident: str, boot_ns: int) -> Event:
    """What became of an update, as an event for headquarters: it waits in the outbox, whatever restarts."""
    return Event(
        incident=incident,
        kind=Kind.NODE,
        phase=PhaseOfEvent.ENDED,
        boot_ns=boot_ns,
        priority=Priority.NOTICE,
        summary=text[:500],
    )


def _id(asked: Update | None) -> str:
    return asked.id if asked is not None else ""


def running_slot(prefix: Path, root: Path) -> str:
    """The release that an interpreter with this `sys.prefix` belongs to; empty for one from elsewhere."""
    return prefix.name if prefix.parent == root / RELEASES else ""
