"""Opens a package of sealed footage at the station, so that anybody can check that the pictures are the node's.

    SEALED.zip        made and signed by the node, which cannot look into it: ledger, hashes, coverage, sealed originals
    + the station's private key
    = OPEN.zip        the same files, byte for byte and in the same order, and behind them
        opened/*.mp4      the head of each sealed original, then its fragments in clear; any player shows them
        opened/clip.mp4   the range, to watch
        opening.json      each file's own key, the hashes of what was opened, who opened it when
        opening.sig       a signature over it, when the opener has a key to sign with

The node never needs a private key, and the opener's word is needed for nothing that is shown: `standalone` derives the
content of every opened file from the sealed original, whose hash the node's ledger has, and from a key of which that
original's own header has the hash. A file's key opens that file alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from agent.clock import Clock, rfc3339
from agent.disk import sync_folder
from agent.errors import ConfigError, Corrupt, Transient
from agent.evidence import dsse, seal, standalone
from agent.evidence.package import Archive, clip_place
from agent.evidence.standalone import MANIFEST, OPENING, OPENING_SIGNATURE, OPENING_TYPE, ViewFile
from agent.evidence.verify import SecondOpinion
from agent.recording import fragments
from agent.recording.footage import extract
from agent.recording.fragments import Header
from agent.store.store import SessionRow, Tombstone
from agent.types import EndReason, Gap, Hold, Segment, Sign, TimeAnchor

FOLDER = "opened"


@dataclass(frozen=True, slots=True)
class Opened:
    """What was opened."""

    path: Path
    bytes: int
    files: int
    sha256: str
    signed: bool


@dataclass(frozen=True, slots=True)
class _Shelf:
    """A Catalog and a Disk's reading half, of the originals of a package. Its clock is that of the manifest."""

    archive: Archive
    kept: list[Segment]
    paired: list[TimeAnchor]

    def sessions(self) -> list[SessionRow]:
        return []

    def anchors(self) -> list[TimeAnchor]:
        return self.paired

    def segments(self, *, garbage: bool = False) -> list[Segment]:
        return [] if garbage else self.kept

    def gaps(self) -> list[Gap]:
        return []

    def tombstones(self) -> list[Tombstone]:
        return []

    def signs(self) -> list[Sign]:
        return []

    def holds(self) -> list[Hold]:
        return []

    def open(self, name: str) -> BinaryIO:
        return self.archive.open(name)

    def list(self, folder: str) -> list[str]:  # noqa: ARG002
        return [segment.name for segment in self.kept]


def open_package(
    *, sealed: Path, key: seal.Key, output: Path, who: str, clock: Clock, signer: dsse.Signer | None = None
) -> Opened:
    """Writes the opened package; blocks for several passes over the footage. The file appears whole or not at all.

    `signer`: a key of the opener's, Ed25519. Raises Corrupt when `sealed` is not verified, or was sealed to another
    key; ConfigError when there is nothing to open or `output` cannot be written; Transient when a disk refuses.
    """
    folder: Path | None = None
    if output.exists() and sealed.exists() and output.samefile(sealed):
        raise ConfigError(f"open: {output} is the package itself, which must stay as the node made it; give another -o")
    try:
        with sealed.open("rb") as source, _work_folder(output) as folder:
            check = _verified(source, sealed)
            temporary = folder / "package.zip"
            with temporary.open("w+b") as file:
                count = _Opening(check, key, who, clock, signer, Archive(file), folder).run()
                size = file.seek(0, 2)
                file.seek(0)
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            temporary.replace(output)
            sync_folder(output.parent)
    except (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError) as error:
        raise ConfigError(f"open: {error.filename or output}: {error.strerror}; correct the path") from error
    except OSError as error:
        raise Transient(f"open: cannot write {output}: {error}; check the disk and try again") from error
    return Opened(output, size, count, sha256, signer is not None)


@contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    """A folder beside the output, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _verified(source: BinaryIO, path: Path) -> SecondOpinion:
    """What is opened must be what a node signed: an opening must not lend a forged package any weight."""
    check = SecondOpinion(source, [])
    try:
        check.run()
    except standalone.NotAPackage as error:
        raise Corrupt(f"open: {path}: {error}") from None
    if check.findings.items:
        first = check.findings.items[0]
        raise Corrupt(f"open: {path} is not verified: {first.where}: {first.says}; see wardpost verify")
    if check.opening:
        raise ConfigError(f"open: {path} has been opened already; open the package that the node made")
    if not check.locked:
        raise ConfigError(f"open: nothing in {path} is sealed; it can be watched as it is")
    return check


@dataclass(slots=True)
class _Opening:
    """One opening under way."""

    check: SecondOpinion
    key: seal.Key
    who: str
    clock: Clock
    signer: dsse.Signer | None
    archive: Archive
    folder: Path

    def run(self) -> int:
        package = self.check.package
        for member in package.members.values():
            with io.BufferedReader(ViewFile(package.view(member))) as source:
                self.archive.add(member.name, source, member.size)
        files: list[dict[str, Any]] = []
        kept: list[Segment] = []
        paired: list[TimeAnchor] = []
        for entry in self.check.manifest["segments"]:
            found = self._scan(entry["name"])
            kept.append(_segment(entry, found))
            if entry["name"] in self.check.locked:
                files.append(self._open(entry["name"], found))
        for boot in self.check.manifest["range"]["boots"]:
            paired += self._pair(boot)
        clip = self._clip(kept, paired, files)
        self._tell(files, clip)
        self.archive.finish()
        return len(self.check.locked)

    def _scan(self, name: str) -> fragments.Scan:
        with self.archive.open(name) as file:
            found = fragments.scan(file, contents=False)
        if found.header is None or found.problem:
            raise Corrupt(f"open: {name}: {found.problem}")
        return found

    def _open(self, name: str, found: fragments.Scan) -> dict[str, Any]:
        """One original in clear: its head, then its fragments without their trailers."""
        header = found.header
        assert header is not None  # noqa: S101  (for the type checker: _scan refuses such a file)
        about = seal.identity(header.session, header.boot_id, header.start_ns, header.source)
        path = self.folder / "opened.mp4"
        try:
            key = self._file_key(header, about)
            opener = seal.opener_of(key, about)
            with self.archive.open(name) as file, path.open("wb") as out:
                out.write(file.read(found.fragments[0].offset))
                for fragment in found.fragments:
                    out.write(opener.open(fragment.n, fragments.read_fragment(file, fragment)))
        except Corrupt as error:
            raise Corrupt(f"open: {name}: {error}") from None
        return self._add(f"{FOLDER}/{name.rpartition('/')[2]}", path, of=name, key=key.hex())

    def _file_key(self, header: Header, about: bytes) -> bytes:
        key = self.key.file_key(header.sealed, about)
        if seal.commitment(key) != header.seal_commit:
            raise Corrupt("its header does not commit to its key, so that an opening could not be proved")
        return key

    def _add(self, name: str, path: Path, *, of: str = "", key: str = "") -> dict[str, Any]:
        size = path.stat().st_size
        with path.open("rb") as file:
            self.archive.add(name, file, size)
        path.unlink()
        return {"name": name, "bytes": size, "sha256": self.archive.hashes[name], "of": of, "key": key}

    def _pair(self, boot: dict[str, Any]) -> list[TimeAnchor]:
        """The node's own reckoning of UTC in a boot, at both ends of the range."""
        told = self.check.manifest["range"]
        ends = ((boot["from_ns"], told["from"]), (boot["to_ns"], told["to"]))
        return [TimeAnchor(boot["boot_id"], ns, standalone.when(utc), 0, "manifest") for ns, utc in ends]

    def _clip(self, kept: list[Segment], paired: list[TimeAnchor], files: list[dict[str, Any]]) -> dict[str, Any]:
        """The range as a clip, made of what was opened, and held against it access unit by access unit."""
        told = self.check.manifest["range"]
        shelf: Any = _Shelf(self.archive, kept, paired)
        clip = extract(
            disk=shelf,
            catalog=shelf,
            start_utc_ns=standalone.when(told["from"]),
            end_utc_ns=standalone.when(told["to"]),
            output=self.folder / "clip.mp4",
            key=self.key,
        )
        if clip.damaged:
            raise Corrupt(f"open: {clip.damaged[0]}")
        twins = {entry["of"]: entry["name"] for entry in files}
        names = [entry["name"] for entry in self.check.manifest["segments"]]
        made = [self._add(f"{FOLDER}/{path.name}", path) for path in clip.files]
        files += made
        place = clip_place(
            [self.archive.view(twins.get(name, name)) for name in names],
            [self.archive.view(entry["name"]) for entry in made],
        )
        return {"files": [entry["name"] for entry in made], **place}

    def _tell(self, files: list[dict[str, Any]], clip: dict[str, Any]) -> None:
        utc = self.clock.utc()
        public = getattr(self.signer, "public", None)
        told = {
            "v": 1,
            "what": "Opening of sealed footage",
            "manifest": self.check.hashes[MANIFEST],
            "who": self.who,
            "made": {"utc": rfc3339(utc.utc_ns), "unc_ms": None if utc.unc_ns is None else -(-utc.unc_ns // 1_000_000)},
            "key": public.hex() if isinstance(public, bytes) else "",
            "files": files,
            "clip": clip,
        }
        data = json.dumps(told, indent=1).encode() + b"\n"
        self.archive.add_bytes(OPENING, data)
        if self.signer is not None:
            signature = b64encode(self.signer.sign(dsse.pae(OPENING_TYPE, data))).decode()
            line = {"payloadType": OPENING_TYPE, "signatures": [{"keyid": self.signer.keyid, "sig": signature}]}
            self.archive.add_bytes(OPENING_SIGNATURE, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def _segment(entry: dict[str, Any], found: fragments.Scan) -> Segment:
    header = found.header
    assert isinstance(header, Header)  # noqa: S101  (for the type checker)
    ended = entry.get("ended")
    return Segment(
        name=entry["name"],
        session=header.session,
        boot_id=header.boot_id,
        start_ns=header.start_ns,
        end_ns=found.end_ns,
        bytes=found.trusted,
        fragments=len(found.fragments),
        sha256="-",
        end_reason=EndReason(ended) if ended in set(EndReason) else EndReason.ROLLED,
        width=header.width,
        height=header.height,
    )
