"""How a station serves HTTP, whoever is served: uvicorn, with the same bounds for posts and for people.

No header of a client ever says who it is (`proxy_headers`): uvicorn believes X-Forwarded-For of anybody on this machine
unless it is told not to. Where a proxy stands in front, the gate of the pages reads it itself (web.behind_proxy).
"""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

KEEP_ALIVE_S = 30
"""A connection that asks for nothing more is closed after so long."""
HEAD_S = 10.0
"""The line and headers of a request must be here so long after the connection, or after their first byte."""
GRACEFUL_S = 3
"""What is at work when the server is told to end has so long."""
HEAD_BYTES_MAX = 16 * 1024
"""Of a request's line and headers, all together."""


class Protocol(H11Protocol):
    """uvicorn counts a connection as soon as there is one, and closes it for silence only behind its first answer: who
    never asks, or never ends asking, would keep a place from everybody else.
    """

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._mind_the_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._mind_the_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _mind_the_head(self) -> None:
        if self._at_work():
            self._forget()
        elif self._due is None:
            self._due = self.loop.call_later(HEAD_S, self._late)

    def _at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _forget(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _late(self) -> None:
        self._due = None
        if not self._at_work() and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn leaves behind the connections that do not end within its grace: nobody would ever close them."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
        await asyncio.sleep(0)  # the transports close in the loop's next round


def listener(host: str, port: int) -> socket.socket:
    """Bound, and listening: who comes before the server's thread waits, and is not refused. Raises OSError.

    It names its protocol, for asyncio turns Nagle off only where that is told: else a kept connection waits 40 ms for
    each answer.
    """
    six = ":" in host
    made = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen()
    except BaseException:
        made.close()
        raise
    return made


def configured(app: Starlette, *, at_once_max: int, certificate: str = "", key: str = "") -> uvicorn.Config:
    """HTTP/1.1, nothing else. `at_once_max`: connections, requests; more are answered 503.

    `certificate`, `key`: paths of PEM files, read when the server starts; empty: plain HTTP.
    """
    if at_once_max < 1:
        raise ValueError(f"at_once_max: {at_once_max}: nobody would be answered")
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=certificate or None,
        ssl_keyfile=key or None,
        limit_concurrency=at_once_max,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_S,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )
