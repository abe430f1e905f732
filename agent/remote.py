"""`wardpost update` and `wardpost configure`: at the station, a signed command for nodes, and what they answer.

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
from typing import Any, TypeVar

from agent import wire
from agent.clock import Clock, rfc3339, uuid7_maker
from agent.errors import ConfigError, Corrupt, WardpostError
from agent.evidence import keys
from agent.overrides import with_values
from agent.release.bundle import BUNDLE_BYTES_MAX, NUMBER_MAX, verify
from agent.release.settings import TEXT_BYTES_MAX
from agent.release.settings_desk import parse
from agent.station.main import StationSettings
from agent.station.order import check_node, queue
from agent.station.orders import Order, OrderBook
from agent.station.store import Reader
from agent.types import NS
from agent.vision.faults import refuse

POLL_S = 0.5
NODES_MAX = 1000
CONFIG_ORDERS_MAX = 1000
"""So many of a node's orders are searched for the settings it reports."""

Out = Callable[[str], None]
T = TypeVar("T")


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


def configure(
    settings: StationSettings,
    node: str,
    *,
    file: Path | None,
    values: Sequence[str],
    revision: int | None,
    wait_s: float,
    as_json: bool,
    clock: Clock,
    out: Out,
) -> int:
    """Queues `config` for one node and tells what it answers. Raises ConfigError, Transient.

    Without `file`, `values` are set in the settings that the node reports, as far as this station knows their text.
    """
    check_node(settings, node)
    if file is None and not values:
        raise ConfigError("configure: give --file node.toml, or --set TABLE.KEY=VALUE, or both")
    book = OrderBook(Path(settings.station.data))
    book.open()
    try:
        sent = [_config_args(one) for one in book.of(node, CONFIG_ORDERS_MAX) if one.verb == "config"]
    finally:
        book.close()
    reported = _reported(settings, node)
    text = _text_of(file) if file is not None else _base(settings, node, reported, sent)
    text = with_values(text, values)
    _refuse(text, settings.station.site, node)
    if revision is None:
        known = [args["revision"] for args in sent if isinstance(args.get("revision"), int)]
        revision = max([*known, reported.seen, reported.revision] if reported is not None else [*known, 0]) + 1
    args = {"revision": revision, "toml": text}
    return _send(settings, "config", {node: args}, wait_s, as_json, clock, out)


def _refuse(text: str, site: str, node: str) -> None:
    """What the node would refuse is not sent to it. Raises ConfigError."""
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise ConfigError(f"configure: {len(text.encode())} bytes; {TEXT_BYTES_MAX >> 10} KiB at most")
    found = parse(text)
    refuse(found)
    if (found.node.site, found.node.id) != (site, node):
        raise ConfigError(f"configure: these are settings of {found.node.site}/{found.node.id}, not of {site}/{node}")


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--file {file}: cannot be read: {error}") from None


def _config_args(one: Order) -> dict[str, Any]:
    try:
        return wire.decode(one.payload, wire.Command).args
    except Corrupt:
        return {}


def _reported(settings: StationSettings, node: str) -> wire.SettingsState | None:
    """What the node last said of its settings; None when this station has never heard that."""
    body = _heartbeats(settings).get(node)
    try:
        return None if body is None else wire.decode(body, wire.Heartbeat).settings
    except Corrupt:
        return None


def _base(
    settings: StationSettings, node: str, reported: wire.SettingsState | None, sent: Sequence[dict[str, Any]]
) -> str:
    """The text that is in force on the node. Raises ConfigError when it is not known here."""
    if reported is None:
        raise ConfigError(f"configure: {node} has never told which settings it has; give the whole file: --file")
    if reported.revision:
        found = next((args["toml"] for args in sent if args.get("revision") == reported.revision), None)
        if not isinstance(found, str):
            raise ConfigError(f"configure: {node} has revision {reported.revision}, not sent from here; give --file")
        return found
    kit = Path(settings.station.register) / "nodes" / node / "node.toml" if settings.station.register else None
    if kit is None or not kit.is_file():
        raise ConfigError(f"configure: {node} has the file of its card, which is not known here; give --file")
    return _text_of(kit)


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
    book = OrderBook(Path(settings.station.data))
    book.open()
    try:
        ids = {node: new_id() for node in asked}
        for node, args in asked.items():
            queue(book, settings, node, verb, args, command_id=ids[node], clock=clock)
        say = (lambda _line: None) if as_json else out
        if verb == "config":
            for node, args in asked.items():
                say(f"{node}: revision {args['revision']} of its settings is queued")
        _follow(book, settings, ids, wait_s=wait_s, clock=clock, out=say)
        ended = {node: book.find(command_id) for node, command_id in ids.items()}
    finally:
        book.close()
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
        states = _states(settings) if open_still else {}
        if not any(states.get(one.node, "") in ("online", "late") for one in open_still) or clock.boot_ns() >= until_ns:
            break
        clock.wait(never, POLL_S)
    for one in open_still:
        out(f"{one.node}: {_queued_words(one, states.get(one.node, ''))}")


def answer_words(one: Order) -> str:
    """What a node has answered; empty while it has not."""
    if not one.answer:
        return "" if one.state == "waiting" else one.state
    try:
        reply = wire.decode(one.answer.encode(), wire.Reply)
    except Corrupt:
        return one.state
    said = str(reply.result.get("summary") or reply.detail)
    if one.verb == "config" and one.state == "done":
        said = said or "taken on; it is tried now, and kept when the node gives frames and reaches its station with it"
    state = "accepted" if one.state == "waiting" else one.state
    return f"{state}: {said}" if said else state


def _queued_words(one: Order, state: str) -> str:
    until = f"valid until {rfc3339(one.expires_utc_ns)}"
    if state in ("online", "late"):
        if one.answer:
            return f"goes on; {until}. `wardpost hold --node {one.node} --list` tells what has become of it"
        return f"no answer yet, sent {one.sent} times; is `wardpost station` running? It stays queued, {until}"
    how = f"it is {state}" if state else "it was never heard here"
    return f"queued, for {how}; it is sent when the node is heard, {until}"


def _row(node: str, one: Order, args: dict[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in args.items() if name != "toml"}
    answer = json.loads(one.answer) if one.answer else None
    expires = rfc3339(one.expires_utc_ns)
    return {
        "id": one.id,
        "node": node,
        "verb": one.verb,
        "args": shown,
        "state": one.state,
        "sent": one.sent,
        "expires": expires,
        "answer": answer,
    }


def _states(settings: StationSettings) -> dict[str, str]:
    return _read(settings, lambda reader: {seen.node: seen.state for seen in reader.nodes()})


def _heartbeats(settings: StationSettings) -> dict[str, bytes]:
    return _read(settings, Reader.heartbeats)


def _read(settings: StationSettings, ask: Callable[[Reader], dict[str, T]]) -> dict[str, T]:
    """What the station's file says of its nodes; nothing while it cannot be read."""
    reader = Reader(Path(settings.station.data))
    try:
        reader.open()
        return ask(reader)
    except WardpostError:
        return {}
    finally:
        reader.close()
