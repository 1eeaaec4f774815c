"""A secret nonce signs once. One attack, one test."""

import copy
import pickle
import secrets
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import msgspec
import pytest
from btclib_secp256k1 import CData, ffi

from cromford.crypto import musig2, schnorr
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import pubkey_of
from cromford.crypto.musig2 import KeyAgg, NonceReuse, SecNonce, Session

SECKEY = bytes(31) + b"\x2a"
OTHER_SECKEY = bytes(31) + b"\x2b"
PUBKEY = pubkey_of(SECKEY)
MESSAGE = b"\x11" * 32
REFUSED = "must not be copied or stored"


@pytest.fixture
def nonce() -> SecNonce:
    return SecNonce(Keypair(SECKEY))


def session_of(nonce: SecNonce, message: bytes = MESSAGE) -> Session:
    return Session(
        key_agg=KeyAgg([PUBKEY]), aggnonce=musig2.nonce_agg([nonce.pubnonce]), message=message
    )


def test_a_nonce_signs_once_and_never_again(nonce: SecNonce) -> None:
    session = session_of(nonce)
    signature = session.partial_sig_agg([nonce.sign(session)])
    assert schnorr.verify(signature, MESSAGE, session.key_agg.output_key)
    assert nonce.is_spent
    with pytest.raises(NonceReuse):
        nonce.sign(session)
    with pytest.raises(NonceReuse):
        nonce.sign(session_of(nonce, b"\x22" * 32))


def test_a_nonce_signs_once_whichever_thread_is_first() -> None:
    n_threads = 4
    for _ in range(50):
        nonce = SecNonce(Keypair(SECKEY))
        sessions = [session_of(nonce, bytes((n,)) * 32) for n in range(n_threads)]
        gate = Barrier(n_threads)

        def attempt(session: Session, nonce: SecNonce = nonce, gate: Barrier = gate) -> bool:
            gate.wait()
            try:
                nonce.sign(session)
            except NonceReuse:
                return False
            return True

        with ThreadPoolExecutor(n_threads) as threads:
            assert sum(threads.map(attempt, sessions)) == 1
        assert nonce.is_spent


def test_an_attempt_with_a_broken_session_spends_the_nonce(nonce: SecNonce) -> None:
    session = session_of(nonce)
    broken = Session.__new__(Session)
    with pytest.raises(AttributeError):
        nonce.sign(broken)
    with pytest.raises(NonceReuse):
        nonce.sign(session)


def test_a_dropped_nonce_is_gone_and_may_be_dropped_again(nonce: SecNonce) -> None:
    session = session_of(nonce)
    spent = [nonce.is_spent]
    for _ in range(2):
        nonce.drop()
        spent.append(nonce.is_spent)
    assert spent == [False, True, True]
    with pytest.raises(NonceReuse):
        nonce.sign(session)


def scalars_of(nonce: SecNonce) -> CData:
    ((secnonce, _),) = nonce._held
    assert any(bytes(ffi.buffer(secnonce)))
    return secnonce


def test_dropping_overwrites_the_scalars(nonce: SecNonce) -> None:
    secnonce = scalars_of(nonce)
    nonce.drop()
    assert not any(bytes(ffi.buffer(secnonce)))


def test_signing_overwrites_the_scalars(nonce: SecNonce) -> None:
    secnonce = scalars_of(nonce)
    nonce.sign(session_of(nonce))
    assert not any(bytes(ffi.buffer(secnonce)))


def test_a_failure_overwrites_the_scalars(nonce: SecNonce) -> None:
    secnonce = scalars_of(nonce)
    with pytest.raises(AttributeError):
        nonce.sign(Session.__new__(Session))
    assert not any(bytes(ffi.buffer(secnonce)))


@pytest.mark.parametrize("is_wiped", [True, False])
def test_below_the_guard_the_library_has_its_own(nonce: SecNonce, *, is_wiped: bool) -> None:
    """What was signed with, or is another key's, signs nothing."""
    session = session_of(nonce)
    secnonce = scalars_of(nonce)
    if is_wiped:
        nonce.sign(session)
    keypair = Keypair(SECKEY if is_wiped else OTHER_SECKEY)
    with pytest.raises(ValueError, match="spent, or another key's"):
        keypair.partial_sign(secnonce, session.key_agg._cache, session._session)
    assert not any(bytes(ffi.buffer(secnonce)))


def test_without_randomness_there_is_no_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_bytes", bytes)
    with pytest.raises(RuntimeError, match="no randomness"):
        SecNonce(Keypair(SECKEY))


def test_a_nonce_is_drawn_from_32_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, draw = list[int](), secrets.token_bytes

    def token_bytes(size: int) -> bytes:
        asked.append(size)
        return draw(size)

    monkeypatch.setattr(secrets, "token_bytes", token_bytes)
    SecNonce(Keypair(SECKEY))
    assert asked == [32]


def test_a_nonce_cannot_be_copied(nonce: SecNonce) -> None:
    with pytest.raises(TypeError, match=REFUSED):
        copy.copy(nonce)
    with pytest.raises(TypeError, match=REFUSED):
        copy.deepcopy(nonce)
    with pytest.raises(TypeError, match=REFUSED):
        copy.deepcopy({"nonces": [nonce]})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_nonce_cannot_be_pickled(nonce: SecNonce, protocol: int) -> None:
    with pytest.raises(TypeError, match=REFUSED):
        pickle.dumps(nonce, protocol)
    with pytest.raises(TypeError, match=REFUSED):
        pickle.dumps((1, [nonce]), protocol)


def test_a_nonce_cannot_be_encoded(nonce: SecNonce) -> None:
    with pytest.raises(TypeError):
        msgspec.json.encode(nonce)
    with pytest.raises(TypeError):
        msgspec.msgpack.encode(nonce)
    with pytest.raises(TypeError):
        bytes(nonce)  # type: ignore[call-overload]  # the attempt is the test


def test_a_nonce_shows_nothing_however_it_is_printed(nonce: SecNonce) -> None:
    shown = {str(nonce), repr(nonce), f"{nonce}", f"{nonce!r:}", "%s" % nonce, "{}".format(nonce)}  # noqa: UP031, UP032 - every way there is
    assert shown == {"SecNonce(secret)"}


def test_a_nonce_has_no_place_for_another_attribute(nonce: SecNonce) -> None:
    with pytest.raises(AttributeError):
        nonce.note = "x"  # type: ignore[attr-defined]  # the attempt is the test
    assert not hasattr(nonce, "__dict__")


def test_no_two_nonces_are_alike() -> None:
    pubnonces = {SecNonce(Keypair(SECKEY)).pubnonce for _ in range(200)}
    assert len(pubnonces) == 200
    assert all(musig2.is_pubnonce(pubnonce) for pubnonce in pubnonces)


@pytest.mark.parametrize("seckey", [bytes(32), b"\xff" * 32, b"", bytes(31), SECKEY + b"\x00"])
def test_a_nonce_for_no_key_is_refused(seckey: bytes) -> None:
    with pytest.raises(ValueError, match="private key"):
        SecNonce(Keypair(seckey))


def test_each_of_many_nonces_is_drawn_from_randomness_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is made at once is what is made one by one of the same 32 bytes each."""
    blocks = [bytes((n,)) * 32 for n in (1, 2, 3)]
    asked: list[int] = []

    def made(drawn: bytes, number: int) -> list[bytes]:
        def token_bytes(size: int) -> bytes:
            asked.append(size)
            return drawn

        monkeypatch.setattr(secrets, "token_bytes", token_bytes)
        return [nonce.pubnonce for nonce in SecNonce.several(Keypair(SECKEY), number)]

    together = made(b"".join(blocks), 3)
    assert together == [one for block in blocks for one in made(block, 1)]
    assert len(set(together)) == 3
    assert asked == [96, 32, 32, 32]
