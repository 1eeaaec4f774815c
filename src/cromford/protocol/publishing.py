"""What our node says of what we publish: that it takes something no more is remembered once.

Whatever is owed is published at every block, and refused as often; the journal has each kind of
reason once, and not every number in it.
"""

from typing import Final

from cromford.protocol import events as ev
from cromford.protocol.journal import records as r
from cromford.protocol.journal.known_chain import refusal_kind
from cromford.protocol.turn import ChainTurn

KINDS_PER_TX_MAX: Final = 8  # A node knows few; more would only fill the journal.
REASON_SIZE_MAX: Final = 500


def on_refused(turn: ChainTurn, event: ev.BroadcastRefused) -> None:
    """Remember that a transaction of ours is refused, if it was not for such a reason before."""
    txid = event.asked.tx.txid
    known = turn.chain.refused.get(txid, ())
    is_news = refusal_kind(event.reason) not in known and len(known) < KINDS_PER_TX_MAX
    if is_news and txid not in turn.chain.confirmed:
        turn.remember(
            r.BroadcastRefusalSeen(
                name=event.asked.name, txid=txid, reason=event.reason[:REASON_SIZE_MAX]
            )
        )
