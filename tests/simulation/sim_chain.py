"""A chain in memory with the rules that matter: coins exist once, scripts hold, timelocks hold."""

import hashlib
from dataclasses import dataclass, field

from cromford.bitcoin.block import Coin
from cromford.bitcoin.timelock import LOCKTIME_THRESHOLD, NSEQUENCE_DISABLE_FLAG
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.regtest.kernel import ScriptRefused, check_scripts


class SimRefused(Exception):
    """A transaction this chain does not take."""


@dataclass
class SimChain:
    """Blocks, coins and a mempool. Scripts are checked by the kernel."""

    blocks: list[tuple[Txid, tuple[Tx, ...]]] = field(default_factory=list)
    coins: dict[OutPoint, tuple[TxOut, int]] = field(default_factory=dict)
    mempool: dict[Txid, Tx] = field(default_factory=dict)
    confirmed: dict[Txid, int] = field(default_factory=dict)
    n_removed: int = 0

    @property
    def height(self) -> int:
        return len(self.blocks) - 1

    def fund(self, script_pubkey: bytes, amount_sat: int) -> None:
        """Mine a block that gives somebody a coin, from nowhere."""
        source = TxIn(
            outpoint=OutPoint(txid=Txid(self._hash("coin")), vout=0), nsequence=0xFFFFFFFF
        )
        tx = Tx(
            version=2,
            inputs=(source,),
            outputs=(TxOut(amount_sat=amount_sat, script_pubkey=script_pubkey),),
        )
        self._connect((tx,))

    def mine(self) -> None:
        """Mine the mempool, parents first."""
        txs = tuple(tx for tx in self.mempool.values() if self._is_final(tx))
        self._connect(txs)

    def remove_tip(self, n_blocks: int) -> None:
        """Take the last blocks back; their transactions wait again, where they still can."""
        kept, removed = self.blocks[:-n_blocks], self.blocks[-n_blocks:]
        waiting = [tx for _, txs in removed for tx in txs] + list(self.mempool.values())
        self.blocks, self.coins, self.confirmed, self.mempool = [], {}, {}, {}
        for block_hash, txs in kept:
            self._connect(txs, block_hash)
        self.n_removed += n_blocks
        for tx in waiting:
            try:
                self.broadcast(tx)
            except SimRefused:
                continue

    def broadcast(self, tx: Tx) -> None:
        """Take a transaction into the mempool.

        Raises:
            SimRefused: If it spends what is not there, breaks a script or a timelock.
        """
        if tx.txid in self.mempool or tx.txid in self.confirmed:
            return
        prevouts = []
        for tx_in in tx.inputs:
            coin = self.coins.get(tx_in.outpoint)
            if coin is None:
                raise SimRefused(f"missing input {tx_in.outpoint}")
            if any(tx_in.outpoint in _outpoints(other) for other in self.mempool.values()):
                raise SimRefused(f"conflict over {tx_in.outpoint}")
            prevouts.append(coin[0])
        if not self._is_final(tx):
            raise SimRefused("non-BIP68-final")
        if sum(p.amount_sat for p in prevouts) < sum(out.amount_sat for out in tx.outputs):
            raise SimRefused("in-belowout")
        try:
            check_scripts(tx, prevouts)
        except ScriptRefused as error:
            raise SimRefused(str(error)) from error
        self.mempool[tx.txid] = tx

    def coin(self, outpoint: OutPoint) -> Coin | None:
        """Return a confirmed, unspent output."""
        coin = self.coins.get(outpoint)
        if coin is None:
            return None
        return Coin(outpoint=outpoint, txout=coin[0], confirmations=self.height - coin[1] + 1)

    def _is_final(self, tx: Tx) -> bool:
        if self.height + 1 <= tx.nlocktime < LOCKTIME_THRESHOLD:
            return False
        for tx_in in tx.inputs:
            if tx.version < 2 or tx_in.nsequence & NSEQUENCE_DISABLE_FLAG:
                continue
            coin = self.coins.get(tx_in.outpoint)
            if coin is None or self.height + 1 < coin[1] + (tx_in.nsequence & 0xFFFF):
                return False
        return True

    def _connect(self, txs: tuple[Tx, ...], block_hash: Txid | None = None) -> None:
        height = len(self.blocks)
        self.blocks.append((block_hash or Txid(self._hash("block")), txs))
        for tx in txs:
            for tx_in in tx.inputs:
                self.coins.pop(tx_in.outpoint, None)
            for vout, out in enumerate(tx.outputs):
                self.coins[tx.outpoint(vout)] = (out, height)
            self.confirmed[tx.txid] = height
            self.mempool.pop(tx.txid, None)

    def _hash(self, what: str) -> bytes:
        return hashlib.sha256(f"{what} {len(self.blocks)}{'*' * self.n_removed}".encode()).digest()


def _outpoints(tx: Tx) -> frozenset[OutPoint]:
    return frozenset(tx_in.outpoint for tx_in in tx.inputs)
