"""`python -m tests.bench [--only NAME] [--quick] [--json OUT] [--folder DIR]`: measures, prints a table, writes JSON."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.assets import Assets
from agent.errors import WardpostError
from tests.bench import BENCHES
from tests.bench.figure import FULL, QUICK, Bench, Measure, Row, Size, Skip, table
from tests.bench.machine import Others, describe


def main(
    argv: Sequence[str] | None = None,
    *,
    benches: Mapping[str, Measure] = BENCHES,
    report: str = "bench.json",
    prog: str = "python -m tests.bench",
) -> int:
    """Runs what was asked for. 0: measured (slow or not); 1: something could not be measured."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--only", action="append", choices=list(benches), metavar="NAME", help=", ".join(benches))
    parser.add_argument("--quick", action="store_true", help="shorter windows: a look, not a figure to quote")
    parser.add_argument("--json", type=Path, metavar="OUT", help=f"default: DIR/{report}")
    parser.add_argument("--folder", type=Path, default=Path("bench-out"), metavar="DIR", help="on a real disk")
    args = parser.parse_args(argv)
    size = QUICK if args.quick else FULL
    told = args.json or args.folder / report
    try:
        found, rows = run(args.only or list(benches), folder=args.folder, size=size, assets=Assets(), benches=benches)
    except WardpostError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"\n{table(rows)}" if rows else "nothing was measured")
    told.write_text(json.dumps(found, indent=2) + "\n")
    print(f"\nas JSON: {told}; logs and recordings: {args.folder}")
    return 1 if any("failed" in part for part in found["benches"].values()) else 0


def run(
    names: Sequence[str], *, folder: Path, size: Size, assets: Assets, benches: Mapping[str, Measure] = BENCHES
) -> tuple[dict[str, Any], list[Row]]:
    """Measures one after the other. One that fails is on record and does not stop the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    rows: list[Row] = []
    for name in names:
        own = folder / name
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        print(f"{name} ...", end=" ", flush=True)
        others, started = Others(), time.monotonic()
        part: dict[str, Any] = {}
        try:
            new = benches[name](Bench(assets, own, size))
            part["rows"] = [row.as_json() for row in new]
            rows += new
        except Skip as skip:
            part["skipped"] = str(skip)
        except (RuntimeError, OSError) as error:
            part["failed"] = f"{type(error).__name__}: {error}"
        part["seconds"] = round(time.monotonic() - started, 1)
        part["others_share"] = round(others.share(), 2)
        found[name] = part
        said = part.get("skipped") or part.get("failed") or f"{len(part['rows'])} figures"
        busy = f"; others used {part['others_share']:.0%} of the machine" if part["others_share"] >= 0.1 else ""
        print(f"{said} in {part['seconds']:g} s{busy}")
    return {"machine": describe(), "size": size.name, "benches": found}, rows


if __name__ == "__main__":
    sys.exit(main())
