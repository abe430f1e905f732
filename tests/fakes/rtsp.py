"""A camera that speaks RTSP (RFC 2326) with RTP interleaved in TCP, on a port of its own, with faults to order.

SPS and PPS are sent in the session description only, as many cameras do.
"""

from __future__ import annotations

import base64
import math
import random
import socket
import struct
import threading
import time
from collections.abc import Sequence
from enum import StrEnum

from agent.camera import h264


class Fault(StrEnum):
    """What the camera does wrong."""

    NONE = "none"
    SILENT = "silent"  # accepts the connection and never answers
    HANGS = "hangs"  # sends for a second, then nothing, connection open
    RESETS = "resets"  # sends for a second, then resets the connection
    RUBBISH = "rubbish"  # sends RTP whose payload is random
    DENIES = "denies"  # 401, whatever the password


class RtspServer:
    """Serves `units` (key frame, Annex B) in a loop at `fps`, to any number of clients, until `close`.

    With `epoch_s` (time.monotonic) all clients see the same scene at the same moment, as before a real camera, each
    from the next key frame on; without it each begins with the first unit.
    """

    def __init__(
        self,
        units: Sequence[tuple[bool, bytes]],
        *,
        fps: int,
        fault: Fault = Fault.NONE,
        epoch_s: float | None = None,
    ) -> None:
        self.fault = fault
        self._epoch_s = epoch_s
        self.clients = 0  # sessions that reached PLAY
        self._units = units
        self._fps = fps
        self._stop = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.port: int = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def url(self, user: str = "") -> str:
        return f"rtsp://{user + '@' if user else ''}127.0.0.1:{self.port}/stream1"

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=3)
        self._socket.close()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._socket.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(0.1)
        with client:
            try:
                if self.fault is Fault.SILENT:
                    self._stop.wait()
                elif self._greet(client):
                    self.clients += 1
                    self._send(client)
            except OSError:
                return

    def _greet(self, client: socket.socket) -> bool:
        """Answers requests up to PLAY."""
        buffer = b""
        while not self._stop.is_set():
            try:
                got = client.recv(4096)
            except TimeoutError:
                continue
            if not got:
                return False
            buffer += got
            while b"\r\n\r\n" in buffer:
                request, _, buffer = buffer.partition(b"\r\n\r\n")
                lines = request.decode().split("\r\n")
                verb = lines[0].split()[0]
                sequence = next(line.split(":")[1].strip() for line in lines if line.lower().startswith("cseq"))
                client.sendall(self._answer(verb, sequence))
                if verb == "PLAY":
                    return True
        return False

    def _answer(self, verb: str, sequence: str) -> bytes:
        if self.fault is Fault.DENIES:
            challenge = 'WWW-Authenticate: Basic realm="camera"'
            return f"RTSP/1.0 401 Unauthorized\r\nCSeq: {sequence}\r\n{challenge}\r\n\r\n".encode()
        head = f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\nSession: 12345678\r\n"
        if verb == "OPTIONS":
            head += "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif verb == "SETUP":
            head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        elif verb == "DESCRIBE":
            sets = list(h264.nals(h264.parameter_sets(self._units[0][1])))
            sprop = ",".join(base64.b64encode(nal).decode() for nal in sets)
            body = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
                "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
                f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sprop}\r\na=control:track1\r\n"
            )
            return f"{head}Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        return f"{head}\r\n".encode()

    def _send(self, client: socket.socket) -> None:
        client.settimeout(30)
        rng = random.Random(1)
        sequence = 100
        number = self._next_key()
        while not self._stop.wait(self._pause_s(number)):
            if number > self._fps and self.fault is Fault.HANGS:
                self._stop.wait()
                return
            if number > self._fps and self.fault is Fault.RESETS:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            _, data = self._units[number % len(self._units)]
            slices = [nal for nal in h264.nals(data) if nal[0] & 0x1F not in {h264.SPS, h264.PPS}]
            if self.fault is Fault.RUBBISH:
                slices = [b"\x65" + rng.randbytes(600)]
            burst = b""
            for at, nal in enumerate(slices):
                for payload, last in _payloads(nal):
                    sequence = (sequence + 1) & 0xFFFF
                    marker = 0x80 if last and at == len(slices) - 1 else 0
                    stamp = (1_000_000 + number * 90_000 // self._fps) & 0xFFFFFFFF
                    rtp = struct.pack("!BBHII", 0x80, 96 | marker, sequence, stamp, 0x5EED) + payload
                    burst += b"$\x00" + struct.pack("!H", len(rtp)) + rtp
            client.sendall(burst)
            number += 1

    def _next_key(self) -> int:
        """Number of the picture to begin with."""
        if self._epoch_s is None:
            return 0
        number = math.ceil((time.monotonic() - self._epoch_s) * self._fps)
        while not self._units[number % len(self._units)][0]:
            number += 1
        return number

    def _pause_s(self, number: int) -> float:
        """Until picture `number` is sent."""
        if self._epoch_s is None:
            return 1 / self._fps
        return max(self._epoch_s + number / self._fps - time.monotonic(), 0.0)


def _payloads(nal: bytes, size: int = 1400) -> list[tuple[bytes, bool]]:
    """RTP payloads of a NAL unit (RFC 6184): itself, or fragments (FU-A). The flag marks the last."""
    if len(nal) <= size:
        return [(nal, True)]
    indicator, kind, body = nal[0] & 0x60 | 28, nal[0] & 0x1F, nal[1:]
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    made = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        flags = (0x80 if index == 0 else 0) | (0x40 if last else 0)
        made.append((bytes([indicator, flags | kind]) + part, last))
    return made
