"""A viewer without a browser: an aiortc peer as a process of its own, so that it can be killed.

Prints its offer (one line of JSON), reads the answer (one line), then prints one line for each picture: the SHA-256 of
its luma plane.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError


def luma_sha256(frame: av.VideoFrame) -> str:
    """What a decoder made of a picture; the same for the same packets."""
    return hashlib.sha256(np.ascontiguousarray(frame.to_ndarray()[: frame.height]).tobytes()).hexdigest()


async def main() -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    over = asyncio.Event()
    tasks = set()

    async def show(track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.VideoFrame)
                print(json.dumps({"sha256": luma_sha256(frame), "pts": frame.pts}), flush=True)
        except MediaStreamError:
            over.set()

    def on_track(track: MediaStreamTrack) -> None:
        tasks.add(asyncio.ensure_future(show(track)))

    def on_state() -> None:
        print(json.dumps({"state": peer.connectionState}), flush=True)
        if peer.connectionState in ("failed", "closed"):
            over.set()

    peer.on("track", on_track)
    peer.on("connectionstatechange", on_state)
    peer.addTransceiver("video", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    print(json.dumps({"sdp": peer.localDescription.sdp}), flush=True)
    answer = json.loads(await asyncio.to_thread(sys.stdin.readline))
    await peer.setRemoteDescription(RTCSessionDescription(sdp=answer["sdp"], type="answer"))
    await over.wait()
    await peer.close()


if __name__ == "__main__":
    asyncio.run(main())
