"""The demo as a newcomer runs it: as a process, on real footage, with a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.assets import Assets
from agent.demo.evidence import decoded

ROOT = Path(__file__).resolve().parents[2]
DEMO_S_MAX = 400.0  # a busy machine; on a quiet one it takes 75 s, by its own waits


def _demo(assets: Assets, out: Path, *more: str) -> subprocess.Popen[str]:
    for fetch in (assets.model, assets.labels, assets.footage):
        fetch()
    return subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "demo", "--out", str(out), *more],
        cwd=ROOT,
        env=os.environ | {"WARDPOST_CACHE": str(assets.cache), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _processes_with(word: str) -> list[str]:
    """Command lines of living processes that name `word`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue  # it has just ended
            if word in command:
                found.append(command)
    return found


def _read_until(demo: subprocess.Popen[str], word: str) -> str:
    assert demo.stdout is not None
    text = ""
    for line in demo.stdout:
        text += line
        if word in line:
            return text
    raise AssertionError(f"the demo ended before it said {word!r}:\n{text}")


@pytest.mark.timeout(900)
def test_ctrl_c_ends_the_demo_in_order_and_leaves_no_process(assets: Assets, tmp_path: Path) -> None:
    out = tmp_path / "demo-out"
    demo = _demo(assets, out)
    _read_until(demo, "1. The post watches")
    assert len(_processes_with(str(out))) >= 4, "demo, broker, station and node"
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=DEMO_S_MAX)
    assert demo.returncode == 130
    assert "Interrupted" in rest
    assert "Traceback" not in rest
    assert _processes_with(str(out)) == []
    log = (out / "logs" / "node.log").read_text()
    assert "all workers stopped" in log, "the node was stopped, not killed"


@pytest.mark.system
@pytest.mark.timeout(900)
def test_a_demo_that_is_killed_leaves_no_process_either(assets: Assets, tmp_path: Path) -> None:
    out = tmp_path / "demo-out"
    demo = _demo(assets, out)
    _read_until(demo, "1. The post watches")
    demo.kill()
    demo.communicate(timeout=DEMO_S_MAX)
    for _ in range(600):
        if not _processes_with(str(out)):
            break
        threading.Event().wait(0.1)
    assert _processes_with(str(out)) == []


@pytest.mark.system
@pytest.mark.timeout(900)
def test_the_whole_demo_keeps_every_promise(assets: Assets, tmp_path: Path) -> None:
    out = tmp_path / "demo-out"
    demo = _demo(assets, out)
    text, _ = demo.communicate(timeout=DEMO_S_MAX)
    assert demo.returncode == 0, text
    for words in ("ALERT at the wall", "[DELIVERED LATE]", "agent was killed", "lost = 0, duplicates = 0"):
        assert words in text
    assert max(len(line) for line in text.splitlines() if str(out) not in line) <= 80
    assert "\x1b" not in text
    summary = json.loads((out / "summary.json").read_text())
    assert all(summary["checks"].values())
    assert summary["lost"] == summary["duplicates"] == 0
    assert 45 <= summary["seconds"] <= DEMO_S_MAX
    assert decoded(out / "recording.mp4")[1] > 30
    assert (out / "detection.jpg").stat().st_size > 10_000
    assert _processes_with(str(out)) == []


@pytest.mark.system
@pytest.mark.timeout(900)
def test_the_demo_runs_on_a_camera_of_the_users_own(assets: Assets, tmp_path: Path) -> None:
    out = tmp_path / "demo-out"
    demo = _demo(assets, out, "--camera", str(assets.footage()))
    text, _ = demo.communicate(timeout=DEMO_S_MAX)
    assert demo.returncode == 0, text
    assert "promises held" in text


@pytest.mark.system
@pytest.mark.timeout(900)
def test_a_camera_that_gives_nothing_is_named_in_one_line(assets: Assets, tmp_path: Path) -> None:
    (tmp_path / "not-a-film.mp4").write_text("not a film")
    demo = _demo(assets, tmp_path / "demo-out", "--camera", str(tmp_path / "not-a-film.mp4"))
    text, _ = demo.communicate(timeout=DEMO_S_MAX)
    assert demo.returncode not in (0, None)
    last = text.strip().splitlines()[-1]
    assert last.startswith("wardpost: the node")
    assert "Traceback" not in text
    assert _processes_with(str(tmp_path / "demo-out")) == []
