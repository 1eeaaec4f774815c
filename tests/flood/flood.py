"""A flood: three honest clients pay one another while an LSP's port is open to everybody."""

import asyncio
import contextlib
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from cromford.adapters.sqlite import JOURNAL_NAME
from cromford.bitcoin.network import REGTEST
from cromford.daemon.api.failures import ApiFailure
from cromford.demo import building
from cromford.demo.processes import Children, interruptible
from cromford.demo.settings import DemoSettings
from cromford.demo.steps import Steps
from cromford.demo.world import DaemonProcess, Site, World
from tests.flood.failing import fail, n_failed, taken_over
from tests.flood.strangers import Crowd, at_the_port

N_HONEST: Final = 3
CAPACITY_SAT: Final = 1_000_000
STAKE_MSAT: Final = 100_000_000
AMOUNT_MSAT: Final = 1_000_000
PAY_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 600.0  # Whatever takes so long hangs, on any machine.
RETRY_SECONDS: Final = 0.1
LOG_LINES: Final = 20
QUIET_PAYMENTS: Final = 15

# What a flood may cost. Latency is compared with that of the same clients before it.
SLOWER_MAX: Final = 3.0
# A payment whose payee's channel is full waits for room in it, and not until the hold is over.
SLOWEST_MAX_SECONDS: Final = 15.0
# Replayed state and code are 100 MB; the buffers of 1,024 strangers are at most 80 kB each.
LSP_MEMORY_MAX_MB: Final = 250
# What strangers may write: 256 joins of ten kilobytes, fifty failing payments of four and one more
# every ten seconds, and the write-ahead log, which grows to four megabytes before it is used again.
LSP_STORE_MAX_BYTES: Final = 8_000_000
VICTIM_STORE_MAX_BYTES: Final = 5_000_000
PAID_MAX_BYTES: Final = 16_000  # A payment that arrived, which paid for its room.


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything, and for how long.

    Attributes:
        n_idle: Strangers that say nothing.
        n_joins: Those that join.
        n_noisy: Those that never stop.
        n_failing: Payments that can only fail.
        n_addresses: Of the strangers.
        niceness: Of their process.
        seconds: How long it lasts; None: until all have come and all payments were offered.
        lsp: What the LSP is told besides.
    """

    n_idle: int = 512
    n_joins: int = 4_000
    n_noisy: int = 100
    n_failing: int = 1_000
    n_addresses: int = 64
    niceness: int = 19
    seconds: float | None = 60.0
    lsp: tuple[str, ...] = ("--connections-per-address", "16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was seen."""

    quiet_ms: float
    flooded_ms: float
    slowest_seconds: float
    n_paid: int
    n_failed: int
    n_connected_max: int
    lsp_busy: float  # of one core
    lsp_memory_mb: float
    lsp_store_bytes: int
    victim_store_bytes: int
    seen: Counter[str]

    def broken(self) -> Iterator[str]:
        """Yield what is above its bound."""
        paid = self.n_paid * PAID_MAX_BYTES
        for what, value, most in (
            ("median payment, in quiet ones", self.flooded_ms / self.quiet_ms, SLOWER_MAX),
            ("the slowest payment, seconds", self.slowest_seconds, SLOWEST_MAX_SECONDS),
            ("the LSP's memory, MB", self.lsp_memory_mb, LSP_MEMORY_MAX_MB),
            ("the LSP's store, bytes more", self.lsp_store_bytes, LSP_STORE_MAX_BYTES + paid),
            ("the victim's, bytes more", self.victim_store_bytes, VICTIM_STORE_MAX_BYTES + paid),
        ):
            if value > most:
                yield f"{what}: {value:,.1f}, expected at most {most:,.1f}"


class _Silent:
    """Somebody who does not care how it goes."""

    def begin(self, step: str) -> None:
        """Hear that a step begins."""

    def update(self, detail: str) -> None:
        """Hear what a step waits for."""

    def note(self, line: str) -> None:
        """Hear something worth keeping."""

    def end(self, outcome: str, seconds: float) -> None:
        """Hear how a step ended."""


def run(size: Size) -> Outcome:
    """Return what was seen in one flood; afterwards nothing is left of it."""
    with interruptible(), TemporaryDirectory(prefix="cromford-flood-") as name, _town(name) as town:
        world, steps = town
        lsp = _restarted(world, steps, size.lsp)
        return asyncio.run(_flooded(world, lsp, size))


@contextmanager
def _town(name: str) -> Iterator[tuple[World, Steps]]:
    """Yield an LSP and four clients in a live factory, each a process, with money to pay."""
    logs = Path(name, "logs")
    logs.mkdir()
    settings = DemoSettings(n_clients=N_HONEST + 1, capacity_sat=CAPACITY_SAT)
    with Children(logs) as children, _logs_told(logs):
        site = Site(settings=settings, directory=Path(name), children=children)
        steps = Steps(_Silent(), children.check_alive)
        world = building.start_world(site, steps)
        building.gather(world, steps)
        building.confirm(world, steps, building.sign(world, steps))
        for client in world.clients:
            _pay(world.lsp, client, STAKE_MSAT)
        yield world, steps


@contextmanager
def _logs_told(logs: Path) -> Iterator[None]:
    """Tell with what went wrong what each process said last: afterwards nothing is left of it."""
    try:
        yield
    except BaseException as error:
        for path in sorted(logs.iterdir()):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            error.add_note("\n".join([f"{path.name}:", *lines[-LOG_LINES:]]))
        raise


def _restarted(world: World, steps: Steps, told: tuple[str, ...]) -> str:
    """Start the LSP anew at the same port, with other limits; return its address."""
    listen = world.lsp.call("status")["listen"]
    world.site.children.stop([world.lsp.child])
    arguments = (*world.lsp.arguments, "--listen", listen, *told)
    world.lsp.child = world.site.children.start("lsp-open", arguments)
    with steps.step("restart", seconds=PATIENCE_SECONDS) as step:
        step.wait_for("the LSP", world.lsp.status)
        for client in world.clients:
            step.wait_for(client.name, partial(_is_open, client))
        step.outcome = "everybody is back"
    return f"{world.lsp.node_id}@{listen}"


def _is_open(client: DaemonProcess) -> bool | None:
    return True if client.call("factory")["channel_status"] == "open" else None


async def _flooded(world: World, lsp: str, size: Size) -> Outcome:
    *honest, hostile = world.clients
    victim = honest[0]
    async with taken_over(world, hostile, lsp) as daemon:
        quiet = await asyncio.to_thread(_pay_around, honest, QUIET_PAYMENTS)
        before = _store_bytes(world.lsp), _store_bytes(victim)
        crowd = Crowd(
            n_idle=size.n_idle,
            n_joins=size.n_joins,
            n_noisy=size.n_noisy,
            n_addresses=size.n_addresses,
            capacity_sat=CAPACITY_SAT,
            niceness=size.niceness,
        )
        async with at_the_port(lsp, crowd) as visit:
            busy_before, began = _busy_seconds(world.lsp), time.monotonic()
            failing = asyncio.create_task(
                fail(daemon, bytes.fromhex(victim.node_id), size.n_failing)
            )

            def is_over() -> bool:
                if size.seconds is None:
                    return visit.has_come and failing.done()
                return time.monotonic() - began >= size.seconds

            flooded, n_connected = await asyncio.to_thread(_pay_until, world, honest, is_over)
            busy = (_busy_seconds(world.lsp) - busy_before) / (time.monotonic() - began)
            failing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await failing
        return Outcome(
            quiet_ms=1000 * statistics.median(quiet),
            flooded_ms=1000 * statistics.median(flooded),
            slowest_seconds=max(flooded),
            n_paid=len(flooded),
            n_failed=n_failed(daemon),
            n_connected_max=n_connected,
            lsp_busy=busy,
            lsp_memory_mb=_memory_mb(world.lsp),
            lsp_store_bytes=_store_bytes(world.lsp) - before[0],
            victim_store_bytes=_store_bytes(victim) - before[1],
            seen=visit.seen,
        )


def _pay_around(clients: list[DaemonProcess], n_payments: int) -> list[float]:
    """Let clients pay one another in a ring, one by one; return the seconds of each."""
    took = []
    for n in range(n_payments):
        payer, payee = clients[n % N_HONEST], clients[(n + 1) % N_HONEST]
        took.append(_pay(payer, payee, AMOUNT_MSAT))
    return took


def _pay_until(
    world: World, clients: list[DaemonProcess], is_over: Callable[[], bool]
) -> tuple[list[float], int]:
    """Go on paying until it is over, at least once around; return the seconds of each."""
    took: list[float] = []
    n_connected = 0
    while not (took and is_over()):
        took += _pay_around(clients, N_HONEST)
        n_connected = max(n_connected, int(world.lsp.call("status")["n_connected"]))
    return took, n_connected


def _pay(payer: DaemonProcess, payee: DaemonProcess, amount_msat: int) -> float:
    """Pay once; return the seconds it took.

    What cannot be paid at the moment is tried again, as any wallet would. How long one may take is
    a matter of the machine, so here only what hangs is given up.
    """
    invoice = payee.call("invoice", amount_msat=amount_msat)["invoice"]
    began = time.monotonic()
    while True:
        answer = _asked_to_pay(payer, invoice)
        took = time.monotonic() - began
        if answer["status"] == "paid":
            return took
        is_final = answer["status"] == "failed" and not answer["retryable"]
        if is_final or took > PATIENCE_SECONDS:
            raise AssertionError(f"{payer.name}'s payment is {answer['status']}: {answer}")


def _asked_to_pay(payer: DaemonProcess, invoice: str) -> dict[str, Any]:
    """Return what became of a payment; what is on its way already is only waited for."""
    try:
        answer: dict[str, Any] = payer.call("pay", invoice=invoice, wait_seconds=PAY_SECONDS)
    except ApiFailure as failure:
        if not failure.retryable:
            raise
        time.sleep(RETRY_SECONDS)
        return {"status": "refused", "why": str(failure)}
    else:
        return answer


def _store_bytes(daemon: DaemonProcess) -> int:
    home = daemon.datadir / REGTEST.name
    total = 0
    for path in home.glob(f"{JOURNAL_NAME}*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _busy_seconds(daemon: DaemonProcess) -> float:
    """Return how much of a core a process has used."""
    stat = Path(f"/proc/{daemon.child.process.pid}/stat").read_text(encoding="ascii")
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _memory_mb(daemon: DaemonProcess) -> float:
    """Return the most memory that a process had, in MB."""
    status = Path(f"/proc/{daemon.child.process.pid}/status").read_text(encoding="ascii")
    peak_kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak_kb) / 1000
