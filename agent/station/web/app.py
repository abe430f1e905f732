"""The application: the table of routes, and the gate before each of them."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route as StarletteRoute

from agent.station.people.roles import Role
from agent.station.web.assets import asset
from agent.station.web.board import HANDING_ON, JUDGING, Board
from agent.station.web.door import Door
from agent.station.web.footage import Footage
from agent.station.web.gate import Gate
from agent.station.web.headers import SafeHeaders
from agent.station.web.posts import PostPages
from agent.station.web.routes import ANYBODY, Route, check_table

EVERYONE = frozenset(Role)
STAFF = EVERYONE - {Role.HOUSEHOLD}
"""Not who only hosts a post: a household has one page."""
SEEING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL, Role.AUDITOR})
"""Who sees alerts and pictures. Not who keeps the machines: it is not needed for that."""
ACTING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL})


def table(
    *,
    door: Door,
    board: Board,
    posts: PostPages,
    footage: Footage | None = None,
    feeds: Sequence[Route] = (),
    watch: Sequence[Route] = (),
    casework: Sequence[Route] = (),
    homes: Sequence[Route] = (),
    mapped: Sequence[Route] = (),
    oidc: Sequence[Route] = (),
) -> tuple[Route, ...]:
    """Every route there is, and who may use it. `footage` None: there is no archive. `watch`: live view.

    `homes`: pages of schools and households, and what is shown around bells.
    """
    alert = "/alerts/{incident}"
    watching = () if footage is None else _footage(footage)
    return check_table(
        (
            Route(method="GET", path="/assets/{asset}", handler=asset, may=ANYBODY, faceless=True),
            Route(method="GET", path="/login", handler=door.login, may=ANYBODY),
            Route(method="POST", path="/login", handler=door.enter, may=ANYBODY),
            Route(method="POST", path="/language", handler=door.language, may=ANYBODY),
            Route(method="POST", path="/logout", handler=door.leave, may=EVERYONE),
            Route(method="GET", path="/account", handler=door.account, may=EVERYONE),
            Route(method="POST", path="/account/password", handler=door.password, may=EVERYONE),
            Route(method="GET", path="/", handler=board.page, may=SEEING),
            Route(method="GET", path="/board/stream", handler=board.stream, may=SEEING, stream=True),
            Route(method="GET", path=alert, handler=board.alert, may=SEEING),
            Route(method="GET", path=f"{alert}/picture", handler=board.picture, may=SEEING),
            Route(method="POST", path=f"{alert}/acknowledge", handler=board.acknowledge, may=ACTING),
            Route(method="POST", path=f"{alert}/comment", handler=board.comment, may=ACTING),
            Route(method="POST", path=f"{alert}/verdict", handler=board.verdict, may=JUDGING),
            Route(method="POST", path=f"{alert}/hand-over", handler=board.hand_over, may=HANDING_ON),
            Route(method="GET", path="/posts", handler=posts.page, may=STAFF),
            Route(method="GET", path="/posts/{post}", handler=posts.post, may=STAFF),
            Route(method="GET", path="/to-do", handler=posts.todo, may=STAFF - {Role.SCHOOL}),
            *watching,
            *feeds,
            *casework,
            *watch,
            *homes,
            *mapped,
            *oidc,
        )
    )


def _footage(footage: Footage) -> tuple[Route, ...]:
    post = "/footage/{post}"
    return (
        Route(method="GET", path="/footage", handler=footage.page, may=SEEING),
        Route(method="GET", path=f"{post}/part", handler=footage.part, may=SEEING),
        Route(method="GET", path=f"{post}/list.m3u8", handler=footage.media, may=SEEING),
        Route(method="GET", path=f"{post}/files/{{footage}}", handler=footage.file, may=SEEING),
        Route(method="POST", path=f"{post}/request", handler=footage.ask, may=ACTING),
        Route(method="POST", path=f"{post}/hold", handler=footage.hold, may=ACTING),
    )


def application(routes: Sequence[Route], gate: Gate) -> Starlette:
    """What uvicorn serves. What is not in the table does not exist."""
    app = Starlette(
        routes=[StarletteRoute(one.path, gate.endpoint(one), methods=[one.method]) for one in routes],
        middleware=[Middleware(SafeHeaders)],
        exception_handlers={HTTPException: gate.nothing_here},
    )
    app.router.redirect_slashes = False  # it would answer with the address that the request named
    return app
