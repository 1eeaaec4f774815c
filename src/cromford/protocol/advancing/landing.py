"""What both sides do when a state of a leaf lands while, or after, another took its place.

An old state is dead where its poisons may have been given away: `exiting/superseded` ends its
channels. Otherwise it is void, and a channel goes on in it, as soon as both sides have said that it
is six blocks deep.
"""

from typing import Final

from cromford import effects as fx
from cromford.protocol.channels.next_signing import is_settled, is_void
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import AnyTurn

SAYS_VOID: Final = "the leaf's old state is six blocks deep: begin again on it"


def is_decided(turn: AnyTurn, link: Link) -> bool:
    """Say whether the chain has decided between a channel's two fundings, six blocks deep."""
    following = link.next
    return is_void(link, turn.chain) or (
        following is not None and is_settled(following, turn.chain)
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
