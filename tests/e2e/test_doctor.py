"""`wardpost doctor` at a real post: well, cut off, killed, held up; and headquarters asks the same over MQTT."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from agent import wire
from agent.clock import SystemClock, rfc3339, uuid7_maker
from agent.types import NS
from agent.uplink import Hello, Received, parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport
from tests.e2e.brokers import RealBroker
from tests.e2e.post import WAIT_S_MAX, Post, recording

# What the machine of the test may have of its own: nobody vouches for a container's clock, its disk may be nearly full,
# and no station takes part.
ITS_OWN = {"clock", "card", "memory", "heat", "power"}


FILES = {"ca": "ca.pem", "cert": "node.pem", "key": "node.key"}


def examined(post: Post) -> tuple[int, dict[str, Any]]:
    ran = post.ask_here("doctor", "--json")
    assert ran.stderr == ""
    found: dict[str, Any] = json.loads(ran.stdout)
    return ran.returncode, found


def wrong(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {one["part"]: one for one in found["diagnoses"] if one["urgency"] != "note" and one["part"] not in ITS_OWN}


def until(post: Post, parts: set[str]) -> dict[str, dict[str, str]]:
    """Asks until exactly these parts are wrong."""
    by = time.monotonic() + WAIT_S_MAX
    while time.monotonic() < by:
        told = wrong(examined(post)[1])
        if set(told) == parts:
            return told
        time.sleep(0.5)
    raise AssertionError(f"{parts} wanted, told: {examined(post)}")


def test_a_post_is_examined_before_during_and_after_its_life(post: Post, broker: RealBroker) -> None:
    code, found = examined(post)
    assert code == 1 and "has never run" in found["summary"]

    # No broker: everything goes on, and nothing is lost. That is what is said, and what to look at.
    broker.kill()
    post.start()
    post.wait_for(lambda s: bool(s["recording"]["recording"] and s["queue"]["outboxrows"]))
    told = until(post, {"link"})["link"]
    assert told["what"].startswith(f"The post cannot reach headquarters: {broker.url} has not answered for ")
    assert "connection refused" in told["why"] and "nothing is lost: " in told["why"]
    assert "ask headquarters whether the broker runs" in told["todo"]
    words = post.ask("doctor")
    assert words.returncode == 1 and "soon: The post cannot reach headquarters" in words.stdout

    # It comes back. Nobody is at headquarters though, which the post notices as well.
    broker.start()
    post.wait_for(lambda s: bool(s["broker"] and s["station_silent"]))
    assert "nobody at headquarters confirms" in until(post, {"link"})["link"]["what"]

    # Killed: the doctor reads what is left, and leaves it so that the next start finds it.
    post.end(signal.SIGKILL)
    code, found = examined(post)
    told = wrong(found)["agent"]
    assert code == 1 and told["urgency"] == "now" and "The agent does not run" in told["what"]
    assert "killed, or crashed" in told["why"] and "systemctl start" in told["todo"]
    post.start()
    post.wait_for(lambda s: recording(s) and s["session"] == 2)

    # It does not run because its settings are wrong: the file is for `check`, what it names is told here.
    assert post.end(signal.SIGTERM) == 0
    good = post.config.read_text()
    post.config.write_text(good + '\n[release]\nkey = "/nowhere/release.pub"\n')
    code, found = examined(post)
    assert code == 1 and "it was stopped (stopped)" in json.dumps(found)
    assert "/nowhere/release.pub" in json.dumps(found["diagnoses"][1])
    post.config.write_text(good.replace("loop = true", "lop = true"))
    ran = post.ask("doctor")
    assert ran.returncode == 78 and "did you mean camera.loop?" in ran.stderr


def test_a_camera_that_is_away_is_told_with_its_reason(post: Post) -> None:
    post.config.write_text(
        post.config.read_text()
        .replace("loop = true", "loop = true\nstall_s = 2")
        .replace('url = "', 'url = "rtsp://127.0.0.1:1/nothing"\n#')
    )
    post.start()
    post.wait_for(lambda s: s["camera"]["restarts"] >= 1)
    _, found = examined(post)
    told = wrong(found)["camera"]
    assert told["urgency"] == "now" and told["what"].startswith("The camera gives no pictures since the agent started")
    assert "rtsp://127.0.0.1:1/nothing" in told["why"] and "its address in camera.url" in told["todo"]
    assert "recording" not in wrong(found), "that nothing is recorded follows from it"


def test_a_post_that_is_not_enrolled_records_and_is_told_so(post: Post, tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    identity.mkdir()
    (identity / "claim.toml").write_text(
        'node = "cam-7"\nsite = "ward"\nclaim = "claim-abcdefgh"\nexpires = "2026-12-24"\n'
    )
    files = "\n".join(f'{name} = "{identity / file}"' for name, file in FILES.items())
    text = post.config.read_text().replace("mqtt://", "mqtts://")
    post.config.write_text(f"{text}\n[uplink.tls]\n{files}\n")
    post.start()
    post.wait_for(lambda s: bool(s["recording"]["recording"] and s["workers"]["uplink"]["restarts"] >= 3))
    told = until(post, {"certificate"})["certificate"]
    assert told["urgency"] == "soon" and "not enrolled yet: it records" in told["what"]
    assert "until 2026-12-24" in told["why"] and "nothing is lost" in told["why"]
    (identity / "refused.txt").write_text("claim-used: by another card\n")
    told = until(post, {"certificate"})["certificate"]
    assert (told["urgency"], told["why"]) == ("now", "claim-used: by another card")


def test_headquarters_asks_the_same_over_mqtt(post: Post, broker: RealBroker) -> None:
    post.start()
    post.wait_for(recording)
    clock = SystemClock()
    ear = PahoTransport(clock=clock, credentials=Credentials())
    topics = wire.Topics("ward", "cam-7")
    asked = wire.Command(id=uuid7_maker(clock)(), verb="doctor", expires=rfc3339(clock.utc().utc_ns + 60 * NS))
    try:
        ear.connect(parse_broker(broker.url), Hello("hq", ((topics.reply("+"), 1),)))
        by = time.monotonic() + WAIT_S_MAX
        answer: wire.Reply | None = None
        sent = False
        while answer is None and time.monotonic() < by:
            for happening in ear.poll(0.2):
                if isinstance(happening, Received):
                    happening.ack()
                    answer = wire.decode(happening.payload, wire.Reply)
            if ear.connected and not sent:
                sent = True
                ear.publish(topics.command("doctor"), wire.encode(asked), qos=1)
    finally:
        ear.close()
    assert answer is not None and (answer.id, answer.state) == (asked.id, "done"), answer
    assert set(answer.result) == {"well", "summary", "diagnoses"}
    assert not set(wrong(answer.result)) - {"link"}
