"""What a mempool in memory has of a transaction: its family, and what it is mined with."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from cromford.bitcoin.tx import OutPoint, Tx, Txid
from cromford.ports import MempoolTx, RelayFeerates

RELAY_FEERATES = RelayFeerates(
    mempool_min_sat_per_kw=25, min_relay_sat_per_kw=25, incremental_sat_per_kw=25
)


def spenders_among(txs: Sequence[Tx], outpoints: Sequence[OutPoint]) -> dict[OutPoint, Txid]:
    spent = {tx_in.outpoint: tx.txid for tx in txs for tx_in in tx.inputs}
    return {outpoint: spent[outpoint] for outpoint in outpoints if outpoint in spent}


def mempool_tx_of(
    txid: Txid, waiting: Mapping[Txid, Tx], fee_sat_of: Callable[[Tx], int]
) -> MempoolTx | None:
    """Return a transaction with its parent or its child: families here have two generations."""
    tx = waiting.get(txid)
    if tx is None:
        return None
    parents = {tx_in.outpoint.txid for tx_in in tx.inputs} & waiting.keys()
    children = set(spenders_among(list(waiting.values()), tx.outpoints).values())
    alone = (fee_sat_of(tx), tx.weight)
    family = [waiting[one] for one in sorted(parents | children | {txid})]
    together = (sum(map(fee_sat_of, family)), sum(one.weight for one in family))
    # A child that pays more than its parent pulls it along; one that pays less comes later.
    choose = min if parents else max
    package_fee_sat, package_weight = choose(alone, together, key=_rate)
    return MempoolTx(
        txid=txid,
        wtxid=tx.wtxid,
        fee_sat=fee_sat_of(tx),
        vsize=tx.vsize,
        weight=tx.weight,
        replaced_fee_sat=fee_sat_of(tx) + sum(fee_sat_of(waiting[one]) for one in children),
        package_fee_sat=package_fee_sat,
        package_weight=package_weight,
        parents=frozenset(parents),
        children=frozenset(children),
    )


def _rate(fee_and_weight: tuple[int, int]) -> Fraction:
    return Fraction(*fee_and_weight)
