"""Open boards are bounded, of all people and of each: nobody can keep the others' boards from being told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack
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
        assert not live.full("op", "another")
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
        for login in ("lan", "mai", "minh"):
            ward.person(login, Role.OPERATOR)
        others = [await opened(ward, asked(ward, login)) for login in ("lan", "mai")]
        with pytest.raises(Refused, match=re.escape("503 refused.full")):
            await opened(ward, asked(ward, "minh"))  # each of four has one
        for one in (*mine, *theirs, *others):
            await one.aclose()

    asyncio.run(story())
    ward.close()


def test_ten_people_with_many_boards_leave_one_for_whoever_has_none(tmp_path: Path, database: Database) -> None:
    """They fill all there are. An operator who comes gets his, one after the other like everybody; nobody loses his last."""
    ward = Ward(tmp_path, database, listeners_max=20)
    live = ward.desk.live

    async def story() -> None:
        open_: list[tuple[Any, Listener]] = []

        def opens(who: str) -> Listener:
            context = live.listening(who, f"session-{len(open_)}")
            open_.append((context, context.__enter__()))
            return open_[-1][1]

        def has(who: str) -> int:
            return sum(one.who == who for one in live._listeners)

        for _ in range(2):
            for number in range(10):
                opens(f"p{number}")
        assert not live.full("lan", "s"), "somebody has more than one"
        lan = opens("lan")
        assert (has("lan"), has("p0"), len(live._listeners)) == (1, 1, 20)
        assert [listener.crowded for _, listener in open_].index(True) == 0, "the oldest of who has most"
        assert live.full("lan", "s"), "a second one would leave somebody with fewer than himself"
        with pytest.raises(Full), live.listening("lan", "s"):
            pass
        for number in range(9):
            opens(f"new-{number}")
        assert {has(one.who) for one in live._listeners} == {1} and len(live._listeners) == 20
        assert not lan.crowded
        assert live.full("too-late", "s"), "twenty people have one each"
        for context, _ in open_:
            context.__exit__(None, None, None)

    asyncio.run(story())
    ward.close()


def test_whoever_has_most_gives_first(tmp_path: Path, database: Database) -> None:
    ward = Ward(tmp_path, database, listeners_max=8)
    live = ward.desk.live

    async def story() -> None:
        with ExitStack() as boards:
            mine = [boards.enter_context(live.listening("school", f"a{n}")) for n in range(4)]
            for n in range(3):
                boards.enter_context(live.listening("op", f"b{n}"))
            boards.enter_context(live.listening("mai", "c"))
            boards.enter_context(live.listening("mai", "c2"))
            assert [one.crowded for one in mine] == [True, False, False, False], "four against one: fair is two"
            assert live.full("mai", "c3")
            boards.enter_context(live.listening("lan", "d"))
            assert [one.crowded for one in mine] == [True, True, False, False]

    asyncio.run(story())
    ward.close()
