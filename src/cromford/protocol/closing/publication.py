"""Which option of a finished close is published."""

from fractions import Fraction

from cromford.bitcoin.tx import WITNESS_SCALE
from cromford.effects import Broadcast
from cromford.factory.close import CloseScope
from cromford.protocol.journal.closes import FinishedClose
from cromford.watch.feerates import SWEEP_BLOCKS, OwnFees


def option_to_publish(close: FinishedClose, scope: CloseScope, fees: OwnFees) -> Broadcast:
    """Return the cheapest option that pays our node's estimate for a day; else the dearest.

    Args:
        close: The close.
        scope: What it spends.
        fees: What our node says.
    """
    wanted = fees.within(SWEEP_BLOCKS)
    tx = close.txs[-1]
    for option in close.txs:
        fee_sat = scope.amount_sat - sum(output.amount_sat for output in option.outputs)
        if Fraction(1000 * fee_sat, WITNESS_SCALE * option.vsize) >= wanted:
            tx = option
            break
    return Broadcast(name=f"close {scope.name}", tx=tx)
