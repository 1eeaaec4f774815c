"""The replica: it follows every change, stalls nobody, and removes nothing that may be needed."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from tests.daemon.backup.stores import NUMBER, OWNER, content, fill

from cromford.adapters.sealed import BadFile, SealedWriter, read_header
from cromford.adapters.sqlite import Journal
from cromford.daemon.backup import replica as replicas
from cromford.daemon.backup.reading import FoundBackup, load
from cromford.daemon.backup.replica import Replica
from cromford.daemon.backup.replica_files import store_name
from cromford.daemon.backup.replica_tail import Tail, newest_tail
from cromford.daemon.backup.restored import RecordsLost, mark_as_restored, mark_if_behind
from cromford.ports import Checkpoint, Entry
from cromford.protocol.journal.records import StoreRestored, decode_record

SOON = 0.02


def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never holds"
        time.sleep(0.002)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "second"
    place.mkdir()
    return place


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def replica_of(store: Journal, home: Path, place: Path, number: int = NUMBER) -> Replica:
    return Replica(store, home, place, OWNER, journal_number=number, retry_seconds=SOON)


@contextmanager
def running(home: Path, place: Path, number: int = NUMBER) -> Iterator[tuple[Journal, Replica]]:
    with Journal(home) as store:
        replica = replica_of(store, home, place, number)
        try:
            yield store, replica
        finally:
            replica.close()


def caught_up(store: Journal, replica: Replica) -> None:
    until(lambda: replica.reached == store.newest and replica.shown()["behind_seconds"] == 0)


def read(place: Path) -> FoundBackup:
    work = place.parent / f"work-{time.monotonic_ns()}"
    work.mkdir()
    return load(place, OWNER, work)


def compared(store: Journal, place: Path) -> str | None:
    """Compare a store with its replica, as at a start: return why it was marked, or None."""
    directory = place / store_name(OWNER, NUMBER)
    tail = newest_tail(directory, OWNER)
    return None if tail is None else mark_if_behind(store, tail, directory)


def marks_of(store: Journal) -> list[str]:
    """Return what a store was restored from, each time, by the records of its house."""
    records = (
        decode_record(data) for data in store.replay("house") if not data.startswith(b"record")
    )
    return [record.source for record in records if isinstance(record, StoreRestored)]


def files(place: Path) -> list[str]:
    return sorted(path.name for path in place.glob("*/*-*") if path.name != "in-use.lock")


def restored(place: Path) -> object:
    """Return what a store that is put back from a replica shows."""
    work = place.parent / f"restored-{time.monotonic_ns()}"
    work.mkdir()
    load(place, OWNER, work)
    with Journal(work) as store:
        return content(store)


def test_a_replica_has_what_the_store_has_and_goes_on_after_a_restart(
    home: Path, place: Path
) -> None:
    with running(home, place) as (store, replica):
        fill(store)
        caught_up(store, replica)
        fill(store)
        first = content(store)
    assert restored(place) == first
    with running(home, place) as (store, replica):
        store.append([Entry("house", b"after a restart")])
        caught_up(store, replica)
        second = content(store)
    assert restored(place) == second
    assert [name for name in files(place) if name.startswith("base")] == ["base-00000001"]
    assert read(place).n_segments == 2


def test_what_was_changed_without_a_replica_makes_it_begin_again(home: Path, place: Path) -> None:
    with running(home, place) as (store, replica):
        fill(store)
        caught_up(store, replica)
    with Journal(home) as store:
        store.append([Entry("house", b"unseen")])
    with running(home, place) as (store, replica):
        caught_up(store, replica)
        now = content(store)
    assert restored(place) == now
    assert files(place) == ["base-00000002"]


def test_a_place_that_is_away_stalls_nobody_is_told_of_and_is_caught_up_with(
    home: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place.rmdir()
    with running(home, place) as (store, replica):
        until(lambda: replica.failure)
        fill(store)
        shown = replica.shown()
        assert (shown["is_reachable"], shown["behind_records"]) == (False, 20)
        assert shown["reason"] == f"{place} is not there"
        time.sleep(5 * SOON)
        place.mkdir()
        caught_up(store, replica)
        assert replica.failure is None
        now = content(store)
    assert restored(place) == now
    said = [record.message for record in caplog.records]
    assert sum(message.startswith("replica_failed") for message in said) == 1
    assert sum(message.startswith("replica_goes_on") for message in said) == 1


@pytest.mark.parametrize(
    ("failed", "why"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_write_that_fails_makes_it_begin_again(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch, failed: Exception, why: str
) -> None:
    """Whatever it was need not last: its thread goes on, and says meanwhile that it is behind."""
    with running(home, place) as (store, replica):
        fill(store)
        caught_up(store, replica)

        def full(*_args: object) -> None:
            raise failed

        monkeypatch.setattr(SealedWriter, "flush", full)
        store.append([Entry("house", b"too much")])
        until(lambda: replica.failure)
        assert replica.failure == f"{place}: {why}"
        monkeypatch.undo()
        caught_up(store, replica)
        now = content(store)
    assert restored(place) == now
    assert files(place) == ["base-00000002"]


def test_a_base_that_fails_late_is_tried_again_after_nine_times_as_long(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place that is full costs a copy of the whole store at each try."""
    clock, rested = [1000.0], list[float]()

    def full(*_: object, **__: object) -> NoReturn:
        clock[0] += 40.0
        raise OSError(28, "No space left on device")

    def rest(_: Replica, seconds: float) -> bool:
        rested.append(seconds)
        return len(rested) == 2

    monkeypatch.setattr(replicas, "write_backup", full)
    told = SimpleNamespace(monotonic=lambda: clock[0], time=time.time)
    monkeypatch.setattr(replicas, "time", told)
    monkeypatch.setattr(Replica, "_is_over", rest)
    with Journal(home) as store:
        fill(store)
        failing = replica_of(store, home, place)
        until(lambda: len(rested) == 2)
        failing.close()
    assert rested == [360.0, 360.0]
    assert failing.failure is not None
    assert "No space left" in failing.failure


def test_what_waits_for_a_slow_place_is_bounded(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "WAITING_MAX_BYTES", 10_000)
    with running(home, place) as (store, replica):
        fill(store)
        caught_up(store, replica)
        is_slow = True
        flush = SealedWriter.flush

        def slow(writer: SealedWriter) -> None:
            while is_slow:
                time.sleep(SOON)
            flush(writer)

        monkeypatch.setattr(SealedWriter, "flush", slow)
        for _ in range(50):
            store.append([Entry("house", bytes(1000))])
        assert replica._shared.n_bytes <= 10_000
        is_slow = False
        caught_up(store, replica)
        now = content(store)
    assert restored(place) == now


def test_segments_are_compacted_once_they_outgrow_their_base(
    home: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "COMPACT_MIN_BYTES", 1_000)
    with running(home, place) as (store, replica):
        fill(store)
        caught_up(store, replica)
        written = 0
        for n in range(40):
            store.append([Entry("house", bytes(500))])
            if n % 4 == 0:
                store.replace_checkpoint(Checkpoint("house", store.head("house"), b"small"))
            caught_up(store, replica)
            written += 500
        now = content(store)
    assert restored(place) == now
    names = files(place)
    assert sum(name.startswith("base") for name in names) == 1
    sizes = {path.name: path.stat().st_size for path in place.glob("*/*-0*")}
    base = next(size for name, size in sizes.items() if name.startswith("base"))
    assert sum(sizes.values()) <= 3 * base + 2_000


def test_a_segment_that_was_cut_off_loses_its_end_and_says_so(home: Path, place: Path) -> None:
    with running(home, place) as (store, replica):
        caught_up(store, replica)  # So that the base is before what is filled in.
        fill(store)
        caught_up(store, replica)
        for n in range(3):
            store.append([Entry("house", f"last {n}".encode())])
            caught_up(store, replica)
    segment = next(iter(place.glob("*/segment-*")))
    whole = segment.read_bytes()
    reached = set()
    for cut in range(1, 200, 24):
        segment.write_bytes(whole[:-cut])
        found = read(place)
        reached.add(found.newest)
        assert found.n_bytes_left_out > 0 or found.newest < 23
    assert max(reached) == 22
    assert len(reached) > 1
    with running(home, place) as (store, replica):  # What it lacks, a new base has.
        caught_up(store, replica)
        assert read(place).newest == 23


def test_a_segment_that_was_edited_or_is_missing_is_refused_by_name(
    home: Path, place: Path
) -> None:
    for _ in range(3):
        with running(home, place) as (store, replica):
            caught_up(store, replica)
            fill(store, 4)
            caught_up(store, replica)
    one, two = sorted(place.glob("*/segment-*"))[-2:]
    index = int(one.name[-6:])
    whole = one.read_bytes()
    edited = bytearray(whole)
    edited[len(whole) // 2] ^= 1
    one.write_bytes(edited)
    with pytest.raises(BadFile, match=one.name):
        read(place)
    one.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        BadFile, match=rf"{one.name} is damaged: its end is missing, and .*{two.name}"
    ):
        read(place)
    one.write_bytes(whole)
    assert read(place).newest == 12
    kept = one.rename(place / "kept")
    with pytest.raises(BadFile, match=f"{one.name} is missing"):
        read(place)
    one.write_bytes(two.read_bytes())
    with pytest.raises(BadFile, match=f"expected segment {index}"):
        read(place)
    kept.rename(two)
    with pytest.raises(BadFile, match=f"expected segment {index}"):
        read(place)


def test_a_store_removes_no_replica_of_what_it_does_not_contain(home: Path, place: Path) -> None:
    with running(home, place) as (store, replica):
        fill(store)
        caught_up(store, replica)
    older = home.parent / "older"
    with Journal(older) as store:  # Another past, of the same journal.
        store.append([Entry("house", b"elsewhere")])
        assert compared(store, place) is not None
    with running(older, place) as (store, replica):
        caught_up(store, replica)
        store.append([Entry("house", b"and on")])
        caught_up(store, replica)
    assert [name for name in files(place) if "base" in name] == ["base-00000001", "base-00000002"]
    (directory,) = [path for path in place.iterdir() if path.is_dir()]
    for path in directory.glob("*-00000002*"):
        path.unlink()
    assert read(place).newest == 20


def test_journals_of_one_seed_have_replicas_of_their_own(home: Path, place: Path) -> None:
    for number in (1, 2):
        with running(home.parent / f"home-{number}", place, number) as (store, replica):
            fill(store, number)
            caught_up(store, replica)
    with pytest.raises(BadFile, match="several journals"):
        read(place)
    for number, directory in enumerate(sorted(place.iterdir()), start=1):
        assert read(directory).newest == number
    with pytest.raises(BadFile, match="there is no replica of a client"):
        load(place, replace(OWNER, role="client"), home.parent / "none")


def test_two_daemons_do_not_write_one_replica(home: Path, place: Path) -> None:
    with running(home, place) as (store, replica):
        fill(store)
        caught_up(store, replica)
        with running(home.parent / "copy", place) as (_, other):
            until(lambda: other.failure)
            assert "in use by another process" in (other.failure or "")
        assert replica.failure is None


@pytest.mark.parametrize("left", [0, 5, 40, 300], ids=lambda left: f"{left} bytes")
@pytest.mark.parametrize("is_zeros", [False, True], ids=["as written", "zeros"])
def test_a_segment_whose_beginning_never_reached_the_disk_costs_nothing_that_came_before(
    home: Path, place: Path, left: int, *, is_zeros: bool
) -> None:
    """A place ran full, or the power went, as it was begun: nothing was in it."""
    for _ in range(2):
        with running(home, place) as (store, replica):
            fill(store)
            caught_up(store, replica)
    *_, last = sorted(place.glob("*/segment-*"))
    begun = last.with_name(f"{last.name[:-6]}{int(last.name[-6:]) + 1:06}")
    header = last.read_bytes()[: read_header(last).size - 1]
    data = bytes(left) if is_zeros else header[:left]
    begun.write_bytes(data)
    found = read(place)
    assert (found.newest, found.n_bytes_left_out) == (40, len(data))

    with running(home, place) as (store, replica):  # It goes on where it was, in its place.
        store.append([Entry("house", b"after that")])
        caught_up(store, replica)
        now = content(store)
    assert restored(place) == now
    assert [name for name in files(place) if "base" in name] == [f"base-{begun.name[8:16]}"]


def copied(home: Path) -> Path:
    older = home.parent / f"older-{time.monotonic_ns()}"
    shutil.copytree(home, older)
    return older


def test_an_older_copy_is_marked_by_what_its_replica_has_and_once(home: Path, place: Path) -> None:
    """No mark is kept: that the replica may lack records does not make it lack those it has."""
    with running(home, place) as (store, replica):
        fill(store)
        caught_up(store, replica)
    older = copied(home)
    with running(home, place) as (store, replica):
        store.append([Entry("house", b"record that revokes"), Entry("house", b"record of it")])
        caught_up(store, replica)
    with Journal(home) as store:
        assert compared(store, place) is None
    with Journal(older) as store:
        why = compared(store, place)
        assert why is not None
        lost = "2 records are lost: the store has 20, and record 22 is in the replica in "
        assert why.startswith(f"{lost}{place}")
        (mark,) = marks_of(store)  # Wherever it is cut: that of a deep directory is.
        assert mark == f"an older copy: {why}"[:200]
        assert mark.startswith(f"an older copy: {lost}")
        assert compared(store, place) is None, "it was marked for that, though nothing was written"
    with running(older, place) as (store, replica):
        caught_up(store, replica)
        store.append([Entry("house", b"record of a new channel")])
        caught_up(store, replica)
        assert len(marks_of(store)) == 1
    with Journal(older) as store:
        assert compared(store, place) is None
    assert [name for name in files(place) if "base" in name] == ["base-00000001", "base-00000002"]


def test_a_copy_that_went_on_differs_from_its_replica(home: Path, place: Path) -> None:
    with running(home, place) as (store, replica):
        fill(store)
        caught_up(store, replica)
    older = copied(home)
    with running(home, place) as (store, replica):
        store.append([Entry("house", b"record of one")])
        caught_up(store, replica)
    with Journal(older) as store:
        for name in (b"record of another", b"record that follows"):
            store.append([Entry("house", name)])
        why = compared(store, place)
        assert why is not None
        assert why.startswith("record 21 is not the one that the replica in ")


def test_a_replica_that_comes_back_and_leads_ends_the_daemon_and_is_not_covered(
    home: Path, place: Path
) -> None:
    """It was away at the start. The next start finds it, and marks the store."""
    with running(home, place) as (store, replica):
        fill(store)
        caught_up(store, replica)
    older, away = copied(home), place.parent / "away"
    with running(home, place) as (store, replica):
        store.append([Entry("house", b"record that revokes")])
        caught_up(store, replica)
    before = files(place)
    place.rename(away)
    with running(older, place) as (store, replica):
        until(lambda: replica.failure)
        store.append([Entry("house", b"record of no use")])
        away.rename(place)
        until(lambda: "is not the one" in (replica.failure or ""))
        with pytest.raises(RecordsLost, match="record 21 is not the one"):
            store.append([Entry("house", b"record of no use, either")])
        time.sleep(5 * SOON)
    assert files(place) == before
    with Journal(older) as store:
        assert compared(store, place) is not None


def test_a_store_that_is_restored_from_its_replica_or_forgot_what_that_has_is_not_behind(
    home: Path, place: Path
) -> None:
    with running(home, place) as (store, replica):
        fill(store)
        caught_up(store, replica)
    work = home.parent / "work"
    work.mkdir()
    load(place, OWNER, work)
    with Journal(work) as store:
        mark_as_restored(store, backup_id=bytes(16), source="the replica")
        assert compared(store, place) is None
        tail = newest_tail(place / store_name(OWNER, NUMBER), OWNER)
        assert tail is not None
        gone = Tail(number=0, digest=tail.digest)
        assert mark_if_behind(store, gone, place) is None
    assert newest_tail(place / "none", OWNER) is None
