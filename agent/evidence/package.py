"""The evidence package: everything that a third party needs to check a stretch of footage without us.

    README.txt            first: what this is, and how to check it
    segments/*.mp4        whole original files that touch the range, as they lie on the card
    clip.mp4              the range, to watch; a change of format begins clip-2.mp4; none where footage is sealed to
                          the station: the node cannot look into it, agent/evidence/opening.py adds it there
    coverage.json         every second of the range: recorded, or why not
    ledger.jsonl          a slice of the ledger: from the record before the first of these files to the first record
                          that names a station receipt for the last of them (or to the ledger's end)
    extraction.jsonl      the record of this very export
    receipts.jsonl        the station's receipts that bound the slice in time
    keys/*.pem            public keys: node-<id>.pem, station-<id>.pem
    keys.jsonl            where the node has changed its key since: the records by which each key introduced the next
    case.json             of a package that the station has put together: the case
    trail.jsonl           ... and the lines of the station's audit log that concern it
    report.html report.txt  for people
    verify.py             agent/evidence/standalone.py
    manifest.json         every file with its SHA-256; manifest.sig: the node's signature over it, or the station's

The zip is stored, not compressed, and every byte of it is determined by the names and contents (`standalone` has the
rules): whatever bit is changed, the package is refused. Memory is bounded: footage is copied in pieces of CHUNK_BYTES;
the package appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from agent import __version__
from agent.clock import Clock, rfc3339
from agent.disk import Disk, sync_folder
from agent.errors import ConfigError, Corrupt, Transient
from agent.evidence import dsse, receipts, records, report, standalone
from agent.evidence.chain import accept_key
from agent.evidence.keys import keyid_of, public_of, public_pem
from agent.evidence.records import RecordKind
from agent.evidence.standalone import (
    EXTRACTION,
    KEYS,
    LEDGER,
    MANIFEST,
    PACKAGE_TYPE,
    RECEIPTS,
    SIGNATURE,
    Member,
    directory_entry,
    end_of,
    local_header,
)
from agent.part import part_of
from agent.recording.coverage import Now, Stretch
from agent.recording.footage import Extraction, extract, survey, touching
from agent.recording.fragments import scan
from agent.recording.index import Catalog
from agent.recording.timeline import Timeline
from agent.store.store import SessionRow, Tombstone
from agent.types import Gap, Hold, Segment, Sign, TimeAnchor

CHUNK_BYTES = 1 << 20
WHO_CHARS_MAX = 100
REASON_CHARS_MAX = 500
LEDGER_FOLDER = "ledger"
VERIFIER = "verify.py"
Mark = Callable[[Path], str]
"""Adds a C2PA manifest to a clip in place; returns a sentence for the report. See agent/evidence/c2pa.py."""


class Witness(Protocol):
    """Puts an export on the ledger of the node whose footage it is."""

    def extraction(self, body: bytes) -> None:
        """Notes the fact. It stands on the ledger soon after; Raises Transient when it cannot be noted."""

    def wait(self) -> bool:
        """Gives the ledger some time to write. False: no more waiting."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, and for whom."""

    start_utc_ns: int
    end_utc_ns: int
    who: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose footage it is."""

    node: str  # site/node
    place: str = ""
    camera: str = ""  # in words


@dataclass(frozen=True, slots=True)
class Station:
    """That it is the station which puts the package together, from what it has of a node. It signs, not the node."""

    keys: Mapping[str, bytes]  # its raw public keys by id
    files: Mapping[str, bytes]  # what it adds; names that `standalone.NAMES` has
    left_out: tuple[str, ...] = ()  # what these do not tell, and where that is: for the report


@dataclass(slots=True)
class Exported:
    """What was written."""

    path: Path
    bytes: int = 0
    footage_bytes: int = 0
    segments: int = 0
    sha256: str = ""
    records: int = 0
    receipts: int = 0
    signed: bool = False
    witnessed: bool = False  # the export stands on the ledger
    missing: list[dict[str, str]] = field(default_factory=list)
    coverage: list[Stretch] = field(default_factory=list)
    locked: int = 0  # files that are sealed to the station: `wardpost open` opens them there


class Archive:
    """The zip being written, file after file, and readable as it grows."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self.members: dict[str, Member] = {}
        self.hashes: dict[str, str] = {}

    def add(self, name: str, source: BinaryIO, size: int) -> None:
        """Copies `size` bytes. Raises Transient when the source has fewer."""
        member = Member(name, size, 0, self._at)
        header = local_header(member)
        self._file.seek(self._at)
        self._file.write(header)
        sha, crc, left = hashlib.sha256(), 0, size
        while left > 0:
            data = source.read(min(CHUNK_BYTES, left))
            if not data:
                raise Transient(f"export: {name} ended {left} bytes early while it was copied; try again")
            self._file.write(data)
            sha.update(data)
            crc = zlib.crc32(data, crc)
            left -= len(data)
        member = member._replace(crc=crc)
        self._file.seek(self._at)
        self._file.write(local_header(member))
        self._at += len(header) + size
        self.members[name] = member
        self.hashes[name] = sha.hexdigest()

    def add_bytes(self, name: str, data: bytes) -> None:
        """A small file."""
        self.add(name, io.BytesIO(data), len(data))

    def finish(self) -> None:
        """The directory, and the bytes onto the disk."""
        directory = b"".join(directory_entry(member) for member in self.members.values())
        self._file.seek(self._at)
        self._file.write(directory + end_of(len(self.members), len(directory), self._at))
        self._file.flush()
        os.fsync(self._file.fileno())

    def open(self, name: str) -> BinaryIO:
        """Reads back what was added. One reader at a time with `add`."""
        member = self.members[name]
        self._file.flush()
        return part_of(self._file, member.start, member.size)

    def view(self, name: str) -> standalone.View:
        """The same, for the verifier's own readers."""
        self._file.flush()
        return standalone.View(self._file, self.members[name].start, self.members[name].size)


@dataclass(frozen=True, slots=True)
class _Packed:
    """A Catalog and a Disk's reading half, of the package's own originals: the clip is made of exactly these."""

    archive: Archive
    catalog: Catalog
    kept: list[Segment]

    def sessions(self) -> list[SessionRow]:
        return self.catalog.sessions()

    def anchors(self) -> list[TimeAnchor]:
        return self.catalog.anchors()

    def segments(self, *, garbage: bool = False) -> list[Segment]:
        return [] if garbage else [segment for segment in self.kept if segment.sha256]

    def gaps(self) -> list[Gap]:
        return self.catalog.gaps()

    def tombstones(self) -> list[Tombstone]:
        return self.catalog.tombstones()

    def signs(self) -> list[Sign]:
        return self.catalog.signs()

    def holds(self) -> list[Hold]:
        return self.catalog.holds()

    def open(self, name: str) -> BinaryIO:
        return self.archive.open(name)

    def list(self, folder: str) -> list[str]:  # noqa: ARG002
        return [segment.name for segment in self.kept]


def export(
    *,
    disk: Disk,
    catalog: Catalog,
    origin: Origin,
    request: Request,
    output: Path,
    clock: Clock,
    signer: dsse.Signer | None,
    witness: Witness | None,
    now: Now | None = None,
    mark: Mark | None = None,
    station: Station | None = None,
) -> Exported:
    """Writes the package; blocks for reading and writing. The file appears whole or not at all.

    `signer`: the node's newest key, or with `station` the station's; without one the package is unsigned, and verifiers
    say so. `witness`: puts the
    export on the ledger; without one, or when the ledger does not answer, the manifest says that it is not there.
    Raises NoFootage when the range holds nothing, ConfigError when `output` cannot be written, Transient.
    """
    if request.end_utc_ns <= request.start_utc_ns:
        raise ConfigError("export: the range ends before it begins; give --from and then --to")
    folder: Path | None = None
    try:
        if output.is_dir():
            raise ConfigError(f"export: {output} is a folder; name a file with -o")
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        temporary = folder / "package.zip"
        with temporary.open("w+b") as file:
            made = _Export(
                disk, catalog, origin, request, clock, signer, witness, now, mark, station, Archive(file), folder
            )
            result = made.run(output)
            result.bytes = file.seek(0, 2)
            file.seek(0)
            result.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        temporary.replace(output)
        sync_folder(output.parent)
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        raise ConfigError(f"export: cannot write {output}: {error.strerror}; choose another file with -o") from error
    except OSError as error:
        raise Transient(f"export: cannot write {output}: {error}; check the disk and try again") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return result


@dataclass(slots=True)
class _Export:
    """One export under way."""

    disk: Disk
    catalog: Catalog
    origin: Origin
    request: Request
    clock: Clock
    signer: dsse.Signer | None
    witness: Witness | None
    now: Now | None
    mark: Mark | None
    station: Station | None
    archive: Archive
    folder: Path
    missing: list[dict[str, str]] = field(default_factory=list)

    def run(self, output: Path) -> Exported:
        request = self.request
        stretches, segments, timeline = survey(
            disk=self.disk,
            catalog=self.catalog,
            start_utc_ns=request.start_utc_ns,
            end_utc_ns=request.end_utc_ns,
            now=self.now,
        )
        self.archive.add_bytes(standalone.FIRST, _README.encode())
        chosen = touching(segments, timeline, request.start_utc_ns, request.end_utc_ns)
        kept = self._originals(self._needed(chosen, timeline))
        locked = self._locked(kept)
        clip, marked = (None, "") if locked else self._clip(kept)
        self.archive.add_bytes("coverage.json", _json(coverage_of(stretches)))
        content = self._content()
        line = self._witness(content, kept)
        sliced = _Slice.of(self.disk, {segment.name for segment in kept if segment.sha256}, line)
        self._ledger(sliced, line)
        for name, data in ({} if self.station is None else self.station.files).items():
            self.archive.add_bytes(name, data)
        manifest = self._manifest(kept, timeline, clip, content, line, marked, locked)
        facts = report.Facts(
            manifest=manifest,
            coverage=coverage_of(stretches),
            records=[payload for _, payload in sliced.lines],
            receipts=[receipt.payload for receipt in sliced.given],
            keys={name: self._fingerprint(name) for name in self.archive.members if name.startswith("keys/")},
            parts=[
                {
                    "file": p.file.name,
                    "at_s": round(p.at_s, 1),
                    "utc": rfc3339(p.utc_ns),
                    "seconds": round(p.seconds, 1),
                }
                for p in (clip.parts if clip else ())
            ],
            left_out=() if self.station is None else self.station.left_out,
        )
        self.archive.add_bytes("report.html", report.as_html(facts).encode())
        self.archive.add_bytes("report.txt", report.as_text(facts).encode())
        self.archive.add_bytes(VERIFIER, resources.files("agent.evidence").joinpath("standalone.py").read_bytes())
        manifest["files"] = [
            {"name": name, "bytes": member.size, "sha256": self.archive.hashes[name]}
            for name, member in self.archive.members.items()
        ]
        self._sign(_json(manifest))
        self.archive.finish()
        return Exported(
            path=output,
            footage_bytes=sum(self.archive.members[segment.name].size for segment in kept),
            segments=len(kept),
            records=len(sliced.lines),
            receipts=len(sliced.given),
            signed=self.signer is not None,
            witnessed=line is not None,
            missing=self.missing,
            coverage=stretches,
            locked=len(locked),
        )

    def _needed(self, chosen: list[Segment], timeline: Timeline) -> list[Segment]:
        """Without the file before the range, unless the first in it cannot be decoded without: nobody asked for it."""
        if len(chosen) < 2:
            return chosen
        start_ns = timeline.boot_ns(chosen[0].boot_id, self.request.start_utc_ns)
        if start_ns is None or chosen[0].end_ns > start_ns:
            return chosen
        with suppress(FileNotFoundError), self.disk.open(chosen[1].name) as file:
            found = scan(file, contents=False)
            if found.fragments and found.fragments[0].keyframe:
                return chosen[1:]
        return chosen

    def _originals(self, segments: Sequence[Segment]) -> list[Segment]:
        """Copies the files; what retention took meanwhile, or the card does not give, is listed as missing."""
        kept = []
        for segment in segments:
            try:
                # The file in progress is taken as far as it is durable; a sealed one as it lies there.
                size = self.disk.size(segment.name) if segment.sha256 else segment.bytes
                with self.disk.open(segment.name) as file:
                    self.archive.add(segment.name, file, size)
            except FileNotFoundError:
                why = "deleted while the package was made" if self.station is None else "the station does not have it"
                self.missing.append({"name": segment.name, "why": why})
                continue
            kept.append(segment)
        return kept

    def _locked(self, kept: Sequence[Segment]) -> set[str]:
        """Files that only the station can read."""
        found = set()
        for segment in kept:
            with self.archive.open(segment.name) as file:
                header = scan(file, contents=False).header
            if header is not None and header.sealed:
                found.add(segment.name)
        return found

    def _clip(self, kept: list[Segment]) -> tuple[Extraction, str]:
        """The clip, made of the package's own originals."""
        packed: Any = _Packed(self.archive, self.catalog, kept)
        clip = extract(
            disk=packed,
            catalog=packed,
            start_utc_ns=self.request.start_utc_ns,
            end_utc_ns=self.request.end_utc_ns,
            output=self.folder / "clip.mp4",
            now=self.now,
        )
        marked = ""
        for path in clip.files:
            if self.mark is not None:
                marked = self.mark(path)
            with path.open("rb") as file:
                self.archive.add(path.name, file, path.stat().st_size)
            path.unlink()
        return clip, marked

    def _content(self) -> str:
        """As `standalone.Check.content`."""
        digest = hashlib.sha256()
        for name, sha in sorted(self.archive.hashes.items()):
            if name.endswith(".mp4") or name == "coverage.json":
                digest.update(f"{sha}  {name}\n".encode())
        return digest.hexdigest()

    def _witness(self, content: str, kept: Sequence[Segment]) -> bytes | None:
        """Puts the export on the ledger and waits for its line."""
        if self.witness is None:
            return None
        request = self.request
        body = records.body(
            what="export",
            who=request.who,
            reason=request.reason,
            start=rfc3339(request.start_utc_ns),
            end=rfc3339(request.end_utc_ns),
            files=len(kept),
            bytes=sum(self.archive.members[segment.name].size for segment in kept),
            content=content,
        )
        self.witness.extraction(body)
        while True:
            for line in ledger_lines(self.disk, newest_first=True):
                with suppress(Corrupt):
                    payload = records.read(dsse.parse(line))
                    if payload.kind == RecordKind.EXTRACTION and payload.body.get("content") == content:
                        return line
            if not self.witness.wait():
                return None

    def _ledger(self, sliced: _Slice, line: bytes | None) -> None:
        keys = dict(sliced.keys)
        if sliced.lines:
            self.archive.add_bytes(LEDGER, b"".join(raw + b"\n" for raw, _ in sliced.lines))
        if line is not None:
            self.archive.add_bytes(EXTRACTION, line + b"\n")
        if sliced.introductions:
            self.archive.add_bytes(KEYS, b"".join(raw + b"\n" for raw in sliced.introductions))
        if sliced.given:
            self.archive.add_bytes(RECEIPTS, b"".join(raw + b"\n" for raw in sliced.receipt_lines))
        if self.station is not None:
            keys |= {f"station-{keyid}": public for keyid, public in self.station.keys.items()}
        elif isinstance(getattr(self.signer, "public", None), bytes):
            keys["node-" + keyid_of(self.signer.public)] = self.signer.public  # type: ignore[union-attr]
        for name, public in sorted(keys.items()):
            self.archive.add_bytes(f"keys/{name}.pem", public_pem(public))

    def _fingerprint(self, name: str) -> str:
        with self.archive.open(name) as file:
            raw = standalone.raw_key(file.read())
        return hashlib.sha256(raw or b"").hexdigest()

    def _manifest(
        self,
        kept: Sequence[Segment],
        timeline: Timeline,
        clip: Extraction | None,
        content: str,
        line: bytes | None,
        marked: str,
        locked: set[str],
    ) -> dict[str, Any]:
        request, utc = self.request, self.clock.utc()
        boots = [
            {
                "boot_id": boot_id,
                "from_ns": timeline.boot_ns(boot_id, request.start_utc_ns) or 0,
                "to_ns": timeline.boot_ns(boot_id, request.end_utc_ns) or 0,
            }
            for boot_id in dict.fromkeys(segment.boot_id for segment in kept)
        ]
        return {
            "v": 1,
            "what": "Wardpost evidence package",
            "agent": __version__,
            "maker": "node" if self.station is None else "station",
            "node": self.origin.node,
            "place": self.origin.place,
            "camera": self.origin.camera,
            "who": request.who,
            "reason": request.reason,
            "made": {"utc": rfc3339(utc.utc_ns), "unc_ms": _ms(utc.unc_ns), "source": utc.source},
            "range": {"from": rfc3339(request.start_utc_ns), "to": rfc3339(request.end_utc_ns), "boots": boots},
            "segments": [_segment(segment, timeline, locked=segment.name in locked) for segment in kept],
            "missing": self.missing,
            "damaged": [] if clip is None else clip.damaged,
            "clip": None
            if clip is None
            else {"files": [path.name for path in clip.files], "c2pa": marked, **self._place_of(clip, kept)},
            "content": content,
            "extraction": None if line is None else records.read(dsse.parse(line)).seq,
        }

    def _place_of(self, clip: Extraction, kept: Sequence[Segment]) -> dict[str, int]:
        if clip.damaged:  # it leaves out what no verifier will accept anyway
            return {"first": 0, "samples": 0}
        return clip_place(
            [self.archive.view(segment.name) for segment in kept], [self.archive.view(path.name) for path in clip.files]
        )

    def _sign(self, manifest: bytes) -> None:
        self.archive.add_bytes(MANIFEST, manifest)
        if self.signer is None:
            return
        signature = b64encode(self.signer.sign(dsse.pae(PACKAGE_TYPE, manifest))).decode()
        told = {"payloadType": PACKAGE_TYPE, "signatures": [{"keyid": self.signer.keyid, "sig": signature}]}
        self.archive.add_bytes(SIGNATURE, json.dumps(told, separators=(",", ":")).encode() + b"\n")


def clip_place(originals: list[standalone.View], clips: list[standalone.View]) -> dict[str, int]:
    """Where a clip begins among the originals' access units, and how many it shows; found by comparing bytes.

    A clip that shows anything else would be a bug of ours: it is refused here, before anybody relies on it.
    """
    try:
        tracks = [standalone.flat(clip) for clip in clips]
        count = sum(len(track.samples) for track in tracks)
        opening = tracks[0].samples[0]
        data = clips[0].at(opening.offset, opening.size)
        wrong = "no access unit of the originals opens it"
        for index, unit in enumerate(standalone.originals(originals)):
            same = unit.sample.key and unit.sample.size == len(data)
            if same and unit.view.at(unit.sample.offset, unit.sample.size) == data:
                wrong = standalone.compare_clip(originals, clips, index, count)
                if not wrong:
                    return {"first": index, "samples": count}
    except (standalone.BadMedia, IndexError) as error:
        wrong = str(error)
    raise Corrupt(f"export: the clip is not what was recorded: {wrong}; this is a bug, keep the card")


def _segment(segment: Segment, timeline: Timeline, *, locked: bool) -> dict[str, Any]:
    start, end = timeline.utc(segment.boot_id, segment.start_ns), timeline.utc(segment.boot_id, segment.end_ns)
    return {
        "name": segment.name,
        "sealed": bool(segment.sha256),
        "start": None if start is None else rfc3339(start.utc_ns),
        "end": None if end is None else rfc3339(end.utc_ns),
        "unc_ms": None if start is None else _ms(start.unc_ns),
        "ended": segment.end_reason.value if segment.sha256 else "being written",
        "width": segment.width,
        "height": segment.height,
        "locked": locked,
    }


def _ms(unc_ns: int | None) -> int | None:
    return None if unc_ns is None else -(-unc_ns // 1_000_000)


def coverage_of(stretches: Sequence[Stretch]) -> list[dict[str, Any]]:
    """Coverage as it is written down."""
    return [
        {
            "from": rfc3339(s.start_utc_ns),
            "to": rfc3339(s.end_utc_ns),
            "seconds": round(s.seconds, 3),
            "what": s.what,
            "detail": s.detail,
            "error_s": None if s.unc_s is None else round(s.unc_s, 3),
        }
        for s in stretches
    ]


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"


# -- the slice of the ledger ------------------------------------------------------------------------------------------


def ledger_lines(disk: Disk, *, newest_first: bool = False) -> Iterator[bytes]:
    """The lines of a node's ledger, without newlines; a torn last one is left out. A node may be appending to it.

    `newest_first`: the files in reverse order, each with its lines reversed.
    """
    names = [name for name in disk.list(LEDGER_FOLDER) if name.rpartition("/")[2][:-6].isdigit()]
    for name in reversed(names) if newest_first else names:
        try:
            with disk.open(name) as file:
                lines = file.read(_LEDGER_FILE_BYTES_MAX).split(b"\n")[:-1]
        except FileNotFoundError:
            continue
        yield from reversed(lines) if newest_first else lines


_LEDGER_FILE_BYTES_MAX = 64 << 20  # the ledger begins a new file long before


@dataclass(slots=True)
class _Slice:
    """What of the ledger and of the receipts goes into the package."""

    lines: list[tuple[bytes, records.Payload]] = field(default_factory=list)
    receipt_lines: list[bytes] = field(default_factory=list)
    given: list[receipts.Receipt] = field(default_factory=list)
    keys: dict[str, bytes] = field(default_factory=dict)  # file name without ending -> raw public key
    introductions: list[bytes] = field(default_factory=list)  # records of kind `key` behind the slice

    @classmethod
    def of(cls, disk: Disk, names: set[str], extraction: bytes | None) -> _Slice:
        """Two passes over the ledger: the first finds the records of these files, the second takes the slice."""
        found = cls()
        book = list(_receipts_of(disk))
        first, last, introduced = _place(disk, names)
        behind = 0
        after = {r.sha256 for _, r in book if r.payload.seq >= last}
        for line, payload in _records_of(disk):
            if payload.seq >= first - 1:
                found.lines.append((line, payload))
                past = payload.seq > last and payload.receipt in after
                if past or len(found.lines) >= standalone.LINES_MAX - 1:
                    behind = payload.seq
                    break
        if behind:
            found._introductions(disk, behind)
        found._take_receipts(book, first, last)
        signers = {dsse.parse(line).keyid for line in (*(raw for raw, _ in found.lines), *found.introductions)}
        if extraction is not None:
            signers.add(dsse.parse(extraction).keyid)
        for keyid in signers & set(introduced):
            found.keys[f"node-{keyid}"] = introduced[keyid]
        for receipt in found.given:
            found.keys[f"station-{receipt.keyid}"] = public_of(receipt.payload.key)
        return found

    def _introductions(self, disk: Disk, behind: int) -> None:
        """The node may sign the export with a key that is younger than the slice: how it came to that one."""
        for line, payload in _records_of(disk):
            if payload.seq > behind and payload.kind == RecordKind.KEY:
                self.introductions.append(line)

    def _take_receipts(self, book: Sequence[tuple[bytes, receipts.Receipt]], first: int, last: int) -> None:
        """From the receipt that the first record names to the first that vouches for the last one."""
        end = self.lines[-1][1].seq if self.lines else 0
        named = next((payload.receipt for _, payload in self.lines if payload.seq == first), None)
        begun = False
        for raw, receipt in book:
            seq = receipt.payload.seq
            begun = begun or receipt.sha256 == named or seq >= first
            if not begun or seq > end:
                continue
            self.receipt_lines.append(raw)
            self.given.append(receipt)
            if seq >= last:
                break


def _place(disk: Disk, names: set[str]) -> tuple[int, int, dict[str, bytes]]:
    """The first and the last record of these files, and the keys that the whole ledger introduces.

    Of the file in progress there is none: then it is the ledger's end that is shown.
    """
    first = last = newest = 0
    introduced: dict[str, bytes] = {}
    for _line, payload in _records_of(disk):
        newest = payload.seq
        key = accept_key(payload)
        if key is not None:
            introduced[key[0]] = key[1]
        if payload.kind == RecordKind.SEGMENT and payload.body.get("name") in names:
            first, last = first or payload.seq, payload.seq
    return (first, last, introduced) if first else (newest, newest, introduced)


def _records_of(disk: Disk) -> Iterator[tuple[bytes, records.Payload]]:
    for line in ledger_lines(disk):
        with suppress(Corrupt):  # damage on the card: the verifier names the hole
            yield line, records.read(dsse.parse(line))


def _receipts_of(disk: Disk) -> Iterator[tuple[bytes, receipts.Receipt]]:
    names = [name for name in disk.list(LEDGER_FOLDER) if name.startswith(f"{LEDGER_FOLDER}/receipts-")]
    for name in [*names, receipts.FILE]:
        try:
            with disk.open(name) as file:
                lines = file.read(2 * receipts.FILE_BYTES_MAX).split(b"\n")[:-1]
        except FileNotFoundError:
            continue
        for line in lines:
            with suppress(Corrupt):
                yield line, receipts.read(line)


def checked_text(option: str, text: str, chars_max: int) -> str:
    """A person's words for the ledger. Raises ConfigError."""
    if len(text) > chars_max or any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ConfigError(f"export: {option}: at most {chars_max} characters, on one line")
    return text


_README = """\
This is an evidence package of Wardpost: original footage of one security camera, and what is needed to check it.

  watch      clip.mp4 (cut at whole fragments; holes are closed, report.html says where). Without one, the footage is
             sealed to the station: whoever has its private key says wardpost open THE-ZIP-FILE --key KEY.pem -o NEW.zip
             and then it lies in opened/, with the keys of these files alone, by which anybody can check the opening
  read       report.html or report.txt
  check      python3 verify.py THE-ZIP-FILE
             needs Python 3.9 or newer and the program openssl, no network and nothing of ours.
             Take verify.py from a place you trust, or compare its SHA-256 with the published one: a forged package
             could hold a forged verifier. Everybody with Wardpost can as well say: wardpost verify THE-ZIP-FILE
             With --trust KEY.pem it is checked against a public key that you have from elsewhere: that of the node
             or of its station. Without, compare the printed fingerprints by another way (by telephone, say).
  originals  segments/: whole files as they lay on the camera's card, playable in any browser

Do not unpack and pack again before checking: every byte of this file is covered, its packing included.
"""
