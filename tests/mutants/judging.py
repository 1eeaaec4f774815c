"""Judges mutants: with each file of their tests in turn, to the first failure.

Thrice, if need be: by those tests of each file that mean them, half a second of them (nearest) and
then some seconds (near), and by all the others that run their lines (far). In all three they branch
off a test where their function is called first (`halfway`). What cannot (what counts at import, and
tests with files and threads) is judged from the beginning of a test, in a process of its own
(whole): a mutant inside a function takes the place of that function's code there, so nothing is
imported again; what counts while modules are imported (constants, defaults, and functions that are
called meanwhile) is judged in a process that imports the changed module.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import takewhile
from types import CodeType
from typing import Any, Final, Literal

from tests.mutants.bench import (
    Bench,
    Reach,
    UnsoundTests,
    be_alone,
    cached_reach,
    collect,
    measure,
    reach_of,
)
from tests.mutants.forks import Say, limit_cpu, run_all
from tests.mutants.halfway import Halfway, place_of
from tests.mutants.rules import Mutant
from tests.mutants.verdicts import (
    Functions,
    Judged,
    decide,
    functions_of_the_program,
    judged_by,
    replaced,
)

Round = Literal["nearest", "near", "far", "whole"]
ROUNDS: Final[tuple[Round, ...]] = ("nearest", "near", "far", "whole")
NEAR_ROUNDS: Final = ROUNDS[:2]
NEAREST_SECONDS: Final = 0.5  # CPU of one file's nearest tests together, without a mutant.
NEAR_SECONDS: Final = 4.0  # The same of those that are near.
IMPORT_SECONDS_MAX: Final = 60.0
_GOES_ON: Final = ("survived", "unreached", "whole", "import")


def judge(
    mutants: Sequence[Mutant],
    *,
    at_once: int,
    until: float,
    rounds: Sequence[Round] = ROUNDS,
    begins: Callable[[str, int], None] = lambda _, __: None,
) -> Iterator[Judged]:
    """Yield what became of each mutant, and before that who is suspected: no near test noticed it.

    A file is run by a process that imported no other, so that a verdict is the same whatever else
    is judged. What could not begin before `until` is not yielded. `begins` hears of each file, and
    how many mutants it is given.
    """
    waiting, ran, whole = list(mutants), set[str](), dict[str, set[str]]()
    unsound: list[UnsoundTests] = []
    for this in rounds:
        for place in range(max((len(mutant.module.tests) for mutant in waiting), default=0)):
            ended = set()
            for test_file, its_mutants in _by_file(waiting, place).items():
                asked = [
                    mutant
                    for mutant in its_mutants
                    if this != "whole" or mutant.name in whole.get(test_file, ())
                ]
                if not asked:
                    continue
                if time.monotonic() > until:
                    return
                begins(f"{this} {test_file}", len(asked))
                try:
                    for judged in judge_by(test_file, asked, this, at_once=at_once, until=until):
                        name = judged.mutant.name
                        if judged.verdict == "whole":
                            whole.setdefault(test_file, set()).add(name)
                        if judged.verdict in ("survived", "whole"):
                            ran.add(name)
                        if judged.verdict not in _GOES_ON:
                            ended.add(name)
                            yield judged
                except UnsoundTests as error:
                    unsound.append(error)
            waiting = [mutant for mutant in waiting if mutant.name not in ended]
        if time.monotonic() > until:
            return
        if this == "near":
            yield from (Judged(one, "suspected") for one in waiting)
    if unsound:
        raise unsound[0]
    if "whole" in rounds:
        for mutant in waiting:
            yield Judged(mutant, "survived" if mutant.name in ran else "unreached")


def _by_file(mutants: Sequence[Mutant], place: int) -> dict[str, list[Mutant]]:
    found: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        if place < len(mutant.module.tests):
            found.setdefault(mutant.module.tests[place], []).append(mutant)
    return found


def judge_by(
    test_file: str, mutants: Sequence[Mutant], this: Round, *, at_once: int, until: float
) -> Iterator[Judged]:
    """Yield what one file of tests says of each mutant, in one round.

    Raises:
        UnsoundTests: If its tests fail where nothing is changed.
    """
    by_name, imported = {mutant.name: mutant for mutant in mutants}, []
    cached_reach(test_file)  # Both processes take the file for what it is now.
    ear, mouth = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(ear)
        _serve(test_file, mutants, this, mouth, at_once=at_once, until=until)
    os.close(mouth)
    with os.fdopen(ear, encoding="utf-8") as answers:
        for line in answers:
            name, verdict, by = json.loads(line)
            if verdict == "import":
                imported.append(by_name[name])
            else:
                yield Judged(by_name[name], verdict, by)
    _, status = os.waitpid(pid, 0)
    if status:
        raise UnsoundTests(f"{test_file} could not be run where nothing is changed")
    if not imported:
        return
    in_time = takewhile(lambda _: time.monotonic() < until, imported)
    work = partial(_import_changed, test_file, reach_of(test_file))
    for mutant, ended in run_all(in_time, work, at_once=at_once):
        yield judged_by(mutant, ended)


def _serve(
    test_file: str,
    mutants: Sequence[Mutant],
    this: Round,
    mouth: int,
    *,
    at_once: int,
    until: float,
) -> None:
    """Be the process that has imported a file of tests, and tell of each mutant; never return."""
    status = 1

    def tell(judged: Judged) -> None:
        told = json.dumps((judged.mutant.name, judged.verdict, judged.by))
        os.write(mouth, told.encode() + b"\n")

    def serve(bench: Bench) -> None:
        judging = _OfOneFile(bench, measure(bench, test_file), functions_of_the_program(), tell)
        if this == "whole":
            in_time = takewhile(lambda _: time.monotonic() < until, mutants)
            for mutant, ended in run_all(in_time, judging.wholly, at_once=at_once):
                tell(judged_by(mutant, ended))
        else:
            judging.halfway(mutants, this, at_once=at_once, until=until)

    try:
        bench = Bench(serve)
        if not cached_reach(test_file).exists():
            bench.watch_imports()
        collect(test_file, bench)
        status = 0
    except UnsoundTests as error:
        sys.stderr.write(f"{error}\n")
    except BaseException:  # noqa: BLE001 - nothing may go on in the copy of a process but its work
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


class _OfOneFile:
    """Judges mutants whose function takes the place of another, where nothing was made by it."""

    def __init__(
        self, bench: Bench, reach: Reach, functions: Functions, tell: Callable[[Judged], None]
    ) -> None:
        self._bench, self._reach, self._functions, self._tell = bench, reach, functions, tell

    def halfway(
        self, mutants: Sequence[Mutant], this: Round, *, at_once: int, until: float
    ) -> None:
        """Tell of each mutant what those of its tests say that belong to this round."""
        asked: list[tuple[Mutant, list[str]]] = []
        for mutant in mutants:
            tests = self._reach.tests(mutant)
            its = self._of_round(tests, this)
            if self._counts_at_import(mutant):
                self._tell(Judged(mutant, "whole"))
            elif not tests:
                self._tell(Judged(mutant, "unreached"))
            elif its:
                asked.append((mutant, its))

        def work(_: str, say: Say) -> None:
            be_alone()

            def tell(judged: Judged, survived: Sequence[str]) -> None:
                say((judged.mutant.name, judged.verdict, survived))
                if judged.verdict not in _GOES_ON:
                    self._tell(judged)

            Halfway(
                self._bench,
                self._reach,
                self._functions,
                asked,
                tell,
                at_once=at_once,
                until=until,
            ).run()

        if not asked:
            return
        [(_, ended)] = run_all([""], work, at_once=1, wall_seconds=float("inf"))
        survived: dict[str, set[str]] = {mutant.name: set() for mutant, _ in asked}
        for name, verdict, *tests in ended.said:
            if name == "unsound":
                raise UnsoundTests(verdict)
            if verdict == "survived":
                survived[name].update(tests[0])
            elif verdict != "import":
                del survived[name]
        if time.monotonic() > until:
            return
        for mutant, its in asked:
            if mutant.name in survived:
                is_whole = survived[mutant.name] == {*its}
                self._tell(Judged(mutant, "survived" if is_whole else "whole"))

    def wholly(self, mutant: Mutant, say: Say) -> None:
        """Say what all tests that reach a mutant say of it, in a child, each from its beginning."""
        if self._counts_at_import(mutant):
            say(("import", ""))
            return
        reached = [(test, self._reach.limit_seconds(test)) for test in self._reach.tests(mutant)]
        be_alone()
        place = place_of(mutant)
        if place is not None and replaced(mutant, self._functions[place]):
            decide(self._bench, reached, say)
        else:
            say(("import", ""))

    def _of_round(self, tests: Sequence[str], this: Round) -> list[str]:
        nearest = self._within(tests, NEAREST_SECONDS)
        near = self._within(tests, NEAR_SECONDS)
        match this:
            case "nearest":
                return nearest
            case "near":
                return [test for test in near if test not in nearest]
            case _:
                done = {*nearest, *near}
                return [test for test in tests if test not in done]

    def _within(self, tests: Sequence[str], seconds_max: float) -> list[str]:
        """Return the first tests that may be run within a time, or that one which is fastest."""
        seconds = self._reach.cpu_seconds
        found, spent = [], 0.0
        for test in tests:
            if spent + seconds[test] <= seconds_max:
                found.append(test)
                spent += seconds[test]
        return found or sorted(tests, key=seconds.__getitem__)[:1]

    def _counts_at_import(self, mutant: Mutant) -> bool:
        place = place_of(mutant)
        return (
            place is None
            or (place[0], place[1].qualname) in self._reach.early
            or place not in self._functions
        )


class _Changed:
    """Imports one module as the mutant has it."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != f"cromford.{self._mutant.module.name}":
            return None
        mutant = self._mutant

        class Loader(SourceFileLoader):
            def get_code(self, _: str) -> CodeType:
                return mutant.code()

        place = str(mutant.module.path)
        return spec_from_file_location(name, place, loader=Loader(name, place))


def _import_changed(test_file: str, reach: Reach, mutant: Mutant, say: Say) -> None:
    be_alone()

    def judge(bench: Bench) -> None:
        tests = reach.all_tests(mutant)
        decide(bench, [(test, reach.limit_seconds(test)) for test in tests], say)

    def failed(what: str) -> None:
        say(("noticed", f"{what} (import)"))
        os._exit(0)

    finder: Any = _Changed(mutant)
    sys.meta_path.insert(0, finder)
    limit_cpu(IMPORT_SECONDS_MAX)
    try:
        collect(test_file, Bench(judge, failed=failed))
    except UnsoundTests as error:
        say(("unsound", str(error)))
