"""The rules that are changed: rooms, modules, which tests should notice, and what is explained."""

import ast
import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import Any, Final

from tests.mutants.operators import Owner, edits

REPOSITORY: Final = Path(__file__).parent.parent.parent
SOURCES: Final = REPOSITORY / "src" / "cromford"
ROOMS: Final = Path(__file__).parent / "rooms.toml"
REASONS: Final = Path(__file__).parent / "reasons.toml"
ID_CHARS: Final = 8
NEEDS_A_NODE: Final = "_core"


@dataclass(frozen=True)
class Module:
    """A module whose rules are changed.

    Attributes:
        room: Under which it is counted.
        name: Without the package: `factory.terms`.
        tests: The files that should notice, the fast ones first.
    """

    room: str
    name: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        return SOURCES / Path(*self.name.split(".")).with_suffix(".py")

    @cached_property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def mutants(self) -> "Iterator[Mutant]":
        """Yield each mutant of the module, in the order of its text."""
        return mutants_of(self)


@dataclass(frozen=True)
class Mutant:
    """One changed rule.

    Attributes:
        module: Where.
        number: Which of the module's edits.
        text: The function, the statement before and after: it stays when lines are moved.
        owner: The function whose code is replaced; none if the module is imported changed.
        lines: Who runs these may notice.
    """

    module: Module
    number: int
    text: str
    owner: Owner | None
    lines: range

    @property
    def name(self) -> str:
        return f"{self.module.name}: {self.text}"

    @property
    def id(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()[:ID_CHARS]

    def tree(self) -> ast.Module:
        """Return the changed module."""
        tree = ast.parse(self.module.source)
        for number, edit in enumerate(edits(tree)):
            if number == self.number:
                edit.make()
                break
        return tree

    def code(self) -> CodeType:
        """Compile the changed module. Nothing is written."""
        return compile(self.tree(), str(self.module.path), "exec")


def mutants_of(module: Module) -> Iterator[Mutant]:
    """Yield each mutant of a module; of several that read alike the later ones are numbered."""
    seen: Counter[str] = Counter()
    for number, edit in enumerate(edits(ast.parse(module.source))):
        before, after = edit.texts()
        text = f"{edit.function or '<module>'}: {before} -> {after}"
        seen[text] += 1
        if seen[text] > 1:
            text = f"{text} #{seen[text]}"
        yield Mutant(module, number, text, edit.owner, edit.lines)


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def modules() -> tuple[Module, ...]:
    """Return all modules whose rules are changed, where most money is at risk first."""
    read = _read(ROOMS)
    first = read.pop("numbers")
    also = {package: [*_files(patterns)] for package, patterns in read.pop("also").items()}
    return tuple(
        Module(room, name, _unique([first, *tests, *also.get(name.rpartition(".")[0], ())]))
        for room, table in read.items()
        if isinstance(table, dict)
        for name, tests in table.items()
    )


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _files(patterns: Iterable[str]) -> Iterator[str]:
    """Yield the files of tests; those that need a node are left out, for most have none."""
    tests = REPOSITORY / "tests"
    for pattern in patterns:
        for path in sorted(tests.glob(pattern)):
            if not path.stem.endswith(NEEDS_A_NODE):
                yield str(path.relative_to(tests))


def packages() -> tuple[str, ...]:
    """Return the packages of which every module has to have its tests."""
    return tuple(_read(ROOMS)["packages"])


def reasons() -> dict[str, str]:
    """Return why a mutant that nobody notices is right, by its name."""
    return {
        name: entry["reason"] for entry in _read(REASONS).get("kept", ()) for name in entry["names"]
    }


def unknown(names: Iterable[str]) -> list[str]:
    """Return the names of which there is no mutant: the rule was changed, or is gone."""
    wanted = set(names)
    touched = {name.split(":", 1)[0] for name in wanted}
    known = {
        mutant.name for module in modules() if module.name in touched for mutant in module.mutants()
    }
    return sorted(wanted - known)
