"""What an advance makes, as both sides compute it: the leaf with its next state, and its name."""

from typing import Final

from cromford.channel.commitment import Commitment
from cromford.channel.rebase import payable_msat
from cromford.channel.stage import Edition, HtlcStage
from cromford.factory.allocation import Allocation
from cromford.factory.leaf import Leaf
from cromford.protocol.journal.intents import intent_of, intent_of_poison
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.opening_records import Intent

FACTORY_NONCES: Final = 2  # Of the factory key: the state's, then the L-stock's poison's.
CHANNEL_NONCES: Final = 3  # Of a channel's key: our commitments n and n + 1, then its poison's.
STATE_NONCE: Final = 0
STOCK_NONCE: Final = 1
POISON_NONCE: Final = 2
# A step of one block leaves nobody half of it to publish the newer state in.
STEP_BLOCKS_MIN: Final = 2


def leaf_with_next(leaf: Leaf, *, state_index: int, allocation: Allocation) -> Leaf:
    """Return a leaf with the state that is made; its own where that is signed already.

    Raises:
        AdvanceRefused: If no sale leads there.
    """
    return leaf if len(leaf.states) > state_index else leaf.advanced(allocation)


def own_intents(leaf: Leaf, state_index: int) -> tuple[Intent, ...]:
    """Return what we sign: the state, and the poisons of the one before that we sign for."""
    poisons = leaf.poisons(state_index - 1)
    return (
        intent_of(leaf.states[state_index]),
        *(intent_of_poison(poison) for poison in poisons),
    )


def own_latest(link: Link) -> Commitment:
    """Return our latest commitment, on the channel's next funding."""
    if link.next is None:
        raise AssertionError("there is no next funding")
    content = link.state.content(link.me, Edition.SIGNED)
    return link.commitment(content, link.own_point, link.next.funding)


def peer_latest(link: Link) -> Commitment:
    """Return the peer's latest commitment, on the next funding of a channel that is quiet."""
    if link.next is None:
        raise AssertionError("there is no next funding")
    content = link.state.content(link.state.peer, Edition.SIGNED)
    return link.commitment(content, link.state.peer_point, link.next.funding)


def lies_on_next(link: Link) -> bool:
    """Say whether the latest commitments of both sides are on the next funding, too."""
    following = link.next
    return (
        following is not None
        and following.own is not None
        and following.own.number == link.state.own_signed
        and link.state.peer_signed in following.given
    )


def is_rebased(link: Link, leaf: Leaf, state_index: int) -> bool:
    """Say whether a channel's present funding is in a state of its leaf, or in a newer one."""
    txids = [state.tx.txid for state in leaf.states[state_index:]]
    return link.present.outpoint.txid in txids


def is_quiet_at_our_side(link: Link) -> bool:
    """Say whether nothing that we said about a channel is on its way.

    What the peer said may be: its own word that it is quiet comes after it.
    """
    state = link.state
    if state.unacked or state.awaits_revocation or state.rebase is not None:
        return False
    return all(
        live.stage >= HtlcStage.LOCKED_IN
        if live.htlc.offered_by is state.me
        else live.stage <= HtlcStage.LOCKED_IN
        for live in state.htlcs
    )


def sold_sat(leaf: Leaf, state_index: int) -> int:
    """Return what the L-stock lost by a sale."""
    before, after = leaf.allocation_at(state_index - 1), leaf.allocation_at(state_index)
    return before.lstock_sat - after.lstock_sat


def missing_msat(link: Link, price_msat: int) -> int:
    """Return what the client's balance lacks of a price, on either side's next commitment."""
    return max(0, price_msat - payable_msat(link.state))
