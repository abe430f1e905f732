"""Tells systemd how the service is (sd_notify(3)), with nothing but a datagram socket.

Without NOTIFY_SOCKET in the environment (a terminal, a test) every call does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

STATUS_CHARS_MAX = 200


class Notifier:
    """The way to the service manager. Never blocks and never raises: a deaf manager must not harm the post."""

    def __init__(self, *, address: str | None, watchdog_s: float | None) -> None:
        """`address` is a path, or `@name` in the abstract namespace; None: nobody listens.

        `watchdog_s`: systemd kills the service when it hears no `feed` for so long; None: it does not.
        """
        self._address = None if address is None else ("\0" + address[1:] if address.startswith("@") else address)
        self.watchdog_s = watchdog_s
        self.last_status = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int | None = None) -> Notifier:
        """Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. Nonsense in them counts as absent."""
        address = environment.get("NOTIFY_SOCKET") or None
        if address is not None and not address.startswith(("/", "@")):
            address = None  # vsock and others: not for us
        meant_for = environment.get("WATCHDOG_PID", "")
        period = environment.get("WATCHDOG_USEC", "")
        ours = not meant_for or meant_for == str(os.getpid() if pid is None else pid)
        watchdog_s = int(period) / 1e6 if ours and period.isascii() and period.isdigit() and int(period) > 0 else None
        return cls(address=address, watchdog_s=watchdog_s)

    def ready(self) -> None:
        """The service is up."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The service has begun to stop."""
        self._send("STOPPING=1")

    def feed(self) -> None:
        """Every worker steps in time."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; the same line twice is sent once."""
        line = " ".join(text.split())[:STATUS_CHARS_MAX]
        if line != self.last_status:
            self.last_status = line
            self._send(f"STATUS={line}")

    def _send(self, state: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(state.encode(), self._address)
        except OSError:
            return  # systemd is restarting or its queue is full; the next feed is a third of the period away
