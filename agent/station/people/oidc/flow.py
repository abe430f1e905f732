"""What binds a login at the provider to the browser that began it.

The browser keeps one random token in a cookie, and everything else follows from it by a key that only this process has:
`state` (RFC 6749, 10.12), `nonce` (OpenID Connect Core 1.0, 3.1.2.1) and the verifier of PKCE (RFC 7636). So strangers
who begin a million logins take no memory. An answer without the cookie of its state is another browser's, and one that
comes twice is a replay; both are refused. A login that the station's restart has interrupted is begun again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from agent.types import NS

LASTS_S = 600
"""From the first page to the provider's answer: somebody looks for his second factor."""
SPENT_MAX = 10_000
"""Answers that are remembered as used; only who has begun a login can use one."""
_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}\.[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Flow:
    """One login. `cookie` and `verifier` are secret."""

    cookie: str
    state: str
    nonce: str
    verifier: str

    @property
    def challenge(self) -> str:
        """Of PKCE, method S256."""
        return _base64(hashlib.sha256(self.verifier.encode()).digest())


class Flows:
    """Any thread; of one process."""

    def __init__(self, *, boot_ns: Callable[[], int], key: bytes | None = None) -> None:
        """`key`: of this process; random unless a test gives one."""
        self._boot_ns = boot_ns
        self._key = key or secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._spent: OrderedDict[str, None] = OrderedDict()

    def begin(self) -> Flow:
        """A new one."""
        return self._of(f"{secrets.token_urlsafe(32)}.{self._boot_ns() // NS}")

    def take(self, cookie: str, state: str) -> Flow | None:
        """The flow to which both belong, once. None: another browser's, an old one, or one that was used."""
        if not _COOKIE.fullmatch(cookie):
            return None
        flow = self._of(cookie)
        if not hmac.compare_digest(flow.state.encode(), state.encode("utf-8", "replace")):
            return None
        age_s = self._boot_ns() / NS - int(cookie.partition(".")[2])
        if not -1 <= age_s <= LASTS_S:
            return None
        with self._lock:
            if flow.state in self._spent:
                return None
            self._spent[flow.state] = None
            while len(self._spent) > SPENT_MAX:
                self._spent.popitem(last=False)
        return flow

    def _of(self, cookie: str) -> Flow:
        return Flow(cookie, *(self._derived(label, cookie) for label in ("state", "nonce", "verifier")))

    def _derived(self, label: str, cookie: str) -> str:
        return _base64(hmac.digest(self._key, f"{label} {cookie}".encode(), "sha256"))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
