"""Cards that are rendered once for all who see them alike say what a card says that is rendered for one."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import Any

import pytest

from agent.station.alerts import Alert
from agent.station.bells.around import Nearby, Picture
from agent.station.web import cards as module
from agent.station.web import words as languages
from agent.station.web.cards import Card, Cards
from agent.station.web.pages import Pages, Part
from agent.types import NS
from tests.fakes.desk import incident

NOON_NS = 1_795_000_000 * NS
PAGES = Pages(time_zone="Asia/Ho_Chi_Minh")
WORDS = languages.load()
HOSTILE = "<script>alert('1')</script> & {who} \"\u0000"


def drawn(draw: random.Random, number: int) -> Card:
    """A card of an alert in any state."""
    who = draw.choice(["", "Minh", HOSTILE])
    had = draw.random() < 0.5
    alert = Alert(
        incident=incident(number),
        node=f"gate-{number % 3}",
        severity=draw.choice(["bell", "alert"]),
        raised_utc_ns=NOON_NS + number * NS,
        due_utc_ns=NOON_NS + 300 * NS,
        overdue=draw.random() < 0.3,
        ended=draw.random() < 0.5,
        acknowledged_by=who if had else "",
        acknowledged_utc_ns=NOON_NS + 60 * NS if had else None,
        assigned_to=draw.choice(["", "Lan"]),
        verdict=draw.choice(["", "true", "false"]),
        verdict_by=who,
        has_picture=draw.random() < 0.5,
        changed=draw.randrange(1, 100),
        told=None,
        heard_utc_ns=NOON_NS + number * NS,
    )
    near = [
        Nearby("gate-9", "House 9", draw.randrange(90), False, draw.random() < 0.5, Picture(7, incident(7), NOON_NS)),
        Nearby("gate-1", "House 1", 0, True, True, None),
    ]
    return Card(
        alert=alert,
        place=draw.choice(["", "House 5", HOSTILE]),
        says=draw.choice(["A person", HOSTILE]),
        at_utc_ns=draw.choice([None, NOON_NS]),
        error=draw.choice(["about 3 s", ""]),
        late=draw.random() < 0.2,
        rights={name: draw.random() < 0.7 for name in ("answer", "judge", "hand_on")},
        near=near[: draw.randrange(3)] if alert.severity == "bell" else [],
        live=draw.choice(["", "itself"]),
    )


def changed(draw: random.Random, card: Card) -> Card:
    """One thing about it is another."""
    one = draw.choice(
        [
            {"verdict": "true"}, {"assigned_to": "Huong"}, {"acknowledged_by": "Tam"}, {"overdue": True},
            {"ended": True}, {"has_picture": True}, {"changed": card.alert.changed + 1}, {"verdict_by": "Hoa"},
        ]
    )  # fmt: skip
    other = draw.choice(
        [
            {}, {"place": "Moved"}, {"says": "Another"}, {"error": "?"}, {"late": True}, {"near": []},
            {"rights": dict.fromkeys(card.rights, False)}, {"at_utc_ns": NOON_NS + NS}, {"live": "asked"},
        ]
    )  # fmt: skip
    return replace(card, alert=replace(card.alert, **one), **other)  # type: ignore[arg-type]


def test_whatever_becomes_of_an_alert_its_card_is_the_one_that_the_template_makes_now() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    cards, board = Cards(PAGES), [drawn(draw, number) for number in range(60)]
    tokens = [f"{draw.getrandbits(256):064x}" for _ in range(3)]
    for _ in range(20):
        token, words = draw.choice(tokens), WORDS[draw.choice(["en", "vi"])]
        for card in board:
            shown = cards.part(card, words=words, form_token=token)
            fresh = PAGES.part("card.html", words=words, card=card, form_token=token)
            assert shown == fresh
        for number in draw.sample(range(len(board)), 15):
            board[number] = changed(draw, board[number])


def test_a_form_has_the_token_of_who_looks_and_of_nobody_else() -> None:
    card = replace(drawn(random.Random(1), 1), rights={"answer": True, "judge": True, "hand_on": True})
    card = replace(card, alert=replace(card.alert, acknowledged_utc_ns=None))
    cards = Cards(PAGES)
    for token in ("a" * 64, "b" * 64, "a" * 64):
        html = cards.part(card, words=WORDS["en"], form_token=token).html
        assert re.findall(r'name="form" value="([^"]*)"', html) == [token]


def test_what_is_kept_is_bounded_and_a_board_that_is_looked_at_again_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 5)
    draw, made = random.Random(2), list[Card]()

    class Counting(Pages):
        def part(self, template: str, **values: Any) -> Part:
            made.append(values["card"])
            return super().part(template, **values)

    cards = Cards(Counting(time_zone="Asia/Ho_Chi_Minh"))
    board = [drawn(draw, number) for number in range(8)]
    for card in [*board, *board[4:], *board[4:]]:
        cards.part(card, words=WORDS["en"], form_token="a" * 64)
    assert made == board, "the newest are not rendered again"
    cards.part(board[0], words=WORDS["en"], form_token="a" * 64)
    assert made == [*board, board[0]], "the oldest was given up"

    made.clear()
    cards.part(board[4], words=WORDS["en"], form_token="a" * 64)  # of those kept it was made first
    cards.part(board[1], words=WORDS["en"], form_token="a" * 64)
    cards.part(board[4], words=WORDS["en"], form_token="a" * 64)
    assert made == [board[1]], "what is looked at stays, and another goes"
