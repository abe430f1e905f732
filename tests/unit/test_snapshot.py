"""A picture out of the running node: taken only when asked, by the same socket as `wardpost status`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from agent.clock import SystemClock
from agent.errors import Transient
from agent.local import LocalWorker, picture_of
from agent.types import Bgr, Box, Frame
from agent.vision.opencv import cv2
from agent.vision.snapshot import Snapshots


class Sight:
    """A frame's source that counts how often it is looked at."""

    def __init__(self, *, lost: bool = False) -> None:
        self.looks, self.lost = 0, lost

    def crop(self, box: Box, px_max: int) -> Bgr:
        self.looks += 1
        if self.lost:
            raise Transient("gone")
        return np.full((72, 128, 3), 120, np.uint8)


def frame(source: Sight) -> Frame:
    return Frame(1, 1, np.zeros((9, 16), np.uint8), source)


def test_nothing_is_encoded_until_somebody_asks_and_then_once() -> None:
    snapshots, sight = Snapshots(), Sight()
    snapshots.seen(frame(sight), [], [], [])
    assert sight.looks == 0
    assert snapshots.ask({}) == {"taken": 0, "jpeg": ""}
    assert snapshots.ask({"after": 0})["jpeg"] == ""
    for _ in range(3):
        snapshots.seen(frame(sight), [], [], [])
    assert sight.looks == 1
    assert snapshots.ask({"after": 0})["jpeg"]
    assert snapshots.ask({"after": 1})["jpeg"] == "", "an old picture is not sold as a new one"


def test_a_frame_that_is_gone_is_waited_over() -> None:
    snapshots = Snapshots()
    snapshots.ask({})
    snapshots.seen(frame(Sight(lost=True)), [], [], [])
    snapshots.seen(frame(Sight()), [], [], [])
    assert snapshots.ask({"after": 0})["taken"] == 1


def test_the_command_gets_it_by_the_nodes_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots, stop, clock = Snapshots(), threading.Event(), SystemClock()
    worker = LocalWorker(tmp_path, catalog=cast(Any, None), status=dict, verbs={"picture": snapshots.ask}, wait_s=0.02)
    worker.open()
    seeing = threading.Event()
    seeing.set()

    def life() -> None:
        while not stop.is_set():
            worker.step(clock.boot_ns() / 1e9)
            if seeing.is_set():
                snapshots.seen(frame(Sight()), [], [], [])

    thread = threading.Thread(target=life)
    thread.start()
    try:
        jpeg = picture_of(tmp_path, clock)
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.shape == (72, 128, 3)
        seeing.clear()  # the privacy switch, or a camera that is lost
        monkeypatch.setattr("agent.local.PICTURE_S_MAX", 0.5)
        with pytest.raises(Transient, match="privacy switch"):
            picture_of(tmp_path, clock)
    finally:
        stop.set()
        thread.join()
        worker.close()
