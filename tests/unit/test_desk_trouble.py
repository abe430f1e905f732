"""The desk when its disk is full or its database is away: what can be seen is shown, and what cannot is said rightly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from agent.errors import NoRoom, Transient
from agent.station.db.errors import plain
from agent.station.people.roles import Role
from agent.station.people.sessions import SEEN_EVERY_S
from tests.fakes.database import Database
from tests.fakes.desk import Ward, incident
from tests.fakes.full_disk import Disk

PAGES = ("/", f"/alerts/{incident(1)}", "/posts", "/account", "/search", "/cases")
IDLE_S = 60 * 60.0


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[Ward]:
    made = Ward(tmp_path, database)
    made.person("op", Role.OPERATOR)
    made.hear(1)
    made.searchable()
    yield made
    made.close()


def test_a_full_disk_leaves_what_can_be_read(ward: Ward) -> None:
    """That a session was used is noted once a minute: the night watch must not lose the board for that."""
    visitor = ward.visitor("op")
    before = {page: visitor.get(page).status_code for page in PAGES}
    assert before["/"] == before[f"/alerts/{incident(1)}"] == before["/posts"] == 200
    disk = Disk(ward.engine)
    disk.trouble = "full"
    for _ in range(4):
        ward.clock.advance(SEEN_EVERY_S * 2)
        assert {page: visitor.get(page).status_code for page in PAGES} == before
    assert disk.writes == 4, "the note is tried again once a minute, not with every page"
    ward.clock.advance(IDLE_S - 10)
    assert visitor.get("/posts").status_code == 200, "in use it stays open, noted or not"
    ward.clock.advance(IDLE_S + 10)
    assert visitor.get("/posts").status_code == 303, "and ends when it is not"


def test_a_session_ends_with_its_shift_on_a_full_disk_too(ward: Ward) -> None:
    visitor = ward.visitor("op")
    disk = Disk(ward.engine)
    disk.trouble = "full"
    for _ in range(23):
        ward.clock.advance(1800)
        assert visitor.get("/posts").status_code == 200
    ward.clock.advance(1800)
    assert visitor.get("/posts").status_code == 303, "12 hours"


def test_what_was_not_noted_is_noted_when_there_is_room_again(ward: Ward) -> None:
    visitor = ward.visitor("op")
    disk = Disk(ward.engine)
    disk.trouble = "full"
    ward.clock.advance(IDLE_S - 10)
    visitor.get("/posts")
    disk.trouble = ""
    ward.clock.advance(SEEN_EVERY_S + 1)
    visitor.get("/posts")
    ward.start()  # what was kept in memory is gone
    ward.clock.advance(IDLE_S - 10)
    assert visitor.get("/posts").status_code == 200


def test_what_a_full_disk_stops_is_told_as_that(ward: Ward) -> None:
    visitor = ward.visitor("op")
    ward.hear(2)
    disk = Disk(ward.engine)
    visitor.get("/account")
    disk.trouble = "full"
    acted = visitor.post(f"/alerts/{incident(1)}/acknowledge")
    assert acted.status_code == 503 and "disk is full" in acted.text and "busy" not in acted.text
    assert int(acted.headers["retry-after"]) >= 1
    unseen = visitor.get(f"/alerts/{incident(2)}")
    assert unseen.status_code == 503 and "disk is full" in unseen.text, "nobody sees it before the log says so"
    visitor.cookies.set("__Host-wardpost-language", "vi", domain="desk.example")
    assert "đầy" in visitor.get(f"/alerts/{incident(2)}").text
    stranger = ward.visitor()
    assert "disk is full" in stranger.log_in("op").text
    with pytest.raises(NoRoom, match="the disk is full; make room on it"):
        ward.desk.trail.note("login", "op")
    disk.trouble = ""
    visitor.get("/account")
    assert visitor.post(f"/alerts/{incident(1)}/acknowledge").status_code == 303


def test_the_page_of_an_error_has_its_style_while_the_database_is_away(ward: Ward) -> None:
    """What stands under /assets is for anybody: nobody is looked up for it, and no cookie is set."""
    visitor = ward.visitor("op")
    disk = Disk(ward.engine)
    disk.trouble = "away"
    page = visitor.get("/posts")
    assert page.status_code == 503 and "/assets/desk.css" in page.text and "disk is full" not in page.text
    disk.asked = 0
    for one in (visitor, ward.visitor()):
        style = one.get("/assets/desk.css")
        assert style.status_code == 200 and "set-cookie" not in style.headers
    assert disk.asked == 0


def test_a_board_says_whether_the_disk_is_full_or_the_database_away(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = ward.desk.live

    def once() -> None:
        live._stop.clear()
        monkeypatch.setattr(live._clock, "wait", lambda *_: live._stop.set(), raising=False)
        live._run()

    once()
    assert (live.sick, live.no_room) == (False, False)
    monkeypatch.setattr(ward.desk.alerts, "note_overdue", _no_room)
    once()
    assert (live.sick, live.no_room) == (True, True)
    monkeypatch.undo()
    once()
    assert (live.sick, live.no_room) == (False, False)


def _no_room() -> None:
    raise NoRoom("the disk is full")


@pytest.mark.parametrize(
    ("state", "words", "kind"),
    [
        ("53100", "could not extend file", NoRoom),
        ("53200", "out of memory", Transient),
        ("25006", "cannot execute UPDATE in a read-only transaction", Transient),
    ],
)
def test_what_postgresql_says_of_writing_is_no_bug(state: str, words: str, kind: type[Transient]) -> None:
    with pytest.raises(Transient, match=f"hq: cannot note a session: {words}") as caught, plain("hq", "note a session"):
        raise DBAPIError("update", {}, RuntimeError({"C": state, "M": words}))
    assert type(caught.value) is kind
