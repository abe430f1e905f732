"""Debian's `motion`: decodes every picture, finds motion, keeps movies by passthrough. It knows no persons.

Measured with motion 4.5.1. `netcam_url file://` plays a file at `capture_rate` and begins again at its end. With
`netcam_high_url` motion is looked for in the small stream and the large one is kept as it comes: its best set-up.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.bench.figure import Skip
from tests.bench.footage import FPS, Scene
from tests.bench.programs import Program

_CONFIG = """
daemon off
setup_mode off
log_level 5
target_dir {out}
netcam_url {url}
{netcam}
width {width}
height {height}
framerate {fps}
threshold {threshold}
picture_output off
movie_output on
movie_passthrough on
movie_max_time 60
event_gap 10
pre_capture 3
webcontrol_port 0
stream_port 0
"""


def program() -> str:
    """Where it is. Raises Skip when it is not installed."""
    found = shutil.which("motion") or shutil.which("motion", path="/usr/sbin:/usr/bin")
    if found is None:
        raise Skip("motion is not installed (apt install motion)")
    return found


def start(folder: Path, scene: Scene, *, url: str = "", high_url: str = "") -> Program:
    """Starts it in the foreground on the scene's file, or on a camera at `url` that shows the scene.

    `high_url` is the camera's large stream, kept by passthrough. Raises Skip when motion is not installed.
    """
    path = folder / "motion.conf"
    command = [program(), "-n", "-c", str(path)]
    folder.mkdir(parents=True)
    netcam = "netcam_params rtsp_transport=tcp" if url else f"netcam_params capture_rate={FPS}"
    if high_url:
        netcam += f"\nnetcam_high_url {high_url}\nnetcam_high_params rtsp_transport=tcp"
    # The default threshold (1500 pixels of 640x480) as the same share of this picture.
    threshold = round(1500 * scene.width * scene.height / (640 * 480))
    path.write_text(
        _CONFIG.format(
            out=folder / "out",
            url=url or f"file://{scene.path}",
            netcam=netcam,
            fps=FPS,
            width=scene.width,
            height=scene.height,
            threshold=threshold,
        )
    )
    return Program(command, log=folder / "motion.log")
