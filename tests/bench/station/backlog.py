"""A flood: BACKLOG events come to the broker (nats-server) faster than the station takes them, as after its restart.

A station keeps no session at the broker: what is said while it is away waits in the nodes' outboxes, and comes at once
when it is back. From the first of them: until every event is durable in the store and acknowledged to the broker, and
until the board has looked at all of them. An event is a message of its own, a fifth are of alerts, which is the worst
case: nodes send notices in batches. Meanwhile somebody opens the board again and again.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import text

from agent import wire
from agent.station.alerts import UNMARKED_MAX
from agent.station.db.engine import database_url, open_engine, reading
from agent.station.people.roles import Role
from tests.bench.figure import Bench, Row, Skip, percentile
from tests.bench.programs import broker, wait_for
from tests.bench.station import BACKLOG, postgres
from tests.bench.station.fill import SITE, events, post
from tests.bench.station.flood import pour
from tests.bench.station.served import people, served

TARGET_PER_S = 2500.0
SETTLED_S_MAX = 900.0
LOOK_S = 0.1
"""Between two looks of the bench, and two visits of the board."""


def measure(bench: Bench) -> list[Row]:
    """Seconds, and events per second through the broker with everything that belongs to it."""
    count = BACKLOG[bench.size.name]
    rows = _on(bench.folder / "sqlite", "sqlite", "", count)
    try:
        with postgres.server() as server:
            rows += _on(bench.folder / "postgresql", "postgresql", server.make("backlog"), count)
    except Skip as why:
        rows.append(Row("backlog-postgresql", f"{count:,} events at the broker", 0, "s", f"skipped: {why}"))
    return rows


def _on(folder: Path, kind: str, database: str, count: int) -> list[Row]:
    data = folder / "data"
    data.mkdir(parents=True)
    people(data, [("operator", Role.OPERATOR, ())], database=database)
    engine = open_engine(database_url(data, database), read_only=True, pooled=False)
    visits: list[float] = []
    stored_s = seen_s = 0.0
    with broker(folder / "broker") as port, served(folder, broker_port=port, database=database) as desk:
        log = folder / "station.log"
        wait_for(lambda: "connected to" in log.read_text(), desk.program, "the station to connect", timeout_s=60)
        visitor = desk.visitor("operator")
        before_s, started = desk.program.cpu_s(), time.monotonic()
        with ThreadPoolExecutor(1) as other:
            publishing = other.submit(_publish, port, count)
            while not seen_s:
                began = time.monotonic()
                visitor.get("/")
                visits.append((time.monotonic() - began) * 1000)
                with reading(engine) as db:
                    there = int(db.execute(text("select coalesce(max(n), 0) from event")).scalar_one())
                    looked = int(db.execute(text("select coalesce(max(value), 0) from board_mark")).scalar_one())
                now = time.monotonic() - started
                stored_s = stored_s or (now if there >= count else 0.0)
                seen_s = now if stored_s and looked >= count - UNMARKED_MAX else 0.0
                desk.program.need_alive()
                if now > SETTLED_S_MAX:
                    raise RuntimeError(f"{there} of {count} events are in after {now:.0f} s, the board saw {looked}")
                time.sleep(LOOK_S)
            published_s = publishing.result()
        cpu_us = (desk.program.cpu_s() - before_s) / count * 1e6
    what, rate = f"{kind}: {count:,} events at once", count / stored_s
    return [
        Row(f"backlog-stored-{kind}", f"{what}: until all are in", stored_s, "s", "publishing them", published_s),
        Row(f"backlog-board-{kind}", f"{what}: until the board has them", seen_s, "s", "publishing them", published_s),
        Row(f"backlog-rate-{kind}", f"{kind}: events taken in through the broker, with a board that is looked at", rate,
            "/s", "publishing them", count / published_s, target=f">= {TARGET_PER_S:,.0f} /s",
            met=rate >= TARGET_PER_S, note=f"CPU of the station {cpu_us:.0f} us an event"),
        Row(f"backlog-cpu-{kind}", f"{kind}: CPU of the whole station per event, visits included", cpu_us, "us",
            "a core at the target", 1e6 / TARGET_PER_S),
        Row(f"backlog-visit-{kind}", f"{kind}: board meanwhile, p95", percentile(visits, 0.95), "ms",
            note=f"{len(visits)} visits"),
    ]  # fmt: skip


def _publish(port: int, count: int) -> float:
    """Seconds until the broker has acknowledged all of them."""
    started = time.perf_counter()
    told = events(count, now_utc_ns=time.time_ns(), seed=1)
    messages = ((wire.Topics(SITE, post(row[1] - 1)).event(row[4]), row[7]) for row in told)
    done = pour(port, messages)
    assert done == count
    return time.perf_counter() - started
