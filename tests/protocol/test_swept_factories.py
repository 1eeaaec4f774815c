"""A factory whose outputs went elsewhere: the chain says so, and nobody counts on it any more."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.protocol.paying_clients import book, live_factory, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_exit_guards import SIDES, alices_link, show_blocks
from tests.protocol.test_leaving import QUICK, reasons_to_leave
from tests.protocol.unanswered import FIRST_MSAT
from tests.simulation.sums import locked_sat

from cromford import effects as fx
from cromford.bitcoin.tx import OutPoint, Tx, TxIn, TxOut
from cromford.daemon.views import client as client_views
from cromford.daemon.views import lsp as lsp_views
from cromford.daemon.views.channels import show_channel
from cromford.protocol import events as ev
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

SCRIPT = bytes.fromhex("5120") + b"\x07" * 32


def sweep_of(outpoint: OutPoint) -> Tx:
    """Return what takes an output elsewhere; whether it may is the chain's to judge."""
    return Tx(
        version=2,
        inputs=(TxIn(outpoint=outpoint, nsequence=0),),
        outputs=(TxOut(amount_sat=1_000, script_pubkey=SCRIPT),),
        nlocktime=0,
    )


def own_attempt(node: PumpNode) -> ClientAttempt:
    (attempt,) = node.state.attempts.values()
    assert isinstance(attempt, ClientAttempt)
    return attempt


def see(pump: Pump, node: PumpNode, tx: Tx) -> None:
    """Let a node see one block with a transaction in it, if it cares for it."""
    txs = node.relevant((tx,))
    assert txs == (tx,), "its daemon would have overlooked it"
    show_blocks(pump, node, until=node.state.chain.height + 1, txs=txs)


def factory_with_balance(policy: LspPolicy = QUICK) -> Pump:
    pump = live_factory(3, policy=policy)
    pay(pump, pump.lsp, pump.clients[0], FIRST_MSAT)
    return pump


@pytest.mark.sampled(1)
@pytest.mark.parametrize("place", ["the funding", "a child output"])
def test_a_factory_that_was_swept_holds_nothing_that_a_client_counts_on(place: str) -> None:
    pump = live_factory(3, policy=QUICK)
    alice = max(pump.clients, key=lambda client: newest_link(client).exit_blocks)
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    attempt = own_attempt(alice)
    root, state_above, leaf, _ = attempt.branch.nodes
    outpoint = attempt.funding_outpoint
    if place == "a child output":
        for node in (root, state_above):
            see(pump, alice, node.tx)
        outpoint = leaf.tx.inputs[0].outpoint
    see(pump, alice, sweep_of(outpoint))
    state = alice.state
    assert client_views.status_of(state, own_attempt(alice)) == "swept"
    link = newest_link(alice)
    assert link.failure is not None
    shown = show_channel(link, client_views.standing_of(state, link, FRESH), state.chain)
    assert (shown["status"], shown["spendable_msat"], shown["receivable_msat"]) == ("swept", 0, 0)
    assert alice.driver is not None
    with pytest.raises(Rejected, match="something else than the way to this channel"):
        alice.driver.handle(ev.ExitRequested(attempt_id=attempt.attempt_id))
    show_blocks(pump, alice, until=link.exit_deadline_height + 200)
    assert reasons_to_leave(alice) == []
    assert pump.wishes(alice, fx.Broadcast) == []


def test_a_sweep_that_a_reorganisation_takes_back_is_forgotten() -> None:
    pump = factory_with_balance()
    alice = pump.clients[0]
    attempt = own_attempt(alice)
    see(pump, alice, sweep_of(attempt.funding_outpoint))
    pump.handle(alice, ev.BlockRemoved(height=alice.state.chain.height))
    assert client_views.status_of(alice.state, own_attempt(alice)) == "live"
    # The channel is over all the same, so it is left, and not at the deadline only.
    show_blocks(pump, alice, until=alice.state.chain.height + 150)
    assert len(reasons_to_leave(alice)) == 1


def test_a_factory_past_its_expiry_is_not_called_live() -> None:
    pump = factory_with_balance(
        replace(QUICK, active_blocks=144, dying_blocks=144, ready_min_blocks=1)
    )
    alice = pump.clients[0]
    attempt = own_attempt(alice)
    poor = pump.clients[1]
    expiry = attempt.terms.expiry_height
    show_blocks(pump, poor, until=expiry - 1)
    assert client_views.status_of(poor.state, own_attempt(poor)) == "live"
    show_blocks(pump, poor, until=expiry)
    assert client_views.status_of(poor.state, own_attempt(poor)) == "expired"
    lsp = pump.lsp
    show_blocks(pump, lsp, until=expiry)
    assert lsp_views.status_of(pump.factory) == "expired"


def test_an_lsp_counts_no_swept_factory_among_its_capital() -> None:
    pump = factory_with_balance()
    lsp = pump.lsp
    assert locked_sat(lsp.state) > 0
    see(pump, lsp, sweep_of(pump.attempt.funding_outpoint))
    assert lsp_views.status_of(pump.factory) == "swept"
    assert locked_sat(lsp.state) == 0
    link = alices_link(pump, lsp)
    standing = lsp_views.standing_of(pump.factory, link, FRESH)
    assert show_channel(link, standing, lsp.state.chain)["status"] == "swept"
    over = m.ChannelFailure(channel_id=link.channel_id, reason="no more")
    pump.tell(lsp, pump.clients[0], over)
    show_blocks(pump, lsp, until=lsp.state.chain.height + 200)
    assert reasons_to_leave(lsp) == [], "there is nothing to leave"


@SIDES
def test_our_own_branch_is_no_sweep(side: str) -> None:
    pump = factory_with_balance()
    node = pump.clients[0] if side == "client" else pump.lsp
    pump.handle(pump.clients[0], ev.ExitRequested(attempt_id=pump.attempt.attempt_id))
    pump.mine(newest_link(pump.clients[0]).exit_blocks + 20)
    assert alices_link(pump, node).setting.funding.outpoint in node.state.chain.spends
    views: dict[str, Callable[[], str]] = {
        "client": lambda: client_views.status_of(node.state, own_attempt(node)),
        "lsp": lambda: lsp_views.status_of(pump.factory),
    }
    assert views[side]() == {"client": "on_chain", "lsp": "live"}[side]
    assert book(node).links
