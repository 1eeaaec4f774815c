"""Mutants that the type checker refuses: nothing lands with them, whatever the tests say.

A guard against None that is left out, two arguments in each other's place. The checker stays awake
over a copy of the program, into which one mutant after the other is written.
"""

import ast
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.mutants.bench import UnsoundTests
from tests.mutants.rules import REPOSITORY, SOURCES, Module, Mutant
from tests.mutants.verdicts import Judged

_CONFIGURATION: Final = "pyproject.toml"
_IDLE_SECONDS_MAX: Final = 3600  # A checker that nobody stopped ends by itself.
# A condition that never holds is our way to write the mistake, and no error of its types.
_OWN_ERRORS: Final = "[unreachable]"


def mistyped(mutants: Sequence[Mutant]) -> Iterator[Judged]:
    """Yield each mutant that is refused, with the name of the error.

    Raises:
        UnsoundTests: If the program is refused where nothing is changed.
    """
    by_module: dict[Module, list[Mutant]] = {}
    for mutant in mutants:
        by_module.setdefault(mutant.module, []).append(mutant)
    with tempfile.TemporaryDirectory(prefix="mistyped-") as name:
        checker = _Checker(Path(name))
        try:
            checker.start()
            for module, of_module in by_module.items():
                yield from checker.refused(module, of_module)
        finally:
            checker.stop()


class _Checker:
    """The type checker over a copy of the program."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._sources = place / "src" / SOURCES.name

    def start(self) -> None:
        shutil.copytree(SOURCES, self._sources, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / _CONFIGURATION, self._place)
        options = ("--timeout", str(_IDLE_SECONDS_MAX), "--", "--config-file", _CONFIGURATION)
        if errors := self._errors("run", *options, str(self._sources)):
            raise UnsoundTests(f"types where nothing is changed: {errors[0]}")

    def stop(self) -> None:
        self._ask("kill")

    def refused(self, module: Module, mutants: Sequence[Mutant]) -> Iterator[Judged]:
        """Yield which mutants of a module are refused."""
        path = self._sources / module.path.relative_to(SOURCES)
        try:
            # A tree has no comments: one that only comments excuse says nothing of its mutants.
            path.write_text(ast.unparse(ast.parse(module.source)), encoding="utf-8")
            if self._errors("recheck"):
                return
            for mutant in mutants:
                path.write_text(ast.unparse(mutant.tree()), encoding="utf-8")
                if errors := self._errors("recheck"):
                    yield Judged(mutant, "mistyped", errors[0].rpartition("[")[2].rstrip("]"))
        finally:
            path.write_text(module.source, encoding="utf-8")

    def _errors(self, *command: str) -> list[str]:
        said = self._ask(*command)
        if said.returncode not in (0, 1):
            raise UnsoundTests(f"the type checker ended with {said.returncode}: {said.stderr}")
        lines = said.stdout.splitlines()
        return [line for line in lines if ": error: " in line and _OWN_ERRORS not in line]

    def _ask(self, *command: str) -> "subprocess.CompletedProcess[str]":
        status = self._place / "status"
        return subprocess.run(
            [sys.executable, "-m", "mypy.dmypy", "--status-file", str(status), *command],
            cwd=self._place,
            capture_output=True,
            text=True,
            check=False,
        )
