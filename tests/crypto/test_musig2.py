"""BIP 327: the BIP's vectors, a second implementation in integers, and whole sessions.

`KeyAgg` sorts its keys, refuses a repeated one and takes one x-only tweak, because a factory
needs no more. Where a vector needs another order or more tweaks, its aggregate is made with
libsecp256k1 and put under our `Session`; what our `KeyAgg` does with the same keys is asserted
beside it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from btclib_secp256k1 import musig
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.crypto.integers import ORDER, aggregate

from cromford.crypto import musig2, schnorr
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import pubkey_of, xonly_tweak
from cromford.crypto.musig2 import (
    AggregateKey,
    InvalidContribution,
    KeyAgg,
    SecNonce,
    Session,
)

seckeys = st.integers(1, ORDER - 1).map(lambda scalar: scalar.to_bytes(32, "big"))
cohorts = st.lists(seckeys, min_size=1, max_size=8, unique_by=pubkey_of)
messages = st.binary(min_size=32, max_size=32)
tweaks = st.one_of(st.none(), seckeys)
Vectors = Callable[[str], Any]


# --- BIP 327 key aggregation once more, in integers -------------------------------------------


def aggregate_in_integers(pubkeys: Sequence[bytes]) -> bytes:
    total = aggregate(pubkeys)
    assert total is not None
    return total[0].to_bytes(32, "big")


# --- the vectors ------------------------------------------------------------------------------


def from_hex(vectors: dict[str, Any], field: str, indices: Sequence[int]) -> list[bytes]:
    return [bytes.fromhex(vectors[field][index]) for index in indices]


def unsorted_key_agg(pubkeys: Sequence[bytes], tweaked: Sequence[tuple[bytes, bool]]) -> KeyAgg:
    """Put an aggregate of any order and any tweaks where our `Session` looks for its own."""
    key_agg = KeyAgg(pubkeys)
    cache = musig.KeyAggCache(pubkeys)
    for tweak, is_xonly in tweaked:
        (cache.pubkey_xonly_tweak_add if is_xonly else cache.pubkey_ec_tweak_add)(tweak)
    key_agg._cache = cache._cache_()
    key_agg.output_key = cache.pubkey_get()[1:]
    return key_agg


def test_key_sort_vectors(json_vectors: Vectors) -> None:
    vectors = json_vectors("bip327/key_sort_vectors.json")
    unsorted = from_hex(vectors, "pubkeys", range(len(vectors["pubkeys"])))
    expected = from_hex(vectors, "sorted_pubkeys", range(len(vectors["sorted_pubkeys"])))
    assert musig2.key_sort(unsorted) == tuple(expected)


def test_key_agg_vectors_hold_and_ours_sorts_first_and_refuses_repeats(
    json_vectors: Vectors,
) -> None:
    vectors = json_vectors("bip327/key_agg_vectors.json")
    cases = vectors["valid_test_cases"]
    for case in cases:
        pubkeys = from_hex(vectors, "pubkeys", case["key_indices"])
        expected = bytes.fromhex(case["expected"])
        assert musig.KeyAggCache(pubkeys).agg_pubkey == expected
        assert aggregate_in_integers(pubkeys) == expected
        if len(set(pubkeys)) < len(pubkeys):
            with pytest.raises(ValueError, match="two signers with one pubkey"):
                KeyAgg(pubkeys)
        else:
            assert KeyAgg(pubkeys).internal_key == aggregate_in_integers(sorted(pubkeys))
    assert len(cases) == 4


def test_key_agg_vectors_name_the_invalid_pubkey_by_its_sorted_place(json_vectors: Vectors) -> None:
    vectors = json_vectors("bip327/key_agg_vectors.json")
    n_refused = 0
    for case in vectors["error_test_cases"]:
        pubkeys = from_hex(vectors, "pubkeys", case["key_indices"])
        if case["error"]["type"] != "invalid_contribution":
            continue
        with pytest.raises(InvalidContribution) as refused:
            KeyAgg(pubkeys)
        culprit = pubkeys[case["error"]["signer"]]
        assert sorted(pubkeys)[refused.value.signer_index] == culprit
        assert refused.value.contribution == case["error"]["contrib"]
        n_refused += 1
    assert n_refused == 3


def test_key_agg_vectors_refuse_a_tweak_of_the_order_and_beyond(json_vectors: Vectors) -> None:
    vectors = json_vectors("bip327/key_agg_vectors.json")
    case = vectors["error_test_cases"][3]
    key_agg = KeyAgg(from_hex(vectors, "pubkeys", case["key_indices"]))
    (tweak,) = from_hex(vectors, "tweaks", case["tweak_indices"])
    with pytest.raises(ValueError, match="tweak"):
        key_agg.tweaked(tweak)
    assert key_agg.output_key == key_agg.internal_key


def test_key_agg_vectors_refuse_a_tweak_to_infinity(json_vectors: Vectors) -> None:
    """The vector's tweak is a plain one: an x-only tweak of it or of its negative is infinity."""
    vectors = json_vectors("bip327/key_agg_vectors.json")
    case = vectors["error_test_cases"][4]
    pubkeys = from_hex(vectors, "pubkeys", case["key_indices"])
    (tweak,) = from_hex(vectors, "tweaks", case["tweak_indices"])
    negated = (ORDER - int.from_bytes(tweak, "big")).to_bytes(32, "big")
    refused = 0
    for candidate in (tweak, negated):
        try:
            KeyAgg(pubkeys).tweaked(candidate)
        except ValueError:
            refused += 1
    assert refused == 1


def test_nonce_agg_vectors(json_vectors: Vectors) -> None:
    vectors = json_vectors("bip327/nonce_agg_vectors.json")
    for case in vectors["valid_test_cases"]:
        aggnonce = musig2.nonce_agg(from_hex(vectors, "pnonces", case["pnonce_indices"]))
        assert aggnonce == bytes.fromhex(case["expected"])
        assert musig2.is_aggnonce(aggnonce)
    for case in vectors["error_test_cases"]:
        pubnonces = from_hex(vectors, "pnonces", case["pnonce_indices"])
        with pytest.raises(InvalidContribution) as refused:
            musig2.nonce_agg(pubnonces)
        assert refused.value.signer_index == case["error"]["signer"]
        assert refused.value.contribution == case["error"]["contrib"]
        assert not musig2.is_pubnonce(pubnonces[case["error"]["signer"]])
    assert (len(vectors["valid_test_cases"]), len(vectors["error_test_cases"])) == (2, 3)


def session_of_vector(vectors: dict[str, Any], case: dict[str, Any]) -> tuple[Session, KeyAgg]:
    tweaked = zip(from_hex(vectors, "tweaks", case["tweak_indices"]), case["is_xonly"], strict=True)
    key_agg = unsorted_key_agg(from_hex(vectors, "pubkeys", case["key_indices"]), list(tweaked))
    aggnonce = musig2.nonce_agg(from_hex(vectors, "pnonces", case["nonce_indices"]))
    assert aggnonce == bytes.fromhex(case["aggnonce"])
    message = bytes.fromhex(vectors["msg"])
    return Session(key_agg=key_agg, aggnonce=aggnonce, message=message), key_agg


def test_sig_agg_vectors(json_vectors: Vectors) -> None:
    vectors = json_vectors("bip327/sig_agg_vectors.json")
    for case in vectors["valid_test_cases"]:
        session, key_agg = session_of_vector(vectors, case)
        partial_sigs = from_hex(vectors, "psigs", case["psig_indices"])
        contributions = zip(
            partial_sigs,
            from_hex(vectors, "pnonces", case["nonce_indices"]),
            from_hex(vectors, "pubkeys", case["key_indices"]),
            strict=True,
        )
        for partial_sig, pubnonce, pubkey in contributions:
            assert session.partial_sig_verify(
                partial_sig=partial_sig, pubnonce=pubnonce, pubkey=pubkey
            )
        signature = session.partial_sig_agg(partial_sigs)
        assert signature == bytes.fromhex(case["expected"])
        assert schnorr.verify(signature, bytes.fromhex(vectors["msg"]), key_agg.output_key)
    assert len(vectors["valid_test_cases"]) == 4


def test_sig_agg_vectors_name_the_partial_sig_beyond_the_order(json_vectors: Vectors) -> None:
    vectors = json_vectors("bip327/sig_agg_vectors.json")
    (case,) = vectors["error_test_cases"]
    session, _ = session_of_vector(vectors, case)
    partial_sigs = from_hex(vectors, "psigs", case["psig_indices"])
    with pytest.raises(InvalidContribution) as refused:
        session.partial_sig_agg(partial_sigs)
    assert refused.value.signer_index == case["error"]["signer"]
    assert refused.value.contribution == "partial_sig"


def test_sign_verify_vectors(json_vectors: Vectors) -> None:
    """The verifying half: a partial signature is its signer's for exactly this session."""
    vectors = json_vectors("bip327/sign_verify_vectors.json")
    n_refused = 0
    for case in vectors["valid_test_cases"]:
        pubkeys = from_hex(vectors, "pubkeys", case["key_indices"])
        pubnonces = from_hex(vectors, "pnonces", case["nonce_indices"])
        message = bytes.fromhex(vectors["msgs"][case["msg_index"]])
        key_agg, aggnonce = unsorted_key_agg(pubkeys, []), musig2.nonce_agg(pubnonces)
        assert aggnonce == bytes.fromhex(vectors["aggnonces"][case["aggnonce_index"]])
        if len(message) != 32:  # BIP 327 allows it; here a message is a digest.
            with pytest.raises(ValueError, match="32"):
                Session(key_agg=key_agg, aggnonce=aggnonce, message=message)
            n_refused += 1
            continue
        session = Session(key_agg=key_agg, aggnonce=aggnonce, message=message)
        for signer, (pubnonce, pubkey) in enumerate(zip(pubnonces, pubkeys, strict=True)):
            assert session.partial_sig_verify(
                partial_sig=bytes.fromhex(case["expected"]), pubnonce=pubnonce, pubkey=pubkey
            ) is (signer == case["signer_index"])
    assert (len(vectors["valid_test_cases"]), n_refused) == (6, 2)


def test_sign_verify_vectors_that_must_fail(json_vectors: Vectors) -> None:
    vectors = json_vectors("bip327/sign_verify_vectors.json")
    for case in vectors["verify_fail_test_cases"]:
        pubkeys = from_hex(vectors, "pubkeys", case["key_indices"])
        pubnonces = from_hex(vectors, "pnonces", case["nonce_indices"])
        session = Session(
            key_agg=unsorted_key_agg(pubkeys, []),
            aggnonce=musig2.nonce_agg(pubnonces),
            message=bytes.fromhex(vectors["msgs"][case["msg_index"]]),
        )
        assert not session.partial_sig_verify(
            partial_sig=bytes.fromhex(case["sig"]),
            pubnonce=pubnonces[case["signer_index"]],
            pubkey=pubkeys[case["signer_index"]],
        ), case["comment"]
    assert len(vectors["verify_fail_test_cases"]) == 3


def test_sign_verify_vectors_name_a_malformed_contribution(json_vectors: Vectors) -> None:
    vectors = json_vectors("bip327/sign_verify_vectors.json")
    for case in vectors["verify_error_test_cases"]:
        pubkeys = from_hex(vectors, "pubkeys", case["key_indices"])
        pubnonces = from_hex(vectors, "pnonces", case["nonce_indices"])
        signer = case["error"]["signer"]
        if case["error"]["contrib"] == "pubkey":
            with pytest.raises(InvalidContribution) as refused:
                KeyAgg(pubkeys)
            signer = sorted(pubkeys).index(pubkeys[signer])  # `KeyAgg` counts by the sorted place.
        else:
            with pytest.raises(InvalidContribution) as refused:
                musig2.nonce_agg(pubnonces)
        assert refused.value.contribution == case["error"]["contrib"]
        assert refused.value.signer_index == signer
    assert len(vectors["verify_error_test_cases"]) == 2


def test_sign_verify_vectors_refuse_a_malformed_aggregate_nonce(json_vectors: Vectors) -> None:
    """The signing half's other cases are about secret nonces, which nobody hands in here."""
    vectors = json_vectors("bip327/sign_verify_vectors.json")
    cases = [
        case
        for case in vectors["sign_error_test_cases"]
        if case["error"].get("contrib") == "aggnonce"
    ]
    for case in cases:
        aggnonce = bytes.fromhex(vectors["aggnonces"][case["aggnonce_index"]])
        key_agg = KeyAgg(from_hex(vectors, "pubkeys", case["key_indices"]))
        assert not musig2.is_aggnonce(aggnonce)
        with pytest.raises(ValueError, match="invalid aggregate nonce"):
            Session(key_agg=key_agg, aggnonce=aggnonce, message=bytes(32))
    assert len(cases) == 3


def test_tweak_vectors(json_vectors: Vectors) -> None:
    vectors = json_vectors("bip327/tweak_vectors.json")
    for case in vectors["valid_test_cases"]:
        pubkeys = from_hex(vectors, "pubkeys", case["key_indices"])
        pubnonces = from_hex(vectors, "pnonces", case["nonce_indices"])
        tweaked = zip(
            from_hex(vectors, "tweaks", case["tweak_indices"]), case["is_xonly"], strict=True
        )
        aggnonce = musig2.nonce_agg(pubnonces)
        assert aggnonce == bytes.fromhex(vectors["aggnonce"])
        session = Session(
            key_agg=unsorted_key_agg(pubkeys, list(tweaked)),
            aggnonce=aggnonce,
            message=bytes.fromhex(vectors["msg"]),
        )
        assert session.partial_sig_verify(
            partial_sig=bytes.fromhex(case["expected"]),
            pubnonce=pubnonces[case["signer_index"]],
            pubkey=pubkeys[case["signer_index"]],
        ), case["comment"]
    assert len(vectors["valid_test_cases"]) == 5


def test_tweak_vectors_refuse_a_tweak_of_the_order(json_vectors: Vectors) -> None:
    vectors = json_vectors("bip327/tweak_vectors.json")
    (case,) = vectors["error_test_cases"]
    (tweak,) = from_hex(vectors, "tweaks", case["tweak_indices"])
    key_agg = KeyAgg(from_hex(vectors, "pubkeys", case["key_indices"]))
    with pytest.raises(ValueError, match="tweak"):
        key_agg.tweaked(tweak)


# --- properties -------------------------------------------------------------------------------


@settings(max_examples=25)
@given(cohort=cohorts, data=st.data())
def test_the_aggregate_is_bip_327s_and_does_not_depend_on_the_order(
    cohort: list[bytes], data: st.DataObject
) -> None:
    pubkeys = [pubkey_of(seckey) for seckey in cohort]
    key_agg = KeyAgg(data.draw(st.permutations(pubkeys)))
    assert key_agg.pubkeys == tuple(sorted(pubkeys))
    assert key_agg.internal_key == key_agg.output_key == aggregate_in_integers(sorted(pubkeys))


@given(cohort=cohorts, tweak=seckeys)
def test_a_tweaked_aggregate_is_the_tweaked_internal_key_and_only_once(
    cohort: list[bytes], tweak: bytes
) -> None:
    key_agg = KeyAgg([pubkey_of(seckey) for seckey in cohort])
    tweaked = key_agg.tweaked(tweak)
    assert tweaked.internal_key == key_agg.internal_key == key_agg.output_key
    assert tweaked.output_key == xonly_tweak(key_agg.internal_key, tweak)[0]
    with pytest.raises(ValueError, match="already tweaked"):
        tweaked.tweaked(tweak)


@given(cohort=cohorts, tweak=seckeys)
def test_an_aggregate_equals_another_of_the_same_keys_and_the_same_tweak(
    cohort: list[bytes], tweak: bytes
) -> None:
    key_agg, again = (
        KeyAgg([pubkey_of(seckey) for seckey in keys]) for keys in (cohort, cohort[::-1])
    )
    assert key_agg == again
    assert hash(key_agg) == hash(again)
    assert key_agg.tweaked(tweak) == again.tweaked(tweak) != key_agg
    assert key_agg != key_agg.pubkeys


def test_a_tweak_of_zero_is_a_tweak_too() -> None:
    tweaked = KeyAgg([pubkey_of(bytes(31) + b"\x01")]).tweaked(bytes(32))
    with pytest.raises(ValueError, match="already tweaked"):
        tweaked.tweaked(bytes(31) + b"\x01")


def test_nobody_aggregates_to_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        KeyAgg([])
    with pytest.raises(ValueError, match="at least one"):
        musig2.nonce_agg([])


class Cohort:
    """Signers of one message, each with a fresh nonce."""

    def __init__(self, cohort: Sequence[bytes], message: bytes, tweak: bytes | None) -> None:
        self.seckeys = cohort
        self.pubkeys = [pubkey_of(seckey) for seckey in cohort]
        self.key_agg = KeyAgg(self.pubkeys)
        if tweak is not None:
            self.key_agg = self.key_agg.tweaked(tweak)
        self.nonces = [SecNonce(Keypair(seckey)) for seckey in cohort]
        self.pubnonces = [nonce.pubnonce for nonce in self.nonces]
        self.session = Session(
            key_agg=self.key_agg, aggnonce=musig2.nonce_agg(self.pubnonces), message=message
        )

    def sign(self) -> list[bytes]:
        return [nonce.sign(self.session) for nonce in self.nonces]

    def culprits(self, partial_sigs: Sequence[bytes]) -> list[int]:
        contributions = zip(partial_sigs, self.pubnonces, self.pubkeys, strict=True)
        return [
            index
            for index, (partial_sig, pubnonce, pubkey) in enumerate(contributions)
            if not self.session.partial_sig_verify(
                partial_sig=partial_sig, pubnonce=pubnonce, pubkey=pubkey
            )
        ]


@settings(max_examples=30)
@given(cohort=cohorts, message=messages, tweak=tweaks, data=st.data())
def test_everybody_together_signs_in_any_order_for_the_output_key(
    cohort: list[bytes], message: bytes, tweak: bytes | None, data: st.DataObject
) -> None:
    signing = Cohort(cohort, message, tweak)
    partial_sigs = signing.sign()
    assert signing.culprits(partial_sigs) == []
    signature = signing.session.partial_sig_agg(data.draw(st.permutations(partial_sigs)))
    assert schnorr.verify(signature, message, signing.key_agg.output_key)
    if tweak is not None:
        assert not schnorr.verify(signature, message, signing.key_agg.internal_key)
    if len(cohort) > 1:
        for pubkey in signing.pubkeys:
            assert not schnorr.verify(signature, message, pubkey[1:])
        without_one = signing.session.partial_sig_agg(partial_sigs[1:])
        assert not schnorr.verify(without_one, message, signing.key_agg.output_key)


@settings(max_examples=30)
@given(
    cohort=cohorts,
    message=messages,
    tweak=tweaks,
    culprit=st.integers(0, 7),
    bit=st.integers(0, 255),
)
def test_a_changed_partial_sig_names_its_signer_and_nobody_else(
    cohort: list[bytes],
    message: bytes,
    tweak: bytes | None,
    culprit: int,
    bit: int,
) -> None:
    signing = Cohort(cohort, message, tweak)
    partial_sigs = signing.sign()
    culprit %= len(cohort)
    changed = bytearray(partial_sigs[culprit])
    changed[bit // 8] ^= 1 << bit % 8
    partial_sigs[culprit] = bytes(changed)
    assert signing.culprits(partial_sigs) == [culprit]
    if musig2.is_partial_sig(bytes(changed)):
        signature = signing.session.partial_sig_agg(partial_sigs)
        assert not schnorr.verify(signature, message, signing.key_agg.output_key)
    else:
        with pytest.raises(InvalidContribution) as refused:
            signing.session.partial_sig_agg(partial_sigs)
        assert refused.value.signer_index == culprit


@settings(max_examples=20)
@given(cohort=cohorts, message=messages)
def test_a_partial_sig_is_valid_for_its_signer_only(cohort: list[bytes], message: bytes) -> None:
    signing = Cohort(cohort, message, None)
    partial_sigs = signing.sign()
    rotated = partial_sigs[1:] + partial_sigs[:1]
    assert signing.culprits(rotated) == (list(range(len(cohort))) if len(cohort) > 1 else [])


def test_a_partial_sig_of_another_message_is_invalid() -> None:
    cohort = [bytes(31) + bytes((scalar,)) for scalar in (1, 2, 3)]
    signing, other = (Cohort(cohort, bytes((n,)) * 32, None) for n in (1, 2))
    assert signing.culprits(other.sign()) == [0, 1, 2]


@given(data=st.binary(max_size=70))
def test_every_check_answers_for_any_bytes(data: bytes) -> None:
    signing = ONE_SIGNER
    assert musig2.is_pubnonce(data) in {True, False}
    assert musig2.is_aggnonce(data) in {True, False}
    assert musig2.is_partial_sig(data) == (len(data) == 32 and int.from_bytes(data, "big") < ORDER)
    pubnonce, pubkey = signing.pubnonces[0], signing.pubkeys[0]
    verify = signing.session.partial_sig_verify
    assert not verify(partial_sig=data, pubnonce=pubnonce, pubkey=pubkey)
    assert not verify(partial_sig=bytes(32), pubnonce=data, pubkey=pubkey)
    assert not verify(partial_sig=bytes(32), pubnonce=pubnonce, pubkey=data)


ONE_SIGNER = Cohort([bytes(31) + b"\x09"], bytes(32), None)


def test_infinity_may_be_an_aggregate_nonce_but_nobodys_own() -> None:
    infinity = bytes(musig2.PUBNONCE_SIZE)
    assert musig2.is_aggnonce(infinity)
    assert not musig2.is_pubnonce(infinity)
    with pytest.raises(InvalidContribution, match="signer 1 sent an invalid pubnonce"):
        musig2.nonce_agg([ONE_SIGNER.pubnonces[0], infinity])


@pytest.mark.parametrize(
    ("aggnonce", "message"),
    [(bytes(65), bytes(32)), (b"\x04" * 66, bytes(32)), (bytes(66), bytes(31))],
)
def test_a_session_over_malformed_bytes_is_refused(aggnonce: bytes, message: bytes) -> None:
    with pytest.raises(ValueError, match=r"nonce|message"):
        Session(key_agg=ONE_SIGNER.key_agg, aggnonce=aggnonce, message=message)


def test_no_partial_sigs_are_no_signature() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ONE_SIGNER.session.partial_sig_agg([])


# --- an aggregate whose keys are not known ----------------------------------------------------


@given(cohort=cohorts, tweak=seckeys)
def test_what_keys_add_up_to_is_tweaked_like_the_keys(cohort: list[bytes], tweak: bytes) -> None:
    whole = KeyAgg([pubkey_of(seckey) for seckey in cohort])
    bare = AggregateKey(whole.internal_key)
    assert bare.output_key == bare.internal_key
    assert bare.tweaked(tweak).output_key == whole.tweaked(tweak).output_key
    assert bare.tweaked(tweak).internal_key == whole.internal_key


def test_an_aggregate_without_its_keys_is_a_value_of_its_own() -> None:
    whole = KeyAgg([pubkey_of(bytes(31) + b"\x01")])
    bare = AggregateKey(whole.internal_key)
    assert bare == AggregateKey(whole.internal_key)
    assert len({bare, AggregateKey(whole.internal_key), bare.tweaked(bytes(32))}) == 1
    assert bare not in (whole, AggregateKey(bytes(32)), whole.internal_key)
    with pytest.raises(ValueError, match="already tweaked"):
        bare.tweaked(bytes(32)).tweaked(bytes(32))
    with pytest.raises(ValueError, match=r"\w"):
        AggregateKey(b"\xff" * 32).tweaked(bytes(32))
