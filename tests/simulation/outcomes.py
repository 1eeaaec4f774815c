"""Every ceremony that was begun has one end, and its journal says which."""

from typing import TypeVar

from cromford.protocol.journal import advance_records as ar
from cromford.protocol.journal import close_records as cl
from cromford.protocol.journal import opening_records as op
from cromford.protocol.journal.record import Record
from cromford.protocol.journal.records import StoreRestored
from tests.simulation.sim_node import SimNode, durable

R = TypeVar("R", bound=Record)


def remembered(node: SimNode, kind: type[R]) -> list[R]:
    """Return what a node remembers of one kind, in order."""
    return [record for record in node.store.remembered if isinstance(record, kind)]


def check_outcomes(node: SimNode) -> None:
    """Check that all that a node began is over, once each, for a reason that has a name.

    Raises:
        AssertionError: If of something nothing is known, or no reason is named.
    """
    if node.lsp_node_id is None:
        _check_lsp(node)
    else:
        _check_client(node)
    for aborted in remembered(node, op.AttemptAborted):
        assert aborted.reason, f"{node.name}: an attempt ended, and nobody says why"


def _check_lsp(lsp: SimNode) -> None:
    dropped = remembered(lsp, ar.AdvanceDropped)
    # Whether one that is known still may wait, for who never comes back, is asked elsewhere.
    homes = durable(lsp.state).factories.values()
    known = {one.advance_id for home in homes for one in home.advances.values()}
    assert _advances_under_way(lsp) <= known, "an advance without an outcome"
    assert all(one.reason for one in dropped), "an advance was dropped, and nobody says why"
    begun = {one.close_id for one in remembered(lsp, cl.CloseBegun)}
    ended = remembered(lsp, cl.CloseEnded)
    over = {one.close_id for one in ended}
    over |= {one.close_id for one in remembered(lsp, cl.CloseFinished)}
    assert begun == over, "a close without an outcome"
    assert all(one.reason for one in ended), "a close came to nothing, and nobody says why"


def _advances_under_way(lsp: SimNode) -> set[bytes]:
    """Return which advances have no end. A restore is the end of one that bound nobody."""
    under_way, committed = set[bytes](), set[bytes]()
    for record in lsp.store.remembered:
        match record:
            case ar.AdvanceProposed(advance_id=advance_id):
                under_way.add(advance_id)
            case ar.AdvanceCommitted(advance_id=advance_id):
                committed.add(advance_id)
            case ar.AdvanceDropped(advance_id=advance_id) | ar.AdvanceEnded(advance_id=advance_id):
                under_way.remove(advance_id)
            case StoreRestored():
                under_way &= committed
            case _:
                pass
    return under_way


def _check_client(client: SimNode) -> None:
    ordered = {one.quote_id for one in remembered(client, ar.PurchaseOrdered)}
    ended = {one.quote_id: one.reason for one in remembered(client, ar.PurchaseEnded)}
    assert ordered == ended.keys(), f"{client.name}: a purchase without an end"
    n_bought = len(remembered(client, ar.LiquidityBought))
    assert n_bought == sum(not reason for reason in ended.values())
