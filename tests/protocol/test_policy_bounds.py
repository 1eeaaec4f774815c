"""Every bound of a client's policy, from both sides: what the LSP could do beyond, and just within.

The attacker builds an honest tree on its terms. At a bound the client signs; one beyond it refuses
by name.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import pytest
from tests.protocol.forge import Victim, encoded_terms, rebuilt, scene, with_raw_terms
from tests.protocol.pump import LEAST_SAT, WANTED_SAT
from tests.protocol.refusal import check_refused
from tests.simulation.sim_node import LENIENT

from cromford.bitcoin.network import MAINNET, NETWORKS, REGTEST, SIGNET
from cromford.channel.terms import (
    COMMITMENT_WEIGHT,
    HTLC_OUTPUT_WEIGHT,
    HTLC_SUCCESS_WEIGHT,
    HTLC_TIMEOUT_WEIGHT,
    MAX_DUST_EXPOSURE_MSAT,
    MSAT_PER_SAT,
    ChannelTerms,
    Party,
)
from cromford.factory.terms import FeePolicy
from cromford.protocol.faults import Refusal
from cromford.protocol.journal.first_commitments import channel_terms_of
from cromford.protocol.journal.proposal import ClaimedCandidate
from cromford.protocol.opening.verification import ClientFacts, check_terms
from cromford.protocol.policy import (
    LARGE_CAPACITY_SAT,
    ClientPolicy,
    UnsafePolicy,
    check_is_safe,
    least_depth,
)
from cromford.watch.burnt import BurnLimit
from cromford.wire import messages as m

POLICY: Final = ClientPolicy()
TERMS: Final = scene().attempt.terms
TIP: Final = scene().tip
EB: Final = 894  # Two layers of 432 blocks, five transactions.


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One end of one bound.

    Attributes:
        attack: What an LSP could do beyond it.
        term: The term that it chooses.
        within: The last value that a client signs.
        beyond: The first that it refuses.
        bounds: The field of the policy.
        named: What it calls the term, if not by its name.
        other: What must change with the term for a tree to be possible.
        policy: What must change in the policy for this bound to be the one that is met.
    """

    attack: str
    term: str
    within: int
    beyond: int
    bounds: str
    named: str = ""
    other: Callable[[int], dict[str, Any]] = lambda _: {}
    policy: dict[str, Any] = field(default_factory=dict)

    @property
    def claim(self) -> str:
        return f"{self.term}={self.beyond}"

    def proposal(self, value: int) -> m.Propose:
        return rebuilt(**{**self.other(value), self.term: value})


def fixed(**other: Any) -> Callable[[int], dict[str, Any]]:
    return lambda _: other


def far(n_blocks: int) -> int:
    return TERMS.expiry_height + n_blocks


def with_step(step_blocks: int, **other: Any) -> dict[str, Any]:
    """Return the terms that go with a step: delays of a step at least, and room for all."""
    return {
        "step_blocks": step_blocks,
        "states_per_layer": 2,
        "lstock_csv_blocks": max(144, step_blocks),
        "to_self_delay_lsp": max(144, step_blocks),
        "to_self_delay_client": max(432, step_blocks),
        "max_cltv_blocks": 4032,
        "expiry_height": far(5_000),
        **other,
    }


# One leaf for all, so that the longest delay is that of one layer.
FLAT: Final[dict[str, Any]] = {"leaf_arity": 3, "inner_arities": (), "lstock_sat": (150_000,)}


ROWS: Final = [
    Bound(
        attack="an old state wins the race against who looks away for six hours",
        term="step_blocks", within=72, beyond=71, bounds="step_blocks",
        other=with_step,
    ),
    Bound(
        attack="steps of a week, in one layer only, keep a client's money for weeks",
        term="step_blocks", within=1008, beyond=1009, bounds="step_blocks",
        other=lambda value: with_step(value, **FLAT),
    ),
    Bound(
        attack="more states than a way out of nine days can have",
        term="states_per_layer", within=64, beyond=65, bounds="states_per_layer",
        other=lambda value: with_step(
            72, max_exit_delay_blocks=72 * (value - 1), max_cltv_blocks=10_000,
            expiry_height=far(9_000), **FLAT,
        ),
        policy={"exit_delay_blocks_max": 10_000, "max_cltv_blocks": (1, 10_000)},
    ),
    Bound(
        attack="a way out of many weeks: money that leaves is a hostage",
        term="max_exit_delay_blocks", within=1296, beyond=1297, bounds="exit_delay_blocks_max",
    ),
    Bound(
        attack="money is bound for years, if the LSP never answers a cooperative close",
        term="expiry_height", within=TIP + 52_560, beyond=TIP + 52_561, bounds="expiry_blocks_max",
    ),
    Bound(
        attack="the exit deadline passes while the client is away for a week",
        term="active_blocks", within=1008, beyond=1007, bounds="active_blocks",
        other=lambda value: {"ready_min_blocks": value},
    ),
    Bound(
        attack="an active period beyond any expiry",
        term="active_blocks", within=52_560, beyond=52_561, bounds="active_blocks",
        other=fixed(expiry_height=far(60_000)), policy={"expiry_blocks_max": 100_000},
    ),
    Bound(
        attack="the client finds the factory dying and the deadline past on one day",
        term="dying_blocks", within=144, beyond=143, bounds="dying_blocks",
    ),
    Bound(
        attack="a factory that takes no payment for months",
        term="dying_blocks", within=4320, beyond=4321, bounds="dying_blocks",
        other=fixed(expiry_height=far(5_000)),
    ),
    Bound(
        attack="the funding is held back until the exit deadline is a day away",
        term="ready_min_blocks", within=1008, beyond=1007, bounds="ready_min_blocks",
    ),
    Bound(
        attack="a funding that is any later than at once is useless",
        term="ready_min_blocks", within=4320, beyond=4321, bounds="ready_min_blocks",
        other=fixed(active_blocks=4321, expiry_height=far(5_000)),
    ),
    Bound(
        attack="a funding of unlucky blocks is given up, and its client joins again",
        term="patience_blocks", within=6, beyond=5, bounds="patience_blocks",
    ),
    Bound(
        attack="a client waits for months for a funding that never comes",
        term="patience_blocks", within=1008, beyond=1009, bounds="patience_blocks",
    ),
    Bound(
        attack="a reorganisation of one block takes back the funding of what was paid",
        term="min_depth", within=3, beyond=2, bounds="min_depth",
    ),
    Bound(
        attack="a funded channel stands idle for a day",
        term="min_depth", within=12, beyond=13, bounds="min_depth",
    ),
    Bound(
        attack="the way out is below what mempools relay, fees being rounded down",
        term="tree_feerate_sat_per_kw", within=250, beyond=249, bounds="tree_feerate_sat_per_kw",
    ),
    Bound(
        attack="each HTLC and each sweep burns thousands of satoshi",
        term="tree_feerate_sat_per_kw", within=5_000, beyond=5_001,
        bounds="tree_feerate_sat_per_kw",
    ),
    Bound(
        attack="the liquidity stock of an old state is gone before anybody looks",
        term="lstock_csv_blocks", within=72, beyond=71, bounds="lstock_csv_blocks",
        other=with_step, named="step_blocks",
    ),
    Bound(
        attack="none: the LSP's own money waits",
        term="lstock_csv_blocks", within=2016, beyond=2017, bounds="lstock_csv_blocks",
    ),
    Bound(
        attack="a revoked commitment is swept before its victim looks at the chain",
        term="to_self_delay_lsp", within=144, beyond=143, bounds="to_self_delay_blocks",
        other=lambda _: with_step(72),
    ),
    Bound(
        attack="none: the LSP's own money waits",
        term="to_self_delay_lsp", within=2016, beyond=2017, bounds="to_self_delay_blocks",
    ),
    Bound(
        attack="none: the LSP would have less time to punish",
        term="to_self_delay_client", within=144, beyond=143, bounds="to_self_delay_blocks",
        other=lambda _: with_step(72),
    ),
    Bound(
        attack="after a way out of nine days, the client's coin waits for months",
        term="to_self_delay_client", within=2016, beyond=2017, bounds="to_self_delay_blocks",
    ),
    Bound(
        attack="commitments with an output that no mempool takes cannot be published",
        term="dust_limit_sat", within=330, beyond=329, bounds="dust_limit_sat",
    ),
    Bound(
        attack="balances and HTLCs below a high dust limit go to fees",
        term="dust_limit_sat", within=354, beyond=355, bounds="dust_limit_sat",
    ),
    Bound(
        attack="one payee that holds a few payments blocks the channel",
        term="max_accepted_htlcs", within=6, beyond=5, bounds="max_accepted_htlcs",
    ),
    Bound(
        attack="a commitment with all HTLCs is larger than mempools take (BIP 431)",
        term="max_accepted_htlcs", within=114, beyond=115, bounds="max_accepted_htlcs",
        other=fixed(tree_feerate_sat_per_kw=250),
    ),
    Bound(
        attack="no other client can pay this one: their payments would last too long",
        term="max_cltv_blocks", within=2 * EB + 210, beyond=2 * EB + 209, bounds="max_cltv_blocks",
    ),
    Bound(
        attack="a payment ties money up for months",
        term="max_cltv_blocks", within=4032, beyond=4033, bounds="max_cltv_blocks",
    ),
    Bound(
        attack="who moves to another factory needs many payments, and has no time for them",
        term="max_in_flight_msat", within=WANTED_SAT * 1000, beyond=WANTED_SAT * 1000 - 1,
        bounds="max_in_flight_msat",
    ),
    Bound(
        attack="none: more than all money is never in flight",
        term="max_in_flight_msat", within=21 * 10**17, beyond=21 * 10**17 + 1,
        bounds="max_in_flight_msat",
    ),
    Bound(
        attack="none: built on a height to come, it expires later",
        term="build_height", within=TIP + 6, beyond=TIP + 7, bounds="build_height_slack_blocks",
        other=fixed(expiry_height=far(7)),
    ),
]  # fmt: skip


def careful(**policy: Any) -> Victim:
    """Return the victim with the default policy, but for the pools that its lobby asks for."""
    state = scene().state
    own = replace(POLICY, pool_size=state.config.policy.pool_size, **policy)
    config = replace(state.config, policy=own)
    return Victim(state=replace(state, config=config))


@pytest.mark.parametrize("bound", ROWS, ids=lambda bound: bound.claim)
def test_beyond_a_bound_the_client_refuses_by_name(bound: Bound) -> None:
    victim = careful(**bound.policy)
    check_refused(bound.proposal(bound.beyond), bound.named or bound.term, victim=victim)


@pytest.mark.parametrize("bound", ROWS, ids=lambda bound: bound.claim)
def test_at_a_bound_the_client_signs(bound: Bound) -> None:
    victim = careful(**bound.policy)
    victim.hear(bound.proposal(bound.within))
    assert victim.attempt.aborted is None
    assert len(victim.signing) == 1


def test_every_bound_of_the_policy_is_tested() -> None:
    """`build_height` from below, clients and fee policies: `test_terms_policy`.

    When a failed channel is left: `test_failed_channels`. What leaving burns: `test_burn_limits`.
    What is done about a factory that dies: `test_moving_out`. What is taken beyond coverage:
    `test_coverage`. Funding candidates: `test_ladder_refusals`.
    """
    elsewhere = {
        *("burn_limit", "when_dying", "moving_capacity_sat", "receive_beyond_coverage"),
        *("candidates_max", "layers_max", "fee_policies", "max_clients"),
        *("pool_size", "deadline_seconds"),
        *("fee_base_msat_max", "fee_proportional_millionths_max", "failed_channel_blocks"),
    }
    tested = {bound.bounds for bound in ROWS}
    assert tested | elsewhere == {item.name for item in fields(ClientPolicy)}
    assert not tested & elsewhere


# Several terms together


def test_many_long_steps_are_refused_as_a_long_way_out() -> None:
    other = with_step(1008, states_per_layer=64, max_exit_delay_blocks=63 * 1008, **FLAT)
    propose = rebuilt(**{**other, "expiry_height": far(70_000)})
    check_refused(propose, "max_exit_delay_blocks", expected="0..1296", victim=careful())


def test_a_deeper_tree_than_the_policy_allows_is_refused_as_layers() -> None:
    check_refused(
        scene().propose, "layers", expected="1..1", received=2, victim=careful(layers_max=1)
    )


def test_a_feerate_that_eats_more_than_half_of_a_channel_is_refused() -> None:
    """The LSP keeps what a commitment with all HTLCs costs; a client's capacity pays for it."""
    capacities_sat = (WANTED_SAT, LEAST_SAT, WANTED_SAT)
    indulgent = {"burn_limit": BurnLimit(percent=100)}
    victim = careful(**indulgent)
    victim.hear(rebuilt(tree_feerate_sat_per_kw=5_000, capacity_sat=capacities_sat))
    assert victim.attempt.aborted is None
    assert channels(tree_feerate_sat_per_kw=5_000).reserve_sat(
        Party.OPENER, capacity_sat=LEAST_SAT
    ) == 240 + 5 * (668 + 24 * 172)
    check_refused(
        rebuilt(tree_feerate_sat_per_kw=5_000, max_accepted_htlcs=14, capacity_sat=capacities_sat),
        "capacity_sat",
        expected=f"at least {2 * (240 + 5 * (668 + 28 * 172))}",
        received=LEAST_SAT,
        victim=careful(**indulgent),
    )


def channels(**changes: Any) -> ChannelTerms:
    """Return the terms of the channels of a factory with other terms."""
    return channel_terms_of(replace(TERMS, **changes))


def test_within_the_policy_an_htlc_without_an_output_is_small_enough_to_go_without() -> None:
    """Else there were amounts that nobody could pay: no output, and too much for the fees."""
    dear = channels(
        tree_feerate_sat_per_kw=POLICY.tree_feerate_sat_per_kw[1],
        dust_limit_sat=POLICY.dust_limit_sat[1],
    )
    for is_offered in (False, True):
        largest_msat = MSAT_PER_SAT * (
            dear.htlc_tx_cost_sat(is_offered=is_offered) + dear.dust_limit_sat
        )
        assert not dear.is_trimmed(largest_msat, is_offered=is_offered)
        assert dear.is_trimmed(largest_msat - 1, is_offered=is_offered)
        assert largest_msat <= MAX_DUST_EXPOSURE_MSAT
    dearer = channels(tree_feerate_sat_per_kw=6_000)
    assert dearer.is_trimmed(MAX_DUST_EXPOSURE_MSAT, is_offered=False)


def test_at_the_least_feerate_every_transaction_pays_a_satoshi_per_vbyte() -> None:
    """Fees of commitments and HTLC transactions are rounded down, those of the tree up."""

    def under_one_sat_per_vb(feerate_sat_per_kw: int) -> set[str]:
        terms = channels(tree_feerate_sat_per_kw=feerate_sat_per_kw)
        weights = {
            f"commitment with {n}": (
                terms.commitment_fee_sat(n_htlc_outputs=n),
                COMMITMENT_WEIGHT + n * HTLC_OUTPUT_WEIGHT,
            )
            for n in range(2 * POLICY.max_accepted_htlcs[1] + 1)
        }
        for is_offered, weight in ((True, HTLC_TIMEOUT_WEIGHT), (False, HTLC_SUCCESS_WEIGHT)):
            cost_sat = terms.htlc_tx_cost_sat(is_offered=is_offered) - terms.paid_anchor_sat
            weights[f"htlc {is_offered}"] = cost_sat, weight
        return {name for name, (fee_sat, weight) in weights.items() if 4 * fee_sat < weight}

    least = POLICY.tree_feerate_sat_per_kw[0]
    assert not under_one_sat_per_vb(least)
    assert len(under_one_sat_per_vb(least - 1)) > 200


# How deep a funding must be


@pytest.mark.parametrize(
    ("capacities_sat", "candidates", "depth"),
    [
        ((50_000,), 1, 3),
        ((50_000, LARGE_CAPACITY_SAT - 1), 1, 3),
        ((50_000, LARGE_CAPACITY_SAT), 1, 6),
        ((LARGE_CAPACITY_SAT, 50_000), 1, 6),
        ((50_000,), 2, 6),
        ((LARGE_CAPACITY_SAT,), 16, 6),
    ],
)
def test_a_large_factory_and_one_with_candidates_are_buried_deeper(
    capacities_sat: tuple[int, ...], candidates: int, depth: int
) -> None:
    assert least_depth(3, capacities_sat, candidates=candidates) == depth
    assert least_depth(9, capacities_sat, candidates=candidates) == 9


@pytest.mark.parametrize("policy", [POLICY, LENIENT], ids=["careful", "lenient"])
@pytest.mark.parametrize(
    ("large_sat", "depth", "signs"),
    [
        (LARGE_CAPACITY_SAT, 5, False),
        (LARGE_CAPACITY_SAT, 6, True),
        (LARGE_CAPACITY_SAT - 1, 3, True),
    ],
)
def test_where_there_is_more_to_take_a_client_asks_for_six_confirmations(
    policy: ClientPolicy, large_sat: int, depth: int, *, signs: bool
) -> None:
    """One reorganisation takes every channel: another client's capacity counts as well."""
    state = scene().state
    assert state.joining is not None
    facts = ClientFacts(
        network=state.config.network,
        policy=policy,
        tip_height=TIP,
        known_funding_outpoints=frozenset(),
    )
    capacities_sat = (large_sat, LEAST_SAT, WANTED_SAT)
    changes: dict[str, Any] = {"capacity_sat": capacities_sat, "min_depth": depth}
    changes["max_in_flight_msat"] = MSAT_PER_SAT * large_sat
    propose = with_raw_terms(scene().propose, encoded_terms(**changes))
    claim = ClaimedCandidate(join=state.joining.join, propose=propose)
    if signs:
        assert check_terms(claim, facts).min_depth == depth
    else:
        with pytest.raises(Refusal, match=r"min_depth: expected 6\.\.12, received 5"):
            check_terms(claim, facts)


# What an operator may not change


def test_the_default_policy_is_safe_everywhere() -> None:
    for network in NETWORKS.values():
        check_is_safe(POLICY, network)


def test_a_policy_that_an_lsp_could_rob_is_refused_where_money_is_real() -> None:
    robbed = replace(POLICY, min_depth=(1, 12))
    check_is_safe(robbed, REGTEST)
    for network in (SIGNET, MAINNET):
        with pytest.raises(UnsafePolicy, match=r"min_depth: expected at least 3, received 1: a re"):
            check_is_safe(robbed, network)
    with pytest.raises(UnsafePolicy, match="dust_limit_sat: expected at most 354, received 1000"):
        check_is_safe(replace(POLICY, dust_limit_sat=(330, 1000)), MAINNET)
    with pytest.raises(
        UnsafePolicy, match=r"fee_policies: .* received ephemeral: .* without a coin"
    ):
        check_is_safe(replace(POLICY, fee_policies=tuple(FeePolicy)), MAINNET)
