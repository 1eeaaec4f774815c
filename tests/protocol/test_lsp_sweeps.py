"""After the expiry an LSP takes what is left of a factory, wherever the tree has come to."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.paying_clients import (
    begin_payment,
    book,
    live_factory,
    lsp_link,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump
from tests.protocol.sleepers import all_away, lsp_state, sleeping
from tests.protocol.test_leaving import QUICK, mute, publish_branch, reasons_to_leave, wallet_sat
from tests.protocol.test_own_fees import asks
from tests.protocol.unanswered import mine_to, remove_blocks
from tests.simulation.sums import locked_sat

from cromford import effects as fx
from cromford.bitcoin.fees import fee_sat_of
from cromford.bitcoin.tx import Tx
from cromford.daemon.views import lsp as views
from cromford.protocol import events as ev
from cromford.protocol.exiting.lsp import arriving_total_sat
from cromford.protocol.exiting.rest import NEVER
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.exit_records import OutputsSwept
from cromford.protocol.journal.known_chain import KnownChain
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

pytestmark = pytest.mark.sampled_file(4)

SHORT: Final = replace(QUICK, active_blocks=200, dying_blocks=144, ready_min_blocks=10)
FIRST_MSAT: Final = 30_000_000
AMOUNT_MSAT: Final = 5_000_000


def left_alone(n_clients: int = 2, **policy: Any) -> Pump:
    """Return a live factory in which a client was paid, and whose clients see no blocks."""
    pump = live_factory(n_clients, policy=replace(SHORT, **policy), watches_folds=True)
    pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT)
    pump.blind.update(client.name for client in pump.clients)
    return pump


def expiry_of(pump: Pump) -> int:
    """Return when the only factory expires, whether or not it sleeps."""
    (entry,) = lsp_state(pump).house.entries.values()
    return entry.expiry_height


def funding_sat(pump: Pump) -> int:
    return pump.attempt.tree.funding_amount_sat


def sweeps(pump: Pump) -> dict[str, Tx]:
    """Return what the LSP swept, as it asked for it last, by name."""
    return {
        wish.name: wish.tx for wish in pump.wishes(pump.lsp, fx.Broadcast) if "_sweep " in wish.name
    }


def status(pump: Pump) -> str:
    return views.status_of(lsp_state(pump).factory(0))


def chain_of(pump: Pump) -> KnownChain:
    return lsp_state(pump).factory(0).chain


def swept_outputs(pump: Pump) -> list[str]:
    """Return what the LSP's journal says was swept."""
    records = pump.lsp.store.remembered
    return [name for one in records if isinstance(one, OutputsSwept) for name in one.outputs]


@pytest.mark.sampled(0)
def test_a_factory_that_nobody_left_is_taken_by_one_transaction() -> None:
    pump = left_alone()
    before_sat = wallet_sat(pump.lsp)
    mine_to(pump, expiry_of(pump) - 1)
    assert sweeps(pump) == {}
    assert (status(pump), arriving_total_sat(pump.factory)) == ("live", 0)
    assert locked_sat(lsp_state(pump)) == funding_sat(pump)
    pump.mine()
    (name, tx), *more = sweeps(pump).items()
    assert (name, more) == ("expiry_sweep funding", [])
    assert tx.txid in pump.chain.mempool
    assert (status(pump), arriving_total_sat(pump.factory)) == ("expired", funding_sat(pump))
    (shown,) = views.sweeping(pump.factory)
    assert (shown["name"], shown["height"]) == ("funding", expiry_of(pump) + 1)
    pump.mine()
    fee_sat = fee_sat_of(vsize=130, feerate_sat_per_kw=500)
    rival_sat = pump.attempt.tree.root_node.fee_sat + fee_sat_of(vsize=130, feerate_sat_per_kw=25)
    assert wallet_sat(pump.lsp) == before_sat + funding_sat(pump) - max(fee_sat, rival_sat)
    assert (status(pump), arriving_total_sat(pump.factory)) == ("swept", 0)
    assert locked_sat(lsp_state(pump)) == 0
    assert swept_outputs(pump) == ["funding"]
    assert all(link.failure is not None for link in pump.factory.book.links.values())
    n_wishes = len(pump.wished)
    pump.mine(8)
    assert not [one for one in pump.wished[n_wishes:] if isinstance(one.effect, fx.SignSweep)]
    assert reasons_to_leave(pump.lsp) == []


@pytest.mark.sampled(0)
def test_where_one_client_left_the_rest_is_taken_at_the_level_it_came_to() -> None:
    pump = left_alone(4)
    alice = pump.clients[0]
    pump.blind.discard(alice.name)
    pump.handle(alice, ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    publish_branch(pump, newest_link(alice))
    pump.blind.add(alice.name)
    (leaf,) = (vertex for vertex in pump.attempt.branch(newest_link(alice).client).vertices[-1:])
    mine_to(pump, expiry_of(pump) - 1)
    stock = f"lstock_sweep {leaf.last.name}:2"
    assert set(sweeps(pump)) == {stock}, "its csv passed long ago"
    pump.mine()
    (taken,) = set(sweeps(pump)) - {stock}
    assert taken.startswith("expiry_sweep state_root:")
    pump.mine()
    assert sweeps(pump)[taken].txid in pump.chain.confirmed
    assert sorted(swept_outputs(pump)) == sorted(name.partition(" ")[2] for name in sweeps(pump))
    assert arriving_total_sat(pump.factory) == 0
    # The neighbour's channel goes on, on chain: nobody takes that.
    assert status(pump) == "expired"


@pytest.mark.sampled(0)
def test_a_kickoff_that_is_stranded_is_followed_down_to_what_is_the_lsps() -> None:
    pump = left_alone(4)
    mine_to(pump, expiry_of(pump) - 1)
    signed = pump.attempt.signed
    assert signed is not None
    pump.chain.broadcast(signed.tree.txs["kickoff_root"])
    pump.mine()
    root, state = (pump.attempt.tree.node_by_name[name] for name in ("kickoff_root", "state_root"))
    assert sweeps(pump) == {}, "a kickoff's output has no expiry path"
    pump.mine(state.delay_blocks - 2)
    assert state.tx.txid not in pump.chain.mempool
    pump.mine()
    assert state.tx.txid in pump.chain.mempool
    pump.mine(2)
    assert sweeps(pump) == {}
    (joint,) = pump.wishes(pump.lsp, fx.SignJointSweep)
    names = [member.name for member in joint.spend.members]
    assert names == ["expiry_sweep state_root:0", "expiry_sweep state_root:1"]
    assert joint.spend.tx.txid in pump.chain.confirmed
    assert root.tx.txid in pump.chain.confirmed
    assert status(pump) == "swept"
    assert arriving_total_sat(pump.factory) == 0


def test_below_a_stranded_leafs_kickoff_there_is_the_lstock() -> None:
    pump = left_alone(2)
    mine_to(pump, expiry_of(pump) - 1)
    signed = pump.attempt.signed
    assert signed is not None
    pump.chain.broadcast(signed.tree.txs["kickoff_root"])
    before_sat = wallet_sat(pump.lsp)
    state = pump.attempt.tree.node_by_name["state_root"]
    pump.mine(1 + state.delay_blocks)
    assert state.tx.txid in pump.chain.confirmed
    assert sweeps(pump) == {}
    csv = pump.attempt.terms.lstock_csv_blocks
    pump.mine(csv - 2)
    assert sweeps(pump) == {}
    pump.mine()
    assert set(sweeps(pump)) == {"lstock_sweep state_root:2"}
    pump.mine()
    assert wallet_sat(pump.lsp) > before_sat + sum(pump.attempt.terms.lstock_sat) - 400


def test_a_sweep_that_a_reorganisation_takes_back_is_published_again() -> None:
    pump = left_alone()
    mine_to(pump, expiry_of(pump) + 3)
    assert status(pump) == "swept"
    remove_blocks(pump, 3)
    assert (pump.chain.height, status(pump)) == (expiry_of(pump), "expired")
    pump.mine(2)
    assert status(pump) == "swept"
    assert swept_outputs(pump) == ["funding", "funding"]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("n_blocks", [3, 8])
def test_a_reorganisation_wakes_a_factory_that_slept_for_good(n_blocks: int) -> None:
    pump = left_alone()
    all_away(pump)
    mine_to(pump, expiry_of(pump) + 7)
    pump.lsp.checkpoint()
    assert (lsp_state(pump).asleep[0].wake_height, sleeping(pump)) == (NEVER, {0})
    remove_blocks(pump, n_blocks)
    pump.mine(n_blocks + 1)
    assert status(pump) == "swept"
    assert chain_of(pump).depth(sweeps(pump)["expiry_sweep funding"].txid) > 0


def test_a_start_alone_publishes_the_sweep() -> None:
    pump = left_alone()
    mine_to(pump, expiry_of(pump))
    pump.chain.mempool.clear()
    pump.restart(pump.lsp)
    assert sweeps(pump)["expiry_sweep funding"].txid in pump.chain.mempool


@pytest.mark.sampled(0)
def test_an_lsp_that_was_down_at_the_expiry_of_a_sleeping_factory_sweeps_it_all_the_same() -> None:
    pump = left_alone()
    all_away(pump)
    assert sleeping(pump) == {0}
    pump.blind.add("lsp")
    mine_to(pump, expiry_of(pump) + 20)
    pump.parting.update(client.name for client in pump.clients)  # Nobody comes back.
    pump.restart(pump.lsp)
    assert sleeping(pump) == {0}
    pump.blind.discard("lsp")
    pump.mine(2)
    assert sweeps(pump)["expiry_sweep funding"].txid in pump.chain.confirmed
    assert status(pump) == "swept"


def test_a_sweep_pays_what_ones_own_node_asks() -> None:
    pump = left_alone()
    mine_to(pump, expiry_of(pump) - 1)
    asks(pump, 5_000)
    pump.mine(2)
    tx = sweeps(pump)["expiry_sweep funding"]
    assert tx.txid in pump.chain.confirmed
    assert funding_sat(pump) - tx.outputs[0].amount_sat == fee_sat_of(
        vsize=130, feerate_sat_per_kw=10_000
    )


def test_what_is_not_worth_its_fee_waits_and_is_taken_when_fees_fall() -> None:
    pump = left_alone()
    mine_to(pump, expiry_of(pump) - 1)
    dear = OwnFees(estimates=((144, 10_000_000),))
    pump.lsp.fees = dear
    pump.mine(10)
    assert sweeps(pump) == {}
    (left,) = views.not_worth_sweeping(pump.factory, dear)
    assert (left["name"], left["amount_sat"]) == ("funding", funding_sat(pump))
    assert status(pump) == "expired"
    pump.lsp.checkpoint()
    assert sleeping(pump) == set(), "it waits for a cheaper day"
    pump.lsp.fees = OwnFees()
    pump.mine(2)
    assert status(pump) == "swept"
    assert views.not_worth_sweeping(pump.factory, dear) == []


def test_from_the_expiry_on_nobody_starts_an_exit_into_what_is_swept() -> None:
    pump = left_alone()
    over = m.ChannelFailure(channel_id=newest_link(pump.clients[0]).channel_id, reason="no more")
    mine_to(pump, expiry_of(pump) - 100)
    pump.tell(pump.lsp, pump.clients[0], over)
    pump.lsp.fees = OwnFees(estimates=((144, 10_000_000),))  # The sweep waits.
    mine_to(pump, expiry_of(pump) + 50)
    assert reasons_to_leave(pump.lsp) == [], "the channel failed 144 blocks ago"
    leave = ev.ExitRequested(attempt_id=pump.attempt.attempt_id, client=1)
    assert pump.lsp.driver is not None
    with pytest.raises(Rejected, match="expired: what is left of it is swept"):
        pump.lsp.driver.handle(leave)
    pump.lsp.fees = OwnFees()
    pump.mine(2)
    with pytest.raises(Rejected, match="was swept above this channel"):
        pump.lsp.driver.handle(leave)
    assert reasons_to_leave(pump.lsp) == []


def test_an_exit_that_came_too_late_gives_way_to_the_sweep_and_its_htlc_comes_back() -> None:
    pump = left_alone()
    bob = pump.clients[1]
    with pump.tampering(mute(pump.lsp, bob, m.RevokeAndAck)):
        request = begin_payment(pump, pump.lsp, bob, AMOUNT_MSAT)
    pump.disconnect(bob)
    asks(pump, 2_500)  # Above what the tree pays: nothing of it gets into a mempool.
    mine_to(pump, expiry_of(pump) - 1)
    assert reasons_to_leave(pump.lsp) == ["an HTLC expires"]
    assert pump.wishes(pump.lsp, fx.Broadcast)[-1].name == "kickoff_root"
    payment = lsp_state(pump).house.payments[request.payment_hash]
    assert payment.status == "pending"
    n_wishes = len(pump.wishes(pump.lsp, fx.Broadcast))
    pump.mine(7)
    names = {one.name for one in pump.wishes(pump.lsp, fx.Broadcast)[n_wishes:]}
    assert names == {"expiry_sweep funding"}
    assert lsp_state(pump).house.payments[request.payment_hash].status == "failed"
    assert lsp_link(pump, newest_link(bob)).failure is not None
    assert book(pump.lsp).payments[request.payment_hash].status == "failed"
