"""A node in memory that knows outputs: unspent ones in blocks, and what may spend them when."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.scripted_chain import ScriptedChain

from cromford.bitcoin.tx import OutPoint, Tx, TxOut
from cromford.ports import Coin, TxRefused
from cromford.watch.package import ExitPackage


@dataclass
class PathChain(ScriptedChain):
    """A chain on which fundings confirmed, and paths below them are published.

    Attributes:
        n_broadcast: How often something was handed over, taken or not.
        confirms_after: After which question a block comes.
    """

    unspent: dict[OutPoint, tuple[int, TxOut]] = field(default_factory=dict)
    n_broadcast: int = 0
    confirms_after: int | None = None

    def fund(self, *packages: ExitPackage) -> None:
        for package in packages:
            self.unspent[package.funding_outpoint] = (self.height, package.funding_txout)

    def confirm(self, n_blocks: int = 1) -> None:
        """Mine what waits, then empty blocks."""
        txs, self.mempool = self.mempool, []
        self.mine(n_blocks, *txs)
        height = self.height - n_blocks + 1
        for tx in txs:
            self.unspent.pop(tx.inputs[0].outpoint)
            self.unspent |= {tx.outpoint(n): (height, out) for n, out in enumerate(tx.outputs)}

    def confirm_path(self, txs: Sequence[Tx]) -> None:
        """Let somebody else publish these, each as soon as it may."""
        for tx in txs:
            nsequence = tx.inputs[0].nsequence
            self.confirm(max(0 if nsequence & 1 << 31 else nsequence, 1))
            self.mempool.append(tx)
        self.confirm()

    def forget(self, tx: Tx) -> None:
        """Reorganise the newest block away, and the mempool with it; another block comes."""
        self.reorganise(n_leaving=1, n_coming=1)
        for n in range(len(tx.outputs)):
            del self.unspent[tx.outpoint(n)]
        self.mempool.clear()

    async def coin(self, outpoint: OutPoint) -> Coin | None:
        await asyncio.sleep(0)  # As with a real node, others have their turn meanwhile.
        self._answer()
        if self.confirms_after == self.n_calls:
            self.confirm()
        if outpoint not in self.unspent:
            return None
        height, txout = self.unspent[outpoint]
        return Coin(outpoint=outpoint, txout=txout, confirmations=self.height - height + 1)

    async def broadcast(self, tx: Tx) -> None:
        self.n_broadcast += 1
        spent = self.unspent.get(tx.inputs[0].outpoint)
        if spent is None:
            self._answer()
            raise TxRefused("bad-txns-inputs-missingorspent")
        nsequence = tx.inputs[0].nsequence
        if not nsequence & 1 << 31 and self.height + 1 < spent[0] + nsequence:
            self._answer()
            raise TxRefused("non-BIP68-final")
        if tx in self.mempool:
            self._answer()
            return
        await super().broadcast(tx)
