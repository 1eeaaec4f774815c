"""A ceremony between real processes: sockets, ciphers and disks included.

The processes are those of `cromford demo`: an embedded regtest node, an LSP, and the clients. A run
lasts from the build request to the LSP's own line about the funding transaction it broadcast; then
the factory confirms, everybody joins again, and the next run begins.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.op import Work
from bench.sizes import CAPACITY_SAT, Size

from bench import floor
from cromford.demo import building
from cromford.demo.processes import Children, interruptible
from cromford.demo.settings import DemoSettings
from cromford.demo.steps import Steps
from cromford.demo.world import Site, World

PROCESSES: Final = "a ceremony between processes"
CLIENTS_DEFAULT: Final = (4, 8, 16)
CLIENTS_QUICK: Final = (4,)
FUNDING_LINE: Final = b"tx_broadcast name=funding"
LOG_POLL_SECONDS: Final = 0.001
BROADCAST_SECONDS_MAX: Final = 300.0


class Silent:
    """Somebody who does not care how it goes."""

    def begin(self, step: str) -> None:
        """Hear that a step begins."""

    def update(self, detail: str) -> None:
        """Hear what a step waits for."""

    def note(self, line: str) -> None:
        """Hear something worth keeping."""

    def end(self, outcome: str, seconds: float) -> None:
        """Hear how a step ended."""


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def works(size: Size) -> dict[str, Work]:
    """Return the operations of the floor: everybody's, which the cores may share."""
    return {PROCESSES: floor.ceremony(size.shape)}


@contextmanager
def started(size: Size) -> Iterator[tuple[World, Steps]]:
    """Start everybody; inside the block they run, afterwards nothing is left of them."""
    settings = DemoSettings(
        n_clients=size.n_clients,
        capacity_sat=CAPACITY_SAT,
        max_exit_delay_blocks=size.max_exit_delay_blocks,
    )
    with interruptible(), TemporaryDirectory(prefix="cromford-bench-") as name:
        logs = Path(name, "logs")
        logs.mkdir()
        with Children(logs) as children:
            site = Site(settings=settings, directory=Path(name), children=children)
            steps = Steps(Silent(), children.check_alive)
            yield building.start_world(site, steps), steps


@contextmanager
def running(size: Size) -> Iterator[Callable[[int], dict[str, float]]]:
    """Start everybody; inside the block, each call of what is given runs one ceremony."""
    with started(size) as (world, steps):
        yield lambda _run: run_once(world, steps)


def run_once(world: World, steps: Steps) -> dict[str, float]:
    """Return the milliseconds of one ceremony; afterwards its factory is live.

    Raises:
        TimeoutError: If no funding transaction was broadcast.
    """
    building.gather(world, steps)
    n_clients = len(world.clients)
    n_before = _n_broadcasts(world)
    began = time.monotonic()
    world.lsp.call("build", min_clients=n_clients, max_clients=n_clients)
    while _n_broadcasts(world) == n_before:
        if time.monotonic() - began > BROADCAST_SECONDS_MAX:
            tail = world.lsp.child.log_tail()
            raise TimeoutError(f"no funding transaction; the LSP's log ends with\n{tail}")
        world.site.children.check_alive()
        time.sleep(LOG_POLL_SECONDS)
    elapsed_ms = (time.monotonic() - began) * 1000
    factory = world.lsp.newest_factory()
    if factory is None:
        raise AssertionError("a funding transaction without a factory")
    factory_id = factory["factory_id"]
    shown = world.lsp.call("factory_show", factory_id=factory_id)
    building.seat_clients(world, shown["placed"])
    building.confirm(world, steps, factory_id)
    return {PROCESSES: elapsed_ms}


def _n_broadcasts(world: World) -> int:
    # The log is a file, so looking at it costs the processes nothing.
    return world.lsp.child.log.read_bytes().count(FUNDING_LINE)
