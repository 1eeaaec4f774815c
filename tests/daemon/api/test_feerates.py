"""A feerate that somebody gives: a number in sat/vB, or a refusal that names it."""

import asyncio
from typing import Any

import pytest

from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.wallet import FEERATE_MAX_SAT_PER_VB, feerate_of
from cromford.ports import RelayFeerates
from cromford.watch.feerates import MOST_SAT_PER_KW

NO_NODE: Any = None  # A feerate that is given asks nobody.


@pytest.mark.parametrize(
    "given", ["NaN", "sNaN", "Infinity", "-Infinity", "0", "-1", "1000.001", "1e999999", "", "two"]
)
def test_what_is_no_feerate_is_refused_by_its_name(given: str) -> None:
    with pytest.raises(InvalidParam) as refused:
        asyncio.run(feerate_of(NO_NODE, given, fallback_sat_per_kw=500))
    assert refused.value.param == "feerate_sat_per_vb"


@pytest.mark.parametrize(
    ("given", "sat_per_kw"),
    [("1", 250), ("2.5", 625), ("0.0001", 1), (f"{FEERATE_MAX_SAT_PER_VB}", 250_000)],
)
def test_what_is_given_is_taken_and_rounded_up(given: str, sat_per_kw: int) -> None:
    assert asyncio.run(feerate_of(NO_NODE, given, fallback_sat_per_kw=500)) == (sat_per_kw, "given")


class Node:
    """One that says one thing of feerates, and what its mempool asks for."""

    def __init__(self, sat_per_kw: int | None, *, mempool_min_sat_per_kw: int = 25) -> None:
        self.sat_per_kw = sat_per_kw
        self.mempool_min_sat_per_kw = mempool_min_sat_per_kw

    async def estimate_sat_per_kw(self, _target_blocks: int) -> int | None:
        return self.sat_per_kw

    async def relay_feerates(self) -> RelayFeerates:
        return RelayFeerates(
            mempool_min_sat_per_kw=self.mempool_min_sat_per_kw,
            min_relay_sat_per_kw=25,
            incremental_sat_per_kw=25,
        )


def asked(node: Node, *, fallback_sat_per_kw: int = 500) -> tuple[int, str]:
    chain: Any = node
    return asyncio.run(feerate_of(chain, None, fallback_sat_per_kw=fallback_sat_per_kw))


def test_an_estimate_is_believed_up_to_what_nobody_would_give() -> None:
    most = 250 * FEERATE_MAX_SAT_PER_VB
    assert asked(Node(most))[0] == most
    # Of more than a node takes nothing is cut: who says that is to be looked after.
    for unbelievable in (most + 1, MOST_SAT_PER_KW + 1):
        with pytest.raises(ApiFailure) as refused:
            asked(Node(unbelievable))
        assert refused.value.code == "feerate_too_high"
        assert "expected at most 1000 sat/vB, received" in refused.value.message
        assert "--feerate" in refused.value.remediation


def test_a_mempool_that_asks_for_what_nobody_would_give_is_not_believed_either() -> None:
    with pytest.raises(ApiFailure) as refused:
        asked(Node(None, mempool_min_sat_per_kw=250 * FEERATE_MAX_SAT_PER_VB))
    assert refused.value.code == "feerate_too_high"


@pytest.mark.parametrize("estimate", [0, 1, 299])
def test_an_estimate_below_what_the_nodes_own_mempool_asks_for_is_not_paid(estimate: int) -> None:
    assert asked(Node(estimate, mempool_min_sat_per_kw=300)) == (
        300,
        "what our node's mempool asks for",
    )
    assert asked(Node(300, mempool_min_sat_per_kw=300)) == (300, "estimate for 6 blocks")


def test_without_an_estimate_the_wallet_pays_what_the_operator_named() -> None:
    assert asked(Node(None), fallback_sat_per_kw=1_250) == (1_250, "fallback")


@pytest.mark.parametrize("fallback", [0, 599])
def test_or_twice_what_the_mempool_asks_for_if_that_is_more(fallback: int) -> None:
    node = Node(None, mempool_min_sat_per_kw=300)
    assert asked(node, fallback_sat_per_kw=fallback) == (600, "what our node's mempool asks for")
    assert asked(node, fallback_sat_per_kw=600) == (600, "fallback")
