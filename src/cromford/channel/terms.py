"""What both parties agreed about a channel, and the amounts that follow from it.

With `feerate_per_kw` 0 a channel is of the type `taproot_zero_fee_commitments` byte for byte.
With any other, fixed, feerate its commitments and HTLC transactions pay for themselves, so that a
party without a coin can bring them on chain: the only difference there is.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cromford.bitcoin.fees import ANCHOR_DUST_SAT, P2TR_DUST_SAT, SEGWIT_DUST_SAT
from cromford.bitcoin.timelock import DELAY_BLOCKS_MAX
from cromford.bitcoin.tx import MAX_MONEY_SAT
from cromford.channel.errors import InvalidChannelTerms

MSAT_PER_SAT: Final = 1000
MAX_DUST_EXPOSURE_MSAT: Final = 5_000_000
HTLCS_MAX: Final = 114  # bolts#1228: each way; more would exceed BIP 431's 10,000 vbytes.
FEERATE_PER_KW_MAX: Final = 1_000_000  # 4,000 sat/vB: above it somebody has mistyped.

# Weights of signed transactions; a test builds and measures each.
COMMITMENT_WEIGHT: Final = 668  # Two P2TR outputs and the anchor.
HTLC_OUTPUT_WEIGHT: Final = 172
HTLC_TIMEOUT_WEIGHT: Final = 696
HTLC_SUCCESS_WEIGHT: Final = 756


class Party(IntEnum):
    """Who opened the channel and pays its fees, and who accepted it."""

    OPENER = 0
    ACCEPTER = 1

    __hash__ = int.__hash__  # An enum's own is a function of its name, in Python.

    @property
    def other(self) -> "Party":
        """The peer of this party."""
        return Party.ACCEPTER if self is Party.OPENER else Party.OPENER


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTerms:
    """The numbers of one channel. The limits hold for both parties alike.

    Attributes:
        feerate_per_kw: 0 for the published type, else fixed for the life of the channel.
        to_self_delay_opener: Blocks that the opener's own outputs are delayed (BOLT 2).
        to_self_delay_accepter: The same for the accepter's.
        dust_limit_sat: Outputs below are not made.
        max_accepted_htlcs: How many HTLCs either party may offer at once.
        max_in_flight_msat: How much either may offer at once.
        htlc_minimum_msat: The least amount of one HTLC.
        max_dust_exposure_msat: The most that HTLCs without an output may hold together on one
            commitment: they would be lost to fees.

    Raises:
        InvalidChannelTerms: If a number is out of range.
    """

    feerate_per_kw: int
    to_self_delay_opener: int
    to_self_delay_accepter: int
    max_accepted_htlcs: int
    max_in_flight_msat: int
    dust_limit_sat: int = SEGWIT_DUST_SAT
    htlc_minimum_msat: int = 1
    max_dust_exposure_msat: int = MAX_DUST_EXPOSURE_MSAT

    def __post_init__(self) -> None:
        money_msat = MAX_MONEY_SAT * MSAT_PER_SAT
        for field, low, high in (
            ("feerate_per_kw", 0, FEERATE_PER_KW_MAX),
            ("to_self_delay_opener", 1, DELAY_BLOCKS_MAX),
            ("to_self_delay_accepter", 1, DELAY_BLOCKS_MAX),
            ("max_accepted_htlcs", 1, HTLCS_MAX),
            ("max_in_flight_msat", 1, money_msat),
            ("dust_limit_sat", P2TR_DUST_SAT, MAX_MONEY_SAT),
            ("htlc_minimum_msat", 1, money_msat),
            ("max_dust_exposure_msat", 0, money_msat),
        ):
            number: int = getattr(self, field)
            if not low <= number <= high:
                raise InvalidChannelTerms(field, expected=f"{low}..{high}", received=number)

    @property
    def is_zero_fee(self) -> bool:
        """Whether this is the published channel type: children pay all fees."""
        return self.feerate_per_kw == 0

    @property
    def paid_anchor_sat(self) -> int:
        """What an anchor takes from an amount; of the published type, nothing."""
        return 0 if self.is_zero_fee else ANCHOR_DUST_SAT

    def to_self_delay(self, party: Party) -> int:
        """Return the blocks that a party's own outputs are delayed."""
        return self.to_self_delay_opener if party is Party.OPENER else self.to_self_delay_accepter

    def commitment_fee_sat(self, *, n_htlc_outputs: int) -> int:
        """Return the fee of a commitment, rounded down; the opener pays it."""
        weight = COMMITMENT_WEIGHT + HTLC_OUTPUT_WEIGHT * n_htlc_outputs
        return self.feerate_per_kw * weight // 1000

    def htlc_tx_cost_sat(self, *, is_offered: bool) -> int:
        """Return what an HTLC transaction takes from the HTLC: its fee, rounded down, and anchor.

        Args:
            is_offered: Whether the holder of the commitment offered it (HTLC-timeout), or
                accepted it (HTLC-success).
        """
        weight = HTLC_TIMEOUT_WEIGHT if is_offered else HTLC_SUCCESS_WEIGHT
        return self.feerate_per_kw * weight // 1000 + self.paid_anchor_sat

    def is_trimmed(self, amount_msat: int, *, is_offered: bool) -> bool:
        """Say whether an HTLC is too small for an output on this holder's commitment."""
        amount_sat = amount_msat // MSAT_PER_SAT
        return amount_sat - self.htlc_tx_cost_sat(is_offered=is_offered) < self.dust_limit_sat

    def reserve_sat(self, party: Party, *, capacity_sat: int) -> int:
        """Return what a party must always keep in the channel (BOLT 2, `channel_reserve_satoshis`).

        The accepter's is 0. The opener pays fees and anchor out of its own, which is why it is
        never less than those of the largest commitment.
        """
        if party is Party.ACCEPTER:
            return 0
        all_htlcs_fee_sat = self.commitment_fee_sat(n_htlc_outputs=2 * self.max_accepted_htlcs)
        return max(capacity_sat // 100, self.paid_anchor_sat + all_htlcs_fee_sat)
