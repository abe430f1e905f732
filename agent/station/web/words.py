"""The pages' texts: words.<language>.json beside this file, texts with {placeholders}. More languages come by more
files; tests hold them to the same keys and placeholders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

DEFAULT = "en"
FOLDER: Traversable = files("agent.station.web")
_FILE = re.compile(r"words\.([a-z]{2})\.json")
_WISH = re.compile(r"\s*([a-zA-Z]{2})(?:-[a-zA-Z0-9-]{1,20})?\s*(?:;\s*q=([01](?:\.\d{0,3})?)\s*)?")
HEADER_CHARS_MAX = 200


class Words:
    """One language."""

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        self.language = language
        self._texts = texts

    def __call__(self, key: str, **values: object) -> str:
        """A text. Raises KeyError for one that no file has: a bug, found by the tests."""
        return self._texts[key].format(**values)

    def keys(self) -> frozenset[str]:
        """All texts there are."""
        return frozenset(self._texts)


def clock_error(words: Words, utc_ns: int | None, error_ms: int | None) -> str:
    """How sure a time is that a post told: a wrong clock must not look like a right one.

    `utc_ns` None: it told none that can be; `error_ms` None: nobody vouched for its clock.
    """
    if utc_ns is None:
        return words("time.none")
    if error_ms is None:
        return words("time.unsure")
    return words("time.error", seconds=max(-(-error_ms // 1000), 1))


def load() -> dict[str, Words]:
    """Every language that there is a file for."""
    found = {}
    for path in FOLDER.iterdir():
        match = _FILE.fullmatch(path.name)
        if match is not None:
            found[match[1]] = Words(match[1], json.loads(path.read_text(encoding="utf-8")))
    return found


def chosen(languages: Mapping[str, Words], cookie: str, accepted: str) -> Words:
    """What the person has chosen, else what the browser asks for (RFC 9110, 12.5.4), else English."""
    if cookie in languages:
        return languages[cookie]
    wishes = []
    for place, part in enumerate(accepted[:HEADER_CHARS_MAX].split(",")):
        match = _WISH.fullmatch(part)
        if match is not None and match[1].lower() in languages:
            wishes.append((-float(match[2] or 1), place, match[1].lower()))
    return languages[min(wishes)[2]] if wishes else languages[DEFAULT]
