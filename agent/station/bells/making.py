"""From settings to a thread that has posts keep what they recorded around a bell."""

from __future__ import annotations

from pathlib import Path

from agent.clock import Clock, uuid7_maker
from agent.disk import PosixDisk
from agent.station.bells.book import BellBook
from agent.station.bells.settings import BellSettings
from agent.station.bells.worker import BellWorker
from agent.station.db.engine import open_engine
from agent.station.outward.worker import OutwardThread
from agent.station.people.trail import Trail
from agent.station.posts.desk import registered
from agent.station.signing import Signer


class Bells:
    """With a database connection and a thread of its own. Of the station's thread."""

    def __init__(
        self,
        settings: BellSettings,
        *,
        folder: Path,
        database: str,
        site: str,
        station: str,
        signer: Signer,
        register: str,
        clock: Clock,
    ) -> None:
        """`database`: its URL. `register`: the site's folder; empty: none. Connects to nothing yet."""
        self._engine = open_engine(database)
        trail = Trail(self._engine, clock=clock, site=site, station=station, disk=PosixDisk(folder))
        worker = BellWorker(
            settings,
            book=BellBook(self._engine, trail=trail),
            engine=self._engine,
            signer=signer,
            register=registered(register),
            new_id=uuid7_maker(clock),
            clock=clock,
        )
        self._thread = OutwardThread(worker, clock=clock)

    def start(self) -> None:
        """Once the database is the newest. Does nothing when it runs."""
        self._thread.start()

    def stop(self) -> None:
        """Bounded. Never raises."""
        self._thread.stop()
        self._engine.dispose()
