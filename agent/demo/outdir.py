"""The folder in which a demo leaves everything: emptied at each run, and never anybody else's."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from agent.errors import ConfigError

MARKER = ".wardpost-demo"


@contextlib.contextmanager
def own_folder(out: Path) -> Iterator[Path]:
    """`out` as an empty folder, held by a lock. Raises ConfigError rather than delete what no demo has made."""
    out = out.expanduser().absolute()
    marker = out / MARKER
    try:
        if out.exists() and not marker.is_file() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(
                f"demo: {out} holds something else than a demo's output; choose another folder with --out"
            )
        out.mkdir(parents=True, exist_ok=True)
        lock = marker.open("a")
    except OSError as error:
        raise _unusable(out, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"demo: another demo runs in {out}; wait for it, or choose another --out") from None
        try:
            for entry in out.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry != marker:
                    entry.unlink()
        except OSError as error:
            raise _unusable(out, error) from None
        yield out


def _unusable(out: Path, error: OSError) -> ConfigError:
    return ConfigError(f"demo: {out} cannot be used: {error.strerror or error}; choose another folder with --out")
