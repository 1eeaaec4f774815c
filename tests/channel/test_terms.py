"""The agreed numbers of a channel, and the amounts that follow from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.channel import specimen
from tests.channel.specimen import ENDOGENOUS, EPHEMERAL

from cromford.channel.errors import InvalidChannelTerms, UpdateRefused
from cromford.channel.state import open_channel
from cromford.channel.terms import ChannelTerms, Party

GOOD = {
    "feerate_per_kw": 500,
    "to_self_delay_opener": 144,
    "to_self_delay_accepter": 432,
    "max_accepted_htlcs": 12,
    "max_in_flight_msat": 10**9,
}


@pytest.mark.parametrize(
    ("field", "received"),
    [
        ("feerate_per_kw", -1),
        ("feerate_per_kw", 1_000_001),
        ("to_self_delay_opener", 0),
        ("to_self_delay_accepter", 65_536),
        ("max_accepted_htlcs", 0),
        ("max_accepted_htlcs", 115),
        ("max_in_flight_msat", 0),
        ("dust_limit_sat", 329),
        ("htlc_minimum_msat", 0),
        ("max_dust_exposure_msat", -1),
    ],
)
def test_terms_out_of_range_are_refused_by_name(field: str, received: int) -> None:
    with pytest.raises(InvalidChannelTerms) as caught:
        ChannelTerms(**{**GOOD, field: received})
    assert (caught.value.field, caught.value.received) == (field, received)
    assert str(received) in str(caught.value)


def test_the_defaults_are_those_of_the_protocol() -> None:
    terms = ChannelTerms(**GOOD)
    assert (terms.dust_limit_sat, terms.max_dust_exposure_msat) == (354, 5_000_000)


def test_the_reserve_of_the_opener_pays_for_the_largest_commitment() -> None:
    """500 x (668 + 172 x 24) / 1000 = 2,398 sat, and the anchor; or one percent if that is more."""
    assert ENDOGENOUS.reserve_sat(Party.OPENER, capacity_sat=100_000) == 2_398 + 240
    assert ENDOGENOUS.reserve_sat(Party.OPENER, capacity_sat=10_000_000) == 100_000
    assert EPHEMERAL.reserve_sat(Party.OPENER, capacity_sat=10_000) == 100
    assert ENDOGENOUS.reserve_sat(Party.ACCEPTER, capacity_sat=10_000_000) == 0


def test_the_least_htlc_with_an_output_leaves_the_dust_limit_after_fee_and_anchor() -> None:
    for is_offered, least_sat in ((True, 354 + 240 + 348), (False, 354 + 240 + 378)):
        assert not ENDOGENOUS.is_trimmed(least_sat * 1000, is_offered=is_offered)
        assert ENDOGENOUS.is_trimmed(least_sat * 1000 - 1, is_offered=is_offered)
        assert not EPHEMERAL.is_trimmed(354_000, is_offered=is_offered)
        assert EPHEMERAL.is_trimmed(353_999, is_offered=is_offered)


@given(n_htlcs=st.integers(0, 228))
def test_the_published_type_costs_nothing(n_htlcs: int) -> None:
    assert EPHEMERAL.commitment_fee_sat(n_htlc_outputs=n_htlcs) == 0
    assert EPHEMERAL.htlc_tx_cost_sat(is_offered=True) == 0
    assert EPHEMERAL.htlc_tx_cost_sat(is_offered=False) == 0


@pytest.mark.parametrize(
    ("opener_msat", "accepter_msat"), [(1_000_000_000, -1), (9_999_999, 990_000_001)]
)
def test_a_channel_does_not_open_below_zero_or_below_the_reserve(
    opener_msat: int, accepter_msat: int
) -> None:
    with pytest.raises(ValueError, match="msat"):
        open_channel(
            me=Party.OPENER,
            terms=ENDOGENOUS,
            opener_msat=opener_msat,
            accepter_msat=accepter_msat,
            peer_point=specimen.point(Party.ACCEPTER, 0),
        )


def test_errors_show_bytes_as_hex() -> None:
    error = UpdateRefused("payment_hash", expected=b"\xab", received="nothing")
    assert str(error) == "payment_hash: expected ab, received nothing"
