"""Blocks that a role has seen, put into a state's chain by hand: what follows of them is asked."""

from collections.abc import Sequence
from dataclasses import replace

from cromford.bitcoin.block import BlockRef
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.protocol.journal.known_chain import KnownChain

ELSEWHERE = bytes.fromhex("5120") + b"\x0e" * 32


def with_blocks(chain: KnownChain, *blocks: Sequence[Tx]) -> KnownChain:
    """Return a chain after blocks with these transactions in them."""
    for txs in blocks:
        block = BlockRef(height=chain.height + 1, block_hash=Txid(bytes(32)))
        chain = chain.with_block(block, txs)
    return chain


def buried(chain: KnownChain, depth: int, *txs: Tx) -> KnownChain:
    """Return a chain in which these are in one block, this deep: 1 at its tip, 0 in none."""
    return up_to(with_blocks(chain, txs), chain.height + depth) if depth else chain


def up_to(chain: KnownChain, height: int) -> KnownChain:
    """Return a chain that has grown to a height, with nothing in its blocks."""
    assert height >= chain.height
    tip = BlockRef(height=height, block_hash=Txid(bytes(32)))
    return replace(chain, recent=(tip,), recorded_height=height)


def spending(*outpoints: OutPoint, witness: tuple[bytes, ...] = (), sat: int = 1_000) -> Tx:
    """Return what takes these elsewhere; whether it may is the chain's to judge."""
    inputs = (TxIn(outpoint=one, nsequence=0xFFFFFFFD, witness=witness) for one in outpoints)
    return Tx(
        version=2,
        inputs=tuple(inputs),
        outputs=(TxOut(amount_sat=sat, script_pubkey=ELSEWHERE),),
    )
