"""Mutants: which mistakes are made, that each is found again, and when one counts as noticed."""

import ast
import functools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FunctionType
from typing import cast

import pytest

from tests.mutants.bench import Bench, Reach, UnsoundTests
from tests.mutants.forks import Ended, Say, run_all
from tests.mutants.halfway import Halfway
from tests.mutants.judging import judge
from tests.mutants.mistyped import mistyped
from tests.mutants.operators import Owner, edits
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
from tests.mutants.verdicts import Judged, Verdict, decide, judged_by, replaced

EVERYTHING = '''
"""1 + 1 in a docstring."""
LIMIT: Final = 3
KEYS_CACHED: Final = 3

class Refused(Exception):
    def __init__(self, received: int) -> None:
        super().__init__(f"{received + 1}")
        self.received = received

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

    def is_in(self, a: int, b: int) -> bool:
        return a < 1 and not (b < 9 or self.off)

    def one_of(self) -> int | None:
        match self.seen:
            case [first] if first:
                return first
            case int():
                raise ValueError
            case _:
                raise AssertionError("a list of one")
'''
MADE = """
LIMIT: Final = 3 -> LIMIT: Final = 4
LIMIT: Final = 3 -> LIMIT: Final = 2
def __init__: ... -> return
size: int = 1 -> size: int = 2
size: int = 1 -> size: int = 0
5 -> 6
5 -> 4
def check: ... -> return
if amount < least or self.off -> if self.off
if amount < least or self.off -> if amount < least
if amount < least or self.off -> if amount <= least or self.off
self.remember(amount) -> pass
for name in 'step', ... -> for name in ...
for name in 'size', ... -> for name in ...
near(name) -> pass
if one in self.seen and (not self.off) -> if False
if one in self.seen and (not self.off) -> if not self.off
if one in self.seen and (not self.off) -> if one in self.seen
continue -> break
break -> continue
return near(left, right) or min(left, 2) == 0 -> return True
return near(left, right) or min(left, 2) == 0 -> return min(left, 2) == 0
return near(left, right) or min(left, 2) == 0 -> return near(left, right)
return near(left, right) or min(left, 2) == 0 -> return near(right, left) or min(left, 2) == 0
return near(left, right) or min(left, 2) == 0 -> return near(left, right) or max(left, 2) == 0
return near(left, right) or min(left, 2) == 0 -> return near(left, right) or min(left, 3) == 0
return near(left, right) or min(left, 2) == 0 -> return near(left, right) or min(left, 2) == 1
return tuple((x - 1 for x in self.seen if x)) -> return ()
return tuple((x - 1 for x in self.seen if x)) -> return tuple((x - 2 for x in self.seen if x))
return tuple((x - 1 for x in self.seen if x)) -> return tuple((x - 1 for x in self.seen if False))
return tuple((x - 1 for x in self.seen if x)) -> return tuple((x - 1 for x in self.seen if True))
return a < 1 and (not (b < 9 or self.off)) -> return False
return a < 1 and (not (b < 9 or self.off)) -> return a <= 1 and (not (b < 9 or self.off))
return a < 1 and (not (b < 9 or self.off)) -> return a < 1 and (not self.off)
return a < 1 and (not (b < 9 or self.off)) -> return a < 1 and (not b < 9)
return a < 1 and (not (b < 9 or self.off)) -> return a < 1 and (not (b <= 9 or self.off))
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
    [_, off_by_one] = written("def f(n) -> bool:\n    return n < 3\n").mutants()
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
            def run(self, _: object, before: Callable[[str], None], __: object = None) -> None:
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
    assert replaced(list(module.mutants())[1], [scope["f"]])
    assert elsewhere(3)


def test_no_test_is_run_where_none_is_left() -> None:
    Bench(lambda _: None).run([], pytest.fail)


@dataclass(frozen=True)
class Item:
    """What this judge reads of an item of pytest."""

    nodeid: str
    fixturenames: tuple[str, ...] = ()


class Played(Bench):
    """A bench whose tests are functions, and fail by an exception."""

    def __init__(self, tests: Mapping[str, Callable[[], object]], **fixtures: str) -> None:
        super().__init__(lambda _: None)
        self.tests = tests
        items = [Item(name, (fixtures[name],) if name in fixtures else ()) for name in tests]
        self.items = cast("Sequence[pytest.Item]", items)

    def run(
        self,
        items: Sequence[pytest.Item],
        before: Callable[[str], None],
        after: Callable[[str], None] = lambda _: None,
    ) -> None:
        for item in items:
            before(item.nodeid)
            try:
                self.tests[item.nodeid]()
            except AssertionError:
                self.failed(item.nodeid)
            after(item.nodeid)


RULE = """
def f(n, *, most=3) -> bool:
    return n < most

def g(n) -> None:
    f(n)
    f(n)
"""


@pytest.fixture
def branched(
    written: Callable[[str], Module],
) -> Callable[..., tuple[dict[str, set[str]], list[str]]]:
    def branch(
        tests: Callable[[Mapping[str, FunctionType]], Mapping[str, Callable[[], object]]],
        cpu_seconds: float = 1.0,
        **fixtures: str,
    ) -> tuple[dict[str, set[str]], list[str]]:
        """Judge all mutants of the rule halfway in some tests; return what is told, and a trace."""
        module = written(RULE)
        scope: dict[str, FunctionType] = {}
        exec(compile(module.source, str(module.path), "exec"), scope)  # noqa: S102 - an import
        functions = {
            (str(module.path), Owner(name, scope[name].__code__.co_firstlineno)): [scope[name]]
            for name in "fg"
        }
        codes = {name: scope[name].__code__ for name in "fg"}
        bench = Played(tests(scope), **fixtures)
        told: dict[str, set[str]] = {}

        def tell(judged: Judged, survived: Sequence[str]) -> None:
            verdict = judged.by or f"survived {' '.join(survived)}"
            told.setdefault(judged.mutant.text, set()).add(verdict)

        asked = [(mutant, list(bench.tests)) for mutant in module.mutants() if mutant.owner]
        reach = Reach(dict.fromkeys(bench.tests, cpu_seconds), {}, frozenset())
        Halfway(bench, reach, functions, asked, tell, at_once=1).run()
        assert {name: scope[name].__code__ for name in "fg"} == codes, "all is as it was"
        return told, [mutant.text for mutant, _ in asked]

    return branch


OFF_BY_ONE = "f: return n < most -> return n <= most"


def alone(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a child: it branches off where no other thread is, and none of it gets out."""

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        def work(_job: str, say: Say) -> None:
            try:
                test(**fixtures)
            except BaseException:  # noqa: BLE001 - it is told here, and fails there
                say(traceback.format_exc())
            else:
                say("passed")

        ((_, ended),) = run_all(["test"], work, at_once=1)
        assert ended.said == ("passed",), "\n".join(map(str, ended.said))

    return run


@alone
def test_a_mutant_branches_off_where_its_function_is_called_and_the_test_goes_on_unchanged(
    branched: Callable[..., tuple[dict[str, set[str]], list[str]]],
) -> None:
    begun: list[int] = []

    def tests(rule: Mapping[str, FunctionType]) -> dict[str, Callable[[], object]]:
        def at_the_limit() -> None:
            begun.append(os.getpid())
            assert not rule["f"](3)
            assert rule["f"](n=3, most=4)

        def below_it() -> None:
            assert rule["f"](2)
            begun.append(os.getpid())

        return {"at the limit": at_the_limit, "below it": below_it}

    told, asked = branched(tests)
    assert told[OFF_BY_ONE] == {"at the limit"}
    assert told["f: return n < most -> return False"] == {"at the limit"}
    assert {text for text in asked if text.startswith("g:")}.isdisjoint(told), "never called"
    assert begun == [os.getpid()] * 2, "each test began once, and ended here once"


@alone
def test_who_survives_goes_to_the_next_test_at_once_if_that_is_cheap(
    branched: Callable[..., tuple[dict[str, set[str]], list[str]]],
) -> None:
    def tests(rule: Mapping[str, FunctionType]) -> dict[str, Callable[[], object]]:
        def above() -> None:
            assert not rule["f"](4)

        def below() -> None:
            assert rule["f"](2)

        return {"above": above, "below": below}

    dear, _ = branched(tests)
    cheap, _ = branched(tests, 0.1)
    assert dear[OFF_BY_ONE] == {"survived above", "survived below"}
    assert cheap[OFF_BY_ONE] == {"survived above below"}
    never = "f: return n < most -> return False"
    assert dear[never] == {"survived above", "below"}
    assert cheap[never] == {"below"}


@alone
def test_nothing_branches_off_that_would_share_files_or_is_wrong_unchanged(
    branched: Callable[..., tuple[dict[str, set[str]], list[str]]], tmp_path: Path
) -> None:
    def tests(rule: Mapping[str, FunctionType]) -> dict[str, Callable[[], object]]:
        def with_files() -> None:
            assert not rule["f"](3)

        def with_an_open_file() -> None:
            with (tmp_path / "open").open("w"):
                assert not rule["f"](3)

        def wrong() -> None:
            assert rule["f"](3)

        return {"files": with_files, "open": with_an_open_file, "wrong": wrong}

    told, _ = branched(tests, files="tmp_path")
    assert told == {}


def test_files_have_their_turns_near_tests_first_until_one_notices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = Module("room", "rule", ("one", "two"))
    mutants = [Mutant(module, at, name, None, range(1)) for at, name in enumerate("abcdefg")]
    verdicts: dict[str, dict[str, Verdict]] = {
        "nearest one": {
            "a": "noticed",
            "b": "survived",
            "c": "survived",
            "d": "unreached",
            "e": "survived",
            "f": "survived",
            "g": "survived",
        },
        "nearest two": dict.fromkeys("bcdefg", "unreached"),
        "near one": {**dict.fromkeys("bcef", "survived"), "d": "unreached", "g": "noticed"},
        "near two": {
            "b": "unreached",
            "c": "looped",
            "d": "unreached",
            "e": "unreached",
            "f": "unreached",
        },
        "far one": {"b": "survived", "d": "unreached", "e": "noticed", "f": "survived"},
        "far two": {"b": "survived", "d": "unreached", "f": "whole"},
        "whole two": {"f": "noticed"},
    }
    began: list[str] = []

    def judge_by(name: str, those: Sequence[Mutant], this: str, **_: object) -> Iterator[Judged]:
        said = verdicts[f"{this} {name}"]
        began.append(f"{this} {name}")
        assert {mutant.text for mutant in those} == {*said}
        for mutant in those:
            yield Judged(mutant, said[mutant.text])

    monkeypatch.setattr("tests.mutants.judging.judge_by", judge_by)
    found = [
        (judged.mutant.text, judged.verdict)
        for judged in judge(mutants, at_once=1, until=time.monotonic() + 600)
    ]
    assert began == [*verdicts]
    assert [text for text, verdict in found if verdict == "suspected"] == list("bdef")
    assert dict(found) == {
        "a": "noticed",
        "b": "survived",
        "c": "looped",
        "d": "unreached",
        "e": "noticed",
        "f": "noticed",
        "g": "noticed",
    }
    assert list(judge(mutants, at_once=1, until=time.monotonic() - 1)) == []


def test_a_mutant_that_the_type_checker_refuses_is_told_with_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = """
def half(n: int) -> int | None:
    return n // 2 if n > 1 else None

def near(n: int, name: str) -> bool:
    found = half(n)
    return found is not None and found > len(name)

def asked(n: int, name: str) -> bool:
    return near(n, name)
"""
    sources = tmp_path / "src" / "small"
    sources.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.mypy]\nstrict = true\n", encoding="utf-8")
    (sources / "rule.py").write_text(rule, encoding="utf-8")
    for place in ("tests.mutants.rules", "tests.mutants.mistyped"):
        monkeypatch.setattr(f"{place}.SOURCES", sources)
    monkeypatch.setattr("tests.mutants.mistyped.REPOSITORY", tmp_path)
    mutants = list(Module("room", "rule", ()).mutants())

    refused = {judged.mutant.text: judged.by for judged in mistyped(mutants)}

    half_of_it = "found > len(name)"
    assert refused == {
        f"near: return found is not None and {half_of_it} -> return {half_of_it}": "operator",
        "asked: return near(n, name) -> return near(name, n)": "arg-type",
    }
    assert len(mutants) > len(refused)
    assert (sources / "rule.py").read_text(encoding="utf-8") == rule


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
