"""Clips of alerts without an order: the seconds that matter first, within a budget, never before an alert or its picture,
and a power cut anywhere forgets none and sends nothing unpaid.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import wire
from agent.config import SendingSettings
from agent.errors import Transient
from agent.sending import clips
from agent.sending.carrier import Carrier
from agent.sending.clip_errand import STATE, ClipErrand
from agent.sending.clips import Around, Plan, Purse
from agent.sending.worker import FootageSender
from agent.types import NS, EndReason, Event, Kind, Phase, Priority, Segment
from tests.fakes.clock import FakeClock
from tests.fakes.depot import FakeDepot
from tests.fakes.disk import FakeDisk, PowerCut, cut_at
from tests.fakes.packets import encoded, shifted
from tests.fakes.recording_post import RecordingPost, closed_posts  # noqa: F401
from tests.unit.test_sending import Relevant

RATE, CHUNK_BYTES = 50_000.0, 4_000
AROUND = Around(before_ns=NS, after_ns=NS, incident_ns=20 * NS)
START_S = 1_000


class Nothing:
    """A HoldDesk that must not be asked: no clip holds anything."""

    def hold(self, args: dict[str, Any], asker: str) -> dict[str, Any]:
        raise AssertionError((args, asker))

    release = hold


class Post:
    """A node that has recorded twelve seconds in files of two, and has sent its alerts and pictures."""

    def __init__(
        self, folder: Path, disk: FakeDisk, depot: FakeDepot, *, least: clips.Severity | None = "alert"
    ) -> None:
        self.post = RecordingPost(disk, folder).boot()
        self.disk, self.depot, self.least = disk, depot, least
        self.clock: FakeClock = self.post.clock
        self.day_bytes = 1 << 30
        self.around = AROUND
        self.waiting_max = clips.WISHES_MAX
        self.noted: list[dict[str, Any]] = []
        self.note: Callable[[bytes], None] = lambda body: self.noted.append(msgspec.json.decode(body))
        self._ids = itertools.count(1)
        self.boot()

    def boot(self) -> None:
        """The sender of the next life."""
        errand = ClipErrand(
            least=self.least,
            around=self.around,
            day_bytes=self.day_bytes,
            disk=self.disk,
            index=self.post.store,
            clock=self.clock,
            chunk_bytes=CHUNK_BYTES,
            writing=lambda: self.post.recorder.state.writing,
            note=lambda body: self.note(body),  # noqa: PLW0108  (a test changes it)
            waiting_max=self.waiting_max,
        )
        self.sender = FootageSender(
            depot=self.depot,
            carrier=Carrier(self.disk, chunk_bytes=CHUNK_BYTES),
            clips=errand,
            disk=self.disk,
            index=self.post.store,
            marks=Relevant(),
            holds=Nothing(),
            clock=self.clock,
            bytes_per_s_max=RATE,
            writing=lambda: self.post.recorder.state.writing,
            alerts_wait=lambda: any(row.priority <= Priority.ALERT for row in self.post.store.pending(1)),
            pictures_wait=self.post.store.pictures_wait,
            note=self.note,
            reply=lambda reply: pytest.fail(str(reply)),
        )
        self.sender.open()

    def record(self, seconds: float = 12.0, start_s: float = START_S) -> list[Segment]:
        """Records, seals, and lets the rest of each incident pass."""
        self.post.feed(shifted(encoded(seconds=seconds), round((start_s - START_S) * NS)))
        self.post.recorder.close()
        self.clock.advance(60)
        return self.post.store.segments()

    def alert(
        self,
        at_s: float,
        *,
        until_s: float | None = None,
        priority: Priority = Priority.ALERT,
        incident: str = "",
        phase: Phase = Phase.STARTED,
        picture: bool = False,
        heard: bool = True,
    ) -> str:
        """Somebody came at `at_s` seconds of the recording, and left. `heard`: the station has all of it."""
        name = incident or f"01890000-0000-7000-8000-{next(self._ids):012x}"
        moments = [(at_s, phase)] + ([] if until_s is None else [(until_s, Phase.ENDED)])
        events = [
            Event(
                incident=name, kind=Kind.PERSON, phase=told, boot_ns=round((START_S + at) * NS), priority=priority,
                thumbnail=b"\xff\xd8" if picture else None,
            )
            for at, told in moments
        ]  # fmt: skip
        numbers = self.post.store.commit(events)
        if heard:
            self.post.store.acknowledge([(numbers[0], numbers[-1])])
        return name

    def hear(self) -> None:
        """The station acknowledges everything."""
        self.post.store.acknowledge([(1, self.post.store.newest_sequence())])

    def work(self, seconds: float = 40.0) -> None:
        """As the supervisor does, for so long."""
        until_s = self.now_s + seconds
        while True:
            at_s = self.sender.step(self.now_s)
            if at_s >= until_s:
                self.clock.advance(max(until_s - self.now_s, 0.0))
                return
            self.clock.advance(max(at_s - self.now_s, 0.0) + 1e-6)

    @property
    def now_s(self) -> float:
        return self.clock.boot_ns() / NS

    def order(self) -> list[str]:
        """The files that went, in the order in which they began."""
        return list(dict.fromkeys(name for name, _, _ in self.depot.chunks))

    def sent_bytes(self) -> int:
        return sum(length for _, _, length in self.depot.chunks)

    def plan(self) -> Plan:
        return msgspec.json.decode(self.disk.content(STATE), type=Plan)

    def whole(self, segment: Segment) -> bool:
        with self.disk.open(segment.name) as file:
            return bytes(self.depot.files.get(segment.sha256, b"")) == file.read()


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path, FakeDisk(root=tmp_path), FakeDepot())


def test_the_seconds_around_an_alert_go_first_then_the_rest_of_the_incident_and_nothing_else(post: Post) -> None:
    incident = post.alert(5.0, until_s=8.5)
    files = post.record()
    post.work()
    # files begin at 0, 2, 4, ... seconds: the moment of alarm lies in the third, a second around it touches no other
    assert post.order() == [files[2].name, files[3].name, files[4].name]
    assert all(post.whole(one) for one in files[2:5])
    (told,) = post.noted
    assert (told["to"], told["why"], told["order"], told["files"], told["not_sent"]) == (
        "station", "alert", incident, 3, "",
    )  # fmt: skip
    assert told["bytes"] == sum(one.bytes for one in files[2:5]) == post.sent_bytes()
    assert post.plan().wishes == ()
    post.work()
    assert len(post.noted) == 1, "one record of one alert"


def test_bells_then_the_newest_alert_and_every_short_clip_before_the_rest_of_any(post: Post) -> None:
    post.alert(0.9, until_s=3.5)
    post.alert(4.9, until_s=5.0)
    post.alert(8.9, until_s=9.0, priority=Priority.BELL)
    files = post.record()
    post.around = Around(before_ns=0, after_ns=1, incident_ns=20 * NS)
    post.boot()
    post.work()
    assert post.order() == [files[4].name, files[2].name, files[0].name, files[1].name]


def test_notices_call_for_nothing_and_bells_alone_may(tmp_path: Path) -> None:
    post = Post(tmp_path, FakeDisk(root=tmp_path), FakeDepot(), least="bell")
    post.alert(1.0, until_s=1.5, priority=Priority.NOTICE)
    post.alert(3.0, until_s=3.5)
    bell = post.alert(9.0, until_s=9.1, priority=Priority.BELL)
    files = post.record()
    post.work()
    assert set(post.order()) == {files[4].name, files[5].name} or post.order() == [files[4].name]
    assert [told["order"] for told in post.noted] == [bell]


def test_a_visit_that_becomes_an_alert_later_is_one_from_that_moment(post: Post) -> None:
    name = post.alert(0.5, priority=Priority.NOTICE)
    post.alert(6.9, incident=name, phase=Phase.UPDATED, until_s=7.0)
    files = post.record()
    post.work()
    assert post.order()[0] == files[3].name, "what is near the moment of alarm, not near the beginning"
    assert len(post.noted) == 1


def test_nothing_goes_while_an_alert_or_a_picture_waits(post: Post) -> None:
    post.alert(5.0, until_s=5.5, picture=True, heard=False)
    files = post.record()
    post.work(30)
    assert post.depot.names == {}, "not even offered"
    rows = post.post.store.pending(10)
    post.post.store.acknowledge([(row.sequence, row.sequence) for row in rows if row.priority <= Priority.ALERT])
    assert post.post.store.pictures_wait()
    post.work(30)
    assert post.depot.names == {}, "its picture is more to headquarters than its film"
    post.hear()
    assert not post.post.store.pictures_wait()
    post.work()
    assert post.whole(files[2])


def test_the_file_in_progress_is_waited_for(post: Post) -> None:
    post.alert(4.5, until_s=4.6)
    post.post.feed(encoded(seconds=5.0))
    post.work(5)
    assert post.noted == []
    post.post.recorder.close()
    post.work(60)
    assert post.whole(post.post.store.segments()[2])
    assert len(post.noted) == 1


def test_the_budget_of_a_day_is_kept_and_fills_while_the_node_runs(tmp_path: Path) -> None:
    post = Post(tmp_path, FakeDisk(root=tmp_path), FakeDepot())
    post.alert(1.0, until_s=9.0)
    files = post.record()
    largest = max(one.bytes for one in files)
    post.day_bytes = 2 * largest
    post.disk.unlink(STATE)
    post.post.store.commit([])
    post.boot()  # a post that begins with clips: what was before is not sent
    post.work()
    assert post.order() == []
    post.alert(1.5, until_s=9.0)
    began_s = post.now_s
    post.work(30)
    assert 0 < post.sent_bytes() <= post.day_bytes * 1.05
    assert len(post.plan().wishes) == 1, "the rest waits"
    for _hour in range(100):
        post.clock.advance(3600)
        post.work(61)
        assert post.sent_bytes() <= post.day_bytes * (1 + (post.now_s - began_s) / 86_400)
    assert post.sent_bytes() <= post.day_bytes * (1 + (post.now_s - began_s) / 86_400)
    (told,) = post.noted
    assert told["not_sent"] == ""
    assert all(post.whole(one) for one in files[:5])


def test_a_file_larger_than_a_days_budget_is_said_to_be(tmp_path: Path) -> None:
    post = Post(tmp_path, FakeDisk(root=tmp_path), FakeDepot())
    post.alert(5.0, until_s=5.1)
    post.record()
    post.day_bytes = 100
    post.boot()
    post.work()
    assert post.depot.names == {}
    assert "100 may go in a day" in post.noted[0]["not_sent"]


def test_what_the_station_has_already_costs_nothing(post: Post) -> None:
    post.alert(5.0, until_s=5.1)
    (segment,) = post.record()[2:3]
    with post.disk.open(segment.name) as file:
        post.depot.files[segment.sha256] = bytearray(file.read())
    post.depot.sizes[segment.sha256] = segment.bytes
    left = post.plan().purse.left_bytes
    post.work()
    assert post.sent_bytes() == 0
    assert post.noted[0]["files"] == 1
    assert post.plan().purse.left_bytes >= left


def test_power_cut_at_every_step_forgets_no_alert_and_sends_nothing_unpaid(tmp_path: Path) -> None:
    step, budget = 0, 1 << 20
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        disk, depot = FakeDisk(root=folder), FakeDepot()
        post = Post(folder, disk, depot)
        post.day_bytes = budget
        disk.unlink(STATE)
        post.boot()
        post.record(seconds=8.0)
        began_s = post.now_s
        crash = cut_at(step)
        disk.crash_point, depot.before, depot.after = crash, crash, crash
        cut = False
        try:
            post.alert(3.0, until_s=4.5)
            post.alert(7.0, until_s=7.5)
            post.work(30)
        except PowerCut:
            cut = True
        disk.crash_point, depot.before, depot.after = (lambda _step: None,) * 3
        disk.power_cut(random.Random(step).randrange)
        filled = (post.now_s - began_s + 61) * budget / 86_400
        assert post.sent_bytes() <= budget - post.plan().purse.left_bytes + filled, f"step {step}: not paid for"
        post.boot()
        post.work(30)
        wanted = post.post.store.segments()[1:4]
        assert all(post.whole(one) for one in wanted), f"step {step}"
        assert post.sent_bytes() == sum(one.bytes for one in wanted), f"step {step}: twice, or too much"
        assert {told["order"] for told in post.noted} == {f"01890000-0000-7000-8000-{n:012x}" for n in (1, 2)}
        assert len(post.noted) in (2, 3), f"step {step}"
        assert post.plan().wishes == (), f"step {step}"
        assert budget - post.plan().purse.left_bytes <= post.sent_bytes(), f"step {step}: paid for twice"
        post.post.store.close()
        if not cut:
            break
        step += 1
    assert step > 20


def test_a_network_that_comes_and_goes_costs_time_only(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    depot = FakeDepot()

    def flaky(_what: str) -> None:
        if rng.random() < 0.4:
            raise Transient("send: connection reset")

    depot.before = depot.after = flaky
    post = Post(tmp_path, FakeDisk(root=tmp_path), depot)
    post.alert(3.0, until_s=9.0)
    files = post.record()
    for _ in range(500):
        if post.noted:
            break
        post.work(300)
    assert all(post.whole(one) for one in files[1:5])
    assert len(post.noted) == 1


def test_a_file_that_the_station_does_not_take_yet_holds_up_no_other(post: Post) -> None:
    post.alert(3.0, until_s=3.1)
    post.alert(9.0, until_s=9.1)
    files = post.record()

    def not_yet(what: str) -> None:
        if what == f"offer {files[4].name}":
            raise Transient("send: the station answers 409 its line of the ledger is not here yet; later")

    post.depot.before = not_yet
    post.work(310)
    assert post.whole(files[1])
    assert not post.whole(files[4])
    post.depot.before = lambda _what: None
    post.work(310)
    assert post.whole(files[4])
    assert [told["not_sent"] for told in post.noted] == ["", ""]


def test_what_is_lost_refused_or_was_never_recorded_is_told(post: Post) -> None:
    lost = post.alert(1.0, until_s=1.1)
    refused = post.alert(5.0, until_s=5.1)
    nothing = post.alert(40.0, until_s=40.1)
    files = post.record()
    post.disk.unlink(files[0].name)
    post.depot.refused.add(files[2].name)
    post.work()
    told = {one["order"]: one for one in post.noted}
    assert "not there any more" in told[lost]["not_sent"]
    assert "413" in told[refused]["not_sent"]
    assert "none was recorded" in told[nothing]["not_sent"]
    assert all(one["files"] == 0 or one["not_sent"] for one in told.values())


def test_an_incident_that_a_power_cut_left_open_ends(post: Post) -> None:
    name = post.alert(3.0)
    post.record()
    post.clock.reboot()
    post.post.store.start_session()
    post.alert(0.0, incident=name, phase=Phase.ENDED)
    post.boot()
    post.work()
    assert [one["order"] for one in post.noted] == [name]
    assert post.noted[0]["files"] >= 1


def test_more_alerts_than_fit_the_oldest_gives_way_and_says_so(post: Post) -> None:
    post.waiting_max = 3
    post.boot()
    post.record()
    names = [post.alert(at, until_s=at + 0.1) for at in (1.0, 3.0, 5.0, 7.0, 9.0)]
    post.depot.before = away
    post.work(30)
    assert [one["order"] for one in post.noted] == names[:2], "the oldest"
    assert all("newer alerts took its place: 3 wait at most" in one["not_sent"] for one in post.noted)
    assert len(post.plan().wishes) == 3


def away(_what: str) -> None:
    raise Transient("send: no route to host")


def test_a_damaged_plan_costs_the_clips_that_waited_and_nothing_else(post: Post) -> None:
    post.record()
    post.alert(3.0, until_s=3.1)
    for data in (b"", b"{", b'{"v": 2}', b"\xff" * 50):
        post.disk.put(STATE, data)
        post.boot()
        assert post.plan().wishes == ()
    post.alert(9.0, until_s=9.1)
    post.work()
    assert post.whole(post.post.store.segments()[4])


def test_another_store_counts_from_one_and_what_is_in_it_is_planned_once(post: Post) -> None:
    """The store was lost and rebuilt: its rows have new numbers. The clip that waited waits on."""
    post.record()
    name = post.alert(3.0, until_s=3.1)
    post.depot.before = away
    post.work(10)
    (waiting,) = post.plan().wishes
    assert waiting.incident == name
    foreign = msgspec.structs.replace(post.plan(), epoch="01890000-0000-7000-8000-0000000000ff", read=9_999)
    post.disk.put(STATE, msgspec.json.encode(foreign))
    post.depot.before = lambda _what: None
    post.boot()
    assert post.plan().epoch == post.post.store.epoch
    other = post.alert(7.0, until_s=7.1)
    post.work()
    assert sorted(told["order"] for told in post.noted) == [name, other]


def test_switched_off_it_sends_nothing_and_on_again_only_what_comes_then(post: Post) -> None:
    files = post.record()
    post.least = None
    post.boot()
    assert STATE not in post.disk.list("")
    post.alert(3.0, until_s=3.1)
    post.work()
    post.least = "alert"
    post.boot()
    post.alert(9.0, until_s=9.1)
    post.work()
    assert post.order() == [files[4].name]


def test_a_clip_that_was_begun_is_finished_first(post: Post) -> None:
    """Half a file is worth nothing, and a station keeps a few unfinished ones of a post at most."""
    files = post.record()
    post.alert(3.0, until_s=3.1)
    while not post.depot.chunks:
        post.work(0.01)
    (begun,) = post.plan().paid
    assert begun == files[1].name
    assert not post.whole(files[1])
    post.alert(9.0, until_s=9.1, priority=Priority.BELL)
    post.boot()
    post.work()
    assert post.order() == [begun, files[4].name]


# -- pure --------------------------------------------------------------------------------------------------------------


def told(n: int, incident: int, severity: str, phase: str, at_s: int, boot: str = "f") -> wire.CloudEvent:
    name = f"01890000-0000-7000-8000-{incident:012x}"
    return wire.CloudEvent(
        id=f"01890000-0000-7000-8001-{n:012x}", source="wardpost/a/b", type="wardpost.person", subject=name,
        time="2026-01-01T00:00:00Z", epoch=f"01890000-0000-7000-8002-{1:012x}", sequence=n, session=1, bootid=boot * 32,
        monons=at_s * NS, timeerrms=None,
        data=wire.EventData(incident=name, phase=phase, severity=severity, summary=""),  # type: ignore[arg-type]
    )  # fmt: skip


EMPTY = Plan(epoch="e", read=0, purse=Purse(boot_id="f" * 32, at_ns=0, left_bytes=1000))


@given(
    st.lists(
        st.tuples(
            st.integers(1, 40),
            st.sampled_from(["bell", "alert", "notice"]),
            st.sampled_from(["started", "updated", "ended"]),
            st.integers(0, 10_000),
            st.sampled_from("ef"),
        ),
        max_size=100,
    )
)
def test_the_plan_is_bounded_whatever_happens_and_keeps_the_newest(steps: list[tuple[int, str, str, int, str]]) -> None:
    plan = EMPTY
    began: dict[str, int] = {}
    for n, (incident, severity, phase, at_s, boot) in enumerate(steps, start=1):
        event = told(n, incident, severity, phase, at_s, boot)
        plan = clips.hear(plan, n, event, "alert")
        if severity != "notice":
            began.setdefault(event.data.incident, n)
        surplus = clips.surplus(plan, 8)
        if surplus is not None:
            assert surplus.severity == "alert" or all(one.severity == "bell" for one in plan.wishes)
            plan = clips.settle(plan, surplus.incident)
        assert plan.read == n
        assert len(plan.wishes) <= 8
        assert len(plan.settled) <= clips.SETTLED_MAX
        assert len({one.incident for one in plan.wishes}) == len(plan.wishes)
    waiting = {one.incident for one in plan.wishes}
    assert waiting | set(plan.settled) == set(began)
    state = msgspec.json.encode(plan)
    assert msgspec.json.decode(state, type=Plan) == plan


@given(
    st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 1 << 30), st.booleans()), max_size=20),
    st.integers(1, 1 << 30),
)
def test_no_way_of_looking_spending_and_booting_gets_more_than_a_days_bytes_and_what_has_run(
    steps: list[tuple[int, int, bool]], day_bytes: int
) -> None:
    purse = Purse(boot_id="0" * 32, at_ns=0, left_bytes=day_bytes)
    now_ns, ran_ns, spent, boot = 0, 0, 0, 0
    for seconds, want, reboot in steps:
        if reboot:
            boot, now_ns = boot + 1, 0
        now_ns, ran_ns = now_ns + seconds * NS, ran_ns + seconds * NS
        purse = clips.filled(purse, boot_id=f"{boot:032x}", now_ns=now_ns, day_bytes=day_bytes)
        assert 0 <= purse.left_bytes <= day_bytes
        paid = min(want, purse.left_bytes)
        purse, spent = msgspec.structs.replace(purse, left_bytes=purse.left_bytes - paid), spent + paid
        assert spent <= day_bytes + ran_ns * day_bytes // clips.DAY_NS


def test_looking_often_fills_the_purse_as_well_as_looking_seldom() -> None:
    often = seldom = Purse(boot_id="f" * 32, at_ns=0, left_bytes=0)
    for at in range(1, 86_401, 7):
        often = clips.filled(often, boot_id="f" * 32, now_ns=at * NS, day_bytes=3_000)
    seldom = clips.filled(seldom, boot_id="f" * 32, now_ns=at * NS, day_bytes=3_000)
    assert seldom.left_bytes - often.left_bytes <= 1 or often.left_bytes >= 0.7 * seldom.left_bytes
    assert clips.wait_s(seldom, seldom.left_bytes + 3_000, 3_000) == pytest.approx(86_400)


def test_a_file_that_serves_two_alerts_goes_once() -> None:
    plan = EMPTY
    for n, at_s in enumerate((10, 11), start=1):
        plan = clips.hear(plan, n, told(n, n, "alert", "ended", at_s), "alert")
    segment = Segment(
        "segments/000001-00000001.mp4", 1, "f" * 32, 9 * NS, 12 * NS, 9, 1, "0" * 64, EndReason.ROLLED, 9, 9
    )
    found = clips.queue(plan, [segment], AROUND)
    assert [item.wish.at_ns for item in found] == [11 * NS, 10 * NS]
    other = msgspec.structs.replace(plan.wishes[0], boot_id="e" * 32)
    assert not clips.touches(segment, other, clips.whole(other, AROUND)), "boot time of another boot is another time"


def test_by_default_alerts_have_their_clips_within_a_budget() -> None:
    settings = SendingSettings()
    assert (settings.clips, settings.clips_mb_per_day_max) == ("alert", 500)
