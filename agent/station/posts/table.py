"""`wardpost posts`: the posts of a station in plain words, or as JSON."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from agent.clock import Clock, rfc3339
from agent.errors import ConfigError
from agent.quantities import gb
from agent.station.db.engine import database_url, open_engine
from agent.station.posts.fleet import PostView, judge, ranking, todo
from agent.station.posts.known import Spot
from agent.station.posts.reader import PostsReader, read_spots
from agent.station.posts.upkeep import bell_of, storage_days
from agent.station.posts.words import Words, bell_time, overwrite_of, view_dict
from agent.types import NS

PAST_SHOWN_MAX = 10


def posts(
    folder: Path,
    *,
    database: str,
    register: str,
    node: str | None,
    as_todo: bool,
    by_cost: bool,
    as_json: bool,
    clock: Clock,
    zone: dt.tzinfo | None = None,
    out: Callable[[str], None],
) -> int:
    """Prints the list, one post (`node`), or what is to be done. Returns 0. Raises ConfigError, Corrupt, Transient.

    `register`: the site's folder, or empty; `zone` is that of the days: the machine's own unless given.
    """
    if not database and not (folder / "station.db").is_file():
        raise ConfigError(f"{folder}/station.db: no such file; is a station running on this data folder?")
    spots: Mapping[str, Spot] = read_spots(Path(register)) if register else {}
    engine = open_engine(database_url(folder, database), read_only=True, pooled=False)
    try:
        now_ns = clock.utc().utc_ns
        here = zone or dt.datetime.fromtimestamp(now_ns // NS, dt.UTC).astimezone().tzinfo or dt.UTC
        views = judge(PostsReader(engine).read(spots, now_utc_ns=now_ns), now_utc_ns=now_ns, zone=here)
    finally:
        engine.dispose()
    words = Words.of("en")
    if node is not None:
        views = [view for view in views if view.post.node == node]
        if not views:
            raise ConfigError(f"{node}: this station has never heard it; is it enrolled here?")
    if as_json:
        order = ranking(views) if by_cost else views
        out(json.dumps([view_dict(view, words, now_ns) for view in order], indent=2, ensure_ascii=False))
        return 0
    if as_todo:
        lines = list(_todo(todo(views), words)) or ["nothing is to be done"]
    elif node is not None:
        lines = list(_one(views[0], words, now_ns))
    else:
        lines = [_line(view, words, now_ns, cost=by_cost) for view in (ranking(views) if by_cost else views)]
        lines = lines or ["no post was ever heard here"]
    out("\n".join(lines))
    return 0


def _line(view: PostView, words: Words, now_ns: int, *, cost: bool) -> str:
    """One post in one line: how it is, since when, why, how far its footage reaches."""
    post = view.post
    parts = [words.state(post)]
    if not post.heard:
        parts[0] += f", last heard {rfc3339(post.seen_utc_ns)}, {words.span((now_ns - post.seen_utc_ns) / NS)} ago"
    if view.now is not None:
        parts.append(f"why: {words.why(view.now)}")
    parts += _storage(view, now_ns)
    bell = bell_of(post, now_ns)
    if bell is not None and (cost or bell.trouble):
        parts.append("bell " + words(f"bell.{bell.look}").format(when=bell_time(bell)))
    if view.uptime.up is not None:
        parts.append(f"up {view.uptime.up:.1%}, {view.uptime.outages} outages in {len(view.uptime.days)} days")
    if cost:
        c = view.cost
        parts.append(
            f"upkeep {c.total_h:.1f} h in 30 days (visits {c.visits_h:.1f}, outages {c.outages_h:.1f},"
            f" storage {c.storage_h:.1f}, false alerts {c.false_h:.1f})"
        )
    where = f" ({post.place})" if post.place else ""
    return f"{post.node}{where}: {'; '.join(parts)}"


def _storage(view: PostView, now_ns: int) -> Iterator[str]:
    days, overwrite = storage_days(view.post, now_ns), overwrite_of(view)
    if days is not None:
        yield f"footage of {words_days(days)}"
    free = None if view.post.beat is None else view.post.beat.said.machine.diskfreebytes
    if free is not None:
        yield f"{gb(free)} free"
    if overwrite is not None:
        yield f"oldest goes {overwrite}"


def words_days(days: float) -> str:
    """`3.5 days`, `12 h`."""
    return f"{days:.1f} days" if days >= 2 else f"{days * 24:.0f} h"


def _one(view: PostView, words: Words, now_ns: int) -> Iterator[str]:
    yield _line(view, words, now_ns, cost=True)
    if view.now is not None:
        for one in view.now.evidence:
            yield f"    {words.evidence(one)} ({words.source(one)})"
        for other in view.now.others:
            yield f"    it may also be: {words(f'cause.{other.cause}')}"
            yield from (f"        {words.evidence(one)} ({words.source(one)})" for one in other.evidence)
        yield from (f"    to know more: {words(key)}" for key in view.now.more)
    if view.task is not None:
        yield f"    to do ({words(f'urgency.{view.task.urgency.name.lower()}')}): {words(view.task.what)}"
    for past in view.past[:PAST_SHOWN_MAX]:
        end = "" if past.outage.end_utc_ns is None else f" to {rfc3339(past.outage.end_utc_ns)}"
        length = words.span(past.outage.seconds(now_ns))
        yield f"    was dark {rfc3339(past.outage.start_utc_ns)}{end}, {length}: {words.why(past.verdict)}"
        yield from (f"        {words.evidence(one)} ({words.source(one)})" for one in past.verdict.evidence)


def _todo(trips: Sequence[Sequence[PostView]], words: Words) -> Iterator[str]:
    for trip in trips:
        tasks = [view.task for view in trip if view.task is not None]
        bring = list(dict.fromkeys(words(key) for task in tasks for key in task.bring))
        if len(trip) > 1:
            yield f"one way, {len(trip)} posts:"
        for view, task in zip(trip, tasks, strict=True):
            post = view.post
            where = f" ({post.place})" if post.place else ""
            why = "" if view.now is None else f" [{words.why(view.now)}]"
            yield f"{words(f'urgency.{task.urgency.name.lower()}')}: {post.node}{where}: {words(task.what)}{why}"
            if post.spot.custodian:
                yield f"    custodian: {post.spot.custodian}"
        if bring:
            yield f"    bring: {', '.join(bring)}"
