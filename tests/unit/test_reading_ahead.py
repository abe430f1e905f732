"""The socket under paho: the same bytes in the same order, by fewer questions to the system."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from agent.uplink import mqtt
from agent.uplink.mqtt import ReadingAhead


@pytest.fixture
def line() -> Iterator[tuple[ReadingAhead, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ReadingAhead(ours), theirs


def test_bytes_come_whole_and_in_order_however_they_are_asked_for(line: tuple[ReadingAhead, socket.socket]) -> None:
    ours, theirs = line
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    sent = got = b""
    for _ in range(300):
        part = draw.randbytes(draw.choice([0, 1, 2, 500, 3000]))
        theirs.sendall(part)
        sent += part
        for _ in range(draw.randrange(6)):
            try:
                got += ours.recv(draw.choice([1, 1, 2, 700, 5000]))
            except BlockingIOError:
                assert got == sent, "nothing is there only when all was given"
    for _ in range(len(sent)):
        if len(got) >= len(sent):
            break
        got += ours.recv(100)
    assert got == sent
    assert ours.pending() == 0
    with pytest.raises(BlockingIOError):
        ours.recv(1)


def test_what_is_held_is_told_because_select_cannot(line: tuple[ReadingAhead, socket.socket]) -> None:
    ours, theirs = line
    theirs.sendall(b"0123456789")
    assert ours.pending() == 0
    assert ours.recv(1) == b"0"
    assert ours.pending() == 9
    theirs.close()
    assert ours.recv(100) == b"123456789", "what came before the end is not lost"
    assert ours.recv(1) == b"", "the end"
    assert ours.fileno() >= 0


def test_no_more_is_held_than_one_read(
    line: tuple[ReadingAhead, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "READ_BYTES", 100)
    ours, theirs = line
    theirs.sendall(bytes(1000))
    ours.recv(1)
    assert ours.pending() == 99, "the rest waits in the socket, and so does who sends it"
