"""A leaf has no more states than one message tells a client whose store lost them."""

import pytest

from cromford.bitcoin.network import REGTEST
from cromford.factory.terms import InvalidTerms
from cromford.protocol.lobby.build import check_can_build
from cromford.protocol.policy import LspPolicy


def check(n_clients: int, n_states: int) -> None:
    policy = LspPolicy(leaf_arity=n_clients, states_per_layer=n_states, step_blocks=1)
    check_can_build(policy, REGTEST, n_clients=n_clients)


@pytest.mark.parametrize(
    ("n_clients", "most"),
    [pytest.param(85, 57, id="by its bytes"), pytest.param(2, 65, id="by their number")],
)
def test_a_leaf_whose_states_fit_no_message_is_never_built(n_clients: int, most: int) -> None:
    check(n_clients, most)
    for more in (most + 1, most + 2):
        with pytest.raises(InvalidTerms) as found:
            check(n_clients, more)
        assert found.value.field == "states_per_layer"
        assert str(found.value.expected).startswith(f"at most {most} in leaves of {n_clients}")
        assert found.value.received == more


def test_the_largest_leaf_counts() -> None:
    """Of three clients in leaves of two, two are together."""
    policy = LspPolicy(leaf_arity=2, states_per_layer=66, step_blocks=1)
    with pytest.raises(InvalidTerms, match="in leaves of 2 clients"):
        check_can_build(policy, REGTEST, n_clients=3)
