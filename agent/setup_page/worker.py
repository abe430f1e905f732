"""The page's life: on when a technician wants it, served on the local link alone, off by itself, all on record."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from agent.clock import Clock
from agent.config import SetupPageSettings
from agent.disk import Disk
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from agent.evidence import records
from agent.panel import Edge, Input
from agent.setup_page import opening
from agent.setup_page.gate import Gate
from agent.setup_page.link import Link, interface_of, links
from agent.setup_page.opening import PageState
from agent.types import NS
from agent.worker import FOREVER_S

FOLDER = "setup-page"
STATE = f"{FOLDER}/state.json"
FLAG = f"{FOLDER}/on"
"""There while the page is on: deploy/wardpost-setup-link.path brings the hotspot up for it."""
LOOK_S = 2.0
"""How often a link is looked for: a hotspot takes seconds to come up."""
NAME_CHARS_MAX = 40

log = logging.getLogger(__name__)


class Served(Protocol):
    """A server that listens. `close` ends it, in a second at most."""

    def close(self) -> None: ...


@dataclass(slots=True)
class _Wire:
    """What was seen of an input."""

    active: bool = False
    since_ns: int = 0
    times: int = 0  # that it became active since the agent started


class PageWorker:
    """See `agent.worker.Worker`. Everything else may be called from any thread."""

    name = "page"
    step_s_max = 20.0

    def __init__(
        self,
        *,
        settings: SetupPageSettings,
        clock: Clock,
        disk: Disk,
        note: Callable[[bytes], None],
        tell: Callable[[str], None],
        request: Callable[[], bytes | None],
        nonce: Callable[[], bytes],
        serve: Callable[[Link, str], Served],
        shown: Callable[[], int],
    ) -> None:
        """`note` puts a JSON object on the ledger and `tell` a sentence into the outbox; both may raise Transient.

        `request`: the file of the boot partition, None without one. `serve` listens on a link and its interface;
        raises ConfigError or Transient when it cannot. `shown` counts the pictures handed out.
        Raises ConfigError for an address that is no local one.
        """
        self._settings, self._clock, self._disk = settings, clock, disk
        self._note, self._tell, self._request, self._nonce = note, tell, request, nonce
        self._serve, self._shown = serve, shown
        self._links = links(settings.addresses)
        self._lock = threading.RLock()
        self._wire_lock = threading.Lock()  # never held over a write: the panel's thread takes it
        self._state = PageState()
        self._gate: Gate | None = None
        self._served: dict[Link, Served] = {}
        self._wires: dict[Input, _Wire] = {pin: _Wire() for pin in Input}
        self._held_used = False  # one long press is one wish
        self._noted_ns = 0
        self._shown_before = 0
        self._entered: set[str] = set()
        self.wake: Callable[[], None] | None = None

    # -- the worker ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        if not self._settings.code:
            return
        now_ns = self._clock.boot_ns()
        with self._lock:
            self._disk.list(FOLDER)  # makes it
            before = self._read()
            self._state = opening.resumed(
                before,
                boot_id=self._clock.boot_id,
                now_ns=now_ns,
                minutes_max=self._settings.page_minutes_max,
            )
            request = opening.requested(self._state, self._request())
            if request:
                self._begin("a request on the boot partition", self._settings.page_minutes_max, request=request)
            elif self._state.on is not None:
                self._gate = Gate(self._settings.code, nonce=bytes.fromhex(self._state.on.nonce))
                self._raise_flag()
            else:
                if before.on is not None:
                    self._end("its time was over while the agent did not run")
                self._disk.unlink(FLAG)

    def step(self, now: float) -> float:
        if not self._settings.code:
            return now + FOREVER_S
        now_ns = round(now * NS)
        with self._lock:
            self._mind_bell(now_ns)
            if self._state.on is not None:
                why = self._over(now_ns)
                if why:
                    self._end(why)
                elif now_ns - self._noted_ns >= opening.NOTE_S * NS:
                    self._write(opening.noted(self._state, now_ns))
            on = self._state.on is not None
        if on:
            self._listen()
            return now + LOOK_S
        self._fall_silent()
        return now + (LOOK_S if self._bell_since(now_ns) is not None else FOREVER_S)

    def close(self) -> None:
        """Stops serving. What is left of the time is left to the next start."""
        self._fall_silent()
        with self._lock:
            pictures = self._shown() - self._shown_before
            if self._state.on is None or not pictures:
                return
            self._shown_before += pictures
        try:  # counts of this process are lost with it
            self._note(records.body(page="paused", why="the agent stops", pictures=pictures))
        except Transient as error:
            log.warning("%d pictures were shown, which could not be written down: %s", pictures, error)

    # -- what others ask -----------------------------------------------------------------------------------------------

    def edge(self, edge: Edge) -> None:
        """PanelWorker tells each settled change of an input. Never raises, never waits for a disk."""
        with self._wire_lock:
            wire = self._wires[edge.input]
            wire.active, wire.since_ns = edge.active, edge.boot_ns
            wire.times += edge.active
        if self.wake is not None and edge.input in (Input.BELL, Input.TAMPER):
            self.wake()

    def wires(self) -> dict[str, dict[str, Any]]:
        """What was seen of the inputs, for the page."""
        with self._wire_lock:
            return {pin.value: {"active": one.active, "times": one.times} for pin, one in self._wires.items()}

    def order(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The verb of `wardpost setup-page`: `{"minutes": n}` on, `{"off": true}` off, `{}` only asks.

        Raises ConfigError, Corrupt, Transient.
        """
        if not self._settings.code:
            raise ConfigError("setup_page.code is empty: this post has no page; set a code, see deploy/installation.md")
        minutes = args.get("minutes")
        with self._lock:
            if args.get("off"):
                if self._state.on is not None:
                    self._end("switched off by hand")
            elif minutes is not None:
                if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes > 0:
                    raise Corrupt("setup-page: minutes must be a number above 0")
                self._begin("the command wardpost setup-page", min(float(minutes), self._settings.page_minutes_max))
        if self.wake is not None:
            self.wake()
        return self.told()

    def told(self) -> dict[str, Any]:
        """How the page is now."""
        with self._lock:
            return {
                "on": self._state.on is not None,
                "left_s": round(self.left_s, 1),
                "why": "" if self._state.on is None else self._state.on.why,
                "addresses": [f"http://{link.address}:{self._settings.port}/" for link in self._links],
                "serving": [f"http://{link.address}:{self._settings.port}/" for link in self._served],
                "wrong_codes": 0 if self._gate is None else self._gate.wrong,
            }

    @property
    def left_s(self) -> float:
        """Seconds until the page goes off; 0 when it is."""
        return opening.left_s(self._state, self._clock.boot_ns())

    def enter(self, code: str, name: str, peer: str) -> str:
        """The token for whoever has the code, once it is on record who that is. Raises Shut, ConfigError, Transient."""
        who = " ".join("".join(c if c.isprintable() else " " for c in name).split())[:NAME_CHARS_MAX]
        if not who:
            raise ConfigError("write your name: it goes on record who has seen this camera")
        with self._lock:
            gate = self._gate
            if gate is None:
                raise ConfigError("the page is off")
            try:
                token = gate.enter(code, self._clock.boot_ns())
            finally:
                if gate.worn_out and self.wake is not None:
                    self.wake()
            self._note(records.body(page="entered", by=who, peer=peer))
            if who not in self._entered:
                self._tell(f"{who} has entered the local page of this post and sees its camera")
                self._entered.add(who)
        return token

    def knows(self, token: str) -> bool:
        """Whether the bearer has entered, and the page is still on."""
        gate = self._gate
        return gate is not None and self.left_s > 0 and gate.knows(token)

    def did(self, what: str) -> None:
        """Puts on record what was tried from the page. Raises Transient."""
        self._note(records.body(page="did", what=what[:100]))

    def finish(self) -> None:
        """The technician is done: off now."""
        with self._lock:
            if self._state.on is not None:
                self._end("the technician was done")
        if self.wake is not None:
            self.wake()

    # -- on and off; the lock is held ----------------------------------------------------------------------------------

    def _begin(self, why: str, minutes: float, *, request: str = "") -> None:
        """Raises Transient: then it stays as it was."""
        now_ns = self._clock.boot_ns()
        state = opening.begun(
            self._state,
            why=why,
            minutes=minutes,
            boot_id=self._clock.boot_id,
            now_ns=now_ns,
            nonce=self._nonce(),
            request=request,
        )
        self._note(records.body(page="on", why=why, minutes=minutes))  # on record before it is on
        self._write(state)
        if self._gate is not None:
            self._gate.close()
        self._gate = Gate(self._settings.code, nonce=bytes.fromhex(state.on.nonce if state.on is not None else ""))
        self._shown_before = self._shown()
        self._entered.clear()
        self._raise_flag()
        log.warning("the local page is on for %.0f min: %s", minutes, why)

    def _end(self, why: str) -> None:
        """Nobody is believed from here on, whether or not it can be written down."""
        wrong = 0 if self._gate is None else self._gate.wrong
        if self._gate is not None:
            self._gate.close()
            self._gate = None
        self._state = opening.ended(self._state)
        pictures = self._shown() - self._shown_before
        log.warning("the local page is off: %s", why)
        acts: tuple[Callable[[], None], ...] = (
            lambda: self._disk.unlink(FLAG),
            lambda: self._write(self._state),
            lambda: self._note(records.body(page="off", why=why, pictures=pictures, wrong_codes=wrong)),
        )
        for act in acts:
            try:
                act()
            except Transient as error:  # the next one all the same
                log.warning("the local page is off, but: %s", error)

    def _over(self, now_ns: int) -> str:
        if opening.left_s(self._state, now_ns) <= 0:
            return "its time is over"
        return "too many wrong codes" if self._gate is not None and self._gate.worn_out else ""

    def _bell_since(self, now_ns: int) -> int | None:
        """For how long the bell has been held while the box is open, in ns; None: it is not."""
        with self._wire_lock:
            bell, lid = self._wires[Input.BELL], self._wires[Input.TAMPER]
            return now_ns - max(bell.since_ns, lid.since_ns) if bell.active and lid.active else None

    def _mind_bell(self, now_ns: int) -> None:
        held_ns = self._bell_since(now_ns)
        if held_ns is None:
            self._held_used = False
        elif held_ns >= self._settings.hold_s * NS and not self._held_used and self._state.on is None:
            self._held_used = True
            self._begin("the bell was held while the box was open", self._settings.page_minutes_max)

    def _raise_flag(self) -> None:
        self._disk.replace(FLAG, b"the local page is on\n")

    def _read(self) -> PageState:
        try:
            with self._disk.open(STATE) as file:
                return opening.decode(file.read(opening.STATE_BYTES_MAX + 1))
        except FileNotFoundError:
            return PageState()
        except Corrupt as error:
            log.warning("%s; the page stays off", error)
            # What was asked for may have been granted already: the request counts as used.
            return PageState(used=opening.requested(PageState(), self._request()))

    def _write(self, state: PageState) -> None:
        self._disk.replace(STATE, opening.encode(state), private=True)
        self._state, self._noted_ns = state, self._clock.boot_ns()

    # -- serving; only the worker's own thread -------------------------------------------------------------------------

    def _listen(self) -> None:
        for link in self._links:
            try:
                device = interface_of(link.address)
                if device and link not in self._served:
                    self._served[link] = self._serve(link, device)
                    log.warning("the local page: http://%s:%d/ on %s", link.address, self._settings.port, device)
                elif not device and link in self._served:
                    self._served.pop(link).close()  # the link has gone down
            except (WardpostError, OSError) as error:
                log.warning("the local page cannot be served on %s: %s", link.address, error)

    def _fall_silent(self) -> None:
        for link in list(self._served):
            self._served.pop(link).close()


def read_request(path: str) -> bytes | None:
    """The request on the boot partition, if there is one that can be read. Blocks for a read of a few KiB."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (a path of the settings)
            return file.read(opening.REQUEST_BYTES_MAX + 1)
    except OSError:
        return None


def request_reader(path: str) -> Callable[[], bytes | None]:
    """`read_request` of that file; of none when the path is empty."""
    return partial(read_request, path) if path else lambda: None
