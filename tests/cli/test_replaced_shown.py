"""What a client is shown whose leaf's old state is on chain."""

import io

from rich.console import Console
from tests.cli import exit_answers

from cromford.cli.shown.exits import exit_status


def test_the_poisons_of_a_replaced_state_stand_among_what_is_published() -> None:
    out = io.StringIO()
    exit_status(Console(file=out, width=200), exit_answers.REPLACED_STATUS)
    (row,) = (line for line in out.getvalue().splitlines() if "stock_poison v0" in line)
    assert "publish now" in row
    assert "66" * 6 in row
