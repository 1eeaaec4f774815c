"""A node in memory that does what nodes do: stalls, lags, goes back, prunes, forks and refuses."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.crypto.keys import sha256d
from cromford.ports import (
    Block,
    BlockRef,
    ChainStatus,
    ChainUnavailable,
    Coin,
    Known,
    MempoolTx,
    NotTaken,
    PackageAnswer,
    PackageNotTaken,
    RelayFeerates,
    Taken,
    TxRefused,
)
from tests.families import RELAY_FEERATES, mempool_tx_of, spenders_among


def ref(block: Block) -> BlockRef:
    return BlockRef(height=block.height, block_hash=block.block_hash)


@dataclass(frozen=True, kw_only=True)
class Change:
    """After so many questions, this many blocks leave and that many others come."""

    after_calls: int
    n_leaving: int
    n_coming: int


@dataclass
class ScriptedChain:
    """A chain that changes between any two questions, and sometimes does not answer.

    Attributes:
        script: What changes when.
        silent_calls: Which questions are left unanswered.
        is_silent: Whether all of them are.
        active: The chain as the world has it.
        shown_height: How far the node has got; None: to the end.
        header_height: What headers it tells of; None: all.
        kept_height: The first block it has not pruned.
        tip_time: The stamp of every tip.
        refusal: Why it takes no transaction; None: it takes them.
        coins: What it knows of coins.
        mempool: What it took.
        relay: What it asks for.
        estimates: What it estimates, by target.
    """

    script: list[Change] = field(default_factory=list)
    silent_calls: set[int] = field(default_factory=set)
    is_silent: bool = False
    n_calls: int = 0
    active: list[Block] = field(default_factory=list)
    blocks: dict[Txid, Block] = field(default_factory=dict)
    shown_height: int | None = None
    header_height: int | None = None
    is_initial_download: bool = False
    kept_height: int = 0
    tip_time: int = 0
    refusal: str | None = None
    coins: dict[OutPoint, Coin] = field(default_factory=dict)
    mempool: list[Tx] = field(default_factory=list)
    relay: RelayFeerates = RELAY_FEERATES
    estimates: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mine(1)

    @property
    def height(self) -> int:
        return len(self.active) - 1

    def mine(self, n_blocks: int, *txs: Tx) -> None:
        """Mine blocks, the first one with these transactions."""
        for number in range(n_blocks):
            previous_hash = self.active[-1].block_hash if self.active else Txid(bytes(32))
            # Every block is another one, also at a height that has been reached before.
            block_hash = Txid(sha256d(previous_hash + len(self.blocks).to_bytes(4, "big")))
            block = Block(
                height=len(self.active),
                block_hash=block_hash,
                previous_hash=previous_hash,
                txs=txs if number == 0 else (),
            )
            self.blocks[block_hash] = block
            self.active.append(block)

    def reorganise(self, *, n_leaving: int, n_coming: int) -> None:
        del self.active[max(1, len(self.active) - n_leaving) :]
        self.mine(n_coming)

    async def until_asked(self, n_questions: int) -> None:
        """Let other tasks run until they have asked so much more."""
        enough = self.n_calls + n_questions
        while self.n_calls < enough:  # noqa: ASYNC110 - the loop is what is waited for
            await asyncio.sleep(0)

    def _answer(self) -> None:
        self.n_calls += 1
        while self.script and self.script[0].after_calls <= self.n_calls:
            change = self.script.pop(0)
            self.reorganise(n_leaving=change.n_leaving, n_coming=change.n_coming)
        if self.is_silent or self.n_calls in self.silent_calls:
            raise ChainUnavailable("scripted silence")

    def _shown(self) -> list[Block]:
        return self.active if self.shown_height is None else self.active[: self.shown_height + 1]

    async def status(self) -> ChainStatus:
        self._answer()
        return ChainStatus(
            tip=ref(self._shown()[-1]),
            tip_time=self.tip_time,
            header_height=self.height if self.header_height is None else self.header_height,
            is_initial_download=self.is_initial_download,
            kept_height=self.kept_height,
        )

    async def block_hash(self, height: int) -> Txid | None:
        self._answer()
        shown = self._shown()
        return shown[height].block_hash if height < len(shown) else None

    async def previous_hash(self, block_hash: Txid) -> Txid | None:
        self._answer()
        block = self.blocks.get(block_hash)
        return None if block is None else block.previous_hash

    async def block(self, block_hash: Txid) -> Block:
        self._answer()
        if block_hash not in self.blocks:
            raise ChainUnavailable("Block not found")
        block = self.blocks[block_hash]
        if block.height < self.kept_height:
            raise ChainUnavailable("Block not available (pruned data)")
        return block

    async def coin(self, outpoint: OutPoint) -> Coin | None:
        self._answer()
        return self.coins.get(outpoint)

    async def broadcast(self, tx: Tx) -> None:
        self._answer()
        if self.refusal is not None:
            raise TxRefused(self.refusal)
        self.mempool.append(tx)

    async def broadcast_package(self, txs: Sequence[Tx]) -> PackageAnswer:
        self._answer()
        if self.refusal is not None:
            refused = tuple(NotTaken(txid=tx.txid, reason=self.refusal) for tx in txs)
            raise PackageNotTaken(self.refusal, PackageAnswer(verdicts=refused))
        there = {tx.txid for tx in self.mempool}
        new = [tx for tx in txs if tx.txid not in there]
        self.mempool += new
        return PackageAnswer(
            verdicts=tuple(
                Taken(txid=tx.txid, fee_sat=self._fee_sat(tx), vsize=tx.vsize)
                if tx in new
                else Known(txid=tx.txid)
                for tx in txs
            )
        )

    async def mempool_tx(self, txid: Txid) -> MempoolTx | None:
        self._answer()
        return mempool_tx_of(txid, {tx.txid: tx for tx in self.mempool}, self._fee_sat)

    async def spenders(self, outpoints: Sequence[OutPoint]) -> Mapping[OutPoint, Txid]:
        self._answer()
        return spenders_among(self.mempool, outpoints)

    async def relay_feerates(self) -> RelayFeerates:
        self._answer()
        return self.relay

    async def estimate_sat_per_kw(self, target_blocks: int) -> int | None:
        self._answer()
        soon = [blocks for blocks in self.estimates if blocks <= target_blocks]
        return self.estimates[max(soon)] if soon else None

    def _fee_sat(self, tx: Tx) -> int:
        """Return what a transaction pays, if all that it spends is known here."""
        waiting = {one.txid: one for one in self.mempool}
        in_sat = 0
        for tx_in in tx.inputs:
            parent = waiting.get(tx_in.outpoint.txid)
            if parent is not None:
                in_sat += parent.outputs[tx_in.outpoint.vout].amount_sat
            elif (coin := self.coins.get(tx_in.outpoint)) is not None:
                in_sat += coin.txout.amount_sat
            else:
                return 0
        return in_sat - sum(txout.amount_sat for txout in tx.outputs)
