"""One cut again, in one process, with the node's own log: `python -m tests.sim.replay --seed N --point K ...`."""

from __future__ import annotations

import argparse
import json
import logging

from tests.sim import update
from tests.sim.explore import Cut
from tests.sim.stories import VISITS, a_day_in_half_a_minute
from tests.sim.universe import Universe


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--point", type=int, required=True)
    parser.add_argument("--kind", choices=["power", "torn", "kill", "station"], default="power")
    parser.add_argument("--cut-seed", type=int)
    parser.add_argument("--story", choices=["day", update.AREA], default="day")
    parser.add_argument("--again-after", type=int, default=0)
    parser.add_argument("--way", type=json.loads, help="what the disk chose, as a JSON list")
    options = parser.parse_args()
    logging.basicConfig(format="%(name)s: %(message)s")
    cut_seed = options.seed if options.cut_seed is None else options.cut_seed
    cut = Cut(options.point, "", options.kind, cut_seed, options.again_after, options.way)
    day = Universe(a_day_in_half_a_minute, options.seed, VISITS)
    story = day if options.story == "day" else Universe(update.an_update, options.seed, update.VISITS)
    outcome = story.replay(cut, quiet=False)
    print(f"{cut}: {outcome.figures}")
    print("\n".join(outcome.problems) or ("every promise held" if outcome.happened else "this cut cannot be"))
    return bool(outcome.problems)


if __name__ == "__main__":
    raise SystemExit(main())
