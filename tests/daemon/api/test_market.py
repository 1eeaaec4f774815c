"""Buying over the API, where more than one caller asks, or buys, at once."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.protocol.markets import Market

from cromford.daemon.api.client_market import ClientMarket
from cromford.daemon.api.failures import ApiFailure
from cromford.protocol import events as ev
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.purchases import EndedPurchase

ALL_OF_IT = 0


class Events:
    """Of a daemon in which something happens while a caller waits."""

    def __init__(self, happens: Callable[[], None]) -> None:
        self.is_closed = False
        self._happens = happens

    async def more(self) -> None:
        self._happens()
        self._happens = self._close

    def _close(self) -> None:
        self.is_closed = True


class Buyer:
    """A client's daemon."""

    def __init__(self, market: Market, happens: Callable[[], None]) -> None:
        self.market = market
        self.events = Events(happens)

    @property
    def state(self) -> ClientState:
        state: ClientState = self.market.buyer.state
        return state

    def request(self, event: ev.Event) -> None:
        self.market.pump.handle(self.market.buyer, event)

    def call(self, method: str, **params: object) -> Any:
        handler = ClientMarket(self).methods()[method]  # type: ignore[arg-type]  # as far as asked
        return asyncio.run(handler(params))  # type: ignore[arg-type]  # a coroutine


@pytest.fixture
def market() -> Market:
    return Market().with_money()


def test_nobody_is_shown_what_another_caller_asked_for(market: Market) -> None:
    """Whoever buys at whatever it costs would buy as much as the other one wanted."""
    other = ev.QuoteRequested(attempt_id=market.attempt_id, amount_sat=ALL_OF_IT)

    def asked_by_another() -> None:
        market.pump.handle(market.buyer, other)
        market.pump.run()

    with pytest.raises(ApiFailure) as failure:
        Buyer(market, asked_by_another).call("liquidity_quote", amount_sat=20_000)
    assert (failure.value.code, failure.value.retryable) == ("quote_replaced", True)
    quote = Buyer(market, market.pump.run).call("liquidity_quote", amount_sat=20_000)
    assert quote["amount_sat"] == 20_000


@pytest.mark.parametrize("bought", [False, True])
def test_a_purchase_that_is_over_is_told_so_though_another_ended_after_it(
    market: Market,
    bought: bool,  # noqa: FBT001 - a case
) -> None:
    quote = market.quote()

    def ends() -> None:
        if bought:
            market.pump.run()
        else:
            market.pump.disconnect(market.buyer)
        driver = market.buyer.driver
        assert driver is not None
        ended = EndedPurchase(quote_id=bytes(32), attempt_id=bytes(32), reason="of another factory")
        driver.state = replace(driver.state, purchase_ended=ended)

    buyer = Buyer(market, ends)
    params = {
        "factory_id": market.attempt_id.hex(),
        "quote_id": quote.quote_id.hex(),
        "price_max_msat": quote.price_msat,
        "beyond_coverage": True,
        "wait_seconds": 30,
    }
    if bought:
        answer = buyer.call("liquidity_buy", **params)
        assert (answer["status"], answer["receipt"]["amount_sat"]) == ("bought", quote.amount_sat)
        later = market.quote()
        assert later.quote_id != quote.quote_id
        again = Buyer(market, market.pump.run).call("liquidity_buy", **params)
        assert again["receipt"] == answer["receipt"], "whoever asks again buys nothing more"
        assert len(buyer.state.receipts[market.attempt_id]) == 1
    else:
        with pytest.raises(ApiFailure, match="nothing was bought") as failure:
            buyer.call("liquidity_buy", **params)
        assert failure.value.code == "not_bought"


def test_a_purchase_under_way_that_is_asked_for_again_is_waited_for(market: Market) -> None:
    quote = market.quote()
    params = {
        "factory_id": market.attempt_id.hex(),
        "quote_id": quote.quote_id.hex(),
        "price_max_msat": quote.price_msat,
        "beyond_coverage": True,
    }
    ordered = Buyer(market, lambda: None).call("liquidity_buy", **params, wait_seconds=0)
    assert ordered["status"] == "ordered"
    bought = Buyer(market, market.pump.run).call("liquidity_buy", **params, wait_seconds=30)
    assert bought["status"] == "bought"
    state: ClientState = market.buyer.state
    assert len(state.receipts[market.attempt_id]) == 1
