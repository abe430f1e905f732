"""Standard Webhooks 1.0 (the specification of that name): one signed POST for each notice.

    webhook-id         names the notice and this destination; at every attempt the same, so that it can be told again
    webhook-timestamp  seconds since 1970, of this attempt
    webhook-signature  v1,<base64 of HMAC-SHA256(secret, "id.timestamp.body")>, one for each secret

Where it goes stands in the settings alone. No redirect is followed, and of the answer only its first line is read: a
destination can neither send the station elsewhere nor fill its memory, and an attempt ends in time whatever it does.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import re
import socket
import ssl
from collections.abc import Sequence

import msgspec

from agent.clock import Clock
from agent.errors import ConfigError
from agent.station.outward.notice import Notice
from agent.station.outward.retry import DELIVERED, Outcome
from agent.station.outward.settings import Url, WebhookSettings, check_url, read_secret_lines
from agent.types import NS

PREFIX = "whsec_"
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
SECRETS_MAX = 2
ANSWER_BYTES_MAX = 8192
"""Of an answer's head; its body is never read."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_REFUSED = (400, 404, 405, 410, 413, 415, 422)
"""Who answers so has understood, and does not want this."""


def read_secrets(settings: WebhookSettings) -> list[bytes]:
    """Raises ConfigError that says nothing of what was read."""
    where = f"outward.webhook: {settings.name}: secret_file"
    lines = read_secret_lines(where, settings.secret_file)
    if len(lines) > SECRETS_MAX:
        raise ConfigError(f"{where}: {len(lines)} lines; one secret, or two while one is being replaced")
    return [_secret(where, line) for line in lines]


def _secret(where: str, line: str) -> bytes:
    try:
        secret = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not line.startswith(PREFIX) or not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise ConfigError(
            f"{where}: not {PREFIX} and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64; make one:"
            f' echo "{PREFIX}$(openssl rand -base64 32)"'
        )
    return secret


def headers(key: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """What a receiver verifies. Pure."""
    signed = b".".join([key.encode(), str(timestamp).encode(), body])
    made = [base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets]
    return {
        "webhook-id": key,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{one}" for one in made),
        "content-type": "application/json",
        "user-agent": "wardpost",
    }


class Webhook:
    """A Sender. Its secret is read at each attempt, so that it may be replaced in place."""

    def __init__(self, settings: WebhookSettings, *, clock: Clock) -> None:
        """Raises ConfigError: the URL, the secret, the certificates."""
        self._settings = settings
        self._clock = clock
        self._url = check_url(settings.name, settings.url)
        self._context = _context(settings) if self._url.secure else None
        read_secrets(settings)

    def __call__(self, told: Notice, key: str) -> Outcome:
        try:
            secrets = read_secrets(self._settings)
        except ConfigError as error:
            return Outcome("later", str(error))
        body = msgspec.json.encode(told.as_dict())
        try:
            status = self._post(body, headers(key, self._clock.utc().utc_ns // NS, body, secrets))
        except ssl.SSLCertVerificationError as error:
            return Outcome("later", f"its certificate is not believed: {error.verify_message}")
        except TimeoutError:
            return Outcome("later", f"no answer within {self._settings.timeout_s:g} s")
        except (OSError, http.client.HTTPException) as error:
            return Outcome("later", f"no connection: {getattr(error, 'strerror', None) or type(error).__name__}")
        if 200 <= status < 300:
            return DELIVERED
        return Outcome("refused" if status in _REFUSED else "later", f"it answers {status}" if status else _NO_HTTP)

    def _post(self, body: bytes, fields: dict[str, str]) -> int:
        """The status of the answer; 0 for what is no answer of HTTP/1. Raises OSError, HTTPException."""
        end_ns = self._clock.boot_ns() + int(self._settings.timeout_s * NS)
        connection = _Connection(self._url, context=self._context, timeout_s=self._settings.timeout_s)
        try:
            connection.connect()
            connection.putrequest("POST", self._url.target, skip_host=True, skip_accept_encoding=True)
            connection.putheader("host", self._url.authority)
            for name, value in {**fields, "content-length": str(len(body)), "connection": "close"}.items():
                connection.putheader(name, value)
            connection.sock.settimeout(self._left_s(end_ns))
            connection.endheaders(body)
            return self._status(connection.sock, end_ns)
        finally:
            connection.close()

    def _status(self, sock: socket.socket, end_ns: int) -> int:
        head = b""
        while len(head) < ANSWER_BYTES_MAX:
            found = _STATUS.match(head)
            if found and int(found[1]) >= 200:
                return int(found[1])
            if found and b"\r\n\r\n" in head:  # 100 Continue and its kind: the answer comes behind it
                head = head.partition(b"\r\n\r\n")[2]
                continue
            sock.settimeout(self._left_s(end_ns))
            got = sock.recv(1024)
            if not got:
                return 0
            head += got
        return 0

    def _left_s(self, end_ns: int) -> float:
        left = (end_ns - self._clock.boot_ns()) / NS
        if left <= 0:
            raise TimeoutError
        return left


_NO_HTTP = "it does not answer in HTTP"


class _Connection(http.client.HTTPConnection):
    """One request; TLS where the URL says so."""

    def __init__(self, url: Url, *, context: ssl.SSLContext | None, timeout_s: float) -> None:
        super().__init__(url.host, url.port, timeout=timeout_s)
        self._context = context

    def connect(self) -> None:
        super().connect()
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)


def _context(settings: WebhookSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"outward.webhook: {settings.name}: ca: {settings.ca}: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
