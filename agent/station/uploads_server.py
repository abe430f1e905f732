"""[uploads] of the station: the address that takes footage, and the clerk behind it, each on a thread of its own.

The address has a port and a certificate of its own: posts come to it from wherever they stand, people's pages do not
have to. Without a certificate in the settings the site's authority makes one, which every post believes already.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from sqlalchemy import Engine

from agent.clock import Clock
from agent.disk import PosixDisk
from agent.errors import ConfigError
from agent.site import authority, founding
from agent.site.folder import open_site
from agent.site.proof import private_key
from agent.station import serving
from agent.station.archive import Archive
from agent.station.uploads import make_app
from agent.station.uploads_access import Access, register_at
from agent.station.uploads_admission import Admission, Daily
from agent.station.uploads_clerk import Clerk
from agent.station.uploads_settings import UploadsSettings, listening
from agent.station.uploads_staging import Limits, Staging
from agent.types import NS

REQUESTS_MAX = 64
"""At once; each holds a chunk in memory. More are answered 503."""
STOP_S_MAX = 10.0
CERT, KEY = "uploads.pem", "uploads.key"

log = logging.getLogger(__name__)


class Uploads:
    """Started once its database is open; `check` tells when one of its threads has died."""

    def __init__(
        self,
        settings: UploadsSettings,
        *,
        clock: Clock,
        site: str,
        data: Path,
        register: Path,
        engine: Engine,
        archive: Archive,
        line_rows_max: int,
    ) -> None:
        """Raises ConfigError for settings that cannot work. Listens to nothing yet."""
        self._settings, self._clock, self._site, self._data, self._register = settings, clock, site, data, register
        self._where = listening(settings)
        staging = Staging(
            PosixDisk(data),
            clock=clock,
            limits=Limits(
                file_bytes_max=settings.file_mb_max * 1_000_000,
                open_per_node_max=settings.open_per_node_max,
                room_bytes_max=round(settings.room_gb_max * 1e9),
                free_bytes_min=round(settings.free_gb_min * 1e9),
                expire_s=settings.expire_h * 3600,
            ),
        )
        self._staging = staging
        self._clerk = Clerk(
            staging=staging, archive=archive, engine=engine, clock=clock, site=site, line_rows_max=line_rows_max
        )
        self._app = make_app(
            access=Access(clock=clock, site=site, known=register_at(register)),
            admission=Admission(
                engine=engine,
                clock=clock,
                daily=Daily(
                    bytes_max=round(settings.gb_per_day_max * 1e9),
                    clip_bytes_max=settings.clips_mb_per_day_max * 1_000_000,
                ),
            ),
            staging=staging,
            kept=self._clerk.kept,
            clock=clock,
            file_bytes_max=settings.file_mb_max * 1_000_000,
        )
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._server: serving.Server | None = None
        self._died = ""

    def start(self) -> None:
        """Listens from now on; does nothing when it does already. Raises ConfigError, Transient, Corrupt."""
        if self._threads:
            return
        self._staging.open()
        listener = _bind(self._where)
        try:
            cert, key = self._certificate() if self._settings.tls else ("", "")
            server = serving.Server(serving.configured(self._app, at_once_max=REQUESTS_MAX, certificate=cert, key=key))
        except BaseException:
            listener.close()
            raise
        self._server = server
        self._threads = [
            threading.Thread(target=self._watched, args=("uploads", lambda: server.run([listener])), daemon=True),
            threading.Thread(target=self._watched, args=("footage clerk", self._work), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        log.info("footage is taken at %s:%d", *self._where)

    def check(self) -> None:
        """Raises RuntimeError when a thread has ended that should not have: systemd starts the station again."""
        if self._died:
            raise RuntimeError(self._died)

    def stop(self) -> None:
        """Ends both threads; a request that is at work has STOP_S_MAX. Never raises."""
        self._stop.set()
        if self._server is not None:
            self._server.should_exit = True
        for thread in self._threads:
            thread.join(STOP_S_MAX)
        self._threads = []

    def _work(self) -> None:
        while not self._stop.is_set():
            self._clock.wait(self._stop, self._clerk.step())

    def _watched(self, name: str, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:
            log.exception("%s has died", name)
            self._died = f"{name}: {type(error).__name__}: {error}"
        else:
            if not self._stop.is_set():
                self._died = f"{name} has ended"

    def _certificate(self) -> tuple[str, str]:
        """Paths of certificate and key: those of the settings, or those that the site's authority makes."""
        settings = self._settings
        if settings.cert or settings.key:
            for path in (settings.cert, settings.key):
                if not Path(path).is_file():
                    raise ConfigError(f"uploads.cert, uploads.key: {path!r} is not a file; give both, or none")
            return settings.cert, settings.key
        return own_certificate(self._data, self._register, site=self._site, hosts=settings.hosts, clock=self._clock)


def own_certificate(data: Path, folder: Path, *, site: str, hosts: tuple[str, ...], clock: Clock) -> tuple[str, str]:
    """Paths of a certificate for `hosts` by the site's authority; made when there is none that fits and lasts.

    Raises ConfigError, Corrupt, Transient.
    """
    if not hosts:
        raise ConfigError('uploads.hosts: none; write how posts reach this station: hosts = ["hq.example"]')
    disk, ca, now_ns = PosixDisk(data), founding.load_authority(open_site(folder)), clock.utc().utc_ns
    if not _lasts(data, ca, hosts, now_ns):
        key = authority.new_key()
        made = authority.issue_broker(ca, site, hosts, key.public_key(), now_ns=now_ns)
        disk.replace(KEY, authority.key_pem(key), private=True)
        disk.replace(CERT, authority.certificate_pem(made))
        register = founding.open_register(open_site(folder))
        try:
            register.noted("issued uploads", "", f"{', '.join(hosts)}, serial {made.serial_number:x}", now_ns)
        finally:
            register.close()
    return str(data / CERT), str(data / KEY)


def _lasts(data: Path, ca: authority.Authority, hosts: tuple[str, ...], now_ns: int) -> bool:
    """Whether the pair that lies there belongs together, is by this authority for these hosts, and lasts."""
    try:
        cert = x509.load_pem_x509_certificate((data / CERT).read_bytes())
        key = private_key((data / KEY).read_bytes())
        cert.verify_directly_issued_by(ca.certificate)
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # noqa: BLE001  (whatever is wrong with it: another one is made)
        return False
    there = {str(one.value) for one in names}
    begun = int(cert.not_valid_before_utc.timestamp()) * NS
    ends = int(cert.not_valid_after_utc.timestamp()) * NS
    fits = key is not None and key.public_key() == cert.public_key() and there == set(hosts)
    return fits and not authority.renewal_due(begun, ends, now_ns)


def _bind(where: tuple[str, int]) -> socket.socket:
    try:
        return serving.listener(*where)
    except OSError as error:
        raise ConfigError(f"uploads.listen: cannot listen at {where[0]}:{where[1]}: {error.strerror}") from None
