"""Configuration from afar: acts. What to do is decided in settings.py; nothing here can keep a node from starting.

Order of the promises: the text, whole and synced, before the state that names it; the count of a start before the
settings are used. A text that cannot be read, or does not load, is given up at the start for the one before it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import msgspec

from agent import config, wire
from agent.check import Level, judge
from agent.clock import Clock
from agent.config import Config
from agent.disk import Disk
from agent.errors import ConfigError, Corrupt, NeedsRestart, WardpostError
from agent.evidence import records
from agent.release import settings
from agent.release.settings import BASE, Act, ConfigState, Seen
from agent.vision.faults import refuse

FOLDER = "config"
STATE = f"{FOLDER}/state.json"
SETTLE_S = 60.0
STATION_S = 600.0
"""So long a post may fail to reach its station with new settings, when it could with the old ones."""


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
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}") from None
    found = config.problems(tables, Config)
    if found:
        raise ConfigError("; ".join(found)[:400])
    return msgspec.convert(tables, Config)


def at_start(base: Config, disk: Disk, say: Callable[[str], None]) -> tuple[Config, int]:
    """The settings to start with, and their revision: those from afar, or the base when anything is wrong with them.
    Never raises.

    Call it once, before anything of the settings is used: it counts the start of a trial.
    """
    try:
        state = read_state(disk)
        if settings.in_use(state) == BASE:
            return base, BASE
        counted = settings.started(state)
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
                counted = settings.given_up(counted, found)
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
    """Takes on, watches and gives up settings from afar. `take` on any thread, `watch` on one."""

    def __init__(
        self,
        *,
        disk: Disk,
        clock: Clock,
        running: Config,
        revision: int,
        station: Callable[[], bool],
        frames: Callable[[], bool],
        busy: Callable[[], bool],
        note: Callable[[bytes], None],
        tell: Callable[[str], None],
    ) -> None:
        """`station`: whether it acknowledges now. `busy`: a release is on trial, and two trials tell nothing.

        `note` puts a JSON object on the ledger; `tell` tells headquarters a sentence.
        """
        self._disk, self._clock, self._running = disk, clock, running
        self._revision = revision
        self._station, self._frames, self._busy = station, frames, busy
        self._note, self._tell = note, tell
        self._restart = ""

    def take(self, args: dict[str, Any]) -> dict[str, Any]:
        """The command `config`: `revision` and `toml`, a whole file. Raises WardpostError with why it is refused."""
        revision, text = args.get("revision"), args.get("toml")
        if isinstance(revision, bool) or not isinstance(revision, int) or not 1 <= revision < 2**53:
            raise Corrupt("config: revision must be a number from 1 on")
        if not isinstance(text, str) or len(text.encode(errors="replace")) > settings.TEXT_BYTES_MAX:
            raise Corrupt(f"config: toml must be the text of a whole file, {settings.TEXT_BYTES_MAX >> 10} KiB at most")
        state = read_state(self._disk)
        if revision in (state.force, state.trial.revision if state.trial is not None else None):
            return self.reported()
        try:
            new = parse(text)
            refuse(new)
        except ConfigError as error:
            raise Corrupt(f"config: {error}"[:500]) from None
        reason = settings.objection(state, revision, self._running, new) or self._worse(new)
        if not reason and self._busy():
            reason = "a release is on trial; send it again when that is over"
        if reason:
            raise Corrupt(f"config: {reason}"[:500])
        self._disk.list(FOLDER)
        self._disk.replace(name_of(revision), text.encode())
        write_state(self._disk, settings.offered(state, revision, station=self._station(), frames=self._frames()))
        self._put(revision, "taken on", by=str(args.get("id", "")))
        self._restart = f"revision {revision} of the configuration is tried"
        return self.reported()

    def reported(self) -> dict[str, Any]:
        """What is in force, what is on trial, and why the last one was given up."""
        state = read_state(self._disk)
        return {
            "revision": state.force,
            "trial": None if state.trial is None else state.trial.revision,
            "seen": state.seen,
            "why": state.why,
            "sha256": config.fingerprint(self._running),
        }

    def told(self) -> wire.SettingsState:
        """The same for the heartbeat. Raises Transient."""
        state = read_state(self._disk)
        return wire.SettingsState(
            revision=state.force,
            trial=0 if state.trial is None else state.trial.revision,
            seen=state.seen,
            why=state.why,
            sha256=config.fingerprint(self._running),
        )

    @property
    def on_trial(self) -> bool:
        """Whether settings are being tried, or will be at the next start."""
        return read_state(self._disk).trial is not None

    def watch(self, up_s: float) -> None:
        """Each second. Raises NeedsRestart when other settings are to be used."""
        if self._restart:
            raise NeedsRestart(self._restart)
        state = read_state(self._disk) if up_s < 2 * STATION_S else ConfigState()
        if state.trial is None:
            return
        seen = Seen(up_s=up_s, station=self._station(), frames=self._frames())
        revision = state.trial.revision
        if revision == self._revision:
            act, why = settings.judge(state, seen, settle_s=SETTLE_S, station_s=STATION_S)
        else:
            act, why = Act.GIVE_UP, "it was not started: its start could not be counted"
        if act is Act.KEEP:
            write_state(self._disk, settings.kept(state))
            self._tidy()
            self._put(revision, "kept")
            self._tell(f"revision {revision} of the configuration is in force")
        elif act is Act.GIVE_UP:
            write_state(self._disk, settings.given_up(state, why))
            self._put(revision, "given up", why=why)
            self._tell(f"revision {revision} of the configuration is given up: {why}")
            if revision == self._revision:
                self._restart = f"revision {revision} of the configuration is given up: {why}"

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
