"""What headquarters says of an alert: true, false, and why. Taken by the node, and put on its ledger.

A verdict is a row of the store and a record of kind `verdict`, in one transaction: so it is durable on the node,
signed, and kept by the station with the other lines. A command that comes again, also after a restart, changes nothing:
the store knows its id. Nothing is decided by a verdict here; `agent.audit` counts them, the newest of an incident.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from agent.errors import Corrupt
from agent.types import Verdict

REASON_CHARS_MAX = 300
VERDICTS = ("true", "false")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class VerdictDesk:
    """Takes verdicts. One thread: the uplink's."""

    def __init__(self, *, keep: Callable[[Verdict], bool], utc_ns: Callable[[], int]) -> None:
        """`keep` makes one durable and says whether it was new, or raises Transient (`Store.add_verdict`)."""
        self._keep = keep
        self._utc_ns = utc_ns

    def take(self, args: dict[str, Any], asker: str) -> dict[str, Any]:
        """`id` of the command, and the rest as for `read`. The same id again changes nothing and answers the same.

        Raises Corrupt for what is no verdict, Transient when it cannot be kept.
        """
        said = read(args, asker=asker, made_utc_ns=self._utc_ns())
        self._keep(said)
        return {"incident": said.incident, "verdict": said.verdict, "summary": f"on the ledger: {said.verdict}"}


def read(args: dict[str, Any], *, asker: str, made_utc_ns: int) -> Verdict:
    """`id`, `incident` (the id in its events), `verdict` (true or false), `reason`, `by` (a person's name): the last
    two may be missing. Pure. Raises Corrupt for what is no verdict.
    """
    incident, verdict, command = args.get("incident"), args.get("verdict"), args.get("id")
    if not isinstance(incident, str) or not _ID.fullmatch(incident):
        raise Corrupt(f"verdict: incident {str(incident)[:60]!r} is not the id of one; `wardpost watch` shows them")
    if verdict not in VERDICTS:
        raise Corrupt(f"verdict: {str(verdict)[:40]!r} is neither true nor false")
    if not isinstance(command, str) or not 0 < len(command) <= REASON_CHARS_MAX:
        raise Corrupt("verdict: a command without an id could not be told from its repetition")
    return Verdict(command, incident, verdict, _text(args, "reason"), _text(args, "by"), asker, made_utc_ns)


def _text(args: dict[str, Any], name: str) -> str:
    value = args.get(name, "")
    if not isinstance(value, str) or len(value) > REASON_CHARS_MAX:
        raise Corrupt(f"verdict: {name}: a text of {REASON_CHARS_MAX} characters at most")
    return value.strip()
