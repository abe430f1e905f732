"""`wardpost rollout`: asks the running station to bring a release to the fleet, and tells how far it has come.

The station alone writes to its database. So what is asked goes through its queue, and this command waits for an answer.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agent.clock import Clock, rfc3339, uuid7_maker
from agent.config import load
from agent.errors import ConfigError
from agent.login import login
from agent.remote import Announced
from agent.station import rings
from agent.station.main import StationSettings
from agent.station.order_desk import order_desk
from agent.station.reader import Reader
from agent.station.rollout import Has, Rollout, State
from agent.types import NS

ANSWER_S_MAX = 15.0
POLL_S = 0.2
FAILED_SHOWN_MAX = 20

Out = Callable[[str], None]


def start(
    settings: StationSettings, bundle: Announced, *, rings_file: Path, clock: Clock, as_json: bool, out: Out
) -> int:
    """Begins a rollout. Raises ConfigError with what is wrong, Transient."""
    reader = Reader(Path(settings.station.data), database=settings.station.database)
    reader.open()
    try:
        heard = [seen.node for seen in reader.nodes()]
    finally:
        reader.close()
    try:
        wanted, rules = rings.wanted(load(rings_file, rings.RingsFile), heard)
    except ConfigError as error:
        raise ConfigError(f"--rings: {error}") from None
    unknown = [node for ring in wanted for node in ring.nodes if node not in set(heard)]
    if unknown and not as_json:
        out(f"never heard here, told when they are: {', '.join(unknown[:10])}{' ...' if len(unknown) > 10 else ''}")
    asked = rings.Start(
        number=bundle.number,
        url=bundle.url,
        bytes=bundle.bytes,
        sha256=bundle.sha256,
        rings=wanted,
        rules=rules,
        by=login(),
    )
    return _ask(settings, "start", asked, clock=clock, as_json=as_json, out=out)


def act(settings: StationSettings, verb: str, *, clock: Clock, as_json: bool, out: Out) -> int:
    """pause, resume, stop. Raises ConfigError with why not, Transient."""
    return _ask(settings, verb, rings.Act(by=login()), clock=clock, as_json=as_json, out=out)


def _ask(settings: StationSettings, verb: str, body: msgspec.Struct, *, clock: Clock, as_json: bool, out: Out) -> int:
    number = {"number": body.number} if isinstance(body, rings.Start) else {}
    with order_desk(settings) as desk:
        book, request_id = desk.book, uuid7_maker(clock)()
        desk.ask(request_id, verb, msgspec.json.encode(body).decode(), **number)
        until_ns = clock.boot_ns() + round(ANSWER_S_MAX * NS)
        never = threading.Event()
        while (found := book.request(request_id)) is not None and found.answer is None:
            if clock.boot_ns() >= until_ns:
                text = f"{verb} is queued, but the station has not looked; is `wardpost station` running here?"
                out(json.dumps({"ok": None, "text": text}) if as_json else text)
                return 1
            clock.wait(never, POLL_S)
    answer: dict[str, Any] = json.loads(found.answer) if found is not None and found.answer else {}
    if not answer.get("ok"):
        raise ConfigError(f"rollout {verb}: {answer.get('text', 'the station has lost the question; ask again')}")
    out(json.dumps(answer) if as_json else str(answer["text"]))
    return 0


def status(settings: StationSettings, *, as_json: bool, out: Out) -> int:
    """How far the newest rollout has come. Beside a running station or without one. Raises ConfigError, Transient."""
    reader = Reader(Path(settings.station.data), database=settings.station.database)
    reader.open()
    try:
        found = reader.rollout()
        states = {seen.node: seen.state for seen in reader.nodes()}
    finally:
        reader.close()
    if found is None:
        out("null" if as_json else "there was no rollout")
        return 0
    began_ns, now, steps = found
    out(
        json.dumps(_as_dict(began_ns, now, steps, states), indent=2)
        if as_json
        else _words(began_ns, now, steps, states)
    )
    return 0


def _as_dict(began_ns: int, now: Rollout, steps: list[tuple[int, str]], states: dict[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(now)
    for post in told["posts"]:
        post["state"] = states.get(post["node"], "never heard")
    return told | {"began": rfc3339(began_ns), "steps": [{"time": rfc3339(t), "text": text} for t, text in steps]}


def _words(began_ns: int, now: Rollout, steps: list[tuple[int, str]], states: dict[str, str]) -> str:
    reason = f": {now.why}" if now.why else ""
    lines = [f"release {now.number}, begun {rfc3339(began_ns)}: {now.state.value}{reason}"]
    for index, ring in enumerate(now.rings):
        posts = [post for post in now.posts if post.ring == index]
        count = Counter(post.has for post in posts)
        open_still = [post for post in posts if post.has in (Has.WAITING, Has.TOLD)]
        dark = sum(states.get(post.node, "") not in ("online", "late") for post in open_still)
        parts = [f"{count[has]} {has.value}" for has in Has if count[has]] + ([f"{dark} dark"] if dark else [])
        mark = "later" if index > now.ring else "over" if index < now.ring or now.state is State.DONE else "now"
        soak = f"; soaked {now.soaked_s:.0f} of {ring.soak_s:.0f} s" if mark == "now" and now.soaked_s else ""
        lines.append(f"  {ring.name} ({mark}): {len(posts)} posts: {', '.join(parts)}{soak}")
    failed = [post for post in now.posts if post.has is Has.FAILED]
    lines += [f"  {post.node}: {post.why}{' (excused)' if post.excused else ''}" for post in failed[:FAILED_SHOWN_MAX]]
    lines += [f"  ... and {len(failed) - FAILED_SHOWN_MAX} more"] * (len(failed) > FAILED_SHOWN_MAX)
    return "\n".join([*lines, *(f"  {rfc3339(utc_ns)} {text}" for utc_ns, text in steps)])
