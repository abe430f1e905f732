"""`wardpost watch`: words for the person on duty, and lines for a program."""

from __future__ import annotations

import datetime as dt
import json
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from agent import wire
from agent.errors import ConfigError, WardpostError
from agent.station.intake import EventIn
from agent.station.reader import Reader
from agent.station.store import Batch, Reject, StationStore
from agent.station.watch import Watcher, follow, say_change, say_event
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.unit.test_station import EPOCH, event, uid

HANOI = dt.timezone(dt.timedelta(hours=7))


def changed(**changes: object) -> wire.CloudEvent:
    fields = {name: getattr(event(1), name) for name in event(1).__struct_fields__}
    data = {name: getattr(fields["data"], name) for name in fields["data"].__struct_fields__}
    for name, value in changes.items():
        (data if name in data else fields)[name] = value
    fields["data"] = wire.EventData(**data)
    return wire.CloudEvent(**fields)


def test_an_alert_says_when_how_sure_where_and_what() -> None:
    one = changed(
        place="Lane 12", zones=["gate"], score=0.71, label="person", summary="A person at the gate, 71 % sure."
    )
    line = "21.11.2026 14:02:11 ±3 s  ALERT at Lane 12 (gate-2): A person at the gate, 71 % sure"
    assert say_event("gate-2", "person", one, 0, HANOI) == line

    terse = changed(place="Lane 12", zones=["gate"], score=0.71, label="person", summary="")
    line = "21.11.2026 14:02:11 ±3 s  ALERT at Lane 12 (gate-2): person started; zone gate; 71% sure"
    assert say_event("gate-2", "person", terse, 0, HANOI) == line, "a node that sends no sentence"


def test_what_comes_late_says_so() -> None:
    assert say_event("gate-2", "person", changed(historical=True), 0, HANOI).endswith("[DELIVERED LATE]")


def test_a_clock_that_nobody_vouches_for_is_not_shown_as_right() -> None:
    assert "14:02:11 (clock not verified)" in say_event("gate-2", "person", changed(timeerrms=None), 0, HANOI)
    assert "yesterday (not a time)" in say_event("gate-2", "person", changed(time="yesterday"), 0, HANOI)


def test_a_bell_is_a_call_for_help_and_an_end_is_an_end() -> None:
    assert "HELP CALL at post gate-2" in say_event("gate-2", "bell", changed(severity="bell"), 0, HANOI)
    over = changed(phase="ended", since="2026-11-21T07:02:01Z")
    assert "Over at post gate-2" in say_event("gate-2", "person", over, 0, HANOI)
    at_once = changed(phase="ended", since=over.time)  # something that happened in one moment
    assert "ALERT at post gate-2" in say_event("gate-2", "storage", at_once, 0, HANOI)


def test_a_silent_post_is_named_with_the_time_it_was_last_heard() -> None:
    line = say_change("gate-2", "dark", 1_700_000_300 * 10**9, 1_700_000_000 * 10**9, HANOI)
    assert line == "15.11.2023 05:18:20  Post gate-2 IS SILENT: no sign of life since 15.11.2023 05:13:20"


def fill(database: Database) -> StationStore:
    store = StationStore(database.folder, clock=FakeClock(), site="ward-7", database=database.setting)
    store.open()
    body = wire.encode(event(1))
    picture = EventIn("gate-2", EPOCH, 2, uid(2), "thumbnail", uid(9), body)
    strange = EventIn("gate-2", EPOCH, 3, uid(3), "dance", None, b'{"a":1}')
    taken = [EventIn("gate-2", EPOCH, 1, uid(1), "person", uid(9), body), picture, strange]
    store.commit(Batch(taken=list(taken), rejects=[Reject("wardpost/x", "not part of the contract", b"")]))
    store.change([("gate-2", "dark", 0)])
    return store


def test_watching_shows_each_thing_once_and_only_what_is_new(tmp_path: Path, database: Database) -> None:
    store = fill(database)
    reader = Reader(tmp_path, database=database.setting)
    reader.open()
    watcher = Watcher(reader, as_json=False, zone=HANOI)
    said: list[str] = []
    follow(watcher, say=said.append, stop=threading.Event(), clock=FakeClock(), once=True)
    assert ["ALERT" in said[0], "'dance'" in said[1], "IS SILENT" in said[2], "Refused" in said[3]] == [True] * 4
    assert list(watcher.lines()) == []
    late = Watcher(reader, as_json=False)
    late.from_now()
    store.commit(Batch(taken=[EventIn("gate-2", EPOCH, 4, uid(4), "person", uid(9), wire.encode(event(4)))]))
    assert len(list(late.lines())) == 1
    reader.close()
    store.close()


def test_json_is_one_object_a_line_with_the_event_as_it_came(tmp_path: Path, database: Database) -> None:
    store = fill(database)
    reader = Reader(tmp_path, database=database.setting)
    reader.open()
    lines = [json.loads(line) for line in Watcher(reader, as_json=True).lines()]
    assert [line["kind"] for line in lines] == ["event", "event", "event", "node", "reject"]
    assert lines[0]["event"] == json.loads(wire.encode(event(1)))
    assert lines[2]["event"] == {"a": 1}
    reader.close()
    store.close()


def test_watching_nothing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a station running on this data folder"):
        Reader(tmp_path).open()


def held_open(path: Path) -> int:
    """How many descriptors of this process are of that file."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own
            found += link.readlink() == path
    return found


def test_a_reader_that_finds_no_station_in_the_file_lets_go_of_it(tmp_path: Path) -> None:
    """The demo's viewer asks again and again while the station is just making its file."""
    path = tmp_path / "station.db"
    path.write_bytes(b"")
    reader = Reader(tmp_path)
    for _ in range(3):
        with pytest.raises(WardpostError):
            reader.open()
        assert held_open(path) == 0
    path.unlink()
    store = StationStore(tmp_path, clock=FakeClock(), site="ward-7")
    store.open()
    store.close()
    reader.open()
    one = held_open(path)
    reader.open()
    assert held_open(path) == one > 0, "open again is open once"
    reader.close()
    assert held_open(path) == 0
