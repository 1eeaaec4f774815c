"""Play the matrix: `python -m tests.matrix [--out FILE] [--seed N] [--only TEXT] [--market NAME]`.

The table says who ends with what, by outpoint, script, amount and height. It ends with one line for
each cell; the exit status is 1 if anybody honest lost more than fees, or a cheater won.
"""

import argparse
import itertools
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.matrix.market import MARKETS
from tests.matrix.play import Case, Outcome, attempt
from tests.matrix.scenario import CLIENTS
from tests.matrix.scenarios import SCENARIOS
from tests.matrix.table import detailed, summary
from tests.simulation.seeds import VARIABLE, draw_start


def main() -> int:
    """Play every cell that was asked for; return the exit status."""
    options = _parser().parse_args()
    lines: list[str] = []

    def say(line: str, *, is_brief: bool = False) -> None:
        lines.append(line)
        if is_brief or not options.brief:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()

    started = time.monotonic()
    cases = [
        Case(scenario=name, n_clients=n_clients, market=market, seed=options.seed)
        for market, n_clients, name in itertools.product(
            options.market or MARKETS, options.clients or CLIENTS, sorted(SCENARIOS)
        )
        if options.only in name
        and n_clients in SCENARIOS[name].clients
        and market in SCENARIOS[name].markets
    ]
    if options.sample:
        start = draw_start()
        say(f"{options.sample} of {len(cases)} cells: {VARIABLE}={start}", is_brief=True)
        dice = random.Random(start)
        cases = dice.sample(cases, min(options.sample, len(cases)))
    outcomes: list[Outcome] = []
    broken: list[Case] = []
    for case, outcome in zip(cases, _played(cases, n_jobs=options.jobs), strict=True):
        if isinstance(outcome, str):
            say(f"{case}\n{outcome}", is_brief=True)
            broken.append(case)
            continue
        outcomes.append(outcome)
        for line in detailed(outcome):
            say(line)
    for line in summary(outcomes):
        say(line, is_brief=True)
    lost = [outcome.case for outcome in outcomes if outcome.losses]
    say(
        f"{len(cases)} cells of seed {options.seed}, {len(lost)} lost, {len(broken)} broken, "
        f"{time.monotonic() - started:.0f} s",
        is_brief=True,
    )
    for case in (*lost, *broken):
        say(f"replay: {case.command}", is_brief=True)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if lost or broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix")
    parser.add_argument("--out", type=Path, help="also write everything into this file")
    parser.add_argument("--seed", type=int, default=0, help="the dice: who pays, who cheats whom")
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--sample", type=int, default=0, help="only so many of them, drawn")
    parser.add_argument("--market", choices=[*MARKETS], action="append", help="feerates")
    parser.add_argument("--clients", type=int, choices=CLIENTS, action="append", help="how many")
    parser.add_argument("--brief", action="store_true", help="print a line for each cell only")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    return parser


def _played(cases: Sequence[Case], *, n_jobs: int) -> Iterator[Outcome | str]:
    """Yield what each cell came to, in their order; why in words, where it broke."""
    if n_jobs == 1:
        yield from map(attempt, cases)
        return
    # Forked, a process would share the kernel's threads.
    with ProcessPoolExecutor(n_jobs, multiprocessing.get_context("spawn")) as processes:
        yield from processes.map(attempt, cases)


if __name__ == "__main__":
    sys.exit(main())
