"""An address of a school's contact: what somebody may type into a page, what pages show of it, where it leads. Pure.

A page is no place to say where the station connects to. So an e-mail goes by the station's own mail account, a
messenger to a provider whose host stands in apprise, and a webhook to a host that the station's settings name. Nothing
else of apprise can be reached: no local program, file or bus, no option of its URLs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args
from urllib.parse import quote, urlsplit

How = Literal["phone", "email", "webhook", "messenger"]
HOWS: tuple[How, ...] = get_args(How)
ADDRESS_CHARS_MAX = 300
MESSENGERS = {
    "discord": "Discord",
    "gchat": "Google Chat",
    "line": "LINE",
    "slack": "Slack",
    "tgram": "Telegram",
    "twilio": "SMS (Twilio)",
    "viber": "Viber",
    "vonage": "SMS (Vonage)",
    "whatsapp": "WhatsApp",
    "zalo": "Zalo",
}
"""Schemes of apprise whose host nobody can choose, and what people call them."""
LOOPBACK = ("127.0.0.1", "::1")
_PHONE = re.compile(r"\+?[0-9](?:[ .-]?[0-9]){2,19}")
_EMAIL = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,62}[A-Za-z0-9])?"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}"
)
_MESSENGER = re.compile(r"([a-z]{2,12})://[A-Za-z0-9._~:@/+=-]{8,280}")  # no query: it would be options of apprise
_WEBHOOK = re.compile(r"(https?)://([A-Za-z0-9.-]{1,200}|\[::1\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]{0,200})?")


def wrong(how: str, text: str, *, hosts: Sequence[str], mail: bool) -> str:
    """What is wrong with an address: `how`, `nomail`, `host`, or the way itself; empty: nothing.

    `hosts`: that webhooks may go to. `mail`: whether the station has a mail account.
    """
    if how not in HOWS:
        return "how"
    if how == "email" and not mail:
        return "nomail"
    fits = {
        "phone": _PHONE.fullmatch(text),
        "email": _EMAIL.fullmatch(text) and len(text) <= 254,
        "messenger": _is_messenger(text),
        "webhook": _WEBHOOK.fullmatch(text),
    }[how]
    if not fits:
        return how
    return "host" if how == "webhook" and not _is_named(text, hosts) else ""


def shown(how: str, address: str) -> str:
    """What pages tell of an address: nothing that would let somebody else send by it."""
    match how:
        case "messenger":
            return MESSENGERS.get(address.partition(":")[0], "?")
        case "webhook":
            return urlsplit(address).netloc
    return address


def url_of(how: str, address: str, *, mail_url: str) -> str:
    """The URL of apprise for an address that is not wrong; empty: nothing can be sent there. `mail_url`: of the
    station's mail account, without a recipient.
    """
    match how:
        case "email":
            return f"{mail_url}{'&' if '?' in mail_url else '?'}to={quote(address, safe='@')}" if mail_url else ""
        case "webhook":
            scheme, rest = address.split(":", 1)
            return f"{'jsons' if scheme == 'https' else 'json'}:{rest}"
        case "messenger":
            return address
    return ""


def _is_messenger(text: str) -> bool:
    found = _MESSENGER.fullmatch(text)
    return found is not None and found[1] in MESSENGERS


def _is_named(url: str, hosts: Sequence[str]) -> bool:
    """Http is for this machine only: others could read and change it."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return False
    if parts.scheme == "http" and host not in LOOPBACK:
        return False
    at = f"[{host}]" if ":" in host else host
    return (at if port is None else f"{at}:{port}") in hosts
