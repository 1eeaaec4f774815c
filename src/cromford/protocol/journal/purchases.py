"""What a client bought of its leaf's L-stock, from its `Buy` until its channel grew, or never will.

A leaf's state may let our channel grow only where we bought exactly that.
"""

from dataclasses import dataclass, replace

from immutables import Map

from cromford.protocol.journal import advance_records as ar


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPurchase:
    """A quote that we bought by.

    Attributes:
        quote_id: The quote.
        attempt_id: The factory.
        amount_sat: What the L-stock loses.
        capacity_sat: What our channel holds afterwards.
        price_msat: What we pay.
        payment_hash: Of the payment that we pay out of; empty where we pay from our balance.
        takes_beyond: Whether our operator takes it though poisons would not cover all of it.
        valid_until_height: The last height at which the LSP may begin with it.
        is_agreed: Whether we agreed to an advance for it: the LSP may be bound to it from then on.
        quoted_at: When we heard the quote, in unix seconds; 0 if unknown.
        ordered_at: When we bought by it; likewise.
    """

    quote_id: bytes
    attempt_id: bytes
    amount_sat: int
    capacity_sat: int
    price_msat: int
    payment_hash: bytes = b""
    takes_beyond: bool = False
    valid_until_height: int = 0
    is_agreed: bool = False
    quoted_at: int = 0
    ordered_at: int = 0

    @property
    def rebase_price_msat(self) -> int:
        """What our channel pays with the rebase: nothing where a payment pays."""
        return 0 if self.payment_hash else self.price_msat


# By their quotes.
Purchases = Map[bytes, OwnPurchase]


def with_agreed(purchases: Purchases, quote_id: bytes) -> Purchases:
    """Return what is bought after we agreed to an advance: that a quote of ours is for, or none."""
    purchase = purchases.get(quote_id)
    if purchase is None:
        return purchases
    return purchases.set(quote_id, replace(purchase, is_agreed=True))


def with_purchase_record(
    purchases: Purchases, record: ar.PurchaseRecord, at: int = 0, *, quoted_at: int = 0
) -> Purchases:
    """Return what is bought after a record about it.

    Args:
        purchases: Before it.
        record: What happened.
        at: When, in unix seconds; 0 if unknown.
        quoted_at: When the quote was heard that is bought by; likewise.
    """
    match record:
        case ar.PurchaseEnded(quote_id=quote_id):
            return purchases.delete(quote_id) if quote_id in purchases else purchases
        case ar.PurchaseOrdered(quote_id=quote_id):
            purchase = OwnPurchase(
                quote_id=quote_id,
                attempt_id=record.attempt_id,
                amount_sat=record.amount_sat,
                capacity_sat=record.capacity_sat,
                price_msat=record.price_msat,
                payment_hash=record.payment_hash,
                takes_beyond=record.takes_beyond,
                valid_until_height=record.valid_until_height,
                quoted_at=quoted_at,
                ordered_at=at,
            )
            return purchases.set(quote_id, purchase)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedPurchase:
    """What became of a purchase: `reason` is empty where it is ours."""

    quote_id: bytes
    attempt_id: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What we bought, and paid: our channel holds `capacity_sat` since that height.

    The times are in unix seconds, 0 if unknown: when the quote was heard, when we bought by it, and
    since when it is in force. What is paid from our balance is paid then; with a `payment_hash`
    that payment arrives smaller by the price instead. `quote_id` is what we bought by; empty where
    it is older than this field, or nobody remembers.
    """

    height: int
    amount_sat: int
    capacity_sat: int
    price_msat: int
    advance_id: bytes
    quoted_at: int = 0
    ordered_at: int = 0
    in_force_at: int = 0
    payment_hash: bytes = b""
    quote_id: bytes = b""


def ended_purchase(record: ar.PurchaseEnded) -> EndedPurchase:
    """Return what became of a purchase."""
    return EndedPurchase(
        quote_id=record.quote_id, attempt_id=record.attempt_id, reason=record.reason
    )


def receipt_of(record: ar.LiquidityBought, purchase: OwnPurchase | None, at: int) -> Receipt:
    """Return the receipt for what was bought, by a purchase of ours, in force at this unix time."""
    return Receipt(
        height=record.height,
        amount_sat=record.amount_sat,
        capacity_sat=record.capacity_sat,
        price_msat=record.price_msat,
        advance_id=record.advance_id,
        quoted_at=0 if purchase is None else purchase.quoted_at,
        ordered_at=0 if purchase is None else purchase.ordered_at,
        in_force_at=at,
        payment_hash=b"" if purchase is None else purchase.payment_hash,
        quote_id=b"" if purchase is None else purchase.quote_id,
    )
