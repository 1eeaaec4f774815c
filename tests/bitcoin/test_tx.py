"""Transactions: their bytes and numbers, against two other libraries and Bitcoin Core's parser."""

import tracemalloc
from dataclasses import replace

import pytest
import wallycore
from btclib import var_int
from btclib.tx.tx import Tx as BtclibTx
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cromford.bitcoin.tx import (
    MAX_MONEY_SAT,
    N_ITEMS_MAX,
    OutPoint,
    Tx,
    Txid,
    TxIn,
    TxOut,
    compact_size,
    read_compact_size,
    read_var_bytes,
    var_bytes,
)
from cromford.codec.reader import MalformedBytes, Reader
from cromford.regtest.kernel import library

u32 = st.integers(0, 0xFFFF_FFFF)
txids = st.binary(min_size=32, max_size=32).map(Txid)
outpoints = st.builds(OutPoint, txid=txids, vout=u32)
witnesses = st.lists(st.binary(max_size=70), max_size=4).map(tuple)
inputs = st.builds(
    TxIn, outpoint=outpoints, nsequence=u32, script_sig=st.binary(max_size=40), witness=witnesses
)
outputs = st.builds(
    TxOut, amount_sat=st.integers(0, MAX_MONEY_SAT), script_pubkey=st.binary(max_size=60)
)
txs = st.builds(
    Tx,
    version=u32,
    inputs=st.lists(inputs, min_size=1, max_size=5).map(tuple),
    outputs=st.lists(outputs, min_size=1, max_size=5).map(tuple),
    nlocktime=u32,
)

MINIMAL = Tx(
    version=2,
    inputs=(TxIn(outpoint=OutPoint(txid=Txid(bytes(32)), vout=0), nsequence=0),),
    outputs=(),
)


@given(tx=txs)
def test_a_tx_reads_back_from_its_bytes(tx: Tx) -> None:
    assert Tx.parse(tx.serialize()) == tx
    without_witness = Tx.parse(tx.stripped)
    assert without_witness == tx.with_witnesses(*[()] * len(tx.inputs))
    assert without_witness.txid == tx.txid


@given(tx=txs)
def test_two_other_libraries_count_and_name_it_the_same(tx: Tx) -> None:
    raw = tx.serialize()
    wally = wallycore.tx_from_bytes(raw, wallycore.WALLY_TX_FLAG_USE_WITNESS)
    btclib = BtclibTx.parse(raw, check_validity=False)
    assert tx.txid == bytes(wallycore.tx_get_txid(wally))
    assert str(tx.txid) == btclib.id.hex()
    assert str(tx.wtxid) == btclib.hash.hex()
    assert tx.wtxid == bytes(wallycore.sha256d(raw))
    assert tx.weight == btclib.weight == wallycore.tx_get_weight(wally)
    assert tx.vsize == btclib.vsize == wallycore.tx_get_vsize(wally)
    assert raw == btclib.serialize(include_witness=True, check_validity=False)
    assert raw.hex() == wallycore.tx_to_hex(wally, wallycore.WALLY_TX_FLAG_USE_WITNESS)


@given(tx=txs)
def test_bitcoin_core_reads_the_same_tx(tx: Tx) -> None:
    kernel_tx = library().Transaction(tx.serialize())
    assert bytes(kernel_tx) == tx.serialize()
    assert str(kernel_tx.txid) == str(tx.txid)
    assert len(kernel_tx.inputs) == len(tx.inputs)
    assert [output.amount for output in kernel_tx.outputs] == [o.amount_sat for o in tx.outputs]


@given(tx=txs, data=st.data())
def test_the_witness_changes_the_wtxid_and_never_the_txid(tx: Tx, data: st.DataObject) -> None:
    new = data.draw(st.lists(witnesses, min_size=len(tx.inputs), max_size=len(tx.inputs)))
    assume(new != [tx_in.witness for tx_in in tx.inputs])
    changed = tx.with_witnesses(*new)
    assert changed.txid == tx.txid
    assert changed.wtxid != tx.wtxid
    assert [tx_in.witness for tx_in in changed.inputs] == new
    assert changed.with_witnesses(*(tx_in.witness for tx_in in tx.inputs)) == tx


@given(tx=txs)
def test_without_a_witness_both_ids_are_one(tx: Tx) -> None:
    bare = tx.with_witnesses(*[()] * len(tx.inputs))
    assert not bare.has_witness
    assert bare.wtxid == bare.txid
    assert bare.serialize() == bare.stripped
    assert bare.weight == 4 * len(bare.stripped)


@given(tx=txs)
def test_there_is_one_witness_for_each_input(tx: Tx) -> None:
    with pytest.raises(ValueError, match="zip"):
        tx.with_witnesses(*[()] * (len(tx.inputs) + 1))


@given(tx=txs)
def test_an_outpoint_names_an_output_that_exists(tx: Tx) -> None:
    for vout in range(len(tx.outputs)):
        assert tx.outpoint(vout) == OutPoint(txid=tx.txid, vout=vout)
        assert str(tx.outpoint(vout)) == f"{tx.txid}:{vout}"
    for vout in (-1, len(tx.outputs)):
        with pytest.raises(ValueError, match=f"output {vout} of {len(tx.outputs)}"):
            tx.outpoint(vout)


@given(txid=txids)
def test_a_txid_is_displayed_reversed(txid: Txid) -> None:
    assert str(txid) == txid[::-1].hex() == f"{txid}"
    assert Txid.from_hex(str(txid)) == txid
    assert repr(txid) == f"Txid({txid})"


@pytest.mark.parametrize(
    "displayed",
    [
        "",
        "00" * 31,
        "00" * 33,
        "0" * 63,
        "zz" * 32,
        "00 " * 32,
        "0 " * 32,
        " " + "00" * 32,
        "é" * 64,
    ],
)
def test_a_txid_is_64_hex_digits(displayed: str) -> None:
    with pytest.raises(ValueError, match=r"64 hex digits|non-hexadecimal"):
        Txid.from_hex(displayed)


# --- the parser is total ----------------------------------------------------------------------


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_tx_or_malformed(data: bytes) -> None:
    for raw in (data, b"\x02\x00\x00\x00" + data, b"\x02\x00\x00\x00\x00\x01" + data):
        check_total(raw)


@pytest.mark.sampled(0)
@settings(max_examples=300)
@given(tx=txs, data=st.data())
def test_mutated_bytes_are_a_tx_or_malformed(tx: Tx, data: st.DataObject) -> None:
    raw = bytearray(tx.serialize())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                raw[position] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del raw[position : position + data.draw(st.integers(1, 5))]
            case _:
                raw[position:position] = data.draw(st.binary(min_size=1, max_size=9))
        assume(raw)
    check_total(bytes(raw))


def check_total(raw: bytes) -> None:
    """Whatever parses is those bytes and nothing else, and Bitcoin Core reads it too."""
    try:
        tx = Tx.parse(raw)
    except MalformedBytes:
        return
    assert tx.serialize() == raw
    assert bytes(library().Transaction(raw)) == raw


@given(tx=txs)
def test_every_proper_prefix_and_every_longer_string_is_malformed(tx: Tx) -> None:
    raw = tx.serialize()
    for length_bytes in range(0, len(raw), 7):
        with pytest.raises(MalformedBytes):
            Tx.parse(raw[:length_bytes])
    with pytest.raises(MalformedBytes, match="1 unexpected bytes"):
        Tx.parse(raw + b"\x00")


def test_a_tx_without_outputs_is_bytes_like_any_other() -> None:
    assert Tx.parse(MINIMAL.serialize()) == MINIMAL


def test_a_tx_without_inputs_is_malformed() -> None:
    raw = replace(MINIMAL, inputs=()).stripped
    with pytest.raises(MalformedBytes, match="without inputs"):
        Tx.parse(raw)
    with pytest.raises(MalformedBytes, match="expected 1 bytes"):
        Tx.parse(raw[:5])


def test_a_witness_flag_other_than_one_is_malformed() -> None:
    raw = MINIMAL.with_witnesses((b"\x01",)).serialize()
    assert raw[4:6] == b"\x00\x01"
    for flag in (0, 2, 3, 0xFF):
        with pytest.raises(MalformedBytes, match="without inputs"):
            Tx.parse(raw[:5] + bytes((flag,)) + raw[6:])


def test_a_witness_marker_over_empty_witnesses_is_malformed() -> None:
    raw = MINIMAL.stripped
    marked = raw[:4] + b"\x00\x01" + raw[4:-4] + b"\x00" + raw[-4:]
    with pytest.raises(MalformedBytes, match="every witness is empty"):
        Tx.parse(marked)
    no_inputs = b"\x02\x00\x00\x00\x00\x01\x00\x00" + bytes(4)
    with pytest.raises(MalformedBytes, match="every witness is empty"):
        Tx.parse(no_inputs)


@pytest.mark.parametrize("number", [0xFD, 0xFFFF, N_ITEMS_MAX, 0x1_0000_0000, 2**64 - 1])
def test_a_huge_count_is_refused_without_memory(number: int) -> None:
    count = compact_size(number)
    in_inputs = b"\x02\x00\x00\x00" + count
    in_outputs = MINIMAL.stripped[:-5] + count
    in_items = MINIMAL.stripped[:4] + b"\x00\x01" + MINIMAL.stripped[4:-4] + count
    in_script = b"\x02\x00\x00\x00\x01" + bytes(36) + count
    tracemalloc.start()
    try:
        for raw in (in_inputs, in_outputs, in_items, in_script):
            with pytest.raises(MalformedBytes):
                Tx.parse(raw + bytes(8))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 200_000


def test_items_take_memory_in_proportion_to_the_bytes_that_hold_them() -> None:
    """The cheapest item is one byte on the wire; a claim beyond the bytes stops at their end."""
    head = MINIMAL.stripped[:4] + b"\x00\x01" + MINIMAL.stripped[4:-4]
    with pytest.raises(MalformedBytes):
        Tx.parse(head + compact_size(N_ITEMS_MAX) + bytes(1000))


# --- compact sizes ----------------------------------------------------------------------------


@given(number=st.one_of(st.integers(0, N_ITEMS_MAX), st.sampled_from([0xFC, 0xFD, 0xFFFF, 65536])))
def test_a_compact_size_reads_back_and_is_another_librarys(number: int) -> None:
    encoded = compact_size(number)
    assert read_compact_size(Reader(encoded)) == number
    assert encoded == var_int.serialize(number)


@given(number=st.integers(0, 2**64 - 1))
def test_a_compact_size_is_minimal(number: int) -> None:
    shortest = compact_size(number)
    assert len(shortest) == wallycore.varint_get_length(number)
    for first, length_bytes in ((0xFD, 2), (0xFE, 4), (0xFF, 8)):
        if number < 1 << 8 * length_bytes and 1 + length_bytes > len(shortest):
            with pytest.raises(MalformedBytes, match="not minimally encoded"):
                read_compact_size(Reader(bytes((first,)) + number.to_bytes(length_bytes, "little")))


@given(number=st.integers(N_ITEMS_MAX + 1, 2**64 - 1))
def test_a_count_above_the_limit_needs_the_bytes_to_be_there(number: int) -> None:
    with pytest.raises(MalformedBytes, match=f"a count of {number}"):
        read_compact_size(Reader(compact_size(number) + bytes(100)))


def test_a_long_script_that_is_there_is_read() -> None:
    data = bytes(N_ITEMS_MAX + 50)
    assert read_var_bytes(Reader(var_bytes(data))) == data
