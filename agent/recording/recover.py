"""The boot path: makes files and index agree again. Every start runs it, after a clean stop as after a power cut.

Runs before `Store.start_session` and before the recorder, so that a new store continues the numbers of the old files.
Each step is safe to repeat: a cut during recovery leaves work for the next recovery and nothing else.

    row garbage               the deletion was interrupted: unlink, forget
    row, no file              condemn ("file missing"), forget
    row, other size           scan, cut back, replace the row, gap: bytes were lost after the seal
      another recording         set aside whole, condemn: cutting it to size would destroy it
    file, no row              scan, cut off the torn tail, row with power_cut or killed
      without a good fragment     removed, if it is no more than a torn first fragment; else set aside in quarantine/
      damaged within              set aside; its good front is copied back
      not ours, from the future   set aside

Cost: one `stat` per sealed segment, one read of each file without a row (normally the newest one only).
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace

from agent.clock import Clock
from agent.disk import Disk
from agent.errors import Transient
from agent.recording.fragments import FORMAT, Header, Scan, scan
from agent.recording.index import FOLDER, Index
from agent.store.store import SessionRow
from agent.types import NS, Cause, EndReason, Gap, Segment, TimeAnchor

QUARANTINE = "quarantine"
QUARANTINE_FILES_MAX = 32
QUARANTINE_BYTES_MAX = 512 << 20
_NAME = re.compile(rf"{FOLDER}/\d{{6,}}-\d{{8}}\.mp4")
_FUTURE_NS = 60 * NS
_CHUNK_BYTES = 1 << 20

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Recovery:
    """What was found and done. Empty lists mean that files and index agreed."""

    sealed: list[Segment] = field(default_factory=list)
    cut_bytes: int = 0  # torn tails
    removed: list[str] = field(default_factory=list)  # files without one good fragment
    quarantined: list[tuple[str, str]] = field(default_factory=list)  # file, why
    missing: list[str] = field(default_factory=list)  # rows whose file is gone
    resealed: list[str] = field(default_factory=list)  # rows whose file had lost a part
    deletions_finished: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)  # the disk refused; tried again at the next start
    scanned_bytes: int = 0


def recover(*, disk: Disk, index: Index, clock: Clock, source: str) -> Recovery:
    """See the module. Blocks for as long as the reading takes. Raises Transient only when the folder or the index
    cannot be read at all; one bad file never stops the rest.
    """
    return _Recoverer(disk=disk, index=index, clock=clock, source=source).run()


class _Recoverer:
    def __init__(self, *, disk: Disk, index: Index, clock: Clock, source: str) -> None:
        self._disk = disk
        self._index = index
        self._clock = clock
        self._source = source
        self._result = Recovery()

    def run(self) -> Recovery:
        result = self._result
        garbage = [segment.name for segment in self._index.segments(garbage=True)]
        for name in garbage:
            self._disk.unlink(name)
        if garbage:
            self._index.forget(garbage)
        result.deletions_finished = len(garbage)
        files = set(self._disk.list(FOLDER))
        rows = {segment.name: segment for segment in self._index.segments()}
        result.missing = [name for name in rows if name not in files]
        if result.missing:
            log.error("recovery: %d files are missing, the first is %s", len(result.missing), result.missing[0])
            self._index.condemn(result.missing, "file missing")
            self._index.forget(result.missing)
        known = {(session.session, session.boot_id) for session in self._index.sessions()}
        for name in sorted(files):
            try:
                if name in rows:
                    self._check(rows[name])
                else:
                    self._orphan(name, known)
            except (Transient, FileNotFoundError) as error:
                log.error("recovery: %s: %s", name, error)  # noqa: TRY400
                result.failed.append((name, str(error)))
        return result

    def _scan(self, name: str, size: int) -> Scan:
        with self._disk.open(name) as file:
            found = scan(file)
        self._result.scanned_bytes += size
        return found

    def _check(self, row: Segment) -> None:
        """A sealed file is trusted by its size; its hash is checked by whoever reads it."""
        size = self._disk.size(row.name)
        if size == row.bytes:
            return
        found = self._scan(row.name, size)
        head = found.header
        if head is not None and (head.session, head.boot_id, head.start_ns) != (row.session, row.boot_id, row.start_ns):
            self._index.condemn([row.name], "file replaced")
            self._aside(row.name, f"it is another recording, of session {head.session}, in the place of this one")
            self._index.forget([row.name])
            return
        if found.trusted >= row.bytes and size > row.bytes:
            self._disk.truncate(row.name, row.bytes)  # the surplus is not ours; what the row promises stays
            self._result.resealed.append(row.name)
            return
        detail = f"{row.name}: {row.bytes - found.trusted} of {row.bytes} bytes were lost on the disk"
        log.error("recovery: %s", detail)
        if not found.fragments:
            self._index.condemn([row.name], "file damaged")
            self._aside(row.name, "no good fragment is left")
            self._index.forget([row.name])
            return
        self._disk.truncate(row.name, found.trusted)
        left = replace(
            row, end_ns=found.end_ns, bytes=found.trusted, fragments=len(found.fragments), sha256=found.sha256
        )
        gap = Gap(row.boot_id, min(left.end_ns, row.end_ns), row.end_ns, Cause.STORAGE_FAULT, detail)
        self._index.reseal(left, gap)
        self._result.resealed.append(row.name)

    def _orphan(self, name: str, known: set[tuple[int, str]]) -> None:
        """A file without a row: the one that was being written, or one of a lost index."""
        if not _NAME.fullmatch(name):
            self._aside(name, "not the name of a segment")
            return
        size = self._disk.size(name)
        found = self._scan(name, size)
        header = found.header
        if header is None or not found.fragments:
            if found.trailers_after > 1:
                self._aside(name, f"damaged: {found.problem}")
                return
            log.warning("recovery: %s is removed: %s", name, found.problem or "it is empty")
            self._disk.unlink(name)
            self._result.removed.append(name)
            return
        foreign = self._foreign(header, found)
        if foreign:
            self._aside(name, foreign)
            return
        if found.trailers_after > 1:
            self._copy(self._aside(name, f"damaged: {found.problem}"), name, found.trusted)
        elif found.trusted < size:
            log.warning("recovery: %s: %d bytes of torn tail cut off", name, size - found.trusted)
            self._result.cut_bytes += size - found.trusted
            self._disk.truncate(name, found.trusted)
        else:
            self._disk.truncate(name, size)  # whole, but was it synced? The row must not be durable first
        segment = Segment(
            name=name,
            session=header.session,
            boot_id=header.boot_id,
            start_ns=header.start_ns,
            end_ns=found.end_ns,
            bytes=found.trusted,
            fragments=len(found.fragments),
            sha256=found.sha256,
            end_reason=EndReason.KILLED if header.boot_id == self._clock.boot_id else EndReason.POWER_CUT,
            width=header.width,
            height=header.height,
        )
        if (header.session, header.boot_id) not in known:
            log.warning("recovery: session %d is known from %s only", header.session, name)
        self._index.adopt(
            SessionRow(header.session, header.boot_id, header.start_ns, segment.end_ns, None),
            TimeAnchor(header.boot_id, header.start_ns, header.utc_ns, header.unc_ns, header.utc_source),
        )
        self._index.add_segment(segment)
        self._result.sealed.append(segment)

    def _foreign(self, header: Header, found: Scan) -> str:
        """Why a well-formed file is not this node's own; empty when it is."""
        if header.v != FORMAT:
            return f"format {header.v}, this agent reads {FORMAT}"
        if header.source != self._source:
            return f"recorded by {header.source[:100]!r}, this is {self._source!r}"
        numbers = [header.session, header.start_ns, header.unc_ns or 0, *(f.end_ns for f in found.fragments)]
        sane = min(numbers) >= 0 and max(*numbers, abs(header.utc_ns)) < 1 << 62 and found.end_ns >= header.start_ns
        if not sane or not re.fullmatch("[0-9a-f]{32}", header.boot_id):
            return "its header makes no sense"
        if header.boot_id == self._clock.boot_id and found.end_ns > self._clock.boot_ns() + _FUTURE_NS:
            return "it is from the future of this boot"
        return ""

    def _copy(self, source: str, name: str, size: int) -> None:
        """Brings back the good front of a file that was set aside."""
        copy = self._disk.create(name)
        try:
            with self._disk.open(source) as file:
                while size > 0:
                    data = file.read(min(size, _CHUNK_BYTES))
                    if not data:
                        raise Transient(f"{source} has become shorter while it was read; check the disk")
                    size -= copy.write(data)
            copy.sync()
        finally:
            copy.close()

    def _aside(self, name: str, why: str) -> str:
        """Moves a file to quarantine/, which keeps the newest QUARANTINE_FILES_MAX."""
        kept = self._disk.list(QUARANTINE)
        target = f"{QUARANTINE}/{self._clock.utc().utc_ns // NS:012d}-{name.rpartition('/')[2][-100:]}"
        sizes = {kept_name: self._disk.size(kept_name) for kept_name in kept}
        total = sum(sizes.values()) + self._disk.size(name)
        while kept and (len(kept) >= QUARANTINE_FILES_MAX or total > QUARANTINE_BYTES_MAX):
            oldest = kept.pop(0)
            total -= sizes[oldest]
            self._disk.unlink(oldest)
        self._disk.rename(name, target)
        log.error("recovery: %s is set aside as %s: %s", name, target, why)
        self._result.quarantined.append((target, why))
        return target
