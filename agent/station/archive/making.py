"""[archive] of the station's settings, and the archive that they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from agent.config import Settings
from agent.disk import PosixDisk
from agent.errors import ConfigError
from agent.station.archive import Archive
from agent.station.archive.local import LocalArchive
from agent.station.archive_retention import GB, Policy


class ArchiveSettings(Settings, frozen=True):
    """[archive]: where footage that came from posts is kept."""

    place: str = ""  # a folder, or s3://bucket/prefix; empty: archive/ in station.data
    free_gb_min: Annotated[float, Meta(ge=0, le=100_000)] = 5.0  # of a folder's disk, left free
    retention_days: Annotated[float, Meta(ge=0, le=36_500)] = 0.0  # after so long here footage goes; 0: never
    gb_max: Annotated[float, Meta(ge=0, le=10_000_000)] = 0.0  # the oldest goes before there is more; 0: no bound
    trust_clock: bool = False  # footage goes by its age also while nobody vouches for this machine's clock
    endpoint: str = ""  # of an object store: https://host:port
    region: str = "us-east-1"
    key_id: str = ""
    secret_file: str = ""  # its first line is the secret of `key_id`

    @property
    def policy(self) -> Policy:
        """What goes by itself."""
        return Policy(days=self.retention_days, bytes_max=round(self.gb_max * GB), trust_clock=self.trust_clock)


def make_archive(settings: ArchiveSettings, data: Path, *, writer: str = "") -> Archive:
    """Opens nothing but the folder. `data`: the station's folder, which exists; `writer`: see LocalArchive.

    Raises ConfigError.
    """
    if settings.place.startswith("s3://"):
        return _object_store(settings)
    if not settings.place:
        folder = data / "archive"
        folder.mkdir(exist_ok=True)
    else:
        folder = Path(settings.place)
        if not folder.is_dir():
            raise ConfigError(f"archive.place: {folder} is not a folder; make it, or mount the disk")
    return LocalArchive(PosixDisk(folder), free_bytes_min=round(settings.free_gb_min * 1e9), writer=writer)


def _object_store(settings: ArchiveSettings) -> Archive:
    from agent.station.archive.s3 import Bucket, S3Archive

    place, endpoint = urlsplit(settings.place), urlsplit(settings.endpoint)
    if not place.netloc:
        raise ConfigError(f"archive.place: {settings.place!r}: write s3://bucket/prefix")
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname:
        raise ConfigError(f"archive.endpoint: {settings.endpoint!r}: write https://host:port of the object store")
    if endpoint.scheme == "http" and endpoint.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(f"archive.endpoint: {settings.endpoint}: in clear only on this machine; write https://")
    try:
        secret = Path(settings.secret_file).read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise ConfigError(f"archive.secret_file: {settings.secret_file!r}: not readable ({error})") from None
    return S3Archive(
        Bucket(
            endpoint=settings.endpoint.rstrip("/"),
            bucket=place.netloc,
            prefix=place.path.strip("/"),
            region=settings.region,
            key_id=settings.key_id,
            secret=secret,
        )
    )
