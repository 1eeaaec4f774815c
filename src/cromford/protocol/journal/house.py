"""What an LSP knows beside its factories: coins, who waits, who has which channel, and payments.

The house knows of each factory what it ordered, and what the factory told it since.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from operator import gt
from typing import Final

from immutables import Map

from cromford.bitcoin.tx import OutPoint, Txid
from cromford.changed import changed
from cromford.protocol.journal.bumps import FundingBump
from cromford.protocol.journal.entries import (
    ABORTED,
    DEAD,
    FUNDED,
    FactoryEntry,
    HousePayment,
    Seats,
)
from cromford.protocol.journal.expected import ExpectedPayments
from cromford.protocol.journal.gathered import Build, CalledBuild, Member
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.lsp_config import LspConfig
from cromford.protocol.journal.mail import Post
from cromford.protocol.journal.mark import Restored
from cromford.protocol.journal.market import Market
from cromford.protocol.journal.numbers import Numbers
from cromford.protocol.journal.pause import (
    ABORTS_TO_PAUSE,
    PAUSE_BLOCKS,
    RELIABLE_UPTIME_BLOCKS,
    UPTIME_WINDOW_BLOCKS,
    Ban,
    Pause,
    closed_until,
    longest_pause,
    seen_after,
)
from cromford.protocol.journal.purses import CoinsWanted
from cromford.protocol.journal.streams import factory_stream
from cromford.protocol.journal.tally import Tally
from cromford.protocol.policy import SalePrice
from cromford.shelf import Shelf, key_bytes
from cromford.wallet.coins import Purse, Wallet, new_wallet
from cromford.watch.joint_sweep import SignedJoint

_LOOKED_THROUGH: Final = 1_000  # Numbers of factories at once.


@dataclass(frozen=True, kw_only=True)
class House:
    """The house's state value. Implements `facts.Directory`.

    What there is of each factory is on shelves: in the store, once it rests.

    `connected`, `is_stirred`, `members`, `joins` and `n_new_joins` are true of one run only: names
    cost nothing, so whoever merely comes and goes leaves no record.
    """

    config: LspConfig
    wallet: Wallet
    chain: KnownChain = field(default_factory=KnownChain)  # without spends: nobody asks the house
    news: Shelf[int, tuple[Txid, ...]] = field(default_factory=Shelf)  # what of ours a height has
    present: frozenset[bytes] = frozenset()  # connected at the last block
    n_blocks: int = 0  # that were counted, also those that lost their place since
    uptime: Mapping[bytes, int] = field(default_factory=dict)  # see `seen_in`
    uptime_at: Mapping[bytes, int] = field(default_factory=dict)  # see `seen_in`
    last_seen: Shelf[bytes, int] = field(default_factory=Shelf)  # heights
    faults: Mapping[bytes, tuple[int, ...]] = field(default_factory=dict)  # their heights
    aborts: Mapping[bytes, tuple[int, ...]] = field(default_factory=dict)  # caused, their heights
    called_back: Mapping[bytes, tuple[int, ...]] = field(default_factory=dict)  # by others' aborts
    next_attempt: int = 0
    build: Build | None = None
    build_dropped: str | None = None
    hindered_by: str = ""  # the code of what hindered the last build that a schedule asked for
    under_way: bytes | None = None  # the attempt whose ceremony has not ended
    entries: Shelf[bytes, FactoryEntry] = field(default_factory=Shelf)  # by attempt id
    order: Shelf[int, bytes] = field(default_factory=Shelf)  # attempt ids by number
    of_client: Seats = field(default_factory=Shelf)  # funded, and not closed together since
    keys: Shelf[bytes, int] = field(default_factory=Shelf)  # factory keys of all attempts: whose
    tally: Tally = field(default_factory=Tally)
    given_up: frozenset[bytes] = frozenset()  # attempts whose funding was, until one is dead
    payments: Map[bytes, HousePayment] = field(default_factory=Map)  # by payment hash
    n_payments: int = 0
    numbers: Numbers = field(default_factory=Numbers)  # of the payments
    expected: ExpectedPayments = field(default_factory=ExpectedPayments)
    purses: Map[OutPoint, Purse] = field(default_factory=Map)  # lent, by what their children serve
    coins_wanted: Map[OutPoint, CoinsWanted] = field(default_factory=Map)  # and not lent yet
    post: Post = field(default_factory=Post)
    connected: frozenset[bytes] = frozenset()
    is_stirred: bool = True  # whether others may be here than at the last block
    members: Mapping[bytes, Member] = field(default_factory=dict)
    joins: Mapping[bytes, tuple[int, ...]] = field(default_factory=dict)  # the newest, by height
    n_new_joins: int = 0  # since the last block, of clients that never were in a factory of ours
    bumps: Map[bytes, FundingBump] = field(default_factory=Map)  # by attempt id
    joint_sweeps: Mapping[Txid, SignedJoint] = field(default_factory=dict)  # our newest
    restored: Restored = field(default_factory=Restored)
    market: Market = field(default_factory=Market)
    sales: Shelf[int, tuple[bytes, int]] = field(default_factory=Shelf)  # see `sale`
    bans: Mapping[bytes, Ban] = field(default_factory=dict)  # the operator's
    called: Shelf[str, CalledBuild] = field(default_factory=Shelf)  # builds, by external id
    ladder_wanted: int = 0  # of how many funding candidates the operator wanted keys, at the most

    @property
    def durable(self) -> "House":
        """The part that a restart finds."""
        return changed(
            self, connected=frozenset(), is_stirred=True, members={}, joins={}, n_new_joins=0
        )

    def built_as(self, external_id: str) -> CalledBuild | None:
        """Return the build that has this id, unless nothing came of it; None if none has."""
        called = self.called.get(external_id)
        if called is None or self.entries[called.attempt_id].status == ABORTED:
            return None
        return called

    def factories(self) -> Iterable[FactoryEntry]:
        """Yield what is known of every factory, oldest first."""
        return (self.entries[attempt_id] for _, attempt_id in self.order.walk())

    def numbers_below(self, number: int) -> Iterator[int]:
        """Yield the numbers of factories below one, newest first.

        Those of a store that was put back leave out millions of numbers: none of them is looked at.
        """
        n_looked_through = _LOOKED_THROUGH
        while number > 0:
            start = max(number - n_looked_through, 0)
            found = [
                *takewhile(partial(gt, number), (n for n, _ in self.order.walk(key_bytes(start))))
            ]
            yield from reversed(found)
            number = start
            n_looked_through = _LOOKED_THROUGH if found else 2 * n_looked_through

    def attempt_ids(self, start: bytes = b"") -> Iterator[bytes]:
        """Yield the names of all factories from one on, in the order of their bytes."""
        return (attempt_id for attempt_id, _ in self.entries.walk(start))

    def own_keys(self) -> Iterator[tuple[int, bytes]]:
        """Yield our key in each factory that was funded, with the factory's number."""
        for _, entry in self.entries.walk():
            if entry.status in {FUNDED, DEAD}:
                yield entry.number, entry.own_pubkey

    def lacking_sat(self) -> int:
        """Return what coins would have to hold that transactions need, and that the house has not.

        What was lent for the same one counts.
        """
        lacking_sat = 0
        for outpoint, wanted in self.coins_wanted.items():
            purse = self.purses.get(outpoint)
            lent_sat = 0 if purse is None else purse.amount_sat
            lacking_sat += max(0, wanted.needed_sat - lent_sat)
        return lacking_sat

    def lent_sat(self) -> int:
        """Return what the channels of all standing factories come to."""
        return self.tally.lent_sat + sum(
            entry.lent_sat for entry in self.dead_entries() if self.is_standing(entry)
        )

    def dead_entries(self) -> Iterator[FactoryEntry]:
        """Yield the factories whose funding was found dead, whatever the chain shows now."""
        return (self.entries[attempt_id] for attempt_id in sorted(self.tally.dead))

    def entry_of(self, number: int) -> FactoryEntry:
        """Return what is known of a factory by its number."""
        return self.entries[self.order[number]]

    def entries_of(self, node_id: bytes) -> tuple[FactoryEntry, ...]:
        """Return the funded factories in which a client has a seat, oldest first.

        None whose channel with it was closed together with others, six blocks deep.
        """
        return tuple(self.entry_of(number) for number in self.of_client.get(node_id, ()))

    def is_standing(self, entry: FactoryEntry) -> bool:
        """Say whether we lend in a factory: funded, neither expired, replaced nor all closed.

        In one that was found dead again, once the chain has turned back to what channels are in.
        """
        if not entry.seated:
            return False
        confirmed = self.confirmed_funding(entry)
        is_back = confirmed is not None and confirmed != entry.displaced_by
        is_live = entry.status == FUNDED or (entry.status == DEAD and is_back)
        return is_live and self.chain.height < entry.expiry_height

    def is_confirmed(self, entry: FactoryEntry) -> bool:
        """Say whether a factory's funding is in a block: any candidate of it."""
        return self.confirmed_funding(entry) is not None

    def confirmed_funding(self, entry: FactoryEntry) -> Txid | None:
        """Return which candidate of a factory's funding is in a block; None if none is."""
        return next((txid for txid in entry.funding_txids if self.chain.depth(txid) > 0), None)

    def sale(self, number: int) -> tuple[FactoryEntry, int]:
        """Return where a sale is, by its number, from 1 on: its factory, and its place there."""
        attempt_id, place = self.sales[number]
        return self.entries[attempt_id], place

    # As a directory

    def is_connected(self, node_id: bytes) -> bool:
        """Say whether a client is connected now."""
        return node_id in self.connected

    def is_vanished(self, node_id: bytes) -> bool:
        """Say whether one who has a channel was not seen for `UPTIME_WINDOW_BLOCKS` blocks."""
        if node_id in self.connected or node_id in self.present:
            return False
        return self.chain.height >= self.last_seen.get(node_id, 0) + UPTIME_WINDOW_BLOCKS

    def streams_of(self, node_id: bytes) -> tuple[str, ...]:
        """Return the streams of the factories in which a client has a channel, oldest first."""
        return tuple(factory_stream(number) for number in self.of_client.get(node_id, ()))

    def n_free_coins(self, least_sat: int) -> int:
        """Return how many coins of this size are in a block, unspent, set aside for nobody."""
        free = self.wallet.free(self.chain.height)
        return sum(1 for coin in free if coin.txout.amount_sat >= least_sat)

    def has_coins(self, outpoints: Sequence[OutPoint]) -> bool:
        """Say whether the wallet has all these coins, in a block and unspent."""
        coins = [self.wallet.coins.get(outpoint) for outpoint in outpoints]
        return all(coin is not None and coin.spent_height is None for coin in coins)

    def sale_price(self) -> SalePrice:
        """Return what the operator asks for inbound liquidity now."""
        return self.market.price or SalePrice()

    # How reliable a client is

    def uptime_blocks(self, node_id: bytes) -> int:
        """Return how many of the last `UPTIME_WINDOW_BLOCKS` blocks saw this node connected."""
        return self.seen_in(node_id).bit_count()

    def seen_in(self, node_id: bytes) -> int:
        """Return of which blocks a node was here for: bit i says, connected i blocks ago.

        What is kept says so as of the block `uptime_at`, by `n_blocks`, since when it has been here
        all the time, or away: a block changes nothing of whoever stays.
        """
        n_blocks = self.n_blocks - self.uptime_at.get(node_id, 0)
        seen = self.uptime.get(node_id, 0)
        return seen_after(seen, n_blocks, is_here=node_id in self.present)

    def with_seen(self, node_ids: Iterable[bytes]) -> "House":
        """Return the house in which what is kept of nodes is as of the newest block.

        So it has to be before one of them comes or goes.
        """
        names = tuple(node_ids)
        return changed(
            self,
            uptime={**self.uptime, **{name: self.seen_in(name) for name in names}},
            uptime_at={**self.uptime_at, **dict.fromkeys(names, self.n_blocks)},
        )

    def without_long_away(self) -> "House":
        """Return the house without a word of those who were away for the whole window."""
        names = {*self.uptime, *self.present}
        uptime = {name: seen for name in names if (seen := self.seen_in(name))}
        return changed(self, uptime=uptime, uptime_at=dict.fromkeys(uptime, self.n_blocks))

    def is_unsteady(self, node_id: bytes) -> bool:
        """Say whether a client has just ended a ceremony for everybody."""
        heights = self.aborts.get(node_id, ())
        return bool(heights) and heights[-1] >= self.chain.height - PAUSE_BLOCKS

    def is_reliable(self, node_id: bytes) -> bool:
        """Say whether a client has shown that it stays: in a factory, or by a day of uptime."""
        has_shown = (
            node_id in self.of_client or self.uptime_blocks(node_id) >= RELIABLE_UPTIME_BLOCKS
        )
        return has_shown and not self.is_unsteady(node_id)

    def pause_of(self, node_id: bytes) -> Pause | None:
        """Return why, and until which height, a client may not join; None if it may."""
        pause = longest_pause(
            node_id, faults=self.faults, aborts=self.aborts, joins=self.joins, bans=self.bans
        )
        return pause if pause is not None and self.chain.height < pause.until_height else None

    def rests(self, node_id: bytes) -> bool:
        """Say whether others have made a client join again so often that it waits by itself now."""
        heights = self.called_back.get(node_id, ())
        until = closed_until(heights, limit=ABORTS_TO_PAUSE, window_blocks=PAUSE_BLOCKS)
        return self.chain.height < until

    def is_awaited(self, node_id: bytes) -> bool:
        """Say whether a build waits for somebody to join again, whose last try others ended."""
        build = self.build
        return build is not None and build.attempt is None and node_id in build.node_ids

    def counts_attendance(self, node_id: bytes) -> bool:
        """Say whether it matters that somebody is connected: who has a channel, or waits."""
        return (
            node_id in self.of_client
            or node_id in self.members
            or (self.under_way is not None and node_id in self.entries[self.under_way].node_ids)
        )


def new_house(config: LspConfig) -> House:
    """Return the state before the first record."""
    return House(config=config, wallet=new_wallet(config.account))
