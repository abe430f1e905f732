"""How this camera normally looks: learned from its pictures, followed through the day, kept over a restart.

A running mean of the shrunk picture (people and cars average out), how sharp it is, how much of the picture noise
changes from look to look, and whether it is ever in colour. About 4 KiB on disk.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec
import numpy as np
from msgspec import Meta

from agent.errors import Corrupt
from agent.types import NS
from agent.vision import picture_stats
from agent.vision.picture_stats import EDGES_MIN, ROWS_MAX, STRUCTURE_PX, Structure

if TYPE_CHECKING:
    from agent.vision.picture_stats import Mask, Small

LEARN_S = 60.0  # a view must be itself for so long before it is worth defending
STORED_BYTES_MAX = 64 * 1024
_FOLLOW_S = 300.0  # shadows, dusk and parked cars become normal within this
_FOLLOW_STEPS = 30  # the field of gradients is made anew so often within that time
_SHARPER_S, _BLUNTER_S = 60.0, 6 * 3600.0  # a focus that creeps away over an hour must not become normal
_ALIKE = 0.3  # see picture_stats: two scenes reach this at most
_ODD_S_MAX = 15.0  # while learning: another scene for so long, and learning starts over


class Shelf(Protocol):
    """Where the reference outlives the process. Neither call raises: a lost reference is learned anew."""

    def load(self) -> bytes | None: ...

    def save(self, data: bytes) -> None: ...


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=1)] = 1
    camera: Annotated[str, Meta(max_length=300)]
    rows: Annotated[int, Meta(ge=8, le=ROWS_MAX)]
    picture: Annotated[bytes, Meta(max_length=STRUCTURE_PX * ROWS_MAX)]
    width: Annotated[int, Meta(ge=8)]  # of the luma by which sharpness was measured
    sharp: Annotated[float, Meta(ge=0, le=1000)]
    restless: Annotated[float, Meta(ge=0, le=1)] | None
    colour_seen: bool


class ViewReference:
    """One view. One thread; `follow` is given looks that show nothing wrong."""

    def __init__(self, *, small: Small, width: int) -> None:
        """Begins with one shrunk picture of luma that is `width` wide."""
        self.small = small.copy()
        self.width = width
        self.sharp = 0.0  # 0: not known yet
        self.restless: float | None = None  # share of pixels that changed between the calmest looks; see `calm`
        self.colour_seen = False
        self._known_s, self._odd_s = 0.0, 0.0
        self._field()

    def _field(self) -> None:
        self.structure: Structure = picture_stats.structure(self.small)
        self.edges: Mask = self.structure.edges()
        self.bright_share = picture_stats.light(self.small).bright_share
        self._field_s = 0.0  # age of what was made of `small` here

    @property
    def ready(self) -> bool:
        """Whether it has been itself for LEARN_S."""
        return self._known_s >= LEARN_S

    @property
    def featureless(self) -> bool:
        """Whether it has too few edges to tell it from another view."""
        return int(np.count_nonzero(self.edges)) < EDGES_MIN

    def likeness(self, now: Structure) -> float:
        """See picture_stats.likeness."""
        return picture_stats.likeness(self.structure, self.edges, now)

    def learn(self, small: Small, now: Structure, sharp: float | None, passed_s: float) -> bool:
        """One look while not `ready`. False: this is another scene; begin with a new reference."""
        if not self.featureless and self.likeness(now) < _ALIKE:
            self._odd_s += passed_s
            return self._odd_s <= _ODD_S_MAX
        self._known_s += passed_s
        self.follow(small, sharp, passed_s, follow_s=max(self._known_s, 1.0))
        return True

    def follow(self, small: Small, sharp: float | None, passed_s: float, *, follow_s: float = _FOLLOW_S) -> None:
        """Takes a normal look in; `sharp` is None where it could not be measured."""
        self.small += (small - self.small) * (1 - math.exp(-passed_s / follow_s))
        self._field_s += passed_s
        if self._field_s >= follow_s / _FOLLOW_STEPS:
            self._field()
        if sharp is not None:
            rate_s = min(follow_s, _SHARPER_S) if sharp > self.sharp else _BLUNTER_S
            self.sharp = (
                sharp
                if self.sharp == 0
                else self.sharp
                + (sharp - self.sharp) * (1 - math.exp(-passed_s / (rate_s if self.ready else min(rate_s, 10.0))))
            )

    def calm(self, share: float, passed_s: float) -> None:
        """Takes in that only `share` of the pixels changed in a picture that was not frozen.

        The calmest look counts, and is forgotten within _BLUNTER_S: a camera that can be as still as a frozen one is
        never said to be frozen.
        """
        if self.restless is None or share < self.restless:
            self.restless = share
        else:
            self.restless += (share - self.restless) * (1 - math.exp(-passed_s / _BLUNTER_S))

    def stored(self, camera: str) -> bytes:
        """As bytes for the shelf; `camera` names the source that it is of."""
        return msgspec.json.encode(
            _Stored(
                camera=camera[:300],
                rows=self.small.shape[0],
                picture=np.rint(self.small).clip(0, 255).astype(np.uint8).tobytes(),
                width=self.width,
                sharp=round(self.sharp, 4),
                restless=None if self.restless is None else round(self.restless, 5),
                colour_seen=self.colour_seen,
            )
        )

    @classmethod
    def restored(cls, data: bytes, camera: str) -> ViewReference | None:
        """What `stored` gave, ready; None when it is of another camera. Raises Corrupt, whatever the bytes."""
        if len(data) > STORED_BYTES_MAX:
            raise Corrupt(f"the stored view has {len(data)} bytes; the limit is {STORED_BYTES_MAX}")
        try:
            stored = msgspec.json.decode(data, type=_Stored)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Corrupt(f"the stored view cannot be read: {error}") from None
        if len(stored.picture) != stored.rows * STRUCTURE_PX:
            raise Corrupt(f"the stored view has {len(stored.picture)} pixels, not {stored.rows * STRUCTURE_PX}")
        if stored.camera != camera[:300]:
            return None
        pixels = np.frombuffer(stored.picture, np.uint8).reshape(stored.rows, STRUCTURE_PX)
        view = cls(small=pixels.astype(np.float32), width=stored.width)
        view.sharp, view.restless, view.colour_seen = stored.sharp, stored.restless, stored.colour_seen
        view._known_s = LEARN_S
        return view


def seconds(before_ns: int, now_ns: int, most_s: float) -> float:
    """Time between two looks, none if it went back, `most_s` at most: nobody knows what a long pause hid."""
    return min(max(now_ns - before_ns, 0) / NS, most_s)
