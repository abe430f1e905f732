"""What headquarters says of an alert: true, false, and why. Taken by the node, and put on its ledger.

A verdict is a record of kind `verdict`: so it is durable on the node, signed, and stored by the station with the other
lines. Nothing is decided by it here. Whoever counts them takes the newest verdict of an incident, and one command id
once: a command may come again after a restart.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from agent.errors import Corrupt
from agent.evidence import records

REASON_CHARS_MAX = 300
REMEMBERED_MAX = 1000  # commands, so that one that comes twice makes one line
VERDICTS = ("true", "false")
_INCIDENT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class VerdictDesk:
    """Takes verdicts. One thread: the uplink's."""

    def __init__(self, note: Callable[[bytes], None]) -> None:
        """`note` makes a record's body durable, or raises Transient."""
        self._note = note
        self._taken: OrderedDict[str, bytes] = OrderedDict()

    def take(self, args: dict[str, Any], asker: str) -> dict[str, Any]:
        """`incident` (the id in its events), `verdict` (true or false), `reason`, `by` (a person's name, optional).

        The same `id` with the same content again changes nothing and answers the same. Raises Corrupt for what is no
        verdict, Transient when it cannot be kept.
        """
        incident, verdict = args.get("incident"), args.get("verdict")
        if not isinstance(incident, str) or not _INCIDENT.fullmatch(incident):
            raise Corrupt(f"verdict: incident {str(incident)[:60]!r} is not the id of one; `wardpost watch` shows them")
        if verdict not in VERDICTS:
            raise Corrupt(f"verdict: {str(verdict)[:40]!r} is neither true nor false")
        command, reason, by = (_text(args, name) for name in ("id", "reason", "by"))
        body = records.body(id=command, incident=incident, verdict=verdict, reason=reason, by=by, asker=asker)
        if not command or self._taken.get(command) != body:
            self._note(body)
            self._taken[command] = body
            while len(self._taken) > REMEMBERED_MAX:
                self._taken.popitem(last=False)
        return {"incident": incident, "verdict": verdict, "summary": f"on the ledger: {verdict}"}


def _text(args: dict[str, Any], name: str) -> str:
    value = args.get(name, "")
    if not isinstance(value, str) or len(value) > REASON_CHARS_MAX:
        raise Corrupt(f"verdict: {name}: a text of {REASON_CHARS_MAX} characters at most")
    return value.strip()
