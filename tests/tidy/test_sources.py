"""The house rules that no linter knows: sizes, names, docstrings, reasons for opt-outs."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
SOURCES = sorted(
    path for folder in ("src", "tests", "bench") for path in (REPOSITORY / folder).rglob("*.py")
)
PRODUCT = [path for path in SOURCES if path.is_relative_to(REPOSITORY / "src")]
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

FORBIDDEN_WORDS = {"util", "utils", "helper", "helpers", "common", "manager", "managers"}
NUMBERED_HANDLER = re.compile(r"handle_\w*_v\d+")
# Each opt-out names what it silences, and then why.
REASONED = {
    "noqa": re.compile(r"# noqa: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)* - \S"),
    "type: ignore": re.compile(r"# type: ignore\[[\w, -]+\]  # \S"),
    "pragma: no": re.compile(r"# pragma: no (cover|branch) - \S"),
}
WHOLE_FILE_OPT_OUT = re.compile(r"#\s*(ruff: noqa|flake8: noqa|mypy: )")
# One letter of each stands in brackets, so that this file does not hold the words.
UNFINISHED = re.compile(
    r"\bT[O]DO\b|\bFIX[M]E\b|\bX[X]X\b|\bpart \d+ o[f]\b|\bissue [#]|/wor[k]/", re.IGNORECASE
)
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, FUNCTIONS))


def public_definitions(path: Path) -> Iterator[Definition]:
    """Yield what the documentation shows: nothing private, nothing inside a function."""
    waiting: list[ast.Module | ast.ClassDef] = [tree_of(path)]
    while waiting:
        for node in waiting.pop().body:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
                yield node
                if isinstance(node, ast.ClassDef):
                    waiting.append(node)


def own_raises(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yield the name of what a function raises itself, not in a function inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (*FUNCTIONS, ast.Lambda, ast.ClassDef)):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            yield ast.unparse(raised)
        waiting.extend(ast.iter_child_nodes(node))


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        re.search(r"\.(command|group)\b", ast.unparse(decorator))
        for decorator in function.decorator_list
    )


def test_there_is_something_to_look_at() -> None:
    assert PRODUCT
    assert len(SOURCES) > len(PRODUCT)


def test_no_file_is_too_long() -> None:
    lengths = {name_of(path): text_of(path).count("\n") for path in SOURCES}
    assert {name: n for name, n in lengths.items() if n > FILE_LINES_MAX} == {}


def test_no_function_is_too_long() -> None:
    too_long = [
        f"{name_of(path)}:{function.lineno} {function.name}"
        for path in SOURCES
        for function in functions_of(path)
        if (function.end_lineno or 0) - function.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not too_long, "\n".join(too_long)


def test_no_module_or_class_is_a_drawer_for_odds_and_ends() -> None:
    modules = [
        name_of(path)
        for path in SOURCES
        if FORBIDDEN_WORDS
        & {word for part in path.relative_to(REPOSITORY).parts for word in re.split(r"[_.]", part)}
    ]
    classes = [
        f"{name_of(path)} {node.name}"
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
        and FORBIDDEN_WORDS & {word.lower() for word in re.findall("[A-Z][a-z]+", node.name)}
    ]
    assert not modules + classes, "\n".join(modules + classes)


def test_no_class_name_is_defined_twice() -> None:
    places: dict[str, list[str]] = {}
    for path in PRODUCT:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{name_of(path)}:{node.lineno}")
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert not twice, twice


def test_no_function_is_a_numbered_second_try() -> None:
    numbered = [
        f"{name_of(path)} {function.name}"
        for path in SOURCES
        for function in functions_of(path)
        if NUMBERED_HANDLER.fullmatch(function.name)
    ]
    assert not numbered, "\n".join(numbered)


@pytest.mark.parametrize("kind", REASONED)
def test_every_opt_out_carries_its_reason(kind: str) -> None:
    unreasoned = []
    for path in SOURCES:
        if kind not in text_of(path):
            continue
        for token in tokenize.generate_tokens(io.StringIO(text_of(path)).readline):
            is_opt_out = token.type == tokenize.COMMENT and kind in token.string
            if is_opt_out and not REASONED[kind].search(token.string):
                unreasoned.append(f"{name_of(path)}:{token.start[0]} {token.string}")
    assert not unreasoned, "\n".join(unreasoned)


def test_no_file_opts_out_as_a_whole() -> None:
    assert [name_of(p) for p in SOURCES if WHOLE_FILE_OPT_OUT.search(text_of(p))] == []


def test_everything_public_has_a_docstring() -> None:
    missing = [
        name_of(path)
        for path in PRODUCT
        if not path.name.startswith("_") or path.name == "__init__.py"
        if not ast.get_docstring(tree_of(path))
    ]
    missing += [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in PRODUCT
        for node in public_definitions(path)
        if not ast.get_docstring(node)
    ]
    assert not missing, "\n".join(missing)


def test_a_public_function_that_raises_says_what() -> None:
    """A raise that only a bug of ours can reach is no part of the contract.

    A command's docstring is what `--help` prints, so it speaks to users and not to callers.
    """
    bugs = {"AssertionError", "NotImplementedError"}
    silent = [
        f"{name_of(path)}:{node.lineno} {node.name} raises {', '.join(sorted(raised))}"
        for path in PRODUCT
        for node in public_definitions(path)
        if isinstance(node, FUNCTIONS)
        and not is_command(node)
        and (raised := set(own_raises(node)) - bugs)
        and "Raises:" not in (ast.get_docstring(node) or "")
    ]
    assert not silent, "\n".join(silent)


def test_a_line_of_the_log_is_an_event_and_its_fields() -> None:
    """`daemon/logs` makes JSON of it by these: of a sentence, an event that nobody looks for."""
    form = re.compile(r"\w+( \w+=%([srdx]|\.\d+f|g))*")
    wrong = [
        f"{name_of(path)}:{node.lineno}: {text.value!r}"
        for path in PRODUCT
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "_log"
        for text in ast.walk(node.args[0])
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
        if not form.fullmatch(text.value)
    ]
    assert wrong == []


def test_nothing_is_left_unfinished_or_speaks_of_how_it_was_made() -> None:
    texts = [*SOURCES, *REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    texts += [REPOSITORY / "Makefile", REPOSITORY / "pyproject.toml"]
    found = [
        f"{name_of(path)}:{number} {line.strip()}"
        for path in texts
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert not found, "\n".join(found)
