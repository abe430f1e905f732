"""Requests as hostile visitors send them, and a desk that is asked without any client between: what a client would mend -
half a character, two fields of one name, no Host - arrives as it was written.

schemathesis makes what is in a request from the document of the pages (tests/fakes/pages_document.py). It writes forms as
they should be written, keeps no session and no form's token; so how a request is sent is drawn here, by Hypothesis.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote, urlencode

from hypothesis import strategies as st

from agent.station.people.sessions import form_token
from agent.station.web.gate import FORM_BYTES_MAX, LANGUAGE, PART_HEADER, SESSION
from tests.fakes.desk import ORIGIN
from tests.fakes.pages_document import FORM, HOSTILE, MARKER

HOST = ORIGIN.partition("//")[2]
BODY_KEPT_MAX = 1 << 20
"""Bytes of an answer that are looked at."""
ANSWER_S_MAX = 60.0
"""On the busiest machine: what does not end at all is a fault, what is slow is another test's."""
MULTIPART = b'--x\r\nContent-Disposition: form-data; name="reason"\r\n\r\n<x-wardpost>\r\n--x'
RAW = (b"%", b"%zz", b"%00", b"%ED%A0%80", b"%FF%FE", b"%C0%80", b"\xff\xfe", b"&&&=;", b"=", b"a" * 9000, "đ".encode())
"""What stands in the place of a value as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request, byte for byte. `way`: how it is hostile; empty: as a browser sends it."""

    method: str
    path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""
    who: str = ""
    way: str = ""

    @property
    def words(self) -> str:
        """All that it says, as text."""
        return unquote((self.path + b"?" + self.query + b" " + self.body).decode("latin-1").replace("+", " "))

    def __str__(self) -> str:
        at = f"{self.who or 'nobody'}, {self.way or 'as a browser'}: {self.method} {self.path!r} ? {self.query[:600]!r}"
        return f"{at}\n    {self.headers}\n    {self.body[:600]!r}"


@dataclass(frozen=True, slots=True)
class Got:
    """An answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class Wire:
    """Asks an ASGI application, on one event loop. An answer that has no end - the board's stream - is cut off."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._runner = asyncio.Runner()

    def close(self) -> None:
        self._runner.close()

    def ask(self, sent: Sent) -> Got:
        """Raises whatever the application raises."""
        return self._runner.run(asyncio.wait_for(self._ask(sent), ANSWER_S_MAX))

    async def _ask(self, sent: Sent) -> Got:
        began: dict[str, Any] = {}
        pieces: list[bytes] = []
        enough, bodies = asyncio.Event(), [sent.body[:1], sent.body[1:]]

        async def receive() -> dict[str, Any]:
            if bodies:
                return {"type": "http.request", "body": bodies.pop(0), "more_body": bool(bodies)}
            await enough.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                began.update(message)
                return
            pieces.append(message.get("body", b""))
            endless = b"text/event-stream" in dict(began["headers"]).get(b"content-type", b"")
            if endless or not message.get("more_body") or sum(map(len, pieces)) > BODY_KEPT_MAX:
                enough.set()

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},  # so that who hangs up is noticed
            "http_version": "1.1",
            "method": sent.method,
            "scheme": "https",
            "path": unquote(sent.path.decode("ascii")),  # as uvicorn does
            "raw_path": sent.path,
            "query_string": sent.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in sent.headers],
            "client": ("192.0.2.7", 1),
            "server": (HOST, 443),
        }
        await self._app(scope, receive, send)
        headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in began["headers"])
        return Got(began["status"], headers, b"".join(pieces))


def by_a_browser(
    method: str, path: str, query: Mapping[str, Any], form: Mapping[str, Any] | None, *, who: str, token: str
) -> Sent:
    """A request as our own page makes it. `path`: quoted; `token`: of the session, or of the door; empty: neither."""
    headers = [(b"host", HOST.encode()), (b"accept", b"text/html,*/*"), (b"sec-fetch-site", b"same-origin")]
    cookie = SESSION if who else "__Host-wardpost-door"
    if token:
        headers.append((b"cookie", f"{cookie}={token}".encode()))
    body = b""
    if form is not None:
        fields = {**_texts(form), "form": form_token(token) if token else ""}
        body = _urlencoded(fields)
        headers += [(b"origin", b"null"), (b"content-type", FORM.encode())]
    return Sent(
        method=method, path=path.encode(), query=_urlencoded(_texts(query)), headers=tuple(headers), body=body, who=who
    )


def _texts(fields: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): value if isinstance(value, str) else str(value) for name, value in fields.items()}


def _urlencoded(fields: Mapping[str, str]) -> bytes:
    return urlencode(fields, errors="replace").encode()


# -- ways to be hostile -----------------------------------------------------------------------------------------------

Way = Callable[[Sent, Any, int], Sent]
"""(a browser's request, something that was drawn, a number that was drawn)."""


def _with(sent: Sent, **headers: bytes | None) -> Sent:
    """Other headers; None: without."""
    names = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    kept = [(name, value) for name, value in sent.headers if name not in names]
    return replace(sent, headers=(*kept, *((name, value) for name, value in names.items() if value is not None)))


def _fields(body: bytes) -> list[bytes]:
    return [one for one in body.split(b"&") if one]


def _instead(body: bytes, value: bytes, at: int) -> bytes:
    """One field, not the token, with this as its value."""
    fields = [one for one in _fields(body) if not one.startswith(b"form=")] or [b"x="]
    chosen = fields[at % len(fields)]
    return b"&".join(
        one.partition(b"=")[0] + b"=" + value if one == chosen else one
        for one in (*_fields(body), *([] if body else [b"x="]))
    )


def _raw_value(sent: Sent, text: Any, at: int) -> Sent:
    raw = RAW[at % len(RAW)]
    if sent.method == "POST":
        return replace(sent, body=_instead(sent.body, raw, at))
    return replace(sent, query=_instead(sent.query, raw, at))


def _twice(sent: Sent, text: Any, at: int) -> Sent:
    """A field twice, or as an array."""
    if sent.method == "POST":
        fields = _fields(sent.body)
        one = fields[at % len(fields)]
        more = one if at % 2 else one.replace(b"=", b"%5B%5D=", 1) + b"&" + one.replace(b"=", b"%5Bx%5D=", 1)
        return replace(sent, body=sent.body + b"&" + more)
    return replace(sent, query=sent.query + b"&" + (sent.query or b"find=a&find=b") + b"&x[]=1&x[]=2")


def _part_of_path(sent: Sent, text: Any, at: int) -> Sent:
    """Something else in the place of a part of the address."""
    parts = sent.path.split(b"/")
    index = 1 + at % max(len(parts) - 1, 1)
    hostile = quote(str(text), safe="", errors="replace").encode()[:3000]
    parts[index] = RAW[at % 5] if at % 3 == 0 else hostile if at % 3 == 1 else parts[index] + hostile
    return replace(sent, path=b"/".join(parts))


def _header(sent: Sent, text: Any, at: int) -> Sent:
    """A header that a page reads, with something in it that it does not expect."""
    names = (
        b"accept-language", b"range", b"last-event-id", b"x-forwarded-for", b"accept", b"if-none-match",
        b"authorization", b"forwarded", b"x-http-method-override", b"x-original-url", b"te", b"content-length",
    )  # fmt: skip
    values = (
        str(text).encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")[:4000],
        b"bytes=0-0", b"bytes=-1", b"bytes=5-2", b"bytes=0-99999999999999999999", b"bytes=0-1,3-4", b"\xff\xfe", b"",
        b"vi;q=" + b"9" * 50, b"1" * 400, b"[::1]:99999", b"Bearer wpt_" + b"a" * 43, b"*", b"/account",
    )  # fmt: skip
    return _with(sent, **{names[at % len(names)].decode(): values[(at // len(names)) % len(values)]})


def _cookie(sent: Sent, text: Any, at: int) -> Sent:
    odd = str(text).encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")[:3000]
    own = dict(sent.headers).get(b"cookie", b"")
    session, language = SESSION.encode(), LANGUAGE.encode()
    cookies = (
        own + b"; " + language + b"=" + odd, session + b"=" + odd, own + b"; " + own, b";;=;" + odd, own[:-1],
        session + b"=\xff\xfe", own + b"; " + language + b"=../../vi", own + b"; __Host-wardpost-oidc=" + odd + b".1",
    )  # fmt: skip
    return _with(sent, cookie=cookies[at % len(cookies)])


def _method(sent: Sent, text: Any, at: int) -> Sent:
    methods = (
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "TRACE",
        "HEAD",
        "CONNECT",
        "PROPFIND",
        "get",
        "GET",
        "POST",
        "BOGUS" * 9,
    )
    return replace(sent, method=methods[at % len(methods)])


def _type(sent: Sent, text: Any, at: int) -> Sent:
    """A form in other words than a form's."""
    types: Sequence[tuple[bytes | None, bytes]] = (
        (b"multipart/form-data; boundary=x", MULTIPART + b"--\r\n"), (b"multipart/form-data; boundary=x", MULTIPART),
        (b"multipart/form-data", b"--"), (b"application/json", b'{"form": ["' + b"a" * 64 + b'"]}'),
        (b"application/json", b"\xff{"), (b"text/plain", sent.body), (None, sent.body), (b"", sent.body),
        (FORM.encode() + b"; charset=utf-16", sent.body), (FORM.upper().encode(), sent.body),
        (b"application/xml", b'<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>'),
    )  # fmt: skip
    kind, body = types[at % len(types)]
    return replace(_with(sent, content_type=kind), body=body)


def _size(sent: Sent, text: Any, at: int) -> Sent:
    fillers = (
        b"x=" + b"a" * FORM_BYTES_MAX,
        b"&".join(b"x%d=1" % n for n in range(at % 60)),
        b"&" * 9000,
        b"x" * 16_000,
    )
    return replace(sent, body=sent.body + b"&" + fillers[at % len(fillers)])


def _foreign(sent: Sent, text: Any, at: int) -> Sent:
    """A form that none of our pages sent: it must do nothing."""
    token = (b"", b"form=" + b"0" * 64, b"form=" + form_token("another").encode(), b"form=%00", b"form=%C3%A9")[at % 5]
    fields = [one for one in _fields(sent.body) if not one.startswith(b"form=")]
    return replace(sent, body=b"&".join([*fields, token]))


def _elsewhere(sent: Sent, text: Any, at: int) -> Sent:
    """A form that another site sent."""
    origins = (
        b"https://evil.example",
        b"http://desk.example",
        b"https://desk.example.evil.example",
        b"https://desk.example:444",
    )
    site = (b"cross-site", b"same-site", b"none", b"", None)[at % 5]
    if site is None:
        return _with(sent, origin=origins[at % len(origins)], sec_fetch_site=None)
    return _with(sent, origin=origins[at % len(origins)] if at % 2 else b"null", sec_fetch_site=site)


def _host(sent: Sent, text: Any, at: int) -> Sent:
    hosts = (
        b"evil.example",
        b"desk.example.evil.example",
        b"",
        None,
        b"desk.example:8443",
        b"\xff",
        b"desk.example@evil.example",
    )
    return _with(sent, host=hosts[at % len(hosts)])


def _by_script(sent: Sent, text: Any, at: int) -> Sent:
    return _with(sent, **{PART_HEADER: b"1"})


USUAL: Mapping[str, Way] = {
    "raw": _raw_value, "twice": _twice, "address": _part_of_path, "header": _header, "cookie": _cookie,
    "method": _method, "script": _by_script,
}  # fmt: skip
OF_FORMS: Mapping[str, Way] = {"type": _type, "size": _size}
REFUSED: Mapping[str, Way] = {"host": _host}
REFUSED_FORMS: Mapping[str, Way] = {"foreign": _foreign, "elsewhere": _elsewhere}
"""What is answered without anything being done, whoever sends it."""


def ways(method: str) -> st.SearchStrategy[str]:
    """How a request is sent: half of them as a browser does, so that what is in them comes to be looked at."""
    hostile = [*USUAL, *REFUSED, *((*OF_FORMS, *REFUSED_FORMS) if method == "POST" else ())]
    return st.one_of(st.just(""), st.just("script"), st.just(""), st.sampled_from(hostile))


def made_hostile(sent: Sent, way: str, text: str, at: int) -> Sent:
    """... in that way. `text`, `at`: drawn; which of several things of its kind is done."""
    if not way:
        return sent
    every = {**USUAL, **OF_FORMS, **REFUSED, **REFUSED_FORMS}
    return replace(every[way](sent, text, at), way=way)


def texts() -> st.SearchStrategy[str]:
    """What hostile visitors write."""
    return st.one_of(st.sampled_from(HOSTILE), st.text(max_size=60))


# -- what must not be in an answer ------------------------------------------------------------------------------------

_TRACES = (
    "Traceback (most", "site-packages", "sqlalchemy", "sqlite3", "OperationalError", "IntegrityError", "jinja2",
    "KeyError", "ValueError", "TypeError", "AttributeError", "agent/station", "agent.station", "station.db",
)  # fmt: skip
_FILES = frozenset({"application/zip", "video/mp4", "image/jpeg", "image/png", "text/javascript"})
"""Given as they are; a package of a case has the program in it that checks it."""
_BROKEN_OUT = re.compile(r"(?<!&#34;&#39;)&gt;&lt;" + MARKER + " onx")
"""`"'><x-wardpost onx=1>` of which the quotes are still there."""


def let_in(got: Got) -> Iterable[str]:
    """What stands in an answer that hostile visitors, or our own errors, have put there."""
    text, kind = got.text, got.header("content-type").partition(";")[0]
    if kind not in _FILES:
        yield from (f"it says {one!r}" for one in _TRACES if one in text)
    if kind == "text/html":
        lower = text.lower()
        if f"<{MARKER}" in lower:
            yield "a tag of theirs is in the page"
        if _BROKEN_OUT.search(text):
            yield "a quote of theirs is in the page"
        if re.search(r"""(?:href|src|action|content)=["']?\s*javascript:""", lower):
            yield "a link of theirs runs as a script"
    if got.header(MARKER):
        yield "a header of theirs is in the answer"
