"""The desk behind a real uvicorn with a certificate of the site: the live stream, its bounds, and what bytes may do."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.cli import main
from agent.errors import ConfigError
from agent.station.people.roles import Role, Scope
from agent.station.web.desk import serve
from agent.station.web.keeper import Keeper
from agent.station.web.server import WebServer
from tests.e2e.brokers import free_port
from tests.fakes.database import fresh
from tests.fakes.desk import Ward

WITHIN_S = 120.0


class Served:
    """A ward on a port."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.clients: list[httpx.Client] = []
        self.streams: list[Stream] = []
        self.port = free_port()
        self.origin = f"https://127.0.0.1:{self.port}"
        self.trust = ssl.create_default_context(cafile=str(certificates / "ca" / "ca.pem"))
        self._fresh = fresh("sqlite", folder)
        self.ward = Ward(
            folder,
            self._fresh.__enter__(),
            listeners_max=4,
        )
        self.ward.settings = type(self.ward.settings)(
            origin=self.origin,
            listen=f"127.0.0.1:{self.port}",
            certificate=str(certificates / "desk" / "desk.pem"),
            key=str(certificates / "desk" / "desk.key"),
            listeners_max=4,
            connections_max=20,
        )
        self.ward.start()
        self.server = serve(self.ward.settings, self.ward.desk, close=lambda: None)
        self.server.start()

    def close(self) -> None:
        self.ward.desk.live.stop()  # a client may only be closed when nobody reads from it any more
        for stream in self.streams:
            stream._thread.join(WITHIN_S)
        for client in self.clients:
            client.close()
        self.server.stop()
        self.ward.close()

    def client(self, login: str) -> httpx.Client:
        """Logged in: its session was begun at the desk."""
        token = self.ward.desk.sessions.begin(login)
        cookies = {"__Host-wardpost": token}
        made = httpx.Client(base_url=self.origin, verify=self.trust, cookies=cookies, timeout=WITHIN_S)
        self.clients.append(made)
        return made


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site whose authority has made a certificate for the desk, twice: the second is for the same key."""
    root = tmp_path_factory.mktemp("site") / "site"
    assert main(["site", "init", str(root), "--site", "ward-7", "--broker", "127.0.0.1"]) == 0
    assert main(["site", "desk-cert", str(root), "127.0.0.1", "desk.example"]) == 0
    key = (root / "desk" / "desk.key").read_bytes()
    assert main(["site", "desk-cert", str(root), "127.0.0.1"]) == 0
    assert (root / "desk" / "desk.key").read_bytes() == key
    assert (root / "desk" / "desk.key").stat().st_mode & 0o077 == 0
    assert main(["site", "desk-cert", str(root), "not a host\n"]) == 78
    return root


@pytest.fixture
def served(tmp_path: Path, certificates: Path) -> Iterator[Served]:
    made = Served(tmp_path, certificates)
    made.ward.person("minh", Role.OPERATOR)
    made.ward.person("school", Role.SCHOOL, "gate-1")
    yield made
    made.close()


class Stream:
    """What a page hears, collected on a thread."""

    def __init__(self, served: Served, login: str, path: str = "/board/stream", **headers: str) -> None:
        self.events: list[tuple[str, str, Any]] = []
        self.status = 0
        self.lines = 0
        self.over = threading.Event()
        self._client, self._path, self._headers = served.client(login), path, headers
        served.streams.append(self)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        assert self._ready.wait(WITHIN_S)

    def _listen(self) -> None:
        try:
            with self._client.stream("GET", self._path, headers=self._headers) as answer:
                self.status = answer.status_code
                self._ready.set()
                fields: dict[str, str] = {}
                for line in answer.iter_lines():
                    self.lines += 1
                    if line == "" and "event" in fields:
                        self.events.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
                        fields = {}
                    elif ":" in line[1:]:
                        name, _, value = line.partition(": ")
                        fields[name] = value
        except httpx.HTTPError:
            pass
        finally:
            self._ready.set()
            self.over.set()

    def wait(self, what: Callable[[], object]) -> None:
        until_s = time.monotonic() + WITHIN_S
        while not what():
            assert time.monotonic() < until_s, self.events
            time.sleep(0.02)

    def leave(self) -> None:
        """The page is closed: its socket goes, as the browser's does."""
        for one in list(self._client._transport._pool.connections):  # type: ignore[attr-defined]
            sock = one._connection._network_stream.get_extra_info("socket")
            sock.shutdown(socket.SHUT_RDWR)
        assert self.over.wait(WITHIN_S)

    def incidents(self) -> list[str]:
        return [data["incident"] for name, _, data in self.events if name == "alert"]


def test_an_alert_is_told_to_who_may_see_it_and_to_nobody_else(served: Served) -> None:
    minh, school = Stream(served, "minh"), Stream(served, "school")
    served.ward.hear(1, node="gate-2", severity="bell")
    served.ward.hear(2, node="gate-1")
    minh.wait(lambda: len(minh.incidents()) == 2)
    school.wait(school.incidents)
    assert len(school.incidents()) == 1
    name, number, data = minh.events[0]
    assert (name, data["ringing"], data["open"]) == ("alert", True, True)
    assert int(number) > 0 and "School gate" in data["html"] and data["incident"] in data["html"]
    assert "gate-2" not in json.dumps(school.events)


def test_a_page_that_was_away_hears_what_it_has_missed_once(served: Served) -> None:
    stream = Stream(served, "minh")
    first = served.ward.hear(1)
    stream.wait(stream.incidents)
    number = stream.events[-1][1]
    second, third = served.ward.hear(2), served.ward.hear(3)
    again = Stream(served, "minh", **{"last-event-id": number})
    again.wait(lambda: len(again.incidents()) == 2)
    assert again.incidents() == [second, third]
    stream.leave()
    other = Stream(served, "minh", path=f"/board/stream?after={int(number) - 1}")
    other.wait(lambda: len(other.incidents()) == 3)
    assert other.incidents() == [first, second, third]
    assert served.client("minh").get("/board/stream?after=x").status_code == 400


def test_listeners_are_bounded_and_their_places_are_given_back(served: Served) -> None:
    served.ward.person("lan", Role.OPERATOR)
    theirs = [Stream(served, login) for login in ("minh", "minh", "school", "school")]
    assert [one.status for one in theirs] == [200] * 4
    lan = Stream(served, "lan")
    assert lan.status == 200 and theirs[0].over.wait(WITHIN_S), "who has none gets one of somebody's two"
    assert theirs[0].events[-1] == ("crowded", "", {})
    refused = served.client("lan").get("/board/stream")
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0, "a second one is nobody's due"
    theirs[1].leave()
    until_s = time.monotonic() + WITHIN_S
    while served.ward.desk.live.full("lan", ""):
        served.ward.hear(int(time.monotonic() * 1000) % 10**6)  # a word to who has gone tells the server
        assert time.monotonic() < until_s
        time.sleep(0.1)
    second, third = Stream(served, "lan"), Stream(served, "school")
    assert (second.status, third.status) == (200, 200)
    assert theirs[2].over.wait(WITHIN_S), "one too many of the school ends the school's oldest"
    assert theirs[2].events[-1] == ("crowded", "", {})


def test_a_stream_ends_with_its_session(served: Served) -> None:
    stream = Stream(served, "school")
    served.ward.desk.registry.set_role("school", Role.AUDITOR, Scope(True), by="account:test")
    served.ward.hear(1, node="gate-2")
    assert stream.over.wait(WITHIN_S)
    assert [name for name, _, _ in stream.events] == ["left"]


def test_the_database_is_in_the_way_and_every_page_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(served, "minh")
    live = served.ward.desk.live
    from agent.errors import Transient

    def refuse() -> bool:
        raise Transient("the disk is full")

    monkeypatch.setattr(served.ward.desk.alerts, "take_in", refuse)
    stream.wait(lambda: ("state", "", {"sick": True}) in stream.events)
    monkeypatch.undo()
    stream.wait(lambda: stream.events[-1] == ("state", "", {"sick": False}))
    assert not live.sick


def test_the_server_ends_in_bounded_time_with_pages_open(served: Served) -> None:
    streams = [Stream(served, "minh") for _ in range(2)]
    begin = time.monotonic()
    served.server.stop()
    assert time.monotonic() - begin < WITHIN_S, "it does not wait for the pages, which would never go"
    assert all(stream.over.wait(WITHIN_S) for stream in streams)
    assert not served.server.running


def raw(served: Served, data: bytes) -> bytes:
    """An answer to bytes that no client would send."""
    with served.trust.wrap_socket(
        socket.create_connection(("127.0.0.1", served.port), timeout=WITHIN_S), server_hostname="127.0.0.1"
    ) as tls:
        found = b""
        with suppress(ConnectionError, ssl.SSLEOFError):  # who hangs up with our bytes unread resets the connection
            tls.sendall(data)
            while chunk := tls.recv(65536):
                found += chunk
        return found


@pytest.mark.parametrize(
    "target",
    [
        "/assets/../../../../etc/passwd", "/assets/..%2f..%2fgate.py", "/alerts/../assets/../words.en.json", "//evil.example/",
        "/assets/desk.css%00.js", "/assets/.%2e/words.en.json", "/./login/../..//", "/\\evil.example", "/login?x=%0d%0aSet-Cookie:a=b",
    ],
)  # fmt: skip
def test_paths_that_no_client_would_send_find_no_file(served: Served, target: str) -> None:
    host = f"127.0.0.1:{served.port}"
    answer = raw(served, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    status = int(answer.split(b" ")[1])
    assert status in (404, 400) or (status == 200 and target.startswith("/login"))
    assert b"root:" not in answer and b"import" not in answer and b"a=b" not in answer and b"evil" not in answer


def test_heads_without_end_and_plain_http_get_nothing(served: Served) -> None:
    host = f"Host: 127.0.0.1:{served.port}\r\n"
    answer = raw(served, f"GET / HTTP/1.1\r\n{host}".encode() + b"X: " + b"y" * 100_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 4") or answer == b"", (
        "too long, or whole at once and of nobody who is logged in"
    )
    with socket.create_connection(("127.0.0.1", served.port), timeout=WITHIN_S) as plain:
        plain.sendall(b"GET /login HTTP/1.1\r\nHost: x\r\n\r\n")
        with suppress(ConnectionError):
            assert b"Wardpost" not in plain.recv(4096)
    assert served.client("minh").get("/").status_code == 200, "and the desk works on"


def test_two_hosts_in_one_request_are_refused(served: Served) -> None:
    data = f"GET /login HTTP/1.1\r\nHost: evil.example\r\nHost: 127.0.0.1:{served.port}\r\nConnection: close\r\n\r\n"
    assert b"200 OK" not in raw(served, data.encode())


def test_an_address_that_is_taken_and_a_key_that_does_not_fit_are_told_at_the_start(
    served: Served, certificates: Path
) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        serve(served.ward.settings, served.ward.desk, close=lambda: None).start()
    other = type(served.ward.settings)(
        origin=served.origin,
        listen=f"127.0.0.1:{free_port()}",
        certificate=str(certificates / "desk" / "desk.pem"),
        key=str(certificates / "ca" / "ca.key"),
    )
    with pytest.raises(ConfigError, match="cannot be used"):
        serve(other, served.ward.desk, close=lambda: None).start()


@contextmanager
def kept(served: Served, make: Callable[[], WebServer]) -> Iterator[Keeper]:
    keeper = Keeper(make, clock=served.ward.clock)
    try:
        yield keeper
    finally:
        keeper.stop()


def test_a_web_server_that_ends_by_itself_is_started_again_and_nobody_else_suffers(served: Served) -> None:
    served.server.stop()
    made: list[WebServer] = []

    def make() -> WebServer:
        served.ward.start()
        made.append(serve(served.ward.settings, served.ward.desk, close=lambda: None))
        return made[-1]

    with kept(served, make) as keeper:
        keeper.tend()
        keeper.tend()
        assert len(made) == 1 and made[0].running
        made[0]._server.should_exit = True
        until_s = time.monotonic() + WITHIN_S
        while made[0].running and time.monotonic() < until_s:
            time.sleep(0.02)
        keeper.tend()
        assert len(made) == 1, "not in a tight circle"
        served.ward.clock.advance(6)
        keeper.tend()
        assert len(made) == 2
        until_s = time.monotonic() + WITHIN_S
        while True:
            try:
                assert served.client("minh").get("/").status_code == 200
                break
            except httpx.ConnectError:
                assert time.monotonic() < until_s
