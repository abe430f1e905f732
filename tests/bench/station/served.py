"""A station with its pages as it is installed, and somebody who looks at them: plain HTTP on loopback, as behind a proxy."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

from agent.clock import SystemClock
from agent.demo.programs import free_port
from agent.disk import PosixDisk
from agent.station.db import migrate
from agent.station.db.engine import database_url, open_engine
from agent.station.people.passwords import Passwords
from agent.station.people.registry import Registry
from agent.station.people.roles import Person, Role, scope_of
from agent.station.people.trail import Trail
from tests.bench.programs import Program, python

HOST = "desk.bench"
ORIGIN = f"https://{HOST}"
PASSWORD = "a goose on the roof"
START_S_MAX = 60.0
ANSWER_S_MAX = 60.0
IDLE_S_MAX = 1.0


@dataclass(frozen=True, slots=True)
class Desk:
    """A station that serves."""

    program: Program
    port: int
    visitors: contextlib.ExitStack

    def visitor(self, login: str) -> Visitor:
        """Somebody who has logged in; who leaves when the station has ended."""
        return self.visitors.enter_context(contextlib.closing(Visitor(self.port, login)))


def people(
    folder: Path,
    wanted: Sequence[tuple[str, Role, tuple[str, ...]]],
    *,
    database: str = "",
    site: str = "bench",
    station: str = "desk",
) -> None:
    """Gives them accounts, before the station starts: (login, role, posts)."""
    clock = SystemClock()
    engine = open_engine(database_url(folder, database), pooled=False)
    migrate.upgrade(engine)
    trail = Trail(engine, clock=clock, site=site, station=station, disk=PosixDisk(folder))
    trail.open()
    registry = Registry(engine, trail=trail, clock=clock)
    kept = Passwords().hash(PASSWORD)
    for login, role, posts in wanted:
        registry.add(Person(login, login, role, scope_of(role, posts)), password=kept, by="account:bench")
    engine.dispose()


@contextlib.contextmanager
def served(folder: Path, *, broker_port: int, database: str = "", more: str = "") -> Iterator[Desk]:
    """A station on `folder / "data"`, which may have been filled; it answers when this yields."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    port = free_port()
    path = folder / "station.toml"
    path.write_text(
        f'[station]\nsite = "bench"\nid = "desk"\ndata = {json.dumps(os.fspath(data))}\n'
        f"database = {json.dumps(database)}\n"
        "late_s = 3600\ndark_s = 86400\n"  # else all posts of a store that was filled fall silent meanwhile
        f'[broker]\nbrokers = ["mqtt://127.0.0.1:{broker_port}"]\nbackoff_s_max = 1.0\n'
        f'[web]\nlisten = "127.0.0.1:{port}"\norigin = "{ORIGIN}"\nbehind_proxy = true\n'
        f"[archive]\nfree_gb_min = 0.0\n{more}"
    )
    with (
        contextlib.ExitStack() as visitors,
        Program(python("agent.cli", "station", "--config", str(path)), log=folder / "station.log") as program,
    ):
        deadline = time.monotonic() + START_S_MAX
        while not answers(port):
            program.need_alive()
            if time.monotonic() > deadline:
                raise RuntimeError(f"the pages do not come up within {START_S_MAX:g} s; see {program.log}")
            time.sleep(0.02)
        yield Desk(program, port, visitors)


def answers(port: int) -> bool:
    """Whether the login page is there."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S_MAX)
        with contextlib.closing(connection):
            connection.request("GET", "/login", headers={"Host": HOST})
            return connection.getresponse().status == 200
    return False


class Visitor:
    """A browser, as far as a bench needs one: a connection that stays, and a session's cookie."""

    def __init__(self, port: int, login: str) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S_MAX)
        self._streams: list[http.client.HTTPConnection] = []
        self._cookies: dict[str, str] = {}
        self._used = 0.0
        page = self.get("/login")
        form = re.search(rb'name="form" value="(\w+)"', page)
        if form is None:
            raise RuntimeError("the login page has no form")
        status, _ = self.send("POST", "/login", {"form": form[1].decode(), "login": login, "password": PASSWORD})
        if status != 303:
            raise RuntimeError(f"{login} cannot log in: {status}")

    def get(self, path: str) -> bytes:
        """A page. Raises RuntimeError when it is refused."""
        status, body = self.send("GET", path)
        if status != 200:
            raise RuntimeError(f"{path}: {status}")
        return body

    def send(
        self, method: str, path: str, fields: dict[str, str] | None = None, *, part: tuple[int, int] | None = None
    ) -> tuple[int, bytes]:
        """Status and body. `part`: first byte and how many."""
        if time.monotonic() - self._used > IDLE_S_MAX:
            self._connection.close()  # the next request opens it: the server may have given it up meanwhile
        headers = {**self.headers(), "Accept": "text/html"}
        if part is not None:
            headers["Range"] = f"bytes={part[0]}-{sum(part) - 1}"
        if fields is not None:
            headers |= {"Origin": ORIGIN, "Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request(method, path, None if fields is None else urlencode(fields), headers)
        answer = self._connection.getresponse()
        body = answer.read()
        self._used = time.monotonic()
        for told in answer.headers.get_all("Set-Cookie") or []:
            self._cookies |= {name: morsel.value for name, morsel in SimpleCookie(told).items()}
        return answer.status, body

    def stream(self, path: str) -> http.client.HTTPResponse:
        """On a connection of its own; lines are read as they come."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S_MAX)
        self._streams.append(connection)
        connection.request("GET", path, headers={**self.headers(), "Accept": "text/event-stream"})
        return connection.getresponse()

    def close(self) -> None:
        """Leaves. Whoever reads a stream has come to its end before: the station is gone by then."""
        for connection in (self._connection, *self._streams):
            connection.close()

    def headers(self) -> dict[str, str]:
        """Who asks."""
        return {"Host": HOST, "Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
