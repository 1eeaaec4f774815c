"""The transactions waiting for a block, and how they hang together."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.regtest.linearize import Chunk, Weighted, mining_order

N_ENTRIES_MAX: Final = 50_000  # Far more than a test needs.
ENTRY_OVERHEAD_BYTES: Final = 900  # What Core 31 uses for a transaction beside its bytes, measured.


@dataclass(frozen=True, slots=True, kw_only=True)
class MempoolEntry:
    """A transaction that was accepted."""

    tx: Tx
    fee_sat: int
    weight: int  # Weight units, raised if its signature checks cost more.
    vsize: int
    time: int  # Seconds since the epoch, when it came.
    height: int  # Of the tip when it came.


class Mempool:
    """Accepted transactions by id, parents always before their children."""

    def __init__(self) -> None:
        self._entries: dict[Txid, MempoolEntry] = {}
        self._spenders: dict[OutPoint, Txid] = {}
        self.sequence = 1  # Counts every change, as Core's `mempool_sequence`.
        self.usage = 0  # Bytes of memory, about as much as Core's would be.

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, txid: object) -> bool:
        return txid in self._entries

    def __iter__(self) -> Iterator[MempoolEntry]:
        return iter(self._entries.values())

    def get(self, txid: Txid) -> MempoolEntry | None:
        """Return a transaction's entry, or None."""
        return self._entries.get(txid)

    def output(self, outpoint: OutPoint) -> TxOut | None:
        """Return an output of a transaction in the mempool, spent or not, or None."""
        entry = self._entries.get(outpoint.txid)
        if entry is None or outpoint.vout >= len(entry.tx.outputs):
            return None
        return entry.tx.outputs[outpoint.vout]

    def spender(self, outpoint: OutPoint) -> Txid | None:
        """Return the transaction in the mempool that spends an outpoint, or None."""
        return self._spenders.get(outpoint)

    def add(self, entry: MempoolEntry) -> None:
        """Add a transaction whose conflicts have been removed.

        Raises:
            ValueError: If it is there, if an input is taken, or if the mempool is full.
        """
        if len(self._entries) >= N_ENTRIES_MAX:
            raise ValueError(f"a mempool of more than {N_ENTRIES_MAX} transactions")
        outpoints = [tx_in.outpoint for tx_in in entry.tx.inputs]
        if entry.tx.txid in self or any(outpoint in self._spenders for outpoint in outpoints):
            raise ValueError(f"transaction {entry.tx.txid} conflicts with the mempool")
        self._entries[entry.tx.txid] = entry
        self._spenders.update(dict.fromkeys(outpoints, entry.tx.txid))
        self.usage += _usage_of(entry)
        self.sequence += 1

    def remove(self, txids: Iterable[Txid]) -> None:
        """Remove these transactions, where they are there; nothing that hangs on them."""
        for txid in txids:
            entry = self._entries.pop(txid, None)
            if entry is not None:
                for tx_in in entry.tx.inputs:
                    del self._spenders[tx_in.outpoint]
                self.usage -= _usage_of(entry)
                self.sequence += 1

    def remove_for_block(self, txs: Iterable[Tx]) -> None:
        """Remove what a block confirmed, and what can never confirm after it."""
        for tx in txs:
            self.remove((tx.txid,))
            rivals = {self._spenders.get(tx_in.outpoint) for tx_in in tx.inputs}
            self.remove(self.descendants(rival for rival in rivals if rival is not None))

    def parents_of(self, tx: Tx) -> set[Txid]:
        """Return the transactions in the mempool that a transaction spends from."""
        return {tx_in.outpoint.txid for tx_in in tx.inputs} & self._entries.keys()

    def children(self, txid: Txid) -> set[Txid]:
        """Return the transactions in the mempool that spend from one in it."""
        tx = self._entries[txid].tx
        return {self._spenders[outpoint] for outpoint in tx.outpoints if outpoint in self._spenders}

    def ancestors(self, txids: Iterable[Txid]) -> set[Txid]:
        """Return these transactions with all they hang on."""
        return self._closure(txids, lambda txid: self.parents_of(self._entries[txid].tx))

    def descendants(self, txids: Iterable[Txid]) -> set[Txid]:
        """Return these transactions with all that hangs on them."""
        return self._closure(txids, self.children)

    def cluster(self, txids: Iterable[Txid]) -> set[Txid]:
        """Return every transaction connected with these."""
        return self._closure(
            txids, lambda txid: self.parents_of(self._entries[txid].tx) | self.children(txid)
        )

    def clusters(self) -> list[set[Txid]]:
        """Return all clusters, in the order of their first transaction."""
        found: list[set[Txid]] = []
        seen: set[Txid] = set()
        for txid in self._entries:
            if txid not in seen:
                found.append(self.cluster((txid,)))
                seen |= found[-1]
        return found

    def chunks(self) -> list[Chunk]:
        """Return all chunks as a miner takes them."""
        return mining_order(self.weighted(cluster) for cluster in self.clusters())

    def weighted(self, txids: Iterable[Txid]) -> dict[Txid, Weighted]:
        """Return transactions as the miner's order sees them."""
        chosen = frozenset(txids)
        entries = [self._entries[txid] for txid in sorted(chosen)]
        return {entry.tx.txid: weighted_of(entry, chosen) for entry in entries}

    def _closure(self, txids: Iterable[Txid], neighbours: Callable[[Txid], set[Txid]]) -> set[Txid]:
        found: set[Txid] = set()
        pending = list(txids)
        while pending:
            txid = pending.pop()
            if txid not in found:
                found.add(txid)
                pending.extend(neighbours(txid) - found)
        return found


def _usage_of(entry: MempoolEntry) -> int:
    return len(entry.tx.serialize()) + ENTRY_OVERHEAD_BYTES


def weighted_of(entry: MempoolEntry, cluster: frozenset[Txid]) -> Weighted:
    """Return a transaction as the miner's order sees it among a cluster."""
    return Weighted(
        txid=entry.tx.txid,
        fee_sat=entry.fee_sat,
        weight=entry.weight,
        parents=frozenset(tx_in.outpoint.txid for tx_in in entry.tx.inputs) & cluster,
    )
