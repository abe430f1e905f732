"""The desk's pages, wired: from settings and a database to a server. All objects are made here, by keyword."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine
from starlette.applications import Starlette

from agent.clock import Clock, uuid7_maker
from agent.disk import PosixDisk
from agent.station.alerts import Alerts
from agent.station.archive import Archive
from agent.station.archive_retention import Policy
from agent.station.bells.around import Around
from agent.station.bells.settings import BellSettings
from agent.station.cases.keeping import Queue
from agent.station.cases.packer import Packer
from agent.station.db.engine import open_engine
from agent.station.dock.dockings import Dockings
from agent.station.evidence_alarms import EvidenceAlarms
from agent.station.footage.clip import Clips
from agent.station.footage.holds import Holds
from agent.station.footage.requests import Requests
from agent.station.footage.shelf import Shelf
from agent.station.footage.survey import Surveyor
from agent.station.live.desk import LiveDesk
from agent.station.orders import OrderBook
from agent.station.outward.schools import SchoolBook
from agent.station.outward.settings import FeedSettings, SchoolSettings
from agent.station.outward.tokens import Rate, Tokens
from agent.station.outward.trial import Trial
from agent.station.people.entrance import Entrance
from agent.station.people.passwords import Passwords
from agent.station.people.registry import Registry
from agent.station.people.sessions import Sessions
from agent.station.people.throttle import Throttle
from agent.station.people.trail import Trail
from agent.station.posts.choosing import Choosing
from agent.station.posts.desk import PostsDesk, registered
from agent.station.posts.pictures import Pictures
from agent.station.posts.renewal import Renewal
from agent.station.search.finder import Finder
from agent.station.search.keeper import Keeper
from agent.station.signing import Signer
from agent.station.web.app import application, table
from agent.station.web.archive import ArchivePages
from agent.station.web.assets import has_map, has_player
from agent.station.web.bearers import Bearers
from agent.station.web.bells import BellPages, Ringing
from agent.station.web.board import Board, SendVerdict
from agent.station.web.casework import case_work, command_sender, inspection_routes
from agent.station.web.dock import DockPages
from agent.station.web.door import Door
from agent.station.web.evidence import EvidencePages
from agent.station.web.feeds import Feeds
from agent.station.web.fetches import Fetches
from agent.station.web.footage import Footage
from agent.station.web.gate import Gate
from agent.station.web.household import HouseholdPages
from agent.station.web.live import Live
from agent.station.web.live_view import AskHold, LivePages
from agent.station.web.map import MapPages
from agent.station.web.pages import Pages
from agent.station.web.posts import PostPages
from agent.station.web.routes import Route
from agent.station.web.school import SchoolPages
from agent.station.web.schools import SchoolsPages
from agent.station.web.search import SearchPages
from agent.station.web.server import WebServer
from agent.station.web.settings import WebSettings, listening
from agent.station.web.tiles import Tiles
from agent.station.web.viewed import Viewed


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The parts that a test looks at."""

    app: Starlette
    routes: tuple[Route, ...]
    live: Live
    trail: Trail
    registry: Registry
    sessions: Sessions
    alerts: Alerts
    keeper: Keeper
    packer: Packer | None  # makes packages of cases; None: there is no archive, or nobody to sign
    renewal: Renewal


def make_desk(
    settings: WebSettings,
    *,
    engine: Engine,
    folder: Path,
    site: str,
    station: str,
    clock: Clock,
    send_verdict: SendVerdict,
    passwords: Passwords | None = None,
    archive: Archive | None = None,
    signer: Signer | None = None,
    feeds: FeedSettings | None = None,
    register: str = "",
    watch: LiveDesk | None = None,
    retention: Policy | None = None,
    bells: BellSettings | None = None,
    contacts: Sequence[tuple[str, float]] = (),
    schools: SchoolSettings | None = None,
) -> Desk:
    """Everything but the server. Opens the audit log. Raises ConfigError, Transient, Corrupt.

    `archive`, `signer`: where footage is kept, and by whom posts are asked for it; without either, there are no pages
    of footage. `feeds`: what programs may fetch; None: nothing. `register`: the site's folder, which tells house, pole
    and provider of the posts; empty: there is none. `watch`: live views; needs `signer`. `retention`: what
    leaves the archive by itself; None: nothing.
    `bells`: what is shown around a bell. `contacts`: names of who is told what nobody acknowledges, and after how many
    seconds. `schools`: by what their own contacts are reached; None: they are not told.
    """
    trail = Trail(engine, clock=clock, site=site, station=station, disk=PosixDisk(folder))
    trail.open()
    passwords = passwords or Passwords()
    registry = Registry(engine, trail=trail, clock=clock)
    sessions = Sessions(engine, clock=clock, idle_s=settings.idle_minutes * 60, whole_s=settings.session_hours * 3600)
    alerts = Alerts(
        engine,
        trail=trail,
        clock=clock,
        bell_deadline_s=settings.bell_deadline_s,
        alert_deadline_s=settings.alert_deadline_s,
    )
    keeper = Keeper(engine, clock=clock)
    pages = Pages(time_zone=settings.time_zone)
    evidence = EvidencePages(alarms=EvidenceAlarms(engine, trail=trail, clock=clock), pages=pages)
    live = Live(alerts, keeper, clock=clock, listeners_max=settings.listeners_max, others=evidence.newest_change)
    fetched = None
    if feeds is not None:
        fetched = Bearers(
            tokens=Tokens(engine, trail=trail, clock=clock),
            rate=Rate(clock=clock, per_minute_max=feeds.per_minute_max),
            fetches=Fetches(engine, trail=trail, clock=clock, zone=pages.zone),
        )
    gate = Gate(
        sessions=sessions,
        pages=pages,
        origin=settings.origin,
        proxied=settings.behind_proxy,
        admit=None if fetched is None else fetched.admit,
    )
    throttle = Throttle(boot_ns=clock.boot_ns)
    entrance = Entrance(
        registry=registry,
        sessions=sessions,
        passwords=passwords,
        throttle=throttle,
        trail=trail,
    )
    door = Door(
        entrance=entrance,
        registry=registry,
        passwords=passwords,
        pages=pages,
        gate=gate,
        provider="" if settings.oidc is None else settings.oidc.name,
    )
    by_provider: tuple[Route, ...] = ()
    if settings.oidc is not None:
        from agent.station.web.oidc import oidc_routes  # its library is an extra

        by_provider = oidc_routes(
            settings.oidc,
            origin=settings.origin,
            engine=engine,
            clock=clock,
            trail=trail,
            registry=registry,
            sessions=sessions,
            throttle=throttle,
            door=door,
            pages=pages,
        )
    around = Around(bells or BellSettings(), engine=engine, register=registered(register), clock=clock)
    seen = Viewed(trail)
    board = Board(
        alerts=alerts,
        live=live,
        sessions=sessions,
        viewed=seen,
        pages=pages,
        clock=clock,
        hours=settings.board_hours,
        send_verdict=send_verdict,
        around=around,
        clips=Clips(engine=engine),
        evidence=evidence,
        live_pictures=_live_pictures(bells or BellSettings()) if watch is not None and signer is not None else "",
    )
    footage = shelf = None
    choosing = Choosing(engine, clock=clock)
    policy = retention or Policy()
    if archive is not None and signer is not None:
        shelf = Shelf(engine=engine, archive=archive)
        footage = Footage(
            engine=engine,
            shelf=shelf,
            surveyor=Surveyor(engine=engine, shelf=shelf, clock=clock),
            requests=Requests(engine=engine, signer=signer, new_id=uuid7_maker(clock), clock=clock),
            holds=Holds(engine=engine, signer=signer, new_id=uuid7_maker(clock), clock=clock),
            choosing=choosing,
            around=around,
            alerts=alerts,
            viewed=Viewed(trail),
            trail=trail,
            pages=pages,
            clock=clock,
            player=has_player,
            policy=policy,
        )
    fed = (
        ()
        if feeds is None
        else Feeds(feeds, engine=engine, alerts=alerts, clock=clock, site=site, origin=settings.origin).routes()
    )
    known = PostsDesk(engine, register=registered(register), clock=clock, zone=pages.zone)
    mapped = MapPages(
        desk=known,
        evidence=evidence,
        pages=pages,
        tiles=Tiles(Path(settings.tiles)) if settings.tiles else None,
        attribution=settings.tiles_attribution,
        has_map=has_map,
    ).routes()
    posts = PostPages(
        desk=known,
        pictures=Pictures(engine),
        viewed=seen,
        evidence=evidence,
        pages=pages,
        clock=clock,
    )
    watched: tuple[Route, ...] = ()
    if watch is not None and signer is not None:
        ask_hold = hold_sender(command_sender(signer, engine, new_id=uuid7_maker(clock), clock=clock))
        watched = LivePages(
            desk=watch,
            engine=engine,
            trail=trail,
            pages=pages,
            clock=clock,
            hold=ask_hold,
            ringing=Ringing(alerts=alerts, around=around, clock=clock).around,
        ).routes()
    casework = inspection_routes(engine=engine, site=site, clock=clock, trail=trail, pages=pages, shelf=shelf)
    packer = None
    if archive is not None and signer is not None:
        work = case_work(
            engine=engine,
            folder=folder,
            site=site,
            clock=clock,
            trail=trail,
            pages=pages,
            archive=archive,
            signer=signer,
            registry=registry,
        )
        packer = work.packer
        casework += work.routes
        casework += ArchivePages(
            engine=engine, trail=trail, archive=archive, pages=pages, clock=clock, policy=policy, choosing=choosing
        ).routes()
    book = SchoolBook(engine, trail=trail, clock=clock)
    homes = (
        *evidence.routes(),
        *BellPages(around=around, viewed=Viewed(trail)).routes(),
        *SchoolPages(
            engine=engine, alerts=alerts, pages=pages, clock=clock, book=book, evidence=evidence, contacts=contacts
        ).routes(),
        *SchoolsPages(
            engine=engine,
            book=book,
            pages=pages,
            settings=schools,
            headquarters=bool(contacts),
            trial=None
            if schools is None
            else Trial(settings=schools, book=book, trail=trail, clock=clock, origin=settings.origin),
        ).routes(),
        *DockPages(dockings=Dockings(engine), pages=pages).routes(),
        *HouseholdPages(engine=engine, viewed=Viewed(trail), pages=pages).routes(),
        *SearchPages(engine=engine, finder=Finder(engine), viewed=Viewed(trail), pages=pages).routes(),
    )
    routes = table(
        door=door,
        board=board,
        posts=posts,
        footage=footage,
        feeds=fed,
        watch=watched,
        casework=casework,
        homes=homes,
        mapped=mapped,
        oidc=by_provider,
    )
    return Desk(
        app=application(routes, gate),
        routes=routes,
        live=live,
        trail=trail,
        registry=registry,
        sessions=sessions,
        alerts=alerts,
        keeper=keeper,
        packer=packer,
        renewal=Renewal(known, clock=clock),
    )


def _live_pictures(bells: BellSettings) -> str:
    """How those around a bell begin."""
    return "itself" if bells.live_pictures else "asked"


def serve(settings: WebSettings, desk: Desk, *, close: Callable[[], None]) -> WebServer:
    """The server, not started; `close` is called when it has ended. Raises ConfigError."""
    return WebServer(
        desk.app,
        desk.live,
        at=listening(settings),
        certificate=settings.certificate,
        key=settings.key,
        connections_max=settings.connections_max,
        close=close,
        beside=(desk.renewal,) if desk.packer is None else (desk.renewal, desk.packer),
    )


def open_web(
    settings: WebSettings,
    *,
    folder: Path,
    database: str,
    site: str,
    signer: Signer,
    station: str,
    archive: Archive,
    clock: Clock,
    register: str = "",
    feeds: FeedSettings | None = None,
    watch: LiveDesk | None = None,
    retention: Policy | None = None,
    bells: BellSettings | None = None,
    contacts: Sequence[tuple[str, float]] = (),
    schools: SchoolSettings | None = None,
) -> WebServer:
    """The server of a station's pages, not started; the database must be there. `database`: its URL; `register`:
    the site's folder, or empty.

    Raises ConfigError, Transient, Corrupt.
    """
    engine = open_engine(database)
    desk = make_desk(
        settings,
        engine=engine,
        folder=folder,
        site=site,
        station=station,
        clock=clock,
        send_verdict=verdict_sender(signer, uuid7_maker(clock), clock),
        archive=archive,
        signer=signer,
        register=register,
        feeds=feeds,
        watch=watch,
        retention=retention,
        bells=bells,
        contacts=contacts,
        schools=schools,
    )
    return serve(settings, desk, close=engine.dispose)


def verdict_sender(signer: Signer, new_id: Callable[[], str], clock: Clock) -> SendVerdict:
    """Verdicts as signed commands, each queued in the transaction that puts it on record."""

    def send(db: Connection, node: str, incident: str, verdict: str, reason: str, by: str) -> str:
        command_id = new_id()
        args = {"incident": incident, "verdict": verdict, "reason": reason, "by": by}
        signer.queue(OrderBook.within(db), node, "verdict", args, command_id=command_id, clock=clock)
        return command_id

    return send


def hold_sender(queue: Queue) -> AskHold:
    """Holds, in the same way."""

    def send(node: str, args: dict[str, str]) -> None:
        queue(node, "hold", dict(args))

    return send
