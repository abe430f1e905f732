"""What a node may rely on in a station's depot: the fake of the unit tests, and the real address over a real socket."""

from __future__ import annotations

import hashlib
import random
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import tus
from agent.disk import PosixDisk
from agent.errors import Corrupt, Transient
from agent.sending import Depot
from agent.sending.address import parse_address
from agent.sending.depot import HttpDepot
from tests.fakes.clock import FakeClock
from tests.fakes.depot import FakeDepot
from tests.fakes.uploads_desk import NODE, SITE, desk, key_file

ORDER = "00000000-0000-7000-8000-000000000001"


@dataclass(frozen=True)
class Tried:
    """A depot, another one by the same node, and what the station then has of a file."""

    depot: Depot
    again: Callable[[], Depot]
    has: Callable[[str], bytes]


@pytest.fixture(params=["fake", "real"])
def tried(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tried]:
    if request.param == "fake":
        fake = FakeDepot()
        yield Tried(fake, lambda: fake, lambda sha256: bytes(fake.files[sha256]))
        return
    (tmp_path / "station").mkdir()
    clock = FakeClock()
    with desk(PosixDisk(tmp_path / "station"), clock) as there:
        key = key_file(tmp_path / "keys", there.ward)
        made: list[HttpDepot] = []

        def new() -> Depot:
            depot = HttpDepot(
                parse_address(f"http://127.0.0.1:{there.port}"), clock=clock, site=SITE, node=NODE, key=key,
                context=ssl.create_default_context,
            )  # fmt: skip
            made.append(depot)
            return depot

        def has(sha256: str) -> bytes:
            (info,) = [one for one in there.staging.complete() if one.footage.sha256 == sha256]
            with there.staging.content(info) as file:
                return file.read()

        yield Tried(new(), new, has)
        for depot in made:
            depot.close()


def file(size: int, seed: int = 1) -> tuple[bytes, tus.Footage]:
    data = random.Random(seed).randbytes(size)
    name = f"segments/000001-{seed:08d}.mp4"
    return data, tus.Footage(name=name, sha256=hashlib.sha256(data).hexdigest(), order=ORDER)


def send_all(depot: Depot, footage: tus.Footage, data: bytes, chunk: int, until: int | None = None) -> int:
    at = depot.offer(footage, len(data))
    while at < (len(data) if until is None else until):
        at = depot.send(footage, at, data[at : at + chunk])
    return at


def test_a_file_in_chunks(tried: Tried) -> None:
    data, footage = file(2_500_000)
    assert send_all(tried.depot, footage, data, tus.CHUNK_BYTES_MAX) == len(data)
    assert tried.has(footage.sha256) == data


def test_it_goes_on_where_it_broke_off(tried: Tried) -> None:
    data, footage = file(500_000)
    assert send_all(tried.depot, footage, data, 100_000, until=200_000) == 200_000
    other = tried.again()
    assert other.offer(footage, len(data)) == 200_000
    send_all(other, footage, data, 70_000)
    assert tried.has(footage.sha256) == data


def test_what_is_there_is_not_sent_again(tried: Tried) -> None:
    data, footage = file(10_000)
    send_all(tried.depot, footage, data, 10_000)
    assert tried.again().offer(footage, len(data)) == len(data)


def test_a_chunk_at_another_offset_is_not_taken(tried: Tried) -> None:
    data, footage = file(10_000)
    tried.depot.offer(footage, len(data))
    with pytest.raises(Transient, match="409"):
        tried.depot.send(footage, 5_000, data[5_000:])
    assert tried.depot.offer(footage, len(data)) == 0
    send_all(tried.depot, footage, data, 3_000)
    with pytest.raises(Transient, match="409"):
        tried.depot.send(footage, 0, data[:100])
    assert tried.has(footage.sha256) == data


def test_more_than_was_announced_is_refused(tried: Tried) -> None:
    data, footage = file(10_000)
    tried.depot.offer(footage, len(data))
    with pytest.raises(Corrupt, match="413"):
        tried.depot.send(footage, 0, data + b"x")


def test_another_size_under_the_same_digest_is_not_the_same_file(tried: Tried) -> None:
    _, footage = file(10_000)
    tried.depot.offer(footage, 10_000)
    with pytest.raises(Transient, match="409"):
        tried.depot.offer(footage, 10_001)
