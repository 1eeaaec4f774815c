"""The methods that tell what a transaction has to pay, and the two that set it.

`setestimates` and `setmempoolminimum` are this node's own: a fee market of one's own choosing,
where nobody else competes for blocks. Core has neither.
"""

from typing import Any, Final

from cromford.regtest import params
from cromford.regtest.acceptance import CLUSTER_TXS_MAX, CLUSTER_VSIZE_MAX
from cromford.regtest.ledger import Ledger
from cromford.regtest.params import RpcError
from cromford.regtest.render import BtcAmount, Json

TARGET_BLOCKS_MAX: Final = 1008
TARGET_BLOCKS_MIN: Final = 2  # Core estimates no sooner.
MODES: Final = ("unset", "economical", "conservative")


def getmempoolinfo(ledger: Ledger) -> Json:
    """Return the size and the limits of the mempool."""
    entries = list(ledger.mempool)
    options = ledger.options
    return {
        "loaded": True,
        "size": len(entries),
        "bytes": sum(entry.vsize for entry in entries),
        "usage": ledger.mempool.usage,
        "total_fee": BtcAmount(sum(entry.fee_sat for entry in entries)),
        "maxmempool": options.mempool_bytes_max,
        "mempoolminfee": BtcAmount(ledger.limit.minimum_sat_per_kvb),
        "minrelaytxfee": BtcAmount(options.min_relay_sat_per_kvb),
        "incrementalrelayfee": BtcAmount(options.incremental_relay_sat_per_kvb),
        "unbroadcastcount": len(entries),
        "permitbaremultisig": True,
        "maxdatacarriersize": options.datacarrier_size_max,
        "limitclustercount": CLUSTER_TXS_MAX,
        "limitclustersize": CLUSTER_VSIZE_MAX,
        "optimal": True,
    }


def estimatesmartfee(ledger: Ledger, target_blocks: object, mode: str | None) -> Json:
    """Answer what was set, or what Core answers without a history: that it cannot say.

    Raises:
        RpcError: If the target is out of range, or the mode unknown.
    """
    target = _target(target_blocks)
    if mode is not None and mode.lower() not in MODES:
        known = ", ".join(f'"{name}"' for name in MODES)
        message = f"Invalid estimate_mode parameter, must be one of: {known}"
        raise RpcError(params.INVALID_PARAMETER, message)
    estimates = ledger.estimates_sat_per_kvb
    if not estimates:
        return {"errors": ["Insufficient data or no feerate found"], "blocks": 0}
    # What confirms sooner confirms in time.
    soon_enough = [blocks for blocks in estimates if blocks <= target]
    found = max(soon_enough) if soon_enough else min(estimates)
    rate_sat = max(estimates[found], ledger.limit.minimum_sat_per_kvb)
    return {"feerate": BtcAmount(rate_sat), "blocks": max(found, TARGET_BLOCKS_MIN)}


def setestimates(ledger: Ledger, estimates: dict[str, Any]) -> None:
    """Set the estimates: feerates in BTC/kvB by target in blocks; none at all for {}.

    Raises:
        RpcError: If a target or a feerate is none.
    """
    read: dict[int, int] = {}
    for target, feerate in estimates.items():
        if not target.isdecimal():
            message = f"conf_target: expected a number of blocks, received {target!r:.40}"
            raise RpcError(params.INVALID_PARAMETER, message)
        read[_target(int(target))] = params.amount_sat(feerate)
    ledger.estimates_sat_per_kvb = read


def setmempoolminimum(ledger: Ledger, feerate: object) -> None:
    """Set the mempool's minimum, in BTC/kvB, and evict what pays less; 0 for an empty mempool's.

    Raises:
        RpcError: If it is no feerate.
    """
    ledger.limit.set_minimum(params.amount_sat(feerate))


def _target(value: object) -> int:
    target = params.integer(value)
    if not 1 <= target <= TARGET_BLOCKS_MAX:
        raise RpcError(
            params.INVALID_PARAMETER,
            f"Invalid conf_target, must be between 1 and {TARGET_BLOCKS_MAX}",
        )
    return target
