"""How long somebody must wait before the next attempt to log in. Pure but for its memory; one process.

Delays, not locks: whoever guesses at an account from afar must not be able to shut its owner out. So

- an address waits longer with each failure, up to ADDRESS_WAIT_S_MAX;
- an account makes strangers wait, up to ACCOUNT_WAIT_S_MAX, and nobody else: an address from which its owner has
  logged in before is not delayed by what others have tried.

An empty login is no account: only the address counts then (logins by a provider, and what can be no login).

A wait is told to who tries (429, Retry-After) and costs the station nothing. Failures are forgotten after FORGET_S.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from agent.types import NS

FREE_FAILURES = 3
"""People mistype; only what comes after costs time."""
ADDRESS_WAIT_S_MAX = 300.0
ACCOUNT_WAIT_S_MAX = 30.0
FORGET_S = 3600.0
ENTRIES_MAX = 10_000
"""Addresses, accounts and known pairs that are remembered, of each; the oldest are forgotten first."""


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last_ns: int = 0


class Throttle:
    """Any thread."""

    def __init__(self, *, boot_ns: Callable[[], int]) -> None:
        self._boot_ns = boot_ns
        self._lock = threading.Lock()
        self._addresses: OrderedDict[str, _Failures] = OrderedDict()
        self._accounts: OrderedDict[str, _Failures] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait_s(self, login: str, address: str) -> float:
        """Seconds until this address may try this account; 0: now. An attempt is counted by `failed`."""
        with self._lock:
            now = self._boot_ns()
            wait = _left_s(self._addresses.get(address), now, ADDRESS_WAIT_S_MAX)
            if login and (login, address) not in self._known:
                wait = max(wait, _left_s(self._accounts.get(login), now, ACCOUNT_WAIT_S_MAX))
            return wait

    def failed(self, login: str, address: str) -> None:
        """A wrong password, or a login that nobody has."""
        with self._lock:
            now = self._boot_ns()
            _count(self._addresses, address, now)
            if login and (login, address) not in self._known:
                _count(self._accounts, login, now)

    def succeeded(self, login: str, address: str) -> None:
        """Somebody is in."""
        with self._lock:
            self._addresses.pop(address, None)
            if not login:
                return
            if (login, address) not in self._known and login in self._accounts:
                self._accounts[login].count -= 1  # this attempt: it was counted before it was known to be right
            self._known[login, address] = None
            self._known.move_to_end((login, address))
            while len(self._known) > ENTRIES_MAX:
                self._known.popitem(last=False)


def _left_s(failures: _Failures | None, now_ns: int, most_s: float) -> float:
    if failures is None or failures.count <= FREE_FAILURES:
        return 0.0
    due_s = min(2.0 ** min(failures.count - FREE_FAILURES, 20), most_s)
    return max(due_s - (now_ns - failures.last_ns) / NS, 0.0)


def _count(book: OrderedDict[str, _Failures], key: str, now_ns: int) -> None:
    found = book.get(key)
    if found is None or now_ns - found.last_ns > FORGET_S * NS:
        found = book[key] = _Failures()
    found.count += 1
    found.last_ns = now_ns
    book.move_to_end(key)
    while len(book) > ENTRIES_MAX:
        book.popitem(last=False)
