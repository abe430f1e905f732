"""An OpenID Connect provider on loopback that keeps codes and states, checks what a real one checks, and can be hostile.

tests/system/test_oidc.py runs the same logins against a real one.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey

from agent.clock import Clock
from agent.types import NS

CLIENT, SECRET = "wardpost-desk", "s3cret+/="
ES256 = {"alg": "ES256", "kid": "one"}


@dataclass
class Code:
    """What a code stands for."""

    asked: dict[str, str]
    claims: dict[str, Any]
    used: bool = False


@dataclass
class FakeProvider:
    """Stop it by `close`. What is set on it holds from then on."""

    clock: Clock
    claims: dict[str, Any] = field(default_factory=dict)  # beside or instead of the right ones; None: without it
    metadata: dict[str, Any] = field(default_factory=dict)  # the same
    header: dict[str, Any] = field(default_factory=lambda: dict(ES256))
    sign: Callable[[dict[str, Any], dict[str, Any]], str] | None = None  # header, claims -> the token
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # by path, whatever was asked
    stalls: set[str] = field(default_factory=set)  # paths that never come to an end
    asked: list[str] = field(default_factory=list)  # paths

    def __post_init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "one", "use": "sig", "alg": "ES256"})
        self.keys: list[dict[str, Any]] = [dict(self.key.as_dict(private=False))]
        self.codes: dict[str, Code] = {}
        self.released = threading.Event()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner._answer(self, {}, "")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                owner._answer(self, dict(parse_qsl(body)), self.headers.get("authorization", ""))

            def log_message(self, *_args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # -- what people do there -----------------------------------------------------------------------------------------

    def log_in(self, url: str, subject: str, **claims: Any) -> str:
        """Somebody is sent to `url`, and logs in. Returns where the browser is sent then."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert url.startswith(f"{self.issuer}/authorize?")
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT)
        assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(16)
        self.codes[code] = Code(asked, {"sub": subject, **claims})
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state'], 'iss': self.issuer})}"

    # -- what the desk asks -------------------------------------------------------------------------------------------

    def _answer(self, request: http.server.BaseHTTPRequestHandler, form: dict[str, str], authorization: str) -> None:
        path = urlsplit(request.path).path
        self.asked.append(path)
        status, body = self._body(path, form, authorization)
        status, body = self.answers.get(path, (status, body))
        with suppress(OSError):  # who asked has had enough
            request.send_response(status)
            request.send_header("Content-Type", "application/json")
            if path not in self.stalls:
                request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            while path in self.stalls and not self.released.wait(0.05):
                request.wfile.write(b" ")
                request.wfile.flush()
            request.wfile.write(body)

    def _body(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, bytes]:
        match path:
            case "/.well-known/openid-configuration":
                right = {
                    "issuer": self.issuer,
                    "authorization_endpoint": f"{self.issuer}/authorize",
                    "token_endpoint": f"{self.issuer}/token",
                    "jwks_uri": f"{self.issuer}/keys",
                    "authorization_response_iss_parameter_supported": True,
                }
                return 200, json.dumps(_without_none(right | self.metadata)).encode()
            case "/keys":
                return 200, json.dumps({"keys": self.keys}).encode()
            case "/token":
                return self._token(form, authorization)
        return 404, b"{}"

    def _token(self, form: dict[str, str], authorization: str) -> tuple[int, bytes]:
        known = self.codes.get(form.get("code", ""))
        if not self._is_client(form, authorization):
            return 401, b'{"error": "invalid_client"}'
        if known is None or known.used or form.get("redirect_uri") != known.asked["redirect_uri"]:
            return 400, b'{"error": "invalid_grant"}'
        known.used = True
        hashed = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(hashed).decode().rstrip("=") != known.asked["code_challenge"]:
            return 400, b'{"error": "invalid_grant"}'
        now_s = self.clock.utc().utc_ns // NS
        right = {"iss": self.issuer, "aud": CLIENT, "iat": now_s, "exp": now_s + 300, "nonce": known.asked["nonce"]}
        claims = _without_none(right | known.claims | self.claims)
        token = self.sign(self.header, claims) if self.sign else jwt.encode(self.header, claims, self.key)
        return 200, json.dumps({"access_token": "a", "token_type": "Bearer", "id_token": token}).encode()

    @staticmethod
    def _is_client(form: dict[str, str], authorization: str) -> bool:
        if not authorization:
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT, SECRET)
        client, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        return (unquote_plus(client), unquote_plus(secret)) == (CLIENT, SECRET)


def _without_none(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """A token of `alg: none` (RFC 7519, 6)."""
    parts = (json.dumps(header | {"alg": "none"}), json.dumps(claims))
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts) + "."
