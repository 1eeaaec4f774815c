"""Keys of clients that left: how a signer holds them, and what of them may be told.

A client that moved out of a factory hands its factory secret and its funding secret over to the
LSP. Here they are checked to be keys, sealed for the store, and unsealed for one pool of nonces.
"""

from dataclasses import dataclass
from typing import Final, NoReturn

from cromford.crypto import keys
from cromford.crypto.sealing import TAG_SIZE, seal_once, unseal
from cromford.signing.keychain import HandedOverKey, Keychain

SEALED_SIZE: Final = 2 * keys.SECKEY_SIZE + TAG_SIZE
NO_KEY: Final = b""  # In place of the public key of a secret that is none.


class KeysUnusable(Exception):
    """What is held of a client's keys is not its keys: says why, and never what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedKeys:
    """The public keys of two secrets that were offered; `NO_KEY` for what is no secret key."""

    factory_pubkey: bytes
    funding_pubkey: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKeys:
    """What is stored of the keys of one client: all of it may be read by anybody.

    Attributes:
        attempt: The LSP's number of the attempt.
        client: The client's participant index in it.
        factory_pubkey: Of the factory secret.
        funding_pubkey: Of the funding secret.
        sealed: Both secrets, encrypted.
    """

    attempt: int
    client: int
    factory_pubkey: bytes
    funding_pubkey: bytes
    sealed: bytes

    @property
    def offered(self) -> OfferedKeys:
        """Which keys they are."""
        return OfferedKeys(factory_pubkey=self.factory_pubkey, funding_pubkey=self.funding_pubkey)


class SecretPair:
    """A factory secret and a funding secret, in memory. Never printed, copied or stored."""

    __slots__ = ("_factory", "_funding", "offered")

    def __init__(self, *, factory_secret: bytes, funding_secret: bytes) -> None:
        self._factory = factory_secret
        self._funding = funding_secret
        self.offered = OfferedKeys(
            factory_pubkey=_pubkey_of(factory_secret), funding_pubkey=_pubkey_of(funding_secret)
        )

    def sealed(self, keychain: Keychain, *, attempt: int, client: int) -> SealedKeys:
        """Return what is stored of them."""
        pubkeys = _joined(self.offered)
        key = keychain.sealing_key(attempt=attempt, client=client, pubkeys=pubkeys)
        return SealedKeys(
            attempt=attempt,
            client=client,
            factory_pubkey=self.offered.factory_pubkey,
            funding_pubkey=self.offered.funding_pubkey,
            sealed=seal_once(
                key, self._factory + self._funding, said=_said(attempt, client, pubkeys)
            ),
        )

    def seckey(self, name: HandedOverKey) -> bytes:
        """Return one of the two."""
        return self._funding if name.is_funding else self._factory

    def __repr__(self) -> str:
        return "SecretPair(secret)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client's keys must not be copied or stored")


def unsealed(keychain: Keychain, stored: SealedKeys) -> SecretPair:
    """Return the keys that were sealed.

    Raises:
        KeysUnusable: If they were damaged, sealed under another seed or journal, or for another
            seat; or are not the secrets of the public keys beside them.
    """
    attempt, client, pubkeys = stored.attempt, stored.client, _joined(stored.offered)
    try:
        key = keychain.sealing_key(attempt=attempt, client=client, pubkeys=pubkeys)
        plain = unseal(key, stored.sealed, said=_said(attempt, client, pubkeys))
    except ValueError:  # No seat has such a number, or `NotSealed`.
        raise KeysUnusable("damaged, or sealed for another seat, journal or seed") from None
    pair = SecretPair(
        factory_secret=plain[: keys.SECKEY_SIZE], funding_secret=plain[keys.SECKEY_SIZE :]
    )
    if pair.offered != stored.offered:
        raise KeysUnusable("not the secrets of the public keys beside them")
    return pair


def _pubkey_of(secret: bytes) -> bytes:
    try:
        return keys.pubkey_of(secret)
    except ValueError:
        return NO_KEY


def _joined(offered: OfferedKeys) -> bytes:
    return offered.factory_pubkey + offered.funding_pubkey


def _said(attempt: int, client: int, pubkeys: bytes) -> bytes:
    return attempt.to_bytes(4, "big") + client.to_bytes(4, "big") + pubkeys
