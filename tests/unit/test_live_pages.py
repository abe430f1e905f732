"""Live view at headquarters: the desk between pages and station, and the pages; a post that a test speaks for."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent import wire
from agent.errors import ConfigError
from agent.live.request import parse
from agent.station.bells.settings import BellSettings
from agent.station.intake import take
from agent.station.live.desk import LiveDesk
from agent.station.live.settings import LiveSettings, check, ice_servers
from agent.station.orders import OrderBook
from agent.station.people.roles import Role
from agent.station.posts.known import Spot
from agent.station.signing import Signer
from agent.station.states import NodeState
from agent.station.store import Batch
from agent.station.web.bells import RINGING_S
from agent.station.web.desk import make_desk
from agent.station.web.live_view import ENDS
from agent.station.web.words import load
from tests.e2e.test_coverage import keys
from tests.fakes.database import Database, fresh
from tests.fakes.desk import Visitor, Ward, incident

OFFER = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"
JPEG = b"\xff\xd8 a picture"


class Office(Ward):
    """A ward with live views. `post` answers as the post would."""

    def __init__(self, folder: Path, database: Database, bells: BellSettings | None = None) -> None:
        private, _ = keys(folder)
        self.key = str(private)
        self.numbers = iter(range(1, 10_000))
        self.woken = 0
        super().__init__(folder, database)
        self.live = LiveDesk(
            LiveSettings(),
            secret="",
            clock=self.clock,
            site="ward-7",
            key=self.key,
            new_id=lambda: incident(next(self.numbers)),
            wake=self._wake,
        )
        self.desk = make_desk(
            self.settings,
            engine=self.engine,
            folder=self.folder,
            site="ward-7",
            station="hq",
            clock=self.clock,
            send_verdict=self._send,
            passwords=self.passwords,
            signer=Signer(site="ward-7", key=self.key, days=14),
            watch=self.live,
            bells=bells,
        )

    def _wake(self) -> None:
        self.woken += 1

    def commands(self) -> list[wire.Command]:
        """What goes to the posts; each is signed, and what a node understands."""
        key = load_pem_private_key(Path(self.key).read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        found = []
        for message in self.live.outgoing():
            address = wire.parse_topic(message.topic)
            command = wire.decode(message.payload, wire.Command)
            signature = base64.b64decode(command.signature)
            key.public_key().verify(signature, command.signing_bytes("ward-7", address.node))
            parse(command.args)
            found.append(command)
        return found

    def answers(self, command: wire.Command, state: Any = "accepted", **result: Any) -> bool:
        return self.live.hears("gate-2", wire.Reply(id=command.id, state=state, result=result))


@pytest.fixture
def office(tmp_path: Path, database: Database) -> Iterator[Office]:
    made = opened(tmp_path, database)
    yield made
    made.close()


def opened(folder: Path, database: Database, bells: BellSettings | None = None) -> Office:
    made = Office(folder, database, bells)
    made.person("lan", Role.OPERATOR, name="Lan")
    made.person("school", Role.SCHOOL, "gate-2")
    made.person("tech", Role.TECHNICIAN)
    made.person("audit", Role.AUDITOR)
    for node in ("gate-2", "lane-1"):
        status = wire.Status(state="online", node=node, bootid="f" * 32, session=1, version="1", place=f"At {node}")
        taken = take(f"wardpost/v1/ward-7/{node}/status", wire.encode(status), site="ward-7", retained=False)
        made.store.commit(Batch(taken=[taken]))
    return made


def begin(visitor: Visitor, post: str = "gate-2", **fields: str) -> tuple[str, httpx.Response]:
    opened = visitor.post(f"/live/{post}/open")
    view = opened.json()["view"] if opened.status_code == 200 else incident(9_999)
    asked = {"mode": "video", "offer": OFFER, "reason": "a call", "case": ""} | fields
    return view, visitor.post(f"/live/{post}/{view}/begin", headers=None, **asked)


def test_a_view_from_the_page_to_the_post_and_back(office: Office) -> None:
    lan = office.visitor("lan")
    page = lan.get("/live/gate-2")
    assert page.status_code == 200 and "At gate-2" in page.text and "onclick" not in page.text
    assert office.commands() == [], "a page that is opened asks for nothing"
    view, begun = begin(lan)
    assert begun.status_code == 200 and begun.json()["sdp"] == ""
    (command,) = office.commands()
    assert office.woken and command.verb == "live"
    assert command.args == {
        "view": view, "do": "begin", "mode": "video", "by": "Lan", "reason": "a call", "case": "", "seconds": 120.0,
        "offer": OFFER, "ice": [],
    }  # fmt: skip
    line = office.trail()[-1]
    assert (line["kind"], line["who"], line["post"], line["reason"]) == ("live-began", "lan", "gate-2", "a call")
    assert office.answers(command, sdp="v=0 answer", left_s=60.0, watching=["Lan", "Minh"])
    state = lan.get(f"/live/gate-2/{view}/state").json()
    assert state["sdp"] == "v=0 answer" and state["left_s"] == 60.0 and "Minh" in state["others"]
    lan.post(f"/live/gate-2/{view}/more")
    (more,) = office.commands()
    assert (more.args["do"], more.args["seconds"]) == ("more", 120.0) and office.kinds()[-1] == "live-extended"
    office.answers(more, "done", left_s=120.0)
    assert lan.get(f"/live/gate-2/{view}/state").json()["left_s"] == 120.0
    assert lan.post(f"/live/gate-2/{view}/end").json()["why"] == "ended"
    (end,) = office.commands()
    assert end.args == {"view": view, "do": "end"}
    office.live.tend()
    line = office.trail()[-1]
    assert (line["kind"], line["who"], line["how"]) == ("live-ended", "lan", "ended by the viewer")


def test_stills_are_asked_for_one_by_one_and_shown_with_their_rate(office: Office) -> None:
    lan = office.visitor("lan")
    view, _ = begin(lan, mode="stills", offer="")
    (command,) = office.commands()
    assert "offer" not in command.args
    office.answers(command, period_s=2.0, left_s=120.0)
    for number in (3, 8):
        jpeg = base64.b64encode(JPEG + bytes([number])).decode()
        office.answers(command, still=number, jpeg=jpeg, age_ms=400, period_s=2.0, left_s=100.0)
        (more,) = office.commands()
        assert (more.args["got"], more.args["seconds"]) == (number, 0), "it has arrived: the next may come"
        state = lan.get(f"/live/gate-2/{view}/state").json()
        assert state["still"] == number and state["rate"] == "A picture every 2 s" and state["period_s"] == 2.0
        assert lan.get(f"/live/gate-2/{view}/still").content == JPEG + bytes([number])
    office.answers(command, still=9, jpeg=base64.b64encode(b"<svg onload=x>").decode(), period_s=2.0)
    office.answers(command, still=10, jpeg="A" * 100_000, period_s=2.0)
    assert lan.get(f"/live/gate-2/{view}/state").json()["still"] == 8, "what is no picture, or too large, is not shown"
    office.answers(command, "done", over="the privacy switch is on", pictures=2)
    state = lan.get(f"/live/gate-2/{view}/state").json()
    assert state["why"] == "privacy" and lan.get(f"/live/gate-2/{view}/still").status_code == 404
    office.live.tend()
    assert office.trail()[-1]["pictures"] == 2


def test_a_page_that_is_closed_ends_it_and_so_does_a_post_that_is_dark(office: Office) -> None:
    lan = office.visitor("lan")
    begin(lan)
    (command,) = office.commands()
    office.answers(command, sdp="v=0 answer", left_s=120.0)
    office.clock.advance(16)
    office.live.tend()
    assert [one.args["do"] for one in office.commands()] == ["end"]
    assert office.trail()[-1]["how"] == "the page was closed"
    view, _ = begin(lan)
    for _ in range(13):
        office.clock.advance(2)
        office.live.tend()
        state = lan.get(f"/live/gate-2/{view}/state").json()
    assert state["why"] == "dark" and office.trail()[-1]["how"] == "the post does not answer"
    office.clock.advance(61)
    office.live.tend()
    assert lan.get(f"/live/gate-2/{view}/state").status_code == 404, "nothing is kept of it"


def test_who_may_and_whose_view_it_is(office: Office) -> None:
    for login in ("tech", "audit"):
        assert office.visitor(login).get("/live/gate-2").status_code == 403, login
        assert begin(office.visitor(login))[1].status_code == 403
    assert office.visitor().post("/live/gate-2/open").status_code == 403
    school = office.visitor("school")
    assert school.get("/live/gate-2").status_code == 200
    assert school.get("/live/lane-1").status_code == 404, "not its post"
    school.get("/")  # whose forms have a token
    assert begin(school, "lane-1")[1].status_code == 404
    assert school.post("/live/lane-1/hold", reason="x").status_code == 404
    lan = office.visitor("lan")
    assert lan.get("/live/nowhere").status_code == 404
    lan.get("/")
    view, _ = begin(lan)
    assert office.commands()
    for path in ("state", "still"):
        assert school.get(f"/live/gate-2/{view}/{path}").status_code == 404, "not its view"
        assert lan.get(f"/live/lane-1/{view}/{path}").status_code == 404
    school.get("/")
    for path in ("more", "end"):
        assert school.post(f"/live/gate-2/{view}/{path}").status_code == 404
    assert office.commands() == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [({"reason": ""}, 400), ({"mode": "radar"}, 400), ({"offer": ""}, 400), ({"mode": "stills"}, 400),
     ({"reason": "x" * 101}, 400), ({"offer": "v=0" + "x" * 13_000}, 409)],
)  # fmt: skip
def test_what_the_page_never_sends_goes_nowhere(office: Office, fields: dict[str, str], status: int) -> None:
    assert begin(office.visitor("lan"), **fields)[1].status_code == status
    assert office.commands() == []


def test_one_person_cannot_take_all_places(office: Office) -> None:
    lan = office.visitor("lan")
    for _ in range(4):
        assert begin(lan)[1].status_code == 200
    refused = begin(lan)[1]
    assert refused.status_code == 409 and "4 views at once" in refused.json()["said"]
    assert office.kinds()[-1] == "live-ended", "what began on the log ends on it"


def test_what_is_recorded_now_is_kept_at_a_word(office: Office) -> None:
    lan = office.visitor("lan")
    assert lan.post("/live/gate-2/hold", reason="").status_code == 400
    assert "30 days" in lan.post("/live/gate-2/hold", reason="a call").json()["said"]
    book = OrderBook(office.engine)
    book.open()
    (one,) = book.of("gate-2")
    book.close()
    args = wire.decode(one.payload, wire.Command).args
    assert one.verb == "hold" and args["reason"] == "Lan: a call" and args["from"] < args["to"] < args["until"]
    assert office.kinds()[-1] == "footage-held"


def test_answers_of_another_post_are_none(office: Office) -> None:
    begin(office.visitor("lan"))
    (command,) = office.commands()
    assert not office.live.hears("lane-1", wire.Reply(id=command.id, state="accepted", result={"sdp": "v=0 mine"}))


# By browser or post: they would ignore it, or refuse every view.
NOT_UNDERSTOOD = ("turn:[2001:db8::1]:3478", "turn:a?transport=tls", "turns:a:443?transport=udp", "turn:", "stun:a")


def test_servers_have_credentials_that_end(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("a secret that coturn has too\n")
    settings = LiveSettings(stun=("stun:a:3478",), turn=("turn:a:3478",), turn_secret_file=str(file))
    found = ice_servers(settings, check(settings), view="v", utc_s=1_000)
    assert found[0] == {"url": "stun:a:3478"} and found[1]["username"] == "4600:v"
    # echo -n 4600:v | openssl dgst -sha1 -hmac 'a secret that coturn has too' -binary | base64
    assert found[1]["credential"] == "/BmxhMMN51bKI+tubRnGLr6ZIws="
    for wrong, why in (
        (LiveSettings(stun=("http://a",)), "live.stun"),
        (LiveSettings(turn=("turn:a",)), "both or neither"),
        *((LiveSettings(turn=(url,)), "is not turn:host:port") for url in NOT_UNDERSTOOD),
        (LiveSettings(turn=("turn:a",), turn_secret_file=str(tmp_path / "none")), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=why):
            check(wrong)


def test_every_end_has_its_words() -> None:
    for words in load().values():
        assert all(words(f"live.over.{key}") for key in ENDS.values())


# -- around a bell -------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What the script of live pictures finds on a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.around: dict[str, str | None] = {}  # of the first bell
        self.posts: dict[str, str | None] = {}  # whether each of its posts is heard
        self.told: dict[str, str | None] = {}  # once a page
        self.scripts: list[str | None] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "section" and found.get("class") == "near" and not self.around:
            self.around = found
        elif tag == "li" and "data-post" in found:
            self.posts[str(found["data-post"])] = found["data-heard"]
        elif found.get("id") == "nearlive":
            self.told = found
        elif tag == "script":
            self.scripts.append(found.get("src"))


@pytest.fixture
def street(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three posts at one house."""
    spots = {name: Spot(house="A") for name in ("gate-2", "lane-1", "lane-2")}
    monkeypatch.setattr("agent.station.web.desk.registered", lambda _root: lambda: spots)


@pytest.mark.usefixtures("street")
def test_a_bell_begins_the_live_pictures_of_those_who_may_watch_and_asks_no_dark_post(office: Office) -> None:
    office.hear(9, node="lane-2")
    office.store.change([("lane-2", NodeState.OFFLINE, office.clock.utc().utc_ns)])
    pressed = office.hear(1, severity="bell", place="School gate")
    lan = office.visitor("lan")
    for path in ("/", f"/alerts/{pressed}"):
        page = Page(lan.get(path).text)
        assert (page.around["data-live"], page.around["data-open"]) == ("itself", "yes"), path
        assert (page.around["data-incident"], page.around["data-reason"]) == (pressed, "Bell at School gate")
        assert list(page.posts.items()) == [("gate-2", "yes"), ("lane-1", "yes"), ("lane-2", "no")], "its own first"
        assert page.told["data-form"] == lan.form() and page.told["data-most"] == "4"
        assert "/assets/nearlive.js" in page.scripts
    assert lan.get("/assets/nearlive.js").status_code == 200
    assert office.commands() == [], "a page as such asks no post"

    school = Page(office.visitor("school").get("/").text)
    assert school.around["data-live"] == "itself" and list(school.posts) == ["gate-2"], "none that it may not see"
    for path in ("/", f"/alerts/{pressed}"):
        page = Page(office.visitor("audit").get(path).text)
        assert page.around and "data-live" not in page.around and not page.posts and not page.told
        assert "/assets/nearlive.js" not in page.scripts

    lan.post(f"/alerts/{pressed}/acknowledge")
    assert Page(lan.get(f"/alerts/{pressed}").text).around["data-open"] == "no", "there at a press only"


@pytest.mark.usefixtures("street")
def test_a_view_around_a_bell_has_it_on_record_and_nothing_else_passes_for_one(office: Office) -> None:
    """In the report it needs no case: so whoever looks about without one must not be able to say that a bell rang."""
    office.hear(9, node="far-1")
    office.hear(8, node="lane-2")
    pressed, other = office.hear(1, severity="bell"), office.hear(2, severity="alert")
    lan, school = office.visitor("lan"), office.visitor("school")

    def told(visitor: Visitor, post: str, bell: str) -> Any:
        view, begun = begin(visitor, post, mode="stills", offer="", bell=bell)
        assert begun.status_code == 200, begun.text
        visitor.post(f"/live/{post}/{view}/end")
        return next(line for line in reversed(office.trail()) if line["kind"] == "live-began").get("bell")

    assert told(lan, "gate-2", pressed) == told(lan, "lane-2", pressed) == told(school, "gate-2", pressed) == pressed
    for post, bell in (
        ("far-1", pressed),
        ("gate-2", other),
        ("gate-2", incident(77)),
        ("gate-2", "x'<"),
        ("gate-2", ""),
    ):
        assert told(lan, post, bell) is None, (post, bell)
    office.clock.advance(RINGING_S + 1)
    assert told(office.visitor("lan"), "gate-2", pressed) is None, "long past"


@pytest.mark.usefixtures("street")
def test_where_the_settings_say_so_live_pictures_begin_at_a_press_only(tmp_path: Path) -> None:
    with fresh("sqlite", tmp_path) as database:
        office = opened(tmp_path, database, BellSettings(live_pictures=False))
        office.hear(1, severity="bell", place="S" * 90)
        page = Page(office.visitor("lan").get("/").text)
        assert page.around["data-live"] == "asked" and page.told
        assert len(str(page.around["data-reason"])) <= 100, "no longer than a reason may be"
        office.close()


@pytest.mark.usefixtures("street")
def test_a_station_that_gives_no_live_view_offers_none_around_a_bell(tmp_path: Path) -> None:
    with fresh("sqlite", tmp_path) as database:
        ward = Ward(tmp_path, database)
        ward.person("lan", Role.OPERATOR)
        pressed = ward.hear(1, severity="bell")
        for path in ("/", f"/alerts/{pressed}"):
            page = Page(ward.visitor("lan").get(path).text)
            assert "data-live" not in page.around and not page.told and "/assets/nearlive.js" not in page.scripts
        ward.close()
