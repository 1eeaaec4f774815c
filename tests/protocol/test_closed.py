"""After everybody signed: what is published, what a block with it ends, and what it brings back."""

from dataclasses import replace
from typing import Final, TypeVar

import pytest
from tests.protocol.closes import (
    BALANCES_MSAT,
    closable_factory,
    close,
    finished,
)
from tests.protocol.paying_clients import book, lsp_link, make_invoice, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_exit_guards import show_blocks
from tests.protocol.test_leaving import QUICK, mute, reasons_to_leave
from tests.protocol.test_swept_factories import own_attempt, see, sweep_of
from tests.simulation.sums import locked_sat

from cromford import effects as fx
from cromford.bitcoin.fees import ANCHOR_DUST_SAT
from cromford.bitcoin.tx import Tx, Txid
from cromford.daemon.views import channels as channel_views
from cromford.daemon.views import client as client_views
from cromford.daemon.views import lsp as lsp_views
from cromford.daemon.views.closes import closes_of
from cromford.daemon.views.exit import exit_plan
from cromford.daemon.views.lsp_exit import exit_next
from cromford.factory.close import CLOSE_DUST_SAT
from cromford.protocol import events as ev
from cromford.protocol.channels.balances import balance_now
from cromford.protocol.channels.close_rules import CLOSED_TOGETHER
from cromford.protocol.closing.confirming import owed_by_client, owed_by_factory
from cromford.protocol.exiting.closes import SPENT_UNKNOWN, paid_sat
from cromford.protocol.exiting.rest import NEVER, wakes_at
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.journal import record as r
from cromford.protocol.journal.closes import SETTLED_DEPTH, FinishedClose
from cromford.protocol.policy import LspPolicy
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(8)

FEES: Final = OwnFees()
# Just long enough to be closed, and to wait for a channel that failed.
SHORT: Final = replace(QUICK, active_blocks=300, dying_blocks=144, ready_min_blocks=10)
R = TypeVar("R", bound=r.Record)


def closed(pump: Pump) -> FinishedClose:
    """Return the one close of the newest factory that everybody signed."""
    (found,) = pump.factory.closed.values()
    return found


def closed_factory(n_clients: int = 3, *, policy: LspPolicy = QUICK) -> Pump:
    """Return a pump with a factory whose close waits for a block."""
    pump = closable_factory(n_clients, policy=policy)
    close(pump)
    return pump


def seats(pump: Pump) -> list[PumpNode]:
    """Return the clients in the order of their seats."""
    return [pump.client_at(seat) for seat in range(1, len(pump.clients) + 1)]


def due_msat(client: PumpNode) -> int:
    return newest_link(client).state.accepter_msat


def root_of(pump: Pump) -> Tx:
    signed = pump.factory.attempt.signed
    assert signed is not None
    return signed.tree.txs["kickoff_root"]


def remembered(node: PumpNode, kind: type[R]) -> list[R]:
    return [record for record in node.store.remembered if isinstance(record, kind)]


def status_of(client: PumpNode) -> str:
    return client_views.status_of(client.state, own_attempt(client))


def channel_status(client: PumpNode) -> str:
    link = newest_link(client)
    standing = client_views.standing_of(client.state, link, FRESH)
    return channel_views.status_of(link, standing)


def payout_sat(balance_msat: int) -> int:
    sat = balance_msat // 1000
    return sat if sat >= CLOSE_DUST_SAT else 0


def closes_published(pump: Pump, node: PumpNode) -> list[Tx]:
    names = [one for one in pump.wishes(node, fx.Broadcast) if one.name.startswith("close ")]
    return [one.tx for one in names]


# In a block


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_clients", [1, 2, 8])
def test_everybodys_coin_arrives_to_the_satoshi(n_clients: int) -> None:
    pump = closable_factory(n_clients, policy=QUICK)
    before_sat = pump.lsp.state.house.wallet.confirmed_sat()
    close(pump)
    pump.mine(1)
    for client, balance_msat in zip(seats(pump), BALANCES_MSAT, strict=False):
        assert client.state.wallet.confirmed_sat() == payout_sat(balance_msat)
        (told,) = remembered(client, cl.CloseConfirmed)
        assert told.amount_sat == payout_sat(balance_msat)
    (told,) = remembered(pump.lsp, cl.CloseConfirmed)
    assert pump.lsp.state.house.wallet.confirmed_sat() == before_sat + told.amount_sat
    (shown,) = closes_of(pump.factory)
    assert shown["lsp_sat"] == told.amount_sat
    assert remembered(pump.lsp, xr.OutputsSwept) == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_clients", [1, 2, 8])
def test_the_ledger_of_a_close_sums_with_what_opening_locked(n_clients: int) -> None:
    pump = closable_factory(n_clients, policy=QUICK)
    balances = [due_msat(pump.client_at(client)) for client in range(1, n_clients + 1)]
    assert sorted(balances) == sorted(BALANCES_MSAT[:n_clients])
    opened = {one["item"]: one["amount_sat"] for one in lsp_views.export(pump.factory)["ledger"]}
    close(pump)
    pump.mine(1)
    (shown,) = lsp_views.show(pump.factory)["closed"]
    items = {one["item"]: one["amount_sat"] for one in shown["items"]}
    assert sum(items.values()) == shown["lsp_sat"]
    assert shown["paid_sat"] == [payout_sat(one) for one in balances]
    assert items == {
        "channel_balances": opened["channel_capacities"] - sum(-(-one // 1000) for one in balances),
        "rounded": sum(one % 1000 > 0 for one in balances),
        "omitted": sum(one // 1000 for one in balances if one // 1000 < CLOSE_DUST_SAT),
        "lstock": opened["lstock"],
        "tree_fees": opened["tree_fees"],
        "anchors": opened["anchors"],
        "close_fee": items["close_fee"],
        "close_anchor": -ANCHOR_DUST_SAT,
        "close_child": 0,
    }
    locked_sat = sum(opened.values()) - opened["funding_fee"]
    spent_sat = -items["close_fee"] + ANCHOR_DUST_SAT
    assert locked_sat == shown["lsp_sat"] + sum(shown["paid_sat"]) + spent_sat
    (tx,) = [tx for tx in closed(pump).txs if str(tx.txid) == shown["txid"]]
    assert sum(out.amount_sat for out in tx.outputs) == locked_sat + items["close_fee"]


def test_a_block_with_a_close_ends_its_channels_and_its_factory() -> None:
    pump = closed_factory()
    assert {status_of(client) for client in pump.clients} == {"closing"}
    assert lsp_views.status_of(pump.factory) == "closing"
    assert locked_sat(pump.lsp.state) > 0
    pump.mine(1)
    for client in pump.clients:
        assert (status_of(client), channel_status(client)) == ("closed", "closed")
    assert lsp_views.status_of(pump.factory) == "closed"
    assert locked_sat(pump.lsp.state) == 0
    assert lsp_views.channels_of(pump.lsp.state.house, pump.factory, FRESH) == []


@pytest.mark.sampled(1)
@pytest.mark.parametrize("depth", [SETTLED_DEPTH - 1, SETTLED_DEPTH])
def test_it_is_over_for_good_six_blocks_deep(depth: int) -> None:
    pump = closed_factory()
    pump.mine(depth)
    is_settled = depth == SETTLED_DEPTH
    for client in pump.clients:
        failures = [newest_link(client).failure, lsp_link(pump, newest_link(client)).failure]
        assert failures == ([CLOSED_TOGETHER] * 2 if is_settled else [None] * 2)
        pump.disconnect(client)
    assert wakes_at(pump.factory) == (NEVER if is_settled else None)
    pump.mine(200)
    assert [reasons_to_leave(client) for client in pump.clients] == [[], [], []]
    assert reasons_to_leave(pump.lsp) == []


def test_nothing_more_is_published_once_a_block_has_it() -> None:
    pump = closed_factory()
    pump.mine(1)
    n_before = len(pump.wishes(pump.lsp, fx.Broadcast))
    pump.mine(3)
    pump.restart(pump.lsp)
    pump.run()
    assert len(pump.wishes(pump.lsp, fx.Broadcast)) == n_before


def test_a_reorganisation_takes_a_close_back_and_it_is_published_again() -> None:
    pump = closed_factory()
    pump.mine(1)
    pump.chain.remove_tip(1)
    pump.chain.mempool.clear()
    for node in (pump.lsp, *pump.clients):
        pump.handle(node, ev.BlockRemoved(height=node.state.chain.height))
    assert {status_of(client) for client in pump.clients} == {"closing"}
    assert lsp_views.status_of(pump.factory) == "closing"
    assert all(client.state.wallet.confirmed_sat() == 0 for client in pump.clients)
    pump.mine(2)
    assert {status_of(client) for client in pump.clients} == {"closed"}
    assert len(remembered(pump.clients[0], cl.CloseConfirmed)) == 2


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_client_that_never_heard_of_it_knows_its_close_in_a_block(*, is_restarted: bool) -> None:
    """By the transactions that it signed: a close is no sweep, and no theft."""
    pump = closable_factory(3, policy=QUICK)
    alice = pump.client_at(1)
    with pump.tampering(mute(pump.lsp, alice, m.Closed)):
        close(pump)
        pump.disconnect(alice)
        assert finished(alice) == []
        assert status_of(alice) == "live", "she signed it, and knows no more"
        if is_restarted:
            alice.die()
            alice.start()
        pump.mine(SETTLED_DEPTH)
        assert (status_of(alice), channel_status(alice)) == ("closed", "closed")
        assert newest_link(alice).failure == CLOSED_TOGETHER
    assert alice.state.wallet.confirmed_sat() == payout_sat(BALANCES_MSAT[0])
    shown = client_views.summary(alice.state, own_attempt(alice), FRESH)["close"]
    assert shown is not None
    assert (shown["status"], shown["payout_sat"]) == ("confirmed", payout_sat(BALANCES_MSAT[0]))
    assert shown["txid"] == str(closed(pump).txs[0].txid)
    pump.connect(alice)
    pump.run()
    assert status_of(alice) == "closed"


def test_what_a_client_did_not_sign_is_called_by_its_name() -> None:
    """Before the expiry it takes the client's own key: somebody else has it."""
    pump = closable_factory(3, policy=QUICK)
    alice = pump.client_at(1)
    see(pump, alice, sweep_of(pump.attempt.funding_outpoint))
    assert (status_of(alice), newest_link(alice).failure) == ("swept", SPENT_UNKNOWN)


# On its way


def test_until_then_it_is_published_at_every_block_and_each_start_by_both_roles() -> None:
    pump = closed_factory()
    pump.chain.mempool.clear()
    for node in (pump.lsp, *pump.clients):
        n_before = len(closes_published(pump, node))
        show_blocks(pump, node, until=node.state.chain.height + 2)
        assert len(closes_published(pump, node)) == n_before + 2
        node.die()
        node.start()
        assert closes_published(pump, node)[-1] == closed(pump).txs[0]
        assert len(closes_published(pump, node)) == n_before + 3


def test_a_channel_that_stands_still_takes_no_payment_and_is_not_left() -> None:
    pump = closed_factory(policy=SHORT)
    alice, bob, _ = seats(pump)
    pump.chain.mempool.clear()
    request = make_invoice(pump, bob, 1_000_000)
    assert request.payment_hash not in book(bob).invoices
    assert balance_now(newest_link(alice), alice.state.chain).spendable_msat == 0
    for client in pump.clients:
        pump.disconnect(client)
        pump.connect(client)
    pump.run()
    assert not newest_link(alice).is_open, "there is nothing to take up"
    assert newest_link(alice).failure is None
    assert pump.sent(pump.lsp, m.Closed)
    until = alice.state.chain.height + QUICK.failed_channel_blocks + 10
    show_blocks(pump, alice, until=until)
    assert reasons_to_leave(alice) == [], "a channel that stands still did not fail"
    deadline_height = newest_link(alice).remaining(alice.state.chain).exit_deadline_height
    assert deadline_height is not None
    show_blocks(pump, alice, until=deadline_height - 1)
    assert reasons_to_leave(alice) == []
    show_blocks(pump, alice, until=deadline_height)
    assert reasons_to_leave(alice) == ["the exit deadline"]


def test_whoever_leaves_beside_a_close_gives_way_to_it() -> None:
    pump = closed_factory()
    alice = pump.client_at(1)
    attempt = own_attempt(alice)
    plan = exit_plan(alice.state, attempt, FEES)
    assert plan["close"] is not None
    assert plan["close"]["status"] == "waiting"
    assert plan["next"].startswith("a close that everybody signed waits for a block")
    theirs = exit_next(pump.factory, newest_link(alice).client, FEES)
    assert theirs.endswith("whichever comes first counts: publish kickoff_root now")
    pump.handle(alice, ev.ExitRequested(attempt_id=attempt.attempt_id))
    root = [one for one in pump.wishes(alice, fx.Broadcast) if one.name == "kickoff_root"][-1]
    assert root.bumping is not None
    assert root.bumping.twins == closed(pump).txids
    pump.mine(1)
    assert status_of(alice) == "closed", "one of them confirmed"
    for said in (
        exit_plan(alice.state, attempt, FEES)["next"],
        exit_next(pump.factory, newest_link(alice).client, FEES),
    ):
        assert said == "nothing: a close of the channel is in a block"
    assert alice.state.wallet.confirmed_sat() == payout_sat(BALANCES_MSAT[0])
    assert alice.driver is not None
    with pytest.raises(Rejected, match="closed together"):
        alice.driver.handle(ev.ExitRequested(attempt_id=attempt.attempt_id))


def test_who_stays_publishes_the_close_and_not_the_tree() -> None:
    pump = closed_factory()
    pump.mine(0)
    for client in pump.clients:
        names = {one.name for one in pump.wishes(client, fx.Broadcast)}
        assert names == {"close kickoff_root"}


@pytest.mark.parametrize("who", ["client", "lsp"])
def test_an_exit_that_comes_first_takes_the_place_of_a_close(who: str) -> None:
    """The root is in a block: six deep the close binds nobody, and the channel goes on."""
    pump = closed_factory()
    alice, bob, carol = seats(pump)
    pump.chain.mempool.clear()
    leaver = alice if who == "client" else pump.lsp
    leaving = newest_link(alice)
    client = None if who == "client" else leaving.client
    pump.handle(leaver, ev.ExitRequested(attempt_id=leaving.attempt_id, client=client))
    pump.chain.mempool = {
        txid: tx for txid, tx in pump.chain.mempool.items() if txid not in closed(pump).txids
    }
    pump.chain.broadcast(root_of(pump))
    pump.mine(SETTLED_DEPTH - 1)
    assert channel_status(bob) == "closing"
    assert balance_now(newest_link(bob), bob.state.chain).spendable_msat == 0
    # One comes back meanwhile, and has no session.
    pump.disconnect(bob)
    pump.connect(bob)
    pump.run()
    assert not newest_link(bob).is_open
    pump.mine(1)
    assert bob.name not in pump.links, "its channel begins anew"
    pump.connect(bob)
    pump.run()
    assert (channel_status(bob), status_of(bob)) == ("open", "live")
    assert pay(pump, bob, carol, 1_000_000).status == "paid"


def test_a_factory_whose_close_waits_for_a_block_does_not_sleep() -> None:
    pump = closed_factory()
    pump.chain.mempool.clear()
    for client in pump.clients:
        pump.disconnect(client)
    pump.run()
    assert wakes_at(pump.factory) is None
    pump.lsp.checkpoint()
    n_before = len(closes_published(pump, pump.lsp))
    show_blocks(pump, pump.lsp, until=pump.lsp.state.house.chain.height + 1)
    assert len(closes_published(pump, pump.lsp)) == n_before + 1


# A part of it


def part_of_tree_on_chain() -> tuple[Pump, PumpNode]:
    """Return a pump of eight clients, one of which is leaving with its whole path on chain."""
    pump = closable_factory(8, policy=QUICK)
    leaver = pump.client_at(1)
    pump.handle(leaver, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.mine(newest_link(leaver).exit_blocks + 10)
    return pump, leaver


def test_a_close_of_a_part_leaves_the_others_untouched() -> None:
    pump, leaver = part_of_tree_on_chain()
    tree = pump.attempt.tree
    spends = pump.factory.chain.spends
    vertex = next(
        one
        for one in tree.vertices
        if one.first.tx.inputs[0].outpoint not in spends
        and one.first.tx.inputs[0].outpoint.txid in pump.factory.chain.confirmed
    )
    inside = [pump.client_at(client) for client in vertex.first.shape.clients]
    outside = [one for one in pump.clients if one not in inside and one is not leaver]
    due = {client.name: due_msat(client) for client in inside}
    close(pump, vertex=vertex.first.shape.name)
    assert closed(pump).outpoint == vertex.first.tx.inputs[0].outpoint
    pump.mine(SETTLED_DEPTH)
    for client in inside:
        assert status_of(client) == "closed"
        assert client.state.wallet.confirmed_sat() == payout_sat(due[client.name])
    assert {status_of(client) for client in outside} == {"live", "on_chain"}
    assert lsp_views.status_of(pump.factory) == "live"
    assert wakes_at(pump.factory) is None
    payer, payee = max(outside, key=due_msat), min(outside, key=due_msat)
    assert pay(pump, payer, payee, 1_000_000).status == "paid"
    assert lsp_views.export(pump.factory)["status"] == "live"
    (shown,) = closes_of(pump.factory)
    assert sum(one["amount_sat"] for one in shown["items"]) == shown["lsp_sat"]
    swept = {str(Txid(one.txid)) for one in remembered(pump.lsp, xr.OutputsSwept)}
    assert shown["txid"] not in swept, "of an L-stock on chain, perhaps; never of the close"


def test_a_channel_on_chain_is_closed_alone() -> None:
    """The neighbour of one who left: a Lightning channel on chain, closed as such."""
    pump, leaver = part_of_tree_on_chain()
    confirmed = pump.factory.chain.confirmed
    neighbour = next(
        client
        for client in range(2, 9)
        if pump.attempt.setting(client).funding.outpoint.txid in confirmed
    )
    client = pump.client_at(neighbour)
    assert client is not leaver
    due = due_msat(client)
    close(pump, client=neighbour)
    assert status_of(client) == "on_chain" or status_of(client) == "closing"
    pump.mine(SETTLED_DEPTH)
    assert (status_of(client), channel_status(client)) == ("closed", "closed")
    assert client.state.wallet.confirmed_sat() == payout_sat(due)
    assert newest_link(client).failure == CLOSED_TOGETHER
    (shown,) = closes_of(pump.factory)
    assert shown["name"] == f"channel {neighbour}"
    assert sum(one["amount_sat"] for one in shown["items"]) == shown["lsp_sat"]
    assert remembered(client, cr.BreachFound) == []


def test_a_factory_that_is_closed_part_by_part_is_over_and_sleeps() -> None:
    pump = closable_factory(4, policy=QUICK)
    pump.chain.broadcast(root_of(pump))
    pump.mine(1)
    close(pump)
    assert closed(pump).outpoint.txid == pump.attempt.tree.root_node.tx.txid
    assert {status_of(client) for client in pump.clients} == {"closing"}
    pump.mine(SETTLED_DEPTH - 1)
    assert lsp_views.status_of(pump.factory) == "closed"
    for client in pump.clients:
        pump.disconnect(client)
    assert wakes_at(pump.factory) is None
    pump.mine(1)
    assert wakes_at(pump.factory) == NEVER


def test_an_lsp_does_not_sweep_at_the_expiry_what_a_close_spends() -> None:
    pump = closed_factory(1, policy=SHORT)
    pump.chain.mempool.clear()
    show_blocks(pump, pump.lsp, until=pump.attempt.terms.expiry_height + 2)
    assert pump.wishes(pump.lsp, fx.SignSweep) == []
    assert pump.wishes(pump.lsp, fx.LookUpSpenders) == []
    assert closes_published(pump, pump.lsp)[-1] == closed(pump).txs[0]


# What it may cost


def asked_of(client: PumpNode, fees: OwnFees) -> fx.Broadcast:
    (asked,) = owed_by_client(client.state, fees)
    return asked


def test_the_cheaper_one_is_published_while_it_pays_a_days_estimate() -> None:
    pump = closed_factory()
    cheap, dear = closed(pump).txs
    alice, bob, carol = seats(pump)
    paid_sat = pump.attempt.tree.funding_amount_sat - sum(out.amount_sat for out in cheap.outputs)
    enough = 1000 * paid_sat // (4 * cheap.vsize)
    for rate, tx in ((enough, cheap), (enough + 2, dear)):
        fees = OwnFees(estimates=((144, rate),))
        for client in (alice, bob, carol):
            assert asked_of(client, fees).tx == tx
        (theirs,) = owed_by_factory(pump.factory, fees)
        assert theirs.tx == tx
        assert theirs.bumping is not None
        assert (theirs.bumping.feerate_sat_per_kw, theirs.bumping.twins) == (
            rate,
            closed(pump).txids,
        )


def test_a_payee_pays_at_most_half_of_its_payout_and_nobody_else_for_it() -> None:
    pump = closed_factory()
    alice, bob, carol = seats(pump)
    for client, payout in ((alice, 30_000), (bob, 12_345), (carol, 0)):
        bumping = asked_of(client, FEES).bumping
        assert bumping is not None
        assert bumping.budget_sat == payout // 2
        assert bool(bumping.own_script) is (payout > 0)
    (theirs,) = owed_by_factory(pump.factory, FEES)
    assert theirs.bumping is not None
    lsp_sat = paid_sat(theirs.tx, pump.attempt.payout_script)
    assert theirs.bumping.budget_sat == lsp_sat // 2


def test_a_client_hurries_as_its_exit_deadline_comes_and_never_beyond_an_estimate() -> None:
    pump = closed_factory(1, policy=SHORT)
    (alice,) = seats(pump)
    fees = OwnFees(estimates=((1, 900), (6, 500), (144, 300)))
    deadline_height = newest_link(alice).remaining(alice.state.chain).exit_deadline_height
    assert deadline_height is not None
    for left, rate in ((144, 300), (143, 500), (6, 500), (5, 900), (1, 900)):
        show_blocks(pump, alice, until=deadline_height - left)
        bumping = asked_of(alice, fees).bumping
        assert bumping is not None
        assert bumping.feerate_sat_per_kw == rate
    (theirs,) = owed_by_factory(pump.factory, fees)
    assert theirs.bumping is not None
    assert theirs.bumping.feerate_sat_per_kw == 300, "an LSP's part does not expire"
