"""Cases: who may act when, what is kept for them, and that nothing of them can be changed. On both databases."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from agent.disk import PosixDisk
from agent.errors import ConfigError, Transient
from agent.evidence import keys, receipts, standalone, verify
from agent.recording import holds
from agent.recording.footage import NoFootage
from agent.sending import plan
from agent.station.archive import name_of
from agent.station.cases import desk as desk_module
from agent.station.cases import reading as reading_module
from agent.station.cases.desk import RANGE_S_MAX, CaseDesk, Opening
from agent.station.cases.export import Exporter, Unwatched, _Making
from agent.station.cases.keeping import (
    Answer,
    HoldAct,
    Kept,
    in_force,
    keeps,
    may_go,
    pieces,
    to_hold,
    to_release,
)
from agent.station.cases.reading import Case, Cases
from agent.station.cases.states import MAY, TABLE, UNEXPLAINED, Act, Objection, State, Told, allowed, decide, state_of
from agent.station.db.board import alert
from agent.station.db.engine import writing
from agent.station.db.people import person
from agent.station.db.tables import receipt
from agent.station.db.uploads import footage
from agent.station.footage import survey
from agent.station.people.roles import Person, Role, Scope
from agent.station.people.trail import Trail
from agent.station.people.trail_line import said
from agent.types import NS
from tests.fakes.database import KINDS, fresh
from tests.fakes.evidence_post import NODE, UTC_0, EvidencePost
from tests.fakes.footage_desk import POST, FootageDesk
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401

SITE = NODE.partition("/")[0]
EVERYWHERE = Scope(whole_site=True)
OPERATOR = Person("lan", "Lan", Role.OPERATOR, EVERYWHERE)
SUPERVISOR = Person("minh", "Minh", Role.SUPERVISOR, EVERYWHERE)
ADMIN = Person("root", "Root", Role.ADMIN, EVERYWHERE)
ELSEWHERE = Person("hoa", "Hoa", Role.SUPERVISOR, Scope(whole_site=False, posts=frozenset({"cam-99"})))
FULL = Told(reason="a theft", recipient="District police, Capt. Vu", reference="D-77")

# -- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "act"), list(itertools.product([None, *State], Act)))
def test_every_state_and_act_is_decided_by_the_table_and_by_nothing_else(state: State | None, act: Act) -> None:
    for role in Role:
        found = decide(state, act, role, FULL, seen=3, newest=3)
        if role not in MAY[act]:
            assert found is Objection.NOT_YOURS
        elif (state, act) in TABLE:
            assert found is TABLE[state, act]
        else:
            assert found is Objection.NOT_NOW


@given(
    acts=st.lists(st.tuples(st.sampled_from(Act), st.sampled_from(Role), st.booleans()), max_size=30),
)
def test_no_order_of_acts_leads_around_the_rules(acts: list[tuple[Act, Role, bool]]) -> None:
    state: State | None = None
    done: list[Act] = []
    for act, role, stale in acts:
        found = decide(state, act, role, FULL, seen=len(done) - stale, newest=len(done))
        if isinstance(found, State):
            assert not stale
            done.append(act)
            state = found
    assert state_of(done) == state
    assert done.count(Act.DISPOSED) <= 1
    if Act.DISPOSED in done:
        behind = done[done.index(Act.DISPOSED) + 1 :]
        assert set(behind) <= {Act.NOTED, Act.RELEASED}  # a case that was disposed of is over
        assert Act.CLOSED in done[: done.index(Act.DISPOSED)]  # and nothing is disposed of that was worked on
    if done:
        assert done[0] is Act.OPENED
        assert done.count(Act.OPENED) == 1
        assert done.count(Act.TRANSFERRED) - done.count(Act.RETURNED) in (0, 1)


@pytest.mark.parametrize("act", [act for act in Act if act not in UNEXPLAINED])
def test_nobody_acts_without_a_reason(act: Act) -> None:
    (state, role) = next((s, r) for (s, a) in TABLE if a is act for r in sorted(MAY[act]))
    assert decide(state, act, role, replace(FULL, reason=""), seen=0, newest=0) is Objection.REASON


def test_a_transfer_names_its_recipient_and_a_disposal_its_authority() -> None:
    no_recipient, no_reference = replace(FULL, recipient=""), replace(FULL, reference="")
    for told in (no_recipient, no_reference):
        assert decide(State.OPEN, Act.TRANSFERRED, Role.SUPERVISOR, told, seen=1, newest=1) is Objection.RECIPIENT
    assert decide(State.CLOSED, Act.DISPOSED, Role.ADMIN, no_reference, seen=1, newest=1) is Objection.AUTHORITY


def test_technician_and_school_never_and_an_auditor_only_looks() -> None:
    for state in State:
        assert not allowed(state, Role.TECHNICIAN)
        assert not allowed(state, Role.SCHOOL)
        assert allowed(state, Role.AUDITOR) <= {Act.VIEWED}
        assert Act.DISPOSED not in allowed(state, Role.OPERATOR)


# -- what is kept -----------------------------------------------------------------------------------------------------


@given(st.data())
def test_a_file_goes_only_when_no_case_needs_it(data: st.DataObject) -> None:
    states = data.draw(st.dictionaries(st.integers(1, 6), st.sampled_from(State), max_size=6))
    files = [("cam-1", "a" * 64), ("cam-1", "b" * 64), ("cam-2", "a" * 64)]
    holders = data.draw(st.lists(st.tuples(st.integers(1, 8), st.sampled_from(files)), max_size=12))
    for ref in files:
        needed = any(held == ref and states.get(case) is not State.DISPOSED for case, held in holders)
        assert may_go(ref, states, holders) is not needed


def test_holds_are_asked_while_a_case_is_open_and_let_go_when_it_is_closed() -> None:
    held = in_force([HoldAct(Act.HELD, "cam-1", "h1"), HoldAct(Act.HELD, "cam-2", "h2")])
    assert to_hold(State.OPEN, ["cam-1", "cam-2", "cam-3"], held) == ["cam-3"]
    assert to_release(State.OPEN, held) == to_release(State.TRANSFERRED, held) == []
    assert to_release(State.CLOSED, held) == to_release(State.DISPOSED, held) == [("cam-1", "h1"), ("cam-2", "h2")]
    assert to_hold(State.TRANSFERRED, ["cam-3"], held) == ["cam-3"], "another agency has it: it is owed all the same"
    assert to_hold(State.CLOSED, ["cam-3"], held) == to_hold(State.DISPOSED, ["cam-3"], held) == []
    assert in_force([HoldAct(Act.HELD, "cam-1", "h1"), HoldAct(Act.RELEASED, "cam-1", "h1")]) == {}
    late = [HoldAct(Act.HELD, "cam-1", "h1"), HoldAct(Act.HELD, "cam-1", "h2"), HoldAct(Act.RELEASED, "cam-1", "h1")]
    assert in_force(late) == {"cam-1": "h2"}  # the end of an old one does not end the new one


def asked_of(verb: str, n: int, state: str, hold: str = "h1", said: str = "", span: tuple[int, int] = (0, 9)) -> Answer:
    return Answer(n, verb, hold, span[0] * NS, span[1] * NS, "case 7", state, said)


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        ([], Kept.ASKED),  # the book does not have it any more
        (["waiting"], Kept.ASKED),
        (["done"], Kept.KEPT),
        (["failed"], Kept.REFUSED),
        (["refused"], Kept.REFUSED),
        (["expired"], Kept.EXPIRED),
        (["expired", "waiting"], Kept.ASKED),  # queued twice, around a power cut
        (["expired", "done"], Kept.KEPT),
        (["failed", "expired"], Kept.EXPIRED),
    ],
)
def test_a_hold_is_kept_when_its_post_says_so_and_not_before(states: list[str], kept: Kept) -> None:
    orders = [asked_of("hold", n, state, said="full") for n, state in enumerate(states)]
    others = [asked_of("hold", 9, "done", hold="h0"), asked_of("release", 9, "done")]
    found = keeps("h1", [(0, 9 * NS)], "case 7", [*others, *orders])
    assert found.kept is kept
    assert found.lost is (kept in (Kept.REFUSED, Kept.EXPIRED))
    assert found.why == ("full" if found.lost else "")


def test_a_piece_is_sent_when_an_order_that_has_it_whole_is_not_lost() -> None:
    parts = [(0, 10 * NS), (10 * NS, 20 * NS)]
    whole = asked_of("send", 1, "failed", said="longer than 24 hours", span=(0, 20))
    first = asked_of("send", 2, "done", span=(0, 10))
    half = asked_of("send", 3, "waiting", span=(10, 15))
    for orders, unsent in (([], ()), ([whole], (*parts,)), ([whole, first], (parts[1],)),
                           ([first, whole, half], (parts[1],)), ([first], ())):  # fmt: skip
        found = keeps("h1", parts, "case 7", orders)
        assert found.unsent == unsent
        assert (found.lost, found.after) == (bool(unsent), 1 if unsent else 0)
        assert found.why_unsent == (whole.said if unsent else "")
    assert keeps("h1", parts, "case 8", [whole]).unsent == ()


@given(start=st.integers(0, 10**18), seconds=st.integers(1, 7 * 86_400))
def test_pieces_of_a_case_are_a_day_at_most_and_add_up_to_it(start: int, seconds: int) -> None:
    found = pieces(start, start + seconds * NS)
    assert (found[0][0], found[-1][1]) == (start, start + seconds * NS)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))
    assert all(0 < end - begin <= min(plan.RANGE_NS_MAX, survey.RANGE_S_MAX * NS) for begin, end in found)
    assert len(found) <= 7 < plan.ORDERS_MAX
    assert RANGE_S_MAX * NS <= holds.RANGE_NS_MAX  # it is held in one


# -- the desk ---------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A desk with the footage of a post, and cases on it."""

    desk: FootageDesk
    trail: Trail
    cases: Cases
    writer: CaseDesk
    exporter: Exporter
    orders: list[tuple[str, str, dict[str, Any]]]
    broken: list[Exception]

    def case(self, n: int) -> Case:
        found = self.cases.find(EVERYWHERE, n)
        assert found is not None
        return found

    def open(self, who: Person = OPERATOR, *, posts: tuple[str, ...] = (POST,), start_s: float = -5) -> int:
        opening = Opening(
            number="12/2026",
            reason="a bicycle was stolen",
            place="School gate",
            from_utc_ns=UTC_0 + round(start_s * NS),
            to_utc_ns=UTC_0 + 60 * NS,
            posts=posts,
        )
        made = self.writer.open(who, opening)
        assert isinstance(made, int), made
        return made

    def act(self, n: int, act: Act, who: Person = SUPERVISOR, **told: str) -> int | Objection | None:
        said = Told(**({"reason": "because"} | told))
        return self.writer.act(who, n, act, said, seen=self.case(n).newest)


def world_on(desk: FootageDesk) -> World:
    trail = Trail(desk.engine, clock=desk.clock, site=SITE, station="hq", disk=PosixDisk(desk.folder))
    trail.open()
    orders: list[tuple[str, str, dict[str, Any]]] = []
    broken: list[Exception] = []

    def queue(node: str, verb: str, args: dict[str, Any]) -> None:
        if broken:
            raise broken[0]
        orders.append((node, verb, args))

    with writing(desk.engine, "know people") as db:
        known = set(db.execute(select(person.c.login)).scalars())
        rows = [
            {"login": one.login, "name": one.name, "role": one.role, "password": "!", "whole_site": 1,
             "changed_utc_ns": UTC_0}
            for one in (OPERATOR, SUPERVISOR, ADMIN) if one.login not in known
        ]  # fmt: skip
        if rows:
            db.execute(insert(person), rows)
    cases = Cases(desk.engine)
    writer = CaseDesk(trail=trail, cases=cases, clock=desk.clock, queue=queue, archive=desk.archive, site=SITE)
    exporter = Exporter(
        engine=desk.engine,
        desk=writer,
        archive=desk.archive,
        clock=desk.clock,
        site=SITE,
        folder=desk.folder,
        disk=PosixDisk(desk.folder),
    )
    return World(desk, trail, cases, writer, exporter, orders, broken)


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with fresh(request.param, tmp_path) as database:
        desk = FootageDesk(tmp_path / "desk", database=database.setting)
        desk.knows()
        yield world_on(desk)
        desk.engine.dispose()


@pytest.fixture
def filmed(world: World, tmp_path: Path) -> World:
    """... and two files of its post, on whose ledger they stand."""
    film(world, tmp_path)
    return world


def film(world: World, folder: Path) -> EvidencePost:
    post = EvidencePost(folder / "post")
    post.feed(encoded(seconds=4), receipt_every=20)
    post.seal()
    world.desk.hear(post)
    world.desk.take_all(post)
    return post


def receipts_of(world: World, post: EvidencePost) -> None:
    """The station has signed them, and keeps them."""
    with post.disk.open(receipts.FILE) as file:
        lines = file.read().splitlines()
    with writing(world.desk.engine, "sign") as db:
        for raw in lines:
            told = receipts.read(raw).payload
            db.execute(insert(receipt).values(node=POST, root="a" * 64, seq=told.seq, utc_ns=UTC_0, body=raw))


def trail_of(world: World) -> list[dict[str, Any]]:
    return [said(line) for line in world.trail.lines()]


def test_a_case_is_opened_with_what_lies_here_and_its_posts_are_asked_to_keep_it(filmed: World) -> None:
    with writing(filmed.desk.engine, "an alert") as db:
        db.execute(
            insert(alert).values(
                incident="i" * 36, node=POST, severity="alert", event=1, raised_utc_ns=UTC_0 + NS, due_utc_ns=UTC_0
            )
        )
    n = filmed.open()
    assert filmed.writer.keep(OPERATOR, n) == ""
    case = filmed.case(n)
    assert case.state is State.OPEN
    assert sorted({item.kind for item in case.items}) == ["alert", "footage"]
    assert [step.act for step in case.steps] == [Act.OPENED, Act.ATTACHED, Act.HELD]
    assert [verb for _, verb, _ in filmed.orders] == ["hold", "send"]
    hold = filmed.orders[0][2]
    assert case.held == {POST: hold["id"]}
    assert hold["reason"] == "case 12/2026"
    assert len(hold["id"]) == 36
    assert filmed.writer.keep(OPERATOR, n) == ""
    assert len(filmed.orders) == 2  # nothing is asked twice
    told = [one for one in trail_of(filmed) if one["kind"] == "case"]
    assert [one["act"] for one in told] == ["opened", "attached", "held"]
    assert all(one["case"] == n and one["who"] == "lan" for one in told)


def test_an_order_that_was_queued_before_a_cut_is_the_same_one_afterwards(world: World) -> None:
    n = world.open()
    world.writer._note_hold = lambda *_: (_ for _ in ()).throw(Transient("cut"))  # type: ignore[method-assign]
    assert world.writer.keep(OPERATOR, n) == "cut"
    del world.writer._note_hold
    assert world.writer.keep(OPERATOR, n) == ""
    holds = [args["id"] for _, verb, args in world.orders if verb == "hold"]
    assert len(holds) == 2
    assert len(set(holds)) == 1
    world.act(n, Act.CLOSED)
    world.writer.keep(OPERATOR, n)
    world.act(n, Act.REOPENED)
    world.writer.keep(OPERATOR, n)
    assert [verb for _, verb, _ in world.orders][-3:] == ["release", "hold", "send"]
    assert world.orders[-2][2]["id"] != holds[0]  # a hold that has ended cannot be had again


def test_what_stands_in_the_way_of_a_hold_is_told_and_the_case_is_open_all_the_same(world: World) -> None:
    world.broken.append(ConfigError("station.command_key: not set; nodes obey only what is signed"))
    n = world.open()
    assert world.writer.keep(OPERATOR, n) == "station.command_key: not set"
    assert world.case(n).held == {}


def test_two_people_do_not_overwrite_each_other(world: World) -> None:
    n = world.open()
    seen = world.case(n).newest
    found: list[int | Objection | None] = []
    together = threading.Barrier(2)

    def act(who: Person, act: Act) -> None:
        together.wait(60)
        found.append(world.writer.act(who, n, act, FULL, seen=seen))

    threads = [
        threading.Thread(target=act, args=(OPERATOR, Act.CLOSED)),
        threading.Thread(target=act, args=(SUPERVISOR, Act.TRANSFERRED)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(str, found)) == sorted([str(seen + 1), Objection.CHANGED])
    assert world.case(n).newest == seen + 1


def test_who_may_not_see_one_of_its_posts_does_not_see_the_case(world: World) -> None:
    n = world.open(posts=(POST, "cam-98"))
    half = Person("tu", "Tu", Role.OPERATOR, Scope(whole_site=False, posts=frozenset({POST})))
    for who in (half, ELSEWHERE, Person("x", "X", Role.OPERATOR, Scope(whole_site=False))):
        assert world.cases.find(who.scope, n) is None
        assert world.cases.listing(who.scope).rows == []
        assert world.writer.act(who, n, Act.NOTED, FULL, seen=1) is None
        assert world.writer.dispose(who, n, FULL, seen=1) is None
        assert world.writer.attach(who, n, seen=1, node=POST, from_utc_ns=0, to_utc_ns=9) is None
    assert world.writer.open(half, Opening(number="1", reason="r", place="", from_utc_ns=1, to_utc_ns=2,
                                           posts=(POST, "cam-98"))) is Objection.NOT_YOURS  # fmt: skip
    whole = Person("ty", "Ty", Role.OPERATOR, Scope(whole_site=False, posts=frozenset({POST, "cam-98", "cam-97"})))
    assert [row.n for row in world.cases.listing(whole.scope).rows] == [n]


def many_files(world: World, count: int) -> None:
    """... more of its post, by their rows alone."""
    with writing(world.desk.engine, "many files") as db:
        one = dict(db.execute(select(footage).limit(1)).mappings().one())
        del one["n"]
        rows = [
            one | {"name": f"segments/{k:06d}.mp4", "sha256": f"{k:064x}", "announced": f"{k:064x}"}
            for k in range(count)
        ]
        db.execute(insert(footage), rows)


def test_what_is_more_than_one_act_attaches_is_said_until_it_is_attached_alerts_first(
    filmed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "ATTACHED_MAX", 20)
    files = len(filmed.case(filmed.open()).items)
    many_files(filmed, 45 - files)
    with writing(filmed.desk.engine, "alerts") as db:
        for k in range(3):
            db.execute(
                insert(alert).values(
                    incident=f"{k:036d}", node=POST, severity="alert", event=k, raised_utc_ns=UTC_0 + NS,
                    due_utc_ns=UTC_0,
                )
            )  # fmt: skip
    filmed.desk.knows("cam-9")
    n = filmed.open(posts=(POST, "cam-9"))
    case = filmed.case(n)
    assert [item.kind for item in case.items].count("alert") == 3
    assert case.items_count == 20
    assert case.unattached == (POST, "cam-9")  # the act was of both
    left = []
    for node in ("cam-9", POST, POST, "cam-9"):
        done = filmed.writer.attach(OPERATOR, n, seen=case.newest, node=node, from_utc_ns=case.from_utc_ns,
                                    to_utc_ns=case.to_utc_ns)  # fmt: skip
        case = filmed.case(n)
        left.append((done, case.unattached))
    assert left == [(0, (POST,)), (20, (POST,)), (8, ()), (0, ())]
    assert case.items_count == 48
    assert [step.detail for step in case.steps if step.act is Act.ATTACHED] == ["20+", "0", "20+", "8"]


def test_a_case_of_more_than_a_page_shows_says_how_many_and_its_package_names_them_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts_of(world, film(world, tmp_path))
    many_files(world, 30)
    monkeypatch.setattr(reading_module, "ITEMS_SHOWN_MAX", 10)
    monkeypatch.setattr(reading_module.items_of, "__defaults__", (10,))
    n = world.open()
    case = world.case(n)
    assert len(case.items) == 10
    assert case.items_count > 30
    told = json.loads(world.exporter._files(case)["case.json"])
    assert len(told["items"]) == told["items_count"] == case.items_count


def noted(world: World, n: int, count: int) -> None:
    for number in range(count):
        newest = world.case(n).newest
        told = Told(reason=f"note {number}")
        assert world.writer.act(OPERATOR, n, Act.NOTED, told, seen=newest) == newest + 1


def test_a_package_has_the_whole_timeline_of_a_case_of_which_a_page_shows_the_newest(
    filmed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = filmed.open()
    noted(filmed, n, 8)
    monkeypatch.setattr(reading_module, "ACTS_SHOWN_MAX", 5)
    case = filmed.case(n)
    assert [step.number for step in case.steps] == [6, 7, 8, 9, 10]
    newest = case.newest
    noted(filmed, n, 1)  # somebody acts while the package is made: it has the case as it was when it was begun
    told = json.loads(filmed.exporter._files(case)["case.json"])
    assert [act["number"] for act in told["timeline"]] == list(range(1, newest + 1)), "a court gets all of it"
    assert told["timeline_count"] == newest
    assert told["left_out"] == []


def test_a_package_that_cannot_have_all_says_in_words_what_is_left_out_and_where_it_is(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "ACTS_PACKED_MAX", 3)
    monkeypatch.setattr(reading_module, "ITEMS_PACKED_MAX", 1)
    receipts_of(world, film(world, tmp_path))
    n = world.open(posts=(POST, "cam-9"))
    noted(world, n, 4)
    said_of_acts = (
        "timeline: acts 1 to 3 of 6 are left out; trail.jsonl has the station's line of each (kind `case`, `step`)"
    )
    for node in (POST, ""):
        case = world.case(n)
        done = world.exporter.make(SUPERVISOR, case, node, FULL)
        assert isinstance(done, int), done
        step = world.cases.step(EVERYWHERE, n, done)
        assert step is not None
        path = world.exporter.file(n, step)
        assert path is not None
        with path.open("rb") as file:
            package = standalone.Package(file, standalone.Findings())
            package.open()
            told = json.loads(package.read(package.members["case.json"], 1 << 20))
            report = package.read(package.members["report.txt"], 1 << 20).decode()
            acts = {said(raw).get("step") for _, raw in package.lines(package.members["trail.jsonl"])}
        first = case.newest - 3
        expected = said_of_acts.replace("1 to 3 of 6", f"1 to {first} of {case.newest}")
        assert [act["number"] for act in told["timeline"]] == list(range(first + 1, case.newest + 1))
        assert told["left_out"][0] == expected
        assert told["left_out"][1].startswith("items: 1 of ")
        assert expected in report, "and who only reads the report is told"
        assert set(range(1, first + 1)) <= acts, "they are where it says"
        for result in (standalone.verify(str(path), []), verify.verify(path, [])):
            assert result["findings"] == []
            assert any(expected in note for note in result["notes"]), "and who only checks it"


def test_what_is_not_what_its_node_recorded_is_marked_in_the_case_and_in_its_package(filmed: World) -> None:
    many_files(filmed, 2)
    with writing(filmed.desk.engine, "judge") as db:
        db.execute(update(footage).where(footage.c.sha256 == f"{0:064x}").values(state="mismatch"))
        db.execute(update(footage).where(footage.c.sha256 == f"{1:064x}").values(state="mismatch"))
        right = dict(db.execute(select(footage).where(footage.c.sha256 == f"{1:064x}")).mappings().one())
        del right["n"]  # the same content, under its own name as well
        db.execute(insert(footage).values(**(right | {"announced": "e" * 64, "state": "verified"})))
    case = filmed.case(filmed.open())
    assert [item.ref for item in case.items if item.mismatch] == [f"{0:064x}"]
    told = json.loads(filmed.exporter._files(case)["case.json"])
    assert [item["ref"] for item in told["items"] if item.get("mismatch")] == [f"{0:064x}"]


def test_the_list_is_read_a_page_at_a_time_and_looked_through_for_words(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "SHOWN_MAX", 3)
    for _ in range(8):
        world.open()
    opening = Opening(number="K-9", reason="Mất trộm xe đạp", place="Cổng trường", from_utc_ns=1, to_utc_ns=2,
                      posts=(POST,))  # fmt: skip
    special = world.writer.open(OPERATOR, opening)
    world.open()

    def page(**at: Any) -> tuple[list[int], int | None, int | None]:
        found = world.cases.listing(EVERYWHERE, **at)
        return [row.n for row in found.rows], found.older, found.newer

    assert page() == ([10, 9, 8], 8, None)
    assert page(before=8) == ([7, 6, 5], 5, 7)
    assert page(before=2) == ([1], None, 1)
    assert page(before=1) == ([], None, 0)
    assert page(after=0) == ([3, 2, 1], 1, 3)
    assert page(after=7) == ([10, 9, 8], 8, None)
    assert page(after=10) == ([], 11, None)
    for words in ("k-9", "cong TRUONG", "xe dap mat"):
        assert page(words=words) == ([special], None, None)
    assert page(words="bicycle") == ([10, 8, 7], 7, None)
    assert page(words="bicycle no-such-word") == ([], None, None)
    monkeypatch.setattr(reading_module, "LOOKED_AT_MAX", 4)
    assert page(words="no-such-word") == ([], 7, None)
    assert world.cases.listing(EVERYWHERE, words="no-such-word").looked_to == 7
    assert page(words="k-9", before=7) == ([], 3, 6)
    assert page(words="k-9", after=6) == ([special], special, 10)


def test_disposal_leaves_a_tombstone_of_each_file_and_takes_what_no_other_case_needs(filmed: World) -> None:
    files = [item for item in filmed.case(filmed.open()).items if item.kind == "footage"]
    assert len(files) >= 1
    n = filmed.open()
    assert filmed.act(n, Act.CLOSED) == filmed.case(n).newest
    assert filmed.writer.dispose(OPERATOR, n, FULL, seen=filmed.case(n).newest) is Objection.NOT_YOURS
    assert filmed.writer.dispose(SUPERVISOR, n, FULL, seen=filmed.case(n).newest) == 0  # the first case has them all
    first = 1
    filmed.act(first, Act.CLOSED)
    assert filmed.writer.dispose(ADMIN, first, FULL, seen=filmed.case(first).newest) == len(files)
    case = filmed.case(first)
    assert {stone.sha256 for stone in case.stones} == {item.ref for item in files}
    assert {(stone.who, stone.authority, stone.reason) for stone in case.stones} == {("Root", "D-77", "a theft")}
    assert all(item.gone for item in case.items if item.kind == "footage")
    for item in files:
        assert filmed.desk.archive.size(name_of(POST, item.ref)) is None
        assert filmed.desk.shelf.by_digest(POST, [item.ref]) == {}  # nor does a footage page trip over it
    assert filmed.writer.sweep(first, ADMIN) == len(files)  # again: nothing happens
    gone = [one for one in trail_of(filmed) if one["kind"] == "case-disposal"]
    assert set(gone[-1]["files"]) == {f"{POST}/{item.ref}" for item in files}
    assert filmed.open() and not [i for i in filmed.case(3).items if i.kind == "footage"]


def test_a_disposal_that_was_cut_is_finished_later(filmed: World) -> None:
    n = filmed.open()
    filmed.act(n, Act.CLOSED)
    archive = filmed.writer._archive

    class Away:
        def remove(self, name: str) -> None:
            raise Transient("the archive is away")

    filmed.writer._archive = Away()
    with pytest.raises(Transient):
        filmed.writer.dispose(SUPERVISOR, n, FULL, seen=filmed.case(n).newest)
    filmed.writer._archive = archive
    case = filmed.case(n)
    assert case.state is State.DISPOSED
    assert case.stones
    assert all(filmed.desk.archive.size(name_of(POST, stone.sha256)) for stone in case.stones)
    filmed.writer.sweep(n, SUPERVISOR)
    assert not any(filmed.desk.archive.size(name_of(POST, stone.sha256)) for stone in case.stones)


TABLES = {
    "case_head": "reason",
    "case_post": "node",
    "case_act": "reason",
    "case_item": "name",
    "case_tombstone": "reason",
}


def test_the_database_itself_refuses_to_change_a_case(filmed: World) -> None:
    n = filmed.open()
    filmed.act(n, Act.CLOSED)
    filmed.writer.dispose(SUPERVISOR, n, FULL, seen=filmed.case(n).newest)
    engine = filmed.desk.engine
    for table, column in TABLES.items():
        orders = [f"update {table} set {column} = 'x'", f"delete from {table}"]
        if engine.dialect.name == "sqlite":
            orders.append(f"insert or replace into {table} select * from {table}")
        else:
            orders.append(f"truncate {table} cascade")
        for order in orders:
            with engine.connect() as db, pytest.raises(SQLAlchemyError, match="append-only"), db.begin():
                db.exec_driver_sql(order)
    assert filmed.case(n).stones


# -- the package ------------------------------------------------------------------------------------------------------


def packed(world: World, folder: Path) -> tuple[int, Path]:
    post = film(world, folder)
    receipts_of(world, post)
    n = world.open()
    done = world.exporter.make(SUPERVISOR, world.case(n), POST, FULL)
    assert isinstance(done, int), done
    step = world.cases.step(EVERYWHERE, n, done)
    assert step is not None
    path = world.exporter.file(n, step)
    assert path is not None
    return n, path


def test_a_package_of_a_case_is_accepted_by_both_verifiers_and_names_the_case(world: World, tmp_path: Path) -> None:
    n, path = packed(world, tmp_path)
    for result in (standalone.verify(str(path), []), verify.verify(path, [])):
        assert result["findings"] == []
        assert result["verdict"] == "verified"
        assert result["segments"] >= 1
        assert any("the station has put this together" in note for note in result["notes"])
    step = world.case(n).steps[-1]
    assert (step.act, step.node, step.bytes) == (Act.COPIED, POST, path.stat().st_size)
    with path.open("rb") as file:
        package = standalone.Package(file, standalone.Findings())
        package.open()
        case = json.loads(package.read(package.members["case.json"], 1 << 20))
        lines = [said(raw) for _, raw in package.lines(package.members["trail.jsonl"])]
    assert case["number"] == "12/2026"
    assert [one["act"] for one in case["timeline"]] == ["opened", "attached"]
    assert {one["kind"] for one in lines} == {"case", "case-items"}
    station = keys.load(PosixDisk(world.desk.folder), "station")[-1].public
    assert "signed by a station" in verify.verify(path, [station])["trust"]
    assert verify.verify(path, [b"\1" * 32])["verdict"] == "not verified"


def test_who_trusts_a_node_alone_does_not_take_a_station_s_word_for_what_is_missing(
    world: World, tmp_path: Path
) -> None:
    # Anybody could thin out a node's package, and sign what is left as a station of his own.
    _, path = packed(world, tmp_path)
    with path.open("rb") as file:
        package = standalone.Package(file, standalone.Findings())
        package.open()
        pems = [package.read(one, 4096) for name, one in package.members.items() if name.startswith("keys/node-")]
    (node,) = (standalone.raw_key(pem) for pem in pems)
    assert node is not None
    for result in (standalone.verify(str(path), [node]), verify.verify(path, [node])):
        assert result["verdict"] == "not verified"
        assert [one["code"] for one in result["findings"]] == ["foreign-key"]
    station = keys.load(PosixDisk(world.desk.folder), "station")[-1].public
    assert verify.verify(path, [node, station])["verdict"] == "verified"


def test_whatever_byte_is_changed_the_package_is_refused(world: World, tmp_path: Path) -> None:
    _, path = packed(world, tmp_path)
    data = path.read_bytes()
    with path.open("rb") as file:
        package = standalone.Package(file, standalone.Findings())
        package.open()
        places = [(m.start + m.size // 2, m.name) for m in package.members.values() if m.size]
        places += [(m.offset + 1, m.name) for m in package.members.values()]
    forged = tmp_path / "forged.zip"
    for at, name in [*places, (len(data) - 3, "end")]:
        forged.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert verify.verify(forged, [])["verdict"] != "verified", name


def test_the_same_moment_gives_the_same_package(world: World, tmp_path: Path) -> None:
    n, path = packed(world, tmp_path)
    step = world.case(n).steps[-1]
    again = tmp_path / "again.zip"
    before = replace(world.case(n), newest=step.number - 1)
    trail = world.exporter._trail(before)[0]
    world.exporter._trail = lambda case: (trail[:-1], False)  # type: ignore[method-assign] # noqa: ARG005
    archive, shelf = world.desk.archive, world.desk.shelf
    making = _Making(SUPERVISOR, before, FULL, 0, Unwatched(), archive, shelf)
    world.exporter._export(making, POST, again)
    assert again.read_bytes() == path.read_bytes()
    assert step.sha256


def test_what_the_station_does_not_have_is_listed_as_missing_and_verified_all_the_same(
    world: World, tmp_path: Path
) -> None:
    post = film(world, tmp_path)
    receipts_of(world, post)
    post.feed(encoded(start_ns=1010 * NS))
    post.seal()
    world.desk.hear(post)  # its lines are here, its footage is not
    n = world.open()
    assert isinstance(world.exporter.make(SUPERVISOR, world.case(n), POST, FULL), int)
    path = world.desk.folder / "exports" / f"case-{n}-3.zip"
    result = verify.verify(path, [])
    assert result["findings"] == []
    with path.open("rb") as file:
        package = standalone.Package(file, standalone.Findings())
        package.open()
        manifest = json.loads(package.read(package.members["manifest.json"], 1 << 20))
    assert {one["why"] for one in manifest["missing"]} == {"the station does not have it"}


def test_an_export_that_cannot_be_made_is_no_copy(world: World) -> None:
    n = world.open()
    for error in (ConfigError, NoFootage):
        if error is NoFootage:
            world.desk.hear(EvidencePost(world.desk.folder / "empty"))
        with pytest.raises(error):
            world.exporter.make(SUPERVISOR, world.case(n), POST, FULL)
    assert [step.act for step in world.case(n).steps] == [Act.OPENED]
    assert world.exporter.make(ADMIN, world.case(n), POST, FULL) is Objection.NOT_YOURS
    assert list((world.desk.folder / "exports").iterdir()) == []


KILLED = """
import sys
from pathlib import Path
from tests.fakes.footage_desk import FootageDesk, POST
from tests.unit.test_cases import FULL, SUPERVISOR, world_on
from agent.station.cases import export
whole = export.export
def slow(**given):
    disk = given["disk"]
    open_ = disk.open
    def stop(name):
        if name.startswith("segments/"):
            print("at work", flush=True)
            sys.stdin.read()
        return open_(name)
    disk.open = stop
    return whole(**given)
export.export = slow
world = world_on(FootageDesk(Path(sys.argv[1]), database=sys.argv[2]))
world.exporter.make(SUPERVISOR, world.case(1), POST, FULL)
"""


def test_kill_9_during_an_export_leaves_nothing_that_is_offered(tmp_path: Path) -> None:
    world = world_on(FootageDesk(tmp_path / "desk"))
    receipts_of(world, film(world, tmp_path))
    n = world.open()
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(world.desk.folder), ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"at work\n"
    os.kill(child.pid, signal.SIGKILL)
    child.communicate(timeout=60)
    exports = world.desk.folder / "exports"
    assert [path.is_dir() for path in exports.iterdir()] == [True]  # what it was at; no package
    assert [step.act for step in world.case(n).steps] == [Act.OPENED, Act.ATTACHED]
    assert isinstance(world.exporter.make(SUPERVISOR, world.case(n), POST, FULL), int)
    assert [path.name for path in exports.iterdir()] == [f"case-{n}-3.zip"]
    assert verify.verify(exports / f"case-{n}-3.zip", [])["verdict"] == "verified"


def test_old_packages_make_room_and_are_then_not_offered(world: World, tmp_path: Path) -> None:
    n, path = packed(world, tmp_path)
    for number in range(20):
        (path.parent / f"case-9-{number}.zip").write_bytes(b"x")
        os.utime(path.parent / f"case-9-{number}.zip", (time.time() + 60, time.time() + 60))
    world.exporter.tidy()
    step = world.case(n).steps[-1]
    assert world.exporter.file(n, step) is None
    assert len(list(path.parent.iterdir())) == 20, "and a start takes no good one away"
    world.exporter.tidy()
    assert len(list(path.parent.iterdir())) == 20
