"""The contract between node and station: topics and messages, version 1. Both sides import this file, nothing else.

MQTT 3.1.1, JSON in UTF-8, 64 KiB at most. Events are CloudEvents 1.0 in structured mode. A backlog comes in batches:
`events` in the CloudEvents JSON batch format, `records` likewise. The AsyncAPI 3 document in agent/asyncapi.json is
generated from here (`wardpost contract`), and tests hold real traffic against it.

Readers ignore fields they do not know (a newer peer may send more) and refuse what lacks a field they need.
"""

from __future__ import annotations

import re
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from agent.errors import Corrupt

PAYLOAD_BYTES_MAX = 64 * 1024
BATCH_EVENTS_MAX = 100
"""Events, or ledger lines, in one message of a backlog. Each is acknowledged by its own sequence number."""
ACK_RANGES_MAX = 1000
ROOT = "wardpost/v1"
CLAIM_PREFIX = "claim-"
"""How the name of a claim begins, and that of no node."""

# `$` alone would let one line end follow, and names go into topics and names of files.
Id = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}$(?!\n)", description="lower-case letters, digits and hyphens")]
Uuid = Annotated[str, Meta(pattern=r"^[0-9a-f-]{36}$(?!\n)", description="UUIDv7, RFC 9562")]
BootId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$(?!\n)", description="names one boot of the machine")]
Utc = Annotated[str, Meta(max_length=40, description="RFC 3339, UTC")]
Unit = Annotated[float, Meta(ge=0, le=1)]
Sequence = Annotated[int, Meta(ge=1, le=2**53 - 1)]
ErrorMs = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Message(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of every message."""


LOST, STOPPED, UPDATE, SETTINGS = "lost", "stopped", "update", "settings"
LEFT = (LOST, STOPPED, UPDATE, SETTINGS)
"""Why a node is offline, as `Status.reason` has it: its connection died and the broker says so by the last will; it was
stopped in order; it was stopped in order while a release, or settings, are on trial.
"""


class Status(Message, frozen=True, kw_only=True):
    """Retained. `offline` is also the node's last will; it pairs with the `online` of the same session."""

    state: Literal["online", "offline"]
    node: Id
    bootid: BootId
    session: Annotated[int, Meta(ge=0, description="counts the starts of the agent; a will of an older one is stale")]
    version: Annotated[str, Meta(max_length=64)] = ""
    place: Annotated[str, Meta(max_length=200)] = ""
    key: Annotated[str, Meta(max_length=64, description="public key of the ledger: Ed25519, raw, 64 hex digits")] = ""
    reason: Annotated[
        str,
        Meta(
            max_length=32,
            description="why it is offline: lost (the last will), stopped, update, settings; another word: of a newer"
            " node, which said goodbye; empty: online, or an older agent",
        ),
    ] = ""


class ClockState(Message, frozen=True, kw_only=True):
    """How far the node's wall clock may be wrong."""

    utc: Utc
    errms: Annotated[int | None, Meta(description="bound of the error in ms; null: nobody can vouch for it")]
    source: str


class CameraState(Message, frozen=True, kw_only=True):
    """The camera since the agent started."""

    name: str
    fps: Annotated[float, Meta(ge=0, description="analysed frames per second, over the last seconds")]
    frameagems: Annotated[int | None, Meta(description="age of the newest frame; null: there was none yet")]
    frames: int
    restarts: int


class VisionState(Message, frozen=True, kw_only=True):
    """The detector since the agent started."""

    detector: str
    healthy: bool
    detectorruns: int
    inferencems: float


class FootageClass(Message, frozen=True, kw_only=True):
    """Footage of one class: what is deleted first when room is needed comes first."""

    name: Literal["continuous", "event", "unsent", "held"]
    segments: int
    bytes: int
    oldest: Utc | None
    overwrite: Annotated[Utc | None, Meta(description="when its oldest is expected to go, at the present rate")]


class RecordingState(Message, frozen=True, kw_only=True):
    """Footage on the card."""

    recording: bool
    segments: int
    bytes: int
    oldest: Annotated[Utc | None, Meta(description="start of the oldest footage still kept")]
    droppedpackets: int
    classes: Annotated[list[FootageClass], Meta(max_length=4)] = []
    privacyleft_s: Annotated[float, Meta(ge=0, description="the privacy switch is on for so long still; 0: off")] = 0.0


class QueueState(Message, frozen=True, kw_only=True):
    """What still has to be delivered."""

    outboxrows: int
    oldestage_s: Annotated[float | None, Meta(description="age of the oldest undelivered event, in seconds")]
    dropped: Annotated[int, Meta(description="outbox rows given up for lack of room, since installation")]


class MachineState(Message, frozen=True, kw_only=True):
    """The Raspberry Pi itself."""

    uptime_s: float | None
    temperature_c: float | None
    throttled: Annotated[list[str] | None, Meta(description="vcgencmd get_throttled in words; null: not a Pi")]
    diskfreebytes: int | None
    memoryavailablebytes: int | None
    rssbytes: int | None
    load1: float | None


class ReleaseState(Message, frozen=True, kw_only=True):
    """Which release of the agent this node stands by, and the one beside it."""

    number: Annotated[int, Meta(ge=0, description="the confirmed one; 0: installed without a bundle")]
    tried: Annotated[int, Meta(ge=0, description="number of the one beside it; 0: none")] = 0
    phase: Annotated[
        str, Meta(max_length=32, description="of the one beside it: staged, trying, rolled-back, failed")
    ] = ""
    doubt: Annotated[bool, Meta(description="rolled back for want of a broker only: it may get another try")] = False
    why: Annotated[str, Meta(max_length=300, description="it was rolled back")] = ""


class SettingsState(Message, frozen=True, kw_only=True):
    """`config/reported`, retained, and in each heartbeat: which settings a node has, and what became of the desired."""

    revision: Annotated[int, Meta(ge=0, description="in force; 0: the file on the card")]
    digest: Annotated[
        str, Meta(max_length=64, description="SHA-256 of its text as it was desired; empty: the card")
    ] = ""
    since: Annotated[Utc, Meta(description="when it came into force; empty: the card")] = ""
    sha256: Annotated[str, Meta(max_length=64, description="of the settings that run, with every default")] = ""
    trial: Annotated[int, Meta(ge=0, description="revision on trial; 0: none")] = 0
    seen: Annotated[int, Meta(ge=0, description="the highest revision ever taken on")] = 0
    asked: Annotated[int, Meta(ge=0, description="the last desired revision that was judged; 0: none")] = 0
    state: Annotated[
        Literal["", "trying", "applied", "refused", "rolled-back"], Meta(description="what became of `asked`")
    ] = ""
    why: Annotated[str, Meta(max_length=300, description="it was refused or rolled back")] = ""
    at: Annotated[Utc, Meta(description="when that was decided")] = ""


class BellState(Message, frozen=True, kw_only=True):
    """What the post knows of its bell's line. A cut wire looks like a bell that nobody presses."""

    state: Annotated[
        Literal["untested", "well", "stuck", "high"],
        Meta(description="stuck: the contact stays closed; high: something holds the line at 3.3 V"),
    ]
    since: Annotated[Utc, Meta(description="since when it is so")]
    tested: Annotated[Utc, Meta(description="the newest test; empty: none since the start")] = ""


class Heartbeat(Message, frozen=True, kw_only=True):
    """QoS 0, every 30 s. Its absence is the truth about a node: a broker that dies publishes no last will.

    A part that could not be asked is null: a sick part must not silence the post.
    """

    node: Id
    bootid: BootId
    session: Annotated[int, Meta(ge=0)]
    monons: Annotated[int, Meta(description="CLOCK_BOOTTIME in ns")]
    version: str
    model: str
    clock: ClockState
    camera: CameraState | None
    vision: VisionState | None
    recording: RecordingState | None
    queue: QueueState | None
    machine: MachineState
    release: ReleaseState | None = None
    settings: SettingsState | None = None
    bell: Annotated[BellState | None, Meta(description="null: no bell is wired, or an older agent")] = None
    clips: Annotated[
        str,
        Meta(
            max_length=16,
            description="from which severity on it sends the film of an alert by itself: none, bell, alert;"
            " empty: an older agent",
        ),
    ] = ""


class EventData(Message, frozen=True, kw_only=True):
    """One phase of one incident."""

    incident: Annotated[Uuid, Meta(description="the same from started to ended")]
    phase: Literal["started", "updated", "ended"]
    severity: Literal["bell", "alert", "notice", "record", "thumbnail"]
    summary: Annotated[str, Meta(max_length=500, description="one sentence for a person")]
    place: Annotated[str, Meta(max_length=200)] = ""
    label: Literal["person", "vehicle", "bicycle", "animal"] | None = None
    score: Unit | None = None
    box: Annotated[list[Unit], Meta(min_length=4, max_length=4)] | None = None
    zones: list[Id] = []
    since: Annotated[Utc | None, Meta(description="when the incident started")] = None
    rule: Annotated[str, Meta(max_length=32, description="name of the rule that fired; empty: none")] = ""
    path: Annotated[
        list[tuple[Unit, Unit]], Meta(max_length=32, description="where the foot of the box went, oldest first")
    ] = []
    dwellms: Annotated[int, Meta(ge=0, description="how long it has been here")] | None = None
    height: Annotated[Unit | None, Meta(description="largest share of the picture's height it has taken")] = None
    jpeg: Annotated[str | None, Meta(description="type thumbnail only: a small JPEG, base64")] = None
    reason: Annotated[
        str,
        Meta(
            max_length=32,
            description="type tamper: what is wrong with the view; type node: bell-well, bell-stuck, bell-high",
        ),
    ] = ""
    onvif: Annotated[str, Meta(max_length=100, description="the topic of ONVIF's tree that names it; may be empty")] = (
        ""
    )


class CloudEvent(Message, frozen=True, kw_only=True):
    """CloudEvents 1.0, structured JSON. `id` is one message's; `data.incident` is one incident's."""

    specversion: Literal["1.0"] = "1.0"
    id: Uuid
    source: Annotated[str, Meta(max_length=100, description="wardpost/<site>/<node>")]
    type: Annotated[str, Meta(pattern=r"^wardpost\.[a-z]+$(?!\n)")]
    subject: Uuid
    time: Annotated[Utc, Meta(description="when it happened, by the node's clock at the time of recording")]
    datacontenttype: Literal["application/json"] = "application/json"
    epoch: Annotated[Uuid, Meta(description="names the node's store; sequence numbers start again with a new one")]
    sequence: Annotated[Sequence, Meta(description="of this node and epoch, never reused, gaps are explained")]
    session: int
    bootid: BootId
    monons: Annotated[int, Meta(description="CLOCK_BOOTTIME in ns: the canonical time, with bootid")]
    timeerrms: Annotated[ErrorMs | None, Meta(description="bound of the error of `time`; null: unknown")]
    historical: Annotated[bool, Meta(description="delivered late: it happened before the node could reach you")] = False
    data: EventData


class Record(Message, frozen=True, kw_only=True):
    """`record`: one line of the node's ledger, signed and chained (agent/evidence)."""

    epoch: Uuid
    sequence: Annotated[Sequence, Meta(description="shared with the events of this node and epoch")]
    line: Annotated[str, Meta(max_length=32 * 1024, description="DSSE envelope, one line, as on the ledger")]


class Receipt(Message, frozen=True, kw_only=True):
    """`ack`: the station has committed these. Only this empties a node's outbox (invariant 1)."""

    station: Id
    epoch: Uuid
    stored: Annotated[list[tuple[Sequence, Sequence]], Meta(max_length=ACK_RANGES_MAX, description="ranges, inclusive")]
    head: Annotated[int, Meta(ge=0, description="everything from 1 to here is stored")]
    time: Utc
    ledger: Annotated[
        str, Meta(max_length=8192, description="signed receipt for the newest line of the ledger, DSSE; empty: none")
    ] = ""


class Command(Message, frozen=True, kw_only=True):
    """`cmd/<verb>`: something the station asks of the node."""

    id: Annotated[
        Uuid,
        Meta(description="UUID, RFC 9562: version 7, or 5 where a case asks, whose repeated question is one command"),
    ]
    verb: Id
    expires: Utc
    args: dict[str, Any] = {}
    signature: Annotated[
        str, Meta(max_length=128, description="Ed25519 over signing_bytes(), base64; empty: unsigned")
    ] = ""

    def signing_bytes(self, site: str, node: str) -> bytes:
        """What the signature covers: the command, and for whom, so that it cannot be replayed at another node."""
        args = msgspec.json.encode(self.args, order="deterministic")
        return b"\n".join(
            [b"wardpost-command-v1", f"{site}/{node}/{self.id}/{self.verb}/{self.expires}".encode(), args]
        )


class Desired(Message, frozen=True, kw_only=True):
    """`config/desired`, retained: the settings that a node is to have. They hold until a higher revision replaces them.

    There is no expiry: a post that was dark for months is to find them, and a replay is an old revision.
    """

    revision: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    toml: Annotated[str, Meta(max_length=40 * 1024, description="a whole node.toml")]
    time: Annotated[Utc, Meta(description="when it was asked for")]
    by: Annotated[str, Meta(max_length=100, description="who asked")] = ""
    signature: Annotated[
        str, Meta(max_length=128, description="Ed25519 over signing_bytes(), base64; empty: unsigned")
    ] = ""

    def signing_bytes(self, site: str, node: str) -> bytes:
        """What the signature covers: the settings, and for whom, so that they cannot be given to another node."""
        said = [site, node, self.revision, self.time, self.by, self.toml]
        return b"wardpost-desired-v1\n" + msgspec.json.encode(said)


class Reply(Message, frozen=True, kw_only=True):
    """`reply/<id>`: what became of a command."""

    id: Uuid
    state: Literal["accepted", "done", "refused", "failed"]
    detail: Annotated[str, Meta(max_length=500)] = ""
    result: dict[str, Any] = {}


class Enrol(Message, frozen=True, kw_only=True):
    """`enrol`, under the name of a claim: a card asks for its certificate. Sent again until it is answered."""

    csr: Annotated[str, Meta(max_length=4096, description="PKCS 10 in PEM, for a P-256 key; its CN is the node's id")]
    proof: Annotated[
        str, Meta(max_length=256, description="ECDSA with SHA-256 by the claim's key over proof_bytes(), DER in base64")
    ]

    def proof_bytes(self, site: str, claim: str) -> bytes:
        """What the proof covers: the request, and by which claim, whatever broker was in between."""
        return b"\n".join([b"wardpost-enrol-v1", f"{site}/{claim}".encode(), self.csr.encode()])


class Enrolled(Message, frozen=True, kw_only=True):
    """`enrolled`, under the name of a claim: the certificate, or why there is none."""

    state: Literal["done", "refused", "failed"]
    detail: Annotated[str, Meta(max_length=500, description="failed: ask again later")] = ""
    key: Annotated[str, Meta(max_length=64, description="SHA-256 of the SubjectPublicKeyInfo that asked; hex")] = ""
    cert: Annotated[str, Meta(max_length=8192, description="the node's certificate, PEM")] = ""
    ca: Annotated[str, Meta(max_length=8192, description="who signed it, PEM")] = ""


class Renew(Message, frozen=True, kw_only=True):
    """`renew`: a node asks for its next certificate, by the key of the one it has. Sent again until it is answered.

    With a request for the very key that signs it, it says that this certificate is in use: older ones end by it.
    """

    csr: Annotated[str, Meta(max_length=4096, description="PKCS 10 in PEM, for a P-256 key; its CN is the node's id")]
    by: Annotated[
        str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)", description="SHA-256 of the SubjectPublicKeyInfo that signs; hex")
    ]
    proof: Annotated[
        str, Meta(max_length=256, description="ECDSA with SHA-256 by that key over proof_bytes(), DER in base64")
    ]
    cert: Annotated[
        str, Meta(max_length=8192, description="of that key, PEM: a register that came from a backup may not know it")
    ] = ""

    def proof_bytes(self, site: str, node: str) -> bytes:
        """What the proof covers: the request, and by whom, whatever broker was in between."""
        return b"\n".join([b"wardpost-renew-v1", f"{site}/{node}/{self.by}".encode(), self.csr.encode()])


class Renewed(Message, frozen=True, kw_only=True):
    """`renewed`: the next certificate of a node, or why there is none."""

    state: Annotated[
        Literal["done", "due", "early", "refused", "failed"],
        Meta(description="due: make another key and ask; early: the one in use is good for long; failed: ask later"),
    ]
    detail: Annotated[str, Meta(max_length=500)] = ""
    key: Annotated[str, Meta(max_length=64, description="SHA-256 of the SubjectPublicKeyInfo that asked; hex")] = ""
    cert: Annotated[str, Meta(max_length=8192, description="the certificate for it, PEM")] = ""


M = TypeVar("M", bound=Message)
_BATCH = msgspec.json.Decoder(Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=BATCH_EVENTS_MAX)])


def encode(message: Message) -> bytes:
    """JSON. Raises ValueError when it is larger than the contract allows: that is a bug of the caller."""
    payload = msgspec.json.encode(message)
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"{type(message).__name__} of {len(payload)} bytes; the limit is {PAYLOAD_BYTES_MAX}")
    return payload


def decode(payload: bytes, kind: type[M]) -> M:
    """Raises Corrupt with what is wrong, in one line; never anything else, whatever the bytes."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise Corrupt(f"{kind.__name__}: {len(payload)} bytes; the limit is {PAYLOAD_BYTES_MAX}")
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{kind.__name__}: {error}") from None


def encode_batch(parts: Many[bytes]) -> bytes:
    """Encoded messages as one JSON array, each as it would go alone. Raises ValueError beyond the contract's bounds."""
    payload = b"[" + b",".join(parts) + b"]"
    if not 0 < len(parts) <= BATCH_EVENTS_MAX or len(payload) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"a batch of {len(parts)} in {len(payload)} bytes")
    return payload


def decode_batch(payload: bytes) -> list[bytes]:
    """The parts of a batch, undecoded. Raises Corrupt when it is no array, or larger than the contract allows."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise Corrupt(f"batch: {len(payload)} bytes; the limit is {PAYLOAD_BYTES_MAX}")
    try:
        parts = _BATCH.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"batch: {error}") from None
    return [bytes(part) for part in parts]


def mark_historical(event: bytes) -> bytes:
    """The same encoded CloudEvent, marked as delivered late.

    Bytes are replaced, for a backlog is sent fast: within a JSON text the quotes would be escaped, so what is found is
    the field itself.
    """
    return event.replace(b'"historical":false', b'"historical":true', 1)


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one node."""

    site: str
    node: str

    @property
    def base(self) -> str:
        return f"{ROOT}/{self.site}/{self.node}"

    @property
    def status(self) -> str:
        return f"{self.base}/status"

    @property
    def heartbeat(self) -> str:
        return f"{self.base}/heartbeat"

    @property
    def record(self) -> str:
        return f"{self.base}/record"

    @property
    def events(self) -> str:
        """Batches of a backlog."""
        return f"{self.base}/events"

    @property
    def records(self) -> str:
        """Batches of ledger lines."""
        return f"{self.base}/records"

    @property
    def ack(self) -> str:
        return f"{self.base}/ack"

    @property
    def desired(self) -> str:
        """The settings that this node is to have; only the station says it."""
        return f"{self.base}/config/desired"

    @property
    def reported(self) -> str:
        """The settings that this node has; only the node says it."""
        return f"{self.base}/config/reported"

    @property
    def commands(self) -> str:
        """The filter a node subscribes to."""
        return f"{self.base}/cmd/+"

    @property
    def enrol(self) -> str:
        """Of a claim, not of a node."""
        return f"{self.base}/enrol"

    @property
    def enrolled(self) -> str:
        """Of a claim, not of a node."""
        return f"{self.base}/enrolled"

    @property
    def renew(self) -> str:
        """Of a node, not of a claim."""
        return f"{self.base}/renew"

    @property
    def renewed(self) -> str:
        """Of a node, not of a claim."""
        return f"{self.base}/renewed"

    def event(self, kind: str) -> str:
        return f"{self.base}/event/{kind}"

    def command(self, verb: str) -> str:
        return f"{self.base}/cmd/{verb}"

    def reply(self, command_id: str) -> str:
        return f"{self.base}/reply/{command_id}"


_TOPIC = re.compile(
    rf"{ROOT}/(?P<site>[a-z0-9-]{{1,32}})/(?P<node>[a-z0-9-]{{1,32}})"
    r"/(?P<channel>status|heartbeat|records?|ack|events?|cmd|reply|config/(?:desired|reported)|enrol|enrolled|renew|renewed)(?:/(?P<leaf>[a-z0-9-]{1,36}))?"
)
_WITH_LEAF = frozenset({"event", "cmd", "reply"})


@dataclass(frozen=True, slots=True)
class Address:
    """A topic taken apart."""

    site: str
    node: str
    channel: str  # status, heartbeat, event, events, record, records, ack, cmd, reply, enrol, enrolled, renew, renewed
    leaf: str  # the kind of event, the verb, the command's id; empty for the others

    @property
    def topics(self) -> Topics:
        return Topics(self.site, self.node)


def parse_topic(topic: str) -> Address:
    """Raises Corrupt for a topic that is not of this contract."""
    match = _TOPIC.fullmatch(topic)
    if match is None or (match["leaf"] is not None) != (match["channel"] in _WITH_LEAF):
        raise Corrupt(f"topic {topic[:200]!r} is not part of {ROOT}")
    return Address(match["site"], match["node"], match["channel"], match["leaf"] or "")


def ranges(sequences: list[int]) -> list[tuple[int, int]]:
    """Whole numbers as sorted inclusive ranges: [1, 2, 3, 7] -> [(1, 3), (7, 7)]."""
    found: list[tuple[int, int]] = []
    for sequence in sorted(set(sequences)):
        if found and found[-1][1] == sequence - 1:
            found[-1] = (found[-1][0], sequence)
        else:
            found.append((sequence, sequence))
    return found
