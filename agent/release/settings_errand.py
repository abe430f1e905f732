"""Desired and reported settings over the node's own session: `config/desired` comes in, `config/reported` goes out.

Both are retained where the broker keeps such things. Where it does not, the station says again what it desires while
it hears this node and no answer, and the heartbeat carries what is reported.
"""

from __future__ import annotations

import logging

from agent import wire
from agent.errors import WardpostError
from agent.release.settings_desk import SettingsDesk
from agent.uplink import Send

log = logging.getLogger(__name__)


class SettingsErrand:
    """`agent.uplink.Errand`."""

    wants_new_connection = False

    def __init__(self, topics: wire.Topics, desk: SettingsDesk) -> None:
        self._topics, self._desk = topics, desk
        self.wishes: tuple[tuple[str, int], ...] = ((topics.desired, 1),)
        self._said = -1  # `desk.changes` when it was last reported

    def connected(self, denied: tuple[str, ...]) -> None:
        self._said = -1
        if self._topics.desired in denied:
            log.warning("the broker's access list does not let this node read %s", self._topics.desired)

    def disconnected(self) -> None:
        pass

    def step(self, now: float, send: Send) -> None:
        del now
        changes = self._desk.changes
        if self._said == changes:
            return
        self._said = changes
        try:
            told = self._desk.reported()
        except WardpostError as error:
            log.warning("settings are not reported now: %s", error)  # the next heartbeat or connection tells
            return
        send(self._topics.reported, wire.encode(told), retain=True)

    def received(self, topic: str, payload: bytes) -> bool:
        if topic != self._topics.desired:
            return False
        self._desk.desire(payload)
        return True
