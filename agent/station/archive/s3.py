"""An archive in an S3-compatible object store: <prefix>/<node>/<sha256>.mp4, large files in parts.

An object appears whole when its last part is completed, and a part that is cut leaves no object. What the store has is
compared by size only: the bytes were hashed here before they went, and the connection is the store's own TLS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from agent.errors import Corrupt, Transient
from agent.station.archive import CHUNK_BYTES, checked

PART_BYTES = 8 << 20
PARTS_AT_ONCE = 2
CONNECT_S_MAX = 5
REQUEST_S_MAX = 60
RETRIES_MAX = 2
RETRY_S_MAX = 20


@dataclass(frozen=True, slots=True, repr=False)
class Bucket:
    """Where, and as whom. Its text form shows no secret."""

    endpoint: str  # http(s)://host:port
    bucket: str
    prefix: str
    region: str
    key_id: str
    secret: str

    def __repr__(self) -> str:
        return f"Bucket({self.endpoint}/{self.bucket}/{self.prefix})"


class S3Archive:
    """`agent.station.archive.Archive`. Asks nothing of the store before it is used."""

    def __init__(self, where: Bucket) -> None:
        self._where = where
        self._store = S3Store(
            where.bucket,
            prefix=where.prefix or None,
            endpoint=where.endpoint,
            region=where.region,
            access_key_id=where.key_id,
            secret_access_key=where.secret,
            virtual_hosted_style_request=False,
            client_options={
                "allow_http": where.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_S_MAX),
                "timeout": timedelta(seconds=REQUEST_S_MAX),
            },
            retry_config={"max_retries": RETRIES_MAX, "retry_timeout": timedelta(seconds=RETRY_S_MAX)},
        )

    def put(self, name: str, source: BinaryIO, *, size: int, sha256: str) -> None:
        if self.size(name) == size:
            return
        _compare(source, name, size, sha256)
        with self._plain(f"keep {name}"):
            source.seek(0)
            obstore.put(
                self._store,
                name,
                source,
                use_multipart=size > PART_BYTES,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
        there = self.size(name)
        if there != size:
            raise Transient(f"archive: {self._where.endpoint} has {there} bytes of {name}, and {size} were sent")

    def size(self, name: str) -> int | None:
        checked(name)
        with self._plain(f"look for {name}"):
            try:
                return obstore.head(self._store, name)["size"]
            except FileNotFoundError:
                return None

    def read(self, name: str, offset: int, count: int) -> bytes:
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(name)
        count = min(count, size - offset)
        if count <= 0:
            return b""
        with self._plain(f"read {name}"):
            return bytes(obstore.get_range(self._store, name, start=offset, length=count))

    def remove(self, name: str) -> None:
        checked(name)
        with self._plain(f"remove {name}"), suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    @contextmanager
    def _plain(self, what: str) -> Iterator[None]:
        """Turns the store's errors into ours, on one line: its own go over a screen."""
        try:
            yield
        except (BaseError, OSError) as error:
            said = " ".join(str(error).split())[:200]
            raise Transient(f"archive: {self._where.endpoint}: cannot {what}: {said}; is the store up?") from None


def _compare(source: BinaryIO, name: str, size: int, sha256: str) -> None:
    """Raises Corrupt when the bytes are not those."""
    digest, left = hashlib.sha256(), size
    source.seek(0)
    while left > 0 and (data := source.read(min(CHUNK_BYTES, left))):
        digest.update(data)
        left -= len(data)
    if left or digest.hexdigest() != sha256:
        raise Corrupt(f"archive: {name}: not the {size} bytes with SHA-256 {sha256[:16]}... that were to be kept")
