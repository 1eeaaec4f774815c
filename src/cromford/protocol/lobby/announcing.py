"""A client announces payments that it expects, so that they wait for it longer than any would.

The house remembers a few of each client who has a channel, for as long as they can be paid.
"""

from typing import Final

from cromford.protocol.htlc_blocks import INVOICE_SLACK_BLOCKS, hold_blocks
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.house import House
from cromford.protocol.turn import Turn
from cromford.wire import messages as m

ANNOUNCED_MAX: Final = 16  # Of one client at a time; each is a record, and costs it nothing.
KNOWN_BLOCKS_MAX: Final = 1_008  # A week: what could be paid later is not held.


def on_announced(turn: Turn[House], node_id: bytes, message: m.AnnounceHash) -> None:
    """Remember what a client expects, and tell it for how long that is held."""
    turn.send(
        node_id,
        m.HashAnnounced(
            payment_hash=message.payment_hash, hold_seconds=_agreed(turn, node_id, message)
        ),
    )


def _agreed(turn: Turn[House], node_id: bytes, message: m.AnnounceHash) -> int:
    house = turn.state
    hold_seconds = min(message.hold_seconds, house.config.policy.announced_hold_seconds)
    known = house.expected.of(node_id)
    if message.payment_hash in known:
        return house.expected.hold_seconds(node_id, message.payment_hash)
    if hold_seconds == 0 or node_id not in house.of_client or len(known) >= ANNOUNCED_MAX:
        return 0
    known_blocks = hold_blocks(message.expiry_seconds + hold_seconds)
    if known_blocks > KNOWN_BLOCKS_MAX:
        return 0  # It would be promised, and forgotten before it is paid.
    turn.remember(
        lr.PaymentExpected(
            node_id=node_id,
            payment_hash=message.payment_hash,
            hold_seconds=hold_seconds,
            until_height=house.chain.height + _most_blocks(known_blocks) + 1,
        )
    )
    return hold_seconds


def _most_blocks(expected: int) -> int:
    """Return how many blocks may come where some are expected: they are no clock."""
    return expected + expected // 4 + INVOICE_SLACK_BLOCKS
