"""Keys that were handed over: sealed for one seat, signing once, leading to no other key."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from cromford.bitcoin.network import REGTEST
from cromford.crypto import keys
from cromford.crypto.musig2 import KeyAgg, nonce_agg
from cromford.crypto.sealing import NotSealed, seal_once, unseal
from cromford.signing.bip32 import HARDENED, ExtendedSeckey, master_of
from cromford.signing.handed_over import (
    NO_KEY,
    SEALED_SIZE,
    KeysUnusable,
    OfferedKeys,
    SealedKeys,
    SecretPair,
    unsealed,
)
from cromford.signing.keychain import ChannelKey, FactoryKey, HandedOverKey, Keychain
from cromford.signing.nonces import NonceFault, NoPoolFree
from cromford.signing.signer import N_OFFERED_MAX, N_POOLS_SPARE, Signer
from cromford.signing.task import SigningTask

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
CLIENT_SEED: Final = b"\x07" * 64
LSP_SEED: Final = b"\x09" * 64
JOURNAL: Final = 77
CLIENT: Final = Keychain(CLIENT_SEED, REGTEST, journal_number=5)
LSP: Final = Keychain(LSP_SEED, REGTEST, journal_number=JOURNAL)
FACTORY: Final = FactoryKey(attempt=3)
CHANNEL: Final = ChannelKey(attempt=3, channel=0)
NAME: Final = HandedOverKey(attempt=12, client=4)
SEALED: Final = (
    "c6008ba3b4a3be0da80c870f6ff88fcb260dffa722413f30ac4eb882e9be4709"
    "2c4407f648ce4cc02710c4d383d3864c163fe2735756ad9a54b0a9bf9f3821a3"
    "f89159bf3ad68637840fa97fd3f4054f"
)


def pair() -> SecretPair:
    factory_secret, funding_secret = Signer(CLIENT).hand_over(FACTORY, CHANNEL)
    return SecretPair(factory_secret=factory_secret, funding_secret=funding_secret)


def stored() -> SealedKeys:
    return pair().sealed(LSP, attempt=12, client=4)


def task(pubkey: bytes, sighash: bytes = b"\x11" * 32) -> SigningTask:
    return SigningTask(name="close", sighash=sighash, key_agg=KeyAgg((pubkey,)))


# What follows from them


def test_every_step_to_a_key_that_is_handed_over_is_hardened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hardened child is an HMAC of its parent's seckey: nothing public leads there and back."""
    steps: list[int] = []
    derive = ExtendedSeckey.child

    def watching(node: ExtendedSeckey, number: int) -> ExtendedSeckey:
        steps.append(number)
        return derive(node, number)

    monkeypatch.setattr(ExtendedSeckey, "child", watching)
    fresh = Keychain(CLIENT_SEED, REGTEST, journal_number=5)
    assert Signer(fresh).hand_over(FACTORY, CHANNEL) == Signer(CLIENT).hand_over(FACTORY, CHANNEL)
    assert all(number >= HARDENED for number in steps)


def test_no_other_key_of_the_client_is_one_of_the_two_or_follows_by_a_known_attack() -> None:
    """Who knows a parent's public half takes a child that is not hardened back to its parent."""
    handed = set(Signer(CLIENT).hand_over(FACTORY, CHANNEL))
    others = {CLIENT._node, CLIENT._wallet.seckey, CLIENT._factory.seckey, CLIENT._channel.seckey}
    others |= {master_of(CLIENT_SEED).seckey}
    others |= {CLIENT.seckey(FactoryKey(attempt=n)) for n in range(8) if n != FACTORY.attempt}
    others |= {CLIENT.seckey(replace(CHANNEL, attempt=n)) for n in range(8) if n != CHANNEL.attempt}
    others |= {CLIENT.seckey(replace(CHANNEL, candidate=n)) for n in range(1, 4)}
    others |= set(CLIENT._channel_seckeys(CHANNEL)[1:])
    others |= {CLIENT.per_commitment_secret(CHANNEL, number) for number in range(300)}
    others |= {
        CLIENT._wallet.derive(change, index).seckey for change in (0, 1) for index in range(4)
    }
    assert not handed & others

    wallet = CLIENT._wallet
    assert parent_of(wallet, 1, wallet.child(1).seckey) == wallet.seckey, "the attack works"
    factory = CLIENT._factory
    for number in (FACTORY.attempt, HARDENED + FACTORY.attempt):
        assert parent_of(factory, number, CLIENT.seckey(FACTORY)) != factory.seckey


def parent_of(parent: ExtendedSeckey, number: int, child: bytes) -> bytes:
    """Return what BIP 32's public derivation tells of a parent's seckey, from a child's."""
    public = parent.public
    data = public.pubkey + number.to_bytes(4, "big")
    tweak = int.from_bytes(hmac.digest(public.chain_code, data, hashlib.sha512)[:32], "big")
    return keys.seckey_add(child, (-tweak % ORDER).to_bytes(32, "big"))


# Sealed


def test_what_is_sealed_comes_back_and_holds_no_secret_in_the_clear() -> None:
    kept = stored()
    assert unsealed(LSP, kept).offered == kept.offered == pair().offered
    for secret in Signer(CLIENT).hand_over(FACTORY, CHANNEL):
        assert secret not in kept.sealed
        assert secret.hex() not in repr(kept)
    assert stored() == kept, "one thing is sealed in one way"


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: replace(kept, client=5),
        lambda kept: replace(kept, attempt=13),
        lambda kept: replace(kept, factory_pubkey=kept.funding_pubkey),
        lambda kept: replace(kept, funding_pubkey=kept.factory_pubkey),
        lambda kept: replace(kept, sealed=kept.sealed[:-1] + bytes([kept.sealed[-1] ^ 1])),
        lambda kept: replace(kept, sealed=bytes([kept.sealed[0] ^ 128]) + kept.sealed[1:]),
        lambda kept: replace(kept, sealed=bytes(80)),
    ],
)
def test_keys_of_another_seat_and_damaged_ones_are_none(
    change: Callable[[SealedKeys], SealedKeys],
) -> None:
    with pytest.raises(KeysUnusable, match="damaged, or sealed for another seat, journal or seed"):
        unsealed(LSP, change(stored()))


def test_secrets_of_other_keys_than_those_beside_them_are_refused() -> None:
    """Whoever sealed them, under this very seed: no nonce is made for keys nobody asked about."""
    kept, (factory_secret, funding_secret) = stored(), Signer(CLIENT).hand_over(FACTORY, CHANNEL)
    pubkeys = kept.factory_pubkey + kept.funding_pubkey
    key = LSP.sealing_key(attempt=12, client=4, pubkeys=pubkeys)
    said = (12).to_bytes(4, "big") + (4).to_bytes(4, "big") + pubkeys
    swapped = replace(kept, sealed=seal_once(key, funding_secret + factory_secret, said=said))
    with pytest.raises(KeysUnusable, match="not the secrets of the public keys beside them"):
        unsealed(LSP, swapped)


def test_what_was_sealed_once_is_opened_for_ever() -> None:
    """It lies in a file for years: another key, or other words beside it, would be its end."""
    assert stored().sealed.hex() == SEALED
    assert len(stored().sealed) == SEALED_SIZE, "as the file of them is laid out"


def test_another_seed_and_another_journal_of_the_seed_open_nothing() -> None:
    for other in (CLIENT, Keychain(LSP_SEED, REGTEST, journal_number=JOURNAL + 1)):
        with pytest.raises(KeysUnusable):
            unsealed(other, stored())


def test_a_seal_says_what_stays_readable_beside_it() -> None:
    sealed = seal_once(b"k" * 32, b"secret", said=b"seat 4")
    assert unseal(b"k" * 32, sealed, said=b"seat 4") == b"secret"
    for key, said in ((b"k" * 32, b"seat 5"), (b"q" * 32, b"seat 4")):
        with pytest.raises(NotSealed):
            unseal(key, sealed, said=said)


# Offered


def test_what_is_offered_is_told_by_its_public_keys_and_forgotten_once_it_is_sealed() -> None:
    signer = Signer(LSP)
    factory_secret, funding_secret = Signer(CLIENT).hand_over(FACTORY, CHANNEL)
    offered = signer.offer(factory_secret=factory_secret, funding_secret=funding_secret)
    assert offered.factory_pubkey == CLIENT.pubkey(FACTORY)
    assert offered.funding_pubkey == CLIENT.pubkey(CHANNEL)
    assert signer.seal_offered(offered, attempt=12, client=4) == stored()
    with pytest.raises(KeysUnusable, match="not there any more"):
        signer.seal_offered(offered, attempt=12, client=4)


def test_what_others_offer_meanwhile_takes_no_ones_place_and_a_refusal_forgets_its_own() -> None:
    """All clients of a factory may move out in one block, and the disk be busy with that block."""
    signer = Signer(LSP)
    factory_secret, funding_secret = Signer(CLIENT).hand_over(FACTORY, CHANNEL)
    first = signer.offer(factory_secret=factory_secret, funding_secret=funding_secret)
    second = signer.offer(factory_secret=funding_secret, funding_secret=factory_secret)
    signer.drop_offered(second)
    assert signer.seal_offered(first, attempt=12, client=4) == stored()
    with pytest.raises(KeysUnusable):
        signer.seal_offered(second, attempt=12, client=4)


def test_of_too_many_offers_the_oldest_is_forgotten_and_can_come_again() -> None:
    signer = Signer(LSP)
    secrets = [number.to_bytes(32, "big") for number in range(1, N_OFFERED_MAX + 2)]
    offers = [signer.offer(factory_secret=one, funding_secret=one) for one in secrets]
    with pytest.raises(KeysUnusable, match="not there any more"):
        signer.seal_offered(offers[0], attempt=12, client=4)
    for offered in offers[1:]:
        assert signer.seal_offered(offered, attempt=12, client=4).offered == offered
    assert signer._offered == {}


def test_what_is_offered_again_is_the_newest() -> None:
    """A client that repeats itself is heard once; it does not lose to those that came later."""
    signer = Signer(LSP)
    secrets = [number.to_bytes(32, "big") for number in range(1, N_OFFERED_MAX + 2)]
    for one in secrets[:-1]:
        signer.offer(factory_secret=one, funding_secret=one)
    again = signer.offer(factory_secret=secrets[0], funding_secret=secrets[0])
    signer.offer(factory_secret=secrets[-1], funding_secret=secrets[-1])
    assert signer.seal_offered(again, attempt=12, client=4).offered == again


def test_a_number_that_is_no_secret_key_has_no_public_key() -> None:
    for number, is_key in ((0, False), (1, True), (ORDER - 1, True), (ORDER, False)):
        offered = Signer(LSP).offer(
            factory_secret=number.to_bytes(32, "big"), funding_secret=b"\1" * 32
        )
        assert (offered.factory_pubkey != NO_KEY) is is_key


@pytest.mark.parametrize("show", [repr, str, "{!r:>300}".format])
def test_nothing_that_holds_such_keys_prints_them(show: Callable[[object], str]) -> None:
    secrets = Signer(CLIENT).hand_over(FACTORY, CHANNEL)
    signer = Signer(LSP)
    signer.offer(factory_secret=secrets[0], funding_secret=secrets[1])
    for holder in (pair(), signer, [pair()], stored()):
        for secret in secrets:
            assert secret.hex() not in show(holder)
            assert repr(secret)[2:-1] not in show(holder)
    with pytest.raises(TypeError):
        pair().__reduce__()


# Signing with them


def test_a_clients_pool_signs_once_and_by_its_own_door_only() -> None:
    signer = Signer(LSP)
    pubkey = CLIENT.pubkey(FACTORY)
    pool = signer.make_pool_for(NAME, stored(), pubkey, 2)
    aggnonce = nonce_agg([pool.pubnonces[0]])
    with pytest.raises(NonceFault, match="dropped"):
        signer.partial_sign(pool.pool_id, 0, task(pubkey), aggnonce)
    made = signer.partial_sign_for(pool.pool_id, 0, task(pubkey), aggnonce)
    session = task(pubkey).session(aggnonce)
    assert session.partial_sig_verify(partial_sig=made, pubnonce=pool.pubnonces[0], pubkey=pubkey)
    assert signer.partial_sign_for(pool.pool_id, 0, task(pubkey), aggnonce) == made
    with pytest.raises(NonceFault, match="bound"):
        signer.partial_sign_for(pool.pool_id, 0, task(pubkey, b"\x22" * 32), aggnonce)
    signer.drop_pool(pool.pool_id)
    with pytest.raises(NonceFault, match="dropped"):
        signer.partial_sign_for(pool.pool_id, 1, task(pubkey), aggnonce)


def test_our_own_pool_does_not_sign_by_a_clients_door() -> None:
    signer = Signer(LSP)
    own = signer.make_pool(FACTORY, 1)
    with pytest.raises(NonceFault, match="dropped"):
        signer.partial_sign_for(own.pool_id, 0, task(own.pubkey), nonce_agg([own.pubnonces[0]]))


def test_the_funding_key_is_the_other_one() -> None:
    funding = replace(NAME, is_funding=True)
    pool = Signer(LSP).make_pool_for(funding, stored(), CLIENT.pubkey(CHANNEL), 1)
    assert pool.pubkey == CLIENT.pubkey(CHANNEL)


@pytest.mark.parametrize(
    ("name", "pubkey"),
    [
        (replace(NAME, client=5), CLIENT.pubkey(FACTORY)),
        (replace(NAME, attempt=13), CLIENT.pubkey(FACTORY)),
        (NAME, CLIENT.pubkey(CHANNEL)),
        (replace(NAME, is_funding=True), CLIENT.pubkey(FACTORY)),
    ],
)
def test_no_pool_is_made_of_a_key_that_is_not_the_seats(name: HandedOverKey, pubkey: bytes) -> None:
    with pytest.raises(KeysUnusable):
        Signer(LSP).make_pool_for(name, stored(), pubkey, 1)


def test_clients_pools_count_as_pools() -> None:
    signer = Signer(LSP)
    held = signer.make_pool_for(NAME, stored(), CLIENT.pubkey(FACTORY), 1)
    pool = signer._clients_pools[held.pool_id]
    signer._clients_pools = {n.to_bytes(2, "big"): pool for n in range(N_POOLS_SPARE)}
    with pytest.raises(NoPoolFree):
        signer.make_pool_for(NAME, stored(), CLIENT.pubkey(FACTORY), 1)
    with pytest.raises(NoPoolFree):
        signer.make_pool(FACTORY, 1)


def test_what_is_held_is_checked_against_the_seat() -> None:
    signer: Any = Signer(LSP)
    signer.check_stored(stored(), pair().offered)
    other = OfferedKeys(factory_pubkey=bytes(33), funding_pubkey=bytes(33))
    with pytest.raises(KeysUnusable, match="others than the client's"):
        signer.check_stored(stored(), other)
