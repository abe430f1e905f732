"""From the broker to the page: an alert is published, and the line of it comes out of the board's event stream (SSE).

Broker, station and page are three processes or threads of one machine, so one clock measures both ends. The page is an
HTTP client that has logged in and reads /board/stream as a browser does. Beside it: the same bytes from the broker to a
bare subscriber. Alerts come one by one, at moments that are drawn, so that no turn of the station's loops is favoured.
"""

from __future__ import annotations

import json
import random
import threading
import time

from agent import wire
from agent.clock import rfc3339
from agent.station.people.roles import Role
from agent.types import MS
from tests.bench.figure import Bench, Row, percentile
from tests.bench.latency import Arrivals, publisher
from tests.bench.programs import broker, wait_for
from tests.bench.station import ALERTS
from tests.bench.station.fill import SITE, epoch, post
from tests.bench.station.served import Visitor, people, served

BELL_S = 2.0
"""Within so long of its delivery a bell is on every board: the station's promise."""
SHOWN_S_MAX = 60.0


def measure(bench: Bench) -> list[Row]:
    """p50 and p95, milliseconds."""
    count = ALERTS[bench.size.name]
    folder = bench.folder / "desk"
    (folder / "data").mkdir(parents=True)
    people(folder / "data", [("operator", Role.OPERATOR, ())])
    topic = wire.Topics(SITE, post(1)).event("person")
    ours: list[float] = []
    theirs: list[float] = []
    draw = random.Random(1)
    with broker(bench.folder / "broker") as port, served(folder, broker_port=port) as desk:
        log = folder / "station.log"
        wait_for(lambda: "connected to" in log.read_text(), desk.program, "the station to connect")
        page = _Page(desk.visitor("operator"))
        with publisher(port) as client, Arrivals(port, topic) as bare:
            for number in range(1, count + 1):
                incident = f"01900000-0000-7000-8000-{number:012x}"
                body = _alert(number, incident)
                sent_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                client.publish(topic, body, qos=1)
                ours.append((page.shown(incident) - sent_ns) / MS)
                deadline = time.monotonic() + SHOWN_S_MAX
                while len(bare.messages()) < number and time.monotonic() < deadline:
                    time.sleep(0.001)
                theirs.append((bare.messages()[number - 1][0] - sent_ns) / MS)
                time.sleep(draw.uniform(0.0, 0.5))
    return [
        Row(f"delivery-p{round(share * 100)}", f"alert, from the broker to the page, p{round(share * 100)}",
            percentile(ours, share), "ms", "from the broker to a bare subscriber", percentile(theirs, share),
            target=f"< {BELL_S * 1000:,.0f} ms", met=percentile(ours, share) < BELL_S * 1000, note=f"{count} alerts")
        for share in (0.5, 0.95)
    ]  # fmt: skip


class _Page:
    """An open board: a thread reads its events."""

    def __init__(self, visitor: Visitor) -> None:
        self._answer = visitor.stream("/board/stream?after=0")
        if self._answer.status != 200:
            raise RuntimeError(f"/board/stream: {self._answer.status}")
        self._seen: dict[str, int] = {}
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._answer:
            at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            told = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
            if "incident" in told:
                with self._news:
                    self._seen.setdefault(told["incident"], at_ns)
                    self._news.notify_all()

    def shown(self, incident: str) -> int:
        """When it was read, CLOCK_BOOTTIME ns."""
        with self._news:
            if not self._news.wait_for(lambda: incident in self._seen, SHOWN_S_MAX):
                raise RuntimeError(f"an alert is not on the board after {SHOWN_S_MAX:g} s")
            return self._seen[incident]


def _alert(number: int, incident: str) -> bytes:
    return wire.encode(
        wire.CloudEvent(
            id=f"01900000-0000-7001-8000-{number:012x}", source=f"wardpost/{SITE}/{post(1)}", type="wardpost.person",
            subject=incident, time=rfc3339(time.time_ns()), epoch=epoch(1), sequence=number, session=1,
            bootid="b" * 32, monons=number, timeerrms=40,
            data=wire.EventData(incident=incident, phase="started", severity="alert", summary="A person at the gate"),
        )
    )  # fmt: skip
