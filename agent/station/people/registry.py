"""Who has an account. Every change is on the audit log, in the same transaction; nobody is ever deleted."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Engine, delete, insert, select, update

from agent.clock import Clock
from agent.errors import ConfigError
from agent.station.db.engine import reading
from agent.station.db.people import person, person_post, session
from agent.station.people.roles import Person, Role, Scope
from agent.station.people.trail import Trail

PEOPLE_MAX = 10_000
NO_PASSWORD = "!"  # noqa: S105
"""Is kept of the password of somebody who has none: he logs in by a provider."""


class Registry:
    """Any thread. Raises Transient when the database is in the way."""

    def __init__(self, engine: Engine, *, trail: Trail, clock: Clock) -> None:
        self._engine = engine
        self._trail = trail
        self._clock = clock

    def people(self) -> list[Person]:
        """Everybody, by login."""
        with reading(self._engine) as db:
            return find(db)

    def find(self, login: str) -> Person | None:
        """One by login, also who is disabled."""
        with reading(self._engine) as db:
            return next(iter(find(db, login)), None)

    def password(self, login: str) -> str | None:
        """What is kept of the password of somebody who may log in by one."""
        with reading(self._engine) as db:
            kept = select(person.c.password).where(person.c.login == login, person.c.disabled == 0)
            found = db.execute(kept).scalar()
            return None if found is None or found == NO_PASSWORD else str(found)

    def add(self, new: Person, *, password: str, by: str) -> None:
        """`password`: hashed, or NO_PASSWORD. Raises ConfigError when the login is taken, also by who is disabled."""
        with self._trail.writing("add a person") as entry:
            everybody = list(entry.db.execute(select(person.c.login)).scalars())
            if new.login in everybody:
                raise ConfigError(f"{new.login}: there is such a person, or was; logins are not used twice")
            if len(everybody) >= PEOPLE_MAX:
                raise ConfigError(f"{PEOPLE_MAX} people are known; no room for more")
            entry.db.execute(
                insert(person).values(
                    login=new.login,
                    name=new.name,
                    role=new.role,
                    password=password,
                    whole_site=int(new.scope.whole_site),
                    changed_utc_ns=self._clock.utc().utc_ns,
                )
            )
            _set_posts(entry.db, new.login, new.scope)
            entry.note("person-added", by, login=new.login, name=new.name, **_said(new.role, new.scope))

    def set_password(self, login: str, password: str, *, by: str, upgrade: bool = False) -> None:
        """`password`: hashed. All sessions of the person end, unless it is the same one hashed anew (`upgrade`)."""
        with self._trail.writing("change a password") as entry:
            self._need(entry.db, login)
            self._change(entry.db, login, password=password)
            if not upgrade:
                entry.db.execute(delete(session).where(session.c.login == login))
                entry.note("password-changed", by, login=login)

    def set_role(self, login: str, role: Role, scope: Scope, *, by: str) -> None:
        """All sessions of the person end: none may go on with what he may do no more."""
        with self._trail.writing("change a role") as entry:
            before = self._need(entry.db, login)
            self._change(entry.db, login, role=role, whole_site=int(scope.whole_site))
            _set_posts(entry.db, login, scope)
            entry.db.execute(delete(session).where(session.c.login == login))
            entry.note("role-changed", by, login=login, was=before.role, **_said(role, scope))

    def set_disabled(self, login: str, *, disabled: bool, by: str) -> None:
        """Shuts somebody out at once, or lets him in again."""
        with self._trail.writing("disable a person") as entry:
            self._need(entry.db, login)
            self._change(entry.db, login, disabled=int(disabled))
            if disabled:
                entry.db.execute(delete(session).where(session.c.login == login))
            entry.note("person-disabled" if disabled else "person-enabled", by, login=login)

    def _change(self, db: Connection, login: str, **values: object) -> None:
        now = self._clock.utc().utc_ns
        db.execute(update(person).where(person.c.login == login).values(changed_utc_ns=now, **values))

    @staticmethod
    def _need(db: Connection, login: str) -> Person:
        found = find(db, login)
        if not found:
            raise ConfigError(f"{login[:40]}: nobody has this login; `wardpost user list` shows who there is")
        return found[0]


def find(db: Connection, login: str | None = None) -> list[Person]:
    """Everybody, or one person, on a connection of the caller's."""
    everybody = select(person.c.login, person.c.name, person.c.role, person.c.whole_site, person.c.disabled)
    posts = select(person_post.c.login, person_post.c.node)
    if login is not None:
        everybody, posts = everybody.where(person.c.login == login), posts.where(person_post.c.login == login)
    theirs: dict[str, set[str]] = {}
    for who, node in db.execute(posts):
        theirs.setdefault(who, set()).add(node)
    return [
        Person(
            login=row.login,
            name=row.name,
            role=Role(row.role),
            scope=Scope(whole_site=bool(row.whole_site), posts=frozenset(theirs.get(row.login, ()))),
            disabled=bool(row.disabled),
        )
        for row in db.execute(everybody.order_by(person.c.login))
    ]


def _set_posts(db: Connection, login: str, scope: Scope) -> None:
    db.execute(delete(person_post).where(person_post.c.login == login))
    rows = [{"login": login, "node": node} for node in sorted(scope.posts)]
    if rows:
        db.execute(insert(person_post), rows)


def _said(role: Role, scope: Scope) -> dict[str, object]:
    posts: Iterable[str] = sorted(scope.posts)
    return {"role": role.value, "posts": "the whole site" if scope.whole_site else list(posts)}
