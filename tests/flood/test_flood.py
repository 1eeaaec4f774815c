"""A small flood: what is counted holds on any machine, and honest payments arrive."""

import pytest

from tests.flood.flood import N_HONEST, Size, run

STRANGERS = 12
NEW_JOINS = 5
SMALL = Size(
    n_idle=40,
    n_joins=30,
    n_noisy=5,
    n_failing=12,  # As many as a channel carries: one more would wait for the hold to end.
    n_addresses=8,
    niceness=0,  # How slow they are does not matter here, and that they come does.
    seconds=None,
    lsp=(
        *("--connections-per-address", "4", "--strangers-max", str(STRANGERS)),
        *("--connections-max", "24", "--new-joins-per-block", str(NEW_JOINS)),
    ),
)


@pytest.mark.sampled(0)
def test_honest_clients_go_on_paying_while_strangers_crowd_the_port() -> None:
    outcome = run(SMALL)
    assert outcome.n_paid >= N_HONEST
    assert outcome.n_connected_max <= STRANGERS + N_HONEST + 1
    assert outcome.seen["idle connected"] + outcome.seen["idle turned away"] == SMALL.n_idle
    assert outcome.seen["join joined"] <= NEW_JOINS
    assert outcome.n_failed <= SMALL.n_failing
