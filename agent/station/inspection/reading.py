"""What draw and report are made of, out of the store. Every query is bounded; what was cut is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, or_, select, true

from agent.recording.coverage import RECORDED
from agent.station import archive_retention_rows as retention
from agent.station.cases.states import TABLE, Act, State
from agent.station.db.board import alert
from agent.station.db.books import command
from agent.station.db.cases import (
    case_act,
    case_head,
    case_item,
    case_post,
    inspection_check,
    inspection_draw,
    inspection_sample,
)
from agent.station.db.engine import reading
from agent.station.db.people import person
from agent.station.db.tables import node
from agent.station.db.uploads import footage
from agent.station.footage import told
from agent.station.inspection.drawn import Drawn, read_back
from agent.station.inspection.report import (
    AlertFact,
    CaseFact,
    PostFigures,
    RemovedFact,
    RequestFact,
    share_recorded,
)
from agent.station.inspection.sample import PostFacts
from agent.station.orders import KEPT_MAX
from agent.station.people.roles import Scope
from agent.station.posts.known import Known
from agent.station.posts.outages import Outage, away, outages_of, uptime
from agent.station.posts.reader import PostsReader
from agent.station.uploads_judge import State as FootageState
from agent.station.uploads_rows import serves

FILES_OF_POST_MAX = 1000
"""Of one post that can be drawn; which, hangs on the draw."""
ALERTS_MAX = 100_000
REQUESTS_MAX = 5000
CHECKS_SHOWN_MAX = 500
CASES_MAX = 10_000
"""The newest."""
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

    def drawn(self, week: str) -> Drawn | None:
        """What was drawn in a week; None: nobody has drawn."""
        with reading(self._engine, "read what was drawn") as db:
            body = db.execute(select(inspection_sample.c.body).where(inspection_sample.c.week == week)).scalar()
        return None if body is None else read_back(str(body))

    def whole(self, week: str) -> bytes | None:
        """The draw of a week with all that it was drawn from, JSON, as its hash on the audit log has it: megabytes.
        None: nobody has drawn.
        """
        with reading(self._engine, "read a draw") as db:
            body = db.execute(select(inspection_draw.c.body).where(inspection_draw.c.week == week)).scalar()
        return None if body is None else str(body).encode()

    def checks(self, scope: Scope, week: str | None = None) -> tuple[list[Check], bool]:
        """Results, the newest CHECKS_SHOWN_MAX, newest first; of one week. And whether there are more."""
        c = inspection_check.c
        query = select(inspection_check, person.c.name).outerjoin(person, person.c.login == c.login)
        if week is not None:
            query = query.where(c.week == week)
        query = query.where(_mine(scope, c.node)).order_by(c.n.desc())
        with reading(self._engine, "read inspections") as db:
            rows = db.execute(query.limit(CHECKS_SHOWN_MAX + 1)).all()
        found = [
            Check(r.n, r.week, r.kind, r.node, r.ref, r.name or r.login, r.utc_ns, r.result, r.text)
            for r in rows[:CHECKS_SHOWN_MAX]
        ]
        return found, len(rows) > CHECKS_SHOWN_MAX

    # -- for the report -----------------------------------------------------------------------------------------------

    def alerts(self, scope: Scope, start_utc_ns: int, end_utc_ns: int) -> tuple[list[AlertFact], bool]:
        """Raised in the period, the oldest ALERTS_MAX; and whether there were more."""
        c = alert.c
        query = select(c.node, c.due_utc_ns, c.acknowledged_utc_ns, c.verdict).where(
            c.raised_utc_ns >= start_utc_ns, c.raised_utc_ns < end_utc_ns, _mine(scope, c.node)
        )
        # Of some posts SQLite would walk along everybody's, as an index in that order saves it a sort; not by a sum.
        at = c.raised_utc_ns if scope.whole_site else c.raised_utc_ns + 0
        with reading(self._engine, "read alerts") as db:
            rows = db.execute(query.order_by(at).limit(ALERTS_MAX + 1)).all()
        found = [AlertFact(r.node, r.due_utc_ns, r.acknowledged_utc_ns, r.verdict or "") for r in rows[:ALERTS_MAX]]
        return found, len(rows) > ALERTS_MAX

    def requests(self, scope: Scope, start_utc_ns: int, end_utc_ns: int) -> tuple[list[RequestFact], bool]:
        """Asked of posts in the period, the newest REQUESTS_MAX; and whether there were more, or may have been: the
        queue keeps the newest KEPT_MAX commands that are over, so its whole length can be read.
        """
        c = command.c
        asked = select(c.n, c.id, c.node, c.state).where(
            c.verb == "send", c.asked_utc_ns >= start_utc_ns, c.asked_utc_ns < end_utc_ns, _mine(scope, c.node)
        )
        by = c.n if scope.whole_site else c.n + 0  # as with alerts
        with reading(self._engine, "read requests") as db:
            rows = db.execute(asked.order_by(by.desc()).limit(REQUESTS_MAX + 1)).all()
            cut = len(rows) > REQUESTS_MAX or _forgotten_since(db, start_utc_ns)
            return [RequestFact(one.node, one.state, _files_of(db, one.id)) for one in rows[:REQUESTS_MAX]], cut

    def removed(self, scope: Scope, start_utc_ns: int, end_utc_ns: int) -> list[RemovedFact]:
        """What left the archive by retention in the period, by its tombstones."""
        with reading(self._engine, "count what was removed") as db:
            told = retention.counted(db, scope, start_utc_ns, end_utc_ns)
        return [RemovedFact(why.value, files, size) for why, (files, size) in told.items()]

    def cases(self, scope: Scope) -> tuple[list[CaseFact], bool]:
        """What the newest CASES_MAX cases cover that are about posts of a scope or have footage of them, and while they
        were not closed; and whether there are older ones.
        """
        a, p, i = case_act.c, case_post.c, case_item.c
        of_posts = select(p.case_n).where(_mine(scope, p.node))
        of_files = select(i.case_n).where(_mine(scope, i.node), i.kind == "footage")
        n = case_head.c.n
        mine = true() if scope.whole_site else or_(n.in_(of_posts), n.in_(of_files))
        with reading(self._engine, "read cases") as db:
            newest = db.execute(select(n).where(mine).order_by(n.desc()).limit(CASES_MAX + 1)).scalars().all()
            cut, newest = len(newest) > CASES_MAX, newest[:CASES_MAX]
            if not newest:
                return [], cut
            these = select(n).where(mine, n >= newest[-1])
            acts = db.execute(
                select(a.case_n, a.act, a.utc_ns).where(a.case_n.in_(these)).order_by(a.case_n.desc(), a.number)
            ).all()
            posts = _grouped(db.execute(select(p.case_n, p.node).where(p.case_n.in_(these))))
            files = _grouped(db.execute(select(i.case_n, i.ref).where(i.case_n.in_(these), i.kind == "footage")))
        by_case: dict[int, list[tuple[Act, int]]] = {}
        for of, act, utc_ns in acts:
            by_case.setdefault(of, []).append((Act(act), utc_ns))
        found = [
            CaseFact(frozenset(posts.get(of, ())), frozenset(files.get(of, ())), since, until)
            for of, timeline in by_case.items()
            for since, until in _worked_on(timeline)
        ]
        return found, cut

    def posts(
        self,
        scope: Scope,
        start_utc_ns: int,
        end_utc_ns: int,
        *,
        now_utc_ns: int,
        zone: Any,
        alerts: Sequence[AlertFact],
    ) -> tuple[list[PostFigures], int]:
        """The first POSTS_MAX posts, by name; and how many there are beyond."""
        everybody = PostsReader(self._engine).read({}, now_utc_ns=now_utc_ns)
        outages = {one.node: outages_of(one.changes) for one in everybody}
        aways = away(everybody, outages)
        end = min(end_utc_ns, now_utc_ns)
        mine = [one for one in everybody if scope.covers(one.node)]
        raised = Counter(one.node for one in alerts)
        found = [
            self._post(one, outages[one.node], aways, start_utc_ns, end, zone, raised[one.node])
            for one in mine[:POSTS_MAX]
        ]
        return found, len(mine) - len(found)

    def _post(
        self,
        one: Known,
        outages: Sequence[Outage],
        aways: Sequence[Outage],
        start: int,
        end: int,
        zone: Any,
        alerts: int,
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
            alerts=alerts,
            cut=known.cut,
        )


def post_facts(db: Connection, now_utc_ns: int) -> list[PostFacts]:
    """Every post that was ever heard: in the transaction of the draw."""
    c = inspection_check.c
    checked = dict(db.execute(select(c.node, func.max(c.utc_ns)).where(c.kind == "post").group_by(c.node)).all())
    rows = db.execute(
        select(node.c.node, node.c.state, node.c.state_since_utc_ns, node.c.seen_utc_ns).order_by(node.c.node)
    ).all()
    first = dict(db.execute(select(footage.c.node, func.min(footage.c.received_utc_ns)).group_by(footage.c.node)).all())
    return [
        PostFacts(
            node=r.node,
            checked_utc_ns=checked.get(r.node),
            dark=r.state in ("dark", "offline"),
            known_since_utc_ns=min(r.state_since_utc_ns, r.seen_utc_ns, first.get(r.node, now_utc_ns)),
        )
        for r in rows
    ]


def senders(db: Connection, since_utc_ns: int) -> list[str]:
    """Posts of which any footage came since, by name."""
    c = footage.c
    newest = select(c.node).group_by(c.node).having(func.max(c.received_utc_ns) >= since_utc_ns).order_by(c.node)
    return [str(of) for of in db.execute(newest).scalars()]


def files_to_check(db: Connection, of: str, since_utc_ns: int, first: str) -> list[str]:
    """SHA-256 of files that came of a post since, that are what it recorded and that nobody has looked at: those from
    `first` on, in their order and around its end, FILES_OF_POST_MAX at most.
    """
    c, k = footage.c, inspection_check.c
    looked_at = select(k.ref).where(k.node == of, k.kind == "footage")
    those = (
        select(c.sha256)
        .where(
            c.node == of,
            c.state != FootageState.MISMATCH.value,
            c.received_utc_ns >= since_utc_ns,
            c.sha256.notin_(looked_at),
        )
        .distinct()
        .order_by(c.sha256)
    )
    found: list[str] = []
    for part in (those.where(c.sha256 >= first), those.where(c.sha256 < first)):
        found += db.execute(part.limit(FILES_OF_POST_MAX - len(found))).scalars()
    return found


def _mine(scope: Scope, column: Any) -> ColumnElement[bool]:
    return true() if scope.whole_site else column.in_(sorted(scope.posts))


def _forgotten_since(db: Connection, start_utc_ns: int) -> bool:
    """Whether the queue has dropped commands that may have been asked for since then."""
    c = command.c
    newest = int(db.execute(select(func.coalesce(func.max(c.n), 0))).scalar_one())
    if newest <= KEPT_MAX:
        return False
    kept = db.execute(select(c.asked_utc_ns).where(c.n > newest - KEPT_MAX).order_by(c.n).limit(1)).scalar_one()
    return bool(kept > start_utc_ns)


def _files_of(db: Connection, order: str) -> int:
    good = serves(order) & (footage.c.state != FootageState.MISMATCH.value)
    here = int(db.execute(select(func.count()).select_from(footage).where(good)).scalar_one())
    return here + retention.of_order(db, order)  # what it has brought counts, also when its time is over since


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
