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


MONEY_MSAT = 21_000_000 * 10**8 * 1000
RANGES = {
    "feerate_per_kw": (0, 1_000_000),
    "to_self_delay_opener": (1, 65_535),
    "to_self_delay_accepter": (1, 65_535),
    "max_accepted_htlcs": (1, 114),
    "max_in_flight_msat": (1, MONEY_MSAT),
    "dust_limit_sat": (330, 21_000_000 * 10**8),
    "htlc_minimum_msat": (1, MONEY_MSAT),
    "max_dust_exposure_msat": (0, MONEY_MSAT),
}


@pytest.mark.parametrize("field", RANGES)
def test_terms_out_of_range_are_refused_by_name(field: str) -> None:
    least, most = RANGES[field]
    for received in (least, most):
        ChannelTerms(**{**GOOD, field: received})
    for received in (least - 1, most + 1):
        with pytest.raises(InvalidChannelTerms) as caught:
            ChannelTerms(**{**GOOD, field: received})
        assert (caught.value.field, caught.value.received) == (field, received)
        assert caught.value.expected == f"{least}..{most}"
        assert str(received) in str(caught.value).replace(",", "")


def test_the_defaults_are_those_of_the_protocol() -> None:
    terms = ChannelTerms(**GOOD)
    assert (terms.dust_limit_sat, terms.max_dust_exposure_msat) == (354, 5_000_000)
    assert terms.htlc_minimum_msat == 1


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


def test_a_channel_opens_at_the_reserve_with_nothing_for_the_accepter() -> None:
    state = open_channel(
        me=Party.OPENER,
        terms=ENDOGENOUS,
        opener_msat=2_638_000,
        accepter_msat=0,
        peer_point=specimen.point(Party.ACCEPTER, 0),
    )
    assert state.capacity_sat == 2_638


def test_errors_show_bytes_as_hex() -> None:
    error = UpdateRefused("payment_hash", expected=b"\xab", received="nothing")
    assert str(error) == "payment_hash: expected ab, received nothing"
