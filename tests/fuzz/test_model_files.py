"""A model file that has rotted, in a process of its own: native code reads it, so a child shows how it ends."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from agent.assets import Assets

CHILD = """
import random, sys
from pathlib import Path
import numpy as np
from agent.errors import WardpostError
from agent.vision.detector.tflite import TfliteDetector
detector = TfliteDetector(model=Path(sys.argv[1]), labels=Path(sys.argv[2]))
try:
    detector.open()
    detector.detect(np.zeros((64, 64, 3), np.uint8), 0.5)
    print("opened")
except WardpostError as error:
    assert "\\n" not in str(error)
    print("refused", error)
"""


def rotten(data: bytes, rng: random.Random) -> bytes:
    made = bytearray(data)
    kind = rng.randrange(4)
    if kind == 0:
        return bytes(made[: rng.randrange(8, len(made))])
    # The structure lies at both ends of the file, the weights between them.
    for _ in range(rng.choice([1, 8, 64])):
        at = rng.choice([rng.randrange(4096), len(made) - 1 - rng.randrange(200_000), rng.randrange(len(made))])
        made[at] = rng.randrange(256)
    return bytes(made)


@pytest.mark.system
@pytest.mark.timeout(900)
def test_a_rotten_model_is_refused_and_never_ends_the_process(assets: Assets, tmp_path: Path, seed: int) -> None:
    """A crash in native code at each start would be a post that records nothing for ever."""
    data = assets.model().read_bytes()
    died = []
    for number in range(40):
        path = tmp_path / "model.tflite"
        path.write_bytes(rotten(data, random.Random(f"{seed} {number}")))
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(path), str(assets.labels())], capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            died.append((number, done.returncode, done.stderr.strip()[-200:]))
    assert not died, f"{len(died)} of 40: {died[:5]}"
