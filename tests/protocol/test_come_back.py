"""Whoever was away, and comes back when an HTLC of its own is due, hears the other side first."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.paying_clients import (
    book,
    live_factory,
    lsp_link,
    make_invoice,
    newest_link,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_leaving import QUICK, reasons_to_leave
from tests.protocol.unanswered import FIRST_MSAT, WORTH_MSAT, mine_to, only_expiry, pending_for

from cromford.protocol.channels.htlc_rules import publish_height
from cromford.protocol.exiting.stake import COME_BACK_BLOCKS, HTLC_EXPIRES
from cromford.protocol.facts import Facts
from cromford.protocol.journal.exit_records import ExitStarted
from cromford.protocol.journal.link import Link
from cromford.wire import messages as m

AWAY_BLOCKS: Final = 30


def away_until_late(
    pump: Pump, node: PumpNode, link: Link, *, away_blocks: int = AWAY_BLOCKS
) -> int:
    """Let a role be away until its HTLC is due for some blocks; return the height of then."""
    due_height = publish_height(link, only_expiry(link), chain=node.state.chain)
    guests = pump.clients if node is pump.lsp else [node]
    for client in guests:
        pump.disconnect(client)
    pump.blind.add(node.name)
    mine_to(pump, due_height + away_blocks)
    pump.blind.remove(node.name)
    back_height = pump.chain.height

    def facts_at(own_height: int) -> Facts:
        is_reading = own_height < back_height
        return Facts(
            stale="blocks are missing" if is_reading else None,
            header_height=max(own_height, back_height),
            fresh_since=-1 if is_reading else back_height,
        )

    node.facts_at = facts_at
    pump.restart(node)
    for client in guests:
        pump.disconnect(client)
    pump.sync()
    pump.run()
    assert node.state.chain.height == back_height
    return back_height


def held_at_the_lsp() -> tuple[Pump, PumpNode]:
    """Return a payer whose HTLC its LSP has to give back, and has nobody to give it to."""
    pump = live_factory(3, policy=QUICK)
    alice, bob, _ = pump.clients
    pay(pump, pump.lsp, alice, FIRST_MSAT)
    pump.disconnect(bob)
    pump.handle(alice, make_invoice(pump, bob, WORTH_MSAT))
    pump.run()
    return pump, alice


def test_a_payer_that_was_away_is_given_back_what_failed_and_stays() -> None:
    pump, alice = held_at_the_lsp()
    back_height = away_until_late(pump, alice, newest_link(alice))
    mine_to(pump, back_height + COME_BACK_BLOCKS - 1)
    assert reasons_to_leave(alice) == []
    pump.connect(alice)
    pump.run()
    (payment_hash,) = book(alice).payments
    assert book(alice).payments[payment_hash].status == "failed"
    pump.mine(COME_BACK_BLOCKS)
    assert reasons_to_leave(alice) == []
    assert pay(pump, pump.lsp, alice, 1_000_000).status == "paid"


def test_a_payer_whose_lsp_does_not_come_leaves_after_all() -> None:
    pump, alice = held_at_the_lsp()
    back_height = away_until_late(pump, alice, newest_link(alice))
    mine_to(pump, back_height + COME_BACK_BLOCKS - 1)
    assert reasons_to_leave(alice) == []
    pump.mine()
    assert reasons_to_leave(alice) == [HTLC_EXPIRES]


def test_a_payee_that_was_away_leaves_at_once_for_what_it_took() -> None:
    """From the expiry on its LSP may take that back."""
    pump = live_factory(3, policy=QUICK)
    bob, link = pending_for(pump, "payee", WORTH_MSAT)
    away_until_late(pump, bob, link)
    assert reasons_to_leave(bob) == [HTLC_EXPIRES]


def test_an_lsp_that_was_away_is_given_back_what_it_paid_itself() -> None:
    pump = live_factory(3, policy=QUICK)
    alice = pump.clients[0]
    request = replace(make_invoice(pump, alice, WORTH_MSAT), payment_secret=bytes(32))
    pump.handle(pump.lsp, request)
    pump.run_to(m.UpdateFailHtlc)
    back_height = away_until_late(pump, pump.lsp, lsp_link(pump, newest_link(alice)))
    mine_to(pump, back_height + COME_BACK_BLOCKS - 1)
    assert reasons_to_leave(pump.lsp) == []
    pump.connect(alice)
    pump.run()
    assert book(pump.lsp).payments[request.payment_hash].status == "failed"
    pump.mine(COME_BACK_BLOCKS)
    assert reasons_to_leave(pump.lsp) == []


def test_an_lsp_that_was_away_leaves_at_once_for_what_pays_for_a_clients() -> None:
    pump = live_factory(3, policy=QUICK)
    _, link = pending_for(pump, "lsp", WORTH_MSAT)
    away_until_late(pump, pump.lsp, link)
    assert reasons_to_leave(pump.lsp) == [HTLC_EXPIRES]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("away_blocks", [0, COME_BACK_BLOCKS - 1])
@pytest.mark.parametrize("comes", [True, False])
def test_an_lsp_that_comes_back_in_time_for_what_pays_for_a_clients_hears_its_payee_first(
    away_blocks: int,
    *,
    comes: bool,
) -> None:
    """As long as its commitment can be on chain well before the expiry, nothing is lost by it."""
    pump = live_factory(3, policy=QUICK)
    _, bob, _ = pump.clients
    _, link = pending_for(pump, "lsp", WORTH_MSAT)
    due_height = publish_height(link, only_expiry(link), chain=pump.lsp.state.chain)
    away_until_late(pump, pump.lsp, link, away_blocks=away_blocks)
    mine_to(pump, due_height + COME_BACK_BLOCKS - 1)
    assert reasons_to_leave(pump.lsp) == []
    if comes:
        pump.connect(bob)
        pump.run()
    pump.mine()
    assert reasons_to_leave(pump.lsp) == ([] if comes else [HTLC_EXPIRES])


def test_an_lsp_that_reads_what_it_missed_waits_by_the_headers_and_not_by_its_own_height() -> None:
    pump = live_factory(3, policy=QUICK)
    _, link = pending_for(pump, "lsp", WORTH_MSAT)
    due_height = publish_height(link, only_expiry(link), chain=pump.lsp.state.chain)
    away_until_late(pump, pump.lsp, link, away_blocks=COME_BACK_BLOCKS)
    (started,) = [one for one in pump.lsp.store.remembered if isinstance(one, ExitStarted)]
    assert started.reason == HTLC_EXPIRES
    assert due_height + COME_BACK_BLOCKS == pump.chain.height
