"""What both sides do when a state of a leaf lands while, or after, another took its place.

An old state is dead where its poisons may have been given away: `exiting/superseded` ends its
channels. Otherwise it is void, and a channel goes on in it, as soon as both sides have said that it
is six blocks deep.
"""

from typing import Final

from cromford import effects as fx
from cromford.protocol.channels.next_signing import is_settled, is_void
from cromford.protocol.journal.closes import SETTLED_DEPTH
from cromford.protocol.journal.known_chain import KnownChain
from cromford.protocol.journal.link import Link
from cromford.protocol.journal.next_funding import NextFunding
from cromford.protocol.turn import AnyTurn
from cromford.watch.remaining import cut_off_by

SAYS_VOID: Final = "the leaf's old state is six blocks deep: begin again on it"


def is_decided(turn: AnyTurn, link: Link) -> bool:
    """Say whether the chain has decided between a channel's two fundings, six blocks deep.

    For one of them, or for neither.
    """
    following, chain = link.next, turn.chain
    if following is None:
        return False
    return is_void(link, chain) or is_settled(following, chain) or is_gone(link, following, chain)


def is_gone(link: Link, following: NextFunding, chain: KnownChain) -> bool:
    """Say whether neither funding can confirm any more: something else spent what they hang from.

    A close, or a sweep from the expiry on; six blocks deep.
    """
    return any(
        spender.txid != following.funding.outpoint.txid
        and chain.depth(spender.txid) >= SETTLED_DEPTH
        for spender in cut_off_by(link.path, chain.spends)
    )


def has_landed(turn: AnyTurn, link: Link) -> bool:
    """Say whether the state that a channel's next funding is to replace is in a block."""
    return link.next is not None and link.present.outpoint.txid in turn.chain.confirmed


def say_void(turn: AnyTurn, link: Link) -> None:
    """Begin anew with a peer, to say in `channel_reestablish` that the old state is six deep.

    Once in a connection: whichever side sees it last is the last to hang up.
    """
    following = link.next
    if following is None or following.said_void or link.failure is not None:
        return
    if link.state.is_connected and is_void(link, turn.chain):
        turn.ask(fx.Disconnect(node_id=link.node_id, reason=SAYS_VOID, is_ours=True))
