"""Files of a card that do not match, or were passed over, as they are put on record: the first few. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from agent.station.dock.card import Passed

NAMED_MAX = 20
"""Of each sort; all are counted."""
NAME_BYTES_MAX = 120
WHY_BYTES_MAX = 200
"""Of one file: a line of the audit log has a bound (agent/evidence/dsse.py), which 2 x NAMED_MAX of them stay below."""


def named(files: Iterable[Passed]) -> list[Passed]:
    """The first NAMED_MAX: names are a stranger's, so they are cut and cleaned."""
    return [
        replace(one, name=_plain(one.name, NAME_BYTES_MAX), why=_plain(one.why, WHY_BYTES_MAX))
        for one in islice(files, NAMED_MAX)
    ]


def _plain(text: str, bytes_max: int) -> str:
    """Nothing that takes more room once it is spelled in JSON, nor a letter that no text may have."""
    clean = "".join("'" if char == '"' else char if char.isprintable() and char != "\\" else "?" for char in text)
    return clean.encode()[:bytes_max].decode(errors="ignore")
