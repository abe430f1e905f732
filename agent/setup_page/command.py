"""`wardpost setup-page`: has the running node switch its local page on or off, and says how it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.config import Config, load
from agent.errors import ConfigError
from agent.local import order


def setup_page(path: Path, *, minutes: float | None, off: bool, ask_only: bool, out: Callable[[str], None]) -> int:
    """Returns 0. Raises ConfigError (no code is set, the minutes), Transient when no node runs on this folder."""
    settings = load(path, Config)
    if minutes is not None and not 0 < minutes <= settings.setup_page.page_minutes_max:
        raise ConfigError(f"--minutes {minutes:g}: above 0, up to {settings.setup_page.page_minutes_max:g}")
    args: dict[str, Any] = {"off": True} if off else {"minutes": minutes or settings.setup_page.page_minutes_max}
    for line in told(order(Path(settings.node.data), "setup-page", {} if ask_only else args)):
        out(line)
    return 0


def told(reply: dict[str, Any]) -> list[str]:
    """A node's answer in words."""
    if not reply["on"]:
        return ["the local page is off"]
    where = " or ".join(reply["addresses"])
    lines = [f"the local page is on for {reply['left_s'] / 60:.0f} min more ({reply['why']}): {where}"]
    if not reply["serving"]:
        lines.append("no link is up yet: it answers once the hotspot or the USB cable is (deploy/installation.md)")
    return [*lines, "the code is on the label inside the box"]
