"""A port or a file that somebody named, and that is not to be had, is named in the refusal."""

import errno
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import CommandLine
from tests.cli.test_daemon_starts import PHRASE, RUN, begin

from cromford.bitcoin.network import REGTEST
from cromford.cli.configuration import run_options
from cromford.daemon import clientd, lspd
from cromford.daemon.options import LspOptions
from cromford.listening import METRICS, PEERS, CannotListen, listening_for

Start = Callable[..., tuple[int, dict[str, Any]]]
ON_LOOPBACK = "127.0.0.1"


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start a daemon that cannot; return its exit code and its error."""
    for daemon in (clientd, lspd):
        monkeypatch.setattr(daemon, "set_up_logging", lambda **_: None)
    monkeypatch.setattr(run_options, "BITCOIND_HOME", tmp_path)
    line = CommandLine(tmp_path / "d")

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        result = line.run(*words, "--json")
        return result.exit_code, json.loads(result.stderr.splitlines()[-1])

    return run


@pytest.fixture
def taken() -> Iterator[int]:
    """Listen on a port as another program would."""
    with socket.create_server((ON_LOOPBACK, 0)) as other:
        yield int(other.getsockname()[1])


@pytest.mark.parametrize("role", RUN)
def test_a_metrics_port_that_another_program_has_is_named_with_its_option(
    start: Start, taken: int, role: str
) -> None:
    exit_code, error = start(*RUN[role], "--metrics-listen", f"{ON_LOOPBACK}:{taken}")
    assert (exit_code, error["code"], error["retryable"]) == (1, "port_taken", True)
    assert error["message"] == (
        f"cannot listen on {ON_LOOPBACK}:{taken} for metrics: another program listens there"
    )
    assert "--metrics-listen" in error["remediation"]


@pytest.mark.parametrize(
    ("error", "said", "is_taken"),
    [
        (OSError(errno.EADDRINUSE, "long words of asyncio"), "another program listens", True),
        (OSError(errno.EACCES, "long words of asyncio"), "Permission denied", False),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known", False),
    ],
)
def test_why_nobody_can_listen_is_said_in_the_systems_words(
    error: OSError, said: str, *, is_taken: bool
) -> None:
    with pytest.raises(CannotListen, match=said) as caught, listening_for(PEERS, "h", 1):
        raise error
    assert (caught.value.is_taken, caught.value.purpose) == (is_taken, PEERS)


def test_the_port_for_peers_is_told_like_the_one_for_metrics(
    start: Start, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(options: LspOptions) -> None:
        daemon = lspd.LspDaemon(options)
        try:
            await daemon.network_side()  # No node answers here: it would wait for a block.
        finally:
            daemon.chain.close()

    monkeypatch.setattr(lspd, "_run", run)
    exit_code, error = start("lsp", "run", "--listen", f"{ON_LOOPBACK}:{taken}")
    assert (exit_code, error["code"]) == (1, "port_taken")
    assert "for peers" in error["message"]
    assert "--listen" in error["remediation"]


def test_a_port_for_metrics_is_not_said_to_be_one_for_peers() -> None:
    with pytest.raises(CannotListen, match="for metrics"), listening_for(METRICS, "h", 1):
        raise OSError(errno.EADDRNOTAVAIL, "x")


@pytest.mark.parametrize("role", RUN)
def test_a_passphrase_file_that_is_not_there_is_named_with_its_option(
    start: Start, tmp_path: Path, role: str
) -> None:
    begin(tmp_path / "d" / REGTEST.name, role, PHRASE)
    missing = tmp_path / "nowhere"
    exit_code, error = start(*RUN[role], "--seed-passphrase-file", str(missing))
    assert (exit_code, error["code"]) == (4, "file_unreadable")
    assert error["message"] == f"{missing}, the file with the seed's passphrase: there is none"
    assert "--seed-passphrase-file" in error["remediation"]


NAMED = [
    "seed show --yes --passphrase-file",
    "seed passphrase --new-passphrase-file",
    "backup verify b --passphrase-file",
    "backup create b --passphrase-file",
]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "no text"])
@pytest.mark.parametrize("words", NAMED)
def test_every_command_names_the_file_that_it_could_not_read(
    start: Start, tmp_path: Path, words: str, content: bytes | None
) -> None:
    home = tmp_path / "d" / REGTEST.name
    passphrase = "horse" if "new" in words else None
    begin(home, "client", PHRASE, passphrase)
    flag = words.rsplit(maxsplit=1)[-1]
    secret, known = tmp_path / "secret", tmp_path / "known"
    known.write_text("horse\n", encoding="utf-8")
    if content is not None:
        secret.write_bytes(content)
    first = ["--passphrase-file", str(known)] if passphrase else []
    exit_code, error = start("client", *words.split(), str(secret), *first)
    assert (exit_code, error["code"]) == (4 if content is None else 1, "file_unreadable")
    assert str(secret) in error["message"]
    assert "Errno" not in error["message"]
    assert f"see {flag}," in error["remediation"]


def test_a_file_of_words_and_a_file_of_the_nodes_password_are_told_alike(
    start: Start, tmp_path: Path
) -> None:
    missing = str(tmp_path / "nowhere")
    exit_code, error = start("client", "seed", "restore", "--yes", "--phrase-file", missing)
    assert (exit_code, error["code"]) == (4, "file_unreadable")
    assert "--phrase-file" in error["remediation"]
    words = ("--chain-user", "me", "--chain-password-file", missing)
    exit_code, error = start(*RUN["client"], *words)
    assert (exit_code, error["code"]) == (4, "file_unreadable")
    assert "--chain-password-file" in error["remediation"]


@pytest.mark.parametrize(
    ("command", "option", "expected"),
    [
        ("client status", "--datadir", "a path"),
        ("client status", "--config", "a path"),
        ("config check", "FILE", "a path"),
        ("client seed show --yes", "--passphrase-file", "a path"),
        ("client backup create", "FILE", "a path"),
        ("client backup verify", "BACKUP", "a path"),
        ("client exit broadcast --yes", "FILE", "a path"),
        ("client factory", "--svg", "a path"),
        ("agent add", "FILE", "a path"),
        ("regtest", "--datadir", "a path"),
        ("demo", "--keep", "a path"),
        ("demo", "--chain-cookie", "a path"),
        ("client wallet send bcrt1q 70000 --yes", "--external-id", "an id"),
        ("client invoice 1000", "--external-id", "an id"),
        ("client invoices", "--external-id", "an id"),
        ("client events", "--about", "an id"),
    ],
)
def test_what_names_nothing_is_refused(command: str, option: str, expected: str) -> None:
    named = [option, ""] if option.startswith("-") else [""]
    result = CommandLine(None).run(*command.split(), *named)
    assert result.exit_code == 2
    assert option in result.stderr
    assert f"expected {expected}, received ''" in result.stderr
