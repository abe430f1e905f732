"""What a post sends: sizes of its messages, and a month of them over a mobile network."""

from __future__ import annotations

from dataclasses import dataclass

from hardware.sums import table

HEARTBEAT_B = 1600
EVENT_B = 900
EVENT_LINE_B = 1600
FOOTAGE_LINE_B = 1300
"""Lines of the ledger as they are sent (`wire.Record`): of an event, of a file of footage."""
THUMBNAIL_B = 17_000
ACK_B = 180
RECEIPT_B = 900
"""An acknowledgement; one that carries a signed receipt for the ledger."""
RECEIPT_EVERY_S = 60.0
"""The station signs a receipt this often at most, and the ledger grows all the time.

All sizes are of payloads, rounded up. tests/unit/test_hardware.py measures the real ones, and holds these to them."""
PER_MESSAGE_B = 200
"""Around each payload: topic, MQTT, a TLS record, TCP and IP, and the packets that acknowledge them. An assumption."""
CONNECT_B = 8_000
"""TCP, TLS with both certificates, CONNECT, SUBSCRIBE: an assumption."""
ANCHOR_S = 300
"""The clocks are written down this often, as a line of the ledger (agent/health.py)."""
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Post:
    """What happens at a post in a day, and its settings."""

    visits: int
    heartbeat_s: float = 30.0
    segment_s: float = 30.0
    connections: int = 10
    messages_a_visit: int = 3  # started, one update, ended


def month_mb(post: Post) -> dict[str, float]:
    """Megabytes (10^6) of 30 days, by what they are for. Both directions."""
    beats = DAY_S / post.heartbeat_s * (HEARTBEAT_B + PER_MESSAGE_B)
    lines = (DAY_S / post.segment_s + DAY_S / ANCHOR_S) * (FOOTAGE_LINE_B + PER_MESSAGE_B)
    visit = post.messages_a_visit * (EVENT_B + EVENT_LINE_B + 2 * PER_MESSAGE_B) + THUMBNAIL_B + PER_MESSAGE_B
    told = DAY_S / post.segment_s + DAY_S / ANCHOR_S + post.visits * (2 * post.messages_a_visit + 1)
    day = {
        "heartbeats": beats,
        "ledger of the footage": lines,
        "visits": post.visits * visit,
        "acknowledgements and receipts": told * (ACK_B + PER_MESSAGE_B) + DAY_S / RECEIPT_EVERY_S * (RECEIPT_B - ACK_B),
        "connections": post.connections * CONNECT_B,
    }
    return {what: value * 30 / 1e6 for what, value in day.items()}


def clip_mb(*, seconds: float, kbps: float) -> float:
    """The size of a piece of footage, which is not re-encoded."""
    return seconds * kbps / 8 / 1000


def budget() -> str:
    """The table of hardware/network.md."""
    posts = (
        Post(visits=20),
        Post(visits=200),
        Post(visits=2000, connections=20),
        Post(visits=200, heartbeat_s=120.0, segment_s=60.0),
    )
    months = [month_mb(post) for post in posts]
    rows = [(what, *(f"{month[what]:.0f}" for month in months)) for what in months[0]]
    rows.append(("**MB in 30 days**", *(f"**{sum(month.values()):.0f}**" for month in months)))
    head = (
        "MB in 30 days",
        "quiet: 20 visits a day",
        "200 visits",
        "busy: 2,000 visits",
        "200 visits, heartbeat_s = 120, segment_s = 60",
    )
    return table(head, rows)
