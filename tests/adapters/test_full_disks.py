"""A journal on a real file system that is full, or that cannot be written any more."""

from pathlib import Path

import pytest
from tests.adapters.test_sqlite import of, replayed, write_journal
from tests.small_disk import fill, small_disk, written_no_more

from cromford.adapters.sqlite import Journal, locked
from cromford.ports import StoreFailed, StoreFull, StoreReadOnly

BATCH = [bytes([number]) * 3_000 for number in range(4)]


def test_a_full_disk_takes_whole_batches_or_nothing_and_with_room_it_goes_on(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", kib=1024) as disk:
        with Journal(disk) as journal:
            filler = fill(disk, left_kib=200)
            with pytest.raises(StoreFull, match=r"cannot append to .*full"):  # noqa: PT012 - some of them fit
                for n_kept in range(1_000):  # noqa: B007 - those before the one that does not
                    journal.append(of(BATCH))
            with pytest.raises(StoreFailed, match="cannot append to"):
                journal.append(of([b"a smaller one"]))
        assert n_kept > 0
        filler.unlink()
        assert replayed(disk) == BATCH * n_kept
        write_journal(disk, [b"and on"])
        assert replayed(disk) == [*BATCH * n_kept, b"and on"]


def test_a_journal_is_begun_whole_or_not_at_all_on_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kib=256) as disk:
        for left_kib in (0, 4, 16, 40):
            filler = fill(disk, left_kib=left_kib)
            with pytest.raises(StoreFull):
                Journal(disk)
            filler.unlink()
        write_journal(disk, [b"record"])
        assert replayed(disk) == [b"record"]


def test_a_file_system_that_is_mounted_read_only_is_named_and_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kib=1024) as disk:
        write_journal(disk, [b"record"])
        with written_no_more(disk):
            with pytest.raises(StoreReadOnly, match=r"journal\.lock: Read-only file system"):
                Journal(disk)
            with pytest.raises(StoreReadOnly), locked(disk):
                pass
        assert replayed(disk) == [b"record"]
