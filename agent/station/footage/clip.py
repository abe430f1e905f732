"""Whether the film of an alert is here, on its way by itself, or not coming, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Engine, and_, func, or_, select

from agent import wire
from agent.errors import Corrupt
from agent.station import uploads_rows as rows
from agent.station.db.board import alert
from agent.station.db.cases import case_tombstone
from agent.station.db.engine import reading
from agent.station.db.tables import node as nodes
from agent.station.db.uploads import footage, footage_clip
from agent.station.uploads_judge import State as FootageState


class State(StrEnum):
    """What can be said of it. Each has a text `clip.<state>` on the pages."""

    HERE = "here"  # what was recorded at the moment of alarm
    NOT_SENT = "not-sent"
    EXPECTED = "expected"  # not here, and its post sends such films by itself
    NONE = "none"  # not here, and by its settings its post sends none of this kind


@dataclass(frozen=True, slots=True)
class Clip:
    """`not_sent`: why not all of it came, in the post's words; empty: it has not said so."""

    state: State
    not_sent: str = ""


class Clips:
    """Any thread. Raises Transient."""

    def __init__(self, *, engine: Engine) -> None:
        self._engine = engine

    def of(self, node: str, incident: str) -> Clip | None:
        """What there is for an alert; None where nothing is known: its post has an older agent, and never sent one."""
        with reading(self._engine, "look for a clip") as db:
            said = db.execute(
                select(footage_clip.c.not_sent).where(footage_clip.c.node == node, footage_clip.c.incident == incident)
            ).scalar()
            if _here(db, node, rows.alarms(db, node, incident)):
                return Clip(State.HERE, said or "")
            if said:
                return Clip(State.NOT_SENT, said)
            if _sends_none(db, node, incident):
                return Clip(State.NONE)
            sends = db.execute(select(func.count()).select_from(footage_clip).where(footage_clip.c.node == node))
            return Clip(State.EXPECTED) if said is None and sends.scalar_one() else None


def _sends_none(db: Connection, node: str, incident: str) -> bool:
    """Whether the post says so now. What it sent before need not be so: a film that is here is shown anyway."""
    body = db.execute(select(nodes.c.heartbeat).where(nodes.c.node == node)).scalar()
    try:
        least = "" if body is None else wire.decode(bytes(body), wire.Heartbeat).clips
    except Corrupt:
        return False
    if least != "bell":
        return least == "none"
    severity = db.execute(select(alert.c.severity).where(alert.c.node == node, alert.c.incident == incident)).scalar()
    return severity is not None and severity != "bell"


def _here(db: Connection, node: str, alarms: list[rows.Moment]) -> bool:
    """Whether a file that may be shown lies over one of these moments."""
    if not alarms:
        return False
    c, gone = footage.c, case_tombstone.c
    over = [
        and_(c.boot_id == one.boot_id, c.start_ns <= one.boot_ns, c.end_ns >= one.boot_ns)
        for one in dict.fromkeys(alarms)
    ]
    disposed = select(gone.sha256).where(gone.node == c.node, gone.sha256 == c.sha256).exists()
    found = select(c.n).where(c.node == node, c.state != FootageState.MISMATCH.value, or_(*over), ~disposed).limit(1)
    return db.execute(found).scalar() is not None
