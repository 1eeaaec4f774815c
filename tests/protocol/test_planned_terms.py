"""What an LSP plans, a default client signs: any number of clients, any shape."""

from dataclasses import replace
from functools import cache
from itertools import cycle
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from immutables import Map
from tests.factory.specimen import DW, STATIC
from tests.protocol import pump
from tests.protocol.forge import scene
from tests.protocol.pump import Pump

from cromford.bitcoin.network import REGTEST, SIGNET, Network
from cromford.factory.kinds import InnerLevels
from cromford.factory.shape import plan_of
from cromford.factory.terms import N_CLIENTS_MAX, FactoryTerms
from cromford.protocol.faults import Rejected
from cromford.protocol.journal.house import House
from cromford.protocol.journal.proposal import ClaimedCandidate
from cromford.protocol.lobby.build import BuildPlan, plan_build
from cromford.protocol.opening.verification import ClientFacts, check_terms
from cromford.protocol.opening.verification_channel import check_is_relayed, check_max_cltv
from cromford.protocol.policy import ClientPolicy, LspPolicy
from cromford.protocol.term_ranges import check_layers, usual_client
from cromford.watch.feerates import OwnFees

CAPACITIES_SAT: Final = (150_000, 200_000, 1_000_000)
COIN_SAT: Final = 10**10
FEES: Final = OwnFees()
LARGE: Final = LspPolicy(
    min_clients=1, max_clients=N_CLIENTS_MAX, capital_per_build_sat=10**9, capital_max_sat=10**9
)


@cache
def house() -> House:
    """Return the house of an LSP with one client in its lobby, and a coin that pays for all."""
    with patch.object(pump, "COIN_SAT", COIN_SAT):
        world = Pump(1)
    world.join()
    found: House = world.lsp.state.house
    return found


def planned(policy: LspPolicy, n_clients: int, network: Network = SIGNET) -> BuildPlan:
    """Return what a build with so many clients would be."""
    one = next(iter(house().members.values()))
    crowd = {
        node_id: replace(
            one, node_id=node_id, join=replace(one.join, capacity_sat=sat, capacity_least_sat=sat)
        )
        for node_id, sat in zip(
            (n.to_bytes(33, "big") for n in range(n_clients)), cycle(CAPACITIES_SAT)
        )
    }
    config = replace(house().config, policy=policy, network=network)
    crowded = replace(house(), members=Map(crowd), connected=frozenset(crowd), config=config)
    return plan_build(crowded, min_clients=n_clients, max_clients=n_clients, fees=FEES)


def check_signed_by(policy: ClientPolicy, terms: FactoryTerms, client: int) -> None:
    """Check terms as a client with this policy does when it hears a proposal.

    Raises:
        Refusal: As the client says it.
    """
    capacity_sat = terms.capacity_sat[client - 1]
    propose = replace(
        scene().propose,
        attempt_id=terms.attempt_id,
        terms=terms.encode(),
        terms_hash=terms.terms_hash,
        client=client,
    )
    join: Any = SimpleNamespace(capacity_sat=capacity_sat, capacity_least_sat=capacity_sat)
    claim = ClaimedCandidate(join=join, propose=propose)
    facts = ClientFacts(
        network=SIGNET,
        policy=policy,
        tip_height=terms.build_height,
        known_funding_outpoints=frozenset(),
        fees=FEES,
    )
    heard = check_terms(claim, facts)
    plan = plan_of(heard)
    check_is_relayed(heard, plan, min_relay_sat_per_kw=FEES.min_relay_sat_per_kw)
    kinds = plan.shape.kinds_to(client)
    check_layers(policy, kinds)
    check_max_cltv(heard, kinds=kinds, slowest_kinds=plan.shape.slowest_kinds)


LEVELS: Final = st.lists(st.tuples(st.integers(2, 32), st.sampled_from((DW, STATIC))), max_size=12)


@st.composite
def policies(draw: st.DrawFn) -> LspPolicy:
    """Draw how an LSP builds: its shape, and what else decides how long the ways out take."""
    levels = draw(st.none() | LEVELS)
    step_blocks = draw(st.sampled_from((72, 144, 500, 1, 71, 1009)))
    states_per_layer = draw(st.sampled_from((2, 4, 5, 65)))
    one_layer = step_blocks * (states_per_layer - 1)
    return replace(
        LARGE,
        leaf_arity=draw(st.integers(1, 12)),
        inner_levels=levels
        if levels is None
        else InnerLevels(arities=tuple(w for w, _ in levels), kinds=tuple(k for _, k in levels)),
        inner_kind=draw(st.sampled_from((None, DW, STATIC))),
        step_blocks=step_blocks,
        states_per_layer=states_per_layer,
        max_exit_delay_blocks=draw(st.sampled_from((1296, one_layer, 4320, 20_000))),
        tree_feerate_sat_per_kw=draw(st.sampled_from((250, 500, 2_500))),
        active_blocks=draw(st.sampled_from((12_960, 2_016, 45_000, 52_000))),
    )


BINARY: Final = replace(LARGE, inner_kind=DW, max_exit_delay_blocks=4320)


@given(policy=policies(), n_clients=st.integers(1, N_CLIENTS_MAX), data=st.data())
@example(policy=LARGE, n_clients=N_CLIENTS_MAX, data=None)
@example(policy=LARGE, n_clients=1, data=None)
@example(policy=replace(LARGE, inner_kind=DW), n_clients=N_CLIENTS_MAX, data=None)
@example(policy=BINARY, n_clients=64, data=None)
@settings(max_examples=40, deadline=None)
def test_what_can_be_planned_is_signed_by_a_usual_client_in_every_seat(
    policy: LspPolicy, n_clients: int, data: Any
) -> None:
    """One that raised the longest way out as its LSP did, and left all else as it is."""
    try:
        plan = planned(policy, n_clients)
    except Rejected as rejected:
        assert rejected.code == "invalid_terms"  # noqa: PT017 - it may also be planned
        return
    client = usual_client(policy)
    seats = {1, n_clients} | ({data.draw(st.integers(1, n_clients))} if data else set())
    for seat in seats:
        check_signed_by(client, plan.terms, seat)


@pytest.mark.parametrize("n_clients", [1, 2, 3, 4, 5, 16, 127, 512, 1_023, N_CLIENTS_MAX])
@pytest.mark.parametrize("kind", [None, DW, STATIC])
def test_every_number_of_clients_can_be_planned_in_the_usual_shapes(
    n_clients: int, kind: Any
) -> None:
    plan = planned(replace(LARGE, inner_kind=kind), n_clients)
    assert plan.terms.n_clients == n_clients
    check_signed_by(ClientPolicy(), plan.terms, n_clients)


def test_more_layers_than_a_client_takes_are_refused_when_they_are_planned() -> None:
    levels = InnerLevels(arities=(2,) * 8, kinds=(STATIC,) * 8)
    for network in (REGTEST, SIGNET):
        with pytest.raises(Rejected, match=r"client refuses layers: expected 1\.\.8, rec"):
            planned(replace(LARGE, inner_levels=levels), 512, network)
    fewer = InnerLevels(arities=(4, *(2,) * 6), kinds=(STATIC,) * 7)
    plan = planned(replace(LARGE, inner_levels=fewer), 512)
    check_signed_by(ClientPolicy(), plan.terms, 512)
