"""Why a post is dark: causes that a test has made, found from what real nodes say and a real station keeps."""

from __future__ import annotations

import datetime as dt
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import wire
from agent.station.posts.fleet import PostView, judge
from agent.station.posts.known import Known
from agent.station.posts.outages import outages_of
from agent.station.posts.why_dark import Around, Cause, Neighbour, Verdict, after_return, why_blind, why_dark
from agent.station.posts.words import Words
from agent.types import Kind, Phase
from tests.fakes.database import Database, fresh
from tests.fakes.ward import Ward, WatchedPost, ward

SPOTS: list[tuple[str, dict[str, Any]]] = [
    ("a1", {"house": "A", "pole": "1", "provider": "V"}),
    ("a2", {"house": "A", "pole": "1", "provider": "V"}),
    ("b1", {"house": "B", "pole": "1", "provider": "V"}),
    ("c1", {"house": "C", "pole": "2", "provider": "V"}),
    ("d1", {"house": "D", "pole": "2", "provider": "F"}),
    ("e1", {"house": "E", "pole": "3", "provider": "F"}),
    ("f1", {"house": "F", "pole": "3", "provider": "F"}),
]


@pytest.fixture
def street(tmp_path: Path, database: Database) -> Iterator[Ward]:
    with ward(tmp_path, database, SPOTS) as made:
        yield made


def now(found: dict[str, PostView], node: str) -> Verdict:
    verdict = found[node].now
    assert verdict is not None
    return verdict


def keys_of(verdict: Verdict) -> set[str]:
    return {one.what for one in verdict.evidence}


def off(*posts: WatchedPost) -> None:
    for post in posts:
        post.network = False


# -- dark now ---------------------------------------------------------------------------------------------------------


def test_a_ward_that_is_well_has_nothing_to_explain(street: Ward) -> None:
    assert {node: view.now for node, view in street.views().items()} == dict.fromkeys(street.posts)


def test_a_post_that_told_of_its_mains_is_unplugged(street: Ward) -> None:
    post = street.posts["a1"]
    post.lose_mains()
    street.tick()
    post.cut_power()
    street.tick(8)
    verdict = now(street.views(), "a1")
    assert (verdict.cause, verdict.word, verdict.scope) == (Cause.UNPLUGGED, "sure", "post")
    assert {"mains_lost", "heard_house", "heard_provider"} <= keys_of(verdict)


def test_a_post_whose_mains_came_back_before_is_not_called_unplugged(street: Ward) -> None:
    post = street.posts["a1"]
    post.say(Kind.MAINS, Phase.STARTED, "Mains power lost; running on the battery", incident="0" * 36)
    street.tick()
    post.say(Kind.MAINS, Phase.ENDED, "Mains power is back", incident="0" * 36)
    street.tick(4)
    off(post)
    street.tick(8)
    assert now(street.views(), "a1").cause is Cause.UNKNOWN


def test_too_little_voltage_before_is_a_likely_cause_and_long_ago_a_hint(street: Ward) -> None:
    street.posts["a1"].throttled = 0x10001
    street.posts["d1"].throttled = 0x10000
    street.tick()
    street.posts["a1"].cut_power()
    street.posts["d1"].cut_power()
    street.tick(8)
    found = street.views()
    assert (now(found, "a1").cause, now(found, "a1").word) == (Cause.UNPLUGGED, "likely")
    assert (now(found, "d1").cause, now(found, "d1").confidence) == (Cause.UNKNOWN, 0.0)
    assert "undervoltage_before" in keys_of(now(found, "d1"))


def test_a_provider_that_fails_is_not_taken_for_plugs(street: Ward) -> None:
    off(*(street.posts[node] for node in ("a1", "a2", "b1", "c1")))
    street.tick(8)
    found = street.views()
    for node in ("a1", "a2", "b1", "c1"):
        verdict = now(found, node)
        assert (verdict.cause, verdict.scope) == (Cause.NETWORK, "provider"), node
        assert not any(other.cause is Cause.UNPLUGGED for other in verdict.others), node
        task = found[node].task
        assert task is not None and not task.trip, "nobody drives out for a provider"


def test_headquarters_own_line_is_no_posts_fault(street: Ward) -> None:
    street.headquarters = False
    street.tick(8)
    found = street.views()
    assert {(now(found, n).cause, now(found, n).scope) for n in found} == {(Cause.NETWORK, "headquarters")}
    street.headquarters = True
    street.tick(4)
    found = street.views()
    assert all(view.now is None and view.uptime.outages == 0 for view in found.values()), "no post is blamed for it"
    assert all(view.uptime.up == 1.0 and view.uptime.days[-1].away_s > 200 for view in found.values())


def test_a_house_that_falls_dark_while_its_provider_serves_others_has_a_fuse_or_a_router(street: Ward) -> None:
    for node in ("a1", "a2"):
        street.posts[node].cut_power()
    street.tick(8)
    verdict = now(street.views(), "a1")
    assert (verdict.cause, verdict.scope, verdict.word) == (Cause.UNPLUGGED, "house", "possible")
    assert {"house_dark", "heard_provider"} <= keys_of(verdict)


def test_a_house_mate_that_told_of_the_mains_speaks_for_the_other(street: Ward) -> None:
    street.posts["a2"].lose_mains()
    street.tick()
    for node in ("a1", "a2"):
        street.posts[node].cut_power()
    street.tick(8)
    verdict = now(street.views(), "a1")
    assert (verdict.cause, verdict.word) == (Cause.UNPLUGGED, "likely") and "mains_house" in keys_of(verdict)


def test_a_house_mate_that_came_back_tells_of_the_one_that_did_not(street: Ward) -> None:
    for node in ("a1", "a2"):
        off(street.posts[node])
    street.tick(20)
    street.posts["a2"].network = True
    street.tick(3)
    verdict = now(street.views(), "a1")
    assert verdict.cause is Cause.NETWORK and "mate_network" in keys_of(verdict)


def test_one_post_alone_that_told_nothing_is_not_known_and_what_would_tell_is_said(street: Ward) -> None:
    off(street.posts["a1"])
    street.tick(8)
    verdict = now(street.views(), "a1")
    assert (verdict.cause, verdict.confidence, verdict.word) == (Cause.UNKNOWN, 0.0, "unknown")
    assert "heard_house" in keys_of(verdict), "but mains and router of the house are cleared"
    assert {"more.return", "more.mains"} <= set(verdict.more)


def test_a_card_that_failed_before_is_the_likely_cause(street: Ward) -> None:
    post = street.posts["a1"]
    post.say(Kind.STORAGE, Phase.STARTED, "Recording has stopped: Read-only file system", incident="1" * 36)
    street.tick()
    post.kill()
    street.tick(8)
    verdict = now(street.views(), "a1")
    assert (verdict.cause, verdict.word) == (Cause.CARD, "likely")
    said = {Words.of("en").evidence(one) for one in verdict.evidence}
    assert "It told of its storage: Recording has stopped: Read-only file system" in said


def test_a_post_that_said_goodbye_was_stopped_and_one_of_which_only_the_will_came_was_not(street: Ward) -> None:
    """All of them are closed at once: how soon it was heard tells nothing, the word does. One is older, one newer."""
    words = {"a1": "stopped", "a2": "lost", "b1": "", "c1": "update", "d1": "struck-by-lightning"}
    for node, word in words.items():
        street.posts[node].reason = word
        street.posts[node].kill()
        street.tick(4)  # each by itself
    street.tick(8)
    found = street.views()
    verdicts = {node: now(found, node) for node in words}
    planned = [node for node, verdict in verdicts.items() if verdict.cause is Cause.PLANNED]
    assert planned == ["a1", "c1", "d1"], "a word of a newer post is a goodbye, too"
    assert "left_stopped" in keys_of(verdicts["a1"]) & keys_of(verdicts["d1"])
    assert "left_update" in keys_of(verdicts["c1"])
    assert verdicts["a2"].cause is Cause.PROGRAM and {"goodbye", "left_lost"} <= keys_of(verdicts["a2"])
    assert verdicts["b1"].cause is Cause.PROGRAM and "left_lost" not in keys_of(verdicts["b1"])
    assert verdicts["a2"].confidence > verdicts["b1"].confidence
    for language, says in (("en", "It said goodbye: it was stopped in order"), ("vi", "được dừng đúng cách")):
        assert any(says in Words.of(language).evidence(one) for one in verdicts["a1"].evidence)
    street.tick(40)
    found = street.views()
    assert now(found, "c1").word == "possible", "no update takes so long"
    assert now(found, "a1").cause is Cause.PLANNED, "nobody has started it again"


def test_an_agent_that_dies_closes_its_connection_and_a_dead_line_does_not(street: Ward) -> None:
    street.posts["a1"].kill()
    off(street.posts["d1"])
    street.tick(8)
    found = street.views()
    assert now(found, "a1").cause is Cause.PROGRAM and "goodbye" in keys_of(now(found, "a1"))
    assert now(found, "d1").cause is Cause.UNKNOWN


def test_a_trial_explains_a_silence_for_a_while(street: Ward) -> None:
    post = street.posts["a1"]
    trial = wire.ReleaseState(number=4, tried=5, phase="trying")
    post.beats._probes = replace(post.beats._probes, release=lambda: trial)
    street.tick()
    off(post)
    street.tick(8)
    assert (now(street.views(), "a1").cause, now(street.views(), "a1").word) == (Cause.PLANNED, "likely")
    street.tick(30)
    assert now(street.views(), "a1").word == "possible", "it should have gone back by itself"


# -- heard, and yet blind ---------------------------------------------------------------------------------------------


def recording(**changes: Any) -> Callable[[], wire.RecordingState]:
    told: dict[str, Any] = {"recording": True, "segments": 1, "bytes": 1, "oldest": None, "droppedpackets": 0}
    return lambda: wire.RecordingState(**(told | changes))


def camera(age_ms: int | None) -> Callable[[], wire.CameraState]:
    return lambda: wire.CameraState(name="stream", fps=0.0, frameagems=age_ms, frames=9, restarts=2)


@pytest.mark.parametrize(
    ("parts", "cause", "word"),
    [
        ({"camera": camera(95_000)}, Cause.CAMERA, "sure"),
        ({"camera": camera(None)}, Cause.CAMERA, "sure"),
        ({"recording": recording(recording=False)}, Cause.CARD, "likely"),
        ({"recording": recording(recording=False, privacyleft_s=60.0)}, Cause.PLANNED, "sure"),
        ({"camera": camera(None), "recording": recording(recording=False)}, Cause.CAMERA, "sure"),
    ],
)
def test_a_post_that_is_heard_and_does_not_see_says_why(
    street: Ward, parts: dict[str, Any], cause: Cause, word: str
) -> None:
    street.posts["a1"].parts = parts
    street.tick()
    verdict = now(street.views(), "a1")
    assert (verdict.cause, verdict.word) == (cause, word)


def test_a_covered_camera_and_a_lost_mains_are_told_while_the_post_lives_and_over_when_they_are(street: Ward) -> None:
    post = street.posts["a1"]
    post.say(Kind.CAMERA, Phase.STARTED, "The camera gives no pictures: no picture for 10 s", incident="2" * 36)
    street.tick()
    assert now(street.views(), "a1").cause is Cause.CAMERA
    post.say(Kind.CAMERA, Phase.ENDED, "The camera is back after 40 s", incident="2" * 36)
    street.posts["b1"].lose_mains()
    street.tick()
    found = street.views()
    assert found["a1"].now is None and now(found, "b1").cause is Cause.UNPLUGGED


def test_a_clock_that_is_years_off_is_told_and_one_that_nobody_vouches_for_is_possible(street: Ward) -> None:
    street.posts["a1"].clock.step_utc(-3e8)
    street.posts["b1"].clock.set_unc(None)
    street.tick()
    found = street.views()
    assert (now(found, "a1").cause, now(found, "a1").word) == (Cause.CLOCK, "sure")
    assert (now(found, "b1").cause, now(found, "b1").word) == (Cause.CLOCK, "possible")


# -- after the return -------------------------------------------------------------------------------------------------


def past(street: Ward, node: str) -> Verdict:
    found = street.views()[node].past
    assert found, "an outage that is over"
    return found[0].verdict


def test_a_session_that_went_on_was_cut_off(street: Ward) -> None:
    off(street.posts["a1"])
    street.tick(20)
    street.posts["a1"].network = True
    street.tick(3)
    verdict = past(street, "a1")
    assert (verdict.cause, verdict.word) == (Cause.NETWORK, "sure") and "same_session" in keys_of(verdict)
    assert "up_longer" in keys_of(verdict)


@pytest.mark.parametrize("clock", ["right", "nobody vouches"])
def test_a_new_boot_that_nobody_stopped_was_without_power(street: Ward, clock: str) -> None:
    post = street.posts["a1"]
    street.tick(2)
    post.cut_power()
    street.tick(20)
    post.power_back(600)
    if clock != "right":
        post.clock.set_unc(None)
    street.tick(3)
    verdict = past(street, "a1")
    assert verdict.cause is Cause.UNPLUGGED and "no_stop" in keys_of(verdict)


def test_a_post_that_ran_on_unheard_and_then_lost_its_power_was_cut_off_first(street: Ward) -> None:
    post = street.posts["a1"]
    off(post)
    for _ in range(18):
        street.tick()
        post.store.alive()
    post.cut_power()
    street.tick(4)
    post.network = True
    post.power_back(120)
    street.tick(3)
    verdict = past(street, "a1")
    assert verdict.cause is Cause.NETWORK and {"ran_on", "new_boot_off"} <= keys_of(verdict)


def test_power_that_came_back_long_before_the_network_leaves_the_network_to_blame(street: Ward) -> None:
    post = street.posts["a1"]
    post.cut_power()
    off(post)
    street.tick(6)
    post.power_back(180)
    street.tick(30)
    post.network = True
    street.tick(3)
    verdict = past(street, "a1")
    assert verdict.cause is Cause.NETWORK and "ran_unheard" in keys_of(verdict)


def test_a_crash_and_a_stop_in_one_boot_are_the_program_and_a_plan(street: Ward) -> None:
    street.posts["a1"].kill()
    street.posts["b1"].stop()
    street.tick(20)
    street.posts["a1"].start()
    street.posts["b1"].start()
    street.tick(3)
    assert past(street, "a1").cause is Cause.PROGRAM and "agent_died" in keys_of(past(street, "a1"))
    assert past(street, "b1").cause is Cause.PLANNED and "was_stopped" in keys_of(past(street, "b1"))


def test_a_machine_that_was_shut_down_in_order_is_a_plan(street: Ward) -> None:
    post = street.posts["a1"]
    post.stop()
    street.tick(20)
    post.power_back(600)
    street.tick(3)
    assert past(street, "a1").cause is Cause.PLANNED and "shut_down" in keys_of(past(street, "a1"))


def test_both_databases_tell_the_same(tmp_path: Path, database: Database) -> None:
    with ward(tmp_path, database, SPOTS) as made:
        made.posts["a1"].lose_mains()
        made.tick()
        made.posts["a1"].cut_power()
        off(made.posts["d1"])
        made.tick(8)
        found = made.views()
        assert (now(found, "a1").cause, now(found, "d1").cause) == (Cause.UNPLUGGED, Cause.UNKNOWN)
        made.wait(600)
        made.posts["a1"].power_back(0)
        made.posts["d1"].network = True
        made.tick(3)
        assert (past(made, "a1").cause, past(made, "d1").cause) == (Cause.UNPLUGGED, Cause.NETWORK)
        assert {view.post.node for view in made.views().values() if view.uptime.outages} == {"a1", "d1"}


# -- fleets with seeded causes ----------------------------------------------------------------------------------------

SEEDS = (11, 13)
FAULTS = ("plug", "mains", "house power", "street power", "provider", "line", "headquarters", "card", "crash")
TRUE = {
    "plug": Cause.UNPLUGGED, "mains": Cause.UNPLUGGED, "house power": Cause.UNPLUGGED, "street power": Cause.UNPLUGGED,
    "provider": Cause.NETWORK, "line": Cause.NETWORK, "headquarters": Cause.NETWORK, "card": Cause.CARD,
    "crash": Cause.PROGRAM,
}  # fmt: skip


def fleet(rng: random.Random) -> list[tuple[str, dict[str, Any]]]:
    """Houses on poles, one to three posts each, two providers that serve neighbouring houses."""
    found = []
    for house in range(9):
        provider = rng.choice("VF")
        for number in range(rng.choice((1, 1, 1, 2, 3))):
            where = {"house": f"H{house}", "pole": f"P{house // 3}", "provider": provider}
            found.append((f"h{house}-{number}", where | {"mains_input": rng.random() < 0.4}))
    return found


def strike(made: Ward, fault: str, rng: random.Random) -> list[WatchedPost]:
    """Causes a fault; returns the posts that fall dark by it."""
    posts = list(made.posts.values())
    one = rng.choice(posts)

    def mates(shared: str) -> list[WatchedPost]:
        return [post for post in posts if getattr(post.spot, shared) == getattr(one.spot, shared)]

    if fault in ("mains", "house power", "street power"):
        struck = [one] if fault == "mains" else mates("house" if fault == "house power" else "pole")
        for post in struck:
            if post.mains_input or fault == "mains":
                post.lose_mains()
                # Its battery carries the post, and often nobody carries its router: it is cut off before it can tell.
        told = [post for post in struck if fault == "mains" or rng.random() < 0.5]
        off(*(post for post in struck if post not in told))
        made.tick()
        for post in struck:
            post.cut_power()
        return struck
    if fault == "plug":
        one.cut_power()
        return [one]
    if fault == "crash":
        one.kill()
        return [one]
    if fault == "card":
        one.say(Kind.STORAGE, Phase.STARTED, "Recording has stopped: I/O error", incident=f"{rng.getrandbits(32):036x}")
        made.tick()
        one.kill()
        return [one]
    if fault == "headquarters":
        made.headquarters = False
        return posts
    struck = mates("provider") if fault == "provider" else [one]
    off(*struck)
    return struck


def mend(made: Ward, struck: list[WatchedPost]) -> None:
    made.headquarters = True
    for post in struck:
        post.network = True
        if not post.running and post.closed:
            post.start()
        elif not post.running:
            post.power_back(0)


def matrix(counts: Counter[tuple[str, str]], title: str) -> str:
    columns = sorted({cause for _, cause in counts})
    lines = [f"{title:<14}" + "".join(f"{column:>11}" for column in columns)]
    lines += [f"{fault:<14}" + "".join(f"{counts[fault, column]:>11}" for column in columns) for fault in FAULTS]
    return "\n".join(lines)


def test_fleets_with_seeded_causes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is found while it is dark, and once it is back. Half of the posts have flaky bits that mean nothing."""
    during: Counter[tuple[str, str]] = Counter()
    after: Counter[tuple[str, str]] = Counter()
    sure: Counter[bool] = Counter()
    for seed in SEEDS:
        rng = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        with fresh("sqlite", folder) as database, ward(folder, database, fleet(rng), seed=seed) as made:
            for post in made.posts.values():
                post.throttled = rng.choice((0, 0, 0x10000))  # a supply that sagged once says little
            for fault in FAULTS:
                made.goodbye_s = rng.choice((5.0, 12.0, 20.0))
                struck = strike(made, fault, rng)
                made.tick(8)
                views = made.views()
                for post in struck:
                    verdict = now(views, post.node)
                    during[fault, verdict.cause.value] += 1
                    if fault in ("provider", "line", "headquarters"):
                        assert verdict.cause is not Cause.UNPLUGGED, (seed, fault, post.node, verdict)
                    if verdict.word == "sure":
                        sure[verdict.cause is TRUE[fault]] += 1
                innocent = set(made.posts) - {post.node for post in struck}
                assert all(views[node].outage is None for node in innocent)
                made.wait(600)
                mend(made, struck)
                made.tick(3)
                views = made.views()
                for post in struck:
                    verdict = views[post.node].past[0].verdict
                    after[fault, verdict.cause.value] += 1
                    if fault in ("provider", "line", "headquarters"):
                        assert verdict.cause is Cause.NETWORK, (seed, fault, post.node, verdict)
                made.wait(4000)  # more than an hour of peace
                made.tick(2)
    right = sum(count for (fault, cause), count in during.items() if TRUE[fault] == cause)
    wrong = sum(n for (fault, cause), n in during.items() if cause not in (TRUE[fault], "unknown"))
    right_after = sum(count for (fault, cause), count in after.items() if TRUE[fault] == cause)
    with capsys.disabled():
        print(f"\nseeds {SEEDS}; dark posts {during.total()}")
        print(matrix(during, "while dark"))
        print(matrix(after, "after it"))
        print(
            f"right while dark {right / during.total():.0%}, wrong {wrong / during.total():.0%}, not known"
            f" {1 - (right + wrong) / during.total():.0%}; right after the return {right_after / after.total():.0%};"
            f" of {sure.total()} that were sure {sure[True]} right"
        )
    assert sure[False] == 0
    assert wrong <= 0.15 * during.total()
    assert right >= 0.6 * during.total()


# -- less evidence ----------------------------------------------------------------------------------------------------


def forgetful(one: Known, rng: random.Random) -> Known:
    """The same post with something that is not known any more."""
    what = rng.choice(("beat", "part", "incident", "start", "late", "errand"))
    if what == "beat":
        return replace(one, beat=None)
    if what == "part" and one.beat is not None:
        name = rng.choice(("camera", "recording", "queue", "release", "settings", "machine"))
        said = one.beat.said
        fields = {field: getattr(said, field) for field in said.__struct_fields__}
        if name == "machine":
            blank = dict.fromkeys(said.machine.__struct_fields__)
            fields["machine"] = wire.MachineState(**blank)
        else:
            fields[name] = None
        return replace(one, beat=replace(one.beat, said=wire.Heartbeat(**fields)))
    if what == "incident" and one.incidents:
        lost = rng.choice(one.incidents)
        return replace(one, incidents=tuple(o for o in one.incidents if o is not lost))
    if what == "start" and one.starts:
        index = rng.randrange(len(one.starts))
        return replace(one, starts=one.starts[:index] + one.starts[index + 1 :])
    if what == "late":
        return replace(one, late_utc_ns=one.late_utc_ns[1:])
    return replace(one, errands=())


def verdicts(posts: list[Known], now_ns: int, gone: frozenset[str]) -> dict[tuple[str, int], Verdict]:
    """Of every outage, and of every post that is heard. Of `gone` nothing is known but that they exist."""
    around = {}
    for post in posts:
        outages = tuple(outages_of(post.changes))
        told = {}
        for one in outages:
            best = max(after_return(post, one), key=lambda finding: finding.confidence, default=None)
            if best is not None:
                told[one.start_utc_ns] = best
        if post.node in gone:
            around[post.node] = Neighbour(replace(post, seen_utc_ns=0, incidents=(), starts=(), beat=None), (), {})
        else:
            around[post.node] = Neighbour(post, outages, told)
    everybody = Around(around.values())
    found = {}
    for post in posts:
        if post.node in gone:
            continue
        for outage in outages_of(post.changes):
            found[post.node, outage.start_utc_ns] = why_dark(post, outage, everybody, now_utc_ns=now_ns)
        if post.heard and (blind := why_blind(post)) is not None:
            found[post.node, 0] = blind
    return found


def test_less_evidence_never_makes_a_verdict_surer(tmp_path: Path) -> None:
    rng = random.Random(29)
    with fresh("sqlite", tmp_path) as database, ward(tmp_path, database, fleet(rng), seed=29) as made:
        worlds = []
        for fault in FAULTS:
            struck = strike(made, fault, rng)
            made.tick(8)
            worlds.append((made.known(), made.now_ns))
            mend(made, struck)
            made.tick(4)
            worlds.append((made.known(), made.now_ns))
    checked = 0
    for posts, now_ns in worlds:
        for _ in range(4):
            less, gone = list(posts), frozenset[str]()
            before = verdicts(less, now_ns, gone)
            for _ in range(6):
                index = rng.randrange(len(less))
                if rng.random() < 0.2:
                    gone |= {less[index].node}
                else:
                    less[index] = forgetful(less[index], rng)
                after = verdicts(less, now_ns, gone)
                for key, verdict in after.items():
                    assert key in before or key[1] == 0, key
                    if key in before:
                        assert verdict.confidence <= before[key].confidence, (key, before[key], verdict)
                        checked += 1
                before = after
    assert checked > 1000


def test_every_word_is_there_in_both_languages_and_takes_the_same_values() -> None:
    english, vietnamese = Words.of("en").texts, Words.of("vi").texts
    assert english.keys() == vietnamese.keys()
    for key, text in english.items():
        assert set(re.findall(r"\{(\w+)\}", text)) == set(re.findall(r"\{(\w+)\}", vietnamese[key])), key


def test_a_station_that_has_heard_nobody_has_no_posts() -> None:
    assert judge([], now_utc_ns=0, zone=dt.UTC) == []
