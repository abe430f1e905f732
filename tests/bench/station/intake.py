"""Events that one station takes in durably, a second: the store alone, on SQLite and on PostgreSQL.

Each batch is a transaction of BATCH events of many posts, as the station's worker makes of what has come meanwhile; it
counts when `commit` has returned. Beside it, in the same run: the bare driver of the same database, which puts the same
bytes into a table with nothing else, as durably, as many a transaction. What the broker and the acknowledgements add is
in backlog.py. The CPU time per event is there because it does not suffer from what else the machine does.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pg8000  # type: ignore[import-untyped]
from sqlalchemy import make_url

from agent.clock import SystemClock
from agent.station.intake import EventIn
from agent.station.store import Batch, StationStore
from tests.bench.figure import Bench, Row, Skip, percentile
from tests.bench.station import INTAKE, postgres
from tests.bench.station.fill import POSTS, SITE, epoch, events

TARGET_PER_S = 2500.0
BATCH = 250


def measure(bench: Bench) -> list[Row]:
    """Events per second and CPU time per event, on both databases."""
    count = INTAKE[bench.size.name]
    taken = list(_taken(count))
    rows = _on(bench, taken, "sqlite", lambda _turn: "", lambda turn: _bare_sqlite(bench.folder / f"{turn}.db", taken))
    try:
        with postgres.server() as server:
            urls = [server.make(f"intake_{turn}") for turn in range(bench.size.repeats)]
            rows += _on(bench, taken, "postgresql", urls.__getitem__, lambda turn: _bare_postgresql(urls[turn], taken))
    except Skip as why:
        rows.append(Row("intake-postgresql", "events taken in, store alone, postgresql", 0, "/s", f"skipped: {why}"))
    return rows


def _on(
    bench: Bench, taken: Sequence[EventIn], kind: str, database: Callable[[int], str], bare: Callable[[int], float]
) -> list[Row]:
    ours, theirs, cpu_us = [], [], []
    for turn in range(bench.size.repeats):
        folder = bench.folder / f"{kind}-{turn}"
        folder.mkdir()
        seconds, cpu_s = _store(folder, database(turn), taken)
        ours.append(len(taken) / seconds)
        cpu_us.append(cpu_s / len(taken) * 1e6)
        theirs.append(len(taken) / bare(turn))
    rate, driver = percentile(ours, 0.5), "the bare driver, as durably"
    cpu = percentile(cpu_us, 0.5)
    what = f"{kind}: events taken in, store alone, {BATCH} a transaction"
    return [
        Row(f"intake-{kind}", what, rate, "/s", driver, percentile(theirs, 0.5), target=f">= {TARGET_PER_S:,.0f} /s",
            met=rate >= TARGET_PER_S, note=f"{len(taken):,} events; {rate / TARGET_PER_S:.2f} of the target"),
        Row(f"intake-cpu-{kind}", f"{kind}: CPU of the station per event, store alone", cpu, "us",
            "a core at the target", 1e6 / TARGET_PER_S),
    ]  # fmt: skip


def _taken(count: int) -> list[EventIn]:
    return [
        EventIn(f"post-{stream - 1:03d}", epoch(stream - 1), sequence, id_, kind, incident, body)
        for _, stream, sequence, id_, kind, incident, _, body in events(count, now_utc_ns=time.time_ns(), seed=1)
    ]


def _store(folder: Path, database: str, taken: Sequence[EventIn]) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process."""
    store = StationStore(folder, clock=SystemClock(), site=SITE, database=database, nodes_max=2 * POSTS)
    store.open()
    started, spent_s = time.perf_counter(), time.process_time()
    stored = 0
    for start in range(0, len(taken), BATCH):
        found = store.commit(Batch(list(taken[start : start + BATCH])))
        stored += sum(len(one.sequences) for one in found)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - spent_s
    store.close()
    if stored != len(taken):
        raise RuntimeError(f"{stored} of {len(taken)} events were stored")
    return seconds, cpu_s


def _bare_sqlite(path: Path, taken: Sequence[EventIn]) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")
        db.execute("create table bare (n integer primary key, id text, body blob)")
        started = time.perf_counter()
        for start in range(0, len(taken), BATCH):
            db.execute("begin immediate")
            rows = [(one.id, one.body) for one in taken[start : start + BATCH]]
            db.executemany("insert into bare (id, body) values (?, ?)", rows)
            db.execute("commit")
        return time.perf_counter() - started


def _bare_postgresql(url: str, taken: Sequence[EventIn]) -> float:
    parsed = make_url(url)
    password = Path(str(parsed.query["password_file"])).read_text().strip()
    with closing(pg8000.connect(user=parsed.username or "", password=password, host=parsed.host or "",
                                port=parsed.port or 5432, database=parsed.database)) as db:  # fmt: skip
        cursor = db.cursor()
        cursor.execute("create table bare (n bigserial primary key, id text, body bytea)")
        db.commit()
        started = time.perf_counter()
        for start in range(0, len(taken), BATCH):
            rows = taken[start : start + BATCH]
            cursor.execute(
                "insert into bare (id, body) select * from unnest(cast(%s as text[]), cast(%s as bytea[]))",
                ([one.id for one in rows], [one.body for one in rows]),
            )
            db.commit()
        return time.perf_counter() - started
