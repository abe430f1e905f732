"""The real `wardpost station` with a real broker tells a real server and Home Assistant's topics; it is killed with -9
while nobody answers, and what it had to tell arrives all the same."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from standardwebhooks.webhooks import Webhook as Verifier

from agent import wire
from tests.e2e.brokers import RealBroker, free_port
from tests.fakes.ha_schema import check_entity
from tests.fakes.hook_server import HookServer

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S_MAX = 180.0  # a busy machine; on a quiet one each wait is over in a few seconds
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
INCIDENT = "01900000-0000-7000-8000-000000000063"


def wait_for(what: str, so: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S_MAX
    while not so():
        assert time.monotonic() < end, what
        time.sleep(0.05)


class Scene:
    """A station of its own settings file, and a client that plays node and Home Assistant."""

    def __init__(self, folder: Path, broker: RealBroker) -> None:
        self.folder = folder
        self.hook = HookServer()
        (folder / "data").mkdir()
        (folder / "secret").write_text(SECRET + "\n")
        (folder / "station.toml").write_text(
            f'[station]\nsite = "ward-7"\nid = "hq"\ndata = "{folder / "data"}"\n'
            f'[broker]\nbrokers = ["{broker.url}"]\nbackoff_s_max = 1.0\n'
            f'[web]\nlisten = "127.0.0.1:{free_port()}"\norigin = "https://desk.example"\nbehind_proxy = true\n'
            f'[[outward.webhook]]\nname = "hook"\nurl = "http://127.0.0.1:{self.hook.port}/in"\n'
            f'secret_file = "{folder / "secret"}"\ntell = ["bell"]\n'
            f'[outward.home_assistant]\nbrokers = ["{broker.url}"]\n'
        )
        self.seen: dict[str, bytes] = {}
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="somebody")
        self.client.on_message = lambda _c, _u, message: self.seen.update({message.topic: bytes(message.payload)})
        self.client.connect("127.0.0.1", broker.port)
        self.client.subscribe([("homeassistant/#", 1), ("wardpost-ha/#", 1)])
        self.client.loop_start()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "station.log").open("ab") as out:
            command = [sys.executable, "-m", "agent.cli", "station", "--config", str(self.folder / "station.toml")]
            self._process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def press(self) -> None:
        """A bell of a post."""
        event = wire.CloudEvent(
            id="01900000-0000-7000-8000-000000000001",
            source="wardpost/ward-7/gate-2",
            type="wardpost.bell",
            subject=INCIDENT,
            time="2026-11-21T07:02:11.250Z",
            epoch="01900000-0000-7000-8000-000000000002",
            sequence=1,
            session=1,
            bootid="f" * 32,
            monons=1,
            timeerrms=3000,
            data=wire.EventData(
                incident=INCIDENT, phase="ended", severity="bell", summary="Help\r\nX-Evil: 1", place="Ngõ 12"
            ),
        )
        self.client.publish("wardpost/v1/ward-7/gate-2/event/bell", wire.encode(event), qos=1)

    def presses_until(self, so: Callable[[], bool]) -> None:
        """The node sends until it has a receipt, which this one does not read: the same event, again and again."""
        for _ in range(int(WITHIN_S_MAX)):
            self.press()
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                if so():
                    return
                time.sleep(0.05)
        raise AssertionError(f"nothing came of it: {self.log()}")

    def log(self) -> str:
        return (self.folder / "station.log").read_text()[-4000:]

    def close(self) -> None:
        self.kill()
        self.client.disconnect()
        self.client.loop_stop()
        self.hook.close()


@pytest.fixture
def scene(tmp_path: Path, broker: RealBroker) -> Iterator[Scene]:
    made = Scene(tmp_path, broker)
    yield made
    made.close()


@pytest.mark.timeout(1200)
@pytest.mark.system  # two starts of a station on a busy machine: half a minute
def test_a_bell_reaches_the_others_through_kill_9(scene: Scene) -> None:
    scene.hook.status = 500
    scene.start()
    wait_for("no station", lambda: scene.seen.get("wardpost-ha/ward-7/station") == b"online")
    scene.presses_until(lambda: len(scene.hook.got) > 0)
    state: Any = lambda: json.loads(scene.seen.get("wardpost-ha/ward-7/gate-2/state", b"{}"))  # noqa: E731
    wait_for("Home Assistant was not told", lambda: state().get("alert") == "ON")
    told = {topic: json.loads(payload) for topic, payload in scene.seen.items() if topic.endswith("/config")}
    assert len(told) == 3 and all(check_entity(topic, payload) == [] for topic, payload in told.items())
    scene.kill()
    wait_for("the last will did not come", lambda: scene.seen["wardpost-ha/ward-7/station"] == b"offline")
    tried = len(scene.hook.got)
    scene.hook.status = 204
    scene.start()
    wait_for(f"it was forgotten: {scene.log()}", lambda: len(scene.hook.got) > tried)
    _, fields, body = scene.hook.got[-1]
    posted: Any = Verifier(SECRET).verify(body, fields)
    assert posted["type"] == "wardpost.bell" and posted["data"]["summary"] == "Help X-Evil: 1"
    assert {one["webhook-id"] for _, one, _ in scene.hook.got} == {fields["webhook-id"]}
    settled = len(scene.hook.got)
    time.sleep(2.0)
    assert len(scene.hook.got) == settled, "it was delivered: it is not told again"
