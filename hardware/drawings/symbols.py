"""Circuit symbols (IEC 60617 where it has one) on a sheet of SVG, A4 landscape. Units are pixels of 0.265 mm."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1120, 792

Point = tuple[float, float]

_STYLE = (
    "text{font-family:Arial,Helvetica,'Liberation Sans',sans-serif;fill:#000}"
    ".w{fill:none;stroke:#000;stroke-width:2;stroke-linecap:round;stroke-linejoin:round}"
    ".f{fill:#000;stroke:#000;stroke-width:2}.b{fill:#fff;stroke:#000;stroke-width:2}"
    ".frame{fill:none;stroke:#888;stroke-width:1.5}.dash{fill:none;stroke:#666;stroke-width:1.5;stroke-dasharray:7 5}"
)


class Sheet:
    """Collects the elements of one drawing. Symbols with two ends run from `a` to `b`, horizontally or vertically."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def svg(self) -> str:
        """The whole file, ending in a newline. The same calls give the same bytes."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="297mm" height="210mm" viewBox="0 0 {WIDTH} {HEIGHT}">\n'
            f"<title>{escape(self._title)}</title>\n<style>{_STYLE}</style>\n"
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n'
        )
        return head + "\n".join(self._parts) + "\n</svg>\n"

    def raw(self, element: str) -> None:
        """One element of SVG, as it is."""
        self._parts.append(element)

    def text(self, at: Point, words: str, *, size: int = 16, anchor: str = "start", bold: bool = False) -> None:
        weight = ' font-weight="bold"' if bold else ""
        place = f'x="{_n(at[0])}" y="{_n(at[1])}" font-size="{size}" text-anchor="{anchor}"'
        self.raw(f"<text {place}{weight}>{escape(words)}</text>")

    def note(self, at: Point, *lines: str) -> None:
        """Small print, line under line."""
        for number, line in enumerate(lines):
            self.text((at[0], at[1] + 20 * number), line, size=15)

    def wire(self, *points: Point) -> None:
        self.raw(f'<polyline class="w" points="{" ".join(f"{_n(x)},{_n(y)}" for x, y in points)}"/>')

    def dot(self, at: Point) -> None:
        """Wires that meet here are joined."""
        self.raw(f'<circle class="f" cx="{_n(at[0])}" cy="{_n(at[1])}" r="3.5"/>')

    def ground(self, at: Point, label: str = "") -> None:
        x, y = at
        self.wire((x, y), (x, y + 12))
        for half, drop in ((15, 12), (9, 18), (3, 24)):
            self.wire((x - half, y + drop), (x + half, y + drop))
        if label:
            self.text((x + 20, y + 24), label, size=15)

    def rail(self, at: Point, label: str) -> None:
        """A supply above the wire that comes up to `at`."""
        x, y = at
        self.wire((x, y), (x, y - 10))
        self.wire((x - 14, y - 10), (x + 14, y - 10))
        self.text((x, y - 17), label, anchor="middle", bold=True)

    def terminal(self, at: Point, *, name: str, bcm: int, header: int) -> Point:
        """A pin of the Pi; returns where its wire begins. The group carries the pin for whoever checks the drawing."""
        x, y = at
        self.raw(
            f'<g data-name="{name}" data-bcm="{bcm}" data-header="{header}">'
            f'<path class="b" d="M{_n(x)} {_n(y - 26)}h118l14 26l-14 26h-118z"/>'
            f'<text x="{_n(x + 60)}" y="{_n(y - 5)}" font-size="17" text-anchor="middle" font-weight="bold">'
            f'GPIO {bcm}</text><text x="{_n(x + 60)}" y="{_n(y + 16)}" font-size="15" text-anchor="middle">'
            f"header {header}</text></g>"
        )
        return (x + 132, y)

    def frame(self, at: Point, size: Point, title: str) -> None:
        """A panel of the sheet with its heading."""
        x, y = at
        self.raw(f'<rect class="frame" x="{_n(x)}" y="{_n(y)}" width="{_n(size[0])}" height="{_n(size[1])}" rx="6"/>')
        self.text((x + 14, y + 26), title, size=18, bold=True)

    def box(self, at: Point, size: Point, *, dashed: bool = False) -> None:
        kind = "dash" if dashed else "b"
        place = f'x="{_n(at[0])}" y="{_n(at[1])}" width="{_n(size[0])}" height="{_n(size[1])}"'
        self.raw(f'<rect class="{kind}" {place} rx="4"/>')

    # -- symbols with two ends ---------------------------------------------------------------------------------------

    def resistor(self, a: Point, b: Point, label: str) -> None:
        self._two(a, b, 46, '<rect class="b" x="-23" y="-8" width="46" height="16"/>', label)

    def fuse(self, a: Point, b: Point, label: str) -> None:
        body = '<rect class="b" x="-20" y="-7" width="40" height="14"/><path class="w" d="M-20 0h40"/>'
        self._two(a, b, 40, body, label)

    def capacitor(self, a: Point, b: Point, label: str) -> None:
        self._two(a, b, 10, '<path class="w" d="M-5 -15v30M5 -15v30"/>', label)

    def diode(self, a: Point, b: Point, label: str, *, light: bool = False) -> None:
        """Current flows from a to b: b is the side of the bar."""
        body = '<path class="b" d="M-11 -12L11 0L-11 12z"/><path class="w" d="M11 -12v24"/>'
        if light:
            body += '<path class="w" d="M-2 -18l8 -10m-6 1l6 -1l1 6M10 -16l8 -10m-6 1l6 -1l1 6"/>'
        self._two(a, b, 22, body, label)

    def contact(self, a: Point, b: Point, label: str, *, closed: bool = False) -> None:
        """A switch, button or relay contact, drawn at rest."""
        lever = '<path class="w" d="M-18 0L22 -3"/>' if closed else '<path class="w" d="M-18 0L16 -17"/>'
        ends = '<circle class="b" cx="-20" cy="0" r="3.5"/><circle class="b" cx="20" cy="0" r="3.5"/>'
        self._two(a, b, 40, lever + ends, label, aside=26)

    def coil(self, a: Point, b: Point, label: str) -> None:
        """A relay's coil."""
        body = '<rect class="b" x="-14" y="-22" width="28" height="44"/><path class="w" d="M-14 -22L14 22"/>'
        self._two(a, b, 28, body, label, aside=30)

    def load(self, a: Point, b: Point, label: str, *, lamp: bool) -> None:
        """A lamp, or a siren."""
        inner = (
            '<path class="w" d="M-12 -12l24 24M12 -12l-24 24"/>'
            if lamp
            else '<path class="w" d="M-8 -14v28M8 -14v28"/>'
        )
        self._two(a, b, 34, f'<circle class="b" cx="0" cy="0" r="17"/>{inner}', label, aside=26)

    def _two(self, a: Point, b: Point, length: float, body: str, label: str, *, aside: float = 18) -> None:
        (ax, ay), (bx, by) = a, b
        whole = math.hypot(bx - ax, by - ay)
        if (ax != bx and ay != by) or whole < length:
            raise ValueError(f"{label}: from {a} to {b} there is no room for a symbol of {length}")
        middle = ((ax + bx) / 2, (ay + by) / 2)
        ux, uy = (bx - ax) / whole, (by - ay) / whole
        self.wire(a, (middle[0] - ux * length / 2, middle[1] - uy * length / 2))
        self.wire((middle[0] + ux * length / 2, middle[1] + uy * length / 2), b)
        turn = round(math.degrees(math.atan2(by - ay, bx - ax)))
        self.raw(f'<g transform="translate({_n(middle[0])} {_n(middle[1])}) rotate({turn})">{body}</g>')
        if ay == by:
            self.text((middle[0], middle[1] - aside), label, anchor="middle")
        else:
            self.text((middle[0] + aside, middle[1] + 5), label)

    # -- symbols with three and more -----------------------------------------------------------------------------------

    def mosfet(self, gate: Point, label: str) -> tuple[Point, Point]:
        """An N-channel MOSFET right of its gate. Returns drain (above) and source (below)."""
        x, y = gate
        self.wire((x, y), (x + 24, y))
        self.wire((x + 24, y - 20), (x + 24, y + 20))
        for top in (-22, -6, 10):
            self.wire((x + 32, y + top), (x + 32, y + top + 12))
        self.wire((x + 32, y - 16), (x + 58, y - 16), (x + 58, y - 42))
        self.wire((x + 32, y + 16), (x + 58, y + 16), (x + 58, y + 42))
        self.wire((x + 32, y), (x + 58, y), (x + 58, y + 16))
        self.raw(f'<path class="f" d="M{_n(x + 34)} {_n(y)}l9 -5v10z"/>')
        self.text((x + 70, y + 5), label)
        return (x + 58, y - 42), (x + 58, y + 42)

    def transistor(self, base: Point, label: str, *, flip: bool = False) -> tuple[Point, Point]:
        """An NPN transistor right of its base, left of it if `flip`. Returns collector (above) and emitter (below)."""
        x, y = base
        side = -1 if flip else 1
        self.wire((x, y), (x + side * 24, y))
        self.wire((x + side * 24, y - 18), (x + side * 24, y + 18))
        self.wire((x + side * 24, y - 8), (x + side * 46, y - 24), (x + side * 46, y - 40))
        self.wire((x + side * 24, y + 8), (x + side * 46, y + 24), (x + side * 46, y + 40))
        self.raw(f'<path class="f" d="M{_n(x + side * 44)} {_n(y + 22)}l{-10 * side} -1l{5 * side} -7z"/>')
        self.text((x + side * 56, y + 5), label, anchor="end" if flip else "start")
        return (x + side * 46, y - 40), (x + side * 46, y + 40)

    def optocoupler(self, at: Point, label: str) -> tuple[Point, Point, Point, Point]:
        """From its upper left corner, 110 x 90. Returns collector and emitter (left), anode and cathode (right)."""
        x, y = at
        self.box(at, (110, 90))
        self.text((x + 55, y + 108), label, anchor="middle")
        self.wire((x, y + 20), (x + 20, y + 20), (x + 36, y + 38))
        self.wire((x, y + 70), (x + 20, y + 70), (x + 36, y + 52))
        self.wire((x + 36, y + 30), (x + 36, y + 60))
        self.raw(f'<path class="f" d="M{_n(x + 21)} {_n(y + 69)}l3 -10l6 6z"/>')
        self.wire((x + 110, y + 20), (x + 84, y + 20), (x + 84, y + 34))
        self.raw(f'<path class="b" d="M{_n(x + 74)} {_n(y + 34)}h20l-10 18z"/>')
        self.wire((x + 74, y + 53), (x + 94, y + 53))
        self.wire((x + 84, y + 53), (x + 84, y + 70), (x + 110, y + 70))
        self.raw(f'<path class="w" d="M{_n(x + 66)} {_n(y + 40)}h-18m5 -4l-5 4l5 4"/>')
        return (x, y + 20), (x, y + 70), (x + 110, y + 20), (x + 110, y + 70)


def _n(value: float) -> str:
    return f"{value:g}"
