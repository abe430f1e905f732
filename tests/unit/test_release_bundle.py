"""A release bundle: what was signed is what is taken, and nothing else, however the zip is bent."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent.errors import ConfigError, Corrupt
from agent.evidence import dsse, keys
from agent.release import bundle
from agent.release.bundle import Manifest, open_bundle, verify
from agent.release.making import make
from agent.release.wheel import Wheel, parse_name
from tests.fakes.wheels import wheel

KEY = keys.generate()


def wheels(folder: Path) -> Path:
    wheel(folder, {"agent/__init__.py": b"__version__ = '1.0'\n", "agent/cli.py": b"x = 1\n" * 500})
    wheel(folder, {"dep.py": b"y = 2\n", "dep-2.0.data/scripts/tool": b"#!python\n"}, dist="dep", version="2.0")
    return folder


def made(tmp_path: Path, number: int = 7) -> Path:
    path = tmp_path / f"release-{number}.zip"
    make(path, signer=KEY, wheels=wheels(tmp_path / "wheels"), number=number, architecture="aarch64", python="3.13")
    return path


def opened_whole(data: bytes, *, public: bytes = KEY.public) -> bundle.Bundle:
    taken = open_bundle(io.BytesIO(data), public=public, architecture="aarch64", python="3.13")
    for _ in taken.check_files():
        pass
    return taken


def refused(data: bytes, match: str, *, public: bytes = KEY.public) -> None:
    with pytest.raises(Corrupt, match=match) as caught:
        opened_whole(data, public=public)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_is_made_is_verified_and_the_same_wheels_give_the_same_manifest(tmp_path: Path) -> None:
    path = made(tmp_path)
    manifest = verify(path, public=KEY.public, architecture="aarch64", python="3.13")
    assert (manifest.number, manifest.version, manifest.architecture) == (7, "1.0", "aarch64")
    assert [file.name for file in manifest.files] == [
        "wheels/dep-2.0-py3-none-any.whl",
        "wheels/wardpost-1.0-py3-none-any.whl",
    ]
    assert manifest.unpacked_bytes > 3000
    again = made(tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()
    with path.open("rb") as file:
        opened = open_bundle(file, public=KEY.public)
        held = {
            name: sorted(entry.path for entry in Wheel(content, name, python="3.13").entries)
            for name, content in opened.wheels()
        }
    assert "bin/tool" in held["dep-2.0-py3-none-any.whl"]
    assert "lib/python3.13/site-packages/agent/cli.py" in held["wardpost-1.0-py3-none-any.whl"]


def test_a_foreign_key_another_machine_and_another_python_are_refused(tmp_path: Path) -> None:
    path = made(tmp_path)
    for asked, match in (
        ({"public": keys.generate().public}, "not signed by this site's release key"),
        ({"public": KEY.public, "architecture": "x86_64"}, "is for aarch64, this machine is x86_64"),
        ({"public": KEY.public, "python": "3.11"}, "is for Python 3.13, here is 3.11"),
    ):
        with pytest.raises(Corrupt, match=match):
            verify(path, **asked)
    with pytest.raises(Corrupt, match="cannot be read"):
        verify(tmp_path / "none.zip", public=KEY.public)


def test_every_byte_counts(tmp_path: Path) -> None:
    """Any one bit turned anywhere is refused; the exceptions are bits that say nothing (times, version needed)."""
    good = made(tmp_path).read_bytes()
    rng = random.Random(5)
    passed = []
    for at in sorted(rng.sample(range(len(good)), 1500)):
        bad = bytearray(good)
        bad[at] ^= 1 << rng.randrange(8)
        try:
            taken = opened_whole(bytes(bad))
            assert taken.spelled == open_bundle(io.BytesIO(good), public=KEY.public).spelled
            passed.append(at)
        except Corrupt as error:
            assert "\n" not in str(error)  # noqa: PT017
    assert len(passed) < 60, "only header fields without a meaning may change"
    for cut in sorted(rng.sample(range(len(good)), 200)):
        refused(good[:cut], "bundle: ")


def rebuilt(data: bytes, change: Callable[[list[tuple[zipfile.ZipInfo, bytes]]], object]) -> bytes:
    """The bundle again, with its entries changed by somebody who knows zip, but has no key."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    change(entries)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for info, content in entries:
            archive.writestr(info, content, info.compress_type)
    return out.getvalue()


def info(name: str, *, mode: int = 0o100644, method: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    found.external_attr = mode << 16
    found.compress_type = method
    return found


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ((info("wheels/evil-1-py3-none-any.whl"), b"x"), "which the manifest does not list"),
        ((info("../../etc/passwd"), b"x"), r"a file with the name '\.\./\.\./etc/passwd'"),
        ((info("/etc/passwd"), b"x"), "a file with the name"),
        ((info("wheels/../x.whl"), b"x"), "a file with the name"),
        ((info("wheels/a\x00.whl"), b"x"), "a file with the name"),
        ((info("manifest.json"), b"{}"), "'manifest.json' twice"),
        ((info("wheels/dep-2.0-py3-none-any.whl"), b"x"), "twice"),
        ((info("wheels/bomb-1-py3-none-any.whl", method=zipfile.ZIP_DEFLATED), bytes(50_000_000)), "is compressed"),
        ((info("wheels/link-1-py3-none-any.whl", mode=0o120777), b"/etc/shadow"), "is a link or a device"),
    ],
    ids=["unlisted", "dots", "absolute", "inner dots", "nul", "second manifest", "second wheel", "bomb", "symlink"],
)
def test_what_does_not_belong_there_is_named(tmp_path: Path, extra: tuple[zipfile.ZipInfo, bytes], match: str) -> None:
    refused(rebuilt(made(tmp_path).read_bytes(), lambda entries: entries.append(extra)), match)


def test_a_file_left_out_exchanged_or_cut_is_refused(tmp_path: Path) -> None:
    good = made(tmp_path).read_bytes()
    refused(rebuilt(good, lambda entries: entries.pop()), "is missing")
    refused(rebuilt(good, lambda entries: entries.pop(0)), "has no manifest.json")
    refused(rebuilt(good, lambda entries: entries.pop(1)), "has no manifest.dsse")

    def other(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
        name, content = entries[-1]
        entries[-1] = (name, bytes(len(content)))

    refused(rebuilt(good, other), "is not the file that was signed")
    refused(rebuilt(good, lambda e: e.__setitem__(-1, (e[-1][0], e[-1][1] + b"x"))), "the manifest says")
    refused(rebuilt(good, lambda e: e.__setitem__(0, (e[0][0], e[0][1] + b" "))), "not the one that was signed")


def test_sizes_that_lie_and_hidden_bytes_are_refused(tmp_path: Path) -> None:
    good = made(tmp_path).read_bytes()
    start = struct.unpack("<L", good[-6:-2])[0]
    refused(good + b"x", "is no zip, cut short")
    refused(b"#!/bin/sh\n" + good, "its directory")
    hidden = bytearray(good[:start] + b"hidden" + good[start:])
    hidden[-6:-2] = struct.pack("<L", start + 6)
    refused(bytes(hidden), "hidden behind its last file")
    commented = bytearray(good)
    commented[-2:] = b"\5\0"
    refused(bytes(commented) + b"hello", "is no zip")
    for offset in (6, 14, 22, 28):  # of the first local header: flags, checksum, size, length of extra fields
        bent = bytearray(good)
        bent[offset] ^= 1
        refused(bytes(bent), "two headers")
    many = bytearray(good)
    many[-14:-12] = many[-12:-10] = struct.pack("<H", 60_000)
    refused(bytes(many), "its directory")
    for junk in (b"", b"PK", b"\0" * 1000, b"PK\5\6" + bytes(18)):
        refused(junk, "bundle: ")


def test_a_signed_line_of_another_kind_is_no_release(tmp_path: Path) -> None:
    """The release key signs nothing else, but if it did, a record must not become a release."""
    good = made(tmp_path).read_bytes()

    def swap(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
        entries[1] = (entries[1][0], dsse.sign("application/vnd.wardpost.record+json;v=1", entries[0][1], KEY))

    refused(rebuilt(good, swap), "which is no release")

    def dishonest(**changes: object) -> bytes:
        def change(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> None:
            told = msgspec.json.decode(entries[0][1]) | changes
            spelled = msgspec.json.encode(told)
            entries[0] = (entries[0][0], spelled)
            entries[1] = (entries[1][0], dsse.sign(bundle.PAYLOAD_TYPE, spelled, KEY))

        return rebuilt(good, change)

    refused(dishonest(number=0), "manifest.json: Expected `int` >= 1")
    refused(dishonest(v=2), "manifest.json: Invalid")
    refused(dishonest(surprise=1), "unknown field `surprise`")
    refused(dishonest(version="../../x"), "manifest.json: Expected `str` matching")
    refused(dishonest(files=[]), "manifest.json: Expected `array` of length >= 1")
    same = msgspec.json.decode(msgspec.json.encode(verify(made(tmp_path / "b"), public=KEY.public).files))
    refused(dishonest(files=same + same), "lists a file twice")
    refused(dishonest(files=[{"name": "../x", "bytes": 1, "sha256": "0" * 64}]), "which is no wheels/NAME.whl")


def test_what_a_node_would_refuse_is_not_made(tmp_path: Path) -> None:
    def attempt(folder: Path, match: str, **changes: object) -> None:
        asked: dict[str, object] = {"number": 7, "architecture": "aarch64", "python": "3.13"}
        output = tmp_path / "out.zip"
        with pytest.raises(ConfigError, match=match):
            make(output, signer=KEY, wheels=folder, **(asked | changes))  # type: ignore[arg-type]
        assert not output.exists()

    good = wheels(tmp_path / "good")
    attempt(good, "--number 0", number=0)
    attempt(good, "write it like 3.13", python="3")
    attempt(tmp_path / "none", "holds 0 wheels")
    only = tmp_path / "only"
    wheel(only, {"x.py": b""}, dist="dep")
    attempt(only, "no wheel of wardpost itself")
    wheel(only, {"x.py": b""})
    attempt(only, "as dep-1.0-py3-none-any.whl does")
    x86 = wheels(tmp_path / "x86")
    wheel(x86, {"z.so": b""}, dist="fast", tags="cp313-cp313-manylinux_2_28_x86_64")
    attempt(x86, "fast.* is for manylinux_2_28_x86_64, not aarch64")
    junk = wheels(tmp_path / "junk")
    (junk / "junk-1-py3-none-any.whl").write_bytes(b"no zip")
    attempt(junk, "is no wheel")
    (tmp_path / "taken.zip").write_bytes(b"")
    with pytest.raises(ConfigError, match="exists; choose another name"):
        make(tmp_path / "taken.zip", signer=KEY, wheels=good, number=7, architecture="aarch64", python="3.13")


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("numpy-2.4.6-cp313-cp313-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl", True),
        ("numpy-2.4.6-cp311-cp311-manylinux_2_27_aarch64.whl", False),
        ("cryptography-50.0.2-cp311-abi3-manylinux_2_34_aarch64.whl", True),
        ("cryptography-50.0.2-cp314-abi3-manylinux_2_34_aarch64.whl", False),
        ("opencv_python_headless-5.0.0.93-cp37-abi3-manylinux_2_28_x86_64.whl", False),
        ("av-18.1.0-cp311-abi3-musllinux_1_2_aarch64.whl", False),
        ("paho_mqtt-2.2.0-py3-none-any.whl", True),
        ("old-1.0-py2-none-any.whl", False),
        ("both-1.0-py2.py3-none-any.whl", True),
        ("lib-1.0-py3-none-manylinux_2_17_aarch64.whl", True),
        ("ai_edge_litert-2.3.0-cp313-cp313t-manylinux_2_27_aarch64.whl", False),
    ],
)
def test_a_wheel_says_what_it_runs_on(name: str, fits: bool) -> None:
    assert (parse_name(name).objection(architecture="aarch64", python="3.13") == "") is fits
    with pytest.raises(Corrupt):
        parse_name(name.replace(".whl", ".zip"))


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ((info("../x"), b""), "with the name"),
        ((info("a/../../x"), b""), "with the name"),
        ((info("/x"), b""), "with the name"),
        ((info("a//b"), b""), "with the name"),
        ((info("a\\b"), b""), "with the name"),
        ((info("x" * 500), b""), "with the name"),
        ((info("x", mode=0o120777), b"/etc"), "is a link or a device"),
    ],
)
def test_a_wheel_that_points_outside_is_refused(entry: tuple[zipfile.ZipInfo, bytes], match: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(*entry)
    with pytest.raises(Corrupt, match=match):
        Wheel(out, "w.whl", python="3.13")


def test_a_wheel_that_unpacks_to_more_than_it_says_is_stopped(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"big.bin": bytes(3_000_000)})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<L", 1000)  # the directory says 1000 bytes
    found = Wheel(io.BytesIO(bytes(data)), "w.whl", python="3.13")
    entry = next(one for one in found.entries if one.path.endswith("big.bin"))
    taken: list[bytes] = []
    with pytest.raises(Corrupt, match=r"damaged|longer"):
        taken.extend(found.chunks(entry))
    assert sum(map(len, taken)) <= 1000


def test_the_manifest_of_a_bundle_with_as_many_files_as_allowed_fits() -> None:
    files = [
        bundle.File(name=f"wheels/{'n' * 60}{i:02d}-1.0-py3-none-any.whl", bytes=1, sha256="0" * 64) for i in range(64)
    ]
    told = Manifest(version="1.0", number=1, architecture="aarch64", python="3.13", unpacked_bytes=1, files=files)
    spelled = msgspec.json.format(msgspec.json.encode(told), indent=1)
    assert len(spelled) <= bundle.MANIFEST_BYTES_MAX
    assert len(dsse.sign(bundle.PAYLOAD_TYPE, spelled, KEY)) <= dsse.LINE_BYTES_MAX
