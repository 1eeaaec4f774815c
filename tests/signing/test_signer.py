"""The holder of the secrets: its pools, its keys, and wallet inputs that Bitcoin Core accepts."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.script import p2tr_script
from cromford.bitcoin.taproot import tapleaf_hash, taproot_output, tweaked_key_agg
from cromford.bitcoin.timelocked import LockKind, Timelock
from cromford.bitcoin.tx import OutPoint, Tx, Txid, TxIn, TxOut
from cromford.crypto import schnorr
from cromford.crypto.keys import TaggedHash, pubkey_of, xonly_of
from cromford.crypto.musig2 import KeyAgg, nonce_agg
from cromford.regtest.kernel import ScriptRefused, check_scripts
from cromford.signing import signer as signer_module
from cromford.signing.keychain import ChannelKey, FactoryKey, Keychain, KeyName
from cromford.signing.nonces import NonceFault, NoPoolFree
from cromford.signing.signer import Signer
from cromford.signing.task import SigningTask

KEYCHAIN = Keychain(bytes(range(16)), REGTEST, journal_number=1)
FACTORY = FactoryKey(attempt=2)
CHANNEL = ChannelKey(attempt=2, channel=1)


@pytest.fixture
def signer() -> Signer:
    return Signer(KEYCHAIN)


def task_for(pubkey: bytes) -> SigningTask:
    return SigningTask(
        name="state_0", sighash=b"\x11" * 32, key_agg=tweaked_key_agg(KeyAgg((pubkey,)), None)
    )


def script(change: int, index: int) -> bytes:
    pubkey = KEYCHAIN.wallet_account.child(change).child(index).pubkey
    return taproot_output(xonly_of(pubkey), None).script_pubkey


def test_public_keys_are_the_keychains(signer: Signer) -> None:
    assert signer.factory_pubkey(2) == pubkey_of(KEYCHAIN.seckey(FACTORY))
    assert signer.channel_pubkeys(CHANNEL) == KEYCHAIN.channel_pubkeys(CHANNEL)


@pytest.mark.parametrize("name", [FACTORY, CHANNEL])
def test_a_pool_signs_with_the_key_it_is_named_for(signer: Signer, name: KeyName) -> None:
    public = signer.make_pool(name, 2)
    assert public.pubkey == pubkey_of(KEYCHAIN.seckey(name))
    task = task_for(public.pubkey)
    aggnonce = nonce_agg([public.pubnonces[1]])
    partial_sig = signer.partial_sign(public.pool_id, 1, task, aggnonce)
    assert partial_sig == signer.partial_sign(public.pool_id, 1, task, aggnonce)
    signature = task.session(aggnonce).partial_sig_agg([partial_sig])
    assert schnorr.verify(signature, task.sighash, task.key_agg.output_key)


def test_a_pool_binds_its_nonces_through_the_signer_too(signer: Signer) -> None:
    public = signer.make_pool(FACTORY, 1)
    aggnonce = nonce_agg(public.pubnonces)
    signer.partial_sign(public.pool_id, 0, task_for(public.pubkey), aggnonce)
    other = replace(task_for(public.pubkey), sighash=b"\x12" * 32)
    with pytest.raises(NonceFault, match="bound to session state_0"):
        signer.partial_sign(public.pool_id, 0, other, aggnonce)
    with pytest.raises(NonceFault, match="nonce 1 of a pool of 1"):
        signer.partial_sign(public.pool_id, 1, other, aggnonce)


def test_a_malformed_aggregate_nonce_leaves_the_nonce_usable(signer: Signer) -> None:
    public = signer.make_pool(FACTORY, 1)
    task = task_for(public.pubkey)
    with pytest.raises(ValueError, match="nonce"):
        signer.partial_sign(public.pool_id, 0, task, b"\x05" * 66)
    assert len(signer.partial_sign(public.pool_id, 0, task, nonce_agg(public.pubnonces))) == 32


def test_a_dropped_pool_is_gone_and_others_stay(signer: Signer) -> None:
    gone, kept = signer.make_pool(FACTORY, 1), signer.make_pool(FACTORY, 1)
    held = signer._pools[gone.pool_id]
    signer.drop_pool(gone.pool_id)
    signer.drop_pool(gone.pool_id)
    assert repr(held) == "NoncePool(0 nonces, secret)"
    task = task_for(gone.pubkey)
    with pytest.raises(NonceFault, match="the nonce pool was dropped"):
        signer.partial_sign(gone.pool_id, 0, task, nonce_agg(gone.pubnonces))
    assert signer.partial_sign(kept.pool_id, 0, task, nonce_agg(kept.pubnonces))


def test_a_pool_nobody_made_signs_nothing(signer: Signer) -> None:
    with pytest.raises(NonceFault, match="the nonce pool was dropped"):
        signer.partial_sign(bytes(32), 0, task_for(signer.factory_pubkey(2)), bytes(66))


def test_there_are_only_so_many_pools_at_once(
    signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert signer_module.N_POOLS_SPARE == 12_288
    monkeypatch.setattr(signer_module, "N_POOLS_SPARE", 3)
    pools = [signer.make_pool(FACTORY, 1) for _ in range(3)]
    with pytest.raises(NoPoolFree, match="3 nonce pools are held"):
        signer.make_pool(FACTORY, 1)
    signer.drop_pool(pools[0].pool_id)
    signer.make_pool(FACTORY, 1)


def test_a_pool_in_the_place_of_another_is_never_one_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signer_module, "N_POOLS_SPARE", 0)
    signer = Signer(KEYCHAIN, n_channels=lambda: 1)
    first = signer.make_pool(FACTORY, 1)
    second = signer.make_pool(FACTORY, 1, after=first.pool_id)
    signer.drop_pool(first.pool_id)
    with pytest.raises(NoPoolFree):
        signer.make_pool(FACTORY, 1, after=first.pool_id)
    signer.make_pool(FACTORY, 1, after=second.pool_id)


def test_every_live_channel_has_room_for_its_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signer_module, "N_POOLS_SPARE", 2)
    n_channels = 5
    signer = Signer(KEYCHAIN, n_channels=lambda: n_channels)
    for _ in range(7):
        signer.make_pool(FACTORY, 1)
    with pytest.raises(NoPoolFree):
        signer.make_pool(FACTORY, 1)
    n_channels = 6
    signer.make_pool(FACTORY, 1)


@pytest.mark.parametrize("size", [0, 4097])
def test_a_pool_of_a_wrong_size_is_refused_and_not_kept(signer: Signer, size: int) -> None:
    with pytest.raises(ValueError, match=f"received {size}"):
        signer.make_pool(FACTORY, size)
    assert signer._pools == {}


def test_a_move_is_signed_by_the_named_factory_key_under_its_own_tag(signer: Signer) -> None:
    signature = signer.sign_move(FACTORY, b"statement")
    digest = TaggedHash("cromford/move")(b"statement")
    assert schnorr.verify(signature, digest, xonly_of(signer.factory_pubkey(2)))
    assert not schnorr.verify(signature, digest, xonly_of(signer.factory_pubkey(3)))


LOCKS = [
    Timelock(kind=LockKind.AFTER, number=200),
    Timelock(kind=LockKind.OLDER, number=144),
]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.kind)
def test_a_timelocked_script_of_the_factory_key_is_spent_and_nothing_else(
    signer: Signer, lock: Timelock
) -> None:
    own = xonly_of(signer.factory_pubkey(2))
    leaf = lock.script(own)
    output = taproot_output(own, tapleaf_hash(leaf))
    prevout = TxOut(amount_sat=10_000, script_pubkey=output.script_pubkey)
    outpoint = OutPoint(txid=Txid(b"\x05" * 32), vout=0)
    tx = Tx(
        version=2,
        inputs=(TxIn(outpoint=outpoint, nsequence=lock.nsequence),),
        outputs=(TxOut(amount_sat=9_000, script_pubkey=script(0, 1)),),
        nlocktime=lock.nlocktime,
    )
    signature = signer.sign_timelocked(FACTORY, lock, tx, (prevout,))
    check_scripts(tx.with_witnesses((signature, leaf, output.control_block())), [prevout])
    # The key itself as a key path, with and without the tweak: the digest is never of that kind.
    for key in (own, output.output_key):
        bare = replace(prevout, script_pubkey=p2tr_script(key))
        as_key_path = signer.sign_timelocked(FACTORY, lock, tx, (bare,))
        with pytest.raises(ScriptRefused):
            check_scripts(tx.with_witnesses((as_key_path,)), [bare])
    # Another timelock is another script, and the key of another attempt another key.
    others = (
        signer.sign_timelocked(FACTORY, replace(lock, number=lock.number + 1), tx, (prevout,)),
        signer.sign_timelocked(FactoryKey(attempt=3), lock, tx, (prevout,)),
    )
    for other in others:
        with pytest.raises(ScriptRefused):
            check_scripts(tx.with_witnesses((other, leaf, output.control_block())), [prevout])


def test_each_key_signs_its_own_input_of_a_transaction_of_several(signer: Signer) -> None:
    names = [FactoryKey(attempt=2), FactoryKey(attempt=5)]
    locks = [Timelock(kind=LockKind.AFTER, number=900), Timelock(kind=LockKind.OLDER, number=7)]
    owns = [xonly_of(signer.factory_pubkey(name.attempt)) for name in names]
    leaves = [lock.script(own) for lock, own in zip(locks, owns, strict=True)]
    outputs = [
        taproot_output(own, tapleaf_hash(leaf)) for own, leaf in zip(owns, leaves, strict=True)
    ]
    prevouts = [TxOut(amount_sat=10_000, script_pubkey=one.script_pubkey) for one in outputs]
    tx = Tx(
        version=2,
        inputs=tuple(
            TxIn(
                outpoint=OutPoint(txid=Txid(bytes((place + 1,)) * 32), vout=0),
                nsequence=lock.nsequence,
            )
            for place, lock in enumerate(locks)
        ),
        outputs=(TxOut(amount_sat=19_000, script_pubkey=script(0, 1)),),
        nlocktime=900,
    )

    def witnesses(*places: int) -> list[tuple[bytes, ...]]:
        return [
            (
                signer.sign_timelocked(name, lock, tx, prevouts, input_index=place),
                leaf,
                output.control_block(),
            )
            for name, lock, leaf, output, place in zip(
                names, locks, leaves, outputs, places, strict=True
            )
        ]

    check_scripts(tx.with_witnesses(*witnesses(0, 1)), prevouts)
    for wrong in ((0, 0), (1, 1), (1, 0)):
        with pytest.raises(ScriptRefused):
            check_scripts(tx.with_witnesses(*witnesses(*wrong)), prevouts)


@pytest.mark.parametrize(
    "refused",
    [Timelock(kind=LockKind.AFTER, number=-1), Timelock(kind=LockKind.AFTER, number=1 << 39)],
)
def test_a_timelock_that_no_script_can_say_is_not_signed(signer: Signer, refused: Timelock) -> None:
    tx = Tx(version=2, inputs=(), outputs=())
    with pytest.raises(ValueError, match=f"received {refused.number}"):
        signer.sign_timelocked(FACTORY, refused, tx, ())


wallet_inputs = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 50), st.integers(1_000, 10**12)),
    min_size=1,
    max_size=5,
)


def spending(prevouts: list[TxOut]) -> Tx:
    return Tx(
        version=2,
        inputs=tuple(
            TxIn(outpoint=OutPoint(txid=Txid(bytes((vout,)) * 32), vout=vout), nsequence=0)
            for vout in range(len(prevouts))
        ),
        outputs=(TxOut(amount_sat=700, script_pubkey=script(0, 0)),),
    )


@settings(max_examples=25)
@given(inputs=wallet_inputs, data=st.data())
def test_the_kernel_accepts_every_wallet_signature_and_only_for_what_was_signed(
    inputs: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    prevouts = [TxOut(amount_sat=sat, script_pubkey=script(c, i)) for c, i, sat in inputs]
    unsigned = spending(prevouts)
    signed = Signer(KEYCHAIN).sign_wallet_tx(unsigned, prevouts, [(c, i) for c, i, _ in inputs])
    assert signed.txid == unsigned.txid
    check_scripts(signed, prevouts)
    place = data.draw(st.integers(0, len(inputs) - 1))
    other = replace(prevouts[place], amount_sat=prevouts[place].amount_sat + 1)
    with pytest.raises(ScriptRefused):
        check_scripts(signed, [*prevouts[:place], other, *prevouts[place + 1 :]])


def test_the_inputs_of_others_keep_their_witness() -> None:
    prevouts = [TxOut(amount_sat=5_000, script_pubkey=script(0, i)) for i in range(3)]
    theirs = (b"their", b"witness")
    tx = spending(prevouts).with_witnesses((b"old",), theirs, ())
    signed = Signer(KEYCHAIN).sign_wallet_tx(tx, prevouts, [(0, 0), None, None])
    assert [tx_in.witness for tx_in in signed.inputs[1:]] == [theirs, ()]
    assert len(signed.inputs[0].witness[0]) == 64


def test_every_input_needs_a_path_or_none() -> None:
    prevouts = [TxOut(amount_sat=5_000, script_pubkey=script(0, 0))] * 2
    with pytest.raises(ValueError, match="zip"):
        Signer(KEYCHAIN).sign_wallet_tx(spending(prevouts), prevouts, [(0, 0)])


def test_a_factory_key_signs_for_an_output_that_pays_it_alone_and_for_no_other(
    signer: Signer,
) -> None:
    """BIP 86: what a poison pays. No output of several keys, and no other key's."""
    internal_key = xonly_of(KEYCHAIN.pubkey(FACTORY))
    own = TxOut(amount_sat=9_000, script_pubkey=taproot_output(internal_key, None).script_pubkey)
    tx = Tx(
        version=3,
        inputs=tuple(
            TxIn(outpoint=OutPoint(txid=Txid(bytes(32)), vout=vout), nsequence=0xFFFFFFFD)
            for vout in range(2)
        ),
        outputs=(TxOut(amount_sat=17_000, script_pubkey=script(0, 1)),),
    )
    prevouts = (own, own)
    signatures = [
        signer.sign_payout(FACTORY, tx, prevouts, input_index=index) for index in range(2)
    ]
    check_scripts(tx.with_witnesses(*((signature,) for signature in signatures)), [*prevouts])
    others = (
        tweaked_key_agg(KeyAgg((KEYCHAIN.pubkey(FACTORY), pubkey_of(b"\x02" * 32))), None),
        tweaked_key_agg(KeyAgg((KEYCHAIN.pubkey(CHANNEL),)), None),
        tweaked_key_agg(KeyAgg((KEYCHAIN.pubkey(FACTORY),)), tapleaf_hash(b"\x51")),
    )
    for key_agg in others:
        other = TxOut(amount_sat=9_000, script_pubkey=p2tr_script(key_agg.output_key))
        with pytest.raises(ValueError, match="script_pubkey: expected"):
            signer.sign_payout(FACTORY, tx, (own, other), input_index=1)
