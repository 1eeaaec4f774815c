"""What people read of clients that moved out: where they are, who has their keys, who is needed."""

from copy import deepcopy
from typing import Any

import pytest
from tests.cli import answers, close_answers
from tests.cli.conftest import CommandLine


def told(**changes: Any) -> dict[str, Any]:
    return {"height": 5_000, "taken": False, "refused": None} | changes


@pytest.mark.parametrize(
    ("handed_over", "said"),
    [
        (told(), "moved out, keys sent to the LSP"),
        (told(taken=True), "moved out, its keys are with the LSP"),
        (told(refused="balance: expected less"), "moved out, keys not taken: balance: expected"),
    ],
)
def test_a_client_reads_that_it_moved_out_and_who_has_the_keys(
    fake: Any, handed_over: dict[str, Any], said: str
) -> None:
    summary = answers.client_summary(status="moved_out", keys_handed_over=handed_over)
    daemon = fake({"factories": {"factories": [summary | {"look_blocks": None}]}})
    shown = CommandLine(daemon.datadir).run("client", "factories")
    assert said in " ".join(shown.stdout.split()), shown.output
    assert "expiry in" not in shown.stdout, "no time is left to anything"
    assert "must see the chain" not in shown.stdout


def test_an_lsp_reads_who_moved_out(fake: Any) -> None:
    daemon = fake({"factories": {"factories": [answers.lsp_summary(moved_out=[2, 5])]}})
    shown = CommandLine(daemon.datadir).run("lsp", "factories").stdout
    assert "moved out: 2, 5" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"n_clients": 3, "problem": ""}, "by 3 clients that moved out"),
        (
            {"n_clients": 0, "problem": "2 of its entries are damaged"},
            "2 of its entries are damaged",
        ),
    ],
)
def test_a_status_names_keys_that_are_held_and_those_that_are_damaged(
    fake: Any, keys: dict[str, Any], said: str
) -> None:
    daemon = fake({"status": answers.LSP_STATUS | {"handed_over_keys": keys}})
    shown = CommandLine(daemon.datadir).run("lsp", "status").stdout
    assert said in shown


def test_a_close_shows_who_need_not_be_there(fake: Any) -> None:
    close = deepcopy(close_answers.CLOSE)
    close["clients"][1]["moved_out"] = True
    daemon = fake({"close": close})
    shown = CommandLine(daemon.datadir).run("lsp", "close", "cdcd", "--yes").stdout
    assert "nothing: it moved out, and need not be there" in " ".join(shown.split())
