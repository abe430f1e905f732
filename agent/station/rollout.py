"""A release over a fleet, ring by ring: who is told next, when the next ring begins, when it all stops. Pure.

    waiting --tell--> told --reports the number--> confirmed        (a post; `failed` from any of them, with the reason)

Time is counted, never read: each step is given the seconds since the last one, by the station's boot time and while
it stood at a broker. So a wall clock that jumps, a station that was off, and a broker that was away change nothing but
that it takes longer. Rules:

- Only posts that are heard are told; `parallel_nodes_max` at a time are under way. A dark post is told when it is back,
  also when its ring is over.
- A post has failed when it gave the release up, refused it TRIES_MAX times, was not there with it after
  `install_s_max` seconds in which it was heard, or fell silent for `silent_s_max` with the release on its card. Also,
  once it has confirmed and until its ring has soaked: without frames or footage, which it had when it was told, for
  `sick_s_max` or FLAPS_MAX times; silent for `silent_s_max`; started anew RESTARTS_MAX times.
- More failures than `failed_percent_max` of those posts of a ring whose result is known stop the rollout. These are
  counted as JUDGED_NODES_MIN at least (or the whole ring): one failure in a ring of four stops it, one of the first in
  a ring of a hundred does not.
- A ring is over when each of its posts has a result, or when nothing has happened in it for `straggler_s_max`. With
  less than `confirmed_percent_min` confirmed by then, nothing is known of the release, and it stops. Then it soaks:
  `soak_s` in which no confirmed post of it is sick or silent; a post that fails meanwhile counts.
- After the last ring's soak it is done when all have a result. Dark posts are waited for (`leftover_s_max`).
- Stopped or paused, nobody is told. Resumed, failures until then are excused: a person has looked at them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

NODES_MAX = 10_000
RINGS_MAX = 20
TRIES_MAX = 3
RETRY_S = 600.0
"""Between two tries at a post that refused: it may be busy with another release."""
FLAPS_MAX = 4
RESTARTS_MAX = 4
JUDGED_NODES_MIN = 10
ELAPSED_S_MAX = 10.0
"""More than this is never counted for one step: the station was away, not watching."""
WHY_CHARS_MAX = 300

Seconds = Annotated[float, Meta(ge=0, le=90 * 86_400)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class State(StrEnum):
    """Of a rollout."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"  # by a rule or a person; may be resumed
    DONE = "done"


class Has(StrEnum):
    """What a post has come to."""

    WAITING = "waiting"
    TOLD = "told"
    CONFIRMED = "confirmed"
    FAILED = "failed"


class Rules(Struct, frozen=True, kw_only=True):
    """When to go on and when to stop. Seconds are those that the station watched."""

    failed_percent_max: Percent = 10.0
    confirmed_percent_min: Percent = 50.0
    parallel_nodes_max: Annotated[int, Meta(ge=1, le=1000)] = 20
    install_s_max: Seconds = 2 * 86_400.0
    straggler_s_max: Seconds = 86_400.0
    sick_s_max: Seconds = 900.0
    silent_s_max: Seconds = 3600.0
    leftover_s_max: Seconds = 30 * 86_400.0


class Ring(Struct, frozen=True, kw_only=True):
    """Posts that are told together."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    soak_s: Seconds


class Post(Struct, frozen=True, kw_only=True):
    """One post in a rollout."""

    node: str
    ring: int
    has: Has = Has.WAITING
    why: str = ""
    excused: bool = False  # failed, and a person has gone on since
    lapsed: bool = False  # failed after it had confirmed
    order: str = ""  # id of the command it was told by
    tries: int = 0
    pause_s: float = 0.0  # before the next try
    fit: bool = True  # had frames and footage when it was told
    told_s: float = 0.0  # heard, and not yet there with it
    silent_s: float = 0.0
    sick_s: float = 0.0
    sick: bool = False
    flaps: int = 0
    session: int = 0  # of the agent when it was first seen confirmed


class Rollout(Struct, frozen=True, kw_only=True):
    """A rollout and how far it has come."""

    id: str
    number: int
    url: str
    bytes: int
    sha256: str
    rings: tuple[Ring, ...]
    rules: Rules
    state: State = State.RUNNING
    why: str = ""
    ring: int = 0  # which one is being told
    idle_s: float = 0.0  # since something happened in it
    soaked_s: float = 0.0
    over_s: float = 0.0  # since the last ring has soaked
    posts: tuple[Post, ...] = ()


class Seen(Struct, frozen=True, kw_only=True):
    """What the station knows of a post now: its newest heartbeat, and the answer to its order."""

    heard: bool  # online, or a heartbeat or two late
    fit: bool = True  # frames come and are recorded
    session: int = 0
    number: int | None = None  # of the confirmed release; None: it does not say
    tried: int = 0
    phase: str = ""
    doubt: bool = False
    why: str = ""
    order: str = ""  # state of its order: waiting, done, failed, refused, expired; empty: there is none
    answer: str = ""


class Step(Struct, frozen=True, kw_only=True):
    """What follows. `tell`: posts that are to get a command now; `log`: sentences for the record."""

    rollout: Rollout
    tell: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


UNKNOWN = Seen(heard=False)


def step(rollout: Rollout, seen: Mapping[str, Seen], *, elapsed_s: float) -> Step:
    """One look. Call it only while the station stands at a broker: without one, silence tells nothing of a post."""
    if rollout.state is State.DONE:
        return Step(rollout=rollout)
    elapsed_s = min(max(elapsed_s, 0.0), ELAPSED_S_MAX)
    log: list[str] = []
    posts = []
    idle_s = rollout.idle_s + elapsed_s
    for post in rollout.posts:
        now = _looked_at(rollout, post, seen.get(post.node, UNKNOWN), elapsed_s)
        if now.has is not post.has and now.has in (Has.CONFIRMED, Has.FAILED):
            log.append(f"{post.node}: {now.has.value}" + (f": {now.why}" if now.why else ""))
            idle_s = 0.0 if post.ring == rollout.ring else idle_s
        posts.append(now)
    rollout = replace(rollout, posts=tuple(posts), idle_s=idle_s)
    if rollout.state is not State.RUNNING:
        return Step(rollout=rollout, log=tuple(log))
    reason = _too_many(rollout)
    if reason:
        return _stopped(rollout, log, reason)
    return _advanced(rollout, seen, elapsed_s, log)


# -- a post -----------------------------------------------------------------------------------------------------------


def _looked_at(rollout: Rollout, post: Post, seen: Seen, elapsed_s: float) -> Post:
    """The post with what this look has shown."""
    post = replace(post, silent_s=0.0 if seen.heard else post.silent_s + elapsed_s)
    if post.has is Has.CONFIRMED:
        return _watched(rollout, post, seen, elapsed_s)
    if not post.lapsed and seen.heard and seen.number is not None and seen.number >= rollout.number:
        why = "" if seen.number == rollout.number else f"has release {seen.number} already"
        fit = post.fit if post.has is not Has.WAITING else seen.fit
        return replace(post, has=Has.CONFIRMED, why=why, fit=fit, excused=False, session=seen.session)
    if post.has is Has.FAILED:
        return post
    if seen.tried == rollout.number and (seen.phase == "failed" or (seen.phase == "rolled-back" and not seen.doubt)):
        return _failed(post, f"rolled back: {seen.why}" if seen.why else "rolled back")
    if post.has is Has.WAITING:
        return replace(post, pause_s=max(post.pause_s - elapsed_s, 0.0))
    return _under_way(rollout, post, seen, elapsed_s)


def _under_way(rollout: Rollout, post: Post, seen: Seen, elapsed_s: float) -> Post:
    """A post that was told and is not there yet."""
    rules = rollout.rules
    if seen.order in ("failed", "refused"):
        if post.tries >= TRIES_MAX:
            return _failed(post, seen.answer or seen.order)
        return replace(post, has=Has.WAITING, order="", why=seen.answer[:WHY_CHARS_MAX], pause_s=RETRY_S)
    if seen.order == "expired":
        return replace(post, has=Has.WAITING, order="", tries=max(post.tries - 1, 0))
    if seen.heard:
        told_s = post.told_s + elapsed_s
        late = told_s >= rules.install_s_max
        return _failed(post, f"not there within {told_s:.0f} s") if late else replace(post, told_s=told_s)
    if seen.order == "done" and post.silent_s >= rules.silent_s_max:
        return _failed(post, f"silent for {post.silent_s:.0f} s with the release on its card")
    return post


def _watched(rollout: Rollout, post: Post, seen: Seen, elapsed_s: float) -> Post:
    """A post that has the release: whether it stays well, until the rollout is over."""
    if seen.heard and seen.number is not None and seen.number < rollout.number:
        return _failed(post, f"went back to release {seen.number}", lapsed=True)
    if post.ring != rollout.ring or rollout.soaked_s >= rollout.rings[post.ring].soak_s:
        return replace(post, sick=False)
    unfit = seen.heard and post.fit and not seen.fit
    flaps = post.flaps + (unfit and not post.sick_s)
    sick_s = post.sick_s + elapsed_s if unfit else 0.0
    post = replace(post, sick=unfit or not seen.heard, sick_s=sick_s, flaps=flaps)
    anew = seen.session - post.session if seen.heard and post.session else 0
    reasons = {
        f"silent for {post.silent_s:.0f} s after it was confirmed": post.silent_s >= rollout.rules.silent_s_max,
        f"no frames or no footage for {sick_s:.0f} s, which it had before": sick_s >= rollout.rules.sick_s_max,
        f"no frames or no footage {flaps} times, which it had before": flaps >= FLAPS_MAX,
        f"started anew {anew} times since it was confirmed": anew >= RESTARTS_MAX,
    }
    why = next((reason for reason, holds in reasons.items() if holds), "")
    return _failed(post, why, lapsed=True) if why else post


def _failed(post: Post, why: str, *, lapsed: bool = False) -> Post:
    return replace(post, has=Has.FAILED, why=why[:WHY_CHARS_MAX], excused=False, lapsed=lapsed, sick=False)


# -- the ring ---------------------------------------------------------------------------------------------------------


def _too_many(rollout: Rollout) -> str:
    """Why the rollout stops; empty when it goes on."""
    for index, ring in enumerate(rollout.rings[: rollout.ring + 1]):
        posts = [post for post in rollout.posts if post.ring == index and not post.excused]
        failed = [post for post in posts if post.has is Has.FAILED]
        known = len(failed) + sum(post.has is Has.CONFIRMED for post in posts)
        judged = max(known, min(len(posts), JUDGED_NODES_MIN))
        if failed and 100.0 * len(failed) > rollout.rules.failed_percent_max * judged:
            return (
                f"ring {ring.name}: {len(failed)} of {len(posts)} failed, {known} have a result;"
                f" the first: {failed[0].node}: {failed[0].why}"
            )
    return ""


def _advanced(rollout: Rollout, seen: Mapping[str, Seen], elapsed_s: float, log: list[str]) -> Step:
    mine = [post for post in rollout.posts if post.ring == rollout.ring]
    open_still = [post for post in mine if post.has in (Has.WAITING, Has.TOLD)]
    if open_still and not rollout.soaked_s and rollout.idle_s < rollout.rules.straggler_s_max:
        return _tell(rollout, seen, log)
    ring = rollout.rings[rollout.ring]
    confirmed = sum(post.has is Has.CONFIRMED for post in mine)
    needed = rollout.rules.confirmed_percent_min * sum(not post.excused for post in mine)
    if not confirmed or 100.0 * confirmed < needed:
        reason = f"ring {ring.name}: only {confirmed} of {len(mine)} confirmed, nothing new for {rollout.idle_s:.0f} s"
        return _stopped(rollout, log, reason)
    if rollout.soaked_s < ring.soak_s:
        calm = not any(post.sick for post in mine if post.has is Has.CONFIRMED)
        rollout = replace(rollout, soaked_s=rollout.soaked_s + (elapsed_s if calm else 0.0))
    if rollout.soaked_s < ring.soak_s:
        return _tell(rollout, seen, log)
    if rollout.ring + 1 < len(rollout.rings):
        following = rollout.rings[rollout.ring + 1]
        left = f", {len(open_still)} left behind" if open_still else ""
        log.append(
            f"ring {ring.name} is good: {confirmed} of {len(mine)} confirmed{left}; ring {following.name} begins"
        )
        return _tell(replace(rollout, ring=rollout.ring + 1, idle_s=0.0, soaked_s=0.0), seen, log)
    rollout = replace(rollout, over_s=rollout.over_s + elapsed_s)
    left_over = [post for post in rollout.posts if post.has in (Has.WAITING, Has.TOLD)]
    if left_over and rollout.over_s < rollout.rules.leftover_s_max:
        return _tell(rollout, seen, log)
    good = sum(post.has is Has.CONFIRMED for post in rollout.posts)
    why = f"{good} of {len(rollout.posts)} posts confirmed" + (f", {len(left_over)} never heard" if left_over else "")
    log.append(f"done: {why}")
    return Step(rollout=replace(rollout, state=State.DONE, why=why), log=tuple(log))


def _tell(rollout: Rollout, seen: Mapping[str, Seen], log: list[str]) -> Step:
    """Tells as many posts as may be under way, of the rings so far: those left behind in an earlier one first."""
    under_way = sum(
        post.has is Has.TOLD and seen.get(post.node, UNKNOWN).heard for post in rollout.posts if not post.excused
    )
    room = rollout.rules.parallel_nodes_max - under_way
    ready = [
        post.node
        for post in sorted(rollout.posts, key=lambda one: one.ring)
        if post.has is Has.WAITING
        and post.ring <= rollout.ring
        and not post.pause_s
        and seen.get(post.node, UNKNOWN).heard
    ]
    chosen = frozenset(ready[: max(room, 0)])
    if not chosen:
        return Step(rollout=rollout, log=tuple(log))
    posts = tuple(
        replace(post, has=Has.TOLD, tries=post.tries + 1, fit=seen[post.node].fit, told_s=0.0, order="", why="")
        if post.node in chosen
        else post
        for post in rollout.posts
    )
    log += [f"{node}: is told" for node in ready if node in chosen]
    if any(post.node in chosen and post.ring == rollout.ring and not post.tries for post in rollout.posts):
        rollout = replace(rollout, idle_s=0.0)
    tell = tuple(node for node in ready if node in chosen)
    return Step(rollout=replace(rollout, posts=posts), tell=tell, log=tuple(log))


def _stopped(rollout: Rollout, log: Iterable[str], reason: str) -> Step:
    stopped = replace(rollout, state=State.STOPPED, why=reason[:WHY_CHARS_MAX])
    return Step(rollout=stopped, log=(*log, f"stopped: {reason}"[:WHY_CHARS_MAX]))


# -- what people ask --------------------------------------------------------------------------------------------------


def paused(rollout: Rollout, why: str) -> Rollout:
    """Nobody is told until it is resumed."""
    return replace(rollout, state=State.PAUSED, why=why[:WHY_CHARS_MAX])


def stopped(rollout: Rollout, why: str) -> Rollout:
    """The same, and another rollout may begin."""
    return replace(rollout, state=State.STOPPED, why=why[:WHY_CHARS_MAX])


def resumed(rollout: Rollout) -> Rollout:
    """It goes on; failures until now are excused, and the ring gets its time anew."""
    posts = tuple(replace(post, excused=True) if post.has is Has.FAILED else post for post in rollout.posts)
    return replace(rollout, state=State.RUNNING, why="", idle_s=0.0, posts=posts)


def taken_back(rollout: Rollout, nodes: Iterable[str]) -> Rollout:
    """Posts whose command could be withdrawn before they had it."""
    gone = frozenset(nodes)
    posts = tuple(
        replace(post, has=Has.WAITING, order="", tries=max(post.tries - 1, 0))
        if post.node in gone and post.has is Has.TOLD
        else post
        for post in rollout.posts
    )
    return replace(rollout, posts=posts)


def with_orders(rollout: Rollout, orders: Mapping[str, str]) -> Rollout:
    """The ids of the commands by which posts are told."""
    posts = tuple(replace(post, order=orders[post.node]) if post.node in orders else post for post in rollout.posts)
    return replace(rollout, posts=posts)
