"""Configuration from afar: acts. What to do is decided in settings.py; nothing here can keep a node from starting.

Order of the promises: the text, whole and synced, before the state that names it; the count of a start before the
settings are used. What became of them is in the state before it is on the ledger, and until then the state says that it
is not: a cut in between writes it down twice, at worst. A text that cannot be read, or does not load, is given up at
the start for the one before it.

What is desired stands retained at the broker, so it comes with every connection: whatever has been judged is
recognised, by its revision, and costs nothing again.
"""

from __future__ import annotations

import hashlib
import threading
import tomllib
from collections.abc import Callable

import msgspec

from agent import config, wire
from agent.check import Level, judge
from agent.clock import Clock, rfc3339
from agent.config import Config
from agent.disk import Disk
from agent.errors import ConfigError, Corrupt, NeedsRestart, Transient, WardpostError
from agent.evidence import records
from agent.release import settings
from agent.release.settings import BASE, Act, Answer, ConfigState, Seen, Trial
from agent.vision.faults import refuse

FOLDER = "config"
STATE = f"{FOLDER}/state.json"
SETTLE_S = 60.0
STATION_S = 600.0
"""So long a post may fail to reach its station with new settings, when it could with the old ones."""

_OUTCOMES = {"applied": "kept", "rolled-back": "given up", "refused": "refused"}
"""What the ledger says of an answer."""

RETRY_S = 60.0
"""After a disk that refused what is desired."""


def name_of(revision: int) -> str:
    """The file of a revision."""
    return f"{FOLDER}/{revision}.toml"


def read_state(disk: Disk) -> ConfigState:
    """What is in force. A state that is lost or damaged is the base: the node starts in any case. Raises Transient."""
    try:
        with disk.open(STATE) as file:
            return settings.decode(file.read(settings.STATE_BYTES_MAX + 1))
    except (FileNotFoundError, Corrupt):
        return ConfigState()


def write_state(disk: Disk, state: ConfigState) -> None:
    """Durably. Raises Transient."""
    disk.list(FOLDER)
    disk.replace(STATE, settings.encode(state))


def parse(text: str) -> Config:
    """Raises ConfigError with every problem, in one line."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # an integer without end is no TOMLDecodeError
        raise ConfigError(f"not TOML: {error}") from None
    found = config.problems(tables, Config)
    if found:
        raise ConfigError("; ".join(found)[:400])
    return msgspec.convert(tables, Config)


def at_start(base: Config, disk: Disk, clock: Clock, say: Callable[[str], None]) -> tuple[Config, int]:
    """The settings to start with, and their revision: those from afar, or the base when anything is wrong with them.
    Never raises.

    Call it once, before anything of the settings is used: it counts the start of a trial.
    """
    try:
        state = read_state(disk)
        if settings.in_use(state) == BASE:
            return base, BASE
        counted = settings.started(state, clock.boot_id, at=_now(clock))
        if counted != state:
            write_state(disk, counted)  # what cannot be counted is not tried: Transient leads to the base
        for revision in (settings.in_use(counted), counted.force, counted.before):
            if revision == BASE:
                break
            found = _loaded(disk, revision, base)
            if isinstance(found, Config):
                return found, revision
            say(f"config revision {revision}: {found}; going back")
            if counted.trial is not None and counted.trial.revision == revision:
                counted = settings.given_up(counted, found, at=_now(clock))
                write_state(disk, counted)
    except WardpostError as error:
        say(f"config from afar is left out: {error}")
    return base, BASE


def _loaded(disk: Disk, revision: int, base: Config) -> Config | str:
    """The settings of a revision, or what is wrong with them."""
    try:
        with disk.open(name_of(revision)) as file:
            found = parse(file.read(settings.TEXT_BYTES_MAX + 1).decode())
        refuse(found)
    except FileNotFoundError:
        return "its file is lost"
    except (WardpostError, UnicodeDecodeError) as error:
        return str(error)
    if (found.node.site, found.node.id, found.node.data) != (base.node.site, base.node.id, base.node.data):
        return "is of another node than the file on the system"
    return found


class SettingsDesk:
    """Takes on, watches and gives up what is desired. `desire` and `reported` on any thread, `watch` on one."""

    def __init__(
        self,
        *,
        disk: Disk,
        clock: Clock,
        running: Config,
        revision: int,
        believe: Callable[[bytes], wire.Desired],
        station: Callable[[], bool],
        frames: Callable[[], bool],
        busy: Callable[[], bool],
        note: Callable[[bytes], None],
        tell: Callable[[str], None],
    ) -> None:
        """`believe`: what the station has signed for this node; raises Corrupt. `station`: it acknowledges now.

        `busy`: a release is on trial, and two trials tell nothing. `note` puts a JSON object on the ledger; `tell`
        tells headquarters a sentence.
        """
        self._disk, self._clock, self._running = disk, clock, running
        self._revision, self._sha256 = revision, config.fingerprint(running)
        self._believe = believe
        self._station, self._frames, self._busy = station, frames, busy
        self._note, self._tell = note, tell
        self.changes = 0
        """Counts what made `reported` tell something else."""
        self._lock = threading.Lock()
        self._acting = threading.Lock()  # `watch` and `draw` change what is on the disk
        self._wanted: wire.Desired | None = None  # believed, and not judged yet
        self._passing: Answer | None = None  # refused without a trace: not believed, or old
        self._refused = (0, "")  # revision and digest of what was refused in this life: it is not judged again
        self._noted = (0, "")  # the same of what was taken on and is on the ledger
        self._explained: Answer | None = None  # what is on the ledger, though the state could not say so
        self._retry_s = 0.0
        self._restart = ""

    def desire(self, payload: bytes) -> None:
        """What stands at `config/desired`, retained or new; `watch` judges it once no trial is on. Never raises.

        An empty payload - a person has removed it from the broker - changes nothing.
        """
        if not payload:
            return
        try:
            wanted = self._believe(payload)
        except Corrupt as error:
            self._pass(0, str(error))
            return
        with self._lock:
            self._wanted = wanted

    def reported(self) -> wire.SettingsState:
        """For `config/reported`, heartbeat and status. Raises Transient."""
        state = read_state(self._disk)
        trial = state.trial
        force = state.force if trial is not None else self._revision  # a file that was lost is not in force
        answer = self._passing or state.answer
        return wire.SettingsState(
            revision=force,
            digest=state.digest if force == state.force else "",
            since=state.since if force == state.force else "",
            sha256=self._sha256,
            trial=0 if trial is None else trial.revision,
            seen=state.seen,
            asked=0 if answer is None else answer.revision,
            state="" if answer is None else answer.state,
            why="" if answer is None else answer.why,
            at="" if answer is None else answer.at,
        )

    @property
    def on_trial(self) -> bool:
        """Whether settings are being tried, or will be at the next start."""
        return read_state(self._disk).trial is not None

    def watch(self, up_s: float) -> None:
        """Each second. Raises NeedsRestart when other settings are to be used, Transient."""
        with self._acting:
            self._watch(up_s)

    def draw(self, text: str, *, by: str) -> None:
        """Settings changed at the post itself: tried from the next start on, as desired ones, under the next revision.

        Any thread. Raises Corrupt with why they are refused, Transient.
        """
        with self._acting:
            state = self._explain(read_state(self._disk))
            wanted = wire.Desired(revision=state.seen + 1, toml=text, by=by, time=_now(self._clock))
            if state.trial is not None or self._restart:
                reason = "what was drawn before is on trial; try again in a minute or two"
            elif self._busy():
                reason = "a release is on trial; try again when that is over"
            else:
                reason = self._reason(state, wanted)
            if reason:
                raise Corrupt(reason[:500])
            self._take_on(state, wanted, hashlib.sha256(text.encode()).hexdigest())

    def _watch(self, up_s: float) -> None:
        if self._restart:
            raise NeedsRestart(self._restart)
        state = read_state(self._disk) if up_s < 2 * STATION_S else ConfigState()
        if state.trial is not None:
            self._judge(state, state.trial, up_s)
        elif up_s >= self._retry_s:
            try:
                self._explain(state)
                self._consider()
            except Transient:  # a disk that refuses must not end the worker that watches over a release, too
                self._retry_s = up_s + RETRY_S
                raise

    def _judge(self, state: ConfigState, trial: Trial, up_s: float) -> None:
        """What is on trial: kept, given up, or waited for."""
        seen = Seen(up_s=up_s, station=self._station(), frames=self._frames())
        revision = trial.revision
        if revision == self._revision:
            act, why = settings.judge(state, seen, settle_s=SETTLE_S, station_s=STATION_S)
        else:
            act, why = Act.GIVE_UP, "it was not started: its start could not be counted"
        if act is Act.WAIT:
            return
        at = _now(self._clock)
        state = settings.kept(state, at=at) if act is Act.KEEP else settings.given_up(state, why, at=at)
        write_state(self._disk, state)
        self.changes += 1
        if act is Act.KEEP:
            self._tidy()
        elif revision == self._revision:
            self._restart = f"revision {revision} of the configuration is given up: {why}"
        self._explain(state)

    def _explain(self, state: ConfigState) -> ConfigState:
        """Puts what became of the last one on the ledger, unless it is there. Returns the state that says so.

        Raises Transient: then it is for the next look to do.
        """
        answer = state.answer
        if state.noted or answer is None:
            return state
        if answer != self._explained:
            more = {"why": answer.why, "by": answer.by}
            self._put(answer.revision, _OUTCOMES[answer.state], **{name: said for name, said in more.items() if said})
            self._explained = answer
            if answer.state == "applied":
                self._tell(f"revision {answer.revision} of the configuration is in force")
            elif answer.state == "rolled-back":
                self._tell(f"revision {answer.revision} of the configuration is given up: {answer.why}")
        state = msgspec.structs.replace(state, noted=True)
        write_state(self._disk, state)
        return state

    # -- what is desired ----------------------------------------------------------------------------------------------

    def _consider(self) -> None:
        """Takes on what is desired, if anything is, or refuses it. Raises Transient: then it is considered again."""
        wanted = self._wanted
        if wanted is None or self._busy():
            return
        state = read_state(self._disk)
        digest = hashlib.sha256(wanted.toml.encode(errors="replace")).hexdigest()
        if wanted.revision == self._revision == state.force and digest == state.digest:
            self._settle(wanted)  # it is so
        elif state.answer is not None and (wanted.revision, "rolled-back") == (
            state.answer.revision,
            state.answer.state,
        ):
            self._settle(wanted)  # it was tried, and that is reported
        elif (wanted.revision, digest) == self._refused:
            self._settle(wanted, keep=True)
        elif wanted.revision <= state.seen and (wanted.revision, digest) != (state.force, state.digest):
            self._settle(wanted)
            self._pass(wanted.revision, settings.objection(state, wanted.revision, self._running, self._running))
        else:
            # What is in force, and yet not what runs: its file was lost. It is taken on once more.
            seen = msgspec.structs.replace(state, seen=min(state.seen, wanted.revision - 1))
            reason = self._reason(seen, wanted)
            if reason:
                self._refuse(state, wanted, reason)
                self._refused = wanted.revision, digest
            else:
                self._take_on(state, wanted, digest)
            self._settle(wanted)

    def _reason(self, state: ConfigState, wanted: wire.Desired) -> str:
        """Why it is not to be tried; empty when it is."""
        if len(wanted.toml.encode(errors="replace")) > settings.TEXT_BYTES_MAX:
            return f"larger than {settings.TEXT_BYTES_MAX >> 10} KiB"
        try:
            new = parse(wanted.toml)
            refuse(new)
        except ConfigError as error:
            return str(error)
        return settings.objection(state, wanted.revision, self._running, new) or self._worse(new)

    def _take_on(self, state: ConfigState, wanted: wire.Desired, digest: str) -> None:
        revision = wanted.revision
        self._disk.list(FOLDER)
        self._disk.replace(name_of(revision), wanted.toml.encode())
        # Before it is so: a cut between the two must not leave a trial unexplained; once, however often what follows
        # fails.
        if self._noted != (revision, digest):
            self._put(revision, "taken on", by=wanted.by, digest=digest)
            self._noted = revision, digest
        write_state(
            self._disk,
            settings.offered(
                state,
                revision,
                digest=digest,
                station=self._station(),
                frames=self._frames(),
                at=_now(self._clock),
            ),
        )
        self._restart = f"revision {revision} of the configuration is tried"
        self.changes += 1

    def _refuse(self, state: ConfigState, wanted: wire.Desired, why: str) -> None:
        new = settings.refused(state, wanted.revision, why, by=wanted.by, at=_now(self._clock))
        old = state.answer
        if new.answer is not None and old is not None and msgspec.structs.replace(new.answer, at=old.at) == old:
            return  # as before, in an earlier life
        write_state(self._disk, new)
        self.changes += 1
        self._explain(new)

    def _settle(self, wanted: wire.Desired, *, keep: bool = False) -> None:
        """It is judged. `keep`: what passed before it still holds."""
        with self._lock:
            if self._wanted is wanted:
                self._wanted = None
        if not keep and self._passing is not None:
            self._passing = None
            self.changes += 1

    def _pass(self, revision: int, why: str) -> None:
        """Refused and reported, but not written down: whoever can publish could else fill the card and the ledger."""
        old = self._passing
        if old is None or (old.revision, old.why) != (revision, why[: settings.WHY_CHARS_MAX]):
            why = why[: settings.WHY_CHARS_MAX]
            self._passing = Answer(revision=revision, state="refused", why=why, at=_now(self._clock))
            self.changes += 1

    def _worse(self, new: Config) -> str:
        """What `wardpost check` calls a problem of these settings, and not of those in force; empty for nothing."""
        before = {(one.where, one.what) for one in judge(self._running, self._clock) if one.level is Level.PROBLEM}
        for one in judge(new, self._clock):
            if one.level is Level.PROBLEM and (one.where, one.what) not in before:
                return one.line()
        return ""

    def _tidy(self) -> None:
        state = read_state(self._disk)
        kept = {STATE, name_of(state.force), name_of(state.before)}
        for name in self._disk.list(FOLDER):
            if name not in kept:
                self._disk.unlink(name)

    def _put(self, revision: int, outcome: str, **more: str) -> None:
        self._note(records.body(config=revision, outcome=outcome, **more))


def _now(clock: Clock) -> str:
    return rfc3339(clock.utc().utc_ns)
