"""Why a post is dark, or sees nothing: one cause with its evidence, how sure that is, and what to do next. Pure.

Rules are patterns of evidence that are *there*; none rests on evidence that is missing. Each that fits gives a finding
with a fixed confidence, and the surest one is the verdict; the others are told beside it. So taking evidence away can
never make a verdict surer (tests/unit/test_why_dark.py holds that for random fleets). The figures are an order of
trust, set by judgement: a direct observation (the mains input, the session that went on) before the company that a post
fell silent in, that before a bad sign beforehand. They are no measured frequencies.

No station knows why a post is dark that says nothing. What it knows, by falling strength:

- After the return, the node's ledger: the same session went on (it ran all the time: the network), another boot began
  and nobody wrote a stop (the power), the same boot with another session (the program).
- What the post told before: mains lost, storage alerts, under-voltage, an update on its way.
- Who fell silent within a minute of it: the posts of one house, pole, provider, or nearly all.
- How it used to be: late messages, outages that were explained since.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice, takewhile

from agent import wire
from agent.clock import parse_rfc3339
from agent.station.posts.company import Fall, Window, between, house_key, window, windows
from agent.station.posts.known import Evidence, Incident, Known, Start
from agent.station.posts.outages import AT_ONCE_S, Outage, is_site_wide, outages_of
from agent.types import NS

POSSIBLE, LIKELY, SURE = 0.4, 0.7, 0.9
"""From here on a finding is told with this word; below POSSIBLE nobody should drive out for it, and it is `unknown`."""

STALLED_S = 30.0
GOODBYE_S = 7.0
"""A connection that dies without a word is noticed 1.5 keepalives after its last, one that is closed at once. No node
says what its keepalive is: 20 s unless it is set, 5 s at least (agent/config.py). So only this much tells them apart.
"""
PLANNED_S = 900.0
"""So long an update or a restart may take; later it is no plan any more."""
BACKLOG_S, BACKLOG_ROWS = 120.0, 20
LATE_S, LATE_MESSAGES = 3600.0, 5
CLOCK_OFF_S = 60.0
DISK_BYTES_MIN = 50_000_000
SETTLE_S = 60.0
RECEIVED_S = 1800.0
"""A start that a post wrote down arrives within this after its return: it is urgent, but there may be a backlog."""
BRIEF_OFF_S = 120.0
MAINS_TOGETHER_S = 300.0
PROVIDER_POSTS, PROVIDER_SHARE = 2, 0.6
NAMES_MAX = 5
NEAR_NS, SETTLE_NS, MAINS_NEAR_NS = (round(seconds * NS) for seconds in (AT_ONCE_S, SETTLE_S, MAINS_TOGETHER_S))
SHARED = ("house", "pole", "provider")


class Cause(StrEnum):
    """What is to blame."""

    UNPLUGGED = "unplugged"  # no power: plug, fuse, supply, mains
    NETWORK = "network"
    CAMERA = "camera"  # the post is there, its camera gives nothing of use
    CARD = "card"
    CLOCK = "clock"
    PROGRAM = "program"  # the agent died, or was stopped, while the machine was on
    PLANNED = "planned"  # an update, a command, the privacy switch
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that fits. `scope`: how far the cause reaches; `post` unless the company tells more."""

    cause: Cause
    confidence: float
    evidence: tuple[Evidence, ...]
    scope: str = "post"  # post, house, pole, provider, headquarters


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer. `unknown` has confidence 0; `others`: what else fits, surest first."""

    cause: Cause
    confidence: float
    evidence: tuple[Evidence, ...]
    scope: str = "post"
    others: tuple[Finding, ...] = ()
    more: tuple[str, ...] = ()  # what would tell more: keys of words.*.json

    @property
    def word(self) -> str:
        """`sure`, `likely`, `possible` or `unknown`."""
        for least, word in ((SURE, "sure"), (LIKELY, "likely"), (POSSIBLE, "possible")):
            if self.confidence >= least:
                return word
        return "unknown"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another post of the site, and what became of it. `told`: what its own return told of an outage."""

    post: Known
    outages: tuple[Outage, ...]
    told: Mapping[int, Finding]  # by start_utc_ns of the outage
    _falls: tuple[tuple[int, int], ...] = field(init=False, repr=False)  # (start, its place in outages), in order
    _running_ns: int | None = field(init=False, repr=False)  # since when it is dark

    def __post_init__(self) -> None:
        running = (one.start_utc_ns for one in self.outages if one.end_utc_ns is None)
        falls = sorted((one.start_utc_ns, place) for place, one in enumerate(self.outages))
        object.__setattr__(self, "_falls", tuple(falls))
        object.__setattr__(self, "_running_ns", min(running, default=None))

    def outage_with(self, start_utc_ns: int) -> Outage | None:
        """Its outage that began together with this moment."""
        low = bisect_left(self._falls, (start_utc_ns - NEAR_NS, -1))
        near = takewhile(lambda fall: fall[0] <= start_utc_ns + NEAR_NS, self._falls[low:])
        place = min((place for _, place in near), default=None)
        return None if place is None else self.outages[place]

    def heard_after(self, start_utc_ns: int) -> bool:
        """Whether it was heard on when a post fell silent."""
        return (
            self.post.seen_utc_ns > start_utc_ns + SETTLE_NS
            and (self._running_ns is None or self._running_ns >= start_utc_ns + 3 * SETTLE_NS)
            and self.outage_with(start_utc_ns) is None
        )


class Around:
    """All posts of a station, found by what they share and by when they fell silent. Immutable once it is made."""

    def __init__(self, posts: Iterable[Neighbour]) -> None:
        self._posts = {one.post.node: one for one in posts}
        self._houses = {of: house_key(of, one.post.spot.house) for of, one in self._posts.items()}
        self._shared: dict[tuple[str, str], list[Neighbour]] = {}
        for one in self._posts.values():
            for shared in SHARED:
                name = getattr(one.post.spot, shared)
                if name:
                    self._shared.setdefault((shared, name), []).append(one)
        self._falls = {"": _falls(self._posts.values())}  # of each provider; under "", of all posts
        self._falls |= {name: _falls(ones) for (shared, name), ones in self._shared.items() if shared == "provider"}
        self._windows = {
            name: windows(falls, self._houses, near_ns=NEAR_NS, names_max=NAMES_MAX + 2)
            for name, falls in self._falls.items()
        }
        incidents = (
            (i.since_utc_ns, of) for of, one in self._posts.items() for i in one.post.incidents if i.kind == "mains"
        )
        self._mains = sorted(incidents)

    def __len__(self) -> int:
        return len(self._posts)

    def silent(self, post: Known, start_utc_ns: int, provider: str = "") -> Window:
        """Who fell silent at that moment, this post included; `provider`: only of that one."""
        own = self._posts.get(post.node)
        if own is not None and own.outage_with(start_utc_ns) is not None:
            found = self._windows[provider].get(start_utc_ns)
            if found is not None:
                return found
        # An outage that nobody else knows of: it began before what the station keeps of changes.
        falls = [*between(self._falls.get(provider, ()), start_utc_ns, NEAR_NS), (start_utc_ns, post.node)]
        houses = self._houses | {post.node: house_key(post.node, post.spot.house)}
        return window(falls, houses, names_max=NAMES_MAX + 2)

    def without_mains(self, post: Known, start_utc_ns: int) -> list[Neighbour]:
        """Others that fell silent at that moment and told that the mains was lost, by name."""
        near = between(self._mains, start_utc_ns, MAINS_NEAR_NS)
        found = (self._posts[of] for of in sorted({of for _, of in near} - {post.node}))
        return [one for one in found if one.outage_with(start_utc_ns) is not None]

    def sharing(self, post: Known, shared: str) -> list[Neighbour]:
        """The others of its house, pole or provider; none where nobody has said what those are."""
        return [one for one in self._group(post, shared) if one.post.node != post.node]

    def others(self, post: Known, shared: str) -> int:
        """How many those are."""
        own = post.node in self._posts and getattr(self._posts[post.node].post.spot, shared)
        return len(self._group(post, shared)) - (bool(own) and own == getattr(post.spot, shared))

    def silent_mates(self, post: Known, shared: str, start_utc_ns: int) -> list[Neighbour]:
        """Those of its house or pole that fell silent at that moment, by name."""
        found = (one for one in self.sharing(post, shared) if one.outage_with(start_utc_ns) is not None)
        return sorted(found, key=lambda one: one.post.node)

    def heard(self, post: Known, shared: str, start_utc_ns: int) -> list[Neighbour]:
        """Some of those that were heard on, as many as are named."""
        on = (one for one in self._group(post, shared) if one.post.node != post.node and one.heard_after(start_utc_ns))
        return list(islice(on, NAMES_MAX + 1))

    def _group(self, post: Known, shared: str) -> list[Neighbour]:
        return self._shared.get((shared, getattr(post.spot, shared)), [])


def _falls(posts: Iterable[Neighbour]) -> list[Fall]:
    return sorted((outage.start_utc_ns, one.post.node) for one in posts for outage in one.outages)


def why_dark(post: Known, outage: Outage, around: Around, *, now_utc_ns: int) -> Verdict:
    """Why `post` was, or is, dark. `around`: all posts of the station."""
    findings = [*after_return(post, outage), *_before(post, outage, now_utc_ns), *_company(post, outage, around)]
    narrow = [*_mates(post, outage, around), *_hints(post, outage)]
    return _verdict(findings, narrow, _more(post, outage))


def why_blind(post: Known) -> Verdict | None:
    """What is wrong with a post that is heard, as far as it keeps it from its work; None: nothing that it tells of."""
    findings = list(_blind(post))
    return _verdict(findings, [], ()) if findings else None


def _verdict(findings: Sequence[Finding], narrow: Sequence[Evidence], more: tuple[str, ...]) -> Verdict:
    ranked = sorted(findings, key=lambda one: -one.confidence)  # stable: of equals the first rule's
    if not ranked or ranked[0].confidence < POSSIBLE:
        hints = tuple(evidence for one in ranked for evidence in one.evidence)
        return Verdict(Cause.UNKNOWN, 0.0, (*hints, *narrow), more=more)
    best = ranked[0]
    same = [one for one in ranked[1:] if one.cause is best.cause]
    evidence = dict.fromkeys(_key(e) for one in (best, *same) for e in one.evidence)
    found = {_key(e): e for one in (best, *same) for e in one.evidence}
    others = tuple(one for one in ranked[1:] if one.cause is not best.cause)
    told = tuple(found[key] for key in evidence)
    return Verdict(
        best.cause, best.confidence, (*told, *narrow), best.scope, others, more if best.confidence < SURE else ()
    )


def _key(evidence: Evidence) -> tuple[object, ...]:
    return evidence.what, evidence.utc_ns, tuple(sorted(evidence.values.items()))


# -- after the return -------------------------------------------------------------------------------------------------


def after_return(post: Known, outage: Outage) -> Iterator[Finding]:
    """What the node's own record tells of an outage that is over. Needs no neighbour."""
    end = outage.end_utc_ns
    if end is None:
        return
    yield from _by_uptime(post, outage)
    lasted_s = (end - outage.start_utc_ns) / NS
    # While it was dark nothing came: what was received after its last heartbeat came at once after that, or at the end.
    silent_ns = outage.start_utc_ns + round(min(SETTLE_S, lasted_s / 2) * NS)
    came = [s for s in post.starts if silent_ns < s.received_utc_ns <= end + RECEIVED_S * NS]
    before = [s for s in post.starts if s.received_utc_ns <= silent_ns]
    if not before:
        return  # whose life ended, or went on, is not known
    first = came[0] if came else None
    if first is not None and first.before is not None and first.before.session == before[-1].session:
        yield from _by_start(post, outage, first, before, lasted_s)
        return
    session = before[-1].session
    later = [
        s.before.session for s in post.starts if s.received_utc_ns > end + RECEIVED_S * NS and s.before is not None
    ]
    went_on = later[:1] == [session]
    if not later and post.beat is not None and post.beat.received_utc_ns >= end:
        went_on = post.beat.said.session == session
    if went_on:
        told = Evidence("same_session", "ledger", end, {"session": session, "dark_s": lasted_s})
        yield Finding(Cause.NETWORK, 0.97, (told, *_uptime(post, outage)))


def _by_start(post: Known, outage: Outage, start: Start, before: Sequence[Start], lasted_s: float) -> Iterator[Finding]:
    """A start came with the return: the agent's life ended in between."""
    last = start.before
    if last is None:
        return
    at = start.received_utc_ns
    if last.boot_id == start.boot_id:
        stopped_s = max(start.boot_ns - last.alive_ns, 0) / NS
        told = Evidence("same_boot", "ledger", at, {"session": start.session, "stopped_s": stopped_s})
        if stopped_s < lasted_s / 2:
            yield Finding(Cause.NETWORK, 0.85, (told, Evidence("stopped_briefly", "ledger", at, {"dark_s": lasted_s})))
        elif last.stop == "stopped":
            yield Finding(Cause.PLANNED, 0.9, (told, Evidence("was_stopped", "ledger", at)))
        else:
            yield Finding(Cause.PROGRAM, 0.95, (told, Evidence("agent_died", "ledger", at, {"stop": last.stop or "-"})))
        return
    boot_utc_ns = _boot_began(post, start)
    alive_utc_ns = _alive(last.boot_id, last.alive_ns, before)
    ran_on_s = 0.0 if alive_utc_ns is None else (alive_utc_ns - outage.start_utc_ns) / NS
    back_s = 0.0 if boot_utc_ns is None or outage.end_utc_ns is None else (outage.end_utc_ns - boot_utc_ns) / NS
    off_s = None if boot_utc_ns is None or alive_utc_ns is None else max(boot_utc_ns - alive_utc_ns, 0) / NS
    values = {} if off_s is None else {"off_s": off_s}
    told = Evidence("new_boot" if off_s is None else "new_boot_off", "ledger", at, values)
    if last.stop is not None:
        yield Finding(Cause.PLANNED, 0.9, (told, Evidence("shut_down", "ledger", at)))
    elif ran_on_s > lasted_s / 2:
        yield Finding(Cause.NETWORK, 0.9, (Evidence("ran_on", "ledger", at, {"on_s": ran_on_s}), told))
    elif min(back_s, lasted_s) > lasted_s / 2:
        yield Finding(Cause.NETWORK, 0.85, (told, Evidence("ran_unheard", "ledger", at, {"on_s": back_s})))
    else:
        long = off_s is not None and off_s >= BRIEF_OFF_S  # a forced reboot takes less
        yield Finding(Cause.UNPLUGGED, 0.95 if long else 0.75, (told, Evidence("no_stop", "ledger", at)))


def _boot_began(post: Known, start: Start) -> int | None:
    """When the machine of a start was switched on, by its own clock or by the uptime in a heartbeat of that boot."""
    if start.boot_utc_ns is not None:
        return start.boot_utc_ns
    beat = post.beat
    if beat is None or beat.said.bootid != start.boot_id:
        return None
    return beat.received_utc_ns - beat.said.monons


def _alive(boot_id: str, alive_ns: int, before: Sequence[Start]) -> int | None:
    """A moment of an earlier boot in UTC, if a clock vouches for it."""
    for one in reversed(before):
        if one.boot_id == boot_id and one.boot_utc_ns is not None:
            return one.boot_utc_ns + alive_ns
    return None


def _uptime(post: Known, outage: Outage) -> Iterator[Evidence]:
    beat = post.beat
    if beat is not None and beat.said.machine.uptime_s is not None and beat.received_utc_ns >= (outage.end_utc_ns or 0):
        since_s = (beat.received_utc_ns - outage.start_utc_ns) / NS
        if beat.said.machine.uptime_s > since_s:
            yield Evidence("up_longer", "heartbeat", beat.received_utc_ns, {"up_s": beat.said.machine.uptime_s})


def _by_uptime(post: Known, outage: Outage) -> Iterator[Finding]:
    """Without a ledger: a machine that has been on for longer than the darkness began was not without power."""
    told = tuple(_uptime(post, outage))
    if told:
        yield Finding(Cause.NETWORK, 0.8, told)


# -- what it told before ----------------------------------------------------------------------------------------------


def _before(post: Known, outage: Outage, now_utc_ns: int) -> Iterator[Finding]:
    start = outage.start_utc_ns
    latest = start + round(SETTLE_S * NS)
    for one in post.incidents:
        if one.since_utc_ns > latest or (one.ended_utc_ns is not None and one.ended_utc_ns <= latest):
            continue
        if one.kind == "mains":
            ago_s = max(start - one.since_utc_ns, 0) / NS
            yield Finding(Cause.UNPLUGGED, 0.95, (Evidence("mains_lost", "event", one.since_utc_ns, {"ago_s": ago_s}),))
        elif one.kind == "storage" and one.severity == "alert":
            yield Finding(Cause.CARD, 0.75, (_storage(one),))
    yield from _last_words(post, outage, now_utc_ns)
    yield from _errands(post, outage, now_utc_ns)
    yield from _goodbye(outage, now_utc_ns)
    late = [at for at in post.late_utc_ns if start - LATE_S * NS <= at <= latest]
    if len(late) >= LATE_MESSAGES:
        # What waited through an outage comes late after it, whatever it was: that speaks for no network.
        waited = [(one.end_utc_ns or 0, (one.end_utc_ns or 0) + RECEIVED_S * NS) for one in outages_of(post.changes)]
        late = [at for at in late if not any(low - SETTLE_S * NS <= at <= high for low, high in waited)]
    if len(late) >= LATE_MESSAGES:
        yield Finding(Cause.NETWORK, 0.55, (Evidence("came_late", "event", late[0], {"count": len(late)}),))


def _goodbye(outage: Outage, now_utc_ns: int) -> Iterator[Finding]:
    """Its last word, or that of its broker. An older agent says neither, and only how soon it came tells them apart."""
    start, after_s = outage.start_utc_ns, outage.goodbye_s
    if after_s is None:
        return
    if outage.reason not in ("", wire.LOST):
        known = outage.reason if outage.reason in wire.LEFT else wire.STOPPED
        in_time = (now_utc_ns - start) / NS <= PLANNED_S
        confidence = 0.92 if in_time or known == wire.STOPPED else POSSIBLE
        yield Finding(Cause.PLANNED, confidence, (Evidence(f"left_{known}", "status", start),))
    elif after_s < GOODBYE_S:
        told = (Evidence("goodbye", "station", start, {"after_s": after_s}),)
        if outage.reason == wire.LOST:
            yield Finding(Cause.PROGRAM, 0.6, (*told, Evidence("left_lost", "status", start)))
        else:
            yield Finding(Cause.PROGRAM, 0.5, told)


def _storage(one: Incident) -> Evidence:
    return Evidence("storage", "event", one.since_utc_ns, {"said": one.summary})


def _last_words(post: Known, outage: Outage, now_utc_ns: int) -> Iterator[Finding]:
    """Of the last heartbeat before the silence; of an outage that is over that is gone."""
    beat = post.beat
    if beat is None or beat.received_utc_ns > outage.start_utc_ns + SETTLE_S * NS:
        return
    said, at = beat.said, beat.received_utc_ns
    flags = said.machine.throttled or []
    if "under-voltage" in flags:
        yield Finding(Cause.UNPLUGGED, 0.7, (Evidence("undervoltage", "heartbeat", at),))
    elif "under-voltage since boot" in flags:
        yield Finding(Cause.UNPLUGGED, 0.35, (Evidence("undervoltage_before", "heartbeat", at),))
    free = said.machine.diskfreebytes
    if free is not None and free < DISK_BYTES_MIN:
        yield Finding(Cause.CARD, 0.6, (Evidence("disk_full", "heartbeat", at, {"mb": round(free / 1e6)}),))
    queue = said.queue
    if queue is not None and queue.outboxrows >= BACKLOG_ROWS and (queue.oldestage_s or 0.0) >= BACKLOG_S:
        values = {"rows": queue.outboxrows, "oldest_s": queue.oldestage_s or 0.0}
        yield Finding(Cause.NETWORK, 0.6, (Evidence("backlog", "heartbeat", at, values),))
    in_time = (now_utc_ns - outage.start_utc_ns) / NS <= PLANNED_S
    if said.release is not None and said.release.phase == "trying":
        told = Evidence("release_trial", "heartbeat", at, {"number": said.release.tried})
        yield Finding(Cause.PLANNED, 0.8 if in_time else POSSIBLE, (told,))
    if said.settings is not None and said.settings.trial:
        told = Evidence("settings_trial", "heartbeat", at, {"number": said.settings.trial})
        yield Finding(Cause.PLANNED, 0.8 if in_time else POSSIBLE, (told,))


def _errands(post: Known, outage: Outage, now_utc_ns: int) -> Iterator[Finding]:
    in_time = (now_utc_ns - outage.start_utc_ns) / NS <= PLANNED_S
    for one in post.errands:
        under_way = one.verb == "update" and one.state == "waiting" and one.sent
        if under_way and one.asked_utc_ns <= outage.start_utc_ns and in_time:
            told = Evidence("update_sent", "order", one.asked_utc_ns)
            yield Finding(Cause.PLANNED, 0.75, (told,))
            return


# -- who fell silent with it ------------------------------------------------------------------------------------------


def _company(post: Known, outage: Outage, around: Around) -> Iterator[Finding]:
    start = outage.start_utc_ns
    yield from _wide(post, outage, around)
    mates = {shared: around.silent_mates(post, shared, start) for shared in ("house", "pole")}
    for shared, power, network in (("house", 0.8, 0.8), ("pole", 0.7, 0.75)):
        for mate in mates[shared]:
            yield from _of_mate(mate, start, shared, power=power, network=network)
    yield from _house(post, outage, around, mates["house"])
    yield from _pole(post, outage, mates["pole"])


def _wide(post: Known, outage: Outage, around: Around) -> Iterator[Finding]:
    """Nearly all, or those of one provider: in several houses at once no plug is to blame."""
    start = outage.start_utc_ns
    silent = around.silent(post, start)
    if is_site_wide(silent.posts, silent.houses, len(around)):
        values: dict[str, str | float] = {"count": silent.posts, "of": len(around)}
        yield Finding(Cause.NETWORK, 0.9, (Evidence("site_dark", "station", start, values),), "headquarters")
    provider = post.spot.provider
    if provider:
        fellows = around.others(post, "provider")
        fell = around.silent(post, start, provider)
        down, elsewhere = fell.posts - 1, fell.houses - 1  # but for this one, and its house
        if elsewhere >= PROVIDER_POSTS and down >= PROVIDER_SHARE * fellows:
            who = _some([one for one in fell.first if one != post.node], down)
            values = {"provider": provider, "count": down, "of": fellows, "who": who}
            yield Finding(Cause.NETWORK, 0.85, (Evidence("provider_dark", "station", start, values),), "provider")
    cut = around.without_mains(post, start)
    if len({house_key(one.post.node, one.post.spot.house) for one in cut} - {post.spot.house}) >= 2:
        told = Evidence("mains_around", "event", start, {"who": _names(cut)})
        yield Finding(Cause.UNPLUGGED, 0.87, (told,), "pole" if post.spot.pole else "house")


def _of_mate(mate: Neighbour, start: int, shared: str, *, power: float, network: float) -> Iterator[Finding]:
    """A post of the same house or pole that went with it, and told more."""
    who = mate.post.node
    lost = _mains(mate.post, start)
    if lost is not None:
        told = Evidence(f"mains_{shared}", "event", lost.since_utc_ns, {"who": who})
        yield Finding(Cause.UNPLUGGED, power, (told,), shared)
    together = mate.outage_with(start)
    finding = None if together is None else mate.told.get(together.start_utc_ns)
    if finding is not None and finding.confidence >= SURE and finding.cause in (Cause.UNPLUGGED, Cause.NETWORK):
        confidence = power if finding.cause is Cause.UNPLUGGED else network
        at = None if together is None else together.end_utc_ns
        told = Evidence(f"mate_{finding.cause}", "ledger", at, {"who": who, "shared": f"shared.{shared}"})
        yield Finding(finding.cause, confidence, (told,), shared)


def _house(post: Known, outage: Outage, around: Around, mates: Sequence[Neighbour]) -> Iterator[Finding]:
    """Several posts of a house at once, while its provider serves others: the house's mains, or its router."""
    house, provider = post.spot.house, post.spot.provider
    heard = around.heard(post, "provider", outage.start_utc_ns) if mates else []
    served = [one for one in heard if one.post.spot.house != house]
    if mates and served:
        values = {"house": house, "who": _names(mates), "provider": provider, "served": _names(served)}
        yield Finding(Cause.UNPLUGGED, 0.5, (Evidence("house_dark", "station", outage.start_utc_ns, values),), "house")


def _pole(post: Known, outage: Outage, mates: Sequence[Neighbour]) -> Iterator[Finding]:
    """Several houses of one pole at once: the line of the street. It carries power too, so this is a guess."""
    pole = post.spot.pole
    houses = {house_key(one.post.node, one.post.spot.house) for one in mates} - {post.spot.house}
    if houses:
        told = Evidence("pole_dark", "station", outage.start_utc_ns, {"pole": pole, "who": _names(mates)})
        yield Finding(Cause.NETWORK, 0.45, (told,), "pole")


def _mains(post: Known, start: int) -> Incident | None:
    """A loss of mains that a post told of around a moment."""
    near = MAINS_TOGETHER_S * NS
    return next((o for o in post.incidents if o.kind == "mains" and abs(o.since_utc_ns - start) <= near), None)


def _names(posts: Sequence[Neighbour]) -> str:
    return _some(sorted(one.post.node for one in posts), len(posts))


def _some(names: Sequence[str], count: int) -> str:
    """The first of so many."""
    return ", ".join(names[:NAMES_MAX]) + (" ..." if count > NAMES_MAX else "")


# -- what narrows it down, and what would tell more -------------------------------------------------------------------


def _mates(post: Known, outage: Outage, around: Around) -> Iterator[Evidence]:
    """Who goes on beside it. That clears house, pole or provider, and blames nobody."""
    for shared in SHARED:
        on = around.heard(post, shared, outage.start_utc_ns)
        if on:
            values = {shared: getattr(post.spot, shared), "who": _names(on)}
            yield Evidence(f"heard_{shared}", "station", on[0].post.seen_utc_ns, values)


def _hints(post: Known, outage: Outage) -> Iterator[Evidence]:
    """What may have to do with it."""
    beat = post.beat
    if beat is None or beat.received_utc_ns > outage.start_utc_ns + SETTLE_S * NS:
        return
    hot = beat.said.machine.temperature_c
    if hot is not None and hot >= 80.0:
        yield Evidence("hot", "heartbeat", beat.received_utc_ns, {"degrees": round(hot)})


def _more(post: Known, outage: Outage) -> tuple[str, ...]:
    found = []
    if outage.end_utc_ns is None:
        found.append("more.return")
    if not any(one.kind == "mains" for one in post.incidents):
        found.append("more.mains")
    if not post.spot.provider:
        found.append("more.provider")
    if not post.spot.house:
        found.append("more.house")
    elif post.spot.custodian and outage.end_utc_ns is None:
        found.append("more.call")
    return tuple(found)


# -- a post that is heard ---------------------------------------------------------------------------------------------


def _blind(post: Known) -> Iterator[Finding]:
    beat = post.beat
    said = None if beat is None else beat.said
    private = said is not None and said.recording is not None and said.recording.privacyleft_s > 0
    if beat is not None and said is not None and said.recording is not None and private:
        values = {"left_s": said.recording.privacyleft_s}
        yield Finding(Cause.PLANNED, 0.99, (Evidence("privacy", "heartbeat", beat.received_utc_ns, values),))
    for one in post.incidents:
        if one.ended_utc_ns is not None:
            continue
        told = Evidence("said", "event", one.since_utc_ns, {"said": one.summary})
        if one.kind == "camera" or (one.kind == "tamper" and one.reason):
            yield Finding(Cause.CAMERA, 0.95, (told,))
        elif one.kind == "storage" and one.severity == "alert":
            yield Finding(Cause.CARD, 0.95, (_storage(one),))
        elif one.kind == "mains":
            yield Finding(Cause.UNPLUGGED, 0.95, (Evidence("on_battery", "event", one.since_utc_ns),))
    if beat is not None:
        yield from _blind_beat(beat.said, beat.received_utc_ns, private=private)


def _blind_beat(said: wire.Heartbeat, at: int, *, private: bool) -> Iterator[Finding]:
    camera, recording, free = said.camera, said.recording, said.machine.diskfreebytes
    sees = camera is not None and camera.frameagems is not None and camera.frameagems < STALLED_S * 1000
    if camera is not None and not sees:
        if camera.frameagems is None:
            told = Evidence("no_frames", "heartbeat", at)
        else:
            told = Evidence("stalled", "heartbeat", at, {"age_s": camera.frameagems / 1000})
        yield Finding(Cause.CAMERA, 0.9, (told,))
    if sees and recording is not None and not recording.recording and not private:
        yield Finding(Cause.CARD, 0.7, (Evidence("not_recording", "heartbeat", at),))
    if free is not None and free < DISK_BYTES_MIN:
        yield Finding(Cause.CARD, 0.8, (Evidence("disk_full", "heartbeat", at, {"mb": round(free / 1e6)}),))
    try:
        off_s = abs(parse_rfc3339(said.clock.utc) - at) / NS
    except ValueError:
        return
    if off_s > CLOCK_OFF_S + (said.clock.errms or 0) / 1000:
        yield Finding(Cause.CLOCK, 0.9, (Evidence("clock_off", "heartbeat", at, {"off_s": off_s}),))
    elif said.clock.errms is None:
        yield Finding(Cause.CLOCK, 0.5, (Evidence("clock_unvouched", "heartbeat", at),))
