"""The broker examples let a node and a station say everything the contract has, and a node nothing of another's.

A topic that an example forbids is silent in MQTT 3.1.1: the broker acknowledges and drops it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.wire import Topics

BROKER = Path(__file__).resolve().parents[2] / "deploy/broker"


def matches(pattern: str, topic: str) -> bool:
    """MQTT's wildcards: `+` one level, `#` the rest."""
    regex = "/".join({"+": "[^/]+", "#": ".+"}.get(level, re.escape(level)) for level in pattern.split("/"))
    return re.fullmatch(regex, topic) is not None


def mosquitto(node: str) -> tuple[list[str], list[str]]:
    """What a node may write and read by the pattern lines."""
    text = (BROKER / "mosquitto.acl.example").read_text(encoding="utf-8")
    rules = re.findall(r"(?m)^pattern (read|write|readwrite) (\S+)", text)
    writes = [t.replace("%u", node).replace("%c", node) for kind, t in rules if "write" in kind]
    reads = [t.replace("%u", node).replace("%c", node) for kind, t in rules if "read" in kind]
    return writes, reads


def nats(node: str) -> tuple[list[str], list[str]]:
    """What the user that stands for a node may publish and subscribe, in MQTT's spelling."""
    text = (BROKER / "nats.conf.example").read_text(encoding="utf-8")
    text = re.sub(r"(?m)#.*$", "", text)
    lists = re.findall(r"(publish|subscribe)\s*[:=]?\s*(?:\{\s*allow\s*[:=]?\s*)?\[(.*?)\]", text, re.DOTALL)
    found: dict[str, list[str]] = {"publish": [], "subscribe": []}
    for kind, body in lists:
        for subject in re.findall(r'"([^"]+)"', body):
            if f".{node}." in subject:
                found[kind].append(subject.replace(".", "/").replace("*", "+").replace(">", "#"))
    return found["publish"], found["subscribe"]


@pytest.mark.parametrize("rules", [mosquitto, nats])
def test_a_node_may_say_what_the_contract_has_and_nothing_in_anothers_name(rules: object) -> None:
    assert callable(rules)
    site = re.search(r"wardpost[/.]v1[/.]([a-z0-9-]+)[/.]", (BROKER / "nats.conf.example").read_text(encoding="utf-8"))
    assert site is not None
    names = re.findall(rf"wardpost\.v1\.{site[1]}\.([a-z0-9-]+)\.", (BROKER / "nats.conf.example").read_text("utf-8"))
    name = "gate-2" if rules is mosquitto else names[0]
    mine = Topics(site[1], name)
    writes, reads = rules(name)
    assert writes and reads
    said = (mine.event("person"), mine.events, mine.record, mine.records, mine.reply("0" * 36))
    for topic in (mine.status, mine.heartbeat, *said):
        assert any(matches(pattern, topic) for pattern in writes), f"{topic} cannot be said"
    for topic in (mine.ack, mine.command("siren")):
        assert any(matches(pattern, topic) for pattern in reads), f"{topic} cannot be heard"
    other = Topics(site[1], "somebody-else")
    for topic in (
        other.status,
        other.event("person"),
        other.events,
        other.record,
        other.records,
        mine.ack,
        mine.command("siren"),
    ):
        assert not any(matches(pattern, topic) for pattern in writes), f"{topic} can be forged"
