"""What programs fetch: only with a token of its purpose, only what the standards allow, and no word of a node as markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.errors import ConfigError, NoRoom
from agent.station.outward import metrics, onvif, openapi
from agent.station.outward.cap import Cap
from agent.station.outward.queue import Standing
from agent.station.outward.settings import FeedSettings
from agent.station.outward.tokens import TOKEN, TOKENS_MAX, Rate, Tokens
from agent.station.people.roles import Role
from agent.station.web.desk import make_desk
from agent.station.web.fetches import ADDRESSES_MAX
from agent.station.web.routes import Bearer, Route
from tests.fakes import cap_rules
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.fakes.desk import ORIGIN, Ward, incident

ATOM = "{http://www.w3.org/2005/Atom}"
PATHS = {"/feeds/cap.atom": "cap", "/feeds/onvif": "events", "/api/alerts": "events", "/api/posts": "events"}
PATHS["/metrics"] = "metrics"
EVIL = 'Gate"><script>alert(1)</script>&amp;\x00\x1b\ufffe\u202e\r\n]]>'


class Feeding(Ward):
    """A desk with feeds."""

    def start(self) -> Any:
        self.desk = make_desk(
            self.settings,
            engine=self.engine,
            folder=self.folder,
            site="ward-7",
            station="hq",
            clock=self.clock,
            send_verdict=self._send,
            passwords=self.passwords,
            feeds=FeedSettings(sender="desk@ward-7.example", language="vi", per_minute_max=60),
        )
        self.tokens = Tokens(self.engine, trail=self.desk.trail, clock=self.clock)
        return self.desk

    def fetch(self, path: str, token: str = "", **headers: str) -> httpx.Response:
        shown = {"authorization": f"Bearer {token}"} if token else {}
        return self.visitor().send("GET", path, headers=shown | headers)

    def for_(self, purpose: str) -> str:
        return self.tokens.add(f"a-{purpose}", purpose, by="account:test")


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[Feeding]:
    made = Feeding(tmp_path, database)
    yield made
    made.close()


def test_a_feed_wants_a_token_of_its_own_purpose(ward: Feeding) -> None:
    found = {purpose: ward.for_(purpose) for purpose in ("cap", "metrics", "events")}
    for path, purpose in PATHS.items():
        bare = ward.fetch(path)
        assert (bare.status_code, bare.headers["www-authenticate"]) == (401, "Bearer"), path
        for other, token in found.items():
            assert ward.fetch(path, token).status_code == (200 if other == purpose else 401), (path, other)
        assert ward.fetch(path, found[purpose][:-1] + "x").status_code == 401
        assert ward.fetch(f"{path}?token={found[purpose]}").status_code == 401, "no secret in a URL"
    assert ward.fetch("/metrics", "", authorization="Basic " + found["metrics"]).status_code == 401


def test_no_role_opens_a_feed_and_no_token_opens_a_page(ward: Feeding) -> None:
    token = ward.for_("cap")
    for role in Role:
        posts = ("gate-2",) if role in (Role.SCHOOL, Role.HOUSEHOLD) else ()
        ward.person(role.value, role, *posts)
        visitor = ward.visitor(role.value)
        for path in PATHS:
            assert visitor.get(path).status_code == 401, (role, path)
    assert ward.fetch("/", token).status_code == 401
    fetched = ward.fetch("/feeds/cap.atom", token)
    assert "set-cookie" not in fetched.headers and "content-security-policy" in fetched.headers


def test_a_feed_answers_to_its_own_name_only(ward: Feeding) -> None:
    assert ward.fetch("/metrics", ward.for_("metrics"), host="evil.example").status_code == 421


def test_a_token_is_revoked_at_once_and_its_name_stays_taken(ward: Feeding) -> None:
    token = ward.for_("cap")
    assert TOKEN.fullmatch(token)
    ward.tokens.revoke("a-cap", by="account:test")
    assert ward.fetch("/feeds/cap.atom", token).status_code == 401
    with pytest.raises(ConfigError, match="names are not given twice"):
        ward.for_("cap")
    with pytest.raises(ConfigError, match="none of this name that is still good"):
        ward.tokens.revoke("a-cap", by="account:test")
    assert [one.name for one in ward.tokens.listing()] == ["a-cap"]
    assert ward.kinds().count("token-added") == ward.kinds().count("token-revoked") == 1
    stored = str(ward.database.rows("select * from outward_token"))
    assert token not in stored and token not in str(ward.trail())


@pytest.mark.parametrize(("name", "purpose"), [("A", "cap"), ("", "cap"), ("x", "page"), ("../x", "cap")])
def test_names_and_purposes_that_are_none(ward: Feeding, name: str, purpose: str) -> None:
    with pytest.raises(ConfigError):
        ward.tokens.add(name, purpose, by="account:test")


def test_there_is_an_end_to_tokens(ward: Feeding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.station.outward.tokens.TOKENS_MAX", 1)
    ward.for_("cap")
    with pytest.raises(ConfigError, match="1 names are in use"):
        ward.for_("events")
    assert TOKENS_MAX > 1


def test_a_token_is_told_to_slow_down(ward: Feeding) -> None:
    token = ward.for_("metrics")
    answers = [ward.fetch("/metrics", token) for _ in range(12)]
    assert [one.status_code for one in answers] == [200] * 10 + [429] * 2
    wait_s = int(answers[-1].headers["retry-after"])
    ward.clock.advance(wait_s)
    assert ward.fetch("/metrics", token).status_code == 200


@given(
    steps=st.lists(st.floats(min_value=0, max_value=30), min_size=1, max_size=80),
    per_minute=st.integers(min_value=1, max_value=600),
)
def test_the_rate_holds_however_requests_come(steps: list[float], per_minute: int) -> None:
    clock = FakeClock()
    rate = Rate(clock=clock, per_minute_max=per_minute)
    begun, let = clock.boot_ns(), 0
    for step in steps:
        clock.advance(step)
        wait_s = rate.wait_s("x")
        let += not wait_s
        assert let <= (clock.boot_ns() - begun) / 60e9 * per_minute + max(per_minute / 6, 1) + 1
        if wait_s:
            clock.advance(wait_s)
            assert rate.wait_s("x") == 0
            let += 1


def test_alerts_are_cap_messages(ward: Feeding) -> None:
    token = ward.for_("cap")
    ward.person("lan", Role.OPERATOR)
    ward.hear(1, severity="bell", summary="Có người bấm chuông", place="Ngõ 12")
    ward.hear(2, summary=EVIL, place=EVIL, time="tomorrow", timeerrms=None)
    ward.hear(3, phase="ended")
    ward.desk.alerts.judge(ward.desk.registry.find("lan"), incident(3), "false", "a cat")
    listed = ET.fromstring(ward.fetch("/feeds/cap.atom", token).content)
    links = [entry.find(f"{ATOM}link") for entry in listed.iter(f"{ATOM}entry")]
    hrefs = [link.attrib["href"] for link in links if link is not None]
    assert len(hrefs) == 3 and all(href.startswith(f"{ORIGIN}/feeds/cap/") for href in hrefs)
    for href in hrefs:
        answer = ward.fetch(href.removeprefix(ORIGIN), token)
        assert answer.headers["content-type"].startswith("application/cap+xml")
        assert cap_rules.problems(answer.content) == [], answer.text
        assert "<script" not in answer.text
    bell = text(ward.fetch(f"/feeds/cap/{incident(1)}", token))
    assert bell["headline"] == "Help call: Ngõ 12 (gate-2)" and bell["language"] == "vi"
    assert (bell["severity"], bell["certainty"], bell["msgType"]) == ("Severe", "Observed", "Alert")
    assert bell["onset"] == "2026-11-22T07:02:11-00:00"
    cat = text(ward.fetch(f"/feeds/cap/{incident(3)}", token))
    assert cat["msgType"] == "Cancel" and cat["identifier"] == f"wardpost.ward-7.{incident(3)}.cancel"
    assert cat["references"] == f"desk@ward-7.example,wardpost.ward-7.{incident(3)},{cat['sent']}"
    assert ward.fetch(f"/feeds/cap/{incident(9)}", token).status_code == 404
    assert ward.fetch("/feeds/cap/..%2f..%2fetc", token).status_code == 404


def text(answer: httpx.Response) -> dict[str, str]:
    return {one.tag.removeprefix(cap_rules.NAMESPACE): one.text or "" for one in ET.fromstring(answer.content).iter()}


def test_the_feed_is_atom(ward: Feeding) -> None:
    """RFC 4287: what a feed and an entry must have, and no id twice."""
    token = ward.for_("cap")
    empty = ET.fromstring(ward.fetch("/feeds/cap.atom", token).content)
    ward.hear(1)
    ward.hear(2)
    feed = ET.fromstring(ward.fetch("/feeds/cap.atom", token).content)
    for one in (empty, feed):
        assert [one.findtext(f"{ATOM}{name}") != "" for name in ("id", "title", "updated")] == [True] * 3
        assert one.find(f"{ATOM}author/{ATOM}name") is not None
    entries = feed.findall(f"{ATOM}entry")
    assert len({entry.findtext(f"{ATOM}id") for entry in entries}) == len(entries) == 2
    stamp = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
    for entry in entries:
        assert entry.findtext(f"{ATOM}title") and stamp.fullmatch(entry.findtext(f"{ATOM}updated") or "")


def test_the_rules_of_cap_find_what_is_wrong() -> None:
    """A checker that finds nothing proves nothing."""
    good = (
        '<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2"><identifier>i</identifier><sender>s</sender>'
        "<sent>2026-11-22T07:02:11-00:00</sent><status>Actual</status><msgType>Alert</msgType><scope>Public</scope></alert>"
    )
    assert cap_rules.problems(good.encode()) == []
    for old, new in (
        ("-00:00", "Z"),
        ("Actual", "Real"),
        ("<identifier>i</identifier>", ""),
        (">i<", ">i j<"),
        ("Public", "Restricted"),
        ("Alert<", "Cancel<"),
        ("<sender>s</sender>", "<sender>s</sender><colour>red</colour>"),
        ("<status>Actual</status><msgType>Alert</msgType>", "<msgType>Alert</msgType><status>Actual</status>"),
        ("cap:1.2", "cap:1.1"),
    ):
        assert cap_rules.problems(good.replace(old, new).encode()), (old, new)


@given(said=st.text(max_size=80), place=st.text(max_size=80), when=st.text(max_size=30))
def test_whatever_a_node_says_the_message_is_whole(said: str, place: str, when: str) -> None:
    from agent import wire
    from agent.station.alerts import Alert

    told = wire.CloudEvent(
        id=incident(1),
        source="wardpost/ward-7/gate-2",
        type="wardpost.person",
        subject=incident(1),
        time=when,
        epoch=incident(1),
        sequence=1,
        session=1,
        bootid="f" * 32,
        monons=1,
        timeerrms=5,
        data=wire.EventData(incident=incident(1), phase="started", severity="alert", summary=said, place=place),
    )
    alert = Alert(
        *(incident(1), "gate-2", "alert", 10**18, 10**18, False, False, "", None, "", "", "", False, 1),
        told=told,
        heard_utc_ns=10**18,
    )
    cap = Cap(site="ward-7", sender="desk", language="en", origin=ORIGIN, hours=1)
    assert cap_rules.problems(cap.document(alert)) == []
    assert ET.fromstring(cap.feed([alert], now_utc_ns=0)).tag == f"{ATOM}feed"


def test_onvif_events_have_the_nodes_topics(ward: Feeding) -> None:
    token = ward.for_("events")
    ward.hear(1, onvif="tns1:RuleEngine/LineDetector/Crossed", rule="fence", label="person", score=0.8)
    ward.hear(2, severity="bell")
    ward.hear(3, onvif="tns1:" + EVIL, time="x")
    ward.hear(4)
    found = {one["Key"]["Incident"]: one for one in ward.fetch("/feeds/onvif", token).json()}
    assert set(found) == {incident(1), incident(2)}
    crossed = found[incident(1)]
    assert crossed["Topic"] == "tns1:RuleEngine/LineDetector/Crossed"
    assert crossed["Source"] == {"VideoSourceToken": "gate-2", "Rule": "fence"}
    assert crossed["Data"] == {"State": True, "ObjectId": incident(1), "ClassTypes": "person", "Likelihood": 0.8}
    assert found[incident(2)]["Topic"] == onvif.BELL
    assert found[incident(2)]["Data"] == {"LogicalState": True}


def test_figures_are_what_prometheus_reads(ward: Feeding) -> None:
    token = ward.for_("metrics")
    ward.hear(1, severity="bell", place=EVIL)
    ward.hear(2)
    ward.store.change([("gate-2", "dark", 0)])
    ward.clock.advance(61)
    ward.desk.alerts.note_overdue()
    answer = ward.fetch("/metrics", token)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["wardpost_nodes", "dark"] == 1 and samples["wardpost_nodes", "online"] == 0
    assert samples["wardpost_alerts_unacknowledged", "bell"] == 1
    assert samples["wardpost_alerts_total", "alert"] == 1 and samples["wardpost_events_total",] == 2
    assert samples["wardpost_alerts_overdue",] == 1


def test_figures_do_not_grow_with_what_nodes_send(ward: Feeding) -> None:
    token = ward.for_("metrics")
    before = ward.fetch("/metrics", token).text.count("\n")
    for number in range(20):
        ward.hear(number, node=f"gate-{number}", place=f"place {number}")
    assert ward.fetch("/metrics", token).text.count("\n") == before


def test_labels_are_escaped() -> None:
    """As the text format asks; read back by Prometheus' own parser."""
    odd = 'a"b\\c\nd'
    one = Standing(odd, 1, 2, 3, 4, 0, 1, "why")
    figures = metrics.Figures(odd, "1", {}, {}, {}, 0, 0, 0, [one], 1_500_000_000)
    families = list(text_string_to_metric_families(metrics.render(figures)))
    labels = {value for family in families for sample in family.samples for value in sample.labels.values()}
    assert odd in labels
    ages = [s.value for f in families for s in f.samples if s.name == "wardpost_outward_oldest_seconds"]
    assert ages == [1.5]


def test_the_openapi_document_is_true(ward: Feeding) -> None:
    """It names each route of the table and no other, and real answers fit its schemas."""
    spec = ward.fetch("/openapi.json").json()
    assert spec == openapi.document(spec["info"]["version"])
    routes: list[Route] = [one for one in ward.desk.routes if isinstance(one.may, Bearer)]
    assert set(spec["paths"]) == {one.path for one in routes} | {"/openapi.json"}
    ward.hear(1, onvif="tns1:RuleEngine/LineDetector/Crossed", place=EVIL)
    ward.hear(2, severity="bell", time="x")
    token = ward.for_("events")
    for path in ("/feeds/onvif", "/api/alerts", "/api/posts"):
        answer = ward.fetch(path, token).json()
        schema = spec["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        validator = jsonschema.Draft202012Validator(
            schema | {"components": spec["components"]}, format_checker=jsonschema.FormatChecker()
        )
        validator.validate(answer)
        assert answer
    for path, purpose in PATHS.items():
        told = spec["paths"][path]["get"]["responses"]["401"]["description"]
        assert told == f"No token for {purpose}"


def test_alerts_in_json_carry_no_control_characters(ward: Feeding) -> None:
    ward.hear(1, place=EVIL, summary=EVIL)
    found = ward.fetch("/api/alerts", ward.for_("events")).json()[0]
    assert not re.search(r"[\x00-\x1f\u202e\ufffe]", found["place"] + found["summary"])
    assert found["place"].startswith('Gate"><script>'), "JSON is no HTML: the words stay"


def test_without_feeds_there_are_none(tmp_path: Path, database: Database) -> None:
    ward = Ward(tmp_path, database)
    try:
        for path in PATHS:
            assert ward.visitor().get(path).status_code == 404
    finally:
        ward.close()


# -- on record --------------------------------------------------------------------------------------------------------


def fetched(ward: Feeding) -> list[tuple[str, str, str]]:
    return [(one["token"], one["feed"], one["address"]) for one in ward.trail() if one["kind"] == "feed-fetched"]


def test_who_fetches_a_feed_is_on_the_audit_log_once_a_day(ward: Feeding) -> None:
    """A brigade's program polls all day, and the station starts anew; then its token is used from somewhere else."""
    cap, events, home = ward.for_("cap"), ward.for_("events"), "192.0.2.7"
    for _ in range(5):
        assert ward.fetch("/feeds/cap.atom", cap).status_code == 200
        assert ward.fetch("/api/alerts", events).status_code == 200
        ward.clock.advance(60)
    told = [("a-cap", "/feeds/cap.atom", home), ("a-events", "/api/alerts", home)]
    assert fetched(ward) == told, "not each poll"
    ward.start()
    assert ward.fetch("/feeds/cap.atom", cap).status_code == 200
    assert fetched(ward) == told, "nor anew with each start of the station"
    assert ward.fetch("/api/posts", events).status_code == 200
    for _ in range(2):
        away = ward.visitor(address="203.0.113.9")
        assert away.send("GET", "/feeds/cap.atom", headers={"authorization": f"Bearer {cap}"}).status_code == 200
    told += [("a-events", "/api/posts", home), ("a-cap", "/feeds/cap.atom", "203.0.113.9")]
    assert fetched(ward) == told
    ward.hear(1)
    ward.fetch("/feeds/cap.atom", events)
    ward.fetch(f"/feeds/cap/{incident(2)}", "")
    assert fetched(ward) == told, "who was refused has fetched nothing"
    assert ward.fetch(f"/feeds/cap/{incident(1)}", cap).status_code == 200
    told += [("a-cap", "/feeds/cap/{incident}", home)]
    assert fetched(ward) == told
    ward.clock.advance(86_400)
    assert ward.fetch("/feeds/cap.atom", cap).status_code == 200
    assert fetched(ward) == [*told, ("a-cap", "/feeds/cap.atom", home)], "the next day"
    assert {one["who"] for one in ward.trail() if one["kind"] == "feed-fetched"} == {""}


def test_a_token_that_is_used_from_everywhere_does_not_fill_the_log(ward: Feeding) -> None:
    cap = ward.for_("cap")
    for n in range(ADDRESSES_MAX + 5):
        ward.clock.advance(60)
        away = ward.visitor(address=f"203.0.113.{n}")
        assert away.send("GET", "/feeds/cap.atom", headers={"authorization": f"Bearer {cap}"}).status_code == 200
    assert len(fetched(ward)) == ADDRESSES_MAX


def test_what_cannot_be_put_on_record_is_not_given_but_for_figures_of_the_station_itself(
    ward: Feeding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full: who watches over the station must see that it is."""
    cap, figures = ward.for_("cap"), ward.for_("metrics")

    def full(*_: Any, **__: Any) -> None:
        raise NoRoom("the disk is full")

    monkeypatch.setattr(ward.desk.trail, "note", full)
    assert ward.fetch("/feeds/cap.atom", cap).status_code == 503
    assert ward.fetch("/metrics", figures).status_code == 200
    monkeypatch.undo()
    assert ward.fetch("/feeds/cap.atom", cap).status_code == 200
    assert ward.fetch("/metrics", figures).status_code == 200
    assert [one[0] for one in fetched(ward)] == ["a-cap", "a-metrics"]
