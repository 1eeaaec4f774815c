"""The page of numbers says what the modules say."""

from pathlib import Path

import pytest
from tests.docs.numbers import numbered_modules, numbers_of, page
from tests.mutants.rules import REPOSITORY, Module

PAGE = REPOSITORY / "docs/protocol/19-numbers.md"


def rows(section: str) -> list[tuple[str, str]]:
    """Return names and values of a section."""
    cells = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return [(name.removeprefix("| ").strip("`"), value) for name, value, *_ in cells]


@pytest.mark.parametrize("module", numbered_modules(), ids=lambda module: module.name)
def test_the_page_has_the_numbers_of_a_module(module: Module) -> None:
    text = Path(PAGE).read_text(encoding="utf-8")
    _, _, after = text.partition(f"\n## {module.name}\n")
    section = after.partition("\n## ")[0]
    assert rows(section) == [(number.name, number.value) for number in numbers_of(module)]


def test_the_page_is_as_it_would_be_written() -> None:
    """So are the reasons beside the numbers: they are the modules' comments."""
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.docs.numbers"
