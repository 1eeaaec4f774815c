"""A module of one's own, to change."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mutants.rules import Module


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Module]:
    """Return what writes a module, and names no tests for it."""

    def write(source: str) -> Module:
        (tmp_path / "rule.py").write_text(source, encoding="utf-8")
        return Module("room", "rule", ())

    monkeypatch.setattr("tests.mutants.rules.SOURCES", tmp_path)
    return write
