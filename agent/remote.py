"""`wardpost update`, `send`, `signal`, `doctor --node`: at the station, a signed command for nodes, and their answers.

The command is queued in the station's folder, like a hold; the running station sends it, now or when a dark node is
back. So this needs no connection of its own, and ending it takes nothing back.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import wire
from agent.clock import Clock, parse_rfc3339, rfc3339, uuid7_maker
from agent.doctor.rules import in_words
from agent.errors import ConfigError, Corrupt, WardpostError
from agent.evidence import keys
from agent.login import login
from agent.release.bundle import BUNDLE_BYTES_MAX, NUMBER_MAX, verify
from agent.station.last_heard import KINDS_OF_TROUBLE, LastHeard
from agent.station.main import StationSettings
from agent.station.order import check_node, plain_times
from agent.station.order_desk import order_desk
from agent.station.orders import Order, OrderBook
from agent.station.reader import Reader
from agent.types import NS

POLL_S = 0.5
NODES_MAX = 1000
NOW_LIFE_S = 60.0
SIGNAL_S_MAX = 3600.0
REASON_CHARS_MAX = 100
EVENTS_SHOWN_MAX = 5
HEARD = ("online", "late")

Out = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Announced:
    """A bundle, as the command `update` names it."""

    number: int
    url: str
    bytes: int
    sha256: str

    def args(self) -> dict[str, Any]:
        return {"number": self.number, "url": self.url, "bytes": self.bytes, "sha256": self.sha256}


def announced(
    settings: StationSettings,
    *,
    bundle: Path | None,
    url: str,
    number: int | None,
    size: int | None,
    sha256: str,
    key: str,
) -> Announced:
    """What is to be announced: from the bundle, verified where the site's release key is known, or in figures.

    Blocks for the reading of the bundle. Raises ConfigError, Corrupt.
    """
    if not url.startswith(("https://", "/")):
        raise ConfigError(f"--url {url!r}: where nodes get it: https://..., or a path on a stick below /media or /mnt")
    if bundle is None:
        if number is None or size is None or not sha256:
            raise ConfigError("update: give --bundle FILE, or --number, --bytes and --sha256 of the file at --url")
        found = Announced(number, url, size, sha256)
    else:
        given = (number, size, sha256)
        found = _of_bundle(settings, bundle, url=url, number=number, key=key)
        for name, said, true in zip(
            ("--number", "--bytes", "--sha256"), given, (found.number, found.bytes, found.sha256), strict=True
        ):
            if said not in (None, "", true):
                raise ConfigError(f"{name} {said}: {bundle} says {true}")
    if not 1 <= found.number <= NUMBER_MAX:
        raise ConfigError(f"--number {found.number}: 1 to {NUMBER_MAX}")
    if not 1 <= found.bytes <= BUNDLE_BYTES_MAX:
        raise ConfigError(f"--bytes {found.bytes}: 1 to {BUNDLE_BYTES_MAX}")
    if len(found.sha256) != 64 or set(found.sha256) - set("0123456789abcdef"):
        raise ConfigError("--sha256: 64 lower-case hexadecimal digits")
    return found


def _of_bundle(settings: StationSettings, bundle: Path, *, url: str, number: int | None, key: str) -> Announced:
    known = Path(settings.station.register) / "release/release.pub" if settings.station.register else None
    if not key and known is not None and known.is_file():
        key = str(known)
    if key:
        number = verify(bundle, public=keys.public_key("--key", key)).number
    elif number is None:
        raise ConfigError(f"{bundle}: give --key, the public release key, to read its number; or say it: --number N")
    try:
        with bundle.open("rb") as file:
            return Announced(number, url, bundle.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise ConfigError(f"{bundle}: cannot be read: {error.strerror}") from None


def update(
    settings: StationSettings,
    nodes: Sequence[str],
    bundle: Announced,
    *,
    wait_s: float,
    as_json: bool,
    clock: Clock,
    out: Out,
) -> int:
    """Queues `update` for each node and tells what they answer; see `_follow`. Raises ConfigError, Transient."""
    return _send(settings, "update", dict.fromkeys(nodes, bundle.args()), wait_s, as_json, clock, out)


def send(
    settings: StationSettings,
    nodes: Sequence[str],
    args: dict[str, Any],
    *,
    wait_s: float,
    as_json: bool,
    clock: Clock,
    out: Out,
) -> int:
    """Queues `send` for each node (`from`, `to`, `reason`) and tells what they answer; see `_follow`.

    Raises ConfigError, Transient.
    """
    if settings.uploads is None:
        raise ConfigError("send: this station takes no footage; give it [uploads] (deploy/station.example.toml)")
    if not str(args["reason"]).strip():
        raise ConfigError("send: give --reason; it goes on the post's ledger")
    asked = plain_times(args)
    if parse_rfc3339(asked["to"]) <= parse_rfc3339(asked["from"]):
        raise ConfigError("send: the range ends before it begins; give --from and then --to")
    return _send(settings, "send", dict.fromkeys(nodes, asked), wait_s, as_json, clock, out)


# -- for now, or not at all ------------------------------------------------------------------------------------------


def doctor(settings: StationSettings, node: str, *, wait_s: float, as_json: bool, clock: Clock, out: Out) -> int:
    """What the post says is wrong with it, as it would on the spot; of a dark one, what is known here.

    Returns 0 when nothing is wrong, else 1. Blocks for `wait_s` at most. Raises ConfigError, Transient.
    """
    reply = ask_now(settings, node, "doctor", {}, wait_s=wait_s, clock=clock)
    if reply is not None and reply.state == "done" and isinstance(reply.result.get("diagnoses"), list):
        out(json.dumps(reply.result, indent=2) if as_json else in_words(reply.result))
        return 0 if reply.result.get("well") else 1
    dark = last_heard(settings, node, clock=clock)
    no = "did not answer" if reply is None else f"{reply.state}: {reply.detail}"
    if as_json:
        out(json.dumps({"node": node, "well": None, "answer": no, **dark.as_dict()}, indent=2))
    else:
        out("\n".join([f"{node}: {no}", *dark.words()]))
    return 1


def signal(
    settings: StationSettings,
    node: str,
    output: str,
    seconds: float,
    *,
    reason: str,
    by: str,
    wait_s: float,
    as_json: bool,
    clock: Clock,
    out: Out,
) -> int:
    """Sounds the siren or lights the lamp of a post that is heard, for `seconds`; 0 ends it. Raises ConfigError.

    Returns 0 when the post says that it does. Blocks for `wait_s` at most.
    """
    if not 0 <= seconds <= SIGNAL_S_MAX:
        raise ConfigError(f"signal: {seconds:g} s; 0 to {SIGNAL_S_MAX:.0f}, and 0 ends it")
    if seconds and not reason.strip():
        raise ConfigError("signal: give --reason; it goes on the post's ledger with your name")
    if len(reason) > REASON_CHARS_MAX or len(by) > REASON_CHARS_MAX:
        raise ConfigError(f"signal: --reason and --by: {REASON_CHARS_MAX} characters at most")
    args = {"seconds": seconds, "reason": reason.strip(), "by": by.strip() or login()}
    reply = ask_now(settings, node, output, args, wait_s=wait_s, clock=clock)
    if reply is not None:
        said = f"{reply.state}: {reply.result.get('summary') or reply.detail}"
    else:
        said = "\n".join(["no answer, and it is not asked again", *last_heard(settings, node, clock=clock).words()])
    if as_json:
        answer = None if reply is None else {"state": reply.state, "detail": reply.detail, "result": reply.result}
        out(json.dumps({"node": node, "output": output, "args": args, "answer": answer}, indent=2))
    else:
        out(f"{node}: {said}")
    return 0 if reply is not None and reply.state == "done" else 1


def ask_now(
    settings: StationSettings, node: str, verb: str, args: dict[str, Any], *, wait_s: float, clock: Clock
) -> wire.Reply | None:
    """The answer to something that is for now: signed, valid for a minute, sent once, and only while the node is heard.

    None when there is none within `wait_s`, or the node is dark: it will not be done later either. Raises ConfigError.
    """
    check_node(settings, node)
    if states(settings).get(node, "") not in HEARD:
        return None
    command_id = uuid7_maker(clock)()
    with order_desk(settings) as desk:
        book = desk.book
        desk.queue(node, verb, args, command_id=command_id, clock=clock, days=NOW_LIFE_S / 86_400)
        until_ns = clock.boot_ns() + round(min(max(wait_s, 0.0), NOW_LIFE_S) * NS)
        never = threading.Event()
        while (one := book.find(command_id)) is not None and one.state == "waiting" and clock.boot_ns() < until_ns:
            clock.wait(never, POLL_S)
        if one is not None and one.state == "waiting":
            book.withdraw(command_id, "nobody waits for it any more")
        return (
            None
            if one is None or one.state == "waiting" or not one.answer
            else wire.decode(one.answer.encode(), wire.Reply)
        )


def last_heard(settings: StationSettings, node: str, *, clock: Clock) -> LastHeard:
    """What this station knows of a node that does not answer. Raises Transient, ConfigError."""
    reader = Reader(Path(settings.station.data), database=settings.station.database)
    reader.open()
    try:
        seen = next((one for one in reader.nodes() if one.node == node), None)
        beat = reader.heartbeats().get(node)
        told = reader.last_events(node, KINDS_OF_TROUBLE, EVENTS_SHOWN_MAX)
    finally:
        reader.close()
    return LastHeard.of(node, seen, beat, told, utc_ns=clock.utc().utc_ns)


# -- sending, and what comes back -------------------------------------------------------------------------------------


def _send(
    settings: StationSettings,
    verb: str,
    asked: dict[str, dict[str, Any]],
    wait_s: float,
    as_json: bool,
    clock: Clock,
    out: Out,
) -> int:
    if not 0 < len(asked) <= NODES_MAX:
        raise ConfigError(f"{verb}: {len(asked)} nodes; 1 to {NODES_MAX}")
    for node in asked:
        check_node(settings, node)
    new_id = uuid7_maker(clock)
    with order_desk(settings) as desk:
        book = desk.book
        ids = {node: new_id() for node in asked}
        for node, args in asked.items():
            desk.queue(node, verb, args, command_id=ids[node], clock=clock)
        say = (lambda _line: None) if as_json else out
        _follow(book, settings, ids, wait_s=wait_s, clock=clock, out=say)
        ended = {node: book.find(command_id) for node, command_id in ids.items()}
    if as_json:
        rows = [_row(node, one, asked[node]) for node, one in ended.items() if one is not None]
        out(json.dumps(rows, indent=2))
    return 1 if any(one is not None and one.state in ("failed", "refused", "expired") for one in ended.values()) else 0


def _follow(
    book: OrderBook, settings: StationSettings, ids: dict[str, str], *, wait_s: float, clock: Clock, out: Out
) -> None:
    """Says each new answer of a node, until all are over, dark, or `wait_s` has passed. Blocks."""
    told: dict[str, str] = {}
    until_ns = clock.boot_ns() + round(wait_s * NS)
    never = threading.Event()
    while True:
        open_still: list[Order] = []
        for node, command_id in ids.items():
            one = book.find(command_id)
            if one is None:
                continue
            words = answer_words(one)
            if words and told.get(node) != words:
                told[node] = words
                out(f"{node}: {words}")
            if one.state == "waiting":
                open_still.append(one)
        known = states(settings) if open_still else {}
        if not any(known.get(one.node, "") in HEARD for one in open_still) or clock.boot_ns() >= until_ns:
            break
        clock.wait(never, POLL_S)
    for one in open_still:
        out(f"{one.node}: {_queued_words(one, known.get(one.node, ''))}")


def answer_words(one: Order) -> str:
    """What a node has answered; empty while it has not."""
    if not one.answer:
        return "" if one.state == "waiting" else one.state
    try:
        reply = wire.decode(one.answer.encode(), wire.Reply)
    except Corrupt:
        return one.state
    said = str(reply.result.get("summary") or reply.detail)
    state = "accepted" if one.state == "waiting" else one.state
    return f"{state}: {said}" if said else state


def _queued_words(one: Order, state: str) -> str:
    until = f"valid until {rfc3339(one.expires_utc_ns)}"
    if state in HEARD:
        if one.answer:
            return f"goes on; {until}. `wardpost hold --node {one.node} --list` tells what has become of it"
        return f"no answer yet, sent {one.sent} times; is `wardpost station` running? It stays queued, {until}"
    how = f"it is {state}" if state else "it was never heard here"
    return f"queued, for {how}; it is sent when the node is heard, {until}"


def _row(node: str, one: Order, args: dict[str, Any]) -> dict[str, Any]:
    answer = json.loads(one.answer) if one.answer else None
    expires = rfc3339(one.expires_utc_ns)
    return {
        "id": one.id,
        "node": node,
        "verb": one.verb,
        "args": args,
        "state": one.state,
        "sent": one.sent,
        "expires": expires,
        "answer": answer,
    }


def states(settings: StationSettings) -> dict[str, str]:
    """Of each node that was ever heard; empty while the station's file cannot be read."""
    reader = Reader(Path(settings.station.data), database=settings.station.database)
    try:
        reader.open()
        return {seen.node: seen.state for seen in reader.nodes()}
    except WardpostError:
        return {}
    finally:
        reader.close()
