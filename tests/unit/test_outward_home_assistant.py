"""Home Assistant: its broker has what is so, and nothing of a post that is revoked, whatever is cut in between."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from agent.station.db.engine import writing
from agent.station.db.outward import outward_discovery
from agent.station.outward.discovery import Discovery, Post
from agent.station.outward.home_assistant import HomeAssistantWorker
from agent.types import NS
from tests.fakes.broker import FakeBroker, FakeTransport
from tests.fakes.database import Database
from tests.fakes.ha_schema import check_entity
from tests.fakes.outward_desk import LAN, SITE, Board, board

OWN = "wardpost_ward-7_gate-2"
CONFIGS = {
    "connectivity": f"homeassistant/binary_sensor/{OWN}/connectivity/config",
    "alert": f"homeassistant/binary_sensor/{OWN}/alert/config",
    "raised": f"homeassistant/event/{OWN}/raised/config",
}
STATE = "wardpost-ha/ward-7/gate-2/state"
EVENT = "wardpost-ha/ward-7/gate-2/event"
STATION = "wardpost-ha/ward-7/station"
CLIENT = "wardpost_ward-7_home_hq"


class Home:
    """The worker, its broker, and the station behind it."""

    def __init__(self, desk: Board) -> None:
        self.desk = desk
        self.broker = FakeBroker(clock=desk.clock)
        self.revoked: set[str] = set()
        self.worker = self.start()

    def start(self) -> HomeAssistantWorker:
        """As after a start of the program."""
        self.transport = FakeTransport(brokers=[self.broker], clock=self.desk.clock)
        self.worker = HomeAssistantWorker(
            engine=self.desk.engine,
            transport=self.transport,
            discovery=Discovery(site=SITE, prefix="homeassistant", version="1.0"),
            revoked=lambda: self.revoked,
            brokers=[self.broker.address],
            client_id=CLIENT,
            clock=self.desk.clock,
            rng=random.Random(3),
            wait_s_max=0.0,
        )
        self.worker.open()
        return self.worker

    def run(self, seconds: float) -> None:
        end = self.desk.clock.boot_ns() / NS + seconds
        while (now := self.desk.clock.boot_ns() / NS) < end:
            self.desk.clock.advance(max(self.worker.step(now) - now, 0.1))

    def kept(self, topic: str) -> Any:
        payload = self.broker.retained.get(topic)
        return None if payload is None else json.loads(payload)

    def wrong(self) -> list[str]:
        """With what is told of the post's entities."""
        return [said for topic in CONFIGS.values() for said in check_entity(topic, self.kept(topic))]

    def events(self) -> list[Any]:
        return [json.loads(payload) for topic, payload in self.broker.routed if topic == EVENT]


@pytest.fixture
def home(database: Database) -> Iterator[Home]:
    with board(database) as desk:
        yield Home(desk)


def heard(desk: Board, node: str = "gate-2") -> None:
    """A post is there, without any alert."""
    desk.happens("notice", node=node)


def test_a_post_is_a_device_with_its_state(home: Home) -> None:
    heard(home.desk)
    home.run(5)
    assert home.wrong() == []
    assert home.kept(STATE) == {"connectivity": "ON", "alert": "OFF", "availability": "online"}
    assert home.broker.retained[STATION] == b"online"
    incident = home.desk.happens("bell", summary="Somebody\r\npressed the bell")
    home.run(3)
    assert home.kept(STATE) == {"connectivity": "ON", "alert": "ON", "availability": "online"}
    assert home.events() == [{"event_type": "bell", "incident": incident, "summary": "Somebody pressed the bell"}]
    assert EVENT not in home.broker.retained, "or Home Assistant would see it again at each of its starts"
    home.desk.alerts.acknowledge(LAN, incident)
    home.run(3)
    assert home.kept(STATE) == {"connectivity": "ON", "alert": "OFF", "availability": "online"}


@pytest.mark.parametrize("state", ["dark", "offline"])
def test_of_a_post_that_is_lost_nobody_says_that_all_is_well(home: Home, state: str) -> None:
    incident = home.desk.happens("bell")
    home.desk.becomes("gate-2", state)
    home.run(5)
    assert home.kept(STATE) == {"connectivity": "OFF", "alert": "ON", "availability": "online"}, "the call is open"
    home.desk.alerts.acknowledge(LAN, incident)
    home.run(3)
    assert home.kept(STATE) == {"connectivity": "OFF", "alert": "OFF", "availability": "offline"}
    for key in CONFIGS:
        follows = [one["topic"] for one in home.kept(CONFIGS[key])["availability"]]
        assert follows == ([STATION] if key == "connectivity" else [STATION, STATE]), "its connection is known"


def test_what_was_told_under_another_topic_goes_before_the_new_one_comes(home: Home) -> None:
    """Home Assistant takes no second entity of one name."""
    old = f"homeassistant/device/{OWN}/config"
    home.broker.retained[old] = b"{}"
    with writing(home.desk.engine, "as an older release did") as db:
        db.execute(insert(outward_discovery).values(topic=old, node="gate-2"))
    heard(home.desk)
    home.run(5)
    assert old not in home.broker.retained and home.wrong() == []
    order = [topic for topic, _ in home.broker.routed]
    assert order.index(old) < min(order.index(topic) for topic in CONFIGS.values())


def test_nothing_is_published_twice_without_need(home: Home) -> None:
    heard(home.desk)
    home.run(5)
    before = len(home.broker.routed)
    home.run(30)
    assert len(home.broker.routed) == before


def test_the_last_will_makes_all_of_it_unavailable(home: Home) -> None:
    heard(home.desk)
    home.run(5)
    home.transport.vanish()
    assert home.broker.retained[STATION] == b"offline"
    home.start()
    home.run(5)
    assert home.broker.retained[STATION] == b"online"
    home.worker.close()
    assert home.broker.retained[STATION] == b"offline"


def test_a_broker_that_forgot_is_told_anew(home: Home) -> None:
    heard(home.desk)
    home.run(5)
    home.desk.happens("alert")
    home.broker.restart()
    home.run(30)
    assert home.wrong() == [] and home.kept(STATE)["alert"] == "ON"


def test_a_post_that_is_revoked_is_taken_away_wherever_the_power_goes(home: Home) -> None:
    heard(home.desk)
    heard(home.desk, "gate-3")
    home.run(5)
    home.revoked.add("gate-2")
    home.transport.vanish()  # before anything could be taken away
    home.start()
    home.run(20)
    assert not [topic for topic in home.broker.retained if "gate-2" in topic]
    assert [topic for topic in home.broker.retained if "gate-3" in topic]
    assert home.desk.database.rows("select count(*) from outward_discovery where node = 'gate-2'") == [(0,)]
    home.desk.happens("bell")
    home.run(3)
    assert home.events() == []
    home.revoked.clear()  # provisioned again
    home.run(20)
    assert home.wrong() == []


def test_a_removal_that_got_lost_is_said_again(home: Home) -> None:
    heard(home.desk)
    home.run(5)
    home.revoked.add("gate-2")
    home.broker.partition(CLIENT)
    home.run(20)
    home.broker.heal(CLIENT)
    assert CONFIGS["alert"] in home.broker.retained
    home.run(60)
    assert not set(CONFIGS.values()) & home.broker.retained.keys()


def test_a_broker_that_is_away_is_tried_again(home: Home) -> None:
    home.broker.refuse = True
    heard(home.desk)
    home.run(120)
    home.broker.refuse = False
    home.run(320)
    assert home.wrong() == []


def test_a_fleet_is_told_within_bounds(home: Home) -> None:
    for number in range(70):
        heard(home.desk, f"post-{number}")
    home.run(1)
    home.run(15)
    assert sum(topic.endswith("/config") for topic in home.broker.retained) == 3 * 70


def test_two_sites_on_one_broker_do_not_meet() -> None:
    one = Discovery(site="a", prefix="homeassistant", version="1")
    other = Discovery(site="b", prefix="homeassistant", version="1")
    post = Post("n", "", "online", "", alerting=False)
    assert one.station != other.station and not one.messages(post).keys() & other.messages(post).keys()


@given(place=st.text(max_size=250), version=st.text(max_size=80))
def test_whatever_a_post_calls_itself_the_device_is_valid(place: str, version: str) -> None:
    made = Discovery(site=SITE, prefix="homeassistant", version="1").messages(
        Post("gate-2", place, "online", version, alerting=False)
    )
    assert [said for topic in CONFIGS.values() for said in check_entity(topic, json.loads(made[topic]))] == []


@pytest.mark.parametrize(
    ("key", "path", "value"),
    [
        ("alert", ("device", "identifiers"), []),
        ("alert", ("device_class",), "danger"),
        ("raised", ("event_types",), None),
        ("alert", ("colour",), "red"),
        ("connectivity", ("origin",), None),
        ("raised", ("state_topic",), "a/+/b"),
        ("connectivity", ("availability", 0, "topic"), ""),
    ],
)
def test_the_schema_finds_what_is_wrong(key: str, path: tuple[Any, ...], value: Any) -> None:
    good = Discovery(site=SITE, prefix="homeassistant", version="1").messages(Post("gate-2", "", "online", "", False))
    entity: Any = json.loads(good[CONFIGS[key]])
    inner = entity
    for name in path[:-1]:
        inner = inner[name]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    assert check_entity(CONFIGS[key], entity)
    assert check_entity(f"homeassistant/device/{OWN}/config", json.loads(good[CONFIGS[key]]))
