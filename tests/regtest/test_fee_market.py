"""The two methods that Core does not have: a fee market of one's own choosing."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from tests.functional.family_world import anchor_of, child, funding, node_tx, purse, submitted
from tests.functional.node_world import World, hex_of

from cromford.regtest.node import RegtestNode

MARKET = {"1": "0.00050", "6": "0.00020", "144": 0.00001}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with RegtestNode(tmp_path, persist=False) as node:
        yield World(node.url, node.cookie_file, lambda _: None)


def test_an_estimate_is_what_was_set_for_that_target_or_a_sooner_one(world: World) -> None:
    world.call("setestimates", MARKET)
    for target, feerate, blocks in (
        (1, "0.0005", 2),
        (5, "0.0005", 2),
        (6, "0.0002", 6),
        (143, "0.0002", 6),
        (1_008, "0.00001", 144),
    ):
        answer = world.call("estimatesmartfee", target)
        assert answer == {"feerate": Decimal(feerate), "blocks": blocks}
    world.call("setestimates", {"144": "0.00003"})
    assert world.call("estimatesmartfee", 6) == {"feerate": Decimal("0.00003"), "blocks": 144}
    assert world.ask(lambda chain: chain.estimate_sat_per_kw(6)) == 750
    world.call("setestimates", {})
    assert "feerate" not in world.call("estimatesmartfee", 6)


def test_no_estimate_is_below_the_mempools_minimum(world: World) -> None:
    world.call("setestimates", {"6": "0.00001"})
    world.call("setmempoolminimum", "0.00003")
    assert world.call("estimatesmartfee", 6)["feerate"] == Decimal("0.00003")


def test_a_minimum_that_rises_evicts_a_parent_which_comes_back_with_its_child(
    world: World,
) -> None:
    kickoff = node_tx(funding(world), fee_sat=124)
    assert world.error("sendrawtransaction", hex_of(kickoff)) == (0, "")
    world.call("setmempoolminimum", "0.00003")
    assert world.call("getrawmempool") == []
    assert world.call("getmempoolinfo")["mempoolminfee"] == Decimal("0.00003")
    code, message = world.error("sendrawtransaction", hex_of(kickoff))
    assert (code, message) == (-26, "mempool min fee not met, 124 < 372")
    bump = child([anchor_of(kickoff), purse(world)], fee_sat=707)
    assert submitted(world, kickoff, bump).message == "success"
    world.mine()
    assert world.call("getrawmempool") == []
    assert world.call("getmempoolinfo")["mempoolminfee"] == Decimal("0.00003")
    world.call("setmempoolminimum", 0)
    assert world.call("getmempoolinfo")["mempoolminfee"] == Decimal("0.000001")


@pytest.mark.parametrize(
    ("method", "params", "code", "message"),
    [
        ("setestimates", ({"0": 1},), -8, "Invalid conf_target, must be between 1 and 1008"),
        ("setestimates", ({"x": 1},), -8, "conf_target: expected a number of blocks, received 'x'"),
        ("setestimates", ({"6": "x"},), -3, "Invalid amount"),
        ("setmempoolminimum", (-1,), -3, "Amount out of range"),
    ],
)
def test_a_market_that_is_none_is_refused_and_changes_nothing(
    world: World, method: str, params: tuple[object], code: int, message: str
) -> None:
    world.call("setestimates", MARKET)
    assert world.error(method, *params) == (code, message)
    assert world.call("estimatesmartfee", 6)["feerate"] == Decimal("0.0002")
    assert world.call("getmempoolinfo")["mempoolminfee"] == Decimal("0.000001")
