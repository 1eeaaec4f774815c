"""BIP 327 MuSig2: key aggregation, nonces, partial signatures.

The secret nonce is the most dangerous value in the whole program: two partial signatures made
with one of them reveal the secret key to anybody. `SecNonce` can be spent once, and cannot be
copied, pickled or printed.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Never, Self

from btclib_secp256k1 import CData

from cromford.crypto import curve
from cromford.crypto.curve import Keypair
from cromford.crypto.keys import is_pubkey, xonly_tweak

PUBNONCE_SIZE: Final = curve.PUBNONCE_SIZE
PARTIAL_SIG_SIZE: Final = curve.PARTIAL_SIG_SIZE
KEY_AGGS_CACHED: Final = 4
# Of secp256k1 (SEC 2), big-endian as scalars are: bytes compare as numbers do.
GROUP_ORDER: Final = bytes.fromhex(
    "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
)


class NonceReuse(Exception):
    """A secret nonce was asked for a second signature. Always a bug of ours, never retried."""


class InvalidContribution(ValueError):
    """One signer's contribution is malformed.

    `signer_index` is its place in the sequence that was aggregated.
    """

    def __init__(self, signer_index: int, contribution: str) -> None:
        super().__init__(f"signer {signer_index} sent an invalid {contribution}")
        self.signer_index = signer_index
        self.contribution = contribution


def key_sort(pubkeys: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the pubkeys in BIP 327 `KeySort` order, which is lexicographic."""
    return tuple(sorted(pubkeys))


class AggregateKey:
    """An aggregate of pubkeys that need not be known, with at most one taproot tweak: a value.

    It is paid to, and it verifies. Nobody signs with it: a session takes what only `KeyAgg` has.

    Args:
        internal_key: The x-only aggregate, untweaked.
    """

    __slots__ = ("_is_tweaked", "internal_key", "output_key")

    def __init__(self, internal_key: bytes) -> None:
        self.internal_key = internal_key
        self.output_key = internal_key
        self._is_tweaked = False

    def tweaked(self, tweak: bytes) -> Self:
        """Return it with a taproot tweak (BIP 341): its `output_key` is the tweaked key.

        Raises:
            ValueError: If this one is tweaked already, is no point, or the tweak is out of range.
        """
        if self._is_tweaked:
            raise ValueError("the aggregate key is already tweaked")
        tweaked = object.__new__(type(self))
        tweaked.internal_key = self.internal_key
        tweaked._is_tweaked = True
        self._tweak(tweaked, tweak)
        return tweaked

    @property
    def without_signers(self) -> "AggregateKey":
        """The same key, of which it is not known who signs."""
        return self

    def _tweak(self, tweaked: Self, tweak: bytes) -> None:
        """Give a copy what the tweak changes."""
        tweaked.output_key, _ = xonly_tweak(self.internal_key, tweak)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def _content(self) -> tuple[object, ...]:
        return self.internal_key, self.output_key


class KeyAgg(AggregateKey):
    """The aggregate of sorted pubkeys, with at most one taproot tweak: a value.

    Aggregating costs as much as several signatures, so who needs one aggregate twice passes it on.

    Args:
        pubkeys: 33-byte pubkeys in any order; they are sorted (BIP 327 `KeySort`). A key that
            appears twice is refused: BIP 327 allows it, but here it means that two
            participants hold one key.

    Raises:
        InvalidContribution: If a pubkey is not a point; the index is into the sorted keys.
        ValueError: If there is none, or two are equal.
    """

    __slots__ = ("_cache", "pubkeys")

    def __init__(self, pubkeys: Sequence[bytes]) -> None:
        self.pubkeys: tuple[bytes, ...] = key_sort(pubkeys)
        if len(set(self.pubkeys)) != len(self.pubkeys):
            raise ValueError("two signers with one pubkey")
        self._cache, internal_key = _aggregated(self.pubkeys)
        super().__init__(internal_key)

    @property
    def without_signers(self) -> AggregateKey:
        """The same key, of which it is not known who signs."""
        bare = AggregateKey(self.internal_key)
        bare.output_key = self.output_key
        bare._is_tweaked = self._is_tweaked  # noqa: SLF001 - one module
        return bare

    def _tweak(self, tweaked: Self, tweak: bytes) -> None:
        tweaked.pubkeys = self.pubkeys
        tweaked._cache, tweaked.output_key = curve.key_agg_tweaked(self._cache, tweak)

    def _content(self) -> tuple[object, ...]:
        return self.pubkeys, self.output_key


# A house pays to all signers of a factory, which then builds its tree under their aggregate.
@lru_cache(maxsize=KEY_AGGS_CACHED)
def _aggregated(pubkeys: tuple[bytes, ...]) -> tuple[CData, bytes]:
    """Return the aggregate; a pubkey that is not a point is named by its place."""
    try:
        return curve.key_agg(pubkeys)
    except ValueError:
        for index, pubkey in enumerate(pubkeys):
            if not is_pubkey(pubkey):
                raise InvalidContribution(index, "pubkey") from None
        raise


class SecNonce:
    """A secret nonce that can be spent once, with the public nonce that goes with it.

    Two signatures made with one nonce reveal the secret key. So the object forgets its
    scalars as it hands them over, and refuses to be copied, stored or printed.

    Args:
        keypair: What it will sign with (BIP 327 binds a nonce to its pubkey). The seckey is folded
            in as a defence against a weak random generator.
    """

    __slots__ = ("_held", "pubnonce")

    def __init__(self, keypair: Keypair) -> None:
        ((secnonce, self.pubnonce),) = keypair.nonces(1)
        self._held = [(secnonce, keypair)]

    @classmethod
    def several(cls, keypair: Keypair, number: int) -> list[Self]:
        """Return as many secret nonces of one keypair."""
        made = []
        for secnonce, pubnonce in keypair.nonces(number):
            nonce = object.__new__(cls)
            nonce.pubnonce, nonce._held = pubnonce, [(secnonce, keypair)]
            made.append(nonce)
        return made

    @property
    def is_spent(self) -> bool:
        """Whether it has signed or been dropped."""
        return not self._held

    def sign(self, session: "Session") -> bytes:
        """Return the 32-byte partial signature, and forget the scalars whatever happens.

        Raises:
            NonceReuse: If it was spent before.
        """
        try:
            secnonce, keypair = self._held.pop()  # Whichever thread comes first.
        except IndexError:
            raise NonceReuse("this secret nonce was spent before") from None
        # BIP 327 recommends verifying one's own partial signature against random faults. The
        # aggregate is verified before anything relies on it, so that cost is not paid twice.
        try:
            return keypair.partial_sign(secnonce, session.key_agg._cache, session._session)  # noqa: SLF001 - one module
        finally:
            curve.wipe(secnonce)

    def drop(self) -> None:
        """Forget the scalars without signing."""
        while self._held:
            curve.wipe(self._held.pop()[0])

    def __repr__(self) -> str:
        return "SecNonce(secret)"

    def __copy__(self) -> Never:
        raise TypeError("a secret nonce must not be copied or stored")

    def __deepcopy__(self, memo: object) -> Never:
        raise TypeError("a secret nonce must not be copied or stored")

    def __reduce__(self) -> Never:
        raise TypeError("a secret nonce must not be copied or stored")


def nonce_agg(pubnonces: Sequence[bytes]) -> bytes:
    """Return the 66-byte aggregate nonce (BIP 327 `NonceAgg`). The order does not matter.

    Raises:
        InvalidContribution: If a pubnonce is malformed.
        ValueError: If there is none.
    """
    try:
        return curve.nonce_agg(pubnonces)
    except ValueError:
        for index, pubnonce in enumerate(pubnonces):
            if not is_pubnonce(pubnonce):
                raise InvalidContribution(index, "pubnonce") from None
        raise


def is_pubnonce(pubnonce: bytes) -> bool:
    """Say whether these 66 bytes are a public nonce (two points)."""
    try:
        curve.parsed_pubnonce(pubnonce)
    except ValueError:
        return False
    return True


def is_aggnonce(aggnonce: bytes) -> bool:
    """Say whether these 66 bytes are an aggregate nonce (two points or infinity)."""
    try:
        curve.parsed_aggnonce(aggnonce)
    except ValueError:
        return False
    return True


class Session:
    """One MuSig2 signing session: a message, an aggregate nonce, an aggregate key.

    Raises:
        ValueError: If the aggregate nonce or the message is malformed.
    """

    __slots__ = ("_session", "key_agg")

    def __init__(self, *, key_agg: KeyAgg, aggnonce: bytes, message: bytes) -> None:
        self.key_agg = key_agg
        self._session = curve.session(aggnonce, message, key_agg._cache)  # noqa: SLF001 - one module

    def partial_sig_verify(self, *, partial_sig: bytes, pubnonce: bytes, pubkey: bytes) -> bool:
        """Say whether this signer's partial signature is valid. Malformed ones are invalid."""
        try:
            return curve.partial_sig_verify(
                partial_sig,
                pubnonce,
                pubkey,
                self.key_agg._cache,  # noqa: SLF001 - one module
                self._session,
            )
        except ValueError:
            return False

    def partial_sig_agg(self, partial_sigs: Sequence[bytes]) -> bytes:
        """Return the 64-byte signature. It is valid only if every partial signature is.

        Raises:
            InvalidContribution: If one is malformed.
            ValueError: If there is none.
        """
        try:
            return curve.partial_sig_agg(partial_sigs, self._session)
        except ValueError:
            for index, partial_sig in enumerate(partial_sigs):
                if not is_partial_sig(partial_sig):
                    raise InvalidContribution(index, "partial_sig") from None
            raise


def is_partial_sig(partial_sig: bytes) -> bool:
    """Say whether these 32 bytes are a scalar below the group order (BIP 327 `PartialSigAgg`)."""
    return len(partial_sig) == PARTIAL_SIG_SIZE and partial_sig < GROUP_ORDER
