"""What was promised, held against what is on the disks. Pure: evidence in, verdicts out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.demo.evidence import Committed, Evidence
from agent.recording.coverage import RECORDED, recorded_s
from agent.types import NS, Cause, EndReason, Segment
from agent.uplink.worker import HISTORICAL_S

LOST_S_MAX = 1.6
"""A kill costs the fragment in progress (1 s), and what the camera had in hand: half a second at most."""
HOLE_S_MAX = 0.5  # frame times jitter, and a file's last frame has no length of its own
BACK_NS = 10 * NS  # by then the node has its connection again (uplink.backoff_s_max)
AT_ONCE_S = 1.0  # from happening to the station's disk when nothing is in the way
VISITS_MIN = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise."""

    name: str
    passed: bool
    detail: str


def judge(evidence: Evidence, *, sample: bool) -> list[Verdict]:
    """All promises. `sample`: the sample footage was shown, in which a man walks by."""
    checks: list[Callable[[Evidence], Verdict]] = [
        _nothing_lost,
        _each_once,
        _every_incident_ended,
        _recorded_through_the_cut,
        _kill_cost_a_fragment,
        _repaired,
        _files_are_whole,
        _every_second_explained,
        _clip_plays,
    ]
    if sample:
        checks += [_backlog_was_marked, _visitors_seen, _picture_drawn]
    verdicts = [check(evidence) for check in checks]
    return verdicts + [Verdict("evidence is complete", passed=False, detail=line) for line in evidence.trouble]


def lost_footage_s(evidence: Evidence) -> float:
    """Seconds that had been filmed when the node was killed, and are on no disk."""
    story = evidence.story
    ends = [segment.end_ns for segment in evidence.segments if segment.start_ns < story.killed_ns]
    return max(story.killed_ns - max(ends, default=story.began_ns), 0) / NS


def lost_events(evidence: Evidence) -> list[Committed]:
    """What the node committed and the station does not have."""
    there = {(each.event.sequence, each.event.id) for each in evidence.received}
    return [event for event in evidence.committed if (event.sequence, event.id) not in there]


def duplicates(evidence: Evidence) -> int:
    """Messages that the station has, or that a person saw, more than once; and phases told twice."""
    events = [each.event for each in evidence.received]
    stored = Counter(event.id for event in events)
    shown = Counter(evidence.story.shown)
    told = Counter(
        (event.data.incident, event.data.phase)
        for event in events
        if event.data.phase != "updated" and event.data.severity != "thumbnail"
    )
    return sum(count - 1 for counter in (stored, shown, told) for count in counter.values())


def _nothing_lost(evidence: Evidence) -> Verdict:
    lost = lost_events(evidence)
    passed = bool(evidence.committed) and not lost and not evidence.undelivered and not evidence.given_up
    detail = (
        f"{len(evidence.committed)} messages committed by the node, {len(evidence.committed) - len(lost)} of them"
        f" stored by the station, {evidence.undelivered} still waiting"
    )
    if evidence.given_up:
        detail += f", {evidence.given_up} given up for lack of room"
    return Verdict("no event was lost", passed, detail)


def _each_once(evidence: Evidence) -> Verdict:
    twice = duplicates(evidence)
    passed = not twice and not evidence.refused
    return Verdict("each event arrived once", passed, f"{twice} duplicates, {evidence.refused} refused by the station")


def _every_incident_ended(evidence: Evidence) -> Verdict:
    phases: dict[str, set[str]] = {}
    for event in (each.event for each in evidence.received):
        if event.data.severity != "thumbnail":
            phases.setdefault(event.data.incident, set()).add(event.data.phase)
    open_ones = [incident for incident, seen in phases.items() if "ended" not in seen]
    return Verdict(
        "every incident has an end", not open_ones, f"{len(phases)} incidents, {len(open_ones)} without an end"
    )


def _backlog_was_marked(evidence: Evidence) -> Verdict:
    """What was stored long after it happened says so; what was stored at once does not."""
    marked, unmarked, wrongly = 0, 0, 0
    for each in evidence.received:
        late_s = (each.at_ns - each.event.monons) / NS
        if each.event.historical:
            marked += 1
            in_the_cut = evidence.story.cut_ns <= each.event.monons <= evidence.story.restored_ns + BACK_NS
            wrongly += late_s < AT_ONCE_S and not in_the_cut
        else:
            unmarked += late_s > HISTORICAL_S + AT_ONCE_S
    return Verdict(
        "the backlog is marked as late",
        marked > 0 and not unmarked and not wrongly,
        f"{marked} messages carry the mark; {unmarked} lack it though they came {HISTORICAL_S:.0f} s late or more,"
        f" {wrongly} have it for nothing",
    )


def _recorded_through_the_cut(evidence: Evidence) -> Verdict:
    story = evidence.story
    hole_s = _hole_s(evidence.segments, story.cut_ns, story.restored_ns)
    length_s = (story.restored_ns - story.cut_ns) / NS
    return Verdict(
        "recording went on without the network",
        hole_s <= HOLE_S_MAX,
        f"{length_s:.1f} s without network, {max(length_s - hole_s, 0):.1f} s of them recorded",
    )


def _kill_cost_a_fragment(evidence: Evidence) -> Verdict:
    lost_s = lost_footage_s(evidence)
    return Verdict(
        "kill -9 cost a fragment at most",
        lost_s <= LOST_S_MAX,
        f"{lost_s:.2f} s of footage lost ({LOST_S_MAX} s allowed)",
    )


def _repaired(evidence: Evidence) -> Verdict:
    killed = [segment for segment in evidence.segments if segment.end_reason is EndReason.KILLED]
    whole = [s for s in killed if s.sha256 and evidence.sha256.get(s.name) == s.sha256]
    seconds = sum(segment.end_ns - segment.start_ns for segment in whole) / NS
    return Verdict(
        "the torn recording was repaired",
        len(whole) == len(killed) == 1,
        f"{len(whole)} recording of {seconds:.1f} s sealed at the next start with end_reason = killed"
        if killed
        else "no recording carries end_reason = killed",
    )


def _files_are_whole(evidence: Evidence) -> Verdict:
    bad = [s.name for s in evidence.segments if not s.sha256 or evidence.sha256.get(s.name) != s.sha256]
    return Verdict(
        "every recording has the hash on record",
        bool(evidence.segments) and not bad,
        f"{len(evidence.segments)} files, {len(bad)} that differ" + (f": {', '.join(bad[:3])}" if bad else ""),
    )


def _every_second_explained(evidence: Evidence) -> Verdict:
    story = evidence.story
    all_s = sum(stretch.seconds for stretch in evidence.coverage)
    expected_s = (story.stopped_ns - story.began_ns) / NS
    unknown_s = sum(s.seconds for s in evidence.coverage if s.what == Cause.UNKNOWN)
    why = Counter[str]()
    for stretch in evidence.coverage:
        if stretch.what not in (RECORDED, Cause.UNKNOWN):
            why[f"{stretch.what} ({stretch.detail})" if stretch.detail else stretch.what] += round(stretch.seconds * 10)
    reasons = ", ".join(f"{tenths / 10:.1f} s {reason}" for reason, tenths in why.items() if tenths)
    return Verdict(
        "every second is explained",
        unknown_s < 0.05 and abs(all_s - expected_s) < 0.5,
        f"of {all_s:.1f} s, {recorded_s(evidence.coverage):.1f} s recorded, {reasons or 'no gap'},"
        f" {unknown_s:.1f} s unknown",
    )


def _clip_plays(evidence: Evidence) -> Verdict:
    recorded = recorded_s(evidence.coverage)
    return Verdict(
        "the footage plays",
        evidence.clip_frames > 0 and evidence.clip_s >= recorded - 2.0,
        f"{evidence.clip_frames} frames decoded, {evidence.clip_s:.1f} s of {recorded:.1f} s recorded",
    )


def _visitors_seen(evidence: Evidence) -> Verdict:
    visits = {each.event.data.incident for each in evidence.received if each.event.type == "wardpost.person"}
    return Verdict("the man who walks by was seen", len(visits) >= VISITS_MIN, f"{len(visits)} visits reported")


def _picture_drawn(evidence: Evidence) -> Verdict:
    drawn = evidence.picture
    if drawn is None or not drawn.is_file():
        return Verdict("a detection was drawn", passed=False, detail="no picture was written")
    return Verdict("a detection was drawn", passed=True, detail=drawn.name)


def _hole_s(segments: Iterable[Segment], start_ns: int, end_ns: int) -> float:
    """The longest stretch of a range of this boot that no segment covers, in seconds."""
    longest_ns, reached_ns = 0, start_ns
    for segment in sorted(segments, key=lambda s: s.start_ns):
        if segment.end_ns <= reached_ns or segment.start_ns >= end_ns:
            continue
        longest_ns = max(longest_ns, segment.start_ns - reached_ns)
        reached_ns = segment.end_ns
    return max(longest_ns, end_ns - reached_ns) / NS
