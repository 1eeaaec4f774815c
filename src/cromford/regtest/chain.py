"""The active chain: the kernel's verdict on every block, our own index and coin set beside it.

The kernel does not answer which coins exist, so a coin set is kept from the blocks it accepted,
with what each block spent, so that a block can be taken back. The kernel cannot forget a block
either: another branch is activated by replaying it into a fresh kernel chain. Whatever is in the
active chain has been accepted by the kernel in this process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cromford.bitcoin.block import MEDIAN_TIME_SPAN, FullBlock
from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.regtest.genesis import genesis_block
from cromford.regtest.kernel import BlockRefused, KernelChain
from cromford.regtest.scripts import is_unspendable

N_BLOCKS_MAX: Final = 1_000_000  # A chain kept in memory for tests has an end.


class BlockUnknown(Exception):
    """No block of this hash has been seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCoin:
    """An output with the height of its block; for an unconfirmed one, the next height."""

    txout: TxOut
    height: int
    is_coinbase: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedBlock:
    """A block with its place in the tree of all blocks ever accepted."""

    block: FullBlock
    height: int
    median_time: int  # BIP 113: the median of this block's time and the ten before it.
    arrival: int  # Of two branches equally long, the one seen first is active.

    @property
    def block_hash(self) -> Txid:
        """The hash that names it."""
        return self.block.header.block_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorganisation:
    """The blocks that left the active chain, highest first, and those that came, lowest first."""

    disconnected: tuple[IndexedBlock, ...] = ()
    connected: tuple[IndexedBlock, ...] = ()


class RegtestChain:
    """The tree of blocks, its active branch, and the coins of that branch.

    Args:
        scratch: Where the kernel may put its temporary files; None for the system's place.

    Raises:
        KernelUnavailable: If the kernel's library could not be loaded.
    """

    def __init__(self, scratch: Path | None = None) -> None:
        self._scratch = scratch
        self._kernel = KernelChain(scratch)
        genesis = IndexedBlock(
            block=genesis_block(),
            height=0,
            median_time=genesis_block().header.time,
            arrival=0,
        )
        if genesis.block_hash != REGTEST.genesis_hash:
            raise AssertionError("the genesis block is not regtest's")
        self._index: dict[Txid, IndexedBlock] = {genesis.block_hash: genesis}
        self._active: list[IndexedBlock] = [genesis]
        self._invalid: set[Txid] = set()
        self._coins: dict[OutPoint, ChainCoin] = {}
        self._spent: dict[Txid, tuple[tuple[ChainCoin, ...], ...]] = {}
        self._located: dict[Txid, tuple[IndexedBlock, int]] = {}

    @property
    def tip(self) -> IndexedBlock:
        """The newest block of the active chain."""
        return self._active[-1]

    @property
    def n_coins(self) -> int:
        """How many coins are unspent."""
        return len(self._coins)

    def at_height(self, height: int) -> IndexedBlock | None:
        """Return the active chain's block at a height; None outside it."""
        return self._active[height] if 0 <= height < len(self._active) else None

    def block(self, block_hash: Txid) -> IndexedBlock:
        """Return a block of any branch.

        Raises:
            BlockUnknown: If no such block has been accepted.
        """
        try:
            return self._index[block_hash]
        except KeyError:
            raise BlockUnknown(str(block_hash)) from None

    def is_known(self, block_hash: Txid) -> bool:
        """Say whether a block of this hash has been accepted, on any branch."""
        return block_hash in self._index

    def is_active(self, indexed: IndexedBlock) -> bool:
        """Say whether a block is in the active chain."""
        return self.at_height(indexed.height) is indexed

    def coin(self, outpoint: OutPoint) -> ChainCoin | None:
        """Return an unspent output of the active chain, or None."""
        return self._coins.get(outpoint)

    def locate(self, txid: Txid) -> tuple[IndexedBlock, int] | None:
        """Return the active chain's block that holds a transaction, and its position there."""
        return self._located.get(txid)

    def spent_coins(self, block_hash: Txid) -> tuple[tuple[ChainCoin, ...], ...]:
        """Return what each transaction of a block spent, the coinbase's nothing first."""
        return self._spent.get(block_hash, ())

    def connect(self, block: FullBlock) -> IndexedBlock:
        """Make a block the new tip.

        Raises:
            BlockRefused: If the kernel refuses it.
            BlockUnknown: If it does not extend the tip.
        """
        if block.header.previous_hash != self.tip.block_hash:
            raise BlockUnknown(f"{block.header.previous_hash} is not the tip")
        if self.is_known(block.header.block_hash):
            raise BlockRefused("DUPLICATE")
        if len(self._index) >= N_BLOCKS_MAX:
            raise ValueError(f"a regtest chain of more than {N_BLOCKS_MAX} blocks")
        self._kernel.connect(block.raw, block.header.block_hash)
        indexed = self.add(block)
        self._apply(indexed)
        return indexed

    def add(self, block: FullBlock) -> IndexedBlock:
        """Take a block into the tree without activating it; the kernel has not seen it yet.

        Raises:
            BlockUnknown: If its parent is unknown.
        """
        parent = self.block(block.header.previous_hash)
        times = [block.header.time]
        ancestor = parent
        while len(times) < MEDIAN_TIME_SPAN:
            times.append(ancestor.block.header.time)
            if ancestor.height == 0:
                break
            ancestor = self._index[ancestor.block.header.previous_hash]
        indexed = IndexedBlock(
            block=block,
            height=parent.height + 1,
            median_time=sorted(times)[len(times) // 2],
            arrival=len(self._index),
        )
        self._index[indexed.block_hash] = indexed
        return indexed

    def invalidate(self, block_hash: Txid) -> Reorganisation:
        """Mark a block as if it broke a rule, and activate the best chain without it.

        Raises:
            BlockUnknown: If no such block has been accepted.
            ValueError: If it is the genesis block.
        """
        self.mark_invalid(block_hash)
        return self.activate_best()

    def reconsider(self, block_hash: Txid) -> Reorganisation:
        """Forget the marks on a block, its ancestors and its descendants.

        Raises:
            BlockUnknown: If no such block has been accepted.
        """
        self.unmark(block_hash)
        return self.activate_best()

    def mark_invalid(self, block_hash: Txid) -> None:
        """Mark a block, and do not act on it yet.

        Raises:
            BlockUnknown: If no such block has been accepted.
            ValueError: If it is the genesis block.
        """
        if self.block(block_hash).height == 0:
            raise ValueError("the genesis block cannot be invalidated")
        self._invalid.add(block_hash)

    def unmark(self, block_hash: Txid) -> None:
        """Take the marks off a block, its ancestors and its descendants, and do not act yet.

        Raises:
            BlockUnknown: If no such block has been accepted.
        """
        indexed = self.block(block_hash)
        self._invalid = {
            marked for marked in self._invalid if not self._related(self._index[marked], indexed)
        }

    def close(self) -> None:
        """Release the kernel and delete its files. Safe to call twice."""
        self._kernel.close()

    def _related(self, one: IndexedBlock, other: IndexedBlock) -> bool:
        low, high = sorted((one, other), key=lambda indexed: indexed.height)
        while high.height > low.height:
            high = self._index[high.block.header.previous_hash]
        return high is low

    def _apply(self, indexed: IndexedBlock) -> None:
        spent: list[tuple[ChainCoin, ...]] = []
        for position, tx in enumerate(indexed.block.txs):
            if position == 0:
                spent.append(())
            else:
                spent.append(tuple(self._coins.pop(tx_in.outpoint) for tx_in in tx.inputs))
            self._located[tx.txid] = (indexed, position)
            for outpoint, txout in spendable_outputs(tx):
                self._coins[outpoint] = ChainCoin(
                    txout=txout, height=indexed.height, is_coinbase=position == 0
                )
        self._spent[indexed.block_hash] = tuple(spent)
        self._active.append(indexed)

    def _take_back(self) -> IndexedBlock:
        indexed = self._active.pop()
        spent = self._spent[indexed.block_hash]
        for tx, coins in reversed(list(zip(indexed.block.txs, spent, strict=True))):
            for outpoint, _ in spendable_outputs(tx):
                del self._coins[outpoint]
            del self._located[tx.txid]
            for tx_in, coin in zip(tx.inputs, coins, strict=False):
                self._coins[tx_in.outpoint] = coin
        return indexed

    def _path_to(self, target: IndexedBlock, *, above: int) -> list[IndexedBlock]:
        path: list[IndexedBlock] = []
        while target.height > above:
            path.append(target)
            target = self._index[target.block.header.previous_hash]
        return path[::-1]

    def _best(self) -> IndexedBlock:
        """Every block carries the same work, so the longest branch without a mark is the best."""
        usable: set[Txid] = set()
        best = self._active[0]
        for indexed in self._index.values():
            parent_hash = indexed.block.header.previous_hash
            if indexed.block_hash in self._invalid:
                continue
            if indexed.height and parent_hash not in usable:
                continue
            usable.add(indexed.block_hash)
            if indexed.height > best.height:
                best = indexed
        return best

    def activate_best(self) -> Reorganisation:
        """Make the best branch active, through a fresh kernel chain if it is another one.

        Raises:
            BlockRefused: If the kernel refuses a block of it; the active chain is as before.
        """
        best = self._best()
        if best is self.tip:
            return Reorganisation()
        fork = best
        while not self.is_active(fork):
            fork = self._index[fork.block.header.previous_hash]
        fresh = KernelChain(self._scratch)
        try:
            for indexed in self._path_to(best, above=0):
                fresh.connect(indexed.block.raw, indexed.block_hash)
        except BlockRefused:
            fresh.close()
            raise
        self._kernel.close()
        self._kernel = fresh
        disconnected: list[IndexedBlock] = []
        while self.tip is not fork:
            disconnected.append(self._take_back())
        connected = self._path_to(best, above=fork.height)
        for indexed in connected:
            self._apply(indexed)
        return Reorganisation(disconnected=tuple(disconnected), connected=tuple(connected))


CoinView = Callable[[OutPoint], ChainCoin | None]


def spendable_outputs(tx: Tx) -> list[tuple[OutPoint, TxOut]]:
    """Return the outputs of a transaction that somebody might spend, with their outpoints."""
    return [
        (OutPoint(txid=tx.txid, vout=vout), txout)
        for vout, txout in enumerate(tx.outputs)
        if not is_unspendable(txout.script_pubkey)
    ]
