"""A card becomes a post: through lost answers, power cuts at every step, copies of the card, and clocks that run out."""

from __future__ import annotations

import base64
import itertools
import random
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent import wire
from agent.config import load
from agent.enrolment import ANSWER_S_MAX, ClaimSettings, Enrolment
from agent.errors import ConfigError, Corrupt, Transient
from agent.site import authority, founding
from agent.site.folder import open_site
from agent.site.provisioning import Asked, provision
from agent.station.admission import Facts, Give, Issue, Kind, Refuse, decide
from agent.station.enrolment import ASKED_MAX, EnrolmentDesk
from agent.station.intake import take_all
from agent.station.store import StationStore
from agent.station.worker import StationWorker
from agent.types import NS
from tests.fakes.broker import FakeBroker, FakeTransport
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk, PowerCut

UTC_NS = 1_790_000_000 * NS


class World:
    """A site, its station, a broker, and the card of gate-2."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(utc_ns=UTC_NS)
        self.root = folder / "ward-7"
        founding.found_site(self.root, name="ward-7", hosts=["hq"], clock=self.clock)
        self.broker = FakeBroker(clock=self.clock)
        data = folder / "data"
        data.mkdir()
        self.store = StationStore(data, clock=self.clock, site="ward-7")
        self.station = StationWorker(
            store=self.store,
            transport=FakeTransport(brokers=[self.broker], clock=self.clock),
            clock=self.clock,
            rng=random.Random(1),
            site="ward-7",
            station="hq",
            brokers=[self.broker.address],
            wait_s_max=0,
            enrolment=EnrolmentDesk(self.root, clock=self.clock, site="ward-7"),
        )
        self.station.open()
        self.provision()

    def provision(self, *, again: bool = False) -> None:
        asked = Asked(node="gate-2", ethernet=True, again=again)
        assert provision(self.root, asked, clock=self.clock, out=lambda _: None) == 0

    def card(self) -> FakeDisk:
        """What `wardpost flash` puts into the identity folder."""
        disk = FakeDisk()
        for name in ("ca.pem", "claim.pem", "claim.key", "claim.toml"):
            disk.put(name, (self.root / "nodes/gate-2/kit" / name).read_bytes())
        return disk

    def enrolment(self, disk: FakeDisk) -> Enrolment:
        claim = load(self.root / "nodes/gate-2/kit/claim.toml", ClaimSettings).claim
        has_claim = "claim.toml" in disk.list("")
        return Enrolment(
            disk=disk, transport=FakeTransport(brokers=[self.broker], clock=self.clock), clock=self.clock,
            rng=random.Random(2), site="ward-7", node="gate-2", claim=claim if has_claim else "",
            brokers=[self.broker.address], wait_s_max=0,
        )  # fmt: skip

    def live(self, one: Enrolment, *, seconds: float = 60.0) -> Enrolment:
        """Card and station, side by side, until the card is through."""
        for _ in range(round(seconds * 4)):
            if one.done or one.refused:
                break
            one.step(self.clock.boot_ns() / NS)
            self.station.step(self.clock.boot_ns() / NS)
            self.clock.advance(0.25)
        return one

    def enrol(self, disk: FakeDisk) -> Enrolment:
        one = self.enrolment(disk)
        one.open()
        return self.live(one)

    def own_certificates(self) -> list[str]:
        register = founding.open_register(open_site(self.root))
        found = [one.serial for one in register.certificates_of("gate-2") if one.kind == "node"]
        register.close()
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = World(tmp_path)
    yield one
    one.station.close()


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world that tests only look at."""
    one = World(tmp_path_factory.mktemp("still"))
    yield one
    one.station.close()


def is_post(disk: FakeDisk) -> None:
    """The card has key and certificate, they fit, and nothing is left of the claim."""
    cert = x509.load_pem_x509_certificate(disk.content("node.pem"))
    key = load_pem_private_key(disk.content("node.key"), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert authority.fits(disk.content("node.pem"), authority=disk.content("ca.pem"), node="gate-2", key=key.public_key()) == ""  # fmt: skip
    assert cert.subject.rfc4514_string() == "CN=gate-2,OU=g1"
    assert set(disk.list("")) - {"node.pem.tmp", "node.key.tmp"} == {"ca.pem", "node.key", "node.pem"}


def test_a_card_becomes_a_post_and_its_key_was_never_anywhere_else(world: World) -> None:
    disk = world.card()
    assert world.enrol(disk).done
    is_post(disk)
    secret = disk.content("node.key").splitlines()[1]
    assert not any(secret in payload for _, payload in world.broker.routed)
    assert not any(secret in path.read_bytes() for path in world.root.rglob("*") if path.is_file())
    register = founding.open_register(open_site(world.root))
    node = register.node("gate-2")
    register.close()
    assert node is not None and node.state == "enrolled"
    assert {topic.rpartition("/")[2] for topic, _ in world.broker.routed} == {"enrol", "enrolled"}


def test_a_lost_answer_is_given_again_and_is_the_same(world: World) -> None:
    disk = world.card()
    one = world.enrolment(disk)
    one.open()
    for _ in range(8):  # the question arrives, the station commits, and the answer never comes
        one.step(world.clock.boot_ns() / NS)
        world.clock.advance(0.25)
    world.broker.lose = 1
    for _ in range(8):
        world.station.step(world.clock.boot_ns() / NS)
        world.clock.advance(0.25)
    first = world.own_certificates()
    assert len(first) <= 1 and not one.done
    assert world.live(one).done
    assert len(world.own_certificates()) == 1
    is_post(disk)


def test_a_power_cut_at_every_step_ends_in_one_post_with_one_certificate(world: World) -> None:
    """The card is cut at step n of its first life, for every n there is; each time it must end as a post."""
    cuts, seed = 0, random.randrange(1 << 32)
    print(f"seed {seed}")
    for at in itertools.count(1):
        if at > 1:
            world.provision(again=True)
        generation = at
        disk, rng = world.card(), random.Random(seed)

        def crash(step: str, at: int = at) -> None:
            if int(step.split(maxsplit=1)[0]) == at:
                raise PowerCut

        disk.crash_point = crash
        try:
            world.enrol(disk)
        except PowerCut:
            cuts += 1
        else:
            break
        disk.crash_point = lambda _step: None
        disk.power_cut(rng.randrange)
        world.clock.advance(60)
        assert world.enrol(disk).done, f"cut at step {at}, seed {seed}"
        for name in ("claim.key", "claim.pem", "claim.toml"):
            assert name not in disk.list("")
        register = founding.open_register(open_site(world.root))
        alive = [c for c in register.certificates_of("gate-2") if c.kind == "node" and c.generation == generation]
        register.close()
        assert len(alive) == 1
    assert cuts >= 15


def test_a_copy_of_the_card_is_refused_with_an_alarm_that_stays(world: World, caplog: pytest.LogCaptureFixture) -> None:
    disk, copy = world.card(), world.card()
    assert world.enrol(disk).done
    thief = world.enrol(copy)
    assert not thief.done and thief.refused.startswith("claim-used:") and "copy of the card of gate-2" in thief.refused
    assert "node.pem" not in copy.list("")
    assert copy.content("refused.txt").decode() == f"{thief.refused}\n", "`wardpost doctor` tells it to who comes later"
    assert any(record.levelname == "ERROR" and "claim-used" in record.message for record in caplog.records)
    register = founding.open_register(open_site(world.root))
    (refusal,) = register.refusals()
    register.close()
    assert (refusal.kind, refusal.node, refusal.count) == ("claim-used", "gate-2", 1)
    assert world.store.rejected == 1  # `wardpost watch` shows it
    assert len(world.own_certificates()) == 1


def test_a_claim_that_has_run_out_or_was_revoked_is_refused(world: World) -> None:
    late = world.card()
    world.clock.advance(15 * 86_400)
    assert world.enrol(late).refused.startswith("claim-expired:")
    old = world.card()
    old.put("refused.txt", b"claim-expired: before it was provisioned again\n")
    before = world.enrolment(old)
    world.provision(again=True)
    before.open()
    assert world.live(before).refused.startswith("revoked:")
    assert world.own_certificates() == []


def test_a_post_that_was_given_up_is_not_given_its_certificate_again(world: World) -> None:
    disk = world.card()
    key_only = world.card()
    assert world.enrol(disk).done
    founding.revoke(open_site(world.root), node="gate-2", serial=None, reason="stolen", clock=world.clock)
    key_only.put("node.key", disk.content("node.key"))
    assert world.enrol(key_only).refused.startswith("revoked:")


def test_an_enrolled_card_asks_nobody(world: World) -> None:
    disk = world.card()
    disk.put("refused.txt", b"revoked: until headquarters thought again\n")
    assert world.enrol(disk).done
    said = len(world.broker.routed)
    again = world.enrolment(disk)
    again.open()
    assert again.done and len(world.broker.routed) == said
    is_post(disk)


def test_without_a_station_the_card_keeps_asking_and_says_what_is_missing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    disk = world.card()
    one = world.enrolment(disk)
    one.open()
    for _ in range(4 * 600):
        one.step(world.clock.boot_ns() / NS)
        world.clock.advance(0.25)
    asked = [topic for topic, _ in world.broker.routed if topic.endswith("/enrol")]
    assert 5 < len(asked) < 600 / sum(ANSWER_S_MAX) * len(ANSWER_S_MAX), "it asks, and does not hammer"
    assert "is it running, with station.register?" in caplog.text
    world.station.close()
    world.station.open()
    assert world.live(one, seconds=180).done


def test_a_certificate_that_is_not_ours_is_not_put_on_the_card(world: World, tmp_path: Path) -> None:
    disk = world.card()
    one = world.enrolment(disk)
    one.open()
    one.step(world.clock.boot_ns() / NS)
    key = load_pem_private_key(disk.content("node.key"), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    digest = founding.of_certificate(
        authority.issue_node(founding.load_authority(open_site(world.root)), "gate-2", 1, key.public_key(), now_ns=UTC_NS),
        "node", UTC_NS,
    ).key_sha256  # fmt: skip
    foreign = authority.make_authority("ward-7", now_ns=UTC_NS)
    ours = founding.load_authority(open_site(world.root))
    wrong = [
        (authority.issue_node(foreign, "gate-2", 1, key.public_key(), now_ns=UTC_NS), digest),
        (authority.issue_node(ours, "gate-3", 1, key.public_key(), now_ns=UTC_NS), digest),
        (authority.issue_node(ours, "gate-2", 1, authority.new_key().public_key(), now_ns=UTC_NS), digest),
        (authority.issue_node(ours, "gate-2", 1, key.public_key(), now_ns=UTC_NS), "0" * 64),
    ]
    topic = next(topic for topic, _ in world.broker.routed if topic.endswith("/enrol")).replace("/enrol", "/enrolled")
    answers = [
        wire.encode(wire.Enrolled(state="done", key=d, cert=authority.certificate_pem(c).decode())) for c, d in wrong
    ]
    for payload in (*answers, b"rubbish", b"{}", wire.encode(wire.Enrolled(state="failed", detail="disk"))):
        world.broker.publish(topic, payload)
        one.step(world.clock.boot_ns() / NS)
    assert not one.done and "node.pem" not in disk.list("") and "claim.key" in disk.list("")
    assert world.live(one).done


def test_a_card_without_claim_or_with_a_damaged_one_is_told_to_the_technician(world: World) -> None:
    for name, says in (("claim.toml", "no claim to get one by"), ("claim.key", "no key of a claim")):
        disk = world.card()
        disk.unlink(name)
        with pytest.raises(ConfigError, match=says):
            world.enrolment(disk).open()
    disk = world.card()
    disk.put("claim.key", b"\0" * 300)
    with pytest.raises(ConfigError, match="provision the post with --again"):
        world.enrolment(disk).open()
    rotten = world.card()
    rotten.put("node.key", b"")  # zero bytes after a cut of somebody else's making
    assert world.enrol(rotten).done
    is_post(rotten)


def test_a_full_card_is_waited_for(world: World) -> None:
    disk = world.card()
    disk.fill(free_bytes=10)
    one = world.enrolment(disk)
    with pytest.raises(Transient):
        one.open()
    disk.fill(free_bytes=100_000)
    one.open()
    assert world.live(one).done


def test_a_register_in_trouble_costs_the_card_time_and_the_station_nothing(world: World) -> None:
    disk = world.card()
    one = world.enrolment(disk)
    one.open()
    (world.root / "register.db").write_bytes(b"x" * 8192)
    world.live(one, seconds=20)
    assert not one.done and not one.refused
    assert world.station.broker is not None  # the station goes on


def test_who_asks_too_often_is_not_answered(world: World) -> None:
    desk = EnrolmentDesk(world.root, clock=world.clock, site="ward-7")
    desk.open()
    answers = [desk.answer("claim-aaaaaaaa", b"{}") for _ in range(ASKED_MAX + 3)]
    assert [answer is None for answer in answers] == [False] * ASKED_MAX + [True] * 3
    assert desk.answer("claim-bbbbbbbb", b"{}") is not None
    world.clock.advance(60)
    assert desk.answer("claim-aaaaaaaa", b"{}") is not None
    desk.close()


def test_a_claim_says_nothing_else_to_the_station() -> None:
    topics = wire.Topics("ward-7", "claim-abcdefgh")
    for topic in (topics.status, topics.heartbeat, topics.event("person"), topics.events, topics.record):
        taken, refusal = take_all(topic, b"[{}]", site="ward-7")
        assert taken == [] and refusal is not None and "is a claim" in refusal.reason


def test_a_post_cannot_enrol_in_its_own_name(world: World) -> None:
    node = FakeTransport(brokers=[world.broker], clock=world.clock)
    from agent.uplink import Hello

    world.station.step(world.clock.boot_ns() / NS)
    world.station.step(world.clock.boot_ns() / NS)
    node.connect(world.broker.address, Hello("x"))
    node.publish(wire.Topics("ward-7", "gate-2").enrol, b"{}", qos=1)
    world.station.step(world.clock.boot_ns() / NS)
    assert world.store.rejected == 1


# -- the decision itself ----------------------------------------------------------------------------------------------


def facts(world: World) -> Facts:
    register = founding.open_register(open_site(world.root))
    (claim,) = register.claims_of("gate-2")
    own = next(one for one in register.certificates_of("gate-2") if one.kind == "claim")
    found = Facts(claim=claim, own=own, node=register.node("gate-2"))
    register.close()
    return found


def asked(world: World, node: str = "gate-2", *, key: ec.EllipticCurvePrivateKey | None = None) -> wire.Enrol:
    request = wire.Enrol(csr=authority.make_csr(node, key or authority.new_key()).decode(), proof="")
    return wire.Enrol(csr=request.csr, proof=signed(world, request))


def signed(world: World, request: wire.Enrol, site: str = "ward-7") -> str:
    claim_key = load_pem_private_key((world.root / "nodes/gate-2/kit/claim.key").read_bytes(), password=None)
    assert isinstance(claim_key, ec.EllipticCurvePrivateKey)
    name = facts(world).claim
    assert name is not None
    return base64.b64encode(claim_key.sign(request.proof_bytes(site, name.claim), ec.ECDSA(hashes.SHA256()))).decode()


Twist = Callable[[World, wire.Enrol, Facts], tuple[wire.Enrol, Facts]]


@pytest.mark.parametrize(
    ("kind", "twist"),
    [
        (Kind.UNKNOWN, lambda _w, a, _f: (a, Facts())),
        (Kind.PROOF, lambda _w, a, f: (wire.Enrol(csr=a.csr, proof=""), f)),
        (Kind.PROOF, lambda _w, a, f: (wire.Enrol(csr=a.csr, proof="bm8="), f)),
        (Kind.PROOF, lambda w, a, f: (wire.Enrol(csr=a.csr, proof=signed(w, a, site="ward-8")), f)),
        (Kind.PROOF, lambda w, a, f: (wire.Enrol(csr=asked(w).csr, proof=a.proof), f)),
        (Kind.REQUEST, lambda w, _a, f: (asked(w, "gate-3"), f)),
        (Kind.EXPIRED, lambda _w, a, f: (a, replace(f, claim=replace(f.claim, expires_utc_ns=UTC_NS)))),
        (Kind.REVOKED, lambda _w, a, f: (a, replace(f, own=replace(f.own, revoked_utc_ns=1)))),
        (Kind.REVOKED, lambda _w, a, f: (a, replace(f, node=replace(f.node, state="revoked")))),
        (Kind.REVOKED, lambda _w, a, f: (a, replace(f, node=replace(f.node, generation=2)))),
        (Kind.USED, lambda _w, a, f: (a, replace(f, claim=replace(f.claim, used_by="0" * 64, serial="1")))),
    ],
)
def test_each_wrong_question_has_its_answer(still: World, kind: Kind, twist: Twist) -> None:
    right, found = asked(still), facts(still)
    assert found.claim is not None
    fine = decide(right, site="ward-7", name=found.claim.claim, facts=found, now_utc_ns=UTC_NS + 1)
    assert isinstance(fine, Issue) and (fine.node, fine.generation) == ("gate-2", 1)
    request, facts_ = twist(still, right, found)
    answer = decide(request, site="ward-7", name=found.claim.claim, facts=facts_, now_utc_ns=UTC_NS + 1)
    assert isinstance(answer, Refuse) and answer.kind is kind, answer


def test_the_same_key_is_given_the_same_certificate_even_after_the_claim_has_run_out(world: World) -> None:
    key = authority.new_key()
    request, found = asked(world, key=key), facts(world)
    assert found.claim is not None
    ca = founding.load_authority(open_site(world.root))
    given = founding.of_certificate(
        authority.issue_node(ca, "gate-2", 1, key.public_key(), now_ns=UTC_NS),
        "node",
        UTC_NS,
        node="gate-2",
        generation=1,
    )
    used = replace(found, given=given, claim=replace(found.claim, used_by=given.key_sha256, serial=given.serial))
    later = UTC_NS + 400 * 86_400 * NS
    assert decide(request, site="ward-7", name=found.claim.claim, facts=used, now_utc_ns=later) == Give(given)


def test_the_desk_serves_its_own_site_only(world: World) -> None:
    with pytest.raises(ConfigError, match=r"is site ward-7, this is ward-8"):
        EnrolmentDesk(world.root, clock=world.clock, site="ward-8").open()
    (world.root / "ca/ca.key").write_bytes(b"")
    with pytest.raises(Corrupt):
        EnrolmentDesk(world.root, clock=world.clock, site="ward-7").open()


def test_what_the_command_says_when_there_is_nothing_to_enrol(tmp_path: Path) -> None:
    from agent.enrolling import enrol

    config, folder = tmp_path / "node.toml", tmp_path / "identity"
    folder.mkdir()

    def refused(says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            enrol(config, wait_s=1, clock=FakeClock(), stop=threading.Event(), out=print)

    def write(tls: str) -> None:
        config.write_text(
            f'[node]\nsite = "ward-7"\nid = "gate-2"\ndata = "{tmp_path}"\n[camera]\n'
            f'[uplink]\nbrokers = ["mqtts://127.0.0.1:1"]\n{tls}'
        )

    write("")
    refused("nothing to enrol")
    write(f'[uplink.tls]\nca = "{folder}/ca.pem"\ncert = "{folder}/node.pem"\nkey = "{folder}/node.key"\n')
    refused("no claim to get one by")
    (folder / "claim.toml").write_text('node = "gate-3"\nsite = "ward-7"\nclaim = "claim-abcdefgh"\n')
    refused("files of two posts")
    assert stat.S_ISDIR(folder.stat().st_mode) and [p.name for p in folder.iterdir()] == ["claim.toml"]
