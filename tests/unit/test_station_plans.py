"""What the desk's pages ask the database goes by an index, and reads no more than it shows: by the database's own plan.

A page that reads a table through is quick on a new station and slow on that of last year. So no time is judged here, but
the plan of every query, on a store with some thousand events (SQLite tells it in words); `make bench-station` has times.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, select

from agent.station.alerts import COUNTED_MAX, Alerts
from agent.station.db.board import alert
from agent.station.db.engine import database_url, open_engine, reading
from agent.station.evidence_alarms import EvidenceAlarms
from agent.station.footage import told
from agent.station.footage.blocks import BLOCK
from agent.station.people.roles import Scope
from agent.station.posts.pictures import Pictures
from agent.types import NS
from tests.bench.station.fill import ROOT, Filled, fill
from tests.fakes.clock import StandingClock
from tests.fakes.database import Database, fresh
from tests.fakes.desk import JPEG, Ward
from tests.unit.test_alerts import WHOLE, b64, steps

NOW_NS = 1_795_348_000 * NS
HOUR_NS = 3600 * NS


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Filled]:
    folder = tmp_path_factory.mktemp("filled")
    return folder, fill(folder, events=8000, now_utc_ns=NOW_NS)


@pytest.fixture
def engine(filled: tuple[Path, Filled]) -> Iterator[Engine]:
    made = open_engine(database_url(filled[0], ""), pooled=False)
    yield made
    made.dispose()


@contextmanager
def plans(engine: Engine) -> Iterator[list[str]]:
    """How SQLite answers each query that is asked meanwhile."""
    found: list[str] = []

    def asked(db: Connection, _cursor: object, statement: str, values: object, *_: object) -> None:
        if statement.startswith("SELECT"):
            raw: Any = db.connection.driver_connection
            found.extend(row[3] for row in raw.execute(f"explain query plan {statement}", values))

    event.listen(engine, "before_cursor_execute", asked)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", asked)


def alerts(engine: Engine) -> Alerts:
    return Alerts(engine, trail=None, clock=StandingClock(utc_ns=NOW_NS), bell_deadline_s=60, alert_deadline_s=300)  # type: ignore[arg-type]


@pytest.mark.parametrize("posts", [0, 1, 3, 60, 500])
def test_the_board_reads_the_newest_ends_of_indexes(engine: Engine, filled: tuple[Path, Filled], posts: int) -> None:
    """Of the whole site, and of people who see some posts only: what others see is not even looked at."""
    speaking = sorted({node for _, node in filled[1].incidents})
    scope = WHOLE if not posts else Scope(whole_site=False, posts=frozenset(speaking[:posts]))
    of = "alert_of_" if posts else "alert_"
    with plans(engine) as found:
        shown = alerts(engine).board(scope, NOW_NS - 30 * 24 * HOUR_NS)
        alerts(engine).board(scope, NOW_NS - 30 * 24 * HOUR_NS, 3)
        assert alerts(engine).open_count(scope) <= COUNTED_MAX + 1
    assert shown and all(one.told is not None for one in shown), "what was filled in can be read"
    walked = [line for line in found if "alert" in line]
    assert walked and all(line.startswith((f"SEARCH alert USING INDEX {of}waiting (",
                                           f"SEARCH alert USING INDEX {of}raised (")) for line in walked)  # fmt: skip
    scanned = {line for line in found if line.startswith("SCAN")}
    assert scanned <= {"SCAN anon_1"}, "what is counted: a bounded end of an index"
    with plans(engine) as found:
        alerts(engine).changed_since(scope, 10, 50)
    assert found[0].startswith(f"SEARCH alert USING INDEX {of}changed ("), found


@pytest.mark.parametrize("posts", [0, 1, 60])
def test_evidence_alarms_are_found_by_their_indexes(engine: Engine, filled: tuple[Path, Filled], posts: int) -> None:
    """The board, a post and the list of what is to be done show them; the board's thread asks four times a second."""
    scope = WHOLE if not posts else Scope(whole_site=False, posts=frozenset(filled[1].posts[:posts]))
    known = EvidenceAlarms(engine, trail=None, clock=StandingClock(utc_ns=NOW_NS))  # type: ignore[arg-type]
    with plans(engine) as found:
        known.open(scope)
        known.past(filled[1].posts[0])
    walked = [line for line in found if "evidence_alarm" in line]
    assert len(walked) == 2 and all("USING INDEX evidence_alarm_o" in line for line in walked), found
    with plans(engine) as found:
        known.newest_change()
    assert found == ["SEARCH evidence_alarm USING COVERING INDEX evidence_alarm_changed"]
    with plans(engine) as found:
        assert known.posts() == known.posts() == frozenset()
    newest, marked, again = found
    assert marked == "SCAN evidence_alarm USING INDEX evidence_alarm_of_open", "the open ones, in order"
    assert newest == again, "and then only whether there is another one"


@pytest.mark.parametrize("posts", [0, 1, 60])
def test_the_pictures_of_a_page_of_posts_are_one_question_by_indexes(
    engine: Engine, filled: tuple[Path, Filled], posts: int
) -> None:
    """Of each post the newest end of its own alerts: neither others' nor all of its own."""
    speaking = sorted({node for _, node in filled[1].incidents})
    scope = WHOLE if not posts else Scope(whole_site=False, posts=frozenset(speaking[:posts]))
    names = speaking[:50]
    with plans(engine) as found, statements(engine) as asked:
        shown = Pictures(engine).newest(scope, names)
    assert [one.split()[0] for one in asked] == ["begin", "SELECT"]
    assert set(shown) == set(names[: posts or 50]) and all(one.utc_ns is not None for one in shown.values())
    with reading(engine) as db:
        newest = {
            one.node: one.incident
            for one in db.execute(select(alert).where(alert.c.picture.isnot(None)).order_by(alert.c.raised_utc_ns))
        }
    assert {node: one.incident for node, one in shown.items()} == {node: newest[node] for node in shown}
    assert any(line.startswith("SEARCH alert USING INDEX alert_of_raised (node=?") for line in found), found
    assert not any(line.startswith(("SCAN alert", "SCAN event", "SCAN node", "SCAN shown")) for line in found), found
    sorts = [line for line in found if "TEMP B-TREE" in line]
    assert len(sorts) <= 1 and "CO-ROUTINE looked_at" in found, "of the fifty that are looked at, nothing else"
    with plans(engine) as found:
        assert Pictures(engine).newest(scope, []) == {}
    assert found == []


def test_what_is_overdue_is_found_without_what_is_known_to_be(engine: Engine) -> None:
    with plans(engine) as found:
        assert alerts(engine).note_overdue() == 0
    assert found == ["SEARCH alert USING INDEX alert_due (due_utc_ns<?)"]


def test_the_lines_of_a_range_are_found_by_kind(engine: Engine, filled: tuple[Path, Filled]) -> None:
    """However long the ledger: the lines of the range are read, not those from the start of the session, nor up to now."""
    start = NOW_NS - 90 * 60 * NS
    rows = 0

    def counted(_db: Connection, _cursor: object, _statement: str, _values: object, *_: object) -> None:
        nonlocal rows
        rows += 1

    event.listen(engine, "before_cursor_execute", counted)
    with plans(engine) as found:
        known = told.read(engine, filled[1].posts[0], start, start + 60 * NS)
    event.remove(engine, "before_cursor_execute", counted)
    files = sum(len(run) for run in known.runs) + len(known.segments)
    asked = 2 * told.MARGIN_NS // (30 * NS) + 4
    assert 2 <= files <= (-(-asked // BLOCK) + 1) * BLOCK, "of 199: whole blocks are read"
    assert len(known.sessions) == 1 and not known.cut
    kinds = [line for line in found if "kind=?" in line]
    assert kinds and all("USING INDEX line_kind (node=? AND root=? AND kind=? AND seq" in line
                         or "USING COVERING INDEX line_kind (node=? AND root=? AND kind=? AND seq" in line
                         for line in kinds), found  # fmt: skip
    assert not any(line.startswith(("SCAN", "USE TEMP")) for line in found), found
    assert rows < 60, "queries: halving, and one a kind"
    assert told.read(engine, filled[1].posts[0], start, start + 60 * NS, root=ROOT) == known


# -- taking in ----------------------------------------------------------------------------------------------------------


@contextmanager
def held_back(ward: Ward) -> Iterator[None]:
    """The board does not look meanwhile."""
    ward.desk.alerts.take_in = lambda: False
    try:
        yield
    finally:
        del ward.desk.alerts.take_in


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    found: list[str] = []

    def asked(_db: Connection, _cursor: object, statement: str, *_: object) -> None:
        found.append(statement)

    event.listen(engine, "before_cursor_execute", asked)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", asked)


def story(draw: random.Random) -> list[dict[str, Any]]:
    """Messages of three posts about a few incidents, some of them about another post's."""
    said: list[dict[str, Any]] = []
    for _ in range(150):
        severity = draw.choice(["alert", "alert", "notice", "bell", "thumbnail", "record"])
        one = {"number": draw.randrange(8), "node": f"gate-{draw.randrange(1, 4)}", "severity": severity}
        said.append(one | {"phase": draw.choice(["started", "updated", "ended"]), "summary": str(len(said))})
        if severity == "thumbnail":
            said[-1]["jpeg"] = b64(draw.choice([JPEG, b"no picture"]))
    return said


def outcome(ward: Ward) -> list[object]:
    """All alerts of the board but for times, and what became of each."""
    shown = sorted(ward.desk.alerts.board(WHOLE, 0), key=lambda one: one.incident)
    rows = ward.database.rows("select incident, what from alert_step order by n")
    pictures = [ward.desk.alerts.picture(WHOLE, one.incident) for one in shown]
    marked = ward.database.rows("select a.incident from alert a where changed = (select max(n) from alert_step s"
                                " where s.incident = a.incident) order by 1")  # fmt: skip
    assert [one.incident for one in shown] == [row[0] for row in marked]
    return [[(one.incident, one.node, one.severity, one.ended, one.told) for one in shown], pictures,
            {one.incident: [what for of, what in rows if of == one.incident] for one in shown}]  # fmt: skip


def test_one_by_one_or_all_at_once_the_board_comes_to_the_same(tmp_path: Path, database: Database, seed: int) -> None:
    said = story(random.Random(seed))
    (tmp_path / "other").mkdir()
    with fresh(database.kind, tmp_path / "other") as other:
        slow, quick = Ward(tmp_path, database), Ward(tmp_path / "other", other)
        for one in said:
            slow.hear(**one)
        with held_back(quick):
            for one in said:
                quick.hear(**one)
        assert quick.desk.alerts.board(WHOLE, 0) == []
        assert quick.desk.alerts.take_in() is False, "150 messages are one part"
        assert outcome(quick) == outcome(slow)
        slow.close()
        quick.close()


def test_a_part_of_the_store_is_taken_in_by_a_few_statements(tmp_path: Path, database: Database) -> None:
    """However many alerts are in it: else the board falls behind the store, which takes in thousands a second."""
    ward = Ward(tmp_path, database)
    counts = []
    for number in (1, 40):
        with held_back(ward):
            for one in range(number):
                ward.hear(1000 * number + one)
        with statements(ward.engine) as asked:
            assert ward.desk.alerts.take_in() is False
        counts.append(len(asked))
    assert counts[1] <= counts[0] < 20
    assert len(ward.desk.alerts.board(WHOLE, 0)) == 41
    ward.close()


def test_what_is_of_no_alert_costs_no_commit_and_is_not_looked_at_again(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = Ward(tmp_path, database)
    monkeypatch.setattr("agent.station.alerts.UNMARKED_MAX", 10)
    with statements(ward.engine) as asked:
        for number in range(9):
            ward.hear(number, severity="notice")
    assert not any(one.startswith(("INSERT", "UPDATE")) for one in asked)
    assert ward.database.rows("select count(*) from board_mark") == [(0,)], "a restart looks at these nine again"
    with statements(ward.engine) as asked:
        ward.hear(9, severity="notice")
    assert any("board_mark" in one for one in asked if one.startswith("INSERT"))
    assert ward.database.rows("select value from board_mark") == [(10,)]
    one = ward.hear(9, phase="ended")
    ward.start()
    assert ward.desk.alerts.take_in() is False
    assert steps(ward, one) == ["raised"], "of an incident that was a notice"
    ward.close()
