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
    deliver,
    leaf_of,
    market,
    quote_for,
    settle,
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
        node.checkpoint()
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


@pytest.mark.parametrize("whose", [BUYER, NEIGHBOUR])
def test_a_connection_that_breaks_after_any_message_leaves_it_done_for_all_or_for_nobody(
    whose: int,
) -> None:
    pump = advancing_factory(2, policy=LONG_LIVED)
    for n_messages in range(FUSES_MAX):
        pump.mine(2)
        quote = quote_for(pump, BUYER, amount_sat=AMOUNT_SAT, price_msat=PRICE_MSAT)
        pump.lsp_says(pump.client_at(BUYER), quote)
        is_over = not deliver(pump, n_messages)
        pump.disconnect(pump.client_at(whose))
        check_claims(pump)
        settle(pump)
        if len(leaf_of(pump, BUYER).states) == quote.state_index + 1:
            check_sold(pump, BUYER, quote)
        check_payments_work(pump, BUYER, NEIGHBOUR)
        if is_over:
            return
    raise AssertionError("an advance has more messages than that")
