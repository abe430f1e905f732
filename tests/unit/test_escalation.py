"""deploy/wardpost-escalate: when a forced reboot is due, and how often at most. Its clock is driven; its children are real."""

from __future__ import annotations

import errno
import importlib.machinery
import importlib.util
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agent import boot
from agent.disk import PosixDisk
from agent.recording.recover import Recovery
from agent.store.store import SessionRow
from agent.supervisor import EXIT_AGAIN, EXIT_BUG, EXIT_CONFIG, EXIT_STOPPED, EXIT_STUCK
from agent.types import NS
from tests.fakes.clock import FakeClock

DEPLOY = Path(__file__).parents[2] / "deploy"
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


def load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("wardpost_escalate", str(DEPLOY / "wardpost-escalate"))
    spec = importlib.util.spec_from_loader("wardpost_escalate", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    old, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = old
    return module


escalate: Any = load()


def signs(**changed: object) -> Any:
    well = escalate.Signs(
        uptime_s=HOUR_S, hangs_s=0.0, refuses_s=0.0, refusal="", ends_s=(), run_s=30 * DAY_S, spent_s=()
    )
    return well._replace(**changed)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, ""),
        ({"hangs_s": 179.0}, ""),
        ({"hangs_s": 180.0}, "has not answered for 180 s"),
        ({"refuses_s": 599.0, "refusal": "Read-only file system"}, ""),
        ({"refuses_s": 600.0, "refusal": "Read-only file system"}, "refuses to be written for 600 s: Read-only"),
        ({"ends_s": tuple(HOUR_S - 700 + n for n in range(9))}, ""),
        ({"ends_s": tuple(HOUR_S - 700 + n for n in range(10))}, "ended badly 10 times within 700 s"),
        ({"ends_s": tuple(HOUR_S - 590 + n for n in range(100))}, ""),  # the launcher's turn first
        ({"ends_s": tuple(HOUR_S - 1801 - n for n in range(100))}, ""),  # it is over
    ],
)
def test_what_is_trouble(changed: dict[str, object], words: str) -> None:
    found = escalate.trouble(signs(**changed))
    assert words in found and bool(found) == bool(words)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, ""),
        ({"spent_s": (30 * DAY_S - 59 * 60,)}, "less than 3600 s"),
        ({"spent_s": (30 * DAY_S - 61 * 60,)}, ""),
        ({"spent_s": tuple(30 * DAY_S - n * 2 * HOUR_S for n in range(1, 5))}, "4 forced reboots within a day"),
        ({"spent_s": tuple(30 * DAY_S - n * 7 * HOUR_S for n in range(1, 5))}, ""),
        ({"spent_s": None, "uptime_s": 5.9 * HOUR_S}, "it cannot be written down"),
        ({"spent_s": None, "uptime_s": 6.0 * HOUR_S}, ""),
    ],
)
def test_what_holds_a_reboot_back(changed: dict[str, object], words: str) -> None:
    found = escalate.held_back(signs(**changed))
    assert words in found and bool(found) == bool(words)


@pytest.mark.parametrize("writable", [True, False])
def test_a_post_whose_trouble_never_ends_reboots_four_times_a_day_and_no_more(writable: bool, seed: int) -> None:
    """Five days in which nothing helps, with power cuts between: whatever is remembered, the bound holds."""
    rng = random.Random(seed)
    run_s = boot_s = 0.0
    spent: list[float] = []
    while run_s < 5 * DAY_S:
        run_s += 60
        uptime_s = run_s - boot_s
        now = signs(
            uptime_s=uptime_s,
            hangs_s=0.0 if writable else uptime_s,
            ends_s=tuple(uptime_s - 1000 + n for n in range(20)) if uptime_s > 1000 else (),
            run_s=run_s,
            spent_s=tuple(spent[-8:]) if writable else None,
        )
        if escalate.trouble(now) and not escalate.held_back(now):
            spent.append(run_s)
            boot_s = run_s
        elif rng.random() < 6e-4:
            boot_s = run_s
    for at_s in spent:
        assert len([other for other in spent if at_s - DAY_S < other <= at_s]) <= 4
    assert len(spent) > 9, "it must not give up either"


@pytest.mark.parametrize(
    ("environment", "bad"),
    [
        (("success", "exited", str(EXIT_STOPPED)), False),
        (("success", "killed", "TERM"), False),  # a stop during the start
        (("exit-code", "exited", str(EXIT_CONFIG)), False),  # a person must act
        (("exit-code", "exited", str(EXIT_AGAIN)), False),  # never for a lost network
        (("exit-code", "exited", str(EXIT_BUG)), True),
        (("exit-code", "exited", str(EXIT_STUCK)), True),
        (("exit-code", "exited", "203"), True),  # the program cannot be read
        (("signal", "killed", "SEGV"), True),
        (("core-dump", "dumped", "ABRT"), True),
        (("watchdog", "killed", "ABRT"), True),
        (("oom-kill", "killed", "KILL"), True),
        (("timeout", "killed", "KILL"), True),
        (("", "", ""), False),  # started by hand
    ],
)
def test_which_ends_of_the_node_count(environment: tuple[str, str, str], bad: bool) -> None:
    assert escalate.bad_end(*environment) is bad


def test_systemd_starts_it_at_each_end_and_it_notes_the_bad_ones(tmp_path: Path) -> None:
    for result, status, noted in (("exit-code", "71", 1), ("exit-code", "75", 1), ("success", "0", 1)):
        done = subprocess.run(
            [sys.executable, "-I", DEPLOY / "wardpost-escalate", "--ended", "--ends", tmp_path / "ends"],
            env={"SERVICE_RESULT": result, "EXIT_CODE": "exited", "EXIT_STATUS": status},
            check=False,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        assert len(escalate.read_ends(tmp_path / "ends")) == noted


def test_the_ends_of_a_boot_are_bounded_and_rubbish_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ends"
    for n in range(escalate.ENDS_KEPT + 20):
        escalate.note_end(str(path), float(n), {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "9"})
    found = escalate.read_ends(str(path))
    assert len(found) == escalate.ENDS_KEPT and found[-1] == escalate.ENDS_KEPT + 19
    path.write_bytes(b"\xff\x00nonsense\n")
    assert escalate.read_ends(str(path)) == () == escalate.read_ends(str(tmp_path / "none"))


class Post:
    """A guard on a folder, whose clock the test drives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fstab = folder / "fstab"
        self.fstab.write_text("")
        self.data = folder / "data"
        self.data.mkdir()
        self.ends = folder / "ends"
        self.now_s = 20.0
        self.hangs = False
        self.watch = self.boot()

    def boot(self) -> Any:
        return escalate.Watch(str(self.data), str(self.ends), fstab=str(self.fstab))

    def run(self, for_s: float, each: Callable[[], None] = lambda: None, *, step_s: float = 30.0) -> str:
        """Looks each `step_s`; the reason, as soon as there is one."""
        until_s = self.now_s + for_s
        while self.now_s < until_s:
            self.now_s += step_s
            each()
            why = str(self.watch.look(self.now_s))
            if why:
                return why
            if self.watch.child is not None and not self.hangs:
                for _ in range(60_000):  # what takes milliseconds on the card takes none of the driven clock
                    if self.watch.child.answer() is not None:
                        break
                    time.sleep(0.0005)
        return ""

    def dies(self) -> None:
        environment = {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "SEGV"}
        escalate.note_end(str(self.ends), self.now_s, environment)

    @property
    def remembered(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "escalation/state.json").read_text())
        return found


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path)


def test_a_post_that_is_well_is_left_alone_and_counts_its_hours(post: Post) -> None:
    assert post.run(HOUR_S, step_s=120) == ""
    assert post.remembered["reboots"] == [] and 3300 < post.remembered["run_s"] <= 3600


def test_a_node_that_keeps_dying_reboots_the_machine_and_the_next_boot_knows_why(post: Post) -> None:
    assert "ended badly" in post.run(2000, post.dies)
    (one,) = post.remembered["reboots"]
    assert "ended badly" in one["why"] and re.fullmatch(r"[0-9a-f-]{36}", one["boot"])
    # The machine starts again, and nothing is better.
    post.ends.unlink()
    post.watch, began_s = post.boot(), post.now_s
    assert "ended badly" in post.run(2 * HOUR_S, post.dies, step_s=60)
    assert post.now_s - began_s > HOUR_S and len(post.remembered["reboots"]) == 2


def test_a_routine_save_that_is_still_at_work_does_not_undo_the_last_word(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next boot knows of no reboot, and the bound of four a day is none."""
    save = escalate.Memory.save

    def slow(memory: Any) -> None:
        time.sleep(0.0 if memory.reboots else 0.3)
        save(memory)

    post.run(120)
    for _ in range(10):
        post.now_s += 70
        post.dies()
    monkeypatch.setattr(escalate.Memory, "save", slow)
    post.watch.asked_s = float("-inf")  # this look begins a routine save, and decides
    assert "ended badly" in post.watch.look(post.now_s + 1)
    if post.watch.child is not None:
        os.waitpid(post.watch.child.pid, 0)
    assert len(post.remembered["reboots"]) == 1


def test_a_partition_that_turned_read_only_reboots_after_ten_minutes_if_the_machine_is_old(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.now_s = 7 * HOUR_S
    assert post.run(600) == ""

    def refuse(_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(escalate.Memory, "save", refuse)
    began_s = post.now_s
    why = post.run(HOUR_S)
    assert "refuses to be written" in why and "Read-only file system" in why
    assert 600 <= post.now_s - began_s < 700
    # The next boot finds it so, too, and waits for six hours, for nothing can be written down.
    monkeypatch.setattr(escalate.Memory, "load", refuse)
    post.watch, post.now_s = post.boot(), 20.0
    assert "refuses" in post.run(7 * HOUR_S, step_s=240)
    assert 6 * HOUR_S <= post.now_s < 6.1 * HOUR_S


def test_a_full_partition_is_no_reason(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(escalate.Memory, "save", refuse)
    post.now_s = 7 * HOUR_S
    assert post.run(HOUR_S) == ""


def test_a_card_that_hangs_holds_up_nothing(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post.now_s = 7 * HOUR_S
    post.run(120)
    post.hangs = True
    monkeypatch.setattr(escalate.Memory, "save", lambda _: time.sleep(60))
    began = time.monotonic()
    assert "has not answered for" in post.run(HOUR_S)
    assert time.monotonic() - began < 50, "the guard itself never waits for the card"
    assert 7 * HOUR_S + 300 <= post.now_s < 7 * HOUR_S + 600
    os.kill(post.watch.child.pid, signal.SIGKILL)
    os.waitpid(post.watch.child.pid, 0)


def test_a_data_partition_that_is_not_mounted_is_refused_and_nothing_is_written_below(post: Post) -> None:
    post.fstab.write_text(f"# comment\nLABEL=x {post.data} ext4 nofail 0 2\n")
    post.now_s = 7 * HOUR_S
    assert "it is not mounted" in post.run(HOUR_S)
    assert list(post.data.iterdir()) == []


@pytest.mark.parametrize("rubbish", [b"", b"\x00" * 50, b'{"run_s": "x", "reboots": 3}', b'{"run_s": 5}', b"[]"])
def test_a_damaged_memory_is_begun_anew(post: Post, rubbish: bytes) -> None:
    (post.data / "escalation").mkdir()
    (post.data / "escalation/state.json").write_bytes(rubbish)
    assert post.run(600) == ""
    assert post.remembered["reboots"] == []


def test_the_unit_and_the_program_agree() -> None:
    unit = (DEPLOY / "wardpost-escalate.service").read_text()
    assert f"RestartPreventExitStatus={escalate.EXIT_REBOOT}\n" in unit
    assert "OnFailure=wardpost-reboot.service\n" in unit and "FailureAction=" not in unit.replace("(FailureAction=", "")
    assert "SuccessAction=reboot-force" in (DEPLOY / "wardpost-reboot.service").read_text()
    starts, hours = int(re.findall(r"StartLimitBurst=(\d+)", unit)[0]), int(re.findall(r"IntervalSec=(\d+)h", unit)[0])
    minutes = int(re.findall(r"RestartSec=(\d+)min", unit)[0])
    assert starts * minutes >= 24 * 60 / escalate.REBOOTS_MAX, "a guard that cannot live must keep the bound as well"
    assert starts * minutes < hours * 60
    (watchdog_s,) = re.findall(r"WatchdogSec=(\d+)s", unit)
    assert float(watchdog_s) > escalate.SAVE_S_MAX + 2 * escalate.LOOK_S
    node = (DEPLOY / "wardpost-node.service").read_text()
    assert "ExecStopPost=-/usr/bin/python3 -I /usr/local/lib/wardpost/wardpost-escalate --ended\n" in node
    assert "RuntimeDirectoryPreserve=yes" in node, "or the ends are forgotten with each of them"


def test_headquarters_hears_why_the_machine_was_rebooted(post: Post) -> None:
    """The account of a dark minute: a power cut and a forced reboot look alike, but for this file."""
    post.run(700, post.dies)
    disk = PosixDisk(post.data)
    clock = FakeClock()
    ended = SessionRow(session=1, boot_id=clock_boot(post), start_ns=0, alive_ns=NS, stop=None)

    def told(before: SessionRow) -> str:
        forced = boot.forced_reboots(disk)
        return boot.notices(before, Recovery(), None, clock, lambda: "id", forced=forced)[0].summary

    assert "the machine was rebooted, because the node ended badly" in told(ended)
    assert "power cut" in told(replace(ended, boot_id="a" * 32))
    (post.data / "escalation/state.json").write_bytes(b"\xff\x00[")
    assert "power cut" in told(ended)


def clock_boot(post: Post) -> str:
    return str(post.remembered["reboots"][0]["boot"]).replace("-", "")
