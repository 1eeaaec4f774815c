"""HTLCs are pending in both directions, in both channels of a leaf, as one of its states lands.

The buyer and its neighbour pay each other while their leaf is advanced, and nobody hears of the
preimages before all connections break: what was paid is claimed on chain, or comes back in time.
"""

from collections.abc import Callable
from typing import Final

import pytest
from tests.protocol.advanced import Advance
from tests.protocol.advances import both_links, check_claims, market, quote_for
from tests.protocol.old_states import bring_on_chain, look_again, sold
from tests.protocol.paying_clients import balance, book, make_invoice, newest_link
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.stalling import be_fresh_untold, stall
from tests.protocol.test_leaving import wallet_sat

from cromford.channel.stage import LiveHtlc
from cromford.channel.terms import Party
from cromford.protocol import events as ev
from cromford.wire import messages as m

PAID_SAT: Final = 9_000  # By the buyer to its neighbour,
PAID_BACK_SAT: Final = 7_000  # and by that to the buyer.
FEES_SAT: Final = 2_500  # More than an exit costs a client, with what its HTLCs cost.
LSP_FEES_SAT: Final = 5_000  # More than both commitments and its own claims cost the LSP.
EXIT_BLOCKS: Final = 25
OLD, NEXT = 0, 1


def silent_from(pump: Pump, first: type[m.Message]) -> Callable[..., tuple[m.Message, ...]]:
    """Return what loses all that a client says from a message on."""
    silent: set[str] = set()

    def tamper(by: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if by is not pump.lsp and isinstance(message, first):
            silent.add(by.name)
        return () if by.name in silent else (message,)

    return tamper


def offer(pump: Pump, payer: PumpNode, payee: PumpNode, amount_sat: int) -> bytes:
    """Let one begin to pay another; nothing of it is delivered yet."""
    request = make_invoice(pump, payee, 1_000 * amount_sat)
    pump.handle(payer, request)
    return request.payment_hash


def cut_with_htlcs(landed: int) -> tuple[Pump, Advance, list[bytes]]:
    """Advance a leaf with HTLCs pending to where either of its states may land, and cut it off.

    The old one alone is signed if the LSP never hears that the clients signed. Else the LSP has the
    next, and no client says any more that it has it.
    """
    pump, done = sold(None)
    buyer, neighbour = pump.clients
    hashes = [
        offer(pump, buyer, neighbour, PAID_SAT),
        offer(pump, neighbour, buyer, PAID_BACK_SAT),
    ]
    for node in (buyer, neighbour):  # Whoever's chain is stale shows no preimage.
        stall(pump, node)
    pump.run()
    for node in (buyer, neighbour):
        be_fresh_untold(pump, node)
    lost = m.AdvanceSign if landed == OLD else m.UpdateFulfillHtlc
    with market(), pump.tampering(silent_from(pump, lost)):
        seat = newest_link(buyer).client
        pump.lsp_says(buyer, quote_for(pump, seat, amount_sat=done.amount_sat, price_msat=0))
        pump.run()
    for node in (buyer, neighbour):
        pump.disconnect(node)
    check_claims(pump)
    return pump, done, hashes


@pytest.mark.sampled(1)
@pytest.mark.parametrize("landed", [OLD, NEXT])
def test_htlcs_in_both_directions_are_claimed_or_come_back_in_whichever_state_landed(
    landed: int,
) -> None:
    """The buyer takes what it is paid; what it pays to a neighbour that sleeps comes back to it."""
    pump, done, (of_buyer, of_neighbour) = cut_with_htlcs(landed)
    buyer, neighbour = pump.clients
    for link in (one for seat in (1, 2) for one in both_links(pump, seat)):
        offered = [live.htlc.offered_by for live in link.state.htlcs]
        assert sorted(offered) == [Party.OPENER, Party.ACCEPTER]
    own_sat = {node: balance(node).own_msat // 1000 for node in (buyer, neighbour)}
    (fee_sat,) = {live.htlc.amount_msat // 1000 - PAID_SAT for live in sent_by(buyer)}
    (expiry,) = (live.htlc.cltv_expiry for live in sent_by(buyer))
    lsp_sat = wallet_sat(pump.lsp)
    bring_on_chain(pump, done, landed)
    look_again(pump, pump.lsp, buyer)
    leave(pump, buyer)
    pump.mine(expiry + EXIT_BLOCKS - pump.chain.height)
    assert wallet_sat(neighbour) == 0
    look_again(pump)
    leave(pump, neighbour)
    pump.mine(EXIT_BLOCKS)

    assert book(buyer).payments[of_buyer].status == "failed"
    assert book(neighbour).payments[of_neighbour].status == "paid"
    assert book(neighbour).invoices[of_buyer].status == "paid", "it showed it to nobody"
    due_sat = {
        buyer: own_sat[buyer] + PAID_SAT + fee_sat + PAID_BACK_SAT,
        neighbour: own_sat[neighbour],
    }
    for node, node_due_sat in due_sat.items():
        assert node_due_sat - FEES_SAT < wallet_sat(node) <= node_due_sat
    allocation = done.leaf.allocation_at(landed)
    paid_sat = sum(allocation.capacities_sat) + allocation.lstock_sat
    lsp_due_sat = paid_sat - sum(due_sat.values())
    assert lsp_due_sat - LSP_FEES_SAT < wallet_sat(pump.lsp) - lsp_sat <= lsp_due_sat


def sent_by(client: PumpNode) -> list[LiveHtlc]:
    """Return the HTLCs that a client offered, and that are not over."""
    state = newest_link(client).state
    return [live for live in state.htlcs if live.htlc.offered_by is state.me]


def leave(pump: Pump, client: PumpNode) -> None:
    pump.handle(client, ev.ExitRequested(attempt_id=newest_link(client).attempt_id))
    pump.run()
