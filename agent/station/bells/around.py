"""What a person is shown around a bell: its own post and the nearest ones that he may see, each with its newest
picture, and what is kept of the press.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, select

from agent import wire
from agent.clock import Clock
from agent.errors import Corrupt, WardpostError
from agent.station.alerts import jpeg_of
from agent.station.bells.book import holds_of
from agent.station.bells.deciding import Near, nearest
from agent.station.bells.settings import BellSettings
from agent.station.db.engine import reading
from agent.station.db.tables import event, node, stream
from agent.station.orders import OrderBook
from agent.station.people.roles import Scope
from agent.station.posts.known import Spot
from agent.types import NS

VIEW_KEPT_S = 2.0
SPOTS_KEPT_S = 60.0
NEAR_LOOKED_AT_MAX = 200
"""Of the register's posts near one, those that are looked for: many may never have been heard."""
EVENTS_LOOKED_AT_MAX = 2000
"""Behind the newest of a post: an older picture tells nothing of now."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Picture:
    """A post's newest picture. `n`: of its event; `utc_ns`: when the station had it."""

    n: int
    incident: str
    utc_ns: int


@dataclass(frozen=True, slots=True)
class Nearby:
    """A post around a bell; the bell's own has no distance."""

    node: str
    place: str
    metres: int
    own: bool
    heard: bool
    picture: Picture | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What a post was asked to keep. `state`: due, waiting, done, refused, failed, expired; `sent`: how often."""

    node: str
    place: str
    from_utc_ns: int
    to_utc_ns: int
    state: str
    sent: int


@dataclass(frozen=True, slots=True)
class _View:
    """`known`: place and state of each post. `near` and `pictures` are filled as they are asked for."""

    boot_ns: int
    spots: Mapping[str, Spot]
    known: Mapping[str, tuple[str, str]]
    near: dict[str, list[Near]] = field(default_factory=dict)
    pictures: dict[str, Picture | None] = field(default_factory=dict)


class Around:
    """Any thread. Raises Transient, Corrupt."""

    def __init__(
        self,
        settings: BellSettings,
        *,
        engine: Engine,
        register: Callable[[], Mapping[str, Spot]],
        clock: Clock,
    ) -> None:
        """`register`: where posts are."""
        self._settings = settings
        self._engine = engine
        self._register = register
        self._clock = clock
        self._lock = threading.Lock()
        self._view: _View | None = None
        self._kept: tuple[int, Mapping[str, Spot]] | None = None

    def near(self, scope: Scope, bell: str) -> list[Nearby]:
        """The bell's own post first, then the nearest that these eyes may see; `neighbours_max` of them at most."""
        if not scope.covers(bell):
            return []
        with self._lock:
            view = self._looked()
            if bell not in view.known:
                return []
            if bell not in view.near:
                view.near[bell] = nearest(bell, view.spots, among=view.known, m_max=self._settings.near_m_max)
            seen = [one for one in view.near[bell] if scope.covers(one.node)]
            shown = [Near(bell, 0.0), *seen[: self._settings.neighbours_max]]
            new = [one.node for one in shown if one.node not in view.pictures]
            if new:
                with reading(self._engine, "look for pictures") as db:
                    view.pictures.update({of: newest_picture(db, of) for of in new})
            return [
                Nearby(
                    node=one.node,
                    place=view.known[one.node][0] or one.node,
                    metres=round(one.metres),
                    own=one.node == bell,
                    heard=view.known[one.node][1] in ("online", "late"),
                    picture=view.pictures[one.node],
                )
                for one in shown
            ]

    def names(self, scope: Scope, post: str, posts_max: int) -> list[str]:
        """A post and then those near it that these eyes may see, the nearest first, `posts_max` in all. None when
        nobody has heard it; itself only when the register puts it near nobody.
        """
        if not scope.covers(post):
            return []
        with self._lock:
            spots = self._placed()
        near = nearest(post, spots, among=spots, m_max=self._settings.near_m_max)
        names = [post, *(one.node for one in near if scope.covers(one.node))][:NEAR_LOOKED_AT_MAX]
        with reading(self._engine, "look for posts") as db:
            heard = set(db.execute(select(node.c.node).where(node.c.node.in_(names))).scalars())
        return [name for name in names if name in heard][:posts_max]

    def picture(self, scope: Scope, post: str) -> tuple[str, bytes] | None:
        """A post's newest picture, JPEG, and its incident; None also when it is not for these eyes."""
        if not scope.covers(post):
            return None
        with reading(self._engine, "look for a picture") as db:
            found = newest_picture(db, post)
            if found is None:
                return None
            body = db.execute(select(event.c.body).where(event.c.n == found.n)).scalar_one()
        try:
            jpeg = jpeg_of(wire.decode(bytes(body), wire.CloudEvent))
        except Corrupt:
            return None
        return None if jpeg is None else (found.incident, jpeg)

    def kept(self, scope: Scope, incident: str) -> list[Kept]:
        """What was ordered for a press at posts that these eyes may see, and what became of it."""
        holds = [one for one in holds_of(self._engine, incident) if scope.covers(one.node)]
        if not holds:
            return []
        with reading(self._engine, "look for posts") as db:
            places = {str(of): str(place) for of, place, _ in db.execute(_POSTS)}
        answers = self._answers([one.id for one in holds])
        return [
            Kept(
                node=one.node,
                place=places.get(one.node, "") or one.node,
                from_utc_ns=one.from_utc_ns,
                to_utc_ns=one.to_utc_ns,
                state=answers[one.id][0] if one.state == "queued" and one.id in answers else one.state,
                sent=answers[one.id][1] if one.id in answers else 0,
            )
            for one in holds
        ]

    def _answers(self, ids: list[str]) -> dict[str, tuple[str, int]]:
        with OrderBook(self._engine) as book:
            return {one.id: (one.state, one.sent) for one in map(book.find, ids) if one is not None}

    def _looked(self) -> _View:
        """What was looked up some moments ago: a board shows many bells to many people."""
        now = self._clock.boot_ns()
        if self._view is None or not 0 <= now - self._view.boot_ns < VIEW_KEPT_S * NS:
            with reading(self._engine, "look around a bell") as db:
                known = {str(of): (str(place), str(state)) for of, place, state in db.execute(_POSTS)}
            self._view = _View(now, self._spots(), known)
        return self._view

    def _placed(self) -> Mapping[str, Spot]:
        """Where posts are, as the register said a moment ago: one is not put up every minute."""
        now = self._clock.boot_ns()
        if self._kept is None or not 0 <= now - self._kept[0] < SPOTS_KEPT_S * NS:
            self._kept = now, self._spots()
        return self._kept[1]

    def _spots(self) -> Mapping[str, Spot]:
        try:
            return self._register()
        except WardpostError as error:  # a bell is shown without its neighbours rather than not at all
            log.warning("bells: nobody can tell what is near: %s", error)
            return {}


_POSTS = select(node.c.node, node.c.place, node.c.state)


def newest_picture(db: Connection, post: str) -> Picture | None:
    """The newest picture among a post's newest events."""
    life = db.execute(
        select(stream.c.stream, stream.c.head).where(stream.c.node == post).order_by(stream.c.stream.desc()).limit(1)
    ).one_or_none()
    if life is None:
        return None
    row = db.execute(
        select(event.c.n, event.c.incident, event.c.received_utc_ns)
        .where(
            event.c.stream == life.stream,
            event.c.sequence > life.head - EVENTS_LOOKED_AT_MAX,
            event.c.kind == "thumbnail",
            event.c.incident.isnot(None),
        )
        .order_by(event.c.sequence.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else Picture(int(row.n), str(row.incident), int(row.received_utc_ns))
