"""What each real broker lets through with a site's own certificates and rights: every attack refused, and to be seen.

The figures at the end (`-s` shows them): refused attempts by kind, for Mosquitto and for nats-server.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import wire
from agent.errors import ConfigError
from agent.site import founding
from agent.site.kick import kick
from tests.e2e.brokers import free_port, mosquitto, nats_server
from tests.system.mtls import WAIT_S, Client, Identity, Site, connected, let_in

pytestmark = pytest.mark.system
TOTALS: dict[str, dict[str, int]] = {}
A, B = wire.Topics("ward-7", "gate-a"), wire.Topics("ward-7", "gate-b")
ROOT = Path(__file__).parents[2]
STAY_S = 3.0  # of a kick: it must reach its broker within that time, too


@pytest.fixture(scope="module", params=["mosquitto", "nats"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if request.param == "mosquitto" and not mosquitto():
        pytest.skip("Debian's mosquitto is not installed")
    one = Site(request.param, tmp_path_factory.mktemp(request.param))
    one.a, one.b = one.enrolled("gate-a"), one.enrolled("gate-b")  # type: ignore[attr-defined]
    one.start()
    yield one
    one.stop()
    TOTALS[one.kind] = one.refused
    print(f"\n{one.kind}: refused {sum(one.refused.values())} attempts: {one.refused}")


def ids(site: Site) -> tuple[Identity, Identity]:
    return site.a, site.b  # type: ignore[attr-defined]


def attacker(site: Site, who: Identity) -> Client:
    """Mosquitto tells a client of MQTT 5 what it did not take; nats-server speaks 3.1.1 and writes it into its log."""
    return Client(site, who, v5=site.kind == "mosquitto")


def test_what_the_contract_has_passes(site: Site) -> None:
    """The negative controls of everything below: the same clients, the topics that are their own."""
    a, _ = ids(site)
    with connected(site, site.station) as station, connected(site, a) as post:
        station.subscribe("wardpost/v1/ward-7/#")
        post.subscribe(A.ack)
        post.subscribe(A.commands)
        post.subscribe(A.renewed)
        post.subscribe(A.desired)
        for topic in (
            A.renew,
            A.status,
            A.event("person"),
            A.events,
            A.record,
            A.records,
            A.reply("x"),
            A.heartbeat,
            A.reported,
        ):
            post.publish(topic, topic.encode())
            station.wait_heard(topic.encode())
        for topic in (A.ack, A.command("siren"), A.renewed, A.desired):
            station.publish(topic, b"to " + topic.encode())
            post.wait_heard(b"to " + topic.encode())


@pytest.mark.parametrize("topic", [B.status, B.heartbeat, B.event("person"), B.events, B.record, B.records,
                                   B.reply("x"), B.reported, A.desired, B.desired,
                                   B.renew, A.renewed, A.ack, B.ack, B.command("siren"), A.command("siren"),
                                   "wardpost/v1/ward-8/gate-a/status", "elsewhere"])  # fmt: skip
def test_a_post_cannot_speak_in_anothers_name_nor_as_the_station(site: Site, topic: str) -> None:
    a, b = ids(site)
    with connected(site, site.station) as station, connected(site, b) as victim:
        station.subscribe("wardpost/v1/ward-7/#")
        victim.subscribe(B.ack)
        victim.subscribe(B.commands)
        mark = site.mark()
        evil = let_in(lambda: attacker(site, a))
        told = evil.publish(topic, b"forged", retain=True)
        if site.kind == "mosquitto":
            assert told == "Not authorized", told
            seen = site.wait_for_log("Denied PUBLISH from gate-a", mark)
        else:
            seen = site.wait_for_log(" Violation - Subject", mark)
        evil.close()
        # A marker behind it on the same broker: what has not come before it does not come.
        with connected(site, b) as other:
            other.publish(B.event("marker"), topic.encode())
        station.wait_heard(topic.encode())
        assert not station.heard(b"forged") and not victim.heard(b"forged")
        site.count("publish on another's topic", seen)
    with connected(site, site.station) as late:  # nor was it kept
        late.subscribe("wardpost/v1/ward-7/#")
        late.publish(B.ack, b"end")
        late.wait_heard(b"end")
        assert not late.heard(b"forged")


@pytest.mark.parametrize("wanted", [B.ack, B.commands, "wardpost/v1/ward-7/#", "wardpost/v1/ward-7/+/ack", B.renewed, "#",
                                    "wardpost/v1/ward-7/+/enrolled", B.status, B.desired, B.reported])  # fmt: skip
def test_a_post_cannot_hear_what_is_anothers(site: Site, wanted: str) -> None:
    a, b = ids(site)
    with connected(site, site.station) as station, connected(site, b) as victim:
        victim.subscribe(B.ack)
        victim.subscribe(B.commands)
        mark = site.mark()
        evil = let_in(lambda: Client(site, a))
        told = evil.subscribe(wanted)
        for topic in (B.ack, B.command("siren")):
            station.publish(topic, f"secret {wanted}".encode())
        station.publish("wardpost/v1/ward-7/claim-abcdefgh/enrolled", f"secret {wanted}".encode())
        victim.publish(B.status, f"secret {wanted}".encode())
        victim.wait_heard(f"secret {wanted}".encode())
        if not evil.lost.is_set():
            evil.subscribe(A.ack)
            station.publish(A.ack, b"mine")
            evil.wait_heard(b"mine")
        assert not evil.heard(f"secret {wanted}".encode())
        if site.kind == "nats":
            assert told in ("Unspecified error", "connection ended"), told
            seen = site.wait_for_log(" Violation - Subject", mark)
        else:  # its access list is asked at each delivery
            seen = f"SUBACK {told}; nothing of what was published came"
        evil.close()
        site.count("subscribe to another's topic", seen)


def test_a_post_cannot_take_over_anothers_session(site: Site) -> None:
    a, b = ids(site)
    with connected(site, b) as victim, connected(site, site.station) as station:
        victim.subscribe(B.ack)
        mark = site.mark()
        evil = Client(site, a, client_id="wardpost_ward-7_gate-b", will=A.status)
        evil.connect()
        time.sleep(0.3)
        station.publish(B.ack, b"for b alone")
        if site.kind == "mosquitto":
            assert not victim.lost.is_set(), "its certificate's name is its client id, whatever it says"
            victim.wait_heard(b"for b alone")
            assert not evil.heard(b"for b alone")
            site.count("take over by client id", site.wait_for_log("as gate-a (p2, c1", mark))
        else:
            # nats-server cannot bind client ids (2.15): who uses another's ends that one's connection. It gets nothing by
            # it, and the post comes back at once; the log names the address of the one who did it.
            assert not evil.heard(b"for b alone")
            evil.close()
            with connected(site, b) as again:
                again.subscribe(B.ack)
                station.publish(B.ack, b"still there")
                again.wait_heard(b"still there")
            site.count(
                "take over by client id (nothing gained; the connection was ended)",
                site.wait_for_log("Replacing old client", mark),
            )
        evil.close()


def test_a_post_cannot_forge_anothers_last_will(site: Site) -> None:
    a, b = ids(site)
    with connected(site, b) as victim:
        victim.publish(B.status, b"online", retain=True)
    mark = site.mark()
    evil = Client(site, a, will=B.status)
    if evil.connect():
        evil.vanish()
    time.sleep(0.5)
    with connected(site, site.station) as station:
        station.subscribe(B.status)
        station.wait_heard(b"online")
        assert not station.heard(b"forged")
    if site.kind == "mosquitto":
        seen = evil.failure or next(
            (x for x in site.log.read_bytes()[mark:].decode().splitlines() if "enied" in x),
            "dropped by Mosquitto without a word",
        )
    else:
        seen = evil.failure or site.wait_for_log(" Violation - Subject", mark)
    site.count("forge a last will", seen)


@pytest.mark.parametrize("what", ["expired", "foreign", "missing", "broker's own"])
def test_who_has_no_good_certificate_does_not_get_in(site: Site, what: str) -> None:
    who = {
        "expired": lambda: site.expired("gate-a"),
        "foreign": lambda: site.foreign("gate-a"),
        "missing": lambda: Identity("gate-a"),
        "broker's own": lambda: Identity("gate-a", site.root / "broker/broker.pem", site.root / "broker/broker.key"),
    }[what]()
    mark = site.mark()
    client = Client(site, who)
    came_in = client.connect()
    if what == "broker's own" and site.kind == "mosquitto":
        # It is let in as `broker of ward-7`, for whom there is no right at all.
        client.close()
        with connected(site, site.station) as station, connected(site, who) as evil:
            station.subscribe("wardpost/v1/ward-7/#")
            evil.publish(B.status, b"forged")
            station.publish(B.ack, b"end")
            station.wait_heard(b"end")
            assert not station.heard(b"forged")
        site.count("certificate: broker's own, without a right", site.wait_for_log("Denied PUBLISH", mark))
        return
    assert not came_in and client.failure
    words = {"mosquitto": ("SSL routines", "OpenSSL"), "nats": ("TLS handshake error", "uthoriz", "uthentication")}
    text = ""
    by = time.monotonic() + WAIT_S
    while not text and time.monotonic() < by:
        lines = site.log.read_bytes()[mark:].decode(errors="replace").splitlines()
        text = next((line for line in lines if any(word in line for word in words[site.kind])), "")
    site.count(f"certificate: {what}", text)


def test_a_claim_may_only_enrol(site: Site) -> None:
    claim = site.provision("gate-c")
    site.reload()
    mine = wire.Topics("ward-7", claim.name)
    with connected(site, site.station) as station:
        station.subscribe("wardpost/v1/ward-7/#")
        with connected(site, claim) as card:
            card.subscribe(mine.enrolled)
            card.publish(mine.enrol, b"please")
            station.wait_heard(b"please")
            station.publish(mine.enrolled, b"here you are")
            card.wait_heard(b"here you are")
        for topic in (
            mine.status,
            mine.event("person"),
            mine.records,
            B.status,
            B.event("person"),
            B.enrol,
            mine.enrolled,
        ):
            mark = site.mark()
            evil = let_in(lambda: attacker(site, claim))
            evil.publish(topic, b"forged")
            word = f"Denied PUBLISH from {claim.name}" if site.kind == "mosquitto" else " Violation - Subject"
            site.count("claim on ordinary topics", site.wait_for_log(word, mark))
            evil.close()
        station.publish(B.ack, b"end of claims")
        station.wait_heard(b"end of claims")
        assert not station.heard(b"forged")


def test_a_revoked_post_is_out_and_stays_out(site: Site) -> None:
    lost = site.enrolled("gate-lost")
    site.reload()
    with connected(site, lost) as live:
        founding.revoke(site.found, node="gate-lost", serial=None, reason="stolen", clock=site.clock)
        mark = site.mark()
        site.reload()
        told: list[str] = []
        if site.kind == "nats":
            assert live.lost.wait(WAIT_S), "the reload ends the session of who is no user any more"
        else:
            assert not live.lost.wait(0.5), "Mosquitto goes on with a session that is up: hence the kick"
        assert kick(site.root, "gate-lost", stay_s=STAY_S, clock=site.clock, out=told.append) == 0, told
        assert live.lost.wait(WAIT_S)
        print(f"{site.kind}: kick: {'; '.join(told)}")
        assert ("does not know the post" if site.kind == "nats" else "it is out") in told[-1]
    mark = site.mark()
    client = Client(site, lost)
    assert not client.connect()
    word = "certificate verify failed" if site.kind == "mosquitto" else "uthentication error"
    site.count("certificate: revoked", site.wait_for_log(word, mark))
    a, _ = ids(site)
    with connected(site, a):
        pass  # the others are still welcome


def test_a_kick_tells_when_the_broker_has_not_read_the_new_crl(site: Site) -> None:
    """The post comes back as every post does; only then is it known that revoking has not come into force."""
    back = site.enrolled("gate-back")
    site.reload()
    founding.revoke(site.found, node="gate-back", serial=None, reason="stolen", clock=site.clock)
    told: list[str] = []
    codes: list[int] = []
    live = let_in(lambda: Client(site, back))
    kicking = threading.Thread(
        target=lambda: codes.append(kick(site.root, "gate-back", stay_s=WAIT_S, clock=site.clock, out=told.append))
    )
    kicking.start()
    assert live.lost.wait(WAIT_S), "who comes second by that name ends the first"
    live.close()
    again = Client(site, back)
    while not again.connect():  # nats-server locks a session that two fight about for a second
        assert kicking.is_alive(), told
        again = Client(site, back)
    kicking.join(WAIT_S)
    again.close()
    assert codes == [1] and "has not read the new crl.pem" in told[-1], told
    site.reload()
    assert kick(site.root, "gate-back", stay_s=STAY_S, clock=site.clock, out=told.append) == 0, told
    assert not Client(site, back).connect()
    with pytest.raises(ConfigError, match="only a revoked post"):
        kick(site.root, "gate-a", stay_s=STAY_S, clock=site.clock, out=print)


def test_a_cards_claim_is_used_once_through_the_real_commands(site: Site, tmp_path: Path) -> None:
    """`wardpost station` and `wardpost enrol` as processes: the card gets in, its copy does not."""
    claim = site.provision("gate-d")
    site.reload()
    kit = site.root / "nodes/gate-d/kit"

    def card(name: str) -> tuple[Path, Path]:
        folder = tmp_path / name
        shutil.copytree(kit, folder)
        for path in ("/var/lib/wardpost/identity", "/etc/wardpost", "/var/lib/wardpost"):
            text = (folder / "node.toml").read_text().replace(f'"{path}', f'"{folder}')
            (folder / "node.toml").write_text(text)
        return folder, folder / "node.toml"

    def enrol(config: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agent.cli", "enrol", "--config", str(config), "--wait-s", "90"]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)

    with (tmp_path / "station.log").open("wb") as out:
        station = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "station", "--config", str(site.root / "station/station.toml")],
            stdout=out, stderr=out, cwd=ROOT,
        )  # fmt: skip
    try:
        first, config = card("card")
        copy, copied = card("copy")
        started = time.monotonic()
        done = enrol(config)
        took_s = time.monotonic() - started
        assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "station.log").read_text()
        print(f"{site.kind}: enrolled in {took_s:.1f} s")
        assert not (first / "claim.key").exists() and (first / "node.pem").exists()
        refused = enrol(copied)
        assert refused.returncode == 1 and "claim-used" in refused.stdout, refused.stdout + refused.stderr
        assert not (copy / "node.pem").exists()
        assert "claim-used" in (tmp_path / "station.log").read_text()
        site.count("claim used by another key", refused.stdout)
        post = Identity("gate-d", first / "node.pem", first / "node.key")
        with connected(site, post) as client:
            client.publish(wire.Topics("ward-7", "gate-d").status, b"{}")
        shown = subprocess.run(
            [sys.executable, "-m", "agent.cli", "site", "show", str(site.root)],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert "gate-d: enrolled" in shown.stdout and f"claim-used, {claim.name} (gate-d)" in shown.stdout
    finally:
        station.terminate()
        station.wait(timeout=WAIT_S)


def test_a_posts_certificate_opens_neither_natss_own_port_nor_a_route(tmp_path: Path) -> None:
    """A route of a cluster may read and write everything; any certificate of the site must not do for one."""
    from agent.site import brokers, founding

    site = Site("nats", tmp_path, host="localhost")
    a = site.enrolled("gate-a")
    route, plain = free_port(), free_port()
    here = site.root / "broker"
    at = brokers.Listener(host="127.0.0.1", port=site.port, ca=f"{here}/ca.pem", cert=f"{here}/broker.pem",
                          key=f"{here}/broker.key", store=str(tmp_path / "store"), nats=f"127.0.0.1:{plain}")  # fmt: skip
    register = founding.open_register(site.found)
    users = brokers.Users("ward-7", tuple((n.node, n.generation) for n in register.nodes()), ())
    register.close()
    member = brokers.Member(name="b1", listen=f"127.0.0.1:{route}", routes=(f"localhost:{free_port()}",))
    (tmp_path / "nats.conf").write_text(brokers.nats_conf(users, at, member=member))
    with site.log.open("wb") as out:
        process = subprocess.Popen([nats_server(), "-c", str(tmp_path / "nats.conf")], stdout=out, stderr=out)
    try:
        site.wait_for_log("Listening for route connections")

        def talk(who: Identity, port: int) -> bytes:
            """What the server says to somebody who speaks NATS as a member or a client, until it answers or hangs up."""
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(here / "ca.pem")
            assert who.cert is not None and who.key is not None
            context.load_cert_chain(who.cert, who.key)
            told = b""
            with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as raw:
                if port == plain:
                    assert raw.recv(8192).startswith(b"INFO")
                with contextlib.suppress(OSError), context.wrap_socket(raw, server_hostname="localhost") as line:
                    line.sendall(b'CONNECT {"verbose":false,"name":"x","server_name":"x"}\r\nPING\r\n')
                    while b"PONG" not in told and b"-ERR" not in told and (part := line.recv(8192)):
                        told += part
            return told

        mark = site.mark()
        assert b"PONG" not in talk(a, route)
        seen = site.wait_for_log("uthentication", mark)
        print(f"nats: a post as a route: {seen}")
        broker = Identity("broker", here / "broker.pem", here / "broker.key")
        # The control. A member of the cluster gets as far as being asked for its cluster's name.
        assert b"cluster name" in talk(broker, route)
        assert b"uthorization Violation" in talk(a, plain), "a post speaks MQTT, or not at all"
    finally:
        process.terminate()
        process.wait(timeout=WAIT_S)
