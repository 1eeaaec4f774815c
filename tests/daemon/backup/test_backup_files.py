"""A backup's file: what was in the store comes back, and whatever is wrong with a file is named."""

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.daemon.backup.stores import NOON, NUMBER, OWNER, backed_up, content, fill
from tests.simulation.seeds import seeds

from cromford.adapters.sealed import MAGIC, BadFile, Truncated, check_whole, read_header
from cromford.adapters.sqlite import JOURNAL_NAME, Journal
from cromford.bitcoin.network import SIGNET, TESTNET4
from cromford.daemon.backup import header as headers
from cromford.daemon.backup import making
from cromford.daemon.backup.contents import End, Moment, TableRows, encode_frame
from cromford.daemon.backup.header import BACKUP, begin_file
from cromford.daemon.backup.making import NoSpace, create_backup
from cromford.daemon.backup.places import PlaceRefused
from cromford.daemon.backup.reading import FoundBackup, Unreadable, load
from cromford.ports import Entry, StoreFailed

N_FLIPS = 60


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    path = tmp_path / "one.backup"
    with Journal(tmp_path / "home") as store:
        fill(store)
        backed_up(store, tmp_path / "home", path)
    return path


def read(path: Path, **changes: Any) -> FoundBackup:
    work = path.parent / f"work-{random.randbytes(8).hex()}"
    work.mkdir()
    return load(path, replace(OWNER, **changes), work)


def test_a_backup_has_all_that_the_store_had(tmp_path: Path, backup: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    found = load(backup, OWNER, work)
    with Journal(tmp_path / "home") as store, Journal(work) as copy:
        assert content(copy) == content(store)
        assert found.heads == {name: store.head(name) for name in found.heads}
    assert (found.newest, found.says.journal_number, found.says.created) == (20, NUMBER, NOON)
    assert (backup.stat().st_mode & 0o777) == 0o600


def test_a_large_record_and_an_empty_store_come_back(tmp_path: Path) -> None:
    for name, records in (("large", [bytes(3_000_000), b"small"]), ("empty", [])):
        home, path, work = (tmp_path / f"{name}-{what}" for what in ("home", "file", "work"))
        with Journal(home) as store:
            store.append([Entry("house", record) for record in records])
            backed_up(store, home, path)
        work.mkdir()
        assert load(path, OWNER, work).newest == len(records)
        with Journal(work) as copy:
            assert list(copy.replay("house")) == records


def test_nothing_of_a_record_can_be_read_without_the_secret(backup: Path) -> None:
    assert b"record" not in backup.read_bytes()
    assert OWNER.fingerprint.hex().encode() in backup.read_bytes()


def test_every_byte_counts(backup: Path, tmp_path: Path) -> None:
    whole = backup.read_bytes()
    size = read_header(backup).size
    for seed in seeds(N_FLIPS):
        rng = random.Random(seed)
        place = rng.choice([rng.randrange(size), rng.randrange(len(whole)), len(whole) - 1])
        edited = bytearray(whole)
        edited[place] ^= 1 << rng.randrange(8)
        path = tmp_path / f"edited-{seed}"
        path.write_bytes(edited)
        with pytest.raises(BadFile, match=f"edited-{seed}"):
            read(path)


def test_every_length_counts(backup: Path, tmp_path: Path) -> None:
    whole = backup.read_bytes()
    lengths = {*range(80), *range(len(whole) - 40, len(whole))}
    lengths |= {random.Random(seed).randrange(len(whole)) for seed in seeds(N_FLIPS)}
    path = tmp_path / "cut"
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        with pytest.raises(BadFile) as refused:
            read(path)
        expected = "not_a_backup" if length == 0 else "backup_truncated"
        assert refused.value.code == expected, length
    path.write_bytes(whole + b"\0")
    with pytest.raises(BadFile, match="cut"):
        read(path)


def test_what_is_cut_where_a_hash_could_end_is_cut(tmp_path: Path) -> None:
    path, cut = tmp_path / "one", tmp_path / "cut"
    with Journal(tmp_path / "home") as store:
        store.append([Entry("house", random.Random(1).randbytes(300_000))])
        backed_up(store, tmp_path / "home", path)
    data, at = path.read_bytes(), read_header(path).size
    chunks = chunks_of(data, at)
    assert len(chunks) > 4
    for chunk in chunks:
        cut.write_bytes(data[: at + 32])
        with pytest.raises(Truncated, match="its end is missing"):
            check_whole(cut)
        at += len(chunk)
    assert at + 32 == len(data)


def resealed(data: bytes) -> bytes:
    """Return an edited file with the hash that anybody can compute."""
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


def chunks_of(data: bytes, size: int) -> list[bytes]:
    found, at = [], size
    while at < len(data) - 32:
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at:end])
        at = end
    return found


@pytest.mark.parametrize(
    "way", ["flip", "swap", "drop", "drop the last", "double", "header", "another's", "flag"]
)
def test_who_can_compute_the_hash_can_edit_nothing_all_the_same(tmp_path: Path, way: str) -> None:
    path, other = tmp_path / "one", tmp_path / "other"
    with Journal(tmp_path / "home") as store:
        store.append([Entry("house", random.Random(1).randbytes(300_000))])
        backed_up(store, tmp_path / "home", path)
        backed_up(store, tmp_path / "home", other)
    data, size = path.read_bytes(), read_header(path).size
    header, chunks = data[:size], chunks_of(data, size)
    assert len(chunks) > 4
    match way:
        case "flip":
            flipped = bytearray(chunks[2])
            flipped[100] ^= 1
            chunks[2] = bytes(flipped)
        case "swap":
            chunks[1], chunks[2] = chunks[2], chunks[1]
        case "drop":
            del chunks[2]
        case "drop the last":
            del chunks[-1]
        case "double":
            chunks.insert(2, chunks[2])
        case "header":
            header = header.replace(b'"created":17', b'"created":18')
        case "another's":
            chunks[2] = chunks_of(other.read_bytes(), read_header(other).size)[2]
        case "flag":
            chunks.append(chunks[-1])
    path.write_bytes(resealed(header + b"".join(chunks) + bytes(32)))
    assert path.read_bytes() != data
    with pytest.raises(BadFile, match=r"one is (damaged or was edited|truncated)"):
        read(path)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (
            {"role": "client"},
            "backup_of_another_role",
            "a backup of role lsp: expected one of role",
        ),
        ({"network": SIGNET}, "backup_of_another_network", "network regtest: expected signet"),
        ({"network": TESTNET4}, "backup_of_another_network", "expected testnet4"),
        ({"fingerprint": bytes(8)}, "backup_of_another_seed", "expected 0000000000000000"),
        ({"secret": bytes([1] * 32)}, "backup_damaged", "chunk 0 does not authenticate"),
    ],
)
def test_a_backup_of_somebody_else_is_refused_by_name(
    backup: Path, changes: dict[str, object], code: str, said: str
) -> None:
    with pytest.raises(BadFile, match=said) as refused:
        read(backup, **changes)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FORMAT", 0, "format version: expected 1, received 0"),
        ("FORMAT", 2, "format version: expected 1, received 2"),
        ("SCHEMA_VERSION", 2, "schema version: expected 3, received 2"),
        ("SCHEMA_VERSION", 4, "schema version: expected 3, received 4"),
    ],
)
def test_another_version_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int, said: str
) -> None:
    with Journal(tmp_path / "home") as store:
        monkeypatch.setattr(headers, name, value)
        backed_up(store, tmp_path / "home", tmp_path / "other")
        monkeypatch.undo()
    with pytest.raises(BadFile, match=said) as refused:
        read(tmp_path / "other")
    assert refused.value.code == "backup_of_another_version"


def _header(path: Path, body: object) -> None:
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
    path.write_bytes(MAGIC + len(encoded).to_bytes(4, "big") + encoded + bytes(64))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path.write_bytes(b""), "not_a_backup"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" * 9), "not_a_backup"),
        (lambda path: _header(path, b"{"), "backup_damaged"),
        (lambda path: _header(path, []), "backup_damaged"),
        (lambda path: _header(path, {"format": 1}), "backup_damaged"),
        (lambda path: _header(path, {"format": 1, "file_id": 7}), "backup_damaged"),
        (lambda path: _header(path, {"format": 1, "file_id": "00"}), "backup_damaged"),
        (lambda path: _header(path, {"format": 1, "file_id": "00" * 16}), "backup_damaged"),
        (lambda path: path.write_bytes(MAGIC + b"\xff" * 40), "backup_damaged"),
        (lambda path: path.mkdir(), "backup_not_found"),
        (lambda _path: None, "backup_not_found"),
    ],
)
def test_what_is_no_backup_is_refused_by_name(
    tmp_path: Path, make: Callable[[Path], object], code: str
) -> None:
    path = tmp_path / "what"
    make(path)
    with pytest.raises(BadFile, match="what") as refused:
        read(path)
    assert refused.value.code == code


def test_a_file_that_is_there_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    path, home = tmp_path / "one", tmp_path / "home"
    with Journal(home) as store:
        fill(store)
        backed_up(store, home, path.with_name("before"))
        for before in (b"", path.with_name("before").read_bytes()):
            path.write_bytes(before)
            with pytest.raises(FileExistsError):
                backed_up(store, home, path)
            assert path.read_bytes() == before
            replaced(store, home, path)
            assert path.read_bytes() != before
            assert read(path).newest == 20
    assert sorted(one.name for one in home.iterdir()) == ["journal.lock", JOURNAL_NAME]


def replaced(store: Journal, home: Path, path: Path) -> None:
    create_backup(
        store,
        home,
        path,
        OWNER,
        datadir=home,
        journal_number=NUMBER,
        unix_time=NOON,
        overwrites=True,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"a key of somebody's"),
        lambda path: path.write_bytes(MAGIC[:4]),
        os.mkfifo,
        lambda path: path.symlink_to("/dev/null"),
    ],
)
def test_what_is_no_backup_is_never_replaced(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    path, home = tmp_path / "one", tmp_path / "home"
    make(path)
    before = path.lstat().st_ino
    with Journal(home) as store:
        fill(store)
        with pytest.raises(PlaceRefused, match="is no backup"):
            replaced(store, home, path)
    assert path.lstat().st_ino == before
    assert sorted(one.name for one in home.iterdir()) == ["journal.lock", JOURNAL_NAME]


@pytest.mark.parametrize("where", ["begin_file", "rows_of", "sync_directory"])
def test_a_backup_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_args: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    home, places = tmp_path / "home", tmp_path / "places"
    places.mkdir()
    with Journal(home) as store:
        fill(store)
        monkeypatch.setattr(making, where, full)
        with pytest.raises(OSError, match="No space left"):
            backed_up(store, home, places / "one")
        monkeypatch.undo()
        left = {"one"} if where == "sync_directory" else set()  # It may be there, or not.
        assert {path.name for path in places.iterdir()} <= left
        assert not list(home.glob("backup-copy*"))
        store.append([Entry("house", b"goes on")])


def test_a_disk_that_is_nearly_full_is_left_to_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=making.SPACE_LEFT_MIN)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free)
    with Journal(tmp_path / "home") as store:
        fill(store)
        with pytest.raises(NoSpace, match="has no room for a copy"):
            backed_up(store, tmp_path / "home", tmp_path / "one")
    assert not (tmp_path / "one").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_said_to_be(backup: Path) -> None:
    backup.chmod(0)
    with pytest.raises(Unreadable, match=f"{backup}: Permission denied"):
        read(backup)


def test_a_backup_made_while_records_are_written_is_of_one_moment(tmp_path: Path) -> None:
    with Journal(tmp_path / "home") as store:
        store.append([Entry("house", bytes(4000)) for _ in range(1500)])
        steps = store.copy(tmp_path / "copy.sqlite")
        n_steps = 0
        for _ in steps:
            n_steps += 1
            store.append([Entry("house", b"new"), Entry("chain", b"new")])
        made = making.write_backup(
            tmp_path / "copy.sqlite",
            tmp_path / "one",
            OWNER,
            journal_number=NUMBER,
            unix_time=NOON,
        )
    found = read(tmp_path / "one")
    assert n_steps > 2
    # All that was appended before the last step, both of each pair.
    assert found.newest == made.newest == 1500 + 2 * (n_steps - 1)
    assert found.heads == {"house": 1500 + n_steps - 1, "chain": n_steps - 1}


def test_a_journal_that_is_closed_ends_the_copy_that_is_on_its_way(tmp_path: Path) -> None:
    with Journal(tmp_path / "home") as store:
        store.append([Entry("house", bytes(4000)) for _ in range(1500)])
        steps = store.copy(tmp_path / "copy.sqlite")
        next(steps)
    with pytest.raises(StoreFailed, match="cannot copy"):
        list(steps)


@pytest.mark.parametrize(
    "row",
    [
        (1, 1),
        ("a text", 1, 1, b""),
        (2**64 - 1, 1, 1, b""),
        ({"a": 1}, 1, 1, b""),
        (),
    ],
)
def test_rows_that_no_journal_has_are_a_damaged_backup(
    tmp_path: Path, row: tuple[Any, ...]
) -> None:
    path = tmp_path / "one.backup"
    writer, _ = begin_file(path, OWNER, kind=BACKUP, journal_number=NUMBER, unix_time=NOON)
    for frame in (Moment(0, bytes(32), {}), TableRows("journal", [row]), End(1)):
        writer.write(encode_frame(frame))
    writer.finish()
    with pytest.raises(BadFile, match="is damaged: "):
        read(path)
