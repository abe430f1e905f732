"""Columns that hold the same on SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Integer, LargeBinary, Text
from sqlalchemy.types import TypeDecorator

Whole = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits. SQLite counts a primary key up by itself only if it is called INTEGER."""
Blob = LargeBinary()


def storable(text: str) -> str:
    """As every database can hold it: NUL, which PostgreSQL cannot, is U+FFFD."""
    return text.replace("\0", "\ufffd")


class Words(TypeDecorator[str]):
    """Text. NUL, which PostgreSQL cannot hold, is stored as U+FFFD: a node must not stop a batch with one letter."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:  # noqa: ARG002
        return None if value is None else storable(value)
