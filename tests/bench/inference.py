"""One inference of the default model and nothing else: what each look of the detector costs at least. One thread.

A process of its own (`python -m tests.bench.inference MODEL` prints the milliseconds): the library writes to the terminal.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.bench.programs import ROOT, python

RUNS = 20


def cpu_ms(model: Path) -> float:
    """CPU time of an inference, the mean of RUNS after one to warm up."""
    command = python("tests.bench.inference", str(model))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout.strip().splitlines()[-1])


def main(model: str) -> None:
    """Measures and prints."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    picture = np.random.default_rng(1).random(given["shape"], np.float32).astype(given["dtype"])
    spent = 0.0
    for run in range(RUNS + 1):
        started = time.process_time()
        interpreter.set_tensor(given["index"], picture)
        interpreter.invoke()
        spent += time.process_time() - started if run else 0.0
    print(spent * 1000 / RUNS)


if __name__ == "__main__":
    main(*sys.argv[1:])
