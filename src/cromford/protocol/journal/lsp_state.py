"""All that an LSP knows: its house, its scan of the chain, and its factories.

Each is the fold of a stream of its own. Decisions are made about one of them at a time; only where
mail is delivered, and where people look, are they seen together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, Final

from immutables import Map

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.changed import changed
from cromford.protocol.journal import records as r
from cromford.protocol.journal.book import Book, Forward, HtlcKey
from cromford.protocol.journal.book_fold import FORWARDS_KEPT_MAX
from cromford.protocol.journal.entries import FactoryEntry
from cromford.protocol.journal.factory import Factory, apply_to_factory, new_factory
from cromford.protocol.journal.house import House, new_house
from cromford.protocol.journal.house_fold import apply_to_house
from cromford.protocol.journal.intents import IntentKey
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.lsp_attempt import LspAttempt
from cromford.protocol.journal.lsp_config import LspConfig
from cromford.protocol.journal.mail import Post, Posted
from cromford.protocol.journal.restless import Restless, all_restless
from cromford.protocol.journal.scan import Scan, apply_to_scan
from cromford.protocol.journal.sleep import Asleep, Due, Finder, Resting, never, nobody
from cromford.protocol.journal.streams import CHAIN, HOUSE, factory_number
from cromford.wallet.coins import Wallet

__all__ = ["LspConfig", "LspState", "apply", "new_lsp"]


Loader = Callable[[int], Factory]


def _no_loader(number: int) -> Factory:
    raise AssertionError(f"there is nothing to load factory {number} from")


@dataclass(frozen=True, kw_only=True)
class LspState:
    """The values of all streams.

    Attributes:
        house: The house.
        scan: The chain's stream.
        factories: Those in memory, by number.
        load: Returns a factory that is not in memory: what the journal says, and so no other
            value at another time.
        find: Returns what is known of one that sleeps, without loading it; as unchanging.
        due: Returns those that sleep and wake at a height, or should have.
        resting: What those that sleep come to together.
        outlasting: Those that sleep beyond their expiry, with its height.
        stopped: Streams in which a bug was met, and what it was: nothing more is decided about
            them until the next block.
        channels: In which factory each channel is.
        holding: The factories in which HTLCs wait for their payees.
        restless: Those in memory that a block asks.
    """

    house: House
    scan: Scan = field(default_factory=Scan)
    factories: Map[int, Factory] = field(default_factory=Map)
    load: Loader = field(default=_no_loader, compare=False)
    find: Finder = field(default=nobody, compare=False)
    due: Due = field(default=never, compare=False)
    resting: Resting = field(default_factory=Resting)
    outlasting: Map[int, int] = field(default_factory=Map, compare=False)
    stopped: Map[str, str] = field(default_factory=Map)
    channels: Map[bytes, int] = field(default_factory=Map, compare=False)
    holding: frozenset[int] = field(default=frozenset(), compare=False)
    restless: Restless = field(default_factory=Restless, compare=False)

    @property
    def config(self) -> LspConfig:
        """What does not change while the LSP runs."""
        return self.house.config

    @property
    def wallet(self) -> Wallet:
        """The house's coins."""
        return self.house.wallet

    @property
    def durable(self) -> "LspState":
        """What a restart finds, without mail that its receiver took already."""
        return settled(
            LspState(
                house=self.house.durable,
                scan=self.scan,
                factories=Map({n: factory.durable for n, factory in self.factories.items()}),
                load=self.load,
                find=self.find,
                due=self.due,
                resting=self.resting,
                outlasting=self.outlasting,
                restless=all_restless(self.factories),
            )
        )

    @property
    def asleep(self) -> "Sleepers":
        """The factories that are not in memory. One is loaded when it is looked at."""
        return Sleepers(self)

    def factory(self, number: int) -> Factory:
        """Return a factory as it stands now; one of which nothing is remembered is new."""
        factory = self.factories.get(number)
        if factory is None:
            is_asleep = number in self.asleep
            factory = self.load(number) if is_asleep else new_factory(self.config, number)
        return factory.at(tip_of(factory, self.scan))

    def all_factories(self) -> Iterator[Factory]:
        """Yield every factory that is in memory, oldest first."""
        for number in sorted(self.factories):
            yield self.factory(number)

    def due_at(self, height: int) -> Iterator[int]:
        """Yield the factories that wake at a height, or should have."""
        return (number for number in self.due(height) if number not in self.factories)

    def asleep_for_ever(self) -> Iterator[int]:
        """Yield the factories that sleep beyond their expiry though their house lends in them.

        Older versions told no house of channels that were settled on chain: these have to.
        """
        height = self.house.chain.height
        for number, expiry_height in sorted(self.outlasting.items()):
            if number not in self.factories and height < expiry_height:
                entry = self.house.entry_of(number)
                if entry.lent_to and self.house.is_standing(entry):
                    yield number

    def with_factory(self, factory: Factory) -> "LspState":
        """Return the state after something happened in a factory."""
        number, before = factory.number, self.factories.get(factory.number)
        channels, holding, resting = self.channels, self.holding, self.resting
        woken = self.find(number) if before is None else None
        if woken is not None:
            resting = resting.without_one(woken)
        if before is None or len(before.book.links) != len(factory.book.links):
            channels = channels.update(dict.fromkeys(factory.book.links, number))
        if (number in holding) != bool(factory.book.held):
            holding = holding | {number} if factory.book.held else holding - {number}
        return changed(
            self,
            factories=self.factories.set(number, factory),
            resting=resting,
            channels=channels,
            holding=holding,
            restless=self.restless.with_one(number),
        )

    def without_factory(self, number: int, asleep: Asleep) -> "LspState":
        """Return the state with a factory out of memory."""
        known = self.factories.get(number)
        factories, channels = self.factories, self.channels
        if known is not None:
            factories = factories.delete(number)
            with channels.mutate() as fewer:
                for channel_id in known.book.links:
                    fewer.pop(channel_id, None)
                channels = fewer.finish()
        return replace(
            self,
            factories=factories,
            resting=self.resting.with_one(asleep),
            outlasting=(
                self.outlasting.set(number, asleep.expiry_height)
                if asleep.outlasts
                else self.outlasting
            ),
            channels=channels,
            holding=self.holding - {number},
            restless=self.restless.without_one(number),
        )

    def has_seat(self, node_id: bytes) -> bool:
        """Say whether a client has a channel with us, or may get one by what is being built.

        Also while it is waited for to join again, for which it has no longer than a deadline. A
        factory's expiry ends its channels, except for those that were brought on chain before.
        """
        house = self.house
        if house.build is not None and node_id in house.build.node_ids:
            return True
        if house.under_way is not None and node_id in house.entries[house.under_way].node_ids:
            return True
        return any(
            house.is_standing(entry) or self._has_settled(entry, node_id)
            for entry in house.entries_of(node_id)
        )

    def _has_settled(self, entry: FactoryEntry, node_id: bytes) -> bool:
        if entry.number not in self.factories:
            return False  # What is on chain keeps a factory awake.
        factory = self.factory(entry.number)
        return any(
            link.failure is None and link.is_settled(factory.chain)
            for link in factory.book.links_with(node_id)
        )

    # Seen together

    @cached_property
    def attempts(self) -> Mapping[bytes, LspAttempt]:
        """Every ceremony, and what came of it, by name, oldest first."""
        return {
            factory.attempt.attempt_id: factory.attempt
            for factory in self.all_factories()
            if factory.begun is not None
        }

    @property
    def open_attempt(self) -> LspAttempt | None:
        """The attempt whose ceremony is under way, if any."""
        under_way = self.house.under_way
        return None if under_way is None else self.attempts.get(under_way)

    @cached_property
    def book(self) -> Book:
        """All channels and payments in memory; what was earned and forwarded, of all factories.

        A payment is what became of it where the house ordered it last, and numbered as the house
        ordered it; finished forwards follow one another by factory, and are no more than one
        factory's may be.
        """
        factories = [*self.all_factories()]
        books = [factory.book for factory in factories]
        merged: dict[str, Any] = {
            name: Map({key: value for book in books for key, value in getattr(book, name).items()})
            for name in _MAPS
        }
        by_node: dict[bytes, tuple[bytes, ...]] = {}
        held_for: dict[bytes, tuple[HtlcKey, ...]] = {}
        for book in books:
            for node_id, channel_ids in book.by_node.items():
                by_node[node_id] = (*by_node.get(node_id, ()), *channel_ids)
            for node_id, keys in book.held_for.items():
                held_for[node_id] = (*held_for.get(node_id, ()), *keys)
        ordered = self.house.payments
        merged["payments"] = Map(
            {
                payment_hash: replace(
                    payment,
                    number=ordered[payment_hash].number,
                    label=ordered[payment_hash].label,
                )
                for factory in factories
                for payment_hash, payment in factory.book.payments.items()
                if ordered[payment_hash].to == factory.stream
            }
        )
        resting = self.resting
        n_finished = resting.n_finished + sum(book.n_finished for book in books)
        newest = islice(_newest_first(books), FORWARDS_KEPT_MAX)
        return Book(
            **merged,
            by_node=Map(by_node),
            held_for=Map(held_for),
            finished=Map({n_finished - n: forward for n, forward in enumerate(newest, start=1)}),
            n_finished=n_finished,
            earned_msat=resting.earned_msat + sum(book.earned_msat for book in books),
        )

    @cached_property
    def chain(self) -> KnownChain:
        """What the chain has of all of it."""
        confirmed, house = self.house.chain.confirmed, self.house.chain
        spends: dict[OutPoint, Tx] = dict(house.spends)
        refused: dict[Txid, tuple[str, ...]] = dict(house.refused)
        for factory in self.factories.values():
            confirmed = confirmed.update(dict(factory.chain.confirmed.walk()))
            spends.update(factory.chain.spends)
            refused.update(factory.chain.refused)
        return KnownChain(
            recent=self.scan.recent, confirmed=confirmed, spends=spends, refused=refused
        )

    @cached_property
    def intents(self) -> Mapping[IntentKey, bytes]:
        """Everything that was signed, or is about to be."""
        return {
            key: sighash
            for factory in self.all_factories()
            for key, sighash in factory.intents.items()
        }

    @cached_property
    def exits(self) -> frozenset[tuple[bytes, int]]:
        """The channels that we bring on chain, by factory and client."""
        return frozenset(
            (factory.attempt.attempt_id, client)
            for factory in self.all_factories()
            for client in factory.exits
        )


def _newest_first(books: Sequence[Book]) -> Iterator[Forward]:
    """Yield what is finished in books, the last book's first, and in each the newest first."""
    for book in reversed(books):
        for number in range(book.n_finished - 1, book.n_finished - len(book.finished) - 1, -1):
            yield book.finished[number]


class Sleepers(Mapping[int, Asleep]):
    """What is known of the factories that sleep, by number; each is looked up in the journal."""

    def __init__(self, state: LspState) -> None:
        self._state = state

    def __getitem__(self, number: int) -> Asleep:
        found = None if number in self._state.factories else self._state.find(number)
        if found is None:
            raise KeyError(number)
        return found

    def __iter__(self) -> Iterator[int]:
        return (number for number in self._state.house.order if number in self)

    def __len__(self) -> int:
        return self._state.resting.n


def tip_of(factory: Factory, scan: Scan) -> tuple[BlockRef, ...]:
    """Return the newest block of which a factory has heard all that there is."""
    if not scan.post.outbox:
        return scan.recent[-1:]
    return scan.tip_for(factory.stream, taken=factory.post.taken.get(CHAIN, 0))


_MAPS: Final = (
    "links",
    "invoices",
    "arrived",
    "held",
    "released",
    "forwards",
    "resolved",
    "owners",
)


def new_lsp(config: LspConfig) -> LspState:
    """Return the state before the first record."""
    return LspState(house=new_house(config))


def apply(state: LspState, stream: str, record: r.AnyRecord, at: int = 0) -> LspState:
    """Return the state after remembering one thing in one stream, at a time in unix seconds."""
    if stream == HOUSE:
        return changed(state, house=apply_to_house(state.house, record, at))
    if stream == CHAIN:
        return changed(state, scan=apply_to_scan(state.scan, record))
    number = factory_number(stream)
    if number is None:
        raise AssertionError(f"{stream} is no stream of an LSP")
    return state.with_factory(apply_to_factory(state.factory(number), record, at))


def posts(state: LspState) -> Iterator[tuple[str, Post]]:
    """Yield the mail of every stream, in a fixed order."""
    yield CHAIN, state.scan.post
    yield HOUSE, state.house.post
    for number in sorted(state.factories):
        yield state.factories[number].stream, state.factories[number].post


def taken_by(state: LspState, stream: str, *, sender: str) -> int:
    """Return the number of the last letter that a stream took of a sender's."""
    return _taken(state, stream).get(sender, 0)


def _taken(state: LspState, stream: str) -> Mapping[str, int]:
    if stream == HOUSE:
        return state.house.post.taken
    if stream == CHAIN:
        return state.scan.post.taken
    number = factory_number(stream)
    if number is None:
        return Map()
    awake = state.factories.get(number)
    if awake is not None:
        return awake.post.taken
    asleep = state.asleep.get(number)
    return Map() if asleep is None else asleep.taken


def pending(state: LspState) -> Iterator[Posted]:
    """Yield all mail that is not yet taken, in a fixed order."""
    for stream, post in posts(state):
        for delivery in post.pending(stream):
            if delivery.number > taken_by(state, delivery.receiver, sender=stream):
                yield delivery


def settled(state: LspState) -> LspState:
    """Return the state without mail that was taken."""
    for stream, post in posts(state):
        left = post
        for receiver in post.outbox:
            taken = taken_by(state, receiver, sender=stream)
            left = left.settled(receiver, taken=taken)
        if left is post:
            continue
        if stream == HOUSE:
            state = changed(state, house=changed(state.house, post=left))
        elif stream == CHAIN:
            state = changed(state, scan=changed(state.scan, post=left))
        else:
            number = factory_number(stream)
            if number is not None:
                state = state.with_factory(changed(state.factories[number], post=left))
    return state
