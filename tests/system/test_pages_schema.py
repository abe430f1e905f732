"""The desk's pages and forms, gone over by schemathesis from a document of all of them, as hostile people of every role.

It is the generator alone that is used, in this process: its own runner keeps one session for all, knows nothing of the
token of a form, and mends what it sends. What it makes goes out half as a browser would send it, and half in one of the
hostile ways of tests/fakes/hostile.py. Nothing is shrunk: a desk is not the same when it is asked again; a fault is told
with the very request, and the seed.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
import sqlite3
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from sqlalchemy import select

from agent.station.db import metadata
from agent.station.db.engine import reading
from agent.station.people import trail_line
from agent.station.people.roles import Role
from agent.station.people.sessions import new_token
from agent.station.web.gate import SESSION
from agent.station.web.headers import HEADERS
from agent.station.web.routes import Bearer, Route
from tests.fakes import hostile
from tests.fakes.database import fresh
from tests.fakes.desk import JPEG, PASSWORD
from tests.fakes.hostile import Got, Sent, Wire
from tests.fakes.pages_document import HOSTILE, MARKED, NEWEST, PATHS, TAKES, Fields, answers, document
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.fakes.whole_desk import OTHER, OWN, SECRETS, WholeWard, whole_ward

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]  # on the busiest machine; a quiet one takes a minute

EXAMPLES = 4
"""Of each route in each round that schemathesis makes by the document."""
SENDERS = 4
"""Who send each of them, each in a way of his own: to make one takes longer than to send it."""
ROUNDS = 2
"""Each in another order: what one route has made of a case or an alert is what the next ones find."""
NEGATIVE = 1
"""Beside them: that it makes against the document. One of these takes as long as three others."""
MADE_SHARE = 0.15
"""Of the addresses, and of the forms, that are wholly schemathesis's."""
MIXED_SHARE = 0.4
"""Of the rest: with one field of it ..."""
MARKED_SHARE = 0.5
"""... or, in so many of those, with one that would break out of a page."""
ROUTES_A_SHIFT = 10
"""Then everybody logs in anew: time goes on, and sessions end."""
GUESSES_S = 120.0
"""Between two guesses of a password."""
IDLE_MAX = 12
"""Routes that by chance nobody got through to: a case must be closed before it can be opened again."""
FAULTS_MAX = 25
BOUND = (Role.SCHOOL, Role.HOUSEHOLD)
PICTURED = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL, Role.AUDITOR})
OTHERS_INCIDENTS = ("01900000-0000-7000-8000-000000000002", "01900000-0000-7000-8000-000000000004")
GOES = frozenset({"session", "school_contact", "footage", "package_wish", "retention_todo", "board_mark", "outward"})
"""Tables of which rows may go: who logs out, a contact that is removed, files that go by two people's word."""
DONE = frozenset({200, 204, 206, 303})


@dataclass
class Run:
    """What is learnt on the way."""

    ward: WholeWard
    wire: Wire
    seed: int
    faults: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    sessions: dict[str, str] = field(default_factory=dict)
    bearers: dict[str, str] = field(default_factory=dict)

    def begin_all(self) -> None:
        """Everybody comes anew."""
        for role in Role:
            self.sessions[role.value] = self.ward.desk.sessions.begin(role.value)

    def tell(self, what: str, sent: Sent, got: Got | None = None) -> None:
        if len(self.faults) < FAULTS_MAX:
            said = "" if got is None else f"\n    -> {got.status} {got.headers}\n    {got.text[:300]!r}"
            self.faults.append(f"{what}\n  {sent}{said}")


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[WholeWard]:
    with fresh("sqlite", tmp_path) as database, whole_ward(tmp_path, database) as made:
        yield made


def test_no_page_and_no_form_breaks_leaks_or_loses_anything_whoever_sends_what(
    ward: WholeWard, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = _rows(ward)
    schema = _schema(document(ward.desk.routes))
    wire = Wire(ward.desk.app)
    run = Run(ward, wire, seed)
    run.bearers = {one: ward.tokens.add(f"a-{one}", one, by="account:test") for one in ("cap", "events", "metrics")}
    chance = random.Random(seed)
    caplog.set_level("WARNING")
    for _ in range(ROUNDS):
        for number, route in enumerate(chance.sample(ward.desk.routes, len(ward.desk.routes))):
            if number % ROUTES_A_SHIFT == 0:
                run.begin_all()
            caplog.clear()
            _go_over(run, route, schema[route.path][route.method], chance.randrange(1 << 32))
            wrote = [one for one in caplog.records if one.levelname in ("ERROR", "CRITICAL")]
            run.faults += [
                f"{route.method} {route.path} wrote: {one.getMessage()}\n{one.exc_text or ''}" for one in wrote
            ]
            if ward.desk.packer is not None:
                ward.desk.packer.step(0.0)
            ward.searchable()
    wire.close()
    said = "\n\n".join(run.faults[:FAULTS_MAX])
    print(
        f"{run.asked.total()} requests: {dict(run.asked)}; {sorted(Counter(n for _, n in run.statuses.elements()).items())}"
    )
    assert not run.faults, f"WARDPOST_SEED={seed}\n{said}"
    assert set(run.asked) >= {"", *(role.value for role in Role)}, "nobody, and somebody of every role"
    idle = [f"{one.method} {one.path}" for one in ward.desk.routes if not _was_done(run, one)]
    assert len(idle) <= IDLE_MAX, f"hardly anything was let through to these: {idle}"
    _is_whole(ward, before)


def _schema(described: dict[str, Any]) -> Any:
    schemathesis = pytest.importorskip("schemathesis", reason="pip install -r tests/requirements-system.txt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return schemathesis.openapi.from_dict(described)


def _go_over(run: Run, route: Route, operation: Any, seed: int) -> None:
    """Examples of a route, by people who may use it and, every now and then, by others."""
    modes = pytest.importorskip("schemathesis").GenerationMode
    whoever = _people(route)
    numbers = iter(range(10_000))

    def one(case: Any, sendings: list[tuple[str, str, int]]) -> None:
        for way, text, draw in sendings:
            who = whoever[next(numbers) % len(whoever)]
            _ask(run, route, hostile.made_hostile(_request(run, route, case, who, draw), way, text, draw))

    def examples(count: int, mode: Any) -> None:
        sending = st.tuples(hostile.ways(route.method), hostile.texts(), st.integers(0, 1 << 20))
        drawn = (operation.as_strategy(mode), st.lists(sending, min_size=SENDERS, max_size=SENDERS))
        asked = settings(
            max_examples=count,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        hypothesis.seed(seed)(asked(hypothesis.given(*drawn)(one)))()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        examples(EXAMPLES, modes.POSITIVE)
        if operation.body or operation.query or operation.path_parameters:
            examples(NEGATIVE, modes.NEGATIVE)


def _people(route: Route) -> Sequence[str]:
    """Logins, in turns: mostly of who may. Empty: nobody."""
    roles = [role.value for role in Role]
    if not isinstance(route.may, frozenset):
        return ["", *roles]
    may = sorted(role.value for role in route.may)
    return [*may, *may, *may, "", *(one for one in roles if one not in may)][: max(3 * len(may) + 2, 9)]


def _request(run: Run, route: Route, case: Any, who: str, draw: int) -> Sent:
    """What schemathesis has made, as a browser sends it; of most fields what a person would have typed instead, for of
    seven fields with nonsense in them only the first is ever looked at."""
    chance, takes = random.Random(draw), TAKES[route.method, route.path]
    path = route.path
    for name in re.findall(r"\{([a-z_]+)\}", path):
        path = path.replace("{" + name + "}", quote(chance.choice(PATHS[name])))
    if chance.random() < MADE_SHARE:
        path = case.formatted_path
    if not path.isascii() or not path.startswith("/"):
        path = quote(path, safe="/%", errors="replace")
    query, form = _mixed(case.query, takes.query, chance), None
    if route.method == "POST":
        form = _mixed(case.body, takes.form, chance)
        if form.get("seen") == NEWEST:
            form["seen"] = _newest(run.ward, path)
    token = run.sessions[who] if who else new_token()
    sent = hostile.by_a_browser(route.method, path, query, form, who=who, token=token)
    if isinstance(route.may, Bearer) and chance.random() > MADE_SHARE:
        bearer = (b"authorization", f"Bearer {run.bearers[route.may.purpose]}".encode())
        return replace(sent, headers=(*sent.headers, bearer))
    return sent


def _mixed(made: Any, known: Fields, chance: random.Random) -> dict[str, Any]:
    """What people type; or all of what was made instead, or one field of it among the others, or one field left out."""
    found = dict(made) if isinstance(made, dict) else {}
    found.pop("form", None)
    if chance.random() < MADE_SHARE:
        return found
    when = chance.randrange(60)  # from and to belong together
    typed: dict[str, Any] = {
        name: given[when % len(given)] if name in ("from", "to") else chance.choice(given)
        for name, given in known.items()
    }
    if typed and chance.random() < MIXED_SHARE:
        name = chance.choice(sorted(typed))
        typed[name] = (
            chance.choice(MARKED) if chance.random() < MARKED_SHARE else found.get(name, chance.choice(HOSTILE))
        )
    elif typed and chance.random() < MADE_SHARE:
        del typed[chance.choice(sorted(typed))]
    return typed


def _newest(ward: WholeWard, path: str) -> str:
    """The last act that the page of this case, or alert, shows."""
    tables, parts = metadata.tables, path.split("/")
    with reading(ward.engine) as db:
        if parts[1] == "cases":
            act = tables["case_act"]
            numbers = db.execute(select(act.c.number).where(act.c.case_n == _int(parts[2]))).scalars().all()
        else:
            step = tables["alert_step"]
            mine = (step.c.incident == parts[2], step.c.what == "verdict")
            numbers = db.execute(select(step.c.n).where(*mine)).scalars().all()
    return str(max(numbers, default=0))


def _int(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _ask(run: Run, route: Route, sent: Sent) -> None:
    run.ward.clock.advance(1)
    run.asked[sent.who] += 1
    try:
        got = run.wire.ask(sent)
    except Exception as error:  # whatever it is, it is a fault
        run.tell(f"it raised {error!r}", sent)
        return
    usual = sent.way in ("", "script", "header")
    run.statuses[f"{route.method} {route.path}" if usual else "", got.status] += 1
    for what in _wrong(run, route, sent, got):
        run.tell(what, sent, got)
    _go_on(run, route, got)


def _go_on(run: Run, route: Route, got: Got) -> None:
    """Whoever has logged out, or has another password now, comes again; and who guesses too often waits."""
    if route.method != "POST" or route.path not in ("/logout", "/account/password", "/login"):
        return
    run.ward.clock.advance(GUESSES_S)
    if got.status == 303 and route.path == "/account/password":
        for role in Role:
            run.ward.desk.registry.set_password(role.value, run.ward.passwords.hash(PASSWORD), by="account:test")
    run.begin_all()


# -- what must hold ---------------------------------------------------------------------------------------------------


def _wrong(run: Run, route: Route, sent: Sent, got: Got) -> Iterator[str]:
    yield from hostile.let_in(got)
    other_method = sent.method != route.method
    may_be = answers(route) | ({405} if sent.way == "method" else set())
    moved = sent.way == "address"  # it may have come to another route
    if got.status >= 500 and got.status != 503:
        yield "it broke"
    elif got.status not in may_be and not moved and not other_method:
        yield f"{got.status} is no answer of this page"
    for name, value in HEADERS.items():
        if got.header(name.lower()) != value:
            yield f"without its {name}"
    if got.header("cache-control") == "":
        yield "without Cache-Control"
    if not moved and not other_method:
        yield from _let_in(run, route, sent, got)
    yield from _form_of(got)
    yield from _others(route, sent, got)


def _let_in(run: Run, route: Route, sent: Sent, got: Got) -> Iterator[str]:
    """Whether something was done for somebody who may not, or by a form that nobody has sent."""
    role = Role(sent.who) if sent.who else None
    if sent.way in (*hostile.REFUSED, *hostile.REFUSED_FORMS) and got.status in DONE:
        yield "nobody has sent this from a page of ours, and it was done"
    sent_away = got.status == 303 and got.header("location") == "/login"
    if isinstance(route.may, frozenset) and not route.admits(role) and got.status in DONE and not sent_away:
        yield "somebody got what is not for him"
    if isinstance(route.may, Bearer) and got.status in DONE and b"authorization" not in dict(sent.headers):
        yield "a feed without its token"
    knows = route.path == "/login" and PASSWORD in sent.words
    for value in (value for name, value in got.headers if name == "set-cookie"):
        if value.startswith(f"{SESSION}=") and not value.startswith((f'{SESSION}=""', f"{SESSION}=;")) and not knows:
            yield "somebody was logged in"
        if "Secure" not in value or "HttpOnly" not in value or "Path=/" not in value:
            yield "a cookie that is not kept close"
    where = got.header("location")
    assert run.ward.provider is not None
    if where and not re.match(r"/(?![/\\])", where) and not where.startswith(run.ward.provider.issuer):
        yield "it leads elsewhere"


def _form_of(got: Got) -> Iterator[str]:
    """Whether the body is what its header says."""
    kind = got.header("content-type").partition(";")[0]
    if got.status in (204, 303, 304, 416) or not got.body:
        return
    try:
        if kind == "application/json":
            json.loads(got.text)
        elif kind in ("application/atom+xml", "application/cap+xml"):
            ET.fromstring(got.body)
        elif kind == "text/csv":
            cells = [cell for row in csv.reader(io.StringIO(got.text.removeprefix("\ufeff"))) for cell in row]
            if any(cell.startswith(("=", "@", "+")) for cell in cells):
                yield "a spreadsheet would run this"
        elif kind == "text/html" and not got.text.isprintable():
            if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", got.text):
                yield "a page with control characters"
        elif not kind:
            yield "a body of no type"
    except (ValueError, ET.ParseError, csv.Error) as error:
        yield f"no {kind}: {error}"


def _others(route: Route, sent: Sent, got: Got) -> Iterator[str]:
    """What belongs to other people."""
    role = Role(sent.who) if sent.who else None
    if b"authorization" in dict(sent.headers) and isinstance(route.may, Bearer):
        return  # a program that is told of all
    if role not in PICTURED and (JPEG in got.body or got.header("content-type") == "video/mp4"):
        yield "a picture for who sees none"
    if role is None or role in BOUND:
        words = sent.words
        for secret in (*SECRETS, OTHER, *OTHERS_INCIDENTS):
            if secret in got.text and secret not in words:
                yield f"it tells of {secret}"


# -- afterwards -------------------------------------------------------------------------------------------------------


def _rows(ward: WholeWard) -> dict[str, set[tuple[Any, ...]]]:
    """The keys of every row there is, by table."""
    found = {}
    with reading(ward.engine) as db:
        for name, table in metadata.tables.items():
            keys = list(table.primary_key.columns) or list(table.columns)
            found[name] = {tuple(row) for row in db.execute(select(*keys))}
    return found


def _was_done(run: Run, route: Route) -> bool:
    return any(run.statuses[f"{route.method} {route.path}", status] for status in DONE)


def _is_whole(ward: WholeWard, before: dict[str, set[tuple[Any, ...]]]) -> None:
    """Nothing is lost, the audit log verifies, the file is sound, and people go on working."""
    after = _rows(ward)
    for name, rows in before.items():
        if name not in GOES:
            assert rows <= after[name], f"rows of {name} are gone: {sorted(rows - after[name], key=str)[:5]}"
    with reading(ward.engine) as db:
        footage = metadata.tables["footage"]
        here = set(db.execute(select(footage.c.sha256)).scalars())
        stones: set[str] = set()
        for table in ("retention_stone", "case_tombstone"):
            stones |= set(db.execute(select(metadata.tables[table].c.sha256)).scalars())
    assert len(here | stones) >= len(before["footage"]), "a file went without a tombstone"
    trail = ward.desk.trail
    verdict = trail_line.check(list(trail.lines()), trail.head(), keys=trail.public_keys(), closed=False)
    assert verdict.ok, trail_line.findings_of(verdict)
    assert len(verdict.lines) > len(before["trail"])
    with closing(sqlite3.connect(ward.folder / "station.db")) as db_file:
        assert db_file.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert db_file.execute("pragma foreign_key_check").fetchall() == []
    ward.clock.advance(3600)  # whoever has guessed too often may try again
    ward.desk.registry.set_password("operator", ward.passwords.hash(PASSWORD), by="account:test")
    visitor = ward.visitor("operator", address="198.51.100.9")
    assert visitor.get("/").status_code == 200 and OWN in visitor.get("/posts").text
