"""What once ended an exit for good, or priced it by the wrong thing, tried from end to end."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.paying_clients import (
    book,
    live_factory,
    make_invoice,
    newest_link,
    open_factory,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import QUICK, mute
from tests.protocol.test_purses import at, give
from tests.simulation.sim_chain import SimRefused

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.protocol import events as ev
from cromford.watch.bumping import Family, next_move
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(3)

SHORT: Final = replace(QUICK, active_blocks=200, dying_blocks=144, ready_min_blocks=10)


def refuse(_tx: Tx) -> None:
    raise SimRefused("mempool full")


def test_a_factory_whose_exit_is_settled_wants_no_coin_of_the_house(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = live_factory(1, policy=QUICK, watches_folds=True)
    pump.lsp.fees = at(8)
    with monkeypatch.context() as patch:
        patch.setattr("cromford.protocol.lobby.lending.lend", lambda _turn: None)
        asked = ev.ExitRequested(attempt_id=pump.attempt.attempt_id, client=1)
        pump.handle(pump.lsp, asked)
        assert pump.lsp.state.house.coins_wanted, "the house has none, and is asked"
        pump.mine(newest_link(pump.clients[0]).exit_blocks + 20)
    assert not pump.factory.coins_asked
    assert not pump.lsp.state.house.coins_wanted


def bumps_of(pump: Pump, node: PumpNode, tx: Tx) -> list[int]:
    """Return the budgets of the newest wishes for a transaction, of one block."""
    height = pump.chain.height
    n_before = len(pump.wished)
    pump.mine()
    assert pump.chain.height == height + 1
    return [
        wished.effect.bumping.budget_sat
        for wished in pump.wished[n_before:]
        if wished.node == node.name
        and isinstance(wished.effect, fx.Broadcast)
        and wished.effect.tx.txid == tx.txid
        and wished.effect.bumping is not None
    ]


@pytest.mark.sampled(0)
def test_one_channel_does_not_price_a_state_that_holds_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the expiry all below a state is the LSP's: an exit it began does not make it small."""
    pump = live_factory(2, policy=SHORT, watches_folds=True)
    alice = pump.client_at(1)
    for _ in range(4):
        pay(pump, pump.lsp, alice, 20_000_000)
    attempt = pump.attempt
    assert attempt.signed is not None
    branch = attempt.signed.branch(1)
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=attempt.attempt_id, client=1))
    pump.mine()
    kickoff, state = branch.txs[:2]
    assert kickoff.txid in pump.chain.confirmed
    monkeypatch.setattr(pump.chain, "broadcast", refuse)
    while pump.chain.height <= attempt.terms.expiry_height:
        pump.mine()
    budgets = bumps_of(pump, pump.lsp, state)
    assert max(budgets) > 20_000


def test_a_small_htlc_does_not_cost_half_of_the_balance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not answer it, and is a miner, would be paid for it out of what is not lost."""
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 70_000_000)
    give(pump, alice, 1_000_000)
    pump.disconnect(bob)
    with pump.tampering(mute(pump.lsp, alice, m.UpdateFailHtlc)):
        pump.handle(alice, make_invoice(pump, bob, 3_000_000))
        pump.run()
    pump.disconnect(alice)
    (live,) = newest_link(alice).state.htlcs
    monkeypatch.setattr(pump.chain, "broadcast", refuse)
    alice.fees = at(4)
    while pump.chain.height < live.htlc.cltv_expiry + 20:
        pump.mine()
    root = pump.held(alice).signed_branch.txs[0]
    asked = [one for one in pump.wishes(alice, fx.Broadcast) if one.tx.txid == root.txid][-1]
    assert asked.bumping is not None
    move = next_move(asked.tx, asked.bumping, Family())
    assert move is not None
    assert move.child is not None
    assert move.child.fee_sat <= live.htlc.amount_msat // 1_000


def test_the_one_coin_goes_to_what_hurries_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two factories are left; of the older one nothing could be lost for months."""
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    open_factory(pump)
    pay(pump, pump.lsp, alice, 30_000_000)
    pump.disconnect(bob)
    with pump.tampering(mute(pump.lsp, alice, m.UpdateFailHtlc)):
        pump.handle(alice, make_invoice(pump, bob, 20_000_000))
        pump.run()
    pump.disconnect(alice)
    links = book(alice).links.values()
    hurried, unhurried = sorted(links, key=lambda link: not link.state.htlcs)
    (live,) = hurried.state.htlcs
    monkeypatch.setattr(pump.chain, "broadcast", refuse)
    alice.fees = OwnFees(estimates=((1, 10_000), (144, 1_000), (1008, 500)))
    while pump.chain.height < live.htlc.cltv_expiry - 60:
        pump.mine()
    for link in (unhurried, hurried):
        pump.handle(alice, ev.ExitRequested(attempt_id=link.attempt_id))
    while pump.chain.height < live.htlc.cltv_expiry - 20:
        pump.mine()
    assert not alice.state.purses
    give(pump, alice, 40_000)
    (outpoint,) = alice.state.purses
    assert outpoint == alice.state.attempts[hurried.attempt_id].funding_outpoint
