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
from typing import Final, Generic, TypeVar

from cromford.bitcoin.tx import Tx
from cromford.daemon.streams import Stream
from cromford.effects import (
    Broadcast,
    Disconnect,
    Effect,
    LookUpCoins,
    Performed,
    RecallCommitment,
    Send,
)
from cromford.ports import Archived, Entry, Store
from cromford.protocol.events import CommitmentRecalled, DaemonStarted, Event
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.journal.revoked import decode_content, revoked_key
from cromford.protocol.journal.snapshot import Snapshots
from cromford.protocol.turn import Decision

S = TypeVar("S")


class Undecided(Exception):
    """A bug was met while deciding, and nothing was remembered since the event came.

    The journal and the state are as before, so whoever caused the event may go and the rest go on.
    What was met is its cause.
    """


def _nothing(_state: object, _records: Sequence[AnyRecord]) -> Iterable[tuple[bytes, bytes]]:
    """Return what a role without channels archives."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Role(Generic[S]):
    """A role: its name, the stream of its records, and its pure functions.

    `archived` returns, by key, what is kept of records for ever: from the state before them.
    `snapshots` returns what writes and reads the states that began with one.
    """

    name: str
    stream: str
    decide: Callable[[S, Event, Facts], Decision[S]]
    apply: Callable[[S, AnyRecord], S]
    relevant: Callable[[S, Sequence[Tx]], tuple[Tx, ...]]
    archived: Callable[[S, Sequence[AnyRecord]], Iterable[tuple[bytes, bytes]]] = _nothing
    snapshots: Callable[[S], Snapshots[S]] | None = None


# What leaves the process, or reads what the journal holds. Everything else is ours alone.
_OUTWARD: Final = (Send, Disconnect, Broadcast, LookUpCoins, RecallCommitment)
Commit = Callable[[Sequence[Entry], Sequence[Archived], Callable[[], None]], None]


class Driver(Generic[S]):
    """Drives one role over one journal.

    Attributes:
        commit: Makes records durable in its own time, in order, and then calls what is given to it;
            None to append them at once, and wait.
        caused: Takes the events that an effect causes which had to wait.
        bound: Returns what performs an effect later, if it is still to be performed then.

    Args:
        role: The pure functions.
        state: The state before the first record.
        store: The journal.
        perform: Performs one effect and returns the events it causes at once.
        observe: Told of each record once it is durable; of none that is replayed.
    """

    def __init__(
        self,
        role: Role[S],
        state: S,
        store: Store,
        perform: Callable[[Performed], Iterable[Event]],
        observe: Callable[[AnyRecord], None] = lambda _record: None,
    ) -> None:
        self._role = role
        self._store = store
        self._perform = perform
        self._observe = observe
        self.commit: Commit | None = None
        self.caused: Callable[[Event], None] = self.handle
        self.bound: Callable[[Performed], Callable[[], Iterable[Event]]] = self._unbound
        self.facts = FRESH
        self.stream = Stream(
            store,
            role.stream,
            beginning=state,
            apply=role.apply,
            snapshots=None if role.snapshots is None else role.snapshots(state),
        )

    @property
    def state(self) -> S:
        """The role's state now."""
        return self.stream.state

    def start(self, *, unix_time: int = 0) -> None:
        """Tell the role that it starts: what was lost is voided, what is owed is done.

        Args:
            unix_time: Seconds since 1970, UTC; what expired meanwhile is known by it.
        """
        self.handle(DaemonStarted(unix_time=unix_time))

    def foresee(self, event: Event) -> Decision[S]:
        """Return what the role would decide. Nothing is remembered and nothing done.

        Raises:
            Rejected: If the operator asked for something impossible.
        """
        return self._role.decide(self.state, event, self.facts)

    def handle(self, event: Event) -> None:
        """Handle one event and all that it causes at once.

        Raises:
            Rejected: If the operator asked for something impossible; nothing is changed.
            Undecided: If deciding failed before anything was remembered; nothing is changed.
            StoreFailed: If the journal cannot be written. Nothing of the decision was done.
            Exception: Whatever else fails, once something was remembered or is being done. What
                that leaves half done only a restart finishes: the caller must stop.
        """
        pending = deque((event,))
        has_remembered = False
        while pending:
            try:
                # Folded already: a record that cannot be applied never becomes durable.
                decision = self._role.decide(self.state, pending.popleft(), self.facts)
                archived = [*self._role.archived(self.state, decision.records)]
            except Rejected:
                raise
            except Exception as error:
                if has_remembered:
                    raise
                raise Undecided(type(error).__name__) from error
            has_remembered = has_remembered or bool(decision.records)
            if self.commit is None:
                self._remember(decision, archived)
                for effect in decision.effects:
                    pending.extend(self._performed(effect))
            else:
                self._go_on(self.commit, decision, archived)
                for effect in decision.effects:
                    if not isinstance(effect, _OUTWARD):
                        pending.extend(self._perform(effect))

    def _performed(self, effect: Effect) -> Iterable[Event]:
        return (
            self.recall(effect) if isinstance(effect, RecallCommitment) else self._perform(effect)
        )

    def _go_on(
        self, commit: Commit, decision: Decision[S], archived: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """Go on from a decision, and let what leaves us follow once its records are durable."""
        outward = [
            partial(self.recall, effect)
            if isinstance(effect, RecallCommitment)
            else self.bound(effect)
            for effect in decision.effects
            if isinstance(effect, _OUTWARD)
        ]

        def follow() -> None:
            for record in decision.records:
                self._observe(record)
            for perform in outward:
                for event in perform():
                    self.caused(event)

        entries = self.stream.entries_of(decision.records)
        kept = [Archived(self.stream.name, key, value) for key, value in archived]
        self.stream.advance(decision.state, entries)
        if entries or outward:
            commit(entries, kept, follow)

    def _unbound(self, effect: Performed) -> Callable[[], Iterable[Event]]:
        return partial(self._perform, effect)

    def recall(self, asked: RecallCommitment) -> Iterable[Event]:
        """Look up what a commitment said that its peer revoked."""
        key = revoked_key(asked.channel_id, asked.number)
        value = self._store.archived(self.stream.name, key)
        if value is None:
            return ()
        content = decode_content(value, asked.number)
        return (CommitmentRecalled(asked=asked, content=content),)

    def relevant(self, txs: Sequence[Tx]) -> tuple[Tx, ...]:
        """Return the transactions of a block that matter to the role."""
        return self._role.relevant(self.state, txs)

    def _remember(self, decision: Decision[S], archived: Sequence[tuple[bytes, bytes]]) -> None:
        entries = self.stream.entries_of(decision.records)
        if entries:
            kept = [Archived(self.stream.name, key, value) for key, value in archived]
            self._store.append(entries, kept)
        self.stream.advance(decision.state, entries)
        for record in decision.records:
            self._observe(record)
