"""What becomes of one mutant: its code in the place of the function's, and how its child ended."""

import gc
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Final, Literal

from tests.mutants.bench import Bench, UnsoundTests
from tests.mutants.forks import Ended, Say, limit_cpu
from tests.mutants.operators import Owner
from tests.mutants.rules import SOURCES, Mutant

Verdict = Literal[
    "noticed",
    "looped",
    "mistyped",
    "stalled",
    "survived",
    "unreached",
    "suspected",
    "whole",
    "import",
    "unsound",
]
# What ends a mutant: a test, or the type checker, would not let it land.
CAUGHT: Final[tuple[Verdict, ...]] = ("noticed", "looped", "mistyped")
Functions = dict[tuple[str, Owner], list[FunctionType]]


@dataclass(frozen=True)
class Judged:
    """What became of a mutant, and the test or the type error that decided it.

    No end are `suspected` (the tests nearest to it do not notice it), `whole` (it has to be judged
    from the beginning of a test) and `import` (where it is imported). `unsound` says nothing.
    """

    mutant: Mutant
    verdict: Verdict
    by: str = ""


def decide(bench: Bench, reached: Sequence[tuple[str, float]], say: Say) -> None:
    """Run the tests that reach a mutant, in the child in which it is true, to the first failure."""
    limits = dict(reached)

    def failed(test: str) -> None:
        say(("noticed", test))
        os._exit(0)

    def before(test: str) -> None:
        say(("looped", test))  # What was said last counts, if it ends here for want of CPU.
        limit_cpu(limits[test])

    bench.failed = failed
    try:
        items = {item.nodeid: item for item in bench.items}
        bench.run([items[test] for test in limits if test in items], before)
    except BaseException as error:  # noqa: BLE001 - whatever ends the run of a test, notices
        say(("noticed", repr(error)))
    else:
        say(("survived", ""))


def judged_by(mutant: Mutant, ended: Ended) -> Judged:
    """Return what became of a mutant whose child ended so.

    Raises:
        UnsoundTests: If that was no fault of the mutant's.
    """
    last: tuple[Verdict, str] = ended.said[-1] if ended.said else ("noticed", "")
    verdict, by = last
    if verdict == "unsound":
        raise UnsoundTests(f"{mutant.name}: {by}")
    if ended.is_late:
        verdict = "stalled"
    elif ended.signal == signal.SIGPROF:
        verdict = "looped"
    elif ended.signal or verdict == "looped":
        verdict, by = "noticed", f"{by} (it ended the process, signal {ended.signal})"
    return Judged(mutant, verdict, by)


def functions_of_the_program() -> Functions:
    """Return the functions of the program that the interpreter holds, by their place."""
    gc.unfreeze()
    found: Functions = {}
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename.startswith(str(SOURCES)):
            code = thing.__code__
            owner = Owner(code.co_qualname, code.co_firstlineno)
            found.setdefault((code.co_filename, owner), []).append(thing)
    gc.freeze()
    return found


def replaced(mutant: Mutant, functions: Sequence[FunctionType]) -> bool:
    """Put the mutant's code into the functions; say if that could be done."""
    if mutant.owner is None:
        return False
    try:
        code = _code_of(mutant.code(), mutant.owner)
        for function in functions:
            function.__code__ = code
    except ValueError:
        return False  # It closes over another set of variables.
    return True


def _code_of(whole: CodeType, owner: Owner) -> CodeType:
    waiting = [whole]
    while waiting:
        code = waiting.pop()
        if code.co_qualname == owner.qualname and code.co_firstlineno == owner.line:
            return code
        waiting += [const for const in code.co_consts if isinstance(const, CodeType)]
    raise ValueError(f"{owner}: not found")
