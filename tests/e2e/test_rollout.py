"""A rollout for real: a broker, `wardpost station` as a process that is killed on the way, and the nodes' own handling.

A node here is the product's uplink, with its judge of commands, its release worker and its launcher, on a real broker,
fetching a real signed bundle over HTTPS. Its disk and its releases are in memory, and it has no camera: whether there are
frames is the test's word. What a release is like from inside is proved in tests/system/test_release.py.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent import wire
from agent.clock import SystemClock, uuid7_maker
from agent.errors import NeedsRestart, WardpostError
from agent.release.plan import Limits
from agent.release.worker import Eyes, ReleaseWorker
from agent.station.reader import Reader
from agent.store.store import Origin, Store
from agent.types import NS
from agent.uplink import parse_broker
from agent.uplink.commands import Verb, load_key
from agent.uplink.mqtt import Credentials, PahoTransport
from agent.uplink.worker import UplinkWorker
from tests.e2e.brokers import RealBroker
from tests.e2e.post import Post, recording, wardpost
from tests.e2e.test_coverage import STATION, keys
from tests.e2e.test_ledger import until
from tests.e2e.uplink_process import heartbeat
from tests.fakes.release import KEY, Card, bundle_bytes
from tests.unit.test_release_worker import Server

LIMITS = Limits(settle_s=1.0, gate_s=2.0, network_s=60.0)


class Node(threading.Thread):
    """One node, from its first start to the end of the test, through the restarts that its releases ask for."""

    def __init__(self, name: str, folder: Path, broker: str, public: Path, server: Server) -> None:
        super().__init__(name=name, daemon=True)
        self.node, self.folder, self.broker, self.public, self.server = name, folder, broker, public, server
        self.card = Card()
        self.good_releases = {"base"}
        self.commands = 0
        self.stopping = threading.Event()
        self.fault = ""

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self.life()
        except Exception as error:
            self.fault = f"{type(error).__name__}: {error}"

    def life(self) -> None:
        """From the launcher to the restart that is asked for."""
        self.card.start()
        slots = self.card.slots
        running = slots.running()
        clock = SystemClock()
        store = Store(
            self.folder / f"{self.node}.db",
            clock=clock,
            new_id=uuid7_maker(clock),
            origin=Origin("ward", self.node, ""),
            outbox_rows_max=1000,
            event_rows_max=1000,
        )
        store.open()
        store.start_session()
        transport = PahoTransport(clock=clock, credentials=Credentials(), keepalive_s=5, connect_s_max=2.0)

        def frames() -> bool:
            return running in self.good_releases

        release = ReleaseWorker(
            slots=slots,
            running=running,
            disk=self.card.disk,
            clock=clock,
            public=KEY.public,
            limits=LIMITS,
            eyes=Eyes(frames=frames, broker=lambda: uplink.broker is not None, quiet=lambda: True),
            sources={"https": self.server.source},
            bytes_max=10_000_000,
            note=lambda _body: None,
            tell=lambda _text: None,
            reply=lambda reply: uplink.tell(reply),  # noqa: PLW0108  (made after this)
        )

        def update(args: dict[str, Any]) -> dict[str, Any]:
            self.commands += 1
            return release.update(args)

        def beat() -> wire.Heartbeat:
            return msgspec.structs.replace(
                heartbeat(store, clock, self.node),
                camera=wire.CameraState(name="x", fps=5, frameagems=40 if frames() else None, frames=1, restarts=0),
                recording=wire.RecordingState(recording=True, segments=1, bytes=1, oldest=None, droppedpackets=0),
                release=release.reported(),
            )

        uplink = UplinkWorker(
            store=store,
            transport=transport,
            clock=clock,
            rng=random.Random(1),
            site="ward",
            node=self.node,
            place="",
            version="1",
            brokers=[parse_broker(self.broker)],
            heartbeat=beat,
            heartbeat_s=1.0,
            backoff_s_max=1.0,
            command_key=load_key(str(self.public)),
            verbs={"update": Verb(update, acting=True, lasting=True, needs_time=False)},
            wait_s_max=0.05,
        )
        try:
            uplink.open()
            release.open()
            while not self.stopping.is_set():
                uplink.step(clock.boot_ns() / NS)
                release.step(clock.boot_ns() / NS)
        except NeedsRestart:
            pass
        finally:
            uplink.close()
            transport.close()
            store.close()

    @property
    def number(self) -> int:
        return self.card.slots.state().good.number


class Headquarters:
    """`wardpost station` as a process, and the commands that a person types beside it."""

    def __init__(self, folder: Path, broker: str) -> None:
        private, self.public = keys(folder)
        self.data = folder / "station"
        self.data.mkdir()
        self.config = folder / "station.toml"
        self.config.write_text(STATION.format(data=self.data, key=private, broker=broker), encoding="utf-8")
        self._log = folder / "station.log"
        self._process: subprocess.Popen[bytes] | None = None

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "agent.cli", *words, "--config", str(self.config)]

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command("station"), stdout=log, stderr=log)

    def end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=90)
            self._process = None

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self._command(*words), capture_output=True, text=True, timeout=180)

    def ask_here(self, *words: str) -> subprocess.CompletedProcess[str]:
        """As `ask`, in this process: a new one takes two seconds to load, and the state is asked all the time."""
        return wardpost(*words, "--config", str(self.config))

    def rollout(self) -> dict[str, Any]:
        asked = self.ask_here("rollout", "status", "--json")
        assert asked.returncode == 0, asked.stderr
        told: dict[str, Any] = json.loads(asked.stdout) or {"state": "none", "posts": []}
        return told


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


@pytest.mark.timeout(900)
def test_a_good_release_goes_through_although_the_station_is_killed_and_a_bad_one_stops(
    tmp_path: Path, broker: RealBroker, server: Server
) -> None:
    desk = Headquarters(tmp_path, broker.url)
    nodes = [Node(name, tmp_path, broker.url, desk.public, server) for name in ("cam-1", "cam-2")]
    (tmp_path / "release.pub").write_text(KEY.public.hex())
    rings = tmp_path / "rings.toml"
    rings.write_text(
        'soak_s = 3.0\n[[ring]]\nname = "bench"\nnodes = ["cam-1"]\n[[ring]]\nname = "rest"\nnodes = ["*"]\n'
    )

    def begin(number: int) -> None:
        server.data = bundle_bytes(tmp_path, number)
        file = str(tmp_path / f"release-{number}.zip")
        words = ["--bundle", file, "--url", server.url, "--key", KEY.public.hex(), "--rings", str(rings)]
        ask = desk.ask if number == 1 else desk.ask_here
        asked = ask("rollout", "start", *words)
        assert asked.returncode == 0, asked.stderr
        assert f"rollout of release {number} is started" in asked.stdout

    desk.start()
    try:
        for node in nodes:
            node.start()
        until(lambda: _known(desk) == {"cam-1", "cam-2"}, "two nodes that are heard")

        # A good release. The station dies as soon as the first node has heard of it, and comes back.
        for node in nodes:
            node.good_releases.add("1")
        begin(1)
        until(lambda: nodes[0].commands > 0, "the first node told")
        desk.end(signal.SIGKILL)
        assert nodes[1].commands == 0
        desk.start()
        until(lambda: desk.rollout()["state"] == "done", "the end of the rollout")
        assert [node.number for node in nodes] == [1, 1], [node.fault for node in nodes]
        told = desk.rollout()
        assert {post["node"]: post["has"] for post in told["posts"]} == {"cam-1": "confirmed", "cam-2": "confirmed"}
        steps = [step["text"] for step in told["steps"]]
        assert steps.count("cam-1: is told") == 1 and steps.count("cam-2: is told") == 1
        assert steps.index("cam-1: confirmed") < steps.index("cam-2: is told")

        # A release under which there are no frames: the first node rolls it back, and the second never hears of it.
        before = nodes[1].commands
        begin(2)
        until(lambda: desk.rollout()["state"] == "stopped", "a stop")
        assert "bench: 1 of 1 failed" in desk.rollout()["why"] and "no frames" in desk.rollout()["why"]
        assert (nodes[0].card.slots.running(), nodes[0].number, nodes[1].commands) == ("1", 1, before)

        # One node by hand: what it has is known to it, and what it gave up it refuses.
        words = ["--bundle", str(tmp_path / "release-2.zip"), "--url", server.url, "--key", KEY.public.hex()]
        refused = desk.ask_here("update", *words, "cam-1")
        assert refused.returncode == 1 and "was given up (no frames" in refused.stdout
        for node in nodes:
            node.good_releases.add("2")
        done = desk.ask("update", *words, "cam-2")
        assert done.returncode == 0 and "cam-2: done: release 2" in done.stdout, done.stdout + done.stderr
        until(lambda: nodes[1].number == 2, "the second node with the release that was sent to it alone")
    finally:
        for node in nodes:
            node.stopping.set()
        desk.end(signal.SIGKILL)
        for node in nodes:
            node.join(60)
    assert [node.fault for node in nodes] == ["", ""]


def test_a_whole_node_takes_settings_from_the_station_and_reports_them(
    tmp_path: Path, broker: RealBroker, post: Post
) -> None:
    """`wardpost run`, `wardpost station` and `wardpost configure`, each a process."""
    desk = Headquarters(tmp_path, broker.url)
    text = post.config.read_text(encoding="utf-8")
    text = text.replace("[uplink]", f'[uplink]\ncommand_key = "{desk.public}"')
    post.config.write_text(text, encoding="utf-8")
    desk.start()
    try:
        post.start()
        post.wait_for(recording)
        until(lambda: _known(desk) == {"cam-7"}, "a node that is heard")
        refused = desk.ask_here(
            "configure", "cam-7", "--file", str(post.config), "--set", "uplink.command_key=/nothing"
        )
        assert refused.returncode == 1 and "uplink.command_key" in refused.stdout, refused.stdout + refused.stderr
        done = desk.ask(
            "configure", "cam-7", "--file", str(post.config), "--set", "vision.score_min=0.55", "--wait-s", "90"
        )
        assert done.returncode == 0 and "tries the desired one" in done.stdout, done.stdout + done.stderr
        post.end(signal.SIGTERM)  # it would by itself, once it has run for `settled_s`: a process is not ended at once
        post.start()
        post.wait_for(lambda status: recording(status) and status["session"] == 2)
        until(lambda: (told := _settings(desk)) is not None and told.trial == 2, "the trial in the heartbeat")
        assert post.end(signal.SIGTERM) == 0
    finally:
        desk.end(signal.SIGKILL)


def _settings(desk: Headquarters) -> wire.SettingsState | None:
    reader = Reader(desk.data)
    reader.open()
    try:
        return wire.decode(reader.heartbeats()["cam-7"], wire.Heartbeat).settings
    finally:
        reader.close()


def _known(desk: Headquarters) -> set[str]:
    reader = Reader(desk.data)
    try:
        reader.open()
        return set(reader.heartbeats())
    except WardpostError:
        return set()
    finally:
        reader.close()
