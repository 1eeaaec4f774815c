"""What blocks cost in a world: a quiet mempool, or one where everybody else pays more."""

from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.fees import SAT_PER_KW_OF_SAT_PER_VB

SAT_PER_KVB: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """The feerates of a world.

    Attributes:
        name: For tables.
        tree_sat_per_kw: What the terms say: the price of all that is signed together.
        minimum_sat_per_kvb: What the mempool of everybody's node asks for; 0 for an empty one's.
        estimates_sat_per_kvb: What the nodes estimate, by target in blocks.
        filled_at_sat_per_vb: What strangers pay for all the room in the blocks; 0 for no strangers.
        thief_sat_per_vb: What a thief pays for what it publishes.
        n_coins: How many confirmed coins each client has for children.
        honest_fees_max_sat: The most that anybody honest ends up paying, anchors included, and what
            of a revoked HTLC its transaction burns.
    """

    name: str
    tree_sat_per_kw: int
    minimum_sat_per_kvb: int
    estimates_sat_per_kvb: tuple[tuple[int, int], ...]
    filled_at_sat_per_vb: int
    thief_sat_per_vb: int
    n_coins: int
    honest_fees_max_sat: int


# 0.136 sat/vB: the least at which each transaction pays a quarter more than what is relayed.
LOW: Final = Market(
    name="low",
    tree_sat_per_kw=34,
    minimum_sat_per_kvb=0,
    estimates_sat_per_kvb=((2, 500), (144, 100)),
    filled_at_sat_per_vb=0,
    thief_sat_per_vb=5,
    n_coins=0,
    honest_fees_max_sat=6_500,
)
HIGH: Final = Market(
    name="high",
    tree_sat_per_kw=2 * SAT_PER_KW_OF_SAT_PER_VB,
    minimum_sat_per_kvb=3 * SAT_PER_KVB,
    estimates_sat_per_kvb=((2, 13 * SAT_PER_KVB), (144, 11 * SAT_PER_KVB)),
    filled_at_sat_per_vb=10,
    thief_sat_per_vb=30,
    n_coins=12,
    honest_fees_max_sat=40_000,
)
MARKETS: Final = {market.name: market for market in (LOW, HIGH)}
