"""Zones: where a foot stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import ZoneSettings
from agent.errors import ConfigError
from agent.vision.zones import ZoneMap

YARD = ZoneSettings(name="yard", polygon=((0, 0.5), (1, 0.5), (1, 1), (0, 1)))
ELL = ZoneSettings(name="ell", polygon=((0.2, 0.2), (0.8, 0.2), (0.8, 0.4), (0.4, 0.4), (0.4, 0.8), (0.2, 0.8)))


def test_a_point_is_in_every_zone_that_holds_it_in_the_order_of_the_configuration() -> None:
    zones = ZoneMap([ELL, YARD])
    assert zones.at((0.3, 0.6)) == ("ell", "yard")
    assert zones.at((0.6, 0.3)) == ("ell",)
    assert zones.at((0.6, 0.45)) == ()  # in the notch of the L
    assert ZoneMap([]).at((0.5, 0.5)) == ()


def test_a_foot_at_the_lower_edge_stands_in_the_zone_drawn_to_the_edge() -> None:
    assert ZoneMap([YARD]).at((0.5, 1.0)) == ("yard",)
    assert ZoneMap([YARD]).at((0.0, 1.2)) == ("yard",)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_rectangle_agrees_with_comparison(x: float, y: float) -> None:
    assert (ZoneMap([YARD]).at((x, y)) == ("yard",)) is (y > 0.5) or y == 0.5


def test_a_zone_that_encloses_nothing_and_a_name_used_twice_are_config_errors() -> None:
    with pytest.raises(ConfigError, match=r"zones\[0\] \(line\).*encloses nothing"):
        ZoneMap([ZoneSettings(name="line", polygon=((0, 0), (0.5, 0.5), (1, 1)))])
    with pytest.raises(ConfigError, match=r"zones\[1\].*'yard' is taken"):
        ZoneMap([YARD, YARD])
