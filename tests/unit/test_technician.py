"""What the technician is told of the world: real streams, before the node has started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.camera import CameraLost
from agent.clock import SystemClock
from agent.config import CameraSettings, Config, NodeSettings, UplinkSettings
from agent.errors import ConfigError
from agent.technician import sub_stream
from tests.fakes.packets import encoded
from tests.fakes.rtsp import Fault, RtspServer


def settings(folder: Path, sub_url: str, *, masked: bool = False) -> Config:
    return Config(
        node=NodeSettings(site="ward-7", id="gate-2", data=str(folder)),
        camera=CameraSettings(
            driver="stream",
            url="rtsp://camera/main",
            sub_url=sub_url,
            masks=(((0.0, 0.0), (0.5, 0.0), (0.0, 0.5)),) if masked else (),
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
    with pytest.raises(ConfigError, match=r"encoded again for camera\.masks and looked at: leave it empty"):
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
