"""The seed: nothing is shown unasked, nothing is written unless all of it is right."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from cromford.adapters.sqlite import Journal, locked
from cromford.cli import asking, seed
from cromford.daemon.seed_file import read_phrase

# BIP 39's own vectors, of 12 and of 24 words.
PHRASE = f"{'abandon ' * 11}about"
LONG_PHRASE = f"{'zoo ' * 23}vote"
RESTORE = ("client", "seed", "restore")


@pytest.fixture
def line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "client")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "client" / "regtest"


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (asking, seed):
        monkeypatch.setattr(module, "can_ask", lambda _session: True)


@pytest.mark.parametrize("phrase", [PHRASE, LONG_PHRASE])
@pytest.mark.parametrize("end", ["", "\n"])
def test_words_from_stdin_become_the_seed(
    line: CommandLine, home: Path, phrase: str, end: str
) -> None:
    result = line.run(*RESTORE, "--yes", typed=phrase + end)
    assert result.exit_code == 0, result.stderr
    assert read_phrase(home, None) == phrase
    assert "A seed alone cannot leave a factory" in result.stdout
    assert "not encrypted" in result.stdout
    assert phrase not in result.output
    shown = line.run("client", "seed", "show", "--yes")
    assert shown.stdout == f"{phrase}\n"
    assert line.document("client", "seed", "show", "--yes") == {"phrase": phrase}


def test_words_and_a_passphrase_can_come_from_files(
    line: CommandLine, home: Path, tmp_path: Path
) -> None:
    words, secret, wrong = (tmp_path / name for name in ("words", "secret", "wrong"))
    words.write_text(f"{PHRASE}\n", encoding="utf-8")
    secret.write_text("correct horse\n", encoding="utf-8")
    wrong.write_text("battery staple\n", encoding="utf-8")
    files = ("--phrase-file", str(words), "--passphrase-file", str(secret), "--yes")
    restored = line.document(*RESTORE, *files)
    assert restored["is_encrypted"] is True
    assert restored["seed_file"] == str(home / "seed")
    assert any("cannot leave a factory" in warning for warning in restored["warnings"])
    assert PHRASE.encode() not in (home / "seed").read_bytes()

    def show(*more: str) -> tuple[int, str]:
        result = line.run("client", "seed", "show", "--yes", *more)
        return result.exit_code, result.stdout

    assert show("--passphrase-file", str(secret)) == (0, f"{PHRASE}\n")
    assert show("--passphrase-file", str(wrong)) == (3, "")
    assert show() == (3, "")
    in_file = f"[seed]\npassphrase_file = '{secret}'\n"
    (home.parent / "config.toml").write_text(in_file, encoding="utf-8")
    assert show() == (0, f"{PHRASE}\n")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (PHRASE.replace("about", "abuot"), "word 12 is not in the BIP 39 list"),
        (PHRASE.replace("about", "abandon"), "the checksum does not match"),
        (PHRASE.replace(" about", "\nabout"), "one space between them"),
        (f"{PHRASE}\n\n", "one space between them"),
        (f" {PHRASE}", "one space between them"),
        (PHRASE.upper(), "is not in the BIP 39 list"),
        (f"{PHRASE} about", "expected 12, 15, 18, 21 or 24 words, received 13"),
        ("", "one space between them"),
        ("abandon " * 5_000, "expected"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(
    line: CommandLine, tmp_path: Path, typed: str, said: str
) -> None:
    result = line.run(*RESTORE, "--yes", "--json", typed=typed)
    assert result.exit_code == 2
    error = json.loads(result.stderr)
    assert error["code"] == "bad_seed"
    assert said in error["message"]
    assert "abandon" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_can_be_asked_nothing_is_shown_or_written(
    line: CommandLine, home: Path, tmp_path: Path
) -> None:
    result = line.run(*RESTORE, typed=PHRASE)
    assert result.exit_code == 5
    assert list(tmp_path.iterdir()) == []
    assert line.run(*RESTORE, "--yes", typed=PHRASE).exit_code == 0
    hidden = line.run("client", "seed", "show")
    assert (hidden.exit_code, hidden.stdout) == (5, "")
    assert read_phrase(home, None) == PHRASE


@pytest.mark.parametrize("name", ["seed", "journal.sqlite"])
def test_nothing_that_exists_is_replaced(line: CommandLine, home: Path, name: str) -> None:
    home.mkdir(parents=True)
    (home / name).write_bytes(b"precious")
    result = line.run(*RESTORE, "--yes", typed=PHRASE)
    assert result.exit_code == 1
    assert f"{home / name} exists" in result.stderr
    assert {path.name: path.read_bytes() for path in home.iterdir()} == {name: b"precious"}


def test_while_the_daemon_runs_its_seed_is_neither_shown_nor_made(
    line: CommandLine, home: Path
) -> None:
    with locked(home):
        restored = line.run(*RESTORE, "--yes", typed=PHRASE)
    assert restored.exit_code == 1
    assert f"a daemon runs on {home}" in restored.stderr
    assert "cromford client stop" in restored.stderr
    assert not (home / "seed").exists()
    assert line.run(*RESTORE, "--yes", typed=PHRASE).exit_code == 0
    with Journal(home):
        shown = line.run("client", "seed", "show", "--yes")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "a daemon runs" in shown.stderr


def test_a_seed_that_is_not_there_cannot_be_shown(line: CommandLine, tmp_path: Path) -> None:
    result = line.run("client", "seed", "show", "--yes")
    assert result.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_a_seed_that_others_can_read_is_not_shown(line: CommandLine, home: Path) -> None:
    assert line.run(*RESTORE, "--yes", typed=PHRASE).exit_code == 0
    (home / "seed").chmod(0o644)
    result = line.run("client", "seed", "show", "--yes")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "expected mode 0600" in result.stderr


@pytest.mark.usefixtures("person")
def test_a_person_is_asked_for_words_and_a_passphrase_that_are_not_echoed(
    line: CommandLine, home: Path
) -> None:
    typed = f"{PHRASE}\nhorse\nhorse\ny\n"
    result = line.run("lsp", "seed", "restore", typed=typed)
    assert result.exit_code == 0, result.output
    assert PHRASE not in result.output
    assert "horse" not in result.output
    assert "under the passphrase" in result.stdout
    assert read_phrase(home, "horse") == PHRASE
    shown = line.run("lsp", "seed", "show", typed="y\nhorse\n")
    assert shown.stdout == f"{PHRASE}\n"
    assert line.run("lsp", "seed", "show", typed="n\n").stdout == ""
    assert line.run("lsp", "seed", "show", typed="y\nhouse\n").exit_code == 3


@pytest.mark.usefixtures("person")
def test_a_person_may_do_without_a_passphrase_and_may_say_no(line: CommandLine, home: Path) -> None:
    assert line.run(*RESTORE, typed=f"{PHRASE}\n\nn\n").exit_code == 130
    assert not home.exists()
    assert line.run(*RESTORE, typed=f"{PHRASE}\n\ny\n").exit_code == 0
    assert read_phrase(home, None) == PHRASE


@pytest.mark.usefixtures("person")
def test_a_passphrase_that_was_mistyped_once_is_not_taken(
    line: CommandLine, tmp_path: Path
) -> None:
    result = line.run(*RESTORE, typed=f"{PHRASE}\nhorse\nhouse\ny\n")
    assert result.exit_code == 2
    assert "the two passphrases differ" in result.stderr
    assert list(tmp_path.iterdir()) == []
