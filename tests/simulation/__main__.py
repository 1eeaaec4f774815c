"""Run many worlds: `python -m tests.simulation --seeds 200 --seed-start 0`."""

import argparse
import sys
import traceback

from tests.simulation.opening import run_opening


def main() -> int:
    """Run the seeds in order; print the first that fails and the command that replays it."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=200, help="how many worlds")
    parser.add_argument("--seed-start", type=int, default=0, help="the first seed")
    parser.add_argument("--verbose", action="store_true", help="a line for each world")
    options = parser.parse_args()
    for seed in range(options.seed_start, options.seed_start + options.seeds):
        try:
            described = run_opening(seed)
        except Exception:  # noqa: BLE001 - whatever went wrong, the seed is what matters
            traceback.print_exc()
            sys.stdout.write(
                f"seed {seed} failed; replay: make simulate SEEDS=1 SEED_START={seed}\n"
            )
            return 1
        if options.verbose:
            sys.stdout.write(f"seed {seed}: {described}\n")
    sys.stdout.write(f"{options.seeds} worlds from seed {options.seed_start}: all hold\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
