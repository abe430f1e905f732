"""`make bench` measures what it says: a bench runs at its smallest and reports its figures. No time is judged here.

Those that start no node and are done in a second run each time; WARDPOST_BENCH_SMOKES=all runs the others too.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.assets import Assets
from tests.bench import BENCHES, footage, machine
from tests.bench.__main__ import run
from tests.bench.figure import TINY, Bench, Row, Skip, percentile, table
from tests.bench.programs import Program

KEYS = {
    "cpu": {"cpu-still-180p-decode", "cpu-still-180p-motion", "cpu-idle-sub"},
    "latency": {"alert-ms-p50", "alert-ms-p95"},
    "start": {"rss", "rss-anonymous", "start-first-frame", "start-first-fragment"},
    "drain": {"drain", "drain-alerts", "drain-sqlite", "drain-cpu"},
    "event-bytes": {"event-bytes-alone", "event-bytes-alone-size", "event-bytes-10", "event-bytes-10-size"},
    "endurance": {"write-amplification", "card-years", "ledger-hour", "recovery"},
    "fragments": {"fragment-cpu", "fragment-ms-p50", "fragment-ms-p95", "fragment-plain-ms-p50", "scan"},
    "verify": {"verify", "verify-alone"},
}
QUICK = ("event-bytes", "fragments")
ON_REQUEST = pytest.mark.skipif(
    "WARDPOST_BENCH_SMOKES" not in os.environ, reason="a minute of work: WARDPOST_BENCH_SMOKES=all runs them too"
)


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=ON_REQUEST) for name in KEYS])
def test_each_bench_reports_its_figures(name: str, tmp_path: Path, assets: Assets) -> None:
    found, rows = run([name], folder=tmp_path, size=TINY, assets=assets)
    part = found["benches"][name]
    if "skipped" in part:
        pytest.skip(part["skipped"])
    assert "failed" not in part, part
    no_motion = shutil.which("motion", path="/usr/sbin:/usr/bin") is None
    assert {row.key for row in rows} == KEYS[name] - ({"cpu-idle-sub"} if no_motion else set())
    assert all(math.isfinite(row.ours) and row.ours > 0 for row in rows)
    assert all(row.ratio is not None or row.peer.startswith("skipped") for row in rows), "a figure without a peer"
    assert json.loads(json.dumps(found)) == found, "the report must survive JSON"


def test_every_bench_is_smoked() -> None:
    assert set(KEYS) == set(BENCHES)


def test_a_bench_that_fails_is_on_record_and_the_next_one_runs(
    tmp_path: Path, assets: Assets, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(_bench: Bench) -> list[Row]:
        raise RuntimeError("the broker has ended")

    def cannot(_bench: Bench) -> list[Row]:
        raise Skip("no such disk")

    monkeypatch.setitem(BENCHES, "cpu", dies)
    monkeypatch.setitem(BENCHES, "start", cannot)
    monkeypatch.setitem(BENCHES, "drain", lambda _: [Row("x", "a figure", 2.0, "s", "its peer", 4.0)])
    found, rows = run(["cpu", "start", "drain"], folder=tmp_path, size=TINY, assets=assets)
    assert found["benches"]["cpu"]["failed"] == "RuntimeError: the broker has ended"
    assert found["benches"]["start"]["skipped"] == "no such disk"
    assert [row.ratio for row in rows] == [0.5]


def test_the_table_shows_figure_peer_ratio_and_target() -> None:
    text = table(
        [
            Row("a", "memory", 163.2, "MB", "bare libraries", 145.0, target="< 150 MB", met=False),
            Row("b", "drain", 12_345.6, "/s", "skipped: no broker"),
        ]
    )
    header, _, memory, drain = text.splitlines()
    assert [column.strip() for column in header.split("  ") if column] == [
        "figure", "ours", "peer or limit, in this run", "ratio", "target",
    ]  # fmt: skip
    assert "163 MB" in memory and "145 MB, bare libraries" in memory and "1.13" in memory and "MISSED" in memory
    assert "12,346 /s" in drain and "skipped: no broker" in drain


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(1, 101)), 0.95) == 95
    assert percentile([7], 0.95) == 7
    assert math.isnan(percentile([], 0.5))


def test_the_same_footage_every_time(tmp_path: Path, assets: Assets) -> None:
    """Two runs on two days and two machines must compare the same pictures: a file holds neither the time of its making
    nor how many cores encoded it."""
    first, second = (
        footage.make(assets.footage(), tmp_path / name, name="visits", height=180, seconds=1)
        for name in _made(tmp_path)
    )
    data = first.path.read_bytes()
    assert data == second.path.read_bytes()
    assert (first.width, first.height) == (320, 180)
    assert b" threads=1 " in data and b" sliced_threads=0 " in data, "x264 writes into the film how it has made it"
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        at = data.index(box) + 8  # behind the name, version and flags: created and changed, 32 bits each
        assert data[at : at + 8] == bytes(8)


def test_a_programs_children_count_and_its_death_is_told(tmp_path: Path) -> None:
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    parent = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint('now', flush=True)\ntime.sleep(60)"
    with Program([sys.executable, "-c", parent], log=tmp_path / "log") as program:
        while "now" not in (tmp_path / "log").read_text():
            program.need_alive()
        assert program.cpu_s() >= 0.3
        assert program.memory().rss_mb > program.memory().anonymous_mb > 1
    dead = Program([sys.executable, "-c", "raise SystemExit('no camera here')"], log=tmp_path / "dead")
    assert dead.wait(30) == 1
    with pytest.raises(RuntimeError, match="no camera here"):
        dead.cpu_s()


def test_own_work_is_not_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 s on two cores 8 s were busy, 5 of them ours."""
    readings = iter([(100.0, 50.0, 7.0), (108.0, 62.0, 12.0)])
    monkeypatch.setattr(machine, "_read", lambda: next(readings))
    assert machine.Others().share() == pytest.approx(3 / 20)


def test_the_kernel_tells_what_the_machine_did() -> None:
    assert 0.0 <= machine.Others().share() <= 1.0
    assert machine.describe()["cores"] >= 1


def test_the_command_line_names_its_benches() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--help"], capture_output=True, text=True, check=True, env=os.environ
    )
    assert all(name in done.stdout for name in BENCHES)


def _made(folder: Path) -> list[str]:
    names = ["first", "second"]
    for name in names:
        (folder / name).mkdir()
    return names
