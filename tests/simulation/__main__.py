"""Run many worlds: `python -m tests.simulation --seeds 200 [--payments | --exits]`.

With `--transcript` each prints a hash of all that happened in it.
"""

import argparse
import sys
import traceback

from tests.simulation.exits import run_exits
from tests.simulation.opening import run_opening
from tests.simulation.payments import run_payments
from tests.simulation.transcript import transcript_of


def main() -> int:
    """Run the seeds in order; print the first that fails and the command that replays it."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=200, help="how many worlds")
    parser.add_argument("--seed-start", type=int, default=0, help="the first seed")
    which_kind = parser.add_mutually_exclusive_group()
    which_kind.add_argument("--payments", action="store_true", help="go on with payments")
    which_kind.add_argument("--exits", action="store_true", help="leave with payments under way")
    parser.add_argument("--verbose", action="store_true", help="a line for each world")
    parser.add_argument(
        "--transcript",
        action="store_true",
        help="a hash for each world of all that is remembered, sent and published in it",
    )
    options = parser.parse_args()
    run, which = run_opening, ""
    if options.payments:
        run, which = run_payments, " --payments"
    elif options.exits:
        run, which = run_exits, " --exits"
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
