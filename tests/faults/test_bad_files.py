"""Files that are not what the index says: truncated, swapped, foreign, from the future, empty, or no files at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.disk import PosixDisk
from agent.errors import Transient
from agent.types import NS
from tests.fakes.clock import FakeClock
from tests.fakes.packets import encoded
from tests.fakes.recording_post import RecordingPost, closed_posts, whole

assert closed_posts


def lived(folder: Path, *, stop: bool = True) -> RecordingPost:
    """Twelve seconds in six segments of two, on a real file system."""
    post = RecordingPost(PosixDisk(folder), folder).boot()
    post.feed(encoded(seconds=12.0))
    if stop:
        post.stop()
    else:
        post.store.close()
    return post


def again(folder: Path, clock: FakeClock) -> RecordingPost:
    return RecordingPost(PosixDisk(folder), folder, clock=clock).boot()


def files(folder: Path) -> list[Path]:
    return sorted((folder / "segments").glob("*.mp4"))


def test_a_sealed_file_that_was_truncated_keeps_what_is_left(tmp_path: Path) -> None:
    before = lived(tmp_path)
    victim = files(tmp_path)[2]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size * 2 // 3])
    post = again(tmp_path, before.clock)
    assert post.recovery.resealed == [f"segments/{victim.name}"]
    whole(post)
    assert len(post.store.segments()) == len(files(tmp_path))


def test_an_empty_sealed_file_is_a_storage_fault_and_no_more(tmp_path: Path) -> None:
    before = lived(tmp_path)
    files(tmp_path)[1].write_bytes(b"")
    post = again(tmp_path, before.clock)
    assert len(post.store.segments()) == 5
    assert [name for name, _ in post.recovery.quarantined]
    whole(post)


def test_two_sealed_files_that_were_swapped_are_kept_whole_and_not_believed(tmp_path: Path) -> None:
    """Of another size they are set aside by the boot; of the same size their hash tells whoever reads them."""
    before = lived(tmp_path)
    a, b = files(tmp_path)[1:3]
    one, two = a.read_bytes(), b.read_bytes()
    assert len(one) != len(two)
    a.write_bytes(two)
    b.write_bytes(one)
    post = again(tmp_path, before.clock)
    assert {row.name for row in post.store.segments()}.isdisjoint({f"segments/{a.name}", f"segments/{b.name}"})
    kept = {path.read_bytes() for path in (tmp_path / "quarantine").iterdir()}
    assert {one, two} <= kept, "footage that was whole has been cut to the size of another"
    assert "file replaced" in {tombstone.reason for tombstone in post.store.tombstones()}
    whole(post)


def test_files_of_another_node_and_from_the_future_are_set_aside(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    before = lived(here)
    other = lived(there)
    foreign = files(there)[0].read_bytes().replace(b"wardpost/hoa-cuong/cam-1", b"wardpost/hoa-cuong/cam-2")
    (here / "segments" / "000009-00000000.mp4").write_bytes(foreign)
    later = RecordingPost(PosixDisk(there), there, clock=other.clock).boot()
    later.clock.advance(9 * 3600.0)
    later.feed(list(encoded(seconds=12.0, start_ns=40_000 * NS)))
    later.stop()
    (here / "segments" / "000010-00000000.mp4").write_bytes(files(there)[-1].read_bytes())
    post = again(here, before.clock)
    assert len(post.store.segments()) == 6, "what is not ours is in the index"
    assert len(post.recovery.quarantined) == 2
    whole(post)


@pytest.mark.parametrize("name", ["000001-00000001.mp4", "000007-00000000.mp4", "notes.txt"])
def test_a_folder_in_the_place_of_a_file(tmp_path: Path, name: str) -> None:
    before = lived(tmp_path)
    path = tmp_path / "segments" / name
    known = path.exists()
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "inside").write_bytes(b"x")
    post = again(tmp_path, before.clock)
    assert len(post.store.segments()) == (5 if known else 6)
    post.feed(encoded(seconds=4.0, start_ns=post.clock.boot_ns() + NS))
    assert post.recorder.state.recording, "a folder in the way stops the recording"


@pytest.mark.parametrize("name", ["keys", "ledger", "quarantine", "segments"])
def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"I am in the way")
    with pytest.raises(Transient) as caught:
        PosixDisk(tmp_path).list(name)
    assert "\n" not in str(caught.value)


def test_links_and_devices_are_not_followed_into_the_world(tmp_path: Path) -> None:
    """A link to /dev/zero has no end; one to a file of the system is not footage."""
    before = lived(tmp_path)
    (tmp_path / "segments" / "000008-00000000.mp4").symlink_to("/dev/zero")
    (tmp_path / "segments" / "000008-00000001.mp4").symlink_to("/etc/passwd")
    post = again(tmp_path, before.clock)
    assert len(post.store.segments()) == 6
    assert Path("/etc/passwd").stat().st_size > 0
