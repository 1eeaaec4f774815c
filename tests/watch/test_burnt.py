"""What leaving burns is what the transactions of one channel, or of the whole tree, take."""

from typing import Final

import pytest
from tests.factory import oracle
from tests.factory.specimen import tree_of

from cromford.channel.terms import MSAT_PER_SAT, ChannelTerms
from cromford.factory.shape import plan_of
from cromford.factory.terms import FactoryTerms, FeePolicy
from cromford.protocol.journal.first_commitments import channel_terms_of
from cromford.protocol.policy import ClientPolicy, LspPolicy
from cromford.watch.burnt import BurnLimit, capital_sat, channel_burns_sat, factory_burns_sat
from cromford.watch.feerates import OwnFees

DEFAULT_SAT_PER_KW: Final = LspPolicy().tree_feerate_sat_per_kw
N_CLIENTS: Final = 6


def terms_at(feerate: int, capacity_sat: int = 100_000) -> FactoryTerms:
    lstocks = [capacity_sat] * (N_CLIENTS // 2)
    return oracle.terms_of(
        [capacity_sat] * N_CLIENTS, lstocks, inner_arities=[3], inner_kinds=["static"],
        feerate=feerate,
    )  # fmt: skip


def channel_at(feerate: int) -> ChannelTerms:
    return channel_terms_of(terms_at(feerate))


@pytest.mark.parametrize("feerate", [250, 500, 5_000, 15_000])
def test_a_payment_in_flight_loses_no_more_than_is_counted(feerate: int) -> None:
    """With an output it pays its transaction; without one, it is lost as a whole."""
    channel = channel_at(feerate)
    commitment_sat = channel.commitment_fee_sat(n_htlc_outputs=1) + channel.paid_anchor_sat
    lost_sat = 0
    for is_offered in (True, False):
        cost_sat = channel.htlc_tx_cost_sat(is_offered=is_offered)
        for amount_sat in range(1, cost_sat + 3 * channel.dust_limit_sat):
            is_trimmed = channel.is_trimmed(MSAT_PER_SAT * amount_sat, is_offered=is_offered)
            lost_sat = max(lost_sat, amount_sat if is_trimmed else cost_sat)
    # All of the smallest HTLC with an output is counted: it is a satoshi more.
    assert channel_burns_sat(channel) == commitment_sat + lost_sat + 1


@pytest.mark.parametrize("feerate", [250, 500, 5_000])
def test_what_a_factory_burns_is_what_its_tree_and_its_commitments_take(feerate: int) -> None:
    terms = terms_at(feerate)
    channel = channel_terms_of(terms)
    tree = tree_of(terms)
    tree_sat = tree.funding_amount_sat - sum(terms.capacity_sat) - sum(terms.lstock_sat)
    assert tree_sat == sum(node.fee_sat + terms.anchor_sat for node in tree.nodes)
    commitment_sat = channel.commitment_fee_sat(n_htlc_outputs=1) + 240
    assert factory_burns_sat(plan_of(terms), channel) == tree_sat + N_CLIENTS * commitment_sat
    assert capital_sat(plan_of(terms)) == sum(terms.capacity_sat) + sum(terms.lstock_sat)


@pytest.mark.parametrize(
    ("feerate", "burnt_sat", "least_sat"),
    [
        (250, 1_233, 12_330),
        (500, 1_632, 16_320),
        (1_250, 2_829, 28_290),
        (5_000, 8_814, 88_140),
        (15_000, 24_774, 247_740),
    ],
)
def test_the_least_capacity_is_ten_times_what_leaving_burns(
    feerate: int, burnt_sat: int, least_sat: int
) -> None:
    channel = channel_at(feerate)
    assert channel_burns_sat(channel) == burnt_sat
    assert BurnLimit().capacity_min_sat(channel) == least_sat
    assert BurnLimit().is_within(burnt_sat, of_sat=least_sat)
    assert not BurnLimit().is_within(burnt_sat, of_sat=least_sat - 1)
    assert BurnLimit(percent=7).capacity_min_sat(channel) == -(-100 * burnt_sat // 7)


@pytest.mark.parametrize(
    ("fees", "most"),
    [
        (OwnFees(estimates=((144, 25), (1008, 25))), 2_500),
        (OwnFees(estimates=((144, 250),)), 2_500),
        (OwnFees(estimates=((2, 4_000), (144, 300), (1008, 100))), 3_000),
        (OwnFees(), 5_000),
        (OwnFees(mempool_min_sat_per_kw=1_000), 20_000),
        (OwnFees(fallback_sat_per_kw=25), 2_500),
    ],
)
def test_a_tree_may_pay_ten_times_what_the_node_asks_for_a_day(fees: OwnFees, most: int) -> None:
    """On a quiet day, ten times 1 sat/vB; without an estimate, by the rule for what we sign."""
    assert BurnLimit().feerate_max_sat_per_kw(fees) == most


@pytest.mark.parametrize("estimate", [25, 250, 500])
def test_the_defaults_of_both_roles_go_together_on_quiet_days(estimate: int) -> None:
    lsp, client = LspPolicy(), ClientPolicy()
    assert lsp.burn_limit == client.burn_limit
    fees = OwnFees(estimates=((144, estimate),))
    assert client.burn_limit.feerate_max_sat_per_kw(fees) >= DEFAULT_SAT_PER_KW
    least_sat = client.burn_limit.capacity_min_sat(channel_at(DEFAULT_SAT_PER_KW))
    assert least_sat <= lsp.capacity_min_sat


def test_where_children_pay_the_terms_burn_nothing() -> None:
    terms = oracle.with_field(
        terms_at(500), fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0
    )
    assert channel_burns_sat(channel_terms_of(terms)) == 0
