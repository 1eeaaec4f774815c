"""When an advance may begin, or go on, at the LSP: its chain, a leaf's clients, their channels.

Nothing that a client signed is given up by these rules: what is signed is finished with the same
bytes, whatever is true then.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from cromford import told
from cromford.channel.rebase import can_pay
from cromford.factory.allocation import AdvanceRefused, Purchase
from cromford.factory.leaf import Leaf, advance_height_max
from cromford.protocol.advancing.making import STEP_BLOCKS_MIN, missing_msat
from cromford.protocol.advancing.sales import NotSold, Sale
from cromford.protocol.channels.depth import problem_with_growth
from cromford.protocol.channels.seats import link_of
from cromford.protocol.facts import Facts
from cromford.protocol.journal.advances import LspAdvance
from cromford.protocol.journal.closes import is_frozen
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.watch.remaining import is_cut_off

# Whoever lets that many deadlines pass in a row is not asked again for a day.
STALLS_MAX: Final = 2
STALL_BLOCKS: Final = 144
RESTORED: Final = "a store was restored from a backup"  # It signs no state.


class Obstacle(NamedTuple):
    """What is in the way of an advance: a code for programs, a reason for people.

    Attributes:
        code: As in `NotSold`.
        reason: For whoever may read all of it.
        client: Whose own business the reason is, by its participant index; None if nobody's.
    """

    code: str
    reason: str
    client: int | None = None


def blocked_by(client: int, why: str) -> Obstacle:
    """Return that a client of a leaf is in the way of it, and why."""
    return Obstacle("leaf_blocked", f"client {client}: {why}", client)


def told_of(problem: Obstacle, *, to: int | None = None) -> str:
    """Return what a leaf's clients hear of an obstacle: of one of them, only that it is in the way.

    Why is that client's own business. It may be what it owns, or that its store was restored.

    Args:
        problem: The obstacle.
        to: Who alone hears it, by its participant index, and all of it where it is its own; None:
            all of the leaf.
    """
    if problem.client is None or problem.client == to:
        return problem.reason
    return f"client {problem.client} is in the way"


def problem_with_sale(state: Factory, facts: Facts, client: int) -> str | None:
    """Return why nothing can be sold in a client's leaf now, whoever is online; None if it can.

    Args:
        state: The factory.
        facts: What is true now.
        client: The buyer's participant index.
    """
    problem = problem_of(state, facts, client)
    return None if problem is None else problem.reason


def problem_of(state: Factory, facts: Facts, client: int) -> Obstacle | None:
    """Return the same, with a code."""
    if state.begun is None or state.attempt.funded is None:
        return Obstacle("not_funded", "the factory is not funded")
    name = state.attempt.leaf_name(client)
    if name in state.advances:
        return Obstacle("busy", "an advance of this leaf is under way")
    leaf = state.attempt.leaf(client)
    return (
        problem_with_time(state, facts, leaf)
        or _problem_with_index(leaf)
        or problem_with_clients(state, facts, leaf.clients)
        or problem_with_closes(state, leaf.clients)
    )


def problem_with_time(state: Factory, facts: Facts, leaf: Leaf) -> Obstacle | None:
    """Return what of the chain is in the way: what we see of it, the leaf in it, its height."""
    attempt, chain = state.attempt, state.chain
    if facts.why_no_risk is not None:
        return Obstacle("not_fresh", facts.why_no_risk)
    shallow = problem_with_depth(state, leaf)
    if shallow is not None:
        return shallow
    if leaf.kickoff.tx.txid in chain.confirmed:
        return Obstacle("on_chain", "the leaf's kickoff is on chain")
    deadlines = (link.exit_deadline_height for link in links_of(state, leaf.clients))
    last_height = advance_height_max(
        exit_deadline_height=min(deadlines, default=0),
        patience_blocks=attempt.terms.patience_blocks,
    )
    height = max(chain.height, facts.header_height)
    if height > last_height:
        return Obstacle("too_late", f"height: expected at most {last_height}, received {height}")
    return None


def problem_with_depth(state: Factory, leaf: Leaf) -> Obstacle | None:
    """Return whether the funding is too shallow for what a leaf's newest state pays its channels.

    Asked of the leaf as it is, and as it would be: what is bought may make a channel a large one.
    """
    problem = problem_with_growth(state.attempt, state.chain, leaf.allocation.capacities_sat)
    if problem is None:
        return None
    reason = "the factory's funding is not deep enough: expected {}, received {} confirmations"
    return Obstacle("not_funded", reason.format(*problem))


def _problem_with_index(leaf: Leaf) -> Obstacle | None:
    if leaf.terms.step_blocks < STEP_BLOCKS_MIN:
        reason = f"expected at least {STEP_BLOCKS_MIN}, received {leaf.terms.step_blocks}"
        return Obstacle("no_race", f"step_blocks: {reason}")
    if leaf.sales_left < 1:
        return Obstacle("sold_out", "nothing is left to sell: by the states left, or the L-stock")
    return None


def problem_with_clients(state: Factory, facts: Facts, clients: Iterable[int]) -> Obstacle | None:
    """Return which client of a leaf is in the way, wherever it is; None if none is."""
    for client in clients:
        problem = _problem_with_client(state, facts, client)
        if problem is not None:
            return blocked_by(client, problem)
    return None


def _problem_with_client(state: Factory, facts: Facts, client: int) -> str | None:
    if client in state.held_keys | state.lost_keys:
        return "it moved out"
    if client in state.closed_seats:
        return "its channel was closed"
    if client in state.exits:
        return "its channel is being left"
    link = link_of(state, client)
    if link is None:
        return "its channel is not ready"
    if link.failure is not None:
        return "its channel failed"  # Not why: its neighbours hear of this, in refusals.
    if link.mark is not None or link.peer_is_behind:
        return RESTORED
    chain = state.chain
    if link.present.outpoint in chain.spends or is_cut_off(link.path, chain.spends):
        return "its channel's output, or one above it, was spent otherwise"
    return problem_with_stall(state, facts, client)


def problem_with_stall(state: Factory, facts: Facts, client: int) -> str | None:
    """Return why a client is not asked now: it let too many deadlines pass in a row."""
    stall = state.stalls.get(client)
    if stall is None or stall.n_missed < STALLS_MAX:
        return None
    until = stall.height + STALL_BLOCKS
    if max(state.chain.height, facts.header_height) >= until:
        return None
    return f"it let {stall.n_missed} deadlines pass: not asked before height {until}"


def problem_with_closes(state: Factory, clients: Sequence[int]) -> Obstacle | None:
    """Return which close of a leaf, or above it, may still be finished; None if none may."""
    closing = state.closing
    if closing is not None and set(closing.clients) & set(clients):
        return Obstacle("closing", "a close is being agreed on")
    outpoints = {
        outpoint
        for link in links_of(state, clients)
        for outpoint in (link.present.outpoint, *(step.outpoint for step in link.path))
    }
    for link in state.book.links.values():
        for close in link.closes:
            if close.outpoint in outpoints and close.is_live(state.chain):
                return Obstacle(
                    "closing", f"client {link.client} signed a close of {close.outpoint}"
                )
        if link.client in clients and is_frozen(link.closes, state.chain):
            return Obstacle("closing", f"client {link.client}: its channel was closed together")
    return None


def problem_with_presence(state: Factory, facts: Facts, clients: Sequence[int]) -> Obstacle | None:
    """Return which client of a leaf is not here, or has no open channel now; None if all have."""
    directory, seats = facts.directory, state.attempt.seats
    away = [one for one in clients if not directory.is_connected(seats[one - 1].node_id)]
    if away:
        return Obstacle("offline", f"clients {away} are not connected")
    for client in clients:
        link = link_of(state, client)
        if link is None or not link.is_open:
            return Obstacle("offline", f"client {client}: its channel is not open yet")
        if link.quiet_for:
            return Obstacle("closing", f"client {client}: something is being agreed on")
    return None


def problem_with_price(link: Link, price_msat: int) -> Obstacle | None:
    """Return whether the buyer's balance does not carry a price now."""
    if can_pay(link.state, price_msat):
        return None
    lacking = missing_msat(link, price_msat)
    more = f"{told.msat(lacking)} more than its balance"
    return Obstacle("price", f"price_msat: {told.msat(price_msat)} is {more}", link.client)


def check_sale(state: Factory, facts: Facts, sale: Sale) -> Leaf:
    """Return the leaf after a sale, with the state that is to be made.

    Raises:
        NotSold: If it cannot begin now.
    """
    problem = problem_of(state, facts, sale.buyer)
    if problem is not None:
        raise NotSold(*problem)
    leaf = state.attempt.leaf(sale.buyer)
    if sale.state_index != len(leaf.states):
        reason = f"state_index: expected {len(leaf.states)}, received {sale.state_index}"
        raise NotSold("outdated", reason)
    problem = problem_with_presence(state, facts, leaf.clients)
    if problem is not None:
        raise NotSold(*problem)
    link = link_of(state, sale.buyer)
    if link is None:
        raise NotSold(*blocked_by(sale.buyer, "its channel is not ready"))
    if not sale.payment_hash:
        price = problem_with_price(link, sale.price_msat)
        if price is not None:
            raise NotSold(*price, missing_msat=missing_msat(link, sale.price_msat))
    try:
        after = leaf.sold(Purchase(buyer=sale.buyer, amount_sat=sale.amount_sat))
    except AdvanceRefused as error:
        raise NotSold("amount", str(error)) from error
    problem = problem_with_depth(state, after)
    if problem is not None:
        raise NotSold(*problem)
    return after


def problem_before_signing(
    state: Factory, facts: Facts, advance: LspAdvance, leaf: Leaf
) -> Obstacle | None:
    """Return why an advance that nobody is bound to must not go on; None if it may."""
    problem = (
        problem_with_time(state, facts, leaf)
        or problem_with_clients(state, facts, advance.clients)
        or problem_with_closes(state, advance.clients)
    )
    buyer = link_of(state, advance.buyer)
    if problem is None and buyer is not None:
        problem = problem_with_price(buyer, advance.price_of(advance.buyer))
    return problem


def links_of(state: Factory, clients: Iterable[int]) -> list[Link]:
    """Return the channels of clients that are ready on our side."""
    links = (link_of(state, client) for client in clients)
    return [link for link in links if link is not None]
