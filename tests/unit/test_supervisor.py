"""Three rings of supervision: restart with back-off, give up to systemd, stop feeding the watchdog."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.errors import ConfigError, NeedsRestart, Transient
from agent.notify import Notifier
from agent.supervisor import (
    COMPANY_S,
    EXIT_AGAIN,
    EXIT_BUG,
    EXIT_CONFIG,
    EXIT_STOPPED,
    EXIT_STUCK,
    WORKERS_MAX,
    Life,
    Limits,
    Supervisor,
    backoff_s,
    in_company_s,
)
from agent.types import NS
from agent.worker import Inbox, WhenFull
from tests.fakes.clock import FakeClock

WAIT_S_MAX = 60.0
QUICK = Limits(backoff_s_min=0.01, backoff_s_max=0.02, poll_s=0.005, stuck_grace_s=0.05, stop_s_max=30)


class Listener(Notifier):
    """systemd's side, on paper."""

    def __init__(self) -> None:
        super().__init__(address=None, watchdog_s=0.03)
        self.said: list[str] = []

    def _send(self, state: str) -> None:
        self.said.append(state)


class Script:
    """A worker that does what each item of a script says, then sleeps: an exception is raised, an Event is waited for."""

    def __init__(self, name: str, *script: object, diary: list[str] | None = None, step_s_max: float = 60.0) -> None:
        self.name = name
        self.step_s_max = step_s_max
        self.opens: list[object] = []
        self.script = list(script)
        self.diary = [] if diary is None else diary
        self.steps = 0

    def open(self) -> None:
        self.diary.append(f"open {self.name}")
        self._do(self.opens)

    def step(self, now: float) -> float:
        self.steps += 1
        self._do(self.script)
        return now + 3600

    def close(self) -> None:
        self.diary.append(f"close {self.name}")

    @staticmethod
    def _do(script: list[object]) -> None:
        act = script.pop(0) if script else None
        if isinstance(act, Exception):
            raise act
        if isinstance(act, threading.Event):
            act.wait(3 * WAIT_S_MAX)


def life(worker: Script, clock: FakeClock, limits: Limits | None = None) -> Life:
    return Life(worker, limits=limits or Limits(), clock=clock, jitter=lambda: 0.0)


# -- ring 1: a life ends, the next one begins ----------------------------------------------------------------------


def test_a_worker_that_raises_is_closed_and_opened_again_after_a_pause() -> None:
    clock, worker = FakeClock(), Script("camera", Transient("camera: no frame for 4 s"))
    one = life(worker, clock)
    one.turn()
    again_s = one.turn()
    assert worker.diary == ["open camera", "close camera"]
    assert one.trouble == "camera: no frame for 4 s"
    assert again_s == pytest.approx(clock.boot_ns() / NS + Limits().backoff_s_min)
    assert one.turn() == again_s, "woken too early, it waits on"
    assert worker.diary.count("open camera") == 1
    clock.advance(Limits().backoff_s_min)
    one.turn()
    assert worker.diary == ["open camera", "close camera", "open camera"]
    assert one.trouble == ""
    assert one.restarts == 1


def test_a_failed_open_is_closed_too_for_it_may_hold_half_of_what_it_needs() -> None:
    worker = Script("panel")
    worker.opens = [Transient("panel: pin 17 is in use")]
    life(worker, FakeClock()).turn()
    assert worker.diary == ["open panel", "close panel"]


def test_the_pause_doubles_up_to_its_cap_and_a_long_life_forgives() -> None:
    clock = FakeClock()
    worker = Script("uplink", *[Transient("gone")] * 12)
    one = life(worker, clock)
    pauses = []
    for _ in range(9):
        one.turn()
        pauses.append(one.turn() - clock.boot_ns() / NS)
        clock.advance(pauses[-1])
    assert pauses == [pytest.approx(s) for s in (0.5, 1, 2, 4, 8, 16, 30, 30, 30)]
    one.turn()
    clock.advance(Limits().settled_s)
    assert one.turn() - clock.boot_ns() / NS == pytest.approx(0.5)


def test_jitter_takes_off_half_at_most() -> None:
    assert backoff_s(3, Limits(), 0.0) == 4.0
    assert backoff_s(3, Limits(), 1.0) == 2.0
    assert backoff_s(10_000, Limits(), 0.0) == 30.0, "no overflow after years"


def test_the_world_never_uses_up_the_budget_but_bugs_do() -> None:
    clock = FakeClock()
    full_disk = life(Script("recorder", *[Transient("the disk is full")] * 500), clock)
    for _ in range(500):
        clock.advance(full_disk.turn() - clock.boot_ns() / NS)
    assert full_disk.restarts > 200
    assert not full_disk.exhausted(clock.boot_ns() / NS)

    buggy = life(Script("vision", *[ZeroDivisionError()] * 8), clock)
    for failures in range(1, 9):
        buggy.turn()
        clock.advance(buggy.turn() - clock.boot_ns() / NS)
        assert buggy.exhausted(clock.boot_ns() / NS) == (failures == 8)


def test_bugs_that_are_far_apart_are_forgiven() -> None:
    clock = FakeClock()
    buggy = life(Script("vision", *[KeyError("x")] * 30), clock)
    for _ in range(30):
        buggy.turn()
        buggy.turn()
        clock.advance(Limits().window_s / 7)
        assert not buggy.exhausted(clock.boot_ns() / NS)


def test_a_bug_is_logged_in_one_line_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    one = life(Script("vision", ValueError("two\nlines")), FakeClock())
    one.turn()
    one.turn()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "\n" not in record.getMessage()
    assert "ValueError: two | lines" in record.getMessage() and "test_supervisor.py" in record.getMessage()


# -- the whole, on real threads ------------------------------------------------------------------------------------


def supervisor(
    *workers: Script, limits: Limits = QUICK, rss_bytes: Callable[[], int] | None = None
) -> tuple[Supervisor, Listener, list[int]]:
    listener, exits = Listener(), list[int]()
    made = Supervisor(
        workers,
        clock=SystemClock(),
        notify=listener,
        limits=limits,
        exit_now=exits.append,
        jitter=lambda: 0.0,
        rss_bytes=rss_bytes,
    )
    return made, listener, exits


def when(seen: Callable[[], bool], act: Callable[[], object]) -> None:
    """Does `act`, from another thread, as soon as `seen` is true; after WAIT_S_MAX all the same, and the test sees what
    it has not got. A fixed pause instead would be too short on a busy machine."""

    def wait() -> None:
        by = time.monotonic() + WAIT_S_MAX
        while not seen() and time.monotonic() < by:
            threading.Event().wait(0.005)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_workers_start_in_order_and_stop_in_reverse_and_systemd_is_told() -> None:
    diary: list[str] = []
    workers = [Script(name, diary=diary) for name in ("panel", "recorder", "camera")]
    made, listener, _ = supervisor(*workers)
    when(lambda: "STATUS=well: 3 workers" in listener.said, made.ask_to_stop)
    assert made.run() == EXIT_STOPPED
    assert diary == [
        "open panel",
        "open recorder",
        "open camera",
        "close camera",
        "close recorder",
        "close panel",
    ]
    assert listener.said.count("READY=1") == 1
    assert listener.said.index("STATUS=starting camera") < listener.said.index("READY=1")
    assert "STATUS=well: 3 workers" in listener.said
    assert "WATCHDOG=1" in listener.said
    assert listener.said.index("READY=1") < listener.said.index("STOPPING=1")
    assert made.left_running == ()


def test_sigterm_stops_cleanly() -> None:
    worker = Script("recorder")
    made, _, _ = supervisor(worker)
    before = signal.getsignal(signal.SIGTERM)
    when(lambda: worker.steps > 0, lambda: os.kill(os.getpid(), signal.SIGTERM))  # by then its handler is ours
    assert made.run() == EXIT_STOPPED
    assert worker.diary[-1] == "close recorder"
    assert signal.getsignal(signal.SIGTERM) == before


def test_who_has_time_wakes_in_company_and_who_has_not_wakes_alone() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(1000):
        now_s, pause_s = draw.uniform(0, 1e7), draw.choice([1.0, draw.uniform(0.8, 100)])
        whole_s = in_company_s(pause_s, now_s)
        assert pause_s - 1e-6 <= whole_s <= pause_s + COMPANY_S + 1e-6, "a little later, never earlier"
        beat = (now_s + whole_s - 0.02) / COMPANY_S
        assert abs(beat - round(beat)) < 1e-3, "all at the same moments"
    assert in_company_s(0.5, 1234.567) == 0.5, "a light that blinks"
    assert in_company_s(0.0, 1234.567) == 0.0


def test_what_waits_for_the_start_is_done_once_and_not_before_the_last_worker_has_tried() -> None:
    diary: list[str] = []
    last = Script("last", diary=diary)
    last.opens.append(Transient("unplugged"))
    listener = Listener()
    made = Supervisor(
        [Script("first", diary=diary), last],
        clock=SystemClock(),
        notify=listener,
        limits=QUICK,
        on_ready=lambda: diary.append("ready"),
    )
    when(lambda: listener.said.count("WATCHDOG=1") > 3, made.ask_to_stop)
    assert made.run() == EXIT_STOPPED
    assert diary.count("ready") == 1
    assert diary.index("open first") < diary.index("open last") < diary.index("ready")


def test_a_post_whose_camera_is_unplugged_is_ready_all_the_same() -> None:
    camera = Script("camera")
    camera.opens = [Transient("camera: not found")] * 1000
    made, listener, _ = supervisor(Script("uplink"), camera)
    when(lambda: {"READY=1", "STATUS=camera: camera: not found"} <= set(listener.said), made.ask_to_stop)
    assert made.run() == EXIT_STOPPED
    assert "READY=1" in listener.said
    assert "STATUS=camera: camera: not found" in listener.said


def test_a_config_error_at_the_start_ends_with_78(caplog: pytest.LogCaptureFixture) -> None:
    panel = Script("panel")
    panel.opens = [ConfigError("panel.bell: BCM pin 17 is taken")]
    made, listener, _ = supervisor(Script("uplink"), panel)
    assert made.run() == EXIT_CONFIG
    assert "READY=1" not in listener.said
    assert any("panel.bell: BCM pin 17 is taken" in r.getMessage() for r in caplog.records if r.levelname == "CRITICAL")


def test_a_config_error_later_does_not_end_a_post_that_runs() -> None:
    worker = Script("vision", ConfigError("the model has been deleted"))
    made, _, _ = supervisor(worker)
    when(lambda: worker.steps == 2, made.ask_to_stop)
    assert made.run() == EXIT_STOPPED
    assert worker.diary.count("open vision") == 2


def test_too_many_bugs_end_the_process_with_70_and_the_others_are_closed_properly() -> None:
    recorder = Script("recorder")
    made, _, _ = supervisor(recorder, Script("vision", *[RuntimeError("bug")] * 100))
    assert made.run() == EXIT_BUG
    assert recorder.diary == ["open recorder", "close recorder"]


def test_a_stuck_worker_is_not_called_again_the_others_are_stopped_and_the_process_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    never = threading.Event()
    camera, recorder = Script("camera", never, step_s_max=0.05), Script("recorder")
    made, listener, exits = supervisor(recorder, camera)

    def leave(code: int) -> None:
        exits.append(code)
        made.ask_to_stop()

    made._exit_now = leave
    assert made.run() == EXIT_STOPPED  # only because this exit_now returns
    never.set()
    assert exits[0] == EXIT_STUCK
    assert camera.diary[:1] == ["open camera"] and "close camera" not in camera.diary[: camera.steps]
    assert recorder.diary == ["open recorder", "close recorder"], "footage was sealed before leaving"
    assert "STATUS=stuck: camera" in listener.said
    assert "WATCHDOG=1" not in listener.said[listener.said.index("STATUS=stuck: camera") :]
    stack = next(r.getMessage() for r in caplog.records if "stuck in step" in r.getMessage())
    assert "_do (unit/test_supervisor.py" in stack, "the log names the call that hangs"
    assert "camera" in made.left_running


def test_a_real_process_leaves_a_real_hang_with_71_and_seals_first(tmp_path: Path) -> None:
    script = tmp_path / "node.py"
    script.write_text(
        "import ctypes, sys\n"
        "from agent.clock import SystemClock\n"
        "from agent.notify import Notifier\n"
        "from agent.supervisor import Limits, Supervisor\n"
        "class Camera:\n"
        "    name, step_s_max = 'camera', 0.1\n"
        "    def open(self): pass\n"
        "    def step(self, now): ctypes.CDLL(None).pause()  # a call into C that never comes back\n"
        "    def close(self): print('closed a stuck library', flush=True)\n"
        "class Recorder(Camera):\n"
        "    name, step_s_max = 'recorder', 60\n"
        "    def step(self, now): return now + 1\n"
        "    def close(self): print('sealed', flush=True)\n"
        "limits = Limits(poll_s=0.02, stuck_grace_s=0.1, stop_s_max=30)\n"
        "notify = Notifier(address=None, watchdog_s=None)\n"
        "sys.exit(Supervisor([Recorder(), Camera()], clock=SystemClock(), notify=notify, limits=limits).run())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=90, env=environment)
    assert ended.returncode == EXIT_STUCK, ended.stderr
    assert ended.stdout == "sealed\n"
    assert "camera: stuck in step for more than 0.1 s" in ended.stderr


def test_a_worker_that_comes_back_within_the_grace_is_forgiven() -> None:
    slow = threading.Event()
    worker = Script("uplink", slow, step_s_max=0.05)
    made, listener, exits = supervisor(worker, limits=Limits(poll_s=0.005, stuck_grace_s=2 * WAIT_S_MAX, stop_s_max=30))
    stuck = "STATUS=stuck: uplink"
    when(lambda: stuck in listener.said, slow.set)
    when(
        lambda: stuck in listener.said and "WATCHDOG=1" in listener.said[listener.said.index(stuck) :], made.ask_to_stop
    )
    assert made.run() == EXIT_STOPPED
    assert exits == []
    assert "WATCHDOG=1" in listener.said[listener.said.index(stuck) :]


def test_a_clean_stop_is_bounded_and_names_who_did_not_come() -> None:
    never = threading.Event()
    camera, recorder = Script("camera", never), Script("recorder")
    made, _, _ = supervisor(recorder, camera, limits=Limits(poll_s=0.005, stop_s_max=6))
    when(lambda: camera.steps > 0, made.ask_to_stop)
    assert made.run() == EXIT_STOPPED
    assert not never.is_set(), "it did not wait for who never comes"
    assert made.left_running == ("camera",)
    assert recorder.diary[-1] == "close recorder"
    never.set()


def test_an_inbox_wakes_its_worker() -> None:
    got: list[int | None] = []
    done = threading.Event()

    class Reader(Script):
        def step(self, now: float) -> float:
            while (item := inbox.get()) is not None:
                got.append(item)
                done.set()
            self.steps += 1
            return now + 3600

    inbox: Inbox[int] = Inbox(8, WhenFull.REFUSE)
    reader = Reader("reader")
    made, _, _ = supervisor(reader)
    inbox.wake = made.waker("reader")
    when(lambda: reader.steps == 1, lambda: inbox.put(7))
    when(lambda: done.is_set() and reader.steps > 1, made.ask_to_stop)
    assert made.run() == EXIT_STOPPED
    assert got == [7]
    assert reader.steps <= 3, "woken once, it sleeps again"


def test_a_leak_ends_the_process_cleanly_before_the_kernel_does() -> None:
    worker = Script("recorder")
    made, _, _ = supervisor(worker, rss_bytes=lambda: 10**9)
    assert made.run() == EXIT_BUG
    assert worker.diary == ["open recorder", "close recorder"]


def test_threads_have_a_budget_and_names_are_unique() -> None:
    with pytest.raises(ValueError, match="budget"):
        supervisor(*[Script(str(i)) for i in range(WORKERS_MAX + 1)])
    with pytest.raises(ValueError, match="same name"):
        supervisor(Script("camera"), Script("camera"))


def test_what_only_a_new_process_cures_ends_this_one_but_not_at_once() -> None:
    """The camera's library hangs: the post restarts itself, and does not fall into a crash loop over it."""
    clock = FakeClock()
    camera = Script("camera", NeedsRestart("picamera2: did not stop within 5 s"))
    supervisor = Supervisor([camera], clock=clock, notify=Listener(), exit_now=lambda _: None)
    life = supervisor.lives["camera"]
    supervisor._started.append(supervisor._threads["camera"])
    supervisor._ready = True
    assert supervisor.look(clock.boot_ns() / NS) is None
    life.turn()
    life.turn()
    assert life.hopeless
    assert list(life.bugs) == [], "not a bug of ours"
    assert supervisor.look(clock.boot_ns() / NS) is None, "it has only just started"
    clock.advance(61)
    assert supervisor.look(clock.boot_ns() / NS) == EXIT_STUCK


@pytest.mark.parametrize(("name", "code"), [("uplink", EXIT_AGAIN), ("camera", EXIT_STUCK)])
def test_a_lost_network_is_never_counted_towards_a_reboot(name: str, code: int) -> None:
    """A name server that never answers keeps the uplink for ever: a new process, but nothing that escalates."""
    never = threading.Event()
    made, _, exits = supervisor(Script("recorder"), Script(name, never, step_s_max=0.05))
    made._on_network = frozenset({"uplink"})

    def leave(code: int) -> None:
        exits.append(code)
        made.ask_to_stop()

    made._exit_now = leave
    made.run()
    never.set()
    assert exits[0] == code
