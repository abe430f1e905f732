"""`wardpost site kick`: ends the session of a revoked post at its brokers, and sees whether it comes back.

Mosquitto reads a new CRL at SIGHUP, and yet goes on with a session that is up. But the name in a certificate is the
client id there (`use_username_as_clientid`), and MQTT knows one session by a client id: who comes second ends the first
(MQTT 3.1.1, 3.1.4-2). So the authority makes a certificate of the post's own name, with a key that is in a private
folder for some seconds, connects by it, and stays for a while. If the post comes back it ends this session in its turn:
then the broker has not read the new CRL. nats-server ends a session itself when the post is no longer among its users,
and refuses this one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from agent.clock import Clock
from agent.config import TlsSettings
from agent.errors import ConfigError
from agent.site import authority, founding
from agent.site.folder import open_site, write_all
from agent.types import NS
from agent.uplink import Broker, Connected, Disconnected, Hello, Refused, parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport

KICK_DAYS = 1 / 24
STAY_S = 15.0
"""Longer than a post waits before it comes back: 10 s, by its default."""


def kick(root: Path, node: str, *, stay_s: float, clock: Clock, out: Callable[[str], None]) -> int:
    """Blocks for `stay_s` a broker. 1 when a broker was not reached, or the post came back.

    Raises ConfigError for a post that is not revoked, Corrupt, Transient.
    """
    site = open_site(root)
    register = founding.open_register(site)
    try:
        there = register.node(node)
        if there is None or there.state != "revoked":
            state = "is not in the register" if there is None else f"is {there.state}"
            raise ConfigError(f"{node}: {state}; only a revoked post is thrown out: wardpost site revoke {root} {node}")
        now_ns = clock.utc().utc_ns
        key = authority.new_key()
        certificate = authority.issue_node(
            founding.load_authority(site), node, there.generation, key.public_key(), now_ns=now_ns, days=KICK_DAYS
        )
        detail = f"for an hour, to end its sessions; serial {certificate.serial_number:x}"
        register.noted("kick", node, detail, now_ns)
    finally:
        register.close()
    with tempfile.TemporaryDirectory(prefix="wardpost-kick-") as folder:
        files = {"kick.pem": authority.certificate_pem(certificate), "kick.key": authority.key_pem(key)}
        write_all(Path(folder), files)
        ca, cert, private = site.root / "ca/ca.pem", Path(folder) / "kick.pem", Path(folder) / "kick.key"
        tls = TlsSettings(ca=str(ca), cert=str(cert), key=str(private))
        transport = PahoTransport(clock=clock, credentials=Credentials(tls=tls))
        try:
            brokers = [parse_broker(url) for url in site.settings.brokers]
            hello = Hello(f"wardpost_{site.settings.name}_{node}")
            good = [_kick(transport, broker, hello, stay_s=stay_s, clock=clock, out=out) for broker in brokers]
        finally:
            transport.close()
    return 0 if all(good) else 1


def _kick(
    transport: PahoTransport, broker: Broker, hello: Hello, *, stay_s: float, clock: Clock, out: Callable[[str], None]
) -> bool:
    """At one broker."""
    transport.connect(broker, hello)
    until_s = clock.boot_ns() / NS + stay_s
    up = False
    while clock.boot_ns() / NS < until_s:
        for happening in transport.poll(0.5):
            match happening:
                case Connected():
                    up = True
                    until_s = clock.boot_ns() / NS + stay_s
                    out(f"{broker}: whatever session it had is ended; waiting {stay_s:g} s whether it comes back")
                case Disconnected():
                    out(f"{broker}: it came back: this broker has not read the new crl.pem yet; copy it there, reload")
                    return False
                case Refused():
                    return _refused(broker, happening.reason, out)
                case _:
                    pass
    transport.disconnect()
    out(f"{broker}: it is out" if up else f"{broker}: no answer in {stay_s:g} s")
    return up


def _refused(broker: Broker, reason: str, out: Callable[[str], None]) -> bool:
    """nats-server refuses who is no user; a broker that is not there is another matter."""
    refuses = "refuses" in reason or "closed before" in reason
    told = (
        "it does not know the post any more (nats-server, reloaded: that has ended its session)" if refuses else reason
    )
    out(f"{broker}: {told}")
    return refuses
