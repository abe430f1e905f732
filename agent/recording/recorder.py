"""The recorder: access units to sealed files. The only thread that waits for the card.

    create   file (O_EXCL, folder synced), head
    append   a fragment with its trailer, one write, fdatasync: now it survives a power cut
    seal     last fragment, fdatasync, close, then the row in the index (invariant 2: the row is the last step)

A file on which a write or sync failed is cut back to what was synced before, read again, and sealed if it verifies;
otherwise recovery gets it at the next start. The packets of the lost fragment are in memory and open the next file.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from agent.clock import Clock
from agent.config import RecordingSettings
from agent.disk import Disk, DurableFile
from agent.errors import Corrupt, Transient, WardpostError
from agent.evidence.seal import Lock, identity
from agent.recording.fragments import CUT_BYTES, CUT_SHARE, FORMAT, FragmentMuxer, Header, Piece, parameter_sets, scan
from agent.recording.index import FOLDER, Ledger
from agent.recording.packet_queue import Break, PacketQueue
from agent.types import NS, Cause, EndReason, Event, Gap, Kind, NewId, Packet, Phase, Priority, Segment

GAP_NS_MIN = NS // 5  # shorter holes are jitter
GAP_REFRESH_S = 10.0  # an open gap is on record so often: a cut costs no more of the explanation
BACKOFF_S_MAX = 10.0
FRAGMENTS_PER_STEP = 4
IDLE_S = 2.0  # whole fragments and breaks wake the recorder; this bounds how late it sees anything else
ROWS_WAITING_MAX = 1000
LEFT_FILES_MAX = 100

log = logging.getLogger(__name__)


def segment_name(session: int, n: int) -> str:
    """Path of a segment below the data folder. Sorts by age within a session and, up to session 999,999, overall."""
    return f"{FOLDER}/{session:06d}-{n:08d}.mp4"


@dataclass(frozen=True, slots=True)
class RecorderState:
    """What the heartbeat and a reader of the newest footage may know. A snapshot: replaced, never changed."""

    recording: bool = False  # a file is open and the disk takes it
    fault: str = ""  # why not
    bytes_written: int = 0  # since the start
    fragments_written: int = 0
    packets_dropped: int = 0
    queue_s: float = 0.0
    durable_ns: int | None = None  # end of the newest footage that survives a power cut
    writing: Segment | None = None  # the file in progress, as far as it is durable; its sha256 is empty: not sealed


@dataclass(slots=True)
class _Writing:
    """The file in progress. The fields below `unsynced` describe what has been synced."""

    name: str
    header: Header
    file: DurableFile
    muxer: FragmentMuxer
    parameters: bytes
    first_dts_ns: int
    sha: object  # running hash of all bytes given to the file
    bytes: int = 0
    unsynced: list[Packet] = field(default_factory=list)
    synced_bytes: int = 0
    synced_sha256: str = ""
    fragments: int = 0
    end_ns: int = 0


@dataclass(frozen=True, slots=True)
class _Pending:
    """A gap that has begun and ends with the next packet that is recorded."""

    start_ns: int
    cause: Cause
    detail: str


class RecorderWorker:
    """Writes what `offer` is given. `offer` and `lost` may be called from any thread; all else is the worker's own."""

    name = "recorder"
    step_s_max = 60.0  # a dying card can hold an fdatasync for tens of seconds; that is a storage fault, not a hang

    def __init__(
        self,
        *,
        settings: RecordingSettings,
        disk: Disk,
        ledger: Ledger,
        clock: Clock,
        source: str,
        session: int,
        report: Callable[[Sequence[Event]], None],
        new_id: NewId,
        stall_s: float = 4.0,
        lock: Callable[[bytes], Lock] | None = None,
    ) -> None:
        """`stall_s`: a longer silence between two packets is a gap even if nobody called `lost`.

        `lock`: makes what seals one file to the station, of the file's identity; None: footage is kept in clear.
        """
        self._lock = lock
        self._settings = settings
        self._disk = disk
        self._ledger = ledger
        self._clock = clock
        self._source = source
        self._session = session
        self._report = report
        self._new_id = new_id
        self._stall_ns = round(stall_s * NS)
        self._queue = PacketQueue(
            s_max=settings.queue_s_max,
            bytes_max=settings.queue_mb_max << 20,
            whole_s=settings.fragment_s * CUT_SHARE,
            whole_bytes=CUT_BYTES,
        )
        self._segments = 0  # started by this worker
        self._writing: _Writing | None = None
        self._parameters = b""
        self._last: Packet | None = None  # the newest packet muxed
        self._last_end_ns: int | None = None
        self._pending: _Pending | None = None
        self._refreshed_s = 0.0
        self._rows: deque[Segment | Gap] = deque(maxlen=ROWS_WAITING_MAX)
        self._left: deque[Segment] = deque(maxlen=LEFT_FILES_MAX)
        self._incident: tuple[str, int] | None = None  # id, since
        self._fault = ""
        self._failures = 0
        self._retry_s = 0.0
        self._bytes_written = 0
        self._fragments_written = 0
        self.state = RecorderState()

    # -- any thread ---------------------------------------------------------------------------------------------------

    def offer(self, packet: Packet) -> bool:
        """Takes a packet into memory. Never blocks on the disk. False: dropped, counted and accounted for."""
        return self._queue.offer(packet)

    def lost(self, boot_ns: int, reason: str) -> None:
        """The camera is gone since `boot_ns`. The segment is sealed; the gap ends with the next packet."""
        self._queue.lost(boot_ns, reason)

    def paused(self, boot_ns: int, reason: str) -> None:
        """Nothing is recorded from `boot_ns` on, by the privacy switch. Ends with the next packet."""
        self._queue.paused(boot_ns, reason)

    def set_wake(self, wake: Callable[[], None]) -> None:
        """`wake` is called when there is something to do, at most a few times a second."""
        self._queue.wake = wake

    # -- the worker's thread ------------------------------------------------------------------------------------------

    def open(self) -> None:
        self._disk.list(FOLDER)
        if self._last_end_ns is not None and self._pending is None:
            self._pending = _Pending(self._last_end_ns, Cause.STORAGE_FAULT, "the recorder was restarted")

    def step(self, now: float) -> float:
        if self._fault and now < self._retry_s:
            self._put_on_record(now)
            return min(self._retry_s, now + GAP_REFRESH_S)
        target = self._fragments_written + FRAGMENTS_PER_STEP
        while self._fragments_written < target:
            item = self._queue.take()
            if item is None:
                break
            self._handle(item, now)
            if self._fault and now < self._retry_s:
                break
        self._put_on_record(now)
        if self._fault and now < self._retry_s:
            return min(self._retry_s, now + GAP_REFRESH_S)
        return now if len(self._queue) else now + IDLE_S

    def close(self) -> None:
        """Writes what waits in memory, seals, and puts the rows down. What the disk refuses is left to recovery."""
        now = self._clock.boot_ns() / NS
        self._retry_s = 0.0  # one last try, whatever the back-off says
        failures = self._failures
        try:
            while self._failures <= failures and (item := self._queue.take()) is not None:
                self._handle(item, now)
            if self._writing is not None:
                self._seal(EndReason.STOPPED, now=now)
        except WardpostError as error:
            log.error("recorder: while closing: %s", error)  # noqa: TRY400  (one line says it)
        self._writing = None
        self._last = None
        self._refreshed_s = -GAP_REFRESH_S
        self._put_on_record(now)

    def _handle(self, item: Packet | Break, now: float) -> None:
        """One item. Failures of the disk end in `_fail`, rubbish from the camera in a break; nothing is raised."""
        if isinstance(item, Break):
            self._break(item, now)
            return
        try:
            self._record(item, now)
        except Corrupt as error:
            self._break(Break(item.boot_ns, Cause.CAMERA_FAULT, str(error), EndReason.CAMERA), now)

    def _break(self, item: Break, now: float) -> None:
        """The stream is interrupted: seals what is there and opens a gap.

        Whatever ends a file goes back to the queue first: should the seal fail, the packets that it did not get onto
        the disk come before it.
        """
        if self._writing is not None:
            self._queue.put_back([item])
            self._seal(item.end_reason, now=now)
            return
        start_ns = item.boot_ns if self._last_end_ns is None or self._pending is not None else self._last_end_ns
        self._begin_gap(start_ns, item.cause, item.detail)
        if item.end_reason is EndReason.OVERRUN:
            self._raise_alarm(item.detail)
        self._last = None

    def _begin_gap(self, start_ns: int, cause: Cause, detail: str) -> None:
        """What broke first explains the whole stretch up to the next picture; but privacy explains only itself."""
        pending = self._pending
        if pending is not None and pending.cause is Cause.PRIVACY and cause is not Cause.PRIVACY:
            start_ns = max(start_ns, pending.start_ns)
            self._end_gap(start_ns)
        if self._pending is None:
            self._pending = _Pending(start_ns, cause, detail)
            self._refreshed_s = -GAP_REFRESH_S
            log.warning("recorder: nothing is recorded: %s: %s", cause, detail)

    def _record(self, packet: Packet, now: float) -> None:
        """One access unit into the file in progress, or into a new one."""
        last = self._last
        if last is not None:
            step_ns = packet.dts_ns - last.dts_ns
            if step_ns < 0 or step_ns > self._stall_ns:
                detail = "the camera's clock went back" if step_ns < 0 else f"no pictures for {step_ns / NS:.1f} s"
                self._queue.put_back([Break(last.boot_ns, Cause.CAMERA_FAULT, detail, EndReason.CAMERA), packet])
                self._last = None
                return
        if packet.keyframe:
            self._parameters = parameter_sets(packet.data) or parameter_sets(packet.video.extradata) or self._parameters
        end_reason = self._ends_before(packet)
        if end_reason is EndReason.CAMERA and not packet.keyframe:
            detail = "the picture changed its size without a key frame"
            self._queue.put_back([Break(packet.boot_ns, Cause.CAMERA_FAULT, detail, EndReason.CAMERA), packet])
            return
        if end_reason is not None:
            self._queue.put_back([packet])
            self._seal(end_reason, now=now, following=packet)
            return
        if self._writing is None and not self._create(packet, now):
            return
        writing = self._writing
        assert writing is not None  # noqa: S101  (for the type checker: _create made it)
        writing.unsynced.append(packet)
        pieces = writing.muxer.mux(packet)
        self._last = packet
        try:
            self._append(writing, pieces)
        except Transient as error:
            self._fail(str(error), now)
            return
        if any(piece.fragment for piece in pieces):
            del writing.unsynced[:-1]

    def _ends_before(self, packet: Packet) -> EndReason | None:
        """Why the file in progress must not take `packet`; None when it may."""
        writing = self._writing
        if writing is None:
            return None
        size = (writing.header.width, writing.header.height)
        if size != (packet.video.width, packet.video.height) or (
            packet.keyframe and self._parameters != writing.parameters
        ):
            return EndReason.CAMERA
        length_ns = packet.dts_ns - writing.first_dts_ns
        limit_ns = round(self._settings.segment_s * NS)
        # A source without key frames must not make a file without end: at twice the length it is cut anywhere.
        if (packet.keyframe and length_ns >= limit_ns) or length_ns >= 2 * limit_ns:
            return EndReason.ROLLED
        return None

    def _create(self, packet: Packet, now: float) -> bool:
        """Begins a file with `packet`. False: the packet cannot begin one, or the disk refuses."""
        contiguous = self._last is not None and self._pending is None
        if not self._parameters or not (packet.keyframe or contiguous):
            return False  # nothing could decode it; the gap goes on up to the next key frame
        name = segment_name(self._session, self._segments)
        self._segments += 1  # also when it fails: the name may exist by now
        utc, now_ns = self._clock.utc(), self._clock.boot_ns()
        header = Header(
            v=FORMAT,
            source=self._source,
            session=self._session,
            boot_id=self._clock.boot_id,
            start_ns=packet.boot_ns,
            base_ns=packet.dts_ns,
            utc_ns=utc.utc_ns - (now_ns - packet.boot_ns),
            unc_ns=utc.unc_ns,
            utc_source=utc.source,
            width=packet.video.width,
            height=packet.video.height,
        )
        seal = None
        if self._lock is not None:
            lock = self._lock(identity(header.session, header.boot_id, header.start_ns, header.source))
            header = msgspec.structs.replace(header, sealed=lock.token, seal_commit=lock.commitment)
            seal = lock.seal
        muxer = FragmentMuxer(packet, self._parameters, header=header, fragment_s=self._settings.fragment_s, seal=seal)
        try:
            file = self._disk.create(name)
        except Transient as error:
            self._queue.put_back([packet])
            self._fail(str(error), now)
            return False
        self._writing = _Writing(
            name=name,
            header=header,
            file=file,
            muxer=muxer,
            parameters=self._parameters,
            first_dts_ns=packet.dts_ns,
            sha=hashlib.sha256(),
        )
        return True

    def _append(self, writing: _Writing, pieces: Sequence[Piece]) -> None:
        """Writes pieces; a fragment is synced before anything is said about it. Raises Transient."""
        for piece in pieces:
            writing.file.write(piece.data)
            writing.sha.update(piece.data)  # type: ignore[attr-defined]
            writing.bytes += len(piece.data)
            self._bytes_written += len(piece.data)
            if piece.fragment is None:
                continue
            writing.file.sync()
            first = writing.fragments == 0
            writing.fragments += 1
            writing.synced_bytes = writing.bytes
            writing.synced_sha256 = writing.sha.hexdigest()  # type: ignore[attr-defined]
            writing.end_ns = max(writing.end_ns, piece.fragment.end_ns)
            self._last_end_ns = writing.end_ns
            self._fragments_written += 1
            if first:
                self._end_gap(writing.header.start_ns)
                self._all_clear()

    def _seal(self, end_reason: EndReason, *, now: float, following: Packet | None = None) -> None:
        """Ends the file in progress. The row comes last."""
        writing = self._writing
        if writing is None:
            return
        try:
            pieces = writing.muxer.finish(following)
        except Corrupt as error:
            log.warning("recorder: %s: the last fragment is lost: %s", writing.name, error)
            pieces = []
        try:
            self._append(writing, pieces)
        except Transient as error:
            self._fail(str(error), now)
            return
        writing.file.close()
        self._writing = None
        if writing.fragments:
            self._rows.append(_row(writing, end_reason))
        else:
            self._left.append(_row(writing, end_reason))
            self._salvage()

    # -- when the disk refuses ----------------------------------------------------------------------------------------

    def _fail(self, error: str, now: float) -> None:
        """The disk refuses: abandons the file, keeps its unsynced packets, backs off."""
        writing, self._writing = self._writing, None
        self._last = None
        start_ns: int | None = self._last_end_ns
        if writing is not None:
            writing.file.close()
            self._queue.put_back(writing.unsynced)
            start_ns = writing.end_ns if writing.fragments else max(start_ns or 0, writing.header.start_ns)
            self._left.append(_row(writing, EndReason.STORAGE))
            self._salvage()
        self._begin_gap(start_ns if start_ns is not None else self._clock.boot_ns(), Cause.STORAGE_FAULT, error)
        self._failures += 1
        self._retry_s = now + min(2.0 ** (self._failures - 1), BACKOFF_S_MAX)
        self._raise_alarm(error)

    def _salvage(self) -> None:
        """Seals abandoned files as far as they were synced, if a second look at the disk agrees."""
        for _ in range(len(self._left)):
            row = self._left.popleft()
            try:
                if not row.fragments:
                    self._disk.unlink(row.name)
                    continue
                self._disk.truncate(row.name, row.bytes)
                with self._disk.open(row.name) as file:
                    found = scan(file)
            except (Transient, FileNotFoundError) as error:
                log.warning("recorder: %s is left for recovery: %s", row.name, error)
                self._left.append(row)
                return
            if (found.trusted, found.sha256) == (row.bytes, row.sha256):
                self._rows.append(row)
            else:
                log.error("recorder: %s does not hold what was synced; left for recovery", row.name)

    def _raise_alarm(self, error: str) -> None:
        self._fault = error
        if self._incident is not None:
            return
        log.error("recorder: %s", error)
        self._incident = (self._new_id(), self._clock.boot_ns())
        self._say(Phase.STARTED, f"Recording has stopped: {error}")

    def _all_clear(self) -> None:
        """The first synced fragment after a fault is the proof that the disk works again."""
        self._fault = ""
        self._failures = 0
        if self._incident is None:
            return
        down_s = (self._clock.boot_ns() - self._incident[1]) / NS
        self._say(Phase.ENDED, f"Recording again after {down_s:.0f} s")
        self._incident = None
        self._salvage()

    def _say(self, phase: Phase, summary: str) -> None:
        assert self._incident is not None  # noqa: S101
        incident, since_ns = self._incident
        event = Event(
            incident=incident,
            kind=Kind.STORAGE,
            phase=phase,
            boot_ns=self._clock.boot_ns(),
            priority=Priority.ALERT,
            summary=summary,
            since_ns=since_ns,
        )
        self._report([event])

    # -- what is put on record ----------------------------------------------------------------------------------------

    def _end_gap(self, end_ns: int) -> None:
        pending, self._pending = self._pending, None
        if pending is not None and end_ns - pending.start_ns >= GAP_NS_MIN:
            self._rows.append(self._gap(pending, end_ns))

    def _put_on_record(self, now: float) -> None:
        """Ends every step: the ledger and the heartbeat know what the recorder knows."""
        self._refresh_gap(now)
        self._flush_rows()
        self._publish()

    def _refresh_gap(self, now: float) -> None:
        """Puts an open gap on record as it stands: if the power goes now, it is explained."""
        if self._pending is None or now - self._refreshed_s < GAP_REFRESH_S:
            return
        self._refreshed_s = now
        end_ns = self._clock.boot_ns()
        if end_ns - self._pending.start_ns < GAP_NS_MIN:
            return
        row, newest = self._gap(self._pending, end_ns, growing=True), self._rows[-1] if self._rows else None
        if isinstance(newest, Gap) and newest.start_ns == row.start_ns:
            self._rows.pop()  # an index that refuses for hours must not be owed one row for every refresh
        self._rows.append(row)

    def _gap(self, pending: _Pending, end_ns: int, *, growing: bool = False) -> Gap:
        return Gap(self._clock.boot_id, pending.start_ns, end_ns, pending.cause, pending.detail, growing)

    def _flush_rows(self) -> None:
        """Rows go down in order. Those that the index refuses wait; should they be lost, recovery finds the files."""
        while self._rows:
            row = self._rows[0]
            try:
                if isinstance(row, Segment):
                    self._ledger.add_segment(row)
                else:
                    self._ledger.add_gap(row)
            except WardpostError as error:
                log.error("recorder: %d rows wait for the index: %s", len(self._rows), error)  # noqa: TRY400
                return
            self._rows.popleft()

    def _publish(self) -> None:
        writing = self._writing
        self.state = RecorderState(
            recording=writing is not None and not self._fault,
            fault=self._fault,
            bytes_written=self._bytes_written,
            fragments_written=self._fragments_written,
            packets_dropped=self._queue.dropped,
            queue_s=self._queue.seconds,
            durable_ns=self._last_end_ns,
            writing=_row(writing, EndReason.ROLLED, sealed=False) if writing and writing.fragments else None,
        )


def _row(writing: _Writing, end_reason: EndReason, *, sealed: bool = True) -> Segment:
    """The index row of what has been synced."""
    return Segment(
        name=writing.name,
        session=writing.header.session,
        boot_id=writing.header.boot_id,
        start_ns=writing.header.start_ns,
        end_ns=writing.end_ns,
        bytes=writing.synced_bytes,
        fragments=writing.fragments,
        sha256=writing.synced_sha256 if sealed else "",
        end_reason=end_reason,
        width=writing.header.width,
        height=writing.header.height,
    )
