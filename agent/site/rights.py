"""Who may say and hear what at a broker, as data. `brokers.py` writes it down for each broker; nobody else decides it.

Topic filters in MQTT's spelling. A name in them is the common name of a certificate, so a node may only ever be
itself (invariant 7).
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.wire import ROOT, Topics


@dataclass(frozen=True, slots=True)
class Rights:
    """Filters that a client may publish to, and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def of_node(site: str, node: str) -> Rights:
    """A post: its own topics, as the contract has them."""
    mine = Topics(site, node)
    return Rights(
        publish=(
            mine.status, mine.heartbeat, mine.event("+"), mine.record, mine.events, mine.records, mine.reply("+"),
            mine.reported, mine.renew,
        ),
        subscribe=(mine.ack, mine.commands, mine.desired, mine.renewed),
    )  # fmt: skip


def of_claim(site: str, claim: str) -> Rights:
    """A card before its first certificate: it may ask for one, and hear the answer."""
    mine = Topics(site, claim)
    return Rights(publish=(mine.enrol,), subscribe=(mine.enrolled,))


def of_station(site: str) -> Rights:
    """The station: hears everything of its site, acknowledges, commands, desires settings, answers claims."""
    every = Topics(site, "+")
    return Rights(
        publish=(every.ack, every.commands, every.desired, every.enrolled, every.renewed),
        subscribe=(f"{ROOT}/{site}/#",),
    )
