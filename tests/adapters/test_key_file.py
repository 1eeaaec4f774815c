"""The file of handed-over keys: durable, whole or named, and never worth more than a question."""

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from cromford.adapters.key_file import ENTRY_SIZE, KEY_FILE, MAGIC, KeyFile
from cromford.signing.handed_over import SEALED_SIZE, SealedKeys

N_SEATS: Final = 10_000
SECONDS_TO_OPEN: Final = 1.0


def keys_of(attempt: int, client: int) -> SealedKeys:
    return SealedKeys(
        attempt=attempt,
        client=client,
        factory_pubkey=b"\2" + client.to_bytes(32, "big"),
        funding_pubkey=b"\3" + attempt.to_bytes(32, "big"),
        sealed=bytes([client % 256]) * SEALED_SIZE,
    )


def filled(home: Path, n: int = 3) -> list[SealedKeys]:
    file = KeyFile(home)
    put = [keys_of(7, client) for client in range(1, n + 1)]
    for keys in put:
        file.put(keys)
    return put


def held(home: Path) -> Iterator[SealedKeys]:
    file = KeyFile(home)
    for client in range(1, 6):
        keys = file.get(attempt=7, client=client)
        if keys is not None:
            yield keys


def test_what_was_put_is_there_after_a_restart_and_a_file_is_made_for_the_first_only(
    tmp_path: Path,
) -> None:
    KeyFile(tmp_path)
    assert not (tmp_path / KEY_FILE).exists()
    put = filled(tmp_path)
    assert list(held(tmp_path)) == put
    assert KeyFile(tmp_path).problem == ""
    assert (tmp_path / KEY_FILE).stat().st_size == len(MAGIC) + 3 * ENTRY_SIZE
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert KeyFile(tmp_path).get(attempt=8, client=1) is None


def test_the_same_again_writes_nothing_and_others_for_the_seat_take_their_place(
    tmp_path: Path,
) -> None:
    (first, *_) = filled(tmp_path)
    size = (tmp_path / KEY_FILE).stat().st_size
    file = KeyFile(tmp_path)
    file.put(first)
    assert (tmp_path / KEY_FILE).stat().st_size == size
    other = replace(first, sealed=bytes(SEALED_SIZE))
    file.put(other)
    assert KeyFile(tmp_path).get(attempt=7, client=1) == other
    assert len(KeyFile(tmp_path)) == 3


@pytest.mark.parametrize("n_cut", [1, ENTRY_SIZE - 1])
def test_an_entry_that_a_crash_left_half_written_is_no_damage_and_goes_with_the_next(
    tmp_path: Path, n_cut: int
) -> None:
    put = filled(tmp_path)
    path = tmp_path / KEY_FILE
    path.write_bytes(path.read_bytes()[:-n_cut])
    file = KeyFile(tmp_path)
    assert file.problem == ""
    assert list(held(tmp_path)) == put[:2]
    file.put(keys_of(7, 4))
    assert list(held(tmp_path)) == [*put[:2], keys_of(7, 4)]
    assert path.stat().st_size == len(MAGIC) + 3 * ENTRY_SIZE


@pytest.mark.parametrize("at", [0, 3, 8, 40, 80, ENTRY_SIZE - 1])
def test_a_damaged_entry_is_counted_and_the_others_stay(tmp_path: Path, at: int) -> None:
    put = filled(tmp_path)
    path = tmp_path / KEY_FILE
    data = bytearray(path.read_bytes())
    data[len(MAGIC) + ENTRY_SIZE + at] ^= 1
    path.write_bytes(bytes(data))
    file = KeyFile(tmp_path)
    assert file.problem == "1 of its entries are damaged"
    assert list(held(tmp_path)) == [put[0], put[2]]
    file.put(put[1])
    assert KeyFile(tmp_path).problem == ""
    assert list(held(tmp_path)) == put


@pytest.mark.parametrize("data", [b"", b"CRMF", b"CRMFKEY\x02" + bytes(400), b"x" * 500])
def test_a_file_of_another_kind_is_named_and_replaced_by_the_next_keys(
    tmp_path: Path, data: bytes
) -> None:
    (tmp_path / KEY_FILE).write_bytes(data)
    file = KeyFile(tmp_path)
    assert file.problem == "it is no file of handed-over keys, or its beginning is damaged"
    assert len(file) == 0
    file.put(keys_of(7, 1))
    assert list(held(tmp_path)) == [keys_of(7, 1)]


def test_only_the_beginning_is_lost_where_only_that_is_damaged(tmp_path: Path) -> None:
    put = filled(tmp_path)
    path = tmp_path / KEY_FILE
    path.write_bytes(b"X" + path.read_bytes()[1:])
    assert KeyFile(tmp_path).problem
    assert list(held(tmp_path)) == put


def test_a_file_that_cannot_be_read_is_named_and_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may answer again: what is in the file is not given up for one more key."""
    put = filled(tmp_path)
    whole = (tmp_path / KEY_FILE).read_bytes()
    opened = Path.open

    def refused(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == KEY_FILE:
            raise OSError(5, "Input/output error")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refused)
    file = KeyFile(tmp_path)
    assert file.problem == "it cannot be read: Input/output error"
    with pytest.raises(OSError, match="Input/output"):
        file.put(keys_of(7, 4))
    monkeypatch.undo()
    assert (tmp_path / KEY_FILE).read_bytes() == whole
    file.put(keys_of(7, 4))
    assert list(held(tmp_path)) == [*put, keys_of(7, 4)]


def test_a_disk_that_refuses_loses_nothing_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = filled(tmp_path)
    file = KeyFile(tmp_path)
    sync = os.fsync

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(2):  # Appended first, then written anew.
        with pytest.raises(OSError, match="No space"):
            file.put(keys_of(7, 4))
        assert file.get(attempt=7, client=4) is None
    with pytest.raises(OSError, match="No space"):
        file.forget(lambda _attempt: True)
    assert len(file) == 3
    monkeypatch.setattr(os, "fsync", sync)
    assert not list(tmp_path.glob("*.new"))
    file.put(keys_of(7, 5))
    assert set(held(tmp_path)) >= {*put, keys_of(7, 5)}
    assert KeyFile(tmp_path).problem == ""


def test_keys_of_what_is_over_are_erased(tmp_path: Path) -> None:
    filled(tmp_path)
    file = KeyFile(tmp_path)
    file.put(keys_of(9, 5))
    assert file.forget(lambda attempt: attempt == 8) == 0
    assert file.forget(lambda attempt: attempt == 7) == 3
    assert len(KeyFile(tmp_path)) == 1
    assert keys_of(7, 1).sealed not in (tmp_path / KEY_FILE).read_bytes()


def test_ten_thousand_seats_open_at_once(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    file._write_anew({(n, 1): keys_of(n, 1) for n in range(N_SEATS)})
    assert (tmp_path / KEY_FILE).stat().st_size == len(MAGIC) + N_SEATS * ENTRY_SIZE == 1_620_008
    begin = time.process_time()
    assert len(KeyFile(tmp_path)) == N_SEATS
    assert time.process_time() - begin < SECONDS_TO_OPEN
