"""What a client checks of its channel before it signs: its keys, its capacity, its commitments."""

from collections.abc import Sequence
from dataclasses import fields

from cromford import told
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.channel.errors import InvalidChannelTerms
from cromford.channel.terms import COMMITMENT_WEIGHT, MSAT_PER_SAT, Party
from cromford.crypto.keys import is_pubkey
from cromford.factory.branch import Branch
from cromford.factory.kinds import VertexKind
from cromford.factory.shape import PlannedVertex
from cromford.factory.terms import FeePolicy, GeneralTerms
from cromford.protocol.faults import Refusal
from cromford.protocol.htlc_blocks import payment_blocks
from cromford.protocol.journal.first_commitments import (
    ChannelSetting,
    channel_terms_of,
    least_capacity_sat,
)
from cromford.watch.burnt import BurnLimit, channel_burns_sat, own_sat_per_kw
from cromford.watch.children_cost import children_cost
from cromford.watch.feerates import SWEEP_BLOCKS, OwnFees
from cromford.watch.relayed import too_cheap
from cromford.watch.sweep import BLANK_SIGNATURE
from cromford.wire.messages import ChannelOffer


def check_capacity(terms: GeneralTerms, capacity_sat: int) -> None:
    """Check that a channel can be used: paid through, and moved out of in one payment.

    Raises:
        Refusal: Naming the capacity, or the term that makes it useless or that none can have.
    """
    try:
        channel_terms = channel_terms_of(terms)
    except InvalidChannelTerms as error:
        raise Refusal(error.field, expected=error.expected, received=error.received) from error
    least_sat = least_capacity_sat(channel_terms)
    if capacity_sat < least_sat:
        raise Refusal("capacity_sat", expected=f"at least {least_sat}", received=capacity_sat)
    least_msat = MSAT_PER_SAT * capacity_sat
    if terms.max_in_flight_msat < least_msat:
        raise Refusal(
            "max_in_flight_msat",
            expected=f"at least {told.msat(least_msat)}",
            received=terms.max_in_flight_msat,
        )


def check_feerate(terms: GeneralTerms, *, limit: BurnLimit, fees: OwnFees) -> None:
    """Check that the tree's feerate is not too far above what our own node asks for.

    Raises:
        Refusal: Naming the feerate.
    """
    feerate, most = terms.tree_feerate_sat_per_kw, limit.feerate_max_sat_per_kw(fees)
    if feerate > most:
        raise Refusal(
            "tree_feerate_sat_per_kw",
            expected=f"at most {told.feerate(most)} ({limit.times_estimate} times the "
            f"{told.feerate(own_sat_per_kw(fees))} of our own node)",
            received=feerate,
        )


def check_burns(terms: GeneralTerms, capacity_sat: int, *, limit: BurnLimit) -> None:
    """Check that leaving burns no more of a channel than our own policy lets it.

    Raises:
        Refusal: Naming the capacity.
    """
    channel = channel_terms_of(terms)
    least_sat = limit.capacity_min_sat(channel)
    if capacity_sat < least_sat:
        raise Refusal(
            "capacity_sat",
            expected=f"at least {least_sat} (leaving burns {channel_burns_sat(channel)} at "
            f"{told.feerate(terms.tree_feerate_sat_per_kw)}; {limit.percent} % may be burnt)",
            received=capacity_sat,
        )


def check_is_relayed(
    terms: GeneralTerms, plan: PlannedVertex, *, min_relay_sat_per_kw: int
) -> None:
    """Check that our own node would relay every transaction whose fee the terms decide.

    Raises:
        Refusal: Naming the transaction: what it pays, and what it would have to.
    """
    cheap = too_cheap(plan, channel_terms_of(terms), min_relay_sat_per_kw=min_relay_sat_per_kw)
    if cheap is not None:
        raise Refusal(
            f"{cheap.tx.name}.fee_sat",
            expected=f"at least {cheap.least_sat} for {cheap.tx.vsize} vB, or our node may not "
            "relay it",
            received=cheap.tx.fee_sat,
        )


def check_max_cltv(
    terms: GeneralTerms, *, kinds: Sequence[VertexKind], slowest_kinds: Sequence[VertexKind]
) -> None:
    """Check that a payment may last long enough to reach this channel from any other.

    Args:
        terms: The factory's.
        kinds: Of the vertices on the way to this channel.
        slowest_kinds: Of those on the way to the channel that takes longest.

    Raises:
        Refusal: Naming the term: below, somebody of this factory could not pay this client.
    """
    least_blocks = payment_blocks(
        payer_exit_blocks=terms.exit_blocks(slowest_kinds),
        payee_exit_blocks=terms.exit_blocks(kinds),
    )
    if terms.max_cltv_blocks < least_blocks:
        raise Refusal(
            "max_cltv_blocks", expected=f"at least {least_blocks}", received=terms.max_cltv_blocks
        )


def check_channel_offer(offer: ChannelOffer, *, own: ChannelOffer) -> None:
    """Check that every key of the LSP's is a point, and that no key stands in two places.

    Raises:
        Refusal: Naming the key.
    """
    names = [item.name for item in fields(ChannelOffer)]
    seen = {getattr(own, name) for name in names}
    for name in names:
        pubkey = getattr(offer, name)
        if not is_pubkey(pubkey):
            raise Refusal(f"channel.{name}", expected="a pubkey", received=pubkey)
        if pubkey in seen:
            raise Refusal(f"channel.{name}", expected="a key of its own", received=pubkey)
        seen.add(pubkey)


def check_first_commitments(channel: ChannelSetting) -> None:
    """Check that both sides' first commitments can be built.

    Raises:
        Refusal: Naming the commitment.
    """
    for holder in Party:
        try:
            channel.first_commitment(holder)
        except ValueError as error:
            raise Refusal(
                f"commitment_{holder.name.lower()}",
                expected="a commitment that can be built",
                received=error,
            ) from error


def check_coins(branch: Branch, *, fees: OwnFees, coins_sat: int) -> None:
    """Refuse a way out that pays nothing itself, if our coins do not pay for it today.

    For the branch and an empty commitment, at the rate of a day, one after the other.

    Raises:
        Refusal: Naming the fee policy, and what coins have to hold.
    """
    if branch.terms.fee_policy is not FeePolicy.EPHEMERAL:
        return
    weights = [node.tx.with_witnesses((BLANK_SIGNATURE,)).weight for node in branch.nodes]
    cost = children_cost(
        [FeeAndWeight(0, weight) for weight in (*weights, COMMITMENT_WEIGHT)],
        feerate_sat_per_kw=fees.within(SWEEP_BLOCKS),
        mempool_min_sat_per_kw=fees.mempool_min_sat_per_kw,
    )
    if coins_sat < cost.coin_sat:
        raise Refusal(
            "fee_policy",
            expected=f"ephemeral with coins of at least {cost.coin_sat} sat for the way out",
            received=f"coins of {coins_sat} sat",
        )
