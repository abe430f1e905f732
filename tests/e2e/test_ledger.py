"""A real node, broker and station: the ledger arrives whole, is receipted, and goes on across kill -9."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.clock import SystemClock
from agent.disk import PosixDisk
from agent.errors import WardpostError
from agent.evidence import dsse, keys, records
from agent.evidence.chain import check
from agent.evidence.records import Payload
from agent.station.main import BrokerSettings, DeskSettings, Station, StationSettings
from agent.station.reader import Reader
from tests.e2e.brokers import RealBroker
from tests.e2e.post import Post, recording

WAIT_S_MAX = 180.0  # this machine may be busy


@contextmanager
def desk(folder: Path, url: str) -> Iterator[Reader]:
    """A station in this process, on a thread of its own."""
    folder.mkdir(exist_ok=True)
    settings = StationSettings(
        station=DeskSettings(site="ward", id="hq", data=str(folder)),
        broker=BrokerSettings(brokers=(url,), keepalive_s=5, backoff_s_max=1.0),
    )
    stop = threading.Event()
    station = Station(settings, clock=SystemClock(), rng=random.Random(1))
    thread = threading.Thread(target=station.run, args=(stop,))
    thread.start()
    reader = Reader(folder)
    try:
        until(lambda: (folder / "station.db").exists() and opens(reader), "a station that opens")
        yield reader
    finally:
        stop.set()
        thread.join(20)
        reader.close()


def opens(reader: Reader) -> bool:
    try:
        reader.open()
    except WardpostError:
        return False
    return True


def until(what: Callable[[], bool], why: str) -> None:
    by = time.monotonic() + WAIT_S_MAX
    while not what():
        assert time.monotonic() < by, f"it did not come to {why}"
        time.sleep(0.1)


def said(lines: list[bytes]) -> list[Payload]:
    return [records.read(dsse.parse(line)) for line in lines]


def on_card(post: Post) -> list[bytes]:
    files = sorted(path for path in (post.data / "ledger").iterdir() if path.name[0].isdigit())
    return [line for path in files for line in path.read_bytes().split(b"\n")[:-1]]


def test_a_ledger_from_the_first_start_through_a_kill_to_the_stations_receipts(
    post: Post, broker: RealBroker, tmp_path: Path
) -> None:
    with desk(tmp_path / "station", broker.url) as reader:
        post.start()
        post.wait_for(recording)
        until(
            lambda: "segment" in [line.kind for line in said(reader.lines("cam-7"))], "a sealed segment at the station"
        )
        until(lambda: bool(reader.receipts("cam-7")), "a receipt")
        rotated = post.ask("key", "rotate", "--reason", "test")
        assert rotated.returncode == 0, rotated.stderr
        until(lambda: len(reader.keys("cam-7")) == 2, "a new key at the station, by the chain")
        post.end(signal.SIGKILL)
        before = len(on_card(post))
        post.start()
        post.wait_for(lambda status: recording(status) and status["session"] == 2)
        until(lambda: len(reader.lines("cam-7")) > before, "lines of the second life")
        assert post.end(signal.SIGTERM) == 0
        mine, theirs = on_card(post), reader.lines("cam-7")
        alarms = [reason for _, _, _, reason in reader.rejects_after(0, 100)]
        receipts, known = reader.receipts("cam-7"), reader.keys("cam-7")

    assert alarms == []
    assert theirs == mine[: len(theirs)]
    public = keys.public_keys(keys.load(PosixDisk(post.data), "node"))
    assert known == public, "the first one pinned at first sight, the second one introduced by it"
    assert len(known) == 2
    verdict = check(mine, keys=public, receipts=receipts, node="ward/cam-7", whole=True)
    assert verdict.ok, verdict.findings
    assert len(verdict.receipts) == len(receipts) > 0
    told = [line.payload for line in verdict.lines]
    kinds = [payload.kind for payload in told]
    assert kinds[:3] == ["install", "start", "config"]
    assert kinds.count("start") == 2
    assert kinds.count("config") == 1, "the settings did not change"
    assert kinds[-1] == "stop", "the stop itself is on record"
    numbers = [payload.number for payload in told if payload.number is not None]
    assert numbers == sorted(set(numbers))
    rows = dict(post.rows("select name, sha256 from segment"))
    assert {payload.body["name"]: payload.body["sha256"] for payload in told if payload.kind == "segment"} == rows
    events = [payload.body["sequence"] for payload in told if payload.kind == "event"]
    assert events == [s for (s,) in post.rows("select sequence from event where kind not in ('record', 'thumbnail')")]
    kept = (post.data / "ledger" / "receipts.jsonl").read_bytes().split(b"\n")[:-1]
    assert kept
    assert set(kept) <= set(receipts), "the node has kept what the station has signed"
    assert any(payload.receipt for payload in told), "and its records name it"
    assert [path.stat().st_mode & 0o777 for path in (post.data / "keys").iterdir()] == [0o600, 0o600]
    clip = tmp_path / "clip.mp4"
    asked = post.ask("footage", "--from", told[1].utc, "--to", told[-1].utc, "-o", str(clip))
    assert asked.returncode == 0, asked.stderr
    ((body,),) = post.rows("select body from record where kind = 'extraction'")
    assert str(clip) in body.decode(), "who takes footage from the card stands in the journal"
