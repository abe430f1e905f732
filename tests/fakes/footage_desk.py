"""A desk that has the footage of a real post: its own database and archive, fed by the parts that a station feeds them
with, and the ledger of tests/fakes/evidence_post.py. The fake is that no broker and no HTTP lies between.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import insert

from agent.disk import PosixDisk
from agent.evidence import dsse, records
from agent.evidence.package import ledger_lines
from agent.recording.index import FOLDER
from agent.station import uploads_rows
from agent.station.archive import name_of
from agent.station.archive.local import LocalArchive
from agent.station.db import migrate
from agent.station.db.engine import database_url, open_engine, writing
from agent.station.db.tables import line, node
from agent.station.footage.shelf import Shelf
from agent.station.footage.survey import Surveyor
from agent.station.uploads_judge import examine, judge
from agent.types import NS
from tests.fakes.clock import FakeClock
from tests.fakes.evidence_post import NODE, UTC_0, EvidencePost

POST = NODE.partition("/")[2]


class FootageDesk:
    """Headquarters' half. `clock` is a station's: an hour after the post began to record."""

    def __init__(self, folder: Path, *, database: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.clock = FakeClock(utc_ns=UTC_0 + 3600 * NS)
        self.engine = open_engine(database_url(folder, database), pooled=False)
        migrate.upgrade(self.engine)
        (folder / "archive").mkdir(exist_ok=True)
        self.archive = LocalArchive(PosixDisk(folder / "archive"), free_bytes_min=0)
        self.shelf = Shelf(engine=self.engine, archive=self.archive)
        self.surveyor = Surveyor(engine=self.engine, shelf=self.shelf, clock=self.clock)

    def hear(self, post: EvidencePost, *, of: str = POST) -> None:
        """All lines of the post's ledger."""
        with writing(self.engine, "hear a post") as db:
            known = {row[0] for row in db.execute(line.select().with_only_columns(line.c.sha256))}
            for raw in ledger_lines(post.disk):
                sha256 = records.digest(raw)
                if sha256 in known:
                    continue
                payload = records.read(dsse.parse(raw))
                db.execute(
                    insert(line).values(
                        node=of,
                        root="a" * 64,
                        seq=payload.seq,
                        sha256=sha256,
                        prev=payload.prev,
                        kind=payload.kind,
                        received_utc_ns=UTC_0,
                        body=raw,
                    )
                )
            while uploads_rows.read_lines(db, rows_max=10**6):
                pass

    def knows(self, post: str = POST, place: str = "School gate") -> None:
        """The post has been heard."""
        with writing(self.engine, "hear a post") as db:
            db.execute(
                insert(node).values(
                    node=post, place=place, seen_boot_id="b" * 32, seen_ns=1, seen_utc_ns=UTC_0,
                    state_since_utc_ns=UTC_0,
                )
            )  # fmt: skip

    def take(
        self, post: EvidencePost, name: str, *, of: str = POST, data: bytes | None = None, order: str = "0" * 36
    ) -> str:
        """One file of the post, as the clerk of the uploads takes it in; `data`: other bytes than the post's. Its hash."""
        with post.disk.open(name) as original:
            whole = original.read()
        content = self.folder / "coming"
        content.write_bytes(whole if data is None else data)
        with content.open("rb") as source:
            arrived = examine(source, content.stat().st_size)
            self.archive.put(name_of(of, arrived.sha256), source, size=arrived.bytes, sha256=arrived.sha256)
        with writing(self.engine, "note footage") as db:
            found = judge(
                arrived,
                source=f"wardpost/{NODE.partition('/')[0]}/{of}",
                announced=arrived.sha256,
                lines=uploads_rows.lines_about(db, of, arrived),
            )
            uploads_rows.add(
                db, node=of, name=name, announced=arrived.sha256, order=order, arrived=arrived, found=found,
                now_utc_ns=UTC_0,
            )  # fmt: skip
        content.unlink()
        return arrived.sha256

    def take_all(self, post: EvidencePost, *, of: str = POST) -> list[str]:
        """Every file of the post; their names."""
        names = list(post.disk.list(FOLDER))
        for name in names:
            self.take(post, name, of=of)
        return names
