"""The plug is pulled before and after every act of an update, and again while the node recovers.

What must hold each time the node starts: `current` points at a release that is whole, byte for byte, the state says which
and why, and what was promised (a release confirmed, a release given up) is not taken back. And then it goes on to the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from agent.release import plan
from agent.release.plan import Phase, Seen
from agent.release.slots import Slots
from agent.release.starts import STARTS_MAX
from tests.fakes.disk import PowerCut
from tests.fakes.release import Card, bundle_bytes, opened

SEED = 20261122
WELL = Seen(up_s=100.0, frames=True, storage=True, broker=True)


class Story:
    """Release 2 is installed and confirmed, 3 crashes and is rolled back, a person goes back to the one before 2."""

    def __init__(self, bundles: dict[int, bytes], make_slots: Callable[..., Slots] = Slots) -> None:
        self.bundles = bundles
        self.card = Card(make_slots)
        self.promised = 0  # highest number whose confirmation has returned

    def run(self) -> None:
        """From wherever it is to its end."""
        card = self.card
        card.start()
        self._bring_up(2)
        if card.slots.state().good.number == 2:
            self._bring_up(3, confirm=False)
            for _ in range(STARTS_MAX + 1):
                card.start()
            slots = card.slots
            if slots.state().before is not None:
                slots.follow(plan.rolled_back(slots.state(), "a person"))
                slots.tidy()
        card.start()

    def _bring_up(self, number: int, *, confirm: bool = True) -> None:
        card = self.card
        slots = card.slots
        state = slots.state()
        if state.highest >= number:
            return
        if plan.objection(state, number, by_hand=True) == "":
            for _ in slots.install(opened(self.bundles[number]), by_hand=True):
                pass
        state = slots.state()
        if state.candidate is not None and state.candidate.phase is Phase.STAGED:
            slots.follow(plan.switched(state, WELL))
        card.start()
        slots = card.slots
        state = slots.state()
        if confirm and state.candidate is not None and state.candidate.phase is Phase.TRYING:
            assert plan.gate(state, WELL, plan.Limits()).act is plan.Act.CONFIRM
            slots.follow(plan.confirmed(state))
            self.promised = max(self.promised, number)


def check(story: Story, whole: dict[str, dict[str, bytes | str]]) -> None:
    """What must hold when the launcher has run."""
    card = story.card
    state = card.slots.state()
    slot = card.slots.running()
    assert slot == plan.current(state).slot, "the link and the state say the same"
    assert card.tree.listing(f"releases/{slot}") == whole[slot], f"{slot} is whole"
    assert state.highest >= story.promised, "what was confirmed stays confirmed"
    for named in plan.slots(state):
        assert card.tree.listing(f"releases/{named}") == whole[named], f"{named} is named by the state, so it is whole"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    folder = tmp_path_factory.mktemp("bundles")
    return {number: bundle_bytes(folder, number) for number in (2, 3)}


@pytest.fixture(scope="module")
def whole(bundles: dict[int, bytes]) -> dict[str, dict[str, bytes | str]]:
    """Each release as it is when nothing goes wrong."""
    found = {}
    for number, data in bundles.items():
        card = Card()
        for _ in card.slots.install(opened(data)):
            pass
        found[str(number)] = card.tree.listing(f"releases/{number}")
        assert len(found[str(number)]) == 12, sorted(found[str(number)])
    return found | {"base": Card().tree.listing("releases/base")}


def cut_after(steps: int) -> Callable[[str], None]:
    left = iter(range(steps))

    def crash_point(what: str) -> None:
        if next(left, None) is None:
            raise PowerCut(what)

    return crash_point


def steps_of(bundles: dict[int, bytes]) -> int:
    story = Story(bundles)
    count = 0

    def step(_what: str) -> None:
        nonlocal count
        count += 1

    story.card.on_step(step)
    story.run()
    state = story.card.slots.state()
    assert (state.good.slot, state.highest, story.promised) == ("base", 2, 2)
    assert state.candidate is not None and state.candidate.release.number == 2 and state.candidate.why == "a person"
    return count


def broken_off(story: Story, at: int, seed: int) -> str:
    """Runs on until step `at`, then the power goes. Returns where; empty when the story ended before that."""
    story.card.on_step(cut_after(at))
    try:
        story.run()
    except PowerCut as cut:
        story.card.power_cut(random.Random(seed).randrange)
        return str(cut)
    story.card.on_step(lambda _step: None)
    return ""


def starts(story: Story, seed: int) -> Iterator[int]:
    """The launcher, cut off at its first act, its second, ... until it comes through."""
    at = 0
    while True:
        story.card.on_step(cut_after(at))
        try:
            story.card.start()
        except PowerCut:
            story.card.power_cut(random.Random(seed + at).randrange)
            yield at
            at += 1
            continue
        story.card.on_step(lambda _step: None)
        return


def cuts(
    bundles: dict[int, bytes],
    whole: dict[str, dict[str, bytes | str]],
    *,
    seeds: int,
    stride: int = 1,
    plant: Callable[[Story], None] = lambda _story: None,
) -> int:
    """Cuts everywhere; returns how many. Raises AssertionError naming where the first harm was done."""
    total = 0
    for at in range(0, steps_of(bundles), stride):
        for seed in range(seeds):
            story = Story(bundles)
            plant(story)
            rng = random.Random(SEED + 1000 * at + seed)
            where = broken_off(story, at, rng.randrange(1 << 30))
            try:
                assert where
                total += 1 + sum(1 for _ in starts(story, rng.randrange(1 << 30)))
                check(story, whole)
                second = broken_off(story, rng.randrange(150), rng.randrange(1 << 30))
                total += bool(second)
                story.card.start()
                check(story, whole)
                story.run()
                check(story, whole)
                assert story.card.slots.state().highest == 2 or story.card.slots.state().candidate is not None
            except (AssertionError, KeyError) as error:
                raise AssertionError(f"cut at step {at} ({where}), seed {seed}: {error}") from error
    return total


def test_one_release_works_wherever_the_power_goes(
    bundles: dict[int, bytes], whole: dict[str, dict[str, bytes | str]]
) -> None:
    steps = steps_of(bundles)
    count = cuts(bundles, whole, seeds=1)
    print(f"\nseed {SEED}: {steps} acts, {count} power cuts: always one working release")
    assert count > 2 * steps


@pytest.mark.parametrize(
    "unsynced",
    ["releases", "releases/2.new", "releases/2.new/bin", "releases/2.new/lib"],
    ids=["of the releases", "of the release", "of its programs", "of its libraries"],
)
def test_a_folder_that_is_not_synced_is_found(
    bundles: dict[int, bytes], whole: dict[str, dict[str, bytes | str]], unsynced: str
) -> None:
    """The controls: each sync that is left out costs a release in some cut."""

    def plant(story: Story) -> None:
        story.card.tree.unsynced = lambda folder: folder == unsynced

    with pytest.raises(AssertionError, match=r"cut at step") as caught:
        cuts(bundles, whole, seeds=6, plant=plant)
    print(f"\nfound: {str(caught.value)[:150]}")


def test_a_switch_before_the_content_is_synced_is_found(
    bundles: dict[int, bytes], whole: dict[str, dict[str, bytes | str]]
) -> None:
    def plant(story: Story) -> None:
        story.card.tree.unsynced_files = True

    with pytest.raises(AssertionError, match="is whole"):
        cuts(bundles, whole, seeds=6, plant=plant)


def test_a_state_whose_name_is_not_synced_is_found(
    bundles: dict[int, bytes], whole: dict[str, dict[str, bytes | str]]
) -> None:
    def plant(story: Story) -> None:
        story.card.disk.unsynced_names = True

    with pytest.raises(AssertionError, match=r"stays confirmed|say the same|whole"):
        cuts(bundles, whole, seeds=6, plant=plant)


def test_a_link_that_is_lost_is_put_right_from_the_state(
    bundles: dict[int, bytes], whole: dict[str, dict[str, bytes | str]]
) -> None:
    """The state is the authority, the link follows: so the sync of the link's folder alone may be lost."""

    def plant(story: Story) -> None:
        story.card.tree.unsynced = lambda folder: folder == ""

    assert cuts(bundles, whole, seeds=1, stride=4, plant=plant) > 0
