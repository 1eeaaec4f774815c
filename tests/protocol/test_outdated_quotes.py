"""Quotes that went out of date between offer and acceptance, and what nothing is left of."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.advances import check_nothing_is_left, n_pools, remembered
from tests.protocol.markets import MONEY_MSAT, Market
from tests.protocol.paying_clients import balance, pay

from cromford.protocol import events as ev
from cromford.protocol.advancing.selling import QUOTE_BLOCKS
from cromford.protocol.facts import FRESH
from cromford.protocol.journal import advance_records as ar
from cromford.told import msat

AMOUNT_SAT: Final = 20_000


@pytest.fixture
def market() -> Market:
    return Market(watches_folds=True).with_money()


def blocks_pass(market: Market) -> str:
    for _ in range(QUOTE_BLOCKS + 1):
        market.pump.chain.mine()
    market.pump.sync()
    height = market.pump.chain.height
    return f"quote_expired: height: expected at most {height - 1}, received {height}"


def headers_pass(market: Market) -> str:
    """The LSP heard of blocks that it has not read."""
    height = market.pump.chain.height
    market.at_height(height + QUOTE_BLOCKS + 1)
    last, now = height + QUOTE_BLOCKS, height + QUOTE_BLOCKS + 1
    return f"quote_expired: height: expected at most {last}, received {now}"


def the_stock_is_sold(market: Market) -> str:
    market.advance(0, buyer=2)
    return "no_sales_left: the stock is used up: there is no sale left in this leaf"


def another_state_is_there(market: Market) -> str:
    market.advance(10_000, buyer=2)
    return "quote_expired: state_index: expected 2, received 1"


def sales_are_closed(market: Market) -> str:
    market.set_price(is_for_sale=False)
    return "not_for_sale: this LSP sells no liquidity at present"


def the_money_is_spent(market: Market) -> str:
    paid_msat = balance(market.buyer).spendable_msat - 90_000
    paid = pay(market.pump, market.buyer, market.pump.client_at(2), paid_msat)
    assert paid.status == "paid"
    left = msat(balance(market.buyer).own_msat)
    return f"insufficient_balance: price_msat: expected at most {left} by the balance, received "


def the_chain_is_stale(market: Market) -> str:
    market.pump.lsp.facts_at = lambda _own_height: replace(FRESH, stale="no block for hours")
    return "stale: our chain is stale"


CHANGES: Final[tuple[Callable[[Market], str], ...]] = (
    blocks_pass,
    headers_pass,
    the_stock_is_sold,
    another_state_is_there,
    sales_are_closed,
    the_money_is_spent,
    the_chain_is_stale,
)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_true_no_more_of_a_quote_is_named_and_nothing_is_begun(
    market: Market, change: Callable[[Market], str]
) -> None:
    quote = market.quote(AMOUNT_SAT)
    expected = change(market)
    pump = market.pump
    n_before = len(remembered(pump.lsp, ar.AdvanceProposed))
    pools, before, n_records = n_pools(pump), balance(market.buyer), len(pump.lsp.store.entries)
    refused = market.buy_by(quote.quote_id)
    assert refused is not None
    assert refused.quote_id == quote.quote_id
    assert f"{refused.code}: {refused.reason}".startswith(expected)
    assert len(remembered(pump.lsp, ar.AdvanceProposed)) == n_before
    assert len(pump.lsp.store.entries) == n_records, "a refusal costs no record"
    check_nothing_is_left(pump)
    assert n_pools(pump) == pools
    assert balance(market.buyer) == before


def test_a_quote_holds_at_its_price_whatever_the_operator_asks_meanwhile(market: Market) -> None:
    """A price that is set counts for new quotes; one that was given is kept until its height."""
    quote = market.quote(AMOUNT_SAT)
    market.set_price(base_msat=10 * quote.price_msat)
    asked = ev.PurchaseRequested(
        attempt_id=market.attempt_id, quote_id=quote.quote_id, price_max_msat=quote.price_msat
    )
    market.pump.handle(market.buyer, asked)
    market.pump.run()
    (sold,) = remembered(market.pump.lsp, ar.LiquiditySold)
    assert sold.price_msat == quote.price_msat
    assert balance(market.buyer).own_msat == MONEY_MSAT - quote.price_msat
    assert market.quote(AMOUNT_SAT).price_msat > 10 * quote.price_msat
