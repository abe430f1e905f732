"""A site's life: made, backed up and brought back; certificates revoked; the brokers' configuration written.

Each function leaves the folder whole when it is cut anywhere: files are replaced at once, the register is one
transaction, and what is derived from it (CRL, configuration) is written after it, again at the next call.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from agent.clock import Clock, rfc3339
from agent.disk import PosixDisk
from agent.errors import ConfigError, Corrupt
from agent.evidence import keys
from agent.site import authority, backup, brokers
from agent.site.folder import (
    REGISTER_FILE,
    SITE_FILE,
    SiteFolder,
    check_name,
    making,
    open_site,
    refuse_existing,
    toml_text,
    write_all,
)
from agent.site.register import Certificate, Register
from agent.types import NS
from agent.uplink import Broker, parse_broker

BROKERS_MAX = 8
CLUSTER_PORT = 6222
_STATION_DATA = "station/data"


def broker_urls(hosts: Sequence[str]) -> list[Broker]:
    """`HOST[:PORT]` of each broker, as it is reached by TLS. Raises ConfigError."""
    if not 0 < len(hosts) <= BROKERS_MAX:
        raise ConfigError(f"--broker: give one to {BROKERS_MAX}, HOST or HOST:PORT, as the posts reach it")
    found = []
    for host in hosts:
        text = host if host.startswith("mqtts://") else f"mqtts://{host}"
        if host.startswith("mqtt://"):
            raise ConfigError(f"--broker: {host}: a site speaks TLS only; write HOST:8883")
        found.append(parse_broker(text))
    if len(set(found)) != len(found):
        raise ConfigError("--broker: one of them is named twice")
    return found


def found_site(root: Path, *, name: str, hosts: Sequence[str], clock: Clock) -> SiteFolder:
    """Makes a site at `root`, which must not exist or be empty. Raises ConfigError, Transient."""
    check_name("--site", name)
    urls = broker_urls(hosts)
    now_ns = clock.utc().utc_ns
    with making(root) as scratch:
        _fill(scratch, root.absolute(), name, urls, now_ns)
    return open_site(root)


def _fill(folder: Path, root: Path, name: str, urls: Sequence[Broker], now_ns: int) -> None:
    """Everything of a new site. `root` is where it will be found."""
    ca = authority.make_authority(name, now_ns=now_ns)
    station_key, broker_key = authority.new_key(), authority.new_key()
    command, release = keys.generate(), keys.generate()
    station = authority.issue_station(ca, station_key.public_key(), now_ns=now_ns)
    hosts = list(dict.fromkeys(url.host for url in urls))
    broker = authority.issue_broker(ca, name, hosts, broker_key.public_key(), now_ns=now_ns)
    ca_pem = authority.certificate_pem(ca.certificate)
    write_all(
        folder,
        {
            "ca/ca.pem": ca_pem,
            "ca/ca.key": authority.key_pem(ca.key),
            "station/ca.pem": ca_pem,
            "station/station.pem": authority.certificate_pem(station),
            "station/station.key": authority.key_pem(station_key),
            "station/command.key": _private(command),
            "station/command.pub": keys.public_pem(command.public),
            "release/release.key": _private(release),
            "release/release.pub": keys.public_pem(release.public),
            "station/station.toml": _station_toml(root, name, urls).encode(),
            "broker/ca.pem": ca_pem,
            "broker/broker.pem": authority.certificate_pem(broker),
            "broker/broker.key": authority.key_pem(broker_key),
        },
    )
    data = folder / _STATION_DATA
    data.mkdir(mode=0o700)
    receipt = keys.make(PosixDisk(data), "station")
    (folder / "nodes").mkdir(mode=0o700)
    register = Register(folder / REGISTER_FILE)
    try:
        register.create(name, [str(url) for url in urls])
        register.issued(
            [
                of_certificate(ca.certificate, "authority", now_ns),
                of_certificate(station, "station", now_ns),
                of_certificate(broker, "broker", now_ns),
            ],
            now_ns,
        )
        crl = authority.make_crl(ca, [], number=register.next_crl(), now_ns=now_ns)
        configuration = broker_files(name, urls, register, now_ns)
    finally:
        register.close()
    write_all(
        folder,
        {
            "station/station.pub": keys.public_pem(receipt.public),
            "ca/crl.pem": crl,
            "broker/crl.pem": crl,
            **configuration,
            SITE_FILE: _site_toml(name, urls, now_ns).encode(),
        },
    )


def of_certificate(
    certificate: x509.Certificate, kind: str, now_ns: int, *, node: str = "", generation: int = 0
) -> Certificate:
    """The register's row of a certificate."""
    (name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("only P-256 certificates are made here")
    return Certificate(
        serial=f"{certificate.serial_number:x}",
        kind=kind,
        name=str(name.value),
        node=node,
        generation=generation,
        key_sha256=authority.key_digest(key),
        pem=authority.certificate_pem(certificate).decode(),
        not_after_utc_ns=int(certificate.not_valid_after_utc.timestamp()) * NS,
        issued_utc_ns=now_ns,
    )


def load_authority(site: SiteFolder) -> authority.Authority:
    """The site's authority with its key. Raises ConfigError, Corrupt."""
    return authority.load_authority(site.read("ca/ca.pem"), site.read("ca/ca.key"))


def open_register(site: SiteFolder) -> Register:
    """The site's register, open. Raises ConfigError, Corrupt, Transient."""
    register = Register(site.register_path)
    register.open()
    return register


# -- the brokers ------------------------------------------------------------------------------------------------------


def broker_files(
    name: str, urls: Sequence[Broker], register: Register, now_ns: int, at: brokers.Listener | None = None
) -> dict[str, bytes]:
    """The configuration of each kind of broker, by file name in the site's folder.

    `at`: where it listens and where its files are; by default on the port of the first broker, files in /etc/wardpost.
    """
    listener = at or brokers.Listener(port=urls[0].port)
    users = brokers.Users(
        name,
        tuple((one.node, one.generation) for one in register.nodes() if one.state != "revoked"),
        tuple(one.claim for one in register.live_claims(now_ns)),
    )
    files = {
        "broker/mosquitto.conf": brokers.mosquitto_conf(listener),
        f"broker/{brokers.MOSQUITTO_ACL}": brokers.mosquitto_acl(users),
        "broker/nats.conf": brokers.nats_conf(users, listener),
    }
    names = [url for url in urls if not _is_address(url.host)]  # a route is known by the host name in its certificate
    if len(names) == len(urls) >= brokers.CLUSTER_MEMBERS_MIN:
        for number, url in enumerate(urls, 1):
            member = brokers.Member(
                name=f"broker-{number}",
                listen=f"0.0.0.0:{CLUSTER_PORT}",
                routes=tuple(f"{other.host}:{CLUSTER_PORT}" for other in urls if other is not url),
            )
            files[f"broker/nats-cluster-{number}.conf"] = brokers.nats_conf(users, listener, member=member)
    return {name: text.encode() for name, text in files.items()}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def write_brokers(site: SiteFolder, register: Register, now_ns: int) -> None:
    """Writes the brokers' configuration and the CRL anew from the register. Raises ConfigError, Corrupt, Transient."""
    ca = load_authority(site)
    revoked = [
        (int(one.serial, 16), one.revoked_utc_ns or now_ns)
        for one in register.revoked()
        if days_left(one, now_ns) > -CRL_KEEPS_DAYS
    ]
    crl = authority.make_crl(ca, revoked, number=register.next_crl(), now_ns=now_ns)
    urls = [parse_broker(url) for url in site.settings.brokers]
    files = {"ca/crl.pem": crl, "broker/crl.pem": crl, **broker_files(site.settings.name, urls, register, now_ns)}
    write_all(site.root, files)


SERVER_WARN_DAYS = 180
"""Before broker's or station's certificate ends: so early it is said."""
CRL_KEEPS_DAYS = 30
"""An expired certificate stays on the list for so long, for brokers whose clock is behind."""


def days_left(certificate: Certificate, now_ns: int) -> float:
    """Days until it expires; negative: since."""
    return (certificate.not_after_utc_ns - now_ns) / (86_400 * NS)


def servers(register: Register) -> list[Certificate]:
    """The certificates of broker and station that are in use: the newest of each."""
    found = [register.certificates(kind) for kind in ("broker", "station")]
    return [one[-1] for one in found if one]


def renew_servers(site: SiteFolder, register: Register, now_ns: int, *, kinds: Sequence[str]) -> list[Certificate]:
    """Makes new certificates for the keys that broker and station have, so that one file each is all that changes.

    Raises ConfigError, Corrupt, Transient.
    """
    ca = load_authority(site)
    made: list[Certificate] = []
    for kind in kinds:
        path = f"{kind}/{kind}.pem"
        try:
            key = x509.load_pem_x509_certificate(site.read(path)).public_key()
        except ValueError:
            raise Corrupt(f"{site.root / path}: is no certificate; restore the site from its backup") from None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise Corrupt(f"{site.root / path}: is for a key that was not made here")
        if kind == "station":
            new = authority.issue_station(ca, key, now_ns=now_ns)
        else:
            hosts = list(dict.fromkeys(parse_broker(url).host for url in site.settings.brokers))
            new = authority.issue_broker(ca, site.settings.name, hosts, key, now_ns=now_ns)
        row = of_certificate(new, kind, now_ns)
        register.issued([row], now_ns)
        write_all(site.root, {path: authority.certificate_pem(new)})
        made.append(row)
    return made


# -- revocation -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation has changed."""

    serials: list[str]


def revoke(site: SiteFolder, *, node: str | None, serial: str | None, reason: str, clock: Clock) -> Revoked:
    """Revokes all that a post has, or one certificate, and writes CRL and configuration. Doing it twice is no error.

    Raises ConfigError for what the register does not know, or must not lose.
    """
    register = open_register(site)
    try:
        now_ns = clock.utc().utc_ns
        if node is not None:
            if register.node(node) is None:
                known = ", ".join(one.node for one in register.nodes()[:20]) or "none yet"
                raise ConfigError(f"{node}: no post of that name in the register; known: {known}")
            serials = register.revoke_node(node, now_ns, reason)
        else:
            number = (serial or "").lower().replace(":", "").lstrip("0")
            found = register.certificate(number)
            if found is None:
                raise ConfigError(f"{serial}: no certificate of that serial number in the register")
            if found.kind not in ("claim", "node"):
                raise ConfigError(
                    f"{serial}: this is the {found.kind}'s; without it the whole site stops. Make a new site"
                )
            serials = register.revoke_serial(number, now_ns, reason)
        write_brokers(site, register, now_ns)
    finally:
        register.close()
    return Revoked(serials)


# -- backup -----------------------------------------------------------------------------------------------------------


def back_up(site: SiteFolder, output: Path, passphrase: str, *, cost: int = backup.COST) -> int:
    """Writes the encrypted backup; returns how many files are in it. Raises ConfigError, Transient.

    The station's own database is no part of it: what it holds came from the posts, and grows. Its key is.
    """
    if output.exists() or output.is_symlink():
        raise ConfigError(f"{output}: is there already; a backup is never overwritten")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"{output.parent}: no such folder")
    files = {}
    for path in sorted(site.root.rglob("*")):
        name = path.relative_to(site.root).as_posix()
        if path.is_symlink() or not path.is_file() or name.endswith((".tmp", "-journal")):
            continue
        if name.startswith(f"{_STATION_DATA}/") and not name.startswith(f"{_STATION_DATA}/keys/"):
            continue
        if "/." not in f"/{name}" and name != REGISTER_FILE:  # not what a run that was cut has left
            files[name] = site.read(name)
    register = open_register(site)
    try:
        files[REGISTER_FILE] = register.serialized()
    finally:
        register.close()
    sealed = backup.seal(files, passphrase, cost=cost)
    if backup.unseal(sealed, passphrase) != files:
        raise Corrupt("the backup does not read back as what went in; nothing was written")
    PosixDisk(output.absolute().parent).replace(output.name, sealed, private=True)
    return len(files)


def restore(source: Path, root: Path, passphrase: str) -> SiteFolder:
    """Brings a site back at `root`, which must not exist or be empty. Raises ConfigError, Corrupt, Transient."""
    refuse_existing(root.absolute())  # before a minute of asking and computing
    try:
        with source.open("rb") as file:
            data = file.read(backup.BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from None
    try:
        files = backup.unseal(data, passphrase)
    except Corrupt as error:
        raise Corrupt(f"{source}: {error}") from None
    missing = {SITE_FILE, REGISTER_FILE, "ca/ca.pem", "ca/ca.key"} - files.keys()
    if missing:
        raise Corrupt(f"{source}: the backup lacks {', '.join(sorted(missing))}")
    with making(root) as scratch:
        write_all(scratch, files)
        (scratch / "nodes").mkdir(mode=0o700, exist_ok=True)
        site = open_site(scratch)
        load_authority(site)
        open_register(site).close()
        urls = [parse_broker(url) for url in site.settings.brokers]
        text = _station_toml(root.absolute(), site.settings.name, urls)
        write_all(scratch, {"station/station.toml": text.encode()})
    return open_site(root)


def _private(key: keys.Key) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _site_toml(name: str, urls: Sequence[Broker], now_ns: int) -> str:
    return f"""\
# A Wardpost site: its certificate authority, its register, and the keys of its station and broker.
# Whoever has this folder can make posts of this site and command them. Keep it at headquarters, on one machine, and an
# encrypted backup of it (`wardpost site backup`) somewhere else. See deploy/site.md.

name = {toml_text(name)}
brokers = [{", ".join(toml_text(str(url)) for url in urls)}]
created = {toml_text(rfc3339(now_ns))}
"""


def _station_toml(root: Path, name: str, urls: Sequence[Broker]) -> str:
    here = root / "station"
    return f"""\
# The station of this site: wardpost station --config {here}/station.toml
# Every setting is explained in deploy/station.example.toml.

[station]
site = {toml_text(name)}
id = "hq"
data = {toml_text(str(root / _STATION_DATA))}
command_key = {toml_text(str(here / "command.key"))}
register = {toml_text(str(root))}

[broker]
brokers = [{", ".join(toml_text(str(url)) for url in urls)}]

[broker.tls]
ca = {toml_text(str(here / "ca.pem"))}
cert = {toml_text(str(here / "station.pem"))}
key = {toml_text(str(here / "station.key"))}
"""
