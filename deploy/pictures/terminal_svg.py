# ruff: noqa: INP001  (a tool, part of no package)
"""Turns what a terminal shows into an SVG: the picture of the demo in README.md.

tmux new-session -d -s demo -x 80 -y 110 'make demo; sleep 600'
# when it has ended:
tmux capture-pane -e -p -t demo | python deploy/pictures/terminal_svg.py >deploy/pictures/demo.svg
"""

from __future__ import annotations

import re
import sys
from html import escape

COLUMNS = 80
CELL_W, CELL_H, MARGIN = 8.4, 18, 16
_COLOURS = {"31": "#ff6b6b", "32": "#7ee787", "33": "#ffd866", "36": "#79d7e8"}
_FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace"
_GAP = "\u00a0\u00a0"  # viewers make one space of two
_SGR = re.compile(r"\x1b\[([0-9;]*)m")


def spans(line: str, style: str) -> tuple[list[tuple[int, str, str]], str]:
    """A line as (column, text, CSS) of its differently styled parts; takes and gives the style at its ends."""
    parts: list[tuple[int, str, str]] = []
    column, at = 0, 0
    for match in [*_SGR.finditer(line), None]:
        text = line[at : match.start() if match else len(line)]
        if text.strip():
            parts.append((column + len(text) - len(text.lstrip()), text.strip(), style))
        column += len(text)
        if match:
            at = match.end()
            style = _css(match[1].split(";"), style)
    return parts, style


def _css(codes: list[str], style: str) -> str:
    for code in codes:
        if code in ("", "0"):
            style = ""
        elif code == "39":
            style = re.sub("fill:[^;]*;", "", style)
        elif code == "1":
            style += "font-weight:bold;"
        elif code == "2":
            style += "fill:#8b949e;"
        elif code in _COLOURS:
            style += f"fill:{_COLOURS[code]};"
    return style


def svg(lines: list[str]) -> str:
    """The whole picture. Each part is held to its width, whatever monospaced font the viewer has."""
    width, height = COLUMNS * CELL_W + 2 * MARGIN, len(lines) * CELL_H + 2 * MARGIN
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">',
        f'<rect width="{width:.0f}" height="{height:.0f}" rx="8" fill="#0d1117"/>',
        f'<g font-family="{_FONTS}" font-size="14" fill="#e6edf3">',
    ]
    carried = ""
    for number, line in enumerate(lines):
        y = MARGIN + number * CELL_H + 13
        parts, carried = spans(line, carried)
        for column, text, style in parts:
            x = MARGIN + column * CELL_W
            css = f' style="{style}"' if style else ""
            length, shown = f"{len(text) * CELL_W:.1f}", escape(text).replace("  ", _GAP)
            rows.append(f'<text x="{x:.1f}" y="{y}" textLength="{length}"{css}>{shown}</text>')
    return "\n".join([*rows, "</g>", "</svg>"]) + "\n"


def main() -> None:
    """Reads a capture with escape sequences from standard input; leaves out what stands before the demo."""
    lines = [line.rstrip("\n") for line in sys.stdin]
    plain = [_SGR.sub("", line) for line in lines]
    first = next((n for n, line in enumerate(plain) if line.startswith("Wardpost demo")), 0)
    last = max((n for n, line in enumerate(plain) if "promises" in line), default=len(lines) - 1)
    sys.stdout.write(svg(lines[first : last + 1]))


if __name__ == "__main__":
    main()
