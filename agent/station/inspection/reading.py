"""What draw and report are made of, out of the store. Every query is bounded; what was cut is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from agent.clock import parse_rfc3339
from agent.errors import Corrupt
from agent.evidence import dsse, records
from agent.recording.coverage import RECORDED
from agent.station import archive_retention_rows as retention
from agent.station.cases.states import TABLE, Act, State
from agent.station.db.board import alert
from agent.station.db.cases import case_act, case_item, case_post, inspection_check, inspection_draw
from agent.station.db.engine import reading
from agent.station.db.people import person, trail
from agent.station.db.tables import node
from agent.station.db.uploads import footage
from agent.station.footage import told
from agent.station.inspection.report import (
    AlertFact,
    CaseFact,
    PostFigures,
    RemovedFact,
    RequestFact,
    ViewFact,
    share_recorded,
)
from agent.station.inspection.sample import PostFacts
from agent.station.orders import OrderBook
from agent.station.people.roles import Scope
from agent.station.posts.known import Known
from agent.station.posts.outages import Outage, away, outages_of, uptime
from agent.station.posts.reader import PostsReader
from agent.station.uploads_judge import State as FootageState
from agent.station.uploads_rows import serves

FILES_MAX = 20_000
ALERTS_MAX = 100_000
ORDERS_OF_POST_MAX = 1000
TRAIL_LINES_MAX = 200_000
READ_ROWS = 1000
CHECKS_SHOWN_MAX = 500
CASES_MAX = 10_000
POSTS_MAX = 500
"""Of one report: coverage is reckoned anew from the ledgers, some milliseconds a post and day."""


@dataclass(frozen=True, slots=True)
class Check:
    """A result on record."""

    n: int
    week: str
    kind: str
    node: str
    ref: str
    who: str
    utc_ns: int
    result: str
    text: str


class InspectionReader:
    """Any thread. Raises Transient."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- for the draw -------------------------------------------------------------------------------------------------

    def draw(self, week: str) -> str | None:
        """The draw of a week, JSON; None: nobody has drawn."""
        with reading(self._engine, "read a draw") as db:
            return db.execute(select(inspection_draw.c.body).where(inspection_draw.c.week == week)).scalar()

    def checks(self, scope: Scope, week: str | None = None) -> list[Check]:
        """Results, the newest first; of one week."""
        c = inspection_check.c
        query = select(inspection_check, person.c.name).outerjoin(person, person.c.login == c.login)
        if week is not None:
            query = query.where(c.week == week)
        if not scope.whole_site:
            query = query.where(c.node.in_(sorted(scope.posts)))
        with reading(self._engine, "read inspections") as db:
            rows = db.execute(query.order_by(c.n.desc()).limit(CHECKS_SHOWN_MAX)).all()
        return [Check(r.n, r.week, r.kind, r.node, r.ref, r.name or r.login, r.utc_ns, r.result, r.text) for r in rows]

    # -- for the report -----------------------------------------------------------------------------------------------

    def alerts(self, scope: Scope, start_utc_ns: int, end_utc_ns: int) -> list[AlertFact]:
        """Raised in the period."""
        c = alert.c
        query = select(c.node, c.due_utc_ns, c.acknowledged_utc_ns, c.verdict).where(
            c.raised_utc_ns >= start_utc_ns, c.raised_utc_ns < end_utc_ns
        )
        with reading(self._engine, "read alerts") as db:
            rows = db.execute(query.order_by(c.raised_utc_ns).limit(ALERTS_MAX)).all()
        return [
            AlertFact(r.node, r.due_utc_ns, r.acknowledged_utc_ns, r.verdict or "")
            for r in rows
            if scope.covers(r.node)
        ]

    def requests(self, nodes: Sequence[str], start_utc_ns: int, end_utc_ns: int) -> list[RequestFact]:
        """Asked of posts in the period."""
        with OrderBook(self._engine) as book:
            asked = [
                one
                for of in nodes
                for one in book.of(of, ORDERS_OF_POST_MAX)
                if one.verb == "send" and start_utc_ns <= one.asked_utc_ns < end_utc_ns
            ]
        with reading(self._engine, "read footage") as db:
            return [RequestFact(one.node, one.state, _files_of(db, one.id)) for one in asked]

    def removed(self, scope: Scope, start_utc_ns: int, end_utc_ns: int) -> list[RemovedFact]:
        """What left the archive by retention in the period, by its tombstones."""
        with reading(self._engine, "count what was removed") as db:
            told = retention.counted(db, scope, start_utc_ns, end_utc_ns)
        return [RemovedFact(why.value, files, size) for why, (files, size) in told.items()]

    def views(self, scope: Scope, start_utc_ns: int, end_utc_ns: int) -> tuple[list[ViewFact], bool]:
        """Views of footage in the period, by the audit log; and whether it was too long to be read through."""
        found: list[ViewFact] = []
        with reading(self._engine, "read the audit log") as db:
            newest = int(db.execute(select(func.coalesce(func.max(trail.c.seq), 0))).scalar_one())
        oldest = max(newest - TRAIL_LINES_MAX, 0)
        for last in range(newest, oldest, -READ_ROWS):
            with reading(self._engine, "read the audit log") as db:
                query = select(trail.c.line).where(trail.c.seq <= last, trail.c.seq > max(last - READ_ROWS, oldest))
                lines = [bytes(raw) for raw in db.execute(query.order_by(trail.c.seq.desc())).scalars()]
            times = [_views(raw, found, start_utc_ns, end_utc_ns) for raw in lines]
            if times and min(times) < start_utc_ns:
                return [one for one in found if scope.covers(one.node)], False
        return [one for one in found if scope.covers(one.node)], oldest > 0

    def cases(self) -> list[CaseFact]:
        """What all cases cover, and while they were not closed."""
        c = case_act.c
        with reading(self._engine, "read cases") as db:
            acts = db.execute(select(c.case_n, c.act, c.utc_ns).order_by(c.case_n.desc(), c.number)).all()
            posts = _grouped(db.execute(select(case_post.c.case_n, case_post.c.node)))
            files = _grouped(
                db.execute(select(case_item.c.case_n, case_item.c.ref).where(case_item.c.kind == "footage"))
            )
        by_case: dict[int, list[tuple[Act, int]]] = {}
        for n, act, utc_ns in acts:
            if n in by_case or len(by_case) < CASES_MAX:
                by_case.setdefault(n, []).append((Act(act), utc_ns))
        return [
            CaseFact(frozenset(posts.get(n, ())), frozenset(files.get(n, ())), since, until)
            for n, timeline in by_case.items()
            for since, until in _worked_on(timeline)
        ]

    def posts(
        self,
        scope: Scope,
        start_utc_ns: int,
        end_utc_ns: int,
        *,
        now_utc_ns: int,
        zone: Any,
        alerts: Sequence[AlertFact],
    ) -> list[PostFigures]:
        """The first POSTS_MAX posts, by name."""
        everybody = PostsReader(self._engine).read({}, now_utc_ns=now_utc_ns)
        outages = {one.node: outages_of(one.changes) for one in everybody}
        aways = away(everybody, outages)
        end = min(end_utc_ns, now_utc_ns)
        return [
            self._post(one, outages[one.node], aways, start_utc_ns, end, zone, alerts)
            for one in everybody
            if scope.covers(one.node)
        ][:POSTS_MAX]

    def _post(
        self,
        one: Known,
        outages: Sequence[Outage],
        aways: Sequence[Outage],
        start: int,
        end: int,
        zone: Any,
        alerts: Sequence[AlertFact],
    ) -> PostFigures:
        up = uptime(
            one,
            [cut for cut in outages if cut.start_utc_ns < end],
            start_utc_ns=start,
            now_utc_ns=end,
            zone=zone,
            aways=aways,
        )
        known = told.read(self._engine, one.node, start, end)
        since = max(start, one.known_since_utc_ns)
        stretches, _ = known.account(start, end, now_utc_ns=end)
        recorded = [(part.start_utc_ns, part.end_utc_ns) for part in stretches if part.what == RECORDED]
        return PostFigures(
            node=one.node,
            place=one.place,
            up=up.up,
            outages=up.outages,
            recorded=share_recorded(recorded, since, end),
            alerts=sum(1 for fact in alerts if fact.node == one.node),
            cut=known.cut,
        )


def candidates(
    db: Connection, now_utc_ns: int, since_utc_ns: int
) -> tuple[list[PostFacts], list[tuple[str, str]], list[str]]:
    """Posts, files that came since, and the files that were looked at before: in the transaction of the draw."""
    c = inspection_check.c
    checked = dict(db.execute(select(c.node, func.max(c.utc_ns)).where(c.kind == "post").group_by(c.node)).all())
    rows = db.execute(
        select(node.c.node, node.c.state, node.c.state_since_utc_ns, node.c.seen_utc_ns).order_by(node.c.node)
    ).all()
    first = dict(db.execute(select(footage.c.node, func.min(footage.c.received_utc_ns)).group_by(footage.c.node)).all())
    posts = [
        PostFacts(
            node=r.node,
            checked_utc_ns=checked.get(r.node),
            dark=r.state in ("dark", "offline"),
            known_since_utc_ns=min(r.state_since_utc_ns, r.seen_utc_ns, first.get(r.node, now_utc_ns)),
        )
        for r in rows
    ]
    files = db.execute(
        select(footage.c.node, footage.c.sha256)
        .where(footage.c.state != FootageState.MISMATCH.value, footage.c.received_utc_ns >= since_utc_ns)
        .distinct()
        .order_by(footage.c.node, footage.c.sha256)
        .limit(FILES_MAX)
    )
    seen = db.execute(select(c.ref).where(c.kind == "footage").distinct()).scalars()
    return posts, list(files), list(seen)


def _files_of(db: Connection, order: str) -> int:
    good = serves(order) & (footage.c.state != FootageState.MISMATCH.value)
    here = int(db.execute(select(func.count()).select_from(footage).where(good)).scalar_one())
    return here + retention.of_order(db, order)  # what it has brought counts, also when its time is over since


def _views(raw: bytes, found: list[ViewFact], start_utc_ns: int, end_utc_ns: int) -> int:
    """Adds what a line tells; returns its time, by the station's clock."""
    try:
        payload = records.read(dsse.parse(raw))
        at = parse_rfc3339(payload.utc)
    except (Corrupt, ValueError):
        return end_utc_ns
    body = payload.body
    if payload.kind == "desk-viewed" and body.get("what") == "footage" and start_utc_ns <= at < end_utc_ns:
        posts = body.get("posts")
        for of, refs in (posts if isinstance(posts, dict) else {}).items():
            found.extend(ViewFact(at, str(body.get("who", "")), str(of), str(ref)) for ref in refs)
    return at


def _grouped(rows: Any) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for n, text in rows:
        found.setdefault(int(n), set()).add(str(text))
    return found


def _worked_on(timeline: Sequence[tuple[Act, int]]) -> list[tuple[int, int | None]]:
    """While a case was open or at another agency."""
    found: list[tuple[int, int | None]] = []
    since: int | None = None
    state: State | None = None
    for act, utc_ns in timeline:
        state = TABLE.get((state, act), state)
        alive = state in (State.OPEN, State.TRANSFERRED)
        if alive and since is None:
            since = utc_ns
        elif not alive and since is not None:
            found.append((since, utc_ns))
            since = None
    return found if since is None else [*found, (since, None)]
