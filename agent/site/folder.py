"""A site's folder: its layout, and how it is made and changed so that a cut leaves the old or the new, never a half.

    site.toml               what it is, for people and programs
    ca/                     ca.pem, ca.key (0600), crl.pem
    register.db             who has which certificate
    station/                station.toml; station.pem, .key; command.key, .pub; station.pub; data/keys/ of its receipts
    release/                release.key, .pub: what new releases of the agent are signed with; on no machine that runs
    broker/                 broker.pem, broker.key, crl.pem, ca.pem; configuration of Mosquitto and nats-server
    nodes/<node>/kit/       what the card of a post needs

A site is made beside its place and moved there when it is whole. What a cut left beside it was never used, so the next
`site init` begins again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.config import Id, Settings, load
from agent.disk import PosixDisk, sync_folder
from agent.errors import ConfigError, Transient
from agent.wire import CLAIM_PREFIX

SITE_FILE = "site.toml"
REGISTER_FILE = "register.db"
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
"""Of a site or a post: an id of the contract that is also a host name, so no hyphen at either end."""
RESERVED = frozenset({"station", "broker"})


class SiteSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """site.toml."""

    name: Id
    brokers: tuple[str, ...]
    created: str


@dataclass(frozen=True, slots=True)
class SiteFolder:
    """A site that is there and whole."""

    root: Path
    settings: SiteSettings

    @property
    def disk(self) -> PosixDisk:
        return PosixDisk(self.root)

    @property
    def register_path(self) -> Path:
        return self.root / REGISTER_FILE

    def read(self, name: str) -> bytes:
        """A file of the site. Raises ConfigError when it is missing or may not be read."""
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            text = f"{self.root / name}: cannot be read: {error.strerror}; run this as the site's owner, or restore it"
            raise ConfigError(text) from None


def open_site(root: Path) -> SiteFolder:
    """Raises ConfigError when there is no whole site at `root`."""
    if not (root / SITE_FILE).is_file():
        raise ConfigError(
            f"{root}: no site there; `wardpost site init` makes one, `wardpost site restore` brings one back"
        )
    return SiteFolder(root, load(root / SITE_FILE, SiteSettings))


def check_name(what: str, name: str) -> str:
    """The name, when a site or a post may have it. Raises ConfigError."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{what}: {name[:80]!r} is not a name; 1 to 32 lower-case letters, digits and hyphens, no hyphen at an end"
        )
    if what == "node" and (name in RESERVED or name.startswith(CLAIM_PREFIX)):
        raise ConfigError(f"{what}: {name!r} is a name that the broker gives to somebody else; take another one")
    return name


@contextmanager
def making(place: Path, *, empty_is_fine: bool = True) -> Iterator[Path]:
    """A private folder beside `place` that becomes `place` when the block ends well, durably and at once.

    Raises ConfigError when there is something at `place` already: nothing is ever overwritten.
    """
    place = place.absolute()
    refuse_existing(place, empty_is_fine=empty_is_fine)
    scratch = place.with_name(f".{place.name}.making")
    try:
        if scratch.is_symlink():
            raise ConfigError(f"{scratch}: is a link; remove it")
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was cut: nobody has used what is in it
        scratch.mkdir(mode=0o700)
        scratch.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"{scratch}: cannot be made: {error.strerror}") from None
    try:
        yield scratch
        try:
            for folder in [scratch, *(path for path in scratch.rglob("*") if path.is_dir())]:
                sync_folder(folder)
            scratch.rename(place)
            sync_folder(place.parent)
        except OSError as error:
            raise Transient(f"{place}: cannot be put in place: {error.strerror}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def refuse_existing(place: Path, *, empty_is_fine: bool = True) -> None:
    """Raises ConfigError when something is at `place`."""
    if not place.parent.is_dir():
        raise ConfigError(f"{place.parent}: no such folder; make it first")
    if (place / SITE_FILE).exists():
        raise ConfigError(f"{place}: there is a site already; it is never overwritten. See `wardpost site show`")
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise ConfigError(f"{place}: is not a folder")
    if place.is_dir() and (not empty_is_fine or any(place.iterdir())):
        raise ConfigError(f"{place}: is not empty, and no site; give a folder of its own")


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes small files below a folder that exists, each whole and synced. Those that end in .key are private.

    Raises Transient.
    """
    disk = PosixDisk(folder)
    for name, data in files.items():
        parent = (folder / name).parent
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Transient(f"{parent}: cannot be made: {error.strerror}") from None
        disk.replace(name, data, private=is_private(name))


def is_private(name: str) -> bool:
    """Whether a file of a site holds a secret: keys, the receipts' key, the Wi-Fi password."""
    return name.endswith((".key", "network.toml")) or "/keys/" in f"/{name}"


def toml_text(text: str) -> str:
    """A TOML basic string. Raises ConfigError for what no file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"{text[:80]!r}: is not text") from None
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0x20 or ord(c) == 0x7F else c for c in escaped) + '"'
