"""What was asked for: from the fields of an address to a query, or to what is wrong with it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.station.people.roles import POST, Scope
from agent.station.search.meaning import KINDS, LABELS, SEVERITIES

POSTS_MAX = 20
WORDS_MAX = 5
WORD_CHARS_MAX = 60
UTC_NS_MAX = 2**63 - 1
TRUE, FALSE, NO_VERDICT = "true", "false", "none"
VERDICTS = (TRUE, FALSE, NO_VERDICT)
FIELDS = ("post", "from", "to", "class", "kind", "severity", "verdict", "zone", "word")
"""Of the address, beside `before`."""
_BEFORE = re.compile(r"([0-9]{1,19})\.([0-9a-f-]{36})?")


class Unclear(Exception):  # noqa: N818  (an answer, not an error)
    """A field cannot be understood; `key` names the sentence that says so."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class NotYours(Exception):  # noqa: N818
    """A post was asked for that this person does not see."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the order of a search: what follows is less than this. `incident` empty: before all of that time."""

    at_utc_ns: int
    incident: str = ""

    def __str__(self) -> str:
        return f"{self.at_utc_ns}.{self.incident}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Each empty field: whatever it is. `posts`: empty means all that the person sees. Times are UTC ns, inclusive."""

    posts: tuple[str, ...] = ()
    start_utc_ns: int | None = None
    end_utc_ns: int | None = None
    label: str = ""
    kind: str = ""
    severity: str = ""
    verdict: str = ""
    zone: str = ""
    words: tuple[str, ...] = ()
    before: Place | None = None


def asked_for(
    given: Mapping[str, str], *, scope: Scope, begins: Callable[[str], int | None], ends: Callable[[str], int | None]
) -> Query:
    """The query of an address; `begins` and `ends` read a time of the form. Raises Unclear, NotYours."""
    fields = {name: _line(given.get(name, "")) for name in (*FIELDS, "before")}
    start, end = _time(fields["from"], begins), _time(fields["to"], ends)
    if start is not None and end is not None and end < start:
        raise Unclear("search.bad.order")
    return Query(
        posts=_posts(fields["post"], scope),
        start_utc_ns=start,
        end_utc_ns=end,
        label=_one_of(fields["class"], LABELS, "class"),
        kind=_one_of(fields["kind"], KINDS, "kind"),
        severity=_one_of(fields["severity"], SEVERITIES, "severity"),
        verdict=_one_of(fields["verdict"], VERDICTS, "verdict"),
        zone=_zone(fields["zone"]),
        words=_words(fields["word"]),
        before=_before(fields["before"]),
    )


def _line(text: str) -> str:
    """One line, trimmed. Raises Unclear for what no keyboard sends."""
    line = " ".join(text.split())
    if not line.isprintable():
        raise Unclear("search.bad.letters")
    return line


def _posts(text: str, scope: Scope) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.replace(",", " ").split()))
    if len(names) > POSTS_MAX:
        raise Unclear("search.bad.posts")
    if not all(POST.fullmatch(name) for name in names):
        raise Unclear("search.bad.post")
    if not scope.covers_all(names):
        raise NotYours
    return names


def _time(text: str, instant: Callable[[str], int | None]) -> int | None:
    if not text:
        return None
    found = instant(text)
    if found is None:
        raise Unclear("search.bad.time")
    return found


def _one_of(text: str, known: tuple[str, ...], field: str) -> str:
    if text and text not in known:
        raise Unclear(f"search.bad.{field}")
    return text


def _zone(text: str) -> str:
    if text and not POST.fullmatch(text):  # zones are named as posts are
        raise Unclear("search.bad.zone")
    return text


def _words(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(text.split()))
    if len(text) > WORD_CHARS_MAX or len(words) > WORDS_MAX:
        raise Unclear("search.bad.word")
    return words


def _before(text: str) -> Place | None:
    if not text:
        return None
    found = _BEFORE.fullmatch(text)
    if found is None or int(found[1]) > UTC_NS_MAX:
        raise Unclear("search.bad.before")
    return Place(int(found[1]), found[2] or "")
