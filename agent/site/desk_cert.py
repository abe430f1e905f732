"""`wardpost site desk-cert`: a certificate for the desk's pages, made by the site's own authority.

Browsers that are to believe it must be given ca/ca.pem once. It is good for 800 days, for some browsers take none that
is good for more than 825 (Apple, HT210176); made again, it is for the same key.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.clock import Clock
from agent.errors import ConfigError, Corrupt
from agent.site import authority, founding
from agent.site.folder import open_site, write_all

FOLDER = "desk"
HOSTS_MAX = 16
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


def desk_cert(root: Path, hosts: Sequence[str], *, clock: Clock, out: Callable[[str], None]) -> int:
    """Raises ConfigError, Corrupt, Transient."""
    names = list(dict.fromkeys(hosts))
    if not 0 < len(names) <= HOSTS_MAX:
        raise ConfigError(f"site desk-cert: 1 to {HOSTS_MAX} names or addresses, as browsers are to write them")
    for name in names:
        if not _NAME.fullmatch(name) and not _is_address(name):
            raise ConfigError(f"site desk-cert: {name[:60]!r} is neither the name of a host nor an address")
    site = open_site(root)
    key = _key(root / FOLDER / "desk.key")
    certificate = authority.issue_desk(
        founding.load_authority(site), site.settings.name, names, key.public_key(), now_ns=clock.utc().utc_ns
    )
    register = founding.open_register(site)
    try:
        register.noted("desk-cert", "", f"{certificate.serial_number:x} for {', '.join(names)}", clock.utc().utc_ns)
    finally:
        register.close()
    pem = authority.certificate_pem(certificate)
    write_all(site.root, {f"{FOLDER}/desk.key": authority.key_pem(key), f"{FOLDER}/desk.pem": pem})
    out(f"{root / FOLDER / 'desk.pem'}: for {', '.join(names)}, good for {authority.DESK_DAYS} days; in station.toml:")
    host = f"[{names[0]}]" if ":" in names[0] else names[0]
    out(f'  [web]\n  listen = "0.0.0.0:8443"\n  origin = "https://{host}:8443"')
    out(f'  certificate = "{root / FOLDER / "desk.pem"}"')
    out(f'  key = "{root / FOLDER / "desk.key"}"')
    out(f"Browsers must be told once to trust {root / 'ca' / 'ca.pem'}")
    return 0


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The one that there is, else a new one."""
    if not path.exists():
        return authority.new_key()
    try:
        found = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise Corrupt(f"{path}: cannot be read ({error}); remove it, and a new one is made") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise Corrupt(f"{path}: not a P-256 key; remove it, and a new one is made")
    return found


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host
