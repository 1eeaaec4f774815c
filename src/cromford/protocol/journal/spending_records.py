"""What is remembered of the wallet: addresses, and what was spent from it on chain."""

from cromford.protocol.journal.record import Record


class AddressIssued(Record, frozen=True, kw_only=True, tag="address_issued"):
    """A fresh wallet script was handed out."""

    change: int


class SpendingWasSigned(Record, frozen=True, kw_only=True, tag="payment_signed"):
    """A payment out of the wallet, about to be broadcast.

    `has_change`: it pays to the wallet's next change script, be it change or coins of a split.
    `replaces`: the payment in whose place it is, for a higher fee; empty if there is none.
    """

    tx: bytes
    has_change: bool
    replaces: bytes = b""


class SpendingAbandoned(Record, frozen=True, kw_only=True, tag="payment_abandoned"):
    """A payment that our node refuses is given up: it is published no more, its coins are free."""

    txid: bytes
    reason: str


SpendingRecord = AddressIssued | SpendingWasSigned | SpendingAbandoned
