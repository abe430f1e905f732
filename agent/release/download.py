"""A bundle onto the card: over HTTPS, resumed where it broke off, or from a stick. Bounded in bytes, time and attempts.

What arrives is not believed: only its size is held to what was announced here, and its hash before it is opened. So the
address may be anybody's, and a proxy that lies costs a download, never a release.
"""

from __future__ import annotations

import hashlib
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from agent.disk import Disk, DurableFile
from agent.errors import Corrupt, Transient

CHUNK_BYTES = 256 * 1024
SYNC_BYTES = 4 << 20
READ_S_MAX = 20.0
ATTEMPTS_MAX = 50
PAUSE_S_MAX = 300.0


class Source(Protocol):
    """Where bytes come from."""

    def open(self, url: str, offset: int) -> BinaryIO:
        """The content from `offset` on; reading blocks for READ_S_MAX at most. Raises OSError or Corrupt."""


class Https:
    """A Source by HTTPS. `context`: which authorities are believed; the system's when none is given."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context

    def open(self, url: str, offset: int) -> BinaryIO:
        if not url.startswith("https://"):
            raise Corrupt(f"update: {url[:120]!r} is no https:// address")
        asked = urllib.request.Request(url, headers={"Range": f"bytes={offset}-", "Accept-Encoding": "identity"})  # noqa: S310  (https alone)
        try:
            answer: BinaryIO = self._opener().open(asked, timeout=READ_S_MAX)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (400, 401, 403, 404, 410):
                    raise Corrupt(f"update: {url[:120]} answers {error.code} {error.reason}") from None
                raise OSError(f"answers {error.code} {error.reason}") from None
        except (ValueError, http.client.HTTPException) as error:
            raise OSError(str(error)) from None
        if offset and getattr(answer, "status", 0) != 206:  # a server without ranges begins again
            left = offset
            while left:
                skipped = len(answer.read(min(CHUNK_BYTES, left)))
                if not skipped:
                    raise OSError("ended before what is here already")
                left -= skipped
        return answer

    def _opener(self) -> urllib.request.OpenerDirector:
        """Made when it is used: the system's list of authorities takes memory, and most days nothing is fetched."""
        context = self._context or ssl.create_default_context()
        return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _SameScheme())


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows to https:// only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise Corrupt(f"update: sent on to {newurl[:120]!r}, which is no https:// address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Stick:
    """A Source by path: a mounted USB stick."""

    def open(self, url: str, offset: int) -> BinaryIO:
        try:
            file = Path(url).open("rb")  # noqa: SIM115  (the caller closes it)
        except FileNotFoundError:
            raise Corrupt(f"update: {url[:200]} is not there; is the stick mounted?") from None
        file.seek(offset)
        return file


def fetch(source: Source, url: str, *, disk: Disk, name: str, size: int, sha256: str) -> Iterator[float]:
    """Brings `size` bytes into the file `name` of the data folder; goes on with what lies there. Blocks for READ_S_MAX
    at most between two values; each is how many seconds to wait before the next. At its end the file has this hash.

    Raises Corrupt when it is not what was announced (nothing is left then), Transient when it cannot be had, or the
    disk refuses.
    """
    for attempt in range(ATTEMPTS_MAX):
        have = _size(disk, name)
        if have < size:
            try:
                yield from _attempt(source, url, disk=disk, name=name, have=have, size=size)
            except (OSError, http.client.HTTPException) as error:
                problem = error
            else:
                problem = OSError("ended early")
            if _size(disk, name) < size:
                if attempt + 1 == ATTEMPTS_MAX:
                    raise Transient(f"update: {url[:120]}: {problem}; given up after {ATTEMPTS_MAX} attempts")
                yield min(2.0**attempt, PAUSE_S_MAX)
                continue
        digest = hashlib.sha256()
        with disk.open(name) as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                yield 0.0
        if _size(disk, name) == size and digest.hexdigest() == sha256:
            return
        disk.unlink(name)
        raise Corrupt(f"update: {url[:120]} is not the file that was announced (SHA-256 {digest.hexdigest()[:16]}...)")


def _attempt(source: Source, url: str, *, disk: Disk, name: str, have: int, size: int) -> Iterator[float]:
    out = disk.append(name) if have else _fresh(disk, name)
    try:
        unsynced = 0
        with source.open(url, have) as answer:
            while have < size:
                chunk = answer.read(min(CHUNK_BYTES, size - have))
                if not chunk:
                    break
                out.write(chunk)
                have += len(chunk)
                unsynced += len(chunk)
                if unsynced >= SYNC_BYTES:
                    out.sync()
                    unsynced = 0
                yield 0.0
            if have == size and answer.read(1):
                raise Corrupt(f"update: {url[:120]} is longer than the {size} bytes that were announced")
        out.sync()
    finally:
        out.close()


def _fresh(disk: Disk, name: str) -> DurableFile:
    disk.unlink(name)
    return disk.create(name)


def _size(disk: Disk, name: str) -> int:
    try:
        return disk.size(name)
    except FileNotFoundError:
        return 0
