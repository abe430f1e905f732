"""Which settings each node is to have, and which it says it has, in the station's database.

`wardpost configure` writes what is desired, signed; the running station publishes it, retained, and writes what nodes
report. What was desired before is kept for a while: it is what the next change starts from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
from sqlalchemy import delete, func, insert, select, tuple_, update

from agent import wire
from agent.errors import ConfigError, Corrupt
from agent.station.book import Book
from agent.station.db.books import desired as desired_table
from agent.station.db.books import reported
from agent.station.db.upsert import Upsert

REVISIONS_KEPT_MAX = 20
"""Of one node."""

_KEY = tuple_(desired_table.c.node, desired_table.c.revision)
_NEWEST = (
    select(
        desired_table.c.node,
        desired_table.c.revision,
        desired_table.c.digest,
        desired_table.c.asked_utc_ns,
        desired_table.c.published,
    )
    .where(_KEY.in_(select(desired_table.c.node, func.max(desired_table.c.revision)).group_by(desired_table.c.node)))
    .order_by(desired_table.c.node)
)
_REPORT = Upsert(
    reported,
    lambda made: made.on_conflict_do_update(
        index_elements=["node"], set_={name: made.excluded[name] for name in ("body", "utc_ns")}
    ),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a node is to have."""

    node: str
    revision: int
    digest: str
    asked_utc_ns: int
    published: bool  # since it was desired, at least once


def in_force(wanted: Wanted, told: wire.SettingsState | None) -> bool:
    """Whether the node says that it has what is desired."""
    return told is not None and (told.revision, told.digest) == (wanted.revision, wanted.digest)


def answered(wanted: Wanted, told: wire.SettingsState | None) -> bool:
    """Whether the node has judged this revision; it need not be sent again then."""
    if told is None:
        return False
    gone = told.asked == wanted.revision and told.state in ("refused", "rolled-back")
    return gone or told.seen >= wanted.revision  # on trial, in force, or passed over


class SettingsBook(Book):
    """One connection, one thread. Raises Transient when the database refuses."""

    def desire(self, node: str, desired: wire.Desired, *, asked_utc_ns: int) -> None:
        """Durable when it returns. Raises ConfigError for a revision that is not higher than those before."""
        of = desired_table.c.node == node
        revision = desired_table.c.revision
        with self._transaction("write what is desired") as db:
            newest = db.execute(select(func.max(revision)).where(of)).scalar_one()
            if newest is not None and desired.revision <= newest:
                raise ConfigError(f"{node}: revision {newest} is desired already; a higher one replaces it")
            db.execute(
                insert(desired_table).values(
                    node=node,
                    revision=desired.revision,
                    digest=hashlib.sha256(desired.toml.encode()).hexdigest(),
                    payload=wire.encode(desired),
                    asked_utc_ns=asked_utc_ns,
                )
            )
            kept = select(revision).where(of).order_by(revision.desc()).limit(REVISIONS_KEPT_MAX)
            db.execute(delete(desired_table).where(of, revision.not_in(kept)))

    def published(self, node: str, revision: int) -> None:
        """The broker was given it."""
        this = update(desired_table).where(desired_table.c.node == node, desired_table.c.revision == revision)
        with self._transaction("note what was published") as db:
            db.execute(this.values(published=1))

    def report(self, node: str, told: wire.SettingsState, *, utc_ns: int) -> None:
        """What a node says it has."""
        with self._transaction("write what is reported") as db:
            _REPORT.one(db, {"node": node, "body": wire.encode(told), "utc_ns": utc_ns})

    def wanted(self) -> list[Wanted]:
        """The newest of each node."""
        return [
            Wanted(node, revision, digest, asked_ns, bool(published))
            for node, revision, digest, asked_ns, published in self._rows(_NEWEST)
        ]

    def payload(self, node: str, revision: int) -> bytes | None:
        """What is to be published of it."""
        this = (desired_table.c.node == node, desired_table.c.revision == revision)
        found = self._rows(select(desired_table.c.payload).where(*this))
        return bytes(found[0][0]) if found else None

    def text(self, node: str, revision: int) -> str | None:
        """The settings of a revision that was desired from here; None for any other."""
        payload = self.payload(node, revision)
        return None if payload is None else wire.decode(payload, wire.Desired).toml

    def reported(self) -> dict[str, tuple[wire.SettingsState, int]]:
        """What each node says it has, and since when it says so (utc_ns)."""
        found = {}
        for node, body, utc_ns in self._rows(select(reported).order_by(reported.c.node)):
            try:
                found[node] = (wire.decode(bytes(body), wire.SettingsState), utc_ns)
            except Corrupt:
                continue  # of another version of this station; the node tells again
        return found


def words(wanted: Wanted | None, told: wire.SettingsState | None) -> str:
    """How a node stands, in words. Begins with `behind` where it does not have what is desired."""
    if told is None:
        never = "it has never told which settings it has"
        return never if wanted is None else f"behind: revision {wanted.revision} is desired; {never}"
    has = f"revision {told.revision}" if told.revision else "the file of its card"
    since = f" since {told.since}" if told.since else ""
    if wanted is None:
        return f"has {has}{since}; nothing is desired from here"
    if in_force(wanted, told):
        return f"has {has}, as desired{since}"
    return f"behind: revision {wanted.revision} is desired; it has {has}{since}, {_why_behind(wanted, told)}"


def _why_behind(wanted: Wanted, told: wire.SettingsState) -> str:
    if told.trial == wanted.revision:
        return f"and tries the desired one since {told.at}"
    if told.asked == wanted.revision and told.state in ("refused", "rolled-back"):
        done = "refused it" if told.state == "refused" else "tried it and went back"
        return f"and {done} at {told.at}: {told.why}"
    if told.revision == wanted.revision:
        return "but with another text: that number was used at the post itself, or by another station"
    if told.revision > wanted.revision:
        return "which were set later, at the post itself or by another station"
    if told.state == "refused" and not told.asked:
        return f"and does not believe what it was given: {told.why}"
    return "and has not answered"


def as_row(node: str, wanted: Wanted | None, told: wire.SettingsState | None, state: str) -> dict[str, object]:
    """The same for a program."""
    return {
        "node": node,
        "state": state,
        "behind": wanted is not None and not in_force(wanted, told),
        "desired": None if wanted is None else {"revision": wanted.revision, "digest": wanted.digest},
        "reported": None if told is None else msgspec.to_builtins(told),
        "words": words(wanted, told),
    }
