"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from agent.assets import Assets
from tests.fakes import database as databases

ROOT = Path(__file__).resolve().parent.parent

# How long one example takes says how busy the machine is, not whether the property holds: by default hypothesis fails a
# test whose example takes 200 ms longer than it likes, or whose examples are drawn slowly.
hypothesis.settings.register_profile("wardpost", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("wardpost")


@pytest.fixture(scope="session")
def assets() -> Assets:
    """The pinned model and the sample footage. Fetched once, checked at every use; a test that needs one and cannot
    have it fails with the line that says what to do: a skip would hide that nothing was tested."""
    return Assets(Path(os.environ.get("WARDPOST_CACHE") or ROOT / ".cache" / "assets"))


@pytest.fixture(params=databases.KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[databases.Database]:
    """The station's: once in a file of `tmp_path`, once on PostgreSQL where there is one for tests."""
    with databases.fresh(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed for tests that draw by chance; WARDPOST_SEED repeats a run. It stands in the report of a failure."""
    value = int(os.environ.get("WARDPOST_SEED") or int.from_bytes(os.urandom(4), "big"))
    request.node.user_properties.append(("seed", value))
    print(f"seed {value}: repeat with WARDPOST_SEED={value}")
    return value


@pytest.fixture(autouse=True)
def _quiet_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg and TFLite write to the terminal what our own errors say better."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("OPENCV_LOG_LEVEL", "ERROR")
