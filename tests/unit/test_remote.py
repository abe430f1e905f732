"""`wardpost update`, `signal`, `doctor --node`: what a person at the station sees of a node that answers, fails, or is dark."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent import remote, wire
from agent.cli import main
from agent.clock import rfc3339
from agent.doctor.rules import Diagnosis, Urgency, as_reply, in_words
from agent.errors import ConfigError, Corrupt
from agent.overrides import with_values
from agent.remote import Announced
from agent.station.main import BrokerSettings, DeskSettings, StationSettings
from agent.types import NS, UtcReading
from tests.fakes.release import KEY as RELEASE_KEY
from tests.fakes.release import bundle_bytes
from tests.unit.test_orders import KEY, TOPICS, Desk
from tests.unit.test_uplink import beat

BUNDLE = Announced(42, "https://files.example/42.zip", 1000, "a" * 64)
NODE_TOML = """# of the gate
[node]
site = "ward-7"
id = "gate-2"
data = "/var/lib/wardpost"

[camera]
driver = "stream"
url = "rtsp://camera/1"

[uplink]
brokers = ["mqtt://hq"]  # the only one

[vision]
score_min = 0.4
"""


class Waiting:
    """The clock of the command: while it waits, the station works and the node does what the test says."""

    def __init__(self, desk: Desk, node: Callable[[wire.Command], None]) -> None:
        self._desk, self._node = desk, node
        self.got: list[wire.Command] = []

    @property
    def boot_id(self) -> str:
        return self._desk.clock.boot_id

    def boot_ns(self) -> int:
        return self._desk.clock.boot_ns()

    def utc(self) -> UtcReading:
        return self._desk.clock.utc()

    def wait(self, _event: threading.Event, timeout_s: float) -> bool:
        for command in self._desk.run(timeout_s):
            self.got.append(command)
            self._node(command)
        return False


class Beat:
    session = 1
    outbox_rows = 0


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.worker.close()
    desk.book.close()


@pytest.fixture
def settings(tmp_path: Path) -> StationSettings:
    key = tmp_path / "hq.pem"
    key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return StationSettings(
        station=DeskSettings(site="ward-7", id="hq", data=str(tmp_path), command_key=str(key)),
        broker=BrokerSettings(brokers=("mqtt://127.0.0.1:1",)),
    )


def test_an_update_is_followed_from_acceptance_to_its_end(at: Desk, settings: StationSettings) -> None:
    at.run(2)
    at.appear()
    at.run(5)
    said: list[str] = []

    def node(command: wire.Command) -> None:
        for state, summary in (("accepted", "release 42: begins"), ("accepted", "50 % fetched"), ("done", "staged")):
            reply = wire.Reply(id=command.id, state=state, result={"summary": summary})  # type: ignore[arg-type]
            at.node.publish(TOPICS.reply(command.id), wire.encode(reply), qos=1)
            at.run(1)

    clock = Waiting(at, node)
    code = remote.update(settings, ["gate-2"], BUNDLE, wait_s=60, as_json=False, clock=clock, out=said.append)
    assert code == 0
    assert said[-1] == "gate-2: done: staged"
    assert [c.verb for c in clock.got] == ["update"] and clock.got[0].args == BUNDLE.args()


def test_progress_is_shown_while_it_lasts_and_the_command_ends_before_the_update_does(
    at: Desk, settings: StationSettings
) -> None:
    at.run(2)
    at.appear()
    at.run(5)
    said: list[str] = []

    def node(command: wire.Command) -> None:
        reply = wire.Reply(id=command.id, state="accepted", result={"summary": "25 % fetched"})
        at.node.publish(TOPICS.reply(command.id), wire.encode(reply), qos=1)

    clock = Waiting(at, node)
    assert remote.update(settings, ["gate-2"], BUNDLE, wait_s=10, as_json=False, clock=clock, out=said.append) == 0
    assert said[0] == "gate-2: accepted: 25 % fetched"
    assert "goes on" in said[-1]


def test_a_refusal_is_shown_and_is_an_exit_code(at: Desk, settings: StationSettings) -> None:
    at.run(2)
    at.appear()
    at.run(5)
    said: list[str] = []

    def node(command: wire.Command) -> None:
        reply = wire.Reply(id=command.id, state="failed", detail="release 41 is being tried")
        at.node.publish(TOPICS.reply(command.id), wire.encode(reply), qos=1)

    code = remote.update(
        settings, ["gate-2"], BUNDLE, wait_s=60, as_json=False, clock=Waiting(at, node), out=said.append
    )
    assert (code, said[-1]) == (1, "gate-2: failed: release 41 is being tried")


def test_for_a_dark_node_it_is_queued_and_goes_out_when_it_is_heard(at: Desk, settings: StationSettings) -> None:
    said: list[str] = []
    clock = Waiting(at, lambda _: None)
    began_ns = at.clock.boot_ns()
    assert remote.update(settings, ["gate-2"], BUNDLE, wait_s=60, as_json=False, clock=clock, out=said.append) == 0
    assert "queued, for it was never heard here" in said[-1] and at.clock.boot_ns() == began_ns, "nobody waits for it"
    at.run(2)
    at.appear()
    assert [c.verb for c in at.run(5)] == ["update"]


def test_a_hold_does_not_wait_for_an_update_that_is_downloaded_for_days(at: Desk, settings: StationSettings) -> None:
    remote.update(
        settings, ["gate-2"], BUNDLE, wait_s=0, as_json=False, clock=Waiting(at, lambda _: None), out=lambda _: None
    )
    at.ask("hold", {"reason": "theft"})
    at.run(2)
    at.appear()
    assert {c.verb for c in at.run(5)} == {"update", "hold"}


# -- the bundle -------------------------------------------------------------------------------------------------------


def test_figures_are_read_from_the_bundle_and_a_foreign_one_is_not_announced(
    settings: StationSettings, tmp_path: Path
) -> None:
    data = bundle_bytes(tmp_path, 7)
    file = tmp_path / "release-7.zip"
    key = RELEASE_KEY.public.hex()

    def of(**changes: object) -> Announced:
        asked = {"bundle": file, "url": "https://x/7", "number": None, "size": None, "sha256": "", "key": key}
        return remote.announced(settings, **(asked | changes))  # type: ignore[arg-type]

    assert of() == Announced(7, "https://x/7", len(data), hashlib.sha256(data).hexdigest())
    with pytest.raises(ConfigError, match=r"--number 8.* says 7"):
        of(number=8)
    with pytest.raises(Corrupt, match="not signed by this site's release key"):
        of(key="ab" * 32)
    with pytest.raises(ConfigError, match="give --key"):
        of(key="")
    assert of(key="", number=7).number == 7
    with pytest.raises(ConfigError, match="--url"):
        of(url="http://x/7")
    with pytest.raises(ConfigError, match="--number, --bytes and --sha256"):
        of(bundle=None)
    with pytest.raises(ConfigError, match="--sha256"):
        of(bundle=None, number=7, size=9, sha256="xyz")
    site = tmp_path / "site/release"
    site.mkdir(parents=True)
    (site / "release.pub").write_bytes(_pem())
    known = msgspec.structs.replace(
        settings, station=msgspec.structs.replace(settings.station, register=str(tmp_path / "site"))
    )
    found = remote.announced(known, bundle=file, url="https://x/7", number=None, size=None, sha256="", key="")
    assert found.number == 7


def _pem() -> bytes:
    from agent.evidence import keys

    return keys.public_pem(RELEASE_KEY.public)


def test_the_commands_answer_in_one_line_whatever_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    config = tmp_path / "station.toml"
    config.write_text(
        f'[station]\nsite = "ward-7"\nid = "hq"\ndata = "{data}"\n[broker]\nbrokers = ["mqtt://127.0.0.1:1"]\n'
    )
    figures = ["--url", "https://x/7", "--number", "7", "--bytes", "9", "--sha256", "a" * 64]
    for words, why in (
        (["update", *figures, "gate-2"], "station.command_key: not set"),
        (["update", *figures, "Gate 2"], "a node's id is"),
        (["configure", "--set", "vision.score_min=0.5"], "name the NODE"),
        (["signal", "gate-2", "siren", "10"], "give --reason"),
        (["signal", "gate-2", "lamp", "9999", "--reason", "x"], "0 to 3600"),
        (["configure", "gate-2", "--file", str(tmp_path / "absent")], "cannot be read"),
    ):
        assert main([words[0], "--config", str(config), *words[1:]]) == 78
        assert why in capsys.readouterr().err


def test_answers_as_json(at: Desk, settings: StationSettings) -> None:
    at.run(2)
    at.appear()
    at.run(5)
    said: list[str] = []
    clock = Waiting(at, at.answer)
    remote.update(settings, ["gate-2"], BUNDLE, wait_s=60, as_json=True, clock=clock, out=said.append)
    (row,) = json.loads("\n".join(said))
    assert (row["node"], row["state"], row["answer"]["result"]["summary"]) == ("gate-2", "done", "kept")


# -- for now, or not at all -------------------------------------------------------------------------------------------


def run_signal(settings: StationSettings, clock: Waiting, said: list[str], seconds: float = 10) -> int:
    return remote.signal(
        settings,
        "gate-2",
        "siren",
        seconds,
        reason="somebody climbs over",
        by="Mai",
        wait_s=20,
        as_json=False,
        clock=clock,
        out=said.append,
    )


def test_a_siren_is_sent_once_and_never_later(at: Desk, settings: StationSettings) -> None:
    said: list[str] = []
    at.run(2)
    silent = Waiting(at, lambda _: None)
    assert run_signal(settings, silent, said) == 1, "never heard: it is not even queued"
    assert "no answer" in said[0] and "never heard it" in said[0] and silent.got == []
    at.appear()
    at.run(5)
    assert run_signal(settings, silent, said) == 1, "heard, but it does not answer"
    assert [c.verb for c in silent.got] == ["siren"], "once"
    assert at.run(120) == [], "and a siren that nobody waits for any more does not sound later"
    assert "it is not asked again" in said[1]
    assert at.book.of("gate-2")[0].state == "expired"


def test_a_siren_that_sounds_one_that_is_refused_and_one_that_is_ended(at: Desk, settings: StationSettings) -> None:
    at.run(2)
    at.appear()
    at.run(5)
    said: list[str] = []

    def node(command: wire.Command) -> None:
        on = command.args["seconds"] > 0
        reply = wire.Reply(id=command.id, state="done", result={"seconds": 10.0, "summary": "siren on for 10 s"})
        if not on:
            reply = wire.Reply(id=command.id, state="failed", detail="panel.siren: nothing is wired there")
        at.node.publish(TOPICS.reply(command.id), wire.encode(reply), qos=1)

    clock = Waiting(at, node)
    assert run_signal(settings, clock, said) == 0
    assert clock.got[0].args == {"seconds": 10, "reason": "somebody climbs over", "by": "Mai"}
    assert run_signal(settings, clock, said, 0) == 1
    assert said == ["gate-2: done: siren on for 10 s", "gate-2: failed: panel.siren: nothing is wired there"]
    life_s = (at.book.of("gate-2")[0].expires_utc_ns - at.book.of("gate-2")[0].asked_utc_ns) / NS
    assert life_s == remote.NOW_LIFE_S


def test_a_hold_does_not_wait_behind_a_question(at: Desk, settings: StationSettings) -> None:
    at.run(2)
    at.appear()
    at.run(5)
    said: list[str] = []
    at.ask("hold", {"reason": "theft"})  # which the node leaves unanswered
    clock = Waiting(at, lambda c: at.answer(c) if c.verb == "siren" else None)
    assert run_signal(settings, clock, said) == 0
    assert {c.verb for c in clock.got} >= {"siren"}


def test_the_doctor_of_a_node_says_at_the_station_what_it_says_on_the_spot(at: Desk, settings: StationSettings) -> None:
    at.run(2)
    at.appear()
    at.run(5)
    found = [Diagnosis(Urgency.NOW, "camera", "The camera gives no pictures", "the cable", "push it in")]
    told = as_reply(found)

    def node(command: wire.Command) -> None:
        reply = wire.Reply(id=command.id, state="done", result=told)
        at.node.publish(TOPICS.reply(command.id), wire.encode(reply), qos=1)

    said: list[str] = []
    clock = Waiting(at, node)
    assert remote.doctor(settings, "gate-2", wait_s=20, as_json=False, clock=clock, out=said.append) == 1
    assert said == [in_words(told)] and [c.verb for c in clock.got] == ["doctor"]
    clock = Waiting(at, node)
    told = as_reply([])
    assert remote.doctor(settings, "gate-2", wait_s=20, as_json=True, clock=clock, out=said.append) == 0
    assert json.loads(said[1])["well"]


def test_of_a_dark_post_the_station_tells_when_it_was_heard_and_what_it_said_then(
    at: Desk, settings: StationSettings
) -> None:
    at.run(2)
    at.appear()
    told = beat(Beat(), at.clock)  # type: ignore[arg-type]
    told = msgspec.structs.replace(
        told,
        machine=msgspec.structs.replace(
            told.machine, uptime_s=7200.0, temperature_c=84.0, throttled=["under-voltage now"]
        ),
        release=wire.ReleaseState(number=3, tried=4, phase="trying"),
        settings=wire.SettingsState(revision=6, trial=7),
    )
    at.node.publish(TOPICS.heartbeat, wire.encode(told), qos=0)
    mains = cloud_event(at, "mains", "Mains power lost; running on the battery")
    at.node.publish(TOPICS.event("mains"), wire.encode(mains), qos=1)
    at.run(5)
    at.node.disconnect()
    at.run(1200)
    said: list[str] = []
    began_ns = at.clock.boot_ns()
    clock = Waiting(at, lambda _: None)
    assert remote.doctor(settings, "gate-2", wait_s=20, as_json=False, clock=clock, out=said.append) == 1
    assert at.clock.boot_ns() == began_ns, "nobody waits for a post that is known to be dark"
    (text,) = said
    for part in (
        "gate-2: did not answer",
        "it is dark; last heard 20",
        "20 min ago",
        "fell silent without a goodbye",
        "up for 2 h",
        "power: under-voltage now",
        "hot: 84 C",
        "release 4 was on trial",
        "settings, revision 7, were on trial",
        "Mains power lost",
    ):
        assert part in text, text
    said.clear()
    remote.doctor(settings, "gate-2", wait_s=20, as_json=True, clock=clock, out=said.append)
    assert json.loads(said[0])["well"] is None and json.loads(said[0])["state"] == "dark"


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("", "it was stopped, or the broker lost it"),
        (wire.LOST, "it said no goodbye, its connection died"),
        (wire.STOPPED, "it said goodbye: it was stopped in order"),
        (wire.UPDATE, "it was restarting for an update"),
        (wire.SETTINGS, "settings were on trial: it was restarting for them"),
        ("of-a-newer-agent", "it said goodbye: it was stopped in order"),
    ],
)
def test_of_a_post_that_has_left_the_station_tells_why_in_its_own_word(
    at: Desk, settings: StationSettings, reason: str, says: str
) -> None:
    at.run(2)
    at.appear()
    at.node.publish(TOPICS.heartbeat, wire.encode(beat(Beat(), at.clock)), qos=0)  # type: ignore[arg-type]
    gone = wire.Status(state="offline", node="gate-2", bootid="f" * 32, session=1, reason=reason)
    at.node.publish(TOPICS.status, wire.encode(gone), qos=1, retain=True)
    at.run(5)
    at.node.disconnect()
    at.run(1200)
    said: list[str] = []
    clock = Waiting(at, lambda _: None)
    assert remote.doctor(settings, "gate-2", wait_s=20, as_json=False, clock=clock, out=said.append) == 1
    assert says in said[0], said[0]


def cloud_event(at: Desk, kind: str, summary: str) -> wire.CloudEvent:
    name = "01900000-0000-7000-8000-0000000000aa"
    return wire.CloudEvent(
        id=name,
        source="wardpost/ward-7/gate-2",
        type=f"wardpost.{kind}",
        subject=name,
        time=rfc3339(at.clock.utc().utc_ns),
        epoch="01900000-0000-7000-8000-0000000000ee",
        sequence=1,
        session=1,
        bootid="f" * 32,
        monons=1,
        timeerrms=None,
        data=wire.EventData(incident=name, phase="started", severity="alert", summary=summary),
    )


# -- single values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("vision.score_min=0.5", "score_min = 0.5"),
        ("vision.detector.driver=none", '[vision.detector]\ndriver = "none"'),
        ("node.place=At the gate", 'place = "At the gate"'),
        ('uplink.brokers=["mqtt://a", "mqtt://b"]', 'brokers = ["mqtt://a", "mqtt://b"]'),
        ("camera.loop=true", "loop = true"),
        ('node.place=x"\n[panel]', 'place = "x\\"\\n[panel]"'),
    ],
)
def test_a_value_is_set_and_the_rest_stays(asked: str, line: str) -> None:
    changed = with_values(NODE_TOML, [asked])
    assert line in changed and changed.startswith("# of the gate\n")
    assert with_values(changed, [asked]) == changed


@pytest.mark.parametrize("asked", ["vision", "vision.score_min", "=3", "score_min=3", "node.id.x=3", "Vision.x=1"])
def test_what_is_no_value_is_refused(asked: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        with_values(NODE_TOML, [asked])


def test_a_file_of_an_unusual_form_is_refused_and_not_half_changed() -> None:
    text = 'vision.score_min = 0.4\n[node]\ntext = """\n[vision]\nscore_min = 1\n"""\n'
    with pytest.raises(ConfigError, match="use --file"):
        with_values(text, ["vision.score_min=0.5"])
