"""What the station gives to programs, read by programs that others have written: a real Prometheus that fetches with its
token, OASIS' schema of CAP as data classes, a reader of feeds, and a validator of OpenAPI documents."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.clock import SystemClock
from agent.station.outward.settings import FeedSettings
from agent.station.outward.tokens import Tokens
from agent.station.people.roles import Role
from agent.station.web.desk import make_desk, serve
from agent.station.web.settings import WebSettings
from tests.e2e.brokers import free_port
from tests.fakes.database import fresh
from tests.fakes.desk import Ward, incident

pytestmark = pytest.mark.system
WITHIN_S = 60.0


@dataclass(frozen=True)
class Served:
    """A station's pages on a port, with three alerts: a bell, an alert, and one that was false."""

    port: int
    tokens: Tokens

    def fetch(self, path: str, purpose: str = "") -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token(purpose)}"} if purpose else {}
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=30).raise_for_status()

    def token(self, purpose: str) -> str:
        return self.tokens.add(f"{purpose}-{len(self.tokens.listing())}", purpose, by="account:test")


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Served]:
    port = free_port()
    with fresh("sqlite", tmp_path) as database:
        ward = Ward(tmp_path, database)
        ward.settings = WebSettings(listen=f"127.0.0.1:{port}", origin=f"https://127.0.0.1:{port}", behind_proxy=True)
        ward.desk = desk = make_desk(
            ward.settings,
            engine=ward.engine,
            folder=tmp_path,
            site="ward-7",
            station="hq",
            clock=SystemClock(),
            send_verdict=ward._send,
            passwords=ward.passwords,
            feeds=FeedSettings(sender="desk@ward-7.example", language="vi", hours=720, per_minute_max=6000),
        )
        ward.person("lan", Role.OPERATOR)
        ward.hear(1, severity="bell", place="Ngõ 12 <b>", summary="Có người bấm chuông")
        ward.hear(2)
        ward.hear(3, phase="ended")
        lan = desk.registry.find("lan")
        assert lan is not None
        desk.alerts.judge(lan, incident(3), "false", "a cat")
        server = serve(ward.settings, desk, close=lambda: None)
        server.start()
        yield Served(port, Tokens(ward.engine, trail=desk.trail, clock=ward.clock))
        server.stop()
        ward.close()


def other(module: str) -> Any:
    """Of a package that only `make test-system` has."""
    with contextlib.suppress(ImportError):
        return import_module(module)
    pytest.skip(f"no {module} here: pip install -r tests/requirements-system.txt")


def wait_for(what: str, so: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not so():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def test_alerts_fit_the_schema_of_cap_and_the_feed_is_read(station: Served) -> None:
    alerts = other("cap_tools.models")
    config = other("xsdata.formats.dataclass.parsers.config").ParserConfig(fail_on_converter_warnings=True)
    parser = other("xsdata.formats.dataclass.parsers").XmlParser(config=config)
    feed = other("feedparser").parse(station.fetch("/feeds/cap.atom", "cap").content)
    assert not feed.bozo and feed.version == "atom10"
    assert [entry.title for entry in feed.entries if "Help call" in entry.title] == ["Help call: Ngõ 12 <b> (gate-2)"]
    read = {}
    for entry in feed.entries:
        (link,) = [one for one in entry.links if one.rel == "alternate"]
        assert link.type == "application/cap+xml"
        path = link.href.removeprefix(f"https://127.0.0.1:{station.port}")
        read[path.rpartition("/")[2]] = parser.from_bytes(station.fetch(path, "cap").content, alerts.Alert)
    assert set(read) == {incident(1), incident(2), incident(3)}
    bell, cat = read[incident(1)], read[incident(3)]
    assert bell.msg_type.value == "Alert" and bell.infos[0].severity.value == "Severe"
    assert bell.infos[0].description == "Có người bấm chuông" and bell.infos[0].areas[0].area_desc == "Ngõ 12 <b>"
    assert cat.msg_type.value == "Cancel"
    (first,) = cat.references_to_list()
    assert first.identifier == f"wardpost.ward-7.{incident(3)}" and first.sender == "desk@ward-7.example"
    broken = station.fetch(f"/feeds/cap/{incident(1)}", "cap").content.replace(b"Severe", b"Grave")
    with pytest.raises(Exception, match="Grave"):
        parser.from_bytes(broken, alerts.Alert)


def test_the_document_is_openapi(station: Served) -> None:
    validator = other("openapi_spec_validator")
    document = station.fetch("/openapi.json").json()
    validator.validate(document)
    document["paths"]["/metrics"]["get"]["responses"] = []
    with pytest.raises(Exception, match=r"\[\]"):
        validator.validate(document)


@pytest.fixture
def prometheus() -> str:
    found = shutil.which("prometheus")
    if found is None or shutil.which("promtool") is None:
        pytest.skip("no prometheus here: apt-get install prometheus")
    return found


def test_a_real_prometheus_scrapes_the_station(station: Served, prometheus: str, tmp_path: Path) -> None:
    said = subprocess.run(
        ["promtool", "check", "metrics"],
        input=station.fetch("/metrics", "metrics").text, capture_output=True, text=True, timeout=WITHIN_S,
    )  # fmt: skip
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    (tmp_path / "token").write_text(station.token("metrics"))
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs:\n"
        "  - job_name: wardpost\n    scrape_interval: 2s\n    scrape_timeout: 2s\n"
        f"    authorization: {{credentials_file: {tmp_path / 'token'}}}\n"
        f'    static_configs: [{{targets: ["127.0.0.1:{station.port}"]}}]\n'
    )
    port = free_port()
    command = [prometheus, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)

    def value(query: str) -> str:
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=10)
            if answer.status_code == 200 and (found := answer.json()["data"]["result"]):
                return str(found[0]["value"][1])
        return ""

    try:
        wait_for("it does not scrape", lambda: value("up") == "1")
        assert value('wardpost_alerts_total{severity="bell"}') == "1"
        assert value("sum(wardpost_alerts_total)") == "3"
        assert value("sum(wardpost_alerts_unacknowledged)") == "2", "the false one was judged"
    finally:
        process.terminate()
        process.wait(WITHIN_S)
