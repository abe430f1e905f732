"""The station's database: made, brought up to date, refused, and what it says when something is wrong with it."""

from __future__ import annotations

import importlib
import itertools
import logging
import pkgutil
import random
import re
import shutil
import socket
import sqlite3
import struct
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, insert, inspect, make_url, text
from sqlalchemy.exc import DatabaseError

from agent import wire
from agent.cli import EX_CONFIG, main
from agent.errors import ConfigError, Corrupt, Transient
from agent.station import db as areas
from agent.station.db import engine as engines
from agent.station.db import metadata, migrate, tables
from agent.station.db.engine import database_url, open_engine, reading, writing
from agent.station.db.errors import name_of
from agent.station.db.migrate import upgrade as alembic_upgrade
from agent.station.intake import EventIn, HeartbeatIn, StatusIn
from agent.station.orders import OrderBook
from agent.station.reader import Reader
from agent.station.store import Batch, Reject, StationStore
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.unit.test_station import EPOCH, Beat, uid
from tests.unit.test_uplink import beat

pytestmark = pytest.mark.empty_database

SCHEMAS = Path(__file__).parent / "station_schemas"
ROWS = {
    "meta": "('site', 'ward-7'), ('deleted', '7')",
    "node": "('cam-7', 'Lane 12', '1.0', 4, 'online', 'b', 1, 2, 'dark', 3, x'7b7d')",
    "stream": f"(1, 'cam-7', '{EPOCH}', 1)",
    "event": "(5, 1, 1, 'id', 'person', null, 5, x'7b7d')",
    "reject": "(3, 1, 't', 'r', 9, x'00ff')",
    "change": "(4, 'cam-7', 'dark', 9, 8)",
    "key": f"('cam-7', 'k', '{'a' * 64}', 'k', 'pinned', 5)",
    "line": "(6, 'cam-7', 'k', 1, 's', 'p', 'install', 5, x'7b')",
    "carried": "(1, 2, 6)",
    "ledger": f"('cam-7', 'k', '{EPOCH}', 1, 's', 0, '')",
    "receipt": "(2, 'cam-7', 'k', 1, 5, x'7b')",
    "alarm": "('cam-7', 'fork', 2, 3, 4)",
    "rollout": "(1, 'r', 5, '{}')",
    "rollout_post": "(1, 'cam-7', '{}')",
    "rollout_log": "(1, 5, 'r', 'begun', 'ask-1')",
}


def old_store(path: Path, schema: int) -> dict[str, list[Any]]:
    """A file as an earlier station left it, with a row in each table. Returns what it holds."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma journal_mode=wal")
        db.executescript((SCHEMAS / f"schema_{schema}.sql").read_text())
        there = {name for (name,) in db.execute("select name from sqlite_master where type = 'table'")}
        for table, rows in ROWS.items():
            if table in there:
                db.execute(f"insert into {table} values {rows}")
        db.execute("insert into meta values ('schema', ?)", (str(schema),))
        db.commit()
        db.execute("delete from meta where key = 'schema'")
        found = {table: db.execute(f"select * from {table} order by 1").fetchall() for table in sorted(there)}
        db.rollback()
        return found


ADDED = {("node", "reason"), ("change", "reason")}
"""Columns that revisions have added; of what was there before they are empty."""


def held(path: Path, names: Any) -> dict[str, list[Any]]:
    """What is in these tables, in the columns of before."""
    with closing(sqlite3.connect(path)) as db:
        found = {}
        for table in sorted(names):
            columns = [name for (name,) in db.execute("select name from pragma_table_info(?)", (table,))]
            new = [name for name in columns if (table, name) in ADDED]
            assert all(db.execute(f"select 1 from {table} where {name} <> ''").fetchone() is None for name in new)
            old = ", ".join(f'"{name}"' for name in columns if name not in new)
            found[table] = db.execute(f"select {old} from {table} order by 1").fetchall()
        return found


def shape(engine: Engine) -> dict[str, Any]:
    """What a program can notice of a database: columns, keys, what is unique, what points where."""
    seen = inspect(engine)
    found: dict[str, Any] = {}
    for table in seen.get_table_names():
        if table == migrate.VERSIONS:
            continue
        keys = seen.get_pk_constraint(table)["constrained_columns"]
        found[table] = (
            sorted((c["name"], str(c["type"]), c["nullable"] and c["name"] not in keys) for c in seen.get_columns(table)),
            sorted(keys),
            sorted(sorted(u["column_names"]) for u in seen.get_unique_constraints(table)),
            sorted((f["constrained_columns"], f["referred_table"]) for f in seen.get_foreign_keys(table)),
            sorted((i["name"], i["column_names"]) for i in seen.get_indexes(table) if "autoindex" not in str(i["name"])),
            len(seen.get_check_constraints(table)),
        )  # fmt: skip
    return found


# -- made and brought up to date ----------------------------------------------------------------------------------------


def test_a_new_database_is_what_the_tables_say(database: Database) -> None:
    for area in pkgutil.iter_modules(areas.__path__, "agent.station.db."):
        importlib.import_module(area.name)
    engine = open_engine(database.url, pooled=False)
    alembic_upgrade(engine)
    with reading(engine) as db:
        assert migrate.revision(db) == migrate.newest()
        assert compare_metadata(MigrationContext.configure(db), metadata) == []


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_store_of_before_is_brought_up_to_date_with_everything_in_it(tmp_path: Path, schema: int) -> None:
    before = old_store(tmp_path / "station.db", schema)
    store = StationStore(tmp_path, clock=FakeClock(), site="ward-7", free_bytes=lambda _: 1 << 40)
    store.open()
    assert [one.node for one in store.nodes()] == ["cam-7"]
    stored = store.commit(Batch([EventIn("cam-7", EPOCH, 3, uid(3), "person", None, b"{}")]))
    assert stored[0].sequences == [3]
    store.close()
    with closing(sqlite3.connect(tmp_path / "station.db")) as db:
        db.execute("delete from event where sequence = 3")
        db.commit()
    assert held(tmp_path / "station.db", before) == {**before, "stream": [(1, "cam-7", EPOCH, stored[0].head)]}
    (tmp_path / "new").mkdir()
    fresh = open_engine(database_url(tmp_path / "new", ""), pooled=False)
    alembic_upgrade(fresh)
    assert shape(open_engine(database_url(tmp_path, ""), pooled=False)) == shape(fresh), "upgraded or new, it is one"


def test_a_power_cut_in_an_upgrade_leaves_the_store_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies before any statement of it; what the disk then has is whole, and the next one goes on."""
    before = old_store(tmp_path / "station.db", 1)
    cuts: list[Path] = []

    def trace(statement: str) -> None:
        if not statement.lower().lstrip().startswith(("pragma", "select", "--")):
            cut = tmp_path / f"cut-{len(cuts)}"
            cut.mkdir()
            cuts.append(cut)
            for path in tmp_path.glob("station.db*"):
                if not path.name.endswith("-shm"):  # gone with the machine
                    shutil.copyfile(path, cut / path.name)

    real = sqlite3.connect

    def connect(*args: Any, **more: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = real(*args, **more)
        made.set_trace_callback(trace)
        return made

    monkeypatch.setattr(sqlite3, "connect", connect)
    alembic_upgrade(open_engine(database_url(tmp_path, ""), pooled=False))
    monkeypatch.undo()
    assert len(cuts) > 20
    for number, cut in enumerate(cuts):
        with closing(sqlite3.connect(cut / "station.db")) as there:
            assert there.execute("pragma integrity_check").fetchone() == ("ok",)
        left = held(cut / "station.db", before)
        assert ("schema", "1") in left["meta"], "nothing of the upgrade is there before its commit"
        left["meta"].remove(("schema", "1"))
        assert left == before
        if number % 8 == 0:
            alembic_upgrade(open_engine(database_url(cut, ""), pooled=False))
            assert held(cut / "station.db", before) == before


def test_what_no_station_has_made_is_refused(tmp_path: Path) -> None:
    old_store(tmp_path / "station.db", 3)
    with closing(sqlite3.connect(tmp_path / "station.db")) as db:
        db.execute("update meta set value = '9' where key = 'schema'")
        db.commit()
    with pytest.raises(Corrupt, match="schema '9' was never made by a station"):
        alembic_upgrade(open_engine(database_url(tmp_path, ""), pooled=False))
    assert ("schema", "9") in held(tmp_path / "station.db", ["meta"])["meta"]


def test_what_tests_take_for_a_new_database_is_what_alembic_makes(tmp_path: Path) -> None:
    made = []
    for name, upgrade in (("one", alembic_upgrade), ("two", migrate.upgrade)):
        (tmp_path / name).mkdir()
        engine = open_engine(database_url(tmp_path / name, ""), pooled=False)
        upgrade(engine)
        with closing(sqlite3.connect(tmp_path / name / "station.db")) as db:
            made.append(list(db.iterdump()))
    assert alembic_upgrade is not migrate.upgrade
    assert made[0] == made[1]


def test_a_database_of_a_later_release_is_left_alone(database: Database) -> None:
    engine = open_engine(database.url, pooled=False)
    migrate.upgrade(engine)
    database.run("update alembic_version set version_num = '9999'")
    with pytest.raises(ConfigError, match="revision '9999' is of a later release"):
        migrate.upgrade(engine)
    assert database.rows("select version_num from alembic_version") == [("9999",)]


# -- transactions -------------------------------------------------------------------------------------------------------


def test_what_fails_leaves_nothing_and_a_reader_cannot_write(database: Database) -> None:
    engine = open_engine(database.url)
    migrate.upgrade(engine)
    with pytest.raises(ZeroDivisionError), writing(engine, "try") as db:
        db.execute(insert(tables.meta).values(key="a", value=str(1 // len(database.rows("select * from meta")))))
    assert database.rows("select * from meta") == []
    with writing(engine, "try") as db:
        db.execute(insert(tables.meta).values(key="a", value="NUL \0 is no letter"))
    assert database.rows("select value from meta") == [("NUL \ufffd is no letter",)]
    reader = open_engine(database.url, read_only=True)
    with pytest.raises((Transient, DatabaseError)), reading(reader) as db:
        db.execute(insert(tables.meta).values(key="c", value="d"))
    assert len(database.rows("select * from meta")) == 1
    engine.dispose()
    reader.dispose()


def test_a_writer_that_finds_another_waits_and_then_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BUSY_S_MAX", 0.1)
    engine = open_engine(database_url(tmp_path, ""), pooled=False)
    migrate.upgrade(engine)
    with (
        writing(engine, "hold it"),
        pytest.raises(Transient, match=r"station\.db: cannot store: database is locked"),
        writing(engine, "store"),
    ):
        pass


# -- what a hostile or strange node says --------------------------------------------------------------------------------


def test_no_letter_and_no_number_of_a_node_stops_the_others(database: Database) -> None:
    """PostgreSQL knows no NUL, and neither database a session of 2**70: one such message must not stop its batch."""
    store = StationStore(
        database.folder, clock=FakeClock(), site="ward-7", database=database.setting, free_bytes=lambda _: 1 << 40
    )
    store.open()
    clock = FakeClock()
    heartbeat = msgspec.structs.replace(beat(Beat(), clock), session=2**70)  # type: ignore[arg-type]
    status = wire.Status(
        state="online", node="gate-2", bootid="f" * 32, session=2**70, place="Lane \0 12", version="\0"
    )
    stored = store.commit(
        Batch(
            taken=[
                HeartbeatIn("gate-2", heartbeat, wire.encode(heartbeat)),
                StatusIn("gate-2", status, retained=False),
                StatusIn("gate-2", msgspec.structs.replace(status, state="offline"), retained=False),
                EventIn("gate-3", EPOCH, 1, uid(1), "per\0son", "\0", b"\0\xff"),
            ],
            rejects=[Reject("\0", "\0", b"\0")],
        )
    )
    assert [one.sequences for one in stored] == [[1]]
    assert {one.node: (one.place, one.said) for one in store.nodes()} == {
        "gate-2": ("Lane \ufffd 12", "offline"),
        "gate-3": ("", "online"),
    }
    assert database.rows("select body from event") == [(b"\0\xff",)]
    store.close()


def test_heads_are_the_same_whether_they_come_in_order_or_not(database: Database, seed: int) -> None:
    """Against the definition: the highest number below which nothing is missing; with restarts in between."""
    draw = random.Random(seed)
    clock = FakeClock()
    store = StationStore(
        database.folder, clock=clock, site="ward-7", database=database.setting, free_bytes=lambda _: 1 << 40
    )
    store.open()
    have: dict[str, set[int]] = {"a": set(), "b": set()}
    for _ in range(60):
        batch = []
        for node, known in have.items():
            first = draw.choice([1, max(known, default=0) + 1, draw.randint(1, 60)])
            numbers = draw.sample(range(first, first + 8), draw.randint(1, 8))
            batch += [EventIn(node, EPOCH, n, uid(n + 1000 * (node == "b")), "person", None, b"{}") for n in numbers]
        draw.shuffle(batch)
        for one in store.commit(Batch(list(batch))):
            have[one.node] |= set(one.sequences)
            whole = next(n for n in itertools.count() if n + 1 not in have[one.node])
            assert one.head == whole
        if draw.random() < 0.1:
            store.close()
            store.open()
    store.close()
    reader = Reader(database.folder, database=database.setting)
    reader.open()
    assert reader.sequences() == {(node, EPOCH): sorted(known) for node, known in have.items()}
    reader.close()


# -- one station at a time ----------------------------------------------------------------------------------------------


def test_a_second_station_waits_for_the_first_and_takes_over(tmp_path: Path, database: Database) -> None:
    if database.kind == "sqlite":
        pytest.skip("tests/unit/test_station.py has the file: a second station on one folder is refused")
    clock = FakeClock()
    stores = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        stores.append(
            StationStore(
                tmp_path / name, clock=clock, site="ward-7", database=database.setting, free_bytes=lambda _: 1 << 40
            )
        )
    first, second = stores
    first.open()
    with pytest.raises(Transient, match="another station writes to it"):
        second.open()
    second.close()
    first.commit(Batch([EventIn("gate-2", EPOCH, 1, uid(1), "person", None, b"{}")]))
    engine = open_engine(database.url, pooled=False)
    with OrderBook(engine) as book:
        book.ask("r", "pause", "{}")
    first.close()
    second.open()
    with OrderBook(engine) as book:
        assert [one.id for one in book.requests()] == ["r"], "what people have asked for goes with the database"
    (stored,) = second.commit(Batch([EventIn("gate-2", EPOCH, 2, uid(2), "person", None, b"{}")]))
    assert stored.head == 2
    second.close()


def test_a_station_whose_connection_is_cut_stores_nothing_and_goes_on(database: Database) -> None:
    """The lock goes with the session, so the next one must ask for it anew before it may write."""
    if database.kind == "sqlite":
        pytest.skip("there is no connection to cut")
    clock = FakeClock()
    store = StationStore(
        database.folder, clock=clock, site="ward-7", database=database.setting, free_bytes=lambda _: 1 << 40
    )
    store.open()
    here = "locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())"
    cut = f"select pg_terminate_backend(pid) from pg_locks where granted and {here}"
    one = EventIn("gate-2", EPOCH, 1, uid(1), "person", None, b"{}")
    for _ in range(3):
        assert database.rows(cut) == [(True,)]
        with pytest.raises(Transient):
            store.commit(Batch([one]))
        (stored,) = store.commit(Batch([one]))
        assert (stored.sequences, stored.head) == ([1], 1)
    assert database.rows("select count(*) from event") == [(1,)]
    store.close()
    assert database.rows(f"select count(*) from pg_locks where {here}") == [(0,)]


def test_a_connection_that_lay_idle_is_asked_and_replaced_and_one_that_works_is_not_asked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page looks ten times: it must neither ask ten times more, nor fail because the server was away over night."""
    if database.kind == "sqlite":
        pytest.skip("there is no connection to cut")
    clock = FakeClock()
    engine = open_engine(database.url, clock=clock)
    asked: list[int] = []
    ping = engine.dialect.do_ping

    def asking(db: Any) -> bool:
        asked.append(1)
        return ping(db)

    monkeypatch.setattr(engine.dialect, "do_ping", asking)

    def session() -> int:
        with reading(engine) as db:
            return int(db.execute(text("select pg_backend_pid()")).scalar_one())

    def cut(pid: int) -> None:
        assert database.rows(f"select pg_terminate_backend({pid})") == [(True,)]

    first = session()
    assert [session() for _ in range(5)] == [first] * 5
    assert not asked
    cut(first)
    with pytest.raises(Transient):  # it was not asked: the look itself finds it cut, and says so
        session()
    second = session()
    assert second != first, "and the next look has another one"
    clock.advance(engines.TRUSTED_S + 1)
    assert session() == second
    assert len(asked) == 1
    cut(second)
    clock.advance(engines.TRUSTED_S + 1)
    assert session() not in (first, second), "it was asked, and replaced before anything was read"
    clock.advance(0.1)
    _look_at_once(engine, 5)
    asked.clear()
    _look_at_once(engine, 5)
    assert not asked
    with engine.connect() as db:
        db.invalidate()
    clock.advance(0.1)
    _look_at_once(engine, 4)
    assert len(asked) == 4, "where one is found broken the others are not trusted either"
    _look_at_once(engine, 4)
    assert len(asked) == 4
    engine.dispose()


def _look_at_once(engine: Engine, looks: int) -> None:
    with ExitStack() as open_looks:
        for _ in range(looks):
            open_looks.enter_context(reading(engine)).execute(text("select 1"))


# -- settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("nonsense", "not a URL"),
        ("mysql://u@h/d", "mysql: give sqlite:// or"),
        ("postgresql://u:secret@h/d", "postgresql: give sqlite:// or"),
        ("sqlite:////somewhere/else.db", "leave it empty for SQLite"),
        ("postgresql+pg8000://u@h/d?password_file=/no/such/file", "password_file: cannot read /no/such/file"),
        ("postgresql+pg8000://u@h/d?ca=/no/such/file", "ca: /no/such/file"),
        ("postgresql+pg8000://u@h/d?ca=/a&ca=/b", "stand once each"),
    ],
)
def test_a_setting_that_cannot_work_is_one_clear_line(tmp_path: Path, url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)) as caught:
        open_engine(database_url(tmp_path, url))
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_password_stands_in_no_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "password").write_text("s3cret-of-the-file\n")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        port = taken.getsockname()[1]
        for url in (
            f"postgresql+pg8000://ward:s3cret-of-the-url@127.0.0.1:{port}/wardpost",
            f"postgresql+pg8000://ward@127.0.0.1:{port}/wardpost?password_file={tmp_path}/password",
        ):
            store = StationStore(tmp_path, clock=FakeClock(), site="ward-7", database=url, free_bytes=lambda _: 1 << 40)
            with pytest.raises(Transient, match=r"cannot open: .*is the database running") as caught:
                store.open()
            store.close()
            said = str(caught.value) + name_of(open_engine(url).url) + repr(open_engine(url)) + caplog.text
            assert "s3cret" not in said and f"127.0.0.1:{port}/wardpost" in said
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("part", "name"), [("username", "nobody-of-that-name"), ("database", "no-such")])
def test_who_names_a_user_or_a_database_that_is_not_there_is_told(database: Database, part: str, name: str) -> None:
    if database.kind == "sqlite":
        pytest.skip("a file has neither")
    url = make_url(database.url).set(**{part: name}).render_as_string(hide_password=False)  # type: ignore[arg-type]
    # Transient: the server has hung up while the driver was still writing, and the driver never reads why
    with pytest.raises((ConfigError, Transient), match=name) as caught, reading(open_engine(url)):
        pass
    assert isinstance(caught.value, ConfigError) or "does it know this user and this database?" in str(caught.value)


def test_a_database_without_tables_tells_the_reader(database: Database) -> None:
    if database.kind == "sqlite":
        (database.folder / "station.db").write_bytes(b"")
    with pytest.raises(Transient):
        Reader(database.folder, database=database.setting).open()


def test_a_station_without_its_libraries_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node is installed without them; `wardpost watch` typed there is a mistake, not a traceback."""
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    for name in [name for name in sys.modules if name.startswith("agent.station.")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["watch", "--config", str(tmp_path / "station.toml")]) == EX_CONFIG
    assert (
        capsys.readouterr().err == "wardpost: sqlalchemy is missing: a station needs pip install 'wardpost[station]'\n"
    )


def test_a_socket_of_the_machine_is_not_asked_for_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver asks where nobody has told it not to, and reads all certificates of the system for each connection."""
    path = str(tmp_path / ".s.PGSQL.5432")
    monkeypatch.setattr("ssl.create_default_context", lambda: pytest.fail("40 ms, for each connection"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        first: list[bytes] = []

        def answer() -> None:
            with server.accept()[0] as client:
                first.append(client.recv(8))

        listener = threading.Thread(target=answer, daemon=True)
        listener.start()
        with (
            pytest.raises(Transient),
            reading(open_engine(f"postgresql+pg8000://hq@/hq?unix_sock={path}", pooled=False)),
        ):
            pass
        listener.join(10)
    ((length, code),) = [struct.unpack("!ii", one) for one in first]
    assert length > 8 and code == 3 << 16, "the start of the protocol itself, version 3.0"
