"""`wardpost site ...`: what a person at headquarters says, and what they are told."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable
from pathlib import Path

from agent.clock import Clock, rfc3339
from agent.errors import ConfigError
from agent.site import founding
from agent.site.authority import renewal_due
from agent.site.backup import PASSPHRASE_CHARS_MIN
from agent.site.folder import open_site, refuse_existing
from agent.site.register import Register
from agent.site.whereabouts import words

_KEEP = """\
What to keep where:
  ca/ca.key        makes posts of this site. On this machine only, readable by its owner; never on a post, never on a
                   broker. Lost: no post can be added or replaced. Stolen: make a new site.
  station/         the station's own keys; start it with: wardpost station --config {root}/station/station.toml
  release/         release.key signs new releases of the agent, which every post then runs: move it onto a stick in a
                   drawer. Each card gets release.pub
  broker/          copy it to the broker's machine: ca.pem, crl.pem, broker.pem, broker.key to /etc/wardpost, and the
                   configuration of the broker you run (mosquitto.conf and wardpost.acl, or nats.conf)
  a backup         now, and after each post: wardpost site backup {root} -o FILE. Keep it in another building, and its
                   passphrase apart from it.
Next: wardpost provision NODE --site {root} --ethernet (or --wifi NAME --psk-file F --country XX)"""


def init(root: Path, *, name: str, hosts: list[str], clock: Clock, out: Callable[[str], None]) -> int:
    """`site init`. Raises ConfigError, Transient."""
    site = founding.found_site(root, name=name, hosts=hosts, clock=clock)
    out(f"site {site.settings.name} is made in {root}; its brokers: {', '.join(site.settings.brokers)}")
    out(_KEEP.format(root=root))
    if clock.utc().unc_ns is None:
        out("warning: this machine's clock is not synchronised; certificates begin and end by it")
    return 0


def show(root: Path, *, as_json: bool, clock: Clock, out: Callable[[str], None]) -> int:
    """`site show`: posts, claims, what has been refused, what expires. Changes nothing."""
    site = open_site(root)
    register = founding.open_register(site)
    try:
        now_ns = clock.utc().utc_ns
        nodes = [
            {
                "node": one.node,
                "state": one.state,
                "generation": one.generation,
                "device": one.device,
                "place": one.place,
                "custodian": one.custodian,
                "consent": one.consent,
                "house": one.house,
                "pole": one.pole,
                "provider": one.provider,
                "position": None if one.lat is None else [one.lat, one.lon],
                "profile": one.profile,
                "certificates": [
                    {
                        "serial": cert.serial,
                        "kind": cert.kind,
                        "generation": cert.generation,
                        "expires": rfc3339(cert.not_after_utc_ns),
                        "revoked": None if cert.revoked_utc_ns is None else rfc3339(cert.revoked_utc_ns),
                    }
                    for cert in register.certificates_of(one.node)
                ],
                "claimopen": any(
                    claim.generation == one.generation and claim.used_by is None and claim.expires_utc_ns > now_ns
                    for claim in register.claims_of(one.node)
                )
                and one.state == "provisioned",
            }
            for one in register.nodes()
        ]
        refusals = register.refusals()
        own = [*register.certificates("authority"), *founding.servers(register)]
        spots = {one.node: words(one) for one in register.nodes()}
        lives = {one.node: _life(register, one.node, one.generation, now_ns) for one in register.nodes()}
    finally:
        register.close()
    if as_json:
        told = [
            {"claim": r.claim, "kind": r.kind, "node": r.node, "detail": r.detail, "count": r.count} for r in refusals
        ]
        whole = {"site": site.settings.name, "brokers": site.settings.brokers, "nodes": nodes, "refused": told}
        out(json.dumps(whole, indent=2, ensure_ascii=False))
        return 0
    out(f"site {site.settings.name}, made {site.settings.created}; brokers: {', '.join(site.settings.brokers)}")
    for cert in own:
        days = founding.days_left(cert, now_ns)
        todo = "make a new site in time" if cert.kind == "authority" else f"wardpost site renew {root}"
        out(f"  {cert.kind}: good for {days:.0f} days{f' - {todo}' if days < founding.SERVER_WARN_DAYS else ''}")
    for node in nodes:
        state = "its claim is open" if node["claimopen"] else node["state"]
        if node["state"] == "provisioned" and not node["claimopen"]:
            state = "never enrolled, and its claim has run out: provision it with --again"
        where = "".join(f", {text}" for text in (node["place"], spots[str(node["node"])]) if text)
        out(f"  {node['node']}: {state}{where}{lives[str(node['node'])]}")
    if not nodes:
        out("  no posts yet: wardpost provision NODE --site ...")
    for refusal in refusals[:20]:
        out(
            f"  refused {refusal.count} times, last {rfc3339(refusal.last_utc_ns)}: {refusal.kind}, {refusal.claim}"
            f" ({refusal.node or 'no post'}): {refusal.detail}"
        )
    return 0


def _life(register: Register, node: str, generation: int, now_ns: int) -> str:
    """What is to be said of a post's newest certificate; empty while all is well."""
    newest = [
        one
        for one in register.certificates_of(node)
        if one.kind == "node" and one.generation == generation and one.revoked_utc_ns is None
    ][-1:]
    if not newest or not renewal_due(newest[0].issued_utc_ns, newest[0].not_after_utc_ns, now_ns):
        return ""
    days = founding.days_left(newest[0], now_ns)
    if days < 0:
        return f"; its certificate ended {-days:.0f} days ago: provision it with --again, see deploy/site.md"
    return f"; its certificate is good for {days:.0f} days: it is renewed when the post is heard again"


def renew(root: Path, *, every: bool, clock: Clock, out: Callable[[str], None]) -> int:
    """`site renew`: new certificates for broker and station, where less than half of their life is left."""
    site = open_site(root)
    register = founding.open_register(site)
    try:
        now_ns = clock.utc().utc_ns
        kinds = [
            one.kind
            for one in founding.servers(register)
            if every or 2 * (one.not_after_utc_ns - now_ns) < one.not_after_utc_ns - one.issued_utc_ns
        ]
        for one in founding.renew_servers(site, register, now_ns, kinds=kinds):
            out(f"{one.kind}: a new certificate for the same key, good for {founding.days_left(one, now_ns):.0f} days")
    finally:
        register.close()
    if "broker" in kinds:
        out(f"Now copy {root}/broker/broker.pem to the broker's machine, and there: systemctl reload mosquitto,")
        out("or nats-server --signal reload. The posts notice nothing: they trust the authority")
    if "station" in kinds:
        out("The station shows its new one from its next connection on")
    if not kinds:
        out("broker and station: more than half of their life is left; nothing was changed (--now renews them anyway)")
    return 0


def brokers(root: Path, *, clock: Clock, out: Callable[[str], None]) -> int:
    """`site brokers`: writes CRL and configuration anew."""
    site = open_site(root)
    register = founding.open_register(site)
    try:
        founding.write_brokers(site, register, clock.utc().utc_ns)
    finally:
        register.close()
    out(f"written: {root}/broker; copy it to the broker's machine and reload the broker")
    return 0


def revoke(
    root: Path, *, node: str | None, serial: str | None, reason: str, clock: Clock, out: Callable[[str], None]
) -> int:
    """`site revoke`."""
    if (node is None) == (serial is None):
        raise ConfigError("site revoke: give a NODE, or --serial N")
    found = founding.revoke(open_site(root), node=node, serial=serial, reason=reason, clock=clock)
    what = node or f"serial {serial}"
    if not found.serials:
        out(f"{what}: was revoked before; CRL and configuration are written again")
    else:
        out(f"{what}: revoked {len(found.serials)}: {', '.join(found.serials)}")
    out(f"Now copy {root}/broker/crl.pem, wardpost.acl and nats.conf to the broker's machine, and there:")
    out("  Mosquitto: systemctl reload mosquitto, and then, here, to end a session that is up:")
    out(f"    wardpost site kick {root} {node or 'NODE'}")
    out("  nats-server: nats-server --signal reload; it ends them by itself")
    return 0


def back_up(root: Path, *, output: Path, passphrase_file: Path | None, out: Callable[[str], None]) -> int:
    """`site backup`."""
    site = open_site(root)
    count = founding.back_up(site, output, _passphrase(passphrase_file, twice=True))
    out(f"{output}: {count} files of site {site.settings.name}, encrypted, and read back")
    out("Keep it in another building, and the passphrase apart from it: without the passphrase nobody can open it.")
    return 0


def restore(root: Path, *, source: Path, passphrase_file: Path | None, out: Callable[[str], None]) -> int:
    """`site restore`."""
    refuse_existing(root.absolute())
    site = founding.restore(source, root, _passphrase(passphrase_file, twice=False))
    out(f"site {site.settings.name} is back in {root}. Posts that were enrolled after this backup was made must be")
    out("provisioned again with --again if they are missing: see `wardpost site show`")
    return 0


def _passphrase(file: Path | None, *, twice: bool) -> str:
    """From a file's first line, or asked for. Raises ConfigError."""
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--passphrase-file: {file} cannot be read: {error}") from None
        if not lines or not lines[0]:
            raise ConfigError(f"--passphrase-file: {file}: its first line is empty")
        return lines[0]
    if not sys.stdin.isatty():
        raise ConfigError("no terminal to ask for the passphrase at; give --passphrase-file FILE")
    first = getpass.getpass(f"passphrase ({PASSPHRASE_CHARS_MIN} characters or more): ")
    if twice and getpass.getpass("again: ") != first:
        raise ConfigError("the two are not the same")
    return first
