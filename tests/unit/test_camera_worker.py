"""The camera worker in a world with one thread: a clock that is driven and a camera that fails when told to."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from agent.camera import CameraLost, CameraStuck
from agent.camera.stream import StreamCamera
from agent.camera.worker import CameraWorker
from agent.types import NS, Event, Frame, Kind, Packet, Phase
from tests.fakes.camera import FakeCamera
from tests.fakes.clock import FakeClock
from tests.fakes.footage import make_video


class World:
    """A worker with everything that it talks to, stepped as the supervisor does."""

    def __init__(self, camera: object | None = None, *, clock: FakeClock | None = None, seed: int = 1) -> None:
        print(f"seed {seed}")
        self.clock = clock or FakeClock()
        self.fake = FakeCamera(clock=self.clock)
        self.packets: list[Packet] = []
        self.frames: list[Frame] = []
        self.events: list[Event] = []
        self.lost: list[tuple[int, str]] = []
        numbers = itertools.count(1)
        self.worker = CameraWorker(
            camera=camera or self.fake,  # type: ignore[arg-type]
            clock=self.clock,
            packets=self.packets.append,
            frames=self.frames.append,
            report=self.events.append,
            lost=lambda boot_ns, reason: self.lost.append((boot_ns, reason)),
            new_id=lambda: f"incident-{next(numbers)}",
            rng=random.Random(seed),
            stall_s=4.0,
            read_s=0.0,
            idle_s=0.05,
        )
        self.worker.open()
        self.next_s = 0.0

    def run(self, seconds: float) -> int:
        """Lets the world go on; returns how many steps it took."""
        end = self.clock.boot_ns() + round(seconds * NS)
        steps = 0
        while self.clock.boot_ns() < end:
            self.next_s = self.worker.step(self.clock.boot_ns() / NS)
            steps += 1
            self.clock.advance_to(min(max(round(self.next_s * NS), self.clock.boot_ns() + 1000), end))
        return steps

    def phases(self) -> list[Phase]:
        return [event.phase for event in self.events]


def test_a_healthy_camera_makes_no_words() -> None:
    world = World()
    world.run(10)
    assert world.events == []
    assert world.lost == []
    assert len(world.packets) == pytest.approx(100, abs=3)
    assert len(world.frames) == pytest.approx(50, abs=3)
    stats = world.worker.stats
    assert stats.up
    assert stats.fps == pytest.approx(10, abs=0.2)
    assert stats.restarts == 0
    assert stats.newest_ns is not None
    assert world.clock.boot_ns() - stats.newest_ns < NS


def test_a_stall_is_noticed_reported_and_over_when_pictures_are_back() -> None:
    world = World()
    world.run(5)
    last_ns = world.packets[-1].boot_ns
    world.fake.stall()
    world.run(4.2)
    (started,) = world.events
    assert started.kind is Kind.CAMERA
    assert started.phase is Phase.STARTED
    assert started.boot_ns == last_ns, "it happened when the pictures ended, not when somebody noticed"
    assert "4 s" in started.summary
    assert world.lost == [(last_ns, started.summary.partition(": ")[2])]
    assert not world.worker.stats.up
    world.run(60)
    assert len(world.events) == 1, "one incident, however many attempts"
    assert len(world.lost) == 1
    world.fake.heal()
    world.run(20)
    assert world.phases() == [Phase.STARTED, Phase.ENDED]
    ended = world.events[1]
    assert ended.incident == started.incident
    assert ended.since_ns == started.boot_ns
    assert world.worker.stats.up


def test_a_camera_that_is_away_at_the_start_is_an_incident_and_not_a_crash() -> None:
    world = World()
    world.fake.vanish()
    steps = world.run(120)
    assert world.phases() == [Phase.STARTED]
    assert len(world.lost) == 1
    assert 12 <= world.fake.opened <= 40, "back-off: at most 10 s between attempts, jittered, never a storm"
    assert steps < 200, "it sleeps in between"
    world.fake.heal()
    world.run(30)
    assert world.phases() == [Phase.STARTED, Phase.ENDED]
    assert world.packets[0].keyframe


@pytest.mark.parametrize("fault", ["vanish", "rubbish", "stall"])
def test_whatever_it_does_it_is_opened_again(fault: str) -> None:
    world = World()
    world.run(3)
    getattr(world.fake, fault)()
    world.run(10)
    world.fake.heal()
    before = len(world.frames)
    world.run(25)
    assert len(world.frames) > before + 25
    assert world.phases() == [Phase.STARTED, Phase.ENDED]


def test_a_flapping_camera_is_one_incident() -> None:
    world = World()
    world.run(3)
    for _ in range(20):
        world.fake.vanish()
        world.run(1)
        world.fake.heal()
        world.run(2.5)
    assert world.phases() == [Phase.STARTED]
    world.run(30)
    assert world.phases() == [Phase.STARTED, Phase.ENDED]


def test_the_recorder_hears_of_every_interruption() -> None:
    """Within one incident packets came and went: each stretch ends with its own word to the recorder."""
    world = World()
    world.run(3)
    for _ in range(3):
        world.fake.vanish()
        world.run(1)
        world.fake.heal()
        world.run(3)
    assert len(world.lost) == 3
    times = [boot_ns for boot_ns, _ in world.lost]
    assert times == sorted(set(times))
    stamps = {packet.boot_ns for packet in world.packets}
    assert all(boot_ns in stamps for boot_ns in times)


def test_footage_that_ends_is_said_once_and_left_alone(tmp_path: Path) -> None:
    clock = FakeClock()
    path = make_video(tmp_path / "two-seconds.mp4")
    camera = StreamCamera(url=str(path), clock=clock, analysis_fps=5, luma_px=160)
    world = World(camera, clock=clock)
    world.run(2.5)
    assert len(world.packets) == 20
    assert world.phases() == [Phase.STARTED]
    assert "end of the footage" in world.events[0].summary
    assert world.run(7200) <= 4, "it does not spin"
    assert world.phases() == [Phase.STARTED]


def test_a_stuck_library_is_left_to_the_supervisor() -> None:
    """A library that hangs can only be cured by a new process: the worker reports it and gives up."""

    class Stuck(FakeCamera):
        def open(self) -> None:
            raise CameraStuck("picamera2: did not stop within 5 s; only a new process helps")

    clock = FakeClock()
    world = World(Stuck(clock=clock), clock=clock)
    with pytest.raises(CameraStuck):
        world.run(1)
    assert world.phases() == [Phase.STARTED]


def test_a_bug_in_a_driver_is_reported_before_the_worker_ends() -> None:
    class Broken(FakeCamera):
        def read(self, timeout_s: float) -> list[Frame | Packet]:
            raise ZeroDivisionError("division by zero")

    clock = FakeClock()
    world = World(Broken(clock=clock), clock=clock)
    with pytest.raises(ZeroDivisionError):
        world.run(1)
    assert world.phases() == [Phase.STARTED]
    assert len(world.lost) == 1
    world.worker.close()
    assert not world.worker.stats.up


def test_a_seed_repeats_the_back_off() -> None:
    def attempts(seed: int) -> list[int]:
        world = World(seed=seed)
        world.fake.vanish()
        seen = []
        for _ in range(300):
            world.run(0.1)
            seen.append(world.fake.opened)
        return seen

    assert attempts(5) == attempts(5)
    assert attempts(5) != attempts(6)


def test_a_lost_camera_is_a_deliberate_error() -> None:
    clock = FakeClock()
    camera = FakeCamera(clock=clock)
    with pytest.raises(CameraLost, match="plugged in"):
        camera.read(0)
