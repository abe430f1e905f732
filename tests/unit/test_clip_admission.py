"""Which footage a post may bring: what was asked of it, what belongs to an alert of it; nothing else, and not too much.

The footage, the ledger and the events are made by the node's own parts.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine

from agent import tus, wire
from agent.disk import PosixDisk
from agent.errors import Corrupt, Transient
from agent.evidence import records
from agent.sending.address import parse_address
from agent.sending.depot import HttpDepot
from agent.station import uploads_rows as rows
from agent.station.db.engine import reading
from agent.station.intake import EventIn
from agent.station.orders import OrderBook
from agent.station.store import Batch
from agent.station.uploads_admission import DAY_NS, Admission, Daily, Facts, decide
from agent.station.uploads_rows import Filed, Moment
from agent.station.uploads_staging import NotTaken, Why
from agent.types import NS, Event, Kind, Phase, Priority
from tests.fakes.evidence_post import EvidencePost
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.fakes.uploads_desk import NODE, SITE, desk, key_file
from tests.unit.test_uploads import Client
from tests.unit.test_uploads_clerk import ORDER, Station, files, lines, station  # noqa: F401

ALERT, VISIT, OTHER = (f"01890000-0000-7000-8000-00000000000{n}" for n in (1, 2, 3))
DAILY = Daily(bytes_max=10_000_000, clip_bytes_max=1_000_000)


@dataclass(frozen=True)
class Made:
    """A post, and what it has told."""

    post: EvidencePost
    told: list[tuple[int, wire.CloudEvent]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Six seconds in files of two; an alert at three; a visit that alarmed nobody; what its ledger says of the clip."""
    post = EvidencePost(tmp_path_factory.mktemp("post"))
    post.feed(encoded(seconds=6.0))
    told = [(ALERT, Phase.STARTED, Priority.ALERT), (ALERT, Phase.ENDED, Priority.NOTICE)]
    for incident, phase, priority in [*told, (VISIT, Phase.STARTED, Priority.NOTICE)]:
        event = Event(incident=incident, kind=Kind.PERSON, phase=phase, boot_ns=1_003 * NS, priority=priority)
        post.post.store.commit([event])
    body = records.body(to="station", why="alert", order=ALERT, files=1, bytes=5, not_sent="2 could not be sent")
    post.extraction(body)
    post.extraction(records.body(to="station", order=ORDER, files=3, bytes=9))  # of an order
    post.seal()
    return Made(post, post.post.store.told_after(0, 100))  # its store is closed with the first test


def hear_events(station: Station, made: Made) -> None:  # noqa: F811
    """The post's events arrive."""
    taken = [
        EventIn(NODE, event.epoch, n, event.id, "person", event.data.incident, wire.encode(event))
        for n, event in made.told
    ]  # fmt: skip
    station.store.commit(Batch(taken=list(taken)))


def admission(station: Station, daily: Daily = DAILY) -> Admission:  # noqa: F811
    return Admission(engine=station.engine, clock=station.clock, daily=daily)


def clip(name: str, data: bytes, incident: str = ALERT) -> tus.Footage:
    return tus.Footage(name=name, sha256=hashlib.sha256(data).hexdigest(), order=incident, why="alert")


def order(engine: Engine, node: str = NODE, verb: str = "send", command: str = ORDER) -> None:
    """A person asks for footage."""
    signed = wire.Command(id=command, verb=verb, expires="2026-02-01T00:00:00Z")
    book = OrderBook(engine)
    book.open()
    book.add(node, signed, asked_utc_ns=0, expires_utc_ns=1)
    book.close()


def refused(door: Admission, footage: tus.Footage, size: int, node: str = NODE) -> Why | None:
    try:
        door.check(node, size, footage, [])
    except NotTaken as error:
        return error.why
    return None


def test_a_file_of_an_alert_is_taken_once_alert_and_line_are_here_and_by_that_post_only(
    made: Made,
    station: Station,  # noqa: F811
) -> None:
    door = admission(station)
    name, data = files(made.post)[1]
    footage = clip(name, data)
    assert refused(door, footage, len(data)) is Why.NOT_ASKED, "no such alert"
    hear_events(station, made)
    assert refused(door, footage, len(data)) is Why.NOT_YET, "its line is not here"
    station.hear(lines(made.post))
    station.clerk.step()
    assert refused(door, footage, len(data)) is None
    assert refused(door, footage, len(data) + 1) is Why.NOT_ASKED, "the line says how many bytes"
    assert refused(door, clip(name, data, VISIT), len(data)) is Why.NOT_ASKED, "a visit that alarmed nobody"
    assert refused(door, clip(name, data, OTHER), len(data)) is Why.NOT_ASKED
    assert refused(door, clip(name, data + b"!"), len(data) + 1) is Why.NOT_YET, "what no line tells of"
    assert refused(door, footage, len(data), node="cam-2") is Why.NOT_ASKED, "another post's alert"
    closed = admission(station, replace(DAILY, clip_bytes_max=0))
    assert refused(closed, footage, len(data)) is Why.NOT_ASKED, "a station that takes none"


def test_an_order_opens_the_door_to_the_post_that_was_asked_and_to_no_other(
    made: Made,
    station: Station,  # noqa: F811
) -> None:
    door = admission(station)
    name, data = files(made.post)[0]
    footage = tus.Footage(name=name, sha256=hashlib.sha256(data).hexdigest(), order=ORDER)
    assert refused(door, footage, len(data)) is Why.NOT_ASKED
    order(station.engine, verb="hold", command=OTHER)
    assert refused(door, msgspec.structs.replace(footage, order=OTHER), len(data)) is Why.NOT_ASKED, "a hold sends none"
    order(station.engine)
    assert refused(door, footage, len(data)) is None
    assert refused(door, footage, len(data), node="cam-2") is Why.NOT_ASKED
    assert refused(door, msgspec.structs.replace(footage, why="alert"), len(data)) is Why.NOT_ASKED


def test_a_day_has_its_end_whether_files_have_come_or_are_on_their_way_and_after_a_restart(
    made: Made,
    station: Station,  # noqa: F811
) -> None:
    hear_events(station, made)
    station.hear(lines(made.post))
    station.clerk.step()
    order(station.engine)
    (one, first), (two, second), *_ = files(made.post)
    daily = Daily(bytes_max=len(first) + len(second), clip_bytes_max=len(first) + len(second) - 1)
    door = admission(station, daily)
    station.staging.create(NODE, len(first), clip(one, first))
    with pytest.raises(NotTaken) as caught:
        door.check(NODE, len(second), clip(two, second), station.staging.announced(NODE))
    assert caught.value.why is Why.TOO_MUCH
    station.staging.append(tus.upload_id(NODE, clip(one, first).sha256), 0, first)
    station.clerk.step()
    assert station.staging.announced(NODE) == []
    station.boot()
    door = admission(station, daily)
    assert refused(door, clip(two, second), len(second)) is Why.TOO_MUCH, "it is counted in the archive as well"
    asked = tus.Footage(name=two, sha256=clip(two, second).sha256, order=ORDER)
    assert refused(door, asked, len(second)) is None, "what was asked for is not bounded by the clips"
    assert refused(admission(station, replace(daily, bytes_max=10)), asked, len(second)) is Why.TOO_MUCH
    station.clock.advance(DAY_NS / NS + 1)
    assert refused(door, clip(two, second), len(second)) is None, "another day"


def test_footage_that_came_for_an_alert_meets_a_later_order_too(
    made: Made,
    station: Station,  # noqa: F811
) -> None:
    hear_events(station, made)
    station.hear(lines(made.post))
    station.clerk.step()
    name, data = files(made.post)[1]
    station.bring(name, data, order=ALERT, why="alert")
    door = admission(station)
    asked = tus.Footage(name=name, sha256=hashlib.sha256(data).hexdigest(), order=ORDER)
    door.also(NODE, asked)
    with reading(station.engine) as db:
        assert rows.of_order(db, ORDER, 10) == [], "nobody has asked"
    order(station.engine)
    door.also(NODE, asked)
    door.also(NODE, asked)
    with reading(station.engine) as db:
        assert [one.name for one in rows.of_order(db, ORDER, 10)] == [name]
        assert [one.name for one in rows.of_order(db, ALERT, 10)] == [name]
        assert rows.received(db, NODE, 0, "alert") == len(data)
        assert rows.received(db, NODE, 0, "order") == 0


def test_what_a_post_says_of_its_clips_is_kept_the_newest_word_of_each(
    made: Made,
    station: Station,  # noqa: F811
) -> None:
    station.hear(lines(made.post))
    station.clerk.step()
    told = station.database.rows("select node, incident, files, bytes, not_sent from footage_clip")
    assert told == [(NODE, ALERT, 1, 5, "2 could not be sent")], "an order's line is none of a clip"


def test_the_nodes_driver_gives_up_what_may_never_come_and_waits_for_what_may(
    made: Made,
    station: Station,  # noqa: F811
    tmp_path: Path,
) -> None:
    hear_events(station, made)
    station.hear(lines(made.post))
    station.clerk.step()
    name, data = files(made.post)[0]
    with desk(PosixDisk(tmp_path), station.clock, admission=admission(station)) as there:
        depot = HttpDepot(
            parse_address(f"http://127.0.0.1:{there.port}"), clock=station.clock, site=SITE, node=NODE,
            key=key_file(tmp_path / "keys", there.ward), context=ssl.create_default_context,
        )  # fmt: skip
        with pytest.raises(Corrupt, match="403 no alert of this id"):
            depot.offer(clip(name, data, OTHER), len(data))
        with pytest.raises(Transient, match="409 its line of the ledger is not here yet"):
            depot.offer(clip(name, b"x"), 1)
        assert depot.offer(clip(name, data), len(data)) == 0
        assert depot.send(clip(name, data), 0, data) == len(data)
        depot.close()


@pytest.fixture
def served(made: Made, station: Station, tmp_path: Path) -> Iterator[Client]:  # noqa: F811
    hear_events(station, made)
    station.hear(lines(made.post))
    station.clerk.step()
    with desk(PosixDisk(tmp_path), station.clock, admission=admission(station)) as there:
        client = Client(there)
        client.enter()
        yield client


def test_over_the_socket_each_refusal_has_its_status(served: Client, made: Made) -> None:
    (name, data), (two, second), *_ = files(made.post)
    assert served.create(clip(name, data, OTHER), len(data))[0] == 403
    assert served.create(clip(name, b"x"), 1)[0] == 409
    status, told, _ = served.create(clip(name, data), len(data))
    assert status == 201
    assert served.patch(told["location"], 0, data) == 204
    assert served.create(clip(name, data), len(data))[0] == 201, "what was let in once may go on"
    assert served.create(clip(two, second), len(second))[0] == 201


# -- pure --------------------------------------------------------------------------------------------------------------

FILED = Filed("f" * 32, 100 * NS, 130 * NS, 1000)
FACTS = Facts(asked=False, alarms=[Moment("f" * 32, 110 * NS)], filed=FILED, bytes=0, clip_bytes=0)
CLIP = tus.Footage(name="segments/000001-00000001.mp4", sha256="a" * 64, order=ALERT, why="alert")


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (Moment("f" * 32, 110 * NS), None),
        (Moment("f" * 32, (100 - 360) * NS), None),
        (Moment("f" * 32, (130 + 360) * NS), None),
        (Moment("f" * 32, (130 + 361) * NS), Why.NOT_ASKED),
        (Moment("f" * 32, (100 - 361) * NS), Why.NOT_ASKED),
        (Moment("e" * 32, 110 * NS), Why.NOT_ASKED),
    ],
)
def test_a_file_lies_around_the_alert_in_the_boot_of_the_alert(moment: Moment, expected: Why | None) -> None:
    found = decide(CLIP, 1000, replace(FACTS, alarms=[moment]), DAILY)
    assert (None if found is None else found[0]) is expected


def test_the_node_never_wants_what_the_station_would_refuse_as_too_far() -> None:
    """`sending.clips_*_s` at their largest, against the contract."""
    last = replace(FACTS, alarms=[Moment("f" * 32, (100 - 60 - 300) * NS)])
    assert decide(CLIP, 1000, last, DAILY) is None


def test_metadata_of_a_node_of_before_is_that_of_an_order() -> None:
    old = tus.metadata(tus.Footage(name=CLIP.name, sha256=CLIP.sha256, order=ORDER)).split(",why ")[0]
    assert tus.footage_of(old).why == "order"
    assert tus.footage_of(tus.metadata(CLIP)) == CLIP
