"""One byte range of a file, as a browser asks for it (RFC 9110, section 14). Pure."""

from __future__ import annotations

import re

_ONE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")


class Unsatisfiable(ValueError):  # noqa: N818
    """No byte of the file is in the range: 416."""


def parse(header: str, size: int) -> tuple[int, int] | None:
    """First byte and count; None: the whole file is to be sent, as for a header that is no single range of bytes.

    Raises Unsatisfiable.
    """
    found = _ONE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        count = min(int(found[2]), size)
        first = size - count
    else:
        first = int(found[1])
        if found[2] and int(found[2]) < first:
            return None
        count = min(int(found[2]), size - 1) - first + 1 if found[2] else size - first
    if count <= 0 or first >= size:
        raise Unsatisfiable(f"{header[:60]!r} of {size} bytes")
    return first, count
