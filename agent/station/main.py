"""Composition root of the station: `wardpost station --config station.toml`. All objects are made here, by keyword."""

from __future__ import annotations

import logging
import random
import threading
from pathlib import Path
from typing import Annotated

from msgspec import Meta, field

from agent.clock import Clock, uuid7_maker
from agent.config import Id, Settings, TlsSettings
from agent.errors import Transient
from agent.station.enrolment import EnrolmentDesk
from agent.station.fleet_settings import FleetSettings
from agent.station.orders import OrderBook
from agent.station.rollout_desk import RolloutDesk
from agent.station.settings_book import SettingsBook
from agent.station.signing import Signer
from agent.station.store import StationStore
from agent.station.worker import StationWorker
from agent.types import NS
from agent.uplink import parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport

RESTART_S = 5.0

log = logging.getLogger(__name__)


class DeskSettings(Settings, frozen=True):
    """[station]: who receives, and where it is kept."""

    site: Id
    id: Id
    data: str  # folder
    late_s: Annotated[float, Meta(ge=5, le=3600)] = 75.0  # two missed heartbeats of 30 s, and some air
    dark_s: Annotated[float, Meta(ge=10, le=86_400)] = 180.0
    event_rows_max: Annotated[int, Meta(ge=1000, le=100_000_000)] = 2_000_000
    nodes_max: Annotated[int, Meta(ge=1, le=100_000)] = 10_000
    command_key: str = ""  # path of the private key (Ed25519, PEM) that nodes know as uplink.command_key
    register: str = ""  # folder of the site, made by `wardpost site init`: with it, this station enrols new posts
    order_days: Annotated[float, Meta(gt=0, le=29)] = 14.0  # so long a hold waits for a node that is dark
    node_keys: dict[Id, Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]] = field(default_factory=dict)
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


class Station:
    """A station, ready to run."""

    def __init__(self, settings: StationSettings, *, clock: Clock, rng: random.Random) -> None:
        """Raises ConfigError for brokers that are none."""
        desk, broker = settings.station, settings.broker
        self._clock = clock
        self.store = StationStore(
            Path(desk.data),
            clock=clock,
            site=desk.site,
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
        orders = OrderBook(Path(desk.data))
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
            settings=FleetSettings(
                SettingsBook(Path(desk.data)), clock=clock, site=desk.site, nodes_max=desk.nodes_max
            ),
            enrolment=EnrolmentDesk(Path(desk.register), clock=clock, site=desk.site) if desk.register else None,
        )

    def run(self, stop: threading.Event) -> None:
        """Serves until `stop` is set, on the calling thread; notices it within a second.

        A disk that is in the way is waited for. Raises ConfigError, Corrupt, and whatever is a bug: systemd restarts.
        """
        try:
            while not stop.is_set():
                try:
                    self.worker.open()
                    while not stop.is_set():
                        now = self._clock.boot_ns() / NS
                        self._clock.wait(stop, self.worker.step(now) - self._clock.boot_ns() / NS)
                except Transient as error:
                    log.error("%s; next attempt in %g s", error, RESTART_S)  # noqa: TRY400
                    self.worker.close()
                    self._clock.wait(stop, RESTART_S)
        finally:
            self.worker.close()
            self.transport.close()


def run_station(settings: StationSettings, *, clock: Clock, rng: random.Random, stop: threading.Event) -> None:
    """See `Station.run`."""
    Station(settings, clock=clock, rng=rng).run(stop)
