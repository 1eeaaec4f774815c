"""What a client is protected for: to the satoshi, and as real transactions have it."""

from dataclasses import replace

import pytest
from tests.channel.specimen import payment_hash
from tests.factory.test_leaf import buy, one_leaf
from tests.watch.channel_world import FUNDING_PUBKEYS, PAYOUTS, TERMS, ZERO_FEE, built

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.channel.claims import penalty_claims
from cromford.channel.commitment import Commitment, Funding
from cromford.channel.content import Htlc
from cromford.channel.htlc_tx import htlc_txs
from cromford.channel.terms import ChannelTerms, Party
from cromford.factory.leaf import Leaf
from cromford.watch.coverage import (
    NOTHING_PENDING,
    Fullest,
    coverage_sat,
    covered_by_state_sat,
    fullest_in,
    fullest_of,
    penalty_costs_sat,
    penalty_fee_sat,
)

EMPTY = Fullest(n_htlc_outputs=0, trimmed_sat=0)
ALL_HTLCS = Fullest(n_htlc_outputs=24, trimmed_sat=0)
CAPACITY_SAT = 101_000


def revoked_commitment(
    n_htlcs: int, *, terms: ChannelTerms = TERMS, trimmed: int = 0
) -> Commitment:
    """Return a commitment of the LSP's with as many HTLCs of 1,000 sat, and some of 900."""
    funding = Funding(
        outpoint=OutPoint(txid=Txid(b"\x05" * 32), vout=0),
        pubkeys=FUNDING_PUBKEYS,
        capacity_sat=CAPACITY_SAT,
    )
    htlcs = [
        Htlc(
            offered_by=Party(place % 2),
            htlc_id=place // 2,
            amount_msat=1_000_000 if place < n_htlcs else 900_000,
            payment_hash=payment_hash(place),
            cltv_expiry=500 + place,
        )
        for place in range(n_htlcs + trimmed)
    ]
    return built(funding, Party.OPENER, htlcs, accepter_msat=50_000_000, terms=terms)


def penalty_of(commitment: Commitment) -> tuple[Tx, int]:
    """Return the penalty with blank signatures, and what it spends."""
    claims = penalty_claims(commitment)
    spent_sat = sum(claim.prevout.amount_sat for claim in claims)
    tx = Tx(
        version=2,
        inputs=tuple(TxIn(outpoint=c.outpoint, nsequence=c.nsequence) for c in claims),
        outputs=(TxOut(amount_sat=spent_sat, script_pubkey=PAYOUTS[Party.ACCEPTER]),),
    )
    return tx.with_witnesses(*((bytes(64),) for _ in claims)), spent_sat


def covered(leaf: Leaf, client: int, *, terms: ChannelTerms, fullest: Fullest) -> int | None:
    """Return the coverage where the same was the fullest on every state."""
    superseded = [fullest] * (len(leaf.states) - 1)
    return coverage_sat(leaf, client, terms=terms, fullest=superseded)


@pytest.mark.parametrize("n_htlcs", [0, 1, 5, 24])
def test_a_penalty_pays_what_real_transactions_of_that_size_leave(n_htlcs: int) -> None:
    fullest = Fullest(n_htlc_outputs=n_htlcs, trimmed_sat=0)
    tx, spent_sat = penalty_of(revoked_commitment(n_htlcs))
    assert len(tx.inputs) == 2 + n_htlcs
    fee_sat = penalty_fee_sat(TERMS, n_htlc_outputs=n_htlcs)
    assert fee_sat == -(-500 * tx.weight // 1000)
    assert CAPACITY_SAT - penalty_costs_sat(TERMS, fullest) == spent_sat - fee_sat


def test_htlcs_without_an_output_are_lost() -> None:
    fullest = Fullest(n_htlc_outputs=19, trimmed_sat=5 * 900)
    tx, spent_sat = penalty_of(revoked_commitment(19, trimmed=5))
    assert len(tx.inputs) == 21
    left_sat = spent_sat - penalty_fee_sat(TERMS, n_htlc_outputs=19)
    assert CAPACITY_SAT - penalty_costs_sat(TERMS, fullest) == left_sat


@pytest.mark.parametrize(
    ("fullest", "fee_sat", "costs_sat", "less_sat"),
    [(EMPTY, 337, 911, 689), (ALL_HTLCS, 3_097, 5_735, 5_513)],
)
def test_the_penalty_leaves_less_than_the_poison_would(
    fullest: Fullest, fee_sat: int, costs_sat: int, less_sat: int
) -> None:
    """On 101,000 sat at 2 sat/vB: 689 sat less, and 5,513 with 24 HTLCs."""
    assert penalty_fee_sat(TERMS, n_htlc_outputs=fullest.n_htlc_outputs) == fee_sat
    assert penalty_costs_sat(TERMS, fullest) == costs_sat
    leaf = buy(one_leaf([CAPACITY_SAT, 102_000], 101_500), 1, 50_000)
    poison = leaf.channel_poison(0, 1)
    share_sat = leaf.stock_poison(0).shares_sat[1]
    assert (poison.shares_sat[1], share_sat) == (100_778, 75_596)
    covered_sat = covered_by_state_sat(leaf, 0, 1, terms=TERMS, fullest=fullest)
    assert covered_sat == CAPACITY_SAT - costs_sat + share_sat
    assert poison.shares_sat[1] + share_sat - covered_sat == less_sat


def test_what_the_cheaters_own_htlc_transactions_burn_is_not_counted() -> None:
    """Confirmed before the penalty, each takes its fee and its anchor from an HTLC."""
    commitment = revoked_commitment(24)
    costs_sat = [
        output.amount_sat - htlc_tx.tx.outputs[0].amount_sat
        for htlc_tx in htlc_txs(commitment)
        for output in [commitment.outputs[htlc_tx.tx.inputs[0].outpoint.vout]]
    ]
    assert sorted(set(costs_sat)) == [588, 618]
    assert sum(costs_sat) == 14_472


def test_how_full_a_commitment_is_by_which_of_its_htlcs_have_an_output() -> None:
    """Who offered one takes it back by the smaller transaction: 30 sat less are enough for it."""
    assert fullest_in(revoked_commitment(0).content, TERMS) == NOTHING_PENDING == EMPTY
    content = revoked_commitment(5, trimmed=2).content
    assert fullest_in(content, TERMS) == Fullest(n_htlc_outputs=5, trimmed_sat=1_800)
    between = tuple(
        replace(htlc, amount_msat=950_500) for htlc in revoked_commitment(3).content.htlcs
    )
    assert [htlc.offered_by for htlc in between] == [Party.OPENER, Party.ACCEPTER, Party.OPENER]
    content = replace(revoked_commitment(3).content, htlcs=between)
    assert fullest_in(content, TERMS) == Fullest(n_htlc_outputs=2, trimmed_sat=951)
    content = replace(content, holder=Party.ACCEPTER)
    assert fullest_in(content, TERMS) == Fullest(n_htlc_outputs=1, trimmed_sat=1_901)


def test_the_fullest_that_terms_allow() -> None:
    assert fullest_of(TERMS) == Fullest(n_htlc_outputs=24, trimmed_sat=5_000)
    assert penalty_costs_sat(TERMS, fullest_of(TERMS)) == 2_398 + 240 + 5_000 + 3_097
    assert fullest_of(ZERO_FEE) == Fullest(n_htlc_outputs=228, trimmed_sat=5_000)
    assert penalty_costs_sat(ZERO_FEE, fullest_of(ZERO_FEE)) == 5_000


def test_coverage_is_the_least_over_all_superseded_states() -> None:
    leaf = one_leaf([CAPACITY_SAT, 102_000], 101_500)
    assert covered(leaf, 1, terms=TERMS, fullest=EMPTY) is None, "nothing is superseded"
    leaf = buy(leaf, 2, 80_000)
    # F = 101,192: 80,000 and half of the rest to client 2, the other half to client 1.
    assert covered(leaf, 1, terms=TERMS, fullest=EMPTY) == 101_000 - 911 + 10_596
    assert covered(leaf, 2, terms=TERMS, fullest=EMPTY) == 102_000 - 911 + 90_596
    leaf = buy(leaf, 1, None)
    by_state = [
        covered_by_state_sat(leaf, index, client, terms=TERMS, fullest=EMPTY)
        for client in (1, 2)
        for index in (0, 1)
    ]
    # Of v1's L-stock, 21,500, the poison leaves 21,192, all of it the buyer's.
    assert by_state == [110_685, 121_281, 191_685, 181_089]
    assert covered(leaf, 1, terms=TERMS, fullest=EMPTY) == 110_685
    assert covered(leaf, 2, terms=TERMS, fullest=EMPTY) == 181_089


def test_of_each_state_counts_what_was_signed_for_it() -> None:
    """The fullest commitment on one state is none on another."""
    leaf = buy(buy(one_leaf([CAPACITY_SAT, 102_000], 101_500), 2, 80_000), 1, None)
    for fullest, covered_sat in (
        ([EMPTY, EMPTY], 110_685),
        ([EMPTY, ALL_HTLCS], 110_685),
        ([ALL_HTLCS, EMPTY], 110_685 + 911 - 5_735),
        ([EMPTY, Fullest(n_htlc_outputs=0, trimmed_sat=11_000)], 121_281 - 11_000),
    ):
        assert coverage_sat(leaf, 1, terms=TERMS, fullest=fullest) == covered_sat
    with pytest.raises(ValueError, match="zip"):
        coverage_sat(leaf, 1, terms=TERMS, fullest=[EMPTY])


def test_who_buys_after_a_neighbour_is_covered_for_less_than_it_may_receive() -> None:
    """The order of sales: what a neighbour bought first is not there for a later buyer."""
    leaf = buy(buy(one_leaf([50_000, 50_000], 100_000), 2, 90_000), 1, 9_000)
    capacity_sat = leaf.allocation.capacities_sat[0]
    covered_sat = covered(leaf, 1, terms=TERMS, fullest=EMPTY)
    assert (capacity_sat, covered_sat) == (59_000, 50_000 - 911 + 4_846)


def test_a_sale_to_a_neighbour_can_leave_a_balance_uncovered_that_was_safe_before() -> None:
    """No state was superseded before. A neighbour that buys all leaves nothing to share."""
    leaf = one_leaf([CAPACITY_SAT, 102_000], 20_000)
    most_sat = CAPACITY_SAT - TERMS.reserve_sat(Party.OPENER, capacity_sat=CAPACITY_SAT)
    assert covered(leaf, 1, terms=TERMS, fullest=fullest_of(TERMS)) is None
    leaf = buy(leaf, 2, None)
    assert leaf.shares_sat(0) == (0, 19_692)
    covered_sat = covered(leaf, 1, terms=TERMS, fullest=fullest_of(TERMS))
    assert (most_sat, covered_sat) == (98_362, 90_265)


def test_the_larger_of_poison_and_penalty_counts_and_a_channel_never_less_than_nothing() -> None:
    """Without fees the poison pays all, and only what has no output is lost."""
    free = one_leaf([CAPACITY_SAT], 20_000, feerate=0)
    free = buy(free, 1, 5_000)
    assert free.channel_poison(0, 1).fee_sat == free.stock_poison(0).fee_sat == 0
    for trimmed_sat in (0, 1, 5_000):
        fullest = Fullest(n_htlc_outputs=228, trimmed_sat=trimmed_sat)
        covered_sat = covered(free, 1, terms=ZERO_FEE, fullest=fullest)
        assert covered_sat == CAPACITY_SAT + 20_000 - trimmed_sat
    dear = buy(one_leaf([CAPACITY_SAT], 20_000, feerate=5_000), 1, 5_000)
    assert dear.channel_poison(0, 1).fee_sat == 2_220
    assert covered(dear, 1, terms=TERMS, fullest=EMPTY) == 101_000 - 2_220 + 17_780
    small = buy(one_leaf([552, 60_000], 20_000), 2, 5_000)
    assert covered(small, 1, terms=TERMS, fullest=EMPTY) == 0 + 7_346
