"""Who viewed a post's camera, or was given its footage: what the audit log tells of one post. Pure, but for `read`.

It is for the household that hosts the post, so a line tells nothing of other posts: only what concerns this one is
taken from it, and names of others in what people have written are left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine, func, select

from agent.clock import parse_rfc3339
from agent.errors import Corrupt
from agent.evidence import dsse, records
from agent.evidence.records import Payload
from agent.station.db.cases import case_head, case_post
from agent.station.db.engine import reading
from agent.station.db.people import trail
from agent.station.db.tables import node
from agent.station.people.registry import find
from agent.station.people.roles import Role
from agent.station.people.trail_line import KIND

LINES_MAX = 20_000
"""Of the audit log, in one page; older ones are on the next."""
READ_ROWS = 1000
SHOWN_MAX = 200
HIDDEN = "…"
PLACE_CHARS_MIN = 3
_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.IGNORECASE)
_SHOWN = {"footage": "footage", "original": "original", "picture": "picture", "alert": "alert"}
_ACTS = {
    "opened": "opened",
    "viewed": "case-viewed",
    "copied": "copied",
    "transferred": "transferred",
    "returned": "returned",
}


@dataclass(frozen=True, slots=True)
class View:
    """One line of a household's page. `what` is a key of words.*.json behind `household.what.`."""

    seq: int
    utc_ns: int
    what: str
    who: str  # login, or `account:NAME` at the station's own machine; empty: the station by itself
    reason: str = ""
    case: str = ""  # the authority's number of the case, or what was written in its place
    to: str = ""  # who was given it
    count: int = 0  # files or pictures
    seconds: float | None = None  # how long a live view lasted; None: that is not told
    view: str = ""  # id of a live view
    name: str = ""  # of who did it, as colleagues know him
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """The newest first. `before`: the number of a line to go on from; None: there are no older ones."""

    views: tuple[View, ...]
    before: int | None


def view_of(payload: Payload, post: str, cases: Mapping[int, str]) -> View | None:
    """What a line tells of a post; None: nothing that concerns it. `cases`: numbers of the cases of this post."""
    kind, body = payload.kind.removeprefix(KIND), payload.body
    try:
        bare = View(payload.seq, parse_rfc3339(payload.utc), kind, _text(body, "who"))
    except ValueError:
        return None
    if kind in _OF_ONE:
        return _of_one(bare, body) if body.get("post") == post else None
    if kind in ("viewed", "bell-hold"):
        posts = body.get("posts")
        return _of_many(bare, body, posts[post]) if isinstance(posts, dict) and post in posts else None
    number = cases.get(body["case"]) if kind == "case" and isinstance(body.get("case"), int) else None
    return None if number is None else _of_case(bare, body, post, number)


_OF_ONE = frozenset({"live-began", "live-ended", "footage-held", "footage-requested", "dock-ended"})


def _of_one(bare: View, body: Mapping[str, Any]) -> View:
    """Lines that name one post."""
    seconds = body.get("seconds")
    return replace(
        bare,
        what="live" if bare.what == "live-began" else bare.what,
        reason=_text(body, "reason"),
        case=_text(body, "case"),
        view=_text(body, "view"),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
    )


def _of_many(bare: View, body: Mapping[str, Any], refs: object) -> View | None:
    """Lines that name several posts, and what of each. Their reasons may be about another one."""
    if bare.what == "bell-hold":
        return bare
    what = _SHOWN.get(_text(body, "what"))
    return None if what is None else replace(bare, what=what, count=len(refs) if isinstance(refs, list) else 1)


def _of_case(bare: View, body: Mapping[str, Any], post: str, number: str) -> View | None:
    """Acts on a case that has this post."""
    told = body.get("told")
    told = told if isinstance(told, dict) else {}
    what = _ACTS.get(_text(body, "act"))
    if what is None or told.get("node", post) != post:
        return None
    if what == "copied" and "node" not in told and post not in _text(told, "detail").split():
        return None  # a package of several posts, in which this one is not
    return replace(bare, what=what, reason=_text(told, "reason"), case=number, to=_text(told, "recipient"))


def without(text: str, ids: Collection[str], places: Collection[str]) -> str:
    """A text without the names of other posts: their ids, and the places where they are."""
    for place in places:
        if len(place) >= PLACE_CHARS_MIN and place.casefold() in text.casefold():
            text = re.sub(re.escape(place), HIDDEN, text, flags=re.IGNORECASE)
    return _ID.sub(lambda found: HIDDEN if found[0].lower() in ids else found[0], text)


def read(engine: Engine, post: str, before: int | None = None) -> Page:
    """What the audit log tells of a post: LINES_MAX lines of it, those before line `before`. Any thread; blocks for
    reading them. Raises Transient.
    """
    with reading(engine, "read the audit log") as db:
        newest = int(db.execute(select(func.coalesce(func.max(trail.c.seq), 0))).scalar_one())
        others = db.execute(select(node.c.node, node.c.place).where(node.c.node != post)).all()
        own = str(db.execute(select(node.c.place).where(node.c.node == post)).scalar() or "")
        heads = select(case_head.c.n, case_head.c.number).join(case_post, case_post.c.case_n == case_head.c.n)
        cases = {int(n): str(number) for n, number in db.execute(heads.where(case_post.c.node == post))}
        people = {one.login: one for one in find(db)}
    last = newest if before is None else min(before - 1, newest)
    oldest = max(last - LINES_MAX, 0)
    found: list[View] = []
    lasted: dict[str, float | None] = {}
    while last > oldest and len(found) < SHOWN_MAX:
        with reading(engine, "read the audit log") as db:
            rows = db.execute(
                select(trail.c.seq, trail.c.line)
                .where(trail.c.seq <= last, trail.c.seq > max(last - READ_ROWS, oldest))
                .order_by(trail.c.seq.desc())
            ).all()
        for seq, line in rows:
            last = int(seq) - 1
            one = _read(bytes(line), post, cases)
            if one is None:
                continue
            if one.what == "live-ended":  # it comes before its beginning here
                lasted[one.view] = one.seconds
                continue
            found.append(one)
            if len(found) >= SHOWN_MAX:
                break
        if not rows:
            last = oldest
    ids = {str(of) for of, _ in others}
    places = {str(place) for _, place in others if place and str(place) != own}
    views = []
    for one in found:
        who = people.get(one.who)
        views.append(
            replace(
                one,
                reason=without(one.reason, ids, places),
                case=without(one.case, ids, places),
                to=without(one.to, ids, places),
                seconds=lasted.get(one.view) if one.view else None,
                name="" if who is None else without(who.name, ids, places),
                role=None if who is None else who.role,
            )
        )
    return Page(tuple(views), last + 1 if last > 0 else None)


def _read(line: bytes, post: str, cases: Mapping[int, str]) -> View | None:
    """Most lines do not name the post: only those that may are taken apart."""
    try:
        envelope = dsse.parse(line)
        if post.encode() not in envelope.payload and not (cases and b'"case"' in envelope.payload):
            return None
        return view_of(records.read(envelope), post, cases)
    except Corrupt:
        return None


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value[:300] if isinstance(value, str) else ""
