"""`wardpost demo`: broker, station and node as processes of their own on this machine, a cut network, a killed node.

film.py      what the camera sees, composed from the sample footage
cable.py     the network between node and broker, which can be cut
programs.py  the processes: started, watched, killed, never left behind
screen.py    what the terminal shows
story.py     what happens when
evidence.py  what databases and files say afterwards
checks.py    what was promised, against that evidence: pure
picture.py   a detection, drawn
"""

from __future__ import annotations

from pathlib import Path


def main(camera: str | None, out: Path) -> int:
    """Runs the demo: about 90 s. Returns 0 when every promise held, 1 when one did not, 130 when interrupted.

    `camera` is an RTSP URL, a device or a file; None shows the sample footage. `out` is replaced. Raises ConfigError
    and Transient when the demo cannot be run here at all.
    """
    from agent.demo.story import tell

    return tell(camera, out)
