"""Commands signed with the station's key, for one node each, and put into the queue."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent import wire
from agent.clock import Clock, rfc3339
from agent.errors import ConfigError
from agent.station.orders import OrderBook
from agent.types import NS


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
    return msgspec.structs.replace(bare, signature=_signature(key, bare.signing_bytes(site, node)))


def signed_settings(
    key: Ed25519PrivateKey, *, site: str, node: str, revision: int, toml: str, time: str, by: str
) -> wire.Desired:
    """Settings that this node will believe to be desired."""
    bare = wire.Desired(revision=revision, toml=toml, time=time, by=by)
    return msgspec.structs.replace(bare, signature=_signature(key, bare.signing_bytes(site, node)))


def _signature(key: Ed25519PrivateKey, data: bytes) -> str:
    return base64.b64encode(key.sign(data)).decode()


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose commands, signed with which key, and for how many days a dark node may take them."""

    site: str
    key: str  # path of the private key, PEM; read at each command
    days: float

    def queue(
        self, book: OrderBook, node: str, verb: str, args: dict[str, Any], *, command_id: str, clock: Clock
    ) -> None:
        """Signs a command and queues it; the station sends it. Raises ConfigError, Transient."""
        asked_ns = clock.utc().utc_ns
        expires_ns = asked_ns + round(self.days * 86_400 * NS)
        command = signed(
            command_key(self.key),
            site=self.site,
            node=node,
            verb=verb,
            args=args,
            command_id=command_id,
            expires=rfc3339(expires_ns),
        )
        try:
            wire.encode(command)
        except ValueError:
            raise ConfigError(f"{verb}: the command is larger than {wire.PAYLOAD_BYTES_MAX >> 10} KiB") from None
        book.add(node, command, asked_utc_ns=asked_ns, expires_utc_ns=expires_ns)
