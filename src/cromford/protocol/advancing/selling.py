"""The LSP's market: what inbound liquidity costs, and who may buy how much of a leaf's L-stock.

A quote is true of this run only, for a few blocks, and until something else is sold in the leaf: it
is noted, one for each client, and never journalled. So asking costs nobody a record, and whoever
asks too often between two blocks is told so.
"""

from dataclasses import dataclass
from typing import Final, assert_never

from cromford import told
from cromford.channel.rebase import can_pay, payable_msat
from cromford.channel.terms import MSAT_PER_SAT
from cromford.crypto.keys import TaggedHash
from cromford.factory.allocation import AdvanceRefused, Purchase
from cromford.factory.leaf import Leaf, advance_height_max, usable_blocks
from cromford.protocol.advancing import lsp as advancing
from cromford.protocol.advancing.pricing import price_msat
from cromford.protocol.advancing.rules import (
    Obstacle,
    blocked_by,
    problem_of,
    problem_with_depth,
    told_of,
)
from cromford.protocol.advancing.sales import NotSold, Sale
from cromford.protocol.channels.close_rules import owed_msat
from cromford.protocol.channels.coverage import covered_after
from cromford.protocol.channels.seats import link_of
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.market_records import QuoteCounted, QuoteGiven
from cromford.protocol.journal.quotes import VAIN_PURCHASE_ASKS
from cromford.protocol.turn import Turn
from cromford.wire import messages as m
from cromford.wire.selling import ALL_OF_IT, NeededOnline

# Where prices are read by a person or a wallet these are many; each costs a few milliseconds.
QUOTES_PER_BLOCK: Final = 32
# As long as an operator may think, and the price of what is left to use does not change much.
QUOTE_BLOCKS: Final = 6
NOT_COVERED: Final = "not_covered"
# What is said of what hinders an advance.
_CODES: Final = {
    "amount": "no_stock",
    "busy": "leaf_busy",
    "not_fresh": "stale",
    "offline": "client_away",
    "outdated": "quote_expired",
    "price": "insufficient_balance",
    "sold_out": "no_sales_left",
}
NO_MORE_HERE: Final = frozenset({"no_sales_left", "too_late"})
_QUOTE_HASH: Final = TaggedHash("cromford/quote")


def take_message(turn: Turn[Factory], node_id: bytes, message: m.QuoteRequest | m.Buy) -> None:
    """Answer a client that asks for a price, or buys."""
    client = turn.state.attempt.client_of(node_id)
    if client is None:
        return
    mark = turn.mark()
    try:
        match message:
            case m.QuoteRequest():
                _quote(turn, node_id, client, message)
            case m.Buy():
                _sell(turn, client, message)
            case _:
                assert_never(message)
    except NotSold as refused:
        if isinstance(message, m.Buy):
            turn.rewind(mark)  # Nothing half done stays of a sale that is refused.
        if refused.code == NOT_COVERED:
            # As one that came to nothing: each refusal says what that neighbour's balance is above.
            turn.note(*(QuoteCounted(client=client) for _ in range(VAIN_PURCHASE_ASKS)))
        turn.send(node_id, _refusal(client, message, refused))


def _refusal(client: int, message: m.QuoteRequest | m.Buy, refused: NotSold) -> m.QuoteRefused:
    code = _CODES.get(refused.code, refused.code)
    reason = told_of(Obstacle(code, refused.reason, refused.client), to=client)
    return m.QuoteRefused(
        attempt_id=message.attempt_id,
        quote_id=message.quote_id if isinstance(message, m.Buy) else b"",
        code=code,
        reason=reason[: m.REASON_SIZE_MAX],
        missing_msat=refused.missing_msat,
        next_factory=int(code in NO_MORE_HERE),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a client could buy now.

    Attributes:
        purchase: How much.
        leaf: As it is.
        after: As it would be.
        usable_blocks: For how many blocks it would be of use.
        price_msat: What it costs.
        covered_sat: What poisons would cover of the buyer's balance.
    """

    purchase: Purchase
    leaf: Leaf
    after: Leaf
    usable_blocks: int
    price_msat: int
    covered_sat: int

    @property
    def amount_sat(self) -> int:
        """What the L-stock loses."""
        return self.leaf.allocation.lstock_sat - self.after.allocation.lstock_sat


def _quote(turn: Turn[Factory], node_id: bytes, client: int, message: m.QuoteRequest) -> None:
    quoted, height = turn.state.quoted, turn.height
    if quoted.asked_at(client, height) >= QUOTES_PER_BLOCK:
        reason = (
            f"expected at most {QUOTES_PER_BLOCK} requests between two blocks, received more; a "
            f"purchase that comes to nothing counts as {VAIN_PURCHASE_ASKS}"
        )
        raise NotSold("too_many_requests", reason)
    turn.note(QuoteCounted(client=client))
    offer = offer_of(turn, client, message.amount_sat)
    if message.payment_hash:
        check_can_skim(turn, client, message.payment_hash, offer.price_msat)
    else:
        check_can_pay(channel_of(turn.state, client), offer.price_msat)
    state_index = len(offer.leaf.states)
    given = QuoteGiven(
        client=client,
        quote_id=_quote_id(turn.state, client, offer, height=height),
        amount_sat=offer.amount_sat,
        state_index=state_index,
        price_msat=offer.price_msat,
        until_height=min(height + QUOTE_BLOCKS, last_height(turn.state, client)),
        payment_hash=message.payment_hash,
    )
    turn.note(given)
    place = offer.leaf.clients.index(client)
    turn.send(
        node_id,
        m.Quote(
            attempt_id=message.attempt_id,
            quote_id=given.quote_id,
            amount_sat=given.amount_sat,
            capacity_sat=offer.after.allocation.capacities_sat[place],
            price_msat=given.price_msat,
            state_index=state_index,
            needed=_needed(turn, offer.leaf),
            sales_left=offer.after.sales_left,
            covered_sat=offer.covered_sat,
            valid_until_height=given.until_height,
            usable_blocks=offer.usable_blocks,
        ),
    )


def offer_of(turn: Turn[Factory], client: int, amount_sat: int) -> Offer:
    """Return what a client could buy now, whoever is online and whatever it has.

    Args:
        turn: The decision so far.
        client: Its participant index.
        amount_sat: What the L-stock would lose; 0 for all of it.

    Raises:
        NotSold: If nothing is sold so: names what is in the way.
    """
    state, price = turn.state, turn.facts.directory.sale_price()
    if not price.is_for_sale:
        raise NotSold("not_for_sale", "this LSP sells no liquidity at present")
    leaf = _sellable_leaf(turn, client)
    usable = _usable_blocks(turn, client)
    lstock_sat = leaf.allocation.lstock_sat
    is_all = amount_sat in {ALL_OF_IT, lstock_sat}
    if amount_sat < price.min_sat and not is_all:
        reason = (
            f"amount_sat: expected at least {price.min_sat}, or all {lstock_sat} that are left, "
            f"received {amount_sat}"
        )
        raise NotSold("amount_too_small", reason)
    purchase = Purchase(buyer=client, amount_sat=None if is_all else amount_sat)
    try:
        after = leaf.sold(purchase)
    except AdvanceRefused as refused:
        raise NotSold("no_stock", str(refused)) from refused
    shallow = problem_with_depth(state, after)
    if shallow is not None:
        raise NotSold(*shallow)
    sold_sat = lstock_sat - after.allocation.lstock_sat
    return Offer(
        purchase=purchase,
        leaf=leaf,
        after=after,
        usable_blocks=usable,
        price_msat=price_msat(price, amount_sat=sold_sat, usable_blocks=usable),
        covered_sat=covered_after(channel_of(state, client), leaf, purchase),
    )


def _sellable_leaf(turn: Turn[Factory], client: int) -> Leaf:
    """Return a client's leaf, if something may be sold of it.

    Raises:
        NotSold: If our chain is stale, the channel is not there yet, an advance is under way, or no
            sale is left.
    """
    problem = problem_of(turn.state, turn.facts, client)
    if problem is not None and problem.code == "sold_out":
        leaf = turn.state.attempt.leaf(client)
        has_stock = len(leaf.states) == leaf.terms.states_per_layer
        why = f"all {len(leaf.states) - 1} sales are made" if has_stock else "the stock is used up"
        raise NotSold("no_sales_left", f"{why}: there is no sale left in this leaf")
    if problem is not None:
        raise NotSold(*problem)
    return turn.state.attempt.leaf(client)


def _usable_blocks(turn: Turn[Factory], client: int) -> int:
    """Return for how many blocks a purchase of now is of use.

    Raises:
        NotSold: If it is too late.
    """
    link, height = channel_of(turn.state, client), turn.known_height
    patience_blocks = turn.state.attempt.terms.patience_blocks
    usable = usable_blocks(
        height=height,
        exit_deadline_height=link.exit_deadline_height,
        patience_blocks=patience_blocks,
    )
    if usable == 0:
        reason = (
            f"height: expected at most {last_height(turn.state, client)}, received {height}: "
            "nothing bought now would be of use for long enough"
        )
        raise NotSold("too_late", reason)
    return usable


def last_height(state: Factory, client: int) -> int:
    """Return the last height at which an advance of a client's leaf may begin."""
    return advance_height_max(
        exit_deadline_height=channel_of(state, client).exit_deadline_height,
        patience_blocks=state.attempt.terms.patience_blocks,
    )


def _check_neighbours(state: Factory, leaf: Leaf, purchase: Purchase) -> None:
    """Check that no neighbour would own more than poisons cover: it would not agree.

    Of the buyer its own operator decides. Asked of a purchase and of no quote: quotes are free, and
    their answers would tell a neighbour's balance, amount by amount. A purchase that is refused for
    it counts as one that came to nothing.

    Raises:
        NotSold: If one would; its number is not said, nor how much it has.
    """
    for client in leaf.clients:
        if client == purchase.buyer:
            continue
        link = channel_of(state, client)
        if owed_msat(link.state) > covered_after(link, leaf, purchase) * MSAT_PER_SAT:
            reason = "a neighbour in the leaf owns more than would be covered: it would not agree"
            raise NotSold(NOT_COVERED, reason)


def check_can_pay(link: Link, price: int) -> None:
    """Check that a client's balance carries a price.

    Args:
        link: Its channel.
        price: In msat.

    Raises:
        NotSold: If it does not: names the missing amount.
    """
    if can_pay(link.state, price):
        return
    payable = payable_msat(link.state)
    most = told.msat(max(0, payable))
    reason = f"price_msat: expected at most {most} by the balance, received {told.msat(price)}"
    raise NotSold("insufficient_balance", reason, missing_msat=price - max(0, payable))


def check_can_skim(turn: Turn[Factory], client: int, payment_hash: bytes, price: int) -> None:
    """Check that a payment waits here that can pay a price: we advance nothing else for it.

    It pays for all that its payee buys out of it.

    Args:
        turn: The decision so far.
        client: Its participant index.
        payment_hash: Of the payment.
        price: What is to be kept of it, in msat.

    Raises:
        NotSold: If none waits, or it brings no more than that.
    """
    node_id = turn.state.attempt.seats[client - 1].node_id
    waiting_msat = turn.facts.directory.waiting_msat(node_id, payment_hash)
    if not waiting_msat:
        reason = "no payment with this hash waits here for your channel to have room"
        raise NotSold("payment_not_here", reason)
    elsewhere_msat = turn.facts.directory.kept_msat(
        node_id, payment_hash, besides=turn.state.stream
    )
    if elsewhere_msat is None:
        raise NotSold("busy", "you buy out of this payment in another factory: wait for that")
    left_msat = waiting_msat - turn.state.kept_msat(client, payment_hash) - elsewhere_msat
    if left_msat <= price:
        left = told.msat(left_msat)
        reason = f"price_msat: expected less than the payment's {left}, received {told.msat(price)}"
        raise NotSold("insufficient_balance", reason, missing_msat=price - left_msat + 1)


def _sell(turn: Turn[Factory], client: int, message: m.Buy) -> None:
    """Begin the advance that a client agreed to pay for.

    Raises:
        NotSold: If the quote is not what is offered any more, or somebody is away.
    """
    quote = turn.state.quoted.newest.get(client)
    if quote is None or quote.quote_id != message.quote_id:
        raise NotSold("quote_unknown", "no such quote was given in this run, or a newer one was")
    if quote.payment_hash != message.payment_hash:
        raise NotSold("quote_unknown", "payment_hash: expected the quote's, received another")
    if turn.known_height > quote.until_height:
        reason = f"height: expected at most {quote.until_height}, received {turn.known_height}"
        raise NotSold("quote_expired", reason)
    offer = offer_of(turn, client, quote.amount_sat)
    if quote.state_index != len(offer.leaf.states):
        reason = f"state_index: expected {len(offer.leaf.states)}, received {quote.state_index}"
        raise NotSold("quote_expired", reason)
    if quote.payment_hash:
        check_can_skim(turn, client, quote.payment_hash, quote.price_msat)
    else:
        check_can_pay(channel_of(turn.state, client), quote.price_msat)
    _check_neighbours(turn.state, offer.leaf, offer.purchase)
    away = [one.client for one in _needed(turn, offer.leaf) if not one.is_online]
    if away:
        told = ", ".join(map(str, away))
        raise NotSold("client_away", f"the whole leaf has to be online; away: client {told}")
    advancing.begin(
        turn,
        Sale(
            buyer=client,
            amount_sat=offer.purchase.amount_sat,
            quote_id=quote.quote_id,
            state_index=quote.state_index,
            price_msat=quote.price_msat,
            payment_hash=quote.payment_hash,
        ),
    )


def _needed(turn: Turn[Factory], leaf: Leaf) -> tuple[NeededOnline, ...]:
    """Return who has to be online for an advance of a leaf, and who is."""
    seats, directory = turn.state.attempt.seats, turn.facts.directory
    return tuple(
        NeededOnline(
            client=client, is_online=int(directory.is_connected(seats[client - 1].node_id))
        )
        for client in leaf.clients
    )


def channel_of(state: Factory, client: int) -> Link:
    """Return a client's channel, where something may be sold of its leaf.

    Raises:
        NotSold: If it is not there yet.
    """
    link = link_of(state, client)
    if link is None:
        raise NotSold(*blocked_by(client, "its channel is not ready"))
    return link


def _quote_id(state: Factory, client: int, offer: Offer, *, height: int) -> bytes:
    """Return a name that no other quote of this run has."""
    numbers = (
        client,
        offer.amount_sat,
        offer.price_msat,
        len(offer.leaf.states),
        height,
        state.quoted.n_given,
    )
    told = b"".join(number.to_bytes(8, "big") for number in numbers)
    return _QUOTE_HASH(state.attempt.attempt_id + told)
