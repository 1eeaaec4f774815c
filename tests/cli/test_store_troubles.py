"""What is wrong with a store has a code and a remedy of its own, and nothing of it is changed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from tests.cli.conftest import CommandLine
from tests.cli.test_daemon_starts import PHRASE, RUN, begin
from tests.small_disk import fill, small_disk, written_no_more

from cromford.adapters.places import Limits
from cromford.adapters.sqlite import JOURNAL_NAME, Journal
from cromford.adapters.sqlite_schema import SCHEMA_VERSION
from cromford.bitcoin.network import REGTEST
from cromford.cli.configuration import run_options
from cromford.daemon import clientd, lspd
from cromford.daemon.seed_file import SEED_FILE, load_or_create_seed
from cromford.open_files import OWN_FILES
from cromford.ports import Entry
from cromford.protocol.journal.records import (
    RECORD_VERSION,
    UNCHECKED_VERSION,
    BlockConnected,
    encode_record,
)

Run = Callable[..., tuple[int, str, str, str, bool]]
LATEST = encode_record(BlockConnected(height=1, block_hash=bytes(32), txs=()))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", kib=1024) as mounted:
        yield mounted


def starter(datadir: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what starts a daemon, and gives its exit code and all that its error says."""
    for daemon in (clientd, lspd):
        monkeypatch.setattr(daemon, "set_up_logging", lambda **_: None)
    monkeypatch.setattr(run_options, "BITCOIND_HOME", datadir)
    line = CommandLine(datadir)

    def start(role: str, *words: str) -> tuple[int, str, str, str, bool]:
        result = line.run(*RUN[role], *words, "--json")
        error = json.loads(result.stderr)
        told = (error["code"], error["message"], error["remediation"], error["retryable"])
        return (result.exit_code, *told)

    return start


def edit(home: Path, statement: str, *bindings: object) -> bytes:
    """Change a journal behind its back, and return the file's bytes then."""
    connection = apsw.Connection(str(home / JOURNAL_NAME))
    connection.execute(statement, bindings)
    connection.close()
    return (home / JOURNAL_NAME).read_bytes()


@pytest.mark.parametrize("role", RUN)
def test_a_full_disk_says_so_and_with_room_the_same_store_is_there(
    disk: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    home = disk / REGTEST.name
    begin(home, role, PHRASE)
    with Journal(home) as journal:
        before = list(journal.history(after=0, limit=10))
    filler = fill(disk)
    exit_code, code, message, remedy, is_retryable = starter(disk, monkeypatch)(role)
    assert (exit_code, code, is_retryable) == (1, "disk_full", True)
    assert JOURNAL_NAME in message
    assert remedy.startswith("Make room on that disk")
    filler.unlink()
    with Journal(home) as journal:
        assert list(journal.history(after=0, limit=10)) == before


def test_a_first_start_on_a_full_disk_leaves_no_half_of_a_seed(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = fill(disk)
    assert starter(disk, monkeypatch)("client")[:2] == (1, "disk_full")
    home = disk / REGTEST.name
    assert not (home / SEED_FILE).exists()
    filler.unlink()
    assert len(load_or_create_seed(home, None)) == 64


def test_a_data_directory_that_is_mounted_read_only_says_so_and_is_as_before(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = disk / REGTEST.name
    begin(home, "client", PHRASE)
    before = (home / JOURNAL_NAME).read_bytes()
    with written_no_more(disk):
        exit_code, code, message, remedy, _ = starter(disk, monkeypatch)("client")
        assert (exit_code, code) == (1, "store_read_only")
        assert "Read-only file system" in message
        assert "mounted for writing" in remedy
    assert (home / JOURNAL_NAME).read_bytes() == before


@pytest.mark.parametrize("role", RUN)
def test_a_disk_that_fails_is_told_as_that_and_not_as_a_wrong_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    begin(tmp_path / REGTEST.name, role, PHRASE)

    def fail(_journal: Journal, _expected: object) -> None:
        raise apsw.IOError("disk I/O error")

    monkeypatch.setattr(Journal, "_check_health", fail)
    exit_code, code, message, remedy, is_retryable = starter(tmp_path, monkeypatch)(role)
    assert (exit_code, code, is_retryable) == (1, "disk_failed", True)
    assert message.endswith(f"{JOURNAL_NAME}: disk I/O error")
    assert f"cromford {role} backup restore" in remedy


NEWER = {
    "the schema": (
        f"PRAGMA user_version = {SCHEMA_VERSION + 1}",
        (),
        f"expected at most {SCHEMA_VERSION}, received {SCHEMA_VERSION + 1}",
    ),
    "a record's version": (
        "UPDATE journal SET record = ? WHERE number = 2",
        (bytes((RECORD_VERSION + 1,)) + LATEST[2:],),
        f"record 1 of client: record version {RECORD_VERSION + 1:02x}, expected {RECORD_VERSION}",
    ),
    "a record's kind": (
        "UPDATE journal SET record = ? WHERE number = 2",
        (bytes((UNCHECKED_VERSION,)) + b"\x92\xa7painted\x01",),
        "record 1 of client: a kind of record that this version does not know: painted",
    ),
}
DAMAGED = {
    "a page": ("UPDATE sqlite_schema SET rootpage = 99 WHERE name = 'archive'", (), "corrupt"),
    "a record": (
        "UPDATE journal SET record = ? WHERE number = 2",
        (LATEST[:-1],),
        "record 1 of client: ",
    ),
    "a record that is missing": (
        "UPDATE journal SET n = 2 WHERE number = 2",
        (),
        "record 1 of client is missing",
    ),
}


def written_home(tmp_path: Path) -> Path:
    """Leave a client's directory with a record of its stream."""
    home = tmp_path / REGTEST.name
    begin(home, "client", PHRASE)
    with Journal(home) as journal:
        journal.append([Entry("client", LATEST)])
    return home


@pytest.mark.parametrize("what", NEWER)
def test_what_a_newer_version_wrote_is_refused_with_both_versions_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    home = written_home(tmp_path)
    statement, bindings, said = NEWER[what]
    before = edit(home, statement, *bindings)
    exit_code, code, message, remedy, _ = starter(tmp_path, monkeypatch)("client")
    assert (exit_code, code) == (1, "store_too_new")
    assert said in message
    assert "start the version that wrote it, or a newer one" in remedy
    assert (home / JOURNAL_NAME).read_bytes() == before


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_is_named_and_kept_and_a_backup_is_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    home = written_home(tmp_path)
    statement, bindings, said = DAMAGED[what]
    if what == "a page":
        statement = f"PRAGMA writable_schema = 1; {statement}"
    before = edit(home, statement, *bindings)
    exit_code, code, message, remedy, _ = starter(tmp_path, monkeypatch)("client")
    assert (exit_code, code) == (1, "store_damaged")
    assert said in message
    assert "cromford client backup restore" in remedy
    assert (home / JOURNAL_NAME).read_bytes() == before


def test_the_store_of_another_network_is_refused_by_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / REGTEST.name, "client", PHRASE)
    (tmp_path / REGTEST.name).rename(tmp_path / "signet")
    told = starter(tmp_path, monkeypatch)("client", "--network", "signet")
    exit_code, code, message, remedy, _ = told
    assert (exit_code, code) == (1, "datadir_unusable")
    assert "expected the journal of a client on signet, found one of a client on regtest" in message
    assert "--datadir" in remedy


def test_an_lsp_that_may_open_too_few_files_says_how_many_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lspd, "allow_open_files", lambda _needed: OWN_FILES)
    exit_code, code, message, remedy, _ = starter(tmp_path, monkeypatch)("lsp")
    assert (exit_code, code) == (1, "too_few_files")
    assert message == f"open files: expected at least {Limits().n_files}, received {OWN_FILES}"
    assert "--connections-max" in remedy
