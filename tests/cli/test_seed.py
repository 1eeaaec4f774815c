"""The seed: nothing is shown unasked, nothing is written unless all of it is right."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine

from cromford.adapters.sqlite import Journal, locked
from cromford.bitcoin.network import REGTEST
from cromford.cli import asking, seed_asking
from cromford.daemon.pairing import open_keychain
from cromford.daemon.seed_file import read_phrase, seed_of, write_phrase
from cromford.ports import Entry
from cromford.protocol.journal.records import Created, encode_record
from cromford.protocol.journal.streams import CREATION
from cromford.signing.keychain import seed_fingerprint

# BIP 39's own vectors, of 12 and of 24 words.
PHRASE = f"{'abandon ' * 11}about"
LONG_PHRASE = f"{'zoo ' * 23}vote"
ROLES = ("client", "lsp")
RESTORE = ("client", "seed", "restore")


@pytest.fixture
def line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "client")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "client" / "regtest"


def fingerprint(phrase: str) -> str:
    return seed_fingerprint(seed_of(phrase), REGTEST).hex()


def begin(home: Path, role: str, phrase: str) -> None:
    """Leave a directory as a daemon of this seed leaves it."""
    home.mkdir(parents=True)
    write_phrase(home, phrase, None)
    with Journal(home) as journal:
        open_keychain(journal, home, role=role, network=REGTEST, passphrase=None)


def refused(line: CommandLine, *words: str, typed: str | None = None) -> tuple[int, str, str]:
    """Return the exit code, the error's code and its message of a command that prints nothing."""
    result = line.run(*words, "--json", typed=typed)
    assert result.stdout == ""
    error = json.loads(result.stderr)
    return result.exit_code, error["code"], error["message"]


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (asking, seed_asking):
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
    assert line.document("client", "seed", "show", "--yes") == {
        "phrase": phrase,
        "fingerprint": fingerprint(phrase),
    }


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
    assert any("`rescan --from HEIGHT`" in warning for warning in restored["warnings"])
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
        (PHRASE.replace(" about", "about"), "expected 12, 15, 18, 21 or 24 words, received 11"),
        (PHRASE.replace(" about", ", about"), "one space between them"),
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


@pytest.mark.parametrize(
    "typed",
    [
        PHRASE.replace(" about", "\nabout"),
        f"{PHRASE}\n\n",
        f" {PHRASE}\t\r\n",
        PHRASE.replace(" ", "  "),
        PHRASE.replace(" ", "\u00a0"),
        PHRASE.upper(),
        PHRASE.replace("abandon", "Abandon"),
        f"\ufeff{PHRASE}",
        PHRASE.replace("about", "\uff41bout"),
    ],
    ids=["lines", "end", "ends", "blanks", "no-break", "upper", "first", "mark", "wide"],
)
def test_words_are_taken_however_a_person_or_an_editor_writes_them(
    line: CommandLine, home: Path, tmp_path: Path, typed: str
) -> None:
    words = tmp_path / "words"
    words.write_text(typed, encoding="utf-8")
    assert line.run(*RESTORE, "--phrase-file", str(words), "--yes").exit_code == 0
    assert read_phrase(home, None) == PHRASE


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


@pytest.mark.parametrize(
    ("name", "said"), [("seed", "seed exists"), ("journal.sqlite", "is not an SQLite file")]
)
def test_nothing_that_exists_is_replaced(
    line: CommandLine, home: Path, name: str, said: str
) -> None:
    home.mkdir(parents=True)
    (home / name).write_bytes(b"precious")
    result = line.run(*RESTORE, "--yes", typed=PHRASE)
    assert result.exit_code == 1
    assert f"{home / name}" in result.stderr
    assert said in result.stderr
    (home / "journal.lock").unlink(missing_ok=True)
    assert {path.name: path.read_bytes() for path in home.iterdir()} == {name: b"precious"}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "words",
    [("restore", "--yes"), ("show", "--yes"), ("encrypt",), ("passphrase",)],
    ids=lambda words: words[0],
)
def test_while_the_daemon_runs_its_seed_is_neither_shown_nor_touched(
    line: CommandLine, home: Path, role: str, words: tuple[str, ...]
) -> None:
    if words[0] != "restore":
        begin(home, role, PHRASE)
    with locked(home):
        result = line.run(role, "seed", *words, "--json", typed=PHRASE)
    assert (result.exit_code, result.stdout) == (1, "")
    error = json.loads(result.stderr)
    assert (error["code"], error["retryable"]) == ("daemon_running", True)
    assert f"cromford {role} stop" in error["remediation"]
    if words[0] == "restore":
        assert not (home / "seed").exists()
    else:
        assert read_phrase(home, None) == PHRASE


# Beside a journal


@pytest.mark.parametrize("role", ROLES)
def test_the_words_of_a_journals_seed_are_taken_beside_it(
    line: CommandLine, home: Path, role: str
) -> None:
    begin(home, role, PHRASE)
    (home / "seed").unlink()
    restored = line.run(role, "seed", "restore", "--yes", "--json", typed=PHRASE)
    assert restored.exit_code == 0, restored.stderr
    answer = json.loads(restored.stdout)
    assert (answer["has_journal"], answer["fingerprint"]) == (True, fingerprint(PHRASE))
    assert any("goes on where it ends" in warning for warning in answer["warnings"])
    assert read_phrase(home, None) == PHRASE


@pytest.mark.parametrize("role", ROLES)
def test_other_words_are_refused_beside_a_journal_and_both_seeds_are_named(
    line: CommandLine, home: Path, role: str
) -> None:
    begin(home, role, PHRASE)
    (home / "seed").unlink()
    exit_code, code, message = refused(line, role, "seed", "restore", "--yes", typed=LONG_PHRASE)
    assert (exit_code, code) == (1, "foreign_seed")
    assert fingerprint(PHRASE) in message
    assert fingerprint(LONG_PHRASE) in message
    assert not (home / "seed").exists()


def test_words_beside_a_journal_of_another_role_are_refused(line: CommandLine, home: Path) -> None:
    begin(home, "lsp", PHRASE)
    (home / "seed").unlink()
    exit_code, code, message = refused(line, *RESTORE, "--yes", typed=PHRASE)
    assert (exit_code, code) == (1, "datadir_unusable")
    assert "expected the journal of a client" in message
    assert not (home / "seed").exists()


def test_words_beside_a_journal_that_names_no_seed_are_refused(
    line: CommandLine, home: Path
) -> None:
    home.mkdir(parents=True)
    old = Created(role="client", network=REGTEST.genesis_hash, journal_number=7)
    with Journal(home) as journal:
        journal.append([Entry(CREATION, encode_record(old))])
    exit_code, code, message = refused(line, *RESTORE, "--yes", typed=PHRASE)
    assert (exit_code, code) == (1, "seed_unnamed")
    assert "does not name its seed" in message
    assert not (home / "seed").exists()


def test_a_journal_that_a_first_start_left_empty_stands_in_no_ones_way(
    line: CommandLine, home: Path
) -> None:
    Journal(home).close()
    assert line.run(*RESTORE, "--yes", typed=PHRASE).exit_code == 0
    assert read_phrase(home, None) == PHRASE


def test_words_of_another_seed_than_the_journals_are_not_shown_as_its_backup(
    line: CommandLine, home: Path
) -> None:
    begin(home, "client", PHRASE)
    (home / "seed").unlink()
    write_phrase(home, LONG_PHRASE, None)
    exit_code, code, message = refused(line, "client", "seed", "show", "--yes")
    assert (exit_code, code) == (1, "foreign_seed")
    assert fingerprint(PHRASE) in message
    assert fingerprint(LONG_PHRASE) in message


def test_words_outlive_a_journal_that_cannot_be_read(line: CommandLine, home: Path) -> None:
    begin(home, "client", PHRASE)
    (home / "journal.sqlite").write_bytes(b"damaged" * 1000)
    assert line.run("client", "seed", "show", "--yes").stdout == f"{PHRASE}\n"


# The passphrase


def secret_file(directory: Path, passphrase: str) -> str:
    path = directory / f"secret-{passphrase}"
    path.write_text(f"{passphrase}\n", encoding="utf-8")
    return str(path)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("role", ROLES)
def test_a_plain_seed_is_encrypted_and_opens_with_the_passphrase_alone(
    line: CommandLine, home: Path, tmp_path: Path, role: str
) -> None:
    begin(home, role, PHRASE)
    secret = ("--passphrase-file", secret_file(tmp_path, "horse"))
    answer = line.document(role, "seed", "encrypt", *secret)
    assert (answer["is_encrypted"], answer["seed_file"]) == (True, str(home / "seed"))
    assert any("are not encrypted" in warning for warning in answer["warnings"])
    assert PHRASE.encode() not in (home / "seed").read_bytes()
    assert read_phrase(home, "horse") == PHRASE
    assert refused(line, role, "seed", "show", "--yes")[:2] == (3, "wrong_passphrase")
    before = (home / "seed").read_bytes()
    assert refused(line, role, "seed", "encrypt", *secret)[:2] == (1, "seed_encrypted")
    assert (home / "seed").read_bytes() == before


@pytest.mark.sampled(1)
@pytest.mark.parametrize("role", ROLES)
def test_the_passphrase_of_a_seed_is_changed_by_who_knows_it(
    line: CommandLine, home: Path, tmp_path: Path, role: str
) -> None:
    home.mkdir(parents=True)
    write_phrase(home, PHRASE, "horse")
    old, new, wrong = (secret_file(tmp_path, name) for name in ("horse", "house", "hose"))
    change = (role, "seed", "passphrase", "--new-passphrase-file", new)
    before = (home / "seed").read_bytes()
    assert refused(line, *change, "--passphrase-file", wrong)[:2] == (3, "wrong_passphrase")
    assert refused(line, *change)[:2] == (3, "wrong_passphrase")
    same = (*change[:3], "--new-passphrase-file", old, "--passphrase-file", old)
    assert refused(line, *same)[:2] == (2, "passphrase_unchanged")
    assert (home / "seed").read_bytes() == before
    answer = line.document(*change, "--passphrase-file", old)
    assert any("open with the old one" in warning for warning in answer["warnings"])
    assert read_phrase(home, "house") == PHRASE


def test_without_a_new_passphrase_nothing_is_encrypted(
    line: CommandLine, home: Path, tmp_path: Path
) -> None:
    begin(home, "client", PHRASE)
    empty = secret_file(tmp_path, "")
    encrypt = ("client", "seed", "encrypt")
    for words in (encrypt, (*encrypt, "--passphrase-file", empty)):
        exit_code, code, _ = refused(line, *words)
        assert (exit_code, code) == (2, "passphrase_missing")
    assert read_phrase(home, None) == PHRASE


def test_a_passphrase_for_a_seed_that_is_not_encrypted_is_refused_by_every_command(
    line: CommandLine, home: Path, tmp_path: Path
) -> None:
    begin(home, "client", PHRASE)
    secret = ("--passphrase-file", secret_file(tmp_path, "horse"))
    for words in (("show", "--yes"), ("passphrase",)):
        exit_code, code, _ = refused(line, "client", "seed", *words, *secret)
        assert (exit_code, code) == (2, "seed_not_encrypted")
    in_file = f"[seed]\npassphrase_file = '{secret[1]}'\n"
    (home.parent / "config.toml").write_text(in_file, encoding="utf-8")
    assert refused(line, "client", "seed", "show", "--yes")[1] == "seed_not_encrypted"
    # What the configuration names is what `encrypt` takes; then all of it fits.
    assert line.run("client", "seed", "encrypt").exit_code == 0
    assert line.run("client", "seed", "show", "--yes").stdout == f"{PHRASE}\n"


@pytest.mark.parametrize("words", [("encrypt",), ("passphrase",)], ids=lambda words: words[0])
def test_a_seed_that_is_not_there_has_no_passphrase(
    line: CommandLine, tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert refused(line, "client", "seed", *words)[:2] == (4, "seed_not_found")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.sampled(0)
@pytest.mark.usefixtures("person")
def test_a_person_is_asked_for_passphrases_that_are_not_echoed(
    line: CommandLine, home: Path
) -> None:
    begin(home, "client", PHRASE)
    for words, typed in (("encrypt", "horse\nhorse\n"), ("passphrase", "horse\nhouse\nhouse\n")):
        result = line.run("client", "seed", words, typed=typed)
        assert result.exit_code == 0, result.output
        assert "hor" not in result.output
        assert "hou" not in result.output
    assert read_phrase(home, "house") == PHRASE
    assert line.run("client", "seed", "passphrase", typed="horse\n").exit_code == 3
    assert line.run("client", "seed", "passphrase", typed="house\na\nb\n").exit_code == 2
    assert line.run("client", "seed", "passphrase", typed="house\n\n").exit_code == 2
    assert read_phrase(home, "house") == PHRASE


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
