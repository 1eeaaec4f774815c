"""`lsp bans`: what is passed on, what people read, and how an unknown node is told apart."""

from typing import Any

import pytest
from tests.cli import ban_answers
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

from cromford.daemon.api.failures import ApiFailure

NODE_ID = ban_answers.NODE_ID


def test_a_ban_passes_on_what_was_asked_for(lsp: FakeDaemon) -> None:
    line = CommandLine(lsp.datadir)
    line.document("lsp", "bans", "add", NODE_ID, "--reason", "noise", "--blocks", "7")
    line.document("lsp", "bans", "add", NODE_ID, "--reason", "noise")
    line.document("lsp", "bans", "remove", NODE_ID)
    assert lsp.calls == [
        ("ban_add", {"node_id": NODE_ID, "blocks": 7, "reason": "noise"}),
        ("ban_add", {"node_id": NODE_ID, "blocks": 144, "reason": "noise"}),
        ("ban_remove", {"node_id": NODE_ID}),
    ]


def test_people_read_who_until_when_and_why(lsp: FakeDaemon) -> None:
    line = CommandLine(lsp.datadir)
    for words in (("list",), ("add", NODE_ID, "--reason", "x"), ("remove", NODE_ID)):
        said = line.run("lsp", "bans", *words).stdout
        assert NODE_ID in said
        assert "wastes our time" in said
    listed = line.run("lsp", "bans", "list").stdout
    for told in ("1,000", "1,144", "100 blocks", "2", "yes"):
        assert told in listed


def test_nobody_banned_is_said(fake: Any) -> None:
    daemon = fake({"bans": {"bans": []}})
    assert CommandLine(daemon.datadir).run("lsp", "bans", "list").stdout == "nobody is banned\n"


@pytest.mark.parametrize(
    "words",
    [("add", NODE_ID), ("add", NODE_ID, "--reason", "x", "--blocks", "0"), ("remove",)],
)
def test_a_ban_without_reason_length_or_node_is_a_usage_error(
    lsp: FakeDaemon, words: tuple[str, ...]
) -> None:
    assert CommandLine(lsp.datadir).run("lsp", "bans", *words).exit_code == 2
    assert lsp.calls == []


def test_who_is_not_banned_is_not_found(fake: Any) -> None:
    def not_banned(_params: dict[str, Any]) -> object:
        raise ApiFailure("not_banned", "it is not banned", exit_code=4)

    daemon = fake({"ban_remove": not_banned})
    result = CommandLine(daemon.datadir).run("lsp", "bans", "remove", NODE_ID)
    assert result.exit_code == 4
    assert "is not banned" in result.stderr
