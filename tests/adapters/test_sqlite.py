import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cromford.adapters.sqlite import APPLICATION_ID, RECORD_SIZE_MAX, Journal
from cromford.adapters.sqlite_schema import SCHEMA_VERSION
from cromford.ports import (
    Entry,
    Store,
    StoreDamaged,
    StoreFailed,
    StoreFull,
    StoreInUse,
    StoreReadOnly,
    StoreTooNew,
)

SRC = Path(__file__).parents[2] / "src"


STREAM = "house"


def of(records: Sequence[bytes], stream: str = STREAM) -> list[Entry]:
    return [Entry(stream, record) for record in records]


def replayed(datadir: Path, stream: str = STREAM) -> list[bytes]:
    with Journal(datadir) as journal:
        return list(journal.replay(stream))


def write_journal(datadir: Path, *batches: Sequence[bytes]) -> None:
    with Journal(datadir) as journal:
        for batch in batches:
            journal.append(of(batch))


def test_what_was_appended_is_replayed_in_order(tmp_path: Path) -> None:
    store: Store = Journal(tmp_path)
    store.append(of([b"first", b""]))
    store.append(of([]))
    store.append(of([b"\x00" * 100_000]))
    assert list(store.replay(STREAM)) == [b"first", b"", b"\x00" * 100_000]
    store.close()
    assert replayed(tmp_path) == [b"first", b"", b"\x00" * 100_000]


def test_a_replay_of_many_records_keeps_their_order(tmp_path: Path) -> None:
    records = [number.to_bytes(4, "big") for number in range(1000)]
    write_journal(tmp_path, records[:300], records[300:])
    assert replayed(tmp_path) == records


def test_a_replay_ends_where_the_journal_ended_when_it_began(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append(of([b"before"]))
        seen = []
        for record in journal.replay(STREAM):
            seen.append(record)
            journal.append(of([b"during"]))
        assert seen == [b"before"]


def test_commits_are_synced_and_the_files_are_private(tmp_path: Path) -> None:
    datadir = tmp_path / "a" / "b"
    with Journal(datadir) as journal:
        journal.append(of([b"record"]))
        assert journal._connection.pragma("synchronous") == 2
        assert journal._connection.pragma("journal_mode") == "wal"
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in datadir.iterdir()}
        assert modes == dict.fromkeys(
            ["journal.lock", "journal.sqlite", "journal.sqlite-wal"], 0o600
        )
        assert stat.S_IMODE(datadir.stat().st_mode) == 0o700


def test_a_file_others_could_read_is_made_private(tmp_path: Path) -> None:
    write_journal(tmp_path, [b"record"])
    (tmp_path / "journal.sqlite").chmod(0o644)
    assert replayed(tmp_path) == [b"record"]
    assert stat.S_IMODE((tmp_path / "journal.sqlite").stat().st_mode) == 0o600


def test_a_second_opening_is_refused_naming_the_file(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        with pytest.raises(StoreInUse, match=r"journal\.sqlite is already in use by another"):
            Journal(tmp_path)
        journal.append(of([b"undisturbed"]))
    assert replayed(tmp_path) == [b"undisturbed"]


# Run with the path of a journal: what another program sees of it, as `sqlite3` or a viewer would.
LOOK: Final = """
import sys, apsw
journal = apsw.Connection(sys.argv[1])
try:
    journal.execute("BEGIN; SELECT count(*) FROM journal").fetchall()
except apsw.BusyError:
    sys.exit(3)
print("open", flush=True)
sys.stdin.read()
"""


def looking(datadir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LOOK, str(datadir / "journal.sqlite")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_file_that_another_program_has_open_is_in_use_until_it_is_closed(tmp_path: Path) -> None:
    """It is found out as the daemon starts, and not by a write that fails and ends it."""
    write_journal(tmp_path, [b"record"])
    with looking(tmp_path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StoreInUse, match=r"journal\.sqlite: database is locked"):
            Journal(tmp_path)
        other.kill()
    assert replayed(tmp_path) == [b"record"]


@pytest.mark.parametrize("is_first_run", [True, False])
def test_no_other_program_sees_a_journal_that_is_open_in_whatever_run(
    tmp_path: Path, *, is_first_run: bool
) -> None:
    """One that reads would let the next write fail, and with it the daemon."""
    if not is_first_run:
        write_journal(tmp_path, [b"record"])
    with Journal(tmp_path) as journal:
        with looking(tmp_path) as other:
            assert other.wait(timeout=60) == 3
        journal.append(of([b"undisturbed"]))
        assert "journal.sqlite-shm" not in [path.name for path in tmp_path.iterdir()]


def test_a_failed_opening_leaves_no_lock_behind(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreFailed):
        Journal(tmp_path)
    (tmp_path / "journal.sqlite").unlink()
    assert replayed(tmp_path) == []


def test_an_opening_cut_short_after_making_the_file_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").touch()
    write_journal(tmp_path, [b"record"])
    assert replayed(tmp_path) == [b"record"]


def test_a_closed_journal_refuses_every_verb_and_closes_twice(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.close()
    journal.close()
    with pytest.raises(StoreFailed, match="is closed"):
        journal.append(of([b"late"]))
    with pytest.raises(StoreFailed, match="is closed"):
        next(journal.replay(STREAM))


def test_a_record_above_the_limit_is_refused_with_its_whole_batch(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        with pytest.raises(ValueError, match="at most"):
            journal.append(of([b"fits", bytes(RECORD_SIZE_MAX + 1)]))
        assert list(journal.replay(STREAM)) == []
        journal.append(of([b"next"]))


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    contents = b"a letter to a friend\n" * 100
    (tmp_path / "journal.sqlite").write_bytes(contents)
    with pytest.raises(StoreDamaged, match=r"journal\.sqlite is not an SQLite file"):
        Journal(tmp_path)
    assert (tmp_path / "journal.sqlite").read_bytes() == contents


def test_another_programs_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE cookies (value TEXT)")
    connection.close()
    contents = path.read_bytes()
    with pytest.raises(StoreFailed, match="another program's SQLite file"):
        Journal(tmp_path)
    assert path.read_bytes() == contents


@pytest.mark.parametrize(
    ("version", "kind", "reason"),
    [
        (SCHEMA_VERSION + 1, StoreTooNew, "written by a newer version.* 3, received 4"),
        (0, StoreFailed, "schema version: expected 3"),
        (1, StoreFailed, "of schema 1, written by an unreleased version, and cannot be read"),
    ],
)
def test_another_schema_version_is_refused(
    tmp_path: Path, version: int, kind: type[StoreFailed], reason: str
) -> None:
    write_journal(tmp_path, [b"record"])
    edit(tmp_path, f"PRAGMA user_version = {version}")
    with pytest.raises(kind, match=reason):
        Journal(tmp_path)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "journal.sqlite"))
    connection.execute("CREATE TABLE journal (number INTEGER PRIMARY KEY, record BLOB)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.close()
    with pytest.raises(StoreFailed, match=r"schema: expected .*CREATE TABLE"):
        Journal(tmp_path)


@pytest.mark.parametrize("missing_id", [1, 2])
def test_a_missing_record_is_noticed(tmp_path: Path, missing_id: int) -> None:
    write_journal(tmp_path, [b"one", b"two", b"three"])
    edit(tmp_path, "DELETE FROM journal WHERE n = ?", missing_id)
    with pytest.raises(StoreDamaged, match=f"record {missing_id} of house is missing"):
        replayed(tmp_path)


def test_a_text_or_a_number_that_we_never_wrote_is_a_damaged_store(tmp_path: Path) -> None:
    write_journal(tmp_path, [b"one"])
    edit(tmp_path, "UPDATE stream SET name = CAST(x'ff' AS TEXT)")
    with Journal(tmp_path) as store, pytest.raises(StoreDamaged, match="codec can't decode"):
        store.history(after=0, limit=9)
    edit(tmp_path, "UPDATE stream SET name = 'house'")
    edit(tmp_path, "UPDATE journal SET number = ?", 2**63 - 1)
    with Journal(tmp_path) as store, pytest.raises(StoreDamaged, match="is corrupt: "):
        store.append([Entry("house", b"two")])


def edit(datadir: Path, statement: str, *bindings: int) -> None:
    connection = apsw.Connection(str(datadir / "journal.sqlite"))
    connection.execute(statement, bindings)
    connection.close()


def test_a_corrupt_file_is_refused(tmp_path: Path) -> None:
    write_journal(tmp_path, [bytes([number]) * 3000 for number in range(50)])
    path = tmp_path / "journal.sqlite"
    contents = bytearray(path.read_bytes())
    contents[4096:12288] = b"\xff" * 8192
    path.write_bytes(contents)
    with pytest.raises(StoreDamaged, match=r"journal\.sqlite is corrupt"):
        Journal(tmp_path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    write_journal(tmp_path, [bytes([number]) * 3000 for number in range(50)])
    os.truncate(tmp_path / "journal.sqlite", 3 * 4096)
    with pytest.raises(StoreDamaged, match=r"journal\.sqlite is corrupt"):
        Journal(tmp_path)


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailed, match="cannot open"):
        Journal(tmp_path / "file")
    with pytest.raises(StoreFailed, match="cannot open"):
        Journal(Path("/proc/self"))


def test_a_read_only_journal_refuses_to_append(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal._connection.pragma("query_only", True)
        with pytest.raises(StoreReadOnly, match="cannot append to"):
            journal.append(of([b"record"]))


def test_a_full_disk_fails_the_append_and_every_later_one(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append(of([b"before"]))
        n_pages = journal._connection.pragma("page_count")
        journal._connection.pragma("max_page_count", n_pages + 4)
        with pytest.raises(StoreFull, match=r"cannot append to .*full"):
            journal.append(of([b"small", bytes(100_000)]))
        with pytest.raises(StoreFailed, match="cannot append to"):
            journal.append(of([b"small"]))
    assert replayed(tmp_path) == [b"before"]


LIMITED_CHILD = """
import resource, sys
from pathlib import Path
from cromford.adapters.sqlite import Journal
from cromford.ports import Entry, StoreFailed

with Journal(Path(sys.argv[1])) as journal:
    journal.append([Entry("house", b"before")])
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    for expected in ("cannot append to", "cannot append to"):
        try:
            journal.append([Entry("house", bytes(100_000))])
        except StoreFailed as failed:
            sys.stdout.write(str(failed) + "\\n")
    try:
        journal.close()
    except StoreFailed:
        pass
"""


def test_a_write_the_system_refuses_fails_the_append(tmp_path: Path) -> None:
    """The kernel's own refusal, by a limit on the size of files."""
    child = subprocess.run(
        [sys.executable, "-c", LIMITED_CHILD, str(tmp_path)],
        env={"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert child.stdout.count("cannot append to") == 2
    assert replayed(tmp_path) == [b"before"]


def test_appends_from_other_threads_are_fine_one_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for number in range(3):
            thread = threading.Thread(target=journal.append, args=(of([bytes([number])]),))
            thread.start()
            thread.join()
        assert list(journal.replay(STREAM)) == [b"\x00", b"\x01", b"\x02"]


APPENDING_CHILD = """
import random, sys
from pathlib import Path
from cromford.adapters.sqlite import Journal
from cromford.ports import Entry

dice = random.Random(int(sys.argv[2]))
with Journal(Path(sys.argv[1])) as journal:
    number = len({record[:4] for record in journal.replay("house")})
    while True:
        size = dice.choice([1, 2, 5, 40])
        header = number.to_bytes(4, "big") + size.to_bytes(2, "big")
        records = [header + bytes(dice.choice([0, 10, 3000])) for _ in range(size)]
        journal.append([Entry("house", record) for record in records])
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        number += 1
"""


def whole_batches(records: list[bytes]) -> int:
    """Check that the records are whole batches in order, and count them."""
    position = number = 0
    while position < len(records):
        size = int.from_bytes(records[position][4:6], "big")
        batch = records[position : position + size]
        assert len(batch) == size, f"batch {number} is there in part"
        assert {record[:4] for record in batch} == {number.to_bytes(4, "big")}
        position += size
        number += 1
    return number


def test_every_acknowledged_batch_survives_a_kill_and_none_in_part(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    dice = random.Random(seed)
    n_acknowledged = 0
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", APPENDING_CHILD, str(tmp_path), str(dice.randrange(2**32))],
            env={"PYTHONPATH": str(SRC)},
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(dice.randint(1, 60))]
            # A little later, so that the kill also lands in the middle of a commit.
            threading.Event().wait(dice.random() * 0.01)
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.readlines()
        n_acknowledged = max(int(line) for line in lines if line.endswith("\n")) + 1
        n_batches = whole_batches(replayed(tmp_path))
        assert n_batches in {n_acknowledged, n_acknowledged + 1}
    assert n_acknowledged >= 8


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.floats(0, 1))
def test_a_log_cut_anywhere_loses_whole_batches_only(
    tmp_path_factory: pytest.TempPathFactory, kept: float
) -> None:
    """Power lost before a sync: the tail of the write-ahead log may be missing."""
    datadir, copy = tmp_path_factory.mktemp("journal"), tmp_path_factory.mktemp("copy")
    with Journal(datadir) as journal:
        for number in range(12):
            size = number % 4 + 1
            header = number.to_bytes(4, "big") + size.to_bytes(2, "big")
            journal.append(of([header + bytes(number * 200)] * size))
        shutil.copy(datadir / "journal.sqlite", copy)
        log = (datadir / "journal.sqlite-wal").read_bytes()
    (copy / "journal.sqlite-wal").write_bytes(log[: round(kept * len(log))])
    n_batches = whole_batches(replayed(copy))
    assert n_batches <= 12
    assert kept < 1 or n_batches == 12
