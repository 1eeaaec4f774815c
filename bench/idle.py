"""How an LSP carries factories in which nothing happens: its start, a block, its memory.

One factory is real: built, funded, paid in, left by its clients, and put to sleep. The others are
its copies under names of their own, each with a stream, a checkpoint, a place in the house and
something that is watched. Start, block and memory are measured in a process of its own.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final

from bench.copies import FIRST_COPY, Copy
from bench.payments import SIZE, PayingWorld
from bench.rows import CPU
from bench.sizes import Size, keychain_of

from bench import copies as copying
from cromford.adapters.memory import MemoryJournal
from cromford.adapters.sqlite import Journal
from cromford.bitcoin.tx import Txid
from cromford.crypto.keys import sha256
from cromford.daemon.driver import Driver
from cromford.daemon.lspd import LSP_ROLE
from cromford.ports import Store
from cromford.protocol import events as ev
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.streams import factory_stream

FACTORIES_DEFAULT: Final = 10_000
FACTORIES_QUICK: Final = 100
FACTORIES_FEW: Final = 10  # What memory is compared with.
N_BLOCKS: Final = 20
KB_PER_MB: Final = 1000


@dataclass(frozen=True, kw_only=True)
class IdleRow:
    """One LSP with idle factories.

    Attributes:
        n_factories: How many.
        start_ms: From opening the journal to an LSP that has started, wall-clock.
        block_ms: One empty block, its append included: the slowest of several.
        memory_mb: What the process has then; `least_mb` before it opened the journal.
        wake_ms: To load one of them, because a client of it connects.
    """

    n_factories: int
    start_ms: float
    block_ms: float
    memory_mb: float
    least_mb: float
    wake_ms: float


def rows(n_factories: int, say: Callable[[str], None] = lambda _text: None) -> Iterator[IdleRow]:
    """Yield what few idle factories take, and what so many do."""
    for count in (FACTORIES_FEW, n_factories):
        say(f"idle factories: {count:,}")
        with TemporaryDirectory(prefix="cromford-bench-") as name:
            write(Path(name), count)
            command = [sys.executable, "-m", "bench.idle", name]
            told = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
            yield IdleRow(n_factories=count, **json.loads(told.stdout))


def write(home: Path, n_factories: int) -> None:
    """Write the journal of an LSP with so many factories that sleep."""
    with Journal(home) as journal:
        state = asleep(new_world(journal))
        (number,) = state.asleep
        real = journal.checkpoint(factory_stream(number))
        if real is None:
            raise AssertionError("a factory sleeps without a checkpoint")
        copies = [Copy(FIRST_COPY + n, state, number) for n in range(n_factories)]
        copying.write(journal, state, copies, real)
        copying.write_others(journal, state, copies)


def new_world(journal: Store, size: Size = SIZE) -> PayingWorld:
    """Return a world with one factory that was used; the journal is its LSP's."""
    stores: Iterator[Store] = chain([journal], iter(MemoryJournal, None))
    return PayingWorld(0, lambda: next(stores), CPU, size)


def asleep(world: PayingWorld) -> LspState:
    """Let all clients go and the factory sleep, and return what its LSP knows."""
    driver: Driver[LspState] = world.lsp.driver
    for client in world.clients:
        driver.handle(ev.ConnectionClosed(node_id=client.node_id))
    for name in driver.open_streams:
        driver.keep(driver.begin_checkpoint(name)())
    for name in [*driver.quiet()]:
        if not driver.put_to_sleep(name):
            raise AssertionError("a quiet factory does not sleep")
    return driver.state


def measure(home: Path, state: LspState) -> dict[str, float]:
    """Start an LSP on a journal, show it blocks, let a client of a sleeping factory come."""
    least_mb = _memory_mb()
    began = monotonic()
    with Journal(home) as journal:
        driver = Driver(LSP_ROLE, state, journal, lambda _effect: ())
        driver.start()
        start_ms = 1000 * (monotonic() - began)
        blocks_ms = []
        for height in range(driver.state.scan.height + 1, driver.state.scan.height + 1 + N_BLOCKS):
            began = monotonic()
            block_hash = Txid(sha256(height.to_bytes(8, "big")))
            driver.handle(ev.BlockAdded(height=height, block_hash=block_hash, txs=()))
            blocks_ms.append(1000 * (monotonic() - began))
        newest = driver.state.house.entry_of(max(driver.state.house.order))
        began = monotonic()
        driver.handle(ev.ConnectionOpened(node_id=newest.node_ids[0]))
        wake_ms = 1000 * (monotonic() - began)
        if newest.number not in driver.state.factories:
            raise AssertionError("the client's factory sleeps on")
        memory_mb = _memory_mb()
    return {
        "start_ms": start_ms,
        "block_ms": max(blocks_ms),
        "memory_mb": memory_mb,
        "least_mb": least_mb,
        "wake_ms": wake_ms,
    }


def _memory_mb() -> float:
    """Return what of this process is in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    resident_kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(resident_kb) / KB_PER_MB


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), SIZE.new_lsp(keychain_of(SIZE, 0, "LSP")))))
