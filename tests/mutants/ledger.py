"""What was judged before: a mutant is judged again when its module or what judged it is changed."""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, cast

from tests.mutants.bench import CACHE
from tests.mutants.rules import REPOSITORY, Mutant
from tests.mutants.verdicts import Judged, Verdict

LEDGER: Final = CACHE / "judged.jsonl"
_BY_ONE_TEST: Final = ("noticed", "looped")


class Ledger:
    """The verdicts that are kept, one a line; the last one of a mutant counts.

    A mutant that was noticed stays so while its module, the test that noticed it and what else that
    file has beside tests are as they were. Nobody has noticed the others: they are judged again
    when anything in one of their files of tests is changed.
    """

    def __init__(self, path: Path = LEDGER) -> None:
        self._path = path
        self._kept: dict[str, dict[str, str]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._kept[entry["name"]] = entry

    def known(self, mutant: Mutant) -> Judged | None:
        """Return what was said of a mutant, if it would be said again."""
        entry = self._kept.get(mutant.name)
        if entry is None:
            return None
        judged = Judged(mutant, cast("Verdict", entry["verdict"]), entry["by"])
        return judged if entry["digest"] == _digest(judged) else None

    def note(self, judged: Judged) -> None:
        """Keep what became of a mutant."""
        entry = {
            "name": judged.mutant.name,
            "verdict": judged.verdict,
            "by": judged.by,
            "digest": _digest(judged),
        }
        self._kept[judged.mutant.name] = entry
        self._path.parent.mkdir(exist_ok=True)
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry) + "\n")


def _digest(judged: Judged) -> str:
    digest = hashlib.sha256(_rules(judged.mutant.module.path))
    files = [REPOSITORY / "tests" / name for name in judged.mutant.module.tests]
    named, _, test = judged.by.partition("::")
    if judged.verdict in _BY_ONE_TEST and test and (REPOSITORY / named).exists():
        digest.update(_one_test(REPOSITORY / named, test.partition("[")[0].partition(" ")[0]))
    else:
        for path in files:
            digest.update(_content(path))
    return digest.hexdigest()[:20]


@cache
def _rules(path: Path) -> bytes:
    """Return a module without its comments and lines."""
    return ast.dump(ast.parse(path.read_bytes())).encode()


@cache
def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


@cache
def _one_test(path: Path, name: str) -> bytes:
    """Return a test and all that its file has beside tests."""
    return "\n".join(_dumped(path, name)).encode()


def _dumped(path: Path, name: str) -> Iterator[str]:
    for statement in ast.parse(_content(path)).body:
        own = getattr(statement, "name", "")
        if not own.startswith("test_") or own == name:
            yield ast.dump(statement)
