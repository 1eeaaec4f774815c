"""BOLT 3's compact storage of per-commitment secrets, with the cases of its appendix D."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cromford.channel.secret_store import (
    EMPTY_STORE,
    N_COMMITMENTS_MAX,
    InconsistentSecret,
    SecretStore,
    StoredSecret,
)
from cromford.signing.keychain import FIRST_COMMITMENT_INDEX, per_commitment_secret

GOOD_SEED = b"\xff" * 32
WRONG_SEED = bytes(32)

# Appendix D: which of the first secrets come from the wrong seed (a wrong entry takes along the
# ones below it in the tree), and which insertion is the first to be refused; None if none is.
CASES = {
    "correct": ((), None),
    "1 incorrect": ((0,), 1),
    "2 incorrect, 1 derived from it": ((0, 1), 3),
    "3 incorrect": ((2,), 3),
    "4 incorrect, 1 to 3 derived from it": ((0, 1, 2, 3), 7),
    "5 incorrect": ((4,), 5),
    "6 incorrect, 5 derived from it": ((4, 5), 7),
    "7 incorrect": ((6,), 7),
    "8 incorrect": ((7,), 7),
}


def secret_of(seed: bytes, number: int) -> bytes:
    return per_commitment_secret(seed, FIRST_COMMITMENT_INDEX - number)


def test_the_secrets_are_those_of_appendix_d() -> None:
    assert secret_of(GOOD_SEED, 0).hex() == (
        "7cc854b54e3e0dcdb010d7a3fee464a9687be6e8db3be6854c475621e007a5dc"
    )
    assert secret_of(GOOD_SEED, 7).hex() == (
        "05cde6323d949933f7f7b78776bcc1ea6d9b31447732e3802e1f7ac44b650e17"
    )
    assert secret_of(WRONG_SEED, 0).hex() == (
        "02a40c85b6f28da08dfdbe0926c53fab2de6d28c10301f8f7c4073d5e42e3148"
    )
    assert secret_of(WRONG_SEED, 7).hex() == (
        "a7efbc61aac46d34f77778bac22c8a20c6a46ca460addc49009bda875ec88fa4"
    )


@pytest.mark.parametrize("case", CASES)
def test_a_secret_of_another_tree_is_refused_as_soon_as_it_can_be_known(case: str) -> None:
    wrong, refused_at = CASES[case]
    store = EMPTY_STORE
    for number in range(8):
        secret = secret_of(WRONG_SEED if number in wrong else GOOD_SEED, number)
        if number == refused_at:
            with pytest.raises(InconsistentSecret) as caught:
                store.with_secret(secret)
            assert caught.value.number == number
            assert f"commitment {number} is not of the same tree" in str(caught.value)
            return
        store = store.with_secret(secret)
    assert refused_at is None


@settings(max_examples=20)
@given(seed=st.binary(min_size=32, max_size=32), n_secrets=st.integers(1, 300))
def test_every_secret_that_was_revealed_can_be_had_again(seed: bytes, n_secrets: int) -> None:
    store = EMPTY_STORE
    for number in range(n_secrets):
        store = store.with_secret(secret_of(seed, number))
    assert len(store.buckets) <= n_secrets.bit_length()
    for number in range(n_secrets):
        assert store.secret_of(number) == secret_of(seed, number)
    with pytest.raises(ValueError, match="are revoked"):
        store.secret_of(n_secrets)
    with pytest.raises(ValueError, match="are revoked"):
        store.secret_of(-1)


def test_the_last_secret_is_the_seed_itself_and_gives_all_others() -> None:
    buckets = tuple(
        StoredSecret(index=1 << place, secret=per_commitment_secret(GOOD_SEED, 1 << place))
        for place in range(48)
    )
    full = SecretStore(n_secrets=N_COMMITMENTS_MAX - 1, buckets=buckets).with_secret(GOOD_SEED)
    assert full.buckets[48] == StoredSecret(index=0, secret=GOOD_SEED)
    assert full.secret_of(12_345) == secret_of(GOOD_SEED, 12_345)
    with pytest.raises(ValueError, match="all"):
        full.with_secret(GOOD_SEED)
    with pytest.raises(InconsistentSecret):
        replace(full, n_secrets=N_COMMITMENTS_MAX - 1).with_secret(WRONG_SEED)


def test_a_secret_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        EMPTY_STORE.with_secret(bytes(31))
