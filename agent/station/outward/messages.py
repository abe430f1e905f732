"""A contact: e-mail or a messenger, by apprise. Its URL may hold passwords: it comes from a file, never into a log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from agent.errors import ConfigError
from agent.station.outward.notice import Notice, headline, text
from agent.station.outward.retry import DELIVERED, Outcome
from agent.station.outward.school_address import url_of, wrong
from agent.station.outward.settings import ContactSettings, SchoolSettings, read_secret_lines

SERVICE_S_MAX = 30.0
"""Of one attempt, all in all."""
BODY_BYTES_MAX = 16 * 1024


class Contact:
    """A Sender. Its URL is read at each attempt, so that it may be replaced in place."""

    def __init__(self, settings: ContactSettings) -> None:
        """Raises ConfigError: the file, the URL, apprise not installed."""
        self._settings = settings
        self._where = f"outward.contact: {settings.name}: url_file"
        self._service()

    def __call__(self, told: Notice, key: str) -> Outcome:
        """Apprise says only whether it worked; why not is in its log, which may hold the URL and is shut."""
        try:
            service = self._service()
        except ConfigError as error:
            return Outcome("later", str(error))
        return _send(service, told, key, "try its URL with `apprise -vv`")

    def _service(self) -> Any:
        file = self._settings.url_file
        return _apprise(read_secret_lines(self._where, file)[0], f"{self._where}: {file}: its first line")


class ToSchool:
    """A Sender: to a contact that people at the desk have set."""

    def __init__(self, settings: SchoolSettings, *, how: str, address: str) -> None:
        """Is not looked at before it is used: what the settings allowed yesterday may be refused today."""
        self._settings = settings
        self._how = how
        self._address = address

    def __call__(self, told: Notice, key: str) -> Outcome:
        """Says nothing of the address when it fails."""
        try:
            mail_url = read_mail_url(self._settings)
            if wrong(self._how, self._address, hosts=self._settings.hosts, mail=bool(mail_url)):
                return Outcome("later", "[outward.schools] does not allow its address any more")
            service = _apprise(url_of(self._how, self._address, mail_url=mail_url), "a school's contact: its address")
        except ConfigError as error:
            return Outcome("later", str(error))
        return _send(service, told, key, "see whether its address is still right")


def read_mail_url(settings: SchoolSettings) -> str:
    """Of the account by which schools' contacts get mail; empty: there is none. Raises ConfigError; no URL is in it."""
    if not settings.mail_url_file:
        return ""
    what = "outward.schools: mail_url_file"
    url = read_secret_lines(what, settings.mail_url_file)[0]
    options = {name.lower() for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True)}
    if not url.startswith(("mailto://", "mailtos://")) or options & {"to", "cc", "bcc"}:
        raise ConfigError(f"{what}: {settings.mail_url_file}: its first line is no mailto(s):// without recipients")
    _apprise(url, f"{what}: {settings.mail_url_file}: its first line")
    return url


def _send(service: Any, told: Notice, key: str, hint: str) -> Outcome:
    body = f"{text(told)}\n({key})"
    done = service.notify(title=headline(told), body=body, body_format="text", notify_type="warning")
    return DELIVERED if done else Outcome("later", f"it could not be delivered; {hint}")


def _apprise(url: str, what: str) -> Any:
    """Raises ConfigError, in which `what` stands instead of the URL."""
    try:
        from apprise import Apprise, AppriseAsset
    except ImportError:
        raise ConfigError("outward: apprise is missing: pip install 'wardpost[messages]'") from None
    _shut_log(logging.getLogger)
    asset = AppriseAsset(
        async_mode=False,
        storage_mode="memory",
        http_redirects=False,
        service_timeout=SERVICE_S_MAX,
        payload_max_size=BODY_BYTES_MAX,
        allow_templates=False,
        app_id="Wardpost",
        app_desc="Wardpost",
        app_url="",
    )
    service = Apprise(asset=asset)
    if not service.add(url) or len(service) != 1:
        raise ConfigError(f"{what} is no URL that apprise knows")
    return service


def _shut_log(logger: Callable[[str], logging.Logger]) -> None:
    """Apprise logs URLs, at debug with everything in them, and addresses of people at any level; what it sends by logs
    paths, and a path may be a key (Telegram's is).
    """
    for name in ("apprise", "urllib3"):
        logger(name).setLevel(logging.CRITICAL + 1)
