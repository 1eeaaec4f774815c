"""How an LSP carries factories in which nothing happens: its start, a block, its memory.

One factory is real: built, funded, paid in, left by its clients, and put to sleep. The others are
its copies under names of their own, each with a stream, a checkpoint, a place in the house and
something that is watched. Start, block and memory are measured in a process of its own.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final

from bench.payments import SIZE, PayingWorld
from bench.rows import CPU
from bench.sizes import keychain_of
from immutables import Map

from cromford.adapters.memory import MemoryJournal
from cromford.adapters.sqlite import Journal
from cromford.bitcoin.tx import OutPoint, Txid
from cromford.crypto.keys import sha256
from cromford.daemon.driver import Driver
from cromford.daemon.lspd import LSP_ROLE
from cromford.daemon.streams import Stream
from cromford.ports import Checkpoint, Entry, Store
from cromford.protocol import events as ev
from cromford.protocol.journal.entries import FactoryEntry
from cromford.protocol.journal.factory import Factory
from cromford.protocol.journal.house import House
from cromford.protocol.journal.lsp_state import LspState
from cromford.protocol.journal.mail import Post
from cromford.protocol.journal.records import Started, encode_record
from cromford.protocol.journal.scan import Scan
from cromford.protocol.journal.snapshot import Position, Snapshots, references_of
from cromford.protocol.journal.streams import CHAIN, HOUSE, factory_stream
from cromford.wallet.account import CHANGE, WalletPath

FACTORIES_DEFAULT: Final = 10_000
FACTORIES_QUICK: Final = 100
FACTORIES_FEW: Final = 10  # What memory is compared with.
FIRST_COPY: Final = 1_000
N_BLOCKS: Final = 20
WRITTEN_BY: Final = "bench"
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
        state = _asleep(journal)
        (stream,) = (name for name, _ in journal.labels())
        real = journal.checkpoint(stream)
        if real is None:
            raise AssertionError("a factory sleeps without a checkpoint")
        (number,) = state.asleep
        copies = [_Copy(FIRST_COPY + n, state, number) for n in range(n_factories)]
        factory = state.factory(number).durable
        snapshots: Snapshots[Any] = Snapshots(Factory, references_of(state.config))
        started = encode_record(Started())
        journal.append([Entry(copy.stream, started) for copy in copies])
        attempt_id = factory.attempt.attempt_id.hex().encode()
        for copy in copies:
            snapshot = snapshots.encode(
                copy.of(factory), Position(copy.stream, 1), written_by=WRITTEN_BY
            )
            label = real.label.replace(attempt_id, copy.entry.attempt_id.hex().encode())
            journal.replace_checkpoint(
                Checkpoint(copy.stream, 1, snapshot, label, real.wake_height)
            )
        _replace(journal, HOUSE, copy_house(state.house.durable, copies), state)
        _replace(journal, CHAIN, copy_scan(state.scan, copies), state)


def _asleep(journal: Journal) -> LspState:
    """Return an LSP with one factory that was used, and sleeps."""
    stores: Iterator[Store] = chain([journal], iter(MemoryJournal, None))
    world = PayingWorld(0, lambda: next(stores), CPU)
    driver: Driver[LspState] = world.lsp.driver
    for client in world.clients:
        driver.handle(ev.ConnectionClosed(node_id=client.node_id))
    for name in driver.open_streams:
        driver.keep(driver.begin_checkpoint(name)())
    for name in [*driver.quiet()]:
        if not driver.put_to_sleep(name):
            raise AssertionError("a quiet factory does not sleep")
    return driver.state


class _Copy:
    """A factory's names under another number."""

    def __init__(self, number: int, state: LspState, original: int) -> None:
        entry = state.house.entry_of(original)
        name = number.to_bytes(8, "big")
        clients = range(len(entry.node_ids))
        self.number = number
        self.stream = factory_stream(number)
        self.entry: FactoryEntry = replace(
            entry,
            number=number,
            attempt_id=sha256(b"attempt" + name),
            node_ids=tuple(b"\2" + sha256(b"node %d" % n + name) for n in clients),
            factory_pubkeys=tuple(b"\2" + sha256(b"key %d" % n + name) for n in clients),
            own_pubkey=b"\3" + sha256(b"own key" + name),
            funding_txid=Txid(sha256(b"funding" + name)),
            coins=tuple(
                OutPoint(txid=Txid(sha256(b"coin" + name)), vout=vout)
                for vout in range(len(entry.coins))
            ),
        )

    def of(self, factory: Factory) -> Factory:
        """Return a factory under these names."""
        attempt = replace(factory.attempt, attempt_id=self.entry.attempt_id)
        return replace(factory, number=self.number, begun=attempt)


def copy_house(house: House, copies: list[_Copy]) -> House:
    """Return a house that has these factories, too."""
    of_client = {node: (copy.number,) for copy in copies for node in copy.entry.node_ids}
    tally = house.tally
    for copy in copies:
        tally = tally.funded(
            lent_sat=sum(copy.entry.capacity_sat),
            expiry_height=copy.entry.expiry_height,
            height=house.chain.height,
        )
    return replace(
        house,
        entries=house.entries.update({copy.entry.attempt_id: copy.entry for copy in copies}),
        order=house.order.update({copy.number: copy.entry.attempt_id for copy in copies}),
        of_client=house.of_client.update(of_client),
        keys=house.keys.update(
            {
                key: copy.number
                for copy in copies
                for key in (copy.entry.own_pubkey, *copy.entry.factory_pubkeys)
            }
        ),
        last_seen=house.last_seen.update(dict.fromkeys(of_client, house.chain.height)),
        tally=tally,
        post=_copy_post(house.post, copies),
        **_copy_fundings(house, copies),
    )


def _copy_fundings(house: House, copies: list[_Copy]) -> dict[str, Any]:
    """Return a wallet that has paid for these factories, too, and where those payments are."""
    wallet, chain, news = house.wallet, house.chain, house.news
    paid = next(coin for coin in wallet.coins.values() if coin.spent_height is not None)
    for copy in copies:
        height = 1 + copy.number % chain.height
        txid = copy.entry.funding_txid
        chain = replace(chain, confirmed=chain.confirmed.set(txid, height))
        news = news.set(height, (*news.get(height, ()), txid))
        coins = {
            outpoint: replace(paid, outpoint=outpoint, height=height, spent_height=height)
            for outpoint in copy.entry.coins
        }
        path = WalletPath(change=CHANGE, index=copy.number)
        wallet = replace(
            wallet.with_reserved(copy.entry.coins, copy.entry.attempt_id),
            coins=wallet.coins.update(coins),
            touched=wallet.touched.set(height, (*wallet.touched.get(height, ()), *coins)),
            scripts=wallet.scripts.set(b"\x51\x20" + sha256(txid), path),
        )
    return {"wallet": wallet, "chain": chain, "news": news}


def _copy_post(post: Post, copies: list[_Copy]) -> Post:
    """Return a post that had letters of these factories, too: as many as of the first one."""
    original = next(stream for stream in post.taken if stream not in {HOUSE, CHAIN})
    streams = [copy.stream for copy in copies]
    return replace(
        post,
        n_sent=post.n_sent.update(dict.fromkeys(streams, post.n_sent[original])),
        taken=post.taken.update(dict.fromkeys(streams, post.taken[original])),
    )


def copy_scan(scan: Scan, copies: list[_Copy]) -> Scan:
    """Return a scan that watches for these factories, too: their coins and their output."""
    watched = {
        copy.stream: dict.fromkeys(
            (*copy.entry.coins, OutPoint(txid=copy.entry.funding_txid, vout=0)), scan.height
        )
        for copy in copies
    }
    told: dict[int, list[str]] = {}
    for copy in copies:
        told.setdefault(1 + copy.number % scan.height, []).append(copy.stream)
    watchers = {
        outpoint: (stream,) for stream, outpoints in watched.items() for outpoint in outpoints
    }
    return replace(
        scan,
        watchers=scan.watchers.update(watchers),
        watched=scan.watched.update({stream: Map(of) for stream, of in watched.items()}),
        told=scan.told.update({height: tuple(streams) for height, streams in told.items()}),
        post=_copy_post(scan.post, copies),
    )


def _replace(journal: Journal, name: str, value: House | Scan, state: LspState) -> None:
    """Let a checkpoint of the house, or the scan, say this."""
    parts = LSP_ROLE.parts
    stream: Stream[Any] = Stream(
        journal,
        name,
        beginning=parts.value(state, name),
        apply=parts.fold(name),
        snapshots=parts.snapshots(state, name),
    )
    stream.keep(stream.begin_checkpoint(value)())


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
