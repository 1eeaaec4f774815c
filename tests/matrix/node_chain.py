"""The embedded node as the one chain of a world: Core's consensus code, its policy, real blocks.

Strangers fill the blocks where the market says so: a transaction that pays less than they do is
not mined, and one below the mempool's minimum is not even relayed.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from cromford.bitcoin.block import Coin
from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB, fee_sat_of
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto.keys import sha256
from cromford.ports import MempoolTx, RelayFeerates
from cromford.regtest.candidate import AlreadyThere
from cromford.regtest.chain import IndexedBlock
from cromford.regtest.kernel import BlockRefused
from cromford.regtest.ledger import Ledger
from cromford.regtest.options import RESERVED_WEIGHT, Options
from cromford.regtest.verdict import MempoolRefused
from tests.matrix.market import Market
from tests.simulation.sim_chain import SimChain, SimRefused

TRUE_SCRIPT: Final = b"\x51"
STRANGERS: Final = b"\x00\x20" + sha256(TRUE_SCRIPT)  # Anybody may spend it.
STRANGERS_WITNESS: Final = (TRUE_SCRIPT,)
CLOCK: Final = 1_700_000_000  # It stands still: hashes repeat, and no minimum falls.
MATURITY_BLOCKS: Final = 101
N_STRANGERS: Final = 60  # Transactions that fill a block.
STRANGERS_COIN_SAT: Final = 10_000_000
FUNDED_FEE_SAT: Final = 10_000
MOST_SAT_PER_VB: Final = 10_000  # Core takes a higher feerate for a mistake.
FINAL_NSEQUENCE: Final = 0xFFFF_FFFF


class NodeChain(SimChain):
    """The chain that a pump's participants see.

    Attributes:
        ledger: The embedded node, without its wire.
        txs: Every confirmed transaction, by name.
        spends: By outpoint, the confirmed transaction that spends it.
        paid_to: By script, the confirmed outputs that pay to it, spent or not.
        base_height: From where on participants look.
    """

    def __init__(self) -> None:
        super().__init__()
        block_weight = RESERVED_WEIGHT + N_STRANGERS * _stranger(_nowhere(), 1, 0).weight + 1
        self.ledger = Ledger(None, lambda: CLOCK, Options(block_weight_max=block_weight))
        self.txs: dict[Txid, Tx] = {}
        self.spends: dict[OutPoint, Tx] = {}
        self.paid_to: dict[bytes, list[OutPoint]] = {}
        self.market: Market | None = None
        self._strangers: set[Txid] = set()
        self._free: dict[OutPoint, int] = {}
        self._is_full = False
        self._note(self.ledger.chain.tip)
        for _ in range(MATURITY_BLOCKS):
            self._note(self.ledger.mine(STRANGERS))
        self.base_height = self.height
        self._purse_height = 0

    def open_market(self, market: Market) -> None:
        """Let the feerates of a market hold from here on."""
        if market.filled_at_sat_per_vb:
            self.fund_all([(STRANGERS, STRANGERS_COIN_SAT)] * N_STRANGERS)
            self._is_full = True
            (_, tx) = self.blocks[-1][1]
            self._free = {
                tx.outpoint(vout): out.amount_sat
                for vout, out in enumerate(tx.outputs)
                if out.amount_sat == STRANGERS_COIN_SAT
            }
        self.ledger.estimates_sat_per_kvb = dict(market.estimates_sat_per_kvb)
        self.ledger.limit.set_minimum(market.minimum_sat_per_kvb)
        self.market = market

    def calm(self, market: Market) -> None:
        """Let the strangers go, and the feerates be those of a quiet market."""
        self._is_full = False
        self.ledger.estimates_sat_per_kvb = dict(market.estimates_sat_per_kvb)
        self.ledger.limit.set_minimum(market.minimum_sat_per_kvb)

    # What a world does

    def fund(self, script_pubkey: bytes, amount_sat: int) -> None:
        """Mine a block that gives somebody a coin."""
        self.fund_all([(script_pubkey, amount_sat)])

    def fund_all(self, paid: Sequence[tuple[bytes, int]]) -> None:
        """Mine a block that gives somebody coins, out of the subsidy of an old block."""
        self._purse_height += 1
        (coinbase, *_) = self.blocks[self._purse_height][1]
        left_sat = coinbase.outputs[0].amount_sat - FUNDED_FEE_SAT - sum(sat for _, sat in paid)
        tx = Tx(
            version=2,
            inputs=(
                TxIn(
                    outpoint=coinbase.outpoint(0),
                    nsequence=FINAL_NSEQUENCE,
                    witness=STRANGERS_WITNESS,
                ),
            ),
            outputs=tuple(
                TxOut(amount_sat=sat, script_pubkey=script)
                for script, sat in (*paid, (STRANGERS, left_sat))
            ),
        )
        self._connect_block([tx])

    def mine(self) -> None:
        """Mine what pays best; the strangers take the rest of the room."""
        if self.mempool and self._is_full:
            self._let_strangers_in()
        self._note(self.ledger.mine(STRANGERS))

    def mine_these(self, txs: Sequence[Tx]) -> None:
        """Mine a block with these and nothing else, as a miner may who is asked to."""
        self._connect_block(txs)

    def refusal_by_block(self, tx: Tx) -> str | None:
        """Say why no block can hold a transaction now, by consensus; None if one can.

        Nothing changes where it is refused.
        """
        try:
            self._connect_block([tx])
        except BlockRefused as refused:
            return refused.result
        return None

    def remove_tip(self, n_blocks: int) -> None:
        """No world of the matrix takes blocks back."""
        raise NotImplementedError(f"{n_blocks} blocks")

    def close(self) -> None:
        """Release the kernel."""
        self.ledger.close()

    # What a node answers

    @property
    def relay(self) -> RelayFeerates:
        """What its nodes ask for today."""
        options, limit = self.ledger.options, self.ledger.limit
        return RelayFeerates(
            mempool_min_sat_per_kw=_per_kw(limit.minimum_sat_per_kvb),
            min_relay_sat_per_kw=_per_kw(options.min_relay_sat_per_kvb),
            incremental_sat_per_kw=_per_kw(options.incremental_relay_sat_per_kvb),
        )

    @relay.setter
    def relay(self, _said: RelayFeerates) -> None:
        """Nobody says it but the node."""

    def estimate_sat_per_kw(self, target_blocks: int) -> int | None:
        """Return the estimate for that target or a sooner one, or None."""
        estimates = self.ledger.estimates_sat_per_kvb
        soon = [blocks for blocks in estimates if blocks <= target_blocks]
        if not soon:
            return None
        return _per_kw(max(estimates[max(soon)], self.ledger.limit.minimum_sat_per_kvb))

    def broadcast(self, tx: Tx) -> None:
        """Take a transaction into the mempool.

        Raises:
            SimRefused: In the node's own words.
        """
        if tx.txid in self.ledger.mempool or tx.txid in self.confirmed:
            return
        try:
            tested = self.ledger.test_one(tx)
            if tested.fee_sat > MOST_SAT_PER_VB * tested.vsize:
                raise SimRefused("max-fee-exceeded")
            self.ledger.submit(tx)
        except MempoolRefused as refused:
            raise SimRefused(str(refused)) from refused
        finally:
            self._look()

    def broadcast_package(self, parent: Tx, child: Tx) -> None:
        """Take a parent and its child, which pays what the parent is short of.

        Raises:
            SimRefused: If not both are there then.
        """
        if parent.txid in self.confirmed:
            self.broadcast(child)
            return
        answer = self.ledger.submit_package([parent, child], Fraction(MOST_SAT_PER_VB))
        self._look()
        refusals = [
            str(result)
            for tx in (child, parent)
            if not isinstance(result := answer.results.get(tx.wtxid), AlreadyThere)
            and (result is None or isinstance(result, MempoolRefused))
        ]
        if answer.error is not None or refusals:
            raise SimRefused("; ".join([str(answer.error), *refusals]))

    def mempool_tx(self, txid: Txid) -> MempoolTx | None:
        """Return what the mempool has of a transaction, or None."""
        mempool = self.ledger.mempool
        entry = mempool.get(txid)
        if entry is None:
            return None
        hanging = mempool.weighted(mempool.descendants((txid,)))
        [chunk] = [one for one in mempool.chunks() if txid in one.txids]
        return MempoolTx(
            txid=txid,
            wtxid=entry.tx.wtxid,
            fee_sat=entry.fee_sat,
            vsize=entry.vsize,
            weight=entry.weight,
            replaced_fee_sat=sum(one.fee_sat for one in hanging.values()),
            package_fee_sat=chunk.fee_sat,
            package_weight=chunk.weight,
            parents=frozenset(mempool.parents_of(entry.tx)),
            children=frozenset(mempool.children(txid)),
        )

    def spenders(self, outpoints: Sequence[OutPoint]) -> dict[OutPoint, Txid]:
        """Return by what in the mempool each is spent, where one is."""
        return {
            outpoint: txid
            for outpoint in outpoints
            if (txid := self.ledger.mempool.spender(outpoint)) is not None
        }

    def coin(self, outpoint: OutPoint) -> Coin | None:
        """Return a confirmed, unspent output."""
        coin = self.ledger.chain.coin(outpoint)
        if coin is None:
            return None
        confirmations = self.height - coin.height + 1
        return Coin(outpoint=outpoint, txout=coin.txout, confirmations=confirmations)

    def fee_sat(self, tx: Tx) -> int:
        """Return what a transaction pays whose inputs are, or were, somewhere.

        Raises:
            SimRefused: If an input is not known.
        """
        spent_sat = sum(self.output(tx_in.outpoint).amount_sat for tx_in in tx.inputs)
        return spent_sat - sum(out.amount_sat for out in tx.outputs)

    def output(self, outpoint: OutPoint) -> TxOut:
        """Return an output of a transaction that confirmed or waits, spent or not.

        Raises:
            SimRefused: If there is none.
        """
        tx = self.txs.get(outpoint.txid) or self.mempool.get(outpoint.txid)
        if tx is None or outpoint.vout >= len(tx.outputs):
            raise SimRefused(f"missing input {outpoint}")
        return tx.outputs[outpoint.vout]

    # How it works

    def _connect_block(self, txs: Sequence[Tx]) -> None:
        self._note(self.ledger.connect(self.ledger.build(STRANGERS, txs)))

    def _note(self, indexed: IndexedBlock) -> None:
        txs = indexed.block.txs
        height = len(self.blocks)
        self.blocks.append((indexed.block_hash, txs))
        for tx in txs:
            self.txs[tx.txid] = tx
            self.confirmed[tx.txid] = height
            self.spends.update({tx_in.outpoint: tx for tx_in in tx.inputs})
            for vout, out in enumerate(tx.outputs):
                self.paid_to.setdefault(out.script_pubkey, []).append(tx.outpoint(vout))
            if tx.txid in self._strangers:
                self._strangers.discard(tx.txid)
                self._free[tx.outpoint(0)] = tx.outputs[0].amount_sat
        self._look()

    def _look(self) -> None:
        self.mempool = {
            entry.tx.txid: entry.tx
            for entry in self.ledger.mempool
            if entry.tx.txid not in self._strangers
        }

    def _let_strangers_in(self) -> None:
        """Let so many wait that they fill a block, at the market's feerate."""
        assert self.market is not None
        feerate = self.market.filled_at_sat_per_vb * SAT_PER_KW_OF_SAT_PER_VB
        while len(self._strangers) < N_STRANGERS and self._free:
            outpoint, amount_sat = self._free.popitem()
            vsize = _stranger(outpoint, amount_sat, 0).vsize
            fee_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=feerate)
            tx = _stranger(outpoint, amount_sat, fee_sat)
            self._strangers.add(tx.txid)
            self.ledger.submit(tx)


def _stranger(outpoint: OutPoint, amount_sat: int, fee_sat: int) -> Tx:
    """Return a transaction of somebody else."""
    return Tx(
        version=2,
        inputs=(TxIn(outpoint=outpoint, nsequence=FINAL_NSEQUENCE, witness=STRANGERS_WITNESS),),
        outputs=(TxOut(amount_sat=amount_sat - fee_sat, script_pubkey=STRANGERS),),
    )


def _nowhere() -> OutPoint:
    return OutPoint(txid=Txid(bytes(32)), vout=0)


def _per_kw(sat_per_kvb: int) -> int:
    return -(-sat_per_kvb * SAT_PER_KW_OF_SAT_PER_VB // 1000)
