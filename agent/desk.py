"""`wardpost footage`, `coverage`, `hold`: what a person at the post asks, wired to the disk and the node's memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.boot import STORE_NAME, require_store
from agent.clock import Clock, SystemClock, parse_asked, rfc3339, uuid7_maker
from agent.config import Config
from agent.disk import PosixDisk
from agent.errors import ConfigError
from agent.evidence import records
from agent.evidence.seal import private_key
from agent.folder import DataLock, InUse
from agent.local import Snapshot, catalog_of, journal_extraction, order
from agent.login import login
from agent.recording.account import Account, account, as_dict, hold_dict, stretch_dict, table
from agent.recording.coverage import Now
from agent.recording.footage import Extraction, NoFootage, extract, unsealed
from agent.recording.holds import HoldDesk
from agent.recording.timeline_svg import draw
from agent.store.store import Origin, Store
from agent.types import NS


def footage(
    config: Config,
    *,
    start: str,
    end: str,
    output: Path,
    as_json: bool,
    out: Callable[[str], None],
    key: Path | None = None,
) -> int:
    """Extracts the range and prints its coverage; returns the exit code. Blocks for the reading and writing.

    Works beside a running node and on a stopped one's card; `key`: the station's, for sealed footage.
    Raises ConfigError, Transient.
    """
    clock = SystemClock()
    start_ns, end_ns = moment("footage", "--from", start), moment("footage", "--to", end)
    if end_ns <= start_ns:
        raise ConfigError(f"footage: --to {end} is not after --from {start}")
    folder = Path(config.node.data)
    check_output("footage", output, folder)
    disk = PosixDisk(folder)
    catalog = catalog_of(folder, clock)
    told = records.body(
        what="clip",
        who=f"{login()} (uid {os.getuid()})",
        start_utc_ns=start_ns,
        end_utc_ns=end_ns,
        output=str(output.absolute())[:300],
    )
    journal_extraction(folder, clock, told)  # before the first byte: what fails afterwards was tried
    try:
        result = extract(
            disk=disk,
            catalog=catalog,
            start_utc_ns=start_ns,
            end_utc_ns=end_ns,
            output=output,
            key=None if key is None else private_key(key),
            now=asked_at(clock, catalog),
        )
    except NoFootage as error:
        result = Extraction(coverage=error.coverage)
        out(json.dumps(_as_dict(result), indent=2) if as_json else f"{error}\n{table(error.coverage)}")
        return 1
    out(json.dumps(_as_dict(result), indent=2) if as_json else _words(result))
    return 0


def check_output(command: str, output: Path, folder: Path) -> None:
    """Raises ConfigError where a file would take the place of a device, a link, or of what the node itself keeps."""
    if output.is_symlink() or (output.exists() and not output.is_file() and not output.is_dir()):
        raise ConfigError(f"{command}: {output} is a device, a pipe or a link; name a file of its own")
    if output.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{command}: {output} lies in the node's own data folder {folder}; choose a place outside it")


def asked_at(clock: Clock, catalog: Snapshot) -> Now:
    """The moment of asking, and whether it is a running node that answers."""
    return Now(clock.boot_id, clock.boot_ns(), utc_ns=clock.utc().utc_ns, running=catalog.live)


def coverage(
    config: Config, *, start: str, end: str, as_json: bool, svg: Path | None, out: Callable[[str], None]
) -> int:
    """Prints what became of every second of the range, and draws it; returns the exit code. Blocks for the reading.

    Works beside a running node and on a stopped one's card. Raises ConfigError, Transient.
    """
    clock = SystemClock()
    start_ns, end_ns = moment("coverage", "--from", start), moment("coverage", "--to", end)
    if end_ns <= start_ns:
        raise ConfigError(f"coverage: --to {end} is not after --from {start}")
    folder = Path(config.node.data)
    if svg is not None:
        check_output("coverage", svg, folder)
    catalog = catalog_of(folder, clock)
    open_files = unsealed(PosixDisk(folder), catalog)
    found = account(
        catalog,
        start_ns,
        end_ns,
        writing=[segment for segment, _ in open_files],
        anchors=[anchor for _, anchor in open_files],
        now=asked_at(clock, catalog),
    )
    if svg is not None:
        title = f"{config.node.site}/{config.node.id} {config.node.place}".strip()
        try:
            drawing = draw(found, title=title)
        except ValueError as error:
            raise ConfigError(f"coverage: --svg: {error}") from None
        try:
            svg.write_text(drawing, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"coverage: cannot write {svg}: {error.strerror}; choose another file") from None
    out(json.dumps(as_dict(found), indent=2) if as_json else _account_words(found))
    return 0


def _account_words(found: Account) -> str:
    total_s = (found.end_utc_ns - found.start_utc_ns) / NS
    lines = [
        f"{seconds:12.1f} s  {100 * seconds / total_s:5.1f} %  {what}"
        for what, seconds in sorted(found.totals_s().items(), key=lambda item: -item[1])
    ]
    lines += ["", table(found.stretches)]
    for stretch in found.stretches:
        lines += [f"  {rfc3339(stretch.start_utc_ns)} {stretch.what}: {line}" for line in stretch.evidence]
    lines += [f"  no uplink {rfc3339(s.start_utc_ns)} to {rfc3339(s.end_utc_ns)}: {s.detail}" for s in found.offline]
    lines += [f"  held: {_hold_words(hold_dict(hold))}" for hold in found.holds]
    return "\n".join(lines)


def _hold_words(hold: dict[str, Any]) -> str:
    until = f"until {hold['until']}" if hold["until"] else "until it is released"
    return f"{hold['id']}  {hold['from']} to {hold['to']}, {until}: {hold['reason']} (by {hold['by']})"


def hold(config: Config, verb: str, args: dict[str, Any], *, as_json: bool, out: Callable[[str], None]) -> int:
    """Holds, releases or lists (`holds`), by the running node or, where none runs, on its card. Returns the exit code.

    Raises ConfigError, Corrupt, Transient.
    """
    folder = Path(config.node.data)
    clock = SystemClock()
    require_store(folder)
    args = args | {"by": f"{login()} (uid {os.getuid()}), at the post"}
    try:
        lock = DataLock(folder).take(clock)
    except InUse:
        answer = order(folder, verb, args)
    else:
        with lock:
            answer = _on_the_card(config, folder, clock, verb, args)
    out(json.dumps(answer, indent=2) if as_json else _answer_words(verb, answer))
    return 0


def _on_the_card(config: Config, folder: Path, clock: Clock, verb: str, args: dict[str, Any]) -> dict[str, Any]:
    """The same desk as in the node, on the store of one that does not run."""
    new_id = uuid7_maker(clock)
    store = Store(
        folder / STORE_NAME,
        clock=clock,
        new_id=new_id,
        origin=Origin(config.node.site, config.node.id),
        outbox_rows_max=config.store.outbox_rows_max,
        event_rows_max=config.store.event_rows_max,
    )
    store.open()
    try:
        desk = HoldDesk(
            book=store,
            clock=clock,
            settings=config.recording,
            new_id=new_id,
            writing=lambda: None,
            bitrate_kbps=config.camera.bitrate_kbps,
        )
        if verb == "hold":
            return desk.hold(args, str(args["by"]))
        return desk.release(args, str(args["by"])) if verb == "release" else desk.listing()
    finally:
        store.close()


def _answer_words(verb: str, answer: dict[str, Any]) -> str:
    if verb == "release":
        return f"{answer['id']}: {answer['was']}"
    share = f"{answer['held_bytes'] / 1e9:.2f} of {answer['held_bytes_max'] / 1e9:.2f} GB are held"
    if verb == "hold":
        return f"{_hold_words(answer)}\n{answer['summary']}; {share}"
    return "\n".join([*(_hold_words(one) for one in answer["holds"]), share])


def moment(command: str, option: str, text: str) -> int:
    """UTC nanoseconds of what a person typed. Raises ConfigError that names the option."""
    try:
        return parse_asked(text)
    except ValueError as error:
        raise ConfigError(f"{command}: {option}: {error}") from None


def _as_dict(result: Extraction) -> dict[str, object]:
    return {
        "files": [str(file) for file in result.files],
        "parts": [
            {"file": str(p.file), "at_s": round(p.at_s, 3), "utc": rfc3339(p.utc_ns), "seconds": round(p.seconds, 3)}
            for p in result.parts
        ],
        "fragments": result.fragments,
        "damaged": result.damaged,
        "coverage": [stretch_dict(stretch) for stretch in result.coverage],
    }


def _words(result: Extraction) -> str:
    lines = [
        f"{part.file}: from {part.at_s:.1f} s: {rfc3339(part.utc_ns)}, {part.seconds:.1f} s" for part in result.parts
    ]
    lines += [f"left out, damaged: {name}" for name in result.damaged]
    return "\n".join([*lines, table(result.coverage)])
