"""Whole spends: what we sign Bitcoin Core accepts, and with one bit changed it does not."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cromford.bitcoin.script import (
    OP_CHECKLOCKTIMEVERIFY,
    OP_CHECKSEQUENCEVERIFY,
    OP_CHECKSIGVERIFY,
    push_bytes,
    push_number,
)
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.taproot import (
    merkle_path_of,
    merkle_root_of,
    tapleaf_hash,
    taproot_output,
    tweaked_key_agg,
)
from cromford.bitcoin.timelock import NSEQUENCE_LOCKTIME, nsequence_of_delay
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto import musig2, schnorr
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import pubkey_of
from cromford.crypto.musig2 import KeyAgg, SecNonce, Session
from cromford.regtest.kernel import ScriptRefused, check_scripts

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
seckeys = st.integers(1, ORDER - 1).map(lambda scalar: scalar.to_bytes(32, "big"))
cohorts = st.lists(seckeys, min_size=1, max_size=8, unique_by=pubkey_of)
heights = st.one_of(st.integers(1, 499_999_999), st.sampled_from([1, 16, 17, 127, 128, 32768]))
delays = st.one_of(st.integers(1, 0xFFFF), st.sampled_from([1, 16, 17, 127, 128, 144, 32768]))


def spend_of(prevout: TxOut, *, nsequence: int = 0xFFFF_FFFF, nlocktime: int = 0) -> Tx:
    return Tx(
        version=3,
        inputs=(TxIn(outpoint=OutPoint(txid=Txid(b"\x01" * 32), vout=1), nsequence=nsequence),),
        outputs=(TxOut(amount_sat=prevout.amount_sat - 500, script_pubkey=b"\x51\x02\x4e\x73"),),
        nlocktime=nlocktime,
    )


def sign_together(cohort: Sequence[bytes], key_agg: KeyAgg, message: bytes) -> bytes:
    nonces = [SecNonce(Keypair(seckey)) for seckey in cohort]
    aggnonce = musig2.nonce_agg([nonce.pubnonce for nonce in nonces])
    session = Session(key_agg=key_agg, aggnonce=aggnonce, message=message)
    return session.partial_sig_agg([nonce.sign(session) for nonce in nonces])


def assert_refused(tx: Tx, prevout: TxOut) -> None:
    with pytest.raises(ScriptRefused):
        check_scripts(tx, [prevout])


@settings(max_examples=40)
@given(cohort=cohorts, tree=st.booleans(), bit=st.integers(0, 511))
def test_the_key_path_needs_everybodys_signature_to_the_bit(
    cohort: list[bytes],
    tree: bool,  # noqa: FBT001 - drawn
    bit: int,
) -> None:
    merkle_root = tapleaf_hash(b"\x51") if tree else None
    key_agg = tweaked_key_agg(KeyAgg([pubkey_of(seckey) for seckey in cohort]), merkle_root)
    output = taproot_output(key_agg.internal_key, merkle_root)
    prevout = TxOut(amount_sat=100_000, script_pubkey=output.script_pubkey)
    tx = spend_of(prevout)
    signature = sign_together(
        cohort, key_agg, taproot_sighash(tx, prevouts=[prevout], input_index=0)
    )
    assert schnorr.verify(
        signature, taproot_sighash(tx, prevouts=[prevout], input_index=0), output.output_key
    )
    check_scripts(tx.with_witnesses((signature,)), [prevout])

    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert_refused(tx.with_witnesses((bytes(flipped),)), prevout)
    assert_refused(
        tx.with_witnesses((signature,)),
        TxOut(amount_sat=100_001, script_pubkey=output.script_pubkey),
    )
    for other in (spend_of(prevout, nsequence=0), spend_of(prevout, nlocktime=1)):
        assert_refused(other.with_witnesses((signature,)), prevout)


@settings(max_examples=40)
@given(owner=seckeys, cohort=cohorts, data=st.data())
def test_each_tapleaf_of_a_tree_is_spendable_by_its_own_control_block_only(
    owner: bytes, cohort: list[bytes], data: st.DataObject
) -> None:
    expiry_heights = data.draw(st.lists(heights, min_size=1, max_size=8, unique=True))
    key = push_bytes(pubkey_of(owner)[1:]) + bytes((OP_CHECKSIGVERIFY,))
    scripts = [
        key + push_number(height) + bytes((OP_CHECKLOCKTIMEVERIFY,)) for height in expiry_heights
    ]
    leaf_hashes = [tapleaf_hash(script) for script in scripts]
    internal_key = KeyAgg([pubkey_of(seckey) for seckey in cohort]).internal_key
    output = taproot_output(internal_key, merkle_root_of(leaf_hashes))
    prevout = TxOut(amount_sat=100_000, script_pubkey=output.script_pubkey)
    index = data.draw(st.integers(0, len(scripts) - 1))
    height = expiry_heights[index]

    def attempt(nlocktime: int, nsequence: int, control_block: bytes, *, flip: int = 0) -> Tx:
        tx = spend_of(prevout, nsequence=nsequence, nlocktime=nlocktime)
        digest = taproot_sighash(tx, prevouts=[prevout], input_index=0, tapscript=scripts[index])
        signature = bytearray(schnorr.sign(digest, owner))
        signature[flip // 8] ^= (flip > 0) << flip % 8
        return tx.with_witnesses((bytes(signature), scripts[index], control_block))

    control_block = output.control_block(merkle_path_of(leaf_hashes, index))
    check_scripts(attempt(height, NSEQUENCE_LOCKTIME, control_block), [prevout])
    assert_refused(attempt(height - 1, NSEQUENCE_LOCKTIME, control_block), prevout)
    assert_refused(attempt(height, 0xFFFF_FFFF, control_block), prevout)
    bit = data.draw(st.integers(1, 511))
    assert_refused(attempt(height, NSEQUENCE_LOCKTIME, control_block, flip=bit), prevout)
    for other in range(len(scripts)):
        if other != index:
            wrong = output.control_block(merkle_path_of(leaf_hashes, other))
            assert_refused(attempt(height, NSEQUENCE_LOCKTIME, wrong), prevout)


@settings(max_examples=30)
@given(owner=seckeys, delay_blocks=delays)
def test_a_relative_delay_holds_until_the_block_it_names(owner: bytes, delay_blocks: int) -> None:
    script = (
        push_bytes(pubkey_of(owner)[1:])
        + bytes((OP_CHECKSIGVERIFY,))
        + push_number(delay_blocks)
        + bytes((OP_CHECKSEQUENCEVERIFY,))
    )
    output = taproot_output(pubkey_of(b"\x01" * 32)[1:], tapleaf_hash(script))
    prevout = TxOut(amount_sat=100_000, script_pubkey=output.script_pubkey)

    def attempt(nsequence: int) -> Tx:
        tx = spend_of(prevout, nsequence=nsequence)
        digest = taproot_sighash(tx, prevouts=[prevout], input_index=0, tapscript=script)
        witness = (schnorr.sign(digest, owner), script, output.control_block())
        return tx.with_witnesses(witness)

    check_scripts(attempt(nsequence_of_delay(delay_blocks)), [prevout])
    assert_refused(attempt(nsequence_of_delay(delay_blocks - 1)), prevout)


@settings(max_examples=20)
@given(cohort=st.lists(seckeys, min_size=2, max_size=5, unique_by=pubkey_of), data=st.data())
def test_without_one_signer_the_coins_do_not_move(cohort: list[bytes], data: st.DataObject) -> None:
    key_agg = tweaked_key_agg(KeyAgg([pubkey_of(seckey) for seckey in cohort]), None)
    output = taproot_output(key_agg.internal_key, None)
    prevout = TxOut(amount_sat=100_000, script_pubkey=output.script_pubkey)
    tx = spend_of(prevout)
    digest = taproot_sighash(tx, prevouts=[prevout], input_index=0)
    missing = data.draw(st.sampled_from(cohort))
    others = [seckey for seckey in cohort if seckey != missing]
    assert_refused(tx.with_witnesses((sign_together(others, key_agg, digest),)), prevout)
