"""`wardpost zones`: finds the picture, serves the page, waits."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from agent import drivers
from agent.clock import Clock, SystemClock
from agent.config import Config, load
from agent.errors import ConfigError, Transient, WardpostError
from agent.local import picture_of, status_of
from agent.pictures import WIDTH_PX_MAX, picture_in
from agent.selftest import one_picture
from agent.types import NS, Bgr
from agent.vision import thumbnail
from agent.zones_page.desk import Desk
from agent.zones_page.server import PageServer, parse_listen

JPEG_BYTES_MAX = 2 << 20


def zones(
    path: Path,
    *,
    snapshot: Path | None,
    listen: str,
    idle_s: float,
    out: Callable[[str], None],
    stop: threading.Event,
) -> int:
    """Serves the page until `stop`, or until nobody has asked for anything for `idle_s`. Blocks.

    Raises ConfigError before it serves anything: the file, the snapshot or the address cannot be used.
    """
    if not idle_s > 0:
        raise ConfigError(f"--idle-s {idle_s:g}: write a number of seconds above 0")
    host, port = parse_listen(listen)
    settings = load(path, Config)
    clock = SystemClock()
    take = partial(from_file, snapshot) if snapshot is not None else partial(_now, settings, clock)
    desk = Desk(path, clock=clock, picture=take, live=snapshot is None)
    desk.picture()
    server = PageServer(desk, token=secrets.token_urlsafe(16), boot_ns=clock.boot_ns, say=out)
    address = server.open(host, port)
    try:
        out(f"draw on {address}")
        if not host.startswith("127."):
            out("whoever reads this network's traffic can see the picture and the token: use it on a closed network")
        out(f"ends with Ctrl-C, or when it has not been used for {idle_s:g} s")
        while not clock.wait(stop, 0.5):
            if clock.boot_ns() - server.last_ns > idle_s * NS:
                out(f"not used for {idle_s:g} s")
                break
    finally:
        server.close()
    return 0


def from_file(path: Path) -> bytes:
    """A JPEG of a picture file, or of the first picture of a film. Raises ConfigError."""
    return _jpeg(picture_in(path), str(path))


def _now(settings: Config, clock: Clock) -> bytes:
    """What the camera sees: by the running node, else by opening the camera for a moment."""
    folder = Path(settings.node.data)
    try:
        status_of(folder)
    except WardpostError:
        camera = drivers.make_camera(
            settings.camera, analysis_fps=settings.vision.analysis_fps, luma_px=settings.vision.luma_px, clock=clock
        )
        try:
            return _jpeg(one_picture(camera, clock, px_max=WIDTH_PX_MAX), camera.name)
        finally:
            camera.close()
    return picture_of(folder, clock)


def _jpeg(picture: Bgr, what: str) -> bytes:
    from agent.vision.opencv import cv2

    scale = WIDTH_PX_MAX / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    data = thumbnail.jpeg(picture, bytes_max=JPEG_BYTES_MAX)
    if data is None:
        raise Transient(f"{what}: the picture has no pixels")
    return data
