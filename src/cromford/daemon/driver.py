"""The only place where I/O and state meet, and its one rule.

A decision has folded its own records: append them durably, go on from the state it ended with, then
perform its effects. Nothing is done before it is remembered. The driver is the same in a daemon and
in the simulation; only the ports differ.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cromford.bitcoin.tx import Tx
from cromford.channel.content import CommitmentContent
from cromford.effects import Performed, RecallCommitment
from cromford.ports import Entry, Store
from cromford.protocol.events import CommitmentRecalled, DaemonStarted, Event
from cromford.protocol.facts import FRESH, Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.records import AnyRecord, decode_record, encode_record
from cromford.protocol.turn import Decision

S = TypeVar("S")


class Undecided(Exception):
    """A bug was met while deciding, and nothing was remembered since the event came.

    The journal and the state are as before, so whoever caused the event may go and the rest go on.
    What was met is its cause.
    """


def _no_content(_state: object, _channel_id: bytes, _number: int) -> None:
    """A role without channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role(Generic[S]):
    """A role: its name, the stream of its records, and its pure functions.

    `content_at` returns what a channel's peer commitment of a number says, where it is the latest
    in a state.
    """

    name: str
    stream: str
    decide: Callable[[S, Event, Facts], Decision[S]]
    apply: Callable[[S, AnyRecord], S]
    relevant: Callable[[S, Sequence[Tx]], tuple[Tx, ...]]
    content_at: Callable[[S, bytes, int], CommitmentContent | None] = _no_content


class Driver(Generic[S]):
    """Drives one role over one journal.

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
        self._beginning = state
        self._store = store
        self._perform = perform
        self._observe = observe
        self.state = state
        self.facts = FRESH
        for data in store.replay(role.stream):
            record = decode_record(data)
            self.state = role.apply(self.state, record)

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
            except Rejected:
                raise
            except Exception as error:
                if has_remembered:
                    raise
                raise Undecided(type(error).__name__) from error
            self._remember(decision)
            has_remembered = has_remembered or bool(decision.records)
            for effect in decision.effects:
                if isinstance(effect, RecallCommitment):
                    pending.extend(self._recall(effect))
                else:
                    pending.extend(self._perform(effect))

    def _recall(self, effect: RecallCommitment) -> Iterable[Event]:
        """Fold the journal again up to where the commitment was the peer's latest."""
        state = self._beginning
        for data in self._store.replay(self._role.stream):
            state = self._role.apply(state, decode_record(data))
            content = self._role.content_at(state, effect.channel_id, effect.number)
            if content is not None:
                return (CommitmentRecalled(asked=effect, content=content),)
        return ()

    def relevant(self, txs: Sequence[Tx]) -> tuple[Tx, ...]:
        """Return the transactions of a block that matter to the role."""
        return self._role.relevant(self.state, txs)

    def _remember(self, decision: Decision[S]) -> None:
        if decision.records:
            stream = self._role.stream
            self._store.append(
                [Entry(stream, encode_record(record)) for record in decision.records]
            )
        self.state = decision.state
        for record in decision.records:
            self._observe(record)
