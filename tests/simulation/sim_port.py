"""A participant's own node as a daemon's parts ask it, and their waiting that takes no time."""

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cromford.bitcoin.block import Block, Coin
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.ports import (
    ChainStatus,
    ChainUnavailable,
    Known,
    MempoolTx,
    PackageAnswer,
    RelayFeerates,
    TxRefused,
)
from tests.simulation.sim_chain import SimRefused
from tests.simulation.sim_eyes import Away, SimEyes

T = TypeVar("T")


def at_once(waiting: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine comes to that never really waits."""
    try:
        waiting.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waits for something")


@dataclass(frozen=True)
class SimPort:
    """Implements `ports.Chain`, but for blocks: those the world shows by itself."""

    eyes: SimEyes

    async def status(self) -> ChainStatus:
        raise NotImplementedError

    async def block_hash(self, height: int) -> Txid | None:
        raise NotImplementedError(f"block {height}")

    async def previous_hash(self, block_hash: Txid) -> Txid | None:
        raise NotImplementedError(f"block {block_hash}")

    async def block(self, block_hash: Txid) -> Block:
        raise NotImplementedError(f"block {block_hash}")

    async def coin(self, outpoint: OutPoint) -> Coin | None:
        try:
            return self.eyes.coin(outpoint)
        except Away as away:
            raise ChainUnavailable from away

    async def broadcast(self, tx: Tx) -> None:
        try:
            self.eyes.broadcast(tx)
        except Away as away:
            raise ChainUnavailable from away
        except SimRefused as refused:
            raise TxRefused(str(refused)) from refused

    async def broadcast_package(self, txs: Sequence[Tx]) -> PackageAnswer:
        parent, child = txs
        try:
            self.eyes.broadcast_package(parent, child)
        except Away as away:
            raise ChainUnavailable from away
        except SimRefused as refused:
            raise TxRefused(str(refused)) from refused
        return PackageAnswer(verdicts=tuple(Known(txid=tx.txid) for tx in txs))

    async def mempool_tx(self, txid: Txid) -> MempoolTx | None:
        try:
            return self.eyes.mempool_tx(txid)
        except Away as away:
            raise ChainUnavailable from away

    async def spenders(self, outpoints: Sequence[OutPoint]) -> Mapping[OutPoint, Txid]:
        try:
            return self.eyes.spenders(outpoints)
        except Away as away:
            raise ChainUnavailable from away

    async def relay_feerates(self) -> RelayFeerates:
        try:
            return self.eyes.relay_feerates()
        except Away as away:
            raise ChainUnavailable from away

    async def estimate_sat_per_kw(self, target_blocks: int) -> int | None:
        try:
            return self.eyes.estimate_sat_per_kw(target_blocks)
        except Away as away:
            raise ChainUnavailable from away
