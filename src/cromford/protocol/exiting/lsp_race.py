"""What an LSP may do so that a state of the tree confirms in time, though it leaves no channel."""

from cromford.bitcoin.tx import Tx
from cromford.channel.terms import MSAT_PER_SAT
from cromford.factory.outputs import OutputKind
from cromford.factory.vertices import TreeNode
from cromford.protocol.channels.balances import balance_of
from cromford.protocol.exiting.confirming import unspent_of
from cromford.protocol.journal.factory import Factory
from cromford.watch.bumping import Bumping
from cromford.watch.feerates import OwnFees
from cromford.watch.schedule import (
    scheduled_budget_sat,
    scheduled_sat_per_kw,
    state_deadline_height,
)


def of_state(state: Factory, node: TreeNode, tx: Tx, fees: OwnFees) -> Bumping | None:
    """Return what may be done for a state; None where nothing of ours is the better for it.

    An older state, if there is one, must not come first: what is ours below is lost then, so half
    of that may go for the race, and from the deadline on all but dust. And from the expiry on what
    is below is ours to take. Else whoever started its clock pays.
    """
    chain, terms = state.chain, state.attempt.terms
    kickoff_height = chain.confirmed.get(tx.inputs[0].outpoint.txid)
    if kickoff_height is None:
        return None
    deadline_height = state_deadline_height(
        node, kickoff_height=kickoff_height, step_blocks=terms.step_blocks
    )
    if deadline_height is None and chain.height < terms.expiry_height:
        return None
    return Bumping(
        fee_sat=node.fee_sat,
        feerate_sat_per_kw=scheduled_sat_per_kw(
            fees,
            deadline_height=deadline_height,
            first_height=state.published.get(tx.inputs[0].outpoint, chain.height),
            height=chain.height,
        ),
        budget_sat=scheduled_budget_sat(
            _own_below_sat(state, node),
            fees,
            deadline_height=deadline_height,
            height=chain.height,
        ),
        fees=fees,
        purse=unspent_of(state.purses.get(tx.inputs[0].outpoint), chain),
    )


def _own_below_sat(state: Factory, node: TreeNode) -> int:
    """Return what is ours below a transaction of the tree: balances, and L-stocks."""
    clients = set(node.shape.clients)
    balances_msat = sum(
        balance_of(link).own_msat for link in state.book.links.values() if link.client in clients
    )
    lstock_sat = sum(
        output.amount_sat
        for below in state.attempt.tree.nodes
        if clients.issuperset(below.shape.clients)
        for output in below.outputs
        if output.kind is OutputKind.LSTOCK
    )
    return balances_msat // MSAT_PER_SAT + lstock_sat
