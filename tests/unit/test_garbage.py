"""Garbage in cycles is looked for seldom, and still goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STORY = """
import gc, weakref
from agent import garbage

class Ring:
    def __init__(self):
        self.me = self

made_before = Ring()
garbage.settle()
assert gc.get_freeze_count() > 5000 and gc.isenabled()
looks = []
gc.callbacks.append(lambda phase, info: looks.append(info["generation"]) if phase == "start" else None)
waiting = [[] for _ in range(4000)]
assert not looks, "that many wait in a flood, and nobody looks through them"
lost = weakref.ref(Ring())
made = [[] for _ in range(2 * garbage.YOUNG_MAX)]
assert looks == [0, 0] and lost() is None, (looks, lost())
of_the_start, made_before = weakref.ref(made_before), None
gc.collect()
assert of_the_start() is not None, "what a program is made of is never looked through again"
"""


def test_a_process_looks_seldom_and_what_is_lost_in_a_circle_goes_all_the_same() -> None:
    subprocess.run([sys.executable, "-c", STORY], cwd=ROOT, check=True, timeout=60)
