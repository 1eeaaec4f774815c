"""Each participant of an advance dies at each of its steps, or is cut off after each message.

Whatever happens, an advance is done for everybody or for nobody in the end, and money moves again.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.protocol.advances import (
    ADVANCING,
    advancing_factory,
    check_claims,
    check_payments_work,
    check_sold,
    leaf_of,
    market,
    quote_for,
    under_way,
)
from tests.protocol.pump import Pump, PumpNode

LONG_LIVED = replace(ADVANCING, states_per_layer=64, step_blocks=2)
FUSES_MAX = 80
AMOUNT_SAT = 500
PRICE_MSAT = 1_000
BUYER, NEIGHBOUR = 1, 2


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


def settle(pump: Pump) -> None:
    """Let blocks come until nothing is under way."""
    for _ in range(8):
        connect_again(pump)
        pump.run()
        check_claims(pump)
        if under_way(pump) is None and not any(one.state.advances for one in pump.clients):
            return
        pump.mine(1)
    raise AssertionError("an advance never ends")


def connect_again(pump: Pump) -> None:
    """Let whoever was hung up on come back."""
    for client in pump.clients:
        if client.name not in pump.links:
            pump.connect(client)


def node_of(pump: Pump, whose: int | None) -> PumpNode:
    return pump.lsp if whose is None else pump.client_at(whose)


@pytest.mark.parametrize("whose", [None, BUYER, NEIGHBOUR])
def test_a_death_at_any_step_leaves_an_advance_done_for_all_or_for_nobody(
    whose: int | None,
) -> None:
    pump = advancing_factory(2, policy=LONG_LIVED)
    outcomes = set()
    for fuse in range(1, FUSES_MAX):
        node, n_before = node_of(pump, whose), node_of(pump, whose).n_deaths
        n_states = len(leaf_of(pump, BUYER).states)
        pump.mine(2)  # Whoever takes part too often pauses for some blocks.
        quote = quote_for(pump, BUYER, amount_sat=AMOUNT_SAT, price_msat=PRICE_MSAT)
        node.fuse = fuse
        pump.lsp_says(pump.client_at(BUYER), quote)
        pump.run()
        node_of(pump, whose).fuse = None
        settle(pump)
        is_sold = len(leaf_of(pump, BUYER).states) == n_states + 1
        if is_sold:
            check_sold(pump, BUYER, quote)
        outcomes.add(is_sold)
        check_payments_work(pump, BUYER, NEIGHBOUR)
        if node_of(pump, whose).n_deaths == n_before:
            break
    else:
        raise AssertionError("an advance has more steps than that")
    assert True in outcomes
