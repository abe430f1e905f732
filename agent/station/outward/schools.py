"""The contacts of schools: in the database, for people at the desk change them. Each change is on the audit log.

A contact belongs to an account of role `school` and follows the posts of that account; one that is disabled, or is no
school any more, has nobody told. A contact is told of alerts and bells when they are raised, or so long after; those at
headquarters ([[outward.contact]]) come behind the deadline, if nobody has acknowledged by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, insert, select, update

from agent.clock import Clock
from agent.errors import ConfigError
from agent.station.db.engine import reading
from agent.station.db.people import person, person_post
from agent.station.db.schools import school_contact
from agent.station.outward.queue import Plan
from agent.station.outward.school_address import HOWS, shown
from agent.station.people.roles import Person, Role, Scope
from agent.station.people.trail import Trail

OF_SCHOOL_MAX = 8
CONTACTS_MAX = 128
"""Of all schools: each has a hand of its own when it is told."""
AFTER_S_MAX = 3600
KEEP_S = 12 * 3600.0


@dataclass(frozen=True, slots=True)
class SchoolContact:
    """One contact of a school, as pages show it: `where` holds no key."""

    n: int
    login: str
    name: str
    how: str
    where: str
    after_s: int


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a contact is reached."""

    how: str
    address: str


def destination_name(n: int) -> str:
    """Of a contact in `outward`. No name of the settings holds a dot."""
    return f"school.{n}"


class SchoolBook:
    """Any thread. Raises Transient."""

    def __init__(self, engine: Engine, *, trail: Trail, clock: Clock) -> None:
        self._engine = engine
        self._trail = trail
        self._clock = clock

    def contacts(self, logins: Sequence[str]) -> list[SchoolContact]:
        """Of these schools, in the order in which they are told."""
        c = school_contact.c
        query = select(c.n, c.login, c.name, c.how, c.address, c.after_s).where(
            c.login.in_(logins), c.removed_utc_ns.is_(None)
        )
        with reading(self._engine, "read contacts of schools") as db:
            rows = db.execute(query.order_by(c.login, c.after_s, c.n).limit(CONTACTS_MAX)).all()
        return [SchoolContact(r.n, r.login, r.name, r.how, shown(r.how, r.address), r.after_s) for r in rows]

    def add(self, login: str, *, name: str, how: str, address: str, after_s: int, by: Person) -> int:
        """`address`: one that is not wrong (school_address.py). The log gets no address: it can never be taken out.

        Returns the contact's number. Raises ConfigError when there is no room, or `by` may not.
        """
        if how not in HOWS or not 0 <= after_s <= AFTER_S_MAX:
            raise ConfigError(f"a contact of {login[:40]}: no such way, or after more than {AFTER_S_MAX} s")
        with self._trail.writing("add a contact of a school") as entry:
            posts = _need(entry.db, login, by.scope)
            there = select(func.count()).select_from(school_contact).where(school_contact.c.removed_utc_ns.is_(None))
            theirs = entry.db.execute(there.where(school_contact.c.login == login)).scalar_one()
            if theirs >= OF_SCHOOL_MAX or entry.db.execute(there).scalar_one() >= CONTACTS_MAX:
                raise ConfigError(f"{login}: at most {OF_SCHOOL_MAX} contacts of a school, {CONTACTS_MAX} of all")
            values = {"login": login, "name": name, "how": how, "after_s": after_s}
            made = insert(school_contact).values(**values, address=address, made_utc_ns=self._clock.utc().utc_ns)
            n = int(entry.db.execute(made.returning(school_contact.c.n)).scalar_one())
            entry.note("school-contact-added", by.login, n=n, posts=posts, school=login, name=name, how=how)
        return n

    def reach(self, n: int, *, by: Person) -> tuple[SchoolContact, Destination] | None:
        """One contact with its address; None: there is none, or it is not for these eyes."""
        c = school_contact.c
        with reading(self._engine, "look for a contact of a school") as db:
            row = db.execute(
                select(c.login, c.name, c.how, c.address, c.after_s).where(c.n == n, c.removed_utc_ns.is_(None))
            ).one_or_none()
            if row is None or not by.scope.covers_all(_posts(db, row.login)):
                return None
        told = SchoolContact(n, row.login, row.name, row.how, shown(row.how, row.address), row.after_s)
        return told, Destination(row.how, row.address)

    def remove(self, n: int, *, by: Person) -> bool:
        """Forgets the address. False: there is no such contact, or it is not for these eyes."""
        c = school_contact.c
        with self._trail.writing("remove a contact of a school") as entry:
            row = entry.db.execute(
                select(c.login, c.name, c.how).where(c.n == n, c.removed_utc_ns.is_(None))
            ).one_or_none()
            if row is None or not by.scope.covers_all(_posts(entry.db, row.login)):
                return False
            gone = {"address": "", "removed_utc_ns": self._clock.utc().utc_ns}
            entry.db.execute(update(school_contact).where(c.n == n).values(**gone))
            entry.note("school-contact-removed", by.login, n=n, school=row.login, name=row.name, how=row.how)
        return True


def told(engine: Engine) -> dict[Plan, Destination]:
    """Whom to tell what, now: what can be sent to, of schools that are in use. Raises Transient."""
    c = school_contact.c
    query = (
        select(c.n, c.login, c.how, c.address, c.after_s)
        .join(person, person.c.login == c.login)
        .where(c.removed_utc_ns.is_(None), c.how != "phone", person.c.role == Role.SCHOOL.value, person.c.disabled == 0)
        .order_by(c.n)
        .limit(CONTACTS_MAX)
    )
    with reading(engine, "read contacts of schools") as db:
        rows = db.execute(query).all()
        posts: dict[str, set[str]] = {}
        if rows:
            theirs = select(person_post.c.login, person_post.c.node)
            for login, node in db.execute(theirs.where(person_post.c.login.in_({row.login for row in rows}))):
                posts.setdefault(login, set()).add(node)
    return {
        Plan(
            name=destination_name(row.n),
            tell=frozenset({"bell", "alert"}),
            keep_s=KEEP_S,
            after_s=float(row.after_s),
            unless_answered=True,
            posts=frozenset(posts.get(row.login, ())),
        ): Destination(row.how, row.address)
        for row in rows
    }


def _posts(db: Connection, login: str) -> list[str]:
    found = db.execute(select(person_post.c.node).where(person_post.c.login == login).order_by(person_post.c.node))
    return [str(node) for node in found.scalars()]


def _need(db: Connection, login: str, scope: Scope) -> list[str]:
    """A school's posts. Who does not answer for all of them may not say whom they tell. Raises ConfigError."""
    role = db.execute(select(person.c.role).where(person.c.login == login)).scalar()
    posts = _posts(db, login)
    if role != Role.SCHOOL.value or not posts or not scope.covers_all(posts):
        raise ConfigError(f"{login[:40]}: no such school")
    return posts
