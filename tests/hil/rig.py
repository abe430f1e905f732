"""The bench rig: a real post behind a relay. Everything that differs from bench to bench is configuration.

See hardware/bench-rig.md for the wiring and an example of the file. The node itself is as installed.
"""

from __future__ import annotations

import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.config import Settings
from tests.system.powercut import judge
from tests.system.powercut.judge import Facts

SHELL_S_MAX = 120.0


class PostSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[post]: how to reach the post. A command is appended to `shell` as one word."""

    shell: Annotated[tuple[str, ...], Meta(min_length=1)]  # ["ssh", "-o", "BatchMode=yes", "pi@post"]
    data: str = "/var/lib/wardpost"
    python: str = "sudo -u wardpost /opt/wardpost/current/bin/python"
    status: str = "sudo -u wardpost /opt/wardpost/bin/wardpost status --config /etc/wardpost/node.toml"
    stop: str = "sudo systemctl stop wardpost-node"
    start: str = "sudo systemctl start wardpost-node"
    fsck: str = "journalctl -b -o cat -u 'systemd-fsck*'"  # what the check at boot said


class RelaySettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[relay]: a command, or an address that is asked by HTTP, for each direction."""

    off: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    off_url: str = ""
    on_url: str = ""
    off_s: Annotated[float, Meta(gt=0, le=600)] = 5.0  # long enough for the supply's capacitors


class RunSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[run]: how often, and when."""

    cycles: Annotated[int, Meta(ge=1)] = 10
    run_s_min: Annotated[float, Meta(gt=0)] = 5.0  # the power goes so long after the post is seen to record
    run_s_max: Annotated[float, Meta(gt=0)] = 60.0
    boot_s_max: Annotated[float, Meta(gt=0)] = 180.0
    fragment_s: Annotated[float, Meta(gt=0, le=2)] = 1.0  # the node's recording.fragment_s
    late_s: Annotated[float, Meta(ge=0, le=5)] = 1.0  # camera to recorder, and the network on the way to this bench


class RigSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    post: PostSettings
    relay: RelaySettings
    run: RunSettings = RunSettings()


class Relay:
    """Switches the post's supply."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings

    def off(self) -> None:
        self._switch(self._settings.off, self._settings.off_url)

    def on(self) -> None:
        self._switch(self._settings.on, self._settings.on_url)

    def _switch(self, command: tuple[str, ...], url: str) -> None:
        if command:
            subprocess.run(command, check=True, timeout=30)
        else:
            with urllib.request.urlopen(url, timeout=30) as answer:
                answer.read()


class Post:
    """The post, over its shell."""

    def __init__(self, settings: PostSettings) -> None:
        self._settings = settings

    def say(self, command: str, *, given: bytes | None = None, check: bool = True) -> bytes:
        """Runs a command on the post. Raises CalledProcessError, TimeoutExpired."""
        done = subprocess.run(
            [*self._settings.shell, command], input=given, capture_output=True, timeout=SHELL_S_MAX, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.returncode}: {done.stderr.decode(errors='replace')[-1000:]}")
        return done.stdout

    def status(self) -> dict[str, object]:
        """What `wardpost status` says; empty while the post does not answer."""
        try:
            found: dict[str, object] = msgspec.json.decode(self.say(self._settings.status, check=False))
        except (msgspec.DecodeError, subprocess.TimeoutExpired):
            return {}
        return found

    def fsck(self) -> str:
        return self.say(self._settings.fsck, check=False).decode(errors="replace")

    def facts(self) -> Facts:
        """Stops the node, reads its folder by its own code, starts it again."""
        self.say(self._settings.stop)
        try:
            script = Path(judge.__file__).read_bytes()
            said = self.say(f"{self._settings.python} - {self._settings.data}", given=script)
        finally:
            self.say(self._settings.start)
        return msgspec.json.decode(said.splitlines()[-1], type=Facts)


class Ticks:
    """The post's own clock, ten times a second, for as long as it has power."""

    _PROGRAM = (
        "import time;b=open('/proc/sys/kernel/random/boot_id').read().strip().replace('-','')\n"
        "while 1: print(b,time.clock_gettime_ns(time.CLOCK_BOOTTIME),flush=True);time.sleep(.1)"
    )

    def __init__(self, settings: PostSettings) -> None:
        self.newest: tuple[str, int] | None = None  # boot id, CLOCK_BOOTTIME ns
        self._process = subprocess.Popen(
            [*settings.shell, f'exec python3 -c "{self._PROGRAM}"'],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, name="ticks", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            boot_id, _, boot_ns = line.strip().partition(" ")
            if boot_ns.isdigit():
                self.newest = (boot_id, int(boot_ns))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join(5.0)
        assert self._process.stdout is not None
        self._process.stdout.close()


def wait_until_recording(post: Post, timeout_s: float) -> dict[str, object]:
    """Waits until the post answers and records; returns its status. Raises AssertionError when it does not."""
    by = time.monotonic() + timeout_s
    status: dict[str, object] = {}
    while time.monotonic() < by:
        status = post.status()
        recording = status.get("recording")
        if isinstance(recording, dict) and recording.get("recording"):
            return status
        time.sleep(0.5)
    raise AssertionError(f"the post does not record within {timeout_s:.0f} s of its start; it says: {status}")
