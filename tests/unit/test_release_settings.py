"""Settings from afar: checked before they are tried, tried before they are kept, and never the end of a node."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import wire
from agent.config import Config
from agent.errors import NeedsRestart, Transient
from agent.release import settings, starts
from agent.release.settings import Act, ConfigState, Seen
from agent.release.settings_desk import RETRY_S, SettingsDesk, at_start, name_of, parse, read_state
from agent.station.signing import signed_settings
from agent.uplink.commands import believe
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk, PowerCut

SEED = 20261122
KEY = Ed25519PrivateKey.from_private_bytes(b"s" * 32)


def text(data: Path, *, place: str = "gate", extra: str = "", node: str = "n") -> str:
    return (
        f'[node]\nsite = "s"\nid = "{node}"\ndata = "{data}"\nplace = "{place}"\n'
        '[camera]\ndriver = "picamera2"\n[vision.detector]\ndriver = "none"\n'
        '[uplink]\nbrokers = ["mqtt://localhost:1883"]\n'
        f"[recording]\nbudget_gb = 0.001\nfree_gb_min = 0.0\n{extra}"
    )


class Post:
    """A node that starts and restarts on one simulated card."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.disk = FakeDisk()
        self.disk.list("config")
        self.clock = FakeClock()
        self.base = parse(text(data))
        self.station = self.frames = True
        self.busy = False
        self.notes: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.said: list[str] = []
        self.start()

    def start(self) -> Config:
        self.running, self.revision = at_start(self.base, self.disk, self.clock, self.said.append)
        self.desk = SettingsDesk(
            disk=self.disk,
            clock=self.clock,
            running=self.running,
            revision=self.revision,
            believe=partial(believe, site="s", node="n", key=KEY.public_key()),
            station=lambda: self.station,
            frames=lambda: self.frames,
            busy=lambda: self.busy,
            note=lambda body: self.notes.append(msgspec.json.decode(body)),
            tell=self.told.append,
        )
        return self.running

    def desire(self, revision: int, toml: str, *, node: str = "n", key: Ed25519PrivateKey | None = None) -> None:
        """What stands at the broker comes, and is judged within a second."""
        self.desk.desire(
            wire.encode(
                signed_settings(
                    key or KEY, site="s", node=node, revision=revision, toml=toml, time="2026-11-22T00:00:00Z", by="Mai"
                )
            )
        )

    def send(self, revision: int, toml: str) -> str:
        """The same; returns why it is not taken on."""
        self.desire(revision, toml)
        self.desk.watch(10)
        told = self.desk.reported()
        return told.why if told.state == "refused" else ""

    def watch(self, up_s: float) -> str:
        """Why the process is to end; empty when it goes on."""
        try:
            self.desk.watch(up_s)
        except NeedsRestart as restart:
            return str(restart)
        return ""

    def reboot(self) -> Config:
        """The plug, or a machine that went down: another boot."""
        self.clock = FakeClock(boot_id=f"{int(self.clock.boot_id, 16) - 1:032x}")
        return self.start()

    @property
    def state(self) -> ConfigState:
        return read_state(self.disk)

    @property
    def why(self) -> str:
        answer = self.state.answer
        return "" if answer is None else answer.why


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path)


def test_a_trial_is_on_the_ledger_before_it_is_one(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plug may be pulled between the two: a trial that nothing explains would be for ever."""
    trials: list[object] = []

    def note(body: bytes) -> None:
        trials.append(post.state.trial)
        post.notes.append(msgspec.json.decode(body))

    monkeypatch.setattr(post.desk, "_note", note)
    assert post.send(5, text(post.data, place="yard")) == ""
    assert trials == [None] and post.state.trial is not None
    assert [note["outcome"] for note in post.notes] == ["taken on"]


class Unplugged(BaseException):
    """The plug, at that very moment."""


@pytest.mark.parametrize("outcome", ["kept", "given up", "refused"])
@pytest.mark.parametrize("written", [True, False])
def test_what_became_of_them_is_on_the_ledger_though_the_plug_is_pulled_in_between(
    post: Post, monkeypatch: pytest.MonkeyPatch, outcome: str, written: bool
) -> None:
    def note(body: bytes) -> None:
        if written:
            post.notes.append(msgspec.json.decode(body))
        raise Unplugged

    if outcome != "refused":
        post.send(1, text(post.data, place="yard"))
        post.start()
    else:
        post.desire(1, "[node")
    post.station = outcome == "kept"
    with monkeypatch.context() as patch:
        patch.setattr(post.desk, "_note", note)
        with pytest.raises(Unplugged):
            post.watch(600)
    state = post.state
    for _ in range(3):
        post.reboot()
        post.watch(1)
    lines = [note for note in post.notes if note["outcome"] != "taken on"]
    assert {(line["config"], line["outcome"]) for line in lines} == {(1, outcome)}
    assert len(lines) == (2 if written else 1), "and not at every start"
    assert ("why" in lines[-1]) == (outcome != "kept")
    assert msgspec.structs.replace(post.state, noted=False) == state


def test_settings_that_are_given_up_at_the_start_are_on_the_ledger_and_told(post: Post) -> None:
    """Nothing of them has run by then: the settings before write it down, and say so."""
    post.send(1, text(post.data, place="yard"))
    for _ in range(starts.STARTS_MAX + 1):  # it dies each time
        post.start()
    assert post.revision == 0
    post.watch(1)
    assert (post.notes[-1]["outcome"], post.notes[-1]["why"]) == ("given up", "3 starts without being kept")
    assert post.told[-1] == "revision 1 of the configuration is given up: 3 starts without being kept"
    post.send(2, text(post.data, place="roof"))
    post.disk.put(name_of(2), b"\xff")
    post.start()
    post.desk.draw(text(post.data, place="door"), by="the page")  # before anybody has watched
    assert [(note["config"], note["outcome"]) for note in post.notes[-3:]] == [
        (2, "taken on"),
        (2, "given up"),
        (3, "taken on"),
    ]


def test_a_disk_that_refuses_the_end_of_a_trial_does_not_fill_the_ledger_with_it(post: Post) -> None:
    post.send(1, text(post.data, place="yard"))
    post.start()
    write = post.disk.replace

    def refuses(name: str, data: bytes, *, private: bool = False) -> None:
        if b'"noted":true' in data or b'"noted"' not in data:
            raise Transient("card: read-only")
        write(name, data, private=private)

    post.disk.replace = refuses  # type: ignore[method-assign]
    for up_s in range(60, 70):
        with suppress(Transient):
            post.watch(up_s)
    assert not post.state.noted
    post.disk.replace = write  # type: ignore[method-assign]
    post.watch(61 + RETRY_S)
    assert [note["outcome"] for note in post.notes] == ["taken on", "kept"]
    assert post.state.noted


def test_good_settings_are_tried_kept_and_survive_a_restart(post: Post) -> None:
    assert post.send(5, text(post.data, place="yard")) == ""
    assert (post.desk.reported().trial, post.desk.reported().state) == (5, "trying")
    assert post.running.node.place == "gate", "not before the restart"
    assert "is tried" in post.watch(30)
    assert post.start().node.place == "yard"
    assert post.watch(59) == "" and post.state.force == 0
    assert post.watch(60) == ""
    assert (post.state.force, post.state.trial) == (5, None)
    assert post.start().node.place == "yard"
    told = post.desk.reported()
    assert (told.revision, told.trial, told.seen, told.asked, told.state) == (5, 0, 5, 5, "applied")
    assert told.since and told.digest == hashlib.sha256(text(post.data, place="yard").encode()).hexdigest()
    assert [note["outcome"] for note in post.notes] == ["taken on", "kept"]
    assert post.told == ["revision 5 of the configuration is in force"]
    assert post.notes[0]["by"] == "Mai"
    for _ in range(3):  # it stands retained at the broker: each connection brings it again
        assert post.send(5, text(post.data, place="yard")) == ""
        assert post.watch(90) == "", "it is so already"
    assert len(post.notes) == 2


def test_settings_that_lock_the_node_out_are_given_up(post: Post) -> None:
    """The broker's address is wrong by one letter. Nobody can reach the node to say so; it goes back by itself."""
    wrong = text(post.data).replace("localhost", "127.0.0.1")
    post.send(1, wrong)
    post.start()
    post.station = False
    assert post.watch(599) == ""
    assert post.watch(600) == ""
    assert "given up: the station is not reached within 600 s" in post.watch(601)
    assert post.start().uplink.brokers == ("mqtt://localhost:1883",)
    assert post.notes[-1]["outcome"] == "given up"
    post.station = True
    assert post.send(1, wrong) == "" and post.watch(90) == "", "retained as it is, it is not tried again"
    told = post.desk.reported()
    assert (told.revision, told.state, told.asked) == (0, "rolled-back", 1)
    assert told.why == "the station is not reached within 600 s" and told.at


def test_without_a_station_before_none_is_asked_for_after(post: Post) -> None:
    post.station = False
    post.send(1, text(post.data, place="yard"))
    post.start()
    post.watch(60)
    assert post.state.force == 1


def test_settings_without_frames_and_settings_that_crash_are_given_up(post: Post) -> None:
    post.send(1, text(post.data, place="yard"))
    post.start()
    post.frames = False
    post.watch(600)
    assert "no frames" in post.why
    post.frames = True
    post.start()
    post.send(2, text(post.data, place="roof"))
    places = [post.start().node.place for _ in range(starts.STARTS_MAX + 1)]  # it dies each time
    assert places == ["roof"] * 3 + ["gate"]
    assert post.why == "3 starts without being kept"


def test_power_cuts_during_a_trial_are_no_crash_loop(post: Post) -> None:
    """A storm: the mains goes seven times before the settings have run for a minute. Nothing speaks against them."""
    post.send(1, text(post.data, place="yard"))
    for _ in range(starts.BOOTS_MAX):
        assert post.reboot().node.place == "yard"
    post.watch(60)
    assert post.state.force == 1
    post.send(2, text(post.data, place="roof"))
    places = [post.reboot().node.place for _ in range(starts.BOOTS_MAX + 1)]  # this takes the machine down each time
    assert places == ["roof"] * starts.BOOTS_MAX + ["yard"]
    assert post.why == "8 boots without being kept"


@pytest.mark.parametrize(
    ("revision", "toml", "match"),
    [
        (1, "é" * 20_481, "larger than 40 KiB"),
        (1, "[node", "not TOML"),
        (1, "a = " + "9" * 5000, "not TOML"),
        (1, "", "node: missing"),
        (1, {"extra": "[vision]\nsurprise = 1\n"}, "surprise: unknown key"),
        (1, {"node": "other"}, "node.id cannot be changed from afar"),
        (1, {"extra": '[release]\nkey = "' + "0" * 64 + '"\n'}, "release cannot be changed from afar"),
        (1, {"extra": '[[rules]]\nname = "r"\nkind = "enters"\nzones = ["nowhere"]\n'}, "nowhere"),
        (1, {"extra": "[panel]\nbell = 4\nlamp = 4\ndriver = 'gpio'\n"}, "BCM pin 4 is also panel.bell"),
    ],
)
def test_what_check_would_refuse_is_not_taken_on(post: Post, revision: Any, toml: Any, match: str) -> None:
    if isinstance(toml, dict):
        toml = text(post.data, **toml)
    why = post.send(revision, toml)
    assert re.search(match, why) and "\n" not in why and len(why) <= settings.WHY_CHARS_MAX
    assert (post.state.force, post.state.trial, post.state.seen) == (0, None, 0)
    told = post.desk.reported()
    assert (told.asked, told.state, told.revision) == (revision, "refused", 0)
    for _ in range(3):
        post.start()
        post.send(revision, toml)
    assert [note["outcome"] for note in post.notes] == ["refused"], "retained, it comes again: on the ledger once"
    assert post.send(revision + 1, text(post.data, place="yard")) == "", "and does not keep a better one out"
    assert post.desk.reported().trial == revision + 1


def test_what_the_station_did_not_sign_for_this_node_changes_nothing_and_is_told(post: Post) -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
    good = text(post.data, place="yard")
    unsigned = wire.encode(wire.Desired(revision=1, toml=good, time="2026-11-22T00:00:00Z"))
    attacks: tuple[Callable[[], None], ...] = (
        lambda: post.desire(1, good, key=other),
        lambda: post.desire(1, good, node="m"),
        lambda: post.desk.desire(b"{"),
        lambda: post.desk.desire(unsigned),
    )
    for wrong in attacks:
        changes = post.desk.changes
        wrong()
        assert post.watch(10) == ""
        told = post.desk.reported()
        assert (told.asked, told.state) == (0, "refused") and told.why
        assert post.desk.changes <= changes + 1, "told once, however often it comes"
    assert not post.notes and post.state == ConfigState(), "nobody fills the card from outside"
    post.desk.desire(b"")  # removed from the broker
    assert post.send(1, good) == "" and post.state.trial is not None


def test_a_replay_is_refused_and_what_comes_during_a_trial_waits_for_its_end(post: Post) -> None:
    post.busy = True
    assert post.send(3, text(post.data, place="yard")) == "" and post.state.trial is None, "a release is on trial"
    post.busy = False
    assert "is tried" in post.watch(20) or "is tried" in post.watch(21)
    post.start()
    assert post.send(4, text(post.data, place="roof")) == ""
    assert post.state.trial is not None and post.state.trial.revision == 3, "one at a time"
    assert post.watch(60) == "" and post.state.force == 3
    post.watch(61)
    assert post.state.trial is not None and post.state.trial.revision == 4
    post.start()
    post.watch(60)
    notes = len(post.notes)
    assert "revision 2 is not newer than 4" in post.send(2, text(post.data, place="old"))
    assert (post.state.force, post.desk.reported().revision, len(post.notes)) == (4, 4, notes)
    assert post.send(4, text(post.data, place="roof")) == "", "the right one again"
    assert post.desk.reported().state == "applied"
    assert "not newer" in post.send(4, text(post.data, place="cellar")), "the same number with another text"


def test_settings_whose_file_was_lost_are_taken_on_once_more(post: Post) -> None:
    """The card lost a file. The broker still has it; a station need not even be there."""
    post.send(1, text(post.data, place="yard"))
    post.start()
    post.watch(60)
    post.disk.unlink(name_of(1))
    assert post.start().node.place == "gate"
    assert post.desk.reported().revision == 0, "what is not there is not in force"
    assert post.send(1, text(post.data, place="yard")) == ""
    assert post.start().node.place == "yard"
    post.watch(60)
    assert post.desk.reported().revision == 1


def test_a_file_that_rots_or_a_state_that_is_lost_leads_back_and_not_out(post: Post) -> None:
    post.send(1, text(post.data, place="yard"))
    post.start()
    post.watch(60)
    post.disk.put(name_of(1), b"\xff\x00 not toml")
    assert post.start().node.place == "gate"
    assert "revision 1" in post.said[-1]
    post.disk.unlink(name_of(1))
    assert post.start().node.place == "gate"
    for junk in (b"", b"{", b"[]", b"\xff" * 99, b'{"force": -1}', b"x" * 50_000):
        post.disk.put("config/state.json", junk)
        assert post.start().node.place == "gate"


def test_a_start_that_cannot_be_counted_is_made_with_the_base(post: Post) -> None:
    post.send(1, text(post.data, place="yard"))
    post.disk.read_only = True
    assert post.start().node.place == "gate"
    assert "left out" in post.said[-1]
    post.disk.heal()
    assert post.watch(5) == ""
    assert "could not be counted" in post.why, "settings that never ran are not kept for what others did"


def test_the_judgement_alone() -> None:
    state = settings.started(settings.offered(ConfigState(), 1, digest="", station=True, frames=False, at=""), "b")

    def judged(up_s: float, *, station: bool, frames: bool) -> Act:
        seen = Seen(up_s=up_s, station=station, frames=frames)
        return settings.judge(state, seen, settle_s=60, station_s=600)[0]

    assert judged(59, station=True, frames=True) is Act.WAIT
    assert judged(60, station=True, frames=False) is Act.KEEP, "there were no frames before either"
    assert judged(599, station=False, frames=True) is Act.WAIT
    assert judged(600, station=False, frames=True) is Act.GIVE_UP
    assert (
        settings.judge(ConfigState(), Seen(up_s=1e9, station=False, frames=False), settle_s=1, station_s=1)[0]
        is Act.WAIT
    )


# -- the plug -----------------------------------------------------------------------------------------------------------


def story(post: Post) -> None:
    """Revision 1 is kept, 2 locks the node out and is given up; from wherever it is to its end."""
    post.station = True
    post.start()
    for revision, station in ((1, True), (2, False)):
        post.station = True
        if post.state.seen < revision:
            post.send(revision, text(post.data, place=f"place {revision}"))
            post.watch(30)
        post.start()
        post.station = station
        for up_s in (30.0, 60.0, 600.0):
            post.watch(up_s)
        post.start()


def cut_after(steps: int) -> Callable[[str], None]:
    left = iter(range(steps))

    def crash_point(what: str) -> None:
        if next(left, None) is None:
            raise PowerCut(what)

    return crash_point


def broken_off(post: Post, at: int, act: Callable[[], object], rng: random.Random) -> bool:
    post.disk.crash_point = cut_after(at)
    try:
        act()
    except PowerCut:
        post.disk.crash_point = lambda _step: None
        post.disk.power_cut(rng.randrange)
        return True
    post.disk.crash_point = lambda _step: None
    return False


def cuts(data: Path, *, plant: Callable[[Post], None] = lambda _post: None, seeds: int = 1, begin: int = 0) -> int:
    total, at, went_on = 0, begin, True
    while went_on:
        went_on = False
        for seed in range(seeds):
            rng = random.Random(SEED + 100 * at + seed)
            post = Post(data)
            plant(post)
            if not broken_off(post, at, lambda post=post: story(post), rng):  # type: ignore[misc]
                continue
            went_on, total = True, total + 1
            again = 0
            while broken_off(post, again, post.start, rng):
                total, again = total + 1, again + 1
            kept = any(note["outcome"] == "kept" for note in post.notes)
            named = settings.in_use(post.state)
            assert post.revision == named, f"step {at}: starts with {post.revision}, the state says {named}"
            assert not kept or post.state.force == 1, f"step {at}: what was kept and told is kept"
            assert post.running.node.place == ("gate" if not named else f"place {named}")
            story(post)
            assert (post.state.seen, post.state.trial) == (2, None), f"step {at}"
            assert post.start().node.place in ("gate", "place 1"), "2 is never in force"
            became = {note["config"]: note["outcome"] for note in post.notes}  # the last line of each
            expected = {1: "kept" if post.state.force == 1 else "given up", 2: "given up"}
            assert became == expected, f"step {at}: the ledger explains what became of each"
        at += 1
    return total


def test_the_node_starts_with_whole_settings_wherever_the_power_goes(tmp_path: Path) -> None:
    count = cuts(tmp_path)
    print(f"\nseed {SEED}: {count} power cuts while settings were changed")
    assert count > 100


def test_the_controls_find_a_name_that_is_not_synced(tmp_path: Path) -> None:
    def plant(post: Post) -> None:
        post.disk.unsynced_names = True

    with pytest.raises(AssertionError, match="step") as caught:
        cuts(tmp_path, plant=plant, seeds=3, begin=18)
    print(caught.value)
