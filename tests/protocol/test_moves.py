"""Moves from a dying factory, and an LSP that changes its mind."""

from dataclasses import replace
from functools import cache
from typing import Final

from tests.protocol.attacks import OTHER_ID, at_height, join_of, with_house, with_pool
from tests.protocol.forge import stranger
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump, PumpNode

from cromford.factory.kinds import VertexKind
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.entries import ABORTED
from cromford.protocol.lobby.build import plan_build
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

# Moves


DYING_SOON: Final = LspPolicy(
    min_clients=1, active_blocks=150, ready_min_blocks=100, dying_blocks=144
)


@cache
def dying() -> tuple[Pump, m.Join, m.Join]:
    """Return a factory of two in its dying period, a newcomer, and two of their joins.

    The first join is of a client that moves, the second of the newcomer.
    """
    pump = Pump(3, policy=DYING_SOON)
    old = pump.clients[:2]
    pump.join(*old)
    pump.build()
    pump.run()
    pump.mine(DYING_SOON.active_blocks)
    pump.join(pump.clients[2], old[0])
    return pump, join_of(pump, old[0]), join_of(pump, pump.clients[2])


def test_a_client_of_a_dying_factory_proves_it_and_ranks_first() -> None:
    pump, moving, _ = dying()
    mover, newcomer = pump.clients[0], pump.clients[2]
    (proof,) = moving.moves
    assert proof.attempt_id == pump.attempt.attempt_id
    assert pump.lsp.state.house.members[mover.node_id].is_moving
    assert not pump.lsp.state.house.members[newcomer.node_id].is_moving
    uptime = {**pump.lsp.state.house.uptime, mover.node_id: 0}
    plan = plan_build(replace(pump.lsp.state.house, uptime=uptime), min_clients=1, max_clients=1)
    assert plan.node_ids == (mover.node_id,), "the newcomer's uptime does not outrank it"


def is_taken_for_moving(pump: Pump, sender: PumpNode, join: m.Join, height: int = 0) -> bool:
    state = with_house(pump.lsp.state, members={})
    if height:
        state = at_height(state, height)
    event = ev.MessageReceived(node_id=sender.node_id, message=join)
    (record,) = lsp_role.decide(state, event).records
    assert isinstance(record, lr.ClientJoined)
    return record.is_moving


def test_a_move_is_proven_once_the_dying_period_begins_and_not_before() -> None:
    pump, moving, _ = dying()
    terms = pump.attempt.terms
    begins = terms.exit_deadline_height([VertexKind.DW]) - terms.dying_blocks
    assert is_taken_for_moving(pump, pump.clients[0], moving, height=begins)
    assert not is_taken_for_moving(pump, pump.clients[0], moving, height=begins - 1)


def test_a_replayed_or_forged_move_proves_nothing() -> None:
    pump, moving, fresh = dying()
    (proof,) = moving.moves
    mover, other, newcomer = pump.clients
    claims = {
        "by a newcomer": (newcomer, proof),
        "by another client of the same factory": (other, proof),
        "of another attempt": (mover, replace(proof, attempt_id=OTHER_ID)),
        "with a flipped bit": (
            mover,
            replace(proof, signature=proof.signature[:-1] + bytes((proof.signature[-1] ^ 1,))),
        ),
        "of zeros": (mover, replace(proof, signature=bytes(64))),
    }
    for claim, (sender, move) in claims.items():
        join = with_pool(replace(fresh, moves=(move,)), pubkey=stranger())
        assert not is_taken_for_moving(pump, sender, join), claim
    join = with_pool(replace(fresh, moves=(proof,)), pubkey=stranger())
    assert is_taken_for_moving(pump, mover, join), "the true one is"


def test_a_move_from_a_factory_that_was_never_funded_proves_nothing() -> None:
    pump, moving, _ = dying()
    house = pump.lsp.state.house
    entry = replace(house.entries[pump.attempt.attempt_id], status=ABORTED)
    entries = house.entries.set(entry.attempt_id, entry)
    state = with_house(pump.lsp.state, members={}, entries=entries)
    event = ev.MessageReceived(node_id=pump.clients[0].node_id, message=moving)
    (record,) = lsp_role.decide(state, event).records
    assert isinstance(record, lr.ClientJoined)
    assert not record.is_moving


# An LSP's second thoughts


def test_an_abort_cannot_take_back_a_factory_that_is_ready() -> None:
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run()
    pump.mine(pump.attempt.terms.min_depth)
    client = pump.clients[0]
    abort = m.Abort(attempt_id=pump.attempt.attempt_id, reason="forget it")
    pump.tell(client, pump.lsp, abort)
    assert pump.held(client).aborted is None


def test_an_abort_erases_nothing_and_a_funding_behind_it_is_still_found() -> None:
    """The LSP says it is over and funds all the same: the client holds its exit, and is ready."""
    pump = Pump(2)
    pump.join()
    pump.build()
    pump.run()
    client = pump.clients[0]
    held = pump.held(client)
    abort = m.Abort(attempt_id=held.attempt_id, reason="over")
    pump.tell(client, pump.lsp, abort)
    assert pump.held(client).attempt_id == held.attempt_id
    pump.mine(held.terms.min_depth)
    assert client.state.attempts[held.attempt_id].ready_sent
    pump.handle(client, ev.ExitRequested(attempt_id=held.attempt_id))
    assert held.signed_branch.txs[0].txid in pump.chain.mempool


def test_a_proposal_that_crossed_a_leave_is_dropped() -> None:
    pump = Pump(2)
    pump.join()
    pump.build()
    client = pump.clients[0]
    pump.handle(client, ev.LeaveRequested())
    wish = ev.JoinRequested(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT)
    pump.handle(client, wish)
    pump.run()
    assert client.state.wish is not None
    assert client.node_id not in pump.lsp.state.house.aborts
