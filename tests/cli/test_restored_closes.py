"""What people read of a close in which a store was restored."""

from copy import deepcopy
from typing import Any

import pytest
from tests.cli import answers, close_answers
from tests.cli.conftest import CommandLine


@pytest.mark.parametrize(
    ("restored", "said"),
    [
        (["client"], "300,000 sat, marked: its store was restored, and it signs for what it knows"),
        (["lsp"], "300,000 sat, or less: our store is marked as restored, and it says how much"),
        (["lsp", "client"], "300,000 sat, marked: both stores were restored, and say this"),
    ],
)
def test_a_close_shows_whose_stores_are_marked(fake: Any, restored: list[str], said: str) -> None:
    close = deepcopy(close_answers.CLOSE)
    close["clients"][0]["restored"] = restored
    daemon = fake({"close": close})
    shown = CommandLine(daemon.datadir).run("lsp", "close", "cdcd", "--yes").stdout
    assert said in " ".join(shown.split())


def test_a_restored_client_reads_that_it_can_only_be_closed_and_by_whom(fake: Any) -> None:
    summary = answers.client_summary(channel_status="marked")
    daemon = fake({"factories": {"factories": [summary]}})
    shown = CommandLine(daemon.datadir).run("client", "factories").stdout
    assert "it can only be closed: ask your LSP" in " ".join(shown.split())


def test_what_it_is_owed_by_a_close_under_way_is_what_it_knows_or_more(fake: Any) -> None:
    closing = {"phase": "agreeing", "balance_msat": None}
    daemon = fake({"factories": {"factories": [answers.client_summary(closing=closing)]}})
    shown = CommandLine(daemon.datadir).run("client", "factories").stdout
    assert "you are owed what your store says or more" in " ".join(shown.split())
