"""What a block costs an LSP, the more channels of its are quiet, while some are being left.

Factories of eight are copies of one that is quiet: its clients away and it asleep, or all of them
here; in its active life, or in its dying period, where the LSP's policy asks for a close that waits
for somebody. Beside them are copies of one that a client is leaving, by a transaction that is in a
block and a delay that goes on. Each LSP is a process of its own.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Final

from bench.copies import FIRST_COPY, Copy
from bench.idle import asleep, new_world
from bench.payments import PayingWorld
from bench.sizes import BINARY_SHAPE, Size, keychain_of

from bench import copies as copying
from cromford.adapters.memory import MemoryJournal
from cromford.adapters.sqlite import Journal
from cromford.bitcoin.tx import Txid
from cromford.crypto.keys import sha256
from cromford.daemon.checkpoints import QUIET_PER_BLOCK
from cromford.daemon.driver import Driver
from cromford.daemon.lspd import LSP_ROLE
from cromford.factory.lifetime import Period
from cromford.protocol import events as ev
from cromford.protocol.dying_steps import begin_height
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.streams import factory_stream
from cromford.protocol.policy import DyingStep

SIZE: Final = Size(8, BINARY_SHAPE)
CHANNELS_DEFAULT: Final = (100, 1_000, 10_000)
CHANNELS_QUICK: Final = (100,)
EXITS: Final = (1, 10)
AWAY: Final = "away"
HERE: Final = "here"
N_BLOCKS: Final = 10  # Twice as many are fewer than lie between two heights of a close.


@dataclass(frozen=True, kw_only=True)
class BlockRow:
    """One LSP, and what a block costs it.

    Attributes:
        n_channels: How many are quiet.
        period: Where their factories stand in their lives.
        clients: Whether these are away, and the factories asleep, or here.
        n_exits: In how many factories besides a client is leaving.
        n_asked: How many factories a block asks.
        first_ms: CPU of the first block after a start, or after all came: it asks all in memory.
        block_ms: CPU of one that follows, its append included: the median of several.
        ratio: How many times the least row of the run that is.
    """

    n_channels: int
    period: str
    clients: str
    n_exits: int
    n_asked: int
    first_ms: float
    block_ms: float
    ratio: float = 1.0


def rows(
    sizes: Sequence[int],
    exits: Sequence[int] = EXITS,
    say: Callable[[str], None] = lambda _text: None,
) -> list[BlockRow]:
    """Return a row for each number of channels and of exits, period, and whether all are here."""
    found = [
        row
        for n_channels in sizes
        for n_exits in exits
        for period in (Period.ACTIVE, Period.DYING)
        for row in _measured(n_channels, n_exits, period, say)
    ]
    least_ms = min(row.block_ms for row in found)
    return [replace(row, ratio=row.block_ms / least_ms) for row in found]


def _measured(
    n_channels: int, n_exits: int, period: Period, say: Callable[[str], None]
) -> Iterator[BlockRow]:
    say(f"blocks: {n_channels:,} channels, {period.label}, {n_exits} of others left")
    with TemporaryDirectory(prefix="cromford-bench-") as name:
        write(Path(name), n_channels, n_exits, period)
        command = [sys.executable, "-m", "bench.blocks", name]
        told = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
    for clients, seen in json.loads(told.stdout).items():
        yield BlockRow(
            n_channels=n_channels, period=period.label, clients=clients, n_exits=n_exits, **seen
        )


def write(home: Path, n_channels: int, n_exits: int, period: Period) -> None:
    """Write the journal of an LSP with so many quiet channels, and factories that are left."""
    with Journal(home) as journal:
        world = new_world(journal, SIZE)
        _grow_old(world, period)
        quiet = asleep(world)
        (number,) = quiet.asleep
        n_quiet = -(-n_channels // SIZE.n_clients)
        left = _left(period)
        copies = [Copy(FIRST_COPY + n, quiet, number) for n in range(n_quiet)]
        others = [Copy(FIRST_COPY + n_quiet + n, left, number) for n in range(n_exits)]
        copying.write(journal, quiet, copies, journal.checkpoint(factory_stream(number)))
        copying.write(journal, left, others, None)
        copying.write_others(journal, quiet, [*copies, *others])


def _grow_old(world: PayingWorld, period: Period) -> None:
    """Let the factory die, if it is to, and its close be asked for: all are away."""
    for client in world.clients:
        world.lsp.handle(ev.ConnectionClosed(node_id=client.node_id))
    state: LspState = world.lsp.driver.state
    life = state.factory(0).lifetime
    if period is Period.DYING:
        begins = begin_height(state.config.policy, life, DyingStep.CLOSE)
        if begins is None:
            raise AssertionError("no close is asked for")
        world.find_block(begins)
    if life.period_at(world.lsp.driver.state.scan.height) is not period:
        raise AssertionError(f"the factory is not {period.label}")


def _left(period: Period) -> LspState:
    """Return an LSP with the same factory, which a client of it is leaving."""
    world = new_world(MemoryJournal(), SIZE)
    _grow_old(world, period)
    leaver = world.clients[0]
    (attempt_id,) = leaver.driver.state.attempts
    leaver.handle(ev.ExitRequested(attempt_id=attempt_id))
    state: LspState = world.lsp.driver.state
    world.find_block(state.scan.height + 1, *leaver.published.values())
    state = world.lsp.driver.state
    factory = state.factory(0)
    if factory.attempt.funding_outpoint not in factory.chain.spends:
        raise AssertionError("nobody leaves")
    return state


def measure(home: Path, state: LspState) -> dict[str, dict[str, float]]:
    """Show an LSP blocks while all clients are away, and then while all are here."""
    with Journal(home) as journal:
        driver = Driver(LSP_ROLE, state, journal, lambda _effect: ())
        driver.start()
        house = driver.state.house
        nodes = [node for number in house.order for node in house.entry_of(number).node_ids]
        away = _blocks(driver)
        for node_id in dict.fromkeys(nodes):
            driver.handle(ev.ConnectionOpened(node_id=node_id))
        return {AWAY: away, HERE: _blocks(driver)}


def _blocks(driver: Driver[LspState]) -> dict[str, float]:
    spent_ms = []
    for _ in range(1 + N_BLOCKS):
        height = driver.state.scan.height + 1
        block = ev.BlockAdded(height=height, block_hash=Txid(sha256(b"%d" % height)), txs=())
        n_asked = len(driver.state.restless.at(height).asked)
        began = process_time()
        driver.handle(block)
        list(islice(driver.quiet(), QUIET_PER_BLOCK))
        spent_ms.append(1000 * (process_time() - began))
    return {"n_asked": n_asked, "first_ms": spent_ms[0], "block_ms": median(spent_ms[1:])}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), SIZE.new_lsp(keychain_of(SIZE, 0, "LSP")))))
