"""How much of a client's balance poisons protect, if a superseded state of its leaf confirms.

A client's own commitments on the old output are revoked, too: of an old state it gets what the
poisons pay, or what the penalty for the LSP's revoked commitment leaves. The LSP can choose: at
maturity it may publish old state and revoked commitment as one package, and the small poison is
refused as a replacement. So the worse of both counts. A balance beyond it is not protected.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.fees import P2TR_INPUT_WEIGHT, P2TR_OUTPUT_VSIZE, TX_FRAME_WEIGHT
from cromford.bitcoin.tx import WITNESS_SCALE
from cromford.channel.content import CommitmentContent
from cromford.channel.terms import MSAT_PER_SAT, ChannelTerms
from cromford.factory.allocation import channel_poison_fee_sat
from cromford.factory.leaf import Leaf

N_BALANCES: Final = 2  # A commitment's outputs besides its HTLCs' and its anchor.


@dataclass(frozen=True, slots=True, kw_only=True)
class Fullest:
    """The fullest commitment that the LSP has revoked on an old output, or could have.

    Attributes:
        n_htlc_outputs: How many HTLCs have an output.
        trimmed_sat: What the others hold together: it is lost to fees.
    """

    n_htlc_outputs: int
    trimmed_sat: int


NOTHING_PENDING: Final = Fullest(n_htlc_outputs=0, trimmed_sat=0)


def fullest_in(content: CommitmentContent, terms: ChannelTerms) -> Fullest:
    """Return how full one commitment is."""
    n_htlc_outputs = trimmed_msat = 0
    for htlc in content.htlcs:
        if terms.is_trimmed(htlc.amount_msat, is_offered=htlc.offered_by is content.holder):
            trimmed_msat += htlc.amount_msat
        else:
            n_htlc_outputs += 1
    return Fullest(n_htlc_outputs=n_htlc_outputs, trimmed_sat=-(-trimmed_msat // MSAT_PER_SAT))


def fuller(one: Fullest, other: Fullest, terms: ChannelTerms) -> Fullest:
    """Return the one of two that costs more once it is revoked and punished; the first at a tie."""
    return max(one, other, key=lambda fullest: penalty_costs_sat(terms, fullest))


def fullest_of(terms: ChannelTerms) -> Fullest:
    """Return the fullest commitment that a channel's terms allow."""
    return Fullest(
        n_htlc_outputs=2 * terms.max_accepted_htlcs,
        trimmed_sat=terms.max_dust_exposure_msat // MSAT_PER_SAT,
    )


def penalty_fee_sat(terms: ChannelTerms, *, n_htlc_outputs: int) -> int:
    """Return the fee of the penalty that takes all of a commitment, at the channel's own feerate.

    One transaction: a key-path input for both balances and each HTLC, and one output. What the
    penalty really pays follows from the day's feerate.
    """
    n_inputs = N_BALANCES + n_htlc_outputs
    weight = TX_FRAME_WEIGHT + P2TR_INPUT_WEIGHT * n_inputs + P2TR_OUTPUT_VSIZE * WITNESS_SCALE
    return -(-terms.feerate_per_kw * weight // 1000)


def penalty_costs_sat(terms: ChannelTerms, fullest: Fullest) -> int:
    """Return what a revoked commitment and its penalty take from the channel's capacity.

    The commitment's fee and anchor, what has no output there, and the penalty's fee.
    """
    return (
        terms.commitment_fee_sat(n_htlc_outputs=fullest.n_htlc_outputs)
        + terms.paid_anchor_sat
        + fullest.trimmed_sat
        + penalty_fee_sat(terms, n_htlc_outputs=fullest.n_htlc_outputs)
    )


def covered_by_state_sat(
    leaf: Leaf, state_index: int, client: int, *, terms: ChannelTerms, fullest: Fullest
) -> int:
    """Return the least that a client gets if one superseded state confirms, at the terms' feerate.

    Args:
        leaf: With that state and the one that replaced it.
        state_index: Which state.
        client: One of the leaf's.
        terms: Of its channel.
        fullest: The LSP's fullest commitment on that state.

    Raises:
        ValueError: If that state is not superseded, or the client is not in the leaf.
    """
    place = leaf.clients.index(client)
    share_sat = leaf.shares_sat(state_index)[place]
    capacity_sat = leaf.allocation_at(state_index).capacities_sat[place]
    lost_sat = max(channel_poison_fee_sat(leaf.terms), penalty_costs_sat(terms, fullest))
    return max(capacity_sat - lost_sat, 0) + share_sat


def coverage_sat(
    leaf: Leaf, client: int, *, terms: ChannelTerms, fullest: Sequence[Fullest]
) -> int | None:
    """Return a client's coverage: the least over all superseded states; None if there is none.

    Args:
        leaf: With all its states.
        client: One of its clients.
        terms: Of its channel.
        fullest: Of each superseded state, index 0 first, the LSP's fullest commitment on it. Once a
            state is superseded no other is signed for it, so what counts is known.

    Raises:
        ValueError: If the client is not in the leaf, or there are not as many as superseded states.
    """
    superseded = range(len(leaf.states) - 1)
    return min(
        (
            covered_by_state_sat(leaf, state_index, client, terms=terms, fullest=one)
            for state_index, one in zip(superseded, fullest, strict=True)
        ),
        default=None,
    )
