"""uvicorn on a thread of its own, beside the station's: pages must not wait for messages, nor messages for pages."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from starlette.applications import Starlette

from agent.errors import ConfigError
from agent.station import serving
from agent.station.web.live import Live
from agent.station.web.settings import Listening

JOIN_S_MAX = 8.0

log = logging.getLogger(__name__)


class Beside(Protocol):
    """A thread that works for the pages."""

    def start(self) -> None:
        """Returns at once. Never raises."""

    def stop(self) -> None:
        """Bounded. Never raises."""


class WebServer:
    """Start and stop from one thread."""

    def __init__(
        self,
        app: Starlette,
        live: Live,
        *,
        at: Listening,
        certificate: str,
        key: str,
        connections_max: int,
        close: Callable[[], None],
        beside: Sequence[Beside] = (),
    ) -> None:
        """`beside`: runs as long as the server. `close`: what is to be let go when the last answer has been given."""
        self._live = live
        self._close = close
        self._beside = tuple(beside)
        self._at = at
        self._certificate, self._key = certificate, key
        self._server = serving.Server(
            serving.configured(app, at_once_max=connections_max, certificate=certificate, key=key)
        )
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Between start and stop, unless it has failed."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listens. Raises ConfigError: the certificate, or an address that cannot be had."""
        if self._certificate:
            _check_pair(self._certificate, self._key)
        listener = self._bind()
        self._live.start()
        for one in self._beside:
            one.start()
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, name="web")
        self._thread.start()
        log.info("pages at %s port %d", self._at.host, self._at.port)

    def stop(self) -> None:
        """Lets running answers end, within serving.GRACEFUL_S. Never raises."""
        self._live.stop()
        self._server.should_exit = True
        for one in self._beside:
            one.stop()
        if self._thread is not None:
            self._thread.join(JOIN_S_MAX)
            if self._thread.is_alive():
                log.error("the web server does not end; it is left behind")
        self._close()

    def _bind(self) -> socket.socket:
        try:
            return serving.listener(self._at.host, self._at.port)
        except OSError as error:
            where = f"{self._at.host} port {self._at.port}"
            raise ConfigError(f"web.listen: cannot listen on {where}: {error.strerror}") from None


def _check_pair(certificate: str, key: str) -> None:
    """Whether they can be read and belong together. Raises ConfigError."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"web.certificate, web.key: {certificate} and {key} cannot be used: {error.strerror or error}"
        ) from None
