"""Up to where a client's money in a channel is covered, once states of its leaf were superseded.

Should one of those confirm, the client gets what its poisons pay, or what the penalty leaves: of
the balance, with all that is on its way to it, what is beyond that is not protected. So a client
agrees to no advance that leaves it beyond it, and takes no HTLC that does; and the LSP, which
knows the same numbers, offers none.
"""

from dataclasses import dataclass
from typing import Final

from cromford import told
from cromford.changed import changed
from cromford.channel.errors import UpdateRefused
from cromford.channel.stage import Edition
from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.allocation import Purchase
from cromford.factory.leaf import Leaf
from cromford.protocol.channels.close_rules import owed_msat
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.advances import ClientAdvance, LspAdvance
from cromford.protocol.journal.client_state import ClientState
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.link import Link
from cromford.protocol.policy import ClientPolicy
from cromford.protocol.turn import AnyTurn, Turn
from cromford.watch.coverage import Fullest, coverage_sat, fullest_of

# What an HTLC is refused for, before a number.
FIELD: Final = "coverage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What of a client's money would be lost, should a superseded state confirm, in msat.

    Attributes:
        balance_msat: Of its balance.
        htlcs_msat: Of the HTLCs that are on their way, to it and from it.
    """

    balance_msat: int
    htlcs_msat: int


def coverage_of(link: Link, leaf: Leaf) -> int | None:
    """Return up to where a client's money is covered, in sat; None while no state is superseded.

    A state that is being replaced counts from then on that both agreed to it.

    Args:
        link: The client's channel, at either side.
        leaf: With all the states that the channel knows of.
    """
    n_superseded = len(link.superseded) + (link.next is not None)
    if not n_superseded:
        return None
    return _coverage_of(link, changed(leaf, states=leaf.states[: n_superseded + 1]))


def covered_after(link: Link, leaf: Leaf, purchase: Purchase) -> int:
    """Return up to where a client's money would be covered after a sale in its leaf, in sat.

    Args:
        link: The client's channel; the buyer may be another.
        leaf: As it is.
        purchase: Who would buy how much.

    Raises:
        AdvanceRefused: If that cannot be sold.
    """
    return _covered_with(link, leaf.sold(purchase))


def check_covered(link: Link, leaf_after: Leaf) -> None:
    """Check that what a client owns, and what is on its way to it, stays covered by an advance.

    Args:
        link: Our channel.
        leaf_after: Our leaf with the state that is proposed.

    Raises:
        Refusal: If it does not; the field is `coverage`.
    """
    covered_msat = _covered_with(link, leaf_after) * MSAT_PER_SAT
    owed = owed_msat(link.state)
    if owed > covered_msat:
        expected = f"{told.msat(owed)} or more of ours"
        raise Refusal(FIELD, expected=expected, received=told.msat(covered_msat))


def coverage_in(state: ClientState | Factory, link: Link) -> int | None:
    """Return up to where a client's money in a channel is covered now, in sat; None if no limit.

    Args:
        state: A client's, or of the LSP's factory.
        link: A channel of it.
    """
    n_superseded = len(link.superseded) + (link.next is not None)
    if not n_superseded:
        return None  # No leaf is built for what nobody ever bought of.
    advance: ClientAdvance | LspAdvance | None
    if isinstance(state, ClientState):
        leaf, advance = state.attempts[link.attempt_id].leaf, state.advances.get(link.attempt_id)
    else:
        leaf = state.attempt.leaf(link.client)
        advance = state.advances.get(state.attempt.leaf_name(link.client))
    if len(leaf.states) <= n_superseded:
        if advance is None:
            return None  # Nothing came of it: that channel takes no update any more.
        leaf = leaf.advanced(advance.allocation)
    return coverage_of(link, leaf)


def limit_in(state: ClientState | Factory, link: Link) -> int | None:
    """Return the coverage that limits what a client is paid, in sat; None where nothing does.

    So where its operator, or the LSP's, takes what is not covered.
    """
    policy = state.config.policy
    if isinstance(policy, ClientPolicy):
        takes_beyond = policy.receive_beyond_coverage
    else:
        takes_beyond = policy.forward_beyond_coverage
    return None if takes_beyond else coverage_in(state, link)


def room_msat(state: ClientState | Factory, link: Link) -> int | None:
    """Return how much more a client may be paid, by its coverage; None if that is no limit."""
    limit_sat = limit_in(state, link)
    return None if limit_sat is None else limit_sat * MSAT_PER_SAT - owed_msat(link.state)


def exposure_of(link: Link, covered_sat: int | None) -> Exposure:
    """Return what of a client's money would be lost, should a superseded state confirm.

    Its balance is covered before its HTLCs.

    Args:
        link: Its channel.
        covered_sat: Up to where it is covered.
    """
    if covered_sat is None:
        return Exposure(balance_msat=0, htlcs_msat=0)
    covered_msat = covered_sat * MSAT_PER_SAT
    content = link.state.content(link.me, Edition.SIGNED)
    balance_msat = max(0, content.accepter_msat - covered_msat)
    beyond_msat = max(0, owed_msat(link.state) - covered_msat)
    return Exposure(balance_msat=balance_msat, htlcs_msat=max(0, beyond_msat - balance_msat))


def why_beyond(turn: Turn[ClientState], link: Link) -> str | None:
    """Return why an HTLC that is locked in is not taken by its client; None if it may be.

    Where more than is covered would be the client's, unless its operator said otherwise.
    """
    limit_sat = limit_in(turn.state, link)
    owed = owed_msat(link.state)
    if limit_sat is None or owed <= limit_sat * MSAT_PER_SAT:
        return None
    return (
        f"{FIELD}: expected at most {told.sat(limit_sat)} of ours, received {told.msat(owed)}: "
        "more is not protected from the leaf's old states"
    )


def check_offer_is_covered(turn: AnyTurn, link_after: Link, *, amount_msat: int) -> None:
    """Check that an HTLC of the LSP's is one that its client would take.

    Args:
        turn: The decision so far.
        link_after: The channel with the HTLC.
        amount_msat: What the HTLC holds.

    Raises:
        UpdateRefused: If it is not; the field is `coverage`.
    """
    state = turn.state
    room = room_msat(state, link_after) if isinstance(state, Factory) else None
    if room is not None and room < 0:
        raise UpdateRefused(
            FIELD,
            expected=f"at most {told.msat(max(0, amount_msat + room))} more, by what of the "
            "client's is covered",
            received=told.msat(amount_msat),
        )


def _covered_with(link: Link, leaf: Leaf) -> int:
    covered_sat = _coverage_of(link, leaf)
    if covered_sat is None:
        raise ValueError("states: expected one that is superseded, received none")
    return covered_sat


def _coverage_of(link: Link, leaf: Leaf) -> int | None:
    fullest = [_fullest_at(link, state_index) for state_index in range(len(leaf.states) - 1)]
    return coverage_sat(leaf, link.client, terms=link.setting.terms, fullest=fullest)


def _fullest_at(link: Link, state_index: int) -> Fullest:
    """Return the LSP's fullest commitment on a state: what was signed, else what its terms allow.

    Until a state is superseded the LSP chooses what is still added on it: whatever may come counts.
    """
    terms = link.setting.terms
    if state_index >= len(link.superseded):
        return fullest_of(terms)
    known = link.fullest_superseded[state_index]
    return fullest_of(terms) if known is None else known
