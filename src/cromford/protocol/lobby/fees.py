"""What an LSP asks of the fees in its own terms, before it proposes them to anybody.

They are judged by the transactions that follow from them: its own node must relay each, and leaving
must burn no more than its operator allows. So must it take the funding, or all of it was signed for
nothing.
"""

from collections.abc import Sequence

from cromford import told
from cromford.factory.shape import plan_of
from cromford.factory.terms import FactoryTerms, InvalidTerms
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.first_commitments import channel_terms_of
from cromford.watch.burnt import (
    BurnLimit,
    capital_sat,
    channel_burns_sat,
    factory_burns_sat,
    own_sat_per_kw,
)
from cromford.watch.feerates import OwnFees
from cromford.watch.relayed import too_cheap


def check_fees(terms: FactoryTerms, limit: BurnLimit, fees: OwnFees) -> None:
    """Refuse terms whose transactions our node would not relay, or that burn too much.

    Raises:
        InvalidTerms: Naming what is too cheap, or too dear.
    """
    _check_is_relayed(terms, fees.min_relay_sat_per_kw)
    _check_burns(terms, limit, fees)


def check_funding_is_taken(feerates_sat_per_kw: Sequence[int], fees: OwnFees) -> None:
    """Check that our node takes a funding by what its candidates pay.

    What is below the least that is relayed never gets in by itself, nor by a child: up to version
    30 Bitcoin Core asks that of each transaction but those of version 3. What a full mempool asks
    for beyond that falls again.

    Args:
        feerates_sat_per_kw: Of the candidates, lowest first.
        fees: Our own node's.

    Raises:
        Rejected: If it does not relay the lowest, or takes not even the highest today.
    """
    lowest, highest = feerates_sat_per_kw[0], feerates_sat_per_kw[-1]
    for feerate, least, whose, passes in (
        (lowest, fees.min_relay_sat_per_kw, "the least that our node relays", False),
        (highest, fees.mempool_min_sat_per_kw, "what our node's mempool asks for today", True),
    ):
        if feerate < least:
            raise Rejected(
                "funding_feerate_too_low",
                f"funding_feerate: expected at least {told.feerate(least)}, {whose}, "
                f"received {told.feerate(feerate)}",
                retryable=passes,
            )


def _check_is_relayed(terms: FactoryTerms, min_relay_sat_per_kw: int) -> None:
    cheap = too_cheap(
        plan_of(terms), channel_terms_of(terms), min_relay_sat_per_kw=min_relay_sat_per_kw
    )
    if cheap is not None:
        raise InvalidTerms(
            "tree_feerate_sat_per_kw",
            f"at least {cheap.least_sat} sat for {cheap.tx.name}, {cheap.tx.vsize} vB, or our node "
            "may not relay it",
            f"{cheap.tx.fee_sat} sat, at {told.feerate(terms.tree_feerate_sat_per_kw)}",
        )


def _check_burns(terms: FactoryTerms, limit: BurnLimit, fees: OwnFees) -> None:
    feerate, most = terms.tree_feerate_sat_per_kw, limit.feerate_max_sat_per_kw(fees)
    if feerate > most:
        raise InvalidTerms(
            "tree_feerate_sat_per_kw",
            f"at most {told.feerate(most)} ({limit.times_estimate} times the "
            f"{told.feerate(own_sat_per_kw(fees))} of our node)",
            told.feerate(feerate),
        )
    channel, plan = channel_terms_of(terms), plan_of(terms)
    least_sat = limit.capacity_min_sat(channel)
    if min(terms.capacity_sat) < least_sat:
        raise InvalidTerms(
            "capacity_sat",
            f"at least {least_sat} (leaving burns {channel_burns_sat(channel)} at "
            f"{told.feerate(feerate)}; {limit.percent} % may be burnt)",
            min(terms.capacity_sat),
        )
    burnt_sat, whole_sat = factory_burns_sat(plan, channel), capital_sat(plan)
    if not (channel.is_zero_fee or limit.is_within(burnt_sat, of_sat=whole_sat)):
        raise InvalidTerms(
            "fees",
            f"at most {limit.percent} % of the {whole_sat} sat in channels and L-stocks to be "
            "burnt if everybody leaves",
            f"{burnt_sat} sat, at {told.feerate(feerate)}",
        )
