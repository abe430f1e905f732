"""sd_notify against a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.notify import Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "n"))
        sock.settimeout(30)
        yield sock


def test_the_manager_hears_what_the_service_says(systemd: socket.socket) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": systemd.getsockname()})
    notifier.status("starting\ncamera")
    notifier.status("starting camera")
    notifier.ready()
    notifier.feed()
    notifier.stopping()
    assert [systemd.recv(500) for _ in range(4)] == [
        b"STATUS=starting camera",
        b"READY=1",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


def test_an_abstract_socket_works_too() -> None:
    name = f"wardpost-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        sock.settimeout(30)
        Notifier.from_environment({"NOTIFY_SOCKET": "@" + name}).ready()
        assert sock.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "/nowhere/at/all", "vsock:2:3"])
def test_a_deaf_manager_harms_nobody(address: str | None) -> None:
    notifier = Notifier.from_environment({} if address is None else {"NOTIFY_SOCKET": address})
    for _ in range(3):
        notifier.feed()


def test_a_full_queue_does_not_block(systemd: socket.socket) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": systemd.getsockname()})
    for _ in range(5000):  # nobody reads: the kernel's queue is full after some hundred
        notifier.feed()
    assert systemd.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_only_when_it_says_so(environment: dict[str, str], expected: float | None) -> None:
    assert Notifier.from_environment(environment, pid=42).watchdog_s == expected
