"""Composition root of the station: `wardpost station --config station.toml`. All objects are made here, by keyword."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, field

from agent import garbage
from agent.clock import Clock, uuid7_maker
from agent.config import Id, Settings, TlsSettings
from agent.errors import ConfigError, Transient
from agent.station.archive.making import ArchiveSettings, make_archive
from agent.station.bells.settings import BellSettings
from agent.station.db.engine import database_url, open_engine
from agent.station.enrolment import EnrolmentDesk
from agent.station.fleet_settings import FleetSettings
from agent.station.live.desk import LiveDesk
from agent.station.live.settings import LiveSettings
from agent.station.live.settings import check as check_live
from agent.station.old_books import bring_over
from agent.station.orders import OrderBook
from agent.station.outward.settings import OutwardSettings
from agent.station.people.oidc.settings import check as check_oidc
from agent.station.rollout_desk import RolloutDesk
from agent.station.settings_book import SettingsBook
from agent.station.signing import Signer
from agent.station.store import StationStore
from agent.station.uploads_settings import UploadsSettings
from agent.station.web.settings import WebSettings, listening
from agent.station.worker import StationWorker
from agent.types import NS
from agent.uplink import parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport

if TYPE_CHECKING:
    from agent.station.archive_retention_making import Retention
    from agent.station.bells.making import Bells
    from agent.station.outward.making import Outward
    from agent.station.uploads_server import Uploads
    from agent.station.web.keeper import Keeper

RESTART_S = 5.0

log = logging.getLogger(__name__)


class DeskSettings(Settings, frozen=True):
    """[station]: who receives, and where it is kept."""

    site: Id
    id: Id
    data: str  # folder
    database: str = ""  # URL: postgresql+pg8000://user@host/name?password_file=/path&ca=/path; empty: a file in `data`
    late_s: Annotated[float, Meta(ge=5, le=3600)] = 75.0  # two missed heartbeats of 30 s, and some air
    dark_s: Annotated[float, Meta(ge=10, le=86_400)] = 180.0
    event_rows_max: Annotated[int, Meta(ge=1000, le=100_000_000)] = 2_000_000
    nodes_max: Annotated[int, Meta(ge=1, le=100_000)] = 10_000
    command_key: str = ""  # path of the private key (Ed25519, PEM) that nodes know as uplink.command_key
    register: str = ""  # folder of the site, made by `wardpost site init`: with it, this station enrols new posts
    order_days: Annotated[float, Meta(gt=0, le=29)] = 14.0  # so long a hold waits for a node that is dark
    node_keys: dict[Id, Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]] = field(default_factory=dict)
    """Public keys of ledgers that a person vouches for, by node."""


class BrokerSettings(Settings, frozen=True):
    """[broker]: where the nodes' messages come from."""

    brokers: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]
    username: str = ""
    password_file: str = ""
    tls: TlsSettings | None = None
    keepalive_s: Annotated[int, Meta(ge=5, le=120)] = 20
    backoff_s_max: Annotated[float, Meta(ge=1, le=60)] = 10.0


class StationSettings(Settings, frozen=True):
    """A station's whole configuration file. `deploy/station.example.toml` documents it."""

    station: DeskSettings
    broker: BrokerSettings
    web: WebSettings | None = None
    uploads: UploadsSettings | None = None
    archive: ArchiveSettings = ArchiveSettings()
    outward: OutwardSettings | None = None
    live: LiveSettings = LiveSettings()
    bells: BellSettings = BellSettings()


class Station:
    """A station, ready to run."""

    def __init__(self, settings: StationSettings, *, clock: Clock, rng: random.Random) -> None:
        """Raises ConfigError for brokers that are none, and for pages that must not be served like this."""
        desk, broker = settings.station, settings.broker
        self._clock = clock
        self._web = None if settings.web is None else _web(settings.web, settings, clock, lambda: self.live)
        self.uploads = None if settings.uploads is None else _uploads(settings.uploads, settings, clock)
        self._outward = None if settings.outward is None else _outward(settings.outward, settings, clock, rng)
        self._retention = _retention(settings, clock)
        self._bells = _bells(settings, clock)
        self.store = StationStore(
            Path(desk.data),
            clock=clock,
            site=desk.site,
            database=desk.database,
            event_rows_max=desk.event_rows_max,
            nodes_max=desk.nodes_max,
            station=desk.id,
            node_keys=desk.node_keys,
        )
        self.transport = PahoTransport(
            clock=clock,
            credentials=Credentials(broker.username, broker.password_file, broker.tls),
            keepalive_s=broker.keepalive_s,
        )
        self.live = LiveDesk(
            settings.live,
            secret=check_live(settings.live),
            clock=clock,
            site=desk.site,
            key=desk.command_key,
            new_id=uuid7_maker(clock),
            wake=self.transport.wake,
        )
        self._data = Path(desk.data)
        self._books = open_engine(database_url(self._data, desk.database), pooled=False)
        orders = OrderBook(self._books)
        self.worker = StationWorker(
            store=self.store,
            transport=self.transport,
            clock=clock,
            rng=rng,
            site=desk.site,
            station=desk.id,
            brokers=[parse_broker(url) for url in broker.brokers],
            backoff_s_max=broker.backoff_s_max,
            late_s=desk.late_s,
            dark_s=desk.dark_s,
            orders=orders,
            rollouts=RolloutDesk(
                store=self.store,
                orders=orders,
                clock=clock,
                signer=Signer(site=desk.site, key=desk.command_key, days=desk.order_days),
                new_id=uuid7_maker(clock),
            ),
            settings=FleetSettings(SettingsBook(self._books), clock=clock, site=desk.site, nodes_max=desk.nodes_max),
            enrolment=EnrolmentDesk(Path(desk.register), clock=clock, site=desk.site) if desk.register else None,
            live=self.live,
        )

    def run(self, stop: threading.Event) -> None:
        """Serves until `stop` is set, on the calling thread; notices it within a second.

        A disk that is in the way is waited for. Raises ConfigError, Corrupt, and whatever is a bug: systemd restarts.
        """
        try:
            while not stop.is_set():
                try:
                    self.worker.open()
                    if bring_over(self._data, self._books):
                        self.worker.close()
                        self.worker.open()  # what it remembers of its books is from before
                    self._start_others()
                    while not stop.is_set():
                        self._tend_others()
                        now = self._clock.boot_ns() / NS
                        self._clock.wait(stop, self.worker.step(now) - self._clock.boot_ns() / NS)
                except Transient as error:
                    log.error("%s; next attempt in %g s", error, RESTART_S)  # noqa: TRY400
                    self.worker.close()
                    self._clock.wait(stop, RESTART_S)
        finally:
            self._stop_others()
            self.worker.close()
            self.transport.close()

    def _start_others(self) -> None:
        """What runs beside the intake, once the database is there."""
        if self.uploads is not None:
            self.uploads.start()
        if self._outward is not None:
            self._outward.start()
        if self._retention is not None:
            self._retention.start()
        if self._bells is not None:
            self._bells.start()

    def _tend_others(self) -> None:
        if self._web is not None:
            self._web.tend()
        if self.uploads is not None:
            self.uploads.check()

    def _stop_others(self) -> None:
        if self._outward is not None:
            self._outward.stop()
        if self._retention is not None:
            self._retention.stop()
        if self._bells is not None:
            self._bells.stop()
        if self._web is not None:
            self._web.stop()
        if self.uploads is not None:
            self.uploads.stop()


def _web(settings: WebSettings, whole: StationSettings, clock: Clock, live: Callable[[], LiveDesk]) -> Keeper:
    """What keeps the pages up. Their libraries are loaded only where there are pages. Raises ConfigError."""
    from agent.station.web.desk import open_web
    from agent.station.web.keeper import Keeper

    listening(settings)
    if settings.oidc is not None:
        check_oidc(settings.oidc)
    desk, folder = whole.station, Path(whole.station.data)
    return Keeper(
        lambda: open_web(
            settings,
            folder=folder,
            database=database_url(folder, desk.database),
            site=desk.site,
            station=desk.id,
            signer=Signer(site=desk.site, key=desk.command_key, days=desk.order_days),
            archive=make_archive(whole.archive, folder),
            retention=whole.archive.policy,
            clock=clock,
            register=desk.register,
            watch=live(),
            feeds=None if whole.outward is None else whole.outward.feeds,
            bells=whole.bells,
            contacts=() if whole.outward is None else [(one.name, one.after_s) for one in whole.outward.contact],
            schools=None if whole.outward is None else whole.outward.schools,
        ),
        clock=clock,
    )


def _outward(settings: OutwardSettings, whole: StationSettings, clock: Clock, rng: random.Random) -> Outward:
    """What tells others. Raises ConfigError."""
    from agent.station.outward.making import Outward

    desk, folder = whole.station, Path(whole.station.data)
    if whole.web is None:
        raise ConfigError("outward: needs [web]: it is the board that raises alerts, and notes which are overdue")
    return Outward(
        settings,
        folder=folder,
        database=database_url(folder, desk.database),
        site=desk.site,
        station=desk.id,
        register=desk.register,
        origin=whole.web.origin,
        clock=clock,
        rng=rng,
    )


def _bells(whole: StationSettings, clock: Clock) -> Bells | None:
    """What has posts keep what they recorded around a bell; None: it is switched off, or cannot sign or see a bell."""
    from agent.station.bells.making import Bells

    desk, folder = whole.station, Path(whole.station.data)
    if whole.web is None or not whole.bells.hold:
        return None
    if not desk.command_key:
        log.warning("bells: no station.command_key, so no post is asked to keep what it recorded around a bell")
        return None
    return Bells(
        whole.bells,
        folder=folder,
        database=database_url(folder, desk.database),
        site=desk.site,
        station=desk.id,
        signer=Signer(site=desk.site, key=desk.command_key, days=desk.order_days),
        register=desk.register,
        clock=clock,
    )


def _retention(whole: StationSettings, clock: Clock) -> Retention | None:
    """What takes footage out of the archive; None: nothing goes by itself, and no page could ask for it."""
    from agent.station.archive_retention_making import Retention

    if whole.web is None and not whole.archive.policy.acts:
        return None
    desk, folder = whole.station, Path(whole.station.data)
    database = database_url(folder, desk.database)
    return Retention(whole.archive, folder=folder, database=database, site=desk.site, station=desk.id, clock=clock)


def _uploads(settings: UploadsSettings, whole: StationSettings, clock: Clock) -> Uploads:
    """What takes footage. Its libraries are loaded only where it is taken. Raises ConfigError."""
    from agent.station.archive.room import RoomArchive
    from agent.station.uploads_server import Uploads

    desk, data = whole.station, Path(whole.station.data)
    if not desk.register:
        raise ConfigError(
            "uploads: needs station.register, the site's folder: it tells whose certificates are honoured"
        )
    engine = open_engine(database_url(data, desk.database))
    return Uploads(
        settings,
        clock=clock,
        site=desk.site,
        data=data,
        register=Path(desk.register),
        engine=engine,
        archive=RoomArchive(
            make_archive(whole.archive, data), engine=engine, clock=clock, bytes_max=whole.archive.policy.bytes_max
        ),
        line_rows_max=desk.event_rows_max,
    )


def run_station(settings: StationSettings, *, clock: Clock, rng: random.Random, stop: threading.Event) -> None:
    """See `Station.run`."""
    station = Station(settings, clock=clock, rng=rng)
    garbage.settle()
    station.run(stop)
