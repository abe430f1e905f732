"""From settings to drivers: the only place that turns a `driver = "..."` into the class behind it.

Each import stands in its branch, so that a node loads only the libraries of the drivers that it has.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from agent.assets import Assets, default_cache
from agent.camera import Camera
from agent.camera.vigilance import Attention
from agent.clock import Clock
from agent.config import CameraSettings, Config, DetectorSettings, PanelSettings, TlsSettings, UplinkSettings
from agent.disk import PosixDisk
from agent.errors import ConfigError
from agent.panel import Panel
from agent.renewal import Renewal
from agent.sending import Depot
from agent.uplink import Transport
from agent.vision.detector import Detector


def make_camera(
    settings: CameraSettings, *, analysis_fps: float, luma_px: int, clock: Clock, attention: Attention | None = None
) -> Camera:
    """The camera of `camera.driver`. Opens nothing. Raises ConfigError.

    `attention`: by which vision asks for pictures. Without it a stream decodes them all; picamera2 decodes none anyway.
    """
    if settings.driver == "picamera2":
        from agent.camera.picamera2 import Picamera2Camera

        return Picamera2Camera(
            clock=clock,
            width=settings.width,
            height=settings.height,
            fps=settings.fps,
            bitrate_kbps=settings.bitrate_kbps,
            analysis_fps=analysis_fps,
            luma_px=luma_px,
            masks=settings.privacy_masks,
        )
    if not settings.url:
        raise ConfigError("camera.url: missing; the stream driver needs rtsp://..., /dev/video0 or a file")
    from agent.camera.stream import StreamCamera

    return StreamCamera(
        url=settings.url,
        clock=clock,
        analysis_fps=analysis_fps,
        luma_px=luma_px,
        masks=settings.privacy_masks,
        paced=settings.paced,
        loop=settings.loop,
        stall_s=settings.stall_s,
        width=settings.width,
        height=settings.height,
        fps=settings.fps,
        bitrate_kbps=settings.bitrate_kbps,
        sub_url=settings.sub_url,
        attention=attention,
    )


def make_detector(settings: DetectorSettings) -> Detector:
    """The detector of `vision.detector.driver`. Loads nothing. Raises ConfigError."""
    if settings.driver == "none":
        from agent.vision.detector.none import NoDetector

        return NoDetector()
    from agent.vision.detector.tflite import TfliteDetector

    model, labels = model_paths(settings)
    delegate = Path(settings.delegate) if settings.delegate else None
    return TfliteDetector(model=model, labels=labels, threads=settings.threads, delegate=delegate)


def model_paths(settings: DetectorSettings) -> tuple[Path, Path]:
    """Model and label map: the configured ones, or the pinned default where `wardpost model fetch` puts it.

    Raises ConfigError when a model is named without its labels: the default's labels would be wrong names.
    """
    if settings.model and not settings.labels:
        raise ConfigError("vision.detector.labels: missing; a model of your own needs its own label map")
    from agent.assets import LABELS, MODEL

    assets = Assets(default_cache(os.environ))
    model = Path(settings.model) if settings.model else assets.path(MODEL)
    labels = Path(settings.labels) if settings.labels else assets.path(LABELS)
    return model, labels


def make_panel(settings: PanelSettings, clock: Clock) -> Panel:
    """The panel of `panel.driver`. Takes no pin."""
    if settings.driver == "none":
        from agent.panel.none import NoPanel

        return NoPanel()
    from agent.panel.gpio import GpioPanel

    return GpioPanel(settings, clock=clock)


def make_renewal(config: Config, clock: Clock, rng: random.Random) -> Renewal | None:
    """What renews the node's certificate; None where it is not the node's own to write. Raises ConfigError."""
    tls = config.uplink.tls
    folder = Path(tls.cert).parent if tls is not None else Path()
    if (
        tls is None
        or not (tls.cert and tls.key)
        or {Path(tls.ca).parent, Path(tls.key).parent} != {folder}
        or not os.access(folder, os.W_OK)
    ):
        return None
    disk = PosixDisk(folder)
    return Renewal(disk=disk, clock=clock, rng=rng, site=config.node.site, node=config.node.id, tls=tls)


def make_transport(
    settings: UplinkSettings, clock: Clock, choose: Callable[[], TlsSettings] | None = None
) -> Transport:
    """The MQTT client. Connects to nothing. `choose`: which certificate each connection shows."""
    from agent.uplink.mqtt import Credentials, PahoTransport

    credentials = Credentials(
        username=settings.username, password_file=settings.password_file, tls=settings.tls, choose=choose
    )
    return PahoTransport(clock=clock, credentials=credentials, keepalive_s=settings.keepalive_s)


def make_depot(config: Config, clock: Clock) -> Depot | None:
    """Where footage goes when headquarters asks for it; None where that is not set. Connects to nothing.

    Raises ConfigError.
    """
    tls = config.uplink.tls
    if not config.sending.url:
        return None
    if tls is None or not (tls.cert and tls.key):
        raise ConfigError("sending.url: needs uplink.tls with the node's certificate: by its key it proves who sends")
    from agent.sending.address import parse_address
    from agent.sending.depot import HttpDepot
    from agent.uplink.mqtt import tls_context

    return HttpDepot(
        parse_address(config.sending.url),
        clock=clock,
        site=config.node.site,
        node=config.node.id,
        key=Path(tls.key),
        context=lambda: tls_context(tls, vouched=clock.utc().unc_ns is not None),
    )
