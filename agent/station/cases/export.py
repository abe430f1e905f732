"""The evidence package of a case, for one of its posts: the package that a node makes itself, put together here from
archive and store and signed by the station, with the case beside it.

    case.json      the case and its timeline as they were when this copy was begun, and what was disposed of; `left_out`
                   says in words what of it is not there, and where it is
    trail.jsonl    the lines of the station's audit log that concern it, as they stand there: each is signed

Or for all of its posts in one file (agent/evidence/case_package.py), which holds these packages unchanged.

Room is bounded: a package is not begun where the disk may be too small for it, and old ones go first. It is made in a
folder of its own in `exports/` of the station's folder, which goes whatever happens, and gets its name, by the number
of its act, in the act's own transaction: whole or not at all, and offered once the timeline has its hash. The newest
KEPT_MAX stay, so that an interrupted download need not be made again.

Making takes minutes. It is watched, and given up where case or person have changed so that there may be no copy: that
is asked before each post, and once more by the act itself.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from sqlalchemy import Engine, func, select

from agent.clock import Clock, rfc3339
from agent.disk import Disk, sync_folder
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from agent.evidence import dsse, keys, records
from agent.evidence.case_package import About, Packed, pack_case
from agent.evidence.package import Exported, Origin, Request, Station, export
from agent.recording.coverage import Now
from agent.station.archive import ReadableArchive
from agent.station.archive_retention_rows import Removed
from agent.station.cases.desk import CaseDesk, copying
from agent.station.cases.origin import StationCatalog, StationDisk, ledger_of
from agent.station.cases.reading import Case, Step, files_of, packed
from agent.station.cases.states import Act, Objection, Told
from agent.station.db.cases import case_act
from agent.station.db.engine import reading
from agent.station.db.people import trail
from agent.station.db.tables import node as node_table
from agent.station.db.uploads import footage
from agent.station.footage import told as ledger
from agent.station.footage.shelf import Shelf
from agent.station.people.roles import Person

FOLDER = "exports"
KEPT_MAX = 20
TRAIL_LINES_MAX = 100_000
"""Lines of the audit log that are looked through, from the opening of the case on."""
READ_ROWS = 1000
ACT_TRIES_MAX = 4
"""A database that is busy is waited for so often, each time as long as it waits by itself ..."""
ACT_PAUSE_S = 2.0
"""... and one that is away, as it is started anew, so long at first, then twice as long."""
FREE_BYTES_MIN = 256 << 20
"""What a package leaves free on the station's disk."""

log = logging.getLogger(__name__)


class Abandoned(Transient):
    """Nobody is to have this package any more; not an error."""


class Watch(Protocol):
    """Looks on while a package is made, from the thread that makes it. Each raises Abandoned when it is to end."""

    def begins(self, footage_bytes: int) -> None:
        """There is room. `footage_bytes`: what lies here of all its posts, about what will be read."""

    def post_done(self) -> None:
        """One more post has been looked at, whether there was anything of it or not."""

    def read(self, footage_bytes: int) -> None:
        """So many more bytes of footage have been read. Called with 0 before each file, too."""


class Unwatched:
    """A Watch that looks away."""

    def begins(self, footage_bytes: int) -> None: ...
    def post_done(self) -> None: ...
    def read(self, footage_bytes: int) -> None: ...


class _Refused(Abandoned):
    """There may be no copy, as the case and the person are by now."""

    def __init__(self, objection: Objection) -> None:
        super().__init__(f"export: {objection.value}")
        self.objection = objection


@dataclass(slots=True)
class _Making:
    """One package under way."""

    who: Person
    case: Case
    told: Told
    wish: int
    watch: Watch
    archive: ReadableArchive
    shelf: Shelf


@dataclass(frozen=True, slots=True)
class _Beside:
    """What a package tells of the case, by the names of its files; and in words what is left out of them."""

    files: dict[str, bytes]
    left_out: Sequence[str]


class Exporter:
    """Any thread; one package at a time. Raises Transient."""

    def __init__(
        self,
        *,
        engine: Engine,
        desk: CaseDesk,
        archive: ReadableArchive,
        clock: Clock,
        site: str,
        folder: Path,
        disk: Disk,
    ) -> None:
        """`folder`: the station's; `disk`: the same, with its keys."""
        self._engine = engine
        self._desk = desk
        self._archive = archive
        self._clock = clock
        self._site = site
        self._folder = folder / FOLDER
        self._disk = disk
        self._lock = threading.Lock()

    def file(self, n: int, step: Step) -> Path | None:
        """The package of a `copied` act; None where it is not there any more."""
        if step.act is not Act.COPIED:
            return None
        path = self._folder / _name(n, step.number)
        try:
            return path if path.stat().st_size == step.bytes else None
        except OSError:
            return None

    def make(
        self,
        who: Person,
        case: Case,
        node: str,
        told: Told,
        *,
        wish: int = 0,
        watch: Watch | None = None,
        pause: Callable[[float], None] = lambda _seconds: None,
    ) -> int | Objection:
        """Blocks for reading and writing, minutes for a large case. Returns the number of the act, or why there is no
        copy, as `copying` decides it: at the beginning, before each post, and with the act.

        `node`: empty for all posts of the case in one. `wish` is granted by the act, in its transaction. `pause` waits,
        between two tries of putting it on the timeline. Raises NoFootage when nothing lies here, ConfigError, and
        Abandoned as soon as `watch` does.
        """
        if not self._lock.acquire(blocking=False):
            raise Transient("export: another package is being made; try again in a moment")
        folder: Path | None = None
        try:
            looks = watch or Unwatched()
            archive = _Watched(self._archive, looks)
            making = _Making(who, case, told, wish, looks, archive, Shelf(engine=self._engine, archive=archive))
            self._look(making)
            self.tidy(KEPT_MAX - 1)
            looks.begins(self._make_room(case, node))
            folder = self._new_folder(case.n)
            path = folder / "package.zip"
            made: Exported | Packed
            of: dict[str, str | int] = {}
            if node:
                made = self._export(making, node, path)
                looks.post_done()
            else:
                made = self._export_all(making, path)
                of = {"detail": " ".join(made.posts)}
            return self._record(making, path, pause, of | {"node": node, "sha256": made.sha256, "bytes": made.bytes})
        except _Refused as refused:
            return refused.objection
        except Abandoned:
            raise
        except WardpostError:
            objection = self._objection(who, case, told)  # its footage may be gone because it was disposed of
            if objection is None:
                raise
            return objection
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            self._lock.release()

    def forget(self, n: int) -> None:
        """Takes the packages of a case away: it was disposed of. Any number of times. Raises Transient."""
        try:
            for path in self._folder.glob(_name(n, "*")):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._in_the_way(error) from error

    def tidy(self, kept_max: int = KEPT_MAX) -> None:
        """Takes away what a power cut left, and packages that are old. Not while one is made."""
        try:
            self._folder.mkdir(exist_ok=True)
            left = [path for path in self._folder.iterdir() if path.is_dir()]
            whole = sorted((path for path in self._folder.glob("*.zip")), key=lambda path: path.stat().st_mtime_ns)
            for path in left:
                shutil.rmtree(path, ignore_errors=True)
            for path in whole[: max(len(whole) - kept_max, 0)]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._in_the_way(error) from error

    def _look(self, making: _Making) -> None:
        """Raises _Refused where there may be no copy any more, Abandoned."""
        making.watch.read(0)
        objection = self._objection(making.who, making.case, making.told)
        if objection is not None:
            raise _Refused(objection)

    def _objection(self, who: Person, case: Case, told: Told) -> Objection | None:
        with reading(self._engine, "look at a case") as db:
            found = copying(db, who.login, case.n, told)
        return found if isinstance(found, Objection) else None

    def _record(
        self, making: _Making, path: Path, pause: Callable[[float], None], of: dict[str, str | int]
    ) -> int | Objection:
        """Gives the package its act. Minutes of work are not thrown away because the database is busy for a moment:
        as long as the package has no name, nothing of the act has been written, and it may be tried again. Where the
        database went away with the answer to the last word of it, whether the wish is still there tells what became.
        """
        n = making.case.n
        for left in reversed(range(ACT_TRIES_MAX)):
            making.watch.read(0)  # the last moment at which it can be given up
            try:
                return self._desk.copied(
                    making.who.login,
                    n,
                    making.told,
                    place=lambda number: self._place_package(path, n, number),
                    wish=making.wish,
                    **of,
                )
            except Transient as error:
                if not left or not path.exists():
                    raise
                log.warning("case %d: %s; its package is put on the timeline again", n, error)
                pause(ACT_PAUSE_S * 2 ** (ACT_TRIES_MAX - 1 - left))
        raise AssertionError("unreachable")

    def _new_folder(self, n: int) -> Path:
        try:
            return Path(tempfile.mkdtemp(prefix=f".case-{n}.", dir=self._folder))
        except OSError as error:
            raise self._in_the_way(error) from error

    def _place_package(self, path: Path, n: int, number: int) -> None:
        """Gives it its name. If the act then does not come about, the name is of no act, or of another one with
        another package, which takes its place: it is offered to nobody, and goes when it is old.
        """
        try:
            path.replace(self._folder / _name(n, number))
            sync_folder(self._folder)
        except OSError as error:
            raise self._in_the_way(error) from error

    def _in_the_way(self, error: OSError) -> Transient:
        return Transient(f"export: {self._folder}: {error.strerror or error}; check the disk")

    def _make_room(self, case: Case, node: str) -> int:
        """Old packages go, oldest first, until there is room for this one. Returns the bytes of its footage.

        Raises ConfigError: there is no room.
        """
        here = self._footage(case, [node] if node else case.posts)
        need = FREE_BYTES_MIN + bytes_max(here)
        try:
            kept = sorted(self._folder.glob("*.zip"), key=lambda path: path.stat().st_mtime_ns)
            while kept and self._disk.free_bytes() < need:
                kept.pop(0).unlink(missing_ok=True)
        except OSError as error:
            raise self._in_the_way(error) from error
        if (free := self._disk.free_bytes()) < need:
            raise ConfigError(
                f"export: {self._folder}: it may take {need >> 20} MiB and {free >> 20} MiB are free; make room there,"
                " or pack fewer posts at a time"
            )
        return sum(here.values())

    def _footage(self, case: Case, posts: Sequence[str]) -> dict[str, int]:
        """Bytes that lie here of each, in the time of the case."""
        f = footage.c
        query = (
            select(f.node, func.sum(f.bytes))
            .where(f.node.in_(posts), f.to_utc_ns > case.from_utc_ns, f.from_utc_ns < case.to_utc_ns)
            .group_by(f.node)
        )
        with reading(self._engine, "look for footage") as db:
            return {str(post): int(total) for post, total in db.execute(query)}

    def _export_all(self, making: _Making, path: Path) -> Packed:
        case = making.case
        station = keys.load_or_make(self._disk, "station")
        beside = self._packed(case)  # once: each package has the case as it is at this moment

        def make(post: str, to: Path) -> Exported:
            self._look(making)
            try:
                return self._export(making, post, to, beside=beside)
            finally:
                making.watch.post_done()

        return pack_case(
            output=path,
            about=About(self._site, case.n, case.number, _name_of(making.who), _reason(case, making.told), case.posts),
            make=make,
            files=beside.files,
            left_out=beside.left_out,
            signer=station[-1],
            keys=keys.public_keys(list(station)),
            clock=self._clock,
        )

    def _files(self, shown: Case) -> dict[str, bytes]:
        return self._packed(shown).files

    def _packed(self, shown: Case) -> _Beside:
        """With all that belongs to the case, not only what a page shows."""
        with reading(self._engine, "read a case") as db:
            case = packed(db, shown)
        lines, cut = self._trail(case)
        files = {
            "case.json": _json(case_dict(case, trail_cut=cut)),
            "trail.jsonl": b"".join(raw + b"\n" for raw in lines),
        }
        return _Beside(files, left_out(case, trail_cut=cut))

    def _export(self, making: _Making, node: str, path: Path, *, beside: _Beside | None = None) -> Exported:
        """`beside`: what is told of the case, where it has been read already."""
        case = making.case
        of_case = self._packed(case) if beside is None else beside
        with reading(self._engine, "read a case") as db:
            here = files_of(db, case.n, node)
        root = ledger_of(self._engine, node, here)
        if root is None:
            raise ConfigError(f"export: {node}: the station has no ledger of this post, so nothing can be proved")
        known = ledger.read(self._engine, node, case.from_utc_ns, case.to_utc_ns, root=root)
        disk = StationDisk(
            engine=self._engine, archive=making.archive, shelf=making.shelf, node=node, root=root, told=known
        )
        station = keys.load_or_make(self._disk, "station")
        return export(
            disk=cast(Disk, disk),
            catalog=StationCatalog(known),
            origin=Origin(f"{self._site}/{node}", self._place(node), "as the station has it"),
            request=Request(case.from_utc_ns, case.to_utc_ns, _name_of(making.who), _reason(case, making.told)),
            output=path,
            clock=self._clock,
            signer=station[-1],
            witness=None,
            now=None if known.last is None else Now(*known.last, utc_ns=self._clock.utc().utc_ns),
            station=Station(
                keys=keys.public_keys(list(station)), files=of_case.files, left_out=tuple(of_case.left_out)
            ),
        )

    def _place(self, node: str) -> str:
        with reading(self._engine, "look for a post") as db:
            return str(db.execute(select(node_table.c.place).where(node_table.c.node == node)).scalar() or "")

    def _trail(self, case: Case) -> tuple[list[bytes], bool]:
        """Lines that name the case or a file of it; and whether there were more to be looked through."""
        refs = {item.ref for item in case.items}
        with reading(self._engine, "read the audit log") as db:
            first = db.execute(
                select(case_act.c.trail_seq).where(case_act.c.case_n == case.n, case_act.c.number == 1)
            ).scalar_one()
            newest = db.execute(select(trail.c.seq).order_by(trail.c.seq.desc()).limit(1)).scalar() or 0
        last = min(newest, first + TRAIL_LINES_MAX - 1)
        return [raw for raw in self._between(first, last) if concerns(raw, case.n, refs)], newest > last

    def _between(self, first: int, last: int) -> Iterator[bytes]:
        for start in range(first, last + 1, READ_ROWS):
            with reading(self._engine, "read the audit log") as db:
                rows = db.execute(
                    select(trail.c.line)
                    .where(trail.c.seq >= start, trail.c.seq < min(start + READ_ROWS, last + 1))
                    .order_by(trail.c.seq)
                ).scalars()
                yield from [bytes(row) for row in rows]


class _Watched:
    """An archive that is only read, and says how much. What is read twice of a file counts once."""

    def __init__(self, archive: ReadableArchive, watch: Watch) -> None:
        self._archive = archive
        self._watch = watch
        self._reached: dict[str, int] = {}  # how far, by file; of one package's files

    def size(self, name: str) -> int | None:
        self._watch.read(0)
        return self._archive.size(name)

    def read(self, name: str, offset: int, count: int) -> bytes:
        data = self._archive.read(name, offset, count)
        before, end = self._reached.get(name, 0), offset + len(data)
        self._reached[name] = max(before, end)
        self._watch.read(max(end - before, 0))
        return data


def concerns(raw: bytes, n: int, refs: set[str]) -> bool:
    """Whether a line of the audit log is about this case, or about one of its files or alerts."""
    try:
        body = records.read(dsse.parse(raw)).body
    except Corrupt:
        return False
    if body.get("case") == n or body.get("incident") in refs:
        return True
    posts = body.get("posts")
    if not isinstance(posts, dict):
        return False
    named = {one for many in posts.values() if isinstance(many, list) for one in many if isinstance(one, str)}
    return bool(named & refs) or any(one == f"case {n}" or one.startswith(f"case {n} copy ") for one in named)


def case_dict(case: Case, *, trail_cut: bool = False) -> dict[str, Any]:
    """A case as it is written down for others. Times are RFC 3339."""
    return {
        "v": 1,
        "case": case.n,
        "number": case.number,
        "reason": case.reason,
        "place": case.place,
        "from": rfc3339(case.from_utc_ns),
        "to": rfc3339(case.to_utc_ns),
        "posts": list(case.posts),
        "state": case.state.value,
        "timeline": [_filled(_step(step)) for step in case.steps],
        "items": [
            _filled(
                {
                    "kind": item.kind,
                    "post": item.node,
                    "ref": item.ref,
                    "name": item.name,
                    "bytes": item.bytes,
                    "from": "" if item.from_utc_ns is None else rfc3339(item.from_utc_ns),
                    "to": "" if item.to_utc_ns is None else rfc3339(item.to_utc_ns),
                    "disposed": item.gone,
                    "mismatch": item.mismatch,  # it is not what its node recorded
                }
            )
            for item in case.items
        ],
        "timeline_count": case.newest,
        "items_count": max(case.items_count, len(case.items)),
        "tombstones": [
            {
                "post": stone.node,
                "name": stone.name,
                "sha256": stone.sha256,
                "bytes": stone.bytes,
                "who": stone.who,
                "authority": stone.authority,
                "reason": stone.reason,
                "time": rfc3339(stone.utc_ns),
            }
            for stone in case.stones
        ],
        "removed": [_filled(_removed(one)) for one in case.removed],
        "trail_cut": trail_cut,
        "left_out": left_out(case, trail_cut=trail_cut),
    }


def left_out(case: Case, *, trail_cut: bool) -> list[str]:
    """What of the case a package does not tell, and where that is: a reader must not take a part for the whole."""
    found = []
    if missing := case.newest - len(case.steps):
        found.append(
            f"timeline: acts 1 to {missing} of {case.newest} are left out; trail.jsonl has the station's line of each"
            " (kind `case`, `step`)"
        )
    if len(case.items) < case.items_count:
        found.append(
            f"items: {len(case.items)} of {case.items_count} files and alerts are named; trail.jsonl names all of them"
            " (kind `case-items`)"
        )
    if trail_cut:
        found.append(
            f"trail.jsonl: of the station's audit log only {TRAIL_LINES_MAX} lines from the opening of the case on were"
            " looked through; the station has the rest (wardpost trail)"
        )
    return found


def _removed(one: Removed) -> dict[str, Any]:
    """A file of the case's posts and time that retention removed. `audit_line`: its number on the station's log."""
    return {
        "post": one.node,
        "name": one.name,
        "sha256": one.sha256,
        "bytes": one.bytes,
        "from": "" if one.from_utc_ns is None else rfc3339(one.from_utc_ns),
        "to": "" if one.to_utc_ns is None else rfc3339(one.to_utc_ns),
        "received": rfc3339(one.received_utc_ns),
        "removed": rfc3339(one.utc_ns),
        "why": one.why.value,
        "policy": one.policy,
        "asked": one.asked,
        "confirmed": one.confirmed,
        "reason": one.reason,
        "authority": one.authority,
        "audit_line": one.trail_seq,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "number": step.number,
        "time": rfc3339(step.utc_ns),
        "act": step.act.value,
        "who": step.who,
        "login": step.login,
        "reason": step.reason,
        "recipient": step.recipient,
        "reference": step.reference,
        "post": step.node,
        "detail": step.detail,
        "sha256": step.sha256,
        "bytes": step.bytes,
    }


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in ("", 0, False, None)}


def _name(n: int, number: int | str) -> str:
    return f"case-{n}-{number}.zip"


def bytes_max(footage: Mapping[str, int]) -> int:
    """What a package takes on the disk at most, while it is made; `footage`: bytes of each post.

    The pictures lie in it twice, in the originals and in the clip, and the clip for a while beside it; of several posts
    the package of one, too.
    """
    largest = max(footage.values(), default=0)
    return 2 * sum(footage.values()) + (3 * largest if len(footage) > 1 else largest)


def _name_of(who: Person) -> str:
    return f"{who.name} ({who.login})"


def _reason(case: Case, told: Told) -> str:
    return f"case {case.number}: {told.reason}"[:500]


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"
