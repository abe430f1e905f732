"""What headquarters says of an alert, over a real broker: on the node's ledger, in the station's books, once."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.config import load
from agent.evidence.records import Payload
from agent.station.main import Station, StationSettings
from agent.station.order import order
from agent.station.orders import Order, OrderBook
from agent.station.reader import Reader
from tests.e2e.brokers import RealBroker
from tests.e2e.post import Post, recording
from tests.e2e.test_coverage import STATION, keys
from tests.e2e.test_ledger import on_card, opens, said, until
from tests.fakes.database import engine_in


@contextmanager
def station(settings: StationSettings) -> Iterator[Reader]:
    """A station in this process, on a thread of its own."""
    stop = threading.Event()
    one = Station(settings, clock=SystemClock(), rng=random.Random(1))
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    reader = Reader(Path(settings.station.data))
    try:
        until(lambda: (Path(settings.station.data) / "station.db").exists() and opens(reader), "a station that opens")
        yield reader
    finally:
        stop.set()
        thread.join(20)
        reader.close()


def verdicts(lines: list[bytes]) -> list[Payload]:
    return [line for line in said(lines) if line.kind == "verdict"]


def test_a_verdict_is_on_the_nodes_ledger_and_in_the_stations_books_once(
    post: Post, broker: RealBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The station judges an alert; the node answers. The same command comes again, and once more after a power cut."""
    monkeypatch.setattr("agent.station.worker.RESEND_S", 2.0)
    private, public = keys(tmp_path)
    config = post.config.read_text(encoding="utf-8")
    post.config.write_text(config.replace("[uplink]", f'[uplink]\ncommand_key = "{public}"'), encoding="utf-8")
    folder = tmp_path / "station"
    folder.mkdir()
    settings_file = tmp_path / "station.toml"
    settings_file.write_text(STATION.format(data=folder, key=private, broker=broker.url), encoding="utf-8")
    settings = load(settings_file, StationSettings)
    with station(settings) as reader:
        post.start()
        post.wait_for(recording)
        alerts: list[str] = []

        def alerted() -> bool:
            events = [payload.body for payload in said(reader.lines("cam-7")) if payload.kind == "event"]
            alerts[:] = [event["incident"] for event in events if event["severity"] == "alert"]
            return bool(alerts)

        until(alerted, "an alert at the station")
        asked = {"incident": alerts[0], "verdict": "false", "reason": "a poster", "by": "Minh"}
        heard: list[str] = []
        assert order(settings, "cam-7", "verdict", asked, as_json=True, out=heard.append) == 0
        command_id = json.loads(heard[0])[0]["id"]
        until(lambda: answered(folder).state == "done", "an answer")
        answer = json.loads(answered(folder).answer)
        assert answer["result"]["summary"] == "on the ledger: false"
        until(lambda: len(verdicts(reader.lines("cam-7"))) == 1, "the verdict in the station's books")

        # The answer was lost on the way, as far as the station knows: it sends the very same command again.
        once_more(folder)
        until(lambda: answered(folder).state == "done", "an answer to the repetition")
        post.end(signal.SIGKILL)
        once_more(folder)
        post.start()
        post.wait_for(lambda status: recording(status) and status["session"] == 2)
        until(lambda: answered(folder).state == "done", "an answer after the restart")
        assert answered(folder).sent >= 3
        assert json.loads(answered(folder).answer)["result"] == answer["result"], "it is answered as it was"

        # Somebody thinks again: a command of its own, and the next line.
        assert order(settings, "cam-7", "verdict", asked | {"verdict": "true"}, as_json=True, out=heard.append) == 0
        until(lambda: len(verdicts(reader.lines("cam-7"))) > 1, "the second verdict in the station's books")
        assert post.end(signal.SIGTERM) == 0
        theirs = verdicts(reader.lines("cam-7"))
    mine = verdicts(on_card(post))
    assert [line.body["verdict"] for line in mine] == ["false", "true"], "one line each, whatever came twice"
    assert [line.seq for line in theirs] == [line.seq for line in mine]
    assert mine[0].body == asked | {"id": command_id, "asker": "headquarters"}
    assert post.rows("select id, verdict from verdict order by n")[0] == (command_id, "false")


def answered(folder: Path) -> Order:
    """The newest order."""
    book = OrderBook(engine_in(folder))
    book.open()
    try:
        return book.of("cam-7")[0]
    finally:
        book.close()


def once_more(folder: Path) -> None:
    """As if the answer had never come: the station's own queue sends the newest order again, to the byte."""
    with closing(sqlite3.connect(folder / "station.db", timeout=5.0)) as db, db:
        db.execute("update command set state = 'waiting' where id = ?", (answered(folder).id,))
