"""Python's search for garbage in cycles, set for a program that takes in messages by the thousand.

Python looks through its young objects each time there are 700 more of them, and through everything that lives whenever
that has grown by a quarter. Where thousands of messages wait, both find nothing again and again: with what a station's
libraries are made of, a look through everything takes 0.1 s, in which no other thread runs.
"""

from __future__ import annotations

import gc

YOUNG_MAX = 5_000
"""Objects that were made and still live, between two looks at the young ones."""
LOOKS_MAX = 10
"""Of one kind, until the next older objects are looked through too: 500,000 objects in cycles may wait for that."""


def settle() -> None:
    """Once, when a program is made and before it runs: what it is made of is never looked through again.

    Of the whole process, as the search itself is. Takes some 100 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, LOOKS_MAX, LOOKS_MAX)
