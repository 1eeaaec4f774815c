"""Inbound liquidity as operators read it: prices, stocks, sales, quotes, and what is under way."""

from collections.abc import Iterable
from typing import Final

from cromford.answers.market import (
    AdvanceUnderWay,
    AskingPrice,
    ChannelLiquidity,
    LeafStock,
    LiquidityQuote,
    LspAdvanceStep,
    OrderedPurchase,
    OwnAdvance,
    OwnAdvanceStep,
    PurchaseReceipt,
    SalesTotals,
    SoldLiquidity,
)
from cromford.daemon.views.payments import known_time
from cromford.factory.leaf import Leaf, usable_blocks
from cromford.protocol.advancing.buying import covered_by, most_owned_sat
from cromford.protocol.advancing.pricing import price_msat
from cromford.protocol.advancing.rules import links_of
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.channels.coverage import coverage_in, exposure_of
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.client_attempt import ClientAttempt
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.entries import FactoryEntry
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.house import House
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import POISONS_HELD, STATE_HELD
from cromford.protocol.journal.purchases import Receipt
from cromford.protocol.journal.quotes import WantedQuote
from cromford.protocol.policy import SalePrice
from cromford.watch.remaining import is_cut_off
from cromford.wire import messages as m

EXAMPLE_SAT: Final = 100_000


# An LSP's


def show_price(price: SalePrice, *, active_blocks: int) -> AskingPrice:
    """Return what an LSP asks, and an example.

    Args:
        price: What it asks.
        active_blocks: For how long a new factory's channels are of use.
    """
    return {
        "is_for_sale": price.is_for_sale,
        "base_msat": price.base_msat,
        "per_million": price.per_million,
        "per_month": price.per_month,
        "min_sat": price.min_sat,
        "example": {
            "amount_sat": EXAMPLE_SAT,
            "usable_blocks": active_blocks,
            "price_msat": price_msat(price, amount_sat=EXAMPLE_SAT, usable_blocks=active_blocks),
        },
    }


def sold_of(entry: FactoryEntry) -> list[SoldLiquidity]:
    """Return what was sold in one factory, oldest first."""
    return [show_sale(entry, place) for place in range(len(entry.sold))]


def show_sale(entry: FactoryEntry, place: int) -> SoldLiquidity:
    """Return one sale of a factory, by its place among its sales."""
    sold = entry.sold[place]
    return {
        "factory_id": entry.attempt_id.hex(),
        "client": sold.client,
        "node_id": entry.node_ids[sold.client - 1].hex(),
        "height": sold.height,
        "quoted_at": known_time(sold.quoted_at),
        "ordered_at": known_time(sold.ordered_at),
        "in_force_at": known_time(sold.in_force_at),
        "amount_sat": sold.amount_sat,
        "capacity_sat": sold.capacity_sat,
        "price_msat": sold.price_msat,
        "advance_id": sold.advance_id.hex(),
        "payment_hash": sold.payment_hash.hex() or None,
    }


def sold_totals(house: House) -> SalesTotals:
    """Return the sums of all sales, wherever they were."""
    market = house.market
    return {
        "n_sold": market.n_sold,
        "sold_sat": market.sold_sat,
        "sold_for_msat": market.earned_msat,
    }


def leaves_of(factory: Factory) -> list[LeafStock]:
    """Return what is left to be sold in each leaf, in placement order; none before the funding."""
    attempt = factory.attempt
    if attempt.funded is None:
        return []
    leaves = (attempt.leaf(shape.clients[0]) for shape in attempt.tree.root.shape.leaves())
    return [
        {
            "leaf": leaf.kickoff.shape.name,
            "clients": list(leaf.clients),
            "state_index": len(leaf.states) - 1,
            "states": leaf.terms.states_per_layer,
            "lstock_sat": leaf.allocation.lstock_sat,
            "sales_left": 0
            if _is_out(factory, leaf)
            else _sales_left(leaf, links_of(factory, leaf.clients), factory.chain),
        }
        for leaf in leaves
    ]


def _is_out(factory: Factory, leaf: Leaf) -> bool:
    """Say whether a client of a leaf is out of it, or on its way: without it nothing is signed."""
    out = {*factory.held_keys, *factory.lost_keys, *factory.closed_seats, *factory.exits}
    return not out.isdisjoint(leaf.clients)


def _sales_left(leaf: Leaf, links: Iterable[Link], chain: KnownChain) -> int:
    """Return how often something can still be sold of a leaf.

    Never again where it is on chain, or something else took its place, and where one of its
    channels is over, closed together, or marked.
    """
    is_over = leaf.kickoff.tx.txid in chain.confirmed or any(
        link.failure is not None
        or link.mark is not None
        or is_cut_off(link.path, chain.spends)
        or is_frozen(link.closes, chain)
        for link in links
    )
    return 0 if is_over else leaf.sales_left


def advances_of(factory: Factory) -> list[AdvanceUnderWay]:
    """Return the advances under way, by the names of their leaves, and who holds out."""
    return [
        {
            "leaf": name,
            "advance_id": advance.advance_id.hex(),
            "buyer": advance.buyer,
            "amount_sat": _amount_sat(factory, advance),
            "price_msat": advance.price_msat,
            "state_index": advance.state_index,
            "step": _step(advance),
            "holdouts": _holdouts(factory, advance),
        }
        for name, advance in sorted(factory.advances.items())
    ]


def _amount_sat(factory: Factory, advance: LspAdvance) -> int:
    """Return what the L-stock loses, or lost, by an advance."""
    leaf = factory.attempt.leaf(advance.buyer)
    before = leaf.allocation_at(advance.state_index - 1)
    return before.lstock_sat - advance.allocation.lstock_sat


def _step(advance: LspAdvance) -> LspAdvanceStep:
    """Return in one word what an advance does.

    `agreeing`: its clients are asked; `signing`: they sign; `waiting`: for somebody to come back;
    `protecting`: they are handed poisons; `rebasing`: channels move to the new state.
    """
    if advance.has_poisons:
        is_held = advance.acknowledged >= frozenset(advance.clients)
        return "rebasing" if is_held else "protecting"
    if advance.session is None:
        return "protecting" if advance.is_signed else "waiting"
    return "signing" if advance.session.is_committed else "agreeing"


def _holdouts(factory: Factory, advance: LspAdvance) -> list[int]:
    """Return the clients whose part an advance waits for."""
    if advance.session is not None:
        return list(advance.holdouts)
    if not advance.is_signed:
        return list(advance.clients)
    moving = {link.client for link in factory.book.links.values() if link.next is not None}
    return [client for client in advance.clients if client in moving]


# A client's


def show_quote(state: ClientState, quote: m.Quote, wanted: WantedQuote) -> LiquidityQuote:
    """Return a quote: what is bought, for what, what it takes, and what poisons would cover.

    `most_owned_sat` is the most that the channel could come to hold for us then. For how long it is
    of use follows from our own exit deadline, whatever the LSP says.
    """
    attempt = state.attempts[quote.attempt_id]
    link = _link(state, attempt)
    if link is None:
        raise AssertionError("a quote without a channel")
    covered_sat = covered_by(attempt, link, quote)
    most_sat = most_owned_sat(link, quote.capacity_sat)
    return {
        "factory_id": quote.attempt_id.hex(),
        "quote_id": quote.quote_id.hex(),
        "amount_sat": quote.amount_sat,
        "price_msat": quote.price_msat,
        "capacity_before_sat": link.state.capacity_sat,
        "capacity_sat": quote.capacity_sat,
        "state_index": quote.state_index,
        "needed": [
            {
                "client": one.client,
                "is_online": bool(one.is_online),
                "is_you": one.client == link.client,
            }
            for one in quote.needed
        ],
        "sales_left": quote.sales_left,
        "covered_sat": covered_sat,
        "most_owned_sat": most_sat,
        "is_covered": covered_sat >= most_sat,
        "valid_until_height": quote.valid_until_height,
        "usable_blocks": usable_blocks(
            height=state.chain.height,
            exit_deadline_height=link.exit_deadline_height,
            patience_blocks=attempt.terms.patience_blocks,
        ),
        "payment_hash": wanted.payment_hash.hex() or None,
    }


def show_receipt(receipt: Receipt) -> PurchaseReceipt:
    """Return a receipt."""
    return {
        "height": receipt.height,
        "quoted_at": known_time(receipt.quoted_at),
        "ordered_at": known_time(receipt.ordered_at),
        "in_force_at": known_time(receipt.in_force_at),
        "amount_sat": receipt.amount_sat,
        "capacity_sat": receipt.capacity_sat,
        "price_msat": receipt.price_msat,
        "advance_id": receipt.advance_id.hex(),
        "payment_hash": receipt.payment_hash.hex() or None,
    }


def receipts_of(state: ClientState, attempt: ClientAttempt) -> list[PurchaseReceipt]:
    """Return what was bought in a factory, oldest first."""
    return [show_receipt(receipt) for receipt in state.receipts.get(attempt.attempt_id, ())]


def liquidity_of(state: ClientState, attempt: ClientAttempt) -> ChannelLiquidity:
    """Return how a client's channel stands in its leaf: what is covered, what is left to buy.

    What is beyond coverage would be lost should a superseded state confirm: of the balance, and of
    the HTLCs on their way, which hold `htlcs_msat` together. `covered_sat` is None while nothing is
    superseded: then all is covered.
    """
    link = _link(state, attempt) if attempt.is_checked else None
    if link is None:
        return _NOTHING
    leaf, balance = attempt.leaf, balance_of(link)
    covered_sat = coverage_in(state, link)
    exposed = exposure_of(link, covered_sat)
    return {
        "state_index": len(leaf.states) - 1,
        "lstock_sat": leaf.allocation.lstock_sat,
        "sales_left": _sales_left(leaf, [link], state.chain),
        "covered_sat": covered_sat,
        "beyond_coverage_msat": exposed.balance_msat,
        "htlcs_beyond_coverage_msat": exposed.htlcs_msat,
        "htlcs_msat": balance.sending_msat + balance.receiving_msat,
        "advance": _client_advance(state, attempt, link, leaf),
        "buying": _buying(state, attempt),
    }


_NOTHING: Final[ChannelLiquidity] = {
    "state_index": None,
    "lstock_sat": None,
    "sales_left": None,
    "covered_sat": None,
    "beyond_coverage_msat": 0,
    "htlcs_beyond_coverage_msat": 0,
    "htlcs_msat": 0,
    "advance": None,
    "buying": None,
}


def _link(state: ClientState, attempt: ClientAttempt) -> Link | None:
    links = state.book.links.values()
    return next((link for link in links if link.attempt_id == attempt.attempt_id), None)


def _client_advance(
    state: ClientState, attempt: ClientAttempt, link: Link, leaf: Leaf
) -> OwnAdvance | None:
    """Return the advance of our leaf that is under way, in one word: what it waits for.

    `proposed`: our channel is to become quiet; `agreed`: the others are to agree; `signed`: the
    LSP is to finish the state; `held`: the LSP is to hand out poisons; `rebasing`: the channel
    moves to the new state.
    """
    advance = state.advances.get(attempt.attempt_id)
    if advance is None:
        return None
    stage = 0 if link.next is None else link.next.stage
    step: OwnAdvanceStep
    if stage >= POISONS_HELD:
        step = "rebasing"
    elif stage >= STATE_HELD:
        step = "held"
    elif advance.is_signed:
        step = "signed"
    else:
        step = "agreed" if advance.is_agreed else "proposed"
    place = leaf.clients.index(link.client)
    return {
        "advance_id": advance.advance_id.hex(),
        "state_index": advance.state_index,
        "step": step,
        "is_ours": bool(advance.quote_id),
        "capacity_sat": advance.allocation.capacities_sat[place],
        "price_msat": advance.price_msat,
    }


def _buying(state: ClientState, attempt: ClientAttempt) -> OrderedPurchase | None:
    """Return the purchase that is ordered, and neither ours nor refused."""
    ordered: Iterable[OrderedPurchase] = (
        {
            "quote_id": quote_id.hex(),
            "amount_sat": purchase.amount_sat,
            "capacity_sat": purchase.capacity_sat,
            "price_msat": purchase.price_msat,
            "payment_hash": purchase.payment_hash.hex() or None,
        }
        for quote_id, purchase in sorted(state.purchases.items())
        if purchase.attempt_id == attempt.attempt_id
    )
    return next(iter(ordered), None)
