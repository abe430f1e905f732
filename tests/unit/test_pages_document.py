"""The document of the pages and forms, by which tests/system/test_pages_schema.py goes over them, leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.station.web.desk import make_desk
from agent.station.web.routes import PATTERNS, Route
from tests.fakes.database import fresh
from tests.fakes.pages_document import PATHS, TAKES, answers, document
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.fakes.whole_desk import WholeWard, whole_ward

TEMPLATES = Path(make_desk.__code__.co_filename).parent / "templates"
SHARED = {"form", "viewport"}
"""Names in templates that are no field of one form: the token of each, and what is no form."""


def test_every_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    with fresh("sqlite", tmp_path) as database:
        ward = WholeWard(tmp_path, database)
        routes = ward.desk.routes
        ward.close()
    made = document(routes)
    assert {(method.upper(), path) for path, of in made["paths"].items() for method in of} == {
        (one.method, one.path) for one in routes
    }
    assert all(500 not in answers(one) for one in routes)
    new = Route(method="GET", path="/new", handler=print, may=routes[0].may)
    with pytest.raises(KeyError, match="/new"):
        document([*routes, new])
    with pytest.raises(ValueError, match="not in the table"):
        document(routes[1:])


def test_what_stands_in_an_address_is_described_for_every_parameter_that_a_route_may_have() -> None:
    assert set(PATHS) == set(PATTERNS)
    for name, given in PATHS.items():
        assert all(PATTERNS[name].fullmatch(one) for one in given), name


def test_every_field_of_every_form_that_a_page_shows_is_described() -> None:
    described = {name for takes in TAKES.values() for name in (*takes.query, *takes.form)}
    shown = set()
    for page in TEMPLATES.glob("*.html"):
        shown |= set(re.findall(r'<(?:input|select|textarea|button)\b[^>]*?\sname="([a-z][a-z-]*)"', page.read_text()))
    assert shown - SHARED <= described, "a page has a field that nobody has described"
    assert len(shown) > 20


def test_the_desk_of_everything_has_something_on_it(tmp_path: Path) -> None:
    with fresh("sqlite", tmp_path) as database, whole_ward(tmp_path, database):
        found = {
            name: database.rows(f"select count(*) from {name}")[0][0] for name in ("footage", "alert", "case_head")
        }
    assert all(found.values()), found
