"""What the verb `live` may say. Pure.

- begin: view, mode (video, stills), by, reason, seconds; case; of video: offer (SDP), ice
- more: view, seconds; of stills: got, the number of the newest one that has arrived
- end: view
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from agent.errors import Corrupt

SDP_BYTES_MAX = 12 * 1024
TEXT_CHARS_MAX = 100
ICE_MAX = 4
URL_CHARS_MAX = 200
_VIEW = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_URL = re.compile(r"(?:stun|turn|turns):[\x21-\x7e]+")
_NUMBER_MAX = 2**31


@dataclass(frozen=True, slots=True)
class Ice:
    """A STUN or TURN server, for one view."""

    url: str
    username: str = ""
    credential: str = ""


@dataclass(frozen=True, slots=True)
class Begin:
    """Somebody wants to see."""

    view: str
    stills: bool
    by: str
    reason: str
    case: str
    seconds: float
    offer: str
    ice: tuple[Ice, ...]


@dataclass(frozen=True, slots=True)
class More:
    """He goes on."""

    view: str
    seconds: float  # 0: no longer than was granted
    got: int


@dataclass(frozen=True, slots=True)
class End:
    """He has seen enough."""

    view: str


def parse(args: dict[str, Any]) -> Begin | More | End:
    """The args of a command. Raises Corrupt with what is wrong."""
    view = _text(args, "view", 36)
    if not _VIEW.fullmatch(view):
        raise Corrupt("live: view: the id of a view is a UUID")
    what = args.get("do")
    if what == "end":
        return End(view)
    if what == "more":
        got = args.get("got", 0)
        if isinstance(got, bool) or not isinstance(got, int) or not 0 <= got < _NUMBER_MAX:
            raise Corrupt("live: got: the number of a still")
        return More(view, _seconds(args), got)
    if what != "begin":
        raise Corrupt(f"live: do: {str(what)[:20]!r} is not begin, more or end")
    return _begin(view, args)


def _begin(view: str, args: dict[str, Any]) -> Begin:
    by, reason = _text(args, "by", TEXT_CHARS_MAX), _text(args, "reason", TEXT_CHARS_MAX)
    if not by or not reason:
        raise Corrupt("live: who watches, and why, goes on the ledger: give by and reason")
    mode, offer, seconds = args.get("mode"), args.get("offer", ""), _seconds(args)
    if mode not in ("video", "stills"):
        raise Corrupt(f"live: mode: {str(mode)[:20]!r} is not video or stills")
    if not seconds:
        raise Corrupt("live: seconds: for how long?")
    if not isinstance(offer, str) or len(offer.encode()) > SDP_BYTES_MAX:
        raise Corrupt(f"live: offer: SDP of {SDP_BYTES_MAX} bytes at most")
    if (mode == "video") != offer.startswith("v=0"):
        raise Corrupt("live: offer: video needs one in SDP, stills have none")
    ice = args.get("ice", [])
    if not isinstance(ice, list) or len(ice) > ICE_MAX:
        raise Corrupt(f"live: ice: a list of {ICE_MAX} servers at most")
    case = _text(args, "case", TEXT_CHARS_MAX)
    return Begin(view, mode == "stills", by, reason, case, seconds, offer, tuple(_ice(one) for one in ice))


def _ice(one: Any) -> Ice:
    if not isinstance(one, dict):
        raise Corrupt("live: ice: url, username, credential")
    url = _text(one, "url", URL_CHARS_MAX)
    if not _URL.fullmatch(url):
        raise Corrupt(f"live: ice: {url[:40]!r} is not stun:..., turn:... or turns:...")
    return Ice(url, _text(one, "username", URL_CHARS_MAX), _text(one, "credential", URL_CHARS_MAX))


def _seconds(args: dict[str, Any]) -> float:
    seconds = args.get("seconds", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 86_400:
        raise Corrupt(f"live: seconds: {str(seconds)[:40]!r} is not a time")
    return float(seconds)


def _text(args: dict[str, Any], name: str, chars_max: int) -> str:
    value = args.get(name, "")
    if not isinstance(value, str) or len(value) > chars_max or not value.isprintable():
        raise Corrupt(f"live: {name}: a text of {chars_max} characters at most")
    return value.strip()
