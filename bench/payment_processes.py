"""Payments between real processes: sockets, ciphers and durable journals included.

The processes are those of `cromford demo`, with a live factory. Clients pay one another through
the LSP, asked by their local API as a script would ask them; the invoices are made beforehand.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.op import Work
from bench.payments import AMOUNT_MSAT, STAKE_MSAT
from bench.processes import n_cores, run_once, started
from bench.sizes import BINARY_SHAPE, Size

from bench import payment_floor
from cromford.demo.world import DaemonProcess

LATENCY: Final = "one payment between processes"
PARALLEL: Final = "payments at once between processes, each"
TOGETHER: Final = "ten payments at once by one of them, each"
CLIENTS_MIN: Final = 2  # One pays the other.
CLIENTS_MAX: Final = 8
N_TOGETHER: Final = 10
PAYMENTS_DEFAULT: Final = 10  # of each client in one run; of one client where they go one by one
WAIT_SECONDS: Final = 30.0  # for one payment

# By row, among how many the floor is shared out.
SHARED_BY: Final = dict.fromkeys((LATENCY, PARALLEL, TOGETHER), n_cores())

Due = tuple[DaemonProcess, str]  # who pays, and which invoice


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


@contextmanager
def running_payers(size: Size) -> Iterator["Payers"]:
    """Open a factory; inside the block, its clients have something to pay with."""
    with started(size) as (world, steps):
        run_once(world, steps)
        for client in world.clients:
            _pay((world.lsp, _invoice(client, STAKE_MSAT)))
        yield Payers(world.lsp, world.clients)


class Spent(NamedTuple):
    """What one payment took, in milliseconds: by the wall's clock, and the CPU of all daemons."""

    wall_ms: float
    cpu_ms: float


class Payers:
    """Clients of one factory, who end with what they began with but for fees."""

    def __init__(self, lsp: DaemonProcess, clients: Sequence[DaemonProcess]) -> None:
        self._clients = clients
        self._daemons = (lsp, *clients)

    def pay(self, n_payments: int) -> dict[str, Spent]:
        """Return what one payment took, by row.

        Args:
            n_payments: How many of each client, and of one where they go one by one.
        """
        first, second = self._clients[:2]
        pairs = [(first, second), (second, first)] * n_payments
        one_by_one = [(payer, _invoice(payee)) for payer, payee in pairs[:n_payments]]
        # In a ring, so that everybody pays and is paid the same.
        ring = zip(self._clients, [*self._clients[1:], first], strict=True)
        at_once = [[(payer, _invoice(payee)) for _ in range(n_payments)] for payer, payee in ring]
        together = [
            [[(payer, _invoice(payee))] for _ in range(N_TOGETHER)] for payer, payee in pairs[:2]
        ]
        return {
            LATENCY: self._spent([[one_by_one]]),
            PARALLEL: self._spent([at_once]),
            TOGETHER: self._spent(together),
        }

    def _spent(self, turns: Sequence[Sequence[Sequence[Due]]]) -> Spent:
        """Pay one turn after another, all sequences of a turn at once; return what one took."""
        n_payments = sum(len(dues) for at_once in turns for dues in at_once)
        began, cpu_before = time.monotonic(), self._cpu_seconds()
        for at_once in turns:
            with ThreadPoolExecutor(len(at_once)) as threads:
                list(threads.map(_pay_all, at_once))
        wall, cpu = time.monotonic() - began, self._cpu_seconds() - cpu_before
        return Spent(wall * 1000 / n_payments, cpu * 1000 / n_payments)

    def _cpu_seconds(self) -> float:
        """Return the CPU time that all daemons have used, where Linux tells."""
        ticks = 0
        for daemon in self._daemons:
            stat = Path(f"/proc/{daemon.child.process.pid}/stat").read_text(encoding="utf-8")
            user, system = stat.rpartition(")")[2].split()[11:13]
            ticks += int(user) + int(system)
        return ticks / os.sysconf("SC_CLK_TCK")


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
