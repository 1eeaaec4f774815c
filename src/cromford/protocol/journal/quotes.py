"""Quotes, as each side knows them: an LSP for one run, a client for one connection."""

from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from immutables import Map

from cromford.protocol.journal import market_records as mk

# How many of the 32 questions between two blocks a purchase that came to nothing counts as: it
# makes a whole leaf quiet, up to a deadline. And two of a neighbour's in each block leave a client
# some of the tries that it takes part in.
VAIN_PURCHASE_ASKS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedQuote:
    """What an LSP told one client.

    Attributes:
        quote_id: Its name.
        amount_sat: What the L-stock would lose.
        state_index: Of the state that would be made.
        price_msat: What it would cost.
        until_height: The last height at which it may be bought by.
        payment_hash: Of the payment that it would be paid out of; else empty.
        given_at: When it was told, in unix seconds; 0 if unknown.
    """

    quote_id: bytes
    amount_sat: int
    state_index: int
    price_msat: int
    until_height: int
    payment_hash: bytes
    given_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """What an LSP told its clients of one factory.

    Attributes:
        newest: The newest quote of each client; the one before is void.
        n_asked: How often each asked since `height`; see `VAIN_PURCHASE_ASKS`.
        height: Since when that is counted.
        n_given: How many quotes were ever given, in this run.
    """

    newest: Map[int, OfferedQuote] = field(default_factory=Map)
    n_asked: Map[int, int] = field(default_factory=Map)
    height: int = -1
    n_given: int = 0

    def asked_at(self, client: int, height: int) -> int:
        """Return how often a client asked since the block of this height."""
        return self.n_asked.get(client, 0) if height == self.height else 0


NOTHING_QUOTED: Final = Quoted()


def with_quote_record(
    quoted: Quoted, record: mk.LspMarketRecord, at: int = 0, *, height: int
) -> Quoted:
    """Return an LSP's quotes after a record.

    Args:
        quoted: Before it.
        record: What happened.
        at: When, in unix seconds; 0 if unknown.
        height: The chain's tip.
    """
    match record:
        case mk.QuoteCounted(client=client):
            return _with_asked(quoted, client, 1, height=height)
        case mk.QuoteGiven(client=client):
            offered = OfferedQuote(
                quote_id=record.quote_id,
                amount_sat=record.amount_sat,
                state_index=record.state_index,
                price_msat=record.price_msat,
                until_height=record.until_height,
                payment_hash=record.payment_hash,
                given_at=at,
            )
            newest = quoted.newest.set(client, offered)
            return replace(quoted, newest=newest, n_given=quoted.n_given + 1)
        case _:
            assert_never(record)


def with_vain_purchase(quoted: Quoted, client: int, *, height: int) -> Quoted:
    """Return an LSP's quotes once a purchase of a client came to nothing, at a height."""
    return _with_asked(quoted, client, VAIN_PURCHASE_ASKS, height=height)


def _with_asked(quoted: Quoted, client: int, n_more: int, *, height: int) -> Quoted:
    n_asked = quoted.n_asked if height == quoted.height else Map()
    counted = n_asked.set(client, n_asked.get(client, 0) + n_more)
    return replace(quoted, n_asked=counted, height=height)


def without_quote(quoted: Quoted, client: int) -> Quoted:
    """Return an LSP's quotes once a client bought by its newest: none is bought by twice."""
    if client not in quoted.newest:
        return quoted
    return replace(quoted, newest=quoted.newest.delete(client))


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedQuote:
    """What a client asked its LSP, in this connection, and what it heard.

    Attributes:
        amount_sat: How much; 0 for all there is.
        payment_hash: Of the payment that it would be paid out of; else empty.
        n_waiting: How many answers are still to come: the last counts, for answers keep the order.
        answer: The LSP's message; empty before it came.
        answered_at: When it came, in unix seconds; 0 if unknown.
    """

    amount_sat: int
    payment_hash: bytes
    n_waiting: int = 0
    answer: bytes = b""
    answered_at: int = 0


WantedQuotes = Map[bytes, WantedQuote]  # By the attempt.


def with_wanted_record(
    wanted: WantedQuotes, record: mk.ClientMarketRecord, at: int = 0
) -> WantedQuotes:
    """Return what a client asked and heard, after a record of this unix time."""
    attempt_id = record.attempt_id
    known = wanted.get(attempt_id)
    match record:
        case mk.QuoteAsked():
            n_waiting = 0 if known is None else known.n_waiting
            asked = WantedQuote(
                amount_sat=record.amount_sat,
                payment_hash=record.payment_hash,
                n_waiting=n_waiting + 1,
            )
            return wanted.set(attempt_id, asked)
        case mk.QuoteAnswered(message=message):
            if known is None:
                raise AssertionError("an answer to no question")
            left = known.n_waiting - 1
            answer = b"" if left else message
            heard = replace(known, n_waiting=left, answer=answer, answered_at=at)
            return wanted.set(attempt_id, heard)
        case _:
            assert_never(record)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkimDue:
    """What is kept of one payment, as checkpoints had it that knew one payee of each hash."""

    client: int
    price_msat: int
