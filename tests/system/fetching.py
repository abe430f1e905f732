"""What a test takes from the network, which is no part of what is tested: tried again when it did not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

TRIES_MAX = 3
PAUSE_S = 10.0

T = TypeVar("T")


def fetched(get: Callable[[], T], failure: type[Exception]) -> T:
    """What `get` returns. `failure`: what it raises when it did not come; the last one is raised on."""
    for _ in range(TRIES_MAX - 1):
        try:
            return get()
        except failure as error:
            print(f"once more in {PAUSE_S:.0f} s: {error}", flush=True)
            time.sleep(PAUSE_S)
    return get()
