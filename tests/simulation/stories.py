"""Play many stories judged to the satoshi: `python -m tests.simulation.stories --seeds 20`.

The one world says that nobody lost more than its own fees; these say where each satoshi went.
"""

import argparse
import secrets
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Final

from tests.simulation.cut_short import run_cut_short
from tests.simulation.exits import run_exits, run_midway
from tests.simulation.seeds import STARTS
from tests.simulation.sold_exits import run_sold_exits

STORIES: Final[Mapping[str, Callable[[int], str]]] = {
    "exits": run_exits,
    "midway": run_midway,
    "cut-short": run_cut_short,
    "sold": run_sold_exits,
}


def main() -> int:
    """Play each story with each seed; print the first that fails, and what replays it."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.stories")
    parser.add_argument("--seeds", type=int, default=20, help="how many of each")
    parser.add_argument("--seed-start", type=int, help="the first seed; drawn if there is none")
    parser.add_argument("--only", choices=STORIES, help="one story")
    parser.add_argument("--verbose", action="store_true", help="a line for each")
    options = parser.parse_args()
    start = options.seed_start
    if start is None:
        start = secrets.randbelow(STARTS)
        sys.stdout.write(f"start seed {start}\n")
    for name in [options.only] if options.only else STORIES:
        for seed in range(start, start + options.seeds):
            try:
                told = STORIES[name](seed)
            except Exception:  # noqa: BLE001 - whatever went wrong, the seed is what matters
                traceback.print_exc()
                sys.stdout.write(
                    f"failed: python -m tests.simulation.stories "
                    f"--only {name} --seeds 1 --seed-start {seed}\n"
                )
                return 1
            if options.verbose:
                sys.stdout.write(f"{name} {seed}: {told}\n")
        sys.stdout.write(f"{name}: {options.seeds} from seed {start}: all hold\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
