"""The hardware guides say what the code does: pins in every drawing, and every figure that can be worked out."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import health, wire
from agent.clock import rfc3339, uuid7_maker
from agent.evidence import dsse, receipts, records
from agent.evidence.keys import generate
from agent.evidence.records import GENESIS, Fact, RecordKind
from agent.health import Heartbeats, Probes
from agent.machine import Machine
from agent.station import ledgers
from agent.store.store import Origin, Store
from agent.types import NS, PATH_POINTS_MAX, Box, EndReason, Event, Kind, Label, Phase, Priority, Segment
from agent.vision.thumbnail import BYTES_MAX
from hardware.drawings import wiring
from hardware.drawings.symbols import Sheet
from hardware.sums import aiming, heat, network, power, storage
from hardware.sums.__main__ import TABLES
from tests.fakes.clock import FakeClock

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = (ROOT / "deploy/node.example.toml").read_text(encoding="utf-8")
PINS = wiring.example_pins(EXAMPLE)


def drawn(svg: str) -> dict[str, tuple[int, int]]:
    """The pins that a drawing shows: name -> BCM number and place on the header."""
    found = {}
    for group in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}g"):
        if (name := group.get("data-name")) is not None:
            words = "".join(group.itertext())
            bcm, place = int(group.attrib["data-bcm"]), int(group.attrib["data-header"])
            assert str(place) in words, f"{name}: what is said and what is read differ"
            found[name] = (bcm, place)
    return found


def words_of(page: str) -> str:
    """A page on one line."""
    return " ".join((ROOT / "hardware" / page).read_text(encoding="utf-8").split())


# -- drawings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", wiring.SHEETS)
def test_a_committed_drawing_is_what_the_settings_say(name: str) -> None:
    committed = (wiring.FOLDER / name).read_text(encoding="utf-8")
    assert committed == wiring.SHEETS[name](PINS), "make it again: .venv/bin/python -m hardware.drawings.wiring"


def test_page_drawings_and_example_name_the_same_pins() -> None:
    page = (ROOT / "hardware/wiring.md").read_text(encoding="utf-8")
    told = {
        name: (int(bcm), int(place)) for name, bcm, place in re.findall(r"(?m)^\| `(\w+)` \| (\d+) \| (\d+) \|", page)
    }
    assert told == {name: (bcm, wiring.HEADER[bcm]) for name, bcm in PINS.items()}
    files = {name: drawn((wiring.FOLDER / name).read_text(encoding="utf-8")) for name in wiring.SHEETS}
    assert files["header.svg"] == told
    assert files["inputs.svg"] | files["outputs.svg"] == told
    assert set(files["inputs.svg"]) == set(wiring.INPUTS)


def test_the_grounds_of_the_page_are_grounds_and_the_header_has_each_place_once() -> None:
    page = (ROOT / "hardware/wiring.md").read_text(encoding="utf-8")
    svgs = "".join((wiring.FOLDER / name).read_text(encoding="utf-8") for name in ("inputs.svg", "outputs.svg"))
    taken = {wiring.HEADER[bcm] for bcm in PINS.values()}
    said = {int(n) for n in re.findall(r"\(header (\d+)\)", page)}
    said |= {int(n) for n in re.findall(r">header (\d+)<", svgs)} - taken
    assert said and said <= set(wiring.GROUNDS)
    places = [*wiring.HEADER.values(), *wiring.GROUNDS, *wiring.POWER, *wiring.RESERVED]
    assert sorted(places) == list(range(1, 41))


def test_the_checklist_switches_the_pins_of_siren_and_lamp() -> None:
    page = (ROOT / "hardware/people.md").read_text(encoding="utf-8")
    assert {int(n) for n in re.findall(r"pinctrl set (\d+)", page)} == {PINS["siren"]}
    assert f"lamp {PINS['lamp']}" in page


def test_another_pin_in_the_example_is_another_drawing() -> None:
    moved = wiring.example_pins(EXAMPLE.replace("#siren = 23", "#siren = 6"))
    assert drawn(wiring.outputs(moved))["siren"] == (6, 31)
    assert wiring.outputs(moved) != wiring.outputs(PINS)
    with pytest.raises(ValueError, match="no pin for siren"):
        wiring.example_pins(EXAMPLE.replace("#siren = 23", ""))


def test_a_symbol_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        Sheet("x").resistor((0, 0), (20, 0), "1 k")


# -- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "make"), TABLES, ids=[f"{page}-{make.__name__}" for page, make in TABLES])
def test_a_table_in_a_page_is_what_the_arithmetic_says(page: str, make: Callable[[], str]) -> None:
    text = (ROOT / "hardware" / page).read_text(encoding="utf-8")
    assert make() in text, f".venv/bin/python -m hardware.sums prints it anew:\n{make()}"


# -- aiming --------------------------------------------------------------------------------------------------------

PLAIN = aiming.Lens("45 degrees each way", 1.0, 2.0)


def test_a_lens_of_ninety_degrees_sees_twice_the_distance() -> None:
    assert PLAIN.view_deg == pytest.approx(90)
    assert aiming.share(PLAIN, distance_m=1.6) == pytest.approx(0.5)
    assert aiming.farthest_m(PLAIN) == pytest.approx(1.6 * 8 / 2)


@pytest.mark.parametrize("lens", aiming.LENSES, ids=lambda lens: lens.name)
def test_at_the_limit_the_share_is_the_limit(lens: aiming.Lens) -> None:
    assert aiming.share(lens, distance_m=aiming.farthest_m(lens)) == pytest.approx(aiming.SHARE_MIN)
    tilt_deg = aiming.level_tilt_deg(lens, height_m=3.0, far_m=30.0)
    head = math.tan(math.atan2(1.6 - 3.0, 30.0) + math.radians(tilt_deg)) * lens.focal_mm / lens.sensor_mm
    assert head == pytest.approx(0.4), "the head is a tenth of the picture below its upper edge"


def test_who_looks_down_sees_feet_close_by_and_who_looks_up_sees_none() -> None:
    assert aiming.nearest_m(PLAIN, height_m=3.0, tilt_deg=0.0) == pytest.approx(3.0)
    assert aiming.nearest_m(PLAIN, height_m=3.0, tilt_deg=45.0) == 0.0
    assert aiming.nearest_m(PLAIN, height_m=3.0, tilt_deg=-60.0) == math.inf


def test_the_makers_fields_of_view_are_met() -> None:
    """41 and 67 degrees for the two Camera Modules 3."""
    assert aiming.LENSES[0].view_deg == pytest.approx(67, abs=1.5)
    assert aiming.LENSES[1].view_deg == pytest.approx(41, abs=1.5)


# -- power ---------------------------------------------------------------------------------------------------------


def test_a_capacitor_gives_what_physics_says() -> None:
    assert power.supercap_s(farad=2, full_v=3, empty_v=1, watts=1, efficiency=1, aged=1) == pytest.approx(8)
    assert power.supercap_s(farad=2, full_v=3, empty_v=3, watts=1) == 0
    assert power.supercap_s(farad=2, full_v=3, empty_v=1, watts=4) == pytest.approx(8 / 4 * 0.85 * 0.7)


def test_the_worked_examples_are_worked_out() -> None:
    page = words_of("power.md")
    watts = next(board.watts for board in power.BOARDS if board.name.startswith("Pi 4"))
    assert f"0.85 / {watts:.2f} = {power.supercap_s(farad=25, full_v=5, empty_v=3, watts=watts):.0f} s" in page
    assert f"0.7 / {watts:.2f} = {power.battery_h(watt_hours=9, watts=watts):.1f} h" in page


def test_a_battery_and_a_pole_give_what_is_put_in() -> None:
    assert power.battery_h(watt_hours=10, watts=2, usable=1, efficiency=1, aged=1) == pytest.approx(5)
    need = power.solar(watts=1, sun_h=4, dark_days=2, losses=1, usable=1, aged=1)
    assert need.panel_wp == pytest.approx(24 / 4 * 1.25)
    assert need.battery_wh == pytest.approx(48)
    worse = power.solar(watts=1, sun_h=2, dark_days=4, losses=1, usable=1, aged=1)
    assert (worse.panel_wp, worse.battery_wh) == (2 * need.panel_wp, 2 * need.battery_wh)


def test_a_box_in_the_sun_is_hotter_than_one_in_the_shade() -> None:
    assert heat.rise_k(watts=7, area_m2=0.1) == pytest.approx(7 / 0.35)
    assert heat.rise_k(watts=7, sun_w=heat.sun_w(area_m2=0.02, absorbed=0.5), area_m2=0.1) == pytest.approx(17 / 0.35)


# -- storage -------------------------------------------------------------------------------------------------------


def test_the_endurance_stands_on_the_figure_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    measured = re.search(r"\| bytes to the disk per byte of video, whole node \| ([\d.]+) \|", readme)
    life = re.search(r"life of a 64 GB card at 2 Mbit/s around the clock \| (\d+) years", readme)
    assert measured is not None and life is not None
    assert float(measured[1]) == storage.AMPLIFICATION
    assert round(storage.years(gb=64, cycles=3000, kbps=2000, inside=1)) == int(life[1])
    page = (ROOT / "hardware/storage.md").read_text(encoding="utf-8")
    assert f"{storage.written_gb_a_day(2500):.0f} GB a day" in page
    assert f"{storage.days_kept(budget_gb=24, kbps=2500):.1f} days" in page


# -- network -------------------------------------------------------------------------------------------------------


def near(figure: int, real: int) -> bool:
    """Not less than the real size, and not more than a quarter above it."""
    return real <= figure <= 1.25 * real


def test_a_heartbeat_is_as_large_as_the_budget_says(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.5\0")
    day = rfc3339(1_700_000_000 * NS)
    classes: list[wire.FootageClass] = [
        wire.FootageClass(name=name, segments=2000, bytes=20_000_000_000, oldest=day, overwrite=day)
        for name in ("continuous", "event", "unsent", "held")
    ]
    camera = wire.CameraState(name="picamera2 imx708 1280x720", fps=5.02, frameagems=140, frames=10**8, restarts=12)
    vision = wire.VisionState(detector="tflite efficientdet-lite0", healthy=True, detectorruns=10**7, inferencems=84.31)
    recording = wire.RecordingState(
        recording=True, segments=2400, bytes=24 * 10**9, oldest=day, droppedpackets=0, classes=classes
    )
    queue = wire.QueueState(outboxrows=12, oldestage_s=1.5, dropped=0)
    probes = Probes(
        camera=lambda: camera,
        vision=lambda: vision,
        recording=lambda: recording,
        queue=lambda: queue,
        disk_free_bytes=lambda: 30 * 10**9,
    )
    machine = Machine(root=tmp_path, vcgencmd=lambda: "throttled=0x50000")
    beat = Heartbeats(node="gate-north", session=42, clock=FakeClock(), machine=machine, probes=probes)()
    assert near(network.HEARTBEAT_B, len(wire.encode(beat)))
    assert network.ANCHOR_S == health.ANCHOR_S


def test_events_and_lines_of_the_ledger_are_as_large_as_the_budget_says(tmp_path: Path) -> None:
    clock = FakeClock()
    new_id = uuid7_maker(clock)
    store = Store(
        tmp_path / "wardpost.db",
        clock=clock,
        new_id=new_id,
        origin=Origin("ward-7", "gate-north", "Gate 3, 12 Harbour Road"),
        outbox_rows_max=100,
        event_rows_max=100,
    )
    store.open()
    store.start_session()
    event = Event(
        new_id(), Kind.PERSON, Phase.UPDATED, clock.boot_ns(), Priority.ALERT, "A person lingers at the gate, 81 % sure",
        Label.PERSON, 0.81, Box(0.1803, 0.2, 0.2594, 0.1888), ("gate",), since_ns=clock.boot_ns(), rule="lingers",
        path=tuple((0.1234 + n / 100, 0.5) for n in range(6)), dwell_ns=30 * NS,
    )  # fmt: skip
    store.commit([event])
    row = next(row for row in store.pending(10) if row.kind != "record")
    assert near(network.EVENT_B, len(row.body))
    store.close()
    assert PATH_POINTS_MAX * 16 < network.EVENT_B, "the longest path does not double an event"

    told = records.event_body(event, sequence=1234, id=new_id(), message=row.body)
    file = Segment(
        "segments/000042-00001234.mp4", 42, "a" * 32, 10**15, 10**15 + 30 * NS, 9_000_000, 60, "b" * 64,
        EndReason.ROLLED, 1280, 720,
    )  # fmt: skip
    assert near(network.EVENT_LINE_B, line(clock, RecordKind.EVENT, told))
    assert near(network.FOOTAGE_LINE_B, line(clock, RecordKind.SEGMENT, records.segment_body(file)))


def line(clock: FakeClock, kind: RecordKind, body: bytes) -> int:
    """Bytes of a signed line on its way to the station."""
    epoch = uuid7_maker(clock)()
    fact = Fact(1234, kind, clock.boot_id, 10**15, 1_700_000_000 * NS, 5_000_000, body)
    payload = records.payload_of(fact, node="ward-7/gate-north", epoch=epoch, seq=123_456, prev=GENESIS, receipt=None)
    signed = dsse.sign(records.PAYLOAD_TYPE, payload, generate())
    return len(wire.encode(wire.Record(epoch=epoch, sequence=123_456, line=signed.decode())))


def test_acknowledgements_and_thumbnails_are_as_large_as_the_budget_says() -> None:
    clock = FakeClock()
    receipt = wire.Receipt(
        station="hq", epoch=uuid7_maker(clock)(), stored=[(123_456, 123_456)], head=123_456, time=rfc3339(NS)
    )
    assert near(network.ACK_B, len(wire.encode(receipt)))
    signed = receipts.make(
        station="hq",
        node="ward-7/gate-north",
        seq=123_456,
        head=GENESIS,
        time=clock.utc(),
        prev=GENESIS,
        key=generate(),
    )
    both = wire.Receipt(
        **{name: getattr(receipt, name) for name in receipt.__struct_fields__ if name != "ledger"},
        ledger=signed.decode(),
    )
    assert near(network.RECEIPT_B, len(wire.encode(both)))
    assert network.RECEIPT_EVERY_S == ledgers.RECEIPT_EVERY_S
    assert 0.5 * BYTES_MAX * 4 / 3 < network.THUMBNAIL_B < BYTES_MAX * 4 / 3 + network.EVENT_B


def test_the_page_names_the_sizes_of_the_budget() -> None:
    page = words_of("network.md")
    for said in (
        f"event {network.EVENT_B / 1000:.1f} kB",
        f"line of the ledger {network.EVENT_LINE_B / 1000:.1f}",
        f"file of footage {network.FOOTAGE_LINE_B / 1000:.1f}",
        f"heartbeat {network.HEARTBEAT_B / 1000:.1f}",
        f"acknowledgement {network.ACK_B / 1000:.2f}",
        f"receipt {network.RECEIPT_B / 1000:.1f}",
        f"{network.PER_MESSAGE_B} bytes around each",
        f"{network.clip_mb(seconds=30, kbps=2500):.1f} MB, an hour is {network.clip_mb(seconds=3600, kbps=2500) / 1000:.1f} GB",
    ):
        assert said in page


def test_a_month_is_the_sum_of_its_messages() -> None:
    quiet = network.month_mb(network.Post(visits=0, connections=0))
    assert quiet["visits"] == quiet["connections"] == 0
    beats = 86_400 / 30 * 30
    assert quiet["heartbeats"] == pytest.approx(beats * (network.HEARTBEAT_B + network.PER_MESSAGE_B) / 1e6)
    rarer = network.month_mb(network.Post(visits=0, heartbeat_s=60.0, connections=0))
    assert rarer["heartbeats"] == pytest.approx(quiet["heartbeats"] / 2)
    assert network.clip_mb(seconds=30, kbps=2500) == pytest.approx(9.375)
