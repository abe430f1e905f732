"""Passwords: Argon2id (RFC 9106, second recommended option: 64 MiB, 3 passes) by argon2-cffi.

What is asked of a password follows NIST SP 800-63B: a length, and none that stands on the list below; no rules about
digits and signs, which make people write `Password1!`.
"""

from __future__ import annotations

import threading
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from agent.errors import ConfigError, Transient

CHARS_MIN = 10
BYTES_MAX = 512
"""More is no password, and hashing it would be work for nothing."""
HASHING_MAX = 2
"""At once: each takes 64 MiB and a core. More logins wait, and are refused after HASH_WAIT_S."""
HASH_WAIT_S = 5.0
_USUAL = frozenset(
    {
        "1234567890",
        "0123456789",
        "12345678910",
        "12345678901",
        "123456789a",
        "9876543210",
        "password12",
        "password123",
        "passwordpassword",
        "qwertyuiop",
        "qwerty12345",
        "1q2w3e4r5t",
        "administrator",
        "abcdefghij",
        "changeme123",
        "letmeinplease",
        "matkhau123",
        "wardpostwardpost",
        "iloveyou123",
        "welcome123",
    }
)


class Passwords:
    """Hashes and compares. Any thread; blocks for about 0.1 s of a core."""

    def __init__(self, hasher: PasswordHasher | None = None, *, wait_s: float = HASH_WAIT_S) -> None:
        """`hasher`: other costs than the recommended ones, for tests."""
        self._hasher = hasher or PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._room = threading.BoundedSemaphore(HASHING_MAX)
        self._wait_s = wait_s
        self._nobody = self._hasher.hash("nobody has this password")

    def hash(self, password: str) -> str:
        """What is kept of a password, in the PHC string format. Raises ConfigError, Transient (too much at once)."""
        text = _checked(password)
        with _Place(self._room, self._wait_s):
            return self._hasher.hash(text)

    def fits(self, kept: str | None, password: str) -> bool:
        """Whether it is the password; None: of nobody, which takes as long. Raises Transient (too much at once)."""
        text = unicodedata.normalize("NFKC", password)
        if len(text.encode("utf-8", "surrogatepass")) > BYTES_MAX:
            return False
        with _Place(self._room, self._wait_s):
            try:
                self._hasher.verify(kept or self._nobody, text)
            except (VerificationError, InvalidHashError, UnicodeEncodeError):
                return False
        return kept is not None

    def old(self, kept: str) -> bool:
        """Whether it was hashed with other costs than today's, and should be hashed again while it is known."""
        return self._hasher.check_needs_rehash(kept)


class _Place:
    """A place among those that hash."""

    def __init__(self, room: threading.BoundedSemaphore, wait_s: float) -> None:
        self._room, self._wait_s = room, wait_s

    def __enter__(self) -> None:
        if not self._room.acquire(timeout=self._wait_s):
            raise Transient("too many logins at once; try again in some seconds")

    def __exit__(self, *_: object) -> None:
        self._room.release()


def _checked(password: str) -> str:
    text = unicodedata.normalize("NFKC", password)
    if len(text) < CHARS_MIN:
        raise ConfigError(f"password: {CHARS_MIN} characters or more; a sentence is easy to keep in mind")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConfigError("password: it holds something that is no character") from None
    if size > BYTES_MAX:
        raise ConfigError(f"password: {BYTES_MAX} bytes at most")
    if text.casefold() in _USUAL or len(set(text)) < 4:
        raise ConfigError("password: it is among the first that anybody would try")
    return text
