"""Real brokers on free loopback ports, to be started, killed with -9 and started again, with and without memory."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

START_S_MAX = 60.0  # a busy machine; on a quiet one a broker answers within a second
PORTS = range(12_000, 32_000)
LANES = 16
"""Processes that run side by side have numbers close to each other, and so choose among other ports."""
_own = PORTS[os.getpid() % LANES :: LANES]
_left = iter(random.SystemRandom().sample(_own, len(_own)))


def free_port() -> int:
    """A TCP port on loopback that nobody uses now, and that nobody in this process was given before: who has been told
    of one may be dead at the moment, and wants it again.

    From below the ports that Linux gives to outgoing connections (32768 and up): one of those may be taken by anybody's
    connection while our broker is dead, even by the client that tries to reach it, and the broker could not come back.
    """
    for port in _left:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port is left of {_own}")


class RealBroker(Protocol):
    """A broker process."""

    name: str
    port: int

    @property
    def url(self) -> str: ...
    def start(self) -> None: ...
    def kill(self, *, forget: bool = False) -> None: ...
    def stop(self) -> None: ...


class _Process:
    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Starts it and waits until it answers MQTT."""
        with (self.folder / f"{self.name}.log").open("ab") as out:
            self._process = subprocess.Popen(self.command(), stdout=out, stderr=out, start_new_session=True)
        by = time.monotonic() + START_S_MAX
        while not self._answers():
            if time.monotonic() > by or self._process.poll() is not None:
                text = (self.folder / f"{self.name}.log").read_text()[-2000:]
                raise RuntimeError(f"{self.name} did not start:\n{text}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        connect = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x05\x00\x04ping"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as probe:
            probe.sendall(connect)
            return probe.recv(4)[:1] == b"\x20"
        return False

    def kill(self, *, forget: bool = False) -> None:
        """kill -9; with `forget`, everything it had on disk is gone too."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        if forget:
            shutil.rmtree(self.folder / "data", ignore_errors=True)

    def stop(self) -> None:
        self.kill()


class NatsServer(_Process):
    """nats-server from the registry's wheel, JetStream on disk."""

    name = "nats"

    def __init__(self, folder: Path, *, extra: str = "") -> None:
        super().__init__(folder)
        self._nats_port = free_port()
        self._extra = extra

    def command(self) -> list[str]:
        (self.folder / "data").mkdir(exist_ok=True)
        conf = self.folder / "nats.conf"
        conf.write_text(
            f'server_name: test\nlisten: "127.0.0.1:{self._nats_port}"\n'
            f'jetstream {{ store_dir: "{self.folder}/data" }}\n'
            f'mqtt {{ host: "127.0.0.1", port: {self.port}, max_ack_pending: 1000 }}\n{self._extra}\n'
        )
        return [nats_server(), "-c", str(conf)]


class Mosquitto(_Process):
    """Debian's mosquitto."""

    name = "mosquitto"

    def __init__(self, folder: Path, *, extra: str = "") -> None:
        super().__init__(folder)
        self._extra = extra

    def command(self) -> list[str]:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        data.chmod(0o777)
        conf = self.folder / "mosquitto.conf"
        user = "user root\n" if os.getuid() == 0 else ""
        conf.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 1000\n"
            f"persistence true\npersistence_location {data}/\n{user}"
            f"{self._extra}\n"
        )
        return [mosquitto(), "-c", str(conf)]


def nats_server() -> str:
    """Path of nats-server: beside this Python, or on the path."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise RuntimeError("nats-server is missing; run make setup")
    return found


def mosquitto() -> str:
    """Path of mosquitto; empty when it is not installed."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or ""


def make_broker(name: str, folder: Path, *, extra: str = "") -> NatsServer | Mosquitto:
    """A broker by name, not yet started."""
    return NatsServer(folder, extra=extra) if name == "nats" else Mosquitto(folder, extra=extra)
