"""The network cable between node and broker: a TCP relay on loopback that can be cut.

While it is cut every connection through it has been reset and new ones are refused. Each direction of a connection has
a thread that reads, then writes all of it: nothing is buffered, so a reader that stops makes the writer wait, as on a
real line.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

CHUNK_BYTES = 64 * 1024
LINES_MAX = 16  # connections at a time; one more is refused
DIAL_S_MAX = 5.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST and throws away what was on its way


class Cable:
    """A relay from `port` on loopback to `target`. Any thread may call; `cut` and `restore` return when it is so."""

    def __init__(self, target: tuple[str, int], *, port: int = 0) -> None:
        """`port`: where to listen; 0: anywhere. One that is to be there again after a `cut` is better chosen."""
        self._target = target
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._lines: set[tuple[socket.socket, socket.socket]] = set()
        self.port = port  # known after `restore`
        self.carried_bytes = 0
        self.refused = 0  # connections that came while LINES_MAX were open, or whose target did not answer

    def restore(self) -> None:
        """Takes connections, from now on or again; always on the same port. Raises OSError."""
        with self._lock:
            if self._listener is not None:
                return
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", self.port))
                listener.listen()
            except OSError:
                listener.close()
                raise
            self.port = listener.getsockname()[1]
            self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="cable", daemon=True).start()

    def cut(self) -> None:
        """Resets every connection and refuses new ones. May be called twice; also the way to end it."""
        with self._lock:
            listener, self._listener = self._listener, None
            lines, self._lines = self._lines, set()
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept(); close() alone does not
            listener.close()
        for line in lines:
            _reset(line)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return  # cut
            try:
                far = socket.create_connection(self._target, DIAL_S_MAX)
            except OSError:
                self.refused += 1
                near.close()
                continue
            line = (near, far)
            for sock in line:
                sock.settimeout(None)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                taken = self._listener is listener and len(self._lines) < LINES_MAX
                if taken:
                    self._lines.add(line)
            if not taken:
                self.refused += 1
                _reset(line)
                continue
            for one, other in (line, line[::-1]):
                threading.Thread(target=self._carry, args=(line, one, other), name="cable", daemon=True).start()

    def _carry(self, line: tuple[socket.socket, socket.socket], one: socket.socket, other: socket.socket) -> None:
        """Until `one` has said its last word, or the line is cut. The direction that ends first ends both."""
        try:
            while chunk := one.recv(CHUNK_BYTES):
                other.sendall(chunk)
                self.carried_bytes += len(chunk)
        except OSError:
            pass  # reset by either side, or by us
        with self._lock:
            mine = line in self._lines
            self._lines.discard(line)
        if mine:
            for sock in line:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the other direction
                sock.close()


def _reset(line: tuple[socket.socket, socket.socket]) -> None:
    for sock in line:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.shutdown(socket.SHUT_RD)  # wakes a thread in recv(), without a FIN to the peer
        sock.close()
