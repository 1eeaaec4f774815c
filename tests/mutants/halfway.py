"""Mutants that branch off in the middle of a test, where their function is called first.

Up to there a mutant does what the program does. So a test runs once, unchanged, and where it comes
to a function of which there are mutants, the process splits: a child for each mutant goes on with
that function changed, to the end of the test, and then the test goes on as it is.
"""

import gc
import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final

import pytest

from tests.mutants.bench import Bench, Reach
from tests.mutants.forks import Ended, Say, limit_cpu, split
from tests.mutants.operators import Owner
from tests.mutants.rules import Mutant
from tests.mutants.verdicts import Functions, Judged, judged_by, replaced

# Files of a test stay as one mutant leaves them: the next would find them.
_FIXTURES_OF_FILES: Final = {"tmp_path", "tmp_path_factory", "tmpdir", "tmpdir_factory"}
CHEAP_SECONDS: Final = 0.3  # CPU: a test that is run again from its beginning, not branched off.
_Place = tuple[str, Owner]


def _stub(*args: Any, **kwargs: Any) -> Any:
    call: Any = "what is called in its place"
    return call(*args, **kwargs)


def place_of(mutant: Mutant) -> _Place | None:
    """Return where the function of a mutant is found; none if it counts at import."""
    return None if mutant.owner is None else (str(mutant.module.path), mutant.owner)


class _NoTime(Exception):
    """No test may begin any more."""


class Halfway:
    """One run of a file's tests, in which mutants branch off.

    Args:
        asked: The tests that each mutant is given to, those that mean it first.
        tell: Hears of a mutant, and which tests it survived before the verdict: who survives is
            told of with each test; who could not branch off is not told of.
        until: No test begins after this (monotonic time).
    """

    def __init__(
        self,
        bench: Bench,
        reach: Reach,
        functions: Functions,
        asked: Sequence[tuple[Mutant, Sequence[str]]],
        tell: Callable[[Judged, Sequence[str]], None],
        *,
        at_once: int,
        until: float = float("inf"),
    ) -> None:
        self._bench, self._reach, self._functions = bench, reach, functions
        self._tell, self._at_once, self._until = tell, at_once, until
        self._items = {item.nodeid: item for item in bench.items}
        self._left = {mutant.name: list(tests) for mutant, tests in asked}
        self._given: dict[str, list[Mutant]] = {}
        for mutant, tests in asked:
            # What is cheap is run to its end by the child that began with the best of it.
            first = [test for test in tests if self._is_cheap(test)][:1]
            for test in [*first, *(test for test in tests if not self._is_cheap(test))]:
                self._given.setdefault(test, []).append(mutant)
        self._waiting: dict[_Place, list[Mutant]] = {}
        self._codes: dict[FunctionType, CodeType] = {}
        self._test = ""
        self._mutant: Mutant | None = None
        self._say: Say | None = None
        self._n_open_files = 0
        self._found: list[tuple[Judged, Sequence[str]]] = []

    def run(self) -> None:
        """Run the tests to which mutants are given, and tell of each as a test ends."""
        planned = [self._items[test] for test in self._reach.cpu_seconds if test in self._given]
        failed: list[str] = []

        def fails(test: str) -> None:
            if self._say is None:
                failed.append(test)
                return
            self._say(("noticed", test))
            os._exit(0)

        def before(test: str) -> None:
            if self._say is not None:
                self._begin(test)
                return
            if time.monotonic() > self._until:
                raise _NoTime
            self._test = test
            self._found.clear()
            self._wait_for(self._items[test])

        def after(test: str) -> None:
            if self._say is not None:
                self._go_on(before)
            self._forget()
            if test in failed:
                return  # It fails where nothing is changed: then it says nothing.
            for judged, survived in self._found:
                left = self._left[judged.mutant.name]
                ends = judged.verdict != "survived"
                left[:] = [] if ends else [other for other in left if other not in survived]
                self._tell(judged, survived)

        self._bench.failed = fails
        try:
            self._bench.run(planned, before, after)
        except _NoTime:
            return
        except BaseException as error:
            if self._say is None:
                raise
            # What a test raises is a failure of it, unless it ends the process; else it is ours.
            is_ours = isinstance(error, Exception)
            self._say(("unsound", traceback.format_exc()) if is_ours else ("noticed", repr(error)))
            os._exit(0)

    def _is_cheap(self, test: str) -> bool:
        return self._reach.cpu_seconds[test] <= CHEAP_SECONDS

    def _go_on(self, before: Callable[[str], None]) -> None:
        """Run what else is cheap and given to this child's mutant, and end."""
        if self._mutant is None or self._say is None:
            return
        left = [test for test in self._left[self._mutant.name] if test != self._test]
        more = [test for test in left if self._is_cheap(test)]
        survived = [self._test, *more]
        self._bench.run([self._items[test] for test in more], before)
        self._say(("survived", survived))
        os._exit(0)

    def _begin(self, test: str) -> None:
        """Begin a test in a child: what is said last counts, if it ends for want of CPU."""
        if self._say is not None:
            self._say(("looped", test))
            limit_cpu(self._reach.limit_seconds(test))

    def _wait_for(self, item: pytest.Item) -> None:
        """Have every function of a mutant call `_reached` the first time."""
        if _FIXTURES_OF_FILES & {*getattr(item, "fixturenames", ())}:
            return
        self._n_open_files = _n_open_files()
        for mutant in self._given[item.nodeid]:
            place = place_of(mutant)
            if place in self._functions and item.nodeid in self._left[mutant.name]:
                self._waiting.setdefault(place, []).append(mutant)
        for place in self._waiting:
            for function in self._functions[place]:
                self._codes[function] = function.__code__
                function.__code__ = self._stubbed(place, function)

    def _stubbed(self, place: _Place, function: FunctionType) -> CodeType:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._reached(place)
            return function(*args, **kwargs)

        template = _stub.__code__
        consts = tuple(call if isinstance(one, str) else one for one in template.co_consts)
        return template.replace(co_consts=consts, co_freevars=function.__code__.co_freevars)

    def _reached(self, place: _Place) -> None:
        for function in self._functions[place]:
            function.__code__ = self._codes.pop(function, function.__code__)
        mutants = self._waiting.pop(place, ())
        if self._say is not None or not mutants or not self._may_split():
            return
        gc.freeze()
        for mutant, how in split(mutants, at_once=self._at_once):
            if isinstance(how, Ended):
                if (heard := _heard(mutant, how)) is not None:
                    self._found.append(heard)
                continue
            self._become(mutant, how)
            return
        gc.unfreeze()

    def _become(self, mutant: Mutant, say: Say) -> None:
        self._say, self._mutant = say, mutant
        self._forget()
        self._begin(self._test)
        place = place_of(mutant)
        if place is None or not replaced(mutant, self._functions[place]):
            say(("import", ""))
            os._exit(0)

    def _forget(self) -> None:
        for function, code in self._codes.items():
            function.__code__ = code
        self._codes.clear()
        self._waiting.clear()

    def _may_split(self) -> bool:
        """Is there nothing that a child would share: no other thread, and no file that is open?"""
        return _n_within("/proc/self/task") == 1 and _n_open_files() == self._n_open_files


def _heard(mutant: Mutant, ended: Ended) -> tuple[Judged, Sequence[str]] | None:
    """Return what became of a child and what it survived; None if it says nothing of the mutant."""
    last: tuple[Any, ...] = ended.said[-1] if ended.said else ("",)
    if last[0] == "unsound":
        return None
    if last[0] == "survived":
        return Judged(mutant, "survived"), last[1]
    return judged_by(mutant, ended), ()


def _n_open_files() -> int:
    return _n_within("/proc/self/fd")


def _n_within(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())
