"""`wardpost hold --node`: signs a command at the station and queues it for a node that may be dark."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent import wire
from agent.clock import SystemClock, parse_rfc3339, rfc3339, uuid7_maker
from agent.errors import ConfigError, Corrupt
from agent.station.main import StationSettings
from agent.station.orders import OrderBook
from agent.types import NS

_TIMES = ("from", "to", "until")


def command_key(path: str) -> Ed25519PrivateKey:
    """The station's private key, from a PEM file. Raises ConfigError."""
    if not path:
        raise ConfigError("station.command_key: not set; nodes obey only what is signed by the key they know")
    try:
        key = load_pem_private_key(Path(path).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"station.command_key: {path} is not a readable PEM private key ({error})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"station.command_key: {path} is not an Ed25519 key")
    return key


def signed(
    key: Ed25519PrivateKey, *, site: str, node: str, verb: str, args: dict[str, Any], command_id: str, expires: str
) -> wire.Command:
    """A command that this node will believe."""
    bare = wire.Command(id=command_id, verb=verb, expires=expires, args=args)
    signature = base64.b64encode(key.sign(bare.signing_bytes(site, node))).decode()
    return wire.Command(id=command_id, verb=verb, expires=expires, args=args, signature=signature)


def order(
    settings: StationSettings,
    node: str,
    verb: str,
    args: dict[str, Any],
    *,
    as_json: bool,
    out: Callable[[str], None],
) -> int:
    """Queues it (or lists, for `holds`); the station sends it and notes the answer. Raises ConfigError, Transient."""
    clock = SystemClock()
    try:
        wire.parse_topic(wire.Topics(settings.station.site, node).heartbeat)
    except Corrupt:
        raise ConfigError(f"--node {node!r}: a node's id is 1 to 32 lower-case letters, digits and hyphens") from None
    book = OrderBook(Path(settings.station.data))
    book.open()
    try:
        if verb != "holds":
            asked_ns = clock.utc().utc_ns
            expires_ns = asked_ns + round(settings.station.order_days * 86_400 * NS)
            command = signed(
                command_key(settings.station.command_key),
                site=settings.station.site,
                node=node,
                verb=verb,
                args=_plain_times(args),
                command_id=uuid7_maker(clock)(),
                expires=rfc3339(expires_ns),
            )
            book.add(node, command, asked_utc_ns=asked_ns, expires_utc_ns=expires_ns)
        listed = book.of(node)
    finally:
        book.close()
    shown = listed if verb == "holds" else listed[:1]
    rows = [
        {
            "id": one.id,
            "verb": one.verb,
            "asked": rfc3339(one.asked_utc_ns),
            "expires": rfc3339(one.expires_utc_ns),
            "state": one.state,
            "sent": one.sent,
            "args": wire.decode(one.payload, wire.Command).args,
            "answer": json.loads(one.answer) if one.answer else None,
        }
        for one in shown
    ]
    out(json.dumps(rows, indent=2) if as_json else "\n".join(_words(node, row) for row in rows) or f"{node}: no orders")
    return 0


def _plain_times(args: dict[str, Any]) -> dict[str, Any]:
    """Times as UTC: the node must not take them in its own zone."""
    found = dict(args)
    for name in _TIMES:
        if name in found:
            try:
                found[name] = rfc3339(parse_rfc3339(str(found[name])))
            except ValueError as error:
                raise ConfigError(f"--{name}: {error}") from None
    return found


def _words(node: str, row: dict[str, Any]) -> str:
    answer = row["answer"] or {}
    said = answer.get("result", {}).get("summary") or answer.get("detail") or ""
    waits = f"sent {row['sent']} times, valid until {row['expires']}" if row["state"] == "waiting" else said
    asked = ", ".join(f"{name} {value}" for name, value in row["args"].items())
    return f"{row['id']}  {node}: {row['verb']} ({asked}): {row['state']}" + (f"; {waits}" if waits else "")
