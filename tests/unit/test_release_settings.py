"""Settings from afar: checked before they are tried, tried before they are kept, and never the end of a node."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.config import Config
from agent.errors import Corrupt, NeedsRestart
from agent.release import settings
from agent.release.settings import Act, ConfigState, Seen
from agent.release.settings_desk import SettingsDesk, at_start, name_of, parse, read_state
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk, PowerCut

SEED = 20261122


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
        self.base = parse(text(data))
        self.station = self.frames = True
        self.busy = False
        self.notes: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.said: list[str] = []
        self.start()

    def start(self) -> Config:
        self.running, self.revision = at_start(self.base, self.disk, self.said.append)
        self.desk = SettingsDesk(
            disk=self.disk,
            clock=FakeClock(),
            running=self.running,
            revision=self.revision,
            station=lambda: self.station,
            frames=lambda: self.frames,
            busy=lambda: self.busy,
            note=lambda body: self.notes.append(msgspec.json.decode(body)),
            tell=self.told.append,
        )
        return self.running

    def send(self, revision: Any, toml: Any) -> dict[str, Any]:
        return self.desk.take({"id": "x", "revision": revision, "toml": toml})

    def watch(self, up_s: float) -> str:
        """Why the process is to end; empty when it goes on."""
        try:
            self.desk.watch(up_s)
        except NeedsRestart as restart:
            return str(restart)
        return ""

    @property
    def state(self) -> ConfigState:
        return read_state(self.disk)


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path)


def test_good_settings_are_tried_kept_and_survive_a_restart(post: Post) -> None:
    assert post.send(5, text(post.data, place="yard"))["trial"] == 5
    assert post.running.node.place == "gate", "not before the restart"
    assert "is tried" in post.watch(30)
    assert post.start().node.place == "yard"
    assert post.watch(59) == "" and post.state.force == 0
    assert post.watch(60) == ""
    assert (post.state.force, post.state.trial) == (5, None)
    assert post.start().node.place == "yard"
    assert (post.desk.told().revision, post.desk.told().trial, post.desk.told().seen) == (5, 0, 5)
    assert [note["outcome"] for note in post.notes] == ["taken on", "kept"]
    assert post.told == ["revision 5 of the configuration is in force"]
    assert post.send(5, text(post.data, place="yard"))["revision"] == 5, "asked again: it is so"


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
    with pytest.raises(Corrupt, match=r"revision 1 is not newer than 1.*was given up: the station is not reached"):
        post.send(1, wrong)


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
    assert "no frames" in post.state.why
    post.frames = True
    post.start()
    post.send(2, text(post.data, place="roof"))
    places = [post.start().node.place for _ in range(settings.STARTS_MAX + 1)]  # it dies each time
    assert places == ["roof"] * 3 + ["gate"]
    assert post.state.why == "3 starts without being kept"


@pytest.mark.parametrize(
    ("revision", "toml", "match"),
    [
        (0, None, "revision must be a number"),
        ("1", None, "revision must be a number"),
        (True, None, "revision must be a number"),
        (1, 7, "toml must be the text"),
        (1, "x" * 50_000, "toml must be the text"),
        (1, "[node", "not TOML"),
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
    with pytest.raises(Corrupt, match=match) as caught:
        post.send(revision, text(post.data) if toml is None else toml)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 500
    assert post.state == ConfigState()


def test_a_replay_two_at_once_and_one_beside_a_release_are_refused(post: Post) -> None:
    post.busy = True
    with pytest.raises(Corrupt, match="a release is on trial"):
        post.send(3, text(post.data, place="yard"))
    post.busy = False
    post.send(3, text(post.data, place="yard"))
    with pytest.raises(Corrupt, match="revision 3 is on trial"):
        post.send(4, text(post.data, place="roof"))
    post.start()
    post.watch(60)
    with pytest.raises(Corrupt, match="revision 2 is not newer than 3"):
        post.send(2, text(post.data, place="old"))


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
    assert "could not be counted" in post.state.why, "settings that never ran are not kept for what others did"


def test_the_judgement_alone() -> None:
    state = settings.started(settings.offered(ConfigState(), 1, station=True, frames=False))

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
