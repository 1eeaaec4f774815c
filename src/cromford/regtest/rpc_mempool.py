"""The methods that offer transactions to the mempool, and those that look into it."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

from cromford.bitcoin.tx import OutPoint, Tx
from cromford.regtest import params, policy, scripts
from cromford.regtest.candidate import Accepted, AlreadyThere, PackageResult
from cromford.regtest.ledger import Ledger
from cromford.regtest.linearize import chunks_of
from cromford.regtest.mempool import MempoolEntry
from cromford.regtest.package_form import PACKAGE_TXS_MAX, is_child_with_parents
from cromford.regtest.params import RpcError
from cromford.regtest.render import BtcAmount, Json
from cromford.regtest.verdict import MempoolRefused, RefusalKind

FEERATE_MAX_DEFAULT_SAT: Final = 10_000_000  # 0.10 BTC per kvB, Core's guard against typos.
FEERATE_MAX_SAT: Final = 100_000_000

FEE_EXCEEDED: Final = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)"
BURN_EXCEEDED: Final = "Unspendable output exceeds maximum configured by user (maxburnamount)"


def sendrawtransaction(ledger: Ledger, raw_hex: str, feerate_max: object, burn_max: object) -> str:
    """Accept a transaction into the mempool, and return its id.

    Raises:
        RpcError: If it is refused, with the reason.
    """
    burn_max_sat = _burn_max_sat(burn_max)
    tx = params.transaction(raw_hex)
    _check_burn(tx, burn_max_sat)
    rate_sat = _feerate_max_sat(feerate_max)
    if any(ledger.chain.coin(outpoint) is not None for outpoint in tx.outpoints):
        message = "Transaction outputs already in utxo set"
        raise RpcError(params.ALREADY_IN_UTXO_SET, message)
    if tx.txid in ledger.mempool:
        return str(tx.txid)
    try:
        if rate_sat:
            tested = ledger.test_one(tx)
            if tested.fee_sat > _fee_at(rate_sat, tx.vsize):
                raise RpcError(params.TRANSACTION_ERROR, FEE_EXCEEDED)
        ledger.submit(tx)
    except MempoolRefused as refused:
        is_missing = refused.kind is RefusalKind.MISSING_INPUTS
        code = params.TRANSACTION_ERROR if is_missing else params.TRANSACTION_REJECTED
        raise RpcError(code, str(refused)) from None
    return str(tx.txid)


def testmempoolaccept(ledger: Ledger, raw_txs: list[Any], feerate_max: object) -> list[Json]:
    """Return how transactions would be accepted; nothing changes."""
    _check_count(raw_txs)
    rate_sat = _feerate_max_sat(feerate_max)
    txs = [_package_tx(raw) for raw in raw_txs]
    outcome = ledger.test(txs)
    shown: list[Json] = []
    is_stopped = False
    for tx in txs:
        one: Json = {"txid": str(tx.txid), "wtxid": str(tx.wtxid)}
        if outcome.error is not None and outcome.error.is_policy:
            one["package-error"] = str(outcome.error)
        result = outcome.results.get(tx.wtxid)
        if isinstance(result, MempoolRefused):
            one |= _refusal_json(result)
        elif isinstance(result, Accepted) and not is_stopped:
            is_stopped = bool(rate_sat) and result.fee_sat > _fee_at(rate_sat, result.vsize)
            one |= _tested_json(result, is_too_dear=is_stopped)
        shown.append(one)
    return shown


def submitpackage(
    ledger: Ledger, raw_txs: list[Any], feerate_max: object, burn_max: object
) -> Json:
    """Accept a child with its parents, where they pay together if not each alone.

    Raises:
        RpcError: If a parameter is wrong; what is refused is in the result.
    """
    _check_count(raw_txs)
    rate_sat = _feerate_max_sat(feerate_max)
    burn_max_sat = _burn_max_sat(burn_max)
    txs: list[Tx] = []
    for raw in raw_txs:
        txs.append(_package_tx(raw))
        _check_burn(txs[-1], burn_max_sat)
    if len(txs) > 1 and not is_child_with_parents(txs):
        raise RpcError(
            params.TRANSACTION_ERROR,
            "package topology disallowed. not child-with-parents or parents depend on each other.",
        )
    outcome = ledger.submit_package(txs, Fraction(rate_sat, 1000) if rate_sat else None)
    accepted = [one for one in outcome.results.values() if isinstance(one, Accepted)]
    replaced = sorted(str(txid) for one in accepted for txid in one.replaced)
    return {
        "package_msg": "success" if outcome.error is None else str(outcome.error),
        "tx-results": {str(tx.wtxid): _package_tx_json(tx, outcome) for tx in txs},
        "replaced-transactions": replaced,
    }


def _package_tx_json(tx: Tx, outcome: PackageResult) -> Json:
    shown: Json = {"txid": str(tx.txid)}
    match outcome.results.get(tx.wtxid):
        case MempoolRefused() as refused:
            return shown | {"error": str(refused)}
        case Accepted() as accepted:
            return shown | {"vsize": accepted.vsize, "fees": _fees_json(accepted)}
        case AlreadyThere(entry=entry) if entry.tx.wtxid != tx.wtxid:
            return shown | {"other-wtxid": str(entry.tx.wtxid)}
        case AlreadyThere(entry=entry):
            return shown | {"vsize": entry.vsize, "fees": {"base": BtcAmount(entry.fee_sat)}}
        case None:
            return shown | {"error": "package-not-validated"}


def _fees_json(accepted: Accepted) -> Json:
    effective_sat = accepted.effective_fee_sat * 1000 // accepted.effective_vsize
    return {
        "base": BtcAmount(accepted.fee_sat),
        "effective-feerate": BtcAmount(effective_sat),
        "effective-includes": [str(wtxid) for wtxid in accepted.effective_includes],
    }


def _tested_json(accepted: Accepted, *, is_too_dear: bool) -> Json:
    if is_too_dear:
        return {"allowed": False, "reject-reason": "max-fee-exceeded"}
    return {"allowed": True, "vsize": accepted.vsize, "fees": _fees_json(accepted)}


def _refusal_json(refused: MempoolRefused) -> Json:
    if refused.kind is RefusalKind.MISSING_INPUTS:
        return {"allowed": False, "reject-reason": "missing-inputs"}
    return {
        "allowed": False,
        "reject-reason": refused.reason,
        "reject-details": str(refused),
    }


def _package_tx(raw: object) -> Tx:
    return params.transaction(params.text(raw), lambda given: f"TX decode failed: {given}")


def _check_count(raw_txs: list[Any]) -> None:
    if not 1 <= len(raw_txs) <= PACKAGE_TXS_MAX:
        raise RpcError(
            params.INVALID_PARAMETER,
            f"Array must contain between 1 and {PACKAGE_TXS_MAX} transactions.",
        )


def _feerate_max_sat(value: object) -> int:
    """Return the most a caller would pay, in satoshi per 1000 virtual bytes; 0 for any."""
    rate_sat = FEERATE_MAX_DEFAULT_SAT if value is None else params.amount_sat(value)
    if rate_sat >= FEERATE_MAX_SAT:
        message = "Fee rates larger than or equal to 1BTC/kvB are not accepted"
        raise RpcError(params.INVALID_PARAMETER, message)
    return rate_sat


def _burn_max_sat(value: object) -> int:
    return 0 if value is None else params.amount_sat(value)


def _check_burn(tx: Tx, burn_max_sat: int) -> None:
    for txout in tx.outputs:
        if scripts.is_unspendable(txout.script_pubkey) and txout.amount_sat > burn_max_sat:
            raise RpcError(params.TRANSACTION_ERROR, BURN_EXCEEDED)


def _fee_at(rate_sat_per_kvb: int, vsize: int) -> int:
    return policy.fee_sat_at(rate_sat_per_kvb, vsize)


def getrawmempool(
    ledger: Ledger,
    is_verbose: bool | None,  # noqa: FBT001 - called by position
    with_sequence: bool | None,  # noqa: FBT001 - called by position
) -> object:
    """Return the ids of what waits, or all about it.

    Raises:
        RpcError: If both forms are asked for.
    """
    if is_verbose:
        if with_sequence:
            message = "Verbose results cannot contain mempool sequence values."
            raise RpcError(params.INVALID_PARAMETER, message)
        return {str(entry.tx.txid): _entry_json(ledger, entry) for entry in ledger.mempool}
    txids = [str(entry.tx.txid) for entry in ledger.mempool]
    if with_sequence:
        return {"txids": txids, "mempool_sequence": ledger.mempool.sequence}
    return txids


def getmempoolentry(ledger: Ledger, txid: str) -> Json:
    """Return all about one transaction that waits.

    Raises:
        RpcError: If it does not wait.
    """
    entry = ledger.mempool.get(params.hash_of(txid, "txid"))
    if entry is None:
        raise RpcError(params.INVALID_ADDRESS_OR_KEY, "Transaction not in mempool")
    return _entry_json(ledger, entry)


def gettxspendingprevout(
    ledger: Ledger, outputs: list[Any], options: dict[str, Any] | None
) -> list[Json]:
    """Return which transactions that wait spend which outputs.

    Raises:
        RpcError: If a parameter is wrong, or the chain is to be searched, too.
    """
    if not outputs:
        message = "Invalid parameter, outputs are missing"
        raise RpcError(params.INVALID_PARAMETER, message)
    chosen = options or {}
    params.check_fields(chosen, {"mempool_only": "bool", "return_spending_tx": "bool"})
    asked = [(output, _outpoint(output)) for output in outputs]
    found: list[Json] = []
    unspent: list[Json] = []
    for output, outpoint in asked:
        spender = ledger.mempool.spender(outpoint)
        entry = None if spender is None else ledger.mempool.get(spender)
        shown = dict(output)
        if entry is None:
            unspent.append(shown)
        else:
            shown["spendingtxid"] = str(entry.tx.txid)
            if chosen.get("return_spending_tx"):
                shown["spendingtx"] = entry.tx.serialize().hex()
        found.append(shown)
    if unspent and chosen.get("mempool_only") is False:
        message = "Mempool lacks a relevant spend, and txospenderindex is unavailable."
        raise RpcError(params.MISC_ERROR, message)
    return found


def _outpoint(output: object) -> OutPoint:
    fields = params.fields(output)
    kinds = {"txid": "string", "vout": "number"}
    params.check_fields(fields, kinds, required=True)
    txid = params.hash_of(fields["txid"], "txid")
    vout = params.integer(fields["vout"])
    if vout < 0:
        message = "Invalid parameter, vout cannot be negative"
        raise RpcError(params.INVALID_PARAMETER, message)
    return OutPoint(txid=txid, vout=vout)


def _entry_json(ledger: Ledger, entry: MempoolEntry) -> Json:
    mempool = ledger.mempool
    txid = entry.tx.txid
    ancestors = [item for item in map(mempool.get, mempool.ancestors((txid,))) if item]
    descendants = [item for item in map(mempool.get, mempool.descendants((txid,))) if item]
    chunks = chunks_of(mempool.weighted(mempool.cluster((txid,))))
    chunk = next(chunk for chunk in chunks if txid in chunk.txids)
    return {
        "vsize": entry.vsize,
        "weight": entry.tx.weight,
        "time": entry.time,
        "height": entry.height,
        "descendantcount": len(descendants),
        "descendantsize": _total(descendants, lambda item: item.vsize),
        "ancestorcount": len(ancestors),
        "ancestorsize": _total(ancestors, lambda item: item.vsize),
        "wtxid": str(entry.tx.wtxid),
        "chunkweight": chunk.weight,
        "fees": {
            "base": BtcAmount(entry.fee_sat),
            "modified": BtcAmount(entry.fee_sat),
            "ancestor": BtcAmount(_total(ancestors, lambda item: item.fee_sat)),
            "descendant": BtcAmount(_total(descendants, lambda item: item.fee_sat)),
            "chunk": BtcAmount(chunk.fee_sat),
        },
        "depends": sorted(str(parent) for parent in mempool.parents_of(entry.tx)),
        "spentby": sorted(str(child) for child in mempool.children(txid)),
        "unbroadcast": True,  # There is no peer it could have been told to.
    }


def _total(entries: list[MempoolEntry], measure: Callable[[MempoolEntry], int]) -> int:
    return sum(measure(entry) for entry in entries)
