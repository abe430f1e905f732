"""A clip by range of time: the pictures that were recorded, at their own times, and never one that was altered."""

from __future__ import annotations

import hashlib
import os
from itertools import pairwise
from pathlib import Path

import av
import pytest

from agent.assets import Assets
from agent.desk import check_output
from agent.errors import ConfigError, Transient
from agent.recording.footage import Extraction, NoFootage, extract, unsealed
from agent.recording.fragments import scan
from agent.types import NS, Packet
from tests.fakes.disk import FakeDisk
from tests.fakes.packets import encoded, of_file, shifted
from tests.fakes.recording_post import RecordingPost, closed_posts, says  # noqa: F401

START = 1000 * NS
UTC = 1_700_000_000 * NS
NAME = "segments/000001-00000000.mp4"


@pytest.fixture
def disk(tmp_path: Path) -> FakeDisk:
    return FakeDisk(root=tmp_path)


@pytest.fixture
def post(disk: FakeDisk, tmp_path: Path) -> RecordingPost:
    return RecordingPost(disk, tmp_path).boot()


def clip(post: RecordingPost, tmp_path: Path, start_s: float, end_s: float, name: str = "clip.mp4") -> Extraction:
    return extract(
        disk=post.disk,
        catalog=post.store,
        start_utc_ns=UTC + round(start_s * NS),
        end_utc_ns=UTC + round(end_s * NS),
        output=tmp_path / name,
    )


def pictures(path: Path) -> list[tuple[float, str]]:
    """(time in the file, digest of the decoded picture)."""
    with av.open(str(path)) as container:
        found = []
        for frame in container.decode(video=0):
            assert frame.time is not None
            found.append((round(frame.time, 3), hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest()))
        return found


def test_a_clip_holds_exactly_the_pictures_of_the_source(post: RecordingPost, tmp_path: Path, assets: Assets) -> None:
    """Real street footage with B-frames, through the recorder and out again: every decoded picture is the same."""
    street = of_file(assets.footage())
    post.feed(street)
    post.stop()
    post.store.open()
    done = clip(post, tmp_path, 0, 10)
    source = pictures(assets.footage())
    copied = pictures(done.files[0])
    assert [digest for _, digest in copied] == [digest for _, digest in source]
    first = copied[0][0]
    assert [round(at - first, 2) for at, _ in copied] == [round(at - source[0][0], 2) for at, _ in source]
    assert done.damaged == []
    assert says(done.coverage) == [("recorded", 10.0)]
    assert done.parts[0].utc_ns == UTC
    assert done.parts[0].seconds == pytest.approx(10, abs=0.05)


def test_a_range_within_begins_at_the_key_frame_before(post: RecordingPost, tmp_path: Path, assets: Assets) -> None:
    street = of_file(assets.footage())
    post.feed(street)
    post.stop()
    post.store.open()
    done = clip(post, tmp_path, 3.5, 6.0)
    source = [digest for _, digest in pictures(assets.footage())]
    copied = [digest for _, digest in pictures(done.files[0])]
    begin = source.index(copied[0])
    asked = round(6.0 * 25) - begin  # behind the range the last fragment may end within a group of B-frames
    assert source[begin : begin + asked] == copied[:asked]
    keys = [(p.boot_ns - START) / NS for p in street if p.keyframe]
    assert (done.parts[0].utc_ns - UTC) / NS == max(key for key in keys if key <= 3.5)
    assert (begin + len(copied)) / 25 >= 6.0
    with done.files[0].open("rb") as file:
        head = file.read(4096)
    assert b"moov" in head and b"moof" not in head  # a flat file that plays while it is still being loaded


def test_gaps_are_closed_and_the_parts_say_where(post: RecordingPost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=4))
    post.recorder.lost(post.clock.boot_ns(), "unplugged")
    post.feed(shifted(encoded(seconds=4), 64 * NS))
    post.stop()
    post.store.open()
    done = clip(post, tmp_path, 0, 70)
    assert says(done.coverage)[:3] == [("recorded", 4.0), ("camera-fault", 60.0), ("recorded", 4.0)]
    times = [at for at, _ in pictures(done.files[0])]
    assert len(times) == 80
    assert max(b - a for a, b in pairwise(times)) < 0.2
    assert [((p.utc_ns - UTC) / NS, round(p.at_s, 1), round(p.seconds, 1)) for p in done.parts] == [
        (0, 0, 4),
        (64, 4, 4),
    ]


def test_a_range_over_a_reboot(post: RecordingPost, disk: FakeDisk, tmp_path: Path) -> None:
    post.feed(encoded(seconds=4.2))
    post.store.close()
    disk.power_cut(lambda _n: 0)
    post.clock.reboot(30)
    back = RecordingPost(disk, tmp_path, clock=post.clock).boot()
    back.feed(encoded(seconds=4, start_ns=NS))
    back.stop()
    back.store.open()
    done = clip(back, tmp_path, 0, 60)
    assert [what for what, _ in says(done.coverage)] == [
        "recorded",
        "power-off",
        "agent-stopped",
        "recorded",
        "agent-stopped",
    ]
    assert len(pictures(done.files[0])) == 40 + 40
    assert len(done.parts) == 2


def test_the_file_being_written_is_included(post: RecordingPost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=5))
    assert [s.sha256 for s, _ in unsealed(post.disk, post.store)] == [""]
    done = clip(post, tmp_path, 0, 5)
    assert len(pictures(done.files[0])) == 45  # the last GOP is still in memory
    assert says(done.coverage)[0] == ("recorded", 4.5)
    post.recorder.close()


def test_a_file_that_begins_without_a_key_frame_is_decoded_from_the_one_before(
    post: RecordingPost, tmp_path: Path
) -> None:
    packets = encoded(seconds=9, gop=60)
    post.feed(packets)
    post.stop()
    post.store.open()
    with post.disk.open("segments/000001-00000001.mp4") as file:
        assert not scan(file).fragments[0].keyframe
    done = clip(post, tmp_path, 4.2, 5.0)
    copied = pictures(done.files[0])
    assert (done.parts[0].utc_ns - UTC) / NS == 0  # the key frame 4.2 s before
    assert len(copied) >= 50
    assert len(done.parts) == 1
    assert [at for at, _ in copied] == [n / 10 for n in range(len(copied))]


def test_a_change_of_format_begins_another_file(post: RecordingPost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=3))
    post.feed(shifted(encoded(seconds=3, width=128), 3 * NS))
    post.stop()
    post.store.open()
    done = clip(post, tmp_path, 0, 6)
    assert [path.name for path in done.files] == ["clip.mp4", "clip-2.mp4"]
    for path, width in zip(done.files, (96, 128), strict=True):
        with av.open(str(path)) as container:
            assert container.streams.video[0].width == width
        assert len(pictures(path)) == 30
    assert sorted(p.name for p in tmp_path.glob("*.mp4")) == ["clip-2.mp4", "clip.mp4"]


@pytest.mark.parametrize("place", ["media", "trailer"])
def test_an_altered_fragment_is_left_out_and_named(
    place: str, post: RecordingPost, disk: FakeDisk, tmp_path: Path
) -> None:
    post.feed(encoded(seconds=4))
    post.stop()
    post.store.open()
    with disk.open(NAME) as file:
        fragment = scan(file).fragments[1]
    at = fragment.offset + fragment.length // 2 if place == "media" else fragment.end - 40
    disk.flip(NAME, at * 8)
    done = clip(post, tmp_path, 0, 4)
    assert any("fragment 2" in line for line in done.damaged), done.damaged
    copied = pictures(done.files[0])
    assert len(copied) == (35 if place == "media" else 25)  # behind a broken trailer nothing in that file is proved


def test_after_damage_nothing_is_shown_up_to_the_next_key_frame(
    post: RecordingPost, disk: FakeDisk, tmp_path: Path
) -> None:
    """Pictures that refer to one that is missing would be smears: worse than none as evidence."""
    post.feed(encoded(seconds=4, gop=20))
    post.stop()
    post.store.open()
    with disk.open(NAME) as file:
        damaged = scan(file).fragments[1]
    disk.flip(NAME, (damaged.offset + damaged.length // 2) * 8)
    done = clip(post, tmp_path, 0, 4)
    times = [(part.utc_ns - UTC) / NS for part in done.parts]
    assert len(done.damaged) == 1
    assert len(pictures(done.files[0])) == round((damaged.start_ns - START) / NS * 10) + 20
    assert times[0] == 0


def test_fragments_that_overlap_after_a_storage_fault_are_shown_once(
    post: RecordingPost, disk: FakeDisk, tmp_path: Path
) -> None:
    post.feed(encoded(seconds=4))
    post.stop()
    post.store.open()
    disk.put("segments/000001-00000077.mp4", disk.content(NAME))  # the same two seconds once more
    done = clip(post, tmp_path, 0, 4)
    assert len(pictures(done.files[0])) == 40


def test_a_range_without_footage_says_why(post: RecordingPost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=4))
    post.stop()
    post.store.open()
    with pytest.raises(NoFootage, match=r"nothing is recorded in this range: 50 s before-install") as caught:
        clip(post, tmp_path, -100, -50)
    assert says(caught.value.coverage) == [("before-install", 50.0)]
    assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".*.part"))
    with pytest.raises(ConfigError, match="the range ends before it begins"):
        clip(post, tmp_path, 3, 3)


def test_an_output_that_cannot_be_written_is_one_clear_line(post: RecordingPost, tmp_path: Path) -> None:
    post.feed(encoded(seconds=4))
    post.stop()
    post.store.open()
    with pytest.raises(ConfigError, match=r"cannot write .*none/clip.mp4: No such file.*; choose another file with -o"):
        clip(post, tmp_path, 0, 4, "none/clip.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.mp4"):
        clip(post, tmp_path, 0, 4, "folder.mp4")
    assert not list(tmp_path.glob(".*.part"))


def test_a_failure_midway_leaves_no_file(post: RecordingPost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    post.feed(encoded(seconds=6))
    post.stop()
    post.store.open()
    real, calls = post.disk.open, []

    def failing(name: str) -> object:
        calls.append(name)
        if len(calls) == 2:
            raise Transient("cannot open: Input/output error; replace the card")
        return real(name)

    monkeypatch.setattr(post.disk, "open", failing)
    with pytest.raises(Transient, match="replace the card"):
        clip(post, tmp_path, 0, 6)
    assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".*.part"))


def test_a_long_range_of_many_files(post: RecordingPost, tmp_path: Path) -> None:
    packets: tuple[Packet, ...] = ()
    for lap in range(4):
        packets += shifted(encoded(seconds=12), lap * 12 * NS)
    post.feed(packets)
    post.stop()
    post.store.open()
    done = clip(post, tmp_path, 0, 48)
    assert len(pictures(done.files[0])) == 480
    assert len(done.parts) == 1


@pytest.mark.parametrize("where", ["data/segments/000001-00000000.mp4", "data/wardpost.db", "pipe", "link"])
def test_an_extraction_never_takes_the_place_of_what_is_there_for_another_purpose(tmp_path: Path, where: str) -> None:
    data = tmp_path / "data"
    (data / "segments").mkdir(parents=True)
    (data / "wardpost.db").write_text("the node's memory")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/full")
    with pytest.raises(ConfigError, match=r"footage: .*(a device, a pipe or a link|the node's own data folder)"):
        check_output("footage", tmp_path / where, data)
    check_output("footage", tmp_path / "clip.mp4", data)
