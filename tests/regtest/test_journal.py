from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.regtest.journal import BLOCK, INVALIDATED, BlockFile, DatadirBusy

ENTRIES = [(BLOCK, b"first"), (INVALIDATED, b"x" * 32), (BLOCK, b"")]


def written(path: Path) -> BlockFile:
    journal = BlockFile(path)
    for kind, data in ENTRIES:
        journal.append(kind, data)
    return journal


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "blocks.dat"
    written(path).close()
    journal = BlockFile(path)
    assert list(journal.replay()) == ENTRIES
    journal.close()


@given(cut=st.integers(1, 200))
def test_a_torn_end_is_dropped_and_overwritten(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "blocks.dat"
    written(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole[: max(len(whole) - cut, 0)])
    journal = BlockFile(path)
    left = list(journal.replay())
    assert left == ENTRIES[: len(left)]
    journal.append(BLOCK, b"next")
    assert list(journal.replay()) == [*left, (BLOCK, b"next")]
    journal.close()


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    path = tmp_path / "blocks.dat"
    journal = BlockFile(path)
    with pytest.raises(DatadirBusy, match="in use"):
        BlockFile(path)
    journal.close()
    BlockFile(path).close()


def test_an_entry_larger_than_any_block_is_a_mistake(tmp_path: Path) -> None:
    journal = BlockFile(tmp_path / "blocks.dat")
    with pytest.raises(ValueError, match="at most"):
        journal.append(BLOCK, bytes(4_000_001))
    journal.close()
