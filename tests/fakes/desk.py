"""A desk with its pages, a real store behind it, and visitors who come by HTTP without a network in between."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
from argon2 import PasswordHasher
from sqlalchemy import Connection

from agent import wire
from agent.errors import ConfigError
from agent.station.db.engine import open_engine
from agent.station.intake import EventIn
from agent.station.people.passwords import Passwords
from agent.station.people.roles import Person, Role, scope_of
from agent.station.store import Batch, StationStore
from agent.station.web.desk import make_desk
from agent.station.web.settings import WebSettings
from tests.fakes.clock import StandingClock
from tests.fakes.database import Database

ORIGIN = "https://desk.example"
PASSWORD = "a goose on the roof"
EPOCH = "01900000-0000-7000-8000-000000000001"
JPEG = b"\xff\xd8\xff\xe0 a small picture \xff\xd9"
PNG_LIE = b"<svg onload=alert(1)>"


def quick() -> Passwords:
    """Real Argon2, at costs for tests."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1), wait_s=0.2)


def incident(number: int) -> str:
    return f"01900000-0000-7000-8000-{number:012x}"


class Ward:
    """Headquarters. `clock` is driven by the test."""

    def __init__(self, folder: Path, database: Database, **settings: Any) -> None:
        self.clock = StandingClock(utc_ns=1_795_348_000 * 10**9)
        self.folder, self.database = folder, database
        self.store = StationStore(folder, clock=self.clock, site="ward-7", database=database.setting, station="hq")
        self.store.open()
        self.engine = open_engine(database.url, pooled=False)
        self.sent: list[tuple[str, ...]] = []
        self.broken_key = ""
        asked: dict[str, Any] = {"origin": ORIGIN, "behind_proxy": True} | settings
        self.settings = WebSettings(**asked)
        self.passwords = quick()
        self.desk = self.start()
        self._sequences: dict[str, int] = {}

    def start(self) -> Any:
        """The desk as after a restart of its program."""
        self.desk = make_desk(
            self.settings,
            engine=self.engine,
            folder=self.folder,
            site="ward-7",
            station="hq",
            clock=self.clock,
            send_verdict=self._send,
            passwords=self.passwords,
        )
        return self.desk

    def _send(self, _: Connection, *asked: str) -> str:
        if self.broken_key:
            raise ConfigError(self.broken_key)
        self.sent.append(asked)
        return incident(len(self.sent))

    def close(self) -> None:
        self.store.close()
        self.engine.dispose()

    def person(self, login: str, role: Role, *posts: str, name: str = "") -> Person:
        new = Person(login, name or login.capitalize(), role, scope_of(role, posts))
        self.desk.registry.add(new, password=self.passwords.hash(PASSWORD), by="account:test")
        return new

    def visitor(self, login: str = "", *, address: str = "192.0.2.7") -> Visitor:
        """A browser; logged in when a login is given."""
        made = Visitor(self, address)
        if login:
            assert made.log_in(login).status_code == 303
        return made

    def hear(self, number: int, *, node: str = "gate-2", **data: Any) -> str:
        """A message of a node about incident `number`, taken in by store and board. Returns the incident."""
        sequence = self._sequences[node] = self._sequences.get(node, 0) + 1
        outer: dict[str, Any] = {"time": "2026-11-22T07:02:11.250Z", "timeerrms": 3000, "monons": 1}
        outer |= {key: data.pop(key) for key in ("time", "timeerrms", "historical", "monons") if key in data}
        known: dict[str, Any] = {
            "phase": "started",
            "severity": "alert",
            "summary": "A person at the gate",
            "place": "School gate",
        }
        kind = data.pop("kind", "thumbnail" if data.get("severity") == "thumbnail" else "person")
        message = wire.CloudEvent(
            id=f"01900000-0000-7{sequence:03x}-8000-{int.from_bytes(node.encode()[-6:], 'big'):012x}",
            source=f"wardpost/ward-7/{node}",
            type=f"wardpost.{kind}",
            subject=incident(number),
            **outer,
            epoch=EPOCH,
            sequence=sequence,
            session=1,
            bootid="f" * 32,
            data=wire.EventData(incident=incident(number), **known | data),
        )
        body = wire.encode(message)
        taken = EventIn(node, EPOCH, sequence, message.id, kind, incident(number), body)
        stored = self.store.commit(Batch(taken=[taken]))
        assert [one.sequences for one in stored] == [[sequence]]
        while self.desk.alerts.take_in():
            pass
        return incident(number)

    def searchable(self) -> None:
        """What was heard until now can be searched for, as after a second."""
        self.clock.advance(1)
        while self.desk.keeper.take_in():
            pass

    def trail(self) -> list[dict[str, Any]]:
        """The audit log in plain words."""
        from agent.station.people.trail_line import said

        return [said(line) for line in self.desk.trail.lines()]

    def kinds(self) -> list[str]:
        return [line["kind"] for line in self.trail()]


class Visitor:
    """A browser, as far as cookies, forms and the headers of the fetch standard go."""

    def __init__(self, ward: Ward, address: str) -> None:
        self._ward = ward
        self._address = address
        self.cookies = httpx.Cookies()
        self.page = ""

    def send(
        self, method: str, path: str, *, headers: dict[str, str] | list[tuple[str, str]] | None = None, **more: Any
    ) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._ward.desk.app, client=(self._address, 1))
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, cookies=self.cookies) as client:
                answer = await client.request(method, path, headers=headers, **more)
                self.cookies = client.cookies
                return answer

        return asyncio.run(ask())

    def get(self, path: str, **headers: str) -> httpx.Response:
        answer = self.send("GET", path, headers={"accept": "text/html,*/*"} | headers)
        if answer.headers.get("content-type", "").startswith("text/html"):
            self.page = answer.text
        return answer

    def form(self) -> str:
        """The token of the last page's forms."""
        found = re.search(r'name="form" value="([0-9a-f]{64})"', self.page)
        return found[1] if found else ""

    def post(self, path: str, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        ours = {"origin": "null", "sec-fetch-site": "same-origin"}
        return self.send(
            "POST", path, headers=ours if headers is None else headers, data={"form": self.form(), **fields}
        )

    def log_in(self, login: str, password: str = PASSWORD) -> httpx.Response:
        self.get("/login")
        answer = self.post("/login", login=login, password=password)
        if answer.status_code == 303:
            self.get(answer.headers["location"])
        return answer
