"""What is offered for a step of a way out: until when it hurries, and out of what it is paid."""

from dataclasses import replace
from typing import Final

import pytest
from immutables import Map
from tests.channel import specimen
from tests.protocol.old_states import STEP_BLOCKS, sold
from tests.protocol.paying_clients import live_factory, pay
from tests.protocol.seen_blocks import ELSEWHERE, buried, spending, up_to
from tests.protocol.test_confirming import CHANGE, coin, tx_of
from tests.protocol.test_lsp_sweeps import SHORT

from cromford.bitcoin.fees import P2TR_DUST_SAT
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.channel.htlc_tx import htlc_txs
from cromford.channel.terms import Party
from cromford.factory.exit_path import ExitStep, exit_path
from cromford.protocol.exiting.client import in_hand
from cromford.protocol.exiting.confirming import (
    budget_left_sat,
    of_commitment,
    of_spend,
    paid_for,
    purses_of,
    step_of_path,
)
from cromford.protocol.exiting.in_hand import InHand, Risk, Stake
from cromford.protocol.journal.known_chain import KnownChain
from cromford.wallet.coins import Purse, SpentCoin
from cromford.watch.bumping import Bumping, anchor_of
from cromford.watch.feerates import BELIEVED_SAT_PER_KW, OwnFees
from cromford.watch.sweep import HtlcInput, TakingTx

STAKE_SAT: Final = 40_000
DAY, SOON = 1_000, 8_000  # Estimates for a day, and for less.
ABSURD: Final = BELIEVED_SAT_PER_KW + 1
FEES: Final = OwnFees(estimates=((1, SOON), (100, DAY)))
BLOCKS_PER_TX: Final = 6  # That each transaction has for itself on the way.


@pytest.fixture(scope="module")
def plain() -> tuple[InHand, KnownChain]:
    """Return what a client of four holds, of which the stake is 40,000 sat and nothing hurries."""
    pump = live_factory(4, policy=SHORT)
    alice = pump.clients[0]
    pay(pump, pump.lsp, alice, 30_000_000)
    holding = in_hand(alice.state, pump.held(alice))
    return replace(holding, stake=Stake(amount_sat=STAKE_SAT)), alice.state.chain


@pytest.fixture(scope="module")
def advanced() -> tuple[InHand, KnownChain]:
    """Return the same of a client in a leaf whose state was replaced."""
    pump, _ = sold()
    alice = pump.clients[0]
    holding = in_hand(alice.state, pump.held(alice))
    return replace(holding, stake=Stake(amount_sat=STAKE_SAT)), alice.state.chain


def on_chain(chain: KnownChain, *steps: ExitStep) -> KnownChain:
    for step in steps:
        chain = buried(chain, 1, step.tx)
    return chain


def bumping_of(
    holding: InHand, chain: KnownChain, step: ExitStep, *, is_leaving: bool
) -> Bumping | None:
    asked = step_of_path(holding, chain, step, fees=FEES, is_leaving=is_leaving)
    assert (asked.name, asked.tx) == (step.name, step.tx)
    return asked.bumping


def leaving(holding: InHand, chain: KnownChain, step: ExitStep) -> Bumping:
    bumping = bumping_of(holding, chain, step, is_leaving=True)
    assert bumping is not None
    return bumping


# Who stays


def test_who_stays_pays_for_nothing_but_a_state_before_which_an_older_one_could_come(
    plain: tuple[InHand, KnownChain], advanced: tuple[InHand, KnownChain]
) -> None:
    holding, chain = plain
    for place, step in enumerate(exit_path(holding.signed)):
        there = on_chain(chain, *exit_path(holding.signed)[:place])
        assert bumping_of(holding, there, step, is_leaving=False) is None, "all are the first"
    holding, chain = advanced
    kickoff, state = exit_path(holding.signed)
    assert bumping_of(holding, chain, kickoff, is_leaving=False) is None
    assert bumping_of(holding, on_chain(chain, kickoff), state, is_leaving=False) is not None


def test_a_race_is_paid_for_out_of_half_of_what_is_below_until_six_blocks_before_the_older_state(
    advanced: tuple[InHand, KnownChain],
) -> None:
    holding, chain = advanced
    kickoff, state = exit_path(holding.signed)
    there = on_chain(chain, kickoff)
    deadline = there.height + state.delay_blocks + STEP_BLOCKS - 6

    def at(height: int) -> Bumping:
        bumping = bumping_of(holding, up_to(there, height), state, is_leaving=False)
        assert bumping is not None
        return bumping

    assert at(deadline - 1).budget_sat == STAKE_SAT // 2
    assert at(deadline).budget_sat == STAKE_SAT - P2TR_DUST_SAT
    assert at(deadline).feerate_sat_per_kw == SOON
    assert at(deadline).fee_sat == state.fee_sat
    assert not at(deadline).gives_way


# Who leaves


def test_who_leaves_without_a_hurry_offers_a_days_rate_out_of_half_of_it(
    plain: tuple[InHand, KnownChain],
) -> None:
    holding, chain = plain
    for step in exit_path(holding.signed):
        bumping = leaving(holding, chain, step)
        assert (bumping.feerate_sat_per_kw, bumping.budget_sat) == (DAY, STAKE_SAT // 2)
        assert bumping.fee_sat == step.fee_sat
        assert leaving(holding, up_to(chain, 2_000), step).budget_sat == STAKE_SAT // 2


@pytest.mark.parametrize(
    ("fees", "feerate", "budget_sat"),
    [
        (OwnFees(estimates=((1, 9_000), (100, ABSURD), (1008, 60))), 60, STAKE_SAT // 2),
        (OwnFees(mempool_min_sat_per_kw=ABSURD), 25, 0),
    ],
)
def test_who_leaves_long_before_its_deadline_pays_nothing_that_nobody_should_believe(
    plain: tuple[InHand, KnownChain], fees: OwnFees, feerate: int, budget_sat: int
) -> None:
    """A node that errs would cost half of all that it leaves with. In the last day it may."""
    holding, chain = plain
    risks = (Risk(end_height=14_000, amount_sat=STAKE_SAT),)
    risky = replace(holding, stake=Stake(amount_sat=STAKE_SAT, risks=risks))

    def at(step: ExitStep, height: int) -> tuple[int, int]:
        asked = step_of_path(risky, up_to(chain, height), step, fees=fees, is_leaving=True)
        assert asked.bumping is not None
        return asked.bumping.feerate_sat_per_kw, asked.bumping.budget_sat

    for step in exit_path(holding.signed):
        last_day = deadline_of(holding, step, 14_000) - 144
        assert at(step, chain.height) == at(step, last_day - 1) == (feerate, budget_sat)
        dear, half_sat = at(step, last_day)
        assert (dear >= ABSURD, half_sat) == (True, STAKE_SAT // 2)


def deadline_of(holding: InHand, step: ExitStep, end_height: int) -> int:
    """Return when a step has to be in a block: what follows has its delays, and six blocks each."""
    steps = exit_path(holding.signed)
    later = steps[steps.index(step) + 1 :]
    return end_height - sum(one.delay_blocks + 6 for one in later) - 6


def test_a_step_hurries_by_its_share_of_the_blocks_and_from_its_last_six_on_more_with_each(
    plain: tuple[InHand, KnownChain],
) -> None:
    """It could have been published long before: that alone makes it no dearer."""
    holding, chain = plain
    risky = replace(
        holding,
        stake=Stake(amount_sat=STAKE_SAT, risks=(Risk(end_height=1_000, amount_sat=STAKE_SAT),)),
    )
    for step in exit_path(holding.signed):
        deadline = deadline_of(holding, step, 1_000)
        long_ago = replace(risky, published=Map({step.tx.inputs[0].outpoint: chain.height}))
        rates = [
            leaving(long_ago, up_to(chain, deadline + blocks), step).feerate_sat_per_kw
            for blocks in (-110, -BLOCKS_PER_TX, -BLOCKS_PER_TX + 1, -BLOCKS_PER_TX + 2)
        ]
        assert rates == [DAY, SOON, SOON * 5 // 4, SOON * 25 // 16]
        late = [
            leaving(long_ago, up_to(chain, deadline + blocks), step).budget_sat
            for blocks in (-1, 0)
        ]
        assert late == [STAKE_SAT // 2, STAKE_SAT - P2TR_DUST_SAT]
        new = leaving(risky, up_to(chain, deadline), step)
        assert new.feerate_sat_per_kw == SOON, "it is published for the first time"


def test_what_hurries_is_paid_for_out_of_what_is_lost_without_it(
    plain: tuple[InHand, KnownChain],
) -> None:
    """A small HTLC is not saved with what the balance could pay: that one waits a day's rate."""
    holding, chain = plain
    (step, *_) = exit_path(holding.signed)
    deadline = deadline_of(holding, step, 1_000)
    there = up_to(chain, deadline)

    def risking(amount_sat: int) -> Bumping:
        risks = (Risk(end_height=1_000, amount_sat=amount_sat),)
        stake = Stake(amount_sat=STAKE_SAT, risks=risks)
        return leaving(replace(holding, stake=stake), there, step)

    large, small = risking(30_000), risking(400)
    assert (large.feerate_sat_per_kw, large.budget_sat) == (SOON, 30_000 - P2TR_DUST_SAT)
    assert (small.feerate_sat_per_kw, small.budget_sat) == (DAY, STAKE_SAT // 2)


def test_our_commitment_hurries_until_its_end_and_gives_way_to_the_peers(
    plain: tuple[InHand, KnownChain],
) -> None:
    holding, chain = plain
    tx = holding.link.finished.tx
    stake = Stake(amount_sat=STAKE_SAT, risks=(Risk(end_height=1_000, amount_sat=STAKE_SAT),))
    risky = replace(holding, stake=stake)
    bumping = of_commitment(risky, up_to(chain, 999), tx, fees=FEES)
    assert bumping.gives_way
    assert bumping.fee_sat == holding.link.present.capacity_sat - sum(
        one.amount_sat for one in tx.outputs
    )
    assert (bumping.feerate_sat_per_kw, bumping.budget_sat) == (SOON, STAKE_SAT // 2)
    late = of_commitment(risky, up_to(chain, 1_000), tx, fees=FEES)
    assert late.budget_sat == STAKE_SAT - P2TR_DUST_SAT


# HTLC transactions


def htlc_spend(*, is_offered: bool, expiry: int = 1_000) -> TakingTx:
    holder = Party.ACCEPTER
    htlc = specimen.htlc(holder if is_offered else holder.other, 3, 50_000_000, expiry=expiry)
    (htlc_tx,) = htlc_txs(specimen.build(specimen.content(holder, [htlc])))
    spent = HtlcInput(htlc_tx=htlc_tx, peer_signature=bytes(64), secret_or_point=b"")
    return TakingTx(name="htlc", tx=htlc_tx.tx, inputs=(spent,))


@pytest.mark.parametrize(
    ("is_offered", "forwarded", "deadline"),
    [
        (False, frozenset(), 1_000 - 6),
        (False, frozenset({3}), 1_000 - 6),
        (True, frozenset({3}), 1_000 + 12),
        (True, frozenset({4}), None),
    ],
)
def test_an_htlc_transaction_hurries_before_a_peer_may_take_it_or_its_payer_leaves(
    plain: tuple[InHand, KnownChain],
    is_offered: bool,  # noqa: FBT001 - a case
    forwarded: frozenset[int],
    deadline: int | None,
) -> None:
    holding, chain = plain
    forwarding = replace(holding, stake=Stake(amount_sat=STAKE_SAT, forwarded=forwarded))
    spend = htlc_spend(is_offered=is_offered)

    def at(height: int) -> Bumping:
        bumping = of_spend(forwarding, up_to(chain, height), spend, fees=FEES)
        assert bumping is not None
        return bumping

    held_sat = spend.prevouts[0].amount_sat
    assert at(990).fee_sat == spend.fee_sat
    assert not at(990).gives_way, "what takes it in its place takes it from us"
    if deadline is None:
        assert {at(height).budget_sat for height in (990, 1_100)} == {held_sat // 2}
        assert {at(height).feerate_sat_per_kw for height in (990, 1_100)} == {DAY}
    else:
        assert at(deadline - 1).budget_sat == held_sat // 2
        assert at(deadline).budget_sat == held_sat - P2TR_DUST_SAT
        assert at(deadline).feerate_sat_per_kw == SOON


def test_what_names_its_own_fee_is_not_bumped(plain: tuple[InHand, KnownChain]) -> None:
    holding, chain = plain
    spend = htlc_spend(is_offered=True)
    claim = replace(spend, inputs=(object(),))  # type: ignore[arg-type]  # no HTLC's
    assert of_spend(holding, chain, claim, fees=FEES) is None


def test_an_htlc_transaction_that_pays_nothing_goes_as_it_is_where_no_coin_is(
    plain: tuple[InHand, KnownChain],
) -> None:
    holding, chain = plain
    spend = htlc_spend(is_offered=True)
    bumping = of_spend(holding, chain, spend, fees=FEES)
    assert bumping is not None
    assert paid_for(spend, bumping) is spend
    coins = (coin(1, 20_000),)
    rich = replace(bumping, purse=Purse(coins=coins, change_script=CHANGE))
    paid = paid_for(spend, rich)
    assert [one.outpoint for one in paid.tx.inputs][1:] == [coins[0].outpoint]
    poor = replace(rich, budget_sat=0)
    assert paid_for(spend, poor) is spend


# Coins, and what they have cost


PATH_COIN, HTLC_COIN, STRANGE_COIN = coin(1, 5_000), coin(2, 3_000), coin(3, 4_000)


def purse(*coins: SpentCoin) -> Purse:
    return Purse(coins=coins, change_script=CHANGE)


def test_the_budget_of_a_way_out_is_half_of_the_stake_less_what_children_in_blocks_have_cost(
    plain: tuple[InHand, KnownChain],
) -> None:
    holding, chain = plain
    (first, second, *_) = exit_path(holding.signed)
    anchor = anchor_of(first.tx)
    assert anchor is not None
    spent = first.tx.inputs[0].outpoint
    strange = OutPoint(txid=Txid(b"\x0f" * 32), vout=0)
    child = tx_of([anchor, PATH_COIN.outpoint], (4_100, CHANGE))
    other = tx_of([strange, STRANGE_COIN.outpoint], (1, ELSEWHERE))
    with_coins = replace(
        holding, purses=Map({spent: purse(PATH_COIN), strange: purse(STRANGE_COIN)})
    )
    there = buried(chain, 1, first.tx, child, other)
    assert budget_left_sat(with_coins, chain) == STAKE_SAT // 2
    assert budget_left_sat(with_coins, there) == STAKE_SAT // 2 - 900
    assert leaving(with_coins, there, second).budget_sat == STAKE_SAT // 2 - 900
    gone = replace(with_coins, stake=Stake(amount_sat=1_000))
    assert budget_left_sat(gone, there) == 0
    assert leaving(gone, there, second).budget_sat == 0


def test_a_childs_cost_of_the_commitment_is_of_the_same_budget(
    plain: tuple[InHand, KnownChain],
) -> None:
    holding, chain = plain
    funding = holding.link.present.outpoint
    tx = tx_of([funding, PATH_COIN.outpoint], (4_900, CHANGE))
    with_coins = replace(holding, purses=Map({funding: purse(PATH_COIN)}))
    assert budget_left_sat(with_coins, buried(chain, 1, tx)) == STAKE_SAT // 2 - 100


def test_the_coins_of_a_way_out_are_those_of_its_path_and_of_what_its_transactions_pay(
    plain: tuple[InHand, KnownChain],
) -> None:
    holding, chain = plain
    (first, *_) = exit_path(holding.signed)
    funding = holding.link.present.outpoint
    commitment = tx_of([funding], (9_000, ELSEWHERE))
    htlc = commitment.outpoint(0)
    strange = OutPoint(txid=Txid(b"\x0f" * 32), vout=0)
    of_path = first.tx.inputs[0].outpoint
    purses = {
        of_path: purse(PATH_COIN),
        funding: purse(),
        htlc: purse(HTLC_COIN),
        strange: purse(STRANGE_COIN),
    }
    with_coins = replace(holding, purses=Map(purses))
    assert set(purses_of(with_coins, chain)) == {of_path, funding}
    there = buried(chain, 1, commitment)
    assert dict(purses_of(with_coins, there).items()) == {
        one: purses[one] for one in (of_path, funding, htlc)
    }


def test_a_step_is_bumped_with_its_own_coins_that_are_there(
    plain: tuple[InHand, KnownChain],
) -> None:
    holding, chain = plain
    (first, second, *_) = exit_path(holding.signed)
    both = purse(PATH_COIN, HTLC_COIN)
    with_coins = replace(holding, purses=Map({first.tx.inputs[0].outpoint: both}))
    assert leaving(with_coins, chain, first).purse == both
    assert leaving(with_coins, chain, second).purse is None
    gone = buried(chain, 1, spending(PATH_COIN.outpoint))
    assert leaving(with_coins, gone, first).purse == purse(HTLC_COIN)


def test_spare_are_the_anchors_of_the_path_that_are_in_blocks_and_unspent(
    plain: tuple[InHand, KnownChain],
) -> None:
    holding, chain = plain
    first, second, third, _ = exit_path(holding.signed)
    anchors = [anchor_of(step.tx) for step in (first, second)]
    assert leaving(holding, chain, first).spare_anchors == ()
    there = on_chain(chain, first, second)
    assert leaving(holding, there, third).spare_anchors == tuple(anchors)
    assert anchors[0] is not None
    spent = buried(there, 1, spending(anchors[0]))
    assert leaving(holding, spent, third).spare_anchors == (anchors[1],)
