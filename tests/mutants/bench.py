"""A file of tests in a process that imported no other, and which lines each of its tests runs."""

import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Final

import coverage
import hypothesis
import pytest

from tests.mutants.forks import Say, run_all, silence
from tests.mutants.rules import REPOSITORY, SOURCES, Module, Mutant, modules

CACHE: Final = REPOSITORY / ".mutants"
# A test under a mutant has made a loop when it uses so many times the CPU that it uses without.
LOOP_TIMES: Final = 10
LOOP_SECONDS_MIN: Final = 3.0
DIGEST_CHARS: Final = 20
WORLDS: Final = "1"  # CROMFORD_SEED: a mutant plays the same worlds whenever it is judged.

hypothesis.settings.register_profile(
    "mutants",
    derandomize=True,
    database=None,
    deadline=None,
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    suppress_health_check=list(hypothesis.HealthCheck),
)


class UnsoundTests(Exception):
    """Tests fail where nothing is changed, so nothing can be said of mutants."""


@dataclass(frozen=True)
class Reach:
    """What one file of tests runs where nothing is changed.

    Attributes:
        cpu_seconds: Of each test, in the order of the file.
        lines: Module to line to the tests that run it.
        early: File and name of the functions that run while the file is imported.
    """

    cpu_seconds: dict[str, float]
    lines: dict[str, dict[str, list[str]]]
    early: frozenset[tuple[str, str]]

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

    def watch_imports(self) -> None:
        """Note from now on which functions run, until all is collected."""
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        """Note which functions run while modules are imported."""
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(SOURCES)):
            self.early.add((code.co_filename, code.co_qualname))

    def run(
        self,
        items: Sequence[pytest.Item],
        before: Callable[[str], None],
        after: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Run some tests, in this process."""
        for index, item in enumerate(items):
            following = items[index + 1] if index + 1 < len(items) else None
            before(item.nodeid)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            after(item.nodeid)


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


def be_alone() -> None:
    """Be a child that tells nobody anything, and has its own place for files."""
    silence()
    os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(dir=os.environ["MUTANTS_TEMPORARY"])


def _given_to(test_file: str) -> list[Module]:
    return [module for module in modules() if test_file in module.tests]


@cache
def cached_reach(test_file: str) -> Path:
    """Return where the reach of a file is kept, as the file is when this is asked first.

    It holds for the file itself, and for the modules that are given to it. What else the tests
    import may have changed: then a mutant may be given to too few of them, and is told as a
    survivor; it is never told as noticed by a test that does not.
    """
    digest = hashlib.sha256((REPOSITORY / "tests" / test_file).read_bytes())
    for module in _given_to(test_file):
        digest.update(module.name.encode() + module.source.encode())
    name = digest.hexdigest()[:DIGEST_CHARS]
    return CACHE / f"{test_file.replace('/', '.')}.{name}.json"


def measure(bench: Bench, test_file: str) -> Reach:
    """Return what a file of tests reaches, measured once until something that it rests on changes.

    The bench has watched what is imported, if it is to be measured.

    Raises:
        UnsoundTests: If a test fails.
    """
    path = cached_reach(test_file)
    if not path.exists():
        include = [str(module.path) for module in _given_to(test_file)]

        def trace(_: str, say: Say) -> None:
            _trace(bench, include, say)

        [(_, ended)] = run_all([test_file], trace, at_once=1)
        said = ended.said[-1] if ended.said else ("unsound", f"signal {ended.signal}")
        if not isinstance(said, dict):
            raise UnsoundTests(f"{test_file} where nothing is changed: {said[1]}")
        CACHE.mkdir(exist_ok=True)
        path.write_text(json.dumps(said), encoding="utf-8")
    return reach_of(test_file)


def reach_of(test_file: str) -> Reach:
    """Return what was measured of a file."""
    said = json.loads(cached_reach(test_file).read_text(encoding="utf-8"))
    early = frozenset((file, name) for file, name in said["early"])
    return Reach(said["cpu_seconds"], said["lines"], early)


def _trace(bench: Bench, include: Sequence[str], say: Say) -> None:
    be_alone()
    failures: list[str] = []
    bench.failed = failures.append
    started: dict[str, float] = {}
    tracer = coverage.Coverage(data_file=None, config_file=False, include=include)

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
    say({"cpu_seconds": spent, "lines": lines, "early": sorted(bench.early)})
