"""The wiring drawings, from the pins of deploy/node.example.toml: `.venv/bin/python -m hardware.drawings.wiring`.

Writes header.svg, inputs.svg and outputs.svg beside this file; tests/unit/test_hardware.py makes them again and
compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from hardware.drawings.symbols import HEIGHT, WIDTH, Sheet

FOLDER = Path(__file__).resolve().parent
EXAMPLE = FOLDER.parents[1] / "deploy/node.example.toml"

HEADER = {
    2: 3, 3: 5, 4: 7, 5: 29, 6: 31, 7: 26, 8: 24, 9: 21, 10: 19, 11: 23, 12: 32, 13: 33, 14: 8, 15: 10, 16: 36, 17: 11,
    18: 12, 19: 35, 20: 38, 21: 40, 22: 15, 23: 16, 24: 18, 25: 22, 26: 37, 27: 13,
}  # fmt: skip
"""BCM number -> place on the 40-pin header, of every Raspberry Pi that has one."""
GROUNDS = (6, 9, 14, 20, 25, 30, 34, 39)
POWER = {1: "3.3 V", 17: "3.3 V", 2: "5 V", 4: "5 V"}
RESERVED = {27: "ID_SD", 28: "ID_SC"}
INPUTS = ("bell", "tamper", "mains_lost", "privacy")
OUTPUTS = ("siren", "lamp", "led")


def example_pins(text: str) -> dict[str, int]:
    """The pins that the example configuration proposes, from its comments. Raises ValueError when one is missing."""
    panel = text.split("\n[panel]\n", 1)[1].split("\n[", 1)[0]
    pins: dict[str, int] = {}
    for name in (*INPUTS, *OUTPUTS):
        found = re.search(rf"(?m)^#{name} = (\d+)\b", panel)
        if found is None:
            raise ValueError(f"[panel] of the example names no pin for {name}")
        pins[name] = int(found[1])
    return pins


def header(pins: Mapping[str, int]) -> str:
    """Where on the 40-pin header everything goes."""
    sheet = Sheet("Wardpost: the 40-pin header")
    sheet.text((WIDTH / 2, 42), "The 40-pin header, seen from above", size=24, anchor="middle", bold=True)
    used = {HEADER[bcm]: (name, bcm) for name, bcm in pins.items()}
    left, top, pitch = 530, 110, 32
    sheet.box((left - 24, top - 26), (108, 20 * pitch + 12))
    sheet.text((left + 30, top - 36), "end of the memory card", anchor="middle", size=15)
    sheet.text((left + 30, top + 20 * pitch + 6), "end of the USB sockets", anchor="middle", size=15)
    for number in range(1, 41):
        row, right = divmod(number - 1, 2)
        x, y = left + 60 * right, top + pitch * row
        told = used.get(number)
        shape = f'<rect class="b" x="{x - 13}" y="{y - 13}" width="26" height="26"/>' if number == 1 else ""
        fill = "#000" if number in GROUNDS else "#fff"
        ring = 4 if told else 1.5
        mark = f'<circle cx="{x}" cy="{y}" r="12" fill="{fill}" stroke="#000" stroke-width="{ring}"/>'
        colour = ' style="fill:#fff"' if number in GROUNDS else ""
        mark += f'<text x="{x}" y="{y + 5}" font-size="14" text-anchor="middle"{colour}>{number}</text>'
        if told:
            mark = f'<g data-name="{told[0]}" data-bcm="{told[1]}" data-header="{number}">{mark}</g>'
        sheet.raw(shape + mark)
        words = _words(number, told)
        if words:
            end = x + (40 if right else -40)
            sheet.wire((x + (14 if right else -14), y), (end, y))
            sheet.text((end + (8 if right else -8), y + 6), words, anchor="start" if right else "end", bold=bool(told))
    sheet.note(
        (40, 120),
        "Square: pin 1, at the corner of the board.",
        "Black: ground. Thick ring: used by Wardpost.",
        "Power off before a wire is moved.",
        "No pin may see more than 3.3 V.",
    )
    sheet.note(
        (820, 120),
        "Inputs: closed to ground is active,",
        "but tamper: closed is at rest.",
        "Outputs: 3.3 V is on, 16 mA at most.",
    )
    sheet.text((WIDTH / 2, HEIGHT - 10), "made by hardware/drawings/wiring.py", size=13, anchor="middle")
    return sheet.svg()


def _words(number: int, told: tuple[str, int] | None) -> str:
    if told:
        return f"{told[0]}, GPIO {told[1]}"
    if number in GROUNDS:
        return "ground"
    return POWER.get(number, RESERVED.get(number, ""))


def inputs(pins: Mapping[str, int]) -> str:
    """Bell, tamper, mains_lost and privacy."""
    sheet = Sheet("Wardpost: inputs")
    _title(sheet, "Inputs: pulled up inside the Pi, closed to ground is active. Everything is drawn at rest.")
    _bell(sheet, pins["bell"])
    _tamper(sheet, pins["tamper"])
    _mains(sheet, pins["mains_lost"])
    _privacy(sheet, pins["privacy"])
    return sheet.svg()


def outputs(pins: Mapping[str, int]) -> str:
    """Siren, lamp and LED."""
    sheet = Sheet("Wardpost: outputs")
    _title(sheet, "Outputs: 3.3 V is on. The pull-down of 10 k is no luxury: while the Pi starts, its pins float.")
    _siren(sheet, pins["siren"])
    _lamp(sheet, pins["lamp"])
    _led(sheet, pins["led"])
    return sheet.svg()


def _title(sheet: Sheet, words: str) -> None:
    sheet.text((24, 34), words, size=19, bold=True)


def _bell(sheet: Sheet, bcm: int) -> None:
    sheet.frame((20, 50), (535, 430), "bell")
    x, y = sheet.terminal((34, 150), name="bell", bcm=bcm, header=HEADER[bcm])
    sheet.wire((x, y), (x + 22, y))
    sheet.dot((x + 22, y))
    sheet.capacitor((x + 22, y), (x + 22, y + 56), "100 nF")
    sheet.ground((x + 22, y + 56))
    sheet.resistor((x + 22, y), (x + 130, y), "1 k")
    sheet.wire((x + 130, y), (x + 250, y))
    sheet.text((x + 190, y - 14), "twisted pair", anchor="middle", size=15)
    sheet.contact((x + 250, y), (x + 340, y), "push button")
    sheet.wire((x + 340, y), (x + 340, y + 56), (x + 250, y + 56), (x + 130, y + 56))
    sheet.ground((x + 130, y + 56), "header 9")
    sheet.text((34, 284), "or from a bell circuit that has its own 12 V DC:", size=16, bold=True)
    collector, emitter, anode, cathode = sheet.optocoupler((190, 312), "PC817")
    sheet.wire(collector, (110, collector[1]))
    sheet.text((34, collector[1] + 5), f"GPIO {bcm}", bold=True)
    sheet.text((34, collector[1] + 24), f"header {HEADER[bcm]}", size=15)
    sheet.wire(emitter, (150, emitter[1]))
    sheet.ground((150, emitter[1]))
    sheet.resistor(anode, (420, anode[1]), "2.2 k, 1/4 W")
    sheet.text((428, anode[1] + 5), "+ of the bell")
    sheet.wire(cathode, (420, cathode[1]))
    sheet.text((428, cathode[1] + 5), "- of the bell")
    sheet.note((34, 450), "Direct: up to some metres. With the optocoupler: longer,", "and a surge meets it first.")


def _tamper(sheet: Sheet, bcm: int) -> None:
    sheet.frame((570, 50), (530, 200), "tamper")
    x, y = sheet.terminal((584, 130), name="tamper", bcm=bcm, header=HEADER[bcm])
    sheet.wire((x, y), (x + 120, y))
    sheet.contact((x + 120, y), (x + 220, y), "lid switch", closed=True)
    sheet.wire((x + 220, y), (x + 280, y))
    sheet.ground((x + 280, y), "header 14")
    sheet.note(
        (584, 208),
        "Closed while the box is shut, so that a cut wire reads as opened.",
        "Roller or reed switch; out of reach with the lid shut.",
    )


def _privacy(sheet: Sheet, bcm: int) -> None:
    sheet.frame((570, 265), (530, 215), "privacy")
    x, y = sheet.terminal((584, 350), name="privacy", bcm=bcm, header=HEADER[bcm])
    sheet.wire((x, y), (x + 120, y))
    sheet.contact((x + 120, y), (x + 220, y), "toggle switch, marked")
    sheet.wire((x + 220, y), (x + 280, y))
    sheet.ground((x + 280, y), "header 30")
    sheet.note(
        (584, 432),
        "A switch that stays, not a button. Nothing is recorded while it is",
        "closed, for privacy_s_max seconds at most.",
    )


def _mains(sheet: Sheet, bcm: int) -> None:
    sheet.frame((20, 495), (1080, 287), "mains_lost: closed when the mains is gone (drawn without mains)")
    _mains_by_relay(sheet, bcm)
    _mains_by_optocoupler(sheet, bcm)
    sheet.note(
        (34, 752),
        "+5 V and 0 V: a small plug-in supply at the mains, before UPS or battery. No mains voltage in this box.",
        "Test it: pull that supply; headquarters must be told. A cut wire at the pin is not noticed by itself.",
    )


def _mains_by_relay(sheet: Sheet, bcm: int) -> None:
    x, y = sheet.terminal((34, 586), name="mains_lost", bcm=bcm, header=HEADER[bcm])
    sheet.text((x + 150, y - 26), "A: relay", bold=True)
    sheet.wire((x, y), (x + 40, y))
    sheet.contact((x + 40, y), (x + 130, y), "NC", closed=True)
    sheet.wire((x + 130, y), (x + 170, y))
    sheet.ground((x + 170, y), "header 14")
    top, bottom = y + 58, y + 126
    sheet.coil((x + 86, top), (x + 86, bottom), "")
    sheet.raw(f'<path class="dash" d="M{x + 86} {y + 4}V{top + 18}"/>')
    sheet.text((x + 56, y + 98), "5 V coil", anchor="end")
    sheet.wire((x + 86, top), (x + 290, top))
    sheet.wire((x + 86, bottom), (x + 290, bottom))
    sheet.diode((x + 180, bottom), (x + 180, top), "1N4148")
    sheet.dot((x + 180, top))
    sheet.dot((x + 180, bottom))
    sheet.text((x + 298, top + 5), "+5 V", bold=True)
    sheet.text((x + 298, bottom + 5), "0 V", bold=True)


def _mains_by_optocoupler(sheet: Sheet, bcm: int) -> None:
    sheet.text((550, 560), "B: optocoupler", bold=True)
    sheet.text((550, 636), f"GPIO {bcm}", bold=True)
    sheet.text((550, 655), f"header {HEADER[bcm]}", size=15)
    collector, emitter = sheet.transistor((740, 670), "BC547", flip=True)
    sheet.wire((624, collector[1]), collector)
    sheet.ground(emitter)
    sheet.rail((740, 566), "3.3 V, header 17")
    sheet.resistor((740, 566), (740, 630), "10 k")
    sheet.dot((740, 630))
    sheet.wire((740, 630), (740, 670))
    out, ground, anode, cathode = sheet.optocoupler((850, 610), "PC817")
    sheet.wire((740, 630), out)
    sheet.wire(ground, (820, ground[1]))
    sheet.ground((820, ground[1]))
    sheet.resistor(anode, (1040, anode[1]), "1 k")
    sheet.text((1046, anode[1] + 5), "+5 V", bold=True)
    sheet.wire(cathode, (1040, cathode[1]))
    sheet.text((1046, cathode[1] + 5), "0 V", bold=True)


def _siren(sheet: Sheet, bcm: int) -> None:
    sheet.frame((20, 50), (535, 420), "siren, 12 V, up to 1 A")
    x, y = sheet.terminal((34, 330), name="siren", bcm=bcm, header=HEADER[bcm])
    sheet.resistor((x, y), (x + 100, y), "100")
    sheet.dot((x + 100, y))
    sheet.resistor((x + 100, y), (x + 100, y + 76), "10 k")
    sheet.ground((x + 100, y + 76))
    drain, source = sheet.mosfet((x + 100, y), "logic-level MOSFET")
    sheet.wire(source, (source[0], y + 76))
    sheet.ground((source[0], y + 76), "0 V, joined to the Pi's ground")
    sheet.load((drain[0], 190), (drain[0], 250), "siren", lamp=False)
    sheet.wire((drain[0], 250), drain)
    sheet.dot((drain[0], 265))
    sheet.dot((drain[0], 175))
    sheet.wire((drain[0], 175), (drain[0], 190))
    sheet.wire((drain[0], 265), (drain[0] + 110, 265))
    sheet.diode((drain[0] + 110, 265), (drain[0] + 110, 175), "1N4007")
    sheet.wire((drain[0] + 110, 175), (drain[0], 175))
    sheet.fuse((drain[0], 110), (drain[0], 175), "2 A")
    sheet.rail((drain[0], 110), "+12 V")


def _lamp(sheet: Sheet, bcm: int) -> None:
    sheet.frame((570, 50), (530, 420), "lamp, 12 or 24 V, by a relay")
    x, y = sheet.terminal((584, 330), name="lamp", bcm=bcm, header=HEADER[bcm])
    sheet.resistor((x, y), (x + 80, y), "100")
    sheet.dot((x + 80, y))
    sheet.resistor((x + 80, y), (x + 80, y + 76), "10 k")
    sheet.ground((x + 80, y + 76))
    drain, source = sheet.mosfet((x + 80, y), "")
    sheet.wire(source, (source[0], y + 76))
    sheet.ground((source[0], y + 76), "Pi's ground")
    sheet.coil((drain[0], 180), (drain[0], 250), "")
    sheet.wire((drain[0], 250), drain)
    sheet.dot((drain[0], 265))
    sheet.wire((drain[0], 265), (drain[0] - 80, 265))
    sheet.diode((drain[0] - 80, 265), (drain[0] - 80, 165), "")
    sheet.text((drain[0] - 100, 220), "1N4007", anchor="end")
    sheet.wire((drain[0] - 80, 165), (drain[0], 165), (drain[0], 180))
    sheet.dot((drain[0], 165))
    sheet.wire((drain[0], 165), (drain[0], 130))
    sheet.rail((drain[0], 130), "+5 V")
    right = drain[0] + 100
    sheet.raw(f'<path class="dash" d="M{drain[0] + 18} 215H{right - 8}"/>')
    sheet.contact((right, 250), (right, 180), "NO")
    sheet.fuse((right, 180), (right, 110), "fuse")
    sheet.rail((right, 110), "+12/24 V")
    sheet.load((right, 270), (right, 340), "lamp", lamp=True)
    sheet.wire((right, 250), (right, 270))
    sheet.wire((right, 340), (right, 360))
    sheet.ground((right, 360), "0 V of the lamp")


def _led(sheet: Sheet, bcm: int) -> None:
    sheet.frame((20, 485), (535, 200), "led")
    x, y = sheet.terminal((34, 570), name="led", bcm=bcm, header=HEADER[bcm])
    sheet.resistor((x, y), (x + 120, y), "330")
    sheet.diode((x + 120, y), (x + 230, y), "", light=True)
    sheet.wire((x + 230, y), (x + 270, y))
    sheet.ground((x + 270, y), "header 20")
    sheet.note((34, 650), "The flat side of the LED (short leg) to ground. 4 mA.")
    sheet.frame((570, 485), (530, 200), "good to know")
    sheet.note(
        (584, 540),
        "MOSFET: its resistance is stated at a gate voltage of 2.5 V.",
        "The bar of each diode goes to +; the other way round it is a short.",
        'A ready relay board: 3.3 V input, "high level trigger", jumper',
        "set so that coil and input have their own supplies.",
        "A lamp for the mains: an electrician, and a box of its own.",
    )


SHEETS: dict[str, Callable[[Mapping[str, int]], str]] = {
    "header.svg": header,
    "inputs.svg": inputs,
    "outputs.svg": outputs,
}


def main() -> None:
    """Writes all sheets."""
    pins = example_pins(EXAMPLE.read_text(encoding="utf-8"))
    for name, draw in SHEETS.items():
        (FOLDER / name).write_text(draw(pins), encoding="utf-8")
        print(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
