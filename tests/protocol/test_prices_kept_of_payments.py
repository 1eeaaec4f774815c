"""A sale that a payment pays, and what comes between the two: nothing is sold twice, nothing taken.

The buyer's channel has no room for the payment, which waits at the LSP for the sale.
"""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.advances import remembered
from tests.protocol.markets import Market
from tests.protocol.paying_clients import (
    balance,
    book,
    make_invoice,
    newest_link,
    open_factory,
    pay,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.test_buying_from_payments import FULL_MSAT, PAID_MSAT
from tests.protocol.test_untaken_forwards import PlainNode

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol.advancing.buying import answer_to
from cromford.protocol.advancing.selling import QUOTE_BLOCKS
from cromford.protocol.exiting import lsp as exiting
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.factory import Factory
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

SOLD_SAT: Final = 50_000


@pytest.fixture
def market() -> Market:
    """Return a market whose buyer's channel is nearly full, and whose neighbour can pay."""
    return with_money_for_payments(Market(watches_folds=True))


def with_money_for_payments(market: Market) -> Market:
    for seat in (1, 2):
        paid = pay(market.pump, market.pump.lsp, market.pump.client_at(seat), FULL_MSAT)
        assert paid.preimage is not None
    return market


def payment_that_waits(market: Market, *, lacking_msat: int = 0) -> ev.PayRequested:
    """Let the neighbour pay what has no room, so that it waits at the LSP; return how it did."""
    request = make_invoice(market.pump, market.buyer, PAID_MSAT)
    request = replace(request, amount_msat=PAID_MSAT - lacking_msat)
    market.pump.handle(payer(market), request)
    market.pump.run()
    assert status(market, request.payment_hash) == "pending"
    assert len(market.pump.factory.book.held) == 1
    return request


def quote_for(market: Market, payment_hash: bytes, amount_sat: int = SOLD_SAT) -> m.Quote:
    return market.quote(amount_sat, payment_hash=payment_hash)


def order(market: Market, quote: m.Quote) -> None:
    """Let the buyer's operator buy; nothing is delivered yet."""
    market.pump.handle(market.buyer, ordering(market, quote))


def ordering(market: Market, quote: m.Quote) -> ev.PurchaseRequested:
    return ev.PurchaseRequested(
        attempt_id=market.attempt_id,
        quote_id=quote.quote_id,
        price_max_msat=quote.price_msat,
        beyond_coverage=True,
    )


def payer(market: Market) -> PumpNode:
    return market.pump.client_at(2)


def status(market: Market, payment_hash: bytes) -> str:
    return book(payer(market)).payments[payment_hash].status


def kept_msat(market: Market) -> list[int]:
    """Return what the LSP said that it kept of HTLCs it offered, each time."""
    told = market.pump.sent(market.pump.lsp, m.UpdateAddHtlc)
    return [one.price_msat for added in told for one in added.delivery.skimmed]


def give_back(market: Market) -> None:
    """Let so much time pass that what waits at the LSP goes back to its payer."""
    for node, deadline in market.pump.deadlines_of(fx.HoldDeadline):
        market.pump.pass_deadline(node, deadline)


def check_accounts(market: Market, payment_hash: bytes, quote: m.Quote) -> bool:
    """Check that a price is taken once, of the payment, and only for a sale; say whether it was.

    All that is sold is one growth, at most; and what was not paid took nothing.
    """
    sold = remembered(market.pump.lsp, ar.LiquiditySold)
    assert len(sold) <= 1
    assert len(market.leaf.states) == 1 + len(sold)
    is_paid = status(market, payment_hash) == "paid"
    assert is_paid is (book(market.buyer).invoices[payment_hash].status == "paid")
    assert balance(market.buyer).own_msat == FULL_MSAT + is_paid * (PAID_MSAT - quote.price_msat)
    if is_paid:
        assert [one.price_msat for one in sold] == [quote.price_msat]
        assert set(kept_msat(market)) == {quote.price_msat}
    assert not market.pump.factory.advances
    assert not market.buyer.state.advances
    assert not market.buyer.state.purchases
    assert not market.pump.factory.book.held
    return is_paid


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "step", [m.AdvanceAgree, m.AdvanceCommit, m.AdvanceSign, m.UpdateRebase, m.UpdateAddHtlc]
)
def test_a_restart_between_a_sale_and_its_payment_takes_a_price_for_the_sale_alone(
    market: Market, step: type[m.Message]
) -> None:
    """A sale that bound nobody is dropped; what is signed is done, and the payment waits for it."""
    waits = payment_that_waits(market)
    quote = quote_for(market, waits.payment_hash)
    order(market, quote)
    market.pump.run_to(step)
    assert any(isinstance(letter.message, step) for letter in market.pump.wire)
    market.pump.restart(market.pump.lsp)
    market.pump.run()
    market.pump.mine(2)
    is_paid = check_accounts(market, waits.payment_hash, quote)
    assert is_paid is (step is not m.AdvanceAgree)
    if not is_paid:
        assert status(market, waits.payment_hash) == "failed"
        assert not remembered(market.pump.lsp, ar.LiquiditySold)
        assert not kept_msat(market)


def test_a_payment_that_goes_back_before_the_sale_begins_pays_for_nothing(market: Market) -> None:
    waits = payment_that_waits(market)
    quote = quote_for(market, waits.payment_hash)
    give_back(market)
    market.pump.run()
    assert status(market, waits.payment_hash) == "failed"
    refused = market.buy_by(quote.quote_id, payment_hash=waits.payment_hash)
    assert refused is not None
    assert (refused.code, refused.quote_id) == ("payment_not_here", quote.quote_id)
    assert not remembered(market.pump.lsp, ar.AdvanceProposed)
    assert not check_accounts(market, waits.payment_hash, quote)


def test_a_payment_that_outlives_its_quote_pays_for_nothing(market: Market) -> None:
    waits = payment_that_waits(market)
    quote = quote_for(market, waits.payment_hash)
    for _ in range(QUOTE_BLOCKS + 1):
        market.pump.chain.mine()
    market.pump.sync()
    refused = market.buy_by(quote.quote_id, payment_hash=waits.payment_hash)
    assert refused is not None
    assert refused.code == "quote_expired"
    last, height = quote.valid_until_height, market.pump.chain.height
    assert refused.reason == f"height: expected at most {last}, received {height}"
    market.pump.pass_holds()
    assert not check_accounts(market, waits.payment_hash, quote)


def test_a_payment_that_goes_back_while_its_sale_is_made_is_charged_when_it_comes_again(
    market: Market,
) -> None:
    """The LSP bears the risk: what it sold stays sold, once, whoever pays when."""
    waits = payment_that_waits(market)
    quote = quote_for(market, waits.payment_hash)
    order(market, quote)
    market.pump.run_to(m.AdvanceDone)
    give_back(market)
    market.pump.run()
    assert status(market, waits.payment_hash) == "failed"
    assert len(remembered(market.pump.lsp, ar.LiquiditySold)) == 1
    assert balance(market.buyer).own_msat == FULL_MSAT
    assert not kept_msat(market)
    market.pump.restart(market.pump.lsp)
    market.pump.run()
    market.pump.handle(payer(market), waits)
    market.pump.run()
    assert status(market, waits.payment_hash) == "paid"
    assert check_accounts(market, waits.payment_hash, quote)
    assert kept_msat(market) == [quote.price_msat]


def test_a_payment_of_less_than_its_invoice_pays_for_nothing_and_nothing_is_kept_of_it(
    market: Market,
) -> None:
    """The buyer gives it back, as it would any such payment; a whole one pays for what was sold."""
    waits = payment_that_waits(market, lacking_msat=1)
    quote = quote_for(market, waits.payment_hash)
    order(market, quote)
    market.pump.run()
    market.pump.pass_holds()
    assert status(market, waits.payment_hash) == "failed"
    assert not check_accounts(market, waits.payment_hash, quote)
    assert balance(market.buyer).own_msat == FULL_MSAT
    market.pump.handle(payer(market), replace(waits, amount_msat=PAID_MSAT))
    market.pump.run()
    assert check_accounts(market, waits.payment_hash, quote)


def test_a_payment_that_no_price_was_agreed_for_is_delivered_whole_once_there_is_room(
    market: Market,
) -> None:
    """What was quoted out of it is over; another sale, paid from the balance, makes the room."""
    waits = payment_that_waits(market)
    over = quote_for(market, waits.payment_hash)
    quote = market.quote(SOLD_SAT)
    assert market.buy_by(over.quote_id, payment_hash=waits.payment_hash) is not None
    order(market, quote)
    market.pump.run()
    assert status(market, waits.payment_hash) == "paid"
    assert not kept_msat(market)
    assert balance(market.buyer).own_msat == FULL_MSAT + PAID_MSAT - quote.price_msat
    assert newest_link(market.buyer).state.capacity_sat == quote.capacity_sat


def test_what_is_bought_twice_out_of_one_payment_is_paid_twice(market: Market) -> None:
    """What was bought first was too little: the payment still waits, and pays for both."""
    waits = payment_that_waits(market)
    first = quote_for(market, waits.payment_hash, 10_000)
    order(market, first)
    market.pump.run()
    assert newest_link(market.buyer).state.capacity_sat == first.capacity_sat
    assert status(market, waits.payment_hash) == "pending"
    second = quote_for(market, waits.payment_hash)
    order(market, second)
    market.pump.run()
    assert newest_link(market.buyer).state.capacity_sat == second.capacity_sat
    assert status(market, waits.payment_hash) == "paid"
    price_msat = first.price_msat + second.price_msat
    assert kept_msat(market) == [price_msat]
    assert balance(market.buyer).own_msat == FULL_MSAT + PAID_MSAT - price_msat


@pytest.mark.parametrize("is_grown", [True, False], ids=["bought", "buying"])
def test_what_is_bought_in_one_factory_is_kept_of_a_payment_that_goes_on_in_another(
    market: Market,
    is_grown: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """It is too little there, and its payee makes room in its other channel."""
    pump, first = market.pump, market.attempt_id
    open_factory(pump)
    second = pump.attempt.attempt_id
    assert pay(pump, pump.lsp, market.buyer, FULL_MSAT).status == "paid"
    waits = make_invoice(pump, market.buyer, PAID_MSAT)
    pump.handle(payer(market), waits)
    pump.run()
    quote = quote_for(market, waits.payment_hash, 10_000)
    order(market, quote)
    if is_grown:
        pump.run()
    else:
        pump.run_to(m.AdvanceDone)
    held_back = list(pump.wire)
    pump.wire.clear()
    room = make_invoice(pump, payer(market), PAID_MSAT + FULL_MSAT // 10)
    pump.handle(market.buyer, replace(room, attempt_id=second))
    pump.run()
    assert book(market.buyer).payments[room.payment_hash].status == "paid"
    assert (status(market, waits.payment_hash) == "paid") is is_grown
    pump.wire.extend(held_back)
    pump.run()
    assert status(market, waits.payment_hash) == "paid"
    assert kept_msat(market) == [quote.price_msat]
    added = pump.sent(pump.lsp, m.UpdateAddHtlc)
    there = [one.channel_id for one in added if one.delivery.skimmed]
    assert [book(pump.lsp).links[one].attempt_id for one in there] == [second]
    assert second != first


def bought_in_one_of_two(market: Market) -> tuple[ev.PayRequested, m.Quote, bytes]:
    """Let a payment wait that comes through a second factory, and its payee buy in the first.

    Too little: it still waits. Returned with the quote and the attempt of the second.
    """
    pump = market.pump
    open_factory(pump)
    second = pump.attempt.attempt_id
    for node, money_msat in ((market.buyer, FULL_MSAT), (payer(market), FULL_MSAT // 2)):
        assert pay(pump, pump.lsp, node, money_msat).status == "paid"
    waits = make_invoice(pump, market.buyer, PAID_MSAT)
    pump.handle(payer(market), replace(waits, attempt_id=second))
    pump.run()
    quote = quote_for(market, waits.payment_hash, 10_000)
    order(market, quote)
    pump.run()
    assert status(market, waits.payment_hash) == "pending"
    return waits, quote, second


def make_room(market: Market, attempt_id: bytes, room_msat: int) -> None:
    """Let the buyer pay its neighbour so much that its newest channel has this room at least."""
    amount_msat = room_msat - balance(market.buyer).receivable_msat
    room = make_invoice(market.pump, payer(market), amount_msat)
    market.pump.handle(market.buyer, replace(room, attempt_id=attempt_id))
    market.pump.run()
    assert book(market.buyer).payments[room.payment_hash].status == "paid"


@pytest.mark.parametrize("lacking_msat", [0, 100_000])
def test_a_payment_has_room_where_what_is_bought_elsewhere_makes_it_small_enough(
    market: Market, lacking_msat: int
) -> None:
    waits, quote, second = bought_in_one_of_two(market)
    make_room(market, second, PAID_MSAT - quote.price_msat - lacking_msat)
    is_paid = status(market, waits.payment_hash) == "paid"
    assert is_paid is (lacking_msat == 0)
    assert kept_msat(market) == [quote.price_msat] * is_paid


def test_what_is_bought_in_a_factory_that_a_bug_stops_is_kept_of_a_payment_in_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it remembers holds: its client has what it bought, and pays for it."""
    monkeypatch.setattr(Pump, "lsp_kind", PlainNode)
    market = with_money_for_payments(Market())
    waits, quote, second = bought_in_one_of_two(market)
    begin, first = exiting.on_block, market.pump.lsp.state.factory(0).stream

    def on_block(turn: Turn[Factory]) -> None:
        assert turn.stream != first, "a bug"
        begin(turn)

    monkeypatch.setattr(exiting, "on_block", on_block)
    market.pump.may_stop = True
    market.pump.mine()
    assert list(market.pump.lsp.state.stopped) == [first]
    assert status(market, waits.payment_hash) == "failed"
    make_room(market, second, PAID_MSAT)
    market.pump.handle(payer(market), replace(waits, attempt_id=second))
    market.pump.run()
    assert status(market, waits.payment_hash) == "paid"
    assert kept_msat(market) == [quote.price_msat]


def test_a_payment_may_pay_for_a_purchase_with_all_but_a_millisatoshi(market: Market) -> None:
    waits = payment_that_waits(market)
    market.set_price(base_msat=PAID_MSAT - 1, per_million=0, per_month=0)
    order(market, quote_for(market, waits.payment_hash))
    market.pump.run()
    assert status(market, waits.payment_hash) == "paid"
    assert kept_msat(market) == [PAID_MSAT - 1]


def test_a_client_buys_no_more_out_of_a_payment_than_what_it_bought_before_leaves(
    market: Market,
) -> None:
    waits = payment_that_waits(market)
    market.set_price(base_msat=1_000_000, per_million=0, per_month=0)
    order(market, quote_for(market, waits.payment_hash, 10_000))
    market.pump.run()

    def dearer(_from: PumpNode, _to: PumpNode, message: m.Message) -> tuple[m.Message, ...]:
        if isinstance(message, m.Quote):
            message = replace(message, price_msat=PAID_MSAT - 1_000_000)
        return (message,)

    asked = ev.QuoteRequested(
        attempt_id=market.attempt_id, amount_sat=SOLD_SAT, payment_hash=waits.payment_hash
    )
    market.pump.handle(market.buyer, asked)
    with market.pump.tampering(dearer):
        market.pump.run()
    quote = answer_to(market.buyer.state.quotes[market.attempt_id])
    assert isinstance(quote, m.Quote)
    driver = market.buyer.driver
    assert driver is not None
    with pytest.raises(Rejected, match=r"the payment's 39,000 sat, received 39,000 sat"):
        driver.foresee(ordering(market, quote))


def test_a_payment_pays_for_no_more_than_it_brings_however_much_is_bought_out_of_it(
    market: Market,
) -> None:
    waits = payment_that_waits(market)
    market.set_price(base_msat=PAID_MSAT // 2, per_million=0, per_month=0)
    first = quote_for(market, waits.payment_hash, 10_000)
    order(market, first)
    market.pump.run()
    refused = market.refusal(SOLD_SAT, payment_hash=waits.payment_hash)
    assert (refused.code, refused.missing_msat) == ("insufficient_balance", 1)
    market.set_price(base_msat=PAID_MSAT // 2 - 1)
    order(market, quote_for(market, waits.payment_hash))
    market.pump.run()
    assert status(market, waits.payment_hash) == "paid"
    assert kept_msat(market) == [PAID_MSAT - 1]
