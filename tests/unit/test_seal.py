"""Footage sealed to the station: the card shows nothing, and all that keeps it safe works without the key."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agent.errors import ConfigError, Corrupt
from agent.evidence import keys, seal
from agent.evidence.verify import trusted_key
from agent.recording.footage import NoFootage, extract
from agent.recording.fragments import scan
from agent.recording.recorder import RecorderWorker
from agent.types import NS
from tests.fakes.disk import FakeDisk
from tests.fakes.packets import encoded
from tests.fakes.recording_post import RecordingPost, closed_posts, says, whole  # noqa: F401
from tests.unit.test_footage import UTC, pictures

STATION = X25519PrivateKey.generate()
ABOUT = b"wardpost/a/b 1 boot 5"
KEY = seal.Key(STATION)


def post_on(disk: FakeDisk, folder: Path, *, sealed: bool = True, **more: object) -> RecordingPost:
    lock = partial(seal.Lock, STATION.public_key()) if sealed else None
    recorder: Any = partial(RecorderWorker, lock=lock)
    return RecordingPost(disk, folder, recorder=recorder, **more).boot()  # type: ignore[arg-type]


def film(post: RecordingPost, output: Path, key: seal.Key | None) -> list[str]:
    done = extract(
        disk=post.disk, catalog=post.store, start_utc_ns=UTC, end_utc_ns=UTC + 60 * NS, output=output, key=key
    )
    assert done.damaged == []
    return [digest for _, digest in pictures(done.files[0])]


def test_the_station_sees_exactly_the_pictures_that_were_recorded(tmp_path: Path) -> None:
    clear, sealed = tmp_path / "clear", tmp_path / "sealed"
    clear.mkdir()
    sealed.mkdir()
    posts = [post_on(FakeDisk(root=clear), clear, sealed=False), post_on(FakeDisk(root=sealed), sealed)]
    films = []
    for post in posts:
        post.feed(encoded(seconds=9))
        post.stop()
        post.store.open()
        films.append(film(post, tmp_path / "clip.mp4", KEY))
    assert films[0] == films[1] and len(films[0]) == 90
    whole(posts[1])


def test_the_card_shows_nothing(tmp_path: Path) -> None:
    """No access unit of the camera, nor a part of one, stands on the disk."""
    disk = FakeDisk(root=tmp_path)
    post = post_on(disk, tmp_path)
    packets = encoded(seconds=4)
    post.feed(packets)
    post.stop()
    card = b"".join(disk.content(name) for name in disk.list("segments"))
    slices = [packet.data[-40:-8] for packet in packets if len(packet.data) > 60]
    assert len(slices) > 30
    assert not [part for part in slices if part in card]
    clear = tmp_path / "clear"
    clear.mkdir()
    open_disk = FakeDisk(root=clear)
    other = post_on(open_disk, clear, sealed=False)
    other.feed(packets)
    other.stop()
    plain = b"".join(open_disk.content(name) for name in open_disk.list("segments"))
    assert all(part in plain for part in slices)  # the search would have found them
    post.store.open()
    fragments = sum(segment.fragments for segment in post.store.segments())
    tokens = len(card) - len(plain) - fragments * seal.OVERHEAD_BYTES
    assert 0 < tokens < 250 * len(disk.list("segments"))


def test_on_the_post_extraction_is_refused_in_one_clear_line(tmp_path: Path) -> None:
    post = post_on(FakeDisk(root=tmp_path), tmp_path)
    post.feed(encoded(seconds=4))
    post.stop()
    post.store.open()
    with pytest.raises(ConfigError, match="sealed to the station; extract it there: wardpost footage --key"):
        film(post, tmp_path / "clip.mp4", None)
    with pytest.raises(NoFootage, match="sealed to another station's key"):
        film(post, tmp_path / "clip.mp4", seal.Key(X25519PrivateKey.generate()))
    assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("seconds", [2.3, 3.1, 4.7])
def test_a_power_cut_is_recovered_without_the_key(seconds: float, tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    post = post_on(disk, tmp_path)
    post.feed(encoded(seconds=seconds))
    post.store.close()
    disk.power_cut(lambda n: n // 2)  # a torn tail
    post.clock.reboot(30)
    back = post_on(disk, tmp_path, clock=post.clock)
    whole(back)
    assert back.recovery.sealed or back.store.segments()
    shown = film(back, tmp_path / "clip.mp4", KEY)
    assert seconds * 10 - 15 <= len(shown) <= seconds * 10  # at most a fragment and what was in memory
    assert says(back.coverage(0, 1))  # coverage needs no key


def test_fragments_cannot_be_moved() -> None:
    lock = seal.Lock(STATION.public_key(), ABOUT)
    one, two = lock.seal(1, b"first"), lock.seal(2, b"second")
    opener = KEY.opener(lock.token, ABOUT)
    assert (opener.open(1, one), opener.open(2, two)) == (b"first", b"second")
    for n, data in ((2, one), (1, two), (1, one[:-1] + bytes([one[-1] ^ 1])), (1, b"first"), (1, b""), (1, one[:30])):
        with pytest.raises(Corrupt, match="fragment"):
            opener.open(n, data)
    other = seal.Lock(STATION.public_key(), ABOUT)
    with pytest.raises(Corrupt):
        KEY.opener(other.token, ABOUT).open(1, one)
    for token in (lock.token[:-8], "", "AAAA", "é", lock.token[::-1]):
        with pytest.raises(Corrupt, match="another station's key"):
            KEY.opener(token, ABOUT)
    with pytest.raises(Corrupt, match="header was altered"):
        KEY.opener(lock.token, ABOUT + b"x")


def test_two_files_never_share_a_key(tmp_path: Path) -> None:
    """The same pictures twice give other bytes: a nonce is never used twice with a key."""
    one, two = (seal.Lock(STATION.public_key(), ABOUT) for _ in range(2))
    assert one.seal(1, b"x" * 100) != two.seal(1, b"x" * 100) and one.token != two.token


def test_a_header_without_a_seal_is_as_it_was(tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    post = post_on(disk, tmp_path, sealed=False)
    post.feed(encoded(seconds=3))
    post.stop()
    assert b"sealed" not in disk.content("segments/000001-00000000.mp4")[:2000]
    with disk.open("segments/000001-00000000.mp4") as file:
        found = scan(file)
    assert found.header is not None and found.header.sealed == ""


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
def test_a_key_that_is_named_by_mistake_is_not_read_to_its_end(name: str) -> None:
    """`--key /dev/zero`, or the film instead of the key: the command took all memory that there was."""
    path, mib = Path(name), 1 << 20
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + 256 * mib, before[1]))
    try:
        for read in (seal.private_key, seal.station_key, keys.private_key, trusted_key, _public_key):
            with pytest.raises(ConfigError):
                read(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _public_key(path: Path) -> bytes:
    return keys.public_key("uplink.station_key", str(path))


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * 4096


def test_keys_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    public, private, wrong = tmp_path / "station.pub", tmp_path / "station.pem", tmp_path / "wrong.pem"
    public.write_bytes(STATION.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    private.write_bytes(STATION.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    other = Ed25519PrivateKey.generate()
    wrong.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    lock = seal.Lock(seal.station_key(public), ABOUT)
    assert seal.private_key(private).opener(lock.token, ABOUT).open(1, lock.seal(1, b"x")) == b"x"
    for path in (private, tmp_path / "none"):
        with pytest.raises(ConfigError, match=r"recording\.seal_key: .* no public key can be read there"):
            seal.station_key(path)
    with pytest.raises(ConfigError, match="no private key can be read there"):
        seal.private_key(public)
    with pytest.raises(ConfigError, match="not an X25519 key"):
        seal.private_key(wrong)
    wrong.write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ConfigError, match="openssl genpkey -algorithm X25519"):
        seal.station_key(wrong)
