"""`wardpost verify`: the verifier of somebody who has Wardpost.

It decides by the same rules as the single file that lies in every package (`standalone`), and does with other means
what can be done twice: signatures by `cryptography` instead of openssl, lines by `dsse` and `records`, footage by the
recorder's own `fragments.scan`, and the whole ledger a second time by `chain.check`. A package on which the two
opinions differ is not verified. tests/unit/test_verify.py holds both programs against each other.
"""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from agent.errors import ConfigError, Corrupt
from agent.evidence import chain, dsse, records, seal, standalone
from agent.evidence.receipts import read as read_receipt
from agent.evidence.standalone import (
    LEDGER,
    RECEIPTS,
    Check,
    Locked,
    NotAPackage,
    Signed,
    View,
    ViewFile,
    check_of,
    not_a_package,
)
from agent.recording import fragments

EXIT = standalone.EXIT


class Ed25519:
    """Signatures, and what was sealed, by `cryptography`."""

    def unlock(self, many: list[Locked]) -> list[bytes]:
        """The contents of what was sealed."""
        return [
            Cipher(ChaCha20(one.key, (1).to_bytes(4, "little") + one.nonce.to_bytes(12, "big")), None)
            .decryptor()
            .update(one.data)
            for one in many
        ]

    def check(self, many: list[Signed]) -> list[bool]:
        """Whether each signature is right."""
        return [self._one(signed) for signed in many]

    @staticmethod
    def _one(signed: Signed) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(signed.raw_key).verify(signed.signature, signed.message)
        except (InvalidSignature, ValueError):
            return False
        return True


class SecondOpinion(Check):
    """The standalone check, and what Wardpost's own readers say of the same bytes."""

    def __init__(self, file: BinaryIO, trusted: list[bytes]) -> None:
        super().__init__(file, trusted, Ed25519())

    def run(self) -> None:
        """Raises NotAPackage only."""
        super().run()
        if self.findings.items:
            return
        self._second_ledger()
        self._second_footage()
        self._second_opening()
        if self.findings.items:
            self.proves.clear()

    def _second_ledger(self) -> None:
        """The whole slice by `chain.check`: it must find nothing either."""
        verdict = chain.check(
            self._raw(LEDGER),
            keys=self.node_keys,
            receipts=self._raw(RECEIPTS),
            station_keys=self.station_keys,
            node=str(self.manifest["node"]),
        )
        for finding in verdict.findings:
            self.findings.add("second-opinion", f"{LEDGER} record {finding.seq}", f"{finding.what}: {finding.text}")
        try:
            for line in self._raw(LEDGER):
                records.read(dsse.parse(line))
            for line in self._raw(RECEIPTS):
                read_receipt(line)
        except Corrupt as error:
            self.findings.add("second-opinion", LEDGER, str(error))

    def _second_footage(self) -> None:
        """Every original once more by the recorder's own reader: the fragments prove themselves, and fit the record."""
        sealed = {
            line.payload["body"]["name"]: line.payload["body"]
            for line in self.records
            if line.payload["kind"] == "segment" and isinstance(line.payload["body"].get("name"), str)
        }
        for entry in self.manifest["segments"]:
            name = entry["name"]
            with io.BufferedReader(ViewFile(self.package.view(self.package.members[name]))) as file:
                # The hash of the whole file was right; the trailers' chain is enough here, and skips the media.
                found = fragments.scan(file, contents=False)
            body = sealed.get(name)
            if found.problem:
                self.findings.add("second-opinion", name, found.problem)
            elif body is not None and entry["sealed"] and len(found.fragments) != body.get("fragments"):
                self.findings.add("second-opinion", name, "it has not as many fragments as its record says")
            elif found.header is not None and found.header.source != f"wardpost/{self.manifest['node']}":
                self.findings.add("second-opinion", name, "its header names another node")

    def _second_opening(self) -> None:
        """What was opened, once more by the reader that opens sealed footage: the tag of each fragment holds too."""
        for entry in self.opened.values():
            if not entry["of"]:
                continue
            view, opened = (self.package.view(self.package.members[entry[field]]) for field in ("of", "name"))
            wrong = _other_content(view, opened, bytes.fromhex(entry["key"]))
            if wrong:
                self.findings.add("second-opinion", entry["name"], wrong)

    def _raw(self, name: str) -> list[bytes]:
        member = self.package.members.get(name)
        return [] if member is None else [line for _, line in self.package.lines(member)]


def _other_content(sealed: View, opened: View, key: bytes) -> str:
    """What is wrong with an opened file; empty when nothing is."""
    with io.BufferedReader(ViewFile(sealed)) as file:
        found = fragments.scan(file, contents=False)
        header = found.header
        if header is None or not found.fragments:
            return found.problem
        about = seal.identity(header.session, header.boot_id, header.start_ns, header.source)
        opener = seal.opener_of(key, about)
        at = found.fragments[0].offset
        try:
            for fragment in found.fragments:
                data = opener.open(fragment.n, fragments.read_fragment(file, fragment))
                if opened.at(at, len(data)) != data:
                    return f"fragment {fragment.n} is not what the original holds"
                at += len(data)
        except Corrupt as error:
            return str(error)
    return ""


def verify(path: Path, trusted: list[bytes]) -> dict[str, Any]:
    """Examines a package, of a post or of a case. Never raises for what the file holds. Five passes over it at most.

    The result has the fields that `standalone.Check.result` lists, or `CaseCheck.result`; `verdict` is a key of EXIT.
    """
    try:
        with path.open("rb") as file:
            check = check_of(file, lambda part: SecondOpinion(part, trusted), trusted, Ed25519())
            check.run()
            return check.result()
    except NotAPackage as error:
        return not_a_package(str(error))
    except OSError as error:
        return not_a_package(f"it cannot be read: {error.strerror or error}")


def trusted_key(path: Path) -> bytes:
    """A public key that a person names: a PEM file, or 64 hex digits. Raises ConfigError."""
    raw = None
    with suppress(OSError):
        raw = standalone.trusted_key(str(path))
    if raw is None:
        raise ConfigError(f"verify: --trust {path}: neither 64 hex digits nor a file with an Ed25519 public key in PEM")
    return raw
