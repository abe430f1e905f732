"""What a newcomer types first: it works, or says in one line why not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what `make setup` looks at, and nothing more."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def _make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PYTHON"))} | environment
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )


def _program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    return path


def test_make_alone_lists_what_there_is(checkout: Path) -> None:
    done = _make(checkout)
    assert done.returncode == 0
    for verb in ("setup", "demo", "test", "test-system", "lint", "bench", "clean", "help"):
        assert f"make {verb} " in done.stdout


def test_an_old_python_is_refused_with_what_to_install(checkout: Path, tmp_path: Path) -> None:
    old = _program(tmp_path / "old", "python", "[ $1 = -c ] && exit 1; echo 'Python 3.9.2'")
    done = _make(checkout, "setup", PYTHON=str(old))
    assert done.returncode != 0
    assert "no Python 3.11 or newer" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_is_refused_with_what_to_install(checkout: Path, tmp_path: Path) -> None:
    script = 'case "$2" in *ensurepip*) exit 1;; *python3*) echo python3.11-venv;; esac; exit 0'
    bare = _program(tmp_path / "bare", "python", script)
    done = _make(checkout, "setup", PYTHON=str(bare))
    assert done.returncode != 0
    assert "python3.11-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_the_camera_is_handed_over_whole(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".ready").touch()
    _program(checkout, ".venv/bin/python", "exit 0")
    _program(checkout, ".venv/bin/wardpost", 'printf "<%s>" "$@"')
    url = "rtsp://user:pass@192.0.2.7/a b?c=d&e=f"
    done = _make(checkout, "demo", f"CAMERA={url}")
    assert done.stdout == f"<demo><--camera><{url}>"
    assert _make(checkout, "demo").stdout == "<demo>"


def test_a_failed_demo_or_test_fails_make(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".ready").touch()
    _program(checkout, ".venv/bin/python", '[ "$2" = pytest ] && exit 1; exit 0')
    _program(checkout, ".venv/bin/wardpost", "exit 3")
    for verb in ("demo", "test"):
        assert _make(checkout, verb).returncode != 0


def test_clean_removes_what_was_made_and_keeps_what_was_fetched(checkout: Path) -> None:
    for made in (".venv/bin", "demo-out", "agent/__pycache__", "tests/unit/__pycache__", "wardpost.egg-info"):
        (checkout / made).mkdir(parents=True)
    kept = checkout / ".cache" / "assets" / "ssd.tflite"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"model")
    assert _make(checkout, "clean").returncode == 0
    assert kept.is_file()
    left = {p.name for p in checkout.iterdir()}
    assert left == {"Makefile", "requirements.lock", "pyproject.toml", ".cache", "agent", "tests"}


def test_the_ci_script_is_bash_that_parses_and_stops_at_the_first_failure(tmp_path: Path) -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    copy = tmp_path / ".ci" / "run"
    copy.parent.mkdir()
    shutil.copy(script, copy)
    (tmp_path / "Makefile").write_text(
        "setup:\n\t@true\nlint:\n\t@echo linted\ntest:\n\t@false\ntest-system:\n\t@echo system\n"
    )
    done = subprocess.run(["bash", str(copy)], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "linted" in done.stdout
    assert "make test failed" in done.stderr
    assert "system" not in done.stdout


@pytest.mark.parametrize(("failures", "well"), [(0, True), (2, True), (3, False)])
def test_what_needs_the_network_is_tried_three_times(checkout: Path, failures: int, well: bool) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".ready").touch()
    _program(checkout, ".venv/bin/python", f"echo x >>tries; [ $(wc -l <tries) -gt {failures} ]")
    _program(checkout, "bin/sleep", 'echo "$1" >>sleeps')
    done = _make(checkout, "assets", PATH=f"{checkout}/bin:{os.environ['PATH']}")
    assert (done.returncode == 0) is well
    assert len((checkout / "tries").read_text().splitlines()) == min(failures + 1, 3)
    assert done.stderr.count("once more in") == min(failures, 2)
