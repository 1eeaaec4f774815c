"""A feerate that somebody gives: a number in sat/vB, or a refusal that names it."""

import asyncio
from typing import Any

import pytest

from cromford.daemon.api.rpc import InvalidParam
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


class NodeWithoutEstimate:
    async def estimate_sat_per_kw(self, _target_blocks: int) -> None:
        return None


def test_without_an_estimate_the_wallet_pays_what_the_operator_named() -> None:
    node: Any = NodeWithoutEstimate()
    assert asyncio.run(feerate_of(node, None, fallback_sat_per_kw=1_250)) == (1_250, "fallback")
