"""An evidence package from a node that runs, from one that has stopped, and from one that was killed; checked by both
verifiers as programs, with the keys that the station has pinned."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from agent.clock import SystemClock, rfc3339
from agent.types import NS
from tests.e2e.post import Post, recording


def export(post: Post, begin_ns: int, output: Path) -> subprocess.CompletedProcess[str]:
    now_ns = SystemClock().utc().utc_ns
    span = ("--from", rfc3339(begin_ns), "--to", rfc3339(now_ns))
    return post.ask("export", *span, "-o", str(output), "--who", "Lt. Tran", "--reason", "case 12/2026")


def verified(package: Path, folder: Path) -> dict[str, Any]:
    """Both programs accept it; the second one is taken from the package itself."""
    with zipfile.ZipFile(package) as files:
        (folder / "verify.py").write_bytes(files.read("verify.py"))
    results = []
    for program in ([sys.executable, "-m", "agent.cli", "verify"], [sys.executable, "-I", str(folder / "verify.py")]):
        done = subprocess.run([*program, str(package), "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        results.append(json.loads(done.stdout))
    assert results[0] == results[1]
    result: dict[str, Any] = results[0]
    return result


def with_footage(post: Post) -> list[Path]:
    """Files that hold more than their head."""
    return [path for path in (post.data / "segments").glob("*.mp4") if path.stat().st_size > 50_000]


def extractions(package: Path) -> bytes:
    with zipfile.ZipFile(package) as files:
        return files.read("extraction.jsonl")


def test_export_from_a_running_a_stopped_and_a_killed_node(post: Post, tmp_path: Path) -> None:
    began_ns = SystemClock().utc().utc_ns
    post.start()
    post.wait_for(lambda s: recording(s) and len(with_footage(post)) >= 2)

    running = export(post, began_ns, tmp_path / "running.zip")
    assert running.returncode == 0, running.stderr
    assert "not on the ledger" not in running.stdout and "not signed" not in running.stdout
    result = verified(tmp_path / "running.zip", tmp_path)
    assert result["node"] == "ward/cam-7" and result["segments"] >= 2
    assert any("was being written" in note for note in result["notes"])
    assert extractions(tmp_path / "running.zip")

    assert post.end(signal.SIGTERM) == 0
    stopped = export(post, began_ns, tmp_path / "stopped.zip")
    assert stopped.returncode == 0, stopped.stderr
    assert verified(tmp_path / "stopped.zip", tmp_path)["notes"] == [
        "no receipt of the station bounds the time from above: when, only the node's clock says"
    ]
    assert extractions(tmp_path / "stopped.zip")

    post.start()
    post.wait_for(recording)
    post.end(signal.SIGKILL)
    killed = export(post, began_ns, tmp_path / "killed.zip")
    assert killed.returncode == 0, killed.stderr
    again = verified(tmp_path / "killed.zip", tmp_path)
    assert again["node_keys"] == result["node_keys"]

    nothing = post.ask(
        "export", "--from", rfc3339(began_ns - 7200 * NS), "--to", rfc3339(began_ns - 3600 * NS), "-o", "x.zip"
    )
    assert (nothing.returncode, nothing.stderr) == (1, "")
    assert "before-install" in nothing.stdout and not Path("x.zip").exists()
    wrong = post.ask("export", "--from", "yesterday", "--to", "today", "-o", "x.zip")
    assert wrong.returncode == 78 and "export: --from: 'yesterday' is not a time" in wrong.stderr
    assert not list(tmp_path.glob(".*zip*"))
