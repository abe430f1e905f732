"""Packages are made behind the pages' back: by whom and of what they are on record, whatever happens meanwhile. On both
databases, with the real exporter; the thread is driven step by step, but where its end is the question.
"""

# ruff: noqa: F811  (the world is a fixture of another file)
from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from agent.clock import SystemClock
from agent.disk import PosixDisk
from agent.errors import Transient
from agent.evidence import standalone, verify
from agent.station.cases import packer as packer_module
from agent.station.cases.desk import CaseDesk
from agent.station.cases.export import ACT_TRIES_MAX, Exporter
from agent.station.cases.packer import Packer
from agent.station.cases.packing import FAILED_MAX, FAILED_S_MAX, Answer, Failure, Far, Job, Stage, Why
from agent.station.cases.states import Act, Objection, Told
from agent.station.cases.wishes import BEGUN_MAX, Wishes
from agent.station.people.registry import Registry
from agent.station.people.roles import Person, Role, Scope
from agent.station.people.trail import Trail
from agent.station.web.server import WebServer
from agent.station.web.settings import Listening
from agent.types import NS
from tests.e2e.brokers import free_port
from tests.fakes.footage_desk import POST, FootageDesk
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.unit.test_case_package import OTHER, film
from tests.unit.test_cases import (  # noqa: F401
    ADMIN,
    EVERYWHERE,
    OPERATOR,
    SITE,
    SUPERVISOR,
    World,
    trail_of,
    world,
    world_on,
)
from tests.unit.test_serving import Caller, _Nothing

WHY = Told(reason="for the prosecutor")
WITHIN_S = 30.0


class Meanwhile:
    """The archive. Before the first bytes of footage are read of it, something happens."""

    def __init__(self, archive: Any, happens: Callable[[], object]) -> None:
        self._archive = archive
        self._happens: Callable[[], object] | None = happens
        self.reads: list[str] = []

    def put(self, name: str, source: BinaryIO, *, size: int, sha256: str) -> None:
        self._archive.put(name, source, size=size, sha256=sha256)

    def remove(self, name: str) -> None:
        self._archive.remove(name)

    def size(self, name: str) -> int | None:
        found: int | None = self._archive.size(name)
        return found

    def read(self, name: str, offset: int, count: int) -> bytes:
        happens, self._happens = self._happens, None
        if happens is not None:
            happens()
        self.reads.append(name)
        data: bytes = self._archive.read(name, offset, count)
        return data


def registry_of(world: World) -> Registry:
    return Registry(world.desk.engine, trail=world.trail, clock=world.desk.clock)


def packer_on(world: World, *, archive: Any = None, clock: Any = None, trail: Trail | None = None) -> Packer:
    """A station's, not started."""
    desk = world.desk
    writer = world.writer
    if trail is not None:
        writer = CaseDesk(
            trail=trail,
            cases=world.cases,
            clock=desk.clock,
            queue=lambda _node, _verb, _args: None,
            archive=desk.archive,
            site=SITE,
        )
    exporter = Exporter(
        engine=desk.engine,
        desk=writer,
        archive=archive or desk.archive,
        clock=desk.clock,
        site=SITE,
        folder=desk.folder,
        disk=PosixDisk(desk.folder),
    )
    return Packer(
        maker=exporter,
        wishes=Wishes(desk.engine),
        cases=world.cases,
        registry=registry_of(world),
        clock=clock or desk.clock,
    )


def ask(packer: Packer, world: World, n: int, who: Person = OPERATOR, node: str = POST) -> Answer | Objection:
    return packer.ask(who, world.case(n), node, WHY, seen=world.case(n).newest)


def filmed(world: World, folder: Path, *more: str) -> int:
    """A case of a post that has footage and a ledger here; and of `more`, which have, too."""
    for of in (POST, *more):
        film(world, folder, of)
    for of in more:
        world.desk.knows(of, "Market")
    return world.open(posts=(POST, *more))


def exports(world: World) -> list[str]:
    return sorted(path.name for path in (world.desk.folder / "exports").iterdir())


def acts(world: World, n: int) -> list[Act]:
    return [step.act for step in world.case(n).steps]


def timeline_in(package: Path) -> list[str]:
    with package.open("rb") as file:
        found = standalone.Package(file, standalone.Findings())
        found.open()
        case = json.loads(found.read(found.members["case.json"], 1 << 20))
    return [one["act"] for one in case["timeline"]]


def failed(packer: Packer, n: int) -> Job:
    (job,) = packer.of(n)
    assert job.stage is Stage.FAILED
    return job


def test_asking_returns_at_once_and_the_package_is_recorded_by_who_asked_first(world: World, tmp_path: Path) -> None:
    n = filmed(world, tmp_path, OTHER)
    packer = packer_on(world)
    packer.open()
    asked_utc_ns = world.desk.clock.utc().utc_ns
    assert ask(packer, world, n, node="") is Answer.TAKEN
    assert ask(packer, world, n, SUPERVISOR, "") is Answer.KNOWN
    assert acts(world, n) == [Act.OPENED, Act.ATTACHED]  # nothing has been made by asking
    world.desk.clock.advance(60)
    (job,) = packer.of(n)
    assert (job.stage, job.since_utc_ns, job.wish.name, job.wish.posts) == (
        Stage.WAITING,
        asked_utc_ns,
        "Lan",
        (POST, OTHER),
    )
    assert packer.step(5.0) >= 5.0  # ... and the next one at once
    assert packer.of(n) == []
    step = world.case(n).steps[-1]
    assert (step.act, step.login, step.reason, step.detail) == (Act.COPIED, "lan", WHY.reason, f"{POST} {OTHER}")
    line = trail_of(world)[-1]
    assert (line["act"], line["who"], line["step"]) == ("copied", "lan", 3)
    told = {"reason": WHY.reason, "sha256": step.sha256, "bytes": step.bytes, "detail": f"{POST} {OTHER}"}
    assert line["told"] == told
    path = world.desk.folder / "exports" / f"case-{n}-3.zip"
    assert exports(world) == [path.name]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == step.sha256
    assert verify.verify(path, [])["verdict"] == "verified"
    assert packer.step(7.0) == 7.0 + packer_module.LOOK_S  # nothing to do


def test_who_may_not_or_does_not_see_what_became_of_it_does_not_even_wait(world: World) -> None:
    n = world.open()
    packer = packer_on(world)
    case = world.case(n)
    assert packer.ask(ADMIN, case, POST, WHY, seen=case.newest) is Objection.NOT_YOURS
    assert packer.ask(OPERATOR, case, POST, Told(), seen=case.newest) is Objection.REASON
    assert packer.ask(OPERATOR, case, POST, WHY, seen=case.newest + 1) is Objection.CHANGED
    assert packer.of(n) == []


@pytest.mark.parametrize("node", [POST, ""])
def test_others_act_while_it_waits_and_while_it_is_made_and_it_is_recorded_behind_them(
    world: World,
    tmp_path: Path,
    node: str,
) -> None:
    n = filmed(world, tmp_path, OTHER)
    archive = Meanwhile(world.desk.archive, lambda: world.act(n, Act.CLOSED))
    packer = packer_on(world, archive=archive)
    assert ask(packer, world, n, node=node) is Answer.TAKEN
    world.act(n, Act.NOTED)
    packer.step(0.0)
    assert packer.of(n) == []
    assert acts(world, n) == [Act.OPENED, Act.ATTACHED, Act.NOTED, Act.CLOSED, Act.COPIED]
    step = world.case(n).steps[-1]
    path = world.exporter.file(n, step)
    assert path is not None
    assert exports(world) == [path.name] == [f"case-{n}-5.zip"]  # by the act that it has become
    assert verify.verify(path, [])["verdict"] == "verified"
    assert timeline_in(path) == ["opened", "attached", "noted"]  # what was there when it was begun, and no more


def test_two_packages_of_one_case_do_not_throw_each_other_away(world: World, tmp_path: Path) -> None:
    n = filmed(world, tmp_path, OTHER)
    packer = packer_on(world)
    assert ask(packer, world, n) is ask(packer, world, n, SUPERVISOR, "") is Answer.TAKEN
    packer.step(0.0)
    packer.step(0.0)
    assert [(step.number, step.login, step.node) for step in world.case(n).steps if step.act is Act.COPIED] == [
        (3, "lan", POST),
        (4, "minh", ""),
    ]
    assert exports(world) == [f"case-{n}-3.zip", f"case-{n}-4.zip"]


@pytest.mark.parametrize("node", [POST, ""])
def test_a_case_that_is_disposed_of_meanwhile_has_no_copy_and_nothing_is_left_of_it(
    world: World,
    tmp_path: Path,
    node: str,
) -> None:
    n = filmed(world, tmp_path, OTHER)

    def dispose() -> None:
        world.act(n, Act.CLOSED)
        told = Told(reason="the owner has it back", reference="decree 5")
        assert world.writer.dispose(ADMIN, n, told, seen=world.case(n).newest)

    packer = packer_on(world, archive=Meanwhile(world.desk.archive, dispose))
    assert ask(packer, world, n, node=node) is Answer.TAKEN
    packer.step(0.0)
    assert failed(packer, n).failure == Failure(Why.DISPOSED)
    assert exports(world) == []
    assert Act.COPIED not in acts(world, n)
    assert ask(packer, world, n, node=node) is Objection.NOT_NOW
    assert failed(packer, n).failure == Failure(Why.DISPOSED)


def test_of_a_case_of_several_posts_the_rest_is_not_even_read_once_it_is_disposed_of(
    world: World,
    tmp_path: Path,
) -> None:
    n = filmed(world, tmp_path, OTHER)

    def dispose() -> None:
        world.act(n, Act.CLOSED)
        told = Told(reason="the owner has it back", reference="decree 5")
        world.writer.act(ADMIN, n, Act.DISPOSED, told, seen=world.case(n).newest)  # its files are still there

    archive = Meanwhile(world.desk.archive, dispose)
    packer = packer_on(world, archive=archive)
    ask(packer, world, n, node="")
    packer.step(0.0)
    assert failed(packer, n).failure == Failure(Why.DISPOSED)
    assert {name.partition("/")[0] for name in archive.reads} == {min(POST, OTHER)}


@pytest.mark.parametrize("when", ["waiting", "making"])
@pytest.mark.parametrize("how", ["role", "disabled", "scope"])
def test_who_loses_the_right_meanwhile_gets_no_copy(world: World, tmp_path: Path, how: str, when: str) -> None:
    n = filmed(world, tmp_path)
    people = registry_of(world)

    def lose() -> None:
        if how == "role":
            people.set_role("lan", Role.AUDITOR, EVERYWHERE, by="account:test")
        elif how == "scope":
            people.set_role("lan", Role.OPERATOR, Scope(whole_site=False, posts=frozenset({"x"})), by="account:test")
        else:
            people.set_disabled("lan", disabled=True, by="account:test")

    packer = packer_on(world, archive=Meanwhile(world.desk.archive, lose if when == "making" else lambda: None))
    assert ask(packer, world, n) is Answer.TAKEN
    if when == "waiting":
        lose()
    packer.step(0.0)
    assert failed(packer, n).failure == Failure(Why.NOT_YOURS)
    assert Act.COPIED not in acts(world, n)
    assert not (world.desk.folder / "exports").exists() or exports(world) == []


def test_what_failed_is_told_until_it_is_asked_for_again(world: World, tmp_path: Path) -> None:
    n = world.open()
    packer = packer_on(world)
    ask(packer, world, n)
    packer.step(0.0)
    why = failed(packer, n).failure
    assert why is not None
    assert why.why is Why.CANNOT
    assert "the station has no ledger of this post" in why.said
    film(world, tmp_path, POST)
    assert ask(packer, world, n) is Answer.TAKEN
    packer.step(0.0)
    assert packer.of(n) == []
    assert acts(world, n)[-1] is Act.COPIED


def test_an_archive_that_is_away_and_a_bug_are_told_and_the_next_one_is_made(world: World, tmp_path: Path) -> None:
    n, m = filmed(world, tmp_path, OTHER), world.open(posts=(POST,))

    def away() -> None:
        raise Transient("archive: /mnt/archive: is the disk mounted?")

    archive = Meanwhile(world.desk.archive, away)
    packer = packer_on(world, archive=archive)
    ask(packer, world, n, node="")
    packer.step(0.0)
    assert failed(packer, n).failure == Failure(Why.CANNOT, "archive: /mnt/archive: is the disk mounted?")
    assert exports(world) == []

    def bug() -> None:
        raise ZeroDivisionError

    archive._happens = bug
    ask(packer, world, n, node="")
    ask(packer, world, m)
    packer.step(0.0)
    assert failed(packer, n).failure == Failure(Why.BROKEN)
    packer.step(0.0)
    assert (packer.of(m), acts(world, m)[-1]) == ([], Act.COPIED)


def test_an_act_that_does_not_come_about_leaves_nothing_that_is_offered(world: World, tmp_path: Path) -> None:
    n = filmed(world, tmp_path)
    shut = Trail(world.desk.engine, clock=world.desk.clock, site=SITE, station="hq", disk=PosixDisk(world.desk.folder))
    packer = packer_on(world, trail=shut)  # the line of the audit log cannot be written, so there is no act
    ask(packer, world, n)
    packer.step(0.0)
    assert failed(packer, n).failure == Failure(Why.CANNOT, "the audit log is not open")
    assert world.act(n, Act.NOTED) == 3
    (step,) = [step for step in world.case(n).steps if step.number == 3]
    assert world.exporter.file(n, step) is None  # whatever lies there by this number is of no copy
    packer = packer_on(world)
    ask(packer, world, n)
    packer.step(0.0)
    path = world.exporter.file(n, world.case(n).steps[-1])
    assert path is not None
    assert verify.verify(path, [])["verdict"] == "verified"


def test_a_database_that_is_busy_for_a_moment_costs_no_package(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = filmed(world, tmp_path)
    copied = world.writer.copied
    answers = [Transient("database is locked"), Transient("database is locked"), None, None, None, None, None]

    def busy(*args: Any, **more: Any) -> int | Objection:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return copied(*args, **more)

    monkeypatch.setattr(world.writer, "copied", busy)
    packer = packer_on(world)
    ask(packer, world, n)
    packer.step(0.0)
    assert (packer.of(n), exports(world)) == ([], [f"case-{n}-3.zip"])
    answers[:] = [Transient("database is locked")] * 9
    ask(packer, world, n)
    packer.step(0.0)
    assert failed(packer, n).failure == Failure(Why.CANNOT, "database is locked")
    assert len(answers) == 9 - ACT_TRIES_MAX
    assert exports(world) == [f"case-{n}-3.zip"]


def test_how_far_it_is_is_told_while_it_is_made(world: World, tmp_path: Path) -> None:
    n = filmed(world, tmp_path, OTHER)
    seen: list[Far] = []

    class Looking(Meanwhile):
        def read(self, name: str, offset: int, count: int) -> bytes:
            (job,) = packer.of(n)
            assert job.stage is Stage.MAKING
            seen.append(job.far)
            return super().read(name, offset, count)

    archive = Looking(world.desk.archive, lambda: None)
    packer = packer_on(world, archive=archive)
    ask(packer, world, n, node="")
    packer.step(0.0)
    sizes = {name: world.desk.archive.size(name) or 0 for name in archive.reads}
    assert {far.bytes_max for far in seen} == {sum(sizes.values())}
    assert seen == sorted(seen, key=lambda far: far.bytes)
    assert seen[0].bytes == 0
    assert sum(sizes.values()) >= seen[-1].bytes > sum(sizes.values()) // 2
    assert [far.posts for far in seen] == sorted(far.posts for far in seen)
    assert {far.posts for far in seen} == {0, 1}


# -- what outlives the station ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """The plug is pulled: nothing more of this life is written."""


def kill() -> None:
    raise Killed


def copies(world: World, n: int) -> list[tuple[str, str, str]]:
    return [(step.login, step.node, step.reason) for step in world.case(n).steps if step.act is Act.COPIED]


def test_what_was_asked_for_before_a_restart_is_made_after_it_for_who_asked_in_the_order_of_asking(
    world: World, tmp_path: Path
) -> None:
    n, m = filmed(world, tmp_path, OTHER), world.open()
    before = packer_on(world)
    assert ask(before, world, n, node="") is ask(before, world, m, SUPERVISOR) is Answer.TAKEN
    told = before.of(n) + before.of(m)
    after = packer_on(world)
    assert after.of(n) + after.of(m) == told
    assert ask(after, world, m) is Answer.KNOWN
    after.step(0.0)
    assert copies(world, n) == [("lan", "", WHY.reason)]
    assert [job.before for job in after.of(m)] == [0]
    after.step(0.0)
    assert copies(world, m) == [("minh", POST, WHY.reason)]
    last = packer_on(world)
    assert last.of(n) + last.of(m) == []
    last.step(0.0)
    assert len(copies(world, n)) == len(copies(world, m)) == 1


def test_why_there_is_none_is_told_after_a_restart_too_for_the_rest_of_the_day(world: World) -> None:
    n, m = world.open(), world.open()
    packer = packer_on(world)
    ask(packer, world, n)
    packer.step(0.0)
    job = failed(packer, n)
    world.desk.clock.advance(FAILED_S_MAX - 60)
    ask(packer, world, m)
    packer.step(0.0)
    packer = packer_on(world)
    assert failed(packer, n) == job
    world.desk.clock.advance(61)
    assert (packer.of(n), len(packer.of(m))) == ([], 1)
    packer = packer_on(world)
    assert (packer.of(n), len(packer.of(m))) == ([], 1)
    assert ask(packer, world, m) is Answer.TAKEN
    packer = packer_on(world)
    assert [one.stage for one in packer.of(m)] == [Stage.WAITING]


def test_a_plug_that_is_pulled_while_it_is_made_costs_the_work_and_not_the_wish(world: World, tmp_path: Path) -> None:
    n = filmed(world, tmp_path)
    packer = packer_on(world, archive=Meanwhile(world.desk.archive, kill))
    ask(packer, world, n)
    with pytest.raises(Killed):
        packer.step(0.0)
    packer = packer_on(world)
    packer.open()
    assert [job.stage for job in packer.of(n)] == [Stage.WAITING]
    packer.step(0.0)
    assert copies(world, n) == [("lan", POST, WHY.reason)]


def test_what_the_station_dies_of_each_time_is_given_up_and_said_and_may_be_asked_for_again(
    world: World, tmp_path: Path
) -> None:
    n = filmed(world, tmp_path)
    ask(packer_on(world), world, n)
    for _ in range(BEGUN_MAX):
        packer = packer_on(world, archive=Meanwhile(world.desk.archive, kill))
        with pytest.raises(Killed):
            packer.step(0.0)
    for _ in range(2):  # and the next life says it, too
        packer = packer_on(world)
        packer.step(0.0)
        assert failed(packer, n).failure == Failure(Why.GIVEN_UP)
    assert ask(packer, world, n) is Answer.TAKEN
    packer.step(0.0)
    assert copies(world, n) == [("lan", POST, WHY.reason)]


def test_a_station_that_is_stopped_in_order_however_often_gives_nothing_up(world: World, tmp_path: Path) -> None:
    n = filmed(world, tmp_path)
    ask(packer_on(world), world, n)
    lives: list[Packer] = []
    for _ in range(BEGUN_MAX + 2):
        archive = Meanwhile(world.desk.archive, lambda: lives[-1].stop())  # noqa: PLW0108  (the last one is not here yet)
        lives.append(packer_on(world, archive=archive))
        lives[-1].step(0.0)
        assert len(archive.reads) == 1
    packer = packer_on(world)
    packer.step(0.0)
    assert len(copies(world, n)) == 1


@pytest.mark.parametrize("told_at_once", [True, False])
def test_a_package_whose_act_came_about_though_the_answer_was_lost_is_not_said_to_have_failed_nor_made_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_at_once: bool
) -> None:
    n = filmed(world, tmp_path)
    copied = world.writer.copied

    def breaks(*args: Any, **more: Any) -> int | Objection:
        copied(*args, **more)
        raise Transient("station database: the connection broke")

    packer = packer_on(world)
    ask(packer, world, n)
    with monkeypatch.context() as patch:
        patch.setattr(world.writer, "copied", breaks)
        if not told_at_once:
            patch.setattr(packer._wishes, "fail", away)
        packer.step(0.0)
    if not told_at_once:  # nobody knows yet
        assert failed(packer, n).failure == Failure(Why.CANNOT, "station database: the connection broke")
    packer.step(0.0)
    assert packer.of(n) == []
    path = world.exporter.file(n, world.case(n).steps[-1])
    assert path is not None
    packer_on(world).step(0.0)
    assert len(copies(world, n)) == 1


def away(*_: Any, **__: Any) -> Any:
    raise Transient("station database: away")


def test_while_the_database_is_away_nothing_is_taken_that_could_be_forgotten_and_nothing_is_given_up(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = filmed(world, tmp_path)
    packer = packer_on(world)
    with monkeypatch.context() as patch:
        patch.setattr(packer._wishes, "all", away)
        assert packer.step(1.0) == 1.0 + packer_module.AWAY_S
        with pytest.raises(Transient):
            packer.of(n)  # it is not known what waits
    with monkeypatch.context() as patch:
        patch.setattr(packer._wishes, "add", away)
        with pytest.raises(Transient):
            ask(packer, world, n)
        assert packer.of(n) == []
    assert ask(packer, world, n) is Answer.TAKEN
    with monkeypatch.context() as patch:
        patch.setattr(packer._wishes, "begin", away)
        assert packer.step(1.0) == 1.0 + packer_module.AWAY_S
        assert [job.stage for job in packer.of(n)] == [Stage.WAITING]
    packer.step(0.0)
    assert len(copies(world, n)) == 1


def test_why_there_is_none_is_kept_as_soon_as_the_database_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = world.open()
    packer = packer_on(world)
    ask(packer, world, n)
    with monkeypatch.context() as patch:
        patch.setattr(packer._wishes, "fail", away)
        packer.step(0.0)
        job = failed(packer, n)
        assert packer.step(1.0) == 1.0 + packer_module.AWAY_S
    packer.step(0.0)
    assert failed(packer_on(world), n) == job


def test_of_two_stations_that_both_think_it_is_theirs_one_puts_it_on_the_timeline(world: World, tmp_path: Path) -> None:
    n = filmed(world, tmp_path)
    other = packer_on(world)
    packer = packer_on(world, archive=Meanwhile(world.desk.archive, lambda: other.step(0.0)))
    ask(packer, world, n)
    assert len(other.of(n)) == 1
    packer.step(0.0)
    assert (packer.of(n), other.of(n)) == ([], [])
    assert len(copies(world, n)) == 1
    path = world.exporter.file(n, world.case(n).steps[-1])
    assert path is not None
    assert verify.verify(path, [])["verdict"] == "verified"


def test_what_is_kept_of_failures_has_a_bound(world: World) -> None:
    n = world.open()
    packer = packer_on(world)
    ask(packer, world, n)
    wishes = packer._wishes
    (job,) = packer.of(n)
    for at in range(FAILED_MAX + 5):
        kept = wishes.add(replace(job.wish, node=f"cam-{at}"))
        assert wishes.fail(kept.n, Failure(Why.BROKEN), utc_ns=job.wish.asked_utc_ns + at)
    told = [kept.wish.node for kept in wishes.all(utc_ns=job.wish.asked_utc_ns) if kept.failure is not None]
    assert told == [f"cam-{at}" for at in range(5, FAILED_MAX + 5)]
    later = wishes.add(replace(job.wish, node="cam-later"))
    wishes.fail(later.n, Failure(Why.BROKEN), utc_ns=job.wish.asked_utc_ns + round(2 * FAILED_S_MAX * NS))
    assert {kept.wish.node for kept in wishes.all(utc_ns=job.wish.asked_utc_ns)} == {POST, "cam-later"}


# -- the end of the station -------------------------------------------------------------------------------------------


def test_a_station_that_ends_gives_up_between_two_pieces_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    n = filmed(world, tmp_path, OTHER)
    archive = Meanwhile(world.desk.archive, lambda: packer.stop())  # noqa: PLW0108  (it is made below)
    packer = packer_on(world, archive=archive)
    ask(packer, world, n, node="")
    packer.step(0.0)
    assert len(archive.reads) == 1
    assert exports(world) == []
    assert Act.COPIED not in acts(world, n)
    assert [job.stage for job in packer.of(n)] == [Stage.WAITING]
    assert ask(packer, world, n, node="") is Answer.KNOWN
    packer.step(0.0)
    assert len(archive.reads) == 1  # and begins nothing more


def test_the_thread_makes_what_is_asked_for_and_ends_when_the_station_does(tmp_path: Path) -> None:
    world = world_on(FootageDesk(tmp_path / "desk"))
    world.desk.knows()
    n = filmed(world, tmp_path)
    (world.desk.folder / "exports" / ".case-1.left").mkdir(parents=True)  # by a power cut
    reads, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        reads.set()
        assert go_on.wait(WITHIN_S)

    packer = packer_on(world, archive=Meanwhile(world.desk.archive, wait), clock=SystemClock())
    packer.start()
    try:
        assert ask(packer, world, n) is Answer.TAKEN
        assert reads.wait(WITHIN_S)
        left = exports(world)
        assert len(left) == 1  # what it is at, and nothing of the cut
        assert left != [".case-1.left"]
        ends = threading.Thread(target=packer.stop)
        ends.start()
        assert packer._ends.wait(WITHIN_S)
        go_on.set()
        ends.join(WITHIN_S)
        assert not ends.is_alive()
    finally:
        go_on.set()
        packer.stop()
    assert packer._thread._thread is not None
    assert not packer._thread._thread.is_alive()
    assert exports(world) == []
    assert Act.COPIED not in acts(world, n)
    assert [job.stage for job in packer.of(n)] == [Stage.WAITING]  # nobody is told that it is being made


def test_the_thread_lives_as_long_as_the_server_of_the_pages(tmp_path: Path) -> None:
    world = world_on(FootageDesk(tmp_path / "desk"))
    packer = packer_on(world, clock=SystemClock())
    at = Listening("127.0.0.1", free_port(), secure=False)
    server = WebServer(
        Caller().app, _Nothing(),  # type: ignore[arg-type]
        at=at, certificate="", key="", connections_max=8, close=lambda: None, beside=[packer],
    )  # fmt: skip
    server.start()
    thread = packer._thread._thread
    assert thread is not None
    assert thread.is_alive()
    server.stop()
    assert not thread.is_alive()


def test_a_store_that_does_not_answer_does_not_hold_up_the_end_of_the_station(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_on(FootageDesk(tmp_path / "desk"))
    world.desk.knows()
    n = filmed(world, tmp_path)
    monkeypatch.setattr(packer_module, "STOP_S_MAX", 0.05)
    reads, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        reads.set()
        assert go_on.wait(WITHIN_S)

    packer = packer_on(world, archive=Meanwhile(world.desk.archive, hang), clock=SystemClock())
    packer.start()
    assert ask(packer, world, n) is Answer.TAKEN
    assert reads.wait(WITHIN_S)
    packer.stop()  # returns, though it hangs
    thread = packer._thread._thread
    assert thread is not None
    assert thread.is_alive()
    assert thread.daemon
    go_on.set()
    thread.join(WITHIN_S)
    assert not thread.is_alive()
    assert Act.COPIED not in acts(world, n)  # what comes too late is recorded by nobody
