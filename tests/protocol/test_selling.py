"""What an LSP tells a client that asks for inbound liquidity, and why it sells none."""

from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.markets import Market
from tests.protocol.paying_clients import balance, lsp_link, make_invoice, newest_link, pay

from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.allocation import Purchase, lstock_sat_min
from cromford.factory.leaf import usable_blocks
from cromford.protocol import events as ev
from cromford.protocol.advancing.pricing import price_msat
from cromford.protocol.advancing.selling import QUOTE_BLOCKS, QUOTES_PER_BLOCK
from cromford.protocol.channels.coverage import covered_after
from cromford.protocol.facts import FRESH
from cromford.protocol.faults import Rejected
from cromford.protocol.policy import SalePrice
from cromford.wire import messages as m

FREE = SalePrice(base_msat=0, per_million=0, per_month=0)


@pytest.fixture
def market() -> Market:
    return Market().with_money()


def test_a_quote_says_what_is_bought_for_what_and_for_how_long(market: Market) -> None:
    quote, leaf, link = market.quote(20_000), market.leaf, newest_link(market.buyer)
    terms, height = market.pump.attempt.terms, market.pump.lsp.state.scan.recent[-1].height
    usable = usable_blocks_of(market)
    assert (quote.amount_sat, quote.state_index) == (20_000, 1)
    assert quote.capacity_sat == link.state.capacity_sat + 20_000
    assert quote.price_msat == price_msat(SalePrice(), amount_sat=20_000, usable_blocks=usable)
    assert (quote.usable_blocks, quote.valid_until_height) == (usable, height + QUOTE_BLOCKS)
    assert [(one.client, one.is_online) for one in quote.needed] == [(1, 1), (2, 1)]
    assert quote.sales_left == terms.states_per_layer - 2 == 2
    purchase = Purchase(buyer=1, amount_sat=20_000)
    assert quote.covered_sat == covered_after(lsp_link(market.pump, link), leaf, purchase)


def usable_blocks_of(market: Market) -> int:
    link, terms = newest_link(market.buyer), market.pump.attempt.terms
    return usable_blocks(
        height=market.pump.lsp.state.scan.recent[-1].height,
        exit_deadline_height=link.exit_deadline_height,
        patience_blocks=terms.patience_blocks,
    )


def test_of_all_that_is_left_the_saved_fee_is_a_gift(market: Market) -> None:
    quote, allocation = market.quote(0), market.leaf.allocation
    saved_sat = quote.capacity_sat - quote.amount_sat - allocation.capacities_sat[0]
    assert quote.amount_sat == allocation.lstock_sat
    assert saved_sat == market.pump.attempt.terms.fee_sat(n_p2tr_outputs=1) - (
        market.pump.attempt.terms.fee_sat(n_p2tr_outputs=0)
    )
    assert (quote.sales_left, market.quote(allocation.lstock_sat).capacity_sat) == (
        0,
        quote.capacity_sat,
    )


def test_a_price_is_the_sum_of_three_rounded_up() -> None:
    price = SalePrice(base_msat=7, per_million=1, per_month=2)
    assert price_msat(price, amount_sat=1_000, usable_blocks=0) == 7 + 1
    assert price_msat(price, amount_sat=1_000, usable_blocks=4_320) == 7 + 3
    assert price_msat(price, amount_sat=1_000, usable_blocks=4_321) == 7 + 4
    assert price_msat(price, amount_sat=0, usable_blocks=4_321) == 7
    assert price_msat(FREE, amount_sat=1_000_000, usable_blocks=52_560) == 0


def test_a_price_that_was_set_holds_everywhere_and_after_a_restart(market: Market) -> None:
    price = market.set_price(base_msat=1_000, per_million=50_000, per_month=0)
    assert market.quote().price_msat == 1_000 + 1_000_000
    market.pump.restart(market.pump.lsp)
    market.pump.run()
    assert market.pump.lsp.state.house.sale_price() == price
    assert market.quote().price_msat == 1_001_000


def test_the_same_price_is_no_record(market: Market) -> None:
    n = len(market.pump.lsp.store.entries)
    market.set_price()
    assert len(market.pump.lsp.store.entries) == n
    market.set_price(min_sat=1)
    assert len(market.pump.lsp.store.entries) == n + 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("base_msat", -1), ("per_million", 1_000_001), ("per_month", -5), ("min_sat", 0)],
)
def test_a_price_that_nobody_can_mean_is_refused(market: Market, field: str, value: Any) -> None:
    driver = market.pump.lsp.driver
    assert driver is not None
    asked = ev.PriceRequested(price=replace(SalePrice(), **{field: value}))
    with pytest.raises(Rejected, match=f"{field}: expected .*, received {value}"):
        driver.foresee(asked)


def test_asking_costs_the_lsp_no_record(market: Market) -> None:
    n = len(market.pump.lsp.store.entries)
    market.quote()
    market.refusal(1)
    assert len(market.pump.lsp.store.entries) == n


def test_who_asks_too_often_is_told_so_until_the_next_block(market: Market) -> None:
    for _ in range(QUOTES_PER_BLOCK):
        market.quote()
    assert market.refusal().code == "too_many_requests"
    market.pump.mine(1)
    assert market.quote().quote_id


def test_no_two_quotes_of_a_run_are_called_the_same(market: Market) -> None:
    ids = [market.quote(amount_sat).quote_id for amount_sat in (20_000, 20_000, 0)]
    assert len(set(ids)) == 3
    refused = market.buy_by(ids[0])
    assert refused is not None
    assert refused.code == "quote_unknown"


def test_what_is_missing_for_the_price_is_named() -> None:
    market = Market().with_money(300_000)
    refused = market.refusal()
    market.set_price(per_month=0)
    price = market.quote().price_msat
    assert (refused.code, price) == ("insufficient_balance", 140_000)
    usable = usable_blocks_of(market)
    asked = price_msat(SalePrice(), amount_sat=20_000, usable_blocks=usable)
    assert refused.missing_msat == asked - 300_000
    assert f"received {asked:,} msat" in refused.reason


def test_too_little_is_not_sold_unless_it_is_all(market: Market) -> None:
    refused = market.refusal(9_999)
    assert (refused.code, refused.next_factory) == ("amount_too_small", 0)
    assert "expected at least 10000" in refused.reason
    market.set_price(min_sat=1_000_000)
    assert market.refusal(20_000).code == "amount_too_small"
    assert market.quote(0).amount_sat == market.leaf.allocation.lstock_sat


def test_more_than_there_is_is_refused_with_what_there_is(market: Market) -> None:
    lstock_sat = market.leaf.allocation.lstock_sat
    least_sat = lstock_sat_min(market.pump.attempt.terms, n_clients=2)
    for amount_sat in (lstock_sat + 1, lstock_sat - 1):
        refused = market.refusal(amount_sat)
        assert refused.code == "no_stock"
        expected = f"1..{lstock_sat - least_sat}, or all {lstock_sat}"
        assert refused.reason == f"amount_sat: expected {expected}, received {amount_sat}"


def test_nothing_is_sold_while_the_operator_says_so(market: Market) -> None:
    market.set_price(is_for_sale=False)
    assert market.refusal().code == "not_for_sale"
    market.set_price(is_for_sale=True)
    assert market.quote().sales_left == 2


def test_after_the_last_sale_the_next_factory_is_offered(market: Market) -> None:
    """Four states make three sales, the first of 20,000 sat; the quote of the last says so."""
    for sales_left in (2, 1, 0):
        assert market.quote().sales_left == sales_left
        market.advance(20_000)
    refused = market.refusal()
    assert (refused.code, refused.next_factory) == ("no_sales_left", 1)
    assert refused.reason.startswith("all 3 sales are made")


def test_a_stock_that_is_used_up_ends_sales_before_the_last_state(market: Market) -> None:
    market.advance(0)
    refused = market.refusal()
    assert (refused.code, refused.next_factory) == ("no_sales_left", 1)
    assert refused.reason.startswith("the stock is used up")


def test_it_is_too_late_when_less_than_the_patience_is_left(market: Market) -> None:
    link, terms = newest_link(market.buyer), market.pump.attempt.terms
    last = link.exit_deadline_height - terms.patience_blocks - 1
    quote = market.at_height(last).quote()
    assert quote.usable_blocks == terms.patience_blocks + 1
    refused = market.at_height(last + 1).refusal()
    assert (refused.code, refused.next_factory) == ("too_late", 1)
    assert f"expected at most {last}, received {last + 1}" in refused.reason


def test_nothing_is_quoted_by_a_stale_chain(market: Market) -> None:
    market.pump.lsp.facts_at = lambda _own_height: replace(FRESH, stale="no block for hours")
    assert market.refusal().code == "stale"


def test_while_an_advance_is_under_way_nothing_else_is_sold_of_the_leaf(market: Market) -> None:
    quote = market.quote()
    market.lost = (m.AdvanceAgree, m.AdvanceAbort)  # It is asked, and nobody answers.
    assert market.buy_by(quote.quote_id) is None
    assert market.refusal().code == "leaf_busy"


def test_a_neighbour_that_would_own_more_than_is_covered_is_not_asked() -> None:
    """It would not agree; how much it owns is nobody's business."""
    market = Market().with_money()
    neighbour, lsp = market.pump.client_at(2), market.pump.lsp
    # As many HTLCs at once as make the LSP's penalty dearer than its reserve.
    for _ in range(12):
        market.pump.handle(lsp, make_invoice(market.pump, neighbour, 1_200_000))
    market.pump.run()
    lstock_sat = market.leaf.allocation.lstock_sat
    sold = Purchase(buyer=1, amount_sat=lstock_sat)
    covered_msat = covered_after(newest_link(neighbour), market.leaf, sold) * MSAT_PER_SAT
    owned_msat = balance(neighbour).own_msat
    assert owned_msat == 12 * 1_200_000 < covered_msat
    assert pay(market.pump, lsp, neighbour, covered_msat - owned_msat).preimage is not None
    assert market.quote(0).amount_sat == lstock_sat
    assert pay(market.pump, lsp, neighbour, 1_000).preimage is not None
    refused = market.buy_by(market.quote(0).quote_id)  # A quote is free, and says nothing of it.
    assert refused is not None
    assert refused.code == "not_covered"
    assert not any(digit in refused.reason for digit in "0123456789")


def test_a_quote_says_who_is_away_and_nothing_is_sold_until_all_are_back(market: Market) -> None:
    market.pump.disconnect(market.pump.client_at(2))
    quote = market.quote()
    assert [(one.client, one.is_online) for one in quote.needed] == [(1, 1), (2, 0)]
    refused = market.buy_by(quote.quote_id)
    assert refused is not None
    assert (refused.code, refused.quote_id) == ("client_away", quote.quote_id)
    assert refused.reason.endswith("away: client 2")


def test_a_quote_is_bought_by_for_a_few_blocks_and_for_one_state(market: Market) -> None:
    quote = market.quote()
    market.pump.mine(QUOTE_BLOCKS)
    still = market.buy_by(quote.quote_id)
    assert still is None or still.code not in {"quote_expired", "quote_unknown"}
    quote = market.quote()
    market.pump.mine(QUOTE_BLOCKS + 1)
    late = market.buy_by(quote.quote_id)
    assert late is not None
    assert late.code == "quote_expired"


def test_after_another_sale_a_quote_is_void(market: Market) -> None:
    quote = market.quote()
    market.advance(20_000, buyer=2)
    refused = market.buy_by(quote.quote_id)
    assert refused is not None
    assert (refused.code, refused.reason) == (
        "quote_expired",
        "state_index: expected 2, received 1",
    )


def test_a_quote_is_bought_by_with_the_payment_that_it_was_given_for(market: Market) -> None:
    quote = market.quote()
    refused = market.buy_by(quote.quote_id, payment_hash=b"\x07" * 32)
    assert refused is not None
    assert (refused.code, refused.quote_id) == ("quote_unknown", quote.quote_id)


def test_a_quote_is_of_one_run(market: Market) -> None:
    quote = market.quote()
    market.pump.restart(market.pump.lsp)
    market.pump.run()
    refused = market.buy_by(quote.quote_id)
    assert refused is not None
    assert refused.code == "quote_unknown"


def test_whoever_has_no_seat_in_a_factory_hears_nothing(market: Market) -> None:
    market.said.clear()
    asked = m.QuoteRequest(attempt_id=b"\x09" * 32, amount_sat=20_000, payment_hash=b"")
    market.pump.tell(market.pump.lsp, market.buyer, asked)
    market.pump.run()
    assert not market.said
