"""`wardpost bundle`: the wheels of the locked requirements, the agent's own, model, units and installer in one folder.

pip fetches the wheels as this computer's own settings say; every one must have a hash of requirements.lock. The folder
is made beside its place and renamed when it is whole.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.assets import LABELS, MODEL, Assets, Run, run_program
from agent.card import install
from agent.card.bundle import ARCHITECTURES, BUNDLE_BYTES_MAX, MANIFEST, PYTHONS, Manifest, digest, encode
from agent.errors import ConfigError, Transient

PIP = "pip==25.3"  # goes along: a stock image may have no pip, and its venv module no ensurepip
PIP_SHA256 = "9655943313a94722b7774661c21049070f6bbb0a1516bf02f7c8d5d9201514cd"
EXTRAS = ("pi",)
FETCH_S_MAX = 1800.0
GLIBC_MINOR = {"3.11": 36, "3.13": 41}  # of Bookworm and Trixie, which have these Pythons
_GLIBC_OLDEST = 17
UNITS = (
    "wardpost-node.service",
    "wardpost-enrol.service",
    "wardpost-escalate.service",
    "wardpost-reboot.service",
    "wardpost-audit.service",
    "wardpost-audit.timer",
    "wardpost-setup-link.path",
    "wardpost-setup-link.service",
)
LIB = ("wardpost-launch", "wardpost-escalate", "wardpost-setup-link")
_SOURCE = ("agent", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True, slots=True)
class Pin:
    """One entry of requirements.lock."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    wanted_by: tuple[str, ...]


def parse_lock(text: str) -> list[Pin]:
    """The entries of a lock file as `uv pip compile --generate-hashes` writes it. Raises ConfigError."""
    pins = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        head = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)\s*(?:;\s*([^\\\n]+?))?\s*(?:\\|\n|$)", block)
        if head is None:
            continue
        notes = [line.strip().lstrip("#").strip() for line in block.splitlines() if line.strip().startswith("#")]
        wanted = [note.removeprefix("via").strip() for note in notes]
        pins.append(
            Pin(
                name=head[1],
                version=head[2],
                marker=head[3] or "",
                hashes=tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", block)),
                wanted_by=tuple(note.split()[0] for note in wanted if note and not note.startswith("-c")),
            )
        )
    if not pins:
        raise ConfigError("requirements.lock holds no pinned requirement; make it anew with `make lock`")
    return pins


def needed(pins: list[Pin], roots: set[str], *, python: str) -> list[Pin]:
    """The entries that the roots need, directly or not, on Linux and this Python. Raises ConfigError."""
    usable = [pin for pin in pins if applies(pin.marker, python=python)]
    names = {normal(root) for root in roots}
    while True:
        more = {normal(pin.name) for pin in usable if names & {normal(name) for name in pin.wanted_by}} - names
        if not more:
            break
        names |= more
    missing = {normal(root) for root in roots} - {normal(pin.name) for pin in usable}
    if missing:
        raise ConfigError(f"requirements.lock lacks {', '.join(sorted(missing))}; make it anew with `make lock`")
    return [pin for pin in usable if normal(pin.name) in names]


def normal(name: str) -> str:
    """The name of a package as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def applies(marker: str, *, python: str) -> bool:
    """Whether an environment marker (PEP 508) holds on Linux with CPython `python`. pip would ask about this computer.

    Raises ConfigError for a form that is not written by our lock.
    """
    known = {
        "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix",
        "platform_python_implementation": "CPython", "implementation_name": "cpython",
    }  # fmt: skip
    return any(all(_holds(part, python, known) for part in either.split(" and ")) for either in marker.split(" or "))


def _holds(part: str, python: str, known: Mapping[str, str]) -> bool:
    if not part.strip():
        return True
    found = re.fullmatch(r"\s*(\w+)\s*(==|!=|<=|>=|<|>)\s*['\"]([^'\"]*)['\"]\s*", part)
    if found is None or (found[1] not in known and found[1] not in {"python_version", "python_full_version"}):
        raise ConfigError(f"requirements.lock has a marker that is not understood: {part.strip()}")
    name, operator, value = found.groups()
    if name in known:
        return (known[name] == value) is (operator == "==")
    mine, theirs = (tuple(int(n) for n in re.findall(r"\d+", text))[:2] for text in (python, value))
    return {"==": mine == theirs, "!=": mine != theirs, "<": mine < theirs, "<=": mine <= theirs,
            ">": mine > theirs, ">=": mine >= theirs}[operator]  # fmt: skip


def platforms(arch: str, python: str) -> list[str]:
    """The tags of wheels (PEP 600) that the system with this Python takes, newest first."""
    newest = [f"manylinux_2_{minor}_{arch}" for minor in range(GLIBC_MINOR[python], _GLIBC_OLDEST - 1, -1)]
    return [*newest, f"manylinux2014_{arch}"]


class Collector:
    """Makes bundles. Blocks for minutes."""

    def __init__(
        self,
        *,
        source: Path,
        assets: Assets,
        out: Callable[[str], None],
        run: Run = run_program,
        python: str = sys.executable,
    ) -> None:
        """`source`: a checkout, whose lock, units and agent are taken."""
        self._source, self._assets, self._out, self._run, self._python = source, assets, out, run, python

    def collect(self, output: Path, *, arch: str, python: str) -> Manifest:
        """Makes the folder `output`, or replaces the bundle in it. Raises WardpostError in one line."""
        if arch not in ARCHITECTURES or python not in PYTHONS:
            raise ConfigError(f"bundles are made for {', '.join(ARCHITECTURES)} and Python {', '.join(PYTHONS)}")
        if output.exists() and not (output / MANIFEST).is_file() and (not output.is_dir() or any(output.iterdir())):
            raise ConfigError(f"{output} exists and is no bundle; name a new folder")
        try:
            lock = (self._source / "requirements.lock").read_text(encoding="utf-8")
            roots = set(requirements(tomllib.loads((self._source / "pyproject.toml").read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._source} is no checkout of Wardpost ({error}); name one with --source") from None
        pins = needed(parse_lock(lock), roots, python=python)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".bundle-", dir=output.parent) as scratch:
                work = Path(scratch) / "new"
                manifest = self._fill(work, Path(scratch), pins, arch=arch, python=python)
                if output.exists():
                    output.rename(Path(scratch) / "old")
                work.rename(output)
        except OSError as error:
            raise Transient(f"{output}: cannot be written: {error.strerror or error}") from None
        return manifest

    def _fill(self, work: Path, scratch: Path, pins: list[Pin], *, arch: str, python: str) -> Manifest:
        wheels = work / "wheels"
        wheels.mkdir(parents=True)
        self._out(f"getting {len(pins) + 1} wheels for {arch}, Python {python}")
        wanted = scratch / "wanted.txt"
        lines = [f"{pin.name}=={pin.version} {_hashes(pin.hashes)}" for pin in pins]
        wanted.write_text("\n".join([*lines, f"{PIP} {_hashes((PIP_SHA256,))}"]) + "\n", encoding="utf-8")
        tags = [word for tag in platforms(arch, python) for word in ("--platform", tag)]
        self._pip(
            "download", "--dest", str(wheels), "--no-deps", "--only-binary=:all:", "--require-hashes",
            *tags, "--python-version", python, "--implementation", "cp", "-r", str(wanted), cwd=scratch,
        )  # fmt: skip
        version = self._own_wheel(wheels, scratch)
        pinned = [line for path in sorted(wheels.glob("*.whl")) if (line := _requirement(path))]
        (work / "requirements.txt").write_text("\n".join(pinned) + "\n", encoding="utf-8")
        shutil.copyfile(install.__file__, work / "install.py")
        for folder in ("model", "units", "lib", "appliance"):
            (work / folder).mkdir()
        for asset in (MODEL, LABELS):
            shutil.copyfile(self._assets.get(asset), work / "model" / asset.name)
        for name in UNITS:
            shutil.copyfile(self._source / "deploy" / name, work / "units" / name)
        for name in LIB:
            if (self._source / "deploy" / name).is_file():
                shutil.copyfile(self._source / "deploy" / name, work / "lib" / name)
        for name in install.APPLIANCE:
            shutil.copyfile(self._source / "deploy" / "appliance" / name, work / "appliance" / name)
        files = {str(path.relative_to(work)): digest(path) for path in sorted(work.rglob("*")) if path.is_file()}
        size = sum(entry.bytes for entry in files.values())
        if size > BUNDLE_BYTES_MAX:
            raise ConfigError(f"the bundle has {size >> 20} MiB, {BUNDLE_BYTES_MAX >> 20} MiB fit on a card")
        manifest = Manifest(version=version, arch=arch, python=python, files=files)
        (work / MANIFEST).write_bytes(encode(manifest))
        self._out(f"{len(files)} files, {size / 1e6:.0f} MB")
        return manifest

    def _own_wheel(self, wheels: Path, scratch: Path) -> str:
        """Builds the agent's wheel from a copy: setuptools leaves its scraps in the folder that it builds from."""
        copy = scratch / "source"
        copy.mkdir()
        for name in _SOURCE:
            source = self._source / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            else:
                shutil.copyfile(source, copy / name)
        self._pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(copy), cwd=scratch)
        [own] = wheels.glob("wardpost-*.whl")
        return own.name.split("-")[1]

    def _pip(self, *words: str, cwd: Path) -> None:
        try:
            self._run(
                [self._python, "-m", "pip", *words, "--quiet", "--disable-pip-version-check", "--no-input"],
                cwd,
                FETCH_S_MAX,
            )
        except Transient as error:
            raise Transient(f"pip {words[0]}: {error}; is the network there?") from None


def requirements(project: Mapping[str, Any]) -> Iterator[str]:
    """Names of what a node needs, from the tables of pyproject.toml. Raises ConfigError."""
    try:
        tables = project["project"]
        texts = [*tables["dependencies"], *(t for extra in EXTRAS for t in tables["optional-dependencies"][extra])]
        yield from (re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0] for text in texts)
    except (KeyError, TypeError) as error:
        raise ConfigError(f"pyproject.toml names no dependencies of the node ({error})") from None


def _hashes(values: tuple[str, ...]) -> str:
    return " ".join(f"--hash=sha256:{value}" for value in values)


def _requirement(wheel: Path) -> str:
    """A line of requirements.txt for exactly this wheel; none for pip, which is run, not installed."""
    name, version = wheel.name.split("-")[:2]
    if name == "pip":
        return ""
    return f"{normal(name)}=={version} {_hashes((digest(wheel).sha256,))}"


def run_bundle(output: Path, *, arch: str, python: str, source: Path) -> int:
    """`wardpost bundle`, wired to this computer."""
    manifest = Collector(source=source, assets=Assets(), out=print).collect(output, arch=arch, python=python)
    print(f"{output}: wardpost {manifest.version} for {manifest.arch}, Python {manifest.python}")
    return 0
