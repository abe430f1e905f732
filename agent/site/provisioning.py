"""`wardpost provision`: from what a person says of a post to its kit and its row in the register.

The order makes every cut harmless: the kit first (a claim that the register does not know is refused), then the
register in one transaction, then the brokers' configuration, which the next command writes again.
"""

from __future__ import annotations

import secrets
import shutil
import string
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from agent import config
from agent.card.kit import EthernetSettings, LteSettings, Network, WifiSettings
from agent.clock import Clock, rfc3339
from agent.config import Config, SetupPageSettings
from agent.errors import ConfigError
from agent.setup_page.gate import CODE_ALPHABET, CODE_CHARS, spelled
from agent.site import authority, founding, kit, label
from agent.site.folder import SiteFolder, check_name, making, open_site, write_all
from agent.site.register import Claim, Node, Register
from agent.site.whereabouts import SHARED, check_text, parse_position
from agent.types import NS
from agent.vision.faults import faults
from agent.wire import CLAIM_PREFIX

CLAIM_CHARS = 16
SSH_KEYS_MAX = 16
_CHECKOUT = Path(__file__).resolve().parents[2] / "deploy/profiles"
_INSTALLED = Path(sys.prefix) / "share/wardpost/profiles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line says."""

    node: str
    profile: str = ""
    device: str = ""
    place: str = ""
    custodian: str = ""
    consent: str = ""
    house: str = ""
    pole: str = ""
    provider: str = ""
    position: str = ""
    camera_url: str = ""
    time_zone: str = ""
    user: str = "technician"
    ssh_keys: tuple[Path, ...] = ()
    wifi: str | None = None
    psk_file: Path | None = None
    country: str = ""
    ethernet: bool = False
    lte: str | None = None
    lte_user: str = ""
    lte_password_file: Path | None = None
    lte_pin: str = ""
    claim_days: int = 14
    again: bool = False


def provision(root: Path, asked: Asked, *, clock: Clock, out: Callable[[str], None]) -> int:
    """Writes the kit of a post and registers it. Nothing is changed when anything is wrong.

    Raises ConfigError, Corrupt, Transient.
    """
    site = open_site(root)
    check_name("node", asked.node)
    if not 1 <= asked.claim_days <= authority.CLAIM_DAYS_MAX:
        raise ConfigError(f"--claim-days: {asked.claim_days}; 1 to {authority.CLAIM_DAYS_MAX}")
    for what in ("device", "place", "custodian", "consent", *SHARED):
        check_text(what, getattr(asked, what))
    parse_position(asked.position)
    post = _post(site, asked)
    _judge(post)
    register = founding.open_register(site)
    try:
        generation = _generation(register, asked)
        now_ns = clock.utc().utc_ns
        label_told = _write(site, post, asked, register, generation=generation, now_ns=now_ns)
        founding.write_brokers(site, register, now_ns)
    finally:
        register.close()
    folder = site.root / "nodes" / asked.node / "kit"
    out(f"{asked.node}: kit {folder}, its claim is good for {asked.claim_days} days")
    if label_told:
        out(f"no label was drawn: {label_told}")
    out(f"Copy {site.root}/broker/wardpost.acl and nats.conf to the broker's machine and reload the broker")
    out("(Mosquitto takes the new post without it; nats-server does not).")
    out(f"Next: wardpost flash IMAGE {asked.node} --site {site.root}")
    return 0


def find_profile(name: str) -> Path:
    """A profile by its name, or a file by its path. Raises ConfigError with those that are there."""
    if "/" in name or name.endswith(".toml"):
        return Path(name)
    for folder in (_CHECKOUT, _INSTALLED):
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    there = sorted({path.stem for folder in (_CHECKOUT, _INSTALLED) for path in folder.glob("*.toml")})
    known = f"known: {', '.join(there)}; or " if there else ""
    raise ConfigError(f"--profile: there is no {name!r}; {known}give the path of a file of your own")


def _post(site: SiteFolder, asked: Asked) -> kit.Post:
    post = kit.Post(
        node=asked.node,
        site=site.settings.name,
        brokers=site.settings.brokers,
        place=asked.place,
        camera_url=asked.camera_url,
        time_zone=asked.time_zone,
        setup_code=spelled("".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_CHARS))),
    )
    if asked.profile:
        path = find_profile(asked.profile)
        config.read_toml(path)  # whose errors name line and file
        post = replace(post, profile=path.read_text(encoding="utf-8"))
    network = _network(asked, kit.time_zone_of(post))
    kit.check_network(network)
    return replace(post, network=network)


def _network(asked: Asked, time_zone: str) -> Network:
    chosen = [name for name, given in (("--wifi", asked.wifi), ("--ethernet", asked.ethernet), ("--lte", asked.lte))
              if given not in (None, False)]  # fmt: skip
    if not chosen:
        raise ConfigError("give --wifi NAME, --ethernet or --lte APN: else nobody will ever hear of the post")
    if asked.wifi is None and (asked.psk_file or asked.country):
        raise ConfigError("--psk-file and --country go with --wifi")
    if asked.lte is None and (asked.lte_user or asked.lte_password_file or asked.lte_pin):
        raise ConfigError("--lte-user, --lte-password-file and --lte-pin go with --lte")
    wifi = None
    if asked.wifi is not None:
        if len(asked.country) != 2 or not (asked.country.isascii() and asked.country.isalpha()):
            raise ConfigError("--country: two letters, as in VN; without them the radio stays off")
        psk = _first_line("--psk-file", asked.psk_file) if asked.psk_file else ""
        wifi = WifiSettings(ssid=asked.wifi, psk=psk, country=asked.country.upper())
    lte = None
    if asked.lte is not None:
        password = _first_line("--lte-password-file", asked.lte_password_file) if asked.lte_password_file else ""
        if asked.lte_pin and not (asked.lte_pin.isascii() and asked.lte_pin.isdigit() and 4 <= len(asked.lte_pin) <= 8):
            raise ConfigError("--lte-pin: 4 to 8 digits")
        lte = LteSettings(apn=asked.lte, user=asked.lte_user, password=password, pin=asked.lte_pin)
    return Network(
        hostname=asked.node,
        time_zone=time_zone,
        user=asked.user,
        ssh_keys=_ssh_keys(asked.ssh_keys),
        wifi=wifi,
        ethernet=EthernetSettings() if asked.ethernet else None,
        lte=lte,
    )


def _first_line(what: str, path: Path) -> str:
    """The first line of a file, without its end. Blanks belong to it. Raises ConfigError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what}: {path} cannot be read: {error}") from None
    if not lines or not lines[0]:
        raise ConfigError(f"{what}: {path}: its first line is empty")
    return lines[0]


def _ssh_keys(paths: tuple[Path, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--ssh-key: {path} cannot be read: {error}") from None
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if any("PRIVATE KEY" in key for key in keys):
            raise ConfigError(f"--ssh-key: {path} is a private key; give the file that ends in .pub")
        found += keys
    if len(found) > SSH_KEYS_MAX:
        raise ConfigError(f"--ssh-key: {len(found)} keys; {SSH_KEYS_MAX} at most")
    return tuple(found)


def _judge(post: kit.Post) -> None:
    """Raises ConfigError when the post would not start with these settings."""
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder), {"node.toml": kit.node_toml(post).encode()})
        try:
            settings = config.load(Path(folder) / "node.toml", Config)
        except ConfigError as error:
            raise ConfigError(str(error).replace(f"{folder}/node.toml", "the profile gives a node.toml that")) from None
    fatal = [fault for fault in faults(settings) if fault.fatal]
    if fatal:
        raise ConfigError("\n".join(f"--profile: {one.where}: {one.what}; {one.todo}" for one in fatal))


def _generation(register: Register, asked: Asked) -> int:
    there = register.node(asked.node)
    if there is None:
        return 1
    if not asked.again:
        where = f" ({there.place})" if there.place else ""
        raise ConfigError(
            f"{asked.node}: the site has a post of that name{where}, {there.state}; take another name, or --again to"
            " make a new card for it: what the old card has is revoked then"
        )
    return there.generation + 1


def _write(site: SiteFolder, post: kit.Post, asked: Asked, register: Register, *, generation: int, now_ns: int) -> str:
    """Kit and register. Returns why there is no label; empty when there is one."""
    ca = founding.load_authority(site)
    alphabet = string.ascii_lowercase + string.digits
    name = CLAIM_PREFIX + "".join(secrets.choice(alphabet) for _ in range(CLAIM_CHARS))
    key = authority.new_key()
    certificate = authority.issue_claim(ca, name, key.public_key(), now_ns=now_ns, days=asked.claim_days)
    row = founding.of_certificate(certificate, "claim", now_ns, node=post.node, generation=generation)
    files = {
        "node.toml": kit.node_toml(post).encode(),
        "network.toml": kit.network_toml(post.network).encode(),
        "claim.toml": kit.claim_toml(post, claim=name, expires=rfc3339(row.not_after_utc_ns)).encode(),
        "claim.pem": authority.certificate_pem(certificate),
        "claim.key": authority.key_pem(key),
        "ca.pem": site.read("ca/ca.pem"),
        "command.pub": site.read("station/command.pub"),
        "station.pub": site.read("station/station.pub"),
        "release.pub": site.read("release/release.pub"),
    }
    no_label = ""
    try:
        files["label.svg"] = label.svg(
            site=post.site, node=post.node, device=asked.device, place=asked.place, custodian=asked.custodian
        )
        files["label-inside.svg"] = label.inside_svg(
            site=post.site, node=post.node, code=post.setup_code, port=SetupPageSettings().port
        )
    except ConfigError as error:
        no_label = str(error)
    _put(site.root / "nodes" / post.node, files)
    lat, lon = parse_position(asked.position)
    node = Node(
        node=post.node,
        generation=generation,
        state="provisioned",
        device=asked.device,
        place=asked.place,
        custodian=asked.custodian,
        consent=asked.consent,
        profile=asked.profile,
        made_utc_ns=now_ns,
        house=asked.house,
        pole=asked.pole,
        provider=asked.provider,
        lat=lat,
        lon=lon,
    )
    claim = Claim(
        claim=name, node=post.node, generation=generation, hash=row.key_sha256, expires_utc_ns=now_ns + _days(asked)
    )
    register.provisioned(node, claim, row, now_ns)
    return no_label


def _put(folder: Path, files: dict[str, bytes]) -> None:
    """The kit, whole or not at all; an older one is of no use any more: its claim is revoked, or was never known."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = folder / "kit"
        shutil.rmtree(folder / "kit.new", ignore_errors=True)  # of a run that was cut before it was registered
        with making(folder / "kit.new") as scratch:
            write_all(scratch, files)
        if place.exists():
            shutil.rmtree(place)
        (folder / "kit.new").rename(place)
    except OSError as error:
        raise ConfigError(f"{folder}: the kit cannot be written: {error.strerror}") from None


def _days(asked: Asked) -> int:
    return asked.claim_days * 86_400 * NS
