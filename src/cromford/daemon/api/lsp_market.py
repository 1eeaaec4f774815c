"""The LSP's API for selling inbound liquidity: its price, and the ledger of sales."""

from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

from cromford.answers.market import AskingPrice, SalesLedger
from cromford.daemon.api.failures import InvalidParam
from cromford.daemon.api.handlers import Handler, Params, read_params, without_params
from cromford.daemon.api.paging import PageParams, begun_at, check_page, cursor_of
from cromford.daemon.event_log import EventLog
from cromford.daemon.views import market as views
from cromford.daemon.views.pages import Spot, page_of
from cromford.protocol import events as ev
from cromford.protocol.journal.entries import FactoryEntry
from cromford.protocol.journal.house import House
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.numbers import ListPlace
from cromford.protocol.policy import InvalidPrice, SalePrice, check_price

SALES: Final = "s"  # Of which list a cursor is.


class SellingLsp(Protocol):
    """What an LSP's daemon offers these methods."""

    events: EventLog

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


PARAMS: Final[Params] = {"set_price": _PriceParams, "ledger": PageParams}


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
        wanted = read_params(params, PageParams)
        check_page(wanted)
        state, events = self._owner.state, self._owner.events
        house = state.house
        place = begun_at(events, SALES, wanted.after, n_begun=house.market.n_sold)

        def wants(sale: tuple[FactoryEntry, int]) -> bool:
            entry, n = sale
            return wanted.has_time(entry.sold[n].in_force_at)

        page = page_of(_sales(house, place), limit=wanted.limit, wants=wants)
        return {
            "sales": [views.show_sale(*sale) for sale in page.entries],
            "next": cursor_of(events, SALES, page.following),
            **views.sold_totals(house),
            "forwarding_msat": state.book.earned_msat,
            "price": self.shown_price(),
        }


def _sales(house: House, place: ListPlace) -> Iterator[Spot[ListPlace, tuple[FactoryEntry, int]]]:
    """Yield the sales below a place, newest first; no factory is woken for it."""
    for number in range(place.below - 1, 0, -1):
        yield Spot(ListPlace(place.top, number), house.sale(number))
