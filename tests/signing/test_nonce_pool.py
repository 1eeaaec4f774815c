"""A nonce signs one thing: one session, one sighash, one key aggregation, one aggregate nonce."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cromford.bitcoin.taproot import tweaked_key_agg
from cromford.crypto import curve, schnorr
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import pubkey_of
from cromford.crypto.musig2 import AggregateKey, KeyAgg, NonceReuse, SecNonce, nonce_agg
from cromford.signing.nonces import (
    POOL_SIZE_MAX,
    POOL_SIZE_MIN,
    NonceFault,
    NoncePool,
    PublicPool,
)
from cromford.signing.task import SigningTask

SECKEY = bytes(31) + b"\x2a"
PUBKEY = pubkey_of(SECKEY)
PARTNER = pubkey_of(bytes(31) + b"\x2b")
THIRD = pubkey_of(bytes(31) + b"\x2c")
PARTNER_NONCE = SecNonce(Keypair(bytes(31) + b"\x2b")).pubnonce
OTHER_NONCE = SecNonce(Keypair(bytes(31) + b"\x2b")).pubnonce
MALFORMED = [b"", bytes(65), bytes(67), b"\x05" * 66, b"\x02" + bytes(32) + bytes(33), b"\xff" * 66]


def key_agg_of(*pubkeys: bytes, merkle_root: bytes | None = b"\x33" * 32) -> KeyAgg:
    return tweaked_key_agg(KeyAgg(pubkeys), merkle_root)


TASK = SigningTask(
    name="state_root",
    sighash=b"\x11" * 32,
    key_agg=key_agg_of(PUBKEY, PARTNER),
)


@pytest.fixture
def pool() -> NoncePool:
    return NoncePool(Keypair(SECKEY), size=3)


def aggnonce_of(pool: NoncePool, index: int = 0, partner: bytes = PARTNER_NONCE) -> bytes:
    return nonce_agg([pool.public.pubnonces[index], partner])


def test_a_pool_signs_what_its_partner_can_verify(pool: NoncePool) -> None:
    aggnonce = aggnonce_of(pool, 1)
    partial_sig = pool.partial_sign(1, TASK, aggnonce)
    assert TASK.session(aggnonce).partial_sig_verify(
        partial_sig=partial_sig, pubnonce=pool.public.pubnonces[1], pubkey=PUBKEY
    )


def test_a_pool_of_one_signer_makes_a_whole_signature(pool: NoncePool) -> None:
    task = replace(TASK, key_agg=key_agg_of(PUBKEY))
    aggnonce = nonce_agg([pool.public.pubnonces[0]])
    partial_sig = pool.partial_sign(0, task, aggnonce)
    signature = task.session(aggnonce).partial_sig_agg([partial_sig])
    assert schnorr.verify(signature, task.sighash, task.key_agg.output_key)
    assert task.is_signed_by(signature, task.key_agg.output_key)
    assert not task.is_signed_by(signature, task.key_agg.internal_key)


def test_the_same_request_returns_the_same_bytes_and_signs_nothing(pool: NoncePool) -> None:
    aggnonce = aggnonce_of(pool)
    first = pool.partial_sign(0, TASK, aggnonce)
    assert pool._secnonces[0].is_spent
    equal = SigningTask(
        name=TASK.name,
        sighash=TASK.sighash,
        key_agg=key_agg_of(PARTNER, PUBKEY),
    )
    assert [pool.partial_sign(0, equal, aggnonce) for _ in range(3)] == [first] * 3


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "state_0"},
        {"sighash": b"\x12" + b"\x11" * 31},
        {"key_agg": key_agg_of(PUBKEY, THIRD)},
        {"key_agg": key_agg_of(PUBKEY, PARTNER, THIRD)},
        {"key_agg": key_agg_of(PUBKEY)},
        {"key_agg": key_agg_of(PUBKEY, PARTNER, merkle_root=None)},
        {"key_agg": key_agg_of(PUBKEY, PARTNER, merkle_root=b"\x34" * 32)},
    ],
)
def test_a_bound_nonce_signs_nothing_else(pool: NoncePool, changed: dict[str, object]) -> None:
    aggnonce = aggnonce_of(pool)
    first = pool.partial_sign(0, TASK, aggnonce)
    other = replace(TASK, **changed)  # type: ignore[arg-type]  # names are checked by replace
    with pytest.raises(NonceFault, match="nonce 0 is bound to session state_root"):
        pool.partial_sign(0, other, aggnonce)
    assert pool.partial_sign(0, TASK, aggnonce) == first


def test_a_bound_nonce_signs_with_no_other_aggregate_nonce(pool: NoncePool) -> None:
    """The classic attack: the same message again, with another nonce of the partner's."""
    first = pool.partial_sign(0, TASK, aggnonce_of(pool))
    for aggnonce in (aggnonce_of(pool, partner=OTHER_NONCE), bytes(66), *MALFORMED):
        with pytest.raises(NonceFault, match="nonce 0 is bound"):
            pool.partial_sign(0, TASK, aggnonce)
    assert pool.partial_sign(0, TASK, aggnonce_of(pool)) == first


@pytest.mark.parametrize("malformed", MALFORMED, ids=lambda data: data[:4].hex() or "empty")
def test_a_malformed_aggregate_nonce_leaves_the_nonce_unspent(
    pool: NoncePool, malformed: bytes
) -> None:
    with pytest.raises(ValueError, match="nonce"):
        pool.partial_sign(0, TASK, malformed)
    assert not pool._secnonces[0].is_spent
    assert pool._bound == {}
    aggnonce = aggnonce_of(pool)
    assert TASK.session(aggnonce).partial_sig_verify(
        partial_sig=pool.partial_sign(0, TASK, aggnonce),
        pubnonce=pool.public.pubnonces[0],
        pubkey=PUBKEY,
    )


def test_a_task_that_cannot_be_signed_leaves_the_nonce_unspent(pool: NoncePool) -> None:
    with pytest.raises(ValueError, match="message"):
        pool.partial_sign(0, replace(TASK, sighash=b"short"), aggnonce_of(pool))
    assert not pool._secnonces[0].is_spent


@pytest.mark.parametrize("signers", [(PARTNER,), (PARTNER, THIRD)])
def test_a_pool_signs_only_where_its_key_takes_part(
    pool: NoncePool, signers: tuple[bytes, ...]
) -> None:
    with pytest.raises(NonceFault, match="state_root is not for this pool's key"):
        pool.partial_sign(0, replace(TASK, key_agg=key_agg_of(*signers)), aggnonce_of(pool))
    assert not pool._secnonces[0].is_spent


@pytest.mark.parametrize("index", [-1, 3, 2**64 - 1])
def test_an_index_that_does_not_exist_is_a_fault(pool: NoncePool, index: int) -> None:
    with pytest.raises(NonceFault, match=f"nonce {index} of a pool of 3"):
        pool.partial_sign(index, TASK, aggnonce_of(pool))
    assert not any(secnonce.is_spent for secnonce in pool._secnonces)


def test_each_index_is_bound_by_itself(pool: NoncePool) -> None:
    tasks = [replace(TASK, name=f"state_{i}", sighash=bytes((i,)) * 32) for i in range(3)]
    sigs = [pool.partial_sign(i, task, aggnonce_of(pool, i)) for i, task in enumerate(tasks)]
    assert len(set(sigs)) == 3
    for i, task in enumerate(tasks):
        assert pool.partial_sign(i, task, aggnonce_of(pool, i)) == sigs[i]
        with pytest.raises(NonceFault):
            pool.partial_sign((i + 1) % 3, task, aggnonce_of(pool, i))


def test_a_dropped_pool_signs_nothing_and_repeats_nothing(pool: NoncePool) -> None:
    aggnonce = aggnonce_of(pool)
    pool.partial_sign(0, TASK, aggnonce)
    secnonces = list(pool._secnonces)
    pool.drop()
    pool.drop()
    assert all(secnonce.is_spent for secnonce in secnonces)
    for index in range(3):
        with pytest.raises(NonceFault, match="of a pool of 0"):
            pool.partial_sign(index, TASK, aggnonce_of(pool, index))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_pool_cannot_be_duplicated(
    pool: NoncePool, duplicate: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match="must not be copied or stored"):
        duplicate(pool)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickle.dumps])
def test_what_holds_a_pool_cannot_be_duplicated(
    pool: NoncePool, duplicate: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match="must not be copied or stored"):
        duplicate({"of": [pool]})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_protocol_stores_a_pool(pool: NoncePool, protocol: int) -> None:
    with pytest.raises(TypeError, match="must not be copied or stored"):
        pickle.dumps(pool, protocol)


def test_two_threads_get_one_signature_between_them() -> None:
    """Whichever comes first: nothing is ever signed with the same nonce twice."""
    for _ in range(100):
        pool = NoncePool(Keypair(SECKEY), size=1)
        aggnonce = aggnonce_of(pool)
        tasks = [replace(TASK, sighash=bytes((n,)) * 32) for n in range(4)]
        gate = Barrier(len(tasks))

        def attempt(
            task: SigningTask,
            pool: NoncePool = pool,
            aggnonce: bytes = aggnonce,
            gate: Barrier = gate,
        ) -> bytes | None:
            gate.wait()
            try:
                return pool.partial_sign(0, task, aggnonce)
            except (NonceFault, NonceReuse):
                return None

        with ThreadPoolExecutor(len(tasks)) as threads:
            sigs = list(threads.map(attempt, tasks))
        signed = [task for task, sig in zip(tasks, sigs, strict=True) if sig is not None]
        assert len(signed) == 1
        assert pool.partial_sign(0, signed[0], aggnonce) in sigs


@pytest.mark.parametrize("size", [-1, 0, POOL_SIZE_MAX + 1, 2**40])
def test_a_pool_of_no_or_too_many_nonces_is_refused_before_any_is_made(size: int) -> None:
    with pytest.raises(ValueError, match=rf"1\.\.4096 nonces, received {size}"):
        NoncePool(Keypair(SECKEY), size=size)


def test_the_largest_pool_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cromford.signing.nonces.POOL_SIZE_MAX", 3)
    assert len(NoncePool(Keypair(SECKEY), size=3).public.pubnonces) == 3
    with pytest.raises(ValueError, match=r"1\.\.3 nonces, received 4"):
        NoncePool(Keypair(SECKEY), size=4)


def test_the_least_size_of_a_clients_pool_is_the_protocols() -> None:
    assert POOL_SIZE_MIN == 64


def test_a_pool_counts_what_signed_and_what_is_left(pool: NoncePool) -> None:
    assert (pool.n_used, pool.n_left) == (0, 3)
    for index in (2, 0, 0):
        pool.partial_sign(index, TASK, aggnonce_of(pool, index))
    assert (pool.n_used, pool.n_left) == (2, 1)
    pool.drop()
    assert (pool.n_used, pool.n_left) == (0, 0)


def test_every_nonce_of_every_pool_is_another() -> None:
    pools = [NoncePool(Keypair(SECKEY), size=size) for size in (1, 40, 40)]
    pubnonces = [pubnonce for pool in pools for pubnonce in pool.public.pubnonces]
    assert len(set(pubnonces)) == len(pubnonces) == 81
    assert len({pool.public.pool_id for pool in pools}) == 3


pubnonces = st.lists(st.binary(min_size=66, max_size=66), max_size=4).map(tuple)


@given(one=pubnonces, other=pubnonces, same_key=st.booleans())
def test_a_pool_id_names_its_content(
    one: tuple[bytes, ...],
    other: tuple[bytes, ...],
    same_key: bool,  # noqa: FBT001 - drawn
) -> None:
    mine = PublicPool(pubkey=PUBKEY, pubnonces=one)
    yours = PublicPool(pubkey=PUBKEY if same_key else PARTNER, pubnonces=other)
    assert (mine.pool_id == yours.pool_id) == (mine == yours)


# Bound before it signs


UNKNOWN = replace(
    TASK,
    key_agg=tweaked_key_agg(AggregateKey(KeyAgg([PUBKEY, PARTNER]).internal_key), b"\x33" * 32),
)


def test_a_nonce_that_was_bound_signs_for_who_does_not_know_the_signers(pool: NoncePool) -> None:
    aggnonce = aggnonce_of(pool)
    pool.bind(0, TASK, aggnonce)
    assert (pool.n_used, pool.n_left) == (0, 3)
    partial_sig = pool.partial_sign(0, UNKNOWN, aggnonce)
    assert (pool.n_used, pool.n_left) == (1, 2)
    session = TASK.session(aggnonce)
    assert session.partial_sig_verify(
        partial_sig=partial_sig, pubnonce=pool.public.pubnonces[0], pubkey=PUBKEY
    )
    for task in (UNKNOWN, TASK):
        assert pool.partial_sign(0, task, aggnonce) == partial_sig


def test_a_nonce_that_was_bound_signs_nothing_else(pool: NoncePool) -> None:
    aggnonce = aggnonce_of(pool)
    pool.bind(0, TASK, aggnonce)
    pool.bind(0, TASK, aggnonce)
    others = (
        replace(UNKNOWN, sighash=b"\x12" * 32),
        replace(UNKNOWN, name="another"),
        replace(TASK, key_agg=key_agg_of(PUBKEY, THIRD)),
    )
    for task in others:
        with pytest.raises(NonceFault, match="bound to session state_root"):
            pool.partial_sign(0, task, aggnonce)
        with pytest.raises(NonceFault, match="bound to session state_root"):
            pool.bind(0, task, aggnonce)
    with pytest.raises(NonceFault, match="bound to session state_root"):
        pool.partial_sign(0, UNKNOWN, aggnonce_of(pool, partner=OTHER_NONCE))
    assert pool.n_used == 0


def test_what_was_never_bound_is_not_signed_without_its_signers(pool: NoncePool) -> None:
    aggnonce = aggnonce_of(pool)
    for ask in (pool.partial_sign, pool.bind):
        with pytest.raises(ValueError, match="not known who signs"):
            ask(0, UNKNOWN, aggnonce)
    with pytest.raises(ValueError, match="not known who signs"):
        UNKNOWN.session(aggnonce)
    assert (TASK.has_signers, UNKNOWN.has_signers) == (True, False)
    assert pool.n_used == 0
    assert pool.partial_sign(0, TASK, aggnonce)


def test_a_nonce_that_was_bound_to_a_malformed_aggregate_is_still_unspent(pool: NoncePool) -> None:
    pool.bind(0, TASK, MALFORMED[0])
    with pytest.raises(ValueError, match="nonce"):
        pool.partial_sign(0, TASK, MALFORMED[0])
    assert pool.partial_sign(0, TASK, aggnonce_of(pool))


def test_a_nonce_that_is_spent_by_a_failure_stays_bound_to_what_it_failed_at(
    pool: NoncePool,
) -> None:
    aggnonce = aggnonce_of(pool)
    curve.wipe(pool._secnonces[0]._held[0][0])  # The library refuses it, as a fault of memory.
    with pytest.raises(ValueError, match="spent, or another key's"):
        pool.partial_sign(0, TASK, aggnonce)
    assert pool._secnonces[0].is_spent
    with pytest.raises(NonceFault, match="nonce 0 is bound"):
        pool.partial_sign(0, replace(TASK, sighash=b"x" * 32), aggnonce)
