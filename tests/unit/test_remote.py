"""`wardpost update` and `configure`: what a person at the station sees of a node that answers, fails, or is dark."""

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
from agent.errors import ConfigError, Corrupt
from agent.overrides import with_values
from agent.remote import Announced
from agent.station.main import BrokerSettings, DeskSettings, StationSettings
from agent.types import UtcReading
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


def reports(at: Desk, settings: wire.SettingsState | None) -> None:
    """The node's heartbeat, as it says which settings it has."""
    told = msgspec.structs.replace(beat(Beat(), at.clock), settings=settings)  # type: ignore[arg-type]
    at.node.publish(TOPICS.heartbeat, wire.encode(told), qos=0)
    at.run(1)


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


def test_settings_go_out_with_the_next_revision_and_never_what_the_node_would_refuse(
    at: Desk, settings: StationSettings, tmp_path: Path
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(NODE_TOML, encoding="utf-8")
    at.run(2)
    at.appear()
    at.run(5)
    clock = Waiting(at, at.answer)

    def configure(values: list[str], given: Path | None, said: list[str]) -> int:
        return remote.configure(
            settings,
            "gate-2",
            file=given,
            values=values,
            revision=None,
            wait_s=20,
            as_json=False,
            clock=clock,
            out=said.append,
        )

    said: list[str] = []
    with pytest.raises(ConfigError, match="has never told which settings it has"):
        configure(["vision.score_min=0.5"], None, said)
    reports(at, wire.SettingsState(revision=0, seen=6))
    with pytest.raises(ConfigError, match="score_min"):
        configure(["vision.score_min=7"], file, said)
    with pytest.raises(ConfigError, match="not of ward-7/gate-2"):
        configure(["node.id=gate-3"], file, said)
    assert clock.got == []
    assert configure(["vision.score_min=0.5"], file, said) == 0
    assert clock.got[-1].args["revision"] == 7, "6 was given up there: it is never used again"
    assert "score_min = 0.5" in clock.got[-1].args["toml"] and "# of the gate" in clock.got[-1].args["toml"]
    # What it reports to have is what the next change starts from.
    reports(at, wire.SettingsState(revision=7, seen=7))
    assert configure(["uplink.ack_timeout_s=20"], None, said) == 0
    assert clock.got[-1].args["revision"] == 8
    assert "score_min = 0.5" in clock.got[-1].args["toml"] and "ack_timeout_s = 20" in clock.got[-1].args["toml"]
    reports(at, wire.SettingsState(revision=9, seen=9))
    with pytest.raises(ConfigError, match="revision 9, not sent from here"):
        configure(["vision.score_min=0.5"], None, said)


def test_the_settings_of_the_card_are_known_where_the_sites_register_is(
    at: Desk, settings: StationSettings, tmp_path: Path
) -> None:
    kit = tmp_path / "site/nodes/gate-2"
    kit.mkdir(parents=True)
    (kit / "node.toml").write_text(NODE_TOML, encoding="utf-8")
    with_site = msgspec.structs.replace(
        settings, station=msgspec.structs.replace(settings.station, register=str(tmp_path / "site"))
    )
    at.run(2)
    at.appear()
    reports(at, wire.SettingsState(revision=0))
    clock = Waiting(at, at.answer)
    remote.configure(
        with_site,
        "gate-2",
        file=None,
        values=["vision.score_min=0.3"],
        revision=None,
        wait_s=20,
        as_json=True,
        clock=clock,
        out=lambda _: None,
    )
    assert clock.got[-1].args == {"revision": 1, "toml": NODE_TOML.replace("0.4", "0.3")}


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
        (["configure", "gate-2"], "give --file node.toml"),
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
