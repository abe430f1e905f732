"""Small states that are kept as JSON: read back strictly, and within a bound."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from agent.errors import Corrupt

T = TypeVar("T", bound=msgspec.Struct)


def decode(data: bytes, kind: type[T], *, name: str, bytes_max: int) -> T:
    """Raises Corrupt in one line that begins with `name`."""
    if len(data) > bytes_max:
        raise Corrupt(f"{name}: {len(data)} bytes; {bytes_max} at most")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{name}: {error}") from None
