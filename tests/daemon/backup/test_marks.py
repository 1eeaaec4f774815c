"""What a mark in a third place says of a store, and what is done about it."""

import copy
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cromford import effects as fx
from cromford import ports
from cromford.adapters import memory
from cromford.adapters.memory import MemoryJournal
from cromford.daemon import marks as marking
from cromford.daemon.backup.asking import Asker, NoAnswer
from cromford.daemon.backup.high_water import (
    NO_RECORD,
    HighWater,
    HighWaterMark,
    MarkSays,
    read_memo,
)
from cromford.daemon.backup.mark_file import MarkFile
from cromford.daemon.backup.mark_place import MarkPlace
from cromford.daemon.backup.restored import RecordsLost, mark_as_restored
from cromford.daemon.marks import Marks
from cromford.daemon.safekeeping import waits_for_mark
from cromford.ports import Checkpoint, Entry
from cromford.protocol.journal.records import StoreRestored, decode_record
from cromford.protocol.journal.streams import CLIENT
from cromford.signing.keychain import ChannelKey, FactoryKey
from cromford.wire import messages as m

NAME = "client-regtest-seed-1"
NODE = b"\x02" * 33
BACKUP_ID = b"backup" + bytes(10)


@dataclass
class Third:
    """A third place, and the runs of a daemon that marks there. Times are told by hand."""

    root: Path
    now: float = 0.0
    askers: list[Asker] = field(default_factory=list)
    open: list[Marks] = field(default_factory=list)

    def start(self, store: MemoryJournal, *, seconds: float = 5.0) -> Marks:
        self.stop()
        asker = Asker("test", seconds=seconds)
        marks = Marks(store, MarkPlace(self.root, NAME), asker, clock=lambda: self.now)
        self.open.append(marks)
        return marks

    def stop(self) -> None:
        while self.open:
            self.open.pop().close()

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.root.glob(f"{NAME}/*.mark")}


@pytest.fixture
def third(tmp_path: Path) -> Iterator[Third]:
    third = Third(tmp_path / "third")
    third.root.mkdir()
    yield third
    third.stop()


def remember(marks: Marks | None, store: MemoryJournal, *records: bytes) -> bool:
    """Commit as the committing thread does: journal, then mark."""
    entries = [Entry(CLIENT, record) for record in records]
    if marks is None:
        store.append(entries)
        return True
    store.append(entries, [marks.grown(entries)])
    return marks.cover()


def life(third: Third) -> MemoryJournal:
    """Return a store that was marked, and whose daemon has stopped."""
    store = MemoryJournal()
    marks = third.start(store)
    assert remember(marks, store, b"one", b"two")
    assert remember(marks, store, b"three")
    assert marks.shown()["marked_records"] == 3
    third.stop()
    return store


def is_marked(store: MemoryJournal) -> bool:
    return any(entry.record.find(b"store_restored") >= 0 for entry in store.entries)


def restored(store: MemoryJournal) -> MemoryJournal:
    """Return what a restore makes of a backup of a store."""
    back = copy.deepcopy(store)
    mark_as_restored(back, backup_id=BACKUP_ID, source="/a/backup")
    return back


@pytest.mark.parametrize(
    ("effect", "waits"),
    [
        (fx.Send(node_id=NODE, message=m.CloseSign(close_id=bytes(32), partial_sigs=())), True),
        (fx.Send(node_id=NODE, message=m.ChannelFailure(channel_id=bytes(32), reason="no")), False),
        (
            fx.HandOverKeys(
                node_id=NODE,
                attempt_id=bytes(32),
                factory=FactoryKey(attempt=1),
                channel=ChannelKey(attempt=1, channel=0),
            ),
            True,
        ),
        (fx.Disconnect(node_id=NODE, reason="gone"), False),
    ],
)
def test_what_binds_waits_for_its_mark_and_keys_more_than_anything(
    effect: fx.Performed, *, waits: bool
) -> None:
    """A store that forgot that its keys are gone would go on with a channel that is another's."""
    assert waits_for_mark(effect) is waits


def test_a_store_that_goes_on_is_current_after_each_start(third: Third) -> None:
    store = life(third)
    for number in range(3):
        marks = third.start(store)
        assert (marks.unmarkable, marks.is_current, marks.is_proven) == (None, True, False)
        assert remember(marks, store, f"more {number}".encode())
    assert len(third.files()) == 1
    assert not is_marked(store)


def test_what_was_appended_by_nobody_who_marks_is_caught_up_with(third: Third) -> None:
    store = life(third)
    remember(None, store, b"four", b"five")
    marks = third.start(store)
    assert marks.is_current
    assert marks.shown()["marked_records"] == 5
    assert not is_marked(store)


def test_an_older_copy_is_marked_before_anybody_reads_it(third: Third) -> None:
    store = MemoryJournal()
    marks = third.start(store)
    remember(marks, store, b"one")
    older = copy.deepcopy(store)
    remember(marks, store, b"two")
    before = third.files()
    marks = third.start(older)
    (entry,) = [entry for entry in older.entries if b"store_restored" in entry.record]
    record = decode_record(entry.record)
    assert isinstance(record, StoreRestored)
    assert entry.stream == CLIENT
    assert record.source.startswith("an older copy: 1 record is lost: the store has ")
    assert "in the mark in" in record.source
    assert len(record.source) <= 200
    after = third.files()
    assert before.items() <= after.items(), "the mark that proves it stays as it is"
    assert marks.is_current, "new channels of it are marked, on a line of its own"
    assert len(after) == 2
    third.start(older)
    assert sum(b"store_restored" in one.record for one in older.entries) == 1


@pytest.mark.parametrize("n_more", [0, 1, 2, 50])
def test_a_copy_that_went_on_elsewhere_is_marked_however_many_records_it_has(
    third: Third, n_more: int
) -> None:
    store = MemoryJournal()
    marks = third.start(store)
    remember(marks, store, b"one")
    older = copy.deepcopy(store)
    remember(marks, store, b"two")
    third.stop()
    for number in range(n_more):
        remember(None, older, f"elsewhere {number}".encode())
    third.start(older)
    assert is_marked(older)


def test_the_store_whose_copy_went_on_is_marked_too(third: Third) -> None:
    store = life(third)
    back = restored(store)
    marks = third.start(back)
    remember(marks, back, b"goes on")
    for _ in range(2):
        assert not third.start(store).is_proven
    assert is_marked(store)


def test_a_copy_from_before_marks_were_kept_is_marked(third: Third) -> None:
    store = MemoryJournal()
    remember(None, store, b"one")
    older = copy.deepcopy(store)
    third.start(store)
    third.start(older)
    assert is_marked(older)


def test_a_restored_store_that_lost_nothing_is_proven_and_goes_on_with_its_line(
    third: Third,
) -> None:
    store = life(third)
    back = restored(store)
    marks = third.start(back)
    assert marks.is_proven
    assert remember(marks, back, b"four")
    assert len(third.files()) == 1
    marks = third.start(back)  # Until what lifts its marks is durable.
    assert marks.is_proven
    assert [number for number, _ in marks.memo.restores] == [4]
    ((number, name),) = marks.memo.restores_if_proven
    assert number == NO_RECORD
    marks.proof_is_kept()
    assert remember(marks, back, b"lifted")
    remember(marks, back, b"and on")
    marks = third.start(back)
    assert marks.is_proven, "and may be told again"
    assert marks.memo.source == ""
    assert marks.memo.restores == ((NO_RECORD, name),), "what named events meanwhile is known"
    third.stop()
    again = restored(back)
    older = copy.deepcopy(back)
    assert third.start(again).is_proven, "by the mark, once more"
    remember(third.open[0], again, b"goes on")
    assert not third.start(older).is_proven


@pytest.mark.parametrize("n_lost", [1, 2, 3])
def test_a_restored_store_that_lost_records_is_not_proven_and_lowers_no_mark(
    third: Third, n_lost: int
) -> None:
    store = MemoryJournal()
    marks = third.start(store)
    remember(marks, store, b"one")
    older = copy.deepcopy(store)
    for number in range(n_lost):
        remember(marks, store, f"lost {number}".encode())
    third.stop()
    before = third.files()
    back = restored(older)
    for _ in range(3):
        marks = third.start(back)
        assert not marks.is_proven
        assert before.items() <= third.files().items()
        for number in range(5):
            assert remember(marks, back, f"lost {number}".encode())
    assert read_memo(back) is not None
    assert marks.memo.source == "/a/backup"


def test_a_second_restore_of_one_backup_is_not_proven_after_the_first_went_on(
    third: Third,
) -> None:
    store = life(third)
    first, second = restored(store), restored(store)
    marks = third.start(first)
    assert marks.is_proven
    remember(marks, first, b"four")
    marks = third.start(second)
    assert not marks.is_proven


def test_what_a_first_restore_lost_is_not_proven_by_the_mark_of_what_followed(third: Third) -> None:
    store = MemoryJournal()
    marks = third.start(store)
    remember(marks, store, b"one")
    older = copy.deepcopy(store)
    remember(marks, store, b"lost")
    back = restored(older)
    marks = third.start(back)
    remember(marks, back, b"goes on")
    third.stop()
    again = restored(back)
    (first, second) = HighWater.of(again).memo.restores
    assert (first[0], second[0]) == (2, again.newest), "where the first record of each is"
    assert first[1] != second[1]
    assert not third.start(back).is_proven
    assert not third.start(again).is_proven


def test_a_store_that_is_restored_twice_is_proven_by_both_marks(third: Third) -> None:
    store = life(third)
    back = restored(store)
    marks = third.start(back)
    assert marks.is_proven
    remember(marks, back, b"goes on, and nobody was told of the proof yet")
    third.stop()
    again = restored(back)
    assert third.start(again).is_proven


def test_a_restored_store_that_went_on_without_marks_is_proven_no_more(third: Third) -> None:
    back = restored(life(third))
    remember(None, back, b"unmarked")
    assert not third.start(restored(back)).is_proven


@pytest.mark.parametrize(
    ("source", "n_proven"), [("third/one", 0), ("third", 0), (".", 0), ("second", 1), ("one", 1)]
)
def test_a_mark_proves_nothing_of_a_backup_that_came_from_its_own_place(
    third: Third, source: str, n_proven: int
) -> None:
    back = copy.deepcopy(life(third))
    place = third.root.parent / source
    mark_as_restored(back, backup_id=BACKUP_ID, source=str(place))
    assert third.start(back).is_proven == n_proven


@pytest.mark.parametrize("has_own_mark_there", [True, False])
def test_the_mark_of_what_was_restored_proves_nothing_of_what_the_store_did_since(
    third: Third, tmp_path: Path, *, has_own_mark_there: bool
) -> None:
    """It went on with marks elsewhere, and an older copy of it is taken to where it came from."""
    back = restored(life(third))
    elsewhere = Third(tmp_path / "elsewhere")
    elsewhere.root.mkdir()
    marks = elsewhere.start(back)
    assert (marks.is_proven, marks.is_current) == (False, True)
    older = copy.deepcopy(back)
    assert remember(marks, back, b"lost")
    elsewhere.stop()
    if has_own_mark_there:
        shutil.copytree(elsewhere.root, third.root, dirs_exist_ok=True)
    marks = third.start(older)
    assert not marks.is_proven
    assert marks.is_current is has_own_mark_there, "marked as restored, or it needs a word"


def test_a_store_without_a_mark_of_its_own_is_never_proven(third: Third) -> None:
    store = MemoryJournal()
    remember(None, store, b"one")
    marks = third.start(restored(store))
    assert (marks.is_proven, marks.is_current) == (False, True)


@pytest.mark.parametrize("way", ["emptied", "another", "damaged"])
def test_a_mark_that_is_gone_needs_a_word_and_updates_nothing_until_then(
    third: Third, tmp_path: Path, way: str
) -> None:
    store = life(third)
    if way == "another":
        third.root = tmp_path / "elsewhere"
        third.root.mkdir()
    for path in third.root.glob(f"{NAME}/*.mark"):
        path.unlink() if way == "emptied" else path.write_bytes(b"?")
    for _ in range(2):
        marks = third.start(store)
        assert (marks.needs_word, marks.is_current) == (True, False)
        assert "begin-mark" in (marks.unmarkable or "")
        assert not remember(marks, store, b"unmarked")
    marks.begin_anew()
    assert marks.cover()
    assert third.start(store).is_current
    assert not is_marked(store)


def test_a_place_that_is_not_there_is_not_made_and_is_tried_again(third: Third) -> None:
    store = life(third)
    away = third.root.rename(third.root.with_name("away"))
    marks = third.start(store)
    heard: list[str | None] = []
    marks.changed = lambda: heard.append(marks.unmarkable)
    assert "is not there" in (marks.unmarkable or "")
    assert not third.root.exists()
    away.rename(third.root)
    assert not remember(marks, store, b"four"), "it is not asked at each commit"
    third.now += marking.RETRY_SECONDS
    assert remember(marks, store, b"five")
    assert heard == [None]
    third.root.rename(away)
    assert not remember(marks, store, b"six")
    assert len(heard) == 2
    third.root.mkdir()  # Another file system is mounted there now.
    third.now += marking.RETRY_SECONDS
    assert not remember(marks, store, b"seven")
    assert marks.needs_word
    assert third.files() == {}
    shutil.rmtree(third.root)
    away.rename(third.root)
    third.now += marking.RETRY_SECONDS
    assert remember(marks, store, b"eight")
    assert not marks.needs_word


def test_a_mark_that_somebody_else_wrote_ends_the_daemon(third: Third) -> None:
    store = MemoryJournal()
    marks = third.start(store)
    remember(marks, store, b"one")
    theirs = copy.deepcopy(store)
    water = HighWater.of(theirs)
    water.grown([Entry(CLIENT, b"elsewhere")])
    file = MarkFile(next(third.root.glob(f"{NAME}/*.mark")))
    file.read()
    file.write(water.position)
    assert not remember(marks, store, b"two")
    assert "another copy of this store runs" in (marks.unmarkable or "")
    third.now += marking.RETRY_SECONDS
    with pytest.raises(RecordsLost, match="is not the one that was marked"):
        marks.cover()


def test_a_mark_that_comes_back_and_leads_ends_the_daemon(third: Third) -> None:
    store = MemoryJournal()
    marks = third.start(store)
    remember(marks, store, b"one")
    older = copy.deepcopy(store)
    remember(marks, store, b"two")
    third.stop()
    away = third.root.rename(third.root.with_name("away"))
    marks = third.start(older)
    assert marks.unmarkable
    away.rename(third.root)
    third.now += marking.RETRY_SECONDS
    with pytest.raises(RecordsLost, match="1 record is lost"):
        marks.cover()
    assert not is_marked(older), "it is read: only a start marks it"
    third.start(older)
    assert is_marked(older)


def test_a_place_that_hangs_is_given_up_and_comes_back(
    third: Third, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = life(third)
    marks = third.start(store, seconds=0.1)
    answers = threading.Event()
    write = MarkFile.write

    def slow(file: MarkFile, mark: HighWaterMark) -> None:
        answers.wait(20)
        write(file, mark)

    monkeypatch.setattr(MarkFile, "write", slow)
    assert not remember(marks, store, b"four")
    assert "no answer for 0.1 seconds" in (marks.unmarkable or "")
    assert not remember(marks, store, b"five")
    third.now += marking.RETRY_SECONDS
    assert not remember(marks, store, b"six")
    answers.set()
    third.now += marking.RETRY_SECONDS
    until(lambda: marks.cover() or advanced(third))
    assert marks.shown()["marked_records"] == 6
    third.start(store)
    assert not is_marked(store)


def advanced(third: Third) -> bool:
    third.now += marking.RETRY_SECONDS
    return False


def until(holds: Callable[[], bool]) -> None:
    for _ in range(200):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never holds")


def test_a_copy_that_runs_at_the_same_time_writes_no_mark(third: Third) -> None:
    store = MemoryJournal()
    marks = third.start(store)
    remember(marks, store, b"one")
    other = Marks(copy.deepcopy(store), MarkPlace(third.root, NAME), Asker("other", seconds=5))
    assert "in use by another process" in (other.unmarkable or "")
    other.close()
    assert remember(marks, store, b"two")


@pytest.mark.parametrize("crash", ["line", "file", "kept"])
def test_a_crash_while_a_mark_is_begun_loses_and_accuses_nobody(
    third: Third, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    store = MemoryJournal()
    remember(None, store, b"one")
    seen = copy.deepcopy(store)

    class Crash(BaseException):
        pass

    n_kept = 0
    keep = Marks._keep_memo

    def keep_or_die(marks: Marks) -> None:
        nonlocal n_kept, seen
        n_kept += 1
        if (crash, n_kept) in {("line", 1), ("kept", 2)}:
            raise Crash
        keep(marks)
        seen = copy.deepcopy(store)

    def die(*_args: object) -> None:
        raise Crash

    monkeypatch.setattr(Marks, "_keep_memo", keep_or_die)
    if crash == "file":
        monkeypatch.setattr(Asker, "ask", _unless_begun(die))
    with pytest.raises(Crash):
        third.start(store)
    monkeypatch.undo()
    for path in third.root.glob(f"{NAME}/in-use.lock"):
        path.unlink()  # As the kernel releases it.
    marks = third.start(seen)
    assert marks.is_current
    assert not is_marked(seen)


def _unless_begun(die: Callable[[], None]) -> Callable[..., object]:
    ask = Asker.ask
    n_asked = 0

    def asked(asker: Asker, what: Callable[[], object]) -> object:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 3:  # To look, to read the line's mark, and then to begin it.
            die()
        return ask(asker, what)

    return asked


def test_a_mark_whose_records_are_gone_proves_nothing(
    third: Third, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = life(third)
    monkeypatch.setattr(ports, "EVENTS_KEPT", 2)
    monkeypatch.setattr(memory, "oldest_of", ports.oldest_of)
    water = HighWater.of(store)
    mark = water.position
    water.change(noted=(0, b""))
    for _ in range(2):
        entries = [Entry(CLIENT, b"x")]
        store.append(entries, [water.grown(entries)])
    assert water.standing(mark) is MarkSays.CONTAINED
    entries = [Entry(CLIENT, b"x")]
    store.append(entries, [water.grown(entries)])
    assert water.standing(mark) is MarkSays.UNKNOWN
    water.change(noted=(*mark,))
    assert water.standing(mark) is MarkSays.CONTAINED


def test_every_stream_with_channels_is_marked_asleep_or_not() -> None:
    store = MemoryJournal()
    streams = ["creation", "house", "chain", "factory:1", "factory:2"]
    store.append([Entry(stream, b"a record") for stream in streams])
    store.replace_checkpoint(Checkpoint("factory:2", 1, b"snapshot", b"label", 99))
    assert store.label("factory:2") == b"label"
    n_marked = mark_as_restored(store, backup_id=BACKUP_ID, source="x" * 300)
    assert n_marked == 3
    marked = store.entries[len(streams) :]
    assert [entry.stream for entry in marked] == ["factory:1", "factory:2", "house"]
    for entry in marked:
        assert decode_record(entry.record) == StoreRestored(backup_id=BACKUP_ID, source="x" * 200)
    assert store.label("factory:2") == b"", "it is woken by it: a label says all of a stream"
    assert sorted(store.unlabelled()) == sorted(streams)


def test_an_answer_that_is_late_holds_up_the_next_question_only() -> None:
    asker = Asker("test", seconds=0.05)
    let_go = threading.Event()
    with pytest.raises(NoAnswer, match="no answer for"):
        asker.ask(lambda: let_go.wait(10))
    with pytest.raises(NoAnswer, match="still out"):
        asker.ask(lambda: True)
    let_go.set()
    until(asker._is_free.is_set)
    assert asker.ask(lambda: 7) == 7
    with pytest.raises(KeyError):
        asker.ask(lambda: {"one": 1}["none"])
    asker.close()
