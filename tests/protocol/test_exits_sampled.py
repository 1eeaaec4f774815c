"""Exits with money under way, on sampled states; `make simulate` plays more of these stories."""

import random

import pytest
from tests.protocol.exit_accounts import Books
from tests.protocol.exits import (
    REORG_BLOCKS_MAX,
    ExitPump,
    Story,
    ask_to_leave,
    ends_of,
    live_through,
)
from tests.protocol.paying_clients import (
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import QUICK, publish_branch, reasons_to_leave
from tests.simulation.exits import run_exits
from tests.simulation.seeds import seeds

from cromford.protocol import events as ev
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", seeds(10))
def test_whoever_leaves_whatever_is_pending_everybody_gets_what_is_theirs(seed: int) -> None:
    run_exits(seed)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("reorgs", [0.0, 0.06])
@pytest.mark.parametrize("seed", seeds(2))
def test_in_such_worlds_neighbours_pay_while_somebody_leaves(seed: int, reorgs: float) -> None:
    pump = ExitPump(seed, n_clients=4)
    for client in pump.clients:
        pay(pump, pump.lsp, client, 30_000_000)
    story = Story(leavers="client", client=0, gone=None, accidents=0.0, reorgs=reorgs, trades=0.7)
    ended = live_through(pump, story, random.Random(seed))
    Books(ended).check()
    assert pump.n_paid_beside_an_exit > 0


@pytest.mark.sampled(0)
def test_one_seed_gives_one_story_of_exits() -> None:
    assert run_exits(5002) == run_exits(5002)


def run_to_fulfil_for(pump: Pump, receiver: PumpNode) -> None:
    """Deliver until a preimage for this node is next."""
    pump.run(
        until=lambda: (
            isinstance(pump.wire[0].message, m.UpdateFulfillHtlc)
            and pump.wire[0].receiver is receiver
        )
    )
    assert pump.wire, "no preimage is on its way"


@pytest.mark.sampled(0)
def test_a_preimage_that_never_reached_the_payer_still_pays_the_lsp_on_chain() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    request = make_invoice(pump, bob, 9_000_000)
    pump.handle(alice, request)
    run_to_fulfil_for(pump, alice)
    pump.disconnect(alice)
    pump.run()
    assert not book(pump.lsp).forwards, "for the LSP it is answered"
    link = newest_link(alice)
    expiry = link.state.htlcs[0].htlc.cltv_expiry
    pump.mine(expiry - pump.chain.height + link.exit_blocks)
    assert reasons_to_leave(pump.lsp) == ["an HTLC expires"]
    assert book(alice).payments[request.payment_hash].status == "paid"


@pytest.mark.sampled(0)
def test_the_lsp_takes_no_htlc_on_chain_that_it_did_not_pay_for() -> None:
    pump = live_factory(3, policy=QUICK)
    alice, bob, carol = pump.clients
    for client in (alice, bob):
        pay(pump, pump.lsp, client, 30_000_000)
    request = make_invoice(pump, carol, 9_000_000)
    pump.handle(alice, request)
    run_to_fulfil_for(pump, pump.lsp)
    pump.disconnect(alice)
    pump.run()
    assert any(one.preimage for one in book(pump.lsp).forwards.values())
    pump.disconnect(carol)
    pump.handle(bob, request)
    pump.run()
    assert book(pump.lsp).held, "the LSP waits for Carol"
    link = newest_link(bob)
    expiry = link.state.htlcs[0].htlc.cltv_expiry
    pump.handle(bob, ev.ExitRequested(attempt_id=link.attempt_id))
    pump.mine(expiry - pump.chain.height + link.exit_blocks)
    assert book(bob).payments[request.payment_hash].status == "failed"
    assert book(alice).payments[request.payment_hash].status == "paid"


@pytest.mark.sampled(0)
def test_the_other_sides_commitment_may_confirm_after_a_reorganisation() -> None:
    pump = ExitPump(0, n_clients=2)
    alice, bob = pump.clients
    pay(pump, pump.lsp, alice, 30_000_000)
    pay(pump, pump.lsp, bob, 20_000_000)
    # One HTLC each way in Bob's channel: what he is paid, and what he pays.
    for payer, payee in ((bob, alice), (pump.lsp, bob)):
        pump.trap(payee, pump.lsp, m.UpdateFulfillHtlc)
        pump.handle(payer, make_invoice(pump, payee, 6_000_000))
        pump.run()
    ask_to_leave(pump, "both", bob)
    lsp_end, bobs_end = ends_of(pump, bob)
    assert len(bobs_end.finished.commitment.content.htlcs) == 2
    publish_branch(pump, bobs_end)
    first, other = lsp_end.finished.tx, bobs_end.finished.tx
    for tx in (first, other):
        pump.chain.mempool.clear()
        pump.chain.broadcast(tx)
        pump.mine(REORG_BLOCKS_MAX)
        assert tx.txid in pump.chain.confirmed
        if tx is first:
            pump.chain.remove_tip(REORG_BLOCKS_MAX)
    story = Story(leavers="nobody", client=1, gone=None, accidents=0.0, reorgs=0.0, trades=0.0)
    books = Books(live_through(pump, story, random.Random(0)))
    books.check()
    (of_bob,) = (one for one in books.settled if one.client is bob)
    assert of_bob.commitment == bobs_end.finished.commitment
    assert len(of_bob.paid) == 2


def cheat(pump: ExitPump, link: Link, old: Link) -> None:
    """Let a thief's commitment be the next to spend a channel's output."""
    assert pump.chain.coin(link.setting.funding.outpoint) is not None
    pump.chain.mempool.clear()
    pump.chain.broadcast(old.finished.tx)
    pump.mine()


def test_another_revoked_commitment_after_a_reorganisation_is_punished_too() -> None:
    pump = ExitPump(0, n_clients=2)
    alice = pump.clients[0]
    old = []
    for _ in range(3):
        pay(pump, pump.lsp, alice, 10_000_000)
        old.append(lsp_link(pump, newest_link(alice)))
    link = newest_link(alice)
    pump.handle(pump.lsp, ev.ExitRequested(attempt_id=link.attempt_id, client=link.client))
    publish_branch(pump, link)
    cheat(pump, link, old[0])
    assert newest_link(alice).breach is not None
    pump.chain.remove_tip(1)
    cheat(pump, link, old[1])
    pump.mine(4)
    capacity_sat = link.setting.funding.capacity_sat
    assert alice.state.wallet.confirmed_sat() > capacity_sat - 3000
    assert ends_of(pump, alice)[1].failure is not None
