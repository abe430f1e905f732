"""`wardpost dock`, wired: who brought the card, and who took it in, is on the audit log before and after."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from agent.clock import Clock, uuid7_maker
from agent.errors import ConfigError, Corrupt
from agent.login import login
from agent.station.archive.making import make_archive
from agent.station.archive.room import RoomArchive
from agent.station.db.engine import database_url, open_engine
from agent.station.dock.card import Card
from agent.station.dock.dockings import DockingRecord
from agent.station.dock.intake import Intake, Report
from agent.station.lock import FolderLock
from agent.station.main import StationSettings
from agent.station.people.command import books
from agent.station.people.roles import POST, check_name

FILE_BYTES_MAX = 1 << 30
"""Ten minutes at 14 Mbit/s; files of the recorder are smaller."""
TOLD_EVERY = 50
LISTED_MAX = 20
Out = Callable[[str], None]


def dock(
    settings: StationSettings,
    folder: Path,
    *,
    custodian: str,
    node: str | None,
    as_json: bool,
    clock: Clock,
    out: Out,
    progress: Out,
) -> int:
    """Takes everything in; may be said again after any cut. 0: all of it is here and as recorded; 1: not.

    `custodian`: who had the card until now. `node`: whose it is; None: as its files say. Blocks for the whole of it.
    Raises ConfigError, Transient, Corrupt.
    """
    who, desk = check_name(custodian), settings.station
    if node is not None and not POST.fullmatch(node):
        raise ConfigError(f"--node {node[:40]!r}: a node's id is 1 to 32 lower-case letters, digits and hyphens")
    data = Path(desk.data)
    card = Card(folder)
    card.check()
    with books(desk) as found:
        lock = FolderLock(data, file="dock.lock", other="`wardpost dock`")
        lock.take()
        engine = open_engine(database_url(data, desk.database), pooled=False)
        try:
            number = uuid7_maker(clock)()
            intake = Intake(
                card=card,
                archive=RoomArchive(
                    make_archive(settings.archive, data, writer="dock"),
                    engine=engine,
                    clock=clock,
                    bytes_max=settings.archive.policy.bytes_max,
                ),
                engine=engine,
                clock=clock,
                site=desk.site,
                order=number,
                file_bytes_max=FILE_BYTES_MAX,
            )
            try:
                whose = node or intake.node()
            except Corrupt as error:
                raise ConfigError(f"{error} (--node NODE says whose it is)") from None
            record = DockingRecord(
                found.trail,
                clock=clock,
                number=number,
                post=whose,
                custodian=who,
                who=f"account:{login()}",
                folder=_printable(folder),
            )
            record.begin()
            report = intake.run(whose, tell=_teller(progress))
            record.end(report)
        finally:
            engine.dispose()
            lock.release()
    out(json.dumps(asdict(report) | {"dock": number, "custodian": who}, indent=2) if as_json else in_words(report))
    return 0 if report.clean else 1


def _printable(folder: Path) -> str:
    """Its path for the audit log: the label of a USB stick need not be UTF-8."""
    return str(folder.absolute()).encode("utf-8", "backslashreplace").decode()[:300]


def _teller(progress: Out) -> Callable[[Report], None]:
    def tell(report: Report) -> None:
        done = report.taken + report.duplicates
        if done and done % TOLD_EVERY == 0:
            progress(f"{report.node}: {done} of {report.files} files, {report.bytes / 1e6:.0f} MB taken in")

    return tell


def in_words(report: Report) -> str:
    """The report for a person."""
    taken = f"{report.taken} taken in ({report.bytes / 1e6:.1f} MB), {report.duplicates} were here already"
    states = f"{report.verified} are what the ledger says, {report.pending} wait for their line"
    lines = [
        f"{report.node}: {report.files} files of footage on the card: {taken}",
        f"  {states}, {report.mismatched} do not match",
    ]
    if not report.lines:
        why = f"{report.foreign} are signed by keys that are not known here" if report.foreign else "there are none"
        lines.append(f"  no line of the card's own ledger could be used: {why}")
    for title, total, listed in (
        ("does not match", report.mismatched, report.not_matching),
        ("not taken in", report.passed, report.not_taken),
    ):
        lines += [f"  {title}: {one.name}: {one.why}" for one in listed[:LISTED_MAX]]
        if total > LISTED_MAX:
            lines.append(f"  {title}: {total - LISTED_MAX} more (--json lists them)")
    return "\n".join("".join(char if char.isprintable() else "?" for char in line) for line in lines)
