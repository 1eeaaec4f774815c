"""Mutants: which mistakes are made, that each is found again, and when one counts as noticed."""

import ast
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import FunctionType

import pytest

from tests.mutants.forks import Ended, Say, run_all
from tests.mutants.judging import (
    Bench,
    Judged,
    UnsoundTests,
    Verdict,
    decide,
    judge,
    judged_by,
    replaced,
)
from tests.mutants.operators import edits
from tests.mutants.rules import (
    REPOSITORY,
    SOURCES,
    Module,
    Mutant,
    modules,
    packages,
    reasons,
    unknown,
)

EVERYTHING = '''
"""1 + 1 in a docstring."""
LIMIT: Final = 3

@dataclass(order=True)
class Rule(Base, tag=4):
    size: int = 1

    def __repr__(self):
        return "told" * 2

    def check(self, amount: int, *, least: int = 5) -> None:
        """Say nothing."""
        if amount < least or self.off:
            raise Refusal(f"{amount + 1}", expected=least - 1)
        log.info("checked", n=1)
        self.remember(amount)
        for name in ("step", "size"):
            near(name)
        for one in range(amount):
            if one in self.seen and not self.off:
                continue
            break

    def found(self, left: int, right: int) -> bool:
        assert left + right > 0
        return near(left, right) or min(left, 2) == 0

    def all_of(self) -> tuple[int, ...]:
        return tuple(x - 1 for x in self.seen if x)

    def one_of(self) -> int | None:
        match self.seen:
            case [first] if first:
                return first
            case _:
                raise ValueError
'''
MADE = """
LIMIT: Final = 3 -> LIMIT: Final = 4
LIMIT: Final = 3 -> LIMIT: Final = 2
size: int = 1 -> size: int = 2
size: int = 1 -> size: int = 0
5 -> 6
5 -> 4
def check: ... -> return
if amount < least or self.off -> if False
if amount < least or self.off -> if self.off
if amount < least or self.off -> if amount < least
if amount < least or self.off -> if amount <= least or self.off
self.remember(amount) -> pass
for name in 'step', ... -> for name in ...
for name in 'size', ... -> for name in ...
near(name) -> pass
if one in self.seen and (not self.off) -> if False
if one in self.seen and (not self.off) -> if True
if one in self.seen and (not self.off) -> if not self.off
if one in self.seen and (not self.off) -> if one in self.seen
continue -> break
break -> continue
return near(left, right) or min(left, 2) == 0 -> return False
return near(left, right) or min(left, 2) == 0 -> return True
return near(left, right) or min(left, 2) == 0 -> return min(left, 2) == 0
return near(left, right) or min(left, 2) == 0 -> return near(left, right)
return near(left, right) or min(left, 2) == 0 -> return near(right, left) or min(left, 2) == 0
return near(left, right) or min(left, 2) == 0 -> return near(left, right) or max(left, 2) == 0
return near(left, right) or min(left, 2) == 0 -> return near(left, right) or min(left, 3) == 0
return near(left, right) or min(left, 2) == 0 -> return near(left, right) or min(left, 1) == 0
return near(left, right) or min(left, 2) == 0 -> return near(left, right) or min(left, 2) == 1
return tuple((x - 1 for x in self.seen if x)) -> return ()
return tuple((x - 1 for x in self.seen if x)) -> return tuple((x + 1 for x in self.seen if x))
return tuple((x - 1 for x in self.seen if x)) -> return tuple((x - 2 for x in self.seen if x))
return tuple((x - 1 for x in self.seen if x)) -> return tuple((x - 0 for x in self.seen if x))
return tuple((x - 1 for x in self.seen if x)) -> return tuple((x - 1 for x in self.seen if False))
return tuple((x - 1 for x in self.seen if x)) -> return tuple((x - 1 for x in self.seen if True))
case [first] if first -> case [first] if False
case [first] if first -> case [first] if True
return first -> return None
raise ValueError -> pass
"""


def test_small_mistakes_are_made_in_rules_and_nowhere_else() -> None:
    made = [" -> ".join(edit.texts()) for edit in edits(ast.parse(EVERYTHING))]
    assert made == MADE.strip().splitlines()


def test_an_edit_changes_its_own_place_only_and_a_tree_is_whole_until_then() -> None:
    tree = ast.parse(EVERYTHING)
    whole = ast.dump(tree)
    n_edits = len(list(edits(tree)))
    assert ast.dump(tree) == whole
    for number in range(n_edits):
        tree = ast.parse(EVERYTHING)
        next(islice(edits(tree), number, None)).make()
        assert ast.dump(tree) != whole
        assert compile(tree, "changed", "exec")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Module]:
    def write(source: str) -> Module:
        (tmp_path / "rule.py").write_text(source, encoding="utf-8")
        return Module("room", "rule", ())

    monkeypatch.setattr("tests.mutants.rules.SOURCES", tmp_path)
    return write


def test_a_mutant_keeps_its_name_where_lines_are_moved(written: Callable[[str], Module]) -> None:
    before = {mutant.name: mutant.id for mutant in written(EVERYTHING).mutants()}
    moved = {mutant.name: mutant.id for mutant in written("# moved\n\n" + EVERYTHING).mutants()}
    assert moved == before
    assert len(set(before.values())) == len(before)


def test_mutants_that_read_alike_are_numbered(written: Callable[[str], Module]) -> None:
    module = written("def f():\n    a = 0\n    a = 0\n")
    names = [mutant.name for mutant in module.mutants()]
    assert names == ["rule: f: a = 0 -> a = 1", "rule: f: a = 0 -> a = 1 #2"]


def test_the_code_of_a_mutant_does_what_its_name_says(written: Callable[[str], Module]) -> None:
    [_, _, off_by_one] = written("def f(n) -> bool:\n    return n < 3\n").mutants()
    scope: dict[str, Callable[[int], bool]] = {}
    exec(off_by_one.code(), scope)  # noqa: S102 - the changed module, as a judge runs it
    assert off_by_one.text == "f: return n < 3 -> return n <= 3"
    assert (scope["f"](3), scope["f"](4)) == (True, False)


def ended(work: Callable[[int, Say], None]) -> Ended:
    [(_, how)] = run_all([0], work, at_once=1)
    return how


def test_a_child_says_what_it_found_and_dies_alone() -> None:
    def speak(job: int, say: Say) -> None:
        say(["noticed", job])
        os._exit(3)

    def die(_: int, __: Say) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended(speak) == Ended(said=(["noticed", 0],), signal=0, is_late=False)
    assert ended(die) == Ended(said=(), signal=signal.SIGKILL, is_late=False)


def loop(*_: object) -> None:
    while True:
        pass


@pytest.fixture
def judged(written: Callable[[str], Module]) -> Callable[[Callable[[], object]], Judged]:
    def judge_alone(test: Callable[[], object]) -> Judged:
        """Judge the first mutant of a rule by one test, as if pytest ran it."""
        mutant = next(written("def f() -> bool:\n    return a is b\n").mutants())

        class Alone(Bench):
            def run(self, _: object, before: Callable[[str], None]) -> None:
                before("the test")
                if not test():
                    self.failed("the test")

        def work(_: int, say: Say) -> None:
            decide(Alone(lambda _: None), [("the test", 0.05)], say)

        return judged_by(mutant, ended(work))

    return judge_alone


def test_only_a_failure_a_death_and_a_loop_count_as_noticed(
    judged: Callable[[Callable[[], object]], Judged], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = {
        "passes": judged(lambda: True).verdict,
        "fails": judged(lambda: False).verdict,
        "exits": judged(sys.exit).verdict,
        "dies": judged(lambda: os.kill(os.getpid(), signal.SIGKILL)).verdict,
        "loops": judged(loop).verdict,
    }
    monkeypatch.setattr("tests.mutants.forks.WALL_SECONDS_MAX", 0.0)
    assert {**verdicts, "waits": judged(signal.pause).verdict} == {
        "passes": "survived",
        "fails": "noticed",
        "exits": "noticed",
        "dies": "noticed",
        "loops": "looped",
        "waits": "stalled",
    }


def test_a_mistake_of_the_judge_is_not_taken_for_a_mutant_that_was_noticed(
    written: Callable[[str], Module],
) -> None:
    def fail(_: int, __: Say) -> None:
        raise KeyError("of the judge")

    mutant = next(written("LIMIT = 3\n").mutants())
    with pytest.raises(UnsoundTests, match="of the judge"):
        judged_by(mutant, ended(fail))


def test_a_function_does_what_the_mutant_says_wherever_it_was_imported_to(
    written: Callable[[str], Module],
) -> None:
    module = written("def f(n) -> bool:\n    return n < 3\n")
    scope: dict[str, FunctionType] = {}
    exec(compile(module.source, str(module.path), "exec"), scope)  # noqa: S102 - as an import does
    elsewhere = scope["f"]
    assert not elsewhere(3)
    assert replaced(list(module.mutants())[2], [scope["f"]])
    assert elsewhere(3)


def test_files_have_their_turns_until_one_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Module("room", "rule", ("near", "far"))
    mutants = [Mutant(module, number, name, None, range(1)) for number, name in enumerate("abcd")]
    verdicts: dict[str, dict[str, Verdict]] = {
        "near": {"a": "noticed", "b": "survived", "c": "unreached", "d": "unreached"},
        "far": {"b": "unreached", "c": "looped", "d": "unreached"},
    }

    def judge_by(name: str, those: Sequence[Mutant], **_: object) -> Iterator[Judged]:
        assert [mutant.text for mutant in those] == list(verdicts[name])
        for mutant in those:
            yield Judged(mutant, verdicts[name][mutant.text])

    monkeypatch.setattr("tests.mutants.judging.judge_by", judge_by)
    found = judge(mutants, at_once=1, until=time.monotonic() + 600)
    assert {judged.mutant.text: judged.verdict for judged in found} == {
        "a": "noticed",
        "b": "survived",
        "c": "looped",
        "d": "unreached",
    }
    assert list(judge(mutants, at_once=1, until=time.monotonic() - 1)) == []


def test_every_module_in_the_rooms_has_tests_that_exist() -> None:
    named = {module.name for module in modules()}
    places = [SOURCES.joinpath(*package.split(".")) for package in packages()]
    there = {
        ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        for place in places
        for path in place.glob("*.py")
        if path.name != "__init__.py"
    }
    assert there <= named
    missing = {
        test
        for module in modules()
        for test in module.tests
        if not (REPOSITORY / "tests" / test).exists()
    }
    assert missing == set()
    assert all(module.tests and module.path.exists() for module in modules())


def test_every_reason_is_for_a_mutant_that_is_there() -> None:
    assert all(reason.strip() for reason in reasons().values())
    assert unknown(reasons()) == []
    gone = "factory.terms: nowhere: a -> b"
    assert unknown([gone]) == [gone]
