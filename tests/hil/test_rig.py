"""The bench rig's own parts, tried without a bench: the post is a process here, its relay is kill -9."""

from __future__ import annotations

import random
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.assets import Assets
from agent.config import load
from agent.errors import ConfigError
from tests.hil.rig import RigSettings
from tests.hil.test_bench_power import run_cycles

ROOT = Path(__file__).resolve().parents[2]

NODE = """
[node]
site = "ward-7"
id = "bench"
data = "{data}"

[camera]
driver = "stream"
url = "{footage}"
loop = true

[vision]
analysis_fps = 1.0

[vision.detector]
driver = "none"

[recording]
segment_s = 10
free_gb_min = 0.01

[uplink]
brokers = ["mqtt://127.0.0.1:1"]
"""

RIG = """
[post]
shell = ["sh", "-c"]
data = "{data}"
python = "{python}"
status = "{python} -m agent.cli status --config {config}"
stop = "{folder}/switch stop"
start = "{folder}/switch start"
fsck = "echo clean"

[relay]
off = ["{folder}/switch", "kill"]
on = ["{folder}/switch", "start"]
off_s = 0.3

[run]
cycles = 2
run_s_min = 1.0
run_s_max = 3.0
boot_s_max = 240
"""

SWITCH = """#!/bin/sh
cd {root}
pid=$(cat {folder}/pid 2>/dev/null)
alive() {{ [ -n "$pid" ] && grep -q agent.cli "/proc/$pid/cmdline" 2>/dev/null; }}  # a dead one nobody has reaped has none
case $1 in
start)
  alive && exit 0
  setsid {python} -m agent.cli run --config {config} >>{folder}/node.log 2>&1 </dev/null &
  echo $! >{folder}/pid ;;
stop) alive && kill -TERM "$pid"; while alive; do sleep 0.05; done ;;
kill) alive && kill -KILL "$pid"; while alive; do sleep 0.05; done ;;
esac
"""


@pytest.fixture
def bench(tmp_path: Path, assets: Assets) -> Iterator[Path]:
    """The configuration of a rig whose post is a process on this machine."""
    data, config = tmp_path / "data", tmp_path / "node.toml"
    data.mkdir()
    config.write_text(NODE.format(data=data, footage=assets.footage()))
    words = {
        "data": data,
        "config": config,
        "folder": tmp_path,
        "root": shlex.quote(str(ROOT)),
        "python": sys.executable,
    }
    switch = tmp_path / "switch"
    switch.write_text(SWITCH.format(**words))
    switch.chmod(0o755)
    rig = tmp_path / "rig.toml"
    rig.write_text(RIG.format(**words))
    yield rig
    subprocess.run([switch, "kill"], check=False, capture_output=True)


@pytest.mark.system
@pytest.mark.timeout(1200)
def test_the_rig_cuts_and_judges(bench: Path, seed: int) -> None:
    cycles = run_cycles(load(bench, RigSettings), random.Random(seed))
    assert len(cycles) == 2
    assert [cycle["broken"] for cycle in cycles] == [[], []]
    assert all(cycle["lost_s"] < 3 and cycle["segments"] for cycle in cycles)


@pytest.mark.system
@pytest.mark.timeout(1200)
def test_a_relay_that_does_not_switch_is_noticed(bench: Path, seed: int) -> None:
    """A rig that never cut anything must not report that everything is well."""
    bench.write_text(
        bench.read_text()
        .replace(f'off = ["{bench.parent}/switch", "kill"]', 'off = ["true"]')
        .replace("cycles = 2", "cycles = 1")
    )
    (cycle,) = run_cycles(load(bench, RigSettings), random.Random(seed))
    assert any("was its power really cut" in what for what in cycle["broken"])


def test_a_mistake_in_the_rigs_file_is_named(tmp_path: Path) -> None:
    rig = tmp_path / "rig.toml"
    rig.write_text('[post]\nshel = ["ssh", "pi@post"]\n[relay]\noff_s = -1\n')
    with pytest.raises(ConfigError) as caught:
        load(rig, RigSettings)
    said = str(caught.value)
    assert "post.shel: unknown key; did you mean post.shell?" in said
    assert "relay.off_s" in said
