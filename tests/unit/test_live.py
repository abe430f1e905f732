"""A live view at the node: who is let in, on record, for how long, and what he sees. The clock is driven."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

from agent import wire
from agent.config import LiveSettings
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from agent.live.feed import WAITING_BYTES_MAX, Feed, Gallery
from agent.live.request import SDP_BYTES_MAX, Begin, Ice, parse
from agent.live.rtc import ways
from agent.live.worker import ASKED_MAX, LiveWorker
from agent.types import NS, Packet, VideoFormat
from tests.fakes.clock import FakeClock
from tests.fakes.live import FakeRtc
from tests.fakes.packets import encoded

OFFER = "v=0\r\nm=video 9"


def view_id(number: int) -> str:
    return f"01900000-0000-7000-8000-{number:012x}"


def begin(number: int = 1, **more: Any) -> dict[str, Any]:
    asked = {"do": "begin", "mode": "video", "by": "Lan", "reason": "a call", "seconds": 60, "offer": OFFER}
    if more.get("mode") == "stills":
        del asked["offer"]
    return asked | {"id": f"c{number}", "view": view_id(number)} | more


@dataclass(frozen=True)
class Shot:
    number: int
    boot_ns: int
    jpeg: bytes


class Camera:
    """Stills out of vision's frames: one each time that it is asked."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.number = 0
        self.frozen: Shot | None = None
        self.jpeg = b"\xff\xd8 picture"

    def still(self, *, after: int, wait_s: float) -> Shot | None:
        assert wait_s == 0, "the worker must not wait for a picture"
        if self.frozen is not None:
            return self.frozen if self.frozen.number > after else None
        self.number += 1
        return Shot(self.number, self._clock.boot_ns(), self.jpeg)


class Post:
    """A node with a live worker, and everything that it told."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.rtc = FakeRtc()
        self.recorded: list[Packet] = []
        self.gallery = Gallery(self._record)
        self.camera = Camera(self.clock)
        self.private_s = 0.0
        self.full = False
        self.notes: list[dict[str, Any]] = []
        self.replies: list[wire.Reply] = []
        self.worker = LiveWorker(
            settings=LiveSettings(**settings),
            clock=self.clock,
            rtc=self.rtc,
            gallery=self.gallery,
            stills=self.camera,
            privacy_left_s=lambda: self.private_s,
            note=self._note,
            reply=self.replies.append,
        )
        self.worker.open()

    def _record(self, packet: Packet) -> bool:
        self.recorded.append(packet)
        return True

    def _note(self, body: bytes) -> None:
        if self.full:
            raise Transient("the card is full")
        self.notes.append(msgspec.json.decode(body))

    def ask(self, args: dict[str, Any]) -> None:
        assert self.worker.take(args) == {"pending": True}
        self.run(0)

    def run(self, seconds: float, *, watched: str = "", lost: float = 0.0) -> None:
        """`watched`: a view whose browser reports each second, and which share did not arrive."""
        for step in range(round(seconds * 4) + 1):
            if watched and step % 4 == 0:
                self.rtc.report(watched, lost)
            self.worker.step(self.clock.boot_ns() / NS)
            if seconds:
                self.clock.advance(0.25)

    def told(self, command: str) -> wire.Reply:
        return [one for one in self.replies if one.id == command][-1]

    def watch(self, number: int = 1, **more: Any) -> str:
        """Lets somebody in and connects him."""
        self.ask(begin(number, **more))
        self.run(0)
        self.rtc.join(view_id(number))
        self.run(0)
        return view_id(number)


@pytest.fixture
def post() -> Iterator[Post]:
    made = Post()
    yield made
    made.worker.close()


def test_a_view_from_the_question_to_its_end(post: Post) -> None:
    view = post.watch(case="7/26")
    answer = post.replies[0]
    assert (answer.id, answer.state, answer.result["sdp"]) == ("c1", "accepted", "v=0\r\nm=video 9 the answer")
    assert answer.result["watching"] == ["Lan"] and answer.result["left_s"] == 60.0
    assert post.notes[0] == {
        "view": view, "what": "began", "mode": "video", "by": "Lan", "reason": "a call", "case": "7/26",
        "seconds": 60.0, "command": "c1",
    }  # fmt: skip
    packets = encoded(seconds=2.0)
    for packet in packets:
        assert post.gallery.offer(packet)
    feed = post.rtc.feeds[view]
    shown = [feed.take() for _ in packets]
    assert tuple(shown) == packets == tuple(post.recorded), "what is recorded is what is shown"
    post.run(58, watched=view)
    assert post.worker.watching == ("Lan",)
    post.run(4, watched=view)
    assert not post.worker.watching and not post.rtc.running, "nothing is left of it"
    assert post.told("c1").result["over"] == "its time was over"
    assert post.notes[1]["what"] == "ended" and post.notes[1]["how"] == "its time was over"
    assert 60 <= post.notes[1]["seconds"] <= 60.5 and post.notes[1]["pictures"] == len(packets)
    assert post.worker.step(post.clock.boot_ns() / NS) - post.clock.boot_ns() / NS > 3000, "it sleeps"


def test_who_goes_on_looking_asks_again(post: Post) -> None:
    view = post.watch()
    post.run(50, watched=view)
    post.ask({"id": "c2", "view": view, "do": "more", "seconds": 60})
    assert post.told("c2").state == "done" and post.told("c2").result["left_s"] == 60.0
    post.run(55, watched=view)
    assert post.worker.watching == ("Lan",)
    post.ask({"id": "c3", "view": view, "do": "end"})
    assert post.told("c1").result["over"] == "ended by headquarters" and post.told("c3").state == "done"
    post.ask({"id": "c4", "view": view, "do": "more", "seconds": 60})
    assert post.told("c4").state == "failed" and "it is over" in post.told("c4").detail
    post.ask({"id": "c5", "view": view, "do": "end"})
    assert post.told("c5").state == "done", "to end it twice is no error"


def test_nobody_is_let_in_who_cannot_be_put_on_record(post: Post) -> None:
    post.full = True
    post.ask(begin())
    assert post.told("c1").state == "failed" and "the card is full" in post.told("c1").detail
    assert not post.rtc.running and post.worker.watching == ()


def test_an_end_that_the_card_refuses_is_put_on_record_later(post: Post) -> None:
    view = post.watch()
    post.full = True
    post.ask({"id": "c2", "view": view, "do": "end"})
    assert [one["what"] for one in post.notes] == ["began"]
    post.full = False
    post.run(1)
    assert [one["what"] for one in post.notes] == ["began", "ended"]


def test_privacy_ends_it_at_once_and_lets_nobody_in(post: Post) -> None:
    view = post.watch()
    packets = encoded(seconds=2.0)
    for packet in packets[:10]:
        post.gallery.offer(packet)
    feed = post.rtc.feeds[view]
    post.gallery.cut()  # the switch itself: before any thread of ours has run
    for packet in packets[10:]:
        post.gallery.offer(packet)
    assert feed.take() is None, "neither what waited nor what came"
    assert tuple(post.recorded) == packets, "the recorder has its own rule"
    post.private_s = 30.0
    post.run(0)
    assert post.told("c1").result["over"] == "the privacy switch is on" and view not in post.rtc.feeds
    with pytest.raises(ConfigError, match="privacy switch is on, for 30 s"):
        post.worker.take(begin(2))


def test_privacy_between_the_question_and_its_turn(post: Post) -> None:
    post.worker.take(begin())
    post.private_s = 30.0
    post.run(0)
    assert post.told("c1").state == "failed" and not post.notes


@pytest.mark.parametrize(("joined", "after_s"), [(True, 10), (False, 20)])
def test_who_is_not_heard_makes_room(joined: bool, after_s: float) -> None:
    post = Post(viewers_max=1)
    if joined:
        post.watch()
    else:
        post.ask(begin())
    post.ask(begin(2))
    assert post.told("c2").detail == "live: 1 watch already, and more may not: Lan"
    post.run(after_s - 1)
    assert post.worker.watching == ("Lan",)
    post.run(2)
    assert post.told("c1").result["over"] == ("the viewer has gone" if joined else "no connection came about")
    post.watch(3)
    assert post.worker.watching == ("Lan",)


def test_stills_have_places_of_their_own() -> None:
    """Around a bell the boards of a whole station show them: who needs video is let in all the same, and the reverse."""
    post = Post(viewers_max=1, still_viewers_max=2)
    for number in (1, 2, 3):
        post.ask(begin(number, mode="stills", by=f"Board {number}"))
    assert post.told("c3").detail == "live: 2 watch already, and more may not: Board 1, Board 2"
    post.watch(4)
    post.ask(begin(5))
    assert post.told("c5").detail == "live: 1 watch already, and more may not: Lan"
    assert post.worker.watching == ("Board 1", "Board 2", "Lan")


def test_a_network_that_loses_too_much_is_not_filled_any_longer(post: Post) -> None:
    view = post.watch()
    post.run(30, watched=view, lost=0.3)
    post.run(7, watched=view, lost=0.5)
    post.run(1, watched=view, lost=0.1)
    post.run(7, watched=view, lost=0.9)
    assert post.worker.watching == ("Lan",), "it was better in between"
    post.run(3, watched=view, lost=0.9)
    assert post.told("c1").result["over"] == post.notes[-1]["how"] == "the network is too thin for video"


def test_a_connection_that_fails_is_told(post: Post) -> None:
    view = post.watch()
    post.rtc.leave(view)
    post.run(0)
    assert (
        post.told("c1").result["over"] == "the connection failed" and post.notes[-1]["how"] == "the connection failed"
    )


def test_a_post_without_the_library_says_so_and_gives_stills(post: Post) -> None:
    post.rtc.missing = True
    post.ask(begin())
    assert "install wardpost[live]" in post.told("c1").result["over"]
    post.ask(begin(2, mode="stills"))
    post.run(0)
    assert post.told("c2").result["still"] == 1


def test_stills_come_at_the_stated_rate_and_only_when_the_one_before_has_arrived(post: Post) -> None:
    post.ask(begin(mode="stills"))
    assert post.replies[0].result["period_s"] == 2.0, "the rate is stated before the first"
    first = post.told("c1").result
    assert base64.b64decode(first["jpeg"]) == b"\xff\xd8 picture" and first["still"] == 1 and first["age_ms"] == 0
    post.run(5)
    assert post.told("c1").result["still"] == 1, "the network is slower than that"
    for number in range(1, 6):
        post.ask({"id": "m", "view": view_id(1), "do": "more", "seconds": 0, "got": post.told("c1").result["still"]})
        before = len([one for one in post.replies if "jpeg" in one.result])
        post.run(1.5)
        assert len([one for one in post.replies if "jpeg" in one.result]) <= before + 1, number
        post.run(1)
    stills = [one for one in post.replies if "jpeg" in one.result]
    assert len(stills) == 6 and not post.rtc.running, "none of it needs WebRTC"
    post.run(21)
    assert post.told("c1").result["over"] == "nobody looks at the page any more"
    assert post.notes[-1]["pictures"] >= 6


def test_a_still_that_was_lost_is_followed_by_the_next(post: Post) -> None:
    post.ask(begin(mode="stills"))
    for _ in range(3):  # the page looks, and nothing arrives
        post.ask({"id": "m", "view": view_id(1), "do": "more", "seconds": 0, "got": 0})
        post.run(4)
    assert len([one for one in post.replies if "jpeg" in one.result]) == 2


def test_a_still_of_before_is_not_shown_as_now(post: Post) -> None:
    post.camera.frozen = Shot(7, post.clock.boot_ns() - 4 * NS, b"\xff\xd8 of before the privacy switch")
    post.ask(begin(mode="stills"))
    post.run(3)
    assert not [one for one in post.replies if "jpeg" in one.result]


def test_a_camera_whose_pictures_are_out_of_order_says_what_to_do(post: Post) -> None:
    view = post.watch()
    for packet in encoded(seconds=2.0, b_frames=2):
        post.gallery.offer(packet)
    post.run(0)
    assert "ask for stills" in post.told("c1").result["over"] and view not in post.rtc.feeds


def test_a_stop_of_the_node_ends_it_on_record(post: Post) -> None:
    post.watch()
    post.worker.close()
    assert post.notes[-1]["how"] == "the node stops" and not post.rtc.running


def test_a_post_may_give_no_live_view_and_more_commands_than_it_takes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"live\.enabled"):
        Post(enabled=False).worker.take(begin())
    post = Post()
    for number in range(ASKED_MAX):
        post.worker.take(begin(number))
    with pytest.raises(Transient, match="too many"):
        post.worker.take(begin(99))


# -- the way of the packets ----------------------------------------------------------------------------------------------


def test_a_feed_begins_at_a_key_frame_and_drops_whole_groups(post: Post) -> None:
    feed = Feed()
    packets = encoded(seconds=12.0)  # a key frame each half second
    for packet in packets[3:]:
        feed.offer(packet)
    taken = list(iter(feed.take, None))
    assert taken[0].keyframe and taken[-1] == packets[-1]
    assert taken[-1].dts_ns - taken[0].dts_ns <= 2 * NS, "who is slow sees what is now"
    first = packets.index(taken[0])
    assert tuple(taken) == packets[first:] and feed.dropped == len(packets) - 3 - len(taken)


def test_a_feed_is_bounded_in_bytes_whatever_comes() -> None:
    feed = Feed()
    huge = Packet(NS, NS, keyframe=True, data=b"x" * (WAITING_BYTES_MAX // 2), video=VideoFormat(640, 480))
    for number in range(20):
        feed.offer(replace(huge, boot_ns=NS + number, dts_ns=NS + number))
        assert feed._bytes <= WAITING_BYTES_MAX + len(huge.data)
    feed.cut()
    feed.offer(huge)
    assert feed.take() is None


def test_the_recorders_answer_is_the_answer(post: Post) -> None:
    gallery = Gallery(lambda _: False)
    gallery.add(feed := Feed())
    assert gallery.offer(encoded()[0]) is False and feed.take() is not None
    gallery.remove(feed)
    gallery.offer(encoded()[0])
    assert feed.take() is None


# -- what a command may say ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"view": "../../x"}, "UUID"),
        ({"do": "watch"}, "not begin, more or end"),
        ({"by": " "}, "give by and reason"),
        ({"reason": ""}, "give by and reason"),
        ({"reason": "x" * 101}, "100 characters"),
        ({"by": "a\nb"}, "100 characters"),
        ({"mode": "radar"}, "not video or stills"),
        ({"seconds": 0}, "for how long"),
        ({"seconds": True}, "not a time"),
        ({"seconds": float("nan")}, "not a time"),
        ({"offer": ""}, "needs one"),
        ({"offer": "v=0" + "x" * SDP_BYTES_MAX}, "bytes at most"),
        ({"mode": "stills", "offer": OFFER}, "stills have none"),
        ({"ice": [{}] * 5}, "4 servers"),
        ({"ice": [{"url": "http://example.org"}]}, "not stun"),
        ({"ice": ["stun:x"]}, "url, username"),
        ({"do": "more", "got": -1}, "number of a still"),
        ({"do": "more", "got": True}, "number of a still"),
    ],
)
def test_a_command_that_is_none_is_refused_in_one_line(more: dict[str, Any], why: str) -> None:
    with pytest.raises(Corrupt, match=why) as caught:
        parse(begin() | more)
    assert isinstance(caught.value, WardpostError) and "\n" not in str(caught.value)


def test_each_relay_is_a_way_of_its_own() -> None:
    stun, udp, tls = Ice("stun:a"), Ice("turn:a?transport=udp", "u", "p"), Ice("turns:a:443", "u", "p")
    assert ways(()) == [[]] and ways((stun,)) == [[stun]]
    assert ways((stun, udp)) == [[stun, udp]]
    assert ways((udp, stun, tls)) == [[stun, udp], [stun, tls]]


def test_servers_are_handed_on(post: Post) -> None:
    servers = [{"url": "turn:hq.example:3478", "username": "u", "credential": "p"}, {"url": "stun:hq.example"}]
    asked = parse(begin(ice=servers))
    assert isinstance(asked, Begin) and [one.url for one in asked.ice] == ["turn:hq.example:3478", "stun:hq.example"]
    post.watch(ice=servers)
    assert post.rtc.ice[view_id(1)][0].credential == "p"
