"""Whoever has to join again because of others loses neither its place nor its wish by it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.protocol.attacks import refusal, with_house, with_pool
from tests.protocol.closes import losing
from tests.protocol.moving_clients import POLICY, factory_with_money, mine_to, old_of, told
from tests.protocol.pump import LEAST_SAT, Pump, PumpNode

from cromford import effects as fx
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.journal import lobby_records as lr
from cromford.protocol.journal.gathered import Member
from cromford.protocol.journal.moving import RETRY_BLOCKS
from cromford.protocol.journal.pause import ABORTS_TO_PAUSE
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


def end_many(pump: Pump, n_ceremonies: int) -> list[PumpNode]:
    """Let so many ceremonies end, each by the one in its last seat; return who stayed in all."""
    pump.join()
    pump.build(min_clients=2)
    staying = set(pump.clients)
    for place in range(n_ceremonies):
        if place:
            pump.run_to(m.Join)  # Behind what is left of the one before.
        pump.run_to(m.SignBelow)
        attempt = pump.attempt
        assert len(attempt.seats) == len(staying)
        spoiler = pump.client_at(len(attempt.seats))
        pump.tell(pump.lsp, spoiler, m.Abort(attempt_id=attempt.attempt_id, reason=""))
        staying.remove(spoiler)
    return [client for client in pump.clients if client in staying]


def test_who_rests_because_others_ended_so_many_ceremonies_did_not_miss_the_next() -> None:
    """It would lose its rank, and a day of uptime, by what others did."""
    pump = Pump(ABORTS_TO_PAUSE + 2, policy=LspPolicy(min_clients=2))
    honest = end_many(pump, ABORTS_TO_PAUSE)
    pump.run()
    assert [one.state.may_join for one in honest] == [False, False]
    assert set(pump.lsp.state.house.build.node_ids) == {one.node_id for one in honest}
    pump.pass_deadline(pump.lsp, fx.RejoinDeadline())
    pump.run()
    house = pump.lsp.state.house
    assert not missed(pump)
    assert not any(house.is_unsteady(one.node_id) for one in honest)
    assert house.build is None


def test_who_was_called_back_less_often_and_does_not_come_missed_it() -> None:
    pump = Pump(ABORTS_TO_PAUSE + 1, policy=LspPolicy(min_clients=2))
    honest = end_many(pump, ABORTS_TO_PAUSE - 1)
    pump.tamper = losing(m.Join, of=lambda _: True)
    pump.run()
    pump.pass_deadline(pump.lsp, fx.RejoinDeadline())
    assert missed(pump) == {one.node_id for one in honest}


def crowd() -> Pump:
    """Return clients that wait, more than may come in one block, after their LSP's restart."""
    pump = Pump(N_CLIENTS, policy=replace(NARROW, new_joins_per_block=2))
    for place in range(0, N_CLIENTS, 2):
        pump.join(*pump.clients[place : place + 2])
        pump.mine()
    assert len(pump.lsp.state.house.members) == N_CLIENTS
    pump.restart(pump.lsp)
    pump.run()
    assert len(pump.lsp.state.house.members) == 2
    return pump


def test_a_wish_that_waited_and_is_refused_for_a_moment_is_asked_for_again() -> None:
    pump = crowd()
    refused = [client for client in pump.clients if client.state.joining is None]
    assert len(refused) == 2
    height = pump.chain.height
    for client in refused:
        assert "too many new clients" in (client.state.refusal or "")
        assert client.state.wish is not None
        assert client.state.paused_until == height + RETRY_BLOCKS
    pump.mine(RETRY_BLOCKS - 1)
    assert len(pump.lsp.state.house.members) == 2
    pump.mine()
    assert len(pump.lsp.state.house.members) == N_CLIENTS
    assert all(client.state.refusal is None for client in refused)


def test_one_that_never_waited_is_over_and_so_is_one_that_its_operator_takes_back() -> None:
    pump = crowd()
    refused = [client for client in pump.clients if client.state.joining is None]
    first, second = refused
    pump.handle(first, ev.LeaveRequested())
    assert first.state.wish is None
    pump.join(first)
    assert first.state.wish is None, "it was never let wait"
    pump.mine(2 * RETRY_BLOCKS)
    assert first.node_id not in pump.lsp.state.house.members
    assert second.node_id in pump.lsp.state.house.members


def test_a_wish_that_is_refused_gives_way_to_one_that_moves_out() -> None:
    pump = factory_with_money(2, policy=replace(POLICY, min_clients=3))
    alice = pump.clients[0]
    mine_to(pump, old_of(alice).lifetime.dying_height - 1)
    pump.join(alice)

    def refused(_sender: PumpNode, receiver: PumpNode, message: m.Message) -> Sequence[m.Message]:
        if isinstance(message, m.Joined) and receiver is alice:
            return (m.Refused(factory_pubkey=message.factory_pubkey, reason="not today"),)
        return (message,)

    with pump.tampering(refused):
        pump.disconnect(alice)
        pump.connect(alice)
        pump.run()
        assert alice.state.wish is not None
        assert not alice.state.wish.moves_from
        pump.mine()
    assert told(alice, lr.WishMade)[-1].moves_from == old_of(alice).attempt_id
