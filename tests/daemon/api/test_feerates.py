"""A feerate that somebody gives: a number in sat/vB, or a refusal that names it."""

import asyncio
from typing import Any

import pytest

from cromford.daemon.api.failures import ApiFailure, InvalidParam
from cromford.daemon.api.wallet import FEERATE_MAX_SAT_PER_VB, feerate_of

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
    """One that says one thing of feerates."""

    def __init__(self, sat_per_kw: int | None) -> None:
        self.sat_per_kw = sat_per_kw

    async def estimate_sat_per_kw(self, _target_blocks: int) -> int | None:
        return self.sat_per_kw


def test_an_estimate_is_believed_up_to_what_nobody_would_give() -> None:
    most = 250 * FEERATE_MAX_SAT_PER_VB
    node: Any = Node(most)
    assert asyncio.run(feerate_of(node, None, fallback_sat_per_kw=500))[0] == most
    node = Node(most + 1)
    with pytest.raises(ApiFailure) as refused:
        asyncio.run(feerate_of(node, None, fallback_sat_per_kw=500))
    assert refused.value.code == "feerate_too_high"
    assert "expected at most 1000 sat/vB, received 1000.004" in refused.value.message
    assert "--feerate" in refused.value.remediation


def test_without_an_estimate_the_wallet_pays_what_the_operator_named() -> None:
    node: Any = Node(None)
    assert asyncio.run(feerate_of(node, None, fallback_sat_per_kw=1_250)) == (1_250, "fallback")
