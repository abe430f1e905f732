"""The local links of a post as files of its card: the hotspot, the USB gadget, the request for the first page. Pure.

Keyfiles of NetworkManager, which both generations of Raspberry Pi OS use (Bookworm and Trixie). They are not brought up
at boot: deploy/wardpost-setup-link.service does it while the page is on, and takes them down after it.

    hotspot   10.42.77.1/24 on wlan0, WPA2, the password is the label's code; NetworkManager's own DHCP and DNS
    gadget    Raspberry Pi OS's own, switched on by `rpi-usb-gadget on`: 10.12.194.1/28 on usb0
"""

from __future__ import annotations

import uuid

from agent.setup_page.gate import spelled, tidy

HOTSPOT = "wardpost-setup"
HOTSPOT_FILE = f"{HOTSPOT}.nmconnection"
HOTSPOT_ADDRESS = "10.42.77.1/24"
GADGET_ADDRESS = "10.12.194.1/28"
REQUEST_FILE = "setup-page.txt"  # below node/ on the boot partition


def ssid(node: str) -> str:
    """The hotspot's name: 32 bytes at most, whatever the node's."""
    return f"wp-{node}"[:32]


def hotspot_keyfile(node: str, code: str) -> str:
    """A profile of NetworkManager for a WPA2 access point. `code`: of the label, ten letters and digits.

    `pmf=1` switches protected management frames off: the radio of a Raspberry Pi cannot do them as an access point
    (raspberrypi/linux issues 3619 and 7247), and then nobody can join.
    """
    return "\n".join([
        "# Written by `wardpost flash`: the hotspot of the installation page. Up only while that page is on.",
        "[connection]",
        f"id={HOTSPOT}",
        f"uuid={uuid.uuid5(uuid.NAMESPACE_DNS, f'{node}.{HOTSPOT}')}",
        "type=wifi",
        "interface-name=wlan0",
        "autoconnect=false",
        "", "[wifi]", "mode=ap", "band=bg", f"ssid={ssid(node)}",
        "", "[wifi-security]", "key-mgmt=wpa-psk", "proto=rsn;", "pairwise=ccmp;", "group=ccmp;", "pmf=1",
        f"psk={tidy(code)}",
        "", "[ipv4]", "method=shared", f"address1={HOTSPOT_ADDRESS}",
        "", "[ipv6]", "method=disabled", "",
    ])  # fmt: skip


def request_text(why: str) -> str:
    """The request for the page at the first boot. Any other content is a new request."""
    return f"The page of the installation, asked for by: {why}\n"


def wifi_qr(node: str, code: str) -> str:
    """What a phone's camera reads to join the hotspot."""
    return f"WIFI:T:WPA;S:{ssid(node)};P:{tidy(code)};;"


def page_qr(code: str, *, port: int) -> str:
    """What a phone's camera reads to open the page. Browsers send what follows the # to nobody."""
    return f"http://{HOTSPOT_ADDRESS.partition('/')[0]}:{port}/#{spelled(code)}"
