"""One decision while it is made: the state so far, what to remember, and then what to do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from cromford.changed import changed
from cromford.effects import (
    Broadcast,
    ClearDeadline,
    Effect,
    PublishBumped,
    RecallCommitment,
    Send,
    SetDeadline,
)
from cromford.protocol.facts import Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.channel_records import CHANNEL_RECORDS
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.record import Record
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.journal.streams import CLIENT
from cromford.wallet.coins import Wallet
from cromford.wire.messages import Message


class HasChain(Protocol):
    """A state that knows of the chain."""

    @property
    def chain(self) -> KnownChain:
        """What it knows of the chain."""


class HasBook(HasChain, Protocol):
    """A state with channels: a client's, and a factory's."""

    @property
    def book(self) -> Book:
        """Its channels and payments."""


class HasWallet(HasChain, Protocol):
    """A state with coins: a client's, and a house's."""

    @property
    def wallet(self) -> Wallet:
        """Its coins."""


_ADDRESSED: Final = (Broadcast, PublishBumped, RecallCommitment, SetDeadline, ClearDeadline)
S = TypeVar("S")
R = TypeVar("R", bound=Record)
S_co = TypeVar("S_co", covariant=True)


class Remembered(NamedTuple):
    """A record and its stream. What is true of one run only is folded, and not journalled.

    `at` is when it is remembered, in unix seconds; 0 if nobody says.
    """

    stream: str
    record: AnyRecord
    is_kept: bool = True
    at: int = 0


class Asked(NamedTuple):
    """An effect, and the stream that asks for it."""

    stream: str
    effect: Effect


class StreamBug(NamedTuple):
    """A bug that was met in one stream, while the others went on."""

    stream: str
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[S]):
    """What a role answers to an event. Records are durable before an effect is performed.

    Attributes:
        state: The state after the records.
        entries: Those to keep are appended, all or none.
        asked: Effects to perform then, in this order.
        faults: Bugs for which streams were stopped; nothing of them is remembered.
    """

    state: S
    entries: tuple[Remembered, ...] = ()
    asked: tuple[Asked, ...] = ()
    faults: tuple[StreamBug, ...] = ()

    @property
    def effects(self) -> tuple[Effect, ...]:
        """The effects alone, of all streams, in order."""
        return tuple(asked.effect for asked in self.asked)

    @property
    def records(self) -> tuple[AnyRecord, ...]:
        """The records alone, of all streams, in order."""
        return tuple(entry.record for entry in self.entries)

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is remembered and nothing done."""
        return not self.entries and not self.asked


@dataclass(slots=True)
class Log:
    """What one decision remembers and asks for, of all its turns, in the order of time."""

    entries: list[Remembered] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)


class Mark(NamedTuple):
    """A point within a turn."""

    state: Any
    n_entries: int
    n_asked: int
    n_records: int
    touched: dict[bytes, None]


class Turn(Generic[S_co]):
    """Collects one decision about one stream; lives as long as the decision.

    Whatever is remembered counts at once, and is folded this one time: the driver takes the state
    a turn ended with.

    Args:
        state: As it is before the decision.
        apply: Returns the state after a record, given when it is remembered.
        facts: What is true now.
        stream: Whose decision it is.
        log: Of the decision, where several streams take part in it.
    """

    def __init__(
        self,
        state: S_co,
        apply: Callable[[S_co, AnyRecord, int], S_co],
        facts: Facts,
        *,
        stream: str = CLIENT,
        log: Log | None = None,
    ) -> None:
        self.facts = facts
        self.stream = stream
        self._state = state
        self._apply = apply
        self._log = log or Log()
        self._records: list[AnyRecord] = []
        self._touched: dict[bytes, None] = {}

    @property
    def state(self) -> S_co:
        """The state after all that was remembered so far."""
        return self._state

    @property
    def book(self: "Turn[HasBook]") -> Book:
        """The channels and payments after all that was remembered so far."""
        return self._state.book

    @property
    def chain(self: "Turn[HasChain]") -> KnownChain:
        """What is known of the chain."""
        return self._state.chain

    @property
    def height(self: "Turn[HasChain]") -> int:
        """The height of the chain's tip."""
        return self._state.chain.height

    @property
    def known_height(self: "Turn[HasChain]") -> int:
        """The height of the newest block that is known to exist, read or not.

        Where being late is the dangerous side, time is told by it: an expiry passes whether or not
        we have read the block.
        """
        return max(self.height, self.facts.header_height)

    def check_fresh(self) -> None:
        """Check that an operator's request may take new risk.

        Raises:
            Rejected: If the chain is stale; says why and since when.
        """
        if self.facts.stale is not None:
            reason = f"the chain is stale: {self.facts.stale}"
            raise Rejected("chain_stale", reason, retryable=True)

    def check_risk(self) -> None:
        """Check that an operator's request may take a risk that a channel's record has to cover.

        Raises:
            Rejected: If the chain is stale, or the mark's place does not answer; says why.
        """
        self.check_fresh()
        if self.facts.unmarkable is not None:
            reason = f"no channel is updated: {self.facts.unmarkable}"
            raise Rejected("mark_unreachable", reason, retryable=True)

    def remember(self, *records: AnyRecord) -> None:
        """Add records; the state is the one after them from here on."""
        for record in records:
            self._fold(record, is_kept=True)

    def note(self, *records: AnyRecord) -> None:
        """Fold what is true of this run only, and is not journalled."""
        for record in records:
            self._fold(record, is_kept=False)

    def amend(self, state: S_co) -> None:  # type: ignore[misc]  # a turn is as invariant as it gets
        """Go on from another state that says the same: what was let go needs no record."""
        self._state = state

    def mark(self) -> "Mark":
        """Return where the decision stands, to come back to."""
        return Mark(
            self._state,
            len(self._log.entries),
            len(self._log.asked),
            len(self._records),
            dict(self._touched),
        )

    def rewind(self, mark: "Mark") -> None:
        """Undo all that was remembered and asked since a mark; meanwhile no other turn did so."""
        self._state = mark.state
        del self._log.entries[mark.n_entries :]
        del self._log.asked[mark.n_asked :]
        del self._records[mark.n_records :]
        self._touched = mark.touched

    def _fold(self, record: AnyRecord, *, is_kept: bool) -> None:
        at = self.facts.unix_time
        self._state = self._apply(self._state, record, at)
        self._log.entries.append(Remembered(self.stream, record, is_kept, at))
        self._records.append(record)
        if CHANNEL_RECORDS.have(record):
            self._touched[record.channel_id] = None

    def ask(self, *effects: Effect) -> None:
        """Add effects; what names its stream, so that its answer finds back, is given it here."""
        for effect in effects:
            if isinstance(effect, _ADDRESSED):
                effect = changed(effect, stream=self.stream)  # noqa: PLW2901 - the same, addressed
            self._log.asked.append(Asked(self.stream, effect))

    @property
    def asked(self) -> Sequence[Asked]:
        """All that is asked for so far, by every stream that takes part."""
        return self._log.asked

    def send(self, node_id: bytes, message: Message) -> None:
        """Ask for a message to a peer."""
        self.ask(Send(node_id=node_id, message=message))

    def link(self: "Turn[HasBook]", channel_id: bytes) -> Link:
        """Return a channel as it is now."""
        return self.book.links[channel_id]

    @property
    def touched(self) -> tuple[bytes, ...]:
        """The channels that have a record in this turn, in the order of their first."""
        return tuple(self._touched)

    def first(self, kind: type[R]) -> R | None:
        """Return the first record of a kind in this turn, if there is one."""
        for record in self._records:
            if type(record) is kind:
                return record
        return None

    @property
    def decision(self) -> Decision[S_co]:
        """What was collected."""
        return Decision(
            state=self._state,
            entries=tuple(self._log.entries),
            asked=tuple(self._log.asked),
        )


# For what a client does alike with a factory, or with a house.
AnyTurn = Turn[HasBook]
WalletTurn = Turn[HasWallet]
ChainTurn = Turn[HasChain]
