"""When a notice is tried again, and when it is given up. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

BACKOFF_S = 2.0
BACKOFF_S_MAX = 300.0
ATTEMPTS_MAX = 1000
REFUSALS_MAX = 5
"""A destination that is there and says no will hardly say yes: what comes behind must not wait for keep_h."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt. `refused`: the destination answered, and wants none of this notice. No secrets."""

    state: Literal["delivered", "later", "refused"]
    why: str = ""


DELIVERED = Outcome("delivered")


def pause_s(attempts: int, rng: random.Random) -> float:
    """Seconds until the next attempt, after so many that failed: exponential, with jitter of the upper half."""
    most = min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(max(attempts - 1, 0), 16))
    return most * rng.uniform(0.5, 1.0)


def hopeless(outcome: Outcome, attempts: int) -> bool:
    """Whether it is given up after this attempt, the `attempts`th."""
    return attempts >= (REFUSALS_MAX if outcome.state == "refused" else ATTEMPTS_MAX)
