"""Blocks and confirmed coins, as much of them as a role needs."""

from collections.abc import Sequence
from dataclasses import dataclass

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut
from cromford.crypto.keys import sha256d


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRef:
    """Names one block of the active chain."""

    height: int
    block_hash: Txid


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block as the roles need it."""

    height: int
    block_hash: Txid
    previous_hash: Txid
    txs: tuple[Tx, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coin:
    """An unspent output of the active chain."""

    outpoint: OutPoint
    txout: TxOut
    confirmations: int


def merkle_root(hashes: Sequence[bytes]) -> bytes:
    """Return the merkle root of transaction hashes; an odd last one is paired with itself.

    Raises:
        ValueError: If there is none.
    """
    if not hashes:
        raise ValueError("a block has at least its coinbase")
    level = list(hashes)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [sha256d(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]
