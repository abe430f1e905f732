"""How long somebody must wait before the next attempt to log in. Pure but for its memory; one process.

Delays, not locks: whoever guesses at an account from afar must not be able to shut its owner out. So

- an address waits longer with each failure, up to ADDRESS_WAIT_S_MAX;
- an account makes strangers wait, up to ACCOUNT_WAIT_S_MAX, and nobody else;
- an address from which an account's owner has logged in before is known to that account, and waits there for nothing
  but what failed at this account from this address, up to ACCOUNT_WAIT_S_MAX: others may sit behind the same address.

Who is in has his own failures forgiven, those at his account from his address; never those at other accounts.

An empty login is no account: only the address counts then (logins by a provider, and what can be no login).
An address is what one customer of a network has: of IPv6 the first NETWORK_BITS.

A wait is told to who tries (429, Retry-After) and costs the station nothing. Failures are forgotten after FORGET_S.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from agent.types import NS

_Key = TypeVar("_Key")

FREE_FAILURES = 3
"""People mistype; only what comes after costs time."""
ADDRESS_WAIT_S_MAX = 300.0
ACCOUNT_WAIT_S_MAX = 30.0
FORGET_S = 3600.0
ENTRIES_MAX = 10_000
"""Addresses, accounts and pairs of both that are remembered, of each; the oldest are forgotten first."""
NETWORK_BITS = 64
"""Of an IPv6 address: whoever has one has all of them that begin alike."""


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
        self._pairs: OrderedDict[tuple[str, str], _Failures] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait_s(self, login: str, address: str) -> float:
        """Seconds until this address may try this account; 0: now. An attempt is counted by `failed`."""
        network = network_of(address)
        pair = (login, network)
        with self._lock:
            now = self._boot_ns()
            if login and pair in self._known:
                return _left_s(self._pairs.get(pair), now, ACCOUNT_WAIT_S_MAX)
            wait = _left_s(self._addresses.get(network), now, ADDRESS_WAIT_S_MAX)
            return max(wait, _left_s(self._accounts.get(login), now, ACCOUNT_WAIT_S_MAX) if login else 0.0)

    def failed(self, login: str, address: str) -> None:
        """A wrong password, or a login that nobody has."""
        network = network_of(address)
        pair = (login, network)
        with self._lock:
            now = self._boot_ns()
            _count(self._addresses, network, now)
            _count(self._pairs, pair, now)
            if login and pair not in self._known:
                _count(self._accounts, login, now)

    def succeeded(self, login: str, address: str) -> None:
        """Somebody is in. This attempt, too, was counted before it was known to be right."""
        network = network_of(address)
        pair = (login, network)
        with self._lock:
            own = self._pairs.pop(pair, None)
            count = 0 if own is None or self._boot_ns() - own.last_ns > FORGET_S * NS else own.count
            _forgive(self._addresses, network, count)
            if not login:
                return
            if pair not in self._known:
                _forgive(self._accounts, login, count)
            self._known[pair] = None
            self._known.move_to_end(pair)
            while len(self._known) > ENTRIES_MAX:
                self._known.popitem(last=False)


def network_of(address: str) -> str:
    """By what an address is counted; what is none, as it is written."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> (128 - NETWORK_BITS) << (128 - NETWORK_BITS), NETWORK_BITS)))


def _left_s(failures: _Failures | None, now_ns: int, most_s: float) -> float:
    if failures is None or failures.count <= FREE_FAILURES:
        return 0.0
    due_s = min(2.0 ** min(failures.count - FREE_FAILURES, 20), most_s)
    return max(due_s - (now_ns - failures.last_ns) / NS, 0.0)


def _count(book: OrderedDict[_Key, _Failures], key: _Key, now_ns: int) -> None:
    found = book.get(key)
    if found is None or now_ns - found.last_ns > FORGET_S * NS:
        found = book[key] = _Failures()
    found.count += 1
    found.last_ns = now_ns
    book.move_to_end(key)
    while len(book) > ENTRIES_MAX:
        book.popitem(last=False)


def _forgive(book: OrderedDict[str, _Failures], key: str, count: int) -> None:
    found = book.get(key)
    if found is None:
        return
    found.count -= count
    if found.count <= 0:
        del book[key]
