"""What came is held against the node's ledger: verified, waiting for its line, or an alarm; and never lost.

The footage and the ledger are made by the node's own parts; the lines come to the station as they do over MQTT.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent import tus
from agent.disk import PosixDisk
from agent.errors import ConfigError, Transient
from agent.evidence import dsse, records, standalone
from agent.remote import send
from agent.station import uploads_clerk
from agent.station.archive import name_of
from agent.station.archive.local import LocalArchive
from agent.station.db import migrate
from agent.station.db.engine import open_engine
from agent.station.footage_list import listed
from agent.station.intake import RecordIn
from agent.station.ledgers import ALARM
from agent.station.main import BrokerSettings, DeskSettings, StationSettings
from agent.station.orders import OrderBook
from agent.station.store import Batch, StationStore
from agent.station.uploads_clerk import Clerk
from agent.station.uploads_judge import Arrived, Recorded, State, examine, judge
from agent.station.uploads_settings import UploadsSettings
from agent.station.uploads_staging import FOLDER, Staging
from agent.types import NS
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.fakes.disk import FakeDisk, PowerCut, cut_at
from tests.fakes.evidence_post import EvidencePost
from tests.fakes.packets import encoded
from tests.fakes.recording_post import SOURCE, closed_posts  # noqa: F401
from tests.fakes.uploads_desk import LIMITS, NODE, SITE

ORDER = "00000000-0000-7000-8000-000000000001"


class Station:
    """The half of a station that takes in lines and footage, on a database and a disk of its own."""

    def __init__(
        self, database: Database, *, disk: FakeDisk | None = None, archive_disk: FakeDisk | None = None
    ) -> None:
        self.clock = FakeClock()
        self.disk = disk or FakeDisk()
        self.database = database
        self.archive_disk = archive_disk or FakeDisk()
        self.store = StationStore(
            database.folder, clock=self.clock, site=SITE, database=database.setting, free_bytes=lambda _folder: 1 << 40
        )
        self.store.open()
        self._sequence = 0
        self.engine = open_engine(self.database.url)
        self.boot()

    def boot(self) -> None:
        """The half that takes footage starts anew."""
        self.engine.dispose()  # its connections end with it
        self.engine = open_engine(self.database.url)
        migrate.upgrade(self.engine)
        self.staging = Staging(self.disk, clock=self.clock, limits=LIMITS)
        self.staging.open()
        self.archive = LocalArchive(self.archive_disk, free_bytes_min=0)
        self.clerk = Clerk(
            staging=self.staging, archive=self.archive, engine=self.engine, clock=self.clock, site=SITE,
            line_rows_max=1000,
        )  # fmt: skip

    def hear(self, lines: Sequence[bytes]) -> None:
        """Lines of the ledger arrive."""
        taken = []
        for line in lines:
            self._sequence += 1
            taken.append(RecordIn(NODE, "e1", self._sequence, line))
        self.store.commit(Batch(taken=list(taken)))

    def bring(
        self,
        name: str,
        data: bytes,
        *,
        announced: str = "",
        order: str = ORDER,
        why: tus.Reason = "order",
        step: bool = True,
    ) -> str:
        """A file comes whole; returns its digest."""
        sha256 = announced or hashlib.sha256(data).hexdigest()
        upload = self.staging.create(NODE, len(data), tus.Footage(name=name, sha256=sha256, order=order, why=why))
        at = self.staging.offset(upload)[0]
        while at < len(data):
            at = self.staging.append(upload, at, data[at : at + 50_000])
        if step:
            self.clerk.step()
        return hashlib.sha256(data).hexdigest()

    def rows(self) -> list[tuple[object, ...]]:
        return self.database.rows("select name, sha256, state, seq, detail from footage order by n")

    def states(self) -> list[object]:
        return [row[2] for row in self.rows()]

    def alarms(self) -> list[str]:
        """What `wardpost watch` is told, and the row by which alarms are counted."""
        told = [str(row[0]) for row in self.database.rows("select reason from reject order by n")]
        counted = self.database.rows("select count from alarm where what = 'altered-footage'")
        assert bool(counted) == any("altered-footage" in text for text in told)
        return told

    def told(self) -> list[str]:
        return [str(row[0]) for row in self.database.rows("select reason from reject order by n")]

    def archived(self, sha256: str) -> bytes:
        size = self.archive.size(name_of(NODE, sha256))
        assert size is not None
        return self.archive.read(name_of(NODE, sha256), 0, size)

    def close(self) -> None:
        self.engine.dispose()
        self.store.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> EvidencePost:
    post = EvidencePost(tmp_path_factory.mktemp("post"))
    post.feed(encoded(seconds=6.0))
    post.seal()
    return post


@pytest.fixture
def station(database: Database) -> Iterator[Station]:
    made = Station(database)
    yield made
    made.close()


def files(post: EvidencePost) -> list[tuple[str, bytes]]:
    return [
        (path.relative_to(post.folder).as_posix(), path.read_bytes()) for path in sorted(post.folder.glob("segments/*"))
    ]


def lines(post: EvidencePost) -> list[bytes]:
    found = [path.read_bytes().split(b"\n")[:-1] for path in sorted((post.folder / "ledger").glob("[0-9]*.jsonl"))]
    return [line for one in found for line in one]


def test_what_was_recorded_is_verified_and_names_its_record(made: EvidencePost, station: Station) -> None:
    station.hear(lines(made))
    for name, data in files(made):
        sha256 = station.bring(name, data)
        assert station.archived(sha256) == data
    assert station.states() == ["verified"] * len(files(made))
    for _, expected, _, seq, _ in station.rows():
        (line,) = [one for one in lines(made) if records.read(dsse.parse(one)).seq == seq]
        assert records.read(dsse.parse(line)).body["sha256"] == expected
    assert station.alarms() == []
    assert station.disk.list(FOLDER) == []
    (name, data), *_ = files(made)
    assert station.clerk.kept(NODE, hashlib.sha256(data).hexdigest()) == len(data)
    assert station.clerk.kept("cam-2", hashlib.sha256(data).hexdigest()) is None


def test_footage_that_is_here_before_its_line_waits_for_it(made: EvidencePost, station: Station) -> None:
    for name, data in files(made):
        station.bring(name, data)
    assert set(station.states()) == {"pending"}
    assert station.alarms() == []
    for line in lines(made):
        station.hear([line])
        station.clerk.step()
    assert set(station.states()) == {"verified"}
    assert station.alarms() == []


@pytest.mark.parametrize("first", ["footage", "ledger"])
def test_one_bit_is_an_alarm_and_the_file_is_kept_as_evidence(made: EvidencePost, station: Station, first: str) -> None:
    name, data = files(made)[0]
    altered = bytearray(data)
    altered[len(data) // 2] ^= 1
    if first == "ledger":
        station.hear(lines(made))
    sha256 = station.bring(name, bytes(altered))
    station.hear(lines(made))
    station.clerk.step()
    assert station.states() == ["mismatch"]
    (told,) = station.alarms()
    assert told.startswith(f"{ALARM}: altered-footage: {name} is not what the node has recorded")
    assert "its contents do not match their hash" in told
    assert station.archived(sha256) == bytes(altered), "the evidence is not thrown away"
    assert station.clerk.kept(NODE, hashlib.sha256(data).hexdigest()) is None
    station.bring(name, data)
    assert station.states() == ["mismatch", "verified"], "the right file may still come"


def test_a_file_that_proves_itself_and_is_not_the_recorded_one_is_found_when_its_line_comes(
    made: EvidencePost, station: Station
) -> None:
    """Cut behind a fragment: each fragment is whole and right, and yet a part is gone."""
    name, data = files(made)[0]
    seen = examine(io.BytesIO(data), len(data))
    assert not seen.problem

    shorter = data[: standalone.scan(standalone.View(io.BytesIO(data), 0, len(data))).fragments[-1].offset]
    assert not examine(io.BytesIO(shorter), len(shorter)).problem
    station.bring(name, shorter)
    assert station.states() == ["pending"]
    station.hear(lines(made))
    station.clerk.step()
    assert station.states() == ["mismatch"]
    assert "says of the file that begins there" in station.alarms()[0]


def test_swapped_files_foreign_files_and_what_is_no_footage(made: EvidencePost, station: Station) -> None:
    station.hear(lines(made))
    (one, first), (_, second), *_ = files(made)
    station.bring(one, second, announced=hashlib.sha256(first).hexdigest())
    assert station.states() == ["mismatch"]
    assert "it is what record" in station.alarms()[0]
    junk = random.Random(1).randbytes(10_000)
    station.bring(one, junk)
    other = first.replace(SOURCE.encode(), b"wardpost/hoa-cuong/cam-9")
    station.bring(one, other)
    assert station.states() == ["mismatch"] * 3
    assert len(station.alarms()) == 1, "one alarm of a kind in ten minutes, with its count"
    assert station.database.rows("select count from alarm where what = 'altered-footage'") == [(3,)]


def test_sealed_footage_stays_sealed(tmp_path: Path, station: Station) -> None:
    post = EvidencePost(tmp_path / "post", seal=X25519PrivateKey.generate().public_key())
    post.feed(encoded(seconds=3.0))
    post.seal()
    station.hear(lines(post))
    for name, data in files(post):
        assert station.archived(station.bring(name, data)) == data
    assert set(station.states()) == {"verified"}
    assert {row[0] for row in station.database.rows("select sealed from footage")} == {1}


def test_the_same_file_twice_is_kept_once(made: EvidencePost, station: Station) -> None:
    station.hear(lines(made))
    name, data = files(made)[0]
    for _ in range(2):
        station.bring(name, data)
    assert len(station.rows()) == 1


def test_power_cut_at_every_step_of_taking_in_loses_and_doubles_nothing(made: EvidencePost, tmp_path: Path) -> None:
    """The cut hits staging and archive alike; the database is SQLite, whose own promise is tested elsewhere."""
    name, data = files(made)[0]
    folder = tmp_path / "station"
    folder.mkdir()
    disk = FakeDisk()
    station = Station(Database("sqlite", folder, ""), disk=disk, archive_disk=disk)
    station.hear(lines(made))
    step = 0
    while True:
        rng = random.Random(9_000 + step)
        for left in disk.list(NODE):
            disk.unlink(left)
        station.database.run("delete from footage")
        station.bring(name, data, step=False)
        disk.crash_point = cut_at(step)
        cut = False
        try:
            station.clerk.step()
        except PowerCut:
            cut = True
        disk.crash_point = lambda _step: None
        disk.power_cut(rng.randrange)
        station.engine.dispose()
        station.boot()
        here = station.rows()
        assert here or station.staging.complete(), f"step {step}: the footage is gone"
        station.clerk.step()
        assert station.states() == ["verified"], f"step {step}"
        assert station.archived(hashlib.sha256(data).hexdigest()) == data, f"step {step}"
        assert disk.list(FOLDER) == [], f"step {step}"
        if not cut:
            break
        step += 1
    assert step > 8
    station.close()


def test_a_full_archive_is_waited_for(made: EvidencePost, database: Database) -> None:
    archive = FakeDisk()
    station = Station(database, archive_disk=archive)
    station.hear(lines(made))
    name, data = files(made)[0]
    archive.fill(free_bytes=10)
    station.bring(name, data)
    assert station.rows() == []
    assert len(station.staging.complete()) == 1, "it stays where it is"
    archive.fill(free_bytes=1 << 30)
    station.clerk.step()
    assert station.states() == ["verified"]
    station.close()


def test_a_disk_of_uploads_that_cannot_be_read_is_waited_for(made: EvidencePost, station: Station) -> None:
    station.hear(lines(made))
    name, data = files(made)[0]
    station.bring(name, data, step=False)
    station.disk.fail("open")
    assert station.clerk.step() > 1
    assert station.rows() == []
    station.clerk.step()
    assert station.states() == ["verified"]


def test_the_list_tells_what_was_asked_what_is_here_and_what_is_wrong_with_it(
    made: EvidencePost, station: Station, tmp_path: Path
) -> None:
    settings = StationSettings(
        station=DeskSettings(
            site=SITE, id="hq", data=str(station.database.folder), database=station.database.setting,
            command_key=str(_command_key(tmp_path)),
        ),
        broker=BrokerSettings(brokers=("mqtt://hq:1883",)),
        uploads=UploadsSettings(listen="127.0.0.1:8444"),
    )  # fmt: skip
    said: list[str] = []
    asked = {"from": "2026-11-21T14:00:00+07:00", "to": "2026-11-21T15:00:00+07:00", "reason": "theft"}
    assert listed(settings, [NODE], as_json=False, out=said.append) == 0
    assert said.pop() == "no footage was asked for"
    with pytest.raises(ConfigError, match="ends before it begins"):
        send(
            settings,
            [NODE],
            asked | {"to": asked["from"]},
            wait_s=0,
            as_json=False,
            clock=station.clock,
            out=said.append,
        )
    with pytest.raises(ConfigError, match="--reason"):
        send(settings, [NODE], asked | {"reason": " "}, wait_s=0, as_json=False, clock=station.clock, out=said.append)
    assert send(settings, [NODE], asked, wait_s=0, as_json=False, clock=station.clock, out=said.append) == 0
    assert said.pop().startswith(f"{NODE}: queued, for it was never heard here")
    book = OrderBook(station.engine)
    book.open()
    (order,) = book.of(NODE)
    book.close()
    station.hear(lines(made))
    (one, first), (two, second), *_ = files(made)
    station.bring(one, first, order=order.id)
    assert listed(settings, [NODE], as_json=False, out=said.append) == 0
    assert "1 files" in said[-1] and "1 as recorded, 0 wait for their record, 0 NOT" in said[-1]
    station.bring(two, second[:-1] + bytes([second[-1] ^ 1]), order=order.id)
    assert listed(settings, [NODE], as_json=False, out=said.append) == 1
    assert "1 NOT as recorded" in said[-1] and f"{two}: no record knows it" in said[-1]
    assert listed(settings, [NODE], as_json=True, out=said.append) == 1
    (row,) = json.loads(said[-1])
    assert [kept["state"] for kept in row["files"]] == ["verified", "mismatch"]
    assert station.archive.size(row["files"][0]["archive"]) == len(first)


def _command_key(folder: Path) -> Path:
    path = folder / "command.key"
    key = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


# -- the rule ----------------------------------------------------------------------------------------------------------


def arrived(sha256: str = "a" * 64, *, problem: str = "", source: str = SOURCE) -> Arrived:
    return Arrived(sha256, 10, source, "f" * 32, 5, 6, 7, sealed=False, problem=problem)


@pytest.mark.parametrize(
    ("found", "announced", "said", "expected"),
    [
        (arrived(), "a" * 64, [Recorded("r", 4, "a" * 64)], State.VERIFIED),
        (arrived(), "a" * 64, [Recorded("r", 5, "b" * 64), Recorded("r", 4, "a" * 64)], State.VERIFIED),  # resealed
        (arrived(), "a" * 64, [], State.PENDING),
        (arrived(), "a" * 64, [Recorded("r", 4, "b" * 64)], State.MISMATCH),
        (arrived(), "b" * 64, [Recorded("r", 4, "a" * 64)], State.MISMATCH),
        (arrived(), "b" * 64, [], State.MISMATCH),
        (arrived(problem="cut off"), "a" * 64, [], State.MISMATCH),
        (arrived(problem="cut off"), "a" * 64, [Recorded("r", 4, "a" * 64)], State.VERIFIED),  # recorded as it is
        (arrived(source="wardpost/x/y"), "a" * 64, [], State.MISMATCH),
    ],
)
def test_the_rule(found: Arrived, announced: str, said: list[Recorded], expected: State) -> None:
    assert judge(found, source=SOURCE, announced=announced, lines=said).state is expected


def test_nothing_that_a_file_says_raises(made: EvidencePost, seed: int) -> None:
    rng = random.Random(seed)
    _, data = files(made)[0]
    for _ in range(300):
        hurt = bytearray(data[: rng.randrange(1, len(data))])
        for _ in range(rng.randrange(1, 30)):
            hurt[rng.randrange(min(len(hurt), 2_000))] = rng.randrange(256)
        examine(io.BytesIO(bytes(hurt)), len(hurt))


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def crafted(said: Mapping[str, object], *, last: tuple[int, int] = (1, 10)) -> bytes:
    """A file whose hashes are all right, and that says what no recorder does; `last`: the times of its fragment."""
    told = {"source": SOURCE, "boot_id": "a" * 32, "start_ns": 1, "utc_ns": 1_700_000_000 * NS} | dict(said)
    header = standalone._HEADER_UUID + json.dumps(told).encode()
    data = box(b"ftyp", b"isom0000") + box(b"moov", b"x") + box(b"uuid", header)
    chain = hashlib.sha256(data).digest()
    body = box(b"moof", b"a") + box(b"mdat", b"b")
    size, digest = standalone._TRAILER_BYTES, hashlib.sha256(body).digest()
    raw = standalone._TRAILER.pack(size, b"uuid", standalone._TRAILER_UUID, 1, 1, 1, len(body), *last, digest)
    return data + body + raw + hashlib.sha256(chain + raw).digest()


TIMES = (-(2**63), -1, 0, 2**62 + 1, 2**63 - 1, 2**63, 10**40, True, 1.5, None, "1")
NAMES = ("\ud800" * 32, "\0" * 32, "\x1b[2J" + "a" * 28, "A" * 32, "", [1], {"a": 1}, None, 7)


def test_what_a_post_says_of_its_file_that_cannot_be_is_an_alarm_and_stops_nothing(
    station: Station, made: EvidencePost
) -> None:
    assert examine(io.BytesIO(crafted({})), len(crafted({}))).problem == "", "what is crafted well proves itself"
    hostile = [crafted({"boot_id": name}) for name in NAMES] + [crafted({"source": name}) for name in NAMES]
    hostile += [crafted({"start_ns": time}) for time in TIMES[:2] + TIMES[3:]] + [
        crafted({"utc_ns": time}) for time in TIMES[3:7]
    ]
    hostile += [crafted({}, last=last) for last in ((-(2**63), 2**63 - 1), (0, 2**63 - 1), (1, -5))]
    hostile.append(crafted({"start_ns": -(2**63)}, last=(0, 2**63 - 1)))
    for n, data in enumerate(hostile):
        station.bring(f"segments/000001-{n:08}.mp4", data)
    assert station.states() == ["mismatch"] * len(hostile)
    assert station.database.rows("select count from alarm where what = 'altered-footage'") == [(len(hostile),)]
    station.hear(lines(made))
    name, data = files(made)[0]
    station.bring(name, data)
    assert station.states()[-1] == "verified"


def test_a_fault_of_ours_at_one_file_keeps_that_file_and_takes_the_others_in(
    station: Station, made: EvidencePost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (one, first), (two, second), *_ = files(made)
    station.hear(lines(made))

    def fails(source: BinaryIO, size: int) -> Arrived:
        if size == len(first):
            raise ZeroDivisionError
        return examine(source, size)

    with monkeypatch.context() as patch:
        patch.setattr(uploads_clerk, "examine", fails)
        station.bring(one, first)
        station.bring(two, second)
        for _ in range(3):
            station.clerk.step()
    assert [(row[0], row[2]) for row in station.rows()] == [(two, "verified")]
    told = [record for record in caplog.records if "cannot be taken in" in record.getMessage()]
    assert len(told) == 1, "not at every look"
    assert any("cannot be taken in" in text for text in station.told())
    station.boot()  # a release that is mended
    station.clerk.step()
    assert sorted(str(row[0]) for row in station.rows()) == sorted([one, two])


def test_the_archive_that_a_station_has_by_default(tmp_path: Path) -> None:
    from agent.station.archive.making import ArchiveSettings, make_archive

    archive = make_archive(ArchiveSettings(free_gb_min=0.0), tmp_path)
    archive.put(
        name_of(NODE, hashlib.sha256(b"x").hexdigest()),
        io.BytesIO(b"x"),
        size=1,
        sha256=hashlib.sha256(b"x").hexdigest(),
    )
    assert PosixDisk(tmp_path / "archive").list(NODE)
    with pytest.raises(Transient, match="free_gb_min"):
        make_archive(ArchiveSettings(free_gb_min=100_000.0), tmp_path).put(
            name_of(NODE, "0" * 64), io.BytesIO(b"y"), size=1, sha256="0" * 64
        )
