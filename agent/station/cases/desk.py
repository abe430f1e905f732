"""The only writer of cases: an act is a row of the timeline and a line of the audit log, in one transaction.

Writers wait for each other (agent/station/people/trail.py), so what is decided here is still so when it is written.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, insert, select

from agent.clock import Clock
from agent.errors import WardpostError
from agent.station.archive import name_of
from agent.station.cases import reading
from agent.station.cases.keeping import (
    Keeps,
    Kept,
    Piece,
    Queue,
    hold_args,
    may_go,
    pieces,
    to_ask_again,
    to_hold,
    to_release,
)
from agent.station.cases.reading import Case, Item
from agent.station.cases.states import Act, Objection, State, Told, decide, state_of
from agent.station.cases.wishes import granted
from agent.station.db.board import alert
from agent.station.db.cases import case_act, case_head, case_item, case_post, case_tombstone
from agent.station.db.uploads import footage
from agent.station.people import registry
from agent.station.people.roles import Person
from agent.station.people.trail import Entry, Trail
from agent.types import NS

POSTS_MAX = 20
RANGE_S_MAX = 7 * 86_400.0
ATTACHED_MAX = 2000
"""Files and alerts that one act attaches; the next act attaches the rest."""
_IDS = uuid.UUID("5b0c2f0e-6a39-4f5e-9d0c-1f7d3c7a9e11")


class Remover(Protocol):
    """The archive, as far as disposal needs it."""

    def remove(self, name: str) -> None:
        """Takes a file away; none there is no error. Raises Transient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What is said when a case is opened."""

    number: str
    reason: str
    place: str
    from_utc_ns: int
    to_utc_ns: int
    posts: tuple[str, ...]


class CaseDesk:
    """Any thread. Raises Transient."""

    def __init__(
        self, *, trail: Trail, cases: reading.Cases, clock: Clock, queue: Queue, archive: Remover, site: str
    ) -> None:
        """`queue`: commands to posts."""
        self._trail = trail
        self._cases = cases
        self._clock = clock
        self._queue = queue
        self._archive = archive
        self._site = site

    # -- what people do -----------------------------------------------------------------------------------------------

    def open(self, who: Person, opening: Opening) -> int | Objection:
        """A new case with all that lies here of its posts and range. Returns its number at this desk.

        The caller has checked the texts; posts outside of the person's scope are an objection.
        """
        if not opening.posts or not who.scope.covers_all(opening.posts):
            return Objection.NOT_YOURS
        told = Told(reason=opening.reason)
        with self._trail.writing("open a case") as entry:
            after = decide(None, Act.OPENED, who.role, told, seen=0, newest=0)
            if isinstance(after, Objection):
                return after
            head = {
                "number": opening.number,
                "reason": opening.reason,
                "place": opening.place,
                "from_utc_ns": opening.from_utc_ns,
                "to_utc_ns": opening.to_utc_ns,
            }
            n = int(entry.db.execute(insert(case_head).values(**head).returning(case_head.c.n)).scalar_one())
            posts = sorted(set(opening.posts))
            entry.db.execute(insert(case_post), [{"case_n": n, "node": node} for node in posts])
            self._put(entry, who, n, 1, Act.OPENED, told, state=after, opening=head | {"posts": posts})
            found, more = _unattached(entry.db, n, posts, opening.from_utc_ns, opening.to_utc_ns)
            if found:
                self._attach(entry, who, n, 2, found, more=more)
        return n

    def act(self, who: Person, n: int, act: Act, told: Told, *, seen: int, **of: Any) -> int | Objection | None:
        """One act. Returns its number; None when there is no such case for these eyes. `of`: columns of the row."""
        with self._trail.writing("act on a case") as entry:
            decided = self._decide(entry.db, who, n, act, told, seen)
            if decided is None or isinstance(decided, Objection):
                return decided
            self._put(entry, who, n, seen + 1, act, told, state=decided, **of)
        return seen + 1

    def copied(
        self, login: str, n: int, told: Told, *, place: Callable[[int], None], wish: int = 0, **of: Any
    ) -> int | Objection:
        """A package that was asked for some time ago is whole. Returns the number of the act. `wish` is granted by it,
        once.

        It is decided by who he is and what the case is now, behind whatever others did meanwhile: `copying` says why.
        `place` puts the package where the act's number says; what it raises leaves no act.
        """
        with self._trail.writing("put a copy on the timeline") as entry:
            decided = copying(entry.db, login, n, told)
            if isinstance(decided, Objection):
                return decided
            if wish and not granted(entry.db, wish):
                return Objection.CHANGED  # by another station that has taken over
            place(decided.newest + 1)
            self._put(entry, decided.who, n, decided.newest + 1, Act.COPIED, told, state=decided.after, **of)
        return decided.newest + 1

    def attach(
        self, who: Person, n: int, *, seen: int, node: str, from_utc_ns: int, to_utc_ns: int
    ) -> int | Objection | None:
        """What lies here of one of its posts in a range, and is not attached yet. Returns how much; None: no such."""
        with self._trail.writing("attach to a case") as entry:
            decided = self._decide(entry.db, who, n, Act.ATTACHED, Told(), seen)
            if decided is None or isinstance(decided, Objection):
                return decided
            if node not in reading.posts_of(entry.db, n):
                return None
            found, more = _unattached(entry.db, n, [node], from_utc_ns, to_utc_ns)
            if found or node in reading.unattached_of(entry.db, n):  # none: that there is no more is on record, too
                self._attach(entry, who, n, seen + 1, found, more=more, node=node)
        return len(found)

    def dispose(self, who: Person, n: int, told: Told, *, seen: int) -> int | Objection | None:
        """Its footage goes, but for what another case has. Returns how many files; None: no such case.

        Tombstones are durable before the first file is touched; what a power cut leaves, `sweep` takes away.
        """
        with self._trail.writing("dispose of a case") as entry:
            decided = self._decide(entry.db, who, n, Act.DISPOSED, told, seen)
            if decided is None or isinstance(decided, Objection):
                return decided
            gone = [item for item in _all_footage(entry.db, n) if not item.gone and _free(entry.db, n, item)]
            now = self._clock.utc().utc_ns
            rows = [
                {
                    "node": item.node,
                    "sha256": item.ref,
                    "case_n": n,
                    "name": item.name,
                    "bytes": item.bytes,
                    "from_utc_ns": item.from_utc_ns,
                    "to_utc_ns": item.to_utc_ns,
                    "login": who.login,
                    "authority": told.reference,
                    "reason": told.reason,
                    "utc_ns": now,
                }
                for item in gone
            ]
            if rows:
                entry.db.execute(insert(case_tombstone), rows)
            self._put(entry, who, n, seen + 1, Act.DISPOSED, told, state=decided, detail=str(len(gone)))
            for first in range(0, len(gone), _NAMED_MAX):
                files = {f"{item.node}/{item.ref}": item.bytes for item in gone[first : first + _NAMED_MAX]}
                entry.note("case-disposal", who.login, case=n, files=files)
        self.sweep(n, who)
        return len(gone)

    def sweep(self, n: int, who: Person) -> int:
        """Takes the files away of which there are tombstones. Any number of times. Returns how many were named."""
        stones = self._cases.gone(who.scope, n)
        for node, sha256 in stones:
            self._archive.remove(name_of(node, sha256))
        return len(stones)

    # -- what is kept -------------------------------------------------------------------------------------------------

    def keep(self, who: Person, n: int) -> str:
        """Asks the posts to keep and send what a case needs that is not over, again where they have refused or not
        answered, and not to keep what a closed one does not need any more. Returns what stood in the way, in words;
        empty: nothing. Safe to repeat: an order that was queued before a power cut is the same one when it is queued
        again.
        """
        case = self._cases.find(who.scope, n)
        if case is None:
            return ""
        try:
            for node in to_hold(case.state, case.posts, case.held):
                hold = self._id(case, node, "hold", case.generation)
                self._queue(node, "hold", self._args(case) | {"id": hold})
                parts = pieces(case.from_utc_ns, case.to_utc_ns)
                for number, part in enumerate(parts, 1):
                    verb = "send" if len(parts) == 1 else f"send {number}"
                    send = self._id(case, node, verb, case.generation)
                    self._queue(node, "send", self._args(case, part) | {"id": send})
                self._note_hold(who, n, Act.HELD, node, hold)
            for node, keeps in to_ask_again(case.state, case.held, self._cases.kept(case) if case.held else {}):
                self._ask_again(who, case, node, keeps)
            for node, hold in to_release(case.state, case.held):
                self._queue(node, "release", {"hold": hold})
                self._note_hold(who, n, Act.RELEASED, node, hold)
        except WardpostError as error:
            return str(error).partition(";")[0][:200]
        return ""

    def _ask_again(self, who: Person, case: Case, node: str, keeps: Keeps) -> None:
        """What it has refused has a new id, by the order that came to nothing: a post remembers those that are over."""
        hold = keeps.hold
        if keeps.kept in (Kept.REFUSED, Kept.EXPIRED):
            hold = str(uuid.uuid5(_IDS, f"{keeps.hold}/again"))
            self._queue(node, "hold", self._args(case) | {"id": hold})
            # The old one may have come there all the same, with the answer lost; and while nobody has released it, the
            # archive keeps its range.
            self._queue(node, "release", {"hold": keeps.hold})
        for part in keeps.unsent:
            send = str(uuid.uuid5(_IDS, f"{keeps.hold}/send/{keeps.after}/{part[0]}"))
            self._queue(node, "send", self._args(case, part) | {"id": send})
        self._note_hold(who, case.n, Act.HELD, node, hold, again=True)

    @staticmethod
    def _args(case: Case, part: Piece | None = None) -> dict[str, Any]:
        start, end = part or (case.from_utc_ns, case.to_utc_ns)
        return hold_args(start, end, case.number)

    def _note_hold(self, who: Person, n: int, act: Act, node: str, hold: str, *, again: bool = False) -> None:
        """Somebody else may have done the same meanwhile: then there is nothing to note. `again`: the hold is there
        already, and its footage was asked for once more.
        """
        with self._trail.writing("note a hold") as entry:
            newest = reading.newest_of(entry.db, n)
            held = reading.held_of(entry.db, n)
            state = state_of(reading.acts_of(entry.db, n))
            after = decide(state, act, who.role, Told(), seen=newest, newest=newest)
            if isinstance(after, State) and (again or (held.get(node) == hold) != (act is Act.HELD)):
                self._put(entry, who, n, newest + 1, act, Told(), state=after, node=node, detail=hold)

    def _id(self, case: Case, node: str, verb: str, generation: int) -> str:
        return str(uuid.uuid5(_IDS, f"{self._site}/{node}/{case.n}/{case.number}/{verb}/{generation}"))

    # -- rows ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def _decide(db: Connection, who: Person, n: int, act: Act, told: Told, seen: int) -> State | Objection | None:
        if reading.head_of(db, who.scope, n) is None:
            return None
        return decide(state_of(reading.acts_of(db, n)), act, who.role, told, seen=seen, newest=reading.newest_of(db, n))

    def _put(
        self, entry: Entry, who: Person, n: int, number: int, act: Act, told: Told, *, state: State, **of: Any
    ) -> None:
        columns = {name: of[name] for name in ("node", "detail", "sha256", "bytes") if name in of}
        said = {"reason": told.reason, "recipient": told.recipient, "reference": told.reference}
        told_more = {name: value for name, value in {**said, **of}.items() if value != ""}
        entry.note("case", who.login, case=n, step=number, act=act.value, state=state.value, told=told_more)
        entry.db.execute(
            insert(case_act).values(
                case_n=n,
                number=number,
                utc_ns=self._clock.utc().utc_ns,
                login=who.login,
                act=act.value,
                trail_seq=0 if entry.last is None else entry.last[0],
                **(said | columns),
            )
        )

    def _attach(
        self,
        entry: Entry,
        who: Person,
        n: int,
        number: int,
        found: Sequence[dict[str, Any]],
        *,
        more: bool,
        node: str = "",
    ) -> None:
        """`more`: the bound left something; `node`: of one post, else of all."""
        if found:
            entry.db.execute(insert(case_item), [{"case_n": n, "act": number, **row} for row in found])
        count = f"{len(found)}{reading.MORE if more else ''}"
        self._put(entry, who, n, number, Act.ATTACHED, Told(), state=State.OPEN, detail=count, node=node)
        for first in range(0, len(found), _NAMED_MAX):
            part = found[first : first + _NAMED_MAX]
            entry.note("case-items", who.login, case=n, items=[f"{r['kind']}:{r['node']}/{r['ref']}" for r in part])


@dataclass(frozen=True, slots=True)
class Copying:
    """A copy that may be made now. `after`: what the case then is; `newest`: its last act so far."""

    who: Person
    after: State
    newest: int


def copying(db: Connection, login: str, n: int, told: Told) -> Copying | Objection:
    """Whether somebody may have the copy that he asked for, as he, the case and its timeline are now.

    Who asked had seen the newest act; that was decided then. What came since - a note, somebody else's copy, even that
    the case was closed or handed over - does not make his package another one: it holds the case as it was when it
    was begun, and the timeline tells both in their order. Only what forbids any copy counts: the case was disposed of,
    or he may not any more. That his session ended meanwhile is nothing: he asked by right, and who comes to fetch it
    is asked anew.
    """
    who = next(iter(registry.find(db, login)), None)
    if who is None or who.disabled or reading.head_of(db, who.scope, n) is None:
        return Objection.NOT_YOURS
    newest = reading.newest_of(db, n)
    after = decide(state_of(reading.acts_of(db, n)), Act.COPIED, who.role, told, seen=newest, newest=newest)
    return after if isinstance(after, Objection) else Copying(who, after, newest)


_NAMED_MAX = 200
"""Files in one line of the audit log."""


def _unattached(
    db: Connection, n: int, posts: Iterable[str], from_utc_ns: int, to_utc_ns: int
) -> tuple[list[dict[str, Any]], bool]:
    """Alerts of these posts in the range, then files that touch it, ATTACHED_MAX of them; and whether there are more.

    What is not what its node recorded is evidence, too.
    """
    names = list(posts)
    has = set(db.execute(select(case_item.c.node, case_item.c.kind, case_item.c.ref).where(case_item.c.case_n == n)))
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in itertools.chain(
        _alerts(db, names, from_utc_ns, to_utc_ns),  # first: a few, and what the case is about
        _files(db, names, from_utc_ns, to_utc_ns),
    ):
        key = (row["node"], row["kind"], row["ref"])
        if key not in has:
            found.setdefault(key, row)
        if len(found) > ATTACHED_MAX:
            break
    return list(found.values())[:ATTACHED_MAX], len(found) > ATTACHED_MAX


def _alerts(db: Connection, names: list[str], from_utc_ns: int, to_utc_ns: int) -> Iterator[dict[str, Any]]:
    a = alert.c
    rows = db.execute(
        select(a.node, a.incident, a.severity, a.raised_utc_ns)
        .where(a.node.in_(names), a.raised_utc_ns >= from_utc_ns, a.raised_utc_ns < to_utc_ns + NS)
        .order_by(a.raised_utc_ns)
    )
    for of, incident, severity, raised_utc_ns in rows:
        yield {
            "node": of, "kind": "alert", "ref": incident, "name": severity, "bytes": 0,
            "from_utc_ns": raised_utc_ns, "to_utc_ns": None,
        }  # fmt: skip


def _files(db: Connection, names: list[str], from_utc_ns: int, to_utc_ns: int) -> Iterator[dict[str, Any]]:
    """Without what was disposed of."""
    f = footage.c
    gone = (
        select(case_tombstone.c.sha256)
        .where(case_tombstone.c.node == f.node, case_tombstone.c.sha256 == f.sha256)
        .exists()
    )
    rows = db.execute(
        select(f.node, f.sha256, f.name, f.bytes, f.from_utc_ns, f.to_utc_ns)
        .where(f.node.in_(names), f.to_utc_ns > from_utc_ns, f.from_utc_ns < to_utc_ns, ~gone)
        .order_by(f.from_utc_ns, f.n)
    )
    for row in rows:
        yield {
            "node": row.node, "kind": "footage", "ref": row.sha256, "name": row.name, "bytes": row.bytes,
            "from_utc_ns": row.from_utc_ns, "to_utc_ns": row.to_utc_ns,
        }  # fmt: skip


def _all_footage(db: Connection, n: int) -> list[Item]:
    """Without the bound of what a page shows."""
    stones = set(db.execute(select(case_tombstone.c.node, case_tombstone.c.sha256)))
    rows = db.execute(select(case_item).where(case_item.c.case_n == n, case_item.c.kind == "footage"))
    return [
        Item(r.kind, r.node, r.ref, r.name, r.bytes, r.from_utc_ns, r.to_utc_ns, (r.node, r.ref) in stones)
        for r in rows
    ]


def _free(db: Connection, n: int, item: Item) -> bool:
    """Whether no other case needs it. This one is being disposed of."""
    ref = (item.node, item.ref)
    others = db.execute(
        select(case_item.c.case_n).where(
            case_item.c.node == item.node,
            case_item.c.kind == "footage",
            case_item.c.ref == item.ref,
            case_item.c.case_n != n,
        )
    ).scalars()
    holders = [(int(other), ref) for other in others]
    states = {case: state for case, _ in holders if (state := state_of(reading.acts_of(db, case))) is not None}
    return may_go(ref, states, holders)
