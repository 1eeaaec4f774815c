"""What is worth an exit, and who wins an HTLC that both may take, by the chain's own judgement."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest
from tests.channel.specimen import payment_hash
from tests.watch.channel_world import (
    TERMS,
    ZERO_FEE,
    Pair,
    Side,
    World,
    built,
    coins_sat,
    fresh_world,
    held_of,
    knowing,
    pair_of,
    peers,
    publish,
    settle,
)

from cromford.bitcoin.fees import MIN_RELAY_SAT_PER_KW, fee_sat_of
from cromford.bitcoin.tx import Tx
from cromford.channel.content import Htlc
from cromford.channel.terms import (
    HTLC_SUCCESS_WEIGHT,
    HTLC_TIMEOUT_WEIGHT,
    MSAT_PER_SAT,
    ChannelTerms,
    Party,
)
from cromford.regtest.verdict import MempoolRefused
from cromford.watch.sweep import SWEEP_VSIZE
from cromford.watch.worth import least_balance_sat

FEERATES: Final = (250, 500, 5_000)
EXPIRY_BLOCKS: Final = 20
CHILD_VSIZE: Final = 153  # Of a child of one anchor and one coin.


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with fresh_world() as world:
        yield world


def channel_terms(feerate: int, *, dust_limit_sat: int = 354) -> ChannelTerms:
    return replace(TERMS, feerate_per_kw=feerate, dust_limit_sat=dust_limit_sat)


# Balances


@pytest.mark.parametrize("feerate", FEERATES)
@pytest.mark.parametrize("dust_limit_sat", [330, 343, 354])
def test_the_least_balance_that_is_worth_an_exit_is_the_least_that_becomes_a_coin(
    world: World, feerate: int, dust_limit_sat: int
) -> None:
    terms = channel_terms(feerate, dust_limit_sat=dust_limit_sat)
    least_sat = least_balance_sat(terms)
    assert coin_of_balance(world, terms, least_sat - 1) == []
    (coin_sat,) = coin_of_balance(world, terms, least_sat)
    assert 330 <= coin_sat < least_sat


def coin_of_balance(world: World, terms: ChannelTerms, balance_sat: int) -> list[int]:
    """Return what reaches a client's wallet of a balance, if its sweep pays what is relayed."""
    pair = pair_of(
        world,
        Party.ACCEPTER,
        has_htlcs=False,
        terms=terms,
        accepter_msat=MSAT_PER_SAT * balance_sat,
    )
    pair.leaver.feerate_sat_per_kw = MIN_RELAY_SAT_PER_KW
    settle(world, pair.leaver)
    return coins_sat(pair.leaver)


# HTLCs: what a thief spends, and gets


def pair_with_htlc(
    world: World, leaver: Party, *, offered_by: Party, amount_sat: int, terms: ChannelTerms
) -> Pair:
    """Return both sides of a channel with one HTLC; its payee knows the preimage."""
    funding = world.funded()
    expiry = world.tip_height + EXPIRY_BLOCKS
    htlc = Htlc(
        offered_by=offered_by,
        htlc_id=0,
        amount_msat=MSAT_PER_SAT * amount_sat,
        payment_hash=payment_hash(0),
        cltv_expiry=expiry,
    )
    sides = []
    for party in (leaver, leaver.other):
        own, theirs = (built(funding, one, [htlc], terms=terms) for one in (party, party.other))
        sides.append(
            Side(
                world,
                held_of(own),
                (peers(theirs),),
                preimages=knowing(0) if party is offered_by.other else {},
                feerate_sat_per_kw=MIN_RELAY_SAT_PER_KW,
                is_leaving=party is leaver,
            )
        )
    return Pair(leaver=sides[0], other=sides[1], expiry=expiry)


def least_amount_sat(terms: ChannelTerms, *, is_offered: bool) -> int:
    """Return the least HTLC with an output on the commitment of who offered, or accepted it."""
    return terms.htlc_tx_cost_sat(is_offered=is_offered) + terms.dust_limit_sat


@pytest.mark.parametrize("feerate", FEERATES)
@pytest.mark.parametrize("thief", list(Party), ids=["the LSP", "a client"])
def test_every_htlc_that_has_an_output_is_worth_more_than_it_costs_to_steal(
    world: World, thief: Party, feerate: int
) -> None:
    """The LSP takes back what its payee was paid; a client takes late what was given back.

    Nothing is counted for branch and commitment: they are on chain, for whatever reason.
    """
    terms = channel_terms(feerate)
    for offered_by in Party:
        is_offered = offered_by is thief
        amount_sat = least_amount_sat(terms, is_offered=is_offered)
        pair = pair_with_htlc(
            world, thief, offered_by=offered_by, amount_sat=amount_sat, terms=terms
        )
        publish([pair.leaver])
        world.mine_to(pair.expiry)
        settle(world, pair.leaver)
        balance_sat = 400_000 if thief is Party.ACCEPTER else lsps_sat(pair, terms, amount_sat)
        assert sum(coins_sat(pair.leaver)) > balance_sat, "the HTLC made it richer"
        assert amount_sat > terms.htlc_tx_cost_sat(is_offered=is_offered) + 13
        assert amount_sat >= least_balance_sat(terms)


def lsps_sat(pair: Pair, terms: ChannelTerms, amount_sat: int) -> int:
    cost_sat = terms.commitment_fee_sat(n_htlc_outputs=1) + terms.paid_anchor_sat
    return pair.leaver.finished.commitment.funding.capacity_sat - 400_000 - amount_sat - cost_sat


# HTLCs: the race

RACES = pytest.mark.parametrize(
    ("publisher", "offered_by"),
    [(publisher, offered_by) for publisher in Party for offered_by in Party],
    ids=lambda party: party.name.lower(),
)


def payee_and_payer(pair: Pair, offered_by: Party) -> tuple[Side, Side]:
    payer, payee = sorted(pair.both, key=lambda side: side.party is not offered_by)
    return payee, payer


def htlc_spends(side: Side) -> list[Tx]:
    """Return what a side would publish now to take the HTLC."""
    commitment = side.channel().landed
    assert commitment is not None
    outpoints = {
        commitment.commitment.tx.outpoint(vout)
        for vout, output in enumerate(commitment.commitment.outputs)
        if output.htlc is not None
    }
    return [tx for tx in side.due() if outpoints & {one.outpoint for one in tx.inputs}]


@RACES
def test_until_its_expiry_only_the_payee_can_take_an_htlc(
    world: World, publisher: Party, offered_by: Party
) -> None:
    pair = pair_with_htlc(
        world, publisher, offered_by=offered_by, amount_sat=20_000, terms=channel_terms(500)
    )
    payee, payer = payee_and_payer(pair, offered_by)
    publish([pair.leaver])
    world.mine()
    assert htlc_spends(payer) == []
    (taken,) = htlc_spends(payee)
    world.submit(taken)
    world.mine()
    assert world.heights[taken.txid] <= pair.expiry


@RACES
@pytest.mark.parametrize("is_payee_first", [True, False])
def test_from_its_expiry_on_an_htlc_is_whose_transaction_is_mined_first(
    world: World, publisher: Party, offered_by: Party, *, is_payee_first: bool
) -> None:
    """Both are valid in the same block: nobody may wait until there, whatever the amount."""
    pair = pair_with_htlc(
        world, publisher, offered_by=offered_by, amount_sat=20_000, terms=channel_terms(500)
    )
    payee, payer = payee_and_payer(pair, offered_by)
    publish([pair.leaver])
    world.mine_to(pair.expiry)
    first, second = (payee, payer) if is_payee_first else (payer, payee)
    (won,), (lost,) = htlc_spends(first), htlc_spends(second)
    world.submit(won)
    world.mine()
    assert world.heights[won.txid] == pair.expiry + 1
    with pytest.raises(MempoolRefused, match="bad-txns-inputs-missingorspent"):
        world.submit(lost)
    assert htlc_spends(second) == []


def test_an_htlc_of_the_published_type_is_worth_more_than_the_child_that_pays_for_it() -> None:
    """Its transactions pay nothing, so the thief pays for them and for a child that brings them."""
    for is_offered, weight in ((True, HTLC_TIMEOUT_WEIGHT), (False, HTLC_SUCCESS_WEIGHT)):
        vsize = weight // 4 + CHILD_VSIZE + SWEEP_VSIZE
        cost_sat = fee_sat_of(vsize=vsize, feerate_sat_per_kw=MIN_RELAY_SAT_PER_KW)
        assert least_amount_sat(ZERO_FEE, is_offered=is_offered) > cost_sat
