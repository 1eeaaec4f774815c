"""libsecp256k1's own operations, timed through the library the product uses.

They are the floor: whatever a program adds to them is overhead. Objects are parsed and allocated
beforehand, so a batch times the C function and one call into it, and nothing else.
"""

from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from secrets import token_bytes
from statistics import median
from typing import Any, Final

from bench.derivations import derivations
from bench.op import Batch, Op, time_us
from btclib_secp256k1 import ffi, lib
from btclib_secp256k1.context import ctx

from cromford.crypto.keys import pubkey_of

N_MANY: Final = (
    32  # An aggregation of so many, less one of two, gives the cost of each further one.
)
CALLS_DEFAULT: Final = 32
ROUNDS_DEFAULT: Final = 3


# What is timed of N_MANY at once, and what it is split into.
_AGGREGATIONS: Final = {
    Op.KEY_AGG_TWO: Op.KEY_AGG_NEXT,
    Op.NONCE_AGG_TWO: Op.NONCE_AGG_NEXT,
    Op.PARTIAL_AGG_TWO: Op.PARTIAL_AGG_NEXT,
}


def measure(*, calls: int = CALLS_DEFAULT, rounds: int = ROUNDS_DEFAULT) -> dict[Op, float]:
    """Return the cost of every operation in microseconds of CPU: the median of several batches."""
    signing = _signing(max(calls, N_MANY))
    samples: dict[Op, list[float]] = {op: [] for op in Op}
    for _ in range(rounds):
        for op, sample in _round(signing, calls):
            samples[op].append(sample)
    # A difference of two tiny times can come out below nothing on a busy machine.
    return {op: max(median(values), 0.0) for op, values in samples.items()}


def _round(signing: "_Signing", calls: int) -> Iterable[tuple[Op, float]]:
    for op, batch in signing.single_operations(calls).items():
        yield op, time_us(batch)
    for op, batch in derivations(calls).items():
        yield op, time_us(batch)
    for op in _AGGREGATIONS:
        two = time_us(signing.aggregation(op, 2, calls))
        many = time_us(signing.aggregation(op, N_MANY, calls))
        yield op, two
        yield _AGGREGATIONS[op], (many - two) / (N_MANY - 2)


@cache
def _signing(n: int) -> "_Signing":
    return _Signing(n)


class _Signing:
    """The parsed objects of one MuSig2 session with `n` signers, whose keys everybody knows."""

    def __init__(self, n: int) -> None:
        self.message = sha256(b"message").digest()
        self.seckeys = [sha256(b"bench %d" % i).digest() for i in range(n)]
        self.keypairs = [self._keypair(seckey) for seckey in self.seckeys]
        self.pubkeys = [self._pubkey(keypair) for keypair in self.keypairs]
        self.pubkey_bytes = [pubkey_of(seckey) for seckey in self.seckeys]
        self.cache = ffi.new("secp256k1_musig_keyagg_cache *")
        self.agg_pubkey = ffi.new("secp256k1_xonly_pubkey *")
        _check(
            lib.secp256k1_musig_pubkey_agg(
                ctx,
                self.agg_pubkey,
                self.cache,
                ffi.new("secp256k1_pubkey *[]", self.pubkeys),
                n,
            )
        )
        nonces = [self._nonce(i) for i in range(n)]
        self.pubnonces = [pubnonce for _, pubnonce in nonces]
        self.aggnonce = ffi.new("secp256k1_musig_aggnonce *")
        _check(
            lib.secp256k1_musig_nonce_agg(
                ctx, self.aggnonce, ffi.new("secp256k1_musig_pubnonce *[]", self.pubnonces), n
            )
        )
        self.session = ffi.new("secp256k1_musig_session *")
        _check(
            lib.secp256k1_musig_nonce_process(
                ctx, self.session, self.aggnonce, self.message, self.cache
            )
        )
        self.partial_sigs = [
            self._partial_sig(secnonce, keypair)
            for (secnonce, _), keypair in zip(nonces, self.keypairs, strict=True)
        ]
        self.signature = ffi.new("unsigned char[64]")
        _check(
            lib.secp256k1_musig_partial_sig_agg(
                ctx,
                self.signature,
                self.session,
                ffi.new("secp256k1_musig_partial_sig *[]", self.partial_sigs),
                n,
            )
        )
        _check(
            lib.secp256k1_schnorrsig_verify(
                ctx, self.signature, self.message, len(self.message), self.agg_pubkey
            )
        )

    def single_operations(self, calls: int) -> dict[Op, Batch]:
        """Return a batch of `calls` of each operation that is not an aggregation."""
        several = range(calls)
        new = ffi.new
        pubkey, keypair = new("secp256k1_pubkey *"), new("secp256k1_keypair *")
        signature, partial_sig = new("unsigned char[64]"), new("secp256k1_musig_partial_sig *")
        aux_rand = new("unsigned char[32]")
        return {
            Op.PUBKEY_PARSE: Batch(
                lib.secp256k1_ec_pubkey_parse,
                [(ctx, pubkey, self.pubkey_bytes[i], 33) for i in several],
            ),
            Op.PUBKEY_CREATE: Batch(
                lib.secp256k1_ec_pubkey_create, [(ctx, pubkey, self.seckeys[i]) for i in several]
            ),
            Op.KEYPAIR_CREATE: Batch(
                lib.secp256k1_keypair_create, [(ctx, keypair, self.seckeys[i]) for i in several]
            ),
            Op.TWEAK: self._tweaks(calls),
            Op.NONCE_GEN: Batch(
                lib.secp256k1_musig_nonce_gen, [self._nonce_arguments(i) for i in several]
            ),
            Op.PUBNONCE_PARSE: self._pubnonce_parses(calls),
            Op.AGGNONCE_PARSE: self._aggnonce_parses(calls),
            Op.SESSION: Batch(
                lib.secp256k1_musig_nonce_process,
                [
                    (ctx, new("secp256k1_musig_session *"), self.aggnonce, self.message, self.cache)
                    for _ in several
                ],
            ),
            Op.PARTIAL_SIGN: Batch(
                lib.secp256k1_musig_partial_sign,
                [
                    (
                        *(ctx, partial_sig, self._nonce(i)[0], self.keypairs[i]),
                        *(self.cache, self.session),
                    )
                    for i in several
                ],
            ),
            Op.PARTIAL_SIG_PARSE: self._partial_sig_parses(calls),
            Op.SCHNORR_SIGN: Batch(
                lib.secp256k1_schnorrsig_sign32,
                [(ctx, signature, self.message, self.keypairs[i], aux_rand) for i in several],
            ),
            Op.SCHNORR_VERIFY: Batch(
                lib.secp256k1_schnorrsig_verify,
                [(ctx, self.signature, self.message, 32, self.agg_pubkey) for _ in several],
            ),
        }

    def aggregation(self, op: Op, n: int, calls: int) -> Batch:
        """Return a batch of aggregations of `n` keys, nonces or partial signatures."""
        match op:
            case Op.KEY_AGG_TWO:
                function = lib.secp256k1_musig_pubkey_agg
                pubkeys = ffi.new("secp256k1_pubkey *[]", self.pubkeys[:n])
                arguments: list[Any] = [ffi.new("secp256k1_xonly_pubkey *"), _new_cache(), pubkeys]
            case Op.NONCE_AGG_TWO:
                function = lib.secp256k1_musig_nonce_agg
                pubnonces = ffi.new("secp256k1_musig_pubnonce *[]", self.pubnonces[:n])
                arguments = [ffi.new("secp256k1_musig_aggnonce *"), pubnonces]
            case Op.PARTIAL_AGG_TWO:
                function = lib.secp256k1_musig_partial_sig_agg
                partial_sigs = ffi.new("secp256k1_musig_partial_sig *[]", self.partial_sigs[:n])
                arguments = [ffi.new("unsigned char[64]"), self.session, partial_sigs]
            case _:
                raise ValueError(f"{op} is no aggregation")
        return Batch(function, [(ctx, *arguments, n)] * calls)

    def _tweaks(self, calls: int) -> Batch:
        # Each is applied on top of the one before, which costs the same.
        cache = _new_cache()
        ffi.memmove(cache, self.cache, ffi.sizeof("secp256k1_musig_keyagg_cache"))
        out = ffi.new("secp256k1_pubkey *")
        return Batch(
            lib.secp256k1_musig_pubkey_xonly_tweak_add,
            [(ctx, out, cache, self.seckeys[i]) for i in range(calls)],
        )

    def _pubnonce_parses(self, calls: int) -> Batch:
        parsed = ffi.new("secp256k1_musig_pubnonce *")
        raw = ffi.new("unsigned char[66]")
        arguments = []
        for i in range(calls):
            _check(lib.secp256k1_musig_pubnonce_serialize(ctx, raw, self.pubnonces[i]))
            arguments.append((ctx, parsed, bytes(raw)))
        return Batch(lib.secp256k1_musig_pubnonce_parse, arguments)

    def _aggnonce_parses(self, calls: int) -> Batch:
        parsed = ffi.new("secp256k1_musig_aggnonce *")
        raw = ffi.new("unsigned char[66]")
        _check(lib.secp256k1_musig_aggnonce_serialize(ctx, raw, self.aggnonce))
        return Batch(lib.secp256k1_musig_aggnonce_parse, [(ctx, parsed, bytes(raw))] * calls)

    def _partial_sig_parses(self, calls: int) -> Batch:
        parsed = ffi.new("secp256k1_musig_partial_sig *")
        raw = ffi.new("unsigned char[32]")
        _check(lib.secp256k1_musig_partial_sig_serialize(ctx, raw, self.partial_sigs[0]))
        return Batch(lib.secp256k1_musig_partial_sig_parse, [(ctx, parsed, bytes(raw))] * calls)

    def _nonce_arguments(self, i: int) -> tuple[Any, ...]:
        secnonce, pubnonce = (
            ffi.new("secp256k1_musig_secnonce *"),
            ffi.new("secp256k1_musig_pubnonce *"),
        )
        # The library overwrites this randomness, and refuses it a second time.
        secrand = ffi.new("unsigned char[32]", token_bytes(32))
        rest = (self.seckeys[i], self.pubkeys[i], ffi.NULL, ffi.NULL, ffi.NULL)
        return (ctx, secnonce, pubnonce, secrand, *rest)

    def _nonce(self, i: int) -> tuple[Any, Any]:
        arguments = self._nonce_arguments(i)
        _check(lib.secp256k1_musig_nonce_gen(*arguments))
        return arguments[1], arguments[2]

    def _partial_sig(self, secnonce: Any, keypair: Any) -> Any:  # noqa: ANN401 - cffi's objects
        out = ffi.new("secp256k1_musig_partial_sig *")
        _check(
            lib.secp256k1_musig_partial_sign(ctx, out, secnonce, keypair, self.cache, self.session)
        )
        return out

    @staticmethod
    def _keypair(seckey: bytes) -> Any:  # noqa: ANN401 - cffi's objects
        out = ffi.new("secp256k1_keypair *")
        _check(lib.secp256k1_keypair_create(ctx, out, seckey))
        return out

    @staticmethod
    def _pubkey(keypair: Any) -> Any:  # noqa: ANN401 - cffi's objects
        out = ffi.new("secp256k1_pubkey *")
        _check(lib.secp256k1_keypair_pub(ctx, out, keypair))
        return out


def _new_cache() -> Any:  # noqa: ANN401 - cffi's objects
    return ffi.new("secp256k1_musig_keyagg_cache *")


def _check(answer: int) -> None:
    if not answer:
        raise AssertionError("libsecp256k1 refused its own objects")
