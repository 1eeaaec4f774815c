"""Bans: the operator closes the lobby to a node, and opens it again, whatever closed it.

A ban is about new factories. Channels that a node has, and a ceremony that it is in, go on: others
have their money in them, and its own is not the operator's to lock up.
"""

from typing import Final

from cromford import effects as fx
from cromford.crypto.keys import is_pubkey
from cromford.protocol import events as ev
from cromford.protocol.faults import Rejected
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.house import House
from cromford.protocol.policy import BAN_BLOCKS_MAX
from cromford.protocol.turn import Turn

BAN_REASON_SIZE_MAX: Final = 200  # Bytes, in UTF-8: who is banned is told, and until when.
BANS_MAX: Final = 10_000  # Each is in memory, and in each checkpoint of the house.


def on_ban_requested(turn: Turn[House], event: ev.BanRequested) -> None:
    """Close the lobby to a node; if it waits there, part from it: it is told when it comes back.

    Raises:
        Rejected: If it is no node, our own, or there are too many bans.
    """
    house, node_id = turn.state, event.node_id
    _check(house, event)
    turn.remember(
        lr.BanSet(
            node_id=node_id,
            until_height=house.chain.height + event.n_blocks,
            reason=event.reason,
        )
    )
    if node_id in house.members:
        turn.note(lr.ClientLeft(node_id=node_id))
        reason = f"banned: {event.reason}"
        turn.ask(fx.Disconnect(node_id=node_id, reason=reason, is_ours=True))


def _check(house: House, event: ev.BanRequested) -> None:
    if not is_pubkey(event.node_id):
        raise Rejected(
            "invalid_node_id", f"node_id: expected a public key, received {event.node_id.hex()}"
        )
    if event.node_id == house.config.node_id:
        raise Rejected("invalid_node_id", "node_id: expected a peer's, received this LSP's own")
    if not 1 <= event.n_blocks <= BAN_BLOCKS_MAX:
        raise Rejected(
            "invalid_ban", f"blocks: expected 1..{BAN_BLOCKS_MAX}, received {event.n_blocks}"
        )
    size = len(event.reason.encode())
    if not 1 <= size <= BAN_REASON_SIZE_MAX:
        raise Rejected(
            "invalid_ban", f"reason: expected 1..{BAN_REASON_SIZE_MAX} bytes, received {size}"
        )
    if event.node_id not in house.bans and len(house.bans) >= BANS_MAX:
        raise Rejected("too_many_bans", f"bans: expected at most {BANS_MAX}; remove one first")


def on_ban_end_requested(turn: Turn[House], event: ev.BanEndRequested) -> None:
    """Open the lobby to a node again, and forget what closed it.

    Raises:
        Rejected: If it is open to that node.
    """
    if turn.state.pause_of(event.node_id) is None:
        raise Rejected("not_banned", f"node_id: {event.node_id.hex()} is not banned")
    turn.remember(lr.BanLifted(node_id=event.node_id))
