"""Whom a provider vouches for. Without a library, so that links can be made where none is installed."""

from __future__ import annotations

from dataclasses import dataclass

SUBJECT_CHARS_MAX = 255
"""ASCII (OpenID Connect Core 1.0, 2)."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What of an ID token is used."""

    subject: str
    email: str  # lower case; empty unless the provider has verified it


def is_subject(text: str) -> bool:
    """Whether it can be one."""
    return text.isascii() and text.isprintable() and 0 < len(text) <= SUBJECT_CHARS_MAX
