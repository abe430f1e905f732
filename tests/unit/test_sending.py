"""Footage at headquarters' word: held at once, the right files, alerts first, and a cut anywhere loses and doubles nothing."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import tus, wire
from agent.clock import rfc3339
from agent.config import Config, RecordingSettings, SendingSettings
from agent.disk import Disk
from agent.errors import ConfigError, Corrupt, Transient
from agent.recording.holds import HoldDesk
from agent.recording.timeline import Timeline
from agent.sending import plan
from agent.sending.address import parse_address
from agent.sending.carrier import Carrier, chunk_bytes
from agent.sending.clip_errand import ClipErrand
from agent.sending.clips import Around
from agent.sending.plan import Book, Sending
from agent.sending.worker import FootageSender
from agent.types import NS, EndReason, Event, Kind, Phase, Priority, Segment, TimeAnchor
from agent.worker import FOREVER_S
from tests.fakes.clock import FakeClock
from tests.fakes.depot import FakeDepot
from tests.fakes.disk import FakeDisk, PowerCut, cut_at
from tests.fakes.packets import encoded
from tests.fakes.recording_post import RecordingPost, closed_posts  # noqa: F401

UTC = 1_700_000_000 * NS
ID = "01890000-0000-7000-8000-00000000000{}"


class Relevant:
    """Marks of a test's own."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    def catch_up(self) -> bool:
        return True

    def touches(self, segment: Segment) -> bool:
        return segment.name in self.names


class Post:
    """A node that has recorded ten seconds in files of two, its holds, and its sender."""

    def __init__(self, folder: Path, disk: Disk, depot: FakeDepot | None, *, clock: FakeClock | None = None) -> None:
        self.post = RecordingPost(disk, folder, clock=clock).boot()
        self.disk = disk
        self.clock = self.post.clock
        self.depot = depot
        self.relevant = Relevant()
        self.alerts = False
        self.noted: list[bytes] = []
        self.replies: list[wire.Reply] = []
        self.clips: ClipErrand | None = None
        self.holds = HoldDesk(
            book=self.post.store,
            clock=self.clock,
            settings=RecordingSettings(budget_gb=1.0),
            new_id=self.post.new_id,
            writing=lambda: self.post.recorder.state.writing,
            bitrate_kbps=1000,
        )
        self.boot()

    def boot(self) -> None:
        """The sender of the next life."""
        self.sender = FootageSender(
            depot=self.depot,
            carrier=Carrier(self.disk, chunk_bytes=chunk_bytes(50_000.0)),
            clips=self.clips,
            disk=self.disk,
            index=self.post.store,
            marks=self.relevant,
            holds=self.holds,
            clock=self.clock,
            bytes_per_s_max=50_000.0,
            writing=lambda: self.post.recorder.state.writing,
            alerts_wait=lambda: self.alerts,
            pictures_wait=lambda: False,
            note=self.noted.append,
            reply=self.replies.append,
        )
        self.sender.open()

    def record(self, seconds: float = 10.0) -> list[Segment]:
        self.post.feed(encoded(seconds=seconds))
        return self.post.store.segments()

    def ask(self, n: int = 1, *, start: float = 0, end: float = 60, **more: Any) -> dict[str, Any]:
        asked = {
            "id": ID.format(n), "from": rfc3339(UTC + round(start * NS)), "to": rfc3339(UTC + round(end * NS)),
            "reason": "accident",
        }  # fmt: skip
        return self.sender.take(asked | more)

    def work(self, steps: int = 400) -> None:
        """As the supervisor does, until the sender has nothing more to do."""
        for _ in range(steps):
            at = self.sender.step(self.clock.boot_ns() / NS)
            if at >= self.clock.boot_ns() / NS + FOREVER_S - 1:
                return
            self.clock.advance(max(at - self.clock.boot_ns() / NS, 0.0) + 1e-6)  # a float is coarser than the clock

    def order(self, n: int = 1) -> Sending:
        found = msgspec.json.decode(self.disk.open("sending.json").read(), type=Book).find(ID.format(n))
        assert found is not None
        return found

    def content(self, segment: Segment) -> bytes:
        with self.disk.open(segment.name) as file:
            return file.read()


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path, FakeDisk(root=tmp_path), FakeDepot())


def test_an_order_is_held_sent_byte_for_byte_put_on_record_and_released(post: Post) -> None:
    assert post.depot is not None
    segments = post.record()
    post.post.recorder.close()
    segments = post.post.store.segments()
    told = post.ask()
    assert told["pending"] is True
    (hold,) = post.holds.in_force()
    assert (hold.id, hold.reason, hold.asker) == (ID.format(1), "accident", "headquarters")
    post.work()
    assert post.holds.in_force() == []
    for segment in segments:
        assert bytes(post.depot.files[segment.sha256]) == post.content(segment)
    (reply,) = post.replies
    assert (reply.id, reply.state, reply.result["files"]) == (ID.format(1), "done", len(segments))
    (noted,) = [msgspec.json.decode(one) for one in post.noted]
    assert noted["files"] == len(segments)
    assert noted["bytes"] == sum(segment.bytes for segment in segments)
    assert noted["order"] == ID.format(1)
    again = post.ask()
    assert not again["pending"], "asked again, it tells that it is done"
    assert "at headquarters" in again["summary"]
    post.work()
    assert len(post.replies) == 1
    assert sum(length for _, _, length in post.depot.chunks) == noted["bytes"], "no byte twice"


def test_only_the_range_and_what_is_around_an_alert_first(post: Post) -> None:
    assert post.depot is not None
    segments = post.record()
    post.relevant.names = {segments[2].name}
    post.ask(start=2.5, end=7.5)
    post.post.recorder.close()
    post.clock.advance(60)
    post.work()
    order = list(dict.fromkeys(name for name, _, _ in post.depot.chunks))
    assert order[0] == segments[2].name
    assert order[1:] == sorted(order[1:])
    assert segments[0].name not in order


def test_it_waits_for_the_rest_of_the_range_and_the_file_in_progress(post: Post) -> None:
    post.record(seconds=5.0)
    post.ask(start=0, end=8)
    post.work(steps=60)
    assert post.order().state == "open"
    assert post.replies == []
    post.clock.advance(30)
    post.work(steps=60)
    assert post.order().state == "open", "the file in progress belongs to the range"
    post.post.recorder.close()
    post.work()
    assert post.order().state == "done"
    assert post.depot is not None
    assert set(post.depot.files) == {segment.sha256 for segment in post.post.store.segments()}


def test_nothing_is_sent_while_an_alert_waits_and_the_budget_is_kept(post: Post) -> None:
    assert post.depot is not None
    post.record()
    post.post.recorder.close()
    post.ask()
    post.alerts = True
    post.work(steps=50)
    assert post.depot.chunks == []
    assert post.depot.names == {}, "not even offered"
    post.alerts = False
    began_ns = post.clock.boot_ns()
    post.work()
    seconds = (post.clock.boot_ns() - began_ns) / NS
    sent = sum(length for _, _, length in post.depot.chunks)
    assert sent / seconds <= 50_000 * 1.01 + 1
    assert max(length for _, _, length in post.depot.chunks) <= 100_000, "no alert waits behind more than two seconds"


def test_what_was_ordered_goes_before_the_clips_of_alerts_and_is_none_of_their_budget(post: Post) -> None:
    assert post.depot is not None
    post.record()
    post.post.recorder.close()
    segments = post.post.store.segments()
    post.clips = ClipErrand(
        least="alert",
        around=Around(before_ns=0, after_ns=1, incident_ns=0),
        day_bytes=segments[0].bytes,
        disk=post.disk,
        index=post.post.store,
        clock=post.clock,
        chunk_bytes=2_000,
        writing=lambda: None,
        note=post.noted.append,
    )
    post.boot()
    for n, at_s in enumerate((1, 9), start=1):
        event = Event(
            incident=f"00000000-0000-7000-8000-00000000000{n}", kind=Kind.PERSON, phase=Phase.ENDED,
            boot_ns=(1_000 + at_s) * NS, priority=Priority.ALERT,
        )  # fmt: skip
        post.post.store.commit([event])
    while not post.depot.chunks:
        post.clock.advance(1)
        post.sender.step(post.clock.boot_ns() / NS)
    begun = post.depot.chunks[0][0]
    assert begun == segments[4].name, "the newest alert"
    post.ask(start=4.5, end=5.5)
    for _ in range(60):
        post.clock.advance(1)
        post.sender.step(post.clock.boot_ns() / NS)
    order = list(dict.fromkeys(name for name, _, _ in post.depot.chunks[1:]))
    assert order[0] == segments[2].name, "an order goes first, even when a clip was begun"
    assert order[1] == begun
    assert set(order) == {segments[2].name, begun}, "and the other clip waits for its budget, which the order has not"
    assert {segment.sha256 for segment in (segments[2], segments[4])} == set(post.depot.files)


def test_power_cut_at_every_step_of_the_disk_and_the_network(tmp_path: Path) -> None:
    """The disk, the station and the order survive; the sender begins anew. SQLite's own cuts are the simulator's."""
    step = 0
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        disk, depot = FakeDisk(root=folder), FakeDepot()
        post = Post(folder, disk, depot)
        post.record(seconds=4.0)
        post.post.recorder.close()
        segments = post.post.store.segments()
        crash = cut_at(step)
        disk.crash_point, depot.before, depot.after = crash, crash, crash
        cut = False
        try:
            post.ask()
            post.work()
        except PowerCut:
            cut = True
        disk.crash_point, depot.before, depot.after = (lambda _step: None,) * 3
        disk.power_cut(random.Random(step).randrange)
        post.boot()
        post.ask()  # the station asks until it has heard an answer
        post.work()
        assert post.order().state == "done", f"step {step}"
        for segment in segments:
            assert bytes(depot.files[segment.sha256]) == post.content(segment), f"step {step}"
        assert sum(length for _, _, length in depot.chunks) == sum(one.bytes for one in segments), f"step {step}: twice"
        assert post.holds.in_force() == [], f"step {step}"
        assert len(post.noted) in (1, 2), f"step {step}"
        post.post.store.close()
        if not cut:
            break
        step += 1
    assert step > 15


def test_a_network_that_comes_and_goes_costs_time_only(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    depot = FakeDepot()

    def flaky(_what: str) -> None:
        if rng.random() < 0.4:
            raise Transient("send: connection reset")

    depot.before = depot.after = flaky
    post = Post(tmp_path, FakeDisk(root=tmp_path), depot)
    post.record()
    post.post.recorder.close()
    post.ask()
    post.work(steps=4_000)
    assert post.order().state == "done"
    for segment in post.post.store.segments():
        assert bytes(depot.files[segment.sha256]) == post.content(segment)


def test_a_file_that_is_lost_unreadable_or_refused_does_not_stop_the_others(post: Post) -> None:
    assert isinstance(post.disk, FakeDisk)
    assert post.depot is not None
    post.record()
    post.post.recorder.close()
    segments = post.post.store.segments()
    post.disk.unlink(segments[0].name)
    post.disk.truncate(segments[1].name, segments[1].bytes - 10)
    post.depot.refused.add(segments[2].name)
    post.ask()
    post.work()
    order = post.order()
    assert order.state == "done"
    assert order.files == len(segments) - 3
    assert [entry.partition(": ")[0] for entry in order.failed] == [one.name for one in segments[:3]]
    for words in ("not there any more", "shorter than its record", "413"):
        assert any(words in entry for entry in order.failed)
    assert "3 could not be sent" in order.detail


def test_a_card_that_cannot_be_read_is_tried_some_times(post: Post) -> None:
    assert isinstance(post.disk, FakeDisk)
    post.record(seconds=2.0)
    post.post.recorder.close()
    post.ask()
    post.disk.fail("open", times=3)
    post.work()
    assert post.order().failed == ()
    assert post.order().state == "done"


def test_what_is_no_order_is_refused_and_holds_nothing(post: Post) -> None:
    for wrong in (
        {"from": "yesterday"},
        {"to": None},
        {"reason": ""},
        {"to": rfc3339(UTC - NS)},
        {"to": rfc3339(UTC + plan.RANGE_NS_MAX + NS)},
        {"id": "x"},
    ):
        with pytest.raises(Corrupt):
            post.ask(**wrong)
        assert all(hold.id == "x" for hold in post.holds.in_force())
    assert not [name for name in post.disk.list("") if name == "sending.json"]


def test_too_many_orders_at_once(post: Post) -> None:
    ids = (f"01890000-0000-7000-8000-{n:012x}" for n in itertools.count(1))
    for order_id in itertools.islice(ids, plan.ORDERS_MAX):
        post.ask(id=order_id)
    with pytest.raises(ConfigError, match="16 orders are at work"):
        post.ask(id=next(ids))


def test_a_post_that_has_no_address_says_so(tmp_path: Path) -> None:
    post = Post(tmp_path, FakeDisk(root=tmp_path), None)
    with pytest.raises(ConfigError, match=r"sending\.url"):
        post.ask()
    assert post.holds.in_force() == []
    assert post.sender.step(5.0) == 5.0 + FOREVER_S


def test_an_order_that_does_not_come_to_an_end_is_given_up_and_lets_go(post: Post) -> None:
    assert post.depot is not None
    post.record(seconds=2.0)

    def away(_what: str) -> None:
        raise Transient("send: no route to host")

    post.depot.before = away
    post.ask()
    post.work(steps=20)
    post.clock.advance(plan.LIFE_NS / NS)
    post.work()
    assert post.order().state == "failed"
    assert post.holds.in_force() == []
    assert post.replies[-1].state == "failed"
    with pytest.raises(Corrupt, match="within 30 days"):
        post.ask()


def test_a_damaged_state_file_costs_that_the_station_asks_again(post: Post) -> None:
    assert isinstance(post.disk, FakeDisk)
    post.record(seconds=2.0)
    post.post.recorder.close()
    post.ask()
    for data in (b"", b"{", b'{"v": 2, "orders": []}', b"\xff" * 50):
        post.disk.put("sending.json", data)
        post.boot()
        assert post.ask()["pending"] is True
    post.work()
    assert post.order().state == "done"


# -- pure --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 200), st.sampled_from(["open", "done", "failed"])), max_size=300))
def test_the_book_is_bounded_and_forgets_no_open_order(puts: list[tuple[int, str]]) -> None:
    book, last = Book(), {}
    for n, state in puts:
        order_id = f"01890000-0000-7000-8000-{n:012x}"
        order = Sending(id=order_id, start_utc_ns=0, end_utc_ns=1, reason="r", made_utc_ns=0, state=state)  # type: ignore[arg-type]
        book, last[order_id] = book.put(order), state
        assert sum(one.state != "open" for one in book.orders) <= plan.FINISHED_MAX
        assert len({one.id for one in book.orders}) == len(book.orders)
    assert {one.id for one in book.open} == {one for one, state in last.items() if state == "open"}


def numbered(n: int) -> Segment:
    name = f"segments/000001-{n:08d}.mp4"
    return Segment(name, 1, "f" * 32, n * NS, (n + 1) * NS, 9, 1, "0" * 64, EndReason.ROLLED, 96, 64)


@pytest.mark.parametrize(
    ("anchors", "expected"),
    [
        ([(0, 0, 5)], [4, 5, 6]),
        ([(0, 0, 5), (20, 3620, 5)], [4, 5, 6]),  # the clock was set an hour on, after somebody had asked
        ([(0, 0, 2 * NS)], [2, 3, 4, 5, 6, 7, 8]),
        ([(0, 0, None)], [5]),  # nobody vouches for it: by its label, or the file in progress would be wanted for ever
    ],
)
def test_a_file_goes_by_every_time_that_it_has_gone_by(
    anchors: list[tuple[int, int, int | None]], expected: list[int]
) -> None:
    order = Sending(id=ID.format(1), start_utc_ns=5 * NS, end_utc_ns=6 * NS, reason="r", made_utc_ns=0)
    timeline = Timeline([TimeAnchor("f" * 32, at * NS, utc * NS, unc, "ntp") for at, utc, unc in anchors])
    found = plan.wanted(order, [numbered(n) for n in range(10)], timeline, lambda _: False)
    assert found == [numbered(n) for n in expected]


def test_an_order_ends_where_nobody_vouches_for_the_clock(tmp_path: Path) -> None:
    """The sandbox of the first end-to-end test was such a machine, and sent whatever it recorded, for ever."""
    disk = FakeDisk(root=tmp_path)
    clock = FakeClock(unc_ns=None)
    post = Post(tmp_path, disk, FakeDepot(), clock=clock)
    post.record(seconds=5.0)
    post.ask(start=0, end=3)
    post.work(steps=60)
    assert post.order().state == "done"
    assert post.order().files == 2


@pytest.mark.parametrize(
    "url", ["", "hq", "http://hq.example", "ftp://x", "https://", "https://h:99999", "https://h/x", "https://h?x=1"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"sending\.url"):
        parse_address(url)


def test_addresses() -> None:
    assert parse_address("https://hq.example:8444").port == 8444
    assert parse_address("https://[::1]:8444").host == "::1"
    assert not parse_address("http://127.0.0.1:1").tls


def test_metadata_is_read_back() -> None:
    footage = tus.Footage(name="segments/000001-00000001.mp4", sha256="a" * 64, order=ID.format(1))
    assert tus.footage_of(tus.metadata(footage)) == footage


def test_by_default_nothing_is_sent() -> None:
    assert SendingSettings().url == ""
    assert msgspec.structs.fields(Config)
