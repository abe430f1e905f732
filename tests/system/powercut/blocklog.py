"""A disk that remembers every write and every flush: an NBD server (newstyle, one export) with a log beside it.

    python -m tests.system.powercut.blocklog --disk DISK --log LOG --socket NBD --control CONTROL

DISK is a raw image that is written in place. LOG takes, in the order in which the disk answered: writes with their
bytes, flushes, and *markers*: a line on the CONTROL socket is answered by `ok` once it stands in the log. A program
that writes a marker after a promise has left it therefore knows: whatever the log holds from there on, the promise was
made. `rebuild.py` makes the image of any moment of the log, without what had not been flushed by then.

Protocol: NetworkBlockDevice's doc/proto.md. Advertised are flush and FUA; trim and write-zeroes are not, so that every
change is a write with bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WRITE, FLUSH, MARK = 1, 2, 3
FUA = 1
ENTRY = struct.Struct("<BBxxIQQ")  # kind, flags, length, offset, CLOCK_BOOTTIME ns

_NBDMAGIC, _IHAVEOPT, _REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_REQUEST, _RESPONSE = 0x25609513, 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_EXPORT_NAME, _ABORT, _INFO, _GO = 1, 2, 6, 7
_REP_ACK, _REP_INFO, _REP_ERR_UNSUP = 1, 3, 0x80000001
_READ, _WRITE, _DISC, _FLUSH = 0, 1, 2, 3
_COMMAND_FUA = 1
_EINVAL, _EIO = 22, 5
_FLAGS = 1 | 4 | 8  # has flags, takes flush, takes FUA
_OPTION_BYTES_MAX = 4096
_REQUEST_BYTES_MAX = 64 << 20
_MARK_BYTES_MAX = 64 << 10


class _Gone(Exception):  # noqa: N818
    """The other side has closed its socket."""


def _receive(sock: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if not got:
            raise _Gone
        view = view[got:]
    return bytes(data)


class LoggingDisk:
    """The disk itself: an image file and its log. Calls are serialised; each returns when image and log have it."""

    def __init__(self, image: Path, log: Path) -> None:
        self._fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size
        self._log = log.open("wb", buffering=1 << 20)
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        with self._lock:
            return os.pread(self._fd, length, offset)

    def write(self, offset: int, data: bytes, *, fua: bool) -> None:
        with self._lock:
            os.pwrite(self._fd, data, offset)
            self._note(WRITE, FUA if fua else 0, offset, data)

    def flush(self) -> None:
        with self._lock:
            self._note(FLUSH, 0, 0, b"")

    def mark(self, line: bytes) -> None:
        with self._lock:
            self._note(MARK, 0, 0, line)

    def close(self) -> None:
        with self._lock:
            self._log.close()
            os.close(self._fd)

    def _note(self, kind: int, flags: int, offset: int, data: bytes) -> None:
        self._log.write(ENTRY.pack(kind, flags, len(data), offset, time.clock_gettime_ns(time.CLOCK_BOOTTIME)))
        self._log.write(data)


class _Session:
    """One NBD client."""

    def __init__(self, sock: socket.socket, disk: LoggingDisk) -> None:
        self._sock = sock
        self._disk = disk

    def serve(self) -> None:
        with contextlib.suppress(_Gone, OSError), self._sock:
            self._sock.sendall(struct.pack(">QQH", _NBDMAGIC, _IHAVEOPT, _FIXED_NEWSTYLE | _NO_ZEROES))
            (flags,) = struct.unpack(">I", _receive(self._sock, 4))
            if self._negotiate(no_zeroes=bool(flags & _NO_ZEROES)):
                while self._command():
                    pass

    def _negotiate(self, *, no_zeroes: bool) -> bool:
        while True:
            magic, option, length = struct.unpack(">QII", _receive(self._sock, 16))
            if magic != _IHAVEOPT or length > _OPTION_BYTES_MAX:
                return False
            _receive(self._sock, length)
            if option == _EXPORT_NAME:
                self._sock.sendall(struct.pack(">QH", self._disk.size, _FLAGS) + (b"" if no_zeroes else bytes(124)))
                return True
            if option in (_GO, _INFO):
                self._answer(option, _REP_INFO, struct.pack(">HQH", 0, self._disk.size, _FLAGS))
                self._answer(option, _REP_ACK)
                if option == _GO:
                    return True
            elif option == _ABORT:
                self._answer(option, _REP_ACK)
                return False
            else:
                self._answer(option, _REP_ERR_UNSUP)

    def _answer(self, option: int, kind: int, data: bytes = b"") -> None:
        self._sock.sendall(struct.pack(">QIII", _REPLY_MAGIC, option, kind, len(data)) + data)

    def _command(self) -> bool:
        magic, flags, kind, cookie, offset, length = struct.unpack(">IHHQQI", _receive(self._sock, 28))
        if magic != _REQUEST or length > _REQUEST_BYTES_MAX:
            return False
        data = _receive(self._sock, length) if kind == _WRITE else b""
        error, answer = 0, b""
        if kind == _DISC:
            return False
        if kind in (_READ, _WRITE) and offset + length > self._disk.size:
            error = _EINVAL
        else:
            try:
                if kind == _READ:
                    answer = self._disk.read(offset, length)
                elif kind == _WRITE:
                    self._disk.write(offset, data, fua=bool(flags & _COMMAND_FUA))
                elif kind == _FLUSH:
                    self._disk.flush()
                else:
                    error = _EINVAL
            except OSError:
                error = _EIO
        self._sock.sendall(struct.pack(">IIQ", _RESPONSE, error, cookie) + answer)
        return True


def _serve_disk(sock: socket.socket, disk: LoggingDisk) -> None:
    _Session(sock, disk).serve()


def _serve_marks(sock: socket.socket, disk: LoggingDisk) -> None:
    with contextlib.suppress(OSError), sock, sock.makefile("rb") as lines:
        while line := lines.readline(_MARK_BYTES_MAX):
            disk.mark(line.rstrip(b"\n"))
            sock.sendall(b"ok\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("disk", "log", "socket", "control"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    disk = LoggingDisk(args.disk, args.log)

    def listen(path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(8)
        return listener

    def accept(listener: socket.socket, *, nbd: bool) -> None:
        while True:
            sock, _ = listener.accept()
            serve = _serve_disk if nbd else _serve_marks
            threading.Thread(target=serve, args=(sock, disk), daemon=True).start()

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    for path, nbd in ((args.socket, True), (args.control, False)):
        threading.Thread(target=accept, args=(listen(path),), kwargs={"nbd": nbd}, daemon=True).start()
    print("ready", flush=True)
    stop.wait()
    disk.close()
    os._exit(0)  # threads may still wait for a client


# -- the client of the control socket ----------------------------------------------------------------------------------


class Marker:
    """Writes markers. Any thread; blocks until the log has the line (about 0.1 ms)."""

    def __init__(self, control: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.connect(str(control))
        self._replies = self._sock.makefile("rb")
        self._lock = threading.Lock()

    def __call__(self, line: bytes) -> None:
        with self._lock:
            self._sock.sendall(line + b"\n")
            if self._replies.readline() != b"ok\n":
                raise RuntimeError("the logging disk has gone away")

    def close(self) -> None:
        """Lets go of the control socket."""
        self._replies.close()
        self._sock.close()


# -- reading the log ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened to the disk. `at` is where its bytes begin in the log file."""

    kind: int
    fua: bool
    offset: int
    length: int
    boot_ns: int
    at: int


def entries(data: memoryview) -> Iterator[Entry]:
    """The whole entries of a log; a torn last one (the server was killed) ends it."""
    at = 0
    while at + ENTRY.size <= len(data):
        kind, flags, length, offset, boot_ns = ENTRY.unpack_from(data, at)
        at += ENTRY.size
        if at + length > len(data):
            return
        yield Entry(kind, bool(flags & FUA), offset, length, boot_ns, at)
        at += length


if __name__ == "__main__":
    main()
