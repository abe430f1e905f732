"""The station's half of a live view: between the pages' threads and the station's own.

Nothing of it is kept: a live view is for now. Commands are signed here, sent once, and good for a minute. Pictures are
held in memory, the newest of each view, and go with it.
"""

from __future__ import annotations

import base64
import binascii
import copy
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent import wire
from agent.clock import Clock, rfc3339
from agent.errors import ConfigError, Transient, WardpostError
from agent.station.live.settings import LiveSettings, ice_servers
from agent.station.live.views import KEEP_S, View
from agent.station.signing import command_key, signed
from agent.types import NS

COMMAND_LIFE_S = 60.0
VIEWS_MAX = 200
PER_PERSON_MAX = 4
OVER_KEPT_S = 60.0
SDP_BYTES_MAX = 12 * 1024
JPEG_BYTES_MAX = 24 * 1024
ASKED_MAX = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """To be published."""

    topic: str
    payload: bytes


class LiveDesk:
    """Any thread. `outgoing`, `hears` and `tend` are the station's, the rest the pages'."""

    def __init__(
        self,
        settings: LiveSettings,
        *,
        secret: str,
        clock: Clock,
        site: str,
        key: str,
        new_id: Callable[[], str],
        wake: Callable[[], None],
    ) -> None:
        """`key`: path of the station's private key; `wake` ends the station's wait."""
        self._settings = settings
        self._secret = secret
        self._clock = clock
        self._site = site
        self._key = key
        self._new_id = new_id
        self._wake = wake
        self._lock = threading.RLock()
        self._views: dict[str, View] = {}
        self._out: deque[Message] = deque(maxlen=VIEWS_MAX * 4)
        self.ended: Callable[[View], None] | None = None
        """Puts the end of a view on the audit log; may raise Transient, and is called again then."""
        self._owed: deque[View] = deque(maxlen=VIEWS_MAX * 4)

    # -- the pages' threads -------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Of one grant."""
        return self._settings.seconds

    def servers(self, view: str) -> list[dict[str, str]]:
        """STUN and TURN servers for one view."""
        return ice_servers(self._settings, self._secret, view=view, utc_s=self._clock.utc().utc_ns // NS)

    def new_view(self) -> str:
        """An id for a view that is to begin."""
        return self._new_id()

    def begin(
        self, *, view: str, node: str, login: str, name: str, reason: str, case: str, stills: bool, offer: str
    ) -> View:
        """Asks the post. Raises ConfigError (the key, too many), Transient."""
        if len(offer.encode()) > SDP_BYTES_MAX:
            raise ConfigError(f"live: the browser's offer is larger than {SDP_BYTES_MAX >> 10} KiB")
        now, command = self._now(), self._new_id()
        args: dict[str, Any] = {
            "view": view,
            "do": "begin",
            "mode": "stills" if stills else "video",
            "by": name,
            "reason": reason,
            "case": case,
            "seconds": self._settings.seconds,
        }
        if not stills:
            args |= {"offer": offer, "ice": self.servers(view)}
        with self._lock:
            going_on = [one for one in self._views.values() if not one.over]
            if view in self._views or len(going_on) >= VIEWS_MAX:
                raise Transient("live: too many views at once")
            if sum(one.login == login for one in going_on) >= PER_PERSON_MAX:
                raise ConfigError(f"live: {PER_PERSON_MAX} views at once are enough for one person; end one")
            self._send(node, command, args)
            made = View(
                id=view,
                node=node,
                login=login,
                name=name,
                reason=reason,
                case=case,
                stills=stills,
                command=command,
                since_s=now,
                since_utc_ns=self._clock.utc().utc_ns,
                page_s=now,
                until_s=now + self._settings.seconds,
            )
            self._views[view] = made
            return copy.copy(made)

    def look(self, view: str, login: str) -> View | None:
        """How it stands; asking says that somebody looks. None: there is no such view of this person."""
        with self._lock:
            found = self._of(view, login)
            if found is None:
                return None
            found.page_s = self._now()
            return copy.copy(found)

    def more(self, view: str, login: str) -> bool:
        """Asks the post for another grant. False: there is nothing to go on with. Raises WardpostError."""
        with self._lock:
            found = self._of(view, login)
            if found is None or found.over:
                return False
            self._keep(found, self._settings.seconds)
            return True

    def end(self, view: str, login: str) -> None:
        """Enough."""
        with self._lock:
            found = self._of(view, login)
            if found is not None and not found.over:
                self._over(found, "ended by the viewer", tell=True)

    # -- the station's thread -----------------------------------------------------------------------------------------

    def outgoing(self) -> list[Message]:
        """What is to be published, once."""
        with self._lock:
            found = list(self._out)
            self._out.clear()
            return found

    def hears(self, node: str, reply: wire.Reply) -> bool:
        """Takes an answer of a post; False when it is to something else."""
        with self._lock:
            for view in self._views.values():
                if view.node == node and reply.id == view.command:
                    self._answer(view, reply)
                    return True
                if view.node == node and reply.id in view.asked:
                    view.asked.discard(reply.id)
                    self._left(view, reply.result)
                    return True
        return False

    def tend(self) -> None:
        """Ends what nobody looks at, forgets what is over, and puts ends on the audit log. Often. Never raises."""
        now = self._now()
        with self._lock:
            for view in list(self._views.values()):
                why = "" if view.over else view.ends(now)
                if why:
                    self._over(view, why, tell=True)
                elif view.over and now - view.over_s > OVER_KEPT_S:
                    del self._views[view.id]
                elif not view.over and view.stills and view.answered and now - view.kept_s >= KEEP_S:
                    self._try_keep(view)
        self._settle()

    # -- under the lock -----------------------------------------------------------------------------------------------

    def _of(self, view: str, login: str) -> View | None:
        found = self._views.get(view)
        return found if found is not None and found.login == login else None

    def _answer(self, view: View, reply: wire.Reply) -> None:
        if view.over:
            return
        if reply.state != "accepted":
            pictures = reply.result.get("pictures")
            view.pictures = pictures if isinstance(pictures, int) else None
            self._over(view, str(reply.result.get("over") or reply.detail or reply.state)[:300], tell=False)
            return
        result = reply.result
        self._left(view, result)
        sdp, still = result.get("sdp"), result.get("still")
        if isinstance(sdp, str) and len(sdp) <= SDP_BYTES_MAX and not view.stills:
            view.sdp, view.answered = sdp, True
        if view.stills and isinstance(result.get("period_s"), int | float):
            view.period_s, view.answered = float(result["period_s"]), True
        if view.stills and isinstance(still, int) and still > view.still:
            jpeg = _jpeg(result.get("jpeg"))
            if jpeg:
                age_ms = result.get("age_ms")
                view.still, view.jpeg, view.age_ms = still, jpeg, age_ms if isinstance(age_ms, int) else 0
                self._try_keep(view)

    def _left(self, view: View, result: dict[str, Any]) -> None:
        left_s, watching = result.get("left_s"), result.get("watching")
        if isinstance(left_s, int | float) and 0 <= left_s <= 3600:
            view.until_s = self._now() + float(left_s)
        if isinstance(watching, list):
            view.watching = tuple(str(one)[:100] for one in watching[:8])

    def _try_keep(self, view: View) -> None:
        try:
            self._keep(view, 0)
        except WardpostError as error:
            log.error("live: %s", error)  # noqa: TRY400

    def _keep(self, view: View, seconds: float) -> None:
        command = self._new_id()
        if len(view.asked) >= ASKED_MAX:
            view.asked.clear()  # their answers were lost
        self._send(view.node, command, {"view": view.id, "do": "more", "seconds": seconds, "got": view.still})
        view.asked.add(command)
        view.kept_s = self._now()

    def _over(self, view: View, why: str, *, tell: bool) -> None:
        view.over, view.over_s, view.jpeg, view.sdp = why, self._now(), b"", ""
        self._owed.append(copy.copy(view))
        log.info("live view of %s by %s is over: %s", view.node, view.login, why)
        if tell:
            try:
                self._send(view.node, self._new_id(), {"view": view.id, "do": "end"})
            except WardpostError as error:
                log.error("live: %s", error)  # noqa: TRY400  (the post ends it by itself)

    def _send(self, node: str, command: str, args: dict[str, Any]) -> None:
        expires = rfc3339(self._clock.utc().utc_ns + round(COMMAND_LIFE_S * NS))
        made = signed(
            command_key(self._key),
            site=self._site,
            node=node,
            verb="live",
            args=args,
            command_id=command,
            expires=expires,
        )
        self._out.append(Message(wire.Topics(self._site, node).command("live"), wire.encode(made)))
        self._wake()

    def _settle(self) -> None:
        while self._owed and self.ended is not None:
            try:
                self.ended(self._owed[0])
            except Transient as error:
                log.error("live: the end of a view is not on the audit log yet: %s", error)  # noqa: TRY400
                return
            self._owed.popleft()

    def _now(self) -> float:
        return self._clock.boot_ns() / NS


def _jpeg(value: object) -> bytes:
    """A JPEG out of an answer; empty for what is none."""
    if not isinstance(value, str) or len(value) > JPEG_BYTES_MAX * 2:
        return b""
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if len(data) <= JPEG_BYTES_MAX and data.startswith(b"\xff\xd8") else b""
