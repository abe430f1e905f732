"""Who may fetch feeds: 256 random bits that whoever fetches keeps; the database has their SHA-256 only.

A token serves one purpose. Nobody's password or session opens a feed, and no token opens a page.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import Engine, insert, select, update

from agent.clock import Clock
from agent.errors import ConfigError
from agent.station.db.engine import reading
from agent.station.db.outward import outward_token
from agent.station.people.trail import Trail
from agent.types import NS

Purpose = Literal["cap", "metrics", "events"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
PREFIX = "wpt_"
TOKEN = re.compile(r"wpt_[A-Za-z0-9_-]{43}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
TOKENS_MAX = 200


@dataclass(frozen=True, slots=True)
class Token:
    """One that was given out. `revoked_utc_ns` None: it is good."""

    name: str
    purpose: str
    made_utc_ns: int
    revoked_utc_ns: int | None


class Tokens:
    """Any thread. Raises Transient."""

    def __init__(self, engine: Engine, *, trail: Trail, clock: Clock) -> None:
        self._engine = engine
        self._trail = trail
        self._clock = clock

    def add(self, name: str, purpose: str, *, by: str) -> str:
        """A new one; the only time that it is told. Raises ConfigError."""
        if not NAME.fullmatch(name):
            raise ConfigError(f"token {name[:40]!r}: 1 to 32 lower-case letters, digits, dots, hyphens")
        if purpose not in PURPOSES:
            raise ConfigError(f"--for {purpose[:40]!r}: one of {', '.join(PURPOSES)}")
        token = PREFIX + secrets.token_urlsafe(32)
        with self._trail.writing("give a token out") as entry:
            there = set(entry.db.execute(select(outward_token.c.name)).scalars())
            if name in there:
                raise ConfigError(f"token {name}: there is one of this name, or was; names are not given twice")
            if len(there) >= TOKENS_MAX:
                raise ConfigError(f"token: {TOKENS_MAX} names are in use, and no more can be given")
            made = self._clock.utc().utc_ns
            row = {"name": name, "purpose": purpose, "sha256": _digest(token), "made_utc_ns": made}
            entry.db.execute(insert(outward_token).values(**row))
            entry.note("token-added", by, name=name, purpose=purpose)
        return token

    def revoke(self, name: str, *, by: str) -> None:
        """It is refused from now on. Raises ConfigError: no such token."""
        with self._trail.writing("revoke a token") as entry:
            good = (outward_token.c.name == name, outward_token.c.revoked_utc_ns.is_(None))
            done = entry.db.execute(update(outward_token).where(*good).values(revoked_utc_ns=self._clock.utc().utc_ns))
            if not done.rowcount:
                raise ConfigError(f"token {name[:40]}: there is none of this name that is still good")
            entry.note("token-revoked", by, name=name)

    def listing(self) -> list[Token]:
        """All that were ever given out, by name."""
        columns = outward_token.c
        query = select(columns.name, columns.purpose, columns.made_utc_ns, columns.revoked_utc_ns)
        with reading(self._engine) as db:
            return [Token(*row) for row in db.execute(query.order_by(columns.name))]

    def holder(self, token: str, purpose: Purpose) -> str | None:
        """The name of a token that is good for this; None: it is not. What has not its form costs no query."""
        if not TOKEN.fullmatch(token):
            return None
        query = select(outward_token.c.name).where(
            outward_token.c.sha256 == _digest(token),
            outward_token.c.purpose == purpose,
            outward_token.c.revoked_utc_ns.is_(None),
        )
        with reading(self._engine) as db:
            found: str | None = db.execute(query).scalar()
        return found


class Rate:
    """So many requests a minute for each name, and not all of them at once. Any thread."""

    def __init__(self, *, clock: Clock, per_minute_max: int) -> None:
        self._clock = clock
        self._each_ns = 60 * NS // per_minute_max
        self._ahead_ns = max(self._each_ns, 10 * NS)  # a burst of ten seconds' worth
        self._lock = threading.Lock()
        self._next: dict[str, int] = {}  # names of tokens: TOKENS_MAX at most

    def wait_s(self, name: str) -> float:
        """0: it may, and that is counted; else how long it is to wait."""
        now = self._clock.boot_ns()
        with self._lock:
            due = max(self._next.get(name, 0), now)
            if due - now >= self._ahead_ns:
                return (due - now - self._ahead_ns + self._each_ns) / NS
            self._next[name] = due + self._each_ns
            return 0.0


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
