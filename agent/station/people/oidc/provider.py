"""The provider, as its issuer's address leads to it: each answer bounded, typed, and believed for what it is."""

from __future__ import annotations

import base64
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import quote_plus, urlencode

import msgspec

from agent.clock import Clock
from agent.errors import ConfigError, Corrupt, Transient
from agent.station.people.oidc.claims import Claims
from agent.station.people.oidc.flow import Flow
from agent.station.people.oidc.http import fetch
from agent.station.people.oidc.settings import Address, OidcSettings, discovery_of, parse_url, read_secret
from agent.station.people.oidc.token import read_keys, read_token
from agent.types import NS

BYTES_MAX = 256 * 1024
"""Of one answer."""
ADDRESSES_S = 600.0
"""So long the provider's addresses are remembered; its keys are asked for at each login."""
AT_ONCE_MAX = 4
"""Logins that wait for the provider; one more is told that it is busy: the others' threads are not its own."""
SCOPE = "openid email"
CODE_CHARS_MAX = 2000
T = TypeVar("T")
_ERROR = re.compile(r"[a-z_]{1,40}")


class Told(msgspec.Struct, frozen=True):
    """What of its metadata is used (OpenID Connect Discovery 1.0, 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False  # RFC 9207


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str


class _Refusal(msgspec.Struct, frozen=True):
    error: str


class Provider:
    """Any thread. Raises Transient (not now), Corrupt (its answer is none), ConfigError (the secret's file)."""

    def __init__(self, settings: OidcSettings, *, back: str, clock: Clock) -> None:
        """`back`: where it sends browsers to. Asks nobody yet. Raises ConfigError."""
        self.settings = settings
        self._at, self._back, self._clock = discovery_of(settings), back, clock
        self._context = _context(settings)
        self._room = threading.BoundedSemaphore(AT_ONCE_MAX)
        self._told: tuple[Told, int] | None = None

    def login_url(self, flow: Flow) -> str:
        """Where the browser is sent. It shall ask who is there, also where somebody is logged in: desks are shared."""
        with self._place():
            told = self._addresses()
        asked = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self._back,
            "scope": SCOPE,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": flow.challenge,
            "code_challenge_method": "S256",
            "prompt": "login",
        }
        url = told.authorization_endpoint
        return f"{url}{'&' if '?' in url else '?'}{urlencode(asked)}"

    def claims(self, flow: Flow, code: str, issuer: str) -> Claims:
        """Whom it vouches for. `issuer`: what the browser brought as `iss` (RFC 9207); empty: nothing."""
        if not code or len(code) > CODE_CHARS_MAX:
            raise Corrupt("there is no code, or too long a one")
        with self._place():
            told = self._addresses()
            if (issuer or told.authorization_response_iss_parameter_supported) and issuer != told.issuer:
                raise Corrupt("the answer is another provider's")
            token = self._token(told, flow, code)
            keys = read_keys(self._get(self._endpoint(told.jwks_uri)))
        return read_token(
            token,
            keys=keys,
            issuer=self.settings.issuer,
            client=self.settings.client_id,
            nonce=flow.nonce,
            now_s=self._clock.utc().utc_ns // NS,
        )

    def _addresses(self) -> Told:
        known, now = self._told, self._clock.boot_ns()
        if known is not None and now - known[1] < ADDRESSES_S * NS:
            return known[0]
        told = _decoded(self._get(self._at), Told, "its metadata")
        if told.issuer != self.settings.issuer:
            raise Corrupt(f"it calls itself {told.issuer[:200]!r}, and web.oidc.issuer is {self.settings.issuer!r}")
        for url in (told.authorization_endpoint, told.token_endpoint, told.jwks_uri):
            self._endpoint(url)
        self._told = (told, now)
        return told

    def _token(self, told: Told, flow: Flow, code: str) -> str:
        client, secret = self.settings.client_id, read_secret(self.settings)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._back,
            "code_verifier": flow.verifier,
        }
        authorization = ""
        if not secret:
            form["client_id"] = client
        elif "client_secret_basic" in told.token_endpoint_auth_methods_supported:
            both = f"{quote_plus(client)}:{quote_plus(secret)}"  # RFC 6749, 2.3.1
            authorization = "Basic " + base64.b64encode(both.encode()).decode()
        else:
            form |= {"client_id": client, "client_secret": secret}
        answer = fetch(
            self._endpoint(told.token_endpoint),
            context=self._context,
            within_s=self.settings.timeout_s,
            bytes_max=BYTES_MAX,
            form=form,
            authorization=authorization,
        )
        if answer.status in (400, 401):
            error = _decoded(answer.body, _Refusal, "its refusal").error
            raise Corrupt(f"it refuses the code: {error if _ERROR.fullmatch(error) else 'and does not say why'}")
        if answer.status != 200:
            raise Transient(f"{self._at.host} answers {answer.status}")
        return _decoded(answer.body, _Tokens, "its token").id_token

    def _get(self, at: Address) -> bytes:
        answer = fetch(at, context=self._context, within_s=self.settings.timeout_s, bytes_max=BYTES_MAX)
        if answer.status != 200:
            raise Transient(f"{self._at.host} answers {answer.status}")
        return answer.body

    def _endpoint(self, url: str) -> Address:
        try:
            found = parse_url(url)
        except ValueError as error:
            raise Corrupt(f"one of its addresses cannot be used: {error}") from None
        if self._at.secure and not found.secure:
            raise Corrupt("one of its addresses is on this machine: a provider elsewhere has no business there")
        return found

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._room.acquire(blocking=False):
            raise Transient(f"{AT_ONCE_MAX} logins wait for it already")
        try:
            yield
        finally:
            self._room.release()


def _decoded(body: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Corrupt(f"{what} cannot be read") from None


def _context(settings: OidcSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"web.oidc.ca: {settings.ca} cannot be used: {error.strerror or error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
