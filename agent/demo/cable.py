"""The network cable between node and broker: a TCP relay on loopback that can be cut.

While it is cut every connection through it has been reset and new ones are refused. A thread of its own moves the
bytes; buffers are bounded, so a reader that stops makes the writer wait, as on a real line.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from dataclasses import dataclass, field

CHUNK_BYTES = 64 * 1024
LINES_MAX = 32
ANSWER_S_MAX = 5.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST and throws away what was on its way


@dataclass(eq=False)
class _End:
    """One side of a connection, and what still has to be written to it."""

    sock: socket.socket
    other: _End | None = None
    waiting: bytearray = field(default_factory=bytearray)
    closing: bool = False  # the other side is done: close when nothing waits


class Cable:
    """A relay from `port` on loopback to `target`. Any thread may call; `cut` and `restore` return when it is so."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._ends: set[_End] = set()
        self._listener: socket.socket | None = None
        self._wanted = "open"
        self._is = threading.Event()
        self._wake_in, self._wake_out = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="cable", daemon=True)
        self.port = 0
        self.carried_bytes = 0

    def start(self) -> None:
        """Begins to listen. Raises OSError."""
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, "wake")
        self._listen()
        self._thread.start()

    def cut(self) -> None:
        """Drops every connection and refuses new ones."""
        self._want("cut")

    def restore(self) -> None:
        """Takes connections again, on the same port."""
        self._want("open")

    def close(self) -> None:
        """Ends the thread. May be called twice."""
        if self._thread.is_alive():
            self._want("closed")
            self._thread.join(ANSWER_S_MAX)
        self._wake_in.close()

    def _want(self, state: str) -> None:
        self._is.clear()
        self._wanted = state
        self._wake_in.send(b"!")
        if not self._is.wait(ANSWER_S_MAX):
            raise OSError(f"the demo's network relay does not answer (wanted: {state})")

    # -- the relay's own thread ---------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while self._wanted != "closed":
            for key, mask in self._selector.select():
                if key.data == "wake":
                    self._obey()
                elif key.data == "listen":
                    self._accept()
                elif key.data in self._ends:
                    self._move(key.data, mask)
        self._drop_all()
        self._selector.close()
        self._wake_out.close()
        self._is.set()

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_out.recv(64)
        if self._wanted == "cut":
            self._drop_all()
        elif self._wanted == "open" and self._listener is None:
            self._listen()
        if self._wanted != "closed":
            self._is.set()

    def _listen(self) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, "listen")

    def _drop_all(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
        for end in list(self._ends):
            self._drop(end)

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return  # whoever called has gone already
        try:
            far = socket.create_connection(self._target, ANSWER_S_MAX)
        except OSError:
            sock.close()
            return
        near_end, far_end = _End(sock), _End(far)
        near_end.other, far_end.other = far_end, near_end
        for end in (near_end, far_end):
            end.sock.setblocking(False)
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends.add(end)
            self._selector.register(end.sock, selectors.EVENT_READ, end)
        if len(self._ends) > 2 * LINES_MAX:
            self._drop(near_end)

    def _move(self, end: _End, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE and end.waiting:
                del end.waiting[: end.sock.send(end.waiting)]
            if mask & selectors.EVENT_READ:
                self._read(end)
            self._attend(end)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(end)

    def _read(self, end: _End) -> None:
        other = end.other
        data = end.sock.recv(CHUNK_BYTES)
        if other is None or other not in self._ends:
            self._drop(end)
        elif data:
            self.carried_bytes += len(data)
            other.waiting += data
            self._attend(other)
            self._attend(end)
        else:
            other.closing = True
            self._selector.unregister(end.sock)
            self._attend(other)

    def _attend(self, end: _End) -> None:
        """Waits for what can happen next at this end."""
        if end not in self._ends:
            return
        if end.closing and not end.waiting:
            self._drop(end)
            return
        full = end.other is not None and len(end.other.waiting) >= CHUNK_BYTES
        events = (0 if full else selectors.EVENT_READ) | (selectors.EVENT_WRITE if end.waiting else 0)
        known = self._selector.get_map().get(end.sock.fileno())
        if known is None:
            if events & selectors.EVENT_WRITE:
                self._selector.register(end.sock, selectors.EVENT_WRITE, end)
        elif events:
            self._selector.modify(end.sock, events, end)
        else:
            self._selector.unregister(end.sock)
        if end.other is not None and full is False and end.other in self._ends:
            self._resume(end.other)

    def _resume(self, end: _End) -> None:
        """A reader that was held back because its other side was full may read again."""
        if end.closing or self._selector.get_map().get(end.sock.fileno()) is not None:
            return
        if end.other is not None and len(end.other.waiting) < CHUNK_BYTES and not end.other.closing:
            self._selector.register(end.sock, selectors.EVENT_READ, end)

    def _drop(self, end: _End) -> None:
        for each in (end, end.other):
            if each is None or each not in self._ends:
                continue
            self._ends.discard(each)
            if self._selector.get_map().get(each.sock.fileno()) is not None:
                self._selector.unregister(each.sock)
            if not each.closing:
                with contextlib.suppress(OSError):
                    each.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            each.sock.close()
