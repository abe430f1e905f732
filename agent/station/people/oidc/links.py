"""Who of the station's people somebody at the provider is. The admin says so; nobody signs himself up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine, delete, insert, select, update

from agent.errors import ConfigError
from agent.station.db.engine import reading
from agent.station.db.oidc import oidc_link
from agent.station.db.people import session
from agent.station.people.oidc.claims import SUBJECT_CHARS_MAX, Claims, is_subject
from agent.station.people.registry import find
from agent.station.people.trail import Trail

_EMAIL = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9.-]{1,189}")


@dataclass(frozen=True, slots=True)
class Link:
    """One of both, or both once the first login by an e-mail has told the subject."""

    subject: str = ""
    email: str = ""


def link_of(subject: str, email: str) -> Link:
    """As it is kept; exactly one must be given. Raises ConfigError."""
    if bool(subject) == bool(email):
        raise ConfigError("give one: the provider's subject of that person, or an e-mail that it verifies")
    if email and not _EMAIL.fullmatch(email.lower()):
        raise ConfigError(f"e-mail {email[:60]!r}: it is none, as in lan@ward-7.example")
    if subject and not is_subject(subject):
        raise ConfigError(
            f"subject {subject[:60]!r}: 1 to {SUBJECT_CHARS_MAX} ASCII characters, as the provider has it"
        )
    return Link(subject, email.lower())


class Links:
    """Any thread. Raises Transient when the database is in the way."""

    def __init__(self, engine: Engine, *, trail: Trail, issuer: str) -> None:
        """`issuer`: links to another one count for nothing."""
        self._engine, self._trail, self._issuer = engine, trail, issuer

    def all(self) -> Mapping[str, Link]:
        """By login."""
        columns = (oidc_link.c.login, oidc_link.c.subject, oidc_link.c.email)
        with reading(self._engine) as db:
            rows = db.execute(select(*columns).where(oidc_link.c.issuer == self._issuer)).all()
        return {row.login: Link(row.subject or "", row.email or "") for row in rows}

    def put(self, login: str, link: Link | None, *, by: str) -> None:
        """Links somebody, or no more (None). All sessions of the person end. Raises ConfigError."""
        with self._trail.writing("link a person") as entry:
            if not find(entry.db, login):
                raise ConfigError(f"{login[:40]}: nobody has this login; `wardpost user list` shows who there is")
            entry.db.execute(delete(oidc_link).where(oidc_link.c.login == login))
            entry.db.execute(delete(session).where(session.c.login == login))
            if link is None:
                entry.note("oidc-unlinked", by, login=login)
                return
            theirs = (oidc_link.c.subject == link.subject) if link.subject else (oidc_link.c.email == link.email)
            other = entry.db.execute(select(oidc_link.c.login).where(oidc_link.c.issuer == self._issuer, theirs))
            taken = other.scalar()
            if taken is not None:
                raise ConfigError(f"{link.subject or link.email}: that is {taken} already")
            values = {"subject": link.subject or None, "email": link.email or None}
            entry.db.execute(insert(oidc_link).values(login=login, issuer=self._issuer, **values))
            entry.note("oidc-linked", by, login=login, issuer=self._issuer, subject=link.subject, email=link.email)

    def login_of(self, claims: Claims) -> str:
        """Of whom the provider vouches for; empty: nobody whom the admin has added, or somebody who is disabled."""
        mine = oidc_link.c.issuer == self._issuer
        by_subject = select(oidc_link.c.login).where(mine, oidc_link.c.subject == claims.subject)
        by_email = select(oidc_link.c.login).where(
            mine, oidc_link.c.subject.is_(None), oidc_link.c.email == claims.email
        )
        with reading(self._engine) as db:
            login = db.execute(by_subject).scalar()
            first = None if login is not None or not claims.email else db.execute(by_email).scalar()
            person = next(iter(find(db, str(login or first))), None) if login or first else None
        if person is None or person.disabled:
            return ""
        return person.login if first is None or self._pinned(person.login, claims) else ""

    def _pinned(self, login: str, claims: Claims) -> bool:
        """The first login by an e-mail: from now on the subject counts. False when another was quicker."""
        with self._trail.writing("link a person") as entry:
            done = entry.db.execute(
                update(oidc_link)
                .where(
                    oidc_link.c.login == login,
                    oidc_link.c.issuer == self._issuer,
                    oidc_link.c.subject.is_(None),
                    oidc_link.c.email == claims.email,
                )
                .values(subject=claims.subject)
            )
            if done.rowcount != 1:
                return False
            said = {"login": login, "issuer": self._issuer, "subject": claims.subject, "email": claims.email}
            entry.note("oidc-linked", login, **said)
            return True
