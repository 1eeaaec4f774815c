"""An LSP's market, as its house knows it: the price, and what was sold in all its factories."""

from dataclasses import dataclass, replace

from cromford.protocol.journal import mail
from cromford.protocol.journal.market_records import PriceSet
from cromford.protocol.policy import SalePrice


@dataclass(frozen=True, slots=True, kw_only=True)
class SoldEntry:
    """One line of the ledger of sales.

    Attributes:
        client: The buyer's participant index.
        height: When it was complete.
        amount_sat: What the L-stock lost.
        capacity_sat: What the channel held afterwards.
        price_msat: What was paid for it, or is kept of the payment that pays for it.
        advance_id: The advance that brought it.
        quoted_at: When the client was told the price, in unix seconds; 0 if unknown.
        ordered_at: When the advance that it bought was begun; likewise.
        in_force_at: When the house heard that the channel had grown, and was paid for; likewise.
        payment_hash: Of the payment that it pays out of; empty where it paid with the rebase.
    """

    client: int
    height: int
    amount_sat: int
    capacity_sat: int
    price_msat: int
    advance_id: bytes
    quoted_at: int = 0
    ordered_at: int = 0
    in_force_at: int = 0
    payment_hash: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """The price, and the sums of all sales.

    Attributes:
        price: As the operator set it; None if never.
        n_sold: How many sales there were.
        sold_sat: What L-stocks lost by them.
        earned_msat: What was paid for it.
    """

    price: SalePrice | None = None
    n_sold: int = 0
    sold_sat: int = 0
    earned_msat: int = 0

    def with_price(self, record: PriceSet) -> "Market":
        """Return the market after the operator set a price."""
        price = SalePrice(
            base_msat=record.base_msat,
            per_million=record.per_million,
            per_month=record.per_month,
            min_sat=record.min_sat,
            is_for_sale=record.is_for_sale,
        )
        return replace(self, price=price)

    def with_sale(self, sold: mail.SaleBooked) -> "Market":
        """Return the market after a factory told of a sale."""
        return replace(
            self,
            n_sold=self.n_sold + 1,
            sold_sat=self.sold_sat + sold.amount_sat,
            earned_msat=self.earned_msat + sold.price_msat,
        )


def sold_entry(sold: mail.SaleBooked, at: int) -> SoldEntry:
    """Return a sale as the ledger has it, in force at this unix time."""
    return SoldEntry(
        client=sold.client,
        height=sold.height,
        amount_sat=sold.amount_sat,
        capacity_sat=sold.capacity_sat,
        price_msat=sold.price_msat,
        advance_id=sold.advance_id,
        quoted_at=sold.quoted_at,
        ordered_at=sold.ordered_at,
        in_force_at=at,
        payment_hash=sold.payment_hash,
    )
