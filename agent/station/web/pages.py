"""Pages from templates. Everything that comes from people or nodes is escaped: there is no other way into a page."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from agent.errors import ConfigError
from agent.station.moments import Local, Never, kept_ns, local
from agent.station.outward.notice import BIDI
from agent.station.web import words
from agent.types import NS

_CONTROLS = {*range(0x20), 0x7F} - set(map(ord, "\t\n\r"))
_UNREADABLE = re.compile("[" + "".join(re.escape(chr(one)) for one in sorted(BIDI | _CONTROLS)) + "]")
_FIELD = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z?)")
_UTC_S_MAX = 253_402_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a page that a template has made: another one takes it in as it is."""

    html: str

    def __html__(self) -> str:
        return self.html


class Pages:
    """Any thread."""

    def __init__(self, *, time_zone: str) -> None:
        """Raises ConfigError for a time zone that is none."""
        try:
            self._zone = ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(
                f"web.time_zone: {time_zone!r} is not the name of one, such as Asia/Ho_Chi_Minh"
            ) from None
        self._environment = Environment(
            loader=PackageLoader("agent.station.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_finished,
            auto_reload=False,  # installed: else each part of a page looks at its file again, a system call each
        )
        self._environment.filters["moment"] = self.moment
        self._environment.filters["utc"] = _iso
        self._environment.filters["span"] = _span
        self._environment.filters["size"] = _size
        self._environment.globals["zone"] = self._zone.key
        self._environment.globals["languages"] = sorted(words.load().values(), key=lambda one: one("name"))

    @property
    def zone(self) -> dt.tzinfo:
        """Of the times on the pages."""
        return self._zone

    def render(self, template: str, **values: Any) -> str:
        """A page, or a part of one."""
        return self._environment.get_template(template).render(**values)

    def part(self, template: str, **values: Any) -> Part:
        """A part of a page, for another template."""
        return Part(self.render(template, **values))

    def moment(self, utc_ns: int) -> str:
        """Local time for people."""
        at = dt.datetime.fromtimestamp(min(max(utc_ns // NS, 0), _UTC_S_MAX), dt.UTC).astimezone(self._zone)
        return f"{at:%d.%m.%Y %H:%M:%S}"

    def field(self, utc_ns: int) -> str:
        """Local time as a `datetime-local` field of a form has it."""
        at = dt.datetime.fromtimestamp(min(max(utc_ns // NS, 0), _UTC_S_MAX), dt.UTC).astimezone(self._zone)
        return f"{at:%Y-%m-%dT%H:%M:%S}"

    def address(self, utc_ns: int) -> str:
        """A time as it stands in an address, or a hidden field: as a field has it, or, where that comes twice, in UTC:
        it comes back as the same one.
        """
        if not self._turned(utc_ns):
            return self.field(utc_ns)
        return f"{dt.datetime.fromtimestamp(utc_ns // NS, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"

    def begins(self, text: str) -> int | None:
        """UTC ns at which a range begins that was typed into such a field, or came by `address`; the first one where it
        comes twice. None for no time, none that can be, and one that never comes (agent/station/moments.py).
        """
        found = self._local(text)
        return found.first_utc_ns if isinstance(found, Local) else None

    def ends(self, text: str) -> int | None:
        """The same of its end: the last one."""
        found = self._local(text)
        return found.last_utc_ns if isinstance(found, Local) else None

    def never(self, words: words.Words, *texts: str) -> str:
        """What is said of the first of these that never comes, with those that are next to it; empty: there is none."""
        for text in texts:
            found = self._local(text)
            if isinstance(found, Never):
                before, after = (f"{at:%d.%m.%Y %H:%M:%S}" for at in (found.before, found.after))
                return words("time.never", time=text.replace("T", " "), before=before, after=after)
        return ""

    def twice(self, words: words.Words, start_utc_ns: int | None, end_utc_ns: int | None) -> str:
        """What is said of a range that begins or ends in an hour that comes twice; empty: it does not."""
        if not any(one is not None and self._turned(one) for one in (start_utc_ns, end_utc_ns)):
            return ""
        start, end = ("…" if one is None else _utc(one) for one in (start_utc_ns, end_utc_ns))
        return words("time.twice", start=start, end=end)

    def _turned(self, utc_ns: int) -> bool:
        found = self._local(self.field(utc_ns))
        return isinstance(found, Local) and found.twice

    def _local(self, text: str) -> Local | Never | None:
        if not _FIELD.fullmatch(text):
            return None
        try:
            at = dt.datetime.fromisoformat(text)
            found = local(at.replace(tzinfo=None), self._zone if at.tzinfo is None else dt.UTC)
        except Never as never:
            return never
        except (ValueError, OverflowError):
            return None
        return None if None in (kept_ns(found.first_utc_ns), kept_ns(found.last_utc_ns)) else found


def _utc(utc_ns: int) -> str:
    return f"{dt.datetime.fromtimestamp(utc_ns // NS, dt.UTC):%d.%m.%Y %H:%M:%S}"


def unturned(text: str) -> str:
    """Without what turns the direction of reading: a page would show other words than somebody, or a post, has said.
    Nor with control characters, which HTML does not allow.
    """
    return _UNREADABLE.sub("", text)


def _finished(value: object) -> object:
    """Whatever a template says, just before it is escaped."""
    if not isinstance(value, str):
        return value
    return Markup(unturned(value)) if isinstance(value, Markup) else unturned(value)  # noqa: S704  (it was one before)


def _iso(utc_ns: int) -> str:
    at = dt.datetime.fromtimestamp(min(max(utc_ns // NS, 0), _UTC_S_MAX), dt.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _span(seconds: float) -> str:
    """A length of time for people, in any language."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _size(count: int) -> str:
    if count >= 1_000_000_000:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
