"""A funding that no block takes is paid for by a child of its change; its txid stays."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.paying_clients import newest_link
from tests.protocol.pump import COIN_SAT, Pump
from tests.protocol.sleepers import lsp_state
from tests.protocol.test_abandoned_fundings import POLICY, abandon, code_of, status
from tests.protocol.test_abandoned_fundings import request as abandon_request
from tests.protocol.test_bumped_payments import bump as bumped_payment
from tests.protocol.test_leaving import wallet_sat
from tests.protocol.test_own_fees import asks
from tests.protocol.test_paying import pay

from cromford import effects as fx
from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.replacement import FeeAndWeight
from cromford.bitcoin.tx import OutPoint, Tx
from cromford.daemon.views import lsp as views
from cromford.factory.funding import CHANGE_VOUT
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.facts import Facts
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.lobby_records import FundingBumped
from cromford.protocol.lobby import bumping
from cromford.wallet.child import plan_child
from cromford.wallet.coins import InsufficientCoins
from cromford.watch.feerates import BELIEVED_SAT_PER_KW, OwnFees

STALE: Final = Facts(stale="the node does not answer")
RATE: Final = 5_000  # 20 sat/vB.
FUNDING_VSIZE: Final = 154  # One coin, two outputs.
CHILD_VSIZE: Final = 111  # One input, one output.


def waiting() -> Pump:
    """Return a pump in which a funding waits for a block."""
    pump = Pump(2, policy=POLICY, watches_folds=True)
    pump.join()
    pump.build()
    pump.run()
    assert pump.attempt.funding_tx.txid in pump.chain.mempool
    return pump


def request(pump: Pump, feerate_sat_per_kw: int = RATE) -> ev.FundingBumpRequested:
    return ev.FundingBumpRequested(
        attempt_id=pump.attempt.attempt_id, feerate_sat_per_kw=feerate_sat_per_kw
    )


def bump(pump: Pump, feerate_sat_per_kw: int = RATE) -> Tx:
    """Let the operator bump the funding; return the child, as it was published."""
    pump.handle(pump.lsp, request(pump, feerate_sat_per_kw))
    return pump.wishes(pump.lsp, fx.PublishBumped)[-1].child


def funding_of(pump: Pump) -> Tx:
    funded = pump.attempt.funded
    assert funded is not None
    return funded.funding_tx


def change_of(pump: Pump) -> OutPoint:
    return funding_of(pump).outpoint(CHANGE_VOUT)


def n_published(pump: Pump) -> int:
    return len(pump.wishes(pump.lsp, fx.PublishBumped))


def test_a_child_of_the_change_lifts_a_funding_to_the_feerate_that_both_pay() -> None:
    pump = waiting()
    funding = funding_of(pump)
    before_sat = wallet_sat(pump.lsp)
    child = bump(pump)
    assert [tx_in.outpoint for tx_in in child.inputs] == [change_of(pump)]
    assert (funding.vsize, child.vsize) == (FUNDING_VSIZE, CHILD_VSIZE)
    fee_sat = pump.chain.fee_sat(child)
    together_sat = fee_sat_of(vsize=FUNDING_VSIZE + CHILD_VSIZE, feerate_sat_per_kw=RATE)
    assert pump.chain.fee_sat(funding) + fee_sat == together_sat
    house = lsp_state(pump).house
    shown = views.bump_of(house, pump.attempt.attempt_id)
    assert shown == {"txid": str(child.txid), "fee_sat": fee_sat, "feerate_sat_per_vb": 20.0}
    assert {child.txid, funding.txid} <= pump.chain.mempool.keys()
    pump.mine()
    assert {child.txid, funding.txid} <= pump.chain.confirmed.keys()
    wallet = lsp_state(pump).wallet
    assert child.outpoint(0) in {coin.outpoint for coin in wallet.free(pump.chain.height)}
    assert wallet.payments == {}
    funding_sat = funding.outputs[0].amount_sat
    assert wallet_sat(pump.lsp) == before_sat - funding_sat - together_sat
    pump.mine(2)
    assert all(newest_link(client).is_open for client in pump.clients)


def test_both_are_published_at_each_block_and_each_start_until_a_block_has_one() -> None:
    pump = waiting()
    child = bump(pump)
    for n_before in (1, 2):
        assert n_published(pump) == n_before
        pump.chain.mempool.clear()
        pump.chain.mine()
        pump.sync()
        assert {child.txid, funding_of(pump).txid} <= pump.chain.mempool.keys()
    pump.chain.mempool.clear()
    pump.restart(pump.lsp)
    assert {child.txid, funding_of(pump).txid} <= pump.chain.mempool.keys()
    assert [one for one in pump.wishes(pump.lsp, fx.Broadcast) if one.name == "payment"] == []
    n_before = n_published(pump)
    pump.mine(3)
    pump.restart(pump.lsp)
    assert n_published(pump) == n_before


def test_below_the_mempools_minimum_both_get_in_together() -> None:
    pump = waiting()
    pump.chain.mempool.clear()
    asks(pump, 1_000)
    pump.chain.mine()
    pump.sync()
    assert funding_of(pump).txid not in pump.chain.mempool
    child = bump(pump, OwnFees(mempool_min_sat_per_kw=1_000).within(6))
    assert {child.txid, funding_of(pump).txid} <= pump.chain.mempool.keys()
    pump.mine(3)
    assert status(pump) == "live"


def test_bumped_again_the_former_child_is_replaced_at_no_less_than_a_node_takes() -> None:
    pump = waiting()
    first = bump(pump)
    first_sat = pump.chain.fee_sat(first)
    house = lsp_state(pump).house
    paid = bumping.paid_sat_per_kw(house, pump.attempt.attempt_id)
    assert paid == RATE
    second = bump(pump, RATE + 1)  # So little more is not enough for the relay of a replacement.
    assert pump.chain.fee_sat(second) == first_sat + fee_sat_of(
        vsize=CHILD_VSIZE, feerate_sat_per_kw=25
    )
    assert first.txid not in pump.chain.mempool
    assert second.outputs[0].script_pubkey == first.outputs[0].script_pubkey
    third = bump(pump, 2 * RATE)
    assert list(lsp_state(pump).wallet.payments) == [third.txid]
    assert set(lsp_state(pump).wallet.reserved_for) == {pump.attempt.attempt_id, third.txid}
    pump.mine(3)
    assert third.txid in pump.chain.confirmed
    assert lsp_state(pump).wallet.payments == {}


def test_what_the_change_does_not_pay_other_coins_do() -> None:
    pump = waiting()
    change_sat = funding_of(pump).outputs[CHANGE_VOUT].amount_sat
    dear = change_sat  # Of 265 vB that is more than the change.
    child = bump(pump, dear)
    spent = [tx_in.outpoint for tx_in in child.inputs]
    assert (spent[0], len(spent)) == (change_of(pump), 2)
    wallet = lsp_state(pump).wallet
    assert wallet.reserved[spent[1]] == child.txid
    assert wallet.coins[spent[1]].txout.amount_sat == COIN_SAT
    fee_sat = pump.chain.fee_sat(child) + pump.chain.fee_sat(funding_of(pump))
    assert fee_sat == fee_sat_of(vsize=FUNDING_VSIZE + child.vsize, feerate_sat_per_kw=dear)
    again = bump(pump, dear + 500)
    assert [tx_in.outpoint for tx_in in again.inputs] == spent
    pump.mine()
    assert again.txid in pump.chain.confirmed
    free = {coin.outpoint for coin in lsp_state(pump).wallet.free(pump.chain.height)}
    assert again.outpoint(0) in free
    assert spent[1] not in free


def test_a_funding_that_a_block_takes_without_its_child_leaves_an_ordinary_payment() -> None:
    pump = waiting()
    child = bump(pump)
    pump.chain.mempool.pop(child.txid)
    pump.chain.mine()
    pump.sync()
    assert pump.chain.confirmed.keys() & {child.txid, funding_of(pump).txid} == {
        funding_of(pump).txid
    }
    assert pump.wishes(pump.lsp, fx.Broadcast)[-1].tx.txid == child.txid
    assert change_of(pump) in lsp_state(pump).wallet.reserved
    pump.mine()
    assert child.txid in pump.chain.confirmed
    assert lsp_state(pump).wallet.payments == {}


def test_a_reorganisation_publishes_both_again() -> None:
    pump = waiting()
    child = bump(pump)
    pump.mine()
    for node in (pump.lsp, *pump.clients):
        pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
    pump.chain.remove_tip(1)
    pump.chain.mempool.clear()
    pump.mine(2)
    assert {child.txid, funding_of(pump).txid} <= pump.chain.confirmed.keys()
    assert lsp_state(pump).wallet.payments == {}


@pytest.mark.parametrize("with_child", [False, True], ids=["change", "child"])
def test_what_a_block_had_is_not_replaced_while_its_change_pays_for_something(
    *, with_child: bool
) -> None:
    """After a reorganisation a child, or the end of the funding, would end that in silence."""
    pump = waiting()
    if with_child:
        bump(pump)
    pump.mine()
    since = pay(pump, pump.lsp, None)
    for node in (pump.lsp, *pump.clients):
        pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
    pump.chain.remove_tip(1)
    for asked in (request(pump, 4 * RATE), abandon_request(pump)):
        assert code_of(pump, asked) == "change_spent"
    pump.handle(pump.lsp, ev.AbandonRequested(txid=since.txid, reason="no"))
    bump(pump, 4 * RATE)
    pump.chain.mempool.clear()
    abandon(pump)


def test_what_a_funding_pays_is_not_told_while_a_coin_of_it_is_off_the_chain() -> None:
    pump = waiting()
    bump(pump)
    attempt_id = pump.attempt.attempt_id
    (coin,) = lsp_state(pump).house.entries[attempt_id].coins
    while coin in lsp_state(pump).wallet.coins:
        pump.handle(pump.lsp, ev.BlockRemoved(height=pump.lsp.state.chain.height))
    assert views.bump_of(lsp_state(pump).house, attempt_id) is None


def test_what_paid_for_a_funding_is_forgotten_when_it_is_deep() -> None:
    pump = waiting()
    bump(pump)
    pump.mine(99)
    assert views.bump_of(lsp_state(pump).house, pump.attempt.attempt_id) is not None
    pump.mine()
    assert views.bump_of(lsp_state(pump).house, pump.attempt.attempt_id) is None


def test_a_funding_that_is_given_up_takes_its_child_with_it() -> None:
    pump = waiting()
    change_sat = funding_of(pump).outputs[CHANGE_VOUT].amount_sat
    child = bump(pump, change_sat)
    helper = child.inputs[1].outpoint
    pump.chain.mempool.clear()
    replacement = abandon(pump)
    wallet = lsp_state(pump).wallet
    assert list(wallet.payments) == [replacement.txid]
    assert helper in {coin.outpoint for coin in wallet.free(pump.chain.height)}
    n_before = n_published(pump)
    pump.mine(3)
    assert (status(pump), n_published(pump)) == ("dead", n_before)
    assert lsp_state(pump).wallet.reserved == {}
    assert child.txid not in pump.chain.confirmed


def test_a_funding_that_dies_takes_its_child_with_it() -> None:
    """A copy of the LSP with the same seed spends its coin; this one knows nothing of it."""
    pump = waiting()
    bump(pump)
    assert pump.lsp.driver is not None
    before, n_entries = pump.lsp.state, len(pump.lsp.store.entries)
    pump.chain.mempool.clear()
    abandon(pump)
    pump.lsp.driver.state, pump.lsp._fold = before, None
    del pump.lsp.store.entries[n_entries:]
    pump.mine(3)
    assert status(pump) == "dead"
    wallet = lsp_state(pump).wallet
    assert wallet.payments == {}
    assert wallet.reserved == {}
    n_before = n_published(pump)
    pump.mine(2)
    assert n_published(pump) == n_before


@pytest.mark.parametrize("fuse", [1, 2, 3, 4])
def test_an_lsp_that_dies_while_it_bumps_goes_on_after_its_restart(fuse: int) -> None:
    pump = waiting()
    pump.lsp.fuse = fuse
    pump.handle(pump.lsp, request(pump))
    pump.lsp.fuse = None
    pump.run()
    remembered = [one for one in pump.lsp.store.remembered if isinstance(one, FundingBumped)]
    child = pump.wishes(pump.lsp, fx.PublishBumped)[-1].child if remembered else bump(pump)
    assert {child.txid, funding_of(pump).txid} <= pump.chain.mempool.keys()
    pump.mine()
    assert child.txid in pump.chain.confirmed
    assert lsp_state(pump).wallet.payments == {}


def test_a_start_from_a_checkpoint_goes_on_with_the_child() -> None:
    pump = waiting()
    child = bump(pump)
    known = lsp_state(pump).house.bumps
    pump.lsp.checkpoint()
    pump.chain.mempool.clear()
    pump.restart(pump.lsp)
    assert lsp_state(pump).house.bumps == known
    assert {child.txid, funding_of(pump).txid} <= pump.chain.mempool.keys()


def message_of(pump: Pump, event: ev.Event) -> str:
    with pytest.raises(Rejected) as rejected:
        lsp_role.decide(lsp_state(pump), event)
    return f"{rejected.value.code}: {rejected.value}"


def test_what_is_not_bumped() -> None:
    pump = waiting()
    unknown = replace(request(pump), attempt_id=bytes(32))
    assert code_of(pump, unknown) == "factory_not_found"
    assert message_of(pump, request(pump, 500)) == (
        "feerate_too_low: feerate_sat_per_vb: expected more than 2.0, which the funding pays now, "
        "received 2.0"
    )
    assert code_of(pump, request(pump, 2_000_000_000)) == "insufficient_coins"
    bump(pump)
    assert message_of(pump, request(pump, RATE)) == (
        "feerate_too_low: feerate_sat_per_vb: expected more than 20.0, which the funding and its "
        "child pay now, received 20.0"
    )
    with pytest.raises(Rejected, match="the chain is stale") as stale:
        lsp_role.decide(lsp_state(pump), request(pump, 2 * RATE), STALE)
    assert stale.value.code == "chain_stale"
    child = pump.wishes(pump.lsp, fx.PublishBumped)[-1].child
    given_up = ev.AbandonRequested(txid=child.txid, reason="")
    assert code_of(pump, given_up) == "pays_for_a_funding"
    assert code_of(pump, bumped_payment(child.txid)) == "pays_for_a_funding"
    pump.mine()
    assert code_of(pump, request(pump, 2 * RATE)) == "factory_funded"


def test_no_child_pays_what_nobody_should_believe_that_a_mempool_asks_for() -> None:
    """A child pays that minimum for itself, whatever feerate its operator names for both."""
    pump = waiting()
    errs = Facts(fees=OwnFees(mempool_min_sat_per_kw=BELIEVED_SAT_PER_KW + 1))
    with pytest.raises(Rejected, match=r"at most 1,000 sat/vB, received 1,000\.004 sat/vB") as high:
        lsp_role.decide(lsp_state(pump), request(pump), errs)
    assert high.value.code == "feerate_too_high"
    dear = Facts(fees=OwnFees(mempool_min_sat_per_kw=BELIEVED_SAT_PER_KW))
    lsp_role.decide(lsp_state(pump), request(pump), dear)


def test_a_funding_that_was_given_up_or_is_dead_is_not_bumped() -> None:
    pump = waiting()
    pump.chain.mempool.clear()
    abandon(pump)
    assert code_of(pump, request(pump)) == "factory_abandoned"
    pump.mine(3)
    assert code_of(pump, request(pump)) == "factory_abandoned"


def test_a_ceremony_that_is_not_over_has_nothing_to_bump() -> None:
    pump = Pump(2, policy=POLICY)
    pump.join()
    pump.build()
    assert code_of(pump, request(pump)) == "factory_not_found"


def test_a_child_never_leaves_less_than_dust() -> None:
    outpoint = change_of(waiting())
    plan = plan_child(
        outpoint, 1_000, script_pubkey=b"\x51", coins=(), fee_sat_of_weight=lambda _: 670
    )
    assert (plan.change_sat, plan.fee_sat) == (330, 670)
    with pytest.raises(InsufficientCoins, match="1,001 sat are needed, 1,000 sat are free"):
        plan_child(
            outpoint, 1_000, script_pubkey=b"\x51", coins=(), fee_sat_of_weight=lambda _: 671
        )


def test_a_larger_child_pays_more_for_each_of_its_bytes_than_the_one_before() -> None:
    """BIP 125 as Bitcoin Core before 31 has it: more than what it replaces, for itself, too."""
    parent, before = FeeAndWeight(308, 616), FeeAndWeight(4_992, 444)
    larger = bumping._replacing(674, parent, before, OwnFees())
    assert larger * 111 > 4_992 * 169
