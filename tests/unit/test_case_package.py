"""The package of a case of several posts: what is in it, that anybody can check it, and what each forgery of it meets.

On both databases; examined by both verifiers, the one of the package in a process of its own that knows nothing of us.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import insert

from agent.disk import PosixDisk
from agent.errors import ConfigError, Corrupt
from agent.evidence import dsse, keys, opening, receipts, seal, standalone, verify
from agent.evidence.keys import Key, generate, public_pem
from agent.evidence.standalone import CASE, CASE_TYPE, MANIFEST, PACKAGES, SIGNATURE, TRAIL
from agent.station.cases import export
from agent.station.cases.states import Act
from agent.station.db.engine import writing
from agent.station.db.tables import receipt
from tests.fakes.evidence_post import UTC_0, EvidencePost
from tests.fakes.footage_desk import POST, FootageDesk
from tests.fakes.forger import Forger
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.unit.test_cases import EVERYWHERE, FULL, SITE, SUPERVISOR, World, trail_of, world, world_on  # noqa: F401

OTHER, EMPTY = "cam-2", "cam-3"


def film(world: World, folder: Path, of: str) -> EvidencePost:  # noqa: F811
    """Four seconds of a post are here, with its ledger and its receipts."""
    post = EvidencePost(folder / of, node=f"{SITE}/{of}")
    post.feed(encoded(seconds=4), receipt_every=20)
    post.seal()
    world.desk.hear(post, of=of)
    world.desk.take_all(post, of=of)
    with post.disk.open(receipts.FILE) as file, writing(world.desk.engine, "sign") as db:
        for raw in file.read().splitlines():
            seq = receipts.read(raw).payload.seq
            db.execute(insert(receipt).values(node=of, root="a" * 64, seq=seq, utc_ns=UTC_0, body=raw))
    return post


def packed(world: World, folder: Path, *more: str) -> tuple[int, Path]:  # noqa: F811
    """A case of two posts and `more`, and its package."""
    for of in (POST, OTHER):
        film(world, folder, of)
    for of in (OTHER, *more):
        world.desk.knows(of, "Market")
    return again(world, POST, OTHER, *more)


def again(world: World, *posts: str) -> tuple[int, Path]:  # noqa: F811
    """One more case of these posts."""
    n = world.open(posts=posts)
    done = world.exporter.make(SUPERVISOR, world.case(n), "", FULL)
    assert isinstance(done, int), done
    step = world.cases.step(EVERYWHERE, n, done)
    assert step is not None
    path = world.exporter.file(n, step)
    assert path is not None
    return n, path


def both(path: Path, *trusted: bytes) -> list[dict[str, Any]]:
    return [standalone.verify(str(path), list(trusted)), verify.verify(path, list(trusted))]


def station_key(world: World) -> Key:  # noqa: F811
    return keys.load(PosixDisk(world.desk.folder), "station")[-1]


def alone(package: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What the verifier that lies in the package says of it, in a folder of its own and without our modules."""
    program = folder / "verify.py"
    program.write_bytes(Forger(package.read_bytes()).files["verify.py"])
    command = [sys.executable, "-I", str(program), str(package), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)


def test_all_posts_of_a_case_in_one_package_that_anybody_can_check(world: World, tmp_path: Path) -> None:  # noqa: F811
    n, path = packed(world, tmp_path)
    for result in both(path):
        assert (result["verdict"], result["findings"]) == ("verified", [])
        assert sorted(result["packages"]) == [f"{PACKAGES}{POST}.zip", f"{PACKAGES}{OTHER}.zip"]
        assert {one["verdict"] for one in result["packages"].values()} == {"verified"}
        assert (result["case"], result["number"], result["site"]) == (n, "12/2026", SITE)
        assert (result["who"], result["reason"]) == ("Minh (minh)", "case 12/2026: a theft")
    step = world.case(n).steps[-1]
    assert (step.act, step.node, step.detail, step.bytes) == (Act.COPIED, "", f"{POST} {OTHER}", path.stat().st_size)
    assert step.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    told = trail_of(world)[-1]
    assert (told["act"], told["who"], told["told"]["detail"]) == ("copied", "minh", f"{POST} {OTHER}")

    found = Forger(path.read_bytes())
    for of in (POST, OTHER):  # each is a package of evidence like any other, as this very moment would give it
        inside = tmp_path / f"{of}.zip"
        inside.write_bytes(found.files[f"{PACKAGES}{of}.zip"])
        assert [one["verdict"] for one in both(inside)] == ["verified", "verified"]
        single = Forger(inside.read_bytes())
        assert single.files[CASE] == found.files[CASE]
        assert single.files[TRAIL] == found.files[TRAIL]
    assert [one["act"] for one in json.loads(found.files[CASE])["timeline"]] == ["opened", "attached"]
    assert [path.name for path in path.parent.iterdir()] == [path.name]  # nothing is left of the making

    answer = alone(path, tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "case 12/2026" in answer.stdout
    assert f"{PACKAGES}{OTHER}.zip: verified" in answer.stdout
    pem = tmp_path / "station.pem"
    pem.write_bytes(public_pem(station_key(world).public))
    command = [sys.executable, "-m", "agent.cli", "verify", str(path), "--trust", str(pem), "--json"]
    ours = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ours.returncode == 0, ours.stdout + ours.stderr
    assert json.loads(ours.stdout)["trust"] == "put together and signed by a station whose key you trust"


def test_who_trusts_another_station_is_told(world: World, tmp_path: Path) -> None:  # noqa: F811
    _, path = packed(world, tmp_path)
    for result in both(path, generate().public):
        assert result["verdict"] == "not verified"
        assert result["findings"][0]["code"] == "foreign-key"


def test_a_post_of_which_there_is_nothing_is_named_with_the_reason(world: World, tmp_path: Path) -> None:  # noqa: F811
    n, path = packed(world, tmp_path, EMPTY)
    for result in both(path):
        assert (result["verdict"], len(result["packages"])) == ("verified", 2)
        assert any(note.startswith(f"{EMPTY}: no package") and "no ledger" in note for note in result["notes"])
    assert world.case(n).steps[-1].detail == f"{POST} {OTHER}"
    empty = world.open(posts=(EMPTY,))
    with pytest.raises(ConfigError, match="no package of any post"):
        world.exporter.make(SUPERVISOR, world.case(empty), "", FULL)
    assert [step.act for step in world.case(empty).steps] == [Act.OPENED]


# -- forgeries --------------------------------------------------------------------------------------------------------


def restate(forger: Forger, key: Key | None = None) -> None:
    """The manifest fits the files again; `key`: and is signed anew."""

    def edit(told: dict[str, Any]) -> None:
        stated: list[dict[str, Any]] = [
            {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in forger.files.items()
            if name not in (MANIFEST, SIGNATURE)
        ]
        told["files"] = [one for one in stated if not one["name"].startswith(PACKAGES)]
        told["packages"] = [
            one | {"post": one["name"][len(PACKAGES) : -4]} for one in stated if one["name"].startswith(PACKAGES)
        ]

    forger.manifest(edit)
    if key is not None:
        sign(forger, key)


def sign(forger: Forger, key: Key) -> None:
    signature = b64encode(key.sign(dsse.pae(CASE_TYPE, forger.files[MANIFEST]))).decode()
    told = {"payloadType": CASE_TYPE, "signatures": [{"keyid": key.keyid, "sig": signature}]}
    forger.files[SIGNATURE] = json.dumps(told, separators=(",", ":")).encode() + b"\n"


ONE, TWO = f"{PACKAGES}{POST}.zip", f"{PACKAGES}{OTHER}.zip"
Forge = Callable[[Forger, Forger, Key], None]
"""(package, that of another case of the same posts, the station's key)"""


def removed(forger: Forger, _: Forger, __: Key) -> None:
    del forger.files[TWO]


def removed_and_restated(forger: Forger, _: Forger, __: Key) -> None:
    del forger.files[TWO]
    restate(forger)


def removed_by_the_station(forger: Forger, _: Forger, key: Key) -> None:
    """Even with the station's key: case.json has the post."""
    del forger.files[TWO]
    restate(forger, key)


def of_another_case(forger: Forger, other: Forger, _: Key) -> None:
    forger.files[TWO] = other.files[TWO]


def of_another_case_by_the_station(forger: Forger, other: Forger, key: Key) -> None:
    forger.files[TWO] = other.files[TWO]
    restate(forger, key)


def swapped(forger: Forger, _: Forger, __: Key) -> None:
    forger.files[ONE], forger.files[TWO] = forger.files[TWO], forger.files[ONE]


def swapped_by_the_station(forger: Forger, _: Forger, key: Key) -> None:
    forger.files[ONE], forger.files[TWO] = forger.files[TWO], forger.files[ONE]
    restate(forger, key)


def other_reason(forger: Forger, _: Forger, __: Key) -> None:
    forger.manifest(lambda told: told.update(reason="another one"))


def other_number(forger: Forger, _: Forger, key: Key) -> None:
    forger.manifest(lambda told: told.update(number="13/2026"))
    sign(forger, key)


def a_stranger_signs(forger: Forger, _: Forger, __: Key) -> None:
    """He puts his own key beside the station's, and signs for what is left."""
    stranger = generate()
    del forger.files[TWO]
    forger.files[f"keys/station-{stranger.keyid}.pem"] = public_pem(stranger.public)
    case = json.loads(forger.files[CASE])
    forger.files[CASE] = json.dumps(case | {"posts": [POST]}, indent=1).encode() + b"\n"
    restate(forger, stranger)


def signature_of_a_post(forger: Forger, _: Forger, key: Key) -> None:
    """What the station has signed as the package of a post is none of a case."""
    signature = b64encode(key.sign(dsse.pae(standalone.PACKAGE_TYPE, forger.files[MANIFEST]))).decode()
    told = {"payloadType": CASE_TYPE, "signatures": [{"keyid": key.keyid, "sig": signature}]}
    forger.files[SIGNATURE] = json.dumps(told, separators=(",", ":")).encode() + b"\n"


def unsigned(forger: Forger, _: Forger, __: Key) -> None:
    del forger.files[SIGNATURE]


def one_more(forger: Forger, _: Forger, __: Key) -> None:
    forger.files[f"{PACKAGES}cam-9.zip"] = forger.files[ONE]


def trail_thinned(forger: Forger, _: Forger, key: Key) -> None:
    forger.set_lines(forger.lines(TRAIL)[:-1], TRAIL)
    restate(forger, key)


def altered_inside(forger: Forger, _: Forger, key: Key) -> None:
    data = bytearray(forger.files[ONE])
    data[len(data) // 2] ^= 1
    forger.files[ONE] = bytes(data)
    restate(forger, key)


def no_package(forger: Forger, _: Forger, key: Key) -> None:
    forger.files[ONE] = b"nothing"
    restate(forger, key)


def case_in_a_case(forger: Forger, _: Forger, key: Key) -> None:
    forger.files[ONE] = forger.data()
    restate(forger, key)


def no_manifest_of_any_kind(forger: Forger, _: Forger, key: Key) -> None:
    forger.manifest(lambda told: told.update(packages=[]))
    sign(forger, key)


FORGERIES: list[tuple[Forge, str]] = [
    (removed, "missing-file"),
    (removed_and_restated, "manifest-signature"),
    (removed_by_the_station, "case"),
    (of_another_case, "altered-file"),
    (of_another_case_by_the_station, "foreign-package"),
    (swapped, "altered-file"),
    (swapped_by_the_station, "foreign-package"),
    (other_reason, "manifest-signature"),
    (other_number, "case"),
    (a_stranger_signs, "foreign-package"),
    (signature_of_a_post, "manifest-signature"),
    (unsigned, "unsigned"),
    (one_more, "extra-file"),
    (trail_thinned, "foreign-package"),
    (altered_inside, "altered-file"),
    (no_package, "not-a-package"),
    (case_in_a_case, "manifest"),
    (no_manifest_of_any_kind, "manifest"),
]


def test_every_forgery_is_found_by_both_verifiers(tmp_path: Path) -> None:
    world = world_on(desk_of(tmp_path))  # noqa: F811
    _, path = packed(world, tmp_path)
    _, other = again(world, POST, OTHER)
    for forge, code in FORGERIES:
        forger = Forger(path.read_bytes())
        forge(forger, Forger(other.read_bytes()), station_key(world))
        for result in both(forger.write(tmp_path / "forged.zip")):
            assert result["verdict"] == "not verified", forge.__name__
            assert code in {one["code"] for one in result["findings"]}, (forge.__name__, result["findings"])
    del_two = Forger(path.read_bytes())
    removed(del_two, del_two, station_key(world))
    program = tmp_path / "alone"
    program.mkdir()
    shutil.copy(path, program / "whole.zip")
    assert alone(program / "whole.zip", program).returncode == 0
    answer = alone(del_two.write(program / "forged.zip"), program)
    assert (answer.returncode, "[missing-file]" in answer.stdout) == (1, True), answer.stdout


def desk_of(folder: Path) -> FootageDesk:
    desk = FootageDesk(folder / "desk")
    desk.knows()
    return desk


def test_whatever_byte_is_changed_it_is_refused(tmp_path: Path) -> None:
    world = world_on(desk_of(tmp_path))  # noqa: F811
    _, path = packed(world, tmp_path)
    data = path.read_bytes()
    with path.open("rb") as file:
        package = standalone.Package(file, standalone.Findings())
        package.open()
        places = [(m.start + m.size // 2, m.name) for m in package.members.values()]
        places += [(m.offset + 1, m.name) for m in package.members.values()]
    forged = tmp_path / "forged.zip"
    for at, name in [*places, (len(data) - 3, "end")]:
        forged.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert verify.verify(forged, [])["verdict"] != "verified", name
    for length in range(0, len(data), len(data) // 20):
        forged.write_bytes(data[:length])
        assert verify.verify(forged, [])["verdict"] != "verified", length
    assert verify.verify(path, [])["verdict"] == "verified"


def test_a_package_in_the_package_of_one_post_is_none(tmp_path: Path) -> None:
    world = world_on(desk_of(tmp_path))  # noqa: F811
    _, path = packed(world, tmp_path)
    forger = Forger(Forger(path.read_bytes()).files[ONE])
    forger.files[ONE] = b"whatever"
    forger.restate(station_key(world))
    for result in both(forger.write(tmp_path / "forged.zip")):
        assert [one["code"] for one in result["findings"]] == ["extra-file"]


def test_sealed_footage_is_opened_package_by_package_and_that_is_said(tmp_path: Path) -> None:
    world = world_on(desk_of(tmp_path))  # noqa: F811
    _, path = packed(world, tmp_path)
    with pytest.raises(Corrupt, match="package of a case: unpack it"):
        opening.open_package(
            sealed=path,
            key=seal.Key(X25519PrivateKey.generate()),
            output=tmp_path / "open.zip",
            who="Lan",
            clock=world.desk.clock,
        )


# -- room ------------------------------------------------------------------------------------------------------------


def test_no_package_is_begun_where_there_is_no_room_and_old_ones_go_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_on(desk_of(tmp_path))  # noqa: F811
    _, path = packed(world, tmp_path)
    free = shutil.disk_usage(tmp_path).free
    n = world.open(posts=(POST, OTHER))
    monkeypatch.setattr(export, "FREE_BYTES_MIN", free + (1 << 40))
    with pytest.raises(ConfigError, match="MiB are free"):
        world.exporter.make(SUPERVISOR, world.case(n), "", FULL)
    assert not path.exists()  # it can be made again; the disk that is full is worse
    assert [step.act for step in world.case(n).steps] == [Act.OPENED, Act.ATTACHED]


def test_what_is_made_takes_no_more_than_what_was_reckoned(tmp_path: Path) -> None:
    world = world_on(desk_of(tmp_path))  # noqa: F811
    n, path = packed(world, tmp_path)
    footage = world.exporter._footage(world.case(n), [POST, OTHER])
    assert sorted(footage) == [POST, OTHER]
    around = 1 << 20  # reports, ledgers, the verifier: beside the footage of a real case, nothing
    assert path.stat().st_size < export.bytes_max(footage) + around
    assert export.bytes_max({"a": 10, "b": 4}) == 2 * 14 + 3 * 10
    assert export.bytes_max({"a": 10}) == 30
    assert export.bytes_max({}) == 0
