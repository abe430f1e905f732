"""`wardpost zones` draws on what the running node sees: the picture comes out of the real process, by its socket."""

from __future__ import annotations

import cv2
import numpy as np

from agent.clock import SystemClock
from agent.local import picture_of
from tests.e2e.post import Post, recording


def test_a_running_node_gives_a_picture_and_goes_on(post: Post) -> None:
    post.start()
    post.wait_for(recording)
    picture = cv2.imdecode(np.frombuffer(picture_of(post.data, SystemClock()), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape[:2] == (272, 640)
    assert picture.std() > 10, "it shows something"
    frames = post.status()["camera"]["frames"]
    post.wait_for(lambda status: status["camera"]["frames"] > frames)
