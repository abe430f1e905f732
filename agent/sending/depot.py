"""The station's upload address (agent/tus.py) by the standard library's HTTP client, one connection kept open."""

from __future__ import annotations

import hashlib
import http.client
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from agent import tus
from agent.clock import Clock
from agent.errors import ConfigError, Corrupt, Transient
from agent.sending.address import Address
from agent.site.authority import key_digest
from agent.site.proof import private_key, prove
from agent.types import NS

TIMEOUT_S = 20.0
ANSWER_BYTES_MAX = 4096
TOKEN_SHARE = 0.8
"""Of a token's life, after which another is asked for."""
_REFUSED = (400, 403, 413, 415)


class HttpDepot:
    """`agent.sending.Depot`. Reads the key and makes the context anew for each connection: they change by renewals."""

    def __init__(
        self,
        where: Address,
        *,
        clock: Clock,
        site: str,
        node: str,
        key: Path,
        context: Callable[[], ssl.SSLContext],
    ) -> None:
        """`key`: of the node's certificate, PEM; `context`: whose servers are believed; may raise ConfigError."""
        self._where = where
        self._clock = clock
        self._site = site
        self._node = node
        self._key = key
        self._context = context
        self._connection: http.client.HTTPConnection | None = None
        self._token = ""
        self._token_until_s = 0.0

    def offer(self, footage: tus.Footage, size: int) -> int:
        told = {"Upload-Length": str(size), "Upload-Metadata": tus.metadata(footage)}
        self._asked("POST", tus.FILES, told)
        answer = self._asked("HEAD", self._path(footage), {})
        return _number(answer.headers, "Upload-Offset", size)

    def send(self, footage: tus.Footage, offset: int, data: bytes) -> int:
        told = {
            "Content-Type": tus.OFFSET_TYPE,
            "Upload-Offset": str(offset),
            "Upload-Checksum": tus.checksum(hashlib.sha256(data).digest()),
        }
        answer = self._asked("PATCH", self._path(footage), told, data)
        new = _number(answer.headers, "Upload-Offset", offset + len(data))
        if new != offset + len(data):
            raise Transient(f"send: the station says offset {new}, {offset + len(data)} it must be")
        return new

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _path(self, footage: tus.Footage) -> str:
        return f"{tus.FILES}/{tus.upload_id(self._node, footage.sha256)}"

    # -- who we are ---------------------------------------------------------------------------------------------------

    def _bearer(self) -> str:
        """A token that is good for a while. Raises Transient."""
        now_s = self._clock.boot_ns() / NS
        if not self._token or now_s >= self._token_until_s:
            key = self._private()
            asked = self._answer("POST", tus.CHALLENGE, {}, msgspec.json.encode(tus.Ask(node=self._node)))
            challenge = tus.decode(asked.good(), tus.Challenge).challenge
            bare = tus.Proof(node=self._node, challenge=challenge, by=key_digest(key.public_key()), proof="")
            proof = msgspec.structs.replace(bare, proof=prove(key, bare.proof_bytes(self._site)))
            grant = tus.decode(self._answer("POST", tus.TOKEN, {}, msgspec.json.encode(proof)).good(), tus.Grant)
            self._token, self._token_until_s = grant.token, now_s + TOKEN_SHARE * grant.life_s
        return self._token

    def _private(self) -> ec.EllipticCurvePrivateKey:
        try:
            key = private_key(self._key.read_bytes())
        except OSError as error:
            raise Transient(f"send: {self._key}: cannot be read: {error.strerror}") from None
        if key is None:
            raise Transient(f"send: {self._key}: no key of a certificate is in it")
        return key

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    def _asked(self, method: str, path: str, told: Mapping[str, str], body: bytes = b"") -> _Answer:
        """An answer that is none of the refusals. Raises Transient, Corrupt."""
        try:
            for last in (False, True):
                headers = {**told, "Tus-Resumable": tus.VERSION, "Authorization": f"Bearer {self._bearer()}"}
                answer = self._answer(method, path, headers, body)
                if answer.status != 401 or last:
                    break
                self._token = ""  # the station has started anew: it knows no token of before
        except Corrupt as error:  # of what is no station's answer: time may cure it, and the file is not to blame
            raise Transient(f"send: {error}") from None
        if answer.status in _REFUSED:
            raise Corrupt(f"the station refuses it: {answer.status} {answer.text}")
        answer.good()
        return answer

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> _Answer:
        """One request on the open connection, or on a new one. Raises Transient."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request(method, path, body=body, headers=dict(headers))
            response = self._connection.getresponse()
            data = response.read(ANSWER_BYTES_MAX + 1)
            answer = _Answer(response.status, data[:ANSWER_BYTES_MAX], dict(response.headers))
            if response.will_close or len(data) > ANSWER_BYTES_MAX:
                self.close()
        except (OSError, http.client.HTTPException, ConfigError) as error:
            self.close()
            said = getattr(error, "verify_message", "") or str(error) or type(error).__name__
            raise Transient(f"send: {self._where.host}:{self._where.port}: {said}") from None
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        where = self._where
        if not where.tls:
            return http.client.HTTPConnection(where.host, where.port, timeout=TIMEOUT_S)
        return http.client.HTTPSConnection(where.host, where.port, timeout=TIMEOUT_S, context=self._context())


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def text(self) -> str:
        """The first line of a refusal, printable."""
        line = self.body.decode("utf-8", "replace").split("\n", 1)[0][:200]
        return "".join(char if char.isprintable() else " " for char in line)

    def good(self) -> bytes:
        """The body. Raises Transient for every other answer than success."""
        if not 200 <= self.status < 300:
            raise Transient(f"send: the station answers {self.status} {self.text}")
        return self.body


def _number(headers: Mapping[str, str], name: str, most: int) -> int:
    text = next((value for key, value in headers.items() if key.lower() == name.lower()), "")
    if not (text.isascii() and text.isdigit() and len(text) <= 15 and int(text) <= most):
        raise Transient(f"send: the station's answer has {name} {text[:40]!r}")
    return int(text)
