"""The demo's parts: a cable that can be cut, processes that are never left behind, checks that catch a lie."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent import wire
from agent.assets import Assets
from agent.config import Config, load
from agent.demo import checks, picture, rig, story
from agent.demo.cable import Cable
from agent.demo.checks import judge
from agent.demo.evidence import Committed, Evidence, Received, Story
from agent.demo.film import FPS, LOOP_S, make_film
from agent.demo.outdir import own_folder
from agent.demo.programs import Program, free_port
from agent.demo.screen import Screen
from agent.demo.viewer import shortened
from agent.errors import ConfigError, Corrupt
from agent.recording.coverage import Stretch
from agent.station.main import StationSettings
from agent.types import NS, EndReason, Segment

BOOT = "b" * 32
EPOCH = "0190b5c0-0000-7000-8000-000000000000"

# -- the cable --------------------------------------------------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server on loopback that says back what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve_one(sock: socket.socket) -> None:
            with sock:
                try:
                    while data := sock.recv(65536):
                        sock.sendall(data)
                except OSError:
                    return

        def serve() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve_one, args=(sock,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cable(echo: tuple[str, int]) -> Iterator[Cable]:
    made = Cable(echo, port=free_port())  # no outgoing connection takes it while it is cut
    made.restore()
    yield made
    made.cut()


def _said_back(sock: socket.socket, data: bytes) -> bytes:
    threading.Thread(target=sock.sendall, args=(data,), daemon=True).start()
    got = b""
    while len(got) < len(data):
        part = sock.recv(65536)
        if not part:
            break
        got += part
    return got


def test_the_cable_carries_every_byte_both_ways(cable: Cable) -> None:
    data = os.urandom(3_000_000)
    with socket.create_connection(("127.0.0.1", cable.port), 5) as sock:
        assert _said_back(sock, data) == data
    assert cable.carried_bytes >= len(data)


def test_a_cut_resets_what_is_connected_and_refuses_what_comes_until_it_is_mended(cable: Cable) -> None:
    port = cable.port
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        assert _said_back(sock, b"hello") == b"hello"
        cable.cut()
        with pytest.raises(ConnectionResetError):
            sock.recv(10)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    cable.cut()  # twice is once
    cable.restore()
    assert cable.port == port
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        assert _said_back(sock, b"again") == b"again"


def test_when_one_side_hangs_up_the_other_is_told(cable: Cable) -> None:
    with socket.create_connection(("127.0.0.1", cable.port), 5) as sock:
        assert _said_back(sock, b"last words") == b"last words"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(10) == b""


def test_the_demos_ports_are_none_that_an_outgoing_connection_may_take_while_the_network_is_cut() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = [free_port() for _ in range(100)]
    assert not [port for port in ports if first <= port <= last]
    chosen = Cable(("127.0.0.1", ports[0]), port=ports[1])
    chosen.restore()
    chosen.cut()
    chosen.restore()
    chosen.cut()
    assert chosen.port == ports[1]


def test_a_broker_that_is_not_there_is_not_hidden_by_the_cable(echo: tuple[str, int]) -> None:
    nobody = free_port()
    cable = Cable(("127.0.0.1", nobody))
    cable.restore()
    try:
        with socket.create_connection(("127.0.0.1", cable.port), 5) as sock:
            assert sock.recv(10) == b""
    finally:
        cable.cut()


# -- processes --------------------------------------------------------------------------------------------------------


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_stops_when_asked_is_killed_when_deaf_and_keeps_one_log(tmp_path: Path) -> None:
    polite = Program(
        "polite", [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)"],
        log=tmp_path / "log", environment=os.environ,
    )  # fmt: skip
    for life in (1, 2):
        polite.start()
        while polite.said().count("up\n") < life:
            assert polite.running
        assert polite.stop() == -signal.SIGTERM
    assert polite.said() == "up\nup\n"
    polite.start()
    pid = polite.pid
    polite.kill()
    assert not _alive(pid)
    assert polite.exit_code == -signal.SIGKILL


def test_processes_of_a_demo_that_is_killed_die_with_it(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
from agent.demo.programs import Program, free_port
child = Program("child", [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"],
                log=Path({str(tmp_path / "log")!r}), environment=os.environ)
child.start()
while "up" not in child.said():
    pass
print(child.pid, flush=True)
import time; time.sleep(600)
"""
    demo = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    child = int(demo.stdout.readline())
    assert _alive(child)
    demo.kill()
    demo.wait()
    demo.stdout.close()
    for _ in range(6_000):
        if not _alive(child):
            break
        threading.Event().wait(0.01)
    assert not _alive(child)


# -- the folder -------------------------------------------------------------------------------------------------------


def test_the_output_folder_is_emptied_only_when_a_demo_made_it(tmp_path: Path) -> None:
    out = tmp_path / "demo-out"
    with own_folder(out) as folder:
        (folder / "node").mkdir()
        (folder / "node" / "old").write_text("old")
        (folder / "link").symlink_to(tmp_path)
    with own_folder(out) as folder:
        assert [entry.name for entry in folder.iterdir()] == [".wardpost-demo"]
        with pytest.raises(ConfigError, match="another demo runs"), own_folder(out):
            pass
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "wedding.jpg").write_text("precious")
    with pytest.raises(ConfigError, match="something else"), own_folder(precious):
        pass
    assert (precious / "wedding.jpg").read_text() == "precious"
    with pytest.raises(ConfigError, match=r"cannot be used|something else"), own_folder(precious / "wedding.jpg"):
        pass


def test_a_camera_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or device"):
        story.tell(str(tmp_path / "film.mp4"), tmp_path / "out")
    with pytest.raises(ConfigError, match="no such file or device"):
        story.tell(str(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_settings_that_the_demo_writes_are_settings_that_node_and_station_take(tmp_path: Path) -> None:
    odd = tmp_path / 'a "quoted" \\ folder\tđồn'
    for name, text in (
        ("station.toml", rig.station_settings(odd, 1883)),
        ("node.toml", rig.node_settings(odd, url='rtsp://u:p@[::1]/a?b="c"', loop=False, place='the "gate"',
                                        model=odd / "m", labels=odd / "l", port=1884)),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    node = load(tmp_path / "node.toml", Config)
    assert (node.node.data, node.camera.url, node.node.place) == (str(odd), 'rtsp://u:p@[::1]/a?b="c"', 'the "gate"')
    assert node.uplink.brokers == ("mqtt://127.0.0.1:1884",)
    assert load(tmp_path / "station.toml", StationSettings).station.data == str(odd)


# -- film and screen --------------------------------------------------------------------------------------------------


def test_the_film_stands_still_until_the_man_walks_by(assets: Assets, tmp_path: Path) -> None:
    import av
    import numpy as np

    make_film(assets.footage(), tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as clip:
        keys = [packet.is_keyframe for packet in clip.demux(video=0) if packet.size]
        clip.seek(0)
        frames = [frame.to_ndarray(format="gray").astype(int) for frame in clip.decode(video=0)]
    assert len(frames) == len(keys) == round(LOOP_S * FPS)
    assert [index for index, key in enumerate(keys) if key] == list(range(0, len(keys), FPS))
    moving = [float((np.abs(frames[i + 5] - frames[i]) > 25).mean()) for i in range(0, len(frames) - 5, 5)]
    quiet_before, visit, quiet_after = moving[:12], moving[13:22], moving[25:]
    assert max(quiet_before + quiet_after) < 0.001, "the scene must stand still"
    assert min(visit) > 0.02, "the visit must move"
    assert float((np.abs(frames[-1] - frames[0]) > 25).mean()) < 0.001, "the loop must close without a jump"


def test_footage_that_is_not_the_sample_footage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.mp4").write_bytes(b"not a film")
    with pytest.raises(Corrupt, match=r"short\.mp4"):
        make_film(tmp_path / "short.mp4", tmp_path / "film.mp4")


def test_a_pipe_gets_plain_lines_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    screen = Screen(out, terminal=False, colour=False)
    screen.heading("Heading")
    screen.say("word " * 100)
    screen.event("something has arrived " * 20, "alert")
    screen.progress(1, 2, "busy")
    screen.result(True, "promise", "detail " * 30)
    screen.result(False, "promise", "detail")
    text = out.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "busy" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert " FAIL  promise" in text


def test_on_a_terminal_the_moving_line_makes_room_for_what_arrives() -> None:
    out = io.StringIO()
    screen = Screen(out, terminal=True, colour=True)
    screen.progress(5, 10, "busy " * 50)
    screen.event("arrived")
    shown = [line.rsplit("\x1b[K", 1)[-1] for line in out.getvalue().split("\n")]
    assert shown[0] == "  > arrived"
    assert all(len(part) <= 90 for part in out.getvalue().split("\r"))


def test_times_are_shortened_only_where_nothing_is_lost() -> None:
    assert shortened("21.11.2026 14:02:11 (clock not verified)  ALERT at x") == "14:02:11  ALERT at x"
    assert shortened("21.11.2026 14:02:11 ±3 s  ALERT at x") == "14:02:11 ±3 s  ALERT at x"
    assert shortened("yesterday  ALERT at 01.01.2026 x") == "yesterday  ALERT at 01.01.2026 x"


# -- the checks: each one fails when its promise is broken --------------------------------------------------------------


def _event(n: int, kind: str, incident: str, phase: str, at_s: float, **more: object) -> wire.CloudEvent:
    event = wire.CloudEvent(
        id=f"0190b5c0-0000-7000-8000-{n:012d}",
        source="wardpost/demo/gate-1",
        type=f"wardpost.{kind}",
        subject=_id(incident),
        time="2026-11-21T14:00:00.000Z",
        epoch=EPOCH,
        sequence=n,
        session=1,
        bootid=BOOT,
        monons=round(at_s * NS),
        timeerrms=None,
        data=wire.EventData(
            incident=_id(incident),
            phase=phase,  # type: ignore[arg-type]
            severity="alert" if kind == "person" else "notice",
            summary="somebody",
            label="person" if kind == "person" else None,
            score=0.5 if kind == "person" else None,
            box=[0.1, 0.1, 0.2, 0.5] if kind == "person" else None,
        ),
    )
    return _replaced(event, more)


def _replaced(event: wire.CloudEvent, more: dict[str, object]) -> wire.CloudEvent:
    changed: wire.CloudEvent = msgspec.structs.replace(event, **more)
    return changed


def _id(name: str) -> str:
    return f"0190b5c0-0000-7000-9000-{sum(name.encode()):012d}"


def _segment(name: str, start_s: float, end_s: float, reason: EndReason) -> Segment:
    return Segment(name, 1, BOOT, round(start_s * NS), round(end_s * NS), 1000, 10, "aa" * 32, reason, 640, 272)


def _good(tmp_path: Path) -> Evidence:
    """A run in which everything held: watched from 0 s, cut from 20 to 40, killed at 45, started again, stopped at 60."""
    happened = [
        ("node", "boot", "ended", 0.5), ("person", "one", "started", 5), ("person", "one", "ended", 7),
        ("person", "two", "started", 22), ("person", "two", "ended", 24),
        ("person", "three", "started", 52), ("person", "three", "ended", 54),
    ]  # fmt: skip
    events = [_event(n, *each, historical=20 < each[3] < 40) for n, each in enumerate(happened, 1)]
    picture_file = tmp_path / "detection.jpg"
    picture_file.write_bytes(b"jpeg")
    segments = [
        _segment("a", 0, 10, EndReason.ROLLED), _segment("b", 10, 41, EndReason.ROLLED),
        _segment("c", 41, 44.2, EndReason.KILLED), _segment("d", 50, 60, EndReason.STOPPED),
    ]  # fmt: skip
    return Evidence(
        story=Story(0, 20 * NS, 40 * NS, 45 * NS, 60 * NS, [event.id for event in events]),
        committed=[
            Committed(e.sequence, e.id, e.data.incident, e.type.removeprefix("wardpost."), e.data.phase, 1, e.monons)
            for e in events
        ],
        undelivered=0,
        given_up=0,
        received=[Received(e, max(e.monons, 40 * NS) if e.historical else e.monons + NS // 5) for e in events],
        refused=0,
        segments=segments,
        sha256={segment.name: "aa" * 32 for segment in segments},
        coverage=[
            Stretch(0, round(44.2 * NS), "recorded", "", None),
            Stretch(round(44.2 * NS), 50 * NS, "agent-stopped", "the agent was killed", None),
            Stretch(50 * NS, 60 * NS, "recorded", "", None),
        ],
        clip_frames=1355,
        clip_s=54.1,
        picture=picture_file,
    )


def test_a_run_in_which_everything_held_passes(tmp_path: Path) -> None:
    verdicts = judge(_good(tmp_path), sample=True)
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    assert len(verdicts) == 13 - 1
    assert checks.lost_footage_s(_good(tmp_path)) == pytest.approx(0.8)


def _without_last_received(good: Evidence) -> Evidence:
    return dataclasses.replace(good, received=good.received[:-1])


def _late_unmarked(good: Evidence) -> Evidence:
    return dataclasses.replace(
        good, received=[Received(_replaced(r.event, {"historical": False}), r.at_ns) for r in good.received]
    )


def _prompt_marked(good: Evidence) -> Evidence:
    first = good.received[0]
    marked = Received(_replaced(first.event, {"historical": True}), first.at_ns)
    return dataclasses.replace(good, received=[marked, *good.received[1:]])


def _replace_segment(good: Evidence, index: int, **change: object) -> Evidence:
    segments = list(good.segments)
    segments[index] = dataclasses.replace(segments[index], **change)  # type: ignore[arg-type]
    return dataclasses.replace(good, segments=segments)


def _told_twice(good: Evidence) -> Evidence:
    again = Received(_replaced(good.received[1].event, {"id": _id("other"), "sequence": 99}), 6 * NS)
    return dataclasses.replace(good, received=[*good.received, again])


PLANTED = {
    "an event never reached the station": (_without_last_received, "no event was lost"),
    "an event is still in the outbox": (lambda g: dataclasses.replace(g, undelivered=1), "no event was lost"),
    "an event was given up": (lambda g: dataclasses.replace(g, given_up=2), "no event was lost"),
    "nothing ever happened": (lambda g: dataclasses.replace(g, committed=[], received=[]), "no event was lost"),
    "a person saw an event twice": (
        lambda g: dataclasses.replace(g, story=dataclasses.replace(g.story, shown=[*g.story.shown, g.story.shown[0]])),
        "each event arrived once",
    ),
    "a visit started twice under two ids": (_told_twice, "each event arrived once"),
    "the station refused a message": (lambda g: dataclasses.replace(g, refused=1), "each event arrived once"),
    "a visit never ended": (_without_last_received, "every incident has an end"),
    "the backlog looks like news": (_late_unmarked, "the backlog is marked as late"),
    "news looks like backlog": (_prompt_marked, "the backlog is marked as late"),
    "nothing was recorded without network": (
        lambda g: _replace_segment(g, 1, end_ns=21 * NS), "recording went on without the network"),
    "recording began late in the cut": (
        lambda g: _replace_segment(g, 1, start_ns=23 * NS), "recording went on without the network"),
    "the kill cost three seconds": (
        lambda g: _replace_segment(g, 2, end_ns=42 * NS), "kill -9 cost a fragment at most"),
    "nothing was repaired": (
        lambda g: _replace_segment(g, 2, end_reason=EndReason.ROLLED), "the torn recording was repaired"),
    "what was repaired has another hash": (
        lambda g: dataclasses.replace(g, sha256=dict(g.sha256, c="bb" * 32)), "the torn recording was repaired"),
    "a recording was altered": (
        lambda g: dataclasses.replace(g, sha256=dict(g.sha256, a="bb" * 32)), "every recording has the hash on record"),
    "a recording is gone": (
        lambda g: dataclasses.replace(g, sha256=dict(g.sha256, d="")), "every recording has the hash on record"),
    "a gap has no cause": (
        lambda g: dataclasses.replace(g, coverage=[
            *g.coverage[:1], dataclasses.replace(g.coverage[1], what="unknown"), *g.coverage[2:]]),
        "every second is explained"),
    "a stretch is not accounted for": (
        lambda g: dataclasses.replace(g, coverage=g.coverage[:2]), "every second is explained"),
    "the clip is cut short": (lambda g: dataclasses.replace(g, clip_s=40.0), "the footage plays"),
    "the clip cannot be decoded": (lambda g: dataclasses.replace(g, clip_frames=0), "the footage plays"),
    "nobody was seen": (
        lambda g: dataclasses.replace(g, received=[r for r in g.received if r.event.type != "wardpost.person"]),
        "the man who walks by was seen"),
    "no picture was drawn": (lambda g: dataclasses.replace(g, picture=None), "a detection was drawn"),
    "something could not be looked at": (
        lambda g: dataclasses.replace(g, trouble=["clip: no such file"]), "evidence is complete"),
}  # fmt: skip


@pytest.mark.parametrize("defect", PLANTED)
def test_a_broken_promise_is_caught(defect: str, tmp_path: Path) -> None:
    plant, promise = PLANTED[defect]
    failed = [verdict.name for verdict in judge(plant(_good(tmp_path)), sample=True) if not verdict.passed]
    assert promise in failed


def test_of_a_strange_camera_no_visitors_are_demanded(tmp_path: Path) -> None:
    good = _good(tmp_path)
    nobody = [r for r in good.received if r.event.type == "wardpost.node"]
    strange = dataclasses.replace(
        good,
        committed=good.committed[:1],
        received=nobody,
        picture=None,
        story=dataclasses.replace(good.story, shown=good.story.shown[:1]),
    )
    assert [verdict for verdict in judge(strange, sample=False) if not verdict.passed] == []


def test_the_picture_shows_the_surest_person_while_there_and_of_this_boot() -> None:
    def scored(n: int, phase: str, score: float, **more: object) -> wire.CloudEvent:
        event = _event(n, "person", "x", phase, n)
        return _replaced(event, {"data": msgspec.structs.replace(event.data, score=score), **more})

    weak, sure = scored(1, "started", 0.5), scored(2, "started", 0.6)
    gone, elsewhere = scored(3, "ended", 0.9), scored(4, "started", 0.95, bootid="c" * 32)
    assert picture.best([weak, sure, gone, elsewhere, _event(5, "node", "b", "ended", 5)], BOOT) is sure
    assert picture.best([gone], BOOT) is None
