"""libsecp256k1 itself, on its own objects: the one file that calls its functions.

The binding's typed modules take bytes and parse them at every call, and make a keypair for every
signature. Here a pubkey is parsed once, and a keypair is kept by whoever signs with it. A `Keypair`
and a secret nonce stay what they are, objects of their owner: nothing secret is remembered here.

The library reads as many bytes as a field has, whatever it is given, so every size is checked
first. An array of its objects does not keep them: a name does, until the call is over.
"""

import secrets
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NoReturn

from btclib_secp256k1 import CData, ffi, lib
from btclib_secp256k1.context import ctx

SECKEY_SIZE: Final = 32
PUBKEY_SIZE: Final = 33
XONLY_PUBKEY_SIZE: Final = 32
PUBNONCE_SIZE: Final = 66
PARTIAL_SIG_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
MESSAGE_SIZE: Final = 32
RANDOM_SIZE: Final = 32

# Funding keys and basepoints of channels in use, and the factory keys of a ceremony.
PUBKEYS_CACHED: Final = 8192
XONLY_CACHED: Final = 1024
# A nonce is looked at twice: when it is made or comes, and when it is added up or signed with.
NONCES_CACHED: Final = 256

_COMPRESSED: Final = 258  # SECP256K1_EC_COMPRESSED
_PUBKEY: Final = ffi.typeof("secp256k1_pubkey *")
_XONLY: Final = ffi.typeof("secp256k1_xonly_pubkey *")
_KEYPAIR: Final = ffi.typeof("secp256k1_keypair *")
_KEYAGG_CACHE: Final = ffi.typeof("secp256k1_musig_keyagg_cache *")
_SECNONCE: Final = ffi.typeof("secp256k1_musig_secnonce *")
_PUBNONCE: Final = ffi.typeof("secp256k1_musig_pubnonce *")
_AGGNONCE: Final = ffi.typeof("secp256k1_musig_aggnonce *")
_SESSION: Final = ffi.typeof("secp256k1_musig_session *")
_PARTIAL_SIG: Final = ffi.typeof("secp256k1_musig_partial_sig *")
_PUBKEYS: Final = ffi.typeof("secp256k1_pubkey *[]")
_PUBNONCES: Final = ffi.typeof("secp256k1_musig_pubnonce *[]")
_PARTIAL_SIGS: Final = ffi.typeof("secp256k1_musig_partial_sig *[]")
_INT: Final = ffi.typeof("int *")
_SIZE: Final = ffi.typeof("size_t *")
_32_BYTES: Final = ffi.typeof("unsigned char[32]")
_33_BYTES: Final = ffi.typeof("unsigned char[33]")
_64_BYTES: Final = ffi.typeof("unsigned char[64]")
_66_BYTES: Final = ffi.typeof("unsigned char[66]")


def _sized(data: bytes, size_bytes: int, name: str) -> bytes:
    if len(data) != size_bytes:
        raise ValueError(f"{name}: expected {size_bytes} bytes, received {len(data)}")
    return data


def _read(
    kind: Any,  # noqa: ANN401 - the binding names no type for it
    parse: Callable[[Any, CData, bytes], int],
    data: bytes,
    size_bytes: int,
    name: str,
) -> CData:
    """Return bytes of a fixed size as the library's object of a kind.

    Raises:
        ValueError: If they have another size, or the library does not take them.
    """
    out = ffi.new(kind)
    if not parse(ctx, out, _sized(data, size_bytes, name)):
        raise ValueError(f"invalid {name}")
    return out


class _Nonces:
    """Public or aggregate nonces as the library's objects, by their bytes: the newest ones.

    Unlike a cached function it takes those that were made here, which need no reading. It may be
    called by several threads: a nonce that is not found is read again.
    """

    def __init__(self) -> None:
        self._newest: dict[bytes, CData] = {}
        self._older: dict[bytes, CData] = {}

    def get(self, data: bytes) -> CData | None:
        return self._newest.get(data) or self._older.get(data)

    def keep(self, data: bytes, nonce: CData) -> None:
        if len(self._newest) >= NONCES_CACHED // 2:
            self._older, self._newest = self._newest, {}
        self._newest[data] = nonce


_pubnonces: Final = _Nonces()
_aggnonces: Final = _Nonces()


# Public keys


@lru_cache(maxsize=PUBKEYS_CACHED)
def parsed(pubkey: bytes) -> CData:
    """Return a compressed pubkey as the library's object, which is read and never changed.

    Raises:
        ValueError: If it is no point in compressed form.
    """
    out = ffi.new(_PUBKEY)
    _sized(pubkey, PUBKEY_SIZE, "public key")
    if not lib.secp256k1_ec_pubkey_parse(ctx, out, pubkey, PUBKEY_SIZE):
        raise ValueError("invalid public key")
    return out


@lru_cache(maxsize=XONLY_CACHED)
def parsed_xonly(xonly_pubkey: bytes) -> CData:
    """Return an x-only pubkey as the library's object, which is read and never changed.

    Raises:
        ValueError: If it is no point (BIP 340, `lift_x`).
    """
    parse = lib.secp256k1_xonly_pubkey_parse
    return _read(_XONLY, parse, xonly_pubkey, XONLY_PUBKEY_SIZE, "x-only public key")


def serialized(pubkey: CData) -> bytes:
    """Return the compressed form of a pubkey."""
    out, size = ffi.new(_33_BYTES), ffi.new(_SIZE, PUBKEY_SIZE)
    lib.secp256k1_ec_pubkey_serialize(ctx, out, size, pubkey, _COMPRESSED)
    return bytes(ffi.buffer(out))


def _serialized_xonly(xonly_pubkey: CData) -> bytes:
    out = ffi.new(_32_BYTES)
    lib.secp256k1_xonly_pubkey_serialize(ctx, out, xonly_pubkey)
    return bytes(ffi.buffer(out))


def pubkey_create(seckey: bytes) -> bytes:
    """Return the pubkey of a seckey.

    Raises:
        ValueError: If the seckey is out of range.
    """
    out = ffi.new(_PUBKEY)
    if not lib.secp256k1_ec_pubkey_create(ctx, out, _sized(seckey, SECKEY_SIZE, "private key")):
        raise ValueError("invalid private key")
    return serialized(out)


def pubkey_tweak_add(pubkey: bytes, tweak: bytes) -> bytes:
    """Return pubkey + tweak*G.

    Raises:
        ValueError: If it is no point, the tweak is out of range, or the sum is infinity.
    """
    out = ffi.new(_PUBKEY, parsed(pubkey)[0])
    if not lib.secp256k1_ec_pubkey_tweak_add(ctx, out, _sized(tweak, SECKEY_SIZE, "tweak")):
        raise ValueError("invalid tweak or resulting public key")
    return serialized(out)


def pubkey_mul_sum(pubkeys: Sequence[bytes], factors: Sequence[bytes]) -> bytes:
    """Return the sum of each pubkey times its factor.

    Raises:
        ValueError: If one is no point, a factor is out of range, or the sum is infinity.
    """
    products = []
    for pubkey, factor in zip(pubkeys, factors, strict=True):
        product = ffi.new(_PUBKEY, parsed(pubkey)[0])
        if not lib.secp256k1_ec_pubkey_tweak_mul(
            ctx, product, _sized(factor, SECKEY_SIZE, "factor")
        ):
            raise ValueError("invalid factor")
        products.append(product)
    out = ffi.new(_PUBKEY)
    if not lib.secp256k1_ec_pubkey_combine(ctx, out, ffi.new(_PUBKEYS, products), len(products)):
        raise ValueError("the sum is the point at infinity")
    return serialized(out)


def xonly_tweak_add(xonly_pubkey: bytes, tweak: bytes) -> tuple[bytes, int]:
    """Return the x-only pubkey plus tweak*G, and the parity of that.

    Raises:
        ValueError: If it is no point, the tweak is out of range, or the sum is infinity.
    """
    tweaked, xonly, parity = ffi.new(_PUBKEY), ffi.new(_XONLY), ffi.new(_INT)
    internal = parsed_xonly(xonly_pubkey)
    _sized(tweak, SECKEY_SIZE, "tweak")
    if not lib.secp256k1_xonly_pubkey_tweak_add(ctx, tweaked, internal, tweak):
        raise ValueError("invalid tweak or resulting public key")
    lib.secp256k1_xonly_pubkey_from_pubkey(ctx, xonly, parity, tweaked)
    return _serialized_xonly(xonly), int(parity[0])


# Secret keys, and BIP 340


class Keypair:
    """A seckey with its pubkey, ready to sign. Never printed, copied or stored.

    Raises:
        ValueError: If the seckey is out of range.
    """

    __slots__ = ("_keypair", "_parsed", "_seckey", "pubkey")

    def __init__(self, seckey: bytes) -> None:
        self._keypair = ffi.new(_KEYPAIR)
        _sized(seckey, SECKEY_SIZE, "private key")
        if not lib.secp256k1_keypair_create(ctx, self._keypair, seckey):
            raise ValueError("invalid private key")
        self._seckey = seckey
        self._parsed = ffi.new(_PUBKEY)
        lib.secp256k1_keypair_pub(ctx, self._parsed, self._keypair)
        self.pubkey = serialized(self._parsed)

    def nonce_gen(self) -> tuple[CData, bytes]:
        """Return a fresh secret nonce of this key, and its public nonce of 66 bytes (BIP 327).

        Raises:
            RuntimeError: If the system's randomness is nothing but zeros.
        """
        secnonce, pubnonce = ffi.new(_SECNONCE), ffi.new(_PUBNONCE)
        # The library overwrites what it has drawn from.
        drawn = ffi.new(_32_BYTES, secrets.token_bytes(RANDOM_SIZE))
        rest = (self._seckey, self._parsed, ffi.NULL, ffi.NULL, ffi.NULL)
        if not lib.secp256k1_musig_nonce_gen(ctx, secnonce, pubnonce, drawn, *rest):
            raise RuntimeError("no randomness for a nonce")
        out = ffi.new(_66_BYTES)
        lib.secp256k1_musig_pubnonce_serialize(ctx, out, pubnonce)
        data = bytes(ffi.buffer(out))
        _pubnonces.keep(data, pubnonce)
        return secnonce, data

    def partial_sign(self, secnonce: CData, key_agg_cache: CData, session: CData) -> bytes:
        """Return a partial signature; the library overwrites the secret nonce in any case.

        Raises:
            ValueError: If the secret nonce was overwritten before, or is another key's.
        """
        out = ffi.new(_PARTIAL_SIG)
        if not lib.secp256k1_musig_partial_sign(
            ctx, out, secnonce, self._keypair, key_agg_cache, session
        ):
            raise ValueError("the secret nonce is spent, or another key's")
        signature = ffi.new(_32_BYTES)
        lib.secp256k1_musig_partial_sig_serialize(ctx, signature, out)
        return bytes(ffi.buffer(signature))

    def __repr__(self) -> str:
        return "Keypair(secret)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a keypair must not be copied or stored")


def wipe(secnonce: CData) -> None:
    """Overwrite a secret nonce."""
    memory = ffi.buffer(secnonce)
    memory[:] = bytes(len(memory))


def schnorr_verify(signature: bytes, message: bytes, xonly_pubkey: bytes) -> bool:
    """Say whether a signature is valid (BIP 340).

    Raises:
        ValueError: If the signature has no 64 bytes, or the key is no point.
    """
    _sized(signature, SIGNATURE_SIZE, "signature")
    key = parsed_xonly(xonly_pubkey)
    return bool(lib.secp256k1_schnorrsig_verify(ctx, signature, message, len(message), key))


# BIP 327


def key_agg(pubkeys: Sequence[bytes]) -> tuple[CData, bytes]:
    """Return the aggregate of pubkeys in this order, and its x-only pubkey.

    Raises:
        ValueError: If there is none, or one is no point.
    """
    if not pubkeys:
        raise ValueError("at least one public key is required")
    cache, xonly = ffi.new(_KEYAGG_CACHE), ffi.new(_XONLY)
    held = [parsed(pubkey) for pubkey in pubkeys]
    lib.secp256k1_musig_pubkey_agg(ctx, xonly, cache, ffi.new(_PUBKEYS, held), len(held))
    return cache, _serialized_xonly(xonly)


def key_agg_tweaked(cache: CData, tweak: bytes) -> tuple[CData, bytes]:
    """Return a copy of an aggregate with an x-only tweak, and its x-only pubkey.

    Raises:
        ValueError: If the tweak is out of range, or the sum infinity.
    """
    # A plain struct without pointers or secrets.
    tweaked, out = ffi.new(_KEYAGG_CACHE, cache[0]), ffi.new(_PUBKEY)
    _sized(tweak, SECKEY_SIZE, "tweak")
    if not lib.secp256k1_musig_pubkey_xonly_tweak_add(ctx, out, tweaked, tweak):
        raise ValueError("invalid tweak or resulting public key")
    return tweaked, serialized(out)[1:]


def parsed_pubnonce(pubnonce: bytes) -> CData:
    """Return a public nonce as the library's object, which is read and never changed.

    Raises:
        ValueError: If it is not two points.
    """
    known = _pubnonces.get(pubnonce)
    if known is not None:
        return known
    parse = lib.secp256k1_musig_pubnonce_parse
    read = _read(_PUBNONCE, parse, pubnonce, PUBNONCE_SIZE, "public nonce")
    _pubnonces.keep(pubnonce, read)
    return read


def parsed_aggnonce(aggnonce: bytes) -> CData:
    """Return an aggregate nonce as the library's object, which is read and never changed.

    Raises:
        ValueError: If it is not two points or infinity.
    """
    known = _aggnonces.get(aggnonce)
    if known is not None:
        return known
    parse = lib.secp256k1_musig_aggnonce_parse
    read = _read(_AGGNONCE, parse, aggnonce, PUBNONCE_SIZE, "aggregate nonce")
    _aggnonces.keep(aggnonce, read)
    return read


def nonce_agg(pubnonces: Sequence[bytes]) -> bytes:
    """Return the aggregate of public nonces.

    Raises:
        ValueError: If there is none, or one is not two points.
    """
    if not pubnonces:
        raise ValueError("at least one public nonce is required")
    aggnonce, out = ffi.new(_AGGNONCE), ffi.new(_66_BYTES)
    held = [parsed_pubnonce(pubnonce) for pubnonce in pubnonces]
    lib.secp256k1_musig_nonce_agg(ctx, aggnonce, ffi.new(_PUBNONCES, held), len(held))
    lib.secp256k1_musig_aggnonce_serialize(ctx, out, aggnonce)
    data = bytes(ffi.buffer(out))
    _aggnonces.keep(data, aggnonce)
    return data


def session(aggnonce: bytes, message: bytes, key_agg_cache: CData) -> CData:
    """Return a signing session.

    Raises:
        ValueError: If the aggregate nonce is malformed, or the message has no 32 bytes.
    """
    out, nonce = ffi.new(_SESSION), parsed_aggnonce(aggnonce)
    _sized(message, MESSAGE_SIZE, "message")
    lib.secp256k1_musig_nonce_process(ctx, out, nonce, message, key_agg_cache)
    return out


def parsed_partial_sig(partial_sig: bytes) -> CData:
    """Return a partial signature as the library's object.

    Raises:
        ValueError: If it is no scalar below the group order.
    """
    parse = lib.secp256k1_musig_partial_sig_parse
    return _read(_PARTIAL_SIG, parse, partial_sig, PARTIAL_SIG_SIZE, "partial signature")


def partial_sig_verify(
    partial_sig: bytes, pubnonce: bytes, pubkey: bytes, key_agg_cache: CData, session: CData
) -> bool:
    """Say whether a partial signature is its signer's in this session.

    Raises:
        ValueError: If one of the three is malformed.
    """
    contribution = (parsed_partial_sig(partial_sig), parsed_pubnonce(pubnonce), parsed(pubkey))
    return bool(lib.secp256k1_musig_partial_sig_verify(ctx, *contribution, key_agg_cache, session))


def partial_sig_agg(partial_sigs: Sequence[bytes], session: CData) -> bytes:
    """Return the signature that partial signatures add up to.

    Raises:
        ValueError: If there is none, or one is malformed.
    """
    if not partial_sigs:
        raise ValueError("at least one partial signature is required")
    out = ffi.new(_64_BYTES)
    held = [parsed_partial_sig(partial_sig) for partial_sig in partial_sigs]
    lib.secp256k1_musig_partial_sig_agg(ctx, out, session, ffi.new(_PARTIAL_SIGS, held), len(held))
    return bytes(ffi.buffer(out))
