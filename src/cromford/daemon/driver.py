"""The only place where I/O and state meet, and its one rule.

A decision has folded its own records: append them durably, go on from the state it ended with, then
perform its effects. Nothing is done before it is remembered. The driver is the same in a daemon and
in the simulation; only the ports differ.

A daemon does not wait for its disk: with a `Commit` the driver goes on from the new state at once,
and whatever leaves the process, or is told to anybody, waits until all that led to it is durable.
What stays in memory, keys, nonces and signatures, need not wait: it is lost with the process.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from cromford.bitcoin.tx import Tx
from cromford.daemon.parts import Parts
from cromford.daemon.streams import Stream
from cromford.effects import (
    Broadcast,
    ClearDeadline,
    Disconnect,
    DropPools,
    Effect,
    HandOverKeys,
    LookUpCoins,
    LookUpSpenders,
    Performed,
    PublishBumped,
    RecallCommitment,
    Send,
    SetDeadline,
)
from cromford.ports import Archived, Checkpoint, Entry, Store
from cromford.protocol.events import CommitmentRecalled, DaemonStarted, Event
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.channel_records import RevocationReceived
from cromford.protocol.journal.records import AnyRecord, encode_record
from cromford.protocol.journal.revoked import read_revoked
from cromford.protocol.turn import Asked, Decision, StreamBug

S = TypeVar("S")
DRAWN_BITS: Final = 26  # Of a start's random number. Keys have 2^31 numbers: some 60 restores.


class Undecided(Exception):
    """A bug was met while deciding, and nothing was remembered since the event came.

    The journal and the state are as before, so whoever caused the event may go and the rest go on.
    What was met is its cause.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Role(Generic[S]):
    """A role: its name, its pure functions, and how its state is made of streams.

    `apply` folds a record of a stream, with its time, into the whole state. `stop` returns a
    state in which nothing more is decided about one stream, or None if the role cannot do without.
    """

    name: str
    decide: Callable[[S, Event, Facts], Decision[S]]
    apply: Callable[[S, str, AnyRecord, int], S]
    relevant: Callable[[S, Sequence[Tx]], tuple[Tx, ...]]
    parts: Parts[S]
    stop: Callable[[S, StreamBug], S | None] = lambda _state, _fault: None


# What leaves the process, or reads what the journal holds. Everything else is ours alone.
_OUTWARD: Final[frozenset[type[Effect]]] = frozenset(
    {
        Send,
        Disconnect,
        Broadcast,
        PublishBumped,
        LookUpCoins,
        LookUpSpenders,
        RecallCommitment,
        HandOverKeys,
    }
)
# What asks nobody for anything: where a decision wishes no more, nothing waits for its records.
_QUIET: Final[frozenset[type[Effect]]] = frozenset({SetDeadline, ClearDeadline, DropPools})


class Commit(Protocol):
    """Makes the records of decisions durable, in the order in which they come."""

    def __call__(
        self,
        entries: Sequence[Entry],
        archived: Sequence[Archived],
        then: Callable[[], None],
        *,
        is_awaited: bool,
    ) -> None:
        """Make records durable in its own time, and then call `then`.

        Args:
            entries: The records.
            archived: What is archived with them.
            then: What follows once they, and all before them, are durable.
            is_awaited: Whether more follows than that they are told; if not, they may be durable
                together with what comes next.
        """


class Driver(Generic[S]):
    """Drives one role over one journal.

    Attributes:
        commit: Makes records durable in its own time; None to append them at once, and wait.
        caused: Takes the events that an effect causes which had to wait.
        bound: Returns what performs an effect later, if it is still to be performed then.

    Args:
        role: The pure functions.
        state: The state before the first record.
        store: The journal.
        perform: Performs one effect and returns the events it causes at once.
        observe: Told of each record once it is durable; of none that is replayed.
        on_fault: Told of each bug that stopped one stream.
    """

    def __init__(
        self,
        role: Role[S],
        state: S,
        store: Store,
        perform: Callable[[Performed], Iterable[Event]],
        observe: Callable[[AnyRecord], None] = lambda _record: None,
        *,
        on_fault: Callable[[StreamBug, Event], None] = lambda _fault, _event: None,
    ) -> None:
        self._role = role
        self._parts = role.parts
        self._store = store
        self._perform = perform
        self._observe = observe
        self._on_fault = on_fault
        self.commit: Commit | None = None
        self.caused: Callable[[Event], None] = self.handle
        self.bound: Callable[[Performed], Callable[[], Iterable[Event]]] = self._unbound
        self._streams: dict[str, Stream[Any]] = {}
        self._just_opened: set[str] = set()  # Since the last event: some of them may sleep on.
        self._grown: set[str] = set()  # Of these a checkpoint may be due.
        self.facts = FRESH
        self.beginning = state
        self.state = self._parts.begin(state, self)
        self._load()

    @property
    def role(self) -> str:
        """The name of the role: `lsp` or `client`."""
        return self._role.name

    def _load(self) -> None:
        for name, label in self._store.labels():
            if self._parts.is_ours(name):
                self.state = self._parts.asleep(self.state, name, label)
        for name in sorted(self._store.unlabelled()):
            if self._parts.is_ours(name):
                value = self._opened(name).state
                self.state = self._parts.with_value(self.state, name, value)
        self.state = self._parts.settled(self.state)

    def load(self, stream: str) -> Any:  # noqa: ANN401 - streams have values of their own
        """Return the value of a stream that is not in memory.

        Raises:
            StoreFailed: If it cannot be read.
            UnknownRecord: If a record of it cannot be.
        """
        return self._opened(stream).state

    def label(self, stream: str) -> bytes:
        """Return what is known of a stream that may sleep; empty if it may not."""
        return self._store.label(stream)

    def due(self, height: int) -> Iterable[str]:
        """Return the streams with a label that are to be in memory at a height."""
        return self._store.due(height)

    def _opened(self, name: str) -> Stream[Any]:
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = Stream(
                self._store,
                name,
                beginning=self._parts.value(self.beginning, name),
                apply=self._parts.fold(name),
                snapshots=self._parts.snapshots(self.beginning, name),
            )
            self._just_opened.add(name)
            self._grown.add(name)
        return stream

    def start(self, *, unix_time: int = 0, drawn: int = 0) -> None:
        """Tell the role that it starts: what was lost is voided, what is owed is done.

        Args:
            unix_time: Seconds since 1970, UTC; what expired meanwhile is known by it.
            drawn: A random number of this start, of `DRAWN_BITS` bits.
        """
        self.handle(DaemonStarted(unix_time=unix_time, drawn=drawn))

    def foresee(self, event: Event) -> Decision[S]:
        """Return what the role would decide. Nothing is remembered and nothing done.

        Raises:
            Rejected: If the operator asked for something impossible.
        """
        return self._role.decide(self.state, event, self.facts)

    def handle(self, event: Event) -> None:
        """Handle one event and all that it causes at once.

        A bug that is met in one stream stops that stream, and the others go on.

        Raises:
            Rejected: If the operator asked for something impossible; nothing is changed.
            Undecided: If deciding failed before anything was remembered; nothing is changed.
            StoreFailed: If the journal cannot be written. Nothing of the decision was done.
            Exception: Whatever else fails in what the role cannot do without, once something was
                remembered or is being done. What that leaves half done only a restart finishes: the
                caller must stop.
        """
        self.forget_looked_at()
        pending: deque[tuple[Event, str | None]] = deque([(event, None)])
        has_remembered = False
        while pending:
            following, asker = pending.popleft()
            try:
                # Folded already: a record that cannot be applied never becomes durable.
                decision = self._role.decide(self.state, following, self.facts)
                archived = self._archived(decision)
            except Rejected:
                raise
            except Exception as error:
                if self._has_stopped(asker, error, following):
                    continue
                if has_remembered:
                    raise
                raise Undecided(type(error).__name__) from error
            if self.commit is None:
                self._remember(decision, archived)
            else:
                self._go_on(self.commit, decision, archived, following)
            has_remembered = has_remembered or any(entry.is_kept for entry in decision.entries)
            for fault in decision.faults:
                self._on_fault(fault, following)
            for asked in decision.asked:
                if self.commit is None or type(asked.effect) not in _OUTWARD:
                    perform = self._doing(asked.effect, self._unbound)
                    caused = self._caused_by(asked, perform, following)
                    pending.extend((one, asked.stream) for one in caused)

    def _go_on(
        self, commit: Commit, decision: Decision[S], archived: Sequence[Archived], event: Event
    ) -> None:
        """Go on from a decision, and let what leaves us follow once its records are durable."""
        outward = [
            (asked, self._doing(asked.effect, self.bound))
            for asked in decision.asked
            if type(asked.effect) in _OUTWARD
        ]

        def follow() -> None:
            self._tell(decision)
            for asked, perform in outward:
                for caused in self._caused_by(asked, perform, event):
                    self.caused(caused)

        entries = _entries_of(decision)
        self._advance(decision, entries)
        if entries or outward:
            is_awaited = any(type(asked.effect) not in _QUIET for asked in decision.asked)
            commit(entries, archived, follow, is_awaited=is_awaited)

    def afterwards(self, then: Callable[[], None]) -> None:
        """Do something once all that was decided by now is durable, and done."""
        if self.commit is None:
            then()
        else:
            self.commit((), (), then, is_awaited=True)

    def _doing(
        self, effect: Effect, bound: Callable[[Performed], Callable[[], Iterable[Event]]]
    ) -> Callable[[], Iterable[Event]]:
        """Return what performs an effect: the journal answers itself, and `bound` does the rest."""
        if isinstance(effect, RecallCommitment):
            return partial(self.recall, effect)
        return bound(effect)

    def _unbound(self, effect: Performed) -> Callable[[], Iterable[Event]]:
        return partial(self._perform, effect)

    def _caused_by(
        self, asked: Asked, perform: Callable[[], Iterable[Event]], event: Event
    ) -> list[Event]:
        """Perform an effect, and return what it causes at once; a bug stops who asked for it."""
        try:
            return [*perform()]
        except Exception as error:
            if self._has_stopped(asked.stream, error, event):
                return []
            raise

    def forget_looked_at(self) -> None:
        """Let streams go that somebody looked at, and that sleep on."""
        for name in self._just_opened:
            if name in self._streams and self._parts.is_asleep(self.state, name):
                del self._streams[name]
        self._just_opened.clear()

    def _has_stopped(self, stream: str | None, error: Exception, event: Event) -> bool:
        """Stop a stream because of a bug, and say whether the others can go on."""
        if stream is None:
            return False
        fault = StreamBug(stream, error)
        stopped = self._role.stop(self.state, fault)
        if stopped is None:
            return False
        self.state = stopped
        self._on_fault(fault, event)
        return True

    def recall(self, asked: RecallCommitment) -> Iterable[Event]:
        """Look up what a commitment said that its peer revoked."""
        look_up = partial(self._store.archived, asked.stream)
        content = read_revoked(asked.channel_id, asked.number, look_up)
        return () if content is None else (CommitmentRecalled(asked=asked, content=content),)

    def relevant(self, txs: Sequence[Tx]) -> tuple[Tx, ...]:
        """Return the transactions of a block that matter to the role."""
        return self._role.relevant(self.state, txs)

    def _archived(self, decision: Decision[S]) -> list[Archived]:
        return [
            Archived(entry.stream, *row)
            for entry in decision.entries
            if isinstance(entry.record, RevocationReceived)
            for row in self._parts.archived(self.state, entry.stream, entry.record)
        ]

    def _remember(self, decision: Decision[S], archived: Sequence[Archived]) -> None:
        entries = _entries_of(decision)
        for entry in entries:
            self._opened(entry.stream)  # Before: what is appended is counted, and not read again.
        if entries:
            self._store.append(entries, archived)
        self._advance(decision, entries)
        self._tell(decision)

    def _advance(self, decision: Decision[S], entries: Sequence[Entry]) -> None:
        self.state = decision.state
        for entry in entries:
            self._opened(entry.stream).count(entry.record)
            self._grown.add(entry.stream)

    def _tell(self, decision: Decision[S]) -> None:
        for entry in decision.entries:
            if entry.is_kept:
                self._observe(entry.record)

    # Checkpoints

    @property
    def open_streams(self) -> tuple[str, ...]:
        """The streams that are in memory."""
        return tuple(self._streams)

    def due_checkpoints(self) -> Iterable[str]:
        """Yield the streams of which a checkpoint is due."""
        streams = self._streams
        self._grown = {name for name in self._grown if name in streams and streams[name].is_due}
        return sorted(name for name in self._grown if not self._parts.is_passing(self.state, name))

    def begin_checkpoint(self, name: str) -> Callable[[], Checkpoint]:
        """Return what makes a checkpoint of a stream as it is now, in any thread."""
        value = self._parts.value(self.state, name)
        # One that sleeps is found by its label; it is open because somebody looked at it.
        is_asleep = self._parts.is_asleep(self.state, name)
        label = self.label(name) if is_asleep else self._parts.label(self.state, name)
        wake_height = self._parts.wake_height(label)
        return self._streams[name].begin_checkpoint(value, label=label, wake_height=wake_height)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Let a checkpoint take the place of the records that it stands for.

        Raises:
            StoreFailed: If the journal could not be written.
        """
        self._store.replace_checkpoint(checkpoint)
        self.kept(checkpoint)

    def kept(self, checkpoint: Checkpoint) -> None:
        """Take note that a checkpoint took the place of its records, and its rows are stored."""
        stored = self._opened(checkpoint.stream).kept(checkpoint)
        self.state = self._parts.stored(self.state, checkpoint.stream, stored)

    def quiet(self) -> Iterable[str]:
        """Yield the streams that need not be in memory."""
        return self._parts.quiet(self.state)

    def wake(self, name: str) -> None:
        """Take a stream into memory, if it is not there."""
        if self._parts.is_asleep(self.state, name):
            self.state = self._parts.with_value(self.state, name, self._opened(name).state)

    def put_to_sleep(self, name: str) -> bool:
        """Let a quiet stream go from memory, if its checkpoint says all of it; say whether."""
        stream = self._streams.get(name)
        label = self._parts.label(self.state, name)
        if stream is None or not label or not stream.is_said_by_checkpoint(label):
            return False
        del self._streams[name]
        self.state = self._parts.asleep(self.state, name, label)
        return True


def _entries_of(decision: Decision[Any]) -> list[Entry]:
    """Return what a decision remembers as the journal takes it."""
    return [
        Entry(entry.stream, encode_record(entry.record, entry.at))
        for entry in decision.entries
        if entry.is_kept
    ]
