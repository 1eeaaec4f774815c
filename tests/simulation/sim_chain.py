"""A chain in memory with the rules that matter: coins exist once, scripts hold, timelocks hold.

Its mempool has families of version 3: a parent and one child, which another child may replace.
"""

import hashlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from cromford.bitcoin.block import Coin
from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.replacement import FeeAndWeight, replacement_fee_sat
from cromford.bitcoin.timelock import LOCKTIME_THRESHOLD, NSEQUENCE_DISABLE_FLAG
from cromford.bitcoin.tx import TRUC_VERSION, OutPoint, Tx, Txid, TxIn, TxOut
from cromford.ports import MempoolTx, RelayFeerates
from cromford.regtest.kernel import ScriptRefused, check_scripts
from tests.families import mempool_tx_of, spenders_among

FREE_RELAY = RelayFeerates(
    mempool_min_sat_per_kw=0, min_relay_sat_per_kw=0, incremental_sat_per_kw=25
)


class SimRefused(Exception):
    """A transaction this chain does not take."""


@dataclass
class SimChain:
    """Blocks, coins and a mempool. Scripts are checked by the kernel.

    Attributes:
        relay: What its nodes ask for. Nothing, unless a test says otherwise.
        floor_sat_per_kw: What a block takes: a family that pays less waits.
        estimates: What they estimate, by target.
    """

    blocks: list[tuple[Txid, tuple[Tx, ...]]] = field(default_factory=list)
    coins: dict[OutPoint, tuple[TxOut, int]] = field(default_factory=dict)
    mempool: dict[Txid, Tx] = field(default_factory=dict)
    confirmed: dict[Txid, int] = field(default_factory=dict)
    n_removed: int = 0
    relay: RelayFeerates = FREE_RELAY
    floor_sat_per_kw: int = 0
    estimates: dict[int, int] = field(default_factory=dict)

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
        """Mine what waits and pays enough, parents first."""
        paying = self._paying(self.floor_sat_per_kw)
        self._connect(tuple(tx for tx in paying.values() if self._is_final(tx)))

    def ask_for(self, relay: RelayFeerates) -> None:
        """Let the mempool ask for something else; what pays less than its minimum is gone."""
        self.relay = relay
        self.mempool = self._paying(relay.mempool_min_sat_per_kw)

    def _paying(self, least_sat_per_kw: int) -> dict[Txid, Tx]:
        """Return what waits and pays so much with its family, each with all of its parents."""
        if not least_sat_per_kw:
            return dict(self.mempool)
        paying: dict[Txid, Tx] = {}
        for txid, tx in self.mempool.items():
            found = self.mempool_tx(txid)
            assert found is not None
            parents = {tx_in.outpoint.txid for tx_in in tx.inputs} & self.mempool.keys()
            if parents <= paying.keys() and found.package_sat_per_kw >= least_sat_per_kw:
                paying[txid] = tx
        return paying

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
            SimRefused: If it spends what is not there, breaks a script or a timelock, pays too
                little, or is no child that its parent may have.
        """
        self._take(tx, least_fee_sat=self._least_fee_sat(tx))

    def hear_first(self, tx: Tx) -> None:
        """Let whoever finds the next block know this one, and nothing that spends the same.

        Raises:
            SimRefused: If it spends what is not there, or breaks a script or a timelock.
        """
        self._evict(self._conflicts(tx))
        self._take(tx, least_fee_sat=0)

    def broadcast_package(self, parent: Tx, child: Tx) -> None:
        """Take a parent and its child, which pays what the parent is short of.

        Raises:
            SimRefused: If not both are there then.
        """
        short_sat = 0
        if parent.txid not in self.mempool and parent.txid not in self.confirmed:
            short_sat = max(0, self._least_fee_sat(parent) - self.fee_sat(parent))
            self._take(parent, least_fee_sat=0)
        try:
            self._take(child, least_fee_sat=self._least_fee_sat(child) + short_sat)
        except SimRefused:
            if short_sat:
                del self.mempool[parent.txid]
            raise

    def mempool_tx(self, txid: Txid) -> MempoolTx | None:
        """Return what the mempool has of a transaction, or None."""
        return mempool_tx_of(txid, self.mempool, self.fee_sat)

    def spenders(self, outpoints: Sequence[OutPoint]) -> dict[OutPoint, Txid]:
        """Return by what in the mempool each is spent, where one is."""
        return spenders_among(list(self.mempool.values()), outpoints)

    def estimate_sat_per_kw(self, target_blocks: int) -> int | None:
        """Return what was set for that target or a sooner one, or None."""
        soon = [blocks for blocks in self.estimates if blocks <= target_blocks]
        return self.estimates[max(soon)] if soon else None

    def fee_sat(self, tx: Tx) -> int:
        """Return what a transaction pays whose inputs are unspent, or spent by the mempool.

        Raises:
            SimRefused: If an input is missing, or less comes in than goes out.
        """
        fee_sat = sum(self._prevout(tx_in.outpoint)[0].amount_sat for tx_in in tx.inputs)
        fee_sat -= sum(out.amount_sat for out in tx.outputs)
        if fee_sat < 0:
            raise SimRefused("in-belowout")
        return fee_sat

    def _take(self, tx: Tx, *, least_fee_sat: int) -> None:
        if tx.txid in self.mempool or tx.txid in self.confirmed:
            return
        prevouts = [self._prevout(tx_in.outpoint)[0] for tx_in in tx.inputs]
        outpaid = self._conflicts(tx)
        rival = None if outpaid else self._rival(tx)
        if not self._is_final(tx):
            raise SimRefused("non-BIP68-final")
        fee_sat = self.fee_sat(tx)
        if rival is not None:
            [parent] = {tx_in.outpoint.txid for tx_in in tx.inputs} & self.mempool.keys()
            least_fee_sat = max(
                least_fee_sat,
                replacement_fee_sat(
                    tx.weight,
                    parent=self._fee_and_weight(self.mempool[parent]),
                    rival=self._fee_and_weight(rival),
                    incremental_sat_per_kw=self.relay.incremental_sat_per_kw,
                ),
            )
        if outpaid:
            # BIP 125, rules 3 and 4.
            paid_sat = sum(self.fee_sat(self.mempool[one]) for one in outpaid)
            own_sat = fee_sat_of(
                vsize=tx.vsize, feerate_sat_per_kw=self.relay.incremental_sat_per_kw
            )
            least_fee_sat = max(least_fee_sat, paid_sat + own_sat)
        if fee_sat < least_fee_sat:
            raise SimRefused(f"insufficient fee: {fee_sat} < {least_fee_sat}")
        try:
            check_scripts(tx, prevouts)
        except ScriptRefused as error:
            raise SimRefused(str(error)) from error
        if rival is not None:
            del self.mempool[rival.txid]
        self._evict(outpaid)
        self.mempool[tx.txid] = tx

    def _conflicts(self, tx: Tx) -> list[Txid]:
        """Return what spends the same coins of blocks, and all that spends from it in turn.

        Nothing of version 3 takes another's place here, but a child its sibling's: of two exits of
        one vertex the first is there.
        """
        coins = [one.outpoint for one in tx.inputs if one.outpoint in self.coins]
        found = list(dict.fromkeys(self.spenders(coins).values()))
        if any(one.version == TRUC_VERSION for one in (tx, *map(self.mempool.__getitem__, found))):
            return []
        for txid in found:
            children = self.spenders(self.mempool[txid].outpoints).values()
            found += [child for child in children if child not in found]
        return found

    def _evict(self, txids: Sequence[Txid]) -> None:
        for txid in txids:
            del self.mempool[txid]

    def _rival(self, tx: Tx) -> Tx | None:
        """Return the other child of its parent, if there is one.

        Raises:
            SimRefused: If what stands in the way cannot be replaced.
        """
        parents = {tx_in.outpoint.txid for tx_in in tx.inputs} & self.mempool.keys()
        if parents and all(one.version != TRUC_VERSION for one in self._family(tx, parents)):
            return self._replaced(tx)
        for tx_in in tx.inputs:
            [spender] = self.spenders([tx_in.outpoint]).values() or [None]
            if spender is not None and tx_in.outpoint.txid not in parents:
                raise SimRefused(f"conflict over {tx_in.outpoint}")
        if not parents:
            return None
        family = self._family(tx, parents)
        grandparents = {tx_in.outpoint.txid for one in family[1:] for tx_in in one.inputs}
        if (
            len(parents) > 1
            or grandparents & self.mempool.keys()
            or any(one.version != TRUC_VERSION for one in family)
        ):
            raise SimRefused("TRUC-violation")
        [parent] = parents
        siblings = self.spenders(self.mempool[parent].outpoints).values()
        return next((self.mempool[sibling] for sibling in siblings), None)

    def _family(self, tx: Tx, parents: AbstractSet[Txid]) -> list[Tx]:
        return [tx, *(self.mempool[parent] for parent in sorted(parents))]

    def _replaced(self, tx: Tx) -> Tx | None:
        """Return the one that spends the same output of a parent without version 3 (BIP 125)."""
        rivals = set(self.spenders([tx_in.outpoint for tx_in in tx.inputs]).values())
        if len(rivals) > 1:
            raise SimRefused("conflict over several")
        return next((self.mempool[rival] for rival in rivals), None)

    def _prevout(self, outpoint: OutPoint) -> tuple[TxOut, int]:
        """Return an output and its height; for an unconfirmed one, that of the next block."""
        parent = self.mempool.get(outpoint.txid)
        if parent is not None and outpoint.vout < len(parent.outputs):
            return parent.outputs[outpoint.vout], self.height + 1
        coin = self.coins.get(outpoint)
        if coin is None:
            raise SimRefused(f"missing input {outpoint}")
        return coin

    def _least_fee_sat(self, tx: Tx) -> int:
        return fee_sat_of(vsize=tx.vsize, feerate_sat_per_kw=self.relay.mempool_min_sat_per_kw)

    def _fee_and_weight(self, tx: Tx) -> FeeAndWeight:
        return FeeAndWeight(self.fee_sat(tx), tx.weight)

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
            _, height = self._prevout(tx_in.outpoint)
            if self.height + 1 < height + (tx_in.nsequence & 0xFFFF):
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
