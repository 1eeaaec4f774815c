"""What an LSP publishes of a factory, what of it is on its way to its wallet, what it watches."""

from dataclasses import replace
from functools import cache
from typing import Final

from immutables import Map
from tests.protocol.decisions import in_factory, remembered, wished
from tests.protocol.left_factories import (
    ALICE,
    BOB,
    channel,
    forwarding,
    having,
    leaving,
    on,
    paid,
    path,
    seeing,
    unfunded,
)
from tests.protocol.old_states import sold
from tests.protocol.paying_clients import live_factory
from tests.protocol.seen_blocks import spending, up_to
from tests.protocol.test_confirming import CHANGE, coin
from tests.protocol.test_leaving import QUICK
from tests.protocol.test_who_may_leave import closed
from tests.protocol.unanswered import WORTH_MSAT

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint
from cromford.channel.commitment import CommitmentOutputKind
from cromford.factory.outputs import OutputKind
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.exiting.lsp import (
    arriving_total_sat,
    exit_effects,
    in_hand,
    is_over,
    is_swept,
    keep_watching,
    owed,
    preimages_of,
    take,
    watched,
)
from cromford.protocol.exiting.lsp_sweep import sweeps_due
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.factory import Factory
from cromford.wallet.coins import Purse
from cromford.watch.feerates import OwnFees

FEES: Final = OwnFees()


def broadcasts(factory: Factory) -> list[fx.Broadcast]:
    return [one for one in owed(factory, FEES) if isinstance(one, fx.Broadcast)]


# What is published


def test_nothing_is_owed_of_what_was_never_funded() -> None:
    assert owed(unfunded(), FEES) == ()


def test_a_state_is_published_once_though_the_tree_asks_for_it_as_well() -> None:
    """Whoever has less to lose says nothing of what may be paid."""
    factory = leaving(paid(), ALICE)
    root, state = path(factory, ALICE)
    there = seeing(factory, root)
    delay = channel(factory, ALICE).path[-1].delay_blocks
    due = on(there, up_to(there.chain, there.chain.height + delay))
    (published,) = broadcasts(due)
    assert (published.tx, published.bumping is not None) == (state, True)
    (stays,) = broadcasts(leaving(due))
    assert (stays.tx, stays.bumping) == (state, None)


def test_a_state_that_races_is_paid_for_out_of_a_channel_that_is_left_and_of_all_the_tree() -> None:
    """An older state would take what is ours below it, of every channel, and the L-stock."""
    pump, done = sold()
    factory = leaving(pump.factory, ALICE)
    root, state = path(factory, ALICE)
    there = seeing(factory, root)
    delay = channel(factory, ALICE).path[-1].delay_blocks
    due = on(there, up_to(there.chain, there.chain.height + delay))
    found = broadcasts(due)
    assert [one.tx for one in found] == [state] * 2
    own_sat = [balance_of(channel(factory, one)).own_msat // 1000 for one in (ALICE, BOB)]
    all_sat = sum(own_sat) + done.leaf.allocation.lstock_sat
    budgets = [one.bumping.budget_sat for one in found if one.bumping is not None]
    assert budgets == [own_sat[0] // 2, all_sat // 2]
    (stays,) = broadcasts(leaving(due))
    assert stays == found[1]


def test_nothing_is_published_of_a_channel_that_no_path_leads_to_any_more() -> None:
    for factory in (
        leaving(closed(), ALICE, BOB),
        leaving(seeing(paid(), spending(paid().attempt.funding_outpoint)), ALICE, BOB),
    ):
        for client in (ALICE, BOB):
            assert is_over(factory, client)
            assert exit_effects(factory, client, FEES) == ()
    assert not is_over(paid(), ALICE)
    assert not is_swept(closed(), ALICE), "a close takes nothing"


def test_to_a_client_that_lost_state_the_newest_commitment_is_published_though_nobody_leaves() -> (
    None
):
    """It must not publish its own."""
    factory = having(paid(), ALICE, peer_is_behind=True)
    assert exit_effects(factory, ALICE, FEES) == ()
    there = seeing(factory, *path(factory, ALICE))
    (commitment,) = exit_effects(there, ALICE, FEES)
    assert isinstance(commitment, fx.Broadcast)
    assert commitment.tx == channel(factory, ALICE).finished.tx
    assert exit_effects(there, BOB, FEES) == ()


def test_a_sweep_that_is_signed_takes_the_place_of_one_that_pays_less() -> None:
    factory = on(paid(), up_to(paid().chain, paid().attempt.terms.expiry_height))
    (asked,) = sweeps_due(factory, FEES)
    turn = in_factory(factory)
    tx = asked.spend.signed(bytes(64))
    take(turn, ev.SweepSigned(asked=asked, tx=tx))
    (published,) = wished(turn, fx.Broadcast)
    assert (published.name, published.tx, published.replaces) == (asked.spend.name, tx, True)


# What is in hand


def test_a_forward_that_nobody_answered_claims_nothing() -> None:
    factory = forwarding(WORTH_MSAT)
    (forward,) = factory.book.forwards.values()
    assert forward.preimage is None
    assert preimages_of(factory, channel(factory, ALICE)) == {}
    assert in_hand(factory, ALICE).preimages == {}


def test_only_what_is_offered_for_another_clients_htlc_hurries_for_that_one() -> None:
    """Of the LSP's own payment nobody waits for the amount."""
    htlcs = channel(forwarding(WORTH_MSAT), BOB).state.htlcs
    assert in_hand(forwarding(WORTH_MSAT), BOB).stake.forwarded == {htlcs[0].htlc.htlc_id}
    assert in_hand(forwarding(WORTH_MSAT, by_lsp=True), BOB).stake.forwarded == frozenset()


# What is on its way to the wallet


def test_what_arrives_is_the_l_stock_and_the_balances_of_channels_on_chain() -> None:
    factory = paid()
    assert arriving_total_sat(factory) == 0
    root, state = path(factory, ALICE)
    stock_sat = sum(
        output.amount_sat
        for node in factory.attempt.tree.nodes
        for output in node.outputs
        if output.kind is OutputKind.LSTOCK
    )
    there = seeing(factory, root, state)
    assert stock_sat > 0
    assert arriving_total_sat(there) == stock_sat
    commitment = channel(factory, ALICE).finished.commitment
    (own_sat,) = (
        txout.amount_sat
        for output, txout in zip(commitment.outputs, commitment.tx.outputs, strict=True)
        if output.kind is CommitmentOutputKind.TO_HOLDER
    )
    assert arriving_total_sat(seeing(there, commitment.tx)) == stock_sat + own_sat
    assert arriving_total_sat(unfunded()) == 0


# What is watched


@cache
def deep() -> Factory:
    """Return a factory whose root has several children, its LSP with a coin for the root."""
    factory = live_factory(4, policy=QUICK).factory
    purse = Purse(coins=(coin(1, 5_000),), change_script=CHANGE)
    return replace(factory, purses=Map({factory.attempt.funding_outpoint: purse}))


def what_funds(factory: Factory) -> set[OutPoint]:
    attempt = factory.attempt
    inputs = {tx_in.outpoint for tx_in in attempt.funding_tx.inputs}
    return inputs | {attempt.funding_outpoint}


def test_until_something_of_it_is_on_chain_only_what_funds_a_factory_is_watched() -> None:
    assert watched(deep()) == what_funds(deep())


def test_of_the_tree_what_is_in_blocks_is_watched_and_every_output_of_a_commitment() -> None:
    """And the coins of children, whatever became of them."""
    factory = deep()
    path_txs = path(factory, ALICE)
    purse_coin = coin(1, 5_000).outpoint
    expected = what_funds(factory) | {purse_coin}
    spent = {tx.inputs[0].outpoint for tx in path_txs}
    for n_seen, tx in enumerate(path_txs, start=1):
        there = seeing(factory, *path_txs[:n_seen])
        paying = tx.outpoints[:-1]  # All but the anchor.
        expected |= set(paying)
        assert watched(there) == expected
        assert spent & set(tx.outpoints) or n_seen == len(path_txs)
    commitment = channel(factory, ALICE).finished.tx
    there = seeing(factory, *path_txs, commitment)
    assert watched(there) == expected | set(commitment.outpoints)


def test_what_is_to_be_watched_is_said_once_and_again_when_the_chain_found_something() -> None:
    """The chain watches more by itself then; what is swept is nobody's news any more."""
    factory = paid()
    known = replace(factory, watch=watched(factory))

    def said_of(factory: Factory, *, has_news: bool | None = None) -> list[xr.Watching]:
        turn = in_factory(factory)
        if has_news is None:
            keep_watching(turn)
        else:
            keep_watching(turn, has_news=has_news)
        return remembered(turn, xr.Watching)

    assert said_of(known) == said_of(known, has_news=False) == []
    outpoints = tuple(sorted(one.serialize() for one in watched(factory)))
    said = xr.Watching(height=factory.chain.height, outpoints=outpoints)
    assert said_of(known, has_news=True) == [said]
    assert said_of(replace(known, watch=frozenset())) == [said]
    assert said_of(unfunded()) == said_of(unfunded(), has_news=True) == []
