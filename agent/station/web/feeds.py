"""What programs fetch: CAP, ONVIF events, figures, alerts and posts as JSON. Each by a token of its purpose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Engine, func, select
from starlette.responses import Response

from agent import __version__
from agent.clock import Clock, rfc3339
from agent.station.alerts import Alert, Alerts
from agent.station.db.board import alert
from agent.station.db.engine import reading
from agent.station.db.tables import event, node
from agent.station.evidence_alarms import count_open
from agent.station.outward import metrics, onvif, openapi
from agent.station.outward.cap import ATOM_TYPE, CAP_TYPE, Cap
from agent.station.outward.notice import PLACE_CHARS_MAX, SUMMARY_CHARS_MAX, clean
from agent.station.outward.queue import standings
from agent.station.outward.settings import FeedSettings
from agent.station.people.roles import Scope
from agent.station.web.gate import Asked, Refused
from agent.station.web.routes import ANYBODY, Bearer, Route
from agent.types import NS

WHOLE_SITE = Scope(whole_site=True)
POSTS_MAX = 10_000


class Feeds:
    """Handlers. Any thread."""

    def __init__(
        self, settings: FeedSettings, *, engine: Engine, alerts: Alerts, clock: Clock, site: str, origin: str
    ) -> None:
        self._engine = engine
        self._alerts = alerts
        self._clock = clock
        self._site = site
        self._since_ns = int(settings.hours * 3600 * NS)
        self._cap = Cap(
            site=site, sender=settings.sender, language=settings.language, origin=origin, hours=settings.hours
        )

    def routes(self) -> tuple[Route, ...]:
        """For the table."""
        cap, events, figures = Bearer("cap"), Bearer("events"), Bearer("metrics")
        return (
            Route(method="GET", path="/feeds/cap.atom", handler=self.cap_feed, may=cap),
            Route(method="GET", path="/feeds/cap/{incident}", handler=self.cap_alert, may=cap),
            Route(method="GET", path="/feeds/onvif", handler=self.onvif_events, may=events),
            Route(method="GET", path="/api/alerts", handler=self.alerts, may=events),
            Route(method="GET", path="/api/posts", handler=self.posts, may=events),
            Route(method="GET", path="/metrics", handler=self.metrics, may=figures),
            Route(method="GET", path="/openapi.json", handler=self.openapi, may=ANYBODY),
        )

    def cap_feed(self, _asked: Asked) -> Response:
        """Atom, one entry for each alert."""
        return Response(self._cap.feed(self._newest(), now_utc_ns=self._now()), media_type=ATOM_TYPE)

    def cap_alert(self, asked: Asked) -> Response:
        """One alert."""
        found = self._alerts.find(WHOLE_SITE, asked.params["incident"])
        if found is None:
            raise Refused(404)
        return Response(self._cap.document(found), media_type=CAP_TYPE)

    def onvif_events(self, _asked: Asked) -> Response:
        """A list of events."""
        return _json(onvif.events(self._newest()))

    def alerts(self, _asked: Asked) -> Response:
        """Alerts as the board has them, without pictures."""
        return _json([_alert(one) for one in self._newest()])

    def posts(self, _asked: Asked) -> Response:
        """Posts as the station judges them."""
        columns = (node.c.node, node.c.place, node.c.state, node.c.state_since_utc_ns, node.c.seen_utc_ns)
        with reading(self._engine) as db:
            rows = db.execute(select(*columns, node.c.version).order_by(node.c.node).limit(POSTS_MAX)).all()
        return _json(
            {
                "node": row.node,
                "place": clean(row.place, PLACE_CHARS_MAX),
                "state": row.state,
                "since": rfc3339(row.state_since_utc_ns),
                "heard": rfc3339(row.seen_utc_ns),
                "version": clean(row.version, 64),
            }
            for row in rows
        )

    def metrics(self, _asked: Asked) -> Response:
        """For Prometheus."""
        with reading(self._engine) as db:
            nodes = db.execute(select(node.c.state, func.count()).group_by(node.c.state)).all()
            raised = db.execute(select(alert.c.severity, func.count()).group_by(alert.c.severity)).all()
            unanswered = alert.c.acknowledged_utc_ns.is_(None)
            waiting = select(alert.c.severity, func.count()).where(unanswered).group_by(alert.c.severity)
            unacknowledged = db.execute(waiting).all()
            late = select(func.count()).where(unanswered, alert.c.overdue_utc_ns.isnot(None))
            overdue = db.execute(late).scalar_one()
            evidence = count_open(db)
            events = db.execute(select(func.coalesce(func.max(event.c.n), 0))).scalar_one()
        figures = metrics.Figures(
            site=self._site,
            version=__version__,
            nodes={state: count for state, count in nodes},  # noqa: C416  (rows, not tuples)
            alerts={severity: count for severity, count in raised},  # noqa: C416
            unacknowledged={severity: count for severity, count in unacknowledged},  # noqa: C416
            overdue=overdue,
            evidence_alarms=evidence,
            events=events,
            outward=standings(self._engine),
            now_utc_ns=self._now(),
        )
        return Response(metrics.render(figures), headers={"content-type": metrics.CONTENT_TYPE})

    def openapi(self, _asked: Asked) -> Response:
        """What all of this is, for programs."""
        return _json(openapi.document(__version__))

    def _newest(self) -> list[Alert]:
        return self._alerts.board(WHOLE_SITE, self._now() - self._since_ns)

    def _now(self) -> int:
        return self._clock.utc().utc_ns


def _alert(one: Alert) -> dict[str, Any]:
    told = one.told
    return {
        "incident": one.incident,
        "node": one.node,
        "severity": one.severity,
        "raised": rfc3339(one.raised_utc_ns),
        "due": rfc3339(one.due_utc_ns),
        "overdue": one.overdue,
        "ended": one.ended,
        "acknowledged": None if one.acknowledged_utc_ns is None else rfc3339(one.acknowledged_utc_ns),
        "verdict": one.verdict,
        "place": "" if told is None else clean(told.data.place, PLACE_CHARS_MAX),
        "summary": "" if told is None else clean(told.data.summary, SUMMARY_CHARS_MAX),
        "time": None if told is None else clean(told.time, 40),
        "timeerrms": None if told is None else told.timeerrms,
    }


def _json(value: Iterable[Any] | dict[str, Any]) -> Response:
    body = value if isinstance(value, dict) else list(value)
    return Response(msgspec.json.encode(body), media_type="application/json")
