"""What tests/system/test_pages_schema.py has found by chance, once more by name: requests that no page of ours makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.station.people.roles import Role
from tests.fakes.database import fresh
from tests.fakes.desk import Ward
from tests.fakes.hostile import Got, Sent, Wire, by_a_browser, let_in, made_hostile


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    with fresh("sqlite", tmp_path) as database:
        made = Ward(tmp_path, database)
        yield made
        made.close()


def ask(ward: Ward, sent: Sent) -> Got:
    wire = Wire(ward.desk.app)
    try:
        return wire.ask(sent)
    finally:
        wire.close()


def test_an_address_that_is_no_text_is_answered_as_any_other(ward: Ward) -> None:
    """uvicorn with h11 lets none such in; another server in front of the pages does."""
    ward.person("lan", Role.SUPERVISOR)
    token = ward.desk.sessions.begin("lan")
    sent = by_a_browser("GET", "/map", {}, None, who="lan", token=token)
    assert ask(ward, replace(sent, query=b"x=\xff\xfe")).status == 200
    assert ask(ward, replace(sent, path=b"/posts", query=b"find=%FF%FE%ED%A0%80")).status == 200


def test_no_page_shows_control_characters(ward: Ward) -> None:
    ward.person("lan", Role.SUPERVISOR)
    token = ward.desk.sessions.begin("lan")
    for path, name in (("/search", "word"), ("/posts", "find"), ("/cases", "find"), ("/footage", "find")):
        got = ask(ward, by_a_browser("GET", path, {name: "a\0b\x1b[31m\x7fc"}, None, who="lan", token=token))
        assert not {"\0", "\x1b", "\x7f"} & set(got.text), path


def test_a_page_that_lets_something_in_is_found_out() -> None:
    """The judge of the run by chance, judged."""
    html = (("content-type", "text/html; charset=utf-8"),)
    told = {
        b"<p>\"'><x-wardpost onx=1></p>": "a tag",
        b'<input value=""\'&gt;&lt;x-wardpost onx=1&gt;">': "a quote",
        b'<a href="javascript:x-wardpost">': "a link",
        b"<pre>Traceback (most recent call last)</pre>": "Traceback",
    }
    for body, what in told.items():
        assert what in " ".join(let_in(Got(200, html, body))), body
    escaped = b'<input value="&#34;&#39;&gt;&lt;x-wardpost onx=1&gt;"> &lt;/script&gt;&lt;x-wardpost&gt;'
    assert not list(let_in(Got(200, html, escaped)))
    assert list(let_in(Got(303, (("x-wardpost", "1"),), b"")))


def test_what_is_sent_in_a_hostile_way_is_what_it_says(ward: Ward) -> None:
    ward.person("lan", Role.SUPERVISOR)
    token = ward.desk.sessions.begin("lan")
    usual = by_a_browser("POST", "/language", {}, {"language": "vi", "back": "/"}, who="lan", token=token)
    expected = {
        "": {303}, "twice": {303, 400}, "type": {303, 415}, "size": {303, 400, 413}, "foreign": {403},
        "elsewhere": {403}, "host": {421}, "method": {303, 405},
    }  # fmt: skip
    for way, statuses in expected.items():
        got = {ask(ward, made_hostile(usual, way, "x", at)).status for at in range(12)}
        assert got == statuses, f"{way}: {got}"
