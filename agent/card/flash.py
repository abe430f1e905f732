"""`wardpost flash`: a kit and a bundle onto a card or an image of one, judged first, read back afterwards."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from agent.card import image, install
from agent.card.bundle import MANIFEST, Manifest, read_bundle
from agent.card.image import Boot, Host, Layout, Open, Run, System, Target, Tell
from agent.card.kit import kit_folder, read_kit
from agent.card.seed import FOLDER, INSTALLER, Generation, boot_files, generation_of
from agent.clock import Clock
from agent.errors import ConfigError

ARCH = "aarch64"  # where it cannot be told: every Raspberry Pi that Wardpost supports
_PYTHON = {Generation.TRIXIE: "3.13"}  # where it cannot be told; firstrun is used by both


class Flasher:
    """One card. Blocks for minutes; raises WardpostError in one line, and says so before a byte is written."""

    def __init__(
        self,
        *,
        clock: Clock,
        out: Callable[[str], None],
        ask: Callable[[str], str] | None,
        tell: Tell,
        host: Host | None = None,
        run: Run = image.run_tool,
        open_: Open = image.open_file,
    ) -> None:
        """`ask`: puts a question to a person; None when there is nobody to answer."""
        self._clock, self._out, self._ask, self._tell = clock, out, ask, tell
        self._host = host or Host()
        self._run = run
        self._open = open_

    def flash(self, path: Path, node: str, *, site: Path, bundle: Path | None, stock: Path | None, yes: bool) -> int:
        """Everything, from judging to reading back. Returns the exit code."""
        now = dt.datetime.fromtimestamp(self._clock.utc().utc_ns / 1e9, tz=dt.UTC)
        kit = read_kit(kit_folder(site, node), node=node, now=now)
        if stock is not None and not path.exists() and path.parent.is_dir() and path.parent != Path("/dev"):
            path.touch()  # a copy of a stock image, for a card that somebody else writes
        target = image.find_target(path, self._host, open_=self._open)
        if stock is not None:
            self._same_file(stock, path)
        self._confirm(target, stock, yes=yes)
        if stock is not None:
            image.write_stock(stock, target, tell=self._tell, open_=self._open)
        layout = image.read_layout(path, open_=self._open)
        boot = Boot(path, layout, run=self._run, open_=self._open)
        generation = generation_of(boot.names())
        files: dict[str, bytes | Path] = {}
        manifest = self._bundle(bundle, path, layout, generation)
        if manifest is not None and bundle is not None:
            files |= {f"{FOLDER}/{name}": bundle / name for name in (*manifest.files, MANIFEST)}
        else:
            files[f"{FOLDER}/{INSTALLER}"] = Path(install.__file__)
        hashes = {name: entry.sha256 for name, entry in manifest.files.items()} if manifest else None
        cmdline = boot.read("cmdline.txt").decode("utf-8", "replace")
        files |= boot_files(kit, generation=generation, cmdline=cmdline, bundle=hashes)
        files["cmdline.txt"] = files.pop("cmdline.txt")  # last: a card cut short before it boots as a stock one
        data = image.add_data_partition(path, run=self._run, open_=self._open)
        boot.write(files, folder=FOLDER, tell=self._tell)
        carried = f"wardpost {manifest.version} for {manifest.arch}" if manifest else "no bundle"
        self._out(f"{target.name}: {node} of {kit.site} for {generation.value}, {carried}; read back and found good")
        if data:
            self._out(f"{data / 1e9:.1f} GB are a partition of their own, for footage.")
        if manifest is None:
            self._out("Without --bundle the first boot installs nothing: the system must have the agent already.")
        self._out(f"The claim ends on {kit.expires:%Y-%m-%d}: until then the post must have been in contact once.")
        return 0

    def _same_file(self, stock: Path, path: Path) -> None:
        try:
            same = stock.samefile(path)
        except OSError as error:
            raise ConfigError(f"{stock}: {error.strerror or error}") from None
        if same:
            raise ConfigError(f"{stock} would be copied onto itself; leave --image out, or name another target")

    def _confirm(self, target: Target, stock: Path | None, *, yes: bool) -> None:
        if yes or (not target.device and (stock is None or target.size == 0)):
            return
        lost = "everything on it is overwritten" if stock is not None else "its boot partition is changed"
        if self._ask is None:
            raise ConfigError(f"{target.name}: {lost}; say --yes if that is meant")
        if self._ask(f"{target.name}: {lost}. Go on? [yes/no] ").strip().lower() != "yes":
            raise ConfigError(f"{target.name} was left as it is")

    def _bundle(self, bundle: Path | None, path: Path, layout: Layout, generation: Generation) -> Manifest | None:
        system = image.read_system(path, layout, run=self._run)
        if system.arch not in {"", "aarch64", "x86_64"}:
            raise ConfigError(f"{path} holds a system for {system.arch}; Wardpost needs the 64-bit Raspberry Pi OS")
        if bundle is None:
            return None
        if system == System():
            self._out(
                "What system is on the card cannot be told (is e2fsprogs installed?); the usual one is taken for it."
            )
        python = system.python or _PYTHON.get(generation)
        return read_bundle(bundle, arch=system.arch or ARCH, python=python)


class Bar:
    """A line on a terminal that tells how far it is; silent elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self._stream.isatty():
            return
        share = f"{100 * done // total:3d} % " if total else ""
        filled = 30 * done // total if total else 0
        bar = f"[{'#' * filled}{'.' * (30 - filled)}] " if total else ""
        text = f"{what:12} {bar}{share}{done >> 20} MiB"
        if text != self._shown:
            self._stream.write(f"\r{text}\x1b[K" + ("\r\x1b[K" if total and done >= total else ""))
            self._stream.flush()
            self._shown = text


def run_flash(path: Path, node: str, *, site: Path, bundle: Path | None, stock: Path | None, yes: bool) -> int:
    """`wardpost flash`, wired to this computer."""
    from agent.clock import SystemClock

    flasher = Flasher(clock=SystemClock(), out=print, ask=input if sys.stdin.isatty() else None, tell=Bar(sys.stderr))
    return flasher.flash(path, node, site=site, bundle=bundle, stock=stock, yes=yes)
