"""What inbound liquidity costs: for a sale, for its amount, and for how long that is of use."""

from typing import Final

from cromford.channel.terms import MSAT_PER_SAT
from cromford.protocol.policy import SalePrice

MILLION: Final = 1_000_000
MONTH_BLOCKS: Final = 4_320  # 30 days, of ten minutes a block.


def price_msat(price: SalePrice, *, amount_sat: int, usable_blocks: int) -> int:
    """Return what an amount costs, in msat, rounded up.

    Args:
        price: What the operator asks.
        amount_sat: What the L-stock loses. The fee that the last sale saves is given away.
        usable_blocks: For how many blocks it can be used.
    """
    millionths_of_blocks = price.per_million * MONTH_BLOCKS + price.per_month * usable_blocks
    proportional = amount_sat * MSAT_PER_SAT * millionths_of_blocks
    return price.base_msat - (-proportional // (MILLION * MONTH_BLOCKS))
