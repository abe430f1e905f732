"""What a node may count on from WebRTC: the driver and its fake alike."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from agent.live import Answered, Happening, Left, Rtc
from agent.live.feed import Feed
from agent.live.request import Ice
from agent.live.rtc import AioRtc
from tests.fakes.live import FakeRtc


@pytest.fixture(params=[AioRtc, FakeRtc])
def rtc(request: pytest.FixtureRequest) -> Iterator[Rtc]:
    made: Rtc = request.param()
    yield made
    made.close()
    assert not made.running and "live-rtc" not in [thread.name for thread in threading.enumerate()]


def first(rtc: Rtc) -> Happening:
    by = time.monotonic() + 60
    while time.monotonic() < by:
        found = rtc.happenings()
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError("nothing happened")


@pytest.fixture(scope="module")
def offer() -> str:
    async def make() -> str:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.addTransceiver("video", direction="recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        sdp = str(peer.localDescription.sdp)
        await peer.close()
        return sdp

    return asyncio.run(make())


def test_it_has_no_thread_before_somebody_wants_to_see(rtc: Rtc) -> None:
    assert not rtc.running and rtc.happenings() == []
    rtc.hang_up("nobody")
    rtc.close()
    assert not rtc.running


def test_an_offer_is_answered_and_the_worker_is_woken(rtc: Rtc, offer: str) -> None:
    woken = threading.Event()
    rtc.wake = woken.set
    rtc.answer("one", offer, (), Feed())
    assert rtc.running and woken.wait(60)
    happened = first(rtc)
    assert isinstance(happened, Answered) and happened.view == "one"
    assert happened.sdp.startswith("v=0") and "m=video" in happened.sdp
    rtc.hang_up("one")
    rtc.close()
    assert not rtc.running and rtc.happenings() == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: "v=0\r\n",
        lambda _: "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n",
        lambda sdp: sdp.replace("m=video", "m=\x00"),
        lambda _: "v=0 " + "a" * 4000,
    ],
)
def test_an_offer_that_is_none_costs_one_view(rtc: Rtc, offer: str, spoil: Callable[[str], str]) -> None:
    rtc.answer("bad", spoil(offer), (), Feed())
    happened = first(rtc)
    assert isinstance(happened, Left) and "cannot be met" in happened.why
    rtc.answer("good", offer, (), Feed())
    assert isinstance(first(rtc), Answered)


def test_it_comes_back_after_the_last_viewer_has_gone(rtc: Rtc, offer: str) -> None:
    for view in ("one", "two"):
        rtc.answer(view, offer, (), Feed())
        assert isinstance(first(rtc), Answered)
        rtc.close()
        assert not rtc.running


def test_it_may_be_closed_while_a_way_is_looked_for(offer: str) -> None:
    """Two TURN servers, of which one never answers and the other is not there: nothing of either stays open."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(60)
        port = silent.getsockname()[1]
        rtc = AioRtc()
        servers = (
            Ice(f"turn:127.0.0.1:{port}?transport=udp", "u", "p"),
            Ice("turn:127.0.0.1:1?transport=tcp", "u", "p"),
        )
        rtc.answer("one", offer, servers, Feed())
        assert silent.recv(2048), "it has asked"
        rtc.close()
    assert not rtc.running and rtc.happenings() == []
    gc.collect()  # a socket that was left open would be said here


def test_without_the_library_the_refusal_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(Exception, match=r"install wardpost\[live\], or ask for stills"):
        AioRtc().answer("one", "v=0", (), Feed())


def test_importing_the_node_does_not_load_the_library() -> None:
    import subprocess

    code = "import sys, agent.main; sys.exit('aiortc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
