"""What a node relays is asked of every transaction that follows from terms, to the satoshi."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factory import oracle
from tests.factory.specimen import tree_of

from cromford.bitcoin.fees import fee_sat_of
from cromford.channel.terms import ChannelTerms
from cromford.factory.shape import plan_of
from cromford.factory.terms import FactoryTerms, FeePolicy
from cromford.protocol.journal.first_commitments import channel_terms_of
from cromford.watch.relayed import TooCheap, fixed_fees, too_cheap


def terms_at(feerate: int) -> FactoryTerms:
    return oracle.terms_of(
        [100_000] * 6, [50_000] * 3, inner_arities=[3], inner_kinds=["static"], feerate=feerate
    )


@settings(max_examples=30)
@given(terms=oracle.random_terms(40))
def test_each_transaction_of_the_tree_is_there_with_its_size_and_its_fee(
    terms: FactoryTerms,
) -> None:
    channel = replace(channel_terms_of(terms_at(500)), max_accepted_htlcs=12)
    told = {one.name: (one.vsize, one.fee_sat) for one in fixed_fees(plan_of(terms), channel)}
    tree = {
        node.name: (node.tx.with_witnesses((bytes(64),)).vsize, node.fee_sat)
        for node in tree_of(terms).nodes
    }
    assert tree.items() <= told.items()
    assert len(told) == len(tree) + 4


def test_a_channels_transactions_are_there_empty_and_full_each_with_its_size_and_its_fee() -> None:
    """BOLT 3's weights, and 12 HTLCs each way; an HTLC transaction's anchor is no fee of it."""
    channel = replace(channel_at(500), max_accepted_htlcs=12)
    told = {
        one.name: (one.vsize, one.fee_sat) for one in fixed_fees(plan_of(terms_at(500)), channel)
    }
    fees = {name: one for name, one in told.items() if name.startswith(("commitment", "htlc"))}
    assert fees == {
        "commitment with 0 HTLCs": (167, 334),
        "commitment with 24 HTLCs": (1_199, 2_398),
        "htlc_timeout": (174, 348),
        "htlc_success": (189, 378),
    }


def channel_at(feerate: int) -> ChannelTerms:
    return channel_terms_of(terms_at(feerate))


def test_a_commitment_of_16_sat_for_167_vbytes_is_not_relayed() -> None:
    plan, channel = plan_of(terms_at(25)), channel_at(25)
    told = {one.name: (one.vsize, one.fee_sat) for one in fixed_fees(plan, channel)}
    assert told["commitment with 0 HTLCs"] == (167, 16)
    assert fee_sat_of(vsize=167, feerate_sat_per_kw=25) == 17
    cheap = too_cheap(plan, channel, min_relay_sat_per_kw=18)
    assert cheap is None
    cheap = too_cheap(plan, channel, min_relay_sat_per_kw=25)
    assert cheap is not None
    assert cheap.tx.fee_sat < cheap.least_sat


@settings(max_examples=30)
@given(terms=oracle.random_terms(40), asked=st.integers(1, 2_000))
def test_the_first_that_is_too_cheap_is_the_first_of_all_in_their_order(
    terms: FactoryTerms, asked: int
) -> None:
    """Although vertices that are alike are judged once."""
    plan, channel = plan_of(terms), channel_terms_of(terms)
    least = {
        one: fee_sat_of(vsize=one.vsize, feerate_sat_per_kw=-(-asked * 5 // 4))
        for one in fixed_fees(plan, channel)
    }
    first = next((one for one, least_sat in least.items() if one.fee_sat < least_sat), None)
    cheap = too_cheap(plan, channel, min_relay_sat_per_kw=asked)
    if channel.is_zero_fee or first is None:
        assert cheap is None
    else:
        assert cheap == TooCheap(tx=first, least_sat=least[first])


@pytest.mark.parametrize("feerate", [250, 500, 5_000])
def test_terms_a_quarter_above_what_the_node_relays_pass_and_no_cheaper_ones(feerate: int) -> None:
    plan, channel = plan_of(terms_at(feerate)), channel_at(feerate)
    limit = feerate * 4 // 5
    assert too_cheap(plan, channel, min_relay_sat_per_kw=limit - 4) is None
    assert too_cheap(plan, channel, min_relay_sat_per_kw=limit + 1) is not None


def test_where_children_pay_nothing_is_too_cheap() -> None:
    terms = oracle.with_field(
        terms_at(500), fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0
    )
    channel = channel_terms_of(terms)
    assert too_cheap(plan_of(terms), channel, min_relay_sat_per_kw=10_000) is None
