"""The chain of a world as a daemon's parts ask for it, and their waiting that takes no time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cromford.bitcoin.block import Block, Coin
from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.ports import (
    ChainStatus,
    Known,
    MempoolTx,
    PackageAnswer,
    RelayFeerates,
    TxRefused,
)
from tests.matrix.node_chain import NodeChain
from tests.simulation.sim_chain import SimRefused


@dataclass(frozen=True)
class NodePort:
    """Implements `ports.Chain`, as far as what publishes asks for it."""

    chain: NodeChain

    async def status(self) -> ChainStatus:
        raise NotImplementedError

    async def block_hash(self, height: int) -> Txid | None:
        raise NotImplementedError(f"block {height}")

    async def previous_hash(self, block_hash: Txid) -> Txid | None:
        raise NotImplementedError(f"block {block_hash}")

    async def block(self, block_hash: Txid) -> Block:
        raise NotImplementedError(f"block {block_hash}")

    async def coin(self, outpoint: OutPoint) -> Coin | None:
        return self.chain.coin(outpoint)

    async def broadcast(self, tx: Tx) -> None:
        try:
            self.chain.broadcast(tx)
        except SimRefused as refused:
            raise TxRefused(str(refused)) from refused

    async def broadcast_package(self, txs: Sequence[Tx]) -> PackageAnswer:
        parent, child = txs
        try:
            self.chain.broadcast_package(parent, child)
        except SimRefused as refused:
            raise TxRefused(str(refused)) from refused
        return PackageAnswer(verdicts=tuple(Known(txid=tx.txid) for tx in txs))

    async def mempool_tx(self, txid: Txid) -> MempoolTx | None:
        return self.chain.mempool_tx(txid)

    async def spenders(self, outpoints: Sequence[OutPoint]) -> Mapping[OutPoint, Txid]:
        return self.chain.spenders(outpoints)

    async def relay_feerates(self) -> RelayFeerates:
        return self.chain.relay

    async def estimate_sat_per_kw(self, target_blocks: int) -> int | None:
        return self.chain.estimate_sat_per_kw(target_blocks)
