"""What a client asks for, what it believes of a quote, and what becomes of what it buys."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.markets import Market
from tests.protocol.paying_clients import balance, newest_link, pay
from tests.protocol.pump import PumpNode, Tamper

from cromford.daemon.views.market import show_quote
from cromford.factory.allocation import Purchase
from cromford.protocol import events as ev
from cromford.protocol.advancing.buying import (
    NOT_BEGUN_BLOCKS,
    QUOTE_WAIT_BLOCKS,
    WRONG_QUOTE,
    answer_to,
    most_owned_sat,
)
from cromford.protocol.advancing.selling import QUOTE_BLOCKS
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal.client_state import ClientState
from cromford.wire import messages as m


@pytest.fixture
def market() -> Market:
    return Market().with_money()


def state_of(market: Market) -> ClientState:
    found: ClientState = market.buyer.state
    return found


def heard(market: Market) -> m.Quote | m.QuoteRefused | None:
    """Return what the buyer believes that it was answered."""
    return answer_to(state_of(market).quotes[market.attempt_id])


def order(market: Market, quote: m.Quote, **asked: Any) -> ev.PurchaseRequested:
    asked = {"price_max_msat": quote.price_msat, **asked}
    return ev.PurchaseRequested(attempt_id=market.attempt_id, quote_id=quote.quote_id, **asked)


def buy(market: Market, quote: m.Quote, **asked: Any) -> None:
    """Let the buyer's operator buy; nothing is delivered yet."""
    market.pump.handle(market.buyer, order(market, quote, **asked))


def rejection(market: Market, event: ev.Event) -> Rejected:
    """Return why the buyer's operator may not do something."""
    driver = market.buyer.driver
    assert driver is not None
    driver.facts = market.buyer.facts
    with pytest.raises(Rejected) as caught:
        driver.foresee(event)
    return caught.value


def ended(market: Market) -> list[tuple[bytes, str]]:
    records = market.buyer.store.remembered
    return [(one.quote_id, one.reason) for one in records if isinstance(one, ar.PurchaseEnded)]


def refusal_of(market: Market, quote: m.Quote) -> m.QuoteRefused:
    return m.QuoteRefused(
        attempt_id=market.attempt_id,
        quote_id=quote.quote_id,
        code="not_for_sale",
        reason="not any more",
        missing_msat=0,
        next_factory=0,
    )


def lying(**lies: Any) -> Tamper:
    def tamper(_from: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        return (replace(message, **lies) if isinstance(message, m.Quote) else message,)

    return tamper


def silent(kind: type[m.Message]) -> Tamper:
    def tamper(_from: PumpNode, _to: PumpNode, message: m.Message) -> Sequence[m.Message]:
        return () if isinstance(message, kind) else (message,)

    return tamper


def test_a_quote_is_what_a_client_computes_of_its_own_leaf(market: Market) -> None:
    quote = market.quote(20_000)
    assert heard(market) == quote
    held = market.pump.held(market.buyer)
    after = held.leaf.sold(Purchase(buyer=1, amount_sat=20_000))
    assert quote.capacity_sat == after.allocation.capacities_sat[0]


@pytest.mark.parametrize("field", ["amount_sat", "state_index", "capacity_sat", "sales_left"])
def test_a_quote_that_is_not_so_is_no_quote(market: Market, field: str) -> None:
    quote = market.quote(20_000)
    received = getattr(quote, field) + 1
    with market.pump.tampering(lying(**{field: received})):
        ask = ev.QuoteRequested(attempt_id=market.attempt_id, amount_sat=20_000)
        market.pump.handle(market.buyer, ask)
        market.pump.run()
    answer = heard(market)
    assert isinstance(answer, m.QuoteRefused)
    assert answer.code == WRONG_QUOTE
    assert str(received) in answer.reason or str(received + quote.amount_sat) in answer.reason
    assert rejection(market, order(market, quote)).code == "quote_unknown"


def test_a_quote_that_nobody_asked_for_is_no_record(market: Market) -> None:
    quote = market.quote()
    n = len(market.buyer.store.entries)
    market.pump.lsp_says(market.buyer, quote)
    market.pump.lsp_says(market.buyer, replace(quote, attempt_id=b"\x03" * 32))
    assert len(market.buyer.store.entries) == n


def test_of_two_questions_the_later_answer_counts(market: Market) -> None:
    for amount_sat in (20_000, 30_000):
        asked = ev.QuoteRequested(attempt_id=market.attempt_id, amount_sat=amount_sat)
        market.pump.handle(market.buyer, asked)
    market.pump.run()
    answer = heard(market)
    assert isinstance(answer, m.Quote)
    assert answer.amount_sat == 30_000


def test_a_client_that_says_what_only_an_lsp_says_is_parted_from(market: Market) -> None:
    said = m.QuoteRequest(attempt_id=market.attempt_id, amount_sat=1, payment_hash=b"")
    market.pump.lsp_says(market.buyer, said)
    market.pump.run()
    assert not state_of(market).is_connected


def test_what_is_bought_is_durable_before_the_lsp_hears_of_it(market: Market) -> None:
    quote = market.quote(20_000)
    buy(market, quote)
    (record,) = (r for r in market.buyer.store.remembered if isinstance(r, ar.PurchaseOrdered))
    assert (record.amount_sat, record.capacity_sat, record.price_msat) == (
        20_000,
        quote.capacity_sat,
        quote.price_msat,
    )
    assert [one.quote_id for one in market.pump.sent(market.buyer, m.Buy)] == [quote.quote_id]
    assert set(state_of(market).purchases) == {quote.quote_id}
    assert rejection(market, order(market, quote)).code == "purchase_under_way"


def test_nothing_is_bought_above_the_highest_price(market: Market) -> None:
    quote = market.quote()
    why = rejection(market, order(market, quote, price_max_msat=quote.price_msat - 1))
    assert why.code == "price_too_high"
    assert f"received {quote.price_msat:,} msat" in str(why)


def test_nothing_is_bought_by_an_old_quote(market: Market) -> None:
    old = market.quote()
    market.quote()
    assert rejection(market, order(market, old)).code == "quote_unknown"
    quote = market.quote()
    market.pump.mine(QUOTE_BLOCKS)
    assert state_of(market).chain.height == quote.valid_until_height
    market.pump.mine(1)
    assert rejection(market, order(market, quote)).code == "quote_expired"


def test_nothing_is_bought_by_a_stale_chain_or_without_the_lsp(market: Market) -> None:
    quote = market.quote()
    market.buyer.facts_at = lambda _own_height: replace(FRESH, stale="no block for hours")
    assert rejection(market, order(market, quote)).code == "chain_stale"
    market.buyer.facts_at = lambda _own_height: FRESH
    market.pump.disconnect(market.buyer)
    why = rejection(market, order(market, quote))
    assert (why.code, why.retryable) == ("lsp_unreachable", True)


def test_a_factory_without_a_channel_of_ours_sells_nothing(market: Market) -> None:
    asked = ev.QuoteRequested(attempt_id=b"\x05" * 32, amount_sat=1)
    assert rejection(market, asked).code == "no_channel"
    asked = ev.QuoteRequested(attempt_id=market.attempt_id, amount_sat=-1)
    assert rejection(market, asked).code == "invalid_amount"


def test_beyond_what_poisons_cover_nothing_is_bought_unless_that_is_said() -> None:
    """A second buyer of a leaf is covered for less: the first one's growth goes before it."""
    market = Market().with_money()
    market.advance(60_000, buyer=2)
    quote = market.quote(30_000)
    link = newest_link(market.buyer)
    assert quote.covered_sat < most_owned_sat(link, quote.capacity_sat)
    why = rejection(market, order(market, quote))
    assert why.code == "not_covered"
    assert f"received {quote.covered_sat}" in str(why)
    buy(market, quote, beyond_coverage=True)
    assert set(state_of(market).purchases) == {quote.quote_id}


def test_a_refusal_ends_a_purchase_and_its_operator_hears_why(market: Market) -> None:
    quote = market.quote()
    market.pump.disconnect(market.pump.client_at(2))
    buy(market, quote)
    market.pump.run()
    ((quote_id, reason),) = ended(market)
    assert quote_id == quote.quote_id
    assert reason.startswith("client_away: ")
    assert not state_of(market).purchases
    newest = state_of(market).purchase_ended
    assert newest is not None
    assert (newest.quote_id, newest.reason) == (quote_id, reason)


@pytest.mark.parametrize("how", ["disconnect", "restart"])
def test_with_the_connection_ends_a_purchase_of_which_nothing_is_signed(
    market: Market, how: str
) -> None:
    quote = market.quote()
    with market.pump.tampering(silent(m.Buy)):
        buy(market, quote)
        market.pump.run()
    getattr(market.pump, how)(market.buyer)
    market.pump.run()
    ((quote_id, reason),) = ended(market)
    assert (quote_id, reason) == (
        quote.quote_id,
        "the connection ended before anything was signed",
    )
    assert not state_of(market).purchases
    assert not state_of(market).quotes


def test_an_lsp_that_does_not_begin_ends_a_purchase_by_its_quotes_height(market: Market) -> None:
    quote = market.quote()
    with market.pump.tampering(silent(m.Buy)):
        buy(market, quote)
        market.pump.run()
    market.pump.mine(QUOTE_BLOCKS + 1)
    assert not ended(market)
    market.pump.mine(1)
    assert ended(market) == [(quote.quote_id, f"not begun by height {quote.valid_until_height}")]


def test_an_lsp_that_names_a_far_height_does_not_keep_a_purchase_waiting_for_it(
    market: Market,
) -> None:
    """How long a client waits is its own to say: nothing is bought months after it was wanted."""
    far = 1 << 40
    with market.pump.tampering(lying(valid_until_height=far)):
        ask = ev.QuoteRequested(attempt_id=market.attempt_id, amount_sat=20_000)
        market.pump.handle(market.buyer, ask)
        market.pump.run()
    quote = heard(market)
    assert isinstance(quote, m.Quote)
    assert quote.valid_until_height == far
    with market.pump.tampering(silent(m.Buy)):
        buy(market, quote)
        market.pump.run()
    height = market.pump.chain.height
    market.pump.mine(QUOTE_WAIT_BLOCKS + NOT_BEGUN_BLOCKS)
    assert not ended(market)
    market.pump.mine(1)
    assert ended(market) == [(quote.quote_id, f"not begun by height {height + QUOTE_WAIT_BLOCKS}")]


def test_a_client_buys_and_everybody_writes_it_down() -> None:
    """The channel grows, the price is the LSP's; the neighbour notices nothing in its money."""
    market = Market(watches_folds=True).with_money()
    neighbour = market.pump.client_at(2)
    before, beside = balance(market.buyer), balance(neighbour)
    quote = market.quote(20_000)
    buy(market, quote)
    market.pump.run()
    after = balance(market.buyer)
    assert newest_link(market.buyer).state.capacity_sat == quote.capacity_sat
    assert after.own_msat == before.own_msat - quote.price_msat
    assert after.peer_msat == before.peer_msat + 20_000_000 + quote.price_msat
    assert after.receivable_msat > before.receivable_msat + 15_000_000
    assert balance(neighbour) == beside
    state = state_of(market)
    assert not state.purchases
    assert state.purchase_ended is not None
    assert (state.purchase_ended.quote_id, state.purchase_ended.reason) == (quote.quote_id, "")
    (receipt,) = state.receipts[market.attempt_id]
    assert (receipt.amount_sat, receipt.capacity_sat, receipt.price_msat) == (
        20_000,
        quote.capacity_sat,
        quote.price_msat,
    )
    house = market.pump.lsp.state.house
    entry = house.entries[market.attempt_id]
    (sold,) = entry.sold
    assert (sold.client, sold.amount_sat, sold.price_msat) == (1, 20_000, quote.price_msat)
    assert entry.capacity_sat == (quote.capacity_sat, newest_link(neighbour).state.capacity_sat)
    assert (house.market.n_sold, house.market.sold_sat) == (1, 20_000)
    assert house.market.earned_msat == quote.price_msat
    assert house.lent_sat() == entry.lent_sat == sum(entry.capacity_sat)


def test_one_after_another_buys_until_the_next_factory_is_offered() -> None:
    market = Market().with_money(60_000_000)
    for sales_left in (2, 1, 0):
        quote = market.quote(20_000)
        assert quote.sales_left == sales_left
        buy(market, quote, beyond_coverage=True)
        market.pump.run()
        assert newest_link(market.buyer).state.capacity_sat == quote.capacity_sat
    assert len(state_of(market).receipts[market.attempt_id]) == 3
    assert market.pump.lsp.state.house.market.n_sold == 3
    refused = market.refusal(20_000)
    assert (refused.code, refused.next_factory) == ("no_sales_left", 1)


def test_what_is_bought_can_be_received_with_and_paid_on(market: Market) -> None:
    quote = market.quote(50_000)
    buy(market, quote)
    market.pump.run()
    received_msat = balance(market.buyer).receivable_msat
    assert pay(market.pump, market.pump.lsp, market.buyer, received_msat).preimage is not None
    sent = balance(market.buyer).spendable_msat // 2
    paid = pay(market.pump, market.buyer, market.pump.client_at(2), sent)
    assert paid.preimage is not None


def test_a_purchase_that_is_signed_outlives_connections_and_both_processes() -> None:
    market = Market(watches_folds=True).with_money()
    quote = market.quote(20_000)
    with market.pump.tampering(silent(m.AdvanceDone)):
        buy(market, quote)
        market.pump.run()
    assert set(state_of(market).purchases) == {quote.quote_id}
    market.pump.restart(market.buyer)
    market.pump.restart(market.pump.lsp)
    market.pump.run()
    assert not state_of(market).purchases
    assert newest_link(market.buyer).state.capacity_sat == quote.capacity_sat
    assert ended(market) == [(quote.quote_id, "")]


def test_of_an_advance_that_a_neighbour_refuses_the_buyer_hears_why(market: Market) -> None:
    """The neighbour's chain is stale: nobody is at fault, and nothing was paid."""
    quote, before = market.quote(20_000), balance(market.buyer)
    neighbour = market.pump.client_at(2)
    neighbour.facts_at = lambda _own_height: replace(FRESH, stale="no block for hours")
    buy(market, quote)
    market.pump.run()
    ((quote_id, reason),) = ended(market)
    assert quote_id == quote.quote_id
    assert "refused" in reason
    assert balance(market.buyer) == before
    neighbour.facts_at = lambda _own_height: FRESH
    again = market.quote(20_000)
    buy(market, again)
    market.pump.run()
    assert newest_link(market.buyer).state.capacity_sat == quote.capacity_sat


@pytest.mark.parametrize("before", [m.AdvanceAgree, m.AdvanceCommit])
def test_nothing_is_paid_for_what_the_lsp_refused_meanwhile(
    market: Market, before: type[m.Message]
) -> None:
    """An LSP that refuses, and goes on all the same: the operator was told that nothing came."""
    quote, money = market.quote(20_000), balance(market.buyer)
    capacity_sat = newest_link(market.buyer).state.capacity_sat
    buy(market, quote)
    market.pump.run_to(before)
    market.pump.lsp_says(market.buyer, refusal_of(market, quote))
    assert ended(market) == [(quote.quote_id, "not_for_sale: not any more")]
    market.pump.run()
    assert balance(market.buyer) == money
    assert newest_link(market.buyer).state.capacity_sat == capacity_sat
    assert not state_of(market).advances


def test_how_long_a_purchase_is_of_use_is_what_a_client_knows_itself(market: Market) -> None:
    """An LSP that promises more sells what nobody can use."""
    quote = market.quote(20_000)
    with market.pump.tampering(lying(usable_blocks=quote.usable_blocks + 1_000)):
        ask = ev.QuoteRequested(attempt_id=market.attempt_id, amount_sat=20_000)
        market.pump.handle(market.buyer, ask)
        market.pump.run()
    state, answer = state_of(market), heard(market)
    assert isinstance(answer, m.Quote)
    shown = show_quote(state, answer, state.quotes[market.attempt_id])
    assert shown["usable_blocks"] == quote.usable_blocks


@pytest.mark.parametrize("before", [m.AdvanceAgree, m.AdvanceCommit])
def test_what_is_bought_later_under_a_name_of_before_is_not_paid_as_before(
    market: Market, before: type[m.Message]
) -> None:
    """An LSP names its quotes itself: the price of one is not that of the other."""
    dear, money_msat = market.quote(20_000), balance(market.buyer).own_msat
    buy(market, dear)
    market.pump.run_to(before)
    held_back = list(market.pump.wire)
    market.pump.wire.clear()
    market.pump.lsp_says(market.buyer, refusal_of(market, dear))
    ask = ev.QuoteRequested(attempt_id=market.attempt_id, amount_sat=20_000)
    market.pump.handle(market.buyer, ask)
    cheap = replace(dear, price_msat=dear.price_msat // 2)
    market.pump.lsp_says(market.buyer, cheap)
    buy(market, cheap)
    market.pump.wire.clear()
    market.pump.wire.extend(held_back)
    market.pump.run()
    assert money_msat - balance(market.buyer).own_msat in {0, cheap.price_msat}
    assert not state_of(market).advances


def test_a_purchase_whose_channel_failed_is_not_under_way(market: Market) -> None:
    """We agreed, and would not sign any more, whatever the LSP says of it."""
    quote = market.quote(20_000)
    buy(market, quote)
    market.pump.run_to(m.AdvanceCommit)
    market.pump.wire.clear()
    channel_id = newest_link(market.buyer).channel_id
    market.pump.lsp_says(market.buyer, m.ChannelFailure(channel_id=channel_id, reason="no"))
    assert set(state_of(market).purchases) == {quote.quote_id}
    market.pump.chain.mine()
    market.pump.sync()
    assert ended(market) == [(quote.quote_id, "the channel failed: the peer: no")]


def test_what_was_agreed_to_for_one_purchase_is_not_signed_for_the_next(market: Market) -> None:
    """Under one name, at one price: or the second would be signed that nobody agreed to.

    With its connection that one would end, as its operator is told, and be paid all the same.
    """
    quote, money = market.quote(20_000), balance(market.buyer)
    buy(market, quote)
    market.pump.run_to(m.AdvanceCommit)
    held_back = list(market.pump.wire)
    market.pump.wire.clear()
    market.pump.lsp_says(market.buyer, refusal_of(market, quote))
    assert not state_of(market).advances, "nothing is kept quiet for what is over"
    ask = ev.QuoteRequested(attempt_id=market.attempt_id, amount_sat=20_000)
    market.pump.handle(market.buyer, ask)
    market.pump.lsp_says(market.buyer, quote)
    buy(market, quote)
    market.pump.wire.clear()
    market.pump.wire.extend(held_back)
    market.pump.run_to(m.AdvanceDone)
    market.pump.disconnect(market.buyer)
    assert [reason for _, reason in ended(market)] == [
        "not_for_sale: not any more",
        "the connection ended before anything was signed",
    ]
    market.pump.connect(market.buyer)
    market.pump.run()
    assert balance(market.buyer) == money
