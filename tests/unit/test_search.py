"""Search for past incidents: what is found by what, by whom, in which order, and what it may cost."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import event as engine_event

from agent import wire
from agent.clock import rfc3339
from agent.station.db.engine import reading
from agent.station.people.roles import Role, Scope, scope_of
from agent.station.search import finder
from agent.station.search.finder import Finder
from agent.station.search.keeper import Keeper, waiting
from agent.station.search.meaning import KINDS, LABELS, SEVERITIES, entry_of, fold
from agent.station.search.query import VERDICTS, NotYours, Place, Query, Unclear, asked_for
from agent.station.web import words as languages
from agent.types import NS
from tests.fakes.database import Database
from tests.fakes.desk import JPEG, Ward, incident

WHOLE = Scope(whole_site=True)
PICTURE = base64.b64encode(JPEG).decode()
RULES = "tns1:RuleEngine/"
MINUTE = 60 * NS


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[Ward]:
    made = Ward(tmp_path, database, time_zone="UTC")
    yield made
    made.close()


def hear(ward: Ward, number: int, **data: Any) -> str:
    """A minute later, told at once by a post whose clock is right to 3 s."""
    ward.clock.advance(60)
    return ward.hear(number, **{"time": rfc3339(ward.clock.utc().utc_ns)} | data)


def found(ward: Ward, scope: Scope = WHOLE, **asked: Any) -> list[str]:
    return [one.incident for one in Finder(ward.engine).find(scope, Query(**asked)).incidents]


def told(**data: Any) -> wire.CloudEvent:
    outer = {key: data.pop(key) for key in ("type", "time", "timeerrms", "historical") if key in data}
    known: dict[str, Any] = {"incident": incident(1), "phase": "started", "severity": "notice", "summary": "Somebody"}
    made: dict[str, Any] = {
        "id": incident(2), "source": "wardpost/ward-7/gate-2", "type": "wardpost.person", "subject": incident(1),
        "time": "2026-11-22T07:00:00Z", "timeerrms": 1000, "epoch": incident(3), "sequence": 1, "session": 1,
        "bootid": "f" * 32, "monons": 1,
    }  # fmt: skip
    return wire.CloudEvent(**made | outer, data=wire.EventData(**known | data))


# -- what an event means, what a question means -----------------------------------------------------------------------


def test_letters_without_accents_find_vietnamese_names() -> None:
    assert fold("Đường  Lê Lợi, QUẬN 1") == "duong le loi, quan 1"
    assert fold("\u1ec7") == fold("e\u0302\u0323") == "e"


@pytest.mark.parametrize(
    ("data", "kind", "label"),
    [
        ({"type": "wardpost.bell", "severity": "bell"}, "bell", ""),
        ({"type": "wardpost.motion"}, "seen", "motion"),
        (
            {"label": "person", "rule": "night", "onvif": f"{RULES}LoiteringDetector/ObjectIsLoitering"},
            "loiter",
            "person",
        ),
        ({"label": "person", "rule": "x", "onvif": f"{RULES}CountAggregation/Counter"}, "crowd", "person"),
        ({"label": "vehicle", "rule": "x", "onvif": f"{RULES}CountAggregation/Counter"}, "congestion", "vehicle"),
        ({"label": "animal", "rule": "static"}, "static", "animal"),
        ({"type": "wardpost.tamper", "reason": "covered"}, "tamper", ""),
        ({"type": "wardpost.novelty"}, "seen", ""),
    ],
)
def test_what_happened_is_known_whatever_a_post_calls_its_rule(data: dict[str, Any], kind: str, label: str) -> None:
    made = entry_of(told(**data), n=7, node="gate-2", received_utc_ns=5, picture=False)
    assert (made.kind, made.label) == (kind, label)
    assert kind in KINDS and (label in LABELS or not label)


def test_a_clock_that_cannot_be_gone_by_gives_way_to_the_arrival() -> None:
    at = 1_795_330_800 * NS  # 07:00:00

    def when(received_utc_ns: int, **data: Any) -> tuple[int, int | None]:
        made = entry_of(told(**data), n=1, node="gate-2", received_utc_ns=received_utc_ns, picture=False)
        return made.at_utc_ns, made.error_ms

    assert when(at + NS) == (at, 1000)
    assert when(at + NS, timeerrms=None) == (at + NS, None), "nobody vouches for it"
    assert when(at + 600 * NS) == (at + 600 * NS, None), "told at once, and ten minutes off: a wrong clock"
    assert when(at + 600 * NS, historical=True) == (at, 1000), "told late"
    assert when(at + 40 * 86_400 * NS, historical=True) == (at, 1000), "the post was dark for long"
    assert when(at - 600 * NS, historical=True) == (at - 600 * NS, None), "late, and ahead of its arrival"
    assert when(at, historical=True, timeerrms=None) == (at, None)
    assert when(at, time="yesterday") == (at, None)


BAD = [
    ("post", "Gate 2", "search.bad.post"),
    ("post", " ".join(f"p{n}" for n in range(21)), "search.bad.posts"),
    ("post", "x" * 33, "search.bad.post"),
    ("from", "yesterday", "search.bad.time"),
    ("to", "2026-13-01T00:00", "search.bad.time"),
    ("class", "ghost", "search.bad.class"),
    ("kind", "' or 1=1 --", "search.bad.kind"),
    ("severity", "ALERT", "search.bad.severity"),
    ("verdict", "maybe", "search.bad.verdict"),
    ("zone", "a|b", "search.bad.zone"),
    ("word", "one two three four five six", "search.bad.word"),
    ("word", "x" * 61, "search.bad.word"),
    ("word", "a\x00b", "search.bad.letters"),
    ("word", "\u202egate", "search.bad.letters"),
    ("before", "12", "search.bad.before"),
    ("before", "9" * 19 + ".", "search.bad.before"),
    ("before", "1.'", "search.bad.before"),
]


def minutes(text: str) -> int | None:
    return int(text) * MINUTE if text.isdigit() else None


@pytest.mark.parametrize(("field", "text", "key"), BAD)
def test_what_cannot_be_understood_is_named(field: str, text: str, key: str) -> None:
    with pytest.raises(Unclear) as unclear:
        asked_for({field: text}, scope=WHOLE, begins=minutes, ends=minutes)
    assert unclear.value.key == key


def test_a_question_is_what_its_fields_say_and_no_other_field_counts() -> None:
    fields = {
        "post": " gate-2, gate-9 gate-2", "from": "1", "to": "1", "class": "person", "kind": "loiter", "severity": "alert",
        "verdict": "none", "zone": "yard", "word": " red  coat ", "before": f"{5 * NS}.{incident(1)}", "offset": "x",
    }  # fmt: skip
    assert asked_for(fields, scope=WHOLE, begins=minutes, ends=minutes) == Query(
        posts=("gate-2", "gate-9"), start_utc_ns=MINUTE, end_utc_ns=MINUTE, label="person", kind="loiter",
        severity="alert", verdict="none", zone="yard", words=("red", "coat"), before=Place(5 * NS, incident(1)),
    )  # fmt: skip
    with pytest.raises(Unclear, match=r"search\.bad\.order"):
        asked_for({"from": "2", "to": "1"}, scope=WHOLE, begins=minutes, ends=minutes)
    with pytest.raises(NotYours):
        asked_for({"post": "gate-2 gate-9"}, scope=scope_of(Role.SCHOOL, ["gate-2"]), begins=minutes, ends=minutes)


# -- what is found ----------------------------------------------------------------------------------------------------


def test_an_evening_at_the_ward_is_found_again_by_each_thing_that_is_known_of_it(ward: Ward) -> None:
    """Somebody loiters; a cyclist passes; a bell; a crowd at the school; motion; a camera is covered."""
    loiterer = hear(ward, 1, severity="notice", label="person", zones=["yard"], place="Ngõ 12 Đường Lê Lợi")
    began = ward.clock.utc().utc_ns
    topic = f"{RULES}LoiteringDetector/ObjectIsLoitering"
    hear(ward, 1, phase="updated", label="person", zones=["gate"], rule="night-watch", onvif=topic)
    hear(ward, 1, severity="thumbnail", phase="updated", jpeg=PICTURE)
    hear(ward, 1, phase="ended", severity="notice", label="person", summary="A person in a red coat has gone")
    cyclist = hear(ward, 2, severity="record", label="bicycle", kind="bicycle", node="gate-9")
    bell = hear(ward, 3, severity="bell", kind="bell", summary="The bell was pressed")
    topic = f"{RULES}CountAggregation/Counter"
    crowd = hear(ward, 4, label="person", node="school-1", onvif=topic, rule="dismissal", zones=["yard-2"])
    motion = hear(ward, 5, severity="record", kind="motion", node="gate-9")
    tamper = hear(ward, 6, kind="tamper", reason="covered", node="school-1")
    assert found(ward) == [], "not yet taken in"
    ward.searchable()
    assert found(ward) == [tamper, motion, crowd, bell, cyclist, loiterer], "newest first"

    assert found(ward, posts=("gate-2",)) == [bell, loiterer]
    assert found(ward, posts=("gate-9", "school-1")) == [tamper, motion, crowd, cyclist]
    assert found(ward, label="person") == [crowd, loiterer]
    assert found(ward, label="motion") == [motion]
    assert found(ward, label="animal") == []
    assert found(ward, kind="loiter") == [loiterer], "also after the post has said less of it"
    assert found(ward, kind="crowd") == [crowd] and found(ward, kind="tamper") == [tamper]
    assert found(ward, kind="bell", label="person") == []
    assert found(ward, severity="alert") == [tamper, crowd, loiterer], "what it came to, not what it ended as"
    assert found(ward, severity="bell") == [bell]
    assert found(ward, zone="yard") == [loiterer] == found(ward, zone="gate"), "and not yard-2"
    assert found(ward, zone="_ard") == [], "no letter stands for others"
    assert found(ward, words=("le", "loi")) == [loiterer] == found(ward, words=("LÊ LỢI",))
    assert found(ward, words=("red coat", "night-watch")) == [loiterer] and found(ward, words=("red", "bell")) == []
    assert found(ward, words=("%",)) == [] == found(ward, words=("_",))
    assert found(ward, start_utc_ns=began - 10 * NS, end_utc_ns=began + 10 * NS) == [loiterer], "when it began"
    assert found(ward, posts=("gate-2",), kind="loiter", label="person", severity="alert", zone="yard") == [loiterer]

    [one] = Finder(ward.engine).find(WHOLE, Query(kind="loiter")).incidents
    assert (one.at_utc_ns, one.error_ms, one.has_picture, one.is_alert) == (began, 3000, True, True)
    assert one.told is not None and one.told.data.summary == "A person in a red coat has gone"


def test_verdicts_and_comments_are_found_as_they_are_now(ward: Ward) -> None:
    who = ward.person("minh", Role.OPERATOR)
    first, second, third = (hear(ward, n) for n in (1, 2, 3))
    hear(ward, 4, severity="notice")
    ward.searchable()
    assert found(ward, verdict="none") == [third, second, first], "a notice waits for none"
    ward.desk.alerts.judge(who, first, "true", "Trộm xe máy")
    ward.desk.alerts.judge(who, second, "false", "")
    ward.desk.alerts.comment(who, third, "Ask the baker")
    assert (found(ward, verdict="true"), found(ward, verdict="false")) == ([first], [second])
    assert found(ward, verdict="none") == [third] == found(ward, words=("BAKER",))
    assert found(ward, words=("Trộm",)) == [first]


def test_the_error_of_a_clock_reaches_into_the_time_that_was_asked_for(ward: Ward) -> None:
    sure = hear(ward, 1, timeerrms=1000)
    unsure = hear(ward, 2, timeerrms=40_000)
    at = ward.clock.utc().utc_ns
    ward.searchable()
    assert found(ward, start_utc_ns=at + 39 * NS) == [unsure]
    assert found(ward, start_utc_ns=at + 41 * NS) == []
    assert found(ward, end_utc_ns=at - 39 * NS, start_utc_ns=at - 50 * NS) == [unsure]
    assert found(ward, end_utc_ns=at - 41 * NS) == [sure]


def test_page_after_page_tells_each_incident_once_also_those_of_one_moment(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "SHOWN_MAX", 3)
    at = rfc3339(ward.clock.utc().utc_ns)
    all_of_them = {ward.hear(n, time=at, severity="notice") for n in range(1, 9)}
    ward.searchable()
    seen: list[str] = []
    query = Query()
    for page in range(3):
        part = Finder(ward.engine).find(WHOLE, query)
        seen += [one.incident for one in part.incidents]
        assert (part.onward is None) == (page == 2) and part.looked_utc_ns is None
        query = Query(before=part.onward)
        hear(ward, 1000 + page)  # what comes meanwhile moves nothing
        ward.searchable()
    assert len(seen) == len(all_of_them) and set(seen) == all_of_them


def test_a_rare_thing_is_looked_for_a_bounded_part_at_a_time(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """One person was in the yard, the others were not."""
    rare = hear(ward, 1, zones=["yard"], severity="notice")
    for number in range(2, 22):
        hear(ward, number, severity="notice", node=("gate-2", "gate-9")[number % 2])
    ward.searchable()
    look = Finder(ward.engine, looked_max=8)
    for posts in ((), ("gate-2",), ("gate-2", "gate-9")):
        query, parts = Query(posts=posts, zone="yard"), []
        while True:
            part = look.find(WHOLE, query)
            parts.append([one.incident for one in part.incidents])
            if part.onward is None:
                break
            assert part.looked_utc_ns == part.onward.at_utc_ns
            query = Query(posts=posts, zone="yard", before=part.onward)
        assert [one for part in parts for one in part] == [rare]
        assert 2 <= len(parts) <= 6, parts
    # A scope of more posts than have a walk of their own looks at everybody's newest, and shows its own.
    monkeypatch.setattr(finder, "WALKS_MAX", 1)
    two = Scope(whole_site=False, posts=frozenset({"gate-9", "gate-77"}))
    assert len(Finder(ward.engine).find(two, Query()).incidents) == 10


def test_no_search_reads_the_table_through(ward: Ward) -> None:
    if ward.database.kind != "sqlite":
        return  # PostgreSQL reads a table as small as a test's through on purpose; tests/bench/station shows a large one
    hear(ward, 1)
    ward.searchable()
    asked: list[tuple[str, Any]] = []

    @engine_event.listens_for(ward.engine, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:
        asked.append((statement, values))

    some: dict[str, Any] = {"start_utc_ns": NS, "before": Place(2**62)}
    for query in (
        Query(), Query(**some), Query(kind="bell"), Query(label="person", **some), Query(posts=("gate-2",), kind="bell"),
        Query(posts=("gate-2", "gate-9"), words=("x",)), Query(verdict="true"), Query(severity="bell", zone="yard"),
    ):  # fmt: skip
        asked.clear()
        Finder(ward.engine).find(WHOLE, query)
        plans = []
        with reading(ward.engine) as db:
            for statement, values in [one for one in asked if "incident" in one[0]]:
                plans += [row[3] for row in db.exec_driver_sql(f"explain query plan {statement}", values)]
        assert any("USING" in line and "incident" in line for line in plans), plans
        for line in plans:
            assert not re.match(r"SCAN (incident|alert|event)\b(?!.*INDEX)", line), (query, plans)
        if query.posts[1:]:
            continue  # sorted: of some posts, and no further back than was said
        assert not any("TEMP B-TREE" in line for line in plans), (query, plans)


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_what_is_taken_in_twice_or_by_two_at_once_is_there_once(ward: Ward) -> None:
    hear(ward, 1, severity="notice", zones=["yard"])
    hear(ward, 1, phase="updated", zones=["gate"])
    ward.searchable()
    before = ward.database.rows("select * from incident")
    ward.database.run("delete from board_mark where key = 'search'")
    ward.clock.advance(2)
    two = [Keeper(ward.engine, clock=ward.clock) for _ in range(2)]
    assert [one.take_in() for one in two] == [False, False]
    assert ward.database.rows("select * from incident") == before
    with reading(ward.engine) as db:
        assert waiting(db) == 0
    hear(ward, 2)
    with reading(ward.engine) as db:
        assert waiting(db) == 1


def test_another_post_cannot_change_an_incident_by_its_name(ward: Ward) -> None:
    mine = hear(ward, 1, severity="notice")
    ward.searchable()
    hear(ward, 1, node="evil", severity="bell", kind="bell", summary="forged")
    hear(ward, 1, node="evil", severity="thumbnail", jpeg=PICTURE)
    ward.searchable()
    [one] = Finder(ward.engine).find(WHOLE, Query()).incidents
    assert (one.incident, one.node, one.severity, one.has_picture) == (mine, "gate-2", "notice", False)
    assert found(ward, words=("forged",)) == [] and found(ward, posts=("evil",)) == []


def test_what_the_store_has_given_up_is_not_found_any_more(ward: Ward) -> None:
    hear(ward, 1)
    hear(ward, 2)
    hear(ward, 1, phase="ended")
    ward.searchable()
    ward.database.run("delete from event where n <= 2")
    newest = hear(ward, 3)
    ward.searchable()
    assert found(ward) == [newest, incident(1)]


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_finds_tells_and_leads_on(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    alert = hear(ward, 1, label="person", zones=["yard"], summary="<script>alert(1)</script> at the gate")
    hear(ward, 1, severity="thumbnail", jpeg=PICTURE)
    notice = hear(ward, 2, severity="notice", node="gate-9", timeerrms=None, place="")
    hear(ward, 2, severity="thumbnail", node="gate-9", jpeg=PICTURE)
    ward.searchable()
    visitor = ward.visitor("minh")
    page = visitor.get("/search").text
    assert 'href="/search" aria-current="page"' in page, "in the menu"
    assert page.index(notice) < page.index(alert) and "<script>alert" not in page and "&lt;script&gt;" in page
    assert f'href="/alerts/{alert}"' in page and f'href="/alerts/{notice}"' not in page, "a notice has no page"
    assert f'href="/footage?alert={alert}"' in page and 'href="/footage?post.gate-9=on&amp;from=' in page
    assert "±\N{NO-BREAK SPACE}3\N{NO-BREAK SPACE}s" in page and "the post's clock is not verified" in unescape(page)
    assert "Everything, with no limit of time" in page
    for one in (alert, notice):
        assert visitor.get(f"/search/{one}/picture").content == JPEG
    _board, *seen = [line for line in ward.trail() if line["kind"] == "viewed"]
    assert [(line["who"], line["what"], line["posts"]) for line in seen] == [
        ("minh", "picture", {"gate-9": [notice], "gate-2": [alert]})
    ], "who saw which picture is on record before it is shown, once"
    asked = {"post": "gate-2", "class": "person", "zone": "yard", "verdict": "none", "word": "Gate"}
    page = visitor.get(f"/search?{urlencode(asked)}").text
    assert alert in page and notice not in page
    assert all(f'value="{text}"' in page for text in ("gate-2", "yard", "Gate")), "the form stays as it was filled in"
    assert 'value="person" selected' in page and "Posts, by their ids: gate-2; What was seen: Person" in page
    page = visitor.get("/search?kind=bell&from=2026-11-01T00:00").text
    assert "Nothing was found" in page and "From: 2026-11-01 00:00; What happened: Bell" in page
    assert "Không tìm thấy gì" in visitor.get("/search?kind=bell", **{"accept-language": "vi"}).text


def test_the_next_part_keeps_what_was_asked_for(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "SHOWN_MAX", 3)
    ward.person("minh", Role.OPERATOR)
    for number in range(1, 6):
        hear(ward, number, severity="notice", label="person")
    ward.searchable()
    visitor = ward.visitor("minh")
    page = visitor.get("/search?class=person&severity=notice").text
    [onward] = re.findall(r'rel="next" href="([^"]+)"', page)
    assert "class=person&severity=notice&before=" in unescape(onward) and onward.endswith("#found")
    page = visitor.get(unescape(onward)).text
    assert page.count('<li class="hit') == 2 and 'rel="next"' not in page
    assert 'href="/search?class=person&amp;severity=notice"' in page, "back to the newest"


def test_bad_input_gets_a_sentence_in_each_language(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    visitor = ward.visitor("minh")
    for number, (field, text, key) in enumerate(BAD):
        language, words = sorted(languages.load().items())[number % 2]
        answer = visitor.get(f"/search?{urlencode({field: text})}", **{"accept-language": language})
        assert answer.status_code == 400 and words(key) in unescape(answer.text), (field, text)
        assert "Traceback" not in answer.text and '<li class="hit' not in answer.text


def test_a_school_finds_its_own_posts_and_no_word_of_others(ward: Ward) -> None:
    ward.person("school", Role.SCHOOL, "gate-2")
    mine = hear(ward, 1)
    other = hear(ward, 2, node="gate-9")
    hear(ward, 2, node="gate-9", severity="thumbnail", jpeg=PICTURE)
    ward.searchable()
    visitor = ward.visitor("school")
    page = visitor.get("/search").text
    assert mine in page and other not in page and "gate-9" not in page
    nowhere = visitor.get("/search?post=gate-77")
    refused = visitor.get("/search?post=gate-9")
    elsewhere = visitor.get(f"/alerts/{other}")
    assert refused.status_code == nowhere.status_code == elsewhere.status_code == 404
    texts = [re.sub(r'value="[^"]*"', "", one.text) for one in (refused, nowhere)]
    assert texts[0] == texts[1], "no word on which posts there are"
    assert visitor.get(f"/search/{other}/picture").status_code == 404
    assert visitor.get("/search?post=gate-2+gate-9").status_code == 404


def test_every_choice_and_every_complaint_has_its_words() -> None:
    for words in languages.load().values():
        for name, values in (("class", LABELS), ("kind", KINDS), ("severity", SEVERITIES), ("verdict", VERDICTS)):
            assert all(words(f"search.{name}.{one}") for one in values)
        assert all(words(key) for _, _, key in BAD)
