"""A range of a post's time at the desk: what there was, what of it lies here, and how it is played."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from agent.clock import Clock
from agent.errors import Transient
from agent.recording.coverage import RECORDED, Stretch
from agent.recording.timeline import Timeline
from agent.station.footage import playlist, told
from agent.station.footage.playlist import File, Playlist
from agent.station.footage.shelf import Lost, Shelf, Stored
from agent.types import NS

RANGE_S_MAX = 24 * 3600.0
"""Of one question."""
PLAY_S_MAX = 2 * 3600.0
"""Of one that is to be played: each file must be read through once, 15 ms of a warm disk."""
REFUSALS_MAX = 2
"""For so many files in a row an archive does not answer before it is asked for no more: each may take half a minute."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What is known of a range. `stretches` add up to it."""

    node: str
    start_utc_ns: int
    end_utc_ns: int
    stretches: list[Stretch]
    here: list[tuple[int, int]]  # stretches of UTC that lie here, within the range, joined
    files: list[Stored]  # in the archive
    listed: list[File]  # the same, for the playlist; empty where the range is too long to be played
    playlist: Playlist
    cut: bool  # there was too much to be looked at: what is missing is shown as not explained
    lost: frozenset[str]  # contents that are on record, and that the archive does not give: they are not played
    away: bool  # it gives none: `here` is what is on record then

    @property
    def here_s(self) -> float:
        """Seconds that lie here."""
        return sum(high - low for low, high in self.here) / NS

    @property
    def missing_s(self) -> float:
        """Seconds that the post recorded, and that are not here."""
        recorded = [(s.start_utc_ns, s.end_utc_ns) for s in self.stretches if s.what == RECORDED]
        has = sum(max(min(b, d) - max(a, c), 0) for a, b in recorded for c, d in self.here)
        return (sum(b - a for a, b in recorded) - has) / NS


class Surveyor:
    """Any thread. Blocks for the database, and the first time for reading through the files. Raises Transient."""

    def __init__(self, *, engine: Engine, shelf: Shelf, clock: Clock) -> None:
        self._reader = told.Reader(engine)
        self._shelf = shelf
        self._clock = clock

    def survey(self, node: str, start_utc_ns: int, end_utc_ns: int, *, address: str) -> Surveyed:
        """`address`: in front of a file's number, for the playlist. Raises Transient."""
        return self.survey_all({node: address}, start_utc_ns, end_utc_ns)[node]

    def survey_all(self, addresses: Mapping[str, str], start_utc_ns: int, end_utc_ns: int) -> dict[str, Surveyed]:
        """The same of several posts, each with its address, in as many trips to the database as for one."""
        read = self._reader.read_all(list(addresses), start_utc_ns, end_utc_ns)
        known = dict(zip(addresses, read, strict=True))
        stored = self._stored(known, start_utc_ns, end_utc_ns)
        look = _Look(self._shelf)
        return {
            node: self._surveyed(node, known[node], stored[node], start_utc_ns, end_utc_ns, address, look)
            for node, address in addresses.items()
        }

    def _surveyed(
        self,
        node: str,
        known: told.Told,
        stored: list[Stored],
        start_utc_ns: int,
        end_utc_ns: int,
        address: str,
        look: _Look,
    ) -> Surveyed:
        stretches, timeline = known.account(
            start_utc_ns,
            end_utc_ns,
            now_utc_ns=self._clock.utc().utc_ns,
            archived=[segment for one in stored if (segment := one.segment()) is not None],
            anchors=[anchor for one in stored if (anchor := one.anchor()) is not None],
        )
        found: list[File | None] = []
        if end_utc_ns - start_utc_ns <= PLAY_S_MAX * NS:
            found = [look.file(one, address) for one in stored]
        files = [_UNREAD if file is None else file for file in found]
        lost = frozenset(one.sha256 for one, file in zip(stored, found, strict=False) if file is None)
        refused = look.refused & lost
        away = is_away(files=len(files), lost=len(lost), refused=len(refused), given_up=bool(refused) and look.given_up)
        played = playlist.compose(files, timeline, start_utc_ns, end_utc_ns)
        spans = [(part.start_utc_ns, part.start_utc_ns + part.duration_ns) for part in played.parts]
        return Surveyed(
            node=node,
            start_utc_ns=start_utc_ns,
            end_utc_ns=end_utc_ns,
            stretches=stretches,
            here=_joined(spans if files and not away else _spans(stored, timeline), start_utc_ns, end_utc_ns),
            files=stored,
            listed=files,
            playlist=played,
            cut=known.cut,
            lost=lost,
            away=away,
        )

    def _stored(self, known: Mapping[str, told.Told], start_utc_ns: int, end_utc_ns: int) -> dict[str, list[Stored]]:
        """Files that touch the range, by their lines' time, and by their own where no line tells of them."""
        named = {node: one.named(start_utc_ns, end_utc_ns) for node, one in known.items()}
        found = self._shelf.find_all(named, start_utc_ns, end_utc_ns)
        return {node: sorted(files.values(), key=lambda one: one.n) for node, files in found.items()}


_UNREAD = File(uri="", init_bytes=0, boot_id="", fragments=())
"""In the place of one that cannot be had: nothing of it is played."""


class _Look:
    """Into the files of a range, of one post or several. One file that cannot be had costs that file."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._in_a_row = 0
        self._noted = False
        self.refused: set[str] = set()  # contents for which the archive did not answer, or was not asked any more

    @property
    def given_up(self) -> bool:
        """Whether the archive is asked for no more."""
        return self._in_a_row >= REFUSALS_MAX

    def file(self, stored: Stored, address: str) -> File | None:
        """As a playlist knows it; None: the archive does not give it."""
        if self.given_up:
            self.refused.add(stored.sha256)
            return None
        try:
            index = self._shelf.index(stored)
        except Lost as error:
            self._note(error)
            self._in_a_row = 0
            return None
        except Transient as error:
            self._note(error)
            self._in_a_row += 1
            self.refused.add(stored.sha256)
            return None
        self._in_a_row = 0
        return File(
            uri=f"{address}{stored.n}.mp4",
            init_bytes=index.init_bytes,
            boot_id="" if index.header is None else index.header.boot_id,
            fragments=index.fragments,
            sealed=index.header is not None and bool(index.header.sealed),
        )

    def _note(self, error: Exception) -> None:
        """The first: a page that is looked at asks again and again, and the others say the same."""
        if not self._noted:
            log.warning("footage: %s", error)
        self._noted = True


def is_away(*, files: int, lost: int, refused: int, given_up: bool = False) -> bool:
    """Whether an archive is away, and not some of its files: it has none of several, or answers for none. `lost`: how
    many it does not give; `refused`: for how many of them it did not answer.
    """
    return given_up or (lost == files and (refused > 0 or lost > 1))


def _spans(stored: list[Stored], timeline: Timeline) -> list[tuple[int, int]]:
    """Where whole files lie, without a look into them."""
    found = []
    for one in stored:
        moment = timeline.utc(one.boot_id, one.start_ns)
        if moment is not None:
            found.append((moment.utc_ns, moment.utc_ns + one.end_ns - one.start_ns))
    return sorted(found)


def _joined(spans: list[tuple[int, int]], start_utc_ns: int, end_utc_ns: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for begins, ends in spans:
        low, high = max(begins, start_utc_ns), min(ends, end_utc_ns)
        if low >= high:
            continue
        if found and low - found[-1][1] <= playlist.HOLE_NS_MAX:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found
