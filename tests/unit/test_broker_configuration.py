"""The brokers' configuration comes from one description, and the committed examples are what it gives."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from agent import wire
from agent.contract import CHANNELS
from agent.site import rights
from agent.site.brokers import Listener, Member, Users, mosquitto_acl, mosquitto_conf, nats_conf

BROKER = Path(__file__).parents[2] / "deploy/broker"
EXAMPLE = Users("ward-7", (("gate-2", 1),), ("claim-k3v9q2mz7tab4x8w",))
_PEERS = ("10.0.0.12:6222", "10.0.0.13:6222")


def examples() -> dict[str, str]:
    member = Member(name="broker-1", listen="0.0.0.0:6222", routes=_PEERS)
    return {
        "mosquitto.conf.example": mosquitto_conf(Listener()),
        "mosquitto.acl.example": mosquitto_acl(EXAMPLE),
        "nats.conf.example": nats_conf(EXAMPLE, Listener()),
        "nats-cluster.conf.example": nats_conf(EXAMPLE, Listener(), member=member),
    }


def test_the_committed_examples_are_what_is_generated() -> None:
    """WARDPOST_WRITE_EXAMPLES=1 writes them anew."""
    for name, text in examples().items():
        if os.environ.get("WARDPOST_WRITE_EXAMPLES"):
            (BROKER / name).write_text(text, encoding="utf-8")
        assert (BROKER / name).read_text(encoding="utf-8") == text, name
    assert sorted(path.name for path in BROKER.iterdir()) == sorted(examples())


def matches(pattern: str, topic: str) -> bool:
    regex = "/".join({"+": "[^/]+", "#": ".+"}.get(level, re.escape(level)) for level in pattern.split("/"))
    return re.fullmatch(regex, topic) is not None


def allowed(filters: tuple[str, ...], topic: str) -> bool:
    return any(matches(one, topic) for one in filters)


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.name)
def test_every_channel_of_the_contract_has_the_one_who_says_it_and_the_one_who_hears(channel: object) -> None:
    from agent.contract import Channel

    assert isinstance(channel, Channel)
    who = "claim-abcdefgh" if channel.name in ("enrol", "enrolled") else "gate-2"
    topic = f"{wire.ROOT}/ward-7/{who}/" + re.sub(r"\{\w+\}", "x", channel.topic)
    of = rights.of_claim("ward-7", who) if who.startswith(wire.CLAIM_PREFIX) else rights.of_node("ward-7", who)
    other = rights.of_node("ward-7", "gate-3")
    claim = rights.of_claim("ward-7", "claim-zzzzzzzz")
    station = rights.of_station("ward-7")
    assert allowed(of.publish, topic) is channel.node_sends
    assert allowed(of.subscribe, topic) is not channel.node_sends
    assert allowed(station.publish, topic) is not channel.node_sends
    assert allowed(station.subscribe, topic)
    for stranger in (other, claim):
        assert not allowed(stranger.publish, topic) and not allowed(stranger.subscribe, topic)


def test_a_claim_may_enrol_and_nothing_else() -> None:
    may = rights.of_claim("ward-7", "claim-abcdefgh")
    mine = wire.Topics("ward-7", "claim-abcdefgh")
    for topic in (mine.status, mine.heartbeat, mine.event("person"), mine.record, mine.ack, mine.command("x")):
        assert not allowed(may.publish, topic) and not allowed(may.subscribe, topic)


def test_mosquitto_denies_a_claim_by_name_what_its_pattern_would_allow() -> None:
    text = mosquitto_acl(EXAMPLE)
    section = text.split("user claim-k3v9q2mz7tab4x8w\n")[1]
    denied = set(re.findall(r"(?m)^topic deny (\S+)$", section))
    node = rights.of_node("ward-7", "claim-k3v9q2mz7tab4x8w")
    assert denied == {*node.publish, *node.subscribe}


def test_a_revoked_post_and_a_closed_claim_are_nobody_at_nats() -> None:
    text = nats_conf(Users("ward-7", (), ()), Listener())
    assert re.findall(r'user: "([^"]+)"', text) == ["CN=station"]


def test_a_cluster_takes_no_posts_certificate_for_a_route() -> None:
    text = examples()["nats-cluster.conf.example"]
    cluster = text.split("cluster {")[1].split("\n}\n")[0]
    assert "verify_cert_and_check_known_urls: true" in cluster and "verify: true" not in cluster
    assert "stream_replicas: 3" in text
