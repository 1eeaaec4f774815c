"""Whoever has to join again because of others loses neither its place nor its wish by it."""

from dataclasses import replace

import pytest
from tests.protocol.attacks import refusal, with_house, with_pool
from tests.protocol.pump import LEAST_SAT, Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.gathered import Member
from cromford.protocol.lobby import choosing
from cromford.protocol.lobby.build import MEMBERS_MAX, refusal_of
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

N_CLIENTS = 4
NARROW = LspPolicy(min_clients=2, new_joins_per_block=N_CLIENTS)


def spoiled(pump: Pump) -> list[PumpNode]:
    """Let the one in the last seat end a ceremony; return the others."""
    pump.build(min_clients=2)
    pump.run_to(m.SignBelow)
    spoiler = pump.client_at(len(pump.attempt.seats))
    others = [pump.by_id[seat.node_id] for seat in pump.attempt.seats[:-1]]
    abort = m.Abort(attempt_id=pump.attempt.attempt_id, reason="")
    pump.tell(pump.lsp, spoiler, abort)
    return others


def missed(pump: Pump) -> set[bytes]:
    records = (one for one in pump.lsp.store.remembered if isinstance(one, lr.RejoinMissed))
    return {node_id for one in records for node_id in one.node_ids}


def test_who_joins_again_after_an_abort_is_no_new_client_of_this_block() -> None:
    pump = Pump(N_CLIENTS, policy=NARROW)
    pump.join()
    others = spoiled(pump)
    pump.run()
    pump.pass_deadline(pump.lsp, fx.RejoinDeadline())
    pump.run()
    assert not missed(pump)
    assert pump.is_funded()
    assert all(pump.held(one).funding_tx.txid == pump.published[0].txid for one in others)


@pytest.mark.parametrize("is_awaited", [True, False])
def test_whoever_is_waited_for_is_taken_though_strangers_took_all_places(
    *, is_awaited: bool
) -> None:
    pump = Pump(N_CLIENTS, policy=NARROW)
    pump.join()
    spoiled(pump)
    pump.run_to(m.Join)
    letter = pump.wire[0]
    assert isinstance(letter.message, m.Join)
    house = pump.lsp.state.house
    stranger = Member(
        node_id=bytes(33), join=with_pool(letter.message, pubkey=bytes(33)), is_moving=False
    )
    strangers = {n.to_bytes(33, "big"): stranger for n in range(MEMBERS_MAX)}
    build = house.build if is_awaited else None
    crowded = with_house(
        pump.lsp.state, n_new_joins=NARROW.new_joins_per_block, members=strangers, build=build
    )
    full = with_house(crowded, members={})
    event = ev.MessageReceived(node_id=letter.sender.node_id, message=letter.message)
    if is_awaited:
        assert lsp_role.decide(full, event).records
        assert choosing.join_refusal(crowded.house, letter.sender.node_id, LEAST_SAT) is None
        assert refusal_of(crowded.house, letter.sender.node_id, letter.message) is None
    else:
        assert "too many new clients" in refusal(lsp_role.decide(full, event))
        assert "the lobby is full" in refusal(lsp_role.decide(crowded, event))


def test_of_those_who_join_again_only_who_ended_the_ceremony_counts_twice() -> None:
    pump = Pump(N_CLIENTS, policy=replace(NARROW, new_joins_per_block=N_CLIENTS + 1))
    pump.join()
    assert pump.lsp.state.house.n_new_joins == N_CLIENTS
    spoiled(pump)
    pump.run()
    assert pump.lsp.state.house.n_new_joins == N_CLIENTS + 1
