"""The kit of one node: the folder that `wardpost provision` writes, read strictly before a byte of it reaches a card.

A post that starts with a wrong file has to be climbed to with a ladder, so everything that can be judged at the desk is
judged here: names, keys that do not fit their certificates, paths that the installer will not serve, Wi-Fi passwords
that no access point takes.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from msgspec import Meta

from agent.config import Config, Id, Settings, load
from agent.errors import ConfigError

IDENTITY = "/var/lib/wardpost/identity"
NODE_PATHS: Mapping[str, str] = {
    "node.data": "/var/lib/wardpost",
    "uplink.tls.ca": f"{IDENTITY}/ca.pem",
    "uplink.tls.cert": f"{IDENTITY}/node.pem",
    "uplink.tls.key": f"{IDENTITY}/node.key",
    "uplink.command_key": "/etc/wardpost/command.pub",
    "uplink.station_key": "/etc/wardpost/station.pub",
}
"""Where the installer puts things, by the setting that must name it."""

FILES = ("node.toml", "ca.pem", "command.pub", "station.pub", "claim.pem", "claim.key", "claim.toml", "network.toml")
RELEASE_KEY = "release.pub"  # only in the kit of a site that signs releases
FILE_BYTES_MAX = 256 * 1024
_CLAIM = re.compile(r"claim-[a-z0-9]{8,24}")
_HOSTNAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_USERS_OF_OTHERS = frozenset({"root", "wardpost", "nobody", "daemon", "www-data", "sshd"})
_SSH_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9@.-]+) [A-Za-z0-9+/=]{40,4096}( .*)?"
)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class WifiSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[wifi] of network.toml."""

    ssid: str  # 1 to 32 bytes of UTF-8
    psk: str = ""  # 8 to 63 bytes, or 64 hex digits; empty: an open network
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}$(?!\n)")]  # ISO 3166: the radio stays off without it


class EthernetSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[ethernet] of network.toml: DHCP."""


class LteSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"password": "pass"}):
    """[lte] of network.toml."""

    apn: str
    user: str = ""
    password: str = ""
    pin: Annotated[str, Meta(pattern=r"^([0-9]{4,8})?$(?!\n)")] = ""


class Network(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """network.toml: how the post is reached, and who may log in."""

    hostname: str
    time_zone: str = "UTC"
    user: str = "technician"
    ssh_keys: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    wifi: WifiSettings | None = None
    ethernet: EthernetSettings | None = None
    lte: LteSettings | None = None


class Claim(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """claim.toml: the one-time right of this node to ask for its certificate."""

    node: Id
    site: Id
    claim: str  # common name of claim.pem
    expires: Any  # a time with its offset, as TOML's own or as text
    brokers: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]


@dataclass(frozen=True, slots=True)
class Kit:
    """A kit that was found good.

    `files`: name to content, of `FILES` without network.toml: its passwords go on the card in other forms.
    """

    node: str
    site: str
    network: Network
    claim: Claim
    expires: dt.datetime
    files: Mapping[str, bytes]
    setup_code: str = ""  # of the installation page


def kit_folder(site: Path, node: str) -> Path:
    """DIR/nodes/NODE/kit. Raises ConfigError with what there is instead."""
    folder = site / "nodes" / node / "kit"
    if not re.fullmatch(r"[a-z0-9-]{1,32}", node):
        raise ConfigError(f"{node!r} is no name of a node: lower-case letters, digits and hyphens, 32 at most")
    if folder.is_dir():
        return folder
    if not site.is_dir():
        raise ConfigError(f"{site}: no such folder; make the site with `wardpost site init {site} --site NAME`")
    there = sorted(path.parent.name for path in site.glob("nodes/*/kit"))
    known = f"; there are kits for {', '.join(there[:20])}" if there else ""
    raise ConfigError(f"{site} has no kit for {node}{known}; make it with `wardpost provision {node} --site {site}`")


def read_kit(folder: Path, *, node: str, now: dt.datetime) -> Kit:
    """Reads and judges every file of a kit. `now`: the technician's clock, for the claim.

    Raises ConfigError with everything that is wrong, a line each.
    """
    files: dict[str, bytes] = {}
    missing = []
    for name in FILES:
        try:
            files[name] = _read(folder / name)
        except OSError as error:
            missing.append(f"{folder / name}: {error.strerror or error}")
    if missing:
        raise ConfigError("\n".join([*missing, "the kit is not whole; make it anew with `wardpost provision`"]))
    if (folder / RELEASE_KEY).exists():
        files[RELEASE_KEY] = _read(folder / RELEASE_KEY)
    settings = load(folder / "node.toml", Config)
    network = load(folder / "network.toml", Network)
    claim = load(folder / "claim.toml", Claim)
    expires = _instant(folder / "claim.toml", claim.expires)
    found = [
        *_identity(settings, claim, node),
        *_paths(settings),
        *(f"network.toml: {problem}" for problem in network_problems(network)),
        *_claim(files, claim, expires, now),
        *_keys(files),
        *_release(settings, files),
    ]
    if found:
        raise ConfigError("\n".join(f"{folder}/{problem}" for problem in found))
    del files["network.toml"]  # holds passwords, and nothing that the card does not get in another form
    return Kit(
        node=node,
        site=claim.site,
        network=network,
        claim=claim,
        expires=expires,
        files=files,
        setup_code=settings.setup_page.code,
    )


def network_problems(network: Network) -> Iterator[str]:
    """What is wrong with network.toml beyond its types, a line each."""
    if not _HOSTNAME.fullmatch(network.hostname):
        yield f"hostname: {network.hostname!r} is none; lower-case letters, digits and hyphens, 63 at most"
    if not _USER.fullmatch(network.user) or network.user in _USERS_OF_OTHERS:
        yield f"user: {network.user!r} cannot be the technician's login; a name like technician"
    try:
        ZoneInfo(network.time_zone)
    except (KeyError, ValueError, OSError):
        yield f"time_zone: {network.time_zone!r} is not known; an IANA name like Asia/Ho_Chi_Minh"
    for index, key in enumerate(network.ssh_keys):
        if not _SSH_KEY.fullmatch(key) or _UNPRINTABLE.search(key):
            yield f"ssh_keys[{index}]: is no public key of ssh; one line, as in ~/.ssh/id_ed25519.pub"
    if network.wifi is None and network.ethernet is None and network.lte is None:
        yield "has none of [wifi], [ethernet] and [lte]: the post would never be heard of"
    if network.wifi is not None:
        yield from _wifi_problems(network.wifi)
    if network.lte is not None:
        yield from _lte_problems(network.lte)


def _wifi_problems(wifi: WifiSettings) -> Iterator[str]:
    size = len(wifi.ssid.encode())
    if not 1 <= size <= 32:
        yield f"wifi.ssid: is {size} bytes long in UTF-8; 1 to 32 are allowed (é takes 2, ữ 3, an emoji 4)"
    if _UNPRINTABLE.search(wifi.ssid):
        yield "wifi.ssid: holds a control character"
    # The password itself is never repeated in a message: it would stand in a terminal's history.
    if wifi.psk and not re.fullmatch("[0-9a-fA-F]{64}", wifi.psk) and not 8 <= len(wifi.psk.encode()) <= 63:
        yield f"wifi.psk: is {len(wifi.psk.encode())} bytes long; 8 to 63 are allowed, or 64 hex digits"
    if _UNPRINTABLE.search(wifi.psk):
        yield "wifi.psk: holds a control character"


def _lte_problems(lte: LteSettings) -> Iterator[str]:
    if not lte.apn:
        yield "lte.apn: is empty; the mobile operator names it"
    for name, value in (("apn", lte.apn), ("user", lte.user), ("pass", lte.password)):
        if _UNPRINTABLE.search(value) or len(value.encode()) > 128:
            yield f"lte.{name}: holds a control character, or more than 128 bytes"


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise OSError(f"is larger than {FILE_BYTES_MAX} bytes")
    if not data:
        raise OSError("is empty")
    return data


def _instant(path: Path, value: Any) -> dt.datetime:
    try:
        instant = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        instant = None
    if not isinstance(instant, dt.datetime):
        raise ConfigError(f"{path}: expires: {value!r} is no time; 2026-12-01T00:00:00Z")
    if instant.tzinfo is None:
        raise ConfigError(f"{path}: expires: {value!r} has no offset from UTC; 2026-12-01T00:00:00Z")
    return instant


def _identity(settings: Config, claim: Claim, node: str) -> Iterator[str]:
    if settings.node.id != node:
        yield f"node.toml: node.id is {settings.node.id}, this is the kit of {node}: it belongs to another node"
    if claim.node != node:
        yield f"claim.toml: node is {claim.node}, this is the kit of {node}: it belongs to another node"
    if claim.site != settings.node.site:
        yield f"claim.toml: site is {claim.site}, but node.toml says {settings.node.site}: it belongs to another site"


def _paths(settings: Config) -> Iterator[str]:
    if settings.uplink.tls is None:
        yield "node.toml: uplink.tls is missing: the node's certificate would not be used"
        return
    tls, uplink = settings.uplink.tls, settings.uplink
    values = (settings.node.data, tls.ca, tls.cert, tls.key, uplink.command_key, uplink.station_key)
    for (name, right), value in zip(NODE_PATHS.items(), values, strict=True):
        if value != right:
            yield f"node.toml: {name} is {value!r}; on a card made by `wardpost flash` it lies at {right!r}"


def _claim(files: Mapping[str, bytes], claim: Claim, expires: dt.datetime, now: dt.datetime) -> Iterator[str]:
    if not _CLAIM.fullmatch(claim.claim):
        yield f"claim.toml: claim: {claim.claim!r} is none; claim- and 8 to 24 lower-case letters and digits"
    if expires <= now:
        yield (
            f"claim.toml: the claim has expired on {expires.isoformat()} (now {now.isoformat(timespec='seconds')});"
            " make a new kit with `wardpost provision`, or correct this computer's clock"
        )
    try:
        certificate = x509.load_pem_x509_certificate(files["claim.pem"])
        names = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        public = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        yield "claim.pem: is no certificate (PEM)"
        return
    if names != [claim.claim]:
        yield f"claim.pem: was issued to {', '.join(names) or 'nobody'}, but claim.toml says {claim.claim}"
    try:
        private = serialization.load_pem_private_key(files["claim.key"], password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield "claim.key: is no private key (PEM, without a password)"
        return
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != public:
        yield "claim.key: does not belong to claim.pem"


def _keys(files: Mapping[str, bytes]) -> Iterator[str]:
    try:
        x509.load_pem_x509_certificates(files["ca.pem"])
    except ValueError:
        yield "ca.pem: is no certificate (PEM)"
    for name in ("command.pub", "station.pub", RELEASE_KEY):
        if name not in files:
            continue  # only the last may be missing; `read_kit` has asked
        try:
            key = serialization.load_pem_public_key(files[name])
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ed25519.Ed25519PublicKey):
            yield f"{name}: is no public Ed25519 key (PEM)"


def _release(settings: Config, files: Mapping[str, bytes]) -> Iterator[str]:
    """The key by which releases are believed must reach the node: in the settings, or as a file of the kit."""
    key = settings.release.key
    if key and not re.fullmatch("[0-9a-f]{64}", key):
        if key != f"/etc/wardpost/{RELEASE_KEY}":
            yield f"node.toml: release.key is {key!r}; on a card it lies at '/etc/wardpost/{RELEASE_KEY}'"
        elif RELEASE_KEY not in files:
            yield f"{RELEASE_KEY}: No such file, but node.toml names it: the post would believe no release"
