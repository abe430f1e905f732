"""Footage that is not what its post recorded is an alarm: people see it, must answer it, and others are told."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import insert, select

from agent.evidence.chain import What
from agent.station import uploads_rows as rows
from agent.station.db import migrate
from agent.station.db.engine import open_engine, reading, transaction, writing
from agent.station.db.outward import outward, outward_mark
from agent.station.evidence_alarms import SHOWN_MAX, EvidenceAlarms, OfFile, count_open
from agent.station.ledgers import Alarm, Ledgers
from agent.station.outward import metrics
from agent.station.outward.notice import headline, text
from agent.station.outward.retry import Outcome
from agent.station.people.roles import Role, Scope
from agent.station.uploads_judge import State, examine, judge
from agent.station.web import words as languages
from agent.station.web.gate import Asked
from tests.fakes.database import KINDS, Database, fresh
from tests.fakes.evidence_post import NODE, UTC_0, EvidencePost
from tests.fakes.footage_desk import POST
from tests.fakes.footage_ward import FootageWard
from tests.fakes.outward_desk import LAN, Board, Listener, board, plan
from tests.fakes.packets import encoded

RANGE = "from=2023-11-14T22:13:10&to=2023-11-14T22:15:00"
SENTENCE = "Evidence alarm: a file of School gate is not what the post recorded"


class EvidenceWard(FootageWard):
    site = NODE.partition("/")[0]

    def alarms(self) -> EvidenceAlarms:
        return EvidenceAlarms(self.engine, trail=self.desk.trail, clock=self.clock)

    def sound(self, post: str = POST, *, file: str = "segments/a.mp4", what: What = What.FOOTAGE) -> None:
        """Something false comes from a post."""
        about = OfFile(name=file, recorded="a" * 64, arrived="b" * 64) if what is What.FOOTAGE else OfFile()
        with writing(self.engine, "raise an alarm") as db:
            Ledgers.raise_alarm(db, Alarm(post, what, f"{file} is not so", about), self.clock.utc().utc_ns)

    def flips_a_byte(self, folder: Path) -> tuple[str, str, str]:
        """A post sends a file of which one byte is another, and the clerk notes it. Its name, both hashes."""
        post = EvidencePost(folder / "post")
        post.feed(encoded(seconds=4))
        post.seal()
        self.footage.hear(post)
        name = next(iter(post.disk.list("segments")))
        with post.disk.open(name) as file:
            data = bytearray(file.read())
        recorded = sha256(data).hexdigest()
        data[len(data) // 2] ^= 1
        arrived = self.footage.take(post, name, data=bytes(data))
        (self.folder / "file").write_bytes(data)
        with (self.folder / "file").open("rb") as source, writing(self.engine, "note footage") as db:
            found = examine(source, len(data))
            finding = judge(found, source=f"wardpost/{NODE}", announced=recorded, lines=[])
            assert finding.state is State.MISMATCH
            about = rows.about(name, found, finding)
            rows.raise_alarm(db, POST, f"{name} is not what the node has recorded", UTC_0, about=about)
        return name, recorded, arrived


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EvidenceWard]:
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh(request.param, folder) as database:
        made = EvidenceWard(folder, database)
        made.footage.knows()
        for role in (Role.OPERATOR, Role.SUPERVISOR, Role.AUDITOR, Role.TECHNICIAN, Role.ADMIN):
            made.person(role.value, role)
        made.person("school", Role.SCHOOL, "gate-9")
        made.person("ours", Role.SCHOOL, POST)
        yield made
        made.footage.engine.dispose()
        made.close()


def text_of(page: str) -> str:
    inside = page.split("<main", 1)[-1]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", inside)).replace("&#39;", "'")


# -- what people see --------------------------------------------------------------------------------------------------


def test_one_flipped_byte_is_on_the_board_the_post_and_the_to_do_list(ward: EvidenceWard, tmp_path: Path) -> None:
    name, recorded, arrived = ward.flips_a_byte(tmp_path)
    for role in ("operator", "supervisor", "auditor", "ours"):
        page = text_of(ward.visitor(role).get("/").text)
        assert all(part in page for part in (SENTENCE, name, recorded, arrived)), role
    assert SENTENCE in text_of(ward.visitor("ours").get("/school").text)
    for role in ("operator", "supervisor", "auditor", "technician", "admin"):
        visitor = ward.visitor(role)
        for path in (f"/posts/{POST}", "/to-do"):
            assert SENTENCE in text_of(visitor.get(path).text), f"{role} {path}"
            assert ("/footage?" in visitor.page.split("<main")[1]) == (role not in ("technician", "admin"))


def test_the_page_of_footage_names_what_is_not_what_was_recorded(ward: EvidenceWard, tmp_path: Path) -> None:
    name, _, arrived = ward.flips_a_byte(tmp_path)
    page = text_of(ward.visitor("operator").get(f"/footage?post.{POST}=on&{RANGE}").text)
    assert f"{name} is not what the post recorded" in page and arrived in page
    earlier = "from=2023-11-13T22:13:10&to=2023-11-13T22:15:00"
    assert name not in text_of(ward.visitor("operator").get(f"/footage?post.{POST}=on&{earlier}").text)


def test_who_may_not_see_the_post_is_told_nothing(ward: EvidenceWard) -> None:
    ward.sound()
    school = ward.visitor("school")
    assert "Evidence alarm:" not in school.get("/").text + school.get("/school").text
    assert ward.alarms().open(Scope(whole_site=False, posts=frozenset({"gate-9"}))) == []
    assert school.post("/evidence/1/acknowledge", comment="mine").status_code == 404
    assert "evidence-alarm-acknowledged" not in ward.kinds()


def test_a_hostile_post_has_one_open_alarm_of_a_kind_with_a_count(ward: EvidenceWard) -> None:
    for number in range(50):
        ward.sound(file=f"segments/{number}.mp4")
    ward.sound("gate-9")
    page = ward.visitor("operator").get("/").text
    assert page.count('class="card broken"') == 2
    assert "50 times since" in page and "segments/49.mp4" in page and "segments/48.mp4" not in page


def test_many_posts_cannot_make_the_board_endless(ward: EvidenceWard) -> None:
    for number in range(SHOWN_MAX + 5):
        ward.sound(f"post-{number}")
    page = ward.visitor("operator").get("/").text
    assert page.count('class="card broken"') == SHOWN_MAX
    assert f"More than {SHOWN_MAX} evidence alarms are open" in page


def test_a_ledger_that_does_not_hold_is_seen_the_same_way(ward: EvidenceWard) -> None:
    ward.sound(what=What.FORK)
    page = text_of(ward.visitor("operator").get("/").text)
    assert "Evidence alarm: the ledger of School gate does not hold" in page


def test_what_a_post_says_is_escaped(ward: EvidenceWard) -> None:
    ward.sound(file="segments/<script>alert(1)</script>.mp4")
    assert "<script>alert" not in ward.visitor("operator").get("/").text


# -- what people do ---------------------------------------------------------------------------------------------------


def test_it_stays_until_somebody_acknowledges_it_with_his_name(ward: EvidenceWard) -> None:
    ward.sound()
    operator = ward.visitor("operator")
    assert operator.post("/evidence/1/acknowledge").status_code == 400, "without a word it is not answered"
    assert "Evidence alarm:" in operator.get("/").text
    answer = operator.post("/evidence/1/acknowledge", comment="The card is fetched", back="/")
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert "Evidence alarm:" not in operator.get("/").text and "Evidence alarm:" not in operator.get("/to-do").text
    past = text_of(operator.get(f"/posts/{POST}").text)
    assert "Operator has it" in past and "The card is fetched" in past, "the post remembers"
    line = ward.trail()[-1]
    assert (line["kind"], line["who"], line["comment"]) == (
        "evidence-alarm-acknowledged", "operator", "The card is fetched",
    )  # fmt: skip
    assert (line["node"], line["recorded"], line["arrived"]) == (POST, "a" * 64, "b" * 64)

    assert ward.visitor("supervisor").post("/evidence/1/acknowledge", comment="I, too").status_code in (403, 409)
    ward.sound(file="segments/b.mp4")
    assert "segments/b.mp4" in operator.get("/").text, "what comes behind an answer is new"


@pytest.mark.parametrize("role", ["auditor", "technician", "admin"])
def test_who_may_not_answer_alerts_may_not_answer_these(ward: EvidenceWard, role: str) -> None:
    ward.sound()
    visitor = ward.visitor(role)
    visitor.get("/to-do")
    assert "/evidence/1/acknowledge" not in visitor.page
    assert visitor.post("/evidence/1/acknowledge", comment="seen").status_code == 403
    assert ward.alarms().open(Scope(whole_site=True))


def test_two_who_answer_at_once_are_told_who_was_first(ward: EvidenceWard) -> None:
    ward.sound()
    first, second = ward.visitor("operator"), ward.visitor("ours")
    for visitor in (first, second):
        visitor.get("/")
    assert first.post("/evidence/1/acknowledge", comment="mine").status_code == 303
    assert second.post("/evidence/1/acknowledge", comment="mine").status_code == 409
    assert ward.kinds().count("evidence-alarm-acknowledged") == 1


def test_the_answer_to_the_script_is_the_strip(ward: EvidenceWard) -> None:
    ward.sound()
    ward.sound("gate-9")
    operator = ward.visitor("operator")
    operator.get("/")
    ours = {"origin": "null", "sec-fetch-site": "same-origin", "x-wardpost-part": "card"}
    told = json.loads(operator.post("/evidence/1/acknowledge", headers=ours, comment="mine").text)
    assert told["said"] == "" and 'id="evidence-2"' in told["html"] and 'id="evidence-1"' not in told["html"]


# -- as it comes ------------------------------------------------------------------------------------------------------


def test_an_open_board_is_told_at_once_and_when_it_is_answered(ward: EvidenceWard) -> None:
    tokens = {login: token_of(ward, login) for login in ("operator", "school")}

    async def watched() -> None:
        operator, school = (told(ward, login, token) for login, token in tokens.items())
        ward.sound()
        ward.desk.live.look()
        assert SENTENCE in text_of(await anext(operator))
        assert ward.alarms().acknowledge(ward.desk.registry.find("supervisor"), 1, "mine") == (POST, "supervisor")
        ward.desk.live.look()
        assert "<article" not in await anext(operator)
        ward.sound("gate-9", file="segments/theirs.mp4")
        ward.desk.live.look()
        strip = await anext(school)
        assert "segments/theirs.mp4" in strip and "School gate" not in strip, "nothing was told of another post"
        await operator.aclose()
        await school.aclose()

    asyncio.run(watched())


def token_of(ward: EvidenceWard, login: str) -> str:
    """Of a new session."""
    cookies = ward.visitor(login).cookies.jar
    return next(one.value for one in cookies if one.value and ward.desk.sessions.find(one.value))


async def told(ward: EvidenceWard, login: str, token: str) -> AsyncGenerator[str]:
    """What the stream tells an open board of evidence."""
    route = next(one for one in ward.desk.routes if one.path == "/board/stream")
    answer = await route.handler(
        Asked(
            path=route.path, params={}, query={}, form={}, headers={"last-event-id": ""}, address="", token=token,
            words=languages.load()["en"], form_token="f" * 64, person=ward.desk.registry.find(login), session="",
            part=False,
        )
    )  # fmt: skip
    async for event in answer.body_iterator:
        if event.startswith("event: evidence\n"):
            yield json.loads(event.partition("data: ")[2])["html"]


# -- whom the station tells -------------------------------------------------------------------------------------------


@pytest.fixture
def desk(database: Database) -> Iterator[Board]:
    with board(database) as made:
        yield made


def found_by(desk: Board, post: str = "gate-2") -> None:
    about = OfFile(name="segments/a.mp4", recorded="a" * 64, arrived="b" * 64)
    with writing(desk.engine, "raise an alarm") as db:
        alarm = Alarm(post, What.FOOTAGE, "segments/a.mp4 is not so", about)
        Ledgers.raise_alarm(db, alarm, desk.clock.utc().utc_ns)


def test_others_are_told_once_of_each(desk: Board) -> None:
    hook, bells, theirs = Listener(), Listener(), Listener()
    worker = desk.worker(
        {
            plan("all"): hook,
            plan("bells", tell=frozenset({"bell"})): bells,
            plan("theirs", posts=frozenset({"gate-9"})): theirs,
        }
    )
    for _ in range(3):
        found_by(desk)
    desk.run(worker)
    assert hook.kinds == ["evidence"] and bells.kinds == [] and theirs.kinds == []
    one = hook.got[0][1]
    told = one.as_dict()
    assert told["type"] == "wardpost.evidence.alarm" and told["data"]["event"] == "altered-footage"
    assert (told["data"]["file"], told["data"]["recorded"]) == ("segments/a.mp4", "a" * 64)
    assert headline(one) == "EVIDENCE ALARM at post gate-2"
    said = text(one, origin="https://desk.example")
    assert "https://desk.example/posts/gate-2" in said and "b" * 64 in said


def test_prometheus_counts_what_nobody_has_acknowledged(desk: Board) -> None:
    found_by(desk)
    found_by(desk, "gate-9")
    EvidenceAlarms(desk.engine, trail=desk.trail, clock=desk.clock).acknowledge(LAN, 1, "mine")
    with reading(desk.engine) as db:
        counted = count_open(db)
    figures = metrics.Figures("ward-7", "1", {}, {}, {}, 0, counted, 0, [], 1)
    assert "\nwardpost_evidence_alarms_open 1\n" in metrics.render(figures)


def test_a_contact_is_told_unless_somebody_has_answered(desk: Board) -> None:
    boss = Listener()
    later = {"tell": frozenset({"overdue", "evidence"}), "unless_answered": True, "after_s": 60.0}
    worker = desk.worker({plan("boss", **later): boss})
    found_by(desk)
    found_by(desk, "gate-9")
    desk.run(worker)
    alarms = EvidenceAlarms(desk.engine, trail=desk.trail, clock=desk.clock)
    assert alarms.acknowledge(LAN, 1, "mine") == ("gate-2", "lan")
    desk.passes(61)
    desk.run(worker)
    assert [(one.kind, one.node) for _, one in boss.got] == [("evidence", "gate-9")]


def test_what_waits_for_a_contact_is_settled_by_an_answer(desk: Board) -> None:
    away = Listener(Outcome("later", "no connection"))
    worker = desk.worker({plan("boss", tell=frozenset({"evidence"}), unless_answered=True): away})
    found_by(desk)
    desk.run(worker)
    assert desk.standing("boss").waiting == 1
    EvidenceAlarms(desk.engine, trail=desk.trail, clock=desk.clock).acknowledge(LAN, 1, "mine")
    desk.passes(400)
    desk.run(worker)
    assert desk.standing("boss").settled == 1


def test_the_alarm_and_the_row_of_the_footage_go_in_one_transaction(ward: EvidenceWard) -> None:
    def breaks_off() -> None:
        with writing(ward.engine, "note footage") as db:
            rows.raise_alarm(db, POST, "it is not so", UTC_0, about=OfFile())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaks_off()
    assert ward.alarms().open(Scope(whole_site=True)) == []


@pytest.mark.empty_database
def test_an_upgrade_keeps_what_waits_for_others(database: Database) -> None:
    """The queue and its marks are made anew on SQLite: nothing of them is lost, and what comes next is told."""
    engine = open_engine(database.url, pooled=False)
    with engine.connect() as db, transaction(db, writes=True):
        command.upgrade(migrate._config(db), "0014")
        for stream in ("step", "change"):
            db.execute(insert(outward_mark).values(destination="hook", stream=stream, n=7))
        one = {"destination": "hook", "event": "step-7", "kind": "alert", "made_utc_ns": 1, "made_boot_id": "b"}
        db.execute(insert(outward).values(**one, made_boot_ns=1, body="{}"))
    migrate.upgrade(engine)
    with reading(engine) as db:
        assert db.execute(select(outward.c.n, outward.c.event, outward.c.state)).all() == [(1, "step-7", "waiting")]
        marks = db.execute(select(outward_mark.c.stream, outward_mark.c.n).order_by(outward_mark.c.stream)).all()
    assert marks == [("change", 7), ("evidence", 0), ("step", 7)]
    engine.dispose()
