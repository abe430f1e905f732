"""`wardpost release`: at headquarters a bundle is made; at the node one is installed, confirmed or rolled back.

A running node is asked through its local socket, for two must not act on one folder. Where none runs - the release on
trial crashes at every start - this command holds the data folder's lock and acts by itself.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from agent.clock import SystemClock
from agent.config import Config, load
from agent.disk import PosixDisk
from agent.errors import ConfigError, Corrupt
from agent.evidence import keys
from agent.folder import DataLock, InUse
from agent.local import order
from agent.release import making, plan
from agent.release.bundle import Manifest, open_bundle, this_architecture, this_python, verify
from agent.release.plan import Seen
from agent.release.slots import Slots
from agent.release.tree import PosixTree

Out = Callable[[str], None]


def make(output: Path, *, key: Path, wheels: Path, number: int, architecture: str, python: str, out: Out) -> int:
    """Makes a bundle and says what it is. Raises ConfigError."""
    manifest = making.make(
        output,
        signer=keys.private_key(key),
        wheels=wheels,
        number=number,
        architecture=architecture or this_architecture(),
        python=python or this_python(),
    )
    out(f"{output}: {_words(manifest)}")
    out(f"bytes {output.stat().st_size}, sha256 {_sha256(output)}")
    return 0


def verify_file(path: Path, *, key: str, out: Out) -> int:
    """Says what a bundle is. Raises Corrupt when it is not what it claims to be, ConfigError for the key."""
    out(f"{path}: good; {_words(verify(path, public=keys.public_key('--key', key)))}")
    return 0


def install(config_path: Path, path: Path, *, out: Out) -> int:
    """Installs a bundle and has the node start it. Raises ConfigError, Corrupt, Transient.

    Each byte is hashed once here: the running node checks the whole file, and its wheels, when it has copied it.
    """
    config = load(config_path, Config)
    public = keys.pinned("release.key", config.release.key)
    if public is None:
        raise ConfigError("release.key: is empty, so no release is believed; give the path of the site's release key")
    try:
        file = path.open("rb")
    except OSError as error:
        raise Corrupt(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        with _named(path):
            bundle = open_bundle(file, public=public, architecture=this_architecture(), python=this_python())
        number = bundle.manifest.number

        def asked() -> dict[str, Any]:
            sha256 = _sha256(path)
            size = path.stat().st_size
            return {"action": "install", "number": number, "url": str(path.resolve()), "bytes": size, "sha256": sha256}

        def alone(slots: Slots) -> dict[str, Any]:
            with _named(path):
                for _ in bundle.check_files():
                    pass
            for _ in slots.install(bundle, by_hand=True):
                pass
            # Nothing is known of what the release before did: the new one must do everything.
            slots.follow(plan.switched(slots.state(), Seen(up_s=0.0, frames=True, storage=True, broker=True)))
            return {"summary": f"release {number} is installed; it is tried at the next start"}

        out(_done(config, asked, alone).get("summary", "done"))
    return 0


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says of which file a bundle's fault is."""
    try:
        yield
    except OSError as error:
        raise Corrupt(f"{path}: cannot be read: {error.strerror}") from None
    except Corrupt as error:
        raise Corrupt(f"{path}: {error}") from None


def act(config_path: Path, action: str, *, as_json: bool, out: Out) -> int:
    """status, confirm or rollback. Raises ConfigError, Corrupt, Transient."""

    def alone(slots: Slots) -> dict[str, Any]:
        state = slots.state()
        if action == "confirm":
            slots.follow(plan.confirmed(state))
        elif action == "rollback":
            slots.follow(plan.rolled_back(state, "a person at the node"))
        return {"state": msgspec.to_builtins(slots.state()), "running": "", "progress": ""}

    told = _done(load(config_path, Config), lambda: {"action": action}, alone)
    if as_json:
        out(json.dumps(told, indent=2))
        return 0
    state = msgspec.convert(told["state"], plan.State)
    out(f"good: {state.good.slot} {state.good.version}; running: {told['running'] or 'nothing'}")
    if state.before is not None:
        out(f"before it: {state.before.slot} {state.before.version}")
    if state.candidate is not None:
        one = state.candidate
        starts = f", {one.starts} starts" if one.phase is plan.Phase.TRYING else ""
        out(f"beside it: {one.release.slot} {one.release.version}: {one.phase.value}{starts} {one.why}".rstrip())
    if told["progress"]:
        out(told["progress"])
    return 0


def _done(
    config: Config, asked: Callable[[], dict[str, Any]], alone: Callable[[Slots], dict[str, Any]]
) -> dict[str, Any]:
    folder = Path(config.node.data)
    try:
        lock = DataLock(folder).take(SystemClock())
    except InUse:
        return order(folder, "releases", asked())
    with lock:
        root = Path(config.release.root)
        slots = Slots(tree=PosixTree(root), disk=PosixDisk(folder), root=root, base_python=_base_python())
        if not slots.running():
            raise Corrupt(f"release: {root / 'current'} points at no release; see deploy/updates.md")
        return alone(slots)


def _base_python() -> Path:
    return Path(sys.executable).resolve()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _words(manifest: Manifest) -> str:
    files = len(manifest.files)
    return (
        f"release {manifest.number}, wardpost {manifest.version}, {manifest.architecture}, Python {manifest.python},"
        f" {files} wheel{'' if files == 1 else 's'}, unpacks to {manifest.unpacked_bytes / 1e6:.1f} MB"
    )
