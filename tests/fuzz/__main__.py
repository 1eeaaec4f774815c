"""Fuzz every reader of bytes for its share of a time, from the kept corpus on.

    python -m tests.fuzz --seconds 60 [NAME ...]
    python -m tests.fuzz --replay FILE NAME

Before that each gets large inputs, and may use no more memory, and call no more functions, than
follows from their length. A finding is an input that gives neither a value nor the reader's one
error, or takes too much. It is kept as a file, and printed with what replays it; the exit status is
1 then.
"""

import argparse
import hashlib
import logging
import random
import shutil
import sys
from pathlib import Path
from typing import Final

from tests.fuzz.corpus import keep, kept_inputs
from tests.fuzz.fuzzing import Outcome, fuzz, instrumented
from tests.fuzz.target import Target, is_read

WORK: Final = Path(".fuzz")
LARGE: Final = 16  # Times as long as the longest input that is fuzzed.


def main() -> int:
    """Return the exit status."""
    logging.disable(logging.CRITICAL)
    given = _arguments()
    if given.replay is not None:
        return _replay(given.names, given.replay)
    targets: dict[str, Target] = instrumented(_targets)
    chosen = [targets[name] for name in given.names or targets]
    seed = random.randrange(2**31) if given.seed is None else given.seed
    seconds = max(1, given.seconds // len(chosen))
    _tell(f"{len(chosen)} readers, {seconds} s each, --seed {seed}")
    n_findings = 0
    for target in chosen:
        folder = _prepared(target, seeds=given.grow)
        too_much = [] if given.grow else _beyond_bounds(target, folder)
        outcome = fuzz(target, folder, seconds=seconds, seed=seed)
        n_findings += len(outcome.findings) + len(too_much)
        _tell_of(target, outcome)
        if given.grow:
            _keep(target, folder, outcome)
    return 1 if n_findings else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of readers; all if none")
    parser.add_argument("--seconds", type=int, default=60, help="for all of them together")
    parser.add_argument("--seed", type=int, help="plays the same inputs again")
    parser.add_argument("--grow", action="store_true", help="keep what reached something new")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give this input to NAME")
    return parser.parse_args()


# What tries the readers is imported where it is instrumented, and not before.
def _targets() -> dict[str, Target]:
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - see above

    return TARGETS


def _replay(names: list[str], path: Path) -> int:
    (name,) = names
    was_read = is_read(_targets()[name], path.read_bytes())
    _tell("a value" if was_read else "the error of this reader")
    return 0


def _prepared(target: Target, *, seeds: bool) -> Path:
    """Return a target's folder, with what is kept of it, and real values where it is to grow."""
    folder = WORK / target.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "corpus").mkdir(parents=True)
    (folder / "found").mkdir()
    inputs = kept_inputs(target.name)
    if seeds:
        from tests.fuzz.seeds import SEEDS  # noqa: PLC0415 - see above

        inputs += SEEDS[target.name]()
    for number, data in enumerate(inputs):
        (folder / "corpus" / f"{number:04}").write_bytes(data)
    return folder


def _beyond_bounds(target: Target, folder: Path) -> list[Path]:
    """Return large inputs that take more than follows from their length, each in its file."""
    from tests.fuzz.bounds import check_bounded, large_inputs  # noqa: PLC0415 - see above

    found = []
    for shorter, longer in large_inputs(kept_inputs(target.name), LARGE * target.size_max):
        try:
            check_bounded(target, shorter, longer)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            path = folder / f"large-{hashlib.sha256(longer).hexdigest()[:16]}"
            path.write_bytes(longer)
            found.append(path)
            _tell(f"{target.name}: {error!r}")
            _tell_replay(target, path)
    return found


def _keep(target: Target, folder: Path, outcome: Outcome) -> None:
    from tests.fuzz.reached import minimized  # noqa: PLC0415 - see above

    inputs = [path.read_bytes() for path in (folder / "corpus").iterdir()]
    found = [path.read_bytes() for path in outcome.findings]
    keep(target.name, minimized(target, inputs), found)


def _tell_of(target: Target, outcome: Outcome) -> None:
    before, after = outcome.covered
    _tell(
        f"{target.name:17} {outcome.n_runs:9} inputs, {before} -> {after} places reached, "
        f"{len(outcome.findings)} findings"
    )
    for path in outcome.findings:
        _tell_replay(target, path)
    if outcome.told and not outcome.findings:
        _tell(outcome.told[-2000:])


def _tell_replay(target: Target, path: Path) -> None:
    _tell(f"  {sys.executable} -m tests.fuzz --replay {path} {target.name}")


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
