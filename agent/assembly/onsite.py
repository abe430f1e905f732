"""Who is at the post itself: a technician with a phone (the setup page), or at a terminal (the local socket)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

from agent import audit
from agent.assembly.books import Books
from agent.assembly.headquarters import Headquarters
from agent.assembly.sight import Sight
from agent.assembly.world import World
from agent.config import Config
from agent.doctor.desk import DoctorDesk
from agent.evidence.records import RecordKind
from agent.evidence.rotation import KeyDesk
from agent.local import LocalWorker
from agent.panel import Output
from agent.panel.worker import PanelWorker
from agent.recording.holds import HoldDesk
from agent.setup_page.desk import SetupDesk
from agent.setup_page.drawing import drawing_desk
from agent.setup_page.server import listen
from agent.setup_page.worker import PageWorker, request_reader
from agent.state import NodeState


def make_page(
    config: Config, world: World, books: Books, sight: Sight, *, setup: Callable[[], SetupDesk]
) -> PageWorker:
    """`setup` is asked each time that the page is served, for it needs what is made after this."""
    return PageWorker(
        settings=config.setup_page,
        clock=world.clock,
        disk=world.disk,
        note=books.noting(RecordKind.PAGE),
        tell=books.tell,
        request=request_reader(config.setup_page.request_file),
        nonce=lambda: secrets.token_bytes(16),
        serve=partial(listen, setup, port=config.setup_page.port, boot_ns=world.clock.boot_ns),
        shown=lambda: sight.view.shown,
    )


def make_setup(
    config: Config,
    world: World,
    sight: Sight,
    *,
    page: PageWorker,
    panel: PanelWorker,
    state: NodeState,
    doctor: DoctorDesk,
    headquarters: Headquarters,
) -> SetupDesk:
    """What the page may do."""
    return SetupDesk(
        page=page,
        view=sight.view,
        clock=world.clock,
        about={"node": f"{config.node.site}/{config.node.id}", "place": config.node.place},
        status=state.status,
        examine=doctor.examine,
        free_bytes=world.disk.free_bytes,
        wired=world.panel.has,
        outputs={Output.SIREN: panel.siren, Output.LAMP: panel.lamp, Output.LED: panel.identify},
        zones=partial(
            drawing_desk,
            base=world.config_path,
            disk=world.disk,
            clock=world.clock,
            draw=partial(headquarters.settings.draw, by="the local page"),
        ),
    )


def make_local(
    world: World,
    books: Books,
    sight: Sight,
    *,
    page: PageWorker,
    state: NodeState,
    holds: HoldDesk,
    doctor: DoctorDesk,
    headquarters: Headquarters,
) -> LocalWorker:
    """What may be asked of a running node on its own machine."""
    store = books.store

    def report_audit(args: dict[str, Any]) -> dict[str, Any]:
        told = audit.notice(str(args.get("text", "")), incident=books.new_id(), boot_ns=world.clock.boot_ns())
        books.report_one(told)
        return {"summary": "on its way to headquarters"}

    return LocalWorker(
        folder=world.disk.path(""),
        catalog=store,
        status=state.status,
        extracted=books.noting(RecordKind.EXTRACTION),
        verbs={
            "hold": lambda args: holds.hold(args, str(args.get("by", "the post"))),
            "release": lambda args: holds.release(args, str(args.get("by", "the post"))),
            "holds": lambda _: holds.listing(),
            "key": KeyDesk(disk=world.disk, ledger=books.chain, notes=store).rotate,
            "picture": sight.snapshots.ask,
            "alerts": lambda _: {"alerts": audit.gather(store.sightings(), store.verdicts())},
            "report": report_audit,
            "releases": headquarters.release.local,
            "doctor": doctor.examine,
            "setup-page": page.order,
        },
        wait_s=min(0.5, world.wait_s_max),
    )
