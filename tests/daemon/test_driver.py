"""The driver's one rule: remember durably, then speak."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from tests.daemon.one_stream import OneStream

from cromford import effects as fx
from cromford.adapters.memory import MemoryJournal
from cromford.daemon.driver import Driver, Role, Undecided
from cromford.ports import Archived, Entry
from cromford.protocol.events import DaemonStarted, DeadlineReached, Event
from cromford.protocol.facts import Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.lobby_records import WishWithdrawn
from cromford.protocol.journal.records import AnyRecord, Started
from cromford.protocol.turn import Asked, Decision, Remembered
from cromford.wire.messages import Abort


@dataclass
class ListStore(MemoryJournal):
    """A journal in memory that writes into a diary and can be full."""

    diary: list[str] = field(default_factory=list)
    is_full: bool = False

    def append(self, entries: Sequence[Entry], archived: Sequence[Archived] = ()) -> None:
        if self.is_full:
            raise OSError("disk full")
        self.diary.append(f"append {len(entries)}")
        super().append(entries, archived)


REJECTED = fx.AttemptDeadline(attempt_id=b"reject")
BAD_RECORD = fx.AttemptDeadline(attempt_id=b"bad record")
FIRST = fx.AttemptDeadline(attempt_id=b"first")
THEN = fx.AttemptDeadline(attempt_id=b"then")


@dataclass(frozen=True)
class Counter:
    """A state that counts its records."""

    n: int = 0


def decide(state: Counter, event: Event, _facts: Facts) -> Decision[Counter]:
    if isinstance(event, DeadlineReached) and event.deadline == REJECTED:
        raise Rejected("no", "not now")
    if isinstance(event, DeadlineReached) and event.deadline == BAD_RECORD:
        apply(state, WishWithdrawn(), 0)
    clear = fx.ClearDeadline(deadline=FIRST if state.n == 0 else THEN)
    return Decision(
        state=apply(state, Started(), 0),
        entries=(Remembered("test", Started()),),
        asked=(Asked("test", clear),),
    )


def apply(state: Counter, record: AnyRecord, _at: int) -> Counter:
    if isinstance(record, WishWithdrawn):
        raise AssertionError("cannot be applied")
    return replace(state, n=state.n + 1)


ROLE: Role[Counter] = Role(
    name="test",
    decide=decide,
    apply=lambda state, _stream, record, at: apply(state, record, at),
    relevant=lambda _s, _t: (),
    parts=OneStream("test", apply),
)


def driver_of(store: ListStore) -> Driver[Counter]:
    def perform(effect: fx.Effect) -> tuple[Event, ...]:
        assert isinstance(effect, fx.ClearDeadline)
        assert isinstance(effect.deadline, fx.AttemptDeadline)
        store.diary.append(f"perform {effect.deadline.attempt_id.decode()}")
        return (DaemonStarted(),) if effect.deadline == FIRST else ()

    return Driver(ROLE, Counter(), store, perform)


def test_records_are_durable_before_their_effects() -> None:
    store = ListStore()

    driver_of(store).start()

    assert store.diary == ["append 1", "perform first", "append 1", "perform then"]


def test_a_failed_append_performs_nothing_and_changes_nothing() -> None:
    store = ListStore(is_full=True)
    driver = driver_of(store)

    with pytest.raises(OSError, match="disk full"):
        driver.start()

    assert store.diary == []
    assert driver.state == Counter()


def test_a_record_that_cannot_be_applied_never_becomes_durable() -> None:
    store = ListStore()
    driver = driver_of(store)

    with pytest.raises(Undecided, match="AssertionError"):
        driver.handle(DeadlineReached(stream="test", deadline=BAD_RECORD))

    assert store.entries == []


@dataclass(frozen=True)
class Bug(Exception):
    """What nobody foresaw."""


def with_a_bug_after(n_good: int, *, remembers: bool) -> tuple[ListStore, Driver[Counter]]:
    """Return a driver whose every decision causes the next, and one of them fails."""
    n_decided = 0

    def decide_some(state: Counter, _event: Event, _facts: Facts) -> Decision[Counter]:
        nonlocal n_decided
        if n_decided == n_good:
            raise Bug
        n_decided += 1
        clear = fx.ClearDeadline(deadline=FIRST)
        if not remembers:
            return Decision(state=state, asked=(Asked("test", clear),))
        return Decision(
            state=apply(state, Started(), 0),
            entries=(Remembered("test", Started()),),
            asked=(Asked("test", clear),),
        )

    store = ListStore()
    role = replace(ROLE, decide=decide_some)
    return store, Driver(role, Counter(), store, lambda _effect: (DaemonStarted(),))


@pytest.mark.parametrize("n_good", [0, 3])
def test_a_bug_before_anything_was_remembered_leaves_all_as_it_was(n_good: int) -> None:
    store, driver = with_a_bug_after(n_good, remembers=False)

    with pytest.raises(Undecided) as met:
        driver.start()

    assert isinstance(met.value.__cause__, Bug)
    assert (store.entries, driver.state) == ([], Counter())


def test_a_bug_after_something_was_remembered_is_told_as_it_is() -> None:
    """What it leaves half done only a restart finishes: nobody may take it for nothing."""
    store, driver = with_a_bug_after(2, remembers=True)

    with pytest.raises(Bug):
        driver.start()

    assert (len(store.entries), driver.state) == (2, Counter(n=2))


def test_a_bug_while_an_effect_is_performed_is_told_as_it_is() -> None:
    def fail(_effect: fx.Effect) -> tuple[Event, ...]:
        raise Bug

    _, driver = with_a_bug_after(1, remembers=False)
    clumsy = Driver(driver._role, Counter(), ListStore(), fail)

    with pytest.raises(Bug):
        clumsy.start()


def test_a_rejected_request_leaves_no_trace() -> None:
    store = ListStore()
    driver = driver_of(store)

    with pytest.raises(Rejected):
        driver.handle(DeadlineReached(stream="test", deadline=REJECTED))

    assert store.diary == []


def test_what_is_foreseen_leaves_no_trace() -> None:
    store = ListStore()
    driver = driver_of(store)

    foreseen = driver.foresee(DeadlineReached(stream="test", deadline=FIRST))

    assert foreseen.records == (Started(),)
    assert (store.diary, driver.state) == ([], Counter())
    with pytest.raises(Rejected):
        driver.foresee(DeadlineReached(stream="test", deadline=REJECTED))


def test_a_role_that_starts_is_told_the_time() -> None:
    told: list[Event] = []

    def hear(state: Counter, event: Event, _facts: Facts) -> Decision[Counter]:
        told.append(event)
        return Decision(state=state)

    driver = Driver(replace(ROLE, decide=hear), Counter(), ListStore(), lambda _effect: ())
    driver.start(unix_time=1_700_000_000)
    driver.start()

    assert told == [DaemonStarted(unix_time=1_700_000_000), DaemonStarted()]


def test_a_new_driver_replays_to_the_same_state() -> None:
    store = ListStore()
    driver = driver_of(store)
    driver.start()

    assert driver_of(store).state == driver.state


# With a disk that is not waited for

SEND = fx.Send(node_id=b"peer", message=Abort(attempt_id=bytes(32), reason="no"))
Waiting = tuple[list[Entry], Callable[[], None]]


def late(store: ListStore) -> tuple[Driver[Counter], list[Waiting]]:
    """Return a driver whose records become durable when the test says so, and what waits."""

    def decide_both(state: Counter, _event: Event, _facts: Facts) -> Decision[Counter]:
        clear = fx.ClearDeadline(deadline=THEN)
        return Decision(
            state=apply(state, Started(), 0),
            entries=(Remembered("test", Started()),),
            asked=tuple(Asked("test", effect) for effect in (SEND, clear, SEND)),
        )

    def perform(effect: fx.Effect) -> tuple[Event, ...]:
        store.diary.append(type(effect).__name__)
        return ()

    waiting: list[Waiting] = []
    driver = Driver(
        replace(ROLE, decide=decide_both),
        Counter(),
        store,
        perform,
        lambda record: store.diary.append(f"told {type(record).__name__}"),
    )

    def commit(
        entries: Sequence[Entry],
        archived: Sequence[Archived],
        then: Callable[[], None],
        *,
        is_awaited: bool,
    ) -> None:
        assert is_awaited, "something leaves"
        assert not archived
        waiting.append((list(entries), then))

    driver.commit = commit
    return driver, waiting


def test_decisions_go_on_before_records_are_durable_and_nothing_leaves() -> None:
    store = ListStore()
    driver, waiting = late(store)
    driver.start()
    driver.start()
    assert driver.state == Counter(n=2)
    assert store.diary == ["ClearDeadline"] * 2, "what is ours alone"
    assert [len(entries) for entries, _ in waiting] == [1, 1]
    for _, then in waiting:
        store.diary.append("durable")
        then()
    said = ["durable", "told Started", "Send", "Send"]
    assert store.diary == ["ClearDeadline"] * 2 + said * 2


def test_what_may_not_be_said_any_more_when_it_is_durable_is_not_said() -> None:
    store = ListStore()
    driver, waiting = late(store)
    driver.bound = lambda _effect: lambda: ()
    driver.start()
    waiting[0][1]()
    assert store.diary == ["ClearDeadline", "told Started"]


def test_what_an_effect_causes_that_had_to_wait_is_an_event_like_any_other() -> None:
    store = ListStore()
    driver, waiting = late(store)
    caused: list[Event] = []
    driver.caused = caused.append
    event = DeadlineReached(stream="test", deadline=FIRST)
    driver.bound = lambda _effect: lambda: (event,)
    driver.start()
    assert caused == []
    waiting[0][1]()
    assert caused == [event, event]
