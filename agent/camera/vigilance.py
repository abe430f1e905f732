"""When a picture of a stream is worth decoding. Pure: sizes and times of packets in, an order for each packet out.

Decoding is most of what a post costs, and most of the time nothing happens. An encoder spends bits where the picture
changes, so the sizes of the packets tell, undecoded, that something begins to move:

    asleep    only a key frame now and then is decoded: every LOOK_S, and when its size departs from the ones before
    awake     everything is decoded: while learning, for TRIGGER_S after sizes rose, and as long as vision asks for it

Sizes are judged against the median and the median absolute deviation of the calm packets of their kind, and summed up
by a CUSUM (Page, Biometrika 41, 1954): a walker far away raises each packet a little, and none by much. Sizes of which
too much is chance, as under a constant bitrate, say nothing; nor do ones that have missed something which a key frame
showed. Then everything is decoded, which costs more and is never late.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from enum import StrEnum

from agent.types import NS

LEARN_S = 8.0  # awake at first, and after a pause
LOOK_S = 8.0  # asleep, a key frame is looked at so often
TRIGGER_S = 1.5  # awake for so long when sizes rise, unless vision asks for more
ATTENTION_S_MAX = 60.0  # whoever seems to ask for more asked at another time
DOUBT_S = 600.0  # sizes that missed something are not believed for so long
PAUSE_S = 10.0  # after a longer silence all is learned anew
SPREAD_BITS_MAX = 0.005  # standard deviation of sizes, bits per pixel of 720p: with more, a small visitor drowns
CALM_BITS_MAX = 0.06  # median size, bits per pixel: who spends so much on nothing holds a constant bitrate
_PIXELS = 1280 * 720  # in a smaller picture a visitor covers fewer blocks, and less spread hides him
_SIZES_MAX = 240
_SIZES_MIN = 45  # below, nothing is known
_KEYS_MAX = 12
_MAD_TO_SIGMA = 1.4826
_SIGMA_SHARE_MIN = 0.03  # of the median: an encoder's sizes are never quite the same
_SIGMA_BYTES_MIN = 12.0
_DRIFT = 0.5  # standard deviations by which each packet must exceed the median to count
_CLIP = 5.0  # one packet counts for so many at most ...
_SUDDEN = 10.0  # ... unless it is like this
_ALARM_MIN = 6.0  # of the sum
_ALARM_MAX = 30.0
_ALARM_UP = 1.3  # after a false alarm
_ALARM_DOWN = 0.995  # with each calm key frame
_KEY_SHARE = 0.02  # of the usual size: a key frame that departs by more is looked at
_LATE_S = 1.0  # vision asked for so much longer after a look at a key frame: it had missed something


class Attention:
    """By which vision asks a camera for every picture. Written by one thread, read by another."""

    def __init__(self) -> None:
        self.until_ns = 0  # CLOCK_BOOTTIME

    def hold(self, until_ns: int) -> None:
        """Every picture is wanted until then. Never shortens what was asked before."""
        self.until_ns = max(self.until_ns, until_ns)


class Order(StrEnum):
    """What to do with a packet."""

    SKIP = "skip"  # keep it at hand, undecoded
    LOOK = "look"  # decode and show this key frame
    WATCH = "watch"  # decode this and all that is at hand


class Vigilance:
    """Decides for one stream, packet by packet in decoding order. Times are decoding times in CLOCK_BOOTTIME ns."""

    def __init__(self) -> None:
        self._sizes: dict[int, deque[int]] = {}
        self._usual: dict[int, tuple[float, float]] = {}  # kind -> median, sigma
        self._keys: deque[int] = deque(maxlen=_KEYS_MAX)
        self._fresh: list[tuple[int, int]] = []  # sizes of this wakefulness: kind, bytes
        self._sum = 0.0
        self._alarm = _ALARM_MIN
        self._learn_until_ns: int | None = None
        self._awake_until_ns = 0
        self._last_ns = 0
        self._looked_ns: int | None = None
        self._doubt_until_ns = 0
        self._late_ns: int | None = None  # the look by which vision was roused
        self._attended = False  # vision asked, in this wakefulness
        self._by_sizes = False  # what woke us last
        self.asleep = False
        self.triggers = 0  # times that sizes woke us

    def order(self, *, now_ns: int, size: int, keyframe: bool, kind: int, pixels: int, attended_ns: int) -> Order:
        """What to do with the packet of this moment.

        `size` in bytes; `kind` tells apart packets that are usually of different size (referred to by others or not);
        `pixels` of a picture; `attended_ns`: vision wants every picture up to then.
        """
        if self._learn_until_ns is None or not 0 <= now_ns - self._last_ns <= PAUSE_S * NS:
            self._begin(now_ns)
        self._last_ns = now_ns
        attended = 0 < attended_ns - now_ns <= ATTENTION_S_MAX * NS
        alarmed = not keyframe and self._judge(kind, size)
        departed = keyframe and self._key(size)
        self._mind_late(now_ns, attended=attended)
        if self.asleep:
            if attended or alarmed:
                self._wake(now_ns, by_sizes=alarmed and not attended)
            else:
                if not keyframe:
                    self._sizes.setdefault(kind, deque(maxlen=_SIZES_MAX)).append(size)
                    return Order.SKIP
                due = self._looked_ns is None or now_ns - self._looked_ns >= LOOK_S * NS
                if not (due or departed):
                    return Order.SKIP
                self._looked_ns = now_ns
                return Order.LOOK
        return self._stay(now_ns, size, kind, keyframe=keyframe, attended=attended, alarmed=alarmed, pixels=pixels)

    def _begin(self, now_ns: int) -> None:
        """Awake, and nothing is known."""
        self._learn_until_ns = now_ns + round(LEARN_S * NS)
        self._sizes.clear()
        self._usual.clear()
        self._keys.clear()
        self._fresh.clear()
        self.asleep = self._attended = self._by_sizes = False
        self._awake_until_ns = self._doubt_until_ns = 0
        self._looked_ns = self._late_ns = None
        self._sum, self._alarm = 0.0, _ALARM_MIN

    def _stay(
        self, now_ns: int, size: int, kind: int, *, keyframe: bool, attended: bool, alarmed: bool, pixels: int
    ) -> Order:
        """Awake: this packet is decoded; perhaps it is the last."""
        if not keyframe:
            self._fresh.append((kind, size))
            del self._fresh[: -4 * _SIZES_MAX]
        self._attended = self._attended or attended
        if alarmed and attended:
            self._awake_until_ns = max(self._awake_until_ns, now_ns + round(TRIGGER_S * NS))
        assert self._learn_until_ns is not None  # noqa: S101  (set by order)
        if attended or now_ns < max(self._awake_until_ns, self._learn_until_ns):
            return Order.WATCH
        if not self._attended:
            for one, bytes_ in self._fresh:  # calm after all: this is how it looks here when nothing happens
                self._sizes.setdefault(one, deque(maxlen=_SIZES_MAX)).append(bytes_)
            self._learn()
            if self._by_sizes:
                self._alarm = min(self._alarm * _ALARM_UP, _ALARM_MAX)
        self._fresh.clear()
        self._attended = self._by_sizes = False
        if self._trusted(now_ns, pixels):
            self.asleep = True
            self._sum = 0.0
            self._looked_ns = now_ns
        else:
            self._awake_until_ns = now_ns + round(TRIGGER_S * NS)
        return Order.WATCH

    def _wake(self, now_ns: int, *, by_sizes: bool) -> None:
        self.asleep = False
        self._attended = False
        self._fresh.clear()
        self._awake_until_ns = now_ns + round(TRIGGER_S * NS)
        self._sum = 0.0
        self._by_sizes = by_sizes
        if by_sizes:
            self.triggers += 1
        elif self._looked_ns is not None and self._usual:
            self._late_ns = now_ns

    def _mind_late(self, now_ns: int, *, attended: bool) -> None:
        """A key frame roused vision before sizes did, and there was something: sizes tell too little here."""
        if self._late_ns is None:
            return
        if now_ns - self._late_ns >= _LATE_S * NS:
            if attended:
                self._doubt_until_ns = now_ns + round(DOUBT_S * NS)
            self._late_ns = None

    def _judge(self, kind: int, size: int) -> bool:
        """Whether this packet completes an alarm."""
        usual = self._usual.get(kind)
        if usual is None:
            return bool(self._usual)  # a kind never met before: the stream has changed
        median, sigma = usual
        excess = (size - median) / sigma
        self._sum = max(self._sum + min(excess, _CLIP) - _DRIFT, 0.0)
        if self._sum <= self._alarm and excess <= _SUDDEN:
            return False
        self._sum = 0.0
        return True

    def _key(self, size: int) -> bool:
        """Whether a key frame's size departs from the usual. Learns it, and what is calm."""
        usual = statistics.median(self._keys) if self._keys else 0.0
        self._keys.append(size)
        if self.asleep:
            self._alarm = max(self._alarm * _ALARM_DOWN, _ALARM_MIN)
            self._learn()
        return abs(size - usual) > _KEY_SHARE * usual

    def _learn(self) -> None:
        for kind, sizes in self._sizes.items():
            if len(sizes) >= _SIZES_MIN:
                median = statistics.median(sizes)
                mad = statistics.median(abs(size - median) for size in sizes)
                self._usual[kind] = median, max(mad * _MAD_TO_SIGMA, median * _SIGMA_SHARE_MIN, _SIGMA_BYTES_MIN)

    def _trusted(self, now_ns: int, pixels: int) -> bool:
        if not self._usual or now_ns < self._doubt_until_ns or pixels <= 0:
            return False
        spread_max = SPREAD_BITS_MAX * math.sqrt(min(pixels / _PIXELS, 1.0)) * pixels / 8
        calm_max = CALM_BITS_MAX * pixels / 8
        return all(median <= calm_max and sigma <= spread_max for median, sigma in self._usual.values())
