"""The only writer of retention: what goes, by whose word; and the bytes after that.

    chosen -> tombstones, rows of `footage` gone, a line of the audit log, a list of what to take away: one transaction
           -> the archive's files, one by one -> off the list

So a cut anywhere leaves a file that is whole and shown, or a tombstone and a list that is worked off at the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine, insert, select

from agent.clock import Clock
from agent.station import archive_retention_rows as rows
from agent.station.archive import name_of
from agent.station.archive_retention import (
    DAY_NS,
    FORECAST_DAYS,
    Choice,
    File,
    Forecast,
    Kept,
    Policy,
    Why,
    forecast,
    over,
)
from agent.station.archive_retention_guard import Guard
from agent.station.cases.desk import Remover
from agent.station.db.engine import reading
from agent.station.db.retention import retention_answer, retention_ask
from agent.station.people.roles import Person, Role, Scope
from agent.station.people.trail import Entry, Trail

PAGE = 1000
PAGES_MAX = 50
"""Looked through in one go; the next one goes on behind them."""
BATCH_MAX = 200
"""Files of one transaction, and of one line of the audit log."""
SWEEP_MAX = 50
EARLY_FILES_MAX = 2000
EARLY_RANGE_S_MAX = 31 * 86_400.0
ASK_DAYS_MAX = 30
FORECAST_FILES_MAX = 100_000
FILES_OF_POST_MAX = 200_000
ASKING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.ADMIN})
CONFIRMING = frozenset({Role.SUPERVISOR, Role.ADMIN})


class No(StrEnum):
    """Why something is not done; keys of words.*.json behind `archive.no.`."""

    NOT_YOURS = "not-yours"
    ONE_PERSON = "one-person"  # whoever asks does not confirm
    OVER = "over"  # somebody has answered, or it was asked too long ago
    NOTHING = "nothing"
    TOO_MUCH = "too-much"


@dataclass(frozen=True, slots=True)
class Early:
    """What is asked for."""

    node: str
    from_utc_ns: int
    to_utc_ns: int
    reason: str
    authority: str


@dataclass(frozen=True, slots=True)
class Named:
    """What an ask comes to by now. `kept`: what stays all the same, and for what."""

    files: tuple[File, ...]
    kept: tuple[tuple[File, str], ...]


class RetentionDesk:
    """One thread at a time. Blocks for the database, and `sweep` for the archive. Raises Transient."""

    def __init__(
        self, *, engine: Engine, trail: Trail, archive: Remover, guard: Guard, clock: Clock, policy: Policy
    ) -> None:
        self._engine = engine
        self._trail = trail
        self._archive = archive
        self._guard = guard
        self._clock = clock
        self._policy = policy
        self._after = 0  # row of `footage` behind which the next look begins

    # -- by the settings ----------------------------------------------------------------------------------------------

    def remove_due(self) -> int:
        """Puts tombstones for what is due, BATCH_MAX files at most. Returns how many; 0: there are no more."""
        if not self._policy.acts:
            return 0
        picked, kept = self._choose()
        count = 0
        for why in (Why.AGE, Why.ROOM):
            if files := [file for file, by in picked if by is why]:
                with self._trail.writing("remove footage by retention") as entry:
                    count += self._entomb(entry, "", files, kept, why=why)
        return count

    @property
    def clock_trusted(self) -> bool:
        """Whether footage may go by its age now."""
        return self._policy.trust_clock or self._clock.utc().unc_ns is not None

    def _choose(self) -> tuple[list[tuple[File, Why]], Kept]:
        """The oldest that are due and that nothing needs, and what is needed."""
        with reading(self._engine, "look for what is due") as db:
            left = over(self._policy, rows.used_bytes(db))
        choice = Choice(self._policy, self._clock.utc().utc_ns if self.clock_trusted else None, left)
        if choice.now_utc_ns is None and left <= 0:
            return [], Kept()
        kept = self._guard.look()
        for _ in range(PAGES_MAX):
            with reading(self._engine, "look for what is due") as db:
                found = rows.files(db, after=self._after, limit=PAGE)
            for file in found:
                if not choice.take(file, kept):
                    self._after = 0
                    return choice.picked, kept
                if len(choice.picked) >= BATCH_MAX:
                    return choice.picked, kept  # the next look begins here
                self._after = file.n
            if len(found) < PAGE:
                self._after = 0
                break
        return choice.picked, kept

    def _entomb(
        self, entry: Entry, login: str, files: Sequence[File], before: Kept, *, why: Why, ask_n: int | None = None
    ) -> int:
        """In a transaction: what is needed by now stays, whatever was seen before it. Returns how many went."""
        rows.exclude(entry.db)
        kept, now = self._guard.again(entry.db, before), self._clock.utc().utc_ns
        gone: dict[tuple[str, str], list[Any]] = {}
        for file in files:
            there = rows.rows_of(entry.db, *file.ref)
            again = why is Why.AGE and not all(self._policy.due(row.received_utc_ns, now) for row in there)
            if there and not again and not kept.keeps(file):
                gone[file.ref] = there
        refs, policy = list(gone), self._policy.said(why)
        for first in range(0, len(refs), BATCH_MAX):
            part = refs[first : first + BATCH_MAX]
            told = {f"{node}/{sha256}": gone[node, sha256][0].bytes for node, sha256 in part}
            about = {"policy": policy} if ask_n is None else {"ask": ask_n}
            entry.note("footage-removed", login, why=why.value, files=told, **about)
            seq = 0 if entry.last is None else entry.last[0]
            stones = [row for ref in part for row in gone[ref]]
            rows.entomb(entry.db, stones, why=why, policy=policy, ask_n=ask_n, utc_ns=now, trail_seq=seq)
        return len(refs)

    # -- the bytes ----------------------------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Takes SWEEP_MAX files away of which there are tombstones. Any number of times. Returns how many."""
        with reading(self._engine, "look for what is to be taken away") as db:
            refs = rows.todo(db, SWEEP_MAX)
        for ref in refs:
            self._archive.remove(name_of(*ref))
        if refs:
            rows.done(self._engine, refs)
        return len(refs)

    # -- before its time ----------------------------------------------------------------------------------------------

    def ask(self, who: Person, early: Early) -> int | No:
        """Somebody wants footage removed. Nothing goes before another person has confirmed it. Returns its number."""
        if who.role not in ASKING or not who.scope.covers(early.node):
            return No.NOT_YOURS
        now = self._clock.utc().utc_ns
        files, _ = self._named(early.node, early.from_utc_ns, early.to_utc_ns, now)
        if not files:
            return No.NOTHING
        if len(files) > EARLY_FILES_MAX:
            return No.TOO_MUCH
        told = {
            "node": early.node, "from_utc_ns": early.from_utc_ns, "to_utc_ns": early.to_utc_ns,
            "reason": early.reason, "authority": early.authority,
        }  # fmt: skip
        with self._trail.writing("ask for a removal") as entry:
            entry.note("removal-asked", who.login, files=len(files), **told)
            seq = 0 if entry.last is None else entry.last[0]
            made = insert(retention_ask).values(**told, login=who.login, utc_ns=now, trail_seq=seq)
            return int(entry.db.execute(made.returning(retention_ask.c.n)).scalar_one())

    def answer(self, who: Person, n: int, *, confirmed: bool, reason: str = "") -> int | No | None:
        """A second person's word. Returns how many files went; None: there is no such ask for these eyes."""
        with reading(self._engine, "look for an ask") as db:
            ask = next(iter(rows.asks(db, who.scope, n=n)), None)
        if ask is None:
            return None
        if who.role not in CONFIRMING:
            return No.NOT_YOURS
        if confirmed and who.login == ask.login:
            return No.ONE_PERSON
        files, before = self._named(ask.node, ask.from_utc_ns, ask.to_utc_ns, ask.utc_ns) if confirmed else ([], Kept())
        with self._trail.writing("answer an ask for a removal") as entry:
            answered = select(retention_answer.c.ask_n).where(retention_answer.c.ask_n == n)
            if self.over(ask) or entry.db.execute(answered).first() is not None:
                return No.OVER
            gone = self._entomb(entry, who.login, files, before, why=Why.EARLY, ask_n=n) if confirmed else 0
            told = {"answer": "confirmed" if confirmed else "refused", "reason": reason, "files": gone}
            told |= {"kept": len(files) - gone}
            entry.note("removal-answered", who.login, ask=n, **told)
            seq = 0 if entry.last is None else entry.last[0]
            entry.db.execute(
                insert(retention_answer).values(
                    ask_n=n, login=who.login, utc_ns=self._clock.utc().utc_ns, trail_seq=seq, **told
                )
            )
        return gone

    def over(self, ask: rows.Ask) -> bool:
        """Whether nobody can confirm it any more."""
        return bool(ask.answer) or self._clock.utc().utc_ns - ask.utc_ns > ASK_DAYS_MAX * DAY_NS

    def names(self, ask: rows.Ask) -> Named:
        """What it comes to, for who is to confirm it."""
        files, kept = self._named(ask.node, ask.from_utc_ns, ask.to_utc_ns, ask.utc_ns)
        stays = {file.ref: why for file in files if (why := kept.keeps(file))}
        return Named(
            tuple(file for file in files if file.ref not in stays),
            tuple((file, stays[file.ref]) for file in files if file.ref in stays),
        )

    def _named(self, node: str, start: int, end: int, by_utc_ns: int) -> tuple[list[File], Kept]:
        """Files of a post's range that had come by then, by their labels and by its ledger; once each."""
        kept = self._guard.look({node})
        told = self._guard.within(node, start, end)
        found: dict[tuple[str, str], File] = {}
        with reading(self._engine, "look for footage") as db:
            for file in rows.files(db, after=0, limit=FILES_OF_POST_MAX, node=node):
                labelled = file.from_utc_ns is not None and file.to_utc_ns is not None
                inside = labelled and int(file.from_utc_ns or 0) < end and int(file.to_utc_ns or 0) > start
                if file.received_utc_ns <= by_utc_ns and (inside or file.sha256 in told):
                    found.setdefault(file.ref, file)
        return list(found.values()), kept

    # -- what is to come ----------------------------------------------------------------------------------------------

    def forecast(self, scope: Scope) -> list[Forecast]:
        """What goes in the next days, by post, of a scope."""
        now = self._clock.utc().utc_ns
        kept = self._guard.look()
        with reading(self._engine, "look ahead") as db:
            used = rows.used_bytes(db)
            coming = rows.came_bytes(db, now - FORECAST_DAYS * DAY_NS) if self._policy.bytes_max else 0
            files = rows.files(db, after=0, limit=FORECAST_FILES_MAX)
        once = {file.ref: file for file in files}  # what came again counts from then on
        found = forecast(once.values(), kept, self._policy, now_utc_ns=now, used_bytes=used, coming_bytes=coming)
        return [one for one in found if scope.covers(one.node)]
