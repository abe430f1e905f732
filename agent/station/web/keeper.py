"""Keeps the pages up while the station runs: what goes wrong with them must never stop the taking in of alerts."""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.clock import Clock
from agent.errors import ConfigError, WardpostError
from agent.station.web.server import WebServer
from agent.types import NS

AGAIN_S = 5.0

log = logging.getLogger(__name__)


class Keeper:
    """Of the station's thread."""

    def __init__(self, make: Callable[[], WebServer], *, clock: Clock) -> None:
        """`make` wires a server anew, or raises a WardpostError."""
        self._make = make
        self._clock = clock
        self._server: WebServer | None = None
        self._due_ns = 0
        self._started = False

    def tend(self) -> None:
        """Starts the server when it does not run, AGAIN_S after it has failed. Cheap.

        Raises ConfigError at the first start only: what cannot work is told to who starts the station.
        """
        if self._server is not None and self._server.running:
            return
        now = self._clock.boot_ns()
        if now < self._due_ns:
            return
        self._due_ns = now + int(AGAIN_S * NS)
        if self._server is not None:
            log.error("the web server has ended by itself; it is started again")
            self.stop()
        try:
            server = self._make()
            server.start()
        except WardpostError as error:
            if isinstance(error, ConfigError) and not self._started:
                raise
            log.error("no pages: %s; next attempt in %g s", error, AGAIN_S)  # noqa: TRY400
        else:
            self._server, self._started = server, True

    def stop(self) -> None:
        """Bounded. Never raises."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
