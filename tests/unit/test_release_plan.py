"""Which release runs: decisions alone, and the launcher's own copy of the one that it must make without any library."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.errors import Corrupt
from agent.release import plan, starts
from agent.release.plan import Act, Candidate, Limits, Phase, Release, Seen, State
from tests.fakes.release import launcher

LIMITS = Limits(settle_s=45, gate_s=300, network_s=900)
OLD, NEW = Release(slot="7", number=7, version="1.7"), Release(slot="8", number=8, version="1.8")
GOOD = State(good=OLD, highest=7)
BOOT = "b" * 32
WELL = Seen(up_s=60, frames=True, storage=True, broker=True)


def seen(up_s: float, *, frames: bool = True, storage: bool = True, broker: bool = True) -> Seen:
    return Seen(up_s=up_s, frames=frames, storage=storage, broker=broker)


def trying(**before: bool) -> State:
    return plan.started(plan.switched(plan.staged(GOOD, NEW), seen(1000, **before)), BOOT)


def phase(state: State) -> Phase | None:
    return None if state.candidate is None else state.candidate.phase


def test_a_good_release_is_installed_switched_and_confirmed() -> None:
    state = plan.staged(GOOD, NEW)
    assert (phase(state), plan.current(state)) == (Phase.STAGED, OLD)
    state = plan.started(plan.switched(state, WELL), BOOT)
    assert (phase(state), plan.current(state)) == (Phase.TRYING, NEW)
    assert plan.gate(state, seen(44), LIMITS).act is Act.WAIT, "not by its first frame"
    assert plan.gate(state, seen(45), LIMITS).act is Act.CONFIRM
    state = plan.confirmed(state)
    assert (state.good, state.before, state.highest, state.candidate) == (NEW, OLD, 8, None)
    assert plan.slots(state) == {"7", "8"}
    assert plan.decode(plan.encode(state)) == state


@pytest.mark.parametrize(
    ("before", "now", "act", "why"),
    [
        ({}, seen(299, frames=False), Act.WAIT, ""),
        ({}, seen(300, frames=False), Act.ROLL_BACK, "no frames within 300 s"),
        ({}, seen(300, storage=False), Act.ROLL_BACK, "its storage cannot be written within 300 s"),
        ({}, seen(899, broker=False), Act.WAIT, ""),
        ({}, seen(900, broker=False), Act.ROLL_BACK, "no broker within 900 s"),
        ({}, seen(300, frames=False, broker=False), Act.ROLL_BACK, "no frames and no broker within 300 s"),
        ({"frames": False}, seen(50, frames=False), Act.CONFIRM, ""),
        ({"broker": False}, seen(50, broker=False), Act.CONFIRM, ""),
        ({"broker": False}, seen(300, broker=False, frames=False), Act.ROLL_BACK, "no frames within 300 s"),
        (
            {"frames": False, "broker": False},
            seen(300, frames=False, broker=False, storage=False),
            Act.ROLL_BACK,
            "storage",
        ),
        ({"storage": False}, seen(300, storage=False), Act.ROLL_BACK, "storage"),
    ],
)
def test_a_release_must_do_what_the_one_before_did(before: dict[str, bool], now: Seen, act: Act, why: str) -> None:
    found = plan.gate(trying(**before), now, LIMITS)
    assert found.act is act
    assert why in found.why
    assert found.alone is (found.why == "no broker within 900 s")


def test_a_network_that_goes_away_costs_no_good_release() -> None:
    """Release 8 is fine; the network dies as it starts. 7 finds none either, so 8 gets another try, and is kept."""
    state = trying()
    first = plan.gate(state, seen(900, broker=False), LIMITS)
    state = plan.rolled_back(state, first.why, alone=first.alone)
    assert plan.current(state) == OLD
    assert plan.doubt(state, seen(899, broker=False), LIMITS).act is Act.WAIT
    assert plan.doubt(state, seen(900, broker=False), LIMITS).act is Act.TRY_AGAIN
    state = plan.started(plan.tried_again(state), BOOT)
    assert plan.current(state) == NEW
    assert plan.gate(state, seen(50, broker=False), LIMITS).act is Act.CONFIRM


def test_a_release_that_breaks_the_uplink_is_to_blame() -> None:
    """7 reaches a broker where 8 did not: 8 is given up, and not tried again by itself."""
    state = trying()
    state = plan.rolled_back(state, "no broker within 900 s", alone=True)
    found = plan.doubt(state, seen(20), LIMITS)
    assert found.act is Act.BLAME
    state = plan.blamed(state, found.why)
    assert phase(state) is Phase.FAILED
    assert plan.doubt(state, seen(5000, broker=False), LIMITS).act is Act.WAIT
    assert "was given up (no broker within 900 s, and the release before reaches one)" in plan.objection(state, 8)
    assert plan.objection(state, 8, by_hand=True) == ""
    assert plan.objection(state, 9) == ""


def test_what_was_rolled_back_for_more_than_the_network_is_not_tried_again() -> None:
    state = plan.rolled_back(trying(), "no frames within 300 s")
    assert plan.doubt(state, seen(5000, broker=False), LIMITS).act is Act.WAIT
    with pytest.raises(Corrupt, match="nothing is in doubt"):
        plan.tried_again(state)


def test_the_fourth_start_without_confirmation_is_that_of_the_release_before() -> None:
    state = plan.switched(plan.staged(GOOD, NEW), WELL)
    for number in range(1, starts.STARTS_MAX + 1):
        state = plan.started(state, BOOT)
        assert state.candidate is not None
        assert (state.candidate.starts, plan.current(state)) == (number, NEW)
    state = plan.started(state, BOOT)
    assert (phase(state), plan.current(state)) == (Phase.ROLLED_BACK, OLD)
    assert plan.started(state, BOOT) == state


def test_a_power_cut_is_no_crash_and_a_release_that_takes_the_machine_down_is_left_all_the_same() -> None:
    """A storm: seven cuts while a good release is on trial, and between them it crashes twice."""
    state = plan.switched(plan.staged(GOOD, NEW), WELL)
    for boot in range(starts.BOOTS_MAX):
        for _ in range(1 + (boot in (2, 5))):
            state = plan.started(state, f"boot {boot}")
            assert phase(state) is Phase.TRYING
    assert plan.gate(state, WELL, LIMITS).act is Act.CONFIRM
    state = plan.started(state, "one boot more")
    assert state.candidate is not None
    assert (phase(state), state.candidate.why) == (Phase.ROLLED_BACK, "8 boots without being confirmed")


def test_downgrade_and_replay_are_refused() -> None:
    confirmed = plan.confirmed(trying())
    back = plan.rolled_back(confirmed, "a person")
    assert (back.good, back.highest, phase(back)) == (OLD, 8, Phase.ROLLED_BACK)
    for state, number, match in (
        (GOOD, 7, "release 7 runs already"),
        (GOOD, 6, "is older than release 7"),
        (confirmed, 7, "is older than release 8"),
        (back, 8, "is older than release 8, which was confirmed"),
        (back, 7, "runs already"),
        (trying(), 9, "release 8 is being tried"),
        (plan.staged(GOOD, NEW), 8, "is installed already"),
        (plan.rolled_back(trying(), "crashed"), 8, r"was given up \(crashed\)"),
    ):
        assert match.replace("\\", "") in plan.objection(state, number)
        assert number < 8 or state is not back or plan.objection(state, number, by_hand=True), "also by hand"
    assert plan.objection(plan.staged(GOOD, NEW), 9) == ""
    assert plan.objection(back, 9) == ""


def test_acts_out_of_order_are_refused_in_one_line() -> None:
    acts: list[Callable[[], State]] = [
        lambda: plan.switched(GOOD, WELL),
        lambda: plan.confirmed(GOOD),
        lambda: plan.rolled_back(GOOD, "x"),
    ]
    for act in acts:
        with pytest.raises(Corrupt, match=r"^release: [^\n]*$"):
            act()
    for junk in (
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"v": 2, "good": {"slot": "7", "number": 7}}',
        b" " * 20_000,
        b"[" * 9000,
    ):
        with pytest.raises(Corrupt, match=r"^release state: [^\n]*$"):
            plan.decode(junk)
    with pytest.raises(Corrupt):
        plan.decode(b'{"good": {"slot": "../../etc", "number": 7}}')


# -- the launcher -----------------------------------------------------------------------------------------------------


class Memory:
    """What the launcher touches, in memory."""

    def __init__(self, state: bytes | None, *, now: str, whole: set[str]) -> None:
        self.state, self.now, self.present = state, now, whole
        self.refuses = False

    def boot(self) -> str:
        return BOOT

    def read(self) -> bytes | None:
        return self.state

    def save(self, data: bytes) -> None:
        if self.refuses:
            raise OSError(28, "No space left on device")
        self.state = data

    def target(self) -> str:
        return f"releases/{self.now}" if self.now else ""

    def point(self, slot: str) -> None:
        self.now = slot

    def whole(self, slot: str) -> bool:
        return slot in self.present

    def slots(self) -> list[str]:
        return sorted(self.present)


LAUNCH: Any = launcher()


def states() -> list[State]:
    candidates: list[Candidate | None] = [None]
    counts = itertools.product(range(starts.STARTS_MAX + 2), (0, 1, 7, 8, 9), ("", BOOT, "c" * 32))
    for one, (count, boots, boot), alone in itertools.product(Phase, counts, (False, True)):
        candidates.append(
            Candidate(release=NEW, phase=one, starts=count, boots=boots, boot=boot, tries=1, alone=alone, why="because")
        )
    return [State(good=OLD, before=before, highest=7, candidate=c) for c in candidates for before in (None, OLD)]


def test_the_launcher_decides_as_the_plan_does() -> None:
    """Its rule is a copy, for it must run when nothing of ours can be imported: here the two are held together."""
    assert (LAUNCH.STARTS_MAX, LAUNCH.BOOTS_MAX) == (starts.STARTS_MAX, starts.BOOTS_MAX)
    assert LAUNCH.STATE_BYTES_MAX == plan.STATE_BYTES_MAX
    for state, now in itertools.product(states(), ("7", "8", "")):
        files = Memory(plan.encode(state), now=now, whole={"7", "8"})
        LAUNCH.launch(files)
        expected = plan.started(state, BOOT)
        assert files.state is not None
        left = plan.decode(files.state)
        if left.candidate is not None and left != expected and expected.candidate is not None:
            expected = msgspec.structs.replace(
                expected, candidate=msgspec.structs.replace(expected.candidate, alone=left.candidate.alone)
            )
        assert left == expected, state
        assert files.now == plan.current(expected).slot


@pytest.mark.parametrize(
    "junk", [b"", b"null", b"[]", b"{", b'{"good": {}}', b'{"good": {"slot": "../x"}}', b"\xff" * 20_000]
)
def test_a_state_that_cannot_be_read_leaves_what_is_there(junk: bytes) -> None:
    files = Memory(junk, now="7", whole={"7", "8"})
    assert "cannot be read" in LAUNCH.launch(files)
    assert (files.now, files.state) == ("7", junk)
    files = Memory(junk, now="gone", whole={"7", "8", "9.new", "10"})
    assert "taking '10'" in LAUNCH.launch(files)
    assert files.now == "10"


def test_a_start_that_cannot_be_counted_is_not_made() -> None:
    """A full disk and a release that crashes: without the count it would be started for ever."""
    files = Memory(plan.encode(plan.switched(plan.staged(GOOD, NEW), WELL)), now="8", whole={"7", "8"})
    files.refuses = True
    assert "No space left" in LAUNCH.launch(files)
    assert files.now == "7"


def test_a_release_that_is_not_whole_is_left() -> None:
    files = Memory(plan.encode(trying()), now="8", whole={"7"})
    assert "not whole" in LAUNCH.launch(files)
    assert files.now == "7"
    assert json.loads(files.state or b"")["candidate"]["phase"] == "rolled-back"
    files = Memory(plan.encode(GOOD), now="", whole=set())
    assert "no release on this card" in LAUNCH.launch(files)


def test_the_launcher_on_a_real_folder(tmp_path: Path) -> None:
    """By the system's Python, isolated, as in the unit; twice, since the first may leave its temporary names."""
    import subprocess
    import sys

    for slot in ("7", "8"):
        (tmp_path / f"root/releases/{slot}/bin").mkdir(parents=True)
        for name in ("wardpost", "python"):
            (tmp_path / f"root/releases/{slot}/bin/{name}").touch()
    (tmp_path / "root/current").symlink_to("releases/7")
    (tmp_path / "root/current.launch").symlink_to("rubbish")
    state = tmp_path / "release/state.json"
    state.parent.mkdir()
    state.write_bytes(plan.encode(plan.switched(plan.staged(GOOD, NEW), WELL)))
    said = []
    for _ in range(starts.STARTS_MAX + 1):
        done = subprocess.run(
            [sys.executable, "-I", "deploy/wardpost-launch", "--root", str(tmp_path / "root"), "--state", str(state)],
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(((tmp_path / "root/current").readlink().name, done.stdout))
    assert [slot for slot, _ in said] == ["8", "8", "8", "7"]
    assert "start 1 of 3 of release 8 on trial; current -> 8" in said[0][1]
    assert "release 8 rolled back: 3 starts without being confirmed; current -> 7" in said[3][1]
    assert phase(plan.decode(state.read_bytes())) is Phase.ROLLED_BACK
