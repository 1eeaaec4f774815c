"""Streams, checkpoints and the archive of a journal, in a file and in memory alike."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from cromford import ports
from cromford.adapters import memory, sqlite
from cromford.adapters.memory import MemoryJournal
from cromford.adapters.sqlite import RECORD_SIZE_MAX, Journal
from cromford.ports import Archived, Checkpoint, Entry, Kept, Row, Store, StoreFailed

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


def heads(store: Store) -> dict[str, int]:
    """Return how many records each of the two streams has."""
    return {stream: store.head(stream) for stream in ("house", "chain")}


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
    assert heads(store) == {"house": 3, "chain": 2}


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
        assert heads(journal) == {"house": 3, "chain": 5}, "all its records are gone"
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
        assert heads(journal) == {"house": 3, "chain": 2}
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


def test_a_snapshot_may_be_far_larger_than_a_record(tmp_path: Path) -> None:
    snapshot = bytes(RECORD_SIZE_MAX + 1)
    with Journal(tmp_path) as journal:
        filled(journal).replace_checkpoint(Checkpoint("house", 2, snapshot))
        assert journal.checkpoint("house") == Checkpoint("house", 2, snapshot)


def test_a_snapshot_above_the_limit_is_refused_and_the_records_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SNAPSHOT_SIZE_MAX", 3)
    with Journal(tmp_path) as journal:
        with pytest.raises(ValueError, match="a snapshot has at most 3 bytes, received 4"):
            filled(journal).replace_checkpoint(Checkpoint("house", 2, b"both"))
        assert journal.checkpoint("house") is None
        assert len(list(journal.replay("house"))) == 3


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
        assert heads(journal) == {"house": 3, "chain": 2}
        assert journal.checkpoint("house") is None
        assert journal.archived("house", b"key") is None


def test_a_record_that_took_anothers_place_is_refused(tmp_path: Path) -> None:
    """A second writer, if there were one, meets the count of its stream."""
    with Journal(tmp_path) as journal:
        filled(journal)
        journal._known["house"][1] = 2
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


ROWS = (
    Row("names", b"b", b"2"),
    Row("names", b"a", b"1"),
    Row("names", b"a\0", b"1a"),
    Row("keys", b"a", b"other"),
)


def lying(store: Store, shelf: str, start: bytes = b"") -> list[tuple[bytes, bytes]]:
    return list(store.rows("house", shelf, start=start))


def test_rows_lie_beside_a_checkpoint_until_another_takes_them_away(store: Store) -> None:
    filled(store).replace_checkpoint(Checkpoint("house", 2, b"both", rows=ROWS))
    assert lying(store, "names") == [(b"a", b"1"), (b"a\0", b"1a"), (b"b", b"2")]
    assert lying(store, "names", b"a\0") == [(b"a\0", b"1a"), (b"b", b"2")]
    assert lying(store, "names", b"c") == lying(store, "others") == []
    assert store.row("house", "keys", b"a") == b"other"
    assert store.row("house", "keys", b"b") is store.row("chain", "keys", b"a") is None
    assert store.row("gateway", "keys", b"a") is None
    changed = (Row("names", b"a", None), Row("names", b"b", b"3"), Row("names", b"z", None))
    store.replace_checkpoint(Checkpoint("house", 3, b"all", rows=changed))
    assert lying(store, "names") == [(b"a\0", b"1a"), (b"b", b"3")]
    assert lying(store, "keys") == [(b"a", b"other")]


def test_many_rows_are_read_in_their_order(store: Store) -> None:
    keys = [number.to_bytes(2, "big") for number in range(1000)]
    rows = [Row("names", key, key) for key in reversed(keys)]
    filled(store).replace_checkpoint(Checkpoint("house", 3, b"all", rows=rows))
    assert [key for key, _ in store.rows("house", "names")] == keys
    assert [key for key, _ in store.rows("house", "names", start=keys[700])] == keys[700:]
    wanted = [b"no", *keys[100:900], b""]
    assert sorted(store.rows_of("house", "names", wanted)) == [(k, k) for k in keys[100:900]]
    assert list(store.rows_of("house", "names", [])) == []
    assert list(store.rows_of("chain", "names", keys)) == []


def test_a_label_is_told_as_long_as_no_record_follows_its_checkpoint(store: Store) -> None:
    filled(store)
    assert (store.label("house"), list(store.unlabelled())) == (b"", ["house", "chain"])
    store.replace_checkpoint(Checkpoint("house", 3, b"all", b"asleep", 7))
    store.replace_checkpoint(Checkpoint("chain", 1, b"one", b"one follows", 7))
    assert (store.label("house"), store.label("chain"), store.label("gateway")) == (
        b"asleep",
        b"",
        b"",
    )
    assert list(store.labels()) == [("house", b"asleep")]
    assert list(store.unlabelled()) == ["chain"]
    store.append([Entry("house", b"h4")])
    assert (store.label("house"), list(store.labels()), list(store.due(9))) == (b"", [], [])
    assert list(store.unlabelled()) == ["house", "chain"]


def test_who_sleeps_is_due_at_a_height(store: Store) -> None:
    filled(store)
    store.append([Entry("gateway", b"g1")])
    store.replace_checkpoint(Checkpoint("house", 3, b"all", b"asleep", 7))
    store.replace_checkpoint(Checkpoint("chain", 2, b"all", b"asleep", 5))
    store.replace_checkpoint(Checkpoint("gateway", 1, b"all", b"for ever"))
    assert [sorted(store.due(height)) for height in (4, 5, 6, 7)] == [
        [],
        ["chain"],
        ["chain"],
        ["chain", "house"],
    ]
    store.replace_checkpoint(Checkpoint("chain", 2, b"all", b"for ever"))
    assert list(store.due(9)) == ["house"]


def test_rows_and_heights_survive_a_restart(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        filled(journal).replace_checkpoint(Checkpoint("house", 3, b"all", b"asleep", 7, ROWS))
    with Journal(tmp_path) as journal:
        assert journal.row("house", "names", b"a") == b"1"
        assert (list(journal.due(6)), list(journal.due(7))) == ([], ["house"])
        assert journal.checkpoint("house") == Checkpoint("house", 3, b"all", b"asleep", 7)


def test_a_checkpoint_that_cannot_be_written_leaves_the_rows_of_the_one_before(
    tmp_path: Path,
) -> None:
    with Journal(tmp_path) as journal:
        filled(journal).replace_checkpoint(Checkpoint("house", 2, b"both", rows=ROWS))
        journal._connection.pragma("max_page_count", journal._connection.pragma("page_count") + 4)
        rows = (Row("names", b"a", None), Row("names", b"large", bytes(100_000)))
        with pytest.raises(StoreFailed, match=r"cannot append to .*full"):
            journal.replace_checkpoint(Checkpoint("house", 3, b"all", rows=rows))
    with Journal(tmp_path) as journal:
        assert journal.checkpoint("house") == Checkpoint("house", 2, b"both")
        assert lying(journal, "names") == [(b"a", b"1"), (b"a\0", b"1a"), (b"b", b"2")]


def test_more_streams_than_are_kept_in_mind_are_counted_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_KNOWN_MAX", 2)
    names = ["house", "chain", "factory:1", "factory:2", "factory:3"]
    with Journal(tmp_path) as journal:
        for _ in range(3):
            journal.append([Entry(name, name.encode()) for name in (*names, *names)])
        assert [journal.head(name) for name in names] == [6] * 5
        assert [len(list(journal.replay(name))) for name in names] == [6] * 5


def test_a_journal_of_the_schema_before_is_opened_and_looks_at_all_who_sleep(
    tmp_path: Path,
) -> None:
    """It did not say until which height; once they slept again it does."""
    with Journal(tmp_path) as journal:
        filled(journal).replace_checkpoint(Checkpoint("house", 3, b"all", b"asleep", 7))
    connection = apsw.Connection(str(tmp_path / "journal.sqlite"))
    for statement in ("DROP TABLE shelf", "DROP TABLE wake", "PRAGMA user_version = 2"):
        connection.execute(statement)
    connection.close()
    with Journal(tmp_path) as journal:
        assert list(journal.due(0)) == ["house"]
        assert (journal.label("house"), lying(journal, "names")) == (b"asleep", [])
        journal.replace_checkpoint(Checkpoint("house", 3, b"all", b"asleep", 7, ROWS))
    with Journal(tmp_path) as journal:
        assert (list(journal.due(6)), len(lying(journal, "names"))) == ([], 3)
