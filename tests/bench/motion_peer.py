"""Debian's `motion` on the same file: decodes every picture, finds motion, keeps movies by passthrough. It knows no persons.

Measured with motion 4.5.1. `netcam_url file://` plays a file at `capture_rate` and begins again at its end.
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
netcam_url file://{file}
netcam_params capture_rate={fps}
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


def start(folder: Path, scene: Scene) -> Program:
    """Starts it in the foreground. Raises Skip when it is not installed."""
    program = shutil.which("motion") or shutil.which("motion", path="/usr/sbin:/usr/bin")
    if program is None:
        raise Skip("motion is not installed (apt install motion)")
    folder.mkdir(parents=True)
    path = folder / "motion.conf"
    # The default threshold (1500 pixels of 640x480) as the same share of this picture.
    threshold = round(1500 * scene.width * scene.height / (640 * 480))
    path.write_text(
        _CONFIG.format(
            out=folder / "out",
            file=scene.path,
            fps=FPS,
            width=scene.width,
            height=scene.height,
            threshold=threshold,
        )
    )
    return Program([program, "-n", "-c", str(path)], log=folder / "motion.log")
