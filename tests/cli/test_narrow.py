"""In a narrow terminal nothing is cut: no amount, no id, no word."""

import io
import re
from collections import Counter

import pytest
from rich.console import Console
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon
from tests.cli.test_answers import CLIENT_COMMANDS, LSP_COMMANDS

from cromford.cli.shown import output
from cromford.cli.shown.output import cell, table

AMOUNT = re.compile(r"\d[\d,]*\s+m?sat\b|\d[\d,]*\s+blocks?\b")
WIDTHS = (40, 60, 80, 120)


def amounts(text: str) -> Counter[str]:
    """Count the amounts; a tree's line may go on in the next, behind its guides."""
    lines = re.sub("[│├└─]", " ", text)
    return Counter(" ".join(found.split()) for found in AMOUNT.findall(lines))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("commands", [LSP_COMMANDS, CLIENT_COMMANDS], ids=["lsp", "client"])
def test_every_command_shows_every_amount_however_narrow_the_terminal(
    lsp: FakeDaemon,
    client: FakeDaemon,
    monkeypatch: pytest.MonkeyPatch,
    commands: list[tuple[str, str, object]],
    width: int,
) -> None:
    daemon = lsp if commands is LSP_COMMANDS else client
    for words, _, _ in commands:
        told = CommandLine(daemon.datadir).run(*words.split())
        assert told.exit_code == 0, words
        whole = told.stdout
        with monkeypatch.context() as narrow:
            narrow.setattr(output, "WIDTH_WITHOUT_TERMINAL", width)
            shown = CommandLine(daemon.datadir).run(*words.split()).stdout
        assert "…" not in shown, words
        assert amounts(shown) == amounts(whole), words


def printed(width: int, *rows: tuple[str, ...]) -> list[str]:
    stream = io.StringIO()
    listing = table("client", "amount", "why")
    for row in rows:
        listing.add_row(*map(cell, row))
    Console(file=stream, width=width, color_system=None).print(listing)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


ROWS = (("1", "10,000,000 sat", "rank 1: waits in the lobby"), ("2", "5 sat", ""))


def test_a_sentence_wraps_before_a_value_does() -> None:
    assert printed(44, *ROWS) == [
        "client  amount          why",
        "1       10,000,000 sat  rank 1: waits in the",
        "                        lobby",
        "2       5 sat",
    ]


def test_a_table_that_does_not_fit_is_told_row_by_row() -> None:
    assert printed(26, *ROWS) == [
        "client  1",
        "amount  10,000,000 sat",
        "why     rank 1: waits in",
        "the lobby",
        "",
        "client  2",
        "amount  5 sat",
    ]


def test_an_id_that_is_longer_than_a_line_goes_on_in_the_next() -> None:
    lines = printed(40, ("02" * 33, "1 sat", ""))
    assert "".join(lines).replace(" ", "").startswith("client" + "02" * 33)


def test_a_table_that_fits_is_one() -> None:
    assert printed(80, *ROWS)[1] == "1       10,000,000 sat  rank 1: waits in the lobby"
