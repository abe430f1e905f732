"""`wardpost doctor`, looking: what is read off real folders, certificates, locks and stores, also when they are sick."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from agent.boot import STORE_NAME
from agent.clock import SystemClock, rfc3339, uuid7_maker
from agent.config import Config, load
from agent.disk import PosixDisk
from agent.doctor import desk, gather
from agent.doctor.facts import Service, Trials
from agent.doctor.rules import Urgency, diagnose
from agent.errors import ConfigError, Transient
from agent.folder import LOCK_NAME, DataLock
from agent.machine import Machine
from agent.recording.coverage import Stretch
from agent.recording.timeline import Timeline
from agent.release import plan, slots
from agent.release.settings import ConfigState, Trial
from agent.release.settings_desk import write_state
from agent.store.store import Origin, SessionRow, Store
from agent.types import NS, Event, Kind, Phase, Priority, Sign, TimeAnchor
from tests.fakes.clock import FakeClock
from tests.fakes.evidence_post import NODE, EvidencePost
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401

CLOCK = SystemClock()


def settings(tmp_path: Path, extra: str = "", uplink: str = "", data: Path | None = None) -> Path:
    for name in ("model.tflite", "labels.txt"):
        (tmp_path / name).write_text("x")
    path = tmp_path / "node.toml"
    path.write_text(
        f'[node]\nsite = "s"\nid = "n"\ndata = "{data or tmp_path / "data"}"\n'
        '[camera]\ndriver = "stream"\nurl = "film.mp4"\n'
        f'[vision.detector]\nmodel = "{tmp_path}/model.tflite"\nlabels = "{tmp_path}/labels.txt"\n'
        f'[uplink]\nbrokers = ["mqtt://127.0.0.1:1"]\n{uplink}\n{extra}\n'
    )
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    return made


def make_store(folder: Path) -> Store:
    store = Store(
        folder / STORE_NAME,
        clock=CLOCK,
        new_id=uuid7_maker(CLOCK),
        origin=Origin("s", "n"),
        outbox_rows_max=1000,
        event_rows_max=1000,
    )
    store.open()
    store.start_session()
    return store


def event(kind: Kind, phase: Phase, incident: str, summary: str) -> Event:
    return Event(incident, kind, phase, CLOCK.boot_ns(), Priority.ALERT, summary)


def asked(path: Path, service: Service | None = None) -> tuple[int, dict[str, Any]]:
    lines: list[str] = []
    code = desk.doctor(path, as_json=True, out=lines.append, machine=Machine(root=path.parent), service=lambda: service)
    found: dict[str, Any] = json.loads(lines[0])
    return code, found


def said(found: dict[str, Any], part: str = "agent") -> str:
    return " | ".join(f"{one['what']} {one['why']}" for one in found["diagnoses"] if one["part"] == part)


# -- a post that does not run ----------------------------------------------------------------------------------------


def test_a_card_on_which_nothing_ever_ran_is_left_as_it_is(tmp_path: Path, folder: Path) -> None:
    """A lock that a technician's command made as root would keep the agent out for ever."""
    code, found = asked(settings(tmp_path))
    assert code == 1 and "never run" in said(found)
    assert list(folder.iterdir()) == []


def test_a_missing_and_a_forbidden_folder_are_named(tmp_path: Path, folder: Path) -> None:
    code, found = asked(settings(tmp_path, data=tmp_path / "nowhere"))
    assert code == 1 and f"{tmp_path / 'nowhere'}: No such file" in said(found)
    if os.geteuid() != 0:
        folder.chmod(0o500)
        assert "may not be written by this user" in said(asked(settings(tmp_path))[1])


def test_how_it_ended_and_what_waits_is_read_from_the_store(tmp_path: Path, folder: Path) -> None:
    DataLock(folder).take(CLOCK).release()
    store = make_store(folder)
    store.commit([event(Kind.NODE, Phase.ENDED, uuid7_maker(CLOCK)(), "x")])
    store.stop_session("exit 78")
    store.close()
    before = {path.name for path in folder.iterdir()}
    code, found = asked(settings(tmp_path), Service("failed", restarts=3, exit_code=78))
    assert code == 1
    assert "its settings or its machine wrong (exit 78)" in said(found) and "started again 3 times" in said(found)
    assert before == {LOCK_NAME, STORE_NAME}
    made = {path.name for path in folder.iterdir()} - before - {f"{STORE_NAME}-wal"}
    assert made == set(), "a folder that root makes here is one that the agent cannot write to"
    facts = gather.stopped_facts(
        load(settings(tmp_path), Config), said="", clock=CLOCK, machine=Machine(root=tmp_path), service=lambda: None
    )
    assert facts.outbox is not None and facts.outbox.rows == 1
    assert facts.starts == 1 and facts.unasked == ()
    with DataLock(folder).take(CLOCK):  # it has let go of the folder
        pass


def test_who_holds_the_folder_and_does_not_answer_is_named(tmp_path: Path, folder: Path) -> None:
    with DataLock(folder).take(CLOCK):
        code, found = asked(settings(tmp_path))
    assert code == 1 and f"process {os.getpid()} works on" in said(found)


def test_a_store_that_rots_is_told_and_the_rest_as_well(tmp_path: Path, folder: Path) -> None:
    DataLock(folder).take(CLOCK).release()
    make_store(folder).close()
    (folder / STORE_NAME).write_bytes(os.urandom(8192))
    code, found = asked(settings(tmp_path))
    assert code == 1 and "memory" in said(found) and "not a database" in said(found)
    assert (folder / STORE_NAME).exists()


def test_a_store_that_has_gone_back_in_time_is_told(tmp_path: Path, folder: Path) -> None:
    """Damage to SQLite's write-ahead log is silent: only the ledger knows what the store has lost."""
    folder.rmdir()
    post = EvidencePost(folder)
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"store.db{suffix}", tmp_path / f"then{suffix}")
    post.feed(encoded(seconds=3))
    post.seal()
    post.post.store.close()
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"then{suffix}", folder / f"{STORE_NAME}{suffix}")
    DataLock(folder).take(CLOCK).release()
    site, _, node = NODE.partition("/")
    path = settings(tmp_path)
    path.write_text(path.read_text().replace('site = "s"\nid = "n"', f'site = "{site}"\nid = "{node}"'))
    assert "it has lost what was committed last" in said(asked(path)[1])


def test_what_a_start_would_refuse_is_all_told_at_once(tmp_path: Path, folder: Path) -> None:
    uplink = f'command_key = "{tmp_path}/no.pub"\nstation_key = "{tmp_path}/neither.pub"'
    path = settings(tmp_path, f'[recording]\nseal_key = "{tmp_path}/seal.pub"', uplink)
    path.write_text(path.read_text().replace('url = "film.mp4"', ""))
    found = gather.objections(load(path, Config))
    assert [text.partition(":")[0] for text in found] == [
        "uplink.station_key",
        "uplink.command_key",
        "recording.seal_key",
        "camera.url",
    ]
    assert "cannot start" in said(asked(path)[1]) and folder.exists()
    assert gather.objections(load(settings(tmp_path), Config)) == ()


def test_a_model_that_is_not_there_is_told_before_the_start(tmp_path: Path, folder: Path) -> None:
    path = settings(tmp_path)
    (tmp_path / "model.tflite").unlink()
    assert "model.tflite is missing" in said(asked(path)[1], "detector")
    assert folder.exists()


def test_a_file_that_is_wrong_is_for_check(tmp_path: Path) -> None:
    path = settings(tmp_path)
    path.write_text(path.read_text() + "\n[camra]\n")
    with pytest.raises(ConfigError, match="camra"):
        asked(path)


# -- certificates ----------------------------------------------------------------------------------------------------

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


def certificate(path: Path, *, days: float, since_days: float = 10) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "n")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=since_days))
        .not_valid_after(NOW + dt.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(Encoding.PEM))


def test_the_certificate_from_claim_to_expiry(tmp_path: Path) -> None:
    clock = FakeClock(utc_ns=int(NOW.timestamp()) * NS)
    node = tmp_path / "node.pem"
    config = load(settings(tmp_path, f'[uplink.tls]\nca = "ca.pem"\ncert = "{node}"\nkey = "k"'), Config)

    def told() -> Any:
        found = gather.identity(config, clock)
        assert found is not None
        return found

    assert not told().there and not told().claim
    (tmp_path / "claim.toml").write_text('node = "n"\nsite = "s"\nclaim = "claim-abc"\nexpires = "2026-12-01"\n')
    assert told().claim and told().claim_expires == "2026-12-01" and told().refused == ""
    (tmp_path / "claim.toml").write_text("torn")
    assert told().claim and told().claim_expires == ""
    (tmp_path / "refused.txt").write_text("revoked: stolen\n")
    assert told().refused == "revoked: stolen"
    certificate(node, days=100)
    assert told().days_left == pytest.approx(100) and told().early_days == 0
    assert told().life_days == pytest.approx(110) and told().claim and told().not_renewed == ""
    (tmp_path / "renewal.txt").write_text("superseded: by a copy?\n")
    assert told().not_renewed == "superseded: by a copy?"
    clock.advance(101 * 86_400)
    assert told().days_left == pytest.approx(-1)
    certificate(node, days=400, since_days=-200)
    assert told().early_days == pytest.approx(99)
    node.write_bytes(b"rubbish")
    assert "holds no certificate" in told().fault
    assert gather.identity(load(settings(tmp_path), Config), clock) is None


# -- the past --------------------------------------------------------------------------------------------------------

BOOT, OLD = "f" * 32, "a" * 32


def row(boot: str, start_s: float, alive_s: float, stop: str | None = None) -> SessionRow:
    return SessionRow(1, boot, round(start_s * NS), round(alive_s * NS), stop)


def test_how_a_life_ended() -> None:
    clock = FakeClock(boot_id=BOOT, boot_ns=1000 * NS, utc_ns=10**18)
    tied = Timeline([TimeAnchor(OLD, 0, 10**18 - 7200 * NS, 1, "ntp")])
    assert gather.last_end(row(BOOT, 0, 940), tied, clock) == ("it ended without a word: killed, or crashed", 60.0)
    words, silent_s = gather.last_end(row(OLD, 0, 3600), tied, clock)
    assert "power cut" in words and silent_s == 3600.0
    assert gather.last_end(row(OLD, 0, 3600), Timeline([]), clock)[1] is None, "two boots, and nothing ties them"
    assert gather.last_end(row(BOOT, 0, 940, "exit 70"), tied, clock)[0].startswith("it gave up")
    assert gather.last_end(row(BOOT, 0, 940, "stopped"), tied, clock)[0] == "it was stopped (stopped)"


def test_starts_of_the_last_hour_are_counted_over_boots() -> None:
    clock = FakeClock(boot_id=BOOT, boot_ns=4000 * NS, utc_ns=10**18)
    tied = Timeline([TimeAnchor(OLD, 0, 10**18 - 5000 * NS, 1, "ntp")])
    lives = [row(OLD, 100, 200), row(OLD, 2000, 2100), row(BOOT, 10, 20), row(BOOT, 500, 600), row("b" * 32, 1, 2)]
    assert gather.starts_within(lives, tied, clock) == 2, "one of the old boot, one of this; one nothing is known of"


def test_since_when_the_uplink_is_down_also_before_a_restart_of_the_agent() -> None:
    clock = FakeClock(boot_id=BOOT, boot_ns=1000 * NS)

    def sign(session: int, at_s: int, active: bool, boot: str = BOOT) -> Sign:
        return Sign(session, boot, at_s * NS, "link", active, "")

    assert gather.down_s([], clock) == 0
    assert gather.down_s([sign(1, 100, True), sign(2, 600, True)], clock) == 900
    assert gather.down_s([sign(1, 100, True), sign(1, 200, False), sign(2, 700, True)], clock) == 300
    assert gather.down_s([sign(1, 100, True), sign(2, 200, False)], clock) == 0
    assert gather.down_s([sign(1, 100, True, OLD)], clock) == 0


def test_what_was_dark_is_summed_by_cause_and_what_lasts_is_left_to_its_part() -> None:
    def stretch(start_s: int, end_s: int, what: str, *evidence: str) -> Stretch:
        return Stretch(start_s * NS, end_s * NS, what, "", None, 0.0, evidence)

    found = gather.darkness(
        [
            stretch(0, 100, "power-off", "old"),
            stretch(100, 200, "recorded"),
            stretch(200, 260, "power-off", "mains input: lost"),
            stretch(260, 300, "privacy"),
            stretch(300, 1000, "camera-fault"),
        ],
        1000 * NS,
    )
    (one,) = found
    assert (one.cause, one.times, one.seconds, one.ago_s, one.evidence) == (
        "power-off",
        2,
        160.0,
        740.0,
        "mains input: lost",
    )


# -- a running agent's store -----------------------------------------------------------------------------------------


def test_only_incidents_that_are_open_now_are_told(folder: Path) -> None:
    new_id = uuid7_maker(CLOCK)
    old, over, lasts, person = new_id(), new_id(), new_id(), new_id()
    store = make_store(folder)
    store.commit([event(Kind.TAMPER, Phase.STARTED, old, "an earlier life's")])
    store.close()
    store = make_store(folder)
    store.commit(
        [
            event(Kind.TAMPER, Phase.STARTED, over, "covered"),
            event(Kind.TAMPER, Phase.STARTED, lasts, "turned"),
            event(Kind.PERSON, Phase.STARTED, person, "a person"),
            event(Kind.TAMPER, Phase.ENDED, over, "well again"),
            event(Kind.TAMPER, Phase.UPDATED, lasts, "turned, for a minute"),
        ]
    )
    assert [one.data.summary for one in store.open_now([Kind.TAMPER, Kind.MAINS])] == ["turned, for a minute"]
    store.close()


class Post:
    """A running agent's parts: a real store and disk, and a status that a test writes."""

    def __init__(self, tmp_path: Path, folder: Path) -> None:
        self.config = load(settings(tmp_path), Config)
        self.store = make_store(folder)
        self.told: dict[str, Any] = {
            "broker": "mqtt://hq:1883",
            "station_silent": False,
            "link": {"away_s": 0.0, "trouble": ""},
            "camera": {"name": "cam", "fps": 15.0, "frameagems": 40, "restarts": 0},
            "vision": {"fault": ""},
            "recording": {
                "recording": True,
                "fault": "",
                "bytes": 0,
                "oldest": None,
                "classes": [],
                "privacyleft_s": 0.0,
            },
            "queue": {"outboxrows": 0, "oldestage_s": None, "dropped": 0},
            "workers": {"camera": {"restarts": 0, "trouble": "", "up_s": 60.0}},
        }
        self.post = gather.RunningPost(
            config=self.config,
            clock=CLOCK,
            disk=PosixDisk(folder),
            store=self.store,
            machine=Machine(root=tmp_path, vcgencmd=lambda: "throttled=0x50000\n"),
            status=lambda: self.told,
            writing=lambda: None,
        )

    def parts(self) -> set[str]:
        return {one.part for one in diagnose(self.post.facts()) if one.urgency is not Urgency.NOTE} - {"clock", "card"}


def test_a_running_agent_is_read_from_its_own_status(tmp_path: Path, folder: Path) -> None:
    one = Post(tmp_path, folder)
    assert one.post.facts().unasked == ()
    assert one.parts() == {"power"}, "the firmware remembers too little voltage"
    utc_ns = CLOCK.utc().utc_ns
    one.told["broker"], one.told["link"] = None, {"away_s": 300.0, "trouble": "connection refused"}
    one.told["camera"] |= {"frameagems": 60_000}
    one.told["vision"] = {"fault": "no model"}
    one.told["recording"] |= {
        "oldest": rfc3339(utc_ns - 3600 * NS),
        "classes": [{"name": "continuous", "overwrite": rfc3339(utc_ns + 600 * NS)}],
    }
    facts = one.post.facts()
    assert facts.link is not None and facts.link.away_s == 300.0 and facts.link.reason == "connection refused"
    assert facts.camera is not None and not facts.camera.up and facts.camera.age_s == 60.0
    assert facts.recording is not None and facts.recording.kept_s == pytest.approx(3600, abs=5)
    assert facts.recording.overwrite_s == pytest.approx(600, abs=5)
    assert one.parts() == {"power", "link", "camera", "detector", "recording"}
    one.store.close()


def test_a_part_that_cannot_be_asked_does_not_silence_the_others(tmp_path: Path, folder: Path) -> None:
    one = Post(tmp_path, folder)
    one.store.close()  # as after an I/O error: every question to it raises
    facts = one.post.facts()
    assert {part for part, _ in facts.unasked} >= {"incidents", "signs", "sessions", "coverage"}
    assert facts.camera is not None and facts.camera.up

    def broken() -> dict[str, Any]:
        raise Transient("the disk answers with an I/O error")

    sick = gather.RunningPost(
        config=one.config,
        clock=CLOCK,
        disk=PosixDisk(folder),
        store=one.store,
        machine=Machine(root=tmp_path),
        status=broken,
        writing=lambda: None,
    )
    facts = sick.facts()
    assert ("state", "the disk answers with an I/O error") in facts.unasked
    (told,) = [one for one in diagnose(facts) if "cannot look at a part of itself" in one.what]
    assert "state, incidents, signs" in told.what and "I/O error" in told.why
    assert facts.camera is None and facts.time is not None


def test_trials_of_releases_and_settings(folder: Path) -> None:
    disk = PosixDisk(folder)
    assert gather.trials(disk) == Trials()
    disk.list("release")
    state = plan.staged(plan.first("1"), plan.Release(slot="7", number=7))
    seen = plan.Seen(up_s=0, frames=True, storage=True, broker=True)
    for now, expected in (
        (state, (None, None, "")),
        (plan.switched(state, seen), (7, None, "")),
        (plan.rolled_back(plan.switched(state, seen), "no frames"), (None, 7, "no frames")),
    ):
        disk.replace(slots.STATE, plan.encode(now))
        found = gather.trials(disk)
        assert (found.release, found.release_failed, found.release_why) == expected
    write_state(disk, ConfigState(force=2, seen=5, trial=Trial(revision=5)))
    assert (gather.trials(disk).settings, gather.trials(disk).settings_seen) == (5, 5)


def test_what_systemd_says() -> None:
    text = "NRestarts=4\nExecMainStatus=78\nLoadState=loaded\nActiveState=activating\nUnitFileState=enabled\n"
    assert gather.service_of(text) == Service("activating", enabled=True, restarts=4, exit_code=78)
    off = gather.service_of(text.replace("enabled", "disabled"))
    assert off is not None and not off.enabled
    assert gather.service_of(text.replace("=loaded", "=not-found")) is None
    assert gather.service_of("") is None
    assert gather.service_of("LoadState=loaded\nNRestarts=[not set]") == Service("unknown")


def test_a_card_that_cannot_be_asked_is_told(tmp_path: Path) -> None:
    assert "No such file" in gather.card(tmp_path / "gone", load(settings(tmp_path), Config), 0).fault
