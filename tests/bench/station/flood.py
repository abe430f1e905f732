"""Publishes many messages at little cost: posts are elsewhere, so their CPU must not come off that of the station.

paho takes some 250 us a message, as much as the station that is measured. Packets are MQTT 3.1.1's, of QoS 1.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

WINDOW = 200
"""Messages that the broker has not acknowledged yet."""
ANSWER_S_MAX = 60.0
_CONNECT, _CONNACK, _PUBLISH_QOS_1, _PUBACK, _DISCONNECT = 0x10, 0x20, 0x32, 0x40, b"\xe0\x00"


def pour(port: int, messages: Iterable[tuple[str, bytes]]) -> int:
    """Blocks until the broker has acknowledged all of them; returns how many. Raises OSError, RuntimeError."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S_MAX) as broker:
        broker.sendall(_packet(_CONNECT, _text("MQTT") + b"\x04\x02" + struct.pack("!H", 0) + _text("bench-posts")))
        if (said := _read(broker, 4))[0] != _CONNACK or said[3]:
            raise RuntimeError(f"the broker refuses: {said.hex()}")
        sent = acknowledged = 0
        waiting = bytearray()
        for topic, payload in messages:
            waiting += _packet(_PUBLISH_QOS_1, _text(topic) + struct.pack("!H", sent % 65535 + 1) + payload)
            sent += 1
            if sent - acknowledged == WINDOW:
                broker.sendall(waiting)
                waiting.clear()
                acknowledged += _acknowledged(broker, WINDOW // 2)
        broker.sendall(waiting)
        acknowledged += _acknowledged(broker, sent - acknowledged)
        broker.sendall(_DISCONNECT)
    return acknowledged


def _acknowledged(broker: socket.socket, count: int) -> int:
    said = _read(broker, 4 * count)
    if any(kind != _PUBACK for kind in said[::4]):
        raise RuntimeError(f"the broker says {said[:40].hex()}, which acknowledges nothing")
    return count


def _read(broker: socket.socket, size: int) -> bytes:
    said = b""
    while len(said) < size:
        part = broker.recv(size - len(said))
        if not part:
            raise RuntimeError("the broker has closed the connection")
        said += part
    return said


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("!H", len(data)) + data


def _packet(kind: int, body: bytes) -> bytes:
    length, rest = bytearray(), len(body)
    while True:
        rest, low = rest >> 7, rest & 0x7F
        length.append(low | 0x80 if rest else low)
        if not rest:
            return bytes([kind, *length]) + body
