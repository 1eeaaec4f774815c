"""Leaving burns no more than the own policy lets it: at both ends, and before anybody signs."""

from dataclasses import replace
from typing import Any, Final

import pytest
from tests.protocol.forge import Victim, rebuilt, scene, victim_with
from tests.protocol.pump import LEAST_SAT, WANTED_SAT, Pump, PumpNode
from tests.protocol.refusal import check_refused
from tests.protocol.test_leaving import QUICK
from tests.simulation.sim_node import LENIENT

from cromford import told
from cromford.factory.kinds import InnerLevels, VertexKind
from cromford.protocol import events as ev
from cromford.protocol.facts import Facts
from cromford.protocol.faults import Refusal, Rejected
from cromford.protocol.journal.first_commitments import channel_terms_of
from cromford.protocol.journal.proposal import ClaimedCandidate
from cromford.protocol.lobby.build import capacity_floor_sat, greeting, plan_build
from cromford.protocol.opening.verification import ClientFacts, check_terms
from cromford.protocol.policy import LspPolicy
from cromford.watch.burnt import BurnLimit, channel_burns_sat
from cromford.watch.feerates import OwnFees
from cromford.wire import messages as m

DEAR: Final[dict[str, Any]] = {"tree_feerate_sat_per_kw": 15_000, "max_accepted_htlcs": 6}
ONE_CHANNEL_LESS: Final = (WANTED_SAT, LEAST_SAT, WANTED_SAT)


def hearing(fees: OwnFees, victim: Victim) -> Victim:
    """Let a victim's own node say this of feerates."""
    victim.driver.facts = Facts(fees=fees)
    return victim


def asks(estimate: int) -> OwnFees:
    return OwnFees(estimates=((2, 10 * estimate), (144, estimate), (1008, 25)))


# The client


def test_at_15000_sat_per_kw_a_balance_of_19300_sat_would_burn_and_is_not_risked() -> None:
    """Its own range of feerates is wide: only what follows from the terms says no.

    Paid to it by an HTLC that the LSP leaves open until the expiry, of 19,300 sat it would keep
    7,720; of 11,933, nothing.
    """
    channel = channel_terms_of(replace(scene().attempt.terms, **DEAR))
    assert 19_300 - channel.htlc_tx_cost_sat(is_offered=False) == 7_720
    assert channel.is_trimmed(11_933_999, is_offered=False)
    check_refused(
        rebuilt(**DEAR),
        "tree_feerate_sat_per_kw",
        expected="at most 20 sat/vB (10 times the 2 sat/vB of our own node)",
        received=15_000,
    )


def test_what_the_own_node_asks_itself_is_judged_by_the_capacity() -> None:
    """Where the chain is as dear, 15,000 sat/kw is no insult; but the channel cannot bear it."""
    check_refused(
        rebuilt(**DEAR),
        "capacity_sat",
        expected="at least 247740 (leaving burns 24774 at 60 sat/vB; 10 % may be burnt)",
        received=WANTED_SAT,
        victim=hearing(asks(15_000), Victim()),
    )


@pytest.mark.parametrize(("estimate", "most"), [(25, 2_500), (250, 2_500), (300, 3_000)])
def test_a_feerate_is_measured_by_what_the_clients_own_node_asks(estimate: int, most: int) -> None:
    propose = rebuilt(tree_feerate_sat_per_kw=most)
    assert signs(hearing(asks(estimate), Victim()), propose)
    own = max(estimate, 250)
    check_refused(
        rebuilt(tree_feerate_sat_per_kw=most + 1),
        "tree_feerate_sat_per_kw",
        expected=f"at most {told.feerate(most)} (10 times the {told.feerate(own)} of our own node)",
        received=most + 1,
        victim=hearing(asks(estimate), Victim()),
    )


@pytest.mark.parametrize("estimate", [25, 250])
def test_the_default_feerate_is_signed_on_the_quietest_day(estimate: int) -> None:
    assert scene().attempt.terms.tree_feerate_sat_per_kw == LspPolicy().tree_feerate_sat_per_kw
    assert signs(hearing(asks(estimate), Victim()), scene().propose)


def test_a_capacity_of_which_leaving_burns_a_satoshi_too_much_is_refused() -> None:
    """At 50,000 sat: up to 2,611 sat/kw, where it burns 5,000."""
    terms = replace(scene().attempt.terms, tree_feerate_sat_per_kw=2_611)
    assert channel_burns_sat(channel_terms_of(terms)) == 5_000
    assert signs(Victim(), rebuilt(tree_feerate_sat_per_kw=2_611, capacity_sat=ONE_CHANNEL_LESS))
    check_refused(
        rebuilt(tree_feerate_sat_per_kw=2_612, capacity_sat=ONE_CHANNEL_LESS),
        "capacity_sat",
        expected="at least 50020 (leaving burns 5002 at 10.448 sat/vB; 10 % may be burnt)",
        received=LEAST_SAT,
    )


def test_an_operator_says_otherwise() -> None:
    """Both numbers are a price, and its own business: a wider limit signs, a narrower refuses."""
    wide = BurnLimit(times_estimate=30, percent=25)
    assert signs(victim_with(burn_limit=wide), rebuilt(**DEAR))
    narrow = victim_with(burn_limit=BurnLimit(percent=1))
    check_refused(scene().propose, "capacity_sat", received=WANTED_SAT, victim=narrow)


def test_a_factory_signed_on_a_dear_day_is_not_measured_by_the_days_after() -> None:
    """`client verify` repeats the checks; what the node said then it does not know any more."""
    limit = BurnLimit(percent=25)
    assert signs(hearing(asks(1_500), victim_with(burn_limit=limit)), rebuilt(**DEAR))
    state = scene().state
    assert state.joining is not None
    facts = ClientFacts(
        network=state.config.network,
        policy=replace(LENIENT, burn_limit=limit),
        tip_height=scene().tip,
        known_funding_outpoints=frozenset(),
    )
    claim = ClaimedCandidate(join=state.joining.join, propose=rebuilt(**DEAR))
    assert check_terms(claim, facts).tree_feerate_sat_per_kw == 15_000
    with pytest.raises(Refusal, match="tree_feerate_sat_per_kw: expected at most 20 sat/vB"):
        check_terms(claim, replace(facts, fees=OwnFees()))
    with pytest.raises(Refusal, match="capacity_sat: expected at least 247740"):
        check_terms(claim, replace(facts, policy=LENIENT))


def signs(victim: Victim, propose: m.Propose) -> bool:
    victim.hear(propose)
    assert victim.attempt.aborted is None, victim.attempt.aborted
    return len(victim.signing) == 1


# The LSP


def lsp_asking(pump: Pump, fees: OwnFees) -> PumpNode:
    pump.lsp.fees = fees
    return pump.lsp


def planned(pump: Pump, fees: OwnFees) -> None:
    plan_build(pump.lsp.state.house, min_clients=1, max_clients=100, fees=fees)


def test_an_lsp_plans_no_tree_that_is_far_above_what_its_own_node_asks() -> None:
    pump = Pump(2, policy=replace(QUICK, tree_feerate_sat_per_kw=2_600))
    pump.join()
    with pytest.raises(Rejected) as refused:
        planned(pump, asks(25))
    assert str(refused.value) == (
        "tree_feerate_sat_per_kw: expected at most 10 sat/vB (10 times the 1 sat/vB of our node), "
        "received 10.4 sat/vB"
    )
    lsp_asking(pump, asks(25))
    pump.build()
    assert not pump.lsp.state.attempts
    lsp_asking(pump, asks(260))
    pump.build()
    pump.run()
    assert pump.is_funded()


def test_an_lsp_offers_no_channel_of_which_leaving_burns_too_much() -> None:
    """It says so to whoever connects, so nobody waits for a factory that nobody would sign."""
    policy = replace(QUICK, tree_feerate_sat_per_kw=3_000)
    assert capacity_floor_sat(policy) == 56_220
    assert capacity_floor_sat(replace(policy, burn_limit=BurnLimit(percent=20))) == 29_256
    assert capacity_floor_sat(LspPolicy()) == LspPolicy().capacity_min_sat
    pump = Pump(1, policy=policy)
    assert greeting(pump.lsp.state.house).capacity_min_sat == 56_220
    client = pump.clients[0]
    pump.handle(client, ev.JoinRequested(capacity_sat=56_219, capacity_least_sat=56_219))
    pump.run()
    assert not pump.lsp.state.house.members
    pump.handle(client, ev.JoinRequested(capacity_sat=56_220, capacity_least_sat=56_220))
    pump.run()
    planned(pump, OwnFees())


def test_an_lsp_plans_no_factory_in_which_everybodys_leaving_burns_too_much_of_its_own() -> None:
    """Each client alone in a leaf, at the end of long paths: the channels bear it, the LSP not."""
    levels = InnerLevels(arities=(2, 2, 2), kinds=(VertexKind.DW,) * 3)
    policy = replace(
        QUICK, leaf_arity=1, inner_levels=levels, capacity_min_sat=10_000,
        burn_limit=BurnLimit(percent=4),
    )  # fmt: skip
    pump = Pump(8, policy=policy)
    for client in pump.clients:
        wish = ev.JoinRequested(capacity_sat=40_800, capacity_least_sat=40_800)
        pump.handle(client, wish)
    pump.run()
    with pytest.raises(Rejected) as refused:
        planned(pump, OwnFees())
    # The tree 15,930 sat, and eight commitments of 660.
    assert str(refused.value) == (
        "fees: expected at most 4 % of the 489600 sat in channels and L-stocks to be burnt if "
        "everybody leaves, received 21210 sat, at 2 sat/vB"
    )
