"""The thread that waits for the disk: what it makes durable, what follows, and when it cannot."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from cromford.adapters.memory import MemoryJournal
from cromford.daemon import committer as committing
from cromford.daemon.backup.restored import RecordsLost
from cromford.daemon.committer import Committer
from cromford.ports import Archived, Checkpoint, Entry, StoreFailed


@dataclass
class SlowJournal(MemoryJournal):
    """A journal whose disk is busy until it is let go, and may be full."""

    appends: list[list[bytes]] = field(default_factory=list)
    is_free: threading.Event = field(default_factory=threading.Event)
    is_full: bool = False

    def append(self, entries: Sequence[Entry], archived: Sequence[Archived] = ()) -> None:
        assert self.is_free.wait(10)
        if self.is_full:
            raise StoreFailed("the disk is full")
        super().append(entries, archived)
        self.appends.append([entry.record for entry in entries])


class Scene:
    """A committer over a slow journal, and a diary of what followed."""

    def __init__(self, marks: Any = None) -> None:
        self.store = SlowJournal()
        self.diary: list[str] = []
        self.failures: list[Exception] = []
        self.committer = Committer(self.store, failed=self.failures.append, marks=marks)

    def commit(
        self, name: str, then: Callable[[], None] = lambda: None, *, is_awaited: bool = True
    ) -> None:
        def follow() -> None:
            assert name.encode() in self.store.records, "it is durable"
            self.diary.append(name)
            then()

        entry = Entry("house", name.encode())
        self.committer.commit([entry], [], follow, is_awaited=is_awaited)

    def say(self, name: str) -> None:
        """Let something follow that has no records of its own."""
        self.committer.commit([], [], lambda: self.diary.append(name))

    async def rested(self) -> None:
        """Let the thread take what is there."""
        await asyncio.sleep(0.05)


def played(scenario: Callable[[Scene], Awaitable[None]], marks: Any = None) -> None:
    async def main() -> None:
        scene = Scene(marks)
        try:
            await asyncio.wait_for(scenario(scene), 20)
        finally:
            scene.store.is_free.set()
            await scene.committer.close()

    asyncio.run(main())


def test_it_ends_where_the_system_allows_no_thread_that_would_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(scene: Scene) -> None:
        scene.commit("a")
        scene.store.is_free.set()

        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")  # What CPython says.

        with monkeypatch.context() as full:
            full.setattr(threading.Thread, "start", refuse)
            await scene.committer.close()
        assert scene.store.records == [b"a"]

    played(scenario)


def test_what_waits_for_the_disk_is_committed_together_and_followed_in_order() -> None:
    async def scenario(scene: Scene) -> None:
        scene.commit("a")
        await scene.rested()
        for name in "bcd":
            scene.commit(name)
        scene.say("nothing to write")
        await scene.rested()
        assert scene.diary == []
        scene.store.is_free.set()
        await scene.committer.settled()
        assert scene.store.appends == [[b"a"], [b"b", b"c", b"d"]]
        assert scene.diary == ["a", "b", "c", "d", "nothing to write"]

    played(scenario)


def test_what_waits_for_nothing_follows_at_once() -> None:
    async def scenario(scene: Scene) -> None:
        scene.say("at once")
        assert scene.diary == ["at once"]
        await scene.committer.settled()

    played(scenario)


@pytest.fixture
def for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let records for which nothing waits lie there as long as a test takes."""
    monkeypatch.setattr(committing, "LINGER_SECONDS", 600.0)


@pytest.mark.usefixtures("for_long")
def test_records_for_which_nothing_waits_go_with_the_next_for_which_something_does() -> None:
    async def scenario(scene: Scene) -> None:
        scene.store.is_free.set()
        for name in "ab":
            scene.commit(name, is_awaited=False)
        await scene.rested()
        assert (scene.store.appends, scene.diary) == ([], [])
        scene.commit("c")
        await scene.committer.settled()
        assert scene.store.appends == [[b"a", b"b", b"c"]]
        assert scene.diary == ["a", "b", "c"]
        scene.commit("d", is_awaited=False)
        await scene.rested()
        assert scene.store.appends == [[b"a", b"b", b"c"]], "the next wait as long"

    played(scenario)


@pytest.mark.usefixtures("for_long")
def test_whoever_asks_whether_all_is_settled_does_not_wait_for_others() -> None:
    async def scenario(scene: Scene) -> None:
        scene.store.is_free.set()
        scene.commit("a", is_awaited=False)
        await scene.committer.settled()
        scene.commit("b", is_awaited=False)
        await scene.committer.keep(Checkpoint("house", 2, b"two"))
        scene.commit("c", is_awaited=False)
        await scene.committer.cover()
        assert scene.store.appends == [[b"a"], [b"b"], [b"c"]]

    played(scenario)


@pytest.mark.usefixtures("for_long")
def test_what_has_no_records_follows_those_before_it_and_is_no_append_of_its_own() -> None:
    async def scenario(scene: Scene) -> None:
        scene.commit("a", then=lambda: scene.say("caused"), is_awaited=False)
        scene.say("one")
        await scene.rested()  # The disk is busy with what is before it.
        scene.say("two")
        scene.commit("b", is_awaited=False)
        scene.say("three")
        assert scene.diary == []
        scene.store.is_free.set()
        await scene.committer.settled()
        assert scene.diary == ["a", "one", "two", "b", "three", "caused"]
        assert scene.store.appends == [[b"a"], [b"b"]]

    played(scenario)


def test_records_wait_for_others_no_longer_than_a_moment() -> None:
    async def scenario(scene: Scene) -> None:
        scene.store.is_free.set()
        written = asyncio.Event()
        scene.commit("a", then=written.set, is_awaited=False)
        await asyncio.wait_for(written.wait(), 10)
        assert scene.store.appends == [[b"a"]]

    played(scenario)


def test_a_full_disk_is_told_although_nothing_waits_for_what_it_refuses() -> None:
    async def scenario(scene: Scene) -> None:
        told = asyncio.Event()
        scene.committer._failed = lambda _error: told.set()
        scene.store.is_full = True
        scene.store.is_free.set()
        scene.commit("a", is_awaited=False)
        await asyncio.wait_for(told.wait(), 10)
        with pytest.raises(StoreFailed, match="the disk is full"):
            scene.commit("b", is_awaited=False)
        with pytest.raises(StoreFailed, match="the disk is full"):
            scene.say("c")
        assert scene.diary == []

    played(scenario)


@pytest.mark.usefixtures("for_long")
def test_at_the_end_what_nothing_waits_for_is_written_too() -> None:
    async def main() -> None:
        scene = Scene()
        scene.store.is_free.set()
        scene.commit("a", is_awaited=False)
        await scene.committer.close()
        assert (scene.store.records, scene.diary) == ([b"a"], [])

    asyncio.run(main())


@pytest.mark.usefixtures("for_long")
def test_with_too_many_that_nothing_waits_for_they_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(committing, "WAITING_MAX", 3)

    async def scenario(scene: Scene) -> None:
        scene.store.is_free.set()
        for name in "abcdefgh":
            scene.commit(name, is_awaited=False)
        scene.say("said")
        for name in "ijkl":
            scene.say(name)
        await scene.committer.settled()
        assert "".join(scene.diary) == "abcdefghsaidijkl"

    played(scenario)


def test_settled_waits_for_what_was_committed_before_it_and_for_nothing_later() -> None:
    async def scenario(scene: Scene) -> None:
        scene.commit("before")
        waiting = asyncio.create_task(scene.committer.settled())
        await scene.rested()
        assert not waiting.done()
        scene.store.is_free.set()
        await waiting
        assert scene.diary == ["before"]
        scene.store.is_free.clear()
        scene.commit("later")
        assert waiting.done()

    played(scenario)


def test_what_follows_may_commit_again() -> None:
    async def scenario(scene: Scene) -> None:
        scene.store.is_free.set()
        scene.commit("first", then=lambda: scene.commit("second"))
        await scene.committer.settled()
        await scene.committer.settled()
        assert scene.diary == ["first", "second"]

    played(scenario)


def test_a_failed_write_does_nothing_of_it_and_is_told_once() -> None:
    async def scenario(scene: Scene) -> None:
        scene.store.is_full = True
        scene.commit("a")
        waiting = asyncio.create_task(scene.committer.settled())
        scene.commit("b")
        scene.store.is_free.set()
        with pytest.raises(StoreFailed, match="the disk is full"):
            await waiting
        assert (scene.diary, scene.store.entries) == ([], [])
        assert [str(error) for error in scene.failures] == ["the disk is full"]
        with pytest.raises(StoreFailed, match="the disk is full"):
            scene.commit("c")
        with pytest.raises(StoreFailed, match="the disk is full"):
            scene.committer.commit([], [], lambda: scene.diary.append("never"))
        with pytest.raises(StoreFailed, match="the disk is full"):
            await scene.committer.settled()
        assert scene.diary == []

    played(scenario)


def test_a_bug_in_what_follows_ends_all_that_would() -> None:
    def bug() -> None:
        raise ZeroDivisionError

    async def scenario(scene: Scene) -> None:
        scene.commit("a", then=bug)
        scene.commit("b")
        scene.store.is_free.set()
        with pytest.raises(StoreFailed):
            await scene.committer.settled()
        assert [type(error) for error in scene.failures] == [ZeroDivisionError]
        assert scene.diary == ["a"]

    played(scenario)


def test_a_checkpoint_is_kept_after_the_records_it_stands_for_and_before_later_ones() -> None:
    async def scenario(scene: Scene) -> None:
        scene.commit("a")
        keeping = asyncio.create_task(scene.committer.keep(Checkpoint("house", 1, b"one")))
        await asyncio.sleep(0)
        scene.commit("b")
        assert scene.store.checkpoints == {}
        scene.store.is_free.set()
        await keeping
        assert scene.store.checkpoints["house"].snapshot == b"one"
        await scene.committer.settled()
        assert scene.store.appends == [[b"a"], [b"b"]]

    played(scenario)


def test_at_the_end_what_waits_is_written_and_nothing_follows() -> None:
    async def main() -> None:
        scene = Scene()
        scene.commit("a")
        scene.commit("b")
        closing = asyncio.create_task(scene.committer.close())
        await scene.rested()
        scene.store.is_free.set()
        await closing
        assert scene.store.records == [b"a", b"b"]
        assert (scene.diary, scene.failures) == ([], [])
        with pytest.raises(StoreFailed, match="the journal is closed"):
            scene.commit("c")

    asyncio.run(main())


def test_with_too_many_waiting_the_loop_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "WAITING_MAX", 3)

    async def scenario(scene: Scene) -> None:
        freed: list[Any] = []

        def free() -> None:
            freed.append(len(scene.committer._waiting))
            scene.store.is_free.set()

        timer = threading.Timer(0.2, free)
        timer.start()
        for name in "abcdefgh":
            scene.commit(name)  # The loop stands still here until the disk is free.
        timer.join()
        assert freed == [3]
        await scene.committer.settled()
        assert "".join(scene.diary) == "abcdefgh"

    played(scenario)


@dataclass
class Marked:
    """Marks in a place that is there or away, and a diary of the order of things."""

    diary: list[str] = field(default_factory=list)
    is_away: bool = False
    is_current: bool = True
    numbers: list[int] = field(default_factory=list)
    store: MemoryJournal | None = None

    def grown(self, entries: Sequence[Entry]) -> Archived:
        self.diary.append(f"remembers {len(entries)}")
        return Archived("creation", b"memo", b"")

    def cover(self) -> bool:
        assert self.store is not None
        self.diary.append(f"{'misses' if self.is_away else 'marks'} {self.store.newest}")
        return not self.is_away


def test_a_mark_comes_after_the_journal_and_before_what_follows() -> None:
    marks = Marked()

    async def scenario(scene: Scene) -> None:
        marks.store = scene.store
        scene.diary = marks.diary
        scene.store.is_free.set()
        scene.commit("a")
        await scene.committer.settled()
        marks.is_away = True
        scene.commit("b", lambda: marks.diary.append(f"covered: {scene.committer.is_covered}"))
        await scene.committer.settled()
        scene.committer.commit(
            [], [], lambda: marks.diary.append(f"covered: {scene.committer.is_covered}")
        )
        marks.is_away = False
        await scene.committer.cover()
        assert scene.committer.is_covered
        assert scene.failures == []

    played(scenario, marks)
    assert marks.diary == [
        "remembers 1",
        "marks 1",
        "a",
        "remembers 1",
        "misses 2",
        "b",
        "covered: False",
        "covered: False",
        "marks 2",
    ]
    assert marks.store is not None
    assert marks.store.archived("creation", b"memo") == b"", "in the same commit"


def test_a_mark_that_proves_a_loss_ends_the_committer() -> None:
    class Lost(Marked):
        def cover(self) -> bool:
            raise RecordsLost("3 records are lost")

    async def scenario(scene: Scene) -> None:
        scene.store.is_free.set()
        scene.commit("a")
        with pytest.raises(StoreFailed, match="3 records are lost"):
            await scene.committer.settled()
        assert [type(failure) for failure in scene.failures] == [RecordsLost]
        assert scene.diary == []

    played(scenario, Lost())
