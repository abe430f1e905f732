"""Cases and inspection, wired: from the desk's parts to their routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from agent.clock import Clock, uuid7_maker
from agent.disk import PosixDisk
from agent.station.archive import Archive
from agent.station.cases.desk import CaseDesk
from agent.station.cases.export import Exporter
from agent.station.cases.keeping import Queue
from agent.station.cases.packer import Packer
from agent.station.cases.reading import Cases
from agent.station.cases.wishes import Wishes
from agent.station.footage.shelf import Shelf
from agent.station.inspection.desk import InspectionDesk
from agent.station.inspection.reading import InspectionReader
from agent.station.orders import OrderBook
from agent.station.people.registry import Registry
from agent.station.people.trail import Trail
from agent.station.signing import Signer
from agent.station.web.cases import CasePages
from agent.station.web.inspection import InspectionPages
from agent.station.web.pages import Pages
from agent.station.web.routes import Route
from agent.station.web.viewed import Viewed


@dataclass(frozen=True, slots=True)
class CaseWork:
    """Pages of cases, and what makes packages for them; it is not started."""

    routes: tuple[Route, ...]
    packer: Packer


def case_work(
    *,
    engine: Engine,
    folder: Path,
    site: str,
    clock: Clock,
    trail: Trail,
    pages: Pages,
    archive: Archive,
    signer: Signer,
    registry: Registry,
) -> CaseWork:
    """`folder`: the station's."""
    cases = Cases(engine)
    queue = command_sender(signer, engine, new_id=uuid7_maker(clock), clock=clock)
    desk = CaseDesk(trail=trail, cases=cases, clock=clock, queue=queue, archive=archive, site=site)
    exporter = Exporter(
        engine=engine,
        desk=desk,
        archive=archive,
        clock=clock,
        site=site,
        folder=folder,
        disk=PosixDisk(folder),
    )
    packer = Packer(maker=exporter, wishes=Wishes(engine), cases=cases, registry=registry, clock=clock)
    made = CasePages(
        cases=cases, desk=desk, exporter=exporter, packer=packer, viewed=Viewed(trail), pages=pages, clock=clock
    )
    return CaseWork(made.routes(), packer)


def inspection_routes(
    *, engine: Engine, site: str, clock: Clock, trail: Trail, pages: Pages, shelf: Shelf | None
) -> tuple[Route, ...]:
    """The routes of the weekly inspection and of the compliance report. `shelf` None: there is no archive."""
    return InspectionPages(
        engine=engine,
        reader=InspectionReader(engine),
        desk=InspectionDesk(trail=trail, clock=clock, site=site, zone=pages.zone),
        shelf=shelf,
        trail=trail,
        pages=pages,
        clock=clock,
        site=site,
        zone=pages.zone,
    ).routes()


def command_sender(signer: Signer, engine: Engine, *, new_id: Callable[[], str], clock: Clock) -> Queue:
    """Signed commands in the station's queue, by a connection of its own each: any thread may send one.

    What names an id of its own (`id`, of a hold or a sending) is the command of that id, once: the post knows it by
    that, says so with each file that it brings and with its last answer, and both are looked for by it. Such an id
    tells no time, and need not: a post does not ask when a command was issued that may wait for it for days.
    """

    def send(node: str, verb: str, args: dict[str, Any]) -> None:
        command_id = str(args.get("id") or new_id())
        with OrderBook(engine) as book:
            if book.find(command_id) is not None:
                return  # it was put there before a cut
            try:
                signer.queue(book, node, verb, args, command_id=command_id, clock=clock)
            except IntegrityError:
                if book.find(command_id) is None:
                    raise  # else somebody else has put it there meanwhile

    return send
