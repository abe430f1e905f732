"""Retention, wired: for the station's own thread, and for its pages."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine

from agent.clock import Clock
from agent.disk import PosixDisk
from agent.station.archive.making import ArchiveSettings, make_archive
from agent.station.archive_retention import Policy
from agent.station.archive_retention_desk import RetentionDesk
from agent.station.archive_retention_guard import Guard
from agent.station.archive_retention_worker import RetentionWorker
from agent.station.cases.desk import Remover
from agent.station.db.engine import open_engine
from agent.station.outward.worker import OutwardThread
from agent.station.people.trail import Trail


def make_retention(*, engine: Engine, trail: Trail, archive: Remover, clock: Clock, policy: Policy) -> RetentionDesk:
    """`trail`: open."""
    guard = Guard(engine, clock=clock)
    return RetentionDesk(engine=engine, trail=trail, archive=archive, guard=guard, clock=clock, policy=policy)


class Retention:
    """The worker on a thread of its own, with connections of its own. Of the station's thread."""

    def __init__(
        self, settings: ArchiveSettings, *, folder: Path, database: str, site: str, station: str, clock: Clock
    ) -> None:
        """`database`: its URL. Connects to nothing yet. Raises ConfigError."""
        archive = make_archive(settings, folder)
        self._engine = open_engine(database)

        def make() -> RetentionDesk:
            trail = Trail(self._engine, clock=clock, site=site, station=station, disk=PosixDisk(folder))
            trail.open()
            return make_retention(
                engine=self._engine, trail=trail, archive=archive, clock=clock, policy=settings.policy
            )

        self._thread = OutwardThread(RetentionWorker(make=make, by_age=settings.retention_days > 0), clock=clock)

    def start(self) -> None:
        """Once the database is the newest. Does nothing when it runs."""
        self._thread.start()

    def stop(self) -> None:
        """Bounded. Never raises."""
        self._thread.stop()
        self._engine.dispose()
