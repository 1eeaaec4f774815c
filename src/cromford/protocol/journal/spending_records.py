"""What is remembered of the wallet: addresses, and what was spent from it on chain."""

from cromford.protocol.journal.record import Record


class AddressIssued(Record, frozen=True, kw_only=True, tag="address_issued"):
    """A fresh wallet script was handed out."""

    change: int


class SpendingWasSigned(Record, frozen=True, kw_only=True, tag="payment_signed"):
    """A payment out of the wallet, about to be broadcast.

    `has_change`: it pays to the wallet's next change script, be it change or coins of a split.
    `replaces`: the payment in whose place it is, for a higher fee; empty if there is none.
    `external_id`: what its payer calls it, by which it is paid once; what replaces it has none of
    its own. `asked_sat`: what was to be paid, or None for all that was free.
    """

    tx: bytes
    has_change: bool
    replaces: bytes = b""
    external_id: str = ""
    asked_sat: int | None = None


class SpendingAbandoned(Record, frozen=True, kw_only=True, tag="payment_abandoned"):
    """A payment that our node refuses is given up: it is published no more, its coins are free."""

    txid: bytes
    reason: str


class SpendingOvertaken(Record, frozen=True, kw_only=True, tag="payment_overtaken"):
    """A block has another transaction that spends a coin of a payment: that is never paid.

    It may be what the payment replaced, or one that was given up. Once that loses its place the
    payment is published again.
    """

    txid: bytes
    spent_by: bytes


SpendingRecord = AddressIssued | SpendingWasSigned | SpendingAbandoned | SpendingOvertaken
