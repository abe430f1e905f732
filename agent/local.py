"""A Unix socket in the data folder, through which other commands ask a running node.

The node owns its SQLite file alone (locking_mode=EXCLUSIVE), so `wardpost footage` and `wardpost status` cannot read
it; they ask here. One JSON line goes in, lines of JSON come out: parts of a list, then one line with `end` or `error`.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct

from agent.audit import Alert, gather
from agent.boot import STORE_NAME, require_store
from agent.clock import Clock
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from agent.evidence.records import RecordKind
from agent.folder import DataLock, InUse
from agent.recording.index import Catalog
from agent.store.store import Origin, SessionRow, Store, Tombstone
from agent.types import NS, Gap, Hold, Segment, Sign, TimeAnchor

SOCKET_NAME = "agent.sock"
REQUEST_BYTES_MAX = 4096
CONNECTIONS_MAX = 8
IDLE_S_MAX = 10.0  # a client that neither asks nor reads is let go
ITEMS_PER_LINE = 500
LINE_BYTES_MAX = 4 << 20
REPLY_BYTES_MAX = 256 << 20
CLIENT_WAIT_S_MAX = 20.0
PICTURE_S_MAX = 10.0
_PARTS: dict[str, Any] = {
    "sessions": list[SessionRow],
    "anchors": list[TimeAnchor],
    "gaps": list[Gap],
    "segments": list[Segment],
    "tombstones": list[Tombstone],
    "signs": list[Sign],
    "holds": list[Hold],
}

log = logging.getLogger(__name__)


class _Request(Struct):
    ask: str
    body: Raw = Raw(b"{}")  # a JSON object: what the ledger is to say about an extraction, the args of an order


class _Line(Struct):
    """One line of a reply."""

    part: str = ""
    items: Raw = Raw(b"[]")
    end: bool = False
    result: Raw = Raw(b"{}")
    error: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A Catalog as it was at one moment."""

    _sessions: list[SessionRow]
    _anchors: list[TimeAnchor]
    _segments: list[Segment]
    _gaps: list[Gap]
    _tombstones: list[Tombstone]
    _signs: list[Sign]
    _holds: list[Hold]
    live: bool = field(default=False, compare=False)  # a running node has answered; else the card was read

    def sessions(self) -> list[SessionRow]:
        return self._sessions

    def anchors(self) -> list[TimeAnchor]:
        return self._anchors

    def segments(self, *, garbage: bool = False) -> list[Segment]:
        return [] if garbage else self._segments

    def gaps(self) -> list[Gap]:
        return self._gaps

    def tombstones(self) -> list[Tombstone]:
        return self._tombstones

    def signs(self) -> list[Sign]:
        return self._signs

    def holds(self) -> list[Hold]:
        return self._holds


def snapshot(catalog: Catalog) -> Snapshot:
    """Reads it all. Segments before tombstones: what is deleted in between is seen twice rather than not at all."""
    return Snapshot(
        _sessions=catalog.sessions(),
        _anchors=catalog.anchors(),
        _segments=catalog.segments(),
        _gaps=catalog.gaps(),
        _tombstones=catalog.tombstones(),
        _signs=catalog.signs(),
        _holds=catalog.holds(),
    )


# -- the node's side -------------------------------------------------------------------------------------------------


class _Connection:
    """One client: its half-read request, and its half-written reply, made line by line as the client reads."""

    def __init__(self, sock: socket.socket, until_s: float) -> None:
        self.sock = sock
        self.until_s = until_s
        self.request = b""
        self.lines: Iterator[bytes] | None = None
        self.out = memoryview(b"")


class LocalWorker:
    """See `agent.worker.Worker`. A step waits at most `wait_s` for clients; a slow or rude one delays nobody else."""

    name = "local"
    step_s_max = 20.0

    def __init__(
        self,
        folder: Path,
        *,
        catalog: Catalog,
        status: Callable[[], Mapping[str, Any]],
        extracted: Callable[[bytes], None] | None = None,
        verbs: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] | None = None,
        wait_s: float = 0.5,
    ) -> None:
        """The caller holds the folder's DataLock: a socket that is already there is then nobody's.

        `extracted` puts an extraction on the ledger (a JSON object); it may raise Transient. `verbs`: what the
        folder's owner may order besides; each is quick and raises WardpostError.
        """
        self._folder = folder
        self._catalog = catalog
        self._status = status
        self._extracted = extracted
        self._wait_s = wait_s
        self._verbs = dict(verbs or {})
        self._listener: socket.socket | None = None
        self._selector: selectors.BaseSelector | None = None
        self._connections: dict[int, _Connection] = {}

    def open(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            # On Linux the socket's own mode becomes the file's: there is no moment at which others could connect.
            os.fchmod(listener.fileno(), 0o600)
            (self._folder / SOCKET_NAME).unlink(missing_ok=True)
            with _short_path(self._folder) as path:
                listener.bind(path)
            listener.listen(CONNECTIONS_MAX)
        except OSError as error:
            listener.close()
            raise Transient(f"{self._folder / SOCKET_NAME}: cannot be made: {error}; check the data folder") from error
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def step(self, now: float) -> float:
        if self._selector is None:
            raise Transient("the local socket is closed")
        for key, _mask in self._selector.select(self._wait_s):
            connection = self._connections.get(key.fd)
            if connection is None:
                self._accept(now)
            else:
                self._serve(connection, now)
        for connection in [c for c in self._connections.values() if now > c.until_s]:
            self._drop(connection)
        # Where select does not wait, the caller's clock must.
        return now if self._wait_s else now + 0.05

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                (self._folder / SOCKET_NAME).unlink(missing_ok=True)
        if self._selector is not None:
            self._selector.close()
            self._selector = None

    def _accept(self, now: float) -> None:
        if self._listener is None or self._selector is None:
            return
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # the client has gone already
        sock.setblocking(False)
        if len(self._connections) >= CONNECTIONS_MAX:
            with contextlib.suppress(OSError):
                sock.send(_line(_Line(error="too many commands ask this node at once; try again")))
            sock.close()
            return
        self._connections[sock.fileno()] = _Connection(sock, now + IDLE_S_MAX)
        self._selector.register(sock, selectors.EVENT_READ)

    def _serve(self, connection: _Connection, now: float) -> None:
        try:
            moved = self._write(connection) if connection.lines is not None else self._read(connection)
        except BlockingIOError:
            return
        except OSError:
            moved = False  # the client has gone
        if moved:
            connection.until_s = now + IDLE_S_MAX
        else:
            self._drop(connection)

    def _read(self, connection: _Connection) -> bool:
        """Takes in some of the request; False when there will be no more."""
        received = connection.sock.recv(REQUEST_BYTES_MAX + 1)
        connection.request += received
        line, found, _rest = connection.request.partition(b"\n")
        if found or len(connection.request) > REQUEST_BYTES_MAX:
            connection.lines = self._answer(line) if found else iter([_line(_Line(error="the request is too long"))])
            if self._selector is not None:
                self._selector.modify(connection.sock, selectors.EVENT_WRITE)
            return True
        return bool(received)

    def _write(self, connection: _Connection) -> bool:
        """Sends some of the reply; False when all is sent."""
        if not connection.out:
            connection.out = memoryview(next(connection.lines, b"") if connection.lines is not None else b"")
            if not connection.out:
                return False
        connection.out = connection.out[connection.sock.send(connection.out) :]
        return True

    def _drop(self, connection: _Connection) -> None:
        for fd, known in list(self._connections.items()):
            if known is connection:
                del self._connections[fd]
        if self._selector is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(connection.sock)
        connection.sock.close()

    def _answer(self, request: bytes) -> Iterator[bytes]:
        """The lines of a reply. An error of ours is a line as well: the client is a person's command."""
        try:
            asked = msgspec.json.decode(request, type=_Request)
            ask = asked.ask
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield _line(_Line(error='not a request; send {"ask": "status"} or {"ask": "catalog"}'))
            return
        try:
            if ask == "catalog":
                yield from _parts(snapshot(self._catalog))
                yield _line(_Line(end=True))
            elif ask == "extraction" and self._extracted is not None:
                self._extracted(bytes(asked.body))
                yield _line(_Line(end=True))
            elif ask == "status":
                yield _line(_Line(end=True, result=Raw(msgspec.json.encode(self._status()))))
            elif ask in self._verbs:
                args = msgspec.json.decode(asked.body, type=dict[str, Any])
                yield _line(_Line(end=True, result=Raw(msgspec.json.encode(self._verbs[ask](args)))))
            else:
                yield _line(_Line(error=f"nobody here knows {ask[:40]!r}; ask for status or catalog"))
        except msgspec.ValidationError as error:
            yield _line(_Line(error=f"{ask}: {error}"))
        except WardpostError as error:
            yield _line(_Line(error=str(error)))


def _line(line: _Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _parts(found: Snapshot) -> Iterator[bytes]:
    for part in _PARTS:
        items: Sequence[object] = getattr(found, part)()
        for start in range(0, len(items), ITEMS_PER_LINE):
            yield _line(_Line(part=part, items=Raw(msgspec.json.encode(items[start : start + ITEMS_PER_LINE]))))


@contextlib.contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """The socket's path through an open folder: sun_path holds 108 bytes, a data folder's own path may be longer."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET_NAME}"
    finally:
        os.close(fd)


# -- the command's side ----------------------------------------------------------------------------------------------


def status_of(folder: Path) -> dict[str, Any]:
    """What a running node says about itself. Raises Transient when none runs on this folder."""
    _parts_seen, result = _ask(folder, "status")
    try:
        return msgspec.json.decode(result, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Corrupt(f"{folder / SOCKET_NAME}: not an answer: {error}") from None


def note_extraction(folder: Path, body: bytes) -> None:
    """Has a running node put an extraction on its ledger. Raises Transient when none runs, or its disk refuses."""
    _ask(folder, "extraction", body)


def order(folder: Path, verb: str, args: dict[str, Any]) -> dict[str, Any]:
    """Has a running node do something. Raises Transient when none runs on this folder, or with why it will not."""
    _parts_seen, result = _ask(folder, verb, msgspec.json.encode(args))
    try:
        return msgspec.json.decode(result, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Corrupt(f"{folder / SOCKET_NAME}: not an answer: {error}") from None


def picture_of(folder: Path, clock: Clock) -> bytes:
    """What the running node sees now, as JPEG. Blocks for PICTURE_S_MAX at most.

    Raises Transient when none runs on this folder, or when it looks at nothing (privacy, a camera that is lost).
    """
    never = threading.Event()
    taken = order(folder, "picture", {}).get("taken", 0)
    until_ns = clock.boot_ns() + round(PICTURE_S_MAX * NS)
    while clock.boot_ns() < until_ns:
        clock.wait(never, 0.2)
        jpeg = order(folder, "picture", {"after": taken}).get("jpeg", "")
        if jpeg:
            return base64.b64decode(jpeg)
    raise Transient(
        f"{folder}: the running node looks at no picture within {PICTURE_S_MAX:.0f} s;"
        " is the privacy switch on, or the camera lost? `wardpost status` tells"
    )


def catalog_of(folder: Path, clock: Clock) -> Snapshot:
    """What is known about the footage in a data folder, whether a node runs on it or not.

    Raises ConfigError for a folder that is none, Transient when a node runs but does not answer, Corrupt for a damaged
    database (the node repairs that at its next start).
    """
    require_store(folder)
    try:
        lock = DataLock(folder).take(clock)
    except InUse:
        return _catalog_of_node(folder)
    with lock, _store_of(folder, clock) as store:
        return snapshot(store)


def alerts_of(folder: Path, clock: Clock) -> list[Alert]:
    """The newest alerts with what people have said of them, whether a node runs or not. Raises as `catalog_of`."""
    require_store(folder)
    try:
        lock = DataLock(folder).take(clock)
    except InUse:
        answer = order(folder, "alerts", {})
    else:
        with lock, _store_of(folder, clock) as store:
            return gather(store.sightings(), store.verdicts())
    try:
        return msgspec.convert(answer.get("alerts"), list[Alert])
    except msgspec.ValidationError as error:
        raise Corrupt(f"{folder / SOCKET_NAME}: not an answer: {error}") from None


def journal_extraction(folder: Path, clock: Clock, body: bytes) -> None:
    """Puts an extraction on record, whether a node runs or not: then its next start puts it on the ledger.

    Raises Transient or Corrupt when that is not possible: nothing is taken from a card off the record.
    """
    try:
        lock = DataLock(folder).take(clock)
    except InUse:
        note_extraction(folder, body)
        return
    with lock, _store_of(folder, clock) as store:
        store.note(RecordKind.EXTRACTION, body)


@contextlib.contextmanager
def _store_of(folder: Path, clock: Clock) -> Iterator[Store]:
    """The store of a node that does not run; the caller holds its lock."""
    store = Store(
        folder / STORE_NAME,
        clock=clock,
        new_id=_no_id,
        origin=Origin("", ""),
        outbox_rows_max=100,
        event_rows_max=100,
    )
    store.open()
    try:
        yield store
    finally:
        store.close()


def _no_id() -> str:
    raise AssertionError("reading makes no ids")


def _catalog_of_node(folder: Path) -> Snapshot:
    parts, _result = _ask(folder, "catalog")
    found: dict[str, list[Any]] = {part: [] for part in _PARTS}
    try:
        for part, items in parts:
            if part in found:
                found[part] += msgspec.json.decode(items, type=_PARTS[part])
    except msgspec.DecodeError as error:
        raise Corrupt(f"{folder / SOCKET_NAME}: not an answer: {error}") from None
    return Snapshot(**{f"_{part}": items for part, items in found.items()}, live=True)


def _ask(folder: Path, what: str, body: bytes = b"{}") -> tuple[list[tuple[str, Raw]], Raw]:
    """Asks the running node. Returns the parts and the result."""
    where = folder / SOCKET_NAME
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(CLIENT_WAIT_S_MAX)
            with _short_path(folder) as path:
                sock.connect(path)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused unheard: the answer says why
                sock.sendall(msgspec.json.encode(_Request(what, Raw(body))) + b"\n")
            return _answer(sock, where)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise Transient(f"{where}: no node answers; is the agent running on this folder?") from None
    except PermissionError:
        raise ConfigError(f"{where}: no permission; run this command as the agent's user") from None
    except TimeoutError:
        raise Transient(f"{where}: the node did not answer within {CLIENT_WAIT_S_MAX:.0f} s") from None
    except msgspec.DecodeError as error:
        raise Corrupt(f"{where}: not an answer: {error}") from None
    except ConnectionResetError:
        raise Transient(f"{where}: the node broke off its answer; try again") from None
    except OSError as error:
        raise Transient(f"{where}: {error}; is the agent running on this folder?") from None


def _answer(sock: socket.socket, where: Path) -> tuple[list[tuple[str, Raw]], Raw]:
    parts: list[tuple[str, Raw]] = []
    size = 0
    with sock.makefile("rb") as reader:
        while raw := reader.readline(LINE_BYTES_MAX):
            size += len(raw)
            line = msgspec.json.decode(raw, type=_Line)
            if line.error:
                raise Transient(f"{where}: the node answers: {line.error}")
            if line.end:
                return parts, line.result
            if size > REPLY_BYTES_MAX:
                raise Corrupt(f"{where}: the answer is longer than {REPLY_BYTES_MAX >> 20} MB")
            parts.append((line.part, line.items))
    raise Transient(f"{where}: the node broke off its answer; try again")
