"""What operators ask of the market: an LSP's sets a price, a client's asks for a quote and buys."""

from dataclasses import dataclass

from cromford.protocol.policy import SalePrice


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRequested:
    """The LSP's operator sets what inbound liquidity costs, in every factory."""

    price: SalePrice


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteRequested:
    """The client's operator wants to know what so much more capacity costs.

    `amount_sat` is 0 for all there is. With a `payment_hash` the price is to come out of that
    payment.
    """

    attempt_id: bytes
    amount_sat: int
    payment_hash: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseRequested:
    """The client's operator buys by the quote that it was told.

    Attributes:
        attempt_id: The factory.
        quote_id: The quote.
        price_max_msat: The most that is paid; a quote that asks for more is refused.
        beyond_coverage: Whether poisons need not cover all that is bought.
    """

    attempt_id: bytes
    quote_id: bytes
    price_max_msat: int
    beyond_coverage: bool = False
