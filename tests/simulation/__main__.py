"""Run many worlds: `python -m tests.simulation --seeds 200 --seed-start 0 [--payments]`."""

import argparse
import sys
import traceback

from tests.simulation.opening import run_opening
from tests.simulation.payments import run_payments


def main() -> int:
    """Run the seeds in order; print the first that fails and the command that replays it."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=200, help="how many worlds")
    parser.add_argument("--seed-start", type=int, default=0, help="the first seed")
    parser.add_argument("--payments", action="store_true", help="go on with payments")
    parser.add_argument("--verbose", action="store_true", help="a line for each world")
    options = parser.parse_args()
    run = run_payments if options.payments else run_opening
    for seed in range(options.seed_start, options.seed_start + options.seeds):
        try:
            described = run(seed)
        except Exception:  # noqa: BLE001 - whatever went wrong, the seed is what matters
            traceback.print_exc()
            which = " --payments" if options.payments else ""
            sys.stdout.write(
                f"seed {seed} failed; replay: "
                f"python -m tests.simulation --seeds 1 --seed-start {seed}{which}\n"
            )
            return 1
        if options.verbose:
            sys.stdout.write(f"seed {seed}: {described}\n")
    sys.stdout.write(f"{options.seeds} worlds from seed {options.seed_start}: all hold\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
