"""libsecp256k1 itself, on its own objects: the one file that calls its functions.

The binding's typed modules take bytes and parse them at every call, and make a keypair for every
signature. Here a pubkey is parsed once, and a keypair is kept by whoever signs with it. A `Keypair`
and a secret nonce stay what they are, objects of their owner: nothing secret is remembered here.

The library reads as many bytes as a field has, whatever it is given, so every size is checked
first. A pointer into an array of its objects does not keep the array: a name does, until the call
is over.
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
_PARTIAL_SIGS: Final = ffi.typeof("secp256k1_musig_partial_sig[]")
_INT: Final = ffi.typeof("int *")
_NOTHING: Final = bytes(ffi.sizeof("secp256k1_musig_secnonce"))
_BYTES: Final = ffi.typeof("unsigned char[]")
_32_BYTES: Final = ffi.typeof("unsigned char[32]")
_33_BYTES: Final = ffi.typeof("unsigned char[33]")
_64_BYTES: Final = ffi.typeof("unsigned char[64]")
_66_BYTES: Final = ffi.typeof("unsigned char[66]")


def _sized(data: bytes, size_bytes: int, name: str) -> bytes:
    if len(data) != size_bytes:
        raise ValueError(f"{name}: expected {size_bytes} bytes, received {len(data)}")
    return data


class _Known(dict[bytes, CData]):
    """Points as the library's objects, by their bytes: the newest. They are read, never changed.

    What is not there is parsed as it is asked for. Unlike a cached function it takes what was made
    here, which needs no parsing. Several threads may ask: one may parse again what another did.

    Args:
        kind: The library's type.
        parse: Its function.
        size_bytes: How long the bytes are.
        name: What they are called.
        limit: How many are kept.
    """

    def __init__(
        self,
        kind: Any,  # noqa: ANN401 - the binding names no type for it
        parse: Callable[[Any, CData, bytes], int],
        *,
        size_bytes: int,
        name: str,
        limit: int,
    ) -> None:
        self._kind, self._parse, self._size_bytes, self._name = kind, parse, size_bytes, name
        self._limit = limit
        self._older: dict[bytes, CData] = {}

    def __missing__(self, data: bytes) -> CData:
        """Return what was kept before the newest, or is parsed now.

        Raises:
            ValueError: If they have another size, or the library does not take them.
        """
        known = self._older.get(data)
        if known is not None:
            return known
        known = ffi.new(self._kind)
        if not self._parse(ctx, known, _sized(data, self._size_bytes, self._name)):
            raise ValueError(f"invalid {self._name}")
        self.keep(data, known)
        return known

    def keep(self, data: bytes, known: CData) -> None:
        """Keep an object under its bytes; the oldest half goes when there are too many."""
        if len(self) >= self._limit // 2:
            self._older = dict(self)
            self.clear()
        self[data] = known


_pubnonces: Final = _Known(
    _PUBNONCE,
    lib.secp256k1_musig_pubnonce_parse,
    size_bytes=PUBNONCE_SIZE,
    name="public nonce",
    limit=NONCES_CACHED,
)
_aggnonces: Final = _Known(
    _AGGNONCE,
    lib.secp256k1_musig_aggnonce_parse,
    size_bytes=PUBNONCE_SIZE,
    name="aggregate nonce",
    limit=NONCES_CACHED,
)
_xonlys: Final = _Known(
    _XONLY,
    lib.secp256k1_xonly_pubkey_parse,
    size_bytes=XONLY_PUBKEY_SIZE,
    name="x-only public key",
    limit=XONLY_CACHED,
)


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


def serialized(pubkey: CData) -> bytes:
    """Return the compressed form of a pubkey."""
    out = ffi.new(_33_BYTES)
    lib.secp256k1_ec_pubkey_serialize(ctx, out, [PUBKEY_SIZE], pubkey, _COMPRESSED)
    return bytes(ffi.buffer(out))


def _serialized_xonly(xonly_pubkey: CData) -> bytes:
    out = ffi.new(_32_BYTES)
    lib.secp256k1_xonly_pubkey_serialize(ctx, out, xonly_pubkey)
    return bytes(ffi.buffer(out))


def _kept_xonly(pubkey: CData) -> bytes:
    """Return the x-only form of a pubkey that was made here; as a point it is known from now on."""
    xonly = ffi.new(_XONLY)
    lib.secp256k1_xonly_pubkey_from_pubkey(ctx, xonly, ffi.NULL, pubkey)
    data = _serialized_xonly(xonly)
    _xonlys.keep(data, xonly)
    return data


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
    if not lib.secp256k1_ec_pubkey_combine(ctx, out, products, len(products)):
        raise ValueError("the sum is the point at infinity")
    _kept_xonly(out)  # It is what a revocation key is tweaked as, next.
    return serialized(out)


def xonly_tweak_add(xonly_pubkey: bytes, tweak: bytes) -> tuple[bytes, int]:
    """Return the x-only pubkey plus tweak*G, and the parity of that.

    Raises:
        ValueError: If it is no point, the tweak is out of range, or the sum is infinity.
    """
    tweaked, xonly, parity = ffi.new(_PUBKEY), ffi.new(_XONLY), ffi.new(_INT)
    internal = _xonlys[xonly_pubkey]
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

    def nonces(self, number: int) -> list[tuple[CData, bytes]]:
        """Return fresh secret nonces of this key, each with its public nonce of 66 bytes (BIP 327).

        Raises:
            RuntimeError: If the system's randomness is nothing but zeros.
        """
        # The library overwrites what it has drawn from.
        drawn = ffi.new(_BYTES, secrets.token_bytes(RANDOM_SIZE * number))
        out, made = ffi.new(_66_BYTES), []
        serialized_nonce = ffi.buffer(out)
        rest = (self._seckey, self._parsed, ffi.NULL, ffi.NULL, ffi.NULL)
        for place in range(0, RANDOM_SIZE * number, RANDOM_SIZE):
            secnonce, pubnonce = ffi.new(_SECNONCE), ffi.new(_PUBNONCE)
            if not lib.secp256k1_musig_nonce_gen(ctx, secnonce, pubnonce, drawn + place, *rest):
                raise RuntimeError("no randomness for a nonce")
            lib.secp256k1_musig_pubnonce_serialize(ctx, out, pubnonce)
            data = bytes(serialized_nonce)
            _pubnonces.keep(data, pubnonce)
            made.append((secnonce, data))
        return made

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
    ffi.memmove(secnonce, _NOTHING, len(_NOTHING))


def schnorr_verify(signature: bytes, message: bytes, xonly_pubkey: bytes) -> bool:
    """Say whether a signature is valid (BIP 340).

    Raises:
        ValueError: If the signature has no 64 bytes, or the key is no point.
    """
    _sized(signature, SIGNATURE_SIZE, "signature")
    key = _xonlys[xonly_pubkey]
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
    lib.secp256k1_musig_pubkey_agg(ctx, xonly, cache, held, len(held))
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
    return tweaked, _kept_xonly(out)


def parsed_pubnonce(pubnonce: bytes) -> CData:
    """Return a public nonce as the library's object, which is read and never changed.

    Raises:
        ValueError: If it is not two points.
    """
    return _pubnonces[pubnonce]


def parsed_aggnonce(aggnonce: bytes) -> CData:
    """Return an aggregate nonce as the library's object, which is read and never changed.

    Raises:
        ValueError: If it is not two points or infinity.
    """
    return _aggnonces[aggnonce]


def nonce_agg(pubnonces: Sequence[bytes]) -> bytes:
    """Return the aggregate of public nonces.

    Raises:
        ValueError: If there is none, or one is not two points.
    """
    if not pubnonces:
        raise ValueError("at least one public nonce is required")
    aggnonce, out = ffi.new(_AGGNONCE), ffi.new(_66_BYTES)
    held = [_pubnonces[pubnonce] for pubnonce in pubnonces]
    lib.secp256k1_musig_nonce_agg(ctx, aggnonce, held, len(held))
    lib.secp256k1_musig_aggnonce_serialize(ctx, out, aggnonce)
    data = bytes(ffi.buffer(out))
    _aggnonces.keep(data, aggnonce)
    return data


def session(aggnonce: bytes, message: bytes, key_agg_cache: CData) -> CData:
    """Return a signing session.

    Raises:
        ValueError: If the aggregate nonce is malformed, or the message has no 32 bytes.
    """
    out, nonce = ffi.new(_SESSION), _aggnonces[aggnonce]
    _sized(message, MESSAGE_SIZE, "message")
    lib.secp256k1_musig_nonce_process(ctx, out, nonce, message, key_agg_cache)
    return out


def partial_sig_verify(
    partial_sig: bytes, pubnonce: bytes, pubkey: bytes, key_agg_cache: CData, session: CData
) -> bool:
    """Say whether a partial signature is its signer's in this session.

    Raises:
        ValueError: If one of the three is malformed.
    """
    parsed_sig = _parsed_partial_sigs((partial_sig,))
    contribution = (parsed_sig, _pubnonces[pubnonce], parsed(pubkey))
    return bool(lib.secp256k1_musig_partial_sig_verify(ctx, *contribution, key_agg_cache, session))


def _parsed_partial_sigs(partial_sigs: Sequence[bytes]) -> CData:
    """Return an array of partial signatures, as the library's objects."""
    array, parse = ffi.new(_PARTIAL_SIGS, len(partial_sigs)), lib.secp256k1_musig_partial_sig_parse
    for i, partial_sig in enumerate(partial_sigs):
        if not parse(ctx, array + i, _sized(partial_sig, PARTIAL_SIG_SIZE, "partial signature")):
            raise ValueError("invalid partial signature")
    return array


def partial_sig_agg(partial_sigs: Sequence[bytes], session: CData) -> bytes:
    """Return the signature that partial signatures add up to.

    Raises:
        ValueError: If there is none, or one is malformed.
    """
    if not partial_sigs:
        raise ValueError("at least one partial signature is required")
    array, out = _parsed_partial_sigs(partial_sigs), ffi.new(_64_BYTES)
    places = [array + i for i in range(len(partial_sigs))]
    lib.secp256k1_musig_partial_sig_agg(ctx, out, session, places, len(places))
    return bytes(ffi.buffer(out))
