"""`wardpost doctor`: asks the running agent, or reads what a stopped one has left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent import config
from agent.clock import Clock, SystemClock
from agent.config import Config
from agent.doctor.facts import Service
from agent.doctor.gather import RunningPost, stopped_facts, systemd_service
from agent.doctor.rules import as_reply, diagnose, in_words
from agent.errors import Transient
from agent.local import order
from agent.machine import Machine

EXIT_WELL = 0
EXIT_WRONG = 1


class DoctorDesk:
    """The verb `doctor` of a running agent."""

    def __init__(self, post: RunningPost) -> None:
        self._post = post

    def examine(self, _args: dict[str, Any]) -> dict[str, Any]:
        """As `rules.as_reply`. Any thread; changes nothing; never raises for a part that is sick."""
        return as_reply(diagnose(self._post.facts()))


def doctor(
    path: Path,
    *,
    as_json: bool,
    out: Callable[[str], None],
    clock: Clock | None = None,
    machine: Machine | None = None,
    service: Callable[[], Service | None] = systemd_service,
) -> int:
    """Prints what is wrong now; returns 0 when nothing is, else 1. Blocks for 20 s at most where an agent hangs.

    Raises ConfigError for a file that is wrong, or when this user may not ask.
    """
    settings = config.load(path, Config)
    folder = Path(settings.node.data)
    try:
        reply = order(folder, "doctor", {})
    except Transient as error:
        facts = stopped_facts(
            settings,
            said=str(error),
            clock=clock or SystemClock(),
            machine=machine or Machine(),
            service=service,
        )
        reply = as_reply(diagnose(facts))
    out(json.dumps(reply, indent=2) if as_json else in_words(reply))
    return EXIT_WELL if reply["well"] else EXIT_WRONG
