"""What a client may publish while its LSP is over with a rebase, and has signed more since."""

from tests.protocol.advances import both_links, check_claims
from tests.protocol.closes import ask_for_close, check_all_is_paid, finished
from tests.protocol.markets import Market
from tests.protocol.paying_clients import book, make_invoice, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import backup_of, restore

from cromford.channel.stage import Edition
from cromford.daemon.views.channels import show_channel
from cromford.daemon.views.client import standing_of
from cromford.protocol import events as ev
from cromford.protocol.channels.marks import least_close_msat
from cromford.protocol.facts import FRESH
from cromford.wire import messages as m

BUYER, PAYEE = 1, 3
HELD_MSAT = 8_000_000


def growing_with_a_forward_under_way() -> tuple[Market, bytes]:
    """Give a market whose buyer pays somebody who is away, and signs its LSP's rebase next.

    The buyer itself is rebased. Returns the payment hash as well.
    """
    market = with_money()
    pump, payee = market.pump, market.pump.client_at(PAYEE)
    request = make_invoice(pump, payee, HELD_MSAT)
    pump.disconnect(payee)
    pump.handle(market.buyer, request)
    pump.run()
    return growing(market), request.payment_hash


def with_money() -> Market:
    market = Market(3)
    assert pay(market.pump, market.pump.lsp, market.buyer, 40_000_000).status == "paid"
    return market


def growing(market: Market) -> Market:
    """Let the buyer buy, until it is rebased itself, and its LSP hears of that next."""
    pump, buyer, quote = market.pump, market.buyer, market.quote(20_000)
    order = ev.PurchaseRequested(
        attempt_id=market.attempt_id,
        quote_id=quote.quote_id,
        price_max_msat=quote.price_msat,
        beyond_coverage=True,
    )
    pump.handle(buyer, order)
    pump.run_to(m.UpdateRebase)
    pump.run(until=lambda: is_signed_by(pump, buyer))
    return market


def grown_with_a_forward_under_way() -> tuple[Market, bytes]:
    """Give the same once the LSP is rebased, too, and its next signature was lost.

    The commitment by which the client was rebased is the one that it holds.
    """
    market, payment_hash = growing_with_a_forward_under_way()
    pump, buyer, lsp = market.pump, market.buyer, market.pump.lsp
    with pump.tampering(lambda by, to, said: lost(said) if (by, to) == (lsp, buyer) else (said,)):
        pump.handle(lsp, make_invoice(pump, buyer, 5_000_000))
        pump.run()
    return market, payment_hash


def is_signed_by(pump: Pump, client: PumpNode) -> bool:
    letter = pump.wire[0]
    return letter.sender is client and isinstance(letter.message, m.CommitmentSigned)


def lost(message: m.Message) -> tuple[m.Message, ...]:
    return () if isinstance(message, m.CommitmentSigned) else (message,)


def test_the_commitment_by_which_a_client_was_rebased_is_known_until_it_is_revoked() -> None:
    market, _ = grown_with_a_forward_under_way()
    link, lsp_link = both_links(market.pump, BUYER)
    assert lsp_link.next is None
    check_claims(market.pump)
    held = link.finished_on(link.fundings[-1])
    assert held is not None
    assert held.commitment.content.htlcs
    unrevoked = [one.commitment.tx.txid for one in lsp_link.peer_commitments]
    latest = lsp_link.state.content(lsp_link.state.peer, Edition.SIGNED)
    assert unrevoked[0] == held.commitment.tx.txid
    assert [one.commitment.content.number for one in lsp_link.peer_commitments] == [
        latest.number - 1,
        latest.number,
    ]


def test_an_lsp_takes_what_its_payee_was_paid_of_a_client_that_leaves_by_that_commitment() -> None:
    market, payment_hash = grown_with_a_forward_under_way()
    pump, buyer, payee = market.pump, market.buyer, market.pump.client_at(PAYEE)
    with pump.tampering(lambda _by, to, said: () if to is buyer else (said,)):
        pump.connect(payee)
        pump.run()
    pump.disconnect(buyer)
    assert book(payee).invoices[payment_hash].status == "paid"
    pump.handle(buyer, ev.ExitRequested(attempt_id=market.attempt_id))
    link = both_links(pump, BUYER)[1]
    (htlc,) = (live.htlc for live in link.state.htlcs if live.htlc.offered_by is link.state.peer)
    pump.mine(htlc.cltv_expiry + link.exit_blocks - pump.chain.height)
    assert book(buyer).payments[payment_hash].status == "paid"
    assert not pump.factory.book.forwards


def test_a_channel_that_grows_is_shown_with_the_capacity_that_its_balances_are_of() -> None:
    market, _ = growing_with_a_forward_under_way()
    state = market.buyer.state
    link = both_links(market.pump, BUYER)[0]
    assert link.state.rebase is not None
    shown = show_channel(link, standing_of(state, link, FRESH), state.chain)
    balances_msat = shown["own_msat"] + shown["peer_msat"]
    htlcs_msat = shown["sending_msat"] + shown["receiving_msat"]
    assert balances_msat + htlcs_msat == 1000 * shown["capacity_sat"]


def test_a_client_restored_between_the_two_revocations_closes_at_what_its_commitment_pays() -> None:
    market = growing(with_money())
    pump, buyer = market.pump, market.buyer
    lsp_state = both_links(pump, BUYER)[1].state
    assert lsp_state.rebase is not None
    assert least_close_msat(both_links(pump, BUYER)[1]) == lsp_state.opener_msat
    pump.run(until=lambda: both_links(pump, BUYER)[1].next is None)
    assert both_links(pump, BUYER)[0].state.rebase is not None
    restore(pump, (buyer, backup_of(buyer)))
    ask_for_close(pump)
    pump.run()
    (record,) = finished(pump.lsp)
    content = both_links(pump, BUYER)[0].finished.commitment.content
    assert record.balances_msat[BUYER - 1] == content.accepter_msat
    check_all_is_paid(pump)
