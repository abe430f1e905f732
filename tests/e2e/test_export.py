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

import av
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agent.clock import SystemClock, rfc3339
from agent.types import NS
from tests.e2e.post import Post, recording, wardpost


def export(post: Post, begin_ns: int, output: Path, *, apart: bool = False) -> subprocess.CompletedProcess[str]:
    """`apart`: as a program of its own. It may take so long to load that what is being written now is sealed by then."""
    now_ns = SystemClock().utc().utc_ns
    span = ("--from", rfc3339(begin_ns), "--to", rfc3339(now_ns))
    ask = post.ask if apart else post.ask_here
    return ask("export", *span, "-o", str(output), "--who", "Lt. Tran", "--reason", "case 12/2026")


def verified(package: Path, folder: Path) -> dict[str, Any]:
    """Both verifiers accept it; the second one is a program, taken from the package itself."""
    with zipfile.ZipFile(package) as files:
        (folder / "verify.py").write_bytes(files.read("verify.py"))
    alone = [sys.executable, "-I", str(folder / "verify.py"), str(package), "--json"]
    results = []
    for done in (wardpost("verify", str(package), "--json"), subprocess.run(alone, capture_output=True, text=True)):
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
    stopped = export(post, began_ns, tmp_path / "stopped.zip", apart=True)
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

    nothing = post.ask_here(
        "export", "--from", rfc3339(began_ns - 7200 * NS), "--to", rfc3339(began_ns - 3600 * NS), "-o", "x.zip"
    )
    assert (nothing.returncode, nothing.stderr) == (1, "")
    assert "before-install" in nothing.stdout and not Path("x.zip").exists()
    wrong = post.ask_here("export", "--from", "yesterday", "--to", "today", "-o", "x.zip")
    assert wrong.returncode == 78 and "export: --from: 'yesterday' is not a time" in wrong.stderr
    assert not list(tmp_path.glob(".*zip*"))


def test_a_node_that_seals_changes_its_key_while_it_runs_and_the_station_opens_the_package(
    post: Post, tmp_path: Path
) -> None:
    """Seal, rotate on a running node, rotate on a stopped one, export, open elsewhere: checked by both programs."""
    private = X25519PrivateKey.generate()
    (tmp_path / "seal.pub").write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "seal.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    told = post.config.read_text()
    post.config.write_text(told.replace("segment_s = 10", f'segment_s = 10\nseal_key = "{tmp_path / "seal.pub"}"'))
    began_ns = SystemClock().utc().utc_ns
    post.start()
    post.wait_for(lambda s: recording(s) and len(with_footage(post)) >= 2)  # the first is sealed, by the first key
    first = json.loads(post.ask_here("key", "show", "--json").stdout)["keys"]
    running = post.ask("key", "rotate", "--reason", "yearly")
    assert running.returncode == 0, running.stderr
    assert f"{first[0]['keyid']} has introduced " in running.stdout
    post.wait_for(lambda s: recording(s) and len(with_footage(post)) >= 3)  # the second is sealed
    sealed = export(post, began_ns, tmp_path / "sealed.zip")
    assert sealed.returncode == 0, sealed.stderr
    assert "sealed to the station: wardpost open" in sealed.stdout
    result = verified(tmp_path / "sealed.zip", tmp_path)
    assert len(result["node_keys"]) == 2 and result["locked"] == result["segments"]

    assert post.end(signal.SIGTERM) == 0
    stopped = post.ask_here("key", "rotate", "--json")
    assert stopped.returncode == 0, stopped.stderr
    keys = json.loads(post.ask_here("key", "show", "--json").stdout)["keys"]
    assert [key["in_force"] for key in keys] == [False, False, True]
    assert keys[2]["keyid"] == json.loads(stopped.stdout)["keyid"]
    assert export(post, began_ns, tmp_path / "again.zip").returncode == 0

    opening = (
        "open",
        str(tmp_path / "again.zip"),
        "--key",
        str(tmp_path / "seal.pem"),
        "-o",
        str(tmp_path / "open.zip"),
    )
    done = wardpost(*opening, "--who", "HQ")
    assert done.returncode == 0, done.stderr
    opened = verified(tmp_path / "open.zip", tmp_path)
    assert len(opened["node_keys"]) == 3 and opened["opened"] == opened["segments"]
    with zipfile.ZipFile(tmp_path / "open.zip") as files:
        (tmp_path / "clip.mp4").write_bytes(files.read("opened/clip.mp4"))
    with av.open(str(tmp_path / "clip.mp4"), "r") as clip:
        assert len(list(clip.decode(video=0))) > 50
    wrong = post.ask_here("key", "rotate", "--station")
    assert wrong.returncode == 78 and "--station goes with show" in wrong.stderr
