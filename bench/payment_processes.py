"""Payments between real processes: sockets, ciphers and durable journals included.

The processes are those of `cromford demo`, with a live factory. Clients pay one another through
the LSP, asked by their local API as a script would ask them; the invoices are made beforehand.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from bench.op import Work
from bench.payers import LATENCY, PARALLEL, TOGETHER, running_payers
from bench.processes import n_cores
from bench.sizes import BINARY_SHAPE, Size

from bench import payment_floor

CLIENTS_MIN: Final = 2  # One pays the other.
CLIENTS_MAX: Final = 8
PAYMENTS_DEFAULT: Final = 10  # of each client in one run; of one client where they go one by one

# By row, among how many the floor is shared out.
SHARED_BY: Final = dict.fromkeys((LATENCY, PARALLEL, TOGETHER), n_cores())


def size_by(process_clients: Sequence[int]) -> Size:
    """Return the factory whose clients pay: as many as run as processes elsewhere, but few."""
    n_clients = min(max(*process_clients, CLIENTS_MIN), CLIENTS_MAX)
    return Size(n_clients, BINARY_SHAPE)


def works() -> dict[str, Work]:
    """Return the operations of one payment, which the cores may share."""
    # Those of one that shares its commitments with no other, so that the rows can be compared.
    return dict.fromkeys((LATENCY, PARALLEL, TOGETHER), payment_floor.forwarded())


@contextmanager
def running(
    size: Size, *, n_payments: int = PAYMENTS_DEFAULT
) -> Iterator[Callable[[int], dict[str, float]]]:
    """Open a factory; inside the block, each call pays one by one, and then everybody at once."""
    with running_payers(size) as payers:
        yield lambda _run: {row: spent.wall_ms for row, spent in payers.pay(n_payments).items()}
