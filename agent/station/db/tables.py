"""What a station remembers. `utc_ns` columns are the station's own wall clock. One writer; any number of readers."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table, UniqueConstraint

from agent.station.db import metadata
from agent.station.db.types import Blob, Whole, Words

# 'site'; 'deleted' (events given up for lack of room)
meta = Table(
    "meta",
    metadata,
    Column("key", Words, primary_key=True),
    Column("value", Words, nullable=False),
    sqlite_with_rowid=False,
)

# One row per node that was ever heard, and what it last said.
node = Table(
    "node",
    metadata,
    Column("node", Words, primary_key=True),
    Column("place", Words, nullable=False, server_default=""),
    Column("version", Words, nullable=False, server_default=""),
    Column("session", Whole, nullable=False, server_default="0"),
    Column("said", Words, nullable=False, server_default="online"),  # its own status, or its last will
    Column("reason", Words, nullable=False, server_default=""),  # ... and why it is offline, in its word
    Column("seen_boot_id", Words, nullable=False),  # of the station, as seen_ns: ages are boot time where possible
    Column("seen_ns", Whole, nullable=False),
    Column("seen_utc_ns", Whole, nullable=False),
    Column("state", Words, nullable=False, server_default="online"),
    Column("state_since_utc_ns", Whole, nullable=False),
    Column("heartbeat", Blob),  # the newest, as it came
    CheckConstraint("said in ('online', 'offline')", name="said"),
    CheckConstraint("state in ('online', 'late', 'dark', 'offline')", name="state"),
    sqlite_with_rowid=False,
)

# One life of a node's store. Its sequence numbers count from 1; everything from 1 to head is stored.
stream = Table(
    "stream",
    metadata,
    Column("stream", Whole, primary_key=True),
    Column("node", Words, nullable=False),
    Column("epoch", Words, nullable=False),
    Column("head", Whole, nullable=False, server_default="0"),
    UniqueConstraint("node", "epoch"),
    CheckConstraint("head >= 0", name="head"),
)

# Every event message, once (both unique constraints), in order of arrival.
event = Table(
    "event",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("stream", Whole, ForeignKey("stream.stream"), nullable=False),
    Column("sequence", Whole, nullable=False),
    Column("id", Words, nullable=False, unique=True),
    Column("kind", Words, nullable=False),  # last level of the topic
    Column("incident", Words),  # null: a form this station does not understand; the body is kept
    Column("received_utc_ns", Whole, nullable=False),
    Column("body", Blob, nullable=False),
    UniqueConstraint("stream", "sequence"),
    CheckConstraint("sequence > 0", name="sequence"),
    Index("event_incident", "incident"),
)

# Messages that were refused, the newest only.
reject = Table(
    "reject",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("received_utc_ns", Whole, nullable=False),
    Column("topic", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("bytes", Whole, nullable=False),
    Column("head", Blob, nullable=False),  # the first bytes
)

# Nodes that came and went, the newest only.
change = Table(
    "change",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("node", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("utc_ns", Whole, nullable=False),  # when the station noticed
    Column("since_utc_ns", Whole, nullable=False),  # when the node was last heard, or heard again
    Column("reason", Words, nullable=False, server_default=""),  # offline: in the node's word
)

# Public keys of the nodes' ledgers. A node's first key is believed, or registered by a person; each one may introduce
# the next. `root` is the first of such a line of keys, and names the ledger.
key = Table(
    "key",
    metadata,
    Column("node", Words, primary_key=True),
    Column("keyid", Words, primary_key=True),
    Column("public", Words, nullable=False),
    Column("root", Words, nullable=False),
    Column("how", Words, nullable=False),
    Column("since_utc_ns", Whole, nullable=False),
    CheckConstraint("length(public) = 64", name="public"),
    CheckConstraint("how in ('pinned', 'registered', 'introduced')", name="how"),
    sqlite_with_rowid=False,
)

# Lines of the nodes' ledgers, as they came: signature verified. Two of one number are a fork, and both are evidence.
line = Table(
    "line",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("node", Words, nullable=False),
    Column("root", Words, nullable=False),
    Column("seq", Whole, nullable=False),
    Column("sha256", Words, nullable=False),
    Column("prev", Words, nullable=False),  # sha256 of the line before
    Column("kind", Words, nullable=False),
    Column("received_utc_ns", Whole, nullable=False),
    Column("body", Blob, nullable=False),
    UniqueConstraint("node", "root", "seq", "sha256"),
    CheckConstraint("seq > 0", name="seq"),
    Index("line_kind", "node", "root", "kind", "seq"),  # a range of one kind, past all that a ledger has between
)

# Which sequence numbers of a stream carried a line: they count for its head as events do.
carried = Table(
    "carried",
    metadata,
    Column("stream", Whole, ForeignKey("stream.stream"), primary_key=True, autoincrement=False),
    Column("sequence", Whole, primary_key=True, autoincrement=False),
    Column("n", Whole, nullable=False),
    CheckConstraint("sequence > 0", name="sequence"),
    Index("carried_line", "n"),
    sqlite_with_rowid=False,
)

# The newest line of each ledger, and the newest receipt for it.
ledger = Table(
    "ledger",
    metadata,
    Column("node", Words, primary_key=True),
    Column("root", Words, primary_key=True),
    Column("epoch", Words, nullable=False),  # of the store that sent it: where the receipt goes
    Column("seq", Whole, nullable=False),
    Column("head", Words, nullable=False),
    Column("receipt_seq", Whole, nullable=False, server_default="0"),
    Column("receipt_sha256", Words, nullable=False, server_default=""),
    sqlite_with_rowid=False,
)

# Receipts that this station has signed.
receipt = Table(
    "receipt",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("node", Words, nullable=False),
    Column("root", Words, nullable=False),
    Column("seq", Whole, nullable=False),
    Column("utc_ns", Whole, nullable=False),
    Column("body", Blob, nullable=False),
)

# What is wrong with a node's ledger, by kind. The rows that are told stand in `reject`.
alarm = Table(
    "alarm",
    metadata,
    Column("node", Words, primary_key=True),
    Column("what", Words, primary_key=True),
    Column("count", Whole, nullable=False),
    Column("first_utc_ns", Whole, nullable=False),
    Column("told_utc_ns", Whole, nullable=False),
    sqlite_with_rowid=False,
)

# A release over the fleet, by rings (agent/station/rollout.py), the newest only.
rollout = Table(
    "rollout",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("id", Words, nullable=False, unique=True),
    Column("utc_ns", Whole, nullable=False),  # when it began
    Column("body", Words, nullable=False),  # rollout.Rollout as JSON, without its posts
)

# What each post has come to in it.
rollout_post = Table(
    "rollout_post",
    metadata,
    Column("rollout", Whole, ForeignKey("rollout.n"), primary_key=True, autoincrement=False),
    Column("node", Words, primary_key=True),
    Column("body", Words, nullable=False),  # rollout.Post as JSON
    sqlite_with_rowid=False,
)

# Each step of it, in words. `request`: what a person asked for by this id is done, and is not done again.
rollout_log = Table(
    "rollout_log",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("utc_ns", Whole, nullable=False),
    Column("rollout", Words, nullable=False),
    Column("text", Words, nullable=False),
    Column("request", Words, unique=True),
)
