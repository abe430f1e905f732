"""Cases: the list, one case with its timeline, and what people do with it. Every act carries the last act that the page
showed: who comes second is shown what became of the case meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlencode

from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from agent.clock import Clock, parse_rfc3339, rfc3339
from agent.station.cases.desk import POSTS_MAX, RANGE_S_MAX, CaseDesk, Opening
from agent.station.cases.export import Exporter
from agent.station.cases.keeping import Piece, pieces, to_ask_again, to_hold
from agent.station.cases.packer import Packer
from agent.station.cases.packing import WAITING_MAX, Answer, Job, Stage
from agent.station.cases.reading import ITEMS_PACKED_MAX, LOOKED_AT_MAX, Case, Cases, Since, Step
from agent.station.cases.states import (
    MAY,
    NAME_CHARS_MAX,
    SEEING,
    TEXT_CHARS_MAX,
    Act,
    Objection,
    State,
    Told,
    allowed,
)
from agent.station.footage import ranges
from agent.station.people.roles import POST, Role
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages, Part
from agent.station.web.routes import Route
from agent.station.web.viewed import Viewed
from agent.types import NS

USUAL_S = 1800.0
ALL_POSTS = "*"
"""What a form says for the package of the whole case; no post has this name."""
READ_BYTES = 1 << 20
REFRESH_S = 2
"""A page asks so often how far a package has come."""
FORMS: Mapping[str, Act] = MappingProxyType(
    {
        "note": Act.NOTED,
        "view": Act.VIEWED,
        "copy": Act.COPIED,
        "attach": Act.ATTACHED,
        "keep": Act.HELD,
        "transfer": Act.TRANSFERRED,
        "return": Act.RETURNED,
        "close": Act.CLOSED,
        "reopen": Act.REOPENED,
        "dispose": Act.DISPOSED,
    }
)
"""What people do with a case, by the last part of the form's address."""
_TYPED = ("reason", "recipient", "reference")
_CHOSEN = ("post", "part")
_STATUS = {Objection.NOT_YOURS: 403, Objection.CHANGED: 409, Objection.NOT_NOW: 409}
Plain = Callable[[Asked], Response]


class CasePages:
    """Handlers. Any thread."""

    def __init__(
        self,
        *,
        cases: Cases,
        desk: CaseDesk,
        exporter: Exporter,
        packer: Packer,
        viewed: Viewed,
        pages: Pages,
        clock: Clock,
    ) -> None:
        self._cases = cases
        self._desk = desk
        self._exporter = exporter
        self._packer = packer
        self._viewed = viewed
        self._pages = pages
        self._clock = clock

    def routes(self) -> tuple[Route, ...]:
        """Who may use what."""
        case = "/cases/{case}"
        own: dict[Act, Plain] = {
            Act.VIEWED: self.view,
            Act.COPIED: self.copy,
            Act.ATTACHED: self.attach,
            Act.HELD: self.keep,
            Act.DISPOSED: self.dispose,
        }
        return (
            Route(method="GET", path="/cases", handler=self.list, may=SEEING),
            Route(method="POST", path="/cases", handler=self.open, may=MAY[Act.OPENED]),
            Route(method="GET", path=case, handler=self.page, may=SEEING),
            Route(method="GET", path=f"{case}/packages", handler=self.packages, may=MAY[Act.COPIED]),
            Route(method="GET", path=f"{case}/copies/{{copy}}", handler=self.download, may=MAY[Act.COPIED]),
            *(
                Route(method="POST", path=f"{case}/{name}", handler=own.get(act) or self._plain(act), may=MAY[act])
                for name, act in FORMS.items()
            ),
        )

    # -- what is seen -------------------------------------------------------------------------------------------------

    def list(self, asked: Asked) -> Response:
        """The cases, and the form for a new one."""
        return self._list(asked)

    def page(self, asked: Asked) -> Response:
        """One case. It is on record who reads it."""
        return self._page(asked)

    def packages(self, asked: Asked) -> Response:
        """The part of the page that tells of packages, for its script: how far they have come, and which are there."""
        after = asked.query.get("after", "")
        if not _is_number(after):
            raise Refused(400)
        jobs = self._jobs(asked)
        case = self._cases.since(asked.who.scope, int(asked.params["case"]), int(after))
        if case is None:
            raise Refused(404)
        self._note_read(asked, case)
        return HTMLResponse(self._packages(asked, case, jobs).html)

    def download(self, asked: Asked) -> Response:
        """A package that was made: the very file of which the timeline has the hash, or none.

        Or a range of its bytes, for a download that was cut off: what the address names never changes.
        """
        case = self._need(asked)
        step = self._cases.step(asked.who.scope, case.n, int(asked.params["copy"]))
        path = None if step is None or case.state is State.DISPOSED else self._exporter.file(case.n, step)
        if step is None or path is None:
            raise Refused(404, "case.nocopy")
        try:
            part = ranges.parse(asked.headers["range"], step.bytes)
        except ranges.Unsatisfiable:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{step.bytes}"})
        posts = [step.node] if step.node else case.posts
        self._viewed.note(asked, [(node, f"case {case.n} copy {step.number}") for node in posts], what="case-copy")
        name = "-".join(filter(None, ("case", str(case.n), step.node, str(step.number))))
        first, count = part or (0, step.bytes)
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": f'"{step.sha256}"',
            "Content-Disposition": f'attachment; filename="{name}.zip"',
            "Content-Length": str(count),
        }
        if part is not None:
            headers["Content-Range"] = f"bytes {first}-{first + count - 1}/{step.bytes}"
        status = 200 if part is None else 206
        return StreamingResponse(
            _pieces(path, first, count), status_code=status, media_type="application/zip", headers=headers
        )

    # -- what is done -------------------------------------------------------------------------------------------------

    def open(self, asked: Asked) -> Response:
        """A new case; its posts are asked to keep its footage and to send it."""
        posts = tuple(sorted(set(asked.field("posts", 40 * POSTS_MAX).replace(",", " ").split())))
        number, reason = asked.field("number", NAME_CHARS_MAX), asked.field("reason", TEXT_CHARS_MAX)
        place = asked.field("place", NAME_CHARS_MAX)
        if not number or not reason:
            return self._list(asked, "case.no.reason", status=400)
        if not 0 < len(posts) <= POSTS_MAX or not all(POST.fullmatch(one) for one in posts):
            return self._list(asked, "case.no.posts", status=400)
        if not self._cases.knows(asked.who.scope, posts):
            return self._list(asked, "case.no.posts", status=400)
        start, end = self._range(asked)
        if start is None or end is None:
            return self._list(asked, "case.no.range", status=400)
        opening = Opening(number=number, reason=reason, place=place, from_utc_ns=start, to_utc_ns=end, posts=posts)
        made = self._desk.open(asked.who, opening)
        if isinstance(made, Objection):
            raise Refused(_STATUS.get(made, 400))
        self._desk.keep(asked.who, made)
        return RedirectResponse(f"/cases/{made}", status_code=303)

    def _plain(self, act: Act) -> Plain:
        def handler(asked: Asked) -> Response:
            case = self._need(asked)
            done = self._desk.act(asked.who, case.n, act, _told(asked), seen=_seen(asked))
            self._kept(asked, act, case.n, done)
            return self._done(asked, done)

        return handler

    def _kept(self, asked: Asked, act: Act, n: int, done: int | Objection | None) -> None:
        if isinstance(done, int) and act in (Act.CLOSED, Act.REOPENED):
            self._desk.keep(asked.who, n)

    def view(self, asked: Asked) -> Response:
        """To the footage of one of its posts, once it is on the timeline who looks at it and why. Of a case that is
        longer than a page of footage, to the part that the form names; the first one, where it names none.
        """
        case, node = self._need(asked), asked.field("post", 40)
        parts, chosen = pieces(case.from_utc_ns, case.to_utc_ns), asked.form.get("part", "0")
        if node not in case.posts:
            raise Refused(404)
        if not _is_number(chosen) or int(chosen) >= len(parts):
            raise Refused(400)
        part = parts[int(chosen)]
        detail = "/".join(map(rfc3339, part)) if len(parts) > 1 else ""
        done = self._desk.act(asked.who, case.n, Act.VIEWED, _told(asked), seen=_seen(asked), node=node, detail=detail)
        if not isinstance(done, int):
            return self._done(asked, done)
        start, end = map(self._pages.address, part)
        return RedirectResponse(f"/footage?{urlencode({f'post.{node}': 'on', 'from': start, 'to': end})}", 303)

    def attach(self, asked: Asked) -> Response:
        """What lies here of one of its posts by now."""
        case, node = self._need(asked), asked.field("post", 40)
        start, end = self._range(asked) if "from" in asked.form else (case.from_utc_ns, case.to_utc_ns)
        if start is None or end is None:
            return self._page(asked, asked.words("case.no.range"), status=400)
        done = self._desk.attach(asked.who, case.n, seen=_seen(asked), node=node, from_utc_ns=start, to_utc_ns=end)
        if done == 0:
            return self._page(asked, asked.words("case.nothing"), status=200)
        return self._done(asked, done)

    def keep(self, asked: Asked) -> Response:
        """Asks the posts again, or lets go of what a closed case does not need."""
        case = self._need(asked)
        why = self._desk.keep(asked.who, case.n)
        if why:
            return self._page(asked, asked.words("case.notkept", why=why), status=409)
        return RedirectResponse(f"/cases/{case.n}", status_code=303)

    def copy(self, asked: Asked) -> Response:
        """Asks for the package of one post, or of all in one. It is made in the background, and can be had once it is
        whole, and on the timeline. Who asks for what is being made already is shown that it is.
        """
        case, node = self._need(asked), asked.field("post", 40)
        if node != ALL_POSTS and node not in case.posts:
            raise Refused(404)
        chosen = "" if node == ALL_POSTS else node
        answer = self._packer.ask(asked.who, case, chosen, _told(asked), seen=_seen(asked))
        if answer is Answer.FULL:
            return self._page(asked, asked.words("case.package.full", max=WAITING_MAX), status=409)
        return self._done(asked, answer if isinstance(answer, Objection) else case.newest)

    def dispose(self, asked: Asked) -> Response:
        """Its footage goes. A second time - the archive was away - only what was left over is taken away."""
        case = self._need(asked)
        if case.state is State.DISPOSED:
            self._desk.sweep(case.n, asked.who)
            self._exporter.forget(case.n)
            return RedirectResponse(f"/cases/{case.n}", status_code=303)
        done = self._desk.dispose(asked.who, case.n, _told(asked), seen=_seen(asked))
        if isinstance(done, int):
            self._exporter.forget(case.n)
        return self._done(asked, done)

    # -- in words -----------------------------------------------------------------------------------------------------

    def _need(self, asked: Asked) -> Case:
        found = self._cases.find(asked.who.scope, int(asked.params["case"]))
        if found is None:
            raise Refused(404)
        return found

    def _done(self, asked: Asked, done: int | Objection | None) -> Response:
        if done is None:
            raise Refused(404)
        if isinstance(done, Objection):
            said = asked.words(f"case.no.{done.value}")
            return self._page(asked, said, status=_STATUS.get(done, 400))
        return RedirectResponse(f"/cases/{asked.params['case']}", status_code=303)

    def _range(self, asked: Asked) -> tuple[int | None, int | None]:
        """Of a form, in local time of the desk; (None, None) for what is none."""
        start, end = self._pages.begins(asked.form.get("from", "")), self._pages.ends(asked.form.get("to", ""))
        if start is None or end is None or not 0 < end - start <= RANGE_S_MAX * NS:
            return None, None
        return start, end

    def _list(self, asked: Asked, wrong: str = "", *, status: int = 200) -> Response:
        now = self._clock.utc().utc_ns // (60 * NS) * 60 * NS
        form = asked.form
        find = " ".join(asked.query.get("find", "").split())[:NAME_CHARS_MAX]
        listed = self._cases.listing(
            asked.who.scope, words=find, before=_case(asked, "before"), after=_case(asked, "after")
        )
        page = self._pages.render(
            "cases.html",
            asked=asked,
            words=asked.words,
            cases=listed.rows,
            find=find,
            older="" if listed.older is None else _list_address(find, before=listed.older),
            newer="" if listed.newer is None else _list_address(find, after=listed.newer),
            looked_max=None if listed.looked_to is None else LOOKED_AT_MAX,
            posts=self._cases.posts(asked.who.scope),
            may_open=asked.who.role in MAY[Act.OPENED],
            wrong=(self._pages.never(asked.words, form.get("from", ""), form.get("to", "")) or asked.words(wrong))
            if wrong
            else "",
            given={name: form.get(name, "") for name in ("number", "reason", "place", "posts")},
            start=form.get("from") or self._pages.field(now - round(USUAL_S * NS)),
            end=form.get("to") or self._pages.field(now),
            text_max=TEXT_CHARS_MAX,
            name_max=NAME_CHARS_MAX,
        )
        return HTMLResponse(page, status_code=status)

    def _note_read(self, asked: Asked, case: Case | Since) -> None:
        self._viewed.note(asked, [(node, f"case {case.n}") for node in case.posts], what="case")

    def _jobs(self, asked: Asked) -> Sequence[Job]:
        """To be asked before the case is read: then what is no job any more is on its timeline already."""
        return self._packer.of(int(asked.params["case"])) if asked.who.role in MAY[Act.COPIED] else []

    def _packages(self, asked: Asked, case: Since, jobs: Sequence[Job]) -> Part:
        """What was asked for and is not there yet, and what has come to be there since the page looked."""
        made = [step for step in case.steps if self._exporter.file(case.n, step) is not None]
        return self._pages.part(
            "packages.html",
            words=asked.words,
            case=case,
            jobs=jobs,
            making=Stage.MAKING,
            made=made,
            open=any(job.open for job in jobs),
            seen=case.newest if case.steps and len(made) == len(case.steps) else None,
        )

    def _typed(self, asked: Asked) -> tuple[str, dict[str, str]]:
        """The form that is not done, and what was typed into it: whoever comes second need not write it anew."""
        name = asked.path.rpartition("/")[2]
        if not asked.form or name not in FORMS:
            return "", {}
        return name, {field: asked.form.get(field, "")[:TEXT_CHARS_MAX] for field in (*_TYPED, *_CHOSEN)}

    def _page(self, asked: Asked, said: str = "", *, status: int = 200) -> Response:
        jobs, case = self._jobs(asked), self._need(asked)
        self._note_read(asked, case)
        copying = asked.who.role in MAY[Act.COPIED]
        may = allowed(case.state, asked.who.role)
        kept = self._cases.kept(case)
        name, typed = self._typed(asked)
        homeless = "" if not name or FORMS[name] in may else " · ".join(filter(None, (typed[one] for one in _TYPED)))
        page = self._pages.render(
            "case.html",
            asked=asked,
            words=asked.words,
            case=case,
            may={act.value for act in may},
            unheld=to_hold(case.state, case.posts, case.held),
            kept=kept,
            twice=self._pages.twice(asked.words, case.from_utc_ns, case.to_utc_ns),
            lost=[node for node, _ in to_ask_again(case.state, case.held, kept)],
            parts=pieces(case.from_utc_ns, case.to_utc_ns),
            days={step.number: day for step in case.steps if (day := _day(step)) is not None},
            copies={step.number for step in case.steps if self._exporter.file(case.n, step) is not None},
            copying=copying,
            packed_max=ITEMS_PACKED_MAX,
            form=name,
            typed=typed,
            homeless=homeless,
            packages=self._packages(asked, Since(case.n, case.posts, case.newest, ()), jobs),
            refresh_s=REFRESH_S,
            pictures=asked.who.role is not Role.ADMIN,
            said=said,
            text_max=TEXT_CHARS_MAX,
            name_max=NAME_CHARS_MAX,
        )
        return HTMLResponse(page, status_code=status)


def _told(asked: Asked) -> Told:
    return Told(
        reason=asked.field("reason", TEXT_CHARS_MAX),
        recipient=asked.field("recipient", NAME_CHARS_MAX),
        reference=asked.field("reference", NAME_CHARS_MAX),
    )


def _seen(asked: Asked) -> int:
    """The last act that the page showed. Raises Refused."""
    text = asked.form.get("seen", "")
    if not _is_number(text):
        raise Refused(400)
    return int(text)


def _case(asked: Asked, name: str) -> int | None:
    """The case of an address of the list at which a page begins. Raises Refused."""
    text = asked.query.get(name, "")
    if text and not _is_number(text):
        raise Refused(400)
    return int(text) if text else None


def _list_address(find: str, **at: int) -> str:
    return "/cases?" + urlencode(({"find": find} if find else {}) | at)


def _day(step: Step) -> Piece | None:
    """The part of the case's time that somebody viewed; None: all of it, or another act."""
    start, _, end = step.detail.partition("/")
    try:
        return (parse_rfc3339(start), parse_rfc3339(end)) if step.act is Act.VIEWED else None
    except ValueError:
        return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _pieces(path: Path, first: int, count: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(first)
        while count > 0 and (data := file.read(min(READ_BYTES, count))):
            count -= len(data)
            yield data
