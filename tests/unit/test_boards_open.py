"""Open boards are bounded, of all people and of each: nobody can keep the others' boards from being told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from agent.station.people.roles import Role
from agent.station.web.gate import Asked, Refused
from agent.station.web.live import PER_PERSON_MAX, PER_SESSION_MAX, Full, Listener
from agent.station.web.words import load
from tests.fakes.database import Database
from tests.fakes.desk import Ward


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[Ward]:
    made = Ward(tmp_path, database, listeners_max=2 * PER_PERSON_MAX)
    made.person("school", Role.SCHOOL, "gate-2")
    made.person("op", Role.OPERATOR)
    yield made
    made.close()


def asked(ward: Ward, login: str) -> Asked:
    """An open board's request, in a session of its own."""
    token = ward.desk.sessions.begin(login)
    session = ward.desk.sessions.find(token)
    return Asked(
        path="/board/stream",
        params={},
        query={"after": "0"},
        form={},
        headers={"last-event-id": ""},
        address="192.0.2.7",
        words=load()["en"],
        form_token="",
        person=session.person,
        session=session.key,
        token=token,
        part=False,
    )


async def opened(ward: Ward, board: Asked) -> Any:
    """What the station tells this board, from its first event on."""
    (route,) = [one for one in ward.desk.routes if one.path == "/board/stream"]
    answer = await route.handler(board)
    assert isinstance(answer, StreamingResponse)
    told: Any = answer.body_iterator
    assert "here" in await anext(told)
    return told


def test_one_person_cannot_silence_the_others_boards(ward: Ward) -> None:
    """A school opens boards without end: its oldest are closed, and told so; the operator's is open all the while."""

    async def story() -> None:
        theirs = await opened(ward, asked(ward, "op"))
        mine = [await opened(ward, asked(ward, "school")) for _ in range(PER_PERSON_MAX)]
        for _ in range(PER_PERSON_MAX + 5):
            mine.append(await opened(ward, asked(ward, "school")))
            assert "event: crowded" in await anext(mine.pop(0)), "he is told, so that its page does not come again"
        others = [await opened(ward, asked(ward, "op")) for _ in range(PER_PERSON_MAX - 1)]
        ward.hear(1)
        assert "event: alert" in await anext(theirs) and "event: alert" in await anext(mine[-1])
        for one in (theirs, *mine, *others):
            await one.aclose()
        assert not ward.desk.live._listeners

    asyncio.run(story())


def test_a_session_has_fewer_boards_than_its_person(ward: Ward) -> None:
    """Somebody with a board on each of his desks is not driven off them by a browser that opens too many."""

    async def story() -> None:
        elsewhere = await opened(ward, asked(ward, "op"))
        browser = asked(ward, "op")
        mine = [await opened(ward, browser) for _ in range(PER_SESSION_MAX + 1)]
        assert "event: crowded" in await anext(mine[0])
        ward.hear(1)
        assert "event: alert" in await anext(elsewhere)
        for one in (elsewhere, *mine):
            await one.aclose()

    asyncio.run(story())


def test_when_all_boards_are_taken_one_more_of_a_person_takes_the_place_of_his_own(ward: Ward) -> None:
    live = ward.desk.live

    async def story() -> None:
        open_: list[tuple[Any, Listener]] = []
        for number in range(2 * PER_PERSON_MAX):
            context = live.listening("op" if number % 2 else "school", f"session-{number}")
            open_.append((context, context.__enter__()))
        assert live.full("lan", "another") and not live.full("op", "another")
        with pytest.raises(Full), live.listening("lan", "another"):
            pass
        with live.listening("op", "another") as newest:
            assert [one.crowded for _, one in open_].index(True) == 1, "his oldest"
            assert not newest.crowded
        for context, _ in open_:
            context.__exit__(None, None, None)

    asyncio.run(story())


def test_few_boards_in_all_are_still_not_one_persons(tmp_path: Path, database: Database) -> None:
    ward = Ward(tmp_path, database, listeners_max=4)
    ward.person("school", Role.SCHOOL, "gate-2")
    ward.person("op", Role.OPERATOR)

    async def story() -> None:
        mine = [await opened(ward, asked(ward, "school")) for _ in range(9)]
        theirs = [await opened(ward, asked(ward, "op")) for _ in range(2)]
        ward.person("lan", Role.OPERATOR)
        with pytest.raises(Refused, match=re.escape("503 refused.full")):
            await opened(ward, asked(ward, "lan"))
        for one in (*mine, *theirs):
            await one.aclose()

    asyncio.run(story())
    ward.close()
