"""A real Home Assistant with a real Mosquitto, told by a real station: what its owner sees of the posts, by its own API.

Nodes are played by a client; what they say goes through the posts' broker and the station.
"""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent import wire
from agent.cli import main
from tests.e2e.brokers import Mosquitto, NatsServer, free_port, mosquitto
from tests.system.home_assistant import House, home_assistant

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 90.0  # a busy machine; on a quiet one most waits are over within two seconds
PASSWORD = "a long enough password"
BOOT = "f" * 32
INCIDENT = "01900000-0000-7000-8000-000000000063"

GATE = {"connectivity": "binary_sensor.ngo_12_gate_2_connection", "alert": "binary_sensor.ngo_12_gate_2_alert"}
GATE["raised"] = "event.ngo_12_gate_2_alert_raised"
OTHER = {"connectivity": "binary_sensor.gate_3_connection", "alert": "binary_sensor.gate_3_alert"}
OTHER["raised"] = "event.gate_3_alert_raised"


class Street:
    """Two posts, their broker, and the station that tells the broker of a house."""

    def __init__(self, folder: Path, *, home: str) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.site = folder / "site"
        self.nodes = NatsServer(folder)
        self.config = folder / "station.toml"
        self.url = f"https://127.0.0.1:{(port := free_port())}"
        assert main(["site", "init", str(self.site), "--site", "ward-7", "--broker", "127.0.0.1"]) == 0
        assert main(["site", "desk-cert", str(self.site), "127.0.0.1"]) == 0
        for node in ("gate-2", "gate-3"):
            assert main(["provision", node, "--site", str(self.site), "--ethernet"]) == 0
        (folder / "data").mkdir()
        self.config.write_text(
            f'[station]\nsite = "ward-7"\nid = "hq"\ndata = "{folder / "data"}"\nregister = "{self.site}"\n'
            f'[broker]\nbrokers = ["{self.nodes.url}"]\nbackoff_s_max = 1.0\n'
            f'[web]\nlisten = "127.0.0.1:{port}"\norigin = "{self.url}"\n'
            f'certificate = "{self.site}/desk/desk.pem"\nkey = "{self.site}/desk/desk.key"\n'
            f'[outward.home_assistant]\nbrokers = ["{home}"]\n'
        )
        password = folder / "password"
        password.write_text(PASSWORD)
        options = ["--role", "operator", "--password-file", str(password), "--config", str(self.config)]
        assert main(["user", "add", "minh", *options]) == 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="posts")
        self.nodes.start()
        self._client.connect("127.0.0.1", self.nodes.port)
        self._client.loop_start()

    def start(self) -> None:
        with (self._folder / "station.log").open("ab") as out:
            command = [sys.executable, "-m", "agent.cli", "station", "--config", str(self.config)]
            self._process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)

    def end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(WITHIN_S)

    def close(self) -> None:
        self.end(signal.SIGKILL)
        self._client.disconnect()
        self._client.loop_stop()
        self.nodes.stop()

    def says(self, node: str, state: Any, *, session: int, place: str = "") -> None:
        """A post comes, or the broker says by its last will that it is lost."""
        reason = "lost" if state == "offline" else ""
        said = wire.Status(
            state=state, node=node, bootid=BOOT, session=session, version="1.2", place=place, reason=reason
        )
        self._client.publish(f"wardpost/v1/ward-7/{node}/status", wire.encode(said), qos=1, retain=True)

    def presses(self, node: str) -> None:
        """Somebody calls for help."""
        event = wire.CloudEvent(
            id="01900000-0000-7000-8000-000000000001",
            source=f"wardpost/ward-7/{node}",
            type="wardpost.bell",
            subject=INCIDENT,
            time="2026-11-21T07:02:11.250Z",
            epoch="01900000-0000-7000-8000-000000000002",
            sequence=1,
            session=1,
            bootid=BOOT,
            monons=1,
            timeerrms=3000,
            data=wire.EventData(
                incident=INCIDENT, phase="ended", severity="bell", summary="Help\r\nis {{ needed }}", place="Ngõ 12"
            ),
        )
        self._client.publish(f"wardpost/v1/ward-7/{node}/event/bell", wire.encode(event), qos=1)

    def acknowledge(self) -> None:
        """At the desk, through its pages."""
        trust = ssl.create_default_context(cafile=str(self.site / "ca" / "ca.pem"))
        with httpx.Client(base_url=self.url, verify=trust, headers={"origin": self.url}, timeout=30) as desk:
            entered = {"login": "minh", "password": PASSWORD, "form": _form(desk, "/login")}
            assert desk.post("/login", data=entered).status_code == 303
            form = _form(desk, f"/alerts/{INCIDENT}")
            assert desk.post(f"/alerts/{INCIDENT}/acknowledge", data={"form": form}).status_code == 303


def _form(desk: httpx.Client, path: str) -> str:
    found = re.search(r'name="form" value="(\w+)"', desk.get(path).text)
    assert found is not None
    return found[1]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Home Assistant's own."""
    if not mosquitto():
        pytest.skip("no mosquitto here: apt-get install mosquitto")
    (folder := tmp_path / "mosquitto").mkdir()
    made = Mosquitto(folder)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def house(tmp_path: Path, broker: Mosquitto) -> Iterator[House]:
    program = home_assistant()
    (folder := tmp_path / "house").mkdir()
    made = House(program, folder)
    try:
        made.start()
        made.move_in(broker=broker.port)
        yield made
    finally:
        made.close()


@pytest.fixture
def street(tmp_path: Path, broker: Mosquitto) -> Iterator[Street]:
    (folder := tmp_path / "street").mkdir()
    made = Street(folder, home=broker.url)
    yield made
    made.close()


def test_a_house_sees_what_becomes_of_the_posts(house: House, street: Street) -> None:
    def soon(entities: dict[str, str], what: str, **wanted: str | None) -> None:
        """All of a post's entities, at one moment; None: there is none."""
        seen: Callable[[], dict[str, str | None]] = lambda: {key: house.state(entities[key]) for key in wanted}  # noqa: E731
        try:
            house.wait_for(lambda: seen() == wanted, what, WITHIN_S)
        except AssertionError as error:
            raise AssertionError(f"{what}: {seen()} instead of {wanted}; {house.complaints()}") from error

    street.start()
    street.says("gate-2", "online", session=1, place="Ngõ 12")
    street.says("gate-3", "online", session=1)
    soon(GATE, "a post is a device", connectivity="on", alert="off", raised="unknown")
    soon(OTHER, "and so is the other", connectivity="on", alert="off", raised="unknown")
    classes = {key: (house.entity(GATE[key]) or {})["attributes"].get("device_class") for key in GATE}
    assert classes == {"connectivity": "connectivity", "alert": "safety", "raised": None}
    told = {name: house.device(GATE["alert"], name) for name in ("name", "manufacturer", "sw_version")}
    assert told == {"name": "Ngõ 12 (gate-2)", "manufacturer": "Wardpost", "sw_version": "1.2"}
    assert house.device(GATE["alert"], "id") == house.device(GATE["raised"], "id") != "None"
    assert house.device(GATE["alert"], "id") != house.device(OTHER["alert"], "id")

    # Somebody calls for help, once.
    street.presses("gate-2")
    soon(GATE, "a bell", connectivity="on", alert="on")
    house.wait_for(lambda: house.state(GATE["raised"]) != "unknown", "the bell is no event", WITHIN_S)
    raised = house.entity(GATE["raised"]) or {}
    seen = {name: raised["attributes"].get(name) for name in ("event_type", "incident", "summary")}
    assert seen == {"event_type": "bell", "incident": INCIDENT, "summary": "Help is {{ needed }}"}
    soon(OTHER, "of the other nothing is said", alert="off", raised="unknown")

    # The post is lost, as if somebody had torn it down: the call stays until it is answered. Then nobody can say that all
    # is well there. It comes back.
    street.says("gate-2", "offline", session=1)
    soon(GATE, "a post is lost", connectivity="off", alert="on", raised=raised["state"])
    street.acknowledge()
    soon(GATE, "somebody answers", connectivity="off", alert="unavailable", raised="unavailable")
    soon(OTHER, "the other is not lost", connectivity="on", alert="off", raised="unknown")
    street.says("gate-2", "online", session=2, place="Ngõ 12")
    soon(GATE, "it comes back", connectivity="on", alert="off", raised=raised["state"])

    # Home Assistant starts again: what is so is so, and no bell rings a second time.
    house.end()
    house.start()
    soon(GATE, "after a new start", connectivity="on", alert="off", raised=raised["state"])

    # The station dies: nobody knows anything. It lives again.
    lost: dict[str, str | None] = dict.fromkeys(GATE, "unavailable")
    street.end(signal.SIGKILL)
    soon(GATE, "the station is gone", **lost)
    soon(OTHER, "for the other too", **lost)
    street.start()
    soon(GATE, "the station is back", connectivity="on", alert="off", raised=raised["state"])

    # A post is revoked: its device goes, and the other stays.
    assert main(["site", "revoke", str(street.site), "gate-2", "--reason", "moved"]) == 0
    soon(GATE, "it is taken away", **dict.fromkeys(GATE))
    assert house.device(GATE["alert"], "id") == "None"
    soon(OTHER, "the other stays", connectivity="on", alert="off", raised="unknown")
    assert house.complaints() == []
