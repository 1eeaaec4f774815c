"""The page of numbers, as the modules have them: `python -m tests.docs.numbers`.

It goes to `docs/protocol/19-numbers.md`, so that whoever changes a limit changes the page, too.
"""

import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from types import ModuleType
from typing import Final

from tests.mutants.rules import Module, modules

HEAD: Final = """\
# 19. Numbers

> **Implemented:** everything on this page.

Each number that a rule rests on, with its name in the code. What both sides compute has to be the
same on both; what one side decides alone may differ. Sizes are bytes, weights are weight units,
amounts are as their names say. How much is kept in memory (`_CACHED`) is in
[performance](../performance.md).

Written by `python -m tests.docs.numbers`; a test compares each number with the module.
"""


@dataclass(frozen=True)
class Number:
    """One named number of a module.

    Attributes:
        name: As the module has it; a member of an enumeration has its class before it.
        value: As it is told.
        why: The comment beside it, or above it.
    """

    name: str
    value: str
    why: str


def numbered_modules() -> tuple[Module, ...]:
    """Return the modules of the rooms where money is that have numbers of their own."""
    return tuple(sorted(filter(_names, modules()), key=lambda module: module.name))


def numbers_of(module: Module) -> Iterator[Number]:
    """Yield the public numbers of a module, as they are once it is imported."""
    imported = importlib.import_module(f"cromford.{module.name}")
    lines = module.source.splitlines()
    for name, line in _names(module).items():
        yield from _told(imported, name, _comment(lines, line))


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for module in numbered_modules():
        rows = [f"| `{one.name}` | {one.value} | {one.why} |\n" for one in numbers_of(module)]
        if rows:
            head = "| name | value | why |\n|---|---|---|\n"
            parts.append(f"\n## {module.name}\n\n{_about(module)}\n\n{head}")
            parts += rows
    return "".join(parts)


def _about(module: Module) -> str:
    docstring = ast.get_docstring(ast.parse(module.source)) or ""
    return docstring.partition("\n\n")[0].replace("\n", " ")


def _names(module: Module) -> dict[str, int]:
    """Return the names that may be numbers, and their lines."""
    found: dict[str, int] = {}
    for statement in ast.parse(module.source).body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                found[name] = statement.lineno
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = statement.lineno
            case ast.ClassDef(name=name, bases=[ast.Name(id="IntEnum")]):
                found[name] = statement.lineno
            case _:
                pass
    return {
        name: line
        for name, line in found.items()
        if not name.startswith("_") and not name.endswith("_CACHED")
    }


def _told(imported: ModuleType, name: str, why: str) -> Iterator[Number]:
    match getattr(imported, name):
        case bool():
            pass
        case int(value):
            yield Number(name, f"{value:,}", why)
        case Fraction() as value:
            yield Number(name, str(value), why)
        case bytes(value) if value and not any(value):
            yield Number(name, f"{len(value):,} zero bytes", why)
        case (int(above), int(below)):
            yield Number(name, f"{above}/{below}", why)
        case type() as members if issubclass(members, IntEnum):
            for member in members:
                yield Number(f"{name}.{member.name}", f"{member.value:,}", "")
        case _:
            pass


def _comment(lines: list[str], line: int) -> str:
    """Return what stands beside a statement, or else above it."""
    _, mark, beside = lines[line - 1].partition("  # ")
    if mark:
        return beside.strip()
    above: list[str] = []
    for text in reversed(lines[: line - 1]):
        if not text.startswith("# "):
            break
        above.insert(0, text.removeprefix("# "))
    return " ".join(above)


if __name__ == "__main__":
    sys.stdout.write(page())
