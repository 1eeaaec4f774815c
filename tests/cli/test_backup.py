"""Backups on the command line: what is wrong is named, and then nothing was changed."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Self

import pytest
from tests.cli import backup_answers
from tests.cli.conftest import CommandLine
from tests.cli.fake_daemon import FakeDaemon
from tests.cli.test_seed import LONG_PHRASE, PHRASE, begin, fingerprint

from cromford.adapters import store_copy
from cromford.adapters.sealed import MAGIC
from cromford.adapters.sqlite import JOURNAL_NAME, Journal, locked
from cromford.daemon.backup import restoring
from cromford.daemon.seed_file import change_passphrase, write_phrase
from cromford.ports import Entry
from cromford.protocol.journal.records import (
    Started,
    StoreRestored,
    decode_record,
    encode_record,
)
from cromford.protocol.journal.streams import CLIENT


@pytest.fixture
def line(tmp_path: Path) -> CommandLine:
    home = tmp_path / "client" / "regtest"
    begin(home, "client", PHRASE)
    with Journal(home) as store:
        store.append([Entry(CLIENT, encode_record(Started()))] * 3)
    return CommandLine(tmp_path / "client")


@pytest.fixture
def backup(line: CommandLine, tmp_path: Path) -> Path:
    line.document("client", "backup", "create", str(tmp_path / "one"))
    return tmp_path / "one"


def new_home(
    tmp_path: Path, *, phrase: str = PHRASE, role: str = "client", network: str = "regtest"
) -> CommandLine:
    home = tmp_path / f"new-{role}" / network
    home.mkdir(parents=True)
    write_phrase(home, phrase, None)
    return CommandLine(home.parent)


def everything(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "journal.lock"
    }


def refusal(line: CommandLine, *words: str) -> tuple[int, str, str]:
    result = line.run(*words, "--json")
    assert result.stdout == "", result.stdout
    error = json.loads(result.stderr)
    return result.exit_code, error["code"], error["message"]


def test_a_store_that_is_put_back_is_the_same_and_marked(
    line: CommandLine, backup: Path, tmp_path: Path
) -> None:
    seen = line.document("client", "backup", "verify", str(backup))
    assert (seen["role"], seen["network"], seen["seed"]) == (
        "client",
        "regtest",
        fingerprint(PHRASE),
    )
    assert (seen["records"], seen["channels"], seen["behind_records"]) == (4, 0, 0)
    new = new_home(tmp_path)
    restored = new.document("client", "backup", "restore", str(backup), "--yes")
    assert restored["marked_streams"] == 1
    assert any("never" in step.lower() for step in restored["next"])
    assert any("only close" in warning for warning in restored["warnings"])
    home = tmp_path / "new-client" / "regtest"
    assert sorted(path.name for path in home.iterdir()) == ["journal.lock", JOURNAL_NAME, "seed"]
    with Journal(home) as store, Journal(tmp_path / "client" / "regtest") as old:
        assert list(store.replay(CLIENT))[:3] == list(old.replay(CLIENT))
        record = decode_record(list(store.replay(CLIENT))[3])
    assert record == StoreRestored(backup_id=bytes.fromhex(seen["backup_id"]), source=str(backup))
    status = new.document("client", "backup", "status")
    assert (status["is_restored"], status["source"]) == (True, str(backup))


def test_a_backup_is_behind_a_store_that_went_on(
    line: CommandLine, backup: Path, tmp_path: Path
) -> None:
    with Journal(tmp_path / "client" / "regtest") as store:
        store.append([Entry(CLIENT, encode_record(Started()))] * 7)
    result = line.run("client", "backup", "verify", str(backup))
    assert "behind the store  7 records" in result.stdout
    new = new_home(tmp_path)
    seen = new.document("client", "backup", "verify", str(backup))
    assert (seen["is_of_this_journal"], seen["behind_records"]) == (False, None)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _edit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _of_later(path: Path) -> None:
    body = b'{"file_id":"' + b"00" * 16 + b'","format":2}'
    path.write_bytes(MAGIC + len(body).to_bytes(4, "big") + body + bytes(99))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_cut, "backup_truncated"),
        (_edit, "backup_damaged"),
        (_directory, "backup_not_found"),
        (_of_later, "backup_of_another_version"),
        (lambda path: path.write_bytes(b""), "not_a_backup"),
        (lambda path: path.write_bytes(b"some words"), "not_a_backup"),
        (Path.unlink, "backup_not_found"),
    ],
)
def test_a_backup_that_is_none_changes_nothing(
    tmp_path: Path, backup: Path, spoil: Callable[[Path], object], code: str
) -> None:
    spoil(backup)
    new = new_home(tmp_path)
    before = everything(tmp_path)
    for words in (("verify", str(backup)), ("restore", str(backup), "--yes")):
        exit_code, received, message = refusal(new, "client", "backup", *words)
        assert (exit_code, received) in {(2, code), (4, code)}
        assert str(backup) in message
        assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("home", "code"),
    [
        ((LONG_PHRASE, "client", "regtest"), "backup_of_another_seed"),
        ((PHRASE, "lsp", "regtest"), "backup_of_another_role"),
        ((PHRASE, "client", "signet"), "backup_of_another_network"),
    ],
)
def test_a_backup_of_another_store_changes_nothing(
    tmp_path: Path, backup: Path, home: tuple[str, str, str], code: str
) -> None:
    phrase, role, network = home
    new = new_home(tmp_path, phrase=phrase, role=role, network=network)
    before = everything(tmp_path)
    for words in (("verify", str(backup)), ("restore", str(backup), "--yes")):
        exit_code, received, _ = refusal(new, "--network", network, role, "backup", *words)
        assert (exit_code, received) == (2, code)
        assert everything(tmp_path) == before


def test_a_journal_that_is_there_is_never_replaced(
    line: CommandLine, backup: Path, tmp_path: Path
) -> None:
    before = everything(tmp_path)
    exit_code, code, message = refusal(line, "client", "backup", "restore", str(backup), "--yes")
    assert (exit_code, code) == (1, "home_not_empty")
    assert "journal.sqlite has 4 records" in message
    assert everything(tmp_path) == before


def test_a_home_without_its_seed_is_told_to_have_it_first(backup: Path, tmp_path: Path) -> None:
    (tmp_path / "bare" / "regtest").mkdir(parents=True)
    bare = CommandLine(tmp_path / "bare")
    words = ("client", "backup", "restore", str(backup), "--yes")
    assert refusal(bare, *words)[:2] == (4, "seed_not_found")
    assert "before the daemon is started: `seed restore`" in bare.run(*words).stderr
    assert refusal(bare, "client", "backup", "status")[:2] == (4, "seed_not_found")
    new = new_home(tmp_path)
    assert refusal(new, "client", "backup", "status")[:2] == (4, "journal_not_found")
    assert refusal(new, "client", "backup", "create", str(tmp_path / "two"))[1] == (
        "journal_not_found"
    )
    assert not (tmp_path / "two").exists()


def test_nothing_is_put_back_unasked_nor_beside_a_daemon(backup: Path, tmp_path: Path) -> None:
    new = new_home(tmp_path)
    words = ("client", "backup", "restore", str(backup))
    assert refusal(new, *words)[:2] == (5, "needs_confirmation")
    with locked(tmp_path / "new-client" / "regtest"):
        assert refusal(new, *words, "--yes")[:2] == (1, "daemon_running")
    assert not (tmp_path / "new-client" / "regtest" / JOURNAL_NAME).exists()


def test_a_file_is_only_replaced_when_that_is_asked_for(line: CommandLine, backup: Path) -> None:
    before = backup.read_bytes()
    assert refusal(line, "client", "backup", "create", str(backup))[:2] == (1, "backup_exists")
    assert backup.read_bytes() == before
    line.document("client", "backup", "create", str(backup), "--overwrite")
    assert backup.read_bytes() != before
    line.document("client", "backup", "verify", str(backup))
    missing = backup.parent / "none" / "one"
    assert refusal(line, "client", "backup", "create", str(missing)) == (
        1,
        "backup_not_written",
        f"{missing}: No such file or directory",
    )


@pytest.mark.parametrize("role", ["client", "lsp"])
@pytest.mark.parametrize("older", [None, b"an older one"])
def test_one_that_the_daemon_wrote_where_nobody_else_looks_is_none(
    fake: Callable[[dict[str, Any]], FakeDaemon], tmp_path: Path, role: str, older: bytes | None
) -> None:
    """With `PrivateTmp=yes` its /tmp is its own, and goes when it stops."""
    daemon = fake({"backup_create": backup_answers.CREATED})
    place = tmp_path / "one"
    if older is not None:
        place.write_bytes(older)
    exit_code, code, message = refusal(
        CommandLine(daemon.datadir), role, "backup", "create", str(place), "--overwrite"
    )
    assert (exit_code, code) == (1, "backup_elsewhere")
    assert message == f"{place}: the daemon wrote it, and this user does not find it there"


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_a_directory_is_no_place_for_a_backup_and_overwriting_is_no_way_out(
    line: CommandLine, tmp_path: Path, more: tuple[str, ...]
) -> None:
    (tmp_path / "place").mkdir()
    assert refusal(line, "client", "backup", "create", str(tmp_path / "place"), *more) == (
        1,
        "backup_not_written",
        f"{tmp_path / 'place'}: Is a directory",
    )


def test_a_backup_never_takes_the_place_of_the_store(line: CommandLine, tmp_path: Path) -> None:
    home = tmp_path / "client" / "regtest"
    before = everything(home)
    for name in (JOURNAL_NAME, "seed", "one"):
        words = ("client", "backup", "create", str(home / name), "--overwrite")
        exit_code, code, message = refusal(line, *words)
        assert (exit_code, code) == (2, "place_refused")
        assert f"lies within {home.parent}, where the store is" in message
    assert everything(home) == before


def test_a_backup_never_lies_in_the_data_directory_that_it_is_to_outlive(
    line: CommandLine, tmp_path: Path
) -> None:
    datadir = tmp_path / "client"
    (tmp_path / "link").symlink_to(datadir)
    before = everything(tmp_path)
    for file in (datadir / "one", datadir / "regtest" / ".." / "one", tmp_path / "link" / "one"):
        exit_code, code, message = refusal(line, "client", "backup", "create", str(file))
        assert (exit_code, code) == (2, "place_refused")
        assert f"{file} lies within {datadir}" in message
    assert everything(tmp_path) == before


@pytest.mark.parametrize("is_read_in_part", [False, True])
def test_a_backup_that_the_system_does_not_let_be_read_is_named_and_not_the_store(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_read_in_part: bool
) -> None:
    new = new_home(tmp_path)
    before = everything(tmp_path)
    number = errno.EIO if is_read_in_part else errno.EACCES
    opened = Path.open

    def refused(path: Path, *args: Any, **named: Any) -> Any:
        if path == backup and not is_read_in_part:
            raise OSError(number, os.strerror(number), str(path))
        file = opened(path, *args, **named)
        return _Failing(file, number) if path == backup else file

    monkeypatch.setattr(Path, "open", refused)
    for words in (("verify", str(backup)), ("restore", str(backup), "--yes")):
        result = new.run("client", "backup", *words, "--json")
        error = json.loads(result.stderr)
        assert (result.exit_code, error["code"]) == (1, "backup_unreadable")
        assert error["message"] == f"{backup}: {os.strerror(number)}"
        assert "data directory" not in error["remediation"]
    monkeypatch.undo()
    assert everything(tmp_path) == before


class _Failing:
    """A file on a disk of which a part cannot be read."""

    def __init__(self, file: BinaryIO, number: int) -> None:
        self._file = file
        self._number = number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        if self._file.tell():
            raise OSError(self._number, os.strerror(self._number))
        return self._file.read(size)


def test_a_pipe_is_no_backup_and_is_not_waited_for(line: CommandLine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    exit_code, code, message = refusal(line, "client", "backup", "verify", str(tmp_path / "pipe"))
    assert (exit_code, code) == (2, "not_a_backup")
    assert message == f"{tmp_path / 'pipe'} is no backup: expected a file"


def test_a_stopped_daemon_is_not_said_to_keep_no_mark(line: CommandLine, tmp_path: Path) -> None:
    unknown = line.document("client", "backup", "status")["warnings"]
    assert "not what `run` was told by --backup-dir and --mark-dir" in unknown[0]
    config = "\n".join(
        ("[backup]", f'dir = "{tmp_path / "second"}"', f'mark_dir = "{tmp_path / "third"}"')
    )
    (tmp_path / "client" / "config.toml").write_text(config, encoding="utf-8")
    known = line.document("client", "backup", "status")["warnings"]
    assert [one for one in known if "`run`" in one] == []


def test_a_restore_that_was_cut_off_is_begun_again(backup: Path, tmp_path: Path) -> None:
    new = new_home(tmp_path)
    home = tmp_path / "new-client" / "regtest"
    left = home / "backup-work-00112233"
    left.mkdir()
    (left / JOURNAL_NAME).write_bytes(b"half")
    Journal(home).close()  # And a first start that was cut off: a journal without a record.
    new.document("client", "backup", "restore", str(backup), "--yes")
    assert not left.exists()
    with Journal(home) as store:
        assert store.newest == 5


def test_a_passphrase_opens_what_is_encrypted(
    line: CommandLine, backup: Path, tmp_path: Path
) -> None:
    home = tmp_path / "client" / "regtest"
    change_passphrase(home, old=None, new="correct horse")
    secret = tmp_path / "secret"
    secret.write_text("correct horse\n", encoding="utf-8")
    assert refusal(line, "client", "backup", "verify", str(backup))[:2] == (3, "wrong_passphrase")
    words = ("client", "backup", "verify", str(backup), "--passphrase-file", str(secret))
    assert line.document(*words)["records"] == 4


def test_places_that_are_none_are_refused_before_anything_starts(
    line: CommandLine, tmp_path: Path
) -> None:
    lsp = f"02{'79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'}@127.0.0.1:1"
    run = ("client", "run", "--lsp", lsp, "--chain-cookie", str(tmp_path / "none"))
    before = everything(tmp_path)
    for option in ("--backup-dir", "--mark-dir"):
        exit_code, code, message = refusal(line, *run, option, str(tmp_path / "client" / "x"))
        assert (exit_code, code) == (2, "place_refused")
        assert option in message
    assert everything(tmp_path) == before


def test_a_mark_is_begun_only_when_that_is_said(
    fake: Callable[[dict[str, Any]], FakeDaemon],
) -> None:
    daemon = fake({"backup_begin_mark": backup_answers.STATUS["mark"]})
    line = CommandLine(daemon.datadir)
    words = ("client", "backup", "begin-mark")
    assert refusal(line, *words)[:2] == (5, "needs_confirmation")
    assert daemon.calls == []
    assert "NOT WRITTEN" in line.run(*words, "--yes").stdout
    assert daemon.calls == [("backup_begin_mark", {})]


@pytest.mark.parametrize("where", ["store_copy.fill", "restoring.mark_as_restored", "os.fsync"])
def test_a_restore_that_fails_on_its_way_changes_nothing(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_args: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    new = new_home(tmp_path)
    before = everything(tmp_path)
    modules = {"store_copy": store_copy, "restoring": restoring, "os": os}
    module, name = where.split(".")
    monkeypatch.setattr(modules[module], name, full)
    words = ("client", "backup", "restore", str(backup), "--yes")
    exit_code, code, message = refusal(new, *words)
    monkeypatch.undo()
    assert exit_code == 1
    assert code == "disk_full"
    assert "No space left" in message
    assert everything(tmp_path) == before
    new.document(*words)
