"""The least a node's process can be: its libraries, the model after one inference, one decoder after a second of video.

Run as a program: `python -m tests.bench.bare MODEL FOOTAGE` prints its resident memory and when it was ready.
"""

from __future__ import annotations

import json
import sys
import time

import av
import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
import cv2
import msgspec  # noqa: F401
import numpy as np
import paho.mqtt.client  # noqa: F401
import psutil
from ai_edge_litert.interpreter import Interpreter


def main(model: str, footage: str) -> None:
    """Does the least, and tells."""
    cv2.setNumThreads(1)
    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
    interpreter.invoke()
    ready_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with av.open(footage) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for index, _ in enumerate(container.decode(stream)):
            if index >= 15:
                break
        memory = psutil.Process().memory_info()
    anonymous_mb = (memory.rss - memory.shared) / 1e6
    print(json.dumps({"ready_ns": ready_ns, "rss_mb": memory.rss / 1e6, "anonymous_mb": anonymous_mb}))


if __name__ == "__main__":
    main(*sys.argv[1:])
