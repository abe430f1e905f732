"""Zones drawn on the page of a running node: they go the way of a configuration from afar.

The node may not write its file in /etc, and need not: the new text is checked, tried and given up again by
agent/release/settings_desk.py like one from headquarters, under the next free revision. Headquarters sees that in what
the node reports; its own next revision is higher, and then takes the place of what was drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.clock import Clock
from agent.disk import Disk
from agent.errors import ConfigError
from agent.release.settings import BASE, in_use
from agent.release.settings_desk import name_of, read_state
from agent.zones_page.desk import Desk


def drawing_desk(
    picture: Callable[[], bytes],
    *,
    base: Path | None,
    disk: Disk,
    clock: Clock,
    draw: Callable[[str], None],
) -> Desk:
    """A desk on the settings in force. `base`: the file on the system; `draw`: SettingsDesk.draw.

    Raises ConfigError when they cannot be read.
    """
    revision = in_use(read_state(disk))
    path = base if revision == BASE else disk.path(name_of(revision))
    if path is None:
        raise ConfigError("this node was started without a file of settings")
    return Desk(path, clock=clock, picture=picture, live=True, put=lambda text: draw(text.decode()))
