"""Takes an evidence package apart and puts it together again with something changed, as a forger would.

What it writes is packed exactly as a node packs, so that the attack itself is what a verifier has to find. `key` is the
node's private key where the forger has stolen it; else the old signature stays.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.evidence import dsse, records, standalone
from agent.evidence.keys import Key
from agent.evidence.standalone import (
    EXTRACTION,
    LEDGER,
    MANIFEST,
    PACKAGE_TYPE,
    RECEIPTS,
    SIGNATURE,
    Member,
    directory_entry,
    end_of,
    local_header,
)


def pack(files: list[tuple[str, bytes]]) -> bytes:
    """A zip as a node writes it."""
    data, members = b"", []
    for name, contents in files:
        member = Member(name, len(contents), zlib.crc32(contents), len(data))
        data += local_header(member) + contents
        members.append(member)
    directory = b"".join(directory_entry(member) for member in members)
    return data + directory + end_of(len(members), len(directory), len(data))


class Forger:
    """A package in pieces."""

    def __init__(self, data: bytes) -> None:
        import io

        package = standalone.Package(io.BytesIO(data), standalone.Findings())
        package.open()
        self.files = {m.name: b"".join(package.chunks(m)) for m in package.members.values()}

    @property
    def segments(self) -> list[str]:
        return [name for name in self.files if name.startswith("segments/")]

    def lines(self, name: str = LEDGER) -> list[bytes]:
        return self.files[name].split(b"\n")[:-1]

    def set_lines(self, lines: list[bytes], name: str = LEDGER) -> None:
        self.files[name] = b"".join(line + b"\n" for line in lines)

    def manifest(self, edit: Callable[[dict[str, Any]], object]) -> None:
        told = json.loads(self.files[MANIFEST])
        edit(told)
        self.files[MANIFEST] = json.dumps(told, indent=1).encode() + b"\n"

    def restate(self, key: Key | None = None, *, extraction: bool = False) -> None:
        """Makes the manifest fit the files again. `extraction`: forges the record of the export too (needs the key)."""
        if extraction:
            assert key is not None
            digest = hashlib.sha256()
            for name, contents in sorted(self.files.items()):
                if name.endswith(".mp4") or name == "coverage.json":
                    digest.update(f"{hashlib.sha256(contents).hexdigest()}  {name}\n".encode())
            line = edit_line(
                self.lines(EXTRACTION)[0], key, lambda payload: payload["body"].update(content=digest.hexdigest())
            )
            self.set_lines([line], EXTRACTION)
            rest = [old for old in self.lines() if seq_of(old) < seq_of(line)]
            self.set_lines(rest)
            if RECEIPTS in self.files:
                kept = [r for r in self.lines(RECEIPTS) if seq_of(r) < seq_of(line)]
                self.set_lines(kept, RECEIPTS)
        self.manifest(
            lambda told: told.update(
                files=[
                    {"name": name, "bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
                    for name, contents in self.files.items()
                    if name not in (MANIFEST, SIGNATURE)
                ]
            )
        )
        if key is not None:
            signature = b64encode(key.sign(dsse.pae(PACKAGE_TYPE, self.files[MANIFEST]))).decode()
            told = {"payloadType": PACKAGE_TYPE, "signatures": [{"keyid": key.keyid, "sig": signature}]}
            self.files[SIGNATURE] = json.dumps(told, separators=(",", ":")).encode() + b"\n"

    def data(self) -> bytes:
        return pack(list(self.files.items()))

    def write(self, path: Path) -> Path:
        path.write_bytes(self.data())
        return path


def seq_of(line: bytes) -> int:
    """The number of a record, or of the record that a receipt is for."""
    seq: int = json.loads(dsse.parse(line).payload)["seq"]
    return seq


def edit_line(line: bytes, key: Key, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """The line with something changed, signed by `key`."""
    payload = json.loads(dsse.parse(line).payload)
    edit(payload)
    return dsse.sign(
        dsse.parse(line).payload_type, json.dumps(payload, sort_keys=True, separators=(",", ":")).encode(), key
    )


def rewrite(lines: list[bytes], start: int, key: Key, edit: Callable[[dict[str, Any]], object]) -> list[bytes]:
    """Changes line `start` and signs it and all that follow, so that the chain holds: what a stolen key can do."""
    out = lines[:start]
    for index, line in enumerate(lines[start:]):

        def both(payload: dict[str, Any], first: bool = index == 0) -> None:
            if first:
                edit(payload)
            if out:
                payload["prev"] = records.digest(out[-1])

        out.append(edit_line(line, key, both))
    return out
