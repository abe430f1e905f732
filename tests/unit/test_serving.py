"""What both servers of a station hold to: no address that a client has written itself, and bounds for whoever asks."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent.demo.programs import free_port
from agent.station import serving
from agent.station.web.server import WebServer
from agent.station.web.settings import Listening

WITHIN_S = 30.0
FORGED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Forwarded": "for=203.0.113.9;proto=https"}


class Caller:
    """An application that tells who it believes has called, and can be held up."""

    def __init__(self) -> None:
        self.going_on = threading.Event()
        self.inside = threading.Semaphore(0)
        self.app = Starlette(routes=[Route("/", self._who), Route("/slow", self._slow)])

    async def _who(self, request: Request) -> Response:
        return JSONResponse({"host": request.client.host if request.client else "", "scheme": request.url.scheme})

    def _slow(self, _request: Request) -> Response:
        self.inside.release()
        self.going_on.wait(WITHIN_S)
        return JSONResponse({})


@contextmanager
def served(app: Starlette, *, at_once_max: int = 64) -> Iterator[int]:
    """By the servers' own configuration, on a port that is bound before it is told."""
    with serving.listener("127.0.0.1", 0) as listener:
        server = serving.Server(serving.configured(app, at_once_max=at_once_max))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(WITHIN_S)
            assert not thread.is_alive()


def ask(port: int, path: str = "/", **headers: str) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_client_on_this_machine_cannot_say_that_it_is_somebody_else() -> None:
    with served(Caller().app) as port:
        status, body = ask(port, **FORGED)
    assert status == 200
    assert json.loads(body) == {"host": "127.0.0.1", "scheme": "http"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_answer_does_not_wait_for_the_acknowledgement_of_the_one_before(host: str) -> None:
    """By Nagle's rule a small packet waits while another is on its way: 40 ms of each page and of each upload."""
    try:
        listening = serving.listener(host, 0)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    accepted: list[socket.socket] = []

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(transport.get_extra_info("socket"))
            off.append(accepted[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            made.set()

    async def accept() -> None:
        server = await asyncio.get_running_loop().create_server(Accepted, sock=listening)
        async with server:
            _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            await asyncio.wait_for(made.wait(), WITHIN_S)
            writer.close()
            await writer.wait_closed()

    off: list[int] = []
    made = asyncio.Event()
    asyncio.run(accept())
    assert off == [1]


def test_a_head_that_never_ends_is_refused_long_before_it_fills_the_memory() -> None:
    with served(Caller().app) as port:
        assert ask(port, **{"X-Long": "a" * (serving.HEAD_BYTES_MAX // 2)})[0] == 200
        with socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
            sent = 0
            try:
                while sent < 64 * serving.HEAD_BYTES_MAX:
                    sent += raw.send(b"a" * 4096)
                answer = raw.recv(100)
            except ConnectionError:
                answer = b""
        assert not answer or answer.startswith(b"HTTP/1.1 4")
        assert ask(port)[0] == 200, "the others do not notice"


def test_more_at_once_than_the_bound_are_sent_away_and_not_kept_waiting() -> None:
    caller = Caller()
    with served(caller.app, at_once_max=2) as port:
        held = threading.Thread(target=ask, args=(port, "/slow"))
        held.start()
        assert caller.inside.acquire(timeout=WITHIN_S)
        with socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S):
            assert ask(port)[0] == 503
        caller.going_on.set()
        held.join(WITHIN_S)
        until_s = time.monotonic() + WITHIN_S
        while ask(port)[0] != 200:  # the ones that have left are noticed soon
            assert time.monotonic() < until_s


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n|GET / HT"])
def test_who_never_asks_or_never_ends_asking_keeps_nobody_else_out(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one has asked once, properly."""
    monkeypatch.setattr(serving, "HEAD_S", 0.5)
    with served(Caller().app, at_once_max=4) as port, ExitStack() as open_ones:
        for _ in range(4):
            raw = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S))
            first, _, rest = said.partition(b"|")
            raw.sendall(first)
            if rest:
                assert raw.recv(1)
                raw.sendall(rest)
        until_s = time.monotonic() + WITHIN_S
        while ask(port)[0] != 200:
            assert time.monotonic() < until_s


def test_a_connection_that_says_nothing_does_not_hold_up_the_end() -> None:
    with served(Caller().app) as port:
        raw = socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S)
        assert ask(port)[0] == 200
    try:
        assert raw.recv(1) == b"", "closed, not left behind"
    except ConnectionError:
        pass
    finally:
        raw.close()


def test_neither_server_tells_what_it_is_made_of() -> None:
    with served(Caller().app) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)
        connection.request("GET", "/")
        assert connection.getresponse().getheader("Server") is None
        connection.close()


def test_only_one_module_makes_a_servers_configuration() -> None:
    from pathlib import Path

    made = [
        path.name
        for path in (Path(serving.__file__).parent).rglob("*.py")
        if "uvicorn.Config(" in path.read_text(encoding="utf-8")
    ]
    assert made == ["serving.py"], "whoever makes one of his own forgets proxy_headers=False"


def test_the_bound_must_be_one() -> None:
    with pytest.raises(ValueError, match="at_once_max"):
        serving.configured(Caller().app, at_once_max=0)


class _Nothing:
    """Nobody's board is open."""

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


def test_who_comes_before_the_servers_thread_waits_and_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine lets the thread begin late: until then the kernel keeps whoever has connected."""
    late = threading.Event()
    run = serving.Server.run

    def held_up(self: serving.Server, sockets: list[socket.socket] | None = None) -> None:
        late.wait(WITHIN_S)
        run(self, sockets)

    monkeypatch.setattr(serving.Server, "run", held_up)
    port = free_port()
    server = WebServer(
        Caller().app, _Nothing(),  # type: ignore[arg-type]
        at=Listening("127.0.0.1", port, secure=False), certificate="", key="", connections_max=8,
        close=lambda: None,
    )  # fmt: skip
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S) as early:
            late.set()
            early.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert early.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        late.set()
        server.stop()
