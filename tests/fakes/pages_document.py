"""An OpenAPI 3.1 document of the desk's pages and forms, for tests: nobody ships it. What each route takes stands here by
hand, for a handler reads any field it likes; which routes there are is the table's word.

Each field is described three times over: by what a person sends (`examples`), by what a hostile one does (`HOSTILE`), and as
any text or number at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.station.inspection.desk import RESULTS
from agent.station.web.gate import FORM_BYTES_MAX
from agent.station.web.routes import Bearer, Route
from tests.fakes.desk import ORIGIN, PASSWORD, incident
from tests.fakes.whole_desk import OTHER, OWN, RANGE

FORM = "application/x-www-form-urlencoded"
MARKER = "x-wardpost"
"""Of what hostile visitors send: a page that has it as a tag, an attribute or a header has let it in."""
NEWEST = "newest"
"""As the example of a field: the last act that a page of this case, or this alert, would show."""
HOSTILE = (
    "",
    " ",
    "\0",
    "a\0b",
    "\x1b[31m\x08",
    "\r\nX-Wardpost: 1\r\n\r\n<x-wardpost>",
    "\"'><x-wardpost onx=1>",
    "</textarea></title></script><x-wardpost>",
    "javascript:x-wardpost",
    "{{7*7}}{% x-wardpost %}",
    "' or 1=1 --",
    "%",
    "_",
    "\\",
    "=HYPERLINK(1)",
    "\u202e\u2066gnp.exe",
    "\u200b\ufeff",
    "\u0301" * 50,
    "\ufdfa" * 100,
    "I\u0307\u0130\u00df",
    "\ud7ff\ue000\uffff\U0010ffff",
    "\u2028\u2029\x85",
    "\u0663\u00b2\u2460",
    "x" * 301,
    "đ" * 2000,
    "-1",
    "0",
    "00",
    "+1",
    "1e3",
    "1.5",
    "NaN",
    "999999999",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "9" * 400,
    "true",
    "null",
    "on",
    "*",
    "../../etc/passwd",
    "//x-wardpost.example/",
    "/\\x-wardpost.example",
    "https://x-wardpost.example/",
    "0001-01-01T00:00",
    "0000-00-00T00:00",
    "9999-12-31T23:59:59",
    "2262-04-12T00:00",
    "1969-12-31T23:59",
    "2026-02-30T12:00",
    "2026-11-22T24:00",
    "2026-W99",
    "0000-W00",
    "0001-W01",
    "9999-W53",
)
MARKED = tuple(text for text in HOSTILE if MARKER in text)
"""Of these, what must be seen to have been taken for text."""
INCIDENTS = tuple(incident(number) for number in (1, 2, 3, 4))
VIEWS = tuple(incident(0x1000 + number) for number in range(4))
NOTHING_THERE = "01900000-0000-7000-8000-ffffffffffff"
PATHS: Mapping[str, Sequence[str]] = {
    "incident": (*INCIDENTS, NOTHING_THERE),
    "view": (*VIEWS, NOTHING_THERE),
    "post": (OWN, OTHER, OWN, OTHER, OWN, "nowhere"),
    "alarm": ("1", "2", "999999999"),
    "case": ("1", "2", "1", "2", "3", "4", "999999999"),
    "copy": ("1", "2", "3", "4", "5", "6", "7", "8"),
    "removal": ("1", "2", "1", "3", "999999999"),
    "footage": ("1.mp4", "2.mp4", "3.mp4", "999999999999999.mp4"),
    "zoom": ("0", "0", "0", "19", "99"),
    "column": ("0", "0", "0", "9999999"),
    "tile": ("0.png", "0.png", "0.png", "9999999.png"),
    "asset": ("desk.css", "desk.js", "nothing.css"),
}
"""What stands in an address: what there is, and what there is not."""

_TEXT = ("a passer-by", "Có người ở cổng trường", "O'Neil & sons <1>")
_NUMBERS = ("1", "2", "3")
_POSTS = (OWN, OTHER)
_FROM = (RANGE["from"], RANGE["from"], "2026-11-22T07:00")
_TO = (RANGE["to"], RANGE["to"], "2026-11-22T08:00:00")
_BACK = ("/", "/posts", f"/footage?post.{OWN}=on", "/school", "/to-do")
_TIMES = {"from": _FROM, "to": _TO}
_WHY = {"reason": _TEXT}
_ACT = {"seen": (NEWEST, NEWEST, NEWEST, "1"), **_WHY}

Fields = Mapping[str, Sequence[str]]
GET_ANSWERS = frozenset({200, 303, 400, 401, 403, 404, 405, 421})
POST_ANSWERS = frozenset({200, 303, 400, 401, 403, 404, 405, 408, 409, 413, 415, 421})
FETCHED_ANSWERS = frozenset({200, 401, 403, 404, 405, 421, 429})


@dataclass(frozen=True, slots=True)
class Takes:
    """What a route takes in its address and in its form, and what it may answer beside the usual."""

    query: Fields = field(default_factory=dict)
    form: Fields = field(default_factory=dict)
    answers: frozenset[int] = frozenset()


def _form(answers: Sequence[int] = (), **fields: Sequence[str]) -> Takes:
    return Takes(form=fields, answers=frozenset(answers))


_NOTHING = Takes()
_RANGED = Takes(query=_TIMES)
_ORDER = Takes(form={**_TIMES, **_WHY})
TAKES: Mapping[tuple[str, str], Takes] = {
    ("GET", "/assets/{asset}"): Takes(query={"v": ("1",)}, answers=frozenset({304})),
    ("GET", "/login"): _NOTHING,
    ("POST", "/login"): _form((429,), login=("operator", "elm", "nobody"), password=(PASSWORD, "a wrong one")),
    ("POST", "/language"): _form(language=("vi", "en"), back=_BACK),
    ("POST", "/logout"): _NOTHING,
    ("GET", "/account"): _NOTHING,
    ("POST", "/account/password"): _form(
        (429,),
        old=(PASSWORD, "a wrong one"),
        new=("another goose on the roof", "short"),
        again=("another goose on the roof", "short"),
    ),
    ("GET", "/"): Takes(query={"skip": ("0", "1", "2")}),
    ("GET", "/board/stream"): Takes(query={"after": ("0", "3"), "evidence": ("", "1")}, answers=frozenset({503})),
    ("GET", "/alerts/{incident}"): _NOTHING,
    ("GET", "/alerts/{incident}/picture"): _NOTHING,
    ("POST", "/alerts/{incident}/acknowledge"): _form(back=_BACK),
    ("POST", "/alerts/{incident}/comment"): _form(text=_TEXT, back=_BACK),
    ("POST", "/alerts/{incident}/verdict"): _form(
        verdict=("true", "false"), reason=_TEXT, seen=(NEWEST, "0"), back=_BACK
    ),
    ("POST", "/alerts/{incident}/hand-over"): _form(to=("operator", "supervisor", "school", "elm"), back=_BACK),
    ("GET", "/posts"): Takes(
        query={
            "show": ("all", "trouble", "dark", "cost"),
            "find": ("gate", "oak"),
            "provider": ("VNPT",),
            "page": _NUMBERS,
        }
    ),
    ("GET", "/posts/{post}"): _NOTHING,
    ("GET", "/posts/{post}/picture"): _NOTHING,
    ("GET", "/to-do"): _NOTHING,
    ("GET", "/footage"): Takes(
        query={
            f"post.{OWN}": ("on",),
            f"post.{OTHER}": ("", "on"),
            "post.": ("on",),
            "find": ("gate",),
            "alert": ("", *INCIDENTS),
            "near": ("", "1"),
            "nearest": ("", "1"),
            **_TIMES,
        }
    ),
    ("GET", "/footage/{post}/part"): _RANGED,
    ("GET", "/footage/{post}/list.m3u8"): Takes(query=_TIMES, answers=frozenset({503})),
    ("GET", "/footage/{post}/files/{footage}"): Takes(answers=frozenset({206, 416, 503})),
    ("POST", "/footage/{post}/request"): _ORDER,
    ("POST", "/footage/{post}/hold"): _ORDER,
    ("GET", "/feeds/cap.atom"): _NOTHING,
    ("GET", "/feeds/cap/{incident}"): _NOTHING,
    ("GET", "/feeds/onvif"): _NOTHING,
    ("GET", "/api/alerts"): _NOTHING,
    ("GET", "/api/posts"): _NOTHING,
    ("GET", "/metrics"): _NOTHING,
    ("GET", "/openapi.json"): _NOTHING,
    ("GET", "/inspection"): Takes(query={"week": ("2026-W48", "2026-W47", "2023-W46")}),
    ("POST", "/inspection/draw"): _NOTHING,
    ("GET", "/inspection/draw.json"): Takes(query={"week": ("2026-W48", "2026-W47", "2023-W46")}),
    ("POST", "/inspection/check"): _form(
        week=("2026-W47", "2026-W47", "2026-W46"),
        kind=("post", "footage"),
        post=_POSTS,
        ref=("", "", OWN),
        result=("good", RESULTS[-1]),
        text=_TEXT,
    ),
    ("GET", "/inspection/report"): _RANGED,
    ("GET", "/inspection/report.csv"): _RANGED,
    ("GET", "/inspection/report.json"): _RANGED,
    ("GET", "/cases"): Takes(query={"find": ("bicycle", "12/2026"), "before": _NUMBERS, "after": _NUMBERS}),
    ("POST", "/cases"): Takes(
        form={"number": ("13/2026",), "place": _TEXT, "posts": (OWN, OTHER, f"{OWN}, {OTHER}"), **_WHY, **_TIMES}
    ),
    ("GET", "/cases/{case}"): _NOTHING,
    ("GET", "/cases/{case}/packages"): Takes(query={"after": ("0", "1", "3")}),
    ("GET", "/cases/{case}/copies/{copy}"): Takes(answers=frozenset({206, 416})),
    ("POST", "/cases/{case}/note"): Takes(form=_ACT),
    ("POST", "/cases/{case}/view"): Takes(form={"post": _POSTS, "part": ("0",), **_ACT}),
    ("POST", "/cases/{case}/copy"): Takes(form={"post": (*_POSTS, "*"), **_ACT}),
    ("POST", "/cases/{case}/attach"): Takes(form={"post": _POSTS, **_TIMES, **_ACT}),
    ("POST", "/cases/{case}/keep"): Takes(form=_ACT),
    ("POST", "/cases/{case}/transfer"): Takes(form={"recipient": _TEXT, "reference": ("D-77",), **_ACT}),
    ("POST", "/cases/{case}/return"): Takes(form=_ACT),
    ("POST", "/cases/{case}/close"): Takes(form=_ACT),
    ("POST", "/cases/{case}/reopen"): Takes(form=_ACT),
    ("POST", "/cases/{case}/dispose"): Takes(form={"reference": ("decree 5",), **_ACT}),
    ("GET", "/archive"): _NOTHING,
    ("POST", "/archive/removals"): Takes(form={"post": _POSTS, "authority": ("decision 12",), **_WHY, **_TIMES}),
    ("GET", "/archive/removals/{removal}"): _NOTHING,
    ("POST", "/archive/removals/{removal}/confirm"): _form(reason=("", *_TEXT)),
    ("POST", "/archive/removals/{removal}/refuse"): _form(reason=_TEXT),
    ("GET", "/live/{post}"): Takes(query={"reason": _TEXT}),
    ("POST", "/live/{post}/open"): _NOTHING,
    ("POST", "/live/{post}/hold"): _form(reason=_TEXT),
    ("POST", "/live/{post}/{view}/begin"): _form(
        mode=("stills", "video"), offer=("", "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"), reason=_TEXT, case=("1",)
    ),
    ("GET", "/live/{post}/{view}/state"): _NOTHING,
    ("GET", "/live/{post}/{view}/still"): _NOTHING,
    ("POST", "/live/{post}/{view}/more"): _NOTHING,
    ("POST", "/live/{post}/{view}/end"): _NOTHING,
    ("POST", "/evidence/{alarm}/acknowledge"): _form(comment=_TEXT, back=_BACK),
    ("GET", "/school"): _NOTHING,
    ("GET", "/schools"): _NOTHING,
    ("POST", "/schools/contacts"): _form(
        school=("school", "elm", "nobody"),
        contact=_TEXT,
        how=("phone", "email", "webhook"),
        address=("+84 24 3825 0000", "office@school.example", "http://127.0.0.1:9/hook"),
        after=("0", "90", ""),
    ),
    ("POST", "/schools/contacts/remove"): _form(n=("1", "4", "5", "6")),
    ("POST", "/schools/contacts/test"): _form((429,), n=("1", "2", "3", "4", "5")),
    ("GET", "/dock"): Takes(query={"before": ("1", "100")}),
    ("GET", "/household"): Takes(query={"post": _POSTS, "before": ("", "5", "100")}),
    ("GET", "/search"): Takes(
        query={
            "post": ("", OWN, OTHER),
            "class": ("", "person", "vehicle"),
            "kind": ("", "seen"),
            "severity": ("", "bell", "alert"),
            "verdict": ("", "true", "false", "none"),
            "zone": ("", "gate"),
            "word": ("", "gate", "cổng"),
            "before": ("", f"1795348000000000000.{INCIDENTS[0]}", "9223372036854775807."),
            "from": ("", "2026-11-22T07:00"),
            "to": ("", "2026-11-23T08:00:00"),
        }
    ),
    ("GET", "/search/{incident}/picture"): _NOTHING,
    ("GET", "/map"): _NOTHING,
    ("GET", "/map/posts"): Takes(query={"known": ("", "0" * 16)}, answers=frozenset({204})),
    ("GET", "/map/tiles/{zoom}/{column}/{tile}"): _NOTHING,
    ("GET", "/login/oidc"): Takes(answers=frozenset({429, 503})),
    ("GET", "/login/oidc/back"): Takes(
        query={"code": ("a-code",), "state": ("a-state",), "iss": (ORIGIN,), "error": ("access_denied",)},
        answers=frozenset({429, 503}),
    ),
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Of these routes. Raises KeyError for one that nobody has described, and ValueError for the description of none."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        takes = TAKES[route.method, route.path]
        in_path = [_parameter("path", name, PATHS[name]) for name in re.findall(r"\{([a-z_]+)\}", route.path)]
        operation: dict[str, Any] = {
            "parameters": [*in_path, *(_parameter("query", name, given) for name, given in takes.query.items())],
            "responses": {str(status): {"description": "said so"} for status in sorted(answers(route))},
        }
        if route.method == "POST":
            known = {"form": ("",), **takes.form}
            properties = {name: _value(given) for name, given in known.items()}
            schema = {"type": "object", "properties": properties, "additionalProperties": False}
            operation["requestBody"] = {"content": {FORM: {"schema": schema}}}
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    left_over = set(TAKES) - {(one.method, one.path) for one in routes}
    if left_over:
        raise ValueError(f"described, and not in the table of routes: {sorted(left_over)}")
    return {"openapi": "3.1.0", "info": {"title": "The desk's pages", "version": "1"}, "paths": paths}


def answers(route: Route) -> frozenset[int]:
    """The statuses that a page may give, whatever it is sent."""
    usual = FETCHED_ANSWERS if isinstance(route.may, Bearer) else GET_ANSWERS
    return (POST_ANSWERS if route.method == "POST" else usual) | TAKES[route.method, route.path].answers


def _parameter(where: str, name: str, given: Sequence[str]) -> dict[str, Any]:
    return {"in": where, "name": name, "required": where == "path", "schema": _value(given)}


def _value(given: Sequence[str]) -> dict[str, Any]:
    return {
        "anyOf": [
            {"enum": sorted(set(given))},
            {"enum": list(HOSTILE)},
            {"type": "string", "maxLength": FORM_BYTES_MAX // 32},
            {"type": "integer"},
        ]
    }
