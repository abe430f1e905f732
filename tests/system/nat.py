"""Networks of this machine's own: headquarters on a wide net, and two small nets behind NAT that cannot reach each other.

    post 192.168.7.2 - 192.168.7.1 [NAT] 203.0.113.7 - 203.0.113.1 headquarters 198.51.100.1 - 198.51.100.9 [NAT] 10.9.0.1 - 10.9.0.2 browser

Each is a network namespace of the kernel; the NATs are nftables' masquerade with a port of its own for each peer, as
mobile networks have it, so that no address found by STUN is of any use to another.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HQ = "203.0.113.1"
_CLONE_NEWNET = 0x40000000
_OWN = Path("/proc/thread-self/ns/net")
_libc = ctypes.CDLL(None, use_errno=True)


class NoNatError(Exception):
    """This machine's kernel, or whoever runs us on it, does not let us."""


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoNatError(f"{' '.join(words)}: {done.stderr.strip()}")


class Nets:
    """The namespaces by what is in them: hq, home (the post), office (the browser); home-nat, office-nat."""

    def __init__(self) -> None:
        self._mark = f"wp{os.getpid()}"
        self._made: list[str] = []

    def name(self, net: str) -> str:
        return f"{self._mark}-{net}"

    def build(self) -> None:
        """Raises NoNatError."""
        for net in ("hq", "home", "home-nat", "office", "office-nat"):
            run("ip", "netns", "add", self.name(net))
            self._made.append(net)
            run("ip", "-n", self.name(net), "link", "set", "lo", "up")
        self._join("hq", f"{HQ}/24", "home-nat", "203.0.113.7/24")
        self._join("hq", "198.51.100.1/24", "office-nat", "198.51.100.9/24")
        self._join("home-nat", "192.168.7.1/24", "home", "192.168.7.2/24")
        self._join("office-nat", "10.9.0.1/24", "office", "10.9.0.2/24")
        for net, gate in (
            ("home", "192.168.7.1"),
            ("office", "10.9.0.1"),
            ("home-nat", HQ),
            ("office-nat", "198.51.100.1"),
        ):
            run("ip", "-n", self.name(net), "route", "add", "default", "via", gate)
        for net in ("home-nat", "office-nat"):
            with self.inside(net):
                Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            self.rules(
                net,
                "table ip nat { chain out { type nat hook postrouting priority 100;"
                f' oifname "{net[0]}-hq" masquerade fully-random; }}; }}',
            )

    def _join(self, one: str, address: str, other: str, others_address: str) -> None:
        ends = f"{one[0]}-{other}"[:15], f"{other[0]}-{one}"[:15]
        run("ip", "-n", self.name(one), "link", "add", ends[0], "type", "veth", "peer", "name", ends[1],
            "netns", self.name(other))  # fmt: skip
        for net, end, its in ((one, ends[0], address), (other, ends[1], others_address)):
            run("ip", "-n", self.name(net), "address", "add", its, "dev", end)
            run("ip", "-n", self.name(net), "link", "set", end, "up")

    def rules(self, net: str, text: str) -> None:
        """Loads nftables' rules there."""
        with self.inside(net):
            run("nft", text)

    @contextmanager
    def inside(self, net: str) -> Iterator[None]:
        """This thread, and what it starts meanwhile (processes, threads, sockets), is there."""
        here = os.open(_OWN, os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name(net)}", os.O_RDONLY)
        try:
            _enter(there)
            yield
        finally:
            _enter(here)
            os.close(here)
            os.close(there)

    def clear(self) -> None:
        for net in self._made:
            run("ip", "netns", "delete", self.name(net))


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
