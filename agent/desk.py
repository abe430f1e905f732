"""`wardpost footage`: what a person at the post asks of the card, wired to the disk and the node's own memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from agent.clock import SystemClock, parse_rfc3339, rfc3339
from agent.config import Config
from agent.disk import PosixDisk
from agent.errors import ConfigError
from agent.local import catalog_of
from agent.recording.coverage import Now, Stretch
from agent.recording.footage import Extraction, NoFootage, extract


def footage(config: Config, *, start: str, end: str, output: Path, as_json: bool, out: Callable[[str], None]) -> int:
    """Extracts the range and prints its coverage; returns the exit code. Blocks for the reading and writing.

    Works beside a running node and on a stopped one's card. Raises ConfigError, Transient.
    """
    clock = SystemClock()
    start_ns, end_ns = _time("--from", start), _time("--to", end)
    if end_ns <= start_ns:
        raise ConfigError(f"footage: --to {end} is not after --from {start}")
    folder = Path(config.node.data)
    disk = PosixDisk(folder)
    catalog = catalog_of(folder, clock)
    try:
        result = extract(
            disk=disk,
            catalog=catalog,
            start_utc_ns=start_ns,
            end_utc_ns=end_ns,
            output=output,
            now=Now(clock.boot_id, clock.boot_ns()),
        )
    except NoFootage as error:
        result = Extraction(coverage=error.coverage)
        out(json.dumps(_as_dict(result), indent=2) if as_json else f"{error}\n{_table(error.coverage)}")
        return 1
    out(json.dumps(_as_dict(result), indent=2) if as_json else _words(result))
    return 0


def _time(option: str, text: str) -> int:
    try:
        return parse_rfc3339(text)
    except ValueError as error:
        raise ConfigError(f"footage: {option}: {error}") from None


def _as_dict(result: Extraction) -> dict[str, object]:
    return {
        "files": [str(file) for file in result.files],
        "parts": [
            {"file": str(p.file), "at_s": round(p.at_s, 3), "utc": rfc3339(p.utc_ns), "seconds": round(p.seconds, 3)}
            for p in result.parts
        ],
        "fragments": result.fragments,
        "damaged": result.damaged,
        "coverage": [
            {
                "from": rfc3339(s.start_utc_ns),
                "to": rfc3339(s.end_utc_ns),
                "seconds": round(s.seconds, 3),
                "what": s.what,
                "detail": s.detail,
                "error_s": None if s.unc_s is None else round(s.unc_s, 3),
            }
            for s in result.coverage
        ],
    }


def _words(result: Extraction) -> str:
    lines = [
        f"{part.file}: from {part.at_s:.1f} s: {rfc3339(part.utc_ns)}, {part.seconds:.1f} s" for part in result.parts
    ]
    lines += [f"left out, damaged: {name}" for name in result.damaged]
    return "\n".join([*lines, _table(result.coverage)])


def _table(stretches: list[Stretch]) -> str:
    """The whole range, a line a stretch: from, to, seconds, what, why."""
    lines = []
    for s in stretches:
        error = "clock not vouched for" if s.unc_s is None else f"+-{s.unc_s:.1f} s"
        why = f"{s.detail}; {error}" if s.detail else error
        lines.append(f"  {rfc3339(s.start_utc_ns)}  {rfc3339(s.end_utc_ns)}  {s.seconds:9.1f} s  {s.what}  ({why})")
    return "\n".join(lines)
