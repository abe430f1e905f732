"""What happened to every second of a range of UTC: recorded, or why not. Pure. (Invariant 4.)

Each source of knowledge lays claims on stretches of UTC; where several overlap, the most direct one wins. What nobody
claims is `unknown`. The result is cut to the range, without holes or overlaps, neighbours with the same label joined.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise

from agent.recording.runs import ROLL_NS_MAX, Run
from agent.recording.testimony import Testimony
from agent.recording.timeline import Moment, Timeline
from agent.store.store import SessionRow, Tombstone
from agent.types import NS, Cause, EndReason, Gap, Segment, Sign

RECORDED = "recorded"
TAIL_S_MAX = 15.0  # footage in memory, and gaps not yet on record, when a process dies
UNWRITTEN_S_MAX = 4.0
"""Footage in memory in front of a gap that reached the disk before it (privacy is on record at once): a fragment, of
2 s at most (recording.fragment_s; 0.5 s unless it is set), and what waits for its sync. It claims only what nothing
explains.
"""
ALIVE_S_MAX = 75.0  # a living agent signs its life at least so often (health.ALIVE_S, and a slow card)
EVIDENCE_MAX = 8  # lines for one stretch
NOT_YET = "being recorded, not yet on the disk"
FUTURE = "in the future"


@dataclass(frozen=True, slots=True)
class Stretch:
    """One labelled part of the range, `[start, end)`.

    Two things may be uncertain about an end: where UTC was (`unc_s`, either way), and, where a life ended without a
    word, when it did: after its last sign, by `start_late_s` at most while the card took data.
    """

    start_utc_ns: int
    end_utc_ns: int
    what: str  # "recorded" or a types.Cause
    detail: str
    unc_s: float | None  # how far the ends may be off; None: nobody can vouch for the wall clock
    start_late_s: float = 0.0  # the start may truly lie so much later than its last proof says
    evidence: tuple[str, ...] = ()  # what this rests on, a sentence each

    @property
    def seconds(self) -> float:
        return (self.end_utc_ns - self.start_utc_ns) / NS


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of asking. `running`: the node itself answers; else its card is read, and its last life is over."""

    boot_id: str
    boot_ns: int
    utc_ns: int | None = None  # by the asker's own clock, where the boot may be that of another machine
    running: bool = True


class _Rank(IntEnum):
    """How direct a claim is. Smaller wins."""

    RECORDED = 0
    PRIVACY = 1  # switched off by a person: whatever else failed meanwhile, nothing was to be recorded
    GAP = 2
    TOMBSTONE = 3
    ROLLED = 4  # the jitter between two files
    SESSION = 5  # inside of a session: start-up, what was in memory when it died
    BETWEEN = 6  # between two sessions
    OUTSIDE = 7  # before the first, after now


@dataclass(frozen=True, slots=True)
class _Claim:
    start: int
    end: int
    rank: _Rank
    what: str
    detail: str
    unc_s: float | None
    late_s: float = 0.0
    evidence: tuple[str, ...] = ()


def coverage(
    start_utc_ns: int,
    end_utc_ns: int,
    *,
    sessions: Sequence[SessionRow],
    segments: Sequence[Segment],
    gaps: Sequence[Gap],
    tombstones: Sequence[Tombstone],
    timeline: Timeline,
    now: Now | None = None,
    signs: Sequence[Sign] = (),
    runs: Sequence[Run] = (),
) -> list[Stretch]:
    """The range, in order. `segments` may include the file in progress (its sha256 is empty). `runs`: further files;
    the answer is that of their rows among `segments`.

    While the node runs (`now`), its last session has not ended. Boots without any time anchor cannot be placed and
    claim nothing. `signs` change no label: they are the evidence.
    """
    testimony = Testimony(signs, timeline)
    explained = list(_explained(gaps, tombstones, timeline, testimony))
    files: list[Segment | Run] = [*runs, *segments]
    lives = _survey(sessions, files, gaps, tombstones)
    if runs:
        files = _cut(_untangled(files), timeline, start_utc_ns, end_utc_ns)
        files = _apart(files, timeline, explained)
    claims = [*_recorded(files, timeline), *explained, *_lives(lives, timeline, now, testimony)]
    return _join(_sweep(start_utc_ns, end_utc_ns, claims))


def _claim(
    timeline: Timeline,
    boot_id: str,
    start_ns: int,
    end_ns: int,
    rank: _Rank,
    what: str,
    detail: str,
    *,
    late_s: float = 0.0,
    evidence: Sequence[str] = (),
) -> Iterator[_Claim]:
    """A claim on a stretch of one boot, if that boot can be placed."""
    start, end = timeline.utc(boot_id, start_ns), timeline.utc(boot_id, end_ns)
    if start is not None and end is not None and end.utc_ns > start.utc_ns:
        yield _Claim(start.utc_ns, end.utc_ns, rank, what, detail, _worse(start, end), late_s, tuple(evidence))


def _worse(one: Moment, other: Moment) -> float | None:
    if one.unc_s is None or other.unc_s is None:
        return None
    return max(one.unc_s, other.unc_s)


_Files = Sequence[Segment | Run]


def _untangled(files: _Files) -> list[Segment | Run]:
    """Takes the runs of a session apart in which something begins before an earlier run has begun its last file: which
    file follows which is then another matter.
    """
    sessions: set[int] = set()
    reach: tuple[int, int] | None = None
    for one in sorted(files, key=lambda one: (one.session, one.start_ns)):
        if reach is not None and (one.session, one.start_ns) <= reach:
            sessions.add(one.session)
        last = one.session, one.starts_ns[-1] if isinstance(one, Run) else one.start_ns
        reach = last if reach is None else max(reach, last)
    return [part for one in files for part in (_each(one) if one.session in sessions else (one,))]


def _cut(files: _Files, timeline: Timeline, start_utc_ns: int, end_utc_ns: int) -> list[Segment | Run]:
    """Of each run what touches the range: how far its ends may be off must not come from outside. The file before that
    and the one behind it stay, for the jitter between them.
    """
    found: list[Segment | Run] = []
    for one in files:
        zero = timeline.utc(one.boot_id, 0) if isinstance(one, Run) else None
        if isinstance(one, Segment) or zero is None:
            found.append(one)
            continue
        first, last = one.touching(start_utc_ns - zero.utc_ns, end_utc_ns - zero.utc_ns)
        edges = sorted({max(first - 1, 0), first, last, min(last + 1, len(one))})
        found += [one.part(low, high) for low, high in pairwise(edges)]
    return found


def _apart(files: _Files, timeline: Timeline, explained: Sequence[_Claim]) -> list[Segment | Run]:
    """Takes runs apart wherever it matters of which files they are: where something else was recorded at the same time,
    and where something else that is on record reaches over the end of one of its files.
    """
    placed = []
    for at, one in enumerate(files):
        zero = timeline.utc(one.boot_id, 0)
        if zero is not None and one.start_ns < one.end_ns:
            placed.append((one.start_ns + zero.utc_ns, one.end_ns + zero.utc_ns, at, zero.utc_ns))
    placed.sort()
    harmed = set(_overlapping(placed))
    firm = [one for one in placed if one[2] not in harmed]
    for claim in explained:
        at = max(bisect_right(firm, claim.start, key=lambda one: one[0]) - 1, 0)
        while at < len(firm) and firm[at][0] < claim.end:
            _, _, which, zero_ns = firm[at]
            if _reaches_over(claim.start - zero_ns, claim.end - zero_ns, files[which]):
                harmed.add(which)
            at += 1
    return [part for at, one in enumerate(files) for part in (_each(one) if at in harmed else (one,))]


def _overlapping(placed: Iterable[tuple[int, int, int, int]]) -> Iterator[int]:
    """Which of them share a moment with another. They come by where they start."""
    furthest: tuple[int, int] | None = None
    for start, end, at, _ in placed:
        if furthest is not None and start < furthest[0]:
            yield at
            yield furthest[1]
        if furthest is None or end > furthest[0]:
            furthest = end, at


def _reaches_over(start_ns: int, end_ns: int, one: Segment | Run) -> bool:
    """Whether a stretch has a part between two files of a run."""
    if isinstance(one, Segment):
        return False
    at = bisect_right(one.ends_ns, start_ns)
    before = 0 < at < len(one) and one.starts_ns[at] > start_ns and one.ends_ns[at - 1] < end_ns
    return before or (at + 1 < len(one) and one.ends_ns[at] < end_ns)


def _each(one: Segment | Run) -> list[Segment | Run]:
    """Its files one by one."""
    return [one] if isinstance(one, Segment) else [one.part(at, at + 1) for at in range(len(one))]


def _recorded(segments: _Files, timeline: Timeline) -> Iterator[_Claim]:
    ordered = sorted(segments, key=lambda segment: (segment.session, segment.start_ns))
    for segment in ordered:
        yield from _claim(timeline, segment.boot_id, segment.start_ns, segment.end_ns, _Rank.RECORDED, RECORDED, "")
    for one, following in pairwise(ordered):
        joined = one.session == following.session and one.boot_id == following.boot_id
        hole_ns = following.start_ns - one.end_ns
        if joined and one.end_reason is EndReason.ROLLED and 0 < hole_ns <= ROLL_NS_MAX:
            yield from _claim(timeline, one.boot_id, one.end_ns, following.start_ns, _Rank.ROLLED, RECORDED, "")


def _explained(
    gaps: Sequence[Gap], tombstones: Sequence[Tombstone], timeline: Timeline, testimony: Testimony
) -> Iterator[_Claim]:
    for gap in gaps:
        rank = _Rank.PRIVACY if gap.cause is Cause.PRIVACY else _Rank.GAP
        yield from _claim(
            timeline, gap.boot_id, gap.start_ns, gap.end_ns, rank, gap.cause, gap.detail, evidence=testimony.gap(gap)
        )
    for stone in tombstones:
        # "budget", "age", "disk full" are policy; "file missing" and "file damaged" are what the disk did.
        cause = Cause.STORAGE_FAULT if stone.reason.startswith("file ") else Cause.DELETED
        proof = (f"tombstone: {stone.segments} file(s), {stone.bytes} bytes: {stone.reason}",)
        yield from _claim(
            timeline, stone.boot_id, stone.start_ns, stone.end_ns, _Rank.TOMBSTONE, cause, stone.reason, evidence=proof
        )


@dataclass(slots=True)
class _Life:
    """One session, with what is known of its end."""

    row: SessionRow
    first_ns: int | None = None  # first footage or gap
    last_ns: int = 0  # last footage or gap
    end_ns: int = 0
    fed: bool = False  # the last that is on record is footage

    def note(self, start_ns: int, end_ns: int, *, footage: bool = False) -> None:
        """The session was alive from `start_ns` to `end_ns`, and what it did then is on record."""
        self.first_ns = start_ns if self.first_ns is None else min(self.first_ns, start_ns)
        if end_ns >= self.last_ns:
            self.fed = footage
        self.last_ns = max(self.last_ns, end_ns)
        self.end_ns = max(self.end_ns, end_ns)


def _lives(lives: Sequence[_Life], timeline: Timeline, now: Now | None, testimony: Testimony) -> Iterator[_Claim]:
    """What the sessions themselves tell."""
    if not lives:
        return
    last = lives[-1]
    lives_on = now is not None and now.running and last.row.boot_id == now.boot_id and last.row.stop is None
    running = last if lives_on else None
    for life, following in zip(lives, [*lives[1:], None], strict=True):
        row = life.row
        if life is running and now is not None:
            life.end_ns = now.boot_ns
        if life.first_ns is not None:
            yield from _claim(
                timeline, row.boot_id, row.start_ns, life.first_ns, _Rank.SESSION, Cause.AGENT_STOPPED, "starting"
            )
        tail_ns = min(life.end_ns, life.last_ns + round(TAIL_S_MAX * NS))
        proof: tuple[str, ...] = ()
        late_s = 0.0
        if life is running:
            what, detail = Cause.UNKNOWN.value, NOT_YET
            if life.first_ns is None:
                what, detail = Cause.AGENT_STOPPED.value, "starting"
                tail_ns = life.end_ns
        elif row.stop is not None:
            what, detail = Cause.AGENT_STOPPED.value, f"stopping: {row.stop}"
        else:
            what, detail = _death(life, following)
            proof, late_s = (
                testimony.death(row, life.end_ns, following.row if following else None),
                _late_s(life, life.last_ns),
            )
            # What was still in memory went with it, also in front of a gap that had reached the disk before.
            yield from _claim(
                timeline, row.boot_id, max(life.last_ns - round(UNWRITTEN_S_MAX * NS), row.start_ns), life.last_ns,
                _Rank.SESSION, what, detail, evidence=proof,
            )  # fmt: skip
        yield from _claim(
            timeline, row.boot_id, life.last_ns, tail_ns, _Rank.SESSION, what, detail, late_s=late_s, evidence=proof
        )
    for one, following in pairwise(lives):
        yield from _between(one, following, timeline, testimony)
    yield from _outside(lives, running, timeline, now, testimony)


def _late_s(life: _Life, from_ns: int) -> float:
    """By how much a death that nobody saw may lie behind the last proof of life.

    Every second of footage is a proof while the card takes it; else a sign of life a minute is.
    """
    known_ns = life.last_ns + round(TAIL_S_MAX * NS) if life.fed else life.row.alive_ns + round(ALIVE_S_MAX * NS)
    return max(max(known_ns, life.row.alive_ns) - from_ns, 0) / NS


def _survey(
    sessions: Sequence[SessionRow], segments: _Files, gaps: Sequence[Gap], tombstones: Sequence[Tombstone]
) -> list[_Life]:
    """Sessions in order, each with what is on record from it. Gaps and tombstones go by where they begin."""
    lives = [_Life(row, last_ns=row.start_ns, end_ns=row.alive_ns) for row in sorted(sessions, key=lambda s: s.session)]
    by_session = {life.row.session: life for life in lives}
    by_boot: dict[str, list[_Life]] = {}
    for life in lives:
        by_boot.setdefault(life.row.boot_id, []).append(life)
    for segment in segments:
        owner = by_session.get(segment.session)
        if owner is not None and owner.row.boot_id == segment.boot_id:
            owner.note(segment.start_ns, segment.end_ns, footage=True)
    explained: list[Gap | Tombstone] = [*gaps, *tombstones]
    for item in explained:
        boot = by_boot.get(item.boot_id, [])
        at = bisect_right(boot, item.start_ns, key=lambda life: life.row.start_ns) - 1
        if at >= 0:
            boot[at].note(item.start_ns, item.end_ns)
    return lives


def _death(life: _Life, following: _Life | None) -> tuple[str, str]:
    """Why a session ended that nobody stopped, as its successor tells."""
    if following is None:
        return Cause.AGENT_STOPPED, "the agent does not run, and nobody stopped it"
    if following.row.boot_id != life.row.boot_id:
        return Cause.POWER_OFF, "the machine lost power or restarted"
    return Cause.AGENT_STOPPED, "the agent was killed"


def _between(one: _Life, following: _Life, timeline: Timeline, testimony: Testimony) -> Iterator[_Claim]:
    """From the last sign of one life to the start of the next. A new boot splits it: power came back at its time 0."""
    start = timeline.utc(one.row.boot_id, one.end_ns)
    end = timeline.utc(following.row.boot_id, following.row.start_ns)
    if start is None or end is None or end.utc_ns <= start.utc_ns:
        return
    what, detail = _death(one, following)
    proof: tuple[str, ...] = ()
    late_s = 0.0
    rebooted = one.row.boot_id != following.row.boot_id
    if one.row.stop is not None:
        what, detail = Cause.AGENT_STOPPED, f"stopped: {one.row.stop}"
        if rebooted:
            detail += "; the machine was restarted meanwhile"
    else:
        proof, late_s = testimony.death(one.row, one.end_ns, following.row), _late_s(one, one.end_ns)
    powered = timeline.utc(following.row.boot_id, 0)
    if rebooted and powered is not None and start.utc_ns < powered.utc_ns < end.utc_ns and one.row.stop is None:
        booting = ("the machine runs, the agent does not yet", testimony.boot(following.row))
        yield _Claim(powered.utc_ns, end.utc_ns, _Rank.BETWEEN, Cause.AGENT_STOPPED, "booting", end.unc_s, 0.0, booting)
        end = powered
    late_s = min(late_s, (end.utc_ns - start.utc_ns) / NS)
    yield _Claim(start.utc_ns, end.utc_ns, _Rank.BETWEEN, what, detail, _worse(start, end), late_s, proof)


_FOREVER_NS = 1 << 62


def _outside(
    lives: Sequence[_Life], running: _Life | None, timeline: Timeline, now: Now | None, testimony: Testimony
) -> Iterator[_Claim]:
    first, last = lives[0], lives[-1]
    begin = timeline.utc(first.row.boot_id, first.row.start_ns)
    if begin is not None:
        proof = ("the first start of this post that its store knows of",)
        yield _Claim(-_FOREVER_NS, begin.utc_ns, _Rank.OUTSIDE, Cause.BEFORE_INSTALL, "", begin.unc_s, 0.0, proof)
    end = timeline.utc(last.row.boot_id, last.end_ns)
    if end is None:
        return
    if running is not None:
        yield _Claim(end.utc_ns, _FOREVER_NS, _Rank.OUTSIDE, Cause.UNKNOWN, FUTURE, end.unc_s)
        return
    asked_ns = None
    if now is not None:
        here = timeline.utc(now.boot_id, now.boot_ns)
        asked_ns = here.utc_ns if here is not None else now.utc_ns
    stops_ns = _FOREVER_NS if asked_ns is None else max(asked_ns, end.utc_ns)
    detail, ends = "the agent does not run", testimony.death(last.row, last.end_ns, None)
    late_s = _late_s(last, last.end_ns)
    if last.row.stop is not None:
        detail, ends, late_s = f"{detail}: {last.row.stop}", (), 0.0
    if stops_ns > end.utc_ns:
        yield _Claim(
            end.utc_ns, stops_ns, _Rank.OUTSIDE, Cause.AGENT_STOPPED, detail, end.unc_s,
            min(late_s, (stops_ns - end.utc_ns) / NS), ends,
        )  # fmt: skip
    yield _Claim(stops_ns, _FOREVER_NS + 1, _Rank.OUTSIDE, Cause.UNKNOWN, FUTURE, None)


def _sweep(start: int, end: int, claims: Iterable[_Claim]) -> Iterator[Stretch]:
    """Walks from boundary to boundary; the best claim that is open there labels the stretch."""
    ordered = sorted((claim for claim in claims if claim.end > start and claim.start < end), key=lambda c: c.start)
    edges = {start, end}
    for claim in ordered:
        edges |= {min(max(claim.start, start), end), min(max(claim.end, start), end)}
    waiting = iter(ordered)
    upcoming = next(waiting, None)
    active: list[tuple[int, int, _Claim]] = []
    count = 0
    for here, there in pairwise(sorted(edges)):
        while upcoming is not None and upcoming.start <= here:
            count += 1
            heapq.heappush(active, (upcoming.rank, count, upcoming))
            upcoming = next(waiting, None)
        while active and active[0][2].end <= here:
            heapq.heappop(active)
        if active:
            best = active[0][2]
            late_s = max(best.late_s - (here - best.start) / NS, 0.0)
            yield Stretch(here, there, str(best.what), best.detail, best.unc_s, late_s, best.evidence)
        else:
            yield Stretch(here, there, str(Cause.UNKNOWN), "nothing on record explains it", None)


def _join(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Neighbours with the same label are one; the error is the larger, the evidence that of both."""
    joined: list[Stretch] = []
    for stretch in stretches:
        before = joined[-1] if joined else None
        if before is not None and (before.what, before.detail) == (stretch.what, stretch.detail):
            unc = None if before.unc_s is None or stretch.unc_s is None else max(before.unc_s, stretch.unc_s)
            evidence = before.evidence
            if stretch.evidence != evidence:
                evidence = tuple(dict.fromkeys((*evidence, *stretch.evidence)))[:EVIDENCE_MAX]
            joined[-1] = Stretch(
                before.start_utc_ns, stretch.end_utc_ns, stretch.what, stretch.detail, unc,
                before.start_late_s, evidence,
            )  # fmt: skip
        else:
            joined.append(stretch)
    return [
        replace(stretch, start_late_s=stretch.seconds) if stretch.start_late_s > stretch.seconds else stretch
        for stretch in joined
    ]


def recorded_s(stretches: Iterable[Stretch]) -> float:
    """Seconds of footage in a coverage."""
    return sum(stretch.seconds for stretch in stretches if stretch.what == RECORDED)
