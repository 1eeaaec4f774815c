"""Every key of one participant, derived from one seed.

The paths are documented in docs/protocol. All steps but the wallet's last two are hardened, so
outside the wallet no key tells anything about another.

    m / PURPOSE' / coin' / 0'                                   node key (BOLT 8 identity)
    m / PURPOSE' / coin' / 1' / journal' / attempt'             factory key
    m / PURPOSE' / coin' / 2' / journal' / attempt' / channel' / candidate' / 0' to 5'
                                                                channel keys
    m / PURPOSE' / coin' / 3'                                   names the seed, signs nothing
    m / PURPOSE' / coin' / 4'                                   encrypts backups, signs nothing
    m / PURPOSE' / coin' / 5' / journal' / attempt' / client'   seals keys that a client handed over
    m / 86' / coin' / 0' / change / index                       wallet keys (BIP 86)

`journal` is a random number drawn when a journal is created, so that a seed whose journal was
lost never uses a factory key twice.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, assert_never

from cromford.bitcoin.network import Network
from cromford.bitcoin.taproot import taptweak
from cromford.crypto import keys, schnorr
from cromford.crypto.curve import Keypair
from cromford.signing.bip32 import ExtendedPubkey, ExtendedSeckey, master_of
from cromford.signing.derivation import ClaimKey, derive_seckey, revocation_seckey

PURPOSE: Final = 0x43524F4D  # "CROM"
NODE: Final = 0
FACTORY: Final = 1
CHANNEL: Final = 2
FINGERPRINT: Final = 3
BACKUP: Final = 4
HANDED_OVER: Final = 5
BIP86_PURPOSE: Final = 86
_hash_fingerprint: Final = keys.TaggedHash("cromford/seed")
_hash_sealing: Final = keys.TaggedHash("cromford/handed-over")
FINGERPRINT_SIZE: Final = 8  # Two seeds of one owner never share it by chance: 2^-64.
N_CHANNEL_KEYS: Final = 6
CHANNELS_CACHED: Final = 1024  # Deriving a channel's keys costs more than signing with them.


@dataclass(frozen=True, slots=True, kw_only=True)
class FactoryKey:
    """Names the factory key of one attempt."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelKey:
    """Names the keys of one channel: the attempt, its place, and the funding candidate."""

    attempt: int
    channel: int
    candidate: int = 0


KeyName = FactoryKey | ChannelKey


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOverKey:
    """Names a key that a client handed over to its LSP. No seed of ours derives it.

    Attributes:
        attempt: The LSP's number of the attempt.
        client: The client's participant index in it.
        is_funding: Whether it is the channel's funding key, and not the factory key.
    """

    attempt: int
    client: int
    is_funding: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPubkeys:
    """The public keys of one side of a channel (BOLT 2 `open_channel`'s)."""

    funding_pubkey: bytes
    revocation_basepoint: bytes
    payment_basepoint: bytes
    delayed_payment_basepoint: bytes
    htlc_basepoint: bytes
    first_per_commitment_point: bytes
    second_per_commitment_point: bytes


def seed_fingerprint(seed: bytes, network: Network) -> bytes:
    """Return what names a seed, alike on all test networks: 8 bytes.

    A tagged hash (BIP 340) of a pubkey that has no other use, at a hardened path: it finds no
    key, no address and no node, and tells nothing but whether two seeds are one.

    Raises:
        ValueError: If the seed's length is out of range.
    """
    node = master_of(seed).derive_hardened(PURPOSE, network.coin_type, FINGERPRINT)
    digest = _hash_fingerprint(keys.pubkey_of(node.seckey))
    return digest[:FINGERPRINT_SIZE]


def backup_secret(seed: bytes, network: Network) -> bytes:
    """Return the 32 bytes from which the keys of a seed's backups are derived.

    At a hardened path of its own, so that who learns it can read backups, and sign nothing.

    Raises:
        ValueError: If the seed's length is out of range.
    """
    return master_of(seed).derive_hardened(PURPOSE, network.coin_type, BACKUP).seckey


class Keychain:
    """Derives and holds the seckeys. Nothing here is printed, logged or sent.

    Args:
        seed: 16 to 64 bytes (BIP 39 gives 64).
        network: For the coin type.
        journal_number: The random number of the journal, below 2^31. No secret.

    Raises:
        ValueError: If the seed's length or the journal number is out of range.
    """

    def __init__(self, seed: bytes, network: Network, *, journal_number: int) -> None:
        master = master_of(seed)
        root = master.derive_hardened(PURPOSE, network.coin_type)
        self._node = root.derive_hardened(NODE).seckey
        self.backup_secret = root.derive_hardened(BACKUP).seckey
        self.seed_fingerprint = seed_fingerprint(seed, network)
        self.journal_number = journal_number
        self._factory = root.derive_hardened(FACTORY, journal_number)
        self._channel = root.derive_hardened(CHANNEL, journal_number)
        self._handed_over = root.derive_hardened(HANDED_OVER, journal_number)
        self._wallet: ExtendedSeckey = master.derive_hardened(BIP86_PURPOSE, network.coin_type, 0)
        self.node_id: bytes = keys.pubkey_of(self._node)
        self._channel_seckeys = lru_cache(maxsize=CHANNELS_CACHED)(self._derive_channel_seckeys)
        self._secret = lru_cache(maxsize=CHANNELS_CACHED)(self._derive_secret)
        self._channel_keypair = lru_cache(maxsize=CHANNELS_CACHED)(self._derive_channel_keypair)
        self._htlc_basepoint = lru_cache(maxsize=CHANNELS_CACHED)(self._derive_htlc_basepoint)
        self._upper_secret = lru_cache(maxsize=CHANNELS_CACHED)(self._derive_upper_secret)
        self.pubkey = lru_cache(maxsize=CHANNELS_CACHED)(self._derive_pubkey)

    @property
    def wallet_account(self) -> ExtendedPubkey:
        """The account key of the wallet: finds coins, spends nothing."""
        return self._wallet.public

    def ecdh(self, pubkey: bytes) -> bytes:
        """Return SHA-256 of the node key's shared point (BOLT 8)."""
        return keys.shared_secret(pubkey, self._node)

    def seckey(self, name: KeyName) -> bytes:
        """Return the seckey that signs for this name: a channel's is its funding key."""
        match name:
            case FactoryKey(attempt=attempt):
                return self._factory.derive_hardened(attempt).seckey
            case ChannelKey():
                return self._channel_seckeys(name)[0]
            case _:
                assert_never(name)

    def keypair(self, name: KeyName) -> Keypair:
        """Return the keypair that signs for this name; a channel's is kept as its seckeys are."""
        if isinstance(name, ChannelKey):
            return self._channel_keypair(name)
        return Keypair(self.seckey(name))

    def sealing_key(self, *, attempt: int, client: int, pubkeys: bytes) -> bytes:
        """Return the key that seals what one client handed over, and nothing else.

        It commits to the public keys of what is sealed, so that it can seal one thing only.
        """
        node = self._handed_over.derive_hardened(attempt, client)
        return _hash_sealing(node.seckey + pubkeys)

    def channel_pubkeys(self, name: ChannelKey) -> ChannelPubkeys:
        """Return the public keys of one channel."""
        funding, revocation, payment, delayed, htlc, _ = self._channel_seckeys(name)
        return ChannelPubkeys(
            funding_pubkey=keys.pubkey_of(funding),
            revocation_basepoint=keys.pubkey_of(revocation),
            payment_basepoint=keys.pubkey_of(payment),
            delayed_payment_basepoint=keys.pubkey_of(delayed),
            htlc_basepoint=keys.pubkey_of(htlc),
            first_per_commitment_point=keys.pubkey_of(self.per_commitment_secret(name, 0)),
            second_per_commitment_point=keys.pubkey_of(self.per_commitment_secret(name, 1)),
        )

    def per_commitment_secret(self, name: ChannelKey, number: int) -> bytes:
        """Return the secret that revokes our commitment of this number; numbers begin at 0.

        Raises:
            ValueError: If there is no such commitment: BOLT 3 counts 2^48 of them, and then the
                secrets would begin again.
        """
        if not 0 <= number <= FIRST_COMMITMENT_INDEX:
            raise ValueError(
                f"commitment number: expected 0..{FIRST_COMMITMENT_INDEX}, received {number}"
            )
        return self._secret(name, number)

    def claim_seckey(self, name: ChannelKey, key: ClaimKey, secret_or_point: bytes) -> bytes:
        """Return the seckey that takes an output of a commitment of this channel.

        Args:
            name: The channel.
            key: Which key.
            secret_or_point: For `REVOCATION` the secret that the peer revealed; else the
                per-commitment point of the commitment's holder.

        Raises:
            ValueError: If the secret is out of range.
        """
        _, revocation, payment, delayed, htlc, _ = self._channel_seckeys(name)
        match key:
            case ClaimKey.REVOCATION:
                return revocation_seckey(revocation, secret_or_point)
            case ClaimKey.PAYMENT:
                return payment
            case ClaimKey.DELAYED:
                return derive_seckey(delayed, secret_or_point)
            case ClaimKey.HTLC:
                return derive_seckey(htlc, secret_or_point, basepoint=self._htlc_basepoint(name))
            case _:
                assert_never(key)

    def sign_node(self, digest: bytes) -> bytes:
        """Return the node key's recoverable ECDSA signature of a digest, as BOLT 11 asks.

        64 bytes and the recovery id.
        """
        return keys.sign_recoverable(digest, self._node)

    def sign_wallet(self, *, change: int, index: int, sighash: bytes) -> bytes:
        """Return the signature of a BIP 86 coin's key path."""
        seckey = self._wallet.derive(change, index).seckey
        internal_key = keys.xonly_of(keys.pubkey_of(seckey))
        return schnorr.sign(sighash, keys.xonly_tweak_seckey(seckey, taptweak(internal_key, None)))

    def _derive_secret(self, name: ChannelKey, number: int) -> bytes:
        index = FIRST_COMMITMENT_INDEX - number
        upper = self._upper_secret(name, index >> N_LOWER_BITS)
        return _flipped(upper, index, n_bits=N_LOWER_BITS)

    def _derive_upper_secret(self, name: ChannelKey, upper_bits: int) -> bytes:
        """Return what all secrets with these upper bits of their index are derived from."""
        seed = self._channel_seckeys(name)[5]
        return per_commitment_secret(seed, upper_bits << N_LOWER_BITS)

    def _derive_pubkey(self, name: KeyName) -> bytes:
        return keys.pubkey_of(self.seckey(name))

    def _derive_htlc_basepoint(self, name: ChannelKey) -> bytes:
        return keys.pubkey_of(self._channel_seckeys(name)[4])

    def _derive_channel_keypair(self, name: ChannelKey) -> Keypair:
        return Keypair(self._channel_seckeys(name)[0])

    def _derive_channel_seckeys(self, name: ChannelKey) -> tuple[bytes, ...]:
        node = self._channel.derive_hardened(name.attempt, name.channel, name.candidate)
        return tuple(node.derive_hardened(i).seckey for i in range(N_CHANNEL_KEYS))

    def __repr__(self) -> str:
        return f"Keychain({self.node_id.hex()}, secret)"


N_INDEX_BITS: Final = 48
N_LOWER_BITS: Final = 8  # A hash for each bit that is set: those above stay for 256 commitments.
FIRST_COMMITMENT_INDEX: Final = (1 << N_INDEX_BITS) - 1  # BOLT 3 counts the secrets down.


def per_commitment_secret(seed: bytes, index: int) -> bytes:
    """Return the per-commitment secret of an index (BOLT 3, `generate_from_seed`)."""
    return _flipped(seed, index, n_bits=N_INDEX_BITS)


def _flipped(secret_before: bytes, index: int, *, n_bits: int) -> bytes:
    """Return what BOLT 3's derivation makes of a secret with the lowest bits of an index."""
    secret = bytearray(secret_before)
    for bit in reversed(range(n_bits)):
        if index >> bit & 1:
            secret[bit // 8] ^= 1 << (bit % 8)
            secret = bytearray(hashlib.sha256(secret).digest())
    return bytes(secret)
