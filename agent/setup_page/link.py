"""The local links on which the page may be served: addresses that only the hotspot or the USB gadget has.

A listener is tied to the address and to the network interface that has it (SO_BINDTODEVICE, which needs no right since
Linux 5.7), and answers only peers of that address's own network: nobody reaches it by another way in.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from agent.errors import ConfigError

_SIOCGIFADDR = 0x8915


@dataclass(frozen=True, slots=True)
class Link:
    """An address of ours and its network, as `10.42.77.1/24`."""

    address: str
    network: ipaddress.IPv4Network

    def admits(self, peer: str) -> bool:
        """Whether a peer is on the same link."""
        try:
            return ipaddress.IPv4Address(peer) in self.network
        except ValueError:
            return False


def links(addresses: Sequence[str]) -> tuple[Link, ...]:
    """Raises ConfigError for what is no private address of a small network."""
    return tuple(_link(text) for text in addresses)


def _link(text: str) -> Link:
    try:
        found = ipaddress.IPv4Interface(text)
    except ValueError:
        raise ConfigError(
            f"setup_page.addresses: {text!r}: write an IPv4 address and its network, 10.42.77.1/24"
        ) from None
    local = found.ip.is_private and not found.ip.is_unspecified
    if not local or "/" not in text or not (found.network.prefixlen >= 16 or found.ip.is_loopback):
        raise ConfigError(
            f"setup_page.addresses: {text!r}: the page is only for a local link; an address like 10.42.77.1/24"
        )
    return Link(str(found.ip), found.network)


def interface_of(address: str) -> str:
    """The network interface whose own address this is; empty for none. Blocks for some system calls."""
    wanted = socket.inet_aton(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has no address
            if answer[20:24] == wanted:
                return name
    return ""
