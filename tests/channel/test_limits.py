"""Every limit on adding an HTLC, held by who offers and by who receives, with the field named.

The receiver is told what no honest machine would send: its peer's message is made by hand.
"""

from dataclasses import replace

import pytest
from tests.channel import specimen
from tests.channel.duet import GROWTH_SAT, Duet

from cromford import told
from cromford.channel.commitment import Commitment, UnpayableFee
from cromford.channel.errors import PeerViolation, UpdateRefused
from cromford.channel.limits import check_cltv_expiry, is_overexposed, pending_exposure_msat
from cromford.channel.messages import UpdateAdd
from cromford.channel.rebase import reserve
from cromford.channel.stage import Edition
from cromford.channel.terms import ChannelTerms, Party
from cromford.channel.updates import propose_add, receive_update

TERMS = ChannelTerms(
    feerate_per_kw=500,
    to_self_delay_opener=144,
    to_self_delay_accepter=432,
    max_accepted_htlcs=12,
    max_in_flight_msat=200_000_000,
    htlc_minimum_msat=1_000,
)
SENDERS = pytest.mark.parametrize("sender", list(Party), ids=lambda party: party.name.lower())
GOOD = UpdateAdd(
    htlc_id=0, amount_msat=2_000_000, payment_hash=specimen.payment_hash(1), cltv_expiry=900_000
)


def ready(terms: ChannelTerms = TERMS, *, accepter_msat: int = 400_000_000) -> Duet:
    duet = Duet(terms=terms, accepter_msat=accepter_msat)
    duet.settle()
    return duet


def assert_refused_by_both(duet: Duet, sender: Party, message: UpdateAdd, field: str) -> None:
    """The sender's own machine refuses to say it, the receiver's to hear it; nothing changes."""
    with pytest.raises(UpdateRefused) as refused:
        propose_add(
            duet.states[sender],
            amount_msat=message.amount_msat,
            payment_hash=message.payment_hash,
            cltv_expiry=message.cltv_expiry,
            payload=message.payload,
        )
    assert refused.value.field == field
    assert_violation(duet, sender, message, field)


def assert_violation(duet: Duet, sender: Party, message: UpdateAdd, field: str) -> None:
    with pytest.raises(PeerViolation) as violated:
        receive_update(duet.states[sender.other], message)
    assert violated.value.field == field
    assert f"received {told.shown(field, violated.value.received)}" in str(violated.value)


@SENDERS
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount_msat": 0}, "htlc_minimum_msat"),
        ({"amount_msat": -5}, "htlc_minimum_msat"),
        ({"amount_msat": 999}, "htlc_minimum_msat"),
        ({"amount_msat": 200_000_001}, "max_htlc_value_in_flight_msat"),
        ({"cltv_expiry": 0}, "cltv_expiry"),
        ({"cltv_expiry": 500_000_000}, "cltv_expiry"),
        ({"payment_hash": bytes(31)}, "payment_hash"),
        ({"payload": bytes(4097)}, "payload bytes"),
    ],
)
def test_an_htlc_out_of_bounds_is_refused_by_name(
    sender: Party, changes: dict[str, object], field: str
) -> None:
    assert_refused_by_both(ready(), sender, replace(GOOD, **changes), field)  # type: ignore[arg-type]  # one field each


@SENDERS
@pytest.mark.parametrize(
    "changes",
    [
        {"amount_msat": 1_000},
        {"amount_msat": 200_000_000},
        {"cltv_expiry": 1},
        {"cltv_expiry": 499_999_999},
        {"payload": bytes(4096)},
    ],
)
def test_an_htlc_at_the_bounds_is_accepted(sender: Party, changes: dict[str, object]) -> None:
    message = replace(GOOD, **changes)  # type: ignore[arg-type]  # one field each
    assert len(receive_update(ready().states[sender.other], message).htlcs) == 1


@SENDERS
@pytest.mark.parametrize("htlc_id", [-1, 0, 2, 1 << 64])
def test_ids_count_up_by_one(sender: Party, htlc_id: int) -> None:
    duet = ready()
    duet.add(sender, 2_000_000, 1)
    duet.deliver(sender.other)
    assert_violation(duet, sender, replace(GOOD, htlc_id=htlc_id), "id")


@SENDERS
@pytest.mark.parametrize(("feerate", "most"), [(500, 12), (0, 114)])
def test_one_htlc_more_than_accepted_is_refused(sender: Party, feerate: int, most: int) -> None:
    duet = ready(replace(TERMS, feerate_per_kw=feerate, max_accepted_htlcs=most))
    for index in range(most):
        duet.add(sender, 1_000_000, index)
    duet.settle()
    assert_refused_by_both(duet, sender, replace(GOOD, htlc_id=most), "max_accepted_htlcs")
    # The other direction has its own count.
    duet.add(sender.other, 1_000_000, most)


@SENDERS
def test_what_is_in_flight_is_counted_together(sender: Party) -> None:
    duet = ready()
    duet.add(sender, 150_000_000, 1)
    duet.settle()
    message = replace(GOOD, htlc_id=1, amount_msat=50_000_001)
    assert_refused_by_both(duet, sender, message, "max_htlc_value_in_flight_msat")
    duet.add(sender, 50_000_000, 2)


def test_the_opener_keeps_its_reserve_and_the_accepter_may_spend_all() -> None:
    """One percent of 1,000,000 sat."""
    terms = replace(TERMS, max_in_flight_msat=10**9)
    duet = ready(terms, accepter_msat=400_000_000)
    for sender, most_msat in ((Party.OPENER, 590_000_000), (Party.ACCEPTER, 400_000_000)):
        message = replace(GOOD, amount_msat=most_msat + 1)
        assert_refused_by_both(duet, sender, message, "amount_msat")
        duet.add(sender, most_msat, 1)
    duet.settle()
    content = duet.states[Party.OPENER].content(Party.ACCEPTER, Edition.SIGNED)
    assert (content.opener_msat, content.accepter_msat) == (10_000_000, 0)


def test_the_accepter_offers_nothing_of_the_price_of_a_rebase_that_is_agreed_on() -> None:
    duet = ready(replace(TERMS, max_in_flight_msat=10**9), accepter_msat=400_000_000)
    duet.states = {party: reserve(state, 7_000_000) for party, state in duet.states.items()}
    for sender, most_msat in ((Party.OPENER, 590_000_000), (Party.ACCEPTER, 393_000_000)):
        message = replace(GOOD, amount_msat=most_msat + 1)
        assert_refused_by_both(duet, sender, message, "amount_msat")
        duet.add(sender, most_msat, 1)


def test_what_is_offered_during_a_rebase_is_within_the_limits_of_the_channel_after_it() -> None:
    """It waits for the accepter's word, and leaves once both are rebased: to a larger channel."""
    duet = ready(replace(TERMS, max_in_flight_msat=10**9), accepter_msat=400_000_000)
    duet.agree(0)
    duet.rebase()
    duet.sign(Party.OPENER)
    opener = duet.states[Party.OPENER]
    capacity_sat = specimen.CAPACITY_SAT + GROWTH_SAT
    most_msat = 1000 * (600_000 + GROWTH_SAT - capacity_sat // 100)

    def offered(amount_msat: int) -> UpdateAdd:
        return propose_add(
            opener,
            amount_msat=amount_msat,
            payment_hash=GOOD.payment_hash,
            cltv_expiry=GOOD.cltv_expiry,
        )[1]

    with pytest.raises(UpdateRefused, match="amount_msat: expected at most 614,750 sat"):
        offered(most_msat + 1)
    waits = offered(most_msat)
    duet.settle()
    accepter = duet.states[Party.ACCEPTER]
    assert accepter.capacity_sat == capacity_sat
    assert receive_update(accepter, waits).htlcs


@pytest.mark.parametrize("holder", list(Party))
def test_at_its_reserve_the_opener_still_pays_for_the_largest_commitment(holder: Party) -> None:
    """2,638 sat of 100,000, with twelve HTLCs each way; with one satoshi less it could not."""
    capacity_sat = 100_000
    reserve_sat = TERMS.reserve_sat(Party.OPENER, capacity_sat=capacity_sat)
    htlcs = [specimen.htlc(party, n, 1_000_000) for party in Party for n in range(12)]

    def build(opener_sat: int) -> Commitment:
        what = specimen.content(
            holder,
            htlcs,
            accepter_msat=1000 * (capacity_sat - 24_000 - opener_sat),
            capacity_sat=capacity_sat,
        )
        return specimen.build(what, terms=TERMS, spends=specimen.funding(capacity_sat))

    # The opener's whole reserve is fee and anchor, so it has no output.
    assert len(build(reserve_sat).outputs) == 24 + 1 + 1
    with pytest.raises(UnpayableFee):
        build(reserve_sat - 1)


@SENDERS
def test_htlcs_without_an_output_hold_at_most_5_000_sat_together(sender: Party) -> None:
    duet = ready()
    for index in range(5):
        duet.add(sender, 941_000, index)
    duet.settle()
    message = replace(GOOD, htlc_id=5, amount_msat=295_001)
    assert_refused_by_both(duet, sender, message, "max_dust_htlc_exposure_msat")
    duet.add(sender, 295_000, 5)
    # Larger ones have outputs, so they do not count.
    duet.add(sender, 972_000, 6)


@SENDERS
def test_a_sender_counts_the_trimmed_htlcs_of_both(sender: Party) -> None:
    duet = ready()
    for index in range(5):
        duet.add(sender.other, 900_000, index)
    duet.settle()
    with pytest.raises(UpdateRefused) as refused:
        duet.add(sender, 500_001, 9)
    assert refused.value.field == "max_dust_htlc_exposure_msat"
    duet.add(sender, 500_000, 9)


def test_an_htlc_trimmed_on_one_side_only_counts_there() -> None:
    """942 sat: HTLC-timeout leaves 354, HTLC-success would leave 324."""
    duet = ready()
    for index in range(5):
        duet.add(Party.OPENER, 942_000, index)
    opener, accepter = (
        pending_exposure_msat(duet.states[Party.OPENER], holder) for holder in Party
    )
    assert (opener, accepter) == (0, 5 * 942_000)
    with pytest.raises(UpdateRefused):
        duet.add(Party.OPENER, 942_000, 6)


def test_what_both_add_at_the_same_moment_is_failed_back_by_nobodys_fault() -> None:
    duet = ready()
    for party in Party:
        for index in range(5):
            duet.add(party, 900_000, index)
    duet.settle()
    for party in Party:
        state = duet.states[party]
        assert pending_exposure_msat(state, party) == 9_000_000
        answerable = duet.answerable(party)
        assert len(answerable) == 5
        assert all(is_overexposed(state, live.htlc) for live in answerable)
        large = specimen.htlc(party.other, 99, 2_000_000)
        assert not is_overexposed(state, large)

    # What has an output adds nothing to be lost.
    duet.add(Party.OPENER, 2_000_000, 50)


def test_an_htlc_is_failed_back_if_it_would_be_lost_on_either_commitment() -> None:
    duet = ready()
    for index in range(5):
        duet.add(Party.OPENER, 942_000, index)
        duet.add(Party.ACCEPTER, 900_000, 10 + index)
    duet.settle()
    state = duet.states[Party.ACCEPTER]
    assert pending_exposure_msat(state, Party.OPENER) == 4_500_000
    assert pending_exposure_msat(state, Party.ACCEPTER) == 9_210_000
    assert all(is_overexposed(state, live.htlc) for live in duet.answerable(Party.ACCEPTER))


def test_what_holds_the_limit_together_is_not_failed_back() -> None:
    duet = ready()
    for index, amount_msat in enumerate([900_000] * 5 + [500_000]):
        duet.add(Party.OPENER, amount_msat, index)
    duet.settle()
    state = duet.states[Party.ACCEPTER]
    assert pending_exposure_msat(state, Party.ACCEPTER) == 5_000_000
    assert not any(is_overexposed(state, live.htlc) for live in duet.answerable(Party.ACCEPTER))


@pytest.mark.parametrize("cltv_expiry", [99, 201])
def test_an_expiry_outside_of_what_the_chain_allows_is_refused(cltv_expiry: int) -> None:
    with pytest.raises(UpdateRefused) as refused:
        check_cltv_expiry(cltv_expiry, least_height=100, most_height=200)
    assert (refused.value.field, refused.value.expected) == ("cltv_expiry", "100..200")
    check_cltv_expiry(100, least_height=100, most_height=200)
    check_cltv_expiry(200, least_height=100, most_height=200)
