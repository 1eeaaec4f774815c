"""Strangers in the lobby: what they may spoil, what they may have, and who is not slowed by it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.attacks import (
    at_height,
    heard,
    house_at,
    join_of,
    left,
    refusal,
    with_house,
    with_pool,
)
from tests.protocol.forge import stranger
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump, PumpNode

from cromford import effects as fx
from cromford.factory.kinds import VertexKind
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.mail_records import MailTaken
from cromford.protocol.journal.pause import JOINS_TO_PAUSE, PAUSE_BLOCKS, RELIABLE_UPTIME_BLOCKS
from cromford.protocol.lobby.build import greeting, plan_build
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m

TWO: Final = LspPolicy(min_clients=2)
KNOWN_SAT: Final = 850_000


def with_known(n_clients: int, n_known: int, policy: LspPolicy = TWO) -> Pump:
    """Return a world in which the first clients were in a factory before; all of them wait."""
    pump = Pump(n_clients, policy=policy)
    pump.join(*pump.clients[:n_known])
    pump.build()
    pump.run()
    assert pump.is_funded()
    pump.mine(pump.attempt.terms.min_depth)
    pump.join(*pump.clients[:n_known])
    pump.join(*pump.clients[n_known:])
    return pump


def members(pump: Pump) -> set[bytes]:
    return {seat.node_id for seat in pump.attempt.seats}


def ids(clients: Sequence[PumpNode]) -> set[bytes]:
    return {client.node_id for client in clients}


def hang_up(pump: Pump, client: PumpNode) -> None:
    """Let a client leave in the middle of what is being signed."""
    pump.run_to(m.SignBelow)
    pump.disconnect(client)


# Ceremonies


def test_after_an_abort_nobody_waits_for_new_names_where_those_that_stay_are_enough() -> None:
    pump = with_known(5, 2)
    known, new = pump.clients[:2], pump.clients[2:]
    pump.build(min_clients=2)
    assert members(pump) == ids(pump.clients)
    hang_up(pump, new[0])
    pump.run()
    assert members(pump) == ids(known)
    assert pump.attempt.funded is not None, "no deadline had to pass"


def test_where_too_few_are_known_everybody_that_stays_is_taken_again() -> None:
    pump = with_known(3, 1)
    pump.build(min_clients=2)
    hang_up(pump, pump.clients[2])
    pump.run()
    assert members(pump) == ids(pump.clients[:2])
    assert pump.attempt.funded is not None


def test_an_abort_counts_only_against_who_caused_it_and_not_the_joins_it_made_necessary() -> None:
    pump = Pump(3, policy=TWO)
    pump.join()
    culprit, others = pump.clients[0], pump.clients[1:]
    before = {client.node_id: len(pump.lsp.state.house.joins[client.node_id]) for client in others}
    pump.build(min_clients=2)
    hang_up(pump, culprit)
    pump.run()
    assert culprit.node_id in pump.lsp.state.house.aborts
    for client in others:
        assert client.node_id not in pump.lsp.state.house.aborts
        assert len(pump.lsp.state.house.joins[client.node_id]) == before[client.node_id]


def test_who_has_just_ended_a_ceremony_is_left_out_of_the_next_one_for_a_while() -> None:
    pump = Pump(3, policy=TWO)
    pump.join()
    culprit = pump.clients[0]
    pump.build(min_clients=2)
    hang_up(pump, culprit)
    pump.run()
    pump.connect(culprit)
    pump.run()
    pump.mine(pump.attempt.terms.min_depth)
    pump.join_again()
    house = pump.lsp.state.house
    assert culprit.node_id in house.members
    plan = plan_build(house, min_clients=2, max_clients=3)
    assert culprit.node_id not in plan.node_ids
    assert culprit.node_id in plan_build(house, min_clients=3, max_clients=3).node_ids
    later = house_at(house, house.chain.height + PAUSE_BLOCKS + 1)
    assert culprit.node_id in plan_build(later, min_clients=2, max_clients=3).node_ids


def test_where_places_are_few_those_that_were_in_a_factory_are_taken_before_new_names() -> None:
    pump = with_known(6, 2)
    plan = plan_build(pump.lsp.state.house, min_clients=2, max_clients=2)
    assert set(plan.node_ids) == ids(pump.clients[:2])


def test_a_day_of_uptime_makes_a_client_reliable() -> None:
    pump = Pump(1)
    node_id = pump.clients[0].node_id
    for n_blocks, is_reliable in (
        (RELIABLE_UPTIME_BLOCKS - 1, False),
        (RELIABLE_UPTIME_BLOCKS, True),
    ):
        house = replace(pump.lsp.state.house, uptime={node_id: (1 << n_blocks) - 1}, uptime_at={})
        assert house.is_reliable(node_id) is is_reliable


def test_a_pause_says_why_and_until_when() -> None:
    pump = Pump(1)
    pump.join()
    client = pump.clients[0]
    join = left(pump, client)
    height = pump.lsp.state.chain.height
    full = with_house(pump.lsp.state, joins={client.node_id: (height,) * JOINS_TO_PAUSE})
    decision = lsp_role.decide(full, ev.MessageReceived(node_id=client.node_id, message=join))
    assert refusal(decision) == f"too many joins: join again from height {height + PAUSE_BLOCKS}"


# What strangers may write


def test_new_clients_of_one_block_are_limited_and_known_ones_are_not() -> None:
    policy = LspPolicy(min_clients=1, new_joins_per_block=2)
    pump = with_known(4, 1, policy)
    known, *new = pump.clients
    assert known.node_id in pump.lsp.state.house.members
    height = pump.lsp.state.chain.height
    assert new[-1].state.refusal == (
        f"too many new clients in this block: join again from height {height + 1}"
    )
    pump.mine()
    pump.join(new[-1])
    assert new[-1].node_id in pump.lsp.state.house.members
    join = left(pump, known)
    fresh = with_pool(join, pubkey=stranger())
    crowded = with_house(pump.lsp.state, n_new_joins=policy.new_joins_per_block)
    event = ev.MessageReceived(node_id=known.node_id, message=fresh)
    assert lsp_role.decide(crowded, event).records


# Capital


def test_a_client_gets_no_more_than_its_limit_and_moving_out_makes_room() -> None:
    policy = LspPolicy(min_clients=1, capital_per_client_sat=WANTED_SAT + LEAST_SAT - 1)
    pump = Pump(1, policy=policy)
    client = pump.clients[0]
    pump.join()
    pump.build()
    pump.run()
    pump.mine(pump.attempt.terms.min_depth)
    assert pump.attempt.terms.capacity_sat == (WANTED_SAT,)
    pump.join()
    assert client.state.refusal is not None
    assert f"expected at most {LEAST_SAT - 1}, received {LEAST_SAT}" in client.state.refusal
    dying = at_height(pump.lsp.state, pump.attempt.terms.exit_deadline_height([VertexKind.DW]) - 1)
    event = ev.MessageReceived(
        node_id=client.node_id, message=with_pool(join_of(pump, client), pubkey=stranger())
    )
    assert lsp_role.decide(dying, event).records


def test_a_channel_is_cut_to_what_is_left_to_its_client() -> None:
    policy = LspPolicy(min_clients=1, capital_per_client_sat=WANTED_SAT + LEAST_SAT)
    pump = Pump(1, policy=policy)
    for capacity_sat in (WANTED_SAT, LEAST_SAT):
        pump.join()
        pump.build()
        pump.run()
        pump.mine(pump.attempt.terms.min_depth)
        assert pump.attempt.terms.capacity_sat == (capacity_sat,)


def test_a_build_takes_as_many_as_its_capital_reaches_for() -> None:
    pump = Pump(3, policy=LspPolicy(min_clients=1, capital_per_build_sat=2 * LEAST_SAT))
    pump.join()
    plan = plan_build(pump.lsp.state.house, min_clients=1, max_clients=3)
    assert plan.terms.capacity_sat == (LEAST_SAT, LEAST_SAT)
    with pytest.raises(Rejected, match="enough for 2 clients, 3 are needed"):
        plan_build(pump.lsp.state.house, min_clients=3, max_clients=3)


@pytest.mark.parametrize("n_greedy", [1, 3])
def test_whoever_asks_for_more_than_the_coins_reach_for_keeps_nobody_else_waiting(
    n_greedy: int,
) -> None:
    """A name costs nothing, and a wish no more: the limits of capital may be above the coins."""
    pump = Pump(2 + n_greedy, policy=replace(TWO, capital_per_client_sat=100_000_000))
    honest, greedy = pump.clients[:2], pump.clients[2:]
    pump.join(*honest)
    for client in greedy:
        wish = ev.JoinRequested(capacity_sat=30_000_000, capacity_least_sat=30_000_000)
        pump.handle(client, wish)
    pump.run()
    assert len(pump.lsp.state.house.members) == 2 + n_greedy
    pump.build(min_clients=2)
    pump.run()
    assert members(pump) == ids(honest)
    assert pump.is_funded()


def test_whoever_fits_beside_another_is_taken_and_without_enough_the_coins_are_named() -> None:
    pump = Pump(3, policy=TWO)
    small, large, larger = pump.clients
    pump.join(small)
    for client, sat in ((large, 9_000_000), (larger, 10_000_000)):
        pump.handle(client, ev.JoinRequested(capacity_sat=sat, capacity_least_sat=sat))
    pump.run()
    house = pump.lsp.state.house
    plan = plan_build(house, min_clients=2, max_clients=3)
    assert plan.terms.n_clients == 3, "the coins reach for all of them"
    fewer = Pump(3, policy=TWO)
    for client in fewer.clients:
        wish = ev.JoinRequested(capacity_sat=10_000_000, capacity_least_sat=10_000_000)
        fewer.handle(client, wish)
    fewer.run()
    assert plan_build(fewer.lsp.state.house, min_clients=1, max_clients=3).terms.n_clients == 1
    with pytest.raises(Rejected) as refused:
        plan_build(fewer.lsp.state.house, min_clients=3, max_clients=3)
    assert (refused.value.code, refused.value.retryable) == ("insufficient_coins", True)


def wish_for(pump: Pump, client: PumpNode, most_sat: int, least_sat: int | None = None) -> None:
    least_sat = most_sat if least_sat is None else least_sat
    pump.handle(client, ev.JoinRequested(capacity_sat=most_sat, capacity_least_sat=least_sat))
    pump.run()


def by_name(pump: Pump) -> list[PumpNode]:
    """Return clients as they are chosen where none is known: names can be made until one fits."""
    return sorted(pump.clients, key=lambda client: client.node_id)


def test_whoever_takes_most_of_the_room_by_its_name_alone_keeps_nobody_from_a_factory() -> None:
    pump = Pump(3, policy=replace(TWO, capital_per_build_sat=1_000_000))
    greedy, *others = by_name(pump)
    wish_for(pump, greedy, 950_000)
    for client in others:
        wish_for(pump, client, WANTED_SAT)
    plan = plan_build(pump.lsp.state.house, min_clients=2, max_clients=3)
    assert set(plan.node_ids) == ids(others)


def test_whoever_takes_most_of_the_coins_by_its_name_alone_keeps_nobody_from_a_factory() -> None:
    pump = Pump(3, policy=replace(TWO, capital_per_client_sat=100_000_000))
    greedy, *others = by_name(pump)
    free_sat = sum(coin.txout.amount_sat for coin in pump.lsp.state.house.wallet.coins.values())
    wish_for(pump, greedy, free_sat * 16 // 30)
    for client in others:
        wish_for(pump, client, free_sat * 9 // 30)
    house = pump.lsp.state.house
    plan = plan_build(house, min_clients=2, max_clients=3)
    assert set(plan.node_ids) == ids(others)


def test_whoever_does_not_fit_takes_nobody_elses_place() -> None:
    pump = Pump(4, policy=replace(TWO, capital_per_build_sat=1_000_000))
    *greedy, one, other = by_name(pump)
    for client in greedy:
        wish_for(pump, client, 2_000_000)
    for client in (one, other):
        wish_for(pump, client, WANTED_SAT)
    plan = plan_build(pump.lsp.state.house, min_clients=1, max_clients=2)
    assert set(plan.node_ids) == ids((one, other))


def test_where_wishes_are_beyond_the_room_the_largest_is_not_met_and_the_others_are() -> None:
    pump = Pump(3, policy=replace(TWO, capital_per_build_sat=10 * WANTED_SAT))
    greedy, *others = by_name(pump)
    wish_for(pump, greedy, 9 * WANTED_SAT, LEAST_SAT)
    for client in others:
        wish_for(pump, client, WANTED_SAT, LEAST_SAT)
    plan = plan_build(pump.lsp.state.house, min_clients=2, max_clients=3)
    capacity_sat = dict(zip(plan.node_ids, plan.terms.capacity_sat, strict=True))
    assert capacity_sat == {
        greedy.node_id: LEAST_SAT,
        **dict.fromkeys(ids(others), WANTED_SAT),
    }


def test_where_wishes_are_beyond_the_coins_the_largest_are_not_met_and_the_others_are() -> None:
    pump = Pump(6, policy=replace(TWO, capital_per_client_sat=100_000_000))
    *greedy, one, other = by_name(pump)
    for client in greedy:
        wish_for(pump, client, 15_000_000, LEAST_SAT)
    for client in (one, other):
        wish_for(pump, client, WANTED_SAT, LEAST_SAT)
    plan = plan_build(pump.lsp.state.house, min_clients=2, max_clients=6)
    capacity_sat = dict(zip(plan.node_ids, plan.terms.capacity_sat, strict=True))
    assert [capacity_sat[client.node_id] for client in (one, other)] == [WANTED_SAT] * 2
    assert max(capacity_sat.values()) == 15_000_000, "the coins reach for one of these"
    assert sorted(capacity_sat.values())[:3] == [LEAST_SAT] * 3


def test_the_wish_of_one_that_is_known_comes_before_those_of_new_names() -> None:
    pump = with_known(3, 1, replace(TWO, capital_per_build_sat=10 * WANTED_SAT))
    known, *new = pump.clients
    for client in pump.clients:
        left(pump, client)
        wish_for(pump, client, KNOWN_SAT if client is known else WANTED_SAT, LEAST_SAT)
    plan = plan_build(pump.lsp.state.house, min_clients=2, max_clients=3)
    capacity_sat = dict(zip(plan.node_ids, plan.terms.capacity_sat, strict=True))
    assert capacity_sat[known.node_id] == KNOWN_SAT
    assert sorted(capacity_sat[client.node_id] for client in new) == [LEAST_SAT, WANTED_SAT]


def test_all_factories_together_have_a_limit() -> None:
    pump = with_known(2, 1, LspPolicy(min_clients=1, capital_max_sat=WANTED_SAT + LEAST_SAT - 1))
    with pytest.raises(Rejected, match=f"leave {LEAST_SAT - 1} sat"):
        plan_build(pump.lsp.state.house, min_clients=1, max_clients=2)


def test_an_operator_may_name_the_only_clients_it_serves() -> None:
    pump = Pump(2)
    pump.join()
    named, other = pump.clients
    join = left(pump, other)
    policy = replace(pump.policy, allowed_clients=frozenset((named.node_id,)))
    state = pump.lsp.state
    closed = with_house(state, config=replace(state.config, policy=policy))
    event = ev.MessageReceived(node_id=other.node_id, message=join)
    assert "only clients that its operator has named" in refusal(lsp_role.decide(closed, event))
    assert heard(pump, other, join).records
    mine = left(pump, named)
    allowed = ev.MessageReceived(node_id=named.node_id, message=mine)
    assert lsp_role.decide(with_house(closed, members={}), allowed).records


def test_the_greeting_offers_no_more_than_one_client_may_have() -> None:
    pump = Pump(1, policy=LspPolicy(capital_per_client_sat=70_000))
    assert greeting(pump.lsp.state.house).capacity_max_sat == 70_000


def test_the_records_fold_to_how_many_joined_since_the_last_block() -> None:
    pump = Pump(2)
    pump.join()
    assert pump.lsp.state.house.n_new_joins == 2
    pump.mine()
    assert pump.lsp.state.house.n_new_joins == 0
    assert isinstance(pump.lsp.store.remembered[-1], MailTaken)
    assert not pump.wishes(pump.lsp, fx.Disconnect)
