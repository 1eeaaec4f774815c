"""What our node says of feerates today, asked anew before a role sees new blocks.

A node that does not answer has not changed its mind: what it said last stays.
"""

import logging
from dataclasses import replace
from typing import Final

from cromford.ports import Chain, ChainUnavailable
from cromford.watch.feerates import LOWEST_BLOCKS, OwnFees

# Blocks for which estimates are asked: the next, an hour, six hours, a day, a week; Core's last.
TARGETS: Final = (2, 6, 36, 144, LOWEST_BLOCKS)

_log = logging.getLogger(__name__)


async def asked_again(chain: Chain, fees: OwnFees) -> OwnFees:
    """Return what the node says now; what it said before if it does not answer."""
    try:
        relay = await chain.relay_feerates()
        # Whatever becomes of the estimates: below its minimum nothing gets in.
        fees = replace(
            fees,
            mempool_min_sat_per_kw=relay.mempool_min_sat_per_kw,
            min_relay_sat_per_kw=relay.min_relay_sat_per_kw,
            incremental_sat_per_kw=relay.incremental_sat_per_kw,
        )
        estimates = [(target, await chain.estimate_sat_per_kw(target)) for target in TARGETS]
    except ChainUnavailable as error:
        _log.warning("feerates_unknown reason=%s", error)
        return fees
    known = tuple((target, rate) for target, rate in estimates if rate is not None)
    return replace(fees, estimates=known)
