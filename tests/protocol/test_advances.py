"""A leaf is advanced: all of it, whoever takes part and whatever is on its way meanwhile."""

from collections.abc import Iterator

import pytest
from tests.protocol.advances import (
    advancing_factory,
    check_payments_work,
    check_sold,
    market,
    sell,
)


@pytest.fixture(autouse=True)
def _market() -> Iterator[None]:
    with market():
        yield


@pytest.mark.parametrize("n_clients", [1, 2, 4])
def test_a_purchase_makes_a_channel_larger_without_a_transaction(n_clients: int) -> None:
    pump = advancing_factory(n_clients)
    quote = sell(pump, 1)
    check_sold(pump, 1, quote)
    check_payments_work(pump, *range(1, n_clients + 1))
