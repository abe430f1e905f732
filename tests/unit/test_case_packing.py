"""What becomes of wishes for packages of cases: the order, what is the same wish, the bounds, and how long a failure is
told. No thread, no clock.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.station.cases.packing import (
    FAILED_MAX,
    FAILED_S_MAX,
    WAITING_MAX,
    Answer,
    Failure,
    Far,
    Packing,
    Stage,
    Why,
    Wish,
)
from agent.station.cases.states import Told


def wish(case: int, node: str = "", login: str = "lan") -> Wish:
    return Wish(
        case=case,
        node=node,
        posts=(node,) if node else ("cam-1", "cam-2"),
        login=login,
        name=login.capitalize(),
        told=Told(reason=f"for {login}"),
        asked_utc_ns=case,
    )


def ask(packing: Packing, one: Wish) -> Answer:
    answer = packing.answer(one)
    if answer is Answer.TAKEN:
        packing.take(one)
    return answer


def test_they_are_made_in_the_order_of_asking_and_each_knows_how_many_come_first() -> None:
    packing = Packing()
    for n in (7, 8, 9):
        assert ask(packing, wish(n)) is Answer.TAKEN
    assert [(job.stage, job.before, job.since_utc_ns) for job in packing.of(9, now_s=0)] == [(Stage.WAITING, 2, 9)]
    assert packing.begin(utc_ns=100) == wish(7)
    (job,) = packing.of(7, now_s=0)
    assert (job.stage, job.before, job.since_utc_ns, job.far) == (Stage.MAKING, 0, 100, Far())
    assert [job.before for job in packing.of(9, now_s=0)] == [2]  # the one that is made comes before it, too
    packing.end(None, now_s=0, utc_ns=0)
    assert packing.of(7, now_s=0) == []  # it is there: the timeline tells
    assert packing.begin(utc_ns=200) == wish(8)
    assert packing.begin(utc_ns=200) == wish(9)
    assert packing.begin(utc_ns=200) is None


def test_who_asks_after_a_later_act_than_what_is_made_holds_asks_for_another_package() -> None:
    packing = Packing()
    first, later = (replace(wish(7), newest=newest) for newest in (3, 5))
    assert ask(packing, first) is Answer.TAKEN
    assert ask(packing, later) is Answer.KNOWN  # it is read when its turn comes
    assert packing.begin(utc_ns=0) == first
    assert ask(packing, first) is Answer.KNOWN
    assert ask(packing, later) is Answer.TAKEN
    packing.end(None, now_s=0, utc_ns=0)
    assert packing.begin(utc_ns=0) == later
    packing.reads(6)  # two more acts while it waited
    assert ask(packing, replace(wish(7), newest=6)) is Answer.KNOWN
    assert ask(packing, replace(wish(7), newest=7)) is Answer.TAKEN


def test_the_same_case_and_posts_are_asked_for_once_whoever_asks() -> None:
    packing = Packing()
    assert ask(packing, wish(7, "cam-1")) is Answer.TAKEN
    assert ask(packing, wish(7, "cam-1", "minh")) is Answer.KNOWN
    assert ask(packing, wish(7, "cam-2")) is ask(packing, wish(7)) is ask(packing, wish(8, "cam-1")) is Answer.TAKEN
    assert packing.begin(utc_ns=0) == wish(7, "cam-1")  # Lan's, with her reason
    assert ask(packing, wish(7, "cam-1", "minh")) is Answer.KNOWN  # it is being made
    packing.end(None, now_s=0, utc_ns=0)
    assert ask(packing, wish(7, "cam-1", "minh")) is Answer.TAKEN  # another one


def test_so_many_wait_and_no_more() -> None:
    packing = Packing()
    assert ask(packing, wish(99)) is Answer.TAKEN
    packing.begin(utc_ns=0)
    for n in range(1, WAITING_MAX + 1):
        assert ask(packing, wish(n)) is Answer.TAKEN
    assert ask(packing, wish(WAITING_MAX + 1)) is Answer.FULL
    assert ask(packing, wish(1)) is ask(packing, wish(99)) is Answer.KNOWN  # nothing more is asked for
    assert packing.of(WAITING_MAX + 1, now_s=0) == []
    packing.end(None, now_s=0, utc_ns=0)
    packing.begin(utc_ns=0)
    assert ask(packing, wish(WAITING_MAX + 1)) is Answer.TAKEN


def test_why_there_is_none_is_told_until_somebody_asks_again_or_a_day_is_over() -> None:
    packing = Packing()
    why = Failure(Why.CANNOT, "no footage")
    for node in ("cam-1", "cam-2"):
        ask(packing, wish(7, node))
        packing.begin(utc_ns=1)
        packing.end(why, now_s=1000.0, utc_ns=50)
    told = packing.of(7, now_s=1000.0 + FAILED_S_MAX - 1)
    assert [(job.wish.node, job.stage, job.failure, job.since_utc_ns, job.open) for job in told] == [
        ("cam-1", Stage.FAILED, why, 50, False),
        ("cam-2", Stage.FAILED, why, 50, False),
    ]
    assert ask(packing, wish(7, "cam-1")) is Answer.TAKEN
    assert [(job.wish.node, job.stage) for job in packing.of(7, now_s=1001)] == [
        ("cam-1", Stage.WAITING),
        ("cam-2", Stage.FAILED),
    ]
    assert [job.wish.node for job in packing.of(7, now_s=1000.0 + FAILED_S_MAX)] == ["cam-1"]


def test_what_is_put_back_is_the_next_one_again_and_nobody_is_told_that_it_is_made() -> None:
    packing = Packing()
    packing.put_back()  # nothing
    for n in (7, 8):
        ask(packing, wish(n))
    packing.begin(utc_ns=0)
    packing.put_back()
    assert [(job.stage, job.before) for n in (7, 8) for job in packing.of(n, now_s=0)] == [
        (Stage.WAITING, 0),
        (Stage.WAITING, 1),
    ]
    assert packing.begin(utc_ns=0) == wish(7)


def test_of_what_an_earlier_life_has_left_more_may_wait_than_may_ask_and_what_waits_has_not_failed() -> None:
    packing = Packing()
    for n in range(WAITING_MAX + 1):  # one of them was being made
        packing.take(wish(n))
    assert ask(packing, wish(99)) is Answer.FULL
    packing.fail(wish(3), Failure(Why.BROKEN), now_s=-60.0, utc_ns=5)
    packing.fail(wish(99), Failure(Why.BROKEN), now_s=-60.0, utc_ns=5)
    assert [job.stage for job in packing.of(3, now_s=0)] == [Stage.WAITING]
    assert [(job.stage, job.since_utc_ns) for job in packing.of(99, now_s=FAILED_S_MAX - 61)] == [(Stage.FAILED, 5)]
    assert packing.of(99, now_s=FAILED_S_MAX - 60) == []


def test_what_is_there_after_all_is_not_told_to_have_failed_but_what_failed_later_is() -> None:
    packing = Packing()
    packing.fail(replace(wish(7), n=2), Failure(Why.CANNOT), now_s=0, utc_ns=0)
    packing.succeeded(replace(wish(7), n=1))
    assert [job.stage for job in packing.of(7, now_s=0)] == [Stage.FAILED]
    packing.succeeded(replace(wish(7), n=2))
    assert packing.of(7, now_s=0) == []


def test_failures_that_nobody_looks_at_do_not_pile_up() -> None:
    packing = Packing()
    for n in range(FAILED_MAX + 3):
        ask(packing, wish(n))
        packing.begin(utc_ns=0)
        packing.end(Failure(Why.BROKEN), now_s=0, utc_ns=0)
    told = [n for n in range(FAILED_MAX + 3) if packing.of(n, now_s=0)]
    assert told == list(range(3, FAILED_MAX + 3))


def test_how_far_it_is() -> None:
    packing = Packing()
    packing.go_on(posts=1)  # of nothing
    ask(packing, wish(7))
    packing.begin(utc_ns=0)
    packing.go_on(bytes_max=300)
    packing.go_on(read=100)
    packing.go_on(posts=1, read=50)
    assert [job.far for job in packing.of(7, now_s=0)] == [Far(1, 150, 300)]
    packing.end(None, now_s=0, utc_ns=0)
    ask(packing, wish(7))
    packing.begin(utc_ns=0)
    assert [job.far for job in packing.of(7, now_s=0)] == [Far()]


CASE, NODE = st.integers(1, 6), st.sampled_from(["", "cam-1", "cam-2"])


@given(st.lists(st.one_of(st.tuples(CASE, NODE), st.just("begin"), st.just("made"), st.just("failed")), max_size=60))
def test_whatever_is_asked_and_done_nothing_is_made_twice_at_once_and_nobody_is_overtaken(steps: list[object]) -> None:
    packing = Packing()
    waiting: list[tuple[int, str]] = []
    made: tuple[int, str] | None = None
    for step in steps:
        if isinstance(step, tuple):
            before = {*waiting, made}
            answer = ask(packing, wish(*step))
            if step in before:
                assert answer is Answer.KNOWN
            elif len(waiting) >= WAITING_MAX:
                assert answer is Answer.FULL
            else:
                assert answer is Answer.TAKEN
                waiting.append(step)
        elif step == "begin" and made is None:
            begun = packing.begin(utc_ns=0)
            assert (None if begun is None else begun.key) == (waiting[0] if waiting else None)
            made = waiting.pop(0) if waiting else None
        elif step in ("made", "failed"):
            packing.end(Failure(Why.BROKEN) if step == "failed" else None, now_s=0, utc_ns=0)
            made = None
        jobs = [job for case in range(1, 7) for job in packing.of(case, now_s=0)]
        assert {job.wish.key for job in jobs if job.stage is Stage.WAITING} == set(waiting)
        assert [job.wish.key for job in jobs if job.stage is Stage.MAKING] == ([made] if made else [])
        keys = [job.wish.key for job in jobs]
        assert len(keys) == len(set(keys)), "of each there is one thing to say"
