"""The mark's file: a crash between any two of its writes leaves a mark, and none goes back."""

import random
from pathlib import Path

import pytest
from tests.simulation.seeds import seeds

from cromford.daemon.backup.high_water import HighWaterMark
from cromford.daemon.backup.mark_file import SLOT_SIZE, BadMark, MarkFile, MarkMoved


def mark(number: int) -> HighWaterMark:
    return HighWaterMark(number, number.to_bytes(32, "big"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.mark"


def test_a_mark_is_read_as_it_was_written(path: Path) -> None:
    file = MarkFile(path)
    assert file.read() is None
    file.begin(mark(3))
    for number in (4, 5, 5, 9):
        file.write(mark(number))
        assert MarkFile(path).read() == mark(number)
    assert path.stat().st_size == 2 * SLOT_SIZE
    assert (path.stat().st_mode & 0o777) == 0o600


@pytest.mark.parametrize("number", [4, 5])
def test_a_mark_is_never_lowered_nor_changed(path: Path, number: int) -> None:
    file = MarkFile(path)
    file.begin(mark(5))
    other = HighWaterMark(number, bytes(32))
    with pytest.raises(ValueError, match="is not above 5"):
        file.write(other)
    assert MarkFile(path).read() == mark(5)


def test_a_write_that_was_cut_off_leaves_the_mark_before(path: Path) -> None:
    file = MarkFile(path)
    file.begin(mark(1))
    for number in range(2, 7):
        before = path.read_bytes()
        file.write(mark(number))
        after = path.read_bytes()
        changed = [at for at in range(len(before)) if before[at] != after[at]]
        for n_bytes in range(len(changed)):  # As far as it came, byte by byte.
            torn = bytearray(before)
            for at in changed[:n_bytes]:
                torn[at] = after[at]
            path.write_bytes(torn)
            assert MarkFile(path).read() == mark(number - 1)
        path.write_bytes(after)


def test_a_damaged_slot_leaves_the_other_and_two_leave_none(path: Path) -> None:
    file = MarkFile(path)
    file.begin(mark(1))
    file.write(mark(2))
    whole = path.read_bytes()
    for seed in seeds(20):
        rng = random.Random(seed)
        edited = bytearray(whole)
        places = rng.randrange(SLOT_SIZE), SLOT_SIZE + rng.randrange(SLOT_SIZE)
        edited[places[1]] ^= 1 << rng.randrange(8)
        path.write_bytes(edited)
        assert MarkFile(path).read() == mark(1)
        edited[places[0]] ^= 1 << rng.randrange(8)
        path.write_bytes(edited)
        with pytest.raises(BadMark, match=r"one\.mark"):
            MarkFile(path).read()
    for data in (b"", whole[:-1], whole + b"\0", bytes(2 * SLOT_SIZE)):
        path.write_bytes(data)
        if data == whole[:-1]:
            assert MarkFile(path).read() in {mark(1), mark(2)}
        else:
            with pytest.raises(BadMark):
                MarkFile(path).read()


def test_a_mark_that_somebody_else_writes_is_noticed(path: Path) -> None:
    ours, theirs = MarkFile(path), MarkFile(path)
    ours.begin(mark(1))
    theirs.read()
    theirs.write(mark(2))
    with pytest.raises(MarkMoved, match="expected record 1, received record 2"):
        ours.write(mark(3))
    assert MarkFile(path).read() == mark(2)


def test_a_mark_that_is_gone_is_not_made_again(path: Path) -> None:
    file = MarkFile(path)
    file.begin(mark(1))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        file.write(mark(2))
    assert not path.exists()
    file.begin(mark(3))
    with pytest.raises(FileExistsError):
        file.begin(mark(4))


def test_a_write_of_which_nobody_knows_whether_it_failed_may_be_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    file = MarkFile(path)
    file.begin(mark(1))
    monkeypatch.setattr("os.fdatasync", fail)
    with pytest.raises(OSError, match="Input/output"):
        file.write(mark(2))
    monkeypatch.undo()
    file.write(mark(3))
    assert MarkFile(path).read() == mark(3)
