"""The label for a post's enclosure: an SVG of 90 x 40 mm, a QR code (ISO/IEC 18004, by segno) and words.

The code holds `wardpost:<site>/<node>?device=<device>`, no secret: anybody on the pavement can read it.
"""

from __future__ import annotations

import re
from urllib.parse import quote
from xml.sax.saxutils import escape

from agent.errors import ConfigError

HELP = "Damaged, or questions? Please tell:"
_CODE_MM = 32
_QUIET = 4  # modules of white around the code, as the standard asks
_LINE_CHARS_MAX = 34


def text_of(site: str, node: str, device: str) -> str:
    """What the code says."""
    return f"wardpost:{site}/{node}" + (f"?device={quote(device, safe='')}" if device else "")


def svg(*, site: str, node: str, device: str, place: str, custodian: str) -> bytes:
    """The label. Raises ConfigError when segno is not installed."""
    try:
        import segno
    except ImportError:
        raise ConfigError("label: segno is not installed; pip install 'wardpost[provision]'") from None
    code = segno.make(text_of(site, node, device), error="q", micro=False)
    rows_of = [bytes(row) for row in code.matrix]
    modules = "".join(
        f"M{run.start()} {y}h{len(run[0])}v1h-{len(run[0])}z"
        for y, row in enumerate(rows_of)
        for run in re.finditer(b"\x01+", row)
    )
    scale = _CODE_MM / (len(rows_of) + 2 * _QUIET)
    offset = _QUIET * scale
    lines = [HELP, custodian, place, f"device {device}" if device else ""]
    told = [part for line in lines if line for part in _folded(line)][:7]
    rows = "".join(
        f'<text x="37" y="{19 + index * 3.2:.1f}" font-size="2.6">{escape(line)}</text>'
        for index, line in enumerate(told)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="90mm" height="40mm" viewBox="0 0 90 40"'
        ' font-family="sans-serif"><rect width="90" height="40" fill="#fff"/>'
        f'<path transform="translate({3 + offset:.4f} {4 + offset:.4f}) scale({scale:.5f})" d="{modules}"/>'
        f'<text x="37" y="9" font-size="5" font-weight="bold">{escape(node)}</text>'
        f'<text x="37" y="14" font-size="3.4">{escape(site)}</text>{rows}</svg>\n'
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
