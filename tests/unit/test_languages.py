"""Languages of the pages: whoever changes his comes back to where he was, and a third one comes by its files alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from agent.station.people.roles import Role
from agent.station.posts import words as told
from agent.station.web import words as languages
from tests.fakes.database import Database
from tests.fakes.desk import Visitor
from tests.fakes.footage_ward import FootageWard


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[FootageWard]:
    made = _ward(tmp_path, database)
    yield made
    _close(made)


def _ward(folder: Path, database: Database) -> FootageWard:
    made = FootageWard(folder, database)
    made.footage.knows("gate-2", "Gate")
    made.person("lan", Role.OPERATOR, name="Lan")
    return made


def _close(ward: FootageWard) -> None:
    ward.footage.engine.dispose()
    ward.close()


def back(visitor: Visitor) -> str:
    """Where the form of the last page leads back to."""
    (found,) = re.findall(r'name="back" value="([^"]*)">\s*<button name="language"', visitor.page)
    return unescape(found)


@pytest.mark.parametrize(
    "where",
    [
        "/",
        "/posts?find=gate&show=dark",
        "/footage?post.gate-2=on&from=2026-11-22T07%3A00%3A00&to=2026-11-22T08%3A00%3A00",
        "/cases",
        "/account",
    ],
)
def test_whoever_changes_the_language_comes_back_with_what_he_asked_for(ward: FootageWard, where: str) -> None:
    lan = ward.visitor("lan")
    lan.get(where)
    answer = lan.post("/language", language="vi", back=back(lan))
    assert (answer.status_code, answer.headers["location"]) == (303, where)
    assert '<html lang="vi">' in lan.get(where).text


def test_the_answer_to_a_form_is_no_page_to_come_back_to(ward: FootageWard) -> None:
    one = ward.hear(1)
    ward.person("minh", Role.OPERATOR)
    minh, lan = ward.visitor("minh"), ward.visitor("lan")
    assert minh.post(f"/alerts/{one}/acknowledge").status_code == 303
    answer = lan.post(f"/alerts/{one}/acknowledge")
    assert answer.status_code == 409
    lan.page = answer.text
    assert lan.post("/language", language="vi", back=back(lan)).headers["location"] == "/"


@pytest.mark.parametrize(
    "evil",
    [
        "https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "posts",
        "/\r\nset-cookie:a=b", "javascript:alert(1)", " /posts", "/posts\x00", "", "/ /evil.example", "/" + "a" * 9000,
        "/posté",
    ],
)  # fmt: skip
def test_nobody_is_led_away_from_the_desk(ward: FootageWard, evil: str) -> None:
    lan = ward.visitor("lan")
    assert lan.post("/language", language="vi", back=evil).headers["location"] == "/"


def test_a_verdict_is_said_in_the_language_of_the_page(ward: FootageWard) -> None:
    one, other = ward.hear(1), ward.hear(2)
    lan = ward.visitor("lan")
    lan.post(f"/alerts/{one}/verdict", verdict="false", reason="true: a cat")
    lan.post(f"/alerts/{other}/verdict", verdict="true", reason="")
    assert "Lan says: False alert: true: a cat" in lan.get(f"/alerts/{one}").text
    assert "Lan says: True alert</li>" in lan.get(f"/alerts/{other}").text
    lan.post("/language", language="vi", back="/")
    assert "Lan kết luận: Báo động sai: true: a cat" in lan.get(f"/alerts/{one}").text


def test_a_language_that_comes_by_its_files_is_on_the_menu_and_on_the_pages(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages and sentences about posts; a sentence that its file does not have yet is English."""
    for module, name in ((languages, "web"), (told, "posts")):
        folder = tmp_path / name
        folder.mkdir()
        for language in ("en", "vi"):
            source = Path(module.__file__ or "").with_name(f"words.{language}.json")
            (folder / source.name).write_bytes(source.read_bytes())
        texts = json.loads((folder / "words.en.json").read_text())
        third = {key: f"KM {text}" for key, text in texts.items()} | {"name": "ភាសាខ្មែរ"}
        if name == "posts":
            del third["unit.h"]
        (folder / "words.km.json").write_text(json.dumps(third))
        monkeypatch.setattr(module, "FOLDER", folder)
    ward = _ward(tmp_path, database)
    lan = ward.visitor("lan")
    lan.get("/posts")
    offered = re.findall(r'<button name="language" value="(\w+)" lang="(\w+)" class="plain">([^<]*)</button>', lan.page)
    assert offered == [("vi", "vi", "Tiếng Việt"), ("km", "km", "ភាសាខ្មែរ")], "all but the one that is spoken"
    lan.post("/language", language="km", back="/posts")
    page = lan.get("/posts").text
    assert '<html lang="km">' in page and "KM " in page
    offered = re.findall(r'<button name="language" value="(\w+)"', page)
    assert offered == ["en", "vi"]
    words = told.Words.of("km")
    assert words("cause.network") == "KM network" and words("unit.h") == told.Words.of("en")("unit.h")
    assert told.Words.of("xx").texts == told.Words.of("../../x").texts == told.Words.of("en").texts
    _close(ward)
