"""What to do with a command: run it, refuse it with a reason, or drop it. Pure decisions; the worker acts.

A command that acts (a siren) is believed only when it is signed by the station's key, for this node, has not expired,
was issued in the life of this agent, and was not seen before. Rules where the node's own knowledge ends:

- No key configured: only harmless verbs, for nobody can prove who sends.
- A key configured: every command must be signed, harmless or not.
- The wall clock is unsynchronised: expiry cannot be judged, so harmless verbs run and acting ones are refused. A
  command held back by somebody and delivered a day later must not sound a siren.
- The wall clock is known to +- u: a command counts as expired when it *may* have expired.
- Ids of commands that act are remembered until they expire, in bounded memory; when that is full, nothing new that acts
  is accepted. Those of harmless ones are remembered apart, the oldest giving way.
- A restart forgets the ids: so an acting command issued (by the time in its UUIDv7, which is signed) before this
  agent started is refused.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from agent import wire
from agent.clock import parse_rfc3339
from agent.errors import ConfigError, Corrupt
from agent.types import MS, NS, UtcReading

IDS_MAX = 1000
LIFE_S_MAX = 3600
"""A command may live for an hour at most: it bounds how long an id must be remembered."""
LASTING_S_MAX = 30 * 86_400
"""A lasting command may live so long: half of what the store remembers (store.HOLD_MEMORY_NS)."""
ISSUER_ERROR_S = 5
"""How far the station's clock may be behind ours when we judge whether a command is older than this agent."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing a node can be asked to do. `handler` gets the args and returns the reply's result.

    It runs on the uplink's thread, so it must not block. It raises WardpostError when it cannot do it.
    """

    handler: Callable[[dict[str, Any]], dict[str, Any]]
    acting: bool  # False: harmless, it only tells something
    lasting: bool = False  # acting, safe to repeat, and worth waiting for: see above
    needs_time: bool = True  # acting: refused while the clock is unsynchronised


@dataclass(frozen=True, slots=True)
class Run:
    """Do it."""

    command: wire.Command
    verb: Verb


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer that it is not done, and why."""

    reply: wire.Reply


@dataclass(frozen=True, slots=True)
class Drop:
    """Not even an id to answer to."""

    reason: str


Decision = Run | Refuse | Drop


def load_key(path: str) -> Ed25519PublicKey | None:
    """The station's public key from a PEM file; None for an empty path. Raises ConfigError."""
    if not path:
        return None
    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"uplink.command_key: {path} is not a readable PEM public key ({error})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(
            f"uplink.command_key: {path} is not an Ed25519 key; make one with openssl genpkey -algorithm ed25519"
        )
    return key


class Judge:
    """Judges commands for one node. One thread."""

    def __init__(
        self, *, site: str, node: str, key: Ed25519PublicKey | None, verbs: Mapping[str, Verb], ids_max: int = IDS_MAX
    ) -> None:
        self._site = site
        self._node = node
        self._key = key
        self._verbs = verbs
        self._ids_max = ids_max
        self._acted: dict[str, int] = {}  # id -> utc_ns after which it may be forgotten
        self._told: dict[str, None] = {}  # ids of harmless ones, oldest first

    def judge(self, topic: str, payload: bytes, *, utc: UtcReading, started_utc_ns: int) -> Decision:
        """`started_utc_ns`: when this agent started, by the same clock as `utc`. Never raises."""
        try:
            address = wire.parse_topic(topic)
            command = wire.decode(payload, wire.Command)
        except Corrupt as error:
            return Drop(str(error))
        if (address.site, address.node, address.channel) != (self._site, self._node, "cmd"):
            return Drop(f"a command for {address.site}/{address.node} came to {self._site}/{self._node}")
        try:
            expires_ns = parse_rfc3339(command.expires)
        except (ValueError, OverflowError):
            return _refuse(command, f"expires {command.expires!r} is not a time")
        verb = self._verbs.get(command.verb)
        reason = self._objection(command, verb, address.leaf, expires_ns, utc, started_utc_ns)
        if reason or verb is None:
            return _refuse(command, reason or "unknown verb")
        if verb.lasting:
            return Run(command, verb)
        if verb.acting:
            self._acted[command.id] = expires_ns
        else:
            self._told[command.id] = None
            if len(self._told) > self._ids_max:
                del self._told[next(iter(self._told))]
        return Run(command, verb)

    def _objection(
        self,
        command: wire.Command,
        verb: Verb | None,
        leaf: str,
        expires_ns: int,
        utc: UtcReading,
        started_utc_ns: int,
    ) -> str:
        """Why not; empty when there is nothing against it. The signature comes before all that it vouches for."""
        if command.verb != leaf:
            return f"the topic says {leaf!r}, the command {command.verb!r}"
        if verb is None:
            return f"unknown verb {command.verb!r}; known here: {', '.join(sorted(self._verbs))}"
        return self._distrust(command, verb) or self._untimely(command, verb, expires_ns, utc, started_utc_ns)

    def _distrust(self, command: wire.Command, verb: Verb) -> str:
        if self._key is None and verb.acting:
            return "this node has no uplink.command_key, so it obeys nobody's command to act"
        if self._key is not None and not _verified(
            command.signature, command.signing_bytes(self._site, self._node), self._key
        ):
            return "not signed by the station's key" if command.signature else "not signed"
        return "seen before" if command.id in self._acted or command.id in self._told else ""

    def _untimely(
        self, command: wire.Command, verb: Verb, expires_ns: int, utc: UtcReading, started_utc_ns: int
    ) -> str:
        if utc.unc_ns is None:
            return (
                "the node's clock is not synchronised: it cannot judge whether the command has expired"
                if verb.acting and verb.needs_time
                else ""
            )
        life_s_max = LASTING_S_MAX if verb.lasting else LIFE_S_MAX
        once = verb.acting and not verb.lasting
        self._forget_expired(utc.utc_ns - utc.unc_ns)
        issued_by_ns = _issued_ns(command.id) + ISSUER_ERROR_S * NS + utc.unc_ns
        objections = {
            "expired": utc.utc_ns + utc.unc_ns >= expires_ns,
            f"expires too far ahead; {life_s_max} s at most": expires_ns - utc.utc_ns > life_s_max * NS + utc.unc_ns,
            "issued before this node started; send it again": once and issued_by_ns < started_utc_ns,
            f"{self._ids_max} commands in an hour are too many; try again later": (
                once and len(self._acted) >= self._ids_max
            ),
        }
        return next((reason for reason, holds in objections.items() if holds), "")

    def _forget_expired(self, sure_ns: int) -> None:
        for command_id in [i for i, expires_ns in self._acted.items() if expires_ns < sure_ns]:
            del self._acted[command_id]


def believe(payload: bytes, *, site: str, node: str, key: Ed25519PublicKey | None) -> wire.Desired:
    """Desired settings, as far as the station has signed them for this node. Raises Corrupt with why not."""
    wanted = wire.decode(payload, wire.Desired)
    if key is None:
        raise Corrupt("this node has no uplink.command_key, so it takes nobody's settings")
    if not _verified(wanted.signature, wanted.signing_bytes(site, node), key):
        raise Corrupt("not signed by the station's key" if wanted.signature else "not signed")
    return wanted


def _refuse(command: wire.Command, reason: str) -> Refuse:
    return Refuse(wire.Reply(id=command.id, state="refused", detail=reason[:500]))


def _verified(signature: str, data: bytes, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), data)
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True


def _issued_ns(command_id: str) -> int:
    """When a UUIDv7 was made, in UTC ns; 0 for any other kind of id, which is older than everything."""
    try:
        number = uuid.UUID(command_id)
    except ValueError:
        return 0
    return (number.int >> 80) * MS if number.version == 7 else 0
