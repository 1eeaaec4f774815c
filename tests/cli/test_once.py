"""Of two values of one option the later one is not taken in silence."""

from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon

SEND = ("client", "wallet", "send", "bcrt1q", "all", "--yes")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--feerate", "2", "--feerate", "3"), "--feerate: expected once, received 2 times"),
        (
            ("--feerate=2", "--feerate-sat-per-vb", "2", "--feerate", "2"),
            "--feerate: expected once, received 3 times",
        ),
        (("--external-id", "a", "--external-id=b"), "--external-id: expected once"),
    ],
)
def test_an_option_that_is_given_twice_is_refused_by_name(
    client: FakeDaemon, words: tuple[str, ...], told: str
) -> None:
    refused = CommandLine(client.datadir).run(*SEND, *words)
    assert refused.exit_code == 2
    assert told in refused.stderr
    assert "client wallet send" in refused.stderr
    assert not client.calls


def test_flags_and_lists_may_be_given_again(client: FakeDaemon) -> None:
    line = CommandLine(client.datadir)
    assert line.run(*SEND, "--yes", "--json", "--json").exit_code == 0
    followed = line.run("client", "events", "--only", "created", "--only", "stopped")
    assert "expected once" not in followed.stderr


@pytest.mark.parametrize("option", ["--datadir", "--config", "--network"])
def test_what_may_stand_anywhere_stands_at_one_place(tmp_path: Path, option: str) -> None:
    values = {"--datadir": str(tmp_path), "--config": str(tmp_path / "own.toml")}
    given = (option, values.get(option, "signet"))
    refused = CommandLine(None).run(*given, "client", "status", *given)
    assert refused.exit_code == 2
    assert f"{option}: expected once, received at two places of the line" in refused.stderr


def test_what_is_no_command_line_is_told_as_before(tmp_path: Path) -> None:
    line = CommandLine(tmp_path)
    assert "No such option" in line.run("client", "status", "--feerates", "2").stderr
    assert "No such command" in line.run("client", "stats", "--network", "regtest").stderr
