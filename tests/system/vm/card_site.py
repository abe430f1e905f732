"""A site at headquarters, made and run by the same commands that a person types: its broker, its station, its cards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from agent.clock import SystemClock
from agent.site.folder import open_site
from tests.system.mtls import Identity, Site
from tests.system.powercut.rig import ROOT
from tests.system.vm.card_machine import BROKER
from tests.system.vm.heard import Heard

COMMAND = Path(sys.executable).with_name("wardpost")


def wardpost(*words: str | Path) -> str:
    """A command at the technician's laptop or at headquarters; its output."""
    done = subprocess.run([COMMAND, *words], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"wardpost {' '.join(map(str, words))}: {done.stdout}{done.stderr}"
    return done.stdout


class CardSite(Site):
    """`posts` reach the broker at 10.0.2.100, as QEMU shows it to them; the station beside it reaches it on loopback."""

    def __post_init__(self) -> None:
        self.root = self.folder / "ward-7"
        self.clock = SystemClock()
        own = f"{self.host}:{self.port}"
        wardpost("site", "init", self.root, "--site", "ward-7", "--broker", f"{BROKER}:8883", "--broker", own)
        settings = self.root / "station/station.toml"
        settings.write_text(settings.read_text().replace(f'"mqtts://{BROKER}:8883", ', ""))
        self.found = open_site(self.root)
        self.station = Identity("station", self.root / "station/station.pem", self.root / "station/station.key")
        self._plain = 0
        self._desk: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Starts broker and station."""
        self.start()
        with (self.folder / "station.log").open("ab") as log:
            self._desk = subprocess.Popen(
                [COMMAND, "station", "--config", self.root / "station/station.toml"], cwd=ROOT, stdout=log, stderr=log
            )

    def close(self) -> None:
        if self._desk is not None:
            self._desk.terminate()
            self._desk.wait(timeout=20)
            self._desk = None
        self.stop()

    def heard(self, node: str) -> Heard:
        return Heard(self.root / "station/data", node)
