"""What a post decodes, from the sizes of packets alone: calm costs nothing, a visit wakes it, doubt costs decoding."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from agent.camera.vigilance import DOUBT_S, LEARN_S, LOOK_S, Attention, Order, Vigilance
from agent.types import NS

FPS = 15
GOP = 30
PIXELS = 1280 * 720


class Stream:
    """Packets of a camera at 15 fps, judged one by one."""

    def __init__(self, *, median: float = 1400, sigma: float = 150, gop: int = GOP, pixels: int = PIXELS) -> None:
        self.vigilance = Vigilance()
        self.attention = Attention()
        self.number = 0
        self.median, self.sigma, self.gop, self.pixels = median, sigma, gop, pixels
        self.rng = random.Random(5)
        self.orders: list[tuple[float, Order]] = []

    @property
    def now_s(self) -> float:
        return self.number / FPS

    def run(self, seconds: float, *, more: float = 0.0, seen: Callable[[Order], bool] = lambda _: False) -> list[Order]:
        """So many seconds with `more` bytes in each packet; `seen`: whether vision finds something in what it gets."""
        given = []
        for _ in range(round(seconds * FPS)):
            now_ns = round(self.now_s * NS)
            keyframe = self.number % self.gop == 0
            size = 70_000 if keyframe else round(max(self.rng.gauss(self.median + more, self.sigma), 20))
            order = self.vigilance.order(
                now_ns=now_ns, size=size, keyframe=keyframe, kind=1, pixels=self.pixels,
                attended_ns=self.attention.until_ns,
            )  # fmt: skip
            if order is not Order.SKIP and seen(order):
                self.attention.hold(now_ns + 1_200_000_000)
            given.append(order)
            self.number += 1
        return given


def share(orders: list[Order], order: Order) -> float:
    return orders.count(order) / len(orders)


def test_a_calm_night_costs_a_key_frame_now_and_then() -> None:
    stream = Stream()
    assert share(stream.run(LEARN_S - 0.1), Order.WATCH) == 1.0, "nothing is known yet"
    night = stream.run(600)
    assert share(night, Order.WATCH) < 0.05
    looks = [at / FPS for at, order in enumerate(night) if order is not Order.SKIP]
    assert max(b - a for a, b in pairwise(looks)) <= LOOK_S + GOP / FPS
    assert share(night, Order.SKIP) > 0.9


@pytest.mark.parametrize(("more", "late_s"), [(1500, 0.2), (450, 0.5), (225, 1.5)])
def test_a_visitor_wakes_it_before_the_next_key_frame(more: float, late_s: float) -> None:
    """Ten standard deviations more in each packet, three, and one and a half: the fainter, the later."""
    print("seed 5")
    delays: list[float] = []
    for _ in range(20):
        stream = Stream()
        stream.rng = random.Random(len(delays))
        stream.run(40)
        assert stream.vigilance.asleep
        visit = stream.run(5, more=more)
        delays.append(visit.index(Order.WATCH) / FPS)
    delays.sort()
    assert delays[18] <= late_s, delays


def test_it_stays_awake_as_long_as_vision_asks_and_sleeps_soon_after() -> None:
    stream = Stream()
    stream.run(30)
    visit = stream.run(20, more=1500, seen=lambda _: True)
    assert share(visit[FPS:], Order.WATCH) == 1.0
    after = stream.run(10)
    assert share(after[:FPS], Order.WATCH) == 1.0, "what vision asked for still holds"
    assert share(after[4 * FPS :], Order.WATCH) < 0.1


def test_a_constant_bitrate_tells_nothing_so_everything_is_decoded() -> None:
    stream = Stream(median=20_000, sigma=2500)
    stream.run(30)
    assert share(stream.run(120), Order.WATCH) == 1.0


def test_sizes_that_missed_a_visitor_are_not_believed_for_a_while() -> None:
    """A key frame shows somebody whom no size announced: until the doubt is over, everything is decoded."""
    stream = Stream()
    stream.run(30)
    assert stream.vigilance.asleep
    quiet = stream.run(20, seen=lambda _: True)
    assert Order.WATCH in quiet
    stream.run(5)
    assert share(stream.run(DOUBT_S / 2), Order.WATCH) == 1.0
    stream.run(DOUBT_S / 2 + 10)
    assert share(stream.run(30), Order.WATCH) < 0.2, "it is given another try"


def test_rain_that_vision_sees_nothing_in_becomes_the_usual() -> None:
    stream = Stream()
    stream.run(60)
    stream.run(90, more=800)
    assert share(stream.run(60, more=800), Order.WATCH) < 0.15
    stream.run(90)  # and it stops
    assert share(stream.run(60, more=1500)[FPS:], Order.WATCH) > 0.1, "a visitor is noticed as before"


def test_a_pause_or_a_jump_in_time_begins_anew() -> None:
    stream = Stream()
    stream.run(30)
    assert stream.vigilance.asleep
    stream.number += 3600 * FPS
    assert share(stream.run(LEARN_S - 1), Order.WATCH) == 1.0, "an hour later all may be different"
    stream.run(20)
    assert stream.vigilance.asleep
    stream.number -= 7200 * FPS
    assert share(stream.run(LEARN_S - 1), Order.WATCH) == 1.0


def test_a_stream_without_key_frames_sleeps_by_sizes_alone() -> None:
    stream = Stream(gop=10**9)
    stream.run(40)
    assert stream.vigilance.asleep
    assert Order.WATCH in stream.run(2, more=1500)


def test_a_kind_of_packet_never_met_before_wakes_it() -> None:
    """The camera was set to B-frames: what was learned is of another stream."""
    stream = Stream()
    stream.run(30)
    order = stream.vigilance.order(
        now_ns=round(stream.now_s * NS), size=300, keyframe=False, kind=0, pixels=PIXELS, attended_ns=0
    )
    assert order is Order.WATCH


def test_attention_never_shrinks_and_one_from_another_time_is_none() -> None:
    attention = Attention()
    attention.hold(5 * NS)
    attention.hold(3 * NS)
    assert attention.until_ns == 5 * NS
    stream = Stream()
    stream.run(30)
    stream.attention.hold(round((stream.now_s + 86_400) * NS))
    assert share(stream.run(30), Order.WATCH) < 0.1
