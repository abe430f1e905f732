"""A detector that may fail without taking anything with it (invariant 9: keep everything and say so)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from agent.errors import WardpostError
from agent.types import MS, NS, Bgr, Detection, Event, Kind, NewId, Phase, Priority
from agent.vision.detector import Detector

BACKOFF_S_MIN = 1.0
BACKOFF_S_MAX = 60.0

log = logging.getLogger(__name__)


class GuardedDetector:
    """Opens a detector, watches it fail, and opens it again with back-off, telling once about each illness.

    One thread. Nothing here raises. It is ill when it cannot be opened or fails twice on one picture, and well again
    when it opens and gets through a blank picture.
    """

    def __init__(self, *, detector: Detector, new_id: NewId, stopwatch_ns: Callable[[], int]) -> None:
        """`stopwatch_ns` times inferences; it decides nothing."""
        self._detector, self._new_id, self._stopwatch_ns = detector, new_id, stopwatch_ns
        self._news: list[tuple[Phase, str]] = []
        self._opened = False
        self._incident = ""
        self._since_ns: int | None = None
        self._retry_ns: int | None = None
        self._backoff_s = BACKOFF_S_MIN
        self.fault = ""  # why it is ill, empty when well
        self.runs = 0  # inferences on pictures of the camera
        self.run_ns_total = 0

    @property
    def name(self) -> str:
        return self._detector.name

    @property
    def input_px(self) -> int:
        """Side of the square it looks at; 0 while there is no use in giving it pictures."""
        return self._detector.input_px if self._opened and not self.fault else 0

    @property
    def sides_px(self) -> tuple[int, ...]:
        """The squares it can look at, smallest first; none while there is no use in giving it pictures."""
        return self._detector.sides_px if self.input_px else ()

    def open(self) -> None:
        """Loads the model; an illness is told by the next `attend`."""
        self._try_open(probe=False)

    def detect(self, picture: Bgr, score_min: float, side_px: int = 0) -> list[Detection]:
        """What the detector finds; nothing while it is ill."""
        if self.input_px == 0:
            return []
        started_ns = self._stopwatch_ns()
        try:
            try:
                return self._detector.detect(picture, score_min, side_px)
            except WardpostError:
                return self._detector.detect(picture, score_min, side_px)
        except Exception as error:  # noqa: BLE001  (whatever a model does, the post must go on recording)
            self._fell_ill(error)
            return []
        finally:
            self.runs += 1
            self.run_ns_total += max(self._stopwatch_ns() - started_ns, 0)

    def attend(self, boot_ns: int) -> list[Event]:
        """Tries to heal it when it is time, and returns what is to be told."""
        if self.fault:
            if self._retry_ns is None:
                self._retry_ns = boot_ns + int(self._backoff_s * NS)
            elif boot_ns >= self._retry_ns:
                self._retry_ns = None
                self._backoff_s = min(self._backoff_s * 2, BACKOFF_S_MAX)
                self._try_open(probe=True)
        events = [self._event(phase, text, boot_ns) for phase, text in self._news]
        self._news.clear()
        return events

    def close(self, boot_ns: int) -> list[Event]:
        """Ends an open illness in the books: the next life tells anew."""
        if self.fault:
            self._news.append((Phase.ENDED, "The watch over the detector stops; it had not recovered"))
        self.fault = ""
        self._opened = False
        self._retry_ns = None
        self._backoff_s = BACKOFF_S_MIN
        events = [self._event(phase, text, boot_ns) for phase, text in self._news]
        self._news.clear()
        return events

    def _try_open(self, *, probe: bool) -> None:
        try:
            self._detector.open()
            if probe and self._detector.input_px:
                side = self._detector.input_px
                self._detector.detect(np.zeros((side, side, 3), np.uint8), 0.5)
        except Exception as error:  # noqa: BLE001  (as in `detect`)
            self._opened = False
            self._fell_ill(error)
            return
        self._opened = True
        self._backoff_s = BACKOFF_S_MIN
        if self.fault:
            self.fault = ""
            log.info("detector %s works again", self.name)
            self._news.append((Phase.ENDED, "The detector works again"))

    def _fell_ill(self, error: Exception) -> None:
        deliberate = isinstance(error, WardpostError)
        text = str(error) if deliberate else f"{type(error).__name__}: {error}"
        if not self.fault:
            log.error("detector %s failed: %s", self.name, text, exc_info=None if deliberate else error)
            reason = " ".join(text.split())[:300]
            self._news.append((Phase.STARTED, f"The detector failed; recording goes on, motion only: {reason}"))
        self.fault = text or type(error).__name__

    def _event(self, phase: Phase, text: str, boot_ns: int) -> Event:
        if phase is Phase.STARTED:
            self._incident, self._since_ns = self._new_id(), boot_ns
        return Event(
            incident=self._incident,
            kind=Kind.DETECTOR,
            phase=phase,
            boot_ns=boot_ns,
            priority=Priority.NOTICE,
            summary=text,
            since_ns=self._since_ns,
        )

    @property
    def run_ms_mean(self) -> float:
        """Mean time of one inference, 0 before the first."""
        return self.run_ns_total / self.runs / MS if self.runs else 0.0
