"""Whatever keeps a daemon from starting is in the guide to troubles, by its code."""

import ast
from pathlib import Path

STARTING = (
    "cli/daemons.py",
    "cli/seed_failures.py",
    "cli/configuration/settings.py",
    "cli/configuration/run_options.py",
)


def codes_in(source: str) -> set[str]:
    """Return the codes of the failures that a module makes, as they stand in it."""
    return {
        call.args[0].value
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "CommandFailed"
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


def test_every_code_that_a_start_ends_with_has_a_remedy(repository: Path) -> None:
    page = (repository / "docs/troubles.md").read_text(encoding="utf-8")
    told = {
        word for line in page.splitlines() if line.startswith("| `") for word in line.split("`")
    }
    codes: set[str] = set()
    for name in STARTING:
        codes |= codes_in((repository / "src/cromford" / name).read_text(encoding="utf-8"))
    assert {"port_taken", "bad_seed", "config_invalid", "unsafe_policy"} <= codes
    assert codes <= told, codes - told
