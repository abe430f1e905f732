"""`wardpost selftest` proves what works and names what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from gpiozero.pins.mock import MockFactory

from agent.camera import CameraLost
from agent.clock import SystemClock
from agent.config import PanelSettings
from agent.disk import PosixDisk, PosixFile
from agent.errors import ConfigError, Corrupt, Transient
from agent.panel import Input, Output
from agent.panel.gpio import GpioPanel
from agent.panel.none import NoPanel
from agent.selftest import (
    EXIT_FAILED,
    EXIT_OK,
    Part,
    Skipped,
    prove_camera,
    prove_clock,
    prove_detector,
    prove_disk,
    prove_panel,
    selftest,
)
from agent.types import Bgr, Box, Detection, Frame, Label, Luma, Packet, VideoFormat
from tests.fakes.clock import FakeClock
from tests.fakes.panel import FakePanel


def run(*parts: Part) -> tuple[int, list[str]]:
    lines: list[str] = []
    return selftest(parts, clock=FakeClock(), out=lines.append), lines


def raising(error: Exception) -> Callable[[], str]:
    def act() -> str:
        raise error

    return act


def test_one_line_a_part_and_a_total() -> None:
    code, lines = run(Part("camera", lambda: "1280x720"), Part("panel", raising(Skipped("no panel is wired"))))
    assert code == EXIT_OK
    assert lines == [
        "ok       camera  1280x720 (0.0 s)",
        "skipped  panel   no panel is wired (0.0 s)",
        "selftest passed: 2 parts",
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Transient("camera: no frame; check the cable"), "camera: no frame; check the cable"),
        (ConfigError("bad"), "bad"),
        (IndexError("tuple"), "a bug: IndexError: tuple in act (unit/test_selftest.py:"),
    ],
)
def test_a_failed_part_does_not_hide_the_others(error: Exception, expected: str) -> None:
    code, lines = run(Part("camera", raising(error)), Part("store", lambda: "committed"))
    assert code == EXIT_FAILED
    assert lines[0].startswith("FAILED   camera  ") and expected in lines[0]
    assert lines[1].startswith("ok       store   committed")
    assert lines[2] == "selftest failed: camera"


# -- the parts -----------------------------------------------------------------------------------------------------


class Lens:
    """A camera: so many frames of one picture, then nothing."""

    name = "lens"

    def __init__(self, clock: FakeClock, picture: Bgr, *, frames: int = 99, keyframes: bool = True) -> None:
        self.clock, self.picture, self.left, self.keyframes = clock, picture, frames, keyframes
        self.is_open = False

    def open(self) -> None:
        self.is_open = True

    def read(self, timeout_s: float) -> list[Frame | Packet]:
        self.clock.advance(0.2)
        if self.left == 0:
            self.clock.advance(timeout_s)
            return []
        self.left -= 1
        luma: Luma = np.ascontiguousarray(self.picture[:, :, 0])
        now_ns = self.clock.boot_ns()
        return [
            Frame(self.left, now_ns, luma, self),
            Packet(now_ns, now_ns, self.keyframes, b"x", VideoFormat(64, 48)),
        ]

    def crop(self, box: Box, px_max: int) -> Bgr:
        return self.picture

    def close(self) -> None:
        self.is_open = False


def scene() -> Bgr:
    return np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def test_a_camera_that_works() -> None:
    clock = FakeClock()
    lens = Lens(clock, scene())
    assert prove_camera(lens, clock) == "lens: 64x48, first frame after 0.2 s, 5 packets"
    assert not lens.is_open


@pytest.mark.parametrize(
    ("frames", "keyframes", "picture", "expected"),
    [
        (0, True, scene(), "lens: 0 frames, 0 packets and 0 keyframes within 15 s; check the cable"),
        (3, True, scene(), "lens: 3 frames"),
        (99, False, scene(), "0 keyframes within 15 s"),
        (99, True, np.zeros((48, 64, 3), np.uint8), "one even grey of 0; is the lens covered"),
    ],
)
def test_a_camera_that_does_not(frames: int, keyframes: bool, picture: Bgr, expected: str) -> None:
    clock = FakeClock()
    lens = Lens(clock, picture, frames=frames, keyframes=keyframes)
    with pytest.raises(Transient, match=expected):
        prove_camera(lens, clock)
    assert not lens.is_open


def test_a_camera_that_is_lost_is_closed_again() -> None:
    clock = FakeClock()
    lens = Lens(clock, scene())

    def lost(timeout_s: float) -> list[Frame | Packet]:
        raise CameraLost("lens: unplugged")

    lens.read = lost  # type: ignore[method-assign]
    with pytest.raises(CameraLost):
        prove_camera(lens, clock)
    assert not lens.is_open


class Eye:
    """A detector that sees one person."""

    name = "eye"
    input_px = 300
    sides_px: tuple[int, ...] = (300,)

    def open(self) -> None:
        return

    def detect(self, picture: Bgr, score_min: float, side_px: int = 0) -> list[Detection]:
        return [Detection(Label.PERSON, 0.61, Box(0, 0, 1, 1))] if picture.any() else []


def test_a_detector_looks_at_a_picture() -> None:
    assert prove_detector(Eye(), scene, FakeClock()) == "eye: 0 ms, sees person 0.61"
    assert "sees nothing" in prove_detector(Eye(), lambda: np.zeros((9, 9, 3), np.uint8), FakeClock())


def test_a_disk_keeps_what_it_is_given_and_nothing_is_left_behind(tmp_path: Path) -> None:
    text = prove_disk(PosixDisk(tmp_path), SystemClock(), bytes(range(256)) * 4096)
    assert text.startswith("1.0 MB written and synced in ") and text.endswith("read back the same")
    assert list((tmp_path / "selftest").iterdir()) == []


class Forgetful(PosixDisk):
    """A card that has worn out: what is read back is not what was written."""

    def open(self, name: str) -> BinaryIO:
        data = bytearray(self.path(name).read_bytes())
        data[len(data) // 2] ^= 1
        self.path(name).write_bytes(bytes(data))
        return super().open(name)


class Full(PosixDisk):
    """No room."""

    def create(self, name: str) -> PosixFile:
        raise Transient(f"cannot create {name}: the disk is full")


def test_a_worn_out_card_is_found(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="replace the card"):
        prove_disk(Forgetful(tmp_path), SystemClock(), b"x" * 5000)
    assert list((tmp_path / "selftest").iterdir()) == []


def test_a_full_disk_is_found(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="the disk is full"):
        prove_disk(Full(tmp_path), SystemClock(), b"x")


def test_what_a_cut_selftest_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "selftest").mkdir()
    (tmp_path / "selftest/old.bin").write_bytes(b"x")
    prove_disk(PosixDisk(tmp_path), SystemClock(), b"y")
    assert list((tmp_path / "selftest").iterdir()) == []


def test_a_panel_shows_its_led_and_never_sounds_the_siren() -> None:
    panel = FakePanel()
    panel.levels[Input.TAMPER] = True
    assert prove_panel(panel, FakeClock()) == "fake: LED switched on and off; active inputs: tamper"
    assert panel.history == [(Output.LED, True), (Output.LED, False)]
    assert prove_panel(NoPanel(), FakeClock()) == "none: no LED; active inputs: none"


def test_a_gpio_panel_is_proved_and_let_go() -> None:
    panel = GpioPanel(PanelSettings(driver="gpio", led=25), clock=FakeClock(), make_factory=MockFactory)
    assert prove_panel(panel, FakeClock()) == "gpio led=25: LED switched on and off; active inputs: none"
    assert panel._factory is None


def test_the_clock() -> None:
    assert prove_clock(FakeClock()) == "wall clock is right to 5 ms (ntp)"
    with pytest.raises(Transient, match="not synchronised; give the post a time server"):
        prove_clock(FakeClock(unc_ns=None))
