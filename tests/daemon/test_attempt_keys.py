"""Keys and nonces of an attempt are made a channel at a time, and one attempt after another."""

import asyncio
from itertools import count

import pytest

from cromford import effects as fx
from cromford.bitcoin.network import REGTEST
from cromford.daemon.attempt_keys import AttemptKeys
from cromford.daemon.signing import perform_signing
from cromford.factory.terms import N_CLIENTS_MAX
from cromford.protocol import events as ev
from cromford.protocol.policy import CANDIDATES_MAX
from cromford.signing import signer as signer_module
from cromford.signing.keychain import FactoryKey, Keychain
from cromford.signing.nonces import NoPoolFree
from cromford.signing.signer import N_POOLS_SPARE, Signer

N_CLIENTS = 5
N_CANDIDATES = 2
SEED = bytes(range(32))


def asked(attempt: int) -> fx.PrepareAttempt:
    return fx.PrepareAttempt(
        attempt=attempt, n_clients=N_CLIENTS, pool_size=64, n_candidates=N_CANDIDATES
    )


def signer() -> Signer:
    return Signer(Keychain(SEED, REGTEST, journal_number=1))


def test_between_any_two_channels_others_have_a_turn() -> None:
    """A ping is answered, and a payment goes on, while the keys of many clients are made."""
    n_turns_before: list[int] = []

    async def run() -> None:
        turns = count()
        keys = AttemptKeys(
            signer(), draw=lambda: bytes(32), post=lambda _: n_turns_before.append(next(turns))
        )
        making = asyncio.create_task(keys.prepare(asked(1)))
        while not making.done():
            next(turns)
            await asyncio.sleep(0)

    asyncio.run(run())
    assert n_turns_before[0] >= N_CLIENTS * N_CANDIDATES


def test_they_are_the_keys_that_would_be_made_at_once() -> None:
    posted: list[ev.Event] = []

    async def run() -> None:
        await AttemptKeys(signer(), draw=lambda: SEED, post=posted.append).prepare(asked(7))

    asyncio.run(run())
    (in_steps,) = posted
    (at_once,) = perform_signing(signer(), lambda: SEED, asked(7))
    assert isinstance(in_steps, ev.AttemptPrepared)
    assert isinstance(at_once, ev.AttemptPrepared)
    assert (in_steps.asked, in_steps.attempt_id) == (at_once.asked, at_once.attempt_id)
    for ours, theirs in zip(
        (in_steps.channels, *in_steps.higher), (at_once.channels, *at_once.higher), strict=True
    ):
        assert [pubkeys for pubkeys, _ in ours] == [pubkeys for pubkeys, _ in theirs]
        assert [pool.pubkey for _, pool in ours] == [pool.pubkey for _, pool in theirs]


def test_the_pools_of_an_attempt_are_dropped_before_the_next_has_any() -> None:
    """So nobody who asks for builds and abandons them makes the LSP hold more than one's."""
    signing = signer()
    n_held: list[int] = []

    def drop(event: ev.Event) -> None:
        assert isinstance(event, ev.AttemptPrepared)
        n_held.append(signing.n_nonces().n_pools)
        channels = (event.channels, *event.higher)
        for pool in (event.factory_pool, *(pool for one in channels for _, pool in one)):
            signing.drop_pool(pool.pool_id)

    async def run() -> None:
        keys = AttemptKeys(signing, draw=lambda: bytes(32), post=drop)
        await asyncio.gather(keys.prepare(asked(1)), keys.prepare(asked(2)))

    asyncio.run(run())
    assert n_held == [1 + N_CLIENTS * N_CANDIDATES] * 2


def test_the_largest_attempt_has_room_beside_as_many_other_pools() -> None:
    assert 2 * (1 + N_CLIENTS_MAX * CANDIDATES_MAX) <= N_POOLS_SPARE


def test_an_attempt_waits_for_room_and_keeps_none_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closes and advances hold pools, too: once those are over, the attempt goes on by itself."""
    monkeypatch.setattr(signer_module, "N_POOLS_SPARE", 1 + N_CLIENTS * N_CANDIDATES)
    signing = signer()
    other = signing.make_pool(FactoryKey(attempt=99), 64)
    posted: list[ev.Event] = []
    n_held: list[int] = []

    async def pause(_: float) -> None:
        n_held.append(signing.n_nonces().n_pools)
        if len(n_held) == 3:
            signing.drop_pool(other.pool_id)

    async def run() -> None:
        keys = AttemptKeys(signing, draw=lambda: SEED, post=posted.append, pause=pause)
        await keys.prepare(asked(7))

    asyncio.run(run())
    assert n_held == [1, 1, 1]
    (prepared,) = posted
    assert isinstance(prepared, ev.AttemptPrepared)
    assert signing.n_nonces().n_pools == 1 + N_CLIENTS * N_CANDIDATES


def test_an_attempt_that_has_no_room_at_once_leaves_no_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signer_module, "N_POOLS_SPARE", N_CLIENTS)
    signing = signer()
    with pytest.raises(NoPoolFree):
        perform_signing(signing, lambda: SEED, asked(7))
    assert signing.n_nonces().n_pools == 0
