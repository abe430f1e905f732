"""What a node remembers of itself is bounded, and what goes is the oldest."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files

import pytest

from agent.store import trim


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(":memory:")
    db.executescript(files("agent.store").joinpath("schema.sql").read_text())
    yield db
    db.close()


def boots(db: sqlite3.Connection, count: int) -> list[str]:
    names = [f"{n:032x}" for n in range(1, count + 1)]
    db.executemany(
        "insert into session (session, boot_id, start_ns, alive_ns) values (?, ?, 0, 0)",
        [(n, name) for n, name in enumerate(names, start=1)],
    )
    return names


def test_an_old_boot_keeps_its_first_its_best_and_its_last_anchor(db: sqlite3.Connection) -> None:
    old, now = boots(db, 2)
    for boot in (old, now):
        rows = [(boot, n * 300, n, 500 if n != 7 else 20, "ntp") for n in range(100)]
        db.executemany("insert into anchor values (?, ?, ?, ?, ?)", rows)
    trim.trim(db, boot_id=now)
    kept = [ns for (ns,) in db.execute("select boot_ns from anchor where boot_id = ? order by 1", (old,))]
    assert kept == [0, 7 * 300, 99 * 300]
    assert db.execute("select count(*) from anchor where boot_id = ?", (now,)).fetchone() == (100,)
    assert trim.trim(db, boot_id=now) == 0, "and it stays like that"


def test_a_boot_that_is_over_keeps_each_setting_of_its_clock(db: sqlite3.Connection) -> None:
    """A hold may have been asked for by the time that a wrong clock told: its footage is found by that time only."""
    old, now = boots(db, 2)
    wrong_ns = {5: 3600 * 10**9, 9: 0, 12: -(10**9)}
    offset_ns = 0
    for n in range(20):
        offset_ns = wrong_ns.get(n, offset_ns)
        db.execute("insert into anchor values (?, ?, ?, 5, 'ntp')", (old, n, n + offset_ns))
    trim.trim(db, boot_id=now)
    kept = [ns for (ns,) in db.execute("select boot_ns from anchor where boot_id = ? order by 1", (old,))]
    assert kept == [0, 5, 9, 12, 19]


def test_a_year_of_uptime_thins_its_anchors_and_keeps_the_best(db: sqlite3.Connection) -> None:
    (now,) = boots(db, 1)
    rows = [(now, n, n, None if n != 3001 else 5, "x") for n in range(5000)]
    db.executemany("insert into anchor values (?, ?, ?, ?, ?)", rows)
    for _ in range(3):
        trim.trim(db, boot_id=now)
    (count,) = db.execute("select count(*) from anchor").fetchone()
    assert 500 <= count <= trim.ANCHORS_PER_BOOT_MAX
    assert db.execute("select count(*) from anchor where boot_ns in (0, 3001)").fetchone() == (2,)


def test_the_oldest_gaps_sessions_and_losses_go_first(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SESSION_ROWS_MAX", "GAP_ROWS_MAX", "TOMBSTONE_ROWS_MAX", "SHED_ROWS_MAX"):
        monkeypatch.setattr(trim, name, 10)
    names = boots(db, 30)
    for n, name in enumerate(names, start=1):
        db.execute("insert into gap values (?, ?, ?, 'camera-fault', '')", (name, 1000 - n, 1000))
        db.execute("insert into tombstone values (?, ?, ?, 1, 1, 'budget')", (name, 1000 - n, 1000))
        db.execute("insert into shed values (0, ?, 2, ?, ?, 1, 'full')", (n, n, n))
    trim.trim(db, boot_id=names[-1])
    for table in ("session", "gap", "tombstone"):
        kept = {name for (name,) in db.execute(f"select boot_id from {table}")}
        assert kept == set(names[-10:]), table
    assert db.execute("select min(session), count(*) from shed").fetchone() == (21, 10)
