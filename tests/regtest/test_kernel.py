from pathlib import Path

import pytest

from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.script import p2tr_script
from cromford.bitcoin.sighash import taproot_sighash
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto.keys import pubkey_of, xonly_of
from cromford.crypto.schnorr import sign
from cromford.regtest.genesis import genesis_block
from cromford.regtest.kernel import (
    SCRATCH_PREFIX,
    BlockRefused,
    KernelChain,
    ScriptRefused,
    check_scripts,
    delete_left_over,
)

SECKEY = bytes(31) + b"\x03"
PREVOUTS = [
    TxOut(amount_sat=amount_sat, script_pubkey=p2tr_script(xonly_of(pubkey_of(SECKEY))))
    for amount_sat in (1_000, 2_000)
]


def signed_tx() -> Tx:
    tx = Tx(
        version=2,
        inputs=tuple(
            TxIn(outpoint=OutPoint(txid=Txid(bytes([n]) * 32), vout=n), nsequence=0xFFFF_FFFD)
            for n in range(1, 3)
        ),
        outputs=(TxOut(amount_sat=2_500, script_pubkey=b"\x51"),),
    )
    digests = [taproot_sighash(tx, prevouts=PREVOUTS, input_index=index) for index in range(2)]
    return tx.with_witnesses(*((sign(digest, SECKEY),) for digest in digests))


def test_a_signed_transaction_passes_the_kernel() -> None:
    check_scripts(signed_tx(), PREVOUTS)


def test_the_kernel_names_the_first_input_it_refuses() -> None:
    tx = signed_tx()
    witnesses = [tx_in.witness for tx_in in tx.inputs]
    with pytest.raises(ScriptRefused, match="input 1") as caught:
        check_scripts(tx.with_witnesses(witnesses[0], witnesses[0]), PREVOUTS)
    assert caught.value.input_index == 1


def test_the_kernel_refuses_a_signature_over_another_amount() -> None:
    lied = TxOut(amount_sat=1_001, script_pubkey=PREVOUTS[0].script_pubkey)
    with pytest.raises(ScriptRefused, match="input 0"):
        check_scripts(signed_tx(), [lied, PREVOUTS[1]])


def test_every_input_needs_its_prevout() -> None:
    with pytest.raises(ValueError, match="2 inputs and 1 prevouts"):
        check_scripts(signed_tx(), PREVOUTS[:1])


def test_a_chain_begins_with_regtests_genesis_block(tmp_path: Path) -> None:
    chain = KernelChain(tmp_path)
    assert chain.tip_hash() == REGTEST.genesis_hash == genesis_block().header.block_hash
    chain.close()


def test_a_closed_chain_leaves_nothing_on_disk(tmp_path: Path) -> None:
    chain = KernelChain(tmp_path)
    assert list(tmp_path.glob(f"{SCRATCH_PREFIX}*"))
    chain.close()
    chain.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{SCRATCH_PREFIX}x" / "blocks").mkdir(parents=True)
    (tmp_path / "blocks.dat").write_bytes(b"kept")
    delete_left_over(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["blocks.dat"]


@pytest.mark.parametrize("raw", [b"", b"\x00" * 100, genesis_block().raw[:-1]])
def test_bytes_that_are_no_block_are_refused(tmp_path: Path, raw: bytes) -> None:
    chain = KernelChain(tmp_path)
    with pytest.raises(BlockRefused):
        chain.connect(raw, b"\x01" * 32)
    assert chain.tip_hash() == REGTEST.genesis_hash
    chain.close()
