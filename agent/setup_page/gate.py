"""Who may see the page: whoever types the code of the label inside the box. Pure: times are passed in.

The code has ten letters and digits of 32 (50 bits). A wrong one makes the next try wait, twice as long each time, and
after WRONG_MAX of them the page goes off. What is given for the right one is a token of 256 bits, the same for as long
as the page is on, also across a restart of the agent: it hangs on a nonce that is made when the page goes on.
"""

from __future__ import annotations

import hashlib
import hmac
import threading

from agent.errors import ConfigError
from agent.types import NS

WAIT_S_FIRST = 2.0
WAIT_S_MAX = 60.0
WRONG_MAX = 12
CODE_CHARS = 10
CODE_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without I, O, 0 and 1, which look alike on a wet label."""


class Shut(ConfigError):  # noqa: N818
    """Not let in. `wait_s`: how long no code is looked at; 0: this was a wrong one, or the page is off."""

    def __init__(self, text: str, *, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class Gate:
    """One time that the page is on. Any thread."""

    def __init__(self, code: str, *, nonce: bytes) -> None:
        self._code = tidy(code)
        self._token = hmac.new(nonce, self._code.encode(), hashlib.sha256).hexdigest()
        self._lock = threading.Lock()
        self._wrong = 0
        self._closed_until_ns = 0
        self._open = True

    @property
    def wrong(self) -> int:
        """Wrong codes so far."""
        return self._wrong

    @property
    def worn_out(self) -> bool:
        """Too many wrong codes: the page is to go off."""
        return self._wrong >= WRONG_MAX

    def enter(self, given: str, now_ns: int) -> str:
        """The token for the right code. Raises Shut."""
        with self._lock:
            if not self._open or self.worn_out:
                raise Shut("the page is off")
            left_s = (self._closed_until_ns - now_ns) / NS
            if left_s > 0:
                raise Shut(f"wait {left_s:.0f} s before the next try", wait_s=left_s)
            if hmac.compare_digest(tidy(given).encode(), self._code.encode()):
                self._closed_until_ns = 0
                return self._token
            self._wrong += 1
            wait_s = min(WAIT_S_FIRST * 2 ** (self._wrong - 1), WAIT_S_MAX)
            self._closed_until_ns = now_ns + round(wait_s * NS)
            raise Shut("this is not the code on the label inside the box")

    def knows(self, token: str) -> bool:
        """Whether somebody has entered with the code while this gate is open."""
        return self._open and hmac.compare_digest(token.encode(), self._token.encode())

    def close(self) -> None:
        """From now on nobody is let in or believed."""
        self._open = False


def tidy(code: str) -> str:
    """As it is compared: a person writes hyphens, blanks and small letters."""
    return "".join(code.split()).replace("-", "").upper()[:64]


def spelled(code: str) -> str:
    """As it stands on the label: two groups of five."""
    code = tidy(code)
    return f"{code[:5]}-{code[5:]}" if code else ""
