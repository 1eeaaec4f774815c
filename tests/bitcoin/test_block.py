"""Blocks and coins are values: two of the same content are one, and none changes."""

from dataclasses import FrozenInstanceError

import pytest

from cromford.bitcoin.block import Block, BlockRef, Coin
from cromford.bitcoin.tx import OutPoint, Txid, TxOut

HASH = Txid(b"\x07" * 32)


def test_what_a_node_reported_cannot_be_changed_afterwards() -> None:
    coin = Coin(
        outpoint=OutPoint(txid=HASH, vout=0),
        txout=TxOut(amount_sat=1, script_pubkey=b""),
        confirmations=3,
    )
    block = Block(height=1, block_hash=HASH, previous_hash=HASH, txs=())
    for value, field in ((coin, "confirmations"), (block, "height")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field, 7)


def test_a_block_is_named_by_height_and_hash() -> None:
    named = {BlockRef(height=1, block_hash=HASH), BlockRef(height=1, block_hash=Txid(HASH))}
    assert named == {BlockRef(height=1, block_hash=HASH)}
    assert BlockRef(height=2, block_hash=HASH) not in named
