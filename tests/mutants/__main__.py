"""Change the rules, and see who notices: `python -m tests.mutants [--sample 60 --seed 7]`.

One mutant again: `python -m tests.mutants --only 1a2b3c4d`. Survivors need a test, or a reason in
`tests/mutants/reasons.toml`.
"""

import argparse
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.rules import SOURCES, Mutant, modules, reasons, unknown

# The program of this tree, whichever is installed.
sys.path.insert(0, str(SOURCES.parent))
from tests.mutants.bench import CACHE, UnsoundTests
from tests.mutants.judging import NEAR_ROUNDS, ROUNDS, judge
from tests.mutants.ledger import Ledger
from tests.mutants.mistyped import mistyped
from tests.mutants.verdicts import CAUGHT, Judged

Answers = dict[str, Judged]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--room", action="append", help="only these rooms")
    parser.add_argument("--module", action="append", help="only these modules: factory.terms")
    parser.add_argument("--only", action="append", help="only these mutants, by id or name")
    parser.add_argument("--sample", type=int, default=0, help="so many, drawn by the seed; 0: all")
    parser.add_argument("--seed", type=int, help="of the sample; drawn and printed without")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no mutant after these")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at once")
    parser.add_argument("--explained", action="store_true", help="judge what has a reason, too")
    parser.add_argument("--again", action="store_true", help="judge what was judged before, too")
    parser.add_argument("--near", action="store_true", help="only by the tests nearest to each")
    parser.add_argument("--types", action="store_true", help="only by the type checker")
    parser.add_argument("--keep", action="store_true", help="write what is noticed for all")
    parser.add_argument("--list", action="store_true", help="list them and judge none")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> list[Mutant]:
    found = [
        mutant
        for module in modules()
        if (not options.room or module.room in options.room)
        and (not options.module or module.name in options.module)
        for mutant in module.mutants()
    ]
    if options.only:
        found = [mutant for mutant in found if {mutant.id, mutant.name} & set(options.only)]
    if options.sample:
        seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
        sys.stdout.write(f"sample of {options.sample} of {len(found)}, SEED={seed}\n")
        drawn = random.Random(seed).sample(range(len(found)), min(options.sample, len(found)))
        found = [found[index] for index in sorted(drawn)]
    return found


def _begins(test_file: str, n_mutants: int) -> None:
    sys.stderr.write(f"{test_file}: {n_mutants} mutants\n")


def _told(judged: Judged) -> str:
    by = f"  [{judged.by}]" if judged.by else ""
    return f"{judged.verdict:9} {judged.mutant.id} {judged.mutant.name}{by}\n"


def _summed(mutants: Sequence[Mutant], answers: Answers, n_known: int, explained: set[str]) -> str:
    rooms = dict.fromkeys(mutant.module.room for mutant in mutants)
    counts = Counter((judged.mutant.module.room, judged.verdict) for judged in answers.values())
    heads = ("mutants", *CAUGHT, "explained", "open", "not ended")
    lines = [f"{'room':14}" + "".join(f"{head:>10}" for head in heads) + "\n"]
    for room in rooms:
        there = [mutant for mutant in mutants if mutant.module.room == room]
        n_explained = sum(mutant.name in explained for mutant in there)
        caught = [counts[room, verdict] for verdict in CAUGHT]
        n_open = sum(j.mutant.module.room == room for j in _open(answers, explained))
        ended = {name for name, judged in answers.items() if judged.verdict != "suspected"}
        left = sum(mutant.name not in ended | explained for mutant in there)
        row = (len(there), *caught, n_explained, n_open, left)
        lines.append(f"{room:14}" + "".join(f"{number:10}" for number in row) + "\n")
    lines.append(f"{n_known} were judged before\n")
    return "".join(lines)


def _open(answers: Answers, explained: set[str]) -> list[Judged]:
    return [
        judged
        for judged in answers.values()
        if judged.verdict not in CAUGHT and judged.mutant.name not in explained
    ]


def _package(mutant: Mutant) -> str:
    return mutant.module.name.rpartition(".")[0]


def _judge(options: argparse.Namespace, tried: Sequence[Mutant], answers: Answers) -> int:
    """Judge what the ledger does not know, into `answers`; return how many it did know."""
    ledger = Ledger()
    if not (options.again or options.only or options.explained):
        answers |= {one.name: judged for one in tried if (judged := ledger.known(one))}
    sys.stdout.writelines(_told(judged) for judged in _open(answers, set()))
    ended = {name for name, judged in answers.items() if judged.verdict != "suspected"}
    left = [one for one in tried if one.name not in ended]
    if options.types:
        for judged in mistyped(left):
            answers[judged.mutant.name] = judged
            ledger.note(judged)
            sys.stdout.write(_told(judged))
        return len(tried) - len(left)
    until = time.monotonic() + 60 * options.minutes
    for package in dict.fromkeys(map(_package, left)):  # So that there are ends after a while.
        for judged in judge(
            [mutant for mutant in left if _package(mutant) == package],
            at_once=options.jobs,
            until=until,
            rounds=NEAR_ROUNDS if options.near else ROUNDS,
            begins=_begins,
        ):
            answers[judged.mutant.name] = judged
            ledger.note(judged)
            if options.only or judged.verdict not in CAUGHT:
                sys.stdout.write(_told(judged))
                sys.stdout.flush()
    return len(tried) - len(left)


def main() -> int:
    """Judge mutants, and say which nobody notices."""
    options = _options()
    if options.keep:
        known = Ledger().keep(mutant for module in modules() for mutant in module.mutants())
        sys.stdout.write(f"{known} are known to be noticed\n")
        return 0
    mutants, kept = _chosen(options), set(reasons())
    if not mutants:
        sys.stderr.write("no such mutant\n")
        return 2
    if options.list:
        sys.stdout.writelines(f"{mutant.id} {mutant.name}\n" for mutant in mutants)
        return 0
    explained = {mutant.name for mutant in mutants if mutant.name in kept}
    passed_over = set() if options.explained or options.only else explained
    tried = [mutant for mutant in mutants if mutant.name not in passed_over]
    started, answers = time.monotonic(), Answers()
    n_known = _judge(options, tried, answers)
    sys.stdout.write(_summed(mutants, answers, n_known, explained))
    sys.stdout.write(f"{time.monotonic() - started:.0f} s\n")
    noticed = {name for name, judged in answers.items() if judged.verdict == "noticed"}
    needless = sorted(noticed & kept)
    sys.stdout.writelines(f"noticed, and needs no reason: {name}\n" for name in needless)
    sys.stdout.writelines(f"a reason for no mutant: {name}\n" for name in unknown(kept))
    # A sample tells of rooms that nobody has worked through; who asks for a room wants it clean.
    is_open = _open(answers, explained) and not options.sample
    return 1 if is_open or needless else 0


def _run() -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":  # Sets are iterated alike in every run.
        os.environ["PYTHONHASHSEED"] = "0"
        # Each file of tests is imported by processes of its own: compiled once for all of them.
        os.environ["PYTHONPYCACHEPREFIX"] = str(CACHE / "compiled")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        again = [sys.executable, "-m", "tests.mutants", *sys.argv[1:]]
        os.execv(sys.executable, again)  # noqa: S606 - this very program, started again
    place = Path(tempfile.mkdtemp(prefix="mutants-"))
    os.environ["MUTANTS_TEMPORARY"] = str(place)
    try:
        return main()
    except UnsoundTests as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(_run())
