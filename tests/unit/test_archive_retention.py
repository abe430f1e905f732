"""Retention of the archive: what goes and what stays whatever its age, by whose word, and that no cut loses or doubles
anything. On both databases; a file is what the node's own recorder made.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError

from agent import wire
from agent.clock import SystemClock, rfc3339
from agent.disk import PosixDisk
from agent.errors import Transient
from agent.station import archive_retention_rows as rows
from agent.station.archive import name_of
from agent.station.archive.local import LocalArchive
from agent.station.archive.making import ArchiveSettings
from agent.station.archive.room import RoomArchive
from agent.station.archive_retention import (
    DAY_NS,
    FORECAST_DAYS,
    LATE_DAYS_MAX,
    MARGIN_NS,
    Choice,
    File,
    Kept,
    Policy,
    Range,
    Why,
    believable,
    forecast,
    over,
)
from agent.station.archive_retention_desk import ASK_DAYS_MAX, Early, No
from agent.station.archive_retention_making import Retention
from agent.station.archive_retention_worker import LOOK_S, SWEEP_S, RetentionWorker
from agent.station.cases.desk import CaseDesk, Opening
from agent.station.cases.export import case_dict
from agent.station.cases.reading import Cases
from agent.station.cases.states import Act, Told
from agent.station.db.books import command
from agent.station.db.engine import database_url, reading, writing
from agent.station.db.retention import retention_answer, retention_ask
from agent.station.inspection.desk import InspectionDesk
from agent.station.main import BrokerSettings, DeskSettings, StationSettings, _retention
from agent.station.people.roles import Person, Role, Scope
from agent.station.people.trail_line import said
from agent.types import NS, Hold
from tests.fakes.clock import FakeClock
from tests.fakes.database import KINDS, fresh
from tests.fakes.disk import FakeDisk, PowerCut, cut_at
from tests.fakes.evidence_post import UTC_0
from tests.fakes.footage_desk import POST, FootageDesk
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.fakes.retention_desk import (
    CHILD,
    EVERYWHERE,
    SITE,
    Killed,
    SteppedArchive,
    Steps,
    World,
    film,
    settle,
    whole,
    world_on,
)

OPERATOR = Person("lan", "Lan", Role.OPERATOR, EVERYWHERE)
SUPERVISOR = Person("minh", "Minh", Role.SUPERVISOR, EVERYWHERE)
SECOND = Person("thu", "Thu", Role.SUPERVISOR, EVERYWHERE)
ADMIN = Person("root", "Root", Role.ADMIN, EVERYWHERE)
ELSEWHERE = Person("hoa", "Hoa", Role.SUPERVISOR, Scope(whole_site=False, posts=frozenset({"cam-99"})))
AUDITOR = Person("an", "An", Role.AUDITOR, EVERYWHERE)
NOW = UTC_0
EARLY = Early(POST, UTC_0 - 5 * NS, UTC_0 + 60 * NS, "a child of a household, by its parents' wish", "decision 12/2026")

# -- what goes: pure --------------------------------------------------------------------------------------------------


def file(n: int = 1, *, days: float = 0, size: int = 1000, node: str = "cam-1", long_s: int = 60) -> File:
    """A file that came `days` ago, right after it was recorded."""
    received = NOW - round(days * DAY_NS)
    return File(n, node, f"{n:064x}", size, received - long_s * NS, received, received)


def picked(files: list[File], policy: Policy, kept: Kept, *, now: int | None = NOW) -> list[tuple[int, Why]]:
    choice = Choice(policy, now, over(policy, sum(one.bytes for one in files)))
    for one in files:
        if not choice.take(one, kept):
            break
    return [(one.n, why) for one, why in choice.picked]


def test_the_oldest_go_by_age_and_then_for_room_and_no_more_than_that() -> None:
    files = [file(1, days=40), file(2, days=31), file(3, days=20), file(4, days=10), file(5)]
    assert picked(files, Policy(), Kept()) == []
    assert picked(files, Policy(days=30), Kept()) == [(1, Why.AGE), (2, Why.AGE)]
    assert picked(files, Policy(days=30), Kept(), now=None) == [], "nobody vouches for the clock"
    assert picked(files, Policy(bytes_max=5000), Kept()) == [(1, Why.ROOM)], "down to 95 %"
    assert picked(files, Policy(bytes_max=10_000), Kept()) == []
    both = Policy(days=30, bytes_max=3000)
    assert picked(files, both, Kept()) == [(1, Why.AGE), (2, Why.AGE), (3, Why.ROOM)]
    kept = Kept(files={files[0].ref: "case 3"})
    assert picked(files, both, kept) == [(2, Why.AGE), (3, Why.ROOM), (4, Why.ROOM)], "others make the room then"


@settings(max_examples=40)
@given(
    ages=st.lists(st.floats(0, 100), min_size=1, max_size=30),
    days=st.floats(0, 60),
    most=st.integers(0, 40_000),
    needed=st.sets(st.integers(1, 30)),
)
def test_whatever_the_settings_nothing_needed_goes_and_the_younger_stays_while_an_older_may_go(
    ages: list[float], days: float, most: int, needed: set[int]
) -> None:
    files = [file(n, days=age) for n, age in enumerate(sorted(ages, reverse=True), 1)]
    policy = Policy(days=days, bytes_max=most)
    gone = {n for n, _ in picked(files, policy, Kept(files={one.ref: "case 1" for one in files if one.n in needed}))}
    assert not gone & needed
    free = [one.n for one in files if one.n not in needed]
    assert sorted(gone) == free[: len(gone)], "oldest first, without a hole"
    left = [one for one in files if one.n not in gone]
    assert not any(policy.due(one.received_utc_ns, NOW) for one in left if one.n not in needed)
    if most and any(one.n not in needed for one in left):
        assert sum(one.bytes for one in left) <= most


def test_a_label_of_time_protects_and_one_that_cannot_be_right_protects_the_more() -> None:
    need = Range("cam-1", NOW - 50 * NS, NOW - 40 * NS, "case 3")

    def keeps(one: File, told: dict[Range, frozenset[str] | None]) -> str:
        return Kept(ranges={"cam-1": [need]}, told=told).keeps(one)

    knows: dict[Range, frozenset[str] | None] = {need: frozenset()}
    assert keeps(file(days=0), knows) == "case 3"
    assert keeps(file(days=30), knows) == "", "another time"
    assert keeps(file(days=0, node="cam-2"), knows) == "", "another post"
    early = replace(file(days=30), from_utc_ns=need.end_utc_ns + MARGIN_NS - NS, to_utc_ns=NOW, received_utc_ns=NOW)
    assert keeps(early, knows) == "case 3", "a clock may have been wrong by an hour"
    assert keeps(file(days=30), {}) == "case 3", "nobody has looked into the ledger"
    assert keeps(file(days=30), {need: None}) == "case 3", "there was too much to be looked at"
    assert keeps(file(7, days=30), {need: frozenset({f"{7:064x}"})}) == "case 3", "the ledger places it there"
    for wrong in (
        replace(file(days=30), from_utc_ns=None, to_utc_ns=None),
        replace(file(days=30), from_utc_ns=0, to_utc_ns=60 * NS),  # a clock of 1970
        replace(file(days=30), to_utc_ns=NOW + 2 * MARGIN_NS),  # of a time to come
    ):
        assert not believable(wrong)
        assert keeps(wrong, knows) == "case 3"
    assert believable(replace(file(), from_utc_ns=NOW - LATE_DAYS_MAX * DAY_NS, to_utc_ns=NOW))


def test_the_next_days_are_told_by_the_day_and_what_stays_is_told_with_its_reason() -> None:
    files = [file(n, days=30 - n) for n in range(-1, 10)]
    kept = Kept(files={files[2].ref: "case 3"})
    policy = Policy(days=30)
    (found,) = forecast(files, kept, policy, now_utc_ns=NOW, used_bytes=0, coming_bytes=0)
    assert found.files == [2, 0, 1, 1, 1, 1, 1], "what is due already goes on the first day; the second day's is kept"
    assert (found.kept_files, found.kept_for) == (1, {"case 3"})
    assert sum(found.bytes) == 7000
    bounded = Policy(bytes_max=10_000)
    (room,) = forecast(files, Kept(), bounded, now_utc_ns=NOW, used_bytes=11_000, coming_bytes=3000)
    assert (room.room_files, sum(room.files)) == (5, 0)
    assert forecast(files, kept, Policy(), now_utc_ns=NOW, used_bytes=10**9, coming_bytes=10**9) == []
    assert FORECAST_DAYS == 7


# -- the desk ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A desk's folder, with a database file and an archive: to film it anew for each test takes a second."""
    folder = tmp_path_factory.mktemp("filmed")
    desk = FootageDesk(folder / "desk")
    desk.knows()
    film(desk, folder)
    world_on(desk)
    desk.engine.dispose()
    return folder / "desk"


@pytest.fixture
def copied(filmed: Path, tmp_path: Path) -> World:
    """Another one, on SQLite."""
    shutil.copytree(filmed, tmp_path / "desk")
    return world_on(FootageDesk(tmp_path / "desk"))


@pytest.fixture
def world(copied: World) -> Iterator[World]:
    yield copied
    copied.desk.engine.dispose()


@pytest.fixture(params=KINDS)
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """For the tests that go through every statement: on both databases."""
    if request.param == "sqlite":
        yield request.getfixturevalue("world")
        return
    with fresh(request.param, tmp_path) as database:
        desk = FootageDesk(tmp_path / "desk", database=database.setting)
        desk.knows()
        film(desk, tmp_path)
        yield world_on(desk)
        desk.engine.dispose()


def test_what_is_older_goes_with_a_tombstone_and_a_line_of_the_audit_log(either: World) -> None:
    world = either
    before = world.present()
    assert before
    desk = world.retention()
    world.later(29)
    assert desk.remove_due() == desk.sweep() == 0
    world.later(1)
    assert desk.remove_due() == len(before)
    assert world.present() == [] and all(world.in_archive(one) for one in before), "the row first, then the bytes"
    assert desk.sweep() == len(before)
    assert not any(world.in_archive(one) for one in before) and world.todo() == []
    stones = {one.sha256: one for one in world.stones()}
    assert set(stones) == set(before)
    one = stones[before[0]]
    assert (one.node, one.why, one.policy, one.asked, one.confirmed) == (POST, Why.AGE, "30", "", "")
    assert one.name.startswith("segments/") and one.bytes > 0 and one.received_utc_ns == UTC_0
    assert one.utc_ns == world.clock.utc().utc_ns and one.from_utc_ns is not None
    (told,) = world.log("footage-removed")
    assert told["files"] == {f"{POST}/{sha}": stones[sha].bytes for sha in before}
    assert (told["why"], told["policy"], told["who"]) == ("age", "30", "")
    with reading(world.desk.engine) as db:
        counted = rows.counted(db, EVERYWHERE, 0, 2**62)
        assert counted[Why.AGE] == (len(before), sum(one.bytes for one in stones.values()))
        assert rows.counted(db, ELSEWHERE.scope, 0, 2**62)[Why.AGE] == (0, 0)
        assert rows.of_order(db, "0" * 36) == len(before), "what an order has brought is still counted for it"
    assert desk.remove_due() == desk.sweep() == 0, "again: nothing happens"


def test_while_nobody_vouches_for_the_clock_nothing_goes_by_its_age(world: World) -> None:
    world.later(300)
    world.clock.set_unc(None)
    before = world.present()
    assert world.retention().remove_due() == 0
    assert world.present() == before
    assert world.retention(policy=Policy(bytes_max=1)).remove_due() == len(before), "room knows no clock"


def test_a_station_without_time_servers_may_say_so(world: World) -> None:
    world.later(300)
    world.clock.set_unc(None)
    assert world.retention(policy=Policy(days=30, trust_clock=True)).remove_due() > 0


def test_what_was_removed_may_come_again_and_is_then_kept_anew(world: World, tmp_path: Path) -> None:
    before = world.present()
    desk = world.retention()
    world.later(31)
    desk.remove_due()
    for sha256 in before:
        with pytest.raises(Transient, match="being removed"):
            rows.before_put(world.desk.engine, POST, sha256)
    desk.sweep()
    known = rows.before_put(world.desk.engine, POST, before[0])
    assert known > 0
    film(world.desk, tmp_path / "again")
    back = set(world.present())
    assert back == set(before), "the same post, the same frames"
    with reading(world.desk.engine) as db:
        assert rows.removed(db, POST, UTC_0 - NS, UTC_0 + 60 * NS) == [], "what is there again is not told as removed"
    assert len(world.stones()) == len(before), "the record stays"


def test_who_puts_a_file_while_it_is_removed_is_told_to_put_it_again(either: World) -> None:
    world = either
    sha256 = world.present()[0]
    before = rows.before_put(world.desk.engine, POST, sha256)
    assert before == 0
    desk = world.retention()
    world.later(31)
    desk.remove_due()
    for _ in range(2):  # while its bytes are there, and when they are gone: both times they would be missing in the end
        with pytest.raises(Transient), writing(world.desk.engine, "note footage") as db:
            rows.unchanged(db, POST, sha256, before)
        desk.sweep()
    with writing(world.desk.engine, "note footage") as db:
        rows.unchanged(db, POST, sha256, rows.before_put(world.desk.engine, POST, sha256))


def test_the_tombstones_cannot_be_changed_in_the_database_either(either: World) -> None:
    world = either
    world.later(31)
    world.retention().remove_due()
    n = _confirmed(world)
    assert n is No.NOTHING, "there is nothing left"
    engine = world.desk.engine
    with writing(engine, "an ask") as db:
        told = {"reason": "r", "login": "lan", "utc_ns": 1, "trail_seq": 1}
        db.execute(insert(retention_ask).values(n=1, node="x", from_utc_ns=1, to_utc_ns=2, authority="a", **told))
        db.execute(insert(retention_answer).values(ask_n=1, answer="refused", **told))
    for table, column in (("retention_stone", "name"), ("retention_ask", "reason"), ("retention_answer", "reason")):
        orders = [f"update {table} set {column} = 'x'", f"delete from {table}"]
        orders.append(
            f"insert or replace into {table} select * from {table}"
            if engine.dialect.name == "sqlite"
            else f"truncate {table} cascade"
        )
        for order in orders:
            with engine.connect() as db, pytest.raises(SQLAlchemyError, match="append-only"), db.begin():
                db.exec_driver_sql(order)


# -- what stays -------------------------------------------------------------------------------------------------------


def case_desk(world: World) -> CaseDesk:
    return CaseDesk(
        trail=world.trail, cases=Cases(world.desk.engine), clock=world.clock, queue=lambda *_: None,
        archive=world.desk.archive, site=SITE,
    )  # fmt: skip


def opened(world: World, cases: CaseDesk, *, start_s: float = -5, posts: tuple[str, ...] = (POST,)) -> int:
    opening = Opening(
        number="12/2026", reason="a theft", place="", posts=posts, from_utc_ns=UTC_0 + round(start_s * NS),
        to_utc_ns=UTC_0 + 60 * NS,
    )  # fmt: skip
    made = cases.open(OPERATOR, opening)
    assert isinstance(made, int)
    return made


def test_a_case_keeps_what_it_has_and_what_it_covers_until_it_is_disposed_of(either: World) -> None:
    world = either
    cases, desk, before = case_desk(world), world.retention(), world.present()
    n = opened(world, cases)
    world.later(400)
    assert desk.remove_due() == 0
    (row,) = desk.forecast(EVERYWHERE)
    assert (row.kept_files, row.kept_for, sum(row.files)) == (len(before), {"case 12/2026"}, 0)
    seen = 2
    assert cases.act(SUPERVISOR, n, Act.CLOSED, Told(reason="over"), seen=seen) == seen + 1
    assert desk.remove_due() == 0, "a package of it may have been made: only its disposal lets it go"
    disposed = cases.dispose(SUPERVISOR, n, Told(reason="over", reference="D-1"), seen=seen + 1)
    assert disposed == len(before)
    assert desk.remove_due() == 0 and world.stones() == [], "the case's own tombstones tell of them"


def test_a_case_keeps_what_has_come_for_it_and_is_not_attached_yet(world: World, tmp_path: Path) -> None:
    empty = case_desk(world)
    with writing(world.desk.engine, "nothing is here yet") as db:
        db.exec_driver_sql("delete from footage")
    opened(world, empty)
    film(world.desk, tmp_path / "later")
    world.later(400)
    assert world.retention().remove_due() == 0


def test_a_case_of_another_time_or_post_keeps_nothing(world: World) -> None:
    cases = case_desk(world)
    opened(world, cases, posts=("cam-99",))
    far = Opening(
        number="13", reason="r", place="", posts=(POST,), from_utc_ns=UTC_0 - 20 * DAY_NS, to_utc_ns=UTC_0 - 19 * DAY_NS
    )
    assert isinstance(cases.open(OPERATOR, far), int)
    world.later(31)
    assert world.retention().remove_due() > 0


def test_a_case_that_is_opened_between_the_look_and_the_transaction_keeps_its_footage(world: World) -> None:
    world.later(31)
    desk = world.retention()
    choose = desk._choose

    def late() -> Any:
        found = choose()
        opened(world, case_desk(world))
        return found

    desk._choose = late  # type: ignore[method-assign]
    assert desk.remove_due() == 0
    assert world.present()


def queue(world: World, n: int, verb: str, **args: str) -> None:
    asked = wire.Command(id=f"{n:036x}", verb=verb, expires=rfc3339(UTC_0), args=args)
    with writing(world.desk.engine, "queue") as db:
        db.execute(
            insert(command).values(
                id=asked.id, node=POST, verb=verb, payload=wire.encode(asked), asked_utc_ns=UTC_0, expires_utc_ns=UTC_0
            )
        )


def test_a_hold_keeps_until_it_is_released_or_its_time_is_over(either: World) -> None:
    world = either
    start, end = rfc3339(UTC_0), rfc3339(UTC_0 + 2 * NS)
    until = rfc3339(UTC_0 + 50 * DAY_NS)
    for n, more in ((1, {}), (2, {"until": until}), (3, {"id": "by-its-own-name"})):
        queue(world, n, "hold", **({"from": start, "to": end, "reason": "x"} | more))
    queue(world, 9, "hold", **{"from": "no time", "to": end})
    world.later(40)
    assert world.retention().remove_due() == 0
    queue(world, 4, "release", hold=f"{1:036x}")
    assert world.retention().remove_due() == 0, "two more keep it"
    queue(world, 5, "release", hold="by-its-own-name")
    assert world.retention().remove_due() == 0, "one has ten days to go"
    world.later(10)
    assert world.retention().remove_due() > 0


def test_a_hold_that_was_made_at_the_post_stands_on_its_ledger_and_counts(tmp_path: Path) -> None:
    desk = FootageDesk(tmp_path / "desk")
    desk.knows()
    post = film(desk, tmp_path)
    world = world_on(desk)
    post.post.store.add_hold(Hold("made-at-the-post", UTC_0, UTC_0 + 2 * NS, None, "a fight", "the post", UTC_0))
    post.settle()
    desk.hear(post)
    world.later(400)
    retention = world.retention()
    assert retention.remove_due() == 0
    post.post.store.end_hold("made-at-the-post", "released at the post")
    post.settle()
    desk.hear(post)
    assert retention.remove_due() > 0
    desk.engine.dispose()


def test_what_was_drawn_for_inspection_stays_until_somebody_has_looked_at_it(world: World) -> None:
    inspection = InspectionDesk(trail=world.trail, clock=world.clock, site=SITE, zone=dt.UTC)
    assert inspection.draw(AUDITOR)
    before, week = world.present(), inspection.week()
    world.later(31)
    assert world.retention().remove_due() == 0
    for sha256 in before:
        done = inspection.check(AUDITOR, week, kind="footage", node=POST, ref=sha256, result="good", text="")
        assert done
    assert world.retention().remove_due() == len(before)


def test_a_draw_that_nobody_ever_looks_at_keeps_its_files_for_a_quarter_of_a_year(world: World) -> None:
    assert InspectionDesk(trail=world.trail, clock=world.clock, site=SITE, zone=dt.UTC).draw(AUDITOR)
    world.later(91)
    assert world.retention().remove_due() == 0
    world.later(2)
    assert world.retention().remove_due() > 0


# -- before its time --------------------------------------------------------------------------------------------------


def _confirmed(world: World, by: Person = SECOND) -> int | No | None:
    desk = world.retention()
    asked = desk.ask(OPERATOR, EARLY)
    return asked if isinstance(asked, No) else desk.answer(by, asked, confirmed=True)


def test_nothing_goes_early_without_a_second_person(either: World) -> None:
    world = either
    desk, before = world.retention(policy=Policy()), world.present()
    asked = desk.ask(SUPERVISOR, EARLY)
    assert isinstance(asked, int)
    assert world.present() == before, "asking removes nothing"
    assert desk.answer(SUPERVISOR, asked, confirmed=True) is No.ONE_PERSON
    assert desk.answer(OPERATOR, asked, confirmed=True) is No.NOT_YOURS
    assert desk.answer(AUDITOR, asked, confirmed=True) is No.NOT_YOURS
    assert desk.answer(ELSEWHERE, asked, confirmed=True) is None, "it does not exist for him"
    assert desk.answer(SECOND, asked + 1, confirmed=True) is None
    assert desk.ask(AUDITOR, EARLY) is desk.ask(ELSEWHERE, EARLY) is No.NOT_YOURS
    assert world.present() == before
    assert desk.answer(SECOND, asked, confirmed=True) == len(before)
    assert desk.sweep() == len(before) and not any(world.in_archive(one) for one in before)
    assert desk.answer(ADMIN, asked, confirmed=True) is No.OVER
    one = world.stones()[0]
    assert (one.why, one.asked, one.confirmed) == (Why.EARLY, "minh", "thu")
    assert (one.reason, one.authority) == (EARLY.reason, EARLY.authority)
    (told,) = world.log("removal-asked")
    assert (told["who"], told["reason"], told["authority"]) == ("minh", EARLY.reason, EARLY.authority)
    (removed,) = world.log("footage-removed")
    assert (removed["who"], removed["ask"], set(removed["files"])) == ("thu", asked, {f"{POST}/{x}" for x in before})
    (answered,) = world.log("removal-answered")
    assert (answered["answer"], answered["files"], answered["kept"]) == ("confirmed", len(before), 0)


def test_an_ask_is_refused_or_lapses(world: World) -> None:
    desk, before = world.retention(), world.present()
    first, second = desk.ask(OPERATOR, EARLY), desk.ask(OPERATOR, EARLY)
    assert isinstance(first, int) and isinstance(second, int)
    assert desk.answer(SUPERVISOR, first, confirmed=False, reason="no such decision") == 0
    assert desk.answer(SUPERVISOR, first, confirmed=True) is No.OVER
    world.clock.advance((ASK_DAYS_MAX + 1) * 86_400)
    assert desk.answer(SUPERVISOR, second, confirmed=True) is No.OVER
    assert world.present() == before


def test_a_confirmed_removal_leaves_what_a_case_needs_and_what_came_after_it_was_asked(world: World) -> None:
    desk, before = world.retention(), world.present()
    asked = desk.ask(OPERATOR, EARLY)
    assert isinstance(asked, int)
    opened(world, case_desk(world))
    with reading(world.desk.engine) as db:
        (ask,) = rows.asks(db, EVERYWHERE)
    named = desk.names(ask)
    assert (named.files, {why for _, why in named.kept}) == ((), {"case 12/2026"})
    assert desk.answer(SECOND, asked, confirmed=True) == 0
    assert world.present() == before
    with reading(world.desk.engine) as db:
        (ask,) = rows.asks(db, EVERYWHERE)
    assert (ask.answer, ask.files, ask.kept) == ("confirmed", 0, len(before))


def test_what_lies_elsewhere_is_not_named(world: World) -> None:
    desk = world.retention()
    assert desk.ask(OPERATOR, replace(EARLY, node="cam-99")) is No.NOTHING
    later = replace(EARLY, from_utc_ns=UTC_0 + 500 * NS, to_utc_ns=UTC_0 + 600 * NS)
    assert desk.ask(OPERATOR, later) is No.NOTHING


# -- cuts -------------------------------------------------------------------------------------------------------------


def test_an_end_at_any_step_is_finished_at_the_next_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.present()
    world.later(31)
    done, n = rows.done, 0
    while True:
        step = Steps(n)

        def stepped(engine: Any, refs: Any, step: Steps = step) -> None:
            step()
            done(engine, refs)
            step()

        monkeypatch.setattr(rows, "done", stepped)
        desk = world.retention(SteppedArchive(world.desk.archive, step))
        cut = False
        try:
            desk.remove_due()
            step()
            desk.sweep()
        except Killed:
            cut = True
        monkeypatch.setattr(rows, "done", done)
        whole(world, before, f"step {n}")
        assert len(world.log("footage-removed")) == 1, "the first life put it on record, once"
        if not cut:
            break
        n += 1
    assert n >= 1
    settle(world)
    whole(world, before, "in the end")
    assert world.todo() == [] and not any(world.in_archive(one) for one in before)


def test_a_power_cut_at_any_write_of_the_archives_disk_is_finished_at_the_next_start(
    filmed: Path, tmp_path: Path
) -> None:
    steps = 0
    while True:
        world = world_on(FootageDesk(Path(shutil.copytree(filmed, tmp_path / f"desk{steps}"))))
        before, disk = world.present(), FakeDisk()
        world.archive = LocalArchive(disk, free_bytes_min=0)
        for sha256 in before:
            name = name_of(POST, sha256)
            size = world.desk.archive.size(name) or 0
            data = io.BytesIO(world.desk.archive.read(name, 0, size))
            world.archive.put(name, data, size=size, sha256=sha256)
        world.later(31)
        retention = world.retention()
        retention.remove_due()
        disk.crash_point = cut_at(steps)
        cut = False
        try:
            retention.sweep()
        except PowerCut:
            cut = True
        disk.crash_point = lambda _step: None
        if cut:
            disk.power_cut(random.Random(steps).randrange)
        whole(world, before, f"step {steps}")
        settle(world)
        assert world.todo() == [] and not any(world.in_archive(one) for one in before), f"step {steps}"
        world.desk.engine.dispose()
        if not cut:
            break
        steps += 1
    assert steps >= 2


def test_kill_9_in_the_middle_is_finished_at_the_next_start(copied: World) -> None:
    """One of the steps above, by a program that is really killed; tests/system/test_archive_retention.py has them all."""
    world, before = copied, copied.present()
    assert len(before) >= 2
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(world.desk.folder), "2"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    whole(world, before, "killed")
    assert len(world.todo()) == len(before), "nothing is off the list before all of it is gone"
    assert sum(world.in_archive(one) for one in before) == len(before) - 1
    settle(world)
    whole(world, before, "in the end")
    assert world.todo() == [] and world.present() == []
    assert len(world.log("footage-removed")) == 1
    world.desk.engine.dispose()


# -- the worker -------------------------------------------------------------------------------------------------------


def test_the_worker_finishes_what_is_left_first_and_comes_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    before = world.present()
    world.later(31)
    world.retention().remove_due()  # ... and the program ended
    worker = RetentionWorker(make=world.retention, by_age=True)
    with pytest.raises(Transient):
        worker.step(0.0)
    worker.open()
    now = worker.step(0.0)
    assert world.todo() == [] and not any(world.in_archive(one) for one in before)
    assert now == SWEEP_S
    assert worker.step(now) == now + SWEEP_S
    world.clock.set_unc(None)
    for _ in range(2):
        now = worker.step(now + LOOK_S)
    told = [one.message for one in caplog.records if "vouches" in one.message]
    assert len(told) == 1 and "archive.trust_clock" in told[0], "once, not every ten minutes"
    worker.close()


def test_an_archive_that_is_away_is_waited_for(world: World) -> None:
    before = world.present()
    world.later(31)

    class Away:
        def remove(self, name: str) -> None:
            raise Transient("the archive is away")

    worker = RetentionWorker(make=lambda: world.retention(Away()), by_age=True)
    worker.open()
    assert worker.step(0.0) == 0.0
    with pytest.raises(Transient, match="away"):
        worker.step(0.0)
    whole(world, before, "away")
    settle(world)
    assert world.todo() == []


# -- a full archive ---------------------------------------------------------------------------------------------------


def test_a_full_archive_takes_nothing_says_so_and_takes_again_when_there_is_room(either: World, tmp_path: Path) -> None:
    world = either
    with reading(world.desk.engine) as db:
        used = rows.used_bytes(db)
    room = RoomArchive(world.desk.archive, engine=world.desk.engine, clock=world.clock, bytes_max=used + 1000)
    whole_file = tmp_path / "new"
    whole_file.write_bytes(b"x" * 2000)
    sha256 = hashlib.sha256(b"x" * 2000).hexdigest()

    def put(source: BinaryIO) -> None:
        room.put(name_of(POST, sha256), source, size=2000, sha256=sha256)

    def wait() -> rows.Wait | None:
        with reading(world.desk.engine) as db:
            return rows.waiting(db)

    assert wait() is None
    with whole_file.open("rb") as source:
        with pytest.raises(Transient, match=r"archive\.gb_max"):
            put(source)
        first = wait()
        assert first is not None and "archive.gb_max" in first.why
        world.clock.advance(60)
        with pytest.raises(Transient):
            put(source)
        again = wait()
        assert again is not None
        assert (again.since_utc_ns, again.tried_utc_ns) == (first.since_utc_ns, first.since_utc_ns + 60 * NS)
        assert not world.in_archive(sha256)
        world.later(31)
        settle(world)
        put(source)
    assert wait() is None and world.in_archive(sha256)


def test_a_full_disk_is_told_and_nothing_that_a_case_needs_goes_for_it(world: World, tmp_path: Path) -> None:
    before = world.present()
    opened(world, case_desk(world))
    small = LocalArchive(PosixDisk(tmp_path), free_bytes_min=1 << 60)
    room = RoomArchive(small, engine=world.desk.engine, clock=world.clock, bytes_max=0)
    content = tmp_path / "content"
    content.write_bytes(b"y")
    with content.open("rb") as source, pytest.raises(Transient, match=r"archive\.free_gb_min"):
        room.put(name_of(POST, "a" * 64), source, size=1, sha256="a" * 64)
    with reading(world.desk.engine) as db:
        found = rows.waiting(db)
    assert found is not None and "make room there" in found.why
    assert world.retention(policy=Policy(days=30, bytes_max=1)).remove_due() == 0
    assert world.present() == before


# -- a case opened after it --------------------------------------------------------------------------------------------


def test_a_case_says_what_retention_had_removed_of_its_time(world: World) -> None:
    before = world.present()
    world.later(31)
    settle(world)
    n = opened(world, case_desk(world))
    case = Cases(world.desk.engine).find(EVERYWHERE, n)
    assert case is not None and case.items == ()
    told = case_dict(case)["removed"]
    assert {one["sha256"] for one in told} == set(before)
    assert {(one["why"], one["policy"], one["post"]) for one in told} == {("age", "30", POST)}
    lines = {seq for seq, raw in enumerate(world.trail.lines(), 1) if said(raw)["kind"] == "footage-removed"}
    assert {one["audit_line"] for one in told} == lines
    assert all(one["removed"] > one["received"] for one in told)


# -- in the station ----------------------------------------------------------------------------------------------------


def test_the_stations_own_thread_finishes_what_an_earlier_life_has_begun(copied: World) -> None:
    before = copied.present()
    copied.later(31)
    copied.retention().remove_due()  # ... and the program ended
    asked = ArchiveSettings(retention_days=30, gb_max=2.5, trust_clock=True)
    assert asked.policy == Policy(days=30, bytes_max=2_500_000_000, trust_clock=True)
    retention = Retention(
        asked,
        folder=copied.desk.folder,
        database=database_url(copied.desk.folder, ""),
        site=SITE,
        station="hq",
        clock=SystemClock(),
    )
    retention.start()
    by = time.monotonic() + 120
    while copied.todo():
        assert time.monotonic() < by, "it has not begun"
        time.sleep(0.05)
    retention.stop()
    whole(copied, before, "by the thread")
    assert not any(copied.in_archive(one) for one in before)
    copied.desk.engine.dispose()


def test_who_removes_nothing_has_no_thread_for_it(tmp_path: Path) -> None:
    desk = DeskSettings(site="ward-7", id="hq", data=str(tmp_path))
    bare = StationSettings(station=desk, broker=BrokerSettings(brokers=("mqtt://127.0.0.1:1",)))
    assert _retention(bare, FakeClock()) is None
    made = _retention(msgspec.structs.replace(bare, archive=ArchiveSettings(retention_days=1)), FakeClock())
    assert made is not None
    made.stop()
