"""What an LSP tells a client whose store lost state: the states of its leaf, and their poisons.

All of it the client signed itself, so nothing is given away by it: a poison leaves only where the
client's channel is rebased away from the state that it takes apart, for then the client held it
once, or where it may leave for anybody.
"""

from collections.abc import Iterator

from cromford.protocol.advancing.agreeing import may_poison_in
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.leaf_states import NOTHING_AGREED
from cromford.protocol.journal.link import Link
from cromford.protocol.turn import Turn
from cromford.wire import messages as m
from cromford.wire.seldom import N_LEAF_STATES_MAX, LeafState
from cromford.wire.selling import AllocatedChannel


def tell_states(turn: Turn[Factory], link: Link) -> None:
    """Send a client that said that its store lost state what its leaf came to."""
    states = tuple(_states(turn, link))[:N_LEAF_STATES_MAX]
    turn.send(link.node_id, m.LeafStates(attempt_id=link.attempt_id, states=states))


def _states(turn: Turn[Factory], link: Link) -> Iterator[LeafState]:
    attempt = turn.state.attempt
    leaf = attempt.leaf(link.client)
    agreed = attempt.leaves.get(attempt.leaf_name(link.client), NOTHING_AGREED)
    left = {funding.outpoint.txid for funding in link.superseded}
    for before, state in zip(leaf.states, agreed, strict=False):
        poisons = state.poisons
        if before.tx.txid not in left and not may_poison_in(turn, leaf):
            poisons = None
        yield LeafState(
            channels=tuple(
                AllocatedChannel(capacity_sat=capacity_sat)
                for capacity_sat in state.allocation.capacities_sat
            ),
            lstock_sat=state.allocation.lstock_sat,
            signature=state.signature,
            stock_poison=b"" if poisons is None else poisons.stock,
            channel_poison=b"" if poisons is None else poisons.channels[link.client],
        )
