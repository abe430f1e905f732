"""The recorder: what the camera and the disk did, and what must then be on the disk, in the index and in the ledger."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import RecordingSettings
from agent.disk import PosixDisk
from agent.errors import Transient
from agent.recording.coverage import recorded_s
from agent.recording.fragments import scan
from agent.recording.packet_queue import Break, PacketQueue
from agent.types import NS, Cause, EndReason, Gap, Kind, Packet, Phase, Segment, VideoFormat
from tests.fakes.disk import FakeDisk
from tests.fakes.packets import encoded, shifted
from tests.fakes.recording_post import QUICK, RecordingPost, closed_posts, says, whole  # noqa: F401

START = 1000 * NS


@pytest.fixture
def disk(tmp_path: Path) -> FakeDisk:
    return FakeDisk(root=tmp_path)


@pytest.fixture
def post(disk: FakeDisk, tmp_path: Path) -> RecordingPost:
    return RecordingPost(disk, tmp_path).boot()


def reasons(post: RecordingPost) -> list[EndReason]:
    return [segment.end_reason for segment in post.store.segments()]


def seconds(post: RecordingPost) -> list[tuple[float, float]]:
    return [((s.start_ns - START) / NS, (s.end_ns - START) / NS) for s in post.store.segments()]


# -- the ordinary day -------------------------------------------------------------------------------------------------


def test_segments_follow_each_other_without_a_gap(post: RecordingPost) -> None:
    post.feed(encoded(seconds=9))
    assert post.recorder.state.recording
    post.recorder.close()
    assert seconds(post) == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert reasons(post) == [EndReason.ROLLED] * 4 + [EndReason.STOPPED]
    assert post.store.gaps() == []
    assert [s.name for s in post.store.segments()][:2] == [
        "segments/000001-00000000.mp4",
        "segments/000001-00000001.mp4",
    ]
    assert says(post.coverage(START, START + 9 * NS)) == [("recorded", 9.0)]
    whole(post)


def test_b_frames_are_kept(post: RecordingPost) -> None:
    packets = encoded(seconds=9, b_frames=3, gop=10)
    post.feed(packets)
    post.recorder.close()
    assert sum(e - s for s, e in seconds(post)) == pytest.approx(9, abs=0.01)
    whole(post)


def test_every_fragment_is_durable_before_it_is_called_so(post: RecordingPost, disk: FakeDisk) -> None:
    for packet in encoded(seconds=5):
        post.feed([packet])
        durable_ns = post.recorder.state.durable_ns
        platter = [scan(io.BytesIO(inode.durable)) for inode in disk._durable_names.values()]
        ends = [found.end_ns for found in platter if found.fragments]
        assert durable_ns == (max(ends) if ends else None)
        assert packet.boot_ns - (durable_ns or START) <= 0.6 * NS


def test_a_long_gop_costs_no_more_than_a_fragment(post: RecordingPost) -> None:
    """A camera that sends a key frame every 10 s is still on the disk every half second."""
    for packet in encoded(seconds=7, gop=100):
        post.feed([packet])
        assert packet.boot_ns - (post.recorder.state.durable_ns or START) <= 0.7 * NS
    post.recorder.close()
    assert next(s.end_ns - s.start_ns for s in post.store.segments()) == 4 * NS  # twice segment_s: cut anywhere
    assert recorded_s(post.coverage(START, START + 7 * NS)) == pytest.approx(7, abs=0.001)
    whole(post)


def test_recording_begins_with_a_key_frame_that_says_how_to_decode(post: RecordingPost) -> None:
    packets = encoded(seconds=3)
    post.feed(packets[3:])
    post.recorder.close()
    assert seconds(post)[0][0] == 0.5


def test_what_nobody_could_decode_is_not_recorded(post: RecordingPost) -> None:
    packets = encoded(seconds=3)
    bare = [replace(p, data=p.data[p.data.rfind(b"\0\0\1") :]) if p.keyframe else p for p in packets]
    post.feed(bare)
    assert not post.recorder.state.recording
    assert post.recorder.state.bytes_written == 0


def test_parameter_sets_beside_the_stream_are_put_into_it(post: RecordingPost) -> None:
    packets = encoded(seconds=3)
    at = packets[0].data.rfind(b"\0\0\1")
    video = replace(packets[0].video, extradata=packets[0].data[:at])
    post.feed(
        [replace(p, data=p.data[p.data.rfind(b"\0\0\1") :] if p.keyframe else p.data, video=video) for p in packets]
    )
    post.recorder.close()
    assert seconds(post) == [(0, 2), (2, 3)]


# -- what the camera does ---------------------------------------------------------------------------------------------


def test_a_lost_camera_is_a_gap_with_its_reason(post: RecordingPost) -> None:
    post.feed(encoded(seconds=3))
    post.clock.advance(4)
    post.recorder.lost(post.clock.boot_ns(), "no picture for 4 s")
    post.step()
    assert not post.recorder.state.recording
    assert reasons(post)[-1] is EndReason.CAMERA
    assert says(post.coverage(START, START + 6 * NS, running=True))[-1] == ("camera-fault", 3.0)  # already on record
    for _ in range(5):  # it fails again and again
        post.clock.advance(1)
        post.recorder.lost(post.clock.boot_ns(), "cannot be opened")
        post.step()
    post.feed(shifted(encoded(seconds=3), 20 * NS))
    post.recorder.close()
    assert post.store.gaps() == [
        Gap(post.clock.boot_id, START + 3 * NS, START + 20 * NS, Cause.CAMERA_FAULT, "no picture for 4 s")
    ]
    assert says(post.coverage(START, START + 23 * NS)) == [("recorded", 3.0), ("camera-fault", 17.0), ("recorded", 3.0)]
    whole(post)


def test_a_camera_that_was_never_there_is_a_gap_too(post: RecordingPost) -> None:
    post.recorder.lost(post.clock.boot_ns(), "no such device")
    post.step()
    post.clock.advance(30)
    post.step()
    post.recorder.close()
    assert [(g.start_ns, g.end_ns, g.cause) for g in post.store.gaps()] == [
        (START, START + 30 * NS, Cause.CAMERA_FAULT)
    ]


def test_silence_and_a_clock_that_goes_back_begin_a_new_segment(post: RecordingPost) -> None:
    post.feed(encoded(seconds=3))
    post.feed(shifted(encoded(seconds=3), 10 * NS))
    post.feed(shifted(encoded(seconds=3, seed=4), 5 * NS))
    post.recorder.close()
    details = [gap.detail for gap in post.store.gaps()]
    assert details == ["no pictures for 7.1 s"]
    assert reasons(post).count(EndReason.CAMERA) == 2
    whole(post)


def test_another_size_or_other_parameters_begin_a_new_segment_without_a_gap(post: RecordingPost) -> None:
    post.feed(encoded(seconds=3))
    post.feed(shifted(encoded(seconds=3, width=128), 3 * NS))
    post.feed(shifted(encoded(seconds=3, width=128, b_frames=1), 6 * NS + NS // 5))  # same size, another SPS
    post.recorder.close()
    segments = post.store.segments()
    assert [s.width for s in segments] == [96, 96, 128, 128, 128, 128]
    assert [s.end_reason for s in segments].count(EndReason.CAMERA) == 2
    assert recorded_s(post.coverage(START, START + 9 * NS)) > 8.7
    whole(post)


def test_rubbish_from_the_camera_is_survived(post: RecordingPost) -> None:
    packets = list(encoded(seconds=6))
    for index in range(20, 25):
        packets[index] = replace(packets[index], data=os.urandom(300))
    packets[30] = replace(packets[30], boot_ns=packets[30].dts_ns - 5 * NS)  # shown before it is decoded
    packets[35] = replace(packets[35], data=b"")
    packets[40] = replace(packets[40], video=VideoFormat(64, 64))  # size changes in mid GOP
    post.feed(packets)
    post.recorder.close()
    assert recorded_s(post.coverage(START, START + 6 * NS)) > 4
    whole(post)


# -- what the disk does -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["write", "sync", "create"])
@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_one_failure_costs_nothing_because_the_packets_are_still_in_memory(
    op: str, after: int, post: RecordingPost, disk: FakeDisk
) -> None:
    disk.fail(op, after=after)
    post.feed(encoded(seconds=12))
    post.recorder.close()
    assert [(e.kind, e.phase) for e in post.events] == [(Kind.STORAGE, Phase.STARTED), (Kind.STORAGE, Phase.ENDED)]
    assert len({e.incident for e in post.events}) == 1
    assert "Input/output error" in post.events[0].summary
    assert EndReason.CAMERA not in reasons(post), "the packets came back in another order"
    assert says(post.coverage(START, START + 12 * NS)) == [("recorded", 12.0)]
    whole(post)


def test_a_failed_file_is_sealed_as_far_as_it_was_synced(post: RecordingPost, disk: FakeDisk) -> None:
    disk.fail("sync", after=2)
    post.feed(encoded(seconds=6))
    post.recorder.close()
    broken = post.store.segments()[0]
    assert (broken.end_reason, broken.fragments, broken.end_ns) == (EndReason.STORAGE, 2, START + NS)
    whole(post)
    disk.power_cut(lambda _n: 0)
    whole(post)


def test_a_disk_that_lies_about_a_failed_file_is_not_believed(
    post: RecordingPost, disk: FakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.fail("sync", after=2)
    real = disk.open

    def rotten(name: str) -> io.BytesIO:
        data = bytearray(real(name).read())
        data[len(data) // 2] ^= 1
        return io.BytesIO(bytes(data))

    monkeypatch.setattr(disk, "open", rotten)
    post.feed(encoded(seconds=6))
    post.recorder.close()
    monkeypatch.undo()
    assert "segments/000001-00000000.mp4" not in {s.name for s in post.store.segments()}


def test_a_disk_that_stays_full_is_a_storage_gap(post: RecordingPost, disk: FakeDisk) -> None:
    packets = encoded(seconds=40)
    post.feed(packets[:50])
    disk.fill(free_bytes=100)
    post.feed(packets[50:300])
    state = post.recorder.state
    assert not state.recording and "No space left" in state.fault
    assert state.packets_dropped > 100
    assert state.queue_s <= QUICK.queue_s_max
    assert [(e.kind, e.phase) for e in post.events] == [(Kind.STORAGE, Phase.STARTED)]
    live = post.coverage(START, START + 29 * NS, running=True)
    assert says(live)[1][0] == "storage-fault"
    disk.fill(free_bytes=1 << 30)
    post.feed(packets[300:])
    post.recorder.close()
    assert post.events[-1].phase is Phase.ENDED
    stretches = post.coverage(START, START + 40 * NS)
    assert {s.what for s in stretches} == {"recorded", "storage-fault"}
    assert sum(s.seconds for s in stretches) == pytest.approx(40)
    assert any("No space left" in s.detail for s in stretches) or any("queue" in s.detail for s in stretches)
    whole(post)


def test_a_slow_disk_drops_to_the_next_key_frame_and_says_so(tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    post = RecordingPost(disk, tmp_path).boot()
    packets = encoded(seconds=30)
    post.feed(packets[:40])
    for packet in packets[40:120]:  # the recorder hangs in fdatasync for 8 s; its queue takes 4
        post.clock.advance_to(packet.dts_ns)
        post.recorder.offer(packet)
    assert post.recorder._queue.dropped > 30
    post.feed(packets[120:])
    post.recorder.close()
    assert EndReason.OVERRUN in reasons(post)
    gaps = post.store.gaps()
    assert [g.cause for g in gaps] == [Cause.STORAGE_FAULT]
    assert "too slow" in gaps[0].detail
    assert [e.phase for e in post.events] == [Phase.STARTED, Phase.ENDED]
    assert {s.what for s in post.coverage(START, START + 30 * NS)} == {"recorded", "storage-fault"}
    whole(post)


def test_an_index_that_refuses_never_stops_the_recording(post: RecordingPost, monkeypatch: pytest.MonkeyPatch) -> None:
    real = post.store.add_segment

    def refuse(_segment: Segment) -> None:
        raise Transient("store.db: cannot seal segment: database or disk is full")

    monkeypatch.setattr(post.store, "add_segment", refuse)
    packets = encoded(seconds=9)
    post.feed(packets[:70])
    assert post.recorder.state.recording
    assert post.store.segments() == []
    monkeypatch.setattr(post.store, "add_segment", real)
    post.feed(packets[70:])
    post.recorder.close()
    assert says(post.coverage(START, START + 9 * NS)) == [("recorded", 9.0)]
    whole(post)


def test_a_clean_stop_during_a_fault_gives_the_disk_one_last_chance(post: RecordingPost, disk: FakeDisk) -> None:
    packets = encoded(seconds=4)
    disk.fail("write", after=3, times=2)
    post.feed(packets)
    post.recorder.close()
    assert says(post.coverage(START, START + 4 * NS)) == [("recorded", 4.0)]
    whole(post)


def test_a_restarted_recorder_explains_its_absence(post: RecordingPost) -> None:
    """The supervisor closes and opens a worker that met a bug."""
    post.feed(encoded(seconds=3))
    post.recorder.close()
    post.clock.advance(5)
    post.recorder.open()
    post.feed(shifted(encoded(seconds=3), 8 * NS))
    post.recorder.close()
    assert says(post.coverage(START, START + 11 * NS)) == [("recorded", 3.0), ("storage-fault", 5.0), ("recorded", 3.0)]


# -- the queue --------------------------------------------------------------------------------------------------------


def test_the_queue_is_bounded_in_bytes() -> None:
    queue = PacketQueue(s_max=100, bytes_max=10_000, whole_s=0.5, whole_bytes=1 << 20)
    packets = encoded(seconds=12)
    taken = [queue.offer(packet) for packet in packets]
    assert not all(taken)
    items = []
    while (item := queue.take()) is not None:
        items.append(item)
    assert sum(len(item.data) for item in items if isinstance(item, Packet)) <= 10_000
    assert isinstance(items[-1], Break)
    assert queue.dropped == taken.count(False)


def test_the_queue_wakes_for_key_frames_and_when_a_fragment_has_come_together() -> None:
    queue = PacketQueue(s_max=100, bytes_max=1 << 20, whole_s=0.5, whole_bytes=1 << 20)
    woken: list[int] = []
    queue.wake = lambda: woken.append(1)
    for packet in encoded(seconds=10, gop=100):
        queue.offer(packet)
    assert 20 <= len(woken) <= 22
    queue.lost(START, "gone")
    queue.lost(START, "gone")
    assert len(queue) == 101


@pytest.mark.parametrize(("fps", "gop"), [(10, 10), (10, 100), (24, 48), (25, 250), (7, 3)])
def test_a_recorder_that_works_only_when_woken_is_never_late(tmp_path: Path, fps: int, gop: int) -> None:
    """The queue wakes it when a fragment is whole: so what a power cut may take is a fragment, not the sleep after it."""
    settings = RecordingSettings(segment_s=10, fragment_s=0.5)
    post = RecordingPost(FakeDisk(), tmp_path, settings=settings).boot()
    woken = threading.Event()
    post.recorder.set_wake(woken.set)
    steps = 0
    for packet in encoded(seconds=20, fps=fps, gop=gop):
        post.clock.advance_to(packet.dts_ns)
        post.recorder.offer(packet)
        if woken.is_set():
            woken.clear()
            post.recorder.step(post.now())
            steps += 1
        durable_ns = post.recorder.state.durable_ns or START
        assert packet.dts_ns - durable_ns <= 0.5 * 1.05 * NS + 2 * NS // fps
    assert steps <= 20 * max(fps / gop, 2) + 5, "woken for nothing"


def test_offering_never_waits_for_the_disk(tmp_path: Path) -> None:
    """A real thread hangs in the disk; the camera's thread does not notice."""
    reached, hanging = threading.Event(), threading.Event()

    def hang(op: str) -> None:
        if op == "sync":
            reached.set()
            hanging.wait(60)

    disk = FakeDisk(root=tmp_path, delay=hang)
    post = RecordingPost(disk, tmp_path, settings=RecordingSettings(segment_s=10, fragment_s=0.5)).boot()
    packets = encoded(seconds=5)
    post.clock.advance_to(packets[-1].dts_ns)
    for packet in packets[:20]:
        post.recorder.offer(packet)
    worker = threading.Thread(target=post.recorder.step, args=(post.now(),))
    worker.start()
    assert reached.wait(30)
    for packet in packets[20:]:
        post.recorder.offer(packet)
    assert worker.is_alive() and not hanging.is_set(), "all were taken while it hung"
    hanging.set()
    worker.join()
    post.step()
    post.recorder.close()
    assert recorded_s(post.coverage(START, START + 5 * NS)) == 5


# -- a real process on a real disk ------------------------------------------------------------------------------------

WRITER = """
    import sys
    from pathlib import Path
    from agent.disk import PosixDisk
    from tests.fakes.packets import encoded, shifted
    from tests.fakes.recording_post import RecordingPost
    from agent.types import NS
    folder = Path(sys.argv[1])
    post = RecordingPost(PosixDisk(folder), folder).boot()
    lap = 0
    while True:
        for packet in shifted(encoded(seconds=12), lap * 12 * NS):
            post.feed([packet])
            durable = post.recorder.state.durable_ns
            print(durable or 0, packet.boot_ns, flush=True)
        lap += 1
"""


@pytest.mark.parametrize("lines", [3, 57, 161, 402])
def test_kill_9_loses_at_most_a_fragment(lines: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    durable_ns = seen_ns = 0
    for _ in range(lines):
        durable_ns, seen_ns = map(int, process.stdout.readline().split())
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()
    post = RecordingPost(PosixDisk(tmp_path), tmp_path).boot()
    segments = post.store.segments()
    recorded_to = max((s.end_ns for s in segments), default=START)
    assert recorded_to >= durable_ns
    assert seen_ns - recorded_to <= 0.7 * NS
    assert not post.recovery.quarantined and not post.recovery.missing
    if segments and segments[-1].end_reason is not EndReason.ROLLED:
        assert segments[-1].end_reason is EndReason.KILLED
    whole(post)
    post.feed(shifted(encoded(seconds=3), recorded_to - START + 5 * NS))
    post.stop()
