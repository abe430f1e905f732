"""Holds: what a person wants kept is kept, what cannot be is refused, and a command that comes late or twice is known."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agent import wire
from agent.clock import rfc3339
from agent.config import RecordingSettings
from agent.errors import ConfigError, Corrupt
from agent.recording.holds import HoldDesk, bytes_per_s, future_bytes, in_force, kept
from agent.recording.retention import Limits, RetentionWorker
from agent.recording.timeline import Timeline
from agent.store.store import HOLD_MEMORY_NS
from agent.types import NS, EndReason, Hold, Segment, TimeAnchor, UtcReading
from agent.uplink.commands import LASTING_S_MAX, LIFE_S_MAX, Judge, Refuse, Run, Verb
from tests.fakes.disk import FakeDisk
from tests.fakes.packets import encoded
from tests.fakes.recording_post import RecordingPost, closed_posts, whole  # noqa: F401

BOOT = "f" * 32
UTC = 1_700_000_000 * NS
START = 1000 * NS  # boot time of the first picture; UTC names the same moment
DAY = 86_400 * NS


def segment(n: int, size: int = 100) -> Segment:
    return Segment(f"segments/{n:08d}.mp4", 1, BOOT, n * NS, (n + 1) * NS, size, 1, "0" * 64, EndReason.ROLLED, 96, 64)


def hold(start: float, end: float, *, until: int | None = None, n: int = 0, released: str = "") -> Hold:
    return Hold(f"h{n}", round(start * NS), round(end * NS), until, "why", "who", n, released)


LINE = Timeline([TimeAnchor(BOOT, 0, 0, 0, "ntp")])


# -- what is held ------------------------------------------------------------------------------------------------------


def test_every_file_that_touches_the_range_is_held_and_no_other() -> None:
    found = kept([segment(n) for n in range(10)], [hold(3.5, 5.9)], LINE, 1 << 40)
    assert sorted(found.names) == [segment(n).name for n in (3, 4, 5)]
    assert (found.bytes, found.left_out) == (300, 0)


def test_where_the_clock_is_uncertain_rather_more_is_held() -> None:
    loose = Timeline([TimeAnchor(BOOT, 0, 0, 2 * NS, "ntp")])
    assert len(kept([segment(n) for n in range(10)], [hold(5.5, 5.9)], loose, 1 << 40).names) == 5
    nobody = Timeline([TimeAnchor(BOOT, 0, 0, None, "unsynchronised")])
    assert len(kept([segment(n) for n in range(10)], [hold(5, 6)], nobody, 1 << 40).names) == 10
    unplaced = Timeline([])
    assert not kept([segment(5)], [hold(5, 6)], unplaced, 1 << 40).names


def test_footage_is_held_by_every_time_that_it_has_gone_by() -> None:
    """The clock was an hour wrong when somebody asked, and somebody vouched for it; then it was corrected."""
    boot_id = segment(5).boot_id
    before = TimeAnchor(boot_id, 0, 0, 5, "ntp")
    after = TimeAnchor(boot_id, 20 * NS, 3620 * NS, 5, "ntp")
    corrected = Timeline([before, after])
    named = kept([segment(n) for n in range(9)], [hold(5, 6)], Timeline([before]), 1 << 40).names
    assert named
    assert kept([segment(n) for n in range(9)], [hold(5, 6)], corrected, 1 << 40).names == named
    assert kept([segment(n) for n in range(9)], [hold(3605, 3606, n=1)], corrected, 1 << 40).names == named
    assert not kept([segment(n) for n in range(9)], [hold(1800, 1801)], corrected, 1 << 40).names
    jitter = Timeline([before, TimeAnchor(boot_id, 20 * NS, 20 * NS + NS // 10, 4, "ntp")])
    assert len(jitter.labels(boot_id, 0)) == 1
    assert jitter.labels("e" * 32, 0) == []


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=5),
    st.lists(st.integers(1, 300), min_size=1, max_size=40),
    st.integers(0, 4000),
)
def test_what_was_held_stays_held_as_footage_comes_and_the_share_is_never_exceeded(
    ranges: list[tuple[int, int]], sizes: list[int], share: int
) -> None:
    """Recording goes on below a share that is too small: nothing that was held is let go for something newer."""
    holds = [hold(start, start + length, n=n) for n, (start, length) in enumerate(ranges)]
    segments = [segment(n, size) for n, size in enumerate(sizes)]
    for one in range(len(holds)):  # one after the other in time, as each was asked for
        before: frozenset[str] = frozenset()
        for count in range(len(segments) + 1):
            found = kept(segments[:count], holds[one : one + 1], LINE, share)
            assert before <= found.names
            before = found.names
    found = kept(segments, holds, LINE, share)
    assert found.bytes == sum(s.bytes for s in segments if s.name in found.names) <= share


def test_a_hold_ends_with_its_day_but_only_by_a_clock_that_somebody_vouches_for() -> None:
    holds = [hold(0, 1, until=50), hold(0, 1, n=1), hold(0, 1, n=2, released="released by hq")]
    assert [one.id for one in in_force(holds, 49)] == ["h0", "h1"]
    assert [one.id for one in in_force(holds, 50)] == ["h1"]
    assert [one.id for one in in_force(holds, None)] == ["h0", "h1"]


def test_the_future_is_priced_at_the_present_rate_and_overlaps_once() -> None:
    assert bytes_per_s([segment(n) for n in range(10)], 7.0) == 100
    assert bytes_per_s([], 7.0) == 7.0
    assert future_bytes([hold(0, 20), hold(15, 30, n=1), hold(0, 5, n=2)], 10 * NS, 100) == 2000


# -- the desk ----------------------------------------------------------------------------------------------------------


class Desk:
    """A post that has recorded nine seconds, and a desk for its holds."""

    def __init__(self, folder: Path, budget_bytes: float = 1e9) -> None:
        self.disk = FakeDisk(root=folder)
        self.post = RecordingPost(self.disk, folder).boot()
        self.settings = RecordingSettings(budget_gb=budget_bytes / 1e9)
        self.desk = HoldDesk(
            book=self.post.store,
            clock=self.post.clock,
            settings=self.settings,
            new_id=self.post.new_id,
            writing=lambda: self.post.recorder.state.writing,
            bitrate_kbps=2500,
        )
        self.post.feed(encoded(seconds=9))

    def ask(self, start: float, end: float, **more: Any) -> dict[str, Any]:
        """Times in seconds since the first picture."""
        told = {"from": rfc3339(UTC + round(start * NS)), "to": rfc3339(UTC + round(end * NS)), "reason": "theft"}
        return self.desk.hold(told | more, "headquarters")

    def retention(self, budget_bytes: int = 0) -> RetentionWorker:
        return RetentionWorker(
            limits=Limits(budget_bytes=budget_bytes, free_bytes_min=0, age_ns_max=0),
            disk=self.disk,
            index=self.post.store,
            clock=self.post.clock,
            report=self.post.events.extend,
            new_id=self.post.new_id,
            holds=self.desk,
        )

    def delete_all(self) -> None:
        worker, now = self.retention(), self.post.now()
        while worker.step(now) <= now:
            continue


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.post.recorder.close()


def test_held_footage_outlives_everything_until_it_is_released(at: Desk) -> None:
    first = at.post.store.segments()[0]
    answer = at.ask(0.5, 1.5)
    assert answer["summary"].startswith("1 s are there and held")
    assert answer["held_bytes"] == first.bytes
    at.delete_all()
    assert at.post.store.segments() == [first]
    assert at.desk.release({"hold": answer["id"]}, "headquarters")["was"] == "released by headquarters"
    at.delete_all()
    assert at.post.store.segments() == []
    writing = at.post.recorder.state.writing
    assert writing is not None and writing.name in at.disk.list("segments")


def test_a_range_that_is_partly_gone_and_partly_to_come_is_told_apart(at: Desk) -> None:
    segments = at.post.store.segments()
    at.post.store.condemn([segments[0].name], "budget")
    at.disk.unlink(segments[0].name)
    at.post.store.forget([segments[0].name])
    answer = at.ask(0, 20)
    assert "2 s had been deleted before this hold came" in answer["summary"]
    assert "s are still to come" in answer["summary"]
    assert sum(answer["seconds"].values()) == pytest.approx(20)
    kept_now = at.post.store.segments()
    at.delete_all()
    assert at.post.store.segments() == kept_now, "what was left of it is held"


def test_what_is_recorded_later_in_a_held_range_is_held_too(at: Desk) -> None:
    at.ask(8.2, 60)
    at.post.recorder.close()
    at.delete_all()
    assert [s.start_ns for s in at.post.store.segments()] == [START + 8 * NS]


def test_holds_cannot_take_more_than_their_share_and_the_refusal_says_what_to_do(tmp_path: Path) -> None:
    at = Desk(tmp_path, budget_bytes=100_000)
    with pytest.raises(ConfigError, match=r"refused: with it .* GB would be held .*hold_share_max.*shorter range"):
        at.ask(0, 3600)
    assert at.post.store.holds() == []
    answer = at.ask(0, 4)
    assert answer["held_bytes"] <= at.desk.bytes_max == 40_000
    with pytest.raises(ConfigError, match="release another"):
        at.ask(4, 30)
    at.post.recorder.close()


def test_the_same_command_twice_changes_nothing_and_a_released_one_does_not_come_back(at: Desk) -> None:
    one = at.ask(0, 2, id="c1")
    assert at.ask(0, 2, id="c1") == one
    assert len(at.post.store.holds()) == 1
    at.desk.release({"hold": "c1"}, "hq")
    assert at.desk.release({"hold": "c1"}, "hq")["was"] == "released by hq"
    with pytest.raises(Corrupt, match="has ended already"):
        at.ask(0, 2, id="c1")
    at.delete_all()
    assert at.post.store.segments() == []


def test_a_hold_that_is_over_ends_on_record(at: Desk) -> None:
    at.ask(0, 1.9, id="c1", until=rfc3339(UTC + 60 * NS))
    at.delete_all()
    assert len(at.post.store.segments()) == 1
    at.post.clock.advance(60)
    at.delete_all()
    assert at.post.store.segments() == []
    (known,) = at.post.store.holds()
    assert known.released == "its time was over"


def test_holds_and_releases_are_facts_for_the_ledger_in_the_same_transaction(at: Desk) -> None:
    at.ask(0, 2, id="c1")
    at.desk.release({"hold": "c1"}, "hq")
    assert [fact.kind for fact in at.post.store.facts(1000) if fact.kind in ("hold", "release")] == ["hold", "release"]


def test_a_hold_outlives_a_restart_and_is_forgotten_only_long_after_its_command_could_come_back(at: Desk) -> None:
    at.ask(0, 2, id="c1")
    at.desk.release({"hold": "c1"}, "hq")
    at.post.store.close()
    at.post.store.open()
    assert [one.released for one in at.post.store.holds()] == ["released by hq"]
    assert HOLD_MEMORY_NS > 2 * LASTING_S_MAX * NS
    at.post.store.add_hold(Hold("c2", 0, 1, None, "why", "who", UTC + 40 * DAY))
    assert len(at.post.store.holds()) == 2
    at.post.store.add_hold(Hold("c3", 0, 1, None, "why", "who", UTC + 63 * DAY))
    assert {one.id for one in at.post.store.holds()} == {"c2", "c3"}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "from: missing"),
        ({"from": 5}, "from: missing"),
        ({"from": "yesterday"}, "not a time"),
        ({"from": "2026-11-21T14:00Z", "to": "2026-11-21T13:00Z", "reason": "x"}, "is not after"),
        ({"from": "2023-11-01T14:00Z", "to": "2023-12-21T13:00Z", "reason": "x"}, "longer than 31 days"),
        ({"from": "2023-11-14T14:00Z", "to": "2023-11-14T15:00Z"}, "reason: say"),
        ({"from": "2023-11-14T14:00Z", "to": "2023-11-14T15:00Z", "reason": "  "}, "reason: say"),
        ({"from": "2026-11-14T14:00Z", "to": "2026-11-14T15:00Z", "reason": "x"}, "31 days ahead"),
        (
            {"from": "2023-11-14T14:00Z", "to": "2023-11-14T15:00Z", "reason": "x", "until": "2023-01-01T00:00Z"},
            "over already",
        ),
        (
            {"from": "2023-11-14T14:00Z", "to": "2023-11-14T15:00Z", "reason": "x", "until": "2029-01-01T00:00Z"},
            "hold_days_max",
        ),
        ({"from": "2023-11-14T14:00Z", "to": "2023-11-14T15:00Z", "reason": "x", "id": "a" * 99}, "id: at most"),
    ],
)
def test_what_is_no_hold_is_refused_in_one_line_and_nothing_is_held(at: Desk, args: dict[str, Any], words: str) -> None:
    with pytest.raises(Corrupt, match=words) as refused:
        at.desk.hold(args, "hq")
    assert "\n" not in str(refused.value)
    assert at.post.store.holds() == []


def test_an_unknown_release_says_where_the_ids_are(at: Desk) -> None:
    with pytest.raises(Corrupt, match="--list"):
        at.desk.release({"hold": "nobody"}, "hq")


# -- commands that must reach a dark post ------------------------------------------------------------------------------

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
NOW = UtcReading(UTC + 20 * DAY, 5_000_000, "ntp")


def command(
    verb: str, *, issued_ns: int = UTC, life_s: float = 21 * 86_400, key: Ed25519PrivateKey = KEY, n: int = 1
) -> bytes:
    """A signed command whose id says when it was issued."""
    ms = issued_ns // 1_000_000
    name = f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7000-8000-{n:012x}"
    bare = wire.Command(id=name, verb=verb, expires=rfc3339(issued_ns + round(life_s * NS)), args={})
    signature = base64.b64encode(key.sign(bare.signing_bytes("ward", "cam"))).decode()
    return wire.encode(wire.Command(id=name, verb=verb, expires=bare.expires, args={}, signature=signature))


def judge(key: bool = True) -> Judge:
    verbs = {
        "hold": Verb(lambda _: {}, acting=True, lasting=True, needs_time=False),
        "release": Verb(lambda _: {}, acting=True, lasting=True),
        "siren": Verb(lambda _: {}, acting=True),
    }
    return Judge(site="ward", node="cam", key=KEY.public_key() if key else None, verbs=verbs)


def decide(payload: bytes, verb: str, *, utc: UtcReading = NOW, by: Judge | None = None) -> str:
    decision = (by or judge()).judge(f"wardpost/v1/ward/cam/cmd/{verb}", payload, utc=utc, started_utc_ns=utc.utc_ns)
    return "run" if isinstance(decision, Run) else decision.reply.detail if isinstance(decision, Refuse) else "drop"


def test_a_hold_that_was_sent_while_the_post_was_dark_for_weeks_is_honoured_and_a_siren_is_not() -> None:
    assert decide(command("hold"), "hold") == "run"
    assert decide(command("release"), "release") == "run"
    assert "too far ahead" in decide(command("siren", issued_ns=NOW.utc_ns), "siren")
    assert "issued before" in decide(command("siren", issued_ns=NOW.utc_ns - 60 * NS, life_s=LIFE_S_MAX), "siren")


def test_a_hold_may_come_twice_for_its_id_is_known_in_the_store() -> None:
    one = judge()
    assert [decide(command("hold"), "hold", by=one) for _ in range(3)] == ["run"] * 3


def test_a_lasting_command_has_an_end_all_the_same_and_must_be_signed() -> None:
    assert decide(command("hold", life_s=19 * 86_400), "hold") == "expired"
    assert "too far ahead" in decide(command("hold", issued_ns=NOW.utc_ns, life_s=LASTING_S_MAX + 60), "hold")
    other = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
    assert "not signed by" in decide(command("hold", key=other), "hold")
    assert "no uplink.command_key" in decide(command("hold"), "hold", by=judge(key=False))


def test_without_a_clock_footage_is_kept_and_none_is_given_up() -> None:
    lost = UtcReading(0, None, "unsynchronised")
    assert decide(command("hold"), "hold", utc=lost) == "run"
    assert "not synchronised" in decide(command("release"), "release", utc=lost)


def test_the_post_is_whole_afterwards(at: Desk) -> None:
    at.ask(0, 2)
    at.delete_all()
    at.post.recorder.close()
    whole(at.post)


@pytest.mark.parametrize("word", ["from", "to", "until"])
@pytest.mark.parametrize("year", ["3026", "1600"])
def test_a_year_that_no_clock_of_ours_can_show_is_refused_whoever_vouches_for_the_time(
    at: Desk, word: str, year: str
) -> None:
    """Mistyped on a post without time: the database cannot hold such a number, and the node's socket broke off."""
    at.post.clock.set_unc(None)
    args = {"from": "2026-11-22T02:00:00Z", "to": "2026-11-22T03:00:00Z", "reason": "theft"}
    with pytest.raises(Corrupt, match=f"hold: {word}: .*{year}.* is not a time that is kept"):
        at.desk.hold(args | {word: f"{year}-11-22T02:30:00Z"}, "somebody")
    assert at.desk.listing()["holds"] == []


def test_a_reason_is_words_on_one_line_whatever_was_pasted(at: Desk) -> None:
    """It is printed on terminals by `wardpost hold --list`, at the post and at headquarters."""
    told = at.ask(-30, -10, reason="theft\n\x1b[31m of a\tbike \u202e")
    assert told["reason"] == "theft [31m of a bike"
