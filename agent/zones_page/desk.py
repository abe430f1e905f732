"""What the page may do: read the file's shapes and the picture, have shapes checked, have them written."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.clock import Clock
from agent.config import Config, load
from agent.disk import sync_folder
from agent.errors import ConfigError, Transient
from agent.zones_page.edit import edited, valued
from agent.zones_page.shapes import Complaint, Shape, complaints, kinds, read, tidy, wanted

FILE_BYTES_MAX = 1 << 20


class Outdated(ConfigError):  # noqa: N818
    """Somebody else has changed the file since it was read."""


class Wrong(ConfigError):  # noqa: N818
    """The shapes cannot be written as they are."""

    def __init__(self, found: list[Complaint]) -> None:
        super().__init__("; ".join(one.text for one in found if one.blocks))
        self.complaints = found


class Desk:
    """One configuration file and one picture. Any thread; writing is done by one at a time."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        picture: Callable[[], bytes],
        live: bool,
        put: Callable[[bytes], None] | None = None,
    ) -> None:
        """`picture` gives a JPEG and may block for seconds; `live`: another call may give a newer one.

        `put` takes the new text instead of the file, and has the node start again with it; it raises WardpostError.
        Raises ConfigError when the file is not a valid configuration.
        """
        load(path, Config)
        self._path = path.resolve()  # a link keeps being one: what it points to is replaced
        self._clock, self._take, self._live, self._put = clock, picture, live, put
        self._lock = threading.Lock()
        self._picture: bytes | None = None
        self._given = ""  # the text that `put` has taken
        read(tomllib.loads(self._text()))

    def state(self) -> dict[str, Any]:
        """What the page shows: kinds, shapes, the file's digest."""
        text = self._text()
        return {
            "file": str(self._path),
            "digest": _digest(text),
            "live": self._live,
            "kinds": [
                {
                    "id": kind.id,
                    "title": kind.title,
                    "does": kind.does,
                    "named": kind.named,
                    "closed": kind.closed,
                    "min": kind.points_min,
                    "max": kind.points_max,
                }
                for kind in kinds()
            ],
            "shapes": [msgspec.to_builtins(shape) for shape in read(tomllib.loads(text))],
        }

    def picture(self, *, new: bool = False) -> bytes:
        """JPEG. Raises WardpostError when there is none to be had."""
        with self._lock:
            if self._picture is None or (new and self._live):
                self._picture = self._take()
            return self._picture

    def check(self, shapes: Sequence[Shape]) -> list[Complaint]:
        """What would be said to these shapes. Raises ConfigError for what no page sends."""
        tables = tomllib.loads(self._text())
        tidied = tidy(shapes)
        return complaints(tables, wanted(tables, tidied), tidied, self._clock)

    def save(self, shapes: Sequence[Shape], *, digest: str) -> str:
        """Writes them, durably and whole or not at all; returns what was done in words.

        Raises Outdated, Wrong, ConfigError, Transient (the disk); the file is then as it was.
        """
        with self._lock:
            text = self._text()
            if _digest(text) != digest:
                raise Outdated(f"{self._path} was changed by somebody else meanwhile; load the page again")
            tables = tomllib.loads(text)
            tidied = tidy(shapes)
            found = complaints(tables, wanted(tables, tidied), tidied, self._clock)
            if any(one.blocks for one in found):
                raise Wrong(found)
            result = edited(text, tidied)
            if result == text:
                return f"{self._path}: nothing to change"
            if self._put is not None:
                self._put(result.encode())
                self._given = result
            else:
                replace(self._path, result.encode())
        count = len(tidied)
        told = f"written, {count} shape{'' if count == 1 else 's'}"
        if self._put is not None:
            return f"{told}; the post starts again with them within a minute"
        return f"{self._path}: {told}; they apply when the node starts again"

    def mask(self, polygon: Sequence[tuple[float, float]]) -> str:
        """Adds an ignore mask. Returns and raises as `save`."""
        text = self._text()
        drawn = [*read(tomllib.loads(text)), Shape(kind="ignore", points=list(polygon))]
        return self.save(drawn, digest=_digest(text))

    def threshold(self, score_min: float) -> str:
        """Sets `vision.score_min`, durably and whole or not at all. Raises ConfigError, Transient."""
        with self._lock:
            text = self._text()
            result = valued(text, "vision", "score_min", score_min)
            found = complaints(tomllib.loads(text), tomllib.loads(result), [], self._clock)
            if any(one.blocks for one in found):
                raise Wrong(found)
            replace(self._path, result.encode())
        return f"{self._path}: written, vision.score_min = {score_min:g}; it applies when the node starts again"

    def _text(self) -> str:
        if self._given:
            return self._given
        try:
            with self._path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
            if len(data) > FILE_BYTES_MAX:
                raise ConfigError(f"{self._path}: longer than 1 MiB; not a configuration")
            text = data.decode()
            tomllib.loads(text)
        except (OSError, ValueError) as error:  # not UTF-8, not TOML, an integer without end
            raise ConfigError(f"{self._path}: cannot be read any more: {error}") from None
        return text


def replace(path: Path, data: bytes) -> None:
    """`path` gets this content, durably, with owner and mode as before; a power cut leaves the old or the new.

    Raises Transient; the file is then as it was.
    """
    fd, temporary = -1, ""
    try:
        before = path.stat()
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(fd, before.st_uid, before.st_gid)
        os.fchmod(fd, before.st_mode & 0o7777)
        with os.fdopen(fd, "wb") as file:
            fd = -1
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = ""
        sync_folder(path.parent)
    except OSError as error:
        raise Transient(
            f"{path}: cannot be written: {error.strerror or error}; run this command as the file's owner"
        ) from None
    finally:
        if fd >= 0:
            os.close(fd)
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
