"""Who may send footage: a node that proves the key of a certificate which the register still honours.

Challenges are not kept: they carry their time and a code by a key of this process, so that nobody can fill its memory
by asking. One that was used is remembered until it has run out. Tokens live in memory; after a restart nodes ask again.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from collections.abc import Callable, Sequence
from pathlib import Path

from agent import tus
from agent.clock import Clock
from agent.errors import Corrupt
from agent.site import founding
from agent.site.folder import open_site
from agent.site.proof import proved
from agent.site.register import Certificate, Node
from agent.station.renewals import standing
from agent.types import NS

TOKEN_S = 600.0
"""So long a certificate that was revoked meanwhile may still send."""
TOKENS_MAX = 20_000
USED_MAX = 20_000
_TIME = struct.Struct(">q16s")

Known = Callable[[str], tuple[Node | None, Sequence[Certificate]]]
"""A post and all certificates it ever had. Raises WardpostError."""


def register_at(folder: Path) -> Known:
    """Looks a node up in the register of a site; opened each time, for it is seldom asked and from any thread."""

    def look(node: str) -> tuple[Node | None, Sequence[Certificate]]:
        register = founding.open_register(open_site(folder))
        try:
            return register.node(node), register.certificates_of(node)
        finally:
            register.close()

    return look


class Access:
    """Any thread."""

    def __init__(self, *, clock: Clock, site: str, known: Known) -> None:
        self._clock = clock
        self._site = site
        self._known = known
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._used: dict[str, int] = {}  # challenge -> boot ns at which it has run out
        self._tokens: dict[str, tuple[str, int]] = {}  # digest of a token -> node, boot ns of its end

    def challenge(self, ask: tus.Ask) -> tus.Challenge:
        """Something to sign, for anybody."""
        front = _TIME.pack(self._clock.boot_ns(), secrets.token_bytes(16))
        return tus.Challenge(challenge=urlsafe_b64encode(front + self._code(front, ask.node)).decode())

    def _code(self, front: bytes, node: str) -> bytes:
        return hmac.digest(self._secret, front + node.encode(), hashlib.sha256)[:16]

    def grant(self, asked: tus.Proof) -> tus.Grant:
        """A token for who has signed. Raises Corrupt with why not; Transient while the register cannot be read."""
        until_ns = self._fresh(asked)
        node, certificates = self._known(asked.node)
        own = next((one for one in certificates if one.kind == "node" and one.key_sha256 == asked.by), None)
        refusal = standing(asked.node, asked.by, node=node, own=own, now_utc_ns=self._clock.utc().utc_ns)
        if refusal is not None:
            raise Corrupt(f"{refusal.kind.value}: {refusal.detail}")
        if own is None or not proved(own.pem.encode(), asked.proof, asked.proof_bytes(self._site)):
            raise Corrupt(f"bad-proof: not signed by key {asked.by[:16]} of {asked.node}")
        token, now_ns = secrets.token_urlsafe(32), self._clock.boot_ns()
        with self._lock:
            if asked.challenge in self._used:
                raise Corrupt("the challenge was used before")
            self._forget(now_ns)
            self._used[asked.challenge] = until_ns
            self._tokens[_digest(token)] = (asked.node, now_ns + round(TOKEN_S * NS))
        return tus.Grant(token=token, life_s=TOKEN_S)

    def _fresh(self, asked: tus.Proof) -> int:
        """When the challenge runs out. Raises Corrupt for one that has, or is not of this process and node."""
        try:
            raw = urlsafe_b64decode(asked.challenge.encode())
            made_ns, _ = _TIME.unpack_from(raw)
        except (BadBase64, ValueError, struct.error):
            raise Corrupt("the challenge is none of this station's") from None
        until_ns = int(made_ns) + round(tus.CHALLENGE_S * NS)
        front = raw[: _TIME.size]
        if not hmac.compare_digest(raw[_TIME.size :], self._code(front, asked.node)):
            raise Corrupt("the challenge is none of this station's, or was given to another node; ask for one")
        if self._clock.boot_ns() >= until_ns:
            raise Corrupt(f"the challenge is older than {tus.CHALLENGE_S:.0f} s; ask for another")
        return until_ns

    def _forget(self, now_ns: int) -> None:
        self._used = {one: until for one, until in self._used.items() if until > now_ns}
        self._tokens = {one: row for one, row in self._tokens.items() if row[1] > now_ns}
        while len(self._tokens) >= TOKENS_MAX:
            del self._tokens[next(iter(self._tokens))]
        if len(self._used) >= USED_MAX:
            raise Corrupt("too many nodes ask at once; later")

    def node_of(self, token: str) -> str | None:
        """Whose token it is; None for one that has run out, or none."""
        with self._lock:
            found = self._tokens.get(_digest(token))
        return found[0] if found is not None and self._clock.boot_ns() < found[1] else None


def _digest(token: str) -> str:
    """Tokens are kept as digests: a look-up by them tells nothing by its time."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
