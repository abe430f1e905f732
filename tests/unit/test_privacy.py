"""The privacy switch: nothing gets past it, it is on record, it ends by itself, and a restart makes it no longer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError, Transient
from agent.panel import Input, PostState, post_state
from agent.panel.worker import PanelWorker
from agent.privacy import POST, REFRESH_S, PrivacyWorker, rest
from agent.recording.fragments import scan
from agent.types import NS, Cause, Curtain, EndReason, Frame, Kind, Phase, TimeAnchor
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk
from tests.fakes.packets import encoded, shifted
from tests.fakes.panel import FakePanel
from tests.fakes.recording_post import RecordingPost, closed_posts, says, whole  # noqa: F401

START = 1000 * NS
S_MAX = 20.0


class Post:
    """A real recorder and store behind a real switch; the clock is driven by the packets."""

    def __init__(self, folder: Path, disk: FakeDisk, clock: FakeClock | None = None) -> None:
        self.post = RecordingPost(disk, folder, clock=clock).boot()
        self.clock = self.post.clock
        self.seen: list[int] = []  # frames that the detector would have got
        self.privacy = PrivacyWorker(
            clock=self.clock,
            ledger=self.post.store,
            packets=self.post.recorder.offer,
            frames=lambda frame: self.seen.append(frame.boot_ns),
            paused=self.post.recorder.paused,
            report=self.post.events.extend,
            new_id=self.post.new_id,
            s_max=S_MAX,
        )

    def film(self, seconds: float, *, late_ns: int = 0) -> None:
        """The camera goes on for so long from now. `late_ns`: how long its driver takes to hand over."""
        begin = self.clock.boot_ns()
        for packet in shifted(encoded(seconds=seconds), begin - START):
            self.clock.advance_to(packet.dts_ns + late_ns)
            self.privacy.packet(packet)
            self.privacy.frame(Frame(1, packet.boot_ns, np.zeros((2, 2), np.uint8), None))  # type: ignore[arg-type]
            self.post.step()
            self.privacy.step(self.clock.boot_ns() / NS)
        self.clock.advance_to(begin + round(seconds * NS))
        self.privacy.step(self.clock.boot_ns() / NS)
        self.post.step()

    def on_disk(self) -> list[tuple[int, int]]:
        """Every stretch of pictures that is on the disk, in ns."""
        found = []
        for name in self.post.disk.list("segments"):
            with self.post.disk.open(name) as file:
                found += [(f.start_ns, f.end_ns) for f in scan(file).fragments]
        return found

    def told(self) -> list[tuple[Phase, str]]:
        return [(e.phase, e.summary) for e in self.post.events if e.kind is Kind.NODE]


@pytest.fixture
def disk(tmp_path: Path) -> FakeDisk:
    return FakeDisk(root=tmp_path)


@pytest.fixture
def at(tmp_path: Path, disk: FakeDisk) -> Iterator[Post]:
    post = Post(tmp_path, disk)
    yield post
    post.post.recorder.close()


def test_nothing_reaches_disk_or_detector_while_it_is_on_and_the_account_says_so(at: Post) -> None:
    at.film(5)
    on_ns = at.clock.boot_ns()
    assert at.privacy.command(6.0) == 6.0
    at.film(10)
    off_ns = on_ns + 6 * NS
    assert all(end <= on_ns or start >= off_ns for start, end in at.on_disk())
    assert all(ns < on_ns or ns >= off_ns for ns in at.seen)
    assert any(ns >= off_ns for ns in at.seen) and any(start >= off_ns for start, _ in at.on_disk())
    assert at.privacy.hidden > 0 and at.privacy.left_s == 0
    at.post.recorder.close()
    assert says(at.post.coverage(START, START + 15 * NS)) == [("recorded", 5.0), ("privacy", 6.0), ("recorded", 4.0)]
    ends = [segment.end_reason for segment in at.post.store.segments()]
    assert EndReason.PRIVACY in ends
    assert [phase for phase, _ in at.told()] == [Phase.STARTED, Phase.ENDED]
    assert "its time was over" in at.told()[1][1]
    kinds = [fact.kind for fact in at.post.store.facts(1000)]
    assert kinds.count("privacy") == 2, "on and off are on the ledger"
    whole(at.post)


def test_what_was_on_its_way_and_what_a_driver_hands_over_late_is_dropped_by_the_moment_of_capture(at: Post) -> None:
    at.film(3)
    on_ns = at.clock.boot_ns()
    at.privacy.command(2.0)
    at.film(8, late_ns=round(1.5 * NS))  # each picture arrives one and a half seconds after it was taken
    off_ns = on_ns + 2 * NS
    assert all(end <= on_ns or start >= off_ns for start, end in at.on_disk())
    assert all(ns < on_ns or ns >= off_ns for ns in at.seen)
    old = replace(encoded(seconds=1)[0], boot_ns=on_ns + NS, dts_ns=on_ns + NS)
    assert at.privacy.packet(old) is False, "even long afterwards"


def test_asking_again_does_not_make_it_longer_than_it_may_be(at: Post) -> None:
    at.film(2)
    assert at.privacy.command(1e9) == S_MAX
    for _ in range(5):
        at.film(5)
        assert at.privacy.command(1e9) <= S_MAX
        if at.told()[-1][0] is Phase.ENDED:
            break
    started = at.post.events[0].boot_ns
    (ended,) = [e for e in at.post.events if e.phase is Phase.ENDED][:1]
    assert ended.boot_ns - started <= S_MAX * NS


def test_headquarters_may_end_what_it_began_but_not_what_was_switched_on_at_the_post(at: Post) -> None:
    at.privacy.command(10)
    assert at.privacy.command(0) == 0
    at.privacy.switch(True)
    with pytest.raises(ConfigError, match="at the post"):
        at.privacy.command(0)
    at.privacy.switch(False)
    assert at.privacy.left_s == 0
    for nonsense in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="not a time"):
            at.privacy.command(nonsense)


def test_a_camera_that_fails_behind_the_curtain_is_a_camera_fault_afterwards(at: Post) -> None:
    at.film(3)
    at.privacy.command(4)
    at.film(2)
    at.post.recorder.lost(at.clock.boot_ns(), "camera: no answer; check its power")
    for _ in range(8):
        at.clock.advance(1)
        at.privacy.step(at.clock.boot_ns() / NS)
        at.post.step()
    at.film(3)
    at.post.recorder.close()
    assert says(at.post.coverage(START, START + 16 * NS)) == [
        ("recorded", 3.0),
        ("privacy", 4.0),
        ("camera-fault", 6.0),
        ("recorded", 3.0),
    ]


def test_a_store_that_refuses_does_not_lift_it_and_is_told_later(at: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    real = at.post.store.draw

    def refuse(*_args: Any, **_more: Any) -> None:
        raise Transient("store.db: disk full")

    monkeypatch.setattr(at.post.store, "draw", refuse)
    at.privacy.command(15)
    at.film(3)
    assert at.on_disk() == [] and at.seen == []
    assert at.post.store.curtain() is None
    monkeypatch.setattr(at.post.store, "draw", real)
    at.film(1)
    assert at.post.store.curtain() is not None


def test_after_a_power_cut_only_the_rest_is_granted(tmp_path: Path, disk: FakeDisk) -> None:
    first = Post(tmp_path, disk)
    first.film(2)
    on_ns = first.clock.boot_ns()
    first.privacy.command(18)
    first.film(3)
    first.post.store.close()  # the power goes; what was committed is there
    first.clock.reboot(off_s=2)
    first.clock.advance(1)
    second = Post(tmp_path, disk, first.clock)
    left = second.privacy.left_s
    assert 0 < left <= 18 - 3, "what was spent is not granted again"
    second.film(left + 3)
    assert all(ns >= round((1 + left) * NS) for ns in second.seen) and second.seen
    assert "goes on after a restart" in second.told()[0][1]
    second.post.recorder.close()
    del on_ns


def test_a_restart_of_the_agent_does_not_move_the_end(tmp_path: Path, disk: FakeDisk) -> None:
    first = Post(tmp_path, disk)
    first.privacy.command(15)
    until = first.clock.boot_ns() + 15 * NS
    first.film(4)
    first.privacy.close()
    first.post.stop()
    second = Post(tmp_path, disk, first.clock)
    assert second.clock.boot_ns() + round(second.privacy.left_s * NS) == until
    second.film(5)
    assert second.seen == [] and second.on_disk() == []
    second.post.recorder.close()


def test_one_that_ran_out_while_the_post_was_down_is_over(tmp_path: Path, disk: FakeDisk) -> None:
    first = Post(tmp_path, disk)
    first.privacy.command(5)
    first.film(1)
    first.post.store.close()
    first.clock.advance(60)
    second = Post(tmp_path, disk, first.clock)
    assert second.privacy.left_s == 0 and second.post.store.curtain() is None
    second.film(2)
    assert second.seen
    second.post.recorder.close()


@settings(max_examples=200)
@given(
    granted=st.integers(1, 900),
    spent=st.integers(0, 900),
    off=st.integers(0, 2000),
    vouched=st.booleans(),
    cuts=st.integers(1, 4),
)
def test_no_sequence_of_power_cuts_grants_more_than_was_asked_for(
    granted: int, spent: int, off: int, vouched: bool, cuts: int
) -> None:
    """The sum of the time in force over all lives never exceeds what was granted."""
    clock = FakeClock(unc_ns=5_000_000 if vouched else None)
    begin = clock.boot_ns()
    curtain: Curtain | None = Curtain(clock.boot_id, begin, begin + granted * NS, begin, POST)
    in_force_ns = 0
    for _ in range(cuts):
        assert curtain is not None
        anchors = [TimeAnchor(clock.boot_id, clock.boot_ns(), clock.utc().utc_ns, clock.utc().unc_ns, "ntp")]
        lived_ns = min(spent * NS, curtain.until_ns - curtain.start_ns)
        in_force_ns += lived_ns
        ahead = lived_ns + (-lived_ns % round(REFRESH_S * NS) or round(REFRESH_S * NS))
        charged = min(curtain.start_ns + ahead, curtain.until_ns)
        clock.advance(lived_ns / NS)
        clock.reboot(off_s=off)
        clock.advance(3)
        curtain = rest(replace(curtain, charged_ns=charged), clock, anchors)
        if curtain is None:
            break
        assert in_force_ns + curtain.until_ns - curtain.start_ns <= granted * NS
    assert in_force_ns <= granted * NS


# -- the panel ---------------------------------------------------------------------------------------------------------


class Thrown:
    """A panel worker with a switch."""

    def __init__(self, *, closed: bool = False) -> None:
        self.clock, self.panel = FakeClock(), FakePanel()
        self.panel.levels[Input.PRIVACY] = closed
        self.calls: list[bool] = []
        self.worker = PanelWorker(
            self.panel,
            clock=self.clock,
            new_id=lambda: "i",
            report=lambda _events: None,
            state=lambda: PostState.WELL,
            siren_s_max=60.0,
            privacy=self.calls.append,
        )
        self.worker.open()
        self.run()

    def run(self) -> None:
        for _ in range(4):
            self.worker.step(self.clock.boot_ns() / NS)
            self.clock.advance(0.1)

    def throw(self, closed: bool) -> None:
        self.panel.level(Input.PRIVACY, closed, self.clock.boot_ns())
        self.run()


def test_the_switch_is_told_when_it_is_thrown() -> None:
    post = Thrown()
    post.throw(True)
    post.throw(False)
    assert post.calls == [True, False]


def test_a_switch_that_was_forgotten_does_not_blind_the_post_with_every_restart() -> None:
    post = Thrown(closed=True)
    assert post.calls == []
    post.throw(False)
    post.throw(True)
    assert post.calls == [False, True]


def test_the_led_says_privacy_before_anything_else() -> None:
    assert post_state(booting=True, network=False, camera=False, fault=True, privacy=True) is PostState.PRIVACY


def test_the_gap_of_privacy_is_one_row(at: Post) -> None:
    at.film(1)
    at.privacy.command(12)
    at.film(16)
    at.post.recorder.close()
    gaps = [gap for gap in at.post.store.gaps() if gap.cause is Cause.PRIVACY]
    assert sum(gap.end_ns - gap.start_ns for gap in gaps[:1]) >= 12 * NS
    assert len(gaps) <= 2
