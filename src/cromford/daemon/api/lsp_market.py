"""The LSP's API for selling inbound liquidity: its price, and the ledger of sales."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

import msgspec

from cromford.answers.market import AskingPrice, SalesLedger, SoldLiquidity
from cromford.daemon.api.failures import InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params, without_params
from cromford.daemon.api.payment_limits import LIMIT, LIMIT_MAX
from cromford.daemon.views import market as views
from cromford.protocol import events as ev
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.policy import InvalidPrice, SalePrice, check_price

ENTRIES_AT_ONCE: Final = 64  # Factories that are read before others are served.


class SellingLsp(Protocol):
    """What an LSP's daemon offers these methods."""

    @property
    def state(self) -> LspState:
        """The LSP's state now."""

    def request(self, event: ev.Event) -> None:
        """Handle an operator's request."""


class _PriceParams(msgspec.Struct, forbid_unknown_fields=True):
    """What changes; whatever is None stays."""

    base_msat: int | None = None
    per_million: int | None = None
    per_month: int | None = None
    min_sat: int | None = None
    is_for_sale: bool | None = None


class _LedgerParams(msgspec.Struct, forbid_unknown_fields=True):
    limit: int = LIMIT


PARAMS: Final[Params] = {"set_price": _PriceParams, "ledger": _LedgerParams}


class LspMarket:
    """The methods `price`, `set_price` and `ledger`."""

    def __init__(self, owner: SellingLsp) -> None:
        self._owner = owner

    def methods(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {
            "price": without_params(self._price),
            "set_price": self._set_price,
            "ledger": self._ledger,
        }

    async def _price(self) -> AskingPrice:
        return self.shown_price()

    def shown_price(self) -> AskingPrice:
        """Return what is asked for inbound liquidity now."""
        house = self._owner.state.house
        active_blocks = house.config.policy.active_blocks
        return views.show_price(house.sale_price(), active_blocks=active_blocks)

    async def _set_price(self, params: dict[str, Any]) -> AskingPrice:
        wanted = msgspec.structs.asdict(read_params(params, _PriceParams))
        now = self._owner.state.house.sale_price()
        price = SalePrice(
            **{
                field: getattr(now, field) if value is None else value
                for field, value in wanted.items()
            }
        )
        try:
            check_price(price)
        except InvalidPrice as error:
            raise InvalidParam(error.field, str(error).partition(": ")[2]) from error
        self._owner.request(ev.PriceRequested(price=price))
        return self.shown_price()

    async def _ledger(self, params: dict[str, Any]) -> SalesLedger:
        limit = read_params(params, _LedgerParams).limit
        if not 1 <= limit <= LIMIT_MAX:
            raise InvalidParam("limit", f"expected 1..{LIMIT_MAX}, received {limit}")
        sales = [sale async for sale in self._sales()]
        sales.sort(key=lambda sale: sale["height"], reverse=True)
        state = self._owner.state
        return {
            "sales": sales[:limit],
            **views.sold_totals(state.house),
            "forwarding_msat": state.book.earned_msat,
            "price": self.shown_price(),
        }

    async def _sales(self) -> AsyncIterator[SoldLiquidity]:
        """Yield every sale, oldest factory first; no factory is woken for it."""
        for number, entry in enumerate(self._owner.state.house.factories(), start=1):
            if number % ENTRIES_AT_ONCE == 0:
                await asyncio.sleep(0)
            for sale in views.sold_of(entry):
                yield sale
