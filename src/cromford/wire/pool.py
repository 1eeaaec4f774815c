"""The public half of a nonce pool, as it travels inside of messages."""

from dataclasses import dataclass

from cromford.crypto.musig2 import PUBNONCE_SIZE
from cromford.signing.nonces import POOL_SIZE_MAX
from cromford.wire.fields import fixed, fixed_list
from cromford.wire.sizes import PUBKEY_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The public half of a nonce pool."""

    pubkey: bytes = fixed(PUBKEY_SIZE)
    pubnonces: tuple[bytes, ...] = fixed_list(PUBNONCE_SIZE, POOL_SIZE_MAX)
