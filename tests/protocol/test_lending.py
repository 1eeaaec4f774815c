"""Coins for children: set aside in time, for one thing each, and free again when it is settled."""

from dataclasses import replace
from typing import Any, Final

import pytest
from immutables import Map
from tests.protocol import test_leaving as leaving
from tests.protocol.paying_clients import (
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import mute
from tests.protocol.unanswered import remove_blocks
from tests.simulation.sim_node import durable

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.changed import changed
from cromford.daemon.views import lsp as views
from cromford.protocol import events as ev
from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.exiting.confirming import children_cost_sat
from cromford.protocol.exiting.lending import given_up_for
from cromford.protocol.exiting.stake import HTLC_EXPIRES
from cromford.protocol.facts import FRESH, Lacking
from cromford.protocol.htlc_blocks import CLAIM_BLOCKS
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal.house_fold import apply_to_house
from cromford.protocol.journal.purses import CoinsWanted
from cromford.protocol.journal.streams import HOUSE
from cromford.protocol.lobby.lending import lend
from cromford.protocol.turn import Turn
from cromford.wallet.account import RECEIVE
from cromford.wallet.coins import Purse, SpentCoin, Wallet, WalletCoin
from cromford.watch.bumping import Bumping, Family, PublishWith, next_move
from cromford.watch.feerates import SWEEP_BLOCKS, OwnFees
from cromford.wire import messages as m

QUICK: Final = leaving.QUICK
DEAR: Final = OwnFees(mempool_min_sat_per_kw=750)
DEARER: Final = OwnFees(mempool_min_sat_per_kw=7_500)
PAID_MSAT: Final = 60_000_000


def scene(*coins_sat: int) -> tuple[Pump, PumpNode]:
    """Return a factory whose first client has money in it, and coins of its own."""
    pump = live_factory(2, policy=QUICK, watches_folds=True)
    alice = pump.clients[0]
    assert pay(pump, pump.lsp, alice, PAID_MSAT).status == "paid"
    fund(pump, alice, *coins_sat)
    return pump, alice


def fund(pump: Pump, node: PumpNode, *coins_sat: int) -> None:
    state = node.state
    wallet = state.house.wallet if node is pump.lsp else state.wallet
    for amount_sat in coins_sat:
        pump.chain.fund(wallet.next_script(RECEIVE), amount_sat)
    pump.sync()


def pass_empty_block(pump: Pump) -> None:
    """Pass a block with nothing of anybody's in it."""
    pump.chain.fund(b"\x51", 1)
    pump.sync()


def leave(pump: Pump, client: PumpNode, *, fees: OwnFees = DEAR) -> None:
    client.fees = fees
    pump.handle(client, ev.ExitRequested(attempt_id=newest_link(client).attempt_id))
    pump.run()


def newest_bumping(pump: Pump, node: PumpNode, name: str) -> Bumping:
    wish = [one for one in pump.wishes(node, fx.Broadcast) if one.name == name][-1]
    assert wish.bumping is not None
    return wish.bumping


def records(node: PumpNode, kind: type[Any]) -> list[Any]:
    return [one for one in node.store.remembered if isinstance(one, kind)]


def test_a_coin_is_set_aside_before_it_is_spent_and_is_free_when_all_is_settled() -> None:
    pump, alice = scene(40_000, 3_000)
    leave(pump, alice)
    (lent,) = records(alice, xr.CoinsLent)
    bumping = newest_bumping(pump, alice, "kickoff_root")
    assert bumping.purse is not None
    assert [coin.txout.amount_sat for coin in bumping.purse.coins] == [3_000], "the smallest does"
    assert bumping.budget_sat == PAID_MSAT // 1_000 // 2
    wallet = alice.state.wallet
    assert OutPoint.parse(lent.coins[0]) in wallet.reserved
    assert [coin.txout.amount_sat for coin in wallet.free(pump.chain.height)] == [40_000]
    pump.restart(alice)
    pump.run()
    assert newest_bumping(pump, alice, "kickoff_root") == bumping, "a restart forgets no coin"
    pump.mine(40)
    # In this chain nobody needs a child: no coin was spent, and each came back.
    n_lent, returned = len(records(alice, xr.CoinsLent)), records(alice, xr.CoinsReturned)
    assert n_lent == len(returned) >= 3, "the kickoff, the state and the commitment"
    assert {one.cost_sat for one in returned} == {0}
    assert len(alice.state.wallet.free(pump.chain.height)) == 2


def test_no_coin_serves_two_transactions_at_once() -> None:
    pump, alice = scene(40_000)
    bob = pump.clients[1]
    leave(pump, alice)
    leave(pump, bob)
    assert newest_bumping(pump, alice, "kickoff_root").purse is not None
    assert newest_bumping(pump, bob, "kickoff_root").purse is None, "it has neither stake nor coin"
    lent = [coin for one in records(alice, xr.CoinsLent) for coin in one.coins]
    assert len(set(lent)) == len(lent)


def test_without_a_coin_the_exit_goes_on_and_takes_one_that_comes_later() -> None:
    pump, alice = scene()
    leave(pump, alice)
    assert newest_bumping(pump, alice, "kickoff_root").purse is None
    pump.chain.mempool.clear()
    fund(pump, alice, 25_000)
    bumping = newest_bumping(pump, alice, "kickoff_root")
    assert bumping.purse is not None
    assert bumping.purse.amount_sat == 25_000


def test_as_fees_rise_a_coin_is_added_that_is_enough_alone() -> None:
    pump, alice = scene(1_200, 1_500, 2_000, 30_000)
    leave(pump, alice)
    first = newest_bumping(pump, alice, "kickoff_root").purse
    assert first is not None
    assert first.amount_sat == 2_000
    alice.fees = DEARER
    pump.chain.mempool.clear()
    pass_empty_block(pump)
    again = newest_bumping(pump, alice, "kickoff_root").purse
    assert again is not None
    assert [coin.txout.amount_sat for coin in again.largest_first] == [30_000, 2_000]
    assert again.change_script == first.change_script


def test_a_coin_that_a_reorganisation_takes_away_is_not_counted_on() -> None:
    pump, alice = scene()
    fund(pump, alice, 5_000)
    leave(pump, alice)
    (lent,) = records(alice, xr.CoinsLent)
    pump.chain.mempool.clear()
    coin = OutPoint.parse(lent.coins[0])
    remove_blocks(pump, 1)
    pump.chain.mempool.clear()
    assert coin not in alice.state.wallet.coins
    fund(pump, alice, 7_000)
    bumping = newest_bumping(pump, alice, "kickoff_root")
    assert bumping.purse is not None
    assert [one.txout.amount_sat for one in bumping.purse.coins] == [7_000]


def test_the_one_coin_of_a_way_out_goes_back_with_a_reorganisation() -> None:
    pump, alice = scene(40_000)
    leave(pump, alice)
    while len(lent := records(alice, xr.CoinsLent)) < 2:
        pump.mine()
    first, second = lent
    assert first.coins == second.coins, "one coin serves a whole way out"
    kickoff = OutPoint.parse(second.outpoint).txid
    remove_blocks(pump, pump.chain.height - alice.state.chain.confirmed[kickoff] + 1)
    pump.chain.mempool.clear()
    pass_empty_block(pump)
    bumping = newest_bumping(pump, alice, "kickoff_root")
    assert bumping.purse is not None
    assert [coin.txout.amount_sat for coin in bumping.purse.coins] == [40_000]
    assert not alice.state.purses[OutPoint.parse(second.outpoint)].coins


def test_a_house_lends_another_coin_for_one_that_a_reorganisation_takes_away() -> None:
    pump, alice = scene()
    pump.lsp.fees = DEAR
    fund(pump, pump.lsp, 5_000)
    link = newest_link(alice)
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=link.attempt_id, client=link.client))
    pump.run()
    (lent,) = records(pump.lsp, xr.CoinsLent)
    pump.chain.mempool.clear()
    coin = OutPoint.parse(lent.coins[0])
    remove_blocks(pump, 1)
    pump.chain.mempool.clear()
    assert coin not in pump.lsp.state.house.wallet.coins
    fund(pump, pump.lsp, 7_000)
    bumping = newest_bumping(pump, pump.lsp, "kickoff_root")
    assert bumping.purse is not None
    assert [one.txout.amount_sat for one in bumping.purse.coins] == [7_000]
    pump.mine(40)
    assert not pump.lsp.state.house.purses
    assert not pump.factory.coins_asked


def test_a_factory_asks_its_house_and_returns_what_is_settled() -> None:
    pump, alice = scene()
    pump.lsp.fees = DEAR
    link = newest_link(alice)
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=link.attempt_id, client=link.client))
    pump.run()
    (asked,) = records(pump.lsp, xr.CoinsAsked)
    (lent,) = records(pump.lsp, xr.CoinsLent)
    assert (lent.outpoint, lent.to) == (asked.outpoint, pump.factory.stream)
    bumping = newest_bumping(pump, pump.lsp, "kickoff_root")
    assert bumping.purse is not None
    house = pump.lsp.state.house
    assert OutPoint.parse(lent.coins[0]) in house.wallet.reserved
    pump.restart(pump.lsp)
    pump.run()
    assert newest_bumping(pump, pump.lsp, "kickoff_root") == bumping
    pump.mine(40)
    house, factory = pump.lsp.state.house, pump.factory
    assert not house.purses
    assert not any(purse.coins for purse in factory.purses.values())
    assert not factory.coins_asked
    assert not house.coins_wanted
    assert all(coin.outpoint not in house.wallet.reserved for coin in house.wallet.unspent.values())


def spend_all(pump: Pump) -> None:
    """Let a house have no coin."""
    script = b"\x51\x20" + bytes(31) + b"\x01"
    pump.handle(
        pump.lsp,
        ev.SpendingRequested(script_pubkey=script, amount_sat=None, feerate_sat_per_kw=500),
    )
    pump.run()
    pump.mine()
    assert pump.lsp.state.house.wallet.free(pump.chain.height) == ()


def test_of_those_who_wait_the_one_that_hurries_most_gets_the_next_coin() -> None:
    pump, _ = scene()
    spend_all(pump)
    fund(pump, pump.lsp, 50_000)
    wanted = {
        OutPoint(txid=Txid(bytes([number]) * 32), vout=0): CoinsWanted(
            stream=pump.factory.stream, needed_sat=40_000, feerate_sat_per_kw=feerate
        )
        for number, feerate in enumerate((500, 5_000, 750))
    }
    house = changed(pump.lsp.state.house, coins_wanted=Map(wanted))
    turn = Turn(house, apply_to_house, FRESH, stream=HOUSE)
    lend(turn)
    (lent,) = (entry.record for entry in turn.decision.entries)
    assert isinstance(lent, xr.CoinsLent)
    assert wanted[OutPoint.parse(lent.outpoint)].feerate_sat_per_kw == 5_000


def test_what_is_lacking_is_what_was_asked_for_less_what_was_lent_for_it() -> None:
    pump, _ = scene()
    house, stream = pump.lsp.state.house, pump.factory.stream
    coin = next(iter(house.wallet.unspent.values()))
    lent_sat = coin.txout.amount_sat
    lent = SpentCoin(outpoint=coin.outpoint, txout=coin.txout, path=coin.path)
    spends = [OutPoint(txid=Txid(bytes([number]) * 32), vout=0) for number in range(3)]
    asked = {
        outpoint: CoinsWanted(stream=stream, needed_sat=needed_sat)
        for outpoint, needed_sat in zip(spends, (100, lent_sat + 7, lent_sat - 7), strict=True)
    }
    purse = Purse(coins=(lent,), change_script=b"")
    lacking = changed(house, coins_wanted=Map(asked), purses=Map(dict.fromkeys(spends[1:], purse)))
    assert (house.lacking_sat(), lacking.lacking_sat()) == (0, 107)


@pytest.mark.parametrize(("coins_sat", "n_looks"), [((), 1), ((600, 700), 1), ((50_000,), 2)])
def test_where_no_coin_helps_anybody_not_everybody_who_waits_is_asked(
    monkeypatch: pytest.MonkeyPatch, coins_sat: tuple[int, ...], n_looks: int
) -> None:
    """When all clients leave at once hundreds wait, and each letter of theirs begins with this."""
    pump, _ = scene()
    spend_all(pump)
    fund(pump, pump.lsp, *coins_sat)
    wanted = {
        OutPoint(txid=Txid(bytes([number]) * 32), vout=0): CoinsWanted(
            stream=pump.factory.stream, needed_sat=40_000, feerate_sat_per_kw=5_000
        )
        for number in range(50)
    }
    house = changed(pump.lsp.state.house, coins_wanted=Map(wanted))
    facts = replace(FRESH, fees=OwnFees(estimates=((SWEEP_BLOCKS, 10_000),)))
    turn = Turn(house, apply_to_house, facts, stream=HOUSE)
    looks: list[int] = []
    free, chosen = Wallet.free, Wallet.purse_coins

    def noted_free(wallet: Wallet, tip_height: int) -> tuple[WalletCoin, ...]:
        looks.append(tip_height)
        return free(wallet, tip_height)

    asked: list[int] = []

    def noted(wallet: Wallet, needed_sat: int, **about: Any) -> tuple[WalletCoin, ...]:
        asked.append(needed_sat)
        return chosen(wallet, needed_sat, **about)

    monkeypatch.setattr(Wallet, "free", noted_free)
    monkeypatch.setattr(Wallet, "purse_coins", noted)
    lend(turn)
    assert len(turn.decision.entries) == len(asked) == n_looks - 1
    assert len(looks) == n_looks


@pytest.mark.parametrize("then", ["a coin comes", "none is needed any more"])
def test_a_house_without_a_coin_lends_the_next_one_or_forgets(then: str) -> None:
    pump, alice = scene()
    spend_all(pump)
    pump.lsp.fees = DEAR
    link = newest_link(alice)
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=link.attempt_id, client=link.client))
    pump.run()
    assert newest_bumping(pump, pump.lsp, "kickoff_root").purse is None
    (wanted,) = pump.lsp.state.house.coins_wanted.values()
    assert wanted.feerate_sat_per_kw == DEAR.within(SWEEP_BLOCKS)
    assert views.capital(pump.lsp.state, ())["lacking_sat"] == wanted.needed_sat > 0
    if then == "a coin comes":
        pump.chain.mempool.clear()
        fund(pump, pump.lsp, 50_000)
        assert newest_bumping(pump, pump.lsp, "kickoff_root").purse is not None
        assert not pump.lsp.state.house.coins_wanted
        assert pump.lsp.state.house.lacking_sat() == 0
    else:
        pump.mine(40)
        assert not pump.lsp.state.house.coins_wanted, "what is settled is not wanted any more"
        assert not pump.factory.coins_asked


def test_coins_that_were_wanted_at_fees_of_before_are_not_taken_from_who_needs_them() -> None:
    pump, alice = scene()
    spend_all(pump)
    fund(pump, pump.lsp, 2_000)
    pump.lsp.fees = DEARER
    link = newest_link(alice)
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=link.attempt_id, client=link.client))
    pump.run()
    (wanted,) = pump.lsp.state.house.coins_wanted.values()
    assert wanted.needed_sat > 2_000, "the one coin is not enough"
    pump.lsp.fees = DEAR
    pass_blocks_in_vain(pump, 2)
    house = pump.lsp.state.house
    assert not house.coins_wanted, "and now it is: nothing more is wanted"
    assert not pump.factory.coins_asked
    fund(pump, pump.lsp, 50_000)
    (free,) = pump.lsp.state.house.wallet.free(pump.chain.height)
    assert free.txout.amount_sat == 50_000
    bumping = newest_bumping(pump, pump.lsp, "kickoff_root")
    assert bumping.purse is not None
    assert bumping.purse.amount_sat == 2_000


def test_what_hurries_less_than_it_did_waits_behind_what_hurries_more() -> None:
    pump, alice = scene()
    spend_all(pump)
    pump.lsp.fees = DEARER
    link = newest_link(alice)
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=link.attempt_id, client=link.client))
    pump.run()
    pump.lsp.fees = DEAR
    pass_blocks_in_vain(pump, 1)
    (wanted,) = pump.lsp.state.house.coins_wanted.values()
    assert wanted.feerate_sat_per_kw == DEAR.within(SWEEP_BLOCKS)
    n_asked = len(records(pump.lsp, xr.CoinsAsked))
    pass_blocks_in_vain(pump, 3)
    assert len(records(pump.lsp, xr.CoinsAsked)) == n_asked, "it is said once"


def test_who_only_watches_sets_nothing_aside() -> None:
    pump, alice = scene(40_000)
    everybody = (pump.lsp, *pump.clients)
    for node in everybody:
        node.fees = replace(DEAR)
    pump.chain.broadcast(next(iter(alice.state.attempts.values())).signed_branch.txs[0])
    pump.mine(10)
    assert [records(node, xr.CoinsLent) for node in everybody] == [[], [], []]
    assert book(alice).links


def pass_blocks_in_vain(pump: Pump, n_blocks: int) -> None:
    """Pass blocks in which nothing confirms, whatever it pays."""
    for _ in range(n_blocks):
        pump.chain.mempool.clear()
        pass_empty_block(pump)


# What can wait offers a day's rate; what has to be in the next blocks, far more.
RUSH: Final = OwnFees(mempool_min_sat_per_kw=750, estimates=((2, 6_000), (144, 1_000)))


@pytest.mark.parametrize("restarts", [False, True])
def test_what_can_wait_gives_its_coin_to_what_cannot(restarts: bool) -> None:  # noqa: FBT001 - a case
    """Two factories, one coin: the channel with an HTLC that expires is left with it."""
    pump = Pump(3, policy=QUICK)
    alice, bob, carol = pump.clients
    for clients in ((alice,), (bob, carol)):
        pump.join(*clients)
        pump.build()
        pump.run()
        pump.mine(QUICK.min_depth)
    assert pay(pump, pump.lsp, alice, PAID_MSAT).status == "paid"
    assert pay(pump, pump.lsp, carol, PAID_MSAT).status == "paid"
    request = make_invoice(pump, bob, PAID_MSAT // 2)
    with pump.tampering(mute(pump.lsp, bob, m.RevokeAndAck)):
        pump.handle(carol, request)
        pump.run()
    pump.disconnect(bob)
    spend_all(pump)
    fund(pump, pump.lsp, 50_000)
    pump.lsp.fees = RUSH
    link = newest_link(alice)
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=link.attempt_id, client=link.client))
    pump.run()
    (lazy,) = records(pump.lsp, xr.CoinsLent)
    held = lsp_link(pump, newest_link(bob))
    (live,) = held.state.htlcs
    leaves_at = publish_height(held, live.htlc.cltv_expiry, chain=pump.lsp.state.chain)
    pass_blocks_in_vain(pump, leaves_at - pump.chain.height)
    assert any(one.reason == HTLC_EXPIRES for one in records(pump.lsp, xr.ExitStarted))
    for _ in range(40):
        if len(records(pump.lsp, xr.CoinsLent)) > 1:
            break
        if restarts:
            pump.restart(pump.lsp)
            pump.run()
        pass_blocks_in_vain(pump, 1)
    _, urgent = records(pump.lsp, xr.CoinsLent)
    assert urgent.coins == lazy.coins
    assert urgent.outpoint != lazy.outpoint
    house = pump.lsp.state.house
    assert OutPoint.parse(lazy.outpoint) in house.coins_wanted, "it waits for the next one"
    assert live.htlc.cltv_expiry - pump.chain.height > CLAIM_BLOCKS, "in time"
    pass_blocks_in_vain(pump, 20)
    assert len(records(pump.lsp, xr.CoinsLent)) == 2, "and is not handed to and fro"
    assert durable(pump.lsp.durable_state()) == durable(pump.lsp.state)
    fund(pump, pump.lsp, 60_000)
    assert OutPoint.parse(lazy.outpoint) not in pump.lsp.state.house.coins_wanted


def recalled_coin() -> tuple[Pump, PumpNode]:
    """Let a client leave one channel because it wishes to, and another as an HTLC expires.

    There is one coin: it goes to what hurries more.
    """
    pump = Pump(2, policy=QUICK)
    alice, bob = pump.clients
    for clients in ((alice,), (alice, bob)):
        pump.join(*clients)
        pump.build()
        pump.run()
        pump.mine(QUICK.min_depth)
        assert pay(pump, pump.lsp, alice, PAID_MSAT).status == "paid"
    older, newer = (book(alice).links[one] for one in book(alice).by_node[pump.lsp.node_id])
    with pump.tampering(mute(pump.lsp, alice, m.RevokeAndAck)):
        pump.handle(alice, make_invoice(pump, bob, PAID_MSAT // 2))
        pump.run()
    pump.disconnect(alice)
    paying = next(link for link in book(alice).links.values() if link.state.htlcs)
    other = older if paying.channel_id == newer.channel_id else newer
    fund(pump, alice, 50_000)
    alice.fees = RUSH
    pump.handle(alice, ev.ExitRequested(attempt_id=other.attempt_id))
    pump.run()
    (lazy,) = records(alice, xr.CoinsLent)
    (live,) = paying.state.htlcs
    leaves_at = publish_height(paying, live.htlc.cltv_expiry, chain=alice.state.chain)
    pass_blocks_in_vain(pump, leaves_at + 1 - pump.chain.height)
    _, urgent = records(alice, xr.CoinsLent)
    assert urgent.coins == lazy.coins
    assert urgent.outpoint != lazy.outpoint
    return pump, alice


def test_a_clients_coin_goes_to_what_hurries_more_too() -> None:
    pump, alice = recalled_coin()
    pass_blocks_in_vain(pump, 10)
    assert len(records(alice, xr.CoinsLent)) == 2, "and is not handed to and fro"
    assert durable(alice.durable_state()) == durable(alice.state)


@pytest.mark.parametrize("is_at_once", [True, False])
def test_a_child_that_confirms_with_a_coin_that_was_taken_back_has_cost_its_way_out(
    is_at_once: bool,  # noqa: FBT001 - a case
) -> None:
    """It waits in mempools on, and may be mined with its parent, or after it."""
    pump, alice = recalled_coin()
    lazy = OutPoint.parse(records(alice, xr.CoinsLent)[0].outpoint)
    asked = next(
        one
        for one in pump.wishes(alice, fx.Broadcast)
        if one.tx.inputs[0].outpoint == lazy and one.bumping is not None and one.bumping.purse
    )
    assert asked.bumping is not None
    move = next_move(asked.tx, asked.bumping, Family())
    assert isinstance(move, PublishWith)
    assert move.child is not None
    assert children_cost_sat(alice.state.purses, alice.state.chain) == 0
    for txs in [(asked.tx, move.child.tx)] if is_at_once else [(asked.tx,), (move.child.tx,)]:
        pump.chain._connect(txs)
        pump.sync()
    before_sat = asked.tx.outputs[move.child.tx.inputs[0].outpoint.vout].amount_sat
    fee_sat = move.child.fee_sat
    cost_sat = children_cost_sat(alice.state.purses, alice.state.chain)
    assert fee_sat - before_sat <= cost_sat <= fee_sat
    assert cost_sat > 0
    pump.restart(alice)
    assert children_cost_sat(alice.state.purses, alice.state.chain) == cost_sat


def test_only_what_hurries_much_more_is_given_coins_that_help_it() -> None:
    pump, alice = scene(40_000)
    leave(pump, alice)
    effect = pump.wishes(alice, fx.Broadcast)[-1]
    assert effect.bumping is not None
    (lent,) = records(alice, xr.CoinsLent)
    outpoint, other = OutPoint.parse(lent.outpoint), OutPoint(txid=Txid(bytes(32)), vout=0)
    rate = effect.bumping.wanted_sat_per_kw

    def given_up(
        feerate: int, *, needed_sat: int = 1, by: OutPoint = other, has_some: bool = True
    ) -> OutPoint | None:
        wanted = Lacking(needed_sat, feerate)
        return given_up_for(alice.state.purses, [effect], {by: wanted}, has_some=lambda _: has_some)

    assert given_up(5 * rate // 4) is None
    assert given_up(5 * rate // 4 + 1) == outpoint
    assert given_up(2 * rate, needed_sat=40_000) == outpoint
    assert given_up(2 * rate, needed_sat=40_001) is None, "it has some, and these are too few"
    assert given_up(2 * rate, needed_sat=40_001, has_some=False) == outpoint
    assert given_up(2 * rate, by=outpoint) is None, "it is its own"
    unpublished = given_up_for(
        alice.state.purses,
        [],
        {other: Lacking(1, 1)},
        has_some=lambda _: True,
    )
    assert unpublished == outpoint, "what is not published now does not hurry at all"
