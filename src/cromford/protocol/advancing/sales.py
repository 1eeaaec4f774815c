"""What is sold: how much of a leaf's L-stock, to whom, for what; and why it is not."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """A purchase that a client agreed to, before anything of it is done.

    Attributes:
        buyer: Its participant index.
        amount_sat: What the L-stock loses; None for all of it.
        quote_id: What it buys by.
        state_index: Of the state that would be made.
        price_msat: What it pays.
        payment_hash: Of the payment that it pays out of; empty where it pays with the rebase.
    """

    buyer: int
    amount_sat: int | None
    quote_id: bytes
    state_index: int
    price_msat: int
    payment_hash: bytes = b""


class NotSold(Exception):
    """Nothing is sold so now: a code for programs, a reason for people.

    Attributes:
        code: As in a `QuoteRefused`.
        reason: Names what is in the way, and the expected and the received value.
        client: Whose own business the reason is, by its participant index; None if nobody's.
        missing_msat: What the client's balance lacks, where that is the reason; else 0.
    """

    def __init__(
        self, code: str, reason: str, client: int | None = None, *, missing_msat: int = 0
    ) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.client = client
        self.missing_msat = missing_msat
