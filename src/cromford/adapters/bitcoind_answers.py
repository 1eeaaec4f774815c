"""Reading what Bitcoin Core answers: fields of the right kind, exact amounts, transactions named.

Whatever cannot be read is `ChainUnavailable`, naming the field: a node that answers so is not one
to act on.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final, TypeVar

from cromford.bitcoin.timelock import LOCKTIME_THRESHOLD
from cromford.bitcoin.tx import MAX_MONEY_SAT, SAT_PER_BTC, WITNESS_SCALE, OutPoint, Tx, Txid
from cromford.ports import (
    ChainUnavailable,
    Known,
    MempoolTx,
    NotTaken,
    PackageAnswer,
    RelayFeerates,
    Taken,
    Verdict,
)

# The node's words for a transaction it has: in the mempool, the same but for its witness, or in a
# block with an output still unspent.
KNOWN_REASONS: Final = frozenset(
    {
        "txn-already-in-mempool",
        "txn-same-nonwitness-data-in-mempool",
        "txn-already-known",
        "Transaction outputs already in utxo set",
        "Transaction already in block chain",
    }
)
MAX_MONEY_BTC: Final = MAX_MONEY_SAT // SAT_PER_BTC
SATOSHI_BTC: Final = Decimal(1).scaleb(-8)
NOT_VALIDATED: Final = "package-not-validated"
MISSING_INPUTS: Final = "bad-txns-inputs-missingorspent"
BLOCK_TIME_MAX: Final = 2**32 - 1
TRANSACTION_FAILED: Final = "transaction failed"  # Of a package: look at its transactions.

_Kind = TypeVar("_Kind")


def read_package(txs: Sequence[Tx], told: object) -> tuple[str, PackageAnswer]:
    """Return the message of a `submitpackage`, and what became of each transaction."""
    package = expect(told, dict, "submitpackage")
    message = expect(package.get("package_msg"), str, "package_msg")
    results = expect(package.get("tx-results"), dict, "tx-results")
    verdicts = [_verdict(tx, results, is_success=message == "success") for tx in txs]
    if not isinstance(verdicts[-1], NotTaken):
        # Where the child has got in, its parents are there. A node without an index cannot tell a
        # confirmed transaction whose outputs are all spent from one that spends what is not there.
        verdicts = [
            Known(txid=verdict.txid) if isinstance(verdict, NotTaken) else verdict
            for verdict in verdicts
        ]
    replaced = expect(package.get("replaced-transactions", []), list, "replaced-transactions")
    return message, PackageAnswer(
        verdicts=tuple(verdicts),
        replaced=tuple(read_hash(txid, "replaced-transactions") for txid in replaced),
    )


def _verdict(tx: Tx, results: Mapping[str, object], *, is_success: bool) -> Verdict:
    result = expect(results.get(str(tx.wtxid), {}), dict, "tx-results")
    if "error" in result:
        reason = expect(result["error"], str, "error")
        is_known = reason in KNOWN_REASONS
        return Known(txid=tx.txid) if is_known else NotTaken(txid=tx.txid, reason=reason)
    if "fees" not in result:
        # The mempool has it with another witness; or the package failed before it came to this.
        is_there = is_success or "other-wtxid" in result
        return Known(txid=tx.txid) if is_there else NotTaken(txid=tx.txid, reason=NOT_VALIDATED)
    fees = expect(result["fees"], dict, "fees")
    if "effective-feerate" not in fees:
        return Known(txid=tx.txid)
    return Taken(
        txid=tx.txid,
        fee_sat=read_amount_sat(fees.get("base"), "fees.base"),
        vsize=expect(result.get("vsize"), int, "vsize"),
    )


def not_judged(txs: Sequence[Tx], answer: PackageAnswer) -> list[Tx]:
    """Return what a node did not look at because the others are known to it."""
    left = [
        tx
        for tx, verdict in zip(txs, answer.verdicts, strict=True)
        if isinstance(verdict, NotTaken) and verdict.reason == NOT_VALIDATED
    ]
    n_known = sum(isinstance(verdict, Known) for verdict in answer.verdicts)
    return left if n_known and n_known + len(left) == len(txs) else []


def package_reason(message: str, answer: PackageAnswer) -> str:
    """Return why a package was refused: as a whole, or the child, or else what it waits for."""
    reasons = [
        verdict.reason
        for verdict in answer.verdicts
        if isinstance(verdict, NotTaken) and verdict.reason != NOT_VALIDATED
    ]
    if message != TRANSACTION_FAILED or not reasons:
        return message
    own = [reason for reason in reasons if reason != MISSING_INPUTS]
    return own[-1] if own else MISSING_INPUTS


def read_mempool_tx(txid: Txid, told: object) -> MempoolTx:
    """Return what a `getmempoolentry` says of a transaction.

    Raises:
        ChainUnavailable: If it cannot be read.
    """
    entry = expect(told, dict, "getmempoolentry")
    fees = expect(entry.get("fees"), dict, "fees")
    fee_sat = read_amount_sat(fees.get("base"), "fees.base")
    vsize = expect(entry.get("vsize"), int, "vsize")
    descendants_fee_sat = read_amount_sat(fees.get("descendant"), "fees.descendant")
    if "chunk" in fees:
        package_fee_sat = read_amount_sat(fees["chunk"], "fees.chunk")
        package_weight = expect(entry.get("chunkweight"), int, "chunkweight")
    else:
        package_fee_sat, package_vsize = _package_before_31(
            own=(fee_sat, vsize),
            with_ancestors=(
                read_amount_sat(fees.get("ancestor"), "fees.ancestor"),
                expect(entry.get("ancestorsize"), int, "ancestorsize"),
            ),
            with_descendants=(
                descendants_fee_sat,
                expect(entry.get("descendantsize"), int, "descendantsize"),
            ),
        )
        package_weight = WITNESS_SCALE * package_vsize
    if min(vsize, package_weight) < 1:
        raise ChainUnavailable(f"vsize: expected at least 1, received {vsize}")
    return MempoolTx(
        txid=txid,
        wtxid=read_hash(entry.get("wtxid"), "wtxid"),
        fee_sat=fee_sat,
        vsize=vsize,
        weight=max(expect(entry.get("weight"), int, "weight"), WITNESS_SCALE * vsize - 3),
        replaced_fee_sat=descendants_fee_sat,
        package_fee_sat=package_fee_sat,
        package_weight=package_weight,
        parents=_read_hashes(entry.get("depends"), "depends"),
        children=_read_hashes(entry.get("spentby"), "spentby"),
    )


def _package_before_31(
    *, own: tuple[int, int], with_ancestors: tuple[int, int], with_descendants: tuple[int, int]
) -> tuple[int, int]:
    """Return the fee and the size of what a transaction is mined with.

    Core tells it since version 31. Before, it follows for a parent with one child: the child's
    feerate pulls the parent along where it is the higher one. In larger families it is an estimate.
    """
    if with_ancestors != own:
        return min(own, with_ancestors, key=_rate)
    return max(own, with_descendants, key=_rate)


def _rate(fee_and_vsize: tuple[int, int]) -> Fraction:
    fee_sat, vsize = fee_and_vsize
    return Fraction(fee_sat, max(vsize, 1))


def read_spenders(outpoints: Sequence[OutPoint], told: object) -> dict[OutPoint, Txid]:
    """Return what a `gettxspendingprevout` found in the mempool.

    A node with an index of spent outputs tells of blocks, too.

    Raises:
        ChainUnavailable: If it cannot be read, or answers what was not asked.
    """
    answers = expect(told, list, "gettxspendingprevout")
    asked = {(str(outpoint.txid), outpoint.vout): outpoint for outpoint in outpoints}
    found: dict[OutPoint, Txid] = {}
    for answer in answers:
        spent = expect(answer, dict, "gettxspendingprevout")
        name = (expect(spent.get("txid"), str, "txid"), expect(spent.get("vout"), int, "vout"))
        if name not in asked:
            raise ChainUnavailable(f"gettxspendingprevout: not asked for {name!r:.100}")
        if "spendingtxid" in spent and "blockhash" not in spent:
            found[asked[name]] = read_hash(spent["spendingtxid"], "spendingtxid")
    return found


def read_relay_feerates(told: object) -> RelayFeerates:
    """Return the feerates of a `getmempoolinfo`."""
    info = expect(told, dict, "getmempoolinfo")
    names = ("mempoolminfee", "minrelaytxfee", "incrementalrelayfee")
    mempool_min, min_relay, incremental = (read_sat_per_kw(info.get(name), name) for name in names)
    return RelayFeerates(
        mempool_min_sat_per_kw=max(mempool_min, min_relay),
        min_relay_sat_per_kw=min_relay,
        incremental_sat_per_kw=incremental,
    )


def read_estimate(told: object) -> int | None:
    """Return the feerate of an `estimatesmartfee`; None where the node has none."""
    estimate = expect(told, dict, "estimatesmartfee")
    if "feerate" not in estimate:
        return None
    return read_sat_per_kw(estimate["feerate"], "feerate")


def read_sat_per_kw(value: object, field: str) -> int:
    """Return a feerate that is given in bitcoin per 1000 virtual bytes, rounded up."""
    return -(-read_amount_sat(value, field) // WITNESS_SCALE)


def expect(value: object, kind: type[_Kind], field: str) -> _Kind:
    """Return a value of the right kind.

    Raises:
        ChainUnavailable: If it is of another.
    """
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ChainUnavailable(f"{field}: expected {kind.__name__}, received {value!r:.100}")
    return value


def read_height(value: object, field: str, *, least: int = 0) -> int:
    """Return a height. Above the last one, nLockTime means a time (BIP 65).

    Raises:
        ChainUnavailable: If it is none.
    """
    return _within(expect(value, int, field), least, LOCKTIME_THRESHOLD - 1, field)


def read_time(value: object, field: str) -> int:
    """Return the stamp of a block, in seconds since 1970, UTC: four bytes of its header.

    Raises:
        ChainUnavailable: If it is none.
    """
    return _within(expect(value, int, field), 0, BLOCK_TIME_MAX, field)


def _within(value: int, least: int, most: int, field: str) -> int:
    if not least <= value <= most:
        raise ChainUnavailable(f"{field}: expected {least}..{most}, received {value}")
    return value


def read_hash(value: object, field: str) -> Txid:
    """Return a hash out of its reversed hex.

    Raises:
        ChainUnavailable: If it is none.
    """
    try:
        return Txid.from_hex(expect(value, str, field))
    except ValueError as error:
        raise ChainUnavailable(f"{field}: {error}") from error


def _read_hashes(value: object, field: str) -> frozenset[Txid]:
    return frozenset(read_hash(item, field) for item in expect(value, list, field))


def read_hex(value: object, field: str) -> bytes:
    """Return bytes out of their hex.

    Raises:
        ChainUnavailable: If it is none.
    """
    try:
        return bytes.fromhex(expect(value, str, field))
    except ValueError as error:
        raise ChainUnavailable(f"{field}: expected hex digits") from error


def read_amount_sat(value: object, field: str) -> int:
    """Return an amount in satoshi. It travels as decimal bitcoins, which a float would round.

    Raises:
        ChainUnavailable: If it is none, more than there will ever be, or not whole satoshis.
    """
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ChainUnavailable(f"{field}: expected a number, received {value!r:.100}")
    amount_btc = Decimal(value)
    # The range first: what is far outside takes long to write out, and rounds to what is inside.
    if not amount_btc.is_finite() or not 0 <= amount_btc <= MAX_MONEY_BTC:
        raise ChainUnavailable(
            f"{field}: expected 0..{MAX_MONEY_BTC} bitcoins, received {amount_btc:.16g}"
        )
    rounded_btc = amount_btc.quantize(SATOSHI_BTC)
    if rounded_btc != amount_btc:
        raise ChainUnavailable(f"{field}: expected whole satoshis, received {amount_btc:.16g}")
    return int(rounded_btc * SAT_PER_BTC)
