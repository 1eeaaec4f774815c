"""A role's command in the other role's data directory is refused, and does nothing there."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import Answer, FakeDaemon
from tests.cli.test_answers import CLIENT_COMMANDS, LSP_COMMANDS

OTHER = {"lsp": "client", "client": "lsp"}
METHODS = {method for _, method, _ in LSP_COMMANDS + CLIENT_COMMANDS}


@pytest.mark.parametrize("commands", [LSP_COMMANDS, CLIENT_COMMANDS], ids=["lsp", "client"])
def test_no_command_reaches_the_daemon_of_the_other_role(
    tmp_path: Path, commands: list[tuple[str, str, object]]
) -> None:
    role = commands[0][0].split()[0]
    answers: dict[str, Answer] = {method: {"done": True} for method in METHODS}
    with FakeDaemon(tmp_path / "d", answers, role=OTHER[role]) as daemon:
        for words, _, _ in commands:
            result = CommandLine(daemon.datadir).run(*words.split(), "--json")
            assert (result.exit_code, result.stdout) == (1, ""), words
            error = json.loads(result.stderr.splitlines()[-1])
            assert error["code"] == "wrong_role", words
            assert error["retryable"] is False
        assert daemon.calls == []


def test_the_refusal_names_both_roles_and_the_option(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "d", {"status": {}}, role="client") as daemon:
        told = CommandLine(daemon.datadir).run("lsp", "status").stderr
    assert "expected an lsp's, received a client's" in told
    assert "--datadir" in told
