"""One decision of an LSP: a turn for each stream that takes part in it, and the mail between them.

All of it is one append. Mail that cannot be taken now, because a bug was met in its receiver, stays
in the sender's outbox: the receiver is stopped, and the others go on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cromford.bitcoin.tx import OutPoint
from cromford.changed import changed
from cromford.effects import LookUpSpenders
from cromford.protocol.channels.coins import n_needing_coins
from cromford.protocol.channels.forwarding import (
    kept_msat,
    most_kept_msat,
    room_msat,
    waiting_msat,
)
from cromford.protocol.channels.lsp import obstacle
from cromford.protocol.facts import Facts, Lacking
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.book import AWAY, Book
from cromford.protocol.journal.factory import Factory, apply_to_factory, new_factory
from cromford.protocol.journal.house import House
from cromford.protocol.journal.house_fold import apply_to_house
from cromford.protocol.journal.lsp_state import LspState, tip_of
from cromford.protocol.journal.mail import ForwardAsked, Post, Posted
from cromford.protocol.journal.records import AnyRecord
from cromford.protocol.journal.restless import Restless
from cromford.protocol.journal.scan import Scan, apply_to_scan
from cromford.protocol.journal.streams import CHAIN, HOUSE, factory_number, factory_stream
from cromford.protocol.lobby.choosing import lasting_entries
from cromford.protocol.policy import SalePrice
from cromford.protocol.turn import Decision, Log, StreamBug, Turn

Taker = Callable[["Round", Posted], None]


class Round:
    """Collects one decision; lives as long as the decision.

    Args:
        state: All streams, as they are before it.
        facts: What is true now.
        take: Lets a letter's receiver take it.
        delivers: Whether mail is taken in this decision, or stays in the outboxes.
    """

    def __init__(
        self, state: LspState, facts: Facts, take: Taker, *, delivers: bool = True
    ) -> None:
        self._state = state
        self._facts = changed(facts, directory=_Desk(self))
        self._take = take
        self._delivers = delivers
        self._log = Log()
        self._turns: dict[str, Turn[Any]] = {}
        self._began: dict[str, object] = {}  # with what, unless it has to be taken into memory
        self._stopped = state.stopped
        self._restless = state.restless
        self._at_rest: dict[int, int] = {}  # until which height, by number
        self._faults: list[StreamBug] = []

    @property
    def facts(self) -> Facts:
        """What is true now."""
        return self._facts

    @property
    def before(self) -> LspState:
        """All streams as they were before this decision."""
        return self._state

    @property
    def house(self) -> Turn[House]:
        """The house's turn."""
        return self._turn(HOUSE)

    @property
    def scan(self) -> Turn[Scan]:
        """The turn of the chain's stream."""
        return self._turn(CHAIN)

    def factory(self, number: int) -> Turn[Factory]:
        """Return a factory's turn."""
        return self._turn(factory_stream(number))

    def factories(self) -> list[Turn[Factory]]:
        """Return the turns of all factories that go on, oldest first."""
        numbers = {*self._state.factories}
        numbers |= {n for stream in self._turns if (n := factory_number(stream)) is not None}
        streams = [factory_stream(number) for number in sorted(numbers)]
        return [self._turn(stream) for stream in streams if self.goes_on(stream)]

    def asked_at(self, height: int) -> list[Turn[Factory]]:
        """Return the turns of the factories that a block asks and that go on, oldest first.

        Of those in memory the others are at rest.
        """
        self._restless = self._restless.at(height)
        streams = [factory_stream(number) for number in self.busy()]
        return [self._turn(stream) for stream in streams if self.goes_on(stream)]

    def let_rest(self, number: int, until_height: int) -> None:
        """Let no block ask a factory before a height, unless something happens in it."""
        self._at_rest[number] = until_height

    def opened(self) -> list[Turn[Any]]:
        """Return the turns that take part so far, in the order in which they were opened."""
        return list(self._turns.values())

    def goes_on(self, stream: str) -> bool:
        """Say whether a stream was not stopped by a bug."""
        return stream not in self._stopped

    def house_now(self) -> House:
        """Return the house after all that was remembered so far."""
        turn = self._turns.get(HOUSE)
        return self._state.house if turn is None else turn.state

    def book_now(self, number: int) -> Book:
        """Return a factory's channels after all that was remembered so far; it needs no turn."""
        return self.factory_now(number).book

    def factory_now(self, number: int) -> Factory:
        """Return a factory after all that was remembered so far; it needs no turn."""
        turn = self._turns.get(factory_stream(number))
        factory: Factory = self._state.factories[number] if turn is None else turn.state
        return factory

    def busy(self) -> list[int]:
        """Return the factories in memory that are not at rest: every HTLC under way is in one."""
        numbers = {n for n in self._restless.asked if n in self._state.factories}
        numbers |= {n for stream in self._turns if (n := factory_number(stream)) is not None}
        return sorted(numbers)

    def deliver(self) -> None:
        """Let every letter be taken that can be, and those that are written meanwhile."""
        while self._delivers and (delivery := self._next()) is not None:
            self.hand_over(delivery)

    def taken_lookups(self) -> list[LookUpSpenders]:
        """Take back what factories asked about the mempool, for the house to ask all of it at once.

        By itself each would be answered alone, and nothing could be taken together.
        """
        asked = self._log.asked
        lookups = [one.effect for one in asked if isinstance(one.effect, LookUpSpenders)]
        asked[:] = [one for one in asked if not isinstance(one.effect, LookUpSpenders)]
        return lookups

    def try_in(self, turn: Turn[Any], step: Callable[[], None]) -> bool:
        """Take a step in one stream, and say whether it could be taken.

        A bug in a factory stops that factory: what the step remembered is undone, and the others go
        on. Without its house or its chain an LSP cannot go on.

        Args:
            turn: The stream's. One that has stopped takes no step.
            step: Remembers and asks in this turn alone.
        """
        if turn.stream in {HOUSE, CHAIN}:
            step()
            return True
        if not self.goes_on(turn.stream):
            return False
        mark = turn.mark()
        try:
            step()
        except Rejected:
            raise
        except Exception as error:  # noqa: BLE001 - one stream's bug is not the others'
            turn.rewind(mark)
            self._stop(turn.stream, error)
            return False
        return True

    def take_up(self, stream: str) -> Turn[Factory] | None:
        """Let a stream go on that was stopped, and return its turn."""
        number = factory_number(stream)
        self._stopped = self._stopped.delete(stream)
        return None if number is None else self.factory(number)

    @property
    def stopped(self) -> tuple[str, ...]:
        """The streams that a bug has stopped."""
        return tuple(sorted(self._stopped))

    @property
    def decision(self) -> Decision[LspState]:
        """What was collected."""
        state = self._state
        if self._stopped is not state.stopped:
            state = changed(state, stopped=self._stopped)
        for stream, turn in self._turns.items():
            if turn.state is self._began.get(stream):
                continue
            if stream == HOUSE:
                state = changed(state, house=turn.state)
            elif stream == CHAIN:
                state = changed(state, scan=turn.state)
            elif turn.state.begun is not None:
                state = state.with_factory(turn.state)
        return Decision(
            state=changed(state, restless=self._restless_after(state)),
            entries=tuple(self._log.entries),
            asked=tuple(self._log.asked),
            faults=tuple(self._faults),
        )

    def _restless_after(self, state: LspState) -> Restless:
        """Return whom the next block asks: whoever took part, but for those that may rest."""
        restless = self._restless
        for stream in self._turns:
            number = factory_number(stream)
            if number is not None and number in state.factories:
                restless = restless.with_one(number)
        for number, until_height in self._at_rest.items():
            if number in state.factories:
                restless = restless.with_rest(number, until_height)
        return restless

    def _turn(self, stream: str) -> Turn[Any]:
        return self._turns.get(stream) or self._new_turn(stream)

    def _new_turn(self, stream: str) -> Turn[Any]:
        number = factory_number(stream)
        if number is None:
            state, apply = self._of_house(stream)
        else:
            factory, apply = self._loaded(number), apply_to_factory
            scan = self._turns.get(CHAIN)
            state = factory if scan is None else factory.at(tip_of(factory, scan.state))
        turn: Turn[Any] = Turn(state, apply, self._facts, stream=stream, log=self._log)
        if number is None or number not in self._state.asleep:
            self._began[stream] = state
        self._turns[stream] = turn
        return turn

    def _loaded(self, number: int) -> Factory:
        """Return a factory; one that cannot be read is stopped, and as if it had not begun."""
        try:
            return self._state.factory(number)
        except Exception as error:  # noqa: BLE001 - what is damaged of one stream is not the others'
            self._stop(factory_stream(number), error)
            return new_factory(self._state.config, number)

    def _stop(self, stream: str, error: Exception) -> None:
        self._stopped = self._stopped.set(stream, type(error).__name__)
        self._faults.append(StreamBug(stream, error))

    def _of_house(self, stream: str) -> tuple[Any, Callable[[Any, AnyRecord, int], Any]]:
        if stream == HOUSE:
            return self._state.house, apply_to_house
        if stream == CHAIN:
            return self._state.scan, apply_to_scan
        raise AssertionError(f"{stream} is no stream of an LSP")

    def _next(self) -> Posted | None:
        for stream, turn in self._turns.items():
            post: Post = turn.state.post
            for delivery in post.pending(stream) if post.outbox else ():
                if self.goes_on(delivery.receiver):
                    return delivery
        return None

    def arrive(self, delivery: Posted) -> None:
        """Let a letter be taken that was on its way, as its sender has it now."""
        number, post = delivery.number, self._turn(delivery.sender).state.post
        known = {one.number: one for one in post.pending_for(delivery.sender, delivery.receiver)}
        self.hand_over(known.get(number, delivery))

    def hand_over(self, delivery: Posted) -> None:
        """Let a letter be taken; one that is not the next of its sender means nothing now."""
        receiver = self._turn(delivery.receiver)
        if not self.goes_on(delivery.receiver):
            return  # What cannot be read does not say which letter is its next.
        is_next = receiver.state.post.is_next(delivery.sender, delivery.number)
        if is_next and not self.try_in(receiver, lambda: self._take(self, delivery)):
            return
        sender = self._turn(delivery.sender)
        taken = receiver.state.post.taken.get(delivery.sender, 0)
        post = sender.state.post.settled(delivery.receiver, taken=taken)
        sender.amend(changed(sender.state, post=post))


class _Desk:
    """The house's directory, as it is at this moment of a decision."""

    def __init__(self, round_: Round) -> None:
        self._round = round_

    def is_connected(self, node_id: bytes) -> bool:
        return self._round.house_now().is_connected(node_id)

    def is_vanished(self, node_id: bytes) -> bool:
        return self._round.house_now().is_vanished(node_id)

    def streams_of(self, node_id: bytes) -> tuple[str, ...]:
        return self._round.house_now().streams_of(node_id)

    def lasting_streams_of(self, node_id: bytes) -> tuple[str, ...]:
        return tuple(one.stream for one in lasting_entries(self._round.house_now(), node_id))

    def hold_seconds(self, node_id: bytes, payment_hash: bytes) -> int:
        return self._round.house_now().expected.hold_seconds(node_id, payment_hash)

    def has_coins(self, outpoints: Sequence[OutPoint]) -> bool:
        return self._round.house_now().has_coins(outpoints)

    def lacking(self) -> Mapping[OutPoint, Lacking]:
        return {
            outpoint: Lacking(wanted.needed_sat, wanted.feerate_sat_per_kw)
            for outpoint, wanted in self._round.house_now().coins_wanted.items()
        }

    def is_lent_to(self, outpoint: OutPoint) -> bool:
        return outpoint in self._round.house_now().purses

    def n_free_coins(self, least_sat: int) -> int:
        return self._round.house_now().n_free_coins(least_sat)

    def n_needing_coins(self, *, besides: str) -> int | None:
        others = [number for number in self._round.busy() if factory_stream(number) != besides]
        if not others and len(self._round.before.factories) <= 1:
            return None
        return sum(n_needing_coins(self._round.book_now(number)) for number in others)

    def sale_price(self) -> SalePrice:
        return self._round.house_now().sale_price()

    def waiting_msat(self, node_id: bytes, payment_hash: bytes) -> int:
        amounts = (
            waiting_msat(self._round.book_now(number), node_id, payment_hash)
            for number in sorted(self._round.before.holding)
        )
        return max(amounts, default=0)

    def kept_msat(self, node_id: bytes, payment_hash: bytes, *, besides: str) -> int | None:
        whole_msat = 0
        for factory in self._in_memory_of(node_id):
            kept = 0 if factory.stream == besides else kept_msat(factory, node_id, payment_hash)
            if kept is None:
                return None
            whole_msat += kept
        return whole_msat

    def room_msat(self, node_id: bytes) -> int:
        factories = tuple(self._in_memory_of(node_id))
        going_on = (one for one in factories if self._round.goes_on(one.stream))
        room = max((room_msat(factory, node_id) for factory in going_on), default=0)
        kept = sum(most_kept_msat(factory, node_id) for factory in factories)
        return room + kept if room else 0

    def _in_memory_of(self, node_id: bytes) -> Iterator[Factory]:
        """Yield the factories in which a client has a channel: of those asleep nobody is here.

        Those that a bug has stopped, too: what was bought in them is owed all the same.
        """
        round_ = self._round
        for stream in self.streams_of(node_id):
            number = factory_number(stream)
            if number is not None and number in round_.before.factories:
                yield round_.factory_now(number)

    def obstacle(
        self,
        stream: str,
        *,
        channel_id: bytes,
        payment_hash: bytes,
        cltv_expiry: int,
        delivery: bytes,
    ) -> str | None:
        number = factory_number(stream)
        if number is None or not self._round.goes_on(stream):
            return "the payee's factory was stopped"
        if number in self._round.before.asleep:
            return AWAY  # While one of its clients is here, a factory is awake.
        asked = ForwardAsked(
            channel_id=channel_id,
            htlc_id=0,
            payment_hash=payment_hash,
            cltv_expiry=cltv_expiry,
            delivery=delivery,
        )
        try:
            return obstacle(self._round.factory(number), asked)
        except Exception:  # noqa: BLE001 - it is the payee's: whoever asks is not stopped by it
            return "the payee's factory met a bug"
