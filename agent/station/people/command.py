"""`wardpost user`, `wardpost trail`: at the station's own machine, for whoever may read its settings and keys."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from agent.clock import SystemClock
from agent.disk import PosixDisk
from agent.errors import ConfigError, Corrupt
from agent.evidence import chain
from agent.evidence.keys import keyid_of
from agent.login import login as account
from agent.station.db import migrate
from agent.station.db.engine import database_url, open_engine
from agent.station.main import DeskSettings
from agent.station.people import trail_line
from agent.station.people.oidc.links import Link, Links
from agent.station.people.passwords import Passwords
from agent.station.people.registry import NO_PASSWORD, Registry
from agent.station.people.roles import Person, check_login, check_name, check_role, scope_of
from agent.station.people.trail import Trail

PASSWORD_FILE_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Books:
    """What the commands work on."""

    registry: Registry
    trail: Trail
    engine: Engine

    def links(self, issuer: str) -> Links:
        """Those to this provider."""
        return Links(self.engine, trail=self.trail, issuer=issuer)


@contextmanager
def books(desk: DeskSettings) -> Iterator[Books]:
    """Beside a running station, or before its first start. Raises ConfigError, Transient, Corrupt."""
    folder = Path(desk.data)
    if not folder.is_dir():
        raise ConfigError(f"station.data: {folder} is not a folder; make it, or mount the partition")
    clock = SystemClock()
    engine = open_engine(database_url(folder, desk.database), pooled=False)
    try:
        migrate.upgrade(engine)
        trail = Trail(engine, clock=clock, site=desk.site, station=desk.id, disk=PosixDisk(folder))
        trail.open()
        yield Books(Registry(engine, trail=trail, clock=clock), trail, engine)
    finally:
        engine.dispose()


def add(
    desk: DeskSettings,
    login: str,
    *,
    name: str,
    role: str,
    posts: Sequence[str],
    password_file: Path | None,
    link: Link | None = None,
    issuer: str = "",
    out: Callable[[str], None],
) -> int:
    """`user add`. `link`: who that is at the provider `issuer`; then there is a password only where a file has one."""
    kind = check_role(role)
    new = Person(check_login(login), check_name(name or login), kind, scope_of(kind, posts))
    _need_provider(link, issuer)
    with books(desk) as found:
        password = NO_PASSWORD if link is not None and password_file is None else _password(password_file)
        found.registry.add(new, password=password, by=_by())
        if link is not None:
            found.links(issuer).put(new.login, link, by=_by())
    out(_words(new, link))
    return 0


def set_link(desk: DeskSettings, login: str, link: Link | None, *, issuer: str, out: Callable[[str], None]) -> int:
    """`user oidc`. None: he is linked to nobody any more."""
    _need_provider(link, issuer)
    with books(desk) as found:
        found.links(issuer).put(login, link, by=_by())
    said = "may no longer log in by the provider" if link is None else f"may log in by {issuer} as {_linked(link)}"
    out(f"{login}: {said}; all sessions have ended")
    return 0


def _need_provider(link: Link | None, issuer: str) -> None:
    if link is not None and not issuer:
        raise ConfigError("there is no [web.oidc] in the station's settings: deploy/desk.md tells how to set it up")


def passwd(desk: DeskSettings, login: str, *, password_file: Path | None, out: Callable[[str], None]) -> int:
    """`user passwd`."""
    with books(desk) as found:
        if found.registry.find(login) is None:
            raise ConfigError(f"{login[:40]}: nobody has this login; `wardpost user list` shows who there is")
        found.registry.set_password(login, _password(password_file), by=_by())
    out(f"{login}: another password; all sessions have ended")
    return 0


def set_role(desk: DeskSettings, login: str, role: str, *, posts: Sequence[str], out: Callable[[str], None]) -> int:
    """`user role`."""
    kind = check_role(role)
    with books(desk) as found:
        found.registry.set_role(login, kind, scope_of(kind, posts), by=_by())
        changed = found.registry.find(login)
    out(f"{'' if changed is None else _words(changed)}; all sessions have ended")
    return 0


def set_disabled(desk: DeskSettings, login: str, *, disabled: bool, out: Callable[[str], None]) -> int:
    """`user disable`, `user enable`."""
    with books(desk) as found:
        found.registry.set_disabled(login, disabled=disabled, by=_by())
    out(f"{login}: {'shut out; all sessions have ended' if disabled else 'may log in again'}")
    return 0


def show(desk: DeskSettings, *, issuer: str = "", as_json: bool, out: Callable[[str], None]) -> int:
    """`user list`. `issuer`: the provider whose links are shown; empty: there is none."""
    with books(desk) as found:
        people = found.registry.people()
        links = found.links(issuer).all() if issuer else {}
    if as_json:
        out(json.dumps([_as_dict(one, links.get(one.login)) for one in people], indent=2, ensure_ascii=False))
    else:
        out(
            "\n".join(_words(one, links.get(one.login)) for one in people)
            or "nobody yet: wardpost user add LOGIN --role ROLE"
        )
    return 0


def check(desk: DeskSettings, *, as_json: bool, out: Callable[[str], None]) -> int:
    """`trail check`: the log in the database against the station's keys and its checkpoint. 1: something is wrong."""
    with books(desk) as found:
        verdict = trail_line.check(
            list(found.trail.lines()), found.trail.head(), keys=found.trail.public_keys(), closed=False
        )
    return _told("the audit log", verdict, as_json=as_json, out=out)


def export(desk: DeskSettings, output: Path, *, out: Callable[[str], None]) -> int:
    """`trail export`: all of it into one file, closed by a checkpoint. That it was exported stands on it."""
    if output.exists():
        raise ConfigError(f"{output}: is there already; an export is never overwritten")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"{output.parent}: no such folder")
    with books(desk) as found:
        found.trail.note("exported", _by(), file=output.name)
        lines = found.trail.export()
    PosixDisk(output.absolute().parent).replace(output.name, b"\n".join(lines) + b"\n", private=True)
    out(f"{output}: {len(lines) - 1} lines, and a checkpoint; wardpost verify {output} checks it")
    return 0


def verify(path: Path, trusted: Sequence[bytes], *, as_json: bool, out: Callable[[str], None]) -> int:
    """`wardpost verify` of an exported log; 0: verified, 1: not, 2: no such file. `trusted`: raw public keys."""
    try:
        with path.open("rb") as file:
            lines, seals = trail_line.split(file.read(trail_line.BYTES_MAX))
    except (OSError, Corrupt) as error:
        out(f"{path}: not an audit log: {error}")
        return 2
    verdict = trail_line.check(lines, seals, keys={keyid_of(raw): raw for raw in trusted})
    return _told(str(path), verdict, as_json=as_json, out=out)


def _told(what: str, verdict: chain.Verdict, *, as_json: bool, out: Callable[[str], None]) -> int:
    findings = trail_line.findings_of(verdict)
    word = "verified" if verdict.ok else "not verified"
    if as_json:
        told: dict[str, Any] = {
            "verdict": word,
            "lines": len(verdict.lines),
            "findings": [{"what": one.what, "line": one.seq, "says": one.text} for one in findings],
            "keys": sorted(raw.hex() for raw in verdict.keys.values()),
            "until": verdict.receipts[-1].payload.time if verdict.receipts else None,
        }
        out(json.dumps(told, indent=2))
        return 0 if verdict.ok else 1
    out(f"{what}: {word.upper()}, {len(verdict.lines)} lines")
    for one in findings:
        out(f"  wrong: {one.text} [{one.what}]")
    if verdict.receipts:
        out(f"  closed at {verdict.receipts[-1].payload.time} behind line {verdict.receipts[-1].payload.seq}")
    if verdict.self_introduced:
        out("  not proved: that the key is the station's; compare it, or give it with --trust:")
        out("\n".join(f"    {raw.hex()}" for raw in verdict.keys.values()))
    return 0 if verdict.ok else 1


def _by() -> str:
    return f"account:{account()}"


def _password(file: Path | None) -> str:
    """Hashed. From a file's first line, or asked for twice; never from the command line, which others can see."""
    if file is not None:
        try:
            with file.open("rb") as opened:
                text = opened.read(PASSWORD_FILE_BYTES_MAX).decode().partition("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--password-file: {file} cannot be read: {error}") from None
    elif sys.stdin.isatty():
        text = getpass.getpass("password: ")
        if getpass.getpass("again: ") != text:
            raise ConfigError("the two are not the same")
    else:
        raise ConfigError("no terminal to ask for the password at; give --password-file FILE")
    return Passwords().hash(text)


def _words(one: Person, link: Link | None = None) -> str:
    where = "the whole site" if one.scope.whole_site else ", ".join(sorted(one.scope.posts))
    linked = "" if link is None else f", at the provider {_linked(link)}"
    return f"{one.login}: {one.name}, {one.role}, {where}{linked}{', DISABLED' if one.disabled else ''}"


def _linked(link: Link) -> str:
    return link.email if not link.subject else f"{link.subject} ({link.email})" if link.email else link.subject


def _as_dict(one: Person, link: Link | None) -> dict[str, object]:
    return {
        "login": one.login,
        "name": one.name,
        "role": one.role.value,
        "whole_site": one.scope.whole_site,
        "posts": sorted(one.scope.posts),
        "disabled": one.disabled,
        "oidc": None if link is None else {"subject": link.subject, "email": link.email},
    }
