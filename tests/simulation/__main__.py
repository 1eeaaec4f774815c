"""Run many worlds: `python -m tests.simulation --seeds 200 [--payments]`.

There are `--payments`, `--sales`, `--exits`, `--midway`, `--sold` and `--cut-short`; without any of
them it plays openings.
"""

import argparse
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Final

from tests.simulation.cut_short import run_cut_short
from tests.simulation.exits import run_exits, run_midway
from tests.simulation.opening import run_opening
from tests.simulation.payments import run_payments
from tests.simulation.sales import run_sales
from tests.simulation.sold_exits import run_sold_exits
from tests.simulation.transcript import transcript_of

KINDS: Final[Mapping[str, Callable[[int], str]]] = {
    "payments": run_payments,
    "sales": run_sales,
    "exits": run_exits,
    "midway": run_midway,
    "sold": run_sold_exits,
    "cut-short": run_cut_short,
}


def main() -> int:
    """Run the seeds in order; print the first that fails and the command that replays it."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=200, help="how many worlds")
    parser.add_argument("--seed-start", type=int, default=0, help="the first seed")
    which_kind = parser.add_mutually_exclusive_group()
    which_kind.add_argument("--payments", action="store_true", help="go on with payments")
    which_kind.add_argument("--sales", action="store_true", help="go on, and buy liquidity, too")
    which_kind.add_argument("--exits", action="store_true", help="leave with payments under way")
    parser.add_argument("--verbose", action="store_true", help="a line for each world")
    parser.add_argument(
        "--transcript",
        action="store_true",
        help="a hash for each world of all that is remembered, sent and published in it",
    )
    which_kind.add_argument(
        "--cut-short", action="store_true", help="end an advance anywhere, and land a state"
    )
    which_kind.add_argument("--midway", action="store_true", help="buy, and then leave, anywhere")
    which_kind.add_argument("--sold", action="store_true", help="leave after purchases")
    options = parser.parse_args()
    chosen = [kind for kind in KINDS if getattr(options, kind.replace("-", "_"))]
    run, which = (KINDS[chosen[0]], f" --{chosen[0]}") if chosen else (run_opening, "")
    for seed in range(options.seed_start, options.seed_start + options.seeds):
        try:
            described = transcript_of(run, seed) if options.transcript else run(seed)
        except Exception:  # noqa: BLE001 - whatever went wrong, the seed is what matters
            traceback.print_exc()
            sys.stdout.write(
                f"seed {seed} failed; replay: "
                f"python -m tests.simulation --seeds 1 --seed-start {seed}{which}\n"
            )
            return 1
        if options.verbose or options.transcript:
            sys.stdout.write(f"seed {seed}: {described}\n")
    sys.stdout.write(f"{options.seeds} worlds from seed {options.seed_start}: all hold\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
