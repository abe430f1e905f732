"""The register of a site in SQLite: what was written survives a power cut (FULL, rollback journal).

Any process of the site's owner may open it: the station that enrols, and the commands beside it. SQLite serialises
them; each call is one transaction. Raises Transient when the disk or another process is in the way, Corrupt for a file
that is no register.
"""

from __future__ import annotations

import importlib.resources
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from agent.errors import ConfigError, Corrupt, Transient
from agent.transaction import immediate, statements

SCHEMA = "2"
UPGRADES = {"1": "upgrade_1_to_2.sql"}
WAIT_S_MAX = 5.0
REFUSALS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A post. House, pole, provider and position are what it shares with its neighbours, which is where whoever asks
    why a post is dark begins. Empty or None: nobody has said.
    """

    node: str
    generation: int
    state: str  # provisioned, enrolled, revoked
    device: str
    place: str
    custodian: str
    consent: str
    profile: str
    made_utc_ns: int
    house: str = ""  # one mains connection and one router
    pole: str = ""  # of the street: the line that several houses hang on
    provider: str = ""  # who carries its messages
    lat: float | None = None  # WGS 84, degrees; both or neither
    lon: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate that the authority has signed. `serial` in hexadecimal."""

    serial: str
    kind: str
    name: str
    key_sha256: str
    pem: str
    not_after_utc_ns: int
    issued_utc_ns: int
    node: str = ""
    generation: int = 0
    revoked_utc_ns: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to ask for one certificate, once."""

    claim: str
    node: str
    generation: int
    hash: str
    expires_utc_ns: int
    used_by: str | None = None
    used_utc_ns: int | None = None
    serial: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Enrolments that were refused, by claim and kind."""

    claim: str
    kind: str
    node: str
    detail: str
    count: int
    last_utc_ns: int


_NODE = tuple(field.name for field in fields(Node))


class Register:
    """One connection, one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def create(self, site: str, brokers: Sequence[str]) -> None:
        """Makes the file and opens it; an existing one is an error. Raises ConfigError."""
        if self._path.exists():
            raise ConfigError(f"{self._path}: there is a register already")
        self._connect("rwc")
        try:
            with self._transaction("create") as db:
                for statement in _statements("schema.sql"):
                    db.execute(statement)
                rows = [("schema", SCHEMA), ("site", site), ("brokers", "\n".join(brokers)), ("crl", "0")]
                db.executemany("insert into meta values (?, ?)", rows)
        except BaseException:
            self.close()
            raise

    def open(self) -> None:
        """Opens an existing file. Raises ConfigError when there is none, Corrupt when it is something else."""
        if self._db is not None:
            return
        if not self._path.is_file():
            raise ConfigError(f"{self._path}: no register there; is this the folder that `wardpost site init` made?")
        self._connect("rw")
        try:
            found = self._upgraded()
        except BaseException:
            self.close()
            raise
        if found != SCHEMA:
            self.close()
            raise Corrupt(f"{self._path}: schema {found!r}, this program reads {SCHEMA!r}")

    def _upgraded(self) -> str:
        """The schema of the file, after the steps that lead to this program's. A cut leaves a step whole or unbegun."""
        while (script := UPGRADES.get(found := self.meta("schema"))) is not None:
            with self._transaction("upgrade") as db:
                if db.execute("select value from meta where key = 'schema'").fetchone() == (found,):  # nobody else has
                    for statement in _statements(script):
                        db.execute(statement)
        return found

    def close(self) -> None:
        """Lets go of the file. Never raises."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def serialized(self) -> bytes:
        """The whole register as the bytes of an SQLite file, at one moment."""
        with self._plain("copy"):
            return self._open_db().serialize()

    # -- reading ------------------------------------------------------------------------------------------------------

    def meta(self, key: str) -> str:
        """One of 'site', 'brokers', 'crl', 'schema'; empty when unknown."""
        with self._plain("read"):
            row = self._open_db().execute("select value from meta where key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def node(self, node: str) -> Node | None:
        return next(iter(self._nodes("where node = ?", node)), None)

    def nodes(self) -> list[Node]:
        """All posts, by name."""
        return self._nodes("order by node")

    def claim(self, claim: str) -> Claim | None:
        return next(iter(self._claims("where claim = ?", claim)), None)

    def claims_of(self, node: str) -> list[Claim]:
        return self._claims("where node = ? order by generation, claim", node)

    def live_claims(self, now_utc_ns: int) -> list[Claim]:
        """Claims by which somebody may still be enrolling: not expired, not revoked."""
        return self._claims(
            "where expires_utc_ns > ? and not exists (select 1 from certificate c where c.name = claim.claim"
            " and c.kind = 'claim' and c.revoked_utc_ns is not null) order by claim",
            now_utc_ns,
        )

    def certificate(self, serial: str) -> Certificate | None:
        return next(iter(self._certificates("where serial = ?", serial)), None)

    def certificates_of(self, node: str) -> list[Certificate]:
        """Of a post and of its claims, revoked ones too, oldest first."""
        return self._certificates("where node = ? order by issued_utc_ns, serial", node)

    def certificates(self, kind: str) -> list[Certificate]:
        return self._certificates("where kind = ? order by issued_utc_ns, serial", kind)

    def revoked(self) -> list[Certificate]:
        return self._certificates("where revoked_utc_ns is not null order by revoked_utc_ns, serial")

    def refusals(self) -> list[Refusal]:
        """Enrolments that were refused, the newest first."""
        with self._plain("read"):
            rows = self._open_db().execute(
                "select claim, kind, node, detail, count, last_utc_ns from refusal order by last_utc_ns desc"
            )
            return [
                Refusal(claim=c, kind=k, node=n, detail=d, count=count, last_utc_ns=at)
                for c, k, n, d, count, at in rows
            ]

    def audit(self, limit: int = 100) -> list[tuple[int, str, str, str]]:
        """What was done (UTC ns, what, node, detail), the newest first."""
        with self._plain("read"):
            return (
                self._open_db()
                .execute("select utc_ns, what, node, detail from audit order by n desc limit ?", (limit,))
                .fetchall()
            )

    # -- writing: durable when it returns -----------------------------------------------------------------------------

    def issued(self, certificates: Sequence[Certificate], now_utc_ns: int) -> None:
        """Notes certificates of the site itself."""
        with self._transaction("note certificates") as db:
            for one in certificates:
                _add_certificate(db, one)
                _audit(db, now_utc_ns, f"issued {one.kind}", "", f"{one.name}, serial {one.serial}")

    def provisioned(self, node: Node, claim: Claim, certificate: Certificate, now_utc_ns: int) -> list[str]:
        """Notes a post with a new claim. What an earlier generation of it had is revoked; returns those serials.

        Raises ConfigError when a post of that name has this generation already.
        """
        with self._transaction("register a post") as db:
            row = db.execute("select generation from node where node = ?", (node.node,)).fetchone()
            if row is not None and row[0] >= node.generation:
                raise ConfigError(f"{node.node}: somebody has just provisioned this post; see `wardpost site show`")
            revoked = _revoke(db, "node = ?", (node.node,), now_utc_ns, "provisioned again")
            db.execute(
                "insert into node (node, generation, state, device, place, custodian, consent, profile, made_utc_ns,"
                " house, pole, provider, lat, lon) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " on conflict (node) do update set"
                " generation = excluded.generation, state = excluded.state, device = excluded.device,"
                " place = excluded.place, custodian = excluded.custodian, consent = excluded.consent,"
                " profile = excluded.profile, made_utc_ns = excluded.made_utc_ns,"
                # A new card for a post hangs where the old one hung, unless somebody says otherwise.
                " house = coalesce(nullif(excluded.house, ''), house),"
                " pole = coalesce(nullif(excluded.pole, ''), pole),"
                " provider = coalesce(nullif(excluded.provider, ''), provider),"
                " lat = coalesce(excluded.lat, lat), lon = coalesce(excluded.lon, lon)",
                (node.node, node.generation, node.state, node.device, node.place, node.custodian, node.consent,
                 node.profile, node.made_utc_ns, node.house, node.pole, node.provider, node.lat, node.lon),
            )  # fmt: skip
            _add_certificate(db, certificate)
            db.execute(
                "insert into claim (claim, node, generation, hash, expires_utc_ns) values (?, ?, ?, ?, ?)",
                (claim.claim, claim.node, claim.generation, claim.hash, claim.expires_utc_ns),
            )
            _audit(db, now_utc_ns, "provisioned", node.node, f"generation {node.generation}, {claim.claim}")
        return revoked

    def located(self, node: Node, now_utc_ns: int) -> bool:
        """Notes house, pole, provider and position as they are in `node`. False when the register has no such post."""
        where = f"house {node.house!r}, pole {node.pole!r}, provider {node.provider!r}, position {node.lat}, {node.lon}"
        with self._transaction("note where a post is") as db:
            changed = db.execute(
                "update node set house = ?, pole = ?, provider = ?, lat = ?, lon = ? where node = ?",
                (node.house, node.pole, node.provider, node.lat, node.lon, node.node),
            ).rowcount
            if changed:
                _audit(db, now_utc_ns, "located", node.node, where)
        return bool(changed)

    def enrolled(self, claim: str, certificate: Certificate, now_utc_ns: int) -> bool:
        """Notes that a claim was used and what was given for it. False when it is used or revoked meanwhile."""
        with self._transaction("enrol a post") as db:
            _add_certificate(db, certificate)
            changed = db.execute(
                "update claim set used_by = ?, used_utc_ns = ?, serial = ? where claim = ? and used_by is null"
                " and exists (select 1 from certificate c where c.name = claim.claim and c.revoked_utc_ns is null)",
                (certificate.key_sha256, now_utc_ns, certificate.serial, claim),
            ).rowcount
            if not changed:
                db.execute("delete from certificate where serial = ?", (certificate.serial,))
                return False
            db.execute("update node set state = 'enrolled' where node = ?", (certificate.node,))
            _audit(db, now_utc_ns, "enrolled", certificate.node, f"{claim}, serial {certificate.serial}")
        return True

    def renewed(self, certificate: Certificate, now_utc_ns: int) -> bool:
        """Notes the next certificate of a post. False when it was revoked, or provisioned again, meanwhile."""
        with self._transaction("renew a certificate") as db:
            row = db.execute("select generation, state from node where node = ?", (certificate.node,)).fetchone()
            if row is None or row[0] != certificate.generation or row[1] == "revoked":
                return False
            _add_certificate(db, certificate)
            _audit(db, now_utc_ns, "renewed", certificate.node, f"serial {certificate.serial}")
        return True

    def replaced(self, serials: Sequence[str], node: str, now_utc_ns: int) -> None:
        """Revokes certificates of a post that uses a newer one."""
        with self._transaction("end older certificates") as db:
            for serial in serials:
                _revoke(db, "serial = ? and node = ?", (serial, node), now_utc_ns, "renewed")
            _audit(db, now_utc_ns, "revoked", node, f"{', '.join(serials)}: renewed")

    def noted(self, what: str, node: str, detail: str, now_utc_ns: int) -> None:
        """Adds a line to the audit."""
        with self._transaction("note what was done") as db:
            _audit(db, now_utc_ns, what, node, detail)

    def refused(self, claim: str, kind: str, node: str, detail: str, now_utc_ns: int) -> None:
        """Counts a refused enrolment."""
        with self._transaction("note a refusal") as db:
            (rows,) = db.execute("select count(*) from refusal").fetchone()
            if rows >= REFUSALS_MAX:
                db.execute(
                    "delete from refusal where (claim, kind) in"
                    " (select claim, kind from refusal order by last_utc_ns limit 1)"
                )
            db.execute(
                "insert into refusal values (?, ?, ?, ?, 1, ?, ?) on conflict (claim, kind) do update set"
                " count = count + 1, detail = excluded.detail, last_utc_ns = excluded.last_utc_ns",
                (claim, kind, node, detail[:500], now_utc_ns, now_utc_ns),
            )

    def revoke_node(self, node: str, now_utc_ns: int, reason: str) -> list[str]:
        """Revokes all that a post has, its claim too. Returns the serials; empty when nothing was left to revoke."""
        with self._transaction("revoke a post") as db:
            revoked = _revoke(db, "node = ?", (node,), now_utc_ns, reason)
            db.execute("update node set state = 'revoked' where node = ?", (node,))
            if revoked:
                _audit(db, now_utc_ns, "revoked", node, f"{', '.join(revoked)}: {reason}")
        return revoked

    def revoke_serial(self, serial: str, now_utc_ns: int, reason: str) -> list[str]:
        """Revokes one certificate. A post whose own certificate it is, is revoked with it."""
        with self._transaction("revoke a certificate") as db:
            revoked = _revoke(db, "serial = ?", (serial,), now_utc_ns, reason)
            db.execute(
                "update node set state = 'revoked' where node = (select node from certificate where serial = ?"
                " and kind = 'node' and generation = node.generation)",
                (serial,),
            )
            if revoked:
                _audit(db, now_utc_ns, "revoked", "", f"{serial}: {reason}")
        return revoked

    def next_crl(self) -> int:
        """The number of a new revocation list: always larger than any before."""
        with self._transaction("number a list") as db:
            db.execute("update meta set value = cast(cast(value as integer) + 1 as text) where key = 'crl'")
            (number,) = db.execute("select value from meta where key = 'crl'").fetchone()
        return int(number)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _connect(self, mode: str) -> None:
        with self._plain("open"):
            db = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=WAIT_S_MAX,
                check_same_thread=False,
            )
            try:
                # A rollback journal, not WAL: the folder is copied, moved and backed up by people, and one file is what
                # they copy. FULL and the journal's own sync make a commit durable.
                db.execute("pragma journal_mode=delete")
                db.execute("pragma synchronous=extra")
                db.execute("pragma foreign_keys=on")
            except BaseException:
                db.close()
                raise
        self._db = db

    def _open_db(self) -> sqlite3.Connection:
        if self._db is None:
            raise Transient(f"{self._path}: not open")
        return self._db

    def _nodes(self, where: str, *args: object) -> list[Node]:
        rows = self._rows(", ".join(_NODE), f"node {where}", args)
        return [Node(**dict(zip(_NODE, row, strict=True))) for row in rows]

    def _claims(self, where: str, *args: object) -> list[Claim]:
        rows = self._rows("claim, node, generation, hash, expires_utc_ns, used_by, used_utc_ns, serial",
                          f"claim {where}", args)  # fmt: skip
        return [
            Claim(claim=c, node=n, generation=g, hash=h, expires_utc_ns=e, used_by=u, used_utc_ns=at, serial=s)
            for c, n, g, h, e, u, at, s in rows
        ]

    def _certificates(self, where: str, *args: object) -> list[Certificate]:
        rows = self._rows(
            "serial, kind, name, node, generation, key_sha256, pem, not_after_utc_ns, issued_utc_ns, revoked_utc_ns,"
            " reason",
            f"certificate {where}",
            args,
        )
        return [
            Certificate(
                serial=s, kind=k, name=n, node=node, generation=g, key_sha256=h, pem=p, not_after_utc_ns=e,
                issued_utc_ns=i, revoked_utc_ns=r, reason=why,
            )
            for s, k, n, node, g, h, p, e, i, r, why in rows
        ]  # fmt: skip

    def _rows(self, columns: str, where: str, args: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._plain("read"):
            return self._open_db().execute(f"select {columns} from {where}", tuple(args)).fetchall()  # noqa: S608

    @contextmanager
    def _transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        with self._plain(what), immediate(self._open_db()) as db:
            yield db

    @contextmanager
    def _plain(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.OperationalError as error:
            raise Transient(f"{self._path}: cannot {what}: {error}; check the disk, or try again") from error
        except sqlite3.DatabaseError as error:
            raise Corrupt(f"{self._path}: cannot {what}: {error}; restore the site from its backup") from error


def _statements(script: str) -> Iterator[str]:
    return statements(importlib.resources.files("agent.site").joinpath(script).read_text(encoding="utf-8"))


def _add_certificate(db: sqlite3.Connection, one: Certificate) -> None:
    db.execute(
        "insert into certificate (serial, kind, name, node, generation, key_sha256, pem, not_after_utc_ns,"
        " issued_utc_ns) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (one.serial, one.kind, one.name, one.node, one.generation, one.key_sha256, one.pem, one.not_after_utc_ns,
         one.issued_utc_ns),
    )  # fmt: skip


def _revoke(db: sqlite3.Connection, where: str, args: Sequence[object], now_utc_ns: int, reason: str) -> list[str]:
    found = db.execute(
        f"select serial from certificate where revoked_utc_ns is null and {where} order by serial",  # noqa: S608
        tuple(args),
    ).fetchall()
    for (serial,) in found:
        db.execute(
            "update certificate set revoked_utc_ns = ?, reason = ? where serial = ?", (now_utc_ns, reason[:500], serial)
        )
    return [serial for (serial,) in found]


def _audit(db: sqlite3.Connection, now_utc_ns: int, what: str, node: str, detail: str) -> None:
    db.execute("insert into audit (utc_ns, what, node, detail) values (?, ?, ?, ?)", (now_utc_ns, what, node, detail))
