"""Changing the node's key, and telling which one is in force.

    1  the new key, durable         keys/node-<n+1>.pem: a key that nobody has introduced signs nothing
    2  a record of kind `key`       into the journal, in one transaction
    3  the line                     signed by the old key, durable; every line behind it is signed by the new one

A cut between 1 and 2 leaves a key that is not in use, and the next change takes that one. A cut between 2 and 3 leaves
a fact in the journal: the next start puts it down. Which key is in force is written in one place, the ledger's last
line: the key that it introduces, or the one that signed it. So there are never two, and never none.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any, Protocol

from agent.disk import Disk
from agent.errors import Corrupt, Transient
from agent.evidence import dsse, keys, records
from agent.evidence.chain import accept_key
from agent.evidence.ledger import Ledger
from agent.evidence.package import ledger_lines
from agent.evidence.records import RecordKind

REASON_CHARS_MAX = 200


class Notes(Protocol):
    """The part of the store that is needed. Raises Transient."""

    def note(self, kind: RecordKind, body: bytes, *, urgent: bool = False) -> None: ...


def in_force(disk: Disk) -> keys.Key | None:
    """The key that signs the next line, by what is on the disk; None: there is none yet. Raises Transient.

    Of a node without a ledger it is the newest key.
    """
    pairs = {key.keyid: key for key in keys.load(disk, "node")}
    for line in ledger_lines(disk, newest_first=True):
        with suppress(Corrupt):
            envelope = dsse.parse(line)
            told = accept_key(records.read(envelope))
            found = pairs.get(envelope.keyid if told is None else told[0])
            if found is not None:
                return found
    return next(reversed(pairs.values()), None)


def show(disk: Disk) -> dict[str, Any]:
    """The public halves, oldest first, for a person to compare. Reads only. Raises Transient."""
    current = in_force(disk)
    return {
        "keys": [
            {
                "keyid": key.keyid,
                "public": key.public.hex(),
                "fingerprint": hashlib.sha256(key.public).hexdigest(),
                "in_force": current is not None and key.keyid == current.keyid,
            }
            for key in keys.load(disk, "node")
        ]
    }


class KeyDesk:
    """Changes the key. `rotate` may be called from any thread, one at a time; it blocks for a few syncs."""

    def __init__(self, *, disk: Disk, ledger: Ledger, notes: Notes) -> None:
        self._disk = disk
        self._ledger = ledger
        self._notes = notes
        self._asked = ""  # the key that the last call has put on its way

    def rotate(self, args: dict[str, Any]) -> dict[str, Any]:
        """`reason`, `by`: words for the ledger. Raises Transient: nothing has changed, or a change is under way."""
        before = self._ledger.key
        if self._asked and before.keyid != self._asked:
            raise Transient(f"key: {self._asked} is on its way onto the ledger; ask again in a while")
        new = self._unused(before.keyid) or keys.make(self._disk, "node")
        self._ledger.add_key(new)
        told = records.body(
            keyid=new.keyid,
            public=new.public.hex(),
            algorithm="Ed25519",
            reason=str(args.get("reason", ""))[:REASON_CHARS_MAX],
            by=str(args.get("by", ""))[:REASON_CHARS_MAX],
        )
        self._notes.note(RecordKind.KEY, told, urgent=True)
        self._asked = new.keyid
        return {"keyid": new.keyid, "public": new.public.hex(), "before": before.keyid}

    def _unused(self, current: str) -> keys.Key | None:
        """A key that was made and never came into force, because of a cut or a full disk."""
        pairs = keys.load(self._disk, "node")
        if pairs and pairs[-1].keyid != current and current in {key.keyid for key in pairs}:
            return pairs[-1]
        return None
