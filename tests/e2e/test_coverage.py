"""`wardpost coverage` and `wardpost hold` against a real node: running, killed, stopped, and asked over a real broker."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agent.clock import SystemClock, rfc3339
from agent.config import load
from agent.station.main import Station, StationSettings
from agent.station.order import order
from agent.station.orders import OrderBook
from agent.types import NS
from tests.e2e.brokers import RealBroker
from tests.e2e.post import WAIT_S_MAX, Post, recording
from tests.fakes.database import engine_in

STATION = """
[station]
site = "ward"
id = "hq"
data = "{data}"
command_key = "{key}"

[broker]
brokers = ["{broker}"]
"""


def keys(folder: Path) -> tuple[Path, Path]:
    """The station's private key, and its public half for the node."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / "hq.pem", folder / "hq.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def told(post: Post, *arguments: str) -> dict[str, object]:
    asked = post.ask_here(*arguments, "--json")
    assert asked.returncode == 0, asked.stderr
    found: dict[str, object] = json.loads(asked.stdout)
    return found


def seconds(found: dict[str, object]) -> dict[str, float]:
    value = found["seconds"]
    assert isinstance(value, dict)
    return value


def test_every_second_of_a_life_with_a_crash_and_a_stop_is_explained_and_drawn(post: Post, tmp_path: Path) -> None:
    clock = SystemClock()
    begin_ns = clock.utc().utc_ns - 60 * NS
    post.start()
    post.wait_for(recording)
    by = time.monotonic() + WAIT_S_MAX  # the first fragment takes its time on a busy machine
    while time.monotonic() < by:
        running = told(post, "coverage", "--from", rfc3339(begin_ns), "--to", rfc3339(clock.utc().utc_ns))
        if "recorded" in seconds(running):
            break
    assert {"before-install", "recorded"} <= seconds(running).keys()
    post.end(signal.SIGKILL)

    # Nobody has started it again: it is dead, and nothing is "being recorded".
    dead = told(post, "coverage", "--from", rfc3339(begin_ns), "--to", rfc3339(clock.utc().utc_ns))
    assert "unknown" not in seconds(dead)
    post.start()
    post.wait_for(lambda s: recording(s) and s["session"] == 2)

    # A hold by hand, on the running node: its footage, and what is to come.
    asked = post.ask("hold", "--from", rfc3339(begin_ns), "--to", rfc3339(clock.utc().utc_ns), "--reason", "theft")
    assert asked.returncode == 0, asked.stderr
    assert "are there and held" in asked.stdout
    too_much = post.ask_here(
        "hold", "--from", rfc3339(begin_ns), "--to", rfc3339(begin_ns + 30 * 86_400 * NS), "--reason", "x"
    )
    assert too_much.returncode == 1
    assert "refused" in too_much.stderr and len(too_much.stderr.splitlines()) == 1
    assert post.end(signal.SIGTERM) == 0

    end_ns = clock.utc().utc_ns
    picture = tmp_path / "day.svg"
    range_ = ("--from", rfc3339(begin_ns), "--to", rfc3339(end_ns))
    found = told(post, "coverage", *range_, "--svg", str(picture))
    assert seconds(found).keys() <= {"recorded", "agent-stopped", "before-install"}
    assert sum(seconds(found).values()) == pytest.approx((end_ns - begin_ns) / NS, abs=0.01)
    assert found["holds"]
    ET.parse(picture)
    words = post.ask("coverage", *range_)
    assert "last proof of life" in words.stdout and "the agent was killed" in words.stdout

    # The same desk on the card of a node that does not run.
    listed = told(post, "hold", "--list")
    holds = listed["holds"]
    assert isinstance(holds, list) and len(holds) == 1
    released = post.ask_here("hold", "--release", str(holds[0]["id"]))
    assert released.returncode == 0 and "released by" in released.stdout
    assert told(post, "hold", "--list")["holds"] == []
    kinds = [kind for (kind,) in post.rows("select kind from record where kind in ('hold', 'release')")]
    assert kinds.count("release") == 1, "on the journal, for the ledger"
    for wrong in (("hold",), ("hold", "--release", "nobody"), ("coverage", "--from", "x", "--to", "y")):
        answer = post.ask_here(*wrong)
        assert answer.returncode in (1, 78) and len(answer.stderr.splitlines()) == 1


def test_a_hold_that_was_asked_for_while_the_post_was_dark_is_honoured_on_its_return(
    post: Post, broker: RealBroker, tmp_path: Path
) -> None:
    """The station queues it, the post is off. It starts, is heard, gets the command, keeps the footage, and answers."""
    private, public = keys(tmp_path)
    config = post.config.read_text(encoding="utf-8")
    post.config.write_text(config.replace("[uplink]", f'[uplink]\ncommand_key = "{public}"'), encoding="utf-8")
    folder = tmp_path / "station"
    folder.mkdir()
    settings_file = tmp_path / "station.toml"
    settings_file.write_text(STATION.format(data=folder, key=private, broker=broker.url), encoding="utf-8")
    settings = load(settings_file, StationSettings)
    clock = SystemClock()
    begin_ns = clock.utc().utc_ns
    args = {"from": rfc3339(begin_ns), "to": rfc3339(begin_ns + 600 * NS), "reason": "accident"}
    said: list[str] = []
    assert order(settings, "cam-7", "hold", args, as_json=True, out=said.append) == 0
    (queued,) = json.loads(said[0])
    assert queued["state"] == "waiting"

    stop = threading.Event()
    station = threading.Thread(target=lambda: Station(settings, clock=clock, rng=random.Random(1)).run(stop))
    station.start()
    book = OrderBook(engine_in(folder))
    book.open()
    try:
        post.start()
        post.wait_for(lambda _: book.of("cam-7")[0].state != "waiting")
        (answered,) = book.of("cam-7")
    finally:
        book.close()
        stop.set()
        station.join(timeout=30)
    assert answered.state == "done", answered.answer
    result = json.loads(answered.answer)["result"]
    assert result["id"] == queued["id"] and "still to come" in result["summary"]
    assert post.end(signal.SIGTERM) == 0
    ((reason, asker),) = post.rows("select reason, asker from hold where released = ''")
    assert (reason, asker) == ("accident", "headquarters")
