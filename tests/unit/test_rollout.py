"""A release over a fleet of simulated nodes: a good one reaches all, a bad one stops in its first ring, and nothing that
is dark, flaps, or jumps in time makes it go on too early or wait for ever.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.errors import ConfigError
from agent.station import rollout
from agent.station.rings import RingSettings, RingsFile, begun, wanted
from agent.station.rings import Start as StartAsked
from agent.station.rollout import FLAPS_MAX, RESTARTS_MAX, RETRY_S, TRIES_MAX, Has, Post, Rollout, Rules, Seen, State

STEP_S = 10.0
NUMBER = 42


@dataclass
class Node:
    """A post that installs what it is told, after some time."""

    name: str
    install_s: float = 60.0
    good: bool = True  # the release does well here
    number: int = 41
    heard: bool = True
    fit: bool = True
    session: int = 7
    told: int = 0
    left_s: float | None = None
    gave_up: bool = False
    order: str = ""
    answer: str = ""
    at: Callable[[Node, float], None] = lambda _node, _now: None

    def tell(self) -> None:
        self.told += 1
        self.left_s, self.order = self.install_s, "waiting"

    def live(self, now_s: float) -> None:
        self.at(self, now_s)
        if self.left_s is None or not self.heard:
            return
        self.left_s -= STEP_S
        if self.left_s <= 0:
            self.left_s, self.order = None, "done"
            self.session += 1
            if self.good:
                self.number = NUMBER
            else:
                self.gave_up = True

    def seen(self) -> Seen:
        gone = {"tried": NUMBER, "phase": "rolled-back", "why": "no frames within 300 s"} if self.gave_up else {}
        return Seen(
            heard=self.heard,
            fit=self.fit,
            session=self.session,
            number=self.number,
            order=self.order,
            answer=self.answer,
            **gone,  # type: ignore[arg-type]
        )


@dataclass
class Fleet:
    """Nodes, a rollout over them, and a time that the test drives."""

    nodes: dict[str, Node]
    now: Rollout
    now_s: float = 0.0
    log: list[str] = field(default_factory=list)
    at_once: int = 0
    ring_began: dict[int, float] = field(default_factory=dict)

    def run(self, seconds: float, *, connected: bool = True) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s and self.now.state is State.RUNNING:
            self.now_s += STEP_S
            for node in self.nodes.values():
                node.live(self.now_s)
            if not connected:
                continue
            found = rollout.step(self.now, {n.name: n.seen() for n in self.nodes.values()}, elapsed_s=STEP_S)
            self.now = rollout.with_orders(found.rollout, {name: f"order-{name}" for name in found.tell})
            self.log += found.log
            for name in found.tell:
                self.nodes[name].tell()
            self.ring_began.setdefault(self.now.ring, self.now_s)
            self.at_once = max(self.at_once, sum(post.has is Has.TOLD for post in self.now.posts))

    def has(self, what: Has) -> list[str]:
        return [post.node for post in self.now.posts if post.has is what]

    def post(self, name: str) -> Post:
        return next(post for post in self.now.posts if post.node == name)


def fleet(*sizes: int, soak_s: float = 600.0, rules: Rules | None = None, **node: Any) -> Fleet:
    names = [[f"n{ring}-{i:03}" for i in range(size)] for ring, size in enumerate(sizes)]
    rings = tuple(rollout.Ring(name=f"ring{ring}", soak_s=soak_s) for ring in range(len(sizes)))
    posts = tuple(Post(node=name, ring=ring) for ring, of_ring in enumerate(names) for name in of_ring)
    made = Rollout(
        id="r",
        number=NUMBER,
        url="https://x/42",
        bytes=1,
        sha256="a" * 64,
        rings=rings,
        rules=rules or Rules(),
        posts=posts,
    )
    return Fleet({post.node: Node(post.node, **node) for post in posts}, made)


def test_a_good_release_reaches_two_hundred_posts_through_three_rings() -> None:
    rng = random.Random(20)
    one = fleet(4, 36, 160)
    for node in one.nodes.values():
        node.install_s = rng.uniform(30, 900)
    one.run(86_400)
    assert one.now.state is State.DONE and len(one.has(Has.CONFIRMED)) == 200
    assert {node.told for node in one.nodes.values()} == {1}, "each is told once"
    assert one.at_once == one.now.rules.parallel_nodes_max
    assert one.ring_began[1] >= 600 and one.ring_began[2] >= one.ring_began[1] + 600, "each ring soaks"
    assert "200 of 200 posts confirmed" in one.now.why


def test_a_bad_release_stops_in_the_first_ring_and_the_others_never_hear_of_it() -> None:
    one = fleet(4, 36, 160, good=False)
    one.run(86_400)
    assert one.now.state is State.STOPPED and one.now.ring == 0
    assert "ring0" in one.now.why and "no frames within 300 s" in one.now.why
    assert not [name for name, node in one.nodes.items() if node.told and not name.startswith("n0")]


def test_a_release_that_is_bad_for_some_boards_stops_before_a_ring_is_through() -> None:
    """Every third post of the large ring rolls back: twenty are under way at a time, so about so many are risked."""
    one = fleet(4, 160)
    for node in list(one.nodes.values())[4::3]:
        node.good = False
    one.run(86_400)
    assert one.now.state is State.STOPPED and one.now.ring == 1
    assert sum(node.told for node in one.nodes.values()) <= 4 + 2 * one.now.rules.parallel_nodes_max


def test_one_bad_board_in_a_hundred_does_not_stop_it_and_is_named() -> None:
    one = fleet(4, 100)
    one.nodes["n1-017"].good = False
    one.run(86_400)
    assert one.now.state is State.DONE
    assert one.has(Has.FAILED) == ["n1-017"]
    assert any(line.startswith("n1-017: failed: rolled back") for line in one.log)


def test_dark_posts_do_not_hold_a_ring_for_ever_and_are_told_when_they_are_back() -> None:
    one = fleet(4, 20)
    dark = one.nodes["n0-001"]
    dark.heard = False
    one.run(80_000)
    assert one.now.ring < 1 and dark.told < 1
    one.run(10_000)
    assert one.now.ring == 1, "after a day without news the ring goes on without it"
    one.run(5_000)
    assert one.now.state.value == "running" and len(one.has(Has.CONFIRMED)) == 23
    dark.heard = True
    one.run(200)
    assert dark.told == 1 and one.now.state is State.DONE


def test_a_ring_that_is_dark_altogether_lets_nobody_through() -> None:
    one = fleet(4, 20)
    for name in ("n0-000", "n0-001", "n0-002"):
        one.nodes[name].heard = False
    one.run(200_000)
    assert one.now.state is State.STOPPED and "only 1 of 4 confirmed" in one.now.why
    one.now = rollout.resumed(one.now)
    one.run(80_000)
    assert one.now.state is State.RUNNING, "resumed, the ring has its time anew"


def test_dark_to_the_end_it_ends() -> None:
    one = fleet(2, 10, soak_s=0.0, rules=Rules(leftover_s_max=10_000.0, straggler_s_max=1000.0))
    one.nodes["n1-003"].heard = False
    one.run(30_000)
    assert one.now.state is State.DONE and "1 never heard" in one.now.why


def test_a_post_that_is_heard_by_turns_is_told_once_and_holds_nobody_up() -> None:
    """Ten minutes an hour on the air: its installation takes days, and the ring goes on without it meanwhile."""

    def by_turns(node: Node, now_s: float) -> None:
        node.heard = now_s % 3600 < 600

    one = fleet(4, 20, rules=Rules(silent_s_max=7200.0))
    flapping = one.nodes["n0-002"]
    flapping.install_s, flapping.at = 15_000.0, by_turns
    one.run(100_000)
    assert one.now.ring == 1 and flapping.told == 1
    one.run(100_000)
    assert one.now.state is State.DONE and one.post("n0-002").has is Has.CONFIRMED


def test_a_release_under_which_frames_come_and_go_stops_in_the_soak() -> None:
    def by_turns(node: Node, now_s: float) -> None:
        node.fit = node.number < NUMBER or now_s % 120 < 60

    one = fleet(2, 20, at=by_turns)
    one.run(50_000)
    assert one.now.state is State.STOPPED and one.now.ring == 0
    assert f"no frames or no footage {FLAPS_MAX} times" in one.now.why


def test_a_post_without_frames_before_is_not_held_against_the_release() -> None:
    one = fleet(2, 20)
    one.nodes["n0-000"].fit = False
    one.run(50_000)
    assert one.now.state is State.DONE


def test_frames_that_are_lost_by_the_release_stop_it() -> None:
    def blind(node: Node, _now_s: float) -> None:
        node.fit = node.number < NUMBER

    one = fleet(2, 20, at=blind, soak_s=3600.0)
    one.run(50_000)
    assert one.now.state is State.STOPPED and "no frames or no footage for" in one.now.why
    assert one.now_s < 60 + 900 + 60
    # It stays failed: what has the release and does badly is not good by having it.
    one.now = rollout.paused(one.now, "a person looks")
    found = rollout.step(one.now, {n.name: n.seen() for n in one.nodes.values()}, elapsed_s=5.0)
    assert {post.has for post in found.rollout.posts if post.ring == 0} == {Has.FAILED}


def test_an_agent_that_starts_anew_again_and_again_stops_it() -> None:
    def crashing(node: Node, now_s: float) -> None:
        if node.number == NUMBER and now_s % 100 == 0:
            node.session += 1

    one = fleet(2, 20, at=crashing)
    one.run(50_000)
    assert one.now.state is State.STOPPED and f"started anew {RESTARTS_MAX} times" in one.now.why


def test_a_post_that_never_comes_back_from_its_switch_is_a_failure_and_one_that_was_dark_before_is_none() -> None:
    one = fleet(4, 20)
    for name in ("n0-000", "n0-001"):
        one.nodes[name].install_s = 1e9

    def bricked(node: Node, now_s: float) -> None:
        if now_s > 300:
            node.heard, node.order = False, "done"

    one.nodes["n0-000"].at = bricked  # it has the release on its card
    one.nodes["n0-001"].at = lambda node, now_s: setattr(node, "heard", now_s <= 300)  # it was still fetching
    one.run(10_000)
    assert one.now.state is State.STOPPED
    assert one.has(Has.FAILED) == ["n0-000"] and "silent for" in one.post("n0-000").why


def test_time_in_which_nobody_looked_and_clocks_that_jump_count_nothing() -> None:
    one = fleet(2, 20, soak_s=3600.0)
    one.run(200)
    soaked_s = one.now.soaked_s
    assert 0 < soaked_s < 200
    # The broker is away for a day; the station is off for a week: at its first look a whole week has "passed".
    one.run(86_400, connected=False)
    seen = {n.name: n.seen() for n in one.nodes.values()}
    for elapsed_s in (7 * 86_400.0, -1e9, 0.0):
        one.now = rollout.step(one.now, seen, elapsed_s=elapsed_s).rollout
    assert one.now.soaked_s <= soaked_s + rollout.ELAPSED_S_MAX
    assert one.now.ring == 0 and one.now.state is State.RUNNING
    silent = {name: Seen(heard=False) for name in seen}
    one.now = rollout.step(one.now, silent, elapsed_s=30 * 86_400.0).rollout
    assert one.now.state is State.RUNNING, "a jump makes nobody silent for an hour"


def test_a_refusal_is_tried_again_and_three_are_a_failure() -> None:
    def busy(node: Node, _now_s: float) -> None:
        if node.left_s is not None and node.told < 3:
            node.left_s, node.order, node.answer = None, "failed", "release 41 is being tried"

    one = fleet(1, 5, at=busy)
    one.run(3 * RETRY_S)
    assert one.nodes["n0-000"].told == 3 and one.post("n0-000").has is Has.CONFIRMED

    def never(node: Node, _now_s: float) -> None:
        if node.left_s is not None:
            node.left_s, node.order, node.answer = None, "failed", "no room on the card"

    one = fleet(1, 5, at=never)
    one.run(5 * RETRY_S)
    assert one.nodes["n0-000"].told == TRIES_MAX
    assert one.now.state is State.STOPPED and "no room on the card" in one.now.why


def test_a_release_in_doubt_is_waited_for() -> None:
    """Rolled back for want of a broker alone: the node itself may try it once more."""
    one = fleet(1, 5)
    one.run(10)
    doubting = Seen(heard=True, number=41, tried=NUMBER, phase="rolled-back", doubt=True, order="done")
    found = rollout.step(one.now, {"n0-000": doubting}, elapsed_s=5.0)
    assert found.rollout.posts[0].has is Has.TOLD
    given_up = Seen(heard=True, number=41, tried=NUMBER, phase="failed", why="no broker", order="done")
    assert rollout.step(one.now, {"n0-000": given_up}, elapsed_s=5.0).rollout.state is State.STOPPED


def test_resumed_the_failures_are_excused_and_new_ones_stop_it_again() -> None:
    one = fleet(4, 20)
    one.nodes["n0-003"].good = False
    one.run(1000)
    assert one.now.state is State.STOPPED
    one.now = rollout.resumed(one.now)
    one.run(2000)
    assert one.now.ring == 1, "the failure that a person has looked at holds nobody up"
    one = fleet(4, 20, good=False)
    one.run(1000)
    one.now = rollout.resumed(one.now)
    one.run(100_000)
    assert one.now.state is State.STOPPED, "nothing but failures is no proof of a release"
    assert not [name for name, node in one.nodes.items() if node.told and name.startswith("n1")]


def test_posts_that_have_it_already_are_not_told() -> None:
    one = fleet(2, 3)
    one.nodes["n0-000"].number = NUMBER
    one.nodes["n1-001"].number = NUMBER + 1
    one.run(50_000)
    assert one.now.state is State.DONE
    assert (one.nodes["n0-000"].told, one.nodes["n1-001"].told) == (0, 0)
    assert one.post("n1-001").why == "has release 43 already"


def test_a_paused_one_tells_nobody_and_a_command_that_was_withdrawn_is_given_again() -> None:
    one = fleet(2, 3)
    one.run(5)
    assert one.has(Has.TOLD) == ["n0-000", "n0-001"]
    one.now = rollout.taken_back(rollout.paused(one.now, "lunch"), ["n0-000"])
    seen = {n.name: n.seen() for n in one.nodes.values()}
    assert rollout.step(one.now, seen, elapsed_s=5.0).tell == ()
    found = rollout.step(rollout.resumed(one.now), seen, elapsed_s=5.0)
    assert found.tell == ("n0-000",)


# -- rings.toml -----------------------------------------------------------------------------------------------------


def test_rings_take_every_post_once_and_the_rest_is_last() -> None:
    first = RingSettings(name="first", nodes=("a",), soak_s=5.0)
    rest = RingSettings(name="rest", nodes=("*",))
    rings, rules = wanted(RingsFile(ring=(first, rest), failed_percent_max=5.0), ["c", "a", "b"])
    assert [(ring.name, ring.nodes, ring.soak_s) for ring in rings] == [
        ("first", ("a",), 5.0),
        ("rest", ("b", "c"), 86_400.0),
    ]
    assert rules == Rules(failed_percent_max=5.0)
    asked = StartAsked(number=42, url="https://x", bytes=1, sha256="a" * 64, rings=rings, rules=rules)
    assert [(post.node, post.ring) for post in begun(asked, "r").posts] == [("a", 0), ("b", 1), ("c", 1)]
    twice = RingSettings(name="twice", nodes=("a", "b"))
    for ring, why in (
        ((rest, first), "in the last ring"),
        ((first, twice), "a is in ring first already"),
        ((first, first), "already"),
    ):
        with pytest.raises(ConfigError, match=why):
            wanted(RingsFile(ring=ring), ["a", "b"])
    with pytest.raises(ConfigError, match="no other post was ever heard"):
        wanted(RingsFile(ring=(first, rest)), ["a"])
