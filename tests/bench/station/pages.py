"""How long the desk's pages take with a month of a ward in the store: through the served station, logged in, one by one.

Times are what an HTTP client on the same machine waits, so whatever else runs there makes them longer; the CPU time that
the whole station spent per page stands beside them. Each page is asked for by somebody who may see everything, and by
three who may see some posts only: nothing but their own may be looked at, and that must not take longer. What was read
of a ledger is remembered, so the first look at a day after a start is timed by itself.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from agent.station.people.roles import Role
from agent.station.search.finder import WALKS_MAX
from agent.types import NS
from tests.bench.figure import Bench, Row, Skip, percentile
from tests.bench.programs import Memory, broker
from tests.bench.station import EVENTS, VISITS, postgres
from tests.bench.station.fill import LEDGER_DAYS, LEDGERS, Filled, fill
from tests.bench.station.served import Desk, Visitor, people, served

LIMIT_MS = 200.0
HOUR_NS = 3600 * NS


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody, and the posts that he may see; none named: all."""

    login: str
    role: Role
    posts: tuple[str, ...]

    def sees(self, filled: Filled) -> tuple[str, ...]:
        return self.posts or filled.posts


@dataclass(frozen=True, slots=True)
class Page:
    """One kind of page. `path` draws one that this person may see."""

    key: str
    what: str
    path: Callable[[Filled, Viewer, random.Random], str]
    limited: bool = True  # by LIMIT_MS


def viewers(filled: Filled) -> tuple[Viewer, ...]:
    """The whole site, a patrol's tenth of it and some, as many as a search looks through one by one, a school's three."""
    return (
        Viewer("operator", Role.OPERATOR, ()),
        Viewer("patrol", Role.OPERATOR, filled.posts[:: max(len(filled.posts) // 50, 1)] + filled.posts[1:LEDGERS]),
        Viewer("ward", Role.OPERATOR, filled.posts[:WALKS_MAX]),
        Viewer("school", Role.SCHOOL, filled.posts[:3]),
    )


def measure(bench: Bench) -> list[Row]:
    """p95 of each page for each kind of person, on SQLite and on PostgreSQL; memory at rest, filled, and after it."""
    events = EVENTS[bench.size.name]
    rows: list[Row] = []
    with broker(bench.folder / "broker") as port:
        rest = _rest(bench.folder / "empty", port)
        rows += _on(bench, bench.folder / "sqlite", port, events, rest=rest, database="")
        try:
            with postgres.server() as server:
                database = server.make("pages")
                rows += _on(bench, bench.folder / "postgresql", port, events, rest=rest, database=database)
        except Skip as why:
            rows.append(Row("pages-postgresql", "the same with PostgreSQL", 0.0, "ms", f"skipped: {why}"))
    return rows


def _rest(folder: Path, port: int) -> Memory:
    """Of a station that has nothing yet."""
    with served(folder, broker_port=port) as desk:
        time.sleep(1.0)
        return desk.program.memory()


def _on(bench: Bench, folder: Path, port: int, events: int, *, rest: Memory, database: str) -> list[Row]:
    kind = "postgresql" if database else "sqlite"
    data = folder / "data"
    data.mkdir(parents=True)
    filled = fill(data, events=events, now_utc_ns=time.time_ns(), database=database)
    known = viewers(filled)
    people(data, [(one.login, one.role, one.posts) for one in known], database=database)
    rows = []
    started = time.monotonic()
    with served(folder, broker_port=port, database=database) as desk:
        start_s = time.monotonic() - started
        full = desk.program.memory()
        rows.append(_first_look(desk, known[0], filled, kind))
        for one in known:
            visitor = desk.visitor(one.login)
            rows += [_timed(bench, desk, visitor, one, page, filled, kind) for page in PAGES]
        after = desk.program.memory()
    of = f"{filled.events:,} events, {kind}"
    return [
        *rows,
        Row(f"start-{kind}", f"start of the station to its first page, {of}", start_s, "s"),
        Row(f"rss-{kind}", f"memory of the station with {of}", full.rss_mb, "MB", "an empty one", rest.rss_mb),
        Row(f"rss-visited-{kind}", "the same after all visits", after.rss_mb, "MB", "an empty one", rest.rss_mb),
    ]


def _first_look(desk: Desk, who: Viewer, filled: Filled, kind: str) -> Row:
    """At a day of eight posts, by anybody since the station has started."""
    visitor = desk.visitor(who.login)
    path = _footage(LEDGERS, 24.0)(filled, who, random.Random(2))
    started_ns, spent_s = time.perf_counter_ns(), desk.program.cpu_s()
    visitor.get(path)
    took_ms = (time.perf_counter_ns() - started_ns) / 1e6
    cpu_ms = (desk.program.cpu_s() - spent_s) * 1000
    return Row(
        f"footage-8-day-first-{kind}",
        f"{kind}: footage of 8 posts, a day that nobody has looked at since the start (CPU {cpu_ms:.0f} ms)",
        took_ms,
        "ms",
        note=f"one visit; CPU of the station {cpu_ms:.0f} ms",
    )


def _timed(bench: Bench, desk: Desk, visitor: Visitor, who: Viewer, page: Page, filled: Filled, kind: str) -> Row:
    draw = random.Random(1)
    times = []
    spent_s = desk.program.cpu_s()
    for _ in range(VISITS[bench.size.name]):
        path = page.path(filled, who, draw)
        started_ns = time.perf_counter_ns()
        visitor.get(path)
        times.append((time.perf_counter_ns() - started_ns) / 1e6)
    cpu_ms = (desk.program.cpu_s() - spent_s) * 1000 / len(times)
    p50, p95 = percentile(times, 0.5), percentile(times, 0.95)
    return Row(
        f"{page.key}-{who.login}-{kind}",
        f"{kind}: {page.what}, {who.login}, p95 (p50 {p50:.0f} ms, CPU {cpu_ms:.0f} ms)",
        p95,
        "ms",
        "the limit",
        LIMIT_MS,
        target=f"< {LIMIT_MS:g} ms" if page.limited else "",
        met=p95 < LIMIT_MS if page.limited else None,
        note=f"{filled.events:,} events; {len(times)} visits; p50 {p50:.1f} ms, CPU of the station {cpu_ms:.1f} ms each",
    )


# -- which pages --------------------------------------------------------------------------------------------------------


def _board(_filled: Filled, _who: Viewer, _draw: random.Random) -> str:
    return "/"


def _alert(filled: Filled, who: Viewer, draw: random.Random) -> str:
    incident, _ = draw.choice([one for one in filled.incidents if one[1] in who.sees(filled)])
    return f"/alerts/{incident}"


def _around(filled: Filled, who: Viewer, draw: random.Random) -> str:
    incident, _ = draw.choice([one for one in filled.incidents if one[1] in who.sees(filled)])
    return f"/footage?alert={incident}"


def _footage(posts: int, hours: float) -> Callable[[Filled, Viewer, random.Random], str]:
    def path(filled: Filled, who: Viewer, draw: random.Random) -> str:
        told = [one for one in filled.posts[:LEDGERS] if one in who.sees(filled)]
        first = filled.now_utc_ns - LEDGER_DAYS * 24 * HOUR_NS
        start = draw.randrange(first, filled.now_utc_ns - round(hours * HOUR_NS))
        asked = {f"post.{one}": "on" for one in draw.sample(told, min(posts, len(told)))}
        return "/footage?" + urlencode(asked | {"from": _field(start), "to": _field(start + round(hours * HOUR_NS))})

    return path


def _field(utc_ns: int) -> str:
    return f"{dt.datetime.fromtimestamp(utc_ns // NS, dt.UTC):%Y-%m-%dT%H:%M:%S}"


def _search(
    *, span_hours: float = 0.0, post: bool = False, **asked: str
) -> Callable[[Filled, Viewer, random.Random], str]:
    def path(filled: Filled, who: Viewer, draw: random.Random) -> str:
        given = dict(asked)
        if post:
            given["post"] = draw.choice(who.sees(filled))
        if span_hours:
            end = filled.now_utc_ns - draw.randrange(20 * 24) * HOUR_NS
            given |= {"from": _field(end - round(span_hours * HOUR_NS)), "to": _field(end)}
        return "/search?" + urlencode(given)

    return path


def _posts(_filled: Filled, _who: Viewer, _draw: random.Random) -> str:
    return "/posts"


PAGES = (
    Page("board", "board", _board),
    Page("alert", "an alert", _alert),
    Page("footage", "footage of a post, an hour", _footage(1, 1.0)),
    Page("footage-day", "footage of a post, a day", _footage(1, 24.0)),
    Page("footage-8", "footage of 8 posts, an hour", _footage(8, 1.0)),
    Page("footage-8-day", "footage of 8 posts, a day", _footage(8, 24.0)),
    Page("around", "footage around an alert", _around),
    Page("search", "search, the newest", _search()),
    Page("search-post", "search: persons at a post, a week", _search(post=True, span_hours=168, **{"class": "person"})),
    Page("search-words", "search: a place in a day", _search(span_hours=24, word="street 17")),
    Page("search-rare", "search: what 1 in 2,000 is", _search(kind="tamper")),
    Page("search-verdict", "search: alerts that were true", _search(severity="alert", verdict="true")),
    Page("search-nothing", "search: words that nobody said", _search(word="nobody ever said")),
    Page("search-nothing-kind", "search: a zone that no crowd was in", _search(kind="crowd", zone="moon")),
    Page("posts", "list of posts", _posts, limited=False),
)
