"""`wardpost configure`: at the station, which settings nodes are to have, and which they say they have.

What is desired is signed and written into the station's folder; the running station publishes it, retained. So this
needs no connection of its own, and a node that is dark for a week finds it on its return.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent import wire
from agent.clock import Clock, rfc3339
from agent.errors import ConfigError
from agent.login import login
from agent.overrides import with_values
from agent.release.settings import TEXT_BYTES_MAX
from agent.release.settings_desk import parse
from agent.remote import HEARD, POLL_S, states
from agent.station.book import station_engine
from agent.station.main import StationSettings
from agent.station.order import check_node
from agent.station.order_desk import account
from agent.station.people.command import books
from agent.station.settings_book import SettingsBook, Wanted, answered, as_row, in_force, words
from agent.station.signing import command_key, signed_settings
from agent.types import NS
from agent.vision.faults import refuse

Out = Callable[[str], None]


def show(settings: StationSettings, node: str | None, *, as_json: bool, out: Out) -> int:
    """Desired beside reported, of one node or of all, those who are behind first. Raises ConfigError, Transient."""
    if node is not None:
        check_node(settings, node)
    with _opened(settings) as book:
        wanted = {one.node: one for one in book.wanted()}
        told = {name: state for name, (state, _) in book.reported().items()}
    known = states(settings)
    names = [node] if node is not None else sorted({*wanted, *told, *known})
    rows = [as_row(name, wanted.get(name), told.get(name), known.get(name, "never heard")) for name in names]
    rows.sort(key=lambda row: not row["behind"])
    if as_json:
        out(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        dark = "" if row["state"] in HEARD else f" ({row['state']})"
        out(f"{row['node']}{dark}: {row['words']}")
    behind = sum(bool(row["behind"]) for row in rows)
    if node is None:
        out(f"{len(rows)} node{'' if len(rows) == 1 else 's'}, {behind} behind")
    return 0


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
    """Writes down what a node is to have, and tells what becomes of it. Raises ConfigError, Transient.

    Without `file`, `values` are set in the settings that the node reports, as far as this station knows their text.
    Blocks for `wait_s` at most, and not at all for a dark node. Returns 1 when they are refused or rolled back.
    """
    check_node(settings, node)
    with books(settings.station) as found, SettingsBook(found.engine) as book:
        told = _told(book, node)
        text = _text_of(file) if file is not None else _base(settings, book, node, told)
        text = with_values(text, values)
        _refuse(text, settings.station.site, node)
        before = next((one for one in book.wanted() if one.node == node), None)
        if revision is None:
            seen = 0 if told is None else max(told.seen, told.revision, told.trial)
            revision = max(0 if before is None else before.revision, seen) + 1
        asked_ns = clock.utc().utc_ns
        desired = signed_settings(
            command_key(settings.station.command_key),
            site=settings.station.site,
            node=node,
            revision=revision,
            toml=text,
            time=rfc3339(asked_ns),
            by=login(),
        )
        try:
            wire.encode(desired)
        except ValueError:
            raise ConfigError(f"configure: more than {wire.PAYLOAD_BYTES_MAX >> 10} KiB in a message") from None
        with found.trail.writing("write what is desired") as entry:
            SettingsBook.within(entry.db).desire(node, desired, asked_utc_ns=asked_ns)
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            entry.note("settings-desired", account(), post=node, revision=revision, sha256=sha256)
        say: Out = (lambda _line: None) if as_json else out
        say(f"{node}: revision {revision} of its settings is desired")
        wanted, told = _follow(settings, book, node, revision, wait_s=wait_s, clock=clock, out=say)
    if as_json:
        out(json.dumps(as_row(node, wanted, told, states(settings).get(node, "never heard")), indent=2))
    done = told is not None and told.asked == revision and told.state in ("refused", "rolled-back")
    return 1 if done else 0


def _follow(
    settings: StationSettings, book: SettingsBook, node: str, revision: int, *, wait_s: float, clock: Clock, out: Out
) -> tuple[Wanted | None, wire.SettingsState | None]:
    """Says what the node reports until it is settled, or dark, or `wait_s` has passed."""
    never = threading.Event()
    until_ns = clock.boot_ns() + round(wait_s * NS)
    said = ""
    while True:
        wanted = next((one for one in book.wanted() if one.node == node), None)
        told = _told(book, node)
        if wanted is None or wanted.revision != revision:  # somebody else has desired another one since
            return wanted, told
        judged = answered(wanted, told)
        if judged and words(wanted, told) != said:
            said = words(wanted, told)
            out(f"{node}: {said}")
        settled = in_force(wanted, told) or (judged and told is not None and told.trial != revision)
        if settled:
            return wanted, told
        state = states(settings).get(node, "")
        restarts = judged and told is not None and told.trial == revision  # to try them it leaves and comes back
        if state not in HEARD and not restarts:
            how = f"it is {state}" if state else "it was never heard here"
            waits = "stands at the broker" if wanted.published else "is published by the running station"
            out(f"{node}: {how}; revision {revision} {waits} and is taken when the node is back")
            return wanted, told
        if clock.boot_ns() >= until_ns:
            how = "goes on" if judged else "no answer yet; is `wardpost station` running?"
            out(f"{node}: {how}; `wardpost configure {node}` tells what has become of it")
            return wanted, told
        clock.wait(never, POLL_S)


@contextmanager
def _opened(settings: StationSettings) -> Iterator[SettingsBook]:
    with station_engine(Path(settings.station.data), settings.station.database) as engine, SettingsBook(engine) as book:
        yield book


def _told(book: SettingsBook, node: str) -> wire.SettingsState | None:
    found = book.reported().get(node)
    return None if found is None else found[0]


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


def _base(settings: StationSettings, book: SettingsBook, node: str, told: wire.SettingsState | None) -> str:
    """The text that is in force on the node. Raises ConfigError when it is not known here."""
    if told is None:
        raise ConfigError(f"configure: {node} has never told which settings it has; give the whole file: --file")
    if told.revision:
        found = book.text(node, told.revision)
        if found is None:
            raise ConfigError(f"configure: {node} has revision {told.revision}, not sent from here; give --file")
        return found
    kit = Path(settings.station.register) / "nodes" / node / "node.toml" if settings.station.register else None
    if kit is None or not kit.is_file():
        raise ConfigError(f"configure: {node} has the file of its card, which is not known here; give --file")
    return _text_of(kit)
