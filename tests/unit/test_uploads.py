"""Footage on its way in: no byte that was acknowledged is lost, none that did not come appears, and nobody gets in."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent import tus
from agent.disk import PosixDisk
from agent.errors import Corrupt, Transient
from agent.site import authority
from agent.station.uploads_access import TOKEN_S, Access
from agent.station.uploads_staging import FOLDER, Info, Limits, NotTaken, Staging, Why
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk, PowerCut, cut_at
from tests.fakes.uploads_desk import LIMITS, NODE, SITE, Desk, Ward, desk, life_ns

ORDER = "00000000-0000-7000-8000-000000000001"
MB = 1_000_000


def file(size: int, seed: int = 1) -> tuple[bytes, tus.Footage]:
    data = random.Random(seed).randbytes(size)
    name = f"segments/000001-{seed:08d}.mp4"
    return data, tus.Footage(name=name, sha256=hashlib.sha256(data).hexdigest(), order=ORDER)


def opened(disk: FakeDisk, clock: FakeClock | None = None, limits: Limits = LIMITS) -> Staging:
    staging = Staging(disk, clock=clock or FakeClock(), limits=limits)
    staging.open()
    return staging


def content(staging: Staging, info: Info) -> bytes:
    with staging.content(info) as source:
        return source.read()


# -- on the disk -------------------------------------------------------------------------------------------------------


def test_power_cut_at_every_step_keeps_what_was_acknowledged_and_nothing_that_did_not_come() -> None:
    data, footage = file(9_000)
    step = 0
    while True:
        seed = 7_000 + step
        rng = random.Random(seed)
        disk = FakeDisk()
        disk.crash_point = cut_at(step)
        acknowledged, cut = -1, False
        try:
            staging = opened(disk)
            upload = staging.create(NODE, len(data), footage)
            acknowledged = 0
            while acknowledged < len(data):
                acknowledged = staging.append(upload, acknowledged, data[acknowledged : acknowledged + 4_000])
        except PowerCut:
            cut = True
        disk.crash_point = lambda _step: None
        disk.power_cut(rng.randrange)

        after = opened(disk)
        at = after.offset(after.create(NODE, len(data), footage))[0]
        assert at >= max(acknowledged, 0), f"step {step}, seed {seed}: an acknowledged byte is gone"
        while at < len(data):
            at = after.append(tus.upload_id(NODE, footage.sha256), at, data[at : at + 2_500])
        (info,) = after.complete()
        assert content(after, info) == data, f"step {step}, seed {seed}"
        after.remove(info.id)
        assert disk.list(FOLDER) == [], f"step {step}, seed {seed}: something is left over"
        if not cut:
            break
        step += 1
    assert step > 15, "the cuts did not reach the chunks"


@pytest.mark.parametrize("op", ["write", "sync"])
def test_a_disk_that_fails_is_not_believed_and_the_chunk_comes_again(op: str) -> None:
    data, footage = file(9_000)
    disk = FakeDisk()
    staging = opened(disk)
    upload = staging.create(NODE, len(data), footage)
    staging.append(upload, 0, data[:3_000])
    disk.fail(op)
    with pytest.raises(Transient):
        staging.append(upload, 3_000, data[3_000:6_000])
    assert staging.offset(upload) == (3_000, 9_000)
    staging.append(upload, 3_000, data[3_000:])
    disk.power_cut(lambda _n: 0)  # what a failed sync has forgotten is gone for good
    after = opened(disk)
    (info,) = after.complete()
    assert content(after, info) == data


def test_a_bit_that_rots_on_the_way_costs_the_chunks_behind_it_only() -> None:
    data, footage = file(9_000)
    disk = FakeDisk()
    staging = opened(disk)
    upload = staging.create(NODE, len(data), footage)
    for at in range(0, 9_000, 3_000):
        staging.append(upload, at, data[at : at + 3_000])
    disk.flip(f"{FOLDER}/{upload}.part", 8 * 4_000)
    after = opened(disk)
    assert after.offset(upload)[0] == 3_000
    after.append(upload, 3_000, data[3_000:])
    (info,) = after.complete()
    assert content(after, info) == data


def test_what_no_node_was_told_of_is_cleared_away_at_the_start() -> None:
    disk = FakeDisk()
    disk.list(FOLDER)
    data, footage = file(100)
    for name in ("x.part", "x.json", f"{NODE}.{footage.sha256}.part", "cam-2.json.tmp"):
        disk.put(f"{FOLDER}/{name}", b"{")
    staging = opened(disk)
    assert disk.list(FOLDER) == []
    upload = staging.create(NODE, 100, footage)
    assert staging.append(upload, 0, data) == 100


def test_the_bounds() -> None:
    clock = FakeClock()
    limits = Limits(file_bytes_max=1_000, open_per_node_max=2, room_bytes_max=3_500, free_bytes_min=5_000, expire_s=60)
    disk = FakeDisk(capacity_bytes=1 << 20)
    staging = opened(disk, clock, limits)

    def refused(node: str, size: int, seed: int) -> Why:
        with pytest.raises(NotTaken) as caught:
            staging.create(node, size, file(10, seed)[1])
        return caught.value.why

    assert refused("cam-1", 1_001, 1) is Why.TOO_LARGE
    first = staging.create("cam-1", 1_000, file(10, 1)[1])
    staging.create("cam-1", 1_000, file(10, 2)[1])
    assert refused("cam-1", 1_000, 3) is Why.TOO_MANY
    assert staging.create("cam-1", 1_000, file(10, 1)[1]) == first, "the same again is the same"
    staging.create("cam-2", 1_000, file(10, 4)[1])
    assert refused("cam-3", 1_000, 5) is Why.NO_ROOM, "what is announced counts, sent or not"
    disk.fill(free_bytes=5_100)
    assert refused("cam-3", 200, 6) is Why.NO_ROOM, "the disk keeps its free room"
    clock.advance(30)
    staging.append(first, 0, b"x")
    clock.advance(31)
    assert sorted(one.footage.name for one in staging.expire()) == [file(10, 2)[1].name, file(10, 4)[1].name]
    assert staging.offset(first) == (1, 1_000), "it was touched meanwhile"
    clock.advance(61)
    assert [one.id for one in staging.expire()] == [first]
    assert disk.list(FOLDER) == []


def test_what_is_whole_does_not_expire() -> None:
    clock = FakeClock()
    staging = opened(FakeDisk(), clock)
    data, footage = file(10)
    staging.append(staging.create(NODE, 10, footage), 0, data)
    clock.advance(LIMITS.expire_s * 10)
    assert staging.expire() == []
    assert len(staging.complete()) == 1


def test_the_content_can_be_read_from_anywhere() -> None:
    data, footage = file(10_000)
    staging = opened(FakeDisk())
    upload = staging.create(NODE, len(data), footage)
    rng = random.Random(3)
    at = 0
    while at < len(data):
        at = staging.append(upload, at, data[at : at + rng.randrange(1, 900)])
    (info,) = staging.complete()
    with staging.content(info) as source:
        for _ in range(200):
            start, count = rng.randrange(11_000), rng.randrange(3_000)
            source.seek(start)
            assert source.read(count) == data[start : start + count]


# -- who may -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ward(clock: FakeClock) -> Ward:
    return Ward(clock.utc().utc_ns)


def access(ward: Ward, clock: FakeClock) -> Access:
    return Access(clock=clock, site=SITE, known=ward.known)


def test_who_holds_the_key_of_a_good_certificate_gets_a_token_for_a_while(ward: Ward, clock: FakeClock) -> None:
    door = access(ward, clock)
    grant = door.grant(ward.proof(door.challenge(tus.Ask(node=NODE))))
    assert door.node_of(grant.token) == NODE
    assert door.node_of(grant.token + "x") is None
    clock.advance(TOKEN_S + 1)
    assert door.node_of(grant.token) is None


def test_a_challenge_is_good_once_for_one_node_and_a_minute(ward: Ward, clock: FakeClock) -> None:
    door = access(ward, clock)
    challenge = door.challenge(tus.Ask(node=NODE))
    proof = ward.proof(challenge)
    door.grant(proof)
    with pytest.raises(Corrupt, match="used before"):
        door.grant(proof)
    with pytest.raises(Corrupt, match="another node"):
        door.grant(ward.proof(door.challenge(tus.Ask(node="cam-2"))))
    with pytest.raises(Corrupt, match="none of this station"):
        access(ward, clock).grant(ward.proof(challenge))
    late = ward.proof(door.challenge(tus.Ask(node=NODE)))
    clock.advance(tus.CHALLENGE_S)
    with pytest.raises(Corrupt, match="older than 60 s"):
        door.grant(late)
    for junk in ("", "????", "AAAA", base64.urlsafe_b64encode(b"x" * 40).decode(), "é" * 10):
        with pytest.raises(Corrupt):
            door.grant(msgspec.structs.replace(late, challenge=junk))


def test_another_key_is_nobody(ward: Ward, clock: FakeClock) -> None:
    door = access(ward, clock)
    with pytest.raises(Corrupt, match="bad-proof"):
        door.grant(ward.proof(door.challenge(tus.Ask(node=NODE)), key=authority.new_key()))
    ward.row = Ward(ward.now_ns).row  # the register knows another key
    with pytest.raises(Corrupt, match="has no certificate"):
        door.grant(ward.proof(door.challenge(tus.Ask(node=NODE))))


@pytest.mark.parametrize("how", ["certificate revoked", "post revoked", "provisioned again", "unknown", "expired"])
def test_whom_the_register_does_not_honour_gets_nothing(ward: Ward, clock: FakeClock, how: str) -> None:
    door = access(ward, clock)
    match how:
        case "certificate revoked":
            ward.revoked_utc_ns = ward.now_ns
        case "post revoked":
            ward.state = "revoked"
        case "provisioned again":
            ward.generation = 2
        case "unknown":
            proof = ward.proof(door.challenge(tus.Ask(node=NODE)))
            ward.node = "cam-9"
            with pytest.raises(Corrupt, match="unknown-post"):
                door.grant(proof)
            return
        case _:
            clock.advance(life_ns(authority.NODE_DAYS + 31) / 1e9)
    with pytest.raises(Corrupt, match="expired" if how == "expired" else "revoked"):
        door.grant(ward.proof(door.challenge(tus.Ask(node=NODE))))


# -- over a real socket ------------------------------------------------------------------------------------------------


@pytest.fixture
def there(tmp_path: Path, clock: FakeClock) -> Iterator[Desk]:
    with desk(PosixDisk(tmp_path), clock) as made:
        yield made


class Client:
    """Says what it is told to say."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.token = ""

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._desk.port, timeout=20)
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            told = {"Authorization": f"Bearer {self.token}", "Tus-Resumable": "1.0.0"} | told
        try:
            connection.request(method, path, body=body, headers=told)
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.headers.items()}, answer.read()
        finally:
            connection.close()

    def enter(self) -> None:
        _, _, body = self.ask("POST", tus.CHALLENGE, json.dumps({"node": NODE}).encode())
        proof = self._desk.ward.proof(tus.decode(body, tus.Challenge))
        status, _, body = self.ask("POST", tus.TOKEN, msgspec.json.encode(proof))
        assert status == 200, body
        self.token = tus.decode(body, tus.Grant).token

    def create(self, footage: tus.Footage, size: int, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return self.ask(
            "POST", tus.FILES, b"", **{"Upload_Length": str(size), "Upload_Metadata": tus.metadata(footage)} | headers
        )

    def patch(self, path: str, offset: int, data: bytes, **headers: str) -> int:
        return self.ask(
            "PATCH", path, data, **{"Upload_Offset": str(offset), "Content_Type": tus.OFFSET_TYPE} | headers
        )[0]


@pytest.fixture
def client(there: Desk) -> Client:
    made = Client(there)
    made.enter()
    return made


def test_tus_as_its_specification_says(client: Client, there: Desk) -> None:
    status, told, _ = client.ask("OPTIONS", tus.FILES)
    assert status == 204
    assert told["tus-version"] == told["tus-resumable"] == "1.0.0"
    assert told["tus-extension"] == "creation,checksum,expiration"
    assert told["tus-checksum-algorithm"] == "sha256"
    assert told["tus-max-size"] == str(LIMITS.file_bytes_max)
    data, footage = file(5_000)
    status, told, _ = client.create(footage, 5_000)
    assert status == 201
    path = told["location"]
    assert told["upload-expires"].endswith("GMT")
    status, told, _ = client.ask("HEAD", path)
    assert (status, told["upload-offset"], told["upload-length"]) == (200, "0", "5000")
    assert told["cache-control"] == "no-store"
    good = tus.checksum(hashlib.sha256(data[:2_000]).digest())
    assert client.patch(path, 0, data[:1_999] + b"!", Upload_Checksum=good) == 460
    assert client.ask("HEAD", path)[1]["upload-offset"] == "0", "nothing of a wrong chunk counts"
    assert client.patch(path, 0, data[:2_000], Upload_Checksum=good) == 204
    assert client.patch(path, 0, data[:2_000]) == 409
    assert client.patch(path, 2_000, data[2_000:], Content_Type="text/plain") == 415
    assert client.patch(path, 2_000, data[2_000:] + b"x") == 413
    assert client.patch(path, 2_000, data[2_000:], Upload_Checksum="md5 AAAA") == 400
    assert client.patch(path, 2_000, data[2_000:]) == 204
    (info,) = there.staging.complete()
    assert content(there.staging, info) == data
    assert client.create(footage, 5_000)[1]["location"] == path, "the same file is the same upload"


def test_what_the_archive_has_is_whole_without_a_byte(client: Client, there: Desk) -> None:
    _, footage = file(5_000)
    there.archived[NODE, footage.sha256] = 5_000
    status, told, _ = client.create(footage, 5_000)
    assert status == 201
    assert client.ask("HEAD", told["location"])[1]["upload-offset"] == "5000"
    assert there.staging.complete() == []
    assert client.create(footage, 4_999)[0] == 409


def test_without_a_token_nothing_is_told(there: Desk) -> None:
    stranger = Client(there)
    _, footage = file(100)
    path = f"{tus.FILES}/{tus.upload_id(NODE, footage.sha256)}"
    assert stranger.create(footage, 100)[0] == 401
    assert stranger.ask("HEAD", path)[0] == 401
    assert stranger.patch(path, 0, b"x") == 401
    stranger.token = "x" * 40
    assert stranger.create(footage, 100)[0] == 401
    assert there.staging.complete() == []


def test_a_node_has_its_own_uploads_only_and_no_name_is_a_path(client: Client, tmp_path: Path) -> None:
    _, footage = file(100)
    others = tus.upload_id("cam-2", footage.sha256)
    for path in (others, "..", "..%2f..%2fetc%2fpasswd", "cam-1", f"{NODE}.{'0' * 63}", f"{NODE}.{'0' * 64}", "%00"):
        assert client.ask("HEAD", f"{tus.FILES}/{path}")[0] == 404, path
        assert client.patch(f"{tus.FILES}/{path}", 0, b"x") == 404, path
    for name in ("../../etc/passwd", "segments/../x.mp4", "segments/000001-00000001.mp4\n", "", "x" * 5000):
        pairs = {"name": name, "sha256": footage.sha256, "order": ORDER}
        text = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())
        assert client.create(footage, 100, Upload_Metadata=text)[0] == 400, name
    for text in ("name", "name ????", "\x01", ",,,", "name " + base64.b64encode(b"\xff").decode()):
        assert client.create(footage, 100, Upload_Metadata=text)[0] == 400, text
    assert list((tmp_path / FOLDER).iterdir()) == []


@pytest.mark.parametrize("size", ["", "0", "-1", "1e9", "1_000", "٣", "9" * 16, str(LIMITS.file_bytes_max + 1)])
def test_a_size_that_is_none_or_too_large(client: Client, size: str) -> None:
    try:
        status = client.create(file(10)[1], 0, Upload_Length=size)[0]
    except UnicodeEncodeError:
        return  # not even a header
    assert status in (400, 413)


def test_bodies_are_bounded_whatever_they_say_of_themselves(client: Client, there: Desk) -> None:
    data = bytes(tus.CHUNK_BYTES_MAX + 1)
    footage = tus.Footage(name="segments/000001-00000001.mp4", sha256=hashlib.sha256(data).hexdigest(), order=ORDER)
    path = client.create(footage, len(data))[1]["location"]
    assert client.patch(path, 0, data) == 413
    assert client.ask("HEAD", path)[1]["upload-offset"] == "0"
    assert client.ask("POST", tus.CHALLENGE, b'{"node": "' + b"a" * 10_000)[0] == 413
    for body in (b"", b"[]", b"{", b'{"node": "../x"}', b"\xff\xfe", b"[" * 4_000):
        assert client.ask("POST", tus.CHALLENGE, body)[0] == 400
        assert client.ask("POST", tus.TOKEN, body)[0] == 400


def test_a_connection_that_breaks_in_the_middle_of_a_chunk_costs_that_chunk(client: Client, there: Desk) -> None:
    import socket

    data, footage = file(200_000)
    path = client.create(footage, len(data))[1]["location"]
    assert client.patch(path, 0, data[:50_000]) == 204
    with socket.create_connection(("127.0.0.1", there.port)) as raw:
        raw.sendall(
            f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\nTus-Resumable: 1.0.0\r\n"
            f"Content-Type: {tus.OFFSET_TYPE}\r\nUpload-Offset: 50000\r\nContent-Length: 150000\r\n\r\n".encode()
            + data[50_000:120_000]
        )
    assert client.ask("HEAD", path)[1]["upload-offset"] == "50000"
    assert client.patch(path, 50_000, data[50_000:]) == 204


def test_a_full_station_says_later_and_takes_it_then(client: Client, there: Desk, tmp_path: Path) -> None:
    paths = [client.create(file(10, n)[1], 10)[0] for n in range(1, LIMITS.open_per_node_max + 2)]
    assert paths == [201] * LIMITS.open_per_node_max + [429]
    status, told, _ = client.create(file(10, 99)[1], 10)
    assert (status, told["retry-after"]) == (429, "30")
    data, footage = file(10, 1)
    assert client.patch(f"{tus.FILES}/{tus.upload_id(NODE, footage.sha256)}", 0, data) == 204
    assert client.create(file(10, 99)[1], 10)[0] == 201
