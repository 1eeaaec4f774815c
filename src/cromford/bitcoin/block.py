"""Blocks and confirmed coins, as much of them as a role needs."""

from dataclasses import dataclass

from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxOut


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
