"""What every request passes, in this order; whoever fails is answered before a handler hears of him.

    the Host header names us                    else 421: no other name may be pointed at this desk (DNS rebinding)
    the route is in the table                   else 404
    the body is small and whole in time         else 413, 408
    an unsafe method comes from our own pages   else 403: Origin, Sec-Fetch-Site, and the token of the form
    somebody is logged in, and may              else 303 to the login (401 for what is no page), 403

Handlers run on threads, for they wait for the database.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from agent.errors import NoRoom, Transient, WardpostError
from agent.station.outward.tokens import Purpose
from agent.station.people.roles import Person
from agent.station.people.sessions import Sessions, form_fits, form_token, new_token
from agent.station.web import words as languages
from agent.station.web.pages import Pages
from agent.station.web.routes import PATTERNS, Bearer, Route
from agent.station.web.words import Words

SESSION = "__Host-wardpost"
DOOR = "__Host-wardpost-door"
LANGUAGE = "__Host-wardpost-language"
OIDC = "__Host-wardpost-oidc"
FORM_BYTES_MAX = 16 * 1024
FORM_FIELDS_MAX = 20
FORM_S_MAX = 15.0
PART_HEADER = "x-wardpost-part"
"""A page's own script asks for a part of it."""
_LANGUAGE_S = 365 * 86_400
_UNSEEN = dict.fromkeys((0x00AD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))
"""Soft hyphen, spaces and joiners of no width. What turns the direction of text is refused, as controls are."""
_HOP = re.compile(r"\[(?P<six>[0-9a-fA-F:.]+)\](?::[0-9]+)?|(?P<four>[0-9.]+)(?::[0-9]+)?")
"""An address as some proxies write it: in brackets, with the port of the connection."""

Admit = Callable[[Purpose, str, str, str], None]
"""Raises Refused for an Authorization header that is not good for this purpose. Behind it: the feed, and from which
address it is fetched.
"""

log = logging.getLogger(__name__)


class Refused(Exception):  # noqa: N818  (an answer, not an error)
    """The request is answered with this status, and a text by its key; or with `said`, which is in words already."""

    def __init__(self, status: int, key: str = "", *, wait_s: float = 0.0, said: str = "") -> None:
        super().__init__(f"{status} {key}")
        self.status = status
        self.key = key or f"refused.{status}"
        self.wait_s = wait_s
        self.said = said


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that has passed the gate, as handlers see it."""

    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    headers: Mapping[str, str]
    address: str
    words: Words
    form_token: str
    person: Person | None
    session: str  # names it; empty: none
    token: str  # of the session, or of the door
    part: bool  # the page's own script asks
    oidc: str = ""  # what the browser keeps of a login at the provider

    @property
    def who(self) -> Person:
        """Who asks; on a route that is not for anybody."""
        if self.person is None:
            raise Refused(401)
        return self.person

    @property
    def here(self) -> str:
        """Where the same page is found again; empty for the answer to a form: there is none."""
        if self.form:
            return ""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    def field(self, name: str, chars_max: int) -> str:
        """A field of the form, one line, trimmed; empty when it is missing. Raises Refused.

        What is typed and not seen is left out: a phone joins its emoji by such characters, an editor breaks words.
        """
        text = " ".join(self.form.get(name, "").translate(_UNSEEN).split())
        if len(text) > chars_max or not text.isprintable():
            raise Refused(400)
        return text


class Gate:
    """Makes of a route of the table what Starlette calls."""

    def __init__(
        self, *, sessions: Sessions, pages: Pages, origin: str, proxied: bool, admit: Admit | None = None
    ) -> None:
        """`admit`: who may fetch feeds, and how often; without it, nobody."""
        self._admit = admit
        self._sessions = sessions
        self._pages = pages
        self._origin = origin
        self._host = urlsplit(origin).netloc
        self._proxied = proxied
        self._languages = languages.load()

    def endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """What answers this route."""

        async def answer(request: Request) -> Response:
            words = self._words(request)
            try:
                return await self._answer(route, request, words)
            except Refused as refused:
                return self.refusal(words, refused)
            except ClientDisconnect:
                return Response(status_code=400)
            except Transient as error:
                log.warning("%s %s: %s", route.method, route.path, error)
                full = isinstance(error, NoRoom)
                return self.refusal(words, Refused(503, "refused.room", wait_s=60) if full else Refused(503, wait_s=5))
            except WardpostError as error:
                log.error("%s %s: %s", route.method, route.path, error)  # noqa: TRY400
                return self.refusal(words, Refused(500))
            except Exception:
                log.exception("%s %s", route.method, route.path)
                return self.refusal(words, Refused(500))

        return answer

    async def nothing_here(self, request: Request, _error: Exception) -> Response:
        """No such page, or no such method on it."""
        status = getattr(_error, "status_code", 404)
        return self.refusal(self._words(request), Refused(405 if status == 405 else 404))

    def refusal(self, words: Words, refused: Refused) -> Response:
        """What somebody is told who gets no answer: no more than he must know."""
        text = refused.said or words(refused.key)
        page = self._pages.render("refused.html", words=words, text=text, status=refused.status)
        headers = {"Retry-After": str(int(refused.wait_s) + 1)} if refused.wait_s else {}
        if refused.status == 401:  # RFC 9110: it must say how
            headers["WWW-Authenticate"] = "Bearer"
        return HTMLResponse(page, status_code=refused.status, headers=headers)

    async def _answer(self, route: Route, request: Request, words: Words) -> Response:
        if request.headers.get("host", "").lower() != self._host:
            raise Refused(421)
        params = {name: str(value) for name, value in request.path_params.items()}
        if not all(PATTERNS[name].fullmatch(value) for name, value in params.items()):
            raise Refused(404)
        if isinstance(route.may, Bearer):
            return await self._fetched(route, route.may.purpose, request, words, params)
        form = await _form(request) if route.method == "POST" else {}
        token = "" if route.faceless else request.cookies.get(SESSION, "")
        session = await run_in_threadpool(self._sessions.find, token) if token else None
        door = request.cookies.get(DOOR, "")
        held = token if session is not None else door
        if route.method == "POST" and not (self._ours(request) and held and form_fits(held, form.get("form", ""))):
            raise Refused(403, "refused.form")
        if not route.admits(None if session is None else session.person.role):
            if session is not None:
                raise Refused(403)
            if route.method == "GET" and not route.stream and "text/html" in request.headers.get("accept", ""):
                return RedirectResponse("/login", status_code=303)
            raise Refused(401)
        fresh = "" if held or route.faceless else new_token()
        asked = Asked(
            path=request.scope["path"],
            params=params,
            query=dict(request.query_params),
            form=form,
            headers={name: request.headers.get(name, "") for name in ("last-event-id", "range")},
            address=self.address(request),
            words=words,
            form_token=form_token(held or fresh),
            person=None if session is None else session.person,
            session="" if session is None else session.key,
            token=held,
            part=PART_HEADER in request.headers,
            oidc=request.cookies.get(OIDC, ""),
        )
        handled: Any = route.handler(asked) if route.stream else run_in_threadpool(route.handler, asked)
        response: Response = await handled
        if fresh:
            set_cookie(response, DOOR, fresh)
        return response

    async def _fetched(
        self, route: Route, purpose: Purpose, request: Request, words: Words, params: Mapping[str, str]
    ) -> Response:
        """A program asks: its token must be good for this. No cookie is looked at, and none is set."""
        if self._admit is None:
            raise Refused(401)
        shown, address = request.headers.get("authorization", ""), self.address(request)
        await run_in_threadpool(self._admit, purpose, shown, route.path, address)
        asked = Asked(
            path=request.scope["path"],
            params=params,
            query={},
            form={},
            headers={},
            address=address,
            words=words,
            form_token="",
            person=None,
            session="",
            token="",
            part=False,
        )
        response: Response = await run_in_threadpool(route.handler, asked)
        return response

    def _ours(self, request: Request) -> bool:
        """Whether a form was sent from a page of ours. With `no-referrer` a browser says `Origin: null` even of our own
        pages, and then Sec-Fetch-Site, which no script can set, must say it.
        """
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if site is not None and site != "same-origin":
            return False
        if origin is None or origin == "null":
            return site == "same-origin"
        return origin == self._origin

    def _words(self, request: Request) -> Words:
        wish = request.headers.get("accept-language", "")
        return languages.chosen(self._languages, request.cookies.get(LANGUAGE, ""), wish)

    def speaks(self, language: str) -> bool:
        """Whether there are words of it."""
        return language in self._languages

    def address(self, request: Request) -> str:
        """Who asks. Behind a proxy: whom the proxy names."""
        peer = request.client.host if request.client else ""
        return last_hop(request.headers.getlist("x-forwarded-for"), peer) if self._proxied else peer


def last_hop(lines: Sequence[str], peer: str) -> str:
    """From X-Forwarded-For, all its lines, whom our proxy names: the last one, without a port. What stands before that
    anybody may have written, also in a line of his own. `peer`: when it names nobody.
    """
    told = ",".join(lines).rpartition(",")[2].strip()
    if not told or not told.isprintable():
        return peer
    found = _HOP.fullmatch(told)
    return (found["six"] or found["four"] if found else told)[:64]


def set_cookie(
    response: Response,
    name: str,
    value: str,
    *,
    max_age_s: int | None = None,
    samesite: Literal["strict", "lax"] = "strict",
) -> None:
    """A cookie that only this host gets, over TLS only, and no script. `lax`: also when another site leads here."""
    response.set_cookie(name, value, max_age=max_age_s, path="/", secure=True, httponly=True, samesite=samesite)


def drop_cookie(response: Response, name: str) -> None:
    """Takes it back."""
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="strict")


def choose_language(response: Response, language: str) -> None:
    """Remembered by the browser for a year."""
    set_cookie(response, LANGUAGE, language, max_age_s=_LANGUAGE_S)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, once each. Raises Refused."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Refused(415)
    body = b""
    try:
        async with asyncio.timeout(FORM_S_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > FORM_BYTES_MAX:
                    raise Refused(413)
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FORM_FIELDS_MAX)
    except TimeoutError:
        raise Refused(408) from None
    except ValueError:
        raise Refused(400) from None
    if len({name for name, _ in pairs}) != len(pairs):
        raise Refused(400)
    return dict(pairs)
