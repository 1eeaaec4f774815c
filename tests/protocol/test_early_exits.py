"""An exit that begins before the channel is ready: what is published must stay the latest."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.paying_clients import book, lsp_link, make_invoice, newest_link
from tests.protocol.pump import Pump
from tests.protocol.test_leaving import QUICK

from cromford.protocol import events as ev

POLICY: Final = replace(QUICK, min_depth=3)
PAID_MSAT: Final = 9_000_000


def leaving_early(leaver: str) -> Pump:
    """Return a factory that one side of a channel left at once, its way out still unconfirmed."""
    pump = Pump(2, policy=POLICY)
    pump.join()
    pump.build()
    pump.run()
    pump.mine()
    attempt = pump.attempt
    node = pump.lsp if leaver == "lsp" else pump.client_at(1)
    pump.handle(node, ev.ExitRequested(attempt_id=attempt.attempt_id, client=1))
    for _ in range(POLICY.min_depth):
        pump.chain.mempool.clear()  # The fees of the day are above what the tree pays.
        pump.mine()
    return pump


@pytest.mark.parametrize("leaver", ["client", "lsp"])
def test_a_channel_that_was_left_before_it_was_ready_takes_no_update(leaver: str) -> None:
    pump = leaving_early(leaver)
    client = pump.client_at(1)
    link = newest_link(client)
    assert link.failure is not None
    assert lsp_link(pump, link).failure is not None
    assert newest_link(pump.client_at(2)).is_open, "the other one is as it was"


def test_the_lsp_pays_nothing_into_a_channel_that_it_is_bringing_on_chain() -> None:
    pump = leaving_early("lsp")
    client = pump.client_at(1)
    request = make_invoice(pump, pump.client_at(2), PAID_MSAT)
    pump.handle(pump.lsp, replace(request, payee=client.node_id))
    pump.run()
    assert not book(pump.lsp).payments
    link = newest_link(client)
    pump.mine(link.exit_blocks)
    spender = pump.lsp.state.chain.spends[link.setting.funding.outpoint]
    assert spender.txid == lsp_link(pump, link).finished.tx.txid, "what is on chain is its latest"
