"""Each participant of an advance dies at each of its steps, or is cut off after each message.

Whatever happens, an advance is done for everybody or for nobody in the end, and money moves again.
"""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.protocol.advances import (
    ADVANCING,
    advancing_factory,
    check_claims,
    check_nothing_is_left,
    check_payments_work,
    check_sold,
    deliver,
    leaf_of,
    market,
    quote_for,
    settle,
)
from tests.protocol.pump import Pump, PumpNode
from tests.protocol.restoring import backup_of, put_back
from tests.simulation.seeds import seeds

from cromford.protocol import events as ev
from cromford.wire import messages as m

LONG_LIVED = replace(ADVANCING, states_per_layer=64, step_blocks=2)
N_MESSAGES = 20  # Of an advance, at the least.
N_SAMPLED = 4
AMOUNT_SAT = 500
PRICE_MSAT = 1_000
BUYER, NEIGHBOUR = 1, 2


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


def node_of(pump: Pump, whose: int | None) -> PumpNode:
    return pump.lsp if whose is None else pump.client_at(whose)


def sampled(n_all: int, *, seed: int) -> list[int]:
    """Return some of the steps at which something may happen, in order; all of them is slow."""
    dice = random.Random(f"advance crashes {n_all} {seed}")
    return sorted(dice.sample(range(1, n_all + 1), N_SAMPLED))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize(("whose", "n_steps"), [(None, 52), (BUYER, 26), (NEIGHBOUR, 24)])
def test_a_death_at_any_step_leaves_an_advance_done_for_all_or_for_nobody(
    whose: int | None, n_steps: int, seed: int
) -> None:
    pump = advancing_factory(2, policy=LONG_LIVED)
    for fuse in sampled(n_steps, seed=seed):
        quote = quote_for(pump, BUYER, amount_sat=AMOUNT_SAT, price_msat=PRICE_MSAT)
        n_before = node_of(pump, whose).n_deaths
        node_of(pump, whose).checkpoint()
        node_of(pump, whose).fuse = fuse
        pump.lsp_says(pump.client_at(BUYER), quote)
        pump.run()
        assert node_of(pump, whose).n_deaths == n_before + 1, fuse
        check_is_settled(pump, quote)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("whose", [BUYER, NEIGHBOUR])
def test_a_connection_that_breaks_after_any_message_leaves_it_done_for_all_or_for_nobody(
    whose: int, seed: int
) -> None:
    pump = advancing_factory(2, policy=LONG_LIVED)
    for n_messages in sampled(N_MESSAGES, seed=seed):
        quote = quote_for(pump, BUYER, amount_sat=AMOUNT_SAT, price_msat=PRICE_MSAT)
        pump.lsp_says(pump.client_at(BUYER), quote)
        assert deliver(pump, n_messages), n_messages
        pump.disconnect(pump.client_at(whose))
        check_claims(pump)
        check_is_settled(pump, quote)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("n_messages", range(1, N_MESSAGES + 1))
@pytest.mark.parametrize("whose", [None, BUYER, NEIGHBOUR])
def test_a_store_that_is_put_back_whole_in_the_middle_leaves_it_done_for_all_or_for_nobody(
    whose: int | None, n_messages: int
) -> None:
    pump = advancing_factory(2, policy=LONG_LIVED)
    quote = quote_for(pump, BUYER, amount_sat=AMOUNT_SAT, price_msat=PRICE_MSAT)
    pump.lsp_says(pump.client_at(BUYER), quote)
    assert deliver(pump, n_messages)
    node = node_of(pump, whose)
    for client in pump.clients:
        pump.disconnect(client)
    node.die()
    put_back(node, backup_of(node))
    node.start()
    pump.handle(node, ev.StoreProven())
    for client in pump.clients:
        pump.connect(client)
    check_is_settled(pump, quote)


def check_is_settled(pump: Pump, quote: m.Quote) -> None:
    """Check that in the end a purchase is done for everybody or for nobody, and money moves."""
    settle(pump)
    check_nothing_is_left(pump)
    if len(leaf_of(pump, BUYER).states) == quote.state_index + 1:
        check_sold(pump, BUYER, quote)
    check_payments_work(pump, BUYER, NEIGHBOUR)
    pump.mine(2)  # Whoever takes part too often pauses for some blocks.
