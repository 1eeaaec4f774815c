"""The node without its wire: a chain, a mempool, and what moves transactions between them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Final

from cromford.bitcoin.block import FullBlock
from cromford.bitcoin.tx import Tx, Txid, read_compact_size, var_list
from cromford.codec.reader import MalformedBytes, Reader
from cromford.regtest import journal, template
from cromford.regtest.acceptance import Acceptor
from cromford.regtest.candidate import Accepted, PackageResult
from cromford.regtest.chain import IndexedBlock, RegtestChain, Reorganisation
from cromford.regtest.kernel import delete_left_over
from cromford.regtest.mempool import Mempool
from cromford.regtest.mempool_limit import MempoolLimit
from cromford.regtest.options import DEFAULTS, Options
from cromford.regtest.verdict import MempoolRefused

RETURNED_BLOCKS_MAX: Final = 10  # Core brings back the transactions of this many blocks only.
BLOCKS_FILE: Final = "blocks.dat"
MEMPOOL_FILE: Final = "mempool.dat"


class Ledger:
    """Everything a regtest node knows.

    Args:
        directory: Where its blocks are kept between runs; None to keep nothing.
        clock: Gives the time in seconds since the epoch. A constant makes all hashes repeatable.
        options: How it relays and mines.

    Attributes:
        estimates_sat_per_kvb: What it answers when asked for estimates, by target in blocks.

    Raises:
        KernelUnavailable: If the kernel's library could not be loaded.
        DatadirBusy: If another process uses the directory.
    """

    def __init__(
        self, directory: Path | None, clock: Callable[[], int], options: Options = DEFAULTS
    ) -> None:
        self.clock = clock
        self.options = options
        self.estimates_sat_per_kvb: dict[int, int] = {}
        self.is_interrupted = False  # Set from outside to end a long run of mining.
        self._journal = None if directory is None else journal.BlockFile(directory / BLOCKS_FILE)
        try:
            if directory is not None:
                delete_left_over(directory)  # The journal's lock says that nobody uses it.
            self.chain = RegtestChain(directory)
        except BaseException:
            if self._journal is not None:
                self._journal.close()
            raise
        self._mempool_file: Path | None = None
        self.mempool = Mempool()
        self.limit = MempoolLimit(self.mempool, options, clock)
        self._acceptor = Acceptor(self.chain, self.mempool, limit=self.limit, options=options)
        try:
            self._reload()
            self._mempool_file = None if directory is None else directory / MEMPOOL_FILE
            self._reload_mempool()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Keep the mempool, release the kernel, and close the journal. Safe to call twice."""
        if self._mempool_file is not None:
            self._mempool_file.write_bytes(var_list([e.tx.serialize() for e in self.mempool]))
            self._mempool_file = None
        self.chain.close()
        if self._journal is not None:
            self._journal.close()

    def test_one(self, tx: Tx) -> Accepted:
        """Return how a transaction would be accepted; nothing changes.

        Raises:
            MempoolRefused: If it would not be.
        """
        return self._acceptor.test(tx)

    def test(self, txs: Sequence[Tx]) -> PackageResult:
        """Return how transactions would be accepted; nothing changes."""
        if len(txs) > 1:
            return self._acceptor.test_package(txs)
        try:
            return PackageResult(error=None, results={txs[0].wtxid: self.test_one(txs[0])})
        except MempoolRefused as refused:
            return PackageResult(error=None, results={txs[0].wtxid: refused})

    def submit(self, tx: Tx) -> Accepted:
        """Accept a transaction into the mempool.

        Raises:
            MempoolRefused: If it is not accepted.
        """
        return self._acceptor.submit(tx, now=self.clock())

    def submit_package(self, txs: Sequence[Tx], feerate_max: Fraction | None) -> PackageResult:
        """Accept a child with its parents; `feerate_max` in satoshi per virtual byte."""
        return self._acceptor.submit_package(txs, now=self.clock(), feerate_max=feerate_max)

    def mine(self, script_pubkey: bytes) -> IndexedBlock:
        """Extend the chain by a block of what the mempool holds.

        Raises:
            BlockRefused: If the kernel refuses it, which would be a fault of this module.
        """
        entries = template.chosen_entries(self.mempool, weight_max=self.options.block_weight_max)
        fees_sat = sum(entry.fee_sat for entry in entries)
        txs = [entry.tx for entry in entries]
        return self.connect(self._new_block(script_pubkey, txs, fees_sat=fees_sat))

    def build(self, script_pubkey: bytes, txs: Sequence[Tx]) -> FullBlock:
        """Return a block of exactly these transactions, whose fees nobody collects."""
        return self._new_block(script_pubkey, txs, fees_sat=0)

    def _new_block(self, script_pubkey: bytes, txs: Sequence[Tx], *, fees_sat: int) -> FullBlock:
        time = template.next_time(self.chain.tip, self.clock())
        while True:
            block = template.build_block(
                self.chain.tip, txs=txs, fees_sat=fees_sat, script_pubkey=script_pubkey, time=time
            )
            # After an invalidated block, the same one would be built again within its second.
            if not self.chain.is_known(block.header.block_hash):
                return block
            time += 1

    def connect(self, block: FullBlock) -> IndexedBlock:
        """Make a block the new tip, and remember it.

        Raises:
            BlockRefused: If the kernel refuses it.
            BlockUnknown: If it does not extend the tip.
        """
        indexed = self.chain.connect(block)
        self._remember(journal.BLOCK, block.raw)
        self._take_out(block)
        return indexed

    def _take_out(self, block: FullBlock) -> None:
        if len(self.mempool):
            self.mempool.remove_for_block(block.txs)
        self.limit.block_connected()

    def invalidate(self, block_hash: Txid) -> None:
        """Mark a block as if it broke a rule, and activate the best chain without it.

        Raises:
            BlockUnknown: If no such block has been accepted.
            ValueError: If it is the genesis block.
        """
        reorganisation = self.chain.invalidate(block_hash)
        self._remember(journal.INVALIDATED, block_hash)
        self._follow(reorganisation)

    def reconsider(self, block_hash: Txid) -> None:
        """Forget the marks on a block, its ancestors and its descendants.

        Raises:
            BlockUnknown: If no such block has been accepted.
        """
        reorganisation = self.chain.reconsider(block_hash)
        self._remember(journal.RECONSIDERED, block_hash)
        self._follow(reorganisation)

    def _remember(self, kind: bytes, data: bytes) -> None:
        if self._journal is not None:
            self._journal.append(kind, data)

    def _follow(self, reorganisation: Reorganisation) -> None:
        """Bring the mempool to what the new tip allows, disconnected transactions first."""
        for indexed in reorganisation.connected:
            self._take_out(indexed.block)
        if not reorganisation.disconnected:
            return
        returned = reorganisation.disconnected[:RETURNED_BLOCKS_MAX]
        txs = [tx for indexed in reversed(returned) for tx in indexed.block.txs[1:]]
        waiting = list(self.mempool)
        self.mempool.remove(entry.tx.txid for entry in waiting)
        self._acceptor.bring_back(txs + [entry.tx for entry in waiting], now=self.clock())

    def _reload_mempool(self) -> None:
        """Offer again what waited at the last stop, each transaction alone, as Core does.

        What is not valid any more is left out, and so is what only its child paid for.
        """
        if self._mempool_file is None or not self._mempool_file.exists():
            return
        reader = Reader(self._mempool_file.read_bytes())
        self._mempool_file.unlink()
        try:
            txs = [Tx.read(reader) for _ in range(read_compact_size(reader))]
        except MalformedBytes:
            return  # Torn by a crash: as if nothing had waited.
        for tx in txs:
            with suppress(MempoolRefused):
                self._acceptor.submit(tx, now=self.clock())

    def _reload(self) -> None:
        if self._journal is None:
            return
        for kind, data in self._journal.replay():
            match kind:
                case journal.BLOCK:
                    self.chain.add(FullBlock.parse(data))
                case journal.INVALIDATED:
                    self.chain.mark_invalid(Txid(data))
                case _:
                    self.chain.unmark(Txid(data))
        self.chain.activate_best()
