"""`wardpost outward`: how it stands with each destination. `wardpost token`: who may fetch feeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.clock import Clock, rfc3339
from agent.disk import PosixDisk
from agent.errors import ConfigError
from agent.login import login as account
from agent.quantities import span
from agent.station.db import migrate
from agent.station.db.engine import FILE, database_url, open_engine
from agent.station.outward.queue import Standing, standings
from agent.station.outward.settings import OutwardSettings
from agent.station.outward.tokens import Token, Tokens
from agent.station.people.trail import Trail
from agent.types import NS


def show(
    settings: OutwardSettings, *, data: str, database: str, as_json: bool, clock: Clock, out: Callable[[str], None]
) -> int:
    """Returns 0; 1 when something waits whose last attempt failed. Raises ConfigError, Transient."""
    if not database and not (Path(data) / FILE).is_file():
        raise ConfigError(f"{Path(data) / FILE}: no such file; is a station running on this data folder?")
    engine = open_engine(database_url(Path(data), database), read_only=True, pooled=False)
    names = [*(one.name for one in settings.webhook), *(one.name for one in settings.contact)]
    try:
        found = standings(engine, names)
    finally:
        engine.dispose()
    now = clock.utc().utc_ns
    if as_json:
        out(json.dumps([_as_dict(one) for one in found], indent=2))
    else:
        for one in found:
            out(_words(one, now))
        if not found:
            out("nobody is told: there is neither [[outward.webhook]] nor [[outward.contact]] in the settings")
    return 1 if any(one.why for one in found) else 0


def _as_dict(one: Standing) -> dict[str, object]:
    return {
        "destination": one.destination,
        "waiting": one.waiting,
        "delivered": one.delivered,
        "given_up": one.given_up,
        "settled": one.settled,
        "oldest": None if one.oldest_utc_ns is None else rfc3339(one.oldest_utc_ns),
        "attempts": one.attempts,
        "why": one.why,
    }


def _words(one: Standing, now_utc_ns: int) -> str:
    line = f"{one.destination}: {one.waiting} waiting, {one.delivered} delivered, {one.given_up} given up"
    if one.settled:
        line += f", {one.settled} settled before"
    if one.oldest_utc_ns is not None:
        line += f"; the oldest for {span(max(now_utc_ns - one.oldest_utc_ns, 0) / NS)}"
    return line + (f", {one.attempts} attempts: {one.why}" if one.why else "")


@contextmanager
def _tokens(*, data: str, database: str, site: str, station: str, clock: Clock) -> Iterator[Tokens]:
    folder = Path(data)
    if not folder.is_dir():
        raise ConfigError(f"station.data: {folder} is not a folder; make it, or mount the partition")
    engine = open_engine(database_url(folder, database), pooled=False)
    try:
        migrate.upgrade(engine)
        trail = Trail(engine, clock=clock, site=site, station=station, disk=PosixDisk(folder))
        trail.open()
        yield Tokens(engine, trail=trail, clock=clock)
    finally:
        engine.dispose()


def token(
    action: str,
    *,
    data: str,
    database: str,
    site: str,
    station: str,
    name: str,
    purpose: str,
    as_json: bool,
    clock: Clock,
    out: Callable[[str], None],
) -> int:
    """`wardpost token add|list|revoke`. Beside a running station, or before its first start.

    Raises ConfigError, Transient, Corrupt.
    """
    by = f"account:{account()}"
    with _tokens(data=data, database=database, site=site, station=station, clock=clock) as tokens:
        if action == "add":
            out(tokens.add(name, purpose, by=by))
        elif action == "revoke":
            tokens.revoke(name, by=by)
            out(f"{name}: refused from now on")
        else:
            _listed(tokens.listing(), as_json=as_json, out=out)
    return 0


def _listed(found: Sequence[Token], *, as_json: bool, out: Callable[[str], None]) -> None:
    if as_json:
        rows = [
            {
                "name": one.name,
                "for": one.purpose,
                "made": rfc3339(one.made_utc_ns),
                "revoked": None if one.revoked_utc_ns is None else rfc3339(one.revoked_utc_ns),
            }
            for one in found
        ]
        out(json.dumps(rows, indent=2))
        return
    for one in found:
        state = "good" if one.revoked_utc_ns is None else f"revoked {rfc3339(one.revoked_utc_ns)}"
        out(f"{one.name}: for {one.purpose}, made {rfc3339(one.made_utc_ns)}, {state}")
    if not found:
        out("there are no tokens")
