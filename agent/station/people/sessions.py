"""Who is logged in. A session is 256 random bits that the browser keeps; the database keeps their SHA-256 only.

It ends after some time without a request, after a shift at the latest, and at once when its person is disabled or gets
another password or role. Logging in always makes a new one, so nobody can be made to use a session that another knows.

That a session is in use is noted in the database, and kept in memory while that cannot be written: a full disk must not
take the board from who is looking at it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

from sqlalchemy import Engine, delete, func, insert, select, update

from agent.clock import Clock
from agent.errors import Transient
from agent.station.db.engine import reading, writing
from agent.station.db.people import person, session
from agent.station.people.registry import find
from agent.station.people.roles import Person
from agent.types import NS

TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
SEEN_EVERY_S = 60.0
"""A session's last use is written down so often at most."""
PER_PERSON_MAX = 20
CLOCK_BACK_S_MAX = 300.0
"""A session that begins later than this from now was made by a clock that was wrong: it ends."""
UNNOTED_MAX = 10_000
"""Sessions whose use could not be written down; beyond it those are forgotten that were used longest ago."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is logged in. `key` names the session where its token must not stand."""

    person: Person
    key: str


class Sessions:
    """Any thread. Raises Transient."""

    def __init__(self, engine: Engine, *, clock: Clock, idle_s: float, whole_s: float) -> None:
        self._engine = engine
        self._clock = clock
        self._idle_ns = int(idle_s * NS)
        self._whole_ns = int(whole_s * NS)
        self._lock = threading.Lock()
        self._unnoted: OrderedDict[str, int] = OrderedDict()  # last use by SHA-256, UTC ns

    def begin(self, login: str) -> str:
        """A new session; returns its token. Ended ones are cleared away, and the person's oldest beyond a bound."""
        token, now = secrets.token_urlsafe(32), self._clock.utc().utc_ns
        with writing(self._engine, "begin a session") as db:
            db.execute(
                delete(session).where(
                    (session.c.made_utc_ns < now - self._whole_ns) | (session.c.seen_utc_ns < now - self._idle_ns)
                )
            )
            theirs = db.execute(
                select(session.c.sha256).where(session.c.login == login).order_by(session.c.made_utc_ns.desc())
            ).scalars()
            for sha256 in list(theirs)[PER_PERSON_MAX - 1 :]:
                db.execute(delete(session).where(session.c.sha256 == sha256))
            db.execute(insert(session).values(sha256=_sha256(token), login=login, made_utc_ns=now, seen_utc_ns=now))
        return token

    def find(self, token: str, *, touch: bool = True) -> Session | None:
        """Whose session this is; None when it is none, or has ended. `touch`: it is used now.

        That it is used costs nobody his answer: what cannot be noted is tried again after SEEN_EVERY_S.
        """
        if not TOKEN.fullmatch(token):
            return None
        sha256, now = _sha256(token), self._clock.utc().utc_ns
        with reading(self._engine) as db:
            row = db.execute(
                select(session.c.login, session.c.made_utc_ns, session.c.seen_utc_ns).where(session.c.sha256 == sha256)
            ).one_or_none()
            if row is None:
                return None
            seen_ns = max(row.seen_utc_ns, self._unnoted.get(sha256, 0))
            if not self._lasts(row.made_utc_ns, seen_ns, now):
                return None
            people = [one for one in find(db, row.login) if not one.disabled]
        if not people:
            return None
        if touch and now - seen_ns > SEEN_EVERY_S * NS:
            self._note(sha256, now)
        return Session(people[0], sha256)

    def _note(self, sha256: str, now_ns: int) -> None:
        try:
            with writing(self._engine, "note a session") as db:
                db.execute(update(session).where(session.c.sha256 == sha256).values(seen_utc_ns=now_ns))
        except Transient as error:
            log.warning("%s", error)
            with self._lock:
                self._unnoted[sha256] = now_ns
                self._unnoted.move_to_end(sha256)
                while len(self._unnoted) > UNNOTED_MAX:
                    self._unnoted.popitem(last=False)
        else:
            with self._lock:
                self._unnoted.pop(sha256, None)

    def _lasts(self, made_ns: int, seen_ns: int, now_ns: int) -> bool:
        if max(made_ns, seen_ns) > now_ns + CLOCK_BACK_S_MAX * NS:
            return False
        return now_ns - made_ns < self._whole_ns and now_ns - seen_ns < self._idle_ns

    def end(self, token: str) -> None:
        """Ends it, if it is one."""
        with writing(self._engine, "end a session") as db:
            db.execute(delete(session).where(session.c.sha256 == _sha256(token)))

    def count(self, login: str) -> int:
        """How many somebody has, ended ones included that were not cleared away yet."""
        with reading(self._engine) as db:
            query = select(func.count()).select_from(session).join(person).where(session.c.login == login)
            return int(db.execute(query).scalar_one())


def form_token(token: str) -> str:
    """What every form of a session carries: it follows from the session's token, and says nothing about it."""
    return hmac.new(token.encode(), b"wardpost form", hashlib.sha256).hexdigest()


def form_fits(token: str, given: str) -> bool:
    """Whether a form comes from a page of this session."""
    return hmac.compare_digest(form_token(token).encode(), given.encode("utf-8", "replace"))


def new_token() -> str:
    """For who has no session yet: holds the form of the login page."""
    return secrets.token_urlsafe(32)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
