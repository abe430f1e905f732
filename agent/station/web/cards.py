"""Cards of alerts as HTML. A board shows hundreds, and few have changed since anybody looked: each is rendered once for
all who see it alike.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, fields

from agent.station.alerts import Alert
from agent.station.bells.around import Nearby
from agent.station.web.pages import Pages, Part
from agent.station.web.words import Words

KEPT_MAX = 1000
"""Some 2.5 kB each."""
_ALERT = tuple(one.name for one in fields(Alert) if one.name != "told")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An alert in words."""

    alert: Alert
    place: str = ""
    says: str = ""
    at_utc_ns: int | None = None
    error: str = ""  # of the time, in words
    late: bool = False  # delivered late
    rights: dict[str, bool] = field(default_factory=dict)
    near: list[Nearby] = field(default_factory=list)  # of a bell: its own post, and those around it
    live: str = ""  # how their live pictures begin: by "itself", when "asked" for; empty: none for who looks


class Cards:
    """Any thread."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._mark = secrets.token_hex(32)  # stands where a form's token goes; never told, so no node can write it
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[object, ...], tuple[str, ...]] = OrderedDict()

    def part(self, card: Card, *, words: Words, form_token: str) -> Part:
        """A card for somebody who has this token for his forms."""
        key = _key(card, words.language)
        with self._lock:
            pieces = self._kept.get(key)
            if pieces is not None:
                self._kept.move_to_end(key)
        if pieces is None:
            made = self._pages.part("card.html", words=words, card=card, form_token=self._mark)
            pieces = tuple(made.html.split(self._mark))
            with self._lock:
                self._kept[key] = pieces
                while len(self._kept) > KEPT_MAX:
                    self._kept.popitem(last=False)
        return Part(form_token.join(pieces))


def _key(card: Card, language: str) -> tuple[object, ...]:
    """All that the template is told, but the token: of the event itself only whether it is there."""
    alert = card.alert
    told = (card.place, card.says, card.at_utc_ns, card.error, card.late, card.live, alert.told is None)
    return (language, *told, *sorted(card.rights.items()), *(getattr(alert, name) for name in _ALERT), *card.near)
