"""The heartbeat that always goes out, time anchors, the sign of life, and the machine's own complaints."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent import wire
from agent.errors import Transient
from agent.health import ClockWatch, HealthWorker, Heartbeats, Probes
from agent.machine import Machine, throttled_words
from agent.types import NS, Event, Kind, Phase, Priority, TimeAnchor, UtcReading
from tests.fakes.clock import FakeClock


def absent() -> str:
    raise FileNotFoundError("vcgencmd")


def probes(**changes: Any) -> Probes:
    parts: dict[str, Any] = {
        "camera": lambda: wire.CameraState(name="stream", fps=5.0, frameagems=40, frames=100, restarts=0),
        "vision": lambda: wire.VisionState(detector="tflite", healthy=True, detectorruns=3, inferencems=12.0),
        "recording": lambda: wire.RecordingState(recording=True, segments=2, bytes=9, oldest=None, droppedpackets=0),
        "queue": lambda: wire.QueueState(outboxrows=4, oldestage_s=1.5, dropped=0),
        "disk_free_bytes": lambda: 10**9,
    }
    return Probes(**(parts | changes))


def heartbeats(root: Path, **changes: Any) -> Heartbeats:
    machine = Machine(root=root, vcgencmd=absent)
    return Heartbeats(node="n1", session=7, clock=FakeClock(), machine=machine, probes=probes(**changes))


# -- heartbeat -----------------------------------------------------------------------------------------------------


def test_a_heartbeat_carries_everything_and_passes_over_the_wire(tmp_path: Path) -> None:
    beat = heartbeats(tmp_path)()
    assert wire.decode(wire.encode(beat), wire.Heartbeat) == beat
    assert beat.session == 7 and beat.monons == 1_000 * NS
    assert beat.camera is not None and beat.camera.fps == 5.0
    assert beat.machine.rssbytes is not None and beat.machine.rssbytes > 1e6
    assert beat.machine.uptime_s == 1000.0
    assert beat.clock.errms == 5 and beat.clock.source == "ntp"


def test_a_heartbeat_tells_release_and_settings_and_one_of_an_older_agent_is_understood(tmp_path: Path) -> None:
    release = wire.ReleaseState(number=41, tried=42, phase="trying")
    settings = wire.SettingsState(revision=6, seen=7, why="no frames")
    beat = heartbeats(tmp_path, release=lambda: release, settings=lambda: settings)()
    assert (beat.release, beat.settings) == (release, settings)
    told = json.loads(wire.encode(beat))
    del told["release"], told["settings"]
    older = wire.decode(json.dumps(told).encode(), wire.Heartbeat)
    assert (older.release, older.settings) == (None, None) and older.session == beat.session


@pytest.mark.parametrize("part", ["camera", "vision", "recording", "queue"])
@pytest.mark.parametrize("error", [Transient("closed"), ZeroDivisionError(), RuntimeError("bug")])
def test_a_sick_part_is_null_and_silences_nobody(
    tmp_path: Path, part: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def sick() -> Any:
        raise error

    beat_maker = heartbeats(tmp_path, **{part: sick})
    for _ in range(3):
        beat = beat_maker()
        assert getattr(beat, part) is None
        assert sum(getattr(beat, other) is None for other in ("camera", "vision", "recording", "queue")) == 1
        assert wire.decode(wire.encode(beat), wire.Heartbeat) == beat
    assert len(caplog.records) == 1, "said once, not every 30 s for a year"


def test_a_failed_card_leaves_the_rest(tmp_path: Path) -> None:
    def dead() -> int:
        raise Transient("I/O error")

    beat = heartbeats(tmp_path, disk_free_bytes=dead)()
    assert beat.machine.diskfreebytes is None and beat.machine.load1 is not None


# -- the machine ---------------------------------------------------------------------------------------------------


def pi(root: Path, *, throttled: str | None = "50005", temperatures: Sequence[str] = ("48312", "51234")) -> Path:
    """A Raspberry Pi as a tree of files."""
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/device-tree/model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.5\0")
    for number, text in enumerate(temperatures):
        (root / f"sys/class/thermal/thermal_zone{number}").mkdir(parents=True)
        (root / f"sys/class/thermal/thermal_zone{number}/temp").write_text(text)
    if throttled is not None:
        (root / "sys/devices/platform/soc/soc:firmware").mkdir(parents=True)
        (root / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text(throttled + "\n")
    return root


def test_a_raspberry_pi_tells_its_troubles_in_words(tmp_path: Path) -> None:
    machine = Machine(root=pi(tmp_path), vcgencmd=absent)
    assert machine.model() == "Raspberry Pi 4 Model B Rev 1.5"
    assert machine.temperature_c() == 51.2
    assert machine.throttled() == ["under-voltage", "throttled", "under-voltage since boot", "throttled since boot"]


def test_vcgencmd_is_asked_where_the_kernel_has_no_door(tmp_path: Path) -> None:
    assert Machine(root=pi(tmp_path, throttled=None), vcgencmd=lambda: "throttled=0x80008\n").throttled() == [
        "soft temperature limit",
        "soft temperature limit since boot",
    ]


@pytest.mark.parametrize("answer", ["", "error=1 error_msg=busy", "throttled=0xzz"])
def test_nonsense_from_vcgencmd_is_null(tmp_path: Path, answer: str) -> None:
    assert Machine(root=tmp_path, vcgencmd=lambda: answer).throttled() is None


def test_a_hanging_vcgencmd_is_null(tmp_path: Path) -> None:
    def hang() -> str:
        raise subprocess.TimeoutExpired("vcgencmd", 3)

    assert Machine(root=tmp_path, vcgencmd=hang).throttled() is None


def test_another_computer_has_neither(tmp_path: Path) -> None:
    machine = Machine(root=tmp_path, vcgencmd=absent)
    assert machine.throttled() is None and machine.temperature_c() is None
    assert machine.model() != ""
    assert Machine(root=pi(tmp_path, temperatures=["", "cold"])).temperature_c() is None


def test_all_is_well_is_an_empty_list_not_null() -> None:
    assert throttled_words(0) == []
    assert len(throttled_words(0xFFFFF)) == 8


# -- clocks --------------------------------------------------------------------------------------------------------


def reading(utc_s: float, unc_ns: int | None = 1, source: str = "ntp") -> UtcReading:
    return UtcReading(round(utc_s * NS), unc_ns, source)


def test_an_anchor_at_boot_and_every_five_minutes() -> None:
    watch, anchors = ClockWatch(), []
    for second in range(0, 1201, 2):
        if watch.look(second * NS, reading(5000 + second)).anchor_due:
            watch.anchored(second * NS, reading(5000 + second))
            anchors.append(second)
    assert anchors == [0, 300, 600, 900, 1200]


@pytest.mark.parametrize("moved_s", [0.6, -0.6, 3600.0, -1e9])
def test_a_clock_that_is_set_is_anchored_at_once_and_told(moved_s: float) -> None:
    watch = ClockWatch()
    watch.anchored(0, reading(1.7e9))
    finding = watch.look(10 * NS, reading(1.7e9 + 10 + moved_s))
    assert finding.anchor_due and finding.moved_ns == pytest.approx(moved_s * NS, abs=1000)
    assert f"{moved_s:+.1f} s" in finding.news


def test_discipline_is_no_news() -> None:
    watch = ClockWatch()
    watch.anchored(0, reading(1.7e9))
    assert watch.look(100 * NS, reading(1.7e9 + 100.4)) == watch.look(50 * NS, reading(1.7e9 + 50))


def test_sync_gained_and_lost_is_news() -> None:
    watch = ClockWatch()
    watch.anchored(0, reading(100, None, "unsynchronised"))
    gained = watch.look(NS, reading(101, 5, "ntp"))
    assert gained.anchor_due and gained.news == "The clock is synchronised now (ntp)"
    watch.anchored(NS, reading(101, 5, "ntp"))
    assert watch.look(2 * NS, reading(102, None, "unsynchronised")).news == "The clock is no longer synchronised"


class Book:
    """A store whose disk can be full."""

    def __init__(self) -> None:
        self.anchors: list[TimeAnchor] = []
        self.alives = 0
        self.signs: list[tuple[str, str, bool]] = []
        self.sign_ns: list[int] = []
        self.full = False

    def alive(self) -> None:
        self._check()
        self.alives += 1

    def add_anchor(self, anchor: TimeAnchor) -> None:
        self._check()
        self.anchors.append(anchor)

    def add_sign(self, what: str, text: str, *, active: bool, boot_ns: int | None = None) -> None:
        self._check()
        self.signs.append((what, text, active))
        self.sign_ns.append(boot_ns or 0)

    def _check(self) -> None:
        if self.full:
            raise Transient("the disk is full")


class Post:
    """A health worker in a world that a test drives."""

    def __init__(self) -> None:
        self.clock, self.book = FakeClock(), Book()
        self.events: list[Event] = []
        self.free = 10**9
        self.retries = 0
        ids = iter(range(10**6))
        self.worker = HealthWorker(
            clock=self.clock,
            ledger=self.book,
            new_id=lambda: f"i{next(ids)}",
            report=self.events.extend,
            retry_reports=self._retry,
            free_bytes=self._free,
            free_bytes_min=100_000_000,
        )
        self.worker.open()

    def _retry(self) -> None:
        self.retries += 1

    def _free(self) -> int:
        if self.free < 0:
            raise Transient("I/O error")
        return self.free

    def run(self, seconds: float) -> None:
        end_ns = self.clock.boot_ns() + round(seconds * NS)
        while self.clock.boot_ns() < end_ns:
            wake_s = self.worker.step(self.clock.boot_ns() / NS)
            self.clock.advance_to(min(round(wake_s * NS), end_ns))


def test_the_agent_signs_its_life_every_minute() -> None:
    post = Post()
    post.run(600)
    assert 10 <= post.book.alives <= 11
    post.worker.close()
    assert post.book.alives >= 11, "and once more as it stops"


def test_six_hours_leave_one_anchor_in_five_minutes_and_no_news() -> None:
    post = Post()
    post.run(6 * 3600)
    assert len(post.book.anchors) == 72
    assert post.events == []


def test_a_step_of_the_clock_is_one_notice() -> None:
    post = Post()
    post.run(10)
    post.clock.step_utc(86_400)
    post.run(10)
    (event,) = post.events
    assert (event.kind, event.priority) == (Kind.NODE, Priority.NOTICE)
    assert "+86400.0 s" in event.summary
    before, after = post.book.anchors
    assert after.utc_ns - before.utc_ns > 86_400 * NS and before.boot_id == after.boot_id


def test_what_a_full_disk_refused_is_written_once_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    post = Post()
    post.book.full = True
    post.run(120)
    post.clock.step_utc(5)
    post.run(600)
    assert post.book.anchors == [] and post.events == []
    assert len([r for r in caplog.records if "time anchor" in r.getMessage()]) == 1
    post.book.full = False
    post.run(4)
    assert len(post.book.anchors) == 1
    assert post.retries > 300, "events that wait in memory are offered again at every look"


def test_little_space_is_one_alert_until_there_is_clearly_more() -> None:
    post = Post()
    post.run(60)
    post.free = 99_000_000
    post.run(600)
    post.free = 110_000_000
    post.run(600)
    assert [(e.kind, e.phase, e.priority) for e in post.events] == [(Kind.STORAGE, Phase.STARTED, Priority.ALERT)]
    post.free = 126_000_000
    post.run(60)
    started, ended = post.events
    assert ended.phase is Phase.ENDED and ended.incident == started.incident and ended.since_ns == started.boot_ns


def test_a_card_that_cannot_be_asked_is_not_an_alert_of_no_space() -> None:
    post = Post()
    post.free = -1
    post.run(300)
    assert post.events == []


def test_a_link_is_on_record_as_gone_for_as_long_as_it_was_gone() -> None:
    """A change must last before it is written down, and is written down as of its beginning: the account of a dead
    network once began and ended ten to twenty seconds late.
    """
    post = Post()
    state = [""]
    worker = HealthWorker(
        clock=post.clock, ledger=post.book, new_id=str, report=post.events.extend, retry_reports=lambda: None,
        free_bytes=lambda: 10**9, free_bytes_min=0, signs={"link": lambda: state[0]},
    )  # fmt: skip
    worker.open()
    post.worker = worker
    post.run(30.0)
    went_ns = post.clock.boot_ns()
    state[0] = "no broker is connected"
    post.run(7.0)
    state[0] = "connected, but no station acknowledges"  # still the same outage
    post.run(50.0)
    back_ns = post.clock.boot_ns()
    state[0] = ""
    post.run(30.0)
    down = [ns for (_, _, active), ns in zip(post.book.signs, post.book.sign_ns, strict=True) if active]
    up = [ns for (_, _, active), ns in zip(post.book.signs, post.book.sign_ns, strict=True) if not active]
    assert 0 <= down[0] - went_ns <= 2 * NS
    assert 0 <= up[-1] - back_ns <= 2 * NS
    post.run(60.0)
    written = len(post.book.signs)
    state[0] = "no broker is connected"
    post.run(8.0)
    state[0] = ""
    post.run(60.0)
    assert len(post.book.signs) == written, "a link that flaps does not wear out the card"
