"""[bells] of a station's settings: what it keeps around a press, and how much one bell may make it keep."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from agent.config import Settings


class BellSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[bells]: holds that the station orders by itself, and what the board shows around a bell."""

    hold: bool = True  # needs station.command_key and [web]
    before_minutes: Annotated[float, Meta(ge=0, le=60)] = 5.0  # of footage before the press
    after_minutes: Annotated[float, Meta(ge=0, le=120)] = 15.0
    hold_days: Annotated[float, Meta(ge=1, le=30)] = 7.0  # so long it is kept; a case holds it for longer
    neighbours_max: Annotated[int, Meta(ge=0, le=10)] = 3  # posts beside the bell's own, the nearest
    live_pictures: bool = True  # a board asks for those around the newest bell by itself; false: at a button
    near_m_max: Annotated[float, Meta(ge=0, le=5000)] = 300.0  # what lies further off is no neighbour
    holds_per_hour_max: Annotated[int, Meta(ge=1, le=60)] = 4  # presses of one bell that holds are ordered for
    holds_per_day_max: Annotated[int, Meta(ge=1, le=500)] = 12
    foreign_holds_per_day_max: Annotated[int, Meta(ge=1, le=500)] = 24  # of one post, for bells of all others together
