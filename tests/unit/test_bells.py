"""A bell is pressed: what posts are asked to keep of it, once, within limits; and what a person is shown around it."""

from __future__ import annotations

import base64
import datetime as dt
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent import wire
from agent.clock import parse_rfc3339, rfc3339
from agent.disk import PosixDisk
from agent.errors import ConfigError, Transient
from agent.station.bells import book as books
from agent.station.bells.book import BellBook, holds_of
from agent.station.bells.deciding import (
    DAY_NS,
    FRESH_NS,
    HOUR_NS,
    LATE_NS_MAX,
    SURE_MS_MAX,
    WAITING_MAX,
    Near,
    Ordered,
    decide,
    nearest,
    pressed_at,
    span,
)
from agent.station.bells.settings import BellSettings
from agent.station.bells.worker import BellWorker
from agent.station.intake import HeartbeatIn, StatusIn
from agent.station.orders import Order, OrderBook
from agent.station.people.roles import Role, Scope
from agent.station.people.trail import Trail
from agent.station.posts.fleet import judge
from agent.station.posts.known import Beat, Known, Spot
from agent.station.posts.upkeep import bell_of, bell_task
from agent.station.posts.words import Words, view_dict
from agent.station.signing import Signer
from agent.station.store import Batch
from agent.station.web.live import Live
from agent.types import NS, UtcReading
from agent.uplink.commands import Judge, Run, Verb
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.fakes.desk import JPEG, Ward, incident
from tests.unit.test_health import heartbeats

KEY = Ed25519PrivateKey.from_private_bytes(b"b" * 32)
SPOTS = {
    "gate-2": Spot(house="A", lat=21.0285, lon=105.8542),
    "gate-3": Spot(house="A"),
    "lane-1": Spot(lat=21.0290, lon=105.8542),  # 56 m to the north
    "lane-2": Spot(lat=21.0295, lon=105.8542),  # 111 m
    "lane-3": Spot(lat=21.0300, lon=105.8542),  # 167 m
    "far-1": Spot(lat=21.1285, lon=105.8542),  # 11 km
    "lost-1": Spot(),
    "never-1": Spot(house="A"),  # in the register, but never heard
}
HEARD = ("gate-2", "gate-3", "lane-1", "lane-2", "lane-3", "far-1", "lost-1")
NOW = 1_795_348_000 * NS


# -- which posts are near, and when it was --------------------------------------------------------------------------------


def test_the_nearest_posts_are_those_of_the_house_and_then_by_metres() -> None:
    found = nearest("gate-2", SPOTS, among=HEARD, m_max=300.0)
    assert [one.node for one in found] == ["gate-3", "lane-1", "lane-2", "lane-3"]
    assert [round(one.metres) for one in found] == [0, 56, 111, 167]
    assert [one.node for one in nearest("gate-2", SPOTS, among=HEARD, m_max=100.0)] == ["gate-3", "lane-1"]
    assert nearest("lost-1", SPOTS, among=HEARD, m_max=300.0) == []
    assert nearest("unknown", SPOTS, among=HEARD, m_max=300.0) == []
    assert nearest("gate-2", {}, among=HEARD, m_max=300.0) == []


@pytest.mark.parametrize(
    ("told_ns", "error_ms", "late", "found_ns"),
    [
        (NOW - 2 * NS, 50, False, NOW - 2 * NS),  # its clock is good
        (NOW - 2 * NS, None, False, NOW),  # nobody vouches for it, but it came at once
        (NOW - 2 * NS, SURE_MS_MAX + 1, False, NOW),
        (NOW - FRESH_NS - NS, 50, False, NOW),  # it says that it is sure, and is wrong
        (NOW + 365 * DAY_NS, 50, False, NOW),
        (NOW - 3 * DAY_NS, 50, True, NOW - 3 * DAY_NS),  # pressed while there was no network
        (NOW - 3 * DAY_NS, None, True, None),  # ... and nobody knows when
        (NOW - LATE_NS_MAX - NS, 50, True, None),
        (NOW + FRESH_NS + NS, 50, True, None),
    ],
)
def test_when_it_was_pressed(told_ns: int, error_ms: int | None, late: bool, found_ns: int | None) -> None:
    assert pressed_at(rfc3339(told_ns), error_ms, late=late, received_utc_ns=NOW) == found_ns


@pytest.mark.parametrize("time", ["", "soon", "9999-99-99T00:00:00Z", "0000-01-01T00:00:00Z", "1" * 4000])
def test_a_time_that_is_none_is_that_of_the_arrival(time: str) -> None:
    assert pressed_at(time, 50, late=False, received_utc_ns=NOW) == NOW
    assert pressed_at(time, 50, late=True, received_utc_ns=NOW) is None


def test_what_is_kept_reaches_from_before_to_after_widened_by_the_error_of_the_time_and_no_more() -> None:
    settings = BellSettings(before_minutes=5.0, after_minutes=15.0)
    assert span(NOW, 0, settings) == (NOW - 300 * NS, NOW + 900 * NS)
    assert span(NOW, 3000, settings) == (NOW - 303 * NS, NOW + 903 * NS)
    assert span(NOW, 10**9, settings) == (NOW - 360 * NS, NOW + 960 * NS), "a node cannot make it long by its error"
    start, end = span(NOW, None, BellSettings(before_minutes=0.0, after_minutes=0.0))
    assert start < end


def ordered(bell: str, node: str, number: int, age_ns: int = 0) -> Ordered:
    return Ordered(bell, node, NOW - age_ns, incident(number))


def test_one_bell_makes_holds_for_so_many_presses_an_hour_and_a_day() -> None:
    settings = BellSettings(holds_per_hour_max=2, holds_per_day_max=3)
    near = [Near("lane-1", 56.0)]
    past: list[Ordered] = []

    def press(number: int, now_ns: int) -> tuple[str, ...]:
        made = decide("gate-2", near, past, {}, settings, now_utc_ns=now_ns)
        past.extend(Ordered("gate-2", one.node, now_ns, incident(number)) for one in made.ask)
        assert bool(made.ask) != ("bell-limit" in made.left.values())
        return tuple(one.node for one in made.ask)

    assert [bool(press(n, NOW + n * NS)) for n in range(4)] == [True, True, False, False]
    assert press(9, NOW + HOUR_NS + 2 * NS) == ("gate-2", "lane-1")
    assert press(10, NOW + 3 * HOUR_NS) == (), "three a day"


def test_the_bells_of_others_use_up_no_more_than_their_share_and_never_that_of_ones_own() -> None:
    settings = BellSettings(foreign_holds_per_day_max=3)
    past = [ordered(f"bad-{n}", "lane-1", n) for n in range(3)]
    made = decide("gate-2", [Near("lane-1", 56.0), Near("lane-2", 111.0)], past, {}, settings, now_utc_ns=NOW)
    assert [one.node for one in made.ask] == ["gate-2", "lane-2"] and made.left == {"lane-1": "post-limit"}
    own = decide("lane-1", [], past, {}, settings, now_utc_ns=NOW)
    assert [one.node for one in own.ask] == ["lane-1"]


def test_a_dark_posts_queue_keeps_room_for_people() -> None:
    made = decide("gate-2", [Near("lane-1", 56.0)], [], {"lane-1": WAITING_MAX}, BellSettings(), now_utc_ns=NOW)
    assert [one.node for one in made.ask] == ["gate-2"] and made.left == {"lane-1": "queue"}


def test_neighbours_are_bounded() -> None:
    near = [Near(f"lane-{n}", float(n)) for n in range(50)]
    made = decide("gate-2", near, [], {}, BellSettings(neighbours_max=3), now_utc_ns=NOW)
    assert [one.node for one in made.ask] == ["gate-2", "lane-0", "lane-1", "lane-2"]
    alone = decide("gate-2", near, [], {}, BellSettings(neighbours_max=0), now_utc_ns=NOW)
    assert [one.node for one in alone.ask] == ["gate-2"]


# -- the station asks ------------------------------------------------------------------------------------------------------


class Bells:
    """A station whose posts have been heard, and the worker that looks after bells."""

    def __init__(self, folder: Path, database: Database, **settings: Any) -> None:
        self.ward = Ward(folder, database)
        self.folder = folder
        key = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "command.pem").write_bytes(key)
        self.key = str(folder / "command.pem")
        self.settings = BellSettings(**settings)
        self.spots: Any = lambda: SPOTS
        for node in HEARD:
            status = wire.Status(state="online", node=node, bootid="f" * 32, session=1, place=f"Place {node}")
            self.ward.store.commit(Batch(taken=[StatusIn(node, status, retained=False)]))
        self._ids = 0
        self.presses = 0
        self.start()

    def start(self) -> None:
        """The worker, as after a restart of the station."""
        ward = self.ward
        trail = Trail(ward.engine, clock=ward.clock, site="ward-7", station="hq", disk=PosixDisk(self.folder))
        self.worker = BellWorker(
            self.settings,
            book=BellBook(ward.engine, trail=trail),
            engine=ward.engine,
            signer=Signer(site="ward-7", key=self.key, days=14.0),
            register=lambda: self.spots(),  # noqa: PLW0108  (a test changes it)
            new_id=self._id,
            clock=ward.clock,
        )
        self.worker.open()

    def _id(self) -> str:
        self._ids += 1
        return incident(0xFF0000 + self._ids)

    def press(self, node: str = "gate-2", **data: Any) -> str:
        """A bell that comes in, at once unless the test says otherwise. Returns the incident."""
        self.presses += 1
        now = rfc3339(self.ward.clock.utc().utc_ns)
        return self.ward.hear(self.presses, node=node, **({"severity": "bell", "time": now, "timeerrms": 100} | data))

    def look(self, times: int = 3) -> None:
        for _ in range(times):
            self.worker.step(self.ward.clock.boot_ns() / NS)

    def orders(self, *nodes: str) -> list[Order]:
        book = OrderBook(self.ward.engine)
        book.open()
        try:
            return [one for node in nodes or HEARD for one in book.of(node)]
        finally:
            book.close()

    def lines(self, kind: str = "bell-hold") -> list[dict[str, Any]]:
        return [line for line in self.ward.trail() if line["kind"] == kind]

    def close(self) -> None:
        self.worker.close()
        self.ward.close()


@pytest.fixture
def bells(tmp_path: Path, database: Database) -> Iterator[Bells]:
    made = Bells(tmp_path, database)
    yield made
    made.close()


def asked(order: Order) -> dict[str, Any]:
    return wire.decode(order.payload, wire.Command).args


def test_a_press_has_its_post_and_the_nearest_keep_it_once_with_the_reason_on_record(bells: Bells) -> None:
    pressed = bells.press()
    bells.look()
    orders = bells.orders()
    assert sorted(one.node for one in orders) == ["gate-2", "gate-3", "lane-1", "lane-2"]
    now = bells.ward.clock.utc().utc_ns
    for one in orders:
        args = asked(one)
        assert one.verb == "hold" and one.state == "waiting"
        assert args["from"] == rfc3339(now - 300 * NS - NS // 10) and args["to"] == rfc3339(now + 900 * NS + NS // 10)
        assert parse_rfc3339(args["until"]) == parse_rfc3339(args["to"]) + 7 * DAY_NS
        assert args["reason"].startswith("emergency bell at Place gate-2, ")
    (line,) = bells.lines()
    assert line["who"] == "" and line["bell"] == "gate-2" and line["incident"] == pressed
    assert line["posts"] == {one.node: one.id for one in orders}
    assert line["reason"] == asked(orders[0])["reason"] and line["left"] == {}
    bells.ward.hear(1, severity="bell", phase="ended")
    bells.look()
    bells.start()
    bells.look()
    assert len(bells.orders()) == 4 and len(bells.lines()) == 1, "once a press"


def test_an_alert_is_no_bell(bells: Bells) -> None:
    bells.press(severity="alert")
    bells.look()
    assert bells.orders() == [] and bells.lines() == []


def test_a_dark_post_that_comes_back_days_later_takes_the_order_it_finds(bells: Bells) -> None:
    """By the node's own judgement of commands, with the station's key, after it has started anew."""
    bells.press()
    bells.look()
    (order,) = bells.orders("lane-1")
    back = UtcReading(bells.ward.clock.utc().utc_ns + 9 * DAY_NS, 10**8, "ntp")
    verbs = {"hold": Verb(lambda _: {}, acting=True, lasting=True, needs_time=False)}
    judge = Judge(site="ward-7", node="lane-1", key=KEY.public_key(), verbs=verbs)
    topic = wire.Topics("ward-7", "lane-1").command("hold")
    assert isinstance(judge.judge(topic, order.payload, utc=back, started_utc_ns=back.utc_ns), Run)
    other = Judge(site="ward-7", node="lane-2", key=KEY.public_key(), verbs=verbs)
    topic = wire.Topics("ward-7", "lane-2").command("hold")
    assert not isinstance(other.judge(topic, order.payload, utc=back, started_utc_ns=back.utc_ns), Run)


def test_a_node_that_presses_without_end_fills_neither_the_cards_nor_the_log(bells: Bells) -> None:
    for _ in range(8):
        bells.press()
    bells.look(2)
    per_hour = bells.settings.holds_per_hour_max
    assert len(bells.orders("lane-1")) == len(bells.orders("gate-2")) == per_hour
    lines = bells.lines()
    assert len(lines) == per_hour + 1 and set(lines[-1]["left"].values()) == {"bell-limit"} and not lines[-1]["posts"]
    assert len(bells.ward.desk.alerts.board(Scope(whole_site=True), 0)) == 8, "on the board they are, as ever"
    bells.press("far-1")
    bells.look()
    assert len(bells.orders("far-1")) == 1, "and another bell is not held up by it"


def test_what_a_cut_leaves_undone_is_done_at_the_next_start(bells: Bells, monkeypatch: pytest.MonkeyPatch) -> None:
    bells.press()
    cut = 0

    def die(*_: Any, **__: Any) -> None:
        raise Transient("the power goes")

    for name, after in (("add", 0), ("find", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(OrderBook, name, die)
            with pytest.raises(Transient):
                bells.look()
            cut += 1
        bells.start()
        assert len(bells.lines()) == 1 and len(bells.orders()) == after
    with monkeypatch.context() as patch:  # it is in the book of orders, and nobody has noted that
        patch.setattr(BellBook, "done", die)
        with pytest.raises(Transient):
            bells.look()
    assert len(bells.orders()) == 1
    bells.start()
    bells.look()
    assert sorted(one.node for one in bells.orders()) == ["gate-2", "gate-3", "lane-1", "lane-2"]
    assert len(bells.lines()) == 1 and cut == 2
    assert {one.state for one in holds_of(bells.ward.engine, incident(1))} == {"queued"}


def test_a_station_without_its_key_says_so_on_the_log_and_goes_on(bells: Bells) -> None:
    Path(bells.key).rename(bells.folder / "elsewhere.pem")
    bells.press()
    bells.look()
    assert bells.orders() == []
    assert {line["posts"][0] for line in bells.lines("bell-hold-failed")} == {"gate-2", "gate-3", "lane-1", "lane-2"}
    assert {one.state for one in holds_of(bells.ward.engine, incident(1))} == {"failed"}


def test_a_register_that_cannot_be_read_costs_the_neighbours_only(bells: Bells) -> None:
    def gone() -> Any:
        raise ConfigError("register.db: gone; restore it")

    bells.spots = gone
    bells.press()
    bells.look()
    assert [one.node for one in bells.orders()] == ["gate-2"]


def test_a_press_that_nobody_can_date_is_told_and_holds_nothing(bells: Bells) -> None:
    bells.press(timeerrms=None, historical=True)
    bells.look()
    (line,) = bells.lines()
    assert bells.orders() == [] and "nobody can tell" in line["why"]
    long_ago = bells.ward.clock.utc().utc_ns - 2 * DAY_NS
    bells.press(time=rfc3339(long_ago), historical=True)
    bells.look()
    assert {asked(one)["from"] for one in bells.orders()} == {rfc3339(long_ago - 300 * NS - NS // 10)}


def test_bells_from_before_the_worker_was_there_are_left_alone_and_its_mark_moves_on(
    bells: Bells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "SKIP_MAX", 5)
    bells.ward.database.run("delete from board_mark where key = 'bells'")
    bells.press()
    bells.start()
    bells.look()
    assert bells.orders() == []
    for _ in range(7):
        bells.press(severity="alert")
    bells.look()
    ((mark,),) = bells.ward.database.rows("select value from board_mark where key = 'bells'")
    ((newest,),) = bells.ward.database.rows("select max(n) from alert_step")
    assert mark == newest


# -- what a person is shown ------------------------------------------------------------------------------------------------


def seen_around(bells: Bells, monkeypatch: pytest.MonkeyPatch) -> None:
    """The desk's own view of the register: the same neighbourhood."""
    monkeypatch.setattr("agent.station.web.desk.registered", lambda _root: lambda: SPOTS)
    bells.ward.start()


def picture(bells: Bells, number: int, node: str, jpeg: bytes) -> None:
    bells.ward.hear(number, node=node, severity="thumbnail", jpeg=base64.b64encode(jpeg).decode())


def test_a_bell_comes_with_the_newest_pictures_around_it_for_whoever_may_see_them(
    bells: Bells, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_around(bells, monkeypatch)
    ward = bells.ward
    ward.person("minh", Role.OPERATOR)
    ward.person("school", Role.SCHOOL, "gate-2", "lane-2")
    ward.person("tech", Role.TECHNICIAN)
    picture(bells, 901, "gate-2", JPEG)
    picture(bells, 902, "lane-1", JPEG + b"old")
    picture(bells, 903, "lane-1", JPEG + b"new")
    pressed = bells.press()
    bells.look()
    ward.clock.advance(3)
    minh, school, tech = ward.visitor("minh"), ward.visitor("school"), ward.visitor("tech")
    board = minh.get("/").text
    for node, metres in (("gate-2", "here"), ("gate-3", "0 m away"), ("lane-1", "56 m away"), ("lane-2", "111 m away")):
        assert f"Place {node} <span" in board.replace("\n", " ") and metres in board
        assert f'href="/live/{node}?reason=Bell%20at%20School%20gate"' in board
    assert "lane-3" not in board and "far-1" not in board
    answer = minh.get("/posts/lane-1/picture")
    assert answer.content == JPEG + b"new" and answer.headers["content-type"] == "image/jpeg"
    (line,) = [one for one in ward.trail() if one["kind"] == "viewed" and "lane-1" in one.get("posts", {})]
    assert line["what"] == "picture" and line["posts"] == {"lane-1": [incident(903)]}
    theirs = school.get("/").text
    assert "Place gate-2" in theirs and "Place lane-2" in theirs
    assert "gate-3" not in theirs and "lane-1" not in theirs
    assert school.get("/posts/lane-1/picture").status_code == 404
    assert school.get("/posts/lane-2/picture").status_code == 404, "it has none"
    assert tech.get("/posts/gate-2/picture").status_code == 403
    whole = minh.get(f"/alerts/{pressed}").text
    assert whole.count("ordered; the post is not heard yet") == 4
    assert school.get(f"/alerts/{pressed}").text.count("ordered; the post is not heard yet") == 2
    minh.post(f"/alerts/{pressed}/acknowledge")
    assert "56 m away" not in minh.get("/").text, "somebody has it: the board is quiet again"
    assert "56 m away" in minh.get(f"/alerts/{pressed}").text


def test_what_became_of_the_holds_is_told(bells: Bells, monkeypatch: pytest.MonkeyPatch) -> None:
    seen_around(bells, monkeypatch)
    bells.ward.person("minh", Role.OPERATOR)
    pressed = bells.press()
    bells.look()
    book = OrderBook(bells.ward.engine)
    book.open()
    done, refused, sent, _ = bells.orders("gate-2", "gate-3", "lane-1", "lane-2")
    book.answered(done.node, wire.Reply(id=done.id, state="done"))
    book.answered(refused.node, wire.Reply(id=refused.id, state="refused"))
    book.sent(sent.n)
    book.close()
    text = bells.ward.visitor("minh").get(f"/alerts/{pressed}").text
    for words in ("kept by the post", "refused by the post", "ordered, not answered yet", "the post is not heard yet"):
        assert text.count(words) == 1, words
    bells.press(timeerrms=None, historical=True)
    bells.look()
    assert "has not ordered any" in bells.ward.visitor("minh").get(f"/alerts/{incident(bells.presses)}").text


def test_a_bell_is_shown_also_when_nobody_can_tell_what_is_near(bells: Bells, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Any:
        raise ConfigError("register.db: gone; restore it")

    monkeypatch.setattr("agent.station.web.desk.registered", lambda _root: gone)
    bells.ward.start()
    bells.ward.person("minh", Role.OPERATOR)
    bells.press()
    board = bells.ward.visitor("minh").get("/")
    assert board.status_code == 200 and "Bell: help is called" in board.text and "Place gate-2" in board.text


class Watch(FakeClock):
    """Lets the board's thread live in the test's: whoever waits makes time pass, and at his third wait a bell rings."""

    def __init__(self, press: Callable[[], object]) -> None:
        super().__init__()
        self._press = press
        self._waits = 0
        self.pressed_ns = 0

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self._waits += 1
        if self._waits == 3:
            self._press()  # just as it has looked: the worst moment
            self.pressed_ns = self.boot_ns()
        assert self._waits < 100, "nobody was told"
        return super().wait(event, timeout_s)


def test_a_press_is_told_to_every_open_board_within_two_seconds_of_its_delivery(bells: Bells) -> None:
    """In the time of the clock that the board's thread waits by; the machine's own speed is not in it."""
    watch = Watch(bells.press)
    live = Live(bells.ward.desk.alerts, bells.ward.desk.keeper, clock=watch, listeners_max=5)
    told: list[tuple[int, int]] = []

    class Page:
        def __init__(self, number: int) -> None:
            self._number = number

        def tell(self) -> None:
            if watch.pressed_ns:
                told.append((self._number, watch.boot_ns()))
                live._stop.set()

    live._listeners |= {Page(1): None, Page(2): None}  # type: ignore[dict-item]
    live._run()
    assert sorted(number for number, _ in told) == [1, 2]
    assert all(at_ns - watch.pressed_ns <= 2 * NS for _, at_ns in told)


# -- the bells' own tests, as the posts tell of them -----------------------------------------------------------------------


def bell_post(state: str = "", *, since_s: float = 0.0, tested_s: float | None = None) -> Known:
    """A post that is heard and said so in its newest heartbeat: so long ago, seconds."""
    bell = None
    if state:
        tested = "" if tested_s is None else rfc3339(NOW - round(tested_s * NS))
        bell = wire.BellState(state=state, since=rfc3339(NOW - round(since_s * NS)), tested=tested)  # type: ignore[arg-type]
    clock = wire.ClockState(utc=rfc3339(NOW), errms=5, source="ntp")
    beat = Beat(msgspec.structs.replace(heartbeats(Path("no such machine"))(), bell=bell, clock=clock), NOW)
    return Known(node="gate-2", state="online", seen_utc_ns=NOW, known_since_utc_ns=NOW - DAY_NS, beat=beat)


@pytest.mark.parametrize(
    ("post", "look", "task"),
    [
        (bell_post(), None, None),
        (bell_post("well", since_s=9e5, tested_s=86_000), "well", None),
        (bell_post("well", since_s=9e5, tested_s=2.1 * 86_400), "untested", "do.belltest"),
        (bell_post("untested", since_s=600), "new", None),
        (bell_post("untested", since_s=4000), "untested", "do.belltest"),
        (bell_post("untested", since_s=4000, tested_s=90_000), "untested", "do.belltest"),
        (bell_post("stuck", since_s=120, tested_s=1), "stuck", "do.bell"),
        (bell_post("high", since_s=120, tested_s=1), "high", "do.bell"),
    ],
)
def test_what_is_known_of_a_bell_and_what_is_to_be_done(post: Known, look: str | None, task: str | None) -> None:
    found = bell_of(post, NOW)
    assert (None if found is None else found.look) == look
    due = bell_task(found)
    assert (None if due is None else due.what) == task
    (view,) = judge([post], now_utc_ns=NOW, zone=dt.UTC)
    assert (None if view.task is None else view.task.what) == task
    for language in ("en", "vi"):
        words = Words.of(language)
        told = view_dict(view, words, NOW)
        assert told["bell"] is None if look is None else told["bell"]["state"] == look
        assert found is None or words(f"bell.{found.look}").format(when="then")


@pytest.mark.parametrize("told", ["", "soon", "9999-99-99T00:00:00Z", "\N{BELL}" * 3])
def test_a_bell_whose_times_are_none_counts_as_not_tested(told: str) -> None:
    bell = wire.BellState(state="well", since=told, tested=told)
    beat = Beat(msgspec.structs.replace(heartbeats(Path("no such machine"))(), bell=bell), NOW)
    post = Known(node="gate-2", state="online", seen_utc_ns=NOW, known_since_utc_ns=NOW, beat=beat)
    found = bell_of(post, NOW)
    assert found is not None and found.look == "untested"


def test_the_posts_pages_say_that_a_bell_is_stuck(bells: Bells) -> None:
    ward = bells.ward
    ward.person("tech", Role.TECHNICIAN)
    now = ward.clock.utc().utc_ns
    for node, state in (("gate-2", "stuck"), ("lane-1", "well")):
        bell = wire.BellState(state=state, since=rfc3339(now), tested=rfc3339(now))  # type: ignore[arg-type]
        beat = msgspec.structs.replace(heartbeats(Path("no such machine"))(), node=node, session=1, bell=bell)
        ward.store.commit(Batch(taken=[HeartbeatIn(node, beat, wire.encode(beat))]))
    tech = ward.visitor("tech")
    text = tech.get("/posts").text
    assert text.count("a press would not be seen") == 1 and "a press would be seen" not in text
    assert "a press would be seen" in tech.get("/posts/lane-1").text
    assert "The bell cannot ring" in tech.get("/posts/gate-2").text
    assert "The bell cannot ring" in tech.get("/to-do").text
