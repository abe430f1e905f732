"""From [outward] of the settings to what runs beside the station. All objects are made here, by keyword."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine

from agent import __version__
from agent.clock import Clock
from agent.disk import PosixDisk
from agent.site.folder import open_site
from agent.site.register import Register
from agent.station.db.engine import open_engine
from agent.station.outward import schools
from agent.station.outward.discovery import Discovery
from agent.station.outward.home_assistant import HomeAssistantWorker
from agent.station.outward.messages import Contact, ToSchool, read_mail_url
from agent.station.outward.queue import OutwardQueue, Plan
from agent.station.outward.settings import OutwardSettings, SchoolSettings, check
from agent.station.outward.webhook import Webhook
from agent.station.outward.worker import OutwardThread, OutwardWorker, Sender
from agent.station.people.trail import Trail
from agent.uplink import parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport
from agent.worker import Worker


def destinations(settings: OutwardSettings, *, clock: Clock, origin: str = "") -> dict[Plan, Sender]:
    """Whom to tell what, and by which hand. `origin`: the desk's own address.

    Raises ConfigError for settings that cannot work.
    """
    check(settings)
    found: dict[Plan, Sender] = {}
    for hook in settings.webhook:
        plan = Plan(name=hook.name, tell=frozenset(hook.tell), keep_s=hook.keep_h * 3600)
        found[plan] = Webhook(hook, clock=clock)
    for one in settings.contact:
        plan = Plan(
            name=one.name,
            tell=frozenset({"overdue", "evidence"}),
            keep_s=one.keep_h * 3600,
            after_s=one.after_s,
            unless_answered=True,
        )
        found[plan] = Contact(one, origin=origin)
    return found


def contacts_of_schools(
    settings: SchoolSettings | None, *, engine: Engine, origin: str = ""
) -> Callable[[], dict[Plan, Sender]]:
    """Reads whom schools have told, anew each time: people at the desk change that. `origin`: the desk's own address.

    Raises ConfigError; what it returns raises Transient.
    """
    if settings is None:
        return dict
    read_mail_url(settings)  # what cannot work is told to who starts the station

    def read() -> dict[Plan, Sender]:
        found = schools.told(engine)
        return {
            plan: ToSchool(settings, how=one.how, address=one.address, origin=origin) for plan, one in found.items()
        }

    return read


def revoked(register: str) -> Callable[[], frozenset[str]]:
    """Reads which posts a site has revoked, anew each time: another program writes there.

    `register`: the site's folder; empty: there is none. What it returns raises ConfigError, Corrupt, Transient.
    """
    if not register:
        return frozenset

    def read() -> frozenset[str]:
        books = Register(open_site(Path(register)).register_path)
        books.open()
        try:
            return frozenset(one.node for one in books.nodes() if one.state == "revoked")
        finally:
            books.close()

    return read


class Outward:
    """What tells others, with database connections and threads of its own. Of the station's thread."""

    def __init__(
        self,
        settings: OutwardSettings,
        *,
        folder: Path,
        database: str,
        site: str,
        station: str,
        register: str,
        origin: str,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        """`database`: its URL. `register`: the site's folder; empty: none. `origin`: the desk's own address, for links
        in messages to people. Connects to nothing yet.

        Raises ConfigError for settings that cannot work.
        """
        self._engine = open_engine(database)
        trail = Trail(self._engine, clock=clock, site=site, station=station, disk=PosixDisk(folder))
        workers: list[Worker] = [
            OutwardWorker(
                queue=OutwardQueue(self._engine, trail=trail, clock=clock, site=site),
                destinations=destinations(settings, clock=clock, origin=origin),
                clock=clock,
                rng=rng,
                others=contacts_of_schools(settings.schools, engine=self._engine, origin=origin),
                others_max=0 if settings.schools is None else schools.CONTACTS_MAX,
            )
        ]
        if settings.home_assistant is not None:
            home = settings.home_assistant
            workers.append(
                HomeAssistantWorker(
                    engine=self._engine,
                    transport=PahoTransport(
                        clock=clock, credentials=Credentials(home.username, home.password_file, home.tls)
                    ),
                    discovery=Discovery(site=site, prefix=home.prefix, version=__version__),
                    revoked=revoked(register),
                    brokers=[parse_broker(url) for url in home.brokers],
                    client_id=f"wardpost_{site}_home_{station}",
                    clock=clock,
                    rng=rng,
                )
            )
        self._threads = [OutwardThread(worker, clock=clock) for worker in workers]

    def start(self) -> None:
        """Once the database is the newest. Does nothing when it runs."""
        for one in self._threads:
            one.start()

    def stop(self) -> None:
        """Bounded. Never raises."""
        for one in self._threads:
            one.stop()
        self._engine.dispose()
