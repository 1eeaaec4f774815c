"""Which terms a client signs: every term out of its own policy is refused by its own name.

Wherever a tree can be built on the bad terms, the attacker builds it: the hash is right, the
funding pays the new amount to the new script, every transaction follows from the terms. Only
the client's policy is left to say no.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import pytest
from tests.protocol.forge import (
    VICTIM,
    Victim,
    encoded_terms,
    rebuilt,
    scene,
    victim_with,
    with_raw_terms,
)
from tests.protocol.pump import LEAST_SAT, WANTED_SAT
from tests.protocol.refusal import check_refused
from tests.simulation.sim_node import LENIENT

from cromford import told
from cromford.bitcoin.tx import Txid
from cromford.factory.kinds import VertexKind
from cromford.factory.terms import SAFETY_BLOCKS, FactoryTerms, FeePolicy
from cromford.protocol import events as ev

POLICY: Final = LENIENT
TERMS: Final = scene().attempt.terms
TIP: Final = scene().tip
N_LAYERS: Final = 2
EVERY_TERM: Final = {item.name for item in fields(FactoryTerms)}


@dataclass(frozen=True, kw_only=True)
class Bad:
    """One term out of policy, with what else must change so that a tree can be built on it."""

    term: str
    value: Any
    expected: object = None
    named: str = ""
    with_it: dict[str, Any] = field(default_factory=dict)

    @property
    def claim(self) -> str:
        return f"{self.term}={self.value}"


def ranged(term: str, *, policy: str = "", low: bool = True, **with_it: Any) -> list[Bad]:
    """Return one below and one above the policy's range."""
    least, most = getattr(POLICY, policy or term)
    values = [least - 1, most + 1] if low else [most + 1]
    expected = f"{told.shown(term, least)}..{told.shown(term, most)}"
    return [Bad(term=term, value=value, expected=expected, with_it=with_it) for value in values]


def far(n_blocks: int) -> int:
    """Return an expiry with room for so many blocks more."""
    return TERMS.expiry_height + n_blocks


# A step longer than other delays makes impossible terms, so these grow with it.
LONG_STEP: Final[dict[str, Any]] = {
    "states_per_layer": 2,
    "max_exit_delay_blocks": 65_535,
    "lstock_csv_blocks": 1009,
    "to_self_delay_lsp": 1009,
    "to_self_delay_client": 1009,
    "expiry_height": far(5_000),
}
REBUILT: Final = [
    *ranged("step_blocks", low=False, **LONG_STEP),
    *ranged("states_per_layer", low=False, step_blocks=1),
    *ranged("active_blocks", ready_min_blocks=1, expiry_height=far(100_000)),
    *ranged("dying_blocks", expiry_height=far(100_000)),
    *ranged("ready_min_blocks", active_blocks=5000, expiry_height=far(1000)),
    *ranged("patience_blocks"),
    *ranged("min_depth", low=False),
    *ranged("lstock_csv_blocks", low=False),
    *ranged("max_accepted_htlcs", low=False),
    *ranged("max_cltv_blocks"),
    *ranged("max_in_flight_msat"),
    *ranged("dust_limit_sat"),
    *ranged("tree_feerate_sat_per_kw"),
    *ranged("to_self_delay_lsp", policy="to_self_delay_blocks", low=False),
    *ranged("to_self_delay_client", policy="to_self_delay_blocks", low=False),
    Bad(
        term="max_exit_delay_blocks",
        value=POLICY.exit_delay_blocks_max + 1,
        expected=f"0..{POLICY.exit_delay_blocks_max}",
    ),
    Bad(
        term="expiry_height",
        value=TIP + POLICY.expiry_blocks_max + 1,
        expected=f"{TIP}..{TIP + POLICY.expiry_blocks_max}",
    ),
    Bad(
        term="build_height",
        value=TIP + POLICY.build_height_slack_blocks + 1,
        with_it={"expiry_height": far(7)},
    ),
    Bad(term="network", value=b"\x01" * 32, expected=told.shown("network", TERMS.network)),
    Bad(term="candidates", value=5, expected="1..4"),
    Bad(
        term="capacity_sat",
        value=(WANTED_SAT, LEAST_SAT - 1, WANTED_SAT),
        expected=f"{LEAST_SAT}..{WANTED_SAT}",
    ),
    Bad(
        term="capacity_sat",
        value=(WANTED_SAT, WANTED_SAT + 1, WANTED_SAT),
        expected=f"{LEAST_SAT}..{WANTED_SAT}",
    ),
]


def shown(value: Any) -> Any:
    return value[VICTIM - 1] if isinstance(value, tuple) else value


@pytest.mark.parametrize("bad", REBUILT, ids=lambda bad: bad.claim)
def test_a_factory_built_honestly_on_a_term_out_of_policy_is_refused(bad: Bad) -> None:
    propose = rebuilt(**{**bad.with_it, bad.term: bad.value})
    received = told.shown(bad.term, shown(bad.value))
    check_refused(propose, bad.term, expected=bad.expected, received=received)


def test_the_rebuilding_attacker_is_refused_for_nothing_else() -> None:
    """A harmless change of terms, built the same way, is signed."""
    victim = Victim()
    victim.hear(rebuilt(max_accepted_htlcs=11, capacity_sat=(WANTED_SAT, LEAST_SAT, WANTED_SAT)))
    assert victim.attempt.aborted is None
    assert len(victim.signing) == 1


# The LSP's terms cannot be built on these, so it can only claim them.
CLAIMED: Final = [
    Bad(term="step_blocks", value=0, named="states_per_layer, step_blocks"),
    Bad(term="states_per_layer", value=1, named="states_per_layer, step_blocks"),
    Bad(term="states_per_layer", value=600, named="states_per_layer, step_blocks"),
    Bad(term="min_depth", value=0, expected="1..144"),
    Bad(term="candidates", value=0, expected="1..16"),
    Bad(term="lstock_csv_blocks", value=TERMS.step_blocks - 1, expected="144..65535 blocks"),
    Bad(term="to_self_delay_lsp", value=TERMS.step_blocks - 1, expected="144..65535 blocks"),
    Bad(term="to_self_delay_client", value=TERMS.step_blocks - 1, expected="144..65535 blocks"),
    Bad(term="to_self_delay_client", value=65_536, expected="144..65535 blocks"),
    Bad(term="leaf_arity", value=0, expected="1..1024"),
    Bad(term="leaf_arity", value=1025, expected="1..1024"),
    Bad(term="inner_arities", value=(1,), expected="2..1024"),
    Bad(term="inner_arities", value=()),
    Bad(term="inner_arities", value=(2,) * 17, expected="at most 16 levels"),
    Bad(term="inner_kinds", value=(), expected="none at all where every level is dw"),
    Bad(term="inner_kinds", value=(0,), expected="none at all where every level is dw"),
    Bad(term="inner_kinds", value=(1, 1), expected="as many as inner_arities, 1"),
    Bad(term="inner_kinds", value=(2,), expected="0..1"),
    Bad(term="fee_policy", value=2, expected="0 or 1"),
    Bad(term="tree_feerate_sat_per_kw", value=0, expected="above 0 (endogenous)"),
    Bad(term="fee_policy", value=1, named="tree_feerate_sat_per_kw", expected="0 (ephemeral)"),
    Bad(term="expiry_height", value=500_000_000, expected="a block height"),
    Bad(term="expiry_height", value=0, expected="a block height"),
    Bad(term="capacity_sat", value=(), named="clients", expected="1..1024"),
    Bad(term="capacity_sat", value=(329, WANTED_SAT, WANTED_SAT)),
    Bad(term="capacity_sat", value=(2**64 - 1, WANTED_SAT, WANTED_SAT)),
    Bad(term="lstock_sat", value=(329, 50_000), expected="0 or at least 330"),
    Bad(term="lstock_sat", value=(100_000,), expected="2 leaves"),
    Bad(term="lstock_sat", value=(100_000, 50_000, 50_000), expected="2 leaves"),
    Bad(term="max_exit_delay_blocks", value=863),
    Bad(term="max_accepted_htlcs", value=0),
    Bad(term="active_blocks", value=TERMS.ready_min_blocks - 1),
]


@pytest.mark.parametrize("bad", CLAIMED, ids=lambda bad: bad.claim)
def test_terms_that_no_factory_can_have_are_refused_by_name(bad: Bad) -> None:
    propose = with_raw_terms(scene().propose, encoded_terms(**{bad.term: bad.value}))
    check_refused(propose, bad.named or bad.term, expected=bad.expected)


def test_an_expiry_with_too_little_room_to_live_move_out_and_exit_is_refused() -> None:
    least = TERMS.expiry_height_min([VertexKind.DW] * N_LAYERS)
    assert least == (
        TERMS.build_height + TERMS.active_blocks + TERMS.dying_blocks + 894 + SAFETY_BLOCKS
    )
    propose = with_raw_terms(scene().propose, encoded_terms(expiry_height=least - 1))
    check_refused(propose, "expiry_height", expected=f"at least {least}", received=least - 1)


def test_a_build_height_behind_the_clients_own_tip_is_refused() -> None:
    """The attacker builds on an old height, so that the expiry comes sooner than it looks."""
    slack = POLICY.build_height_slack_blocks
    tip = TIP + slack + 1
    victim = Victim()
    for height in range(TIP + 1, tip + 1):
        victim.handle(ev.BlockAdded(height=height, block_hash=Txid(bytes(32)), txs=()))
    check_refused(
        scene().propose,
        "build_height",
        expected=f"{tip - slack}..{tip + slack}",
        received=TIP,
        victim=victim,
    )


def test_a_fee_policy_the_client_does_not_take_is_refused() -> None:
    victim = victim_with(fee_policies=(FeePolicy.ENDOGENOUS,))
    propose = rebuilt(fee_policy=FeePolicy.EPHEMERAL, tree_feerate_sat_per_kw=0)
    check_refused(
        propose, "fee_policy", expected=["endogenous"], received="ephemeral", victim=victim
    )


def test_more_clients_than_the_client_shares_a_coin_with_are_refused() -> None:
    victim = victim_with(max_clients=2)
    check_refused(scene().propose, "clients", expected="1..2", received=3, victim=victim)


def test_a_deeper_tree_than_the_client_waits_for_is_refused() -> None:
    """The terms themselves allow the depth; the client's limit is its own."""
    victim = victim_with(exit_delay_blocks_max=863)
    propose = rebuilt(max_exit_delay_blocks=864)
    check_refused(propose, "max_exit_delay_blocks", expected="0..863", received=864, victim=victim)


def test_a_deeper_tree_than_the_policy_allows_is_refused_as_layers() -> None:
    """Each layer is two more transactions to publish, whatever their delays are."""
    victim = victim_with(layers_max=1)
    check_refused(scene().propose, "layers", expected="1..1", received=N_LAYERS, victim=victim)
    exact = victim_with(layers_max=N_LAYERS)
    exact.hear(scene().propose)
    assert exact.attempt.aborted is None


def test_a_hash_of_other_terms_is_refused() -> None:
    propose = scene().propose
    other = replace(propose, terms_hash=b"\x01" * 32)
    check_refused(other, "terms_hash", expected=propose.terms_hash, received=b"\x01" * 32)


def test_terms_of_another_attempt_than_the_message_are_refused() -> None:
    terms = encoded_terms(attempt_id=b"\x02" * 32)
    check_refused(
        with_raw_terms(scene().propose, terms),
        "attempt_id",
        expected=scene().propose.attempt_id,
        received=b"\x02" * 32,
    )


@pytest.mark.parametrize(
    "terms",
    [b"", b"\x00", TERMS.encode()[:-1], TERMS.encode()[9:], TERMS.encode() + b"\x64\x01\x00"],
    ids=["empty", "cut after a type", "cut at the end", "cut at the start", "unknown even field"],
)
def test_terms_that_cannot_be_read_are_refused(terms: bytes) -> None:
    check_refused(with_raw_terms(scene().propose, terms), "terms", expected="a TLV stream of terms")


def test_an_unknown_odd_field_does_not_change_the_hash_of_the_terms() -> None:
    """It may be ignored (BOLT 1), so it is not agreed to either."""
    terms = TERMS.encode() + b"\x65\x01\x00"
    propose = with_raw_terms(scene().propose, terms)
    check_refused(propose, "terms_hash", expected=TERMS.terms_hash)


def test_every_term_has_a_test_here() -> None:
    tested = {bad.term for bad in (*REBUILT, *CLAIMED)} | {"attempt_id"}
    assert tested == EVERY_TERM
