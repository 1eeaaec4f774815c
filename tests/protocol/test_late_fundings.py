"""A funding that a mempool let go, one that nobody waits for any more, and one that comes late."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.forked_world import QUICK, ForkedPump
from tests.protocol.paying_clients import newest_link
from tests.protocol.test_abandoned_fundings import abandon
from tests.protocol.test_forked_fundings import shown

from cromford import effects as fx
from cromford.bitcoin.tx import Tx
from cromford.daemon.views import lsp as views
from cromford.protocol import events as ev
from cromford.wallet.account import RECEIVE

# Clients wait for six blocks; for ten a funding is worth something.
BRIEF: Final = replace(
    QUICK, active_blocks=144, ready_min_blocks=134, dying_blocks=144, patience_blocks=6
)


def waiting() -> ForkedPump:
    """Return a factory whose funding waits in the mempool."""
    pump = ForkedPump(policy=BRIEF)
    pump.join()
    pump.build()
    pump.run()
    assert pump.attempt.funding_tx.txid in pump.chain.mempool
    return pump


def n_published(pump: ForkedPump, tx: Tx) -> int:
    return sum(wish.tx.txid == tx.txid for wish in pump.wishes(pump.lsp, fx.Broadcast))


def mine_without_it_to(pump: ForkedPump, height: int) -> None:
    while pump.chain.height < height:
        pump.mine_only()


@pytest.mark.parametrize("role", ["lsp", "client"])
def test_what_a_mempool_lost_is_in_it_again_after_the_next_block(role: str) -> None:
    """Evicted, expired, or gone with a restart: a funding, and a payment of a wallet."""
    pump = waiting()
    node = pump.lsp if role == "lsp" else pump.clients[0]
    if role == "client":
        pump.chain.fund(node.state.wallet.next_script(RECEIVE), 100_000)
        pump.sync()
    to = pump.clients[1].state.wallet.next_script(RECEIVE)
    pump.handle(node, send(to))
    pump.run()
    (payment,) = node.state.wallet.payments
    funding = pump.attempt.funding_tx.txid
    for _ in range(2):
        assert {payment, funding} <= pump.chain.mempool.keys()
        pump.chain.forget_all()
        assert not pump.chain.mempool
        pump.mine_only()
    pump.chain.forget_all()
    pump.restart(node)
    assert payment in pump.chain.mempool
    pump.mine_only()
    pump.mine()
    assert {payment, funding} <= pump.chain.confirmed.keys()
    assert node.state.wallet.payments == {}


def send(script_pubkey: bytes) -> ev.SpendingRequested:
    return ev.SpendingRequested(
        script_pubkey=script_pubkey, amount_sat=50_000, feerate_sat_per_kw=500
    )


def test_after_their_patience_clients_wait_no_more_and_use_a_funding_that_comes_in_time() -> None:
    pump = waiting()
    last = pump.attempt.blueprint.ready_height_max
    mine_without_it_to(pump, pump.attempt.terms.patience_end_height)
    for client in pump.clients:
        assert pump.held(client).given_up
        pump.handle(client, ev.LeaveRequested())
    mine_without_it_to(pump, last - 1)
    assert not views.summary(pump.factory)["too_late"]
    pump.mine(3)
    assert pump.chain.confirmed[pump.attempt.funding_tx.txid] == last
    assert shown(pump) == ("live", "live", "live")
    assert all(newest_link(client).is_open for client in pump.clients)


def test_a_funding_that_no_client_would_use_is_published_no_more_and_can_be_given_up() -> None:
    pump = waiting()
    funding = pump.attempt.funding_tx
    mine_without_it_to(pump, pump.attempt.blueprint.ready_height_max - 1)
    n_before = n_published(pump, funding)
    pump.chain.forget_all()
    pump.mine_only()
    pump.restart(pump.lsp)
    pump.mine_only()
    assert n_published(pump, funding) == n_before
    assert funding.txid not in pump.chain.mempool
    assert views.summary(pump.factory)["too_late"]
    replacement = abandon(pump)
    pump.mine(3)
    assert replacement.txid in pump.chain.confirmed
    assert shown(pump)[0] == "dead"
    assert pump.lsp.state.wallet.reserved == {}


def test_one_that_confirms_all_the_same_is_no_clients_and_the_lsps_again_at_its_expiry() -> None:
    """Nothing was promised in it: whoever signed loses nothing, and the LSP waits."""
    pump = waiting()
    (funding,) = pump.published
    expiry_height = pump.attempt.terms.expiry_height
    before_sat = pump.lsp.state.wallet.confirmed_sat()
    mine_without_it_to(pump, pump.attempt.blueprint.ready_height_max)
    pump.mine_only(funding)
    pump.mine(3)
    for client in pump.clients:
        assert pump.held(client).given_up
        assert not pump.held(client).ready_sent
        assert not client.state.book.links
        pump.handle(client, ev.LeaveRequested())
    mine_without_it_to(pump, expiry_height - 1)
    pump.mine(3)
    fees_sat = before_sat - pump.lsp.state.wallet.confirmed_sat()
    assert 0 < fees_sat < 1_000
