"""BIP 341 digests, against the BIP's wallet vectors and two other libraries."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import wallycore
from btclib.script import sig_hash
from btclib.script import taproot as btclib_taproot
from btclib.tx.tx import Tx as BtclibTx
from btclib.tx.tx_out import TxOut as BtclibTxOut
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.taproot import taptweak
from cromford.bitcoin.tx import MAX_MONEY_SAT, OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto import schnorr
from cromford.crypto.keys import TaggedHash, pubkey_of, xonly_tweak_seckey
from cromford.regtest.kernel import check_scripts

Vectors = Callable[[str], Any]
SIGHASH_DEFAULT = 0  # BIP 341: the hash type that is not written out.

u32 = st.integers(0, 0xFFFF_FFFF)
inputs = st.builds(
    TxIn,
    outpoint=st.builds(
        OutPoint, txid=st.binary(min_size=32, max_size=32).map(Txid), vout=st.integers(0, 1000)
    ),
    nsequence=u32,
)
outputs = st.builds(
    TxOut, amount_sat=st.integers(0, MAX_MONEY_SAT // 10), script_pubkey=st.binary(max_size=60)
)
prevouts = st.builds(
    TxOut,
    amount_sat=st.integers(1, MAX_MONEY_SAT // 10),
    script_pubkey=st.binary(min_size=1, max_size=60),
)
tapscripts = st.one_of(st.none(), st.binary(min_size=1, max_size=100))


@st.composite
def spends(draw: st.DrawFn) -> tuple[Tx, list[TxOut], int]:
    tx = draw(
        st.builds(
            Tx,
            version=u32,
            inputs=st.lists(inputs, min_size=1, max_size=5, unique_by=lambda i: i.outpoint).map(
                tuple
            ),
            outputs=st.lists(outputs, min_size=1, max_size=5).map(tuple),
            nlocktime=u32,
        )
    )
    n_inputs = len(tx.inputs)
    spent = draw(st.lists(prevouts, min_size=n_inputs, max_size=n_inputs))
    index = draw(st.integers(0, n_inputs - 1))
    output_key = draw(st.binary(min_size=32, max_size=32))
    spent[index] = replace(spent[index], script_pubkey=b"\x51\x20" + output_key)
    return tx, spent, index


def key_path_vectors(json_vectors: Vectors) -> tuple[Any, Tx, list[TxOut]]:
    (spending,) = json_vectors("bip341/wallet-test-vectors.json")["keyPathSpending"]
    spent = [
        TxOut(
            amount_sat=prevout["amountSats"], script_pubkey=bytes.fromhex(prevout["scriptPubKey"])
        )
        for prevout in spending["given"]["utxosSpent"]
    ]
    return spending, Tx.parse(bytes.fromhex(spending["given"]["rawUnsignedTx"])), spent


def test_the_key_path_vectors_of_bip_341(json_vectors: Vectors) -> None:
    """Every key, tweak and signature; the digest where it is of the one hash type made here."""
    spending, tx, spent = key_path_vectors(json_vectors)
    n_digests = 0
    for vector in spending["inputSpending"]:
        given, between = vector["given"], vector["intermediary"]
        seckey = bytes.fromhex(given["internalPrivkey"])
        merkle_root = bytes.fromhex(given["merkleRoot"]) if given["merkleRoot"] else None
        tweak = taptweak(pubkey_of(seckey)[1:], merkle_root)
        assert pubkey_of(seckey)[1:].hex() == between["internalPubkey"]
        assert tweak.hex() == between["tweak"]
        tweaked = xonly_tweak_seckey(seckey, tweak)
        assert tweaked.hex() == between["tweakedPrivkey"]
        sighash = bytes.fromhex(between["sigHash"])
        assert TaggedHash("TapSighash")(bytes.fromhex(between["sigMsg"])) == sighash
        (witness,) = vector["expected"]["witness"]
        signature, hash_type = bytes.fromhex(witness)[:64], bytes.fromhex(witness)[64:]
        assert schnorr.sign(sighash, tweaked, aux_rand=bytes(32)) == signature
        output_key = spent[given["txinIndex"]].script_pubkey[2:]
        assert schnorr.verify(signature, sighash, output_key)
        if given["hashType"] == SIGHASH_DEFAULT:
            n_digests += 1
            assert hash_type == b""
            index = given["txinIndex"]
            assert taproot_sighash(tx, prevouts=spent, input_index=index) == sighash
        else:
            assert hash_type == bytes((given["hashType"],))
    assert (len(spending["inputSpending"]), n_digests) == (7, 1)


def test_the_signed_transaction_of_bip_341_is_read_and_valid(json_vectors: Vectors) -> None:
    spending, tx, spent = key_path_vectors(json_vectors)
    raw = bytes.fromhex(spending["auxiliary"]["fullySignedTx"])
    signed = Tx.parse(raw)
    assert signed.serialize() == raw
    assert signed.outputs == tx.outputs
    for vector in spending["inputSpending"]:
        witness = signed.inputs[vector["given"]["txinIndex"]].witness
        assert [item.hex() for item in witness] == vector["expected"]["witness"]
    check_scripts(signed, spent)


@given(spend=spends(), tapscript=tapscripts)
def test_two_other_libraries_make_the_same_digest(
    spend: tuple[Tx, list[TxOut], int], tapscript: bytes | None
) -> None:
    tx, spent, index = spend
    sighash = taproot_sighash(tx, prevouts=spent, input_index=index, tapscript=tapscript)

    btclib_tx = BtclibTx.parse(tx.serialize(), check_validity=False)
    btclib_prevouts = [BtclibTxOut(p.amount_sat, p.script_pubkey) for p in spent]
    extension = b""
    if tapscript is not None:
        extension = btclib_taproot.leaf_hash(0xC0, tapscript) + b"\x00" + b"\xff" * 4
    flag = int(tapscript is not None)
    assert sighash == sig_hash.taproot(btclib_tx, index, btclib_prevouts, 0, flag, b"", extension)

    wally_tx = wallycore.tx_from_bytes(tx.serialize(), wallycore.WALLY_TX_FLAG_USE_WITNESS)
    scripts = wallycore.map_init(len(spent), None)
    for i, prevout in enumerate(spent):
        wallycore.map_add_integer(scripts, i, prevout.script_pubkey)
    amounts = [prevout.amount_sat for prevout in spent]
    separator = wallycore.WALLY_NO_CODESEPARATOR
    assert sighash == bytes(
        wallycore.tx_get_btc_taproot_signature_hash(
            wally_tx, index, scripts, amounts, tapscript, 0, separator, None, 0, 0
        )
    )


@given(spend=spends(), tapscript=st.binary(max_size=40))
def test_the_two_paths_never_share_a_digest(
    spend: tuple[Tx, list[TxOut], int], tapscript: bytes
) -> None:
    tx, spent, index = spend
    key_path = taproot_sighash(tx, prevouts=spent, input_index=index)
    script_path = taproot_sighash(tx, prevouts=spent, input_index=index, tapscript=tapscript)
    assert key_path != script_path


@given(spend=spends(), witness=st.binary(min_size=1, max_size=64))
def test_no_witness_changes_what_is_signed(
    spend: tuple[Tx, list[TxOut], int], witness: bytes
) -> None:
    tx, spent, index = spend
    signed = tx.with_witnesses(*[(witness,)] * len(tx.inputs))
    digests = {taproot_sighash(t, prevouts=spent, input_index=index) for t in (tx, signed)}
    assert len(digests) == 1


@given(spend=spends(), extra=st.integers(-1, 1).filter(bool))
def test_every_input_has_one_prevout(spend: tuple[Tx, list[TxOut], int], extra: int) -> None:
    tx, spent, index = spend
    wrong = spent[:-1] if extra < 0 else [*spent, spent[0]]
    with pytest.raises(ValueError, match=f"{len(tx.inputs)} inputs and {len(wrong)} prevouts"):
        taproot_sighash(tx, prevouts=wrong, input_index=index)


@given(spend=spends())
def test_the_signed_input_exists(spend: tuple[Tx, list[TxOut], int]) -> None:
    tx, spent, _ = spend
    for index in (-1, len(tx.inputs)):
        with pytest.raises(ValueError, match=f"input {index} of {len(tx.inputs)}"):
            taproot_sighash(tx, prevouts=spent, input_index=index)
