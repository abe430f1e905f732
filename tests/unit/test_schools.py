"""A school's own contacts: told at once and first, of its own posts only, by ways that nobody can turn against the station."""

from __future__ import annotations

import functools
import json
import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiosmtpd.controller import Controller
from sqlalchemy import select

from agent.demo.programs import free_port
from agent.errors import ConfigError
from agent.station.db.schools import school_contact
from agent.station.outward.making import contacts_of_schools
from agent.station.outward.messages import ToSchool, Tried, read_mail_url
from agent.station.outward.queue import OutwardQueue, standings
from agent.station.outward.retry import Outcome
from agent.station.outward.school_address import HOWS, shown, url_of, wrong
from agent.station.outward.schools import CONTACTS_MAX, OF_SCHOOL_MAX, SchoolBook, told
from agent.station.outward.settings import SchoolSettings
from agent.station.outward.trial import Trial
from agent.station.outward.worker import OutwardWorker
from agent.station.people.registry import Registry
from agent.station.people.roles import Person, Role, Scope, scope_of
from agent.station.web.desk import make_desk
from tests.fakes.database import Database
from tests.fakes.desk import Ward
from tests.fakes.hook_server import HookServer
from tests.fakes.outward_desk import AtOnce, Board, Listener, board, plan
from tests.unit.test_outward_messages import LATE, Mailbox

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

MAI = Person("mai", "Mai", Role.SUPERVISOR, Scope(whole_site=True))
AWAY = Outcome("later", "no connection")
TOKEN = "tgram://123456789:AAEgeheimgeheimgeheimgeheimgeheim01/987654321"


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "text", "url", "tells"),
    [
        ("phone", "+84 24 3825 0000", "", "+84 24 3825 0000"),
        ("phone", "113", "", "113"),
        ("email", "o.b+a@school.example", "mailtos://u:p@relay?from=x@y.z&to=o.b%2Ba@school.example", None),
        ("webhook", "https://school.example/hook/1", "jsons://school.example/hook/1", "school.example"),
        ("webhook", "https://school.example:8443/hook", "jsons://school.example:8443/hook", "school.example:8443"),
        ("webhook", "http://127.0.0.1:8080/x", "json://127.0.0.1:8080/x", "127.0.0.1:8080"),
        ("messenger", TOKEN, TOKEN, "Telegram"),
        ("messenger", "zalo://geheimgeheim/1234567", "zalo://geheimgeheim/1234567", "Zalo"),
    ],
)
def test_an_address_leads_where_it_says_and_a_page_tells_no_key(
    how: str, text: str, url: str, tells: str | None
) -> None:
    hosts = ("school.example", "school.example:8443", "127.0.0.1:8080")
    assert wrong(how, text, hosts=hosts, mail=True) == ""
    assert url_of(how, text, mail_url="mailtos://u:p@relay?from=x@y.z") == url
    assert shown(how, text) == (text if tells is None else tells)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("phone", "113;rm"), ("phone", "tel:113"), ("phone", "1\n2345"), ("phone", "1" * 21), ("phone", ""),
        ("email", "a@b"), ("email", "a@b.vn,c@d.vn"), ("email", "a@b.vn&to=c@d.vn"), ("email", "a@b.vn?x=1"),
        ("email", "a@b.vn\r\nBcc: c@d.vn"), ("email", "A <a@b.vn>"), ("email", "a%0d%0aBcc@b.vn"), ("email", "@b.vn"),
        ("email", "a@" + "b" * 60 + ".vn." * 60),
        ("webhook", "https://other.example/x"), ("webhook", "http://school.example/x"), ("webhook", "https://localhost/"),
        ("webhook", "https://169.254.169.254/latest"), ("webhook", "https://[::1]/x"), ("webhook", "file:///etc/passwd"),
        ("webhook", "https://school.example@other.example/x"), ("webhook", "https://school.example:99999/x"),
        ("webhook", "https://school.example/x?method=DELETE"), ("webhook", "https://school.example/x#y"),
        ("webhook", "https://school.example.other.example/"), ("webhook", "https://SCHOOL.example\\@other.example/"),
        ("webhook", "https://school.example/%2e%2e"), ("webhook", "https://school.example/a\nHost: other"),
        ("webhook", "jsons://school.example/x"), ("webhook", "https:///x"),
        ("messenger", "file:///etc/passwd"), ("messenger", "json://127.0.0.1/x"), ("messenger", "mailto://u:p@127.0.0.1"),
        ("messenger", "syslog://_/auth"), ("messenger", "dbus://qt/xxxxxxxx"), ("messenger", "windows://xxxxxxxxx"),
        ("messenger", "https://discord.com/api/webhooks/1/2"), ("messenger", TOKEN + "?template=/etc/passwd"),
        ("messenger", TOKEN + "?verify=no"), ("messenger", TOKEN + " json://127.0.0.1/x"),
        ("messenger", TOKEN + ",json://127.0.0.1/x"), ("messenger", "TGRAM://123456789:abcdefgh/1"),
        ("messenger", TOKEN + "%3fverify=no"), ("messenger", "fcm://project/device?keyfile=/etc/passwd"),
        ("fax", "113"), ("", ""),
    ],
)  # fmt: skip
def test_what_is_no_such_address_is_refused(how: str, text: str) -> None:
    assert wrong(how, text, hosts=("school.example",), mail=True) in ("how", "host", how)


def test_each_messenger_of_the_list_is_one_of_apprise_whose_host_nobody_chooses() -> None:
    from apprise import Apprise

    from agent.station.outward.school_address import MESSENGERS

    known: dict[str, list[str]] = {}
    for one in Apprise().details()["schemas"]:
        for scheme in (*(one["protocols"] or ()), *(one["secure_protocols"] or ())):
            known[str(scheme)] = list(one["details"]["templates"])
    for scheme in MESSENGERS:
        assert known[scheme], scheme
        assert not any("{host" in template or "{port" in template for template in known[scheme]), scheme


def test_without_a_mail_account_there_is_no_mail() -> None:
    assert wrong("email", "a@b.vn", hosts=(), mail=False) == "nomail"
    assert url_of("email", "a@b.vn", mail_url="") == "" == url_of("phone", "113", mail_url="mailto://x")


@pytest.mark.parametrize(
    "line", ["mailto://geheim:x@relay?to=a@b.vn", "mailto://relay?from=a@b.vn&TO=c@d.vn", "json://geheim", "mailto://"]
)
def test_a_mail_account_with_a_recipient_or_of_another_kind_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "mail").write_text(line + "\n")
    with pytest.raises(ConfigError, match=r"outward\.schools: mail_url_file") as refused:
        read_mail_url(SchoolSettings(mail_url_file=str(tmp_path / "mail")))
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("host", ["https://a.vn", "a.vn/x", "user@a.vn", "A.VN", "a.vn:x", "a.vn\n", ""])
def test_a_host_of_the_settings_is_a_name_and_no_more(host: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"hosts": [host]}, SchoolSettings)
    assert msgspec.convert({"hosts": ["a.vn", "b.vn:8443", "[::1]:80"]}, SchoolSettings).hosts[0] == "a.vn"


# -- who is told, and when --------------------------------------------------------------------------------------------


@pytest.fixture
def desk(database: Database) -> Iterator[Board]:
    with board(database) as made:
        yield made


class Schools:
    """Two schools, at gate-2 and at gate-9, and those at headquarters who are told what nobody has acknowledged."""

    def __init__(self, desk: Board, settings: SchoolSettings) -> None:
        self.desk = desk
        self.registry = Registry(desk.engine, trail=desk.trail, clock=desk.clock)
        for login, post in (("oak", "gate-2"), ("elm", "gate-9")):
            new = Person(login, login.capitalize(), Role.SCHOOL, scope_of(Role.SCHOOL, [post]))
            self.registry.add(new, password="!", by="account:test")
        self.book = SchoolBook(desk.engine, trail=desk.trail, clock=desk.clock)
        self.headquarters = Listener()
        self.worker = OutwardWorker(
            queue=desk.queue(),
            destinations={plan("duty", tell=frozenset({"overdue"}), unless_answered=True): self.headquarters},
            clock=desk.clock,
            rng=random.Random(7),
            hands=lambda _count: AtOnce(),
            others=contacts_of_schools(settings, engine=desk.engine),
            others_max=CONTACTS_MAX,
        )
        self.worker.open()

    def add(self, school: str, port: int, path: str, *, after_s: int = 0) -> int:
        address = f"http://127.0.0.1:{port}/{path}"
        return self.book.add(school, name=path, how="webhook", address=address, after_s=after_s, by=MAI)

    def run(self, seconds: float = 2.0) -> None:
        self.desk.run(self.worker, seconds)


@pytest.fixture
def hooks() -> Iterator[HookServer]:
    server = HookServer()
    yield server
    server.close()


@pytest.fixture
def schools(desk: Board, hooks: HookServer) -> Schools:
    return Schools(desk, SchoolSettings(hosts=(f"127.0.0.1:{hooks.port}",)))


def heard(hooks: HookServer) -> list[tuple[str, str]]:
    """Which path was told what, in order."""
    return [(path, json.loads(body)["title"]) for path, _, body in hooks.got]


def test_a_school_is_told_at_once_and_headquarters_when_it_does_not_answer(schools: Schools, hooks: HookServer) -> None:
    """A crowd at the oak school, and somebody presses the bell of the elm school. Oak answers, elm does not."""
    desk = schools.desk
    schools.add("oak", hooks.port, "oak-head")
    schools.add("oak", hooks.port, "oak-deputy", after_s=120)
    schools.add("elm", hooks.port, "elm-head")
    schools.run()
    crowd = desk.happens("alert", node="gate-2", place="Oak gate", onvif="tns1:RuleEngine/CountAggregation/Counter")
    desk.happens("notice", node="gate-2")
    desk.happens("alert", node="lane-1", place="Lane")
    schools.run()
    assert heard(hooks) == [("/oak-head", "Alert at Oak gate (gate-2)")]
    assert desk.alerts.acknowledge(Person("oak", "Oak", Role.SCHOOL, scope_of(Role.SCHOOL, ["gate-2"])), crowd) == "oak"
    desk.happens("bell", node="gate-9", place="Elm gate")
    desk.passes(61)
    schools.run(130)
    assert heard(hooks)[1:] == [("/elm-head", "HELP CALL at Elm gate (gate-9)")], "the deputy need not be told"
    assert [(told.kind, told.node) for _, told in schools.headquarters.got] == [("overdue", "gate-9")]
    desk.passes(301)
    schools.run()
    assert [told.node for _, told in schools.headquarters.got] == ["gate-9", "lane-1"], "oak has answered"


def test_the_next_one_at_the_school_is_told_when_nobody_answers(schools: Schools, hooks: HookServer) -> None:
    schools.add("oak", hooks.port, "head")
    schools.add("oak", hooks.port, "deputy", after_s=120)
    schools.run()
    schools.desk.happens("bell")
    schools.run()
    assert [path for path, _ in heard(hooks)] == ["/head"]
    schools.run(130)
    assert [path for path, _ in heard(hooks)] == ["/head", "/deputy"]
    assert schools.headquarters.got == [], "the board has not noted yet that it is overdue"


def test_a_contact_that_comes_later_is_told_from_then_on_and_one_that_goes_no_more(
    schools: Schools, hooks: HookServer
) -> None:
    first = schools.add("oak", hooks.port, "first")
    schools.run()
    hooks.status = 503
    schools.desk.happens("alert", summary="waits")
    schools.run()
    assert len(hooks.got) >= 1
    hooks.status = 204
    hooks.got.clear()
    assert schools.book.remove(first, by=MAI) and not schools.book.remove(first, by=MAI)
    second = schools.add("oak", hooks.port, "second")
    assert second != first
    schools.run(90)
    assert heard(hooks) == [], "neither is told what waited for the first one"
    assert [line["destination"] for line in schools.desk.on_record("outward-given-up")] == [f"school.{first}"]
    schools.desk.happens("bell")
    schools.run()
    assert [path for path, _ in heard(hooks)] == ["/second"]
    with schools.desk.engine.connect() as db:
        assert db.execute(select(school_contact.c.address).where(school_contact.c.n == first)).scalar() == ""


def test_contacts_follow_the_posts_of_their_school_and_end_with_its_account(
    schools: Schools, hooks: HookServer
) -> None:
    schools.add("oak", hooks.port, "oak")
    schools.run()
    hooks.status = 503
    schools.desk.happens("alert", node="gate-2")
    schools.run()
    hooks.status = 204
    hooks.got.clear()
    schools.registry.set_role("oak", Role.SCHOOL, scope_of(Role.SCHOOL, ["gate-5"]), by="account:test")
    schools.run(90)
    assert heard(hooks) == [], "what waited was of a post that is another's now"
    assert schools.desk.on_record("outward-given-up")[0]["why"] == "its post is another's now"
    schools.desk.happens("alert", node="gate-2")
    schools.desk.happens("alert", node="gate-5", place="New")
    schools.run()
    assert heard(hooks) == [("/oak", "Alert at New (gate-5)")]
    schools.registry.set_disabled("oak", disabled=True, by="account:test")
    schools.desk.happens("alert", node="gate-5")
    schools.run()
    assert len(heard(hooks)) == 1 and told(schools.desk.engine) == {}


def test_an_attempt_under_way_is_not_made_twice_when_contacts_change(schools: Schools) -> None:
    """A hand that hangs goes on while another contact comes."""
    release, made = [], []

    class Held(AtOnce):
        def submit(self, fn: Any, /) -> Any:
            from concurrent.futures import Future

            made.append(fn)
            done: Future[Outcome] = Future()
            release.append(done)
            return done

    n = schools.add("oak", 9, "oak")
    worker = OutwardWorker(
        queue=schools.desk.queue(),
        destinations={},
        clock=schools.desk.clock,
        rng=random.Random(7),
        hands=lambda _count: Held(),
        others=contacts_of_schools(SchoolSettings(hosts=("127.0.0.1:9",)), engine=schools.desk.engine),
        others_max=CONTACTS_MAX,
    )
    worker.open()
    schools.desk.happens("alert")
    schools.desk.run(worker)
    assert len(made) == 1
    schools.add("oak", 9, "another", after_s=60)
    schools.desk.run(worker)
    assert len(made) == 1
    release[0].set_result(Outcome("delivered"))
    schools.desk.run(worker)
    assert len(made) == 1 and schools.desk.standing(f"school.{n}").delivered == 1


def test_there_is_room_for_so_many_and_who_may_not_is_refused(schools: Schools) -> None:
    for number in range(OF_SCHOOL_MAX):
        schools.add("oak", 80, f"c{number}")
    with pytest.raises(ConfigError, match="at most 8"):
        schools.add("oak", 80, "one-more")
    elsewhere = Person("lan", "Lan", Role.SUPERVISOR, scope_of(Role.SUPERVISOR, ["gate-9"]))
    n = schools.add("elm", 80, "elm")
    for school, by in (("oak", elsewhere), ("nobody", MAI), ("mai", MAI)):
        with pytest.raises(ConfigError, match="no such school"):
            schools.book.add(school, name="x", how="phone", address="113", after_s=0, by=by)
    other = Person("binh", "Binh", Role.SUPERVISOR, scope_of(Role.SUPERVISOR, ["gate-2"]))
    assert not schools.book.remove(n, by=other) and schools.book.remove(n, by=elsewhere)
    assert [one.name for one in schools.book.contacts(["oak", "elm"])] == [f"c{k}" for k in range(OF_SCHOOL_MAX)]


# -- really sent ------------------------------------------------------------------------------------------------------


@contextmanager
def mail_server() -> Iterator[tuple[Mailbox, int]]:
    box, port = Mailbox(), free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port, ready_timeout=60)
    controller.start()
    try:
        yield box, port
    finally:
        controller.stop()


def test_a_mail_goes_by_the_stations_account_to_the_school_alone(tmp_path: Path) -> None:
    with mail_server() as (box, port):
        account = tmp_path / "mail"
        account.write_text(f"mailto://127.0.0.1:{port}?from=desk@example.org&mode=insecure&format=text\n")
        settings = SchoolSettings(mail_url_file=str(account))
        assert ToSchool(settings, how="email", address="office+gate@school.example")(LATE, "k").state == "delivered"
        assert [to for to, _ in box.got] == [["office+gate@school.example"]]
        account.unlink()
        outcome = ToSchool(settings, how="email", address="office@school.example")(LATE, "k")
        assert outcome.state == "later" and "office@" not in outcome.why


def test_what_the_settings_no_longer_allow_is_not_sent_and_nothing_tells_the_address(
    hooks: HookServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    address = f"http://127.0.0.1:{hooks.port}/geheim"
    allowed = SchoolSettings(hosts=(f"127.0.0.1:{hooks.port}",))
    hooks.status, hooks.location = 307, "/elsewhere"
    refused = ToSchool(allowed, how="webhook", address=address)(LATE, "k")
    assert refused.state == "later" and [path for path, _ in [(p, b) for p, _, b in hooks.got]] == ["/geheim"]
    withdrawn = ToSchool(SchoolSettings(), how="webhook", address=address)(LATE, "k")
    assert withdrawn.state == "later" and len(hooks.got) == 1
    tampered = ToSchool(allowed, how="messenger", address="json://127.0.0.1:1/geheim")(LATE, "k")
    assert tampered.state == "later" and "allow" in tampered.why, "somebody has written into the database"
    assert "geheim" not in caplog.text + refused.why + withdrawn.why + tampered.why


# -- the pages --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[Ward]:
    (tmp_path / "mail").write_text("mailto://127.0.0.1:9?from=desk@example.org&mode=insecure\n")
    settings = SchoolSettings(mail_url_file=str(tmp_path / "mail"), hosts=("school.example",))
    made_so = functools.partial(make_desk, schools=settings, contacts=[("duty", 0.0)])
    monkeypatch.setattr("tests.fakes.desk.make_desk", made_so)
    made = Ward(tmp_path, database)
    made.person("oak", Role.SCHOOL, "gate-2", name="Oak school")
    made.person("elm", Role.SCHOOL, "gate-9", name="Elm school")
    made.person("mai", Role.SUPERVISOR)
    yield made
    made.close()


def fill(school: str = "oak", **changes: str) -> dict[str, Any]:
    return {
        "school": school,
        "contact": "Head teacher",
        "how": "phone",
        "address": "+84 24 3825 0000",
        "after": "0",
    } | changes


def test_a_supervisor_sets_a_schools_contacts_and_the_school_sees_its_own(ward: Ward) -> None:
    mai = ward.visitor("mai")
    assert "alerts are told to nobody at the school" in mai.get("/schools").text
    for given in (
        fill(),
        fill(how="email", address="office@school.example"),
        fill(how="webhook", address="https://school.example/geheim", after="90"),
        fill(how="messenger", address=TOKEN),
        fill("elm", contact="Elm head", address="0912 345 678"),
    ):
        assert mai.post("/schools/contacts", **given).headers["location"] == "/schools"
    theirs = ward.visitor("oak").get("/school").text
    assert '<a href="tel:+842438250000">+84 24 3825 0000</a>' in theirs and "office@school.example, at once" in theirs
    assert (
        "webhook school.example, after 0:01:30, if nobody has acknowledged" in theirs and "messenger Telegram" in theirs
    )
    assert "Elm head" not in theirs and "912 345 678" not in theirs and "912345678" not in theirs
    everything = theirs + mai.get("/schools").text + json.dumps(ward.trail())
    assert "geheim" not in everything, "a key is shown to nobody, and is on no record"
    said = [line for line in ward.trail() if line["kind"] == "school-contact-added"]
    assert [(line["who"], line["school"], line["how"]) for line in said] == [
        ("mai", "oak", "phone"), ("mai", "oak", "email"), ("mai", "oak", "webhook"), ("mai", "oak", "messenger"),
        ("mai", "elm", "phone"),
    ]  # fmt: skip
    # Not four digits of it: those stand in the hexadecimal token of a form, too, at one in a thousand.
    assert not [part for part in ("3825 0000", "38250000", "office@") if part in json.dumps(ward.trail())]
    assert mai.post("/schools/contacts/remove", n="1").status_code == 303
    left = ward.visitor("oak").get("/school").text
    assert "3825 0000" not in left and "38250000" not in left
    assert mai.post("/schools/contacts/remove", n="1").status_code == 404
    assert ward.kinds().count("school-contact-removed") == 1


def test_what_cannot_be_told_is_refused_in_words_and_kept_nowhere(ward: Ward) -> None:
    mai = ward.visitor("mai")
    mai.get("/schools")
    for given, says in (
        (fill(how="webhook", address="https://169.254.169.254/geheim"), "only to hosts that the settings"),
        (fill(how="messenger", address="file:///etc/geheim"), "no address of one of these messengers"),
        (fill(how="email", address="a@b.vn,geheim@b.vn"), "no e-mail address"),
        (fill(contact=""), "A contact has a name"),
        (fill(after="3601"), "A contact has a name"),
        (fill(after="-1"), "A contact has a name"),
        (fill(how="fax"), "By telephone"),
    ):
        answer = mai.post("/schools/contacts", **given)
        assert answer.status_code == 400 and says in answer.text and "geheim" not in answer.text
        mai.get("/schools")
    assert mai.post("/schools/contacts", **fill(contact="a\u2028b")).status_code in (303, 400)
    mai.get("/schools")
    assert mai.post("/schools/contacts", **fill(how="email", address="a@b.vn\r\nBcc: c@d.vn")).status_code == 400
    assert "b.vn" not in mai.get("/schools").text
    for number in range(OF_SCHOOL_MAX):
        mai.post("/schools/contacts", **fill("elm", contact=f"c{number}"))
    assert "no room" in mai.post("/schools/contacts", **fill("elm")).text


def test_a_supervisor_of_other_posts_and_the_school_itself_set_nothing(ward: Ward) -> None:
    ward.person("lan", Role.SUPERVISOR, "gate-9")
    ward.person("minh", Role.OPERATOR)
    lan, minh, oak = ward.visitor("lan"), ward.visitor("minh"), ward.visitor("oak")
    assert "Oak school" not in lan.get("/schools").text and "Elm school" in lan.get("/schools").text
    assert lan.post("/schools/contacts", **fill("oak")).status_code == 404
    mai = ward.visitor("mai")
    mai.get("/schools")
    mai.post("/schools/contacts", **fill("oak"))
    assert lan.post("/schools/contacts/remove", n="1").status_code == 404
    assert "+84 24 3825 0000" in minh.get("/schools").text and "<select" not in minh.page, (
        "an operator may ring them up"
    )
    oak.get("/school")
    for path, given in (("/schools/contacts", fill("oak")), ("/schools/contacts/remove", dict[str, Any](n="1"))):
        assert minh.post(path, **given).status_code == 403 and oak.post(path, **given).status_code == 403
    assert oak.get("/schools").status_code == 403
    assert "+84 24 3825 0000" in oak.get("/school").text


def test_a_station_that_sends_to_no_school_keeps_numbers_and_says_so(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fakes.desk.make_desk", make_desk)
    ward.start()
    mai = ward.visitor("mai")
    page = mai.get("/schools").text
    assert "This station sends to no school" in page and "No contact of headquarters is set" in page
    assert "e-mail</option>" not in page and "telephone</option>" in page
    assert mai.post("/schools/contacts", **fill(how="messenger", address=TOKEN)).status_code == 400
    assert mai.post("/schools/contacts", **fill()).status_code == 303


def test_what_is_not_delivered_is_told_on_the_page_and_in_the_terminal_without_the_key(
    ward: Ward, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mai = ward.visitor("mai")
    mai.get("/schools")
    mai.post("/schools/contacts", **fill(how="messenger", address=TOKEN))
    worker = OutwardWorker(
        queue=OutwardQueue(ward.engine, trail=ward.desk.trail, clock=ward.clock, site="ward-7"),
        destinations=dict.fromkeys(told(ward.engine), Listener(AWAY)),
        clock=ward.clock,
        rng=random.Random(7),
        hands=lambda _count: AtOnce(),
    )
    worker.open()
    ward.hear(1)
    for second in range(3):
        worker.step(float(second))
    assert [(one.destination, one.waiting) for one in standings(ward.engine)] == [("school.1", 1)]
    assert "1 not delivered yet" in mai.get("/schools").text
    assert "geheim" not in caplog.text


# -- a test message ---------------------------------------------------------------------------------------------------


@pytest.fixture
def near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hooks: HookServer, database: Database) -> Iterator[Ward]:
    """A desk whose schools have webhooks at a server that is really there."""
    (tmp_path / "mail").write_text("mailto://127.0.0.1:9?from=desk@example.org&mode=insecure\n")
    hosts = (f"127.0.0.1:{hooks.port}", "127.0.0.1:9")
    settings = SchoolSettings(mail_url_file=str(tmp_path / "mail"), hosts=hosts)
    monkeypatch.setattr("tests.fakes.desk.make_desk", functools.partial(make_desk, schools=settings))
    made = Ward(tmp_path, database)
    made.person("oak", Role.SCHOOL, "gate-2", name="Oak school")
    made.person("mai", Role.SUPERVISOR, name="Mai")
    made.person("lan", Role.SUPERVISOR, "gate-9")
    yield made
    made.close()


def test_who_sets_a_contact_tries_it_out_and_is_told_what_became_of_it(
    near: Ward, hooks: HookServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    mai = near.visitor("mai")
    mai.get("/schools")
    hook = f"http://127.0.0.1:{hooks.port}/geheim"
    for given in (
        fill(how="webhook", address=hook, contact="Head"),
        fill(how="webhook", address="http://127.0.0.1:9/geheim", contact="Nobody"),
        fill(),
    ):
        assert mai.post("/schools/contacts", **given).status_code == 303
    assert mai.get("/schools").text.count("Send a test message</button>") == 2, "a telephone is not called"
    answer = mai.post("/schools/contacts/test", n="1")
    assert answer.status_code == 200
    assert "Head: the test message was taken in" in answer.text
    ((path, _, body),) = hooks.got
    told = json.loads(body)
    assert (path, told["title"]) == ("/geheim", "Test message from Wardpost")
    assert "Mai at headquarters" in told["message"] and near.settings.origin + "/" in told["message"]

    again = mai.post("/schools/contacts/test", n="1")
    assert again.status_code == 429 and "one a minute" in again.text and len(hooks.got) == 1
    near.clock.advance(61)
    hooks.status = 403
    refused = mai.post("/schools/contacts/test", n="1")
    assert refused.status_code == 200 and "Head: the test message was refused (HTTP 403)" in refused.text
    too_soon = mai.post("/schools/contacts/test", n="2")
    assert too_soon.status_code == 429, "nor does one person send many at once"
    near.clock.advance(6)
    assert "Nobody: the test message could not be delivered" in mai.post("/schools/contacts/test", n="2").text
    assert mai.post("/schools/contacts/test", n="3").status_code == 404
    assert mai.post("/schools/contacts/test", n="99").status_code == 404
    lan = near.visitor("lan")
    lan.get("/schools")
    assert lan.post("/schools/contacts/test", n="1").status_code == 404, "another's school"
    assert mai.post("/schools/contacts/test", n="1", form="0" * 64).status_code == 403
    done = [line for line in near.trail() if line["kind"] == "school-contact-tested"]
    assert [(line["who"], line["name"], line["result"], line["status"]) for line in done] == [
        ("mai", "Head", "delivered", 0), ("mai", "Head", "refused", 403), ("mai", "Nobody", "undelivered", 0),
    ]  # fmt: skip
    assert near.kinds().count("school-contact-test") == 3, "that it was begun is on record before it is sent"
    shown_ = answer.text + refused.text + mai.get("/schools").text
    assert "geheim" not in shown_ + json.dumps(near.trail()) + caplog.text + "".join(capfd.readouterr())


def test_one_test_message_at_a_time_and_none_by_settings_that_forbid_it(near: Ward, hooks: HookServer) -> None:
    """While a service does not answer, nobody else waits in a line of threads."""
    begun, go_on = threading.Event(), threading.Event()
    settings = SchoolSettings(hosts=(f"127.0.0.1:{hooks.port}",))
    book = SchoolBook(near.engine, trail=near.desk.trail, clock=near.clock)
    first = book.add("oak", name="a", how="webhook", address=f"http://127.0.0.1:{hooks.port}/a", after_s=0, by=MAI)
    other = book.add("oak", name="b", how="webhook", address="http://127.0.0.1:9/geheim", after_s=0, by=MAI)
    trial = Trial(settings=settings, book=book, trail=near.desk.trail, clock=near.clock, origin="https://desk.example")

    def slow(_: object, origin: str) -> tuple[str, str]:
        begun.set()
        assert go_on.wait(60)
        return "title", origin

    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(trial.send(first, by=MAI, text=slow)))
    thread.start()
    assert begun.wait(60)
    meanwhile = trial.send(other, by=MAI, text=slow)
    go_on.set()
    thread.join(60)
    assert meanwhile is not None and meanwhile.tried is None
    assert answers[0].tried == Tried("delivered")
    near.clock.advance(10)
    withdrawn = trial.send(other, by=MAI, text=slow)
    assert withdrawn is not None and withdrawn.tried is not None
    assert (withdrawn.tried.result, "geheim" in withdrawn.tried.why) == ("impossible", False)
    assert "does not allow its address" in withdrawn.tried.why


def test_a_message_leads_to_its_alert_at_the_desk(hooks: HookServer) -> None:
    settings = SchoolSettings(hosts=(f"127.0.0.1:{hooks.port}",))
    for origin in ("https://desk.example:8443", ""):
        hand = ToSchool(settings, how="webhook", address=f"http://127.0.0.1:{hooks.port}/x", origin=origin)
        assert hand(LATE, "k").state == "delivered"
    linked, bare = (json.loads(body)["message"] for _, _, body in hooks.got)
    assert f"https://desk.example:8443/alerts/{LATE.incident}" in linked.splitlines()
    assert "://" not in bare and LATE.incident in bare


def test_every_way_has_its_words() -> None:
    from agent.station.web import words as languages

    for language in languages.load().values():
        assert all(language(f"schools.how.{how}") for how in HOWS)
