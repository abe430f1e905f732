"""The whole node on the real picamera2: frames, motion, recording, alerts at the station, a playable MP4.

On Debian trixie's libcamera with its `virtual` pipeline and Python 3.13; broker and station are on this side.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

from agent.assets import Assets
from agent.clock import SystemClock, rfc3339
from tests.e2e.brokers import NatsServer
from tests.system.test_picamera2_real import HERE, ROOT, Enter, enter

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]
__all__ = ["enter"]

NODE = """
[node]
site = "ward"
id = "pi-1"
data = "{data}"

[camera]
driver = "picamera2"
width = 640
height = 360
fps = 15

[vision]
luma_px = 320

[vision.detector]
model = "{lib}/ssd.tflite"
labels = "{lib}/labels.txt"

[recording]
segment_s = 10

[uplink]
brokers = ["{broker}"]
"""

STATION = """
[station]
site = "ward"
id = "desk"
data = "{data}"

[broker]
brokers = ["{broker}"]
"""


def test_a_node_on_the_real_picamera2(enter: Enter, tmp_path: Path, assets: Assets) -> None:
    assert enter("python", "--version").stdout.startswith("Python 3.13")
    lib = ROOT / "var/lib/wardpost"
    shutil.rmtree(lib, ignore_errors=True)
    (lib / "data").mkdir(parents=True)
    shutil.copy(assets.model(), lib / "ssd.tflite")
    shutil.copy(assets.labels(), lib / "labels.txt")
    broker = NatsServer(tmp_path)
    broker.start()
    inside = Path("/var/lib/wardpost")
    (lib / "node.toml").write_text(NODE.format(data=inside / "data", lib=inside, broker=broker.url))
    (tmp_path / "node.toml").write_text(NODE.format(data=lib / "data", lib=lib, broker=broker.url))
    (tmp_path / "station").mkdir()
    (tmp_path / "station.toml").write_text(STATION.format(data=tmp_path / "station", broker=broker.url))
    began = SystemClock().utc().utc_ns
    log = (tmp_path / "node.log").open("wb")
    station = subprocess.Popen([sys.executable, "-m", "agent.cli", "station", "--config", tmp_path / "station.toml"])
    node = subprocess.Popen(
        [
            HERE / "enter.sh",
            ROOT,
            "python",
            "/opt/wardpost/rig/run_wardpost.py",
            "run",
            "--config",
            inside / "node.toml",
        ],
        stdout=log,
        stderr=log,
    )
    try:
        by = time.monotonic() + 300
        while events_at(tmp_path / "station") < 2 or len(list((lib / "data/segments").glob("*"))) < 2:
            assert node.poll() is None, (tmp_path / "node.log").read_text()[-3000:]
            assert time.monotonic() < by, (tmp_path / "node.log").read_text()[-3000:]
            time.sleep(0.5)
        time.sleep(3)
        node.send_signal(signal.SIGTERM)
        assert node.wait(timeout=120) == 0, (tmp_path / "node.log").read_text()[-3000:]
    finally:
        for process in (node, station):
            process.kill()
            process.wait()
        log.close()
        broker.stop()

    with sqlite3.connect(lib / "data/wardpost.db") as db:
        sealed = db.execute("select count(*), sum(end_ns - start_ns) from segment where state = 'sealed'").fetchone()
        kinds = {kind for (kind,) in db.execute("select distinct kind from event")}
    db.close()
    print(f"segments sealed {sealed[0]}, {sealed[1] / 1e9:.1f} s, events of {sorted(kinds)}")
    assert sealed[0] >= 2
    assert kinds & {"motion", "person", "animal", "vehicle", "bicycle"}, "the walker was seen"
    assert not kinds & {"camera", "storage", "detector"}, "and nothing broke"

    clip = tmp_path / "clip.mp4"
    to = rfc3339(SystemClock().utc().utc_ns)
    asked = subprocess.run(
        [
            *(sys.executable, "-m", "agent.cli", "footage", "--config", str(tmp_path / "node.toml")),
            *("--from", rfc3339(began), "--to", to, "-o", str(clip)),
        ],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert asked.returncode == 0, asked.stderr
    with av.open(str(clip)) as film:
        pictures = sum(1 for _ in film.decode(video=0))
    assert pictures > 15 * 10


def events_at(folder: Path) -> int:
    """How many events the station has stored."""
    try:
        db = sqlite3.connect(f"file:{folder}/station.db?mode=ro", uri=True)
        try:
            return int(db.execute("select count(*) from event").fetchone()[0])
        finally:
            db.close()
    except sqlite3.Error:
        return 0
