"""What a house lends, and may lend again, once a client that left is paid out on chain."""

from dataclasses import replace
from typing import Final

import pytest
from tests.protocol.closes import closable_factory
from tests.protocol.paying_clients import lsp_link, newest_link, pay
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.sleepers import all_away, lsp_state, sleeping
from tests.protocol.test_closed import remembered
from tests.protocol.test_closed_for_good import CAPACITY_SAT, capital_of, entry_of, house_of
from tests.protocol.test_leaving import QUICK, publish_branch
from tests.simulation.sums import check_sums, locked_sat

from cromford.protocol import events as ev
from cromford.protocol.exiting.channel import RESOLVED_DEPTH
from cromford.protocol.exiting.rest import is_shared_out
from cromford.protocol.exiting.settled import is_resolved
from cromford.protocol.journal import exit_records as xr
from cromford.protocol.lobby.choosing import join_refusal, lasting_entries, left_sat, room_sat
from cromford.watch.feerates import BELIEVED_SAT_PER_KW, MOST_SAT_PER_KW, OwnFees

SETTLED_BLOCKS: Final = 40  # More than the delays of these terms, a sweep, and six blocks.


def leave(pump: Pump, client: PumpNode) -> None:
    """Let a client leave alone, and mine until the LSP has its own, six blocks deep."""
    link = newest_link(client)
    pump.handle(client, ev.ExitRequested(attempt_id=link.attempt_id))
    pump.run()
    publish_branch(pump, link)
    for _ in range(SETTLED_BLOCKS):
        factory = pump.factory
        if is_resolved(factory, lsp_link(pump, link)):
            return
        check_sums(lsp_state(pump))
        assert house_of(pump).lent_sat() == sum(entry_of(pump).capacity_sat), "ours is under way"
        pump.mine()
    raise AssertionError("the channel was not settled")


@pytest.mark.parametrize("restarts", [False, True])
def test_what_a_client_that_left_was_lent_is_free_once_it_is_settled(*, restarts: bool) -> None:
    pump = closable_factory(3, policy=QUICK)
    gone, *others = pump.clients
    whole_sat = sum(entry_of(pump).capacity_sat)
    used_sat = newest_link(gone).state.capacity_sat
    policy = house_of(pump).config.policy
    leave(pump, gone)
    if restarts:
        pump.restart(pump.lsp)
        pump.mine()
    house = house_of(pump)
    assert house.lent_sat() == whole_sat - used_sat
    assert left_sat(house, gone.node_id) == policy.capital_per_client_sat
    assert lasting_entries(house, gone.node_id) == ()
    assert room_sat(house) == min(
        policy.capital_per_build_sat, policy.capital_max_sat - house.lent_sat()
    )
    for one in others:
        assert left_sat(house, one.node_id) == policy.capital_per_client_sat - CAPACITY_SAT
    (told,) = remembered(pump.lsp, xr.ExitSettled)
    assert (told.client, told.amount_sat) == (newest_link(gone).client, used_sat)
    (locked,) = capital_of(pump)["locked"]
    assert locked["amount_sat"] == entry_of(pump).funding_amount_sat - used_sat
    assert locked_sat(lsp_state(pump)) == locked["amount_sat"]
    check_sums(lsp_state(pump))
    # Whoever lost its store may still ask for the states of its leaf.
    assert house.streams_of(gone.node_id) == (pump.factory.stream,)


def test_a_client_that_left_may_have_all_of_its_capital_again() -> None:
    policy = replace(QUICK, capital_per_client_sat=CAPACITY_SAT, capital_max_sat=CAPACITY_SAT)
    pump = closable_factory(1, policy=policy)
    (client,) = pump.clients
    assert join_refusal(house_of(pump), client.node_id, CAPACITY_SAT) is not None
    leave(pump, client)
    assert join_refusal(house_of(pump), client.node_id, CAPACITY_SAT) is None
    pump.join_again()
    pump.build()
    pump.run()
    pump.mine(policy.min_depth)
    assert sorted(link.is_open for link in client.state.book.links.values()) == [False, True]
    assert house_of(pump).lent_sat() == CAPACITY_SAT


def test_what_is_not_worth_its_fee_holds_no_capital() -> None:
    """A few hundred satoshi would count as a whole channel until the expiry."""
    pump = closable_factory(2, policy=QUICK)
    gone = pump.clients[0]
    pay(pump, pump.lsp, gone, 60_000_000)
    link = newest_link(gone)
    pump.handle(gone, ev.ExitRequested(attempt_id=link.attempt_id))
    pump.run()
    publish_branch(pump, link)
    pump.lsp.fees = OwnFees(estimates=((144, BELIEVED_SAT_PER_KW),))
    pump.mine(RESOLVED_DEPTH - 1)
    assert lasting_entries(house_of(pump), gone.node_id) != ()
    pump.mine()
    assert lasting_entries(house_of(pump), gone.node_id) == ()
    assert not is_resolved(pump.factory, lsp_link(pump, link)), "it is taken once fees are lower"
    pump.lsp.fees = OwnFees()
    before_sat = house_of(pump).wallet.confirmed_sat()
    pump.mine(SETTLED_BLOCKS)
    assert house_of(pump).wallet.confirmed_sat() > before_sat
    assert len(remembered(pump.lsp, xr.ExitSettled)) == 1, "told once"


def test_a_feerate_that_nobody_should_believe_frees_no_capital() -> None:
    """At it nothing is worth its fee: all that waits would be lent again, and is told once."""
    pump = closable_factory(2, policy=QUICK)
    gone = pump.clients[0]
    link = newest_link(gone)
    pump.handle(gone, ev.ExitRequested(attempt_id=link.attempt_id))
    pump.run()
    publish_branch(pump, link)
    pump.lsp.fees = OwnFees(estimates=((144, MOST_SAT_PER_KW),))
    pump.mine(SETTLED_BLOCKS)
    assert not is_resolved(pump.factory, lsp_link(pump, link))
    assert house_of(pump).lent_sat() == sum(entry_of(pump).capacity_sat)
    pump.lsp.fees = OwnFees()
    pump.mine(RESOLVED_DEPTH + 1)
    assert is_resolved(pump.factory, lsp_link(pump, link))
    assert lasting_entries(house_of(pump), gone.node_id) == ()


def test_a_factory_of_an_older_store_that_sleeps_tells_it_at_the_next_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It slept for ever with all of its channels settled, and its house did not know."""
    pump = closable_factory(2, policy=QUICK)
    number = pump.factory.number
    with monkeypatch.context() as older:
        older.setattr("cromford.protocol.lsp.tell_settled", lambda _: None)
        for client in pump.clients:
            link = newest_link(client)
            pump.handle(client, ev.ExitRequested(attempt_id=link.attempt_id))
        pump.run()
        all_away(pump)
        for _ in range(2 * SETTLED_BLOCKS):
            pump.mine()
            if is_shared_out(pump.factory):
                break
        pump.lsp.checkpoint()
    assert sleeping(pump) == {number}
    assert house_of(pump).lent_sat() == sum(entry_of(pump).capacity_sat)
    pump.restart(pump.lsp)
    pump.mine()
    assert house_of(pump).lent_sat() == 0
    assert entry_of(pump).lent_to == ()
    assert all(lsp_state(pump).has_seat(one.node_id) for one in pump.clients), "of this factory"
    assert len(remembered(pump.lsp, xr.ExitSettled)) == 2
    all_away(pump)
    pump.mine()
    pump.lsp.checkpoint()
    assert sleeping(pump) == {number}
    assert list(lsp_state(pump).asleep_for_ever()) == [], "the next start wakes it no more"
