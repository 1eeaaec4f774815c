"""Daemons of one program that pay each other, asked by a process of the same program.

Run as a script with a checkout first on `PYTHONPATH`, it opens a factory with that program, and for
each line that it reads pays once more and tells in one line of JSON what that took. So nothing here
may ask for more of `bench` than an older checkout has: see `payment_pairs`.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from unittest.mock import patch

from bench.payments import AMOUNT_MSAT, STAKE_MSAT
from bench.processes import run_once, started
from bench.sizes import BINARY_SHAPE, Size

from cromford.daemon.options import POLL_SECONDS
from cromford.demo import world

if TYPE_CHECKING:  # An older checkout calls it otherwise.
    from cromford.demo.world import DaemonProcess

LATENCY: Final = "one payment between processes"
PARALLEL: Final = "payments at once between processes, each"
TOGETHER: Final = "ten payments at once by one of them, each"
N_TOGETHER: Final = 10
WAIT_SECONDS: Final = 30.0  # for one payment

Due = tuple["DaemonProcess", str]  # who pays, and which invoice


@contextmanager
def running_payers(size: Size) -> Iterator["Payers"]:
    """Open a factory; inside the block, its clients have something to pay with."""
    with started(size) as (opened, steps):
        run_once(opened, steps)
        for client in opened.clients:
            _pay((opened.lsp, _invoice(client, STAKE_MSAT)))
        yield Payers(opened.lsp, opened.clients)


class Spent(NamedTuple):
    """What one payment took, in milliseconds: by the wall's clock, and of CPU, by whose it was.

    `callers_cpu_ms` is of the process that asks all daemons for payments.
    """

    wall_ms: float
    lsp_cpu_ms: float
    clients_cpu_ms: float
    callers_cpu_ms: float


class Payers:
    """Clients of one factory, who end with what they began with but for fees."""

    def __init__(self, lsp: "DaemonProcess", clients: Sequence["DaemonProcess"]) -> None:
        self._lsp = lsp
        self._clients = clients

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
        before = self._clocks()
        for at_once in turns:
            with ThreadPoolExecutor(len(at_once)) as threads:
                list(threads.map(_pay_all, at_once))
        after = self._clocks()
        return Spent(*((b - a) * 1000 / n_payments for a, b in zip(before, after, strict=True)))

    def _clocks(self) -> tuple[float, float, float, float]:
        """Return the seconds of each clock in `Spent`."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        return (
            time.monotonic(),
            _cpu_seconds(self._lsp),
            sum(map(_cpu_seconds, self._clients)),
            own.ru_utime + own.ru_stime,
        )


def _cpu_seconds(daemon: "DaemonProcess") -> float:
    """Return the CPU time that a daemon has used, where Linux tells; by its scheduler, in full."""
    nanoseconds = 0
    for task in Path(f"/proc/{daemon.child.process.pid}/task").iterdir():
        nanoseconds += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return nanoseconds / 1e9


def _invoice(payee: "DaemonProcess", amount_msat: int = AMOUNT_MSAT) -> str:
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


def main(n_clients: int, n_payments: int) -> None:
    """Say that the factory is open, and then pay for each line that is read.

    The node is asked as often as a daemon asks it unless told otherwise, and not as in a demo.
    """
    size = Size(n_clients, BINARY_SHAPE)
    with patch.object(world, "POLL_SECONDS_MIN", POLL_SECONDS), running_payers(size) as payers:
        print(flush=True)
        for _ in sys.stdin:
            print(json.dumps(payers.pay(n_payments)), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
