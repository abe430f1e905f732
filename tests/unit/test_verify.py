"""A package that was tampered with is refused, and both verifiers say what was done to it."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import random
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main
from agent.evidence import dsse, standalone
from agent.evidence.keys import Key, generate, public_pem
from agent.evidence.standalone import EXTRACTION, LEDGER, MANIFEST, RECEIPTS, SIGNATURE, Signed
from agent.evidence.verify import Ed25519, SecondOpinion, verify
from agent.types import NS
from tests.fakes.evidence_post import EvidencePost
from tests.fakes.forger import Forger, edit_line, pack, rewrite
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401

FLIPS = 520


@dataclass
class Made:
    """A package by a node's own parts, and the keys with which it was made."""

    data: bytes
    key: Key
    station: Key
    other: bytes = field(repr=False, default=b"")  # the same post, exported by another node


def _make(folder: Path, seed: int) -> tuple[bytes, Key, Key]:
    post = EvidencePost(folder / "node")
    post.feed(encoded(seconds=9, seed=seed), receipt_every=15)
    post.seal()
    post.feed(encoded(seconds=2, start_ns=1020 * NS))
    post.seal()
    post.export(folder / "package.zip", 1, 8)
    post.post.store.close()
    return (folder / "package.zip").read_bytes(), post.key, post.station.key


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    return Made(*_make(one, 1), _make(other, 2)[0])


def both(
    data: bytes, folder: Path, trusted: list[bytes] | None = None, *, ed25519: Ed25519 | None = None
) -> dict[str, Any]:
    """What the verifiers say; they must agree on the verdict and on every finding. `ed25519`: in place of openssl."""
    path = folder / "package.zip"
    path.write_bytes(data)
    ours = verify(path, trusted or [])
    theirs = standalone.verify(str(path), trusted or [], ed25519)
    assert ours["verdict"] == theirs["verdict"]
    assert codes(ours) == codes(theirs)
    assert json.loads(json.dumps(theirs)) == theirs
    assert standalone.in_words("package.zip", theirs).startswith(f"package.zip: {theirs['verdict'].upper()}")
    return theirs


def codes(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(finding["code"], finding["where"]) for finding in result["findings"]]


def test_a_package_as_it_was_made_is_verified(made: Made, tmp_path: Path) -> None:
    result = both(made.data, tmp_path)
    assert result["verdict"] == "verified", result["findings"]
    assert result["segments"] == 4 and result["receipts"] >= 3
    assert "byte for byte" in result["proves"][0]
    assert result["recorded_after"] < result["recorded_before"]
    assert any("compare the fingerprints" in text for text in result["does_not_prove"])
    assert result["trust"] == "not compared with a key known from elsewhere"
    for key in (made.key, made.station):
        trusted = both(made.data, tmp_path, [key.public])
        assert trusted["verdict"] == "verified" and "you trust" in trusted["trust"]


# -- attacks, by name ------------------------------------------------------------------------------------------------

Attack = Callable[[Forger, Made], object]


def _flip(forger: Forger, name: str, at: int) -> None:
    data = bytearray(forger.files[name])
    data[at] ^= 1
    forger.files[name] = bytes(data)


def _in_fragment(forger: Forger, name: str, n: int, *, trailer: bool = False) -> int:
    view = standalone.View(io.BytesIO(forger.files[name]), 0, len(forger.files[name]))
    fragment = standalone.scan(view).fragments[n - 1]
    return fragment.end - 50 if trailer else (fragment.offset + fragment.end) // 2


def altered_byte(forger: Forger, made: Made) -> None:
    _flip(forger, forger.segments[1], _in_fragment(forger, forger.segments[1], 3))


def altered_byte_and_manifest(forger: Forger, made: Made) -> None:
    altered_byte(forger, made)
    forger.restate()


def altered_byte_with_the_nodes_key(forger: Forger, made: Made) -> None:
    altered_byte(forger, made)
    forger.restate(made.key, extraction=True)


def altered_trailer(forger: Forger, made: Made) -> None:
    _flip(forger, forger.segments[1], _in_fragment(forger, forger.segments[1], 3, trailer=True))


def dropped_file(forger: Forger, made: Made) -> None:
    del forger.files[forger.segments[1]]


def dropped_file_with_the_nodes_key(forger: Forger, made: Made) -> None:
    name = forger.segments[1]
    del forger.files[name]
    forger.manifest(lambda m: m.update(segments=[s for s in m["segments"] if s["name"] != name]))
    forger.restate(made.key, extraction=True)


def swapped_files(forger: Forger, made: Made) -> None:
    one, two = forger.segments[1:3]
    forger.files[one], forger.files[two] = forger.files[two], forger.files[one]


def swapped_files_with_the_nodes_key(forger: Forger, made: Made) -> None:
    swapped_files(forger, made)
    forger.restate(made.key, extraction=True)


def replayed_file(forger: Forger, made: Made) -> None:
    forger.files[forger.segments[2]] = forger.files[forger.segments[1]]


def truncated_file(forger: Forger, made: Made) -> None:
    name = forger.segments[1]
    view = standalone.View(io.BytesIO(forger.files[name]), 0, len(forger.files[name]))
    forger.files[name] = forger.files[name][: standalone.scan(view).fragments[1].end]
    forger.restate(made.key, extraction=True)


def torn_file(forger: Forger, made: Made) -> None:
    name = forger.segments[1]
    forger.files[name] = forger.files[name][: _in_fragment(forger, name, 3)]


def file_of_another_node(forger: Forger, made: Made) -> None:
    theirs = Forger(made.other)
    forger.files[forger.segments[1]] = theirs.files[theirs.segments[1]]
    forger.restate(made.key, extraction=True)


def altered_record(forger: Forger, made: Made) -> None:
    lines = forger.lines()
    lines[2] = edit_line(lines[2], generate(), lambda p: p["body"].update(sha256="0" * 64))
    wrapper = json.loads(lines[2])
    wrapper["signatures"][0]["keyid"] = made.key.keyid
    lines[2] = json.dumps(wrapper, separators=(",", ":")).encode()
    forger.set_lines(lines)
    forger.restate(made.key)


def record_signed_by_a_foreign_key(forger: Forger, made: Made) -> None:
    lines = forger.lines()
    forger.set_lines(rewrite(lines, len(lines) - 1, generate(), lambda p: p.update(utc="2020-01-01T00:00:00.000Z")))
    forger.restate(made.key)


def dropped_record(forger: Forger, made: Made) -> None:
    lines = forger.lines()
    forger.set_lines(lines[:2] + lines[3:])
    forger.restate(made.key)


def swapped_records(forger: Forger, made: Made) -> None:
    lines = forger.lines()
    lines[1], lines[2] = lines[2], lines[1]
    forger.set_lines(lines)
    forger.restate(made.key)


def replayed_record(forger: Forger, made: Made) -> None:
    lines = forger.lines()
    forger.set_lines([*lines[:3], lines[1], *lines[3:]])
    forger.restate(made.key)


def torn_record(forger: Forger, made: Made) -> None:
    forger.files[LEDGER] = forger.files[LEDGER][:-100]
    forger.restate(made.key)


def chain_break(forger: Forger, made: Made) -> None:
    lines = forger.lines()
    lines[-1] = edit_line(lines[-1], made.key, lambda p: p.update(prev="ab" * 32))
    forger.set_lines(lines)
    forger.restate(made.key)


def rewritten_after_a_receipt(forger: Forger, made: Made) -> None:
    """The thief has the node's key, signs all anew, and the chain holds; but the station has seen the old records."""
    name = forger.segments[1]
    _flip(forger, name, _in_fragment(forger, name, 3))
    sha = hashlib.sha256(forger.files[name]).hexdigest()
    lines = forger.lines()
    forged = 0
    for index, line in enumerate(lines):
        body = json.loads(standalone.unbase64(json.loads(line)["payload"]))["body"]
        if body.get("name") == name:
            forged = index
    forger.set_lines(rewrite(lines, forged, made.key, lambda p: p["body"].update(sha256=sha)))
    forger.restate(made.key)


def dropped_receipt(forger: Forger, made: Made) -> None:
    lines = forger.lines(RECEIPTS)
    forger.set_lines([lines[0], *lines[2:]], RECEIPTS)
    forger.restate(made.key)


def forged_receipt(forger: Forger, made: Made) -> None:
    lines = forger.lines(RECEIPTS)
    lines[-1] = edit_line(lines[-1], generate(), lambda p: p.update(time="2020-01-01T00:00:00.000Z"))
    forger.set_lines(lines, RECEIPTS)
    forger.restate(made.key)


def manifest_that_lies(forger: Forger, made: Made) -> None:
    forger.manifest(lambda m: m.update(who="nobody"))


def manifest_that_lies_with_the_nodes_key(forger: Forger, made: Made) -> None:
    forger.manifest(lambda m: m.update(who="nobody"))
    forger.restate(made.key)


def manifest_signed_by_a_foreign_key(forger: Forger, made: Made) -> None:
    forger.restate(generate())


def unsigned_manifest(forger: Forger, made: Made) -> None:
    del forger.files[SIGNATURE]


def no_ledger(forger: Forger, made: Made) -> None:
    del forger.files[LEDGER], forger.files[RECEIPTS], forger.files[EXTRACTION]
    forger.restate(made.key)


def extra_file(forger: Forger, made: Made) -> None:
    forger.files["segments/000009-00000001.mp4"] = b"more"


def extra_kind_of_file(forger: Forger, made: Made) -> None:
    forger.files["notes.txt"] = b"more"
    forger.restate(made.key)


def missing_file(forger: Forger, made: Made) -> None:
    del forger.files["coverage.json"]


def altered_report(forger: Forger, made: Made) -> None:
    _flip(forger, "report.html", 900)


def swapped_keys(forger: Forger, made: Made) -> None:
    """The key file under the node's name holds another key."""
    forger.files[f"keys/node-{made.key.keyid}.pem"] = public_pem(generate().public)
    forger.restate(made.key)


def path_out_of_the_folder(forger: Forger, made: Made) -> None:
    forger.files["../../etc/cron.d/x"] = b"* * * * * root true\n"
    forger.restate(made.key)


def absolute_path(forger: Forger, made: Made) -> None:
    forger.files["/etc/passwd"] = b"x"
    forger.restate(made.key)


def windows_path(forger: Forger, made: Made) -> None:
    forger.files["..\\..\\x.mp4"] = b"x"
    forger.restate(made.key)


ATTACKS: list[tuple[Attack, list[str], str]] = [
    (altered_byte, ["altered-file"], r"altered: fragment 3 at byte \d+: its contents do not match .*; second 1\.0 of"),
    (altered_byte_and_manifest, ["manifest-signature", "altered-file", "extraction"], "fragment 3"),
    (altered_byte_with_the_nodes_key, ["altered-file"], r"the ledger has recorded: altered: fragment 3 .* second 1\.0"),
    (altered_trailer, ["altered-file"], r"fragment 3 at byte \d+: its trailer does not fit; second 1\.0 of the file"),
    (dropped_file, ["missing-file"], "the package does not hold it"),
    (dropped_file_with_the_nodes_key, ["dropped-footage"], "recorded in this time"),
    (swapped_files, ["altered-file", "altered-file"], "files were swapped"),
    (swapped_files_with_the_nodes_key, ["altered-file", "altered-file"], "files were swapped"),
    (replayed_file, ["altered-file"], "or one was put in twice"),
    (truncated_file, ["altered-file"], r"truncated behind fragment 2, second 1\.0 of the file"),
    (torn_file, ["altered-file"], "fragment 3 is cut off"),
    (file_of_another_node, ["altered-file"], "another file was put in its place|altered:"),
    (altered_record, ["record-signature", "chain-break"], "altered, or signed again by another key"),
    (record_signed_by_a_foreign_key, ["foreign-key"], "none of this package's"),
    (dropped_record, ["dropped-record"], r"record \d+ is missing"),
    (swapped_records, ["dropped-record", "swapped-record"], "the order was changed"),
    (replayed_record, ["replayed-record"], "for the second time"),
    (torn_record, ["record"], "no signed line"),
    (chain_break, ["chain-break"], "does not follow the record"),
    (rewritten_after_a_receipt, ["rewritten"], "the station has signed another record"),
    (dropped_receipt, ["dropped-receipt"], "not in the package"),
    (forged_receipt, ["foreign-key"], "none of this package's"),
    (manifest_that_lies, ["manifest-signature"], "altered after it was signed"),
    (manifest_that_lies_with_the_nodes_key, ["extraction"], "another `who`"),
    (manifest_signed_by_a_foreign_key, ["foreign-key"], "none of this package's"),
    (unsigned_manifest, ["unsigned"], "nobody has signed"),
    (no_ledger, ["no-ledger", "not-on-ledger"], "no ledger"),
    (extra_file, ["extra-file"], "does not know this file"),
    (extra_kind_of_file, ["extra-file"], "no file of a package"),
    (missing_file, ["missing-file"], "does not hold it"),
    (altered_report, ["altered-file"], "not the file that the manifest was signed for"),
    (swapped_keys, ["foreign-key"], "does not hold the key"),
    (path_out_of_the_folder, ["bad-name"], "would leave the folder"),
    (absolute_path, ["bad-name"], "would leave the folder"),
    (windows_path, ["bad-name"], "would leave the folder"),
]


@pytest.mark.parametrize(("attack", "expected", "says"), ATTACKS, ids=lambda value: getattr(value, "__name__", ""))
def test_an_attack_is_found_and_named(
    attack: Attack, expected: list[str], says: str, made: Made, tmp_path: Path
) -> None:
    forger = Forger(made.data)
    attack(forger, made)
    result = both(forger.data(), tmp_path)
    assert result["verdict"] == "not verified"
    found = [finding["code"] for finding in result["findings"]]
    assert set(expected) <= set(found), result["findings"]
    assert any(re.search(says, finding["says"]) for finding in result["findings"]), result["findings"]
    assert not result["proves"]


def test_a_package_of_another_node_is_not_that_of_the_node_you_know(made: Made, tmp_path: Path) -> None:
    """All of it is right in itself; only a key from elsewhere tells that it is not this node's."""
    assert both(made.other, tmp_path)["verdict"] == "verified"
    result = both(made.other, tmp_path, [made.key.public])
    assert codes(result) == [("foreign-key", "keys")]
    assert both(made.other, tmp_path, [made.station.public])["verdict"] == "not verified"


# -- the clip --------------------------------------------------------------------------------------------------------


def _samples(clip: bytes) -> tuple[standalone.Track, standalone.View]:
    view = standalone.View(io.BytesIO(clip), 0, len(clip))
    return standalone.flat(view), view


def another_clip(forger: Forger, made: Made) -> str:
    forger.files["clip.mp4"] = Forger(made.other).files["clip.mp4"]
    return "not the original's|described otherwise"


def one_picture_altered(forger: Forger, made: Made) -> str:
    sample = _samples(forger.files["clip.mp4"])[0].samples[20]
    _flip(forger, "clip.mp4", sample.offset + sample.size // 2)
    return r"access unit 21 of the clip, second 2\.0: it is not the original's \(other bytes\)"


def two_pictures_exchanged(forger: Forger, made: Made) -> str:
    """The table of sizes and the data are exchanged together: the clip itself is flawless."""
    data = bytearray(forger.files["clip.mp4"])
    track, _ = _samples(bytes(data))
    one, two = next(
        (a, b) for a, b in pairwise(track.samples) if not a.key and not b.key and a.offset + a.size == b.offset
    )
    data[one.offset : two.offset + two.size] = (
        data[two.offset : two.offset + two.size] + data[one.offset : one.offset + one.size]
    )
    sizes = struct.pack(">II", one.size, two.size)
    at = bytes(data).index(sizes)
    data[at : at + 8] = struct.pack(">II", two.size, one.size)
    forger.files["clip.mp4"] = bytes(data)
    return "it is not the original's"


def slow_motion(forger: Forger, made: Made) -> str:
    """Every picture twice as long."""
    data = bytearray(forger.files["clip.mp4"])
    at = bytes(data).index(b"stts")
    (rows,) = struct.unpack_from(">I", data, at + 8)
    for row in range(rows):
        (value,) = struct.unpack_from(">I", data, at + 16 + 8 * row)
        struct.pack_into(">I", data, at + 16 + 8 * row, value * 2)
    forger.files["clip.mp4"] = bytes(data)
    return "played at another speed"


def a_key_frame_hidden(forger: Forger, made: Made) -> str:
    data = bytearray(forger.files["clip.mp4"])
    at = bytes(data).index(b"stss")
    struct.pack_into(">I", data, at + 16, 3)
    forger.files["clip.mp4"] = bytes(data)
    return "key frame"


def fewer_pictures_than_stated(forger: Forger, made: Made) -> str:
    forger.manifest(lambda m: m["clip"].update(samples=m["clip"]["samples"] + 1))
    return r"it has \d+ access units, the manifest says \d+"


def a_later_beginning(forger: Forger, made: Made) -> str:
    forger.manifest(lambda m: m["clip"].update(first=m["clip"]["first"] + 5))
    return "not the original's"


def a_beginning_behind_the_end(forger: Forger, made: Made) -> str:
    forger.manifest(lambda m: m["clip"].update(first=10**9))
    return "behind the end of the originals"


def a_damaged_index(forger: Forger, made: Made) -> str:
    data = bytearray(forger.files["clip.mp4"])
    at = bytes(data).index(b"stsz")
    struct.pack_into(">I", data, at + 12, 0xFFFFFFF0)
    forger.files["clip.mp4"] = bytes(data)
    return "cannot be read"


CLIP_ATTACKS = [
    another_clip,
    one_picture_altered,
    two_pictures_exchanged,
    slow_motion,
    a_key_frame_hidden,
    fewer_pictures_than_stated,
    a_later_beginning,
    a_beginning_behind_the_end,
    a_damaged_index,
]


@pytest.mark.parametrize("attack", CLIP_ATTACKS, ids=lambda attack: attack.__name__)
def test_a_clip_that_is_not_the_originals_is_found(
    attack: Callable[[Forger, Made], str], made: Made, tmp_path: Path
) -> None:
    """The forger has the node's key and signs it all anew: what the clip shows is compared, not what is said of it."""
    forger = Forger(made.data)
    says = attack(forger, made)
    forger.restate(made.key, extraction=True)
    result = both(forger.data(), tmp_path)
    assert codes(result) == [("clip", "clip.mp4")], result["findings"]
    assert re.search(says, result["findings"][0]["says"]), result["findings"]


# -- the zip ---------------------------------------------------------------------------------------------------------


def test_two_files_of_one_name(made: Made, tmp_path: Path) -> None:
    """What one program unpacks is not what another one checks."""
    files = list(Forger(made.data).files.items())
    clip = next(contents for name, contents in files if name == "clip.mp4")
    assert ("duplicate-name", "clip.mp4") in codes(both(pack([*files, ("clip.mp4", clip[::-1])]), tmp_path))


def test_a_package_that_was_packed_again(made: Made, tmp_path: Path) -> None:
    """Even with the same files: a zip has places in which to hide things."""
    path = tmp_path / "again.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as again:
        for name, contents in Forger(made.data).files.items():
            again.writestr(name, contents)
    result = both(path.read_bytes(), tmp_path)
    assert {finding["code"] for finding in result["findings"]} == {"structure"}


def test_a_zip_bomb_is_not_unpacked(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, contents in Forger(made.data).files.items():
            bomb.writestr(name, contents)
        with bomb.open("segments/000001-00000009.mp4", "w") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
    result = both(path.read_bytes(), tmp_path)
    assert ("compressed", "segments/000001-00000009.mp4") in codes(result)


@pytest.mark.parametrize("size", [2**32 - 2, 2**32 - 1, 2**63])
def test_sizes_that_are_not_there(size: int, made: Made, tmp_path: Path) -> None:
    """A directory that claims the impossible costs no memory."""
    data = bytearray(made.data)
    at = bytes(data).index(b"PK\1\2")
    struct.pack_into("<II", data, at + 20, size & 0xFFFFFFFF, size & 0xFFFFFFFF)
    assert both(bytes(data), tmp_path)["verdict"] == "not verified"


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_package_that_was_cut_off(keep: float, made: Made, tmp_path: Path) -> None:
    result = both(made.data[: round(len(made.data) * keep)], tmp_path)
    assert codes(result) == [("truncated", "package")]


@pytest.mark.parametrize("tail", [b"x", bytes(1000), b"PK\5\6" + bytes(18)])
def test_something_appended(tail: bytes, made: Made, tmp_path: Path) -> None:
    assert both(made.data + tail, tmp_path)["verdict"] == "not verified"


@pytest.mark.parametrize("data", [b"", b"PK", b"hello" * 100, bytes(5000), b"PK\5\6" + bytes(18)], ids=range(5))
def test_no_package_at_all(data: bytes, tmp_path: Path) -> None:
    result = both(data, tmp_path)
    assert result["verdict"] == "not a package" and standalone.EXIT[result["verdict"]] == 2


def test_other_zip_files_are_no_packages(tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as other:
        other.writestr("hello.txt", b"hello")
    assert both(path.read_bytes(), tmp_path)["verdict"] in ("not a package", "not verified")
    assert verify(tmp_path, [])["verdict"] == "not a package"  # a folder
    assert verify(tmp_path / "none.zip", [])["verdict"] == "not a package"


# -- whatever the bytes are ------------------------------------------------------------------------------------------

HOSTILE = [
    b"[" * 60_000,
    b'{"v":' * 9_000,
    b'{"payloadType":"' + b"a" * 60_000 + b'"}',
    b"\xff\xfe" * 5_000,
    b"1" * 50_000,
    b'{"v":NaN}',
    b"null\n" * 5_000,
    b"\n" * 50_000,
    b"a" * 200_000,
    b'{"payloadType":[],"payload":{},"signatures":[[]]}',
    b'{"payload":"eyJ2IjoxfQ==","payloadType":"x","signatures":[{"keyid":7,"sig":"AA=="}]}',
]


@pytest.mark.parametrize("name", [LEDGER, RECEIPTS, EXTRACTION, MANIFEST, SIGNATURE, "keys", "segment", "clip.mp4"])
def test_hostile_contents_are_findings(name: str, made: Made, tmp_path: Path) -> None:
    """With the node's key, so that nothing is refused before it is read."""
    for data in HOSTILE:
        forger = Forger(made.data)
        target = {"keys": f"keys/node-{made.key.keyid}.pem", "segment": forger.segments[0]}.get(name, name)
        if name == MANIFEST:
            forger.files[MANIFEST] = data
        elif name == SIGNATURE:
            forger.files[SIGNATURE] = data
        else:
            forger.files[target] = data
            forger.restate(made.key, extraction=name in ("segment", "clip.mp4"))
        assert both(forger.data(), tmp_path, ed25519=Ed25519())["verdict"] == "not verified"


WRONG: list[Any] = [None, -1, 10**30, "x", [], {}, True, 1.5, "\x1b[2J", "../..", [None], {"a": {}}]


def test_values_of_other_types_are_findings(made: Made, tmp_path: Path, seed: int) -> None:
    """Every field of the manifest and of a record holds something else, signed by the node's key."""
    rng = random.Random(seed)
    told = json.loads(Forger(made.data).files[MANIFEST])
    places = (
        [(key,) for key in told] + [("clip", key) for key in told["clip"]] + [("range", key) for key in told["range"]]
    )
    for place in places:
        forger = Forger(made.data)

        def edit(manifest: dict[str, Any], place: tuple[str, ...] = place) -> None:
            for key in place[:-1]:
                manifest = manifest[key]
            manifest[place[-1]] = rng.choice(WRONG)

        forger.restate(made.key)
        forger.manifest(edit)
        forger_data = _signed(forger, made.key).data()
        both(
            forger_data, tmp_path, ed25519=Ed25519()
        )  # some fields are only told, not judged: what counts is that nobody falls over
    fields = ["v", "node", "seq", "prev", "kind", "body", "receipt", "boot_ns", "utc"]
    for field_name in fields:
        forger = Forger(made.data)
        lines = forger.lines()
        lines[1] = edit_line(lines[1], made.key, lambda p, f=field_name: p.update({f: rng.choice(WRONG)}))  # type: ignore[misc]
        forger.set_lines(lines)
        forger.restate(made.key)
        assert both(forger.data(), tmp_path, ed25519=Ed25519())["verdict"] == "not verified", field_name


def _signed(forger: Forger, key: Key) -> Forger:
    signature = b64encode(key.sign(dsse.pae(standalone.PACKAGE_TYPE, forger.files[MANIFEST]))).decode()
    told = {"payloadType": standalone.PACKAGE_TYPE, "signatures": [{"keyid": key.keyid, "sig": signature}]}
    forger.files[SIGNATURE] = json.dumps(told, separators=(",", ":")).encode() + b"\n"
    return forger


class Remembering(Ed25519):
    """Ed25519 that has the answer to what it was asked before: the same key, message and signature, to the byte.

    Of a package with one flipped bit nearly all signatures are those of the package before; this is what makes ten
    thousand of them affordable, and takes no check away.
    """

    def __init__(self) -> None:
        self._known: dict[Signed, bool] = {}

    def check(self, many: list[Signed]) -> list[bool]:
        for signed in many:
            if signed not in self._known:
                if len(self._known) > 10_000:
                    self._known.clear()
                (self._known[signed],) = super().check([signed])
        return [self._known[signed] for signed in many]


def flips(data: bytes, count: int, rng: random.Random, *, openssl_every: int) -> int:
    """Flips random bits, one at a time; no verifier may accept or fall over. Returns how many were tried.

    Accepted means `verified`. There is no harmless place: every byte of a package is covered.
    """
    altered = bytearray(data)
    ours = Remembering()
    for n in range(count):
        bit = rng.randrange(len(data) * 8)
        altered[bit // 8] ^= 1 << bit % 8
        file = io.BytesIO(altered)
        engine = standalone.OpenSsl() if n % openssl_every == 0 else ours
        second = SecondOpinion(file, [])
        second.ed25519 = ours
        for check in (standalone.Check(file, [], engine), second):
            try:
                check.run()
                verdict = check.result()["verdict"]
            except standalone.NotAPackage:
                verdict = "not a package"
            assert verdict != "verified", f"bit {bit} of byte {bit // 8}: accepted by {type(check).__name__}"
        altered[bit // 8] ^= 1 << bit % 8
    assert bytes(altered) == data
    return count


def test_no_flipped_bit_is_accepted(made: Made, seed: int) -> None:
    assert flips(made.data, FLIPS, random.Random(seed), openssl_every=40) >= 500


def test_every_byte_that_is_not_contents_is_covered(made: Made) -> None:
    """Headers, directory and end of the zip, exhaustively: where a forger would look for room."""
    package = standalone.Package(io.BytesIO(made.data), standalone.Findings())
    package.open()
    inside = [range(m.start, m.start + m.size) for m in package.members.values()]
    outside = set(range(len(made.data))).difference(*inside)
    assert len(outside) > 1000
    altered = bytearray(made.data)
    for at in outside:
        altered[at] ^= 1 << at % 8
        check = standalone.Check(io.BytesIO(altered), [], Ed25519())
        try:
            check.run()
            assert check.result()["verdict"] == "not verified", at
        except standalone.NotAPackage:
            pass
        altered[at] ^= 1 << at % 8


# -- the programs ----------------------------------------------------------------------------------------------------


def test_the_commands_answer_alike(made: Made, tmp_path: Path) -> None:
    good, bad, none = tmp_path / "good.zip", tmp_path / "bad.zip", tmp_path / "none.zip"
    good.write_bytes(made.data)
    forger = Forger(made.data)
    altered_byte(forger, made)
    forger.write(bad)
    none.write_bytes(b"nothing")
    key = tmp_path / "node.pem"
    key.write_bytes(public_pem(made.key.public))
    alone = tmp_path / "verify.py"
    alone.write_bytes(Forger(made.data).files["verify.py"])
    apart = subprocess.run([sys.executable, "-m", "agent.cli", "verify", str(bad)], capture_output=True, text=True)
    assert apart.returncode == 1 and "Traceback" not in apart.stderr + apart.stdout
    for path, code in ((good, 0), (bad, 1), (none, 2)):
        said = []
        for program in (here, partial(by_itself, alone)):
            done = program(str(path), "--trust", str(key), "--json")
            assert done.returncode == code and done.stderr == "", done
            said.append(json.loads(done.stdout))
            words = program(str(path))
            assert words.returncode == code and "Traceback" not in words.stderr + words.stdout
        assert said[0]["findings"] == said[1]["findings"]


def here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`wardpost verify` in this process: as a program of its own it takes a second to load."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["verify", *arguments])
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def by_itself(alone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The single file, isolated from everything that is installed."""
    return subprocess.run([sys.executable, "-I", str(alone), *arguments], capture_output=True, text=True)


def test_a_key_may_be_given_as_it_is_shown(made: Made, tmp_path: Path) -> None:
    """`wardpost key show` prints 64 hex digits, and so does a station: both programs take them."""
    good, alone = tmp_path / "good.zip", tmp_path / "verify.py"
    good.write_bytes(made.data)
    alone.write_bytes(Forger(made.data).files["verify.py"])
    for program in (here, partial(by_itself, alone)):
        for text, code, words in (
            (made.key.public.hex(), 0, "a node's key that you trust"),
            (made.key.public.hex().upper(), 0, "a node's key that you trust"),
            ("ab" * 32, 1, "signed by other keys"),
            (made.key.public.hex()[:-1], (2, 78), "neither 64 hex digits nor"),
        ):
            done = program(str(good), "--trust", text)
            assert done.returncode in (code if isinstance(code, tuple) else (code,)), done
            assert words in done.stdout + done.stderr


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.12", "3.13"])
def test_the_single_file_runs_on_other_pythons(version: str, made: Made, tmp_path: Path) -> None:
    program = shutil.which(f"python{version}")
    if program is None or subprocess.run([program, "--version"], capture_output=True).returncode:
        pytest.skip(f"no Python {version} on this machine")
    alone, path = tmp_path / "verify.py", tmp_path / "package.zip"
    alone.write_bytes(Forger(made.data).files["verify.py"])
    path.write_bytes(made.data)
    done = subprocess.run([program, "-I", str(alone), str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_openssl_it_says_what_is_missing(made: Made, tmp_path: Path) -> None:
    alone, path = tmp_path / "verify.py", tmp_path / "package.zip"
    alone.write_bytes(Forger(made.data).files["verify.py"])
    path.write_bytes(made.data)
    done = subprocess.run(
        [sys.executable, "-I", str(alone), str(path)], capture_output=True, text=True, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 2
    assert "openssl is not installed" in done.stdout


def test_the_single_file_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(standalone.__file__).read_text())
    names = {
        (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names <= set(sys.stdlib_module_names)
