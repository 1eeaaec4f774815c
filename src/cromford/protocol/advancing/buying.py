"""A client's market: what it asks for, what it is offered, and what it buys.

A quote is computed again before it counts, and what is bought is remembered before the LSP hears of
it: a state of the leaf in which our channel grows is signed for nothing else. Whatever becomes of a
purchase, its operator is told.
"""

from collections.abc import Mapping
from typing import Final, assert_never

from cromford import effects as fx
from cromford import told
from cromford.channel.rebase import can_pay, payable_msat
from cromford.channel.terms import MSAT_PER_SAT, Party
from cromford.factory.allocation import AdvanceRefused, Purchase
from cromford.factory.leaf import Leaf, advance_height_max
from cromford.protocol import events as ev
from cromford.protocol.channels.client import is_usable
from cromford.protocol.channels.close_rules import owed_msat
from cromford.protocol.channels.coverage import covered_after
from cromford.protocol.faults import Refusal, Rejected
from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import channel_records as cr
from cromford.protocol.journal import market_records as mk
from cromford.protocol.journal.advances import ClientAdvance
from cromford.protocol.journal.book import OwnInvoice
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.encoding import decoded
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.purchases import OwnPurchase as Bought
from cromford.protocol.journal.quotes import WantedQuote
from cromford.protocol.turn import Turn
from cromford.wire import messages as m
from cromford.wire.messages import decode_message, encode_message
from cromford.wire.selling import ALL_OF_IT

WRONG_QUOTE: Final = "wrong_quote"
# Six hours. An LSP may name any height: how long a purchase waits for it is the buyer's to say.
QUOTE_WAIT_BLOCKS: Final = 36
NOT_BEGUN_BLOCKS: Final = 1  # After a quote's last height: the LSP may see that block later.
Advances = Mapping[bytes, ClientAdvance]


def take(turn: Turn[ClientState], event: ev.MarketEvent) -> None:
    """Take the operator's wish to hear a price, or to buy.

    Raises:
        Rejected: If it cannot be met now; nothing is changed.
    """
    match event:
        case ev.QuoteRequested():
            _ask(turn, event)
        case ev.PurchaseRequested():
            _buy(turn, event)
        case ev.PriceRequested():
            raise AssertionError("PriceRequested is an LSP's event")
        case _:
            assert_never(event)


def take_message(turn: Turn[ClientState], message: m.QuoteMessage) -> None:
    """Take an LSP's quote, or its refusal; what only a client says ends the connection."""
    match message:
        case m.Quote():
            _on_quote(turn, message)
        case m.QuoteRefused():
            _on_refused(turn, message)
        case _:
            reason = f"{type(message).__name__} is a client's message"
            turn.ask(fx.Disconnect(node_id=turn.state.lsp_node_id, reason=reason))


# Asking


def _ask(turn: Turn[ClientState], event: ev.QuoteRequested) -> None:
    attempt, link = _channel(turn.state, event.attempt_id)
    _check_may_ask(turn, link)
    if event.amount_sat < 0:
        raise Rejected(
            "invalid_amount", f"amount_sat: expected 0 or more, received {event.amount_sat}"
        )
    _open_invoice(turn.state, event.payment_hash)
    asked = mk.QuoteAsked(
        attempt_id=attempt.attempt_id,
        amount_sat=event.amount_sat,
        payment_hash=event.payment_hash,
    )
    turn.remember(asked)
    turn.send(
        attempt.lsp_node_id,
        m.QuoteRequest(
            attempt_id=attempt.attempt_id,
            amount_sat=event.amount_sat,
            payment_hash=event.payment_hash,
        ),
    )


def _channel(state: ClientState, attempt_id: bytes) -> tuple[ClientAttempt, Link]:
    """Return a factory of ours, and our channel in it.

    Raises:
        Rejected: If there is none.
    """
    attempt = state.attempts.get(attempt_id)
    link = next((x for x in state.book.links.values() if x.attempt_id == attempt_id), None)
    if attempt is None or link is None:
        raise Rejected("no_channel", "there is no channel in this factory yet", retryable=True)
    return attempt, link


def _open_invoice(state: ClientState, payment_hash: bytes) -> OwnInvoice | None:
    """Return the invoice whose payment is to pay; None where our balance pays.

    Raises:
        Rejected: If it is no invoice of ours that can still be paid.
    """
    if not payment_hash:
        return None
    invoice = state.book.invoices.get(payment_hash)
    if invoice is None or invoice.status != "open":
        told = "none" if invoice is None else f"one that is {invoice.status}"
        raise Rejected(
            "invoice_unknown", f"payment_hash: expected an open invoice of ours, received {told}"
        )
    return invoice


def _check_may_ask(turn: Turn[ClientState], link: Link) -> None:
    turn.check_risk()
    if not turn.state.is_connected or turn.state.lsp_node_id != link.node_id:
        raise Rejected("lsp_unreachable", "not connected to the LSP", retryable=True)
    if not is_usable(turn.state, link):
        reason = link.failure or "no payment may begin in this channel any more"
        raise Rejected("no_channel", f"nothing is bought for this channel: {reason}")
    if not link.is_open:
        raise Rejected("no_channel", "the channel is not open yet: ask again", retryable=True)


def _on_quote(turn: Turn[ClientState], quote: m.Quote) -> None:
    wanted = turn.state.quotes.get(quote.attempt_id)
    if wanted is None or not wanted.n_waiting:
        return  # Nobody asked, in this connection.
    answer: m.Quote | m.QuoteRefused = quote
    try:
        _check_quote(turn.state, quote, wanted)
    except Refusal as wrong:
        answer = m.QuoteRefused(
            attempt_id=quote.attempt_id,
            quote_id=b"",
            code=WRONG_QUOTE,
            reason=str(wrong),
            missing_msat=0,
            next_factory=0,
        )
    turn.remember(mk.QuoteAnswered(attempt_id=quote.attempt_id, message=encode_message(answer)))


def _check_quote(state: ClientState, quote: m.Quote, wanted: WantedQuote) -> None:
    """Check what a quote says against what we compute of our own leaf.

    Raises:
        Refusal: Naming the field, what was expected and what was received.
    """
    leaf = state.attempts[quote.attempt_id].leaf
    amount_sat = wanted.amount_sat
    if amount_sat == ALL_OF_IT:
        amount_sat = leaf.allocation.lstock_sat
    _, link = _channel(state, quote.attempt_id)
    try:
        after = leaf.sold(Purchase(buyer=link.client, amount_sat=quote.amount_sat))
    except AdvanceRefused as refused:
        raise Refusal(
            refused.field, expected=refused.expected, received=refused.received
        ) from refused
    for field, expected, received in (
        ("amount_sat", amount_sat, quote.amount_sat),
        ("state_index", len(leaf.states), quote.state_index),
        ("capacity_sat", after.allocation.capacities_sat[_place(leaf, link)], quote.capacity_sat),
        ("sales_left", after.sales_left, quote.sales_left),
    ):
        if expected != received:
            raise Refusal(field, expected=expected, received=received)


def _place(leaf: Leaf, link: Link) -> int:
    return leaf.clients.index(link.client)


def _on_refused(turn: Turn[ClientState], refused: m.QuoteRefused) -> None:
    if refused.quote_id:
        if _is_open(turn.state, refused.quote_id):
            _end(turn, refused.quote_id, f"{refused.code}: {refused.reason}")
        return
    wanted = turn.state.quotes.get(refused.attempt_id)
    if wanted is not None and wanted.n_waiting:
        data = encode_message(refused)
        turn.remember(mk.QuoteAnswered(attempt_id=refused.attempt_id, message=data))


def _is_open(state: ClientState, quote_id: bytes) -> bool:
    """Say whether we bought by a quote, and signed no advance for it that may still be done."""
    purchase = state.purchases.get(quote_id)
    if purchase is None:
        return False
    advance = state.advances.get(purchase.attempt_id)
    return advance is None or advance.quote_id != quote_id or not advance.is_signed


def answer_to(wanted: WantedQuote) -> m.Quote | m.QuoteRefused | None:
    """Return what the LSP answered; None while it did not."""
    if not wanted.answer:
        return None
    answer = decode_message(wanted.answer)
    if not isinstance(answer, m.Quote | m.QuoteRefused):
        raise AssertionError(f"{type(answer).__name__} is no answer to a request for a price")
    return answer


# Buying


def _buy(turn: Turn[ClientState], event: ev.PurchaseRequested) -> None:
    attempt, link = _channel(turn.state, event.attempt_id)
    _check_may_ask(turn, link)
    wanted = turn.state.quotes.get(event.attempt_id)
    quote = None if wanted is None else answer_to(wanted)
    if wanted is None or not isinstance(quote, m.Quote) or quote.quote_id != event.quote_id:
        raise Rejected("quote_unknown", "this quote is not the newest: ask for one again")
    under_way = turn.state.purchases
    # The LSP names its quotes: one of another factory may have the name of what is bought here.
    if event.quote_id in under_way or any(
        one.attempt_id == event.attempt_id for one in under_way.values()
    ):
        raise Rejected("purchase_under_way", "a purchase is under way", retryable=True)
    if turn.known_height > quote.valid_until_height:
        raise Rejected(
            "quote_expired",
            f"height: expected at most {quote.valid_until_height}, received {turn.known_height}",
        )
    n_states = len(attempt.leaf.states)
    if quote.state_index != n_states:
        reason = f"state_index: expected {n_states}, received {quote.state_index}"
        raise Rejected("quote_expired", f"{reason}: the leaf was sold of since")
    if quote.price_msat > event.price_max_msat:
        raise Rejected(
            "price_too_high",
            f"price_msat: expected at most {told.msat(event.price_max_msat)}, "
            f"received {told.msat(quote.price_msat)}",
        )
    invoice = _open_invoice(turn.state, wanted.payment_hash)
    if invoice is not None:
        # What was bought out of it before leaves so much.
        left_msat = invoice.amount_msat - turn.state.skims.get(wanted.payment_hash, 0)
        if left_msat <= quote.price_msat:
            raise Rejected(
                "insufficient_balance",
                f"price_msat: expected less than the payment's {told.msat(left_msat)}, "
                f"received {told.msat(quote.price_msat)}",
            )
    if not (wanted.payment_hash or can_pay(link.state, quote.price_msat)):
        payable = payable_msat(link.state)
        raise Rejected(
            "insufficient_balance",
            f"price_msat: expected at most {told.msat(payable)} by the balance, received "
            f"{told.msat(quote.price_msat)}: {told.msat(quote.price_msat - payable)} are missing",
            retryable=True,
        )
    if not event.beyond_coverage:
        _check_covered(attempt, link, quote)
    turn.remember(
        ar.PurchaseOrdered(
            attempt_id=quote.attempt_id,
            quote_id=quote.quote_id,
            amount_sat=quote.amount_sat,
            capacity_sat=quote.capacity_sat,
            price_msat=quote.price_msat,
            payment_hash=wanted.payment_hash,
            takes_beyond=event.beyond_coverage,
            valid_until_height=min(quote.valid_until_height, turn.known_height + QUOTE_WAIT_BLOCKS),
        )
    )
    turn.send(
        attempt.lsp_node_id,
        m.Buy(
            attempt_id=quote.attempt_id,
            quote_id=quote.quote_id,
            payment_hash=wanted.payment_hash,
        ),
    )


def _check_covered(attempt: ClientAttempt, link: Link, quote: m.Quote) -> None:
    """Check that poisons would cover all that could become ours of what is bought.

    Raises:
        Rejected: If they would not.
    """
    covered_sat = covered_by(attempt, link, quote)
    most_sat = most_owned_sat(link, quote.capacity_sat)
    if covered_sat < most_sat or covered_sat * MSAT_PER_SAT < owed_msat(link.state):
        raise Rejected(
            "not_covered",
            f"covered_sat: expected at least {most_sat}, which the channel could come to hold for "
            f"us, received {covered_sat}: poisons would not cover the rest",
        )


def covered_by(attempt: ClientAttempt, link: Link, quote: m.Quote) -> int:
    """Return how much of our balance poisons would cover after a purchase, in sat."""
    purchase = Purchase(buyer=link.client, amount_sat=quote.amount_sat)
    return covered_after(link, attempt.leaf, purchase)


def most_owned_sat(link: Link, capacity_sat: int) -> int:
    """Return the most that a channel of this capacity can come to hold for its client, in sat.

    The LSP keeps its reserve, which is never less than what a commitment costs it.
    """
    return capacity_sat - link.state.terms.reserve_sat(Party.OPENER, capacity_sat=capacity_sat)


# What becomes of a purchase


def _end(turn: Turn[ClientState], quote_id: bytes, reason: str) -> None:
    attempt_id = turn.state.purchases[quote_id].attempt_id
    turn.remember(ar.PurchaseEnded(attempt_id=attempt_id, quote_id=quote_id, reason=reason))


def void_connection(turn: Turn[ClientState]) -> None:
    """End purchases that we agreed to no advance for; before the record that it is over.

    Once we agreed, others may have signed, and wait for us to do so: the LSP says in the next
    connection whether it is bound.
    """
    for quote_id, purchase in _sorted(turn.state):
        if not purchase.is_agreed:
            _end(turn, quote_id, "the connection ended before anything was signed")


def on_block(turn: Turn[ClientState]) -> None:
    """End purchases that the LSP did not begin while their quotes were valid."""
    for quote_id, purchase in _sorted(turn.state):
        if purchase.is_agreed:
            _end_if_too_late(turn, quote_id, purchase)
            continue
        advance = turn.state.advances.get(purchase.attempt_id)
        has_begun = advance is not None and advance.quote_id == quote_id
        if not has_begun and turn.height > purchase.valid_until_height + NOT_BEGUN_BLOCKS:
            _end(turn, quote_id, f"not begun by height {purchase.valid_until_height}")


def _end_if_too_late(turn: Turn[ClientState], quote_id: bytes, purchase: Bought) -> None:
    """End a purchase that we agreed to and would not sign any more, whatever others did."""
    advance = turn.state.advances.get(purchase.attempt_id)
    if advance is not None and advance.is_signed:
        return
    attempt, link = _channel(turn.state, purchase.attempt_id)
    if link.failure is not None:
        _end(turn, quote_id, f"the channel failed: {link.failure}"[: m.REASON_SIZE_MAX])
        return
    if attempt.leaf.kickoff.tx.txid in turn.chain.confirmed:
        _end(turn, quote_id, "the leaf is on its way to the chain")
        return
    last_height = advance_height_max(
        exit_deadline_height=link.exit_deadline_height,
        patience_blocks=attempt.terms.patience_blocks,
    )
    if turn.height > last_height:
        _end(turn, quote_id, f"too late: not done by height {last_height}")


def settle(turn: Turn[ClientState], before: Advances) -> None:
    """End purchases whose advance came to nothing in this turn.

    Args:
        turn: The decision, nearly complete.
        before: The advances that were under way before it.
    """
    records = turn.decision.records
    why = {one.attempt_id: one.reason for one in records if isinstance(one, ar.AdvanceDropped)}
    back = turn.first(cr.ChannelReestablished)
    for quote_id, purchase in _sorted(turn.state):
        if purchase.is_agreed:
            if back is not None:
                _end_if_forgotten(turn, quote_id, purchase, back)
            continue
        was, now = (advances.get(purchase.attempt_id) for advances in (before, turn.state.advances))
        if was is None or was.quote_id != quote_id:
            continue
        if now is None or now.quote_id != quote_id:
            _end(turn, quote_id, why.get(purchase.attempt_id, "the advance is over"))


def _end_if_forgotten(
    turn: Turn[ClientState], quote_id: bytes, purchase: Bought, back: cr.ChannelReestablished
) -> None:
    """End a purchase of which the LSP says nothing where it says how far it is: nobody is bound."""
    _, link = _channel(turn.state, purchase.attempt_id)
    if link.channel_id != back.channel_id or link.next is not None:
        return
    told = decoded(back.message, m.ChannelReestablish)
    if not told.advance:
        _end(turn, quote_id, "the LSP let go of it before anything was signed")


def _sorted(state: ClientState) -> list[tuple[bytes, Bought]]:
    return sorted(state.purchases.items())
