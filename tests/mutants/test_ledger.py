"""How long it is known what became of a mutant."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import ledger
from tests.mutants.ledger import Ledger
from tests.mutants.rules import Module
from tests.mutants.verdicts import Judged


def test_a_verdict_is_kept_until_its_function_or_what_judged_it_is_changed(
    written: Callable[[str], Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = tmp_path / "tests" / "near.py"
    tests.parent.mkdir()
    monkeypatch.setattr(ledger, "REPOSITORY", tmp_path)
    rule = "def f(n) -> bool:\n    return n < 3\n"
    noticing, other = "def test_it():\n    assert f(2)\n", "def test_other():\n    pass\n"

    def known(source: str, text: str) -> list[str]:
        """Return what is still known of two mutants, where these are the rule and its tests."""
        tests.write_text(text, encoding="utf-8")
        module = replace(written(source), tests=("near.py",))
        for read in (ledger._rules, ledger._functions, ledger._content, ledger._one_test):
            read.cache_clear()
        local, noticed = tmp_path / "judged.jsonl", tmp_path / "noticed.txt"
        kept = Ledger(local, noticed)
        first, second, *_ = mutants = list(module.mutants())
        if not local.exists():
            kept.note(Judged(first, "noticed", "tests/near.py::test_it[a case]"))
            kept.note(Judged(second, "survived"))
            assert kept.keep(mutants) == 1
        elsewhere = Ledger(tmp_path / "none", noticed)
        assert elsewhere.known(second) is None
        assert elsewhere.known(first) == kept.known(first)
        return [judged.verdict for one in (first, second) if (judged := kept.known(one))]

    def forget() -> None:
        (tmp_path / "judged.jsonl").unlink()

    both = ["noticed", "survived"]
    assert known(rule, noticing) == both
    assert known("# a remark\n" + rule, noticing) == both
    assert known(rule, noticing + other) == ["noticed"], "the other test may notice the second"
    assert known(rule, noticing.replace("2", "1")) == []
    assert known(rule, "from it import LIMIT\n" + noticing) == ["noticed"], "nothing of it is used"
    helped = noticing.replace("f(2)", "f(helped())") + "def helped():\n    return LIMIT\n"
    limited = helped + "LIMIT = 2\n"
    forget()
    assert known(rule, limited) == both
    assert known(rule, limited + other + "OTHER = 3\n") == ["noticed"]
    assert known(rule, limited.replace("LIMIT = 2", "LIMIT = 1")) == [], "the test rests on it"
    assert known(rule, helped + "from it import LIMIT\n") == []
    assert known(rule, limited + "pytestmark = pytest.mark.slow\n") == []
    for_all = "@pytest.fixture(autouse=True)\ndef it_all():\n    pass\n"
    assert known(rule, limited + for_all) == []
    assert known(rule, limited + for_all.replace("autouse", "name")) == ["noticed"]
    forget()
    assert known(rule, noticing) == both
    assert known(rule + "LIMIT = 3\n", noticing) == ["noticed"], "that is none of this function's"
    assert known(rule.replace("return", "n = int(n)\n    return"), noticing) == []
