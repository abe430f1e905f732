"""Who stands in a record when nobody gave a name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.login import CHARS_MAX, login

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")
NOBODYS_UID = 54_321


def test_the_account_is_named_on_one_line_of_bounded_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "minh")
    assert login() == "minh"
    monkeypatch.setenv("LOGNAME", "mi\nnh\x1b[2J" + "x" * 500)
    assert login().startswith("minh[2Jx") and len(login()) == CHARS_MAX


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody without an account")
def test_an_account_that_the_machine_does_not_know_is_its_number() -> None:
    """As in a container that runs under a number: neither getpass nor pwd has a name, and Python raises."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    program = f"""
import os, sys
from agent.login import login
os.setuid({NOBODYS_UID})
print(login())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"uid {NOBODYS_UID}\n", "")
