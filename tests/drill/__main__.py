"""Run the drills: `python -m tests.drill [--points] [--kills 100 --seed 1]`."""

import argparse
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from tests.drill.kills import run_kills
from tests.drill.points import PointFailed, all_of, run_ceremony, sampled
from tests.drill.scripts import CEREMONIES
from tests.simulation.seeds import seeds


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def all_points(only: str, choose: Callable[[int], Sequence[int]]) -> bool:
    """Let everybody die at the points of the ceremonies; say whether all of them end well."""
    began, n_points = time.process_time(), 0
    for ceremony in CEREMONIES:
        if only and ceremony.name not in only.split(","):
            continue
        try:
            for result in run_ceremony(ceremony, choose=choose):
                say(result.line())
                n_points += result.n_points
        except PointFailed as failed:
            say(f"failed at {failed}")
            return False
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() - began + times.ru_utime + times.ru_stime
    say(f"{n_points:,} points: all end well, {seconds:.0f} s of CPU")
    return True


def main() -> int:
    """Run what was asked for; print the seed, and the command that replays it."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill")
    parser.add_argument("--kills", type=int, default=None, help="how often a process is killed")
    parser.add_argument("--seed", type=int, default=None, help="who is killed when")
    parser.add_argument("--verbose", action="store_true", help="tell each step")
    parser.add_argument("--points", action="store_true", help="all points of all ceremonies")
    parser.add_argument("--sample", type=int, default=0, help="only so many points of each role")
    parser.add_argument("--only", default="", help="of these ceremonies, separated by commas")
    options = parser.parse_args()
    seed = seeds(1)[0] if options.seed is None else options.seed
    choose = sampled(options.sample, seed=seed) if options.sample else all_of
    if options.sample:
        say(f"seed {seed}")
    if options.points and not all_points(options.only, choose):
        return 1
    if options.kills is not None:
        replay = f"python -m tests.drill --kills {options.kills} --seed {seed}"
        say(f"seed {seed}; replay, as far as real time allows: {replay}")
        try:
            outcome = run_kills(
                seed, options.kills, told=say if options.verbose else lambda _: None
            )
        except Exception:  # noqa: BLE001 - whatever went wrong, the seed is what matters
            traceback.print_exc()
            say(f"failed; replay: {replay}")
            return 1
        for line in outcome.lines():
            say(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
