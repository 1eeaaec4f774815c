"""A program of another implementation beside ours: what it has to say, and what is refused."""

from pathlib import Path

import pytest
from bench.rows import repeat
from bench.sizes import BINARY_SHAPE, Size

from bench import c_program

SMALLEST = Size(4, BINARY_SHAPE)


def says(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    path.chmod(0o755)
    return path


def test_both_build_one_tree_in_turn_and_have_one_floor(tmp_path: Path) -> None:
    answer = f'{{"transactions": {SMALLEST.n_transactions}, "build_ms": 1.5, "sign_ms": 2.25}}'
    program = says(tmp_path / "program", f"[ \"$1\" = 4 ] && echo '{answer}'")
    works = c_program.works_beside(SMALLEST)
    ours, theirs = repeat(SMALLEST, c_program.beside(SMALLEST, program), works, n_runs=2)
    assert (ours.name, theirs.name) == (c_program.BESIDE_C, c_program.IN_C)
    assert [sample.ms for sample in theirs.samples] == [3.75, 3.75]
    assert all(sample.ms > 0 for sample in ours.samples)
    assert ours.work == theirs.work


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            'echo \'{"transactions": 5, "build_ms": 1, "sign_ms": 2}\'',
            f"expected a tree of {SMALLEST.n_transactions} transactions, received 5",
        ),
        ("echo fast", "expected a JSON document, received 'fast\\n'"),
        ("echo '[1]'", "expected a JSON document"),
        ("echo broken >&2; exit 3", "ended with 3: broken"),
    ],
)
def test_a_program_that_does_something_else_is_refused(
    tmp_path: Path, line: str, told: str
) -> None:
    run_once = c_program.beside(SMALLEST, says(tmp_path / "program", line))
    with pytest.raises(c_program.BadProgram, match="program: ") as caught:
        run_once(0)
    assert told in str(caught.value)


def test_none_is_run_where_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(c_program.VARIABLE, raising=False)
    assert c_program.program() is None
    monkeypatch.setenv(c_program.VARIABLE, "/opt/program")
    assert c_program.program() == Path("/opt/program")
