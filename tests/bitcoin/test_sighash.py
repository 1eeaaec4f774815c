"""BIP 341 digests, against the BIP's wallet vectors and two other libraries."""

from dataclasses import replace

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
from cromford.crypto.keys import pubkey_of, xonly_tweak_seckey

# BIP 341, wallet-test-vectors.json: the transaction, what it spends, and its one input that is
# signed with SIGHASH_DEFAULT.
UNSIGNED_TX = (
    "02000000097de20cbff686da83a54981d2b9bab3586f4ca7e48f57f5b55963115f3b334e9c0100000000000000"
    "00d7b7cab57b1393ace2d064f4d4a2cb8af6def61273e127517d44759b6dafdd990000000000fffffffff8e1f5"
    "83384333689228c5d28eac13366be082dc57441760d957275419a418420000000000fffffffff0689180aa63b3"
    "0cb162a73c6d2a38b7eeda2a83ece74310fda0843ad604853b0100000000feffffffaa5202bdf6d8ccd2ee0f02"
    "02afbbb7461d9264a25e5bfd3c5a52ee1239e0ba6c0000000000feffffff956149bdc66faa968eb2be2d2faa29"
    "718acbfe3941215893a2a3446d32acd050000000000000000000e664b9773b88c09c32cb70a2a3e4da0ced63b7"
    "ba3b22f848531bbb1d5d5f4c94010000000000000000e9aa6b8e6c9de67619e6a3924ae25696bb7b694bb677a6"
    "32a74ef7eadfd4eabf0000000000ffffffffa778eb6a263dc090464cd125c466b5a99667720b1c110468831d05"
    "8aa1b82af10100000000ffffffff0200ca9a3b000000001976a91406afd46bcdfd22ef94ac122aa11f241244a3"
    "7ecc88ac807840cb0000000020ac9a87f5594be208f8532db38cff670c450ed2fea8fcdefcc9a663f78bab962b"
    "0065cd1d"
)
PREVOUTS = [
    ("512053a1f6e454df1aa2776a2814a721372d6258050de330b3c6d10ee8f4e0dda343", 420000000),
    ("5120147c9c57132f6e7ecddba9800bb0c4449251c92a1e60371ee77557b6620f3ea3", 462000000),
    ("76a914751e76e8199196d454941c45d1b3a323f1433bd688ac", 294000000),
    ("5120e4d810fd50586274face62b8a807eb9719cef49c04177cc6b76a9a4251d5450e", 504000000),
    ("512091b64d5324723a985170e4dc5a0f84c041804f2cd12660fa5dec09fc21783605", 630000000),
    ("00147dd65592d0ab2fe0d0257d571abf032cd9db93dc", 378000000),
    ("512075169f4001aa68f15bbed28b218df1d0a62cbbcf1188c6665110c293c907b831", 672000000),
    ("5120712447206d7a5238acc7ff53fbe94a3b64539ad291c7cdbc490b7577e4b17df5", 546000000),
    ("512077e30a5522dd9f894c3f8b8bd4c4b2cf82ca7da8a3ea6a239655c39c050ab220", 588000000),
]
INPUT_INDEX = 4
INTERNAL_SECKEY = "f36bb07a11e469ce941d16b63b11b9b9120a84d9d87cff2c84a8d4affb438f4e"
MERKLE_ROOT = "ccbd66c6f7e8fdab47b3a486f59d28262be857f30d4773f2d5ea47f7761ce0e2"
TWEAKED_SECKEY = "a8e7aa924f0d58854185a490e6c41f6efb7b675c0f3331b7f14b549400b4d501"
SIGHASH = "4f900a0bae3f1446fd48490c2958b5a023228f01661cda3496a11da502a7f7ef"
SIGNATURE = (
    "b4010dd48a617db09926f729e79c33ae0b4e94b79f04a1ae93ede6315eb3669d"
    "e185a17d2b0ac9ee09fd4c64b678a0b61a0a86fa888a273c8511be83bfd6810f"
)

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


def test_the_wallet_vector_of_bip_341() -> None:
    tx = Tx.parse(bytes.fromhex(UNSIGNED_TX))
    spent = [
        TxOut(amount_sat=amount, script_pubkey=bytes.fromhex(script)) for script, amount in PREVOUTS
    ]
    sighash = taproot_sighash(tx, prevouts=spent, input_index=INPUT_INDEX)
    assert sighash.hex() == SIGHASH
    seckey = bytes.fromhex(INTERNAL_SECKEY)
    tweak = taptweak(pubkey_of(seckey)[1:], bytes.fromhex(MERKLE_ROOT))
    tweaked = xonly_tweak_seckey(seckey, tweak)
    assert tweaked.hex() == TWEAKED_SECKEY
    assert schnorr.sign(sighash, tweaked, aux_rand=bytes(32)).hex() == SIGNATURE
    assert schnorr.verify(bytes.fromhex(SIGNATURE), sighash, spent[INPUT_INDEX].script_pubkey[2:])


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
