"""What the technician is told of the world: real streams, before the node has started."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.camera import CameraLost
from agent.clock import SystemClock
from agent.config import CameraSettings, Config, NodeSettings, UplinkSettings
from agent.errors import ConfigError, Transient
from agent.folder import DataLock
from agent.technician import _brokers, sub_stream
from tests.fakes.packets import encoded
from tests.fakes.rtsp import Fault, RtspServer


def settings(folder: Path, sub_url: str, *, masked: bool = False) -> Config:
    return Config(
        node=NodeSettings(site="ward-7", id="gate-2", data=str(folder)),
        camera=CameraSettings(
            driver="stream",
            url="rtsp://camera/main",
            sub_url=sub_url,
            privacy_masks=(((0.0, 0.0), (0.5, 0.0), (0.0, 0.5)),) if masked else (),
        ),
        uplink=UplinkSettings(brokers=("mqtt://127.0.0.1:1",)),
    )


@pytest.fixture
def small() -> Iterator[RtspServer]:
    server = RtspServer([(packet.keyframe, packet.data) for packet in encoded(seconds=4.0)], fps=10)
    yield server
    server.close()


def test_a_sub_stream_is_opened_and_told(tmp_path: Path, small: RtspServer) -> None:
    told = sub_stream(settings(tmp_path, small.url("user:secret")), SystemClock())
    assert "h264 96x64, looked at in place of camera.url" in told
    assert "secret" not in told
    assert sub_stream(settings(tmp_path, ""), SystemClock()) == "", "nothing to say where there is none"


def test_a_sub_stream_that_saves_nothing_is_told_with_what_to_do(tmp_path: Path, small: RtspServer) -> None:
    with pytest.raises(ConfigError, match=r"encoded again for camera\.privacy_masks and looked at: leave it empty"):
        sub_stream(settings(tmp_path, small.url(), masked=True), SystemClock())
    large = RtspServer([(p.keyframe, p.data) for p in encoded(seconds=2.0, width=1280, height=720)], fps=10)
    try:
        with pytest.raises(ConfigError, match="1280x720 is hardly a small stream"):
            sub_stream(settings(tmp_path, large.url()), SystemClock())
    finally:
        large.close()
    small.fault = Fault.DENIES
    with pytest.raises(ConfigError, match="refused the user name or password"):
        sub_stream(settings(tmp_path, small.url()), SystemClock())
    small.close()
    with pytest.raises(CameraLost):
        sub_stream(settings(tmp_path, small.url()), SystemClock())


class CountingBroker:
    """A port that a broker might listen on. It remembers what comes first on each connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._socket.accept()
            except OSError:
                return
            with one:
                one.settimeout(30)
                said = one.recv(64)
                if said:
                    one.sendall(b"\x20\x02\x00\x00")  # CONNACK: welcome
                self.heard.append(said)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


def test_check_beside_a_node_that_does_not_answer_says_nothing_in_its_name(tmp_path: Path) -> None:
    """At a broker that takes the client id from the certificate, a CONNECT of ours would end the node's own session."""
    broker = CountingBroker()
    try:
        known = msgspec.structs.replace(
            settings(tmp_path, ""), uplink=UplinkSettings(brokers=(f"mqtt://127.0.0.1:{broker.port}",))
        )
        with DataLock(tmp_path).take(SystemClock()):
            told = _brokers(known, SystemClock())
        assert "listens; whether it accepts this node is not tried" in told
        assert "accepts us" in _brokers(known, SystemClock()), "no node runs: it is tried"
    finally:
        broker.close()
    assert broker.heard[0] == b"" and broker.heard[1][:1] == b"\x10", "MQTT's CONNECT only where no node runs"
    with DataLock(tmp_path).take(SystemClock()), pytest.raises(Transient, match="refused"):
        _brokers(known, SystemClock())
