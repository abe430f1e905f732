"""The systemd unit: what systemd makes of it, and the traps that only show on a Pi."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.cli import parser
from agent.supervisor import Limits

UNIT = Path(__file__).parents[2] / "deploy/wardpost-node.service"
TEXT = UNIT.read_text(encoding="utf-8")
EXPOSURE_MAX = 2.0  # systemd's own figure, of 10; a bare unit has 9.6


def settings(key: str) -> list[str]:
    return re.findall(rf"(?m)^{key}=(.*)$", TEXT)


UNITS = sorted(path.name for path in UNIT.parent.glob("wardpost-*.service"))
NO_PROGRAM = "wardpost-reboot.service"  # its success is the reboot: there is nothing to confine


@pytest.fixture
def analysable(tmp_path: Path) -> Path:
    """The unit with a program that exists here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    unit = tmp_path / UNIT.name
    unit.write_text(TEXT.replace("/opt/wardpost/current/bin/wardpost", shutil.which("true") or "/bin/true"))
    return unit


def test_systemd_finds_nothing_to_complain_of(analysable: Path) -> None:
    found = subprocess.run(["systemd-analyze", "verify", analysable], capture_output=True, text=True, timeout=60)
    complaints = [line for line in found.stderr.splitlines() if UNIT.name in line]
    assert found.returncode == 0, found.stderr
    assert complaints == []  # it exits with 0 on unknown keys


@pytest.mark.parametrize("name", [name for name in UNITS if name != NO_PROGRAM])
def test_every_unit_is_hardened(name: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    unit = str(UNIT.with_name(name))
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX * 10:.0f}", unit]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout[-300:] + found.stderr


def test_the_supervisor_and_systemd_agree() -> None:
    assert settings("Type") == ["notify"]
    limits = Limits()
    watchdog_s, stop_s = (float(settings(key)[0].removesuffix("s")) for key in ("WatchdogSec", "TimeoutStopSec"))
    assert watchdog_s > limits.stuck_grace_s + limits.stop_s_max, (
        "the node leaves by itself, with a log, before it is shot"
    )
    assert stop_s > limits.stop_s_max + 5
    (memory,) = settings("MemoryMax")
    assert int(memory.removesuffix("M")) > limits.rss_mb_max
    assert settings("Restart") == ["always"] and settings("StartLimitIntervalSec") == ["0"]


def test_the_clock_can_still_be_read() -> None:
    """ProtectClock and @privileged forbid adjtimex, and then no event would ever have an error bound."""
    assert "yes" not in settings("ProtectClock")
    filters = settings("SystemCallFilter")
    assert any("adjtimex" in line for line in filters[filters.index("~@privileged") + 1 :])


def test_lgpio_finds_a_working_directory_it_may_write() -> None:
    assert settings("WorkingDirectory") == ["/var/lib/wardpost"] and settings("StateDirectory") == ["wardpost"]


def test_the_weekly_audit_is_a_unit_that_systemd_takes_and_gives_way_to_the_node(tmp_path: Path) -> None:
    service, timer = (
        UNIT.with_name(f"wardpost-audit.{kind}").read_text(encoding="utf-8") for kind in ("service", "timer")
    )
    assert "Nice=19" in service and "IOSchedulingClass=idle" in service and "Persistent=yes" in timer
    (command,) = re.findall(r"(?m)^ExecStart=/opt/wardpost/current/bin/wardpost (.*)$", service)
    assert parser().parse_args(command.split()).report
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    program = shutil.which("true") or "/bin/true"
    (tmp_path / "wardpost-audit.service").write_text(service.replace("/opt/wardpost/current/bin/wardpost", program))
    (tmp_path / "wardpost-audit.timer").write_text(timer)
    for kind in ("service", "timer"):
        unit = tmp_path / f"wardpost-audit.{kind}"
        found = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
        assert found.returncode == 0 and unit.name not in found.stderr, found.stderr


@pytest.mark.parametrize("name", ["wardpost-escalate.service", "wardpost-reboot.service", "wardpost-enrol.service"])
def test_systemd_takes_the_other_units_of_the_card(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    for path in UNIT.parent.glob("wardpost-*.service"):
        text = re.sub(
            r"(?m)^(Exec\w+=)-?/\S+", rf"\1{shutil.which('true') or '/bin/true'}", path.read_text(encoding="utf-8")
        )
        (tmp_path / path.name).write_text(text)
    found = subprocess.run(["systemd-analyze", "verify", tmp_path / name], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert [line for line in found.stderr.splitlines() if name in line] == []


def test_no_group_that_a_system_may_lack_keeps_the_node_from_starting() -> None:
    """Plain Debian has no group gpio; with SupplementaryGroups=gpio every start there ended with 216/GROUP."""
    assert settings("SupplementaryGroups") == []
