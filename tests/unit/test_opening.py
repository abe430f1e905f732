"""Sealed footage in evidence packages: the node proves what it cannot show, the station shows it, and anybody can check
that what is shown is what was sealed, without the station's private key."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.errors import ConfigError, Corrupt
from agent.evidence import dsse, seal, standalone
from agent.evidence.keys import Key, generate
from agent.evidence.opening import open_package
from agent.evidence.standalone import MANIFEST, OPENING, OPENING_SIGNATURE
from agent.evidence.verify import Ed25519
from agent.types import NS
from tests.fakes.clock import FakeClock
from tests.fakes.evidence_post import EvidencePost
from tests.fakes.forger import Forger
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.unit.test_verify import both, codes, flips

STATION = X25519PrivateKey.generate()


@dataclass
class Made:
    """A package as the node made it, the same one opened, and all keys that anybody could steal."""

    sealed: bytes
    opened: bytes
    key: Key  # the node's
    signer: Key  # the opener's
    plain: list[bytes]  # access units as the camera gave them
    other: bytes  # another post's, opened


def _make(folder: Path, seed: int) -> Made:
    post = EvidencePost(folder / "node", seal=STATION.public_key())
    packets = encoded(seconds=7, seed=seed)
    post.feed(packets, receipt_every=20)
    post.seal()
    post.export(folder / "sealed.zip", 1, 6)
    signer = post.station.key
    open_package(
        sealed=folder / "sealed.zip", key=seal.Key(STATION), output=folder / "open.zip", who="Maj. Le",
        clock=FakeClock(), signer=signer,
    )  # fmt: skip
    post.post.store.close()
    files = [(folder / name).read_bytes() for name in ("sealed.zip", "open.zip")]
    return Made(files[0], files[1], post.key, signer, [packet.data for packet in packets], b"")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    found = _make(one, 1)
    found.other = _make(other, 2).opened
    return found


def test_the_node_makes_a_package_into_which_it_cannot_look(made: Made, tmp_path: Path) -> None:
    """Ledger, hashes, receipts and coverage are proved; no picture stands in it, and it says so."""
    result = both(made.sealed, tmp_path)
    assert result["verdict"] == "verified", result["findings"]
    assert (result["locked"], result["opened"]) == (result["segments"], 0)
    assert any("sealed to the station" in note for note in result["notes"])
    assert not any("clip" in text for text in result["proves"])
    slices = [unit[-40:-8] for unit in made.plain if len(unit) > 60]
    assert len(slices) > 30 and not any(part in made.sealed for part in slices)
    assert sum(part in made.opened for part in slices) > 30
    files = Forger(made.sealed).files
    assert "clip.mp4" not in files and json.loads(files[MANIFEST])["clip"] is None
    assert b"sealed to the station" in files["report.html"] and "sealed to the station" in files["report.txt"].decode()


def test_the_station_opens_it_and_anybody_can_check(made: Made, tmp_path: Path) -> None:
    result = both(made.opened, tmp_path)
    assert result["verdict"] == "verified", result["findings"]
    assert result["opened"] == result["locked"] == result["segments"] >= 3
    assert any("no other content" in text for text in result["proves"])
    assert any("the clip shows exactly these pictures" in text for text in result["proves"])
    assert any("Maj. Le" in note and "the station whose receipts are here" in note for note in result["notes"])
    for key in (made.key, made.signer):
        assert "you trust" in both(made.opened, tmp_path, [key.public])["trust"]
    files = Forger(made.opened).files
    assert [n for n in files if n in Forger(made.sealed).files] == list(Forger(made.sealed).files)
    clips = [name for name in files if name.startswith("opened/")]
    assert len(clips) == result["segments"] + 1
    for name in clips:  # each is a film of its own
        with av.open(io.BytesIO(files[name]), "r") as film:
            assert len(list(film.decode(video=0))) >= 5
    with av.open(io.BytesIO(files["opened/clip.mp4"]), "r") as film:
        assert len(list(film.decode(video=0))) in range(50, 61)


def test_taken_apart_again_it_is_the_nodes_package(made: Made) -> None:
    """Nothing of the node's was touched: without what was added, it is that package to the bit."""
    forger = Forger(made.opened)
    for name in [n for n in forger.files if n.startswith(("opened/", "opening."))]:
        del forger.files[name]
    assert forger.data() == made.sealed


def test_unsigned_it_is_proved_all_the_same(made: Made, tmp_path: Path) -> None:
    """What was opened needs nobody's word; who opened it does, and the verifier says which is which."""
    forger = Forger(made.opened)
    del forger.files[OPENING_SIGNATURE]
    restate(forger, lambda told: told.update(key=""))
    result = both(forger.data(), tmp_path)
    assert result["verdict"] == "verified", result["findings"]
    assert any("nobody has signed the opening" in note for note in result["notes"])


# -- attacks: the forger opens anew, and signs the opening with a key of his own, which costs him nothing ---------------

Attack = Callable[[Forger, Made], object]
FORGER = generate()


def restate(forger: Forger, edit: Callable[[dict[str, Any]], object] = lambda _: None, key: Key | None = None) -> None:
    """Makes opening.json fit the files again, and signs it where a key is given."""
    told = json.loads(forger.files[OPENING])
    for entry in told["files"]:
        data = forger.files.get(entry["name"], b"")
        entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    if key is not None:
        told["key"] = key.public.hex()
    edit(told)
    forger.files[OPENING] = json.dumps(told, indent=1).encode() + b"\n"
    if key is not None:
        signature = b64encode(key.sign(dsse.pae(standalone.OPENING_TYPE, forger.files[OPENING]))).decode()
        line = {"payloadType": standalone.OPENING_TYPE, "signatures": [{"keyid": key.keyid, "sig": signature}]}
        forger.files[OPENING_SIGNATURE] = json.dumps(line, separators=(",", ":")).encode() + b"\n"


def twins(forger: Forger) -> list[str]:
    return [entry["name"] for entry in json.loads(forger.files[OPENING])["files"] if entry["of"]]


def flip(forger: Forger, name: str, share: float = 0.5) -> None:
    data = bytearray(forger.files[name])
    data[min(round(len(data) * share), len(data) - 1)] ^= 1
    forger.files[name] = bytes(data)


def altered_plaintext(forger: Forger, made: Made) -> None:
    flip(forger, twins(forger)[1])


def altered_plaintext_restated(forger: Forger, made: Made) -> None:
    altered_plaintext(forger, made)
    restate(forger, key=FORGER)


def altered_last_byte(forger: Forger, made: Made) -> None:
    flip(forger, twins(forger)[0], 1 - 1e-9)
    restate(forger, key=FORGER)


def altered_head(forger: Forger, made: Made) -> None:
    flip(forger, twins(forger)[0], 0.0003)
    restate(forger, key=FORGER)


def appended(forger: Forger, made: Made) -> None:
    forger.files[twins(forger)[0]] += b"\0\0\0\x08free"
    restate(forger, key=FORGER)


def cut_short(forger: Forger, made: Made) -> None:
    name = twins(forger)[0]
    forger.files[name] = forger.files[name][:-100]
    restate(forger, key=FORGER)


def swapped_plaintexts(forger: Forger, made: Made) -> None:
    one, two = twins(forger)[:2]
    forger.files[one], forger.files[two] = forger.files[two], forger.files[one]
    restate(forger, key=FORGER)


def swapped_names(forger: Forger, made: Made) -> None:
    """Each opened file is said to be of the other original, with its own key."""

    def edit(told: dict[str, Any]) -> None:
        one, two = told["files"][:2]
        one["of"], two["of"] = two["of"], one["of"]

    restate(forger, edit, FORGER)


def swapped_keys(forger: Forger, made: Made) -> None:
    def edit(told: dict[str, Any]) -> None:
        one, two = told["files"][:2]
        one["key"], two["key"] = two["key"], one["key"]

    restate(forger, edit, FORGER)


def another_key(forger: Forger, made: Made) -> None:
    """What the sealed bytes give under a key of the forger's choice: the commitment is what refuses it."""
    entry = json.loads(forger.files[OPENING])["files"][0]
    sealed = forger.files[entry["of"]]
    view = standalone.View(io.BytesIO(sealed), 0, len(sealed))
    found = standalone.scan(view).fragments
    plain = sealed[: found[0].offset]
    for fragment in found:
        piece = sealed[fragment.offset : fragment.end - standalone._TRAILER_BYTES]
        plain += Ed25519().unlock([standalone.Locked(bytes(32), fragment.n, piece[16:-16])])[0]
    forger.files[entry["name"]] = plain
    restate(forger, lambda told: told["files"][0].update(key="00" * 32), FORGER)


def altered_sealed_bytes(forger: Forger, made: Made) -> None:
    flip(forger, forger.segments[1])


def altered_sealed_bytes_with_the_nodes_key(forger: Forger, made: Made) -> None:
    added = {name: forger.files.pop(name) for name in list(forger.files) if name.startswith(("opened/", "opening."))}
    flip(forger, forger.segments[1])
    forger.restate(made.key)
    forger.files |= added
    restate(forger, lambda told: told.update(manifest=hashlib.sha256(forger.files[MANIFEST]).hexdigest()), FORGER)


def dropped_opening(forger: Forger, made: Made) -> None:
    del forger.files[twins(forger)[1]]


def left_sealed(forger: Forger, made: Made) -> None:
    """The file that exonerates stays sealed."""
    name = twins(forger)[1]
    del forger.files[name]
    restate(forger, lambda told: told.update(files=[e for e in told["files"] if e["name"] != name]), FORGER)


def opening_of_another_package(forger: Forger, made: Made) -> None:
    other = Forger(made.other)
    for name in [n for n in other.files if n.startswith(("opened/", "opening."))]:
        forger.files[name] = other.files[name]


def smuggled_file(forger: Forger, made: Made) -> None:
    forger.files["opened/clip-7.mp4"] = b"something else"


def smuggled_and_stated(forger: Forger, made: Made) -> None:
    forger.files["opened/clip-7.mp4"] = b"something else"
    more = {"name": "opened/clip-7.mp4", "bytes": 0, "sha256": "", "of": "", "key": ""}
    restate(forger, lambda told: told["files"].append(more))
    restate(forger, key=FORGER)


def another_clip(forger: Forger, made: Made) -> None:
    forger.files["opened/clip.mp4"] = Forger(made.other).files["opened/clip.mp4"]
    restate(forger, key=FORGER)


def shorter_clip(forger: Forger, made: Made) -> None:
    restate(forger, lambda told: told["clip"].update(samples=told["clip"]["samples"] - 1), FORGER)


def who_altered(forger: Forger, made: Made) -> None:
    restate(forger, lambda told: told.update(who="Maj. Tran"))


def signature_of_somebody_else(forger: Forger, made: Made) -> None:
    signature = forger.files[OPENING_SIGNATURE]
    restate(forger, key=FORGER)
    forger.files[OPENING_SIGNATURE] = signature


def signature_dropped(forger: Forger, made: Made) -> None:
    del forger.files[OPENING_SIGNATURE]


def opening_dropped(forger: Forger, made: Made) -> None:
    del forger.files[OPENING]


ATTACKS: list[tuple[Attack, set[str]]] = [
    (altered_plaintext, {"altered-file"}),
    (altered_plaintext_restated, {"opening"}),
    (altered_last_byte, {"opening"}),
    (altered_head, {"opening"}),
    (appended, {"opening"}),
    (cut_short, {"opening"}),
    (swapped_plaintexts, {"opening"}),
    (swapped_names, {"opening-key"}),
    (swapped_keys, {"opening-key"}),
    (another_key, {"opening-key"}),
    (altered_sealed_bytes, {"altered-file"}),
    (altered_sealed_bytes_with_the_nodes_key, {"altered-file", "extraction"}),
    (dropped_opening, {"missing-file"}),
    (left_sealed, {"opening"}),
    (opening_of_another_package, {"opening", "altered-file", "extra-file", "missing-file"}),
    (smuggled_file, {"extra-file"}),
    (smuggled_and_stated, {"opening"}),
    (another_clip, {"clip"}),
    (shorter_clip, {"clip"}),
    (who_altered, {"opening-signature"}),
    (signature_of_somebody_else, {"foreign-key", "opening-signature"}),
    (signature_dropped, {"opening"}),
    (opening_dropped, {"extra-file"}),
]


@pytest.mark.parametrize(("attack", "expected"), ATTACKS, ids=lambda value: getattr(value, "__name__", ""))
def test_attacks_on_an_opening_are_named(attack: Attack, expected: set[str], made: Made, tmp_path: Path) -> None:
    forger = Forger(made.opened)
    attack(forger, made)
    result = both(forger.data(), tmp_path)
    found = {code for code, _ in codes(result)}
    assert found and found <= expected, result["findings"]


def test_the_altered_fragment_and_its_second_are_named(made: Made, tmp_path: Path) -> None:
    forger = Forger(made.opened)
    altered_plaintext_restated(forger, made)
    (finding,) = both(forger.data(), tmp_path)["findings"]
    assert finding["where"] == twins(forger)[1]
    assert "fragment" in finding["says"] and "second" in finding["says"]


def test_a_node_that_never_sealed_cannot_be_opened(made: Made, tmp_path: Path) -> None:
    """Opening.json in a package in clear is refused, not ignored."""
    post = EvidencePost(tmp_path / "clear")
    post.feed(encoded(seconds=4))
    post.seal()
    post.export(tmp_path / "clear.zip")
    forger = Forger((tmp_path / "clear.zip").read_bytes())
    sha256 = hashlib.sha256(forger.files[MANIFEST]).hexdigest()
    forger.files[OPENING] = Forger(made.opened).files[OPENING]
    restate(forger, lambda told: told.update(key="", files=[], manifest=sha256))
    assert both(forger.data(), tmp_path)["verdict"] == "not verified"


HOSTILE: list[Any] = [None, -1, 10**30, "x", [], {}, True, "\x1b[2J", "../..", [None], {"a": {}}, "zz" * 32]


def test_values_of_other_types_are_findings(made: Made, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    told = json.loads(Forger(made.opened).files[OPENING])
    places = (
        [(key,) for key in told]
        + [("clip", key) for key in told["clip"]]
        + [("files", 0, key) for key in told["files"][0]]
    )
    for place in places:
        forger = Forger(made.opened)

        def edit(value: Any, place: tuple[Any, ...] = place) -> None:
            for key in place[:-1]:
                value = value[key]
            value[place[-1]] = rng.choice(HOSTILE)

        restate(forger, edit)
        assert both(forger.data(), tmp_path, ed25519=Ed25519())["verdict"] == "not verified", place
    for data in (b"", b"{}", b"[" * 60_000, b"null\n", b"\xff" * 100):
        for name in (OPENING, OPENING_SIGNATURE):
            forger = Forger(made.opened)
            forger.files[name] = data
            assert both(forger.data(), tmp_path, ed25519=Ed25519())["verdict"] == "not verified"


def test_no_flipped_bit_is_accepted(made: Made, seed: int) -> None:
    assert flips(made.opened, 150, random.Random(seed), openssl_every=50) == 150


# -- opening ---------------------------------------------------------------------------------------------------------


def opening(folder: Path, data: bytes, key: X25519PrivateKey = STATION) -> Path:
    (folder / "sealed.zip").write_bytes(data)
    done = open_package(
        sealed=folder / "sealed.zip", key=seal.Key(key), output=folder / "open.zip", who="", clock=FakeClock()
    )
    assert not done.signed
    return done.path


def test_what_cannot_be_opened_says_why_and_leaves_nothing(made: Made, tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match=r"segments/.*sealed to another station's key"):
        opening(tmp_path, made.sealed, X25519PrivateKey.generate())
    forger = Forger(made.sealed)
    flip(forger, forger.segments[0])
    with pytest.raises(Corrupt, match="is not verified: segments/"):
        opening(tmp_path, forger.data())
    with pytest.raises(Corrupt, match="no zip file"):
        opening(tmp_path, b"nothing")
    with pytest.raises(ConfigError, match="opened already"):
        opening(tmp_path, made.opened)
    with pytest.raises(ConfigError, match="No such file"):
        open_package(sealed=tmp_path / "no", key=seal.Key(STATION), output=tmp_path / "o", who="", clock=FakeClock())
    assert [path.name for path in tmp_path.iterdir()] == ["sealed.zip"]


def test_a_range_in_which_sealing_was_switched_on(tmp_path: Path) -> None:
    """Files in clear and sealed ones in one package: the clip is made of both."""
    post = EvidencePost(tmp_path / "node")
    post.feed(encoded(seconds=4))
    post.seal()
    lock = seal.Lock
    post.post.recorder._lock = lambda about: lock(STATION.public_key(), about)
    post.feed(encoded(seconds=4, start_ns=1004 * NS))
    post.seal()
    post.export(tmp_path / "sealed.zip", 0, 8)
    result = both(opening(tmp_path, (tmp_path / "sealed.zip").read_bytes()).read_bytes(), tmp_path)
    assert result["verdict"] == "verified", result["findings"]
    assert 0 < result["opened"] < result["segments"]


def test_the_file_in_progress_is_opened_as_far_as_it_is_durable(tmp_path: Path) -> None:
    post = EvidencePost(tmp_path / "node", seal=STATION.public_key())
    post.feed(encoded(seconds=5))
    post.export(tmp_path / "sealed.zip", 1, 5)
    result = both(opening(tmp_path, (tmp_path / "sealed.zip").read_bytes()).read_bytes(), tmp_path)
    assert result["verdict"] == "verified", result["findings"]
    assert any("was being written" in note for note in result["notes"])


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.13"])
def test_the_single_file_checks_it_with_openssl_alone(version: str, made: Made, tmp_path: Path) -> None:
    program = shutil.which(f"python{version}") or sys.executable
    if subprocess.run([program, "--version"], capture_output=True).returncode:
        program = sys.executable
    alone, path = tmp_path / "verify.py", tmp_path / "package.zip"
    alone.write_bytes(Forger(made.opened).files["verify.py"])
    path.write_bytes(made.opened)
    done = subprocess.run([program, "-I", str(alone), str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "files in opened/ are, byte for byte, what the sealed originals hold" in done.stdout


@pytest.mark.parametrize("way", ["the same name", "another name of it"])
def test_what_the_node_made_is_not_overwritten_by_its_opening(made: Made, tmp_path: Path, way: str) -> None:
    """The sealed package is the evidence: a name typed twice must not cost it."""
    package = tmp_path / "sealed.zip"
    package.write_bytes(made.sealed)
    output = package
    if way == "another name of it":
        output = tmp_path / "link.zip"
        output.hardlink_to(package)
    with pytest.raises(ConfigError, match="-o"):
        open_package(sealed=package, key=seal.Key(STATION), output=output, who="x", clock=FakeClock())
    assert package.read_bytes() == output.read_bytes() == made.sealed
