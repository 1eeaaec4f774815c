"""What a client checks of an advance, against its own chain, its own leaf and what it bought.

Nothing the LSP says is believed: the next state, the commitments on it and the poisons are the
client's own. That a view of the chain differs is a reason to refuse, and never a fault.
"""

from dataclasses import dataclass

from cromford import told
from cromford.factory.allocation import AdvanceRefused, Allocation
from cromford.factory.leaf import Leaf, advance_height_max, advance_id_of
from cromford.protocol.advancing.making import STEP_BLOCKS_MIN, leaf_with_next, missing_msat
from cromford.protocol.channels.coverage import check_covered
from cromford.protocol.channels.depth import problem_with_growth
from cromford.protocol.channels.htlc_rules import is_alive
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.advances import ClientAdvance
from cromford.protocol.journal.client_attempt import ClientAttempt, Complete
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.wire import messages as m


@dataclass(frozen=True, slots=True, kw_only=True)
class Advancing:
    """A channel of ours whose leaf may be advanced now, with the state that is made."""

    attempt: ClientAttempt
    link: Link
    leaf: Leaf


def check_may_begin(
    state: ClientState, known: ClientAdvance | None, message: m.AdvancePropose
) -> None:
    """Check that a try of an advance is not one too many, and that no other is under way.

    Raises:
        Refusal: If it is.
    """
    if not state.may_advance(message.attempt_id):
        raise Refusal("advance", expected="fewer in these blocks", received="one more")
    if known is not None:
        _check("advance_id", message.advance_id, known.advance_id)


def check_propose(turn: Turn[ClientState], message: m.AdvancePropose) -> Advancing:
    """Check an advance that we have not heard of, as everything is now.

    Raises:
        Refusal: If we take no part in it; names the field.
    """
    attempt, link = _channel(turn, message.attempt_id)
    _check("terms_hash", message.terms_hash, attempt.terms_hash)
    _check_link(turn, attempt, link)
    leaf = attempt.leaf
    _check_race(leaf)
    _check("state_index", message.state_index, len(leaf.states))
    _check_chain(turn, attempt, link, leaf)
    allocation = Allocation(
        capacities_sat=tuple(one.capacity_sat for one in message.channels),
        lstock_sat=message.lstock_sat,
    )
    try:
        after = leaf.advanced(allocation)
    except AdvanceRefused as error:
        raise Refusal(error.field, expected=error.expected, received=error.received) from error
    advance_id = advance_id_of(
        leaf,
        attempt_id=message.attempt_id,
        state_index=message.state_index,
        allocation=allocation,
    )
    _check("advance_id", message.advance_id, advance_id)
    _check_depth(turn, attempt, after)
    _check_purchase(turn.state, after, link, message)
    _check_price(link, message.price_msat)
    _check_covered(turn.state, link, after, quote_id=message.quote_id)
    return Advancing(attempt=attempt, link=link, leaf=after)


def check_still(turn: Turn[ClientState], advance: ClientAdvance) -> Advancing:
    """Check that we may still take part in an advance that we found right, and have not signed.

    Raises:
        Refusal: If not; names the field.
    """
    attempt_id = turn.book.links[advance.channel_id].attempt_id
    attempt, link = _channel(turn, attempt_id)
    _check_link(turn, attempt, link)
    _check_chain(turn, attempt, link, attempt.leaf)
    after = next_leaf(attempt, advance)
    _check_depth(turn, attempt, after)
    _check_purchase(turn.state, after, link, advance)
    _check_price(link, advance.price_msat)
    _check_covered(turn.state, link, after, quote_id=advance.quote_id)
    return Advancing(attempt=attempt, link=link, leaf=after)


def next_leaf(attempt: ClientAttempt, advance: ClientAdvance) -> Leaf:
    """Return our leaf with the state that an advance makes."""
    return leaf_with_next(
        attempt.leaf, state_index=advance.state_index, allocation=advance.allocation
    )


def _channel(turn: Turn[ClientState], attempt_id: bytes) -> tuple[ClientAttempt, Link]:
    attempt = turn.state.attempt_with(turn.state.lsp_node_id, attempt_id)
    if attempt is None or not isinstance(attempt.stage, Complete):
        raise Refusal("attempt_id", expected="a factory of ours", received=attempt_id)
    link = turn.book.links.get(attempt.setting.channel_id)
    if link is None or not attempt.is_ready_on_both_sides:
        raise Refusal("channel", expected="ready on both sides", received="not ready")
    return attempt, link


def _check_link(turn: Turn[ClientState], attempt: ClientAttempt, link: Link) -> None:
    """Check that our channel is open, that its store is our newest, and that nobody leaves it."""
    if link.may_lack_state or attempt.is_marked or link.peer_is_behind:
        raise Refusal("store", expected="our newest on both sides", received="a restored one")
    if not link.is_open:
        raise Refusal("channel", expected="open", received=link.failure or "not connected")
    if attempt.is_exiting or attempt.is_retired:
        raise Refusal("channel", expected="one that we stay in", received="we leave it")
    if any(close.is_live(turn.chain) for close in link.closes) or any(
        closing.attempt_id == attempt.attempt_id for closing in turn.state.closing.values()
    ):
        raise Refusal("close", expected="none that may be finished", received="one")
    if not is_alive(link, turn.chain):
        raise Refusal("channel", expected="alive on chain", received="closed, or cut off")


def _check_race(leaf: Leaf) -> None:
    if leaf.terms.step_blocks < STEP_BLOCKS_MIN:
        raise Refusal(
            "step_blocks",
            expected=f"at least {STEP_BLOCKS_MIN}",
            received=leaf.terms.step_blocks,
        )


def _check_chain(turn: Turn[ClientState], attempt: ClientAttempt, link: Link, leaf: Leaf) -> None:
    why = turn.facts.why_no_risk
    if why is not None:
        raise Refusal("chain", expected="fresh, and a mark that can be written", received=why)
    if leaf.kickoff.tx.txid in turn.chain.confirmed:
        raise Refusal("kickoff", expected="in no block", received="confirmed")
    last_height = advance_height_max(
        exit_deadline_height=link.exit_deadline_height,
        patience_blocks=attempt.terms.patience_blocks,
    )
    if turn.known_height > last_height:
        raise Refusal("height", expected=f"at most {last_height}", received=turn.known_height)


def _check_depth(turn: Turn[ClientState], attempt: ClientAttempt, after: Leaf) -> None:
    """Check that the funding is as deep as what the leaf's channels would hold asks for."""
    problem = problem_with_growth(attempt, turn.chain, after.allocation.capacities_sat)
    if problem is not None:
        least, depth = problem
        raise Refusal("funding", expected=f"at least {least} confirmations", received=depth)


def _check_purchase(
    state: ClientState, after: Leaf, link: Link, asked: m.AdvancePropose | ClientAdvance
) -> None:
    """Check that our channel grows by what we bought, at its price, and by nothing else.

    Again before we sign: what we bought may have ended meanwhile, and its operator was told so; or
    another was bought under the same name, which is the LSP's to choose.
    """
    capacity_sat = after.allocation.capacities_sat[after.clients.index(link.client)]
    if capacity_sat == link.present.capacity_sat:
        _check("price_msat", asked.price_msat, 0)
        _check("quote_id", asked.quote_id, b"")
        return
    purchase = state.purchases.get(asked.quote_id)
    if purchase is None or purchase.attempt_id != link.attempt_id:
        raise Refusal(
            f"capacity_sat of client {link.client}",
            expected=f"{link.present.capacity_sat}, for we bought nothing",
            received=capacity_sat,
        )
    before = after.allocation_at(asked.state_index - 1)
    _check("capacity_sat", capacity_sat, purchase.capacity_sat)
    _check("amount_sat", before.lstock_sat - after.allocation.lstock_sat, purchase.amount_sat)
    _check("price_msat", asked.price_msat, purchase.rebase_price_msat)


def _check_price(link: Link, price_msat: int) -> None:
    lacking_msat = missing_msat(link, price_msat)
    if lacking_msat:
        raise Refusal(
            "price_msat",
            expected=f"at most {told.msat(price_msat - lacking_msat)}, our balance",
            received=price_msat,
        )


def _check_covered(state: ClientState, link: Link, after: Leaf, *, quote_id: bytes) -> None:
    """Check that all that may be ours stays covered, unless our operator takes the risk."""
    purchase = state.purchases.get(quote_id)
    takes_beyond = purchase is not None and purchase.takes_beyond
    if not (takes_beyond or state.config.policy.receive_beyond_coverage):
        check_covered(link, after)


def _check(field: str, received: object, expected: object) -> None:
    if received != expected:
        raise Refusal(field, expected=expected, received=received)
