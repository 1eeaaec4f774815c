"""A daemon that cannot start says why, by a code, and leaves everything as it was."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from cromford.adapters.sqlite import Journal, locked
from cromford.bitcoin.network import REGTEST
from cromford.cli.configuration import run_options
from cromford.daemon import clientd, lspd
from cromford.daemon.pairing import open_keychain
from cromford.daemon.seed_file import SEED_FILE, write_phrase

PHRASE = f"{'abandon ' * 11}about"
OTHER_PHRASE = f"{'zoo ' * 11}wrong"
LSP = f"02{'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}@127.0.0.1:9750"
RUN = {
    "lsp": ("lsp", "run", "--listen", "127.0.0.1:0"),
    "client": ("client", "run", "--lsp", LSP),
}
roles = pytest.mark.parametrize("role", RUN)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "d" / "regtest"


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str, str]]:
    """Start a daemon; return its exit code, and the code, message and remedy of its error."""
    for daemon in (clientd, lspd):
        monkeypatch.setattr(daemon, "set_up_logging", lambda **_: None)
    monkeypatch.setattr(run_options, "BITCOIND_HOME", tmp_path)
    line = CommandLine(tmp_path / "d")

    def start(role: str, *words: str) -> tuple[int, str, str, str]:
        result = line.run(*RUN[role], *words, "--json")
        error = json.loads(result.stderr)
        return result.exit_code, error["code"], error["message"], error["remediation"]

    return start


def begin(home: Path, role: str, phrase: str, passphrase: str | None = None) -> None:
    """Leave a directory as a daemon of this seed leaves it."""
    home.mkdir(parents=True)
    write_phrase(home, phrase, passphrase)
    with Journal(home) as journal:
        open_keychain(journal, home, role=role, network=REGTEST, passphrase=passphrase)


@roles
@pytest.mark.parametrize("other", RUN)
def test_two_daemons_never_run_in_one_directory(
    run: Callable[..., tuple[int, str, str, str]], home: Path, role: str, other: str
) -> None:
    begin(home, role, PHRASE)
    with Journal(home):
        exit_code, code, message, remedy = run(other)
    assert (exit_code, code) == (1, "daemon_running")
    assert "already in use by another process" in message
    assert f"cromford {other} stop, or another role's" in remedy
    assert "--datadir" in remedy


@roles
def test_webhooks_that_cannot_be_understood_are_said_and_the_journal_is_closed_again(
    run: Callable[..., tuple[int, str, str, str]], home: Path, role: str
) -> None:
    begin(home, role, PHRASE)
    (home / "webhooks.json").write_text("{")
    for _ in range(2):
        exit_code, code, message, remedy = run(role)
        assert (exit_code, code) == (1, "webhooks_unreadable")
        assert str(home / "webhooks.json") in message
        assert "move it away" in remedy


@roles
def test_no_daemon_starts_while_a_seed_is_shown_or_written(
    run: Callable[..., tuple[int, str, str, str]], home: Path, role: str
) -> None:
    with locked(home):
        assert run(role)[:2] == (1, "daemon_running")
    assert not (home / SEED_FILE).exists()


@roles
def test_a_journal_without_its_seed_is_refused_and_none_is_made(
    run: Callable[..., tuple[int, str, str, str]], home: Path, role: str
) -> None:
    begin(home, role, PHRASE)
    (home / SEED_FILE).unlink()
    exit_code, code, message, remedy = run(role)
    assert (exit_code, code) == (4, "seed_missing")
    assert str(home / SEED_FILE) in message
    assert f"cromford {role} seed restore" in remedy
    assert not (home / SEED_FILE).exists()
    # Who was refused holds nothing: the words can be given at once.
    with locked(home):
        write_phrase(home, PHRASE, None)


@roles
def test_a_journal_with_another_seed_is_refused(
    run: Callable[..., tuple[int, str, str, str]], home: Path, role: str
) -> None:
    begin(home, role, PHRASE)
    (home / SEED_FILE).unlink()
    write_phrase(home, OTHER_PHRASE, None)
    exit_code, code, message, remedy = run(role)
    assert (exit_code, code) == (1, "foreign_seed")
    assert "the journal belongs to the seed" in message
    assert "Move the seed file away" in remedy


@pytest.mark.sampled(1)
@roles
def test_a_passphrase_that_does_not_open_the_seed_is_an_authentication_that_failed(
    run: Callable[..., tuple[int, str, str, str]], home: Path, role: str, tmp_path: Path
) -> None:
    begin(home, role, PHRASE, "horse")
    secret = tmp_path / "secret"
    secret.write_text("house\n", encoding="utf-8")
    for words in ((), ("--seed-passphrase-file", str(secret))):
        exit_code, code, _, remedy = run(role, *words)
        assert (exit_code, code) == (3, "wrong_passphrase")
        assert "--seed-passphrase-file" in remedy


@roles
def test_a_passphrase_for_a_seed_that_is_not_encrypted_is_refused(
    run: Callable[..., tuple[int, str, str, str]], home: Path, role: str, tmp_path: Path
) -> None:
    begin(home, role, PHRASE)
    secret = tmp_path / "secret"
    secret.write_text("horse\n", encoding="utf-8")
    exit_code, code, _, remedy = run(role, "--seed-passphrase-file", str(secret))
    assert (exit_code, code) == (2, "seed_not_encrypted")
    assert f"cromford {role} seed encrypt" in remedy


@roles
def test_a_seed_file_that_others_can_read_is_refused(
    run: Callable[..., tuple[int, str, str, str]], home: Path, role: str
) -> None:
    begin(home, role, PHRASE)
    (home / SEED_FILE).chmod(0o644)
    exit_code, code, message, _ = run(role)
    assert (exit_code, code) == (2, "bad_seed")
    assert "expected mode 0600" in message
