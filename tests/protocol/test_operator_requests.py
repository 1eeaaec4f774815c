"""What an operator may ask, when, and what it is told otherwise."""

import pytest
from tests.factory.specimen import dw
from tests.protocol.attacks import OTHER_ID, proposed
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump, PumpNode
from tests.simulation.commitments import client_first_commitment

from cromford import effects as fx
from cromford.factory.exit_path import exit_path
from cromford.protocol import client as client_role
from cromford.protocol import events as ev
from cromford.protocol import lsp as lsp_role
from cromford.protocol.faults import Rejected
from cromford.protocol.policy import LspPolicy
from cromford.wire import messages as m


def rejection(pump: Pump, node: PumpNode, event: ev.Event) -> Rejected:
    """Return why a request is not met."""
    role = lsp_role if node is pump.lsp else client_role
    with pytest.raises(Rejected) as caught:
        role.decide(node.state, event)
    return caught.value


# To leave a factory


def exit_of(pump: Pump) -> ev.ExitRequested:
    return ev.ExitRequested(attempt_id=pump.attempt.attempt_id)


def test_nobody_leaves_a_factory_that_it_does_not_know() -> None:
    pump = proposed(1)
    pump.run()
    rejected = rejection(pump, pump.clients[0], ev.ExitRequested(attempt_id=OTHER_ID))
    assert (rejected.code, rejected.retryable) == ("factory_not_found", False)
    assert OTHER_ID.hex() in str(rejected)


@pytest.mark.parametrize("kind", [m.SignBelow, m.SignRoot, m.SignedRoot])
def test_nobody_leaves_before_its_branch_is_signed(kind: type[m.Message]) -> None:
    pump = proposed(1)
    pump.run_to(kind)
    client = pump.clients[0]
    assert rejection(pump, client, exit_of(pump)).code == "factory_not_complete"
    with pytest.raises(ValueError, match=f"{pump.attempt.attempt_id.hex()} is not complete"):
        pump.held(client).signed_branch  # noqa: B018 - there is nothing to publish


def test_nobody_leaves_before_the_funding_confirmed_and_may_ask_again() -> None:
    pump = proposed(1)
    pump.run()
    client = pump.clients[0]
    rejected = rejection(pump, client, exit_of(pump))
    assert (rejected.code, rejected.retryable) == ("factory_not_funded", True)
    pump.mine()
    pump.handle(client, exit_of(pump))
    assert pump.held(client).is_exiting


QUICK = LspPolicy(min_clients=1, step_blocks=4, states_per_layer=2)


def test_a_leaving_client_publishes_each_step_when_its_delay_has_passed_and_no_sooner() -> None:
    """The chain in memory refuses what comes too early, so nothing may ever be refused."""
    pump = proposed(3, policy=QUICK)
    pump.run()
    pump.mine()
    client = pump.client_at(1)
    held = pump.held(client)
    steps = exit_path(held.signed_branch)
    assert [step.delay_blocks for step in steps] == [0, 4, 0, 4]
    pump.handle(client, exit_of(pump))
    confirmed = [pump.chain.confirmed[held.funding_tx.txid]]
    while len(confirmed) <= len(steps):
        step = steps[len(confirmed) - 1]
        earliest = max(confirmed[-1] + step.delay_blocks, confirmed[-1] + 1)
        is_time = pump.chain.height + 1 >= earliest
        assert set(pump.chain.mempool) == ({step.tx.txid} if is_time else set())
        pump.mine()
        if step.tx.txid in pump.chain.confirmed:
            confirmed.append(pump.chain.height)
    assert held.branch.channel_outpoint in pump.chain.coins
    published = [effect.tx.txid for effect in pump.wishes(client, fx.Broadcast)]
    commitment = client_first_commitment(held).tx
    assert published == [*(step.tx.txid for step in steps), commitment.txid], "each once"
    pump.mine(2)
    assert commitment.txid in pump.chain.confirmed
    assert len(pump.wishes(client, fx.Broadcast)) == len(published), "there is nothing left to do"


# To join


@pytest.mark.parametrize(
    ("capacity_sat", "capacity_least_sat", "fits"),
    [
        (19_999, 19_999, False),
        (20_000, 1, True),
        (1_000_001, 1_000_001, False),
        (1_000_001, 1_000_000, True),
    ],
)
def test_a_capacity_that_the_lobby_does_not_offer_is_rejected_at_home(
    capacity_sat: int, capacity_least_sat: int, *, fits: bool
) -> None:
    """The operator hears it at once, with the range, rather than from the LSP."""
    pump = Pump(1, policy=LspPolicy(capacity_min_sat=20_000, capacity_max_sat=1_000_000))
    client = pump.clients[0]
    wish = ev.JoinRequested(capacity_sat=capacity_sat, capacity_least_sat=capacity_least_sat)
    if not fits:
        rejected = rejection(pump, client, wish)
        assert rejected.code == "capacity_out_of_range"
        assert f"expected 20000..1000000, received {capacity_sat}" in str(rejected)
        return
    pump.handle(client, wish)
    pump.run()
    assert client.node_id in pump.lsp.state.house.members


def test_a_wish_waits_for_the_first_greeting() -> None:
    """Without a connection nobody knows the range yet; the LSP will say."""
    pump = Pump(1)
    client = pump.clients[0]
    pump.disconnect(client)
    pump.handle(client, ev.JoinRequested(capacity_sat=WANTED_SAT, capacity_least_sat=LEAST_SAT))
    assert client.state.wish is not None
    assert not pump.sent(client, m.Join)
    pump.connect(client)
    pump.run()
    assert client.node_id in pump.lsp.state.house.members


# To build


@pytest.mark.parametrize(("least", "most"), [(0, 3), (3, 2), (1, 1025), (-1, -1)])
def test_a_build_for_an_impossible_number_of_clients_is_rejected(least: int, most: int) -> None:
    pump = Pump(3)
    pump.join()
    rejected = rejection(pump, pump.lsp, ev.BuildRequested(min_clients=least, max_clients=most))
    assert (rejected.code, rejected.retryable) == ("invalid_clients", False)
    assert f"received {least}, {most}" in str(rejected)


def test_an_operators_own_shape_is_what_is_built() -> None:
    policy = LspPolicy(min_clients=1, leaf_arity=1, inner_levels=dw([4]))
    pump = proposed(4, policy=policy)
    pump.run()
    assert pump.is_funded()
    assert pump.attempt.terms.inner_arities == (4,)
    names = [node.name for node in pump.attempt.tree.nodes if node.layer == 1]
    assert names == [f"{kind}_{leaf}" for leaf in range(4) for kind in ("kickoff", "state")]


def test_a_shape_for_fewer_clients_than_wait_is_rejected_by_name() -> None:
    """One level of two leaves of one seat each: a third client has no place in it."""
    pump = Pump(3, policy=LspPolicy(min_clients=1, leaf_arity=1, inner_levels=dw([2])))
    pump.join()
    rejected = rejection(pump, pump.lsp, ev.BuildRequested(min_clients=3, max_clients=3))
    assert rejected.code == "invalid_terms"
    assert "inner_arities" in str(rejected)
