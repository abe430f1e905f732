"""`make bench-station` measures what it says: its parts run at their smallest. No time is judged here."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.assets import Assets
from agent.station.intake import take_all
from agent.wire import Topics
from tests.bench.__main__ import run
from tests.bench.figure import TINY
from tests.bench.station.__main__ import STATION_BENCHES
from tests.bench.station.fill import SITE, events, fill, post

WHO = ("operator", "patrol", "school")
PAGES = ("board", "alert", "footage", "footage-day", "footage-8", "footage-8-day", "around", "posts")
KEYS = {
    "intake": {"intake-sqlite", "intake-cpu-sqlite"},
    "delivery": {"delivery-p50", "delivery-p95"},
    "backlog": {f"backlog-{what}-sqlite" for what in ("stored", "board", "rate", "cpu", "visit")},
    "pages": {f"{page}-{who}-sqlite" for page in PAGES for who in WHO}
    | {"start-sqlite", "rss-sqlite", "rss-visited-sqlite"},
    "first-second": {"first-second"},
}
ON_REQUEST = pytest.mark.skipif(
    "WARDPOST_BENCH_SMOKES" not in os.environ, reason="80 s of the two minutes: WARDPOST_BENCH_SMOKES=all runs them too"
)


@pytest.mark.system
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=ON_REQUEST) if name in ("pages", "first-second") else name for name in KEYS]
)
def test_each_bench_reports_its_figures(name: str, tmp_path: Path, assets: Assets) -> None:
    found, rows = run([name], folder=tmp_path, size=TINY, assets=assets, benches=STATION_BENCHES)
    part = found["benches"][name]
    assert "failed" not in part, part
    rows = [row for row in rows if not row.peer.startswith("skipped")]
    assert {row.key for row in rows if "postgresql" not in row.key} == KEYS[name]
    assert all(math.isfinite(row.ours) and row.ours > 0 for row in rows), rows


def test_every_bench_is_smoked_and_the_command_line_names_it() -> None:
    assert set(KEYS) == set(STATION_BENCHES)
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.station", "--help"], capture_output=True, text=True, check=True, timeout=120
    )
    assert all(name in done.stdout for name in STATION_BENCHES)


def test_what_the_store_is_filled_with_is_what_nodes_say(tmp_path: Path) -> None:
    """Messages that the station would not take in would be timed as pages without words."""
    said = list(events(400, now_utc_ns=1_795_348_000 * 10**9, seed=1))
    assert [one[0] for one in said] == list(range(1, 401))
    for _, stream, sequence, id_, kind, incident, _, body in said:
        [taken], refusal = take_all(Topics(SITE, post(stream - 1)).event(kind), body, site=SITE)
        assert refusal is None
        assert (taken.sequence, taken.id, taken.kind, taken.incident) == (sequence, id_, kind, incident)  # type: ignore[union-attr]
    assert said == list(events(400, now_utc_ns=1_795_348_000 * 10**9, seed=1)), "the same every time"
    filled = fill(tmp_path, events=400, now_utc_ns=1_795_348_000 * 10**9)
    assert (filled.events, filled.alerts) == (400, 20)
