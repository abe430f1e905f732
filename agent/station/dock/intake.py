"""Takes files from a card into the archive, each held against the ledgers: the station's, then the card's own.

    read and hash -> archive (by content) -> row, alarm when it is not what was recorded

Each step may be done again: a cut anywhere costs the file at hand, and the next run finds what is there. A name is not
believed to stand for a content, so every file is read again; one that is there already is counted and left alone.

A line of the card counts only when it is signed by a key that the station has for this post, and never against a line
that the station has itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from sqlalchemy import Connection, Engine, select

from agent import wire
from agent.clock import Clock
from agent.errors import Corrupt, WardpostError
from agent.evidence import dsse, records
from agent.evidence.records import RecordKind
from agent.station import archive_retention_rows as retention
from agent.station import uploads_rows as rows
from agent.station.archive import Archive, name_of
from agent.station.db.engine import reading, writing
from agent.station.db.tables import key
from agent.station.dock.card import Card, Entry, Passed
from agent.station.uploads_judge import Arrived, Finding, Recorded, State, examine, judge

LINES_MAX = 2_000_000
TOLD_MAX = 1000
"""Files told one by one in the report, of each sort; the counts are whole."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Report:
    """What became of a card."""

    node: str = ""
    files: int = 0  # that were listed to be taken in
    taken: int = 0
    duplicates: int = 0
    bytes: int = 0  # taken
    verified: int = 0  # of what was taken in, or was here already
    pending: int = 0  # no line knows them yet
    mismatched: int = 0
    passed: int = 0
    lines: int = 0  # of the card's ledger about footage, signed by a key that the station knows
    foreign: int = 0  # ... by another key
    not_matching: list[Passed] = field(default_factory=list)
    not_taken: list[Passed] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether everything that lay there is in the archive, and as recorded."""
        return not self.mismatched and not self.passed

    def pass_over(self, passed: Passed) -> None:
        """Counts what is not taken in."""
        self.passed += 1
        if len(self.not_taken) < TOLD_MAX:
            self.not_taken.append(passed)


@dataclass(slots=True)
class CardLedger:
    """What the card's own lines say of footage."""

    by_sha256: dict[str, Recorded] = field(default_factory=dict)
    by_start: dict[tuple[str, int], Recorded] = field(default_factory=dict)

    def about(self, arrived: Arrived) -> list[Recorded]:
        """Lines with this content, or about a file with this beginning."""
        found = (self.by_sha256.get(arrived.sha256), self.by_start.get((arrived.boot_id, arrived.start_ns)))
        return [one for one in found if one is not None]


class Intake:
    """One card. One thread; blocks for reading and writing. Raises Transient, ConfigError."""

    def __init__(
        self, *, card: Card, archive: Archive, engine: Engine, clock: Clock, site: str, order: str, file_bytes_max: int
    ) -> None:
        """`order`: names this docking in the rows of what it brings."""
        self._card = card
        self._archive = archive
        self._engine = engine
        self._clock = clock
        self._site = site
        self._order = order
        self._file_bytes_max = file_bytes_max

    def node(self) -> str:
        """Whose card it is, by the header of the first file that has one of this site. Raises Corrupt."""
        for entry in self._card.listed(file_bytes_max=self._file_bytes_max).files:
            with self._card.open(entry) as file:
                source = "" if file is None else examine(file, entry.size).source
            kind, _, rest = source.partition("/")
            site, _, node = rest.partition("/")
            if kind != "wardpost" or site != self._site:
                continue
            try:
                wire.parse_topic(wire.Topics(site, node).heartbeat)
            except Corrupt:
                continue
            return node
        raise Corrupt(f"dock: no file in segments/ says that it is of site {self._site}; is it the right card?")

    def run(self, node: str, *, tell: Callable[[Report], None]) -> Report:
        """Everything on the card; `tell` after each file. Raises Transient: then run it again."""
        report = Report(node=node)
        listed = self._card.listed(file_bytes_max=self._file_bytes_max)
        report.files = len(listed.files)
        for passed in listed.passed:
            report.pass_over(passed)
        ledger = self._ledger(node, report)
        for entry in listed.files:
            with self._card.open(entry) as file:
                if file is None:
                    report.pass_over(Passed(entry.name, "it was changed or removed meanwhile, or cannot be opened"))
                else:
                    self._one_or_none(node, entry, file, ledger, report)
            tell(report)
        return report

    def _one_or_none(self, node: str, entry: Entry, file: BinaryIO, ledger: CardLedger, report: Report) -> None:
        """A bug that one file meets costs that file, not the card: it is passed over, and said."""
        try:
            self._one(node, entry, file, ledger, report)
        except (WardpostError, OSError):
            raise
        except Exception:
            log.exception("dock: %s: %s", node, entry.name)
            report.pass_over(Passed(entry.name, "it cannot be taken in, by a fault of this station's; keep the card"))

    def _one(self, node: str, entry: Entry, file: BinaryIO, ledger: CardLedger, report: Report) -> None:
        try:
            arrived = examine(file, entry.size)
        except OSError as error:
            report.pass_over(Passed(entry.name, f"the card does not give it: {error.strerror}"))
            return
        with reading(self._engine, "look for footage") as db:
            known = rows.size_of(db, node, arrived.sha256)
            found = self._judge(db, node, arrived, ledger)
        name = name_of(node, arrived.sha256)
        if not arrived.boot_id and found.state is not State.VERIFIED:
            report.pass_over(Passed(entry.name, f"not a file of this recorder: {arrived.problem}"))
            return
        if known is not None and self._archive.size(name) == known:
            report.duplicates += 1
            self._count(entry, arrived, found, report)
            return
        before = retention.before_put(self._engine, node, arrived.sha256)
        try:
            self._archive.put(name, file, size=entry.size, sha256=arrived.sha256)
        except (Corrupt, OSError) as error:
            report.pass_over(Passed(entry.name, f"it reads otherwise each time: {error}; the card may be failing"))
            return
        with writing(self._engine, "note footage") as db:
            retention.unchanged(db, node, arrived.sha256, before)
            found = self._judge(db, node, arrived, ledger)
            new = rows.add(
                db,
                node=node,
                name=entry.name,
                announced=arrived.sha256,
                order=self._order,
                why="card",
                arrived=arrived,
                found=found,
                now_utc_ns=self._clock.utc().utc_ns,
            )
            if new and found.state is State.MISMATCH:
                self._alarm(db, node, entry.name, arrived, found)
        report.taken += 1
        report.bytes += entry.size
        self._count(entry, arrived, found, report)

    def _judge(self, db: Connection, node: str, arrived: Arrived, ledger: CardLedger) -> Finding:
        source = f"wardpost/{self._site}/{node}"
        found = judge(arrived, source=source, announced=arrived.sha256, lines=rows.lines_about(db, node, arrived))
        if found.state is not State.PENDING:
            return found
        return judge(arrived, source=source, announced=arrived.sha256, lines=ledger.about(arrived))

    @staticmethod
    def _count(entry: Entry, arrived: Arrived, found: Finding, report: Report) -> None:
        match found.state:
            case State.VERIFIED:
                report.verified += 1
            case State.PENDING:
                report.pending += 1
            case State.MISMATCH:
                report.mismatched += 1
                if len(report.not_matching) < TOLD_MAX:
                    report.not_matching.append(Passed(entry.name, found.detail, arrived.sha256))

    def _alarm(self, db: Connection, node: str, name: str, arrived: Arrived, found: Finding) -> None:
        text = f"{name} on its card is not what the node has recorded: {found.detail}; it is set aside"
        rows.raise_alarm(db, node, text, self._clock.utc().utc_ns, about=rows.about(name, arrived, found))

    def _ledger(self, node: str, report: Report) -> CardLedger:
        """The card's lines about footage that a known key of this post has signed."""
        with reading(self._engine, "read keys") as db:
            known = db.execute(select(key.c.keyid, key.c.public, key.c.root).where(key.c.node == node)).all()
        keys = {str(keyid): (bytes.fromhex(public), str(root)) for keyid, public, root in known}
        found = CardLedger()
        for _, raw in zip(range(LINES_MAX), self._card.ledger_lines(), strict=False):
            try:
                envelope = dsse.parse(raw)
                payload = records.read(envelope)
            except Corrupt:
                continue
            if payload.kind != RecordKind.SEGMENT or payload.node != f"{self._site}/{node}":
                continue
            signer = keys.get(envelope.keyid)
            if signer is None or not envelope.verify(signer[0]):
                report.foreign += 1
                continue
            sha256, boot_id, start_ns = (payload.body.get(name) for name in ("sha256", "boot_id", "start_ns"))
            if isinstance(sha256, str) and isinstance(boot_id, str) and isinstance(start_ns, int):
                report.lines += 1
                told = Recorded(signer[1], payload.seq, sha256)
                found.by_sha256[sha256] = told
                found.by_start[boot_id, start_ns] = told
        return found
