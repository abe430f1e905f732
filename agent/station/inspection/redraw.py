"""`wardpost redraw FILE`: draws the sample of a week again, from the whole draw as the page *Inspection* gives it.

It needs neither station nor network. What it cannot tell: whether the draw names every post and file there was, and
that its random number was not made twice. The first is in the station's store; for the second the line of the audit
log has both number and hash, from the moment of the draw.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.errors import ConfigError
from agent.evidence.records import digest
from agent.station.inspection.sample import (
    FOOTAGE_DRAWN,
    POSTS_DRAWN,
    WEEK,
    Candidate,
    draw,
    draw_files,
    footage_candidates,
    sender_candidate,
)

DRAW_BYTES_MAX = 64 << 20


class Draw(msgspec.Struct, frozen=True):
    """A whole draw, as the station has written it down. `seed` empty: of version 1."""

    site: str
    week: Annotated[str, Meta(pattern=f"^{WEEK.pattern}$")]
    posts: tuple[Candidate, ...]
    footage: tuple[Candidate, ...]
    drawn_posts: tuple[Candidate, ...]
    drawn_footage: tuple[Candidate, ...]
    seed: str = ""
    senders: tuple[str, ...] = ()
    drawn_senders: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


def wrong(told: Draw) -> list[str]:
    """What of it does not come out the same, in words; empty: all of it does. Pure."""
    found = []
    if tuple(draw(told.site, told.week, told.posts, POSTS_DRAWN, seed=told.seed)) != told.drawn_posts:
        found.append("other posts come out than those that were drawn")
    if not told.seed:
        again = draw(told.site, told.week, told.footage, FOOTAGE_DRAWN)
        return found if tuple(again) == told.drawn_footage else [*found, "other files come out than were drawn"]
    found += _wrong_senders(told)
    known = [(one.node, one.ref) for one in told.footage]
    if footage_candidates(known) != list(told.footage) or {of for of, _ in known} - set(told.drawn_senders):
        found.append("the files do not weigh what they should, or are of posts that were not drawn for theirs")
    again = draw_files(told.site, told.week, told.drawn_senders, told.footage, FOOTAGE_DRAWN, seed=told.seed)
    return found if tuple(again) == told.drawn_footage else [*found, "other files come out than were drawn"]


def _wrong_senders(told: Draw) -> list[str]:
    """Those are tried one after the other, until enough of them have files: nobody may be left out in between."""
    tried = len(told.drawn_senders) + len(told.passed_over)
    order = draw(
        told.site, told.week, [sender_candidate(of) for of in told.senders], max(tried, FOOTAGE_DRAWN), seed=told.seed
    )
    names = [one.node for one in order]
    passed_over = set(told.passed_over)
    if [of for of in names[:tried] if of not in passed_over] != list(told.drawn_senders):
        return ["other posts come out to have their files drawn"]
    if passed_over - set(names[:tried]):
        return ["posts are named as passed over that were not next"]
    return []


def redraw(path: Path, *, out: Callable[[str], None]) -> int:
    """0: the same comes out; 1: something else. Raises ConfigError for what is no draw."""
    try:
        with path.open("rb") as file:
            body = file.read(DRAW_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    if len(body) > DRAW_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {DRAW_BYTES_MAX >> 20} MB: no draw of an inspection")
    try:
        told = msgspec.json.decode(body, type=Draw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: no draw of an inspection as the page Inspection gives it: {error}") from None
    if any(one.weight <= 0 for one in (*told.posts, *told.footage)):
        raise ConfigError(f"{path}: a weight that is not above 0")
    out(f"{_plain(told.site)}, {told.week}: {len(told.drawn_posts)} posts of {len(told.posts)},"
        f" {len(told.drawn_footage)} files of {len(told.footage)}")  # fmt: skip
    for one in (*told.drawn_posts, *told.drawn_footage):
        out(f"  {_plain(one.node)} {_plain(one.ref)}".rstrip())
    found = wrong(told)
    for text in found:
        out(f"WRONG: {text}")
    if not found:
        out("The same comes out again.")
    out(f"The line `inspection-draw` of that week on the audit log must have sha256 {digest(body)}"
        + (f" and seed {_plain(told.seed)}" if told.seed else ""))  # fmt: skip
    return 1 if found else 0


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:100])
