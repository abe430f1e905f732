"""Footage that is on record and that the archive does not give: one file of it, or none at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import BinaryIO

import pytest

from agent.errors import Transient
from agent.station.archive import ReadableArchive
from agent.station.footage.shelf import Shelf
from agent.station.footage.survey import REFUSALS_MAX, Surveyor, is_away
from agent.station.people.roles import Role
from agent.types import NS
from tests.fakes.database import KINDS, fresh
from tests.fakes.evidence_post import UTC_0, EvidencePost
from tests.fakes.footage_desk import POST
from tests.fakes.footage_ward import FootageWard
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401

RANGE = "from=2023-11-14T22:13:10&to=2023-11-14T22:15:00"
PAGE = f"/footage?post.{POST}=on&post.gate-9=on&{RANGE}"
MEDIA = f"/footage/{POST}/list.m3u8?{RANGE}"
MISSING = "Missing at the station"
AWAY = "The archive does not answer"


class Refusing:
    """`agent.station.archive.Archive` that does not answer for some files, or for any."""

    def __init__(self, inner: ReadableArchive, *names: str) -> None:
        self._inner = inner
        self.names = names
        self.asked = 0

    def _answers(self, name: str) -> None:
        if not self.names or name in self.names:
            self.asked += 1
            raise Transient(f"archive: {name}: Input/output error; check the disk")

    def size(self, name: str) -> int | None:
        self._answers(name)
        return self._inner.size(name)

    def read(self, name: str, offset: int, count: int) -> bytes:
        self._answers(name)
        return self._inner.read(name, offset, count)

    def put(self, name: str, source: BinaryIO, *, size: int, sha256: str) -> None:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FootageWard]:
    """Six seconds of a post, three files, all of them here; and a post beside it."""
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh(request.param, folder) as database:
        made = FootageWard(folder, database)
        post = EvidencePost(tmp_path / "post")
        post.feed(encoded(seconds=6))
        post.seal()
        made.footage.knows()
        made.footage.knows("gate-9", "Other gate")
        made.footage.hear(post)
        made.footage.take_all(post)
        made.person("operator", Role.OPERATOR)
        yield made
        made.footage.engine.dispose()
        made.close()


def files(ward: FootageWard) -> list[Path]:
    """In the archive, in the order of time."""
    found = ward.footage.surveyor.survey(POST, UTC_0, UTC_0 + 60 * NS, address="/")
    return [ward.folder / "archive" / found.files[index].archived for index in found.playlist.files]


def restarted(ward: FootageWard) -> None:
    """Nothing is remembered of what the archive holds."""
    ward.start()


def test_one_file_that_is_gone_costs_itself_and_nothing_else(ward: FootageWard) -> None:
    first, gone, last = files(ward)
    gone.unlink()
    restarted(ward)
    operator = ward.visitor("operator")
    page = operator.get(PAGE)
    assert page.status_code == 200
    assert "Other gate" in page.text and "Here: 0:00:04" in page.text and "still at the post: 0:00:02" in page.text
    assert f"{MISSING}: 1" in page.text and AWAY not in page.text
    assert page.text.count("download") == 2 and gone.stem in page.text, "it is named, and not offered"

    media = operator.get(MEDIA)
    assert media.status_code == 200
    addresses = list(dict.fromkeys(re.findall(r"^/footage/.*$", media.text, re.MULTILINE)))
    assert len(addresses) == 2 and "#EXT-X-DISCONTINUITY" in media.text
    assert [operator.get(address, range="bytes=0-9").status_code for address in addresses] == [206, 206]
    (line,) = (line for line in ward.trail() if line["kind"] == "viewed")
    assert sorted(line["posts"][POST]) == sorted([first.stem, last.stem]), "nobody has seen what is not there"

    assert "Thiếu tại Trung tâm: 1" in operator.get(PAGE, **{"accept-language": "vi"}).text


def test_a_file_that_goes_while_somebody_looks_is_told_of_the_next_time(ward: FootageWard) -> None:
    _, gone, _ = files(ward)
    operator = ward.visitor("operator")
    page = operator.get(PAGE).text
    assert MISSING not in page
    gone.unlink()
    answers = {one: operator.get(one, range="bytes=0-9") for one in re.findall(r'href="(/footage/[^"]+\.mp4)"', page)}
    assert sorted(one.status_code for one in answers.values()) == [206, 206, 503]
    (refused,) = (one for one in answers.values() if one.status_code == 503)
    assert "cannot be read from the archive" in unescape(refused.text) and "database" not in refused.text
    assert f"{MISSING}: 1" in operator.get(PAGE).text
    assert operator.get(MEDIA).status_code == 200


@pytest.mark.parametrize("damage", [b"", b"\x00" * 4096])
def test_a_file_of_which_nothing_is_left_is_missing_too(ward: FootageWard, damage: bytes) -> None:
    _, gone, _ = files(ward)
    gone.chmod(0o640)
    gone.write_bytes(damage)
    restarted(ward)
    page = ward.visitor("operator").get(PAGE)
    assert page.status_code == 200 and f"{MISSING}: 1" in page.text and "Here: 0:00:04" in page.text


def test_an_archive_that_is_away_leaves_what_ledgers_tell(ward: FootageWard) -> None:
    """The disk is not mounted: its folder is empty."""
    (ward.folder / "archive").rename(ward.folder / "elsewhere")
    (ward.folder / "archive").mkdir()
    restarted(ward)
    operator = ward.visitor("operator")
    page = operator.get(PAGE)
    assert page.status_code == 200
    assert AWAY in page.text and MISSING not in page.text
    assert "Here: 0:00:06" in page.text and "still at the post" not in page.text, "nothing of it is lost"
    assert "Other gate" in page.text and 'class="start' not in page.text
    media = operator.get(MEDIA)
    assert media.status_code == 503 and AWAY in media.text
    assert not [line for line in ward.trail() if line["kind"] == "viewed"]

    (ward.folder / "archive").rmdir()
    (ward.folder / "elsewhere").rename(ward.folder / "archive")
    page = operator.get(PAGE)
    assert AWAY not in page.text and "Here: 0:00:06" in page.text and operator.get(MEDIA).status_code == 200


def test_an_archive_that_does_not_answer_is_not_asked_for_every_file(ward: FootageWard) -> None:
    """Each question to an object store that is away may take half a minute."""
    desk = ward.footage
    refusing = Refusing(desk.archive)
    survey = Surveyor(
        engine=desk.engine, shelf=Shelf(engine=desk.engine, archive=refusing), clock=desk.clock
    ).survey_all
    found = survey({POST: "/", "gate-9": "/"}, UTC_0, UTC_0 + 60 * NS)[POST]
    assert found.away and not found.playlist.parts and round(found.here_s) == 6
    assert refusing.asked == REFUSALS_MAX < len(found.files)

    # One bad sector is no reason to give up.
    refusing.names, refusing.asked = (found.files[0].archived,), 0
    found = survey({POST: "/", "gate-9": "/"}, UTC_0, UTC_0 + 60 * NS)[POST]
    assert not found.away and found.lost == {found.files[0].sha256} and round(found.here_s) == 4


def test_when_an_archive_counts_as_away() -> None:
    assert not is_away(files=0, lost=0, refused=0)
    assert not is_away(files=5, lost=4, refused=1), "it answers"
    assert not is_away(files=1, lost=1, refused=0), "one file that is not there"
    assert is_away(files=2, lost=2, refused=0), "none is there: not mounted"
    assert is_away(files=1, lost=1, refused=1)
    assert is_away(files=9, lost=5, refused=5, given_up=True), "it has stopped to answer"
