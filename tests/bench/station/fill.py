"""A store with a month of a ward in it, made in seconds: what the pages are timed on.

500 posts; every fourth event begins an incident: what started, its picture, an update, its end. A fifth of the incidents
are alerts, one in 500 is a bell, and one alert in 50 was never acknowledged. The first LEDGERS posts have a week of
their ledger, a line for each file of 30 s. Rows are written past the station's own code, signatures are not made: no
page checks them again. The same number gives the same rows.
"""

from __future__ import annotations

import base64
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pg8000  # type: ignore[import-untyped]
from sqlalchemy import make_url

from agent import wire
from agent.clock import rfc3339
from agent.evidence import dsse, records
from agent.evidence.records import Fact, RecordKind
from agent.station.db import migrate
from agent.station.db.engine import FILE, database_url, open_engine
from agent.station.search.keeper import MARK
from agent.station.search.meaning import fold
from agent.types import NS, EndReason, Segment

POSTS = 500
PER_INCIDENT = 4
ALERT_EVERY = 5
BELL_EVERY = 500
OPEN_EVERY = 50
DAYS = 30
LEDGERS = 8
LEDGER_DAYS = 7
SEGMENT_S = 30
JPEG_BYTES = 600
DEADLINE_NS = 300 * NS
ROOT = "a" * 64
SITE = "bench"
COMMIT_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Filled:
    """What lies there. Times are UTC ns."""

    events: int
    alerts: int
    now_utc_ns: int
    incidents: tuple[tuple[str, str], ...]  # some alerts, over all of the time, each with its post
    posts: tuple[str, ...]
    lines: int


class Sink(Protocol):
    """Takes rows of a table."""

    def __call__(self, table: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]], /) -> None: ...


def post(number: int) -> str:
    """The name of a post."""
    return f"post-{number:03d}"


def incident(number: int) -> str:
    """Of an incident: in order of time, as UUIDs of version 7 are."""
    return f"0190{number >> 16:04x}-{number & 0xFFFF:04x}-7000-8000-{number * 2654435761 % (1 << 48):012x}"


def fill(folder: Path, *, events: int, now_utc_ns: int, database: str = "", seed: int = 1) -> Filled:
    """Makes the tables, and `events` events and what hangs on them. `database`: a PostgreSQL's URL."""
    url = database_url(folder, database)
    engine = open_engine(url, pooled=False)
    migrate.upgrade(engine)
    engine.dispose()
    if database:
        parsed = make_url(database)
        password = Path(str(parsed.query["password_file"])).read_text().strip()
        with closing(pg8000.connect(user=parsed.username or "", password=password, host=parsed.host or "",
                                    port=parsed.port or 5432, database=parsed.database)) as server:  # fmt: skip
            return _fill(_Copy(server), events, now_utc_ns, seed)
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as db:
        db.execute("pragma synchronous=off")
        db.execute("pragma journal_mode=off")
        db.execute("begin")
        filled = _fill(_Insert(db), events, now_utc_ns, seed)
        db.execute("commit")
        db.execute("pragma journal_mode=wal")
    return filled


class _Insert:
    """Into SQLite."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __call__(self, table: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" for _ in columns)
        self._db.executemany(f"insert into {table} ({', '.join(columns)}) values ({marks})", rows)


class _Copy:
    """Into PostgreSQL. Its counters go on behind the numbers that were given."""

    def __init__(self, db: pg8000.Connection) -> None:
        self._db = db

    def __call__(self, table: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
        cursor = self._db.cursor()
        cursor.execute(f"copy {table} ({', '.join(columns)}) from stdin", stream=_lines(rows))
        if table in _COUNTED:
            counter = columns[0]
            cursor.execute(
                f"select setval(pg_get_serial_sequence('{table}', '{counter}'), (select max({counter}) from {table}))"
            )
        self._db.commit()


def _lines(rows: Iterable[tuple[Any, ...]]) -> Iterator[bytes]:
    """In the text format of COPY; no text here has anything in it that would need an escape."""
    for row in rows:
        yield b"\t".join(map(_cell, row)) + b"\n"


def _cell(value: Any) -> bytes:
    if value is None:
        return b"\\N"
    return b"\\\\x" + value.hex().encode() if isinstance(value, bytes) else str(value).encode()


_COUNTED = ("stream", "event", "alert_step", "line")


def _fill(sink: Sink, events: int, now_utc_ns: int, seed: int) -> Filled:
    draw = random.Random(seed)
    stories = _stories(events, now_utc_ns, draw)
    names = tuple(post(number) for number in range(POSTS))
    sink("meta", ("key", "value"), [("site", SITE)])
    sink("node", _NODE, ((name, f"Street {n}", "bench", 1, "b" * 32, 1, now_utc_ns, "online", now_utc_ns,
                          _heartbeat(name, now_utc_ns)) for n, name in enumerate(names)))  # fmt: skip
    heads = Counter(story.post for story in stories)
    sink(
        "stream",
        ("stream", "node", "epoch", "head"),
        ((n + 1, names[n], epoch(n), heads[n] * PER_INCIDENT) for n in range(POSTS)),
    )
    sink("event", _EVENT, _events(stories, _pictures(draw)))
    alerts = [story for story in stories if story.severity != "notice"]
    for number, story in enumerate(alerts):
        story.settled = number % OPEN_EVERY != 0
        story.verdict = ("true", "false", None, None)[number % 4] if story.settled else None
    sink("alert", _ALERT, (_alert(number, story) for number, story in enumerate(alerts)))
    sink("alert_step", _STEP, _steps(alerts))
    sink("incident", _INCIDENT, map(_incident, stories))
    sink("board_mark", ("key", "value"), [(key, len(stories) * PER_INCIDENT) for key in ("event", MARK)])
    lines = LEDGER_DAYS * 86_400 // SEGMENT_S if events >= 100_000 else 200
    for number, name in enumerate(names[:LEDGERS]):
        sink("line", _LINE, _ledger(number * lines, lines, name, now_utc_ns, draw))
        sink("ledger", ("node", "root", "epoch", "seq", "head"), [(name, ROOT, epoch(number), lines, "0" * 64)])
    some = tuple((story.incident, post(story.post)) for story in alerts[:: max(len(alerts) // 5000, 1)])
    return Filled(len(stories) * PER_INCIDENT, len(alerts), now_utc_ns, some, names, LEDGERS * lines)


def events(count: int, *, now_utc_ns: int, seed: int) -> Iterator[tuple[int, int, int, str, str, str, int, bytes]]:
    """(n, stream, sequence, id, kind, incident, received_utc_ns, message), in order; post N is of stream N + 1."""
    draw = random.Random(seed)
    return _events(_stories(count, now_utc_ns, draw), _pictures(draw))


def _stories(count: int, now_utc_ns: int, draw: random.Random) -> list[_Story]:
    stories = [_Story(number, now_utc_ns, count, draw) for number in range(count // PER_INCIDENT)]
    heads = [0] * POSTS
    for story in stories:
        story.sequence = heads[story.post]
        heads[story.post] += PER_INCIDENT
    return stories


def _pictures(draw: random.Random) -> list[bytes]:
    return [base64.b64encode(b"\xff\xd8\xff" + draw.randbytes(JPEG_BYTES)) for _ in range(64)]


_NODE = ("node", "place", "version", "session", "seen_boot_id", "seen_ns", "seen_utc_ns", "state",
         "state_since_utc_ns", "heartbeat")  # fmt: skip
_EVENT = ("n", "stream", "sequence", "id", "kind", "incident", "received_utc_ns", "body")
_ALERT = ("incident", "node", "severity", "event", "raised_utc_ns", "due_utc_ns", "overdue_utc_ns", "ended",
          "acknowledged_by", "acknowledged_utc_ns", "verdict", "verdict_by", "picture", "changed")  # fmt: skip
_INCIDENT = ("incident", "node", "kind", "label", "severity", "at_utc_ns", "error_ms", "event", "picture", "zones",
             "words")  # fmt: skip
_STEP = ("n", "incident", "utc_ns", "what", "login", "text")
_LINE = ("n", "node", "root", "seq", "sha256", "prev", "kind", "received_utc_ns", "body")


class _Story:
    """One incident."""

    __slots__ = ("at_ns", "incident", "number", "post", "sequence", "settled", "severity", "verdict")

    def __init__(self, number: int, now_utc_ns: int, events: int, draw: random.Random) -> None:
        count = events // PER_INCIDENT
        self.number = number
        self.incident = incident(number)
        self.post = draw.randrange(POSTS)
        self.at_ns = now_utc_ns - (count - number) * (DAYS * 86_400 * NS // count)
        self.severity = "bell" if number % BELL_EVERY == 0 else "alert" if number % ALERT_EVERY == 0 else "notice"
        self.sequence = 0
        self.settled = True
        self.verdict: str | None = None


def _events(
    stories: Iterable[_Story], pictures: list[bytes]
) -> Iterator[tuple[int, int, int, str, str, str, int, bytes]]:
    kinds = (("person", "started"), ("thumbnail", "updated"), ("person", "updated"), ("person", "ended"))
    forms = {
        severity: [_form(kind, severity, phase) for kind, phase in kinds] for severity in ("notice", "alert", "bell")
    }
    n = 0
    for story in stories:
        name, life = post(story.post).encode(), epoch(story.post).encode()
        time, told = rfc3339(story.at_ns).encode(), story.incident.encode()
        for part, (kind, _) in enumerate(kinds):
            n += 1
            sequence = story.sequence + part + 1
            id_ = f"{story.incident[:18]}-8001-{n:012x}"
            jpeg = pictures[story.number % len(pictures)] if kind == "thumbnail" else b""
            body = forms[story.severity][part] % {
                b"id": id_.encode(), b"node": name, b"incident": told, b"time": time, b"epoch": life,
                b"sequence": sequence, b"jpeg": jpeg,
            }  # fmt: skip
            yield n, story.post + 1, sequence, id_, kind, story.incident, story.at_ns + part * NS, body


def _form(kind: str, severity: str, phase: str) -> bytes:
    """A message, with a name of printf's where each is another."""
    picture = kind == "thumbnail"
    made = wire.encode(
        wire.CloudEvent(
            id="@id@", source=f"wardpost/{SITE}/@node@", type=f"wardpost.{kind}", subject="@incident@", time="@time@",
            epoch="@epoch@", sequence=7777777, session=1, bootid="b" * 32, monons=1_234_567_890_123, timeerrms=40,
            data=wire.EventData(
                incident="@incident@",
                phase=phase,  # type: ignore[arg-type]
                severity="thumbnail" if picture else severity,  # type: ignore[arg-type]
                summary="" if picture else "A person at the gate (zone gate), 57 % sure",
                place="" if picture else "Street and number of @node@", label=None if picture else "person",
                score=None if picture else 0.57, box=None if picture else [0.31, 0.22, 0.45, 0.77],
                zones=[] if picture else ["gate"], since=None if picture else "@time@",
                jpeg="@jpeg@" if picture else None,
            ),
        )
    )  # fmt: skip
    made = made.replace(b"%", b"%%").replace(b"7777777", b"%(sequence)d")
    return re.sub(rb"@(\w+)@", rb"%(\1)b", made)


def _alert(number: int, story: _Story) -> tuple[Any, ...]:
    first = story.number * PER_INCIDENT + 1
    answered = story.at_ns + 60 * NS if story.settled else None
    return (
        story.incident, post(story.post), story.severity, first + 3, story.at_ns, story.at_ns + DEADLINE_NS,
        None if story.settled else story.at_ns + DEADLINE_NS, 1, "operator" if story.settled else None, answered,
        story.verdict, "operator" if story.verdict else None, first + 1, (number + 1) * len(_STEPS),
    )  # fmt: skip


_KINDS = {"bell": ("bell",), "alert": ("loiter", "zone", "line", "crowd"), "notice": ("seen",)}


def _incident(story: _Story) -> tuple[Any, ...]:
    """As it is searched for; what happened and what was seen are as many things as at a ward, whatever the messages say."""
    first, name = story.number * PER_INCIDENT + 1, post(story.post)
    kinds = _KINDS[story.severity]
    kind = "tamper" if story.number % 2000 == 1 else kinds[story.number // ALERT_EVERY % len(kinds)]
    label = ("person", "vehicle", "person", "motion", "person", "bicycle", "person")[story.number % 7]
    words = fold(f"Street and number of {name} gate A person at the gate (zone gate), 57 % sure")
    return (story.incident, name, kind, label, story.severity, story.at_ns, 40, first + 3, first + 1, "|gate|", words)


_STEPS = ("raised", "picture", "ended", "acknowledged")


def _steps(alerts: Iterable[_Story]) -> Iterator[tuple[Any, ...]]:
    """As many of each, so that the newest of each alert is known by counting; an open one was commented instead."""
    n = 0
    for story in alerts:
        for part, what in enumerate(_STEPS):
            n += 1
            done = what if what != "acknowledged" or story.settled else "comment"
            login = "operator" if part == len(_STEPS) - 1 else ""
            yield n, story.incident, story.at_ns + part * NS, done, login, ""


def _ledger(before: int, count: int, name: str, now_utc_ns: int, draw: random.Random) -> Iterator[tuple[Any, ...]]:
    """A start, and then file after file up to now."""
    boot_id = f"{draw.getrandbits(128):032x}"
    zero_ns = now_utc_ns - count * SEGMENT_S * NS
    for seq in range(1, count + 1):
        boot_ns = seq * SEGMENT_S * NS
        sha256 = f"{draw.getrandbits(256):064x}"
        kind, body = RecordKind.START, records.body(session=1, before=None)
        if seq > 1:
            made = Segment(
                name=f"segments/{seq:08d}.mp4", session=1, boot_id=boot_id, start_ns=boot_ns - SEGMENT_S * NS,
                end_ns=boot_ns, bytes=7_500_000, fragments=30, sha256=sha256, end_reason=EndReason.ROLLED, width=1280,
                height=720,
            )  # fmt: skip
            kind, body = RecordKind.SEGMENT, records.segment_body(made)
        fact = Fact(seq, kind, boot_id, boot_ns, zero_ns + boot_ns, 40_000_000, body)
        told = records.payload_of(fact, node=f"{SITE}/{name}", epoch=epoch(0), seq=seq, prev=sha256, receipt=sha256)
        raw = dsse.sign(records.PAYLOAD_TYPE, told, _Unsigned())
        yield before + seq, name, ROOT, seq, sha256, sha256, kind.value, zero_ns + boot_ns, raw


class _Unsigned:
    """In place of a key."""

    keyid = "0" * 32

    def sign(self, data: bytes) -> bytes:
        return bytes(64)


def _heartbeat(name: str, now_utc_ns: int) -> bytes:
    machine = wire.MachineState(**dict.fromkeys(wire.MachineState.__struct_fields__))
    return wire.encode(
        wire.Heartbeat(
            node=name, bootid="b" * 32, session=1, monons=1, version="bench", model="bench",
            clock=wire.ClockState(utc=rfc3339(now_utc_ns), errms=40, source="chrony"), camera=None, vision=None,
            recording=None, queue=None, machine=machine,
        )
    )  # fmt: skip


def epoch(number: int) -> str:
    """Of the store of a post."""
    return f"01900000-0000-7000-8000-{number:012x}"
