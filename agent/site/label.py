"""The label for a post's enclosure: an SVG of 90 x 40 mm, a QR code (ISO/IEC 18004, by segno) and words.

The code holds `wardpost:<site>/<node>?device=<device>`, no secret: anybody on the pavement can read it.
"""

from __future__ import annotations

import re
from urllib.parse import quote
from xml.sax.saxutils import escape

from agent.errors import ConfigError
from agent.setup_page import network
from agent.setup_page.gate import spelled

HELP = "Damaged, or questions? Please tell:"
_CODE_MM = 32
_QUIET = 4  # modules of white around the code, as the standard asks
_LINE_CHARS_MAX = 34


def text_of(site: str, node: str, device: str) -> str:
    """What the code says."""
    return f"wardpost:{site}/{node}" + (f"?device={quote(device, safe='')}" if device else "")


def svg(*, site: str, node: str, device: str, place: str, custodian: str) -> bytes:
    """The label. Raises ConfigError when segno is not installed."""
    lines = [HELP, custodian, place, f"device {device}" if device else ""]
    told = [part for line in lines if line for part in _folded(line)][:7]
    rows = "".join(
        f'<text x="37" y="{19 + index * 3.2:.1f}" font-size="2.6">{escape(line)}</text>'
        for index, line in enumerate(told)
    )
    return _drawn(
        f"{_code(text_of(site, node, device), 3)}"
        f'<text x="37" y="9" font-size="5" font-weight="bold">{escape(node)}</text>'
        f'<text x="37" y="14" font-size="3.4">{escape(site)}</text>{rows}'
    )


def inside_svg(*, site: str, node: str, code: str, port: int) -> bytes:
    """The label for the inside of the box, with the code of the installation page: whoever reads it sees the camera.

    Two codes: the first joins the hotspot, the second opens the page. Raises ConfigError when segno is not installed.
    """
    told = [
        (3, "1. Wi-Fi", network.wifi_qr(node, code), network.ssid(node)),
        (49, "2. Page / Trang", network.page_qr(code, port=port), f"10.42.77.1:{port}"),
    ]
    return _drawn(
        "".join(
            f"{_code(text, x)}"
            f'<text x="{x + _CODE_MM / 2:g}" y="4.2" font-size="2.8" text-anchor="middle">{title}</text>'
            f'<text x="{x + _CODE_MM / 2:g}" y="38.6" font-size="2.6" text-anchor="middle">{escape(under)}</text>'
            for x, title, text, under in told
        )
        + '<g transform="translate(42 20) rotate(-90)" text-anchor="middle">'
        f'<text font-size="4.4" font-weight="bold" font-family="monospace">{spelled(code)}</text>'
        f'<text y="-5.2" font-size="2.2">{escape(f"{site}/{node}")}</text>'
        '<text y="3.6" font-size="2.2">keep inside / để trong hộp</text></g>'
    )


def _code(text: str, x_mm: float) -> str:
    """A QR code of _CODE_MM, 4 mm from the upper edge."""
    try:
        import segno
    except ImportError:
        raise ConfigError("label: segno is not installed; pip install 'wardpost[provision]'") from None
    rows_of = [bytes(row) for row in segno.make(text, error="q", micro=False).matrix]
    modules = "".join(
        f"M{run.start()} {y}h{len(run[0])}v1h-{len(run[0])}z"
        for y, row in enumerate(rows_of)
        for run in re.finditer(b"\x01+", row)
    )
    scale = _CODE_MM / (len(rows_of) + 2 * _QUIET)
    offset = _QUIET * scale
    return f'<path transform="translate({x_mm + offset:.4f} {4 + offset:.4f}) scale({scale:.5f})" d="{modules}"/>'


def _drawn(inside: str) -> bytes:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="90mm" height="40mm" viewBox="0 0 90 40"'
        f' font-family="sans-serif"><rect width="90" height="40" fill="#fff"/>{inside}</svg>\n'
    ).encode()


def _folded(text: str) -> list[str]:
    """Text in lines that fit the label; control characters are no text, and XML has no place for them."""
    words = "".join(c if c.isprintable() else " " for c in text).split()
    lines = [""]
    for word in words:
        piece = word
        while len(piece) > _LINE_CHARS_MAX:
            lines.append(piece[:_LINE_CHARS_MAX])
            piece = piece[_LINE_CHARS_MAX:]
        if lines[-1] and len(lines[-1]) + 1 + len(piece) <= _LINE_CHARS_MAX:
            lines[-1] += f" {piece}"
        else:
            lines.append(piece)
    return [line for line in lines if line]
