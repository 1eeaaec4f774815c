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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import count, takewhile
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
        """Return the tests that run a line of the mutant: those that mean it first.

        Who runs the fewest lines of the module, this one among them, stops here as a rule: a test
        of a refusal runs the checks before it, and none behind.
        """
        by_line = self.lines.get(mutant.module.name, {})
        found = {test for line in mutant.lines for test in by_line.get(str(line), ())}
        return [test for test in self.all_tests(mutant) if test in found]

    def all_tests(self, mutant: Mutant) -> list[str]:
        """Return every test, in the same order; those that run nothing of the module are last."""
        by_line = self.lines.get(mutant.module.name, {})
        n_lines = Counter(test for tests in by_line.values() for test in tests)
        return sorted(self.cpu_seconds, key=lambda test: (test not in n_lines, n_lines[test]))

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
    items: Sequence[pytest.Item] = ()
    early: set[tuple[str, str]] = field(default_factory=set)
    failed: Callable[[str], None] = lambda _: None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Judge, in the place of running tests."""
        sys.setprofile(None)
        self.items = session.items
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


def collect(test_file: str, bench: Bench) -> None:
    """Import a file of tests, and let the bench judge.

    Raises:
        UnsoundTests: If it could not.
    """
    os.environ["CROMFORD_SEED"] = WORLDS
    options = ["--whole-files", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:terminal"]
    options += ["-s"]
    options += ["-o", "timeout=0", "-o", "addopts=", "--import-mode=importlib", "--strict-config"]
    options += ["--hypothesis-profile=mutants", f"--rootdir={REPOSITORY}"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is imported above
    options += ["-c", str(REPOSITORY / "pyproject.toml")]
    options += [str(REPOSITORY / "tests" / test_file)]
    status = pytest.main(options, plugins=[bench])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise UnsoundTests(f"pytest ended with {status!r}: {test_file}")


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
        [(_, ended)] = run_all([bench], _trace, at_once=1)
        said = ended.said[-1] if ended.said else ("unsound", f"signal {ended.signal}")
        if not isinstance(said, dict):
            raise UnsoundTests(f"{test_file} where nothing is changed: {said[1]}")
        CACHE.mkdir(exist_ok=True)
        path.write_text(json.dumps(said), encoding="utf-8")
    return reach_of(test_file)


def reach_of(test_file: str) -> Reach:
    """Return what was measured of a file."""
    said = json.loads(_cached(test_file).read_text(encoding="utf-8"))
    return Reach(said["cpu_seconds"], said["lines"])


def _trace(bench: Bench, say: Say) -> None:
    _alone()
    failures: list[str] = []
    bench.failed = failures.append
    started: dict[str, float] = {}
    tracer = coverage.Coverage(data_file=None, config_file=False, include=[f"{SOURCES}/*"])

    def before(test: str) -> None:
        started[test] = time.process_time()
        tracer.switch_context(test)

    with tracer.collect():
        bench.run(bench.items, before)
    if failures:
        say(("unsound", f"{failures[0]} fails"))
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


def _code_of(whole: CodeType, owner: Owner) -> CodeType:
    waiting = [whole]
    while waiting:
        code = waiting.pop()
        if code.co_qualname == owner.qualname and code.co_firstlineno == owner.line:
            return code
        waiting += [const for const in code.co_consts if isinstance(const, CodeType)]
    raise ValueError(f"{owner}: not found")


def _functions() -> dict[tuple[str, Owner], list[FunctionType]]:
    """Return the functions of the program that the interpreter holds, by their place."""
    gc.unfreeze()
    found: dict[tuple[str, Owner], list[FunctionType]] = {}
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


def judge(
    mutants: Sequence[Mutant],
    *,
    at_once: int,
    until: float,
    begins: Callable[[str, int], None] = lambda _, __: None,
) -> Iterator[Judged]:
    """Yield what became of each mutant: with each file of its tests in turn, to the first failure.

    A file is run by a process that imported no other, so that a verdict is the same whatever else
    is judged. What could not begin before `until` is not yielded. `begins` hears of each file, and
    how many mutants it is given.
    """
    waiting, ran = list(mutants), set[str]()
    for place in count():
        by_file: dict[str, list[Mutant]] = {}
        for mutant in waiting:
            if place < len(mutant.module.tests):
                by_file.setdefault(mutant.module.tests[place], []).append(mutant)
            else:
                yield Judged(mutant, "survived" if mutant.name in ran else "unreached")
        left = set()
        for test_file, its_mutants in by_file.items():
            if time.monotonic() > until:
                return
            begins(test_file, len(its_mutants))
            for judged in judge_by(test_file, its_mutants, at_once=at_once, until=until):
                if judged.verdict == "survived":
                    ran.add(judged.mutant.name)
                if judged.verdict in ("survived", "unreached"):
                    left.add(judged.mutant.name)
                else:
                    yield judged
        waiting = [mutant for mutant in waiting if mutant.name in left]
        if not waiting:
            return


def judge_by(
    test_file: str, mutants: Sequence[Mutant], *, at_once: int, until: float
) -> Iterator[Judged]:
    """Yield what one file of tests says of each mutant.

    Raises:
        UnsoundTests: If its tests fail where nothing is changed.
    """
    by_name, imported = {mutant.name: mutant for mutant in mutants}, []
    _cached(test_file)  # Both processes take the file for what it is now.
    ear, mouth = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(ear)
        _serve(test_file, mutants, mouth, at_once=at_once, until=until)
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
    test_file: str, mutants: Sequence[Mutant], mouth: int, *, at_once: int, until: float
) -> None:
    """Be the process that has imported a file of tests, and tell of each mutant; never return."""
    status = 1

    def serve(bench: Bench) -> None:
        judging = _InFunctions(bench, measure(bench, test_file), _functions())
        in_time = takewhile(lambda _: time.monotonic() < until, mutants)
        for mutant, ended in run_all(in_time, judging.work, at_once=at_once):
            judged = judged_by(mutant, ended)
            told = json.dumps((mutant.name, judged.verdict, judged.by))
            os.write(mouth, told.encode() + b"\n")

    try:
        bench = Bench(serve)
        sys.setprofile(bench.note)
        collect(test_file, bench)
        status = 0
    except UnsoundTests as error:
        sys.stderr.write(f"{error}\n")
    except BaseException:  # noqa: BLE001 - nothing may go on in the copy of a process but its work
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


@dataclass(frozen=True)
class _InFunctions:
    """Judges mutants whose function takes the place of another, where nothing was made by it."""

    bench: Bench
    reach: Reach
    functions: dict[tuple[str, Owner], list[FunctionType]]

    def work(self, mutant: Mutant, say: Say) -> None:
        path, owner = str(mutant.module.path), mutant.owner
        if owner is None or (path, owner.qualname) in self.bench.early:
            say(("import", ""))
            return
        reached = [(test, self.reach.limit_seconds(test)) for test in self.reach.tests(mutant)]
        if not reached:
            say(("unreached", ""))
            return
        _alone()
        if replaced(mutant, self.functions.get((path, owner), ())):
            decide(self.bench, reached, say)
        else:
            say(("import", ""))


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
    _alone()

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
