"""What is remembered of the market: the price, and what was quoted.

An LSP journals no quote, for asking costs a client nothing; a client, who asks because its operator
does, lets go of it with the connection.
"""

from cromford.protocol.journal.record import Record


class PriceSet(Record, frozen=True, kw_only=True, tag="price_set"):
    """The LSP's operator asks this for inbound liquidity, from now on, in every factory.

    In msat for a sale, in millionths of the amount, and in millionths for 30 days of use.
    """

    base_msat: int
    per_million: int
    per_month: int
    min_sat: int
    is_for_sale: bool


class QuoteCounted(Record, frozen=True, kw_only=True, tag="quote_counted"):
    """A client asked for a price. True of one run."""

    client: int


class QuoteGiven(Record, frozen=True, kw_only=True, tag="quote_given"):
    """A client was told what it may buy, and for what. True of one run.

    `amount_sat` is what the L-stock loses. With a `payment_hash` the price comes out of that
    payment.
    """

    client: int
    quote_id: bytes
    amount_sat: int
    state_index: int
    price_msat: int
    until_height: int
    payment_hash: bytes


class QuoteAsked(Record, frozen=True, kw_only=True, tag="quote_asked"):
    """Our operator asks for a price; `amount_sat` is 0 for all there is."""

    attempt_id: bytes
    amount_sat: int
    payment_hash: bytes


class QuoteAnswered(Record, frozen=True, kw_only=True, tag="quote_answered"):
    """The LSP answered: `message` is its `Quote`, or a `QuoteRefused` of its own or of ours."""

    attempt_id: bytes
    message: bytes


LspMarketRecord = QuoteCounted | QuoteGiven
ClientMarketRecord = QuoteAsked | QuoteAnswered
