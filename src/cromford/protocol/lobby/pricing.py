"""The house's price of inbound liquidity: set by its operator, read by every factory."""

from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.house import House
from cromford.protocol.journal.market_records import PriceSet
from cromford.protocol.policy import InvalidPrice, check_price
from cromford.protocol.turn import Turn


def take(turn: Turn[House], event: ev.MarketEvent) -> None:
    """Remember what the operator asks from now on; quotes that were given keep theirs.

    Raises:
        Rejected: If it is out of bounds.
    """
    if not isinstance(event, ev.PriceRequested):
        raise AssertionError(f"{type(event).__name__} is a client's event")
    price = event.price
    try:
        check_price(price)
    except InvalidPrice as error:
        raise Rejected("invalid_price", str(error)) from error
    if price == turn.state.sale_price():
        return
    turn.remember(
        PriceSet(
            base_msat=price.base_msat,
            per_million=price.per_million,
            per_month=price.per_month,
            min_sat=price.min_sat,
            is_for_sale=price.is_for_sale,
        )
    )
