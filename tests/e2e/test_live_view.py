"""A live view over a real broker: a real station asks, a real node shows what it records, a WebRTC peer looks at it.

The peer stands for the browser and is a process of its own. The browser itself: tests/system/test_live_page.py.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest

from agent import wire
from agent.clock import SystemClock, uuid7_maker
from agent.config import load
from agent.station.live.desk import LiveDesk
from agent.station.live.views import View
from agent.station.main import Station, StationSettings
from tests.e2e import synchronised
from tests.e2e.brokers import RealBroker
from tests.e2e.post import WAIT_S_MAX, Post, recording
from tests.e2e.test_coverage import STATION, keys
from tests.e2e.test_ledger import on_card, said, until
from tests.e2e.viewer_process import luma_sha256
from tests.fakes.footage import make_video

ROOT = Path(__file__).parents[2]


class Viewer:
    """The process of `viewer_process.py`, and what it has said."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.e2e.viewer_process"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.offer: str = json.loads(self._process.stdout.readline())["sdp"]
        self.pictures: list[str] = []
        self.times: list[int] = []
        self.state = ""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "sha256" in told:
                self.pictures.append(told["sha256"])
                self.times.append(told["pts"])
            else:
                self.state = told["state"]

    def answer(self, sdp: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"sdp": sdp}) + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def viewer() -> Iterator[Viewer]:
    one = Viewer()
    try:
        yield one
    finally:
        one.kill()


@contextmanager
def station(settings: StationSettings) -> Iterator[Station]:
    """In this process, on a thread of its own."""
    stop = threading.Event()
    one = Station(settings, clock=SystemClock(), rng=random.Random(1))
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    try:
        yield one
    finally:
        stop.set()
        thread.join(20)


class SynchronisedPost(Post):
    """On a machine with NTP."""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", synchronised.MODULE, arguments[0], "--config", str(self.config), *arguments[1:]]


@pytest.fixture
def post(tmp_path: Path, broker: RealBroker) -> Iterator[SynchronisedPost]:
    """Its camera sends pictures in the order in which they are shown, as cameras do; it detects nothing."""
    film = make_video(tmp_path / "film.mp4", seconds=20.0, options={"bf": "0"})
    post = SynchronisedPost(tmp_path, film, broker.url)
    with post.config.open("a", encoding="utf-8") as config:
        config.write('\n[vision.detector]\ndriver = "none"\n')
    yield post
    post.clean_up()


@pytest.fixture
def settings(post: Post, broker: RealBroker, tmp_path: Path) -> StationSettings:
    private, public = keys(tmp_path)
    config = post.config.read_text(encoding="utf-8")
    config = config.replace("[uplink]", f'[uplink]\ncommand_key = "{public}"') + "\n[live]\nstill_period_s = 1.0\n"
    post.config.write_text(config, encoding="utf-8")
    (tmp_path / "station").mkdir()
    file = tmp_path / "station.toml"
    file.write_text(STATION.format(data=tmp_path / "station", key=private, broker=broker.url), encoding="utf-8")
    return load(file, StationSettings)


class Page:
    """What the page does, without the page."""

    def __init__(self, desk: LiveDesk, *, name: str = "Lan", offer: str = "") -> None:
        self._desk = desk
        self._id = desk.new_view()
        desk.begin(
            view=self._id,
            node="cam-7",
            login=name.lower(),
            name=name,
            reason="somebody calls for help",
            case="",
            stills=not offer,
            offer=offer,
        )
        self._login = name.lower()

    def look(self) -> View:
        found = self._desk.look(self._id, self._login)
        assert found is not None
        return found

    def until(self, what: Callable[[View], object], why: str) -> View:
        by = time.monotonic() + WAIT_S_MAX
        while not what(view := self.look()):
            assert time.monotonic() < by and not view.over, f"it did not come to {why}: {view}"
            time.sleep(0.1)
        return view

    def more(self) -> None:
        assert self._desk.more(self._id, self._login)


def records_of(post: Post) -> list[dict[str, Any]]:
    return [line.body for line in said(on_card(post)) if line.kind == "viewed"]


def threads_of(post: Post) -> list[str]:
    assert post._process is not None
    tasks = Path(f"/proc/{post._process.pid}/task")
    return [(task / "comm").read_text().strip() for task in tasks.iterdir()]


def loads_aiortc(post: Post) -> bool:
    assert post._process is not None
    return "pylibsrtp" in Path(f"/proc/{post._process.pid}/maps").read_text()


def recorded(post: Post) -> set[str]:
    """Of every picture on the card."""
    found = set()
    for path in sorted((post.data / "segments").glob("*.mp4")):
        with av.open(str(path)) as film:
            found |= {luma_sha256(frame) for frame in film.decode(video=0)}
    return found


def test_what_is_recorded_is_seen_as_it_happens_and_it_ends_by_itself(post: Post, settings: StationSettings) -> None:
    post.start()
    post.wait_for(recording)
    assert not loads_aiortc(post), "nobody watches: it costs nothing"
    before = len(threads_of(post))
    with station(settings) as hq, viewer() as lan:
        until(lambda: hq.worker.broker is not None, "a station on its broker")
        page = Page(hq.live, offer=lan.offer)
        lan.answer(page.until(lambda view: view.sdp, "an answer").sdp)
        until(lambda: len(lan.pictures) >= 30, "pictures")
        assert loads_aiortc(post)
        assert post.status()["watching"] == ["Lan"] and post.status()["post"] == "watched"
        assert page.look().watching == ("Lan",)

        # Privacy ends it at once, and nobody is let in meanwhile: on a busy machine that takes a while to be asked.
        send(hq, "privacy", {"seconds": 120})
        over = page.until(lambda view: view.over, "its end")
        assert over.over == "the privacy switch is on"
        seen = len(lan.pictures)
        refused = Page(hq.live, name="Minh", offer=lan.offer).until(lambda view: view.over, "a refusal")
        assert "privacy switch" in refused.over
        post.wait_for(lambda status: not status["watching"])
        until(lambda: len(threads_of(post)) == before, "a node without the threads of it")
        assert len(lan.pictures) <= seen + 1, "one is in the decoder"
    assert all(earlier < later for earlier, later in zip(lan.times, lan.times[1:], strict=False)), "they advance"
    assert post.end(signal.SIGTERM) == 0
    assert set(lan.pictures) <= recorded(post), "each picture is one of the recording, to the last bit"
    began, ended = records_of(post)
    assert (began["what"], began["by"], began["reason"]) == ("began", "Lan", "somebody calls for help")
    assert (ended["what"], ended["how"]) == ("ended", "the privacy switch is on") and ended["pictures"] >= 30


@pytest.mark.system
def test_a_viewer_who_dies_frees_his_place_and_a_view_ends_by_its_time(post: Post, settings: StationSettings) -> None:
    config = post.config.read_text(encoding="utf-8")
    post.config.write_text(config.replace("[live]", "[live]\nviewers_max = 1\ns_max = 15.0"), encoding="utf-8")
    post.start()
    post.wait_for(recording)
    with station(settings) as hq:
        until(lambda: hq.worker.broker is not None, "a station on its broker")
        with viewer() as lan:
            page = Page(hq.live, offer=lan.offer)
            lan.answer(page.until(lambda view: view.sdp, "an answer").sdp)
            until(lambda: len(lan.pictures) >= 5, "pictures")
            full = Page(hq.live, name="Minh", offer=lan.offer).until(lambda view: view.over, "a refusal")
            assert full.over == "live: 1 watch already, and more may not: Lan"
            page.more()
        # SIGKILL: no goodbye. It is noticed long before the time of the view is over, which would be said instead.
        assert page.until(lambda view: view.over, "its end").over == "the viewer has gone"

        # Stills, for a network that is too thin; they end by their time.
        stills = Page(hq.live, name="Minh")
        first = stills.until(lambda view: view.still, "a still")
        later = stills.until(lambda view: view.still > first.still, "the next still")
        assert first.jpeg.startswith(b"\xff\xd8") and later.jpeg != first.jpeg and first.period_s == 1.0
        assert stills.until(lambda view: view.over, "its end").over == "its time was over"
    assert post.end(signal.SIGTERM) == 0
    ends = [one["how"] for one in records_of(post) if one["what"] == "ended"]
    assert ends == ["the viewer has gone", "its time was over"]


def send(hq: Station, verb: str, args: dict[str, Any]) -> None:
    """Another command, by the same key."""
    from agent.clock import rfc3339
    from agent.station.signing import command_key, signed

    expires = rfc3339(SystemClock().utc().utc_ns + 30_000_000_000)
    made = signed(
        command_key(hq.live._key),
        site="ward",
        node="cam-7",
        verb=verb,
        args=args,
        command_id=uuid7_maker(SystemClock())(),
        expires=expires,
    )
    hq.transport.publish(wire.Topics("ward", "cam-7").command(verb), wire.encode(made), qos=1)
