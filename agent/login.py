"""Who runs this program: the name that stands in a record or a command when nobody gave one."""

from __future__ import annotations

import getpass
import os

CHARS_MAX = 60


def login() -> str:
    """The account, as far as the machine can tell: its name, or `uid N` where that has none (a container, a removed
    account). Printable, `CHARS_MAX` characters at most, never empty. Never raises.
    """
    try:
        name = getpass.getuser()
    except (ImportError, KeyError, OSError):  # KeyError until Python 3.12, OSError from 3.13 on
        name = ""
    return "".join(char for char in name if char.isprintable())[:CHARS_MAX] or f"uid {os.getuid()}"
