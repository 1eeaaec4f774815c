"""One decision while it is made: the state so far, what to remember, and then what to do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cromford.effects import Effect, Send
from cromford.protocol.facts import Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.book import Book
from cromford.protocol.journal.channel_records import ChannelRecord
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.record import Record
from cromford.protocol.journal.records import AnyRecord
from cromford.wallet.coins import Wallet
from cromford.wire.messages import Message


class RoleState(Protocol):
    """What the states of both roles have."""

    @property
    def book(self) -> Book:
        """Its channels and payments."""

    @property
    def chain(self) -> KnownChain:
        """What it knows of the chain."""

    @property
    def wallet(self) -> Wallet:
        """Its coins."""


S = TypeVar("S")
R = TypeVar("R", bound=Record)
RoleS_co = TypeVar("RoleS_co", bound=RoleState, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[S]):
    """What a role answers to an event. Records are durable before an effect is performed.

    Attributes:
        state: The state after the records.
        records: To append, all or none.
        effects: To perform then, in this order.
    """

    state: S
    records: tuple[AnyRecord, ...] = ()
    effects: tuple[Effect, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is remembered and nothing done."""
        return not self.records and not self.effects


class Turn(Generic[RoleS_co]):
    """Collects one decision of a role; lives as long as the decision.

    Whatever is remembered counts at once, and is folded this one time: the driver takes the state
    a turn ended with.

    Args:
        state: As it is before the decision.
        apply: Returns the role's state after a record.
        facts: What is true now.
    """

    def __init__(
        self, state: RoleS_co, apply: Callable[[RoleS_co, AnyRecord], RoleS_co], facts: Facts
    ) -> None:
        self.facts = facts
        self._state = state
        self._apply = apply
        self._records: list[AnyRecord] = []
        self._effects: list[Effect] = []
        self._touched: dict[bytes, None] = {}

    @property
    def state(self) -> RoleS_co:
        """The state after all that was remembered so far."""
        return self._state

    @property
    def book(self) -> Book:
        """The channels and payments after all that was remembered so far."""
        return self._state.book

    @property
    def chain(self) -> KnownChain:
        """What is known of the chain."""
        return self._state.chain

    @property
    def height(self) -> int:
        """The height of the chain's tip."""
        return self._state.chain.height

    @property
    def known_height(self) -> int:
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

    def remember(self, *records: AnyRecord) -> None:
        """Add records; the state is the one after them from here on."""
        for record in records:
            self._state = self._apply(self._state, record)
            self._records.append(record)
            if isinstance(record, ChannelRecord):
                self._touched[record.channel_id] = None

    def ask(self, *effects: Effect) -> None:
        """Add effects."""
        self._effects.extend(effects)

    def send(self, node_id: bytes, message: Message) -> None:
        """Ask for a message to a peer."""
        self.ask(Send(node_id=node_id, message=message))

    def link(self, channel_id: bytes) -> Link:
        """Return a channel as it is now."""
        return self.book.links[channel_id]

    @property
    def touched(self) -> tuple[bytes, ...]:
        """The channels that have a record in this turn, in the order of their first."""
        return tuple(self._touched)

    def first(self, kind: type[R]) -> R | None:
        """Return the first record of a kind in this turn, if there is one."""
        return next((record for record in self._records if isinstance(record, kind)), None)

    @property
    def decision(self) -> Decision[RoleS_co]:
        """What was collected."""
        return Decision(
            state=self._state, records=tuple(self._records), effects=tuple(self._effects)
        )


AnyTurn = Turn[RoleState]  # For what both roles do alike.
