"""A whole node as a process, on a real broker: killed, started again, asked while it runs, refused when it must be."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import av
import pytest

from agent.clock import SystemClock, rfc3339
from agent.types import NS, EndReason
from tests.e2e.brokers import RealBroker
from tests.e2e.post import Post, recording


def test_a_node_lives_dies_and_explains_itself(post: Post, tmp_path: Path) -> None:
    clock = SystemClock()
    began = clock.utc().utc_ns
    post.start()
    post.wait_for(recording)
    size = post.written()
    post.wait_for(lambda _: post.written() > size + 200_000)  # fragments reach the disk while it runs

    # Asked while it runs: the newest footage is there, although its segment is not sealed.
    clip = tmp_path / "clip.mp4"
    asked = post.ask(
        "footage", "--from", rfc3339(began), "--to", rfc3339(clock.utc().utc_ns), "-o", str(clip), "--json"
    )
    assert asked.returncode == 0, asked.stderr
    told = json.loads(asked.stdout)
    assert sum(s["seconds"] for s in told["coverage"] if s["what"] == "recorded") > 1
    with av.open(str(clip)) as film:
        assert sum(1 for _ in film.decode(video=0)) > 20

    # A second instance on the same folder: one line that names the first, and the first goes on.
    second = post.ask("run")
    assert second.returncode == 78
    (line,) = second.stderr.splitlines()
    assert str(post.data) in line
    assert "in use" in line or "works on" in line
    assert recording(post.status())

    # kill -9 in the middle of a fragment, and a start afterwards: nothing stands in the way, the tail is mended. Not in
    # the first half second of a file, in which there is no footage yet whose end could be told.
    post.wait_for(lambda _: post.newest_bytes() > 50_000)
    post.end(signal.SIGKILL)
    sequences = {sequence for (sequence,) in post.rows("select sequence from event")}
    assert sequences, "something had happened by then"
    killed_at = clock.utc().utc_ns
    post.start()
    post.wait_for(lambda s: recording(s) and s["session"] == 2)
    assert post.end(signal.SIGTERM) == 0

    ends = {reason for (reason,) in post.rows("select end_reason from segment")}
    assert ends >= {EndReason.KILLED.value, EndReason.STOPPED.value}
    assert sequences <= {s for (s,) in post.rows("select sequence from event")}, "committed is committed"
    ((stop,),) = post.rows("select stop from session where session = 2")
    assert stop == "stopped"
    unended = post.rows("select incident from event group by incident having sum(phase = 'ended') = 0")
    assert unended == [], "every incident that started has ended"

    # The whole life is accounted for, without a second nobody can explain.
    asked = post.ask_here(
        "footage", "--from", rfc3339(began), "--to", rfc3339(clock.utc().utc_ns), "-o", str(clip), "--json"
    )
    assert asked.returncode == 0, asked.stderr
    coverage = json.loads(asked.stdout)["coverage"]
    assert {s["what"] for s in coverage} <= {"recorded", "agent-stopped", "before-install"}
    assert coverage[0]["from"] == rfc3339(began)
    dead = rfc3339(killed_at + NS // 2)  # the last picture lasts up to one that never came
    lost = [s for s in coverage if s["what"] == "agent-stopped" and s["from"] <= dead < s["to"]]
    assert len(lost) >= 1, "the gap of the crash is named"


def test_without_a_broker_it_records_and_stops_cleanly(post: Post, broker: RealBroker) -> None:
    broker.kill()
    post.start()
    status = post.wait_for(lambda s: bool(s["recording"]["recording"] and s["post"] == "no network"))
    assert status["broker"] is None
    assert post.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("folder", ["missing", "read-only"])
def test_a_data_folder_that_cannot_be_used_is_one_line(post: Post, folder: str) -> None:
    if folder == "missing":
        post.data.rmdir()
    else:
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere; tests/system mounts a read-only file system")
        post.data.chmod(0o500)
    ran = post.ask("run")
    assert ran.returncode == 78
    (line,) = ran.stderr.splitlines()
    assert str(post.data) in line


def test_all_mistakes_of_a_configuration_are_named_at_once(post: Post) -> None:
    text = post.config.read_text().replace("loop = true", "lop = true").replace("segment_s = 10", 'segment_s = "x"')
    post.config.write_text(text)
    ran = post.ask("run")
    assert ran.returncode == 78
    assert "camera.lop: unknown key; did you mean camera.loop?" in ran.stderr
    assert "recording.segment_s" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_camera_that_is_not_there_is_told_and_does_not_end_the_node(post: Post) -> None:
    post.config.write_text(
        post.config.read_text()
        .replace("loop = true", "loop = true\nstall_s = 2")
        .replace('url = "', 'url = "rtsp://127.0.0.1:1/nothing"\n#')
    )
    post.start()
    status = post.wait_for(lambda s: s["camera"]["restarts"] >= 1 and s["queue"]["outboxrows"] >= 2)
    assert status["post"] in ("no camera", "fault")
    assert post.end(signal.SIGTERM) == 0
    kinds = {kind for (kind,) in post.rows("select kind from event")}
    assert "camera" in kinds
