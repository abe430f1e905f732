"""The package of a whole case: the packages of its posts, each as it is by itself, and the station's word around them.

    README.txt            first: what this is, and how to check it
    packages/POST.zip     agent/evidence/package.py, byte for byte what the post's own package would be
    case.json             the case and its timeline, as in each of them
    trail.jsonl           the lines of the station's audit log that concern it, as in each of them
    report.txt            for people
    verify.py             agent/evidence/standalone.py
    keys/station-*.pem    the station's public keys
    manifest.json         case, number, who, why, and every file with its SHA-256; manifest.sig: the station's signature

A zip by the rules of a package of evidence: stored, every byte determined by names and contents. Memory is bounded; on
the disk lies at any time what is done of it, and the package of one post.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from agent import __version__
from agent.clock import Clock, rfc3339
from agent.disk import sync_folder
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from agent.evidence import dsse, standalone
from agent.evidence.keys import public_pem
from agent.evidence.package import VERIFIER, Archive, Exported
from agent.evidence.standalone import CASE_TYPE, CASE_WHAT, MANIFEST, PACKAGES, SIGNATURE

Make = Callable[[str, Path], Exported]
"""(post, path): writes the package of one post. Raises WardpostError; Transient, Corrupt end the whole."""
WHY_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class About:
    """Which case it is, and for whom it is packed."""

    site: str
    case: int  # its number at this desk
    number: str  # the authority's
    who: str
    reason: str
    posts: Sequence[str]


@dataclass(slots=True)
class Packed:
    """What was written."""

    path: Path
    bytes: int = 0
    sha256: str = ""
    posts: list[str] = field(default_factory=list)
    without: dict[str, str] = field(default_factory=dict)  # post -> why there is no package of it


def pack_case(
    *,
    output: Path,
    about: About,
    make: Make,
    files: Mapping[str, bytes],
    left_out: Sequence[str] = (),
    signer: dsse.Signer,
    keys: Mapping[str, bytes],
    clock: Clock,
) -> Packed:
    """Writes it; blocks for reading and writing. The file appears whole or not at all.

    `files`: case.json and trail.jsonl, the same as in each package; `left_out`: what they do not tell, for the report;
    `keys`: the station's public ones by id. A post of
    which no package can be made is named in the manifest with the reason. Raises ConfigError when that is every one,
    Corrupt, Transient.
    """
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        temporary, result = folder / "case.zip", Packed(output)
        with temporary.open("w+b") as file:
            archive = Archive(file)
            archive.add_bytes(standalone.FIRST, _README.encode())
            stated = _packages(archive, about, make, folder, result)
            for name, data in files.items():
                archive.add_bytes(name, data)
            for keyid, public in sorted(keys.items()):
                archive.add_bytes(f"keys/station-{keyid}.pem", public_pem(public))
            archive.add_bytes("report.txt", _report(about, stated, result.without, left_out, clock).encode())
            archive.add_bytes(VERIFIER, resources.files("agent.evidence").joinpath("standalone.py").read_bytes())
            _sign(archive, _manifest(archive, about, stated, result.without, clock), signer)
            archive.finish()
            result.bytes = file.seek(0, 2)
            file.seek(0)
            result.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        temporary.replace(output)
        sync_folder(output.parent)
    except OSError as error:
        raise Transient(f"export: cannot write {output}: {error}; check the disk and try again") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return result


def _packages(archive: Archive, about: About, make: Make, folder: Path, result: Packed) -> list[dict[str, Any]]:
    """Each post's, one after the other: there is never more than one beside the case's own file."""
    stated = []
    for post in about.posts:
        path, name = folder / "post.zip", f"{PACKAGES}{post}.zip"
        try:
            make(post, path)
        except (Transient, Corrupt):
            raise
        except WardpostError as error:
            result.without[post] = str(error)[:WHY_CHARS_MAX]
            continue
        size = path.stat().st_size
        with path.open("rb") as source:
            archive.add(name, source, size)
        path.unlink()
        result.posts.append(post)
        stated.append({"post": post, "name": name, "bytes": size, "sha256": archive.hashes[name]})
    if not stated:
        why = "; ".join(f"{post}: {text}" for post, text in result.without.items())
        raise ConfigError(f"export: there is no package of any post of the case: {why}")
    return stated


def _manifest(
    archive: Archive, about: About, stated: Sequence[Mapping[str, Any]], without: Mapping[str, str], clock: Clock
) -> bytes:
    utc = clock.utc()
    packed = {entry["name"] for entry in stated}
    told = {
        "v": 1,
        "what": CASE_WHAT,
        "agent": __version__,
        "site": about.site,
        "case": about.case,
        "number": about.number,
        "who": about.who,
        "reason": about.reason,
        "made": {
            "utc": rfc3339(utc.utc_ns),
            "unc_ms": None if utc.unc_ns is None else -(-utc.unc_ns // 1_000_000),
            "source": utc.source,
        },
        "packages": list(stated),
        "without": [{"post": post, "why": why} for post, why in without.items()],
        "files": [
            {"name": name, "bytes": member.size, "sha256": archive.hashes[name]}
            for name, member in archive.members.items()
            if name not in packed
        ],
    }
    return json.dumps(told, indent=1, ensure_ascii=True).encode() + b"\n"


def _sign(archive: Archive, manifest: bytes, signer: dsse.Signer) -> None:
    archive.add_bytes(MANIFEST, manifest)
    signature = b64encode(signer.sign(dsse.pae(CASE_TYPE, manifest))).decode()
    told = {"payloadType": CASE_TYPE, "signatures": [{"keyid": signer.keyid, "sig": signature}]}
    archive.add_bytes(SIGNATURE, json.dumps(told, separators=(",", ":")).encode() + b"\n")


def _report(
    about: About,
    stated: Sequence[Mapping[str, Any]],
    without: Mapping[str, str],
    left_out: Sequence[str],
    clock: Clock,
) -> str:
    lines = [
        f"Case {about.number} (number {about.case} at this desk) of {about.site}",
        f"Packed {rfc3339(clock.utc().utc_ns)} for {about.who}: {about.reason}",
        "",
        "Packages, each with its own report:",
        *(f"  {entry['name']}  {entry['bytes']} bytes  SHA-256 {entry['sha256']}" for entry in stated),
    ]
    if without:
        lines += ["", "Posts of the case without a package:", *(f"  {post}: {why}" for post, why in without.items())]
    lines += ["", "What was done with the case, by whom and when: case.json and trail.jsonl"]
    return "\n".join([*lines, *(f"  left out: {one}" for one in left_out), ""])


_README = """\
This is the package of a case: the evidence packages of several cameras of Wardpost, and what is needed to check them.

  read       report.txt; then packages/*.zip: each is a package of its own, with footage and a report
  check      python3 verify.py THE-ZIP-FILE
             needs Python 3.9 or newer and the program openssl, no network and nothing of ours. It checks the case, and
             every package in it.
             Take verify.py from a place you trust, or compare its SHA-256 with the published one: a forged package
             could hold a forged verifier. Everybody with Wardpost can as well say: wardpost verify THE-ZIP-FILE
             With --trust KEY.pem it is checked against the station's public key, which you have from elsewhere.
             Without, compare the printed fingerprint by another way (by telephone, say).
  sealed     footage that is sealed to the station is opened package by package: unpack this one, and say
             wardpost open packages/POST.zip --key KEY.pem -o NEW.zip

Do not unpack and pack again before checking: every byte of this file is covered, its packing included.
"""
