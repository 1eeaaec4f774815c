"""A client buys out of a payment that has no room in its channel: the LSP keeps the price of it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.protocol.markets import Market
from tests.protocol.paying_clients import (
    balance,
    begin_payment,
    invoice_requested,
    make_invoice,
    newest_link,
    open_factory,
    pay,
)
from tests.protocol.pump import PumpNode

from cromford.crypto.keys import sha256
from cromford.protocol import events as ev
from cromford.protocol.advancing.buying import answer_to
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.book import Payment
from cromford.wire import messages as m
from cromford.wire.selling import Skimmed

FULL_MSAT = 90_000_000
PAID_MSAT = 40_000_000


@pytest.fixture
def market() -> Market:
    """Return a market whose buyer's channel is nearly full, and whose neighbour can pay."""
    market = Market(watches_folds=True)
    for seat in (1, 2):
        paid = pay(market.pump, market.pump.lsp, market.pump.client_at(seat), FULL_MSAT)
        assert paid.preimage is not None
    return market


def payment_that_waits(market: Market) -> Payment:
    """Let the neighbour pay what has no room: it waits at the LSP."""
    waits = begin_payment(market.pump, market.pump.client_at(2), market.buyer, PAID_MSAT)
    assert waits.status == "pending"
    assert len(market.pump.factory.book.held) == 1
    return waits


def buy(market: Market, payment_hash: bytes, amount_sat: int = 50_000, *, seat: int = 1) -> m.Quote:
    node = market.pump.client_at(seat)
    asked = ev.QuoteRequested(
        attempt_id=market.attempt_id, amount_sat=amount_sat, payment_hash=payment_hash
    )
    market.pump.handle(node, asked)
    market.pump.run()
    quote = answer_to(node.state.quotes[market.attempt_id])
    assert isinstance(quote, m.Quote), quote
    order = ev.PurchaseRequested(
        attempt_id=market.attempt_id,
        quote_id=quote.quote_id,
        price_max_msat=quote.price_msat,
        beyond_coverage=True,
    )
    market.pump.handle(node, order)
    market.pump.run()
    return quote


def test_the_price_is_kept_of_the_payment_and_the_payer_has_its_proof(market: Market) -> None:
    waits = payment_that_waits(market)
    quote = buy(market, waits.payment_hash)
    assert newest_link(market.buyer).state.capacity_sat == quote.capacity_sat
    assert balance(market.buyer).own_msat == FULL_MSAT + PAID_MSAT - quote.price_msat
    paid = market.pump.client_at(2).state.book.payments[waits.payment_hash]
    assert paid.status == "paid"
    invoice = market.buyer.state.book.invoices[waits.payment_hash]
    assert invoice.status == "paid"
    (receipt,) = market.buyer.state.receipts[market.attempt_id]
    assert (receipt.price_msat, receipt.payment_hash) == (quote.price_msat, waits.payment_hash)
    (sold,) = market.pump.lsp.state.house.entries[market.attempt_id].sold
    assert (sold.price_msat, sold.payment_hash) == (quote.price_msat, waits.payment_hash)
    assert not market.pump.factory.book.held


def test_of_two_payees_of_one_hash_each_pays_for_all_that_it_bought() -> None:
    """They may act together: what one buys must not take what the other one owes."""
    market = Market(4, watches_folds=True)
    pump, first, second = market.pump, market.buyer, market.pump.client_at(3)
    for seat in (1, 2, 3, 4):
        assert pay(pump, pump.lsp, pump.client_at(seat), FULL_MSAT).preimage is not None
    asked = invoice_requested(PAID_MSAT)
    for payer, payee in ((2, first), (4, second)):
        pump.handle(pump.client_at(payer), make_invoice(pump, payee, PAID_MSAT, of=asked))
        pump.run()
    payment_hash = sha256(asked.preimage)
    bought = [
        buy(market, payment_hash, amount_sat, seat=seat)
        for seat, amount_sat in ((1, 10_000), (3, 50_000), (1, 40_000))
    ]
    for payee, quotes in ((second, bought[1:2]), (first, bought[::2])):
        price_msat = sum(quote.price_msat for quote in quotes)
        assert price_msat
        assert balance(payee).own_msat == FULL_MSAT + PAID_MSAT - price_msat


def test_without_a_payment_that_waits_nothing_is_advanced_for_it(market: Market) -> None:
    unpaid = b"\x21" * 32
    asked = ev.QuoteRequested(attempt_id=market.attempt_id, amount_sat=50_000, payment_hash=unpaid)
    driver = market.buyer.driver
    assert driver is not None
    with pytest.raises(Rejected, match="expected an open invoice of ours, received none"):
        driver.foresee(asked)
    market.said.clear()
    request = m.QuoteRequest(attempt_id=market.attempt_id, amount_sat=50_000, payment_hash=unpaid)
    market.pump.tell(market.pump.lsp, market.buyer, request)
    market.pump.run()
    (answer,) = (one for one in market.said if isinstance(one, m.QuoteRefused))
    assert answer.code == "payment_not_here"
    assert not market.pump.factory.advances


def test_a_payment_that_is_smaller_than_the_price_pays_nothing(market: Market) -> None:
    waits = payment_that_waits(market)
    market.set_price(base_msat=PAID_MSAT)
    refused = market.refusal(50_000, payment_hash=waits.payment_hash)
    assert refused.code == "insufficient_balance"
    assert refused.missing_msat > 0


@pytest.mark.parametrize("more_msat", [1, 1_000_000])
def test_an_lsp_that_keeps_more_than_was_agreed_is_paid_nothing(
    market: Market, more_msat: int
) -> None:
    """The client gives the HTLC back: nobody can make it show a preimage for less."""
    waits = payment_that_waits(market)

    def greedy(_from: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if isinstance(message, m.UpdateAddHtlc) and message.delivery.skimmed:
            (kept,) = message.delivery.skimmed
            more = (Skimmed(price_msat=kept.price_msat + more_msat),)
            delivery = replace(message.delivery, skimmed=more)
            return (replace(message, delivery=delivery),)
        return (message,)

    quote = market.quote(50_000, payment_hash=waits.payment_hash)
    order = ev.PurchaseRequested(
        attempt_id=market.attempt_id,
        quote_id=quote.quote_id,
        price_max_msat=quote.price_msat,
        beyond_coverage=True,
    )
    market.pump.handle(market.buyer, order)
    with market.pump.tampering(greedy):
        market.pump.run()
    assert market.buyer.state.book.invoices[waits.payment_hash].status == "open"
    assert balance(market.buyer).own_msat == FULL_MSAT
    assert newest_link(market.buyer).state.capacity_sat == quote.capacity_sat


def test_of_no_other_payment_is_anything_kept(market: Market) -> None:
    waits = payment_that_waits(market)
    quote = buy(market, waits.payment_hash)
    before = balance(market.buyer).own_msat
    assert pay(market.pump, market.pump.lsp, market.buyer, 1_000_000).preimage is not None
    assert balance(market.buyer).own_msat == before + 1_000_000
    assert market.pump.factory.kept_msat(1, waits.payment_hash) == quote.price_msat
    told = market.pump.sent(market.pump.lsp, m.UpdateAddHtlc)
    assert [bool(one.delivery.skimmed) for one in told].count(True) == 1


def test_what_a_payer_says_was_kept_is_never_passed_on(market: Market) -> None:
    """Only the LSP says so: a payer that writes it into its own HTLC pays all the same."""

    def lying(_from: PumpNode, to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if isinstance(message, m.UpdateAddHtlc) and to is market.pump.lsp:
            kept = (Skimmed(price_msat=1_000),)
            return (replace(message, delivery=replace(message.delivery, skimmed=kept)),)
        return (message,)

    before = balance(market.buyer).own_msat
    with market.pump.tampering(lying):
        paid = pay(market.pump, market.pump.client_at(2), market.buyer, 1_000_000)
    assert paid.preimage is not None
    assert balance(market.buyer).own_msat == before + 1_000_000


def test_of_two_factories_purchases_under_one_name_neither_pays_for_the_other() -> None:
    """An LSP names its quotes itself: of a payment is kept what was bought out of it."""
    market = Market().with_money()
    pump, buyer, first = market.pump, market.buyer, market.attempt_id
    open_factory(pump)
    second = pump.attempt.attempt_id
    assert pay(pump, pump.lsp, buyer, 2 * PAID_MSAT).status == "paid"
    there = market.quote(30_000, attempt_id=second)
    quote = market.quote(20_000, attempt_id=first)
    order = ev.PurchaseRequested(
        attempt_id=first, quote_id=quote.quote_id, price_max_msat=quote.price_msat
    )
    pump.handle(buyer, order)
    pump.run_to(m.AdvanceDone)
    assert buyer.state.advances[first].is_signed
    held_back = list(pump.wire)
    pump.wire.clear()
    invoice = make_invoice(pump, buyer, PAID_MSAT)
    asked = ev.QuoteRequested(
        attempt_id=second, amount_sat=30_000, payment_hash=invoice.payment_hash
    )
    pump.handle(buyer, asked)
    pump.lsp_says(buyer, replace(there, quote_id=quote.quote_id))
    pump.handle(
        buyer,
        replace(order, attempt_id=second, price_max_msat=there.price_msat, beyond_coverage=True),
    )
    pump.wire.clear()
    pump.wire.extend(held_back)
    pump.run()
    (receipt,) = buyer.state.receipts[first]
    assert receipt.price_msat == quote.price_msat
    assert not buyer.state.skims
