"""Takes in what has come whole: into the archive, held against the node's ledger, put on record, out of the way.

    staging -> archive (by content) -> row, alarm when it is not what was recorded -> out of staging

Each step may be done again, so a cut between any two costs nothing and doubles nothing. What does not match stays in
the archive like everything else: it is the evidence, and its row says what is wrong with it.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace

from sqlalchemy import Connection, Engine

from agent.clock import Clock
from agent.errors import Corrupt, Transient
from agent.station import archive_retention_rows as retention
from agent.station import uploads_rows as rows
from agent.station.archive import Archive, name_of
from agent.station.db.engine import reading, writing
from agent.station.uploads_judge import Arrived, Finding, State, examine, judge
from agent.station.uploads_staging import Info, NotTaken, Staging
from agent.types import NS

STEP_S = 1.0
MORE_S = 0.1
"""Between two reads of a long ledger: the intake writes to the same database, and must not wait for its end."""
RETRY_S = 10.0
EXPIRE_EVERY_S = 60.0
WAITING_MAX = 500

log = logging.getLogger(__name__)


class Clerk:
    """`step` from one thread; `kept` from any."""

    def __init__(
        self, *, staging: Staging, archive: Archive, engine: Engine, clock: Clock, site: str, line_rows_max: int
    ) -> None:
        self._staging = staging
        self._archive = archive
        self._engine = engine
        self._clock = clock
        self._site = site
        self._line_rows_max = line_rows_max
        self._expire_at = 0.0
        self._left: set[str] = set()  # uploads that this life cannot take in

    def kept(self, node: str, sha256: str) -> int | None:
        """The size of a file that is in the archive and on record; None when it is not. Raises Transient."""
        with reading(self._engine) as db:
            return rows.size_of(db, node, sha256)

    def step(self) -> float:
        """A bounded piece of work; in how many seconds to come again. Waits for a disk, a store or a database."""
        try:
            more = self._read_ledgers()
            for info in self._staging.complete():
                if info.id not in self._left:
                    with suppress(NotTaken):  # a request is at it: next time
                        self._take_in_or_leave(info)
            now_s = self._clock.boot_ns() / NS
            if now_s >= self._expire_at:
                self._expire_at = now_s + EXPIRE_EVERY_S
                for info in self._staging.expire():
                    log.info("%s: the upload of %s was given up: nothing more of it came", info.node, info.footage.name)
        except (Transient, OSError) as error:
            log.error("footage waits: %s; again in %g s", error, RETRY_S)  # noqa: TRY400
            return RETRY_S
        return MORE_S if more else STEP_S

    def _read_ledgers(self) -> bool:
        """Takes in new lines, and looks again at what waited for them; whether there are more."""
        with reading(self._engine) as db:
            if not rows.new_lines(db):
                return False
        now_ns = self._clock.utc().utc_ns
        with writing(self._engine, "read ledgers for footage") as db:
            more = rows.read_lines(db, rows_max=self._line_rows_max)
            while waited := rows.waiting(db, WAITING_MAX):  # each is settled, so there are fewer each time
                for one in waited:
                    arrived = replace(one.arrived, source=self._source(one.node))
                    found = self._judge(db, one.node, one.announced, arrived)
                    rows.settle(db, one.n, found, now_ns)
                    self._alarm(db, one.node, one.name, arrived, found, now_ns)
        return more

    def _take_in_or_leave(self, info: Info) -> None:
        """A bug that one file meets costs that file its place, not every post its station. It stays where it is: the
        next life, perhaps of another release, tries it again. Raises as `_take_in`.
        """
        try:
            self._take_in(info)
        except (Transient, OSError, NotTaken):
            raise
        except Exception:
            log.exception("%s: %s cannot be taken in", info.node, info.footage.name)
            self._left.add(info.id)  # as many as may be on their way at once, at most
            text = f"{info.footage.name} cannot be taken in, it waits in uploads/; tell who keeps this station"
            with writing(self._engine, "note what cannot be taken in") as db:
                rows.tell(db, f"{info.node}/footage", text, self._clock.utc().utc_ns)

    def _take_in(self, info: Info) -> None:
        """One upload. Raises Transient, NotTaken, OSError."""
        node, footage = info.node, info.footage
        with self._staging.content(info) as source:
            arrived = examine(source, info.size)
            name = name_of(node, arrived.sha256)
            before = retention.before_put(self._engine, node, arrived.sha256)
            try:
                self._archive.put(name, source, size=info.size, sha256=arrived.sha256)
            except Corrupt as error:  # it reads otherwise than a moment ago
                raise Transient(f"{error}; the disk under the uploads may be failing") from None
        now_ns = self._clock.utc().utc_ns
        with writing(self._engine, "note footage") as db:
            retention.unchanged(db, node, arrived.sha256, before)
            found = self._judge(db, node, footage.sha256, arrived)
            new = rows.add(
                db,
                node=node,
                name=footage.name,
                announced=footage.sha256,
                order=footage.order,
                arrived=arrived,
                found=found,
                now_utc_ns=now_ns,
                why=footage.why,
            )
            if new:
                self._alarm(db, node, footage.name, arrived, found, now_ns)
        log.info("%s: %s is in the archive: %s", node, footage.name, found.state.value)
        self._staging.remove(info.id)

    def _judge(self, db: Connection, node: str, announced: str, arrived: Arrived) -> Finding:
        return judge(
            arrived,
            source=self._source(node),
            announced=announced,
            lines=rows.lines_about(db, node, arrived),
        )

    def _source(self, node: str) -> str:
        return f"wardpost/{self._site}/{node}"

    def _alarm(self, db: Connection, node: str, name: str, arrived: Arrived, found: Finding, now_ns: int) -> None:
        if found.state is not State.MISMATCH:
            return
        text = f"{name} is not what the node has recorded: {found.detail}; it is set aside"
        log.error("%s: %s", node, text)
        rows.raise_alarm(db, node, text, now_ns, about=rows.about(name, arrived, found))
