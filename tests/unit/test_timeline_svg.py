"""The picture of a day: it shows what the account says, in local time, and what is uncertain as uncertain."""

from __future__ import annotations

import datetime as dt
import xml.etree.ElementTree as ET
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.recording.account import Account
from agent.recording.coverage import FUTURE, RECORDED, Stretch
from agent.recording.timeline_svg import DAYS_MAX, draw
from agent.types import NS, Cause, Hold

SAIGON, BERLIN = ZoneInfo("Asia/Ho_Chi_Minh"), ZoneInfo("Europe/Berlin")
SVG = "{http://www.w3.org/2000/svg}"
HOUR = 3600 * NS


def midnight(zone: ZoneInfo, year: int = 2026, month: int = 11, day: int = 21) -> int:
    return round(dt.datetime(year, month, day, tzinfo=zone).timestamp()) * NS


def drawn(found: Account, zone: ZoneInfo = SAIGON, title: str = "ward-7/gate") -> ET.Element:
    return ET.fromstring(draw(found, title=title, zone=zone))


def of_class(picture: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in picture.iter() if element.get("class") == name]


def texts(picture: ET.Element) -> list[str]:
    return [element.text or "" for element in picture.iter(f"{SVG}text")]


def day(*parts: tuple[float, str], zone: ZoneInfo = SAIGON, **more: object) -> Account:
    """Hours and labels, from midnight."""
    start = at = midnight(zone)
    stretches = []
    for hours, what in parts:
        end = at + round(hours * HOUR)
        stretches.append(Stretch(at, end, what, "", 0.1))
        at = end
    return Account(start, at, stretches, [], [])


def test_bars_stand_at_their_local_hours_and_are_as_long_as_they_say() -> None:
    picture = drawn(day((6, RECORDED), (3, Cause.POWER_OFF), (15, RECORDED)))
    (off,) = of_class(picture, "power-off")
    first, last = (
        float(e.get("x", "0")) for e in sorted(of_class(picture, "recorded"), key=lambda e: float(e.get("x", "0")))
    )
    width = 1080 - 96 - 28
    assert first == 96 and float(off.get("x", "0")) == pytest.approx(96 + width * 6 / 24, abs=0.02)
    assert float(off.get("width", "0")) == pytest.approx(width * 3 / 24, abs=0.02)
    assert last == pytest.approx(96 + width * 9 / 24, abs=0.02)
    title = off.find(f"{SVG}title")
    assert title is not None and title.text is not None
    assert title.text.startswith("11-21 06:00:00 to 09:00:00 (±0.1 s) power off")
    assert "Sat 21 Nov" in texts(picture) and any("UTC+07:00" in t for t in texts(picture))


def test_a_gap_too_short_to_be_seen_is_seen_on_top_of_what_surrounds_it() -> None:
    picture = drawn(day((12, RECORDED), (1 / 3600, Cause.STORAGE_FAULT), (11, RECORDED)))
    bars = [e for e in picture.iter(f"{SVG}rect") if e.get("class") in ("recorded", "storage-fault")]
    assert bars[-1].get("class") == "storage-fault"
    assert float(bars[-1].get("width", "0")) >= 1.5


def test_what_is_uncertain_is_drawn_uncertain() -> None:
    found = day((6, RECORDED), (3, Cause.POWER_OFF), (15, RECORDED))
    sure = drawn(found)
    assert not of_class(sure, "perhaps") and not of_class(sure, "error")
    start, end = found.stretches[1].start_utc_ns, found.stretches[1].end_utc_ns
    found.stretches[1] = Stretch(start, end, Cause.POWER_OFF, "", 300.0, start_late_s=1800.0)
    found.stretches[2] = Stretch(end, found.end_utc_ns, RECORDED, "", None)
    picture = drawn(found)
    (perhaps,) = of_class(picture, "perhaps")
    assert float(perhaps.get("width", "0")) == pytest.approx((1080 - 124) / 48, abs=0.02)
    assert len(of_class(picture, "error")) == 1
    dashed = [e for e in of_class(picture, "recorded") if e.get("stroke-dasharray")]
    assert len(dashed) == 1
    assert {"may have begun within this", "clock not vouched for"} <= set(texts(picture))


def test_the_legend_names_every_label_that_occurs_with_its_time_and_no_other() -> None:
    picture = drawn(day((1, RECORDED), *((1.0, cause) for cause in Cause)))
    for words in ("recorded", "power off", "agent stopped", "camera fault", "storage fault", "privacy"):
        assert f"{words}  1 h 00 min" in texts(picture)
    assert not [t for t in texts(drawn(day((24, RECORDED)))) if "power off" in t]


def test_each_label_is_told_apart_without_colour() -> None:
    picture = drawn(day((1, RECORDED), *((1.0, cause) for cause in Cause)))
    tiles = {p.get("id"): p for p in picture.iter(f"{SVG}pattern")}
    paths = [tile.find(f"{SVG}path") for name, tile in tiles.items() if name != "perhaps"]
    shapes = [path.get("d") for path in paths if path is not None]
    assert len(shapes) == len(set(shapes)) == len(Cause)


def test_the_day_on_which_clocks_are_changed_has_twenty_five_hours() -> None:
    start = midnight(BERLIN, 2026, 10, 25)
    found = Account(start, start + 25 * HOUR, [Stretch(start, start + 25 * HOUR, RECORDED, "", 0.1)], [], [])
    picture = drawn(found, BERLIN)
    assert len(of_class(picture, "recorded")) == 1, "one day, one row"
    assert float(of_class(picture, "recorded")[0].get("width", "0")) == pytest.approx(956)
    assert "24:00" in texts(picture)


def test_a_range_over_midnight_is_two_rows_and_a_bound_is_a_bound() -> None:
    start = midnight(SAIGON) + 20 * HOUR
    found = Account(start, start + 8 * HOUR, [Stretch(start, start + 8 * HOUR, RECORDED, "", 0.1)], [], [])
    assert len(of_class(drawn(found), "recorded")) == 2
    end = start + (DAYS_MAX + 1) * 24 * HOUR
    with pytest.raises(ValueError, match="too many"):
        draw(Account(start, end, [Stretch(start, end, RECORDED, "", 0.1)], [], []), title="x", zone=SAIGON)


def test_the_time_to_come_is_left_white() -> None:
    found = day((12, RECORDED))
    end = midnight(SAIGON) + 24 * HOUR
    found.stretches.append(Stretch(found.end_utc_ns, end, Cause.UNKNOWN, FUTURE, None))
    picture = drawn(Account(found.start_utc_ns, end, found.stretches, [], []))
    assert not of_class(picture, "unknown") and not [t for t in texts(picture) if "not known" in t]


def test_times_without_an_uplink_and_holds_stand_beside_the_bar() -> None:
    base = day((24, RECORDED))
    start = base.start_utc_ns
    found = Account(
        start,
        base.end_utc_ns,
        base.stretches,
        [Stretch(start + HOUR, start + 2 * HOUR, "offline", "no broker", 0.1)],
        [Hold("h", start, start + 3 * HOUR, None, "theft & <worse>", "hq", 0)],
    )
    picture = drawn(found, title="ward & <gate>")
    assert len(of_class(picture, "offline")) == len(of_class(picture, "held")) == 1
    assert "no uplink (recording goes on)  1 h 00 min" in texts(picture)


LABELS = st.sampled_from([RECORDED, *map(str, Cause)])


@given(
    st.lists(
        st.tuples(st.integers(1, 200_000), LABELS, st.none() | st.floats(0, 1e6), st.floats(0, 1e5)),
        min_size=1,
        max_size=20,
    ),
    st.integers(-(10**8), 10**8),
    st.text(max_size=30),
)
def test_any_account_is_a_picture_that_a_browser_reads(
    parts: list[tuple[int, str, float | None, float]], offset_s: int, text: str
) -> None:
    at = midnight(SAIGON) + offset_s * NS
    start, stretches = at, []
    for seconds, what, unc_s, late_s in parts:
        stretches.append(Stretch(at, at + seconds * NS, what, text, unc_s, late_s))
        at += seconds * NS
    for zone in (SAIGON, BERLIN):
        picture = drawn(Account(start, at, stretches, [], []), zone)
        for bar in picture.iter(f"{SVG}rect"):
            assert float(bar.get("x", "0")) + float(bar.get("width", "0")) <= 1080 + 0.01
