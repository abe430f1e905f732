"""WebRTC by aiortc: the recording's own packets to a browser, without encoding again. See `agent.live.Rtc`.

The library, its event loop and the thread of that loop come with the first viewer; loop and thread go with the last.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from agent.errors import ConfigError
from agent.live import Answered, Happening, Heard, Joined, Left
from agent.live.feed import Feed
from agent.live.request import Ice
from agent.types import NS

if TYPE_CHECKING:
    from aiortc import MediaStreamTrack, RTCPeerConnection

ANSWER_S_MAX = 12.0  # a STUN server that does not answer is waited for 5 s
CLOSE_S_MAX = 4.0
BETTER_S_MAX = 1.0
REPORTS_S = 1.0
RTP_HZ = 90_000
FRACTION = 256  # RFC 3550, 6.4.1: the fraction lost is in parts of it
HAPPENINGS_MAX = 256
RELAYED = " typ relay "
"""In SDP: an address that a TURN server lends."""
_SECTION = re.compile(r"^m=([^ \r\n]*)", re.MULTILINE)

log = logging.getLogger(__name__)


class AioRtc:
    """The driver."""

    def __init__(self) -> None:
        self.wake: Callable[[], None] | None = None
        self._happened: deque[Happening] = deque(maxlen=HAPPENINGS_MAX)
        self._peers: dict[str, list[RTCPeerConnection]] = {}  # of the loop; several while a way is looked for
        self._tasks: set[asyncio.Task[None]] = set()  # of the loop
        self._closing: set[asyncio.Future[None]] = set()  # of the loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None

    def answer(self, view: str, offer: str, ice: Sequence[Ice], feed: Feed) -> None:
        if importlib.util.find_spec("aiortc") is None:
            raise ConfigError("live: this post has no WebRTC: install wardpost[live], or ask for stills")
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._run, args=(self._loop,), name="live-rtc", daemon=True)
            self._thread.start()
        self._do(self._take_up(view, offer, tuple(ice), feed))

    def happenings(self) -> list[Happening]:
        found: list[Happening] = []
        while self._happened:
            found.append(self._happened.popleft())
        return found

    def hang_up(self, view: str) -> None:
        if self._loop is not None:
            self._do(self._drop(view))

    def close(self) -> None:
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), loop)
        thread.join(CLOSE_S_MAX)
        if thread.is_alive():
            log.error("live: the connections do not end; their thread is left behind")
            return
        self._happened.clear()

    # -- the thread of the loop ---------------------------------------------------------------------------------------

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        loop = self._loop
        if loop is None:
            work.close()
            return

        loop.call_soon_threadsafe(self._keep, work)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, happening: Happening) -> None:
        self._happened.append(happening)
        if self.wake is not None:
            self.wake()

    async def _take_up(self, view: str, offer: str, ice: tuple[Ice, ...], feed: Feed) -> None:
        if _SECTION.findall(offer) != ["video"]:  # aiortc would open sockets for the others, and not close them all
            self._tell(Left(view, "the offer cannot be met: one picture and nothing else is to be had"))
            return
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                peer = await self._connect(view, offer, ice, feed)
        except TimeoutError:
            await self._lose(view, "no address was found in time to be reached at")
        except Exception as error:  # noqa: BLE001  (a hostile offer may fail anywhere in the library; it costs one view)
            log.info("live: offer refused: %s: %s", type(error).__name__, error)
            await self._lose(view, f"the offer cannot be met ({type(error).__name__})")
        else:
            self._tell(Answered(view, peer.localDescription.sdp))
            await self._listen(view, peer)

    async def _connect(self, view: str, offer: str, ice: tuple[Ice, ...], feed: Feed) -> RTCPeerConnection:
        """A connection with an answer. The library uses one TURN server and waits in vain for one that a firewall shuts
        off; so each is tried at once, by a connection of its own. The first of the list that relays is kept; where a
        later one is ready before it, it has a moment more.
        """
        peers = self._peers[view] = []
        track = _relay(feed)
        for servers in ways(ice):
            peers.append(_peer(servers, track))
            peers[-1].on("connectionstatechange", partial(self._on_state, view, peers[-1]))
        chosen = None
        answers: dict[asyncio.Future[str], RTCPeerConnection] = {
            asyncio.ensure_future(_answer(peer, offer)): peer for peer in peers
        }
        try:
            left = set(answers)
            while left and _relaying(answers) is None:
                _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            before = takewhile(lambda one: answers[one] is not _relaying(answers), answers)
            if better := left.intersection(before):
                await asyncio.wait(better, timeout=BETTER_S_MAX)
            chosen = _relaying(answers) or peers[0]
        finally:
            for answer, peer in answers.items():
                if peer is not chosen:
                    self._keep(_part(answer, peer))
        if view in self._peers:
            self._peers[view] = [chosen]
        return chosen

    def _on_state(self, view: str, peer: RTCPeerConnection) -> None:
        if self._peers.get(view) != [peer]:
            return
        state = peer.connectionState
        if state == "connected":
            self._tell(Joined(view))
        elif state in ("failed", "closed"):
            del self._peers[view]
            self._tell(Left(view, "the viewer has gone" if state == "closed" else "the connection failed"))

    async def _listen(self, view: str, peer: RTCPeerConnection) -> None:
        """Tells of each receiver report, as long as there is somebody."""
        before: object = None
        while self._peers.get(view) == [peer]:
            await asyncio.sleep(REPORTS_S)
            for sender in peer.getSenders():
                for one in (await sender.getStats()).values():
                    if one.type == "remote-inbound-rtp" and one.timestamp != before:
                        before = one.timestamp
                        self._tell(Heard(view, one.fractionLost / FRACTION))

    async def _lose(self, view: str, why: str) -> None:
        await self._drop(view)
        self._tell(Left(view, why))

    async def _drop(self, view: str) -> None:
        closing = [asyncio.ensure_future(peer.close()) for peer in self._peers.pop(view, [])]
        for one in closing:
            self._closing.add(one)
            one.add_done_callback(self._closing.discard)
        for one in closing:
            await asyncio.shield(one)

    async def _end(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CLOSE_S_MAX / 2):
                await asyncio.gather(*(self._drop(view) for view in list(self._peers)), return_exceptions=True)
                # Those that were hung up a moment ago, too: cut short they would leave their sockets open.
                await asyncio.gather(*self._closing, return_exceptions=True)
        except TimeoutError:
            log.warning("live: some connections did not end in time")
        rest = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        loop.stop()


def ways(ice: Sequence[Ice]) -> list[list[Ice]]:
    """The servers of each connection that is tried: all of STUN, and one of TURN. Pure."""
    stun = [one for one in ice if one.url.startswith("stun:")]
    return [[*stun, one] for one in ice if one not in stun] or [stun]


def _peer(servers: Sequence[Ice], track: MediaStreamTrack) -> RTCPeerConnection:
    from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCRtpSender

    known = [RTCIceServer(one.url, one.username or None, one.credential or None) for one in servers]
    # Not None where there are none: that would mean a server of the library's choice, on the internet.
    peer = RTCPeerConnection(RTCConfiguration(iceServers=known))
    peer.addTrack(track)
    wanted = ("video/H264", "video/rtx")
    h264 = [one for one in RTCRtpSender.getCapabilities("video").codecs if one.mimeType in wanted]
    peer.getTransceivers()[0].setCodecPreferences(h264)
    return peer


async def _answer(peer: RTCPeerConnection, offer: str) -> str:
    """Its SDP, with every address that was found."""
    from aiortc import RTCSessionDescription

    await peer.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
    await peer.setLocalDescription(await peer.createAnswer())
    return str(peer.localDescription.sdp)


def _relaying(answers: dict[asyncio.Future[str], RTCPeerConnection]) -> RTCPeerConnection | None:
    """The first whose answer has an address that a server lends. Raises what an answer failed with."""
    return next((peer for one, peer in answers.items() if one.done() and RELAYED in one.result()), None)


async def _part(answer: asyncio.Future[str], peer: RTCPeerConnection) -> None:
    """Closes a connection that is not wanted, once it looks for addresses no more: what it found later stayed open."""
    try:
        await asyncio.wait([answer])
        if not answer.cancelled():
            answer.exception()
    finally:
        await peer.close()


def _relay(feed: Feed) -> MediaStreamTrack:
    """A track whose packets are those of the recording. On the loop's thread, which it belongs to."""
    import av
    from aiortc import MediaStreamTrack
    from aiortc.mediastreams import MediaStreamError

    class Relay(MediaStreamTrack):
        """aiortc sends what is a packet already as it is (`H264Encoder.pack`)."""

        kind = "video"

        def __init__(self) -> None:
            super().__init__()
            loop, self._arrived = asyncio.get_running_loop(), asyncio.Event()
            self._first_ns: int | None = None

            def wake() -> None:
                with suppress(RuntimeError):  # the loop has ended: it must not cost the camera's thread anything
                    loop.call_soon_threadsafe(self._arrived.set)

            feed.wake = wake

        async def recv(self) -> Any:
            while (packet := feed.take()) is None:
                if self.readyState != "live":
                    raise MediaStreamError
                self._arrived.clear()
                if len(feed):
                    continue
                await self._arrived.wait()
            if self._first_ns is None:
                self._first_ns = packet.boot_ns
            made: av.Packet[Any] = av.Packet(packet.data)
            made.pts = (packet.boot_ns - self._first_ns) * RTP_HZ // NS
            made.time_base = Fraction(1, RTP_HZ)
            return made

    return Relay()
