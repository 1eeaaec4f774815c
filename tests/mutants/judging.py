"""The tests in one process: imported once, then a child for each mutant that runs what reaches it.

A mutant inside a function takes the place of that function's code in the child, so nothing is
imported again. What counts while modules are imported (constants, defaults, and functions that are
called meanwhile) is judged in a process that imports the changed module.
"""

import gc
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import takewhile
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, Literal

import coverage
import hypothesis
import pytest

from tests.mutants.forks import Ended, Say, limit_cpu, run_all, silence
from tests.mutants.operators import Owner
from tests.mutants.rules import REPOSITORY, SOURCES, Mutant

CACHE: Final = REPOSITORY / ".mutants"
# A test under a mutant has made a loop when it uses so many times the CPU that it uses without.
LOOP_TIMES: Final = 10
LOOP_SECONDS_MIN: Final = 10.0
DIGEST_CHARS: Final = 20
IMPORT_SECONDS_MAX: Final = 60.0
WORLDS: Final = "1"  # CROMFORD_SEED: a mutant plays the same worlds whenever it is judged.

Functions = dict[tuple[str, Owner], list[FunctionType]]
Verdict = Literal["noticed", "looped", "unreached", "survived", "stalled", "import", "unsound"]

hypothesis.settings.register_profile(
    "mutants",
    derandomize=True,
    database=None,
    deadline=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    suppress_health_check=list(hypothesis.HealthCheck),
)


@dataclass(frozen=True)
class Judged:
    """What became of a mutant, and the test that decided it.

    `import` is no end: it has to be judged where it is imported. `unsound` says nothing of it.
    """

    mutant: Mutant
    verdict: Verdict
    by: str = ""


@dataclass(frozen=True)
class Reach:
    """What one file of tests runs where nothing is changed.

    Attributes:
        cpu_seconds: Of each test.
        lines: Module to line to the tests that run it.
    """

    cpu_seconds: dict[str, float]
    lines: dict[str, dict[str, list[str]]]

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests that run a line of the mutant, in the order of the file."""
        by_line = self.lines.get(mutant.module.name, {})
        found = {test for line in mutant.lines for test in by_line.get(str(line), ())}
        return [test for test in self.cpu_seconds if test in found]

    def limit_seconds(self, test: str) -> float:
        return max(LOOP_SECONDS_MIN, LOOP_TIMES * self.cpu_seconds[test])


class UnsoundTests(Exception):
    """Tests fail where nothing is changed, so nothing can be said of mutants."""


@cache
def _shared_digest() -> bytes:
    """Return what the reach of every file depends on: the program, and what tests share."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.rglob("*.py"), *(REPOSITORY / "tests").rglob("*.py")]):
        named = str(path.relative_to(REPOSITORY))
        if not path.name.startswith("test_") and "tests/mutants/" not in named:
            digest.update(named.encode() + path.read_bytes())
    return digest.digest()


@cache
def _cached(test_file: str) -> Path:
    """Return where the reach of a file is kept, as the file is when this is asked first."""
    content = (REPOSITORY / "tests" / test_file).read_bytes()
    digest = hashlib.sha256(_shared_digest() + content).hexdigest()[:DIGEST_CHARS]
    return CACHE / f"{test_file.replace('/', '.')}.{digest}.json"


@dataclass(eq=False)
class Bench:
    """A plugin of pytest in whose place of running tests the mutants are judged.

    Args:
        judge: What is done once all is collected.
    """

    judge: "Callable[[Bench], None]"
    items: dict[str, list[pytest.Item]] = field(default_factory=dict)
    early: set[tuple[str, str]] = field(default_factory=set)
    failed: Callable[[str], None] = lambda _: None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Judge, in the place of running tests."""
        sys.setprofile(None)
        for item in session.items:
            name = str(item.path.relative_to(REPOSITORY / "tests"))
            self.items.setdefault(name, []).append(item)
        self.judge(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell of what fails."""
        if report.failed:
            self.failed(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Tell of what cannot even be imported."""
        if report.failed:
            self.failed(report.nodeid)

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Note which functions run while modules are imported."""
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(SOURCES)):
            self.early.add((code.co_filename, code.co_qualname))

    def run(self, items: Sequence[pytest.Item], before: Callable[[str], None]) -> None:
        """Run some tests, in this process."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            before(item.nodeid)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def collect(test_files: Sequence[str], bench: Bench) -> None:
    """Import the tests, and let the bench judge."""
    os.environ["CROMFORD_SEED"] = WORLDS
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:terminal", "-s"]
    options += ["-o", "timeout=0", "-o", "addopts=", "--import-mode=importlib", "--strict-config"]
    options += ["--hypothesis-profile=mutants", f"--rootdir={REPOSITORY}"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is imported above
    options += ["-c", str(REPOSITORY / "pyproject.toml")]
    options += [str(REPOSITORY / "tests" / name) for name in test_files]
    status = pytest.main(options, plugins=[bench])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise UnsoundTests(f"pytest ended with {status!r}: {', '.join(test_files)}")


def _alone() -> None:
    """Be a child that tells nobody anything, and has its own place for files."""
    silence()
    os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(dir=os.environ["MUTANTS_TEMPORARY"])


def measure(bench: Bench, test_file: str) -> Reach:
    """Return what a file of tests reaches, measured once until something that it rests on changes.

    Raises:
        UnsoundTests: If a test fails.
    """
    path = _cached(test_file)
    if not path.exists():
        [(_, ended)] = run_all([test_file], lambda name, say: _trace(bench, name, say), at_once=1)
        said = ended.said[-1] if ended.said else {"failed": f"the process ({ended.signal})"}
        if "failed" in said:
            raise UnsoundTests(f"without any mutant: {said['failed']} fails")
        CACHE.mkdir(exist_ok=True)
        path.write_text(json.dumps(said), encoding="utf-8")
    said = json.loads(path.read_text(encoding="utf-8"))
    return Reach(said["cpu_seconds"], said["lines"])


def _trace(bench: Bench, test_file: str, say: Say) -> None:
    _alone()
    failures: list[str] = []
    bench.failed = failures.append
    started: dict[str, float] = {}
    tracer = coverage.Coverage(data_file=None, config_file=False, include=[f"{SOURCES}/*"])

    def before(test: str) -> None:
        started[test] = time.process_time()
        tracer.switch_context(test)

    with tracer.collect():
        bench.run(bench.items[test_file], before)
    if failures:
        say({"failed": failures[0]})
        return
    points = [*started.values(), time.process_time()]
    spent = {
        test: round(end - start, 2)
        for test, start, end in zip(started, points, points[1:], strict=False)
    }
    data = tracer.get_data()
    lines = {
        ".".join(Path(name).relative_to(SOURCES).with_suffix("").parts): {
            str(line): sorted(filter(None, tests))
            for line, tests in data.contexts_by_lineno(name).items()
        }
        for name in data.measured_files()
    }
    say({"cpu_seconds": spent, "lines": lines})


def decide(bench: Bench, mutant: Mutant, reached: Sequence[tuple[str, float]], say: Say) -> None:
    """Run the tests that reach a mutant, in the child in which it is true, to the first failure."""
    limits = dict(reached)

    def failed(test: str) -> None:
        say(("noticed", test))
        os._exit(0)

    def before(test: str) -> None:
        say(("looped", test))  # What was said last counts, if it ends here for want of CPU.
        limit_cpu(limits[test])

    bench.failed = failed
    items = [item for name in mutant.module.tests for item in bench.items[name]]
    try:
        bench.run([item for item in items if item.nodeid in limits], before)
    except BaseException as error:  # noqa: BLE001 - whatever ends the run of a test, notices
        say(("noticed", repr(error)))
    else:
        say(("survived", ""))


def judged_by(mutant: Mutant, ended: Ended) -> Judged:
    """Return what became of a mutant whose child ended so."""
    last: tuple[Verdict, str] = ended.said[-1] if ended.said else ("noticed", "")
    verdict, by = last
    if verdict == "unsound":
        raise UnsoundTests(f"{mutant.name}: {by}")
    if ended.is_late:
        verdict = "stalled"
    elif ended.signal == signal.SIGPROF:
        verdict = "looped"
    elif ended.signal or not ended.said:
        verdict, by = "noticed", f"{by} (signal {ended.signal})"
    return Judged(mutant, verdict, by)


def _code_of(whole: CodeType, owner: Owner) -> CodeType:
    waiting = [whole]
    while waiting:
        code = waiting.pop()
        if code.co_qualname == owner.qualname and code.co_firstlineno == owner.line:
            return code
        waiting += [const for const in code.co_consts if isinstance(const, CodeType)]
    raise ValueError(f"{owner}: not found")


def _functions() -> Functions:
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


def judge_in_functions(
    mutants: Sequence[Mutant], *, at_once: int, until: float
) -> Iterator[Judged | Mutant]:
    """Yield what became of each mutant; one that has to be imported changed is given back."""
    for name in {name for mutant in mutants for name in mutant.module.tests}:
        _cached(name)  # Both processes take the files for what they are now.
    ear, mouth = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(ear)
        _serve(mutants, mouth, at_once=at_once, until=until)
    os.close(mouth)
    by_name = {mutant.name: mutant for mutant in mutants}
    with os.fdopen(ear, encoding="utf-8") as answers:
        for line in answers:
            name, *rest = json.loads(line)
            yield Judged(by_name[name], *rest) if rest else by_name[name]
    _, status = os.waitpid(pid, 0)
    if status:
        raise UnsoundTests("the tests could not be run where nothing is changed")


def _serve(mutants: Sequence[Mutant], mouth: int, *, at_once: int, until: float) -> None:
    status = 1
    try:
        bench = Bench(lambda ready: _serve_all(ready, mutants, mouth, at_once=at_once, until=until))
        sys.setprofile(bench.note)
        collect(sorted({name for mutant in mutants for name in mutant.module.tests}), bench)
        status = 0
    except UnsoundTests as error:
        sys.stderr.write(f"{error}\n")
    except BaseException:  # noqa: BLE001 - nothing may go on in the copy of a process but its work
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


class Turns:
    """Whose turn it is, with which file of tests: a file is measured when somebody gets so far.

    Args:
        bench: Measures.
        mutants: In this order.
        functions: Those that can be changed, by their place.
        until: No turn begins later.
        tell: Is told of each mutant that has an end, or has to be imported.
    """

    def __init__(
        self,
        bench: Bench,
        mutants: Sequence[Mutant],
        functions: Functions,
        *,
        until: float,
        tell: Callable[..., None],
    ) -> None:
        self._bench = bench
        self._waiting = deque((mutant, 0) for mutant in mutants)
        self._until = until
        self._tell = tell
        self._functions = functions
        self._reaches: dict[str, Reach] = {}
        self._ran: set[str] = set()

    def __iter__(self) -> "Turns":
        return self

    def __next__(self) -> tuple[Mutant, int]:
        while self._waiting and time.monotonic() < self._until:
            mutant, place = self._waiting.popleft()
            if not self.functions(mutant):
                for name in mutant.module.tests:
                    self._reach(name)
                self._tell(mutant.name)
                continue
            for later in range(place, len(mutant.module.tests)):
                if self.reached(mutant, later):
                    self._ran.add(mutant.name)
                    return mutant, later
            verdict = "survived" if mutant.name in self._ran else "unreached"
            self._tell(mutant.name, verdict, "")
        raise StopIteration

    def go_on(self, mutant: Mutant, place: int) -> None:
        """Let a mutant that nobody noticed so far have its turn with the next file."""
        self._waiting.appendleft((mutant, place))

    def functions(self, mutant: Mutant) -> Sequence[FunctionType]:
        """Return the functions to be changed; none if that has to be imported."""
        owner, path = mutant.owner, str(mutant.module.path)
        if owner is None or (path, owner.qualname) in self._bench.early:
            return ()
        return self._functions.get((path, owner), ())

    def reached(self, mutant: Mutant, place: int) -> list[tuple[str, float]]:
        """Return the tests of a file that run the mutant, and the CPU that each may use."""
        reach = self._reach(mutant.module.tests[place])
        return [(test, reach.limit_seconds(test)) for test in reach.tests(mutant)]

    def _reach(self, name: str) -> Reach:
        if name not in self._reaches:
            self._reaches[name] = measure(self._bench, name)
        return self._reaches[name]


def _serve_all(
    bench: Bench, mutants: Sequence[Mutant], mouth: int, *, at_once: int, until: float
) -> None:
    def tell(*what: object) -> None:
        os.write(mouth, json.dumps(what).encode() + b"\n")

    turns = Turns(bench, mutants, _functions(), until=until, tell=tell)

    def work(turn: tuple[Mutant, int], say: Say) -> None:
        mutant, place = turn
        _alone()
        if replaced(mutant, turns.functions(mutant)):
            decide(bench, mutant, turns.reached(mutant, place), say)
        else:
            say(("import", ""))

    for (mutant, place), ended in run_all(turns, work, at_once=at_once):
        judged = judged_by(mutant, ended)
        if judged.verdict == "import":
            for name in mutant.module.tests:
                measure(bench, name)
            tell(mutant.name)
        elif judged.verdict == "survived":
            turns.go_on(mutant, place + 1)
        else:
            tell(mutant.name, judged.verdict, judged.by)


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


def judge_imported(mutants: Sequence[Mutant], *, at_once: int, until: float) -> Iterator[Judged]:
    """Yield what became of mutants, each in a process that imports everything anew."""
    in_time = takewhile(lambda _: time.monotonic() < until, mutants)
    for mutant, ended in run_all(in_time, _import_changed, at_once=at_once):
        yield judged_by(mutant, ended)


def _import_changed(mutant: Mutant, say: Say) -> None:
    _alone()

    def judge(bench: Bench) -> None:
        reached: list[tuple[str, float]] = []
        for name in mutant.module.tests:
            said = json.loads(_cached(name).read_text(encoding="utf-8"))
            reach = Reach(said["cpu_seconds"], said["lines"])
            reached += [(test, reach.limit_seconds(test)) for test in reach.cpu_seconds]
        decide(bench, mutant, reached, say)

    def failed(what: str) -> None:
        say(("noticed", f"{what} (import)"))
        os._exit(0)

    finder: Any = _Changed(mutant)
    sys.meta_path.insert(0, finder)
    limit_cpu(IMPORT_SECONDS_MAX)
    try:
        collect(mutant.module.tests, Bench(judge, failed=failed))
    except UnsoundTests as error:
        say(("unsound", str(error)))
