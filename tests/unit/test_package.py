"""An export holds the originals byte for byte, the records about them, and nothing half-done is ever left behind."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import av
import pytest

from agent.errors import ConfigError, Transient
from agent.evidence import c2pa, dsse, package, records, standalone
from agent.evidence.standalone import EXTRACTION, LEDGER, RECEIPTS
from agent.evidence.verify import verify
from agent.recording.footage import NoFootage, touching
from agent.types import NS
from tests.fakes.evidence_post import EvidencePost, laps
from tests.fakes.forger import Forger, seq_of
from tests.fakes.packets import encoded, of_file
from tests.fakes.recording_post import closed_posts  # noqa: F401


@pytest.fixture
def post(tmp_path: Path) -> EvidencePost:
    return EvidencePost(tmp_path / "node")


def opened(path: Path) -> Forger:
    return Forger(path.read_bytes())


def test_it_holds_whole_originals_and_a_clip_that_plays(post: EvidencePost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=9), receipt_every=20)
    post.seal()
    done = post.export(tmp_path / "p.zip", 2.5, 6.5)
    files = opened(done.path).files
    for name in [name for name in files if name.startswith("segments/")]:
        assert files[name] == (post.folder / name).read_bytes()
    assert done.segments == 3  # of five; two seconds each, whole
    (tmp_path / "clip.mp4").write_bytes(files["clip.mp4"])
    with av.open(str(tmp_path / "clip.mp4")) as clip:
        assert len(list(clip.decode(video=0))) in range(40, 51)
    assert done.sha256 == hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert next(iter(files)) == "README.txt" and list(files)[-2:] == ["manifest.json", "manifest.sig"]
    assert files["verify.py"] == Path(standalone.__file__).read_bytes()
    with zipfile.ZipFile(done.path) as ordinary:  # any unpacker reads it
        assert ordinary.testzip() is None
        assert ordinary.namelist() == list(files)


def test_the_slice_goes_from_the_record_before_to_the_first_that_names_a_later_receipt(
    post: EvidencePost, tmp_path: Path
) -> None:
    for packet in laps(encoded(seconds=12), 12, 4):
        post.feed([packet])
    post.hear()
    post.feed(encoded(seconds=12, start_ns=1048 * NS), receipt_every=15)
    post.seal()
    done = post.export(tmp_path / "p.zip", 50, 52)
    forger = opened(done.path)
    numbers = [seq_of(line) for line in forger.lines()]
    payloads = [records.read(dsse.parse(line)) for line in forger.lines()]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    about = [p.seq for p in payloads if p.kind == "segment" and p.body["name"] in forger.files]
    assert numbers[0] == about[0] - 1
    receipts = {records.digest(line): seq_of(line) for line in forger.lines(RECEIPTS)}
    assert receipts[str(payloads[-1].receipt)] >= about[-1]
    assert all(receipts.get(str(p.receipt), 0) < about[-1] for p in payloads[:-1])
    assert post.ledger.seq > numbers[-1] + 3  # there is much more on the ledger
    result = verify(done.path, [])
    assert result["verdict"] == "verified", result["findings"]
    assert result["recorded_after"] and result["recorded_before"]


def test_the_export_itself_is_on_the_ledger(post: EvidencePost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=4))
    post.seal()
    done = post.export(tmp_path / "p.zip", who="Lt. Tran", reason="case 12")
    assert done.witnessed
    (line,) = opened(done.path).lines(EXTRACTION)
    told = records.read(dsse.parse(line))
    assert told.kind == "extraction" and told.seq == post.ledger.seq
    assert (told.body["who"], told.body["reason"], told.body["files"]) == ("Lt. Tran", "case 12", done.segments)
    assert told.body["start"] == "2023-11-14T22:13:20.000Z"


def test_the_file_in_progress_is_vouched_for_by_the_export(post: EvidencePost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=5))
    done = post.export(tmp_path / "p.zip", 4, 5)
    manifest = json.loads(opened(done.path).files["manifest.json"])
    assert [entry["sealed"] for entry in manifest["segments"]][-1] is False
    result = verify(done.path, [])
    assert result["verdict"] == "verified", result["findings"]
    assert any("was being written" in note for note in result["notes"])
    unwitnessed = post.export(tmp_path / "q.zip", 4, 5, witnessed=False)
    assert {f["code"] for f in verify(unwitnessed.path, [])["findings"]} == {"not-on-ledger"}


def test_without_a_station_it_is_verified_and_says_that_only_the_nodes_clock_tells(
    post: EvidencePost, tmp_path: Path
) -> None:
    post.feed(encoded(seconds=5))
    post.post.recorder.close()
    post.settle()
    done = post.export(tmp_path / "p.zip")
    result = verify(done.path, [])
    assert result["verdict"] == "verified" and done.receipts == 0
    assert any("only the node's clock says" in note for note in result["notes"])


def test_an_unsigned_package_is_made_and_refused(post: EvidencePost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=4))
    post.seal()
    done = post.export(tmp_path / "p.zip", signed=False)
    assert not done.signed
    assert {f["code"] for f in verify(done.path, [])["findings"]} == {"unsigned"}


def test_an_original_that_has_rotted_on_the_card_is_exported_as_it_is_and_named(
    post: EvidencePost, tmp_path: Path
) -> None:
    """The package is honest about the card; the verifier says where."""
    post.feed(encoded(seconds=9))
    post.seal()
    name = sorted(path.name for path in (post.folder / "segments").iterdir())[1]
    path = post.folder / "segments" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    done = post.export(tmp_path / "p.zip", 0, 9)
    result = verify(done.path, [])
    assert [f["where"] for f in result["findings"]] == [f"segments/{name}"]
    assert "fragment" in result["findings"][0]["says"]
    assert "damaged" in opened(done.path).files["report.txt"].decode()


def test_what_retention_takes_meanwhile_is_named(
    post: EvidencePost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.feed(encoded(seconds=9))
    post.seal()
    first = min((post.folder / "segments").iterdir())
    real = touching

    def then_deleted(*args: object) -> object:
        found = real(*args)  # type: ignore[arg-type]
        first.unlink()
        return found

    monkeypatch.setattr(package, "touching", then_deleted)
    done = post.export(tmp_path / "p.zip", 0, 9)
    assert [entry["name"] for entry in done.missing] == [f"segments/{first.name}"]
    assert verify(done.path, [])["verdict"] == "verified"
    assert "deleted while the package was made" in opened(done.path).files["report.txt"].decode()


def test_over_a_gap_and_a_change_of_format(post: EvidencePost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=3))
    post.post.recorder.lost(post.post.clock.boot_ns(), "unplugged")
    post.feed(encoded(seconds=3, start_ns=1030 * NS))
    post.feed(encoded(seconds=3, start_ns=1033 * NS, width=128))
    post.seal()
    done = post.export(tmp_path / "p.zip", 0, 40)
    assert {"clip.mp4", "clip-2.mp4"} <= set(opened(done.path).files)
    result = verify(done.path, [])
    assert result["verdict"] == "verified", result["findings"]


def test_real_footage_with_b_frames(post: EvidencePost, tmp_path: Path) -> None:
    from agent.assets import Assets

    post.feed(of_file(Assets(Path(__file__).parents[2] / ".cache" / "assets").footage()), receipt_every=50)
    post.seal()
    done = post.export(tmp_path / "p.zip", 3.3, 7.7)
    result = verify(done.path, [])
    assert result["verdict"] == "verified", result["findings"]


def test_nothing_is_left_behind_when_it_fails(post: EvidencePost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=4))
    post.seal()
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(NoFootage, match="nothing is recorded in this range"):
        post.export(out / "p.zip", 500, 600)
    with pytest.raises(ConfigError, match="choose another file"):
        post.export(out / "none" / "p.zip")
    with pytest.raises(ConfigError, match="is a folder"):
        post.export(out)
    with pytest.raises(ConfigError, match="the range ends before it begins"):
        post.export(out / "p.zip", 4, 4)

    def refuse(body: bytes) -> None:
        raise Transient("the disk is full")

    post.extraction = refuse  # type: ignore[method-assign]
    with pytest.raises(Transient, match="full"):
        post.export(out / "p.zip")
    assert list(out.iterdir()) == []


def test_an_existing_package_is_replaced_whole(post: EvidencePost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=4))
    post.seal()
    (tmp_path / "p.zip").write_bytes(b"old")
    post.export(tmp_path / "p.zip")
    assert verify(tmp_path / "p.zip", [])["verdict"] == "verified"


@pytest.mark.parametrize("text", ["x" * 101, "two\nlines", "bell\a", "del\x7f"])
def test_words_for_the_ledger_are_bounded(text: str) -> None:
    with pytest.raises(ConfigError, match="--who: at most 100 characters, on one line"):
        package.checked_text("--who", text, 100)
    assert package.checked_text("--who", "Trần Văn A", 100) == "Trần Văn A"


@pytest.mark.parametrize("size", [10, 2**32 - 2, 2**32 - 1, 2**32, 2**40])
@pytest.mark.parametrize("offset", [0, 2**32 - 1, 2**33])
def test_large_files_have_64_bit_entries_as_other_programs_read_them(size: int, offset: int, tmp_path: Path) -> None:
    """The headers are those of zipfile's own reader, without a file of a terabyte."""
    member = standalone.Member("clip.mp4", size, 7, offset)
    entry = standalone.directory_entry(member)
    path = tmp_path / "sparse.zip"
    with path.open("wb") as file:
        file.seek(offset + len(standalone.local_header(member)) + size)
        at = file.tell()
        file.write(entry + standalone.end_of(1, len(entry), at))
    with zipfile.ZipFile(path) as ordinary:
        (info,) = ordinary.infolist()
        assert (info.file_size, info.compress_size, info.header_offset, info.CRC) == (size, size, offset, 7)
    path.unlink()


def test_the_slice_keeps_a_key_change(post: EvidencePost, tmp_path: Path) -> None:
    """The node got another key in the middle of the range: both go into the package."""
    from agent.evidence.keys import make
    from agent.evidence.records import RecordKind

    post.feed(encoded(seconds=4))
    post.hear()
    key = make(post.disk, "node")
    post.ledger.add_key(key)
    told = records.body(keyid=key.keyid, public=key.public.hex(), algorithm="Ed25519", reason="test")
    post.post.store.note(RecordKind.KEY, told, urgent=True)
    post.settle()
    post.feed(encoded(seconds=4, start_ns=1004 * NS))
    post.seal()
    done = post.export(tmp_path / "p.zip", 0, 8)
    forger = opened(done.path)
    assert len([name for name in forger.files if name.startswith("keys/node-")]) == 2
    assert {dsse.parse(line).keyid for line in forger.lines(LEDGER)} >= {key.keyid}
    result = verify(done.path, [])
    assert result["verdict"] == "verified", result["findings"]


@pytest.mark.skipif(not c2pa.available(), reason="c2pa-python is not installed; it is optional")
def test_a_clip_with_content_credentials_is_still_the_originals(post: EvidencePost, tmp_path: Path) -> None:
    """c2pa's own reader has accepted it (or `mark` raises), and our verifiers still find every access unit in it."""
    post.feed(encoded(seconds=4))
    post.seal()
    done = post.export(tmp_path / "p.zip", mark=c2pa.marker(node="a/b", agent="0", utc_ns=1_700_000_000 * NS))
    result = verify(done.path, [])
    assert result["verdict"] == "verified", result["findings"]
    forger = opened(done.path)
    assert b"c2pa" in forger.files["clip.mp4"]
    assert "urn:c2pa:" in json.loads(forger.files["manifest.json"])["clip"]["c2pa"]
