"""Blocks and coins are values: two of the same content are one, and none changes."""

from dataclasses import FrozenInstanceError

import pytest

from cromford.bitcoin.block import Block, BlockRef, Coin, merkle_root
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


def test_the_merkle_root_of_one_is_itself_and_of_an_odd_last_one_pairs_it_with_itself() -> None:
    one, two, three = (bytes([n]) * 32 for n in (1, 2, 3))
    assert merkle_root([one]) == one
    assert merkle_root([one, two, three]) == merkle_root([one, two, three, three])
    assert merkle_root([one, two]) != merkle_root([two, one])
    with pytest.raises(ValueError, match="at least its coinbase"):
        merkle_root([])
