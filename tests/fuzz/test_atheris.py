"""Minutes of fuzzing guided by coverage, each target in a process with bounded memory. WARDPOST_FUZZ_S: seconds each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.fetching import fetched

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
SECONDS = int(os.environ.get("WARDPOST_FUZZ_S") or 10)
NAMES = ["segment", "recover", "store", "ledger", "receipts", "line", "package", "settings", "wire", "command"]
# libFuzzer bounds ru_maxrss, which a program inherits from the process that executes it: from a pytest that has once
# been large it would start beyond the bound. A shell in between is small, and stays to be the parent.
SMALL = ["sh", "-c", '"$@"; exit $?', "sh"]


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has atheris and sees this environment's packages; the node does not depend on it."""
    folder = tmp_path_factory.mktemp("atheris")
    more = folder / "more"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--only-binary", ":all:"]
    try:
        command = [*pip, "--upgrade", "--target", str(more), "atheris"]
        fetched(
            lambda: subprocess.run(command, check=True, capture_output=True, text=True), subprocess.CalledProcessError
        )
    except subprocess.CalledProcessError as error:
        pytest.skip(f"atheris cannot be installed here: {error.stderr.strip().splitlines()[-1:]}")
    return more


@pytest.mark.parametrize("name", NAMES)
def test_coverage_finds_no_way_in(python: Path, tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [*SMALL, sys.executable, "-m", "tests.fuzz.atheris_main", name, str(SECONDS), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{python}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=SECONDS * 3 + 240,
        errors="replace",
    )
    runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1500:]
    assert runs is not None
    assert int(runs[1]) > 20, done.stderr[-1500:]
    print(f"{name}: {runs[1]} inputs in {SECONDS} s")
