"""No secret is ever printed: not by repr or str, not in an error, not in a traceback."""

import traceback
from collections.abc import Callable

import pytest

from cromford.bitcoin.network import REGTEST
from cromford.bitcoin.timelocked import LockKind, Timelock
from cromford.bitcoin.tx import Tx
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import pubkey_of
from cromford.crypto.musig2 import KeyAgg, SecNonce, nonce_agg
from cromford.signing.bip32 import ExtendedSeckey, master_of
from cromford.signing.keychain import ChannelKey, FactoryKey, Keychain
from cromford.signing.nonces import NonceFault, NoncePool
from cromford.signing.signer import Signer
from cromford.signing.task import SigningTask

SEED = bytes(range(64))
KEYCHAIN = Keychain(SEED, REGTEST, journal_number=3)
NAME = FactoryKey(attempt=1)
EXPIRY = Timelock(kind=LockKind.AFTER, number=200)
UNSIGNED = Tx(version=2, inputs=(), outputs=())
SECKEY = KEYCHAIN.seckey(NAME)
PUBKEY = pubkey_of(SECKEY)


def secrets_of_the_keychain() -> list[bytes]:
    found = [SEED, SECKEY, KEYCHAIN.seckey(ChannelKey(attempt=1, channel=2)), KEYCHAIN._node]
    for node in (KEYCHAIN._factory, KEYCHAIN._channel, KEYCHAIN._wallet, master_of(SEED)):
        found += [node.seckey, node.chain_code]
    return found


def check_tells_nothing(text: str) -> None:
    """Look for every secret as hex, as Python bytes and as an integer, or a good part of it."""
    lowered = text.lower()
    for secret in secrets_of_the_keychain():
        forms = [secret.hex(), secret[::-1].hex(), repr(secret)[2:-1].lower()]
        forms.append(str(int.from_bytes(secret, "big")))
        forms.append(f"{int.from_bytes(secret, 'big'):x}")
        for form in forms:
            assert form not in lowered
            assert form[:24] not in lowered


def pool() -> NoncePool:
    return NoncePool(Keypair(SECKEY), size=2)


def signer() -> Signer:
    made = Signer(KEYCHAIN)
    made.make_pool(NAME, 2)
    return made


def task(sighash: bytes = b"\x11" * 32) -> SigningTask:
    return SigningTask(name="state_root", sighash=sighash, key_agg=KeyAgg((PUBKEY,)))


@pytest.mark.parametrize(
    "holder",
    [
        KEYCHAIN,
        KEYCHAIN._wallet,
        KEYCHAIN._wallet.public,
        master_of(SEED),
        signer(),
        pool(),
        SecNonce(Keypair(SECKEY)),
        Keypair(SECKEY),
        [pool(), {"key": KEYCHAIN}],
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_printing_a_holder_of_secrets_tells_none(holder: object) -> None:
    for text in (repr(holder), str(holder), f"{holder!r:>1000}", ascii(holder)):
        if isinstance(holder, type(KEYCHAIN._wallet.public)):
            # An extended pubkey is public, chain code included.
            assert KEYCHAIN._wallet.seckey.hex() not in text
        else:
            check_tells_nothing(text)


def test_a_holder_says_what_it_is() -> None:
    assert repr(KEYCHAIN) == f"Keychain({KEYCHAIN.node_id.hex()}, secret)"
    assert repr(pool()) == "NoncePool(2 nonces, secret)"
    assert repr(Keypair(SECKEY)) == "Keypair(secret)"
    assert repr(master_of(SEED)) == "ExtendedSeckey()"


def bound_pool_asked_for_more() -> None:
    nonces = pool()
    aggnonce = nonce_agg([nonces.public.pubnonces[0]])
    nonces.partial_sign(0, task(), aggnonce)
    nonces.partial_sign(0, task(b"\x22" * 32), aggnonce)


FAILURES: list[tuple[type[Exception], Callable[[], object]]] = [
    (NonceFault, bound_pool_asked_for_more),
    (NonceFault, lambda: pool().partial_sign(2, task(), bytes(66))),
    (ValueError, lambda: pool().partial_sign(0, task(), b"\x05" * 66)),
    (TypeError, lambda: pool().__reduce__()),
    (ValueError, lambda: Keypair(SECKEY + b"\x00")),
    (TypeError, lambda: Keypair(SECKEY).__reduce__()),
    (ValueError, lambda: NoncePool(Keypair(SECKEY), size=0)),
    (ValueError, lambda: master_of(SEED + b"\x00")),
    (ValueError, lambda: master_of(SEED).derive_hardened(-1)),
    (OverflowError, lambda: master_of(SEED).child(-1)),
    (ValueError, lambda: ExtendedSeckey(b"\xff" * 32, SEED[:32]).public),
    (ValueError, lambda: KEYCHAIN.ecdh(bytes(33))),
    (ValueError, lambda: KEYCHAIN.sign_wallet(change=0, index=0, sighash=b"short")),
    (ValueError, lambda: signer().sign_timelocked(NAME, EXPIRY, UNSIGNED, ())),
]


@pytest.mark.parametrize(("error", "fail"), FAILURES)
def test_a_failure_tells_no_secret(error: type[Exception], fail: Callable[[], object]) -> None:
    with pytest.raises(error) as refused:
        fail()
    check_tells_nothing("".join(traceback.format_exception(refused.value)))
    check_tells_nothing(repr(refused.value.args))


def test_the_search_would_find_a_secret() -> None:
    for leak in (SECKEY.hex(), str(SECKEY), str(int.from_bytes(SECKEY, "big")), SECKEY[:16].hex()):
        with pytest.raises(AssertionError):
            check_tells_nothing(f"key {leak}")
