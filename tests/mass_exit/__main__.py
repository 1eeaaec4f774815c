"""Let everybody leave at once: `python -m tests.mass_exit [--clients 16] [--at-deadline]`."""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mass_exit.leaving import Size, run

DEFAULT = Size()


def main() -> int:
    """Run one mass exit, print its figures, and say what was not as it was told."""
    parser = argparse.ArgumentParser(prog="python -m tests.mass_exit")
    parser.add_argument("--clients", type=int, default=DEFAULT.n_clients, help="of the factory")
    parser.add_argument(
        "--left", type=int, default=DEFAULT.left_vsize, help="room that others leave, in vB"
    )
    parser.add_argument(
        "--dear", type=int, default=DEFAULT.dear_sat_per_vb, help="what they pay, in sat/vB"
    )
    parser.add_argument(
        "--at-deadline", action="store_true", help="nobody asks to leave; the exit deadline comes"
    )
    parser.add_argument("--zero-fee", action="store_true", help="no transaction pays for itself")
    options = parser.parse_args()
    size = Size(
        n_clients=options.clients,
        left_vsize=options.left,
        dear_sat_per_vb=options.dear,
        is_at_deadline=options.at_deadline,
        is_zero_fee=options.zero_fee,
    )
    with TemporaryDirectory() as base:
        outcome = run(Path(base), size)
    broken = list(outcome.broken())
    for line in (*outcome.lines(), *(f"not as told: {line}" for line in broken)):
        sys.stdout.write(f"{line}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
