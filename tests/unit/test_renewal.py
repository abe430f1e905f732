"""A post renews its certificate: through lost answers, power cuts at every step, brokers that refuse, thieves and replays."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent import wire
from agent.clock import rfc3339
from agent.config import TlsSettings
from agent.enrolment import Enrolment
from agent.renewal import NEXT_CERT, NEXT_KEY, REFUSED_FILE, TRIALS_MAX, Renewal
from agent.site import authority, founding
from agent.site.folder import open_site
from agent.site.provisioning import Asked, provision
from agent.site.register import Certificate, Node
from agent.station import renewals
from agent.station.enrolment import EnrolmentDesk
from agent.station.renewals import Early, Give, InUse, Issue, Kind, Refuse, Wait, decide
from agent.station.store import StationStore
from agent.station.worker import StationWorker
from agent.store.store import Origin, Store
from agent.types import NS, UtcReading
from agent.uplink import Broker, Hello, Refused
from agent.uplink.worker import UplinkWorker
from tests.fakes.broker import FakeBroker, FakeTransport
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk, PowerCut

UTC_NS = 1_790_000_000 * NS
DAY_S = 86_400.0
LONG_S = 2.1 * 365 * DAY_S
"""More than two thirds of a certificate's life."""
IDENTITY = Path("/fake")
TLS = TlsSettings(ca=str(IDENTITY / "ca.pem"), cert=str(IDENTITY / "node.pem"), key=str(IDENTITY / "node.key"))
TOPICS = wire.Topics("ward-7", "gate-2")


class TlsTransport(FakeTransport):
    """As the fake, but a broker looks at the certificate that the post would show, and so does TLS at its key."""

    def __init__(self, world: World, disk: FakeDisk, renewal: Renewal) -> None:
        super().__init__(brokers=[world.broker], clock=world.clock)
        self._world = world
        self._disk = disk
        self._renewal = renewal
        self.shown = ""

    def connect(self, broker: Broker, hello: Hello) -> None:
        tls = self._renewal.choose()
        pem = self._disk.content(Path(tls.cert).name)
        key = load_pem_private_key(self._disk.content(Path(tls.key).name), password=None)
        cert = x509.load_pem_x509_certificate(pem)
        assert isinstance(key, ec.EllipticCurvePrivateKey) and cert.public_key() == key.public_key(), "a torn pair"
        self.shown = f"{cert.serial_number:x}"
        if self._world.refuses(self.shown):
            self._forget()
            self._happenings.clear()
            self._happenings.append(Refused(broker, "closed before it was up"))
            return
        super().connect(broker, hello)


class Post:
    """gate-2 with the power on: the real uplink, with the renewal as its errand."""

    def __init__(self, world: World, disk: FakeDisk) -> None:
        self.world, self.disk = world, disk
        self.told: list[str] = []
        self.renewal = Renewal(
            disk=disk, clock=world.clock, rng=random.Random(3), site="ward-7", node="gate-2", tls=TLS,
            tell=self.told.append, ask_after_s=(0.0, 5.0),
        )  # fmt: skip
        self.transport = TlsTransport(world, disk, self.renewal)
        self.worker = UplinkWorker(
            store=world.rows, transport=self.transport, clock=world.clock, rng=random.Random(4), site="ward-7",
            node="gate-2", place="", version="1", brokers=[world.broker.address], heartbeat=world.beat,
            heartbeat_s=3600.0, wait_s_max=0.0, errands=(self.renewal,),
        )  # fmt: skip
        self.worker.open()

    def live(self, until: Callable[[], bool], *, seconds: float = 1200, pace_s: float = 1.0) -> bool:
        """Post and station, side by side."""
        for _ in range(round(seconds / pace_s)):
            self.worker.step(self.world.clock.boot_ns() / NS)
            self.world.station.step(self.world.clock.boot_ns() / NS)
            if until():
                return True
            self.world.clock.advance(pace_s)
        return False

    def renewed(self) -> bool:
        """The new pair is in force, connected, and the station knows."""
        new = self.world.serial(self.disk) != self.world.first
        quiet = NEXT_CERT not in self.disk.list("") and NEXT_KEY not in self.disk.list("")
        return new and quiet and self.worker.broker is not None and self.world.alive() == [self.world.serial(self.disk)]

    def power_off(self) -> None:
        self.transport.vanish()


class World:
    """A site, its station, a broker, and gate-2, enrolled."""

    def __init__(self, folder: Path, made: Path) -> None:
        """`made`: a site with gate-2 in it, to begin with."""
        self.clock = FakeClock(utc_ns=UTC_NS)
        self.root = folder / "ward-7"
        shutil.copytree(made, self.root)
        self.broker = FakeBroker(clock=self.clock)
        (folder / "data").mkdir()
        self.store = StationStore(folder / "data", clock=self.clock, site="ward-7")
        self.station = StationWorker(
            store=self.store, transport=FakeTransport(brokers=[self.broker], clock=self.clock), clock=self.clock,
            rng=random.Random(1), site="ward-7", station="hq", brokers=[self.broker.address], wait_s_max=0,
            enrolment=EnrolmentDesk(self.root, clock=self.clock, site="ward-7"),
        )  # fmt: skip
        self.station.open()
        self.rows = Store(
            folder / "node.db",
            clock=self.clock,
            new_id=lambda: "0" * 8,
            origin=Origin("ward-7", "gate-2", ""),
            outbox_rows_max=1000,
            event_rows_max=1000,
        )
        self.rows.open()
        self.rows.start_session()
        self.refuses: Callable[[str], bool] = lambda _serial: False
        self.key = authority.new_key()
        self.first = self.issue(self.key)

    def close(self) -> None:
        self.station.close()
        self.rows.close()

    def beat(self) -> wire.Heartbeat:
        now = rfc3339(self.clock.utc().utc_ns)
        return wire.Heartbeat(
            node="gate-2", bootid=self.clock.boot_id, session=1, monons=0, version="1", model="test",
            clock=wire.ClockState(utc=now, errms=None, source="none"), camera=None, vision=None, recording=None,
            queue=None,
            machine=wire.MachineState(
                uptime_s=None, temperature_c=None, throttled=None, diskfreebytes=None, memoryavailablebytes=None,
                rssbytes=None, load1=None,
            ),
        )  # fmt: skip

    def issue(self, key: ec.EllipticCurvePrivateKey) -> str:
        """The certificate by which gate-2 begins; its serial."""
        now_ns = self.clock.utc().utc_ns
        cert = authority.issue_node(self.ca, "gate-2", 1, key.public_key(), now_ns=now_ns)
        row = founding.of_certificate(cert, "node", now_ns, node="gate-2", generation=1)
        register = founding.open_register(open_site(self.root))
        (claim,) = register.claims_of("gate-2")
        assert register.enrolled(claim.claim, row, now_ns)
        register.close()
        self.first_pem = row.pem
        return row.serial

    @property
    def ca(self) -> authority.Authority:
        return founding.load_authority(open_site(self.root))

    def card(self) -> FakeDisk:
        disk = FakeDisk()
        disk.put("ca.pem", (self.root / "ca/ca.pem").read_bytes())
        disk.put("node.key", authority.key_pem(self.key))
        disk.put("node.pem", self.first_pem.encode())
        return disk

    def serial(self, disk: FakeDisk) -> str:
        return f"{x509.load_pem_x509_certificate(disk.content('node.pem')).serial_number:x}"

    def certificates(self) -> list[Certificate]:
        register = founding.open_register(open_site(self.root))
        found = [one for one in register.certificates_of("gate-2") if one.kind == "node"]
        register.close()
        return found

    def alive(self) -> list[str]:
        return [one.serial for one in self.certificates() if one.revoked_utc_ns is None]

    def forget(self) -> None:
        """The register as before: only the first certificate."""
        register = founding.open_register(open_site(self.root))
        with register._transaction("test") as db:
            db.execute("delete from certificate where kind = 'node' and serial != ?", (self.first,))
            db.execute("update certificate set revoked_utc_ns = null, reason = '' where serial = ?", (self.first,))
        register.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, clock = tmp_path_factory.mktemp("made") / "ward-7", FakeClock(utc_ns=UTC_NS)
    founding.found_site(root, name="ward-7", hosts=["hq"], clock=clock)
    assert provision(root, Asked(node="gate-2", ethernet=True), clock=clock, out=lambda _: None) == 0
    return root


@pytest.fixture
def world(tmp_path: Path, made: Path) -> Iterator[World]:
    one = World(tmp_path, made)
    yield one
    one.close()


def said(world: World) -> list[str]:
    return [topic.rpartition("/")[2] for topic, _ in world.broker.routed if "/renew" in topic]


def test_a_young_certificate_is_left_alone_and_asked_about_once_a_day(world: World) -> None:
    post = Post(world, world.card())
    post.live(lambda: False, seconds=3 * DAY_S, pace_s=300)
    assert 6 <= len(said(world)) <= 8 and said(world)[:2] == ["renew", "renewed"]
    assert world.serial(post.disk) == world.first and world.alive() == [world.first]
    assert sorted(post.disk.list("")) == ["ca.pem", "node.key", "node.pem"], "no key is made before it is needed"


def test_a_certificate_in_its_last_third_is_renewed_with_a_new_key_that_never_leaves_the_card(world: World) -> None:
    disk = world.card()
    world.clock.advance(LONG_S)
    post = Post(world, disk)
    assert post.live(post.renewed)
    cert = x509.load_pem_x509_certificate(disk.content("node.pem"))
    key = load_pem_private_key(disk.content("node.key"), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and authority.key_digest(
        key.public_key()
    ) != authority.key_digest(world.key.public_key())
    assert cert.public_key() == key.public_key() and cert.subject.rfc4514_string() == "CN=gate-2,OU=g1"
    assert post.transport.shown == world.serial(disk), "it is connected by the new one"
    old = next(one for one in world.certificates() if one.serial == world.first)
    assert old.reason == "renewed" and old.revoked_utc_ns is not None, "a copy of the card as it was is worth nothing"
    secret = disk.content("node.key").splitlines()[1]
    assert not any(secret in payload for _, payload in world.broker.routed)
    assert len(post.told) == 1 and "was renewed, good until" in post.told[0]
    assert said(world).count("renew") == 3  # which I use; a new one; which I use now


def test_a_posts_own_clock_has_no_say(world: World) -> None:
    """It asks; the station's clock decides. (`Renewal` is handed a clock of which it may read the boot time only.)"""

    class NoWallClock(FakeClock):
        def utc(self) -> UtcReading:
            raise AssertionError("a post does not judge certificates by its own clock")

    disk, real = world.card(), world.clock
    world.clock.advance(LONG_S)
    post = Post(world, disk)
    post.renewal._clock = NoWallClock(boot_ns=real.boot_ns())
    post.renewal._clock.boot_ns = real.boot_ns  # type: ignore[method-assign]
    assert post.live(post.renewed)


def test_a_lost_answer_is_given_again_and_is_the_same(world: World) -> None:
    disk = world.card()
    world.clock.advance(LONG_S)
    post = Post(world, disk)
    lost: list[bytes] = []
    publish = world.station._transport.publish

    def losing(topic: str, payload: bytes, *, qos: int, retain: bool = False) -> int:
        if topic == TOPICS.renewed and b"BEGIN CERTIFICATE" in payload and len(lost) < 2:
            lost.append(payload)
            return 0
        return publish(topic, payload, qos=qos, retain=retain)

    world.station._transport.publish = losing  # type: ignore[method-assign]
    assert post.live(lambda: len(lost) == 2)
    assert lost[0] == lost[1] and NEXT_CERT not in disk.list("") and world.serial(disk) == world.first
    assert post.live(post.renewed)
    assert len(world.certificates()) == 2, "the same key was given the same certificate"


def test_a_power_cut_at_every_step_leaves_a_pair_that_connects(world: World) -> None:
    """The post is cut at step n of its renewal, for every n there is; it must come back, and end with the new pair."""
    world.clock.advance(LONG_S)
    cuts, seed = 0, random.randrange(1 << 32)
    print(f"seed {seed}")
    for at in itertools.count(1):
        world.forget()
        disk, rng = world.card(), random.Random(seed + at)

        def crash(step: str, at: int = at) -> None:
            if int(step.split(maxsplit=1)[0]) == at:
                raise PowerCut

        disk.crash_point = crash
        post = Post(world, disk)
        try:
            assert post.live(post.renewed)
        except PowerCut:
            cuts += 1
        else:
            break
        finally:
            post.power_off()
        disk.crash_point = lambda _step: None
        disk.power_cut(rng.randrange)
        again = Post(world, disk)
        assert again.live(lambda: again.worker.broker is not None, seconds=30), f"cut at step {at}, seed {seed}"  # noqa: B023
        assert again.live(again.renewed, seconds=2 * 3600), f"cut at step {at}, seed {seed}: {disk.list('')}"
        assert len(world.certificates()) == 2, "one new certificate, whatever was cut"
        again.power_off()
    print(f"{cuts} cuts")
    assert cuts >= 15


def test_a_new_certificate_that_the_broker_refuses_never_keeps_the_post_away(world: World) -> None:
    disk = world.card()
    world.clock.advance(LONG_S)
    post = Post(world, disk)
    world.refuses = lambda serial: serial != world.first  # say, the broker's clock is behind: not valid yet
    assert post.live(lambda: NEXT_CERT in disk.list(""))
    assert post.live(lambda: post.worker.broker is not None and post.transport.shown == world.first, seconds=60)
    world.clock.advance(60)
    world.refuses = lambda _serial: False  # ... and is right again
    assert post.live(post.renewed, seconds=3600)
    assert len(world.certificates()) == 2


def test_a_certificate_that_stays_refused_is_given_up_and_another_is_asked_for(world: World) -> None:
    disk = world.card()
    world.clock.advance(LONG_S)
    post = Post(world, disk)
    world.refuses = lambda serial: serial != world.first
    assert post.live(lambda: any("another one" in text for text in post.told), seconds=4 * 3600, pace_s=10)
    assert f"refused {TRIALS_MAX} times" in post.told[0]
    assert sorted(disk.list("")) == ["ca.pem", "node.key", "node.pem"] and world.serial(disk) == world.first
    assert post.live(lambda: post.worker.broker is not None, seconds=60)
    bad = world.certificates()[-1].serial
    world.refuses = lambda serial: serial == bad
    assert post.live(post.renewed, seconds=2 * DAY_S, pace_s=60)
    assert len(world.certificates()) == 3


def test_a_flapping_network_costs_time_and_no_certificate(world: World) -> None:
    disk = world.card()
    world.clock.advance(LONG_S)
    post = Post(world, disk)
    flaps = random.Random(5)
    world.refuses = lambda _serial: flaps.random() < 0.7
    assert post.live(post.renewed, seconds=6 * 3600)
    assert len(world.certificates()) == 2


def test_a_broker_with_an_older_access_list_keeps_the_post_and_is_not_asked(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.broker.deny = {TOPICS.renewed}
    world.broker.throws_out = True
    world.clock.advance(LONG_S)
    post = Post(world, world.card())
    assert post.live(lambda: post.worker.broker is not None)
    post.live(lambda: False)
    assert post.worker.broker is not None and said(world) == []
    assert "older than this agent" in caplog.text


def test_without_a_station_it_asks_ever_more_seldom_and_for_ever(world: World) -> None:
    world.clock.advance(LONG_S)
    post = Post(world, world.card())
    for _ in range(round(5 * DAY_S / 30)):
        post.worker.step(world.clock.boot_ns() / NS)
        world.clock.advance(30)
    assert 15 < len(said(world)) < 60
    world.station.close()
    world.station.open()
    assert post.live(post.renewed, seconds=7 * 3600, pace_s=10)


def test_what_headquarters_refuses_is_kept_for_the_doctor_and_ends_when_it_thinks_again(world: World) -> None:
    disk = world.card()
    world.clock.advance(LONG_S)
    register = founding.open_register(open_site(world.root))
    register.revoke_serial(world.first, world.clock.utc().utc_ns, "lost?")
    post = Post(world, disk)
    assert post.live(lambda: REFUSED_FILE in disk.list(""))
    assert disk.content(REFUSED_FILE).decode().startswith("revoked:") and "lost?" in disk.content(REFUSED_FILE).decode()
    assert world.store.rejected == 1 and register.refusals()[0].kind == "renewal-revoked"
    with register._transaction("test") as db:
        db.execute("update certificate set revoked_utc_ns = null")
        db.execute("update node set state = 'enrolled'")
    register.close()
    assert post.live(post.renewed, seconds=2 * DAY_S, pace_s=60)
    assert REFUSED_FILE not in disk.list("")


def test_answers_that_are_not_for_us_change_nothing(world: World) -> None:
    disk = world.card()
    world.clock.advance(LONG_S)
    post = Post(world, disk)
    assert post.live(lambda: NEXT_KEY in disk.list(""))
    waiting = load_pem_private_key(disk.content(NEXT_KEY), password=None)
    assert isinstance(waiting, ec.EllipticCurvePrivateKey)
    now, key, other = UTC_NS, authority.key_digest(waiting.public_key()), authority.new_key().public_key()
    stranger = authority.make_authority("ward-7", now_ns=now)
    wrong = [
        authority.issue_node(stranger, "gate-2", 1, waiting.public_key(), now_ns=now),
        authority.issue_node(world.ca, "gate-3", 1, waiting.public_key(), now_ns=now),
        authority.issue_node(world.ca, "gate-2", 1, other, now_ns=now),
    ]
    good = authority.issue_node(world.ca, "gate-2", 1, waiting.public_key(), now_ns=now)
    payloads = [
        *(wire.encode(wire.Renewed(state="done", key=key, cert=authority.certificate_pem(c).decode())) for c in wrong),
        wire.encode(wire.Renewed(state="done", key="0" * 64, cert=authority.certificate_pem(good).decode())),
        wire.encode(wire.Renewed(state="refused", key="0" * 64)),
        wire.encode(wire.Renewed(state="done", key=key)),
        b"rubbish", b"{}",
    ]  # fmt: skip
    for payload in payloads:
        assert post.renewal.received(TOPICS.renewed, payload)
        assert NEXT_CERT not in disk.list("") and NEXT_KEY in disk.list("")
    assert not post.renewal.received(TOPICS.ack, b"{}")


def test_a_full_card_is_waited_for(world: World) -> None:
    disk = world.card()
    world.clock.advance(LONG_S)
    disk.fill(free_bytes=10)
    post = Post(world, disk)
    post.live(lambda: False)
    assert post.worker.broker is not None and world.serial(disk) == world.first
    disk.fill(free_bytes=1 << 20)
    assert post.live(post.renewed, seconds=8 * 3600, pace_s=20)


def test_a_post_that_lay_in_the_dark_for_too_long_takes_a_new_claim_beside_its_old_certificate(world: World) -> None:
    """`provision --again`, and claim.* copied beside node.pem: the card keeps its footage and its settings."""
    disk = world.card()
    disk.put(NEXT_KEY, authority.key_pem(authority.new_key()))  # it was about to renew when it was put away
    world.clock.advance(4 * 365 * DAY_S)
    asked = Asked(node="gate-2", ethernet=True, again=True)
    assert provision(world.root, asked, clock=world.clock, out=lambda _: None) == 0
    kit = world.root / "nodes/gate-2/kit"
    for name in ("claim.pem", "claim.key", "claim.toml"):
        disk.put(name, (kit / name).read_bytes())
    (line,) = [x for x in (kit / "claim.toml").read_text().splitlines() if x.startswith("claim = ")]
    one = Enrolment(
        disk=disk, transport=FakeTransport(brokers=[world.broker], clock=world.clock), clock=world.clock,
        rng=random.Random(2), site="ward-7", node="gate-2", claim=line.split('"')[1], brokers=[world.broker.address],
        wait_s_max=0,
    )  # fmt: skip
    one.open()
    assert not one.done, "the certificate it has is older than the claim"
    for _ in range(240):
        one.step(world.clock.boot_ns() / NS)
        world.station.step(world.clock.boot_ns() / NS)
        world.clock.advance(0.25)
    assert one.done
    cert = x509.load_pem_x509_certificate(disk.content("node.pem"))
    assert cert.subject.rfc4514_string() == "CN=gate-2,OU=g2"
    assert sorted(disk.list("")) == ["ca.pem", "node.key", "node.pem"]
    assert Post(world, disk).live(lambda: world.broker.connected("wardpost_ward-7_gate-2"))


def test_a_post_renews_where_its_identity_is_its_own_and_nowhere_else(tmp_path: Path) -> None:
    from agent.assembly.world import real_world
    from agent.clock import SystemClock
    from agent.config import Config, load
    from agent.disk import PosixDisk
    from agent.main import build

    folder = tmp_path / "identity"
    folder.mkdir()

    def node(tls: str) -> Config:
        (tmp_path / "node.toml").write_text(
            f'[node]\nsite = "ward-7"\nid = "gate-2"\ndata = "{tmp_path}"\n[camera]\ndriver = "stream"\n'
            f'url = "x.mp4"\n[uplink]\nbrokers = ["mqtts://127.0.0.1:1"]\n{tls}'
        )
        return load(tmp_path / "node.toml", Config)

    def renewal(tls: str) -> Renewal | None:
        world = real_world(node(tls), PosixDisk(tmp_path), SystemClock())
        chosen = world.transport._credentials.choose  # type: ignore[attr-defined]
        assert chosen == (None if world.renewal is None else world.renewal.choose)
        return world.renewal

    assert renewal("") is None
    assert renewal(f'[uplink.tls]\nca = "{folder}/ca.pem"\n') is None
    assert renewal(f'[uplink.tls]\nca = "/etc/ca.pem"\ncert = "{folder}/a.pem"\nkey = "{folder}/a.key"\n') is None
    kit = f'[uplink.tls]\nca = "{folder}/ca.pem"\ncert = "{folder}/node.pem"\nkey = "{folder}/node.key"\n'
    assert renewal(kit) is not None
    config = node(f'{kit}[vision.detector]\ndriver = "none"\n')
    world = real_world(config, PosixDisk(tmp_path), SystemClock())
    built = build(config, world)
    built.ledger.close()
    built.store.close()
    uplink = next(worker for worker in built.workers if isinstance(worker, UplinkWorker))
    assert any(errand is world.renewal for errand in uplink._errands), "the node that runs does it"


# -- the station's decision -------------------------------------------------------------------------------------------


NOW_NS = UTC_NS + round(LONG_S) * NS
NODE = Node(
    node="gate-2", generation=1, state="enrolled", device="", place="", custodian="", consent="", profile="",
    made_utc_ns=UTC_NS,
)  # fmt: skip
CA = authority.make_authority("ward-7", now_ns=UTC_NS)
KEYS = {name: authority.new_key() for name in "abcx"}


def had(name: str, issued_ns: int = UTC_NS, **change: object) -> Certificate:
    cert = authority.issue_node(CA, "gate-2", 1, KEYS[name].public_key(), now_ns=issued_ns)
    row = founding.of_certificate(cert, "node", issued_ns, node="gate-2", generation=1)
    return replace(row, **change)  # type: ignore[arg-type]


def asks(key: str, by: str, *, node: str = "gate-2", site: str = "ward-7", csr_of: str = "gate-2") -> wire.Renew:
    import base64

    from cryptography.hazmat.primitives import hashes

    one = wire.Renew(
        csr=authority.make_csr(csr_of, KEYS[key]).decode(), by=authority.key_digest(KEYS[by].public_key()), proof=""
    )
    proof = KEYS[by].sign(one.proof_bytes(site, node), ec.ECDSA(hashes.SHA256()))
    return wire.Renew(csr=one.csr, by=one.by, proof=base64.b64encode(proof).decode())


def judged(asked: wire.Renew, *rows: Certificate, node: Node | None = NODE, now_ns: int = NOW_NS) -> renewals.Decision:
    return decide(asked, site="ward-7", name="gate-2", node=node, certificates=rows, now_utc_ns=now_ns)


def test_the_station_gives_one_certificate_a_key_and_ends_the_old_one_when_the_new_is_used() -> None:
    a = had("a")
    b = had("b", NOW_NS)
    assert judged(asks("a", "a"), a, now_ns=UTC_NS + NS) == InUse((), due=False)
    assert judged(asks("a", "a"), a) == InUse((), due=True)
    assert judged(asks("b", "a"), a, now_ns=UTC_NS + NS) == Early()
    issue = judged(asks("b", "a"), a)
    assert isinstance(issue, Issue) and issue.key == KEYS["b"].public_key() and issue.generation == 1
    later = NOW_NS + 5 * NS
    assert judged(asks("b", "a"), a, b, now_ns=later) == Give(b)
    assert judged(asks("b", "b"), a, b, now_ns=later) == InUse((a.serial,), due=False)
    assert judged(asks("a", "a"), a, b, now_ns=later) == InUse((), due=True), "the new one is not ended by the old"
    assert isinstance(judged(asks("c", "a"), a, b, now_ns=later), Wait), (
        "its new key was lost: not more than one an hour"
    )
    assert isinstance(judged(asks("c", "a"), a, b, now_ns=NOW_NS + 3601 * NS), Issue)
    grace = a.not_after_utc_ns + 86_400 * NS
    assert isinstance(judged(asks("b", "a"), a, now_ns=grace), Issue), "its session outlived it: it is still here"
    assert isinstance(judged(asks("b", "a"), replace(a, issued_utc_ns=NOW_NS + 2 * 86_400 * NS)), Wait), "clock behind"


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (Kind.UNKNOWN, lambda: judged(asks("b", "a"), had("a"), node=None)),
        (Kind.PROOF, lambda: judged(asks("b", "x"), had("a"))),
        (Kind.PROOF, lambda: judged(asks("b", "a", site="ward-8"), had("a"))),
        (Kind.PROOF, lambda: judged(asks("b", "a", node="gate-3"), had("a"))),
        (Kind.PROOF, lambda: judged(wire.Renew(csr=asks("c", "a").csr, by=authority.key_digest(KEYS["a"].public_key()), proof=asks("b", "a").proof),
                                    had("a"))),
        (Kind.PROOF, lambda: judged(wire.Renew(csr=asks("b", "a").csr, by=authority.key_digest(KEYS["a"].public_key()), proof="%"), had("a"))),
        (Kind.REQUEST, lambda: judged(asks("b", "a", csr_of="gate-3"), had("a"))),
        (Kind.REVOKED, lambda: judged(asks("b", "a"), had("a", revoked_utc_ns=1, reason="stolen"))),
        (Kind.REVOKED, lambda: judged(asks("b", "a"), had("a"), node=replace(NODE, state="revoked"))),
        (Kind.REVOKED, lambda: judged(asks("b", "a"), had("a"), node=replace(NODE, generation=2))),
        (Kind.REVOKED, lambda: judged(asks("b", "a"), had("a"), had("b", NOW_NS, revoked_utc_ns=1))),
        (Kind.EXPIRED, lambda: judged(asks("b", "a"), had("a"), now_ns=UTC_NS + 4 * 365 * 86_400 * NS)),
        (Kind.SUPERSEDED, lambda: judged(asks("b", "a"), had("a"), had("b", NOW_NS), had("c", NOW_NS + NS))),
    ],
)  # fmt: skip
def test_each_wrong_question_is_refused(kind: Kind, what: Callable[[], renewals.Decision]) -> None:
    answer = what()
    assert isinstance(answer, Refuse) and answer.kind is kind, answer


def test_a_site_from_an_old_backup_knows_its_posts_again_by_its_own_signature(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The register lost the certificate that the post has by now; the authority's signature on it is not lost."""
    disk = world.card()
    world.clock.advance(LONG_S)
    post = Post(world, disk)
    assert post.live(post.renewed)
    new = world.serial(disk)
    world.forget()
    world.clock.advance(LONG_S)
    assert post.live(lambda: world.serial(disk) != new and post.renewed(), seconds=2 * DAY_S, pace_s=30)
    assert "that the register had lost" in caplog.text
    assert {one.serial: one.reason for one in world.certificates()} == {
        world.first: "renewed", new: "renewed", world.serial(disk): "",
    }  # fmt: skip


def test_a_strangers_certificate_is_no_way_into_the_register(world: World) -> None:
    """Of another authority, of another post, of a key that does not sign, of an older generation."""
    desk = EnrolmentDesk(world.root, clock=world.clock, site="ward-7")
    desk.open()
    key, other = KEYS["x"].public_key(), KEYS["a"].public_key()
    make = authority.issue_node
    for ca, name, generation, public in (
        (CA, "gate-2", 1, key), (world.ca, "gate-3", 1, key), (world.ca, "gate-2", 1, other), (world.ca, "gate-2", 0, key),
        (world.ca, "station", 1, key),
    ):  # fmt: skip
        cert = authority.certificate_pem(make(ca, name, generation, public, now_ns=UTC_NS)).decode()
        good = asks("x", "x")
        message = wire.Renew(csr=good.csr, by=good.by, proof=good.proof, cert=cert)
        answer = desk.renew("gate-2", wire.encode(message))
        assert answer is not None and answer.refused is not None, name
        assert world.alive() == [world.first]
    desk.close()


def test_a_claim_cannot_renew_and_a_post_cannot_ask_too_often(world: World) -> None:
    world.station.step(world.clock.boot_ns() / NS)
    world.station.step(world.clock.boot_ns() / NS)
    one = FakeTransport(brokers=[world.broker], clock=world.clock)
    one.connect(world.broker.address, Hello("x"))
    one.publish(wire.Topics("ward-7", "claim-abcdefgh").renew, b"{}", qos=1)
    one.publish(wire.Topics("ward-8", "gate-2").renew, b"{}", qos=1)
    for _ in range(20):
        one.publish(TOPICS.renew, b"{}", qos=1)
    world.station.step(world.clock.boot_ns() / NS)
    answers = [payload for topic, payload in world.broker.routed if topic == TOPICS.renewed]
    assert len(answers) == 6 and all(wire.decode(x, wire.Renewed).state == "refused" for x in answers)
    assert not any("claim-" in topic and topic.endswith("/renewed") for topic, _ in world.broker.routed)
