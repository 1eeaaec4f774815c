"""Coins set aside for children: no dust, no ghost, no small change keeps a good coin out."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.paying_clients import live_factory, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.simulation.sim_chain import SimRefused

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from cromford.protocol import events as ev
from cromford.protocol.exiting.confirming import children_cost_sat
from cromford.wallet.account import RECEIVE
from cromford.wallet.coins import Wallet
from cromford.watch.bumping import Family, PublishWith, next_move
from cromford.watch.feerates import OwnFees

SAT_PER_VB: Final = 250


def at(sat_per_vb: int) -> OwnFees:
    """Return what a node says whose estimates are all alike."""
    return OwnFees(estimates=tuple((n, sat_per_vb * SAT_PER_VB) for n in (1, 6, 144, 1008)))


def leaving_with(
    monkeypatch: pytest.MonkeyPatch, *coins_sat: int, sat_per_vb: int
) -> tuple[Pump, PumpNode]:
    """Return a client that leaves on a day when its node takes nothing, with these coins."""
    pump = live_factory(1, watches_folds=True)
    (alice,) = pump.clients
    assert pay(pump, pump.lsp, alice, 60_000_000).status == "paid"
    give(pump, alice, *coins_sat)
    alice.fees = at(sat_per_vb)
    monkeypatch.setattr(pump.chain, "broadcast", _refuse)
    pump.handle(alice, ev.ExitRequested(attempt_id=newest_link(alice).attempt_id))
    return pump, alice


def give(pump: Pump, node: PumpNode, *coins_sat: int) -> None:
    for amount_sat in coins_sat:
        pump.chain.fund(node.state.wallet.next_script(RECEIVE), amount_sat)
    pump.sync()


def paid_together(pump: Pump, node: PumpNode) -> int:
    """Return what the root and its child pay by the newest wish, in sat/vB, rounded down."""
    asked = pump.wishes(node, fx.Broadcast)[-1]
    bumping = asked.bumping
    assert bumping is not None
    move = next_move(asked.tx, bumping, Family())
    assert isinstance(move, PublishWith)
    fee_sat, weight = bumping.fee_sat, asked.tx.weight
    if move.child is not None:
        fee_sat, weight = fee_sat + move.child.fee_sat, weight + move.child.weight
    return 4 * fee_sat // weight


def _refuse(_tx: Tx) -> None:
    raise SimRefused("mempool full")


def test_small_coins_do_not_fill_a_purse_while_fees_rise(monkeypatch: pytest.MonkeyPatch) -> None:
    pump, alice = leaving_with(monkeypatch, 3_000, *(900,) * 12, 1_000_000, sat_per_vb=8)
    for sat_per_vb in range(9, 41):
        alice.fees = at(sat_per_vb)
        pump.mine()
    assert paid_together(pump, alice) >= 40


def test_dust_in_a_purse_does_not_keep_a_later_coin_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pump, alice = leaving_with(monkeypatch, *(330,) * 8, sat_per_vb=10)
    give(pump, alice, 1_000_000)
    pump.mine()
    assert paid_together(pump, alice) >= 10


def test_many_coins_weigh_more_and_are_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pump, alice = leaving_with(monkeypatch, *(2_000,) * 12, sat_per_vb=20)
    pump.mine()
    assert paid_together(pump, alice) >= 20


def test_small_coins_of_the_house_do_not_fill_a_purse_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = live_factory(1, watches_folds=True)
    give(pump, pump.lsp, 3_000, *(900,) * 12)
    pump.lsp.fees = at(8)
    monkeypatch.setattr(pump.chain, "broadcast", _refuse)
    asked = ev.ExitRequested(attempt_id=pump.attempt.attempt_id, client=1)
    pump.handle(pump.lsp, asked)
    for sat_per_vb in range(9, 41):
        pump.lsp.fees = at(sat_per_vb)
        pump.mine()
    assert paid_together(pump, pump.lsp) >= 40


def test_a_coin_that_a_reorganisation_took_does_not_spoil_a_purse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump, alice = leaving_with(monkeypatch, 20_000, sat_per_vb=10)
    assert paid_together(pump, alice) >= 10
    (ghost,) = coins_of(alice)
    pump.chain.remove_tip(1)
    for node in (pump.lsp, alice):
        pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
    pump.mine(2)
    assert ghost not in inputs_wished(pump, alice), "no node takes a child of what is not there"
    give(pump, alice, 30_000)
    pump.mine()
    assert paid_together(pump, alice) >= 10
    assert ghost not in inputs_wished(pump, alice)


def test_a_coin_that_something_else_spent_neither_spoils_a_purse_nor_costs_the_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump, alice = leaving_with(monkeypatch, 40_000, sat_per_vb=10)
    (spent,) = coins_of(alice)
    away = Tx(
        version=2,
        inputs=(TxIn(outpoint=spent, nsequence=0xFFFFFFFD),),
        outputs=(TxOut(amount_sat=39_000, script_pubkey=bytes(34)),),
    )
    pump.chain._connect((away,))
    pump.sync()
    assert spent not in inputs_wished(pump, alice)
    give(pump, alice, 30_000)
    pump.mine()
    assert paid_together(pump, alice) >= 10
    assert spent not in inputs_wished(pump, alice)


def coins_of(node: PumpNode) -> list[OutPoint]:
    """Return the coins in all purses of a node."""
    return [coin.outpoint for purse in node.state.purses.values() for coin in purse.coins]


def inputs_wished(pump: Pump, node: PumpNode) -> list[OutPoint]:
    """Return what the newest child wished for spends."""
    asked = pump.wishes(node, fx.Broadcast)[-1]
    bumping = asked.bumping
    assert bumping is not None
    move = next_move(asked.tx, bumping, Family())
    if move is None or move.child is None:
        return []
    return [tx_in.outpoint for tx_in in move.child.tx.inputs]


def test_coins_that_bring_less_than_they_weigh_stay_out_of_a_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were worth something when they were set aside; today each makes the child slower."""
    pump, alice = leaving_with(monkeypatch, 3_000, *(600,) * 7, sat_per_vb=8)
    asked = pump.wishes(alice, fx.Broadcast)[-1]
    assert asked.bumping is not None
    coins = [alice.state.wallet.coins[one].to_spend for one in alice.state.wallet.unspent]
    purse = replace(next(iter(alice.state.purses.values())), coins=tuple(coins))
    dear = replace(asked.bumping, purse=purse, feerate_sat_per_kw=40 * SAT_PER_VB)
    move = next_move(asked.tx, dear, Family())
    assert move is not None
    assert move.child is not None
    assert len(move.child.tx.inputs) == 2, "the anchor and the one coin that is worth its input"


def test_a_reorganisation_does_not_charge_a_child_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    pump, alice = leaving_with(monkeypatch, 20_000, sat_per_vb=10)
    asked = pump.wishes(alice, fx.Broadcast)[-1]
    assert asked.bumping is not None
    move = next_move(asked.tx, asked.bumping, Family())
    assert move is not None
    assert move.child is not None
    costs = []
    for _ in range(3):
        pump.chain._connect((asked.tx, move.child.tx))
        pump.sync()
        pump.mine()
        costs.append(children_cost_sat(alice.state.purses, alice.state.chain))
        pump.chain.remove_tip(2)
        for _ in range(2):
            for node in (pump.lsp, alice):
                pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
        pump.mine()
        assert not children_cost_sat(alice.state.purses, alice.state.chain)
    assert len(set(costs)) == 1


def test_a_full_purse_of_the_house_has_room_for_a_coin_that_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pump = live_factory(1, watches_folds=True)
    give(pump, pump.lsp, *(2_000,) * 8)
    free = Wallet.free
    with monkeypatch.context() as patch:
        # The large ones are away for a while, as in the funding of another factory.
        patch.setattr(
            Wallet,
            "free",
            lambda self, tip: tuple(one for one in free(self, tip) if one.txout.amount_sat < 3_000),
        )
        patch.setattr(pump.chain, "broadcast", _refuse)
        pump.lsp.fees = at(25)
        pump.handle(pump.lsp, ev.ExitRequested(attempt_id=pump.attempt.attempt_id, client=1))
        pump.mine(2)
        assert paid_together(pump, pump.lsp) < 25
    monkeypatch.setattr(pump.chain, "broadcast", _refuse)
    for sat_per_vb in (26, 60, 60):
        pump.lsp.fees = at(sat_per_vb)
        pump.mine()
    assert paid_together(pump, pump.lsp) >= 60
