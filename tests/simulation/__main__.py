"""Play many worlds: `python -m tests.simulation --seeds 500`.

Each seed mixes its own: which hazards there are, and what operators do. What fails is made smaller,
and the line is printed that plays it again.
"""

import argparse
import secrets
import sys
from collections import Counter
from dataclasses import replace
from typing import Final

from tests.simulation.life import run_life
from tests.simulation.mixture import Mixture, drawn, faults_of
from tests.simulation.must_reach import FULL_SEEDS, never_reached, unreached
from tests.simulation.running import Played, played, played_many
from tests.simulation.seeds import STARTS
from tests.simulation.shrinking import Shrinking
from tests.simulation.transcript import transcript_of

FAILURES_MAX: Final = 5  # Of different kinds; then a run ends.


def main() -> int:
    """Play what is asked for, and say what it reached."""
    options = _options()
    if options.transcript:
        return _tell_transcripts(options)
    if options.seed is not None:
        return _play_one(_chosen(options))
    start = options.seed_start
    if start is None:
        start = secrets.randbelow(STARTS)
        sys.stdout.write(f"start seed {start}\n")
    return _play_many(range(start, start + options.seeds), options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=500, help="how many worlds")
    parser.add_argument("--seed-start", type=int, help="the first seed; drawn if there is none")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--verbose", action="store_true", help="a line for each world")
    parser.add_argument("--no-shrink", action="store_true", help="leave what fails as it is")
    parser.add_argument("--seed", type=int, help="play this one alone")
    parser.add_argument("--without", default="", help="hazards and acts that are left out of it")
    parser.add_argument("--until", type=int, help="after how many rounds it ends")
    parser.add_argument("--clients", type=int, help="how many clients are in it")
    parser.add_argument("--spare", default="", help="single faults and acts that do not happen")
    parser.add_argument(
        "--transcript",
        action="store_true",
        help="a hash for each world of all that is remembered, sent and published in it",
    )
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> Mixture:
    mixture = drawn(options.seed)
    return replace(
        mixture,
        without=frozenset(filter(None, options.without.split(","))),
        until=options.until,
        n_clients=options.clients or mixture.n_clients,
        spared=frozenset(faults_of(options.spare)),
    )


def _play_one(mixture: Mixture) -> int:
    found = played(mixture)
    sys.stdout.write(f"{mixture}\n{' '.join(found.struck)}\n{found.traceback}{found.told}\n")
    return 0 if found.is_good else 1


def _tell_transcripts(options: argparse.Namespace) -> int:
    start = options.seed_start or 0
    for seed in range(start, start + options.seeds):
        sys.stdout.write(f"seed {seed}: {transcript_of(run_life, seed)}\n")
    return 0


def _play_many(seeds: range, options: argparse.Namespace) -> int:
    counts: Counter[str] = Counter()
    failures: dict[str, Played] = {}
    n_failed = 0
    for found in played_many(seeds, n_jobs=options.jobs):
        counts += found.counts
        if options.verbose:
            sys.stdout.write(f"seed {found.mixture.seed}: {found.told}\n")
        if found.is_good:
            continue
        n_failed += 1
        if found.cause not in failures:
            failures[found.cause] = found
            sys.stdout.write(f"{found.traceback}failed: {found.mixture.replay}\n")
            sys.stdout.flush()
        if len(failures) == FAILURES_MAX:
            break
    for failure in failures.values() if not options.no_shrink else ():
        shrinking = Shrinking(failure)
        smallest = shrinking.shrink()
        sys.stdout.write(
            f"{smallest.told}\nsmallest of {shrinking.n_tries}: {smallest.mixture.replay}\n"
        )
    _tell_reached(counts)
    missed = never_reached(counts) if len(seeds) >= FULL_SEEDS and not failures else []
    for what in missed:
        sys.stdout.write(f"never reached, and has to be: {what}\n")
    sys.stdout.write(f"{len(seeds)} worlds from seed {seeds.start}: {n_failed} failed\n")
    return 1 if failures or missed else 0


def _tell_reached(counts: Counter[str]) -> None:
    """Print how often everything was reached, by kind, and what nobody reached."""
    kinds = dict.fromkeys(name.partition(" ")[0] for name in sorted(counts))
    for kind in kinds:
        of_kind = [(name, n) for name, n in sorted(counts.items()) if name.startswith(f"{kind} ")]
        told = ", ".join(f"{name.partition(' ')[2]} {n}" for name, n in of_kind)
        sys.stdout.write(f"{kind}: {told}\n")
    sys.stdout.write(f"not reached: {', '.join(unreached(counts))}\n")


if __name__ == "__main__":
    sys.exit(main())
