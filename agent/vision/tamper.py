"""What is wrong with the camera's view: covered, turned, out of focus, dark, bright, frozen, infrared fallen. Pure.

`ViewWatch` looks every other second, whatever the frame rate (each second while it learns or doubts), and thinks in
time: each reason gathers the seconds for which it held (and loses those for which it did not), begins an incident at
`confirm_s`, and the incident ends when the view was normal for `clear_s`. A reason that gives way to another one
updates the incident: it keeps its id.

A thing that only passes, a bus before the lens, is gone before `confirm_s`; a view that is still moving counts for
nothing. Dusk is slow, so the reference follows it; what turns dark within seconds is an alert, what was dark before is
a notice. A switch to infrared keeps the edges of a scene and is no other view.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from agent.errors import Corrupt, Transient
from agent.types import FULL, NS, Event, Frame, Kind, NewId, Phase, Priority
from agent.vision import picture_stats
from agent.vision.opencv import cv2
from agent.vision.picture_stats import Light, Structure
from agent.vision.view_reference import Shelf, ViewReference, seconds

if TYPE_CHECKING:
    from agent.config import TamperSettings
    from agent.types import Luma
    from agent.vision.picture_stats import Small

LOOK_S, CALM_LOOK_S = 1.0, 2.0  # between two looks: while something is odd or learned, and else
_STEP_S_MAX = 5.0  # a longer pause between two looks counts as this much
_SUDDEN_S = 6.0  # what was normal so short a time ago has changed at once
_LEVEL_S = 30.0
_SAVE_S = 3600.0
_COLOUR_S = 60.0

_DARK_HIGH, _LIT_HIGH = 32.0, 44.0  # luma at the 95th percentile: nothing to be seen, and seen again
_BRIGHT_SHARE, _BRIGHT_MORE = 0.6, 0.3  # of the picture, and above what is normal here
_UNLIKE, _ALIKE = 0.3, 0.42
_MOVED_BELOW = 0.8
_STEADY = 0.6  # likeness of two looks in a row of a picture that stands still
_SHIFTED_PX, _SHIFTED_GAIN = 2, 0.2  # of STRUCTURE_PX: 2.5 % of the width; and how much better it fits there
_BLUNT, _FOCUSED = 0.42, 0.55  # sharpness relative to normal
_FELL_TO, _BACK_AT = 0.5, 0.7  # of the level before: the infrared light is gone, and is there again
_STILL_SHARE = 0.01  # fewer changed pixels than this may be a clock in a frozen picture
_RESTLESS = 0.1  # a camera whose noise changes less than this from look to look is never called frozen
_GREY_SPREAD = 3.0  # mean difference of the colour channels: less is a night mode

log = logging.getLogger(__name__)


class Reason(StrEnum):
    """What is wrong with the view."""

    COVERED = "covered"
    TURNED = "turned"
    DEFOCUSED = "defocused"
    DARK = "dark"
    BRIGHT = "bright"
    FROZEN = "frozen"
    INFRARED = "infrared"


ONVIF: dict[Reason, str] = {
    # ONVIF Imaging Service, "Tampering". It has no topic of its own for a covered lens (a change of the scene), for a
    # lost illuminator (the image is too dark) and for a picture that stands still (what comes is no signal).
    Reason.COVERED: "tns1:VideoSource/GlobalSceneChange/AnalyticsService",
    Reason.TURNED: "tns1:VideoSource/GlobalSceneChange/AnalyticsService",
    Reason.DEFOCUSED: "tns1:VideoSource/ImageTooBlurry/AnalyticsService",
    Reason.DARK: "tns1:VideoSource/ImageTooDark/AnalyticsService",
    Reason.BRIGHT: "tns1:VideoSource/ImageTooBright/AnalyticsService",
    Reason.FROZEN: "tns1:VideoSource/SignalLoss",
    Reason.INFRARED: "tns1:VideoSource/ImageTooDark/AnalyticsService",
}

_TEXT: dict[Reason, str] = {
    Reason.COVERED: "The camera{at} is covered: nothing of its view is left",
    Reason.TURNED: "The camera{at} shows another view: it was turned or moved",
    Reason.DEFOCUSED: "The picture of the camera{at} is blurred: out of focus, or the lens is dirty",
    Reason.DARK: "The picture of the camera{at} is too dark to see anything",
    Reason.BRIGHT: "The picture of the camera{at} is overexposed: a light shines into the lens",
    Reason.FROZEN: "The picture of the camera{at} stands still: not even its noise changes",
    Reason.INFRARED: "The infrared light of the camera{at} seems to have failed: the night picture fell dark at once",
}
_STOPS = "The watch over the camera{at} stops; its view had not recovered"
_SUDDENLY_DARK = "The picture of the camera{at} went dark at once: the lens is covered, or the light is off"


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One look at the picture."""

    small: Small
    light: Light
    structure: Structure
    changed: float | None  # share of pixels that differ from the look before; None: there is none


@dataclass(frozen=True, slots=True)
class Before:
    """The view when nothing was wrong with it, last."""

    boot_ns: int
    mean: float  # luma over the last half minute
    grey: bool  # in night mode, of a camera that is seen in colour at other times


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is what is wrong now; `normal` asks for more than the lack of one, so that incidents do not flicker."""

    reason: Reason | None
    normal: bool
    sharp: float | None = None  # as measured


def judge(
    luma: Luma,
    look: Look,
    view: ViewReference | None,
    *,
    last: Structure | None,
    before: Before | None,
    sudden: bool,
    open_reason: Reason | None,
) -> Verdict:
    """What is wrong with one look, compared to the `view` that is normal (None or unready: only light is judged).

    `last` is the look before, `before` the last normal one, `sudden` whether that was a moment ago. `open_reason` is
    what is wrong already: it takes more to be well again than to stay well.
    """
    lit = _light(look.light, view, dark=open_reason is Reason.DARK)
    if lit is None and before is not None and before.grey and (sudden or open_reason is Reason.INFRARED):
        level = _BACK_AT if open_reason is Reason.INFRARED else _FELL_TO
        lit = Reason.INFRARED if look.light.mean < level * before.mean else None
    if lit is not None:
        return Verdict(lit, normal=False)
    if view is None or not view.ready or view.featureless or view.small.shape != look.small.shape:
        return Verdict(None, normal=True)
    return _compared(luma, look, view, last=last, focused=open_reason is not Reason.DEFOCUSED)


def _compared(luma: Luma, look: Look, view: ViewReference, *, last: Structure | None, focused: bool) -> Verdict:
    like = view.likeness(look.structure)
    if like < _UNLIKE:
        return Verdict(_replaced(luma, look.structure, view, last), normal=False)
    if like < _MOVED_BELOW and _moved(view, look, like) and _steady(last, look.structure):
        return Verdict(Reason.TURNED, normal=False)
    sharp = picture_stats.sharpness(luma, view.edges, look.structure) if luma.shape[1] == view.width else None
    if like >= _ALIKE and sharp is not None and sharp < (_BLUNT if focused else _FOCUSED) * view.sharp:
        return Verdict(Reason.DEFOCUSED, normal=False, sharp=sharp)
    return Verdict(None, normal=like >= _ALIKE, sharp=sharp)


def _light(light: Light, view: ViewReference | None, *, dark: bool) -> Reason | None:
    if light.high <= (_LIT_HIGH if dark else _DARK_HIGH):
        return Reason.DARK
    normal = view.bright_share if view is not None and view.ready else 0.0
    if light.bright_share >= max(_BRIGHT_SHARE, normal + _BRIGHT_MORE):
        return Reason.BRIGHT
    return None


def _replaced(luma: Luma, now: Structure, view: ViewReference, last: Structure | None) -> Reason | None:
    """Nothing of the view is left: a thing close to the lens is never in focus, another view is; motion is neither."""
    own = picture_stats.sharpness(luma, now.edges(), now)
    if view.sharp > 0 and luma.shape[1] == view.width and (own or 0.0) < _BLUNT * view.sharp:
        return Reason.COVERED
    return Reason.TURNED if _steady(last, now) else None


def _steady(last: Structure | None, now: Structure) -> bool:
    """Whether the picture stands still from look to look."""
    return (
        last is not None and last.x.shape == now.x.shape and picture_stats.likeness(last, last.edges(), now) >= _STEADY
    )


def _moved(view: ViewReference, look: Look, like: float) -> bool:
    """Whether the same view is there, but elsewhere in the picture."""
    by = picture_stats.shift(view.small, look.small)
    if max(abs(by[0]), abs(by[1])) < _SHIFTED_PX:
        return False
    return any(
        picture_stats.shifted_likeness(view.structure, view.edges, look.structure, (by[0] + x, by[1] + y))
        >= like + _SHIFTED_GAIN
        for x, y in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
    )


class ViewWatch:
    """Watches one camera's view. One thread; `look` costs nothing but one subtraction between two looks.

    Raises nothing for any picture. Given the same frames it tells the same events.
    """

    def __init__(
        self, *, settings: TamperSettings, place: str, camera: str, new_id: NewId, shelf: Shelf | None = None
    ) -> None:
        """`camera` names the source: the view of another one on the `shelf` is not this one's."""
        self._settings, self._camera, self._new_id, self._shelf = settings, camera, new_id, shelf
        self._at = f" at {place}" if place else ""
        self._view: ViewReference | None = self._restored()
        self._saved_ns: int | None = None
        self._forget()

    def _forget(self) -> None:
        self._looked_ns: int | None = None
        self._pause_s = LOOK_S
        self._luma: Luma | None = None  # of the look before
        self._last: Structure | None = None
        self._before: Before | None = None
        self._held_s = dict.fromkeys(Reason, 0.0)
        self._since_ns: dict[Reason, int] = {}
        self._sudden: dict[Reason, bool] = {}
        self._normal_s = self._still_s = 0.0
        self._open: Reason | None = None
        self._incident = ""
        self._incident_ns = 0
        self._grey = False
        self._colour_ns: int | None = None

    @property
    def reason(self) -> Reason | None:
        """What is wrong, as told last."""
        return self._open

    @property
    def learned(self) -> bool:
        """Whether the normal view is known."""
        return self._view is not None and self._view.ready

    def look(self, frame: Frame, boot_ns: int) -> list[Event]:
        """What is to be told after this frame. Usually nothing."""
        if not self._settings.enabled or frame.luma.ndim != 2 or min(frame.luma.shape) < 16:
            return []
        if self._looked_ns is not None and 0 <= boot_ns - self._looked_ns < self._pause_s * NS:
            return []
        passed_s = 0.0 if self._looked_ns is None else seconds(self._looked_ns, boot_ns, _STEP_S_MAX)
        self._looked_ns = boot_ns
        small = picture_stats.shrunk(frame.luma)
        look = Look(small, picture_stats.light(small), picture_stats.structure(small), self._changed(frame.luma))
        before = self._before
        sudden = (
            before is not None
            and boot_ns - before.boot_ns <= _SUDDEN_S * NS
            and look.light.mean < _FELL_TO * before.mean
        )
        verdict = judge(
            frame.luma,
            look,
            self._view,
            last=self._last,
            before=before,
            sudden=sudden or self._held_s[Reason.INFRARED] > 0,
            open_reason=self._open,
        )
        self._last = look.structure
        calm = self.learned and verdict.normal and self._open is None
        self._pause_s = CALM_LOOK_S if calm else LOOK_S
        frozen = self._frozen(look, passed_s)
        self._gather(verdict, boot_ns, passed_s, frozen=frozen, sudden=sudden)
        events = self._decide(boot_ns)
        if verdict.reason is None and not frozen and self._open is None:
            self._learn(frame, look, verdict, boot_ns, passed_s)
        return events

    def close(self, boot_ns: int) -> list[Event]:
        """Ends what is open: the next life tells anew. Keeps the reference."""
        events = [] if self._open is None else [self._ended(boot_ns, _STOPS)]
        if self._looked_ns is not None and self._open is None:
            self._save(boot_ns)
        self._forget()
        return events

    def _changed(self, luma: Luma) -> float | None:
        before = self._luma
        self._luma = luma.copy()  # a driver may use its buffer again
        if before is None or before.shape != luma.shape:
            return None
        return cv2.countNonZero(cv2.absdiff(before, luma)) / luma.size

    def _frozen(self, look: Look, passed_s: float) -> bool:
        """Whether this look is as good as the one before, of a camera whose noise is known never to rest."""
        view = self._view
        still = look.changed is not None and look.changed < _STILL_SHARE and look.light.high > _DARK_HIGH
        if view is None or look.changed is None:
            self._still_s = 0.0
            return False
        if still:
            self._still_s += passed_s
            return view.ready and (view.restless or 0.0) >= _RESTLESS
        if self._still_s > 0 and self._open is not Reason.FROZEN:
            view.calm(0.0, passed_s)  # it rested, and went on: so this camera does rest
        elif look.light.high > _DARK_HIGH and look.light.bright_share < _BRIGHT_SHARE:
            view.calm(look.changed, passed_s)
        self._still_s = 0.0
        return False

    def _gather(self, verdict: Verdict, boot_ns: int, passed_s: float, *, frozen: bool, sudden: bool) -> None:
        for reason in Reason:
            holds = frozen if reason is Reason.FROZEN else reason is verdict.reason
            if holds:
                if self._held_s[reason] == 0:
                    self._since_ns[reason], self._sudden[reason] = boot_ns, sudden
                limit_s = self._limit_s(reason)
                self._held_s[reason] = min(self._held_s[reason] + passed_s, limit_s)
            else:
                self._held_s[reason] = max(self._held_s[reason] - passed_s, 0.0)
        well = verdict.normal and not frozen
        self._normal_s = self._normal_s + passed_s if well else max(self._normal_s - passed_s, 0.0)

    def _limit_s(self, reason: Reason) -> float:
        return self._settings.frozen_s if reason is Reason.FROZEN else self._settings.confirm_s

    def _decide(self, boot_ns: int) -> list[Event]:
        full = [reason for reason in Reason if self._held_s[reason] >= self._limit_s(reason)]
        if self._open is None:
            if not full:
                return []
            self._open, self._incident, self._incident_ns = (
                full[0],
                self._new_id(),
                min(self._since_ns[full[0]], boot_ns),
            )
            self._normal_s = 0.0
            return [self._told(Phase.STARTED, boot_ns)]
        if full and self._open not in full:
            self._open = full[0]
            return [self._told(Phase.UPDATED, boot_ns)]
        if self._normal_s >= self._settings.clear_s:
            event = self._ended(boot_ns, "The view of the camera{at} is as it should be again")
            self._held_s = dict.fromkeys(Reason, 0.0)
            return [event]
        lasted_s = (boot_ns - self._incident_ns) / NS
        if self._open in (Reason.TURNED, Reason.DEFOCUSED) and lasted_s >= self._settings.adopt_h * 3600:
            self._view = None  # learned anew from what is there
            self._held_s = dict.fromkeys(Reason, 0.0)
            return [self._ended(boot_ns, "The view of the camera{at} is taken for its normal one from now on")]
        return []

    def _learn(self, frame: Frame, look: Look, verdict: Verdict, boot_ns: int, passed_s: float) -> None:
        """Takes a look with nothing wrong into the reference."""
        self._sample_colour(frame, boot_ns)
        view = self._view
        if view is None or view.small.shape != look.small.shape or view.width != frame.luma.shape[1]:
            self._view = ViewReference(small=look.small, width=frame.luma.shape[1])
            return
        sharp = verdict.sharp
        if sharp is None:
            sharp = picture_stats.sharpness(frame.luma, view.edges, look.structure)
        if not view.ready:
            if not view.learn(look.small, look.structure, sharp, passed_s):
                self._view = ViewReference(small=look.small, width=frame.luma.shape[1])
            elif view.ready:
                log.info("the view is known now%s", "; it has too few edges to notice a turn" * view.featureless)
                self._save(boot_ns)
            return
        view.follow(look.small, sharp, passed_s)
        mean, before = look.light.mean, self._before
        if before is not None:
            mean = before.mean + (mean - before.mean) * (1 - math.exp(-passed_s / _LEVEL_S))
        self._before = Before(boot_ns, mean, self._grey and view.colour_seen)
        if self._saved_ns is None or abs(boot_ns - self._saved_ns) >= _SAVE_S * NS:
            self._save(boot_ns)

    def _sample_colour(self, frame: Frame, boot_ns: int) -> None:
        """Now and then: is the picture grey? Night mode is known by that alone."""
        if self._colour_ns is not None and 0 <= boot_ns - self._colour_ns < _COLOUR_S * NS:
            return
        try:
            picture = frame.crop(FULL, px_max=32)
        except Transient:
            return
        self._colour_ns = boot_ns
        spread = picture.max(axis=2).astype(np.float32) - picture.min(axis=2)
        self._grey = float(spread.mean()) < _GREY_SPREAD
        if self._view is not None and not self._grey:
            self._view.colour_seen = True

    def _told(self, phase: Phase, boot_ns: int, text: str = "") -> Event:
        reason = self._open
        assert reason is not None  # noqa: S101
        sudden = self._sudden.get(reason, False)
        alert = reason.value in self._settings.alert_on and (reason is not Reason.DARK or sudden)
        text = text or (_SUDDENLY_DARK if reason is Reason.DARK and sudden else _TEXT[reason])
        return Event(
            incident=self._incident,
            kind=Kind.TAMPER,
            phase=phase,
            boot_ns=boot_ns,
            priority=Priority.ALERT if alert else Priority.NOTICE,
            summary=text.format(at=self._at),
            reason=reason.value,
            onvif=ONVIF[reason],
            since_ns=self._incident_ns,
        )

    def _ended(self, boot_ns: int, text: str) -> Event:
        event = self._told(Phase.ENDED, max(boot_ns, self._incident_ns), text)
        self._open = None
        return event

    def _restored(self) -> ViewReference | None:
        data = self._shelf.load() if self._shelf is not None and self._settings.enabled else None
        if data is None:
            return None
        try:
            return ViewReference.restored(data, self._camera)
        except Corrupt as error:
            log.warning("%s; the view is learned anew", error)
            return None

    def _save(self, boot_ns: int) -> None:
        if self._shelf is not None and self._view is not None and self._view.ready:
            self._saved_ns = boot_ns
            self._shelf.save(self._view.stored(self._camera))
