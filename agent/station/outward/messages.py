"""A contact: e-mail or a messenger, by apprise. Its URL may hold passwords: it comes from a file, never into a log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from agent.errors import ConfigError
from agent.station.outward.notice import Notice, headline, text
from agent.station.outward.retry import DELIVERED, Outcome
from agent.station.outward.settings import ContactSettings, read_secret_lines

SERVICE_S_MAX = 30.0
"""Of one attempt, all in all."""
BODY_BYTES_MAX = 16 * 1024


class Contact:
    """A Sender. Its URL is read at each attempt, so that it may be replaced in place."""

    def __init__(self, settings: ContactSettings) -> None:
        """Raises ConfigError: the file, the URL, apprise not installed."""
        self._settings = settings
        self._where = f"outward.contact: {settings.name}: url_file"
        self._make()

    def __call__(self, told: Notice, key: str) -> Outcome:
        """Apprise says only whether it worked; why not is in its log, which may hold the URL and is shut."""
        try:
            service = self._make()
        except ConfigError as error:
            return Outcome("later", str(error))
        body = f"{text(told)}\n({key})"
        done = service.notify(title=headline(told), body=body, body_format="text", notify_type="warning")
        return DELIVERED if done else Outcome("later", "it could not be delivered; try its URL with `apprise -vv`")

    def _make(self) -> Any:
        try:
            from apprise import Apprise, AppriseAsset
        except ImportError:
            raise ConfigError("outward.contact: apprise is missing: pip install 'wardpost[messages]'") from None
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
        url = read_secret_lines(self._where, self._settings.url_file)[0]
        if not service.add(url) or len(service) != 1:
            raise ConfigError(f"{self._where}: {self._settings.url_file}: its first line is no URL that apprise knows")
        return service


def _shut_log(logger: Callable[[str], logging.Logger]) -> None:
    """Apprise logs URLs, at debug with everything in them, and addresses of people at any level."""
    logger("apprise").setLevel(logging.CRITICAL + 1)
