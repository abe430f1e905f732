"""Regions: inferences are spent where they can change what is known, and boxes come back to the right place."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.types import FULL, NS, Box, Detection, Label
from agent.vision import regions
from agent.vision.regions import Planner, merged, placed, region_about, united
from agent.vision.tracker import Track

STEP_NS = NS // 5
ASPECT = 16 / 9
SPOT = Box(0.4, 0.4, 0.05, 0.2)


def track(box: Box, last_ns: int, *, confirmed: bool = True, moved: bool = True, missed: int = 0) -> Track:
    return Track(1, Label.PERSON, 0.6, box, 0, last_ns, confirmed, moved, missed, 3)


def test_an_idle_scene_costs_nothing_however_long() -> None:
    planner = Planner()
    for index in range(1000):
        assert planner.plan(boot_ns=index * STEP_NS, aspect=ASPECT, motion=[], tracks=[], changed=False) == []


def test_motion_is_looked_at_in_the_picture_in_which_it_begins() -> None:
    ((region, _),) = Planner().plan(boot_ns=0, aspect=ASPECT, motion=[SPOT], tracks=[], changed=False)
    assert region.x < SPOT.x and region.y < SPOT.y and region.x2 > SPOT.x2 and region.y2 > SPOT.y2
    assert abs(region.w * ASPECT - region.h) < 1e-9  # square in pixels


def test_a_flag_in_the_wind_costs_less_and_less_and_a_find_restores_the_attention() -> None:
    planner, looks = Planner(), []
    for index in range(300):
        now_ns = index * STEP_NS
        plan = planner.plan(boot_ns=now_ns, aspect=ASPECT, motion=[SPOT], tracks=[], changed=False)
        planner.learn(boot_ns=now_ns, regions=[look.region for look in plan], found=[])
        looks.append(len(plan))
    assert sum(looks[:10]) >= 3
    assert 10 <= sum(looks[50:]) <= 45  # every 3 s, and the whole picture every 4 s, as far as the purse allows
    now_ns = 300 * STEP_NS + 4 * NS
    plan = planner.plan(boot_ns=now_ns, aspect=ASPECT, motion=[SPOT], tracks=[], changed=False)
    planner.learn(boot_ns=now_ns, regions=[look.region for look in plan], found=[Detection(Label.PERSON, 0.6, SPOT)])
    after = now_ns + STEP_NS
    assert planner.plan(boot_ns=after, aspect=ASPECT, motion=[SPOT], tracks=[], changed=False)


def looks_in_ten_seconds(motion: list[Box], others: list[Track], *, missed: int = 0) -> tuple[int, int]:
    """How often a confirmed track is looked at when every look finds it (`missed` 0), and when the last look was."""
    planner, looks, last_ns = Planner(), 0, 0
    for index in range(1, 51):
        now_ns = index * STEP_NS
        known = replace(track(SPOT, 0 if missed else last_ns, missed=missed and looks + 1), hits=9)
        plan = planner.plan(boot_ns=now_ns, aspect=ASPECT, motion=motion, tracks=[known, *others], changed=False)
        if plan:
            looks, last_ns = looks + 1, now_ns
    return looks, last_ns


def test_a_track_that_its_motion_explains_is_looked_at_once_a_second_and_one_beside_another_twice() -> None:
    beside = replace(track(Box(0.43, 0.4, 0.05, 0.2), 10 * NS), id=2)
    assert 9 <= looks_in_ten_seconds([SPOT], [])[0] <= 13
    assert 9 <= looks_in_ten_seconds([], [])[0] <= 13, "nothing moves near it: it stands there"
    assert 16 <= looks_in_ten_seconds([SPOT], [beside])[0] <= 24
    assert 16 <= looks_in_ten_seconds([Box(0.46, 0.4, 0.05, 0.2)], [])[0] <= 24, "it is not where it should be"


def test_who_is_out_of_sight_is_looked_for_at_once_and_then_ever_less() -> None:
    planner = Planner()
    lost = track(SPOT, 0, missed=1)
    assert planner.plan(boot_ns=STEP_NS, aspect=ASPECT, motion=[], tracks=[lost], changed=False)
    assert 9 <= looks_in_ten_seconds([], [], missed=1)[0] <= 15


def test_rain_moves_in_a_new_place_each_time_and_costs_no_more_than_a_flag() -> None:
    """And who walks out of it into view is looked at in the picture in which he is first found."""
    chance, planner, runs = random.Random(5), Planner(), 0
    for index in range(5 * 60):
        drops = [Box(chance.random() * 0.9, chance.random() * 0.8, 0.02, 0.1) for _ in range(12)]
        plan = planner.plan(boot_ns=index * STEP_NS, aspect=ASPECT, motion=drops, tracks=[], changed=False)
        planner.learn(boot_ns=index * STEP_NS, regions=[look.region for look in plan], found=[])
        runs += len(plan)
    assert 30 <= runs <= 60 * regions.VAIN_RUNS_PER_S + regions.VAIN_RUNS_MAX
    found = replace(track(SPOT, 5 * 60 * STEP_NS, confirmed=False), first_ns=5 * 60 * STEP_NS)
    assert planner.plan(boot_ns=(5 * 60 + 1) * STEP_NS, aspect=ASPECT, motion=[SPOT], tracks=[found], changed=False)


def test_inferences_that_take_long_become_fewer() -> None:
    planner, runs = Planner(), 0
    crowd = [replace(track(Box(x / 10, 0.4, 0.05, 0.2), 0, missed=1), id=x) for x in range(9)]
    for index in range(1, 51):
        runs += len(
            planner.plan(
                boot_ns=index * STEP_NS, aspect=ASPECT, motion=[], tracks=crowd, changed=False, runs_per_s_max=1.0
            )
        )
    assert 8 <= runs <= 10 + regions.REGIONS_MAX


def test_furniture_that_looks_like_a_person_is_worth_no_look() -> None:
    planner = Planner()
    statue = track(SPOT, 0, confirmed=False, moved=False)
    looks = [
        planner.plan(boot_ns=i * STEP_NS, aspect=ASPECT, motion=[], tracks=[statue], changed=False)
        for i in range(1, 15)
    ]
    assert looks == [[]] * 14


def test_sixty_pictures_a_second_cost_no_more_than_the_stated_bound() -> None:
    planner, runs = Planner(), 0
    everywhere = [Box(x / 10, y / 10, 0.04, 0.06) for x in range(10) for y in range(3, 9, 5)]
    for index in range(600):  # 10 s
        plan = planner.plan(boot_ns=index * NS // 60, aspect=ASPECT, motion=everywhere, tracks=[], changed=False)
        assert len(plan) <= regions.REGIONS_MAX
        runs += len(plan)
    assert runs <= 10 * regions.RUNS_PER_S_MAX + regions.REGIONS_MAX


def test_a_changed_scene_is_looked_at_whole_once() -> None:
    planner = Planner()
    assert planner.plan(boot_ns=0, aspect=ASPECT, motion=[], tracks=[], changed=True) == [(FULL, 0.0)]
    assert planner.plan(boot_ns=STEP_NS, aspect=ASPECT, motion=[], tracks=[], changed=False) == []


@given(
    st.floats(0, 0.95),
    st.floats(0, 0.95),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.sampled_from([0.56, 1.0, 1.33, 2.35]),
)
def test_a_region_holds_its_box_and_lies_in_the_picture(x: float, y: float, w: float, h: float, aspect: float) -> None:
    box = Box(x, y, w, h).clipped()
    region = region_about(box, aspect)
    slack = 1e-6
    assert region.x >= -slack and region.y >= -slack and region.x2 <= 1 + slack and region.y2 <= 1 + slack
    assert region.x <= box.x + slack and region.y <= box.y + slack
    assert region.x2 >= box.x2 - slack and region.y2 >= box.y2 - slack


@given(st.lists(st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.02, 0.3)), min_size=1, max_size=12))
def test_merging_loses_no_region_and_keeps_to_the_count(items: list[tuple[float, float, float]]) -> None:
    boxes = [Box(x, y, s, s).clipped() for x, y, s in items]
    out = merged(boxes, 3)
    assert 1 <= len(out) <= 3
    for box in boxes:
        assert any(
            r.x <= box.x + 1e-9 and r.y <= box.y + 1e-9 and r.x2 >= box.x2 - 1e-9 and r.y2 >= box.y2 - 1e-9 for r in out
        )


def test_a_box_comes_back_to_its_place_in_the_picture() -> None:
    region = Box(0.5, 0.2, 0.4, 0.4)
    ((one, cut),) = placed([Detection(Label.PERSON, 0.5, Box(0.25, 0.5, 0.5, 0.25))], region)
    assert not cut
    assert one.box.as_list() == [0.6, 0.4, 0.2, 0.1]


def test_half_a_person_at_a_crops_edge_gives_way_to_the_whole_one_even_if_surer() -> None:
    left, right = Box(0.0, 0.0, 0.5, 1.0), Box(0.2, 0.0, 0.6, 1.0)
    half = placed([Detection(Label.PERSON, 0.9, Box(0.9, 0.3, 0.1, 0.4))], left)  # 0.45..0.5 of the picture
    whole = placed([Detection(Label.PERSON, 0.5, Box(0.25 / 0.6, 0.3, 0.1 / 0.6, 0.4))], right)  # 0.45..0.55
    assert half[0][1] and not whole[0][1]
    assert [one.score for one in united(half + whole)] == [0.5]
    assert [one.score for one in united(half)] == [0.9]  # better half than nobody


def test_a_box_at_the_pictures_own_edge_is_not_cut() -> None:
    ((_, cut),) = placed([Detection(Label.PERSON, 0.9, Box(0.0, 0.3, 0.1, 0.7))], FULL)
    assert not cut


def test_who_is_large_in_a_region_is_looked_at_in_a_smaller_square_and_who_is_small_in_the_largest() -> None:
    sides = (140, 172, 204, 236, 268, 300)
    person = replace(track(SPOT, 0), hits=9)
    (look,) = Planner().plan(boot_ns=NS, aspect=ASPECT, motion=[], tracks=[person], changed=False)
    assert SPOT.h / look.region.h - 1e-9 <= look.smallest <= 1
    assert regions.side_px(look, sides) == next(side for side in sides if side * look.smallest >= 72)
    far = replace(track(Box(0.5, 0.45, 0.01, 0.05), 0), id=2, hits=9)
    (look,) = Planner().plan(boot_ns=NS, aspect=ASPECT, motion=[], tracks=[far], changed=False)
    assert regions.side_px(look, sides) == 300
    both = Planner().plan(boot_ns=NS, aspect=ASPECT, motion=[], tracks=[person, far], changed=False)
    for look in both:  # whoever is in it, due or not, must be large enough
        shown = [one for one in (person, far) if look.region.x <= one.box.x and one.box.x2 <= look.region.x2]
        needed = max(72 * look.region.h / one.box.h for one in shown)
        assert regions.side_px(look, sides) >= min(needed, 300)
    assert regions.side_px(regions.Look(FULL, 0.0), sides) == 300
    assert regions.side_px(regions.Look(SPOT, 0.9), (416,)) == 416, "a model with one square"


def test_what_moves_where_somebody_was_lost_may_be_somebody_else_and_is_looked_at_soon() -> None:
    """A car passed and is looked for in vain; the next one comes where that one should be by now."""
    lost = replace(track(SPOT, 0, missed=8), hits=9)
    assert Planner().plan(boot_ns=STEP_NS, aspect=ASPECT, motion=[SPOT], tracks=[lost], changed=False)
    assert not Planner().plan(boot_ns=STEP_NS, aspect=ASPECT, motion=[], tracks=[lost], changed=False)


def test_where_nothing_moves_who_is_lost_is_looked_for_once_and_then_seldom() -> None:
    planner, looks = Planner(), 0
    for index in range(1, 11):  # two seconds
        lost = replace(track(SPOT, 0, missed=1 + looks), hits=9)
        looks += bool(planner.plan(boot_ns=index * STEP_NS, aspect=ASPECT, motion=[], tracks=[lost], changed=False))
    assert 3 <= looks <= 5


def test_the_whole_picture_is_looked_at_seldom_while_tracks_explain_all_that_moves() -> None:
    def whole_looks(stray: list[Box]) -> int:
        planner, whole = Planner(), 0
        for index in range(1, 12 * 5):
            now_ns = index * STEP_NS
            known = replace(track(SPOT, now_ns - STEP_NS), hits=9)
            plan = planner.plan(boot_ns=now_ns, aspect=ASPECT, motion=[SPOT, *stray], tracks=[known], changed=False)
            whole += any(look.region == FULL for look in plan)
        return whole

    assert whole_looks([]) == 0
    assert whole_looks([Box(0.05, 0.05, 0.05, 0.1)]) >= 2


def test_furniture_explains_no_motion() -> None:
    """The model sees an animal in the pavement; whoever walks there is looked at all the same."""
    animal = track(Box(0.3, 0.3, 0.3, 0.6), 0, confirmed=False, moved=False)
    looks = sum(
        len(Planner().plan(boot_ns=index * NS, aspect=ASPECT, motion=[SPOT], tracks=[animal], changed=False))
        for index in range(1, 4)
    )
    assert looks == 3
