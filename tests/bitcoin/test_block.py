"""Blocks and coins are values, and a block is parsed only if its header commits to all of it."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.block import (
    BLOCK_WEIGHT_MAX,
    NULL_OUTPOINT,
    Block,
    BlockRef,
    Coin,
    FullBlock,
    Header,
    is_coinbase,
    merkle_root,
    parse_block,
)
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.codec.reader import MalformedBytes

HASH = Txid(b"\x07" * 32)


def tx_of(number: int) -> Tx:
    return Tx(
        version=number,
        inputs=(TxIn(outpoint=OutPoint(txid=HASH, vout=1), nsequence=0, witness=(b"\x01",)),),
        outputs=(TxOut(amount_sat=1000, script_pubkey=b"\x51"),),
    )


def block_of(*txs: Tx) -> FullBlock:
    header = Header(
        version=1,
        previous_hash=HASH,
        merkle_root=merkle_root([tx.txid for tx in txs]) if txs else bytes(32),
        time=2,
        bits=3,
        nonce=4,
    )
    return FullBlock(header=header, txs=txs)


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


@given(n_txs=st.integers(1, 20))
def test_a_block_survives_its_bytes_and_keeps_the_headers_word_on_each_transaction(
    n_txs: int,
) -> None:
    block = block_of(*(tx_of(number) for number in range(n_txs)))
    assert FullBlock.parse(block.raw) == block
    parsed = parse_block(block.raw, block_hash=block.header.block_hash, height=9)
    assert parsed == Block(
        height=9, block_hash=block.header.block_hash, previous_hash=HASH, txs=block.txs
    )
    assert block.weight == 3 * block.stripped_size + len(block.raw)
    another = block.raw.replace(tx_of(n_txs - 1).serialize(), tx_of(n_txs).serialize())
    with pytest.raises(MalformedBytes, match="merkle root: expected"):
        FullBlock.parse(another)


@given(n_txs=st.integers(1, 20), n_doubled=st.integers(1, 20))
def test_a_block_whose_last_transactions_are_doubled_is_refused(n_txs: int, n_doubled: int) -> None:
    block = block_of(*(tx_of(number) for number in range(n_txs)))
    longer = FullBlock(header=block.header, txs=block.txs + block.txs[-n_doubled:])
    with pytest.raises(MalformedBytes, match="is in the block twice"):
        parse_block(longer.raw, block_hash=block.header.block_hash, height=9)


@pytest.mark.parametrize(("n_txs", "n_doubled"), [(3, 1), (5, 1), (6, 2), (12, 4)])
def test_such_a_block_would_have_the_same_merkle_root(n_txs: int, n_doubled: int) -> None:
    txids = [tx_of(number).txid for number in range(n_txs)]
    assert merkle_root(txids) == merkle_root(txids + txids[-n_doubled:])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda raw: raw[:79], "expected 80 bytes"),
        (lambda raw: raw[:-1], "expected 4 bytes"),
        (lambda raw: raw + b"\x00", "unexpected bytes after the end"),
        (lambda raw: b"\x09" + raw[1:], "block hash: expected"),
        (lambda raw: raw + bytes(BLOCK_WEIGHT_MAX), "at most 4000000 bytes"),
    ],
)
def test_a_malformed_block_is_refused(change: Callable[[bytes], bytes], complaint: str) -> None:
    block = block_of(tx_of(1))
    with pytest.raises(MalformedBytes, match=complaint):
        parse_block(change(block.raw), block_hash=block.header.block_hash, height=1)


def test_a_block_without_transactions_is_refused() -> None:
    with pytest.raises(MalformedBytes, match="without transactions"):
        FullBlock.parse(block_of().raw)


def test_a_header_is_exactly_80_bytes() -> None:
    raw = block_of(tx_of(1)).header.serialize()
    assert Header.parse(raw).serialize() == raw
    with pytest.raises(MalformedBytes, match="1 unexpected bytes"):
        Header.parse(raw + b"\x00")


def test_a_coinbase_spends_nothing_and_spends_it_once() -> None:
    nothing = TxIn(outpoint=NULL_OUTPOINT, nsequence=0)
    for inputs, expected in (
        ((nothing,), True),
        ((nothing, nothing), False),
        (tx_of(1).inputs, False),
        ((TxIn(outpoint=OutPoint(txid=NULL_OUTPOINT.txid, vout=0), nsequence=0),), False),
    ):
        assert is_coinbase(Tx(version=1, inputs=inputs, outputs=tx_of(1).outputs)) is expected
