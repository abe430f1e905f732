"""The table of routes. A route says who may use it, or it cannot be made: what nobody has thought about is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from agent.station.outward.tokens import Purpose
from agent.station.people.roles import Role

_PARAMETER = re.compile(r"\{([a-z_]+)\}")
PATTERNS = {
    "incident": re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    "view": re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    "post": re.compile(r"[a-z0-9-]{1,32}"),
    "alarm": re.compile(r"[1-9][0-9]{0,8}"),
    "case": re.compile(r"[1-9][0-9]{0,8}"),
    "copy": re.compile(r"[1-9][0-9]{0,8}"),
    "removal": re.compile(r"[1-9][0-9]{0,8}"),
    "footage": re.compile(r"[0-9]{1,15}\.mp4"),
    "zoom": re.compile(r"[0-9]{1,2}"),
    "column": re.compile(r"[0-9]{1,7}"),
    "tile": re.compile(r"[0-9]{1,7}\.png"),
    "asset": re.compile(r"[a-z]{1,20}(?:\.[a-z]{2,4}){1,2}"),
}
"""What a parameter of a path may be. Anything else is answered as a page that does not exist."""
METHODS = ("GET", "POST")


class Anybody:
    """Who may use a route without having logged in. A class of its own, so that no empty list can mean it."""

    def __repr__(self) -> str:
        return "ANYBODY"


ANYBODY = Anybody()


@dataclass(frozen=True, slots=True)
class Bearer:
    """A program that shows a token for this purpose (agent/station/outward/tokens.py); no person, whatever the role."""

    purpose: Purpose


May = frozenset[Role] | Anybody | Bearer


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path. `handler` gets an `Asked` (agent/station/web/gate.py), on a thread that may block; that
    of a `stream` is awaited. `faceless`: it is the same for anybody, so nobody is looked up, and no cookie is set.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Callable[..., Any]
    may: May
    stream: bool = False
    faceless: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.may, frozenset):
            if not self.may or not all(isinstance(role, Role) for role in self.may):
                raise ValueError(f"{self.method} {self.path}: it says of nobody that he may")
        elif not isinstance(self.may, Anybody | Bearer):
            raise TypeError(f"{self.method} {self.path}: may is a set of roles, ANYBODY, or a Bearer")
        elif isinstance(self.may, Bearer) and (self.method != "GET" or self.stream):
            raise ValueError(f"{self.method} {self.path}: with a token one may fetch, nothing else")
        if self.faceless and (self.method != "GET" or not isinstance(self.may, Anybody)):
            raise ValueError(f"{self.method} {self.path}: who asks must be looked up")
        if self.method not in METHODS or not self.path.startswith("/"):
            raise ValueError(f"{self.method} {self.path}: no such thing")
        unknown = set(_PARAMETER.findall(self.path)) - set(PATTERNS)
        if unknown:
            raise ValueError(f"{self.path}: nobody has said what {', '.join(sorted(unknown))} may be")

    def admits(self, role: Role | None) -> bool:
        """Whether somebody of this role may use it; None: who has not logged in."""
        return isinstance(self.may, Anybody) or (isinstance(self.may, frozenset) and role in self.may)


def check_table(routes: Iterable[Route]) -> tuple[Route, ...]:
    """The routes, once each. Raises ValueError for two of one method and path."""
    found = tuple(routes)
    seen: set[tuple[str, str]] = set()
    for route in found:
        key = (route.method, _PARAMETER.sub("{}", route.path))
        if key in seen:
            raise ValueError(f"{route.method} {route.path} stands twice in the table")
        seen.add(key)
    return found
