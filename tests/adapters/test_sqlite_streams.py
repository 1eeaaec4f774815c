"""Streams, checkpoints and the archive of a journal, in a file and in memory alike."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from cromford import ports
from cromford.adapters import memory, sqlite
from cromford.adapters.memory import MemoryJournal
from cromford.adapters.sqlite import Journal
from cromford.ports import Archived, Checkpoint, Entry, Kept, Store, StoreFailed

OLD_SCHEMA = "CREATE TABLE journal (id INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT"


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = Journal(tmp_path) if request.param == "file" else MemoryJournal()
    yield opened
    opened.close()


@pytest.fixture
def few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let three records stay for whoever reads what happened."""
    for module in (ports, memory, sqlite):
        monkeypatch.setattr(module, "oldest_of", lambda newest: max(1, newest - 2))


def filled(store: Store) -> Store:
    """Fill two streams, a few records of both in one append."""
    store.append([Entry("house", b"h1")])
    store.append([Entry("chain", b"c1"), Entry("house", b"h2"), Entry("chain", b"c2")])
    store.append([Entry("house", b"h3")])
    return store


def test_each_stream_replays_alone(store: Store) -> None:
    filled(store)
    assert list(store.replay("house")) == [b"h1", b"h2", b"h3"]
    assert list(store.replay("chain", after=1)) == [b"c2"]
    assert list(store.replay("house", after=3)) == list(store.replay("gateway")) == []
    assert store.heads() == {"house": 3, "chain": 2}


def test_the_history_tells_all_streams_in_the_order_of_their_records(store: Store) -> None:
    filled(store)
    assert [(kept.number, kept.record) for kept in store.history(after=0, limit=9)] == [
        (1, b"h1"),
        (2, b"c1"),
        (3, b"h2"),
        (4, b"c2"),
        (5, b"h3"),
    ]
    assert list(store.history(after=3, limit=1)) == [Kept(4, "chain", b"c2")]
    assert (store.oldest, store.newest) == (1, 5)


def test_a_checkpoint_takes_the_place_of_what_it_stands_for(store: Store) -> None:
    filled(store)
    assert store.checkpoint("house") is None
    store.replace_checkpoint(Checkpoint("house", 2, b"both"))
    assert store.checkpoint("house") == Checkpoint("house", 2, b"both")
    assert store.checkpoint("chain") is None
    assert list(store.replay("house", after=2)) == [b"h3"]
    store.replace_checkpoint(Checkpoint("house", 3, b"all"))
    assert store.checkpoint("house") == Checkpoint("house", 3, b"all")
    assert list(store.replay("chain")) == [b"c1", b"c2"]


@pytest.mark.usefixtures("few_events")
def test_only_what_a_checkpoint_stands_for_is_deleted_and_never_the_newest(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        filled(journal).replace_checkpoint(Checkpoint("house", 3, b"all"))
        kept = journal._connection.execute("SELECT number FROM journal ORDER BY number")
        numbers = [number for (number,) in kept]
        assert numbers == [2, 3, 4, 5], "the first of the house is gone, and no other"
        with pytest.raises(StoreFailed, match="record 1 of house is missing"):
            next(journal.replay("house"))
        assert [kept.number for kept in journal.history(after=0, limit=9)] == [3, 4, 5]
        journal.append([Entry("chain", b"c3")] * 3)
        journal.replace_checkpoint(Checkpoint("chain", 5, b"all"))
        assert [kept.number for kept in journal.history(after=0, limit=9)] == [6, 7, 8]
    with Journal(tmp_path) as journal:
        assert journal.heads() == {"house": 3, "chain": 5}, "all its records are gone"
        assert list(journal.replay("house", after=3)) == []
        journal.append([Entry("house", b"h4")])
        assert list(journal.replay("house", after=3)) == [b"h4"]
        assert journal.newest == 9


def test_what_is_archived_is_found_by_stream_and_key(store: Store) -> None:
    store.append([Entry("house", b"h1")], [Archived("house", b"key", b"old")])
    store.append([], [Archived("house", b"key", b"new"), Archived("chain", b"key", b"other")])
    assert store.archived("house", b"key") == b"new"
    assert store.archived("chain", b"key") == b"other"
    assert store.archived("house", b"other") is store.archived("gateway", b"key") is None


def test_nothing_of_it_is_lost_in_a_restart(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        filled(journal).append([], [Archived("house", b"key", b"value")])
        journal.replace_checkpoint(Checkpoint("house", 2, b"both"))
    with Journal(tmp_path) as journal:
        assert journal.heads() == {"house": 3, "chain": 2}
        assert journal.checkpoint("house") == Checkpoint("house", 2, b"both")
        assert journal.archived("house", b"key") == b"value"
        assert journal.newest == 5


@pytest.mark.parametrize("n", [1, 4])
def test_a_checkpoint_of_records_that_are_not_there_is_refused(store: Store, n: int) -> None:
    """Never there, or gone because of a newer checkpoint: from neither could it be gone on."""
    filled(store).replace_checkpoint(Checkpoint("house", 2, b"both"))
    with pytest.raises(ValueError, match=f"expected 2..3 records, received {n}"):
        store.replace_checkpoint(Checkpoint("house", n, b"not these"))
    assert store.checkpoint("house") == Checkpoint("house", 2, b"both")


@pytest.mark.parametrize("failing", ["append", "checkpoint"])
def test_a_write_that_fails_half_way_leaves_nothing_of_it(tmp_path: Path, failing: str) -> None:
    with Journal(tmp_path) as journal:
        filled(journal)
        n_pages = journal._connection.pragma("page_count")
        journal._connection.pragma("max_page_count", n_pages + 4)
        writes = {
            "append": lambda: journal.append(
                [Entry("new", b"n1"), Entry("house", b"h4")],
                [Archived("house", b"key", bytes(100_000))],
            ),
            "checkpoint": lambda: journal.replace_checkpoint(
                Checkpoint("house", 3, bytes(100_000))
            ),
        }
        with pytest.raises(StoreFailed, match=r"cannot append to .*full"):
            writes[failing]()
    with Journal(tmp_path) as journal:
        assert journal.heads() == {"house": 3, "chain": 2}
        assert journal.checkpoint("house") is None
        assert journal.archived("house", b"key") is None


def test_a_record_that_took_anothers_place_is_refused(tmp_path: Path) -> None:
    """A second writer, if there were one, meets the count of its stream."""
    with Journal(tmp_path) as journal:
        filled(journal)
        journal._heads["house"] = 2
        with pytest.raises(StoreFailed, match="UNIQUE"):
            journal.append([Entry("house", b"again")])


def test_a_journal_of_the_first_schema_is_refused_by_name_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    connection = apsw.Connection(str(path))
    connection.execute(OLD_SCHEMA)
    connection.execute("INSERT INTO journal (record) VALUES (x'01')")
    connection.execute(f"PRAGMA application_id = {sqlite.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    contents = path.read_bytes()
    with pytest.raises(
        StoreFailed, match="a journal of schema 1, written by an unreleased version"
    ):
        Journal(tmp_path)
    assert path.read_bytes() == contents
