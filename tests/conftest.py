"""What every test may ask for."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
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


# A run that was started behind `&` or by a service inherits that Ctrl-C means nothing, and so would the programs that are
# started here and told to end by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Where the long stories are: the workers begin with them, so that none is left alone with one at the end.
LONG_FIRST = ("e2e", "sim", "faults", "contract")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of `make test`: folders of long tests first, within a folder as collected. It needs xdist's
    `--no-loadscope-reorder`: by itself xdist takes the file with most tests first and the day-long stories last."""
    rank = {folder: place for place, folder in enumerate(LONG_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(ROOT / "tests").parts[0], len(LONG_FIRST)))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Each worker of a whole parallel run compiles its share of the test files before it collects them all, and finds
    the others' shares compiled: else each would rewrite the assertions of every file anew, 15 s of work a worker."""
    told = getattr(session.config, "workerinput", None)
    if told is None or [Path(one).resolve() for one in session.config.args] != [ROOT / "tests"]:
        return
    sys.dont_write_bytecode = False
    for file in sorted((ROOT / "tests").glob("*/test_*.py"))[int(told["workerid"][2:]) :: told["workercount"]]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # told in full when it is collected
            importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))


@pytest.fixture(scope="session")
def assets() -> Assets:
    """The pinned model and the sample footage. Fetched once, checked at every use; a test that needs one and cannot
    have it fails with the line that says what to do: a skip would hide that nothing was tested."""
    return Assets(Path(os.environ.get("WARDPOST_CACHE") or ROOT / ".cache" / "assets"))


@pytest.fixture(params=databases.KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[databases.Database]:
    """The station's: once in a file of `tmp_path`, once on PostgreSQL where there is one for tests."""
    newest = request.node.get_closest_marker("empty_database") is None
    with databases.fresh(request.param, tmp_path, newest=newest) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def made_like_the_first() -> Iterator[None]:
    """Alembic makes a run's first station's database, and the others are made like it. A test that is about the making
    takes the function itself: `from agent.station.db.migrate import upgrade`."""
    with databases.made_like_the_first():
        yield


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
