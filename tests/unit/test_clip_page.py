"""What an alert's page says of its film: here and how to see it, on its way by itself, or why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from agent import wire
from agent.evidence import records
from agent.station.db.engine import writing
from agent.station.db.tables import node
from agent.station.people.roles import Role
from agent.types import NS
from tests.fakes.database import KINDS, fresh
from tests.fakes.desk import incident
from tests.fakes.evidence_post import EvidencePost
from tests.fakes.footage_desk import POST
from tests.fakes.footage_ward import FootageWard
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FootageWard]:
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh(request.param, folder) as database:
        made = FootageWard(folder, database)
        made.person("operator", Role.OPERATOR)
        made.footage.knows()
        yield made
        made.footage.engine.dispose()
        made.close()


def told(post: EvidencePost, number: int, files: int, not_sent: str = "") -> None:
    """The post's line about the clip of an alert."""
    body = records.body(to="station", why="alert", order=incident(number), files=files, bytes=9, not_sent=not_sent)
    post.extraction(body)


def test_from_nothing_known_to_the_moment_on_the_screen(ward: FootageWard, tmp_path: Path) -> None:
    post = EvidencePost(tmp_path / "post")
    post.feed(encoded(seconds=4))
    post.seal()
    visitor = ward.visitor("operator")
    for number in (1, 2, 3):
        ward.hear(number, node=POST, time="2023-11-14T22:13:21.000Z", monons=1_001 * NS, historical=True)
    for number in (1, 2, 3):
        assert "film of the moment" not in visitor.get(f"/alerts/{incident(number)}").text, "this post sends none"
    ward.hear(4, node=POST, monons=900 * NS)  # of which nothing is here

    told(post, 9, files=1)  # of an alert before these: from now on it is known that the post sends clips by itself
    told(post, 4, files=0, not_sent="newer alerts took its place: <200> wait at most")
    post.hear()
    ward.footage.hear(post)
    assert "is not here yet. This post sends it by itself" in visitor.get(f"/alerts/{incident(1)}").text
    page = visitor.get(f"/alerts/{incident(4)}").text
    assert "was not sent:" in page and "took its place: &lt;200&gt; wait" in page

    first, *_ = post.post.disk.list("segments")
    ward.footage.take(post, first)
    told(post, 1, files=1, not_sent="1 could not be sent: it is shorter")
    post.hear()
    ward.footage.hear(post)
    page = visitor.get(f"/alerts/{incident(1)}").text
    assert "The film of the moment is here." in page and "1 could not be sent" in page
    (link,) = re.findall(r'href="([^"]+near=on)"', page)
    page = visitor.get(link.replace("&amp;", "&")).text
    assert 'value="2023-11-14T22:12:21"' in page and 'value="2023-11-14T22:14:21"' in page, "a minute to either side"
    assert "Here: 0:00:02" in page


@pytest.mark.parametrize(("clips", "said"), [("none", True), ("bell", True), ("alert", False), ("", False)])
def test_a_post_that_sends_no_film_is_not_waited_for(ward: FootageWard, clips: str, said: bool) -> None:
    """By its heartbeat; of an older agent, whose heartbeat has no such word, nothing is claimed."""
    ward.hear(1, node=POST)
    beat = wire.Heartbeat(
        node=POST, bootid="b" * 32, session=1, monons=1, version="1", model="", camera=None, vision=None,
        recording=None, queue=None, clock=wire.ClockState(utc="2023-11-14T22:13:21.000Z", errms=None, source=""),
        machine=wire.MachineState(uptime_s=None, temperature_c=None, throttled=None, diskfreebytes=None, memoryavailablebytes=None, rssbytes=None, load1=None), clips=clips,
    )  # fmt: skip
    with writing(ward.engine, "hear a heartbeat") as db:
        db.execute(update(node).where(node.c.node == POST).values(heartbeat=wire.encode(beat)))
    page = ward.visitor("operator").get(f"/alerts/{incident(1)}").text
    assert ("sends no film of such an alert" in page) is said
