"""Payments between real processes: sockets, ciphers and durable journals included.

The processes are those of `cromford demo`, with a live factory. Clients pay one another through
the LSP, asked by their local API as a script would ask them; the invoices are made beforehand.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

from bench.op import Work
from bench.payments import AMOUNT_MSAT, STAKE_MSAT
from bench.processes import n_cores, run_once, started
from bench.sizes import BINARY_SHAPE, Size

from bench import payment_floor
from cromford.demo.steps import Steps
from cromford.demo.world import DaemonProcess, World

LATENCY: Final = "one payment between processes"
PARALLEL: Final = "payments at once between processes, each"
CLIENTS_MIN: Final = 2  # One pays the other.
CLIENTS_MAX: Final = 8
PAYMENTS_DEFAULT: Final = 10  # of each client in one run; of one client where they go one by one
WAIT_SECONDS: Final = 30.0  # for one payment

# By row, among how many the floor is shared out.
SHARED_BY: Final = {LATENCY: n_cores(), PARALLEL: n_cores()}

Due = tuple[DaemonProcess, str]  # who pays, and which invoice


def size_by(process_clients: Sequence[int]) -> Size:
    """Return the factory whose clients pay: as many as run as processes elsewhere, but few."""
    n_clients = min(max(*process_clients, CLIENTS_MIN), CLIENTS_MAX)
    return Size(n_clients, BINARY_SHAPE)


def works() -> dict[str, Work]:
    """Return the operations of one payment, which the cores may share."""
    return {LATENCY: payment_floor.forwarded(), PARALLEL: payment_floor.forwarded()}


@contextmanager
def running(
    size: Size, *, n_payments: int = PAYMENTS_DEFAULT
) -> Iterator[Callable[[int], dict[str, float]]]:
    """Open a factory; inside the block, each call pays one by one, and then everybody at once."""
    with started(size) as (world, steps):
        _open(world, steps)
        yield lambda _run: _pay_both_ways(world.clients, n_payments)


def _open(world: World, steps: Steps) -> None:
    run_once(world, steps)
    for client in world.clients:
        _pay((world.lsp, _invoice(client, STAKE_MSAT)))


def _pay_both_ways(clients: Sequence[DaemonProcess], n_payments: int) -> dict[str, float]:
    first, second = clients[:2]
    pairs = [(first, second), (second, first)] * n_payments
    one_by_one = [(payer, _invoice(payee)) for payer, payee in pairs[:n_payments]]
    # In a ring, so that everybody pays and is paid the same.
    ring = zip(clients, [*clients[1:], first], strict=True)
    at_once = [[(payer, _invoice(payee)) for _ in range(n_payments)] for payer, payee in ring]

    began = time.monotonic()
    _pay_all(one_by_one)
    latency_ms = (time.monotonic() - began) * 1000 / n_payments

    with ThreadPoolExecutor(len(clients)) as threads:
        began = time.monotonic()
        list(threads.map(_pay_all, at_once))
        elapsed_ms = (time.monotonic() - began) * 1000
    return {LATENCY: latency_ms, PARALLEL: elapsed_ms / (len(clients) * n_payments)}


def _invoice(payee: DaemonProcess, amount_msat: int = AMOUNT_MSAT) -> str:
    answer: dict[str, Any] = payee.call("invoice", amount_msat=amount_msat)
    text: str = answer["invoice"]
    return text


def _pay_all(dues: Sequence[Due]) -> None:
    for due in dues:
        _pay(due)


def _pay(due: Due) -> None:
    payer, invoice = due
    answer: dict[str, Any] = payer.call("pay", invoice=invoice, wait_seconds=WAIT_SECONDS)
    if answer["status"] != "paid":
        raise AssertionError(f"{payer.name}'s payment is {answer['status']}: {answer}")
